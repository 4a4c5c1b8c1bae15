"""Transformations of single images, and the eight groups of them that the data sets of images have."""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from bc_core._arrays import to_numpy
from bc_core.invariance import Transform, TransformSet
from bc_core.invariance._resampling import Affine


class Transformation(ABC):
    """What is done to one image, and how it is undone; to derive from.

    Example:
        >>> import numpy as np
        >>> from bc_keras.transformational_measures import Transformation
        >>> class Negative(Transformation):
        ...     def apply(self, tensor):
        ...         return -tensor
        ...     def apply_inverse(self, tensor):
        ...         return -tensor
        >>> Negative().apply(np.ones((1, 2)))
        array([[-1., -1.]])
    """

    @abstractmethod
    def apply(self, tensor: Any) -> Any:
        """The image, transformed.

        Args:
            tensor: One image or map, shape (H, W) or (H, W, C).
        """

    def apply_inverse(self, tensor: Any) -> Any:
        """The image before.

        Args:
            tensor: One image or map, shape (H, W) or (H, W, C).

        Raises:
            NotImplementedError: If a class of one's own does not say.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define apply_inverse(tensor), which same-equivariance needs."
        )


class Resampling(Transformation):
    """A `bc_core.invariance.Transform` as a transformation of one image.

    Args:
        transform: What is done.
    """

    def __init__(self, transform: Transform) -> None:
        self.transform = transform

    def apply(self, tensor: Any) -> NDArray[Any]:
        """The image, transformed: bilinear, with zeros where nothing comes from.

        Args:
            tensor: One image, shape (H, W) or (H, W, C).

        Raises:
            ValueError: If it has other axes.
        """
        return of_one(self.transform, tensor)

    def apply_inverse(self, tensor: Any) -> NDArray[Any]:
        """The image before, up to interpolation and to what had left it.

        Args:
            tensor: One image, shape (H, W) or (H, W, C).

        Raises:
            ValueError: If it has other axes, or there is no way back.
        """
        return of_one(self.transform.inverse, tensor)


class AffineTransformation(Resampling):
    """A rotation about the centre, then a shift, then a shear, then a zoom, as one resampling.

    Args:
        theta: Degrees, counter-clockwise; multiples of 90 are exact on square images.
        tx: Pixels to the right.
        ty: Pixels down.
        shear: Degrees.
        zx: Zoom of the width; above 1 the content shrinks, as in Keras.
        zy: Zoom of the height.

    Raises:
        ValueError: If a zoom is 0, a shear of 90 degrees flattens the image, or a number is not finite.

    Example:
        >>> import numpy as np
        >>> from bc_keras.transformational_measures import AffineTransformation
        >>> image = np.array([[1.0, 2.0], [3.0, 4.0]])
        >>> turn, shift = AffineTransformation(theta=90), AffineTransformation(tx=1)
        >>> turn.apply(image), shift.apply(image)
        (array([[2., 4.],
               [1., 3.]]), array([[0., 1.],
               [0., 3.]]))
        >>> turn.apply_inverse(turn.apply(image))
        array([[1., 2.],
               [3., 4.]])
    """

    def __init__(
        self,
        theta: float = 0,
        tx: float = 0,
        ty: float = 0,
        shear: float = 0,
        zx: float = 1,
        zy: float = 1,
    ) -> None:
        self.theta, self.tx, self.ty, self.shear, self.zx, self.zy = theta, tx, ty, shear, zx, zy
        angle = math.radians(shear)
        if not (math.isfinite(zx) and math.isfinite(zy)) or zx == 0 or zy == 0 or abs(math.cos(angle)) < 1e-9:
            raise ValueError(
                "zx and zy must be finite numbers other than 0, and shear must not flatten the image. Received: "
                f"zx={zx!r}, zy={zy!r}, shear={shear!r}."
            )
        # Of the image's content, (y, x) from the centre; what Keras states is where each pixel comes from.
        bent = Affine(((math.cos(angle), 0.0), (-math.sin(angle), 1.0))).inverse()
        zoomed = Affine(((1 / zy, 0.0), (0.0, 1 / zx)))
        transform = TransformSet.translations([(ty, tx)])[0].after(TransformSet.rotations([theta])[0])
        for name, affine in ((f"shear {shear:g}", bent), (f"zoom ({zy:g}, {zx:g})", zoomed)):
            if not affine.is_identity:
                transform = Transform(name, (affine,), math.nan).after(transform)
        super().__init__(transform)


def of_one(transform: Transform, tensor: Any, input_size: tuple[int, int] | None = None) -> NDArray[Any]:
    """One image or feature map transformed.

    Args:
        transform: What is done.
        tensor: Shape (H, W) or (H, W, C).
        input_size: (H, W) of the image in whose pixels shifts are stated. Default: that of the tensor.

    Raises:
        ValueError: If it has other axes.
    """
    image = to_numpy(tensor, "tensor")
    if image.ndim not in (2, 3):
        raise ValueError(f"tensor must be one image, of shape (H, W) or (H, W, C). Received: shape {image.shape}.")
    if image.dtype.kind in "iub":
        image = image.astype(keras.config.floatx())
    batch = image[None, ..., None] if image.ndim == 2 else image[None]
    found = np.asarray(transform(batch, data_format="channels_last", input_size=input_size))
    return found[0, ..., 0] if image.ndim == 2 else found[0]


GROUPS = (
    "identity",
    "rotations",
    "x",
    "y",
    "x, y",
    "rotations and x",
    "rotations and y",
    "rotations and x, y",
)
"""What each group of transformations of `MnistTransformationsDataSet` is, by its number."""


def group_of(group: int, n: int, size: tuple[int, int]) -> list[AffineTransformation]:
    """A group of transformations for images of a size; each begins with the identity.

    Args:
        group: Its number, 0 to 7, in the order of `GROUPS`.
        n: How many.
        size: (H, W).

    Raises:
        ValueError: If there is no such group, or n is below 1.
    """
    if not 0 <= operator.index(group) < len(GROUPS):
        names = ", ".join(f"{number} ({name})" for number, name in enumerate(GROUPS))
        raise ValueError(f"group must be one of {names}. Received: group={group!r}.")
    if operator.index(n) < 1:
        raise ValueError(f"n must be a number of transformations, 1 at least. Received: n={n!r}.")
    height, width = size
    turns, right, down = steps(360, n), steps(width, n), steps(height, n)
    if GROUPS[group] == "x, y":
        first = (n + 1) // 2
        return [AffineTransformation(tx=step) for step in steps(width, first)] + [
            AffineTransformation(ty=step) for step in (steps(height, n - first) if n > 1 else [])
        ]
    parts = set(GROUPS[group].replace(",", "").split())
    has_turn, has_x, has_y = (part in parts for part in ("rotations", "x", "y"))
    return [
        AffineTransformation(theta=turn * has_turn, tx=x * has_x, ty=y * has_y)
        for turn, x, y in zip(turns, right, down, strict=True)
    ]


def steps(size: int, n: int) -> list[float]:
    """Equal steps from 0, n of them, that stay below a size: whole ones, where there is room for them."""
    step = size // n if n <= size else size / n
    return [number * step for number in range(n)]
