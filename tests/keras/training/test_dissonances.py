"""Dissonances by name in a `BCModel`: equal to the loss as an object; what is refused; how logits are read."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from backends import once
from scipy.special import expit, softmax
from user_models import data, net

from bc_core import ClassMap
from bc_keras import BCModel, CompatibilityLoss, sweep, unwrap

SPARSE = "sparse_categorical_crossentropy"
X, Y = data(48)


def of_their_own(target, output):
    return 2 * keras.losses.categorical_crossentropy(target, output)


def fitted(model, loss=SPARSE, y=Y):
    model.compile(keras.optimizers.SGD(0.5), loss=loss)
    history = model.fit(X, y, batch_size=16, epochs=2, shuffle=False, verbose=0).history
    return history, unwrap(model).get_weights()


@once
@pytest.mark.parametrize(
    ("name", "options", "lambda_c"),
    [
        ("focal_distillation", {"temperature": 4.0, "beta": 2.0}, 2.0),
        ("logit_difference_inhibition", {"margin": 0.1, "top_k": 2}, 2.0),
        ("churn", {}, 0.5),
        ("anchor", {"share": 0.9}, 1.0),
        ("where_h1_is_surer", {}, 4.0),
        ("where_h2_is_wrong", {}, 4.0),
    ],
)
def test_by_name_is_the_loss_as_an_object(name, options, lambda_c):
    made = [
        BCModel(net(1), h1=net(0), lambda_c=lambda_c, loss=name, loss_options=options),
        BCModel(net(1), h1=net(0), lambda_c=lambda_c, dissonance=name, loss_options=options),
        BCModel(net(1), h1=net(0), loss=CompatibilityLoss("cross_entropy", name, lambda_c, **options)),
    ]
    assert [model.dissonance for model in made] == [name] * 3
    (history, weights), *others = map(fitted, made)
    assert not np.allclose(weights[0], net(1).get_weights()[0])
    for other, their_weights in others:
        assert other == history
        for ours, theirs in zip(weights, their_weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("activation", [None, "sigmoid"])
@pytest.mark.parametrize(("name", "columns"), [("strict_imitation", 1), ("imitation", 1), ("new_error", 3)])
def test_signs_of_a_hinge_are_its_zeros_and_ones(name, columns, activation):
    """The cross-entropy beside it takes no -1: torch refuses it, and elsewhere the numbers were others.

    New error is the hinge again, of each label.
    """

    def scores(seed):
        keras.utils.set_random_seed(seed)
        layers = keras.layers
        return keras.Sequential([layers.Input(X.shape[1:]), layers.Dense(columns, activation=activation)])

    labels = np.arange(columns) == Y[:, None] if columns > 1 else Y[:, None] > 0
    h1, h2 = scores(0), scores(1)
    z1, z2 = (model.predict(X, verbose=0).astype("float64") for model in (h1, h2))
    p1, p2 = (expit(z1), expit(z2)) if activation is None else (z1, z2)
    held = 1 if name == "imitation" else (p1 >= 0.5) == labels
    values = -(p1 * np.log(p2) + (1 - p1) * np.log(1 - p2))
    if name == "new_error":
        values = np.maximum(1 - np.where(labels, 1, -1) * z2, 0) ** 2
    expected = (held * values).mean()
    for y in (labels, np.where(labels, 1, -1), np.where(labels, 1.0, -1.0)):
        logits = {"from_logits": True} if activation is None else {}
        model = BCModel(h2, h1=h1, dissonance=name, multilabel=columns > 1, **logits)
        model.compile(keras.optimizers.SGD(0.0), "squared_hinge")
        history = model.fit(X, y, verbose=0).history
        np.testing.assert_allclose(history["dissonance"], [expected], rtol=1e-4)
        unwrap(model)


def test_one_batch_against_the_formula():
    h1, h2, temperature = net(0), net(1), 3.0
    p1, p2 = (
        softmax(np.log(model.predict(X, verbose=0).astype("float64")) / temperature, axis=1) for model in (h1, h2)
    )
    right = h1.predict(X, verbose=0).argmax(1) == Y
    expected = ((0.5 + 4 * right) * temperature**2 * (p1 * np.log(p1 / p2)).sum(1)).mean()
    options = {"temperature": temperature, "alpha": 0.5, "beta": 4.0}
    model = BCModel(h2, h1=h1, loss="focal_distillation", loss_options=options)
    model.compile(loss=SPARSE)
    found = model.evaluate(X, Y, batch_size=48, verbose=0, return_dict=True)
    assert found["dissonance"] == pytest.approx(expected, rel=1e-4)


def test_lambda_0_is_plain_training_to_the_bit():
    _, plain = fitted(net(1))
    for name in ("focal_distillation", "logit_distance", "where_h2_is_wrong"):
        _, ours = fitted(BCModel(net(1), h1=net(0), loss=name, lambda_c=0.0))
        for one, other in zip(ours, plain, strict=True):
            np.testing.assert_array_equal(one, other)


def test_logits_and_probabilities_meet_as_log_probabilities():
    z1, z2 = np.random.default_rng(0).normal(size=(2, 8, 3)).astype("float32")
    target = z1.argmax(1)
    options = {"alpha": 1.0, "beta": 0.0, "over_classes": "sum"}
    log_p1, log_p2 = (np.log(softmax(z.astype("float64"), axis=1)) for z in (z1, z2))
    for given2, given1, from_logits, h1_from_logits in (
        (z2, np.exp(log_p1), True, False),
        (np.exp(log_p2), z1, False, True),
        (np.exp(log_p2), np.exp(log_p1), False, False),
    ):
        how = {"from_logits": from_logits, "h1_from_logits": h1_from_logits}
        plain, held = (
            CompatibilityLoss("cross_entropy", "logit_distance", lambda_c, **how, **options)(
                given2.astype("float32"), target, given1.astype("float32"), reduction="none"
            )
            for lambda_c in (0.0, 1.0)
        )
        found = keras.ops.convert_to_numpy(held) - keras.ops.convert_to_numpy(plain)
        np.testing.assert_allclose(found, 0.5 * ((log_p2 - log_p1) ** 2).sum(1), rtol=1e-4, atol=1e-5)


def test_options_are_saved_with_the_loss_and_the_model(tmp_path):
    loss = CompatibilityLoss("cross_entropy", "focal_distillation", temperature=4.0)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert again.dissonance_options == {"alpha": 1.0, "beta": 5.0, "temperature": 4.0}
    model = BCModel(net(1), h1=net(0), loss="logit_difference_inhibition", loss_options={"top_k": 2, "margin": 0.1})
    model.compile("sgd", loss=SPARSE)
    model.save(tmp_path / "whole.keras", with_h1=True)
    loaded = keras.saving.load_model(tmp_path / "whole.keras")
    assert loaded.dissonance == "logit_difference_inhibition"
    assert loaded.evaluate(X, Y, verbose=0, return_dict=True)["dissonance"] == pytest.approx(
        model.evaluate(X, Y, verbose=0, return_dict=True)["dissonance"], rel=1e-5
    )


class TestBadInput:
    def test_names_and_options(self):
        with pytest.raises(ValueError, match="loss must be one of.*or a dissonance, perhaps 'focal_distillation'"):
            BCModel(net(1), h1=net(0), loss="focal_distilation")
        with pytest.raises(ValueError, match="temperature must be a number > 0. Received: temperature=0"):
            BCModel(net(1), h1=net(0), loss="focal_distillation", loss_options={"temperature": 0})
        with pytest.raises(TypeError, match="dissonance='new_error' has no option 'temperature'"):
            BCModel(net(1), h1=net(0), loss_options={"temperature": 2.0})
        with pytest.raises(TypeError, match="give these to the loss object itself"):
            BCModel(net(1), h1=net(0), loss=CompatibilityLoss(), loss_options={"ignore_class": 1})
        with pytest.raises(TypeError, match="Say from_logits to BCModel itself"):
            BCModel(net(1), h1=net(0), loss="BCCrossEntropyLoss", loss_options={"from_logits": True})

    @pytest.mark.parametrize(
        "loss",
        [
            "mse",
            keras.losses.CategoricalFocalCrossentropy(),
            keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
            of_their_own,
        ],
        ids=["mse", "focal", "smoothed", "own"],
    )
    def test_a_share_of_the_target_needs_the_base_that_is_trained(self, loss):
        one_hot = np.eye(3, dtype="float32")[Y]
        made = CompatibilityLoss("cross_entropy", "churn", 0.5)
        with pytest.raises(ValueError, match="in the place of a share of the target.*dissonance='imitation' only adds"):
            fitted(BCModel(net(1), h1=net(0), loss=made), loss, one_hot)
        fitted(BCModel(net(1), h1=net(0), dissonance="imitation"), loss, one_hot)
        # A plain name takes the options of the compiled loss.
        fitted(BCModel(net(1), h1=net(0), loss="churn"), keras.losses.CategoricalCrossentropy(), one_hot)
        fitted(BCModel(net(1), h1=net(0), loss=made), None, one_hot)

    def test_more_than_the_whole_target(self):
        with pytest.raises(ValueError, match="at most 1"):
            BCModel(net(1), h1=net(0), loss="churn", lambda_c=2.0)
        model = BCModel(net(1), h1=net(0), loss="anchor")
        with pytest.raises(ValueError, match="at most 1"):
            model.lambda_c = 1.1

    def test_logits_of_classes_that_h1_does_not_have(self):
        with pytest.raises(ValueError, match="compares logits.*take dissonance='focal_distillation'"):
            BCModel(net(1), h1=net(0, classes=2), loss="logit_distance", class_map=[0, 2])
        model = BCModel(net(1), h1=net(0, classes=2), loss="focal_distillation", class_map=ClassMap([0, 2], new=[1]))
        assert all(np.isfinite(weights).all() for weights in fitted(model)[1])

    def test_labels_alone(self):
        model = BCModel(net(1), h1=lambda x: keras.ops.argmax(x[:, :3], axis=-1), loss="logit_distance")
        with pytest.raises(ValueError, match="imitates h1's probabilities"):
            fitted(model)


@once
def test_a_sweep_over_dissonances_by_name(tmp_path):
    given = {
        "compile": {"optimizer": "sgd", "loss": SPARSE, "run_eagerly": True},
        "fit": {"epochs": 1, "verbose": 0},
        "tensorboard": False,
        "progress_bar": False,
    }
    losses = ["focal_distillation", "where_h1_is_surer"]
    found = sweep(lambda: net(1), net(0), (X, Y), folder=tmp_path, losses=losses, lambdas=[0, 1], **given)
    assert {row["loss"] for row in found.rows() if row["lambda_c"]} == set(losses)
    assert not found.failures
    with pytest.raises(ValueError, match="at most 1.*Received: 16"):
        sweep(lambda: net(1), net(0), (X, Y), folder=tmp_path / "other", losses=["churn"], lambdas=[0, 16], **given)
