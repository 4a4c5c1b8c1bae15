"""Slices: instances that share a value of a column of metadata, or a range of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core.predictions._joining import Column

# Numbers of more values than this are ranges; fewer are a slice each.
_MOST_VALUES = 20
_BINS = 5


@dataclass(frozen=True)
class SliceColumn:
    """The slices of one column; every instance is in one.

    Attributes:
        column: Name of the column.
        values: Value, or range, of each slice, as text.
        codes: Shape (N,): slice of each instance.
    """

    column: str
    values: tuple[str, ...]
    codes: NDArray[np.intp]

    @property
    def names(self) -> list[str]:
        """Name of each slice, such as "region=eu"."""
        return [f"{self.column}={value}" for value in self.values]

    def counts(self, h1_right: NDArray[np.bool_], h2_right: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Instances by slice and by who is right: shape (S, 2, 2), which add up over shards."""
        cell = self.codes * 4 + h1_right * 2 + h2_right
        return np.bincount(cell, minlength=4 * len(self.values)).reshape(-1, 2, 2).astype(np.int64)


def slices_of(column: Column) -> SliceColumn:
    """Slice instances by a column: text and few numbers by value, many numbers into ranges of about equal size.

    Raises:
        ValueError: A number is NaN or infinite.
    """
    values = column.values
    if values.ndim == 2:
        raise ValueError(f"{column.table.path}: column {column.name!r} holds lists, which are no slices")
    if values.dtype.kind == "f" or (values.dtype.kind == "i" and len(np.unique(values)) > _MOST_VALUES):
        return _ranges(column.name, column.numbers)
    if values.dtype.kind == "i":
        found, codes = np.unique(values, return_inverse=True)
        return SliceColumn(column.name, tuple(map(str, found.tolist())), codes.astype(np.intp))
    texts = column.texts
    known = {text: number for number, text in enumerate(sorted(set(texts.tolist())))}
    if len(known) > _MOST_VALUES and column.table.untyped and _numeric(known):
        return _ranges(column.name, column.numbers)
    codes = np.fromiter((known[text] for text in texts.tolist()), np.intp, len(texts))
    return SliceColumn(column.name, tuple(known), codes)


def _numeric(texts: Any) -> bool:
    try:
        for text in texts:
            float(text)
    except ValueError:
        return False
    return True


def _ranges(name: str, numbers: NDArray[np.float64]) -> SliceColumn:
    distinct = np.unique(numbers)
    if len(distinct) <= _MOST_VALUES:
        return SliceColumn(name, tuple(f"{value:g}" for value in distinct), np.searchsorted(distinct, numbers))
    edges = np.unique(np.quantile(numbers, np.linspace(0, 1, _BINS + 1)[1:-1]))
    codes = np.searchsorted(edges, numbers, side="right")
    return SliceColumn(name, _range_names(edges), codes)


def _range_names(edges: NDArray[np.float64]) -> tuple[str, ...]:
    texts = [f"{edge:.6g}" for edge in edges]
    between: Sequence[str] = [f"{low} to {high}" for low, high in pairwise(texts)]
    return (f"below {texts[0]}", *between, f"{texts[-1]} and above")
