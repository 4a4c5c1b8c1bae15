"""The recommended method as a user trains it, by `BCLightningModule`, one network at a time; for `tradeoff.py`."""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from crowd import Weights
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset, default_collate
from update_data import Update

from bc_core import recommend
from bc_lightning import BCLightningModule

METHOD = "recommended, by the library"


class LaterHalf(WeightAveraging):
    """Means of the weights after each epoch of the later half."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.first = epochs // 2

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return epoch_idx is not None and epoch_idx >= self.first


def with_mixed(items: Iterable[Any], classes: int) -> tuple[Tensor, Tensor]:
    """A batch, and mixtures of its inputs with labels mixed alike."""
    x, y = default_collate(list(items))
    y = F.one_hot(y, classes).float()
    share = torch.rand(len(x), 1)
    mixed, labels = share * x + (1 - share) * x.flip(0), share * y + (1 - share) * y.flip(0)
    return torch.cat([x, mixed]), torch.cat([y, labels])


def train(update: Update, rows: Tensor, old: Weights, seed: int) -> Weights:
    """Weights of h2, started from h1's and trained as recommended."""
    way = recommend(same_architecture=True)
    seed_everything(seed, verbose=False)
    h1, h2 = update.h1(), update.h2()
    h1.load_state_dict(old)
    module = BCLightningModule(
        h2,
        h1=h1,
        loss="recommended",
        lambda_c=way.lambda_c,
        start_from=way.start_from,
        optimizer=functools.partial(torch.optim.Adam, lr=update.lr),
    )
    collate = functools.partial(with_mixed, classes=update.classes)
    data = TensorDataset(update.x[rows], update.y[rows])
    loader = DataLoader(data, update.batch_size, shuffle=True, drop_last=True, collate_fn=collate)
    quiet: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        averaged = LaterHalf(update.epochs)
        Trainer(max_epochs=update.epochs, accelerator="cpu", callbacks=[averaged], **quiet).fit(module, loader)
    return {name: value.detach() for name, value in h2.named_parameters()}
