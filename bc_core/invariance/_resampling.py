"""Where every output pixel of a transformed map comes from: one plan of taps and weights for every array library.

A plan is computed once per map size, in numpy and float64, and is then a gather and a weighted sum, which all array
libraries do alike. So torch, Keras and numpy transform an image to the same numbers, and a rotation has one pixel
centre: that of the map, ((H - 1) / 2, (W - 1) / 2), not the corner of pixel (0, 0) and not (H / 2, W / 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

DataFormat = Literal["channels_first", "channels_last"]

NEEDS_FLOATS = (
    "Pixels are interpolated or filled by these transformations, which needs floating-point inputs: convert them, such "
    "as x.astype('float32') / 255, or use exact transformations (c4, d4, flips, rolls)"
)

# A source within this many pixels of a whole one is that pixel: 64-bit sines leave about 1e-16 of the map's width.
_WHOLE = 1e-9


class SpatialOps(Protocol):
    """What transforming needs of an array library; `NumpySpatial` shows what each does.

    Index and weight arrays are numpy; the same objects come again for a map of the same size, so an implementation may
    keep its own copies of them, on the device, by identity.
    """

    def shape(self, x: Any) -> tuple[int, ...]:
        """Shape of an array."""

    def reshape(self, x: Any, shape: tuple[int, ...]) -> Any:
        """`x` with another shape."""

    def take(self, x: Any, indices: NDArray[np.int64], axis: int) -> Any:
        """Entries of `x` at `indices`, shape (P,), along `axis`."""

    def scale(self, x: Any, weights: NDArray[np.float32]) -> Any:
        """`x * weights`, broadcast from the right, in the type of `x`."""

    def stack(self, xs: Sequence[Any], axis: int) -> Any:
        """Arrays of one shape along a new axis."""

    def split(self, x: Any, axis: int) -> list[Any]:
        """The entries of `x` along `axis`, without it."""


class NumpySpatial:
    """`SpatialOps` for numpy.

    Example:
        >>> import numpy as np
        >>> from bc_core.invariance import NumpySpatial
        >>> NumpySpatial().take(np.array([[5.0, 6.0]]), np.array([1, 1, 0]), axis=1)
        array([[6., 6., 5.]])
    """

    def shape(self, x: Any) -> tuple[int, ...]:
        """Shape of an array."""
        return tuple(np.shape(x))

    def reshape(self, x: Any, shape: tuple[int, ...]) -> Any:
        """`x` with another shape."""
        return np.reshape(x, shape)

    def take(self, x: Any, indices: NDArray[np.int64], axis: int) -> Any:
        """Entries of `x` at `indices`, shape (P,), along `axis`."""
        return np.take(x, indices, axis=axis)

    def scale(self, x: Any, weights: NDArray[np.float32]) -> Any:
        """`x * weights`, broadcast from the right, in the type of `x`, which must not be one of whole numbers."""
        if x.dtype.kind in "iub":
            raise TypeError(f"{NEEDS_FLOATS}. Received: {x.dtype}.")
        return x * weights.astype(x.dtype, copy=False)

    def stack(self, xs: Sequence[Any], axis: int) -> Any:
        """Arrays of one shape along a new axis."""
        return np.stack(xs, axis=axis)

    def split(self, x: Any, axis: int) -> list[Any]:
        """The entries of `x` along `axis`, without it."""
        return [np.take(x, index, axis=axis) for index in range(x.shape[axis])]


@dataclass(frozen=True)
class Affine:
    """Where an image's content goes: from p to ``matrix @ p + shift``, (y, x) in pixels from the centre.

    Attributes:
        matrix: ((yy, yx), (xy, xx)).
        shift: (y, x).
        cyclic: What leaves on one side comes in on the other, instead of zeros.
        exact: The map goes onto itself, pixel by pixel, so that a map it does not fit (a quarter turn of one that is
            not square) is refused instead of being cut and filled.
    """

    matrix: tuple[tuple[float, float], tuple[float, float]] = ((1.0, 0.0), (0.0, 1.0))
    shift: tuple[float, float] = (0.0, 0.0)
    cyclic: bool = False
    exact: bool = False

    @property
    def is_identity(self) -> bool:
        """Whether everything stays where it is."""
        return self.matrix == ((1.0, 0.0), (0.0, 1.0)) and self.shift == (0.0, 0.0)

    @property
    def is_lattice(self) -> bool:
        """Whether it is one of the eight symmetries of the square, which map pixels onto pixels."""
        return self.exact and self.shift == (0.0, 0.0)

    def inverse(self) -> Affine:
        """The map back. Not that with the signs turned: q = A p + t gives p = A^-1 q - A^-1 t.

        Raises:
            ValueError: If the matrix has no inverse.
        """
        ((a, b), (c, d)) = self.matrix
        determinant = a * d - b * c
        if determinant == 0:
            raise ValueError(f"the matrix {self.matrix} flattens the image, so there is no way back")
        # `+ 0.0` turns -0.0 into 0.0: equal transformations then print and compare alike.
        inverted = (
            (d / determinant + 0.0, -b / determinant + 0.0),
            (-c / determinant + 0.0, a / determinant + 0.0),
        )
        back = _matvec(inverted, self.shift)
        return Affine(inverted, (0.0 - back[0], 0.0 - back[1]), self.cyclic, self.exact)

    def after(self, first: Affine) -> Affine | None:
        """This map after another, as one map; None where one map cannot say it (cyclic after zero fill)."""
        cyclic = self.cyclic
        if self.cyclic != first.cyclic:
            # A symmetry of the square brings in nothing from outside, so it goes with either.
            if not (self.is_lattice or first.is_lattice):
                return None
            cyclic = first.cyclic if self.is_lattice else self.cyclic
        (a, b), (c, d) = self.matrix
        ((e, f), (g, h)) = first.matrix
        moved = _matvec(self.matrix, first.shift)
        return Affine(
            ((_settled(a * e + b * g), _settled(a * f + b * h)), (_settled(c * e + d * g), _settled(c * f + d * h))),
            (_settled(moved[0] + self.shift[0]), _settled(moved[1] + self.shift[1])),
            cyclic,
            self.exact and first.exact,
        )


def _settled(value: float) -> float:
    """A number within rounding of a whole one as that, so that a turn and the turn back are the identity."""
    return float(round(value)) + 0.0 if abs(value - round(value)) < 1e-12 else value


@dataclass(frozen=True, eq=False)
class Plan:
    """Taps of one affine map on one map size.

    Attributes:
        indices: One array (H * W,) of int64 per tap: where in the flattened map it comes from.
        weights: One array (H * W,) of float32 per tap, 0 outside of the map; None for a single tap of weight 1.
    """

    indices: tuple[NDArray[np.int64], ...]
    weights: tuple[NDArray[np.float32], ...] | None
    upright: tuple[NDArray[np.float32], ...] = field(init=False)
    """The weights as columns (H * W, 1), to be broadcast over a last axis of channels."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "upright", tuple(weights[:, None] for weights in self.weights or ()))

    @property
    def moves_nothing(self) -> bool:
        """Whether every pixel comes from where it is."""
        return self.weights is None and bool((self.indices[0] == np.arange(len(self.indices[0]))).all())


@lru_cache(maxsize=4096)
def plan_of(affine: Affine, size: tuple[int, int], input_size: tuple[int, int]) -> Plan:
    """Taps that carry out an affine map, stated in pixels of the input, on a map of another size.

    On a pooled map the same motion is the same fraction of the map: 4 pixels of an input of 28 are 2 of a map of 14.

    Args:
        affine: The map, in pixels of the input.
        size: (H, W) of the map at hand.
        input_size: (H, W) of the input.

    Returns:
        A plan of one tap where all sources are whole pixels, else of four (bilinear).

    Raises:
        ValueError: If an exact transformation does not map this size onto itself.
    """
    height, width = size
    per_pixel = (height / input_size[0], width / input_size[1])
    back = affine.inverse()
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    # Into pixels of the input, there back to where the content came from, and into pixels of this map again.
    y, x = (rows - (height - 1) / 2) / per_pixel[0], (columns - (width - 1) / 2) / per_pixel[1]
    ((yy, yx), (xy, xx)) = back.matrix
    source_y = ((yy * y + yx * x + back.shift[0]) * per_pixel[0] + (height - 1) / 2).ravel()
    source_x = ((xy * y + xx * x + back.shift[1]) * per_pixel[1] + (width - 1) / 2).ravel()
    whole_y, whole_x = np.rint(source_y), np.rint(source_x)
    whole = bool((abs(source_y - whole_y) < _WHOLE).all() and (abs(source_x - whole_x) < _WHOLE).all())
    if affine.exact and height != width and affine.matrix[0][0] == 0:
        raise ValueError(
            f"a quarter turn or a flip over a diagonal needs a square map, got {height} x {width}; crop or pad to a "
            "square, or use flips(), which keep the shape, or rotations(), which cut what leaves it and fill with 0"
        )
    if whole:
        taps = [(whole_y, whole_x, np.ones(height * width))]
    else:
        # Snapped, so that a pixel whose source is whole but for the last digit does not ask its neighbour too.
        source_y = np.where(abs(source_y - whole_y) < _WHOLE, whole_y, source_y)
        source_x = np.where(abs(source_x - whole_x) < _WHOLE, whole_x, source_x)
        low_y, low_x = np.floor(source_y), np.floor(source_x)
        part_y, part_x = source_y - low_y, source_x - low_x
        taps = [
            (low_y, low_x, (1 - part_y) * (1 - part_x)),
            (low_y, low_x + 1, (1 - part_y) * part_x),
            (low_y + 1, low_x, part_y * (1 - part_x)),
            (low_y + 1, low_x + 1, part_y * part_x),
        ]
    indices, weights = [], []
    for tap_y, tap_x, weight in taps:
        if affine.cyclic:
            at_y, at_x, there = tap_y % height, tap_x % width, weight
        else:
            inside = (tap_y >= 0) & (tap_y < height) & (tap_x >= 0) & (tap_x < width)
            at_y, at_x = np.clip(tap_y, 0, height - 1), np.clip(tap_x, 0, width - 1)
            there = np.where(inside, weight, 0.0)
        indices.append((at_y * width + at_x).astype(np.int64))
        weights.append(there.astype(np.float32))
    plain = len(taps) == 1 and bool((weights[0] == 1).all())
    for array in (*indices, *weights):
        array.setflags(write=False)
    return Plan(tuple(indices), None if plain else tuple(weights))


def resample(x: Any, plan: Plan, data_format: DataFormat, ops: SpatialOps) -> Any:
    """Carry out a plan on maps of shape (N, C, H, W) or (N, H, W, C)."""
    if plan.moves_nothing:
        return x
    shape = ops.shape(x)
    first = data_format == "channels_first"
    flat = ops.reshape(x, (shape[0], shape[1], -1) if first else (shape[0], -1, shape[3]))
    axis = 2 if first else 1
    total: Any = None
    for number, indices in enumerate(plan.indices):
        part = ops.take(flat, indices, axis)
        if plan.weights is not None:
            part = ops.scale(part, plan.weights[number] if first else plan.upright[number])
        total = part if total is None else total + part
    return ops.reshape(total, shape)


def _matvec(
    matrix: tuple[tuple[float, float], tuple[float, float]], vector: tuple[float, float]
) -> tuple[float, float]:
    (a, b), (c, d) = matrix
    return a * vector[0] + b * vector[1] + 0.0, c * vector[0] + d * vector[1] + 0.0
