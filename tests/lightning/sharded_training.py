"""Trains in two gloo processes that share h2's parameters out, with the penalty by hand and by a wrapped module.

Run by test_sharded.py.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import warnings

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed._composable.fsdp import fully_shard
from torch.utils.data import DataLoader, TensorDataset

from bc_lightning import BCLightningModule

FEATURES, CLASSES, LAMBDA = 4, 3, 2.0


def data(seed, n=64):
    x = torch.randn(n, FEATURES, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, x[:, :CLASSES].argmax(1))


def user_module(pl, h1=None, whole=False):
    class User(pl.LightningModule):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Linear(16, CLASSES))
            self.is_sharded = False

        def configure_model(self):
            if not self.is_sharded:
                self.is_sharded = True
                mesh = self.device_mesh["data_parallel"]
                for layer in (self.net[0], self.net[2], self if whole else self.net):
                    fully_shard(layer, mesh=mesh)

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, batch_idx):
            x, y = batch
            each = F.cross_entropy(self(x), y, reduction="none")
            if h1 is not None:
                with torch.no_grad():
                    is_right = h1(x).argmax(1) == y
                each = each * (1 + LAMBDA * is_right)
            return each.mean()

        def validation_step(self, batch, batch_idx):
            self(batch[0])

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), 0.05)

    return User()


def full_weights(module):
    return {name: weight.full_tensor().detach() for name, weight in module.named_parameters()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--package", required=True)
    parser.add_argument("--whole", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger(arguments.package).setLevel(logging.ERROR)
    torch.set_num_threads(1)
    pl = importlib.import_module(arguments.package)
    torch.manual_seed(1)
    h1 = nn.Linear(FEATURES, CLASSES)

    def fit(module, epochs=2, ckpt_path=None):
        trainer = pl.Trainer(
            max_epochs=epochs,
            strategy=pl.strategies.ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1),
            devices=2,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, DataLoader(data(2), 8), DataLoader(data(3), 8), ckpt_path=ckpt_path)
        return trainer

    by_hand = user_module(pl, h1)
    fit(by_hand)
    wrapped = BCLightningModule(user_module(pl, whole=arguments.whole), h1=h1, lambda_c=LAMBDA)
    trainer = fit(wrapped)
    found = {"by hand": full_weights(by_hand), "wrapped": full_weights(wrapped)}
    trainer.save_checkpoint(arguments.out + ".ckpt")
    further = BCLightningModule(user_module(pl, whole=arguments.whole), h1=h1, lambda_c=LAMBDA)
    fit(further, 3, arguments.out + ".ckpt")
    straight = user_module(pl, h1)
    fit(straight, 3)
    found |= {"by hand, 3 epochs": full_weights(straight), "resumed": full_weights(further)}
    if trainer.is_global_zero:
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
        torch.save({**found, "metrics": metrics, "h1": h1.state_dict()}, arguments.out)


if __name__ == "__main__":
    main()
