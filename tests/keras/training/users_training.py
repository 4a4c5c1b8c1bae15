"""A user's models, with dropout, and how they are compiled and trained."""

from __future__ import annotations

import keras
from keras import layers
from user_models import data

SPARSE = "sparse_categorical_crossentropy"


def layered(kind, seed=1):
    """A sequential or a functional model."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((4,), name="features")
    stack = [layers.Dense(8, activation="relu", name="hidden"), layers.Dropout(0.5, seed=3, name="dropout")]
    stack.append(layers.Dense(3, activation="softmax", name="out"))
    if kind == "sequential":
        return keras.Sequential([inputs, *stack], name="mine")
    output = inputs
    for layer in stack:
        output = layer(output)
    return keras.Model(inputs, output, name="mine")


def compiled(model, metrics=("accuracy",), **options):
    model.compile(keras.optimizers.Adam(0.01), loss=SPARSE, metrics=list(metrics), **options)
    return model


def fit(model, epochs=1, seed=5, **options):
    keras.utils.set_random_seed(seed)
    x, y = data(48)
    return model.fit(x, y, batch_size=16, epochs=epochs, verbose=0, **options)


def same_weights(first, second):
    return all((a == b).all() for a, b in zip(first.get_weights(), second.get_weights(), strict=True))
