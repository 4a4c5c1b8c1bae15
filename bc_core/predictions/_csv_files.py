"""CSV: read in chunks; every column stays exactly what was written, in as little room as that takes."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core._arrays import text_objects
from bc_core.predictions._tables import Keep, Progress, Table, listed, shown
from bc_core.predictions._text_files import open_text

_CHUNK = 50_000
_SEPARATORS = ",;\t"


def read_csv(path: str, keep: Keep, progress: Progress) -> Table:
    """Read a file of which the first line names the columns; they are parted by commas, semicolons or tabs.

    Args:
        path: The file, packed by gzip or not.
        keep: Which columns.
        progress: Told of the rows read so far.

    Raises:
        ValueError: There is no row, a row has another number of fields, two columns have one name, or the text is
            damaged.
        OSError: It cannot be read.
    """
    with open_text(path) as file:
        rows = csv_rows(path, file)
        names = named_columns(path, rows)
        kept = keep(names)
        places = [(names.index(name), _Column()) for name in kept]
        size = 0
        while chunk := list(islice(rows, _CHUNK)):
            if set(map(len, chunk)) != {len(names)}:
                chunk = [row for row in chunk if row]  # blank lines, as at the end of a file
                _check_widths(path, names, chunk, size)
            size += len(chunk)
            columns = list(zip(*chunk, strict=True))
            for place, column in places:
                column.add(columns[place] if columns else ())
            progress(path, size)
    if not size:
        raise ValueError(f"{path}: no row below the names of columns")
    return Table(
        path,
        {name: column.whole() for name, (_, column) in zip(kept, places, strict=True)},
        size,
        untyped=True,
        line_of=lambda row: f"line {_line_of(path, row)}",
    )


def separator_of(first: str) -> str:
    """What parts the fields of a file, by its first line."""
    return max(_SEPARATORS, key=first.count)


def named_columns(path: str, rows: Iterator[list[str]]) -> list[str]:
    """The first row: the names of the columns.

    Raises:
        ValueError: There is none, or two columns have one name.
    """
    names = next(rows, [])
    if not any(names):
        raise ValueError(f"{path}: empty; expected a first line with the names of columns")
    if len(set(names)) < len(names):
        twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        raise ValueError(f"{path}: columns must have names of their own, and {listed(twice)} come more than once")
    return names


def csv_chunk(
    path: str, names: Sequence[str], kept: Sequence[str], rows: Sequence[Sequence[str]], before: int
) -> Table:
    """Some rows, of which the file has `before` before them.

    Raises:
        ValueError: A row has another number of fields than there are names.
    """
    _check_widths(path, names, rows, before)
    columns = {}
    for name in kept:
        column, place = _Column(), names.index(name)
        column.add([row[place] for row in rows])
        columns[name] = column.whole()
    return Table(path, columns, len(rows), untyped=True, line_of=lambda row: f"line {_line_of(path, before + row)}")


def csv_rows(path: str, file: Any) -> Iterator[list[str]]:
    """Fields of each row.

    Raises:
        ValueError: The text is no CSV; the line is named.
    """
    first = file.readline()
    reader = csv.reader(_chained(first, file), delimiter=separator_of(first), strict=True)
    try:
        yield from reader
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: not CSV ({error})") from error


def _chained(first: str, rest: Any) -> Iterator[str]:
    if first:
        yield first
    yield from rest


def _line_of(path: str, row: int) -> int:
    """Line on which a row ends: counted anew, as fields may hold line breaks and only faults ask."""
    with open_text(path) as file:
        first = file.readline()
        reader = csv.reader(_chained(first, file), delimiter=separator_of(first), strict=True)
        found = (reader.line_num for fields in reader if fields)
        return next(islice(found, row + 1, None), 0)


def _check_widths(path: str, names: Sequence[str], chunk: Sequence[Sequence[str]], before: int) -> None:
    for row, fields in enumerate(chunk):
        if len(fields) != len(names):
            raise ValueError(
                f"{path}, line {_line_of(path, before + row)}: expected {len(names)} fields, as the first line has, "
                f"got {len(fields)}: {shown(','.join(fields))}"
            )


class _Column:
    """Chunks of one column: as whole numbers or floats where these give back the exact text, else as text."""

    def __init__(self) -> None:
        self._chunks: list[NDArray[Any]] = []
        self._known: dict[str, str] = {}

    def add(self, texts: Sequence[str]) -> None:
        self._chunks.append(self._packed(texts))

    def _packed(self, texts: Sequence[str]) -> NDArray[Any]:
        if texts and texts[0][-1:].isdigit():
            try:
                integers = list(map(int, texts))
                if list(map(str, integers)) == list(texts):
                    return np.asarray(integers, np.int64)
            except (ValueError, OverflowError):
                pass
            try:
                floats = list(map(float, texts))
                if list(map(repr, floats)) == list(texts):
                    return np.asarray(floats)
            except ValueError:
                pass
        if len(self._known) < _CHUNK:
            # Labels come again and again, and one object serves for all of them.
            return text_objects([self._known.setdefault(text, text) for text in texts])
        return text_objects(texts)

    def whole(self) -> NDArray[Any]:
        if len({chunk.dtype for chunk in self._chunks}) > 1:
            self._chunks = [
                chunk if chunk.dtype.kind == "O" else text_objects([str(value) for value in chunk.tolist()])
                for chunk in self._chunks
            ]
        return np.concatenate(self._chunks)
