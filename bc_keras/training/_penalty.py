"""What a batch of a wrapped Keras model is held to: how its outputs are read, its dissonance, and its scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from bc_core.losses._dissonances import DISSONANCES
from bc_core.losses._options import Base
from bc_keras.batches._attached import HOW_TO_ATTACH_STORED, check_columns, split_reference
from bc_keras.batches._labels import Labels, columns_of, entries_of, is_binary, read_labels
from bc_keras.losses._compatibility_loss import CompatibilityLoss
from bc_keras.losses._instance_terms import Counted
from bc_keras.losses._losses import ModelLoss
from bc_keras.reference._reference import Reference
from bc_keras.training._compiled_loss import BaseLoss, DissonanceLoss, Reading
from bc_keras.training._score_scale import reading_of, said_by, says_of
from bc_keras.training._state import Compiled, Options
from bc_keras.training._weighted_loss import weighted_loss


@dataclass(frozen=True)
class AnsweredBatch:
    """One batch within a step, as both models answered.

    Attributes:
        target: (N, ...), as the compiled loss takes it.
        h1: h1's scores in h2's classes, or labels.
        h2: h2's scores.
        sample_weight: of the instances, or None.
        mask: which entries count, where h2 masks.
        reading: how all of it is read.
    """

    target: Any
    h1: Any
    h2: Any
    sample_weight: Any
    mask: Any
    reading: Reading


def target_and_stored(reference: Reference, y: Any, h2_output: Any) -> tuple[Any, Any]:
    """The target, and h1's stored outputs where they come beside it."""
    if y is None or len(keras.tree.flatten(y)) != 1:
        raise ValueError(
            "A compatible update needs one target per instance beside the input. Received: "
            f"{'no target' if y is None else f'a target of {len(keras.tree.flatten(y))} tensors'}."
        )
    target = keras.tree.flatten(y)[0]
    if reference.stored is None:
        return target, None
    columns = columns_of(h2_output) if reference.class_map is None else len(reference.class_map)
    check_columns(reference.stored, columns)
    return split_reference(target, columns, HOW_TO_ATTACH_STORED)


def reading_by(compiled: Compiled, options: Options, reference: Reference, h2_output: Any) -> Reading:
    """How the outputs are to be read: what the compiled loss says, unless the constructor was told."""
    facts, given = compiled.facts, options.criterion
    binary = (
        is_binary(h2_output)
        or facts.binary
        or bool(options.multilabel)
        or (given is not None and given.base == "binary_cross_entropy")
    )
    h1_from_logits = options.h1_from_logits
    if h1_from_logits is None and given is not None:
        h1_from_logits = given.h1_from_logits
    says = said_by(facts, compiled.activation)
    if says.loss is None and isinstance(options.loss, CompatibilityLoss | ModelLoss) and given is not None:
        says = says._replace(loss=given.from_logits)
    return reading_of(
        says_of(reference),
        says,
        binary=binary,
        multilabel=binary and not is_binary(h2_output) if options.multilabel is None else options.multilabel,
        from_logits=options.from_logits,
        h1_from_logits=h1_from_logits,
        imitates=options.imitates,
        is_scored=given is not None,
        is_mapped=reference.class_map is not None,
        received=f"loss={compiled.base!r}",
    )


def _labels(batch: AnsweredBatch, compiled: Compiled, threshold: float) -> Labels:
    """True and predicted classes of a batch."""
    return read_labels(
        batch.target,
        batch.h2,
        batch.h1,
        threshold=threshold,
        from_logits=batch.reading.from_logits,
        h1_from_logits=batch.reading.h1_from_logits,
        multilabel=batch.reading.multilabel,
        signed=compiled.facts.is_margin,
    )


def dissonance_of(batch: AnsweredBatch, compiled: Compiled, options: Options, compile_loss: Any) -> Any:
    """Dissonance of a batch, reduced and scaled as Keras reduces and scales `compile_loss`, the base."""
    if options.criterion is None and options.dissonance == "new_error" and not batch.reading.multilabel:
        return _base_where_h1_is_right(batch, compiled, options, compile_loss)
    if compiled.dissonance_loss is None:
        criterion = _criterion_in_use(batch.reading, compiled, options)
        compiled.dissonance_loss = DissonanceLoss(criterion, compiled.facts.reduction)
    scores = compiled.dissonance_loss.criterion.as_scores(batch.h1, batch.h2)
    y_true = (batch.target, scores, *([] if batch.mask is None else [batch.mask]))
    dissonance = compiled.dissonance_loss(y_true, batch.h2, batch.sample_weight)
    return dissonance if compiled.loss_weight is None else dissonance * compiled.loss_weight


def _base_where_h1_is_right(batch: AnsweredBatch, compiled: Compiled, options: Options, compile_loss: Any) -> Any:
    facts = compiled.facts
    labels = _labels(batch, compiled, options.threshold)
    dtype = "float64" if keras.config.floatx() == "float64" else "float32"
    right = ops.cast(labels.h1 == labels.target, dtype)
    valid = None
    if facts.ignore_class is not None:
        valid = ops.cast(labels.target != facts.ignore_class, dtype)
    counted = Counted(right, valid, batch.mask)
    support = right if counted.both is None else right * counted.both
    everything = ops.ones_like(support) if counted.both is None else counted.both
    if batch.sample_weight is not None:
        everything = everything * entries_of(ops.cast(batch.sample_weight, dtype), support, "sample_weight")
    weight = support * everything
    # The compiled loss with the support as sample weight: its smoothing, masks, reduction and scaling are right.
    dissonance = ops.cast(weighted_loss(compile_loss, batch.target, batch.h2, weight), dtype)
    if facts.reduction == "mean_with_sample_weight":
        # Keras has divided by the weights of the support; over a batch it is those of all that counts.
        share = ops.divide_no_nan(ops.sum(weight), ops.sum(everything))
        return dissonance * share if options.normalization == "batch" else dissonance
    return dissonance * counted.support_scale(options.normalization)


def _criterion_in_use(reading: Reading, compiled: Compiled, options: Options) -> CompatibilityLoss:
    """What gives the dissonance, reading outputs as the compiled loss does."""
    facts, given = compiled.facts, options.criterion
    how: dict[str, Any] = {"from_logits": reading.from_logits, "h1_from_logits": reading.h1_from_logits}
    how["validate_args"] = False  # values cannot be read inside a compiled step
    if given is not None:
        made = CompatibilityLoss(**{**given.get_config(), "lambda_c": 1.0, **how})
        _check_takes_from_base(made, compiled)
        return made
    base: Base = "kl_divergence" if facts.divergence else "cross_entropy"
    if reading.binary:
        base = "binary_cross_entropy"
    own = dict(options.own)
    if reading.binary:
        own["threshold"] = options.threshold
    if base != "kl_divergence":
        own["label_smoothing"] = facts.label_smoothing
    if not reading.binary:
        own["ignore_class"] = facts.ignore_class
    made = CompatibilityLoss(base, options.dissonance, 1.0, options.normalization, **how, **own)
    _check_takes_from_base(made, compiled)
    return made


def _check_takes_from_base(criterion: CompatibilityLoss, compiled: Compiled) -> None:
    """Refuse a dissonance that takes a share of the target from the base where the base is another loss than its own.

    What it takes, it would take from a loss that does not have it, which could then fall without end.
    """
    if DISSONANCES[criterion.dissonance].most_lambda is None or isinstance(compiled.base, BaseLoss):
        return
    facts = compiled.facts
    bases = {"binary_cross_entropy": facts.binary, "kl_divergence": facts.divergence}
    is_same = bases.get(criterion.base, not (facts.binary or facts.divergence)) and facts.is_plain_base
    options = {"label_smoothing": facts.label_smoothing, "ignore_class": facts.ignore_class}
    if not is_same or any(getattr(criterion, name) != value for name, value in options.items()):
        raise ValueError(
            f"dissonance={criterion.dissonance!r} puts h1's probabilities in the place of a share of the target, so "
            f"the compiled loss must be its base, {criterion.base}, with the same options: Keras's own, or none beside "
            f"loss=CompatibilityLoss({criterion.base!r}, {criterion.dissonance!r}). dissonance='imitation' only adds, "
            f"to any loss. Received: loss={compiled.base!r}, {options}."
        )


def update_metrics(batch: AnsweredBatch, compiled: Compiled, options: Options) -> None:
    """Count a batch in the compiled metrics of this package."""
    ignored = compiled.facts.ignore_class
    read: dict[float, Labels] = {}
    for metric, weighted in compiled.metrics:
        if metric.multilabel and not batch.reading.multilabel:
            raise ValueError(
                f"The metric {metric.name!r} is multilabel and the model is not: pass BCModel(..., "
                "multilabel=True), which tells every metric. Received: multilabel=True in the metric."
            )
        threshold = options.threshold if metric.threshold is None else metric.threshold
        if threshold not in read:
            read[threshold] = _labels(batch, compiled, threshold)
        labels, counted = read[threshold], batch.mask
        if ignored is not None and metric.ignore_class is None:
            counted = labels.target != ignored
            if batch.mask is not None:
                mask = ops.cast(entries_of(batch.mask, counted, "The mask"), "bool")
                counted = ops.logical_and(counted, mask)
        metric.update_labels(labels, batch.sample_weight if weighted else None, counted)
