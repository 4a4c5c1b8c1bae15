"""Two shares of the same instances: McNemar's test, Newcombe's interval, and what is read from its bounds."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bc_core.counting._intervals import Side, checked_confidence, checked_side, wilson_of_share
from bc_core.counting._scores import score_from_counts

_NAMES = ("both", "only_first", "only_second", "neither")
# Beyond so many standard errors a chance is 0 in 64 bits.
_MOST_ERRORS = 38.0


class MarginTest(NamedTuple):
    """What `non_inferiority_test` and `equivalence_test` found.

    Attributes:
        difference: The first share less the second.
        low: Lower bound of it, one-sided.
        high: Upper bound of it, one-sided.
        p_value: Chance of counts this favourable, or more so, where the truth lies on the margin.
        holds: Whether it is shown at the wanted confidence.
    """

    difference: float
    low: float
    high: float
    p_value: float
    holds: bool


def mcnemar_test(
    only_first: int, only_second: int, alternative: Literal["two-sided", "greater", "less"] = "two-sided"
) -> float:
    """McNemar's exact test of whether two shares of the same instances differ.

    Only instances on which the two disagree tell them apart: were the shares equal, each would fall either way like a
    coin.

    Args:
        only_first: Instances that count under the first only, e.g. those that h1 alone gets right.
        only_second: Instances that count under the second only.
        alternative: What would speak against equal shares: any difference, or that the first is greater or less.

    Returns:
        The p-value; 1 where they never disagree.

    Raises:
        ValueError: If a count is negative or there is no such alternative.
        TypeError: If a count is not an integer.

    Reference:
        McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
        Psychometrika 12 (1947).

    Example:
        30 instances repaired and 12 broken are more than luck:

        >>> from bc_core import mcnemar_test
        >>> round(mcnemar_test(12, 30), 4)
        0.0079
    """
    first, second = _counts(("only_first", "only_second"), (only_first, only_second))
    if alternative not in ("two-sided", "greater", "less"):
        raise ValueError(f"alternative: expected 'two-sided', 'greater' or 'less', got {alternative!r}")
    from scipy.special import bdtr

    total = first + second
    if alternative == "two-sided":
        return min(1.0, 2 * float(bdtr(min(first, second), total, 0.5))) if first != second else 1.0
    # P(X >= first) for "greater", by the symmetry of the coin.
    return float(bdtr(second if alternative == "greater" else first, total, 0.5))


def paired_difference_interval(
    both: int, only_first: int, only_second: int, neither: int, confidence: float = 0.95, side: Side = "two"
) -> tuple[float, float]:
    """Score interval of Newcombe (his method 10) for the difference of two shares of the same instances.

    Two updates of one h1 are tried on the same test set, so their negative flips are paired: an instance may flip under
    both, under one, or under neither. The difference of their rates is (only_first - only_second) / n.

    Args:
        both: Instances that count under both, e.g. negative flips of the first and of the second update.
        only_first: Instances that count under the first only.
        only_second: Instances that count under the second only.
        neither: Instances that count under neither.
        confidence: Wanted coverage, between 0 and 1 exclusive.
        side: `"two"`; or `"lower"` / `"upper"` for one bound at the full confidence, the other being 1 / -1.

    Returns:
        The lower and the upper bound of the first share less the second; (-1, 1) where there is no instance.

    Raises:
        ValueError: If a count is negative, or the confidence or side no such value.
        TypeError: If a count is not an integer.

    Reference:
        Newcombe, "Improved confidence intervals for the difference between binomial proportions based on paired data",
        Statistics in Medicine 17 (1998).

    Example:
        >>> from bc_core import paired_difference_interval
        >>> low, high = paired_difference_interval(both=36, only_first=12, only_second=2, neither=0)
        >>> f"{low:.4f} to {high:.4f}"
        '0.0569 to 0.3404'
    """
    cells = _counts(_NAMES, (both, only_first, only_second, neither))
    error = (1 - checked_confidence(confidence)) / (2 if checked_side(side) == "two" else 1)
    if sum(cells) == 0:
        return -1.0, 1.0
    low, high = newcombe_bounds(cells, -NormalDist().inv_cdf(error))
    return -1.0 if side == "upper" else low, 1.0 if side == "lower" else high


def newcombe_bounds(cells: Sequence[float], z: float) -> tuple[float, float]:
    """Both bounds at `z` standard errors.

    Args:
        cells: (both, only first, only second, neither); of weighted instances, effective numbers. Not all 0.
        z: At least 0.
    """
    both, only_first, only_second, neither = cells
    total = both + only_first + only_second + neither
    first, second = both + only_first, both + only_second
    share_1, share_2 = first / total, second / total
    low_1, high_1 = wilson_of_share(share_1, total, z)
    low_2, high_2 = wilson_of_share(share_2, total, z)
    # Correlation of the two outcomes; a positive one is corrected for continuity, as the method says.
    margins = first * (total - first) * second * (total - second)
    covariance: float = both * neither - only_first * only_second
    if covariance > 0:
        covariance = max(0.0, covariance - total / 2)
    phi = covariance / math.sqrt(margins) if margins else 0.0

    def reach(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))

    difference = (only_first - only_second) / total
    low = difference - reach(share_1 - low_1, high_2 - share_2)
    high = difference + reach(high_1 - share_1, share_2 - low_2)
    return low, high


def chance_at_most(cells: Sequence[float], limit: float) -> float:
    """The p-value of "the first share less the second is at most `limit`": small speaks for more than that.

    It is below 1 - confidence exactly where the one-sided lower bound of `paired_difference_interval` lies above the
    limit.

    Args:
        cells: As for `newcombe_bounds`.
        limit: From -1 to 1.
    """
    total = sum(cells)
    if total == 0:
        return 1.0
    above = (cells[1] - cells[2]) / total >= limit
    near, far = 0.0, _MOST_ERRORS
    for _ in range(60):
        z = (near + far) / 2
        low, high = newcombe_bounds(cells, z)
        if (low > limit) if above else (high < limit):
            near = z
        else:
            far = z
    return NormalDist().cdf(-far if above else far)


def non_inferiority_test(
    both: int, only_first: int, only_second: int, neither: int, margin: float, confidence: float = 0.95
) -> MarginTest:
    """Whether the second share is shown to be no worse than the first by a margin or more.

    Args:
        both: Instances that count under both, e.g. those that h1 and h2 get right.
        only_first: Instances that count under the first only, e.g. negative flips.
        only_second: Instances that count under the second only, e.g. positive flips.
        neither: Instances that count under neither.
        margin: How much less the second may be, between 0 and 1, e.g. 0.005 for half a point of accuracy.
        confidence: That of the one-sided bound which decides.

    Returns:
        The difference second less first, its one-sided bounds, the p-value, and whether the lower one is above -margin.

    Raises:
        ValueError: If a count is negative, there is no instance, or an option has no such value.
        TypeError: If a count is not an integer.

    Example:
        Accuracy rose by 0.3 points; is it sure not to have fallen by half a point?

        >>> from bc_core import non_inferiority_test
        >>> result = non_inferiority_test(both=900, only_first=12, only_second=15, neither=73, margin=0.005)
        >>> f"{result.difference:.3f}, at least {result.low:.3f}: {result.holds}"
        '0.003, at least -0.006: False'
    """
    cells, confidence = _margin_input((both, only_second, only_first, neither), margin, confidence)
    low, high = newcombe_bounds(cells, -NormalDist().inv_cdf(1 - confidence))
    difference = (cells[1] - cells[2]) / sum(cells)
    return MarginTest(difference, low, high, chance_at_most(cells, -margin), low > -margin)


def equivalence_test(
    both: int, only_first: int, only_second: int, neither: int, margin: float, confidence: float = 0.95
) -> MarginTest:
    """Whether two shares of the same instances are shown to differ by less than a margin: two one-sided tests (TOST).

    Args:
        both: Instances that count under both.
        only_first: Instances that count under the first only.
        only_second: Instances that count under the second only.
        neither: Instances that count under neither.
        margin: The least difference that would matter, between 0 and 1.
        confidence: That of each one-sided bound; together they are an interval of 2 * confidence - 1.

    Returns:
        The difference second less first, its one-sided bounds, the larger p-value of the two tests, and whether both
        bounds lie within the margin.

    Raises:
        ValueError: If a count is negative, there is no instance, or an option has no such value.
        TypeError: If a count is not an integer.

    Reference:
        Schuirmann, "A comparison of the two one-sided tests procedure and the power approach for assessing the
        equivalence of average bioavailability", J. Pharmacokinetics and Biopharmaceutics 15 (1987), on Newcombe's
        bounds.

    Example:
        >>> from bc_core import equivalence_test
        >>> equivalence_test(both=9000, only_first=30, only_second=34, neither=936, margin=0.005).holds
        True
    """
    cells, confidence = _margin_input((both, only_second, only_first, neither), margin, confidence)
    low, high = newcombe_bounds(cells, -NormalDist().inv_cdf(1 - confidence))
    turned = (cells[0], cells[2], cells[1], cells[3])
    p_value = max(chance_at_most(cells, -margin), chance_at_most(turned, -margin))
    difference = (cells[1] - cells[2]) / sum(cells)
    return MarginTest(difference, low, high, p_value, -margin < low and high < margin)


def paired_bootstrap(
    counts: NDArray[np.integer],
    score: str,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Interval for the difference of a score between two candidates for one h1, on the same instances.

    The instances are drawn anew, each with what all three models make of it; as only its cell counts, the counts of the
    eight cells are drawn, which is the same and takes milliseconds for any number of instances. For rates over all
    instances, `paired_difference_interval` needs no drawing; BTC, BEC and NFI have denominators that vary too.

    Args:
        counts: Shape (2, 2, 2), integers, indexed `[h1_right, first_right, second_right]`.
        score: A key of `SCORES`.
        confidence: Wanted coverage, between 0 and 1 exclusive.
        resamples: How often to draw.
        seed: Of the random numbers.

    Returns:
        The first candidate's score less the second's, and the bounds: percentiles of the draws, moved out for few
        instances as Hesterberg says.

    Raises:
        ValueError: If the shape is another one, there is no instance, or an option has no such value.

    Reference:
        Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13; Hesterberg, "What teachers should
        know about the bootstrap", The American Statistician 69 (2015), for the expanded percentiles.

    Example:
        >>> import numpy as np
        >>> from bc_core import paired_bootstrap
        >>> h1, first, second = np.random.default_rng(0).random((3, 2000)) < [[0.8], [0.9], [0.85]]
        >>> cell = 4 * h1 + 2 * first + second
        >>> difference, low, high = paired_bootstrap(np.bincount(cell, minlength=8).reshape(2, 2, 2), "btc")
        >>> low < difference < high
        True
    """
    table = np.asarray(counts)
    if table.shape != (2, 2, 2) or table.dtype.kind not in "iu" or (table < 0).any() or not table.sum():
        raise ValueError(
            "counts: expected integers of shape (2, 2, 2), indexed [h1_right, first_right, second_right], with at "
            f"least one instance; got {table.dtype} of shape {table.shape}"
        )
    confidence = checked_confidence(confidence)
    if resamples < 100:
        raise ValueError(f"resamples: expected at least 100, got {resamples}")
    total = int(table.sum())
    drawn = np.random.default_rng(seed).multinomial(total, table.ravel() / total, size=resamples)
    differences = _score_difference(drawn.reshape(-1, 2, 2, 2), score)
    estimate = float(_score_difference(table[None], score)[0])
    error = (1 - confidence) / 2
    if total > 1:
        from scipy.special import stdtrit

        error = NormalDist().cdf(math.sqrt(total / (total - 1)) * float(stdtrit(total - 1, error)))
    low, high = np.quantile(differences, [error, 1 - error])
    return estimate, float(low), float(high)


def _score_difference(tables: NDArray[np.integer], score: str) -> NDArray[np.float64]:
    first, second = score_from_counts(score, tables.sum(axis=3)), score_from_counts(score, tables.sum(axis=2))
    return np.asarray(first, np.float64) - np.asarray(second, np.float64)


def _margin_input(counts: tuple[int, int, int, int], margin: float, confidence: float) -> tuple[tuple[int, ...], float]:
    cells = _counts(("both", "only_second", "only_first", "neither"), counts)
    if sum(cells) == 0:
        raise ValueError("expected at least one instance, got none")
    if not 0 < margin < 1:
        raise ValueError(f"margin: expected a number between 0 and 1 such as 0.005, got {margin!r}")
    return cells, checked_confidence(confidence)


def _counts(names: Sequence[str], counts: Sequence[int]) -> tuple[int, ...]:
    try:
        whole = tuple(map(operator.index, counts))
    except TypeError:
        raise TypeError(f"{', '.join(names)}: expected integers; pass counts, not shares") from None
    if min(whole) < 0:
        raise ValueError(f"expected counts that are not negative, got {dict(zip(names, whole, strict=True))}")
    return whole
