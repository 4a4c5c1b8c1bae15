"""Model: the activations of every layer of a Keras model, for a matrix of inputs."""

from __future__ import annotations

import os
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from bc_core._arrays import to_numpy
from bc_core.invariance import TransformSet
from bc_keras._random_numbers import random_numbers_kept
from bc_keras.transformational_measures._files import load_model
from bc_keras.transformational_measures._structure import Block, ModelStructure, TopLayers, prepared

_ACCURACY = ("accuracy", "acc", "binary_accuracy", "categorical_accuracy", "sparse_categorical_accuracy")

Path = str | os.PathLike[str]


class Model:
    """A Keras model that shows what is inside of it.

    Args:
        model_keras: The model.
        path: Instead of it, its file, ``.keras`` or ``.h5``, of Keras 2 too.
        model_path: Another name of `path`.

    Attributes:
        model_keras: The model.

    Raises:
        TypeError: If there is neither model nor path, or both, or the model is none of Keras.

    Example:
        >>> import keras, numpy as np
        >>> from bc_keras.transformational_measures import Model
        >>> net = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(3, 3, name="conv")])
        >>> model = Model(model_keras=net)
        >>> block = model.predict(np.ones((2, 5, 4, 4, 1)))  # two rows, five columns
        >>> block[1, 4, 0].shape, block[1, 4, 0, 2].shape, model.get_name_layer(0)
        ((2, 2, 3), (2, 2), 'conv')
    """

    def __init__(self, model_keras: Any = None, path: Path | None = None, *, model_path: Path | None = None) -> None:
        given = [one for one in (model_keras, path, model_path) if one is not None]
        if len(given) != 1:
            raise TypeError(
                "Give the model, or the path of its file. Received: "
                f"model_keras={model_keras!r}, path={path!r}, model_path={model_path!r}."
            )
        is_path = isinstance(given[0], (str, os.PathLike))
        self.model_keras: Any = load_model(given[0]) if is_path else given[0]
        # Of single inputs: the transformations are in the matrix already.
        self._network = TopLayers(self.model_keras, TransformSet.identity(2))

    def predict(self, tensor_input: Any) -> Block:
        """Activations of every layer; all are kept, so this is for small matrices. Measures keep none.

        Args:
            tensor_input: A matrix of inputs, shape (rows, columns, *input).

        Raises:
            ValueError: If there are fewer than three axes, or no input.
        """
        given = to_numpy(tensor_input, "tensor_input")
        if given.ndim < 3 or not given.shape[0] * given.shape[1]:
            raise ValueError(
                "tensor_input must be a matrix of inputs, of shape (rows, columns, *input), with one input at least. "
                f"Received: shape {given.shape}."
            )
        rows, columns = given.shape[:2]
        flat = given.reshape(rows * columns, *given.shape[2:])
        if flat.dtype == np.float64:
            flat = flat.astype(keras.config.floatx())
        with random_numbers_kept():
            network = prepared(self._network, flat)
            names = [layer.name for layer in network.layers]
            function = network.function("activations", names, 1, lambda name, tile, state: [tile])
            with function.watching():
                found, _ = function(ops.convert_to_tensor(flat), rows * columns, {})
        activations: list[NDArray[Any]] = [
            np.asarray(ops.convert_to_numpy(found[layer.name][0])).reshape(rows * columns, *layer.shape)
            for layer in network.layers
        ]
        if network.input_place is not None:
            activations.insert(network.input_place, flat)
        return Block(activations, rows, columns, self.get_model_structure())

    def get_model_structure(self) -> ModelStructure:
        """The layers.

        Raises:
            ValueError: If the shape of the model's inputs is not known, as of a model that was not called yet.
        """
        return ModelStructure.of(prepared(self._network))

    @property
    def model_structure(self) -> ModelStructure:
        """The layers, as `get_model_structure`."""
        return self.get_model_structure()

    @property
    def layers_names(self) -> list[str]:
        """Names of the layers."""
        return [layer.name for layer in self.get_model_structure().layers]

    def get_name_layer(self, k: int) -> str:
        """Name of layer k."""
        return self.layers_names[k]

    def evaluate(self, x: Any, y: Any) -> list[float]:
        """The compiled loss and accuracy.

        Args:
            x: Inputs (N, ...).
            y: What the model should say of them.

        Returns:
            ``[loss, accuracy]``.

        Raises:
            ValueError: If the model is not compiled with accuracy.
        """
        advice = "compile the model with its loss and accuracy, model.compile(loss=..., metrics=['accuracy'])"
        if not self.model_keras.compiled:
            raise ValueError(f"Loss and accuracy are those of a compiled model: {advice}. Received: one that is not.")
        found = self.model_keras.evaluate(to_numpy(x, "x"), to_numpy(y, "y"), verbose=0, return_dict=True)
        accuracy = [float(found[name]) for name in _ACCURACY if name in found]
        if len(accuracy) != 1:
            raise ValueError(f"Accuracy must be one of the model's metrics: {advice}. Received: {', '.join(found)}.")
        return [float(found["loss"]), accuracy[0]]
