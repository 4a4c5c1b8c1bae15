"""`InvarianceCallback`: whether the update keeps h1's invariances, looked at while it is trained."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn
from torch import nn

from bc_core.files._failed_writes import told_of
from bc_core.invariance import InvarianceUpdate, TransformSet
from bc_core.invariance._layers import LayerChoice
from bc_core.invariance._watch import check_watch, logged, without_layers
from bc_lightning._packages import Callback
from bc_lightning._random_numbers import random_numbers_kept
from bc_lightning.invariance._compare import compare_invariance
from bc_lightning.invariance._rows import TorchRows, few_of
from bc_lightning.reference._reference import Reference
from bc_lightning.training.comparisons._comparisons import tensorboard_loggers


class InvarianceCallback(Callback):
    """Compare h2 with h1 under transformations after every epoch of training, and log what was lost.

    Logs `invariance_consistency_h1`, `invariance_consistency_h2` and `invariance_negative_flip_rate` (of pairs (x, t),
    the share where h1 said of t x what it says of x, and h2 does not), for loggers, `ModelCheckpoint` and
    `EarlyStopping`; with a `TensorBoardLogger` also the whole comparison, for the dashboard. In training on several
    devices the first process compares, and all get its numbers.

    Args:
        h1: The model in use, a ``torch.nn.Module``.
        data: What to compare on, as for `compare_invariance`; the same samples at each epoch.
        transforms: The transformations, the identity among them.
        every: Compare after every so many epochs.
        layers: Layers to measure, as for `compare_invariance`. Default: none, predictions only, which is cheap.
        network: What of the LightningModule is compared, a function of it. Default: the module itself.
        dataset: Name of the data in the dashboard.
        prefix: Put before every logged name.
        options: Further arguments of `compare_invariance`.

    Attributes:
        update: The comparison after the latest epoch; in the first process.
        history: Pairs of epoch and comparison, without layers.

    Raises:
        TypeError: h1 is no module, or `transforms` no `TransformSet`.
        ValueError: `every` is below 1, or the identity is not among the transformations.

    Example:
        >>> import torch, pytorch_lightning as pl
        >>> from bc_core.invariance import TransformSet
        >>> from bc_lightning.invariance import InvarianceCallback
        >>> h1, images = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)), torch.randn(20, 1, 8, 8)
        >>> watch = InvarianceCallback(h1, images, TransformSet.c4())
        >>> trainer = pl.Trainer(callbacks=[watch], logger=False)
    """

    def __init__(
        self,
        h1: nn.Module | Reference,
        data: Any,
        transforms: TransformSet,
        *,
        every: int = 1,
        layers: LayerChoice | None = (),
        network: Callable[[Any], nn.Module] | None = None,
        dataset: str = "invariance",
        prefix: str = "invariance_",
        **options: Any,
    ) -> None:
        module = h1.module if isinstance(h1, Reference) else h1
        if not isinstance(module, nn.Module):
            raise TypeError(f"h1 must be a torch.nn.Module, whose layers can be looked at. Received: {h1!r}.")
        check_watch(data, transforms, every, options, compare_invariance)
        TorchRows(data, 1, options.get("inputs"))  # refuses what are no data
        self._h1, self._asked = module, h1
        self._data = data
        self._transforms = transforms
        self._every = every
        self._layers = layers
        self._network = network
        self._dataset = dataset
        self._prefix = prefix
        self._options = options
        self.update: InvarianceUpdate | None = None
        self.history: list[tuple[int, InvarianceUpdate]] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare a few samples: what does not fit is told before the first epoch, not after it."""
        if trainer.is_global_zero:
            with random_numbers_kept():
                few = few_of(self._data)
            if few is not None:
                self._compared(pl_module, few)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare, log, and write for the dashboard."""
        if (trainer.current_epoch + 1) % self._every:
            return
        values: dict[str, float] | None = None
        if trainer.is_global_zero:
            update = self._compared(pl_module, self._data)
            values = logged(update, self._prefix)
            self.update = update
            self.history.append((trainer.current_epoch, without_layers(update)))
            self._write(trainer, update)
        values = trainer.strategy.broadcast(values)
        assert values is not None
        for name, value in values.items():
            # Every process holds the value of the first.
            pl_module.log(name, value, on_step=False, on_epoch=True, batch_size=1)

    def _compared(self, pl_module: pl.LightningModule, data: Any) -> InvarianceUpdate:
        h2 = pl_module if self._network is None else self._network(pl_module)
        weight = next(self._h1.parameters(), None)
        home = None if weight is None else weight.device
        # Where h2 is trained, and back afterwards: h1 is not this callback's.
        if home is not None and home != pl_module.device:
            self._h1.to(pl_module.device)
        try:
            return compare_invariance(self._asked, h2, data, self._transforms, layers=self._layers, **self._options)
        finally:
            if home is not None:
                self._h1.to(home)

    def _write(self, trainer: pl.Trainer, update: InvarianceUpdate) -> None:
        loggers = tensorboard_loggers(trainer)
        if not loggers or importlib.util.find_spec("tensorboard") is None:
            return
        # On the first process alone: an error here would leave the others waiting for its numbers.
        for logger in loggers:
            with told_of(f"The invariance of step {trainer.global_step}", rank_zero_warn):
                summary = importlib.import_module("bc_tensorboard").summary
                summary.invariance(logger, update, step=trainer.global_step, dataset=self._dataset)
