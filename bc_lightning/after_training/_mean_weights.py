"""`MeanWeights`: a training ends with the mean of its later weights."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _NormBase

from bc_core._numbers import check_count
from bc_core.after_training._mean_weights import (
    first_of,
    says_no_statistics,
    says_not_averaged,
)
from bc_lightning._packages import Callback
from bc_lightning.after_training._statistics import estimate, layers_with_statistics
from bc_lightning.evaluation._evaluate import _in_batches
from bc_lightning.training.data._reader import BATCH_SIZE, Reader, reading_of


class MeanWeights(Callback):
    """End a training with the mean of the weights after each epoch of its later half (stochastic weight averaging).

    The last weights of a training carry the noise of its last batches, and that noise is flips. The training itself is
    not touched: steps, validation and checkpoints are of the weights as they move, and when it ends the module has
    their mean. Checkpoints hold the mean so far beside them, so a resumed training ends with the same. Works with any
    LightningModule, also one that `BCLightningModule` made.

    Args:
        first_epoch: The first epoch, from 0 on, whose weights count. By default that of the later half.
        statistics: Training data for running statistics (BatchNorm's), as in `interpolate`: those of the trained
            networks are not of the mean's activations.

    Raises:
        ValueError: A number that is none; when training begins: no number of epochs to halve, an epoch that does not
            come, or running statistics without `statistics`.
        TypeError: When training begins: weights that are sharded over processes.

    Reference:
        Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018.

    Example:
        >>> import torch, pytorch_lightning as pl
        >>> from bc_lightning import MeanWeights
        >>> trainer = pl.Trainer(max_epochs=20, callbacks=[MeanWeights()], logger=False)
    """

    def __init__(self, first_epoch: int | None = None, *, statistics: Any = None) -> None:
        if first_epoch is not None:
            check_count(first_epoch, "first_epoch", 0)
        self.first_epoch, self.statistics = first_epoch, statistics
        # By name; and of how many epochs.
        self._mean: dict[str, Tensor] = {}
        self._counted = 0
        # Layers whose statistics the training moves, by name.
        self._moving: dict[str, _NormBase] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Begin anew; what a checkpoint says comes later."""
        if stage == "fit":
            self._mean, self._counted = {}, 0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse what could not be averaged, before an epoch is spent."""
        self._first(trainer)
        if self.statistics is None:
            for name, layer in _moving(pl_module).items():
                raise ValueError(says_no_statistics(name, type(layer).__name__))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take the weights in after the last batch of an epoch, before it is validated and saved."""
        if not trainer.is_last_batch or trainer.current_epoch < self._first(trainer):
            return
        self._counted += 1
        self._moving = _moving(pl_module)
        for name, now in pl_module.state_dict().items():
            self._mean[name] = _toward(self._mean.get(name), now, 1 / self._counted)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the module the mean."""
        if (said := says_not_averaged(self._counted, self._first(trainer))) is not None:
            rank_zero_warn(said)
            return
        pl_module.load_state_dict(self._mean)
        self._mean = {}
        if self._moving:
            nowhere = (None, None, None)
            reader = Reader(pl_module, pl_module, None, nowhere, reading_of(pl_module), None, None, None)
            precision = trainer.strategy.precision_plugin
            batches = map(precision.convert_input, _in_batches(self.statistics, BATCH_SIZE))
            with precision.forward_context():
                estimate(pl_module, self._moving.values(), batches, reader)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"mean": self._mean, "counted": self._counted}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the training that wrote it stood."""
        self._mean, self._counted = dict(state_dict["mean"]), state_dict["counted"]

    def _first(self, trainer: pl.Trainer) -> int:
        return first_of(self.first_epoch, trainer.max_epochs)


def _moving(module: nn.Module) -> dict[str, _NormBase]:
    """Layers whose running statistics the training moves; frozen ones are in eval mode."""
    return {name: layer for name, layer in layers_with_statistics(module).items() if layer.training}


def _toward(mean: Any, now: Any, share: float) -> Any:
    if isinstance(now, DTensor):
        raise TypeError("MeanWeights averages whole weights, and these are sharded over processes.")
    if not isinstance(now, Tensor) or not (now.is_floating_point() or now.is_complex()):
        return now.clone() if isinstance(now, Tensor) else now
    # Half precision would lose small steps.
    now = now.detach().to(torch.promote_types(now.dtype, torch.float32), copy=True)
    return now if mean is None else mean.to(now.device).lerp(now, share)
