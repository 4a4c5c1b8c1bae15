"""`CompatibilityAnalysis`: a sweep that is started from a notebook and shown in it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from bc_core import Sweep, linear_lambdas
from bc_lightning.losses._losses import BCCrossEntropyLoss, StrictImitationCrossEntropyLoss
from bc_lightning.reference._modules import copied
from bc_lightning.sweep._data import check_ids
from bc_lightning.sweep._sweep import sweep
from bc_tensorboard.original import _manager, _widgets
from bc_tensorboard.original._manager import SweepArguments


class _Begins(SweepArguments):
    """Begins the sweep that the arguments of the original stand for."""

    def _begun(self, options: dict[str, Any]) -> Sweep:
        made = self.OptimizerClass
        if made is None and isinstance(self.h2, torch.nn.Module) and not hasattr(self.h2, "configure_optimizers"):
            made = torch.optim.SGD
        if made is not None and self.optimizer_kwargs:
            made = functools.partial(made, **self.optimizer_kwargs)
        device = None if self.device is None else torch.device(self.device)
        kind = "auto" if device is None else "gpu" if device.type == "cuda" else device.type
        on: dict[str, Any] = {"accelerator": kind}
        if device is not None and device.index is not None:
            on["devices"] = [device.index]
        train, places = _loader_of(self.training_set, "training_set")
        test = None if self.test_set is None else _loader_of(self.test_set, "test_set")[0]
        given: dict[str, Any] = {
            "test": test,
            "folder": self.folder_name,
            "lambdas": linear_lambdas(self.lambda_c_stepsize),
            "losses": self._losses(BCCrossEntropyLoss, StrictImitationCrossEntropyLoss),
            "trainer": {"max_epochs": self.number_of_epochs, **on},
            "optimizer": made,
            "performance_metric": self.performance_metric,
            "metadata": self.get_instance_metadata,
            "mlflow": self._mlflow(),
            **places,
            **options,
        }
        h2 = self.h2
        if isinstance(h2, torch.nn.Module) and not hasattr(h2, "configure_optimizers"):
            # The original's loop put it into train mode; it may be a copy of an h1 that was put into eval mode.
            h2 = copied(h2).train()
        return sweep(h2, self.h1, train, **given)


class SweepManager(_Begins, _manager.SweepManager):
    __doc__ = _manager.SweepManager.__doc__


class CompatibilityAnalysis(_Begins, _widgets.CompatibilityAnalysis):
    __doc__ = _widgets.CompatibilityAnalysis.__doc__
    _Manager = SweepManager


class _Instances(Dataset[tuple[Any, ...]]):
    """The instances of batches in a list, one by one."""

    def __init__(self, batches: Sequence[Any]) -> None:
        self.batches = batches
        self.places = [(batch, row) for batch in range(len(batches)) for row in range(len(batches[batch][-1]))]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        batch, row = self.places[index]
        return tuple(part[row] for part in self.batches[batch])


def _loader_of(data: Any, name: str) -> tuple[Any, dict[str, Any]]:
    """A data loader of what the original took, and where ids, inputs and target are in its batches."""
    if isinstance(data, (list, tuple)) and data:
        if all(isinstance(batch, (list, tuple)) and len(batch) == 3 for batch in data):
            # Before a training that would end with them.
            check_ids(data, 0, f"ids of {name}")
        sizes = [len(batch[-1]) for batch in data]
        # Instances that are read one by one let h1's outputs be kept for the whole sweep.
        if len(set(sizes[:-1])) <= 1 and sizes[-1] <= sizes[0]:
            data = DataLoader(_Instances(data), batch_size=sizes[0])
    first = next(iter(data), None)
    if first is None:
        raise ValueError(f"{name}: expected at least one batch, got none")
    of_three = isinstance(first, (list, tuple)) and len(first) == 3
    return data, {"ids": 0, "inputs": 1, "target": 2} if of_three else {}
