"""Tables of old predictions: what is checked before they stand for h1."""

from __future__ import annotations

import hashlib
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from bc_core._arrays import flat

Kind = Literal["logits", "probabilities", "log_probabilities"]

_ROUNDED_SUM = 1e-2


def table_of_predictions(table: NDArray[Any], kind: Kind | None) -> NDArray[Any]:
    """Check a table of old predictions, and bring scores to logits.

    Args:
        table: Labels, integers of shape (N,) or (N, 1), -1 for none; or scores, floating-point of shape (N, C), or
            (N,) or (N, 1) for a binary model.
        kind: What scores are; None for labels.

    Returns:
        Labels as int64 (N,); logits as they are; probabilities as their logarithms, or a binary model's log-odds, in
        float32 or the float64 that they came in.

    Raises:
        ValueError: The table is empty, has another shape, NaN or infinite values, numbers that are no labels or no
            probabilities, or scores whose kind was not given.
    """
    if table.size == 0 or table.ndim not in (1, 2):
        raise ValueError(f"predictions must be labels of shape (N,) or scores of shape (N, C), got {table.shape}")
    table = _scores_of_table(table, kind) if table.dtype.kind == "f" else _labels_of_table(table, kind)
    return np.ascontiguousarray(table)


def name_of_table(outputs: NDArray[Any]) -> str:
    """Name a table in memory by its content, as a fingerprint names a model."""
    digest = hashlib.sha256(f"{outputs.dtype.str}{outputs.shape}".encode() + outputs.tobytes()).hexdigest()
    return f"table:sha256:{digest}"


def _labels_of_table(table: NDArray[Any], kind: Kind | None) -> NDArray[Any]:
    if kind is not None:
        raise ValueError(f"kind={kind!r} is for scores, but the predictions are integers of type {table.dtype}")
    table = flat(table)
    if table.ndim != 1 or table.dtype.kind not in "iu":
        raise ValueError(
            f"labels must be integers of shape (N,), got {table.dtype} of shape {table.shape}; "
            "give scores as floating-point numbers"
        )
    labels = table.astype(np.int64)
    if (labels < -1).any():
        first = int((labels < -1).argmax())
        raise ValueError(f"label {int(labels[first])} of row {first} is no class; expected 0, 1, ... or -1 for none")
    return labels


def _scores_of_table(table: NDArray[Any], kind: Kind | None) -> NDArray[Any]:
    if kind not in ("logits", "probabilities", "log_probabilities"):
        raise ValueError(
            f'say what the scores are: kind="logits", "probabilities" or "log_probabilities", got {kind!r}'
        )
    if table.dtype not in (np.float32, np.float64):
        table = table.astype(np.float32)
    binary = table.ndim == 1 or table.shape[1] == 1
    limits = np.finfo(table.dtype)
    if kind == "log_probabilities" and not binary:
        # -inf is the right logarithm of 0; only finite numbers may enter a loss.
        table = np.where(table != -np.inf, table, limits.min / 2)
    finite = np.isfinite(table).reshape(len(table), -1).all(axis=1)
    if not finite.all():
        raise ValueError(f"row {int((~finite).argmax())} of the predictions is NaN or infinite")
    if kind == "logits":
        return table
    if kind == "log_probabilities" and binary:
        raise ValueError("a binary model's single score must be its logit or the probability of class 1")
    with np.errstate(over="ignore"):
        probabilities = table if kind == "probabilities" else np.exp(table)
    wrong = ((probabilities < 0) | (probabilities > 1 + _ROUNDED_SUM)).reshape(len(table), -1).any(axis=1)
    if not binary:
        wrong |= np.abs(probabilities.sum(axis=1) - 1) > _ROUNDED_SUM
    if wrong.any():
        raise ValueError(
            f"row {int(wrong.argmax())} of the predictions holds no {kind.replace('_', ' ')}: they must lie "
            'between 0 and 1 and sum to 1; for logits say kind="logits"'
        )
    if kind == "log_probabilities":
        return table
    if binary:
        # The log-odds of 0 and 1 are infinite; these are as sure as the type can say.
        clipped = np.clip(table, limits.eps, 1 - limits.eps)
        return cast("NDArray[Any]", np.log(clipped / (1 - clipped)))
    logarithms: NDArray[Any] = np.where(table > 0, np.log(np.maximum(table, limits.tiny)), limits.min / 2)
    return logarithms
