"""npz: whole, or as streams of which some rows are read at a time."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core._arrays import text_objects
from bc_core._texts import listed
from bc_core.files._archives import read_archive
from bc_core.files._files import in_bytes
from bc_core.predictions._tables import Keep, Table

_MOST_BYTES = 2**32


def read_npz(path: str, keep: Keep) -> Table:
    """All of an archive.

    Raises:
        ValueError: It is damaged, or holds something else than columns of one length.
        OSError: It cannot be read.
    """
    try:
        arrays = read_archive(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    columns = {name: _plain(path, name, arrays[name]) for name in keep(list(arrays))}
    sizes = {name: len(column) for name, column in columns.items()}
    if not sizes or not max(sizes.values()):
        raise ValueError(f"{path}: empty; it has the arrays {listed(list(arrays))}")
    if len(set(sizes.values())) > 1:
        raise ValueError(f"{path}: expected arrays of one length, got {sizes}")
    return Table(path, columns, next(iter(sizes.values())))


def npz_chunks(path: str, keep: Keep, size: int, skip: int = 0) -> Iterator[Table]:
    """Arrays of an archive, read side by side as streams: unpacked they may be larger than memory.

    Raises:
        ValueError: It is damaged, or holds something else than columns of one length.
        OSError: It cannot be read.
    """
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
                columns = {each.name: _plain(path, each.name, each.read(count), False) for each in streams}
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


def _plain(path: str, name: str, array: NDArray[Any], flat: bool = True) -> NDArray[Any]:
    """An array as a column: numbers, or text as dtype object holding `str`.

    Args:
        path: The file, for messages.
        name: Its name there.
        array: What was read.
        flat: Whether it must hold one value an instance, or one row.

    Raises:
        ValueError: It holds something else.
    """
    if flat and array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if (
        (flat and array.ndim not in (1, 2))
        or array.dtype.kind not in "biufUS"
        or (array.dtype.kind in "US" and array.ndim > 1)
    ):
        raise ValueError(
            f"{path}: the array {name!r} must hold one number or text per instance, or rows of class scores, got "
            f"{array.dtype} of shape {array.shape}"
        )
    if array.dtype.kind == "S":
        try:
            array = np.char.decode(array, "utf-8")
        except UnicodeDecodeError:
            raise ValueError(f"{path}: the array {name!r} holds text that is not UTF-8") from None
    if array.dtype.kind == "U":
        return text_objects(array.tolist())
    if array.dtype.kind == "u":
        if array.size and int(array.max()) > np.iinfo(np.int64).max:
            raise ValueError(f"{path}: the array {name!r} must hold numbers below 2**63")
        return array.astype(np.int64)
    return array
