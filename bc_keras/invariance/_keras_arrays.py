"""The arithmetic of `bc_core.invariance` on tensors of whichever backend Keras runs on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from bc_core.invariance import TileSums
from bc_core.invariance._resampling import NEEDS_FLOATS
from bc_keras._labels import is_float

# Entries that a processor works on at a time: intermediate results then stay in its cache, and are never allocated
# anew, which takes longer than the sums. An accelerator wants few large kernels instead.
_CPU_BLOCK = {"tensorflow": 1 << 18, "jax": 1 << 16, "torch": 1 << 20}
_DEVICE_BLOCK = 1 << 26
_SMALL = 4

# Additions in a chain: with more of them a function takes longer to compile, and runs no faster.
_CHAIN = 32

# Rows of the first tile that the shift is a mean of: so few that a compiled function can take it of every tile.
_SHIFT_ROWS = 4


class KerasBackend:
    """`TileBackend` and `FiringBackend` of Keras: a tile's sums in its own type, tiles together in float64.

    Works eagerly and inside of compiled functions, on all three backends.

    Example:
        >>> import numpy as np
        >>> from bc_core.invariance import StreamingMoments
        >>> from bc_keras.invariance import KerasBackend
        >>> moments = StreamingMoments(columns=2, backend=KerasBackend())
        >>> moments.update(np.array([[1.0], [1.0], [4.0], [4.0]], "float32"), rows=2)
        >>> moments.moments().row_var, moments.moments().mean[:, 0]
        (array([0.]), array([2.5, 2.5]))
    """

    def tile(self, activation: Any, rows: int, columns: int) -> Any:
        """(rows * columns, ...) as (rows, columns, K), in float32 or float64."""
        activation = ops.convert_to_tensor(activation)
        if keras.backend.standardize_dtype(activation.dtype) not in ("float32", "float64"):
            activation = ops.cast(activation, "float32")
        return ops.reshape(activation, (rows, columns, -1))

    def shift(self, tile: Any) -> Any:
        """Column shifts (m, K) from the first tile, a mean of its first rows."""
        rows = min(_SHIFT_ROWS, tile.shape[0])
        # Row by row, which XLA makes one loop of; its reduction over a first axis takes several times as long.
        apart = [tile[row] - tile[0] for row in range(1, rows)]
        return tile[0] + sum(apart[1:], apart[0]) / rows if apart else tile[0]

    def sums(self, tile: Any, shift: Any) -> TileSums:
        """Sums of one tile, in its type."""
        return unpacked(self.packed(tile, shift))

    def packed(self, tile: Any, shift: Any) -> Any:
        """All sums of one tile in one tensor, one under the other, (2 m + 2, K)."""
        if keras.backend.backend() == "tensorflow":
            return _compiled_for_tensorflow(tuple(tile.shape), tile.dtype)(tile, shift)
        return self._packed(tile, shift)

    @staticmethod
    def _packed(tile: Any, shift: Any) -> Any:
        if _chains(tile):
            return _chained_sums(tile, shift)
        rows, columns, units = tile.shape
        # A loop takes longer to compile than it spares on a tile that is small anyway.
        is_small = rows * columns * units <= _SMALL * _block()
        width = units if is_small else _width(units, max(1, _block() // (rows * columns)))
        blocks = units // width
        if blocks == 1 or is_concrete(tile):
            found = [
                _block_sums(tile[:, :, start : start + width], shift[:, start : start + width])
                for start in range(0, units, width)
            ]
            return found[0] if len(found) == 1 else ops.concatenate(found, axis=1)

        def one(number: Any) -> Any:
            start = number * width
            return _block_sums(
                ops.slice(tile, (0, 0, start), (rows, columns, width)), ops.slice(shift, (0, start), (columns, width))
            )

        packed = ops.map(one, ops.arange(blocks, dtype="int32"))
        packed = ops.reshape(ops.transpose(packed, (1, 0, 2)), (2 * columns + 2, blocks * width))
        if units % width:
            rest = _block_sums(tile[:, :, blocks * width :], shift[:, blocks * width :])
            packed = ops.concatenate([packed, rest], axis=1)
        return packed

    def add(self, totals: TileSums | None, sums: TileSums) -> TileSums:
        """Add in float64, on the host, in place."""
        return _added(totals, TileSums(*map(ops.convert_to_numpy, sums)))

    def host(self, array: Any) -> NDArray[np.float64]:
        """A tensor as float64 of numpy."""
        return np.asarray(ops.convert_to_numpy(array), dtype=np.float64)

    def largest(self, kept: Any | None, values: Any, count: int) -> Any:
        """The `count` largest of both along axis 0, largest first."""
        both = values if kept is None else ops.concatenate([kept, values], axis=0)
        found, _ = ops.top_k(ops.transpose(both), min(count, both.shape[0]))
        return ops.transpose(found)

    def firing(self, tile: Any, threshold: Any, identity: int) -> tuple[Any, Any]:
        """How often units fire for other transformations of what they fire for, and for how many samples."""
        fires = ops.cast(tile > threshold, tile.dtype)
        own = fires[:, identity]
        others = ops.sum(fires, axis=1) - own
        return ops.sum(own * others, axis=0), ops.sum(own, axis=0)


class SummedTile(NamedTuple):
    """A tile whose sums a compiled function has taken already."""

    shift: Any
    sums: TileSums


class SummedTiles:
    """`TileBackend` that hands on what a `SummedTile` holds, so that only sums ever leave the compiled function."""

    def tile(self, activation: SummedTile, rows: int, columns: int) -> SummedTile:
        """The tile itself."""
        return activation

    def shift(self, tile: SummedTile) -> NDArray[Any]:
        """A copy, as the next run of the function may use the memory again."""
        return np.array(ops.convert_to_numpy(tile.shift))

    def sums(self, tile: SummedTile, shift: Any) -> TileSums:
        """The sums."""
        return tile.sums

    def add(self, totals: TileSums | None, sums: TileSums) -> TileSums:
        """Add in float64, on the host, in place."""
        return _added(totals, sums)

    def host(self, array: Any) -> NDArray[np.float64]:
        """As float64 of numpy."""
        return np.asarray(array, dtype=np.float64)


class KerasSpatial:
    """`SpatialOps` of Keras; keeps a tensor of each plan's arrays.

    Example:
        >>> from keras import ops
        >>> from bc_core.invariance import TransformSet, make_tile
        >>> from bc_keras.invariance import KerasSpatial
        >>> image = ops.reshape(ops.convert_to_tensor([1.0, 2.0]), (1, 1, 2, 1))
        >>> tile = make_tile(TransformSet.flips(), image, data_format="channels_last", ops=KerasSpatial())
        >>> ops.convert_to_numpy(tile).ravel()
        array([1., 2., 2., 1.], dtype=float32)
    """

    def __init__(self) -> None:
        # With the array itself, whose number must not come to name another one.
        self._copies: dict[tuple[int, str], tuple[NDArray[Any], Any]] = {}

    def shape(self, x: Any) -> tuple[int, ...]:
        """Shape of a tensor."""
        return tuple(x.shape)

    def reshape(self, x: Any, shape: tuple[int, ...]) -> Any:
        """`x` with another shape."""
        return ops.reshape(x, shape)

    def take(self, x: Any, indices: NDArray[np.int64], axis: int) -> Any:
        """Entries of `x` at `indices` along `axis`."""
        return ops.take(x, self._as_tensor(x, indices, "int32"), axis=axis)

    def scale(self, x: Any, weights: NDArray[np.float32]) -> Any:
        """`x * weights`, broadcast from the right."""
        if not is_float(x):
            raise TypeError(f"{NEEDS_FLOATS}. Received: {keras.backend.standardize_dtype(x.dtype)}.")
        return x * self._as_tensor(x, weights, keras.backend.standardize_dtype(x.dtype))

    def add(self, a: Any, b: Any) -> Any:
        """`a + b`."""
        return a + b

    def stack(self, xs: Sequence[Any], axis: int) -> Any:
        """Tensors of one shape along a new axis."""
        return ops.stack(list(xs), axis=axis)

    def split(self, x: Any, axis: int) -> list[Any]:
        """The entries of `x` along `axis`, without it."""
        return list(ops.unstack(x, axis=axis))

    def _as_tensor(self, x: Any, array: NDArray[Any], dtype: str) -> Any:
        if not is_concrete(x):
            return ops.convert_to_tensor(array, dtype=dtype)  # a constant of the function that is being compiled
        key = (id(array), dtype)
        if key not in self._copies:
            self._copies[key] = array, ops.convert_to_tensor(array, dtype=dtype)
        return self._copies[key][1]


def is_concrete(x: Any) -> bool:
    """Whether a tensor holds numbers now, and is no step of a function that is being compiled."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return bool(tf.executing_eagerly())
    if backend == "jax":
        import jax

        return not isinstance(x, jax.core.Tracer)
    return True


def _added(totals: TileSums | None, sums: TileSums) -> TileSums:
    """Add arrays of numpy in float64, in place."""
    if totals is None:
        return TileSums(*(part.astype(np.float64) for part in sums))
    for total, part in zip(totals, sums, strict=True):
        total += part  # noqa: PLW2901 - in place
    return totals


def unpacked(packed: Any) -> TileSums:
    """The sums in a tensor, or an array, that holds them one under the other."""
    columns = packed.shape[0] // 2 - 1
    return TileSums(packed[:columns], packed[columns : 2 * columns], packed[-2], packed[-1])


@lru_cache(maxsize=4096)
def _compiled_for_tensorflow(shape: tuple[int, ...], dtype: Any) -> Any:
    """`KerasBackend._packed`, compiled once for each shape, whichever layer or model it comes from.

    It stays a function of its own within others, as TensorFlow would optimise each of a hundred copies for itself.
    """
    import tensorflow as tf

    function = tf.function(
        KerasBackend._packed,
        input_signature=(tf.TensorSpec(shape, dtype), tf.TensorSpec(shape[1:], dtype)),
        autograph=False,
        experimental_attributes={"_noinline": True},
    )
    with tf.init_scope():  # not as a part of what happens to be traced now
        return function.get_concrete_function()


def _block_sums(tile: Any, shift: Any) -> Any:
    """Sums of (rows, m, width), one under the other: (2 m + 2, width)."""
    columns = tile.shape[1]
    apart = tile - tile[:, :1]
    total = ops.sum(apart, axis=1)
    spread = ops.maximum(ops.sum(ops.square(apart), axis=1) - ops.square(total) / columns, 0) / (columns - 1)
    shifted = tile - shift
    return ops.concatenate(
        [
            _over_rows(shifted),
            _over_rows(ops.square(shifted)),
            ops.sum(ops.sqrt(spread), axis=0, keepdims=True),
            ops.sum(spread, axis=0, keepdims=True),
        ],
        axis=0,
    )


def _over_rows(x: Any) -> Any:
    """The sum over the first axis."""
    if keras.backend.backend() == "tensorflow" and x.shape[0] is not None and not has_accelerator():
        import tensorflow as tf

        # Half the time of its reduction, which is made for the last axis.
        return tf.add_n(tf.unstack(x, axis=0))
    return ops.sum(x, axis=0)


def _chains(tile: Any) -> bool:
    return keras.backend.backend() == "jax" and not is_concrete(tile) and not has_accelerator()


def _chained_sums(tile: Any, shift: Any) -> Any:
    """`_block_sums` as chains of additions, which XLA makes one loop over the units of.

    Its reductions over an axis that is not the last take three times as long.
    """
    rows, columns, units = tile.shape
    if columns <= _CHAIN:
        apart = [tile[:, column] - tile[:, 0] for column in range(1, columns)]
        total, square = sum(apart[1:], apart[0]), sum((part * part for part in apart[1:]), apart[0] * apart[0])
    else:
        apart = tile - tile[:, :1]
        total, square = ops.sum(apart, axis=1), ops.sum(ops.square(apart), axis=1)
    spread = ops.maximum(square - ops.square(total) / columns, 0) / (columns - 1)

    def chained(part: Any, length: int) -> tuple[Any, Any]:
        shifted = [part[row] - shift for row in range(length)]
        return sum(shifted[1:], shifted[0]), sum((one * one for one in shifted[1:]), shifted[0] * shifted[0])

    whole = rows // _CHAIN
    if whole < 2:
        column_sum, column_square = chained(tile, rows)
    else:

        def add(number: Any, sums: tuple[Any, Any]) -> tuple[Any, Any]:
            part = chained(ops.slice(tile, (number * _CHAIN, 0, 0), (_CHAIN, columns, units)), _CHAIN)
            return sums[0] + part[0], sums[1] + part[1]

        column_sum, column_square = ops.fori_loop(0, whole, add, (ops.zeros_like(shift), ops.zeros_like(shift)))
        if rest := rows % _CHAIN:
            last = chained(tile[rows - rest :], rest)
            column_sum, column_square = column_sum + last[0], column_square + last[1]
    return ops.concatenate(
        [
            column_sum,
            column_square,
            ops.sum(ops.sqrt(spread), axis=0, keepdims=True),
            ops.sum(spread, axis=0, keepdims=True),
        ],
        axis=0,
    )


def _width(units: int, most: int) -> int:
    """Width of blocks of at most so many units; one that leaves no rest, where there is one of half of that or more."""
    if units <= most:
        return max(1, units)
    for width in range(most, most // 2, -1):
        if units % width == 0:
            return width
    return most


def _block() -> int:
    return _DEVICE_BLOCK if has_accelerator() else _CPU_BLOCK[keras.backend.backend()]


@lru_cache(maxsize=1)
def has_accelerator() -> bool:
    """Whether the backend computes on something else than a processor."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.list_logical_devices("GPU"))
    if backend == "jax":
        import jax

        return bool(jax.default_backend() != "cpu")
    from keras.src.backend.torch.core import get_device  # public nowhere

    return bool(get_device() != "cpu")
