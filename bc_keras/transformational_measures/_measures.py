"""The six measures, read from one pass of the engine of `bc_keras.invariance`."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_keras.transformational_measures._data_sets import TransformationsDataSet
from bc_keras.transformational_measures._iterator import Iterator
from bc_keras.transformational_measures._matrix import Spreads, by_feature, spreads

Floats = NDArray[np.float64]

INPUTS = 256
"""Inputs at a time, where no block is given."""


class Computed(tuple[Any, Any]):
    """What `compute` returns: the pair of its two lists, which begins to count at the total.

    The older package's documentation promised the pair, its code returned ``(total, first, second)``. So the pair is
    what this unpacks to, and by number there are the three: ``[0]`` is the total, and ``[:]`` is all three.

    Example:
        >>> from bc_keras.transformational_measures import Computed
        >>> computed = Computed(0.5, [0.25, 0.75], ["a", "b"])
        >>> variance_layers, variance_layers_activations = computed
        >>> variance_layers, computed[0], computed[1]
        ([0.25, 0.75], 0.5, [0.25, 0.75])
        >>> total, layers, activations = computed[:]
    """

    def __new__(cls, total: float, first: Any, second: Any) -> Computed:
        """The pair of two lists, and their total."""
        computed = super().__new__(cls, (first, second))
        computed.__dict__["total"] = total
        return computed

    def __getitem__(self, index: Any) -> Any:
        return (self.__dict__["total"], *self)[index]

    def __getnewargs__(self) -> tuple[Any, Any, Any]:
        first, second = self
        return self.__dict__["total"], first, second


class Metric(ABC):
    """A number of a model and a data set, to derive from; `Analyzer` takes any.

    Attributes:
        iterator: What it is computed of.
        result: What was computed last; its first entry is one number.

    Example:
        >>> from bc_keras.transformational_measures import Metric
        >>> class Size(Metric):
        ...     def compute(self, height=None, width=None):
        ...         self.result = (self.iterator.n * self.iterator.m,)
        ...         return self.result
    """

    iterator: Iterator | None = None
    result: Any = None

    @abstractmethod
    def compute(self, height: int | None = None, width: int | None = None) -> Any:
        """Compute it, by blocks of so many rows and columns.

        Args:
            height: Rows of a block.
            width: Columns of a block.

        Returns:
            What `get_result` returns afterwards; its first entry is one number.
        """

    def set_iterator(self, iterator: Iterator) -> None:
        """Say what it is computed of."""
        self.iterator = iterator

    def get_result(self) -> Any:
        """What was computed last; None before."""
        return self.result


class Measure(Metric):
    """What the six have in common.

    Args:
        iterator: What is measured. May be given to `set_iterator` instead.

    Attributes:
        total_variance: The mean over layers; of a normalised measure, the means over layers divided.
        variance_layers: One number for each layer; of the normalised measures of features, for each layer that has
            features.
        variance_layers_activations: Of each layer an array with a number for each activation, in its shape.
        variance_layers_features: Of each layer with features an array with a number for each, (C,); not of `Variance`
            and `NormalizedVariance`.
        time: Seconds that `compute` took.
        result: What `compute` returned.
    """

    _is_normalized = False
    _is_of_features = False

    total_variance: float
    variance_layers: list[float]
    variance_layers_activations: list[Floats]
    variance_layers_features: list[Floats]
    time: float

    def __init__(self, iterator: Iterator | None = None) -> None:
        self.iterator = iterator
        self.result: Computed | None = None

    def compute(self, height: int | None = None, width: int | None = None) -> Computed:
        """Measure every layer, in one pass in which no activation is stored. The data set stays as it is.

        Args:
            height: Rows of a block; with the width, how many inputs are looked at at a time (at least the whole shorter
                side). It changes nothing but the last digits.
            width: Columns of a block.

        Returns:
            A pair, which counts from the total (`Computed`): `variance_layers` and `variance_layers_activations`; of
            `FeaturesVariance` and `SameEquivariance`, `variance_layers_features` and `variance_layers_activations`; of
            their normalised forms, `variance_layers` and `variance_layers_features`.

        Raises:
            TypeError: If there is no iterator.
            ValueError: If there are fewer than two columns (or rows, where rows are compared too), activations that are
                NaN, no layer with features where they are measured, or no ways back for same-equivariance.
        """
        began = time.perf_counter()
        if not isinstance(self.iterator, Iterator):
            raise TypeError(
                f"{type(self).__name__} needs an Iterator(model, dataset). Received: {type(self.iterator).__name__}."
            )
        self._check_sides(self.iterator)
        found = spreads(self.iterator, _inputs(height, width), self._turned_by())
        self._structure = found.structure
        rows = found.over_rows if self._is_normalized else None
        self.variance_layers_activations = _ratios(found.over_columns, rows)
        over_columns = [float(one.mean()) for one in found.over_columns]
        over_rows = [float(one.mean()) for one in found.over_rows]
        if self._is_of_features:
            computed = self._of_features(found, over_columns, over_rows)
        else:
            self.variance_layers = _numbers(over_columns, over_rows if self._is_normalized else None)
            self.total_variance = self._total(over_columns, over_rows)
            computed = Computed(self.total_variance, self.variance_layers, self.variance_layers_activations)
        self.result, self.time = computed, time.perf_counter() - began
        return computed

    def _of_features(self, found: Spreads, over_columns: list[float], over_rows: list[float]) -> Computed:
        numbers = found.structure.map_layers_features
        if not numbers:
            raise ValueError(
                f"{type(self).__name__} is about layers with features, (H, W, C), of which the model has none: measure "
                "Variance or NormalizedVariance."
            )
        columns, rows = (
            [by_feature(found.structure.layers[number], one[number]) for number in numbers]
            for one in (found.over_columns, found.over_rows)
        )
        self.variance_layers_features = _ratios(columns, rows if self._is_normalized else None)
        self.total_variance = self._total(
            [over_columns[number] for number in numbers], [over_rows[number] for number in numbers]
        )
        if not self._is_normalized:
            self.variance_layers = over_columns
            return Computed(self.total_variance, self.variance_layers_features, self.variance_layers_activations)
        self.variance_layers = [_mean_of_known(one) for one in self.variance_layers_features]
        return Computed(self.total_variance, self.variance_layers, self.variance_layers_features)

    def _total(self, over_columns: list[float], over_rows: list[float]) -> float:
        rows = [float(np.mean(over_rows))] if self._is_normalized else None
        return _numbers([float(np.mean(over_columns))], rows)[0]

    def _check_sides(self, iterator: Iterator) -> None:
        height, width = iterator.n, iterator.m
        if width < 2 or height < (2 if self._is_normalized else 1):
            raise ValueError(
                f"{type(self).__name__} compares columns{' and rows' if self._is_normalized else ''}, of which there "
                "must be two at least: choose transformations, such as dataset.set_transformation_group(1, 8). "
                f"Received: a matrix of {height} rows and {width} columns."
            )

    def _turned_by(self) -> TransformationsDataSet | None:
        return None


class Variance(Measure):
    """Mean over rows of the variance over columns, of every activation.

    Example:
        >>> import keras, numpy as np
        >>> from bc_keras.invariance import TransformSet
        >>> from bc_keras.transformational_measures import Iterator, Model, TransformationsDataSet, Variance
        >>> net = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.GlobalMaxPooling2D(name="pool")])
        >>> data = TransformationsDataSet(np.random.default_rng(0).normal(size=(9, 4, 4, 1)), TransformSet.d4())
        >>> variance = Variance(Iterator(Model(net), data))
        >>> variance_layers, variance_layers_activations = variance.compute(10, 5)
        >>> variance_layers, variance_layers_activations, variance.total_variance
        ([0.0], [array([0.])], 0.0)
    """


class NormalizedVariance(Measure):
    """`Variance` over columns divided by that over rows: 0 is invariant to what the columns are.

    Of a layer the means are divided. An activation that no row changes is nan.

    Example:
        >>> import keras, numpy as np
        >>> from bc_keras.invariance import TransformSet
        >>> from bc_keras.transformational_measures import Iterator, Model, NormalizedVariance, TransformationsDataSet
        >>> net = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.GlobalMaxPooling2D(name="pool")])
        >>> data = TransformationsDataSet(np.random.default_rng(0).normal(size=(9, 4, 4, 1)), TransformSet.d4())
        >>> NormalizedVariance(Iterator(Model(net), data)).compute(10, 5)[0]
        0.0
    """

    _is_normalized = True


class FeaturesVariance(Measure):
    """`Variance` of features, the mean over positions, for layers with features.

    Example:
        >>> import keras, numpy as np
        >>> from bc_keras.invariance import TransformSet
        >>> from bc_keras.transformational_measures import FeaturesVariance, Iterator, Model, TransformationsDataSet
        >>> net = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(2, 3, name="conv")])
        >>> data = TransformationsDataSet(np.random.default_rng(0).normal(size=(9, 4, 4, 1)), TransformSet.identity(3))
        >>> measure = FeaturesVariance(Iterator(Model(net), data))
        >>> measure.compute(10, 5)[1], measure.get_feature(0, 1)
        ([array([0., 0.])], array([[0., 0.],
               [0., 0.]]))
    """

    _is_of_features = True

    def get_feature(self, layer: int, feature: int) -> Floats:
        """The variance of a feature of a layer, by position.

        Args:
            layer: Number of the layer among all.
            feature: Number of the feature.

        Raises:
            TypeError: If nothing was computed yet.
            IndexError: If the layer has no features.
        """
        if self.result is None:
            raise TypeError("Call compute() first.")
        structure = self._structure.layers[layer]
        if structure.feature_axis is None:
            raise IndexError(f"Layer {structure.name!r} has no features. Received: layer={layer!r}.")
        values = self.variance_layers_activations[layer]
        found: Floats = np.moveaxis(values, structure.feature_axis, 0)[feature]
        return found


class NormalizedFeaturesVariance(Measure):
    """`FeaturesVariance` over columns divided by that over rows; of a layer, the mean over features.

    A feature that no row changes is nan, and left out of the mean.

    Example:
        >>> import keras, numpy as np
        >>> from bc_keras.invariance import TransformSet
        >>> from bc_keras.transformational_measures import Iterator, Model, TransformationsDataSet
        >>> from bc_keras.transformational_measures import NormalizedFeaturesVariance
        >>> net = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(2, 3, name="conv")])
        >>> data = TransformationsDataSet(np.random.default_rng(0).normal(size=(9, 4, 4, 1)), TransformSet.identity(3))
        >>> variance_layers, variance_layers_features = NormalizedFeaturesVariance(Iterator(Model(net), data)).compute()
        >>> variance_layers, variance_layers_features
        ([0.0], [array([0., 0.])])
    """

    _is_normalized = True
    _is_of_features = True


class SameEquivariance(Measure):
    """`FeaturesVariance` of feature maps that were turned back: 0 where a map moves as the image does.

    Layers without features count as in `Variance`, and not in the total.

    Args:
        iterator: What is measured. May be given to `set_iterator` instead.
        dataset: The data set that turns maps back. Default: that of the iterator.

    Example:
        >>> import keras, numpy as np
        >>> from bc_keras.invariance import TransformSet
        >>> from bc_keras.transformational_measures import SameEquivariance, Iterator, Model, TransformationsDataSet
        >>> net = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.ReLU(name="a")])
        >>> data = TransformationsDataSet(np.random.default_rng(0).normal(size=(9, 4, 4, 1)), TransformSet.flips())
        >>> SameEquivariance(Iterator(Model(net), data), data).compute(10, 5)[0]
        0.0
    """

    _is_of_features = True

    def __init__(self, iterator: Iterator | None = None, dataset: TransformationsDataSet | None = None) -> None:
        super().__init__(iterator)
        self.dataset = dataset

    def set_dataset(self, dataset: TransformationsDataSet) -> None:
        """Say which data set turns maps back."""
        self.dataset = dataset

    def _turned_by(self) -> TransformationsDataSet:
        assert self.iterator is not None
        dataset = self.iterator.dataset if self.dataset is None else self.dataset
        if not isinstance(dataset, TransformationsDataSet):
            raise ValueError(
                "Same-equivariance needs the way back of each transformation, which a TransformationsDataSet has "
                f"(apply_inverse_transformation). Received: {type(dataset).__name__}."
            )
        return dataset


class NormalizedSameEquivariance(SameEquivariance):
    """`SameEquivariance` over columns divided by that over rows; of a layer, the mean over features.

    A feature that no row changes is nan, and left out of the mean.

    Args:
        iterator: What is measured. May be given to `set_iterator` instead.
        dataset: The data set that turns maps back. Default: that of the iterator.

    Example:
        >>> import keras, numpy as np
        >>> from bc_keras.invariance import TransformSet
        >>> from bc_keras.transformational_measures import Iterator, Model, TransformationsDataSet
        >>> from bc_keras.transformational_measures import NormalizedSameEquivariance
        >>> net = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.ReLU(name="a")])
        >>> data = TransformationsDataSet(np.random.default_rng(0).normal(size=(9, 4, 4, 1)), TransformSet.flips())
        >>> NormalizedSameEquivariance(Iterator(Model(net), data), data).compute(10, 5)[0]
        0.0
    """

    _is_normalized = True


def _inputs(height: int | None, width: int | None) -> int:
    for name, value in (("height", height), ("width", width)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be 1 at least, or None. Received: {name}={value!r}.")
    return INPUTS if height is None or width is None else int(height * width)


def _ratios(above: list[Floats], below: list[Floats] | None) -> list[Floats]:
    """Divided, nan where there is nothing below; as they are where nothing is to be divided by."""
    if below is None:
        return above
    return [
        np.divide(one, other, out=np.full_like(one, np.nan), where=other > 0)
        for one, other in zip(above, below, strict=True)
    ]


def _numbers(above: list[float], below: list[float] | None) -> list[float]:
    found: list[float] = _ratios([np.array(above)], None if below is None else [np.array(below)])[0].tolist()
    return found


def _mean_of_known(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
