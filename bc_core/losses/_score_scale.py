"""What values of scores say of their scale, logits or probabilities: one rule for both sides."""

from __future__ import annotations

ENOUGH_SCORES = 16
"""So many logits all lie in 0..1 only where somebody put them there."""


def are_probabilities(low: float, high: float, entries: int) -> bool:
    """Whether binary scores from `low` to `high`, `entries` of them, are probabilities rather than logits.

    Example:
        >>> [are_probabilities(*seen) for seen in ((0.1, 0.9, 64), (0.1, 0.9, 4), (-0.3, 0.9, 64))]
        [True, False, False]
    """
    return entries >= ENOUGH_SCORES and low >= 0 and high <= 1
