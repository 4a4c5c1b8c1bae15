"""A policy, held against instances: which questions it asks of which of them."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core._texts import listed
from bc_core.comparison._comparison import Comparison
from bc_core.comparison._error_instances import ErrorInstances
from bc_core.counting._overlap import ErrorOverlap
from bc_core.gate._checks import Check, Question, judged
from bc_core.gate._evidence import Evidence, Rows
from bc_core.gate._id_files import AcceptedFlip, read_accepted, read_ids, refuse_unknown
from bc_core.gate._policy import Bounds, PerPart, Policy
from bc_core.predictions._aligned import LabelRights, Told
from bc_core.predictions._joining import id_texts
from bc_core.slices._columns import SliceColumn


@dataclass(frozen=True)
class Counted:
    """Counts in place of a `Comparison`, where no instance came back."""

    overlap: ErrorOverlap
    labels: list[Any]
    name: str | None = None

    def negative_flips(self) -> ErrorInstances:
        """None that are known by name."""
        nothing = np.zeros(0, np.int64)
        return ErrorInstances(nothing, nothing, nothing, nothing)


@dataclass(frozen=True)
class Subject:
    """What is judged: a comparison, and its instances one by one where files of predictions were read.

    Attributes:
        comparison: Counts and the table of what either model got wrong; or counts alone.
        rows: Who is right on each instance; None where they were only counted.
        target: Shape (N,), true classes in the order of `rows`.
        slices: Slices by name of their column.
        unknown: Of some ids, as text, those that no instance has; None for a saved comparison, which keeps only errors.
        labels: Whether each label is right, where an instance has several; they take the place of classes.
        told: From places of instances to texts of what is true and what both models say, where these are no classes.
        plain: Whether there are no classes but right and wrong.
    """

    comparison: Comparison | Counted
    rows: Rows | None = None
    target: NDArray[np.int64] | None = None
    slices: Mapping[str, SliceColumn] | None = None
    unknown: Callable[[Sequence[str]], list[str]] | None = None
    labels: LabelRights | None = None
    told: Told | None = None
    plain: bool = False

    @property
    def flips(self) -> list[str]:
        """Ids of all negative flips, as text."""
        found: list[str] = id_texts(self.comparison.negative_flips().ids).tolist()
        return found


@dataclass(frozen=True)
class Judgement:
    """What a policy came to.

    Attributes:
        checks: Each bound.
        accepted: Flips that are accepted and occurred, so that they do not count.
        expired: Flips that were accepted until a day that has passed; they count again.
        spare: Accepted flips that are none any more.
    """

    checks: tuple[Check, ...]
    accepted: tuple[AcceptedFlip, ...] = ()
    expired: tuple[AcceptedFlip, ...] = ()
    spare: tuple[AcceptedFlip, ...] = ()


def judge_policy(
    policy: Policy, subject: Subject, today: datetime.date, accepted: Sequence[AcceptedFlip] | None = None
) -> Judgement:
    """Hold a comparison to a policy.

    Args:
        policy: What is asked.
        subject: What is judged.
        today: From which on accepted flips count again.
        accepted: Flips that do not count, in place of those of the policy's file.

    Raises:
        ValueError: The policy asks nothing, or asks about ids, classes or slices that there are not; or h1 is right on
            no instance, so that nothing could break.
        OSError: A file of ids cannot be read.
    """
    overlap = subject.comparison.overlap
    if not overlap.both_right + overlap.h1_only_right:
        raise ValueError("the old model is right on no instance, so nothing could break: look at its labels")
    if not (policy.bounds or policy.parts or policy.critical):
        raise ValueError('the policy asks nothing: say a promise such as "nfr <= 0.5%"')
    if subject.rows is None and (column := policy.columns.weight or policy.columns.cluster):
        raise ValueError(
            f"instances were only counted, so that {column!r} cannot say what each is worth: give the two files of "
            "predictions, or leave weight and cluster out"
        )
    if isinstance(subject.comparison, Counted) and (policy.critical or policy.accepted):
        raise ValueError(
            "critical instances and accepted flips are known by their ids, and counts of partitions have none: compare "
            "each partition with `compare`, whose comparisons add up too, or leave them out of the policy"
        )
    critical = [] if policy.critical is None else _critical(policy, subject)
    flips, judgement = set(subject.flips) if critical or policy.accepted else set(), Judgement(())
    if policy.accepted is not None:
        known = read_accepted(policy.accepted) if accepted is None else accepted
        judgement = _accepted(known, subject, flips, set(critical), today)
    checks = judged(list(_questions(policy, subject, {flip.id for flip in judgement.accepted})), policy.confidence)
    if critical:
        checks.insert(0, _critical_check(critical, flips))
    return Judgement(tuple(checks), judgement.accepted, judgement.expired, judgement.spare)


def _critical(policy: Policy, subject: Subject) -> list[str]:
    assert policy.critical is not None
    ids = read_ids(policy.critical)
    if subject.unknown is None:
        raise ValueError(
            f"{policy.critical}: a saved comparison keeps only the ids of errors, so that it cannot tell whether "
            "critical instances were tried; give the two files of predictions"
        )
    if unknown := subject.unknown(ids):
        raise ValueError(
            f"{policy.critical}: {len(unknown)} critical ids are not in the predictions: {listed(unknown)}"
        )
    return ids


def _critical_check(critical: Sequence[str], flips: set[str]) -> Check:
    broken = tuple(each for each in critical if each in flips)
    share = len(broken) / len(critical)
    return Check(
        "critical instances",
        "none breaks",
        "fail" if broken else "pass",
        share,
        share,
        share,
        len(critical),
        ids=broken,
    )


def _accepted(
    flips: Sequence[AcceptedFlip], subject: Subject, occurred: set[str], critical: set[str], today: datetime.date
) -> Judgement:
    if both := [flip.id for flip in flips if flip.id in critical]:
        raise ValueError(f"ids that are critical must not break, and flips of these are accepted: {listed(both)}")
    refuse_unknown(subject.unknown, [flip.id for flip in flips])
    here = [flip for flip in flips if flip.id in occurred]
    return Judgement(
        (),
        tuple(flip for flip in here if flip.expires >= today),
        tuple(flip for flip in here if flip.expires < today),
        tuple(flip for flip in flips if flip.id not in occurred),
    )


def _questions(policy: Policy, subject: Subject, accepted: set[str]) -> Iterator[Question]:
    truth, kept = _Parts(subject, set()), _Parts(subject, accepted)
    yield from _asked("all instances", policy.bounds, truth.whole(), kept.whole())
    for part in policy.parts:
        for name, chosen in _chosen(part, truth):
            kind = "slice" if part.column is not None else "class" if subject.labels is None else "label"
            yield from _asked(
                f"{kind} {name}", part.bounds, truth.of(part.column, chosen), kept.of(part.column, chosen)
            )


def _asked(scope: str, bounds: Bounds, truth: Evidence, kept: Evidence) -> Iterator[Question]:
    """Accepted flips do not count as broken; accuracy is what it is."""
    for constraint in bounds.promise or ():
        plain = constraint.score.startswith("accuracy")
        yield Question(scope, truth if plain else kept, constraint)
    if bounds.min_gain is not None:
        yield Question(scope, truth, bounds.min_gain, bounds.margin)


def _chosen(part: PerPart, parts: _Parts) -> Iterator[tuple[str, int]]:
    """The classes or slices that are asked about: all with enough instances, and those that are named."""
    if part.column is None and parts.without_classes:
        raise ValueError("per_class: there are no classes where a rule or a column says what is right; ask of slices")
    names, sizes = parts.names(part.column), parts.sizes(part.column)
    found = False
    for pattern in part.only:
        if pattern not in names and not any(fnmatchcase(name, pattern) for name in names):
            where = "classes" if part.column is None else f"values of {part.column!r}"
            raise ValueError(f"no {where} like {pattern!r}; there are {listed(names)}")
    for number, (name, size) in enumerate(zip(names, sizes, strict=True)):
        named = name in part.only
        matches = not part.only or any(fnmatchcase(name, pattern) for pattern in part.only)
        if named or (matches and size >= part.least):
            found = True
            yield (name if part.column is None else f"{part.column}={name}"), number
    if not found:
        where = "class" if part.column is None else f"slice of {part.column!r}"
        raise ValueError(
            f"no {where} has {part.least} instances or more, as `least` asks; the largest has {max(sizes)}"
        )


class _Parts:
    """Evidence of classes and slices, where the flips of some ids do not count."""

    def __init__(self, subject: Subject, accepted: set[str]) -> None:
        self._subject, comparison, rows = subject, subject.comparison, subject.rows
        flips = comparison.negative_flips()
        self._spared = np.zeros(len(flips), bool)
        if accepted:
            self._spared = np.fromiter((each in accepted for each in id_texts(flips.ids).tolist()), bool, len(flips))
        self._counts = self._kept(comparison.overlap.counts, flips.target)
        # Instances one by one only where they do not count alike; there may be many slices.
        self._rows = None if rows is None or rows.plain else rows
        if self._rows is not None and accepted:
            broke = np.flatnonzero(self._rows.h1_right & ~self._rows.h2_right)
            h2_right = self._rows.h2_right.copy()
            h2_right[broke[self._spared]] = True
            self._rows = replace(self._rows, h2_right=h2_right)

    def _kept(self, counts: NDArray[np.int64], codes: NDArray[Any]) -> NDArray[np.int64]:
        """Counts in which accepted flips are kept right; `codes` is the part that each flip is in."""
        moved = np.bincount(codes[self._spared], minlength=len(counts))
        kept: NDArray[np.int64] = counts.copy()
        kept[:, 1, 0] -= moved
        kept[:, 1, 1] += moved
        return kept

    def whole(self) -> Evidence:
        return self._rows.part() if self._rows is not None else Evidence(self._counts.sum(axis=0))

    @property
    def without_classes(self) -> bool:
        return self._subject.plain and self._subject.labels is None

    def names(self, column: str | None) -> list[str]:
        if column is None and self._subject.labels is not None:
            return list(self._subject.labels.names)
        if column is None:
            return [str(label) for label in self._subject.comparison.labels]
        return list(self._slices(column).values)

    def sizes(self, column: str | None) -> list[int]:
        if column is None and (labels := self._subject.labels) is not None:
            return [len(labels.h1_right)] * len(labels.names)
        counts = self._counts if column is None else self._slices(column).counts
        sizes: list[int] = counts.sum(axis=(1, 2)).tolist()
        return sizes

    def of(self, column: str | None, number: int) -> Evidence:
        if column is None and self._subject.labels is not None:
            return self._of_label(self._subject.labels, number)
        slices = None if column is None else self._slices(column)
        if self._rows is not None:
            codes = self._subject.target if slices is None else slices.codes
            assert codes is not None
            return self._rows.part(codes == number)
        counts = self._counts if slices is None else self._kept(slices.counts, slices.flip_codes)
        return Evidence(counts[number])

    def _of_label(self, labels: LabelRights, number: int) -> Evidence:
        """Of one label all instances, of which those that are accepted do not break it."""
        rows = self._subject.rows
        assert rows is not None
        h1_right, h2_right = labels.h1_right[:, number], labels.h2_right[:, number].copy()
        broke = np.flatnonzero(rows.h1_right & ~rows.h2_right)[self._spared]
        h2_right[broke] |= h1_right[broke]
        return replace(rows, h1_right=h1_right, h2_right=h2_right).part()

    def _slices(self, column: str) -> SliceColumn:
        if self._subject.slices is None or column not in self._subject.slices:
            if isinstance(self._subject.comparison, Counted):
                raise ValueError(f"the partitions were not counted by slices of {column!r}: give it by `slices`")
            raise ValueError(
                f"a saved comparison has no slices of {column!r}; give the two files of predictions, and the column in "
                "one of them or by --data"
            )
        return self._subject.slices[column]
