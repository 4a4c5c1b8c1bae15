"""What queries of DuckDB read a file by: Parquet as it is, Arrow under a name, text by a copy in Parquet."""

from __future__ import annotations

import csv
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core.predictions._columns import Roles
from bc_core.predictions._csv_files import separator_of
from bc_core.predictions._engine_files import literal, quoted, text
from bc_core.predictions._reading import chunks
from bc_core.predictions._tables import Keep, Progress
from bc_core.predictions._text_files import open_text

COLUMNAR = (".parquet", ".arrow", ".feather")
TEXT = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
JSON = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
# Fewer bytes of text are read in memory.
LEAST_BYTES = 2**25
_ROWS = 50_000
# A number that gives back its text, so that "7" and "007" stay two ids.
_WHOLE = "0|-?[1-9][0-9]{0,17}"


class NotPlainError(Exception):
    """A file is not what is counted here; reading it in memory does it, or says what is wrong and in which line."""


def origin_of(
    connection: Any,
    path: str,
    name: str,
    keep: Keep = lambda names: names,
    progress: Progress = lambda path, rows: None,
) -> str:
    """What a query reads a file by.

    Args:
        connection: To DuckDB.
        path: The file.
        name: By which it is known in the connection, where it needs a name.
        keep: Of the names of its columns, those that a copy keeps.
        progress: Told of the rows copied so far, of JSON Lines.

    Raises:
        NotPlainError: It is no file of Arrow, but a stream; CSV that is damaged, or packed otherwise than by gzip; or
            JSON Lines of which a column changes its type.
        ValueError: JSON Lines are damaged; the line is named.
    """
    if path.lower().endswith(".parquet"):
        return _parquet(path)
    if path.lower().endswith((*TEXT, *JSON)):
        folder = connection.execute("select current_setting('temp_directory')").fetchall()[0][0]
        copy = os.path.join(folder, f"{name}.parquet")
        if path.lower().endswith(TEXT):
            _copy(connection, path, copy, keep)
        else:
            _copy_json(path, copy, keep, progress)
        return _parquet(copy)
    try:
        from pyarrow import ArrowInvalid, dataset

        connection.register(name, dataset.dataset(path, format="ipc"))
    except (ImportError, ArrowInvalid) as error:
        raise NotPlainError from error
    return name


def _parquet(path: str) -> str:
    return f"read_parquet({text(literal(path))})"


def _copy(connection: Any, path: str, copy: str, keep: Keep) -> None:
    """Every column as text, exactly."""
    import duckdb

    with open_text(path) as file:
        first = file.readline()
        separator = separator_of(first)
        names = next(csv.reader([first], delimiter=separator, strict=True), [])
    if len(set(names)) < len(names) or not all(names) or "\n" in first[:-1]:
        raise NotPlainError
    columns = ", ".join(f"{text(name)}: 'VARCHAR'" for name in names)
    kept = ", ".join(map(quoted, keep(names)))
    options = f"""header=true, auto_detect=false, delim='{separator}', quote='"', escape='"', columns={{{columns}}}"""
    try:
        connection.execute(
            f"copy (select {kept} from read_csv({text(literal(path))}, {options})) to {text(copy)} (format parquet)"
        )
    except duckdb.Error as error:
        raise NotPlainError from error


def _copy_json(path: str, copy: str, keep: Keep, progress: Progress) -> None:
    """Every column as it is read in memory, of the names of the first line."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise NotPlainError from error

    def column(values: NDArray[Any]) -> Any:
        if values.ndim == 1:
            return pa.array(values)
        ends = np.arange(0, values.size + 1, values.shape[1], dtype=np.int32)
        return pa.ListArray.from_arrays(pa.array(ends), pa.array(values.ravel()))

    writer, size = None, 0
    try:
        for part in chunks(path, keep, _ROWS):
            table = pa.table({name: column(values) for name, values in part.columns.items()})
            writer = parquet.ParquetWriter(copy, table.schema) if writer is None else writer
            if table.schema != writer.schema:
                raise NotPlainError
            writer.write_table(table)
            size += part.size
            progress(path, size)
    finally:
        if writer is not None:
            writer.close()
    if not size:
        raise NotPlainError  # empty, as memory says


def typed(connection: Any, origin: str, roles: Roles, most_values: int) -> str:
    """A query of text of which each column has the type that it would have in memory.

    Args:
        connection: To DuckDB.
        origin: What is read.
        roles: What its columns are for.
        most_values: Numbers of more values than these are ranges, and the values' text no matter.

    Raises:
        NotPlainError: A column has something missing, or numbers among text.
    """
    selected = []
    for name in roles.names:
        column = quoted(name)
        whole, numbers, missing, some = connection.execute(
            f"select bool_and(regexp_full_match({column}, '{_WHOLE}')), bool_and(try_cast({column} as double) is not "
            f"null), bool_or({column} is null), bool_or(try_cast({column} as double) is not null) from {origin}"
        ).fetchall()[0]
        if missing or whole is None:
            raise NotPlainError
        if name in roles.scores:
            if not numbers or not roles.prefix:
                raise NotPlainError
            selected.append(f"{column}::double as {column}")
        elif whole:
            selected.append(f"{column}::bigint as {column}")
        elif name == roles.id or not some:
            selected.append(column)
        else:
            counted = f"select count(*) from (select distinct {column} from {origin} limit {most_values + 1})"
            if name not in roles.others or not numbers or connection.execute(counted).fetchall()[0][0] <= most_values:
                raise NotPlainError
            selected.append(f"{column}::double as {column}")
    return f"(select {', '.join(selected)} from {origin})"
