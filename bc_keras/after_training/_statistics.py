"""Running statistics of a network whose weights were mixed: BatchNormalization's are of neither's activations."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.backend import compute_output_spec  # public nowhere; how Keras itself tries a layer without values

from bc_core.sweep._generators import Generators
from bc_keras._random_numbers import random_numbers_kept
from bc_keras.batches._listed_batches import ListedBatches, is_list_of_batches
from bc_keras.batches._validation_data import ValidationData
from bc_keras.reference._asking import as_tensor
from bc_keras.reference._reference import without_gradients
from bc_keras.reference._stored_dataset import is_dataset
from bc_keras.training._preparation import has_own, prepared


class StatisticsData(ValidationData):
    """Training data of which inputs alone are read, with labels or without: (x, y), x, or batches of either.

    Args:
        data: as the user gave them.
        batch_size: rows at a time, for arrays.
    """

    name = "statistics"

    def __init__(self, data: Any, batch_size: int | None = None) -> None:
        if hasattr(data, "shape") or isinstance(data, dict):
            data = data, np.zeros(len(keras.tree.flatten(data)[0]))
        if is_list_of_batches(data):
            data = ListedBatches(data, self.name)
        super().__init__(data, batch_size if isinstance(data, tuple | list) else None)

    def _x_and_y(self, data: Any) -> tuple[Any, Any]:
        if isinstance(data, tuple | list) and len(data) == 1:
            data = data[0]
        if isinstance(data, dict) or hasattr(data, "shape"):
            return data, np.zeros(1)  # nobody reads it
        return super()._x_and_y(data)


def check_is_taken(model: keras.Model, data: StatisticsData) -> None:
    """Refuse data without a batch, and inputs that a model cannot take, before a training is spent on them.

    The training is as it would be without: generators of random numbers stay where they are, and as those that shuffle
    a `tf.data.Dataset` cannot be put back, its types and shapes alone are looked at.

    Raises:
        ValueError: such data.
    """
    try:
        if is_dataset(data.data):
            _check_spec(model, data)
            return
        with random_numbers_kept(), without_gradients():
            generators = Generators([data.data])
            try:
                batch = next(iter(data), None)
            finally:
                generators.rewind()
            if batch is not None:
                with keras.StatelessScope() if model.built else nullcontext():
                    model(_inputs(model, batch.x), training=False)
    except Exception as error:
        raise ValueError(
            "statistics must hold inputs as h2 takes them, (x, y), x alone (several arrays as a tuple with labels, "
            f"([a, b], y), or in a dictionary) or batches of these. Received what h2 refuses: {error}"
        ) from error
    if batch is None:
        raise ValueError(_NONE)


def _check_spec(model: Any, data: StatisticsData) -> None:
    """The same of a `tf.data.Dataset` and a model that takes all batch sizes, where one batch is as another."""
    x, _ = data._x_and_y(data.data.element_spec)
    leaves = keras.tree.flatten(x)
    if has_own(type(model), "predict") or any(each.shape[0] for each in getattr(model, "inputs", None) or []):
        return
    shapes: list[Any] = [getattr(leaf, "shape", None) for leaf in leaves]
    if any(shape is None or shape.rank in (None, 0) or None in tuple(shape)[1:] for shape in shapes):
        return
    names = [getattr(leaf.dtype, "name", "string") for leaf in leaves]
    if "string" in names or not all(hasattr(leaf, "is_compatible_with") for leaf in leaves):
        return
    symbols = [
        keras.KerasTensor((shape[0] or 1, *tuple(shape)[1:]), dtype) for shape, dtype in zip(shapes, names, strict=True)
    ]
    compute_output_spec(lambda given: model(given, training=False), keras.tree.pack_sequence_as(x, symbols))


_NONE = "statistics must hold at least one batch of training inputs. Received: none."


def _inputs(model: keras.Model, x: Any) -> Any:
    return keras.tree.map_structure(as_tensor, prepared(model, x))


def estimate(model: keras.Model, layers: Iterable[keras.layers.BatchNormalization], data: Iterable[Any]) -> None:
    """Estimate running statistics anew, as the mean over the batches of one pass; dropout and the like stay off.

    Args:
        model: the network.
        layers: those of its layers whose statistics are estimated.
        data: batches of training data, of which labels are not read.

    Raises:
        ValueError: there is no batch, or the inputs are not finite.
    """
    layers = list(layers)
    batches = 0
    with ExitStack() as stack, without_gradients():
        for layer in layers:
            stack.enter_context(_learning(layer))
        for batch in data:
            # The mean over the batches so far.
            for layer in layers:
                layer.momentum = batches / (batches + 1)
            model(_inputs(model, batch.x), training=False)
            batches += 1
    if not batches:
        raise ValueError(_NONE)
    for layer in layers:
        if not np.isfinite(ops.convert_to_numpy(layer.moving_variance)).all():
            raise ValueError(
                f"The running statistics of {layer.name!r} are not finite after a pass over statistics: look for "
                "inputs that are NaN."
            )


@contextmanager
def _learning(layer: Any) -> Any:
    """The layer as in training, in a model that is not."""
    momentum, trainable = layer.momentum, layer._trainable
    # Beside what Keras tracks; found before the method of the class.
    layer.__dict__["call"] = functools.partial(_called_in_training, layer)
    try:
        layer._trainable = True
        yield
    finally:
        del layer.__dict__["call"]
        layer.momentum, layer._trainable = momentum, trainable


def _called_in_training(layer: Any, *args: Any, **kwargs: Any) -> Any:
    # With what Keras gives it: a class of the user's may take less than Keras's own.
    given = inspect.signature(type(layer).call).bind(layer, *args, **kwargs)
    if layer._call_has_training_arg:
        given.arguments["training"] = True
    return type(layer).call(*given.args, **given.kwargs)
