"""Probes: activations of a few units of every layer, kept whole, so that samples can be drawn again.

An interval for NV needs what one sample contributes, and SV is no sum over samples. All activations would not fit
anywhere; a bounded random choice of units of each layer does, and samples differ for it as they do for the layer.
Where a layer has no more units than are kept, the resampling is of the very number that is reported.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bc_core.invariance._result import Statistic, Summary

Floats = NDArray[np.float64]

# Entries of intermediate arrays while resampling, 8 bytes each.
_BLOCK = 1 << 22


class Probes:
    """Activations of a choice of units of each layer, in the order of the samples; the choice shrinks to fit.

    Args:
        units: Most units that are kept of a layer.
        max_memory: Bytes that all layers together may take; when they are reached, half of the units of every layer is
            dropped. At least one unit of each layer is kept.
        seed: Of the choice, which depends on it, the layer's name and its size alone.

    Example:
        >>> import numpy as np
        >>> from bc_core.invariance import Probes
        >>> probes = Probes(units=2)
        >>> tile = np.arange(24.0).reshape(2, 3, 4)  # r, m, K
        >>> probes.add("fc", tile[:, :, probes.choose("fc", 4)])
        >>> probes["fc"].shape
        (2, 3, 2)
    """

    def __init__(self, units: int = 256, max_memory: int = 1 << 29, seed: int = 0) -> None:
        if units < 1 or max_memory < 1:
            raise ValueError(f"expected units and max_memory of at least 1, got {units} and {max_memory}")
        self._most, self._max_memory, self._seed = units, max_memory, seed
        self._kept: dict[str, list[NDArray[np.float32]]] = {}
        self._chosen: dict[str, NDArray[np.int64]] = {}

    def choose(self, layer: str, units: int) -> NDArray[np.int64]:
        """Which of a layer's units to hand to `add` now, shape (U,); fewer as more samples come in."""
        if layer not in self._chosen:
            # Not hash(): that of text differs from process to process.
            generator = np.random.default_rng([self._seed, zlib.crc32(layer.encode()), units])
            self._chosen[layer] = generator.permutation(units)[: self._most].astype(np.int64)
        return self._chosen[layer]

    def add(self, layer: str, activations: Any) -> None:
        """Take in the chosen units of a tile, shape (r, m, U)."""
        self._kept.setdefault(layer, []).append(np.array(activations, dtype=np.float32))
        while self.bytes > self._max_memory and max(map(len, self._chosen.values())) > 1:
            for name, chosen in self._chosen.items():
                # A random choice, halved, is a random choice.
                self._chosen[name] = chosen[: max(1, len(chosen) // 2)]
                width = len(self._chosen[name])
                self._kept[name] = [tile[:, :, :width].copy() for tile in self._kept.get(name, [])]

    @property
    def bytes(self) -> int:
        """Bytes taken."""
        return sum(tile.nbytes for tiles in self._kept.values() for tile in tiles)

    def __getitem__(self, layer: str) -> NDArray[np.float32]:
        return np.concatenate(self._kept[layer])

    def __contains__(self, layer: object) -> bool:
        return layer in self._kept


class Interval(NamedTuple):
    """Lower and upper bound.

    Example:
        >>> from bc_core.invariance import Interval
        >>> Interval(0.25, 0.5).high
        0.5
    """

    low: float
    high: float


@dataclass(frozen=True)
class PairedInterval:
    """Intervals of NV of two networks for the same samples.

    Attributes:
        h1: Of h1's NV; None where it has no such layer.
        h2: Of h2's.
        difference: Of h2's less h1's, which is narrower than the two suggest, since both saw the same samples.
    """

    h1: Interval | None
    h2: Interval | None
    difference: Interval | None


def resample_weights(samples: int, resamples: int, seed: int) -> NDArray[np.float64]:
    """How often each sample is drawn in each resample, shape (resamples, samples), as shares that sum to 1.

    Example:
        >>> from bc_core.invariance._probes import resample_weights
        >>> resample_weights(samples=4, resamples=2, seed=0).sum(axis=1)
        array([1., 1.])
    """
    generator = np.random.default_rng(seed)
    return generator.multinomial(samples, np.full(samples, 1 / samples), size=resamples) / samples


def resampled_nv(
    activations: Any, weights: Floats, statistic: Statistic = "std", how: Summary = "ratio_of_means"
) -> Floats:
    """NV of a layer for resampled samples.

    Args:
        activations: Shape (n, m, U).
        weights: Shape (R, n), rows that sum to 1; equal weights give NV itself.
        statistic: The spread.
        how: Summary over units.

    Returns:
        Shape (R,). Variances over samples have ddof=1.

    Example:
        >>> import numpy as np
        >>> from bc_core.invariance._probes import resampled_nv
        >>> a = np.array([[0.0, 2.0], [1.0, 3.0]])[:, :, None]
        >>> resampled_nv(a, np.full((1, 2), 0.5), "var")
        array([4.])
    """
    matrix = np.asarray(activations, dtype=np.float64)
    samples, columns, units = matrix.shape
    flat = matrix.reshape(samples, -1)
    flat = flat - flat.mean(axis=0)
    spread = matrix.var(axis=1, ddof=1)
    if statistic == "std":
        spread = np.sqrt(spread)
    values = np.empty(len(weights))
    step = max(1, _BLOCK // max(1, columns * units))
    for start in range(0, len(weights), step):
        part = weights[start : start + step]
        mean = part @ flat
        variance = np.maximum(part @ (flat * flat) - mean * mean, 0) * (samples / (samples - 1))
        sv = (np.sqrt(variance) if statistic == "std" else variance).reshape(-1, columns, units).mean(axis=1)
        tv = part @ spread
        with np.errstate(divide="ignore", invalid="ignore"):
            if how == "ratio_of_means":
                values[start : start + step] = tv.mean(axis=1) / sv.mean(axis=1)
            else:
                ratio = np.where(sv > 0, tv / sv, np.nan)
                alive = ~np.isnan(ratio)
                values[start : start + step] = np.where(alive, ratio, 0).sum(axis=1) / alive.sum(axis=1)
    return values


def paired_intervals(
    h1: Any | None,
    h2: Any | None,
    estimates: tuple[float, float],
    *,
    statistic: Statistic = "std",
    how: Summary = "ratio_of_means",
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> PairedInterval:
    """Bootstrap intervals of NV of one layer of two networks, with the same samples drawn for both.

    Args:
        h1: Its activations for the probed units, shape (n, m, U1), or None.
        h2: Its activations for the same samples in the same order, shape (n, m, U2), or None.
        estimates: NV of all units of the layer, of h1 and h2; the draws are scaled to have it as their mean.
        statistic: The spread.
        how: Summary over units.
        confidence: Wanted coverage.
        resamples: Number of resamples.
        seed: Of the draws.

    Raises:
        ValueError: If the two are not of the same samples.

    Reference:
        Percentiles of Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7 (1979).

    Example:
        >>> import numpy as np
        >>> from bc_core.invariance._probes import paired_intervals
        >>> rng = np.random.default_rng(0)
        >>> a = rng.normal(size=(100, 1, 20)) + 0.3 * rng.normal(size=(100, 4, 20))
        >>> paired_intervals(a, a, (0.27, 0.27)).difference
        Interval(low=0.0, high=0.0)
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a number between 0 and 1 such as 0.95, got {confidence!r}")
    sizes = {len(found) for found in (h1, h2) if found is not None}
    if len(sizes) != 1:
        raise ValueError(f"expected activations of h1 and h2 for the same samples, got {sorted(sizes)} of them")
    weights = resample_weights(sizes.pop(), resamples, seed)
    drawn: list[Floats | None] = []
    for found, estimate in zip((h1, h2), estimates, strict=True):
        if found is None:
            drawn.append(None)
            continue
        values = resampled_nv(found, weights, statistic, how)
        known = values[np.isfinite(values)]
        centre = float(known.mean()) if known.size else 0.0
        # A resample repeats samples, so its SV is too small and its NV too large, by about 1 / n; with many units that
        # is more than the spread. So the draws say how far NV may lie from its estimate, not where it lies.
        drawn.append(values * (estimate / centre) if centre > 0 and math.isfinite(estimate) else values)
    difference = None if drawn[0] is None or drawn[1] is None else drawn[1] - drawn[0]
    return PairedInterval(*(None if v is None else percentiles(v, confidence) for v in (*drawn, difference)))


def percentiles(values: Floats, confidence: float) -> Interval:
    """The middle share of resampled values; nan where none is a number."""
    known = values[np.isfinite(values)]
    if not known.size:
        return Interval(math.nan, math.nan)
    tail = (1 - confidence) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return Interval(float(low), float(high))
