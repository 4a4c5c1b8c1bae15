"""Copies of a Keras model, which share nothing with it."""

from __future__ import annotations

from typing import Any

import keras


def cloned(model: Any) -> Any:
    """A model of the same config and weights, with random generators of its own."""
    clone = keras.models.clone_model(model)
    if not clone.built:
        clone.build_from_config(model.get_build_config())
    clone.set_weights(model.get_weights())
    return clone
