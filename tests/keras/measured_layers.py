"""Nets, images and the definition that the tests of invariance compare with."""

import keras
import numpy as np
from keras import layers as L
from keras import ops

from bc_keras.invariance import (
    TransformSet,
)

BACKEND = keras.backend.backend()
D4, C4 = TransformSet.d4(), TransformSet.c4()
FIVE = TransformSet.rotations([0, 30, 90]) | TransformSet.translations([(0, 2), (3, -1)])


def images(n=24, channels=1, size=12):
    return np.random.default_rng(1).normal(size=(n, size, size, channels)).astype("float32")


def small_net():
    return keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            L.Conv2D(4, 3, padding="same", name="a"),
            L.ReLU(name="b"),
            L.MaxPooling2D(name="c"),
            L.Dropout(0.5, name="drop"),
            L.Conv2D(6, 3, activation="relu", name="d"),
            L.Flatten(name="flat"),
            L.Dense(5, name="e"),
        ]
    )


def one_layer(layer, size=12, channels=1, *more):
    return keras.Sequential([keras.Input((size, size, channels)), layer, *more])


def activations(net, name, x, transforms):
    """(n, m, ...) of one layer by plain loops over transformations, from a model that ends there."""
    part = keras.Model(net.inputs, net.get_layer(name).output)
    columns = [
        ops.convert_to_numpy(part(transform(x, data_format="channels_last"), training=False))
        for transform in transforms
    ]
    return np.stack(columns, axis=1).astype("float64")
