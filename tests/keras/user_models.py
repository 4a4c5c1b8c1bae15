"""What a user of Keras brings: models, data, and gradients in the backend that runs."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

CLASSES = 3


def net(seed=0, classes=CLASSES, activation="softmax", features=4, hidden=8, **kwargs):
    """A small classifier whose weights depend on the seed alone."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((features,)),
            keras.layers.Dense(hidden, activation="relu"),
            keras.layers.Dense(classes, activation=activation),
        ],
        **kwargs,
    )


def data(n=96, classes=CLASSES, features=4, seed=0):
    """Inputs and class indices that a linear rule connects, so that models are right about some of them."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, features)).astype("float32")
    scores = x @ np.random.default_rng(7).normal(size=(features, classes))
    return x, scores.argmax(1)


def answers(model, x):
    """What a model says in inference mode, as `predict`, which each backend compiles first for each model."""
    return ops.convert_to_numpy(model(ops.convert_to_tensor(x), training=False))


def value_and_gradient(function, array, dtype):
    """Value of a scalar function of one array, and its gradient, in the backend that runs."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tensor = tf.constant(array, dtype=dtype)
        with tf.GradientTape() as tape:
            tape.watch(tensor)
            value = function(tensor)
        return float(value), tape.gradient(value, tensor).numpy()
    if backend == "jax":
        import jax

        value, gradient = jax.value_and_grad(function)(jax.numpy.asarray(array, dtype=dtype))
        return float(value), np.asarray(gradient)
    import torch

    tensor = torch.tensor(array, dtype=getattr(torch, dtype), requires_grad=True)
    value = function(tensor)
    value.backward()
    return float(value.detach()), tensor.grad.numpy()
