"""`ProjectionCallback`: after each epoch h2 goes back towards h1 until a promise holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor

from bc_core._numbers import check_count
from bc_core.after_training._interpolating import check_projectable, project_by
from bc_core.after_training._walk import checked_alphas
from bc_core.counting._intervals import checked_confidence
from bc_core.promise._grammar import Promise
from bc_core.promise._verdict import PromiseVerdict
from bc_lightning._packages import Callback
from bc_lightning.after_training._mean_weights import averaging
from bc_lightning.after_training._mixture import Mixture
from bc_lightning.training._warm_start import weights_behind
from bc_lightning.training.promise._promise import told_by


class ProjectionCallback(Callback):
    """Move h2's weights back towards h1's, after each epoch, until a promise holds on validation data.

    At the end of an epoch's last training batch, so before its validation and checkpoints, h2 becomes
    ``alpha * h1 + (1 - alpha) * h2`` with the smallest alpha of the grid that keeps the promise, found by halving; the
    next epoch goes on from there. Moments of the optimiser stay. For a network of h1's architecture that was started
    from it (`warm_start`); works with any LightningModule, also one that `BCLightningModule` made.

    Logged as ``projected_alpha``; `verdict` holds the last epoch's promise on the data it was projected by. They choose
    alpha once an epoch, so the verdict flatters: judge a release on others. Under several processes every one reads all
    of `data` and finds the same.

    Args:
        h1: The model in use, a module of h2's architecture.
        data: Validation data, as in `evaluate`.
        promise: What is to be kept, such as ``"nfr <= 0.5%"``.
        alphas: Shares of h1. Default: 0, 0.05, ..., 1; 0 and 1 are added.
        statistics: Training data for running statistics, as in `interpolate`.
        every: After how many epochs; always when the training ends.
        confidence: Of the bounds.
        reading: How data are read, as in `interpolate`.

    Raises:
        TypeError: h1 has no weights, or the data are missing.
        ValueError: A promise, alphas or number that can't be; when training begins: what `interpolate` refuses, a
            promise that h1 itself does not keep for certain on these data, as then no step back would do, and a
            callback behind this one that ends the training with an average.

    Reference:
        Schumann et al., "Backward Compatibility During Data Updates by Weight Interpolation", EACL 2024, with a bound.

    Example:
        >>> import torch, pytorch_lightning as pl
        >>> from torch.utils.data import TensorDataset
        >>> from bc_lightning import ProjectionCallback
        >>> h1, data = torch.nn.Linear(4, 3), TensorDataset(torch.zeros(8, 4), torch.zeros(8, dtype=torch.long))
        >>> trainer = pl.Trainer(callbacks=[ProjectionCallback(h1, data, "nfr <= 50%")], logger=False)
    """

    def __init__(
        self,
        h1: Any,
        data: Any,
        promise: str | Iterable[str],
        *,
        alphas: Iterable[float] | None = None,
        statistics: Any = None,
        every: int = 1,
        confidence: float = 0.95,
        **reading: Any,
    ) -> None:
        weights_behind(h1, "h1")
        if data is None:
            raise TypeError(
                "data is missing: pass validation data that took no part in the training. Received: data=None."
            )
        check_count(every, "every")
        self.h1, self.data, self.statistics, self.every, self.reading = h1, data, statistics, every, reading
        self.promise, self.confidence = Promise.of(promise), checked_confidence(confidence)
        self.alphas = sorted({0.0, *checked_alphas(alphas), 1.0})
        self.verdict: PromiseVerdict | None = None
        self.history: list[float] = []
        # What tells the weights that it has left from others.
        self._left: Tensor | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse what could not be projected, before an epoch is spent."""
        callbacks = cast("Any", trainer).callbacks
        for other in averaging(callbacks[callbacks.index(self) :]):
            raise ValueError(
                f"{other} puts an average in the weights' place when the training ends, of which nobody would know "
                f"whether it keeps the promise: give it before, callbacks=[{other}(...), ProjectionCallback(...)]."
            )
        mixture = self._mixture(pl_module)
        mixture.check_statistics()
        check_projectable(mixture, self.promise, self.confidence)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After the last batch of an epoch, before it is validated and saved."""
        if trainer.is_last_batch and (trainer.current_epoch + 1) % self.every == 0:
            share = self._project(trainer, pl_module)
            pl_module.log("projected_alpha", share, on_step=False, on_epoch=True, batch_size=1)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After steps that no epoch's end came behind, another epoch than one of `every`, or an average."""
        if self._left is None or not torch.equal(self._left, cast("Tensor", told_by(pl_module))):
            self._project(trainer, pl_module)

    def _project(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> float:
        share, verdict = project_by(self._mixture(pl_module), self.alphas, self.promise, self.confidence)
        self.history.append(share)
        self.verdict = replace(verdict, looks=len(self.history))
        self._left = told_by(pl_module)
        return share

    def _mixture(self, pl_module: Any) -> Mixture:
        return Mixture(self.h1, pl_module, pl_module, self.data, self.statistics, self.reading)
