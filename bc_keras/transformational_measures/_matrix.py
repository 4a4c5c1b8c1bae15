"""One pass of the engine of `bc_keras.invariance` over the matrix of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from bc_core._arrays import to_numpy
from bc_core.invariance import LayerMeasures, StreamingMoments, TransformSet
from bc_core.invariance._layers import Layer
from bc_core.invariance._measuring import measures_in
from bc_core.invariance._rows import Piece, rows_of
from bc_keras._random_numbers import random_numbers_kept
from bc_keras.invariance._compiled import PerLayer
from bc_keras.invariance._rows import KerasRows
from bc_keras.transformational_measures._data_sets import DataSet, TransformationsDataSet, read
from bc_keras.transformational_measures._iterator import Iterator
from bc_keras.transformational_measures._structure import LayerStructure, ModelStructure, TopLayers

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Spreads:
    """What a pass found.

    Attributes:
        structure: The layers.
        over_columns: Of each layer, in the shape of its activation: mean over rows of the variance over columns.
        over_rows: Mean over columns of the variance over rows.
    """

    structure: ModelStructure
    over_columns: list[Floats]
    over_rows: list[Floats]


def spreads(iterator: Iterator, inputs: int, turned_by: TransformationsDataSet | None = None) -> Spreads:
    """Variances of every layer's activations along both sides of a matrix; the data set stays as it is.

    Args:
        iterator: A model and a data set.
        inputs: How many inputs at a time.
        turned_by: The data set that turns feature maps back, for same-equivariance.

    Raises:
        ValueError: If activations are NaN, or it cannot be told which side the transformations are on.
    """
    dataset = iterator.dataset
    height, width = dataset.get_height(), dataset.get_width()
    is_transpose = dataset.is_transpose()
    # The engine goes through whole rows. Which side these are matters to the memory alone, and to the last digits:
    # along its rows what is the same has a spread of exactly 0.
    is_swapped = width > height and (is_transpose is not False or width > inputs)
    if turned_by is not None:
        # What is turned back must be known by its column.
        is_swapped = bool(is_transpose)
        if is_transpose is None:
            raise ValueError(
                f"Same-equivariance needs to know whether rows or columns are the transformations: define "
                f"{type(dataset).__name__}.is_transpose()."
            )
    network = _Matrix(iterator.model.model_keras, dataset, is_swapped, turned_by)
    rows = KerasRows(np.asarray(_lines(width if is_swapped else height)), rows_of(inputs, len(network.transforms)))
    with random_numbers_kept():
        found, _ = measures_in(network, rows)
    if len(found) != len(network.layers):
        raise ValueError(f"Every layer must be called for every input. Received: {network.left_out}.")
    layers = network.with_input(found)
    first = [layer.transformation_variance("var") for layer in layers]
    other = [layer.sample_variance("var") for layer in layers]
    structure = ModelStructure.of(network)
    return Spreads(structure, other, first) if is_swapped else Spreads(structure, first, other)


def _lines(length: int) -> list[int]:
    """Rows or columns; a single one twice, as the engine takes two at least: along the other side that changes nothing.

    The spread along its own side is then 0, and not to be read.
    """
    return list(range(length)) if length > 1 else [0] * 2 * length


class _Matrix(TopLayers):
    """A network whose tiles are rows of a matrix that is there already, or columns of it."""

    def __init__(
        self, model: Any, dataset: DataSet, is_swapped: bool, turned_by: TransformationsDataSet | None
    ) -> None:
        self._dataset, self._is_swapped, self._turned_by = dataset, is_swapped, turned_by
        self._columns = _lines(dataset.get_height() if is_swapped else dataset.get_width())
        transforms = None if turned_by is None else _transforms_of(turned_by)
        self._turns_itself = turned_by is not None and transforms is None
        if transforms is None:
            names = [(f"column {column}", _stay) for column in self._columns]
            transforms = TransformSet.from_functions(names, identity=False)
        else:
            transforms = TransformSet(transforms[column] for column in self._columns)
        # What a data set of one's own does to a map is no part of a compiled program.
        run_eagerly = True if self._turns_itself else None
        super().__init__(model, transforms, getattr(dataset, "data_format", None), run_eagerly)
        self._inputs = StreamingMoments(len(transforms))

    def tile(self, piece: Piece) -> Any:
        """The inputs in some rows, in all columns."""
        lines = [int(line) for line in piece.x]
        if self._is_swapped:
            matrix = np.swapaxes(read(self._dataset, self._columns, lines), 0, 1)
        else:
            matrix = read(self._dataset, lines, self._columns)
        tile = ops.convert_to_tensor(matrix.reshape(-1, *matrix.shape[2:]))
        if self.input_place is not None:
            shown = self._shown_as(self.every[self.input_place], tile)
            self._inputs.update(ops.convert_to_numpy(shown).reshape(len(tile), -1), len(lines))
        return tile

    def function(self, kind: str, names: Sequence[str], columns: int, per_layer: PerLayer, output: bool = False) -> Any:
        """As of any network; of feature maps that are turned back first, where that is asked for."""
        known = {layer.name: layer for layer in self.layers}

        def shown(name: str, tile: Any, state: Sequence[Any]) -> Sequence[Any]:
            layer = known[name]
            maps = self._shown_as(layer, ops.reshape(tile, (-1, *layer.shape)))
            return per_layer(name, ops.reshape(maps, ops.shape(tile)), state)

        return super().function(kind, names, columns, per_layer if self._turned_by is None else shown, output)

    def with_input(self, found: list[LayerMeasures]) -> list[LayerMeasures]:
        """What was found, and the same of the input where the model has a layer for it."""
        if self.input_place is None:
            return found
        layer = self.every[self.input_place]
        measures = LayerMeasures.from_moments(
            self._inputs.moments(), name=layer.name, shape=layer.shape, feature_axis=layer.feature_axis
        )
        return [*found[: self.input_place], measures, *found[self.input_place :]]

    def _shown_as(self, layer: Layer, activation: Any) -> Any:
        """What the spread is taken of: activations (rows * columns, *shape), feature maps turned back where asked."""
        return activation if self._turned_by is None or len(layer.shape) != 3 else self._turned(layer, activation)

    def _turned(self, layer: Layer, activation: Any) -> Any:
        if not self._turns_itself:
            return super()._turned(layer, activation)
        assert self._turned_by is not None
        maps = np.moveaxis(np.asarray(ops.convert_to_numpy(activation)), 1 + layer.feature_axis, 1)
        back = np.empty_like(maps)
        for number, features in enumerate(maps):
            column = self._columns[number % len(self._columns)]
            for feature, one in enumerate(features):
                found = self._turned_by.apply_inverse_transformation(_as_documented(one), column)
                turned = to_numpy(found, "apply_inverse_transformation")
                if turned.shape != one.shape:
                    raise ValueError(
                        f"{type(self._turned_by).__name__}.apply_inverse_transformation must keep the shape of a map. "
                        f"Received: {turned.shape} for {one.shape}."
                    )
                back[number, feature] = turned
        return ops.convert_to_tensor(np.ascontiguousarray(np.moveaxis(back, 1, 1 + layer.feature_axis)))


def _transforms_of(dataset: TransformationsDataSet) -> TransformSet | None:
    """The transformations whose ways back the engine can compile; None where the data set turns maps back itself."""
    if type(dataset).apply_inverse_transformation is not TransformationsDataSet.apply_inverse_transformation:
        return None
    return dataset.transforms


def _as_documented(one: NDArray[Any]) -> Any:
    """A tensor of TensorFlow, where that is in use; elsewhere an array, which everybody takes."""
    return ops.convert_to_tensor(one) if keras.backend.backend() == "tensorflow" else one


def _stay(x: Any) -> Any:
    return x


def by_feature(structure: LayerStructure, values: Floats) -> Floats:
    """Means of a layer's features, (C,)."""
    assert structure.feature_axis is not None
    means: Floats = np.moveaxis(values, structure.feature_axis, 0).reshape(structure.number_features, -1).mean(axis=1)
    return means
