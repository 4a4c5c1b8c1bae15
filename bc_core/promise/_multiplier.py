"""lambda_c as the multiplier of a promise: raised while the promise is broken, lowered while there is room."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bc_core.promise._verdict import Finding, PromiseVerdict

# What one look may add up: while h2 has learned little it breaks much whatever lambda_c is, and a lambda_c that has
# grown far in that time costs accuracy that does not come back.
_MOST = 0.5


class Multiplier:
    r"""Dual ascent on the logarithm of lambda_c, by a proportional-integral rule.

    .. math::
        \log \lambda_{t+1} = \log \lambda_t + k_i \bar e_t + k_p (e_t - e_{t-1}), \quad
        e_t = \log \frac{\text{bound of the share that breaks}}{\text{aim} \cdot \text{most that is promised}}

    for a promise of several bounds the largest, :math:`\bar e` cut to -0.5..0.5. The share is that of the weights of
    now, less what their mean was seen to spare when it was looked at last, so that it need not be looked at each time.
    The model's own step is on the differentiable dissonance, the multiplier's on the true score: a proxy-Lagrangian. In
    the logarithm one gain serves a lambda_c of 0.1 and of 64. The proportional term, what an augmented Lagrangian adds,
    is not cut: what falls by itself as h2 learns takes lambda_c down as far as the integral has taken it up.

    Args:
        start: lambda_c at first.
        least, most: between which it stays.
        integral: gain :math:`k_i`.
        proportional: gain :math:`k_p`.
        aim: which part of the most that is promised is aimed at, since the bound comes near its aim from outside.

    Reference:
        Cotter et al., "Two-player games for efficient non-convex constrained optimization", ALT 2019; Sohrabi et al.,
        "On PI controllers for updating Lagrange multipliers in constrained optimization", ICML 2024.

    Example:
        >>> from bc_core import ErrorOverlap, judge
        >>> from bc_core.promise._multiplier import Multiplier
        >>> multiplier = Multiplier(start=1.0)
        >>> multiplier.update(judge("nfr <= 0.5%", ErrorOverlap([[[10, 30], [20, 940]]])))
        >>> multiplier.lambda_c > 1
        True
    """

    def __init__(
        self,
        start: float = 1.0,
        least: float = 2.0**-7,
        most: float = 64.0,
        integral: float = 0.4,
        proportional: float = 1.0,
        aim: float = 0.85,
    ) -> None:
        self.lambda_c = start
        self._least, self._most, self._integral, self._proportional = least, most, integral, proportional
        self._aim = math.log(aim)
        self._last: float | None = None
        self._spared = 0.0

    def update(self, now: PromiseVerdict, shown: PromiseVerdict | None = None) -> None:
        """Move lambda_c by what a look at held-out data has shown.

        Args:
            now: Of the weights of now.
            shown: The better of that and of their mean; None where the mean was not looked at.
        """
        excess, better = self._excess(now), None if shown is None else self._excess(shown)
        if excess is None:
            return
        if better is not None:
            self._spared = excess - better
        excess = excess - self._spared if better is None else better
        change = 0.0 if self._last is None else excess - self._last
        self._last = excess
        added = self._integral * min(max(excess, -_MOST), _MOST)
        moved = math.log(self.lambda_c) + added + self._proportional * change
        self.lambda_c = min(max(math.exp(moved), self._least), self._most)

    def _excess(self, verdict: PromiseVerdict) -> float | None:
        excesses = [log_excess(finding) - self._aim for finding in verdict.findings if not math.isnan(finding.value)]
        return max(excesses, default=None)

    def state_dict(self) -> dict[str, Any]:
        """What it has to remember, as plain values."""
        return {"lambda_c": self.lambda_c, "last_excess": self._last, "spared": self._spared}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another one stood."""
        self.lambda_c, self._last = state["lambda_c"], state["last_excess"]
        # A checkpoint of when the mean was looked at each time has none.
        self._spared = state.get("spared", 0.0)


def log_excess(finding: Finding) -> float:
    """How many times the bound is what it may be, as a logarithm; 0 where nothing is counted for the score."""
    if math.isnan(finding.value):
        return 0.0
    higher_is_better, limit, bound = finding.constraint.higher_is_better, finding.target, finding.bound
    breaking, allowed = (1 - bound, 1 - limit) if higher_is_better else (bound, limit)
    return math.log(max(breaking, 1e-12) / allowed)
