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
    # The lower bound for the successes is what the upper bound for the failures leaves over.
    low = 0.0 if successes == 0 or side == "upper" else _upper_bound(trials - successes, trials, error)[1]
    high = 1.0 if successes == trials or side == "lower" else _upper_bound(successes, trials, error)[0]
    return low, high


def bound_keeps(successes: int, trials: int, limit: float, confidence: float, side: Literal["lower", "upper"]) -> bool:
    """Whether a one-sided bound of Clopper and Pearson keeps a limit, without the search for the bound itself.

    Args:
        successes: How many of the trials count.
        trials: How many there were, at least 1.
        limit: That the upper bound has to lie at or below, or the lower one at or above.
        confidence: Of the bound.
        side: Which bound.

    Example:
        >>> from bc_core.counting._intervals import bound_keeps, clopper_pearson_interval
        >>> bound_keeps(0, 1000, 0.003, 0.95, "upper"), clopper_pearson_interval(0, 1000, side="upper")[1] <= 0.003
        (True, True)
    """
    if side == "lower":
        successes, limit = trials - successes, 1 - limit
    if limit >= 1 or limit <= 0 or successes == trials:
        return limit >= 1
    # The bound is the share at which so few successes have this chance; at a larger share they have less.
    return _log_at_most(successes, trials, limit, 1 - limit) <= math.log(1 - confidence)


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
def _upper_bound(successes: int, trials: int, error: float) -> tuple[float, float]:
    """The share p (and 1 - p) at which so few successes or fewer have probability `error`; successes < trials."""
    if successes == 0:
        log_q = math.log(error) / trials
        return -math.expm1(log_q), math.exp(log_q)
    # Bisection over the log-odds, where shares near 0 and near 1 keep all their digits.
    target = math.log(error)
    low, high = -700.0, 700.0
    while True:
        middle = (low + high) / 2
        if not low < middle < high:
            break
        if _log_at_most(successes, trials, *_share(middle)) > target:
            low = middle
        else:
            high = middle
    return _share(high)


def _share(log_odds: float) -> tuple[float, float]:
    return 1 / (1 + math.exp(-log_odds)), 1 / (1 + math.exp(log_odds))


def _log_at_most(k: int, n: int, p: float, q: float) -> float:
    """Log of P(X <= k) for X ~ Binomial(n, p), q = 1 - p; sums whichever tail is short."""
    if k < n * p:
        return _log_tail(k, n, p, q)
    above = math.exp(min(0.0, _log_tail(n - k - 1, n, q, p)))
    return math.log1p(-above) if above < 1 else -math.inf


def _log_tail(k: int, n: int, p: float, q: float) -> float:
    """Log of P(X <= k) for k below about n * p, where the terms fall from the first on."""
    first = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log(q)
    # Terms relative to the first, in growing blocks; a binomial of n trials needs about sqrt(n) of them.
    total, last, start, block = 1.0, 0.0, 0, 256
    while start < k:
        j = k - np.arange(start, min(start + block, k), dtype=np.float64)
        relative = last + np.cumsum(np.log(j * q) - np.log((n - j + 1) * p))
        total += float(np.exp(relative).sum())
        last = float(relative[-1])
        if last < -45:  # below the last bit of the sum, and falling ever faster
            break
        start, block = start + block, block * 2
    return first + math.log(total)
