"""Probes: activations of a few units of every layer, kept whole, to see what single samples contribute to NV.

An interval for NV needs that, and SV is no sum over samples. All activations would not fit anywhere; a bounded random
choice of units of each layer does, and samples differ for it as they do for the layer. Where a layer has no more units
than are kept, the interval is of the very number that is reported.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bc_core.counting._intervals import checked_confidence
from bc_core.invariance._accumulator import Floats
from bc_core.invariance._layer_measures import Statistic, Summary

# Entries of intermediate arrays, 8 bytes each.
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
        self._bytes = 0
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
        tile = np.array(activations, dtype=np.float32)
        self._kept.setdefault(layer, []).append(tile)
        self._bytes += tile.nbytes
        while self.bytes > self._max_memory and max(map(len, self._chosen.values())) > 1:
            for name, chosen in self._chosen.items():
                # A random choice, halved, is a random choice.
                self._chosen[name] = chosen[: max(1, len(chosen) // 2)]
                width = len(self._chosen[name])
                self._kept[name] = [tile[:, :, :width].copy() for tile in self._kept.get(name, [])]
            self._bytes = sum(tile.nbytes for tiles in self._kept.values() for tile in tiles)

    def rename(self, names: Mapping[str, str]) -> None:
        """Give layers other names, once everything was added."""
        self._kept = {names.get(name, name): tiles for name, tiles in self._kept.items()}

    @property
    def bytes(self) -> int:
        """Bytes taken."""
        return self._bytes

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


def nv_influence(
    activations: Any, statistic: Statistic = "std", how: Summary = "ratio_of_means"
) -> tuple[float, Floats]:
    """NV of a layer, and what each sample does to it: how fast NV changes with the weight of the sample.

    Args:
        activations: Shape (n, m, U).
        statistic: The spread.
        how: Summary over units.

    Returns:
        NV, and the influences, shape (n,), whose mean is 0 and whose standard deviation over sqrt(n) is NV's standard
        error. Variances over samples have ddof=1. NaN where NV is.

    Reference:
        Efron, "The Jackknife, the Bootstrap and Other Resampling Plans", SIAM (1982), chapter 6: the infinitesimal
        jackknife.

    Example:
        >>> import numpy as np
        >>> from bc_core.invariance._probes import nv_influence
        >>> a = np.array([[0.0, 2.0], [1.0, 3.0]])[:, :, None]
        >>> nv_influence(a, "var")
        (4.0, array([0., 0.]))
    """
    samples, columns, units = np.shape(activations)
    width = max(1, _BLOCK // max(1, samples * columns))
    # Sums over units: of TV, of SV and of what each sample does to either; or of their ratios.
    tv_sum = sv_sum = ratio_sum = 0.0
    alive = 0
    to_tv, to_sv, to_ratio = np.zeros(samples), np.zeros(samples), np.zeros(samples)
    for start in range(0, units, width):
        block = np.asarray(activations[:, :, start : start + width], dtype=np.float64)
        within = block.var(axis=1, ddof=1)
        over = block - block.mean(axis=0)
        over *= over
        if samples > 1:
            over *= samples / (samples - 1)
        across = over.mean(axis=0)
        over -= across
        if statistic == "std":
            within, across = np.sqrt(within), np.sqrt(across)
            with np.errstate(divide="ignore", invalid="ignore"):
                # Of a unit that never changes nothing changes.
                over *= np.where(across > 0, 0.5 / across, 0)
        tv, sv, of_sv = within.mean(axis=0), across.mean(axis=0), over.mean(axis=1)
        of_tv = within - tv
        if how == "ratio_of_means":
            tv_sum, sv_sum = tv_sum + tv.sum(), sv_sum + sv.sum()
            to_tv += of_tv.sum(axis=1)
            to_sv += of_sv.sum(axis=1)
            continue
        lives = sv > 0
        ratio = tv[lives] / sv[lives]
        ratio_sum, alive = ratio_sum + ratio.sum(), alive + int(lives.sum())
        to_ratio += ((of_tv[:, lives] - ratio * of_sv[:, lives]) / sv[lives]).sum(axis=1)
    if how == "ratio_of_means":
        if not sv_sum > 0:
            return math.nan, np.full(samples, math.nan)
        value = float(tv_sum / sv_sum)
        return value, (to_tv - value * to_sv) / sv_sum
    if not alive:
        return math.nan, np.full(samples, math.nan)
    return float(ratio_sum / alive), to_ratio / alive


def paired_intervals(
    h1: Any | None,
    h2: Any | None,
    estimates: tuple[float, float],
    *,
    statistic: Statistic = "std",
    how: Summary = "ratio_of_means",
    confidence: float = 0.95,
) -> PairedInterval:
    """Intervals of NV of one layer of two networks, which saw the same samples.

    From the influence of each sample (see `nv_influence`), so that it takes one pass over what was kept.

    Args:
        h1: Its activations for the probed units, shape (n, m, U1), or None.
        h2: Its activations for the same samples in the same order, shape (n, m, U2), or None.
        estimates: NV of all units of the layer, of h1 and h2, about which the intervals are laid.
        statistic: The spread.
        how: Summary over units.
        confidence: Wanted coverage.

    Raises:
        ValueError: If the two are not of the same samples.

    Example:
        >>> import numpy as np
        >>> from bc_core.invariance._probes import paired_intervals
        >>> rng = np.random.default_rng(0)
        >>> a = rng.normal(size=(100, 1, 20)) + 0.3 * rng.normal(size=(100, 4, 20))
        >>> paired_intervals(a, a, (0.27, 0.27)).difference
        Interval(low=0.0, high=0.0)
    """
    checked_confidence(confidence)
    sizes = {len(found) for found in (h1, h2) if found is not None}
    if len(sizes) != 1:
        raise ValueError(f"expected activations of h1 and h2 for the same samples, got {sorted(sizes)} of them")
    influences: list[Floats | None] = []
    for found, estimate in zip((h1, h2), estimates, strict=True):
        if found is None:
            influences.append(None)
            continue
        value, influence = nv_influence(found, statistic, how)
        # The probed units have an NV of their own; how far it may lie off is carried over in proportion.
        influences.append(influence * (estimate / value) if value > 0 and math.isfinite(estimate) else influence)
    difference = None
    if influences[0] is not None and influences[1] is not None:
        difference = _around(estimates[1] - estimates[0], influences[1] - influences[0], confidence)
    # NV is not below 0.
    alone = [
        None if each is None else _around(estimate, each, confidence, least=0.0)
        for each, estimate in zip(influences, estimates, strict=True)
    ]
    return PairedInterval(alone[0], alone[1], difference)


def _around(estimate: float, influence: Floats, confidence: float, least: float = -math.inf) -> Interval:
    samples = len(influence)
    if samples < 2 or not math.isfinite(estimate):
        return Interval(math.nan, math.nan)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    # Student's quantile to first order: the standard error is itself an estimate.
    reach = z * (1 + (z * z + 1) / (4 * (samples - 1))) * float(np.std(influence, ddof=1)) / math.sqrt(samples)
    return Interval(max(least, estimate - reach), estimate + reach)
