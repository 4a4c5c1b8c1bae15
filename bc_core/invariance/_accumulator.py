"""One pass over activations that are never stored: sums by transformation and by sample, which add up over shards.

The matrix is a_ij = f(t_j x_i), samples i (rows) by transformations j (columns), for each of K units. A tile holds
whole rows, r samples x all m transformations, so what a row contributes is known at once, and what a column has
gathered is two sums for each of m K entries. Two shifts keep every digit:

- rows by their own first entry, d_ij = a_ij - a_i0. An invariant unit then has d = 0 and a variance of exactly 0, and
  as the shift is a member of the row, the sums of squares never lose more than a factor m.
- columns by the column means of the first tile, e_ij = a_ij - s_j, so that a mean of 10,000 with a spread of 0.01 is no
  difference of two large numbers. Of these, s_j = a_0j + mean_i(a_ij - a_0j): a constant unit is shifted to exactly 0.

A tile's sums are taken where the activations are and in their type; the sums of tiles are added in float64. Only the
first needs to be fast, and only it is written for each array library: `TileBackend`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
L = TypeVar("L")

# Entries that numpy works on at a time, so that intermediate results stay in the processor's cache.
_BLOCK = 1 << 18

# Samples that a block has at least, so that adding up the columns of blocks is little beside making them.
_LEAST_ROWS = 8


class TileSums(NamedTuple):
    """What one tile, or several together, contribute; arrays of the backend's library.

    Attributes:
        column_sum: Shape (m, K): sum_i e_ij.
        column_square: Shape (m, K): sum_i e_ij^2.
        row_std: Shape (K,): sum_i sqrt(v_i), where v_i is the variance of row i over its m entries (ddof=1).
        row_var: Shape (K,): sum_i v_i.
    """

    column_sum: Any
    column_square: Any
    row_std: Any
    row_var: Any


class TileBackend(Protocol):
    """The arithmetic of `StreamingMoments` in one array library; `NumpyBackend` shows what each method does."""

    def tile(self, activation: Any, rows: int, columns: int) -> Any:
        """(rows * columns, ...) as (rows, columns, K), in float32 or float64."""

    def shift(self, tile: Any) -> Any:
        """Column shifts (m, K) from the first tile, tile[0] + mean_i(tile - tile[0]), in the tile's type."""

    def sums(self, tile: Any, shift: Any) -> TileSums:
        """Sums of one tile, in the tile's type or a wider one."""

    def add(self, totals: TileSums | None, sums: TileSums) -> TileSums:
        """Add in float64, on the device or on the host; may change `totals` in place. None: the first tile."""

    def host(self, array: Any) -> Floats:
        """An array as float64 of numpy."""


class NumpyBackend:
    """`TileBackend` for numpy.

    Example:
        >>> import numpy as np
        >>> from bc_core.invariance import NumpyBackend
        >>> backend = NumpyBackend()
        >>> tile = backend.tile(np.array([[0.0], [2.0], [1.0], [1.0]]), rows=2, columns=2)
        >>> backend.sums(tile, backend.shift(tile)).row_var
        array([2.])
    """

    def tile(self, activation: Any, rows: int, columns: int) -> Any:
        """(rows * columns, ...) as (rows, columns, K), in float32 or float64."""
        array = np.asarray(activation)
        if array.dtype not in (np.float32, np.float64):
            array = array.astype(np.float64 if array.dtype.kind in "iu" else np.float32)
        return array.reshape(rows, columns, -1)

    def shift(self, tile: Any) -> Any:
        """Column shifts (m, K) from the first tile."""
        return tile[0] + (tile - tile[0]).mean(axis=0)

    def sums(self, tile: Any, shift: Any) -> TileSums:
        """Sums of one tile, in float64."""
        rows, columns, units = tile.shape
        sums = TileSums(np.empty((columns, units)), np.empty((columns, units)), np.empty(units), np.empty(units))
        for part in unit_blocks(rows * columns, units):
            block = tile[:, :, part]
            shifted = block - shift[:, part]
            sums.column_sum[:, part] = shifted.sum(axis=0, dtype=np.float64)
            np.multiply(shifted, shifted, out=shifted)
            sums.column_square[:, part] = shifted.sum(axis=0, dtype=np.float64)
            np.subtract(block, block[:, :1], out=shifted)
            total = shifted.sum(axis=1, dtype=np.float64)
            np.multiply(shifted, shifted, out=shifted)
            spread = np.maximum(shifted.sum(axis=1, dtype=np.float64) - total * total / columns, 0) / (columns - 1)
            sums.row_var[part] = spread.sum(axis=0)
            sums.row_std[part] = np.sqrt(spread).sum(axis=0)
        return sums

    def add(self, totals: TileSums | None, sums: TileSums) -> TileSums:
        """Add in float64."""
        if totals is None:
            return TileSums(*(part.astype(np.float64) for part in sums))
        for total, part in zip(totals, sums, strict=True):
            total += part  # noqa: PLW2901 - in place
        return totals

    def host(self, array: Any) -> Floats:
        """An array as float64 of numpy."""
        return np.asarray(array, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Moments:
    """What is known of one layer after some rows; merging two is exact, whatever their shifts were.

    Attributes:
        count: Number of rows n.
        mean: Shape (m, K), float64: column means.
        m2: Shape (m, K), float64: sums of squared deviations from them.
        row_std: Shape (K,), float64: sum over rows of the standard deviation over the m columns (ddof=1).
        row_var: Shape (K,), float64: the same of the variance.

    Example:
        >>> import numpy as np
        >>> from bc_core.invariance import StreamingMoments
        >>> a = np.random.default_rng(0).normal(size=(6, 4, 3))  # n, m, K
        >>> whole, first, rest = (StreamingMoments(columns=4) for _ in range(3))
        >>> for moments, rows in ((whole, a), (first, a[:1]), (rest, a[1:])):
        ...     moments.update(rows.reshape(-1, 3), rows=len(rows))
        >>> merged = first.moments().merge(rest.moments())
        >>> merged.count, bool(np.allclose(merged.m2, whole.moments().m2))
        (6, True)
    """

    count: int
    mean: Floats
    m2: Floats
    row_std: Floats
    row_var: Floats

    def merge(self, other: Moments) -> Moments:
        """The moments of the rows of both, by the pairwise rule of Chan, Golub and LeVeque (1979).

        Raises:
            ValueError: If the other has other columns or units.
        """
        if self.mean.shape != other.mean.shape:
            raise ValueError(
                f"expected moments of {self.mean.shape} (columns, units), got {other.mean.shape}; merge shards of one "
                "layer under the same transformations"
            )
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        apart = other.mean - self.mean
        return Moments(
            count,
            self.mean + apart * (other.count / count),
            self.m2 + other.m2 + apart * apart * (self.count * other.count / count),
            self.row_std + other.row_std,
            self.row_var + other.row_var,
        )


class StreamingMoments:
    """Gathers the moments of one layer from tiles of whole rows.

    Neither the size of the tiles nor the order of the rows matters, but for the last digits of the tiles' type.

    Args:
        columns: Number of transformations m, at least 2.
        backend: Array library of the activations.

    Raises:
        ValueError: If there are fewer than two columns.

    Example:
        >>> import numpy as np
        >>> from bc_core.invariance import StreamingMoments
        >>> moments = StreamingMoments(columns=2)
        >>> moments.update(np.array([[1.0], [1.0], [4.0], [4.0]]), rows=2)  # x0 t0, x0 t1, x1 t0, x1 t1
        >>> moments.moments().row_var, moments.moments().mean[:, 0]
        (array([0.]), array([2.5, 2.5]))
    """

    def __init__(self, columns: int, backend: TileBackend | None = None) -> None:
        if columns < 2:
            raise ValueError(
                f"expected at least two transformations, got {columns}: one transformation has no spread; the first is "
                "normally the identity, TransformSet.identity() | ..."
            )
        self._columns = columns
        self._backend: TileBackend = NumpyBackend() if backend is None else backend
        self._shift: Any = None
        self._totals: TileSums | None = None
        self._count = 0

    @property
    def count(self) -> int:
        """Rows so far."""
        return self._count

    def update(self, activation: Any, rows: int) -> None:
        """Take in a tile.

        Args:
            activation: Shape (rows * columns, ...), sample by sample: entry `i * columns + j` is f(t_j x_i).
            rows: Number of samples, at least 1.
        """
        tile = self._backend.tile(activation, rows, self._columns)
        if self._shift is None:
            self._shift = self._backend.shift(tile)
        self._totals = self._backend.add(self._totals, self._backend.sums(tile, self._shift))
        self._count += rows

    def moments(self) -> Moments:
        """What is known so far, on the host.

        Raises:
            ValueError: If there was no row.
        """
        if self._totals is None:
            raise ValueError("expected at least one row, got none; look at the data")
        shift = self._backend.host(self._shift)
        total, square, row_std, row_var = (self._backend.host(part) for part in self._totals)
        mean, m2 = np.empty_like(shift), np.empty_like(shift)
        # In blocks, as a layer may fill a good part of the memory.
        for part in unit_blocks(*shift.shape):
            moved = total[:, part] / self._count
            mean[:, part] = shift[:, part] + moved
            m2[:, part] = np.maximum(square[:, part] - total[:, part] * moved, 0)
        return Moments(self._count, mean, m2, row_std, row_var)


def unit_blocks(rows: int, units: int) -> Iterator[slice]:
    """Slices of the units for which (rows, units) fits into the cache.

    Example:
        >>> from bc_core.invariance._accumulator import unit_blocks
        >>> list(unit_blocks(rows=1 << 17, units=3))
        [slice(0, 2, None), slice(2, 4, None)]
    """
    width = max(1, _BLOCK // rows)
    return (slice(start, start + width) for start in range(0, units, width))


def block_shape(rows: int, columns: int, units: int, entries: int) -> tuple[int, int]:
    """Samples and units of blocks of a tile (rows, columns, units) with about so many entries.

    All units while there is room for several samples, since these lie in one piece.

    Example:
        >>> from bc_core.invariance._accumulator import block_shape
        >>> block_shape(rows=32, columns=8, units=12544, entries=1 << 20)  # four blocks
        (8, 12544)
        >>> block_shape(rows=25, columns=8, units=65536, entries=1 << 20)
        (7, 18724)
    """
    height = min(rows, max(_LEAST_ROWS, entries // max(1, columns * units)))
    height = math.ceil(rows / math.ceil(rows / height))
    return height, max(1, min(units, entries // (columns * height)))


def accumulator_bytes(units: int, columns: int, itemsize: int = 4) -> int:
    """Bytes that `StreamingMoments` holds for one layer: two float64 and a shift for each of m K entries.

    Args:
        units: Number of units K.
        columns: Number of transformations m.
        itemsize: Bytes of one activation.

    Example:
        >>> from bc_core.invariance import accumulator_bytes
        >>> accumulator_bytes(units=64 * 112 * 112, columns=8)  # the first layer of a ResNet: 141 MB
        141295616
    """
    return units * (columns * (16 + itemsize) + 16)


def in_groups(layers: Sequence[L], need: Sequence[int], room: int | None) -> list[list[L]]:
    """Layers in order, in as few groups as go into `room` bytes each; none may need more by itself.

    Args:
        layers: The layers.
        need: Bytes that each takes.
        room: Bytes that a group may take; None for one group.

    Example:
        >>> from bc_core.invariance._accumulator import in_groups
        >>> in_groups("abcd", [3, 2, 4, 1], room=5), in_groups("abcd", [3, 2, 4, 1], room=None)
        ([['a', 'b'], ['c', 'd']], [['a', 'b', 'c', 'd']])
    """
    if room is None:
        return [list(layers)]
    groups: list[list[L]] = []
    left = 0
    for layer, size in zip(layers, need, strict=True):
        if size > left or not groups:
            groups.append([])
            left = room
        groups[-1].append(layer)
        left -= size
    return groups
