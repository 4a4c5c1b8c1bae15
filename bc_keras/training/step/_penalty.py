"""What a batch of a wrapped Keras model is held to: how its outputs are read, its dissonance, and its scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops
from keras.src.backend import get_keras_mask  # public nowhere; JAX keeps masks beside its arrays

from bc_core.losses._blends import H1, PLAIN, TEACHER, check_kind_of_blend
from bc_core.losses._dissonances import DISSONANCES
from bc_core.losses._options import Base, check_labels_suffice
from bc_keras.batches._attached import check_columns, how_to_attach, split_reference
from bc_keras.batches._labels import (
    Labels,
    columns_of,
    entries_of,
    is_binary,
    is_float,
    read_labels,
    target_classes,
)
from bc_keras.losses._compatibility_loss import CompatibilityLoss
from bc_keras.losses._instance_terms import Counted
from bc_keras.losses._losses import ModelLoss
from bc_keras.reference._blend import as_logits
from bc_keras.reference._reference import Reference
from bc_keras.training._state import Compatibility, Compiled, Options
from bc_keras.training.beside._held_out_counts import HeldOutCounts
from bc_keras.training.compiled._compiled_loss import BaseLoss, DissonanceLoss, Reading
from bc_keras.training.compiled._score_scale import reading_of, said_by, says_of
from bc_keras.training.compiled._weighted_loss import weighted_loss


@dataclass(frozen=True)
class AnsweredBatch:
    """One batch within a step, as both models answered.

    Attributes:
        target: (N, ...), as the compiled loss takes it.
        h1: h1's scores in h2's classes, or labels.
        teacher: scores that are imitated in place of h1's, in their form; None for h1's own.
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
    teacher: Any = None

    def __post_init__(self) -> None:
        check_rows(self.h1, self.h2)
        if keras.backend.backend() == "tensorflow" and None in (self.h1.shape[0], self.h2.shape[0]):
            object.__setattr__(self, "h1", _checked_in_graph(self.h1, self.h2))


def check_rows(h1_output: Any, of_batch: Any) -> None:
    """Refuse answers of h1 that are not one for each instance, where both numbers are known."""
    said, asked = ((tuple(each.shape) or ("no",))[0] for each in (h1_output, of_batch))
    if said == "no" or (None not in (said, asked) and said != asked):
        raise ValueError(f"{_ONE_ROW_EACH} Received: {said} rows for {asked} instances.")


_ONE_ROW_EACH = (
    "h1 must give one row for each instance of a batch: let it answer for the inputs that it is given, all of them and "
    "no others."
)


def _checked_in_graph(h1_output: Any, of_batch: Any) -> Any:
    """The same in a graph whose batches may have any size, where one row would stand for all of them without a word."""
    import tensorflow as tf

    said, asked = tf.shape(h1_output)[0], tf.shape(of_batch)[0]
    with tf.control_dependencies([tf.debugging.assert_equal(said, asked, _ONE_ROW_EACH)]):
        # XLA drops assertions, and shapes are its own to check.
        return tf.reshape(h1_output, tf.concat([[asked], tf.shape(h1_output)[1:]], 0))


def target_and_stored(references: Mapping[str, Reference], y: Any, h2_output: Any) -> tuple[Any, dict[str, Any]]:
    """The target, and by what they are called the stored outputs that come beside it; None of those that are asked."""
    if y is None or len(keras.tree.flatten(y)) != 1:
        raise ValueError(
            "A compatible update needs one target per instance beside the input. Received: "
            f"{'no target' if y is None else f'a target of {len(keras.tree.flatten(y))} tensors'}."
        )
    target = keras.tree.flatten(y)[0]
    rows: dict[str, Any] = dict.fromkeys(references)
    stored = [who for who, reference in references.items() if reference.stored is not None]
    for who in stored[:0:-1]:  # the last stands at the end; the first says what the width has to be
        columns = columns_beside(references[who], h2_output)
        rows[who], target = target[..., -columns:], target[..., :-columns]
    if stored:
        columns = columns_beside(references[stored[0]], h2_output)
        target, rows[stored[0]] = split_reference(target, columns, how_to_attach(stored))
    return target, rows


def columns_beside(reference: Reference, h2_output: Any) -> int:
    """How many columns of the label are stored outputs."""
    columns = columns_of(h2_output) if reference.class_map is None else len(reference.class_map)
    check_columns(reference.stored, columns)
    return columns


def answered(
    state: Compatibility,
    x: Any,
    target: Any,
    rows: Mapping[str, Any],
    h2_output: Any,
    weight: Any,
    reading: Reading,
) -> AnsweredBatch:
    """A batch with what h1 and who is imitated say of it: asked now, where `rows` holds no stored outputs of theirs."""
    h1_output, columns = rows[H1], columns_of(h2_output)
    for who, each in state.references.items():
        if columns > 1:
            check_kind_of_blend(each.blend_name, "labels" if reading.binary else "classes", who)
    if h1_output is None:
        h1_output = state.ask(state.reference, x, columns, reading.h1_from_logits, reading.multilabel)
    elif state.reference.class_map is not None:
        h1_output = state.reference.in_classes_of_h2(h1_output, columns, reading.h1_from_logits, reading.multilabel)
    taught, plain = (
        state.references[who].to_imitate(
            _scores_of(state, who, x, rows[who], columns, reading),
            h2_output,
            reading.h1_from_logits,
            reading.from_logits,
        )
        if who in state.references
        else None
        for who in (TEACHER, PLAIN)
    )
    if state.reference.class_map is not None and state.reference.class_map.parts:
        if reading.multilabel:
            raise ValueError(
                "A class that was split has parts of which one is true, and here each column is a label of its own: "
                f"map h1's labels in a function of your own. Received: class_map={state.reference.class_map!r}."
            )
        # Whether h1 is right is told by the whole, what is imitated is divided.
        labels = target_classes(target, tuple(h2_output.shape)[:-1], columns)
        whole = state.reference.for_support(h1_output, labels, reading.h1_from_logits)
        if taught is None and state.options.imitates:
            taught = state.reference.to_imitate(h1_output, h2_output, reading.h1_from_logits, reading.from_logits)
        h1_output = whole
    batch = AnsweredBatch(target, h1_output, h2_output, weight, get_keras_mask(h2_output), reading, taught)
    return batch if plain is None else dataclasses.replace(batch, teacher=_where_h2_is_right(state, batch, plain))


def _where_h2_is_right(state: Compatibility, batch: AnsweredBatch, plain: Any) -> Any:
    """What is imitated: the plain h2 where h2 is right at present, else h1, or the teacher in its place."""
    labels = _labels(batch, state.compiled, state.options.threshold)
    right = ops.stop_gradient(labels.h2) == labels.target
    imitated = batch.h1 if batch.teacher is None else batch.teacher
    if not is_float(imitated):
        check_labels_suffice(state.options.dissonance_name, imitated.dtype)
    if tuple(imitated.shape[1:]) != tuple(plain.shape[1:]) and not is_binary(batch.h2):
        raise ValueError(
            "h1 and the plain h2 are imitated in turns, and give scores of different shapes: say which class of each "
            f"is which with a class_map. Received: {tuple(imitated.shape)} and {tuple(plain.shape)}."
        )
    if len(right.shape) < len(batch.h2.shape):
        right = ops.expand_dims(right, -1)
    plain, imitated = (ops.reshape(each, ops.shape(batch.h2)) for each in (plain, imitated))
    return ops.where(right, plain, ops.cast(imitated, plain.dtype))


def imitated(state: Compatibility, x: Any, columns: int, reading: Reading) -> Any:
    """What the teacher, or h1, says of inputs, in h2's classes and in the form that h1's scores are read in."""
    if state.teacher is not None:
        return _scores_of(state, TEACHER, x, None, columns, reading)
    return state.ask(state.reference, x, columns, reading.h1_from_logits, reading.multilabel)


def _scores_of(state: Compatibility, who: str, x: Any, rows: Any, columns: int, reading: Reading) -> Any:
    """What the teacher or the plain h2 says, in h2's classes and in the form that h1's scores are read in.

    Args:
        state: what h2 is held to.
        who: which of them.
        x: inputs of the batch.
        rows: its stored outputs, where they came with the label.
        columns: of h2's output.
        reading: how h1's scores are read.
    """
    reference, given = state.references[who], state.beside[who]
    alone = reading.binary
    if rows is None:
        answer = state.ask(reference, x, columns, given, reading.multilabel)
    else:
        answer = reference.in_classes_of_h2(rows, columns, given, reading.multilabel)
    if not is_float(answer):
        raise ValueError(
            f"{who[0].upper()}{who[1:]} gives labels, and its probabilities are imitated: give a model of scores."
        )
    name = state.options.dissonance_name
    if DISSONANCES[name].reads == "logits" and reading.from_logits and reading.h1_from_logits and not given:
        raise ValueError(
            f"dissonance={name!r} compares logits, and {who} gives probabilities where h1 and h2 give logits: "
            "let it give its logits."
        )
    logits = as_logits(answer, given, alone)
    if reading.h1_from_logits:
        return logits
    if not given:
        return answer
    return ops.sigmoid(answer) if alone else ops.softmax(answer, axis=-1)


def reading_by(state: Compatibility, h2_output: Any) -> Reading:
    """How the outputs are to be read: what the compiled loss says, unless the constructor was told."""
    compiled, options, reference = state.compiled, state.options, state.reference
    facts, given = compiled.facts, options.criterion
    binary = is_binary(h2_output) or state.trains_labels
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
        multilabel=binary and not is_binary(h2_output) if compiled.multilabel is None else compiled.multilabel,
        from_logits=options.from_logits,
        h1_from_logits=h1_from_logits,
        # Of an h1 beside a teacher no more than the largest score is read.
        imitates=(options.imitates or state.unlabelled is not None) and state.teacher is None,
        is_scored=given is not None or bool(state.beside),
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
    if options.criterion is None and options.dissonance == "new_error":
        return _base_where_h1_is_right(batch, compiled, options, compile_loss)
    if compiled.dissonance_loss is None:
        criterion = _criterion_in_use(batch.reading, compiled, options)
        compiled.dissonance_loss = DissonanceLoss(criterion, compiled.facts.reduction)
    answers: tuple[Any, ...] = (
        compiled.dissonance_loss.criterion.as_scores(batch.h1, batch.h2, batch.teacher is None),
    )
    if batch.teacher is not None:
        answers = (*answers, batch.teacher)
    target = zero_or_one(batch.target, batch.h2) if compiled.facts.is_margin and batch.reading.binary else batch.target
    y_true = (target, answers, *([] if batch.mask is None else [batch.mask]))
    dissonance = compiled.dissonance_loss(y_true, batch.h2, batch.sample_weight)
    return dissonance if compiled.loss_weight is None else dissonance * compiled.loss_weight


def zero_or_one(target: Any, scores: Any) -> Any:
    """Labels of 0 and 1, of those of a hinge too, which may have -1 for 0."""
    return ops.maximum(ops.cast(target, scores.dtype), 0.0)


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
    dissonance = ops.cast(weighted_loss(compile_loss, batch.target, batch.h2, weight, compiled.labels), dtype)
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


def update_metrics(
    batch: AnsweredBatch, compiled: Compiled, options: Options, held_out: HeldOutCounts | None = None
) -> None:
    """Count a batch in the compiled metrics of this package, and in what a promise goes by."""
    read: dict[float, Labels] = {}

    def labels_at(threshold: float | None) -> Labels:
        threshold = options.threshold if threshold is None else threshold
        if threshold not in read:
            read[threshold] = _labels(batch, compiled, threshold)
        return read[threshold]

    if held_out is not None:
        labels = labels_at(None)
        held_out.update_labels(labels, _counted(batch, compiled.facts.ignore_class, labels))
    for metric, weighted in compiled.metrics:
        if metric.multilabel and not batch.reading.multilabel:
            raise ValueError(
                f"The metric {metric.name!r} is multilabel and the model is not: pass BCModel(..., "
                "multilabel=True), which tells every metric. Received: multilabel=True in the metric."
            )
        labels = labels_at(metric.threshold)
        ignored = compiled.facts.ignore_class if metric.ignore_class is None else None
        metric.update_labels(labels, batch.sample_weight if weighted else None, _counted(batch, ignored, labels))


def _counted(batch: AnsweredBatch, ignored: int | None, labels: Labels) -> Any:
    """Which labels count: those that are neither masked nor to be ignored; None for all."""
    if ignored is None:
        return batch.mask
    counted = labels.target != ignored
    if batch.mask is None:
        return counted
    return ops.logical_and(counted, ops.cast(entries_of(batch.mask, counted, "The mask"), "bool"))
