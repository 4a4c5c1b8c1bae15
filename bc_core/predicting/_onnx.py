"""ONNX, run by onnxruntime on the processor; a graph of known operators, no code of the model's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core.predicting._adapter import Batch, BatchError, ModelSettings, Predictor, by_name, chosen_output, in_pieces

_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
    "tensor(string)": object,
}


class _Onnx:
    classes: tuple[str, ...] | None = None

    def __init__(self, session: Any, model: str, settings: ModelSettings) -> None:
        self._session, self._model = session, model
        self._inputs = {each.name: each for each in session.get_inputs()}
        names = [each.name for each in session.get_outputs()]
        self._output = settings.output
        if self._output is None and len(names) == 2 and "label" in names[0]:
            # What converters of scikit-learn write: labels, and then their probabilities.
            self._output = names[0] if settings.labels else names[1]
        self._names = names

    def __call__(self, batch: Batch) -> Any:
        given = by_name(batch, list(self._inputs), self._model)
        sizes = {each.shape[0] for each in self._inputs.values() if each.shape and isinstance(each.shape[0], int)}
        inputs = {name: self._array(name, value) for name, value in given.items()}
        if len(sizes) == 1:
            return in_pieces(self._run, inputs, sizes.pop())
        return self._run(inputs)

    def _run(self, inputs: dict[str, NDArray[Any]]) -> Any:
        try:
            found = self._session.run(None, inputs)
        except Exception as error:  # its errors have no class of their own in common
            raise BatchError(self._model, error) from error
        output = chosen_output(dict(zip(self._names, found, strict=True)), self._output, self._model)
        if isinstance(output, list) and output and isinstance(output[0], dict):
            self.classes = tuple(map(str, output[0]))
            return np.asarray([[row[label] for label in output[0]] for row in output])
        return output

    def _array(self, name: str, value: Any) -> NDArray[Any]:
        wanted = self._inputs[name]
        if wanted.type not in _TYPES:
            raise ValueError(f"{self._model}: input {name!r} is of {wanted.type}, which no column gives")
        array: NDArray[Any] = np.asarray(value, _TYPES[wanted.type])
        if array.ndim + 1 == len(wanted.shape) and wanted.shape[-1] in (1, None):
            array = array[..., None]
        return array


def open_onnx(model: str, settings: ModelSettings) -> Predictor:
    """Open an ONNX file.

    Raises:
        ValueError: It is damaged, or of operators that are not known.
        ImportError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(f"{model}: ONNX is run by onnxruntime: pip install 'backward-compat-ml[predict]'") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    if settings.device not in (None, "cpu"):
        wanted = f"{settings.device}ExecutionProvider".lower()
        found = [name for name in onnxruntime.get_available_providers() if name.lower() == wanted]
        if not found:
            raise ValueError(
                f"--device {settings.device}: this onnxruntime has {onnxruntime.get_available_providers()}"
            )
        providers = [*found, *providers]
    try:
        session = onnxruntime.InferenceSession(str(Path(model)), options, providers=providers)
    except Exception as error:
        raise ValueError(f"{model}: no ONNX model, or a damaged one ({str(error).strip().splitlines()[0]})") from error
    return _Onnx(session, model, settings)
