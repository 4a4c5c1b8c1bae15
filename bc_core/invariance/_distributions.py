"""The upper tail of the F distribution, in numpy: what a p-value of the analysis of variance needs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TINY = 1e-300
_PRECISION = 1e-15
_MOST_TERMS = 10_000


def f_upper_tail(f: Any, numerator: float, denominator: float) -> NDArray[np.float64]:
    """Chance that an F-distributed number is above `f`.

    Args:
        f: Values of the statistic, any shape; nan gives nan, infinity 0.
        numerator: Degrees of freedom above the fraction bar.
        denominator: Degrees of freedom below it.

    Returns:
        float64 of the same shape.

    Reference:
        I_x(a, b) with x = d2 / (d2 + d1 f), a = d2 / 2, b = d1 / 2 (Abramowitz and Stegun 26.6.2).

    Example:
        >>> from bc_core.invariance._distributions import f_upper_tail
        >>> round(float(f_upper_tail(4.0, 3, 20)), 6)
        0.022077
    """
    values = np.asarray(f, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        x = denominator / (denominator + numerator * values)
        # 1 - x without the digits that a subtraction loses where f is small.
        rest = np.where(np.isinf(values), 1.0, numerator * values / (denominator + numerator * values))
    return _incomplete_beta(x, rest, denominator / 2, numerator / 2)


def _incomplete_beta(x: NDArray[np.float64], rest: NDArray[np.float64], a: float, b: float) -> NDArray[np.float64]:
    """Regularised I_x(a, b), rest = 1 - x."""
    log_factor = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    with np.errstate(divide="ignore", invalid="ignore", under="ignore"):
        factor = np.exp(log_factor + a * np.log(x) + b * np.log(rest))
        # The fraction converges quickly on one side of the mean; the other is what is left.
        left = x < (a + 1) / (a + b + 2)
        direct = factor * _fraction(np.where(left, x, 0.5 * a / (a + b)), a, b) / a
        swapped = 1 - factor * _fraction(np.where(left, 0.5 * b / (a + b), rest), b, a) / b
    tail = np.where(left, direct, swapped)
    tail = np.where(x <= 0, 0.0, np.where(rest <= 0, 1.0, tail))
    return np.where(np.isnan(x), np.nan, np.clip(tail, 0.0, 1.0))


def _fraction(x: NDArray[np.float64], a: float, b: float) -> NDArray[np.float64]:
    """Continued fraction of the incomplete beta function (DLMF 8.17.22), by the method of Lentz."""
    c = np.ones_like(x)
    d = 1 / _away_from_zero(1 - (a + b) * x / (a + 1))
    total: NDArray[np.float64] = d.copy()
    for m in range(1, _MOST_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _away_from_zero(1 + term * d)
            c = _away_from_zero(1 + term / c)
            total = total * (c * d)
        if bool((abs(c * d - 1) < _PRECISION).all()):
            break
    return total


def _away_from_zero(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(abs(x) < _TINY, _TINY, x)
