"""Choosing among the points of a sweep: the Pareto front, and the best point under constraints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bc_core.comparison._comparison import Comparison
from bc_core.counting._overlap import ErrorOverlap
from bc_core.counting._scores import SCORES
from bc_core.promise._grammar import Constraint, constraint_of
from bc_core.sweep._points import Point


class Candidate(NamedTuple):
    """A trained model among which is chosen."""

    loss: str
    point: Point
    overlap: ErrorOverlap
    performance: Sequence[float | None] | None


@dataclass(frozen=True)
class Choice:
    """The model that `SweepResults.best` chose.

    Attributes:
        loss: Its loss.
        lambda_c: Its weight of the dissonance.
        seed: Its seed.
        dataset: Name of the data it was chosen on.
        overlap: Counts on these.
        test: Counts on the test data, which took no part in the choice; None where there are none.
        verdicts: Each constraint with the bound that decided.
        comparison_path: File of the comparison on the data it was chosen on.
        model_path: File of the model; None where models were not kept.
        promise: What its training was held to; None where lambda_c was constant. It moved lambda_c, which is that at
            the end.
    """

    loss: str
    lambda_c: float
    seed: int
    dataset: str
    overlap: ErrorOverlap
    test: ErrorOverlap | None
    verdicts: Mapping[str, float]
    comparison_path: Path = field(repr=False)
    model_path: Path | None = field(repr=False, default=None)
    promise: str | None = None

    @property
    def comparison(self) -> Comparison:
        """The comparison on the data it was chosen on, with its error instances."""
        return Comparison.load(self.comparison_path)

    def __str__(self) -> str:
        held_to = "" if self.promise is None else f"promise {self.promise}, "
        lines = [f"{self.loss}, {held_to}lambda_c = {self.lambda_c:g}, seed {self.seed}"]
        for constraint, bound in self.verdicts.items():
            lines.append(f"{self.dataset}: {constraint}, bound {bound:.2%}")
        shown = {self.dataset: self.overlap} | ({} if self.test is None else {"test": self.test})
        for name, overlap in shown.items():
            low, high = overlap.interval("nfr")
            lines.append(
                f"{name}: accuracy {overlap.accuracy_h2:.2%} (h1 {overlap.accuracy_h1:.2%}), BTC {overlap.btc:.2%}, "
                f"NFR {overlap.nfr:.2%} ({low:.2%} to {high:.2%})"
            )
        return "\n".join(lines)


def best_of(
    candidates: Sequence[Candidate], constraints: Sequence[str], maximize: str, confidence: float, dataset: str
) -> tuple[Candidate, dict[str, float]]:
    """Choose the best candidate among those whose bounds keep all constraints; the first of equals.

    Returns:
        The candidate, and the bound that decided by constraint.

    Raises:
        ValueError: A constraint that cannot be read, an unknown goal.
        LookupError: No candidate keeps them all.
    """
    checked = [constraint_of(text) for text in constraints]
    values = [_goal(candidate, maximize) for candidate in candidates]
    passing = [
        (value, candidate)
        for value, candidate in zip(values, candidates, strict=True)
        if not math.isnan(value)
        and all(candidate.overlap.gate(c.score, c.limit, confidence) == "pass" for c in checked)
    ]
    if not passing:
        raise LookupError(_nobody(candidates, checked, confidence, dataset))
    # The smaller lambda_c of equals: what changes the training less.
    _, chosen = max(passing, key=lambda pair: (pair[0], -pair[1].point.lambda_c))
    return chosen, {str(c): c.bound(chosen.overlap, confidence) for c in checked}


def _goal(candidate: Candidate, maximize: str) -> float:
    if maximize == "performance_h2":
        if candidate.performance is None:
            raise ValueError("performance_h2 is not there: the sweep was given no metric. Take maximize='accuracy_h2'.")
        value = candidate.performance[1]
        return math.nan if value is None else value
    if maximize not in SCORES or SCORES[maximize].higher_is_better is None:
        known = [name for name, score in SCORES.items() if score.higher_is_better is not None]
        raise ValueError(f"maximize must be one of {', '.join(known)}, performance_h2. Received: {maximize!r}.")
    value = candidate.overlap.score(maximize)
    return value if SCORES[maximize].higher_is_better else -value


def _nobody(candidates: Sequence[Candidate], constraints: Sequence[Constraint], confidence: float, dataset: str) -> str:
    wanted = " and ".join(map(str, constraints)) or "a performance that is a number"
    if not candidates or not constraints:
        return f"No finished point has {wanted} on the data set {dataset!r}."

    undefined = [
        c for c in constraints if all(math.isnan(each.overlap.score(c.score, math.nan)) for each in candidates)
    ]
    if undefined:
        return (
            f"{undefined[0].score} is undefined at every point on the data set {dataset!r}, as no instance counts for "
            "it: BTC needs instances that h1 gets right, BEC such that it gets wrong. Take other data, or leave that "
            "constraint out."
        )

    def lack(candidate: Candidate) -> float:
        return max(c.excess(c.bound(candidate.overlap, confidence)) for c in constraints)

    nearest = min(candidates, key=lack)
    verdicts = {c: nearest.overlap.gate(c.score, c.limit, confidence) for c in constraints}
    told = "; ".join(
        f"{c.score} {nearest.overlap.score(c.score):.2%}, bound {c.bound(nearest.overlap, confidence):.2%}, {verdict}"
        for c, verdict in verdicts.items()
    )
    advice = "Try larger values of lambda_c, or another loss."
    if "fail" not in verdicts.values():
        advice = (
            f"{nearest.overlap.total} instances are too few to be sure of it: take more, or a lower confidence than "
            f"{confidence:g}."
        )
    return (
        f"No point keeps {wanted} for certain on the data set {dataset!r}. Nearest is {nearest.loss} with "
        f"{_held_to(nearest.point)} ({told}). {advice}"
    )


def _held_to(point: Point) -> str:
    return f"lambda_c = {point.lambda_c:g}" if point.promise is None else f"the promise {point.promise}"


def front(rows: Sequence[dict[str, Any]], score: str, performance: str) -> list[dict[str, Any]]:
    """The rows that no other row beats: at least as good in both, and better in one. Of equals the first stays.

    Example:
        >>> from bc_core.sweep._choice import front
        >>> rows = [{"btc": b, "accuracy_h2": a} for b, a in [(0.9, 0.95), (0.95, 0.94), (0.94, 0.94), (0.99, 0.9)]]
        >>> [row["btc"] for row in front(rows, "btc", "accuracy_h2")]
        [0.9, 0.95, 0.99]
    """
    sign = 1 if SCORES[score].higher_is_better else -1
    known = [row for row in rows if not (math.isnan(row[score]) or math.isnan(row[performance]))]
    kept, best = [], -math.inf
    for row in sorted(known, key=lambda row: (-sign * row[score], -row[performance])):
        if row[performance] > best:
            kept.append(row)
            best = row[performance]
    return kept[::-1]


def means_over_seeds(rows: Sequence[Mapping[str, Any]], score: str, performance: str) -> list[dict[str, Any]]:
    """A row for each loss and lambda_c: mean and standard deviation over the seeds."""
    for name in (score, performance):
        if name not in SCORES and name != "performance_h2":
            raise ValueError(f"Unknown score: {name!r}. Known: {', '.join(map(repr, SCORES))}.")
    if any(performance not in row for row in rows):
        raise ValueError(
            f"{performance} is not there: the sweep was given no metric. Sweep with performance_metric=..., or "
            'take performance="accuracy_h2".'
        )
    groups: dict[tuple[str, Any], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["loss"], row.get("promise") or row["lambda_c"]), []).append(row)
    means = []
    for (loss, _), members in groups.items():
        # Where a promise moves it, its mean.
        row = {"loss": loss, "lambda_c": sum(member["lambda_c"] for member in members) / len(members)}
        row |= {"promise": members[0]["promise"]} if "promise" in members[0] else {}
        row["seeds"] = len(members)
        for name in (score, performance):
            values = np.array([member[name] for member in members])
            row[name] = float(values.mean())
            row[f"{name}_sd"] = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
        means.append(row)
    return means
