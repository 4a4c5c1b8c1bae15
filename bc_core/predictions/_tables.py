"""A table of predictions as it was read: columns of numpy, and where in its file a row is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bc_core._arrays import text_objects
from bc_core._texts import listed, shown

# Of the names of a file's columns, those that are to be kept.
Keep = Callable[[Sequence[str]], Sequence[str]]
# Told of a file how far it is: so many rows, or what else says it.
Progress = Callable[[str, "int | str"], None]
_Row = TypeVar("_Row")


@dataclass(frozen=True)
class Table:
    """Columns of one file, each of shape (N,) or, for class scores, (N, C).

    Attributes:
        path: The file, which opens every message.
        columns: int64, float64, bool, or dtype object holding `str`, by name.
        size: Number of rows N.
        untyped: Whether the file says no types, as CSV: then 7 and "7" are one thing, and each number is the exact text
            that was there.
        line_of: From a row to where it is in the file, such as "line 12".
    """

    path: str
    columns: Mapping[str, NDArray[Any]]
    size: int
    untyped: bool = False
    line_of: Callable[[int], str] = field(default=lambda row: f"row {row}", repr=False)

    def column(self, name: str) -> NDArray[Any]:
        """A column.

        Raises:
            ValueError: There is none of that name.
        """
        if name not in self.columns:
            raise ValueError(f"{self.path}: no column {name!r}; it has {listed(list(self.columns))}")
        return self.columns[name]

    def chosen(self, rows: NDArray[np.intp]) -> Table:
        """Some of its rows."""
        columns = {name: column[rows] for name, column in self.columns.items()}
        return Table(self.path, columns, len(rows), self.untyped, lambda row: self.line_of(int(rows[row])))

    def fault(self, name: str, row: int, message: str) -> ValueError:
        """What is wrong with one cell."""
        return ValueError(f"{self.path}, {self.line_of(row)}: column {name!r} {message}")

    def texts(self, name: str) -> NDArray[Any]:
        """A column as dtype object holding `str`; of an untyped file exactly what was there."""
        column = self.column(name)
        return column if column.dtype.kind == "O" else text_objects([str(value) for value in column.tolist()])

    def numbers(self, name: str) -> NDArray[np.float64]:
        """A column, or the rows of one of lists, as finite floats.

        Raises:
            ValueError: Something is no number, NaN or infinite; its row is named.
        """
        column = self.column(name)
        if column.dtype.kind == "O":
            column = self._parsed(name, column)
        floats = column.astype(np.float64)
        if not (finite := np.isfinite(floats)).all():
            row = int(np.unravel_index(int(np.argmin(finite)), finite.shape)[0])
            raise self.fault(name, row, f"is {floats[~finite][0]}, and every row needs a finite number")
        return floats

    def _parsed(self, name: str, column: NDArray[Any]) -> NDArray[np.float64]:
        found: list[float] = []
        texts = column.tolist()
        try:
            found.extend(map(number_of, texts))
        except ValueError:
            row = len(found)  # those before it are there
            raise self.fault(name, row, f"is {shown(texts[row])}, and every row needs a number") from None
        return np.asarray(found)


def joined(parts: Sequence[Table]) -> Table:
    """Chunks of one file as one table.

    Raises:
        ValueError: A column is of several types.
    """
    columns = {name: _whole(name, parts) for name in parts[0].columns}
    ends, lines = np.cumsum([part.size for part in parts]), [part.line_of for part in parts]

    def line_of(row: int) -> str:
        place = int(np.searchsorted(ends, row, side="right"))
        return lines[place](row - (int(ends[place - 1]) if place else 0))

    return Table(parts[0].path, columns, int(ends[-1]), parts[0].untyped, line_of)


def _whole(name: str, parts: Sequence[Table]) -> NDArray[Any]:
    chunks = [part.columns[name] for part in parts]
    kinds = {chunk.dtype.kind for chunk in chunks}
    if len(kinds) > 1 and parts[0].untyped:
        chunks = [part.texts(name) for part in parts]
    elif (len(kinds) > 1 and kinds != {"i", "f"}) or len({chunk.shape[1:] for chunk in chunks}) > 1:
        raise ValueError(f"{parts[0].path}: column {name!r} must be of one type, and lists in it of one length")
    return np.concatenate(chunks)


def pieces(rows: Iterable[_Row], size: int) -> Iterator[list[_Row]]:
    """So many at a time."""
    iterator = iter(rows)
    while piece := list(islice(iterator, size)):
        yield piece


def number_of(text: str) -> float:
    """The number that a text is; `1_0`, which Python takes for 10, is a name.

    Raises:
        ValueError: It is none.
    """
    if "_" in text:
        raise ValueError(text)
    return float(text)


def are_numbers(texts: Iterable[str]) -> bool:
    """Whether each text is a number."""
    try:
        for text in texts:
            number_of(text)
    except ValueError:
        return False
    return True
