"""Data as tiles of whole rows, whatever they came as: some samples at a time, cut and put together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bc_core._arrays import flat
from bc_core._numbers import check_count

Where = str | int | Callable[[Any], Any]


class Piece(NamedTuple):
    """Some samples.

    Attributes:
        x: Inputs, whatever a network takes, with `rows` of them.
        rows: Number of samples r.
        target: Their classes (r,), or None.
    """

    x: Any
    rows: int
    target: NDArray[np.int64] | None = None


class Rows(ABC):
    """Inputs, and classes where they are wanted, in pieces of at most `rows` samples, again and again.

    A framework says how its data come in pieces, and how inputs are cut and joined.

    Args:
        data: Whatever the samples come from.
        rows: Samples in a piece; small batches are put together, large ones cut.
    """

    def __init__(self, data: Any, rows: int) -> None:
        self._data, self._rows = data, rows

    @property
    def once_only(self) -> bool:
        """Whether they can be gone through only once."""
        return hasattr(self._data, "__next__")

    @property
    def samples(self) -> int | None:
        """Number of samples, where it is known before."""
        return None

    @property
    @abstractmethod
    def in_order(self) -> bool | None:
        """Whether another round brings the samples in the same order; None where that is not known."""

    @abstractmethod
    def _pieces(self) -> Iterator[Piece]:
        """The data as they come."""

    @abstractmethod
    def _cut(self, x: Any, start: int, stop: int) -> Any:
        """Some of the inputs of a piece."""

    @abstractmethod
    def _joined(self, xs: Sequence[Any]) -> Any:
        """The inputs of several pieces; a ValueError where their shapes differ."""

    @abstractmethod
    def _equal(self, a: Any, b: Any) -> bool:
        """Whether inputs are the same."""

    def __iter__(self) -> Iterator[Piece]:
        waiting: list[Piece] = []
        held = 0
        for piece in self._pieces():
            start = 0
            while start < piece.rows:
                stop = min(piece.rows, start + self._rows - held)
                target = None if piece.target is None else piece.target[start:stop]
                waiting.append(Piece(self._cut(piece.x, start, stop), stop - start, target))
                held += stop - start
                start = stop
                if held == self._rows:
                    yield self._one(waiting)
                    waiting, held = [], 0
        if waiting:
            yield self._one(waiting)

    def _one(self, pieces: Sequence[Piece]) -> Piece:
        if len(pieces) == 1:
            return pieces[0]
        targets = [piece.target for piece in pieces if piece.target is not None]
        rows = sum(piece.rows for piece in pieces)
        return Piece(self._joined([piece.x for piece in pieces]), rows, np.concatenate(targets) if targets else None)

    def check_order(self, first: Piece) -> None:
        """Refuse data that come in another order in another round.

        Args:
            first: What they began with.

        Raises:
            ValueError: If they do, as far as can be seen.
        """
        again = self.in_order
        if again is None:
            began = next(iter(self), None)
            again = began is not None and self._equal(began.x, first.x)
        if not again:
            raise ValueError(
                "data: with max_memory they are gone through several times, so samples must come in the same order: "
                "leave out shuffle=True and samplers, or pass arrays or list(data)"
            )


def rows_of(batch_size: int, columns: int) -> int:
    """Samples of a tile.

    Raises:
        ValueError: If the batch size is no such number.

    Example:
        >>> from bc_core.invariance._rows import rows_of
        >>> rows_of(256, columns=5), rows_of(2, columns=5)
        (51, 1)
    """
    check_count(batch_size, "batch_size")
    return max(1, batch_size // columns)


def class_numbers(target: NDArray[Any], rows: int) -> NDArray[np.int64]:
    """Targets of a batch as class numbers.

    Args:
        target: Class numbers (N,) or (N, 1), as floats too, as binary losses want them; or one-hot (N, C), or shares of
            classes, of which the largest counts.
        rows: Number of inputs N.

    Raises:
        ValueError: If they are something else.

    Example:
        >>> import numpy as np
        >>> from bc_core.invariance._rows import class_numbers
        >>> class_numbers(np.array([[0.0, 1.0], [1.0, 0.0]]), 2), class_numbers(np.array([[1.0], [0.0]]), 2)
        (array([1, 0]), array([1, 0]))
    """
    classes = flat(target)
    if classes.ndim == 2 and (np.abs(classes.sum(axis=1, dtype=np.float64) - 1) < 1e-3).all():
        classes = classes.argmax(axis=1)
    if classes.shape != (rows,) or (classes.dtype.kind == "f" and (classes != np.rint(classes)).any()):
        raise ValueError(
            f"target: expected one class number for each of the {rows} inputs of a batch, or one-hot scores, got "
            f"{target.dtype} of shape {target.shape}; say where it is (target=key, index or function)"
        )
    return classes.astype(np.int64)
