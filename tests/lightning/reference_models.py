"""The h1 of the tests of references."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(8, classes)

    def forward(self, x, scale=1.0):
        return self.head(self.body(x)) * scale


def labels_of_service(x: torch.Tensor) -> np.ndarray:
    return x.numpy().argmax(axis=1)


def net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    model = Net()
    # Statistics other than the initial ones, so that eval and train mode differ.
    model(torch.randn(64, 4) * 3 + 1)
    return model
