"""`read_table`: a file of predictions of whatever format its name says; `chunks`: some of its rows at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from bc_core.predictions._csv_files import csv_chunks
from bc_core.predictions._engine_files import arrow_chunks
from bc_core.predictions._json_files import json_chunks
from bc_core.predictions._npz_files import npz_chunks, read_npz
from bc_core.predictions._tables import Keep, Progress, Table, joined

_CHUNK = 50_000


class _Format(NamedTuple):
    """How files of a format are read, and what is said of one without rows."""

    chunks: Callable[[str, Keep, int, int], Iterator[Table]]
    empty: str


_CSV = _Format(csv_chunks, "no row below the names of columns")
_JSON = _Format(json_chunks, "empty; expected one JSON object a line")
_ARROW = _Format(arrow_chunks, "empty")
_FORMATS = {
    ".csv": _CSV,
    ".tsv": _CSV,
    ".jsonl": _JSON,
    ".ndjson": _JSON,
    ".parquet": _ARROW,
    ".arrow": _ARROW,
    ".feather": _ARROW,
    ".npz": _Format(npz_chunks, "empty"),
}
FORMATS = tuple(_FORMATS)


def read_table(
    path: str | os.PathLike[str], keep: Keep = lambda names: names, progress: Progress = lambda path, rows: None
) -> Table:
    r"""Read a file of predictions; nothing in it is executed or unpickled.

    Args:
        path: Ends in `.csv`, `.tsv`, `.jsonl`, `.ndjson` (or these with `.gz`), `.npz`, `.parquet`, `.arrow` or
            `.feather`.
        keep: Of the names of its columns, those to keep.
        progress: Told of the rows read so far.

    Raises:
        ValueError: The name ends otherwise, or the content is damaged or not as it should be; the place is named.
        ImportError: What reads Parquet or Arrow is not installed.
        OSError: It cannot be read.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from bc_core.predictions._reading import read_table
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "old.csv")
        ...     _ = path.write_text("id,pred\n007,cat\n8,dog\n")
        ...     read_table(path).columns["id"].tolist()
        ['007', '8']
    """
    text, found = os.fspath(path), _format_of(path)
    if found.chunks is npz_chunks:
        return read_npz(text, keep)
    parts, size = [], 0
    for part in found.chunks(text, keep, _CHUNK, 0):
        parts.append(part)
        size += part.size
        progress(text, size)
    if not parts:
        raise ValueError(f"{text}: {found.empty}")
    return joined(parts)


def chunks(path: str | os.PathLike[str], keep: Keep, size: int, skip: int = 0) -> Iterator[Table]:
    r"""Read a file of data, some rows at a time; nothing in it is executed or unpickled.

    Args:
        path: As for `read_table`.
        keep: Of the names of its columns, those to keep.
        size: Rows of a chunk, but for the last.
        skip: Rows at the beginning that are left out.

    Raises:
        ValueError: The name ends otherwise, or the content is damaged or not as it should be; the place is named.
        ImportError: What reads Parquet or Arrow is not installed.
        OSError: It cannot be read.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from bc_core.predictions._reading import chunks
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "data.csv")
        ...     _ = path.write_text("id,x\na,1\nb,2\nc,3\n")
        ...     [part.columns["x"].tolist() for part in chunks(path, lambda names: ["x"], size=2)]
        [[1, 2], [3]]
    """
    return _format_of(path).chunks(os.fspath(path), keep, size, skip)


def columns_of(path: str | os.PathLike[str]) -> Sequence[str]:
    """Names of the columns of a file of data.

    Raises:
        ValueError: It is damaged.
        ImportError: What reads Parquet or Arrow is not installed.
        OSError: It cannot be read.
    """
    found: list[str] = []

    def keep(names: Sequence[str]) -> Sequence[str]:
        found.extend(names)
        return ()

    next(chunks(path, keep, 1), None)
    return found


def _format_of(path: str | os.PathLike[str]) -> _Format:
    name = os.fspath(path).lower().removesuffix(".gz")
    for ending, found in _FORMATS.items():
        if name.endswith(ending):
            return found
    raise ValueError(
        f"{os.fspath(path)}: expected a name that ends in {', '.join(FORMATS)} (the first four also with .gz)"
    )
