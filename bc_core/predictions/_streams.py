"""A file of data, a chunk of rows at a time: so much memory as a chunk takes, however long the file is."""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bc_core.files._files import in_bytes
from bc_core.predictions._csv_files import csv_chunk, csv_rows, named_columns
from bc_core.predictions._engine_files import arrow_batches, column_table
from bc_core.predictions._json_files import json_table
from bc_core.predictions._reading import plain_array
from bc_core.predictions._tables import Keep, Table
from bc_core.predictions._text_files import open_text

FORMATS = (".csv", ".tsv", ".jsonl", ".ndjson", ".npz", ".parquet", ".arrow", ".feather")

_MOST_BYTES = 2**32

_Row = TypeVar("_Row")


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
        >>> from bc_core.predictions._streams import chunks
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "data.csv")
        ...     _ = path.write_text("id,x\na,1\nb,2\nc,3\n")
        ...     [part.columns["x"].tolist() for part in chunks(path, lambda names: ["x"], size=2)]
        [[1, 2], [3]]
    """
    text = os.fspath(path)
    name = text.lower().removesuffix(".gz")
    if name.endswith((".csv", ".tsv")):
        return _of_csv(text, keep, size, skip)
    if name.endswith((".jsonl", ".ndjson")):
        return _of_json_lines(text, keep, size, skip)
    if name.endswith((".parquet", ".arrow", ".feather")):
        return _of_arrow(text, keep, size, skip)
    if name.endswith(".npz"):
        return _of_npz(text, keep, size, skip)
    raise ValueError(f"{text}: expected a name that ends in {', '.join(FORMATS)} (the first four also with .gz)")


def _pieces(rows: Iterable[_Row], size: int) -> Iterator[list[_Row]]:
    iterator = iter(rows)
    while piece := list(islice(iterator, size)):
        yield piece


def _of_csv(path: str, keep: Keep, size: int, skip: int) -> Iterator[Table]:
    with open_text(path) as file:
        rows = csv_rows(path, file)
        names = named_columns(path, rows)
        kept = list(keep(names))
        filled = (row for row in rows if row)  # blank lines, as at the end of a file
        begin = skip
        for piece in _pieces(islice(filled, skip, None), size):
            yield csv_chunk(path, names, kept, piece, begin)
            begin += len(piece)


def _of_json_lines(path: str, keep: Keep, size: int, skip: int) -> Iterator[Table]:
    with open_text(path) as file:
        numbered = ((number, line) for number, line in enumerate(file, 1) if not line.isspace())
        for piece in _pieces(islice(numbered, skip, None), size):
            yield json_table(path, piece, keep)


def _of_arrow(path: str, keep: Keep, size: int, skip: int) -> Iterator[Table]:
    done = 0
    for names, batch in arrow_batches(path, keep, size):
        here = max(0, skip - done)
        begin, done = done, done + batch.num_rows
        if here < batch.num_rows:
            yield column_table(path, names, batch.slice(here), begin + here)


def _of_npz(path: str, keep: Keep, size: int, skip: int) -> Iterator[Table]:
    """Arrays of an archive, read side by side as streams: unpacked they may be larger than memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name.removesuffix(".npy"): name for name in archive.namelist()}
            kept = list(keep(list(members)))
            if not kept:
                return
            streams = [_Array(path, name, archive.open(members[name])) for name in kept]
            lengths = {stream.name: stream.rows for stream in streams}
            if len(set(lengths.values())) != 1:
                raise ValueError(f"{path}: expected arrays of one length, got {lengths}")
            for stream in streams:
                stream.skip(skip)
            for begin in range(skip, streams[0].rows, size):
                count = min(size, streams[0].rows - begin)
                columns = {each.name: plain_array(path, each.name, each.read(count), False) for each in streams}
                yield Table(path, columns, count, line_of=lambda row, begin=begin: f"row {begin + row}")  # type: ignore[misc]
    except (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise ValueError(f"{path}: no archive of arrays, or a damaged one ({error})") from error


class _Array:
    """An array of an archive, from its beginning on."""

    def __init__(self, path: str, name: str, file: Any) -> None:
        self.name, self._path, self._file = name, path, file
        try:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, by_columns, self._dtype = read(file)
        except ValueError as error:
            raise ValueError(f"{path}: {name!r} is no array ({error})") from error
        if self._dtype.hasobject:
            raise ValueError(f"{path}: the array {name!r} holds pickled objects, which are not loaded")
        if not shape or (by_columns and len(shape) > 1):
            what = "is stored by columns; save it by np.ascontiguousarray" if shape else "is a single number"
            raise ValueError(f"{path}: the array {name!r} {what}")
        self.rows, self._shape = shape[0], shape[1:]
        self._row_bytes = self._dtype.itemsize * int(np.prod(self._shape, dtype=np.int64))

    def skip(self, rows: int) -> None:
        left = rows * self._row_bytes
        while left and (chunk := self._file.read(min(left, 1 << 24))):
            left -= len(chunk)

    def read(self, rows: int) -> NDArray[Any]:
        content = io.BytesIO()
        left = rows * self._row_bytes
        if left > _MOST_BYTES:
            raise ValueError(
                f"{self._path}: {rows} rows of the array {self.name!r} are {in_bytes(left)}; give smaller batches"
            )
        while left and (chunk := self._file.read(left)):
            content.write(chunk)
            left -= len(chunk)
        if left:
            raise ValueError(f"{self._path}: the array {self.name!r} ends before its last row")
        found: NDArray[Any] = np.frombuffer(content.getvalue(), self._dtype).reshape(rows, *self._shape)
        return found


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
