"""Goodfellow's measure: units that are made to fire rarely, and how often they go on firing under transformations.

Two passes, since a threshold must be known before anything can be above it. The first keeps, of each unit, its largest
activations for the samples as they are; the second counts. The identity is no transformation here: with it among the m,
an unrelated unit would score 1 / m too much.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bc_core.invariance._accumulator import Floats

# By how much an activation may differ in batches of other sizes, as a share of the largest.
_ROUNDING = 1e-5


class FiringBackend(Protocol):
    """What firing thresholds and rates need of an array library."""

    def largest(self, kept: Any | None, values: Any, count: int) -> Any:
        """The `count` largest, at most, of `kept` and `values` (r, K) along axis 0, largest first."""

    def firing(self, tile: Any, threshold: Any, identity: int) -> tuple[Any, Any]:
        """Of a tile (r, m, K): (sum_i f_i sum_{j != identity} f_ij, sum_i f_i), each (K,); f_ij = 1[a_ij > threshold],
        f_i that of the identity.
        """  # noqa: D205

    def host(self, array: Any) -> Floats:
        """An array as float64 of numpy."""


class NumpyFiring:
    """`FiringBackend` for numpy.

    Example:
        >>> import numpy as np
        >>> from bc_core.invariance import NumpyFiring
        >>> NumpyFiring().largest(None, np.array([[1.0], [5.0], [3.0]]), count=2)[:, 0]
        array([5., 3.])
    """

    def largest(self, kept: Any | None, values: Any, count: int) -> Any:
        """The `count` largest of both along axis 0, largest first."""
        both = values if kept is None else np.concatenate([kept, values])
        return -np.sort(-both, axis=0)[:count]

    def firing(self, tile: Any, threshold: Any, identity: int) -> tuple[Any, Any]:
        """How often units fire for other transformations of what they fire for, and for how many samples."""
        fires = tile > threshold
        own = fires[:, identity]
        others = fires.sum(axis=1) - own
        return (own * others).sum(axis=0, dtype=np.float64), own.sum(axis=0, dtype=np.float64)

    def host(self, array: Any) -> Floats:
        """An array as float64 of numpy."""
        return np.asarray(array, dtype=np.float64)


def kept_for(firing_rate: float, samples: int) -> int:
    """How many of the largest activations give `firing_threshold`: one more than may lie above it.

    Raises:
        ValueError: If the rate is not between 0 and 1.

    Example:
        >>> from bc_core.invariance._firing import kept_for
        >>> kept_for(0.01, 1000)
        11
    """
    if not 0 < firing_rate < 1:
        raise ValueError(f"firing_rate: expected a share of samples between 0 and 1, such as 0.01, got {firing_rate!r}")
    return min(samples, max(1, math.floor(firing_rate * samples + 1e-9)) + 1)


def firing_threshold(largest: NDArray[Any]) -> NDArray[Any]:
    """What a unit fires above: activations equal to the last of its largest do not, also when they are computed anew.

    In a batch of another size an activation may come out a digit larger, so the threshold is not the last itself. It is
    halfway from what equals the last but for rounding to the next larger one, or a rounding above where that is far.

    Args:
        largest: Shape (count, K): the `kept_for` largest activations of each unit for the samples as they are, largest
            first.

    Returns:
        Shape (K,), in the type of the activations.

    Example:
        >>> import numpy as np
        >>> from bc_core.invariance._firing import firing_threshold
        >>> threshold = firing_threshold(np.array([[4.0], [2.0], [1.0], [1.0]]))
        >>> (1.0 < threshold < 1.001).all()
        np.True_
    """
    last = largest[-1]
    room = _ROUNDING * np.maximum(abs(largest[0]), abs(last))
    # Sorted, so their number says where they are.
    apart = (largest > last + room).sum(axis=0)[None]
    equal = np.take_along_axis(largest, np.minimum(apart, len(largest) - 1), axis=0)[0]
    larger = np.take_along_axis(largest, np.maximum(apart - 1, 0), axis=0)[0]
    halfway = np.where(apart[0] > 0, (equal + larger) / 2, np.inf)
    threshold: NDArray[Any] = np.minimum(equal + room, halfway)
    return threshold.astype(largest.dtype)


def firing_rates(local: Floats, fired: Floats, samples: int, others: int) -> tuple[Floats, Floats]:
    """L and G from sums over all samples; L is nan of units that never fire.

    Args:
        local: Shape (K,): sum over firing samples of the other transformations for which the unit fires.
        fired: Shape (K,): samples that it fires for.
        samples: Number of samples n.
        others: Number of transformations without the identity.

    Example:
        >>> import numpy as np
        >>> from bc_core.invariance._firing import firing_rates
        >>> firing_rates(np.array([6.0]), np.array([3.0]), samples=30, others=4)
        (array([0.5]), array([0.1]))
    """
    rate = np.full(local.shape, math.nan)
    np.divide(local, fired * others, out=rate, where=fired > 0)
    return rate, fired / samples
