"""Files that appear whole, room on the disk before it is written to, and folders that one process writes at a time."""

from __future__ import annotations

import errno
import gzip
import io
import os
import re
import secrets
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, cast

_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
# No disk takes a file that large, such as one of FAT.
_NO_ROOM = (*_FULL_DISK, errno.EFBIG)
# How file systems say that they know no locks, such as some of networks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
_CHUNK = 1 << 20
_LOOK_SECONDS = 0.1


class TooLargeError(ValueError):
    """A file holds more than is to be read."""


class FullDiskError(OSError):
    """The disk is full. What was finished before stays; the message says what to do."""


def is_full_disk(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, is that the disk is full, by the number or the words of the system."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return True
        # HDF5 and TensorFlow hand on the system's words, and not its number.
        if any(os.strerror(number) in str(error) for number in _FULL_DISK):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def told_of_a_full_disk(message: str, path: str | os.PathLike[str]) -> Iterator[None]:
    """Say what there was no room for, and what to do.

    Raises:
        FullDiskError: In place of an error for want of space, whoever raised it.
    """
    try:
        yield
    except Exception as error:
        if not is_full_disk(error):
            raise
        # TensorFlow and HDF5 have errors of their own.
        number = error.errno if isinstance(error, OSError) and error.errno else errno.ENOSPC
        raise FullDiskError(number, message, os.fspath(path)) from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file aside, then rename it: it appears whole or not at all, and an older one is replaced or stays.

    Raises:
        FullDiskError: There is no room for it.
        OSError: It cannot be written.
    """
    # Through a link, what it points to is replaced and the link stays.
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    said = (
        f"No space is left to write {in_bytes(len(content))}; what was there before is kept. Make room, then write it"
    )
    with told_of_a_full_disk(f"{said} again", path):
        try:
            with open(aside, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, target)
        except BaseException as error:
            with suppress(OSError):
                aside.unlink()
            if isinstance(error, OSError) and error.filename == os.fspath(aside):
                error.filename = str(path)  # nobody knows the other name
            raise


def is_left_aside(name: str, of: Iterable[str]) -> bool:
    """Whether a file is what `write_whole` leaves when the process is killed while it writes one of `of`."""
    found = re.fullmatch(r"\.(.+)\.[0-9a-f]{8}\.part", name)
    return found is not None and found[1] in of


def in_bytes(size: int) -> str:
    """A size for a person: `in_bytes(1_500_000)` is "1.5 MB"."""
    value = float(size)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.4g} {unit}"
        value /= 1000
    return f"{value:.4g} TB"


def allocate(file: IO[bytes], size: int) -> None:
    """Have the system set aside room up to `size` bytes of a file, which are read as zeros where nothing is written.

    Raises:
        OSError: There is no room.
    """
    file.flush()
    begin = os.fstat(file.fileno()).st_size
    if size <= begin:
        return
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), begin, size - begin)
            return
        except OSError as error:
            # Not every file system can.
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS, errno.ENODEV):
                raise
    file.seek(begin)
    zeros = bytes(_CHUNK)
    for start in range(begin, size, _CHUNK):
        file.write(zeros[: min(_CHUNK, size - start)])
    file.flush()


def read_bounded(path: str | os.PathLike[str], limit: int) -> bytes:
    """Read a file, and unpack it if it is packed by gzip, which is seen from its content.

    Args:
        path: The file.
        limit: Bytes of its content at most; no more are ever held.

    Raises:
        TooLargeError: It has more.
        EOFError: It is cut off while packed.
        OSError: It cannot be read, or is packed and damaged (`gzip.BadGzipFile`).
        zlib.error: It is packed and damaged.
    """
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        source = cast("IO[bytes]", gzip.GzipFile(fileobj=file) if packed else file)
        content = io.BytesIO()
        while chunk := source.read(_CHUNK):
            if content.tell() + len(chunk) > limit:
                raise TooLargeError(f"it holds more than {in_bytes(limit)}{' when unpacked' if packed else ''}")
            content.write(chunk)
    return content.getvalue()


@contextmanager
def locked(path: Path, where: str, wait: bool = False) -> Iterator[None]:
    """Keep every other process, and thread, out of what a file stands for; the lock ends with the process.

    Args:
        path: The file; it is made and stays.
        where: Where another one is at work, for the message.
        wait: Whether to wait for the other one instead of an error.

    Raises:
        RuntimeError: Another one holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        while not _try_lock(file):
            if not wait:
                raise RuntimeError(
                    f"Another process, or thread of this one, is at work in {where}. Wait for it, or give another "
                    "folder."
                )
            time.sleep(_LOOK_SECONDS)
        try:
            yield
        finally:
            _unlock(file)


def _try_lock(file: IO[bytes]) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK):
            return False
        if error.errno not in _NO_LOCKS:
            raise
        warnings.warn(
            f"{file.name} is on a file system without locks: see to it that no other process works there meanwhile",
            RuntimeWarning,
            stacklevel=5,
        )
    return True


def _unlock(file: IO[bytes]) -> None:
    # Closing the file would do, but for a copy that a child process holds.
    with suppress(OSError):
        if os.name == "nt":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined, unused-ignore]
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_UN)
