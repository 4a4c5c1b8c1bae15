"""Parquet and Arrow files, read by pyarrow, or where they are large by DuckDB; both are imported only for them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core._arrays import text_objects
from bc_core._texts import listed
from bc_core.predictions._tables import Keep, Table

_INSTALL = "pip install 'backward-compat-ml[files]', or convert it to CSV"


def engine(path: str) -> Any:
    """DuckDB.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import duckdb
    except ImportError as error:
        raise ImportError(f"{path}: Parquet files are read by DuckDB, which is not installed: {_INSTALL}") from error
    return duckdb


def arrow_chunks(path: str, keep: Keep, size: int, skip: int = 0) -> Iterator[Table]:
    """Read a Parquet file, or an Arrow IPC file or stream.

    Args:
        path: The file.
        keep: Which columns.
        size: Rows of a chunk at the most.
        skip: Rows at the beginning that are left out.

    Raises:
        ValueError: It is damaged, a value is missing, or a column is of a kind that says nothing here.
        ImportError: pyarrow is not installed.
        OSError: It cannot be read.
    """
    done = 0
    for names, batch in _batches(path, keep, size):
        here = max(0, skip - done)
        begin, done = done + here, done + batch.num_rows
        if begin < done:
            rest = batch.slice(here)
            columns = {name: _column(path, name, rest.column(name), begin) for name in names}
            yield Table(path, columns, rest.num_rows, line_of=partial(_row_of, begin))


def _row_of(before: int, row: int) -> str:
    return f"row {before + row}"


def _column(path: str, name: str, column: Any, before: int) -> NDArray[Any]:
    if column.null_count:
        first = next(row for row, value in enumerate(column.is_null()) if value.as_py())
        raise ValueError(f"{path}, row {before + first}: column {name!r} is missing")
    if str(column.type).startswith("decimal"):
        column = column.cast("float64")
    return _plain(path, name, column.to_numpy(zero_copy_only=False))


def _batches(path: str, keep: Keep, size: int) -> Iterator[tuple[list[str], Any]]:
    """Names of the columns to keep, and record batches of `size` rows at most."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(f"{path}: such files are read by pyarrow, which is not installed: {_INSTALL}") from error
    with open(path, "rb"):
        pass
    try:
        if path.lower().endswith(".parquet"):
            with parquet.ParquetFile(path) as file:
                names = _kept(path, keep, file.schema_arrow.names)
                for batch in file.iter_batches(size, columns=names):
                    yield names, batch
            return
        with pa.memory_map(path) as source:
            try:
                opened = pa.ipc.open_file(source)
                batches = (opened.get_batch(number) for number in range(opened.num_record_batches))
            except pa.ArrowInvalid:
                source.seek(0)
                opened = pa.ipc.open_stream(source)
                batches = iter(opened)
            names = _kept(path, keep, opened.schema.names)
            for batch in batches:
                for start in range(0, batch.num_rows, size):
                    yield names, batch.select(names).slice(start, size)
    except pa.ArrowException as error:
        raise ValueError(f"{path}: not a file of its kind, or a damaged one ({_first_line(error)})") from error


def literal(path: str) -> str:
    """A path that stands for one file, where DuckDB would look for several that match."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in path)


def damaged(path: str, error: Exception) -> ValueError:
    """What DuckDB says of a file, in one line."""
    return ValueError(f"{path}: not a Parquet file, or a damaged one ({_first_line(error)})")


def text(value: str) -> str:
    """A text in SQL."""
    return "'" + value.replace("'", "''") + "'"


def quoted(name: str) -> str:
    """A column's name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def _kept(path: str, keep: Keep, names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: columns must have names of their own, got {listed(names)}")
    return list(keep(names))


def _plain(path: str, name: str, values: Any) -> NDArray[Any]:
    kind = values.dtype.kind
    if kind == "u":
        if values.size and int(values.max()) > np.iinfo(np.int64).max:
            raise ValueError(f"{path}: column {name!r} must hold numbers below 2**63")
        return np.asarray(values, np.int64)
    if kind in "bif":
        return np.asarray(values)
    return _of_objects(path, name, values.tolist())


def _of_objects(path: str, name: str, values: list[Any]) -> NDArray[Any]:
    if values and all(isinstance(value, (bytes, bytearray)) for value in values):
        try:  # text of writers that do not say that it is
            values = [value.decode("utf-8") for value in values]
        except UnicodeDecodeError:
            raise ValueError(f"{path}: column {name!r} holds bytes that are no UTF-8 text") from None
    if values and all(isinstance(value, str) for value in values):
        return text_objects(values)
    try:
        rows = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        rows = np.empty(0)
    if rows.ndim != 2:
        raise ValueError(
            f"{path}: column {name!r} must hold numbers, text, or lists of numbers of one length, got "
            f"{type(values[0]).__name__ if values else 'nothing'}"
        )
    return rows


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
