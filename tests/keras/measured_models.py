"""The models, data sets and comparisons of the tests of transformational measures."""

import keras
import numpy as np
from keras import layers as L
from keras import ops

from bc_keras.transformational_measures import (
    DataSet,
)

BACKEND = keras.backend.backend()


def net(size=8, functional=False):
    parts = [
        L.Conv2D(3, 3, padding="same", activation="relu", name="conv"),
        L.MaxPooling2D(name="pool"),
        L.Dropout(0.5, name="drop"),
        L.Flatten(name="flat"),
        L.Dense(4, activation="softmax", name="head"),
    ]
    if not functional:
        return keras.Sequential([keras.Input((size, size, 1)), *parts])
    x = start = keras.Input((size, size, 1), name="pixels")
    for part in parts:
        x = part(x)
    return keras.Model(start, x)


def images(n=7, size=8):
    return np.random.default_rng(1).normal(size=(n, size, size, 1)).astype("float32")


def activations(plain, matrix):
    """Of every layer, (rows, columns, ...), by Keras alone."""
    rows, columns = matrix.shape[:2]
    flat = matrix.reshape(rows * columns, *matrix.shape[2:])
    every = keras.Model(plain.inputs[0], {str(k): layer.output for k, layer in enumerate(plain.layers)})(flat)
    return [
        ops.convert_to_numpy(one).reshape(rows, columns, *one.shape[1:]).astype("float64") for one in every.values()
    ]


def variance(found):
    """The documented formula: of each activation the mean over rows of the variance over columns."""
    return found.var(axis=1, ddof=1).mean(axis=0)


def across(found):
    return variance(found.swapaxes(0, 1))


class Matrix(DataSet):
    """A matrix that is simply there, transposed as its documentation says."""

    def __init__(self, values):
        self.values, self.turned = values, False

    def get_data_shape(self):
        return self.values.shape[2:]

    def get_height(self):
        return len(self.values)

    def get_width(self):
        return self.values.shape[1]

    def get_matrix(self, rows, columns):
        return self.values[np.ix_(rows, columns)]

    def transpose(self):
        self.values, self.turned = self.values.swapaxes(0, 1), not self.turned

    def is_transpose(self):
        return self.turned


def same(found, expected, rtol=2e-4, atol=1e-6):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=atol)
