"""Stored rows belong to the items that a loader brought: what moves the items afterwards is refused in every stage."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset
from user_code import UserModule, dataset, fit, made, make_h1, make_trainer

from bc_lightning import BCLightningModule, StoredOutputs

STAGES = ("train", "val", "test")
HOOK_STAGES = {"train": "train", "val": "validation", "test": "test"}
DATA = dataset(24)
ONE_CLASS = TensorDataset(DATA.tensors[0], torch.ones(24, dtype=torch.long))


def flipped(batch):
    batch[0], batch[1] = batch[0].flip(0), batch[1].flip(0)


def flipped_in_place(batch):
    for part in batch:
        part.copy_(part.flip(0))


def two_swapped(batch):
    order = torch.arange(len(batch[0]))
    order[[0, 3]] = order[[3, 0]]
    batch[0], batch[1] = batch[0][order], batch[1][order]


def drawn_anew(batch):
    order = torch.tensor([0, 0, 1, 2, 3, 4, 5, 6])[: len(batch[0])]
    batch[0], batch[1] = batch[0][order], batch[1][order]


def scaled_and_flipped(batch):
    batch[0], batch[1] = 2 * batch[0].flip(0), batch[1].flip(0)


def scaled(batch):
    batch[0] = 2 * batch[0]


def scaled_in_place(batch):
    batch[0].mul_(2)


def noisy(batch):
    batch[0] = batch[0] + 0.01 * torch.randn(batch[0].shape)


def module_of(where, change, only):
    """A user's module that changes its batches in one hook, in one stage."""

    def changed(self, batch):
        stage = self.trainer.state.stage
        if (getattr(stage, "value", stage) or "").startswith({"val": "valid"}.get(only, only)):
            change(batch)
        return batch

    if where == "on_before_batch_transfer":
        members = {where: lambda self, batch, dataloader_idx: changed(self, batch)}
    elif where == "on_after_batch_transfer":
        members = {where: lambda self, batch, dataloader_idx: changed(self, batch)}
    elif where == "on_batch_start":
        # What it returns of training batches says whether to go on.
        members = {
            f"on_{name}_batch_start": lambda self, batch, *_: changed(self, batch) and None
            for name in HOOK_STAGES.values()
        }
    else:
        members = {
            name: lambda self, batch, batch_idx: F.cross_entropy(self(changed(self, batch)[0]), batch[1])
            for name in ("training_step", "validation_step", "test_step")
        }
    return made(type("Changing", (UserModule,), members))


def run(stage, module, data, tmp_path, **options):
    load = DataLoader(data, batch_size=8)
    if stage == "train":
        return fit(module, tmp_path, train=load, val=[], max_epochs=1, **options).callback_metrics
    trainer = make_trainer(tmp_path, **options)
    return getattr(trainer, {"val": "validate"}.get(stage, stage))(module, load, verbose=False)[0]


def h1_right(data):
    x, y = data.tensors
    with torch.no_grad():
        return (make_h1()(x).argmax(1) == y).float().mean().item()


PLACES = ["on_before_batch_transfer", "on_after_batch_transfer", "on_batch_start", "the step"]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("data", [DATA, ONE_CLASS], ids=["classes", "one class"])
@pytest.mark.parametrize("change", [flipped, flipped_in_place, two_swapped, drawn_anew])
def test_items_that_are_moved_are_refused_and_the_remedy_works(change, data, where, stage, tmp_path):
    copies = TensorDataset(*(part.clone() for part in data.tensors))
    stored = StoredOutputs.from_table(make_h1()(data.tensors[0]).detach(), kind="logits")
    with pytest.raises(ValueError, match=r"in another order|inputs and targets of its own|another target") as refused:
        run(stage, BCLightningModule(module_of(where, change, stage), h1=stored), stored.attach(copies), tmp_path)
    if "another target" in str(refused.value):
        return
    assert "h1=old_model" in str(refused.value)
    found = run(stage, BCLightningModule(module_of(where, change, stage), h1=make_h1()), data, tmp_path)
    # Of those that were drawn anew some count twice.
    if change is not drawn_anew:
        assert float(found[f"{stage}_accuracy_h1"]) == pytest.approx(h1_right(data))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("where", ["on_before_batch_transfer", "on_after_batch_transfer"])
def test_items_that_are_changed_and_moved_are_told_by_their_targets(where, stage, tmp_path):
    stored = StoredOutputs.from_table(make_h1()(DATA.tensors[0]).detach(), kind="logits")
    module = BCLightningModule(module_of(where, scaled_and_flipped, stage), h1=stored)
    with pytest.raises(ValueError, match="in another order"):
        run(stage, module, stored.attach(DATA), tmp_path)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("where", PLACES[:3])
@pytest.mark.parametrize("change", [scaled, scaled_in_place, noisy])
def test_items_that_are_augmented_in_their_places_keep_their_rows(change, where, stage, tmp_path):
    copies = TensorDataset(*(part.clone() for part in DATA.tensors))
    stored = StoredOutputs.from_table(make_h1()(DATA.tensors[0]).detach(), kind="logits")
    found = run(stage, BCLightningModule(module_of(where, change, stage), h1=stored), stored.attach(copies), tmp_path)
    assert float(found[f"{stage}_accuracy_h1"]) == pytest.approx(h1_right(DATA))


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_of_one_class_in_another_precision(precision, tmp_path):
    stored = StoredOutputs.from_table(make_h1()(DATA.tensors[0]).detach(), kind="logits")
    module = BCLightningModule(module_of("on_after_batch_transfer", flipped, "val"), h1=stored)
    with pytest.raises(ValueError, match="in another order"):
        run("val", module, stored.attach(ONE_CLASS), tmp_path, precision=precision)


class Reorders(pl.Callback):
    def on_validation_batch_start(self, trainer, module, batch, *_):
        flipped(batch)


def test_a_callback_that_moves_items(tmp_path):
    stored = StoredOutputs.from_table(make_h1()(DATA.tensors[0]).detach(), kind="logits")
    module = BCLightningModule(made(UserModule), h1=stored)
    with pytest.raises(ValueError, match="in another order"):
        run("val", module, stored.attach(ONE_CLASS), tmp_path, callbacks=[Reorders()])
