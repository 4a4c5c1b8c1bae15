"""Model: the activations of every layer of a Keras model, for a matrix of inputs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from bc_core.invariance import TransformSet
from bc_keras._reference import _without_gradients, only_tensor
from bc_keras.invariance._activations import Layer, LayerChoice
from bc_keras.invariance._data import Piece
from bc_keras.invariance._passes import Network
from bc_keras.transformational_measures._data_sets import DataSet, TransformationsDataSet


@dataclass(frozen=True)
class LayerStructure:
    """One layer.

    Attributes:
        name: Its name.
        shape: Shape of its activation for one input.
        features: Number of features (channels).
    """

    name: str
    shape: tuple[int, ...]
    features: int

    @property
    def size(self) -> int:
        """Number of activations."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class ModelStructure:
    """The layers of a model, in order.

    Attributes:
        layers: Each of them.

    Example:
        >>> from bc_keras.transformational_measures import LayerStructure, ModelStructure
        >>> structure = ModelStructure((LayerStructure("conv", (4, 4, 3), features=3),))
        >>> structure.names, structure["conv"].size
        (('conv',), 48)
    """

    layers: tuple[LayerStructure, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(layer.name for layer in self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, layer: int | str) -> LayerStructure:
        return self.layers[self.names.index(layer) if isinstance(layer, str) else layer]


class Block:
    """Activations of every layer for a matrix of inputs.

    ``block[i, j, layer]`` is the activation of a layer, by number or name, for the input in row i and column j;
    ``block[i, j, layer, feature]`` that of one feature. Slices work as in numpy.

    Attributes:
        structure: The layers.
        activations: Of each layer by name, shape (rows, columns, *shape of the layer).
    """

    def __init__(
        self, structure: ModelStructure, activations: Mapping[str, NDArray[Any]], axes: Mapping[str, int]
    ) -> None:
        self.structure, self.activations, self._axes = structure, dict(activations), axes

    @property
    def height(self) -> int:
        """Number of rows."""
        return len(next(iter(self.activations.values())))

    @property
    def width(self) -> int:
        """Number of columns."""
        return int(next(iter(self.activations.values())).shape[1])

    def __getitem__(self, place: tuple[Any, ...]) -> NDArray[Any]:
        if not isinstance(place, tuple) or len(place) not in (3, 4):
            raise KeyError(f"A block is indexed [i, j, layer] or [i, j, layer, feature]. Received: {place!r}.")
        layer = self.structure[place[2]].name
        values = self.activations[layer]
        if len(place) == 4:
            values = np.take(values, place[3], axis=2 + self._axes[layer])
        found: NDArray[Any] = values[place[0], place[1]]
        return found


class Model:
    """A Keras model that shows what is inside of it.

    Args:
        model_keras: The model.
        path: Instead of it, a file that `keras.saving.load_model` reads.
        layers: Which layers, as for `bc_keras.invariance.measure`.

    Attributes:
        model_keras: The model.

    Raises:
        TypeError: If there is neither model nor path, or both.

    Example:
        >>> import keras, numpy as np
        >>> from bc_keras.transformational_measures import Model
        >>> net = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(3, 3, name="conv")])
        >>> model = Model(model_keras=net)
        >>> block = model.predict(np.ones((2, 5, 4, 4, 1)))  # two rows, five columns
        >>> block[1, 4, 0].shape, block[1, 4, "conv", 2].shape, model.size_activations_layers()
        ((2, 2, 3), (2, 2), [12])
    """

    def __init__(
        self,
        model_keras: Any = None,
        path: str | os.PathLike[str] | None = None,
        layers: LayerChoice | None = None,
    ) -> None:
        if (model_keras is None) == (path is None):
            raise TypeError(
                "Give the model, or the path of its file. Received: "
                f"model_keras={model_keras!r}, path={None if path is None else os.fspath(path)!r}."
            )
        self.model_keras = keras.saving.load_model(path) if model_keras is None else model_keras
        self.layers = layers
        # Of single inputs: the transformations are in the matrix already.
        single = TransformSet.identity(2)
        self._network = Network(self.model_keras, single, layers, None, False, None, None, None, None, "model_keras")

    def predict(self, tensor_input: Any) -> Block:
        """Activations of every layer; all are kept, so this is for small matrices. Measures keep none.

        Args:
            tensor_input: A matrix of inputs, shape (rows, columns, *input).

        Raises:
            ValueError: If there are fewer than three axes, or no input.
        """
        given = np.asarray(ops.convert_to_numpy(tensor_input))
        if given.ndim < 3 or not given.shape[0] * given.shape[1]:
            raise ValueError(
                "tensor_input must be a matrix of inputs, of shape (rows, columns, *input), with one input at least. "
                f"Received: shape {given.shape}."
            )
        rows, columns = given.shape[:2]
        flat = given.reshape(rows * columns, *given.shape[2:])
        if flat.dtype == np.float64:
            flat = flat.astype(keras.config.floatx())
        layers = self._found(flat)
        names = [layer.name for layer in layers]
        function = self._network.function("activations", names, 1, lambda name, tile, state: [tile])
        with function.watching():
            found, _ = function(ops.convert_to_tensor(flat), rows * columns, {})
        activations = {
            layer.name: np.asarray(ops.convert_to_numpy(found[layer.name][0])).reshape(rows, columns, *layer.shape)
            for layer in layers
        }
        return Block(_structure_of(layers), activations, {layer.name: layer.feature_axis for layer in layers})

    def structure(self) -> ModelStructure:
        """The layers.

        Raises:
            ValueError: If the model's inputs are not known, as of a model that was not called yet.
        """
        return _structure_of(self._found())

    def layer_names(self) -> tuple[str, ...]:
        """Names of the layers."""
        return self.structure().names

    def size_layers(self) -> int:
        """Number of layers."""
        return len(self.structure())

    def size_activations(self) -> int:
        """Number of activations of all layers."""
        return sum(self.size_activations_layers())

    def size_activations_layers(self) -> list[int]:
        """Number of activations of each layer."""
        return [layer.size for layer in self.structure().layers]

    def evaluate(self, data: Any, y: Any = None, batch_size: int = 256) -> float:
        """Accuracy, of all samples under all transformations.

        Args:
            data: A `TransformationsDataSet` with classes, or inputs (N, ...).
            y: Classes of inputs, (N,).
            batch_size: Inputs at a time.

        Raises:
            ValueError: If there are no classes.
        """
        if not isinstance(data, DataSet):
            data = TransformationsDataSet(data, TransformSet.identity(), y)
        classes = getattr(data, "y", None)
        if classes is None:
            raise ValueError("Accuracy needs classes: TransformationsDataSet(x, transforms, y). Received: y=None.")
        height, width = data.get_height(), data.get_width()
        step = max(1, batch_size // width)
        right = 0
        for start in range(0, height, step):
            rows = range(start, min(height, start + step))
            matrix = data.get_matrix(rows, range(width))
            inputs = ops.convert_to_tensor(matrix.reshape(len(rows) * width, *matrix.shape[2:]))
            with _without_gradients():
                output = self.model_keras(inputs, training=False)
            scores = ops.convert_to_numpy(only_tensor(output, "model_keras"))
            predicted = scores.argmax(axis=1) if scores.shape[-1] > 1 else scores.reshape(-1) >= 0.5
            right += int((predicted.reshape(len(rows), width) == classes[rows.start : rows.stop, None]).sum())
        return float(right / (height * width))

    def _found(self, inputs: NDArray[Any] | None = None) -> list[Layer]:
        if not self._network.layers:
            if inputs is None:
                known = keras.tree.flatten(getattr(self.model_keras, "inputs", None) or [])
                if len(known) != 1 or any(length is None for length in known[0].shape[1:]):
                    raise ValueError(
                        "The shape of the model's inputs is not known: call predict once. Received: "
                        f"{self.model_keras.name!r}."
                    )
                inputs = np.zeros((1, *known[0].shape[1:]), known[0].dtype)
            self._network.prepare(Piece(inputs, None))
        return self._network.layers


def _structure_of(layers: list[Layer]) -> ModelStructure:
    return ModelStructure(
        tuple(
            LayerStructure(layer.name, layer.shape, layer.shape[layer.feature_axis] if layer.shape else 1)
            for layer in layers
        )
    )
