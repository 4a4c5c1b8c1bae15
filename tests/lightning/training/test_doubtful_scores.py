"""Scores that a step resizes, scales, splits or reads in its own way: known, or refused with a remedy that works."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from test_doubtful_steps import trained
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from user_code import CLASSES, FEATURES, dataset, fit, loader, made
from users_modules import VAL, Base, Forward, accuracy

from bc_lightning import (
    BCBinaryCrossEntropyLoss,
    BCLightningModule,
    CompatibilityLoss,
    evaluate,
    store_outputs,
)

X, Y = dataset().tensors
POSITIVE = (Y == 1).float()


# -- binary scores ------------------------------------------------------------------------------------------------


class Binary(pl.LightningModule):
    """Gives logits; its step computes the loss from probabilities where `squashes`."""

    squashes = False

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(FEATURES, 1)

    def forward(self, x):
        scores = self.net(x)[:, 0]
        return scores.sigmoid() if self.squashes else scores

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.binary_cross_entropy if self.squashes else F.binary_cross_entropy_with_logits
        return loss(self(x), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def probabilities(x):
    return (2 * x[:, 1] - x[:, 0]).sigmoid()


def as_logits(x):
    return torch.logit(probabilities(x), eps=1e-6)


BINARY = {"loss": "BCBinaryCrossEntropyLoss", "loss_options": {"from_logits": True}}
RIGHT = ((probabilities(X) >= 0.5) == (POSITIVE == 1)).float().mean().item()


@pytest.mark.parametrize("loss", ["BCBinaryCrossEntropyLoss", "StrictImitationBinaryCrossEntropyLoss"])
def test_probabilities_of_h1_where_logits_are_read(loss, tmp_path):
    data, options = loader(TensorDataset(X, POSITIVE)), {**BINARY, "loss": loss}
    with pytest.raises(ValueError, match=r"h1 must give logits here.*torch\.logit\(model\(\*args\), eps=1e-6\)"):
        trained(Binary, probabilities, tmp_path, train=data, **options)
    _, found = trained(Binary, as_logits, tmp_path, train=data, **options)
    assert found["train_accuracy_h1"] == pytest.approx(RIGHT)


def test_logits_that_happen_to_lie_within_0_and_1(tmp_path):
    data = loader(TensorDataset(X, POSITIVE))
    trusting = {**BINARY, "loss_options": {"from_logits": True, "validate_args": False}}
    _, found = trained(Binary, probabilities, tmp_path, train=data, **trusting)
    assert found["train_accuracy_h1"] == pytest.approx(POSITIVE.mean().item())
    # A few scores say nothing.
    loss = CompatibilityLoss("binary_cross_entropy")
    loss(torch.zeros(4), torch.ones(4), torch.full((4,), 0.5))


def test_probabilities_of_h1_in_a_loop_of_ones_own():
    h2 = Binary()
    by_hand = CompatibilityLoss("binary_cross_entropy", "strict_imitation")
    with pytest.raises(ValueError, match="h1 must give logits here"):
        by_hand(h2(X), POSITIVE, probabilities(X))
    with pytest.raises(ValueError, match="h1 must give logits here"):
        BCBinaryCrossEntropyLoss(probabilities, h2, 1.0, from_logits=True)(X, POSITIVE)
    s, p = h2(X).sigmoid(), probabilities(X)
    right = (p >= 0.5) == (POSITIVE == 1)
    expected = F.binary_cross_entropy(s, POSITIVE)
    expected = expected + (right * F.binary_cross_entropy(s, p, reduction="none")).mean()
    torch.testing.assert_close(by_hand(h2(X), POSITIVE, as_logits(X)), expected)


def test_probabilities_of_either_model_are_not_evaluated_as_logits():
    data = TensorDataset(X, Y == 1)
    for h1, h2, name in ((probabilities, as_logits, "h1"), (as_logits, probabilities, "h2")):
        with pytest.raises(ValueError, match=f"{name} must give logits here.*pass from_logits=False"):
            evaluate(h1, h2, data, from_logits=True, batch_size=10)
    found = evaluate(as_logits, as_logits, data, from_logits=True).comparison.overlap
    assert found.accuracy_h1 == evaluate(probabilities, probabilities, data).comparison.overlap.accuracy_h1
    assert found.accuracy_h1 == pytest.approx(RIGHT)


@pytest.mark.parametrize("squashes", [False, True])
def test_the_users_own_loss_says_what_h2s_scores_are(squashes, tmp_path):
    kind, data = type("M", (Binary,), {"squashes": squashes}), loader(TensorDataset(X, POSITIVE))
    old = probabilities if squashes else as_logits
    wrong = {"loss": "BCBinaryCrossEntropyLoss", "loss_options": {"from_logits": squashes, "validate_args": False}}
    with pytest.raises(ValueError, match=rf"Say it too: loss_options=\{{'from_logits': {not squashes}\}}"):
        trained(kind, old, tmp_path, train=data, **wrong)
    _, found = trained(kind, old, tmp_path, train=data, **{**wrong, "loss_options": {"from_logits": not squashes}})
    assert found["train_accuracy_h1"] == pytest.approx(RIGHT)


# -- scores that are not as h2 gave them ----------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["train", "val"])
def test_scores_that_are_changed_in_place(stage, h1, tmp_path):
    class Scaling(Forward):
        in_place = True

        def scaled(self, x):
            logits = self(x)
            if self.in_place:
                logits[:, 0] -= 5.0
                return logits
            return logits - torch.tensor([5.0, 0.0, 0.0])

        def training_step(self, batch, batch_idx):
            logits = self.scaled(batch[0]) if stage == "train" else self(batch[0])
            return F.cross_entropy(logits, batch[1])

        def validation_step(self, batch, batch_idx):
            self.log("loss", F.cross_entropy(self.scaled(batch[0]), batch[1]))

    stages = {"stages": [stage]}
    with pytest.raises(RuntimeError, match=rf"{stage} step changes h2's scores in place.*logits = logits \* scale"):
        fit(BCLightningModule(made(Scaling), h1=h1, **stages), tmp_path)
    module = BCLightningModule(made(type("M", (Scaling,), {"in_place": False})), h1=h1, **stages)
    trainer = fit(module, tmp_path, train=loader(), val=loader(VAL), max_epochs=1)
    expected = accuracy(h1) if stage == "val" else accuracy(h1, X, Y)
    assert trainer.callback_metrics[f"{stage}_accuracy_h1"].item() == pytest.approx(expected)


class Segmenter(pl.LightningModule):
    """Scores of half the size, which its step brings to that of the masks."""

    def __init__(self):
        super().__init__()
        self.net = nn.Conv2d(2, CLASSES, 2, stride=2)

    def forward(self, x):
        return self.net(x)

    def large(self, x):
        return F.interpolate(self(x), size=x.shape[-2:], mode="bilinear")

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.large(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("accuracy", (self.large(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize("loss", ["cross_entropy", "nll"])
@pytest.mark.parametrize("stored", [False, True])
def test_scores_that_are_interpolated(loss, stored, tmp_path):
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(24, 2, 8, 8), torch.randint(CLASSES, (24, 8, 8)))
    old = made(Segmenter, seed=8)

    class ByHand(Segmenter):
        def training_step(self, batch, batch_idx):
            x, y = batch
            logits, right = self.large(x), (old.large(x).argmax(1) == y).float()
            return F.cross_entropy(logits, y) + 4.0 * (right * F.cross_entropy(logits, y, reduction="none")).mean()

    h1 = store_outputs(old, data, tmp_path / "h1") if stored else old
    batches = DataLoader(h1.attach(data) if stored else data, 8)
    module = BCLightningModule(made(Segmenter), h1=h1, loss=CompatibilityLoss(loss, lambda_c=4.0))
    trainer = fit(module, tmp_path, train=batches, val=batches, max_epochs=1)
    expected = made(ByHand)
    fit(expected, tmp_path, train=DataLoader(data, 8), val=[], max_epochs=1)
    torch.testing.assert_close(module.net.weight, expected.net.weight, rtol=1e-4, atol=1e-6)
    x, y = data.tensors
    with torch.no_grad():
        right = [(model.large(x).argmax(1) == y).float().mean().item() for model in (old, module)]
    assert trainer.callback_metrics["val_accuracy_h1"].item() == pytest.approx(right[0])
    assert trainer.callback_metrics["val_accuracy_h2"].item() == pytest.approx(right[1])


def test_h2_is_given_some_of_the_instances(h1, tmp_path):
    class Half(Forward):
        own_loss = False

        def training_step(self, batch, batch_idx):
            x, y = batch
            half = len(x) // 2
            logits = self(x[:half])
            if self.own_loss:
                self.compatibility_target = y[:half]
                return -logits.log_softmax(1).gather(1, y[:half, None]).mean()
            return F.cross_entropy(logits, y[:half])

    taken = torch.cat([torch.arange(20) < 10] * 4 + [torch.arange(16) < 8])
    for own_loss in (False, True):
        _, found = trained(type("M", (Half,), {"own_loss": own_loss}), h1, tmp_path)
        assert found["train_accuracy_h1"] == pytest.approx(accuracy(h1, X[taken], Y[taken]))


def test_a_teacher_alone_is_trained_on(h1, tmp_path):
    class Distilled(Forward):
        hands_over = True

        def training_step(self, batch, batch_idx):
            x, y = batch
            if self.hands_over:
                self.compatibility_target = y
            return F.cross_entropy(self(x), (3 * x[:, :CLASSES]).softmax(1))

    _, found = trained(Distilled, h1, tmp_path)
    assert found["train_accuracy_h1"] == pytest.approx(accuracy(h1, X, Y))
    with pytest.raises(ValueError, match="the labels if it was a teacher's answer"):
        trained(type("M", (Distilled,), {"hands_over": False}), h1, tmp_path)


class TwoHeads(Base):
    """A body and two heads, both of which are trained on labels; no forward."""

    def __init__(self):
        super().__init__()
        self.body, self.coarse = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, CLASSES)

    def training_step(self, batch, batch_idx):
        x, y = batch
        z = self.body(x)
        return F.cross_entropy(self.net(z), y) + F.cross_entropy(self.coarse(z), y)

    def validation_step(self, batch, batch_idx):
        self.log("loss", self.training_step(batch, batch_idx))


def test_of_two_heads_it_is_enough_to_name_one(h1, tmp_path):
    with pytest.raises(RuntimeError, match="scores='name'"):
        trained(TwoHeads, h1, tmp_path)
    old = made(TwoHeads, seed=8)
    for name in ("net", "coarse"):
        _, found = trained(TwoHeads, h1, tmp_path, scores=name)
        assert found["train_accuracy_h1"] == pytest.approx(accuracy(h1, X, Y))
        module = BCLightningModule(made(TwoHeads), h1=old, scores=name)
        trainer = fit(module, tmp_path, train=loader(), val=loader(VAL), max_epochs=1)
        expected = accuracy(lambda x, name=name: old.get_submodule(name)(old.body(x)))
        assert trainer.callback_metrics["val_accuracy_h1"].item() == pytest.approx(expected)
        overlap = evaluate(old, module, VAL).comparison.overlap
        assert overlap.accuracy_h1 == pytest.approx(expected)
        assert overlap.accuracy_h2 == pytest.approx(
            accuracy(lambda x, name=name, module=module: module.get_submodule(name)(module.body(x)))
        )


# -- batches of validation ----------------------------------------------------------------------------------------


def test_an_empty_batch_of_validation_counts_nothing(h1, tmp_path):
    class Own(Forward):
        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1])

    x, y = VAL.tensors
    for batches in ([(x, y), (x[:0], y[:0])], [(x[:0], y[:0]), (x, y)]):
        module = BCLightningModule(made(Own), h1=h1)
        trainer = fit(module, tmp_path, val=DataLoader(batches, batch_size=None), max_epochs=1)
        assert trainer.callback_metrics["val_accuracy_h1"].item() == pytest.approx(accuracy(h1))


def test_the_axis_of_the_classes_may_be_told_by_training(tmp_path):
    class Tagger(Base):
        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]).transpose(1, 2), batch[1])

    torch.manual_seed(0)
    x, y = torch.randn(16, CLASSES, FEATURES), torch.randint(CLASSES, (16, CLASSES))
    data, old = DataLoader(TensorDataset(x, y), 8), made(Tagger, seed=8)
    trainer = fit(BCLightningModule(made(Tagger), h1=old), tmp_path, train=data, val=data, max_epochs=1)
    with torch.no_grad():
        right = (old(x).argmax(-1) == y).float().mean().item()
    assert trainer.callback_metrics["val_accuracy_h1"].item() == pytest.approx(right)


# -- stored outputs -----------------------------------------------------------------------------------------------


def test_noise_in_the_step_is_not_in_stored_outputs(h1, tmp_path):
    class Noisy(Forward):
        def training_step(self, batch, batch_idx):
            x, y = batch
            return F.cross_entropy(self(x + torch.randn_like(x)), y)

    stored = store_outputs(h1, dataset(), tmp_path / "h1")
    with pytest.raises(ValueError, match="draws random numbers.*h1=old_model"):
        trained(Noisy, stored, tmp_path, train=loader(stored.attach(dataset())))
    trained(Noisy, h1, tmp_path)


def test_dropout_in_h2_is_no_noise_in_the_step(h1, tmp_path):
    class Dropping(Base):
        def __init__(self):
            super().__init__()
            self.body = nn.Dropout()

        def forward(self, x):
            return self.net(self.body(x))

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0] / 2), batch[1])

    stored = store_outputs(h1, dataset(), tmp_path / "h1")
    for scores in (None, "net"):
        _, found = trained(Dropping, stored, tmp_path, train=loader(stored.attach(dataset())), scores=scores)
        assert found["train_accuracy_h1"] == pytest.approx(accuracy(h1, X, Y))


def test_a_hook_that_moves_the_items_of_validation(h1, tmp_path):
    class Reversing(Forward):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            return [part.flip(0) for part in batch] if self.trainer.validating else batch

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1])

    stored = store_outputs(h1, VAL, tmp_path / "h1")
    for old, data in ((stored, stored.attach(VAL)), (h1, VAL)):
        module = BCLightningModule(made(Reversing), h1=old, stages=["val"])
        trainer = fit(module, tmp_path, val=[], max_epochs=1)
        if old is stored:
            with pytest.raises(ValueError, match="items or targets of a batch are not those that its loader brought"):
                trainer.validate(module, loader(data), verbose=False)
        else:
            (found,) = trainer.validate(module, loader(data), verbose=False)
            assert found["val_accuracy_h1"] == pytest.approx(accuracy(h1))


# -- several losses -----------------------------------------------------------------------------------------------


class Centres(Forward):
    """Optimises by hand: cross-entropy for the net, and a distance of its scores from centres that are learnt."""

    order = ("labels", "centres")
    penalised = False

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.centres = nn.Parameter(torch.zeros(CLASSES))

    def labels_loss(self, logits, y):
        return F.cross_entropy(logits, y)

    def training_step(self, batch, batch_idx):
        x, y = batch
        optimizer = self.optimizers()
        optimizer.zero_grad()
        logits = self(x)
        losses = {"labels": self.labels_loss(logits, y), "centres": ((logits - self.centres) ** 2).mean()}
        if self.penalised:
            right = (self.h1[0](x).argmax(1) == y).float()
            losses["labels"] = losses["labels"] + 3.0 * (right * F.cross_entropy(logits, y, reduction="none")).mean()
        if "sum" in self.order:
            self.manual_backward(losses["labels"] + losses["centres"])
        else:
            for name in self.order:
                self.manual_backward(losses[name], retain_graph=True)
        optimizer.step()


class OwnLoss(Centres):
    def labels_loss(self, logits, y):
        return -logits.log_softmax(1).gather(1, y[:, None]).mean()


@pytest.mark.parametrize(
    ("kind", "order", "known"),
    [
        (Centres, ("labels", "centres"), True),
        (Centres, ("centres", "labels"), True),
        (OwnLoss, ("centres", "labels"), False),
        (OwnLoss, ("labels", "centres"), False),
        (Centres, ("labels", "labels"), False),
        (OwnLoss, ("sum",), True),
    ],
)
def test_of_two_losses_of_the_scores_the_one_of_labels_is_penalised(kind, order, known, h1, tmp_path):
    kind = type("M", (kind,), {"order": order, "h1": [h1]})
    if not known:
        with pytest.raises(RuntimeError, match=r"two losses that both come from the scores.*one \+ other"):
            trained(kind, h1, tmp_path)
        return
    module, _ = trained(kind, h1, tmp_path, lambda_c=3.0)
    expected = made(type("ByHand", (kind,), {"penalised": True}))
    fit(expected, tmp_path, train=loader(), val=[], max_epochs=1)
    torch.testing.assert_close(module.net.weight, expected.net.weight, rtol=1e-4, atol=1e-6)


class Segments(Base):
    """Of images as high and wide as there are classes, which stand on axis 1 or on the last."""

    last = True

    def __init__(self):
        super().__init__()
        self.net = nn.Conv2d(2, 4, 1)

    def forward(self, x):
        return self.net(x).movedim(1, -1) if self.last else self.net(x)

    def training_step(self, batch, batch_idx):
        output = self(batch[0])
        return F.cross_entropy(output.movedim(-1, 1) if self.last else output, batch[1])

    def validation_step(self, batch, batch_idx):
        self.training_step(batch, batch_idx)


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("old_last", [True, False])
def test_the_class_axis_of_h1(last, old_last, tmp_path):
    torch.manual_seed(5)
    net = nn.Conv2d(2, 4, 1)
    h1 = net if not old_last else nn.Sequential(net, _Last())
    kind = type("Kind", (Segments,), {"last": last})
    places = (1, -1) if last else (-1, 1)
    told = (lambda output: output) if last == old_last else (lambda output: output.movedim(*places))

    def scores(width, data=None, **options):
        x, y = torch.randn(24, 2, 4, width), torch.randint(4, (24, 4, width))
        data = DataLoader(TensorDataset(x, y), 8)
        module = BCLightningModule(made(kind), h1=h1, class_axis=-1 if last else 1, **options)
        trainer = fit(module, tmp_path, data, data, max_epochs=1)
        with torch.no_grad():
            right = (net(x).argmax(1) == y).float().mean().item()
        assert trainer.callback_metrics["val_accuracy_h1"].item() == pytest.approx(right)
        compared = evaluate(h1, module, data, class_axis=-1 if last else 1, **options).comparison.overlap
        assert compared.accuracy_h1 == pytest.approx(right)

    scores(5)
    with pytest.raises(ValueError, match="h1's scores of shape .* may hold the classes on axis 1 or on the last"):
        scores(4)
    data = DataLoader(TensorDataset(torch.randn(8, 2, 4, 4), torch.randint(4, (8, 4, 4))), 8)
    with pytest.raises(ValueError, match="may hold the classes on axis 1 or on the last"):
        evaluate(h1, made(kind), data, class_axis=-1 if last else 1)
    scores(4, h1_scores=told)


class _Last(nn.Module):
    def forward(self, x):
        return x.movedim(1, -1)


def test_an_h1_of_h2s_kind_has_its_classes_where_h2_has(tmp_path):
    x, y = torch.randn(24, 2, 4, 4), torch.randint(4, (24, 4, 4))
    data, h1 = DataLoader(TensorDataset(x, y), 8), made(Segments, seed=7)
    trainer = fit(BCLightningModule(made(Segments), h1=h1), tmp_path, data, data, max_epochs=1)
    with torch.no_grad():
        right = (h1.net(x).argmax(1) == y).float().mean().item()
    assert trainer.callback_metrics["val_accuracy_h1"].item() == pytest.approx(right)
