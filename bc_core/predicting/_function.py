"""`module:function`: the user's own function of a batch."""

from __future__ import annotations

from typing import Any

from bc_core._user_functions import imported
from bc_core.predicting._adapter import Batch, BatchError, ModelSettings, Predictor
from bc_core.reference._callable_fingerprint import fingerprint_of_callable


class _Function:
    def __init__(self, model: str, function: Any) -> None:
        self._model, self._function = model, function
        self.classes = getattr(function, "classes", None)
        self.fingerprint = fingerprint_of_callable(function, lambda value: None)

    def __call__(self, batch: Batch) -> Any:
        try:
            return self._function(batch)
        except Exception as error:
            raise BatchError(self._model, error) from error


def open_function(model: str, settings: ModelSettings) -> Predictor:
    """Import a function, which is given each batch.

    Raises:
        ValueError: There is none.
    """
    settings.say(f"{model} is imported and called: what is in that module runs")
    return _Function(model, imported(model, "MODEL"))
