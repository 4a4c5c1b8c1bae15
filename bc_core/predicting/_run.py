"""`predict`: a model, asked about every row of a file, batch by batch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bc_core._texts import listed
from bc_core.files._files import locked
from bc_core.predicting._adapter import BatchError, ModelSettings, Predictor, open_model
from bc_core.predicting._answers import answer_columns, checked_answer, same_answer
from bc_core.predicting._data import Asked, DataColumns, found_columns
from bc_core.predicting._folders import data_chunks, data_columns, folder_of, refuse_images
from bc_core.predicting._partial import FORMATS, Partial
from bc_core.predictions._tables import Table

BATCH = 256
_FIRST = 16


@dataclass(frozen=True)
class Predicted:
    """What was written.

    Attributes:
        path: The file.
        rows: Rows in it.
        before: Rows of it that an earlier run had written.
    """

    path: Path
    rows: int
    before: int


def predict(
    model: str | os.PathLike[str],
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    features: Sequence[str] = (),
    text: str | None = None,
    inputs: Mapping[str, Sequence[str]] | None = None,
    keep: Sequence[str] = (),
    id: str | None = None,
    target: str | None = None,
    by_position: bool = False,
    classes: Sequence[str] | None = None,
    adapter: str | None = None,
    batch_size: int = BATCH,
    overwrite: bool = False,
    settings: ModelSettings | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> Predicted:
    r"""Write what a model predicts of a file of data, for `bc-compare` to read.

    The file appears when it is whole. A run that is interrupted is taken up by the next one of the same call; a model,
    data or options that have changed meanwhile are refused.

    Args:
        model: A file (`.onnx`, `.pt`, `.pt2`, `.keras`, `.skops`, ...), a folder (SavedModel, Hugging Face), the
            address of an endpoint, or `module:function`.
        data: `.csv`, `.tsv`, `.jsonl`, `.ndjson` (or these with `.gz`), `.npz`, `.parquet`, `.arrow` or `.feather`; or
            a folder of texts, or of images, whose paths a function is given. Folders in it are classes.
        out: Ends in `.csv`, `.jsonl` or `.parquet`.
        features: Columns of one array that the model is given; patterns such as ``"x*"`` too.
        text: Column of texts that it is given instead.
        inputs: Columns of each of its inputs, by name, where it has several.
        keep: Columns to write beside the predictions.
        id: Column of the ids. Default: id, instance_id, example_id or sample_id.
        target: Column of the true labels. Default: target, label, y_true, ...; there may be none.
        by_position: Whether rows are numbered instead of named by an id.
        classes: Name of the class of each score. Default: those that the model says.
        adapter: What opens the model, where its name does not say it: a name of the entry points
            ``bc_core.adapters``, or `module:function`.
        batch_size: Rows that the model is given at once.
        overwrite: Whether a file that is there is replaced, and one that was begun is begun anew.
        settings: What else was said of the model.
        progress: Told of the rows that are done, after each batch.

    Returns:
        What was written.

    Raises:
        ValueError: Model, data or options are not as they should be, or not those with which the file was begun.
        ImportError: What opens the model or reads the data is not installed.
        OSError: A file cannot be read or written.
        RuntimeError: Another process writes that file.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from bc_core import predict
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data, out = Path(folder, "data.csv"), Path(folder, "new.csv")
        ...     _ = data.write_text("id,x,target\na,-1.5,0\nb,2,1\n")
        ...     _ = predict("numpy:sign", data, out, features=["x"])
        ...     print(out.read_text())
        id,target,pred
        a,0,-1.0
        b,1,1.0
    """
    settings = settings or ModelSettings()
    model, data, path = os.fspath(model), os.fspath(data), Path(out)
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: expected a name that ends in {', '.join(FORMATS)}")
    if batch_size < 1:
        raise ValueError(f"expected batches of at least one row, got {batch_size}")
    if path.exists() and not overwrite:
        raise ValueError(f"{path}: it is there already; give another name, or say --overwrite")
    if path.suffix == ".parquet":
        _need_pyarrow(path)
    named = {name: tuple(wanted) for name, wanted in (inputs or {}).items()}
    asked = Asked(tuple(features), text, named, tuple(keep), id, target, by_position)
    if (folder := folder_of(data)) is not None:
        refuse_images(model, folder, adapter)
        if not (features or named):
            asked = replace(asked, text=text or folder.given)
    columns = found_columns(data, data_columns(data), asked)
    _refuse_clashes(data, columns)
    predictor = open_model(model, replace(settings, features=columns.features), adapter)
    names = tuple(classes) if classes is not None else None
    of = {
        "model": _fingerprint(model, predictor),
        "data": fingerprint_of_files(data),
        "asked": {**columns.to_dict(), **_asked(settings, adapter, names)},
    }
    lock = path.with_name(f"{path.name}.partial.lock")
    with locked(lock, str(path)):
        partial = Partial(path, of, overwrite)
        try:
            before = partial.rows
            _Run(model, data, predictor, columns, names, settings.labels, path.suffix != ".csv").all(
                partial, batch_size, progress
            )
            partial.finish()
        finally:
            partial.close()
            with suppress(OSError):
                lock.unlink()
    return Predicted(path, partial.rows, before)


@dataclass(frozen=True)
class _Run:
    model: str
    data: str
    predictor: Predictor
    columns: DataColumns
    classes: tuple[str, ...] | None
    labels: bool
    lists: bool

    def all(self, partial: Partial, size: int, progress: Callable[[int], None]) -> None:
        def keep(names: Sequence[str]) -> Sequence[str]:
            return self.columns.names

        if partial.rows:
            for table in data_chunks(self.data, keep, len(next(iter(partial.first.values())))):
                now = self._answered(table)
                if list(now) != list(partial.first) or not all(
                    same_answer(partial.first[name], values) for name, values in now.items()
                ):
                    raise ValueError(
                        f"{self.model}: it answers otherwise than when {partial.rows} rows were written with it; begin "
                        "anew with --overwrite"
                    )
                break
            progress(partial.rows)
        for table in data_chunks(self.data, keep, size, partial.rows):
            answered = self._answered(table)
            if partial.first and (earlier := _width(partial.first)) != (width := _width(answered)):
                raise ValueError(
                    f"{self.model}: it answers {width} on {table.path}, {table.line_of(0)}, and {earlier} on the rows "
                    "before; every row needs scores of the same classes"
                )
            if not partial.rows:
                kept = min(size, _FIRST)
                partial.first = {name: values[:kept] for name, values in answered.items()}
            partial.add({**self._passed_on(table, partial.rows), **answered})
            progress(partial.rows)
        if not partial.rows:
            raise ValueError(f"{self.data}: no row")

    def _answered(self, table: Table) -> dict[str, list[Any]]:
        batch = self.columns.batch(table)
        try:
            output = self.predictor(batch)
        except BatchError as error:
            raise ValueError(f"{error}; {self.columns.given(batch)}") from error
        answer = checked_answer(output, table, self.model)
        classes = self.classes
        known = getattr(self.predictor, "classes", None)
        told = None if known is None or answer.ndim != 2 else tuple(map(str, known))
        if told is not None and (classes is None or set(classes) == set(told)):
            classes = told  # the model knows in which order its scores are
        elif told is not None and getattr(self.predictor, "any_order", False):
            raise ValueError(f"{self.model}: it names its classes {listed(told)}, in any order; take out --classes")
        # Numbers from 0 on are what scores without names are.
        if self.classes is None and told is not None and told == tuple(map(str, range(len(told)))):
            classes = None
        return answer_columns(answer, classes, self.labels, self.lists, self.model)

    def _passed_on(self, table: Table, begin: int) -> dict[str, list[Any]]:
        columns = self.columns
        ids = list(range(begin, begin + table.size)) if columns.id is None else self._values(table, columns.id, True)
        passed = {"id": ids}
        if columns.target is not None:
            passed["target"] = self._values(table, columns.target)
        return {**passed, **{name: self._values(table, name) for name in columns.keep}}

    def _values(self, table: Table, name: str, of_ids: bool = False) -> list[Any]:
        """As they were read: of a file without types the exact text, where the other one has none either."""
        column = table.column(name)
        if table.untyped and column.ndim == 1 and (not self.lists or (of_ids and column.dtype.kind == "f")):
            column = table.texts(name)
        values: list[Any] = column.tolist()
        return values


def _width(answered: Mapping[str, Sequence[Any]]) -> str:
    """How many scores an instance has in columns of answers."""
    scores = answered.get("scores")
    if "pred" in answered:
        return "one label or number"
    return f"{len(answered) if scores is None else len(scores[0])} scores"


def _asked(settings: ModelSettings, adapter: str | None, classes: tuple[str, ...] | None) -> dict[str, Any]:
    """What was said of the model, as far as its answers hang on it."""
    said = {"output": settings.output, "labels": settings.labels, "options": dict(settings.options)}
    return {"adapter": adapter, "classes": None if classes is None else list(classes), **said}


def _need_pyarrow(path: Path) -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"{path}: written by pyarrow, which is missing: pip install 'backward-compat-ml[files]', or write .csv"
        ) from error


def _refuse_clashes(path: str, columns: DataColumns) -> None:
    taken = [name for name in columns.keep if name in ("id", "target", "pred", "scores") or name.startswith("score_")]
    if taken:
        raise ValueError(f"{path}: --keep {', '.join(taken)}: a column of predictions has that name; rename it first")


def _fingerprint(model: str, predictor: Predictor) -> str:
    told = getattr(predictor, "fingerprint", None)
    return fingerprint_of_files(model) if told is None else str(told() if callable(told) else told)


def fingerprint_of_files(path: str) -> str:
    """A name of a file's content, or of all files of a folder; of an ONNX file also of its weights beside it.

    Raises:
        OSError: It cannot be read.
    """
    whole, root = hashlib.sha256(), Path(path)
    files = [root]
    if root.is_dir():
        files = sorted(file for file in root.rglob("*") if file.is_file())
    elif root.suffix == ".onnx":
        files += sorted(file for file in root.parent.glob(f"{root.name}*") if file != root and file.is_file())
    for file in files:
        whole.update(str(file.relative_to(root)).encode() if root.is_dir() else b"")
        with file.open("rb") as content:
            digest = hashlib.sha256()
            while chunk := content.read(1 << 20):
                digest.update(chunk)
        whole.update(digest.digest())
    return f"sha256:{whole.hexdigest()}"
