"""How h1 is asked about a batch from outside of a compiled step, and answers in numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from bc_core._arrays import label_array, to_numpy
from bc_core.reference._stored_outputs import StoredRows
from bc_keras.reference._reference import Reference, only_tensor


def plain(h1: Any) -> Any:
    """h1 itself, in its own classes, once it is sure that it can be asked."""
    if isinstance(h1, Reference):
        h1 = h1.h1
    if isinstance(h1, StoredRows):
        raise TypeError(
            f"h1 is stored outputs, which cannot be asked about items: give the old model itself. Received: h1={h1!r}."
        )
    return Reference(h1).h1


def asking(h1: Any) -> Callable[[Any], NDArray[Any]]:
    """Make a function from inputs, numpy's or TensorFlow's, to h1's rows."""
    labels_only = bool(getattr(h1, "labels_only", False))

    # A model of a tf.distribute strategy would be asked once by every replica, about the same batch.
    replicas = getattr(getattr(h1, "distribute_strategy", None), "num_replicas_in_sync", 1)

    def ask(x: Any) -> NDArray[Any]:
        if isinstance(h1, keras.Model) and replicas == 1:
            output = h1.predict_on_batch(x)
        else:
            x = keras.tree.map_structure(as_tensor, x)
            output = h1(x, training=False) if isinstance(h1, keras.Layer) else h1(x)
        return as_rows(only_tensor(output, "h1"), labels_only)

    return ask


def as_tensor(value: Any) -> Any:
    """A tensor of an input, where it has one."""
    # Text has tensors in TensorFlow only.
    is_text = isinstance(value, np.ndarray) and value.dtype.kind in "OSU"
    return value if is_text and keras.backend.backend() != "tensorflow" else ops.convert_to_tensor(value)


def as_rows(answer: Any, labels_only: bool = False) -> NDArray[Any]:
    """h1's answer in numpy: scores in float32 or float64, labels in int64."""
    rows = as_array(answer, "h1's output")
    if labels_only:
        rows = label_array(rows, "h1's output")
    if rows.dtype.kind in "iub":
        rows = rows.astype(np.int64)
        return rows[..., 0] if rows.ndim > 1 and rows.shape[-1] == 1 else rows
    if rows.dtype.kind != "f":
        raise TypeError(f"h1 must return numbers, scores or integer labels. Received: dtype {rows.dtype}.")
    return rows if rows.dtype == np.float64 else rows.astype(np.float32)


def as_array(values: Any, name: str) -> NDArray[Any]:
    """Numpy array of an array, tensor or list; a list of bools stays one of bools."""
    return np.asarray(values) if isinstance(values, list) else to_numpy(values, name)
