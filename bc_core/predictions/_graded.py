"""Answers that are right by a rule, or by a column that says so: numbers, texts, evaluations of language models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core._texts import listed, shown
from bc_core._user_functions import imported
from bc_core.predictions._aligned import AlignedFile, Column, Joined, Told
from bc_core.predictions._right import Right
from bc_core.predictions._tables import Table, are_numbers

CLASSES = ("right", "wrong")


def graded(files: Sequence[AlignedFile], ids: NDArray[Any], right: Right) -> Joined:
    """Judge each model's answers.

    Args:
        files: The old model's, the new one's, those of other seeds, and one of data; aligned.
        ids: Shape (N,), the instances.
        right: A rule, or a column.

    Returns:
        Instances of one class, "right", of which wrong ones are taken for the class "wrong".

    Raises:
        ValueError: A column is not there, or does not say what it should.
    """
    _refuse_other_documents(files, ids)
    _refuse_contradictions(files, ids)
    predicting = [file for file in files if file.what != "data"]
    judged = [
        _said(file.column(right.correct)) if right.correct is not None else _by_rule(file, files, right)
        for file in predicting
    ]
    wrong = [(~each).astype(np.int64) for each in judged]
    told = None if right.correct is not None or not all(right.reads) else _told(predicting, files)
    zeros = np.zeros(len(ids), np.int64)
    return Joined(ids, zeros, wrong[0], wrong[1], 2, CLASSES, None, {}, tuple(wrong[2:]), told=told, plain=True)


def _said(column: Column) -> NDArray[np.bool_]:
    """A column of 0 and 1."""
    table, name = column.table, column.name
    values = table.column(name)
    if values.dtype.kind == "O":
        known = {"true": 1.0, "false": 0.0, "1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0}
        numbers = np.asarray([known.get(text.strip().lower(), np.nan) for text in values.tolist()])
    else:
        numbers = values.astype(np.float64)
    if numbers.ndim != 1:
        raise ValueError(f"{table.path}: column {name!r} must say right or wrong, 1 or 0, and holds lists")
    if (odd := ~np.isin(numbers, (0, 1))).any():
        row = int(odd.argmax())
        raise table.fault(
            name, row, f'is {shown(values[row])}, and says neither 1 nor 0; for a grade say --right "{name} >= 0.5"'
        )
    found: NDArray[np.bool_] = (numbers == 1)[column.rows]
    return found


def _by_rule(file: AlignedFile, files: Sequence[AlignedFile], right: Right) -> NDArray[np.bool_]:
    expression = right.expression
    names = ("pred", "target") if expression is None else expression.names
    values = {name: _values(_holder(name, file, files)) for name in names}
    if expression is not None:
        return expression(values)
    assert right.function is not None
    function = imported(right.function, "--right")
    try:
        found = np.asarray(function(values["pred"], values["target"]))
    except Exception as error:
        raise ValueError(f"--right {right.function}: fails ({type(error).__name__}: {error})") from error
    if found.dtype != np.bool_ or found.shape != values["pred"].shape:
        raise ValueError(
            f"--right {right.function}: expected True or False of each of {len(values['pred'])} instances, got "
            f"{found.dtype} of shape {found.shape}"
        )
    return found


def _holder(name: str, file: AlignedFile, files: Sequence[AlignedFile]) -> Column:
    """Where a name of a rule is found: in the model's own file, else in another one."""
    if name == "pred":
        assert file.roles.pred is not None
        return file.column(file.roles.pred)
    if name == "target":
        for each in reversed(files):
            if each.roles.target is not None:
                return each.column(each.roles.target)
        raise ValueError(
            f"no column of true values in {', '.join(each.table.path for each in files)}: name it by --target, or give "
            "the file that has it by --data"
        )
    for each in (file, *reversed(files)):
        if name in each.table.columns:
            return each.column(name)
    raise ValueError(
        f"--right reads {name!r}, which is in none of {', '.join(each.table.path for each in files)}; `pred` and "
        "`target` are the prediction and the true value, whatever their columns are called"
    )


def _values(column: Column) -> NDArray[Any]:
    """Numbers where all of a column are, else texts."""
    values = column.values
    if values.ndim != 1:
        raise ValueError(f"{column.table.path}: column {column.name!r} holds lists, and a rule reads single values")
    if values.dtype.kind == "O" and not (column.table.untyped and are_numbers(values.tolist())):
        return column.texts
    numbers = column.numbers
    for row in np.flatnonzero(np.abs(numbers) >= 2**53).tolist():
        # Rounded to a float, it would equal its neighbours.
        if str(values[row]).strip().lstrip("+-").isdecimal() and int(numbers[row]) != int(values[row]):
            raise column.table.fault(
                column.name,
                int(column.rows[row]),
                f"is {shown(values[row])}, and a rule tells whole numbers apart below 2**53; write them as text, in "
                "JSON Lines",
            )
    return numbers


def _told(predicting: Sequence[AlignedFile], files: Sequence[AlignedFile]) -> Told:
    columns = [_holder("target", predicting[0], files), *(_holder("pred", file, files) for file in predicting[:2])]

    def told(rows: NDArray[np.intp]) -> tuple[list[str], list[str], list[str]]:
        target, h1, h2 = (
            [str(value) for value in each.table.column(each.name)[each.rows[rows]].tolist()] for each in columns
        )
        return target, h1, h2

    return told


def one_filter(table: Table, wanted: str | None) -> Table:
    """Of lm-eval's samples, which come once for each filter of the answers, those of one.

    Raises:
        ValueError: There are several and none was named, or none of that name.
    """
    filters = table.texts("filter")
    found = sorted(set(filters.tolist()))
    if wanted is None and len(found) > 1:
        raise ValueError(f"{table.path}: samples of the filters {listed(found)}; say which by --filter NAME")
    if wanted is None:
        return table
    if wanted not in found:
        raise ValueError(f"{table.path}: no samples of the filter {wanted!r} (of --filter); there are {listed(found)}")
    return table.chosen(np.flatnonzero(filters == wanted))


def _refuse_contradictions(files: Sequence[AlignedFile], ids: NDArray[Any]) -> None:
    """Refuse true values of one instance that differ between files."""
    found = [file.column(file.roles.target) for file in files if file.roles.target is not None]
    for column in found[1:]:
        one, other = _values(found[0]), _values(column)
        differs = np.ones(len(ids), bool) if one.dtype != other.dtype else one != other
        if differs.any():
            first = int(differs.argmax())
            raise ValueError(
                f"true values of {int(differs.sum())} instances differ between {found[0].table.path} and "
                f"{column.table.path}, such as {shown(ids[first])}: {shown(one[first])} and {shown(other[first])}"
            )


def _refuse_other_documents(files: Sequence[AlignedFile], ids: NDArray[Any]) -> None:
    """Refuse samples whose ids match and whose documents do not: another version of the task, or another task."""
    hashed = [file for file in files if "doc_hash" in file.roles.others]
    for file in hashed[1:]:
        differs = file.column("doc_hash").texts != hashed[0].column("doc_hash").texts
        if differs.any():
            raise ValueError(
                f"{hashed[0].table.path} and {file.table.path}: other documents under {int(differs.sum())} ids, such "
                f"as {shown(ids[int(differs.argmax())])}: not the same task, or not the same version of it"
            )
