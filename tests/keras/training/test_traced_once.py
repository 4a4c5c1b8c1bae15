"""On TensorFlow a step is traced once, where plain Keras traces its first step twice."""

import keras
import numpy as np
import pytest

from bc_keras import BTC, BCModel, store_outputs

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a step of TensorFlow's is traced")

X = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
Y = np.arange(64) % 3


class Traced(keras.layers.Layer):
    """Says how often it was called, which is once for each trace."""

    calls = 0

    def call(self, x):
        self.calls += 1
        return x


class OwnStep(keras.Model):
    """Trains its head alone, with the same optimizer."""

    def train_step(self, data):
        x, y = data
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        head = self.layers[-1].trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, head), head, strict=True))
        return {"loss": loss}


def net(model=keras.Model):
    keras.utils.set_random_seed(0)
    x = keras.Input((4,))
    hidden = Traced()(keras.layers.Dense(8, "relu")(x))
    return model(x, keras.layers.Dense(3, "softmax")(hidden))


def calls_in(model, method, *data):
    [layer] = [layer for layer in model.layers if isinstance(layer, Traced)]
    layer.calls = 0
    result = method(*data, verbose=0)
    return layer.calls, result


def compiled(model, metrics=("accuracy",), **options):
    model.compile("adam", "sparse_categorical_crossentropy", metrics=list(metrics), **options)
    return model


@pytest.mark.parametrize(
    ("options", "stored"),
    [({}, False), ({}, True), ({"steps_per_execution": 2}, False)],
    ids=["live", "stored", "steps_per_execution"],
)
def test_a_training_and_an_evaluation_are_traced_once(tmp_path, options, stored):
    plain = compiled(net(), **options)
    before, plain_history = calls_in(plain, plain.fit, X, Y)
    h1 = store_outputs(net(), X, tmp_path / "h1") if stored else net()
    data = h1.attach(X, Y) if stored else (X, Y)
    model = compiled(BCModel(net(), h1=h1, lambda_c=0.0), **options)
    calls, history = calls_in(model, model.fit, *data)
    # Two steps of one execution are two calls.
    assert 2 * calls == before
    assert history.history["accuracy"] == plain_history.history["accuracy"]
    for ours, its in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(ours, its, rtol=1e-6)
    before, _ = calls_in(plain, compiled(plain, **options).evaluate, X, Y)
    calls, _ = calls_in(model, compiled(model, metrics=["accuracy", BTC()], **options).evaluate, *data)
    assert 2 * calls == before


def test_an_optimizer_of_a_step_of_ones_own_has_what_it_had():
    sizes = []
    for model in (net(OwnStep), BCModel(net(OwnStep), h1=net())):
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(X, Y, verbose=0)
        sizes.append(len(model.optimizer.variables))
    assert sizes[0] == sizes[1]
