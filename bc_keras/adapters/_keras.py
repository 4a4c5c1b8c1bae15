"""Files of Keras, on whatever backend it runs."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from bc_core.predicting._adapter import Batch, BatchError, ModelSettings, Predictor, by_name, chosen_output


class _Model:
    classes: tuple[str, ...] | None = None

    def __init__(self, path: str, model: Any, settings: ModelSettings) -> None:
        self._path, self._model, self._output = path, model, settings.output
        self._dtypes = {each.name: str(each.dtype) for each in getattr(model, "inputs", None) or ()}

    def __call__(self, batch: Batch) -> Any:
        if not self._dtypes:
            raise ValueError(f"{self._path}: the model was never built, so that nobody knows its inputs")
        given = by_name(batch, list(self._dtypes), self._path)
        inputs = {name: np.asarray(value).astype(self._dtypes[name]) for name, value in given.items()}
        try:
            output = self._model.predict_on_batch(inputs if len(inputs) > 1 else next(iter(inputs.values())))
        except Exception as error:  # each backend has errors of its own
            raise BatchError(self._path, error) from error
        if isinstance(output, (list, tuple)):
            names = [getattr(each, "name", "").split("/")[0] for each in self._model.outputs]
            names = list(getattr(self._model, "output_names", names))
            output = dict(zip(names, output, strict=True))
        if isinstance(output, dict):
            output = chosen_output(output, self._output, self._path)
        return output


def open_keras(model: str, settings: ModelSettings) -> Predictor:
    """Open a `.keras` file, in safe mode: a Lambda layer, which holds code, is refused.

    Raises:
        ValueError: It is damaged, or holds such a layer and is not trusted.
        OSError: It cannot be read.
    """
    with open(model, "rb"):
        pass
    if settings.trust:
        settings.say(f"{model}: code of its Lambda layers runs, if it has such")
    try:
        opened = keras.saving.load_model(model, compile=False, safe_mode=not settings.trust)
    except Exception as error:
        told = " ".join(str(error).split())
        if "safe_mode" in told or "unsafe" in told:
            raise ValueError(
                f"{model}: a Lambda layer, which holds code; say --trust if you know who made it, or save the model "
                "with a layer of its own class in its place"
            ) from error
        hint = "; layers of one's own are found by --import MODULE" if "custom" in told or "locate" in told else ""
        raise ValueError(f"{model}: cannot be opened ({type(error).__name__}: {told[:200]}){hint}") from error
    return _Model(model, opened, settings)
