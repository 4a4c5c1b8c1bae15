"""Which classes outputs stand for: the one place where scores are read as predictions."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

# Smaller than any probability that float32 keeps; a logarithm of it is finite.
TINY = 1e-37
# How far beyond 0..1 half precision rounds a probability.
ROUNDING = 1e-2
# The class of a one-hot row of zeros, as of an instance without a label: no model says it, and it is in no count.
NO_CLASS = -(2**31)


class Labels(NamedTuple):
    """True and predicted classes of a batch: int32 tensors of one shape, (N,) or, for dense outputs, (N, ...)."""

    target: Any
    h2: Any
    h1: Any


def is_float(tensor: Any) -> bool:
    """Whether a tensor holds scores rather than class indices."""
    return bool(keras.backend.is_float_dtype(keras.backend.standardize_dtype(tensor.dtype)))


def is_binary(h2_output: Any) -> bool:
    """Whether there is one score per instance: shape (N,) or (..., 1)."""
    return len(h2_output.shape) == 1 or h2_output.shape[-1] == 1


def columns_of(h2_output: Any) -> int:
    """Columns that h2's output stands for: C, or 1 for a binary model."""
    return 1 if is_binary(h2_output) else int(h2_output.shape[-1])


def entries_of(values: Any, labels: Any, what: str) -> Any:
    """Sample weights or a mask in the shape of the labels; one value per instance holds for all its entries."""
    values, rank = ops.convert_to_tensor(values), len(labels.shape)
    if len(values.shape) == rank + 1 and values.shape[-1] == 1:
        values = ops.squeeze(values, -1)
    if len(values.shape) > rank:
        raise ValueError(
            f"{what} must have one entry per instance or per label, so at most the axes of the labels, "
            f"{tuple(labels.shape)}. Received: shape {tuple(values.shape)}."
        )
    for _ in range(rank - len(values.shape)):
        values = ops.expand_dims(values, -1)
    return ops.broadcast_to(values, ops.shape(labels))


def as_column(tensor: Any, shape: tuple[int | None, ...], what: str) -> Any:
    """Drop a last axis of length 1 where `shape` has none, and refuse any other difference of rank."""
    if len(tensor.shape) == len(shape) + 1 and tensor.shape[-1] == 1:
        tensor = ops.squeeze(tensor, -1)
    differs = len(tensor.shape) != len(shape) or any(
        None not in (got, wanted) and got != wanted for got, wanted in zip(tensor.shape, shape, strict=True)
    )
    if differs:
        raise ValueError(
            f"{what} does not fit h2's output: expected shape {shape} or {(*shape, 1)}, one entry per instance. "
            f"Received: shape {tuple(tensor.shape)}."
        )
    return tensor


def is_positive(scores: Any, threshold: float, from_logits: bool) -> Any:
    """Class 1 where the probability is at least `threshold`; labels are taken as they are, NaN is no prediction, -1."""
    if not is_float(scores):
        return ops.cast(scores, "int32")
    if from_logits:
        # The same comparison on the other side of the sigmoid, which saturates.
        threshold = math.log(threshold / (1 - threshold))
    positive = ops.cast(scores >= ops.cast(threshold, scores.dtype), "int32")
    return ops.where(ops.isnan(scores), -1, positive)


def read_labels(
    target: Any,
    h2_output: Any,
    h1_output: Any,
    *,
    threshold: float = 0.5,
    from_logits: bool = False,
    h1_from_logits: bool | None = None,
    multilabel: bool = False,
    signed: bool = False,
) -> Labels:
    """Read target and outputs of a batch as classes, inside or outside a compiled step.

    Args:
        target: class indices (N,) or (N, 1) of any numeric dtype, one-hot or soft (N, C); 0 and 1 for a binary model.
        h2_output: scores (N, C); (N,) or (N, 1) for a binary model; dense outputs have more axes before the last.
        h1_output: scores in h2's shape, or class indices (integers) in the shape of the labels.
        threshold: a binary score is class 1 from this probability on.
        from_logits: whether binary scores are logits.
        h1_from_logits: the same for h1's, if it differs.
        multilabel: whether each of the C columns is a label of its own, 0 or 1.
        signed: whether the target of a binary model may be -1 and 1 instead of 0 and 1.

    Raises:
        ValueError: shapes that do not fit each other.

    Example:
        >>> from keras import ops
        >>> from bc_keras.batches._labels import read_labels
        >>> labels = read_labels(ops.array([0, 1]), ops.array([[0.9, 0.1], [0.8, 0.2]]), ops.array([1, 1]))
        >>> [ops.convert_to_numpy(each).tolist() for each in labels]
        [[0, 1], [0, 0], [1, 1]]
    """
    h1_from_logits = from_logits if h1_from_logits is None else h1_from_logits
    if signed and (multilabel or is_binary(h2_output)):
        # TensorFlow has no larger one of two booleans.
        target = ops.maximum(target if is_float(target) else ops.cast(target, "int32"), 0)
    if multilabel:
        shape = tuple(h2_output.shape)
        for tensor, what in ((target, "The target"), (h1_output, "h1's output")):
            if tuple(tensor.shape)[1:] != shape[1:]:
                raise ValueError(
                    f"{what} of a multilabel model has one column per label: expected shape {shape}. "
                    f"Received: shape {tuple(tensor.shape)}."
                )
        return Labels(
            ops.cast(target >= ops.cast(0.5, target.dtype) if is_float(target) else target, "int32"),
            is_positive(h2_output, threshold, from_logits),
            is_positive(h1_output, threshold, h1_from_logits),
        )
    if is_binary(h2_output):
        shape = tuple(h2_output.shape) if len(h2_output.shape) == 1 else tuple(h2_output.shape)[:-1]
        target = as_column(target, shape, "The target")
        return Labels(
            ops.cast(target >= ops.cast(0.5, target.dtype) if is_float(target) else target, "int32"),
            is_positive(as_column(h2_output, shape, "h2's output"), threshold, from_logits),
            is_positive(as_column(h1_output, shape, "h1's output"), threshold, h1_from_logits),
        )
    shape, classes = tuple(h2_output.shape)[:-1], h2_output.shape[-1]
    return Labels(
        target_classes(target, shape, classes),
        ops.cast(ops.argmax(h2_output, axis=-1), "int32"),
        h1_classes(h1_output, shape, classes),
    )


def check_target(
    target: np.ndarray[Any, Any],
    h2_output: Any,
    multilabel: bool,
    counted: np.ndarray[Any, Any],
    signed: bool = False,
) -> None:
    """Refuse what is no label, where values can be looked at: read as an integer, it would be some class.

    Args:
        target: as for `read_labels`, as it came.
        h2_output: as for `read_labels`.
        multilabel: as for `read_labels`.
        counted: which labels count, in their shape; the others may be anything.
        signed: whether those of a binary model may be -1 and 1.

    Raises:
        ValueError: a label that counts is no number, no whole number, or too large for a class.
    """
    if target.dtype.kind not in "iuf":
        return
    rank = counted.ndim
    sparse = target.ndim == rank or (target.ndim == rank + 1 and target.shape[-1] == 1)
    if target.dtype.kind == "f" and (multilabel or is_binary(h2_output)):
        wanted, fine = "0 or 1, or a probability", (target >= 0) & (target <= 1)
        if signed:
            wanted, fine = "0 or 1, or -1 or 1", fine | (target == -1)
    elif target.dtype.kind == "f" and not sparse:
        wanted, fine = "probabilities of the classes", np.isfinite(target)
    else:
        # The classes are int32; what does not fit would wrap around to another one.
        limits = np.iinfo(np.int32)
        wanted, fine = "a class number", (target >= limits.min) & (target <= limits.max)
        if target.dtype.kind == "f":
            fine &= target == np.floor(target)
    fine = fine | ~(counted.reshape(target.shape) if sparse else counted[..., None])
    if not fine.all():
        raise ValueError(
            f"The labels must each be {wanted}. Received: {target[~fine][0]}. Map the labels to the classes, or leave "
            "such instances out."
        )


def target_classes(target: Any, shape: tuple[int | None, ...], classes: int) -> Any:
    """Class indices of a sparse, one-hot or soft target, int32 of `shape`; `NO_CLASS` of a row without a class."""
    if len(target.shape) == len(shape) + 1 and target.shape[-1] == classes:
        largest = ops.cast(ops.argmax(target, axis=-1), "int32")
        return ops.where(ops.max(target, axis=-1) > 0, largest, NO_CLASS)
    return ops.cast(as_column(target, shape, "The target"), "int32")


def h1_classes(h1_output: Any, shape: tuple[int | None, ...], classes: int) -> Any:
    """Classes that h1 predicts, from its scores over h2's classes or from its labels; int32 of `shape`."""
    if not is_float(h1_output):
        return ops.cast(as_column(h1_output, shape, "h1's labels"), "int32")
    if len(h1_output.shape) != len(shape) + 1 or h1_output.shape[-1] != classes:
        raise ValueError(
            f"h1's scores must cover h2's {classes} classes: expected shape {(*shape, classes)}; give a class_map if "
            "h1 has other classes, BCModel(..., class_map=...) or evaluate(Reference(h1, class_map=...), ...), and "
            f"integers if h1 gives labels. Received: shape {tuple(h1_output.shape)}, "
            f"dtype {keras.backend.standardize_dtype(h1_output.dtype)}."
        )
    # A row of NaN is how labels that became scores say that h1 has no prediction.
    return ops.where(ops.isnan(h1_output[..., 0]), -1, ops.cast(ops.argmax(h1_output, axis=-1), "int32"))


def check_is_classification(
    target: np.ndarray[Any, Any], shape: tuple[int | None, ...], is_distance: bool, multilabel: bool
) -> None:
    """Refuse the targets of a regression, which nobody gets right or wrong, and of several labels read as one class.

    Args:
        target: numbers of any kind, in the forms of `read_labels`.
        shape: shape of h2's output.
        is_distance: whether h2 is trained on a distance, such as the squared error; other losses have labels alone.
        multilabel: whether each column is a label of its own.

    Raises:
        ValueError: numbers that are no classes, nor rows of shares of classes; rows of several classes.
    """
    if target.dtype.kind not in "iuf" or not target.size:
        return
    if not are_labels(target, shape, is_distance, np):
        raise says_no_classifier(", ".join(f"{value:g}" for value in target.reshape(-1)[:3]))
    if has_rows(target, shape) and not multilabel and (several := rows_of_several(target, np)).any():
        raise says_several_classes(str(target[several][0].tolist()[:20]))


def has_rows(target: Any, shape: tuple[int | None, ...]) -> bool:
    """Whether targets have a column for each of several scores, of an output of `shape`."""
    columns = 1 if len(shape) == 1 else shape[-1]
    return columns != 1 and len(target.shape) == len(shape) and target.shape[-1] == columns


def are_labels(target: Any, shape: tuple[int | None, ...], is_distance: bool, operations: Any) -> Any:
    """Whether all targets are labels, not numbers of which nobody is right or wrong; what is not finite is passed over.

    Args:
        target: as for `check_is_classification`.
        shape: as for `check_is_classification`.
        is_distance: as for `check_is_classification`.
        operations: `numpy` for its arrays, `keras.ops` for tensors of floats.
    """
    is_alone = len(shape) == 1 or shape[-1] == 1
    if not is_alone and not is_distance:
        return True
    missing = operations.logical_not(operations.isfinite(target))

    def holds(condition: Any) -> Any:
        return operations.all(operations.logical_or(condition, missing))

    is_whole = target == operations.round(target)
    if is_alone:
        if is_distance:
            return holds(operations.logical_and(is_whole, operations.abs(target) <= 1))
        # A loss of the user's own may have its own marks, whole numbers; what lies between 0 and 1 is a soft label.
        within = operations.logical_and(target >= 0, target <= 1)
        return operations.logical_or(holds(is_whole), holds(within))
    if not has_rows(target, shape):
        return holds(is_whole)
    # One class, shares of classes, or a label in each column.
    sums = operations.abs(operations.sum(target, axis=-1) - 1) < 1e-3
    shares = operations.logical_and(operations.all(target >= 0), operations.all(sums))
    columns = operations.logical_and(is_whole, operations.logical_and(target >= 0, target <= 1))
    return operations.logical_or(shares, holds(columns))


def rows_of_several(target: Any, operations: Any) -> Any:
    """Which rows (..., C) of whole numbers hold several classes, of which an argmax would take the first.

    Args:
        target: a column for each class.
        operations: `numpy` for its arrays, `keras.ops` for tensors.
    """
    most = operations.max(target, axis=-1, keepdims=True)
    is_largest = operations.logical_and(target == most, most > 0)
    is_whole = operations.all(target == operations.round(target), axis=-1)
    return operations.logical_and(operations.sum(is_largest, axis=-1) > 1, is_whole)


def says_several_classes(received: str) -> ValueError:
    """The error for rows of several labels that nobody has said to be labels of their own."""
    return ValueError(
        "A row of labels holds several classes, of which the first would be taken for the only one: say "
        "BCModel(..., multilabel=True), or the same to what compares, if each column is a label of its own; "
        f"else give one class or shares of classes that sum to 1. Received: {received}."
    )


def says_no_classifier(received: str) -> ValueError:
    """The error for targets of a regression."""
    return ValueError(
        "h2 is no classifier: its targets are numbers and not classes, of which a model is right or wrong. "
        "Compatibility is defined for classes alone: cut the range into classes, or train without h1. "
        f"Received: targets {received}."
    )
