"""Base and dissonance of each instance, and what counts in their means."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import keras
from keras import ops

from bc_core.losses._bases import BASES
from bc_core.losses._dissonances import DISSONANCES, Answer, Given, weigh
from bc_keras._keras_operations import over_classes
from bc_keras.batches._labels import TINY, as_column, entries_of, h1_classes, is_binary, is_positive, target_classes
from bc_keras.losses._distribution import num_replicas, sum_over_replicas


class InstanceTerms(NamedTuple):
    """Terms of each instance, floating-point tensors of one shape: (N,), or (N, ...) for dense outputs."""

    base: Any
    dissonance: Any  # w_i d_i
    support: Any  # 1 where the dissonance holds instance i, else 0; a share of the labels for a multilabel model
    valid: Any  # 1, or 0 where the target is ignored; None where every instance counts


def log_probabilities(scores: Any, from_logits: bool, epsilon: float | None = None) -> Any:
    """Logarithms of class probabilities, from logits or from probabilities, which are clipped as Keras clips them."""
    if from_logits:
        return ops.log_softmax(scores, axis=-1)
    return ops.log(ops.clip(scores, keras.config.epsilon() if epsilon is None else epsilon, 1.0))


def _distribution_of_target(target: Any, h2_output: Any, ignore_class: int | None) -> tuple[Any, Any, Any]:
    """The target as a distribution over the classes, as class indices, and where it counts."""
    shape, classes = tuple(h2_output.shape)[:-1], h2_output.shape[-1]
    labels = target_classes(target, shape, classes)
    if len(target.shape) == len(h2_output.shape) and target.shape[-1] == classes:
        return ops.cast(target, h2_output.dtype), labels, None
    valid = None
    if ignore_class is not None:
        counted = labels != ignore_class
        # An ignored label may lie outside the classes; it must not index anything.
        labels, valid = ops.where(counted, labels, 0), ops.cast(counted, h2_output.dtype)
    return ops.one_hot(labels, classes, dtype=h2_output.dtype), labels, valid


def multiclass_terms(
    base: str,
    dissonance: str,
    h2_output: Any,
    target: Any,
    h1_output: Any,
    teacher_output: Any,
    *,
    from_logits: bool,
    h1_from_logits: bool,
    label_smoothing: float,
    ignore_class: int | None,
    epsilon: float | None,
    own: Mapping[str, Any],
) -> InstanceTerms:
    """Terms of scores over classes, (N, ..., C); `own` holds the dissonance's options. The teacher's may be h1's."""
    row = DISSONANCES[dissonance]
    goal, labels, valid = _distribution_of_target(target, h2_output, ignore_class)
    if label_smoothing:
        goal = goal * (1.0 - label_smoothing) + label_smoothing / h2_output.shape[-1]
    log_p2, h1 = log_probabilities(h2_output, from_logits, epsilon), None
    h2 = Answer(h2_output if from_logits else log_p2, log_p2)
    if row.needs != "labels":
        log_p1 = log_probabilities(teacher_output, h1_from_logits, epsilon)
        h1 = Answer(log_p1, log_p1, teacher_output)
        if h1_from_logits:
            h1 = Answer(teacher_output, log_p1, ops.exp(log_p1))
        if from_logits != h1_from_logits:
            # Logits are compared on one scale; where one model gives none, on that of log-probabilities.
            h2, h1 = h2._replace(logits=log_p2), h1._replace(logits=log_p1)
    towards = partial(BASES[base].towards, h2=h2, ops=over_classes)
    # Soft targets keep their entropy, so that a perfect h2 reaches 0; for a hard label it is 0.
    base_i = towards(Answer(None, ops.log(ops.maximum(goal, TINY)) if base == "kl_divergence" else None, goal))
    right = h1_classes(h1_output, tuple(h2_output.shape)[:-1], h2_output.shape[-1]) == labels
    counted = None if valid is None else valid > 0
    given = Given(
        over_classes,
        base_i,
        towards,
        right,
        ops.maximum(labels, 0),  # of a row without a class too
        h2,
        h1,
        own,
        h2_wrong=lambda: ops.cast(ops.argmax(h2_output, axis=-1), "int32") != labels,
    )
    held, penalty = weigh(row, given, counted)
    if counted is not None:
        base_i = ops.where(counted, base_i, 0.0)
    return InstanceTerms(base_i, penalty, ops.cast(held, base_i.dtype), valid)


def binary_terms(
    dissonance: str,
    h2_output: Any,
    target: Any,
    h1_output: Any,
    teacher_output: Any,
    *,
    from_logits: bool,
    h1_from_logits: bool,
    label_smoothing: float,
    threshold: float,
    own: Mapping[str, Any],
) -> InstanceTerms:
    """Terms of one score per instance, (N,) or (N, 1), or per label, (N, L); `own` holds the dissonance's options."""
    multilabel = not is_binary(h2_output)
    shape = tuple(h2_output.shape)
    if not multilabel:
        shape = shape if len(shape) == 1 else shape[:-1]
        h2_output = as_column(h2_output, shape, "h2's output")
        target = as_column(target, shape, "The target")
        h1_output = as_column(h1_output, shape, "h1's output")
        teacher_output = as_column(teacher_output, shape, "The teacher's output")
    elif tuple(target.shape)[1:] != shape[1:]:
        raise ValueError(
            f"base='binary_cross_entropy' needs one 0 or 1 for each of h2's {shape[-1]} scores: expected a target of "
            f"shape {shape}; for one class of many use base='cross_entropy'. Received: shape {tuple(target.shape)}."
        )
    else:
        # Keras on TensorFlow remembers the logits of an activation and takes those of a softmax for a sigmoid's; what
        # was computed from it has no such memory.
        h2_output = ops.multiply(h2_output, 1.0)
    target = ops.cast(target, h2_output.dtype)
    goal = target * (1.0 - label_smoothing) + 0.5 * label_smoothing if label_smoothing else target

    def towards(goal: Answer) -> Any:
        return ops.binary_crossentropy(goal.probabilities, h2_output, from_logits=from_logits)

    row, h1, h2 = DISSONANCES[dissonance], None, None
    if row.needs == "logits":
        h1, h2 = _two_classes(teacher_output, h1_from_logits), _two_classes(h2_output, from_logits)
    elif row.needs == "probabilities":
        h1 = Answer(None, None, ops.sigmoid(teacher_output) if h1_from_logits else teacher_output)
    base_i = towards(Answer(None, None, goal))
    labels = ops.cast(target >= 0.5, "int32")
    right = is_positive(h1_output, threshold, h1_from_logits) == labels
    given = Given(
        over_classes,
        base_i,
        towards,
        right,
        labels,
        h2,
        h1,
        own,
        h2_wrong=lambda: is_positive(h2_output, threshold, from_logits) != labels,
    )
    held, masked = weigh(row, given)
    support = ops.cast(held, base_i.dtype)
    if multilabel:
        # One value per instance, as Keras's own binary losses give it.
        base_i, masked, support = (ops.mean(term, axis=-1) for term in (base_i, masked, support))
    return InstanceTerms(base_i, masked, support, None)


def _two_classes(scores: Any, from_logits: bool) -> Answer:
    if not from_logits:
        # A sure probability has an infinite logit.
        scores = ops.clip(scores, keras.config.epsilon(), 1 - keras.config.epsilon())
        scores = ops.log(scores) - ops.log1p(-scores)
    logits = ops.stack([ops.zeros_like(scores), scores], axis=-1)
    return Answer(logits, ops.log_softmax(logits, axis=-1), ops.sigmoid(scores))


class Counted:
    """What counts in the mean over a batch: all entries but those that are masked or ignored."""

    def __init__(self, support: Any, valid: Any, mask: Any = None) -> None:
        self.support = support
        self.valid = valid
        self.mask = None if mask is None else entries_of(ops.cast(mask, support.dtype), support, "The mask")
        counted = [each for each in (self.valid, self.mask) if each is not None]
        self.both = counted[0] * counted[-1] if counted else None

    def support_scale(self, normalization: str) -> Any:
        """Factor that makes the mean over a batch the mean over the support of all replicas: 1 for ``"batch"``."""
        if normalization == "batch":
            return 1.0
        support = self.support if self.both is None else self.support * self.both
        count = ops.cast(ops.size(support), support.dtype) if self.both is None else ops.sum(self.both)
        return count * num_replicas() / ops.maximum(sum_over_replicas(ops.sum(support)), 1.0)

    def valid_scale(self, reduction: str | None) -> Any:
        """Weights that keep ignored entries out of a mean; Keras itself keeps masked ones out of it."""
        if self.valid is None:
            return 1.0
        if reduction not in ("sum_over_batch_size", "mean"):
            return self.valid
        count = ops.cast(ops.size(self.valid), self.valid.dtype) if self.mask is None else ops.sum(self.mask)
        return self.valid * ops.divide_no_nan(count, ops.sum(self.both))
