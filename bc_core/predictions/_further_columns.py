"""Weights, clusters and slices of joined instances: from one file, or from several that agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core._texts import listed, shown
from bc_core.predictions._aligned import AlignedFile, Column
from bc_core.predictions._columns import ColumnNames

FILES = ("old", "new", "data")


def further_columns(files: Sequence[AlignedFile], ids: NDArray[Any], said: ColumnNames) -> dict[str, Column]:
    """The columns that were named besides predictions and true labels.

    Args:
        files: Those that were joined.
        ids: Shape (N,), the instances.
        said: Which columns, and which file counts where several have one.

    Raises:
        ValueError: A column is nowhere, or in two files of which neither was said to count, with values that differ.
    """
    kept = [file for file in files if file.what != "noise"]
    refuse_no_such_file(said, [file.what for file in kept])
    found = {}
    for name, option in said.further.items():
        holders = [file for file in kept if name in file.roles.others]
        if not holders:
            raise ValueError(f"no column {name!r} (of {option}) in {', '.join(file.table.path for file in files)}")
        chosen = [file for file in holders if file.what == said.columns_from]
        column = (chosen or holders)[-1].column(name)
        for file in () if chosen else holders[:-1]:
            other = file.column(name)
            if (differs := _differ(other, column)).any():
                place = int(differs.argmax())
                told = f"{shown(other.values[place])} and {shown(column.values[place])}"
                raise contradiction(
                    name, int(differs.sum()), ids[differs].tolist(), (file.table.path, column.table.path), told
                )
        found[name] = column
    return found


def contradiction(name: str, count: int, ids: Sequence[Any], paths: tuple[str, str], told: str) -> ValueError:
    """That two files say otherwise what an instance weighs, or where it belongs.

    Args:
        name: The column.
        count: Of how many instances.
        ids: Some of these.
        paths: The files.
        told: What each says of the first one.
    """
    return ValueError(
        f"column {name!r} of {count} instances differs between {paths[0]} and {paths[1]}, such as of "
        f"{', '.join(map(shown, ids[:3]))} (of the first {told}): say which file counts by --columns-from, "
        f"{', '.join(FILES[:-1])} or {FILES[-1]}"
    )


def refuse_no_such_file(said: ColumnNames, files: Sequence[str]) -> None:
    """Refuse columns of a file that there is not.

    Raises:
        ValueError: So it is.
    """
    if said.columns_from is not None and said.columns_from not in files:
        raise ValueError(
            f"columns from {said.columns_from!r}: expected one of the files that were given: {listed(files)}"
        )
    if said.columns_from is not None and not said.further:
        raise ValueError("--columns-from is of --slice, --weight and --cluster: name one, or take it out")


def _differ(one: Column, other: Column) -> NDArray[np.bool_]:
    a, b = one.values, other.values
    if a.dtype.kind == "O" or b.dtype.kind == "O":
        if a.ndim != b.ndim:
            return np.ones(len(a), bool)
        return np.asarray(one.texts != other.texts, bool)
    if a.shape != b.shape:
        return np.ones(len(a), bool)
    # What is missing in both is refused later, and by its line.
    differs = (a != b) & ~(np.isnan(a) & np.isnan(b))
    return np.asarray(differs.reshape(len(a), -1).any(axis=1), bool)
