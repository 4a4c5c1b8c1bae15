"""Validates a module in two gloo processes, with one loader after another that gives trouble. Run by test_ddp.py."""

from __future__ import annotations

import argparse
import os
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader
from user_code import UserModule, dataset, made, make_h1

from bc_lightning import BCLightningModule, LogComparisons


def ids_of_two_kinds(batch):
    """Ids that are text, but for the last batch (of four) of the second process."""
    rows = range(len(batch[1]))
    if os.environ.get("LOCAL_RANK", "0") == "1" and len(rows) == 4:
        return list(rows)
    return [f"{batch[0][i].sum()}" for i in rows]


class TwoSteps(UserModule):
    def validation_step(self, batch, batch_idx):
        self(batch[0])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    warnings.simplefilter("ignore")
    warnings.filterwarnings("always", message="There is no comparison")
    torch.set_num_threads(1)
    for trouble in ("shuffle", "every process reads all", "ids of two kinds"):
        validate(trouble, out / trouble)


def validate(trouble: str, out: Path) -> None:
    """With one kind of trouble; its comparison goes to the folder `out`."""
    ids = ids_of_two_kinds if trouble == "ids of two kinds" else None
    options = LogComparisons(directory=out, ids=ids)
    module = BCLightningModule(made(TwoSteps), h1=make_h1(), comparisons=options)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=trouble != "every process reads all",
    )
    val = DataLoader(dataset(40, seed=1), 8, shuffle=trouble == "shuffle")
    trainer.fit(module, DataLoader(dataset(32), 8), val)
    # In one write: the processes share the pipe.
    os.write(1, f"{trouble} {'val_btc' in trainer.callback_metrics}\n".encode())


if __name__ == "__main__":
    main()
