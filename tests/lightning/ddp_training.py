"""Trains and evaluates a module in several ways and saves what came out: in one process, or as a program in two.

All ways in one go: starting a process and importing torch and Lightning takes longer than any of the trainings.
"""

from __future__ import annotations

import argparse
import logging
import os
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler
from user_code import CLASSES, FEATURES, UserModule, dataset, make_h1

from bc_core.losses._dissonances import DISSONANCES
from bc_lightning import BCLightningModule, CompatibilityLoss, LogComparisons, store_outputs

GLOBAL_BATCH = 16


class NoStatistics(UserModule):
    """Without BatchNorm and Dropout: they depend on which instances share a process, with or without us."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(FEATURES, 16), nn.Tanh(), nn.Linear(16, CLASSES))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self(batch[0])


class Lbfgs(NoStatistics):
    """Asks several times about one batch."""

    def configure_optimizers(self):
        return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=3)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("ways", nargs="+", help="the options of each way in one text, which names its file")
    arguments = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    train_all(2, arguments.out, arguments.ways)


def train_all(devices: int, out: Path, ways: list[str]) -> None:
    """All ways, each to a file that is named by it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for way in ways:
            train(devices, out / way.replace("/", "-"), way.split())


def train(devices: int, out: Path, way: list[str]) -> None:
    """One way of training; to the file `out`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--loss", required=True)
    parser.add_argument("--normalization", default="batch")
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--stored", action="store_true")
    parser.add_argument("--lbfgs", action="store_true")
    parser.add_argument("--promise", choices=["validation", "held-out"])
    parser.add_argument("--taught", action="store_true")
    arguments = parser.parse_args(way)

    base, dissonance = arguments.loss.split("/")
    promised = arguments.promise is not None
    lambda_c = 1.0 if promised else DISSONANCES[dissonance].most_lambda or 3.0
    loss = CompatibilityLoss(base, dissonance, lambda_c, arguments.normalization)
    torch.manual_seed(0)
    h1, module = make_h1(), Lbfgs() if arguments.lbfgs else NoStatistics()
    options = {}
    if arguments.plain:
        module, options = module.net, {"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.1)}
    # 100 = 6 whole global batches of 16 and one of 4. 51 cannot be shared out evenly: one instance is repeated.
    data, val = dataset(100), dataset(51, seed=1)

    def trainer(**more):
        return pl.Trainer(
            accelerator="cpu",
            devices=devices,
            strategy="ddp" if devices > 1 else "auto",
            max_epochs=2,
            accumulate_grad_batches=arguments.accumulate,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            **more,
        )

    reference = h1
    if arguments.stored:
        reference = store_outputs(h1, data, f"{out}-train", trainer=trainer())
        val_rows = store_outputs(h1, val, f"{out}-val", trainer=trainer())
        data, val = reference.attach(data), val_rows.attach(val)
    batch = GLOBAL_BATCH // devices
    options["comparisons"] = LogComparisons(directory=f"{out}-comparisons", metadata=lambda i: f"photo {i}")
    if promised:
        options |= {"promise": "nfr <= 10%, btc >= 70%", "promise_options": {"confidence": 0.9}}
    if arguments.promise == "held-out":
        # Three batches, of which two processes have two and one.
        options["promise_data"] = DataLoader(dataset(51, seed=1), 17)
        options["promise_options"]["every"] = 3
    if arguments.taught:
        # Each process takes its share of the unlabelled batches.
        options["teacher"] = [(make_h1(), 0.5), (h1, 0.5)]
        torch.manual_seed(5)
        options["plain"] = NoStatistics().net
        options["unlabelled"] = DataLoader(dataset(96, seed=3), batch)
    module = BCLightningModule(module, h1=reference, loss=loss, **options)
    run = trainer()
    # The sampler that Lightning puts in shuffles, by process count; this one deals the same global batches.
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    sampler = DistributedSampler(data, devices, rank, shuffle=False)
    run.fit(module, DataLoader(data, batch, sampler=sampler), DataLoader(val, batch))
    metrics = {name: value.item() for name, value in run.callback_metrics.items()}
    test = run.validate(module, DataLoader(val, batch), verbose=False)[0]
    # Fewer instances than processes: one of them has nothing but padding.
    single = run.validate(module, DataLoader(val if arguments.stored else dataset(1, seed=2), 1), verbose=False)[0]
    test["single"] = {} if arguments.stored else single
    if run.is_global_zero:
        test["promise"] = str(module.promise) if promised else ""
        torch.save({"weights": module.state_dict(), "metrics": metrics, "validate": test}, out)


if __name__ == "__main__":
    main()
