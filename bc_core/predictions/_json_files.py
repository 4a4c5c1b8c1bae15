"""JSON Lines: one object a line, its keys the columns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core._arrays import text_objects
from bc_core._texts import shown
from bc_core.predictions._tables import Keep, Table, pieces
from bc_core.predictions._text_files import open_text

_KINDS = {str: "text", bool: "true or false", int: "whole numbers", float: "numbers", list: "lists"}


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {shown(twice)} comes twice")
    return row


# Python takes the last of two values without a word.
_DECODER = json.JSONDecoder(object_pairs_hook=_named_once)


def json_chunks(path: str, keep: Keep, size: int, skip: int = 0) -> Iterator[Table]:
    """Read a file of one JSON object a line; the keys of the first that is read are the columns.

    Args:
        path: The file, packed by gzip or not.
        keep: Which columns.
        size: Rows of a chunk, but for the last.
        skip: Rows at the beginning that are left out.

    Raises:
        ValueError: A line is no object, lacks a key or has null there, or a column mixes types.
        OSError: It cannot be read.
    """
    kept: Sequence[str] | None = None
    with open_text(path) as file:
        numbered = ((number, line) for number, line in enumerate(file, 1) if not line.isspace())
        for piece in pieces(islice(numbered, skip, None), size):
            rows = [_object(path, number, line) for number, line in piece]
            lines = np.asarray([number for number, _ in piece])
            kept = keep(list(rows[0])) if kept is None else kept
            columns = {name: _column(path, name, rows, lines) for name in kept}
            yield Table(path, columns, len(rows), line_of=partial(_line_of, lines))


def _line_of(lines: NDArray[np.int64], row: int) -> str:
    return f"line {lines[row]}"


def _object(path: str, number: int, line: str) -> dict[str, Any]:
    try:
        row = _DECODER.decode(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}, line {number}: not JSON ({error}); expected one object a line") from None
    if not isinstance(row, dict):
        raise ValueError(f'{path}, line {number}: expected a JSON object, such as {{"id": 1}}, got {shown(row)}')
    return row


def _column(path: str, name: str, rows: Sequence[dict[str, Any]], lines: NDArray[np.int64]) -> NDArray[Any]:
    values = [row.get(name) for row in rows]
    kinds = set(map(type, values))
    if kinds == {int, float}:
        kinds = {float}
    if len(kinds) != 1 or kinds & {type(None), dict}:
        _refuse(path, name, values, lines)
    try:
        return text_objects(values) if kinds == {str} else _numbers(values)
    except (ValueError, TypeError, OverflowError):
        raise ValueError(
            f"{path}, line {lines[0]} and below: column {name!r} must hold numbers below 2**63, or lists of numbers of "
            "one length"
        ) from None


def _numbers(values: list[Any]) -> NDArray[Any]:
    array = np.asarray(values)
    if array.dtype.kind not in "bif":
        raise ValueError
    return array


def _refuse(path: str, name: str, values: Sequence[Any], lines: NDArray[np.int64]) -> None:
    """Name the first value that is not of the first one's kind."""
    first = type(values[0])
    for value, number in zip(values, lines, strict=True):
        if value is None:
            raise ValueError(f"{path}, line {number}: column {name!r} is missing")
        if isinstance(value, dict):
            raise ValueError(f"{path}, line {number}: column {name!r} holds an object; expected a number, text or list")
        if type(value) is not first and {type(value), first} != {int, float}:
            raise ValueError(
                f"{path}, line {number}: column {name!r} holds {shown(value)}, and {_KINDS[first]} before; a column "
                "must be of one type"
            )
