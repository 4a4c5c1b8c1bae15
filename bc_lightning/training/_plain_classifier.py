"""The steps that a plain `nn.Module` lacks to be trained by Lightning."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from bc_lightning.batches._model_outputs import begins_with_ids, inputs_from_batch


def _refuse_listed_batches(loaders: Any) -> None:
    """Refuse batches in a list, which Lightning takes for loaders to be read side by side, row by row."""
    if not isinstance(loaders, (list, tuple)) or not loaders:
        return
    parts = (each.values() if isinstance(each, Mapping) else each for each in loaders)
    if all(isinstance(each, (list, tuple, Mapping)) for each in loaders) and all(
        any(isinstance(part, Tensor) for part in each) for each in parts
    ):
        raise TypeError(
            "Lightning takes a list for several data loaders, and these are batches: pass "
            f"torch.utils.data.DataLoader(batches, batch_size=None). Received: a list of {len(loaders)} batches."
        )


class ClassifierSteps:
    """Steps for a plain nn.Module. The state dict is the module's own, without a prefix."""

    def __init__(
        self,
        model: nn.Module,
        inputs: str | int | Callable[[Any], Any] | None,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | Optimizer | None,
        lr_scheduler: Callable[[Optimizer], LRScheduler] | None,
    ) -> None:
        super().__init__()
        self.model = model
        self._inputs = inputs
        self._optimizer = optimizer
        self._lr_scheduler = lr_scheduler

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.model(*args, **kwargs)

    def on_train_start(self) -> None:
        _refuse_listed_batches(cast("Any", self).trainer.train_dataloader)

    def on_validation_start(self) -> None:
        _refuse_listed_batches(cast("Any", self).trainer.val_dataloaders)

    def on_test_start(self) -> None:
        _refuse_listed_batches(cast("Any", self).trainer.test_dataloaders)

    def _scores(self, batch: Any) -> Any:
        if self._inputs is None and begins_with_ids(batch):
            raise ValueError(
                "The batch has three parts, of which the first looks like ids, and a plain module is given the first: "
                "say where things are, BCLightningModule(net, h1=..., inputs=1, target=2), or inputs=0 if the first is "
                f"the input. Received: a batch of {', '.join(type(part).__name__ for part in batch)}, inputs=None."
            )
        return cast("Any", self)(inputs_from_batch(batch, self._inputs))

    def training_step(self, batch: Any, batch_idx: int) -> None:
        # The wrapped step computes base loss and penalty from this one call.
        self._scores(batch)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._scores(batch)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._scores(batch)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        return self._scores(batch)

    def configure_optimizers(self) -> Any:
        if self._optimizer is None:
            raise ValueError(
                "A plain module needs an optimiser. Pass one: BCLightningModule(net, h1=..., "
                "optimizer=lambda params: torch.optim.Adam(params, lr=1e-3))."
            )
        optimizer = self._optimizer
        if not isinstance(optimizer, torch.optim.Optimizer):
            optimizer = optimizer(self.model.parameters())
        if self._lr_scheduler is None:
            return optimizer
        return [optimizer], [self._lr_scheduler(optimizer)]

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.model.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        return self.model.load_state_dict(state_dict, *args, **kwargs)
