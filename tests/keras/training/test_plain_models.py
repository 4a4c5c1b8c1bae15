import json

import keras
import numpy as np
import pytest
from backends import once_but
from keras import ops
from user_models import CLASSES, answers, data, net

from bc_core import ErrorOverlap
from bc_keras.batches._attached import join_reference
from bc_keras.metrics import BTC, NegativeFlipRate
from bc_keras.metrics._overlap import fed_by_model
from bc_keras.training.compiled._plain_models import OnTarget, TargetLoss


def squared_distance(y_true, y_pred):
    return ops.mean(ops.square(y_pred - y_true), axis=-1)


# columns of h2, activation, label, loss, metrics
CASES = {
    "sparse": (3, "softmax", "sparse", "sparse_categorical_crossentropy", ["accuracy", "sparse_categorical_accuracy"]),
    "sparse, told from the shape": (3, "softmax", "sparse", "crossentropy", ["acc"]),
    "sparse logits": (
        3,
        None,
        "sparse",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum"),
        [keras.metrics.SparseTopKCategoricalAccuracy(k=2)],
    ),
    "one-hot": (3, "softmax", "one-hot", "crossentropy", ["accuracy", keras.metrics.AUC(name="area")]),
    "one-hot, smoothed": (3, "softmax", "one-hot", keras.losses.CategoricalCrossentropy(label_smoothing=0.1), ["mse"]),
    "binary": (1, "sigmoid", "binary", "crossentropy", ["accuracy", "AUC"]),
    "binary, own function": (1, "sigmoid", "binary column", squared_distance, [squared_distance]),
}


def trained(model, loss, metrics, x, y, eagerly, **kwargs):
    model.compile("adam", loss=loss, metrics=metrics, weighted_metrics=[], run_eagerly=eagerly)
    # Operation by operation a step takes long; what a second epoch begins with is the same.
    history = model.fit(x, y, batch_size=20, epochs=1 if eagerly else 2, shuffle=False, verbose=0, **kwargs)
    return model.get_weights(), history.history, model.evaluate(x, y, return_dict=True, verbose=0)


def both_trainings(case, weighted, eagerly):
    """The ordinary model on the label, and the wrapped loss and metrics on the joined label."""
    columns, activation, label, loss, metrics = CASES[case]
    x, y = data(50)
    y = {"sparse": y, "one-hot": np.eye(3)[y], "binary": y > 0, "binary column": (y > 0)[:, None]}[label].astype(
        "float32"
    )
    h1 = answers(net(1, columns, activation), x)
    kwargs = {"sample_weight": np.linspace(0, 2, 50)} if weighted else {}
    fresh = lambda metric: metric if not isinstance(metric, keras.Metric) else metric.from_config(metric.get_config())  # noqa: E731
    plain = trained(net(2, columns, activation), loss, [fresh(each) for each in metrics], x, y, eagerly, **kwargs)
    wrapped = [*(OnTarget(fresh(each)) for each in metrics), BTC()]
    joined = trained(
        net(2, columns, activation), TargetLoss(loss), wrapped, x, join_reference(y, h1), eagerly, **kwargs
    )
    for logs in joined[1:]:
        logs.pop("btc")
    return plain, joined


@pytest.mark.parametrize("weighted", once_but([True], [False, True]))
@pytest.mark.parametrize("case", CASES)
def test_training_is_that_of_the_ordinary_model(case, weighted):
    plain, joined = both_trainings(case, weighted, eagerly=True)
    for got, expected in zip(joined[0], plain[0], strict=True):
        np.testing.assert_array_equal(got, expected)
    assert joined[1:] == plain[1:]


# One for each kind of label; the others differ in losses and metrics of Keras's own.
@pytest.mark.slow
@pytest.mark.parametrize("case", once_but(["sparse", "one-hot", "binary"], CASES))
def test_compiled_training_is_that_of_the_ordinary_model(case):
    # Two programs, which XLA fuses differently.
    plain, joined = both_trainings(case, weighted=True, eagerly=False)
    for got, expected in zip(joined[0], plain[0], strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    for got, expected in zip(joined[1:], plain[1:], strict=True):
        assert got.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(got[name], value, rtol=1e-5)


def test_scores_of_a_trained_model_are_those_of_its_predictions():
    x, y = data(70)
    h1, h2 = net(1), net(2)
    joined = join_reference(y, answers(h1, x))
    metrics = [BTC(), NegativeFlipRate(), OnTarget("accuracy")]
    h2.compile("adam", TargetLoss("sparse_categorical_crossentropy"), metrics=metrics)
    h2.fit(x, joined, epochs=3, batch_size=16, verbose=0)
    logs = h2.evaluate(x, joined, batch_size=32, return_dict=True, verbose=0)
    labels = [answers(model, x).argmax(1) for model in (h1, h2)]
    overlap = ErrorOverlap.from_predictions(y, *labels)
    for name, expected in {"btc": overlap.btc, "nfr": overlap.nfr, "accuracy": overlap.accuracy_h2}.items():
        assert logs[name] == pytest.approx(expected, rel=1e-6), name


def test_saved_models_keep_loss_and_metrics(tmp_path):
    x, y = data(40)
    joined = join_reference(y, answers(net(1), x))
    model = net(2)
    loss = TargetLoss(keras.losses.SparseCategoricalCrossentropy(ignore_class=2))
    model.compile("adam", loss, metrics=[BTC(), OnTarget("accuracy")])
    model.fit(x, joined, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.evaluate(x, joined, return_dict=True, verbose=0) == model.evaluate(
        x, joined, return_dict=True, verbose=0
    )


@pytest.mark.parametrize(
    "metric", ["accuracy", "mse", "AUC", keras.metrics.SparseTopKCategoricalAccuracy(k=2), keras.metrics.kl_divergence]
)
def test_metric_round_trip(metric):
    wrapped = OnTarget(metric, name="mine")
    again = keras.metrics.deserialize(json.loads(json.dumps(keras.metrics.serialize(wrapped))))
    assert isinstance(again, OnTarget)
    assert again.name == "mine"
    assert again.get_config() == wrapped.get_config()


@pytest.mark.parametrize(
    "loss",
    [
        "crossentropy",
        "mse",
        keras.losses.CategoricalFocalCrossentropy(alpha=0.5, reduction="sum"),
        keras.losses.mean_absolute_error,
    ],
)
def test_loss_round_trip(loss):
    y = join_reference(np.eye(2), np.full((2, 2), 0.5))
    wrapped = TargetLoss(loss, name="mine")
    again = keras.losses.deserialize(json.loads(json.dumps(keras.losses.serialize(wrapped))))
    assert isinstance(again, TargetLoss)
    assert again.get_config() == wrapped.get_config()
    y_pred = np.array([[0.9, 0.1], [0.4, 0.6]], "float32")
    assert float(again(y, y_pred)) == float(wrapped(y, y_pred)) > 0
    assert again.reduction == wrapped.reduction


@pytest.mark.parametrize(
    ("metric", "name"),
    [("accuracy", "accuracy"), ("acc", "acc"), ("mse", "mse"), (keras.metrics.AUC(name="area"), "area")],
)
def test_metrics_are_logged_by_their_own_names(metric, name):
    assert OnTarget(metric).name == name


def test_directions_are_those_of_the_wrapped_metric():
    assert OnTarget("accuracy")._direction == "up"
    assert OnTarget(keras.metrics.AUC())._direction == "up"
    assert OnTarget("mse")._direction == "down"
    assert not hasattr(OnTarget(keras.metrics.MeanMetricWrapper(squared_distance)), "_direction")


def test_wrapped_state_resets():
    metric = OnTarget("accuracy")
    metric.update_state(join_reference(np.array([0]), np.array([[1.0, 0.0]])), np.array([[1.0, 0.0]]))
    assert float(metric.result()) == 1.0
    metric.reset_state()
    assert float(metric.result()) == 0.0


def test_inside_a_model_that_takes_the_label_apart_it_sees_the_label():
    metric = OnTarget("accuracy")
    with fed_by_model():
        metric.update_state(np.array([0, 1]), ops.array([[1.0, 0.0], [1.0, 0.0]]))
    assert float(metric.result()) == 0.5


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: OnTarget(BTC()), TypeError, "must see h1's output"),
        (lambda: OnTarget(["accuracy"]), TypeError, "wrap each by itself"),
        (lambda: OnTarget("acuracy"), ValueError, "acuracy"),
        (lambda: TargetLoss(None), ValueError, "Received: loss=None"),
        (lambda: TargetLoss("crosentropy"), ValueError, "crosentropy"),
    ],
)
def test_what_cannot_be_wrapped_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("wrapped", ["loss", "metric"])
def test_labels_without_h1_are_refused_with_the_remedy(wrapped):
    x, y = data(16)
    model = net(classes=CLASSES)
    loss = "sparse_categorical_crossentropy"
    model.compile(
        "sgd", TargetLoss(loss) if wrapped == "loss" else loss, metrics=[OnTarget("accuracy")] * (wrapped == "metric")
    )
    with pytest.raises(ValueError, match=r"x, y = attach_h1\(h1, x, y\)"):
        model.fit(x, y, verbose=0)
