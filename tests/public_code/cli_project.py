"""A project that LightningCLI trains: a net, a module and data, for each of Lightning's two packages."""

from __future__ import annotations

import lightning as L
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from public_module import BATCH, CLASSES, FEATURES, TRAIN_ROWS, VAL_ROWS, vectors
from torch import nn
from torch.utils.data import DataLoader


class OldNet(nn.Linear):
    def __init__(self):
        super().__init__(FEATURES, CLASSES)


class _Steps:
    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", F.cross_entropy(self(x), y))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)


class _Loaders:
    def train_dataloader(self):
        return DataLoader(vectors(TRAIN_ROWS, 0), BATCH)

    def val_dataloader(self):
        return DataLoader(vectors(VAL_ROWS, 1), 5)


class PlModule(_Steps, pl.LightningModule):
    def __init__(self, lr: float = 0.1):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Linear(FEATURES, CLASSES)


class LightningModule(_Steps, L.LightningModule):
    def __init__(self, lr: float = 0.1):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Linear(FEATURES, CLASSES)


class PlData(_Loaders, pl.LightningDataModule):
    pass


class LightningData(_Loaders, L.LightningDataModule):
    pass
