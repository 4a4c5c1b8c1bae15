"""`CompatibilityAnalysis`: a sweep that is started from a notebook and shown in it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from bc_core import Sweep, linear_lambdas
from bc_core._arrays import id_array
from bc_keras._losses import BCCrossEntropyLoss, StrictImitationCrossEntropyLoss
from bc_keras._sweep import sweep
from bc_tensorboard import _original_manager, _original_widgets
from bc_tensorboard._original_manager import SweepArguments


class _Begins(SweepArguments):
    """Begins the sweep that the arguments of the original stand for."""

    def _begun(self, options: dict[str, Any]) -> Sweep:
        made = keras.optimizers.SGD if self.OptimizerClass is None else self.OptimizerClass
        if not isinstance(made, str):
            made = made(**(self.optimizer_kwargs or {}))
        elif self.optimizer_kwargs:
            made = keras.optimizers.get({"class_name": made, "config": dict(self.optimizer_kwargs)})
        train, ids = _arrays_of(self.training_set)
        named = {} if ids is None else {"train": ids}
        given: dict[str, Any] = {
            "folder": self.folder_name,
            "lambdas": linear_lambdas(self.lambda_c_stepsize),
            "losses": self._losses(BCCrossEntropyLoss, StrictImitationCrossEntropyLoss),
            "compile": {"optimizer": made, "loss": None},
            "fit": {"epochs": self.number_of_epochs, "batch_size": self.batch_size_train},
            "performance_metric": self.performance_metric,
            "metadata": self.get_instance_metadata,
            "mlflow": self._mlflow(),
        }
        if self.test_set is not None:
            given["test"], ids = _arrays_of(self.test_set)
            named |= {} if ids is None else {"test": ids}
        return sweep(self.h2, self.h1, train, **{**given, "ids": named or None, **options})


class SweepManager(_Begins, _original_manager.SweepManager):
    __doc__ = _original_manager.SweepManager.__doc__


class CompatibilityAnalysis(_Begins, _original_widgets.CompatibilityAnalysis):
    __doc__ = _original_widgets.CompatibilityAnalysis.__doc__
    _Manager = SweepManager


def _arrays_of(data: Any) -> tuple[Any, list[Any] | None]:
    """Arrays of what the original took, batches ``(ids, x, y)`` in a list, and the ids; other data as they are."""
    if not isinstance(data, list) or not data or not all(isinstance(batch, list | tuple) for batch in data):
        return data, None
    if {len(batch) for batch in data} == {3}:
        ids = [instance for batch in data for instance in id_array(batch[0], "ids").tolist()]
        return tuple(np.concatenate([np.asarray(batch[part]) for batch in data]) for part in (1, 2)), ids
    if {len(batch) for batch in data} == {2}:
        return tuple(np.concatenate([np.asarray(batch[part]) for batch in data]) for part in (0, 1)), None
    return data, None
