"""What a comparison keeps of slices: counts over all instances, and the slice of each error instance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bc_core._arrays import EqualByFields
from bc_core.comparison._error_instances import ErrorInstances
from bc_core.counting._overlap import ErrorOverlap
from bc_core.counting._scores import count_cells
from bc_core.slices._columns import counted
from bc_core.slices._metadata import Columns
from bc_core.slices._search import FoundSlice, find_slices


@dataclass(frozen=True, eq=False)
class SliceCounts(EqualByFields):
    """All instances, counted by the slices of one column of metadata.

    Attributes:
        column: Name of the column.
        values: Value, or range, of each of the S slices, as text.
        counts: Shape (S, 2, 2), int64: instances by slice, h1 wrong or right, and h2 wrong or right.
        is_cut: Whether the slices are ranges of these numbers, which another shard would cut elsewhere.
    """

    column: str
    values: tuple[str, ...]
    counts: NDArray[np.int64]
    is_cut: bool = False


class Sliced(NamedTuple):
    """What columns of metadata come to.

    Attributes:
        counts: All instances by slice, of each column that makes slices.
        found: Slices in which more breaks.
    """

    counts: tuple[SliceCounts, ...] = ()
    found: tuple[FoundSlice, ...] = ()


def sliced_by(
    columns: Columns,
    target: NDArray[np.int64],
    h1_pred: NDArray[np.int64],
    h2_pred: NDArray[np.int64],
    classes: Sequence[str],
    search: bool = True,
) -> Sliced:
    """Count all instances by slice, and look for the slices in which more breaks.

    Args:
        columns: Of these instances.
        target: Shape (N,), true class numbers.
        h1_pred: Shape (N,), what h1 predicts.
        h2_pred: Shape (N,), what h2 predicts.
        classes: Name of each class; the classes are searched as a column is.
        search: Whether to look for slices: not where others have more of the instances.
    """
    right = h1_pred == target, h2_pred == target
    slices = [counted(each.name, each.values, each.codes, *right) for each in columns.sliced]
    counts = tuple(
        SliceCounts(each.column, each.values, each.counts, column.is_cut)
        for each, column in zip(slices, columns.sliced, strict=True)
    )
    if not slices or not search:
        return Sliced(counts)
    if all(each.column != "class" for each in slices) and all(each.name != "class" for each in columns.texts):
        # Where a column has that name, it is meant by it.
        slices.append(counted("class", tuple(classes), target.astype(np.intp), *right))
    return Sliced(counts, tuple(find_slices(slices, *right)))


def check_slices(slices: Sequence[SliceCounts], table: ErrorInstances, overlap: ErrorOverlap) -> None:
    """Refuse slices that contradict the table or the counts of all instances.

    Raises:
        ValueError: They do.
    """
    if [each.column for each in slices] != list(table.slices):
        raise ValueError(f"slices of {[each.column for each in slices]}, and of instances {list(table.slices)}")
    h1_right, h2_right = table.h1_pred == table.target, table.h2_pred == table.target
    totals = overlap.counts.sum(axis=0)
    for each in slices:
        codes, size = table.slices[each.column], len(each.values)
        if each.counts.shape != (size, 2, 2) or (each.counts < 0).any():
            raise ValueError(f"the slices of {each.column!r}: expected counts of shape {(size, 2, 2)}")
        if len(codes) and not (codes.min() >= 0 and codes.max() < size):
            raise ValueError(f"the slices of {each.column!r}: the error instances hold one outside 0..{size - 1}")
        counted = count_cells(h1_right, h2_right, codes, size)
        expected = each.counts.copy()
        expected[:, 1, 1] = 0
        if not np.array_equal(counted, expected) or not np.array_equal(each.counts.sum(axis=0), totals):
            raise ValueError(f"the slices of {each.column!r} do not add up to the counts of the overlap")


def merged_slices(
    parts: Sequence[tuple[Sequence[SliceCounts], ErrorInstances]],
) -> tuple[tuple[SliceCounts, ...], dict[str, NDArray[np.intp]]]:
    """Slices of two shards together, and those of their error instances.

    A column that one of them lacks, or whose ranges were cut at other numbers, is left out: nobody knows its counts.
    """
    (first, _), (second, _) = parts
    others = {each.column: each for each in second}
    kept, codes = [], {}
    for a in first:
        b = others.get(a.column)
        if b is None or ((a.is_cut or b.is_cut) and a.values != b.values):
            continue
        values = a.values if a.values == b.values else tuple(sorted({*a.values, *b.values}))
        place = {value: number for number, value in enumerate(values)}
        counts = np.zeros((len(values), 2, 2), np.int64)
        columns = []
        for each, (_, table) in zip((a, b), parts, strict=True):
            places = np.asarray([place[value] for value in each.values], np.intp)
            counts[places] += each.counts
            columns.append(places[table.slices[a.column]])
        kept.append(SliceCounts(a.column, values, counts, a.is_cut))
        codes[a.column] = np.concatenate(columns)
    return tuple(kept), codes


def slices_to_json(slices: Sequence[SliceCounts]) -> list[dict[str, Any]]:
    """Slices as a file holds them."""
    return [
        {
            "column": each.column,
            "values": list(each.values),
            "counts": each.counts.reshape(-1).tolist(),
            "is_cut": each.is_cut,
        }
        for each in slices
    ]


def slices_from_json(entries: Sequence[Mapping[str, Any]]) -> tuple[SliceCounts, ...]:
    """Slices again.

    Raises:
        ValueError: They are none.
    """
    found = []
    for entry in entries:
        values, counts = entry["values"], whole_numbers(entry["counts"], "slices: counts")
        if not all(isinstance(text, str) for text in (entry["column"], *values)):
            raise ValueError("slices: expected names of columns and values as text")
        if counts.shape != (4 * len(values),):
            raise ValueError(f"slices: expected four counts for each value of {entry['column']!r}")
        found.append(
            SliceCounts(entry["column"], tuple(values), counts.reshape(-1, 2, 2), entry.get("is_cut", False) is True)
        )
    return tuple(found)


def whole_numbers(values: Any, what: str) -> NDArray[np.int64]:
    """A list of whole numbers from a file.

    Raises:
        ValueError: It holds anything else.
    """
    if not isinstance(values, list) or not set(map(type, values)) <= {int}:
        raise ValueError(f"{what}: expected a list of whole numbers")
    return np.asarray(values, np.int64)
