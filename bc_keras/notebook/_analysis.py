"""`CompatibilityAnalysis`: a sweep that is started from a notebook and shown in it."""

from __future__ import annotations

from typing import Any

import keras

from bc_core import Sweep, linear_lambdas
from bc_keras.losses._losses import BCCrossEntropyLoss, StrictImitationCrossEntropyLoss
from bc_keras.sweep._sweep import sweep
from bc_tensorboard.original import _manager, _widgets
from bc_tensorboard.original._manager import SweepArguments


class _Begins(SweepArguments):
    """Begins the sweep that the arguments of the original stand for."""

    def _begun(self, options: dict[str, Any]) -> Sweep:
        made = keras.optimizers.SGD if self.OptimizerClass is None else self.OptimizerClass
        if not isinstance(made, str):
            made = made(**(self.optimizer_kwargs or {}))
        elif self.optimizer_kwargs:
            made = keras.optimizers.get({"class_name": made, "config": dict(self.optimizer_kwargs)})
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
        return sweep(self.h2, self.h1, self.training_set, **{"test": self.test_set, **given, **options})


class SweepManager(_Begins, _manager.SweepManager):
    __doc__ = _manager.SweepManager.__doc__


class CompatibilityAnalysis(_Begins, _widgets.CompatibilityAnalysis):
    __doc__ = _widgets.CompatibilityAnalysis.__doc__
    _Manager = SweepManager
