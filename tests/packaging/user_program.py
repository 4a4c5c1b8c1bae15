"""What a user writes, as a type checker sees it: nothing here is run, `make types` has mypy and pyright read it."""

from __future__ import annotations

import keras
import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

import bc_core
import bc_keras
import bc_lightning
import bc_tensorboard
from bc_core import Comparison, ErrorOverlap, compare, recommend
from bc_core.invariance import TransformSet


class Net(pl.LightningModule):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = torch.nn.Linear(4, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.net(x)
        return scores

    def penalty(self) -> torch.Tensor:
        return self.net.weight.square().sum()


def lightning(h1: Net, h2: Net, loader: DataLoader[tuple[torch.Tensor, torch.Tensor]]) -> Net:
    wrapped = bc_lightning.BCLightningModule(h2, h1=h1, lambda_c=4.0, loss="imitation", promise="nfr <= 0.5%")
    pl.Trainer(callbacks=[bc_lightning.CompatibilityCallback(h1, lambda_c=bc_lightning.LinearLambda(4.0, 2))]).fit(
        wrapped, loader
    )
    stored = bc_lightning.store_outputs(h1, loader.dataset, "rows")
    metric = bc_lightning.BTC(task="multiclass", num_classes=3)
    score: torch.Tensor = metric(torch.zeros(3, 3), torch.zeros(3), torch.zeros(3, 3))
    loss = bc_lightning.CompatibilityLoss("cross_entropy", "new_error", lambda_c=score.item())
    value: torch.Tensor = loss(torch.zeros(2, 3), torch.zeros(2), torch.zeros(2, 3))
    old = bc_lightning.BCCrossEntropyLoss(h1, h2, 2.0)
    (value + old(torch.zeros(2, 4), torch.zeros(2))).backward()
    bc_lightning.BCLightningModule(h2, h1=stored)
    plain: Net = bc_lightning.unwrap(wrapped)
    return plain


def after(h1: Net, h2: Net, loader: DataLoader[tuple[torch.Tensor, torch.Tensor]]) -> bc_core.Evaluation:
    found = bc_lightning.interpolate(h1, h2, loader, "nfr <= 0.5%")
    print(found)
    result = bc_lightning.sweep(lambda: Net(3), h1, loader, val=loader, folder="runs", trainer={"max_epochs": 1})
    print(result.best("nfr <= 0.5%"), TransformSet.rotations([0, 90]))
    return bc_lightning.evaluate(h1, h2, loader)


def numbers() -> float:
    y, old, new = np.zeros(10, int), np.zeros(10, int), np.ones(10, int)
    comparison = compare(y, old, new, class_names=["cat", "dog"])
    overlap: ErrorOverlap = comparison.overlap
    low, high = overlap.interval("nfr")
    comparison.save("comparison.json")
    bc_tensorboard.to_html({"plain": Comparison.load("comparison.json")}, "report.html")
    print(recommend(same_architecture=True).dissonance)
    return overlap.btc + overlap.bec(given="h2_wrong") + low + high


def in_keras(h1: keras.Model, h2: keras.Model, x: np.ndarray, y: np.ndarray) -> None:
    model = bc_keras.BCModel(h2, h1=h1, lambda_c=4.0)
    model.compile("adam", loss="sparse_categorical_crossentropy", metrics=[bc_keras.BTC(), bc_keras.BEC()])
    model.fit(x, y, callbacks=[bc_keras.CompatibilityCallback((x, y), log_dir="runs")])
    stored = bc_keras.store_outputs(h1, x, "rows", y=y)
    bc_keras.BCModel(h2, h1=stored).fit(*stored.attach(x, y))
    bc_keras.unwrap(model).save("next.keras")
