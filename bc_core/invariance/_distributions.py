"""The F distribution's upper tail, which p-values of the analysis of variance need; scipy's, loaded on first use."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def f_upper_tail(f: Any, numerator: float, denominator: float) -> NDArray[np.float64]:
    """Chance that an F-distributed number is above `f`.

    Args:
        f: Values of the statistic, any shape; nan gives nan, infinity 0.
        numerator: Degrees of freedom above the fraction bar.
        denominator: Degrees of freedom below it.

    Returns:
        float64 of the same shape.

    Example:
        >>> from bc_core.invariance._distributions import f_upper_tail
        >>> round(float(f_upper_tail(4.0, 3, 20)), 6)
        0.022077
    """
    from scipy.special import fdtrc

    return np.asarray(fdtrc(numerator, denominator, f), dtype=np.float64)


def f_limit(p: float, numerator: int, denominator: int) -> float:
    """The F whose upper tail is `p`, to which any number of F can be compared.

    Example:
        >>> from bc_core.invariance._distributions import f_limit, f_upper_tail
        >>> round(float(f_upper_tail(f_limit(1e-9, 3, 20), 3, 20)), 12)
        1e-09
    """
    from scipy.special import betaincinv

    # Of the beta distribution with F's place on it counted from infinity, where small numbers keep their digits.
    share = float(betaincinv(denominator / 2, numerator / 2, p))
    return denominator * (1 - share) / (numerator * share)
