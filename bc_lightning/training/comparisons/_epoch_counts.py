"""What an epoch's comparison counts over all instances beside who is right: how sure the models are, and slices."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

from numpy.typing import NDArray

from bc_core.comparison._confidence import Confidence, Said, counted_confidence
from bc_core.comparison._sliced import SliceCounts, sliced_by
from bc_core.slices._metadata import Columns
from bc_core.slices._search import FoundSlice


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
        columns: Columns | None,
        classes: Sequence[str],
        alone: bool,
    ) -> EpochCounts:
        """Count.

        Args:
            target: True classes of all instances that count.
            answers: What h1 and h2 say.
            said: How sure they are; None is not known.
            in_use: Threshold of binary models.
            columns: Of these instances.
            classes: Name of each class.
            alone: Whether these are all instances.
        """
        confidence = Confidence()
        if any(each is not None for each in said):
            known = [Said.nothing(len(target)) if each is None else each for each in said]
            confidence = counted_confidence(target, answers, (known[0], known[1]), (in_use, in_use))
        return cls(confidence, *(() if columns is None else sliced_by(columns, target, *answers, classes, alone)))

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
