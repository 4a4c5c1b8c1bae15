"""Iterator: a model's activations for a data set, block by block."""

from __future__ import annotations

from collections.abc import Iterator as Iterable
from typing import Any

from bc_keras.transformational_measures._data_sets import DataSet
from bc_keras.transformational_measures._model import Block, Model


class Iterator:
    """Goes through the matrix of a data set in blocks, and asks the model about each.

    Args:
        model: The model, a `Model` or a Keras model.
        dataset: The matrix of inputs.

    Attributes:
        model: The model.
        dataset: The data set, which stays as it is.

    Raises:
        TypeError: If the data set is none.

    Example:
        >>> import keras, numpy as np
        >>> from bc_keras.invariance import TransformSet
        >>> from bc_keras.transformational_measures import Iterator, Model, TransformationsDataSet
        >>> net = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(3, 3, name="conv")])
        >>> iterator = Iterator(Model(net), TransformationsDataSet(np.ones((5, 4, 4, 1)), TransformSet.c4()))
        >>> [(height, width) for height, blocks in iterator.get_block(3, 2) for width, block in blocks]
        [(3, 2), (3, 2), (2, 2), (2, 2)]
    """

    def __init__(self, model: Any, dataset: DataSet) -> None:
        if not isinstance(dataset, DataSet):
            raise TypeError(f"dataset must be a DataSet. Received: {type(dataset).__name__}.")
        self.model = model if isinstance(model, Model) else Model(model)
        self.dataset = dataset

    def get_model(self) -> Model:
        """The model."""
        return self.model

    def get_dataset(self) -> DataSet:
        """The data set."""
        return self.dataset

    def get_block(self, height: int, width: int) -> Iterable[tuple[int, Iterable[tuple[int, Block]]]]:
        """Blocks of so many rows and columns, smaller ones at the ends.

        Yields:
            The number of rows, and an iterator over the blocks in them, each with its number of columns.

        Raises:
            ValueError: If a block has no rows or columns.
        """
        if height < 1 or width < 1:
            raise ValueError(
                f"A block must have one row and one column at least. Received: height={height!r}, width={width!r}."
            )
        for start in range(0, self.dataset.get_height(), height):
            rows = range(start, min(self.dataset.get_height(), start + height))
            yield len(rows), self._of_rows(rows, width)

    def _of_rows(self, rows: range, width: int) -> Iterable[tuple[int, Block]]:
        for start in range(0, self.dataset.get_width(), width):
            columns = range(start, min(self.dataset.get_width(), start + width))
            yield len(columns), self.model.predict(self.dataset.get_matrix(rows, columns))
