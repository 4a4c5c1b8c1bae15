"""Count how two classifiers' right and wrong answers overlap, class by class.

Everything else that this package measures is a ratio of these counts. Functions and metrics go through the same stages:
say how many groups are counted, validate the arguments, validate the tensors, count. There is no compute stage: the
counts are the result.
"""

import math
from typing import Literal, NoReturn

import torch
from torch import Tensor

Task = Literal["binary", "multiclass", "multilabel"]

_TASKS = ("binary", "multiclass", "multilabel")
_CELLS = 4  # (h1 wrong, right) x (h2 wrong, right)


def overlap_counts(
    preds_labels: Tensor,
    target_labels: Tensor,
    reference_labels: Tensor,
    num_classes: int,
    ignore_index: int | None = None,
) -> Tensor:
    r"""Count right and wrong answers of two models by true class, from labels.

    .. math::
        n_{c,r,s} = \sum_i 1[y_i = c]\; 1[1[a_i = y_i] = r]\; 1[1[b_i = y_i] = s]

    where :math:`a_i` is the label that the old model h1 gives, :math:`b_i` that of the new model h2 and
    :math:`y_i` the target. Meant for the inside of a training step: no value is read back to the host, no shape
    depends on data, and it compiles to one graph. For the same reason values are not validated: an entry whose
    target is no class is left out, and a predicted label that is no class is simply wrong.

    Args:
        preds_labels: Labels of h2, integers (any width, or bool) of any shape.
        target_labels: True labels, integers of the same shape.
        reference_labels: Labels of h1, integers of the same shape.
        num_classes: Number of classes C.
        ignore_index: A target value to leave out, inside or outside the classes.

    Returns:
        int64 tensor of shape `(C, 2, 2)` indexed `[true class, h1 right, h2 right]` (index 1 is right), on the
        device of the labels.

    Raises:
        ValueError: If the shapes differ or a tensor holds floating-point values.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.functional import overlap_counts
        >>> target = tensor([0, 0, 1, 1])
        >>> overlap_counts(tensor([0, 1, 1, 0]), target, tensor([0, 0, 0, 0]), num_classes=2)
        tensor([[[0, 0],
                 [1, 1]],
                [[1, 1],
                 [0, 0]]])
    """
    for name, labels in (
        ("preds_labels", preds_labels),
        ("target_labels", target_labels),
        ("reference_labels", reference_labels),
    ):
        if labels.shape != target_labels.shape:
            raise ValueError(
                f"Expected `{name}` to have the shape of `target_labels`, {tuple(target_labels.shape)}, "
                f"but got {tuple(labels.shape)}."
            )
        if labels.is_floating_point() or labels.is_complex():
            raise ValueError(
                f"Expected `{name}` to hold integer labels, but got {labels.dtype}. Pass scores through argmax first."
            )
    target = target_labels.reshape(-1).long()
    keep = (target >= 0) & (target < num_classes)
    if ignore_index is not None:
        keep = keep & (target != ignore_index)
    return _count_cells(
        group=target,
        h1_right=reference_labels.reshape(-1).long() == target,
        h2_right=preds_labels.reshape(-1).long() == target,
        keep=keep,
        num_groups=num_classes,
    )


def _count_cells(group: Tensor, h1_right: Tensor, h2_right: Tensor, keep: Tensor, num_groups: int) -> Tensor:
    """Count flat observations into `(num_groups, 2, 2)`; those not kept go to one extra bin that is cut off.

    The extra bin is what makes this safe without a look at the values: nothing is selected (which would need the
    number of kept entries on the host) and nothing can be written outside the buffer.
    """
    cell = _CELLS * group + 2 * h1_right + h2_right
    cell = torch.where(keep, cell, _CELLS * num_groups)
    counts = torch.zeros(_CELLS * num_groups + 1, dtype=torch.long, device=group.device)
    counts = counts.scatter_add(0, cell, torch.ones_like(cell))
    return counts[:-1].reshape(num_groups, 2, 2)


def _kept(target: Tensor, ignore_index: int | None) -> Tensor:
    """Say which entries count."""
    return torch.ones_like(target, dtype=torch.bool) if ignore_index is None else target != ignore_index


# -------------------------------------------------------------------------------- validation


def _number_of_groups(task: Task, num_classes: int | None, num_labels: int | None) -> int:
    """Say how many groups are counted: classes, or labels. Nothing can be done without, so this is always validated."""
    if task not in _TASKS:
        raise ValueError(f"Expected argument `task` to be one of {_TASKS}, but got {task!r}.")
    if task == "binary":
        return 2
    name, number = ("num_classes", num_classes) if task == "multiclass" else ("num_labels", num_labels)
    if not isinstance(number, int) or isinstance(number, bool) or number < 2:
        raise ValueError(f"Expected argument `{name}` to be an integer larger than 1, but got {number!r}.")
    return number


def _overlap_arg_validation(task: Task, threshold: float, ignore_index: int | None) -> None:
    """Validate what is not a tensor.

    - `threshold` has to be a float in [0, 1], but for the multiclass task, which has none
    - `ignore_index` has to be None or an integer
    """
    if task != "multiclass" and not (isinstance(threshold, float) and 0 <= threshold <= 1):
        raise ValueError(
            f"Expected argument `threshold` to be a float in [0, 1] (it is a probability), but got {threshold!r}."
        )
    if ignore_index is not None and (not isinstance(ignore_index, int) or isinstance(ignore_index, bool)):
        raise ValueError(f"Expected argument `ignore_index` to be None or an integer, but got {ignore_index!r}.")


def _tensor_type_validation(preds: Tensor, target: Tensor, reference_preds: Tensor) -> None:
    for name, value in (("preds", preds), ("target", target), ("reference_preds", reference_preds)):
        if not isinstance(value, Tensor):
            raise TypeError(f"Expected `{name}` to be a torch.Tensor, but got {type(value).__name__}.")
        if value.is_complex():
            raise ValueError(f"Expected `{name}` to be real, but got {value.dtype}.")


def _labels_validation(name: str, labels: Tensor, target: Tensor, num_classes: int, ignore_index: int | None) -> None:
    """Refuse labels outside the classes, wherever the target is not ignored."""
    if labels.numel() == 0:
        return
    labels = labels.reshape(-1).long()
    low, high = torch.aminmax(labels)
    if low.item() >= 0 and high.item() < num_classes:  # two numbers, compared here: half the time of two tensor ops
        return
    outside = labels[((labels < 0) | (labels >= num_classes)) & _kept(target.reshape(-1).long(), ignore_index)]
    if outside.numel() > 0:
        hint = ""
        if name == "target":
            hint = " Pass that value as `ignore_index` if it marks entries to leave out."
        elif name == "reference_preds":
            hint = " Map the old model's labels to the new classes first."
        raise ValueError(
            f"Expected the labels in `{name}` to be in [0, {num_classes - 1}], but found {outside[0].item()} "
            f"({outside.numel()} of {labels.numel()} entries are outside).{hint}"
        )


def _whole_numbers_validation(target: Tensor) -> None:
    if target.is_floating_point() and bool((target != target.round()).any()):
        wrong = target[target != target.round()].reshape(-1)[0].item()
        raise ValueError(
            f"Expected `target` to hold the labels 0 and 1, but found {wrong} ({target.dtype}). "
            "Soft targets have no right answer; round them first."
        )


def _has_nan(scores: Tensor) -> bool:
    """Look for NaN by the maximum, which it spreads to: a tenth of the time of `isnan().any()`."""
    return scores.numel() > 0 and math.isnan(scores.amax().item())


def _refuse_nan(name: str) -> NoReturn:
    raise ValueError(
        f"Expected `{name}` to be numbers, but found NaN, which gives no label. Check the model that it comes from."
    )


def _binary_scores_validation(name: str, scores: Tensor, target: Tensor, ignore_index: int | None) -> None:
    """Refuse NaN scores and labels other than 0 and 1, wherever the target is not ignored."""
    if not scores.is_floating_point():
        _labels_validation(name, scores, target, 2, ignore_index)
    elif _has_nan(scores):
        kept = _kept(target.reshape(-1).long(), ignore_index)
        if (torch.isnan(scores.reshape(-1)) & kept).any():
            _refuse_nan(name)


def _class_scores_validation(
    name: str, scores: Tensor, target: Tensor, num_classes: int, ignore_index: int | None
) -> None:
    """Refuse scores and labels that do not fit `num_classes` classes, wherever the target is not ignored."""
    shape = tuple(target.shape)
    if not scores.is_floating_point():
        if tuple(scores.shape) != shape:
            raise ValueError(
                f"Expected the labels `{name}` to have the shape of `target`, {shape}, "
                f"but got {tuple(scores.shape)} ({scores.dtype})."
            )
        _labels_validation(name, scores, target, num_classes, ignore_index)
        return
    expected = (*shape[:1], num_classes, *shape[1:])
    if tuple(scores.shape) != expected:
        hint = ""
        if tuple(scores.shape) == shape:
            hint = " If these are labels, pass them as integers."
        elif name == "reference_preds":
            hint = " If the old model has other classes, pass its labels, mapped to the new classes."
        raise ValueError(
            f"Expected the scores `{name}` to have shape {expected} (N, C, ...) beside `target` of shape {shape}, "
            f"but got {tuple(scores.shape)} ({scores.dtype}).{hint}"
        )
    if _has_nan(scores):
        kept = _kept(target.long(), ignore_index)
        if (torch.isnan(scores).any(dim=1) & kept).any():
            _refuse_nan(name)


def _same_shape_validation(preds: Tensor, target: Tensor, reference_preds: Tensor, task: Task, groups: int) -> None:
    """Refuse shapes that differ; for the binary task, any may have or lack a last dimension of size 1."""
    if task == "multilabel" and (target.ndim < 2 or target.shape[1] != groups):
        raise ValueError(f"Expected `target` to have shape (N, {groups}, ...), but got {tuple(target.shape)}.")
    shape_of, allowed = (
        (_without_last_one, " (a last dimension of size 1 aside)") if task == "binary" else (Tensor.size, "")
    )
    for name, scores in (("preds", preds), ("reference_preds", reference_preds)):
        if shape_of(scores) != shape_of(target):
            raise ValueError(
                f"Expected `{name}` and `target` to have the same shape{allowed}, "
                f"but got {tuple(scores.shape)} and {tuple(target.shape)}."
            )


def _without_last_one(tensor: Tensor) -> torch.Size:
    return tensor.shape[:-1] if tensor.ndim > 1 and tensor.shape[-1] == 1 else tensor.shape


def _overlap_tensor_validation(
    preds: Tensor, target: Tensor, reference_preds: Tensor, task: Task, groups: int, ignore_index: int | None
) -> None:
    """Validate tensors: the shapes, dtypes and values that `error_overlap` lists."""
    _tensor_type_validation(preds, target, reference_preds)
    if task == "multiclass":
        if target.is_floating_point():
            raise ValueError(f"Expected `target` to hold integer labels, but got {target.dtype}.")
        _labels_validation("target", target, target, groups, ignore_index)
        _class_scores_validation("preds", preds, target, groups, ignore_index)
        _class_scores_validation("reference_preds", reference_preds, target, groups, ignore_index)
    else:
        _same_shape_validation(preds, target, reference_preds, task, groups)
        _whole_numbers_validation(target)
        _labels_validation("target", target, target, 2, ignore_index)
        _binary_scores_validation("preds", preds, target, ignore_index)
        _binary_scores_validation("reference_preds", reference_preds, target, ignore_index)


# -------------------------------------------------------------------------------- counting


def _threshold_scores(scores: Tensor, kept: Tensor, threshold: float) -> Tensor:
    """Turn probabilities or logits into labels; labels stay as they are.

    A tensor with any counted value outside [0, 1] is read as logits, as torchmetrics does.
    """
    if not scores.is_floating_point():
        return scores.long()
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    are_logits = (((scores < 0) | (scores > 1)) & kept).any()
    return (torch.where(are_logits, scores.sigmoid(), scores) >= threshold).long()


def _overlap_update(
    preds: Tensor,
    target: Tensor,
    reference_preds: Tensor,
    task: Task,
    groups: int,
    threshold: float,
    ignore_index: int | None,
) -> Tensor:
    """Read labels from scores and count them into `(groups, 2, 2)`."""
    if task == "multiclass":  # of equal scores the first class wins
        preds = preds.argmax(dim=1) if preds.is_floating_point() else preds
        reference_preds = reference_preds.argmax(dim=1) if reference_preds.is_floating_point() else reference_preds
        target = target.reshape(-1).long()
        return overlap_counts(preds.reshape(-1), target, reference_preds.reshape(-1), groups, ignore_index)
    if task == "binary":
        preds, target, reference_preds = preds.reshape(-1), target.reshape(-1), reference_preds.reshape(-1)
    target = target.long()
    kept = _kept(target, ignore_index)
    preds = _threshold_scores(preds, kept, threshold)
    reference_preds = _threshold_scores(reference_preds, kept, threshold)
    if task == "binary":
        return overlap_counts(preds, target, reference_preds, groups, ignore_index)
    # A decision belongs to its label, whether that label is present or not.
    label = torch.arange(groups, device=target.device).reshape(1, -1, *[1] * (target.ndim - 2))
    return _count_cells(
        group=label.expand_as(target).reshape(-1),
        h1_right=(reference_preds == target).reshape(-1),
        h2_right=(preds == target).reshape(-1),
        keep=((target == 0) | (target == 1)).logical_and(kept).reshape(-1),
        num_groups=groups,
    )


def error_overlap(
    preds: Tensor,
    target: Tensor,
    reference_preds: Tensor,
    task: Task,
    threshold: float = 0.5,
    num_classes: int | None = None,
    num_labels: int | None = None,
    ignore_index: int | None = None,
    validate_args: bool = True,
) -> Tensor:
    r"""Count right and wrong answers of two models by true class (by label, for a multilabel task).

    The formula is that of `overlap_counts`. For a multilabel task each (instance, label) decision is one observation,
    right when it says correctly whether the label is present.

    Args:
        preds: What the new model h2 says.

            - binary, shape `(N, ...)`: floating-point scores of class 1 (any precision), or labels 0 and 1 (integers
              or bool). Scores are probabilities if all of them are in [0, 1]; otherwise they are logits, and the
              sigmoid is applied. Class 1 is given when the probability is `>= threshold`.
            - multiclass: floating-point scores (probabilities, logits or log-probabilities, any precision) of shape
              `(N, C, ...)`, or integer labels of shape `(N, ...)`.
            - multilabel, shape `(N, L, ...)`: scores or labels of each label, read as for the binary task.
        target: True labels, shape `(N, ...)`, or `(N, L, ...)` for multilabel: integers of any width; for binary and
            multilabel 0 and 1, also as bool or whole floating-point numbers.
        reference_preds: What the old model h1 says, in any of the forms that `preds` may have.
            For the binary task, any of the three may have one more dimension of size 1 at the end, `(N, 1)` beside
            `(N,)`.
        task: `"binary"`, `"multiclass"` or `"multilabel"`.
        threshold: Probability from which on class 1 (a label) is given, for both models. Binary and multilabel only.
        num_classes: Number of classes C. Multiclass only, where it is needed.
        num_labels: Number of labels L. Multilabel only, where it is needed.
        ignore_index: A target value whose entries are left out, inside or outside the classes.
        validate_args: Whether to validate arguments and tensors. False saves time and, on an accelerator, the wait
            for the values.

    Returns:
        int64 tensor indexed `[class, h1 right, h2 right]` of shape `(2, 2, 2)` (binary), `(C, 2, 2)`
        (multiclass) or `(L, 2, 2)` (multilabel).

    Raises:
        TypeError: If an input is not a tensor.
        ValueError: If `task` is unknown, or `num_classes` or `num_labels` is not an integer larger than 1. Only with
            `validate_args`: if shapes do not fit, labels are no integers or outside the classes, scores are NaN,
            `threshold` is not a float in [0, 1] or `ignore_index` is not an integer.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.functional import error_overlap
        >>> error_overlap(tensor([0.9, 0.2]), tensor([1, 1]), tensor([0.4, 0.7]), task="binary")
        tensor([[[0, 0],
                 [0, 0]],
                [[0, 1],
                 [1, 0]]])
        >>> target = tensor([0, 1, 2, 2])
        >>> error_overlap(
        ...     tensor([0, 1, 2, 0]), target, tensor([0, 2, 2, 2]), task="multiclass", num_classes=3
        ... ).sum(dim=0)
        tensor([[0, 1],
                [1, 2]])
        >>> target = tensor([[1, 0], [1, 1]])
        >>> error_overlap(
        ...     tensor([[1, 1], [0, 1]]), target, tensor([[1, 0], [0, 0]]), task="multilabel", num_labels=2
        ... )
        tensor([[[1, 0],
                 [0, 1]],
                [[0, 1],
                 [1, 0]]])
    """
    groups = _number_of_groups(task, num_classes, num_labels)
    if validate_args:
        _overlap_arg_validation(task, threshold, ignore_index)
        _overlap_tensor_validation(preds, target, reference_preds, task, groups, ignore_index)
    return _overlap_update(preds, target, reference_preds, task, groups, threshold, ignore_index)
