"""`read_table`: a file of predictions of whatever format its name says."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core._arrays import text_objects
from bc_core.files._archives import read_archive
from bc_core.predictions._csv_files import read_csv
from bc_core.predictions._engine_files import read_arrow, read_parquet
from bc_core.predictions._json_files import read_json_lines
from bc_core.predictions._tables import Keep, Progress, Table, listed

_READERS = {
    ".csv": read_csv,
    ".tsv": read_csv,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".feather": read_arrow,
}
FORMATS = (*_READERS, ".npz")


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
    text = os.fspath(path)
    name = text.lower().removesuffix(".gz")
    for ending, reader in _READERS.items():
        if name.endswith(ending):
            return reader(text, keep, progress)
    if name.endswith(".npz"):
        return _read_npz(text, keep)
    raise ValueError(f"{text}: expected a name that ends in {', '.join(FORMATS)} (the first four also with .gz)")


def _read_npz(path: str, keep: Keep) -> Table:
    try:
        arrays = read_archive(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    columns = {name: plain_array(path, name, arrays[name]) for name in keep(list(arrays))}
    sizes = {name: len(column) for name, column in columns.items()}
    if not sizes or not max(sizes.values()):
        raise ValueError(f"{path}: empty; it has the arrays {listed(list(arrays))}")
    if len(set(sizes.values())) > 1:
        raise ValueError(f"{path}: expected arrays of one length, got {sizes}")
    return Table(path, columns, next(iter(sizes.values())))


def plain_array(path: str, name: str, array: NDArray[Any], flat: bool = True) -> NDArray[Any]:
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
