"""CSV, chunk by chunk; every column stays exactly what was written, in as little room as that takes."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core._arrays import text_objects, twins
from bc_core._texts import listed, shown
from bc_core.predictions._tables import Keep, Table, pieces
from bc_core.predictions._text_files import open_text

_SEPARATORS = ",;\t"


def csv_chunks(path: str, keep: Keep, size: int, skip: int = 0) -> Iterator[Table]:
    """Read a file of which the first line names the columns; they are parted by commas, semicolons or tabs.

    Args:
        path: The file, packed by gzip or not.
        keep: Which columns.
        size: Rows of a chunk, but for the last.
        skip: Rows at the beginning that are left out.

    Raises:
        ValueError: A row has another number of fields, two columns have one name, or the text is damaged.
        OSError: It cannot be read.
    """
    with open_text(path) as file:
        rows = _rows(path, file)
        names = _names(path, rows)
        places = {name: names.index(name) for name in keep(names)}
        filled = (row for row in rows if row)  # blank lines, as at the end of a file
        for piece in pieces(islice(filled, skip, None), size):
            _check_widths(path, names, piece, skip)
            fields = list(zip(*piece, strict=True))
            columns = {name: _packed(fields[place]) for name, place in places.items()}
            yield Table(path, columns, len(piece), untyped=True, line_of=partial(_line_of, path, skip))
            skip += len(piece)


def separator_of(first: str) -> str:
    """What parts the fields of a file, by its first line."""
    return max(_SEPARATORS, key=first.count)


def _names(path: str, rows: Iterator[list[str]]) -> list[str]:
    """The first row: the names of the columns.

    Raises:
        ValueError: There is none, or two columns have one name.
    """
    names = next(rows, [])
    if not any(names):
        raise ValueError(f"{path}: empty; expected a first line with the names of columns")
    if twice := twins(names):
        raise ValueError(f"{path}: columns must have names of their own, and {listed(twice)} come more than once")
    return names


def _rows(path: str, file: Any) -> Iterator[list[str]]:
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


def _line_of(path: str, before: int, row: int) -> str:
    """Line on which a row ends: counted anew, as fields may hold line breaks and only faults ask."""
    with open_text(path) as file:
        first = file.readline()
        reader = csv.reader(_chained(first, file), delimiter=separator_of(first), strict=True)
        found = (reader.line_num for fields in reader if fields)
        return f"line {next(islice(found, before + row + 1, None), 0)}"


def _check_widths(path: str, names: Sequence[str], chunk: Sequence[Sequence[str]], before: int) -> None:
    if set(map(len, chunk)) == {len(names)}:
        return
    for row, fields in enumerate(chunk):
        if len(fields) != len(names):
            raise ValueError(
                f"{path}, {_line_of(path, before, row)}: expected {len(names)} fields, as the first line has, "
                f"got {len(fields)}: {shown(','.join(fields))}"
            )


def _packed(texts: Sequence[str]) -> NDArray[Any]:
    """Some fields of a column: as whole numbers or floats where these give back the exact text, else as text."""
    if texts[0][-1:].isdigit():
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
    # Labels come again and again, and one object serves for all of them.
    known: dict[str, str] = {}
    return text_objects(list(map(known.setdefault, texts, texts)))
