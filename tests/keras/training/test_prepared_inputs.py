"""Models that prepare their inputs: h1 gets what it needs."""

from __future__ import annotations

import types

import keras
import numpy as np
import pytest
from backends import once
from keras import layers
from user_models import net
from users_training import SPARSE, compiled, same_weights

from bc_keras import BTC, BCModel, CompatibilityCallback, StoredOutputs, evaluate

pytestmark = once

# Models that prepare their inputs


class Scaled:
    """What prepares inputs, with a config of its own, as the preprocessors of KerasHub have."""

    def __init__(self, mean, vocabulary=("a",), name="scaled"):
        self.mean, self.vocabulary, self.name = mean, vocabulary, name
        self.tokenizer = types.SimpleNamespace(get_vocabulary=lambda: list(vocabulary))

    def __call__(self, x):
        return (np.asarray(x) - self.mean) / 50.0

    def get_config(self):
        return {"mean": self.mean, "name": self.name}


class Task(keras.Model):
    """The pattern of the tasks of KerasHub: inputs are prepared in fit, evaluate, predict and the like."""

    def __init__(self, preprocessor, **kwargs):
        super().__init__(**kwargs)
        self.preprocessor = preprocessor
        self.dense = layers.Dense(2, activation="softmax")

    def compile(self, optimizer="auto", loss="auto", *, metrics="auto", **kwargs):
        super().compile(
            optimizer=keras.optimizers.Adam(0.05) if optimizer == "auto" else optimizer,
            loss=keras.losses.SparseCategoricalCrossentropy() if loss == "auto" else loss,
            metrics=[keras.metrics.SparseCategoricalAccuracy()] if metrics == "auto" else metrics,
            **kwargs,
        )

    def call(self, x):
        return self.dense(x)

    def _prepared(self, x):
        return x if self.preprocessor is None else self.preprocessor(x)

    def fit(self, x=None, y=None, validation_data=None, **kwargs):
        if validation_data is not None:
            validation_data = (self._prepared(validation_data[0]), *validation_data[1:])
        return super().fit(self._prepared(x), y, validation_data=validation_data, **kwargs)

    def evaluate(self, x=None, y=None, **kwargs):
        cached = kwargs.get("_use_cached_eval_dataset", False)
        return super().evaluate(x if cached else self._prepared(x), y, **kwargs)

    def predict(self, x, **kwargs):
        return super().predict(self._prepared(x), **kwargs)

    def predict_on_batch(self, x):
        return super().predict_on_batch(self._prepared(x))


def raw_data():
    x = np.random.default_rng(0).uniform(0, 200, size=(128, 2)).astype("float32")
    return x, (x[:, 0] > x[:, 1]).astype("int64")


def task(mean=100.0, seed=0, vocabulary=("a",), **options):
    keras.utils.set_random_seed(seed)
    model = Task(None if mean is None else Scaled(mean, vocabulary, **options))
    model.compile()
    model.fit(*raw_data(), epochs=2, verbose=0)
    return model


def test_a_task_prepares_its_inputs_and_h1_gets_what_it_needs():
    x, y = raw_data()
    h1 = task(seed=0, name="scaled_1")
    model = BCModel(task(seed=1), h1=h1, lambda_c=2.0)
    model.compile(metrics=["accuracy", BTC()])
    history = model.fit(x, y, validation_data=(x, y), epochs=3, verbose=0).history
    right = [each.predict(x, verbose=0).argmax(1) == y for each in (h1, model)]
    got = model.evaluate(x, y, verbose=0, return_dict=True)
    assert got["accuracy"] == history["val_accuracy"][-1] == pytest.approx(right[1].mean())
    assert got["btc"] == history["val_btc"][-1] == pytest.approx((right[0] & right[1]).sum() / right[0].sum())
    # A raw network as h1 gets what h2 has prepared.
    network = keras.Sequential([keras.Input((2,)), layers.Dense(2, activation="softmax")])
    by_network = BCModel(task(seed=1), h1=network)
    by_network.compile(metrics=[BTC()])
    right[0] = network.predict(Scaled(100.0)(x), verbose=0).argmax(1) == y
    right[1] = by_network.predict(x, verbose=0).argmax(1) == y
    expected = (right[0] & right[1]).sum() / right[0].sum()
    assert by_network.evaluate(x, y, verbose=0, return_dict=True)["btc"] == pytest.approx(expected)


def test_lambda_0_is_plain_fit_of_a_task():
    plain, wrapped = task(seed=1), BCModel(task(seed=1), h1=task(seed=0), lambda_c=0.0)
    for model in (plain, wrapped):
        keras.utils.set_random_seed(2)
        model.fit(*raw_data(), epochs=2, verbose=0)
    assert same_weights(plain, wrapped)


@pytest.mark.parametrize("other", [{"mean": 50.0}, {"vocabulary": ("b",)}])
@pytest.mark.parametrize("of_h2", ["task", "network"])
def test_an_h1_that_prepares_its_inputs_otherwise_is_refused_with_remedies_that_work(other, of_h2):
    x, y = raw_data()
    h1 = task(**other)

    def h2():
        if of_h2 == "task":
            return task(seed=1)
        keras.utils.set_random_seed(1)
        return compiled(keras.Sequential([keras.Input((2,)), layers.Dense(2, activation="softmax")]))

    with pytest.raises(TypeError, match="h1 has a predict of its own"):
        BCModel(h2(), h1=h1)
    stored = StoredOutputs.from_predictions(h1.predict(x, verbose=0))
    model = BCModel(h2(), h1=stored)
    model.compile(optimizer="sgd", loss=SPARSE, metrics=["accuracy", BTC()])
    model.fit(*stored.attach(x, y), verbose=0)
    right = [each.predict(x, verbose=0).argmax(1) == y for each in (h1, model)]
    got = model.evaluate(*stored.attach(x, y), verbose=0, return_dict=True)
    assert got["btc"] == pytest.approx((right[0] & right[1]).sum() / right[0].sum())
    told = BCModel(h2(), h1=lambda x: h1(x, training=False))
    told.compile(optimizer="sgd", loss=SPARSE, metrics=[BTC()])
    told.fit(x, y, verbose=0)
    # A task without a preprocessor takes prepared inputs as it is.
    BCModel(h2(), h1=task(mean=None))


@pytest.mark.parametrize("of_h2", ["task", "network"])
@pytest.mark.parametrize("of_h1", [{"mean": 50.0}, {"mean": 100.0}, {"mean": None}])
def test_a_comparison_asks_each_about_what_it_prepares_itself(of_h1, of_h2):
    x, y = raw_data()
    h1, h2 = task(**of_h1), task(seed=1)
    if of_h2 == "network":
        h2 = compiled(keras.Sequential([keras.Input((2,)), layers.Dense(2, activation="softmax")]))
    # One without a preprocessor gets what h2's layers get.
    given = x if of_h1["mean"] is not None or of_h2 == "network" else h2.preprocessor(x)
    right = [h1.predict(given, verbose=0).argmax(1) == y, h2.predict(x, verbose=0).argmax(1) == y]
    found = evaluate(h1, h2, (x, y)).comparison.overlap
    assert found.accuracy_h1 == pytest.approx(right[0].mean())
    assert found.btc == pytest.approx((right[0] & right[1]).sum() / right[0].sum())
    callback = CompatibilityCallback((x, y), h1=h1)
    h2.fit(x, y, callbacks=[callback], verbose=0)
    assert callback.comparison.overlap.accuracy_h1 == pytest.approx(right[0].mean())


class Opaque(Task):
    """One that does not say what it does to its inputs."""

    def __init__(self, **kwargs):
        super().__init__(None, **kwargs)
        del self.preprocessor

    def _prepared(self, x):
        return (np.asarray(x) - 50.0) / 50.0


def test_a_comparison_with_an_h1_that_prepares_who_knows_what_names_remedies_that_work():
    x, y = raw_data()
    h1, h2 = Opaque(), task(seed=1)
    right = h1.predict(x, verbose=0).argmax(1) == y
    callback = CompatibilityCallback((x, y), h1=h1)
    for refused in (lambda: h2.fit(x, y, callbacks=[callback], verbose=0), lambda: evaluate(h1, h2, (x, y))):
        with pytest.raises(TypeError, match=r"no preprocessor.*h1=h1\.predict\(x\)") as caught:
            refused()
        assert "BCModel" not in str(caught.value)
    callback = CompatibilityCallback((x, y), h1=h1.predict(x, verbose=0))
    h2.fit(x, y, callbacks=[callback], verbose=0)
    found = evaluate(h1.predict(x, verbose=0), h2, (x, y)).comparison
    assert found.overlap.accuracy_h1 == callback.comparison.overlap.accuracy_h1 == pytest.approx(right.mean())


def test_a_pipeline_that_does_not_evaluate_what_it_serves_is_refused():
    class Half(keras.Sequential):
        def fit(self, x=None, *args, **kwargs):
            return super().fit(x / 100, *args, **kwargs)

        def predict(self, x, **kwargs):
            return super().predict(x / 100, **kwargs)

    def with_evaluate(self, x=None, *args, _use_cached_eval_dataset=False, **kwargs):
        given = {"_use_cached_eval_dataset": True} if _use_cached_eval_dataset else {}
        return super(Half, self).evaluate(x if given else x / 100, *args, **given, **kwargs)

    x, y = raw_data()
    network = [keras.Input((2,)), layers.Dense(2, activation="softmax")]
    with pytest.raises(TypeError, match="Define evaluate in its class alike"):
        BCModel(Half(network), h1=net(0, classes=2, features=2))
    whole = type("Whole", (Half,), {"evaluate": with_evaluate})(network)
    model = compiled(BCModel(whole, h1=net(0, classes=2, features=2)))
    model.fit(x, y, verbose=0)
    accuracy = model.evaluate(x, y, verbose=0)[1]
    assert accuracy == pytest.approx((model.predict(x, verbose=0).argmax(1) == y).mean())
