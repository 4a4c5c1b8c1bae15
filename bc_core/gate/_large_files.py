"""Parquet files as DuckDB sees them: what they hold, queries of them, and what is refused of any of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core.predictions._columns import ColumnNames, Roles, roles_of
from bc_core.predictions._engine_files import damaged, engine, literal, quoted
from bc_core.predictions._tables import listed, shown

MEMORY = "1GB"
_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")
_NUMBERS = (*_INTEGERS, "FLOAT", "DOUBLE")
_BATCH = 1_000_000
# Whole numbers with more gaps than this are joined as any other ids.
_MOST_GAPS = 4


@dataclass(frozen=True)
class LargeFile:
    """A Parquet file; `alias` is its name in queries."""

    path: str
    alias: str
    types: Mapping[str, str]
    roles: Roles
    rows: int

    @property
    def source(self) -> str:
        """The file in a query."""
        return "read_parquet('{}') {}".format(literal(self.path).replace("'", "''"), self.alias)

    @property
    def ids(self) -> str:
        """Its ids in a query."""
        return self.column(self.roles.id)

    def column(self, name: str | None) -> str:
        """A column in a query."""
        assert name is not None
        return f"{self.alias}.{quoted(name)}"

    def kind(self, name: str | None) -> str:
        """Of a column: "text", "integer", "number", or what else it is declared as."""
        declared = self.types.get(name or "", "")
        if declared == "VARCHAR":
            return "text"
        return "integer" if declared in _INTEGERS else "number" if declared in _NUMBERS else declared


@contextmanager
def connected(path: str) -> Iterator[tuple[Any, Any]]:
    """DuckDB, and a connection to it that holds no more than `MEMORY` and spills to a folder of its own.

    Raises:
        ImportError: It is not installed.
    """
    duckdb = engine(path)
    with tempfile.TemporaryDirectory(prefix="bc-compare-") as spilled, duckdb.connect() as connection:
        connection.execute(f"set memory_limit='{MEMORY}'")
        connection.execute(f"set temp_directory='{spilled}'")
        connection.execute("set preserve_insertion_order=false")
        yield duckdb, connection


def opened(connection: Any, path: str, alias: str, said: ColumnNames) -> LargeFile:
    """What a file holds; `alias` is "o", "n" or "d", of the old model, the new one, or data.

    Raises:
        ValueError: It is damaged, or lacks a column.
        OSError: It cannot be read.
    """
    with open(path, "rb"):
        pass  # an error of the system's own, where there is no such file
    try:
        relation = connection.read_parquet(literal(path))
        (rows,) = connection.execute("select count(*) from read_parquet(?)", [literal(path)]).fetchall()[0]
    except engine(path).Error as error:
        raise damaged(path, error) from error
    types = dict(zip(relation.columns, map(str, relation.types), strict=True))
    roles = roles_of(path, list(types), said, alias == "n", alias != "d")
    return LargeFile(path, alias, types, roles, rows)


def refuse_missing(run: Callable[[str], Any], file: LargeFile) -> None:
    """Refuse a file in which something is missing.

    Raises:
        ValueError: So it is.
    """
    wanted = (file.roles.id, file.roles.pred, file.roles.target, *file.roles.others)
    for name in (name for name in wanted if name is not None):
        nothing = f" or trim({quoted(name)}) = ''" if file.kind(name) == "text" else ""
        if file.kind(name) == "number":
            nothing = f" or not isfinite({quoted(name)})"
        query = f"select count(*) from {file.source} where {quoted(name)} is null{nothing}"
        (missing,) = run(query).fetchall()[0]
        if missing:
            raise ValueError(f"{file.path}: column {name!r} is missing, empty or not finite in {missing} rows")


def refuse_twins(run: Callable[[str], Any], file: LargeFile) -> None:
    """Refuse a file of which an id comes twice.

    Raises:
        ValueError: So it does.
    """
    query = f"select {file.ids} from {file.source} group by 1 having count(*) > 1 limit 6"
    if twins := [value for (value,) in run(query).fetchall()]:
        raise ValueError(f"{file.path}: ids come more than once, such as {listed(twins)}")


def refuse_unmatched(files: Sequence[LargeFile], alone: NDArray[Any]) -> None:
    """Refuse ids of the first file that are not in all of them, or files of different sizes.

    Raises:
        ValueError: There are some, or they are.
    """
    if len(alone) or len({file.rows for file in files}) > 1:
        counts = ", ".join(f"{file.path} has {file.rows} rows" for file in files)
        some = f", such as {listed(alone.tolist())}" if len(alone) else ""
        raise ValueError(
            f"ids that do not match: {counts}; {len(alone)} of the first are not in all of them{some}. Files of this "
            "size are joined only whole"
        )


def refuse_contradictions(ids: NDArray[Any]) -> None:
    """Refuse instances whose true labels differ between files.

    Raises:
        ValueError: There are some.
    """
    if len(ids):
        raise ValueError(
            f"true labels of {len(ids)} instances differ between the files, such as that of {shown(ids[0])}"
        )


def errors_by_join(
    run: Callable[[str], Any], files: Sequence[LargeFile], code: Callable[[str], str]
) -> dict[str, NDArray[Any]]:
    """Ids and codes of `target`, `h1` and `h2` of what either model gets wrong, by a join of the engine.

    Args:
        run: Runs a query.
        files: Old, new, and data where there are.
        code: From a column of labels in a query to its code in one.

    Raises:
        ValueError: Ids come twice or do not match, or true labels contradict each other.
    """
    for file in files:
        refuse_twins(run, file)
    old, new, targets = files[0], files[1], [file for file in files if file.roles.target is not None]
    truth = targets[-1].column(targets[-1].roles.target)
    h1, h2 = old.column(old.roles.pred), new.column(new.roles.pred)
    joins = "".join(f" left join {file.source} on {file.ids} = {old.ids}" for file in files[1:])
    alone = " or ".join(f"{file.ids} is null" for file in files[1:])
    differ = "".join(f" or {file.column(file.roles.target)} <> {truth}" for file in targets[:-1])
    found = run(
        f"select {old.ids} as id, {code(truth)} as target, {code(h1)} as h1, {code(h2)} as h2, ({alone}) as alone, "
        f"({'false' + differ}) as differs from {old.source}{joins} "
        f"where {alone} or {h1} <> {truth} or {h2} <> {truth}{differ}"
    ).fetchnumpy()
    refuse_unmatched(files, found["id"][np.asarray(found.pop("alone"), bool)])
    refuse_contradictions(found["id"][np.asarray(found.pop("differs"), bool)])
    return {name: np.asarray(values) for name, values in found.items()}


def errors_by_place(
    connection: Any, files: Sequence[LargeFile], code: Callable[[str], str], codes: int
) -> dict[str, NDArray[Any]] | None:
    """The same where ids are whole numbers with few gaps: each has its place in an array, and nothing is hashed.

    Args:
        connection: To DuckDB.
        files: Old, new, and data where there are.
        code: From a column of labels in a query to its code in one.
        codes: How many codes there are.

    Returns:
        None where ids are of another kind.

    Raises:
        ValueError: As `errors_by_join`.
    """
    if any(file.kind(file.roles.id) != "integer" or not file.rows for file in files):
        return None
    ends = [connection.execute(f"select min({f.ids}), max({f.ids}) from {f.source}").fetchall()[0] for f in files]
    low, span = min(end[0] for end in ends), max(end[1] for end in ends) - min(end[0] for end in ends) + 1
    if span > _MOST_GAPS * max(file.rows for file in files):
        return None
    old, new, targets = files[0], files[1], [file for file in files if file.roles.target is not None]
    nothing, kind = codes, np.min_scalar_type(codes)
    truth, h1 = np.full(span, nothing, kind), np.full(span, nothing, kind)
    everywhere = np.ones(span, bool)
    # What is true is known first, then what h1 says, so that each row of the new file is judged as it comes.
    differs, errors = [], []
    for file in (*targets[-1:], *(file for file in files if file not in (targets[-1], new)), new):
        columns = [code(file.column(name)) for name in (file.roles.target, file.roles.pred) if name is not None]
        seen = np.zeros(span, bool)
        for place, *values in _batches(connection, file, low, columns):
            seen[place] = True
            if file.roles.target is not None and file is targets[-1]:
                truth[place] = values[0]
            elif file.roles.target is not None:
                differs.append(place[(truth[place] != nothing) & (truth[place] != values[0])] + low)
            if file is old:
                h1[place] = values[-1]
            if file is new:
                errors.append(_wrong(place, truth[place], h1[place], values[-1], nothing, low))
        if int(np.count_nonzero(seen)) != file.rows:
            refuse_twins(connection.execute, file)
        everywhere &= seen
    refuse_unmatched(files, np.flatnonzero((h1 != nothing) & ~everywhere) + low)
    refuse_contradictions(np.concatenate([*differs, np.empty(0, np.int64)]))
    return {name: np.concatenate([part[name] for part in errors]) for name in ("id", "target", "h1", "h2")}


def _wrong(
    place: NDArray[np.int64], truth: NDArray[Any], h1: NDArray[Any], h2: NDArray[Any], nothing: int, low: int
) -> dict[str, NDArray[Any]]:
    wrong = ((h1 != truth) | (h2 != truth)) & (truth != nothing) & (h1 != nothing)
    return {"id": place[wrong] + low, "target": truth[wrong], "h1": h1[wrong], "h2": h2[wrong]}


def _batches(connection: Any, file: LargeFile, low: int, columns: Sequence[str]) -> Iterator[list[NDArray[Any]]]:
    selected = ", ".join([f"{file.ids}::bigint - ({low})", *columns])
    relation = connection.sql(f"select {selected} from {file.source}")
    # DuckDB 2 renamed it.
    reader = relation.to_arrow_reader if hasattr(relation, "to_arrow_reader") else relation.fetch_arrow_reader
    for batch in reader(_BATCH):
        yield [column.to_numpy(zero_copy_only=False) for column in batch.columns]
