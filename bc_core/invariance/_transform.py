"""Transform: one transformation t of a batch, with its inverse, and how all of them make a tile."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np

from bc_core.invariance._resampling import Affine, DataFormat, NumpySpatial, SpatialOps, plan_of, resample

Function = Callable[[Any], Any]

_NUMPY = NumpySpatial()


@dataclass(frozen=True)
class OwnFunction:
    """A function of a batch, and the function back."""

    function: Function
    back: Function | None

    def inverse(self) -> OwnFunction:
        if self.back is None:
            raise ValueError(
                f"{_called(self.function)} was given without an inverse, which same-equivariance needs; give "
                "(name, function, inverse), or measure invariance"
            )
        return OwnFunction(self.back, self.function)


@dataclass(frozen=True)
class Transform:
    """One transformation of a batch of images: affine maps and functions, carried out one after another.

    Made by the constructors of `TransformSet`; two are equal when they do the same by the same steps.

    Attributes:
        name: For tables and charts, e.g. `"rotate 30"`.
        steps: What is carried out, first to last; none for the identity.
        size: How far it goes, for curves: degrees, pixels, or a factor; nan where there is no such number.

    Example:
        >>> from bc_core.invariance import TransformSet
        >>> turn = TransformSet.rotations([30])[0]
        >>> turn.name, turn.size, turn.inverse.name
        ('rotate 30', 30.0, 'inverse of rotate 30')
    """

    name: str
    steps: tuple[Affine | OwnFunction, ...] = ()
    size: float = 0.0

    @property
    def is_identity(self) -> bool:
        """Whether it leaves every image as it is; a function of one's own never counts as that."""
        return not self.steps

    @property
    def _does(self) -> tuple[Affine | OwnFunction, ...]:
        """The steps, without whether a map they do not fit is refused."""
        return tuple(replace(step, exact=False) if isinstance(step, Affine) else step for step in self.steps)

    @property
    def is_affine(self) -> bool:
        """Whether it is defined for maps of any size, as all are that are not functions of one's own."""
        return all(isinstance(step, Affine) for step in self.steps)

    @property
    def has_inverse(self) -> bool:
        """Whether there is a way back."""
        return all(isinstance(step, Affine) or step.back is not None for step in self.steps)

    @property
    def inverse(self) -> Transform:
        """The way back: the inverses of the steps, last to first.

        Resampled steps are undone up to interpolation and up to what left the image.

        Raises:
            ValueError: If a function among the steps was given without its inverse.
        """
        if self.is_identity:
            return self
        return Transform(f"inverse of {self.name}", tuple(step.inverse() for step in reversed(self.steps)), self.size)

    def after(self, first: Transform) -> Transform:
        """This transformation after another; neighbouring affine maps become one, so that images are resampled once.

        Example:
            >>> from bc_core.invariance import TransformSet
            >>> turn, shift = TransformSet.rotations([90])[0], TransformSet.translations([(0, 3)])[0]
            >>> turn.after(shift).name
            'translate (0, 3), rotate 90'
            >>> turn.after(turn.inverse).is_identity
            True
        """
        if self.is_identity or first.is_identity:
            return first if self.is_identity else self
        steps = list(first.steps)
        for step in self.steps:
            merged = None
            if steps and isinstance(step, Affine) and isinstance(steps[-1], Affine):
                merged = step.after(steps[-1])
            if merged is None:
                steps.append(step)
            elif merged.is_identity:
                steps.pop()
            else:
                steps[-1] = merged
        return Transform(f"{first.name}, {self.name}", tuple(steps), math.nan if steps else 0.0)

    def __call__(
        self,
        x: Any,
        *,
        data_format: DataFormat = "channels_first",
        input_size: tuple[int, int] | None = None,
        ops: SpatialOps = _NUMPY,
    ) -> Any:
        """As `apply_transform`."""
        return apply_transform(self, x, data_format=data_format, input_size=input_size, ops=ops)


def apply_transform(
    transform: Transform,
    x: Any,
    *,
    data_format: DataFormat = "channels_first",
    input_size: tuple[int, int] | None = None,
    ops: SpatialOps = _NUMPY,
) -> Any:
    """Transform a batch of images or of feature maps, in any array library.

    Args:
        transform: What to do.
        x: Shape (N, C, H, W), or (N, H, W, C) with `data_format="channels_last"`; floating-point wherever pixels are
            interpolated or filled. For functions of one's own, whatever they take.
        data_format: Where the channels are.
        input_size: (H, W) of the network's input, whose pixels the shifts are stated in. Default: that of `x`.
        ops: The array library.

    Returns:
        Same shape, type and library; `x` itself for the identity.

    Raises:
        ValueError: If `x` has no such axes, or an exact transformation does not fit its shape.
        TypeError: If pixels of whole numbers are to be interpolated or filled.

    Example:
        >>> import numpy as np
        >>> from bc_core.invariance import TransformSet, apply_transform
        >>> image = np.arange(4).reshape(1, 2, 2, 1)  # channels last
        >>> apply_transform(TransformSet.flips()[1], image, data_format="channels_last")[0, :, :, 0]
        array([[1, 0],
               [3, 2]])
    """
    if data_format not in get_args(DataFormat):
        raise ValueError(f"data_format: expected 'channels_first' or 'channels_last', got {data_format!r}")
    for step in transform.steps:
        if isinstance(step, OwnFunction):
            x = _own(transform, step, x)
            continue
        shape = ops.shape(x)
        if len(shape) != 4:
            raise ValueError(
                f"{transform.name!r} needs images of shape (N, C, H, W), or (N, H, W, C) with "
                f"data_format='channels_last', got shape {shape}; for inputs without two spatial axes give functions "
                "of your own, TransformSet.from_functions"
            )
        size = (shape[2], shape[3]) if data_format == "channels_first" else (shape[1], shape[2])
        x = resample(x, plan_of(step, size, input_size or size), data_format, ops)
    return x


def _own(transform: Transform, step: OwnFunction, x: Any) -> Any:
    """A function of one's own, which is caught where it changes what all transformations are made of."""
    advice = f"{transform.name!r} changed its input in place, which other transformations see too; work on a copy"
    if isinstance(x, np.ndarray) and x.flags.writeable:
        x.flags.writeable = False
        try:
            return step.function(x)
        except ValueError as error:
            if "read-only" in str(error):
                raise ValueError(advice) from error
            raise
        finally:
            x.flags.writeable = True
    # Torch counts what happens to a tensor in place.
    before = getattr(x, "_version", None)
    found = step.function(x)
    if getattr(x, "_version", None) != before:
        raise ValueError(advice)
    return found


def make_tile(
    transforms: Sequence[Transform], x: Any, *, data_format: DataFormat = "channels_first", ops: SpatialOps = _NUMPY
) -> Any:
    """All transformations of a batch, as one batch: sample by sample, so input `i * m + j` is t_j x_i.

    Args:
        transforms: The m transformations.
        x: Inputs, shape (r, ...).
        data_format: Where the channels are.
        ops: The array library.

    Returns:
        Shape (r * m, ...).

    Raises:
        ValueError: If a transformation changes the shape.

    Example:
        >>> import numpy as np
        >>> from bc_core.invariance import TransformSet, make_tile
        >>> make_tile(TransformSet.flips(), np.arange(4.0).reshape(2, 1, 1, 2)).reshape(4, 2).tolist()
        [[0.0, 1.0], [1.0, 0.0], [2.0, 3.0], [3.0, 2.0]]
    """
    shape = ops.shape(x)
    columns = []
    for transform in transforms:
        column = apply_transform(transform, x, data_format=data_format, ops=ops)
        if ops.shape(column) != shape:
            raise ValueError(
                f"{transform.name!r} turned inputs of shape {shape} into {ops.shape(column)}; a transformation must "
                "keep the shape"
            )
        columns.append(column)
    return ops.reshape(ops.stack(columns, 1), (shape[0] * len(columns), *shape[1:]))


def invert_tile(
    transforms: Sequence[Transform],
    activation: Any,
    *,
    data_format: DataFormat = "channels_first",
    input_size: tuple[int, int] | None = None,
    ops: SpatialOps = _NUMPY,
) -> Any:
    """Turn feature maps of a tile back: b_ij = T_j^-1 f(t_j x_i), for same-equivariance.

    Args:
        transforms: The m transformations.
        activation: Shape (r * m, ...), in the order of `make_tile`.
        data_format: Where the channels are.
        input_size: (H, W) of the network's input, in whose pixels shifts are stated. Default: that of the map.
        ops: The array library.

    Returns:
        The same shape and order.

    Raises:
        ValueError: If a transformation has no inverse.

    Example:
        >>> import numpy as np
        >>> from bc_core.invariance import TransformSet, invert_tile, make_tile
        >>> turns, x = TransformSet.c4(), np.arange(8.0).reshape(2, 1, 2, 2)
        >>> (invert_tile(turns, make_tile(turns, x)) == np.repeat(x, 4, axis=0)).all()
        np.True_
    """
    shape = ops.shape(activation)
    columns = ops.split(ops.reshape(activation, (-1, len(transforms), *shape[1:])), 1)
    back = [
        apply_transform(transform.inverse, column, data_format=data_format, input_size=input_size, ops=ops)
        for transform, column in zip(transforms, columns, strict=True)
    ]
    return ops.reshape(ops.stack(back, 1), shape)


def _called(function: Function) -> str:
    return f"the function {getattr(function, '__name__', repr(function))!r}"
