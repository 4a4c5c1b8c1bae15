"""Imitation on inputs without labels: what it adds to the loss, and what it leaves alone."""

from __future__ import annotations

import copy
import types
from typing import Any, ClassVar

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from bc_core.losses._mixtures import first_share, shares
from bc_lightning import BCLightningModule, CompatibilityCallback, CompatibilityLoss, store_outputs, unwrap

N, FEATURES, CLASSES = 12, 5, 3
QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


X, Y = torch.randn(N, FEATURES, generator=generator(0)), torch.randint(0, CLASSES, (N,), generator=generator(1))
MORE = torch.randn(7, FEATURES, generator=generator(2))
LABELLED = DataLoader(TensorDataset(X, Y), batch_size=N)


def net(seed: int, *parts: nn.Module) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(FEATURES, 4), *parts, nn.Linear(4, CLASSES))


class Module(pl.LightningModule):
    def __init__(self, network: nn.Module, manual: bool = False) -> None:
        super().__init__()
        self.network = network
        self.automatic_optimization = not manual

    def forward(self, x: Tensor) -> Any:
        return self.network(x)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = F.cross_entropy(self(batch[0]), batch[1])
        if self.automatic_optimization:
            return loss
        optimiser = self.optimizers()
        optimiser.zero_grad()
        self.manual_backward(loss)
        optimiser.step()
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


class Headed(Module):
    """Without a forward of its own: the step calls the network."""

    forward = pl.LightningModule.forward

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return F.cross_entropy(self.network(batch[0]), batch[1])


def fitted(module: Any, epochs: int = 1, loader: Any = LABELLED, **options: Any) -> pl.Trainer:
    trainer = pl.Trainer(max_epochs=epochs, accelerator="cpu", devices=1, **{**QUIET, **options})
    trainer.fit(module, loader)
    return trainer


def divergence(h2: nn.Module, h1: nn.Module, x: Tensor) -> Tensor:
    return -(h1(x).softmax(1).detach() * h2(x).log_softmax(1)).sum(1).mean()


def by_hand(h2: nn.Module, h1: nn.Module, steps: list[Tensor], lambda_c: float, weight: float, new_error: bool) -> None:
    optimiser = torch.optim.SGD(h2.parameters(), 0.1)
    for more in steps:
        each = F.cross_entropy(h2(X), Y, reduction="none")
        held = ((h1(X).argmax(1) == Y) * each).mean() if new_error else divergence(h2, h1, X)
        loss = each.mean() + lambda_c * (held + weight * divergence(h2, h1, more))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


@pytest.mark.parametrize("kind", ["plain", "module", "callback", "manual", "headed"])
@pytest.mark.parametrize("new_error", [True, False])
def test_each_step_imitates_on_an_unlabelled_batch_too(kind, new_error):
    h1, start = net(1), net(2)
    ours, theirs = copy.deepcopy(start), copy.deepcopy(start)
    # Three batches of 3, 3 and 1 in five steps: begun anew where it ends.
    options: dict[str, Any] = {
        "loss": "BCCrossEntropyLoss" if new_error else "imitation",
        "lambda_c": 2.0,
        "unlabelled": DataLoader(MORE, batch_size=3),
        "unlabelled_weight": 0.5,
    }
    if kind == "plain":
        module = BCLightningModule(ours, h1, optimizer=lambda p: torch.optim.SGD(p, 0.1), **options)
        trainer = fitted(module, 5)
    elif kind == "callback":
        trainer = fitted(Module(ours), 5, callbacks=[CompatibilityCallback(h1, **options)])
    else:
        user = Headed(ours) if kind == "headed" else Module(ours, manual=kind == "manual")
        old = {"headed": lambda: Headed(h1)}.get(kind, lambda: h1)()
        trainer = fitted(BCLightningModule(user, old, **options), 5)
    parts = list(MORE.split(3))
    by_hand(theirs, h1, [*parts, *parts[:2]], 2.0, 0.5, new_error)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert "train_unlabelled_dissonance" in trainer.callback_metrics


def test_what_is_logged_is_the_mean_of_the_epoch():
    h1, h2 = net(1), net(2)
    loader = DataLoader(TensorDataset(X, Y), batch_size=6)
    more = DataLoader(MORE[:6], batch_size=3)
    module = BCLightningModule(h2, h1, "imitation", optimizer=lambda p: torch.optim.SGD(p, 0.0), unlabelled=more)
    logged = fitted(module, 1, loader).callback_metrics["train_unlabelled_dissonance"]
    torch.testing.assert_close(logged, divergence(h2, h1, MORE[:6]).detach(), rtol=1e-5, atol=1e-6)


def test_the_teacher_is_asked_where_there_is_one():
    h1, teacher, h2 = net(1), net(3), net(2)
    options = {"optimizer": lambda p: torch.optim.SGD(p, 0.0), "unlabelled": [MORE], "teacher": teacher}
    logged = fitted(BCLightningModule(h2, h1, "imitation", **options)).callback_metrics["train_unlabelled_dissonance"]
    torch.testing.assert_close(logged, divergence(h2, teacher, MORE).detach(), rtol=1e-5, atol=1e-6)


def test_binary_scores_are_imitated_by_their_base():
    torch.manual_seed(0)
    h1, h2 = nn.Linear(FEATURES, 1), nn.Linear(FEATURES, 1)
    data = DataLoader(TensorDataset(X, (Y > 0).float()[:, None]), batch_size=N)
    options = {"loss_options": {"from_logits": True}, "optimizer": lambda p: torch.optim.SGD(p, 0.0)}
    module = BCLightningModule(h2, h1, "BCBinaryCrossEntropyLoss", unlabelled=[MORE], **options)
    logged = fitted(module, 1, data).callback_metrics["train_unlabelled_dissonance"]
    expected = F.binary_cross_entropy_with_logits(h2(MORE), h1(MORE).sigmoid())
    torch.testing.assert_close(logged, expected.detach(), rtol=1e-5, atol=1e-6)


def test_statistics_of_batch_normalisation_are_those_of_the_labelled_batches():
    h1, start = net(1), net(2, nn.BatchNorm1d(4))
    with_more, without = copy.deepcopy(start), copy.deepcopy(start)
    options = {"loss": "imitation", "optimizer": lambda p: torch.optim.SGD(p, 0.0)}
    fitted(BCLightningModule(with_more, h1, unlabelled=[5 + 3 * MORE], **options), 3)
    fitted(BCLightningModule(without, h1, **options), 3)
    for one, other in zip(with_more.buffers(), without.buffers(), strict=True):
        assert torch.equal(one, other)
    assert with_more[1].track_running_stats


def test_without_lambda_training_is_plain_training_to_the_bit():
    start = net(2, nn.BatchNorm1d(4), nn.Dropout(0.5))
    runs = []
    for options in ({"unlabelled": [MORE]}, {}):
        h2 = copy.deepcopy(start)
        torch.manual_seed(3)
        fitted(BCLightningModule(Module(h2), net(1), "imitation", 0.0, **options), 3)
        runs.append(h2.state_dict())
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


def test_a_batch_is_kept_for_all_closures_of_a_step():
    class Second(Module):
        def configure_optimizers(self) -> Any:
            return torch.optim.LBFGS(self.parameters(), max_iter=4)

    seen = []

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.old = net(1)

        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return self.old(x)

    fitted(BCLightningModule(Second(net(2)), Watched(), "imitation", unlabelled=DataLoader(MORE, batch_size=3)), 2)
    more = [x for x in seen if len(x) == 3]
    assert len(more) > 4
    assert len({x[0, 0].item() for x in more}) == 2


def test_stored_rows_may_come_with_the_unlabelled_batches(tmp_path):
    h1, h2 = net(1), net(2)
    data = TensorDataset(X, Y)
    stored, beyond = store_outputs(h1, data, tmp_path / "h1"), store_outputs(h1, TensorDataset(MORE), tmp_path / "more")
    options = {"optimizer": lambda p: torch.optim.SGD(p, 0.0)}
    loader, more = DataLoader(stored.attach(data), batch_size=N), DataLoader(beyond.attach(TensorDataset(MORE)), 7)
    trainer = fitted(BCLightningModule(h2, stored, "imitation", unlabelled=more, **options), 1, loader)
    expected = divergence(h2, h1, MORE).detach()
    torch.testing.assert_close(trainer.callback_metrics["train_unlabelled_dissonance"], expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="their loader brings none of it"):
        fitted(BCLightningModule(net(2), stored, "imitation", unlabelled=[MORE], **options), 1, loader)


def test_a_resumed_training_goes_on_with_the_next_pass(tmp_path):
    class Told(torch.utils.data.distributed.DistributedSampler):
        epochs: ClassVar[list[int]] = []

        def set_epoch(self, epoch: int) -> None:
            self.epochs.append(epoch)
            super().set_epoch(epoch)

    def module() -> Any:
        more: Dataset[Any] = TensorDataset(MORE)
        loader = DataLoader(more, batch_size=4, sampler=Told(more, num_replicas=1, rank=0))
        return BCLightningModule(Module(net(2)), net(1), "imitation", unlabelled=loader)

    trainer = fitted(module(), 4)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert Told.epochs == [0, 1]
    trainer = pl.Trainer(max_epochs=6, accelerator="cpu", **QUIET)
    trainer.fit(module(), LABELLED, ckpt_path=tmp_path / "last.ckpt")
    assert Told.epochs == [0, 1, 2]


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"unlabelled": iter([MORE])}, TypeError, "read again and again"),
        ({"unlabelled": TensorDataset(MORE)}, TypeError, "must be a data loader"),
        ({"unlabelled": MORE}, TypeError, "must be a data loader"),
        ({"unlabelled": [MORE], "unlabelled_weight": -1.0}, ValueError, "number >= 0"),
        ({"unlabelled": [MORE], "unlabelled_weight": float("nan")}, ValueError, "number >= 0"),
        ({"unlabelled": [MORE], "unlabelled_weight": "1"}, ValueError, "number >= 0"),
    ],
)
def test_loaders_and_weights_that_are_none_are_refused(options, error, says):
    with pytest.raises(error, match=says):
        BCLightningModule(Module(net(2)), net(1), "imitation", **options)


def test_loaders_without_a_batch_are_refused_when_they_are_read():
    with pytest.raises(ValueError, match="unlabelled inputs gives no batch"):
        fitted(BCLightningModule(Module(net(2)), net(1), "imitation", unlabelled=[]))


def test_probabilities_of_h1_are_told_also_where_new_error_would_do_with_them():
    h1 = nn.Sequential(net(1), nn.Softmax(1))
    with pytest.raises(ValueError, match="h1 returned probabilities"):
        fitted(BCLightningModule(Module(net(2)), h1, unlabelled=[MORE]))


def test_a_step_that_mixes_is_told_what_unlabelled_inputs_are_given_as():
    class Mixing(Module):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            x = (batch[0] + batch[0].flip(0)) / 2
            y = (F.one_hot(batch[1], CLASSES) + F.one_hot(batch[1].flip(0), CLASSES)) / 2
            return F.cross_entropy(self(x), y)

    with pytest.warns(UserWarning, match="as their loader brings them"):
        fitted(BCLightningModule(Mixing(net(2)), net(1), "imitation", unlabelled=[MORE]))


def test_h2_is_the_users_own_again():
    network = net(2)
    module = BCLightningModule(Module(network), net(1), CompatibilityLoss(dissonance="imitation"), unlabelled=[MORE])
    fitted(module)
    assert unwrap(module).network is network
    assert np.isfinite(network(X).detach().numpy()).all()


@pytest.mark.parametrize("length", [5, 3])
def test_classes_of_h1_stand_where_the_labelled_batch_has_told(length):
    class Tokens(nn.Module):
        def __init__(self, last: bool) -> None:
            super().__init__()
            self.layer, self.last = nn.Linear(4, 3), last

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) if self.last else self.layer(x).movedim(-1, 1)

    class Tagger(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = Tokens(last=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return F.cross_entropy(self(batch[0]).flatten(0, 1), batch[1].flatten())

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.5)

    torch.manual_seed(0)
    h1, h2 = Tokens(last=False), Tagger()
    hand, x, y = copy.deepcopy(h2), torch.randn(8, 5, 4), torch.randint(0, 3, (8, 5))
    # As long as there are classes, or not: of itself the first would tell nothing.
    unlabelled = torch.randn(6, length, 4)
    module = BCLightningModule(h2, h1=h1, loss="imitation", lambda_c=1.0, unlabelled=[unlabelled])
    trainer = pl.Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu"
    )
    trainer.fit(module, DataLoader(TensorDataset(x, y), 8))
    loss = F.cross_entropy(hand(x).flatten(0, 1), y.flatten())
    for given in (x, unlabelled):
        loss = loss - (h1.layer(given).softmax(-1).detach() * hand(given).log_softmax(-1)).sum(-1).mean()
    loss.backward()
    hand.configure_optimizers().step()
    for ours, by_hand_ in zip(h2.parameters(), hand.parameters(), strict=True):
        torch.testing.assert_close(ours, by_hand_)


# -- mixtures of the batch's own inputs --------------------------------------------------------------------------------


def mixture(step: int, x: Tensor = X) -> Tensor:
    share = torch.tensor(shares(np.arange(float(len(x))), first_share(step)), dtype=torch.float32)[:, None]
    return share * x + (1 - share) * x.flip(0)


@pytest.mark.parametrize("kind", ["plain", "callback", "manual", "headed"])
def test_each_step_imitates_on_mixtures_of_its_own_inputs_too(kind):
    h1, start = net(1), net(2)
    ours, theirs = copy.deepcopy(start), copy.deepcopy(start)
    options: dict[str, Any] = {"loss": "imitation", "lambda_c": 2.0, "unlabelled": "mixed", "unlabelled_weight": 0.5}
    options["mixed_labels"] = 0.0
    if kind == "plain":
        trainer = fitted(BCLightningModule(ours, h1, optimizer=lambda p: torch.optim.SGD(p, 0.1), **options), 3)
    elif kind == "callback":
        trainer = fitted(Module(ours), 3, callbacks=[CompatibilityCallback(h1, **options)])
    else:
        user = Headed(ours) if kind == "headed" else Module(ours, manual=kind == "manual")
        old = {"headed": lambda: Headed(h1)}.get(kind, lambda: h1)()
        trainer = fitted(BCLightningModule(user, old, **options), 3)
    by_hand(theirs, h1, [mixture(step) for step in range(3)], 2.0, 0.5, new_error=False)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert "train_unlabelled_dissonance" in trainer.callback_metrics


class OfParts(Module):
    """Calls h2 with what it prepares itself, in a structure, and asks again after the step like LBFGS."""

    asked: ClassVar[list[Tensor]] = []

    def forward(self, parts: dict[str, Any]) -> Any:
        if self.training:
            self.asked.append(parts["x"][0].detach().clone())
        return self.network(parts["x"][0] + parts["more"])

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x = batch[0] * 2
        return F.cross_entropy(self({"x": [x], "more": x / 2, "scale": 1.0}), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.LBFGS(self.parameters(), max_iter=2, lr=0.1)


def test_structures_are_mixed_with_one_share_as_h2_got_them_and_alike_for_all_closures_of_a_step():
    OfParts.asked = []
    torch.manual_seed(3)
    fitted(BCLightningModule(OfParts(net(2)), OfParts(net(1)), "imitation", unlabelled="mixed"), 2)
    mixtures = OfParts.asked[1::2]
    per_step = len(mixtures) // 2
    assert per_step > 1
    for number, got in enumerate(mixtures):
        torch.testing.assert_close(got, mixture(number // per_step, 2 * X), rtol=1e-5, atol=1e-6)


def test_users_random_numbers_are_drawn_as_if_nothing_were_mixed():
    def drawn(**options: Any) -> Tensor:
        h1, h2 = net(1), net(2)
        torch.manual_seed(7)
        module = BCLightningModule(h2, h1, "imitation", optimizer=lambda p: torch.optim.SGD(p, 0.1), **options)
        fitted(module, 2, DataLoader(TensorDataset(X, Y), batch_size=4, shuffle=True))
        return torch.rand(3)

    torch.testing.assert_close(drawn(unlabelled="mixed"), drawn(), rtol=0, atol=0)


def test_a_resumed_training_goes_on_with_the_next_shares(tmp_path):
    def trained(network: nn.Module, epochs: int, **options: Any) -> pl.Trainer:
        module = BCLightningModule(
            network, net(1), "imitation", optimizer=lambda p: torch.optim.SGD(p, 0.1), unlabelled="mixed"
        )
        trainer = pl.Trainer(max_epochs=epochs, accelerator="cpu", **QUIET)
        trainer.fit(module, LABELLED, **options)
        return trainer

    whole, first, second = net(2), net(2), net(3)
    trained(whole, 4)
    trained(first, 2).save_checkpoint(tmp_path / "half.ckpt")
    trained(second, 4, ckpt_path=tmp_path / "half.ckpt", weights_only=False)
    for one, other in zip(second.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("base", ["cross_entropy", "nll", "kl_divergence", "binary_cross_entropy"])
def test_labels_are_mixed_by_every_base(base):
    """Against the base's own loss with what h1 says and the labels, both as probabilities."""
    binary, columns = base == "binary_cross_entropy", 1 if base == "binary_cross_entropy" else CLASSES
    torch.manual_seed(4)
    h1, h2 = (nn.Linear(FEATURES, columns) for _ in range(2))
    target: Tensor = (Y > 0).float()[:, None] if binary else Y
    labels = F.one_hot(Y, CLASSES).float()
    if base == "kl_divergence":
        target = labels = (labels + 0.1) / 1.3
    x = mixture(0)
    share = torch.tensor(shares(np.arange(float(N)), first_share(0)), dtype=torch.float32)[:, None]
    labels = target if binary else labels
    mixed = share * labels + (1 - share) * labels.flip(0)
    said, z = h1(x), h2(x)
    if binary:
        expected = F.binary_cross_entropy_with_logits(z, 0.75 * said.sigmoid() + 0.25 * mixed)
    else:
        goal = 0.75 * said.softmax(1) + 0.25 * mixed
        expected = (
            F.kl_div(z.log_softmax(1), goal, reduction="batchmean")
            if base == "kl_divergence"
            else F.cross_entropy(z, goal)
        )
    options = {"base": base} | ({"from_logits": True} if binary else {})
    module = BCLightningModule(
        h2, h1, "imitation", loss_options=options, optimizer=lambda p: torch.optim.SGD(p, 0.0),
        unlabelled="mixed", mixed_labels=0.25,
    )  # fmt: skip
    logged = fitted(module, 1, DataLoader(TensorDataset(X, target), batch_size=N)).callback_metrics
    torch.testing.assert_close(logged["train_unlabelled_dissonance"], expected.detach(), rtol=1e-5, atol=1e-6)


def test_pixels_without_a_label_are_taught_by_h1_alone():
    """Scores of half the size of the masks, which the step enlarges, and one label of four ignored."""

    class Pixels(Module):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return F.cross_entropy(F.interpolate(self(batch[0]), scale_factor=2), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.0)

    torch.manual_seed(6)
    h1, h2 = (nn.Conv2d(2, CLASSES, 1) for _ in range(2))
    x, masks = torch.randn(4, 2, 3, 3), torch.randint(0, CLASSES, (4, 6, 6))
    masks[0] = -100
    module = BCLightningModule(Pixels(h2), Pixels(h1), "imitation", unlabelled="mixed", mixed_labels=0.25)
    logged = fitted(module, 1, DataLoader(TensorDataset(x, masks), batch_size=4)).callback_metrics
    share = torch.tensor(shares(np.arange(4.0), first_share(0)), dtype=torch.float32).view(4, 1, 1, 1)
    x = share * x + (1 - share) * x.flip(0)
    columns = F.one_hot(masks.clamp_min(0), CLASSES).movedim(-1, 1).float()
    mixed = share * columns + (1 - share) * columns.flip(0)
    said, z = (F.interpolate(net(x), scale_factor=2) for net in (h1, h2))
    goal = said.softmax(1)
    goal[1:3] = (0.75 * goal + 0.25 * mixed)[1:3]
    torch.testing.assert_close(logged["train_unlabelled_dissonance"], F.cross_entropy(z, goal), rtol=1e-5, atol=1e-6)


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(FEATURES, CLASSES)

    def called(self, x: Tensor) -> tuple[Any, ...]:
        """What the step calls it with."""
        return (x,)


class Ids(Linear):
    def forward(self, ids: Tensor) -> Tensor:
        return self.layer(F.one_hot(ids, FEATURES).float().mean(1))


class Shared(Linear):
    """Given what is no instance's beside its input."""

    def called(self, x: Tensor) -> tuple[Any, ...]:
        return x, torch.ones(1, FEATURES)

    def forward(self, x: Any, scale: Tensor) -> Tensor:
        return self.layer(x * scale)


class Wrapped(Linear):
    def called(self, x: Tensor) -> tuple[Any, ...]:
        return (types.SimpleNamespace(x=x),)

    def forward(self, x: Any) -> Tensor:
        return self.layer(x.x)


class Transposed(Linear):
    def called(self, x: Tensor) -> tuple[Any, ...]:
        return (x.T,)

    def forward(self, x: Any) -> Tensor:
        return self.layer(x.T)


class Calling(Module):
    def forward(self, *args: Any) -> Any:
        return self.network(*args)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return F.cross_entropy(self(*self.network.called(batch[0])), batch[1])


@pytest.mark.parametrize(
    ("kind", "x", "error", "says"),
    [
        (Ids, torch.ones(N, 2, dtype=torch.long), TypeError, "must be floating numbers.*token ids.*torch.int64"),
        (Shared, X, ValueError, "must have an entry for each instance"),
        (Wrapped, X, TypeError, "h2 is called with SimpleNamespace"),
        (Transposed, X, ValueError, "5 entries along it, and 12 scores"),
    ],
)
def test_inputs_that_cannot_be_mixed_are_refused(kind, x, error, says):
    module = BCLightningModule(Calling(kind()), Calling(kind()), "imitation", unlabelled="mixed", target=1)
    with pytest.raises(error, match=says):
        fitted(module, 1, DataLoader(TensorDataset(x, Y), batch_size=N))
