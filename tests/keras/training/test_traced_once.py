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


class HeadAlone(keras.optimizers.Adam):
    """Trains what comes last."""

    def apply_gradients(self, pairs):
        return super().apply_gradients(list(pairs)[-2:])


class HeadFree(keras.Model):
    """Shows its step the weights of its head alone."""

    @property
    def trainable_weights(self):
        return super().trainable_weights[-2:]


@pytest.mark.parametrize(
    ("kind", "optimizer"),
    [
        (OwnStep, keras.optimizers.Adam),
        (HeadFree, keras.optimizers.Adam),
        (keras.Model, HeadAlone),
        (keras.Model, lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())),
        (keras.Model, lambda: keras.optimizers.LossScaleOptimizer(HeadAlone())),
    ],
    ids=["own_step", "own_weights", "own_optimizer", "scaled", "own_optimizer_scaled"],
)
def test_an_optimizer_has_what_it_has_in_plain_keras(kind, optimizer):
    made = []
    for wrapped in (False, True):
        keras.backend.clear_session()
        model = BCModel(net(kind), h1=net(), lambda_c=0.0) if wrapped else net(kind)
        model.compile(optimizer(), "sparse_categorical_crossentropy")
        model.fit(X, Y, verbose=0)
        made.append([(variable.path, variable.shape) for variable in model.optimizer.variables])
    assert made[1] == made[0]


def test_an_optimizer_without_anything_to_train_takes_what_is_unfrozen_later():
    model, optimizer = BCModel(net(), h1=net()), keras.optimizers.Adam()
    for trainable in (False, True):
        before = model.get_weights()
        model.trainable = trainable
        model.compile(optimizer, "sparse_categorical_crossentropy")
        model.fit(X, Y, verbose=0)
        assert np.array_equal(before[0], model.get_weights()[0]) is not trainable


class MadeInTraining(keras.layers.Layer):
    """Says that it is built, and makes its weights in the first call of a training."""

    def __init__(self):
        super().__init__()
        self.scale, self.built = None, True

    def call(self, x, training=False):
        if not training:
            return x
        if self.scale is None:
            self.scale = self.add_weight(shape=(x.shape[-1],), initializer="ones")
        return x * self.scale


def test_weights_made_in_a_training_step_are_trained():
    made = []
    for wrapped in (False, True):
        keras.utils.set_random_seed(0)
        x = keras.Input((4,))
        h2 = keras.Model(x, keras.layers.Dense(3, "softmax")(MadeInTraining()(x)))
        model = compiled(BCModel(h2, h1=net(), lambda_c=0.0) if wrapped else h2)
        model.fit(X, Y, shuffle=False, verbose=0)
        made.append(model.get_weights())
    assert not np.allclose(made[1][0], 1)
    for ours, its in zip(made[1], made[0], strict=True):
        np.testing.assert_allclose(ours, its, rtol=1e-6)


class FirstColumn(keras.Model):
    """Gives other outputs than its layers."""

    def call(self, x):
        return super().call(x)[:, :1]


class NamedOutputs(keras.Model):
    """Calls a layer what Keras calls the tensors of a functional model."""

    def __init__(self):
        super().__init__()
        self.outputs = keras.layers.Dense(1, "sigmoid")

    def call(self, x):
        return self.outputs(x)


def one_score(kind, last=None):
    keras.utils.set_random_seed(0)
    if kind is NamedOutputs:
        model = NamedOutputs()
        model(X[:1])
        return model
    x = keras.Input((4,))
    scores = keras.layers.Dense(1 if last else 3, "sigmoid")(x)
    return kind(x, last(scores) if last else scores)


@pytest.mark.parametrize("rows", [1, 16])
@pytest.mark.parametrize(
    "made",
    [
        lambda: one_score(FirstColumn),
        lambda: one_score(NamedOutputs),
        lambda: one_score(keras.Model, keras.layers.Reshape(())),
    ],
    ids=["own_call", "own_outputs", "one_dimension"],
)
def test_metrics_are_those_of_plain_keras_where_outputs_do_not_tell(made, rows):
    y = (np.arange(16) % 2)[:, None]
    logged = []
    for model in (made(), BCModel(made(), h1=made(), lambda_c=0.0)):
        model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
        logged.append(model.fit(X[:16], y, batch_size=rows, shuffle=False, verbose=0).history["accuracy"])
    assert logged[1] == logged[0]


def test_what_was_put_around_a_step_stays_there():
    model, calls = compiled(BCModel(net(), h1=net())), []
    model.make_train_function()
    made = model.train_function

    def around(batches):
        calls.append(batches)
        return made(batches)

    model.train_function = around
    model.fit(X, Y, batch_size=16, verbose=0)
    assert len(calls) == 4
