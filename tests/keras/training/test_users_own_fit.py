"""A `fit` or `evaluate` of the user's own: whatever it names of its arguments, what watches and steers is there."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from backends import once

from bc_keras import BCModel

CLASSES = 3
GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(96, 4)).astype("float32")
Y = (X[:, :CLASSES] + 0.5 * GENERATOR.normal(size=(96, CLASSES))).argmax(1)
HELD_OUT = X[:64] + 0.1, Y[:64]


class Names(keras.Sequential):
    """As the tasks of KerasHub: what it does not prepare it passes on."""

    def fit(self, x=None, y=None, **kwargs):
        return super().fit(x, y, **kwargs)

    def evaluate(self, x=None, y=None, **kwargs):
        return super().evaluate(x, y, **kwargs)


class PassesOn(keras.Sequential):
    def fit(self, *args, **kwargs):
        return super().fit(*args, **kwargs)

    def evaluate(self, *args, **kwargs):
        return super().evaluate(*args, **kwargs)


class ReadsPositions(keras.Sequential):
    def fit(self, *args, **kwargs):
        x, y, *rest = args
        return super().fit(x, y, *rest, **kwargs)


class NamesFirst(keras.Sequential):
    def fit(self, data, *args, **kwargs):
        return super().fit(data, *args, **kwargs)


class TakesNoCallbacks(keras.Sequential):
    def fit(self, x, y, epochs=1):
        return super().fit(x, y, batch_size=16, epochs=epochs, verbose=0)


def net(kind: Any = keras.Sequential) -> Any:
    keras.utils.set_random_seed(0)
    return kind([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(CLASSES, "softmax")])


def wrapped(kind: Any, h1: Any = None, **options: Any) -> Any:
    model = BCModel(net(kind), h1=net() if h1 is None else h1, dissonance="imitation", **options)
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    return model


@pytest.mark.parametrize("kind", [Names, PassesOn, ReadsPositions, NamesFirst])
@once
def test_a_promise_is_kept_where_fit_is_the_users_own(kind):
    how: dict[str, Any] = {"batch_size": 16, "epochs": 2, "shuffle": False, "verbose": 0}
    logs = []
    for each in (keras.Sequential, kind):
        model = wrapped(each, promise="nfr <= 20%")
        logs.append(model.fit(X, Y, validation_data=HELD_OUT, **how).history)
        assert model.promise.overlap.total == 64
    assert logs[0].keys() == logs[1].keys()
    for name, values in logs[0].items():
        assert values == pytest.approx(logs[1][name]), name


@pytest.mark.parametrize("kind", [PassesOn, ReadsPositions])
@once
def test_arguments_by_position_are_those_of_keras(kind):
    model = wrapped(kind, promise="nfr <= 20%", promise_data=0.25)
    history = model.fit(X, Y, 12, 2, 0)
    assert (history.params["steps"], history.params["epochs"]) == (6, 2)
    assert model.promise.overlap.total == 24


@pytest.mark.parametrize("kind", [Names, PassesOn, NamesFirst])
def test_an_h1_that_gives_nan_is_refused_where_fit_is_the_users_own(kind):
    with pytest.raises(ValueError, match="h1 must give finite scores"):
        wrapped(kind, h1=lambda x: keras.ops.softmax(x[:, :CLASSES]) * np.nan).fit(X, Y, verbose=0)


@once
def test_a_fit_that_takes_no_callbacks_trains_as_ever_and_keeps_no_promise():
    plain, held = net(TakesNoCallbacks), wrapped(TakesNoCallbacks, lambda_c=0.0)
    plain.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    for model in (plain, held):
        keras.utils.set_random_seed(1)
        model.fit(X, Y, epochs=2)
    for one, other in zip(plain.get_weights(), held.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(TypeError, match=r"takes no callbacks.*let it take callbacks=None"):
        wrapped(TakesNoCallbacks, promise="nfr <= 20%", promise_data=HELD_OUT).fit(X, Y)
