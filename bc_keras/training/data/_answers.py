"""What a model says of a batch, outside of training."""

from __future__ import annotations

from typing import Any

import keras

from bc_keras.reference._asking import as_tensor, asking
from bc_keras.reference._reference import only_tensor, says_cannot_take
from bc_keras.training._preparation import has_own


def predict(model: Any, x: Any) -> Any:
    """Outputs of a Keras model for a batch, in inference mode, by its compiled step."""
    strategy = getattr(model, "distribute_strategy", None)
    layers = model._flatten_layers() if isinstance(model, keras.Model) else []
    masks = any(getattr(layer, "mask_zero", False) or isinstance(layer, keras.layers.Masking) for layer in layers)
    if masks or getattr(strategy, "num_replicas_in_sync", 1) > 1:
        # The compiled step gives no masks, and under a strategy it would answer once on every replica.
        x = keras.tree.map_structure(as_tensor, x)
        return model(x, training=False)
    if isinstance(model, keras.Model) and has_own(type(model), "predict"):
        # Its own would prepare the inputs a second time.
        return keras.Model.predict_on_batch(model, x)
    return model.predict_on_batch(x)


def ask(h1: Any, x: Any) -> Any:
    """h1's output for a batch, by its own classes."""
    if not isinstance(h1, keras.Model):
        return asking(h1)(x)
    try:
        output = predict(h1, x)
    except (TypeError, ValueError) as error:
        raise says_cannot_take(h1, x, error) from error
    return only_tensor(output, "h1")
