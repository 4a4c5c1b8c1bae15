"""A user's code, as the tests of the wrapped module see it: a small net, a LightningModule, data."""

from __future__ import annotations

import logging
import warnings

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

FEATURES, CLASSES = 8, 3


class Net(nn.Module):
    """With BatchNorm and Dropout, which show when a module is run twice or in the wrong mode."""

    def __init__(self, width: int = 16):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(FEATURES, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.3), nn.Linear(width, CLASSES)
        )

    def forward(self, x):
        return self.layers(x)


class UserModule(pl.LightningModule):
    def __init__(self, width: int = 16, lr: float = 0.1):
        super().__init__()
        self.save_hyperparameters()
        self.net = Net(width)
        self.calls = []

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        logits = self(x)
        self.log("val_loss", F.cross_entropy(logits, y))

    def test_step(self, batch, batch_idx):
        x, y = batch
        self.log("test_loss", F.cross_entropy(self(x), y))

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=self.hparams.lr, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


class ManualModule(UserModule):
    def __init__(self, width: int = 16, lr: float = 0.1):
        super().__init__(width, lr)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        x, y = batch
        optimizer = self.optimizers()
        optimizer.zero_grad()
        loss = F.cross_entropy(self(x), y)
        self.manual_backward(loss)
        optimizer.step()
        self.log("train_loss", loss)


def dataset(n: int = 96, seed: int = 0) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, FEATURES, generator=generator)
    y = (x[:, :CLASSES] + 0.5 * torch.randn(n, CLASSES, generator=generator)).argmax(1)
    return TensorDataset(x, y)


def make_h1(seed: int = 7) -> nn.Module:
    """Right on roughly half of the data, so that the support is neither empty nor everything."""
    generator = torch.Generator().manual_seed(seed)
    h1 = nn.Sequential(nn.BatchNorm1d(FEATURES), nn.Dropout(0.5), nn.Linear(FEATURES, CLASSES))
    with torch.no_grad():
        h1[2].weight.copy_(torch.eye(CLASSES, FEATURES) + 0.8 * torch.randn(CLASSES, FEATURES, generator=generator))
        h1[2].bias.zero_()
    return h1.eval()


def loader(data=None, batch_size: int = 20, shuffle: bool = False, **options) -> DataLoader:
    return DataLoader(dataset() if data is None else data, batch_size=batch_size, shuffle=shuffle, **options)


def make_trainer(root, **options) -> pl.Trainer:
    defaults = {
        "max_epochs": 2,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": root,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pl.Trainer(**{**defaults, **options})


def fit(module, root, train=None, val=None, seed: int = 1, **options) -> pl.Trainer:
    ckpt_path = options.pop("ckpt_path", None)
    trainer = make_trainer(root, **options)
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        # Lightning's own advice on workers and log intervals; warnings of bc_lightning stay errors.
        warnings.filterwarnings("ignore", module="pytorch_lightning|lightning|torch")
        train = loader(shuffle=True) if train is None else train
        val = loader(dataset(50, seed=1)) if val is None else val
        trainer.fit(module, train, val, ckpt_path=ckpt_path)
    return trainer


def made(cls, seed: int = 3, **options):
    torch.manual_seed(seed)
    return cls(**options)


def same_weights(one, other):
    """Whether two modules have the same state, to the bit."""
    one, other = one.state_dict(), other.state_dict()
    assert one.keys() == other.keys()
    return all(torch.equal(value, other[name]) for name, value in one.items())


def brute_force_scores(h1_labels, h2_labels, target):
    counts = {(a, b): 0 for a in (False, True) for b in (False, True)}
    for a, b, y in zip(h1_labels, h2_labels, target, strict=True):
        counts[a == y, b == y] += 1
    rr, rw, wr, ww = (counts[key] for key in ((True, True), (True, False), (False, True), (False, False)))
    n = rr + rw + wr + ww
    return {
        "btc": rr / (rr + rw),
        "bec_given_h1_wrong": ww / (ww + wr),
        "bec_given_h2_wrong": ww / (ww + rw),
        "nfr": rw / n,
        "accuracy_h1": (rr + rw) / n,
        "accuracy_h2": (rr + wr) / n,
    }
