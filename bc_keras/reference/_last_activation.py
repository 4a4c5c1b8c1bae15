"""What a model's last activation says of its scores: logits or probabilities."""

from __future__ import annotations

from typing import Any

import keras

_PROBABILITIES = ("softmax", "sigmoid", "hard_sigmoid", "sparsemax", "sparse_sigmoid")
_LOGITS = ("linear", "log_softmax")
# What passes scores on as they are, apart from their places.
_PASSING = ("Reshape", "Flatten", "Squeeze", "ExpandDims", "Dropout", "Identity", "Cast", "GetItem")


def activation_of(model: Any) -> bool | None:
    """Whether the last activation leaves logits; None where that cannot be seen."""
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


def _of_operation(operation: Any) -> bool | None:
    if isinstance(operation, keras.Model):
        return activation_of(operation)
    if isinstance(operation, keras.layers.Wrapper):
        return _of_operation(operation.layer)
    if isinstance(operation, keras.layers.Softmax) or type(operation).__name__ in ("Softmax", "Sigmoid"):
        return False
    activation = getattr(operation, "activation", None)
    if isinstance(activation, keras.layers.Softmax):
        return False
    name = getattr(activation, "__name__", None)
    if activation is None or getattr(keras.activations, str(name), None) is not activation:
        return None
    if name in _PROBABILITIES:
        return False
    return True if name in _LOGITS else None
