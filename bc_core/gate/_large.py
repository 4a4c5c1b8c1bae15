"""Parquet files larger than memory: counted by DuckDB, of which only the errors come back as rows.

One join leaves the instances that either model gets wrong, and those without a partner; whatever is right in both files
is the total less these, and totals need no join. So the memory is that of the engine's limit and of the errors.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core._arrays import text_objects
from bc_core.comparison._comparison import Comparison
from bc_core.comparison._error_instances import ErrorInstances
from bc_core.counting._overlap import ErrorOverlap
from bc_core.counting._scores import count_cells
from bc_core.gate._judging import Subject
from bc_core.gate._slices import CUTS, MOST_VALUES, SliceColumn, range_names
from bc_core.predictions._columns import ColumnNames, Roles, roles_of
from bc_core.predictions._engine_files import engine, literal, quoted
from bc_core.predictions._tables import listed, shown

# Fewer rows are joined in memory, where class scores, weights and clusters are known too.
LEAST_ROWS = 1_000_000
MEMORY = "1GB"
_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")
_NUMBERS = (*_INTEGERS, "FLOAT", "DOUBLE")
_MOST_LABELS = 100_000
_BATCH = 1_000_000


@dataclass(frozen=True)
class _File:
    """A Parquet file; `alias` is its name in queries."""

    path: str
    alias: str
    types: Mapping[str, str]
    roles: Roles
    rows: int

    @property
    def source(self) -> str:
        return "read_parquet('{}') {}".format(literal(self.path).replace("'", "''"), self.alias)

    def column(self, name: str | None) -> str:
        assert name is not None
        return f"{self.alias}.{quoted(name)}"


def read_large(
    old: str,
    new: str,
    data: str | None,
    said: ColumnNames,
    class_names: Sequence[str] | None,
    name: str,
    least_rows: int | None = None,
) -> Subject | None:
    """Compare two Parquet files in bounded memory.

    Args:
        old: What h1 predicts.
        new: What h2 predicts.
        data: True labels and metadata.
        said: Which columns are what.
        class_names: Name of each class, in order.
        name: What is compared, for titles.
        least_rows: For files of fewer rows, nothing is done.

    Returns:
        The subject, equal to what joining in memory gives; None where that has to be done: fewer rows, other formats or
        types, class scores in place of labels, weights, clusters, or something that is wrong, which it names.

    Raises:
        ValueError: Ids come twice or do not match, a column is missing, or the disk is full.
        ImportError: DuckDB is not installed.
        OSError: A file cannot be read.
    """
    paths = [old, new] if data is None else [old, new, data]
    if not all(path.lower().endswith(".parquet") for path in paths) or said.by_position:
        return None
    if said.weight is not None or said.cluster is not None:
        return None
    with _connected(old) as (duckdb, connection):
        try:
            files = [
                _opened(connection, path, alias, said) for path, alias in zip(paths, ("o", "n", "d"), strict=False)
            ]
            if max(file.rows for file in files) < (LEAST_ROWS if least_rows is None else least_rows):
                return None
            return _Query(connection, files, said, class_names, name).subject()
        except duckdb.Error as error:
            raise ValueError(f"{old}: {' '.join(str(error).split())}") from error


@contextmanager
def _connected(path: str) -> Iterator[tuple[Any, Any]]:
    duckdb = engine(path)
    with tempfile.TemporaryDirectory(prefix="bc-compare-") as spilled, duckdb.connect() as connection:
        connection.execute(f"set memory_limit='{MEMORY}'")
        connection.execute(f"set temp_directory='{spilled}'")
        connection.execute("set preserve_insertion_order=false")
        yield duckdb, connection


def _opened(connection: Any, path: str, alias: str, said: ColumnNames) -> _File:
    with open(path, "rb"):
        pass  # an error of the system's own, where there is no such file
    relation = connection.read_parquet(literal(path))
    types = dict(zip(relation.columns, map(str, relation.types), strict=True))
    roles = roles_of(path, list(types), said, alias == "n", alias != "d")
    (rows,) = connection.execute("select count(*) from read_parquet(?)", [literal(path)]).fetchall()[0]
    return _File(path, alias, types, roles, rows)


class _Query:
    def __init__(
        self,
        connection: Any,
        files: Sequence[_File],
        said: ColumnNames,
        class_names: Sequence[str] | None,
        name: str,
    ) -> None:
        self._run, self._sql = connection.execute, connection.sql
        self._files, self._said = files, said
        self._class_names, self._name = class_names, name
        self._old, self._new = files[0], files[1]
        self._with_target = [file for file in files if file.roles.target is not None]

    def subject(self) -> Subject | None:
        if not self._plain():
            return None
        labels = self._labels()
        if labels is None:
            return None
        for file in self._files:
            self._refuse_missing(file)
            self._refuse_twins(file)
        errors = self._errors()
        names, num_classes, code = self._classes(labels)
        target, h1, h2 = (code(errors[column]) for column in ("target", "h1", "h2"))
        totals = self._totals(self._with_target[-1], self._with_target[-1].roles.target)
        by_class = np.zeros((num_classes, 2, 2), np.int64)
        counted = count_cells(h1 == target, h2 == target, target, num_classes)
        by_class[:, 1, 1] = 0
        for label, number in totals:
            by_class[int(code(_column([label]))[0]), 1, 1] += number
        by_class[:, 1, 1] -= counted.sum(axis=(1, 2))
        by_class += counted
        table = ErrorInstances(errors["id"], target, h1, h2)
        comparison = Comparison(ErrorOverlap(by_class), table, names, self._name)
        flipped = h1 == target
        slices = {
            column: self._slices(column, errors, h1 == target, h2 == target, flipped) for column in self._said.slices
        }
        path, of_ids = self._old.path, self._old.roles.id
        return Subject(comparison, None, None, slices, lambda ids: _unknown(path, of_ids, ids))

    def _plain(self) -> bool:
        """Whether all columns are of types that mean here what they mean in memory."""
        ids = {self._kind(file, file.roles.id) for file in self._files}
        labels = {self._kind(file, file.roles.pred) for file in (self._old, self._new)}
        labels |= {self._kind(file, file.roles.target) for file in self._with_target}
        found = {name for file in self._files for name in file.roles.others}
        slices = {self._kind(file, name) for file in self._files for name in file.roles.others}
        return (
            len(ids) == 1
            and ids <= {"integer", "text"}
            and len(labels) == 1
            and labels <= {"integer", "text"}
            and bool(self._with_target)
            and set(self._said.slices) <= found
            and slices <= {"integer", "number", "text"}
        )

    def _kind(self, file: _File, name: str | None) -> str:
        declared = file.types.get(name or "", "")
        if declared == "VARCHAR":
            return "text"
        return "integer" if declared in _INTEGERS else "number" if declared in _NUMBERS else declared

    def _labels(self) -> list[Any] | None:
        """All labels that occur; None where there are too many to be classes."""
        columns = [(self._old, self._old.roles.pred), (self._new, self._new.roles.pred)]
        columns += [(file, file.roles.target) for file in self._with_target]
        found: set[Any] = set()
        for file, name in columns:
            query = f"select distinct {file.column(name)} from {file.source} limit {_MOST_LABELS + 1}"
            found |= {label for (label,) in self._run(query).fetchall()}
        found.discard(None)
        if len(found) > _MOST_LABELS or not found:
            return None
        return sorted(found)

    def _classes(self, labels: list[Any]) -> tuple[tuple[str, ...] | None, int, Any]:
        """Names of the classes, their number, and a function from labels to class numbers."""
        names = None if self._class_names is None else tuple(self._class_names)
        if isinstance(labels[0], str):
            names = tuple(labels) if names is None else names
            known = {label: number for number, label in enumerate(names)}
            if strange := [label for label in labels if label not in known]:
                raise ValueError(f"labels that are none of the classes {listed(names)}: {listed(strange)}")
            return names, len(names), lambda column: np.asarray([known[label] for label in column.tolist()], np.int64)
        size = labels[-1] + 1 if names is None else len(names)
        if labels[0] < 0 or labels[-1] >= size:
            raise ValueError(f"class numbers must be 0 to {size - 1}, and labels are {labels[0]} to {labels[-1]}")
        return names, size, lambda column: column.astype(np.int64)

    def _refuse_missing(self, file: _File) -> None:
        wanted = (file.roles.id, file.roles.pred, file.roles.target, *file.roles.others)
        for name in (name for name in wanted if name is not None):
            nothing = f" or trim({quoted(name)}) = ''" if self._kind(file, name) == "text" else ""
            if self._kind(file, name) == "number":
                nothing = f" or not isfinite({quoted(name)})"
            query = f"select count(*) from {file.source} where {quoted(name)} is null{nothing}"
            (missing,) = self._run(query).fetchall()[0]
            if missing:
                raise ValueError(f"{file.path}: column {name!r} is missing, empty or not finite in {missing} rows")

    def _refuse_twins(self, file: _File) -> None:
        ids = quoted(file.roles.id or "")
        if not self._dense(file):
            query = f"select {ids} from {file.source} group by 1 having count(*) > 1 limit 6"
            if twins := [value for (value,) in self._run(query).fetchall()]:
                raise ValueError(f"{file.path}: ids come more than once, such as {listed(twins)}")

    def _dense(self, file: _File) -> bool:
        """Whether whole numbers as ids are seen to be unique by a mark each, which costs less than grouping them."""
        if self._kind(file, file.roles.id) != "integer":
            return False
        low, high = self._run(
            f"select min({quoted(file.roles.id or '')}), max({quoted(file.roles.id or '')}) from {file.source}"
        ).fetchall()[0]
        if high - low >= 4 * file.rows:
            return False
        seen = np.zeros(high - low + 1, bool)
        result = self._sql(f"select {quoted(file.roles.id or '')} - ({low}) as place from {file.source}")
        # DuckDB 2 renamed it.
        batches = result.to_arrow_reader if hasattr(result, "to_arrow_reader") else result.fetch_arrow_reader
        for batch in batches(_BATCH):
            seen[batch.column(0).to_numpy(zero_copy_only=False)] = True
        return int(np.count_nonzero(seen)) == file.rows

    def _errors(self) -> dict[str, NDArray[Any]]:
        """What either model gets wrong; ids without a partner are refused on the way."""
        old, new, last = self._old, self._new, self._with_target[-1]
        truth, h1, h2 = last.column(last.roles.target), old.column(old.roles.pred), new.column(new.roles.pred)
        wanted = {"id": old.column(old.roles.id), "target": truth, "h1": h1, "h2": h2}
        for name in self._said.slices:
            wanted[f"slice {name}"] = self._holder(name).column(name)
        joins = "".join(
            f" left join {file.source} on {file.column(file.roles.id)} = {old.column(old.roles.id)}"
            for file in self._files[1:]
        )
        alone = " or ".join(f"{file.column(file.roles.id)} is null" for file in self._files[1:])
        differ = "".join(f" or {file.column(file.roles.target)} <> {truth}" for file in self._with_target[:-1])
        columns = ", ".join(f"{column} as {quoted(name)}" for name, column in wanted.items())
        query = (
            f"select {columns}, ({alone}) as alone, ({'false' + differ}) as differs from {old.source}{joins} "
            f"where {alone} or {h1} <> {truth} or {h2} <> {truth}{differ}"
        )
        found = self._run(query).fetchnumpy()
        self._refuse_unmatched(found["id"], np.asarray(found.pop("alone"), bool))
        if (differs := np.asarray(found.pop("differs"), bool)).any():
            raise ValueError(
                f"true labels of {int(differs.sum())} instances differ between the files, such as that of "
                f"{shown(found['id'][differs][0])}"
            )
        order = np.argsort(found["id"], kind="stable")  # threads give another order each time
        return {name: np.asarray(values)[order] for name, values in found.items()}

    def _refuse_unmatched(self, ids: NDArray[Any], alone: NDArray[np.bool_]) -> None:
        if alone.any() or len({file.rows for file in self._files}) > 1:
            counts = ", ".join(f"{file.path} has {file.rows} rows" for file in self._files)
            some = f", such as {listed(ids[alone].tolist())}" if alone.any() else ""
            raise ValueError(
                f"ids that do not match: {counts}; {int(alone.sum())} of the first are not in all of them{some}. Files "
                "of this size are joined only whole"
            )

    def _totals(self, file: _File, name: str | None) -> list[tuple[Any, int]]:
        query = f"select {file.column(name)}, count(*) from {file.source} group by 1"
        totals: list[tuple[Any, int]] = self._run(query).fetchall()
        return totals

    def _holder(self, name: str) -> _File:
        """The last file that has a column, as where it is joined in memory."""
        return [file for file in self._files if name in file.roles.others][-1]

    def _slices(
        self,
        name: str,
        errors: Mapping[str, NDArray[Any]],
        h1_right: NDArray[np.bool_],
        h2_right: NDArray[np.bool_],
        flipped: NDArray[np.bool_],
    ) -> SliceColumn:
        file, column = self._holder(name), errors[f"slice {name}"]
        if self._kind(file, name) != "text" and self._distinct(file, name) > MOST_VALUES:
            cuts = ", ".join(map(str, CUTS))
            query = f"select quantile_cont({file.column(name)}::double, [{cuts}]) from {file.source}"
            edges = np.unique(self._run(query).fetchall()[0][0])
            code = " + ".join(f"({file.column(name)} >= {edge!r})::int" for edge in edges.tolist())
            found = self._run(f"select {code} as code, count(*) from {file.source} group by 1").fetchall()
            values, codes = range_names(edges), np.searchsorted(edges, column, side="right")
            sizes = dict(found)
        else:
            totals = dict(self._totals(file, name))
            known = {value: number for number, value in enumerate(sorted(totals))}
            values = tuple(map(str, known))
            codes = np.fromiter((known[value] for value in column.tolist()), np.intp, len(column))
            sizes = {known[value]: number for value, number in totals.items()}
        counts = count_cells(h1_right, h2_right, codes, len(values))
        wrong = counts.sum(axis=(1, 2))
        counts[:, 1, 1] = [sizes.get(number, 0) - wrong[number] for number in range(len(values))]
        return SliceColumn(name, values, counts, codes[flipped])

    def _distinct(self, file: _File, name: str) -> int:
        query = f"select count(*) from (select distinct {file.column(name)} from {file.source} limit {MOST_VALUES + 1})"
        return int(self._run(query).fetchall()[0][0])


def _column(values: list[Any]) -> NDArray[Any]:
    return text_objects(values) if values and isinstance(values[0], str) else np.asarray(values)


def _unknown(path: str, column: str | None, ids: Sequence[str]) -> list[str]:
    """Of some ids, those that a file does not have."""
    with _connected(path) as (_, connection):
        connection.execute("create temp table wanted(id varchar)")
        connection.executemany("insert into wanted values (?)", [[each] for each in ids])
        name = quoted(column or "")
        query = (
            f"select id from wanted where id not in (select {name}::varchar from read_parquet(?) where {name}::varchar "
            "in (select id from wanted))"
        )
        missing = {each for (each,) in connection.execute(query, [literal(path)]).fetchall()}
    return [each for each in ids if each in missing]
