"""Parquet files larger than memory: counted by DuckDB, of which only the errors come back as rows.

One join leaves the instances that either model gets wrong, and those without a partner; whatever is right in both files
is the total less these, and totals need no join. So the memory is that of the engine's limit and of the errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core.comparison._comparison import Comparison
from bc_core.comparison._error_instances import ErrorInstances
from bc_core.counting._overlap import ErrorOverlap
from bc_core.counting._scores import count_cells
from bc_core.gate._judging import Subject
from bc_core.gate._large_files import LargeFile, connected, errors_by_join, errors_by_place, opened, refuse_missing
from bc_core.predictions._columns import ColumnNames
from bc_core.predictions._engine_files import literal, quoted
from bc_core.predictions._labels import refuse_spaces
from bc_core.predictions._tables import listed
from bc_core.slices._columns import CUTS, MOST_VALUES, SliceColumn, range_names

# Fewer rows are joined in memory, where class scores, weights and clusters are known too.
LEAST_ROWS = 1_000_000
_MOST_LABELS = 100_000
# Ranges of a longer column are cut by a sample of it.
_MOST_SORTED = 5_000_000


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
    with connected(old) as (duckdb, connection):
        try:
            files = [opened(connection, path, alias, said) for path, alias in zip(paths, ("o", "n", "d"), strict=False)]
            if max(file.rows for file in files) < (LEAST_ROWS if least_rows is None else least_rows):
                return None
            return _Query(connection, files, said, class_names, name).subject()
        except duckdb.Error as error:
            raise ValueError(f"{old}: {' '.join(str(error).split())}") from error


class _Query:
    def __init__(
        self,
        connection: Any,
        files: Sequence[LargeFile],
        said: ColumnNames,
        class_names: Sequence[str] | None,
        name: str,
    ) -> None:
        self._connection, self._run = connection, connection.execute
        self._files, self._said = files, said
        self._class_names, self._name = class_names, name
        self._old, self._new = files[0], files[1]
        self._with_target = [file for file in files if file.roles.target is not None]

    def subject(self) -> Subject | None:
        if not self._plain():
            return None
        for file in self._files:
            refuse_missing(self._run, file)
        labels = self._labels()
        if labels is None:
            return None
        names, num_classes, numbers = self._classes(labels)
        errors = self._errors(labels)
        target, h1, h2 = (numbers[errors[column]] for column in ("target", "h1", "h2"))
        counts = count_cells(h1 == target, h2 == target, target, num_classes)
        last = self._with_target[-1]
        totals = self._run(
            f"select {self._code(last.column(last.roles.target))}, count(*) from {last.source} group by 1"
        )
        wrong = counts.sum(axis=(1, 2))
        for code, number in totals.fetchall():
            counts[numbers[code], 1, 1] = number - wrong[numbers[code]]
        table = ErrorInstances(errors["id"], target, h1, h2)
        comparison = Comparison(ErrorOverlap(counts), table, names, self._name)
        slices = {name: self._slices(name, errors["id"], h1 == target, h2 == target) for name in self._said.slices}
        path, of_ids = self._old.path, self._old.roles.id
        return Subject(comparison, None, None, slices, lambda ids: _unknown(path, of_ids, ids))

    def _plain(self) -> bool:
        """Whether all columns are of types that mean here what they mean in memory."""
        ids = {file.kind(file.roles.id) for file in self._files}
        labels = {file.kind(file.roles.pred) for file in (self._old, self._new)}
        labels |= {file.kind(file.roles.target) for file in self._with_target}
        found = {name for file in self._files for name in file.roles.others}
        slices = {file.kind(name) for file in self._files for name in file.roles.others}
        return (
            len(ids) == 1
            and ids <= {"integer", "text"}
            and len(labels) == 1
            and labels <= {"integer", "text"}
            and bool(self._with_target)
            and set(self._said.slices) <= found
            and slices <= {"integer", "number", "text"}
        )

    def _labels(self) -> list[Any] | None:
        """All labels that occur, sorted; None where there are too many to be classes."""
        columns = [(self._old, self._old.roles.pred), (self._new, self._new.roles.pred)]
        columns += [(file, file.roles.target) for file in self._with_target]
        found: set[Any] = set()
        for file, name in columns:
            query = f"select distinct {file.column(name)} from {file.source} limit {_MOST_LABELS + 1}"
            found |= {label for (label,) in self._run(query).fetchall()}
        return None if len(found) > _MOST_LABELS else sorted(found)

    def _classes(self, labels: list[Any]) -> tuple[tuple[str, ...] | None, int, NDArray[np.int64]]:
        """Names of the classes, their number, and the class of each code."""
        names = None if self._class_names is None else tuple(self._class_names)
        if isinstance(labels[0], str):
            refuse_spaces(labels)
            names = tuple(labels) if names is None else names
            known = {label: number for number, label in enumerate(names)}
            if strange := [label for label in labels if label not in known]:
                raise ValueError(f"labels that are none of the classes {listed(names)}: {listed(strange)}")
            return names, len(names), np.asarray([known[label] for label in labels], np.int64)
        size = labels[-1] + 1 if names is None else len(names)
        if labels[0] < 0 or labels[-1] >= size:
            raise ValueError(f"class numbers must be 0 to {size - 1}, and labels are {labels[0]} to {labels[-1]}")
        return names, size, np.arange(size)

    def _code(self, column: str) -> str:
        """A label's code in a query: its place among all labels where they are text, else the class number itself."""
        return f"enum_code({column}::bc_label)" if self._old.kind(self._old.roles.pred) == "text" else column

    def _errors(self, labels: list[Any]) -> dict[str, NDArray[Any]]:
        """What either model gets wrong, by id."""
        codes = len(labels)
        if isinstance(labels[0], str):
            texts = ", ".join("'{}'".format(label.replace("'", "''")) for label in labels)
            self._run(f"create type bc_label as enum ({texts})")
        else:
            codes = labels[-1] + 1
        found = errors_by_place(self._connection, self._files, self._code, codes)
        if found is None:
            found = errors_by_join(self._run, self._files, self._code)
        order = np.argsort(found["id"], kind="stable")  # threads give another order each time
        return {name: values[order] for name, values in found.items()}

    def _totals(self, file: LargeFile, name: str | None) -> list[tuple[Any, int]]:
        query = f"select {file.column(name)}, count(*) from {file.source} group by 1"
        totals: list[tuple[Any, int]] = self._run(query).fetchall()
        return totals

    def _holder(self, name: str) -> LargeFile:
        """The last file that has a column, as where it is joined in memory."""
        return [file for file in self._files if name in file.roles.others][-1]

    def _slices(
        self, name: str, ids: NDArray[Any], h1_right: NDArray[np.bool_], h2_right: NDArray[np.bool_]
    ) -> SliceColumn:
        file = self._holder(name)
        column = self._of_errors(file, name, ids)
        if file.kind(name) != "text" and self._distinct(file, name) > MOST_VALUES:
            cuts = ", ".join(map(str, CUTS))
            sample = "" if file.rows <= _MOST_SORTED else f" using sample reservoir({_MOST_SORTED} rows) repeatable (0)"
            query = f"select quantile_cont({file.column(name)}::double, [{cuts}]) from {file.source}{sample}"
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
        return SliceColumn(name, values, counts, codes[h1_right & ~h2_right])

    def _of_errors(self, file: LargeFile, name: str, ids: NDArray[Any]) -> NDArray[Any]:
        """A column of some instances, in their order."""
        import pyarrow as pa

        if not len(ids):
            return np.empty(0, object)
        self._connection.register("bc_wrong", pa.table({"id": pa.array(ids), "place": np.arange(len(ids))}))
        query = f"select place, {file.column(name)} as value from bc_wrong w join {file.source} on w.id = {file.ids}"
        found = self._run(query).fetchnumpy()
        return np.asarray(found["value"])[np.argsort(found["place"])]

    def _distinct(self, file: LargeFile, name: str) -> int:
        query = f"select count(*) from (select distinct {file.column(name)} from {file.source} limit {MOST_VALUES + 1})"
        return int(self._run(query).fetchall()[0][0])


def _unknown(path: str, column: str | None, ids: Sequence[str]) -> list[str]:
    """Of some ids, those that a file does not have."""
    with connected(path) as (_, connection):
        connection.execute("create temp table wanted(id varchar)")
        connection.executemany("insert into wanted values (?)", [[each] for each in ids])
        name = quoted(column or "")
        query = (
            f"select id from wanted where id not in (select {name}::varchar from read_parquet(?) where {name}::varchar "
            "in (select id from wanted))"
        )
        missing = {each for (each,) in connection.execute(query, [literal(path)]).fetchall()}
    return [each for each in ids if each in missing]
