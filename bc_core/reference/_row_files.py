"""Arrays in files of their own (`.npy`), written by offset and read through a map."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from bc_core.files._files import allocate

_MAGIC = b"\x93NUMPY"


def create_array(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Make the file of an array of zeros, and have the system set aside the room for it.

    Raises:
        OSError: There is no room.
    """
    with open(path, "wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        allocate(file, file.tell() + size_of_array(dtype, shape))
        os.fsync(file.fileno())


def size_of_array(dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    """Bytes of an array."""
    return dtype.itemsize * math.prod(shape)


def open_array(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """Map an array into memory without reading it.

    Raises:
        ValueError: The file is missing, damaged, or holds another array.
        OSError: It cannot be opened.
    """
    try:
        with open(path, "rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise ValueError("it does not begin as an array does")
        array = np.load(path, mmap_mode="r")
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    except OSError:
        raise
    except Exception as error:
        # Numpy has an error of another kind for every part of a file that can be wrong.
        raise ValueError(f"{path} cannot be read ({error})") from error
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(
            f"{path} holds {array.dtype} of shape {array.shape}, expected {dtype} of shape {shape} by its header"
        )
    return cast("np.memmap[Any, Any]", array)


class ArrayFile:
    """An array on the disk to be written.

    By offset and not through a map: on a full disk a map ends the process, without an error.

    Args:
        path: The file.
        dtype: Type of the array.
        shape: Its shape.

    Raises:
        ValueError: The file is missing, damaged, or holds another array.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self._offset = int(open_array(path, dtype, shape).offset)
        self._dtype, self._row = dtype, size_of_array(dtype, shape[1:])
        self._file = open(path, "r+b", buffering=0)  # noqa: SIM115 - closed by `close`

    def write(self, indices: NDArray[np.int64], values: NDArray[Any]) -> None:
        """Write some rows."""
        values = np.ascontiguousarray(values, dtype=self._dtype)
        # Rows that follow each other go in one piece; usually all do.
        starts = np.flatnonzero(np.diff(indices, prepend=indices[:1] - 2) != 1).tolist()
        for start, stop in zip(starts, [*starts[1:], len(indices)], strict=True):
            self._file.seek(self._offset + int(indices[start]) * self._row)
            rest = memoryview(values[start:stop].tobytes())
            while rest:
                rest = rest[self._file.write(rest) :]

    def sync(self) -> None:
        """Bring what was written to the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()
