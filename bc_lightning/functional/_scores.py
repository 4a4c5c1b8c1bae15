"""Scores of backward compatibility on tensors: each is a ratio of cells of the error overlap.

Which cells, is written once, in `bc_core.SCORES`; here they are only summed and divided.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from bc_core import SCORES, Score
from bc_lightning.functional._overlap import Task, _task_validation, error_overlap

Average = Literal["micro", "macro", "none"] | None
Given = Literal["h1_wrong", "h2_wrong"]
_Cells = tuple[tuple[int, int], tuple[int, int]]

_AVERAGES = ("micro", "macro", "none", None)
_BEC_BY_GIVEN = {"h1_wrong": "bec_given_h1_wrong", "h2_wrong": "bec_given_h2_wrong"}


# -------------------------------------------------------------------------------- the stages


def _score_arg_validation(average: Average = "micro", zero_division: float = 0.0) -> None:
    """Validate what is not a tensor.

    - `average` has to be "micro" | "macro" | "none" | None
    - `zero_division` has to be a number in [0, 1] or nan
    """
    if average not in _AVERAGES:
        raise ValueError(f"Expected argument `average` to be one of {_AVERAGES}, but got {average!r}.")
    is_number = isinstance(zero_division, (int, float))
    if not is_number or not (0 <= zero_division <= 1 or math.isnan(zero_division)):
        raise ValueError(
            f"Expected argument `zero_division` to be a number in [0, 1] or nan, but got {zero_division!r}."
        )


def _binary_average_validation(average: Average) -> None:
    if average != "micro":
        raise ValueError(
            f"Expected argument `average` to be 'micro' for the binary task, but got {average!r}. "
            "For one score per class, use task='multiclass' with num_classes=2 and labels."
        )


def _bec_name(given: Given) -> str:
    """Name the score that `given` asks for."""
    if given not in _BEC_BY_GIVEN:
        raise ValueError(f"Expected argument `given` to be one of {tuple(_BEC_BY_GIVEN)}, but got {given!r}.")
    return _BEC_BY_GIVEN[given]


def _sum_cells(counts: Tensor, cells: _Cells) -> Tensor:
    """Sum the chosen cells of `(..., 2, 2)`, without a mask tensor that would have to travel to the device."""
    chosen = [counts[..., i, j] for i in range(2) for j in range(2) if cells[i][j]]
    return torch.stack(chosen).sum(dim=0)


def _safe_divide(numerator: Tensor, denominator: Tensor, zero_division: float) -> Tensor:
    ratio = numerator.float() / denominator.clamp(min=1).float()
    return torch.where(denominator > 0, ratio, torch.full_like(ratio, zero_division))


def score_from_counts(counts: Tensor, score: Score | str, zero_division: float = 0.0) -> Tensor:
    """Divide counted instances into a score, without a look at the values.

    Args:
        counts: int64 tensor of shape `(..., 2, 2)` indexed `[h1 right, h2 right]` (index 1 is right).
        score: An entry of `bc_core.SCORES`, or its name. The formula is that of the entry.
        zero_division: Score where there is nothing to divide by.

    Returns:
        float32 tensor of shape `(...)`.

    Raises:
        ValueError: If there is no score of that name.

    Example:
        Of 10 instances h1 gets 8 right, and h2 keeps 6 of those:

        >>> from torch import tensor
        >>> from bc_lightning.functional import score_from_counts
        >>> score_from_counts(tensor([[1, 1], [2, 6]]), "btc")
        tensor(0.7500)
    """
    if isinstance(score, str):
        if score not in SCORES:
            raise ValueError(f"Expected argument `score` to be one of {tuple(SCORES)}, but got {score!r}.")
        score = SCORES[score]
    numerator, denominator = _sum_cells(counts, score.numerator), _sum_cells(counts, score.denominator)
    return _safe_divide(numerator, denominator, zero_division)


def _score_compute(counts: Tensor, name: str, average: Average = "micro", zero_division: float = 0.0) -> Tensor:
    """Compute a score from counts by class `(C, 2, 2)`: one number, or one per class."""
    if average == "micro":
        return score_from_counts(counts.sum(dim=0), name, zero_division)
    if average != "macro":
        return score_from_counts(counts, name, zero_division)
    classes = (_sum_cells(counts, SCORES[name].denominator) > 0).sum()
    total = score_from_counts(counts, name, 0.0).sum()  # a class with nothing to divide by adds nothing
    return torch.where(classes > 0, total / classes.clamp(min=1), torch.full_like(total, zero_division))


def _incompatibility_compute(counts: Tensor, zero_division: float = 0.0) -> Tensor:
    """Share out the negative flips in `(C, 2, 2)` over the classes."""
    flips = _sum_cells(counts, SCORES["nfr"].numerator)
    return _safe_divide(flips, flips.sum().expand_as(flips), zero_division)


def _overlap_score(
    name: str,
    task: Task,
    preds: Tensor,
    target: Tensor,
    reference_preds: Tensor,
    *,
    threshold: float = 0.5,
    num_classes: int | None = None,
    num_labels: int | None = None,
    average: Average = "micro",
    ignore_index: int | None = None,
    zero_division: float = 0.0,
    validate_args: bool = True,
) -> Tensor:
    """Run every stage for one score."""
    _task_validation(task)
    if validate_args:
        _score_arg_validation(average, zero_division)
        if task == "binary":
            _binary_average_validation(average)
    counts = error_overlap(
        preds, target, reference_preds, task, threshold, num_classes, num_labels, ignore_index, validate_args
    )
    return _score_compute(counts, name, average, zero_division)


# -------------------------------------------------------------------------------- backward trust compatibility


def binary_backward_trust_compatibility(
    preds: Tensor,
    target: Tensor,
    reference_preds: Tensor,
    threshold: float = 0.5,
    ignore_index: int | None = None,
    zero_division: float = 0.0,
    validate_args: bool = True,
) -> Tensor:
    r"""Compute backward trust compatibility (BTC) for a binary task.

    .. math::
        \text{BTC} = \frac{\#(\text{h1 right and h2 right})}{\#(\text{h1 right})}

    Inputs, with their shapes and dtypes, are those of `binary_error_overlap`; the other arguments and the
    errors are those of `backward_trust_compatibility`.

    Returns:
        float32 tensor, scalar.

    Reference:
        Bansal et al., "Updates in Human-AI Teams", AAAI 2019.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.functional import binary_backward_trust_compatibility
        >>> target = tensor([1, 1, 0, 0, 1])
        >>> preds, reference_preds = tensor([0.9, 0.2, 0.4, 0.6, 0.7]), tensor([1, 1, 0, 1, 0])
        >>> binary_backward_trust_compatibility(preds, target, reference_preds)
        tensor(0.6667)
    """
    return _overlap_score(
        "btc",
        "binary",
        preds,
        target,
        reference_preds,
        threshold=threshold,
        ignore_index=ignore_index,
        zero_division=zero_division,
        validate_args=validate_args,
    )


def multiclass_backward_trust_compatibility(
    preds: Tensor,
    target: Tensor,
    reference_preds: Tensor,
    num_classes: int,
    average: Average = "micro",
    ignore_index: int | None = None,
    zero_division: float = 0.0,
    validate_args: bool = True,
) -> Tensor:
    r"""Compute backward trust compatibility (BTC) for a multiclass task.

    .. math::
        \text{BTC} = \frac{\#(\text{h1 right and h2 right})}{\#(\text{h1 right})}

    Inputs, with their shapes and dtypes, are those of `multiclass_error_overlap`; the other arguments and the
    errors are those of `backward_trust_compatibility`.

    Returns:
        float32 tensor, scalar, or shape `(C,)` for `average=None`.

    Reference:
        Bansal et al., "Updates in Human-AI Teams", AAAI 2019.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.functional import multiclass_backward_trust_compatibility
        >>> target = tensor([0, 1, 2, 2, 1])
        >>> preds, reference_preds = tensor([0, 1, 2, 0, 0]), tensor([0, 2, 2, 2, 0])
        >>> multiclass_backward_trust_compatibility(preds, target, reference_preds, num_classes=3, average=None)
        tensor([1.0000, 0.0000, 0.5000])
    """
    return _overlap_score(
        "btc",
        "multiclass",
        preds,
        target,
        reference_preds,
        num_classes=num_classes,
        average=average,
        ignore_index=ignore_index,
        zero_division=zero_division,
        validate_args=validate_args,
    )


def multilabel_backward_trust_compatibility(
    preds: Tensor,
    target: Tensor,
    reference_preds: Tensor,
    num_labels: int,
    threshold: float = 0.5,
    average: Average = "micro",
    ignore_index: int | None = None,
    zero_division: float = 0.0,
    validate_args: bool = True,
) -> Tensor:
    r"""Compute backward trust compatibility (BTC) for a multilabel task.

    .. math::
        \text{BTC} = \frac{\#(\text{h1 right and h2 right})}{\#(\text{h1 right})}

    Inputs, with their shapes and dtypes, are those of `multilabel_error_overlap`; the other arguments and the
    errors are those of `backward_trust_compatibility`.

    Returns:
        float32 tensor, scalar, or shape `(L,)` for `average=None`.

    Reference:
        Bansal et al., "Updates in Human-AI Teams", AAAI 2019.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.functional import multilabel_backward_trust_compatibility
        >>> target = tensor([[1, 0], [1, 1]])
        >>> preds, reference_preds = tensor([[1, 1], [0, 1]]), tensor([[1, 0], [0, 0]])
        >>> multilabel_backward_trust_compatibility(preds, target, reference_preds, num_labels=2)
        tensor(0.5000)
    """
    return _overlap_score(
        "btc",
        "multilabel",
        preds,
        target,
        reference_preds,
        num_labels=num_labels,
        threshold=threshold,
        average=average,
        ignore_index=ignore_index,
        zero_division=zero_division,
        validate_args=validate_args,
    )


def backward_trust_compatibility(
    preds: Tensor,
    target: Tensor,
    reference_preds: Tensor,
    task: Task,
    threshold: float = 0.5,
    num_classes: int | None = None,
    num_labels: int | None = None,
    average: Average = "micro",
    ignore_index: int | None = None,
    zero_division: float = 0.0,
    validate_args: bool = True,
) -> Tensor:
    r"""Compute backward trust compatibility (BTC), the share of the old model's right answers that the new one keeps.

    .. math::
        \text{BTC} = \frac{\#(\text{h1 right and h2 right})}{\#(\text{h1 right})}

    1 means that h2 keeps everything that h1 gets right. BTC = 1 - NFR / accuracy(h1).

    Args:
        preds: What the new model h2 says: floating-point scores or integer labels. Shapes and dtypes are those of
            `binary_error_overlap`, `multiclass_error_overlap` and `multilabel_error_overlap`.
        target: True labels.
        reference_preds: What the old model h1 says: scores or labels, whichever `preds` has.
        task: `"binary"`, `"multiclass"` or `"multilabel"`.
        threshold: Probability from which on class 1 (a label) is given, for both models. Binary and multilabel only.
        num_classes: Number of classes C. Multiclass only, where it is needed.
        num_labels: Number of labels L. Multilabel only, where it is needed.
        average: `"micro"` divides the counts summed over classes (labels), `"macro"` is the mean over the
            classes that have something to divide by, `"none"` or None gives one score per class. Not for binary.
        ignore_index: A target value whose entries are left out.
        zero_division: Score when h1 is never right: a number in [0, 1] or nan.
        validate_args: Whether to validate arguments and tensors. False saves time and, on an accelerator, the wait
            for the values.

    Returns:
        float32 tensor, scalar, or shape `(C,)` (`(L,)` for multilabel) for `average=None`.

    Raises:
        TypeError: If an input is not a tensor.
        ValueError: If `task`, `average` or `zero_division` is unknown, `num_classes` or
            `num_labels` is missing, or shapes, labels or scores are refused as by `error_overlap`.

    Reference:
        Bansal et al., "Updates in Human-AI Teams", AAAI 2019.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.functional import backward_trust_compatibility
        >>> target = tensor([0, 1, 2, 2, 1])
        >>> preds, reference_preds = tensor([0, 1, 2, 0, 0]), tensor([0, 2, 2, 2, 0])
        >>> backward_trust_compatibility(
        ...     preds, target, reference_preds, task="multiclass", num_classes=3, average="macro"
        ... )
        tensor(0.7500)
    """
    return _overlap_score(
        "btc",
        task,
        preds,
        target,
        reference_preds,
        threshold=threshold,
        num_classes=num_classes,
        num_labels=num_labels,
        average=average,
        ignore_index=ignore_index,
        zero_division=zero_division,
        validate_args=validate_args,
    )


# -------------------------------------------------------------------------------- backward error compatibility


def binary_backward_error_compatibility(
    preds: Tensor,
    target: Tensor,
    reference_preds: Tensor,
    threshold: float = 0.5,
    given: Given = "h1_wrong",
    ignore_index: int | None = None,
    zero_division: float = 0.0,
    validate_args: bool = True,
) -> Tensor:
    r"""Compute backward error compatibility (BEC) for a binary task.

    .. math::
        \text{BEC}_{\text{h1 wrong}} = \frac{\#(\text{both wrong})}{\#(\text{h1 wrong})} \qquad
        \text{BEC}_{\text{h2 wrong}} = \frac{\#(\text{both wrong})}{\#(\text{h2 wrong})}

    Inputs, with their shapes and dtypes, are those of `binary_error_overlap`; the other arguments and the
    errors are those of `backward_error_compatibility`.

    Returns:
        float32 tensor, scalar.

    Reference:
        Srivastava et al., "An Empirical Analysis of Backward Compatibility in Machine Learning Systems", KDD 2020.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.functional import binary_backward_error_compatibility
        >>> target = tensor([1, 1, 0, 0, 1])
        >>> preds, reference_preds = tensor([0.9, 0.2, 0.4, 0.6, 0.7]), tensor([1, 1, 0, 1, 0])
        >>> binary_backward_error_compatibility(preds, target, reference_preds)
        tensor(0.5000)
    """
    return _overlap_score(
        _bec_name(given),
        "binary",
        preds,
        target,
        reference_preds,
        threshold=threshold,
        ignore_index=ignore_index,
        zero_division=zero_division,
        validate_args=validate_args,
    )


def multiclass_backward_error_compatibility(
    preds: Tensor,
    target: Tensor,
    reference_preds: Tensor,
    num_classes: int,
    average: Average = "micro",
    given: Given = "h1_wrong",
    ignore_index: int | None = None,
    zero_division: float = 0.0,
    validate_args: bool = True,
) -> Tensor:
    r"""Compute backward error compatibility (BEC) for a multiclass task.

    .. math::
        \text{BEC}_{\text{h1 wrong}} = \frac{\#(\text{both wrong})}{\#(\text{h1 wrong})} \qquad
        \text{BEC}_{\text{h2 wrong}} = \frac{\#(\text{both wrong})}{\#(\text{h2 wrong})}

    Inputs, with their shapes and dtypes, are those of `multiclass_error_overlap`; the other arguments and the
    errors are those of `backward_error_compatibility`.

    Returns:
        float32 tensor, scalar, or shape `(C,)` for `average=None`.

    Reference:
        Srivastava et al., "An Empirical Analysis of Backward Compatibility in Machine Learning Systems", KDD 2020.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.functional import multiclass_backward_error_compatibility
        >>> target = tensor([0, 1, 2, 2, 1])
        >>> preds, reference_preds = tensor([0, 1, 2, 0, 0]), tensor([0, 2, 2, 2, 0])
        >>> multiclass_backward_error_compatibility(preds, target, reference_preds, num_classes=3, average=None)
        tensor([0.0000, 0.5000, 0.0000])
    """
    return _overlap_score(
        _bec_name(given),
        "multiclass",
        preds,
        target,
        reference_preds,
        num_classes=num_classes,
        average=average,
        ignore_index=ignore_index,
        zero_division=zero_division,
        validate_args=validate_args,
    )


def multilabel_backward_error_compatibility(
    preds: Tensor,
    target: Tensor,
    reference_preds: Tensor,
    num_labels: int,
    threshold: float = 0.5,
    average: Average = "micro",
    given: Given = "h1_wrong",
    ignore_index: int | None = None,
    zero_division: float = 0.0,
    validate_args: bool = True,
) -> Tensor:
    r"""Compute backward error compatibility (BEC) for a multilabel task.

    .. math::
        \text{BEC}_{\text{h1 wrong}} = \frac{\#(\text{both wrong})}{\#(\text{h1 wrong})} \qquad
        \text{BEC}_{\text{h2 wrong}} = \frac{\#(\text{both wrong})}{\#(\text{h2 wrong})}

    Inputs, with their shapes and dtypes, are those of `multilabel_error_overlap`; the other arguments and the
    errors are those of `backward_error_compatibility`.

    Returns:
        float32 tensor, scalar, or shape `(L,)` for `average=None`.

    Reference:
        Srivastava et al., "An Empirical Analysis of Backward Compatibility in Machine Learning Systems", KDD 2020.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.functional import multilabel_backward_error_compatibility
        >>> target = tensor([[1, 0], [1, 1]])
        >>> preds, reference_preds = tensor([[1, 1], [0, 1]]), tensor([[1, 0], [0, 0]])
        >>> multilabel_backward_error_compatibility(preds, target, reference_preds, num_labels=2)
        tensor(0.5000)
    """
    return _overlap_score(
        _bec_name(given),
        "multilabel",
        preds,
        target,
        reference_preds,
        num_labels=num_labels,
        threshold=threshold,
        average=average,
        ignore_index=ignore_index,
        zero_division=zero_division,
        validate_args=validate_args,
    )


def backward_error_compatibility(
    preds: Tensor,
    target: Tensor,
    reference_preds: Tensor,
    task: Task,
    threshold: float = 0.5,
    num_classes: int | None = None,
    num_labels: int | None = None,
    average: Average = "micro",
    given: Given = "h1_wrong",
    ignore_index: int | None = None,
    zero_division: float = 0.0,
    validate_args: bool = True,
) -> Tensor:
    r"""Compute backward error compatibility (BEC), the share of one model's mistakes that both models make.

    .. math::
        \text{BEC}_{\text{h1 wrong}} = \frac{\#(\text{both wrong})}{\#(\text{h1 wrong})} \qquad
        \text{BEC}_{\text{h2 wrong}} = \frac{\#(\text{both wrong})}{\#(\text{h2 wrong})}

    The two are different numbers with one name in the literature; say which one you show. Given h1 wrong, it
    falls when h2 repairs old errors; given h2 wrong, it is the chance that a mistake of h2 is not new, 1 - NFI.

    Args:
        preds: What the new model h2 says: floating-point scores or integer labels. Shapes and dtypes are those of
            `binary_error_overlap`, `multiclass_error_overlap` and `multilabel_error_overlap`.
        target: True labels.
        reference_preds: What the old model h1 says: scores or labels, whichever `preds` has.
        task: `"binary"`, `"multiclass"` or `"multilabel"`.
        threshold: Probability from which on class 1 (a label) is given, for both models. Binary and multilabel only.
        num_classes: Number of classes C. Multiclass only, where it is needed.
        num_labels: Number of labels L. Multilabel only, where it is needed.
        average: `"micro"` divides the counts summed over classes (labels), `"macro"` is the mean over the
            classes that have something to divide by, `"none"` or None gives one score per class. Not for binary.
        given: Whose mistakes are below the fraction bar, `"h1_wrong"` or `"h2_wrong"`.
        ignore_index: A target value whose entries are left out.
        zero_division: Score when the model that `given` names is never wrong: a number in [0, 1] or nan.
        validate_args: Whether to validate arguments and tensors. False saves time and, on an accelerator, the wait
            for the values.

    Returns:
        float32 tensor, scalar, or shape `(C,)` (`(L,)` for multilabel) for `average=None`.

    Raises:
        TypeError: If an input is not a tensor.
        ValueError: If `task`, `average`, `given` or `zero_division` is unknown, `num_classes` or
            `num_labels` is missing, or shapes, labels or scores are refused as by `error_overlap`.

    Reference:
        Srivastava et al., "An Empirical Analysis of Backward Compatibility in Machine Learning Systems", KDD 2020.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.functional import backward_error_compatibility
        >>> target = tensor([0, 1, 2, 2, 1])
        >>> preds, reference_preds = tensor([0, 1, 2, 0, 0]), tensor([0, 2, 2, 2, 0])
        >>> backward_error_compatibility(
        ...     preds, target, reference_preds, task="multiclass", num_classes=3, average="macro"
        ... )
        tensor(0.5000)
    """
    return _overlap_score(
        _bec_name(given),
        task,
        preds,
        target,
        reference_preds,
        threshold=threshold,
        num_classes=num_classes,
        num_labels=num_labels,
        average=average,
        ignore_index=ignore_index,
        zero_division=zero_division,
        validate_args=validate_args,
    )


# -------------------------------------------------------------------------------- negative flip rate


def binary_negative_flip_rate(
    preds: Tensor,
    target: Tensor,
    reference_preds: Tensor,
    threshold: float = 0.5,
    ignore_index: int | None = None,
    zero_division: float = 0.0,
    validate_args: bool = True,
) -> Tensor:
    r"""Compute the negative flip rate (NFR) for a binary task.

    .. math::
        \text{NFR} = \frac{\#(\text{h1 right and h2 wrong})}{N}

    Inputs, with their shapes and dtypes, are those of `binary_error_overlap`; the other arguments and the
    errors are those of `negative_flip_rate`.

    Returns:
        float32 tensor, scalar.

    Reference:
        Yan et al., "Positive-Congruent Training", CVPR 2021.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.functional import binary_negative_flip_rate
        >>> target = tensor([1, 1, 0, 0, 1])
        >>> preds, reference_preds = tensor([0.9, 0.2, 0.4, 0.6, 0.7]), tensor([1, 1, 0, 1, 0])
        >>> binary_negative_flip_rate(preds, target, reference_preds)
        tensor(0.2000)
    """
    return _overlap_score(
        "nfr",
        "binary",
        preds,
        target,
        reference_preds,
        threshold=threshold,
        ignore_index=ignore_index,
        zero_division=zero_division,
        validate_args=validate_args,
    )


def multiclass_negative_flip_rate(
    preds: Tensor,
    target: Tensor,
    reference_preds: Tensor,
    num_classes: int,
    average: Average = "micro",
    ignore_index: int | None = None,
    zero_division: float = 0.0,
    validate_args: bool = True,
) -> Tensor:
    r"""Compute the negative flip rate (NFR) for a multiclass task.

    .. math::
        \text{NFR} = \frac{\#(\text{h1 right and h2 wrong})}{N}

    Inputs, with their shapes and dtypes, are those of `multiclass_error_overlap`; the other arguments and the
    errors are those of `negative_flip_rate`.

    Returns:
        float32 tensor, scalar, or shape `(C,)` for `average=None`.

    Reference:
        Yan et al., "Positive-Congruent Training", CVPR 2021.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.functional import multiclass_negative_flip_rate
        >>> target = tensor([0, 1, 2, 2, 1])
        >>> preds, reference_preds = tensor([0, 1, 2, 0, 0]), tensor([0, 2, 2, 2, 0])
        >>> multiclass_negative_flip_rate(preds, target, reference_preds, num_classes=3, average=None)
        tensor([0.0000, 0.0000, 0.5000])
    """
    return _overlap_score(
        "nfr",
        "multiclass",
        preds,
        target,
        reference_preds,
        num_classes=num_classes,
        average=average,
        ignore_index=ignore_index,
        zero_division=zero_division,
        validate_args=validate_args,
    )


def multilabel_negative_flip_rate(
    preds: Tensor,
    target: Tensor,
    reference_preds: Tensor,
    num_labels: int,
    threshold: float = 0.5,
    average: Average = "micro",
    ignore_index: int | None = None,
    zero_division: float = 0.0,
    validate_args: bool = True,
) -> Tensor:
    r"""Compute the negative flip rate (NFR) for a multilabel task.

    .. math::
        \text{NFR} = \frac{\#(\text{h1 right and h2 wrong})}{N}

    Inputs, with their shapes and dtypes, are those of `multilabel_error_overlap`; the other arguments and the
    errors are those of `negative_flip_rate`.

    Returns:
        float32 tensor, scalar, or shape `(L,)` for `average=None`.

    Reference:
        Yan et al., "Positive-Congruent Training", CVPR 2021.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.functional import multilabel_negative_flip_rate
        >>> target = tensor([[1, 0], [1, 1]])
        >>> preds, reference_preds = tensor([[1, 1], [0, 1]]), tensor([[1, 0], [0, 0]])
        >>> multilabel_negative_flip_rate(preds, target, reference_preds, num_labels=2)
        tensor(0.2500)
    """
    return _overlap_score(
        "nfr",
        "multilabel",
        preds,
        target,
        reference_preds,
        num_labels=num_labels,
        threshold=threshold,
        average=average,
        ignore_index=ignore_index,
        zero_division=zero_division,
        validate_args=validate_args,
    )


def negative_flip_rate(
    preds: Tensor,
    target: Tensor,
    reference_preds: Tensor,
    task: Task,
    threshold: float = 0.5,
    num_classes: int | None = None,
    num_labels: int | None = None,
    average: Average = "micro",
    ignore_index: int | None = None,
    zero_division: float = 0.0,
    validate_args: bool = True,
) -> Tensor:
    r"""Compute the negative flip rate (NFR), the share of instances that h1 gets right and h2 wrong.

    .. math::
        \text{NFR} = \frac{\#(\text{h1 right and h2 wrong})}{N}

    0 means that nothing broke.

    Args:
        preds: What the new model h2 says: floating-point scores or integer labels. Shapes and dtypes are those of
            `binary_error_overlap`, `multiclass_error_overlap` and `multilabel_error_overlap`.
        target: True labels.
        reference_preds: What the old model h1 says: scores or labels, whichever `preds` has.
        task: `"binary"`, `"multiclass"` or `"multilabel"`.
        threshold: Probability from which on class 1 (a label) is given, for both models. Binary and multilabel only.
        num_classes: Number of classes C. Multiclass only, where it is needed.
        num_labels: Number of labels L. Multilabel only, where it is needed.
        average: `"micro"` divides the counts summed over classes (labels), `"macro"` is the mean over the
            classes that have something to divide by, `"none"` or None gives one score per class. Not for binary.
        ignore_index: A target value whose entries are left out.
        zero_division: Score when there are no instances: a number in [0, 1] or nan.
        validate_args: Whether to validate arguments and tensors. False saves time and, on an accelerator, the wait
            for the values.

    Returns:
        float32 tensor, scalar, or shape `(C,)` (`(L,)` for multilabel) for `average=None`.

    Raises:
        TypeError: If an input is not a tensor.
        ValueError: If `task`, `average` or `zero_division` is unknown, `num_classes` or
            `num_labels` is missing, or shapes, labels or scores are refused as by `error_overlap`.

    Reference:
        Yan et al., "Positive-Congruent Training", CVPR 2021.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.functional import negative_flip_rate
        >>> target = tensor([0, 1, 2, 2, 1])
        >>> preds, reference_preds = tensor([0, 1, 2, 0, 0]), tensor([0, 2, 2, 2, 0])
        >>> negative_flip_rate(
        ...     preds, target, reference_preds, task="multiclass", num_classes=3, average="macro"
        ... )
        tensor(0.1667)
    """
    return _overlap_score(
        "nfr",
        task,
        preds,
        target,
        reference_preds,
        threshold=threshold,
        num_classes=num_classes,
        num_labels=num_labels,
        average=average,
        ignore_index=ignore_index,
        zero_division=zero_division,
        validate_args=validate_args,
    )


# -------------------------------------------------------------------------------- positive flip rate


def binary_positive_flip_rate(
    preds: Tensor,
    target: Tensor,
    reference_preds: Tensor,
    threshold: float = 0.5,
    ignore_index: int | None = None,
    zero_division: float = 0.0,
    validate_args: bool = True,
) -> Tensor:
    r"""Compute the positive flip rate (PFR) for a binary task.

    .. math::
        \text{PFR} = \frac{\#(\text{h1 wrong and h2 right})}{N}

    Inputs, with their shapes and dtypes, are those of `binary_error_overlap`; the other arguments and the
    errors are those of `positive_flip_rate`.

    Returns:
        float32 tensor, scalar.

    Reference:
        Yan et al., "Positive-Congruent Training", CVPR 2021.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.functional import binary_positive_flip_rate
        >>> target = tensor([1, 1, 0, 0, 1])
        >>> preds, reference_preds = tensor([0.9, 0.2, 0.4, 0.6, 0.7]), tensor([1, 1, 0, 1, 0])
        >>> binary_positive_flip_rate(preds, target, reference_preds)
        tensor(0.2000)
    """
    return _overlap_score(
        "pfr",
        "binary",
        preds,
        target,
        reference_preds,
        threshold=threshold,
        ignore_index=ignore_index,
        zero_division=zero_division,
        validate_args=validate_args,
    )


def multiclass_positive_flip_rate(
    preds: Tensor,
    target: Tensor,
    reference_preds: Tensor,
    num_classes: int,
    average: Average = "micro",
    ignore_index: int | None = None,
    zero_division: float = 0.0,
    validate_args: bool = True,
) -> Tensor:
    r"""Compute the positive flip rate (PFR) for a multiclass task.

    .. math::
        \text{PFR} = \frac{\#(\text{h1 wrong and h2 right})}{N}

    Inputs, with their shapes and dtypes, are those of `multiclass_error_overlap`; the other arguments and the
    errors are those of `positive_flip_rate`.

    Returns:
        float32 tensor, scalar, or shape `(C,)` for `average=None`.

    Reference:
        Yan et al., "Positive-Congruent Training", CVPR 2021.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.functional import multiclass_positive_flip_rate
        >>> target = tensor([0, 1, 2, 2, 1])
        >>> preds, reference_preds = tensor([0, 1, 2, 0, 0]), tensor([0, 2, 2, 2, 0])
        >>> multiclass_positive_flip_rate(preds, target, reference_preds, num_classes=3, average=None)
        tensor([0.0000, 0.5000, 0.0000])
    """
    return _overlap_score(
        "pfr",
        "multiclass",
        preds,
        target,
        reference_preds,
        num_classes=num_classes,
        average=average,
        ignore_index=ignore_index,
        zero_division=zero_division,
        validate_args=validate_args,
    )


def multilabel_positive_flip_rate(
    preds: Tensor,
    target: Tensor,
    reference_preds: Tensor,
    num_labels: int,
    threshold: float = 0.5,
    average: Average = "micro",
    ignore_index: int | None = None,
    zero_division: float = 0.0,
    validate_args: bool = True,
) -> Tensor:
    r"""Compute the positive flip rate (PFR) for a multilabel task.

    .. math::
        \text{PFR} = \frac{\#(\text{h1 wrong and h2 right})}{N}

    Inputs, with their shapes and dtypes, are those of `multilabel_error_overlap`; the other arguments and the
    errors are those of `positive_flip_rate`.

    Returns:
        float32 tensor, scalar, or shape `(L,)` for `average=None`.

    Reference:
        Yan et al., "Positive-Congruent Training", CVPR 2021.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.functional import multilabel_positive_flip_rate
        >>> target = tensor([[1, 0], [1, 1]])
        >>> preds, reference_preds = tensor([[1, 1], [0, 1]]), tensor([[1, 0], [0, 0]])
        >>> multilabel_positive_flip_rate(preds, target, reference_preds, num_labels=2)
        tensor(0.2500)
    """
    return _overlap_score(
        "pfr",
        "multilabel",
        preds,
        target,
        reference_preds,
        num_labels=num_labels,
        threshold=threshold,
        average=average,
        ignore_index=ignore_index,
        zero_division=zero_division,
        validate_args=validate_args,
    )


def positive_flip_rate(
    preds: Tensor,
    target: Tensor,
    reference_preds: Tensor,
    task: Task,
    threshold: float = 0.5,
    num_classes: int | None = None,
    num_labels: int | None = None,
    average: Average = "micro",
    ignore_index: int | None = None,
    zero_division: float = 0.0,
    validate_args: bool = True,
) -> Tensor:
    r"""Compute the positive flip rate (PFR), the share of instances that h1 gets wrong and h2 right.

    .. math::
        \text{PFR} = \frac{\#(\text{h1 wrong and h2 right})}{N}

    accuracy(h2) - accuracy(h1) = PFR - NFR.

    Args:
        preds: What the new model h2 says: floating-point scores or integer labels. Shapes and dtypes are those of
            `binary_error_overlap`, `multiclass_error_overlap` and `multilabel_error_overlap`.
        target: True labels.
        reference_preds: What the old model h1 says: scores or labels, whichever `preds` has.
        task: `"binary"`, `"multiclass"` or `"multilabel"`.
        threshold: Probability from which on class 1 (a label) is given, for both models. Binary and multilabel only.
        num_classes: Number of classes C. Multiclass only, where it is needed.
        num_labels: Number of labels L. Multilabel only, where it is needed.
        average: `"micro"` divides the counts summed over classes (labels), `"macro"` is the mean over the
            classes that have something to divide by, `"none"` or None gives one score per class. Not for binary.
        ignore_index: A target value whose entries are left out.
        zero_division: Score when there are no instances: a number in [0, 1] or nan.
        validate_args: Whether to validate arguments and tensors. False saves time and, on an accelerator, the wait
            for the values.

    Returns:
        float32 tensor, scalar, or shape `(C,)` (`(L,)` for multilabel) for `average=None`.

    Raises:
        TypeError: If an input is not a tensor.
        ValueError: If `task`, `average` or `zero_division` is unknown, `num_classes` or
            `num_labels` is missing, or shapes, labels or scores are refused as by `error_overlap`.

    Reference:
        Yan et al., "Positive-Congruent Training", CVPR 2021.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.functional import positive_flip_rate
        >>> target = tensor([0, 1, 2, 2, 1])
        >>> preds, reference_preds = tensor([0, 1, 2, 0, 0]), tensor([0, 2, 2, 2, 0])
        >>> positive_flip_rate(
        ...     preds, target, reference_preds, task="multiclass", num_classes=3, average="macro"
        ... )
        tensor(0.1667)
    """
    return _overlap_score(
        "pfr",
        task,
        preds,
        target,
        reference_preds,
        threshold=threshold,
        num_classes=num_classes,
        num_labels=num_labels,
        average=average,
        ignore_index=ignore_index,
        zero_division=zero_division,
        validate_args=validate_args,
    )


# -------------------------------------------------------------------------------- negative flip impact


def binary_negative_flip_impact(
    preds: Tensor,
    target: Tensor,
    reference_preds: Tensor,
    threshold: float = 0.5,
    ignore_index: int | None = None,
    zero_division: float = 0.0,
    validate_args: bool = True,
) -> Tensor:
    r"""Compute the negative flip impact (NFI) for a binary task.

    .. math::
        \text{NFI} = \frac{\#(\text{h1 right and h2 wrong})}{\#(\text{h2 wrong})}

    Inputs, with their shapes and dtypes, are those of `binary_error_overlap`; the other arguments and the
    errors are those of `negative_flip_impact`.

    Returns:
        float32 tensor, scalar.

    Reference:
        Cai et al., "Measuring and Reducing Model Update Regression in Structured Prediction for NLP", NeurIPS 2022.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.functional import binary_negative_flip_impact
        >>> target = tensor([1, 1, 0, 0, 1])
        >>> preds, reference_preds = tensor([0.9, 0.2, 0.4, 0.6, 0.7]), tensor([1, 1, 0, 1, 0])
        >>> binary_negative_flip_impact(preds, target, reference_preds)
        tensor(0.5000)
    """
    return _overlap_score(
        "nfi",
        "binary",
        preds,
        target,
        reference_preds,
        threshold=threshold,
        ignore_index=ignore_index,
        zero_division=zero_division,
        validate_args=validate_args,
    )


def multiclass_negative_flip_impact(
    preds: Tensor,
    target: Tensor,
    reference_preds: Tensor,
    num_classes: int,
    average: Average = "micro",
    ignore_index: int | None = None,
    zero_division: float = 0.0,
    validate_args: bool = True,
) -> Tensor:
    r"""Compute the negative flip impact (NFI) for a multiclass task.

    .. math::
        \text{NFI} = \frac{\#(\text{h1 right and h2 wrong})}{\#(\text{h2 wrong})}

    Inputs, with their shapes and dtypes, are those of `multiclass_error_overlap`; the other arguments and the
    errors are those of `negative_flip_impact`.

    Returns:
        float32 tensor, scalar, or shape `(C,)` for `average=None`.

    Reference:
        Cai et al., "Measuring and Reducing Model Update Regression in Structured Prediction for NLP", NeurIPS 2022.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.functional import multiclass_negative_flip_impact
        >>> target = tensor([0, 1, 2, 2, 1])
        >>> preds, reference_preds = tensor([0, 1, 2, 0, 0]), tensor([0, 2, 2, 2, 0])
        >>> multiclass_negative_flip_impact(preds, target, reference_preds, num_classes=3, average=None)
        tensor([0., 0., 1.])
    """
    return _overlap_score(
        "nfi",
        "multiclass",
        preds,
        target,
        reference_preds,
        num_classes=num_classes,
        average=average,
        ignore_index=ignore_index,
        zero_division=zero_division,
        validate_args=validate_args,
    )


def multilabel_negative_flip_impact(
    preds: Tensor,
    target: Tensor,
    reference_preds: Tensor,
    num_labels: int,
    threshold: float = 0.5,
    average: Average = "micro",
    ignore_index: int | None = None,
    zero_division: float = 0.0,
    validate_args: bool = True,
) -> Tensor:
    r"""Compute the negative flip impact (NFI) for a multilabel task.

    .. math::
        \text{NFI} = \frac{\#(\text{h1 right and h2 wrong})}{\#(\text{h2 wrong})}

    Inputs, with their shapes and dtypes, are those of `multilabel_error_overlap`; the other arguments and the
    errors are those of `negative_flip_impact`.

    Returns:
        float32 tensor, scalar, or shape `(L,)` for `average=None`.

    Reference:
        Cai et al., "Measuring and Reducing Model Update Regression in Structured Prediction for NLP", NeurIPS 2022.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.functional import multilabel_negative_flip_impact
        >>> target = tensor([[1, 0], [1, 1]])
        >>> preds, reference_preds = tensor([[1, 1], [0, 1]]), tensor([[1, 0], [0, 0]])
        >>> multilabel_negative_flip_impact(preds, target, reference_preds, num_labels=2)
        tensor(0.5000)
    """
    return _overlap_score(
        "nfi",
        "multilabel",
        preds,
        target,
        reference_preds,
        num_labels=num_labels,
        threshold=threshold,
        average=average,
        ignore_index=ignore_index,
        zero_division=zero_division,
        validate_args=validate_args,
    )


def negative_flip_impact(
    preds: Tensor,
    target: Tensor,
    reference_preds: Tensor,
    task: Task,
    threshold: float = 0.5,
    num_classes: int | None = None,
    num_labels: int | None = None,
    average: Average = "micro",
    ignore_index: int | None = None,
    zero_division: float = 0.0,
    validate_args: bool = True,
) -> Tensor:
    r"""Compute the negative flip impact (NFI), the share of the new model's mistakes that are new.

    .. math::
        \text{NFI} = \frac{\#(\text{h1 right and h2 wrong})}{\#(\text{h2 wrong})}

    NFI = 1 - BEC given h2 wrong.

    Args:
        preds: What the new model h2 says: floating-point scores or integer labels. Shapes and dtypes are those of
            `binary_error_overlap`, `multiclass_error_overlap` and `multilabel_error_overlap`.
        target: True labels.
        reference_preds: What the old model h1 says: scores or labels, whichever `preds` has.
        task: `"binary"`, `"multiclass"` or `"multilabel"`.
        threshold: Probability from which on class 1 (a label) is given, for both models. Binary and multilabel only.
        num_classes: Number of classes C. Multiclass only, where it is needed.
        num_labels: Number of labels L. Multilabel only, where it is needed.
        average: `"micro"` divides the counts summed over classes (labels), `"macro"` is the mean over the
            classes that have something to divide by, `"none"` or None gives one score per class. Not for binary.
        ignore_index: A target value whose entries are left out.
        zero_division: Score when h2 is never wrong: a number in [0, 1] or nan.
        validate_args: Whether to validate arguments and tensors. False saves time and, on an accelerator, the wait
            for the values.

    Returns:
        float32 tensor, scalar, or shape `(C,)` (`(L,)` for multilabel) for `average=None`.

    Raises:
        TypeError: If an input is not a tensor.
        ValueError: If `task`, `average` or `zero_division` is unknown, `num_classes` or
            `num_labels` is missing, or shapes, labels or scores are refused as by `error_overlap`.

    Reference:
        Cai et al., "Measuring and Reducing Model Update Regression in Structured Prediction for NLP", NeurIPS 2022.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.functional import negative_flip_impact
        >>> target = tensor([0, 1, 2, 2, 1])
        >>> preds, reference_preds = tensor([0, 1, 2, 0, 0]), tensor([0, 2, 2, 2, 0])
        >>> negative_flip_impact(
        ...     preds, target, reference_preds, task="multiclass", num_classes=3, average="macro"
        ... )
        tensor(0.5000)
    """
    return _overlap_score(
        "nfi",
        task,
        preds,
        target,
        reference_preds,
        threshold=threshold,
        num_classes=num_classes,
        num_labels=num_labels,
        average=average,
        ignore_index=ignore_index,
        zero_division=zero_division,
        validate_args=validate_args,
    )


# -------------------------------------------------------------------------------- incompatibility by class


def binary_incompatibility_by_class(
    preds: Tensor,
    target: Tensor,
    reference_preds: Tensor,
    threshold: float = 0.5,
    ignore_index: int | None = None,
    zero_division: float = 0.0,
    validate_args: bool = True,
) -> Tensor:
    r"""Compute each true class's share of all negative flips, for a binary task.

    .. math::
        \text{share}_c = \frac{\#(\text{h1 right and h2 wrong, true class } c)}{\#(\text{h1 right and h2 wrong})}

    Inputs, with their shapes and dtypes, are those of `binary_error_overlap`; the other arguments and the
    errors are those of `incompatibility_by_class`.

    Returns:
        float32 tensor of shape `(2,)`.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.functional import binary_incompatibility_by_class
        >>> target = tensor([1, 1, 0, 0, 1])
        >>> preds, reference_preds = tensor([0.9, 0.2, 0.4, 0.6, 0.7]), tensor([1, 1, 0, 1, 0])
        >>> binary_incompatibility_by_class(preds, target, reference_preds)
        tensor([0., 1.])
    """
    return incompatibility_by_class(
        preds,
        target,
        reference_preds,
        "binary",
        threshold=threshold,
        ignore_index=ignore_index,
        zero_division=zero_division,
        validate_args=validate_args,
    )


def multiclass_incompatibility_by_class(
    preds: Tensor,
    target: Tensor,
    reference_preds: Tensor,
    num_classes: int,
    ignore_index: int | None = None,
    zero_division: float = 0.0,
    validate_args: bool = True,
) -> Tensor:
    r"""Compute each true class's share of all negative flips, for a multiclass task.

    .. math::
        \text{share}_c = \frac{\#(\text{h1 right and h2 wrong, true class } c)}{\#(\text{h1 right and h2 wrong})}

    Inputs, with their shapes and dtypes, are those of `multiclass_error_overlap`; the other arguments and the
    errors are those of `incompatibility_by_class`.

    Returns:
        float32 tensor of shape `(C,)`.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.functional import multiclass_incompatibility_by_class
        >>> target = tensor([0, 1, 2, 2, 1])
        >>> preds, reference_preds = tensor([0, 1, 2, 0, 0]), tensor([0, 2, 2, 2, 0])
        >>> multiclass_incompatibility_by_class(preds, target, reference_preds, num_classes=3)
        tensor([0., 0., 1.])
    """
    return incompatibility_by_class(
        preds,
        target,
        reference_preds,
        "multiclass",
        num_classes=num_classes,
        ignore_index=ignore_index,
        zero_division=zero_division,
        validate_args=validate_args,
    )


def multilabel_incompatibility_by_class(
    preds: Tensor,
    target: Tensor,
    reference_preds: Tensor,
    num_labels: int,
    threshold: float = 0.5,
    ignore_index: int | None = None,
    zero_division: float = 0.0,
    validate_args: bool = True,
) -> Tensor:
    r"""Compute each true class's share of all negative flips, for a multilabel task.

    .. math::
        \text{share}_c = \frac{\#(\text{h1 right and h2 wrong, true class } c)}{\#(\text{h1 right and h2 wrong})}

    Inputs, with their shapes and dtypes, are those of `multilabel_error_overlap`; the other arguments and the
    errors are those of `incompatibility_by_class`.

    Returns:
        float32 tensor of shape `(L,)`, one share per label.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.functional import multilabel_incompatibility_by_class
        >>> target = tensor([[1, 0], [1, 1]])
        >>> preds, reference_preds = tensor([[1, 1], [0, 1]]), tensor([[1, 0], [0, 0]])
        >>> multilabel_incompatibility_by_class(preds, target, reference_preds, num_labels=2)
        tensor([0., 1.])
    """
    return incompatibility_by_class(
        preds,
        target,
        reference_preds,
        "multilabel",
        num_labels=num_labels,
        threshold=threshold,
        ignore_index=ignore_index,
        zero_division=zero_division,
        validate_args=validate_args,
    )


def incompatibility_by_class(
    preds: Tensor,
    target: Tensor,
    reference_preds: Tensor,
    task: Task,
    threshold: float = 0.5,
    num_classes: int | None = None,
    num_labels: int | None = None,
    ignore_index: int | None = None,
    zero_division: float = 0.0,
    validate_args: bool = True,
) -> Tensor:
    r"""Compute each true class's share of all negative flips: where the breakage is.

    .. math::
        \text{share}_c = \frac{\#(\text{h1 right and h2 wrong, true class } c)}{\#(\text{h1 right and h2 wrong})}

    The shares add up to 1. A negative flip is an instance that the old model h1 gets right and the new one h2 wrong.

    Args:
        preds: What the new model h2 says: floating-point scores or integer labels. Shapes and dtypes are those of
            `binary_error_overlap`, `multiclass_error_overlap` and `multilabel_error_overlap`.
        target: True labels.
        reference_preds: What the old model h1 says: scores or labels, whichever `preds` has.
        task: `"binary"`, `"multiclass"` or `"multilabel"`.
        threshold: Probability from which on class 1 (a label) is given, for both models. Binary and multilabel only.
        num_classes: Number of classes C. Multiclass only, where it is needed.
        num_labels: Number of labels L. Multilabel only, where it is needed.
        ignore_index: A target value whose entries are left out.
        zero_division: Every class's share when there is no negative flip: a number in [0, 1] or nan.
        validate_args: Whether to validate arguments and tensors. False saves time and, on an accelerator, the wait
            for the values.

    Returns:
        float32 tensor of shape `(2,)` (binary), `(C,)` (multiclass) or `(L,)` (multilabel, by label).

    Raises:
        TypeError: If an input is not a tensor.
        ValueError: If `task` or `zero_division` is unknown, `num_classes` or `num_labels` is missing, or
            shapes, labels or scores are refused as by `error_overlap`.

    Reference:
        Yan et al., CVPR 2021, for the negative flip; the split by class is that of the original library.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.functional import incompatibility_by_class
        >>> target = tensor([0, 1, 2, 2, 1])
        >>> preds, reference_preds = tensor([0, 1, 2, 0, 0]), tensor([0, 2, 2, 2, 0])
        >>> incompatibility_by_class(preds, target, reference_preds, task="multiclass", num_classes=3)
        tensor([0., 0., 1.])
    """
    if validate_args:
        _score_arg_validation(zero_division=zero_division)
    counts = error_overlap(
        preds, target, reference_preds, task, threshold, num_classes, num_labels, ignore_index, validate_args
    )
    return _incompatibility_compute(counts, zero_division)
