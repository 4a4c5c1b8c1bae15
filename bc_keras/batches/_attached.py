"""h1's output beside the label, in one tensor: what lets a metric of any Keras model see both models.

A Keras metric sees the label and h2's output, never the input, so it cannot ask h1. The label therefore brings h1's
answer along: columns of the label first, then columns of h1's scores, in one float tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bc_core._arrays import to_numpy
from bc_core.losses._blends import H1, PLAIN, TEACHER

# Above this, neighbouring class indices are one number in float32.
_LARGEST_LABEL = 2**24

HOW_TO_ATTACH = (
    "These data do not carry h1's predictions. Either train with BCModel(h2, h1=...), which asks h1 itself, or attach "
    "them to the label once: `x, y = attach_h1(h1, x, y)` for arrays, `dataset = attach_h1(h1, dataset)` for a "
    "tf.data.Dataset (validation data too)."
)


def join_reference(target: Any, h1_output: Any, num_classes: int | None = None) -> np.ndarray[Any, Any]:
    """Join label and h1's output to one array, which `split_reference` takes apart.

    Args:
        target: class indices (N,) or (N, 1), or one-hot rows (N, C).
        h1_output: h1's scores (N, C), or (N,) or (N, 1) for a binary model; or its labels, integers of shape (N,).
        num_classes: columns of h2's output, needed where h1 gives labels only (1 for a binary model with one score).

    Returns:
        Shape (N, 1 + C) for class indices, (N, 2 C) for one-hot rows; float64 if h1's scores are, else float32. h1's
        labels become one-hot columns.

    Raises:
        ValueError: lengths that differ, a label that float32 cannot hold, or labels without `num_classes`.

    Example:
        >>> import numpy as np
        >>> from bc_keras.batches._attached import join_reference
        >>> join_reference(np.array([1, 0]), np.array([[0.25, 0.75], [0.5, 0.5]])).tolist()
        [[1.0, 0.25, 0.75], [0.0, 0.5, 0.5]]
    """
    target, rows = np.asarray(target), np.asarray(h1_output)
    if len(target) != len(rows):
        raise ValueError(
            f"Label and h1's output differ in length: expected one row of h1 for each label, in the same order. "
            f"Received: {len(target)} labels, {len(rows)} rows."
        )
    is_column = rows.ndim == 1 or rows.shape[-1] == 1
    if rows.dtype.kind == "f" and is_column and num_classes is not None and num_classes > 1:
        # Labels that came as floats, from a table; a gap in it is no prediction.
        if not (np.isnan(rows) | (rows == np.rint(rows))).all():
            raise ValueError(
                f"h1's output has one column where num_classes={num_classes}, so it must hold class indices. "
                f"Received: numbers that are not whole, of dtype {rows.dtype}."
            )
        rows = np.where(np.isnan(rows), -1, rows).astype(np.int64)
    if rows.dtype.kind in "iub":
        rows = _columns_of_labels(target, rows, num_classes)
    dtype = np.float64 if rows.dtype == np.float64 else np.float32
    if rows.ndim == 1:
        rows = rows[:, None]
    if target.ndim == rows.ndim - 1:
        target = target[..., None]
    if target.size and dtype == np.float32 and np.abs(target).max() > _LARGEST_LABEL:
        raise ValueError(
            f"Class indices up to {_LARGEST_LABEL} can be kept beside h1's scores. Received: {np.abs(target).max()}."
        )
    joined: np.ndarray[Any, Any] = np.concatenate([target.astype(dtype), rows.astype(dtype)], axis=-1)
    return joined


def _columns_of_labels(target: Any, labels: Any, num_classes: int | None) -> np.ndarray[Any, Any]:
    """One-hot columns of h1's labels, or one column of 0 and 1 beside the 0 and 1 of a binary target."""
    labels = labels[..., 0] if labels.ndim > 1 and labels.shape[-1] == 1 else labels
    classes = check_labels(labels, num_classes)
    columns: np.ndarray[Any, Any] = np.eye(classes, dtype=np.float32)[np.maximum(labels, 0)]
    columns[labels < 0] = np.nan  # no prediction: no class, whatever a class map makes of the columns
    return columns[..., 1:] if num_classes == 1 else columns


def side_by_side(rows: np.ndarray[Any, Any], *imitated: np.ndarray[Any, Any], num_classes: int | None) -> Any:
    """Rows of h1 and of who is imitated as the columns of one: h1's scores (N, C) or labels (N,), and scores (N, C)."""
    if rows.dtype.kind in "iub":
        rows = _columns_of_labels(None, rows, num_classes)
    columns = [each[:, None] if each.ndim == 1 else each for each in (rows, *imitated)]
    return np.concatenate(columns, axis=-1)


def check_labels(labels: np.ndarray[Any, Any], num_classes: int | None) -> int:
    """Check that h1's labels fit h2's columns; return how many classes these stand for.

    Raises:
        ValueError: no `num_classes`, or labels outside of them.
    """
    if num_classes is None:
        raise ValueError(
            "h1 gives labels, not scores: say how many columns h2's output has (1 for a binary model with one score), "
            "stored.attach(x, y, num_classes=10), or attach_h1(h1, x, y, num_classes=10) of a model. "
            f"Received: num_classes=None, h1's labels of dtype {labels.dtype}."
        )
    classes = max(num_classes, 2)
    if labels.size and not -1 <= labels.min() <= labels.max() < classes:
        raise ValueError(
            f"h1's labels must lie in 0..{classes - 1}, or be -1 where h1 has no prediction. Received: values from "
            f"{labels.min()} to {labels.max()}."
        )
    return classes


HOW_TO_ATTACH_STORED = (
    "h1 is stored outputs, and these data do not carry them: train and validate on `h1.attach(x, y)` or "
    "`h1.attach(dataset)`, each data set with outputs stored for it (for validation data `attach_h1(old_model, x, y)` "
    "does as well)."
)


_OPTIONS = {H1: "h1", TEACHER: "teacher", PLAIN: "plain"}


def how_to_attach(stored: Sequence[str]) -> str:
    """How stored outputs get beside the label: of h1 alone, of one that is imitated, or of several."""
    if list(stored) == [H1]:
        return HOW_TO_ATTACH_STORED
    first, *others = (_OPTIONS[who] for who in stored)
    beside = "".join(f", {each}={each}" for each in others)
    who, are, them = " and ".join(stored), "are" if others else "is", "all of them" if others else "them"
    return (
        f"{who if first == H1 else who[0].upper() + who[1:]} {are} stored outputs, and these data do not carry {them}: "
        f"train and validate on `{first}.attach(x, y{beside})` or `{first}.attach(dataset{beside})`, each data set "
        "with outputs stored for it."
    )


def split_reference(y_true: Any, num_columns: int, advice: str = HOW_TO_ATTACH) -> tuple[Any, Any]:
    """Take label and h1's scores apart, by the width of what `join_reference` made.

    Args:
        y_true: the joined tensor, shape (N, 1 + C) or (N, 2 C).
        num_columns: columns of h2's output: C, or 1 for a binary model.
        advice: how h1's output gets there, for the error.

    Returns:
        The target, (N,) or one-hot (N, C), and h1's scores (N, C).

    Raises:
        ValueError: a tensor of another width, so one that does not carry h1's output.
    """
    width = y_true.shape[-1] if len(y_true.shape) > 1 else None
    if width == 1 + num_columns:
        return y_true[..., 0], y_true[..., 1:]
    if width == 2 * num_columns:
        return y_true[..., :num_columns], y_true[..., num_columns:]
    raise ValueError(
        f"{advice} Expected a label of {1 + num_columns} columns (class index, h1's {num_columns} scores) or "
        f"{2 * num_columns} (one-hot, scores). Received: y_true of shape {tuple(y_true.shape)} for h2's "
        f"{num_columns} columns."
    )


def check_columns(stored: Any, num_columns: int) -> None:
    """Refuse stored scores of other classes than are read from the label, `num_columns`, and say so.

    Raises:
        ValueError: another number of columns.
    """
    columns = stored.num_classes or 1
    if stored.labels_only or columns == num_columns:
        return
    remedy = "store the outputs of a function that gives h1's scores in h2's form"
    if 1 not in (columns, num_columns):
        remedy = (
            "say which class of h1 is which of h2's, BCModel(..., class_map=...) or evaluate(Reference(h1, "
            "class_map=...), ...) with one entry for each class of h1, -1 where h2 has it no more"
        )
    raise ValueError(
        f"h1's stored outputs are of other classes: {remedy}. Received: {columns} column{'s' * (columns > 1)} of h1 "
        f"where {num_columns} {'are' if num_columns > 1 else 'is'} expected."
    )


def join_tensors(target: Any, rows: Any, num_classes: int | None = None) -> Any:
    """Join target and h1's output inside a `tf.data` pipeline; shapes and types are those of `join_reference`.

    Args:
        target: TensorFlow tensor, (N,), (N, 1) or (N, C).
        rows: TensorFlow tensor, h1's scores (N, C), (N,) or (N, 1), or labels, int64 (N,), checked by `check_labels`.
        num_classes: columns of h2's output, where rows are labels.
    """
    import tensorflow as tf

    if rows.dtype.is_integer:
        classes = max(num_classes or 0, 2)
        columns = tf.cast(rows, tf.float32)[..., None] if num_classes == 1 else tf.one_hot(rows, classes)
        rows = tf.where((rows < 0)[..., None], np.float32(np.nan), columns)
    if len(rows.shape) == 1:
        rows = rows[:, None]
    if len(target.shape) == len(rows.shape) - 1:
        target = target[..., None]
    return tf.concat([tf.cast(target, rows.dtype), rows], axis=-1)


def class_weights(
    target: np.ndarray[Any, Any], joined: np.ndarray[Any, Any], class_weight: Mapping[int, float]
) -> np.ndarray[Any, Any]:
    """The weight of each instance by its true class, 1 for a class without one.

    Keras computes these from y by the position of its largest column, which is not the class in joined data.

    Args:
        target: class indices (N,) or (N, 1), or one-hot rows (N, C).
        joined: what `join_reference` made of it.
        class_weight: weights by class index.

    Returns:
        float32 (N,).
    """
    if target.ndim == joined.ndim:
        target = target[..., 0] if target.shape[-1] == 1 else target.argmax(-1)
    weights = np.ones(target.shape, np.float32)
    for index, weight in class_weight.items():
        weights[target == index] = weight
    return weights


def weight_tensors(target: Any, joined: Any, class_weight: Mapping[int, float]) -> Any:
    """`class_weights` inside a `tf.data` pipeline."""
    import tensorflow as tf

    if len(target.shape) == len(joined.shape):
        target = target[..., 0] if target.shape[-1] == 1 else tf.argmax(target, -1)
    weights = tf.ones(tf.shape(target), tf.float32)
    for index, weight in class_weight.items():
        weights = tf.where(tf.equal(target, tf.cast(index, target.dtype)), tf.cast(weight, tf.float32), weights)
    return weights


def attach_arrays(
    x: Any,
    y: Any,
    rows: np.ndarray[Any, Any],
    sample_weight: Any,
    num_classes: int | None,
    class_weight: Mapping[int, float] | None,
) -> tuple[Any, ...]:
    """Join h1's rows to `y`, and the weights of classes to the sample weights: what `fit` is given."""
    target = to_numpy(y, "y")
    joined = join_reference(target, rows, num_classes)
    if class_weight is not None:
        weights = class_weights(target, joined, class_weight)
        if sample_weight is not None:
            given = to_numpy(sample_weight, "sample_weight")
            if given.ndim == weights.ndim + 1 and given.shape[-1] == 1:
                given = given[..., 0]
            weights = weights * given.reshape(given.shape + (1,) * (weights.ndim - given.ndim))
        sample_weight = weights
    return (x, joined) if sample_weight is None else (x, joined, sample_weight)
