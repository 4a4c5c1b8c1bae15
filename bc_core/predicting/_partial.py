"""A file of predictions that is written batch by batch, and taken up where it stopped.

Beside OUT are, until it is whole, OUT.partial (the rows so far) and OUT.partial.json (what they are of, and how far
they are sure to be on the disk: what is beyond is cut off when it is taken up).
"""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bc_core.files._files import write_whole

FORMATS = (".csv", ".jsonl", ".parquet")
_FORMAT, _VERSION = "backward-compat-predictions", 1
_SECONDS = 1.0
_CHUNK = 10_000
_TOLD = {"model": "another model", "data": "other data", "asked": "other options"}


class Partial:
    """Rows so far.

    Args:
        out: The file that is to be.
        of: What the rows are of: texts by name, of which every one must be the same when they are taken up.
        anew: Whether to begin anew, whatever is there.

    Raises:
        ValueError: The name ends otherwise, the file is there, or what was begun is of something else.
        OSError: It cannot be read or written.
    """

    def __init__(self, out: Path, of: Mapping[str, Any], anew: bool) -> None:
        self._out, self._of = out, dict(of)
        self._rows_path = out.with_name(f"{out.name}.partial")
        self._state_path = out.with_name(f"{out.name}.partial.json")
        self.rows, self._bytes, self._saved = 0, 0, 0.0
        self.columns: list[str] = []
        self.kinds: dict[str, str] = {}
        self.first: dict[str, list[Any]] = {}
        if anew:
            self._forget()
        self._take_up()
        self._rows_path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self._rows_path, "r+b" if self.rows else "wb")  # noqa: SIM115 - closed by close
        self._file.truncate(self._bytes)
        self._file.seek(self._bytes)

    def _take_up(self) -> None:
        try:
            state = json.loads(self._state_path.read_bytes())
            if state["format"] != _FORMAT or state["version"] != _VERSION:
                raise ValueError
            before, rows, size = state["of"], int(state["rows"]), int(state["bytes"])
            columns, kinds, first = list(state["columns"]), dict(state["kinds"]), dict(state["first"])
            on_disk = self._rows_path.stat().st_size
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{self._state_path}: damaged; begin anew with --overwrite") from None
        for key, value in self._of.items():
            if before.get(key) != value:
                told = _TOLD[key]
                if key == "asked":
                    differing = [name for name in value if value[name] != before.get(key, {}).get(name)]
                    told += f" ({', '.join(differing)})"
                raise ValueError(
                    f"{self._out}: {rows} rows of it were written with {told}; give the same as then, or begin anew "
                    "with --overwrite"
                )
        if on_disk < size:
            raise ValueError(f"{self._rows_path}: cut off; begin anew with --overwrite")
        self.rows, self._bytes, self.columns, self.kinds, self.first = rows, size, columns, kinds, first

    def add(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Append rows.

        Raises:
            ValueError: They have other columns than those before, or values of another kind.
            OSError: They cannot be written.
        """
        kinds = {name: _kind(values) for name, values in columns.items()}
        if not self.columns:
            self.columns, self.kinds = list(columns), kinds
            if self._out.suffix == ".csv":
                self._file.write(_csv_lines([self.columns]))
        if list(columns) != self.columns:
            raise ValueError(f"{self._out}: columns {self.columns} so far, and now {list(columns)}")
        if self._out.suffix != ".csv":
            self._refuse_other_kinds(kinds)
        rows = zip(*columns.values(), strict=True)
        if self._out.suffix == ".csv":
            content = _csv_lines(rows)
        else:
            try:
                lines = [json.dumps(dict(zip(columns, row, strict=True)), allow_nan=False) for row in rows]
            except ValueError:
                raise ValueError(
                    f"{self._out}: NaN or infinity after row {self.rows}, which JSON does not know; write a .csv file"
                ) from None
            content = "".join(f"{line}\n" for line in lines).encode()
        self._file.write(content)
        self.rows += len(next(iter(columns.values())))
        if time.monotonic() - self._saved > _SECONDS:
            self.save()

    def _refuse_other_kinds(self, kinds: Mapping[str, str]) -> None:
        for name, kind in kinds.items():
            if {kind, self.kinds[name]} == {"int", "float"}:
                continue
            if kind != self.kinds[name]:
                raise ValueError(
                    f"{self._out}: column {name!r} is {self.kinds[name]} before row {self.rows}, and {kind} from there "
                    "on; write a .csv file, which says no types"
                )

    def save(self) -> None:
        """Have what was written so far be there whatever happens.

        Raises:
            OSError: It cannot be written.
        """
        self._file.flush()
        os.fsync(self._file.fileno())
        self._bytes = self._file.tell()
        state = {"rows": self.rows, "bytes": self._bytes, "columns": self.columns, "kinds": self.kinds}
        content = {"format": _FORMAT, "version": _VERSION, "of": self._of, **state, "first": self.first}
        write_whole(self._state_path, json.dumps(content).encode())
        self._saved = time.monotonic()

    def close(self) -> None:
        """Save what there is, where rows were written."""
        if self._file.closed:
            return
        try:
            if self.rows:
                self.save()
        finally:
            self._file.close()
            if not self.rows:
                self._forget()

    def finish(self) -> None:
        """Have the file be there, whole.

        Raises:
            OSError: It cannot be written.
        """
        self.save()
        self._file.close()
        if self._out.suffix == ".parquet":
            _to_parquet(self._rows_path, self._out)
        else:
            os.replace(self._rows_path, self._out)
        self._forget()

    def _forget(self) -> None:
        for path in (self._rows_path, self._state_path):
            with suppress(FileNotFoundError):
                path.unlink()


def _csv_lines(rows: Any) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _kind(values: Sequence[Any]) -> str:
    kinds = {type(value).__name__ for value in values}
    return "float" if kinds == {"int", "float"} else " and ".join(sorted(kinds))


def _to_parquet(lines: Path, out: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    aside = out.with_name(f".{out.name}.part")
    writer: Any = None
    try:
        with lines.open(encoding="utf-8") as file:
            while rows := [json.loads(line) for line, _ in zip(file, range(_CHUNK), strict=False)]:
                table = pa.Table.from_pylist(rows, schema=None if writer is None else writer.schema)
                if writer is None:
                    table = table.cast(_wide(pa, table.schema))
                    writer = parquet.ParquetWriter(aside, table.schema)
                writer.write_table(table)
        writer.close()
        os.replace(aside, out)
    finally:
        if writer is not None:
            writer.close()
        with suppress(FileNotFoundError):
            aside.unlink()


def _wide(pa: Any, schema: Any) -> Any:
    """The same columns, with scores as floats also where the first ones are all 0 or 1."""
    fields = []
    for field in schema:
        number = field.name == "pred" or field.name.startswith("score")
        if number and pa.types.is_list(field.type):
            field = field.with_type(pa.list_(pa.float64()))  # noqa: PLW2901
        fields.append(field)
    return pa.schema(fields)
