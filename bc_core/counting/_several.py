"""Many questions at once: p-values held to what is promised of all of them together."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def holm(p_values: Any) -> NDArray[np.float64]:
    """Adjust p-values so that the chance of even one false alarm among all of them is held (Holm's step-down).

    Args:
        p_values: Shape (m,), each from 0 to 1; they may depend on each other in any way.

    Returns:
        Shape (m,), in the same order: reject those that are at most the wanted chance, such as 0.05.

    Raises:
        ValueError: If something is no p-value.

    Reference:
        Holm, "A simple sequentially rejective multiple test procedure", Scandinavian J. of Statistics 6 (1979).

    Example:
        >>> from bc_core import holm
        >>> holm([0.01, 0.04, 0.03]).round(6).tolist()
        [0.03, 0.06, 0.06]
    """
    p, order = _sorted(p_values)
    return _in_place(np.maximum.accumulate((len(p) - np.arange(len(p))) * p), order)


def benjamini_hochberg(p_values: Any) -> NDArray[np.float64]:
    """Adjust p-values so that the expected share of false ones among those that are rejected is held: to explore with.

    Args:
        p_values: Shape (m,), each from 0 to 1, independent or positively dependent.

    Returns:
        Shape (m,), in the same order: reject those that are at most the wanted share.

    Raises:
        ValueError: If something is no p-value.

    Reference:
        Benjamini and Hochberg, "Controlling the false discovery rate", J. Royal Statistical Society B 57 (1995).

    Example:
        >>> from bc_core import benjamini_hochberg
        >>> benjamini_hochberg([0.01, 0.04, 0.03]).round(6).tolist()
        [0.03, 0.04, 0.04]
    """
    p, order = _sorted(p_values)
    scaled = p * len(p) / np.arange(1, len(p) + 1)
    return _in_place(np.minimum.accumulate(scaled[::-1])[::-1], order)


def _sorted(p_values: Any) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p_values: expected a list of numbers from 0 to 1, got {p_values!r}")
    order = np.argsort(p, kind="stable")
    return p[order], order


def _in_place(adjusted: NDArray[np.float64], order: NDArray[np.intp]) -> NDArray[np.float64]:
    result = np.empty_like(adjusted)
    result[order] = np.minimum(adjusted, 1.0)
    return result
