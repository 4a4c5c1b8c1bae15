"""Where an update breaks most: slices of one and two columns, found on one half of the instances, tried on another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice

import numpy as np
from numpy.typing import NDArray

from bc_core.counting._intervals import wilson_interval
from bc_core.counting._scores import count_cells
from bc_core.counting._several import holm
from bc_core.counting._weighted import chance_of_so_many
from bc_core.slices._columns import SliceColumn, slice_name

_LEAST = 30
_MOST_CELLS = 10_000
_MOST_PAIRS = 200
_CANDIDATES = 20
# Confidence of the bound by which candidates are ranked: many are looked at.
_CAREFUL = 0.99


@dataclass(frozen=True)
class FoundSlice:
    """A slice in which more breaks than elsewhere.

    Attributes:
        name: Such as "region=eu, age=below 30".
        negative_flips: Instances of it that broke, in the half that took no part in finding it.
        total: Instances of it in that half.
        low: Lower bound of its negative flip rate there.
        high: Upper bound.
        p_value: Chance of so many flips at the rate of that half, held for all candidates together (Holm).
        conditions: The one or two columns, each with its value.
    """

    name: str
    negative_flips: int
    total: int
    low: float
    high: float
    p_value: float
    conditions: tuple[tuple[str, str], ...] = ()

    @property
    def rate(self) -> float:
        """Negative flip rate in the half that took no part in finding it."""
        return self.negative_flips / self.total


@dataclass(frozen=True)
class _Cell:
    """A slice of the first half, and which instances it has."""

    conditions: tuple[tuple[str, str], ...]
    codes: NDArray[np.intp]
    code: int
    low: float
    rate: float


def find_slices(
    columns: Sequence[SliceColumn],
    h1_right: NDArray[np.bool_],
    h2_right: NDArray[np.bool_],
    confidence: float = 0.95,
    seed: int = 0,
) -> list[FoundSlice]:
    """Look for the slices in which an update breaks most.

    Every slice of one column and of any two is looked at in one half of the instances; the 20 worst are tried on the
    other half, so that how many were looked at is no matter. A slice of two columns counts only where it is worse than
    either of them. Bounded by 200 pairs of columns, and 10,000 slices a pair.

    Args:
        columns: The columns, whose `codes` say the slice of each instance.
        h1_right: Shape (N,), whether h1 is right.
        h2_right: Shape (N,), the same of h2.
        confidence: Of the bounds, and of what is found.
        seed: Of the halves.

    Returns:
        The slices that hold up, worst first.

    Example:
        >>> import numpy as np
        >>> from bc_core.slices._search import find_slices
        >>> from bc_core.slices._columns import SliceColumn
        >>> rng, right = np.random.default_rng(0), np.ones(4000, bool)
        >>> eu, old = rng.random((2, 4000)) < 0.5
        >>> broken = eu & old & (rng.random(4000) < 0.3)
        >>> def column(name, codes):
        ...     return SliceColumn(name, ("no", "yes"), np.zeros((2, 2, 2), int), np.zeros(0, int), codes.astype(int))
        >>> find_slices([column("eu", eu), column("old", old)], right, ~broken)[0].name
        'eu=yes, old=yes'
    """
    first = np.zeros(len(h1_right), bool)
    first[np.random.default_rng(seed).permutation(len(first))[: len(first) // 2]] = True
    cells = sorted(_cells(columns, h1_right[first], h2_right[first], first), key=lambda cell: -cell.low)[:_CANDIDATES]
    h1, h2 = h1_right[~first], h2_right[~first]
    broke = h1 & ~h2
    tried = []
    for cell in cells:
        inside = cell.codes[~first] == cell.code
        if total := int(inside.sum()):
            tried.append((cell.conditions, int((broke & inside).sum()), total))
    rate = float(broke.mean()) if len(broke) else 0.0
    p_values = holm([chance_of_so_many(flips, total, rate) for _, flips, total in tried]).tolist()
    found = [
        FoundSlice(
            slice_name(conditions), flips, total, *wilson_interval(flips, total, confidence), p_value, conditions
        )
        for (conditions, flips, total), p_value in zip(tried, p_values, strict=True)
        if p_value < 1 - confidence
    ]
    return sorted(found, key=lambda each: (-each.low, each.name))


def _cells(
    columns: Sequence[SliceColumn], h1: NDArray[np.bool_], h2: NDArray[np.bool_], first: NDArray[np.bool_]
) -> Iterator[_Cell]:
    rates = {}
    for column in columns:
        assert column.codes is not None
        singles = list(_of_codes([column], column.codes, h1, h2, first))
        rates[column.column] = {cell.code: cell.rate for cell in singles}
        yield from singles
    for a, b in islice(combinations(columns, 2), _MOST_PAIRS):
        width = len(b.values)
        if len(a.values) * width > _MOST_CELLS:
            continue
        assert a.codes is not None
        assert b.codes is not None
        for cell in _of_codes([a, b], a.codes * width + b.codes, h1, h2, first):
            parents = rates[a.column].get(cell.code // width, 0.0), rates[b.column].get(cell.code % width, 0.0)
            if cell.low > max(parents):
                yield cell


def _of_codes(
    columns: Sequence[SliceColumn],
    codes: NDArray[np.intp],
    h1: NDArray[np.bool_],
    h2: NDArray[np.bool_],
    first: NDArray[np.bool_],
) -> Iterator[_Cell]:
    shape = [len(column.values) for column in columns]
    counts = count_cells(h1, h2, codes[first], math.prod(shape))
    sizes, flips = counts.sum(axis=(1, 2)).tolist(), counts[:, 1, 0].tolist()
    for code, (size, flipped) in enumerate(zip(sizes, flips, strict=True)):
        if size >= _LEAST and flipped:
            low = wilson_interval(flipped, size, _CAREFUL, "lower")[0]
            places = np.unravel_index(code, shape)
            conditions = tuple((column.column, column.values[at]) for column, at in zip(columns, places, strict=True))
            yield _Cell(conditions, codes, code, low, flipped / size)
