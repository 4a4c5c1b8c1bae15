"""Two models' predictions and the true labels, joined by the ids of their instances, whatever the order of rows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core._arrays import text_objects, twins
from bc_core._texts import listed, shown
from bc_core.predictions._aligned import AlignedFile, Joined, Sure, without_scores
from bc_core.predictions._columns import ColumnNames, keeping, roles_of
from bc_core.predictions._further_columns import further_columns
from bc_core.predictions._graded import graded, one_filter
from bc_core.predictions._labels import (
    Labels,
    class_numbers,
    labels_of,
    refuse_texts_where_numbers_are_true,
    target_of,
    top_k_labels,
)
from bc_core.predictions._multilabel import several_labels
from bc_core.predictions._reading import read_table
from bc_core.predictions._right import Right, first_names, of_lm_eval
from bc_core.predictions._tables import Progress

_FEW = 5


def join(
    old: str | os.PathLike[str],
    new: str | os.PathLike[str],
    said: ColumnNames | None = None,
    *,
    data: str | os.PathLike[str] | None = None,
    noise: Sequence[str | os.PathLike[str]] = (),
    class_names: Sequence[str] | None = None,
    allow_unmatched: bool = False,
    progress: Progress = lambda path, rows: None,
) -> Joined:
    r"""Read the predictions of two models and join them.

    Args:
        old: What h1 predicts.
        new: What h2 predicts.
        said: Which columns are what.
        data: A third file, of true labels, weights, clusters and metadata.
        noise: What further trainings of h1 predict, that differ from it by their seed.
        class_names: Name of each class, in the order of class numbers. Default: where labels are text, those that
            occur, sorted.
        allow_unmatched: Whether ids that are not in every file are left out instead of refused.
        progress: Told of the rows read so far.

    Raises:
        ValueError: A file is damaged, ids are missing, come twice or do not match, labels are of mixed types or outside
            the classes, or true labels are nowhere or contradict each other.
        ImportError: What reads a Parquet or Arrow file is not installed.
        OSError: A file cannot be read.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from bc_core.predictions._joining import join
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     old, new = Path(folder, "old.csv"), Path(folder, "new.csv")
        ...     _ = old.write_text("id,pred,target\na,cat,cat\nb,dog,dog\n")
        ...     _ = new.write_text("id,pred\nb,cat\na,cat\n")
        ...     found = join(old, new)
        >>> found.class_names, found.h1_pred.tolist(), found.h2_pred.tolist()
        (('cat', 'dog'), [0, 1], [0, 0])
    """
    said = said or ColumnNames()
    if (logged := of_lm_eval(os.fspath(old), first_names(os.fspath(old)), said.right)) is not None:
        said = replace(said, right=logged, id=said.id or "doc_id")
    right = said.right or Right()
    if right.filter is not None and not right.logs:
        raise ValueError(f"{os.fspath(old)}: no sample logs of lm-eval, of which --filter names a filter; take it out")
    files = [_opened(old, "old", said, progress), _opened(new, "new", said, progress)]
    files += [_opened(path, "noise", said, progress) for path in noise]
    if data is not None:
        files.append(_opened(data, "data", said, progress))
    files, ids, unmatched = _by_position(files) if said.by_position else _matched(files, allow_unmatched)

    if right.graded or right.multilabel:
        found = graded(files, ids, right) if right.graded else several_labels(files, ids, right, class_names)
        return replace(found, columns=further_columns(files, ids, said), unmatched=unmatched)
    predicting = [file for file in files if file.what != "data"]
    labels = [labels_of(file.table, file.roles, class_names, right, file.what == "new") for file in predicting]
    if right.binary and not any(each.thresholded for each in labels):
        raise without_scores(predicting)
    targets = [(file, target_of(file.table, file.roles.target)) for file in files if file.roles.target is not None]
    if not targets:
        where = f" {said.target!r}" if said.target else ""
        raise ValueError(
            f"no column{where} of true labels in {', '.join(file.table.path for file in files)}: name it by --target, "
            "or give the file that has it by --data"
        )
    every = [*labels, *(target for _, target in targets)]
    if class_names is None:
        refuse_texts_where_numbers_are_true(labels, [target for _, target in targets])
    numbers, names, num_classes = class_numbers(every, class_names)
    aligned = [values[file.rows] for values, file in zip(numbers, [*predicting, *(f for f, _ in targets)], strict=True)]
    truth = aligned[len(predicting) :]
    _refuse_contradictions([file for file, _ in targets], truth, ids, names)
    if right.top_k is not None:
        aligned[: len(predicting)] = [
            top_k_labels(each, truth[-1], aligned[place], file.rows, names, right.top_k)
            for place, (each, file) in enumerate(zip(labels, predicting, strict=True))
        ]
    scores = labels[1].scores if right.binary else None
    sure = [
        _sure(each, pred, truth[-1], num_classes, names, file.rows)
        for each, pred, file in zip(labels[:2], aligned[:2], files[:2], strict=True)
    ]
    return Joined(
        ids,
        truth[-1],
        aligned[0],
        aligned[1],
        num_classes,
        names,
        None if sure[1] is None else sure[1].answer,
        further_columns(files, ids, said),
        tuple(aligned[2 : len(predicting)]),
        unmatched,
        (sure[0], sure[1]),
        new_scores=None if scores is None else scores[files[1].rows, 1],
    )


def _opened(path: str | os.PathLike[str], what: str, said: ColumnNames, progress: Progress) -> AlignedFile:
    text, new, predicts = os.fspath(path), what == "new", what != "data"
    table = read_table(text, keeping(text, said, new, predicts), progress)
    roles = roles_of(text, list(table.columns), said, new, predicts)
    if "filter" in roles.others and "filter" not in said.slices:
        table = one_filter(table, None if said.right is None else said.right.filter)
    return AlignedFile(table, roles, what, np.arange(table.size))


def _by_position(files: Sequence[AlignedFile]) -> tuple[list[AlignedFile], NDArray[Any], dict[str, int]]:
    sizes = {file.table.path: file.table.size for file in files}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"rows are joined by their order, and the files have different numbers of them: {sizes}")
    named = [file for file in files if file.roles.unused_id is not None]
    texts = [file.table.texts(file.roles.unused_id or "") for file in named]
    for file, ids in zip(named[1:], texts[1:], strict=True):
        if (differs := ids != texts[0]).any():
            row = int(np.argmax(differs))
            raise ValueError(
                f"{named[0].table.path} and {file.table.path} have ids, and in {int(np.sum(differs))} rows other ones, "
                f"such as {shown(texts[0][row])} and {shown(ids[row])} in {file.table.line_of(row)}: join them by "
                "these, without --by-position, or leave the column out"
            )
    return list(files), np.arange(files[0].table.size), {}


def _matched(
    files: Sequence[AlignedFile], allow_unmatched: bool
) -> tuple[list[AlignedFile], NDArray[Any], dict[str, int]]:
    ids = _ids_of_one_kind(files)
    for file, column in zip(files, ids, strict=True):
        _refuse_twins(file, column)
    places = [_Places(column) for column in ids[1:]]
    rows = [np.arange(len(ids[0])), *(place.of(ids[0]) for place in places)]
    everywhere = np.all([each >= 0 for each in rows], axis=0)
    unmatched = {
        file.table.path: lost
        for file, column in zip(files, ids, strict=True)
        if (lost := len(column) - int(everywhere.sum()))
    }
    if unmatched and not allow_unmatched:
        _refuse_unmatched(files, ids, rows)
    if not everywhere.any():
        raise ValueError(f"no id is in all of {', '.join(file.table.path for file in files)}")
    chosen = [
        AlignedFile(file.table, file.roles, file.what, each[everywhere]) for file, each in zip(files, rows, strict=True)
    ]
    return chosen, ids[0][everywhere], unmatched


def _ids_of_one_kind(files: Sequence[AlignedFile]) -> list[NDArray[Any]]:
    found = []
    for file in files:
        assert file.roles.id is not None
        column = file.ids
        if column.dtype.kind == "f" and file.table.untyped:
            column = file.table.texts(file.roles.id)
        if column.dtype.kind not in "iO" or column.ndim != 1:
            raise ValueError(
                f"{file.table.path}: ids must be whole numbers or text, and {file.roles.id!r} holds {column.dtype}"
            )
        if column.dtype.kind == "O":
            for row, value in enumerate(column.tolist()):
                if not value.strip():
                    raise file.table.fault(file.roles.id, row, "is empty, and every row needs an id")
        found.append(column)
    if len({column.dtype.kind for column in found}) == 1:
        return found
    # A file without types has "7" and 7 alike; text among numbers makes them all text.
    for place, file in enumerate(files):
        if found[place].dtype.kind == "O":
            continue
        if not file.table.untyped:
            text = next(other for other, column in zip(files, found, strict=True) if column.dtype.kind == "O")
            raise ValueError(
                f"ids of mixed types: {file.table.path} has numbers, and {text.table.path} text such as "
                f"{shown(text.ids[0])}; write them alike"
            )
        assert file.roles.id is not None
        found[place] = file.table.texts(file.roles.id)
    return found


def _refuse_twins(file: AlignedFile, ids: NDArray[Any]) -> None:
    if ids.dtype.kind == "O":
        if len(set(ids.tolist())) == len(ids):
            return
    elif len(np.unique(ids)) == len(ids):
        return
    several = twins(ids.tolist())
    rows = np.flatnonzero(ids == several[0])[:2].tolist()
    where = " and ".join(file.table.line_of(row) for row in rows)
    raise ValueError(
        f"{file.table.path}: {len(several)} id{'s come' if len(several) > 1 else ' comes'} more than once: "
        f"{listed(several)}; the first at {where}. One row for each instance is wanted"
    )


class _Places:
    """Where each id of a file is."""

    def __init__(self, ids: NDArray[Any]) -> None:
        self._ids = ids
        self._known: dict[str, int] = {}
        if ids.dtype.kind == "O":
            self._known = {value: row for row, value in enumerate(ids.tolist())}
        else:
            self._order = np.argsort(ids, kind="stable")

    def of(self, ids: NDArray[Any]) -> NDArray[np.intp]:
        """Row of each id; -1 where it is not there."""
        if self._ids.dtype.kind == "O":
            known = self._known
            return np.fromiter((known.get(value, -1) for value in ids.tolist()), np.intp, len(ids))
        slots = np.minimum(np.searchsorted(self._ids, ids, sorter=self._order), len(self._ids) - 1)
        rows = self._order[slots]
        return np.where(self._ids[rows] == ids, rows, -1)


def _refuse_unmatched(
    files: Sequence[AlignedFile], ids: Sequence[NDArray[Any]], rows: Sequence[NDArray[np.intp]]
) -> None:
    told = []
    for file, column, each in zip(files[1:], ids[1:], rows[1:], strict=True):
        if (lost := each < 0).any():
            told.append(f"{int(lost.sum())} of {files[0].table.path} not in {file.table.path}: {_some(ids[0][lost])}")
        spare = np.ones(len(column), bool)
        spare[each[each >= 0]] = False
        if spare.any():
            told.append(f"{int(spare.sum())} of {file.table.path} not in {files[0].table.path}: {_some(column[spare])}")
    raise ValueError(
        f"ids that do not match, {'; '.join(told)}. Allow for it by --allow-unmatched, which leaves them out"
    )


def _some(ids: NDArray[Any]) -> str:
    texts = ", ".join(shown(value) for value in ids[:_FEW].tolist())
    return f"{texts}, ..." if len(ids) > _FEW else texts


def _refuse_contradictions(
    files: Sequence[AlignedFile], truth: Sequence[NDArray[np.int64]], ids: NDArray[Any], names: tuple[str, ...] | None
) -> None:
    for file, labels in zip(files[:-1], truth[:-1], strict=True):
        if (differs := labels != truth[-1]).any():
            first = int(differs.argmax())
            told = [int(labels[first]), int(truth[-1][first])]
            a, b = told if names is None else [names[label] for label in told]
            raise ValueError(
                f"true labels of {int(differs.sum())} instances differ between {file.table.path} and "
                f"{files[-1].table.path}, such as {shown(ids[first])}: {shown(a)} and {shown(b)}"
            )


def _sure(
    labels: Labels,
    pred: NDArray[np.int64],
    target: NDArray[np.int64],
    num_classes: int,
    names: tuple[str, ...] | None,
    rows: NDArray[np.intp],
) -> Sure | None:
    every = labels.probabilities()
    if every is None:
        return None
    probabilities = every[rows]
    places = np.arange(num_classes)
    if labels.score_names is not None and names is not None:
        known = {name: place for place, name in enumerate(labels.score_names)}
        places = np.asarray([known.get(name, -1) for name in names])
    places = np.where(places < probabilities.shape[1], places, -1)

    def of(classes: NDArray[np.int64]) -> NDArray[np.float64]:
        columns = places[classes]
        return np.where(columns >= 0, probabilities[np.arange(len(rows)), np.maximum(columns, 0)], np.nan)

    return Sure(of(pred), of(target), of(np.ones_like(pred)) if num_classes == 2 else None)


def id_texts(ids: NDArray[Any]) -> NDArray[Any]:
    """Ids as dtype object holding `str`, as files of ids have them."""
    return ids if ids.dtype.kind == "O" else text_objects([str(value) for value in ids.tolist()])
