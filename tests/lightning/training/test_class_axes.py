"""Scores whose classes lie on another axis than the second."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from user_code import UserModule, fit, made
from users_modules import VAL

from bc_lightning import BCLightningModule, evaluate


def test_labels_that_are_all_ignored_in_one_batch(h1, tmp_path):
    x, y = VAL.tensors
    y = y.clone()
    y[16:32] = -100
    trainer = fit(
        BCLightningModule(made(UserModule), h1=h1), tmp_path, val=DataLoader(TensorDataset(x, y), 16), max_epochs=1
    )
    counted = y >= 0
    net = trainer.lightning_module.eval()
    with torch.no_grad():
        expected = F.cross_entropy(net(x)[counted], y[counted]).item()
    assert trainer.callback_metrics["val_base_loss"].item() == pytest.approx(expected, rel=1e-5)


# -- the axis of the classes --------------------------------------------------------------------------------------


@dataclass
class ModelOutput(OrderedDict):
    """As Hugging Face's: a data class that is a mapping too."""

    logits: torch.Tensor = None
    loss: torch.Tensor = None

    def __post_init__(self):
        self.update(logits=self.logits)


class Tagger(pl.LightningModule):
    """One class for each of `time` tokens, classes last."""

    kind = "plain"

    def __init__(self, time=5, classes=5):
        super().__init__()
        self.net = nn.Linear(4, classes)

    def forward(self, x):
        logits = self.net(x)
        return ModelOutput(logits=logits) if self.kind == "hugging face" else logits

    def loss(self, batch):
        x, y = batch
        logits = self.net(x) if self.kind == "no loss seen" else self(x)
        logits = logits.logits if self.kind == "hugging face" else logits
        if self.kind == "transposed":
            return F.cross_entropy(logits.transpose(1, 2), y)
        if self.kind == "flattened":
            return F.cross_entropy(logits.view(-1, logits.shape[-1]), y.view(-1))
        return -logits.log_softmax(-1).gather(-1, y[..., None]).mean()

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize("time", [7, 5])
@pytest.mark.parametrize("kind", ["hugging face", "transposed", "flattened", "plain"])
@pytest.mark.parametrize("loss", ["BCCrossEntropyLoss", "BCNLLLoss", "StrictImitationCrossEntropyLoss"])
def test_classes_last(loss, kind, time, tmp_path):
    torch.manual_seed(0)
    x, y = torch.randn(32, time, 4), torch.randint(5, (32, time))
    data = DataLoader(TensorDataset(x, y), 8)
    told = kind == "plain" and time == 5
    kinds = type("Kind", (Tagger,), {"kind": kind})
    if told:
        # Nothing tells: the axes are of one length, and no loss that torch knows was called.
        with pytest.raises(ValueError, match="class_axis=1 or class_axis=-1"):
            fit(BCLightningModule(made(kinds), h1=made(kinds, seed=8), loss=loss), tmp_path, train=data, val=data)
    old, new = made(kinds, seed=8), made(kinds)
    module = BCLightningModule(new, h1=old, loss=loss, class_axis=-1 if told else None)
    trainer = fit(module, tmp_path, train=data, val=data, max_epochs=1)
    with torch.no_grad():
        one, two = (model.net(x).argmax(-1) == y for model in (old, new))
    assert trainer.callback_metrics["val_accuracy_h1"].item() == pytest.approx(one.float().mean().item())
    assert trainer.callback_metrics["val_btc"].item() == pytest.approx(((one & two).sum() / one.sum()).item())


def test_classes_second_of_square_images(tmp_path):
    class Segmenter(Tagger):
        def __init__(self):
            super().__init__()
            self.net = nn.Conv2d(1, 4, 1)

        def loss(self, batch):
            return F.cross_entropy(self(batch[0]), batch[1])

    torch.manual_seed(0)
    x, y = torch.randn(16, 1, 4, 4), torch.randint(4, (16, 4, 4))
    data = DataLoader(TensorDataset(x, y), 8)
    old = made(Segmenter, seed=8)
    trainer = fit(BCLightningModule(made(Segmenter), h1=old), tmp_path, train=data, val=data, max_epochs=1)
    with torch.no_grad():
        assert trainer.callback_metrics["val_accuracy_h1"].item() == pytest.approx(
            (old(x).argmax(1) == y).float().mean().item()
        )


@pytest.mark.parametrize("kind", ["hugging face", "plain"])
def test_evaluate_knows_the_class_axis_or_refuses(kind):
    torch.manual_seed(0)
    x, y = torch.randn(32, 5, 4), torch.randint(5, (32, 5))
    kinds = type("Kind", (Tagger,), {"kind": kind})
    h1, h2, data = made(kinds, seed=8), made(kinds), TensorDataset(x, y)
    if kind == "plain":
        with pytest.raises(ValueError, match="class_axis=1 or class_axis=-1"):
            evaluate(h1, h2, data)
    overlap = evaluate(h1, h2, data, class_axis=-1 if kind == "plain" else None).comparison.overlap
    with torch.no_grad():
        one, two = (model.net(x).argmax(-1) == y for model in (h1, h2))
    assert overlap.accuracy_h1 == pytest.approx(one.float().mean().item())
    assert overlap.nfr == pytest.approx((one & ~two).float().mean().item())
