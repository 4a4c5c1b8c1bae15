"""Slices: instances that share a value of a column of metadata, or a range of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core.counting._scores import count_cells

# Numbers of more values than this are ranges; fewer are a slice each.
MOST_VALUES = 20
CUTS = (0.2, 0.4, 0.6, 0.8)


@dataclass(frozen=True)
class SliceColumn:
    """The slices of one column; every instance is in one.

    Attributes:
        column: Name of the column.
        values: Value, or range, of each of the S slices, as text.
        counts: Shape (S, 2, 2), instances by slice and by who is right, which add up over shards.
        flip_codes: Slice of each negative flip, in the order of the comparison's.
        codes: Shape (N,), slice of each instance; None where they were only counted.
    """

    column: str
    values: tuple[str, ...]
    counts: NDArray[np.int64]
    flip_codes: NDArray[np.intp]
    codes: NDArray[np.intp] | None = None

    @property
    def names(self) -> list[str]:
        """Name of each slice, such as "region=eu"."""
        return [slice_name(((self.column, value),)) for value in self.values]


def slice_name(conditions: Sequence[tuple[str, str]]) -> str:
    """What a slice is called.

    Example:
        >>> from bc_core.slices._columns import slice_name
        >>> slice_name([("region", "eu"), ("age", "below 30")])
        'region=eu, age=below 30'
    """
    return ", ".join(f"{column}={value}" for column, value in conditions)


def counted(
    column: str,
    values: tuple[str, ...],
    codes: NDArray[np.intp],
    h1_right: NDArray[np.bool_],
    h2_right: NDArray[np.bool_],
) -> SliceColumn:
    """Count instances by slice and by who is right.

    Args:
        column: Name of the column.
        values: Of each slice.
        codes: Shape (N,), slice of each instance.
        h1_right: Shape (N,), whether h1 is right on each instance.
        h2_right: Shape (N,), the same of h2.
    """
    counts = count_cells(h1_right, h2_right, codes, len(values))
    return SliceColumn(column, values, counts, codes[h1_right & ~h2_right], codes)


def coded_texts(texts: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.intp]]:
    """The distinct texts, sorted, and the number of each."""
    known = {text: number for number, text in enumerate(sorted(set(texts)))}
    return tuple(known), np.fromiter((known[text] for text in texts), np.intp, len(texts))


def coded_numbers(numbers: NDArray[Any]) -> tuple[tuple[str, ...], NDArray[np.intp]]:
    """Few numbers by value, many in ranges of about equal size: the names of these, and the number of each."""
    distinct = np.unique(numbers)
    if len(distinct) <= MOST_VALUES:
        return tuple(map(str, distinct.tolist())), np.searchsorted(distinct, numbers)
    edges = np.unique(np.quantile(numbers, CUTS))
    return range_names(edges), np.searchsorted(edges, numbers, side="right")


def range_names(edges: NDArray[np.float64]) -> tuple[str, ...]:
    """Names of the ranges below, between and from the edges on.

    Example:
        >>> import numpy as np
        >>> from bc_core.slices._columns import range_names
        >>> range_names(np.array([18, 65]))
        ('below 18', '18 to 65', '65 and above')
    """
    texts = [f"{edge:.6g}" for edge in edges]
    between = [f"{low} to {high}" for low, high in pairwise(texts)]
    return (f"below {texts[0]}", *between, f"{texts[-1]} and above")
