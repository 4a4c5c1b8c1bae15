"""The way from h1 to h2, step by step: which mixture of the two keeps a promise and is the most accurate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from bc_core.counting._overlap import ErrorOverlap
from bc_core.promise._grammar import Promise
from bc_core.promise._verdict import PromiseVerdict, judge

DEFAULT_ALPHAS = tuple(round(step / 20, 2) for step in range(21))
"""0, h2 itself, to 1, h1 itself."""


class Trial(NamedTuple):
    """One mixture of h1 and h2, and what validation data say of it.

    Attributes:
        setting: Where it stands: alpha, weight or ratio.
        verdict: Whether it keeps the promise, with the bound that decides and the counts.
        eligible: Whether it may be chosen: it keeps the promise, and so do all that lie between it and h1.
        layers: The share of h1 in each layer, where they differ.
    """

    setting: float
    verdict: PromiseVerdict
    eligible: bool
    layers: Mapping[str, float] | None = None

    @property
    def overlap(self) -> ErrorOverlap:
        """Counts of h1 and the mixture."""
        return self.verdict.overlap

    def row(self) -> dict[str, object]:
        """As a row of a table: shares, and the bound that decides."""
        overlap = self.overlap
        return {
            "setting": self.setting,
            "accuracy": overlap.accuracy_h2,
            "nfr": overlap.nfr,
            "btc": overlap.btc,
            "bound": self.verdict.bound,
            "verdict": self.verdict.verdict,
            "eligible": self.eligible,
        }


def walk(
    settings: Iterable[float],
    overlap_of: Callable[[float], ErrorOverlap],
    promise: Promise,
    confidence: float,
    h2_itself: float | None = None,
) -> tuple[list[Trial], Trial]:
    """Try all mixtures from h1 to h2, and choose the most accurate one that keeps the promise.

    So many trials would find one that keeps it by luck. Therefore they are one sequence, walked from h1, which breaks
    nothing, and those behind the first that does not keep the promise are not eligible: whatever is chosen, the chance
    that it breaks a promise it is said to keep is at most ``1 - confidence`` (testing in a fixed sequence; Angelopoulos
    et al., "Learn then Test", 2021). h2 itself is eligible also by itself, as it was not chosen here, which may err as
    often once more. Bounds that h1 does not keep, such as an accuracy above its own, do not end the sequence and hold
    each by itself.

    Args:
        settings: From h1's side to h2's.
        overlap_of: Counts of h1 and the mixture, on validation data.
        promise: What is to be kept.
        confidence: Of each bound.
        h2_itself: The setting that is h2.

    Returns:
        All trials, and the one to take: eligible and of the best accuracy, of equals the one with the better bound;
        where none is eligible the nearest to the promise, which is not said to keep it.
    """
    verdicts = [(setting, judge(promise, overlap_of(setting), confidence)) for setting in settings]
    # An accuracy, say, that h1 itself does not reach is no matter of the way from it. It need not be among the trials.
    of_h1 = judge(promise, _of_itself(verdicts[0][1].overlap), confidence)
    kept_by_h1 = {each.constraint for each in of_h1.findings if each.verdict == "met"}
    on_the_way, trials = True, []
    for setting, verdict in verdicts:
        met = {each.constraint for each in verdict.findings if each.verdict == "met"}
        on_the_way = on_the_way and kept_by_h1 <= met
        is_met = verdict.verdict == "met"
        trials.append(Trial(setting, verdict, is_met and (on_the_way or setting == h2_itself)))
    chosen = max(trials, key=_merit)
    if not chosen.eligible and chosen.verdict.verdict == "met":
        chosen = chosen._replace(verdict=replace(chosen.verdict, reason=_LUCK))
    return trials, chosen


_LUCK = "a mixture nearer to h1 is not shown to keep it, so that this one seems to may be luck"


def refine(
    layers: Sequence[str],
    start: Trial,
    overlap_of: Callable[[Mapping[str, float]], ErrorOverlap],
    promise: Promise,
    confidence: float,
    max_trials: int,
) -> tuple[list[Trial], Trial]:
    """Give each layer a share of h1 of its own: moved one by one, kept where that is better, until nothing is.

    Args:
        layers: Their names.
        start: All layers alike.
        overlap_of: Counts of h1 and a mixture, on validation data.
        promise: What is to be kept.
        confidence: Of each bound; the caller has divided the chance of an error by the number of trials.
        max_trials: How many mixtures are tried at most.

    Returns:
        The trials, and the best, which may be the start.
    """
    best, trials = start, list[Trial]()
    shares = dict.fromkeys(layers, start.setting)
    for step in (0.5, 0.25):
        improved = True
        while improved:
            improved = False
            for layer in layers:
                for share in (max(0.0, shares[layer] - step), min(1.0, shares[layer] + step)):
                    if share == shares[layer]:
                        continue
                    if len(trials) == max_trials:
                        return trials, best
                    tried = {**shares, layer: share}
                    verdict = judge(promise, overlap_of(tried), confidence)
                    mean = sum(tried.values()) / len(tried)
                    trial = Trial(mean, verdict, verdict.verdict == "met", tried)
                    trials.append(trial)
                    if _merit(trial) > _merit(best):
                        best, shares, improved = trial, tried, True
    return trials, best


def smallest_share(
    shares: Sequence[float], overlap_of: Callable[[float], ErrorOverlap], promise: Promise, confidence: float
) -> tuple[float, PromiseVerdict]:
    """How far back towards h1 to go at least, by halving: the share and its verdict; the last share if none keeps it.

    Args:
        shares: Shares of h1, rising, the last of which is 1.
        overlap_of: Counts of h1 and the mixture.
        promise: What is to be kept.
        confidence: Of each bound.
    """
    low, high = 0, len(shares) - 1
    verdict = judge(promise, overlap_of(shares[0]), confidence)
    if verdict.verdict == "met":
        return shares[0], verdict
    found: PromiseVerdict | None = None
    while high - low > 1:
        middle = (low + high) // 2
        verdict = judge(promise, overlap_of(shares[middle]), confidence)
        if verdict.verdict == "met":
            high, found = middle, verdict
        else:
            low = middle
    return shares[high], judge(promise, overlap_of(shares[high]), confidence) if found is None else found


def _of_itself(overlap: ErrorOverlap) -> ErrorOverlap:
    """Counts of h1 and h1 on the same instances."""
    h1_right = overlap.both_right + overlap.h1_only_right
    return ErrorOverlap([[[overlap.total - h1_right, 0], [0, h1_right]]])


def _merit(trial: Trial) -> tuple[bool, float, float]:
    finding = trial.verdict.decisive
    excess = finding.constraint.excess(finding.bound)
    excess = math.inf if math.isnan(excess) else excess
    if trial.eligible:
        return True, trial.overlap.accuracy_h2, -excess
    return False, -excess, trial.overlap.accuracy_h2


def check_order(data: object) -> None:
    """Refuse a promise where the data belong.

    Raises:
        TypeError: It is one.
    """
    if isinstance(data, (str, Promise)):
        raise TypeError(f"The data come before the promise: (h1, h2, data, promise). Received: data={str(data)!r}.")


def checked_alphas(alphas: Iterable[float] | None) -> tuple[float, ...]:
    """Shares of h1, falling from h1's side to h2's.

    Raises:
        ValueError: There is none, or one lies outside of 0 to 1.
    """
    try:
        given = DEFAULT_ALPHAS if alphas is None else tuple(float(alpha) for alpha in alphas)
    except (TypeError, ValueError):
        given = ()
    if not given or not all(0 <= alpha <= 1 for alpha in given):
        raise ValueError(f"alphas must be shares of h1 from 0 (h2) to 1 (h1), at least one. Received: {alphas!r}.")
    return tuple(sorted(set(given), reverse=True))
