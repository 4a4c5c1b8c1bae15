"""Shares of instances that do not count alike: weighted ones, and several of one user, worth fewer than there are."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from bc_core.counting._intervals import (
    Method,
    Side,
    checked_confidence,
    checked_side,
    exact_lower,
    exact_upper,
    wilson_of_share,
)


class WeightedShare(NamedTuple):
    """A share and its bounds; `weighted_share` returns it.

    Attributes:
        share: Weight above the fraction bar, as a share of the weight below it; nan where nothing is below.
        low: Lower bound.
        high: Upper bound.
        effective: How many plain instances would know as much.
    """

    share: float
    low: float
    high: float
    effective: float


def weighted_share(
    above: Any,
    below: Any = None,
    *,
    weights: Any = None,
    clusters: Any = None,
    confidence: float = 0.95,
    side: Side = "two",
    method: Method = "clopper_pearson",
) -> WeightedShare:
    """Interval for a share of weighted instances, or of instances of which several belong together.

    Rows of one user, document or video are right or wrong together, and rows of great weight decide alone: either is
    worth fewer plain instances than there are rows. The variance of the ratio is taken over clusters (linearised), and
    the interval of as many plain instances as would have it is given.

    Args:
        above: N bools, the instances that count, e.g. negative flips.
        below: N bools, the instances that they are counted among, e.g. those that h1 gets right. Default: all.
        weights: N weights of at least 0, e.g. of importance. Default: 1.
        clusters: N names or numbers of what an instance belongs to, e.g. users. Default: each by itself.
        confidence: Wanted coverage, between 0 and 1 exclusive.
        side: `"two"`; or `"lower"` / `"upper"` for one bound at the full confidence, the other being 1 / 0.
        method: `"clopper_pearson"`, which is careful and what verdicts are made by; or `"wilson"`, nearer to the wanted
            coverage on average, as in the tables of `bc-compare`.

    Returns:
        Share, bounds and effective number. Without weights and clusters they are those of `clopper_pearson_interval` or
        `wilson_interval`.

    Raises:
        ValueError: If lengths differ, a weight is negative, infinite or NaN, or an option has no such value.

    Reference:
        Korn and Graubard, "Confidence intervals for proportions with small expected number of positive counts estimated
        from survey data", Survey Methodology 24 (1998); the effective number is held to Kish's, and its degrees of
        freedom to twice the clusters in which something counts.

    Example:
        Ten rows of each of 40 users, who see all of their rows break or none:

        >>> import numpy as np
        >>> from bc_core import weighted_share
        >>> users = np.repeat(np.arange(40), 10)
        >>> found = weighted_share(users < 4, clusters=users)
        >>> f"{found.share:.0%}, {found.low:.1%} to {found.high:.1%}, worth {found.effective:.0f} instances"
        '10%, 2.7% to 23.9%, worth 39 instances'
    """
    checked_confidence(confidence), checked_side(side)
    if method not in BOUNDS:
        raise ValueError(f"method: expected 'wilson' or 'clopper_pearson', got {method!r}")
    share, effective = share_and_effective(above, below, weights, clusters)
    error = (1 - confidence) / (2 if side == "two" else 1)
    low, high = BOUNDS[method](share, effective, error)
    return WeightedShare(share, 0.0 if side == "upper" else low, 1.0 if side == "lower" else high, effective)


def share_and_effective(above: Any, below: Any, weights: Any, clusters: Any) -> tuple[float, float]:
    """A share as `weighted_share` has it, and how many plain instances would know it as well."""
    counted = np.asarray(above)
    among = np.ones(len(counted), bool) if below is None else np.asarray(below)
    weight = np.ones(len(counted)) if weights is None else np.asarray(weights, np.float64)
    if not counted.shape == among.shape == weight.shape == (len(counted),):
        raise ValueError(
            f"expected above, below and weights of one length, got {counted.shape}, {among.shape} and {weight.shape}"
        )
    if not (np.isfinite(weight) & (weight >= 0)).all():
        raise ValueError("weights: expected finite numbers of at least 0")
    top, bottom = weight * (counted.astype(bool) & among.astype(bool)), weight * among.astype(bool)
    whole = float(bottom.sum())
    if not whole:
        return math.nan, 0.0
    # What weights alone leave of the instances (Kish). That heavy ones did not happen to count must not add to it.
    most = whole**2 / float(np.square(bottom).sum())
    count = int(np.count_nonzero(bottom))
    if clusters is not None:
        names = np.asarray(clusters)
        if names.shape != counted.shape:
            raise ValueError(f"clusters: expected one for each of {len(counted)} instances, got {names.shape}")
        _, codes = np.unique(names, return_inverse=True)
        top, bottom = np.bincount(codes, top), np.bincount(codes, bottom)
    top, bottom = top[bottom > 0], bottom[bottom > 0]
    groups, share = len(bottom), min(1.0, float(top.sum()) / whole)
    # The careful reading: clusters go together wholly.
    least = whole**2 / float(np.square(bottom).sum())
    variance = float(np.square(top - share * bottom).sum()) / whole**2
    if not 0 < share < 1 or not variance or groups == 1:
        return share, min(most, least)
    # Both corrections leave plain instances what they are.
    known = share * (1 - share) / (variance * groups / (groups - 1) * (count - 1) / count)
    if groups < count:
        # Clusters in which nothing counts say little of how those that count go together.
        telling = min(np.count_nonzero(top), np.count_nonzero(bottom - top))
        known = max(min(known, least), known * _few_groups(min(groups, 2 * int(telling))))
    return share, min(most, known)


def _few_groups(groups: int) -> float:
    """A variance that was estimated from few clusters in which something happened is itself uncertain."""
    from scipy.special import stdtrit

    return (NormalDist().inv_cdf(0.975) / float(stdtrit(groups - 1, 0.975))) ** 2


def exact_bounds(share: float, trials: float, error: float) -> tuple[float, float]:
    """Bounds of Clopper and Pearson at a chance of error each, for trials that need not be a whole number."""
    successes = share * trials
    return (exact_lower(successes, trials, error), exact_upper(successes, trials, error)) if trials else (0.0, 1.0)


def wilson_bounds(share: float, trials: float, error: float) -> tuple[float, float]:
    """Bounds of Wilson at a chance of error each, for trials that need not be a whole number."""
    return wilson_of_share(share, trials, -NormalDist().inv_cdf(error)) if trials else (0.0, 1.0)


BOUNDS: dict[Method, Callable[[float, float, float], tuple[float, float]]] = {
    "wilson": wilson_bounds,
    "clopper_pearson": exact_bounds,
}


def chance_of_so_many(successes: float, trials: float, limit: float) -> float:
    """P(X >= successes) for X ~ Binomial(trials, limit): the p-value that goes with the lower of `exact_bounds`."""
    if successes <= 0 or not trials:
        return 1.0
    from scipy.special import betainc

    return float(betainc(successes, trials - successes + 1, limit))


def chance_of_so_few(successes: float, trials: float, limit: float) -> float:
    """P(X <= successes): the p-value that goes with the upper of `exact_bounds`."""
    return chance_of_so_many(trials - successes, trials, 1 - limit)
