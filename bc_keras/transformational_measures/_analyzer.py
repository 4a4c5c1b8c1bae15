"""Analyzer: a measure against accuracy, over groups of transformations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bc_keras.transformational_measures._data_sets import TransformationsDataSet
from bc_keras.transformational_measures._graphs import pyplot
from bc_keras.transformational_measures._iterator import Iterator
from bc_keras.transformational_measures._measures import Metric, Variance
from bc_keras.transformational_measures._model import Model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Rows and columns that the measure looks at at a time, and inputs that accuracy does.
_BLOCK = (16, 16)
_PIECE = 8192


class Analyzer:
    """Whether accuracy falls as a measure rises: both for every group of transformations of a data set.

    Args:
        model: The model, compiled with accuracy: a `Model` or a Keras model.
        dataset: The data set, with classes.
        iterator: An `Iterator`, of which `Variance` is the measure; or the measure itself, a `Metric`.
        metric: The measure, where it is not given in place of the iterator.

    Attributes:
        x: The measure of each group, after `run`.
        y: Accuracy of each group.
        results: What the measure's `compute` returned for each group.

    Raises:
        TypeError: If the data set has no groups, or the third argument is of another kind.

    Example:
        >>> import keras, matplotlib, numpy as np
        >>> matplotlib.use("Agg")
        >>> from bc_keras.transformational_measures import Analyzer, Iterator, Model, TransformationsDataSet
        >>> net = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
        >>> net.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        >>> dataset = TransformationsDataSet(np.random.default_rng(0).normal(size=(6, 8, 8, 1)), y=np.arange(6))
        >>> model = Model(net)
        >>> analyzer = Analyzer(model, dataset, Iterator(model, dataset))
        >>> figure = analyzer.run(4)
        >>> len(analyzer.x), len(analyzer.y), analyzer.x[0] < 1e-12  # of four times the identity
        (8, 8, True)
    """

    def __init__(
        self,
        model: Any,
        dataset: TransformationsDataSet,
        iterator: Iterator | Metric | None = None,
        *,
        metric: Metric | None = None,
    ) -> None:
        if not isinstance(dataset, TransformationsDataSet):
            raise TypeError(f"dataset must be a TransformationsDataSet. Received: {type(dataset).__name__}.")
        if isinstance(iterator, Metric) and metric is None:
            metric, iterator = iterator, None
        if not isinstance(iterator, Iterator | None) or not isinstance(metric, Metric | None):
            raise TypeError(
                "Give an Iterator or a Metric. Received: "
                f"iterator of type {type(iterator).__name__}, metric of type {type(metric).__name__}."
            )
        self.model = model if isinstance(model, Model) else Model(model)
        self.dataset = dataset
        self.metric: Metric = Variance() if metric is None else metric
        self.x: list[float] = []
        self.y: list[float] = []
        self.results: list[Any] = []

    def run(self, n: int) -> Figure:
        """Measure and evaluate the model for each group, and draw accuracy over the measure.

        Afterwards the data set is in its last group.

        Args:
            n: Number of transformations in each group.

        Returns:
            The figure, of pyplot.

        Raises:
            ImportError: If matplotlib is not installed; `x` and `y` are there.
            ValueError: If the measure cannot be computed or the model not evaluated.
        """
        self.x, self.y, self.results = [], [], []
        for group in range(self.dataset.get_size_transformations_groups()):
            self.dataset.set_transformation_group(group, n)
            self.metric.set_iterator(Iterator(self.model, self.dataset))
            result = self.metric.compute(*_BLOCK)
            self.results.append(result)
            self.x.append(float(result[0]))
            self.y.append(self._accuracy())
        figure: Figure = pyplot().figure()
        axes = figure.subplots()
        axes.plot(self.x, self.y, "o", color="#c2410c")
        axes.set_xlabel(type(self.metric).__name__)
        axes.set_ylabel("accuracy")
        return figure

    def _accuracy(self) -> float:
        if type(self.dataset).get_testing_data is not TransformationsDataSet.get_testing_data:
            return self.model.evaluate(*self.dataset.get_testing_data())[1]
        # All samples under all transformations may not fit into memory.
        right, seen = 0.0, 0
        for x, y in self.dataset.testing_pieces(_PIECE):
            right += self.model.evaluate(x, y)[1] * len(x)
            seen += len(x)
        return right / seen
