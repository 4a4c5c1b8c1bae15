"""Confidence intervals for a share of instances: how far the score of this test set may lie from the true one."""

from __future__ import annotations

import math
import operator
from functools import lru_cache
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Side = Literal["two", "lower", "upper"]
Method = Literal["wilson", "clopper_pearson"]


def wilson_interval(successes: int, trials: int, confidence: float = 0.95, side: Side = "two") -> tuple[float, float]:
    """Score interval of Wilson for a binomial share.

    Near the wanted coverage on average even for small shares, where "estimate +- 1.96 standard errors" collapses
    to a point at 0 successes. With very few successes `clopper_pearson_interval` is the careful choice.

    Args:
        successes: How many of the trials count, e.g. negative flips.
        trials: How many there were; 0 is allowed and says nothing, so the interval is (0, 1).
        confidence: Wanted coverage, between 0 and 1 exclusive.
        side: `"two"`; or `"lower"` / `"upper"` for one bound at the full confidence, the other being 1 / 0.

    Returns:
        The lower and the upper bound.

    Raises:
        ValueError: If the counts are negative or contradict each other, or an option has no such value.
        TypeError: If a count is not an integer.

    Reference:
        Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).

    Example:
        No flip in 1000 instances still allows for a rate of 0.38 %:

        >>> from bc_core import wilson_interval
        >>> low, high = wilson_interval(0, 1000)
        >>> f"{low:.2%} to {high:.2%}"
        '0.00% to 0.38%'
    """
    successes, trials, error = _checked(successes, trials, confidence, side)
    if trials == 0:
        return 0.0, 1.0
    low, high = wilson_of_share(successes / trials, trials, -NormalDist().inv_cdf(error))
    return 0.0 if side == "upper" else low, 1.0 if side == "lower" else high


def clustered_interval(shares: NDArray[np.float64], confidence: float = 0.95) -> tuple[float, float]:
    """Interval for the mean of shares, one of each instance, that was asked about several times.

    Answers about one instance go together, so they are worth fewer trials than there are: Wilson's interval for as many
    as a plain share would need to have the variance of this mean.

    Args:
        shares: Shape (n,), n >= 1, each between 0 and 1.
        confidence: Wanted coverage, between 0 and 1 exclusive.

    Returns:
        The lower and the upper bound; where all shares are 0, or all 1, Wilson's for n trials.

    Raises:
        ValueError: If the confidence is no such number.

    Reference:
        Korn and Graubard, "Confidence intervals for proportions with small expected number of positive counts estimated
        from survey data", Survey Methodology 24 (1998), with Wilson's interval in place of Clopper's and Pearson's.

    Example:
        Ten questions to each of four instances, all answered alike, are four trials:

        >>> import numpy as np
        >>> from bc_core.counting._intervals import clustered_interval, wilson_interval
        >>> clustered_interval(np.zeros(4)) == wilson_interval(0, 4)
        True
    """
    checked_confidence(confidence)
    mean, trials = float(np.mean(shares)), float(len(shares))
    if 0 < mean < 1:
        variance = float(np.var(shares, ddof=1)) / trials if trials > 1 else math.inf
        trials = max(1.0, mean * (1 - mean) / variance) if variance > 0 else math.inf
    if math.isinf(trials):
        return mean, mean
    return wilson_of_share(mean, trials, -NormalDist().inv_cdf((1 - confidence) / 2))


def wilson_of_share(share: float, trials: float, z: float) -> tuple[float, float]:
    """Wilson's bounds at `z` standard errors, for trials that need not be a whole number."""
    centre = share + z * z / (2 * trials)
    reach = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    low = 0.0 if share == 0 else max(0.0, (centre - reach) / scale)
    high = 1.0 if share == 1 else min(1.0, (centre + reach) / scale)
    return low, high


def clopper_pearson_interval(
    successes: int, trials: int, confidence: float = 0.95, side: Side = "two"
) -> tuple[float, float]:
    """Exact interval of Clopper and Pearson for a binomial share: covers at least as often as it promises.

    Args:
        successes: How many of the trials count.
        trials: How many there were; 0 gives (0, 1).
        confidence: Wanted coverage, between 0 and 1 exclusive.
        side: `"two"`; or `"lower"` / `"upper"` for one bound at the full confidence, the other being 1 / 0.

    Returns:
        The lower and the upper bound.

    Raises:
        ValueError: If the counts are negative or contradict each other, or an option has no such value.
        TypeError: If a count is not an integer.

    Reference:
        Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
        Biometrika 26 (1934).

    Example:
        >>> from bc_core import clopper_pearson_interval
        >>> low, high = clopper_pearson_interval(0, 1000, side="upper")
        >>> f"{high:.3%}"
        '0.299%'
    """
    successes, trials, error = _checked(successes, trials, confidence, side)
    low = 0.0 if side == "upper" else exact_lower(successes, trials, error)
    high = 1.0 if side == "lower" else exact_upper(successes, trials, error)
    return low, high


def exact_lower(successes: float, trials: float, error: float) -> float:
    """Lower bound of Clopper and Pearson at a chance of error, for trials that need not be a whole number."""
    return _beta_quantile(successes, trials - successes + 1, error) if successes > 0 else 0.0


def exact_upper(successes: float, trials: float, error: float) -> float:
    """The upper bound."""
    return _beta_quantile(successes + 1, trials - successes, 1 - error) if successes < trials else 1.0


def _checked(successes: int, trials: int, confidence: float, side: str) -> tuple[int, int, float]:
    """Return plain integers and the chance of error that each bound may spend."""
    try:
        successes, trials = operator.index(successes), operator.index(trials)
    except TypeError:
        raise TypeError(
            f"successes and trials: expected integers, got {successes!r} and {trials!r}; pass counts, not shares"
        ) from None
    if not 0 <= successes <= trials:
        raise ValueError(f"expected 0 <= successes <= trials, got {successes} successes of {trials} trials")
    checked_confidence(confidence)
    return successes, trials, (1 - confidence) / (2 if checked_side(side) == "two" else 1)


def checked_confidence(confidence: float) -> float:
    """Refuse what is no confidence."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a number between 0 and 1 such as 0.95, got {confidence!r}")
    return confidence


def checked_side(side: str) -> str:
    """Refuse what is no side."""
    if side not in ("two", "lower", "upper"):
        raise ValueError(f"side: expected 'two', 'lower' or 'upper', got {side!r}")
    return side


# A verdict asks for the same bound more than once, and a training for those of the same counts.
@lru_cache(maxsize=256)
def _beta_quantile(a: float, b: float, chance: float) -> float:
    """The share below which a beta variable lies with this chance.

    By bisection, as SciPy's own inverse is none everywhere: before 1.12 where the chance is within 1e-6 of 1, and since
    then where `a` is 1000 and `b` some hundred millions.
    """
    from scipy.special import betainc

    # Over the log-odds, where shares near 0 keep all their digits.
    low, high = -700.0, 700.0
    while low < (middle := (low + high) / 2) < high:
        if betainc(a, b, 1 / (1 + math.exp(-middle))) < chance:
            low = middle
        else:
            high = middle
    return 1 / (1 + math.exp(-high))
