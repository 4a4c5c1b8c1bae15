"""Flips that a retraining alone makes: what an update's flips are to be compared with."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from bc_core._arrays import matching_labels
from bc_core.counting._intervals import checked_confidence


class NoiseFloor(NamedTuple):
    """Negative flip rates between trainings that differ by their seed alone; `noise_floor` returns it.

    Attributes:
        rate: Mean rate over all ordered pairs of trainings.
        lowest: The least of a pair.
        highest: The greatest of a pair.
        seeds: How many trainings there were.
        excess: The update's rate less the mean rate from h1 to another seed of it; None where no update was given.
        low: Lower bound of the excess.
        high: Upper bound of the excess.
    """

    rate: float
    lowest: float
    highest: float
    seeds: int
    excess: float | None = None
    low: float | None = None
    high: float | None = None


def noise_floor(
    target: Any, h1_pred: Any, other_seeds: Sequence[Any], h2_pred: Any = None, confidence: float = 0.95
) -> NoiseFloor:
    """How many negative flips h1's own recipe makes when only its seed changes, and how many more an update makes.

    Args:
        target: N true labels.
        h1_pred: N labels that h1 predicts.
        other_seeds: One entry for each further training of h1's recipe: N labels that it predicts.
        h2_pred: N labels that the update predicts.
        confidence: Coverage of the bounds of the excess, between 0 and 1 exclusive.

    Returns:
        The rates. The bounds cover the choice of instances; how much seeds differ is in `lowest` and `highest`.

    Raises:
        ValueError: If there is no other seed, or labels are as `compare` refuses them.

    Example:
        >>> from bc_core import noise_floor
        >>> floor = noise_floor([0, 1, 1, 0], [0, 1, 0, 0], [[0, 1, 1, 1]], h2_pred=[1, 0, 1, 0])
        >>> floor.rate, floor.excess
        (0.25, 0.25)
    """
    checked_confidence(confidence)
    if len(other_seeds) == 0:
        raise ValueError("other_seeds: expected the predictions of at least one more training of h1's recipe, got none")
    right = []
    for number, predicted in enumerate([h1_pred, *other_seeds]):
        name = "h1_pred" if number == 0 else f"other_seeds[{number - 1}]"
        truth, labels, _ = matching_labels(target, predicted, predicted, ("target", name, name))
        right.append(labels == truth)
    rates = [float((a & ~b).mean()) for i, a in enumerate(right) for j, b in enumerate(right) if i != j]
    plain = NoiseFloor(float(np.mean(rates)), min(rates), max(rates), len(right))
    if h2_pred is None:
        return plain
    truth, labels, _ = matching_labels(target, h2_pred, h2_pred, ("target", "h2_pred", "h2_pred"))
    # Paired by instance: one that any retraining loses says little against the update.
    surplus = right[0] * ((labels != truth) - np.mean([~other for other in right[1:]], axis=0))
    excess, size = float(surplus.mean()), len(truth)
    # One instance more on either side, so that no interval has width 0.
    spread = (float(np.square(surplus - excess).sum() + 1) / (size + 1) / size) ** 0.5
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * spread
    return plain._replace(excess=excess, low=max(-1.0, excess - reach), high=min(1.0, excess + reach))
