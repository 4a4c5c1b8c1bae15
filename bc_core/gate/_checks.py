"""One check: a bound on what some instances say, judged pass, fail or inconclusive."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, NamedTuple

from bc_core.counting._deciding import MOST_TIMES, least_times
from bc_core.counting._overlap import Verdict
from bc_core.counting._paired import chance_at_most, newcombe_bounds
from bc_core.counting._scores import SCORES
from bc_core.counting._several import holm
from bc_core.counting._weighted import chance_of_so_few, chance_of_so_many, exact_bounds
from bc_core.gate._evidence import Evidence
from bc_core.promise._grammar import Constraint


class Found(NamedTuple):
    """What some instances say about a bound."""

    value: float
    low: float
    high: float
    broken: float  # p-value of "the bound is kept": small says that it is broken
    kept: bool  # whether the unfavourable bound keeps it


@dataclass(frozen=True)
class Check:
    """What one bound came to.

    Attributes:
        scope: On which instances, such as "all instances", "class cat" or "slice region=eu".
        wanted: What was asked, in words.
        verdict: `"pass"`, `"fail"` or `"inconclusive"`.
        value: What was measured; nan where no instance counts for it.
        low: Lower one-sided bound of it.
        high: Upper one-sided bound.
        instances: Number of instances in the scope.
        more: How many more would decide it if they were of the same kind; None where it is decided, or none would.
        note: What else is to be known.
        ids: The instances that broke it, where these decide.
    """

    scope: str
    wanted: str
    verdict: Verdict
    value: float
    low: float
    high: float
    instances: int
    more: int | None = None
    note: str = ""
    ids: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON, which has no nan."""
        numbers = {name: None if math.isnan(v := getattr(self, name)) else v for name in ("value", "low", "high")}
        return {
            "scope": self.scope,
            "wanted": self.wanted,
            "verdict": self.verdict,
            **numbers,
            "instances": self.instances,
            "more_instances": self.more,
            "note": self.note,
            "ids": list(self.ids),
        }


@dataclass(frozen=True)
class Question:
    """A bound on some instances that is yet to be judged.

    Attributes:
        scope: As in `Check`.
        evidence: What the instances say.
        bound: A bound on a score; or the least gain of accuracy.
        margin: Whether the gain was asked as a margin of non-inferiority.
    """

    scope: str
    evidence: Evidence
    bound: Constraint | float
    margin: bool = False

    @property
    def wanted(self) -> str:
        """What is asked, in words."""
        if isinstance(self.bound, Constraint):
            relation = "at least" if self.bound.higher_is_better else "at most"
            return f"{SCORES[self.bound.score].title} {relation} {_percent(self.bound.limit)}"
        if self.margin:
            return f"change of accuracy above {_percent(self.bound)}"
        return f"accuracy gains at least {_percent(self.bound)}"

    def found(self, confidence: float) -> Callable[[float], Found]:
        """Value, bounds and p-value, for so many times as much evidence as there is."""
        bound = self.bound
        if isinstance(bound, Constraint):
            above, below = self.evidence.ratio(bound.score)
            return lambda times: _of_score(bound, above, below, confidence, times)
        cells = self.evidence.cells()
        return lambda times: _of_gain(bound, cells, confidence, times)


def judged(questions: Sequence[Question], confidence: float) -> list[Check]:
    """Judge all bounds together.

    An update passes where every unfavourable bound keeps its limit: one that breaks any of them gets through with a
    chance of at most 1 - confidence, however many there are. It fails where a bound is shown to be broken; as more
    questions give more false alarms, those are held to 1 - confidence over all of them by Holm's procedure.

    Args:
        questions: The bounds.
        confidence: Of both.

    Reference:
        Berger, "Multiparameter hypothesis testing and acceptance sampling", Technometrics 24 (1982), for the passing;
        Holm (1979) for the failing.
    """
    scaled = [question.found(confidence) for question in questions]
    found = [at(1.0) for at in scaled]
    checks = []
    for question, at, each, verdict in zip(questions, scaled, found, verdicts_of(found, confidence), strict=True):
        check = Check(question.scope, question.wanted, verdict, each.value, each.low, each.high, question.evidence.size)
        if verdict == "inconclusive":
            # False alarms are shared among all checks, so that failing needs more than passing.
            check = _with_what_is_missing(check, question.bound, at, (1 - confidence) / len(questions))
        checks.append(check)
    return checks


def verdicts_of(found: Sequence[Found], confidence: float) -> list[Verdict]:
    """Pass, fail or inconclusive, of questions that are judged together."""
    fails = (holm([each.broken for each in found]) < 1 - confidence).tolist()
    return [
        "fail" if failing else "pass" if each.kept else "inconclusive"
        for each, failing in zip(found, fails, strict=True)
    ]


def whole_verdict(checks: Sequence[Check]) -> Verdict:
    """Fail where any check fails, else inconclusive where any is, else pass."""
    verdicts = {check.verdict for check in checks}
    return "fail" if "fail" in verdicts else "inconclusive" if "inconclusive" in verdicts else "pass"


def _of_score(bound: Constraint, above: float, below: float, confidence: float, times: float) -> Found:
    if not below:
        return Found(math.nan, 0.0, 1.0, 1.0, False)
    share, below = above / below, below * times
    low, high = exact_bounds(share, below, 1 - confidence)
    if bound.higher_is_better:
        return Found(share, low, high, chance_of_so_few(share * below, below, bound.limit), low >= bound.limit)
    return Found(share, low, high, chance_of_so_many(share * below, below, bound.limit), high <= bound.limit)


def _of_gain(least: float, cells: Sequence[float], confidence: float, times: float) -> Found:
    cells = [cell * times for cell in cells]
    if not sum(cells):
        return Found(math.nan, -1.0, 1.0, 1.0, False)
    both, only_h1, only_h2, neither = cells
    low, high = newcombe_bounds((both, only_h2, only_h1, neither), -NormalDist().inv_cdf(1 - confidence))
    # That h1 is ahead by more than -least says that the gain is less.
    broken = chance_at_most((both, only_h1, only_h2, neither), -least)
    return Found((only_h2 - only_h1) / sum(cells), low, high, broken, low >= least)


def _with_what_is_missing(check: Check, bound: Constraint | float, at: Callable[[float], Found], alarm: float) -> Check:
    if math.isnan(check.value):
        return replace(check, note="no instance counts for it")
    limit = bound.limit if isinstance(bound, Constraint) else bound
    if check.value == limit:
        if limit in (0, 1):
            return replace(check, note="no number of instances shows a rate of exactly that; name critical instances")
        return replace(check, note="measured at the limit itself, which no number of instances decides")

    def decided(times: float) -> bool:
        found = at(times)
        return found.kept or found.broken < alarm

    times = least_times(decided)
    if times is None:
        return replace(check, note=f"too close to the limit for {MOST_TIMES:,.0f} times the instances to decide")
    return replace(check, more=max(1, math.ceil((times - 1) * check.instances)))


def _percent(share: float) -> str:
    return f"{100 * share:.4g}%"
