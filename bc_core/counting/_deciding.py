"""How much more evidence of the same kind would decide whether a score keeps its limit."""

from __future__ import annotations

from collections.abc import Callable

from bc_core.counting._weighted import chance_of_so_few, chance_of_so_many

# Beyond so many times the instances that there are, nobody has them.
MOST_TIMES = 10_000.0


def is_decided(share: float, trials: float, limit: float, higher_is_better: bool, error: float) -> bool:
    """Whether a one-sided bound of Clopper and Pearson shows that a share keeps its limit, or that it breaks it.

    Args:
        share: What was measured.
        trials: Of how many, which need not be a whole number.
        limit: A least where higher is better, else a most.
        higher_is_better: Which of the two.
        error: The chance of error of either bound.

    Example:
        >>> from bc_core.counting._deciding import is_decided
        >>> is_decided(0.0, 298, 0.01, False, 0.05), is_decided(0.0, 299, 0.01, False, 0.05)
        (False, True)
    """
    few, many = (chance(share * trials, trials, limit) for chance in (chance_of_so_few, chance_of_so_many))
    kept, broken = (many, few) if higher_is_better else (few, many)
    return kept <= error or broken < error


def least_times(decided: Callable[[float], bool]) -> float | None:
    """How many times the evidence that there is would decide; None where no number would that anybody has."""
    high = 1.0
    while not decided(high):
        if high >= MOST_TIMES:
            return None
        high *= 2
    low = high / 2
    while high - low > 1e-3 * low:
        middle = (low + high) / 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return high
