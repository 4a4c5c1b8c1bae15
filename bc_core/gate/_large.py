"""Parquet files larger than memory: counted by DuckDB, of which only the errors come back as rows.

One join leaves the instances that either model gets wrong, and those without a partner; whatever is right in both files
is the total less these, and totals need no join. So the memory is that of the engine's limit and of the errors.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core._texts import listed, shown
from bc_core.comparison._comparison import Comparison
from bc_core.comparison._error_instances import ErrorInstances
from bc_core.comparison._sliced import SliceCounts
from bc_core.counting._overlap import ErrorOverlap
from bc_core.counting._scores import count_cells
from bc_core.gate._judging import Subject
from bc_core.gate._large_files import (
    Coded,
    LargeFile,
    Wanted,
    connected,
    errors_by_join,
    errors_by_place,
    labelled,
    opened,
    refuse_missing,
)
from bc_core.gate._origins import COLUMNAR, JSON, LEAST_BYTES, TEXT, NotPlainError, origin_of
from bc_core.predictions._columns import ColumnNames
from bc_core.predictions._engine_files import quoted, text
from bc_core.predictions._further_columns import FILES, contradiction, refuse_no_such_file
from bc_core.predictions._labels import refuse_look_alikes, refuse_numbers_among_names
from bc_core.predictions._right import first_names, of_lm_eval
from bc_core.predictions._tables import Progress
from bc_core.slices._columns import CUTS, MOST_VALUES, SliceColumn, range_names
from bc_core.slices._metadata import MOST_COLUMNS, MOST_TEXTS

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
    least_bytes: int = LEAST_BYTES,
    progress: Progress = lambda path, rows: None,
) -> Subject | None:
    """Compare two Parquet, Arrow, CSV or JSON Lines files in bounded memory.

    Args:
        old: What h1 predicts.
        new: What h2 predicts.
        data: True labels and metadata.
        said: Which columns are what.
        class_names: Name of each class, in order.
        name: What is compared, for titles.
        least_rows: For files of fewer rows, nothing is done.
        least_bytes: Nor for CSV or JSON Lines of fewer bytes.
        progress: Told how far it is.

    Returns:
        The subject, equal to what joining in memory gives; None where that has to be done: fewer rows, other formats or
        types, weights, clusters, or something that is wrong, which it names.

    Raises:
        ValueError: Ids come twice or do not match, a column is missing, or the disk is full.
        ImportError: DuckDB is not installed.
        OSError: A file cannot be read.
    """
    paths = [old, new] if data is None else [old, new, data]
    texts = [path for path in paths if path.lower().endswith(TEXT)]
    if not all(path.lower().endswith((*COLUMNAR, *TEXT, *JSON)) for path in paths) or said.by_position:
        return None
    written = [path for path in paths if path.lower().endswith((*TEXT, *JSON))]
    if any(not os.path.isfile(path) or os.path.getsize(path) < least_bytes for path in written):
        return None
    if said.weight is not None or said.cluster is not None or said.right is not None:
        return None
    if of_lm_eval(old, first_names(old), said.right) is not None:
        return None
    with connected(old, progress) as (duckdb, connection):
        try:
            least = LEAST_ROWS if least_rows is None else least_rows
            aliases = zip(paths, ("o", "n", "d"), strict=False)
            files = [opened(connection, path, alias, said, progress) for path, alias in aliases]
            if max(file.rows for file in files) < least:
                return None
            files = [labelled(connection, file, class_names) for file in files]
            if texts and class_names is not None and any(f.kind(f.roles.pred) == "integer" for f in files[:2]):
                return None  # whether numbers are meant as names is decided over all of them
            return _Query(connection, files, said, class_names, name).subject()
        except NotPlainError:
            return None
        except ValueError:
            if texts:  # which are read again: then the line is named
                return None
            raise
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
        refuse_no_such_file(self._said, FILES[: len(self._files)])
        for name in self._said.slices:
            self._refuse_contradictions(name)
        slices = {name: self._slices(name) for name in self._said.slices}
        wanted = self._wanted(labels, slices)
        found = errors_by_place(self._connection, wanted)
        if found is None:
            found = errors_by_join(self._run, wanted)
        order = np.argsort(found["id"], kind="stable")  # threads give another order each time
        errors = {name: values[order] for name, values in found.items()}
        target, h1, h2 = (numbers[errors[column]] for column in ("target", "h1", "h2"))
        h1_right, h2_right = h1 == target, h2 == target
        counts = count_cells(h1_right, h2_right, target, num_classes)
        last = wanted.targets[-1]
        wrong = counts.sum(axis=(1, 2))
        for code, number in self._totals(last):
            counts[numbers[code], 1, 1] = number - wrong[numbers[code]]
        codes = {name: each.places[errors[f"slice {name}"]] for name, each in slices.items()}
        columns = {name: each.of(codes[name], h1_right, h2_right) for name, each in slices.items()}
        # As `compare` has it: a column of more values tells single instances apart.
        kept = [name for name, each in slices.items() if len(each.values) <= MOST_TEXTS][:MOST_COLUMNS]
        table = ErrorInstances(errors["id"], target, h1, h2, slices={name: codes[name] for name in kept})
        shown = tuple(
            SliceCounts(name, columns[name].values, columns[name].counts, slices[name].is_cut) for name in kept
        )
        comparison = Comparison(ErrorOverlap(counts), table, names, self._name, slices=shown)
        path, of_ids = self._old.path, self._old.roles.id
        return Subject(comparison, None, None, columns, lambda ids: _unknown(path, of_ids, ids))

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
        texts = []
        for file, name in columns:
            if file.kind(name) == "integer":  # of which only the ends matter, and files know them
                ends = f"select min({file.column(name)}), max({file.column(name)}) from {file.source}"
                found |= set(self._run(ends).fetchall()[0])
                continue
            query = f"select distinct {file.column(name)} from {file.source} limit {_MOST_LABELS + 1}"
            texts.append((file.path, name or "", {label for (label,) in self._run(query).fetchall()}))
            found |= texts[-1][2]
        if self._class_names is None:
            refuse_numbers_among_names(texts)
        labels = sorted(found)
        many = len(labels) > _MOST_LABELS or (not isinstance(labels[0], str) and labels[-1] >= _MOST_LABELS)
        return None if many else labels

    def _classes(self, labels: list[Any]) -> tuple[tuple[str, ...] | None, int, NDArray[np.int64]]:
        """Names of the classes, their number, and the class of each code."""
        names = None if self._class_names is None else tuple(self._class_names)
        if isinstance(labels[0], str):
            refuse_look_alikes(labels, names is not None)
            names = tuple(labels) if names is None else names
            known = {label: number for number, label in enumerate(names)}
            if strange := [label for label in labels if label not in known]:
                raise ValueError(f"labels that are none of the classes {listed(names)}: {listed(strange)}")
            return names, len(names), np.asarray([known[label] for label in labels], np.int64)
        scored = max(file.classes for file in self._files)
        size = len(names) if names is not None else scored or labels[-1] + 1
        if labels[0] < 0 or labels[-1] >= size:
            raise ValueError(f"class numbers must be 0 to {size - 1}, and labels are {labels[0]} to {labels[-1]}")
        return names, size, np.arange(size)

    def _wanted(self, labels: list[Any], slices: Mapping[str, _Slices]) -> Wanted:
        size, named = len(labels), isinstance(labels[0], str)
        if named:
            self._enumerate("bc_label", labels)
        else:
            size = labels[-1] + 1

        def coded(file: LargeFile, name: str | None) -> Coded:
            column = file.column(name)
            return Coded(file, f"enum_code({column}::bc_label)" if named else column, size)

        return Wanted(
            self._files,
            coded(self._old, self._old.roles.pred),
            coded(self._new, self._new.roles.pred),
            [coded(file, file.roles.target) for file in self._with_target],
            {name: each.coded for name, each in slices.items()},
        )

    def _enumerate(self, name: str, texts: Sequence[str]) -> None:
        self._run(f"create type {name} as enum ({', '.join(map(text, texts))})")

    def _holders(self, name: str) -> list[LargeFile]:
        """The files that have a column, of which the last counts, as where they are joined in memory."""
        chosen = dict(zip(FILES, self._files, strict=False)).get(self._said.columns_from or "")
        if chosen is not None and name in chosen.roles.others:
            return [chosen]
        return [file for file in self._files if name in file.roles.others]

    def _refuse_contradictions(self, name: str) -> None:
        """Refuse a column that is in several files, with values that differ."""
        *others, last = self._holders(name)
        for other in others:
            kinds = {last.kind(name), other.kind(name)}
            kind = "varchar" if "text" in kinds else "double" if "number" in kinds else "bigint"
            values = [f"{file.column(name)}::{kind}" for file in (other, last)]
            sums = [
                self._run(f"select sum(hash({file.ids}, {value})::hugeint) from {file.source}").fetchall()[0][0]
                for file, value in zip((other, last), values, strict=True)
            ]
            if sums[0] == sums[1]:  # no join is needed to know that they agree
                continue
            found = self._run(
                f"select count(*) over (), {other.ids}, {', '.join(values)} from {other.source} join {last.source} "
                f"on {other.ids} = {last.ids} where {values[0]} is distinct from {values[1]} order by 2 limit 3"
            ).fetchall()
            if found:
                told = f"{shown(found[0][2])} and {shown(found[0][3])}"
                raise contradiction(name, found[0][0], [row[1] for row in found], (other.path, last.path), told)

    def _slices(self, name: str) -> _Slices:
        file = self._holders(name)[-1]
        column, kind = file.column(name), file.kind(name)
        if kind != "text" and self._distinct(file, name) > MOST_VALUES:
            cuts = ", ".join(map(str, CUTS))
            sample = "" if file.rows <= _MOST_SORTED else f" using sample reservoir({_MOST_SORTED} rows) repeatable (0)"
            query = f"select quantile_cont({column}::double, [{cuts}]) from {file.source}{sample}"
            edges = np.unique(self._run(query).fetchall()[0][0])
            coded = Coded(file, " + ".join(f"({column} >= {edge!r})::int" for edge in edges.tolist()), len(edges) + 1)
            return _Slices(name, coded, range_names(edges), dict(self._totals(coded)), np.arange(len(edges) + 1), True)
        sizes = dict(sorted(self._run(f"select {column}, count(*) from {file.source} group by 1").fetchall()))
        values, codes = list(sizes), np.arange(len(sizes))
        if kind == "text":
            enum = f"bc_slice_{self._said.slices.index(name)}"
            self._enumerate(enum, values)
            coded = Coded(file, f"enum_code({column}::{enum})", len(values))
        elif kind == "integer" and values[-1] - values[0] < _MOST_LABELS:
            coded = Coded(file, f"{column}::bigint - ({values[0]})", values[-1] - values[0] + 1)
            codes = np.zeros(coded.size, np.intp)
            codes[np.asarray(values, np.int64) - values[0]] = np.arange(len(values))
        else:
            cases = " ".join(f"when {value!r} then {number}" for number, value in enumerate(values))
            coded = Coded(file, f"case {column} {cases} end", len(values))
        return _Slices(name, coded, tuple(map(str, values)), dict(enumerate(sizes.values())), codes)

    def _totals(self, column: Coded) -> list[tuple[int, int]]:
        query = f"select {column.query}, count(*) from {column.file.source} group by 1"
        totals: list[tuple[int, int]] = self._run(query).fetchall()
        return totals

    def _distinct(self, file: LargeFile, name: str) -> int:
        query = f"select count(*) from (select distinct {file.column(name)} from {file.source} limit {MOST_VALUES + 1})"
        return int(self._run(query).fetchall()[0][0])


@dataclass(frozen=True)
class _Slices:
    """Slices of a column: their values, how many instances each has, and which of them a code means."""

    column: str
    coded: Coded
    values: tuple[str, ...]
    sizes: Mapping[int, int]
    places: NDArray[np.intp]
    is_cut: bool = False

    def of(self, codes: NDArray[Any], h1_right: NDArray[np.bool_], h2_right: NDArray[np.bool_]) -> SliceColumn:
        """The slices, from the errors in them: whatever is no error is right in both models."""
        counts = count_cells(h1_right, h2_right, codes, len(self.values))
        wrong = counts.sum(axis=(1, 2))
        counts[:, 1, 1] = [self.sizes.get(number, 0) - wrong[number] for number in range(len(self.values))]
        return SliceColumn(self.column, self.values, counts, codes[h1_right & ~h2_right])


def _unknown(path: str, column: str | None, ids: Sequence[str]) -> list[str]:
    """Of some ids, those that a file does not have."""
    with connected(path) as (_, connection):
        connection.execute("create temp table wanted(id varchar)")
        connection.executemany("insert into wanted values (?)", [[each] for each in ids])
        name = quoted(column or "")
        origin = origin_of(connection, path, "bc_ids", lambda names: [column or ""])
        missing = connection.execute(
            f"select id from wanted where id not in (select {name}::varchar from {origin} where {name}::varchar in "
            "(select id from wanted))"
        ).fetchall()
        unknown = {each for (each,) in missing}
    return [each for each in ids if each in unknown]
