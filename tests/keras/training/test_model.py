"""BCModel: what is trained, what is never trained, and that everything of Keras keeps working."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
from backends import once_but
from user_models import answers, data, net
from wrapped_models import SPARSE, fitted, right, sgd, weights

import bc_keras
from bc_core import ClassMap, compare
from bc_keras import (
    BEC,
    BTC,
    BCModel,
    CompatibilityLoss,
    ErrorOverlapMetric,
    NegativeFlipImpact,
    NegativeFlipRate,
    PositiveFlipRate,
    StoredOutputs,
)

BACKEND = keras.backend.backend()


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


# What each dissonance comes to on each backend is tested on outputs: compiled into a step, one of each kind there.
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize(
    ("dissonance", "normalization"),
    once_but(
        [("new_error", "support"), ("imitation", "batch")],
        itertools.product(["new_error", "strict_imitation", "imitation"], ["batch", "support"]),
    ),
)
def test_logged_loss_is_base_plus_lambda_times_dissonance(dissonance, normalization, jit_compile):
    if jit_compile and BACKEND == "torch":
        pytest.skip("torch compiles with inductor, which is tested once, below")
    x, y = data(32)
    h1, h2 = net(0), net(1)
    p1, p2 = answers(h1, x), answers(h2, x)
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
    expected = float(criterion(answers(h2, x), y, answers(h1, x)))
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
    expected = smoothed(onehot, answers(h2, x), sample_weight=1 + 2.0 * right(h1, x, y))
    assert model.evaluate(x, onehot, verbose=0, return_dict=True)["loss"] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("shape", ["flat", "column"])
@pytest.mark.parametrize("dissonance", ["new_error", "strict_imitation"])
def test_binary_models(dissonance, shape):
    x, y = data(32, classes=2)
    h1, h2 = net(0, 1, "sigmoid"), net(1, 1, "sigmoid")
    s1, s2 = (answers(model, x)[:, 0].astype(float) for model in (h1, h2))
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
    s1, s2 = (answers(model, x).astype(float) for model in (h1, h2))
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
    p2 = answers(h2, x)
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
    p1, p2 = answers(h1, x).astype(float), answers(h2, x)
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


# Metrics


def test_every_metric_equals_the_scores_of_the_predictions():
    x, y = data(90)
    h1, h2 = net(0), net(1)
    overlap = compare(y, answers(h1, x).argmax(1), answers(h2, x).argmax(1)).overlap
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
