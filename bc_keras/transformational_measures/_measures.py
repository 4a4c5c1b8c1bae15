"""The six measures by the names of the older package; `bc_keras.invariance` computes them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from bc_core.invariance import InvarianceResult, MeasureValues, TransformSet
from bc_core.invariance import _measures as measures
from bc_core.invariance._result import Statistic
from bc_keras.invariance._data import Piece, Rows
from bc_keras.invariance._measure import measures_in, result_of, rows_of
from bc_keras.invariance._passes import Network
from bc_keras.transformational_measures._data_sets import TransformationsDataSet, _Transposed
from bc_keras.transformational_measures._iterator import Iterator


@dataclass(frozen=True)
class LayerValues(MeasureValues):
    """One measure of every layer: ``values["conv"]``, or ``values[0]`` of the first, is the array of its units.

    Attributes:
        result: Everything that was measured in the same pass.
    """

    result: InvarianceResult

    def __getitem__(self, layer: int | str) -> NDArray[np.float64]:
        return self.units[list(self.units)[layer] if isinstance(layer, int) else layer]

    def __len__(self) -> int:
        return len(self.units)


class Measure:
    """What the six have in common.

    Args:
        iterator: What is measured. May be given to `compute` instead.
        statistic: The spread: ``"var"``, as in the older package, or ``"std"``. Their values cannot be compared.
        batch_size: Inputs at a time; it changes nothing but the last digits.
    """

    _kind: type[Any] = measures.Variance
    _same_equivariance = False

    def __init__(
        self, iterator: Iterator | None = None, *, statistic: Statistic = "var", batch_size: int = 256
    ) -> None:
        self._measure = self._kind(statistic=statistic)
        self.iterator, self.batch_size = iterator, batch_size

    def compute(self, iterator: Iterator | None = None) -> LayerValues:
        """Measure every layer, in one pass in which no activation is stored. The data set stays as it is.

        Args:
            iterator: A model and a data set.

        Returns:
            The measure of every unit, or feature, and of every layer.

        Raises:
            TypeError: If there is no iterator.
            ValueError: If there are fewer than two rows or columns, or activations that are NaN; for same-equivariance
                if the data set has no inverses.
        """
        iterator = self.iterator if iterator is None else iterator
        if not isinstance(iterator, Iterator):
            raise TypeError(f"compute needs an Iterator(model, dataset). Received: {type(iterator).__name__}.")
        result = measured(iterator, self._same_equivariance, self.batch_size)
        values = self._measure.compute(result)
        return LayerValues(type(self).__name__, values.units, values.layers, result)


class Variance(Measure):
    """Mean over rows of the spread over columns, of every unit.

    Example:
        >>> import keras, numpy as np
        >>> from bc_keras.invariance import TransformSet
        >>> from bc_keras.transformational_measures import Iterator, Model, TransformationsDataSet, Variance
        >>> net = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.GlobalMaxPooling2D(name="pool")])
        >>> data = TransformationsDataSet(np.random.default_rng(0).normal(size=(9, 4, 4, 1)), TransformSet.d4())
        >>> Variance().compute(Iterator(Model(net), data))["pool"]
        array([0.])
    """


class FeaturesVariance(Measure):
    """`Variance` of features, the mean over positions.

    Example:
        >>> import keras, numpy as np
        >>> from bc_keras.invariance import TransformSet
        >>> from bc_keras.transformational_measures import FeaturesVariance, Iterator, Model, TransformationsDataSet
        >>> net = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.GlobalMaxPooling2D(name="a")])
        >>> data = TransformationsDataSet(np.random.default_rng(0).normal(size=(9, 4, 4, 1)), TransformSet.flips())
        >>> FeaturesVariance().compute(Iterator(Model(net), data)).layers
        {'a': 0.0}
    """

    _kind = measures.FeaturesVariance


class NormalizedVariance(Measure):
    """`Variance` over columns divided by that over rows: 0 is invariant to what the columns are.

    Example:
        >>> import keras, numpy as np
        >>> from bc_keras.invariance import TransformSet
        >>> from bc_keras.transformational_measures import NormalizedVariance, Iterator, Model, TransformationsDataSet
        >>> net = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.GlobalMaxPooling2D(name="a")])
        >>> data = TransformationsDataSet(np.random.default_rng(0).normal(size=(9, 4, 4, 1)), TransformSet.flips())
        >>> NormalizedVariance().compute(Iterator(Model(net), data)).layers
        {'a': 0.0}
    """

    _kind = measures.NormalizedVariance


class NormalizedFeaturesVariance(Measure):
    """`NormalizedVariance` of features: both are averaged over positions, then divided.

    Example:
        >>> import keras, numpy as np
        >>> from bc_keras.invariance import TransformSet
        >>> from bc_keras.transformational_measures import Iterator, Model, TransformationsDataSet
        >>> from bc_keras.transformational_measures import NormalizedFeaturesVariance
        >>> net = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.GlobalMaxPooling2D(name="a")])
        >>> data = TransformationsDataSet(np.random.default_rng(0).normal(size=(9, 4, 4, 1)), TransformSet.flips())
        >>> NormalizedFeaturesVariance().compute(Iterator(Model(net), data)).layers
        {'a': 0.0}
    """

    _kind = measures.NormalizedFeaturesVariance


class SameEquivariance(Measure):
    """`Variance` of feature maps that were turned back: 0 where a map moves as the image does.

    Example:
        >>> import keras, numpy as np
        >>> from bc_keras.invariance import TransformSet
        >>> from bc_keras.transformational_measures import SameEquivariance, Iterator, Model, TransformationsDataSet
        >>> net = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.ReLU(name="a")])
        >>> data = TransformationsDataSet(np.random.default_rng(0).normal(size=(9, 4, 4, 1)), TransformSet.flips())
        >>> SameEquivariance().compute(Iterator(Model(net), data)).layers
        {'a': 0.0}
    """

    _kind = measures.SameEquivariance
    _same_equivariance = True


class NormalizedSameEquivariance(Measure):
    """`NormalizedVariance` of feature maps that were turned back.

    Example:
        >>> import keras, numpy as np
        >>> from bc_keras.invariance import TransformSet
        >>> from bc_keras.transformational_measures import Iterator, Model, TransformationsDataSet
        >>> from bc_keras.transformational_measures import NormalizedSameEquivariance
        >>> net = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.ReLU(name="a")])
        >>> data = TransformationsDataSet(np.random.default_rng(0).normal(size=(9, 4, 4, 1)), TransformSet.flips())
        >>> NormalizedSameEquivariance().compute(Iterator(Model(net), data)).layers
        {'a': 0.0}
    """

    _kind = measures.NormalizedSameEquivariance
    _same_equivariance = True


def measured(iterator: Iterator, same_equivariance: bool = False, batch_size: int = 256) -> InvarianceResult:
    """Measure a model on a data set of any kind."""
    dataset = iterator.dataset
    if isinstance(dataset, _Transposed):
        straight = Iterator(iterator.model, dataset.straight)
        return _transposed(measured(straight, same_equivariance, batch_size))
    network = _Matrix(iterator, same_equivariance)
    rows = Rows(np.arange(dataset.get_height()), rows_of(batch_size, dataset.get_width()))
    found, _ = measures_in(network, rows)
    return result_of(found, network.transforms, network.left_out, same_equivariance)


class _Matrix(Network):
    """A network whose tiles are rows of a matrix that is there already."""

    def __init__(self, iterator: Iterator, same_equivariance: bool) -> None:
        dataset = iterator.dataset
        data_format = None
        if isinstance(dataset, TransformationsDataSet):
            transforms, data_format = dataset.transforms, dataset.data_format
        elif same_equivariance:
            raise ValueError(
                "Same-equivariance needs the inverse of each transformation, which a TransformationsDataSet has. "
                f"Received: {type(dataset).__name__}."
            )
        else:
            transforms = TransformSet.from_functions(
                [(f"column {column}", _stay) for column in range(dataset.get_width())], identity=False
            )
        super().__init__(
            iterator.model.model_keras,
            transforms,
            iterator.model.layers,
            None,
            same_equivariance,
            None,
            None,
            data_format,
            None,
            "model",
        )
        self._dataset = dataset

    def tile(self, piece: Piece) -> Any:
        """The inputs in some rows, in all columns."""
        matrix = self._dataset.get_matrix([int(row) for row in piece.x], range(len(self.transforms)))
        return ops.convert_to_tensor(np.asarray(matrix).reshape(-1, *self._dataset.get_data_shape()))


def _stay(x: Any) -> Any:
    return x


def _transposed(result: InvarianceResult) -> InvarianceResult:
    """Rows are columns and the other way round, so what was the spread over columns is that over rows."""
    layers = [
        replace(
            layer,
            samples=layer.transformations,
            transformations=layer.samples,
            tv_std=layer.sv_std,
            tv_var=layer.sv_var,
            sv_std=layer.tv_std,
            sv_var=layer.tv_var,
            # Of the means of rows, which are not known of so many.
            between=np.full_like(layer.between, np.nan),
        )
        for layer in result.values()
    ]
    names = [f"row {number}" for number in range(layers[0].transformations)]
    return InvarianceResult(layers, names, None, result.kind, result.left_out)
