"""Steps in which a plausible reading would be wrong: known, or refused with a remedy that works."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from user_code import CLASSES, FEATURES, dataset, fit, loader, made, make_h1
from users_modules import VAL, Base, Forward, accuracy, mixed

from bc_lightning import BCLightningModule, CompatibilityLoss, evaluate, store_outputs

X, Y = dataset().tensors


def trained(module_class, h1, tmp_path, train=None, **options):
    module = BCLightningModule(made(module_class), h1=h1, **options)
    trainer = fit(module, tmp_path, train=train or loader(), val=[], max_epochs=1)
    return module, {name: value.item() for name, value in trainer.callback_metrics.items()}


class Holder:
    def __init__(self, model):
        self.model = model

    def __call__(self, x):
        return self.model(x)

    def answer(self, x):
        return self.model(x)


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda old: lambda x: old(x) + 0,
        lambda old: lambda x, model=old: model(x) + 0,
        Holder,
        lambda old: Holder(old).answer,
        lambda old: functools.partial(lambda model, x: model(x), old),
        lambda old: lambda x, models={"a": old}: models["a"](x) + 0,
    ],
)
def test_a_function_that_runs_h1_answers_in_eval_mode(wrapped, tmp_path):
    old = make_h1().train()
    counted = int(old[0].num_batches_tracked)
    _, found = trained(type("M", (Forward,), {"training_step": _plain}), wrapped(old), tmp_path)
    assert found["train_accuracy_h1"] == pytest.approx(accuracy(make_h1(), X, Y))
    old.train()
    stored = store_outputs(wrapped(old), VAL, tmp_path / "h1")
    torch.testing.assert_close(stored[:], make_h1()(VAL.tensors[0]).detach())
    assert evaluate(wrapped(old.train()), made(Forward), VAL).comparison.overlap.accuracy_h1 == pytest.approx(
        accuracy(make_h1())
    )
    assert int(old[0].num_batches_tracked) == counted


def _plain(self, batch, batch_idx):
    return F.cross_entropy(self(batch[0]), batch[1])


def test_a_function_that_runs_h2_is_refused():
    h2 = made(Forward)
    with pytest.raises(ValueError, match=r"runs weights of h2.*copy\.deepcopy"):
        BCLightningModule(h2, h1=lambda x: h2.net(x) + 0)
    old = copy.deepcopy(h2)
    BCLightningModule(h2, h1=lambda x: old(x) + 0)


class IgnoresZero(Forward):
    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1], ignore_index=0)


def test_a_label_that_the_users_loss_leaves_out(h1, tmp_path):
    with pytest.raises(ValueError, match=r"leaves out the label 0.*loss_options=\{'ignore_index': 0\}"):
        trained(IgnoresZero, h1, tmp_path)
    _, found = trained(IgnoresZero, h1, tmp_path, loss_options={"ignore_index": 0})
    counted = Y != 0
    assert found["train_accuracy_h1"] == pytest.approx(accuracy(h1, X[counted], Y[counted]))


class TwoLabels(Forward):
    """Mixed by a collate function: (x, labels of one, labels of the other, share)."""

    hands_over = False

    def training_step(self, batch, batch_idx):
        x, one, other, share = batch
        if self.hands_over:
            soft = F.one_hot(torch.stack([one, other]), CLASSES).float()
            self.compatibility_target = share * soft[0] + (1 - share) * soft[1]
        logits = self(x)
        return share * F.cross_entropy(logits, one) + (1 - share) * F.cross_entropy(logits, other)


def test_a_batch_that_was_mixed_before_the_step(h1, tmp_path):
    def collate(rows):
        x, y = (torch.stack(part) for part in zip(*rows, strict=True))
        return 0.3 * x + 0.7 * x.roll(1, 0), y, y.roll(1), 0.3

    data = DataLoader(dataset(), 16, collate_fn=collate)
    with pytest.raises(ValueError, match=r"the batch's target and with another one.*self\.compatibility_target = y"):
        trained(TwoLabels, h1, tmp_path, train=data)
    TwoLabels.hands_over = True
    _, found = trained(TwoLabels, h1, tmp_path, train=data)
    right = [(h1(x).argmax(1) == other).float() for x, _, other, _ in data]
    assert found["train_accuracy_h1"] == pytest.approx(torch.cat(right).mean().item())


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_the_penalty_is_on_the_mixed_target_whatever_its_largest_entry_is(share, h1, tmp_path):
    class Mixup(Forward):
        def training_step(self, batch, batch_idx):
            x, y = mixed(*batch, share)
            return F.cross_entropy(self(x), y)

    class ByHand(Forward):
        def training_step(self, batch, batch_idx):
            x, y = mixed(*batch, share)
            dissonance = CompatibilityLoss("cross_entropy", "new_error").terms(self.net(x), y, h1(x)).dissonance
            return F.cross_entropy(self(x), y) + 4.0 * dissonance

    module, _ = trained(Mixup, h1, tmp_path, lambda_c=4.0)
    expected = made(ByHand)
    fit(expected, tmp_path, train=loader(), val=[], max_epochs=1)
    torch.testing.assert_close(module.net.weight, expected.net.weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("relabel", [lambda y: (y - 1) % CLASSES, lambda y: torch.tensor([1, 2, 0])[y]])
def test_labels_that_a_loss_of_ones_own_maps(relabel, h1, tmp_path):
    class Mapping(Forward):
        def training_step(self, batch, batch_idx):
            x, y = batch
            logits = self(x)
            return -logits.log_softmax(1).gather(1, relabel(y)[:, None]).mean()

    with pytest.raises(ValueError, match=r"other class indices.*target=lambda batch"):
        trained(Mapping, h1, tmp_path)
    _, found = trained(Mapping, h1, tmp_path, target=lambda batch: relabel(batch[1]))
    assert found["train_accuracy_h1"] == pytest.approx(accuracy(h1, X, relabel(Y)))


def test_a_target_that_a_loss_of_ones_own_reads_elsewhere(h1, tmp_path):
    class Domain(Forward):
        def training_step(self, batch, batch_idx):
            return -self(batch[0]).log_softmax(1).gather(1, batch[2][:, None]).mean()

    data = DataLoader(TensorDataset(X, torch.arange(96) % 2, Y), 16)
    with pytest.raises(ValueError, match="does not use element 1 of the batch.*target=2"):
        trained(Domain, h1, tmp_path, train=data)
    _, found = trained(Domain, h1, tmp_path, train=data, target=2)
    assert found["train_accuracy_h1"] == pytest.approx(accuracy(h1, X, Y))


def test_a_metric_of_the_labels_and_class_weights_are_no_mapping(h1, tmp_path):
    class Weighted(Forward):
        def training_step(self, batch, batch_idx):
            x, y = batch
            logits = self(x)
            self.log("accuracy", (logits.argmax(1) == y).float().mean())
            weight = torch.tensor([1.0, 2.0, 3.0])[y]
            return -(weight * logits.log_softmax(1).gather(1, y[:, None])[:, 0]).mean()

    _, found = trained(Weighted, h1, tmp_path)
    assert found["train_accuracy_h1"] == pytest.approx(accuracy(h1, X, Y))


@pytest.mark.parametrize("change", [nn.ReLU(inplace=True), lambda f: f.mul_(-1), lambda f: F.relu(f, inplace=True)])
def test_parts_with_something_in_place_between_them(change, h1, tmp_path):
    class Parts(Base):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(FEATURES, FEATURES)
            self.change = change

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self.net(self.change(self.body(batch[0]))), batch[1])

    with pytest.raises(ValueError, match="computed by another part of h2"):
        trained(Parts, made(Parts, seed=8), tmp_path)
    _, found = trained(Parts, h1, tmp_path)
    assert found["train_accuracy_h1"] == pytest.approx(accuracy(h1, X, Y))


def test_heads_of_equal_shape_are_no_triple(h1, tmp_path):
    class Heads(Forward):
        def forward(self, x):
            logits = self.net(x)
            return [logits * 0.5, logits - 1, logits]

        def training_step(self, batch, batch_idx):
            return sum(F.cross_entropy(each, batch[1]) for each in self(batch[0]))

    with pytest.raises(TypeError, match=r"not the softmax of the first.*scores=lambda output: output\[-1\]"):
        trained(Heads, h1, tmp_path)
    trained(Heads, h1, tmp_path, scores=lambda output: output[-1])


def test_labels_that_are_changed_for_a_metric_after_h2_has_answered(h1, tmp_path):
    class Masking(Forward):
        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch, batch_idx):
            self.log("loss", F.cross_entropy(self(batch[0]), batch[1]))
            batch[1][:] = 0

    data = DataLoader([(x.clone(), y.clone()) for x, y in zip(*VAL.tensors, strict=True)], 16)
    trainer = fit(BCLightningModule(made(Masking), h1=h1), tmp_path, val=data, max_epochs=1)
    assert trainer.callback_metrics["val_accuracy_h1"].item() == pytest.approx(accuracy(h1))


def test_a_copy_made_in_a_step_carries_nothing_of_ours(h1, tmp_path):
    class Teaching(Forward):
        teacher = None

        def training_step(self, batch, batch_idx):
            if self.teacher is None:
                object.__setattr__(self, "teacher", copy.deepcopy(self.net))
            with torch.no_grad():
                self.teacher(batch[0])
            return F.cross_entropy(self(batch[0]), batch[1])

    for options in ({}, {"scores": "net"}):
        module, found = trained(Teaching, h1, tmp_path, **options)
        assert not module.teacher._forward_hooks
        assert not module.teacher._forward_pre_hooks
        assert found["train_accuracy_h1"] == pytest.approx(accuracy(h1, X, Y))


def test_of_two_losses_that_are_optimised_by_hand_the_one_of_the_scores(h1, tmp_path):
    class Centres(Forward):
        penalised = False

        def __init__(self):
            super().__init__()
            self.automatic_optimization = False
            self.centre = nn.Parameter(torch.zeros(FEATURES))

        def training_step(self, batch, batch_idx):
            x, y = batch
            optimizer = self.optimizers()
            optimizer.zero_grad()
            logits = self(x)
            self.manual_backward(((x - self.centre) ** 2).mean())
            loss = F.cross_entropy(logits, y)
            if self.penalised:
                right = (h1(x).argmax(1) == y).float()
                loss = loss + 3.0 * (F.cross_entropy(logits, y, reduction="none") * right).mean()
            self.manual_backward(loss)
            optimizer.step()

    module, found = trained(Centres, h1, tmp_path, lambda_c=3.0)
    expected = made(type("ByHand", (Centres,), {"penalised": True}))
    fit(expected, tmp_path, train=loader(), val=[], max_epochs=1)
    torch.testing.assert_close(module.net.weight, expected.net.weight, rtol=1e-4, atol=1e-6)
    assert found["train_base_loss"] > 0.5


def test_tokens_whose_later_batch_is_as_long_as_there_are_classes(tmp_path):
    class Tags(Base):
        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, batch_idx):
            x, y = batch
            return -self(x).log_softmax(-1).gather(-1, y[..., None]).mean()

    torch.manual_seed(0)
    batches = [(torch.randn(8, time, FEATURES), torch.randint(CLASSES, (8, time))) for time in (6, CLASSES, 5)]
    old = made(Tags, seed=8)
    _, found = trained(Tags, old, tmp_path, train=DataLoader(batches, batch_size=None))
    right = torch.cat([(old(x).argmax(-1) == y).flatten().float() for x, y in batches])
    assert found["train_accuracy_h1"] == pytest.approx(right.mean().item())


def test_evaluate_reads_h1_in_the_classes_it_was_trained_with(h1):
    class_map = [2, 0, 1]
    module = BCLightningModule(made(Forward), h1=h1, class_map=class_map)
    found = evaluate(h1, module, VAL).comparison.overlap.accuracy_h1
    x, y = VAL.tensors
    with torch.no_grad():
        assert found == pytest.approx((torch.tensor(class_map)[h1(x).argmax(1)] == y).float().mean().item())


# -- several views of an instance in one call ---------------------------------------------------------------------


def _by_rows(h1, x, y, outputs, lambda_c=4.0):
    """lambda_c times the mean of the new errors of these rows, of which -100 marks those that are not held."""
    with torch.no_grad():
        right = (h1(x).argmax(1) == y).float()
    return lambda_c * (right * F.cross_entropy(outputs, y, reduction="none")).sum() / (y >= 0).sum()


class Views(Forward):
    """The loss is computed from two views of each instance; `h1` stands for one that holds the penalty itself."""

    h1 = None

    def beside(self, x):
        return torch.stack([x, x + 0.1], 1).flatten(0, 1)

    def after(self, x):
        return torch.cat([x, x + 0.1])

    def training_step(self, batch, batch_idx):
        x, y = batch
        views, target = self.views(x), self.target_for(y)
        if self.told:
            self.compatibility_target = target
        outputs = self(views)
        loss = self.loss(outputs, y)
        return loss if self.h1 is None else loss + _by_rows(self.h1, views, target, outputs)


class Chunks(Views):
    views = Views.after

    def target_for(self, y):
        return torch.cat([y, torch.full_like(y, -100)])

    def loss(self, outputs, y):
        one, two = outputs.chunk(2)
        return F.cross_entropy(one, y) + F.mse_loss(one, two)


class Both(Chunks):
    def target_for(self, y):
        return torch.cat([y, y])

    def loss(self, outputs, y):
        return F.cross_entropy(outputs[: len(y)], y) + F.cross_entropy(outputs[len(y) :], y)


class Crops(Views):
    views = Views.beside

    def target_for(self, y):
        return y.repeat_interleave(2)

    def loss(self, outputs, y):
        return F.cross_entropy(outputs.view(len(y), 2, CLASSES).mean(1), y)


@pytest.mark.parametrize("kind", [Chunks, Both, Crops])
def test_several_views_are_refused_and_the_remedy_works(kind, h1, tmp_path):
    asked, told, by_hand = (
        type("Kind", (kind,), {"told": told, "h1": held}) for told, held in ((False, None), (True, None), (False, h1))
    )
    with pytest.raises(ValueError, match=r"loss on 20 instances, and h2 answered for 40.*self\.compatibility_target ="):
        trained(asked, h1, tmp_path)
    module, _ = trained(told, h1, tmp_path, lambda_c=4.0)
    expected = made(by_hand)
    fit(expected, tmp_path, train=loader(), val=[], max_epochs=1)
    torch.testing.assert_close(module.net.weight, expected.net.weight, rtol=1e-5, atol=1e-6)


def test_a_target_that_was_made_for_the_views_of_a_batch(h1, tmp_path):
    """Each item holds two views, which are h2's input as they are."""
    pairs = DataLoader(TensorDataset(torch.stack([X, X + 0.1], 1), Y), 20)

    class Flat(Forward):
        def training_step(self, batch, batch_idx):
            x, y = batch
            return F.cross_entropy(self(x.flatten(0, 1)), y.repeat_interleave(2))

    class ByHand(Forward):
        def training_step(self, batch, batch_idx):
            x, y = batch
            return -self(x.flatten(0, 1)).log_softmax(1).gather(1, y.repeat_interleave(2)[:, None]).mean()

    flat = DataLoader(TensorDataset(torch.stack([X, X + 0.1], 1).flatten(0, 1), Y.repeat_interleave(2)), 40)
    expected, _ = trained(type("M", (Forward,), {"training_step": _plain}), h1, tmp_path, flat, lambda_c=4.0)
    module, _ = trained(Flat, h1, tmp_path, pairs, lambda_c=4.0)
    torch.testing.assert_close(module.net.weight, expected.net.weight, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"with 40 instances, and its target is for 20.*y\.repeat_interleave\(2\)"):
        trained(ByHand, h1, tmp_path, pairs)


# -- forms of labels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        (lambda y: y[:, None].float(), lambda y: y.squeeze(1).long()),
        (lambda y: y.float(), lambda y: y.long()),
        (lambda y: F.one_hot(y, CLASSES), lambda y: y.argmax(1)),
    ],
)
def test_labels_that_a_step_brings_into_the_form_of_classes(stored, read, h1, tmp_path):
    class Reads(Forward):
        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), read(batch[1]))

    module, found = trained(Reads, h1, tmp_path, DataLoader(TensorDataset(X, stored(Y)), 20), lambda_c=4.0)
    expected, theirs = trained(type("M", (Forward,), {"training_step": _plain}), h1, tmp_path, lambda_c=4.0)
    assert torch.equal(module.net.weight, expected.net.weight)
    assert found == theirs


class BinaryByHand(Base):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(FEATURES, 1)

    def forward(self, x):
        return self.net(x).sigmoid().squeeze(-1)

    def training_step(self, batch, batch_idx):
        p, y = self(batch[0]), self.labels(batch[1])
        return -(y * p.log() + (1 - y) * (1 - p).log()).mean()


@pytest.mark.parametrize("cast", [lambda y: y, lambda y: y.float()])
def test_a_binary_loss_by_hand(cast, tmp_path):
    old, data = made(BinaryByHand, seed=8), DataLoader(TensorDataset(X, cast(Y % 2)), 20)

    def run(labels, **options):
        kind = type("Kind", (BinaryByHand,), {"labels": lambda self, y: labels(y)})
        return trained(kind, old, tmp_path, data, loss="BCBinaryCrossEntropyLoss", lambda_c=4.0, **options)

    class ByHand(BinaryByHand):
        def training_step(self, batch, batch_idx):
            x, y = batch[0], batch[1].float()
            each = F.binary_cross_entropy(self(x), y, reduction="none")
            with torch.no_grad():
                right = (old(x) >= 0.5) == (y >= 0.5)
            return each.mean() + 4.0 * (right * each).mean()

    module, _ = run(lambda y: y)
    expected = made(ByHand)
    fit(expected, tmp_path, train=data, val=[], max_epochs=1)
    torch.testing.assert_close(module.net.weight, expected.net.weight, rtol=1e-4, atol=1e-6)
    # The other class of each.
    with pytest.raises(ValueError, match=r"target=lambda batch"):
        run(lambda y: 1 - y)
    run(lambda y: 1 - y, target=lambda batch: 1 - batch[1])
