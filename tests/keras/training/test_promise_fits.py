"""Several fits of one model that is held to a promise: what goes on, and what begins anew."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from backends import once

from bc_core.promise._keeper import Keeper
from bc_keras import BCModel, CompatibilityCallback, NegativeFlipRate, evaluate

# Whether small nets on little data keep theirs is not what is asked here.
pytestmark = pytest.mark.filterwarnings("ignore:Promise .* missed")
PROMISE = {"promise": "nfr <= 30%"}


def data(rows: int, seed: int, noise: float = 0.5) -> Any:
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(rows, 4)).astype("float32")
    return x, (x[:, :3] + noise * draw.normal(size=(rows, 3))).argmax(1)


TRAIN, HELD_OUT, HARD = data(96, 0), data(200, 1), data(160, 2, noise=3.0)


def old() -> Any:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
    model.set_weights([2 * np.eye(4, 3), np.zeros(3)])
    return model


def compiled(model: Any, rate: float = 0.1) -> Any:
    metrics = [keras.metrics.SparseCategoricalAccuracy(name="accuracy"), NegativeFlipRate()]
    model.compile(keras.optimizers.SGD(rate), "sparse_categorical_crossentropy", metrics=metrics)
    return model


def wrapped(**options: Any) -> Any:
    keras.utils.set_random_seed(0)
    h2 = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(3, "softmax")])
    return compiled(BCModel(h2, h1=old(), dissonance="imitation", **options))


def fit(model: Any, held_out: Any = None, epochs: int = 1, **more: Any) -> Any:
    how: dict[str, Any] = {"batch_size": 16, "epochs": epochs, "shuffle": False, "verbose": 0, **more}
    return model.fit(*TRAIN, validation_data=held_out, **how).history


@once
def test_the_verdict_is_of_the_held_out_data_of_the_last_fit():
    """On which h2 is less accurate than it was on those of before."""
    model = wrapped(**PROMISE)
    fit(model, HELD_OUT)
    fit(model, HARD)
    found = evaluate(old(), model, HARD).comparison.overlap
    assert model.promise.overlap.total == len(HARD[1])
    # As it began, and after its epoch.
    assert model.promise.looks == 2
    assert (model.promise.value, model.promise.overlap.accuracy_h2) == (found.nfr, found.accuracy_h2)


@once
def test_a_callback_that_is_used_again_compares_anew():
    callback = CompatibilityCallback(HELD_OUT, **PROMISE)
    for rate in (0.5, 50.0):
        model = compiled(wrapped(), rate)
        fit(model, callbacks=[callback], epochs=1)
    assert callback.promise.value == evaluate(old(), model, HELD_OUT).comparison.overlap.nfr


@once
def test_a_second_fit_that_only_spoils_ends_with_what_the_first_has_left():
    model = wrapped(**PROMISE)
    fit(model, HELD_OUT, epochs=3)
    before = model.get_weights()
    fit(compiled(model, rate=50.0), HELD_OUT, epochs=3)
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)
    assert model.promise.value == evaluate(old(), model, HELD_OUT).comparison.overlap.nfr


@once
def test_a_compile_in_between_leaves_no_epoch_without_a_look():
    """It counts its steps from the first again."""
    model = wrapped(**PROMISE, promise_options={"keep": "last"})
    fit(model, HELD_OUT)
    logs = fit(compiled(model), HELD_OUT)
    assert logs["promise_nfr"] == pytest.approx(logs["val_nfr"], rel=1e-6)


@pytest.mark.parametrize("again", [True, False])
@once
def test_looks_after_so_many_steps_go_on_after_a_compile(monkeypatch, again):
    looks: list[int] = []
    whole = Keeper.look

    def look(self, overlap, steps, *more):
        looks.append(steps)
        return whole(self, overlap, steps, *more)

    monkeypatch.setattr(Keeper, "look", look)
    model = wrapped(**PROMISE, promise_data=HELD_OUT, promise_options={"every": 2})
    fit(model, epochs=2)
    assert looks == [2, 4, 6, 8, 10, 12]
    looks.clear()
    fit(compiled(model) if again else model)
    assert looks == ([2, 4, 6] if again else [14, 16, 18])


@once
def test_held_out_data_that_come_later_are_refused_too():
    model = wrapped(**PROMISE)
    fit(model, HELD_OUT)
    wrong = (old().predict(HELD_OUT[0], verbose=0).argmax(1) + 1) % 3
    with pytest.raises(ValueError, match="h1 is right on none of the 200"):
        fit(model, (HELD_OUT[0], wrong))
