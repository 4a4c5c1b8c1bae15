"""Slices of a column that was read from a file of predictions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core.predictions._joining import Column
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
    values, codes = _coded(column)
    return counted(column.name, values, codes, h1_right, h2_right)


def _coded(column: Column) -> tuple[tuple[str, ...], NDArray[np.intp]]:
    values: NDArray[Any] = column.values
    if values.ndim == 2:
        raise ValueError(f"{column.table.path}: column {column.name!r} holds lists, which are no slices")
    if values.dtype.kind in "if":
        return coded_numbers(values if values.dtype.kind == "i" else column.numbers)
    texts = column.texts.tolist()
    known = set(texts)
    if len(known) > MOST_VALUES and column.table.untyped and _numeric(known):
        return coded_numbers(column.numbers)
    return coded_texts(texts)


def _numeric(texts: Iterable[str]) -> bool:
    try:
        list(map(float, texts))
    except ValueError:
        return False
    return True
