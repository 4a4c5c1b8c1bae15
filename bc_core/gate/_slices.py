"""Slices of a column that was read from a file of predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core.predictions._aligned import Column
from bc_core.predictions._tables import are_numbers
from bc_core.slices._columns import MOST_VALUES, SliceColumn, coded_numbers, coded_texts, counted


def slices_of(column: Column, h1_right: NDArray[np.bool_], h2_right: NDArray[np.bool_]) -> SliceColumn:
    """Slice instances by a column: text and few numbers by value, many numbers into ranges of about equal size.

    Args:
        column: The column.
        h1_right: Shape (N,), whether h1 is right on each instance.
        h2_right: Shape (N,), the same of h2.

    Raises:
        ValueError: A number is NaN or infinite, or the column holds lists.
    """
    plain = plain_values(column)
    values, codes = coded_texts(plain.tolist()) if plain.dtype.kind == "O" else coded_numbers(plain)
    return counted(column.name, values, codes, h1_right, h2_right)


def plain_values(column: Column) -> NDArray[Any]:
    """Numbers, or dtype object holding `str`: what a column's slices are made of.

    Raises:
        ValueError: A number is NaN or infinite, or the column holds lists.
    """
    values: NDArray[Any] = column.values
    if values.ndim == 2:
        raise ValueError(f"{column.table.path}: column {column.name!r} holds lists, which are no slices")
    if values.dtype.kind in "if":
        return values if values.dtype.kind == "i" else column.numbers
    texts: NDArray[Any] = column.texts
    known = set(texts.tolist())
    return column.numbers if len(known) > MOST_VALUES and column.table.untyped and are_numbers(known) else texts
