"""What a model's last activation says of its scores: logits or probabilities."""

from __future__ import annotations

from typing import Any

import keras

_PROBABILITIES = ("softmax", "sigmoid", "hard_sigmoid", "sparsemax", "sparse_sigmoid")
_LOGITS = ("linear", "log_softmax")
_OVER_CLASSES = ("softmax", "sparsemax", "log_softmax")
# What passes scores on as they are, apart from their places.
_PASSING = ("Reshape", "Flatten", "Squeeze", "ExpandDims", "Dropout", "Identity", "Cast", "GetItem")


def activation_of(model: Any) -> bool | None:
    """Whether the last activation leaves logits; None where that cannot be seen."""
    name = _last_of(model)
    return True if name in _LOGITS else False if name in _PROBABILITIES else None


def is_over_classes(model: Any) -> bool:
    """Whether the last activation shares one among the classes, so that a column is no label of its own."""
    return _last_of(model) in _OVER_CLASSES


def _last_of(model: Any) -> str | None:
    """The name of the last activation, where it is one of Keras's."""
    if isinstance(model, keras.Sequential):
        for layer in reversed(model.layers):
            if not _passes(layer):
                return _of_operation(layer)
        return None
    try:
        tensor = model.output if isinstance(model, keras.Model) else None
    except (AttributeError, ValueError):
        return None  # a subclass, or a model that was not called yet
    if tensor is None:
        return _of_operation(model)
    tensors = keras.tree.flatten(tensor)
    while len(tensors) == 1:
        operation, node = tensors[0]._keras_history[:2]
        if operation is model:
            return None  # a subclass that was called as a layer of another model
        if not _passes(operation):
            return _of_operation(operation)
        tensors = operation._inbound_nodes[node].arguments.keras_tensors
    return None


def _passes(operation: Any) -> bool:
    is_linear = getattr(operation, "activation", None) is keras.activations.linear
    if isinstance(operation, keras.layers.Activation) and is_linear:
        return True
    return type(operation).__module__.startswith("keras.") and type(operation).__name__ in _PASSING


def _of_operation(operation: Any) -> str | None:
    if isinstance(operation, keras.Model):
        return _last_of(operation)
    if isinstance(operation, keras.layers.Wrapper):
        return _of_operation(operation.layer)
    if isinstance(operation, keras.layers.Softmax) or type(operation).__name__ in ("Softmax", "Sigmoid"):
        return "sigmoid" if type(operation).__name__ == "Sigmoid" else "softmax"
    activation = getattr(operation, "activation", None)
    if isinstance(activation, keras.layers.Softmax):
        return "softmax"
    name = getattr(activation, "__name__", None)
    return None if activation is None or getattr(keras.activations, str(name), None) is not activation else name
