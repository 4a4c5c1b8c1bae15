"""The losses of both sides: golden vectors, numpy's form, properties of the definition, bad input."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest

from bc_core import ClassMap
from bc_core.losses._dissonances import DISSONANCES, Dissonance, Option
from bc_core.losses._documentation import NAMED_LOSSES
from bc_core.losses._numpy_loss import numpy_loss
from bc_core.losses._operations import NumpyOperations

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "losses.json").read_text())
BASES = ("nll", "cross_entropy", "binary_cross_entropy", "kl_divergence")
MULTICLASS = ("nll", "cross_entropy", "kl_divergence")
ON_SUPPORT = ("new_error", "strict_imitation")

each_base = pytest.mark.parametrize("base", BASES)
each_dissonance = pytest.mark.parametrize("dissonance", DISSONANCES)
each_normalization = pytest.mark.parametrize("normalization", ["batch", "support"])


def golden(base, dissonance):
    cases = [case for case in GOLDEN if (case["base"], case["dissonance"]) == (base, dissonance)]
    assert len(cases) == 96
    return cases


def outputs(base, n=32, classes=5, seed=0, dtype="float64"):
    """Logits of two models and a target, about half of it right for h1; the numbers are those of float32."""
    random = np.random.default_rng(seed)
    shape = (n,) if base == "binary_cross_entropy" else (n, classes)
    h1, h2 = (3 * random.normal(size=shape).astype("float32") for _ in range(2))
    right = (h1 > 0).astype(int) if h1.ndim == 1 else h1.argmax(1)
    wrong = random.integers(2 if h1.ndim == 1 else classes, size=n)
    target = np.where(random.random(n) < 0.5, right, wrong)
    return h2.astype(dtype), target, h1.astype(dtype)


def expected_loss(side, h2, target, h1, base, dissonance, *args, **options):
    """numpy's loss of what this side reads: with base='nll' torch's logits are log-probabilities."""
    if base == "nll" and side.nll_of_log_probabilities:
        h2, h1 = (NumpyOperations().log_softmax(scores) for scores in (h2, h1))
    return numpy_loss(h2, target, h1, base, dissonance, *args, **options)


def weight_for(dissonance, wanted):
    """A lambda_c that the dissonance may have."""
    most = DISSONANCES[dissonance].most_lambda
    return wanted if most is None else min(wanted, most)


def number(side, loss):
    value = side.array(loss)
    assert value.shape == ()
    return float(value)


def finite_differences(function, array, step=1e-6):
    gradient = np.empty_like(array)
    for index in np.ndindex(array.shape):
        moved = [array.copy(), array.copy()]
        moved[0][index] += step
        moved[1][index] -= step
        gradient[index] = (function(moved[0]) - function(moved[1])) / (2 * step)
    return gradient


# 1e-9 and 1e-5 are what the golden vectors' README promises; gradients of large logits cancel, hence the atol.
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-5)])
@pytest.mark.parametrize("dissonance", ON_SUPPORT)
@each_base
def test_golden_vectors_on_outputs(side, base, dissonance, dtype, tolerance):
    alike = {}
    for case in golden(base, dissonance):
        alike.setdefault((case["normalization"], np.shape(case["h2_logits"])), []).append(case)
    assert [len(cases) for cases in alike.values()] == [12] * 8
    for (normalization, _), cases in alike.items():
        loss = functools.partial(side.loss, base, dissonance, normalization=normalization, dtype=dtype)
        given = (np.array([case[name] for case in cases]) for name in ("lambda_c", "h2_logits", "target", "h1_logits"))
        for case, value, gradient in zip(cases, *side.values_and_gradients(loss, *given, dtype), strict=True):
            np.testing.assert_allclose(value, case["loss"], rtol=tolerance, atol=tolerance)
            np.testing.assert_allclose(gradient, case["grad_h2_logits"], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", NAMED_LOSSES)
def test_golden_vectors_on_models(side, name):
    base, dissonance = NAMED_LOSSES[name]
    for output, largest, options in side.binary_outputs if base == "binary_cross_entropy" else side.outputs:
        cases = golden(base, dissonance)
        fitting = [case for case in cases if np.abs([case["h1_logits"], case["h2_logits"]]).max() <= largest]
        assert len(fitting) >= 32
        for case in fitting if side.dtype == "float64" else fitting[::4]:
            loss = side.model_loss(
                name,
                np.array(case["h2_logits"], side.dtype),
                np.array(case["h1_logits"], side.dtype),
                case["lambda_c"],
                output,
                normalization=case["normalization"],
                **options,
            )
            value = number(side, loss(case["target"]))
            assert value == pytest.approx(case["loss"], rel=side.outputs_rtol, abs=side.outputs_rtol)


WITH_OPTIONS = [
    *((name, {}) for name in DISSONANCES),
    ("focal_distillation", {"temperature": 4.0, "alpha": 0.5, "beta": 2}),
    ("focal_distillation", {"temperature": 0.5, "alpha": 0.0}),
    ("logit_distance", {"over_classes": "sum", "beta": 0}),
    ("logit_difference_inhibition", {"margin": 0.0, "power": 1.5}),
    ("logit_difference_inhibition", {"margin": 2, "power": 1, "over_classes": "sum"}),
    ("anchor", {"share": 0.8, "otherwise": 0.1}),
]
AMONG_CLASSES = [
    ("logit_difference_inhibition", {"top_k": 2}),
    ("logit_difference_inhibition", {"top_k": 5, "over_classes": "sum"}),
]


@each_normalization
@pytest.mark.parametrize(
    ("base", "dissonance", "options"),
    [
        *((base, *case) for base in BASES for case in WITH_OPTIONS),
        *((base, *case) for base in MULTICLASS for case in AMONG_CLASSES),
    ],
)
def test_value_and_gradient_are_those_of_numpy(side, base, dissonance, options, normalization):
    h2, target, h1 = outputs(base, n=6)
    lambda_c = weight_for(dissonance, 1.7)
    loss = side.loss(base, dissonance, lambda_c, normalization, dtype="float64", **options)
    value, gradient = side.value_and_gradient(loss, h2, target, h1, "float64")

    def expected(h2):
        return expected_loss(side, h2, target, h1, base, dissonance, lambda_c, normalization, **options)

    np.testing.assert_allclose(value, expected(h2), rtol=1e-12)
    # Central differences of step 1e-6 leave errors of 1e-9 or so.
    np.testing.assert_allclose(gradient, finite_differences(expected, h2), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("base", "options"),
    [
        ("cross_entropy", {"label_smoothing": 0.1}),
        ("binary_cross_entropy", {"threshold": 0.8}),
        *((base, {"ignore": 2}) for base in MULTICLASS),
    ],
)
@each_normalization
@each_dissonance
def test_options_are_those_of_numpy(side, base, dissonance, normalization, options):
    h2, target, h1 = outputs(base, dtype=side.dtype)
    lambda_c = weight_for(dissonance, 2.0)
    value = number(side, side.loss(base, dissonance, lambda_c, normalization, **options)(h2, target, h1))
    told = {"ignore_index" if name == "ignore" else name: option for name, option in options.items()}
    expected = expected_loss(side, *outputs(base), base, dissonance, lambda_c, normalization, **told)
    assert value == pytest.approx(expected, rel=side.rtol)


def half_squared_distance(given):
    apart = given.ops.relu(given.ops.square(given.h2.logits - given.h1.logits) - given.options["margin"])
    return 0.5 * given.ops.sum(apart) + given.ops.take_along(given.h2.logs, given.labels)


@each_normalization
@each_base
def test_a_new_row_works_by_name(side, base, normalization, monkeypatch):
    row = Dissonance(
        "toy",
        half_squared_distance,
        title="toy",
        summary="nothing",
        formula="0",
        source="nobody",
        needs="logits",
        alpha=1.0,
        beta=5.0,
        options={"margin": Option(0.0, "a number >= 0", lambda value: value >= 0)},
    )
    monkeypatch.setitem(DISSONANCES, "toy", row)
    h2, target, h1 = outputs(base, n=6)
    loss = side.loss(base, "toy", 1.7, normalization, dtype="float64", margin=0.3)
    value, gradient = side.value_and_gradient(loss, h2, target, h1, "float64")

    def expected(h2):
        return expected_loss(side, h2, target, h1, base, "toy", 1.7, normalization, margin=0.3)

    np.testing.assert_allclose(value, expected(h2), rtol=1e-12)
    np.testing.assert_allclose(gradient, finite_differences(expected, h2), rtol=1e-6, atol=1e-8)
    with pytest.raises(ValueError, match="margin must be a number >= 0"):
        side.loss(base, "toy", margin=-1)


OPERATIONS = [name for name in vars(NumpyOperations) if not name.startswith("_")]


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_those_of_numpy(side, name):
    random = np.random.default_rng(0)
    scores = np.concatenate([3 * random.normal(size=(4, 3)), [[1000.0, 0, -1000], [0, 0, 0]]]).astype("float32")
    arguments = {
        "take_along": (scores, np.array([0, 2, 1, 1, 0, 2])),
        "where": (scores > 0, scores, 7.0),
        "among_top": (scores, 2),
    }.get(name, (scores,))
    assert len(OPERATIONS) == 15
    with np.errstate(over="ignore"):
        expected = getattr(NumpyOperations(), name)(*arguments)
    tensors = [each if isinstance(each, float | int) else side.tensor(each) for each in arguments]
    np.testing.assert_allclose(side.array(getattr(side.operations, name)(*tensors)), expected, rtol=2e-6, atol=1e-6)


@each_base
def test_new_error_is_a_sample_weight(side, base):
    h2, target, h1 = outputs(base, dtype=side.dtype)
    right = (h1 >= 0).astype(int) == target if h1.ndim == 1 else h1.argmax(1) == target
    plain = side.array(side.loss(base, "new_error", 0.0)(h2, target, h1, "none"))
    value = number(side, side.loss(base, "new_error", 2.5)(h2, target, h1))
    assert value == pytest.approx(((1 + 2.5 * right) * plain).mean(), rel=side.rtol)


@each_dissonance
@each_base
class TestProperties:
    def test_lambda_0_is_the_base_to_the_bit(self, side, base, dissonance):
        h2, target, h1 = outputs(base, dtype=side.dtype)
        plain = number(side, side.loss(base, "new_error", 0)(h2, target, h1))
        assert number(side, side.loss(base, dissonance, 0.0)(h2, target, h1)) == plain

    def test_two_half_batches_make_the_whole(self, side, base, dissonance):
        h2, target, h1 = outputs(base, dtype=side.dtype)
        loss = side.loss(base, dissonance, weight_for(dissonance, 3.0))
        halves = [number(side, loss(h2[half], target[half], h1[half])) for half in (slice(16), slice(16, None))]
        assert np.mean(halves) == pytest.approx(number(side, loss(h2, target, h1)), rel=side.rtol)
        sums = [number(side, loss(h2[half], target[half], h1[half], "sum")) for half in (slice(16), slice(16, None))]
        assert sum(sums) == pytest.approx(number(side, loss(h2, target, h1, "sum")), rel=side.rtol)

    @each_normalization
    def test_reductions_agree(self, side, base, dissonance, normalization):
        h2, target, h1 = outputs(base, dtype=side.dtype)
        loss = side.loss(base, dissonance, weight_for(dissonance, 1.3), normalization)
        each = side.array(loss(h2, target, h1, "none"))
        assert each.shape == target.shape
        for reduction, expected in (("mean", each.mean()), ("batchmean", each.mean()), ("sum", each.sum())):
            assert number(side, loss(h2, target, h1, reduction)) == pytest.approx(expected, rel=side.rtol)

    @pytest.mark.parametrize("sign", [1, -1])
    def test_gaps_of_a_thousand_stay_finite(self, side, base, dissonance, sign):
        # As many as in the other tests: XLA compiles each operation once for a shape.
        if base == "binary_cross_entropy":
            h1, target = np.resize([1000.0, -1000.0, 1000.0], 32), np.resize([1, 0, 0], 32)
        else:
            h1, target = np.tile([1000.0, 0.0, -1000.0, 0.0, -1000.0], (32, 1)), np.resize([0, 1, 2], 32)
        loss = side.loss(base, dissonance, 1.0)
        value, gradient = side.value_and_gradient(loss, sign * h1, target, h1, "float32")
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_half_precision_in_float32_out(self, side, base, dissonance, dtype):
        h2, target, h1 = outputs(base, dtype="float32")
        h2, h1 = (side.tensor(scores, dtype) for scores in (h2, h1))
        loss = side.loss(base, dissonance, weight_for(dissonance, 2.0))
        value = side.array(loss(h2, target, h1))
        assert value.dtype == np.float32
        exact = [side.tensor(side.array(scores).astype("float32")) for scores in (h2, h1)]
        if base == "nll":  # what comes in are log-probabilities there, rounded once more
            assert float(value) == pytest.approx(number(side, loss(exact[0], target, exact[1])), rel=2e-2)
        else:
            assert float(value) == number(side, loss(exact[0], target, exact[1]))

    def test_labels_of_any_width_and_as_a_column(self, side, base, dissonance):
        h2, target, h1 = outputs(base, dtype=side.dtype)
        loss = side.loss(base, dissonance, weight_for(dissonance, 2.0))
        expected = number(side, loss(h2, target, h1))
        binary = base == "binary_cross_entropy"
        for dtype in {*side.label_dtypes, *(("float32", "bool") if binary else ())}:
            given = target.astype(dtype)
            assert number(side, loss(h2, given, h1)) == expected
            assert number(side, loss(h2, given[:, None], h1)) == expected
            if binary:
                assert number(side, loss(h2[:, None], given, h1)) == expected
                assert number(side, loss(h2[:, None], given, h1[:, None])) == expected

    def test_labels_of_h1_suffice_or_are_refused(self, side, base, dissonance):
        h2, target, h1 = outputs(base, dtype=side.dtype)
        labels = (h1 > 0).astype("int32") if h1.ndim == 1 else h1.argmax(1)
        loss = side.loss(base, dissonance, weight_for(dissonance, 2.0))
        if DISSONANCES[dissonance].needs == "labels":
            assert number(side, loss(h2, target, labels)) == number(side, loss(h2, target, h1))
        else:
            with pytest.raises(ValueError, match=f"dissonance='{dissonance}' imitates h1's probabilities.*new_error"):
                loss(h2, target, labels)


@each_normalization
@pytest.mark.parametrize("dissonance", [*ON_SUPPORT, "where_h1_is_surer"])
@each_base
def test_h1_never_right_is_the_plain_loss(side, base, dissonance, normalization):
    h2, _, h1 = outputs(base, dtype=side.dtype)
    wrong = (h1 <= 0).astype(int) if h1.ndim == 1 else (h1.argmax(1) + 1) % 5
    plain = number(side, side.loss(base, dissonance, 0.0)(h2, wrong, h1))
    loss = side.loss(base, dissonance, 4.0, normalization)
    assert number(side, loss(h2, wrong, h1)) == plain
    assert np.isfinite(side.value_and_gradient(loss, h2, wrong, h1, side.dtype)[1]).all()


@each_dissonance
@pytest.mark.parametrize("base", MULTICLASS)
def test_dense_outputs_are_instances_side_by_side(side, base, dissonance):
    h2, target, h1 = outputs(base, n=2 * 3 * 4, dtype=side.dtype)
    loss = side.loss(base, dissonance, weight_for(dissonance, 2.0))
    dense = [h2.reshape(2, 3, 4, 5), target.reshape(2, 3, 4), h1.reshape(2, 3, 4, 5)]
    assert number(side, loss(*dense)) == pytest.approx(number(side, loss(h2, target, h1)), rel=side.rtol)
    assert side.array(loss(*dense, "none")).shape == (2, 3, 4)


@each_dissonance
def test_multilabel_scores_are_labels_of_their_own(side, dissonance):
    h2, target, h1 = outputs("binary_cross_entropy", dtype=side.dtype)
    loss = side.loss("binary_cross_entropy", dissonance, weight_for(dissonance, 2.0))
    columns = (each.reshape(8, 4) for each in (h2, target, h1))
    assert number(side, loss(*columns)) == pytest.approx(number(side, loss(h2, target, h1)), rel=side.rtol)


@pytest.mark.parametrize("base", ["cross_entropy", "kl_divergence"])
@each_dissonance
def test_soft_targets(side, base, dissonance):
    h2, target, h1 = outputs(base, dtype=side.dtype)
    soft = (np.eye(5)[target] * 0.8 + 0.04).astype(side.dtype)
    lambda_c = weight_for(dissonance, 1.5)
    value = number(side, side.loss(base, dissonance, lambda_c)(h2, soft, h1))

    def log_softmax(z):
        return z - np.log(np.exp(z).sum(1, keepdims=True))

    assert value == pytest.approx(numpy_loss(h2, soft, h1, base, dissonance, lambda_c), rel=max(side.rtol, 1e-11))
    log_p1, log_p2, soft = (each.astype("float64") for each in (log_softmax(h1), log_softmax(h2), soft))
    entropies = [(np.log(soft), log_p1), (0, 0)][base == "cross_entropy"]
    base_i = (soft * (entropies[0] - log_p2)).sum(1)
    by_hand = {"new_error": base_i, "strict_imitation": (np.exp(log_p1) * (entropies[1] - log_p2)).sum(1)}
    if dissonance in by_hand:
        c_i = h1.argmax(1) == target
        assert value == pytest.approx((base_i + 1.5 * c_i * by_hand[dissonance]).mean(), rel=max(side.rtol, 1e-11))
    # A soft target keeps its entropy: an h2 that gives it loses nothing.
    perfect = side.loss("kl_divergence", "new_error", 2.0)(np.log(soft).astype(side.dtype), soft, h1)
    assert number(side, perfect) == pytest.approx(0, abs=1e-6)


@each_dissonance
@pytest.mark.parametrize("base", MULTICLASS)
def test_ignored_labels_do_not_count(side, base, dissonance):
    h2, target, h1 = outputs(base, dtype=side.dtype)
    keep = np.arange(32) % 3 > 0
    for normalization in ("batch", "support"):
        # Whatever the mark: it may lie outside the classes, on either side.
        for mark in (-1, 77, 3):
            keep_this = keep & (target != mark)
            loss = side.loss(base, dissonance, weight_for(dissonance, 2.0), normalization, ignore=mark)
            value = number(side, loss(h2, np.where(keep_this, target, mark), h1))
            expected = number(side, loss(h2[keep_this], target[keep_this], h1[keep_this]))
            assert value == pytest.approx(expected, rel=side.rtol)


@pytest.mark.parametrize("name", [name for name, loss in NAMED_LOSSES.items() if loss.base == "binary_cross_entropy"])
def test_sure_probabilities_stay_finite(side, name):
    h2, h1 = np.array([0.0, 1.0, 1.0], side.dtype), np.array([1.0, 0.0, 1.0], side.dtype)
    assert np.isfinite(number(side, side.model_loss(name, h2, h1, 1.0)([1, 0, 1])))
    loss = side.loss("binary_cross_entropy", NAMED_LOSSES[name].dissonance, 1.0, from_logits=False)
    assert np.isfinite(side.value_and_gradient(loss, h2, np.array([1, 0, 1]), h1, "float32")[1]).all()


def test_discriminant_pivot_moves_the_support(side):
    h2, h1 = np.array([0.5, 0.5], side.dtype), np.array([0.625, 0.625], side.dtype)
    # At 0.5 h1 is right on the first instance, at 0.7 on the second; class 1 begins at the pivot itself.
    for pivot, right in ((0.5, [True, False]), (0.625, [True, False]), (0.7, [False, True])):
        loss = side.model_loss("BCBinaryCrossEntropyLoss", h2, h1, 1.0, discriminant_pivot=pivot)
        expected = np.log(2) * (1 + np.array(right))
        np.testing.assert_allclose(side.array(loss([1.0, 0.0], "none")), expected, rtol=1e-6)


def test_class_map(side):
    h2, h1 = np.zeros((2, 3), side.dtype), np.array([[0.0, 5.0], [5.0, 0.0]], side.dtype)
    options = {"class_map": ClassMap([2, 0], new=[1]), **side.outputs[0][2]}
    # h1's classes 0 and 1 are h2's 2 and 0, so h1 says 0 and 2.
    each = side.model_loss("BCCrossEntropyLoss", h2, h1, 1.0, **options)([0, 0], "none")
    np.testing.assert_allclose(side.array(each), [2 * np.log(3), np.log(3)], rtol=1e-6)
    assert np.isfinite(number(side, side.model_loss("StrictImitationKLDivergenceLoss", h2, h1, 1.0, **options)([0, 2])))


@pytest.mark.parametrize("name", NAMED_LOSSES)
def test_named_losses_are_public_and_those_of_the_table(side, name):
    loss = getattr(side.package, name)
    assert loss is side.model_losses[name]
    assert (loss.base, loss.dissonance) == NAMED_LOSSES[name]
    formula = {"new_error": "y", "strict_imitation": "p_1"}[loss.dissonance]
    assert formula in loss.__doc__.replace("s_1", "p_1").splitlines()[0]


class TestBadInput:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"target": np.array([0, 1, 3, 2])}, r"0\.\.2.*label 3 at index|label 3 at index 2, .* 0\.\.2"),
            ({"target": np.array([-1, 1, 2, 2])}, r"label -1 at index"),
            ({"target": np.zeros(5, int)}, r"Received: shape|Received shape \(5,\)"),
            ({"h1": np.zeros((2, 3), "float32"), "target": np.array([0, 1])}, "shape|batch"),
            ({"h1": np.zeros((4, 2), "float32")}, "class_map"),
            ({"h1": np.full((4, 3), np.nan, "float32")}, "h1 .*NaN"),
            ({"h1": np.full((4, 3), np.inf, "float32")}, "h1 .*inf"),
            ({"h2": np.full((4, 3), np.nan, "float32")}, "h2 .*NaN"),
            ({"h2": np.full((4, 3), np.inf, "float32")}, "h2 .*inf"),
            ({"h2": np.zeros(4, "float32")}, "binary_cross_entropy"),
            ({"h2": np.zeros((4, 1), "float32"), "h1": np.zeros((4, 1), "float32")}, "binary_cross_entropy"),
            ({name: np.zeros((0, 3), "float32") for name in ("h2", "h1")} | {"target": np.zeros(0, int)}, "is empty"),
        ],
    )
    def test_batches(self, side, change, message):
        good = dict(zip(("h2", "target", "h1"), outputs("cross_entropy", n=4, classes=3, dtype="float32"), strict=True))
        side.loss()(**good)
        with pytest.raises(ValueError, match=message):
            side.loss()(**{**good, **change})

    @pytest.mark.parametrize(
        ("target", "message"), [(np.array([0, 2]), r"must lie in 0\.\.1"), (np.zeros((2, 3)), "shape")]
    )
    def test_binary_targets(self, side, target, message):
        with pytest.raises(ValueError, match=message):
            side.loss("binary_cross_entropy")(np.zeros(2, "float32"), target, np.zeros(2, "float32"))

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"base": "mse"}, ValueError, "Unknown base: 'mse'. Known: 'nll', 'cross_entropy', 'binary_cross_entropy'"),
            ({"dissonance": "newerror"}, ValueError, "Known: 'new_error', 'strict_imitation', 'imitation'"),
            ({"normalization": "class"}, ValueError, "Known: 'batch', 'support'"),
            ({"lambda_c": -0.1}, ValueError, "finite number >= 0"),
            ({"lambda_c": float("nan")}, ValueError, "finite number >= 0"),
            ({"lambda_c": float("inf")}, ValueError, "finite number >= 0"),
            ({"pos_weigth": 2}, TypeError, "base='cross_entropy' has no option 'pos_weigth'. Known options: .*smooth"),
            ({"base": "nll", "label_smoothing": 0.1}, TypeError, "base='nll' has no option 'label_smoothing'"),
            ({"label_smoothing": 2.0}, ValueError, r"0\.\.1. Received: label_smoothing=2.0"),
            (
                {"base": "binary_cross_entropy", "threshold": 1.0},
                ValueError,
                "between 0 and 1. Received: threshold=1.0",
            ),
        ],
    )
    def test_options(self, side, options, error, message):
        with pytest.raises(error, match=message):
            side.loss(**options)

    def test_reduction(self, side):
        with pytest.raises(ValueError, match="Unknown reduction: 'avg'. Known: .*'batchmean'"):
            side.loss()(*outputs("cross_entropy"), "avg")

    def test_options_of_named_losses(self, side):
        scores = np.zeros((2, 3), side.dtype)
        with pytest.raises(TypeError, match="BCNLLLoss has no option 'label_smoothing'. Known options: .*class_map"):
            side.model_loss("BCNLLLoss", scores, scores, 0.5, label_smoothing=0.1)
        with pytest.raises(TypeError, match="'discriminate_pivot'"):
            side.model_loss("BCBinaryCrossEntropyLoss", scores, scores, 0.5, discriminate_pivot=0.5)
        with pytest.raises(ValueError, match="num_classes"):
            side.model_loss("BCKLDivergenceLoss", scores, scores, 0.5, num_classes=4, **side.outputs[0][2])([0, 1])

    def test_logits_where_probabilities_were_expected(self, side):
        h2, h1 = np.array([0.5], side.dtype), np.array([2.0], side.dtype)
        with pytest.raises(ValueError, match="h1 .*from_logits=True"):
            side.model_loss("BCBinaryCrossEntropyLoss", h2, h1, 0.5)([1])
