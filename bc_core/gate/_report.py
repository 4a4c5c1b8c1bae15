"""A report: what an update changed, in all, by class and slice, and instance by instance, and what was judged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core.comparison._comparison import Comparison
from bc_core.counting._intervals import wilson_interval
from bc_core.counting._noise import NoiseFloor
from bc_core.counting._overlap import Verdict
from bc_core.counting._score_lines import ScoreLine, score_lines
from bc_core.counting._scores import SCORES
from bc_core.counting._several import benjamini_hochberg
from bc_core.counting._weighted import chance_of_so_many
from bc_core.gate._checks import whole_verdict
from bc_core.gate._evidence import Evidence
from bc_core.gate._judging import Counted, Judgement, Subject
from bc_core.slices._search import FoundSlice

FORMAT, VERSION = "backward-compat-report", 1
MISTAKES = 10


@dataclass(frozen=True)
class PartLine:
    """What an update did to a class or slice.

    Attributes:
        name: Such as "cat" or "region=eu".
        negative_flips: Instances that broke.
        positive_flips: Instances that were repaired.
        total: Instances in it.
        low: Lower bound of its negative flip rate.
        high: Upper bound.
        p_value: Chance of so many flips at the rate of all instances, adjusted for how many parts were looked at
            (Benjamini-Hochberg).
    """

    name: str
    negative_flips: int
    positive_flips: int
    total: int
    low: float
    high: float
    p_value: float

    @property
    def rate(self) -> float:
        """Negative flip rate."""
        return self.negative_flips / self.total


@dataclass(frozen=True)
class Mistake:
    """A new mistake.

    Attributes:
        id: The instance.
        target: Its true class.
        h2_pred: What h2 says instead.
        sureness: The probability that h2 gives that; None without class scores.
    """

    id: int | str
    target: str
    h2_pred: str
    sureness: float | None


@dataclass(frozen=True)
class Report:
    """All that is shown of an update.

    Attributes:
        comparison: What it is read from.
        scores: Scores over all instances.
        classes: Classes, worst first; of instances with several labels, the labels.
        slices: Slices, worst first.
        mistakes: New mistakes, the surest first.
        found: Slices of one and two columns in which more breaks, where they were looked for.
        confidence: Of intervals and verdicts.
        judgement: What the policy came to; None without one.
        noise: Flips of a retraining alone; None without other seeds.
        notes: What else is to be known, such as ids that were left out.
        multilabel: Whether `classes` are labels, of which an instance may have several.
    """

    comparison: Comparison | Counted
    scores: tuple[ScoreLine, ...]
    classes: tuple[PartLine, ...]
    slices: tuple[PartLine, ...]
    mistakes: tuple[Mistake, ...]
    confidence: float
    found: tuple[FoundSlice, ...] = ()
    judgement: Judgement | None = None
    noise: NoiseFloor | None = None
    notes: tuple[str, ...] = field(default=())
    multilabel: bool = False

    @property
    def verdict(self) -> Verdict | None:
        """Of all checks; None without a policy."""
        return None if self.judgement is None else whole_verdict(self.judgement.checks)

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""
        overlap, judgement = self.comparison.overlap, self.judgement
        return {
            "format": FORMAT,
            "version": VERSION,
            "name": self.comparison.name,
            "verdict": self.verdict,
            "confidence": self.confidence,
            "instances": overlap.total,
            "both_right": overlap.both_right,
            "negative_flips": overlap.h1_only_right,
            "positive_flips": overlap.h2_only_right,
            "both_wrong": overlap.both_wrong,
            "scores": {line.name: _numbers(line, ("value", "low", "high", "above", "below")) for line in self.scores},
            "checks": [] if judgement is None else [check.to_dict() for check in judgement.checks],
            "classes": [_part_dict(part) for part in self.classes],
            "multilabel": self.multilabel,
            "slices": [_part_dict(part) for part in self.slices],
            "found_slices": [{**vars(each), "rate": each.rate} for each in self.found],
            "new_mistakes": [vars(mistake) for mistake in self.mistakes],
            "accepted": _flip_dicts(judgement, "accepted"),
            "expired": _flip_dicts(judgement, "expired"),
            "no_longer_flips": _flip_dicts(judgement, "spare"),
            "noise": None if self.noise is None else self.noise._asdict(),
            "notes": list(self.notes),
            **self._new_classes(),
        }

    def _new_classes(self) -> dict[str, Any]:
        """What h1 could not be right about, apart; nothing where it knew all classes."""
        comparison = self.comparison
        if isinstance(comparison, Counted) or not comparison.new_classes:
            return {}
        new, known = comparison.new, comparison.known
        scores = {name: known.score(name, math.nan) for name in SCORES}
        return {
            "new_classes": {
                "classes": [str(comparison.labels[c]) for c in comparison.new_classes],
                "instances": new.total,
                "h2_right": new.h2_only_right,
                "scores_without": {name: None if math.isnan(value) else value for name, value in scores.items()},
            }
        }


def report_of(
    subject: Subject,
    confidence: float,
    judgement: Judgement | None = None,
    sureness: NDArray[np.float64] | None = None,
    noise: NoiseFloor | None = None,
    notes: Sequence[str] = (),
    found: Sequence[FoundSlice] = (),
) -> Report:
    """Gather what is shown.

    Args:
        subject: What was compared.
        confidence: Of the intervals.
        judgement: What the policy came to.
        sureness: Shape (N,): the new model's probability of what it predicts, in the order of the subject's rows.
        noise: Flips of a retraining alone.
        notes: What else is to be known.
        found: Slices that were looked for.
    """
    comparison = subject.comparison
    overlap = comparison.overlap
    labels, class_parts = subject.labels, []
    if labels is not None:
        counts = labels.counts
        rate = float(counts[:, 1, 0].sum()) / float(counts.sum())
        class_parts = _parts(labels.names, counts, rate, confidence)
    elif not subject.plain:
        class_parts = _parts([str(label) for label in comparison.labels], overlap.counts, overlap.nfr, confidence)
    slice_parts: list[PartLine] = []
    if subject.slices:
        names = [name for column in subject.slices.values() for name in column.names]
        counts = np.concatenate([column.counts for column in subject.slices.values()])
        slice_parts = _parts(names, counts, overlap.nfr, confidence)
    evidence = Evidence(overlap.counts.sum(axis=0)) if subject.rows is None else subject.rows.part()
    return Report(
        comparison,
        tuple(score_lines(evidence.ratio, confidence)),
        tuple(class_parts),
        tuple(slice_parts),
        tuple(_mistakes(subject, sureness)),
        confidence,
        tuple(found),
        judgement,
        noise,
        tuple(notes),
        labels is not None,
    )


def _parts(names: Sequence[str], counts: NDArray[np.int64], rate: float, confidence: float) -> list[PartLine]:
    """Parts that hold instances, worst first: by the rate that even their size does not explain away."""
    sizes = counts.sum(axis=(1, 2)).tolist()
    kept = [number for number, size in enumerate(sizes) if size]
    flips, gains = counts[:, 1, 0].tolist(), counts[:, 0, 1].tolist()
    p_values = benjamini_hochberg([chance_of_so_many(flips[i], sizes[i], rate) for i in kept]).tolist()
    lines = [
        PartLine(names[i], flips[i], gains[i], sizes[i], *wilson_interval(flips[i], sizes[i], confidence), p_value)
        for i, p_value in zip(kept, p_values, strict=True)
    ]
    return sorted(lines, key=lambda line: (-line.low, -line.rate, line.name))


def _mistakes(subject: Subject, sureness: NDArray[np.float64] | None) -> list[Mistake]:
    comparison = subject.comparison
    flips, labels = comparison.negative_flips(), comparison.labels
    sure: list[float | None] = [None] * len(flips)
    order = range(len(flips))
    if sureness is not None and subject.rows is not None:
        found = sureness[subject.rows.h1_right & ~subject.rows.h2_right]  # in the order of the table
        sure = [None if math.isnan(value) else value for value in found.tolist()]
        order = sorted(order, key=lambda row: -1.0 if (value := sure[row]) is None else value, reverse=True)  # type: ignore[assignment]
    ids, shown = flips.ids.tolist(), list(order)[:MISTAKES]
    target, h2_pred = ([str(labels[code]) for code in codes[shown].tolist()] for codes in (flips.target, flips.h2_pred))
    if subject.told is not None and subject.rows is not None:
        places = np.flatnonzero(subject.rows.h1_right & ~subject.rows.h2_right)
        target, _, h2_pred = subject.told(places[shown])
    return [Mistake(ids[row], true, said, sure[row]) for row, true, said in zip(shown, target, h2_pred, strict=True)]


def _numbers(line: object, names: Sequence[str]) -> dict[str, float | None]:
    values = {name: getattr(line, name) for name in names}
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def _part_dict(part: PartLine) -> dict[str, Any]:
    return {**vars(part), "rate": part.rate}


def _flip_dicts(judgement: Judgement | None, which: str) -> list[dict[str, str]]:
    flips = () if judgement is None else getattr(judgement, which)
    return [{"id": flip.id, "reason": flip.reason, "expires": flip.expires.isoformat()} for flip in flips]
