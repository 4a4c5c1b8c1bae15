"""Running statistics of a network whose weights were mixed: BatchNormalization's are of neither's activations."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from bc_keras.reference._asking import as_tensor
from bc_keras.reference._reference import without_gradients
from bc_keras.training._preparation import prepared


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
            model(keras.tree.map_structure(as_tensor, prepared(model, batch.x)), training=False)
            batches += 1
    if not batches:
        raise ValueError("statistics must hold at least one batch of training inputs. Received: none.")
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


def _called_in_training(layer: Any, inputs: Any, training: Any = None, mask: Any = None) -> Any:
    return type(layer).call(layer, inputs, training=True, mask=mask)
