"""Validation data in the forms that Keras takes, read batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from bc_core._arrays import to_numpy

# Keras's own default.
_BATCH_SIZE = 32
# tf.data's number for a dataset without end.
_INFINITE = -1


class Batch(NamedTuple):
    """Inputs and labels of a batch, and which rows of the arrays they are (None where data come as batches)."""

    x: Any
    y: np.ndarray[Any, Any]
    rows: slice | None


class ValidationData:
    """What ``fit(validation_data=...)`` takes, to be read as often as wanted.

    Args:
        data: ``(x, y)`` or ``(x, y, sample_weight)`` of arrays; or a ``tf.data.Dataset``, ``keras.utils.PyDataset``,
            ``DataLoader`` or other iterable of such batches. Sample weights are passed over.
        batch_size: rows at a time, for arrays. Defaults to `None`, 32.

    Attributes:
        name: what the caller calls them.
        is_read_again: whether once is not enough, as it is of a generator.

    Raises:
        TypeError: data of another kind, or a generator, which can be read only once.
        ValueError: no labels, lengths that differ, no rows, or data without end.
    """

    name = "validation_data"
    is_read_again = True

    def __init__(self, data: Any, batch_size: int | None = None) -> None:
        self.data = data
        self.length: int | None = None
        if isinstance(data, tuple | list):
            self._x, self._y = self._arrays_of(data)
            self.length = len(self._y)
            self._batch_size = batch_size or _BATCH_SIZE
            return
        if batch_size is not None:
            raise ValueError(
                f"batch_size is for arrays; other {self.name} come in batches already. "
                f"Received: batch_size={batch_size!r}, {self.name}={_kind(data)}."
            )
        if isinstance(data, keras.utils.PyDataset):
            endless = data.num_batches is None
        elif (
            not hasattr(data, "__iter__")
            or (self.is_read_again and hasattr(data, "__next__"))
            or isinstance(data, str | dict)
        ):
            again = " that can be read again in every epoch, which a generator cannot" if self.is_read_again else ""
            raise TypeError(
                f"{self.name} must be (x, y) or (x, y, sample_weight) of arrays, a tf.data.Dataset, a PyDataset or "
                f"another iterable of batches{again}. Received: {self.name}={_kind(data)}."
            )
        else:
            endless = hasattr(data, "cardinality") and int(data.cardinality()) == _INFINITE
        if endless:
            raise ValueError(
                f"{self.name} must end: take as many batches as an epoch has, such as dataset.take(100). "
                f"Received: an endless {self.name}={_kind(data)}."
            )

    def __iter__(self) -> Iterator[Batch]:
        """Pass over the data once."""
        if self.length is not None:
            for start in range(0, self.length, self._batch_size):
                rows = slice(start, min(start + self._batch_size, self.length))
                yield Batch(_rows_of(self._x, rows), self._y[rows], rows)
            return
        pieces = self.data
        if isinstance(pieces, keras.utils.PyDataset):
            pieces = (self.data[index] for index in range(self.data.num_batches))
        for piece in pieces:
            x, y = self._x_and_y(piece)
            y = to_numpy(y, f"y of {self.name}")
            if y.ndim == 0:
                raise ValueError(
                    f"{self.name} must come in batches: use dataset.batch(32). Received: a single label, "
                    f"y={y.tolist()!r}."
                )
            yield Batch(keras.tree.map_structure(_input, x), y, None)

    def _arrays_of(self, data: Any) -> tuple[Any, np.ndarray[Any, Any]]:
        x, y = self._x_and_y(data)
        x = keras.tree.map_structure(
            lambda leaf: leaf if _is_sliceable(leaf) else to_numpy(leaf, f"x of {self.name}"), x
        )
        y = to_numpy(y, f"y of {self.name}")
        lengths = sorted({int(leaf.shape[0]) if leaf.shape else 0 for leaf in (*keras.tree.flatten(x), y)})
        if len(lengths) != 1 or lengths[0] == 0:
            raise ValueError(
                f"{self.name} must hold as many labels as inputs, and at least one. "
                f"Received: arrays of lengths {', '.join(map(str, lengths))}."
            )
        return x, y

    def _x_and_y(self, data: Any) -> tuple[Any, Any]:
        parts = tuple(data) if isinstance(data, list) else data
        if not isinstance(parts, tuple) or not 2 <= len(parts) <= 3:
            raise ValueError(
                f"{self.name} must be, or yield, (x, y) or (x, y, sample_weight): models are compared on labels. "
                f"Received: {_kind(data)}{f' of length {len(data)}' if isinstance(data, tuple | list) else ''}."
            )
        self._look_at_weights(parts[2] if len(parts) == 3 else None)
        return parts[0], parts[1]

    def _look_at_weights(self, sample_weight: Any) -> None:
        """Nothing: they are passed over."""


def _rows_of(x: Any, rows: slice) -> Any:
    return keras.tree.map_structure(lambda leaf: _input(leaf[rows]), x)


def _is_sliceable(leaf: Any) -> bool:
    # A pandas frame has a shape too, but its brackets pick columns.
    return hasattr(leaf, "shape") and hasattr(leaf, "__getitem__") and not hasattr(leaf, "iloc")


def _input(leaf: Any) -> Any:
    # A model takes numpy arrays and tensors of its own backend.
    return leaf if isinstance(leaf, np.ndarray) or ops.is_tensor(leaf) else to_numpy(leaf, "x")


def _kind(data: Any) -> str:
    return type(data).__name__
