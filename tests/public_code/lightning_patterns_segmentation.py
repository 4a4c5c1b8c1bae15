"""Segmenters, as people write them."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from public_module import CLASSES, Registry, features, labels, loaders_of
from torch import nn
from torch.utils.data import TensorDataset

SEGMENTATION = Registry()


def masks(classes=CLASSES, ignored=None):
    def rows(count, seed):
        y = labels(count, seed, 6, 6, classes=classes)
        if ignored is not None:
            y[:, :2, :2] = ignored
        return TensorDataset(features(count, seed, 1, 6, 6), y)

    return rows


@SEGMENTATION.one_line("segmentation: logits (N, C, H, W), labels (N, H, W)", loaders=loaders_of(masks()))
class SegmentationUNet(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(1, 4, 3, padding=1, stride=2)
        self.up = nn.ConvTranspose2d(4, 4, 2, 2)
        self.head = nn.Conv2d(5, CLASSES, 1)
        self.loss_fn = nn.CrossEntropyLoss()

    def forward(self, x):
        return self.head(torch.cat([x, self.up(self.down(x).relu())], 1))

    def shared_step(self, batch, stage):
        image, mask = batch
        loss = self.loss_fn(self.forward(image), mask)
        self.log(f"{stage}_loss_step", loss)
        return {"loss": loss}

    def training_step(self, batch, batch_idx):
        return self.shared_step(batch, "train")

    def validation_step(self, batch, batch_idx):
        return self.shared_step(batch, "valid")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@SEGMENTATION.option(
    "segmentation with a void label (255)",
    needs='`loss_options={"ignore_index": 255}`',
    error="ignore_index",
    options={"loss_options": {"ignore_index": 255}},
    loaders=loaders_of(masks(ignored=255)),
    ignored=255,
)
class SegmentationWithVoidLabel(SegmentationUNet):
    def __init__(self):
        super().__init__()
        self.loss_fn = nn.CrossEntropyLoss(ignore_index=255)


@SEGMENTATION.option(
    "`torchvision` segmentation: the net returns a dictionary with `out` and `aux`",
    needs='`scores=lambda output: output["out"]`',
    error="scores=",
    options={"scores": lambda output: output["out"]},
    loaders=loaders_of(masks()),
    scores=lambda module, batch: module(batch[0])["out"],
)
class SegmentationWithAuxiliaryHead(SegmentationUNet):
    def __init__(self):
        super().__init__()
        self.aux = nn.Conv2d(1, CLASSES, 1)

    def forward(self, x):
        return {"out": super().forward(x), "aux": self.aux(x)}

    def shared_step(self, batch, stage):
        image, mask = batch
        output = self(image)
        loss = self.loss_fn(output["out"], mask) + 0.4 * self.loss_fn(output["aux"], mask)
        self.log(f"{stage}_loss_step", loss)
        return {"loss": loss}
