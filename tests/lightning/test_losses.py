"""The losses: golden vectors, properties of the definition, torch's own losses, bad input."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import bc_lightning
from bc_lightning import (
    BCBinaryCrossEntropyLoss,
    BCCrossEntropyLoss,
    BCKLDivergenceLoss,
    BCNLLLoss,
    CompatibilityLoss,
    StrictImitationBinaryCrossEntropyLoss,
    StrictImitationCrossEntropyLoss,
    StrictImitationKLDivergenceLoss,
    StrictImitationNLLLoss,
)
from bc_lightning.functional import compatibility_loss, loss_terms

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "losses.json").read_text())
BASES = ("nll", "cross_entropy", "binary_cross_entropy", "kl_divergence")
DISSONANCES = ("new_error", "strict_imitation", "imitation")
MULTICLASS = ("nll", "cross_entropy", "kl_divergence")
NAMED = {
    ("nll", "new_error"): BCNLLLoss,
    ("cross_entropy", "new_error"): BCCrossEntropyLoss,
    ("binary_cross_entropy", "new_error"): BCBinaryCrossEntropyLoss,
    ("kl_divergence", "new_error"): BCKLDivergenceLoss,
    ("nll", "strict_imitation"): StrictImitationNLLLoss,
    ("cross_entropy", "strict_imitation"): StrictImitationCrossEntropyLoss,
    ("binary_cross_entropy", "strict_imitation"): StrictImitationBinaryCrossEntropyLoss,
    ("kl_divergence", "strict_imitation"): StrictImitationKLDivergenceLoss,
}


def golden(base, dissonance):
    cases = [case for case in GOLDEN if (case["base"], case["dissonance"]) == (base, dissonance)]
    assert len(cases) == 96
    return cases


def inputs(base, n=32, classes=5, seed=0, dtype=torch.float64):
    """Outputs of two models and a target, about half of it right for h1."""
    generator = torch.Generator().manual_seed(seed)
    shape = (n,) if base == "binary_cross_entropy" else (n, classes)
    h1, h2 = (3 * torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2))
    if base == "binary_cross_entropy":
        right, classes = (h1 > 0).long(), 2
    else:
        right = h1.argmax(1)
    wrong = torch.randint(classes, (n,), generator=generator)
    target = torch.where(torch.rand(n, generator=generator) < 0.5, right, wrong)
    if base == "nll":
        h1, h2 = h1.log_softmax(1), h2.log_softmax(1)
    return h2.requires_grad_(), target, h1


class Scores(nn.Module):
    """A model whose output is its one parameter."""

    def __init__(self, scores, output=lambda scores: scores):
        super().__init__()
        self.scores = nn.Parameter(scores)
        self.output = output

    def forward(self, x):
        return self.output(self.scores)


def triple(scores):
    return scores, scores.softmax(1), scores.log_softmax(1)


# 1e-9 and 1e-5 are what the golden vectors' README promises; gradients of large logits cancel, hence the atol.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("dissonance", DISSONANCES[:2])
@pytest.mark.parametrize("base", BASES)
def test_golden_vectors_on_outputs(base, dissonance, dtype, tolerance):
    for case in golden(base, dissonance):
        logits = torch.tensor(case["h2_logits"], dtype=dtype, requires_grad=True)
        h1 = torch.tensor(case["h1_logits"], dtype=dtype)
        loss = CompatibilityLoss(base, dissonance, case["lambda_c"], case["normalization"])
        h2 = logits
        if base == "nll":
            h2, h1 = logits.log_softmax(1), h1.log_softmax(1)
        value = loss(h2, torch.tensor(case["target"]), h1)
        value.backward()
        expected = torch.tensor(case["loss"], dtype=dtype)
        torch.testing.assert_close(value.detach(), expected, rtol=tolerance, atol=tolerance)
        gradient = torch.tensor(case["grad_h2_logits"], dtype=dtype)
        torch.testing.assert_close(logits.grad, gradient, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("returns", ["logits", "original"])
@pytest.mark.parametrize(("base", "dissonance"), NAMED)
def test_golden_vectors_on_models(base, dissonance, returns):
    for case in golden(base, dissonance):
        options = {"normalization": case["normalization"]}
        output = torch.nn.Identity()
        if base == "binary_cross_entropy":
            options["from_logits"] = returns == "logits"
            if returns == "original":
                output = torch.sigmoid
                if max(map(abs, case["h1_logits"] + case["h2_logits"])) > 20:
                    continue  # a probability of 1 - 1e-9 has lost the digits that a logit has
        elif returns == "original":
            output = triple
        h1, h2 = (Scores(torch.tensor(case[f"{h}_logits"], dtype=torch.float64), output) for h in ("h1", "h2"))
        loss = NAMED[base, dissonance](h1, h2, case["lambda_c"], **options)
        value = loss(torch.zeros(len(case["target"]), 1), torch.tensor(case["target"]))
        value.backward()
        assert value.item() == pytest.approx(case["loss"], rel=1e-7, abs=1e-9)
        gradient = torch.tensor(case["grad_h2_logits"], dtype=torch.float64)
        torch.testing.assert_close(h2.scores.grad, gradient, rtol=1e-6, atol=1e-8)
        assert h1.scores.grad is None


@pytest.mark.parametrize("normalization", ["batch", "support"])
@pytest.mark.parametrize("dissonance", DISSONANCES)
@pytest.mark.parametrize("base", BASES)
def test_gradients_agree_with_finite_differences(base, dissonance, normalization):
    h2, target, h1 = inputs(base, n=6)
    loss = CompatibilityLoss(base, dissonance, 1.7, normalization)
    assert torch.autograd.gradcheck(lambda scores: loss(scores, target, h1), h2)


@pytest.mark.parametrize("base", BASES)
def test_new_error_is_a_sample_weight(base):
    h2, target, h1 = inputs(base)
    right = (h1 >= 0).long() == target if base == "binary_cross_entropy" else h1.argmax(1) == target
    if base == "binary_cross_entropy":
        base_i = F.binary_cross_entropy_with_logits(h2, target.double(), reduction="none")
    else:
        base_i = F.nll_loss(h2 if base == "nll" else h2.log_softmax(1), target, reduction="none")
    expected = ((1 + 2.5 * right) * base_i).mean()
    value = CompatibilityLoss(base, "new_error", 2.5)(h2, target, h1)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dissonance", DISSONANCES)
@pytest.mark.parametrize("options", [{}, {"weight": [0.2, 1.0, 3.0, 0.5, 1.5]}, {"label_smoothing": 0.1}])
def test_lambda_zero_is_torch_to_the_bit(dissonance, options):
    h2, target, h1 = inputs("cross_entropy", dtype=torch.float32)
    loss = CompatibilityLoss("cross_entropy", dissonance, 0.0, **options)
    plain = {**options, **({"weight": torch.tensor(options["weight"])} if "weight" in options else {})}
    for reduction in ("mean", "sum", "none"):
        assert torch.equal(loss(h2, target, h1, reduction), F.cross_entropy(h2, target, reduction=reduction, **plain))


@pytest.mark.parametrize("dissonance", DISSONANCES[:2])
@pytest.mark.parametrize("normalization", ["batch", "support"])
@pytest.mark.parametrize("base", BASES)
def test_h1_never_right_is_the_plain_loss(base, dissonance, normalization):
    h2, target, h1 = inputs(base)
    h1 = (
        -torch.where(target == 1, 5.0, -5.0)
        if base == "binary_cross_entropy"
        else -10.0 * F.one_hot(target, 5).double()
    )
    plain = CompatibilityLoss(base, dissonance, 0.0)(h2, target, h1)
    value = CompatibilityLoss(base, dissonance, 4.0, normalization)(h2, target, h1)
    torch.testing.assert_close(value, plain, rtol=0, atol=0)
    value.backward()
    assert torch.isfinite(h2.grad).all()


@pytest.mark.parametrize("dissonance", DISSONANCES)
@pytest.mark.parametrize("base", BASES)
def test_two_half_batches_make_the_whole(base, dissonance):
    h2, target, h1 = inputs(base, n=32)
    loss = CompatibilityLoss(base, dissonance, 3.0)
    halves = (loss(h2[:16], target[:16], h1[:16]) + loss(h2[16:], target[16:], h1[16:])) / 2
    torch.testing.assert_close(halves, loss(h2, target, h1), rtol=1e-12, atol=0)
    sums = loss(h2[:10], target[:10], h1[:10], "sum") + loss(h2[10:], target[10:], h1[10:], "sum")
    torch.testing.assert_close(sums, loss(h2, target, h1, "sum"), rtol=1e-12, atol=0)


@pytest.mark.parametrize("normalization", ["batch", "support"])
@pytest.mark.parametrize("dissonance", DISSONANCES)
@pytest.mark.parametrize("base", BASES)
def test_reductions_agree(base, dissonance, normalization):
    h2, target, h1 = inputs(base)
    loss = CompatibilityLoss(base, dissonance, 1.3, normalization)
    each = loss(h2, target, h1, "none")
    assert each.shape == target.shape
    for reduction, expected in (("mean", each.mean()), ("batchmean", each.mean()), ("sum", each.sum())):
        torch.testing.assert_close(loss(h2, target, h1, reduction), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dissonance", DISSONANCES)
@pytest.mark.parametrize("base", BASES)
def test_terms_add_up(base, dissonance):
    h2, target, h1 = inputs(base)
    terms = loss_terms(h2, target, h1, base=base, dissonance=dissonance)
    whole = compatibility_loss(h2, target, h1, base=base, dissonance=dissonance, lambda_c=2.0)
    torch.testing.assert_close(terms.base + 2.0 * terms.dissonance, whole, rtol=1e-12, atol=0)


@pytest.mark.parametrize("normalization", ["batch", "support"])
@pytest.mark.parametrize(
    "options", [{}, {"weight": torch.tensor([0.2, 1.0, 3.0, 0.5, 1.5]).double(), "ignore_index": 4}]
)
def test_terms_of_uneven_batches_merge_into_those_of_the_whole(normalization, options):
    h2, target, h1 = inputs("cross_entropy", n=32)
    options = {"normalization": normalization, "dissonance": "strict_imitation", **options}
    whole = loss_terms(h2, target, h1, **options)
    parts = [loss_terms(h2[i:j], target[i:j], h1[i:j], **options) for i, j in ((0, 3), (3, 25), (25, 32))]
    base = sum(part.base * part.base_weight for part in parts) / sum(part.base_weight for part in parts)
    dissonance = sum(part.dissonance_sum for part in parts) / sum(part.dissonance_weight for part in parts)
    torch.testing.assert_close(base, whole.base, rtol=1e-12, atol=0)
    torch.testing.assert_close(dissonance, whole.dissonance, rtol=1e-12, atol=0)


def test_imitation_of_oneself_has_no_kl():
    _, target, h1 = inputs("kl_divergence")
    assert loss_terms(h1, target, h1, base="kl_divergence", dissonance="imitation").dissonance.abs() < 1e-15


@pytest.mark.parametrize("normalization", ["batch", "support"])
@pytest.mark.parametrize("dissonance", DISSONANCES)
def test_class_weights_and_ignored_labels_against_a_loop(dissonance, normalization):
    h2, target, h1 = inputs("cross_entropy", n=40)
    target[::7] = -100
    weight = torch.tensor([0.2, 1.0, 3.0, 0.5, 1.5], dtype=torch.float64)
    lp1, lp2 = h1.log_softmax(1), h2.log_softmax(1)
    base = penalty = total = support_total = 0.0
    for i, y in enumerate(target.tolist()):
        if y == -100:
            continue
        base += -weight[y] * lp2[i, y]
        total += weight[y]
        if dissonance == "imitation" or h1[i].argmax() == y:
            support_total += weight[y]
            if dissonance == "new_error":
                penalty += -weight[y] * lp2[i, y]
            else:
                penalty += -(weight * lp1[i].exp() * lp2[i]).sum()
    expected = base / total + 2.0 * penalty / (total if normalization == "batch" else support_total)
    loss = CompatibilityLoss("cross_entropy", dissonance, 2.0, normalization, weight=weight)
    torch.testing.assert_close(loss(h2, target, h1), expected, rtol=1e-12, atol=0)


def test_weights_follow_the_module_and_stay_out_of_the_state_dict():
    loss = CompatibilityLoss(weight=[1.0, 2.0])
    assert not loss.state_dict()
    assert loss.to("meta").options["weight"].device.type == "meta"


@pytest.mark.parametrize("base", ["cross_entropy", "kl_divergence"])
@pytest.mark.parametrize("dissonance", DISSONANCES)
def test_soft_targets(base, dissonance):
    h2, target, h1 = inputs(base)
    soft = F.one_hot(target, 5).double() * 0.8 + 0.04
    right = h1.argmax(1) == target
    base_i = F.cross_entropy(h2, soft, reduction="none")
    if base == "kl_divergence":
        base_i = F.kl_div(h2.log_softmax(1), soft, reduction="none").sum(1)
    p1, lp2 = h1.softmax(1), h2.log_softmax(1)
    d_i = {
        "new_error": base_i,
        "cross_entropy": -(p1 * lp2).sum(1),
        "kl_divergence": (p1 * (p1.log() - lp2)).sum(1),
    }["new_error" if dissonance == "new_error" else base]
    c_i = torch.ones_like(right) if dissonance == "imitation" else right
    expected = (base_i + 1.5 * c_i * d_i).mean()
    torch.testing.assert_close(CompatibilityLoss(base, dissonance, 1.5)(h2, soft, h1), expected, rtol=1e-11, atol=0)


@pytest.mark.parametrize("dissonance", DISSONANCES)
@pytest.mark.parametrize("base", MULTICLASS)
def test_dense_outputs_are_instances_side_by_side(base, dissonance):
    h2, target, h1 = inputs(base, n=2 * 3 * 4)
    loss = CompatibilityLoss(base, dissonance, 2.0)
    dense = [scores.reshape(2, 3, 4, 5).permute(0, 3, 1, 2) for scores in (h2, h1)]
    value = loss(dense[0], target.reshape(2, 3, 4), dense[1])
    torch.testing.assert_close(value, loss(h2, target, h1), rtol=1e-12, atol=0)
    assert loss(dense[0], target.reshape(2, 3, 4), dense[1], "none").shape == (2, 3, 4)


@pytest.mark.parametrize("dissonance", DISSONANCES)
@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float32, torch.bool]
)
@pytest.mark.parametrize("column", [False, True])
def test_binary_labels_of_any_width_and_shape(dissonance, dtype, column):
    h2, target, h1 = inputs("binary_cross_entropy")
    loss = CompatibilityLoss("binary_cross_entropy", dissonance, 2.0)
    expected = loss(h2, target, h1)
    given = target.to(dtype)
    for h2_given, target_given, h1_given in (
        (h2, given[:, None] if column else given, h1),
        (h2[:, None] if column else h2, given, h1),
        (h2[:, None] if column else h2, given, h1[:, None]),
    ):
        torch.testing.assert_close(loss(h2_given, target_given, h1_given), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_class_labels_of_any_width_and_as_a_column(dtype):
    h2, target, h1 = inputs("cross_entropy")
    loss = CompatibilityLoss()
    assert loss(h2, target.to(dtype), h1) == loss(h2, target, h1) == loss(h2, target[:, None], h1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dissonance", DISSONANCES)
@pytest.mark.parametrize("base", BASES)
def test_half_precision_in_float32_out(base, dissonance, dtype):
    h2, target, h1 = inputs(base, dtype=torch.float32)
    h2, h1 = h2.detach().to(dtype).requires_grad_(), h1.to(dtype)
    loss = CompatibilityLoss(base, dissonance, 2.0)
    value = loss(h2, target, h1)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(h2.float(), target, h1.float()), rtol=0, atol=0)
    value.backward()
    assert h2.grad.dtype == dtype


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("dissonance", DISSONANCES)
@pytest.mark.parametrize("base", BASES)
def test_gaps_of_a_thousand_stay_finite(base, dissonance, sign):
    if base == "binary_cross_entropy":
        h1 = torch.tensor([1000.0, -1000.0, 1000.0])
        h2 = (sign * h1).requires_grad_()
        target = torch.tensor([1, 0, 0])
    else:
        h1 = torch.tensor([[1000.0, 0.0, -1000.0]]).repeat(3, 1)
        h2 = (sign * h1).requires_grad_()
        target = torch.tensor([0, 1, 2])
    outputs = (h2.log_softmax(1), h1.log_softmax(1)) if base == "nll" else (h2, h1)
    value = CompatibilityLoss(base, dissonance, 1.0)(outputs[0], target, outputs[1])
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(h2.grad).all()


@pytest.mark.parametrize("loss_class", [BCBinaryCrossEntropyLoss, StrictImitationBinaryCrossEntropyLoss])
def test_sure_probabilities_stay_finite(loss_class):
    h1, h2 = Scores(torch.tensor([1.0, 0.0, 1.0])), Scores(torch.tensor([0.0, 1.0, 1.0]))
    value = loss_class(h1, h2, 1.0)(torch.zeros(3, 1), torch.tensor([1, 0, 1]))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(h2.scores.grad).all()


def test_discriminant_pivot_moves_the_support():
    h1, h2 = Scores(torch.tensor([0.6, 0.6])), Scores(torch.tensor([0.5, 0.5]))
    log2 = torch.tensor(2.0).log().item()
    y = torch.tensor([1.0, 0.0])
    # At 0.5 h1 is right on the first instance, at 0.7 on the second; at 0.6 class 1 begins: >=.
    for pivot, share in ((0.5, 0.5), (0.6, 0.5), (0.7, 0.5)):
        value = BCBinaryCrossEntropyLoss(h1, h2, 1.0, pivot)(torch.zeros(2, 1), y)
        assert value.item() == pytest.approx(log2 * (1 + share), rel=1e-6)
    support = [
        BCBinaryCrossEntropyLoss(h1, h2, 1.0, discriminant_pivot=pivot)(torch.zeros(2, 1), y, reduction="none")
        for pivot in (0.5, 0.6, 0.7)
    ]
    assert [(each > 1).tolist() for each in support] == [[True, False], [True, False], [False, True]]


def test_labels_of_h1_suffice_for_new_error():
    h2, target, h1 = inputs("cross_entropy")
    assert CompatibilityLoss()(h2, target, h1.argmax(1)) == CompatibilityLoss()(h2, target, h1)
    h2, target, h1 = inputs("binary_cross_entropy")
    loss = CompatibilityLoss("binary_cross_entropy")
    assert loss(h2, target, (h1 >= 0).int()) == loss(h2, target, h1)


class TestModels:
    def net(self, seed):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))

    def test_h2_runs_once_and_h1_is_left_alone(self):
        h1, h2 = self.net(0), self.net(1)
        h1.train()
        loss = BCCrossEntropyLoss(h1, h2, 0.5)
        before = copy.deepcopy(h1.state_dict())
        loss(torch.randn(16, 6), torch.randint(3, (16,))).backward()
        assert h2[1].num_batches_tracked == 1
        assert all(torch.equal(value, before[name]) for name, value in h1.state_dict().items())
        assert all(parameter.grad is None for parameter in h1.parameters())

    def test_a_support_of_one_instance_does_not_crash_batch_norm(self):
        h1, h2 = self.net(0), self.net(1)
        x = torch.randn(8, 6)
        with torch.no_grad():
            labels = h1.eval()(x).argmax(1)
        y = (labels + 1) % 3
        y[0] = labels[0]
        assert torch.isfinite(StrictImitationCrossEntropyLoss(h1, h2, 1.0)(x, y))

    def test_neither_model_reaches_parameters_state_dict_or_mode(self):
        h1, h2 = self.net(0), self.net(1)
        loss = BCNLLLoss(h1, h2, 0.5)
        assert not list(loss.parameters())
        assert not loss.state_dict()
        loss.train()
        h2.eval()
        loss(torch.randn(4, 6), torch.randint(3, (4,)))
        assert not h1.training
        assert not h2.training
        assert loss.h1 is h1
        assert loss.h2 is h2

    def test_pickle_and_deepcopy(self):
        h1, h2 = self.net(0).eval(), self.net(1).eval()
        loss = BCKLDivergenceLoss(h1, h2, 0.5, num_classes=3)
        x, y = torch.randn(4, 6), torch.randint(3, (4,))
        for again in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
            assert again(x, y) == loss(x, y)

    def test_class_map(self):
        h1, h2 = Scores(torch.tensor([[0.0, 5.0], [5.0, 0.0]])), Scores(torch.zeros(2, 3))
        # h1's classes 0 and 1 are h2's 2 and 0, so h1 says 0 and 2.
        loss = BCCrossEntropyLoss(h1, h2, 1.0, class_map=[2, 0])
        each = loss(torch.zeros(2, 1), torch.tensor([0, 0]), reduction="none")
        log3 = torch.tensor(3.0).log()
        torch.testing.assert_close(each, torch.stack([2 * log3, log3]))
        strict = StrictImitationKLDivergenceLoss(h1, h2, 1.0, class_map=[2, 0])
        assert torch.isfinite(strict(torch.zeros(2, 1), torch.tensor([0, 2])))


class TestBadInput:
    def refused(self, match, *, loss=None, error=ValueError, h2=None, target=None, h1=None):
        good = inputs("cross_entropy", n=4, classes=3)
        loss = loss or CompatibilityLoss()
        with pytest.raises(error, match=match):
            loss(*(good[i] if given is None else given for i, given in enumerate((h2, target, h1))))

    def test_labels_outside_the_classes(self):
        self.refused(r"label 3 at index 2, outside the classes 0\.\.2", target=torch.tensor([0, 1, 3, 2]))
        self.refused(r"label -1 at index 0", target=torch.tensor([-1, 1, 2, 2]))
        CompatibilityLoss(ignore_index=-1)(
            *[inputs("cross_entropy", n=4, classes=3)[0], torch.tensor([-1, 1, 2, 2])], torch.zeros(4, 3)
        )

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_nan_and_inf_say_whose(self, bad):
        self.refused(f"h1 returned {'NaN' if bad != bad else 'inf'}", h1=torch.full((4, 3), bad))
        self.refused(f"h2 returned {'NaN' if bad != bad else 'inf'}", h2=torch.full((4, 3), bad))

    def test_shapes_that_differ(self):
        self.refused(r"need a target of shape \(4,\). Received shape \(5,\)", target=torch.zeros(5, dtype=torch.long))
        self.refused(r"h1's scores must have h2's shape \(4, 3\)", h1=torch.zeros(2, 3))
        self.refused(r"h1's labels must have shape \(4,\)", h1=torch.zeros(2, dtype=torch.long))
        self.refused(r"scores of shape \(N, C", h2=torch.zeros(4))
        self.refused(r"Class indices must be integers", target=torch.zeros(4))
        binary = CompatibilityLoss("binary_cross_entropy")
        self.refused("one score per label", loss=binary, h2=torch.zeros(4, 3), target=torch.zeros(4), h1=torch.zeros(4))

    def test_other_classes_need_a_map(self):
        self.refused("h1 has 2 classes and h2 has 3: a class map is needed", h1=torch.zeros(4, 2))

    def test_empty_batch(self):
        empty = torch.zeros(0, 3)
        self.refused("The batch is empty", h2=empty, target=torch.zeros(0, dtype=torch.long), h1=empty)

    @pytest.mark.parametrize("bad", [-0.1, float("nan"), float("inf")])
    def test_lambda(self, bad):
        with pytest.raises(ValueError, match="finite number >= 0"):
            CompatibilityLoss(lambda_c=bad)

    def test_unknown_names_list_the_known(self):
        with pytest.raises(ValueError, match="Known: 'nll', 'cross_entropy', 'binary_cross_entropy', 'kl_divergence'"):
            CompatibilityLoss("mse")
        with pytest.raises(ValueError, match="Known: 'new_error', 'strict_imitation', 'imitation'"):
            CompatibilityLoss("nll", "newerror")
        with pytest.raises(ValueError, match="Known: 'batch', 'support'"):
            CompatibilityLoss(normalization="class")
        with pytest.raises(
            TypeError, match="'pos_weigth' for base='binary_cross_entropy'. Known options: .*'pos_weight'"
        ):
            CompatibilityLoss("binary_cross_entropy", pos_weigth=2)
        with pytest.raises(TypeError, match="BCNLLLoss has no option 'label_smoothing'. Known options: 'weight'"):
            BCNLLLoss(nn.Linear(2, 2), nn.Linear(2, 2), 0.5, label_smoothing=0.1)
        with pytest.raises(TypeError, match="'discriminate_pivot'"):
            BCBinaryCrossEntropyLoss(nn.Linear(2, 1), nn.Linear(2, 1), 0.5, discriminate_pivot=0.5)
        with pytest.raises(ValueError, match="Known: 'mean', 'batchmean', 'sum', 'none'"):
            CompatibilityLoss()(*inputs("cross_entropy"), reduction="avg")

    def test_imitation_needs_scores(self):
        loss = CompatibilityLoss("cross_entropy", "imitation")
        self.refused("imitates h1's probabilities", loss=loss, h1=torch.zeros(4, dtype=torch.long))

    def test_shared_parameters(self):
        net = nn.Linear(2, 2)
        with pytest.raises(ValueError, match="copy.deepcopy"):
            BCCrossEntropyLoss(net, net, 0.5)

    def test_logits_where_probabilities_were_expected(self):
        h1, h2 = Scores(torch.tensor([2.0])), Scores(torch.tensor([0.5]))
        with pytest.raises(ValueError, match="h1 returned 2 to 2 .* from_logits=True"):
            BCBinaryCrossEntropyLoss(h1, h2, 0.5)(torch.zeros(1, 1), torch.tensor([1]))

    def test_binary_targets_outside(self):
        loss = CompatibilityLoss("binary_cross_entropy")
        self.refused(
            r"must lie in 0\.\.1", loss=loss, h2=torch.zeros(2), target=torch.tensor([0, 2]), h1=torch.zeros(2)
        )

    def test_num_classes_of_the_kl_pair(self):
        loss = BCKLDivergenceLoss(nn.Linear(2, 3), nn.Linear(2, 3), 0.5, num_classes=4)
        with pytest.raises(ValueError, match="num_classes=4, but h2 scores 3"):
            loss(torch.zeros(2, 2), torch.tensor([0, 1]))


def test_every_named_loss_is_public():
    for loss_class in NAMED.values():
        assert getattr(bc_lightning, loss_class.__name__) is loss_class
