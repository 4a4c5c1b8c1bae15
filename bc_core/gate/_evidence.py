"""What some instances say about a score: how many of how many, in plain instances that would know as much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core.counting._scores import SCORES, score_terms
from bc_core.counting._weighted import share_and_effective

Cells = tuple[float, float, float, float]


@dataclass(frozen=True)
class Evidence:
    """Instances as their counts, where all count alike; else one by one.

    Attributes:
        counts: Shape (2, 2), integers, indexed `[h1_right, h2_right]`.
        h1_right: Shape (N,), bool; None where the counts say it all.
        h2_right: Shape (N,), bool.
        weights: Shape (N,); None where all count alike.
        clusters: Shape (N,), what an instance belongs to; None where each stands by itself.
    """

    counts: NDArray[np.int64]
    h1_right: NDArray[np.bool_] | None = None
    h2_right: NDArray[np.bool_] | None = None
    weights: NDArray[np.float64] | None = None
    clusters: NDArray[Any] | None = None

    @property
    def size(self) -> int:
        """Number of instances."""
        return int(self.counts.sum())

    @property
    def plain(self) -> bool:
        """Whether all instances count alike and by themselves."""
        return self.weights is None and self.clusters is None

    def ratio(self, score: str) -> tuple[float, float]:
        """Instances above and below the fraction bar of a score; of weighted or clustered ones, effective numbers."""
        above, below = score_terms(score, self.counts)
        if self.plain or self.h1_right is None or self.h2_right is None:
            return float(above), float(below)
        row = (self.h1_right.astype(np.intp), self.h2_right.astype(np.intp))
        top, bottom = (np.asarray(cells, bool)[row] for cells in (SCORES[score].numerator, SCORES[score].denominator))
        share, effective = share_and_effective(top, bottom, self.weights, self.clusters)
        return (share * effective, effective) if effective else (0.0, 0.0)

    def cells(self) -> Cells:
        """(both right, only h1, only h2, both wrong); effective numbers, worth what is known of the difference."""
        counts = self.counts
        plain = (float(counts[1, 1]), float(counts[1, 0]), float(counts[0, 1]), float(counts[0, 0]))
        if self.plain or self.h1_right is None or self.h2_right is None or not self.size:
            return plain
        weights = np.ones(self.size) if self.weights is None else self.weights
        whole = float(weights.sum())
        if not whole:
            return 0.0, 0.0, 0.0, 0.0
        h1, h2 = self.h1_right, self.h2_right
        shares = [float(weights[mask].sum()) / whole for mask in (h1 & h2, h1 & ~h2, ~h1 & h2, ~h1 & ~h2)]
        effective = self._effective_of_difference(weights, whole, shares[1], shares[2])
        both, only_h1, only_h2, neither = (share * effective for share in shares)
        return both, only_h1, only_h2, neither

    def _effective_of_difference(
        self, weights: NDArray[np.float64], whole: float, only_h1: float, only_h2: float
    ) -> float:
        assert self.h1_right is not None
        assert self.h2_right is not None
        gain = self.h2_right.astype(np.float64) - self.h1_right
        off = weights * (gain - (only_h2 - only_h1))
        codes = np.arange(self.size)
        if self.clusters is not None:
            _, codes = np.unique(self.clusters, return_inverse=True)
        residual, size = np.bincount(codes, off), np.bincount(codes, weights)
        groups = len(residual)
        variance = float(np.square(residual).sum()) / whole**2 * (groups / (groups - 1) if groups > 1 else 1.0)
        plain_variance = only_h1 + only_h2 - (only_h2 - only_h1) ** 2
        if groups < 2 or not variance or not plain_variance:
            return whole**2 / float(np.square(size).sum())
        # No more than weights alone leave of the instances (Kish).
        return min(whole**2 / float(np.square(weights).sum()), plain_variance / variance)


@dataclass(frozen=True)
class Rows:
    """All instances of two models, of which evidence is taken for any part.

    Attributes:
        h1_right: Shape (N,), bool.
        h2_right: Shape (N,), bool.
        weights: Shape (N,), or None.
        clusters: Shape (N,), or None.
    """

    h1_right: NDArray[np.bool_]
    h2_right: NDArray[np.bool_]
    weights: NDArray[np.float64] | None = None
    clusters: NDArray[Any] | None = None

    @property
    def plain(self) -> bool:
        """Whether all instances count alike and by themselves."""
        return self.weights is None and self.clusters is None

    def part(self, chosen: NDArray[np.bool_] | None = None) -> Evidence:
        """What the chosen instances say; all of them by default."""
        h1, h2 = self.h1_right, self.h2_right
        weights, clusters = self.weights, self.clusters
        if chosen is not None:
            h1, h2 = h1[chosen], h2[chosen]
            weights = None if weights is None else weights[chosen]
            clusters = None if clusters is None else clusters[chosen]
        counts = np.bincount(h1.astype(np.intp) * 2 + h2, minlength=4).reshape(2, 2).astype(np.int64)
        return Evidence(counts, h1, h2, weights, clusters)
