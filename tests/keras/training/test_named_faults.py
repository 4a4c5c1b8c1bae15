"""What does not fit is named as what it is: h1, a regression, stored outputs of other classes."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from backends import FEW_STEPS, once_but
from test_outputs_read import FORMS
from user_models import answers, data, net

from bc_keras import (
    BCModel,
    CompatibilityCallback,
    ErrorOverlapMetric,
    NegativeFlipRate,
    StoredOutputs,
    evaluate,
    unwrap,
)

SPARSE = "sparse_categorical_crossentropy"


def fit(model, form, x, y, loss=SPARSE, **compiled):
    model.compile("sgd", loss=loss, **FEW_STEPS, **compiled)
    given = FORMS[form](x, y)
    arguments = {"x": x, "y": y} if form == "arrays" else {"x": given}
    return model.fit(**arguments, shuffle=form in ("arrays", "PyDataset"), verbose=0).history


# What does not fit is found before the steps, by the same code on every backend.
each_form = pytest.mark.parametrize("form", once_but(["arrays"], FORMS))


# An h1 that was trained on other inputs


def images(size, channels=1):
    keras.utils.set_random_seed(size)
    layers = [keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")]
    return keras.Sequential([keras.Input((size, size, channels)), *layers])


@each_form
def test_an_h1_of_another_input_width_is_named(form):
    x, y = data(32, features=6)
    h1, h2 = net(0, features=4), net(1, features=6)
    with pytest.raises(ValueError, match=r"h1 cannot take the inputs of h2.*inputs of shape \(.*, 6\)"):
        fit(BCModel(h2, h1=h1), form, x, y)
    # As the message says.
    model = BCModel(h2, h1=lambda x: h1(x[:, :4], training=False))
    logs = fit(model, form, x, y, metrics=[ErrorOverlapMetric()])
    expected = (answers(h1, x[:, :4]).argmax(1) == y).sum()
    assert logs["both_right"][0] + logs["h1_only_right"][0] == expected


@pytest.mark.parametrize("h1", [images(3), images(4, 3), net(0)], ids=["size", "channels", "no image"])
def test_an_h1_of_other_images_is_named(h1):
    x = np.random.default_rng(0).normal(size=(8, 4, 4, 1)).astype("float32")
    y = np.arange(8) % 3
    h2 = images(4)
    h2.compile("sgd", loss=SPARSE)
    for asked in (
        lambda: fit(BCModel(images(4), h1=h1), "arrays", x, y),
        lambda: evaluate(h1, h2, (x, y)),
        lambda: h2.fit(x, y, verbose=0, callbacks=[CompatibilityCallback((x, y), h1=h1)]),
    ):
        with pytest.raises(ValueError, match=r"h1 cannot take the inputs of h2.*4, 4, 1\)"):
            asked()


# A regression


REGRESSIONS = {
    "numbers": lambda x: x.sum(1) * 10,
    "a column": lambda x: x[:, :1],
    "counts": lambda x: np.rint(np.abs(x[:, 0]) * 10),
    "shares of an hour": lambda x: 1 / (1 + np.exp(-x[:, 0])),
}


@pytest.mark.parametrize("loss", ["mse", "mae", keras.losses.Huber(), "poisson"])
@pytest.mark.parametrize("kind", list(REGRESSIONS))
def test_a_regression_is_no_classifier(kind, loss):
    x, _ = data(32)
    y = REGRESSIONS[kind](x).astype("float32")
    h1, h2 = net(0, 1, "exponential"), net(1, 1, "exponential")
    with pytest.raises(ValueError, match="h2 is no classifier"):
        fit(BCModel(h2, h1=h1), "arrays", x, y, loss)
    h2.compile("sgd", loss=loss)
    with pytest.raises(ValueError, match="h2 is no classifier"):
        evaluate(h1, h2, (x, y))
    with pytest.raises(ValueError, match="h2 is no classifier"):
        h2.fit(x, y, verbose=0, callbacks=[CompatibilityCallback((x, y), h1=h1)])


@each_form
def test_a_regression_in_batches(form):
    x, _ = data(32)
    h1, h2 = net(0, 1, None), net(1, 1, None)
    with pytest.raises(ValueError, match="h2 is no classifier"):
        fit(BCModel(h2, h1=h1), form, x, x.sum(1), "mse")


@each_form
def test_whole_numbers_are_no_classes_of_a_distance(form):
    x, _ = data(32)
    with pytest.raises(ValueError, match="h2 is no classifier"):
        fit(BCModel(net(1, 1, None), h1=net(0, 1, None)), form, x, np.arange(32) % 9, "mse")


@each_form
def test_several_numbers_at_once_are_no_classes_either(form):
    x, _ = data(32)
    h1, h2 = net(0, 3, None), net(1, 3, None)
    with pytest.raises(ValueError, match="h2 is no classifier"):
        fit(BCModel(h2, h1=h1), form, x, x[:, :3], "mse")


@pytest.mark.parametrize("last", [False, True])
@each_form
def test_rows_of_several_labels_in_batches(form, last):
    """A single such row, in the last batch, is found too; shares of classes, and one class, are none."""
    x, y = data(32)
    one = np.eye(3, dtype="float32")[y]
    several = one.copy()
    several[-1 if last else 0] = [1, 0, 1]
    for loss in ("squared_hinge", "categorical_crossentropy"):
        model = BCModel(net(1), h1=net(0))
        with pytest.raises(ValueError, match="if each column is a label of its own"):
            fit(model, form, x, several, loss)
        assert np.isfinite(fit(model, form, x, 0.9 * one + 0.1 / 3, loss)["loss"]).all()
        assert np.isfinite(fit(model, form, x, one, loss)["loss"]).all()


@pytest.mark.parametrize("loss", ["mse", "squared_hinge", "categorical_crossentropy", lambda y, p: (y - p) ** 2])
def test_rows_of_several_labels_are_no_classes(loss):
    """The first of them was taken for the class; said to be labels of their own, each is counted."""
    x, _ = data(32)
    y = np.random.default_rng(0).integers(0, 2, (32, 3)).astype("float32")
    h1, h2 = net(0, 3, "sigmoid"), net(1, 3, "sigmoid")
    with pytest.raises(ValueError, match="if each column is a label of its own"):
        fit(BCModel(h2, h1=h1), "arrays", x, y, loss)
    h2 = unwrap(h2)
    h2.compile("sgd", loss)
    for call in (
        lambda: evaluate(h1, h2, (x, y)),
        lambda: h2.fit(x, y, verbose=0, callbacks=[CompatibilityCallback((x, y), h1=h1)]),
    ):
        with pytest.raises(ValueError, match="if each column is a label of its own"):
            call()
    first = (h1.predict(x, verbose=0) >= 0.5) == y
    callback = CompatibilityCallback((x, y), h1=h1, multilabel=True)
    h2.fit(x, y, verbose=0, callbacks=[callback])
    second = (h2.predict(x, verbose=0) >= 0.5) == y
    assert callback.comparison.overlap.nfr == pytest.approx((first & ~second).mean())
    model = BCModel(h2, h1=h1, multilabel=True)
    model.compile(keras.optimizers.SGD(0.0), loss, metrics=[NegativeFlipRate()])
    if loss == "categorical_crossentropy":
        with pytest.raises(ValueError, match="neither the mean nor the sum of the losses of the labels"):
            model.evaluate(x, y, verbose=0)
        model = BCModel(unwrap(model), h1=h1, loss="BCBinaryCrossEntropyLoss")  # as the message says
        model.compile(keras.optimizers.SGD(0.0), loss, metrics=[NegativeFlipRate()])
    assert model.evaluate(x, y, verbose=0)[1] == pytest.approx((first & ~second).mean())


def test_a_squared_loss_of_classes_is_a_classifiers():
    x, y = data(32)
    for target, classes, activation in (
        (np.eye(3, dtype="float32")[y], 3, "softmax"),
        (0.9 * np.eye(3, dtype="float32")[y] + 0.1 / 3, 3, "softmax"),
        ((y > 0).astype("int64"), 1, "sigmoid"),
        ((y > 0)[:, None].astype("float32"), 1, None),
    ):
        model = BCModel(net(1, classes, activation), h1=net(0, classes, activation))
        assert np.isfinite(fit(model, "arrays", x, target, "mse")["loss"]).all()


def test_a_linear_h1_turns_where_an_h2_of_a_distance_does():
    """At 0.5, compiled or not; the linear layer of one that was not compiled was taken to give logits."""
    x, y = data(32)
    y = (y > 0).astype("float32")
    h1, h2 = net(0, 1, None), net(1, 1, None)
    h2.compile("sgd", "mse")
    first, second = ((answers(model, x)[:, 0] >= 0.5) == y for model in (h1, h2))
    expected = pytest.approx((first & ~second).mean())
    assert expected != ((answers(h1, x)[:, 0] >= 0) == y)[~second].sum() / 32
    for given in ({}, {"h1_from_logits": False}):
        assert evaluate(h1, h2, (x, y), **given).comparison.overlap.nfr == expected
    for compiled in (False, True):
        if compiled:
            h1.compile("sgd", "mse")
        model = BCModel(net(1, 1, None), h1=h1)
        model.compile("sgd", "mse", metrics=[NegativeFlipRate()])
        assert model.evaluate(x, y, verbose=0)[1] == expected


# Stored outputs of other classes


def test_stored_outputs_of_other_classes_say_so():
    x, y = data(32)
    stored = StoredOutputs.compute(net(0, classes=5), x)
    joined = stored.attach(x, y)
    message = r"of other classes.*class_map=\.\.\..*5 columns of h1 where 3 are expected"
    with pytest.raises(ValueError, match=message):
        fit(BCModel(net(1), h1=stored), "arrays", *joined)
    with pytest.raises(ValueError, match=message):
        evaluate(stored, net(1), joined)
    four = StoredOutputs.compute(net(0, classes=4), x)
    with pytest.raises(ValueError, match="4 columns of h1 where 5 are expected"):
        fit(BCModel(net(1), h1=four, class_map=[0, 1, 2, -1, -1]), "arrays", *four.attach(x, y))
    # As the message says.
    model = BCModel(net(1), h1=stored, class_map=[0, 1, 2, -1, -1])
    logs = fit(model, "arrays", *joined, metrics=[ErrorOverlapMetric()])
    mapped = answers(net(0, classes=5), x)[:, :3].argmax(1)
    assert logs["both_right"][0] + logs["h1_only_right"][0] == (mapped == y).sum()


def test_one_stored_score_beside_two_classes():
    x, y = data(32, classes=2)
    h1 = net(0, 1, "sigmoid")
    stored = StoredOutputs.compute(h1, x)
    with pytest.raises(ValueError, match=r"in h2's form.*1 column of h1 where 2 are expected"):
        fit(BCModel(net(1, 2), h1=stored), "arrays", *stored.attach(x, y))

    def two(x):
        p = h1(x, training=False)
        return keras.ops.concatenate([1 - p, p], axis=-1)

    stored = StoredOutputs.compute(two, x)
    logs = fit(BCModel(net(1, 2), h1=stored), "arrays", *stored.attach(x, y), metrics=[ErrorOverlapMetric()])
    expected = ((answers(h1, x)[:, 0] >= 0.5) == y).sum()
    assert logs["both_right"][0] + logs["h1_only_right"][0] == expected


# Two metrics of one kind


def test_names_tell_two_overlaps_apart():
    x, y = data(64, classes=2)
    y = y.astype("float32")
    h1 = net(0, 1, "sigmoid")
    low, high = ErrorOverlapMetric(threshold=0.3, name="low"), ErrorOverlapMetric(threshold=0.7, name="high")
    weighted = ErrorOverlapMetric(name="weighted")
    model = BCModel(net(1, 1, "sigmoid"), h1=h1)
    model.compile(keras.optimizers.SGD(0.0), "binary_crossentropy", None, [low, high, ErrorOverlapMetric()], [weighted])
    weight = np.linspace(0, 2, 64).astype("float32")
    logs = model.fit(x, y, sample_weight=weight, batch_size=64, verbose=0).history
    p1, p2 = answers(h1, x)[:, 0], answers(net(1, 1, "sigmoid"), x)[:, 0]
    for prefix, threshold, each in (
        ("low_", 0.3, np.ones(64)),
        ("high_", 0.7, np.ones(64)),
        ("", 0.5, np.ones(64)),
        ("weighted_", 0.5, weight),
    ):
        right1, right2 = ((p >= threshold) == (y > 0) for p in (p1, p2))
        assert logs[f"{prefix}both_right"][0] == pytest.approx((each * (right1 & right2)).sum(), rel=1e-5)
        assert logs[f"{prefix}h1_only_right"][0] == pytest.approx((each * (right1 & ~right2)).sum(), rel=1e-5)


def test_two_overlaps_of_one_name_are_refused():
    model = BCModel(net(1), h1=net(0))
    with pytest.raises(ValueError, match="2 named 'error_overlap'"):
        model.compile("sgd", SPARSE, metrics=[ErrorOverlapMetric()], weighted_metrics=[ErrorOverlapMetric()])


# Rows without a class


@pytest.mark.parametrize("loss", ["categorical_crossentropy", "mse"])
def test_rows_of_zeros_are_in_no_count(loss):
    """As `one_hot(-1)` makes them of instances without a label; an argmax takes them for class 0."""
    x, y = data(32)
    rows = np.eye(3, dtype="float32")[y]
    rows[::3] = 0
    known = rows.any(1)
    h1, h2 = net(0), net(1)
    first, second = (answers(model, x).argmax(1) == y for model in (h1, h2))
    expected = np.zeros((2, 2), int)
    np.add.at(expected, (first[known].astype(int), second[known].astype(int)), 1)
    assert ((answers(h1, x).argmax(1) == 0) & ~known).any()  # they would be taken for right
    model = BCModel(h2, h1=h1)
    model.compile(keras.optimizers.SGD(0.0), loss, metrics=[ErrorOverlapMetric(num_classes=3)], **FEW_STEPS)
    model.fit(x, rows, validation_data=(x, rows), verbose=0)
    assert (model.metrics[1].metrics[0].overlap().counts.sum(0) == expected).all()
    counts = evaluate(h1, unwrap(model), (x, rows)).comparison.overlap.counts
    assert (counts.sum(0) == expected).all()
    h2 = unwrap(model)
    with pytest.raises(ValueError, match="at least one"):
        evaluate(h1, h2, (x, np.zeros_like(rows)))
    # Not even the first batch needs one.
    last = (np.concatenate([x, x[:8]]), np.concatenate([0 * rows, np.eye(3)[y[:8]]]))
    callback = CompatibilityCallback(last, h1=h1)
    h2.fit(x, rows, verbose=0, callbacks=[callback])
    assert callback.comparison.dataset_size == 8


@pytest.mark.parametrize("dissonance", ["new_error", "strict_imitation"])
def test_h1_is_not_right_about_rows_of_zeros(dissonance):
    x, y = data(32)
    rows = np.eye(3, dtype="float32")[y]
    rows[::3] = 0
    made = []
    for target in (rows, rows[:, [1, 2, 0]]):  # class 0 is another one
        order = [0, 1, 2] if target is rows else [1, 2, 0]
        h1, h2 = (
            keras.Sequential(
                [network, keras.layers.Lambda(lambda scores, order=order: keras.ops.take(scores, order, 1))]
            )
            for network in (net(0), net(1))
        )
        model = BCModel(h2, h1=h1, dissonance=dissonance, from_logits=False, h1_from_logits=False)
        model.compile(keras.optimizers.SGD(0.0), "categorical_crossentropy", **FEW_STEPS)
        made.append(model.fit(x, target, verbose=0).history["dissonance"][0])
    assert made[1] == pytest.approx(made[0], rel=1e-5)
