"""Text of CSV and JSON Lines files, compressed or not, within bounds, and named where it is damaged."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

from bc_core.files._files import TooLargeError, in_bytes

MOST_UNPACKED = 2**34
_OTHER_ARCHIVES = {b"BZh": "bzip2", b"\xfd7z": "xz", b"PK\x03": "zip", b"\x28\xb5\x2f": "zstd"}
_WIDE = (b"\xff\xfe", b"\xfe\xff")


class _Bounded(io.RawIOBase):
    """What is unpacked, up to so many bytes: a small file may stand for more than any disk holds."""

    def __init__(self, source: IO[bytes], limit: int) -> None:
        self._source, self._left, self._limit = source, limit, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self._source.read(len(buffer))
        self._left -= len(chunk)
        if self._left < 0:
            raise TooLargeError(f"it holds more than {in_bytes(self._limit)} when unpacked; unpack it first")
        buffer[: len(chunk)] = chunk
        return len(chunk)


@contextmanager
def open_text(path: str, limit: int = MOST_UNPACKED) -> Iterator[IO[str]]:
    """A file's text: UTF-8, or UTF-16 where its first bytes say so; unpacked if gzip packed it.

    Args:
        path: The file.
        limit: Bytes of its text at most, where it is packed.

    Raises:
        ValueError: It is packed otherwise, cut off, damaged, too large, or not of these encodings.
        OSError: It cannot be read.
    """
    with open(path, "rb") as file:
        first = file.read(4)
        file.seek(0)
        if first[:3] in _OTHER_ARCHIVES:
            raise ValueError(f"{path}: packed by {_OTHER_ARCHIVES[first[:3]]}; unpack it, or pack it by gzip")
        if b"\0" in first[:2] or first[1:2] == first[3:4] == b"\0" or first[2:] == b"\0\0":
            raise ValueError(f"{path}: not UTF-8, but UTF-32, or UTF-16 without a mark; save it as UTF-8 first")
        source: IO[bytes] = file
        if first[:2] == b"\x1f\x8b":
            source = io.BufferedReader(cast("Any", _Bounded(cast("IO[bytes]", gzip.GzipFile(fileobj=file)), limit)))
        try:
            wide = first[:2] in _WIDE
            yield io.TextIOWrapper(source, "utf-16" if wide else "utf-8-sig", newline="")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 ({_where(path, error)}); save it as UTF-8 first") from error
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path}: cut off or damaged while packed ({error})") from error
        except TooLargeError as error:
            raise ValueError(f"{path}: {error}") from error


def _where(path: str, error: UnicodeDecodeError) -> str:
    """The line of the first byte that is wrong: the decoder knows its own chunk only."""
    wrong = error.object[error.start : error.start + 1].hex()
    if os.path.getsize(path) > MOST_UNPACKED:
        return f"byte {wrong}"
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if line.decode("utf-8", "replace").encode("utf-8") != line:
                return f"line {number}, byte {wrong}"
    return f"byte {wrong}"
