"""Running statistics of a network whose weights were mixed: BatchNorm's are of neither model's activations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from bc_lightning.training.data._reader import Reader, evaluating


def layers_with_statistics(module: nn.Module) -> dict[str, _NormBase]:
    """The layers that keep running statistics, by name."""
    return {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, _NormBase) and layer.running_mean is not None
    }


def estimate(module: nn.Module, layers: Iterable[_NormBase], data: Iterable[Any], reader: Reader) -> None:
    """Estimate running statistics anew, as the mean over the batches of one pass.

    As `torch.optim.swa_utils.update_bn`, but dropout stays off, as it is where the network serves, and layers that the
    pass does not reach (a head of the training's alone, a teacher beside the network) keep what they have.

    Args:
        module: The network.
        layers: Those of its layers whose statistics are estimated.
        data: Training data, of which labels are not read.
        reader: How batches are read, and the network asked.

    Raises:
        ValueError: There is no batch.
    """
    layers = list(layers)
    momenta = [layer.momentum for layer in layers]
    kept = [[tensor.clone() for tensor in layer.buffers(recurse=False)] for layer in layers]
    batches = 0
    with evaluating(module):
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # torch's word for the plain mean over all batches
            layer.training = True
        try:
            for batch in data:
                reader.ask_h2(batch)
                batches += 1
        finally:
            for layer, momentum, before in zip(layers, momenta, kept, strict=True):
                layer.momentum = momentum
                if not layer.num_batches_tracked:
                    for tensor, value in zip(layer.buffers(recurse=False), before, strict=True):
                        tensor.copy_(value)
    if not batches:
        raise ValueError(
            "statistics must hold at least one batch of training inputs, as running statistics are estimated from "
            "them. Received: none; an iterator that was read already gives none either, so pass a data loader."
        )
    for name, layer in layers_with_statistics(module).items():
        if not bool(torch.isfinite(layer.running_var).all()):  # type: ignore[arg-type]
            raise ValueError(
                f"The running statistics of {name!r} are not finite after a pass over statistics: look for inputs that "
                "are NaN, or a batch of one instance."
            )
