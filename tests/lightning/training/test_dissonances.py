"""Dissonances by name in a training: equal to the loss written by hand with torch's own functions; what is refused."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from user_code import CLASSES, FEATURES, UserModule, dataset, loader, make_h1, make_trainer

from bc_core import ClassMap
from bc_lightning import BCLightningModule, CompatibilityCallback, CompatibilityLoss, sweep


class Linear(UserModule):
    """Without dropout, so that a loop by hand draws nothing."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(FEATURES, CLASSES)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Smoothed(Linear):
    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1], label_smoothing=0.1)


class Decayed(Linear):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) + 0.1 * self.net.weight.square().sum()


def distilled(h2, y, h1):
    p1, log_p2 = F.softmax(h1 / 4, 1), F.log_softmax(h2 / 4, 1)
    return 16 * F.kl_div(log_p2, p1, reduction="none").sum(1) * (0.5 + 2 * (h1.argmax(1) == y))


def squared(h2, y, h1):
    return 0.5 * F.mse_loss(h2, h1, reduction="none").mean(1) * (1 + 5 * (h1.argmax(1) == y))


def inhibited(h2, y, h1):
    top = h1.topk(2, 1).indices
    return F.relu((h2.gather(1, top) - h1.gather(1, top)).abs() - 0.25).pow(2).mean(1)


def churned(h2, y, h1):
    return F.cross_entropy(h2, F.softmax(h1, 1), reduction="none") - F.cross_entropy(h2, y, reduction="none")


def surer(h2, y, h1):
    of_truth = [F.softmax(scores.detach(), 1).gather(1, y[:, None])[:, 0] for scores in (h1, h2)]
    held = (h1.argmax(1) == y) & (of_truth[0] > of_truth[1])
    return F.cross_entropy(h2, F.softmax(h1, 1), reduction="none") * held


BY_HAND = [
    ("focal_distillation", {"temperature": 4.0, "alpha": 0.5, "beta": 2.0}, distilled),
    ("logit_distance", {}, squared),
    ("logit_difference_inhibition", {"margin": 0.25, "top_k": 2}, inhibited),
    ("churn", {}, churned),
    ("where_h1_is_surer", {}, surer),
]


def by_hand(module, h1, d, lambda_c):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for x, y in loader():
        h2 = module(x)
        with torch.no_grad():
            z1 = h1(x)
        optimizer.zero_grad()
        (F.cross_entropy(h2, y) + lambda_c * d(h2, y, z1).mean()).backward()
        optimizer.step()
    return list(module.parameters())


def fitted(module, root, **options):
    make_trainer(root, max_epochs=1, **options).fit(module, loader())
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def same(ours, theirs):
    return all(torch.allclose(one, other, rtol=0, atol=1e-6) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(("name", "options", "d"), BY_HAND, ids=[name for name, *_ in BY_HAND])
def test_training_by_name_is_training_by_hand(name, options, d, tmp_path):
    torch.manual_seed(0)
    module, h1, lambda_c = Linear(), make_h1(), 0.7
    plain, theirs = copy.deepcopy(module.net), by_hand(copy.deepcopy(module.net), h1, d, lambda_c)
    by_callback = copy.deepcopy(module)
    ours = BCLightningModule(module, h1=h1, loss=name, lambda_c=lambda_c, loss_options=options)
    assert same(fitted(ours, tmp_path), theirs)
    assert not same(by_hand(copy.deepcopy(plain), h1, d, 0.0), theirs)
    callback = CompatibilityCallback(h1=h1, loss=name, lambda_c=lambda_c, loss_options=options)
    assert same(fitted(by_callback, tmp_path, callbacks=[callback]), theirs)

    def sgd(parameters):
        return torch.optim.SGD(parameters, lr=0.1)

    wrapped = BCLightningModule(plain, h1=h1, loss=name, lambda_c=lambda_c, loss_options=options, optimizer=sgd)
    assert same(fitted(wrapped, tmp_path), theirs)


def test_two_references_make_muscle(tmp_path):
    torch.manual_seed(0)
    module, h1, plain = Linear(), make_h1(), nn.Linear(FEATURES, CLASSES)
    net = copy.deepcopy(module.net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for x, y in loader():
        h2, wrong = net(x), net(x).argmax(1) != y
        with torch.no_grad():
            goal = torch.where(wrong[:, None], h1(x).softmax(1), plain(x).softmax(1))
        optimizer.zero_grad()
        (F.cross_entropy(h2, y) + 0.7 * F.cross_entropy(h2, goal)).backward()
        optimizer.step()
    module = BCLightningModule(module, h1=h1, loss="where_h2_is_wrong", lambda_c=0.7)
    module = BCLightningModule(module, h1=plain, loss="where_h2_is_right", lambda_c=0.7, log_prefix="plain_")
    assert same(fitted(module, tmp_path), list(net.parameters()))


@pytest.mark.parametrize("name", ["focal_distillation", "logit_difference_inhibition", "where_h2_is_wrong"])
def test_lambda_0_is_plain_training_to_the_bit(name, tmp_path):
    torch.manual_seed(0)
    module = Linear()
    plain = fitted(copy.deepcopy(module), tmp_path)
    wrapped = fitted(BCLightningModule(module, h1=make_h1(), loss=name, lambda_c=0.0), tmp_path)
    assert all(torch.equal(one, other) for one, other in zip(wrapped, plain, strict=True))


@pytest.mark.parametrize("name", ["focal_distillation", "logit_distance", "logit_difference_inhibition"])
def test_class_weights_count_instances_and_their_scale_does_not_matter(name):
    torch.manual_seed(0)
    h2, h1, weight = torch.randn(40, 3), torch.randn(40, 3), torch.tensor([0.2, 1.0, 3.0])
    target = torch.randint(3, (40,))
    target[::7] = -100
    loss = CompatibilityLoss("cross_entropy", name, 2.0, weight=weight)
    plain = CompatibilityLoss("cross_entropy", name, 2.0)
    of_class = torch.where(target < 0, 0.0, weight[target.clamp_min(0)])
    expected = (of_class * plain(h2, target, h1, "none")).sum() / of_class.sum()
    torch.testing.assert_close(loss(h2, target, h1), expected)
    torch.testing.assert_close(
        CompatibilityLoss("cross_entropy", name, 2.0, weight=10 * weight)(h2, target, h1), expected
    )


def test_weights_of_binary_labels_count_them_in_a_distance_too():
    h2, h1, target = torch.tensor([0.5, -1.0]), torch.tensor([1.0, -3.0]), torch.tensor([1.0, 0.0])
    options = {"pos_weight": torch.tensor([3.0]), "weight": torch.tensor([2.0, 1.0]), "over_classes": "sum"}
    plain, held = (
        CompatibilityLoss("binary_cross_entropy", "logit_distance", lambda_c, alpha=1.0, beta=0.0, **options)(
            h2, target, h1, "none"
        )
        for lambda_c in (0.0, 1.0)
    )
    torch.testing.assert_close(held - plain, torch.tensor([2 * 3 * 0.125, 2.0]))


@pytest.mark.parametrize("name", ["focal_distillation", "logit_difference_inhibition", "where_h2_is_wrong", "anchor"])
def test_compiled_is_eager(name):
    torch.manual_seed(0)
    h2, h1, target = torch.randn(8, 3, requires_grad=True), torch.randn(8, 3), torch.randint(3, (8,))
    loss = CompatibilityLoss("cross_entropy", name, 0.9)
    values = []
    for function in (loss, torch.compile(loss, backend="aot_eager", fullgraph=True)):
        h2.grad = None
        value = function(h2, target, h1)
        value.backward()
        values.append((value.detach(), h2.grad.clone()))
    torch.testing.assert_close(values[0], values[1])


class TestBadInput:
    @pytest.mark.parametrize("name", ["churn", "anchor"])
    def test_a_share_of_the_target_needs_the_base_that_is_trained(self, name, tmp_path):
        for module in (Smoothed(), Decayed()):
            with pytest.raises(ValueError, match="in the place of a share of the target.*loss='imitation'"):
                fitted(BCLightningModule(module, h1=make_h1(), loss=name, lambda_c=0.5), tmp_path)
        # The remedies.
        told = {"label_smoothing": 0.1}
        fitted(BCLightningModule(Smoothed(), h1=make_h1(), loss=name, lambda_c=0.5, loss_options=told), tmp_path)
        fitted(BCLightningModule(Decayed(), h1=make_h1(), loss="imitation", lambda_c=1.0), tmp_path)

    def test_more_than_the_whole_target(self, tmp_path):
        for lambda_c in (1.5, lambda epoch: 2.0):
            with pytest.raises(ValueError, match="at most 1"):
                BCLightningModule(Linear(), h1=make_h1(), loss="churn", lambda_c=lambda_c)
        with pytest.raises(ValueError, match="at most 1"):
            fitted(
                BCLightningModule(Linear(), h1=make_h1(), loss="churn", lambda_c=lambda epoch: 0.5 + epoch), tmp_path
            )
        with pytest.raises(ValueError, match="at most 1.*Received: 16"):
            sweep(
                Linear,
                make_h1(),
                loader(),
                folder=tmp_path / "sweep",
                losses=["churn"],
                lambdas=[0, 16],
                trainer={"max_epochs": 1},
            )
        assert not (tmp_path / "sweep").exists()

    @pytest.mark.parametrize("name", ["logit_distance", "logit_difference_inhibition"])
    def test_logits_of_classes_that_h1_does_not_have(self, name):
        with pytest.raises(ValueError, match="compares logits.*take dissonance='focal_distillation'"):
            BCLightningModule(Linear(), h1=nn.Linear(FEATURES, 2), loss=name, class_map=[0, 2])

    @pytest.mark.parametrize("name", ["logit_distance", "logit_difference_inhibition"])
    def test_an_h1_that_gives_no_logits(self, name, tmp_path):
        h1 = make_h1()
        for answer in (lambda x: h1(x).softmax(1), lambda x: h1(x).log_softmax(1)):
            with pytest.raises(ValueError, match="h1 gives probabilities or their logarithms, and h2 logits"):
                fitted(BCLightningModule(Linear(), h1=answer, loss=name), tmp_path)
        # The remedy.
        fitted(BCLightningModule(Linear(), h1=answer, loss="focal_distillation"), tmp_path)

    def test_probabilities_of_classes_that_h1_does_not_have(self, tmp_path):
        torch.manual_seed(0)
        module = BCLightningModule(
            Linear(),
            h1=nn.Linear(FEATURES, 2),
            loss="focal_distillation",
            class_map=ClassMap([0, 2], new=[1]),
            loss_options={"temperature": 0.5},
        )
        assert all(torch.isfinite(parameter).all() for parameter in fitted(module, tmp_path))

    def test_labels_alone_and_options_of_another(self, tmp_path):
        with pytest.raises(ValueError, match="imitates h1's probabilities"):
            fitted(BCLightningModule(Linear(), h1=lambda x: x[:, :3].argmax(1), loss="logit_distance"), tmp_path)
        with pytest.raises(ValueError, match="temperature must be a number > 0"):
            BCLightningModule(Linear(), h1=make_h1(), loss="focal_distillation", loss_options={"temperature": 0})
        with pytest.raises(TypeError, match="has no option 'temperature'"):
            CompatibilityCallback(h1=make_h1(), loss="imitation", loss_options={"temperature": 2.0})


def test_a_sweep_over_dissonances_by_name(tmp_path):
    found = sweep(
        Linear,
        make_h1(),
        loader(),
        val=loader(dataset(40, seed=1)),
        folder=tmp_path,
        losses=["focal_distillation", "where_h1_is_surer"],
        lambdas=[0, 1],
        trainer={"max_epochs": 1, "accelerator": "cpu"},
        tensorboard=False,
        progress_bar=False,
    )
    assert {row["loss"] for row in found.rows() if row["lambda_c"]} == {"focal_distillation", "where_h1_is_surer"}
    assert not found.failures
