"""A teacher in Lightning: modules without a forward, rows on their way, checkpoints, and blends that are misread."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bc_lightning import BCLightningModule, CompatibilityCallback, CompatibilityLoss, Reference, store_outputs

N, FEATURES, CLASSES = 12, 5, 3
QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
X = torch.randn(N, FEATURES, generator=torch.Generator().manual_seed(0))
Y = torch.randint(0, CLASSES, (N,), generator=torch.Generator().manual_seed(1))
DATA = TensorDataset(X, Y)


def net(seed: int, outputs: int = CLASSES) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(FEATURES, 4), nn.ReLU(), nn.Linear(4, outputs))


class Headed(pl.LightningModule):
    """Two networks and no forward: nobody can call it, and its steps say which of them answers."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.body, self.head = net(seed, 4), nn.Linear(4, CLASSES)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return F.cross_entropy(self.head(self.body(batch[0])), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.head(self.body(batch[0]))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.0)


class Module(pl.LightningModule):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        return self.network(x)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self(batch[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


def logged(module: Any, data: Any = DATA, val: Any = None, **options: Any) -> dict[str, Tensor]:
    trainer = pl.Trainer(**{"max_epochs": 1, "accelerator": "cpu", **QUIET, **options})
    trainer.fit(module, DataLoader(data, N), None if val is None else DataLoader(val, N))
    return trainer.callback_metrics


def divergence(teacher: Tensor, h2: Tensor) -> Tensor:
    return -(teacher * h2.log_softmax(1)).sum(1).mean()


def test_a_teacher_made_as_h2_is_answers_with_the_parts_that_its_steps_call():
    h1, teacher, h2 = Headed(1), Headed(2), Headed(3)
    expected = divergence(teacher.head(teacher.body(X)).softmax(1), h2.head(h2.body(X))).detach()
    got = logged(BCLightningModule(h2, h1, "imitation", teacher=teacher))["train_dissonance"]
    torch.testing.assert_close(got, expected)


def test_members_of_a_blend_are_read_as_h2_is():
    class Pair(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            self.net = net(seed)

        def forward(self, x: Tensor) -> Any:
            return {"other": self.net(x).flip(1), "scores": self.net(x)}

    h1, new, h2 = Pair(1), Pair(2), Pair(3)
    options = {"scores": lambda output: output["scores"], "optimizer": lambda p: torch.optim.SGD(p, 0.0)}
    got = logged(BCLightningModule(h2, h1, "imitation", teacher=[(new, 0.25), (h1, 0.75)], **options))
    goal = 0.25 * new.net(X).softmax(1) + 0.75 * h1.net(X).softmax(1)
    torch.testing.assert_close(got["train_dissonance"], divergence(goal, h2.net(X)).detach())


def test_both_are_logged_in_validation_and_by_the_callback():
    h1, teacher, h2 = net(1), net(2), net(3)
    callback = CompatibilityCallback(h1, "imitation", teacher=teacher)
    got = logged(Module(h2), val=DATA, callbacks=[callback])
    torch.testing.assert_close(got["val_dissonance"], divergence(teacher(X).softmax(1), h2(X)).detach())


@pytest.mark.parametrize("sorts", [False, True])
def test_rows_of_both_pass_through_a_collate_function_of_ones_own(tmp_path, sorts):
    h1, teacher, h2 = net(1), net(2), net(3)
    old, taught = store_outputs(h1, DATA, tmp_path / "h1"), store_outputs(teacher, DATA, tmp_path / "teacher")
    expected = divergence(teacher(X).softmax(1), h2(X)).detach()

    def mine(items: list[Any]) -> Any:
        if sorts:
            items.sort(key=lambda item: float(item[0][0]))
        return torch.stack([x for x, _ in items]), torch.stack([y for _, y in items])

    module = BCLightningModule(Module(h2), old, "imitation", teacher=taught)
    loader = DataLoader(old.attach(DATA, teacher=taught), N, collate_fn=old.collate_fn(mine))
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", **QUIET)
    trainer.fit(module, loader)
    torch.testing.assert_close(trainer.callback_metrics["train_dissonance"], expected)


def test_rows_are_told_apart_in_whatever_order_they_were_attached(tmp_path):
    h1, teacher, h2 = net(1), net(2), net(3)
    old, taught = store_outputs(h1, DATA, tmp_path / "h1"), store_outputs(teacher, DATA, tmp_path / "teacher")
    expected = divergence(teacher(X).softmax(1), h2(X)).detach()
    for data in (old.attach(taught.attach(DATA)), taught.attach(old.attach(DATA))):
        got = logged(BCLightningModule(Module(net(3)), old, "imitation", teacher=taught), data)
        torch.testing.assert_close(got["train_dissonance"], expected)
        assert got["train_accuracy_h1"] == (h1(X).argmax(1) == Y).float().mean()


def test_a_step_of_stored_outputs_asks_nobody(tmp_path):
    class Counted(nn.Module):
        calls = 0

        def __init__(self, seed: int) -> None:
            super().__init__()
            self.net = net(seed)

        def forward(self, x: Tensor) -> Tensor:
            Counted.calls += 1
            return self.net(x)

    h1, new = Counted(1), Counted(2)
    old, plain = store_outputs(h1, DATA, tmp_path / "h1"), store_outputs(new, DATA, tmp_path / "new")
    teacher = Reference([(plain, 0.5), (old, 0.5)])
    data, Counted.calls = old.attach(DATA, teacher=teacher.stored), 0
    logged(BCLightningModule(Module(net(3)), old, "imitation", teacher=teacher), data, max_epochs=3)
    assert Counted.calls == 0


def test_a_checkpoint_is_resumed_with_its_teacher(tmp_path):
    def module(teacher: Any) -> Any:
        return BCLightningModule(Module(net(3)), net(1), "imitation", teacher=teacher)

    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", **QUIET)
    trainer.fit(module([net(2), net(4)]), DataLoader(DATA, N))
    trainer.save_checkpoint(tmp_path / "last.ckpt")

    def resume(teacher: Any) -> None:
        going_on = pl.Trainer(max_epochs=2, accelerator="cpu", **QUIET)
        going_on.fit(module(teacher), DataLoader(DATA, N), ckpt_path=tmp_path / "last.ckpt")

    resume([net(4), net(2)])
    for other in (None, net(2), [net(2), net(5)]):
        with pytest.raises(ValueError, match="trained with another teacher"):
            resume(other)


def test_a_reference_of_several_is_pickled_and_moved(tmp_path):
    teacher = Reference.blend(net(2), net(1), 0.3)
    again = pickle.loads(pickle.dumps(teacher))
    torch.testing.assert_close(again(X), teacher(X))
    assert again.fingerprint == teacher.fingerprint
    teacher.apply(lambda tensor: tensor.to("cpu"))
    stored = Reference([store_outputs(net(seed), DATA, tmp_path / str(seed)) for seed in (1, 2)]).stored
    torch.testing.assert_close(pickle.loads(pickle.dumps(stored))[:], stored[:])


def test_members_are_frozen_and_in_eval_mode():
    members = [nn.Sequential(net(seed), nn.Dropout(0.5)).train() for seed in (1, 2)]
    answer = Reference(members)(X)
    assert not answer.requires_grad
    assert not any(member.training for member in members)
    expected = torch.stack([member(X).softmax(1) for member in members]).mean(0).log()
    torch.testing.assert_close(answer, expected)


@pytest.mark.parametrize("stored", [False, True])
def test_blends_that_read_their_scores_otherwise_than_the_loss_are_refused(tmp_path, stored):
    labels = TensorDataset(X, F.one_hot(Y, CLASSES).float())
    teacher: Any = Reference([net(1), net(2)])
    options = {"loss_options": {"from_logits": True}, "optimizer": lambda p: torch.optim.SGD(p, 0.1)}
    data: Any = labels
    if stored:
        teacher = store_outputs(teacher, labels, tmp_path / "teacher")
        data = teacher.attach(labels)
    loss = "StrictImitationBinaryCrossEntropyLoss"
    with pytest.raises(ValueError, match="blend of probabilities.*'classes'.*multilabel=True"):
        logged(BCLightningModule(net(3), net(1), loss, teacher=teacher, **options), data)
    fine = Reference([net(1), net(2)], multilabel=True)
    logged(BCLightningModule(net(3), net(1), loss, teacher=fine, **options), labels)
    with pytest.raises(ValueError, match="blend of models that give logits, and the loss reads probabilities"):
        BCLightningModule(
            Module(net(3)),
            net(1),
            CompatibilityLoss("binary_cross_entropy", "imitation", from_logits=False),
            teacher=fine,
        )


def test_classes_on_the_last_axis_are_said():
    class Tokens(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            self.net = net(seed)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    x, y = torch.randn(N, 7, FEATURES), torch.randint(0, CLASSES, (N, 7))
    data, options = TensorDataset(x, y), {"optimizer": lambda p: torch.optim.SGD(p, 0.0), "class_axis": -1}
    h1, new, h2 = Tokens(1), Tokens(2), Tokens(3)
    with pytest.raises(ValueError, match="blend of probabilities.*class_axis=-1"):
        logged(BCLightningModule(h2, h1, "imitation", teacher=[h1, new], **options), data)
    teacher = Reference([h1, new], class_axis=-1)
    got = logged(BCLightningModule(h2, h1, "imitation", teacher=teacher, **options), data)["train_dissonance"]
    goal = (h1(x).softmax(-1) + new(x).softmax(-1)) / 2
    torch.testing.assert_close(got, -(goal * h2(x).log_softmax(-1)).sum(-1).mean().detach())
