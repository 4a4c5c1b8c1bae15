"""h1 beside the model: never trained, asked once, in whichever form, and what it was afterwards."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops
from user_models import data, net
from wrapped_models import SPARSE, fitted, right, sgd, weights

from bc_core import compare
from bc_keras import (
    BEC,
    BTC,
    BCModel,
    ErrorOverlapMetric,
    NegativeFlipRate,
    StoredOutputs,
)

BACKEND = keras.backend.backend()


# h1 is a reference


@pytest.mark.parametrize("kind", ["dict", "list"])
def test_losses_and_metrics_by_the_name_of_the_output(kind):
    x, y = data(32)
    sequential = net(1)
    h2 = keras.Model(sequential.inputs, sequential.outputs)
    losses, metrics = {h2.output_names[0]: SPARSE}, {h2.output_names[0]: [BTC(), "accuracy"]}
    if kind == "list":
        losses, metrics = [SPARSE], [[BTC(), "accuracy"]]
    plain = BCModel(h2, h1=net(0))
    plain.compile(sgd(), loss=SPARSE, metrics=[BTC(), "accuracy"])
    named = BCModel(h2, h1=net(0))
    named.compile(sgd(), loss=losses, metrics=metrics)
    assert named.evaluate(x, y, verbose=0) == plain.evaluate(x, y, verbose=0)


def test_timesteps_that_are_masked_do_not_count():
    def tagger(seed):
        keras.utils.set_random_seed(seed)
        return keras.Sequential(
            [
                keras.Input((7,), dtype="int32"),
                keras.layers.Embedding(20, 8, mask_zero=True),
                keras.layers.LSTM(6, return_sequences=True),
                keras.layers.Dense(3, "softmax"),
            ]
        )

    random = np.random.default_rng(0)
    tokens, y = random.integers(0, 4, (64, 7)), random.integers(0, 3, (64, 7))
    for dissonance in ("new_error", "strict_imitation"):
        model = BCModel(tagger(1), h1=tagger(0), dissonance=dissonance)
        model.compile(sgd(), loss=SPARSE, metrics=[BTC()])
        got = model.evaluate(tokens, y, batch_size=64, verbose=0, return_dict=True)
        p1, p2 = (each.predict(tokens, verbose=0).astype(float) for each in (model.h1, model.h2))
        seen, good = tokens != 0, p1.argmax(-1) == y
        new_error = -np.log(np.take_along_axis(p2, y[..., None], -1)[..., 0])
        each = new_error if dissonance == "new_error" else -(p1 * np.log(p2)).sum(-1)
        assert got["dissonance"] == pytest.approx((good * each * seen).sum() / seen.sum(), rel=1e-5)
        assert got["btc"] == pytest.approx((good & (p2.argmax(-1) == y))[seen].sum() / good[seen].sum(), abs=1e-6)


@pytest.mark.parametrize("kind", ["dict", "list"])
def test_several_inputs(kind):
    x, y = data(96)
    inputs = {"a": x[:, :3], "b": x[:, 3:]} if kind == "dict" else [x[:, :3], x[:, 3:]]

    def two_inputs(seed):
        keras.utils.set_random_seed(seed)
        a, b = keras.Input((3,), name="a"), keras.Input((1,), name="b")
        output = keras.layers.Dense(3, "softmax")(keras.layers.Concatenate()([a, b]))
        return keras.Model({"a": a, "b": b} if kind == "dict" else [a, b], output)

    model = BCModel(two_inputs(1), h1=two_inputs(0), lambda_c=2.0)
    model.compile(sgd(), loss=SPARSE, metrics=[BTC()])
    losses = model.fit(inputs, y, epochs=5, validation_split=0.25, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    overlap = compare(
        y, model.h1.predict(inputs, verbose=0).argmax(1), model.predict(inputs, verbose=0).argmax(1)
    ).overlap
    assert model.evaluate(inputs, y, verbose=0, return_dict=True)["btc"] == pytest.approx(overlap.btc)


def test_h1_never_changes_whatever_trainable_says():
    keras.utils.set_random_seed(0)
    h1 = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3, "softmax"),
        ]
    )
    before = [array.copy() for array in h1.get_weights()]
    h1.trainable = True
    model = BCModel(net(1), h1=h1, lambda_c=2.0)
    model.trainable = True
    assert {id(v) for v in model.trainable_variables} == {id(v) for v in model.h2.trainable_variables}
    model.compile(keras.optimizers.AdamW(0.1, weight_decay=0.1), loss=SPARSE, metrics=[BTC()])
    x, y = data()
    first = model.fit(x, y, verbose=0).history["btc"]
    h1.trainable = True
    model.compile(keras.optimizers.AdamW(0.1, weight_decay=0.1), loss=SPARSE, metrics=[BTC()])
    model.fit(x, y, verbose=0)
    for old, new in zip(before, h1.get_weights(), strict=True):
        assert (old == new).all()
    assert len(model.optimizer.variables) < 2 + 3 * len(model.h2.weights)
    assert np.isfinite(first).all()
    model.trainable = False
    assert model.trainable_variables == []
    assert h1.trainable


def test_each_model_runs_once_per_step():
    class Counting(keras.layers.Layer):
        calls = 0

        def call(self, inputs):
            type(self).calls += 1
            return inputs

    class CountingH1(Counting):
        calls = 0

    class CountingH2(Counting):
        calls = 0

    def counted(counter, seed):
        keras.utils.set_random_seed(seed)
        return keras.Sequential([keras.Input((4,)), counter(), keras.layers.Dense(3, "softmax")])

    x, y = data(96)
    model = BCModel(counted(CountingH2, 1), h1=counted(CountingH1, 0), lambda_c=2.0, dissonance="strict_imitation")
    model.compile(sgd(), loss=SPARSE, metrics=["accuracy", BTC(), BEC(), NegativeFlipRate()], run_eagerly=True)
    model.train_on_batch(x[:32], y[:32])
    CountingH1.calls = CountingH2.calls = 0
    for start in (0, 32, 64):
        model.train_on_batch(x[start : start + 32], y[start : start + 32])
    assert CountingH1.calls == CountingH2.calls == 3
    # fit asks h1 once more, about the first batch, to look at what it gives.
    CountingH1.calls = CountingH2.calls = 0
    model.fit(x, y, batch_size=32, verbose=0)
    assert (CountingH1.calls, CountingH2.calls) == (4, 3)


@pytest.mark.parametrize("kind", ["subclassed", "functional"])
def test_any_kind_of_h2(kind):
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden = keras.layers.Dense(8, activation="relu")
            self.dropout = keras.layers.Dropout(0.5)
            self.out = keras.layers.Dense(3, activation="softmax")

        def call(self, inputs, training=False):
            return self.out(self.dropout(self.hidden(inputs), training=training))

    keras.utils.set_random_seed(1)
    if kind == "subclassed":
        h2 = Subclassed()
    else:
        inputs = keras.Input((4,))
        h2 = keras.Model(inputs, keras.layers.Dense(3, "softmax")(keras.layers.Dropout(0.5)(inputs)))
    model, history = fitted(net(0), h2=h2, epochs=20, compiled={"metrics": ["accuracy", BTC()]})
    assert history.history["loss"][-1] < history.history["loss"][0]
    x, _ = data()
    assert (model.predict(x, verbose=0) == h2.predict(x, verbose=0)).all()
    # Dropout was at work in training, and not in prediction.
    assert not np.allclose(ops.convert_to_numpy(model(x, training=True)), model.predict(x, verbose=0))


@pytest.mark.parametrize("options", [{"run_eagerly": True}, {"steps_per_execution": 2}, {"jit_compile": True}])
def test_ways_of_running_agree(options):
    if BACKEND == "torch" and "steps_per_execution" in options:
        pytest.skip("Keras has no steps_per_execution on torch")
    if BACKEND == "torch" and "jit_compile" in options:
        pytest.skip("torch compiles with inductor, which is tested once, below")
    compiled = {"metrics": ["accuracy", BTC(), BEC(given="h2_wrong")]}
    plain, expected = fitted(net(0), compiled=compiled)
    model, history = fitted(net(0), compiled={**compiled, **options})
    np.testing.assert_allclose(weights(model.h2), weights(plain.h2), rtol=0, atol=1e-6)
    for name, values in expected.history.items():
        assert history.history[name] == pytest.approx(values, abs=1e-5), name


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "torch", reason="inductor is torch's compiler")
def test_torch_compiles_the_step():
    plain, _ = fitted(net(0), compiled={"metrics": [BTC()]})
    model, _ = fitted(net(0), compiled={"metrics": [BTC()], "jit_compile": True})
    np.testing.assert_allclose(weights(model.h2), weights(plain.h2), rtol=0, atol=1e-6)


def test_mixed_precision():
    policy = keras.dtype_policies.DTypePolicy("mixed_bfloat16")

    def half(seed):
        keras.utils.set_random_seed(seed)
        return keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(8, "relu", dtype=policy),
                keras.layers.Dense(3, "softmax", dtype="float32"),
            ]
        )

    model, history = fitted(net(0), h2=half(1), epochs=15, compiled={"metrics": [BTC()]})
    assert history.history["loss"][-1] < history.history["loss"][0]
    keras.config.set_dtype_policy("mixed_float16")
    try:
        h2 = net(1)
        model = BCModel(h2, h1=net(0), lambda_c=2.0, dissonance="strict_imitation")
        model.compile("adam", loss=SPARSE, metrics=[BTC()])
        assert type(model.optimizer).__name__ == "LossScaleOptimizer"
        x, y = data()
        losses = model.fit(x, y, epochs=15, verbose=0).history["loss"]
        assert losses[-1] < losses[0]
    finally:
        keras.config.set_dtype_policy("float32")


# h1 stays what it was


def test_no_gradient_reaches_h2_through_h1():
    """An h1 that is computed from h2 is a constant all the same."""
    x, y = data(32)
    results = []
    for live in (True, False):
        h2 = net(1)
        h1 = (lambda inputs, h2=h2: h2(inputs, training=False)) if live else StoredOutputs.compute(h2, x, y)
        model = BCModel(h2, h1=h1, lambda_c=5.0, dissonance="imitation")
        model.compile(sgd(), loss=SPARSE)
        model.fit(*((x, y) if live else h1.attach(x, y)), batch_size=32, verbose=0)
        results.append(weights(h2))
    np.testing.assert_allclose(results[0], results[1], rtol=0, atol=1e-6)


def test_h1_runs_in_inference_mode_even_if_it_says_otherwise():
    class Trains(keras.layers.Layer):
        def call(self, inputs, training=True):
            return ops.flip(inputs, -1) if training else inputs

    x, y = data(32)
    sure = keras.Sequential([*net(0).layers, Trains()])
    sure.build((None, 4))
    model = BCModel(net(1), h1=sure)
    model.compile(sgd(), loss=SPARSE, metrics=[ErrorOverlapMetric()])
    got = model.evaluate(x, y, verbose=0, return_dict=True)
    assert got["both_right"] + got["h1_only_right"] == right(net(0), x, y).sum()


def test_h1_and_h2_stay_who_they_are():
    model = BCModel(net(1), h1=net(0))
    with pytest.raises(AttributeError, match="wrap anew"):
        model.h1 = net(5)
    again = BCModel(model, h1=net(5), lambda_c=0.5)
    assert again is model
    assert model.lambda_c == 0.5
    with pytest.raises(ValueError, match=">= 0"):
        BCModel(model, h1=net(5), lambda_c=-1.0)
    assert isinstance(model, BCModel)
    assert model.lambda_c == 0.5


def test_another_compile_reads_outputs_anew():
    x, y = data(32)
    h1, h2 = net(0, activation=None), net(1, activation=None)
    model = BCModel(h2, h1=h1, dissonance="strict_imitation", from_logits=None)
    model.compile(sgd(), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    expected = model.evaluate(x, y, verbose=0, return_dict=True)
    model.compile(sgd(), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum"))
    assert model.evaluate(x, y, verbose=0, return_dict=True)["dissonance"] == pytest.approx(
        32 * expected["dissonance"], rel=1e-5
    )
