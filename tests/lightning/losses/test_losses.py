"""What the losses are in torch alone; what both sides promise is in tests/conformance."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

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

GOLDEN = json.loads((Path(__file__).parents[2] / "data" / "losses.json").read_text())
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


@pytest.mark.parametrize("dissonance", DISSONANCES)
@pytest.mark.parametrize("options", [{}, {"weight": [0.2, 1.0, 3.0, 0.5, 1.5]}, {"label_smoothing": 0.1}])
def test_lambda_zero_is_torch_to_the_bit(dissonance, options):
    h2, target, h1 = inputs("cross_entropy", dtype=torch.float32)
    loss = CompatibilityLoss("cross_entropy", dissonance, 0.0, **options)
    plain = {**options, **({"weight": torch.tensor(options["weight"])} if "weight" in options else {})}
    for reduction in ("mean", "sum", "none"):
        assert torch.equal(loss(h2, target, h1, reduction), F.cross_entropy(h2, target, reduction=reduction, **plain))


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


class TestBadInput:
    def refused(self, match, *, loss=None, error=ValueError, h2=None, target=None, h1=None):
        good = inputs("cross_entropy", n=4, classes=3)
        loss = loss or CompatibilityLoss()
        with pytest.raises(error, match=match):
            loss(*(good[i] if given is None else given for i, given in enumerate((h2, target, h1))))

    def test_shapes_that_differ(self):
        self.refused(r"need a target of shape \(4,\). Received shape \(5,\)", target=torch.zeros(5, dtype=torch.long))
        self.refused(r"h1's scores must have h2's shape \(4, 3\)", h1=torch.zeros(2, 3))
        self.refused(r"h1's labels must have shape \(4,\)", h1=torch.zeros(2, dtype=torch.long))
        self.refused(r"scores of shape \(N, C", h2=torch.zeros(4))
        self.refused(r"Class indices must be integers", target=torch.zeros(4))
        binary = CompatibilityLoss("binary_cross_entropy")
        self.refused("one score per label", loss=binary, h2=torch.zeros(4, 3), target=torch.zeros(4), h1=torch.zeros(4))

    def test_shared_parameters(self):
        net = nn.Linear(2, 2)
        with pytest.raises(ValueError, match="copy.deepcopy"):
            BCCrossEntropyLoss(net, net, 0.5)
