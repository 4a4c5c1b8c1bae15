"""The numbers that charts of invariance show, for whatever draws them: rows of heat maps, groups of transformations."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from bc_core.invariance._accumulator import Floats
from bc_core.invariance._layer_measures import LayerMeasures, Level, Statistic

if TYPE_CHECKING:
    from bc_core.invariance._result import InvarianceResult
    from bc_core.invariance._update import InvarianceUpdate

Order = Literal["sorted", "index"]

# Cells of a row, beyond which neighbours share one.
MOST_CELLS = 256
# So many transformations can stand side by side by name.
_FEW = 16

_AXES = {
    "rotate": "Angle in degrees",
    "translate": "Shift in pixels",
    "roll": "Cyclic shift in pixels",
    "scale": "Scale factor",
}
# What comes before the first number: "rotate" of "rotate 30", "brightness" of "brightness(0.5)".
_KIND = re.compile(r"^(.*?)[\s:=(\[]*[-+]?\d")

CONSISTENCY_SCORES = {
    "consistency_h1": "accuracy_h1",
    "consistency_h2": "accuracy_h2",
    "negative_flip_rate": "nfr",
}


class Group(NamedTuple):
    """Transformations of one kind, whose sizes can stand on one axis.

    Attributes:
        kind: What the names have in common, such as `"rotate"`; empty for those that have no size.
        axis: What the axis counts.
        members: Which transformations, by ascending size, with the identity.
        sizes: Their sizes, or None where they have none: then the names stand on the axis.
    """

    kind: str
    axis: str
    members: tuple[int, ...]
    sizes: tuple[float, ...] | None


class Point(NamedTuple):
    """A share with its interval."""

    value: float
    low: float
    high: float


def told_size(measured: InvarianceResult) -> str:
    """How much was measured, for a title."""
    return f"{measured.samples:,} samples × {len(measured.transforms)} transformations"


def transformation_groups(names: Sequence[str], sizes: Sequence[float], identity: int) -> list[Group]:
    """Sort transformations into kinds: an angle and a shift have no common axis.

    Args:
        names: Their names.
        sizes: Their sizes; nan where there is none.
        identity: Which of them is the identity; it belongs to every group.

    Example:
        >>> from bc_core.invariance import TransformSet
        >>> from bc_core.invariance._charts import transformation_groups
        >>> both = TransformSet.rotations([0, 30]) | TransformSet.scales([0.5])
        >>> [(group.kind, group.sizes) for group in transformation_groups(both.names, both.sizes, 0)]
        [('rotate', (0.0, 30.0)), ('scale', (0.5, 1.0))]
    """
    kinds: dict[str, list[int]] = {}
    for number, (name, size) in enumerate(zip(names, sizes, strict=True)):
        if number == identity:
            continue
        found = _KIND.match(name)
        kind = (found.group(1).strip() if found else name) if math.isfinite(size) else ""
        kinds.setdefault(kind, []).append(number)
    if "" in kinds and len(names) <= _FEW:
        # A symmetry group such as D4 stays together.
        kinds = {"": [number for number in range(len(names)) if number != identity]}
    groups = []
    for kind, members in kinds.items():
        if not kind:
            groups.append(Group("", "Transformation", (identity, *members), None))
            continue
        # Whatever the identity's own size says, which is that of the set it came from.
        own = 1.0 if kind == "scale" else 0.0
        placed = sorted([(own, identity), *((float(sizes[number]), number) for number in members)])
        axis = _AXES.get(kind, f"Size of {kind}")
        groups.append(Group(kind, axis, tuple(number for _, number in placed), tuple(size for size, _ in placed)))
    # Those without a size stand last.
    return sorted(groups, key=lambda group: not group.kind)


def curve(update: InvarianceUpdate, score: str, confidence: float = 0.95) -> list[Point]:
    """A score of each transformation, with its Wilson interval.

    Args:
        update: The update.
        score: `"consistency_h1"`, `"consistency_h2"`, `"negative_flip_rate"` (of invariance); with labels also
            `"accuracy_h1"`, `"accuracy_h2"`, `"btc"`, `"nfr"`.
        confidence: Wanted coverage.
    """
    own = CONSISTENCY_SCORES.get(score)
    overlaps = update.overlaps if own is None else update.consistency
    if overlaps is None:
        raise ValueError(f"{score} needs the labels; give target=")
    name = own or score
    return [Point(overlap.score(name, math.nan), *overlap.interval(name, confidence)) for overlap in overlaps]


def heat_row(layer: LayerMeasures, level: Level, statistic: Statistic, order: Order, most: int = MOST_CELLS) -> Floats:
    """NV of a layer's units or features in a bounded number of cells; nan where all of a cell are dead.

    Args:
        layer: The layer.
        level: Of what.
        statistic: The spread.
        order: `"sorted"`, from invariant to sensitive, dead ones last; or `"index"`, as they are numbered.
        most: Cells, beyond which neighbours share one.
    """
    return pooled(_in_order(_values(layer, level, statistic), order), most)


def heat_difference(
    h1: LayerMeasures, h2: LayerMeasures, level: Level, statistic: Statistic, order: Order, most: int = MOST_CELLS
) -> Floats | None:
    """NV of h2 less that of h1, in cells; None where numbers cannot be told to be of the same feature.

    Sorted, they are compared rank by rank among those that are not dead, which holds for networks whose features have
    nothing to do with each other; by index, one by one, which asks for an h2 that was trained on from h1.
    """
    values = [_values(layer, level, statistic) for layer in (h1, h2)]
    if order == "index":
        return pooled(values[1] - values[0], most) if len(values[0]) == len(values[1]) else None
    alive = [part[~np.isnan(part)] for part in values]
    cells = min(most, *(len(part) for part in values))
    if not all(part.size for part in alive):
        return np.full(cells, np.nan)
    ranks = (np.arange(cells) + 0.5) / cells
    of_h1, of_h2 = (np.asarray(np.quantile(part, ranks), dtype=np.float64) for part in alive)
    return of_h2 - of_h1


def pooled(values: Floats, most: int = MOST_CELLS) -> Floats:
    """Means of neighbours, so that at most so many are left; nan only where all neighbours are nan."""
    if len(values) <= most:
        return values
    edges = np.linspace(0, len(values), most + 1).astype(np.int64)[:-1]
    known = ~np.isnan(values)
    counts = np.add.reduceat(known.astype(np.float64), edges)
    sums = np.add.reduceat(np.where(known, values, 0.0), edges)
    means = np.full(most, np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


def scale_end(rows: Iterable[Floats]) -> tuple[float, bool]:
    """Where a scale from 0 ends so that a few outliers do not flatten all else, and whether some lie beyond."""
    known = [np.abs(row[~np.isnan(row)]) for row in rows]
    known = [part for part in known if part.size and part.max() > 0]
    if not known:
        return 1.0, False
    # Of each layer, as a narrow layer is no outlier.
    end = max(float(np.quantile(part, 0.98)) for part in known)
    top = max(float(part.max()) for part in known)
    return (top, False) if top <= 1.25 * end or end == 0 else (end, True)


def _values(layer: LayerMeasures, level: Level, statistic: Statistic) -> Floats:
    if level not in ("unit", "feature"):
        raise ValueError(f"level: expected 'unit' or 'feature', got {level!r}")
    if level == "feature":
        return layer.feature_normalized_variance(statistic)
    return layer.normalized_variance(statistic).ravel()


def _in_order(values: Floats, order: Order) -> Floats:
    if order not in ("sorted", "index"):
        raise ValueError(f"order: expected 'sorted' or 'index', got {order!r}")
    # nan sorts last.
    return np.sort(values) if order == "sorted" else values
