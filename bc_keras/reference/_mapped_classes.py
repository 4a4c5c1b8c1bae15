"""h1's answers said in h2's classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from bc_core.reference._class_map import DROPPED, ClassMap
from bc_keras.batches._labels import TINY, is_float

# A logit that stands for probability 0 beside any other.
_NEVER = -1e30


def in_classes_of_h2(
    class_map: ClassMap, output: Any, num_classes: int | None, from_logits: bool, multilabel: bool
) -> Any:
    """h1's scores or labels by h2's class indices; see `Reference.in_classes_of_h2`."""
    if num_classes is None:
        num_classes = class_map.num_classes
    if is_float(output) and output.shape[-1] != len(class_map):
        raise ValueError(
            f"class_map must have one entry for each of h1's {output.shape[-1]} classes. "
            f"Received: class_map={class_map!r}."
        )
    class_map.check(num_classes)
    if not is_float(output):
        # The last entry answers for label -1, no class.
        return ops.take(ops.convert_to_tensor([*class_map.firsts, DROPPED], dtype="int32"), output, axis=0)
    # A product sums the probabilities of classes that became one, and divides those of one that became several.
    shares = np.zeros((len(class_map), num_classes), dtype="float32")
    for new in range(num_classes):
        sources, parts = class_map.sources(new)
        # A label of its own is said of each part as it was of the whole.
        shares[sources, new] = 1.0 if multilabel else 1.0 / parts
    output = ops.cast(output, "float32") if str(output.dtype) != "float64" else output
    shares = ops.cast(ops.convert_to_tensor(shares), output.dtype)
    if not from_logits:
        mapped = ops.matmul(output, shares)
        if class_map.drops and not multilabel:
            mapped = mapped / ops.maximum(ops.sum(mapped, axis=-1, keepdims=True), TINY)
        return mapped
    mapped = ops.log(ops.maximum(ops.matmul(ops.softmax(output, axis=-1), shares), TINY))
    return ops.where(ops.isnan(output[..., :1]), np.nan, mapped)


def said_as_wholes(parts: Sequence[tuple[int, ...]], mapped: Any, labels: Any, from_logits: bool) -> Any:
    """Scores or labels with classes that were split as one; see `Reference.for_support`."""
    labels = ops.cast(labels, "int32")
    for part in parts:
        columns = ops.convert_to_tensor(part, dtype="int32")
        is_asked = ops.equal(ops.expand_dims(labels, -1), columns)
        if not is_float(mapped):
            is_said = ops.any(ops.equal(ops.expand_dims(ops.cast(mapped, "int32"), -1), columns), axis=-1)
            is_right = ops.logical_and(is_said, ops.any(is_asked, axis=-1))
            mapped = ops.where(is_right, ops.cast(labels, mapped.dtype), mapped)
            continue
        of_parts = ops.take(mapped, columns, axis=-1)
        whole = (ops.logsumexp if from_logits else ops.sum)(of_parts, axis=-1, keepdims=True)
        # The part that the target is, or else the first, has all of it.
        first = ops.equal(columns, part[0])
        has_it = ops.logical_or(is_asked, ops.logical_and(first, ops.logical_not(ops.any(is_asked, -1, keepdims=True))))
        of_parts = ops.where(has_it, whole, _NEVER if from_logits else 0.0)
        mapped = _with_columns(mapped, part, of_parts)
    return mapped


def in_shares_of_h2(
    parts: Sequence[tuple[int, ...]], mapped: Any, h2_output: Any, from_logits: bool, h2_from_logits: bool
) -> Any:
    """Scores with classes that were split divided as h2 divides them; see `Reference.to_imitate`."""
    h2_output = ops.cast(ops.stop_gradient(h2_output), mapped.dtype)
    if not h2_from_logits:
        h2_output = ops.log(ops.maximum(h2_output, TINY))
    for part in parts:
        columns = ops.convert_to_tensor(part, dtype="int32")
        of_parts, shares = ops.take(mapped, columns, axis=-1), ops.take(h2_output, columns, axis=-1)
        if from_logits:
            divided = ops.logsumexp(of_parts, axis=-1, keepdims=True) + ops.log_softmax(shares, axis=-1)
        else:
            divided = ops.sum(of_parts, axis=-1, keepdims=True) * ops.softmax(shares, axis=-1)
        mapped = _with_columns(mapped, part, divided)
    return mapped


def _with_columns(mapped: Any, part: tuple[int, ...], columns: Any) -> Any:
    places = [part.index(c) if c in part else None for c in range(mapped.shape[-1])]
    each = [
        mapped[..., c : c + 1] if place is None else ops.cast(columns[..., place : place + 1], mapped.dtype)
        for c, place in enumerate(places)
    ]
    return ops.concatenate(each, axis=-1)
