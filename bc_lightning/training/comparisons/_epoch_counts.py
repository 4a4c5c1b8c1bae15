"""What an epoch's comparison counts over all instances beside who is right: how sure the models are, and slices."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bc_core.comparison._confidence import Confidence, Said, counted_confidence
from bc_core.comparison._sliced import SliceCounts
from bc_core.slices._columns import counted
from bc_core.slices._metadata import CodedColumn, coded_columns, described, metadata_columns
from bc_core.slices._search import FoundSlice, find_slices


class Columns(NamedTuple):
    """Columns of metadata over a data set, in its order.

    Attributes:
        sliced: Those that make slices.
        texts: Those that describe single instances.
        size: How many instances the data set has.
    """

    sliced: Sequence[CodedColumn]
    texts: Sequence[CodedColumn]
    size: int

    @classmethod
    def of(cls, metadata: Any) -> Columns | None:
        """What a caller gave, if it is columns.

        Raises:
            ValueError: They differ in length or hold lists.
        """
        given = metadata_columns(metadata)
        if given is None:
            return None
        size = len(next(iter(given.values())))
        return cls(*coded_columns(given, size), size)

    def knows(self, ids: NDArray[Any]) -> bool:
        """Whether these are places in the data set."""
        return ids.dtype.kind == "i" and (not len(ids) or bool(ids.min() >= 0 and ids.max() < self.size))

    def describe(self, ids: NDArray[Any]) -> NDArray[Any] | None:
        """What the columns of texts say of some instances."""
        return described(self.texts, ids) if self.knows(ids) else None


class EpochCounts(NamedTuple):
    """Counts of one process, which add up.

    Attributes:
        confidence: How sure the models are.
        slices: Instances by slice.
        found: Slices in which more breaks; one process alone looks for them.
    """

    confidence: Confidence = Confidence()
    slices: tuple[SliceCounts, ...] = ()
    found: tuple[FoundSlice, ...] = ()

    @classmethod
    def of(
        cls,
        target: NDArray[Any],
        answers: tuple[NDArray[Any], NDArray[Any]],
        said: tuple[Said | None, Said | None],
        in_use: float,
        codes: Sequence[tuple[CodedColumn, NDArray[np.intp]]],
        alone: bool,
    ) -> EpochCounts:
        """Count.

        Args:
            target: True classes of all instances that count.
            answers: What h1 and h2 say.
            said: How sure they are; None is not known.
            in_use: Threshold of binary models.
            codes: Columns of metadata, and the slice of each instance.
            alone: Whether these are all instances.
        """
        confidence = Confidence()
        if any(each is not None for each in said):
            known = [Said.nothing(len(target)) if each is None else each for each in said]
            confidence = counted_confidence(target, answers, (known[0], known[1]), (in_use, in_use))
        right = answers[0] == target, answers[1] == target
        columns = [counted(column.name, column.values, own, *right) for column, own in codes]
        slices = tuple(
            SliceCounts(each.column, each.values, each.counts, column.is_cut)
            for each, (column, _) in zip(columns, codes, strict=True)
        )
        return cls(confidence, slices, tuple(find_slices(columns, *right)) if alone and columns else ())

    def __or__(self, other: EpochCounts) -> EpochCounts:
        """Both together; the columns are those of one data set on every process."""
        slices = tuple(
            SliceCounts(a.column, a.values, a.counts + b.counts, a.is_cut)
            for a, b in zip(self.slices, other.slices, strict=False)
        )
        return EpochCounts(self.confidence.merged(other.confidence), slices)


def together(counts: Sequence[EpochCounts | None]) -> EpochCounts:
    """Of all processes; None is one that saw no instance."""
    known = [each for each in counts if each is not None]
    return reduce(EpochCounts.__or__, known) if known else EpochCounts()
