"""The arithmetic of `bc_core.invariance` on torch tensors, where they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bc_core.invariance import TileSums
from bc_core.invariance._accumulator import block_shape
from bc_core.invariance._resampling import NEEDS_FLOATS

# Entries that a processor works on at a time: intermediate results then stay in its cache, and are never allocated
# anew. An accelerator wants few large kernels instead.
_CPU_BLOCK = 1 << 20
_DEVICE_BLOCK = 1 << 26


class TorchBackend:
    """`TileBackend` and `FiringBackend` of torch: a tile's sums in its own type, tiles together in float64.

    Eight passes over cached blocks of whole samples, which lie in one piece, all of them differences, products and
    sums: a variance kernel over a leading axis, and a vector norm, take ten times as long.

    Example:
        >>> import torch
        >>> from bc_core.invariance import StreamingMoments
        >>> from bc_lightning.invariance import TorchBackend
        >>> moments = StreamingMoments(columns=2, backend=TorchBackend())
        >>> moments.update(torch.tensor([[1.0], [1.0], [4.0], [4.0]]), rows=2)
        >>> moments.moments().row_var, moments.moments().mean[:, 0]
        (array([0.]), array([2.5, 2.5]))
    """

    def tile(self, activation: Tensor, rows: int, columns: int) -> Tensor:
        """(rows * columns, ...) as (rows, columns, K), in float32 or float64."""
        activation = activation.detach()
        if activation.dtype not in (torch.float32, torch.float64):
            activation = activation.float()
        return activation.reshape(rows, columns, -1)

    def shift(self, tile: Tensor) -> Tensor:
        """Column shifts (m, K) from the first tile."""
        return tile[0] + (tile - tile[0]).mean(0)

    def sums(self, tile: Tensor, shift: Tensor) -> TileSums:
        """Sums of one tile, in its type."""
        rows, columns, units = tile.shape
        column_sum, column_square = tile.new_empty(columns, units), tile.new_empty(columns, units)
        row_std, row_var = tile.new_empty(units), tile.new_empty(units)
        height, width = block_shape(rows, columns, units, _CPU_BLOCK if tile.device.type == "cpu" else _DEVICE_BLOCK)
        room = tile.new_empty(height * columns * width)
        for start in range(0, units, width):
            part = slice(start, min(start + width, units))
            for top in range(0, rows, height):
                block = tile[top : top + height, :, part]
                is_first = top == 0
                work = room[: block.numel()].view(block.shape)
                torch.sub(block, shift[:, part], out=work)
                _gather(work, column_sum[:, part], is_first)
                work.mul_(work)
                _gather(work, column_square[:, part], is_first)
                # The first entry of a row is no distance from itself.
                apart = block[:, 1:]
                work = room[: apart.numel()].view(apart.shape)
                torch.sub(apart, block[:, :1], out=work)
                total = work.sum(1)
                work.mul_(work)
                spread = work.sum(1).addcmul_(total, total, value=-1 / columns).clamp_(min=0)
                _gather(spread, row_var[part], is_first)
                # Not `sqrt_`, which comes from a vendor's library and takes ten times as long for zeros.
                _gather(spread.rsqrt_().reciprocal_(), row_std[part], is_first)
        row_std.div_(math.sqrt(columns - 1))
        row_var.div_(columns - 1)
        return TileSums(column_sum, column_square, row_std, row_var)

    @torch.inference_mode()  # as totals may have begun in it, and are then changed in it alone
    def add(self, totals: TileSums | None, sums: TileSums) -> TileSums:
        """Add in float64, in place; on the device, unless it has no float64."""
        if sums.row_var.device.type == "mps":
            sums = TileSums(*(part.cpu() for part in sums))
        if totals is None:
            return TileSums(*(part.double() for part in sums))
        for total, part in zip(totals, sums, strict=True):
            total.add_(part)
        return totals

    def host(self, array: Tensor) -> NDArray[np.float64]:
        """A tensor as float64 of numpy."""
        return array.detach().cpu().double().numpy()

    def largest(self, kept: Tensor | None, values: Tensor, count: int) -> Tensor:
        """The `count` largest of both along axis 0, largest first."""
        both = values if kept is None else torch.cat([kept, values])
        return both.topk(min(count, len(both)), dim=0).values

    def firing(self, tile: Tensor, threshold: Tensor, identity: int) -> tuple[Tensor, Tensor]:
        """How often units fire for other transformations of what they fire for, and for how many samples."""
        fires = (tile > threshold).to(tile.dtype)
        own = fires[:, identity]
        others = fires.sum(1) - own
        return (own * others).sum(0), own.sum(0)


def _gather(values: Tensor, into: Tensor, is_first: bool) -> None:
    """Add the sum over the first axis; the first time it takes the place of what was there."""
    if is_first:
        torch.sum(values, 0, out=into)
    else:
        into.add_(values.sum(0))


class TorchSpatial:
    """`SpatialOps` of torch; keeps a copy of each plan's arrays on every device that they were used on.

    Example:
        >>> import torch
        >>> from bc_core.invariance import TransformSet, make_tile
        >>> from bc_lightning.invariance import TorchSpatial
        >>> make_tile(TransformSet.flips(), torch.tensor([[[[1.0, 2.0]]]]), ops=TorchSpatial()).flatten()
        tensor([1., 2., 2., 1.])
    """

    def __init__(self) -> None:
        # With the array itself, whose number must not come to name another one.
        self._copies: dict[tuple[int, torch.device, torch.dtype], tuple[NDArray[Any], Tensor]] = {}

    def shape(self, x: Tensor) -> tuple[int, ...]:
        """Shape of a tensor."""
        return tuple(x.shape)

    def reshape(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """`x` with another shape."""
        return x.reshape(shape)

    def take(self, x: Tensor, indices: NDArray[np.int64], axis: int) -> Tensor:
        """Entries of `x` at `indices` along `axis`."""
        return x.index_select(axis, self._on(x.device, torch.int64, indices))

    def scale(self, x: Tensor, weights: NDArray[np.float32]) -> Tensor:
        """`x * weights`, broadcast from the right."""
        if not x.is_floating_point():
            raise TypeError(f"{NEEDS_FLOATS}. Received: {x.dtype}.")
        return x * self._on(x.device, x.dtype, weights)

    def stack(self, xs: Sequence[Tensor], axis: int) -> Tensor:
        """Tensors of one shape along a new axis."""
        return torch.stack(list(xs), axis)

    def split(self, x: Tensor, axis: int) -> list[Tensor]:
        """The entries of `x` along `axis`, without it."""
        return list(x.unbind(axis))

    def _on(self, device: torch.device, dtype: torch.dtype, array: NDArray[Any]) -> Tensor:
        key = (id(array), device, dtype)
        if key not in self._copies:
            self._copies[key] = array, torch.tensor(array, device=device, dtype=dtype)
        return self._copies[key][1]
