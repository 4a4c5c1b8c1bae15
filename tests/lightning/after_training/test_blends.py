"""Blends in torch: the forms that models answer in, and what leaves the process."""

import io

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bc_lightning import BCLightningModule, Reference, blend, blended_model, distil, evaluate
from bc_lightning.reference._modules import copied
from bc_lightning.training._wrapped import compatibilities_of


def data(rows=400, seed=0, binary=False):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 4, generator=generator)
    return TensorDataset(x, (x[:, 0] > 0).long() if binary else x[:, :3].argmax(1))


def nets(classes=3, last=None, seeds=(0, 1)):
    made = []
    for seed in seeds:
        torch.manual_seed(seed)
        layers = [nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, classes)]
        made.append(nn.Sequential(*layers, *([] if last is None else [last])).eval())
    return made


X = torch.randn(16, 4, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(("how", "setting"), [("probability", {"weight": 0.3}), ("gate", {"ratio": 1.1})])
def test_exports_and_saves(how, setting):
    model = blended_model(*nets(), how, **setting)
    expected = model(X)
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (X,), dynamic_shapes={"x": {0: batch}})
    content = io.BytesIO()
    torch.export.save(program, content)
    content.seek(0)
    loaded = torch.export.load(content).module()
    for rows in (16, 3):
        torch.testing.assert_close(loaded(X[:rows]), expected[:rows])
    content = io.BytesIO()
    torch.save(model.state_dict(), content)
    assert {name.split(".")[0] for name in model.state_dict()} == {"h1", "h2"}


def test_is_frozen_in_eval_mode_and_shares_nothing():
    h1, h2 = nets(last=nn.Dropout(0.9))
    model = blended_model(h1.train(), h2.train(), weight=0.5).train()
    assert h1.training
    assert not any(module.training for module in model.modules())
    assert not any(each.requires_grad for each in model.parameters())
    before = model(X)
    with torch.no_grad():
        h2[0].weight.zero_()
    assert torch.equal(model(X), before)


@pytest.mark.parametrize("jit", [torch.jit.script, lambda net: torch.jit.freeze(torch.jit.script(net))])
def test_models_of_torch_jit_are_blended_and_evaluated_as_what_they_were_made_of(jit):
    h1, h2 = nets()
    held, expected = data(), blended_model(h1, h2, weight=0.3)(X)
    for one, other in ((jit(h1), h2), (h1, jit(h2))):
        found = blend(one, other, held, "nfr <= 99%", weight=0.3)
        torch.testing.assert_close(found.model(X), expected, rtol=1e-5, atol=1e-6)
        assert not any(each.requires_grad for each in found.model.parameters())
        assert evaluate(one, other, held).comparison.overlap == evaluate(h1, h2, held).comparison.overlap


def test_a_copy_of_a_module_of_torch_jit_trains_as_it_would():
    net = torch.jit.script(nets()[0])
    next(net.parameters()).requires_grad_(False)
    copy = copied(net)
    copy(X).square().sum().backward()
    for module in (net, copy):
        assert [each.requires_grad for each in module.parameters()] == [False, True, True, True]
    assert [each.grad is None for each in copy.parameters()] == [True, False, False, False]
    assert all(each.grad is None for each in net.parameters())


@pytest.mark.parametrize(("how", "name", "value"), [("probability", "weight", 0.25), ("gate", "ratio", 1.05)])
def test_models_that_return_probabilities_are_told_by_their_answers(how, name, value):
    """The same blend, in h2's form, whichever form h1's answers have."""
    logits = nets()
    probabilities = [nn.Sequential(net, nn.Softmax(1)) for net in logits]
    expected = blended_model(*logits, how, **{name: value})(X).softmax(1)
    for h1 in (logits[0], probabilities[0]):
        found = blend(h1, probabilities[1], data(), "nfr <= 99%", how=how, **{name: value})
        torch.testing.assert_close(found.model(X), expected, rtol=1e-5, atol=1e-6)
        found = blend(h1, logits[1], data(), "nfr <= 99%", how=how, **{name: value})
        torch.testing.assert_close(found.model(X).softmax(1), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("how", ["probability", "logit", "gate"])
@pytest.mark.parametrize("columns", [1, None])
def test_binary_scores(how, columns):
    """Against numbers of class 1, in both forms and shapes."""
    plain = nets(1)
    flat = nn.Flatten(0) if columns is None else nn.Identity()
    logits = [nn.Sequential(net, flat) for net in plain]
    setting = {"ratio": 1.02} if how == "gate" else {"weight": 0.4}
    p1, p2 = (net(X).sigmoid().double() for net in logits)
    if how == "gate":
        expected = torch.where(torch.maximum(p2, 1 - p2) > 1.02 * torch.maximum(p1, 1 - p1), p2, p1)
    elif how == "probability":
        expected = 0.4 * p1 + 0.6 * p2
    else:
        expected = (0.4 * p1.logit() + 0.6 * p2.logit()).sigmoid()
    found = blend(*logits, data(binary=True), "nfr <= 99%", how=how, from_logits=True, **setting)
    torch.testing.assert_close(found.model(X).sigmoid().double(), expected, rtol=1e-5, atol=1e-6)
    sigmoids = [nn.Sequential(net, nn.Sigmoid()) for net in logits]
    found = blend(*sigmoids, data(binary=True), "nfr <= 99%", how=how, **setting)
    torch.testing.assert_close(found.model(X).double(), expected, rtol=1e-5, atol=1e-6)


def test_multilabel_is_read_as_it_was_trained():
    h1, h2 = nets(3)
    x, y = data().tensors
    labels = TensorDataset(x, nn.functional.one_hot(y, 3).float())
    module = BCLightningModule(h2, h1=h1, loss="BCBinaryCrossEntropyLoss", loss_options={"from_logits": True})
    found = blend(h1, module, labels, "nfr <= 99%", weight=0.5)
    expected = (h1(X).sigmoid() + h2(X).sigmoid()) / 2
    torch.testing.assert_close(found.model(X).sigmoid(), expected, rtol=1e-5, atol=1e-6)
    assert found.overlap.total == 3 * len(labels)


def test_half_precision_is_mixed_in_single():
    h1, h2 = nets()
    model = blended_model(h1.bfloat16(), h2.bfloat16(), weight=0.5)
    assert model(X.bfloat16()).dtype == torch.float32


def test_logits_with_large_gaps_stay_finite():
    h1, h2 = (nn.Sequential(nn.Identity()) for _ in range(2))
    scores = torch.tensor([[0.0, 1000.0, -1000.0]])
    for how, setting in (("probability", {"weight": 0.5}), ("gate", {"ratio": 2.0}), ("logit", {"weight": 0.1})):
        assert torch.isfinite(blended_model(h1, h2, how, **setting)(scores)).all()


def test_the_originals_triple_and_functions_of_outputs():
    class Triple(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x):
            z = self.net(x)
            return z, z.softmax(1), z.log_softmax(1)

    h1, h2 = nets()
    expected = blended_model(h1, h2, weight=0.5)(X)
    torch.testing.assert_close(blend(Triple(h1), Triple(h2), data(), "nfr <= 99%", weight=0.5).model(X), expected)

    class Listed(Triple):
        def forward(self, x):
            return [x, self.net(x)]

    def second(output):
        return output[1]

    for old, options in (
        (Listed(h1), {"h1_scores": second}),
        (Listed(h1), {}),  # made as h2 is
        (Reference(Listed(h1), scores=second), {}),
        (h1, {}),
    ):
        found = blend(old, Listed(h2), data(), "nfr <= 99%", weight=0.5, scores=second, **options)
        torch.testing.assert_close(found.model(X), expected)


def test_refuses_names_of_submodules_and_doubtful_axes():
    h1, h2 = nets()
    with pytest.raises(ValueError, match="function of what the model returns"):
        blend(h1, h2, data(), "nfr <= 9%", scores="2")

    class Tokens(nn.Module):
        def forward(self, x):
            return torch.stack([x, x, x, x], 1)

    x = torch.randn(20, 4)
    tokens = TensorDataset(x, x.argmax(1)[:, None].expand(20, 4))
    with pytest.raises(ValueError, match="class_axis=1 or class_axis=-1"):
        blend(Tokens(), Tokens(), tokens, "nfr <= 9%")
    found = blend(Tokens(), Tokens(), tokens, "nfr <= 9%", weight=0.5, class_axis=-1)
    assert found.overlap.both_right == found.overlap.total == 80


def test_distil_gives_logits_of_a_blend_of_probabilities_and_names_of_its_own():
    logits = nets()
    blended = blended_model(*(nn.Sequential(net, nn.Softmax(1)) for net in logits), weight=0.5, from_logits=False)
    module = distil(blended, nn.Linear(4, 3), optimizer=torch.optim.Adam)
    state = compatibilities_of(module)[0]
    torch.testing.assert_close(state.reference(X).softmax(1), blended(X))
    assert state.loss.dissonance == "imitation"
    assert state.options.log_prefix == "blend_"
    assert blended.form.returns_logits is None


def test_h1_with_a_class_map_is_refused():
    h1, h2 = nets()
    with pytest.raises(ValueError, match="class map"):
        blend(Reference(h1, class_map=[0, 1, 2]), h2, data(), "nfr <= 9%")


def test_each_model_computes_its_answers_once():
    calls = []

    class Counting(nn.Sequential):
        def forward(self, x):
            calls.append(len(x))
            return super().forward(x)

    h1, h2 = (Counting(net) for net in nets())
    blend(h1, h2, data(), "nfr <= 99%", weight=0.5)
    of_one = len(calls)
    calls.clear()
    found = blend(h1, h2, data(), "nfr <= 99%")
    assert len(found.trials) == 21
    assert len(calls) == of_one
    assert [type(each) for each in (found.model.h1, found.model.h2)] == [Counting, Counting]


def test_a_loader_that_shuffles_counts_the_same():
    h1, h2 = nets()
    found = blend(h1, h2, DataLoader(data(), 64, shuffle=True), "nfr <= 99%", weight=[0.2, 0.8])
    plain = blend(h1, h2, data(), "nfr <= 99%", weight=[0.2, 0.8])
    assert [trial.overlap for trial in found.trials] == [trial.overlap for trial in plain.trials]
