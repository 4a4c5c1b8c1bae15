"""Data as tiles of whole rows, whatever they came as."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from bc_core._arrays import to_numpy

Where = str | int | Callable[[Any], Any]

# tf.data's number for a data set without end.
_INFINITE = -1


class Piece(NamedTuple):
    """Some samples: inputs, an array or a structure of arrays with r rows each, and their classes (r,) or None."""

    x: Any
    target: NDArray[Any] | None

    @property
    def rows(self) -> int:
        """Number of samples."""
        return int(keras.tree.flatten(self.x)[0].shape[0])


class Rows:
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
        self._data, self._inputs, self._target, self._with_target = data, inputs, target, with_target
        self._arrays: Piece | None = None
        if _has_rows(data) or isinstance(data, Mapping) or _is_of_arrays(data):
            self._arrays = self._piece(data)
            rows = _even(self._arrays.rows, rows)
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
        self._rows = rows

    @property
    def once_only(self) -> bool:
        """Whether they can be gone through only once."""
        return hasattr(self._data, "__next__")

    @property
    def samples(self) -> int | None:
        """Number of samples, where it is known before."""
        return None if self._arrays is None else self._arrays.rows

    @property
    def in_order(self) -> bool:
        """Whether another round brings the samples in the same order for sure."""
        return self._arrays is not None or isinstance(self._data, (list, tuple))

    def __iter__(self) -> Iterator[Piece]:
        if self._arrays is not None:
            whole = self._arrays
            for start in range(0, whole.rows, self._rows):
                yield _cut(whole, start, start + self._rows)
            return
        waiting: list[Piece] = []
        held = 0
        for batch in self._batches():
            piece = self._piece(batch)
            start = 0
            while start < piece.rows:
                stop = min(piece.rows, start + self._rows - held)
                waiting.append(_cut(piece, start, stop))
                held += stop - start
                start = stop
                if held == self._rows:
                    yield _joined(waiting)
                    waiting, held = [], 0
        if waiting:
            yield _joined(waiting)

    def _batches(self) -> Iterator[Any]:
        if isinstance(self._data, keras.utils.PyDataset):
            for index in range(self._data.num_batches):
                yield self._data[index]
        else:
            yield from self._data

    def _piece(self, batch: Any) -> Piece:
        x, y = batch, None
        # As Keras reads a batch: a tuple is (x, y, sample_weight), anything else x.
        if isinstance(batch, tuple | list):
            x, y = batch[0], batch[1] if len(batch) > 1 else None
        if self._inputs is not None:
            x = _part(batch, self._inputs, "inputs")
        x = keras.tree.map_structure(_input, x)
        lengths = {leaf.shape[0] if leaf.ndim else None for leaf in keras.tree.flatten(x)}
        if len(lengths) != 1 or None in lengths:
            raise ValueError(
                "inputs must have the samples on the first axis, as many in each: use dataset.batch(32). Received: "
                f"{_shapes(x)}; say where they are in a batch (inputs=key, index or function)."
            )
        if not self._with_target:
            return Piece(x, None)
        if self._target is not None:
            y = _part(batch, self._target, "target")
        return Piece(x, None if y is None else _classes(y, keras.tree.flatten(x)[0].shape[0]))


def _input(leaf: Any) -> NDArray[Any]:
    if not hasattr(leaf, "shape") and not hasattr(leaf, "__array__"):
        raise TypeError(
            "inputs must be arrays or tensors; say where they are in a batch (inputs=key, index or function). "
            f"Received: {_kind(leaf)}."
        )
    array: NDArray[Any] = ops.convert_to_numpy(leaf) if ops.is_tensor(leaf) else to_numpy(leaf, "inputs")
    if array.dtype == np.float64:
        array = array.astype(keras.config.floatx())  # as Keras does with arrays
    return array


def _classes(y: Any, rows: int) -> NDArray[Any]:
    classes = ops.convert_to_numpy(y) if ops.is_tensor(y) else to_numpy(y, "target")
    if classes.ndim == 2 and classes.shape[1] == 1:
        classes = classes[:, 0]
    elif classes.ndim == 2 and (np.abs(classes.sum(axis=1, dtype=np.float64) - 1) < 1e-3).all():
        # One-hot, or shares of classes.
        classes = classes.argmax(axis=1)
    if classes.shape != (rows,) or (classes.dtype.kind == "f" and (classes != np.rint(classes)).any()):
        raise ValueError(
            f"target must hold a class number, or one-hot scores, for each of the {rows} inputs of a batch; say where "
            f"it is (target=key, index or function). Received: {classes.dtype} of shape {classes.shape}."
        )
    return classes.astype(np.int64)


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


def _cut(piece: Piece, start: int, stop: int) -> Piece:
    x = keras.tree.map_structure(lambda leaf: leaf[start:stop], piece.x)
    return Piece(x, None if piece.target is None else piece.target[start:stop])


def _joined(pieces: list[Piece]) -> Piece:
    if len(pieces) == 1:
        return pieces[0]
    shapes = {_shapes(keras.tree.map_structure(lambda leaf: leaf[0], piece.x)) for piece in pieces}
    if len(shapes) > 1:
        raise ValueError(f"inputs must have one shape: crop or pad them to one. Received: {', '.join(sorted(shapes))}.")
    x = keras.tree.map_structure(lambda *leaves: np.concatenate(leaves), *(piece.x for piece in pieces))
    targets = [piece.target for piece in pieces if piece.target is not None]
    return Piece(x, np.concatenate(targets) if targets else None)


def _has_rows(data: Any) -> bool:
    return hasattr(data, "shape") and hasattr(data, "__getitem__")


def _is_of_arrays(data: Any) -> bool:
    # (x, y) of arrays, where x may be a structure; batches in a tuple would be tuples or dictionaries themselves.
    return isinstance(data, tuple) and 1 <= len(data) <= 3 and _has_rows(data[-1])


def _shapes(x: Any) -> str:
    return str(keras.tree.map_structure(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", x))


def _kind(data: Any) -> str:
    return type(data).__name__
