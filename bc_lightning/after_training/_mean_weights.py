"""`MeanWeights`: a training ends with the mean of its later weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _NormBase

from bc_core._numbers import check_count
from bc_core.after_training._mean_weights import (
    first_of,
    says_begun_late,
    says_no_statistics,
    says_not_averaged,
    says_not_estimated,
)
from bc_lightning._packages import Callback
from bc_lightning._random_numbers import random_numbers_kept
from bc_lightning.after_training._made_weights import make_anew, singular_vectors
from bc_lightning.after_training._statistics import estimate, layers_with_statistics
from bc_lightning.evaluation._evaluate import _in_batches
from bc_lightning.training.data._reader import BATCH_SIZE, Reader, evaluating, reading_of


class MeanWeights(Callback):
    """End a training with the mean of the weights after each epoch of its later half (stochastic weight averaging).

    The last weights of a training carry the noise of its last batches, and that noise is flips. The training itself is
    not touched: steps, validation and checkpoints are of the weights as they move, and when it ends the module has
    their mean, and a spectral norm is that of the mean. Checkpoints hold the mean so far beside them, so a resumed
    training ends with the same; one that is resumed for more epochs averages over the later half of all of them. Works
    with any LightningModule, also one that `BCLightningModule` made. Buffers other than running statistics and the
    vectors of a spectral norm stay as the last epoch has left them.

    Args:
        first_epoch: The first epoch, from 0 on, whose weights count. By default that of the later half.
        statistics: Training data for running statistics (BatchNorm's), as in `interpolate`: those of the trained
            networks are not of the mean's activations. One batch is read before the first epoch, to see that it can be.
        inputs: Where the network's input is in a batch of these, as in `evaluate`.

    Raises:
        ValueError: A number that is none; when training begins: no number of epochs to halve, an epoch that does not
            come, running statistics without `statistics` or with such as cannot be read, or a callback of Lightning's
            that ends it with an average of its own. While it trains: parameters that come or go. Statistics that
            cannot be estimated when the training ends are a warning, and the module keeps its last weights.
        TypeError: When training begins: weights that are sharded over processes.

    Reference:
        Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018.

    Example:
        >>> import torch, pytorch_lightning as pl
        >>> from bc_lightning import MeanWeights
        >>> trainer = pl.Trainer(max_epochs=20, callbacks=[MeanWeights()], logger=False)
    """

    def __init__(
        self,
        first_epoch: int | None = None,
        *,
        statistics: Any = None,
        inputs: str | int | Callable[[Any], Any] | None = None,
    ) -> None:
        if first_epoch is not None:
            check_count(first_epoch, "first_epoch", 0)
        self.first_epoch, self.statistics, self.inputs = first_epoch, statistics, inputs
        self._forget()
        # Layers whose statistics the training moves, by name.
        self._moving: dict[str, _NormBase] = {}

    def _forget(self) -> None:
        # By name; of how many epochs, and since which.
        self._mean: dict[str, Tensor] = {}
        self._counted = 0
        self._since: int | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Begin anew; what a checkpoint says comes later."""
        if stage == "fit":
            self._forget()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse what could not be averaged, before an epoch is spent."""
        if self._since is not None and self._since < self._first(trainer):
            # Resumed for more epochs, of which these are no later half.
            self._forget()
        for other in averaging(each for each in cast("Any", trainer).callbacks if each is not self):
            raise ValueError(
                f"MeanWeights and {other} each end the training with an average of their own, and whichever comes last "
                f"has its way: leave one of them out."
            )
        moving = _moving(pl_module)
        self._check_statistics(moving)
        if moving and not hasattr(self.statistics, "__next__"):
            with random_numbers_kept(), evaluating(pl_module), self._read(trainer, pl_module) as (reader, batches):
                for batch in itertools.islice(batches, 1):
                    reader.ask_h2(batch)

    @contextmanager
    def _read(self, trainer: pl.Trainer, module: nn.Module) -> Iterator[tuple[Reader, Iterator[Any]]]:
        """What asks the network about the batches of `statistics`, in the training's precision."""
        places = (None, self.inputs, None)
        reader = Reader(module, module, None, places, reading_of(module), None, None, None)
        precision = trainer.strategy.precision_plugin
        with precision.forward_context():
            yield reader, map(precision.convert_input, _in_batches(self.statistics, BATCH_SIZE))

    def _check_statistics(self, layers: dict[str, _NormBase]) -> None:
        if self.statistics is None:
            for name, layer in layers.items():
                raise ValueError(says_no_statistics(name, type(layer).__name__))

    def _check_same(self, module: nn.Module) -> None:
        changed = set(self._mean) ^ {name for name, _ in module.named_parameters()}
        if self._counted > 1 and self._mean and changed:
            raise ValueError(
                f"h2's parameters are others than in epoch {self._since}, from which on they are averaged, as where "
                f"layers are pruned or parametrized while it trains: average from an epoch on since which they stay, "
                f"MeanWeights(first_epoch=...), and put a callback that makes others when the training ends behind "
                f"MeanWeights. Received: {min(changed)!r} in one of them alone."
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take the weights in after the last batch of an epoch, before it is validated and saved."""
        if not trainer.is_last_batch or trainer.current_epoch < self._first(trainer):
            return
        self._moving = _moving(pl_module)
        # Some begin to move late, as where layers are unfrozen.
        self._check_statistics(self._moving)
        self._counted += 1
        self._since = trainer.current_epoch if self._since is None else self._since
        self._check_same(pl_module)
        for name, now in pl_module.named_parameters():
            self._mean[name] = _toward(self._mean.get(name), now, 1 / self._counted)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the module the mean."""
        first = self._first(trainer)
        if (said := says_not_averaged(self._counted, first)) is not None:
            rank_zero_warn(said)
            return
        if (said := says_begun_late(first, self._since, self._counted)) is not None:
            rank_zero_warn(said)
        self._check_same(pl_module)
        last = {name: tensor.detach().clone() for name, tensor in _state(pl_module)} if self._moving else {}
        with torch.no_grad():
            for name, now in pl_module.named_parameters():
                now.copy_(self._mean[name])
            buffers = dict(pl_module.named_buffers())
            for each in singular_vectors(pl_module):
                each.estimate(buffers[name] for name in each.names)
            make_anew(pl_module)
        # A checkpoint that is written from here on has the mean for its weights.
        self._forget()
        if self._moving:
            try:
                with self._read(trainer, pl_module) as (reader, batches):
                    estimate(pl_module, self._moving.values(), batches, reader)
            except Exception as error:
                # The training is over, and all of it would be lost.
                with torch.no_grad():
                    for name, tensor in _state(pl_module):
                        tensor.copy_(last[name])
                    make_anew(pl_module)
                rank_zero_warn(says_not_estimated(error))

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Do it also where a training was resumed that had ended, of which Lightning says no end."""
        if self._counted:
            self.on_train_end(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"mean": self._mean, "counted": self._counted, "since": self._since}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the training that wrote it stood."""
        self._mean, self._counted = dict(state_dict["mean"]), state_dict["counted"]
        # A checkpoint of before has none.
        self._since = state_dict.get("since")

    def _first(self, trainer: pl.Trainer) -> int:
        # Of a trial run that is not asked which epochs it has.
        return 0 if cast("Any", trainer).fast_dev_run else first_of(self.first_epoch, trainer.max_epochs)


def averaging(callbacks: Iterable[Any]) -> Iterator[str]:
    """What those are called that put an average in the weights' place when a training ends: ours and Lightning's."""
    known = {MeanWeights.__name__, "StochasticWeightAveraging", "WeightAveraging"}
    for callback in callbacks:
        # By name, as there are two packages of Lightning.
        if known & {kind.__name__ for kind in type(callback).__mro__}:
            yield type(callback).__name__


def _state(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


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
