"""Batches as the models get them in a Trainer: through the batch hooks of the module and of the data module."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

BATCH_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


def is_own_hook(owner: Any, hook: str) -> bool:
    """Whether a module or data module brings a hook of its own, and not Lightning's."""
    found = getattr(owner, hook, None)
    return found is not None and not str(getattr(found, "__module__", "")).endswith(".core.hooks")


def device_of(model: Any) -> torch.device:
    """Where a model is."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


class Hooked:
    """Batches as in the Trainer's own evaluation; a hook of the data module goes before the model's own.

    Args:
        loader: What brings them.
        trainer: The Trainer of the training, which hooks may ask.
        model: h2.
    """

    def __init__(self, loader: Any, trainer: Any, model: Any) -> None:
        self.loader = loader
        self.device = device_of(model)
        module = getattr(trainer, "datamodule", None)
        self.owners = {
            hook: module if module is not None and is_own_hook(module, hook) else model for hook in BATCH_HOOKS
        }
        for owner in {id(owner): owner for owner in self.owners.values()}.values():
            # Hooks ask `self.trainer.training`, which is over.
            if getattr(owner, "_trainer", trainer) is None:
                owner.trainer = trainer

    def __iter__(self) -> Iterator[Any]:
        before, move, after = (getattr(self.owners[hook], hook, None) for hook in BATCH_HOOKS)
        for brought in self.loader:
            given = before(brought, 0) if before else brought
            moved = move(given, self.device, 0) if move else given
            yield after(moved, 0) if after else moved
