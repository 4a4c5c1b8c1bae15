"""Modules as people write them, and whether a wrapped one trains as one whose step holds the penalty."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from user_code import CLASSES, FEATURES, dataset, fit, loader, made

from bc_lightning import BCLightningModule, CompatibilityLoss

VAL = dataset(50, seed=1)


def accuracy(model, x=VAL.tensors[0], y=VAL.tensors[1]):
    with torch.no_grad():
        return (model(x).argmax(1) == y).float().mean().item()


class Base(pl.LightningModule):
    """A net, without forward or steps."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(FEATURES, CLASSES)

    def validation_step(self, batch, batch_idx):
        self.net(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Forward(Base):
    def forward(self, x):
        return self.net(x)


def trains_like(module_class, by_hand, h1, tmp_path, lambda_c=4.0, train=None, **options):
    """One epoch of the wrapped module equals one of the module whose step holds the penalty; logs agree too."""
    module = BCLightningModule(made(module_class), h1=h1, lambda_c=lambda_c, **options)
    trainer = fit(module, tmp_path, train=train or loader(), max_epochs=1)
    expected = made(by_hand)
    fit(expected, tmp_path, train=train or loader(), max_epochs=1)
    for name, value in expected.state_dict().items():
        # The same sums in another order.
        torch.testing.assert_close(module.state_dict()[name], value, rtol=1e-4, atol=1e-6)
    plain, zero = made(module_class), BCLightningModule(made(module_class), h1=h1, lambda_c=0.0, **options)
    fit(plain, tmp_path, train=train or loader(), max_epochs=1)
    fit(zero, tmp_path, train=train or loader(), max_epochs=1)
    assert all(torch.equal(value, zero.state_dict()[name]) for name, value in plain.state_dict().items())
    assert not torch.equal(plain.net.weight, expected.net.weight)
    return trainer


def penalty(net, h1, x, y, lambda_c=4.0):
    return lambda_c * CompatibilityLoss("cross_entropy", "new_error").terms(net(x), y, h1(x)).dissonance


def mixed(x, y, share=0.25):
    other = torch.arange(len(x)).roll(1)
    soft = F.one_hot(y, CLASSES).float()
    return share * x + (1 - share) * x[other], share * soft + (1 - share) * soft[other]
