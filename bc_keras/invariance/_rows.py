"""Data of Keras as tiles of whole rows, whatever they came as."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from bc_core._arrays import to_numpy
from bc_core.invariance._rows import Piece, Rows, Where, class_numbers

# tf.data's number for a data set without end.
_INFINITE = -1


class KerasRows(Rows):
    """Inputs, and classes where they are wanted, in pieces of at most `rows` samples.

    Args:
        data: An array of inputs (N, ...) or a dictionary of such, ``(x, y)`` or ``(x, y, sample_weight)`` of arrays, a
            ``tf.data.Dataset``, a ``PyDataset`` or another iterable of batches ``x`` or ``(x, y, ...)``.
        rows: Samples in a piece; small batches are put together, large ones cut.
        inputs: Where inputs are in a batch, or in data of arrays.
        target: Where classes are.
        with_target: Whether classes are read.

    Raises:
        TypeError: Data of another kind.
        ValueError: Data without end, or arrays of different lengths.
    """

    def __init__(
        self, data: Any, rows: int, inputs: Where | None = None, target: Where | None = None, with_target: bool = False
    ) -> None:
        super().__init__(data, rows)
        self._inputs, self._target, self._with_target = inputs, target, with_target
        self._arrays: Piece | None = None
        if _has_rows(data) or isinstance(data, Mapping) or _is_of_arrays(data):
            self._arrays = self._piece(data)
            self._rows = _even(self._arrays.rows, rows)
        elif isinstance(data, keras.utils.PyDataset):
            if data.num_batches is None:
                raise ValueError("data must end: give the PyDataset a number of batches. Received: num_batches=None.")
        elif isinstance(data, str) or not hasattr(data, "__iter__"):
            raise TypeError(
                "data must be an array of inputs, (x, y) of arrays, a tf.data.Dataset, a PyDataset or another iterable "
                f"of batches. Received: {_kind(data)}."
            )
        elif hasattr(data, "cardinality") and int(data.cardinality()) == _INFINITE:
            raise ValueError(
                "data must end: take as many batches as you want, such as dataset.take(100). Received: an endless "
                f"{_kind(data)}."
            )

    @property
    def samples(self) -> int | None:
        """Number of samples, where it is known before."""
        return None if self._arrays is None else self._arrays.rows

    @property
    def in_order(self) -> bool | None:
        """Whether another round brings the samples in the same order."""
        return True if self._arrays is not None or isinstance(self._data, (list, tuple)) else None

    def _pieces(self) -> Iterator[Piece]:
        if self._arrays is not None:
            yield self._arrays
        elif isinstance(self._data, keras.utils.PyDataset):
            yield from (self._piece(self._data[index]) for index in range(self._data.num_batches))
        else:
            yield from map(self._piece, self._data)

    def _piece(self, batch: Any) -> Piece:
        x, y = batch, None
        # As Keras reads a batch: a tuple is (x, y, sample_weight), anything else x.
        if isinstance(batch, tuple | list):
            x, y = batch[0], batch[1] if len(batch) > 1 else None
        if self._inputs is not None:
            x = _part(batch, self._inputs, "inputs")
        x = keras.tree.map_structure(_input, x)
        lengths = {leaf.shape[0] if leaf.ndim else -1 for leaf in keras.tree.flatten(x)}
        if len(lengths) != 1 or -1 in lengths:
            raise ValueError(
                "inputs must have the samples on the first axis, as many in each: use dataset.batch(32). Received: "
                f"{_shapes(x)}; say where they are in a batch (inputs=key, index or function)."
            )
        rows = int(lengths.pop())
        if not self._with_target:
            return Piece(x, rows)
        if self._target is not None:
            y = _part(batch, self._target, "target")
        return Piece(x, rows, None if y is None else class_numbers(_array(y, "target"), rows))

    def _cut(self, x: Any, start: int, stop: int) -> Any:
        return keras.tree.map_structure(lambda leaf: leaf[start:stop], x)

    def _joined(self, xs: Sequence[Any]) -> Any:
        shapes = {_shapes(keras.tree.map_structure(lambda leaf: leaf[0], x)) for x in xs}
        if len(shapes) > 1:
            raise ValueError(
                f"inputs: expected one shape for all, got {', '.join(sorted(shapes))}; crop or pad them to one"
            )
        return keras.tree.map_structure(lambda *leaves: np.concatenate(leaves), *xs)

    def _equal(self, a: Any, b: Any) -> bool:
        return all(map(np.array_equal, keras.tree.flatten(a), keras.tree.flatten(b)))


def _input(leaf: Any) -> NDArray[Any]:
    if not hasattr(leaf, "shape") and not hasattr(leaf, "__array__"):
        raise TypeError(
            "inputs must be arrays or tensors; say where they are in a batch (inputs=key, index or function). "
            f"Received: {_kind(leaf)}."
        )
    array = _array(leaf, "inputs")
    if array.dtype == np.float64:
        array = array.astype(keras.config.floatx())  # as Keras does with arrays
    return array


def _array(values: Any, name: str) -> NDArray[Any]:
    return ops.convert_to_numpy(values) if ops.is_tensor(values) else to_numpy(values, name)


def _part(batch: Any, where: Where, name: str) -> Any:
    if callable(where):
        return where(batch)
    try:
        return batch[where]
    except (KeyError, IndexError, TypeError) as error:
        there = f"keys {sorted(map(str, batch))}" if isinstance(batch, Mapping) else _kind(batch)
        raise ValueError(f"{name}={where!r} is not in a batch, which has {there}.") from error


def _even(samples: int, rows: int) -> int:
    """Rows of a tile that leave no smaller one at the end, if that is not far from what was asked for."""
    for number in range(min(rows, samples), rows // 2, -1):
        if samples % number == 0:
            return number
    return rows


def _has_rows(data: Any) -> bool:
    return hasattr(data, "shape") and hasattr(data, "__getitem__")


def _is_of_arrays(data: Any) -> bool:
    # (x, y) of arrays, where x may be a structure; batches in a tuple would be tuples or dictionaries themselves.
    return isinstance(data, tuple) and 1 <= len(data) <= 3 and _has_rows(data[-1])


def _shapes(x: Any) -> str:
    return str(keras.tree.map_structure(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", x))


def _kind(data: Any) -> str:
    return type(data).__name__
