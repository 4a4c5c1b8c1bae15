"""The arithmetic of `bc_core.invariance` on tensors of whichever backend Keras runs on."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from functools import lru_cache, reduce
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from bc_core.invariance import NumpyBackend, TileSums
from bc_core.invariance._accumulator import block_shape
from bc_core.invariance._resampling import NEEDS_FLOATS
from bc_keras.batches._labels import is_float

# Entries that a processor works on at a time: intermediate results then stay in its cache, and are never allocated
# anew, which takes longer than the sums. An accelerator wants few large kernels instead.
_CPU_BLOCK = {"tensorflow": 1 << 18, "jax": 1 << 16, "torch": 1 << 20}
_DEVICE_BLOCK = 1 << 26
_SMALL = 4

# Additions in a chain: with more of them a function takes longer to compile, and runs no faster.
_CHAIN = 32

# TensorFlow: samples in what XLA compiles as one, and entries of a tile and of a whole pass from which that pays.
_XLA_ROWS, _XLA_TILE, _XLA_PASS = 16, 1 << 18, 1 << 25

# Rows of the first tile that the shift is a mean of: so few that a compiled function can take it of every tile.
SHIFT_ROWS = 4


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
        rows = min(SHIFT_ROWS, tile.shape[0])
        # Row by row, which XLA makes one loop of; its reduction over a first axis takes several times as long.
        apart = [tile[row] - tile[0] for row in range(1, rows)]
        return tile[0] + sum(apart[1:], apart[0]) / rows if apart else tile[0]

    def sums(self, tile: Any, shift: Any) -> TileSums:
        """Sums of one tile, in its type."""
        return unpacked(self.packed(tile, shift))

    def packed(self, tile: Any, shift: Any, samples: int | None = None) -> Any:
        """All sums of one tile in one tensor, one under the other, (2 m + 2, K).

        Args:
            tile: The tile.
            shift: Shift of the columns, of the tile's type.
            samples: Number of samples that will come in all, where it is known.
        """
        if keras.backend.backend() == "tensorflow":
            by_xla = _pays_for_xla(tile, samples) and _has_xla()
            return _compiled_for_tensorflow(tuple(tile.shape), tile.dtype, by_xla)(tile, shift)
        return self._packed(tile, shift)

    @staticmethod
    def _packed(tile: Any, shift: Any) -> Any:
        if _chains(tile):
            return _chained_sums(tile, shift)
        rows, columns, units = tile.shape
        if is_concrete(tile):
            return _sums_in_blocks(tile, shift)
        # A loop takes longer to compile than it spares on a tile that is small anyway.
        is_small = rows * columns * units <= _SMALL * _block()
        width = units if is_small else _width(units, max(1, _block() // (rows * columns)))
        blocks = units // width
        if blocks == 1:
            return _block_sums(tile, shift)

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
        return NumpyBackend().add(totals, TileSums(*map(ops.convert_to_numpy, sums)))

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


class SummedTiles(NumpyBackend):
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


def on_host(tensor: Any) -> NDArray[Any]:
    """A tensor as an array of numpy to read from, which may be the tensor's own memory."""
    return np.asarray(tensor if keras.backend.backend() == "tensorflow" else ops.convert_to_numpy(tensor))


def unpacked(packed: Any) -> TileSums:
    """The sums in a tensor, or an array, that holds them one under the other."""
    columns = packed.shape[0] // 2 - 1
    return TileSums(packed[:columns], packed[columns : 2 * columns], packed[-2], packed[-1])


@lru_cache(maxsize=4096)
def _compiled_for_tensorflow(shape: tuple[int, ...], dtype: Any, by_xla: bool) -> Any:
    """What takes a tile's sums, compiled once for each shape, whichever layer or model it comes from.

    It stays a function of its own within others, as TensorFlow would optimise each of a hundred copies for itself.
    """
    import tensorflow as tf

    function = tf.function(
        _sums_by_xla if by_xla else KerasBackend._packed,
        input_signature=(tf.TensorSpec(shape, dtype), tf.TensorSpec(shape[1:], dtype)),
        autograph=False,
        experimental_attributes={"_noinline": True},
    )
    with tf.init_scope():  # not as a part of what happens to be traced now
        return function.get_concrete_function()


def _sums_in_blocks(tile: Any, shift: Any) -> Any:
    """`_block_sums` of a tile that holds numbers, block by block."""
    rows, columns, units = tile.shape
    height, width = block_shape(rows, columns, units, _block())
    found = []
    for start in range(0, units, width):
        part = slice(start, start + width)
        blocks = (_block_sums(tile[top : top + height, :, part], shift[:, part]) for top in range(0, rows, height))
        found.append(reduce(operator.add, blocks))
    return found[0] if len(found) == 1 else ops.concatenate(found, axis=1)


def _block_sums(tile: Any, shift: Any) -> Any:
    """Sums of (rows, m, width), one under the other: (2 m + 2, width)."""
    shifted = tile - shift
    return ops.concatenate(
        [_over_rows(shifted), _over_rows(ops.square(shifted)), *_over_samples(_row_variance(tile))], axis=0
    )


def _row_variance(tile: Any) -> Any:
    """Variances of rows, (r, K)."""
    apart = tile[:, 1:] - tile[:, :1]  # the first entry of a row is no distance from itself
    return _variance(ops.sum(apart, axis=1), ops.sum(ops.square(apart), axis=1), tile.shape[1])


def _variance(total: Any, square: Any, columns: int) -> Any:
    """Variances of rows (ddof=1) from the sums of their distances from the first entry, and of the squares of these."""
    return ops.maximum(square - ops.square(total) / columns, 0) / (columns - 1)


def _over_samples(variance: Any) -> tuple[Any, Any]:
    """Sums of the standard deviations and of the variances of rows, each (1, width)."""
    if keras.backend.backend() == "torch":
        # Its square root comes from a vendor's library and takes ten times as long for zeros.
        deviation = ops.reciprocal(ops.rsqrt(variance))
    else:
        deviation = ops.sqrt(variance)
    return ops.expand_dims(_over_rows(deviation), 0), ops.expand_dims(_over_rows(variance), 0)


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
    variance = _chained_variance(tile) if columns <= _CHAIN else _row_variance(tile)
    whole = rows // _CHAIN
    if whole < 2:
        column_sum, column_square = _chained_columns(tile, shift)
    else:

        def add(number: Any, sums: tuple[Any, Any]) -> tuple[Any, Any]:
            part = _chained_columns(ops.slice(tile, (number * _CHAIN, 0, 0), (_CHAIN, columns, units)), shift)
            return sums[0] + part[0], sums[1] + part[1]

        column_sum, column_square = ops.fori_loop(0, whole, add, (ops.zeros_like(shift), ops.zeros_like(shift)))
        if rest := rows % _CHAIN:
            last = _chained_columns(tile[rows - rest :], shift)
            column_sum, column_square = column_sum + last[0], column_square + last[1]
    return ops.concatenate([column_sum, column_square, *_over_samples(variance)], axis=0)


def _chained_variance(tile: Any) -> Any:
    """`_row_variance` as chains of additions."""
    apart = [tile[:, column] - tile[:, 0] for column in range(1, tile.shape[1])]
    total, square = sum(apart[1:], apart[0]), sum((part * part for part in apart[1:]), apart[0] * apart[0])
    return _variance(total, square, tile.shape[1])


def _chained_columns(tile: Any, shift: Any) -> tuple[Any, Any]:
    """Sums of shifted columns and of their squares."""
    shifted = [tile[row] - shift for row in range(tile.shape[0])]
    return sum(shifted[1:], shifted[0]), sum((one * one for one in shifted[1:]), shifted[0] * shifted[0])


def _pays_for_xla(tile: Any, samples: int | None) -> bool:
    """Whether TensorFlow should have XLA compile the sums: if there will be many.

    They take a third of the time then, but compiling takes 0.2 s for each shape, and more with more transformations. In
    every further function that is made, TensorFlow spends 0.05 s for each shape, and 1 MB that it never gives back.
    """
    rows, columns, units = tile.shape
    return (
        not is_concrete(tile)
        and columns <= _CHAIN
        and rows * columns * units >= _XLA_TILE
        and (samples or 0) * columns * units >= _XLA_PASS
    )


@lru_cache(maxsize=1)
def _has_xla() -> bool:
    """Whether TensorFlow computes on processors only, and was built with XLA for them."""
    if has_accelerator():
        return False
    import tensorflow as tf

    with tf.init_scope():
        try:
            tf.function(lambda x: x + x, jit_compile=True, autograph=False)(tf.zeros(1))
        except tf.errors.OpError:
            return False
    return True


def _sums_by_xla(tile: Any, shift: Any) -> Any:
    """`_block_sums` within a function of TensorFlow."""
    import tensorflow as tf

    rows = tile.shape[0]
    # Of one size, if there is one, as each is compiled.
    sizes = (size for size in range(min(rows, _XLA_ROWS), _XLA_ROWS // 4 - 1, -1) if rows % size == 0)
    height = next(sizes, math.ceil(rows / math.ceil(rows / _XLA_ROWS)))
    parts = [tile[top : top + height] for top in range(0, rows, height)]
    found = [_compiled_by_xla(tuple(part.shape), part.dtype)(part, shift) for part in parts]
    columns, variances = zip(*found, strict=True)
    # Here, as XLA would work the variances out anew for each of the two sums.
    return tf.concat([tf.add_n(columns), *_over_samples(tf.concat(variances, axis=0))], axis=0)


@lru_cache(maxsize=4096)
def _compiled_by_xla(shape: tuple[int, ...], dtype: Any) -> Any:
    """Sums of columns (2 m, K) and variances of rows (r, K), as loops over the units, compiled once for each shape."""
    import tensorflow as tf

    function = tf.function(
        lambda tile, shift: (tf.concat(_chained_columns(tile, shift), axis=0), _chained_variance(tile)),
        input_signature=(tf.TensorSpec(shape, dtype), tf.TensorSpec(shape[1:], dtype)),
        autograph=False,
        jit_compile=True,
    )
    with tf.init_scope():
        return function.get_concrete_function()


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
