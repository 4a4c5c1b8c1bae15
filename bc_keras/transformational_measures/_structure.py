"""What a model is made of, layer by layer, and the activations of its layers for a block of inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from bc_core.invariance import TransformSet
from bc_core.invariance._layers import Layer
from bc_core.invariance._network import Measurement
from bc_core.invariance._rows import Piece
from bc_keras.invariance._activations import layers_of
from bc_keras.invariance._network import KerasNetwork


class TopLayers(KerasNetwork):
    """A network of which the layers in `model.layers` are watched, all of them, in that order.

    Args:
        model: The model.
        transforms: The transformations, as many as a sample has inputs.
        data_format: Where the channels of images are.
        run_eagerly: Whether the model is run without compiling; None for what it says itself.
    """

    def __init__(
        self, model: Any, transforms: TransformSet, data_format: str | None = None, run_eagerly: bool | None = None
    ) -> None:
        if not isinstance(model, keras.Model):
            raise TypeError(f"model_keras must be a Keras model. Received: model_keras={model!r}.")
        super().__init__(model, "model_keras", Measurement(transforms, self._is_top), None, data_format, run_eagerly)
        self._places = {id(layer): place for place, layer in enumerate(self.model.layers)}
        self.input_place: int | None = None
        """Where the layer of the input stands, which returns what comes in; None where the model has none."""
        self.every: list[Layer] = []
        """`layers`, and that of the input among them."""

    def prepare(self, piece: Piece) -> None:
        """Find the layers, with one sample."""
        if self.layers:
            return
        super().prepare(piece)
        places = {name: self._places.get(id(layer)) for name, layer in layers_of(self.model)}
        self.layers.sort(key=lambda layer: places[self._watched[layer.name]] or 0)
        self._group()
        self.every = list(self.layers)
        inputs = [layer for layer in self.model.layers if isinstance(layer, keras.layers.InputLayer)]
        if len(inputs) == 1 and keras.backend.is_float_dtype(keras.backend.standardize_dtype(inputs[0].dtype)):
            shape = tuple(self.tile(Piece(piece.x[:1], 1)).shape[1:])
            self.input_place = self._places[id(inputs[0])]
            is_first = len(shape) > 2 and self._data_format == "channels_first"
            axis = 0 if is_first else max(0, len(shape) - 1)
            self.every.insert(self.input_place, Layer(inputs[0].name, shape, axis, 4, self._data_format))

    def _is_top(self, name: str, layer: Any) -> bool:
        return id(layer) in self._places


@dataclass(frozen=True)
class LayerStructure:
    """One layer.

    A layer has features where its activation for one input has more than two axes: those of an image, (H, W, C).

    Attributes:
        name: Its name; of a layer that is called several times each call is one, ``"relu"`` and ``"relu:2"``.
        shape: Shape of its activation for one input.
        number_activations: Number of activations.
        number_features: Number of features (channels); 0 of a layer without features.
        shape_feature: Shape of one feature, (H, W); None of a layer without features.
        feature_axis: Axis of `shape` with the features; None of a layer without features.
    """

    name: str
    shape: tuple[int, ...]
    number_activations: int
    number_features: int
    shape_feature: tuple[int, ...] | None
    feature_axis: int | None

    @classmethod
    def of(cls, layer: Layer) -> LayerStructure:
        """What the engine found of a layer."""
        shape, axis = layer.shape, layer.feature_axis
        if len(shape) < 3:
            return cls(layer.name, shape, math.prod(shape), 0, None, None)
        return cls(layer.name, shape, math.prod(shape), shape[axis], shape[:axis] + shape[axis + 1 :], axis)


class ModelStructure:
    """The layers of a model, in the order of `model.layers`.

    Args:
        model: A Keras model whose inputs' shape is known.

    Attributes:
        layers: A `LayerStructure` for each layer.
        number_layers: Number of layers.
        map_layers_features: Numbers of the layers with features, among all.
        layers_features: Those layers.
        number_layers_features: Number of layers with features.
        left_out: Layers that have no activation in floating-point numbers for each input, and why.

    Raises:
        TypeError: If it is no Keras model.
        ValueError: If the shape of its inputs is not known.

    Example:
        >>> import keras
        >>> from bc_keras.transformational_measures import ModelStructure
        >>> net = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(3, 3), keras.layers.Flatten()])
        >>> structure = ModelStructure(net)
        >>> [layer.shape for layer in structure.layers], structure.map_layers_features
        ([(2, 2, 3), (12,)], [0])
        >>> conv = structure.layers[0]
        >>> conv.number_activations, conv.number_features, conv.shape_feature
        (12, 3, (2, 2))
    """

    def __init__(self, model: Any = None) -> None:
        self.layers: list[LayerStructure] = []
        self.left_out: dict[str, str] = {}
        if model is not None:
            self._take(prepared(TopLayers(model, TransformSet.identity(2))))

    @classmethod
    def of(cls, network: TopLayers) -> ModelStructure:
        """The structure of a network whose layers were found."""
        structure = cls()
        structure._take(network)
        return structure

    def _take(self, network: TopLayers) -> None:
        self.layers = [LayerStructure.of(layer) for layer in network.every]
        self.left_out = dict(network.left_out)

    @property
    def number_layers(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @property
    def map_layers_features(self) -> list[int]:
        """Numbers of the layers with features, among all layers."""
        return [number for number, layer in enumerate(self.layers) if layer.number_features]

    @property
    def layers_features(self) -> list[LayerStructure]:
        """The layers with features."""
        return [self.layers[number] for number in self.map_layers_features]

    @property
    def number_layers_features(self) -> int:
        """Number of layers with features."""
        return len(self.map_layers_features)


def prepared(network: TopLayers, inputs: NDArray[Any] | None = None) -> TopLayers:
    """A network whose layers are found.

    Args:
        network: The network.
        inputs: Some inputs (N, ...). Default: zeros, of a model that knows their shape.

    Raises:
        ValueError: If no inputs are given and the model does not know their shape.
    """
    if network.layers:
        return network
    if inputs is None:
        known = keras.tree.flatten(getattr(network.model, "inputs", None) or [])
        if len(known) != 1 or any(length is None for length in known[0].shape[1:]):
            raise ValueError(
                f"The shape of the model's inputs is not known: call predict once. Received: {network.model.name!r}."
            )
        inputs = np.zeros((1, *known[0].shape[1:]), known[0].dtype)
    network.prepare(Piece(inputs, len(inputs)))
    return network


class Block:
    """Activations of every layer for a block of inputs.

    ``block[i, j, k]`` is the activation of layer k for the input in row i and column j, ``block[i, j, k, f]`` that of
    its feature f; k counts all layers, as in `ModelStructure.layers`. For i and j slices work as in numpy.

    Args:
        x: Of each layer the activations (rows * columns, *shape), row by row.
        height: Number of rows.
        width: Number of columns.
        model_structure: The layers.

    Attributes:
        height: Number of rows.
        width: Number of columns.
        model_structure: The layers.

    Example:
        >>> import keras, numpy as np
        >>> from bc_keras.transformational_measures import Model
        >>> net = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(3, 3, name="conv")])
        >>> block = Model(model_keras=net).predict(np.ones((2, 5, 4, 4, 1)))
        >>> block.height, block.width, block[1, 4, 0].shape, block[1, 4, 0, 2].shape
        (2, 5, (2, 2, 3), (2, 2))
    """

    def __init__(self, x: Sequence[Any], height: int, width: int, model_structure: ModelStructure) -> None:
        self.height, self.width, self.model_structure = height, width, model_structure
        self._activations: list[NDArray[Any]] = [np.array(one).reshape(height, width, *np.shape(one)[1:]) for one in x]
        self._rows: list[int] | None = None
        self._columns: list[int] | None = None
        self._transposed: bool | None = None

    def __getitem__(self, place: tuple[Any, ...]) -> NDArray[Any]:
        found: NDArray[Any] = self._of(place)[place[:2]]
        return found

    def __setitem__(self, place: tuple[Any, ...], value: Any) -> None:
        self._of(place)[place[:2]] = value

    def _of(self, place: tuple[Any, ...]) -> Any:
        """The activations of a layer, or of a feature of it, for all rows and columns; a view."""
        if not isinstance(place, tuple) or len(place) not in (3, 4):
            raise KeyError(f"A block is indexed [i, j, layer] or [i, j, layer, feature]. Received: {place!r}.")
        values = self._activations[place[2]]
        if len(place) == 3:
            return values
        layer = self.model_structure.layers[place[2]]
        if layer.feature_axis is None:
            raise IndexError(
                f"Layer {layer.name!r} has no features: its activation for one input has shape {layer.shape}. "
                f"Received: {place!r}."
            )
        return np.moveaxis(values, 2 + layer.feature_axis, 0)[place[3]]

    def set_rows_dataset(self, rows: list[int]) -> None:
        """Say which rows of the data set these are."""
        self._rows = rows

    def set_columns_dataset(self, columns: list[int]) -> None:
        """Say which columns of the data set these are."""
        self._columns = columns

    def set_state_transpose_dataset(self, state: bool | None) -> None:
        """Say whether the data set is transposed."""
        self._transposed = state

    def get_rows_dataset(self) -> list[int] | None:
        """Which rows of the data set these are; None where nobody said."""
        return self._rows

    def get_columns_dataset(self) -> list[int] | None:
        """Which columns of the data set these are; None where nobody said."""
        return self._columns

    def is_dataset_transpose(self) -> bool | None:
        """Whether the data set is transposed; None where nobody said."""
        return self._transposed
