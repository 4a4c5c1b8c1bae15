"""Whether a promise is kept: met, missed, or cannot be told from so few instances."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from bc_core.counting._deciding import is_decided, least_times
from bc_core.counting._overlap import ErrorOverlap, Verdict
from bc_core.counting._scores import score_terms
from bc_core.promise._grammar import Constraint, Promise

Word = Literal["met", "missed", "cannot be told"]

_WORDS: dict[Verdict, Word] = {"pass": "met", "fail": "missed", "inconclusive": "cannot be told"}


class Finding(NamedTuple):
    """What one bound of a promise came to.

    Attributes:
        constraint: Score and limit.
        verdict: ``"met"``, ``"missed"`` or ``"cannot be told"``.
        value: The score; nan where nothing is counted for it.
        bound: Its unfavourable one-sided bound: an upper one where low is good. The promise is met where it keeps it.
        overlap: The counts that it is read from.
        confidence: Of the bound.
    """

    constraint: Constraint
    verdict: Word
    value: float
    bound: float
    overlap: ErrorOverlap
    confidence: float

    @property
    def target(self) -> float:
        """The limit, a share."""
        return self.constraint.limit

    @property
    def excess(self) -> float:
        """By how much the score breaks the limit; negative where it keeps it."""
        return self.constraint.excess(self.value)

    @property
    def instances_needed(self) -> int | None:
        """How many instances would decide if the score stayed as it is.

        None where it is decided, or where no number would (the score is at the limit). It is a search, which only
        those who ask for it pay.
        """
        if self.verdict != "cannot be told":
            return None
        return _instances_needed(self.constraint, self.overlap, self.confidence)

    def __str__(self) -> str:
        if math.isnan(self.value):
            return f"no instance counts for {self.constraint.score}"
        # What decides: where it is missed, that even the favourable bound is beyond the limit.
        missed = self.verdict == "missed"
        bound = self.constraint.bound(self.overlap, self.confidence, favourable=True) if missed else self.bound
        side = "at least" if self.constraint.higher_is_better != missed else "at most"
        found = f"{self.constraint.score} is {_percent(self.value)}, {side} {_percent(bound)}"
        if missed:
            least = self.constraint.excess(bound)
            return f"{found}: missed by {100 * self.excess:.2g} points, at least {100 * least:.2g}"
        if (needed := self.instances_needed) is not None:
            return f"{found}: about {needed - self.overlap.total} more instances would decide"
        return found


@dataclass(frozen=True)
class PromiseVerdict:
    """Whether a promise was kept on some data: what training leaves in ``h2.promise``, and `judge` gives.

    Attributes:
        promise: What was promised.
        findings: What each of its bounds came to.
        overlap: The counts that it is read from.
        confidence: Of each bound.
        reason: Why nothing can be told, where that is not the number of instances.
        looks: How often these data were looked at while they steered a training; 0 where they took no part in it. A
            bound of the first look holds; of later ones the best is shown, of weights that earlier ones have steered.

    Example:
        >>> from bc_core import ErrorOverlap, judge
        >>> overlap = ErrorOverlap([[[10, 30], [20, 940]]])  # 20 negative flips in 1000
        >>> print(judge("nfr <= 3%", overlap))
        Promise nfr <= 3%: met. On 1000 held-out instances nfr is 2%, at most 2.893% (95% confidence).
        >>> verdict = judge("nfr <= 2.5%", overlap)
        >>> verdict.verdict, verdict.value, verdict.target, verdict.findings[0].instances_needed
        ('cannot be told', 0.02, 0.025, 2725)
        >>> print(judge("nfr <= 1%", overlap).findings[0])
        nfr is 2%, at least 1.329%: missed by 1 points, at least 0.33
    """

    promise: Promise
    findings: tuple[Finding, ...]
    overlap: ErrorOverlap
    confidence: float
    reason: str = ""
    looks: int = 0

    @property
    def verdict(self) -> Word:
        """``"met"`` where all bounds are, ``"missed"`` where one is, else ``"cannot be told"``."""
        if self.reason:
            return "cannot be told"
        words = [finding.verdict for finding in self.findings]
        return "missed" if "missed" in words else "met" if set(words) == {"met"} else "cannot be told"

    @property
    def decisive(self) -> Finding:
        """The bound that comes off worst: missed before undecided before met, and of these the farthest from kept."""
        order = ("met", "cannot be told", "missed")

        def badness(finding: Finding) -> tuple[int, float]:
            excess = finding.constraint.excess(finding.bound)
            return order.index(finding.verdict), math.inf if math.isnan(excess) else excess

        return max(self.findings, key=badness)

    @property
    def value(self) -> float:
        """The score of the bound that comes off worst."""
        return self.decisive.value

    @property
    def bound(self) -> float:
        """Its unfavourable one-sided bound."""
        return self.decisive.bound

    @property
    def target(self) -> float:
        """Its limit."""
        return self.decisive.target

    @property
    def excess(self) -> float:
        """By how much its score breaks the limit; negative where it keeps it."""
        return self.decisive.excess

    def __str__(self) -> str:
        found = self.reason or "; ".join(map(str, self.findings))
        return (
            f"Promise {self.promise}: {self.verdict}. On {self.overlap.total} held-out instances {found} "
            f"({100 * self.confidence:g}% confidence{self._steered})."
        )

    @property
    def _steered(self) -> str:
        # The first look chooses nothing, as nothing was chosen before it.
        if self.looks < 2:
            return ""
        return f" of one look; {self.looks} at these data steered the training, so judge a release on others"


def judge(promise: str | Iterable[str] | Promise, overlap: ErrorOverlap, confidence: float = 0.95) -> PromiseVerdict:
    """Judge a promise by one-sided Clopper-Pearson bounds, as `ErrorOverlap.gate` does.

    A model that breaks the promise is said to keep it with a probability of at most ``1 - confidence``, also where
    the promise has several bounds, as all of them have to be kept.

    Args:
        promise: As text, ``"nfr <= 0.5%"``, or read.
        overlap: Counts of h1 and h2 on data that took no part in the training.
        confidence: Of each bound.

    Returns:
        The verdict. Where h1 is right on no instance nothing could break, and nothing can be told.

    Raises:
        TypeError, ValueError: A promise that cannot be read, or a confidence that is no share.
    """
    promise = Promise.of(promise)
    findings = tuple(_find(constraint, overlap, confidence) for constraint in promise)
    reason = ""
    if overlap.total == 0:
        reason = "there are no instances"
    elif overlap.both_right + overlap.h1_only_right == 0:
        reason = "h1 is right on none of them, so nothing could break; look at h1 and at the labels"
    return PromiseVerdict(promise, findings, overlap, confidence, reason)


def _find(constraint: Constraint, overlap: ErrorOverlap, confidence: float) -> Finding:
    verdict = _WORDS[overlap.gate(constraint.score, constraint.limit, confidence)]
    value = overlap.score(constraint.score, math.nan)
    return Finding(constraint, verdict, value, constraint.bound(overlap, confidence), overlap, confidence)


def _instances_needed(constraint: Constraint, overlap: ErrorOverlap, confidence: float) -> int | None:
    """How many instances of the same kind would decide: a search over multiples of those that there are."""
    above, below = (float(count) for count in score_terms(constraint.score, overlap.counts.sum(axis=0)))
    if not below or above / below == constraint.limit:
        return None
    times = least_times(
        lambda times: is_decided(
            above / below, below * times, constraint.limit, constraint.higher_is_better, 1 - confidence
        )
    )
    return None if times is None else math.ceil(times * overlap.total)


def _percent(share: float) -> str:
    return f"{100 * share:.4g}%"
