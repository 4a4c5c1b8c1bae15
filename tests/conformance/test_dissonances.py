"""The dissonances against their papers' formulas, written down here again; what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, log_softmax, rel_entr, softmax, xlogy
from test_losses import number, outputs

from bc_core.losses._dissonances import DISSONANCES
from bc_core.losses._numpy_loss import numpy_loss

H1 = np.array([[2.0, 0.5, -1.0], [0.0, 1.0, 0.5], [-0.5, 0.25, 3.0], [1.0, 0.0, 0.0]])
H2 = np.array([[0.5, 1.5, -1.0], [0.5, 2.0, 0.0], [0.0, 0.5, 1.0], [-1.0, 0.0, 2.0]])
TARGET = np.array([0, 1, 0, 0])
# h1 is right but on the third; h2 on the second alone, where it is surer than h1.
C = np.array([1, 1, 0, 1])


def dissonance_of(side, name, base="cross_entropy", h2=H2, target=TARGET, h1=H1, **options):
    """The dissonance of each instance, as what lambda_c adds to the base."""
    dtype = side.dtype
    values = [
        side.array(side.loss(base, name, lambda_c, **options)(h2.astype(dtype), target, h1.astype(dtype), "none"))
        for lambda_c in (0.0, 1.0)
    ]
    return values[1] - values[0]


def near(side, expected):
    return pytest.approx(expected, rel=1e-5 if side.dtype == "float32" else 1e-11, abs=1e-6)


def cross_entropies(goal, h2=H2):
    return -(goal * log_softmax(h2, 1)).sum(1)


@pytest.mark.parametrize(("temperature", "alpha", "beta"), [(1.0, 1.0, 5.0), (4.0, 0.5, 2.0), (0.5, 0.0, 1.0)])
def test_focal_distillation(side, temperature, alpha, beta):
    p1, p2 = (softmax(z / temperature, 1) for z in (H1, H2))
    expected = (alpha + beta * C) * temperature**2 * rel_entr(p1, p2).sum(1)
    options = {"temperature": temperature, "alpha": alpha, "beta": beta}
    assert dissonance_of(side, "focal_distillation", **options) == near(side, expected)
    if temperature == 1.0:
        assert dissonance_of(side, "focal_distillation") == near(side, expected)


def test_a_hot_focal_distillation_is_half_the_squared_distance_of_centred_logits():
    hot = numpy_loss(H2, TARGET, H1, "cross_entropy", "focal_distillation", 1.0, reduction="none", temperature=1e4)
    plain = numpy_loss(H2, TARGET, H1, "cross_entropy", "focal_distillation", 0.0, reduction="none")
    centred = [z - z.mean(1, keepdims=True) for z in (H1, H2)]
    expected = (1 + 5 * C) * 0.5 * ((centred[1] - centred[0]) ** 2).mean(1)
    assert hot - plain == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("over_classes", "share"), [("mean", 1 / 3), ("sum", 1.0)])
def test_logit_distance(side, over_classes, share):
    expected = (2 + 3 * C) * 0.5 * share * ((H2 - H1) ** 2).sum(1)
    options = {"alpha": 2.0, "beta": 3.0, "over_classes": over_classes}
    assert dissonance_of(side, "logit_distance", **options) == near(side, expected)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"margin": 0.0, "power": 1.0, "over_classes": "sum"},
        {"margin": 1.0, "power": 3},
        {"top_k": 1},
        {"top_k": 2, "over_classes": "sum"},
    ],
)
def test_logit_difference_inhibition(side, options):
    margin, power, k = options.get("margin", 0.5), options.get("power", 2.0), options.get("top_k")
    expected = []
    for z1, z2 in zip(H1, H2, strict=True):
        kept = sorted(range(3), key=lambda c: -z1[c])[:k]
        each = [max(abs(z2[c] - z1[c]) - margin, 0.0) ** power for c in kept]
        expected.append(sum(each) / (1 if options.get("over_classes") == "sum" else len(kept)))
    # The last instance has two equal logits, which are both held or neither.
    rows = slice(3 if "top_k" in options else 4)
    found = dissonance_of(side, "logit_difference_inhibition", h2=H2[rows], target=TARGET[rows], h1=H1[rows], **options)
    assert found == near(side, expected[rows])


def test_classes_as_high_as_the_last_of_the_top_are_held_too(side):
    expected = np.maximum(np.abs(H2[3] - H1[3]) - 0.5, 0) ** 2
    found = dissonance_of(
        side, "logit_difference_inhibition", h2=H2[3:], target=TARGET[3:], h1=H1[3:], top_k=2, over_classes="sum"
    )
    assert found == near(side, [expected.sum()])


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_churn_is_the_base_with_a_mixed_target(side, share):
    mixed = (1 - share) * np.eye(3)[TARGET] + share * softmax(H1, 1)
    h2, h1 = H2.astype(side.dtype), H1.astype(side.dtype)
    for base in ("nll", "cross_entropy"):
        each = side.array(side.loss(base, "churn", share)(h2, TARGET, h1, "none"))
        assert each == near(side, cross_entropies(mixed))
    goal = (1 - share) * (TARGET == 0) + share * expit(H1[:, 0])
    binary = side.loss("binary_cross_entropy", "churn", share)
    each = side.array(binary(h2[:, 0], (TARGET == 0).astype(int), h1[:, 0], "none"))
    assert each == near(side, -xlogy(goal, expit(H2[:, 0])) - xlogy(1 - goal, expit(-H2[:, 0])))
    # The divergence from the mixture is less by what h2 has no part in.
    divergence = side.loss("kl_divergence", "churn", share)
    constants = [
        side.array(divergence(z2.astype(side.dtype), TARGET, h1, "none")) - rel_entr(mixed, softmax(z2, 1)).sum(1)
        for z2 in (H2, 2 * H2 - 1)
    ]
    assert constants[0] == near(side, constants[1])


def test_churn_mixes_smoothed_targets(side):
    smoothed = 0.8 * np.eye(3)[TARGET] + 0.2 / 3
    loss = side.loss("cross_entropy", "churn", 0.3, label_smoothing=0.2)
    each = side.array(loss(H2.astype(side.dtype), TARGET, H1.astype(side.dtype), "none"))
    assert each == near(side, cross_entropies(0.7 * smoothed + 0.3 * softmax(H1, 1)))


@pytest.mark.parametrize(("share", "otherwise"), [(0.5, 0.5), (1.0, 0.0), (0.2, 1.5)])
def test_anchor(side, share, otherwise):
    loss = side.loss("cross_entropy", "anchor", 1.0, share=share, otherwise=otherwise)
    each = side.array(loss(H2.astype(side.dtype), TARGET, H1.astype(side.dtype), "none"))
    y = np.eye(3)[TARGET]
    goal = np.where(C[:, None], share * softmax(H1, 1) + (1 - share) * y, otherwise * y)
    assert each == near(side, cross_entropies(goal))


def test_conditional_forms(side):
    p1, p2 = softmax(H1, 1), softmax(H2, 1)
    imitated = cross_entropies(p1)
    rows = np.arange(4)
    surer = C.astype(bool) & (p1[rows, TARGET] > p2[rows, TARGET])
    assert surer.tolist() == [True, False, False, True]
    assert dissonance_of(side, "where_h1_is_surer") == near(side, np.where(surer, imitated, 0))
    wrong = p2.argmax(1) != TARGET
    assert wrong.tolist() == [True, False, True, True]
    assert dissonance_of(side, "where_h2_is_wrong") == near(side, np.where(wrong, imitated, 0))
    assert dissonance_of(side, "where_h2_is_right") == near(side, np.where(wrong, 0, imitated))


def test_the_threshold_says_where_a_binary_h2_is_wrong(side):
    h2, h1, target = np.array([0.5, 0.5, 2.0]), np.array([1.0, -1.0, 1.0]), np.array([1, 0, 1])
    for threshold, wrong in ((0.5, [False, True, False]), (0.7, [True, False, False])):
        found = dissonance_of(
            side, "where_h2_is_wrong", "binary_cross_entropy", h2=h2, target=target, h1=h1, threshold=threshold
        )
        imitated = -expit(h1) * np.log(expit(h2)) - expit(-h1) * np.log(expit(-h2))
        assert found == near(side, np.where(wrong, imitated, 0))


def test_a_binary_score_has_two_logits(side):
    h2, h1, target = np.array([0.5, -1.0]), np.array([1.0, -3.0]), np.array([1, 1])  # h1 is right on the first
    arguments = {"base": "binary_cross_entropy", "h2": h2, "h1": h1, "target": target}
    expected = np.array([6.0, 1.0]) * 0.5 * (h2 - h1) ** 2
    assert dissonance_of(side, "logit_distance", over_classes="sum", **arguments) == near(side, expected)
    assert dissonance_of(side, "logit_distance", **arguments) == near(side, expected / 2)


class TestBadInput:
    @pytest.mark.parametrize(
        ("dissonance", "options", "message"),
        [
            ("focal_distillation", {"temperature": 0}, "temperature must be a number > 0. Received: temperature=0"),
            ("focal_distillation", {"temperature": -1.0}, "temperature must be a number > 0"),
            ("focal_distillation", {"temperature": float("nan")}, "temperature must be a number > 0"),
            ("focal_distillation", {"temperature": "4"}, "temperature must be a number > 0. Received: temperature='4'"),
            ("focal_distillation", {"alpha": -1}, "alpha must be a number >= 0. Received: alpha=-1"),
            ("logit_distance", {"beta": -0.5}, "beta must be a number >= 0"),
            ("logit_distance", {"over_classes": "max"}, "over_classes must be 'mean' or 'sum'"),
            ("logit_distance", {"over_classes": []}, "over_classes must be 'mean' or 'sum'"),
            ("logit_difference_inhibition", {"margin": -0.1}, "margin must be a number >= 0"),
            ("logit_difference_inhibition", {"power": 0}, "power must be a number >= 1. Received: power=0"),
            ("logit_difference_inhibition", {"top_k": 0}, "top_k must be None, or a whole number >= 1"),
            ("logit_difference_inhibition", {"top_k": 1.5}, "top_k must be None, or a whole number >= 1"),
            ("anchor", {"share": 1.1}, "share must be a number >= 0 and <= 1"),
            ("anchor", {"otherwise": -1}, "otherwise must be a number >= 0"),
        ],
    )
    def test_values(self, side, dissonance, options, message):
        with pytest.raises(ValueError, match=message):
            side.loss("cross_entropy", dissonance, **options)

    def test_options_of_another(self, side):
        with pytest.raises(TypeError, match="'imitation'|has no option 'temperature'"):
            side.loss("cross_entropy", "imitation", temperature=2.0)
        with pytest.raises(TypeError, match="dissonance='logit_distance' has no option 'temperature'. Known.*'alpha'"):
            side.loss("cross_entropy", "logit_distance", temperature=2.0)

    def test_more_classes_than_there_are(self, side):
        loss = side.loss("cross_entropy", "logit_difference_inhibition", top_k=6)
        h2, target, h1 = outputs("cross_entropy", dtype=side.dtype)
        with pytest.raises(ValueError, match="top_k must be at most the number of classes, 5. Received: top_k=6"):
            loss(h2, target, h1)
        with pytest.raises(ValueError, match="top_k chooses among classes.*leave it out"):
            side.loss("binary_cross_entropy", "logit_difference_inhibition", top_k=1)

    @pytest.mark.parametrize("dissonance", [row.name for row in DISSONANCES.values() if row.most_lambda])
    def test_more_than_the_whole_target(self, side, dissonance):
        with pytest.raises(ValueError, match=f"lambda_c of dissonance='{dissonance}' is a share of the target and at"):
            side.loss("cross_entropy", dissonance, 1.5)
        loss = side.package.CompatibilityLoss("cross_entropy", dissonance, 1.0)
        with pytest.raises(ValueError, match=r"at most 1; dissonance='imitation' has no upper limit. Received: 2\.0"):
            loss.lambda_c = 2.0


def test_scores_that_are_equal_have_no_distance(side):
    h2, target, _ = outputs("cross_entropy", dtype=side.dtype)
    for dissonance in ("focal_distillation", "logit_distance", "logit_difference_inhibition", "where_h1_is_surer"):
        plain = number(side, side.loss("cross_entropy", dissonance, 0.0)(h2, target, h2))
        assert number(side, side.loss("cross_entropy", dissonance, 8.0)(h2, target, h2)) == pytest.approx(plain)
