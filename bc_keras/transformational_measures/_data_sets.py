"""Matrices of inputs: `DataSet` and `TransformationsDataSet`, to derive from or to make of samples."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from bc_core._arrays import to_numpy
from bc_core.invariance import Transform, TransformSet, make_tile
from bc_core.invariance._resampling import DataFormat
from bc_keras.transformational_measures._transformations import GROUPS, Resampling, Transformation, group_of, of_one


class DataSet(ABC):
    """A matrix of inputs, to derive from: entry (i, j) is what the model is asked about in row i and column j.

    `get_height`, `get_width` and `get_matrix` are needed. `transpose` and `is_transpose` are, where the data set is
    transposed; `get_testing_data` is for `Analyzer`.

    Example:
        >>> import numpy as np
        >>> from bc_keras.transformational_measures import DataSet
        >>> class Sums(DataSet):
        ...     def get_height(self):
        ...         return 5
        ...     def get_width(self):
        ...         return 3
        ...     def get_matrix(self, rows, columns):
        ...         return np.add.outer(np.array(rows), np.array(columns))[:, :, None].astype("float32")
        >>> Sums().get_data_shape(), Sums().is_transpose()
        ((1,), False)
    """

    @abstractmethod
    def get_width(self) -> int:
        """Number of columns."""

    @abstractmethod
    def get_height(self) -> int:
        """Number of rows."""

    @abstractmethod
    def get_matrix(self, rows: Sequence[int], columns: Sequence[int]) -> Any:
        """The inputs in some rows and columns.

        Args:
            rows: Their numbers.
            columns: Their numbers.

        Returns:
            Shape (rows, columns, *data shape): an array, a tensor of any framework, or lists of them.
        """

    def get_data_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(read(self, [0], [0]).shape[2:])

    def transpose(self) -> None:
        """Exchange rows and columns, in place.

        Raises:
            NotImplementedError: If a class of one's own does not say how.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define transpose(), after which get_height, get_width and get_matrix are "
            "those of the transposed matrix, and is_transpose(), which says whether they are."
        )

    def is_transpose(self) -> bool | None:
        """Whether rows and columns are exchanged; None where a class of one's own has `transpose` and does not say."""
        return False if type(self).transpose is DataSet.transpose else None

    def get_testing_data(self) -> tuple[Any, Any]:
        """All inputs and what the model should say of them, (x, y), for accuracy.

        Raises:
            NotImplementedError: If a class of one's own does not say.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define get_testing_data(), which returns inputs and classes (x, y) for "
            "accuracy."
        )


class TransformationsDataSet(DataSet):
    """Samples by transformations, made of samples or to derive from; nothing is transformed before it is asked for.

    Made of images, it has the eight groups of transformations of `MnistTransformationsDataSet`. A class of one's own
    defines what it needs: `get_height`, `get_width` and `get_matrix`; `apply_inverse_transformation` for
    same-equivariance; `get_size_transformations_groups`, `set_transformation_group` and `get_testing_data` for
    `Analyzer`; `transpose` and `is_transpose`, where it is transposed.

    Args:
        x: Samples (N, ...). Images are (N, H, W, C), or (N, C, H, W) if `data_format` says so.
        transforms: A `TransformSet`, or `Transformation` objects. Default: the identity.
        y: What the model should say of them (N, ...). A transformation is taken to keep it.
        data_format: Where the channels of images are. Default: what Keras is configured for.

    Attributes:
        samples: The samples in use.
        results: Their y, or None.
        transformations: The transformations in use, each a `Transformation`.
        transformation_group: Number of their group; None before one is set.
        mean: Subtracted from what was transformed.
        std: What the difference is divided by.

    Raises:
        TypeError: If transformations are of another kind.
        ValueError: If there is no transformation, or not one y for each sample.

    Example:
        >>> import numpy as np
        >>> from bc_keras.transformational_measures import TransformationsDataSet
        >>> data = TransformationsDataSet(np.ones((10, 6, 6, 1)))
        >>> data.set_transformation_group(1, 4)  # rotations: 0, 90, 180 and 270 degrees
        >>> data.get_height(), data.get_width(), data.get_data_shape(), data.get_matrix([0, 1], [0, 2, 3]).shape
        (10, 4, (6, 6, 1), (2, 3, 6, 6, 1))
        >>> data.transpose()
        >>> data.get_height(), data.get_matrix([0, 2, 3], [0, 1]).shape
        (4, (3, 2, 6, 6, 1))
    """

    mean: float = 0.0
    std: float = 1.0
    _made = False
    _transposed = False

    def __init__(
        self,
        x: Any,
        transforms: TransformSet | Iterable[Transform | Transformation] | None = None,
        y: Any = None,
        *,
        data_format: DataFormat | None = None,
    ) -> None:
        self.original_samples = to_numpy(x, "x")
        if self.original_samples.dtype == np.float64:
            self.original_samples = self.original_samples.astype(keras.config.floatx())
        self.original_results = results = None if y is None else to_numpy(y, "y")
        if results is not None and len(results) != len(self.original_samples):
            raise ValueError(
                f"y must have one entry for each sample. Received: {len(results)} for {len(self.original_samples)}."
            )
        transforms = TransformSet.identity() if transforms is None else transforms
        if not isinstance(transforms, Iterable):
            raise TypeError(f"transforms must be a TransformSet or transformations. Received: {transforms!r}.")
        self.transformations: list[Transformation] = [_transformation(one) for one in transforms]
        if not self.transformations:
            raise ValueError("transforms must hold one transformation at least. Received: none.")
        self.transformation_group: int | None = None
        self.samples, self.results = self.original_samples, self.original_results
        self.data_format: DataFormat = data_format or keras.config.image_data_format()
        self._made = True

    @property
    def transforms(self) -> TransformSet | None:
        """The transformations as one set; None where one of them is a class of one's own."""
        known = [one.transform for one in self.transformations if isinstance(one, Resampling)]
        return TransformSet(known) if len(known) == len(self.transformations) else None

    def get_data_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.samples.shape[1:]) if self._made else super().get_data_shape()

    def get_height(self) -> int:
        """Number of rows: samples, or transformations after `transpose`."""
        self._needs("get_height")
        return len(self.transformations if self._transposed else self.samples)

    def get_width(self) -> int:
        """Number of columns: transformations, or samples after `transpose`."""
        self._needs("get_width")
        return len(self.samples if self._transposed else self.transformations)

    def get_matrix(self, rows: Sequence[int], columns: Sequence[int]) -> NDArray[Any]:
        """The inputs in some rows and columns.

        Args:
            rows: Numbers of samples; of transformations after `transpose`.
            columns: Numbers of transformations; of samples after `transpose`.

        Returns:
            Shape (rows, columns, *data shape).
        """
        self._needs("get_matrix")
        if self._transposed:
            return np.swapaxes(self._tile(columns, rows), 0, 1)
        return self._tile(rows, columns)

    def transpose(self) -> None:
        """Exchange rows and columns, in place."""
        if not self._made:
            super().transpose()
        self._transposed = not self._transposed

    def is_transpose(self) -> bool | None:
        """Whether rows are transformations and columns samples; None where a class of one's own does not say."""
        is_known = self._made or type(self).transpose is TransformationsDataSet.transpose
        return self._transposed if is_known else None

    def apply_inverse_transformation(self, tensor: Any, index_transformation: int) -> Any:
        """Turn a map back from one transformation; on a map smaller than the image shifts are smaller too.

        Args:
            tensor: One image or feature map, shape (H, W) or (H, W, C).
            index_transformation: Number of the transformation.

        Raises:
            ValueError: If there is no way back.
        """
        self._needs("apply_inverse_transformation")
        one = self.transformations[index_transformation]
        if isinstance(one, Resampling):
            return of_one(one.transform.inverse, tensor, self._image_size())
        return one.apply_inverse(tensor)

    def get_size_transformations_groups(self) -> int:
        """Number of groups of transformations."""
        self._needs("get_size_transformations_groups")
        return len(GROUPS)

    def set_transformation_group(self, group: int, n: int) -> None:
        """Use a group of transformations.

        Args:
            group: 0 identity, 1 rotations, 2 shifts in x (to the right), 3 in y (down), 4 half of them in x and half in
                y, 5 rotations and x at the same time, 6 rotations and y, 7 rotations, x and y.
            n: Number of transformations, evenly spaced from the identity: whole degrees up to 360, whole pixels up to
                the image's size.

        Raises:
            ValueError: If there is no such group, n is below 1, or samples are not images.
        """
        self._needs("set_transformation_group")
        size = self._image_size()
        if size is None:
            raise ValueError(
                "The groups of transformations are for images, (N, H, W, C) or (N, C, H, W). Received: samples of "
                f"shape {self.samples.shape}."
            )
        self.transformations = list(group_of(group, n, size))
        self.transformation_group = group

    def get_testing_data(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """All samples under all transformations, and their y: of each sample all transformations, (N m, ...).

        Raises:
            ValueError: If there is no y.
        """
        self._needs("get_testing_data")
        return next(self.testing_pieces(len(self.samples) * len(self.transformations)))

    def testing_pieces(self, inputs: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """What `get_testing_data` returns, so many inputs at a time (at least one sample's).

        Args:
            inputs: At most so many at a time.

        Raises:
            ValueError: If there is no y.
        """
        self._needs("get_testing_data")
        if self.results is None:
            raise ValueError("Accuracy needs classes: TransformationsDataSet(x, transforms, y). Received: y=None.")
        columns = range(len(self.transformations))
        step = max(1, inputs // len(columns))
        for start in range(0, len(self.samples), step):
            samples = range(start, min(len(self.samples), start + step))
            x = self._tile(samples, columns)
            yield x.reshape(-1, *x.shape[2:]), np.repeat(self.results[start : samples.stop], len(columns), axis=0)

    def select_samples(self, indexes: Sequence[int]) -> None:
        """Use some of the samples, by their numbers among all."""
        self._needs("select_samples")
        chosen = np.asarray(indexes, dtype=np.int64)
        self.samples = self.original_samples[chosen]
        self.results = None if self.original_results is None else self.original_results[chosen]

    def select_random_samples(self, n: int) -> None:
        """Use n samples, drawn without repeating by Python's `random`."""
        self._needs("select_random_samples")
        self.select_samples(random.sample(range(len(self.original_samples)), n))

    def _tile(self, samples: Sequence[int], columns: Sequence[int]) -> NDArray[Any]:
        x = self.samples[np.asarray(samples, dtype=np.int64)]
        chosen = [self.transformations[int(column)] for column in columns]
        if all(isinstance(one, Resampling) for one in chosen):
            known = TransformSet(one.transform for one in chosen if isinstance(one, Resampling))
            tile = np.asarray(make_tile(known, x, data_format=self.data_format))
            tile = tile.reshape(len(x), len(chosen), *x.shape[1:])
        else:
            tile = np.stack(
                [np.stack([to_numpy(one.apply(sample), "apply") for sample in x]) for one in chosen], axis=1
            )
        return tile if (self.mean, self.std) == (0.0, 1.0) else ((tile - self.mean) / self.std).astype(tile.dtype)

    def _image_size(self) -> tuple[int, int] | None:
        shape = self.samples.shape[1:]
        if len(shape) != 3:
            return None
        return (shape[0], shape[1]) if self.data_format == "channels_last" else (shape[1], shape[2])

    def _needs(self, method: str) -> None:
        if not self._made:
            raise NotImplementedError(
                f"{type(self).__name__} must define {method}, or hand its samples to TransformationsDataSet.__init__."
            )


def _transformation(one: Any) -> Transformation:
    if isinstance(one, Transform):
        return Resampling(one)
    if not isinstance(one, Transformation):
        raise TypeError(f"transforms must hold Transform or Transformation objects. Received: {one!r}.")
    return one


def read(dataset: DataSet, rows: Sequence[int], columns: Sequence[int]) -> NDArray[Any]:
    """Some rows and columns of any data set, as an array (rows, columns, ...).

    Raises:
        ValueError: If the data set returned another number of them.
    """
    matrix = to_numpy(dataset.get_matrix(rows, columns), "get_matrix")
    if matrix.shape[:2] != (len(rows), len(columns)):
        raise ValueError(
            f"{type(dataset).__name__}.get_matrix must return shape (rows, columns, ...), here ({len(rows)}, "
            f"{len(columns)}, ...). Received: shape {matrix.shape}."
        )
    return matrix.astype(keras.config.floatx()) if matrix.dtype == np.float64 else matrix
