"""What counts in a mean: masks, ignored labels, labels of several columns, weights of losses, precision."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from backends import once_but
from keras import ops
from user_models import answers, data, net
from wrapped_models import SPARSE, fitted, sgd

from bc_core import ClassMap, compare
from bc_keras import (
    BTC,
    BCModel,
    CompatibilityCallback,
    CompatibilityLoss,
    ErrorOverlapMetric,
    StoredOutputs,
)

BACKEND = keras.backend.backend()


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
            keras.layers.Dense(3, "softmax"),
        ]
    )


# On every backend each dissonance and each normalization beside each way of leaving out; on one, each with each.
LEFT_OUT = {
    (left_out, dissonance, normalization): (dissonance == "new_error") == (normalization == "batch")
    for left_out in ("masked", "ignored", "weighted", "weighted in a column")
    for dissonance in ("new_error", "strict_imitation")
    for normalization in ("batch", "support")
}


@pytest.mark.parametrize(
    ("left_out", "dissonance", "normalization"), once_but([case for case, here in LEFT_OUT.items() if here], LEFT_OUT)
)
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
    p1, p2 = (answers(each, tokens).astype(float) for each in (model.h1, model.h2))
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
    p1, p2 = (answers(each, x).astype(float) for each in (model.h1, model.h2))
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


# A spelling is read before the steps.
@pytest.mark.parametrize("spelling", once_but(["own"], ["bce", "subclass", "own"]))
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


def _summed(y_true, y_pred):
    return ops.sum(keras.losses.binary_focal_crossentropy(y_true[..., None], y_pred[..., None]), axis=-1)


@pytest.mark.parametrize(
    "loss",
    [
        keras.losses.BinaryFocalCrossentropy(gamma=3.0),
        keras.losses.Huber(0.3),
        keras.losses.MeanSquaredError(reduction="sum"),
        keras.losses.BinaryCrossentropy(reduction="mean_with_sample_weight"),
        _summed,
        lambda y_true, y_pred: (y_true - y_pred) ** 2,
    ],
    ids=["focal", "huber", "sum", "weighted", "own sum", "own elements"],
)
@pytest.mark.parametrize("rows", [32, 5])
def test_new_error_of_labels_is_the_compiled_loss_of_each(loss, rows):
    """With an h1 that is always right it is the base; with one that is right about a label, that label's share."""
    x, _ = data(rows)
    y = (np.random.default_rng(1).random((rows, 3)) < 0.5).astype("float32")
    shares = []
    for known in ([0, 1, 2], [0], [1], [2]):
        said = 1 - y
        said[:, known] = y[:, known]
        model = BCModel(
            net(1, 3, "sigmoid"), h1=StoredOutputs.from_predictions(said), multilabel=True, from_logits=False
        )
        model.compile(sgd(), loss=loss)
        got = model.evaluate(*model.h1.attach(x, y), batch_size=rows, verbose=0, return_dict=True)
        shares.append(got["dissonance"])
    assert shares[0] == pytest.approx(got["base_loss"], rel=1e-5)
    assert sum(shares[1:]) == pytest.approx(shares[0], rel=1e-5)
    assert min(shares[1:]) > 0


def test_multilabel_h1_in_logits_and_its_threshold():
    x, _ = data(32)
    y = (np.random.default_rng(1).random((32, 3)) < 0.5).astype("float32")
    h1, h2 = net(0, 3, activation=None), net(1, 3, "sigmoid")
    s1, s2 = 1 / (1 + np.exp(-answers(h1, x).astype(float))), answers(h2, x)
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
    exp = np.exp(answers(h1, x).astype(float))
    p1 = exp / exp.sum(1, keepdims=True)
    mapped = np.stack([p1[:, 1], np.zeros(32), p1[:, 0]], axis=1)
    model = BCModel(h2, h1=h1, dissonance="strict_imitation", class_map=ClassMap([2, 0], new=[1]))
    model.compile(sgd(), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    exp2 = np.exp(answers(h2, x).astype(float))
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
