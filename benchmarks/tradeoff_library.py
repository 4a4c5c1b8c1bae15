"""The recommended method as a user trains it, by `BCLightningModule`, one network at a time; for `tradeoff.py`."""

from __future__ import annotations

import functools
import logging
import warnings
from typing import Any

import torch
from crowd import Weights
from pytorch_lightning import Trainer, seed_everything
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from update_data import Update

from bc_core import recommend
from bc_lightning import BCLightningModule, MeanWeights

METHOD = "recommended, by the library"
WAY = recommend(same_architecture=True)


def train(update: Update, rows: Tensor, old: Weights, seed: int) -> Weights:
    """Weights of h2, started from h1's and trained as recommended."""
    seed_everything(seed, verbose=False)
    h1, h2 = update.h1(), update.h2()
    h1.load_state_dict(old)
    module = BCLightningModule(
        h2,
        h1=h1,
        loss=WAY.dissonance,
        lambda_c=WAY.lambda_c,
        start_from=WAY.start_from,
        unlabelled="mixed" if WAY.mixed_inputs else None,
        optimizer=functools.partial(torch.optim.Adam, lr=update.lr),
    )
    data = TensorDataset(update.x[rows], update.y[rows])
    loader = DataLoader(data, update.batch_size, shuffle=True, drop_last=True)
    quiet: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.ERROR)
    callbacks: list[Any] = [MeanWeights()] if WAY.averaged else []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Trainer(max_epochs=update.epochs, accelerator="cpu", callbacks=callbacks, **quiet).fit(module, loader)
    return {name: value.detach() for name, value in h2.named_parameters()}
