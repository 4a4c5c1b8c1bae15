"""What some instances say about a score: how many of how many, in plain instances that would know as much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core.counting._scores import SCORES, count_cells, score_terms
from bc_core.counting._weighted import share_and_effective

Cells = tuple[float, float, float, float]


@dataclass(frozen=True)
class Rows:
    """Instances of two models one by one, of which evidence is taken for any part.

    Attributes:
        h1_right: Shape (N,), bool.
        h2_right: Shape (N,), bool.
        weights: Shape (N,); None where all count alike.
        clusters: Shape (N,), what an instance belongs to; None where each stands by itself.
    """

    h1_right: NDArray[np.bool_]
    h2_right: NDArray[np.bool_]
    weights: NDArray[np.float64] | None = None
    clusters: NDArray[Any] | None = None

    @property
    def plain(self) -> bool:
        """Whether all instances count alike and by themselves."""
        return self.weights is None and self.clusters is None

    def part(self, chosen: NDArray[np.bool_] | slice = slice(None)) -> Evidence:
        """What the chosen instances say; all of them by default."""
        weights, clusters = (None if each is None else each[chosen] for each in (self.weights, self.clusters))
        rows = Rows(self.h1_right[chosen], self.h2_right[chosen], weights, clusters)
        return Evidence(count_cells(rows.h1_right, rows.h2_right)[0], None if rows.plain else rows)


@dataclass(frozen=True)
class Evidence:
    """Instances as their counts, where all count alike; else one by one too.

    Attributes:
        counts: Shape (2, 2), integers, indexed `[h1_right, h2_right]`.
        rows: The instances; None where the counts say it all.
    """

    counts: NDArray[np.int64]
    rows: Rows | None = None

    @property
    def size(self) -> int:
        """Number of instances."""
        return int(self.counts.sum())

    def ratio(self, score: str) -> tuple[float, float]:
        """Instances above and below the fraction bar of a score; of weighted or clustered ones, effective numbers."""
        if self.rows is None:
            above, below = score_terms(score, self.counts)
            return float(above), float(below)
        row = (self.rows.h1_right.astype(np.intp), self.rows.h2_right.astype(np.intp))
        top, bottom = (np.asarray(cells, bool)[row] for cells in (SCORES[score].numerator, SCORES[score].denominator))
        share, effective = share_and_effective(top, bottom, self.rows.weights, self.rows.clusters)
        return (share * effective, effective) if effective else (0.0, 0.0)

    def cells(self) -> Cells:
        """(both right, only h1, only h2, both wrong); effective numbers, worth what is known of the difference."""
        if self.rows is None or not self.size:
            (neither, only_h2), (only_h1, both) = self.counts.astype(float).tolist()
            return both, only_h1, only_h2, neither
        h1, h2 = self.rows.h1_right, self.rows.h2_right
        weights = np.ones(self.size) if self.rows.weights is None else self.rows.weights
        whole = float(weights.sum())
        if not whole:
            return 0.0, 0.0, 0.0, 0.0
        shares = [float(weights[mask].sum()) / whole for mask in (h1 & h2, h1 & ~h2, ~h1 & h2, ~h1 & ~h2)]
        effective = _effective_of_difference(self.rows, weights, shares[1], shares[2])
        both, only_h1, only_h2, neither = (share * effective for share in shares)
        return both, only_h1, only_h2, neither


def _effective_of_difference(rows: Rows, weights: NDArray[np.float64], only_h1: float, only_h2: float) -> float:
    whole, gain = float(weights.sum()), rows.h2_right.astype(np.float64) - rows.h1_right
    off = weights * (gain - (only_h2 - only_h1))
    codes = np.arange(len(weights))
    if rows.clusters is not None:
        _, codes = np.unique(rows.clusters, return_inverse=True)
    residual, size = np.bincount(codes, off), np.bincount(codes, weights)
    groups = len(residual)
    variance = float(np.square(residual).sum()) / whole**2 * (groups / (groups - 1) if groups > 1 else 1.0)
    plain_variance = only_h1 + only_h2 - (only_h2 - only_h1) ** 2
    if groups < 2 or not variance or not plain_variance:
        return whole**2 / float(np.square(size).sum())
    # No more than weights alone leave of the instances (Kish).
    return min(whole**2 / float(np.square(weights).sum()), plain_variance / variance)
