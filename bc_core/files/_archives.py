"""Arrays from an archive (`.npz`) that anybody may have written, or damaged."""

from __future__ import annotations

import io
import os
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core.files._files import in_bytes

_LIMIT = 2**32


def read_archive(path: str | os.PathLike[str], limit: int = _LIMIT) -> dict[str, NDArray[Any]]:
    """Read all arrays of an `.npz` file; nothing in it is unpickled.

    Args:
        path: The file.
        limit: Bytes of its arrays at most.

    Raises:
        ValueError: It is no such file, is damaged, or holds more.
        OSError: It cannot be read.
    """
    if (size := os.stat(path).st_size) > limit:
        raise ValueError(f"it holds {in_bytes(size)}, more than {in_bytes(limit)}")
    with open(path, "rb") as file:
        content = io.BytesIO(file.read())
    try:
        with zipfile.ZipFile(content) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > limit:
            raise ValueError(f"it holds {in_bytes(size)} when unpacked, more than {in_bytes(limit)}")
        content.seek(0)
        with np.load(content, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except Exception as error:
        # Every part of such a file that can be wrong has an error of its own: of zipfile, zlib, struct, numpy.
        raise ValueError(f"no archive of arrays, or a damaged one ({type(error).__name__}: {error})") from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise ValueError(f"the entry {name!r} is no array")
    return arrays
