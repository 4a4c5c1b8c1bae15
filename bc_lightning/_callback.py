"""`CompatibilityCallback`: what `BCLightningModule` does, with no change to the user's code."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from bc_lightning._module import BCLightningModule, unwrap


class CompatibilityCallback(pl.Callback):
    """Train and evaluate any LightningModule against h1, by adding one entry to ``Trainer(callbacks=[...])``.

    The module is wrapped when fit, validate or test begins, and is the user's own again when it ends.

    Args:
        h1: the reference, as in `BCLightningModule`.
        options: every other argument of `BCLightningModule`: ``loss``, ``lambda_c``, ``scores``, ...

    Raises:
        TypeError: an argument that `BCLightningModule` does not have (when fit begins).

    Example:
        >>> import torch, pytorch_lightning as pl
        >>> from bc_lightning import CompatibilityCallback
        >>> h1 = torch.nn.Linear(4, 3)
        >>> trainer = pl.Trainer(callbacks=[CompatibilityCallback(h1=h1, lambda_c=2.0)], logger=False)
    """

    def __init__(self, h1: Any, **options: Any) -> None:
        self.h1 = h1
        self.options = options

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Wrap the module."""
        if stage in ("fit", "validate", "test"):
            BCLightningModule(pl_module, self.h1, **self.options)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Make the module the user's own again."""
        unwrap(pl_module)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Also after a failure the module is the user's own again."""
        unwrap(pl_module)
