"""TensorFlow's SavedModel."""

from __future__ import annotations

from typing import Any

import numpy as np

from bc_core.predicting._adapter import Batch, BatchError, ModelSettings, Predictor, by_name, chosen_output, in_pieces

_SIGNATURE = "serving_default"


class _SavedModel:
    classes: tuple[str, ...] | None = None

    def __init__(self, model: str, loaded: Any, function: Any, settings: ModelSettings) -> None:
        # The loaded object owns the weights of its functions.
        self._model, self._loaded, self._function, self._output = model, loaded, function, settings.output
        self._inputs = dict(function.structured_input_signature[1])

    def __call__(self, batch: Batch) -> Any:
        given = by_name(batch, list(self._inputs), self._model)
        inputs = {name: self._array(name, value) for name, value in given.items()}
        fixed = {spec.shape[0] for spec in self._inputs.values() if spec.shape.rank and spec.shape[0] is not None}
        return in_pieces(self._run, inputs, fixed.pop() if len(fixed) == 1 else None)

    def _array(self, name: str, value: Any) -> Any:
        spec = self._inputs[name]
        array = np.asarray(value, spec.dtype.as_numpy_dtype)
        return array[..., None] if spec.shape.rank == array.ndim + 1 and spec.shape[-1] == 1 else array

    def _run(self, inputs: dict[str, Any]) -> Any:
        import tensorflow as tf

        try:
            outputs = self._function(**{name: tf.constant(array) for name, array in inputs.items()})
        except (tf.errors.OpError, ValueError, TypeError) as error:
            raise BatchError(self._model, error) from error
        return chosen_output(outputs, self._output, self._model).numpy()


def open_saved_model(model: str, settings: ModelSettings) -> Predictor:
    """Open the folder of a SavedModel, by its signature `serving_default` or `--option signature=NAME`.

    Raises:
        ValueError: It is damaged, or has no such signature.
        ImportError: TensorFlow is not installed.
    """
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ImportError(f"{model}: a SavedModel is run by TensorFlow, which is not installed") from error
    settings.say(f"{model}: TensorFlow runs its graph, whose operators may read and write files")
    try:
        loaded = tf.saved_model.load(model)
    except Exception as error:
        told = " ".join(str(error).split())[:200]
        raise ValueError(f"{model}: no SavedModel, or damaged ({type(error).__name__}: {told})") from error
    signatures, wanted = dict(getattr(loaded, "signatures", {})), settings.options.get("signature", _SIGNATURE)
    if wanted not in signatures:
        raise ValueError(
            f"{model}: no signature {wanted!r}; it has {', '.join(signatures) or 'none'}: name one by --option "
            "signature=NAME"
        )
    return _SavedModel(model, loaded, signatures[wanted], settings)
