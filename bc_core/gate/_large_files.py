"""Parquet files as DuckDB sees them: what they hold, queries of them, and what is refused of any of them."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core._texts import listed, shown
from bc_core.gate._origins import TEXT, NotPlainError, origin_of, typed
from bc_core.predictions._columns import ColumnNames, Roles, keeping, roles_of
from bc_core.predictions._engine_files import damaged, engine, quoted, text
from bc_core.predictions._tables import Progress
from bc_core.slices._columns import MOST_VALUES

MEMORY = "1GB"
_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")
_NUMBERS = (*_INTEGERS, "FLOAT", "DOUBLE")
# Small enough for their memory to be used again and again.
_BATCH = 122_880
# Whole numbers with more gaps than this are joined as any other ids.
_MOST_GAPS = 4
_LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class LargeFile:
    """A file; `alias` is its name in queries, and `origin` what they read.

    Attributes:
        path: The file, for messages.
        alias: Its name in queries.
        origin: What they read.
        types: Type of each column.
        roles: What its columns are for; where it has class scores, the label is a column that queries make of them.
        rows: How many it has.
        classes: How many scores a row has; 0 without.
    """

    path: str
    alias: str
    origin: str
    types: Mapping[str, str]
    roles: Roles
    rows: int
    classes: int = 0

    @property
    def source(self) -> str:
        """The file in a query."""
        return f"{self.origin} {self.alias}"

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
def connected(path: str, progress: Progress | None = None) -> Iterator[tuple[Any, Any]]:
    """DuckDB, and a connection to it that holds no more than `MEMORY` and spills to a folder of its own.

    Args:
        path: What is read, for messages.
        progress: Told how far a query is, while it runs.

    Raises:
        ImportError: It is not installed.
    """
    duckdb = engine(path)
    with tempfile.TemporaryDirectory(prefix="bc-compare-") as spilled, duckdb.connect() as connection:
        connection.execute(f"set memory_limit='{MEMORY}'")
        connection.execute(f"set temp_directory='{spilled}'")
        connection.execute("set preserve_insertion_order=false")
        if progress is None:
            yield duckdb, connection
            return
        connection.execute("set enable_progress_bar=true")
        connection.execute("set enable_progress_bar_print=false")
        done = threading.Event()
        watch = threading.Thread(target=_watched, args=(connection, path, progress, done), daemon=True)
        watch.start()
        try:
            yield duckdb, connection
        finally:
            done.set()
            watch.join()


def _watched(connection: Any, path: str, progress: Progress, done: threading.Event) -> None:
    while not done.wait(_LOOK_SECONDS):
        with suppress(Exception):  # that it cannot be told is no reason to stop
            share = connection.query_progress()
            if 0 < share < 100:
                progress(f"{path}, a query of DuckDB", f"{share:.0f} %")


def opened(connection: Any, path: str, alias: str, said: ColumnNames, progress: Progress) -> LargeFile:
    """What a file holds; `alias` is "o", "n" or "d", of the old model, the new one, or data.

    Args:
        connection: To DuckDB.
        path: The file, Parquet, Arrow, CSV or JSON Lines.
        alias: Its name in queries.
        said: Which columns are what.
        progress: Told of the rows copied so far.

    Raises:
        NotPlainError: Reading it in memory does it, or says what is wrong.
        ValueError: It is damaged, or lacks a column.
        OSError: It cannot be read.
    """
    with open(path, "rb"):
        pass  # an error of the system's own, where there is no such file
    try:
        origin = origin_of(connection, path, f"bc_{alias}", keeping(path, said, alias == "n", alias != "d"), progress)
        if path.lower().endswith(TEXT):
            names = list(connection.sql(f"select * from {origin}").columns)
            origin = typed(connection, origin, roles_of(path, names, said, alias == "n", alias != "d"), MOST_VALUES)
        (rows,) = connection.execute(f"select count(*) from {origin}").fetchall()[0]
        relation = connection.sql(f"select * from {origin}")
    except engine(path).Error as error:
        raise damaged(path, error) from error
    types = dict(zip(relation.columns, map(str, relation.types), strict=True))
    roles = roles_of(path, list(types), said, alias == "n", alias != "d")
    return LargeFile(path, alias, origin, types, roles, rows)


def labelled(connection: Any, file: LargeFile, class_names: Sequence[str] | None) -> LargeFile:
    """The file; of one that has class scores alone, the class of the highest, of equal ones the first, is a column too.

    Raises:
        NotPlainError: A score is missing or not finite, or there are as many as no classes.
    """
    if file.roles.pred is not None or not file.roles.scores:
        return file
    roles = file.roles
    if roles.prefix:
        columns, named = roles.classes
        scores, size = f"[{', '.join(f'{quoted(column)}::double' for column in columns)}]", len(columns)
    else:
        scores, named = quoted(roles.scores[0]), None if class_names is None else tuple(class_names)
        size = connection.execute(f"select len({scores}) from {file.origin} limit 1").fetchall()[0][0]
    bad = f"{scores} is null or len({scores}) <> {size} or list_count({scores}) <> {size}"
    query = f"select count(*) from {file.origin} where {bad} or not isfinite(list_sum({scores})::double)"
    if not size or size < 2 or (class_names is not None and len(class_names) != size):
        raise NotPlainError
    if connection.execute(query).fetchall()[0][0]:
        raise NotPlainError  # memory names the row
    best = f"list_position({scores}, list_max({scores}))"
    if named is None:
        label, kind = f"{best} - 1", "INTEGER"
    else:
        label, kind = f"([{', '.join(map(text, named))}])[{best}]", "VARCHAR"
    made = "bc label of scores"
    origin = f"(select *, {label} as {quoted(made)} from {file.origin})"
    return replace(file, origin=origin, types={**file.types, made: kind}, roles=replace(roles, pred=made), classes=size)


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


@dataclass(frozen=True)
class Coded:
    """A column as whole numbers from 0 to `size` - 1, by an expression of SQL.

    Attributes:
        file: Where it is.
        code: The expression.
        size: How many codes there are.
    """

    file: LargeFile
    code: str
    size: int

    @property
    def kind(self) -> type[np.unsignedinteger[Any]]:
        """The smallest type that holds all codes, and one more for nothing."""
        return np.uint8 if self.size < 2**8 else np.uint16 if self.size < 2**16 else np.uint32

    @property
    def query(self) -> str:
        """The expression, of that type."""
        return f"({self.code})::{ {1: 'utinyint', 2: 'usmallint', 4: 'uinteger'}[np.dtype(self.kind).itemsize] }"


@dataclass(frozen=True)
class Wanted:
    """What is asked of joined files.

    Attributes:
        files: Old, new, and data where there are.
        h1: What the old model predicts.
        h2: What the new one does.
        targets: True labels; those of the last file count.
        slices: Slices that errors are in, by column.
    """

    files: Sequence[LargeFile]
    h1: Coded
    h2: Coded
    targets: Sequence[Coded]
    slices: Mapping[str, Coded]


def errors_by_join(run: Callable[[str], Any], wanted: Wanted) -> dict[str, NDArray[Any]]:
    """Ids, codes of `target`, `h1` and `h2`, and slices of what either model gets wrong, by a join of the engine.

    Raises:
        ValueError: Ids come twice or do not match, or true labels contradict each other.
    """
    files = wanted.files
    for file in files:
        refuse_twins(run, file)
    old, truth = files[0], wanted.targets[-1].query
    joins = "".join(f" left join {file.source} on {file.ids} = {old.ids}" for file in files[1:])
    alone = " or ".join(f"{file.ids} is null" for file in files[1:])
    differ = "".join(f" or {target.query} <> {truth}" for target in wanted.targets[:-1])
    slices = "".join(f", {column.query} as {quoted(f'slice {name}')}" for name, column in wanted.slices.items())
    found = run(
        f"select {old.ids} as id, {truth} as target, {wanted.h1.query} as h1, {wanted.h2.query} as h2, "
        f"({alone}) as alone, ({'false' + differ}) as differs{slices} from {old.source}{joins} "
        f"where {alone} or {wanted.h1.query} <> {truth} or {wanted.h2.query} <> {truth}{differ}"
    ).fetchnumpy()
    refuse_unmatched(files, found["id"][np.asarray(found.pop("alone"), bool)])
    refuse_contradictions(found["id"][np.asarray(found.pop("differs"), bool)])
    return {name: np.asarray(values) for name, values in found.items()}


def errors_by_place(connection: Any, wanted: Wanted) -> dict[str, NDArray[Any]] | None:
    """The same where ids are whole numbers with few gaps: each has its place in an array, and nothing is hashed.

    Returns:
        None where ids are of another kind.

    Raises:
        ValueError: As `errors_by_join`.
    """
    files = wanted.files
    if any(file.kind(file.roles.id) != "integer" or not file.rows for file in files):
        return None
    ends = [connection.execute(f"select min({f.ids}), max({f.ids}) from {f.source}").fetchall()[0] for f in files]
    low, span = min(end[0] for end in ends), max(end[1] for end in ends) - min(end[0] for end in ends) + 1
    if span > _MOST_GAPS * max(file.rows for file in files):
        return None
    return _Places(connection, wanted, low, span).errors()


class _Places:
    """Arrays of which each instance has its place; the new file is judged row by row as it comes."""

    def __init__(self, connection: Any, wanted: Wanted, low: int, span: int) -> None:
        self._connection, self._wanted, self._low, self._span = connection, wanted, low, span
        self._new = wanted.files[1]
        # What is known of instances before the new file is read; what that file says itself needs no array.
        self._known = {
            f"slice {name}": self._nothing(column)
            for name, column in wanted.slices.items()
            if column.file is not self._new
        }
        self._known["target"], self._known["h1"] = self._nothing(wanted.targets[-1]), self._nothing(wanted.h1)
        self._everywhere = np.ones(span, bool)
        self._differs: list[NDArray[Any]] = []
        self._errors: list[dict[str, NDArray[Any]]] = []

    def _nothing(self, column: Coded) -> NDArray[Any]:
        return np.full(self._span, column.size, column.kind)

    def errors(self) -> dict[str, NDArray[Any]]:
        files, last = self._wanted.files, self._wanted.targets[-1].file
        # What is true is known first, as all else is held against it.
        for file in (last, *(file for file in files if file not in (last, self._new)), self._new):
            seen = np.zeros(self._span, bool)
            columns = self._columns(file)
            for place, *values in self._batches(file, list(columns.values())):
                seen[place] = True
                self._take(file, place, dict(zip(columns, values, strict=True)))
            if int(np.count_nonzero(seen)) != file.rows:
                refuse_twins(self._connection.execute, file)
            self._everywhere &= seen
        h1_known = self._known["h1"] != self._wanted.h1.size
        refuse_unmatched(files, np.flatnonzero(h1_known & ~self._everywhere) + self._low)
        refuse_contradictions(np.concatenate([*self._differs, np.empty(0, np.int64)]))
        return {name: np.concatenate([part[name] for part in self._errors]) for name in self._errors[0]}

    def _columns(self, file: LargeFile) -> dict[str, Coded]:
        wanted = self._wanted
        named = {f"slice {name}": column for name, column in wanted.slices.items()}
        named.update([("target", target) for target in wanted.targets if target.file is file])
        named.update({"h1": wanted.h1} if file is not self._new else {"h2": wanted.h2})
        return {name: column for name, column in named.items() if column.file is file}

    def _take(self, file: LargeFile, place: NDArray[np.int64], values: dict[str, NDArray[Any]]) -> None:
        truth = values.pop("target", None)
        known = self._known["target"]
        if truth is not None and file is self._wanted.targets[-1].file:
            known[place] = truth
        elif truth is not None:
            differs = (known[place] != self._wanted.targets[-1].size) & (known[place] != truth)
            self._differs.append(place[differs] + self._low)
        if file is self._new:
            self._judge(place, values)
            return
        for name, column in values.items():
            self._known[name][place] = column

    def _judge(self, place: NDArray[np.int64], values: dict[str, NDArray[Any]]) -> None:
        truth, h1, h2 = self._known["target"][place], self._known["h1"][place], values["h2"]
        wrong = (h1 != truth) | (h2 != truth)
        wrong &= (truth != self._wanted.targets[-1].size) & (h1 != self._wanted.h1.size)
        rows = np.flatnonzero(wrong)
        where = place[rows]
        error = {name: column[where] for name, column in self._known.items()}
        error.update({name: column[rows] for name, column in values.items()})
        self._errors.append({"id": where + self._low, **error})

    def _batches(self, file: LargeFile, columns: Sequence[Coded]) -> Iterator[list[NDArray[Any]]]:
        selected = ", ".join([f"{file.ids}::bigint - ({self._low})", *(column.query for column in columns)])
        relation = self._connection.sql(f"select {selected} from {file.source}")
        # DuckDB 2 renamed it.
        reader = relation.to_arrow_reader if hasattr(relation, "to_arrow_reader") else relation.fetch_arrow_reader
        kinds: list[type[np.integer[Any]]] = [np.int64, *(column.kind for column in columns)]
        for batch in reader(_BATCH):
            yield [_plain(column, kind) for column, kind in zip(batch.columns, kinds, strict=True)]


def _plain(column: Any, kind: type[np.integer[Any]]) -> NDArray[Any]:
    """A column of Arrow without a copy; its own `to_numpy` would import pandas, which takes a third of a second."""
    if column.null_count:
        raise ValueError("a value is missing that was there before: is the file being written?")
    size = np.dtype(kind).itemsize
    return np.frombuffer(column.buffers()[1], kind, len(column), column.offset * size)
