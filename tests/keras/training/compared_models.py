"""Models, data and trainings as the tests of callbacks have them."""

from __future__ import annotations

import keras
import numpy as np
from backends import FEW_STEPS

CLASSES = 3
ROWS = 75


def net(units=CLASSES, activation="softmax"):
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, activation=activation)])


def deep_net(units=CLASSES, activation="softmax"):
    """A net that answers differently in training and in inference."""
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(units, activation=activation),
        ]
    )


def data(rows=ROWS):
    x = np.random.default_rng(0).normal(size=(rows, 4)).astype("float32")
    return x, (x[:, 0] > 0).astype("int64") + (x[:, 1] > 0)


def compiled(model, optimizer="sgd", metrics=None, **options):
    model.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=metrics, **options)
    return model


def quick(model, optimizer="sgd", metrics=None):
    return compiled(model, optimizer, metrics, **FEW_STEPS)


def fit(model, callbacks, epochs=1, validation_data=None, **options):
    x, y = data(40)
    return model.fit(
        x, y, batch_size=16, epochs=epochs, callbacks=callbacks, validation_data=validation_data, verbose=0, **options
    )


class Pieces(keras.utils.PyDataset):
    """Batches of 10, shuffled anew for every pass if wanted; counts how often it is read."""

    def __init__(self, *arrays, shuffle=False):
        super().__init__()
        self.arrays, self.shuffle, self.reads = arrays, shuffle, 0
        self.order = np.arange(len(arrays[0]))

    def __len__(self):
        return int(np.ceil(len(self.order) / 10))

    def __getitem__(self, index):
        if self.shuffle and index == 0:
            self.order = np.random.default_rng(self.reads).permutation(len(self.order))
        self.reads += 1
        rows = self.order[10 * index : 10 * index + 10]
        return tuple(array[rows] for array in self.arrays)
