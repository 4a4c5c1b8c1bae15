r"""The training loss on outputs: ``mean_i base_i + lambda_c * dissonance``.

Written once for torch; `CompatibilityLoss` and the eight named losses are shells over this file.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from bc_core import check_lambda as check_number

Base = Literal["nll", "cross_entropy", "binary_cross_entropy", "kl_divergence"]
Dissonance = Literal["new_error", "strict_imitation", "imitation"]
Normalization = Literal["batch", "support"]
Reduction = Literal["mean", "batchmean", "sum", "none"]

# What each underlying torch loss can do; any other option is refused by name.
BASE_OPTIONS: dict[str, tuple[str, ...]] = {
    "nll": ("weight", "ignore_index", "num_classes"),
    "cross_entropy": ("weight", "ignore_index", "label_smoothing", "num_classes"),
    "binary_cross_entropy": ("weight", "pos_weight", "threshold", "from_logits"),
    "kl_divergence": ("ignore_index", "num_classes"),
}


class LossTerms(NamedTuple):
    """The two halves of the loss, scalars: ``loss = base + lambda_c * dissonance``.

    The other three merge batches of any size into one mean: ``sum(base * base_weight) / sum(base_weight)`` and
    ``sum(dissonance_sum) / sum(dissonance_weight)``, also over processes.
    """

    base: Tensor
    dissonance: Tensor
    base_weight: Tensor
    dissonance_sum: Tensor
    dissonance_weight: Tensor


class _Instances(NamedTuple):
    """Per-instance terms, all of the shape of the hard target (or of the scores, for binary)."""

    base: Tensor  # base_i
    dissonance: Tensor  # d_i, not yet masked by the support
    support: Tensor  # c_i as bool; every counted instance for "imitation"
    weight: Tensor | None  # what instance i counts for in a mean; None stands for 1 each
    reduced_base: Tensor  # base under the reduction asked for, by torch's own reduction


def known(value: object, allowed: tuple[str, ...], what: str) -> None:
    """Refuse a name that is not among `allowed`, and list those that are."""
    if value not in allowed:
        raise ValueError(f"Unknown {what}: {value!r}. Known: {', '.join(map(repr, allowed))}.")


def check_lambda(lambda_c: float | Tensor) -> None:
    """Refuse a negative or non-finite lambda_c; a tensor is taken as it is (reading it would sync)."""
    if isinstance(lambda_c, Tensor):
        if lambda_c.ndim != 0:
            raise ValueError(f"lambda_c must be one number. Received a tensor of shape {tuple(lambda_c.shape)}.")
        return
    check_number(lambda_c)


def _in_float32(scores: Tensor) -> Tensor:
    # Half precision may come in; sums of exponentials need at least float32.
    return scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)


def _values_are_readable(tensor: Tensor) -> bool:
    # On an accelerator reading a value waits for the device, and in a compiled graph it breaks the graph.
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def check_finite(scores: Tensor, model: str, where: str = "") -> None:
    """Refuse NaN and infinite scores, where looking at them costs no synchronisation."""
    if not (_values_are_readable(scores) and scores.is_floating_point()):
        return
    # A sum is finite only if every score is, and is one pass; where large scores overflow it, each is looked at.
    if not math.isfinite(scores.detach().sum().item()) and not bool(torch.isfinite(scores).all()):
        bad = "NaN" if bool(torch.isnan(scores).any()) else "inf"
        raise ValueError(
            f"{model} returned {bad}{where} (scores of shape {_shape(scores)}). Expected finite scores: look for "
            f"a diverged or half-loaded {model}, or inputs that are already NaN."
        )


_ONE_SCORE_PER_LABEL = (
    "For binary or multilabel scores use base='binary_cross_entropy', or by name loss='BCBinaryCrossEntropyLoss' with "
    "loss_options={'from_logits': True}."
)


def is_probabilities(scores: Tensor) -> bool:
    """Whether every row along the classes is a distribution. Reads values, so it waits for an accelerator."""
    if not scores.is_floating_point() or scores.ndim < 2 or scores.shape[1] < 2:
        return False
    scores = scores.detach().float()
    # Half precision keeps 8 bits of each share, hence the tolerance; logits do not come near it by chance.
    return bool(((scores >= 0).all() & ((scores.sum(1) - 1).abs() < 1e-2).all()).item())


def align_multiclass(
    h2_output: Tensor, target: Tensor, h1_output: Tensor, ignore_index: int | None, validate: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Bring scores (N, C, ...), target (N, ...) or (N, 1) or soft (N, C, ...), and h1's output together.

    Returns h2's scores in at least float32, the target as int64 class indices or float probabilities, and h1's
    scores in at least float32 or its labels as int64.
    """
    if h2_output.ndim < 2 or not h2_output.is_floating_point():
        raise ValueError(
            f"h2's output must be scores of shape (N, C, ...). Received shape {_shape(h2_output)}, "
            f"dtype {h2_output.dtype}. {_ONE_SCORE_PER_LABEL}"
        )
    if h2_output.numel() == 0:
        raise ValueError(f"The batch is empty: h2's output has shape {_shape(h2_output)}. Drop empty batches.")
    num_classes = h2_output.shape[1]
    labels_shape = (h2_output.shape[0], *h2_output.shape[2:])
    if target.is_floating_point():
        if target.shape != h2_output.shape:
            raise ValueError(
                f"A target of dtype {target.dtype} must hold class probabilities of h2's shape "
                f"{_shape(h2_output)}. Received shape {_shape(target)}. Class indices must be integers: use "
                f"target.long(). {_ONE_SCORE_PER_LABEL}"
            )
        if validate and _values_are_readable(target) and not is_probabilities(target):
            raise ValueError(
                f"A target of dtype {target.dtype} and h2's shape {_shape(target)} must hold class probabilities, rows "
                f"in 0..1 that sum to 1. Received a row that does not. {_ONE_SCORE_PER_LABEL}"
            )
        target = target.to(_in_float32(h2_output).dtype)
    else:
        if target.ndim == h2_output.ndim and target.shape[1] == 1:
            target = target.squeeze(1)
        if _shape(target) != labels_shape:
            raise ValueError(
                f"Shapes differ: scores of shape {_shape(h2_output)} need a target of shape {labels_shape}. "
                f"Received shape {_shape(target)}."
            )
        target = target.long()
        if validate:
            check_labels(target, num_classes, ignore_index)
    return _in_float32(h2_output), target, _align_h1(h1_output, h2_output, labels_shape)


def _align_h1(h1_output: Tensor, h2_output: Tensor, labels_shape: tuple[int, ...]) -> Tensor:
    if not h1_output.is_floating_point():
        if h1_output.ndim == len(labels_shape) + 1 and h1_output.shape[1] == 1:
            h1_output = h1_output.squeeze(1)
        if _shape(h1_output) != labels_shape:
            raise ValueError(
                f"h1's labels must have shape {labels_shape}. Received shape {_shape(h1_output)}, "
                f"dtype {h1_output.dtype}."
            )
        return h1_output.long()
    if h1_output.ndim == h2_output.ndim and h1_output.shape[1] != h2_output.shape[1]:
        raise ValueError(
            f"h1 has {h1_output.shape[1]} classes and h2 has {h2_output.shape[1]}: a class map is needed. Pass "
            f"class_map=[...], where class_map[i] is h2's class index for h1's class i (-1: no longer a class)."
        )
    if h1_output.shape != h2_output.shape:
        raise ValueError(
            f"h1's scores must have h2's shape {_shape(h2_output)}, or be integer labels of shape {labels_shape}. "
            f"Received shape {_shape(h1_output)}, dtype {h1_output.dtype}."
        )
    return _in_float32(h1_output)


def check_labels(target: Tensor, num_classes: int, ignore_index: int | None) -> None:
    """Refuse labels outside 0..num_classes-1, where reading them costs no synchronisation."""
    if not _values_are_readable(target):
        return
    if target.numel() == 0:
        return
    least, most = target.aminmax()
    if least >= 0 and most < num_classes:
        return
    outside = (target < 0) | (target >= num_classes)
    if ignore_index is not None:
        outside &= target != ignore_index
    if bool(outside.any()):
        index = tuple(outside.nonzero()[0].tolist())
        raise ValueError(
            f"The target holds label {int(target[index])} at index {index[0] if len(index) == 1 else index}, "
            f"outside the classes 0..{num_classes - 1} that h2 scores. Expected class indices in that range"
            + (f" or ignore_index={ignore_index}" if ignore_index is not None else "")
            + "."
            + (f" {_ONE_SCORE_PER_LABEL}" if num_classes == 1 else "")
        )


class Labels(NamedTuple):
    """Predicted and true classes of a batch, int64 of one shape; a target of -1 is not to be counted."""

    h2: Tensor
    target: Tensor
    h1: Tensor
    num_classes: int


def _class_indices(scores: Tensor) -> Tensor:
    return scores.argmax(1) if scores.is_floating_point() else scores


def _is_positive(scores: Tensor, threshold: float, from_logits: bool) -> Tensor:
    if not scores.is_floating_point():
        return scores == 1
    return (torch.sigmoid(scores) if from_logits else scores) >= threshold


def labels_of(base: str, h2_output: Tensor, target: Tensor, h1_output: Tensor, **options: Any) -> Labels:
    """Classes that outputs stand for, read as the loss with this base and these options reads them."""
    if base == "binary_cross_entropy":
        h2_output, target, h1_output = align_binary(h2_output, target, h1_output)
        threshold, from_logits = options.get("threshold", 0.5), options.get("from_logits", True)
        h2_labels, h1_labels = (_is_positive(scores, threshold, from_logits) for scores in (h2_output, h1_output))
        return Labels(h2_labels.long(), (target >= 0.5).long(), h1_labels.long(), 2)
    ignore_index = options.get("ignore_index", -100)
    h2_output, target, h1_output = align_multiclass(h2_output, target, h1_output, ignore_index, validate=False)
    soft = target.is_floating_point()
    labels = target.argmax(1) if soft else torch.where(target == ignore_index, -1, target)
    return Labels(_class_indices(h2_output), labels, _class_indices(h1_output), h2_output.shape[1])


def _multiclass_instances(
    base: str,
    dissonance: str,
    h2_output: Tensor,
    target: Tensor,
    h1_output: Tensor,
    *,
    reduction: str,
    weight: Tensor | None,
    label_smoothing: float,
    ignore_index: int,
) -> _Instances:
    soft = target.is_floating_point()
    if weight is not None:
        weight = weight.to(h2_output)
    # One log-softmax serves base and dissonance; F.nll_loss on it is F.cross_entropy to the bit.
    log_p2 = h2_output if base == "nll" else F.log_softmax(h2_output, dim=1)

    def criterion(how: str) -> Tensor:
        if soft and base == "kl_divergence":
            # A soft target keeps its entropy term, so that a perfect h2 reaches 0.
            per_instance = F.kl_div(log_p2, target, reduction="none").sum(1)
            return {"none": per_instance, "sum": per_instance.sum(), "mean": per_instance.mean()}[how]
        if soft and base == "nll":
            raise ValueError(
                f"base='nll' takes class indices. Received a target of dtype {target.dtype}; "
                f"use base='cross_entropy' or 'kl_divergence' for soft targets."
            )
        if soft or label_smoothing:
            return F.cross_entropy(
                h2_output,
                target,
                weight=weight,
                ignore_index=ignore_index,
                reduction=how,
                label_smoothing=label_smoothing,
            )
        return F.nll_loss(log_p2, target, weight=weight, ignore_index=ignore_index, reduction=how)

    base_i = criterion("none")
    labels = target.argmax(1) if soft else target
    counted = None if soft else target != ignore_index
    instance_weight = None
    if counted is not None:
        if weight is not None:
            # An ignored label may lie outside the classes; it must not index the weights.
            instance_weight = weight[torch.where(counted, target, 0)] * counted
        else:
            instance_weight = counted.to(h2_output.dtype)

    if dissonance == "imitation":
        support = torch.ones_like(labels, dtype=torch.bool)
    else:
        support = _class_indices(h1_output) == labels
    if counted is not None:
        support = support & counted

    if dissonance == "new_error":
        d_i = base_i
    else:
        log_p1 = h1_output if base == "nll" else F.log_softmax(h1_output, dim=1)
        p1 = log_p1.exp()
        summand = p1 * (log_p1 - log_p2) if base == "kl_divergence" else -p1 * log_p2
        if weight is not None:
            summand = summand * weight.view(1, -1, *[1] * (summand.ndim - 2))
        d_i = summand.sum(1)
    return _Instances(base_i, d_i, support, instance_weight, base_i if reduction == "none" else criterion(reduction))


def align_binary(h2_output: Tensor, target: Tensor, h1_output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Bring scores (N,) or (N, 1), labels of any width and h1's output to one shape, in at least float32."""
    if not h2_output.is_floating_point():
        raise ValueError(
            f"h2's output must be floating-point scores, one per instance. Received dtype {h2_output.dtype}."
        )
    if h2_output.numel() == 0:
        raise ValueError(f"The batch is empty: h2's output has shape {_shape(h2_output)}. Drop empty batches.")
    shape = _shape(target)

    def shaped(tensor: Tensor, name: str) -> Tensor:
        if _shape(tensor) == shape:
            return tensor
        # (N,) and (N, 1) are the same column; nothing else is guessed.
        if tensor.numel() == target.numel() == max(shape, default=1) == max(tensor.shape, default=1):
            return tensor.reshape(shape)
        raise ValueError(
            f"Shapes differ: {name} of shape {_shape(tensor)} against a target of shape {shape}. Binary scores "
            f"need one score per label: (N,) or (N, 1)."
        )

    h2_output = _in_float32(shaped(h2_output, "h2's output"))
    h1_output = shaped(h1_output, "h1's output")
    h1_output = _in_float32(h1_output) if h1_output.is_floating_point() else h1_output.long()
    return h2_output, target.to(h2_output.dtype), h1_output


def _check_binary_values(target: Tensor, scores: dict[str, Tensor], from_logits: bool) -> None:
    if not _values_are_readable(target):
        return
    if not bool(((target >= 0) & (target <= 1)).all()):
        raise ValueError(
            f"Binary targets must lie in 0..1. Received values from {target.min().item():g} to {target.max().item():g}."
        )
    if not from_logits:
        for name, score in scores.items():
            if score.is_floating_point() and bool(((score < 0) | (score > 1)).any()):
                raise ValueError(
                    f"{name} returned {score.min().item():g} to {score.max().item():g} where probabilities in 0..1 "
                    f"were expected. If the model returns logits, pass from_logits=True (to BCLightningModule: "
                    f"loss_options={{'from_logits': True}})."
                )


def _binary_instances(
    dissonance: str,
    h2_output: Tensor,
    target: Tensor,
    h1_output: Tensor,
    *,
    reduction: str,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    threshold: float,
    from_logits: bool,
) -> _Instances:
    def criterion(goal: Tensor, how: str) -> Tensor:
        rescale = None if weight is None else weight.to(h2_output)
        if from_logits:
            positive = None if pos_weight is None else pos_weight.to(h2_output)
            return F.binary_cross_entropy_with_logits(
                h2_output, goal, weight=rescale, pos_weight=positive, reduction=how
            )
        # torch refuses this one under autocast, where probabilities would be half precision; ours are not.
        with torch.autocast(h2_output.device.type, enabled=False):
            return F.binary_cross_entropy(h2_output, goal, weight=rescale, reduction=how)

    h1_labels = _is_positive(h1_output, threshold, from_logits)
    base_i = criterion(target, "none")
    if dissonance == "new_error":
        d_i = base_i
    else:
        p1 = torch.sigmoid(h1_output) if from_logits else h1_output
        d_i = criterion(p1.to(h2_output.dtype), "none")
    support = torch.ones_like(h1_labels) if dissonance == "imitation" else h1_labels == (target >= 0.5)
    return _Instances(base_i, d_i, support, None, base_i if reduction == "none" else criterion(target, reduction))


def _support_over_ranks(support: Tensor) -> tuple[Tensor, int]:
    """Support summed over all processes, and their number: DDP averages gradients, a share must not."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized() and torch.is_grad_enabled()):
        return support, 1
    world_size = distributed.get_world_size()
    if world_size > 1:
        support = support.clone()
        distributed.all_reduce(support)
    return support, world_size


def _instances(
    h2_output: Tensor,
    target: Tensor,
    h1_output: Tensor,
    base: str,
    dissonance: str,
    reduction: str,
    options: dict[str, Any],
    validate: bool,
    outputs_checked: bool = False,
) -> _Instances:
    if dissonance != "new_error" and not h1_output.is_floating_point():
        raise ValueError(
            f"dissonance={dissonance!r} imitates h1's probabilities. Received h1's labels (dtype "
            f"{h1_output.dtype}); use dissonance='new_error', or an h1 that gives scores."
        )
    if base == "binary_cross_entropy":
        from_logits = options.get("from_logits", True)
        h2_output, target, h1_output = align_binary(h2_output, target, h1_output)
        if validate and not outputs_checked:
            check_finite(h2_output, "h2")
            check_finite(h1_output, "h1")
        if validate:
            _check_binary_values(target, {"h1": h1_output, "h2": h2_output}, from_logits)
        return _binary_instances(
            dissonance,
            h2_output,
            target,
            h1_output,
            reduction=reduction,
            weight=options.get("weight"),
            pos_weight=options.get("pos_weight"),
            threshold=options.get("threshold", 0.5),
            from_logits=from_logits,
        )
    ignore_index = options.get("ignore_index", -100)
    num_classes = options.get("num_classes")
    if num_classes is not None and h2_output.ndim > 1 and h2_output.shape[1] != num_classes:
        raise ValueError(f"num_classes={num_classes}, but h2 scores {h2_output.shape[1]} classes. Make them agree.")
    h2_output, target, h1_output = align_multiclass(h2_output, target, h1_output, ignore_index, validate)
    if validate and not outputs_checked:
        check_finite(h2_output, "h2")
        check_finite(h1_output, "h1")
    return _multiclass_instances(
        base,
        dissonance,
        h2_output,
        target,
        h1_output,
        reduction=reduction,
        weight=options.get("weight"),
        label_smoothing=options.get("label_smoothing", 0.0),
        ignore_index=ignore_index,
    )


def _instance_weights(instances: _Instances) -> tuple[Tensor, Tensor]:
    """What each instance counts for in the mean over the batch, and in the mean over the support."""
    weight = torch.ones_like(instances.dissonance) if instances.weight is None else instances.weight
    return weight, weight * instances.support


def _terms(instances: _Instances, normalization: str) -> LossTerms:
    weight, supported = _instance_weights(instances)
    # torch.where, not a product: 0 * inf would poison the mean and its gradient.
    masked = torch.where(instances.support, instances.dissonance, 0.0).sum()
    total = weight.sum()
    share, own, world_size = total, total, 1
    if normalization == "support":
        own = supported.sum()
        share, world_size = _support_over_ranks(own)
    # Nothing to count (no support, or every label ignored): the dissonance is 0, not 0 / 0.
    dissonance = masked * world_size / torch.where(share > 0, share, 1.0)
    return LossTerms(instances.reduced_base, dissonance, total, masked.detach(), own)


def loss_terms(
    h2_output: Tensor,
    target: Tensor,
    h1_output: Tensor,
    *,
    base: Base = "cross_entropy",
    dissonance: Dissonance = "new_error",
    normalization: Normalization = "batch",
    validate_args: bool = True,
    outputs_checked: bool = False,
    **options: Any,
) -> LossTerms:
    r"""Mean base loss and dissonance of a batch, not yet weighed against each other.

    For logs, and for a training step that has a base loss of its own. Arguments as in `compatibility_loss`;
    ``outputs_checked`` says that the caller has looked for NaN and inf already.

    Returns:
        `LossTerms`: ``base`` and ``dissonance`` are scalars with gradients for h2's output.

    Example:
        >>> import torch
        >>> from bc_lightning.functional import loss_terms
        >>> h2, h1 = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        >>> terms = loss_terms(h2, torch.tensor([0, 1]), h1)
        >>> terms.base, terms.dissonance  # h1 is right on the first instance only
        (tensor(0.2201), tensor(0.0635))
    """
    check_options(base, dissonance, normalization, options)
    instances = _instances(
        h2_output, target, h1_output, base, dissonance, "mean", options, validate_args, outputs_checked
    )
    return _terms(instances, normalization)


def compatibility_loss(
    h2_output: Tensor,
    target: Tensor,
    h1_output: Tensor,
    *,
    base: Base = "cross_entropy",
    dissonance: Dissonance = "new_error",
    lambda_c: float | Tensor = 1.0,
    normalization: Normalization = "batch",
    reduction: Reduction = "mean",
    validate_args: bool = True,
    **options: Any,
) -> Tensor:
    r"""Compatibility loss :math:`\frac1N\sum_i b_i + \lambda_c \frac1N\sum_i c_i d_i` of a batch of outputs.

    :math:`b_i` is the base loss of instance i, :math:`c_i = 1` where h1 is right (its support), and the dissonance
    :math:`d_i` is :math:`b_i` again for ``"new_error"`` or h2's divergence from h1's probabilities for
    ``"strict_imitation"``; ``"imitation"`` is strict imitation on every instance (churn distillation).
    Sources: Bansal et al., AAAI 2019 (new error, strict imitation); Jiang et al., ICLR 2022 (churn distillation).

    Args:
        h2_output: logits (N, C, ...), log-probabilities for ``base="nll"``, one logit per instance (N,) or (N, 1)
            for ``base="binary_cross_entropy"``. Half precision is computed in float32.
        target: class indices (N, ...) or (N, 1) of any integer width; class probabilities (N, C, ...) for
            ``"cross_entropy"`` and ``"kl_divergence"``; 0/1 of any dtype for the binary loss.
        h1_output: h1's scores in h2's shape, or its predicted labels as integers (``"new_error"`` only).
        base: ``"nll"``, ``"cross_entropy"``, ``"binary_cross_entropy"`` or ``"kl_divergence"``.
        dissonance: ``"new_error"``, ``"strict_imitation"`` or ``"imitation"``.
        lambda_c: weight of the dissonance, >= 0, without upper limit. 0 is the base loss to the bit.
        normalization: ``"batch"`` divides the dissonance by the number of instances (under DDP and accumulation,
            equal shards average to the global value); ``"support"`` by the number of instances h1 gets right,
            counted over all processes, which then must all call it. Ignored labels and class weights give each
            shard a denominator of its own under ``"batch"``, as in torch's own weighted mean.
        reduction: ``"mean"`` (``"batchmean"`` is the same), ``"sum"`` or ``"none"`` (shape of the labels). With
            class weights the mean divides by the sum of the weights, as torch's cross-entropy does.
        validate_args: look at values (labels, NaN) as well as shapes. Values on an accelerator are never read.
        options: what the underlying torch loss offers: ``weight``, ``ignore_index`` (default -100),
            ``label_smoothing``, ``pos_weight``; for the binary loss ``threshold`` (0.5) and ``from_logits`` (True).
            With label smoothing, new error smooths d_i as it does b_i; imitation has h1's own softness.

    Raises:
        TypeError: an option that the base does not have; the message lists those it has.
        ValueError: shapes that differ, labels outside the classes, NaN or infinite scores, an h1 with other
            classes than h2, an empty batch, a negative lambda_c, an unknown name.

    Example:
        >>> import torch
        >>> from bc_lightning.functional import compatibility_loss
        >>> h2, h1 = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        >>> compatibility_loss(h2, torch.tensor([0, 1]), h1, lambda_c=2.0)
        tensor(0.3470)
    """
    known(reduction, get_args(Reduction), "reduction")
    check_options(base, dissonance, normalization, options)
    check_lambda(lambda_c)
    how = "mean" if reduction == "batchmean" else reduction
    plain = not isinstance(lambda_c, Tensor) and lambda_c == 0
    instances = _instances(h2_output, target, h1_output, base, dissonance, how, options, validate_args)
    if plain:
        # Not base + 0 * dissonance: that would turn an infinite dissonance into NaN.
        return instances.reduced_base
    if how == "mean":
        return instances.reduced_base + lambda_c * _terms(instances, normalization).dissonance
    penalty = torch.where(instances.support, instances.dissonance, 0.0)
    if normalization == "support":
        # Scaled so that the sum, divided as torch divides its mean, is the "mean" of the same loss.
        everything, supported = _instance_weights(instances)
        total, world_size = _support_over_ranks(supported.sum())
        penalty = penalty * (everything.sum() * world_size / torch.where(total > 0, total, 1.0))
    return instances.reduced_base + lambda_c * (penalty.sum() if how == "sum" else penalty)


def check_options(base: str, dissonance: str, normalization: str, options: dict[str, Any]) -> None:
    """Refuse unknown names and options that the base does not have."""
    known(base, get_args(Base), "base")
    known(dissonance, get_args(Dissonance), "dissonance")
    known(normalization, get_args(Normalization), "normalization")
    unknown = sorted(set(options) - set(BASE_OPTIONS[base]))
    if unknown:
        raise TypeError(
            f"Unknown option {', '.join(map(repr, unknown))} for base={base!r}. "
            f"Known options: {', '.join(map(repr, BASE_OPTIONS[base]))}."
        )
    if options.get("pos_weight") is not None and not options.get("from_logits", True):
        raise TypeError(
            "pos_weight needs logits. Received from_logits=False; torch's probability form has no pos_weight."
        )
    smoothing = options.get("label_smoothing", 0.0)
    if not 0 <= smoothing <= 1:
        raise ValueError(f"label_smoothing must lie in 0..1. Received: {smoothing!r}.")
    if not 0 < options.get("threshold", 0.5) < 1:
        raise ValueError(f"threshold must lie between 0 and 1. Received: {options['threshold']!r}.")
