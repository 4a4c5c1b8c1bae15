"""Validates a module in gloo processes with loaders of many kinds over 29 items. Run by test_loaders.py."""

from __future__ import annotations

import argparse
import json
import warnings

import pytorch_lightning as pl
from torch.utils.data import BatchSampler, ConcatDataset, DataLoader, SequentialSampler, Subset
from user_code import UserModule, dataset, made, make_h1

from bc_lightning import BCLightningModule, LogComparisons, StoredOutputs

ITEMS = dataset(29, seed=1)


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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, required=True)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    found = {}
    for name, (kind, make) in LOADERS.items():
        h1, loaders = make_h1(), make()
        if isinstance(loaders, tuple):
            h1, loaders = loaders
        options = LogComparisons(directory=f"{arguments.out}/{name}")
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=arguments.devices,
            strategy="ddp" if arguments.devices > 1 else "auto",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        try:
            scores = trainer.validate(
                BCLightningModule(made(kind), h1=h1, comparisons=options), loaders, verbose=False
            )[0]
            found[name] = {key: value for key, value in scores.items() if "loss" not in key}
        except ValueError as error:
            found[name] = str(error)
    if trainer.is_global_zero:
        print("RESULT", json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
