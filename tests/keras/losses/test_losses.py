"""What the losses are in Keras alone; what both sides promise is in tests/conformance."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from user_models import data, net

import bc_keras
from bc_keras import CompatibilityLoss
from bc_keras.losses._losses import MODEL_LOSSES

GOLDEN = json.loads((Path(__file__).parents[2] / "data" / "losses.json").read_text())
BASES = ("nll", "cross_entropy", "binary_cross_entropy", "kl_divergence")
DISSONANCES = ("new_error", "strict_imitation", "imitation")
NAMES = {
    ("nll", "new_error"): "BCNLLLoss",
    ("cross_entropy", "new_error"): "BCCrossEntropyLoss",
    ("binary_cross_entropy", "new_error"): "BCBinaryCrossEntropyLoss",
    ("kl_divergence", "new_error"): "BCKLDivergenceLoss",
    ("nll", "strict_imitation"): "StrictImitationNLLLoss",
    ("cross_entropy", "strict_imitation"): "StrictImitationCrossEntropyLoss",
    ("binary_cross_entropy", "strict_imitation"): "StrictImitationBinaryCrossEntropyLoss",
    ("kl_divergence", "strict_imitation"): "StrictImitationKLDivergenceLoss",
}


def outputs(base, n=32, classes=5, seed=0):
    """Logits of two models and a target, about half of it right for h1."""
    random = np.random.default_rng(seed)
    shape = (n,) if base == "binary_cross_entropy" else (n, classes)
    h1, h2 = (3 * random.normal(size=shape).astype("float32") for _ in range(2))
    right = (h1 > 0).astype(int) if h1.ndim == 1 else h1.argmax(1)
    wrong = random.integers(2 if h1.ndim == 1 else classes, size=n)
    return h2, np.where(random.random(n) < 0.5, right, wrong), h1


def answer(scores, x):
    """A model that gives these scores for any input."""
    return ops.convert_to_tensor(scores)


def probabilities(logits):
    if logits.ndim == 1:
        return 1 / (1 + np.exp(-logits))
    exp = np.exp(logits - logits.max(1, keepdims=True))
    return exp / exp.sum(1, keepdims=True)


@pytest.mark.parametrize(
    ("base", "keras_loss"),
    [
        ("cross_entropy", keras.losses.SparseCategoricalCrossentropy),
        ("nll", keras.losses.SparseCategoricalCrossentropy),
        ("binary_cross_entropy", keras.losses.BinaryCrossentropy),
    ],
)
@pytest.mark.parametrize("from_logits", [True, False])
def test_new_error_is_keras_own_loss_with_more_weight_where_h1_is_right(base, keras_loss, from_logits):
    h2, target, h1 = outputs(base)
    if not from_logits:
        h2, h1 = probabilities(h2), probabilities(h1)
    right = ((h1 > (0 if from_logits else 0.5)).astype(int) if h1.ndim == 1 else h1.argmax(1)) == target
    instance = np.random.default_rng(1).random(len(target)).astype("float32")
    column = (lambda array: array[:, None]) if h1.ndim == 1 else (lambda array: array)
    for weight in (None, instance):
        expected = keras_loss(from_logits=from_logits)(
            column(target), column(h2), sample_weight=(1 + 3.0 * right) * (1 if weight is None else weight)
        )
        loss = CompatibilityLoss(base, "new_error", 3.0, from_logits=from_logits)
        # One float32 sum of 32 terms in another order.
        assert float(loss(h2, target, h1, weight)) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("dissonance", DISSONANCES)
@pytest.mark.parametrize("base", BASES)
class TestProperties:
    def test_one_hot_labels_of_any_dtype(self, base, dissonance):
        h2, target, h1 = outputs(base)
        loss = CompatibilityLoss(base, dissonance, 2.0, from_logits=True)
        for dtype in ("int8", "uint8", "int16", "int32", "int64", "float32"):
            if base != "binary_cross_entropy":
                assert float(loss(h2, np.eye(5)[target].astype(dtype), h1)) == float(loss(h2, target, h1))

    def test_serialisation(self, base, dissonance):
        loss = CompatibilityLoss(base, dissonance, 2.5, "support", from_logits=True, reduction="sum", name="mine")
        revived = keras.losses.deserialize(json.loads(json.dumps(keras.losses.serialize(loss))))
        assert revived.get_config() == loss.get_config()
        h2, target, h1 = outputs(base)
        assert float(revived(h2, target, h1)) == float(loss(h2, target, h1))


def test_label_smoothing_and_soft_probabilities():
    h2, target, h1 = outputs("cross_entropy")
    smoothed = CompatibilityLoss("cross_entropy", lambda_c=0.0, from_logits=True, label_smoothing=0.2)
    theirs = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)
    assert float(smoothed(h2, target, h1)) == pytest.approx(float(theirs(np.eye(5)[target], h2)), rel=1e-6)

    soft = probabilities(np.random.default_rng(3).normal(size=(32, 5)))
    perfect = CompatibilityLoss("kl_divergence", lambda_c=2.0)
    assert float(perfect(soft.astype("float32"), soft, soft)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", sorted(MODEL_LOSSES))
def test_named_losses_run_each_model_once_and_never_train_h1(name):
    binary = "Binary" in name
    h1, h2 = (net(seed, 1 if binary else 3, "sigmoid" if binary else "softmax") for seed in (0, 1))
    calls = {"h1": 0, "h2": 0}

    def counted(model, key):
        def call(x):
            calls[key] += 1
            return model(x)

        return call

    x, y = data()
    y = y % 2 if binary else y
    loss = getattr(bc_keras, name)(counted(h1, "h1"), counted(h2, "h2"), 0.5)
    assert np.isfinite(float(loss(x, y)))
    assert calls == {"h1": 1, "h2": 1}


def test_named_losses_pass_their_config_on():
    h1, h2 = net(0), net(1)
    loss = bc_keras.BCKLDivLoss(h1, h2, 0.5, num_classes=3, from_logits=True, class_map=[0, 1, 2])
    revived = keras.saving.deserialize_keras_object(json.loads(json.dumps(keras.saving.serialize_keras_object(loss))))
    assert type(revived) is bc_keras.BCKLDivergenceLoss
    revived.h1.set_weights(h1.get_weights())
    revived.h2.set_weights(h2.get_weights())
    x, y = data()
    assert float(revived(x, y)) == float(loss(x, y))
    nll = bc_keras.BCNLLLoss(h1, h2, 0.5, clip_value_min=1e-3)
    assert keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(nll)).criterion.epsilon == 1e-3


def test_original_spellings_are_the_same_losses():
    assert bc_keras.BCKLDivLoss is bc_keras.BCKLDivergenceLoss
    for name in ("NLL", "CrossEntropy", "BinaryCrossEntropy"):
        assert getattr(bc_keras, f"BCStrictImitation{name}Loss") is getattr(bc_keras, f"StrictImitation{name}Loss")
    assert bc_keras.BCStrictImitationKLDivLoss is bc_keras.StrictImitationKLDivergenceLoss


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"h2": np.full((3, 3), 7.0, "float32")}, "from_logits=True"),
        ({"h1": None}, r"BCModel\(h2, h1=h1"),
    ],
)
def test_bad_batches_are_refused(change, message):
    batch = {"h2": np.full((3, 3), 1 / 3, "float32"), "target": np.array([0, 1, 2]), "h1": np.full((3, 3), 1 / 3)}
    batch.update(change)
    with pytest.raises(ValueError, match=message):
        CompatibilityLoss()(batch["h2"], batch["target"], batch["h1"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"reduction": "average"}, ValueError, "batchmean"),
        ({"discriminan_pivot": 0.5}, TypeError, "discriminan_pivot"),
    ],
)
def test_bad_options_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        CompatibilityLoss(**options)


def test_bad_models_are_refused():
    h1, h2 = net(0), net(1)
    with pytest.raises(TypeError, match="Known options: 'discriminant_pivot'"):
        bc_keras.BCBinaryCrossEntropyLoss(h1, h2, 0.5, discriminan_pivot=0.5)
    with pytest.raises(ValueError, match="h1 has no weights yet"):
        bc_keras.BCCrossEntropyLoss(keras.Sequential([keras.layers.Dense(3)]), h2, 0.5)
    with pytest.raises(ValueError, match="one model"):
        bc_keras.BCCrossEntropyLoss(h1, h1, 0.5)
    with pytest.raises(ValueError, match="share variables"):
        bc_keras.BCCrossEntropyLoss(h1, keras.Sequential([keras.Input((4,)), *h1.layers]), 0.5)
    with pytest.raises(ValueError, match="one tensor"):
        bc_keras.BCCrossEntropyLoss(lambda x: {"a": h1(x), "b": h1(x)}, h2, 0.5)(*data())
