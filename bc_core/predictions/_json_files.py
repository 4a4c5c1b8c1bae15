"""JSON Lines: one object a line, its keys the columns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core._arrays import text_objects
from bc_core.predictions._tables import Keep, Progress, Table, shown
from bc_core.predictions._text_files import open_text

_CHUNK = 50_000
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


def read_json_lines(path: str, keep: Keep, progress: Progress) -> Table:
    """Read a file of one JSON object a line; the keys of the first are the columns.

    Args:
        path: The file, packed by gzip or not.
        keep: Which columns.
        progress: Told of the rows read so far.

    Raises:
        ValueError: There is no row, a line is no object, lacks a key or has null there, or a column mixes types.
        OSError: It cannot be read.
    """
    chunks: dict[str, list[NDArray[Any]]] = {}
    lines: list[NDArray[np.int64]] = []
    size = 0
    with open_text(path) as file:
        numbered = ((number, line) for number, line in enumerate(file, 1) if not line.isspace())
        while chunk := list(islice(numbered, _CHUNK)):
            rows = [_object(path, number, line) for number, line in chunk]
            if not lines:
                chunks = {name: [] for name in keep(list(rows[0]))}
            for name, parts in chunks.items():
                parts.append(_column(path, name, rows, [number for number, _ in chunk]))
            lines.append(np.asarray([number for number, _ in chunk]))
            size += len(rows)
            progress(path, size)
    if not size:
        raise ValueError(f"{path}: empty; expected one JSON object a line")
    numbers = np.concatenate(lines)
    columns = {name: _joined(path, name, parts) for name, parts in chunks.items()}
    return Table(path, columns, size, line_of=lambda row: f"line {numbers[row]}")


def json_table(path: str, numbered: Sequence[tuple[int, str]], keep: Keep) -> Table:
    """Some lines, with their numbers.

    Raises:
        ValueError: A line is no object, lacks a key or has null there, or a column mixes types.
    """
    lines = [number for number, _ in numbered]
    rows = [_object(path, number, line) for number, line in numbered]
    columns = {name: _column(path, name, rows, lines) for name in keep(list(rows[0]))}
    return Table(path, columns, len(rows), line_of=lambda row: f"line {lines[row]}")


def _object(path: str, number: int, line: str) -> dict[str, Any]:
    try:
        row = _DECODER.decode(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}, line {number}: not JSON ({error}); expected one object a line") from None
    if not isinstance(row, dict):
        raise ValueError(f'{path}, line {number}: expected a JSON object, such as {{"id": 1}}, got {shown(row)}')
    return row


def _column(path: str, name: str, rows: Sequence[dict[str, Any]], lines: Sequence[int]) -> NDArray[Any]:
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


def _refuse(path: str, name: str, values: Sequence[Any], lines: Sequence[int]) -> None:
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


def _joined(path: str, name: str, parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    kinds = {part.dtype.kind for part in parts}
    if (len(kinds) > 1 and kinds != {"i", "f"}) or len({part.shape[1:] for part in parts}) > 1:
        raise ValueError(f"{path}: column {name!r} must be of one type, and lists in it of one length")
    return np.concatenate(parts)
