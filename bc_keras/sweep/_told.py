"""What was given to a sweep in Keras, in short."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from bc_core._arrays import to_numpy
from bc_core.sweep._told import told
from bc_keras.losses._losses import ModelLoss
from bc_keras.sweep._remade import Remade

# Of these rows the content is part of what a folder is known again by.
_SAMPLED_ROWS = 16


def told_of(value: Any) -> str:
    """A value in short, the same in every process."""
    return told(value, special)


def special(value: Any) -> str | None:
    """What there is to say of an object of Keras, or an array."""
    if isinstance(value, Remade):
        # Keras numbers names of its own making, anew with every object.
        return f"{value.kind.__name__}({told_of({key: part for key, part in value.config.items() if key != 'name'})})"
    if isinstance(value, ModelLoss):
        return f"{type(value).__name__}({told_of(value.criterion.get_config())})"
    if isinstance(value, keras.losses.Loss | keras.optimizers.schedules.LearningRateSchedule):
        return f"{type(value).__name__}({told_of(value.get_config())})"
    if hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, np.generic):
        return f"array {digest_of([to_numpy(value, 'value')])}"
    return None


def bytes_of(array: Any) -> bytes:
    """The content of an array, and of what kind and shape it is."""
    array = np.asarray(array)
    head = f"{array.dtype.kind}{array.shape}".encode()
    # Text has as many bytes as the longest of its batch.
    return head + (repr(array.tolist()).encode() if array.dtype.kind in "OSU" else array.tobytes())


def digest_of(arrays: Iterable[Any]) -> str:
    """The content of arrays as eight letters."""
    return hashlib.blake2b(b"".join(map(bytes_of, arrays)), digest_size=4).hexdigest()


def told_arrays(parts: Any) -> str:
    """Types and shapes of arrays, and a hash of a few rows."""
    arrays = [to_numpy(leaf, "data") for part in parts for leaf in keras.tree.flatten(part)]
    rows = sorted({round(float(row)) for row in np.linspace(0, len(arrays[0]) - 1, _SAMPLED_ROWS)})
    shapes = ", ".join(f"{array.dtype} {array.shape[1:]}" for array in arrays)
    return f"{shapes}, {digest_of(array[rows] for array in arrays)}"
