"""Instances of several labels, each 0 or 1: right where all of them are, and label by label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core._texts import listed, shown
from bc_core.predictions._aligned import AlignedFile, Joined, LabelRights, without_scores
from bc_core.predictions._labels import lists, threshold_as_scores
from bc_core.predictions._right import Right
from bc_core.predictions._tables import Table

# With more sets of labels than this, instances are shown as right or wrong.
_MOST_SETS = 200
_CLASSES = ("all labels right", "some label wrong")


def several_labels(
    files: Sequence[AlignedFile], ids: NDArray[Any], right: Right, class_names: Sequence[str] | None
) -> Joined:
    """Compare sets of labels.

    Args:
        files: The old model's, the new one's, those of other seeds, and one of data; aligned.
        ids: Shape (N,), the instances.
        right: Thresholds of scores.
        class_names: Name of each label, where they stand in lists.

    Returns:
        Instances whose classes are the sets of labels that occur, where these are not too many.

    Raises:
        ValueError: Labels are nowhere, are not 0 or 1, differ between files, or contradict each other.
    """
    predicting = [file for file in files if file.what != "data"]
    with_target = [file for file in files if file.roles.labels]
    if not with_target:
        raise ValueError(
            "no columns of true labels (such as target_cat and target_dog, or target with lists) in "
            f"{', '.join(file.table.path for file in files)}: say how they begin by --target, or give the file that "
            "has them by --data"
        )
    named = [
        (file, *_matrix(file.table, file.roles.labels, file.roles.label_prefix, class_names)) for file in with_target
    ]
    names = named[0][1]
    targets = [_ordered(file, own, _zero_one(file.table, own, values), names) for file, own, values in named]
    for (file, *_), target in zip(named[1:], targets[1:], strict=True):
        if (differs := (target != targets[0]).any(axis=1)).any():
            raise ValueError(
                f"true labels of {int(differs.sum())} instances differ between {named[0][0].table.path} and "
                f"{file.table.path}, such as {shown(ids[int(differs.argmax())])}"
            )
    target = targets[0]
    answers = []
    thresholded = right.threshold is not None or right.new_threshold is not None
    if thresholded and not any(file.roles.scored for file in predicting):
        raise without_scores(predicting)
    for file in predicting:
        own, values = _matrix(file.table, file.roles.scores, file.roles.prefix, class_names)
        if file.roles.scored:
            threshold = threshold_as_scores(file.table, file.roles.scores, right.threshold_of(file.what == "new"))
            values = (values >= threshold).astype(np.float64)
        answers.append(_ordered(file, own, _zero_one(file.table, own, values), names))
    labels = LabelRights(names, answers[0] == target, answers[1] == target)
    sets, codes = _sets([target, *answers])

    def told(rows: NDArray[np.intp]) -> tuple[list[str], list[str], list[str]]:
        of_target, h1, h2 = ([_named(row, names) for row in each[rows]] for each in (target, answers[0], answers[1]))
        return of_target, h1, h2

    if len(sets) <= _MOST_SETS:
        classes = tuple(_named(row, names) for row in sets)
        truth, h1, h2, *seeds = codes
        return Joined(ids, truth, h1, h2, len(classes), classes, None, {}, tuple(seeds), labels=labels)
    wrong = [(codes[0] != each).astype(np.int64) for each in codes[1:]]
    zeros = np.zeros(len(ids), np.int64)
    return Joined(
        ids, zeros, wrong[0], wrong[1], 2, _CLASSES, None, {}, tuple(wrong[2:]), told=told, labels=labels, plain=True
    )


def _matrix(
    table: Table, columns: Sequence[str], prefix: str, class_names: Sequence[str] | None
) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Names of the labels, and a column of numbers for each."""
    if prefix:
        return tuple(n.removeprefix(prefix) for n in columns), np.stack([table.numbers(n) for n in columns], axis=1)
    values = lists(table, columns[0])
    names = tuple(map(str, range(values.shape[1]))) if class_names is None else tuple(class_names)
    if len(names) != values.shape[1]:
        raise ValueError(
            f"{table.path}: column {columns[0]!r} has {values.shape[1]} labels a row, and {len(names)} have names"
        )
    return names, values


def _zero_one(table: Table, names: Sequence[str], values: NDArray[np.float64]) -> NDArray[np.bool_]:
    if (odd := ~np.isin(values, (0, 1))).any():
        row, column = np.unravel_index(int(odd.argmax()), odd.shape)
        raise table.fault(names[int(column)], int(row), f"is {values[row, column]:g}, and a label is 0 or 1")
    labels: NDArray[np.bool_] = values == 1
    return labels


def _ordered(
    file: AlignedFile, own: Sequence[str], values: NDArray[np.bool_], names: Sequence[str]
) -> NDArray[np.bool_]:
    if set(own) != set(names) or len(own) != len(names):
        raise ValueError(f"{file.table.path}: the labels {listed(own)}, and {listed(names)} elsewhere")
    found: NDArray[np.bool_] = values[:, [own.index(name) for name in names]][file.rows]
    return found


def _sets(matrices: Sequence[NDArray[np.bool_]]) -> tuple[NDArray[np.bool_], list[NDArray[np.int64]]]:
    """The sets that occur, and the number of that of each row."""
    packed = np.packbits(np.concatenate(matrices), axis=1)
    rows = np.ascontiguousarray(packed).view(np.dtype((np.void, packed.shape[1]))).ravel()
    _, first, codes = np.unique(rows, return_index=True, return_inverse=True)
    whole = np.concatenate(matrices)
    return whole[first], [each.astype(np.int64) for each in np.split(codes.ravel(), len(matrices))]


def _named(row: NDArray[np.bool_], names: Sequence[str]) -> str:
    return " + ".join(name for name, is_there in zip(names, row.tolist(), strict=True) if is_there) or "none"
