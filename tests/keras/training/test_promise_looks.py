"""A look at held-out data is what `fit` has validated on them, where that shows the same."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from backends import once

from bc_keras import BCModel, evaluate
from bc_keras.training._promise_looks import PromiseLooks

pytestmark = pytest.mark.filterwarnings("ignore:Promise .* missed")
PROMISE = {"promise": "nfr <= 20%", "promise_options": {"confidence": 0.9, "average": False, "keep": "last"}}


def data(rows, seed):
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(rows, 4)).astype("float32")
    return x, (x[:, :3] + 0.5 * draw.normal(size=(rows, 3))).argmax(1)


TRAIN, HELD_OUT, OTHER = data(96, 0), data(200, 1), data(200, 2)
WEIGHTS = np.linspace(0, 2, 200)


def old():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
    model.set_weights([2 * np.eye(4, 3), np.zeros(3)])
    return model


def trained(compiled=None, optimizer=None, callbacks=(), promise_data=None, options=PROMISE, **more):
    keras.utils.set_random_seed(0)
    layers = keras.layers.Dense(8), keras.layers.BatchNormalization(), keras.layers.Dense(3, "softmax")
    model = BCModel(keras.Sequential([keras.Input((4,)), *layers]), h1=old(), promise_data=promise_data, **options)
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=more.pop("ignore_class", None))
    model.compile(optimizer or keras.optimizers.SGD(0.3), loss, **(compiled or {}))
    given = {"batch_size": 16, "epochs": 4, "shuffle": False, "verbose": 0, "callbacks": list(callbacks)} | more
    return model, model.fit(*TRAIN, **given).history


@pytest.fixture
def passes(monkeypatch):
    """How often held-out data were read for a look alone."""
    count, found = PromiseLooks._count, []

    def counted(self):
        found.append(None)
        return count(self)

    monkeypatch.setattr(PromiseLooks, "_count", counted)
    return found


def marked():
    target = HELD_OUT[1].copy()
    target[::7] = -1
    return HELD_OUT[0], target


class Nudge(keras.callbacks.Callback):
    """Other weights after the validation than before."""

    def on_test_end(self, logs=None):
        self.model.set_weights([weight + 0.05 for weight in self.model.get_weights()])


# How `fit` is called, and how often held-out data are read besides: once before the first of four epochs, at least.
WAYS = {
    "as it is": ({}, 1),
    "jit": ({"compiled": {"jit_compile": True}}, 1),
    "no jit": ({"compiled": {"jit_compile": False}}, 1),
    "eager": ({"compiled": {"run_eagerly": True}}, 1),
    "a last batch that is smaller": ({"validation_batch_size": 64}, 1),
    "weights of instances": ({"validation_data": (*HELD_OUT, WEIGHTS)}, 1),
    "labels to ignore": ({"validation_data": marked(), "ignore_class": -1}, 1),
    "the first batches alone": ({"validation_steps": 2}, 5),
    "every second epoch": ({"validation_freq": 2}, 3),
    "other rows": ({"validation_data": OTHER, "promise_data": HELD_OUT}, 5),
    "averages of the optimizer": ({"use_ema": True}, 5),
    "weights that a callback changes": ({"callbacks": [Nudge]}, 5),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_look_shows_what_a_pass_of_its_own_does(way, passes):
    given, wanted = WAYS[way]
    # torch compiles a step for minutes; on the others an eager one is slow, and the code that it runs is torch's too.
    if way == ("jit" if keras.backend.backend() == "torch" else "eager"):
        pytest.skip("slow")
    given = {"validation_data": HELD_OUT} | given

    def run(**changed):
        now = given | changed
        now["callbacks"] = [each() for each in now.pop("callbacks", [])]
        ema = {"use_ema": now.pop("use_ema", False)}
        return trained(optimizer=keras.optimizers.SGD(0.3, **ema, ema_momentum=0.5), **now)

    model, logs = run()
    assert len(passes) == wanted
    held_out = given.get("promise_data") or given["validation_data"][:2]
    other, others = run(promise_data=tuple(np.array(part) for part in held_out))
    assert logs["promise_nfr"] == others["promise_nfr"]
    assert logs["lambda_c"] == others["lambda_c"]
    for first, second in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)
    if way not in ("labels to ignore", "weights that a callback changes"):
        assert model.promise.value == evaluate(old(), model, held_out).comparison.overlap.nfr


@once
def test_the_mean_of_weights_is_looked_at_besides(passes):
    options = PROMISE | {"promise_options": {"confidence": 0.9}}
    model, _ = trained(validation_data=HELD_OUT, options=options)
    assert len(passes) == 2  # before the first epoch, and the mean after the fourth
    assert model.promise.value == evaluate(old(), model, HELD_OUT).comparison.overlap.nfr
