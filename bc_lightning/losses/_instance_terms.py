r"""The training loss on outputs: ``mean_i base_i + lambda_c * dissonance``.

Written once for torch; `CompatibilityLoss` and the eight named losses are shells over this file.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from bc_core.losses._bases import BASES
from bc_core.losses._dissonances import DISSONANCES, Answer, Given, weigh
from bc_core.losses._documentation import with_dissonances
from bc_core.losses._options import (
    Base,
    DissonanceName,
    Normalization,
    check_labels_suffice,
    check_lambda_of,
    check_loss,
    known,
    options_of_dissonance,
)
from bc_lightning._torch_operations import over_classes, over_two_classes
from bc_lightning.losses._alignment import (
    align_binary,
    align_multiclass,
    aligned,
    aligned_teacher,
    values_are_at_hand,
)

Reduction = Literal["mean", "batchmean", "sum", "none"]
# Here and not where it is needed: torch before 2.5 cannot compile a call of get_args.
_REDUCTIONS = get_args(Reduction)

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
    dissonance: Tensor  # w_i d_i
    support: Tensor  # whether the dissonance holds instance i, as bool
    weight: Tensor | None  # what instance i counts for in a mean; None stands for 1 each
    reduced_base: Tensor  # base under the reduction asked for, by torch's own reduction


def check_lambda(lambda_c: float | Tensor, dissonance: str) -> None:
    """Refuse a lambda_c that this dissonance cannot have; a tensor is taken as it is (reading it would sync)."""
    if isinstance(lambda_c, Tensor):
        if lambda_c.ndim != 0:
            raise ValueError(f"lambda_c must be one number. Received a tensor of shape {tuple(lambda_c.shape)}.")
        return
    check_lambda_of(dissonance, lambda_c)


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
    h2_output, target, h1_output = align_multiclass(h2_output, target, h1_output, ignore_index, read=False)
    soft = target.is_floating_point()
    labels = target.argmax(1) if soft else torch.where(target == ignore_index, -1, target)
    return Labels(_class_indices(h2_output), labels, _class_indices(h1_output), h2_output.shape[1])


def _multiclass_instances(
    base: str,
    dissonance: str,
    h2_output: Tensor,
    target: Tensor,
    h1_output: Tensor,
    teacher_output: Tensor,
    *,
    reduction: str,
    weight: Tensor | None,
    label_smoothing: float,
    ignore_index: int,
    own: dict[str, Any],
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
    counted = instance_weight = None
    if soft:
        labels = target.argmax(1)
    else:
        counted = target != ignore_index
        # An ignored label may lie outside the classes; it must not index anything.
        labels = torch.where(counted, target, 0)
        instance_weight = counted.to(h2_output.dtype) if weight is None else weight[labels] * counted

    row, h1, ops = DISSONANCES[dissonance], None, over_classes
    h2 = Answer(h2_output, log_p2)
    if row.needs != "labels":
        log_p1 = teacher_output if base == "nll" else F.log_softmax(teacher_output, dim=1)
        h1 = Answer(teacher_output, log_p1, log_p1.exp())
    class_weight = None if weight is None else weight.view(1, -1, *[1] * (h2_output.ndim - 2))
    towards = partial(BASES[base].towards, h2=h2, ops=ops, class_weight=class_weight)
    right = _class_indices(h1_output) == labels
    of_class = None if class_weight is None else (target * class_weight).sum(1) if soft else instance_weight
    given = Given(
        ops, base_i, towards, right, labels, h2, h1, own, of_class, lambda: _class_indices(h2_output) != labels
    )
    held, penalty = weigh(row, given, counted)
    return _Instances(base_i, penalty, held, instance_weight, base_i if reduction == "none" else criterion(reduction))


def _binary_instances(
    dissonance: str,
    h2_output: Tensor,
    target: Tensor,
    h1_output: Tensor,
    teacher_output: Tensor,
    *,
    reduction: str,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    threshold: float,
    from_logits: bool,
    own: dict[str, Any],
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

    h1_labels, labels = _is_positive(h1_output, threshold, from_logits), target >= 0.5
    base_i = criterion(target, "none")
    row, h1, h2 = DISSONANCES[dissonance], None, None
    if row.needs == "logits":
        h2, h1 = (_two_classes(scores, from_logits) for scores in (h2_output, teacher_output.to(h2_output.dtype)))
    elif row.needs == "probabilities":
        h1 = Answer(None, None, torch.sigmoid(teacher_output) if from_logits else teacher_output)

    def towards(goal: Answer) -> Tensor:
        return criterion(goal.probabilities.to(h2_output.dtype), "none")

    of_label = None
    if row.needs == "logits" and not (weight is None and pos_weight is None):
        of_label = torch.ones_like(target) if weight is None else weight.to(target).expand_as(target)
        if pos_weight is not None:
            of_label = of_label * (1 + (pos_weight.to(target) - 1) * target)
    given = Given(
        over_two_classes,
        base_i,
        towards,
        h1_labels == labels,
        labels.long(),
        h2,
        h1,
        own,
        of_label,
        lambda: _is_positive(h2_output, threshold, from_logits) != labels,
    )
    held, penalty = weigh(row, given)
    return _Instances(base_i, penalty, held, None, base_i if reduction == "none" else criterion(target, reduction))


def _two_classes(scores: Tensor, from_logits: bool) -> Answer:
    if not from_logits:
        # A sure probability has an infinite logit.
        scores = scores.logit(torch.finfo(scores.dtype).eps)
    logits = torch.stack([torch.zeros_like(scores), scores], -1)
    return Answer(logits, F.log_softmax(logits, -1), scores.sigmoid())


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
    teacher_output: Tensor | None,
    base: str,
    dissonance: str,
    reduction: str,
    options: dict[str, Any],
    validate: bool,
    outputs_checked: bool = False,
) -> _Instances:
    imitated = h1_output if teacher_output is None else teacher_output
    if not imitated.is_floating_point():
        check_labels_suffice(dissonance, imitated.dtype)
    own = options_of_dissonance(dissonance, options)
    read = validate and values_are_at_hand(h2_output)
    given = h2_output, target
    h2_output, target, h1_output = aligned(base, *given, h1_output, options, read=read, outputs_checked=outputs_checked)
    imitated = h1_output
    if teacher_output is not None:
        imitated = aligned_teacher(base, *given, teacher_output, options, read=read, outputs_checked=outputs_checked)
    if base == "binary_cross_entropy":
        return _binary_instances(
            dissonance,
            h2_output,
            target,
            h1_output,
            imitated,
            reduction=reduction,
            weight=options.get("weight"),
            pos_weight=options.get("pos_weight"),
            threshold=options.get("threshold", 0.5),
            from_logits=options.get("from_logits", True),
            own=own,
        )
    return _multiclass_instances(
        base,
        dissonance,
        h2_output,
        target,
        h1_output,
        imitated,
        reduction=reduction,
        weight=options.get("weight"),
        label_smoothing=options.get("label_smoothing", 0.0),
        ignore_index=options.get("ignore_index", -100),
        own=own,
    )


def _instance_weights(instances: _Instances) -> tuple[Tensor, Tensor]:
    """What each instance counts for in the mean over the batch, and in the mean over the support."""
    weight = torch.ones_like(instances.dissonance) if instances.weight is None else instances.weight
    return weight, weight * instances.support


def _terms(instances: _Instances, normalization: str) -> LossTerms:
    weight, supported = _instance_weights(instances)
    masked = instances.dissonance.sum()
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
    teacher_output: Tensor | None = None,
    base: Base = "cross_entropy",
    dissonance: DissonanceName = "new_error",
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
        h2_output, target, h1_output, teacher_output, base, dissonance, "mean", options, validate_args, outputs_checked
    )
    return _terms(instances, normalization)


@with_dissonances
def compatibility_loss(
    h2_output: Tensor,
    target: Tensor,
    h1_output: Tensor,
    *,
    teacher_output: Tensor | None = None,
    base: Base = "cross_entropy",
    dissonance: DissonanceName = "new_error",
    lambda_c: float | Tensor = 1.0,
    normalization: Normalization = "batch",
    reduction: Reduction = "mean",
    validate_args: bool = True,
    **options: Any,
) -> Tensor:
    r"""Compatibility loss :math:`\frac1N\sum_i b_i + \lambda_c \frac1N\sum_i c_i d_i` of a batch of outputs.

    :math:`b_i` is the base loss of instance i, :math:`c_i = 1` where h1 is right (its support), and :math:`d_i` the
    dissonance. Some weigh instances otherwise than by :math:`c_i`; see below.

    Args:
        h2_output: logits (N, C, ...), log-probabilities for ``base="nll"``, one logit per instance (N,) or (N, 1)
            for ``base="binary_cross_entropy"``. Half precision is computed in float32.
        target: class indices (N, ...) or (N, 1) of any integer width; class probabilities (N, C, ...) for
            ``"cross_entropy"`` and ``"kl_divergence"``; 0/1 of any dtype for the binary loss.
        h1_output: h1's scores in h2's shape, or its predicted labels as integers, where the dissonance
            needs no scores (``"new_error"``).
        teacher_output: scores to be imitated instead of h1's, in their form; where h1 is right is still h1's to say.
        base: ``"nll"``, ``"cross_entropy"``, ``"binary_cross_entropy"`` or ``"kl_divergence"``.
        dissonance: how h2 is held to h1, by name; see below.
        lambda_c: weight of the dissonance, >= 0, without upper limit. 0 is the base loss to the bit.
        normalization: ``"batch"`` divides the dissonance by the number of instances (under DDP and accumulation,
            equal shards average to the global value); ``"support"`` by the number of instances h1 gets right,
            counted over all processes, which then must all call it. Ignored labels and class weights give each
            shard a denominator of its own under ``"batch"``, as in torch's own weighted mean.
        reduction: ``"mean"`` (``"batchmean"`` is the same), ``"sum"`` or ``"none"`` (shape of the labels). With
            class weights the mean divides by the sum of the weights, as torch's cross-entropy does.
        validate_args: look at values (labels, NaN) as well as shapes. Values on an accelerator are not read here:
            `CompatibilityLoss` reads those of its first batch.
        options: what the underlying torch loss offers: ``weight``, ``ignore_index`` (default -100),
            ``label_smoothing``, ``pos_weight``; for the binary loss ``threshold`` (0.5) and ``from_logits`` (True);
            those of the dissonance.
            With label smoothing, new error smooths d_i as it does b_i; imitation has h1's own softness.

    Raises:
        TypeError: an option that neither base nor dissonance has; the message lists those they have.
        ValueError: shapes that differ, labels outside the classes, NaN or infinite scores, an h1 with other
            classes than h2, an empty batch, a negative lambda_c, an unknown name.

    Example:
        >>> import torch
        >>> from bc_lightning.functional import compatibility_loss
        >>> h2, h1 = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        >>> compatibility_loss(h2, torch.tensor([0, 1]), h1, lambda_c=2.0)
        tensor(0.3470)
    """
    known(reduction, _REDUCTIONS, "reduction")
    check_options(base, dissonance, normalization, options)
    check_lambda(lambda_c, dissonance)
    how = "mean" if reduction == "batchmean" else reduction
    plain = not isinstance(lambda_c, Tensor) and lambda_c == 0
    instances = _instances(h2_output, target, h1_output, teacher_output, base, dissonance, how, options, validate_args)
    if plain:
        # Not base + 0 * dissonance: that would turn an infinite dissonance into NaN.
        return instances.reduced_base
    if how == "mean":
        return instances.reduced_base + lambda_c * _terms(instances, normalization).dissonance
    penalty = instances.dissonance
    if normalization == "support":
        # Scaled so that the sum, divided as torch divides its mean, is the "mean" of the same loss.
        everything, supported = _instance_weights(instances)
        total, world_size = _support_over_ranks(supported.sum())
        penalty = penalty * (everything.sum() * world_size / torch.where(total > 0, total, 1.0))
    return instances.reduced_base + lambda_c * (penalty.sum() if how == "sum" else penalty)


def check_options(base: str, dissonance: str, normalization: str, options: dict[str, Any]) -> None:
    """Refuse unknown names, and options that neither base nor dissonance has."""
    check_loss(base, dissonance, normalization, options, BASE_OPTIONS)
    if options.get("pos_weight") is not None and not options.get("from_logits", True):
        raise TypeError(
            "pos_weight needs logits. Received from_logits=False; torch's probability form has no pos_weight."
        )
