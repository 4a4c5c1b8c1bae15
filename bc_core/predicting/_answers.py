"""What a model answered, as columns of a file of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core._arrays import flat, to_numpy
from bc_core.predictions._tables import Table


def checked_answer(output: Any, table: Table, model: str) -> NDArray[Any]:
    """Labels or numbers, shape (B,), or class scores, shape (B, C).

    Args:
        output: Whatever the model returned.
        table: The rows that it was asked about.
        model: What it is called in messages.

    Raises:
        ValueError: It is not one answer a row, or holds NaN or infinity; the first such row is named.
    """
    if isinstance(output, (tuple, dict)):
        raise ValueError(
            f"{model}: several outputs ({type(output).__name__} of {len(output)}); one array is wanted: say which by "
            "--output, or return one"
        )
    try:
        array = to_numpy(output, "its answer")
    except TypeError as error:
        raise ValueError(f"{model}: {error}") from None
    if array.dtype.kind == "O" and all(isinstance(each, str) for each in array.ravel().tolist()):
        array = array.astype(str)
    array = flat(array)
    if array.ndim not in (1, 2) or len(array) != table.size or array.dtype.kind not in "biufU":
        raise ValueError(
            f"{model}: expected one label, number or row of scores for each of {table.size} instances, got "
            f"{array.dtype} of shape {array.shape}"
        )
    if array.dtype.kind == "U" and array.ndim == 2:
        raise ValueError(f"{model}: expected one label for each instance, got text of shape {array.shape}")
    if array.dtype.kind == "f" and not (finite := np.isfinite(array.reshape(len(array), -1)).all(axis=1)).all():
        row = int(finite.argmin())
        raise ValueError(f"{model}: it answers NaN or infinity on {table.path}, {table.line_of(row)}")
    return array


def answer_columns(
    answer: NDArray[Any], classes: Sequence[str] | None, labels: bool, lists: bool, model: str
) -> dict[str, list[Any]]:
    """Columns of plain values: `pred`, or `scores` as lists, or one `score_NAME` a class.

    Args:
        answer: Shape (B,) or (B, C).
        classes: Name of the class of each score.
        labels: Whether the class of the highest score is wanted in place of scores.
        lists: Whether the file can hold lists.
        model: What it is called in messages.

    Raises:
        ValueError: There are not as many names as scores.
    """
    if answer.ndim == 1:
        return {"pred": _plain(answer)}
    if classes is not None and len(classes) != answer.shape[1]:
        raise ValueError(f"{model}: {answer.shape[1]} scores an instance, and {len(classes)} classes")
    if labels:
        best = answer.argmax(axis=1)
        return {"pred": best.tolist() if classes is None else [classes[number] for number in best.tolist()]}
    if classes is None and lists:
        return {"scores": _plain(answer)}
    names = [str(number) for number in range(answer.shape[1])] if classes is None else classes
    return {f"score_{name}": _plain(column) for name, column in zip(names, answer.T, strict=True)}


def _plain(array: NDArray[Any]) -> list[Any]:
    """As few digits as give back each number."""
    if array.dtype.kind == "f" and array.dtype.itemsize < 8:
        array = array.astype(str).astype(np.float64)
    if array.dtype.kind == "b":
        array = array.astype(np.int64)
    values: list[Any] = array.tolist()
    return values


def same_answer(before: Sequence[Any], now: Sequence[Any]) -> bool:
    """Whether a model answers as it did: equal labels, and scores up to rounding."""
    one, other = np.asarray(before), np.asarray(now)
    if one.shape != other.shape or one.dtype.kind in "US" or other.dtype.kind in "US":
        return one.shape == other.shape and bool((one.astype(str) == other.astype(str)).all())
    return bool(np.allclose(one, other, rtol=1e-3, atol=1e-5))
