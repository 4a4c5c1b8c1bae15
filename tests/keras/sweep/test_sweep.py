"""Sweeps in Keras, against training by hand."""

import json

import cloudpickle
import keras
import numpy as np
import pytest
from backends import FEW_STEPS, once
from keras import ops
from swept_in_keras import (
    COMPILE,
    COMPILED,
    FIT,
    MIDDLE,
    PLAIN,
    Pieces,
    assert_same,
    data,
    net,
    recipe,
    run,
    trained,
    weights_of,
)

from bc_core.sweep._folder import SweepFolder
from bc_core.sweep._points import Point
from bc_keras import BEC, BTC, BCBinaryCrossEntropyLoss, BCModel, CompatibilityLoss, StoredOutputs
from bc_keras.sweep._remade import cloned
from bc_tensorboard.writing._sweep_log import SweepLog

BACKEND = keras.backend.backend()


def by_hand(point, h1, x, y, how=COMPILE, **options):
    keras.utils.set_random_seed(point.seed)
    h2 = net()
    model = h2 if h1 is None else BCModel(h2, h1=h1, lambda_c=point.lambda_c, dissonance=point.loss)
    model.compile(**how)
    model.fit(x, y, verbose=0, **FIT, **options)
    return h2


# What is trained


@pytest.mark.parametrize("how", [{**COMPILED, "run_eagerly": True}, COMPILED])
def test_plain_training_is_that_of_keras(h1, tmp_path, how):
    place = trained(recipe(net, h1, data(), compile=how), tmp_path, PLAIN)
    assert_same(weights_of(place, PLAIN), by_hand(PLAIN, None, *data(), how=how).get_weights())


@pytest.mark.parametrize("loss", ["new_error", "strict_imitation", "imitation"])
def test_a_point_whose_h1_is_asked_live_is_what_bcmodel_trains_by_hand(h1, tmp_path, loss):
    point = Point(loss, 2.0, 3)
    place = trained(recipe(net, h1, data(), test=data(32, 1), losses=[loss], store_h1=False), tmp_path, point)
    h2 = by_hand(point, h1, *data())
    assert_same(weights_of(place, point), h2.get_weights(), 2e-6)
    x, y = data(32, 1)
    overlap = place.comparison(point, "test").overlap
    right1, right2 = (model.predict(x, verbose=0).argmax(1) == y for model in (h1, h2))
    assert overlap.nfr == np.mean(right1 & ~right2)
    assert (overlap.accuracy_h1, overlap.accuracy_h2) == (right1.mean(), right2.mean())


def test_a_copy_draws_random_numbers_of_the_seed():
    h2 = net()
    drawn = []
    for _ in range(2):
        keras.utils.set_random_seed(5)
        drawn.append(ops.convert_to_numpy(cloned(h2)(data()[0], training=True)))
    np.testing.assert_array_equal(*drawn)


@once
def test_optimizer_metrics_and_callbacks_are_not_shared(h1, tmp_path):
    optimizer, metric = keras.optimizers.Adam(0.01), BTC()

    class Noting(keras.callbacks.Callback):
        seen = 0

        def on_epoch_end(self, epoch, logs=None):
            assert "btc" in logs
            assert "val_loss" in logs
            self.seen += 1
            assert self.seen <= FIT["epochs"]

    callback = Noting()
    made = recipe(
        net,
        h1,
        data(),
        val=data(24, 2),
        compile={**COMPILE, "optimizer": optimizer, "metrics": [metric, BEC(), "accuracy"]},
        fit={**FIT, "callbacks": [callback]},
    )
    place = trained(made, tmp_path, PLAIN, MIDDLE)
    assert all(map(place.is_finished, (PLAIN, MIDDLE)))
    assert callback.seen == 0
    assert not optimizer.built


@once
def test_functions_make_callbacks_and_compile_arguments(h1, tmp_path):
    made_callbacks, made_arguments = [], []

    def callbacks():
        made_callbacks.append(keras.callbacks.EarlyStopping("val_loss"))
        return made_callbacks[-1:]

    def arguments():
        made_arguments.append(keras.optimizers.SGD(0.1))
        return {**COMPILE, "optimizer": made_arguments[-1]}

    place = trained(
        recipe(net, h1, data(), val=data(24, 2), compile=arguments, fit={**FIT, "callbacks": callbacks}),
        tmp_path,
        PLAIN,
        MIDDLE,
    )
    assert len(made_callbacks) == 2
    assert sum(optimizer.built for optimizer in made_arguments) == 2
    assert place.is_finished(MIDDLE)


def test_class_weight_and_sample_weight(h1, tmp_path):
    x, y = data()
    weights = np.linspace(0.5, 2, len(y)).astype("float32")
    class_weight = {0: 3.0, 2: 0.5}
    made = recipe(net, h1, (x, y, weights), fit={**FIT, "class_weight": class_weight})
    place = trained(made, tmp_path, MIDDLE)
    h2 = by_hand(MIDDLE, h1, x, y, sample_weight=weights * np.array([3.0, 1.0, 0.5])[y])
    assert_same(weights_of(place, MIDDLE), h2.get_weights(), 2e-6)


@once
def test_a_class_map_and_a_perfect_h1(tmp_path):
    class Other:
        def __call__(self, x):
            x = ops.convert_to_numpy(x)
            # h1's classes are 2, 0, 1 of h2's.
            return np.eye(3, dtype="float32")[x[:, :3].argmax(1)][:, [2, 0, 1]]

    made = recipe(net, Other(), data(), test=Pieces(*data(24, 4)), model_options={"class_map": [2, 0, 1]})
    place = trained(made, tmp_path, MIDDLE)
    for name in ("train", "test"):
        overlap = place.comparison(MIDDLE, name).overlap
        assert overlap.accuracy_h1 == 1
        assert overlap.h1_only_right + overlap.both_right == overlap.total


def test_a_binary_model(tmp_path):
    keras.utils.set_random_seed(2)
    h1 = net(1, "sigmoid")
    x, y = data(classes=2)
    options = {"compile": {"optimizer": "adam", "loss": "binary_crossentropy", **FEW_STEPS}}
    place = trained(recipe(lambda: net(1, "sigmoid"), h1, (x, y), test=Pieces(x, y), **options), tmp_path, MIDDLE)
    right = (h1.predict(x, verbose=0)[:, 0] >= 0.5) == y
    for name in ("train", "test"):
        assert place.comparison(MIDDLE, name).overlap.accuracy_h1 == right.mean()


# The caller's metric


def test_the_callers_metric_may_return_a_tensor(h1, tmp_path):
    asked = []

    def metric(model, dataset, device):
        asked.append(model)
        x, y = dataset
        return ops.convert_to_tensor(float((model.predict(x, verbose=0).argmax(1) == y).mean()))

    found = run(
        net, h1, data(), tmp_path, test=data(32, 1), lambdas=[0], losses=["new_error"], performance_metric=metric
    )
    for row in found.rows():
        for model in ("h1", "h2"):
            # A float32 of the metric.
            assert row[f"performance_{model}"] == pytest.approx(row[f"accuracy_{model}"], abs=1e-6)
    assert sum(model is h1 for model in asked) == 2


# The folder


def test_a_sweep_as_users_run_it(h1, tmp_path):
    options = {"val": data(24, 1), "test": data(32, 2), "lambdas": [0, 1]}
    found = run(net, h1, data(), tmp_path, **options)
    assert len(found.points) == 3
    assert len(found.rows("test")) == 4
    assert found.comparison("new_error", 1.0).lambda_c == 1.0
    assert found.comparison("new_error", 1.0).name == "new_error"
    rows = found.rows()
    again = run(net, h1, data(), tmp_path, **options)
    assert json.dumps(again.rows()) == json.dumps(rows)
    more = run(net, h1, data(), tmp_path, **{**options, "lambdas": [0.1], "losses": ["imitation"], "seeds": [1]})
    assert more.comparison("imitation", 0.1, 1).lambda_c == 0.1
    assert keras.saving.load_model(more.model_path("imitation", 0.1, 1)).predict(data()[0], verbose=0).shape == (40, 3)


@once
def test_tensorboard_runs(h1, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    place = trained(recipe(net, h1, data()), tmp_path, PLAIN, MIDDLE, trackers=[SweepLog(tmp_path)])
    for point in (PLAIN, MIDDLE):
        assert list((place.path / "tensorboard" / point.name).glob("*tfevents*"))
        curves = EventAccumulator(str(place.path / "tensorboard" / point.name / "training"))
        curves.Reload()
        logged = curves.Scalars("loss")
        assert [entry.step for entry in logged] == [0, 1]
        assert all(entry.value > 0 for entry in logged)


@once
def test_other_options_of_the_model_make_another_sweep(h1, tmp_path):
    run(net, h1, data(), tmp_path, lambdas=[0])
    with pytest.raises(ValueError, match="model_options was"):
        run(net, h1, data(), tmp_path, lambdas=[0], model_options={"normalization": "support"})


@once
def test_rows_of_unlabelled_inputs_are_no_matter_of_plain_training(h1, tmp_path):
    """Which reads none."""
    batch = {"unlabelled": data(16, 9)[0], "model_options": {"unlabelled_batch_size": 8}}
    found = run(net, h1, data(), tmp_path / "one", lambdas=[0, 1], losses="new_error", **batch)
    assert [row["lambda_c"] for row in found.rows("train")] == [0, 1]
    whole = {**batch, "model_options": {"unlabelled_batch_size": 16}}
    other = run(net, h1, data(), tmp_path / "other", lambdas=[0, 1], losses="new_error", **whole)
    plain, held = (
        [keras.saving.load_model(each.model_path("new_error", weight)).get_weights() for each in (found, other)]
        for weight in (0, 1)
    )
    assert_same(*plain)
    assert not np.array_equal(held[0][0], held[1][0])


@once
def test_losses_with_bases_of_their_own(tmp_path):
    keras.utils.set_random_seed(2)
    h1 = net(1, "sigmoid")
    losses = {
        "one": BCBinaryCrossEntropyLoss,
        "other": CompatibilityLoss("binary_cross_entropy", label_smoothing=0.2),
    }
    x, y = data(classes=2)
    options = {"compile": {"optimizer": "adam", "run_eagerly": True}, "losses": losses, "lambdas": [0]}
    found = run(lambda: net(1, "sigmoid"), h1, (x, y), tmp_path / "own", **options)
    assert [point.loss for point in found.points] == ["one", "other"]
    shared = run(
        lambda: net(1, "sigmoid"),
        h1,
        (x, y),
        tmp_path / "shared",
        **{**options, "compile": {**COMPILE, "loss": "binary_crossentropy"}},
    )
    assert [point.loss for point in shared.points] == [None]


# Other processes


class Halving(keras.layers.Layer):
    """A layer of the user's, registered nowhere."""

    def call(self, x):
        return x / 2


@once
def test_a_recipe_travels(tmp_path):
    keras.utils.set_random_seed(2)
    h1 = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), Halving(), keras.layers.Softmax()])
    made = recipe(
        h1,
        h1,
        data(),
        test=lambda: Pieces(*data(24, 1)),
        compile={**COMPILE, "optimizer": keras.optimizers.Adam(0.01), "metrics": [BTC()]},
        losses={"mine": CompatibilityLoss("cross_entropy", "imitation"), "new_error": "new_error"},
        save_models=False,
    )
    place = SweepFolder(tmp_path)
    points = [Point("mine", 1.0, 3), MIDDLE]
    place.begin(made.describe(), list(made.losses), points)
    made.prepare(place.path)
    back = cloudpickle.loads(cloudpickle.dumps(made))
    assert back.describe() == made.describe()
    first = made.train(points[0], tmp_path, lambda share: None)
    second = back.train(points[0], tmp_path, lambda share: None)
    assert first.comparisons == second.comparisons
    assert back.environment(1)["KERAS_BACKEND"] == BACKEND
    assert all(isinstance(value, str) for value in back.environment(2).values())


# What is refused

X, Y = data()


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"compile": {"optimizer": "adam"}}, ValueError, "compile needs a loss"),
        ({"compile": "adam"}, TypeError, "compile must hold arguments"),
        ({"train": (X[:0], Y[:0])}, ValueError, "train must hold as many labels"),
        ({"test": (X, Y[:5])}, ValueError, "test must hold as many labels"),
        ({"test": 5}, TypeError, "test must be"),
        ({"h2": keras.Sequential([keras.layers.Dense(3)])}, ValueError, "h2 has no weights yet"),
        ({"h1": 3}, TypeError, "h1 must be a Keras model"),
        ({"h1": StoredOutputs.from_table([0])}, TypeError, "h1 must be the model itself"),
        ({"fit": {"x": X}}, TypeError, r"train=\(x, y\)"),
        ({"fit": {"validation_data": (X, Y)}}, TypeError, "val="),
        ({"fit": {"epochs": 0}}, ValueError, "epochs must be"),
        ({"fit": 3}, TypeError, "fit must hold arguments"),
        ({"ids": ["a"]}, ValueError, "ids are given by data set"),
        ({"ids": {"train": [1, 2]}}, ValueError, "must name its 40 instances"),
        ({"ids": {"train": [1] * 40}}, ValueError, "must be unique"),
        ({"store_h1": True, "train": Pieces(X, Y)}, TypeError, "store_h1=True needs training data that stay"),
        ({"model_options": {"normalization": "suport"}}, ValueError, "normalization"),
        ({"unlabelled_weight": 2.0}, TypeError, "unlabelled_weight without inputs"),
        ({"unlabelled": X, "mixed_labels": 0.25}, TypeError, "mixed_labels without inputs"),
        ({"model_options": {"unlabelled_batch_size": 8}}, TypeError, "unlabelled_batch_size without inputs"),
    ],
)
def test_what_is_refused(h1, tmp_path, changes, error, says):
    given = {"h2": net, "h1": h1, "train": (X, Y), **changes}
    with pytest.raises(error, match=says):
        run(given.pop("h2"), given.pop("h1"), given.pop("train"), tmp_path / "new", **given)
    assert not (tmp_path / "new").exists()
