"""Image classifiers and segmenters, as people write them."""

from __future__ import annotations

import functools
from collections import OrderedDict
from functools import partial
from typing import Any

import lightning as L
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from public_module import BATCH, CLASSES, TRAIN_ROWS, VAL_ROWS, Registry, images, loaders_of
from torch import nn
from torch.utils.data import DataLoader, default_collate
from torchmetrics import MaxMetric, MeanMetric
from torchmetrics.classification import MulticlassAccuracy

IMAGES = Registry()


def small_cnn(classes: int = CLASSES) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(1, 4, 3, padding=1),
            norm=nn.BatchNorm2d(4),
            act=nn.ReLU(),
            pool=nn.AdaptiveAvgPool2d(2),
            flat=nn.Flatten(),
            fc=nn.Linear(16, classes),
        )
    )


@IMAGES.one_line(
    "`timm`-style trainer: `self.model(x)` in a shared step, no `forward`, a criterion with class weights, a scheduler",
    loaders=loaders_of(images),
    scores=lambda module, batch: module.model(batch[0]),
)
class TimmStyleTrainer(L.LightningModule):
    def __init__(self, model_name="tiny", lr=0.1, epochs=1):
        super().__init__()
        self.save_hyperparameters()
        self.model = small_cnn()
        self.criterion = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5]), label_smoothing=0.1)
        self.train_acc = MulticlassAccuracy(CLASSES)
        self.val_acc = MulticlassAccuracy(CLASSES)

    def common_step(self, batch, acc):
        x, y = batch
        logits = self.model(x)
        acc(logits, y)
        return self.criterion(logits, y)

    def training_step(self, batch, batch_idx):
        loss = self.common_step(batch, self.train_acc)
        self.log_dict({"train/loss": loss, "train/acc": self.train_acc}, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.common_step(batch, self.val_acc))
        self.log("val/acc", self.val_acc)

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.model.parameters(), lr=self.hparams.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.hparams.epochs)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "epoch"}}


@IMAGES.one_line(
    "`torchvision` fine-tuning: a frozen feature extractor under `no_grad`, a new head, only its weights optimised",
    loaders=loaders_of(images),
)
class TorchvisionFineTuning(pl.LightningModule):
    def __init__(self):
        super().__init__()
        backbone = small_cnn(10)
        self.feature_extractor = nn.Sequential(*list(backbone.children())[:-1]).eval()
        for parameter in self.feature_extractor.parameters():
            parameter.requires_grad = False
        self.classifier = nn.Linear(16, CLASSES)

    def forward(self, x):
        self.feature_extractor.eval()
        with torch.no_grad():
            representations = self.feature_extractor(x).flatten(1)
        return self.classifier(representations)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_acc", (self(x).argmax(1) == y).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.classifier.parameters(), lr=0.1, momentum=0.9)


class ImageDataModule(pl.LightningDataModule):
    def __init__(self, batch_size=BATCH):
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage=None):
        self.train_set, self.val_set = images(TRAIN_ROWS, 0), images(VAL_ROWS, 1)

    def train_dataloader(self):
        return DataLoader(self.train_set, self.batch_size)

    def val_dataloader(self):
        return DataLoader(self.val_set, 5)


@IMAGES.one_line(
    "`lightning-bolts` style: `shared_step`, a `LightningDataModule`", loaders=lambda: (ImageDataModule(), None)
)
class BoltsStyleWithDataModule(pl.LightningModule):
    def __init__(self, learning_rate: float = 0.1):
        super().__init__()
        self.save_hyperparameters()
        self.encoder = small_cnn()

    def forward(self, x):
        return self.encoder(x)

    def shared_step(self, batch):
        x, y = batch
        logits = self.forward(x)
        return F.cross_entropy(logits, y), (logits.argmax(1) == y).float().mean()

    def training_step(self, batch, batch_idx):
        loss, acc = self.shared_step(batch)
        self.log("train_acc_step", acc)
        return loss

    def validation_step(self, batch, batch_idx):
        loss, acc = self.shared_step(batch)
        self.log("val_loss", loss)
        self.log("val_acc", acc)
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=self.hparams.learning_rate)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1)
        return {"optimizer": optimizer, "lr_scheduler": plateau, "monitor": "val_loss"}


@IMAGES.one_line(
    "hydra template: net and partial optimiser handed in, `save_hyperparameters(logger=False)`, mean and best metrics",
    loaders=loaders_of(images),
)
class HydraTemplate(L.LightningModule):
    def __init__(self, net=None, optimizer=None, scheduler=None, compile: bool = False):
        super().__init__()
        net, optimizer = net or small_cnn(), optimizer or partial(torch.optim.SGD, lr=0.1)
        self.save_hyperparameters(logger=False)
        self.net = net
        self.criterion = nn.CrossEntropyLoss()
        self.train_loss, self.val_loss = MeanMetric(), MeanMetric()
        self.val_acc, self.val_acc_best = MulticlassAccuracy(CLASSES), MaxMetric()

    def forward(self, x):
        return self.net(x)

    def on_train_start(self):
        self.val_loss.reset(), self.val_acc.reset(), self.val_acc_best.reset()

    def model_step(self, batch):
        x, y = batch
        logits = self.forward(x)
        return self.criterion(logits, y), torch.argmax(logits, dim=1), y

    def training_step(self, batch, batch_idx):
        loss, _, _ = self.model_step(batch)
        self.train_loss(loss)
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        loss, preds, targets = self.model_step(batch)
        self.val_loss(loss)
        self.val_acc(preds, targets)
        self.log("val/loss", self.val_loss, on_step=False, on_epoch=True)
        self.log("val/acc", self.val_acc, on_step=False, on_epoch=True)

    def on_validation_epoch_end(self):
        self.val_acc_best(self.val_acc.compute())
        self.log("val/acc_best", self.val_acc_best.compute(), sync_dist=True)

    def setup(self, stage):
        if self.hparams.compile and stage == "fit":
            self.net = torch.compile(self.net)

    def configure_optimizers(self):
        return {"optimizer": self.hparams.optimizer(params=self.trainer.model.parameters())}


@IMAGES.one_line(
    "the hydra template without a `forward`: the net handed in is in the hyperparameters and called by the steps",
    loaders=loaders_of(images),
    scores=lambda module, batch: module.net(batch[0]),
)
class NetHandedInWithoutForward(L.LightningModule):
    def __init__(self, net=None, lr: float = 0.1):
        super().__init__()
        net = net or small_cnn()
        self.save_hyperparameters(logger=False)
        self.net = net

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.net(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val/loss", F.cross_entropy(self.net(x), y))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)


@IMAGES.one_line("the same, compiled in `setup`", loaders=loaders_of(images))
class NetCompiledInSetup(HydraTemplate):
    def setup(self, stage):
        if stage == "fit":
            self.net = torch.compile(self.net, backend="eager")


def mixed(x, lam=0.3):
    """Inputs mixed with their neighbours', and which those are."""
    partner = torch.arange(len(x), device=x.device).roll(1)
    return lam * x + (1 - lam) * x[partner], partner, lam


def soft_labels(y, partner, lam):
    one_hot = F.one_hot(y, CLASSES).float()
    return lam * one_hot + (1 - lam) * one_hot[partner]


class _MixupInStep(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = small_cnn()

    def forward(self, x):
        return self.model(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        x, partner, lam = mixed(x)
        logits = self(x)
        return lam * F.cross_entropy(logits, y) + (1 - lam) * F.cross_entropy(logits, y[partner])

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", F.cross_entropy(self(x), y))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trained_on_mixed(module, batch):
    x, partner, lam = mixed(batch[0])
    return module(x), soft_labels(batch[1], partner, lam)


@functools.cache
def handing_over(refused: Any, target: Any) -> Any:
    """The same module, with one more line in its step."""

    class HandingOver(refused):
        def training_step(self, batch, batch_idx):
            self.compatibility_target = target(*batch)
            return super().training_step(batch, batch_idx)

    return HandingOver


def mixed_target(x, y):
    return soft_labels(y, *mixed(x)[1:])


@IMAGES.refused(
    "mixup inside `training_step`, the loss a sum over both labels",
    needs="`self.compatibility_target = soft_labels` in the step",
    error="compatibility_target",
    mended=lambda refused: handing_over(refused, mixed_target),
    loaders=loaders_of(images),
    trained=trained_on_mixed,
)
class MixupInTrainingStep(_MixupInStep):
    pass


@IMAGES.one_line(
    "mixup in `on_after_batch_transfer`, soft labels in the batch",
    loaders=loaders_of(images),
    trained=trained_on_mixed,
)
class MixupOnAfterBatchTransfer(_MixupInStep):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        if not self.trainer.training:
            return batch
        x, y = batch
        x, partner, lam = mixed(x)
        return x, soft_labels(y, partner, lam)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self(x), y)


def cutmix_collate(rows):
    x, y = default_collate(rows)
    x, partner = x.clone(), torch.arange(len(x)).roll(1)
    x[..., :2] = x[partner][..., :2]
    return x, soft_labels(y, partner, 2 / 3)


@IMAGES.one_line(
    "CutMix in the training loader's `collate_fn` (`torchvision.transforms.v2`), labels as probabilities",
    loaders=lambda: (
        DataLoader(images(TRAIN_ROWS, 0), BATCH, collate_fn=cutmix_collate),
        DataLoader(images(VAL_ROWS, 1), 5),
    ),
)
class CutMixInCollate(_MixupInStep):
    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self(x), y)


@IMAGES.one_line(
    "augmentation inside the step: h2 is called with something that is not the batch's input, the labels stay",
    loaders=loaders_of(images),
    trained=lambda module, batch: (module(batch[0].flip(-1)), batch[1]),
)
class AugmentationInsideTheStep(_MixupInStep):
    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self(torch.flip(x, [-1])), y)


@IMAGES.one_line(
    "ViT: patches, class token and position embedding as parameters of the module", loaders=loaders_of(images)
)
class VisionTransformerWithClassToken(pl.LightningModule):
    def __init__(self, dim=8):
        super().__init__()
        self.patches = nn.Conv2d(1, dim, 3, 3)
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim))
        self.pos_embedding = nn.Parameter(torch.randn(1, 5, dim))
        self.transformer = nn.TransformerEncoderLayer(dim, 2, 16, dropout=0.0, batch_first=True)
        self.mlp_head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, CLASSES))

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embedding
        return self.mlp_head(self.transformer(x)[:, 0])

    def _calculate_loss(self, batch, mode="train"):
        imgs, target = batch
        preds = self(imgs)
        loss = F.cross_entropy(preds, target)
        self.log(f"{mode}_loss", loss)
        self.log(f"{mode}_acc", (preds.argmax(-1) == target).float().mean())
        return loss

    def training_step(self, batch, batch_idx):
        return self._calculate_loss(batch, "train")

    def validation_step(self, batch, batch_idx):
        self._calculate_loss(batch, "val")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@IMAGES.option(
    "Inception style: (logits, auxiliary logits) while training, logits else",
    needs="`scores=` a function that takes the first of a pair",
    error="scores=",
    options={"scores": lambda output: output[0] if isinstance(output, tuple) else output},
    loaders=loaders_of(images),
    trained=lambda module, batch: (module.net(batch[0]), batch[1]),
)
class AuxiliaryLogitsInTraining(_MixupInStep):
    def __init__(self):
        super().__init__()
        self.net = small_cnn()
        self.auxiliary = nn.Sequential(nn.Flatten(), nn.Linear(36, CLASSES))
        del self.model

    def forward(self, x):
        return (self.net(x), self.auxiliary(x)) if self.training else self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits, auxiliary = self(x)
        return F.cross_entropy(logits, y) + 0.3 * F.cross_entropy(auxiliary, y)


@IMAGES.one_line(
    "a frozen backbone that a `BaseFinetuning` callback thaws",
    loaders=loaders_of(images),
    trainer=lambda: {"callbacks": [_Thaw()], "max_epochs": 2},
    by_hand=False,
)
class BackboneFinetuningCallback(_MixupInStep):
    def __init__(self):
        super().__init__()
        self.model = nn.ModuleDict({"backbone": small_cnn()[:-1], "head": nn.Linear(16, CLASSES)})

    def forward(self, x):
        return self.model["head"](self.model["backbone"](x))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self(x), y)

    def configure_optimizers(self):
        return torch.optim.SGD(filter(lambda p: p.requires_grad, self.parameters()), lr=0.1)


class _Thaw(pl.callbacks.BaseFinetuning):
    def freeze_before_training(self, pl_module):
        self.freeze(pl_module.model["backbone"])

    def finetune_function(self, pl_module, epoch, optimizer):
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.model["backbone"], optimizer)
