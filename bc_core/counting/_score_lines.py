"""All scores over some instances, with their intervals, as they are laid out for a person."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bc_core.counting._intervals import checked_confidence
from bc_core.counting._scores import SCORES
from bc_core.counting._weighted import wilson_bounds


@dataclass(frozen=True)
class ScoreLine:
    """A score over all instances, with its interval.

    Attributes:
        name: A key of `SCORES`.
        value: The score; nan where nothing is below the fraction bar.
        low: Lower bound.
        high: Upper bound.
        above: Instances above the fraction bar; of weighted or clustered ones, an effective number.
        below: Instances below it.
    """

    name: str
    value: float
    low: float
    high: float
    above: float
    below: float

    @property
    def title(self) -> str:
        """What it is called."""
        return SCORES[self.name].title

    def __str__(self) -> str:
        if not self.below:
            return f"{self.title:<20}  {'-':>8}  {'undefined':<18}  0 / 0"
        interval = f"{self.low:.2%} to {self.high:.2%}"
        above, below = (f"{number:.0f}" if number % 1 == 0 else f"{number:.10g}" for number in (self.above, self.below))
        return f"{self.title:<20}  {self.value:>8.2%}  {interval:<18}  {above} / {below}"


def score_lines(ratio: Callable[[str], tuple[float, float]], confidence: float) -> Iterator[ScoreLine]:
    """Every score, with Wilson's interval; `ratio` gives what is above and below the fraction bar of one."""
    error = (1 - checked_confidence(confidence)) / 2
    for name in SCORES:
        above, below = ratio(name)
        share = above / below if below else math.nan
        yield ScoreLine(name, share, *wilson_bounds(share, below, error), above, below)
