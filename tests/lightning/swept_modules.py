"""What the tests of sweeps train, and on what."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.data import DataLoader

from bc_lightning import sweep

GRID = {"lambdas": [0, 2, 16], "trainer": {"max_epochs": 1, "accelerator": "cpu"}}


def rows_of(found):
    """The table without the times."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in found.rows()]


def sweep_of(module, folder, h1, data, **options):
    return sweep(
        module, h1, DataLoader(data["train"], batch_size=100, shuffle=True), test=DataLoader(data["test"], 100),
        folder=folder, progress_bar=False,
        **{"tensorboard": False, **GRID, **options},
    )  # fmt: skip


def batches(seed, number=4):
    random_numbers = torch.Generator().manual_seed(seed)
    x = torch.randn(10 * number, 4, generator=random_numbers)
    return list(zip(x.split(10), (x.argmax(1) % 3).split(10), strict=True))


def few(train, h1, folder, **options):
    return sweep(
        lambda: nn.Linear(4, 3), h1, train, folder=folder, lambdas=[0, 1], losses=["new_error"],
        trainer={"max_epochs": 2, "accelerator": "cpu"}, optimizer=torch.optim.Adam, tensorboard=False,
        progress_bar=False, **options,
    )  # fmt: skip
