"""Programs of `torch.export`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from bc_core.predicting._adapter import Batch, BatchError, ModelSettings, Predictor, by_name, in_pieces
from bc_lightning.adapters._tensors import array_of, checked_device, to_tensor

_ONLY_WEIGHTS = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


class _Exported:
    classes: tuple[str, ...] | None = None

    def __init__(self, model: str, program: Any, settings: ModelSettings) -> None:
        self._model, self._output = model, settings.output
        self._device = checked_device(settings.device)
        self._module = program.module().to(self._device)
        wanted = set(program.graph_signature.user_inputs)
        nodes = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in wanted]
        self._inputs = {node.name: node.meta["val"] for node in nodes if hasattr(node.meta.get("val"), "dtype")}

    def __call__(self, batch: Batch) -> Any:
        given = by_name(batch, list(self._inputs), self._model)
        arrays = {
            name: to_tensor(value, None, None, self._model).to(self._inputs[name].dtype).numpy()
            for name, value in given.items()
        }
        sizes = {each.shape[0] for each in self._inputs.values() if each.ndim and isinstance(each.shape[0], int)}
        return in_pieces(self._run, arrays, sizes.pop() if len(sizes) == 1 else None)

    def _run(self, arrays: dict[str, Any]) -> Any:
        inputs = [torch.from_numpy(arrays[name]).to(self._device) for name in self._inputs]
        try:
            with torch.inference_mode():
                output = self._module(*inputs)
        except (RuntimeError, TypeError, AssertionError) as error:
            raise BatchError(self._model, error, line=0) from error
        return array_of(output, self._output, self._model)


def open_exported(model: str, settings: ModelSettings) -> Predictor:
    """Open a file of `torch.export.save`.

    Raises:
        ValueError: It is damaged, or holds a pickle that is not trusted.
        OSError: It cannot be read.
    """
    with open(model, "rb"):
        pass
    settings.say(f"{model}: torch makes Python of its graph and runs it; open only what you know who made")
    try:
        with _weights_only(not settings.trust):
            program = torch.export.load(model)
    except OSError:
        raise
    except Exception as error:
        # Whatever is wrong in there has an error of its own, from zipfile to KeyError.
        told = " ".join(str(error).split())[:200]
        hint = "" if settings.trust else "; if it holds a pickle and you know who made it, --trust"
        raise ValueError(
            f"{model}: no program of torch.export, or damaged ({type(error).__name__}: {told}){hint}"
        ) from error
    return _Exported(model, program, settings)


@contextmanager
def _weights_only(wanted: bool) -> Iterator[None]:
    """Have torch load weights and no other pickles: it would try the second where the first fails."""
    before, log = os.environ.get(_ONLY_WEIGHTS), logging.getLogger("torch.export")
    level = log.level
    if wanted:
        os.environ[_ONLY_WEIGHTS] = "1"
        log.setLevel(logging.ERROR)  # it would tell of the pickle by a traceback
    try:
        yield
    finally:
        log.setLevel(level)
        if before is None:
            os.environ.pop(_ONLY_WEIGHTS, None)
        else:
            os.environ[_ONLY_WEIGHTS] = before
