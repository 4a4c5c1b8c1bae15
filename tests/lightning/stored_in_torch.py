"""The h1 of the tests of stored outputs, and its data."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

N, CLASSES = 37, 3


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.head(self.body(x))


class Counted(Net):
    """Counts the instances that it was asked about, and stops working after some."""

    def __init__(self, limit: float = float("inf")) -> None:
        super().__init__()
        self.asked, self.limit = 0, limit

    def forward(self, x):
        if self.asked + len(x) > self.limit:
            raise RuntimeError("power cut")
        self.asked += len(x)
        return super().forward(x)


def trained(kind: type[Net] = Net, seed: int = 0) -> Net:
    torch.manual_seed(seed)
    model = kind()
    model(torch.randn(64, 4) * 3 + 1)
    if isinstance(model, Counted):
        model.asked = 0
    return model


def data(n: int = N, seed: int = 1) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(n, 4, generator=generator), torch.randint(CLASSES, (n,), generator=generator))


def by_hand(model: nn.Module, dataset: Dataset) -> torch.Tensor:
    """One instance at a time through a copy in eval mode."""
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        return torch.cat([model(dataset[i][0][None]) for i in range(len(dataset))])


def trainer_of(package, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "accelerator": "cpu"}
    return package.Trainer(**{**quiet, "enable_model_summary": False, "devices": 1, **options})


# Refusals while computing


class Augmented(Dataset):
    def __init__(self, inner):
        self.inner = inner

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, i):
        x, y = self.inner[i]
        return x + 0.01 * torch.randn(4), y
