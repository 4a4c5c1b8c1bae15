"""What an update does to invariance: where h1 said the same of x and of t x, and h2 does not.

Whether a prediction is kept under a transformation is, like whether it is right, a yes or no of each of two models, so
the counts are an `ErrorOverlap` whose "right" means "says of t x what it says of x". Its NFR is then the rate of
invariance negative flips, its BTC the share of h1's consistency that h2 keeps.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from bc_core._arrays import label_array, to_numpy
from bc_core.counting._intervals import clustered_interval
from bc_core.counting._overlap import ErrorOverlap
from bc_core.counting._scores import count_cells
from bc_core.invariance._layer_measures import Level, Statistic, Summary
from bc_core.invariance._probes import PairedInterval, Probes, paired_intervals
from bc_core.invariance._result import InvarianceResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class InvarianceUpdate:
    """An update h1 -> h2 under transformations. Made by `compare_predictions`, or with layers by `compare_invariance`.

    Attributes:
        transforms: Names of the m transformations.
        sizes: How far each goes.
        identity: Which of them is the identity.
        h1_pred: Shape (n, m), int64: classes that h1 predicts for t_j x_i.
        h2_pred: Shape (n, m), int64.
        consistency: Counts of each transformation, where "right" means "as for x"; one class.
        overlaps: Counts of each transformation against the labels; None without labels.
        h1: Measures of h1's layers, or None.
        h2: Measures of h2's layers, or None.
        intervals: Intervals of the NV of layers, by name.
        statistic: The spread that `intervals` are of.
        how: The summary that `intervals` are of.
        confidence: Their coverage.

    Example:
        >>> from bc_core.invariance import TransformSet, compare_predictions
        >>> h1, h2 = [[0, 0], [1, 1], [2, 0]], [[0, 0], [1, 2], [2, 0]]
        >>> compare_predictions(h1, h2, transforms=TransformSet.flips())
        InvarianceUpdate(3 samples x 2 transformations)
        consistency: h1 66.67%, h2 33.33%
        invariance negative flips: 33.33% (4.53% to 84.06%)
    """

    transforms: tuple[str, ...]
    sizes: tuple[float, ...]
    identity: int
    h1_pred: NDArray[np.int64]
    h2_pred: NDArray[np.int64]
    consistency: tuple[ErrorOverlap, ...]
    overlaps: tuple[ErrorOverlap, ...] | None = None
    h1: InvarianceResult | None = None
    h2: InvarianceResult | None = None
    intervals: Mapping[str, PairedInterval] = field(default_factory=dict)
    statistic: Statistic = "std"
    how: Summary = "ratio_of_means"
    confidence: float = 0.95

    @property
    def samples(self) -> int:
        """Number of samples n."""
        return len(self.h1_pred)

    @property
    def consistency_h1(self) -> float:
        """Share of pairs (x, t), the identity left out, of which h1 says what it says of x."""
        return self._overall.accuracy_h1

    @property
    def consistency_h2(self) -> float:
        """The same of h2."""
        return self._overall.accuracy_h2

    @property
    def negative_flip_rate(self) -> float:
        """Share of pairs (x, t) where h1 was consistent and h2 is not: invariance negative flips."""
        return self._overall.nfr

    def interval(self, name: str, confidence: float = 0.95) -> tuple[float, float]:
        """Interval of a rate over all pairs (x, t), of which those of one sample go together.

        Args:
            name: `"consistency_h1"`, `"consistency_h2"` or `"negative_flip_rate"`.
            confidence: Wanted coverage.

        Returns:
            Lower and upper bound: Wilson's for as many pairs as these are worth, n samples where all agree.

        Raises:
            ValueError: If there is no such rate.
        """
        kept_h1, kept_h2 = (kept[:, self._others] for kept in self._kept)
        pairs = {"consistency_h1": kept_h1, "consistency_h2": kept_h2, "negative_flip_rate": kept_h1 & ~kept_h2}
        if name not in pairs:
            raise ValueError(f"name: expected one of {', '.join(pairs)}, got {name!r}")
        return clustered_interval(pairs[name].mean(axis=1), confidence)

    def table(self, confidence: float = 0.95) -> list[dict[str, Any]]:
        """One row for each transformation, in order: a curve over angle or shift.

        Returns:
            Dictionaries with `transform`, `size`, `consistency_h1`, `consistency_h2`, `negative_flip_rate` (of
            invariance) and `negative_flip_interval`; with labels also `accuracy_h1`, `accuracy_h2`, `nfr`,
            `nfr_interval` and `btc`. Intervals are Wilson's: under one transformation each sample counts once.
        """
        rows = []
        for number, (name, size, kept) in enumerate(zip(self.transforms, self.sizes, self.consistency, strict=True)):
            row: dict[str, Any] = {
                "transform": name,
                "size": size,
                "consistency_h1": kept.accuracy_h1,
                "consistency_h2": kept.accuracy_h2,
                "negative_flip_rate": kept.nfr,
                "negative_flip_interval": kept.interval("nfr", confidence),
            }
            if self.overlaps is not None:
                overlap = self.overlaps[number]
                row |= {score: overlap.score(score) for score in ("accuracy_h1", "accuracy_h2", "nfr", "btc")}
                row["nfr_interval"] = overlap.interval("nfr", confidence)
            rows.append(row)
        return rows

    def depth_table(self) -> list[dict[str, Any]]:
        """NV by depth of h1 and h2, to be drawn over each other: one row for each layer of either.

        In h1's order; layers that h2 alone has follow what they follow in h2.

        Returns:
            Dictionaries with `layer`, `depth_h1` and `depth_h2` (from 0, the first layer, to 1, the last; None where
            that network has no such layer), `h1`, `h2`, `difference` (nan where one is missing) and the intervals
            `h1_interval`, `h2_interval`, `difference_interval` (None where there is none).

        Raises:
            ValueError: If only predictions were compared.
        """
        if self.h1 is None or self.h2 is None:
            raise ValueError("only predictions were compared; compare_invariance measures the layers too")
        names, place = list(self.h1.layer_names), 0
        for name in self.h2.layer_names:
            if name not in self.h1:
                names.insert(place, name)
            place = names.index(name) + 1
        rows = []
        for name in names:
            h1, h2 = (
                result[name].summary(self.statistic, self.how) if name in result else math.nan
                for result in (self.h1, self.h2)
            )
            found = self.intervals.get(name, PairedInterval(None, None, None))
            rows.append(
                {
                    "layer": name,
                    "depth_h1": _depth(self.h1, name),
                    "depth_h2": _depth(self.h2, name),
                    "h1": h1,
                    "h2": h2,
                    "difference": h2 - h1,
                    "h1_interval": found.h1,
                    "h2_interval": found.h2,
                    "difference_interval": found.difference,
                }
            )
        return rows

    def plot_curves(
        self, path: str | os.PathLike[str] | None = None, *, confidence: float = 0.95, dark: bool = False
    ) -> Figure:
        """Draw accuracy, BTC, consistency and negative flips against how far a transformation goes.

        Args:
            path: File to write, its kind by its ending. Default: none.
            confidence: Coverage of the intervals.
            dark: For a dark page.

        Raises:
            ImportError: If matplotlib is not installed.
        """
        from bc_core.invariance._curves import curves

        return curves(self, path, dark, confidence=confidence)

    def plot_depth(self, path: str | os.PathLike[str] | None = None, *, dark: bool = False) -> Figure:
        """Draw NV of every layer of h1 and h2 over depth, and their difference with its paired interval.

        Args:
            path: File to write, its kind by its ending. Default: none.
            dark: For a dark page.

        Raises:
            ImportError: If matplotlib is not installed.
            ValueError: If only predictions were compared.
        """
        from bc_core.invariance._curves import depth

        return depth(self, path, dark)

    def plot_heat_maps(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        level: Level = "feature",
        order: Literal["sorted", "index"] = "sorted",
        dark: bool = False,
    ) -> Figure:
        """Draw the heat maps of h1 and h2 on one scale, and what h2 has more.

        Args:
            path: File to write, its kind by its ending. Default: none.
            level: `"feature"`, or `"unit"` for every single activation.
            order: `"sorted"`, from invariant to sensitive, for any two networks; or `"index"`, feature by feature, for
                an h2 that was trained on from h1.
            dark: For a dark page.

        Raises:
            ImportError: If matplotlib is not installed.
            ValueError: If only predictions were compared.
        """
        from bc_core.invariance._heat_maps import heat_maps

        if self.h1 is None or self.h2 is None:
            raise ValueError("only predictions were compared; compare_invariance measures the layers too")
        return heat_maps(self.h1, self.h2, path, dark, level=level, statistic=self.statistic, order=order)

    @property
    def _others(self) -> list[int]:
        return [number for number in range(len(self.transforms)) if number != self.identity]

    @property
    def _overall(self) -> ErrorOverlap:
        return sum((self.consistency[number] for number in self._others), ErrorOverlap.empty(1))

    @property
    def _kept(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        h1, h2 = self.h1_pred, self.h2_pred
        return h1 == h1[:, [self.identity]], h2 == h2[:, [self.identity]]

    def __repr__(self) -> str:
        low, high = self.interval("negative_flip_rate")
        lines = [
            f"InvarianceUpdate({self.samples} samples x {len(self.transforms)} transformations)",
            f"consistency: h1 {self.consistency_h1:.2%}, h2 {self.consistency_h2:.2%}",
            f"invariance negative flips: {self.negative_flip_rate:.2%} ({low:.2%} to {high:.2%})",
        ]
        return "\n".join(lines)


def compare_predictions(
    h1_pred: Any,
    h2_pred: Any,
    target: Any = None,
    *,
    transforms: Any,
    sizes: Sequence[float] | None = None,
    identity: int | None = None,
    num_classes: int | None = None,
) -> InvarianceUpdate:
    """Compare what two models predict for the same samples under the same transformations.

    Args:
        h1_pred: Classes that h1 predicts for t_j x_i, shape (n, m), integers; array or tensor.
        h2_pred: The same of h2.
        target: True classes, shape (n,); a transformation is taken to keep them.
        transforms: The m transformations: a `TransformSet`, or their names.
        sizes: How far each goes. Default: what the set says.
        identity: Which of them is the identity. Default: what the set says; with names, the first.
        num_classes: Number of classes. Default: the largest label plus one.

    Raises:
        ValueError: If shapes do not fit, there is no identity or nothing beside it, or a label is out of range.
        TypeError: If predictions are no integers.

    Example:
        >>> from bc_core.invariance import TransformSet, compare_predictions
        >>> update = compare_predictions(
        ...     [[0, 0, 0], [1, 1, 0]], [[0, 1, 0], [1, 1, 1]], [0, 1], transforms=TransformSet.rotations([0, 30, 60])
        ... )
        >>> update.consistency_h1, update.consistency_h2, update.negative_flip_rate
        (0.75, 0.75, 0.25)
        >>> [row["nfr"] for row in update.table()]
        [0.0, 0.5, 0.0]
    """
    names = tuple(getattr(transforms, "names", transforms))
    if identity is None:
        identity = getattr(transforms, "identity_index", 0)
    if identity is None or not 0 <= identity < len(names) or len(names) < 2:
        raise ValueError(
            f"expected the identity and at least one other transformation, got {len(names)} ({', '.join(names[:4])}): "
            "predictions for t x are compared with those for x; use TransformSet.identity() | ..."
        )
    sizes = tuple(getattr(transforms, "sizes", (math.nan,) * len(names)) if sizes is None else sizes)
    h1, h2 = (_matrix(pred, name, len(names)) for pred, name in ((h1_pred, "h1_pred"), (h2_pred, "h2_pred")))
    if h1.shape != h2.shape:
        raise ValueError(f"expected predictions of h1 and h2 for the same samples, got {h1.shape} and {h2.shape}")
    # A row for each transformation, as counting needs them together in memory.
    kept = [np.ascontiguousarray((pred == pred[:, [identity]]).T) for pred in (h1, h2)]
    consistency = tuple(ErrorOverlap(count_cells(of_h1, of_h2)) for of_h1, of_h2 in zip(*kept, strict=True))
    overlaps = None
    if target is not None:
        truth = label_array(target, "target")
        if len(truth) != len(h1):
            raise ValueError(f"target: expected one class for each of the {len(h1)} samples, got {len(truth)}")
        if num_classes is None:
            num_classes = int(max(truth.max(), h1.max(), h2.max())) + 1
        overlaps = tuple(
            ErrorOverlap.from_predictions(truth, h1[:, j], h2[:, j], num_classes) for j in range(len(names))
        )
    return InvarianceUpdate(names, sizes, identity, h1, h2, consistency, overlaps)


def classes_of_h2(
    h1_pred: NDArray[np.int64], class_map: Sequence[Any], h2_pred: NDArray[np.int64], target: NDArray[Any] | None
) -> NDArray[np.int64]:
    """Predictions of an h1 with other classes, in h2's; those that h2 lacks (-1) stay apart behind all known ones.

    Example:
        >>> from bc_core.invariance._update import classes_of_h2
        >>> classes_of_h2(np.array([[0, 1, 2]]), [1, -1, -1], np.array([[0, 0, 1]]), None)
        array([[1, 3, 4]])
    """
    if any(isinstance(to, tuple) for to in class_map):
        raise ValueError(
            "A class of h1 that was split has no one class of h2, so it cannot be told here whether the predictions "
            f"agree: compare the models' layers. Received: class_map={list(class_map)}."
        )
    known = [part.max(initial=0) for part in (np.asarray(class_map), h2_pred, *([] if target is None else [target]))]
    behind = int(max(known)) + 1
    return np.array([to if to >= 0 else behind + own for own, to in enumerate(class_map)], np.int64)[h1_pred]


def depth_intervals(
    h1: InvarianceResult,
    h2: InvarianceResult,
    probes: tuple[Probes, Probes],
    *,
    statistic: Statistic = "std",
    how: Summary = "ratio_of_means",
    confidence: float = 0.95,
) -> dict[str, PairedInterval]:
    """Intervals of the NV of every layer of either network, paired where both have a layer of that name.

    Args:
        h1: Measures of h1.
        h2: Measures of h2.
        probes: Activations of h1 and h2, of the same samples in the same order.
        statistic: The spread.
        how: Summary of a layer.
        confidence: Wanted coverage.

    Returns:
        By name of the layer, in order.

    Example:
        >>> import numpy as np
        >>> from bc_core.invariance import InvarianceResult, LayerMeasures, Probes, StreamingMoments, depth_intervals
        >>> a, moments, probes = np.random.default_rng(0).normal(size=(50, 3, 8)), StreamingMoments(columns=3), Probes()
        >>> moments.update(a.reshape(-1, 8), rows=50)
        >>> probes.add("fc", a[:, :, probes.choose("fc", 8)])
        >>> result = InvarianceResult([LayerMeasures.from_moments(moments.moments(), name="fc")], "abc")
        >>> depth_intervals(result, result, (probes, probes))["fc"].difference
        Interval(low=0.0, high=0.0)
    """
    intervals = {}
    for name in [*h1.layer_names, *(name for name in h2.layer_names if name not in h1)]:
        found = [kept[name] if name in kept and name in of else None for kept, of in zip(probes, (h1, h2), strict=True)]
        if found[0] is None and found[1] is None:
            continue
        estimates = tuple(of[name].summary(statistic, how) if name in of else math.nan for of in (h1, h2))
        intervals[name] = paired_intervals(
            found[0],
            found[1],
            (estimates[0], estimates[1]),
            statistic=statistic,
            how=how,
            confidence=confidence,
        )
    return intervals


def _matrix(pred: Any, name: str, columns: int) -> NDArray[np.int64]:
    array = to_numpy(pred, name)
    if array.ndim != 2 or array.shape[1] != columns or not array.size:
        raise ValueError(
            f"{name}: expected classes of shape (n, {columns}), a row for each sample and a column for each "
            f"transformation, got shape {array.shape}"
        )
    flat = label_array(array.reshape(-1), name)
    if flat.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected class numbers, got {flat.dtype}")
    return flat.astype(np.int64).reshape(array.shape)


def _depth(result: InvarianceResult, name: str) -> float | None:
    if name not in result:
        return None
    return result.layer_names.index(name) / max(1, len(result) - 1)
