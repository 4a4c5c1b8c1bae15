"""Matrices of inputs, samples by transformations, and the groups of transformations of MNIST and CIFAR-10."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np
from numpy.typing import NDArray

from bc_core._arrays import label_array, to_numpy
from bc_core.invariance import TransformSet, make_tile

DataFormat = Literal["channels_first", "channels_last"]

GROUPS = ("identity", "rotations", "x", "y", "xy", "rotation_x", "rotation_y")
"""Names of the groups of transformations of `MnistDataSet` and `Cifar10DataSet`."""


class DataSet(ABC):
    """A matrix of inputs: entry (i, j) is what the model is asked about, in measures normally t_j x_i.

    Write your own by its four methods; `TransformationsDataSet` is the one for samples and transformations.

    Example:
        >>> import numpy as np
        >>> from bc_keras.transformational_measures import DataSet
        >>> class Sums(DataSet):
        ...     def get_data_shape(self):
        ...         return (1,)
        ...     def get_height(self):
        ...         return 5
        ...     def get_width(self):
        ...         return 3
        ...     def get_matrix(self, rows, columns):
        ...         return np.add.outer(np.array(rows), np.array(columns))[:, :, None].astype("float32")
        >>> Sums().transpose().get_matrix([2], [0, 4])[0, :, 0]
        array([2., 6.], dtype=float32)
    """

    @abstractmethod
    def get_data_shape(self) -> tuple[int, ...]:
        """Shape of one input."""

    @abstractmethod
    def get_height(self) -> int:
        """Number of rows."""

    @abstractmethod
    def get_width(self) -> int:
        """Number of columns."""

    @abstractmethod
    def get_matrix(self, rows: Sequence[int], columns: Sequence[int]) -> NDArray[Any]:
        """The inputs in some rows and columns, shape (rows, columns, *data shape)."""

    def transpose(self) -> DataSet:
        """The same inputs with rows and columns exchanged, as another data set; this one stays as it is."""
        return _Transposed(self)


class _Transposed(DataSet):
    def __init__(self, straight: DataSet) -> None:
        self.straight = straight

    def get_data_shape(self) -> tuple[int, ...]:
        return self.straight.get_data_shape()

    def get_height(self) -> int:
        return self.straight.get_width()

    def get_width(self) -> int:
        return self.straight.get_height()

    def get_matrix(self, rows: Sequence[int], columns: Sequence[int]) -> NDArray[Any]:
        return np.swapaxes(self.straight.get_matrix(columns, rows), 0, 1)

    def transpose(self) -> DataSet:
        return self.straight


class TransformationsDataSet(DataSet):
    """Samples by transformations; nothing is transformed before it is asked for.

    Args:
        x: Samples (N, ...).
        transforms: The transformations: one set, or several by the name of their group.
        y: Classes (N,), for `Model.evaluate` and `Analyzer`. A transformation is taken to keep them.
        group: Which of several sets is used, the first if not said.
        data_format: Where the channels of images are. Default: what Keras is configured for.

    Attributes:
        transforms: The transformations in use, a `TransformSet`.
        groups: All of them, by name.
        group: Name of the group in use.
        x: The samples.
        y: Their classes, or None.

    Raises:
        TypeError: If transformations are of another kind.
        ValueError: If there is no such group, or not one class for each sample.

    Example:
        >>> import numpy as np
        >>> from bc_keras.invariance import TransformSet
        >>> from bc_keras.transformational_measures import TransformationsDataSet
        >>> data = TransformationsDataSet(np.ones((10, 6, 6, 1)), TransformSet.c4())
        >>> data.get_height(), data.get_width(), data.get_data_shape()
        (10, 4, (6, 6, 1))
        >>> data.get_matrix([0, 1], [0, 2, 3]).shape, data.transpose().get_height()
        ((2, 3, 6, 6, 1), 4)
    """

    def __init__(
        self,
        x: Any,
        transforms: TransformSet | dict[str, TransformSet],
        y: Any = None,
        *,
        group: str | None = None,
        data_format: DataFormat | None = None,
    ) -> None:
        self.x = to_numpy(x, "x")
        if self.x.dtype == np.float64:
            self.x = self.x.astype(keras.config.floatx())
        self.groups = {"all": transforms} if isinstance(transforms, TransformSet) else dict(transforms)
        if not self.groups or not all(isinstance(each, TransformSet) for each in self.groups.values()):
            raise TypeError(f"transforms must be a TransformSet, or several by name. Received: {transforms!r}.")
        self.y = None
        if y is not None:
            y = to_numpy(y, "y")
            self.y = label_array(y.argmax(axis=1) if y.ndim == 2 and y.shape[1] > 1 else y, "y")
            if len(self.y) != len(self.x):
                raise ValueError(f"y must have one class for each sample. Received: {len(self.y)} for {len(self.x)}.")
        self.data_format: DataFormat = data_format or keras.config.image_data_format()
        self.group = next(iter(self.groups))
        self.transforms = self.groups[self.group]
        if group is not None:
            self.set_group(group)

    def set_group(self, group: str) -> None:
        """Use another group of transformations.

        Raises:
            ValueError: If there is none of that name.
        """
        if group not in self.groups:
            raise ValueError(f"group must be one of {', '.join(self.groups)}. Received: group={group!r}.")
        self.group, self.transforms = group, self.groups[group]

    def get_data_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.x.shape[1:])

    def get_height(self) -> int:
        """Number of samples."""
        return len(self.x)

    def get_width(self) -> int:
        """Number of transformations."""
        return len(self.transforms)

    def get_matrix(self, rows: Sequence[int], columns: Sequence[int]) -> NDArray[Any]:
        """Some samples under some transformations, shape (rows, columns, *data shape)."""
        chosen = TransformSet(self.transforms[int(column)] for column in columns)
        tile = make_tile(chosen, self.x[np.asarray(rows)], data_format=self.data_format)
        return np.asarray(tile).reshape(len(rows), len(columns), *self.get_data_shape())

    def inverse(self, maps: Any, column: int) -> Any:
        """Feature maps (N, H, W, C) turned back from one transformation; on smaller maps shifts are smaller.

        Raises:
            ValueError: If the transformation has no inverse.
        """
        shape = self.get_data_shape()
        size = (shape[0], shape[1]) if self.data_format == "channels_last" else (shape[1], shape[2])
        back = self.transforms[column].inverse
        return back(np.asarray(maps), data_format=self.data_format, input_size=size)


class MnistDataSet(TransformationsDataSet):
    """MNIST's test images, (N, 28, 28, 1) in 0..1, under its groups of transformations (`mnist_transformations`).

    Args:
        group: One of `GROUPS`.
        x: Images instead of the downloaded ones, (N, 28, 28, 1) or (N, 28, 28).
        y: Their classes.
        samples: How many of them, from the first. Default: all.

    Raises:
        ValueError: If there is no such group.

    Example:
        >>> import numpy as np
        >>> from bc_keras.transformational_measures import MnistDataSet
        >>> data = MnistDataSet("rotations", x=np.zeros((5, 28, 28)))
        >>> data.get_width(), data.transforms.names[:3]
        (8, ('identity', 'rotate 45', 'rotate 90'))
    """

    def __init__(self, group: str = "rotations", x: Any = None, y: Any = None, samples: int | None = None) -> None:
        if x is None:
            _, (x, y) = keras.datasets.mnist.load_data()
        images = _in_unit_range(x)
        images = images[..., None] if images.ndim == 3 else images
        super().__init__(
            images[:samples],
            {name: mnist_transformations(name) for name in GROUPS},
            None if y is None else np.asarray(y)[:samples],
            group=group,
            data_format="channels_last",
        )


class Cifar10DataSet(TransformationsDataSet):
    """CIFAR-10's test images, (N, 32, 32, 3) in 0..1, under its groups of transformations (`cifar10_transformations`).

    Args:
        group: One of `GROUPS`.
        x: Images instead of the downloaded ones, (N, 32, 32, 3).
        y: Their classes.
        samples: How many of them, from the first. Default: all.

    Raises:
        ValueError: If there is no such group.

    Example:
        >>> import numpy as np
        >>> from bc_keras.transformational_measures import Cifar10DataSet
        >>> Cifar10DataSet("xy", x=np.zeros((5, 32, 32, 3))).get_width()
        25
    """

    def __init__(self, group: str = "rotations", x: Any = None, y: Any = None, samples: int | None = None) -> None:
        if x is None:
            _, (x, y) = keras.datasets.cifar10.load_data()
        super().__init__(
            _in_unit_range(x)[:samples],
            {name: cifar10_transformations(name) for name in GROUPS},
            None if y is None else np.asarray(y)[:samples],
            group=group,
            data_format="channels_last",
        )


def mnist_transformations(group: str, reach: float = 1.0) -> TransformSet:
    """A group for images of 28 x 28: eighths of a turn, shifts by 2 and 4 pixels to either side.

    Args:
        group: One of `GROUPS`: the identity, rotations, shifts in x (right), y (down) or both, and rotations combined
            with shifts in x or y.
        reach: Share of the largest angle and of the largest shift, for groups that grow.

    Raises:
        ValueError: If there is no such group.

    Example:
        >>> from bc_keras.transformational_measures import mnist_transformations
        >>> mnist_transformations("x").names
        ('identity', 'translate (0, -4)', 'translate (0, -2)', 'translate (0, 2)', 'translate (0, 4)')
        >>> len(mnist_transformations("rotation_x")), mnist_transformations("rotations", reach=0.5).sizes[-1]
        (40, 157.5)
    """
    return _group(group, 2, reach)


def cifar10_transformations(group: str, reach: float = 1.0) -> TransformSet:
    """A group for images of 32 x 32: as `mnist_transformations`, with shifts by 3 and 6 pixels.

    Args:
        group: One of `GROUPS`.
        reach: Share of the largest angle and of the largest shift.

    Raises:
        ValueError: If there is no such group.

    Example:
        >>> from bc_keras.transformational_measures import cifar10_transformations
        >>> cifar10_transformations("y").sizes
        (0.0, -6.0, -3.0, 3.0, 6.0)
    """
    return _group(group, 3, reach)


def _group(group: str, pixels: float, reach: float) -> TransformSet:
    if group not in GROUPS:
        raise ValueError(f"group must be one of {', '.join(GROUPS)}. Received: group={group!r}.")
    if not 0 < reach <= 1:
        raise ValueError(f"reach must be a share above 0 and up to 1. Received: reach={reach!r}.")
    steps = [0.0, *(reach * step * pixels for step in (-2, -1, 1, 2))]
    turns = TransformSet.rotations([reach * 45 * step for step in range(8)])
    right = TransformSet.translations([(0, step) for step in steps])
    down = TransformSet.translations([(step, 0) for step in steps])
    return {
        "identity": TransformSet.identity(),
        "rotations": turns,
        "x": right,
        "y": down,
        "xy": right * down,
        "rotation_x": turns * right,
        "rotation_y": turns * down,
    }[group]


def _in_unit_range(x: Any) -> NDArray[Any]:
    images = to_numpy(x, "x")
    return images.astype("float32") / 255 if images.dtype.kind in "iu" else images
