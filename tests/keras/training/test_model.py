"""BCModel: what is trained, what is never trained, and that everything of Keras keeps working."""

from __future__ import annotations

import functools
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops
from user_models import data, net

import bc_keras
from bc_core import ClassMap, compare
from bc_keras import (
    BEC,
    BTC,
    BCModel,
    BCNewErrorCompatibilityModel,
    CompatibilityCallback,
    CompatibilityLoss,
    ErrorOverlapMetric,
    NegativeFlipImpact,
    NegativeFlipRate,
    PositiveFlipRate,
    StoredOutputs,
    store_outputs,
)

BACKEND = keras.backend.backend()
SPARSE = "sparse_categorical_crossentropy"


def sgd():
    return keras.optimizers.SGD(0.5)


def fitted(h1, lambda_c=2.0, base=SPARSE, epochs=2, compiled=None, seed=1, h2=None, fit=None, **options):
    """A BCModel after training on the same batches in the same order each time."""
    x, y = data()
    model = BCModel(net(seed) if h2 is None else h2, h1=h1, lambda_c=lambda_c, **options)
    model.compile(sgd(), loss=base, **(compiled or {}))
    history = model.fit(x, y, batch_size=32, epochs=epochs, shuffle=False, verbose=0, **(fit or {}))
    return model, history


def weights(model):
    return np.concatenate([array.ravel() for array in model.get_weights()])


def right(model, x, y):
    return model.predict(x, verbose=0).argmax(1) == y


# What is trained


@pytest.mark.parametrize("loss", [SPARSE, keras.losses.SparseCategoricalCrossentropy()])
def test_lambda_0_is_plain_fit_to_the_bit(loss):
    x, y = data()
    plain = net(1)
    plain.compile(sgd(), loss=loss)
    plain.fit(x, y, batch_size=32, epochs=2, shuffle=False, verbose=0)
    for options in ({}, {"dissonance": "strict_imitation"}, {"loss": "BCKLDivergenceLoss"}):
        model, _ = fitted(net(0), 0.0, base=loss, **options)
        assert (weights(model.h2) == weights(plain)).all(), options


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
def test_new_error_is_a_sample_weight(reduction):
    x, y = data()
    h1 = net(0)
    loss = {"loss": keras.losses.SparseCategoricalCrossentropy(reduction=reduction)}
    optimizer = 0.01 if reduction == "sum" else 0.5
    plain = net(1)
    plain.compile(keras.optimizers.SGD(optimizer), **loss)
    weight = 1 + 2.0 * right(h1, x, y)
    if reduction == "mean_with_sample_weight":
        # Divided by the instances of a batch: undo Keras's division by the weights, batch by batch.
        losses = [weight[i : i + 32].sum() / 32 for i in (0, 32, 64)]
        for i, scale in zip((0, 32, 64), losses, strict=True):
            plain.optimizer.learning_rate = optimizer * scale
            plain.fit(x[i : i + 32], y[i : i + 32], sample_weight=weight[i : i + 32], verbose=0)
        epochs = 1
    else:
        plain.fit(x, y, sample_weight=weight, batch_size=32, epochs=2, shuffle=False, verbose=0)
        epochs = 2
    model = BCModel(net(1), h1=h1, lambda_c=2.0)
    model.compile(keras.optimizers.SGD(optimizer), **loss)
    model.fit(x, y, batch_size=32, epochs=epochs, shuffle=False, verbose=0)
    # The sums over a batch are taken in another order.
    np.testing.assert_allclose(weights(model.h2), weights(plain), rtol=0, atol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("dissonance", ["new_error", "strict_imitation", "imitation"])
@pytest.mark.parametrize("normalization", ["batch", "support"])
def test_logged_loss_is_base_plus_lambda_times_dissonance(dissonance, normalization, jit_compile):
    if jit_compile and BACKEND == "torch":
        pytest.skip("torch compiles with inductor, which is tested once, below")
    x, y = data(32)
    h1, h2 = net(0), net(1)
    p1, p2 = h1.predict(x, verbose=0), h2.predict(x, verbose=0)
    model, history = None, None
    model = BCModel(h2, h1=h1, lambda_c=3.0, dissonance=dissonance, normalization=normalization)
    model.compile(sgd(), loss=SPARSE, jit_compile=jit_compile)
    history = model.fit(x, y, batch_size=32, epochs=1, verbose=0).history
    # In float64 by numpy, from the definition.
    p1, p2 = p1.astype(float), p2.astype(float)
    base = -np.log(p2[np.arange(32), y])
    support = np.ones(32) if dissonance == "imitation" else p1.argmax(1) == y
    each = base if dissonance == "new_error" else -(p1 * np.log(p2)).sum(1)
    expected = (support * each).sum() / (32 if normalization == "batch" else support.sum())
    assert history["base_loss"][0] == pytest.approx(base.mean(), rel=1e-5)
    assert history["dissonance"][0] == pytest.approx(expected, rel=1e-5)
    assert history["loss"][0] == pytest.approx(base.mean() + 3 * expected, rel=1e-5)


@pytest.mark.parametrize("name", ["BCNLLLoss", "StrictImitationCrossEntropyLoss", "StrictImitationKLDivergenceLoss"])
def test_a_named_loss_gives_base_and_dissonance(name):
    x, y = data(32)
    h1, h2 = net(0), net(1)
    criterion = getattr(bc_keras, name).on_outputs(2.0)
    expected = float(criterion(h2.predict(x, verbose=0), y, h1.predict(x, verbose=0)))
    for loss in (None, SPARSE):
        model = BCModel(net(1), h1=h1, lambda_c=2.0, loss=name)
        model.compile(sgd(), loss=loss)
        assert model.evaluate(x, y, verbose=0, return_dict=True)["loss"] == pytest.approx(expected, rel=1e-5)


def test_logits_are_read_from_the_compiled_loss():
    x, y = data(32)
    losses = {}
    for logits in (False, True):
        activation = None if logits else "softmax"
        model = BCModel(net(1, activation=activation), h1=net(0, activation=activation), dissonance="strict_imitation")
        model.compile(sgd(), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=logits))
        losses[logits] = model.evaluate(x, y, verbose=0, return_dict=True)
    assert losses[True] == pytest.approx(losses[False], rel=1e-5)

    model = BCModel(net(1, activation=None), h1=net(0), dissonance="strict_imitation")

    def my_own(y_true, y_pred):
        return keras.losses.sparse_categorical_crossentropy(y_true, y_pred)

    model.compile(sgd(), loss=my_own)
    with pytest.raises(ValueError, match="from_logits=True or False"):
        model.evaluate(x, y, verbose=0)


def test_label_smoothing_of_the_compiled_loss_is_part_of_new_error():
    x, y = data(32)
    smoothed = keras.losses.CategoricalCrossentropy(label_smoothing=0.3)
    h1, h2 = net(0), net(1)
    model = BCModel(h2, h1=h1, lambda_c=2.0)
    model.compile(sgd(), loss=smoothed)
    onehot = np.eye(3)[y].astype("float32")
    expected = smoothed(onehot, h2.predict(x, verbose=0), sample_weight=1 + 2.0 * right(h1, x, y))
    assert model.evaluate(x, onehot, verbose=0, return_dict=True)["loss"] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("shape", ["flat", "column"])
@pytest.mark.parametrize("dissonance", ["new_error", "strict_imitation"])
def test_binary_models(dissonance, shape):
    x, y = data(32, classes=2)
    h1, h2 = net(0, 1, "sigmoid"), net(1, 1, "sigmoid")
    s1, s2 = (model.predict(x, verbose=0)[:, 0].astype(float) for model in (h1, h2))
    model = BCModel(h2, h1=h1, lambda_c=2.0, dissonance=dissonance)
    model.compile(sgd(), loss="binary_crossentropy", metrics=[BTC()])
    got = model.evaluate(x, y if shape == "flat" else y[:, None], verbose=0, return_dict=True)
    bce = lambda t: -(t * np.log(s2) + (1 - t) * np.log(1 - s2))  # noqa: E731
    support = (s1 >= 0.5) == y
    assert got["dissonance"] == pytest.approx(np.mean(support * bce(y if dissonance == "new_error" else s1)), rel=1e-5)
    assert got["btc"] == pytest.approx(compare(y, s1 >= 0.5, s2 >= 0.5).overlap.btc)


def test_multilabel_models_are_right_label_by_label():
    x, _ = data(32)
    y = (np.random.default_rng(1).random((32, 3)) < 0.5).astype("float32")
    h1, h2 = net(0, 3, "sigmoid"), net(1, 3, "sigmoid")
    s1, s2 = (model.predict(x, verbose=0).astype(float) for model in (h1, h2))
    model = BCModel(h2, h1=h1, lambda_c=2.0)
    model.compile(sgd(), loss="binary_crossentropy", metrics=[BTC()])
    got = model.evaluate(x, y, verbose=0, return_dict=True)
    support = (s1 >= 0.5) == y
    bce = -(y * np.log(s2) + (1 - y) * np.log(1 - s2))
    assert got["dissonance"] == pytest.approx(np.mean(support * bce), rel=1e-5)
    overlap = compare(y.ravel().astype(int), (s1 >= 0.5).ravel(), (s2 >= 0.5).ravel()).overlap
    assert got["btc"] == pytest.approx(overlap.btc)


def test_sample_and_class_weights_weigh_both_halves():
    x, y = data(32)
    h1, h2 = net(0), net(1)
    model = BCModel(h2, h1=h1, lambda_c=2.0)
    model.compile(sgd(), loss=SPARSE, metrics=[NegativeFlipRate(name="plain")], weighted_metrics=[NegativeFlipRate()])
    weight = np.random.default_rng(0).random(32).astype("float32")
    got = model.evaluate(x, y, sample_weight=weight, batch_size=20, verbose=0, return_dict=True)
    p2 = h2.predict(x, verbose=0)
    base = -np.log(p2[np.arange(32), y])
    good = right(h1, x, y)
    # Keras averages the loss over batches by their sizes, and each over its instances.
    assert got["dissonance"] == pytest.approx(np.mean(weight * good * base), rel=1e-5)
    flips = good & (p2.argmax(1) != y)
    assert got["plain"] == pytest.approx(flips.mean())
    assert got["nfr"] == pytest.approx((weight * flips).sum() / weight.sum(), rel=1e-6)

    by_class = BCModel(net(1), h1=h1, lambda_c=2.0)
    by_class.compile(sgd(), loss=SPARSE)
    by_class.fit(x, y, class_weight={0: 1.0, 1: 3.0, 2: 0.5}, batch_size=32, verbose=0)
    by_sample = BCModel(net(1), h1=h1, lambda_c=2.0)
    by_sample.compile(sgd(), loss=SPARSE)
    by_sample.fit(x, y, sample_weight=np.array([1.0, 3.0, 0.5])[y], batch_size=32, verbose=0)
    assert (weights(by_class.h2) == weights(by_sample.h2)).all()


def test_regularisation_is_h2s_alone():
    def regularised(seed):
        keras.utils.set_random_seed(seed)
        return keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(3, "softmax", kernel_regularizer="l2", activity_regularizer="l2"),
            ]
        )

    x, y = data(32)
    plain = regularised(1)
    plain.compile(sgd(), loss=SPARSE)
    model = BCModel(regularised(1), h1=regularised(0), lambda_c=0.0)
    model.compile(sgd(), loss=SPARSE)
    for _ in range(2):
        expected = plain.fit(x, y, batch_size=16, shuffle=False, verbose=0).history["loss"]
        history = model.fit(x, y, batch_size=16, shuffle=False, verbose=0).history
        assert history["loss"] == pytest.approx(expected, rel=1e-6)
        assert history["base_loss"] == pytest.approx(expected, rel=1e-6)


def test_class_map_relates_an_h1_with_other_classes():
    x, y = data(32)
    h1, h2 = net(0, classes=2), net(1)
    p1, p2 = h1.predict(x, verbose=0).astype(float), h2.predict(x, verbose=0)
    # h1 knew the classes 2 and 0.
    mapped = np.stack([p1[:, 1], np.zeros(32), p1[:, 0]], axis=1)
    for dissonance in ("new_error", "strict_imitation"):
        model = BCModel(h2, h1=h1, lambda_c=2.0, dissonance=dissonance, class_map=ClassMap([2, 0], new=[1]))
        model.compile(sgd(), loss=SPARSE, metrics=[BTC()])
        got = model.evaluate(x, y, verbose=0, return_dict=True)
        assert got["btc"] == pytest.approx(compare(y, mapped.argmax(1), p2.argmax(1)).overlap.btc)
        expected = CompatibilityLoss(dissonance=dissonance, lambda_c=2.0)(p2, y, mapped.astype("float32"))
        assert got["loss"] == pytest.approx(float(expected), rel=1e-5)
    model = BCModel(h2, h1=h1)
    model.compile(sgd(), loss=SPARSE)
    with pytest.raises(ValueError, match="class_map"):
        model.evaluate(x, y, verbose=0)


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


# Metrics


def test_every_metric_equals_the_scores_of_the_predictions():
    x, y = data(90)
    h1, h2 = net(0), net(1)
    overlap = compare(y, h1.predict(x, verbose=0).argmax(1), h2.predict(x, verbose=0).argmax(1)).overlap
    metrics = [BTC(), BEC(), BEC(given="h2_wrong"), NegativeFlipRate(), PositiveFlipRate(), NegativeFlipImpact()]
    model = BCModel(h2, h1=h1)
    model.compile(sgd(), loss=SPARSE, metrics=["accuracy", *metrics, ErrorOverlapMetric()])
    got = model.evaluate(x, y, batch_size=32, verbose=0, return_dict=True)  # 32 + 32 + 26
    for name in ("btc", "bec_given_h1_wrong", "bec_given_h2_wrong", "nfr", "pfr", "nfi"):
        assert got[name] == pytest.approx(overlap.score(name), abs=1e-6), name
    assert got["accuracy"] == pytest.approx(overlap.score("accuracy_h2"), abs=1e-6)
    assert (got["h1_only_right"], got["both_wrong"]) == (overlap.h1_only_right, overlap.both_wrong)


def test_monitors_know_the_direction():
    x, y = data()
    stop = keras.callbacks.EarlyStopping(monitor="val_btc", patience=1)
    fitted(net(0), compiled={"metrics": [BTC()]}, fit={"validation_data": (x, y), "callbacks": [stop]})
    assert stop.best is not None


# Data that carry h1's outputs


def test_stored_outputs_train_as_the_live_h1():
    x, y = data()
    h1 = net(0)
    stored = StoredOutputs.compute(h1, x, y)
    for options in ({}, {"dissonance": "strict_imitation"}):
        live, expected = fitted(h1, compiled={"metrics": ["accuracy", BTC()]}, **options)
        model = BCModel(net(1), h1=stored, lambda_c=2.0, **options)
        model.compile(sgd(), loss=SPARSE, metrics=["accuracy", BTC()])
        history = model.fit(*stored.attach(x, y), batch_size=32, epochs=2, shuffle=False, verbose=0)
        np.testing.assert_allclose(weights(model.h2), weights(live.h2), rtol=0, atol=1e-6)
        for name, values in expected.history.items():
            assert history.history[name] == pytest.approx(values, abs=1e-5), name
    for wrong in ({"x": x, "y": y}, {"x": x, "y": stored.attach(x, y)[1], "validation_data": (x, y)}):
        with pytest.raises(ValueError, match=r"h1\.attach\(x, y\)"):
            model.fit(**wrong, verbose=0)
    live = BCModel(net(1), h1=h1)
    live.compile(sgd(), loss=SPARSE)
    with pytest.raises(ValueError, match="takes the plain label"):
        live.fit(*stored.attach(x, y), verbose=0)
    with pytest.raises(ValueError, match="class_weight"):
        model.fit(*stored.attach(x, y), class_weight={0: 1.0}, verbose=0)


# Saving


def test_the_whole_is_saved_and_h2_alone_is_plain_keras(tmp_path):
    x, y = data()
    model, _ = fitted(
        net(0), 2.5, compiled={"metrics": ["accuracy", BTC(), BEC(given="h2_wrong")]}, dissonance="strict_imitation"
    )
    model.save(tmp_path / "model.keras", with_h1=True)
    revived = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(revived, BCModel)
    assert type(revived) is type(model)
    assert revived.lambda_c == 2.5
    assert (weights(revived.h1) == weights(model.h1)).all()
    assert revived.evaluate(x, y, verbose=0, return_dict=True) == model.evaluate(x, y, verbose=0, return_dict=True)
    for each in (model, revived):
        each.fit(x, y, batch_size=32, shuffle=False, verbose=0)
    assert (weights(revived.h2) == weights(model.h2)).all()

    model.h2.save(tmp_path / "h2.keras")
    assert "bc_keras" not in json.dumps(keras.saving.serialize_keras_object(model.h2))
    alone = keras.models.load_model(tmp_path / "h2.keras")
    assert type(alone) is keras.Sequential
    assert alone.compiled
    assert (alone.predict(x, verbose=0) == model.predict(x, verbose=0)).all()


@pytest.mark.parametrize(
    "loss", [None, "BCKLDivergenceLoss", CompatibilityLoss("nll", "imitation", 3.0, "support", from_logits=False)]
)
def test_arguments_are_saved_with_h1(loss, tmp_path):
    model = BCModel(net(1), h1=net(0), lambda_c=3.0, loss=loss, threshold=0.4, class_map=[0, 1, 2])
    model.compile(sgd(), loss=SPARSE if loss is None else None, metrics=[BTC()])
    model.save(tmp_path / "model.keras", with_h1=True)
    revived = keras.models.load_model(tmp_path / "model.keras")
    assert revived._compatibility.options.arguments == model._compatibility.options.arguments
    assert (revived.lambda_c, revived.dissonance) == (3.0, model.dissonance)
    assert revived.evaluate(*data(), verbose=0) == model.evaluate(*data(), verbose=0)


def test_an_h1_that_is_no_keras_model(tmp_path):
    x, y = data()
    h1 = net(0)
    live, _ = fitted(h1)
    model, _ = fitted(lambda inputs: h1(inputs, training=False))
    assert (weights(model.h2) == weights(live.h2)).all()
    model.save(tmp_path / "model.keras", with_h1=True)
    revived = keras.models.load_model(tmp_path / "model.keras")
    assert (revived.predict(x, verbose=0) == model.predict(x, verbose=0)).all()
    with pytest.raises(ValueError, match="wrap h2 anew"):
        revived.evaluate(x, y, verbose=0)


def test_stored_outputs_are_found_again_by_a_saved_model(tmp_path):
    x, y = data()
    stored = store_outputs(net(0), x, tmp_path / "h1", y=y, verbose=0)
    model = BCModel(net(1), h1=stored, lambda_c=2.0)
    model.compile(sgd(), loss=SPARSE, metrics=[BTC()])
    joined = stored.attach(x, y)
    model.fit(*joined, batch_size=32, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras", with_h1=True)
    revived = keras.models.load_model(tmp_path / "model.keras")
    for each in (model, revived):
        each.fit(*joined, batch_size=32, shuffle=False, verbose=0)
    assert (weights(revived.h2) == weights(model.h2)).all()


@pytest.mark.slow
def test_a_checkpoint_needs_the_package_for_h1_alone(tmp_path):
    model, _ = fitted(net(0), compiled={"metrics": ["accuracy", BTC()]})
    model.save(tmp_path / "whole.keras", with_h1=True)
    model.save(tmp_path / "h2.keras")
    x, _ = data()
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "expected.npy", model.predict(x, verbose=0))
    code = (
        "import sys; sys.modules['bc_keras'] = None; import keras, numpy as np\n"
        "model = keras.models.load_model('h2.keras')\n"
        "assert (model.predict(np.load('x.npy'), verbose=0) == np.load('expected.npy')).all()\n"
        "assert model.evaluate(np.load('x.npy'), np.zeros(96), verbose=0, return_dict=True).keys() == "
        "{'loss', 'accuracy'}\n"
        "print('h2 is there')\n"
        "keras.models.load_model('whole.keras')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.endswith("h2 is there\n"), done.stderr[-2000:]
    assert "bc_keras" in done.stderr.splitlines()[-1], done.stderr[-2000:]


@pytest.mark.skipif(BACKEND == "torch", reason="Keras exports torch models by onnx or litert, not as a saved model")
def test_export_is_of_h2(tmp_path):
    pytest.importorskip("tensorflow")
    model, _ = fitted(net(0))
    model.export(str(tmp_path / "exported"), verbose=False)
    x, _ = data()
    assert (tmp_path / "exported").exists()
    if BACKEND == "tensorflow":
        layer = keras.layers.TFSMLayer(str(tmp_path / "exported"), call_endpoint="serve")
        np.testing.assert_allclose(ops.convert_to_numpy(layer(x)), model.predict(x, verbose=0), atol=1e-6)
        assert len(layer.weights) == len(model.h2.weights)


def test_lambda_c_may_change_at_any_time():
    x, y = data()
    model, _ = fitted(net(0), 0.0)
    model.lambda_c = 5
    got = model.evaluate(x, y, verbose=0, return_dict=True)
    assert got["loss"] == pytest.approx(got["base_loss"] + 5 * got["dissonance"], rel=1e-5)


# The original's model


def test_new_error_model_of_the_original(tmp_path):
    x, y = data()
    layers = net(1).layers
    model = BCNewErrorCompatibilityModel(layers, h1=net(0), lambda_c=0.7)
    model.compile(loss=keras.losses.sparse_categorical_crossentropy, optimizer=sgd(), metrics=["accuracy"])
    model.fit(x, y, batch_size=32, shuffle=False, epochs=2, verbose=0, validation_data=(x, y))
    expected, _ = fitted(net(0), 0.7)
    assert (weights(model.h2) == weights(expected.h2)).all()
    assert isinstance(model, BCNewErrorCompatibilityModel)
    assert isinstance(model, keras.Sequential)
    model.save(tmp_path / "model.keras", with_h1=True)
    assert type(keras.models.load_model(tmp_path / "model.keras")) is type(model)


# Bad input


def test_bad_models_are_refused():
    h1, h2 = net(0), net(1)
    for arguments, error, message in (
        ({"h2": h2}, TypeError, "h1 is missing"),
        ({"h2": h2, "h1": keras.Sequential([keras.layers.Dense(3)])}, ValueError, "no weights yet"),
        ({"h2": h2, "h1": h2}, ValueError, "one model"),
        ({"h2": keras.Sequential([keras.Input((4,)), *h1.layers]), "h1": h1}, ValueError, "share variables"),
        ({"h2": h2, "h1": h1, "lambda_c": -1.0}, ValueError, ">= 0"),
        ({"h2": h2, "h1": h1, "dissonance": "newerror"}, ValueError, "'new_error'"),
        ({"h2": h2, "h1": h1, "loss": "hinge"}, ValueError, "'BCNLLLoss'"),
        ({"h2": h2, "h1": h1, "loss": "BCNLLLoss", "dissonance": "new_error"}, TypeError, "dissonance or loss"),
        ({"h2": h2, "h1": "h1.keras"}, TypeError, "load_model"),
        ({"h2": h2, "h1": h1, "class_map": [-1, -1]}, ValueError, "at least one"),
    ):
        with pytest.raises(error, match=message):
            BCModel(**arguments)
    model = BCModel(h2, h1=h1)
    with pytest.raises(ValueError, match=r"call `compile\(\)`"):
        model.fit(*data())
    with pytest.raises(ValueError, match="the base"):
        model.compile("sgd")
    with pytest.raises(ValueError, match=r"BCModel\(h2, h1=h1, loss="):
        model.compile("sgd", loss=CompatibilityLoss())


def test_an_h1_that_does_not_answer_as_announced_is_refused():
    x, y = data(32)

    def fit(h1, logits=False, **options):
        model = BCModel(net(1, activation=None if logits else "softmax"), h1=h1, **options)
        model.compile("sgd", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=logits))
        model.fit(x, y, verbose=0)

    broken = net(0)
    broken.set_weights([np.full_like(array, np.nan) for array in broken.get_weights()])
    with pytest.raises(ValueError, match="h1 must give finite scores.*NaN"):
        fit(broken)
    # A function says nothing of its scores.
    logits, probabilities = (functools.partial(net(0, activation=last), training=False) for last in (None, "softmax"))
    with pytest.raises(ValueError, match="h1_from_logits=True"):
        fit(logits, dissonance="strict_imitation")
    with pytest.raises(ValueError, match="h1_from_logits=False"):
        fit(probabilities, logits=True, dissonance="strict_imitation")
    # What new error reads of h1, its class, is the same.
    fit(probabilities, logits=True)
    fit(probabilities, logits=True, dissonance="strict_imitation", h1_from_logits=False)


def test_bad_data_are_refused():
    x, y = data(32)
    model = BCModel(net(1), h1=net(0))
    model.compile("sgd", loss=SPARSE)
    with pytest.raises(ValueError, match="no target"):
        model.fit(x, verbose=0)
    with pytest.raises(ValueError, match="outside the classes|class indices"):
        model.fit(x, np.where(y == 2, 7, y), verbose=0)
    with pytest.raises(ValueError, match="one-hot"):
        model.fit(x, np.eye(3)[y], verbose=0)
    categorical = BCModel(net(1), h1=net(0))
    categorical.compile("sgd", loss="categorical_crossentropy")
    with pytest.raises(ValueError, match="class indices"):
        categorical.fit(x, y, verbose=0)


# What counts in a mean


def oracle(p1, p2, y, valid, dissonance, normalization, weight=None):
    """The dissonance by the definition, in float64, over the entries that count."""
    weight = np.ones(y.shape) if weight is None else weight
    chosen = np.where(valid, y, 0)
    good = (p1.argmax(-1) == y) & valid
    new_error = -np.log(np.take_along_axis(p2, chosen[..., None], -1)[..., 0])
    each = new_error if dissonance == "new_error" else -(p1 * np.log(p2)).sum(-1)
    return (weight * good * each).sum() / (valid.sum() if normalization == "batch" else good.sum())


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


@pytest.mark.parametrize("normalization", ["batch", "support"])
@pytest.mark.parametrize("dissonance", ["new_error", "strict_imitation"])
@pytest.mark.parametrize("left_out", ["masked", "ignored", "weighted", "weighted in a column"])
def test_what_is_masked_or_ignored_does_not_count(left_out, dissonance, normalization):
    random = np.random.default_rng(0)
    tokens = random.integers(0, 4, (64, 7)) if left_out == "masked" else random.integers(1, 20, (64, 7))
    y = random.integers(-1 if left_out == "ignored" else 0, 3, (64, 7))
    weight = None
    if "weighted" in left_out:
        weight = random.random((64, 1 if "column" in left_out else 7)).astype("float32")
    if "column" in left_out and BACKEND == "torch":
        pytest.skip("Keras on torch multiplies such weights and a mask in place, which fails")
    model = BCModel(tagger(1), h1=tagger(0), dissonance=dissonance, normalization=normalization)
    ignore = {"ignore_class": -1} if left_out == "ignored" else {}
    model.compile(
        sgd(), loss=keras.losses.SparseCategoricalCrossentropy(**ignore), metrics=[BTC(), ErrorOverlapMetric()]
    )
    got = model.evaluate(tokens, y, sample_weight=weight, batch_size=64, verbose=0, return_dict=True)
    p1, p2 = (each.predict(tokens, verbose=0).astype(float) for each in (model.h1, model.h2))
    valid = (tokens != 0) if left_out == "masked" else (y >= 0)
    spread = None if weight is None else np.broadcast_to(weight, y.shape)
    expected = oracle(p1, p2, y, valid, dissonance, normalization, spread)
    assert got["dissonance"] == pytest.approx(expected, rel=1e-5)
    overlap = compare(y[valid], p1.argmax(-1)[valid], p2.argmax(-1)[valid]).overlap
    assert got["btc"] == pytest.approx(overlap.btc, abs=1e-6)
    assert got["both_right"] == overlap.both_right

    watch = CompatibilityCallback((tokens, y))
    history = model.fit(tokens, y, verbose=0, validation_data=(tokens, y), callbacks=[watch]).history
    assert watch.comparison.overlap.total == valid.sum()
    assert history["val_btc"][0] == pytest.approx(
        model.evaluate(tokens, y, verbose=0, return_dict=True)["btc"], abs=1e-6
    )


@pytest.mark.parametrize("normalization", ["batch", "support"])
@pytest.mark.parametrize("base", ["nll", "cross_entropy", "kl_divergence"])
def test_ignored_labels_on_outputs(base, normalization):
    random = np.random.default_rng(0)
    h2, h1 = (random.normal(size=(32, 5)).astype("float32") for _ in range(2))
    y = random.integers(-1, 5, 32)
    for reduction in ("mean", "sum"):
        loss = CompatibilityLoss(base, "strict_imitation", 2.0, normalization, from_logits=True, ignore_class=-1)
        got = float(loss(h2, y, h1, reduction=reduction))
        assert got == pytest.approx(float(loss(h2[y >= 0], y[y >= 0], h1[y >= 0], reduction=reduction)), rel=1e-5)


@pytest.mark.parametrize("dissonance", ["new_error", "strict_imitation"])
@pytest.mark.parametrize("reduction", ["sum", "mean_with_sample_weight"])
def test_reductions_of_the_compiled_loss(reduction, dissonance):
    x, y = data(32)
    weight = np.random.default_rng(0).random(32).astype("float32")
    model = BCModel(net(1), h1=net(0), dissonance=dissonance)
    model.compile(sgd(), loss=keras.losses.SparseCategoricalCrossentropy(reduction=reduction))
    got = model.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True)["dissonance"]
    p1, p2 = (each.predict(x, verbose=0).astype(float) for each in (model.h1, model.h2))
    mean = oracle(p1, p2, y, np.ones(32, bool), dissonance, "batch", weight)
    assert got == pytest.approx(mean * 32 / (1 if reduction == "sum" else weight.sum()), rel=1e-5)


@pytest.mark.parametrize("dissonance", ["new_error", "strict_imitation"])
def test_a_binary_model_without_a_last_axis(dissonance):
    x, y = data(32, classes=2)
    weight = np.random.default_rng(0).random(32).astype("float32")

    def flat(seed):
        model = net(seed, 1, "sigmoid")
        model.add(keras.layers.Reshape(()))
        return model

    got = []
    for make in (flat, lambda seed: net(seed, 1, "sigmoid")):
        model = BCModel(make(1), h1=make(0), lambda_c=2.0, dissonance=dissonance)
        model.compile(sgd(), loss="binary_crossentropy", metrics=[BTC()])
        got.append(model.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True))
    assert got[0] == pytest.approx(got[1], rel=1e-6)


@pytest.mark.parametrize("spelling", ["bce", "subclass", "own"])
def test_multilabel_by_any_spelling(spelling):
    class Mine(keras.losses.BinaryCrossentropy):
        pass

    def own(y_true, y_pred):
        return keras.losses.binary_crossentropy(y_true, y_pred)

    x, _ = data(32)
    y = (np.random.default_rng(1).random((32, 3)) < 0.5).astype("float32")
    options = {"multilabel": True, "from_logits": False} if spelling == "own" else {}
    got = []
    for loss, given in (
        ({"subclass": Mine(), "own": own}.get(spelling, spelling), options),
        ("binary_crossentropy", {}),
    ):
        model = BCModel(net(1, 3, "sigmoid"), h1=net(0, 3, "sigmoid"), **given)
        model.compile(sgd(), loss=loss, metrics=[BTC(multilabel=True)])
        got.append(model.evaluate(x, y, verbose=0, return_dict=True))
    assert got[0] == pytest.approx(got[1], rel=1e-6)
    model = BCModel(net(1, 3, "sigmoid"), h1=net(0, 3, "sigmoid"), from_logits=False)
    model.compile(sgd(), loss=own, metrics=[BTC(multilabel=True)])
    with pytest.raises(ValueError, match=r"BCModel\(\.\.\., multilabel=True\)"):
        model.evaluate(x, y, verbose=0)


def test_multilabel_h1_in_logits_and_its_threshold():
    x, _ = data(32)
    y = (np.random.default_rng(1).random((32, 3)) < 0.5).astype("float32")
    h1, h2 = net(0, 3, activation=None), net(1, 3, "sigmoid")
    s1, s2 = 1 / (1 + np.exp(-h1.predict(x, verbose=0).astype(float))), h2.predict(x, verbose=0)
    model = BCModel(h2, h1=h1, h1_from_logits=True, threshold=0.4)
    smoothed = keras.losses.BinaryCrossentropy(label_smoothing=0.2)
    model.compile(sgd(), loss=smoothed, metrics=[BTC()])
    got = model.evaluate(x, y, verbose=0, return_dict=True)
    goal = y * 0.8 + 0.1
    bce = -(goal * np.log(s2) + (1 - goal) * np.log(1 - s2))
    assert got["dissonance"] == pytest.approx(np.mean(((s1 >= 0.4) == y) * bce), rel=1e-5)
    assert got["btc"] == pytest.approx(
        compare(y.ravel().astype(int), (s1 >= 0.4).ravel(), (s2 >= 0.4).ravel()).overlap.btc
    )


@pytest.mark.parametrize("loss", [None, "BCCrossEntropyLoss"])
@pytest.mark.parametrize("class_map", [None, [1, 0, 2]])
def test_no_prediction_of_h1_is_a_wrong_one(loss, class_map):
    x, y = data(32)
    stored = StoredOutputs.from_table(
        np.where(np.arange(32) % 2, y if class_map is None else np.array([1, 0, 2])[y], -1)
    )
    for h1, given in ((stored, stored.attach(x, y, num_classes=3)), (_labels_of(-1), (x, y))):
        model = BCModel(net(1), h1=h1, loss=loss, class_map=class_map)
        model.compile(sgd(), loss=SPARSE, metrics=[ErrorOverlapMetric()])
        got = model.evaluate(*given, verbose=0, return_dict=True)
        right_of_h1 = got["both_right"] + got["h1_only_right"]
        assert right_of_h1 == (16 if h1 is stored else 0)
        assert (got["dissonance"] > 0) == (h1 is stored)


def _labels_of(label):
    def h1(x):
        return ops.full((ops.shape(x)[0],), label, dtype="int32")

    return h1


def test_class_map_of_logits():
    x, y = data(32)
    h1, h2 = net(0, classes=2, activation=None), net(1, activation=None)
    exp = np.exp(h1.predict(x, verbose=0).astype(float))
    p1 = exp / exp.sum(1, keepdims=True)
    mapped = np.stack([p1[:, 1], np.zeros(32), p1[:, 0]], axis=1)
    model = BCModel(h2, h1=h1, dissonance="strict_imitation", class_map=ClassMap([2, 0], new=[1]))
    model.compile(sgd(), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    exp2 = np.exp(h2.predict(x, verbose=0).astype(float))
    expected = oracle(mapped, exp2 / exp2.sum(1, keepdims=True), y, np.ones(32, bool), "strict_imitation", "batch")
    assert model.evaluate(x, y, verbose=0, return_dict=True)["dissonance"] == pytest.approx(expected, rel=1e-5)


def test_loss_weights_weigh_every_dissonance():
    x, y = data(32)
    for dissonance in ("new_error", "strict_imitation"):
        got = []
        for weights_given in (None, [0.5]):
            model = BCModel(net(1), h1=net(0), dissonance=dissonance)
            model.compile(sgd(), loss=[SPARSE], loss_weights=weights_given)
            got.append(model.evaluate(x, y, verbose=0, return_dict=True)["dissonance"])
        assert got[1] == pytest.approx(got[0] / 2, rel=1e-6)


def test_float64_policy():
    keras.config.set_floatx("float64")
    try:
        for options in ({"normalization": "support"}, {"dissonance": "strict_imitation"}):
            _, history = fitted(net(0), **options)
            assert np.isfinite(history.history["loss"]).all()
    finally:
        keras.config.set_floatx("float32")


def test_half_precision_is_not_summed_in():
    loss = CompatibilityLoss(dtype="float16")
    assert float(loss(np.full((70000, 3), 1 / 3, "float32"), np.zeros(70000, int), np.full((70000, 3), 1 / 3))) > 1


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


# What would not be trained as it was meant


def test_metrics_by_their_class_are_fed_too():
    x, y = data(32)
    model = BCModel(net(1), h1=net(0))
    model.compile(sgd(), loss=SPARSE, metrics=["accuracy", BTC], weighted_metrics=[NegativeFlipRate])
    got = model.evaluate(x, y, verbose=0, return_dict=True)
    overlap = compare(y, model.h1.predict(x, verbose=0).argmax(1), model.predict(x, verbose=0).argmax(1)).overlap
    assert (got["btc"], got["nfr"]) == (pytest.approx(overlap.btc), pytest.approx(overlap.nfr))


@pytest.mark.parametrize("name", ["train_step", "test_step", "compute_loss"])
def test_an_h2_whose_own_step_leaves_the_penalty_out_is_refused(name):
    own = type("Own", (keras.Sequential,), {name: lambda self, *args, **kwargs: None})
    with pytest.raises(TypeError, match=f"{name} of its own"):
        BCModel(own(net(1).layers), h1=net(0))
    on_the_instance = net(1)
    setattr(on_the_instance, name, lambda *args, **kwargs: None)
    with pytest.raises(TypeError, match=f"{name} of its own on the instance"):
        BCModel(on_the_instance, h1=net(0))
    assert not isinstance(on_the_instance, BCModel)


def test_an_output_in_a_dict_of_one():
    x, y = data(32)
    inputs = keras.Input((4,))
    h2 = keras.Model(inputs, {"o": keras.layers.Dense(3, "softmax", name="o")(inputs)})
    for dissonance in ("new_error", "strict_imitation"):
        model = BCModel(h2, h1=net(0), dissonance=dissonance)
        model.compile(sgd(), loss=SPARSE, metrics=[BTC()])
        assert np.isfinite(model.fit(x, y, verbose=0).history["loss"]).all()


def test_arguments_that_contradict_the_loss_are_refused():
    h1, h2 = net(0), net(1)
    for loss, argument in (
        (CompatibilityLoss(), {"normalization": "support"}),
        (CompatibilityLoss(), {"from_logits": True}),
        (CompatibilityLoss("binary_cross_entropy", threshold=0.7), {"threshold": 0.4}),
    ):
        with pytest.raises(TypeError, match="contradicts the loss"):
            BCModel(h2, h1=h1, loss=loss, **argument)
    model = BCModel(h2, h1=h1, loss=CompatibilityLoss(dissonance="strict_imitation", from_logits=True))
    with pytest.raises(ValueError, match="same from_logits"):
        model.compile(sgd(), loss=SPARSE)
    mapped = BCModel(h2, h1=h1, loss=bc_keras.BCCrossEntropyLoss(h1, h2, 0.5, class_map=[1, 0, 2]))
    assert mapped._reference.class_map == (1, 0, 2)
    x, y = data(32, classes=2)
    h1, h2 = net(0, 1, "sigmoid"), net(1, 1, "sigmoid")
    for loss in ("BCBinaryCrossEntropyLoss", CompatibilityLoss("binary_cross_entropy", threshold=0.6)):
        model = BCModel(h2, h1=h1, loss=loss, threshold=0.6)
        model.compile(sgd(), metrics=[ErrorOverlapMetric()])
        got = model.evaluate(x, y, verbose=0, return_dict=True)
        s1, s2 = (each.predict(x, verbose=0)[:, 0].astype(float) for each in (h1, h2))
        good = (s1 >= 0.6) == y
        bce = -(y * np.log(s2) + (1 - y) * np.log(1 - s2))
        assert got["dissonance"] == pytest.approx(np.mean(good * bce), rel=1e-5)
        assert got["both_right"] + got["h1_only_right"] == good.sum()


def test_an_h1_that_cannot_run_in_the_step_says_what_to_do():
    x, y = data(32)
    h1 = net(0)
    with pytest.raises(TypeError, match="h1=model"):
        BCModel(net(1), h1=h1.predict)

    def broken(inputs):
        raise RuntimeError("no such table")

    model = BCModel(net(1), h1=broken)
    model.compile(sgd(), loss=SPARSE)
    with pytest.raises(TypeError, match="store_outputs"):
        model.fit(x, y, verbose=0)
    with pytest.raises(TypeError, match="LambdaScheduler"):
        BCModel(net(1), h1=h1, lambda_c=bc_keras.LinearLambda())
    assert BCModel(net(1), h1=h1, lambda_c=np.float32(2)).lambda_c == 2.0
    with pytest.raises(ValueError, match="perhaps 'BCCrossEntropyLoss'"):
        BCModel(net(1), h1=h1, loss="BCCrossEntropy")


def test_labels_that_h2_has_no_score_for():
    x, y = data(32)
    model = BCModel(net(1), h1=net(0))
    model.compile(sgd(), loss=SPARSE)
    for use in (
        lambda: model.fit(x, (y + 1).astype("float32"), verbose=0),
        lambda: model.fit(x, y, validation_data=(x, y + 1), verbose=0),
        lambda: model.evaluate(x, y + 1, verbose=0),
    ):
        with pytest.raises(ValueError, match="class indices"):
            use()
    binary = BCModel(net(1, 1, "sigmoid"), h1=net(0, 1, "sigmoid"))
    binary.compile(sgd(), loss="binary_crossentropy")
    with pytest.raises(ValueError, match="0..1"):
        binary.fit(x, np.where(y > 0, 1, -1), verbose=0)
