"""Counts of one partition of a data set that a cluster holds; those of all partitions are their sum."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core._arrays import matching_labels, to_numpy
from bc_core.comparison._compare import compare
from bc_core.counting._overlap import ErrorOverlap
from bc_core.counting._scores import count_cells
from bc_core.gate._judging import Counted, Subject
from bc_core.slices._columns import SliceColumn, coded_texts, range_names


@dataclass(frozen=True, eq=False)
class SlicedOverlap:
    """Counts of all instances by class, and of each slice; adding two merges two partitions.

    `overlap_of_partition` makes one of each partition; `assert_compatible` takes the sum.

    Attributes:
        overlap: Counts by class.
        slices: Counts of each slice, shape (2, 2), indexed `[h1_right, h2_right]`, by column and by value.
        class_names: Name of each class; None where classes are numbers.
        edges: Where columns of numbers are cut into ranges, by column.
    """

    overlap: ErrorOverlap
    slices: Mapping[str, Mapping[str, NDArray[np.int64]]] = field(default_factory=dict)
    class_names: tuple[str, ...] | None = None
    edges: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def labels(self) -> list[Any]:
        """Name of each class, or its number where there are no names."""
        return list(range(self.overlap.num_classes)) if self.class_names is None else list(self.class_names)

    def __add__(self, other: object) -> SlicedOverlap:
        if isinstance(other, int) and other == 0:  # where sum begins
            return self
        if not isinstance(other, SlicedOverlap):
            return NotImplemented
        for what in ("class_names", "edges"):
            if (mine := getattr(self, what)) != (theirs := getattr(other, what)):
                raise ValueError(f"partitions whose {what} differ cannot be added: {mine!r} and {theirs!r}")
        if set(self.slices) != set(other.slices):
            raise ValueError(f"partitions are sliced by {sorted(self.slices)} and by {sorted(other.slices)}")
        slices = {}
        for column, mine in self.slices.items():
            theirs = other.slices[column]
            nothing = np.zeros((2, 2), np.int64)
            slices[column] = {
                value: mine.get(value, nothing) + theirs.get(value, nothing) for value in sorted({*mine, *theirs})
            }
        return SlicedOverlap(self.overlap + other.overlap, slices, self.class_names, self.edges)

    __radd__ = __add__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SlicedOverlap) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(self.overlap)

    def to_json(self) -> str:
        """As text, which goes through a column of any data frame.

        Example:
            >>> from bc_core import SlicedOverlap, overlap_of_partition
            >>> part = overlap_of_partition([0, 1], [0, 1], [0, 0], num_classes=2, slices={"region": ["eu", "us"]})
            >>> SlicedOverlap.from_json(part.to_json()) == part
            True
        """
        slices = {
            column: {value: counts[value].tolist() for value in sorted(counts)}
            for column, counts in sorted(self.slices.items())
        }
        edges = {column: list(cuts) for column, cuts in sorted(self.edges.items())}
        whole = {**self.overlap.to_dict(), "slices": slices, "class_names": self.class_names, "edges": edges}
        return json.dumps(whole)

    @classmethod
    def from_json(cls, text: str) -> SlicedOverlap:
        """Read what `to_json` gave.

        Raises:
            ValueError: It is something else.
        """
        try:
            data = json.loads(text)
            slices = {
                column: {value: np.asarray(cells, np.int64).reshape(2, 2) for value, cells in counts.items()}
                for column, counts in data["slices"].items()
            }
            names = None if data["class_names"] is None else tuple(data["class_names"])
            edges = {column: tuple(cuts) for column, cuts in data["edges"].items()}
            return cls(ErrorOverlap.from_dict(data), slices, names, edges)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise ValueError(f"not what SlicedOverlap.to_json gave ({type(error).__name__}: {error})") from error


def overlap_of_partition(
    target: Any,
    h1_pred: Any,
    h2_pred: Any,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    slices: Mapping[str, Any] | None = None,
    edges: Mapping[str, Sequence[float]] | None = None,
) -> SlicedOverlap:
    """Count one partition: what runs on each worker of Dask, Ray Data or Spark.

    Args:
        target: N true labels, class numbers or names; an empty partition counts nothing.
        h1_pred: N labels that h1 predicts.
        h2_pred: N labels that h2 predicts.
        num_classes: Number of classes; or, where labels are text:
        class_names: Name of each class, in order. One of the two is needed, as a partition need not hold every class.
        slices: N values each by name of a column, text or numbers.
        edges: Where columns of numbers are cut into ranges, by column: one place for all partitions. Numbers of other
            columns are a slice each.

    Returns:
        The counts; the sum over all partitions is that of the whole data set.

    Raises:
        ValueError: If lengths differ, a label is outside the classes, or a value is missing.
        TypeError: If labels are neither numbers nor text.

    Example:
        >>> from bc_core import assert_compatible, overlap_of_partition
        >>> y, region = [0, 1] * 500, ["eu", "us"] * 500
        >>> part = overlap_of_partition(y, y, y, num_classes=2, slices={"region": region})
        >>> policy = {"promise": "nfr <= 0.5%", "per_slice": [{"column": "region", "promise": "nfr <= 1%"}]}
        >>> assert_compatible(sum([part, part]), policy=policy).verdict
        'pass'
    """
    if num_classes is None and class_names is None:
        raise ValueError("a partition need not hold every class: state num_classes or class_names")
    names = None if class_names is None else tuple(class_names)
    size = num_classes if names is None else len(names)
    assert size is not None
    cuts = {column: tuple(map(float, each)) for column, each in (edges or {}).items()}
    labels = [to_numpy(each, name) for each, name in ((target, "target"), (h1_pred, "h1_pred"), (h2_pred, "h2_pred"))]
    if not any(len(each) for each in labels):
        overlap, right = ErrorOverlap.empty(size), np.zeros((2, 0), bool)
    else:
        overlap = compare(target, h1_pred, h2_pred, num_classes=num_classes, class_names=names).overlap
        truth, h1, h2 = matching_labels(target, h1_pred, h2_pred, ("target", "h1_pred", "h2_pred"))
        right = np.stack([h1 == truth, h2 == truth])
    counted = {
        column: _counted(column, to_numpy(values, column), cuts.get(column), right)
        for column, values in (slices or {}).items()
    }
    if strange := set(cuts) - set(counted):
        raise ValueError(f"edges of columns that are no slices: {sorted(strange)}")
    return SlicedOverlap(overlap, counted, names, cuts)


def _counted(
    column: str, values: NDArray[Any], cuts: tuple[float, ...] | None, right: NDArray[np.bool_]
) -> dict[str, NDArray[np.int64]]:
    if values.shape != right.shape[1:]:
        raise ValueError(f"{column}: expected {right.shape[1]} values, one an instance, got shape {values.shape}")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError(f"{column}: a number is NaN or infinite")
    if cuts is not None:
        ordered = np.asarray(cuts)
        if values.size and values.dtype.kind not in "iuf":
            raise ValueError(f"edges of {column!r}: its values are no numbers")
        if not len(ordered) or (np.diff(ordered) <= 0).any():
            raise ValueError(f"edges of {column!r}: expected numbers in rising order, got {list(cuts)}")
        texts, codes = range_names(ordered), np.searchsorted(ordered, values.astype(np.float64), side="right")
    else:
        found = values.tolist()
        if missing := sum(value is None or str(value) in ("", "nan", "<NA>") for value in found):
            raise ValueError(f"{column}: {missing} values are missing")
        texts, codes = coded_texts([str(value) for value in found])
    counts = count_cells(right[0], right[1], codes, max(1, len(texts)))
    return {text: counts[code] for code, text in enumerate(texts) if counts[code].any()}


def subject_of_counts(counts: SlicedOverlap) -> Subject:
    """What a policy judges of counts alone."""
    slices = {}
    for column, found in counts.slices.items():
        ranges = () if column not in counts.edges else range_names(np.asarray(counts.edges[column]))
        values = tuple(text for text in ranges if text in found) or tuple(found)
        cells = np.stack([found[value] for value in values]) if values else np.zeros((0, 2, 2), np.int64)
        slices[column] = SliceColumn(column, values, cells, np.zeros(0, np.intp))
    return Subject(Counted(counts.overlap, counts.labels), None, None, slices)
