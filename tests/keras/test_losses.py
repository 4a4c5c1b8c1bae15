"""The losses: golden vectors, Keras's own losses, properties of the definition, bad input."""

from __future__ import annotations

import contextlib
import functools
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from user_models import data, net, value_and_gradient

import bc_keras
from bc_keras import CompatibilityLoss
from bc_keras.losses._losses import MODEL_LOSSES

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "losses.json").read_text())
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


@contextlib.contextmanager
def double_precision():
    """JAX has float64 only where it is asked for."""
    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    with jax.enable_x64(True):
        yield


def golden(base, dissonance):
    cases = [case for case in GOLDEN if (case["base"], case["dissonance"]) == (base, dissonance)]
    assert len(cases) == 96
    return cases


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


# 1e-9 and 1e-5 are what the golden vectors promise; gradients of large logits cancel, hence the atol.
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-5)])
@pytest.mark.parametrize("dissonance", DISSONANCES[:2])
@pytest.mark.parametrize("base", BASES)
def test_golden_vectors_on_outputs(base, dissonance, dtype, tolerance):
    with double_precision():
        for case in golden(base, dissonance):
            loss = CompatibilityLoss(
                base, dissonance, case["lambda_c"], case["normalization"], from_logits=True, dtype=dtype
            )
            target, h1 = np.array(case["target"]), np.array(case["h1_logits"], dtype=dtype)

            def mean(h2, loss=loss, target=target, h1=h1):
                # Keras's own mean rounds float64 to float32 on torch (its `divide_no_nan`), its sum does not.
                return loss(h2, target, h1, reduction="sum") / len(target)

            value, gradient = value_and_gradient(mean, case["h2_logits"], dtype)
            if dtype == "float32":
                assert float(loss(np.array(case["h2_logits"], dtype), target, h1)) == pytest.approx(value, rel=1e-6)
            np.testing.assert_allclose(value, case["loss"], rtol=tolerance, atol=tolerance)
            np.testing.assert_allclose(gradient, case["grad_h2_logits"], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("base", "dissonance"), NAMES)
def test_golden_vectors_on_models(base, dissonance):
    for case in golden(base, dissonance)[::8]:
        h2, h1 = (np.array(case[name], dtype="float32") for name in ("h2_logits", "h1_logits"))
        if np.abs(h2).max() > 12 or np.abs(h1).max() > 12:
            continue  # beyond that a probability in float32 has lost what the logit said
        for logits, of in ((True, lambda scores: scores), (False, probabilities)):
            loss = getattr(bc_keras, NAMES[base, dissonance])(
                functools.partial(answer, of(h1)),
                functools.partial(answer, of(h2)),
                case["lambda_c"],
                normalization=case["normalization"],
                from_logits=logits,
            )
            value = float(loss(np.zeros(len(h2)), np.array(case["target"])))
            np.testing.assert_allclose(value, case["loss"], rtol=2e-5, atol=1e-5)


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
    def test_lambda_0_is_the_base_to_the_bit(self, base, dissonance):
        h2, target, h1 = outputs(base)
        plain = CompatibilityLoss(base, "new_error", 0, from_logits=True)(h2, target, h1)
        assert float(CompatibilityLoss(base, dissonance, 0.0, from_logits=True)(h2, target, h1)) == float(plain)

    def test_two_halves_average_to_the_whole(self, base, dissonance):
        h2, target, h1 = outputs(base)
        loss = CompatibilityLoss(base, dissonance, 2.0, from_logits=True)
        halves = [float(loss(h2[half], target[half], h1[half])) for half in (slice(16), slice(16, None))]
        assert np.mean(halves) == pytest.approx(float(loss(h2, target, h1)), rel=1e-6)

    def test_h1_never_right_is_the_plain_loss(self, base, dissonance):
        h2, _, h1 = outputs(base)
        wrong = (h1 <= 0).astype(int) if h1.ndim == 1 else (h1.argmax(1) + 1) % 5
        for normalization in ("batch", "support"):
            loss = CompatibilityLoss(base, dissonance, 2.0, normalization, from_logits=True)
            plain = CompatibilityLoss(base, "new_error", 0.0, from_logits=True)
            if dissonance != "imitation":
                assert float(loss(h2, wrong, h1)) == float(plain(h2, wrong, h1))

    def test_reductions_agree(self, base, dissonance):
        h2, target, h1 = outputs(base)
        for normalization in ("batch", "support"):
            loss = CompatibilityLoss(base, dissonance, 2.0, normalization, from_logits=True)
            each = ops.convert_to_numpy(loss(h2, target, h1, reduction="none"))
            assert each.shape == (32,)
            assert float(loss(h2, target, h1, reduction="sum")) == pytest.approx(each.sum(), rel=1e-5)
            assert float(loss(h2, target, h1)) == pytest.approx(each.mean(), rel=1e-5)

    def test_gaps_of_1000_are_finite(self, base, dissonance):
        h2, h1 = (sign * np.array([1000.0, 0.0, -1000.0], dtype="float32") for sign in (1, -1))
        target = np.array([0, 0, 1])
        if base != "binary_cross_entropy":
            h2, h1 = (np.stack([scores, -scores], axis=1) for scores in (h2, h1))
        loss = CompatibilityLoss(base, dissonance, 2.0, from_logits=True)
        value, gradient = value_and_gradient(lambda h2: loss(h2, target, h1), h2, "float32")
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()

    @pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64", "float32"])
    def test_labels_of_any_dtype_and_shape(self, base, dissonance, dtype):
        h2, target, h1 = outputs(base)
        loss = CompatibilityLoss(base, dissonance, 2.0, from_logits=True)
        expected = float(loss(h2, target, h1))
        assert float(loss(h2, target.astype(dtype), h1)) == expected
        assert float(loss(h2, target.astype(dtype)[:, None], h1)) == expected
        if base != "binary_cross_entropy":
            assert float(loss(h2, np.eye(5)[target].astype(dtype), h1)) == expected
        else:
            assert float(loss(h2[:, None], target.astype(dtype), h1[:, None])) == expected

    def test_serialisation(self, base, dissonance):
        loss = CompatibilityLoss(base, dissonance, 2.5, "support", from_logits=True, reduction="sum", name="mine")
        revived = keras.losses.deserialize(json.loads(json.dumps(keras.losses.serialize(loss))))
        assert revived.get_config() == loss.get_config()
        h2, target, h1 = outputs(base)
        assert float(revived(h2, target, h1)) == float(loss(h2, target, h1))


@pytest.mark.parametrize("base", BASES)
def test_h1_labels_suffice_for_new_error(base):
    h2, target, h1 = outputs(base)
    labels = (h1 > 0).astype(int) if h1.ndim == 1 else h1.argmax(1)
    loss = CompatibilityLoss(base, "new_error", 2.0, from_logits=True)
    assert float(loss(h2, target, labels)) == float(loss(h2, target, h1))
    with pytest.raises(ValueError, match="imitates h1's probabilities"):
        CompatibilityLoss(base, "strict_imitation", 2.0, from_logits=True)(h2, target, labels)


def test_soft_targets_label_smoothing_and_ignored_classes():
    h2, target, h1 = outputs("cross_entropy")
    smoothed = CompatibilityLoss("cross_entropy", lambda_c=0.0, from_logits=True, label_smoothing=0.2)
    theirs = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)
    assert float(smoothed(h2, target, h1)) == pytest.approx(float(theirs(np.eye(5)[target], h2)), rel=1e-6)

    keep = np.arange(32) % 3 > 0
    loss = CompatibilityLoss("cross_entropy", "strict_imitation", 2.0, from_logits=True, ignore_class=-1)
    ignored = float(loss(h2, np.where(keep, target, -1), h1))
    assert ignored == pytest.approx(float(loss(h2[keep], target[keep], h1[keep])), rel=1e-6)

    soft = probabilities(np.random.default_rng(3).normal(size=(32, 5)))
    perfect = CompatibilityLoss("kl_divergence", lambda_c=2.0)
    assert float(perfect(soft.astype("float32"), soft, soft)) == pytest.approx(0, abs=1e-6)


def test_multilabel_scores_are_labels_of_their_own():
    random = np.random.default_rng(0)
    h2, h1 = (random.normal(size=(16, 4)).astype("float32") for _ in range(2))
    target = random.integers(2, size=(16, 4))
    for dissonance in DISSONANCES:
        loss = CompatibilityLoss("binary_cross_entropy", dissonance, 2.0, from_logits=True)
        flat = float(loss(h2.ravel(), target.ravel(), h1.ravel()))
        assert float(loss(h2, target, h1)) == pytest.approx(flat, rel=1e-6)


def test_dense_outputs_are_instances_at_each_position():
    random = np.random.default_rng(0)
    h2, h1 = (random.normal(size=(2, 3, 4, 5)).astype("float32") for _ in range(2))
    target = random.integers(5, size=(2, 3, 4))
    loss = CompatibilityLoss("cross_entropy", "strict_imitation", 2.0, from_logits=True)
    flat = float(loss(h2.reshape(24, 5), target.ravel(), h1.reshape(24, 5)))
    assert float(loss(h2, target, h1)) == pytest.approx(flat, rel=1e-6)


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
        ({"target": np.array([0, 1, 9])}, r"class indices in 0\.\.2.*Received: label 9 at index \(2,\)"),
        ({"target": np.array([0, 1])}, "Received: shape"),
        ({"h1": np.zeros((3, 4), "float32")}, "class_map"),
        ({"h2": np.full((3, 3), np.nan, "float32")}, "h2 must give finite scores.*NaN"),
        ({"h1": np.full((3, 3), np.inf, "float32")}, "h1 must give finite scores.*infinity"),
        ({"h2": np.full((3, 3), 7.0, "float32")}, "from_logits=True"),
        ({"h2": np.zeros((0, 3), "float32"), "target": np.zeros(0), "h1": np.zeros((0, 3))}, "The batch is empty"),
        ({"h2": np.zeros((3, 1), "float32")}, "binary_cross_entropy"),
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
        ({"base": "hinge"}, ValueError, "'cross_entropy'"),
        ({"dissonance": "newerror"}, ValueError, "'new_error'"),
        ({"lambda_c": -1}, ValueError, ">= 0"),
        ({"lambda_c": float("nan")}, ValueError, "finite"),
        ({"base": "nll", "label_smoothing": 0.1}, TypeError, "no label_smoothing"),
        ({"label_smoothing": 2.0}, ValueError, r"0\.\.1"),
        ({"base": "binary_cross_entropy", "threshold": 1.0}, ValueError, "between 0 and 1"),
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
    with pytest.raises(ValueError, match="num_classes=4"):
        bc_keras.BCKLDivergenceLoss(h1, h2, 0.5, num_classes=4)(*data())
    with pytest.raises(ValueError, match="one tensor"):
        bc_keras.BCCrossEntropyLoss(lambda x: {"a": h1(x), "b": h1(x)}, h2, 0.5)(*data())
