"""What a fingerprint sees of h1."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
from keras import ops
from stored_in_keras import Service, data, doubled, model

from bc_keras.reference._fingerprint import fingerprint
from bc_keras.reference._stored import StoredOutputs, store_outputs

# Fingerprints


def test_fingerprints_follow_the_weights_and_nothing_else(tmp_path):
    h1 = model()
    name = fingerprint(h1)
    h1.compile("adam", "mse")
    h1.trainable = False
    h1.predict(data()[0], verbose=0)
    h1.save(tmp_path / "h1.keras")
    assert fingerprint(keras.models.load_model(tmp_path / "h1.keras")) == fingerprint(h1) == name
    weights = h1.get_weights()
    weights[0][1, 1] = np.nextafter(weights[0][1, 1], 9)
    h1.set_weights(weights)
    assert fingerprint(h1) != name
    layers = [keras.layers.Input((4,)), keras.layers.Dense(3, use_bias=False), keras.layers.Dropout(0.1)]
    short, long = keras.Sequential(layers[:2]), keras.Sequential(layers)
    assert fingerprint(short) != fingerprint(long)


def test_fingerprints_of_callables():
    assert fingerprint(doubled).partition("#")[0] == f"callable:{doubled.__module__}.doubled"
    assert fingerprint(Service()) == "service 1"
    h1 = model()
    assert fingerprint(h1) in fingerprint(functools.partial(h1, training=False))
    assert fingerprint(h1) in fingerprint(h1.predict)


def test_another_function_of_the_same_name_is_another_h1(tmp_path):
    def made(weights, add):
        if add:
            return lambda x: ops.matmul(x, weights) + 1.0
        return lambda x: ops.matmul(x, weights)

    x = data()[0]
    weights = np.random.default_rng(0).normal(size=(x.shape[1], 3)).astype("float32")
    store_outputs(made(weights, add=False), x, tmp_path / "s", verbose=0)
    StoredOutputs.open(tmp_path / "s", made(weights.copy(), add=False))
    for other in (made(weights, add=True), made(weights + 1, add=False), made(ops.convert_to_tensor(weights), False)):
        with pytest.raises(ValueError, match="another h1"):
            StoredOutputs.open(tmp_path / "s", other)
    one, two = (model(), model())
    assert fingerprint(lambda x: ops.log(one(x))) != fingerprint(lambda x: ops.log(two(x)))
    assert fingerprint(functools.partial(one, training=False)) != fingerprint(functools.partial(one, training=True))
