"""Iterator: a model's activations for a data set, block by block."""

from __future__ import annotations

from collections.abc import Iterator as Iterable
from typing import Any

from bc_keras.transformational_measures._data_sets import DataSet, read
from bc_keras.transformational_measures._model import Model
from bc_keras.transformational_measures._structure import Block


class Iterator:
    """Goes through the matrix of a data set in blocks, and asks the model about each.

    Args:
        model: The model, a `Model` or a Keras model.
        dataset: The matrix of inputs.

    Attributes:
        model: The model.
        dataset: The data set.

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

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.dataset.get_height()

    @property
    def m(self) -> int:
        """Number of columns."""
        return self.dataset.get_width()

    def get_model(self) -> Model:
        """The model."""
        return self.model

    def transpose(self) -> None:
        """Transpose the data set, in place."""
        self.dataset.transpose()

    def get_block(self, height: int, width: int) -> Iterable[tuple[int, Iterable[tuple[int, Block]]]]:
        """Blocks of so many rows and columns, smaller ones at the ends.

        Args:
            height: Rows of a block.
            width: Columns of a block.

        Yields:
            The number of rows, and an iterator over the blocks in them, each with its number of columns.

        Raises:
            ValueError: If a block has no rows or columns.
        """
        if height < 1 or width < 1:
            raise ValueError(
                f"A block must have one row and one column at least. Received: height={height!r}, width={width!r}."
            )
        for rows in _parts(self.n, height):
            yield len(rows), self._of_rows(rows, width)

    def _of_rows(self, rows: list[int], width: int) -> Iterable[tuple[int, Block]]:
        for columns in _parts(self.m, width):
            block = self.model.predict(read(self.dataset, rows, columns))
            block.set_rows_dataset(rows)
            block.set_columns_dataset(columns)
            block.set_state_transpose_dataset(self.dataset.is_transpose())
            yield len(columns), block


def _parts(length: int, step: int) -> list[list[int]]:
    return [list(range(start, min(length, start + step))) for start in range(0, length, step)]
