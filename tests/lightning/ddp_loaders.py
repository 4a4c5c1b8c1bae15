"""Validates a module in gloo processes with loaders of many kinds over 29 items. Run by test_loaders.py."""

from __future__ import annotations

import json
import sys
import warnings

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.utilities import CombinedLoader
from torch import nn
from torch.utils.data import BatchSampler, ConcatDataset, DataLoader, SequentialSampler, Subset
from user_code import CLASSES, FEATURES, UserModule, dataset, made, make_h1

from bc_lightning import BCLightningModule, LogComparisons, StoredOutputs

ITEMS, SHORT = dataset(29, seed=1), dataset(11, seed=2)


class OwnBatchSampler(BatchSampler):
    pass


class WithOptions(BatchSampler):
    """One whose constructor is its own."""

    def __init__(self, sampler, batch_size=4, drop_last=False, note="kept"):
        super().__init__(sampler, batch_size, drop_last)
        self.note = note


class Reversing(BatchSampler):
    """One with an order of its own."""

    def __iter__(self):
        yield from reversed(list(super().__iter__()))


class NoIndex(UserModule):
    def validation_step(self, batch):
        self(batch[0])


class ManyLoaders(UserModule):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self(batch[0])


def batches(kind):
    return DataLoader(ITEMS, batch_sampler=kind(SequentialSampler(ITEMS), 4, False))


def attached():
    stored = StoredOutputs.from_table(make_h1()(ITEMS.tensors[0]).detach(), kind="logits")
    return stored, DataLoader(stored.attach(ITEMS), 4)


def concatenated():
    return DataLoader(ConcatDataset([Subset(ITEMS, range(10)), Subset(ITEMS, range(10, 29))]), 4)


LOADERS = {
    "one": (UserModule, lambda: DataLoader(ITEMS, 4)),
    "no batch index": (NoIndex, lambda: DataLoader(ITEMS, 4)),
    "dict": (ManyLoaders, lambda: {"a": DataLoader(ITEMS, 4)}),
    "nested": (ManyLoaders, lambda: {"a": [DataLoader(ITEMS, 4)]}),
    "own batch sampler": (UserModule, lambda: batches(OwnBatchSampler)),
    "batch sampler with options": (UserModule, lambda: batches(WithOptions)),
    "concatenated": (UserModule, concatenated),
    "stored": (UserModule, attached),
    "order of its own": (UserModule, lambda: batches(Reversing)),
}


class Linear(UserModule):
    """Without BatchNorm, which needs more than one item."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(FEATURES, CLASSES)


class Pairs(Linear):
    """Trains on the items of one of two loaders that are read together."""

    which = "a"

    def training_step(self, batch, batch_idx):
        x, y = batch[self.which]
        return F.cross_entropy(self(x), y)

    def validation_step(self, batch, batch_idx):
        self(batch[self.which][0])


class OfShort(Pairs):
    which = "b"


class Nested(Pairs):
    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[1]["b"][0]), batch[1]["b"][1])


class Doubled(Pairs):
    """One whose target is no part of the batch, but whose input is."""

    def training_step(self, batch, batch_idx):
        x, y = batch["a"]
        return F.cross_entropy(self(x), y.clone())


class Both(Pairs):
    def training_step(self, batch, batch_idx):
        x, y = (torch.cat([batch["a"][part], batch["b"][part]]) for part in (0, 1))
        return F.cross_entropy(self(x), y)


def pair():
    return {"a": DataLoader(ITEMS, 4), "b": DataLoader(SHORT, 3)}


def both(part):
    return lambda batch: torch.cat([batch["a"][part], batch["b"][part]])


# What is trained, on which loaders, and where its target is.
TRAINED = {
    "the longer": (Pairs, pair, lambda batch: batch["a"][1]),
    "the shorter, several times": (OfShort, pair, lambda batch: batch["b"][1]),
    "nested": (Nested, lambda: [DataLoader(ITEMS, 4), pair()], lambda batch: batch[1]["b"][1]),
    "a target of its own": (Doubled, pair, lambda batch: batch["a"][1].clone()),
    "the shortest ends it": (Pairs, lambda: CombinedLoader(pair(), "min_size"), lambda batch: batch["a"][1]),
    "whole batches": (
        Linear,
        lambda: DataLoader(ITEMS, batch_size=None, sampler=BatchSampler(SequentialSampler(ITEMS), 4, False)),
        None,
    ),
    "both": (Both, pair, both(1)),
}


def train(name, devices):
    kind, make, target = TRAINED[name]
    torch.manual_seed(0)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        module = BCLightningModule(made(kind), h1=make_h1(), target=target)
        trainer = trainer_of(devices, max_epochs=1)
        trainer.fit(module, make())
    scores = {key: value.item() for key, value in trainer.callback_metrics.items() if "accuracy_h1" in key}
    return {**scores, "said": [str(each.message) for each in said if "DistributedSampler repeats" in str(each.message)]}


def validate_together(devices):
    module = BCLightningModule(made(OfShort), h1=make_h1(), target=lambda batch: batch["b"][1])
    loaders = CombinedLoader(pair(), "max_size_cycle")
    return trainer_of(devices).validate(module, loaders, verbose=False)[0]["val_accuracy_h1"]


def trainer_of(devices, **options):
    return pl.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def found_with(devices, out):
    """What validating says of each loader, and what training says; None of both in a process that is not the first."""
    found = {}
    for name, (kind, make) in LOADERS.items():
        h1, loaders = make_h1(), make()
        if isinstance(loaders, tuple):
            h1, loaders = loaders
        options = LogComparisons(directory=f"{out}/{name}")
        trainer = trainer_of(devices)
        try:
            scores = trainer.validate(
                BCLightningModule(made(kind), h1=h1, comparisons=options), loaders, verbose=False
            )[0]
            found[name] = {key: value for key, value in scores.items() if "loss" not in key}
        except ValueError as error:
            found[name] = str(error)
    trained = {name: train(name, devices) for name in TRAINED}
    together = validate_together(devices)
    return (found, {"together": together, **trained}) if trainer.is_global_zero else None


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    answer = found_with(2, sys.argv[1])
    if answer is not None:
        print("RESULT", json.dumps(answer), flush=True)
