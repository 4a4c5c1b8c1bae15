"""The h1 of the tests of stored outputs, its data, and how they are read."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

N, CLASSES = 37, 3


def model(seed: int = 0, inputs: int = 4) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.layers.Input((inputs,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(CLASSES, activation="softmax"),
        ]
    )


def data(n: int = N, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 4)).astype("float32"), rng.integers(CLASSES, size=n)


def doubled(x):
    return x * 2


def by_hand(h1, x) -> np.ndarray:
    """One item at a time."""
    return np.concatenate([ops.convert_to_numpy(h1(x[i : i + 1], training=False)) for i in range(len(x))])


class Service:
    """Doubles its input, counts the items that it was asked about, and stops working after some."""

    fingerprint = "service 1"

    def __init__(self, limit: float = float("inf"), factor: float = 2.0) -> None:
        self.asked, self.limit, self.factor = 0, limit, factor

    def __call__(self, x):
        if self.asked + len(x) > self.limit:
            raise RuntimeError("power cut")
        self.asked += len(x)
        return x * self.factor


def items(tf, x, y=None, batch: int | None = None):
    dataset = tf.data.Dataset.from_tensor_slices(x if y is None else (x, y))
    return dataset if batch is None else dataset.batch(batch)
