"""TorchScript; and whole pickled modules, for those who trust them."""

from __future__ import annotations

import zipfile
from typing import Any

import torch

from bc_core.predicting._adapter import Batch, BatchError, ModelSettings, Predictor
from bc_lightning.adapters._tensors import array_of, checked_device, to_tensor


class Module:
    """A module of one input, or of several that have names."""

    classes: tuple[str, ...] | None = None

    def __init__(self, model: str, module: Any, settings: ModelSettings) -> None:
        self._model, self._module, self._output = model, module, settings.output
        self._device = checked_device(settings.device)
        self._module.to(self._device)
        self._module.eval()
        weights = (each.dtype for each in (*module.parameters(), *module.buffers()) if each.is_floating_point())
        self._dtype = next(weights, torch.float32)

    def __call__(self, batch: Batch) -> Any:
        """Answer a batch.

        Raises:
            ValueError: The module does not take it.
        """
        given = batch if isinstance(batch, dict) else {"": batch}
        inputs = {name: to_tensor(a, self._dtype, self._device, self._model) for name, a in given.items()}
        try:
            with torch.inference_mode():
                output = self._module(**inputs) if isinstance(batch, dict) else self._module(inputs[""])
        except (RuntimeError, TypeError, IndexError) as error:
            raise BatchError(self._model, error, line=-1) from error
        return array_of(output, self._output, self._model)


def open_torchscript(model: str, settings: ModelSettings) -> Predictor:
    """Open a file of `torch.jit.save`.

    Raises:
        ValueError: It is damaged, or a pickle that is not trusted.
        OSError: It cannot be read.
    """
    if not _is_torchscript(model):
        if not settings.trust:
            raise ValueError(
                f"{model}: no TorchScript but a pickle, of a checkpoint or a module, which may run whatever is in it. "
                "Save the model by torch.export.save or torch.jit.save, or give a module:function that loads it; a "
                "pickled module is loaded by --trust"
            )
        return _unpickled(model, settings)
    try:
        module = torch.jit.load(model, map_location="cpu")  # type: ignore[no-untyped-call, unused-ignore]
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{model}: no TorchScript, or damaged ({str(error).strip().splitlines()[0]})") from error
    return Module(model, module, settings)


def _is_torchscript(model: str) -> bool:
    """Whether there is code of TorchScript, as `torch.jit.save` writes it beside the weights."""
    with open(model, "rb"):
        pass
    try:
        with zipfile.ZipFile(model) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return False
    return any("/code/" in name for name in names) and any(name.endswith("/constants.pkl") for name in names)


def _unpickled(model: str, settings: ModelSettings) -> Predictor:
    settings.say(f"{model}: unpickled, which runs whatever code is in it")
    try:
        module = torch.load(model, map_location="cpu", weights_only=False)
    except OSError:
        raise
    except Exception as error:
        raise ValueError(f"{model}: cannot be unpickled ({type(error).__name__}: {error})") from error
    if not isinstance(module, torch.nn.Module):
        raise ValueError(
            f"{model}: it holds {type(module).__name__}, weights without the module they are of; give a "
            "module:function that builds it and loads them"
        )
    return Module(model, module, settings)
