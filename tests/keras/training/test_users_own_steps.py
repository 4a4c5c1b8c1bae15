"""Steps, losses and metrics of the user's own."""

from __future__ import annotations

import re
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops
from user_models import data, net
from users_training import compiled, fit

from bc_keras import BTC, BCModel

BACKEND = keras.backend.backend()


# Steps, losses and metrics of the user's own


def _tensorflow_step(self, data):
    import tensorflow as tf

    x, y = data
    with tf.GradientTape() as tape:
        y_pred = self(x, training=True)
        loss = self.compute_loss(x=x, y=y, y_pred=y_pred)
    gradients = tape.gradient(loss, self.trainable_variables)
    self.optimizer.apply(gradients, self.trainable_variables)
    for metric in self.metrics:
        if metric.name == "loss":
            metric.update_state(loss)
        else:
            metric.update_state(y, y_pred)
    return self.get_metrics_result()


def _torch_step(self, data):
    import torch

    x, y = data
    self.zero_grad()
    y_pred = self(x, training=True)
    loss = self.compute_loss(x=x, y=y, y_pred=y_pred)
    loss.backward()
    with torch.no_grad():
        self.optimizer.apply([v.value.grad for v in self.trainable_weights], self.trainable_weights)
    for metric in self.metrics:
        if metric.name == "loss":
            metric.update_state(loss)
        else:
            metric.update_state(y, y_pred)
    return self.get_metrics_result()


def _jax_step(self, state, data):
    import jax

    trainable, non_trainable, optimizer, metrics = state
    x, y = data
    gradient = jax.value_and_grad(self.compute_loss_and_updates, has_aux=True)
    (_, (loss, y_pred, non_trainable, metrics)), gradients = gradient(
        trainable, non_trainable, metrics, x, y, None, training=True, optimizer_variables=optimizer
    )
    trainable, optimizer = self.optimizer.stateless_apply(optimizer, gradients, trainable)
    logs, metrics = self._update_metrics_variables(metrics, loss, x, y, y_pred, None)
    return logs, (trainable, non_trainable, optimizer, metrics)


STEP = {"tensorflow": _tensorflow_step, "torch": _torch_step, "jax": _jax_step}[BACKEND]


def _of_the_page():
    """The model of the page on Keras, as it stands there."""
    import tensorflow as tf

    text = (Path(__file__).parents[3] / "docs" / "keras.md").read_text(encoding="utf-8")
    (block,) = (each for each in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "class Net(keras" in each)
    names = {"tf": tf, "keras": keras}
    exec(block, names)
    return names["Net"]


def _by_a_function(self, *args):
    return STEP(self, *args)


@pytest.mark.parametrize("origin", ["step", "function", "page"])
def test_a_train_step_of_ones_own(origin):
    if origin == "page" and BACKEND != "tensorflow":
        pytest.skip("that of the page is written for TensorFlow")
    steps = {"step": STEP, "function": _by_a_function}
    own = type("Own", (keras.Model,), {"train_step": steps[origin]}) if origin in steps else _of_the_page()
    h1, results = net(0), []
    for cls in (keras.Model, own):
        keras.utils.set_random_seed(1)
        inputs = keras.Input((4,))
        h2 = cls(inputs, layers.Dense(3, activation="softmax")(inputs))
        model = compiled(BCModel(h2, h1=h1, lambda_c=3.0), ["accuracy", BTC()])
        history = fit(model, 2, shuffle=False).history
        results.append((model.get_weights(), history))
    for a, b in zip(results[0][0], results[1][0], strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    for name in ("btc", "dissonance", "accuracy", "loss"):
        assert results[1][1][name] == pytest.approx(results[0][1][name], rel=1e-5), name


def test_a_train_step_that_calls_the_loss_on_other_ways_only_is_refused_when_it_runs():
    def step(self, *args):
        if self.optimizer is None:
            self.compute_loss()  # never
        return {} if BACKEND != "jax" else ({}, args[0])

    own = type("Own", (keras.Sequential,), {"train_step": step})
    model = compiled(BCModel(own(net(1).layers), h1=net(0)))
    with pytest.raises(TypeError, match="has left the penalty out"):
        fit(model)


@pytest.mark.parametrize("takes_training", [True, False])
def test_a_compute_loss_of_ones_own(takes_training):
    x, y = data(16)

    def with_training(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.Sequential.compute_loss(self, x, y, y_pred, sample_weight) + ops.mean(y_pred**2)

    def without(self, x, y, y_pred, sample_weight):
        return keras.Sequential.compute_loss(self, x, y, y_pred, sample_weight) + ops.mean(y_pred**2)

    own = type("Own", (keras.Sequential,), {"compute_loss": with_training if takes_training else without})
    keras.utils.set_random_seed(1)
    h2 = own([keras.Input((4,)), layers.Dense(3, activation="softmax")])
    h1 = net(0)
    model = compiled(BCModel(h2, h1=h1, lambda_c=2.0))
    got = model.evaluate(x, y, verbose=0, return_dict=True)
    p1, p2 = (each.predict(x, verbose=0).astype(float) for each in (h1, h2))
    each = -np.log(p2[np.arange(16), y])
    dissonance = np.mean((p1.argmax(1) == y) * each)
    assert got["dissonance"] == pytest.approx(dissonance, rel=1e-5)
    assert got["loss"] == pytest.approx(each.mean() + np.mean(p2**2) + 2 * dissonance, rel=1e-5)


def test_a_loss_all_of_ones_own_needs_a_named_dissonance():
    x, y = data(16)

    def compute(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean((y_pred - ops.one_hot(y, 3)) ** 2)

    own = type("Own", (keras.Sequential,), {"compute_loss": compute})
    h2 = own([keras.Input((4,)), layers.Dense(3, activation="softmax")])
    with pytest.raises(TypeError, match="loss='BCCrossEntropyLoss'"):
        BCModel(h2, h1=net(0))
    model = BCModel(h2, h1=net(0), lambda_c=0.5, loss="BCCrossEntropyLoss")
    model.compile("sgd")
    got = model.evaluate(x, y, verbose=0, return_dict=True)
    brier = np.mean((h2.predict(x, verbose=0) - np.eye(3)[y]) ** 2)
    assert got["base_loss"] == pytest.approx(brier, rel=1e-5)
    assert got["loss"] == pytest.approx(brier + 0.5 * got["dissonance"], rel=1e-5)


def test_metrics_losses_and_regularisation_of_the_model_itself():
    """Metrics that a model adds and tracks, and losses that its layers add."""

    class Tracking(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3, activation="softmax", activity_regularizer="l2")
            self.seen = keras.metrics.Mean(name="seen")

        def call(self, inputs):
            self.add_loss(0.1 * ops.mean(inputs**2))
            return self.dense(inputs)

        def compute_metrics(self, x, y, y_pred, sample_weight=None):
            self.seen.update_state(ops.mean(y_pred))
            return super().compute_metrics(x, y, y_pred, sample_weight)

    x, y = data(48)
    got = []
    for wrap in (False, True):
        keras.utils.set_random_seed(1)
        model = Tracking()
        model = compiled(BCModel(model, h1=net(0), lambda_c=0.0) if wrap else model)
        fit(model, 2)
        got.append((model.get_weights(), model.evaluate(x, y, verbose=0)))
    assert all((a == b).all() for a, b in zip(got[0][0], got[1][0], strict=True))
    assert got[0][1] == got[1][1]
    assert len(got[1][1]) == 3
