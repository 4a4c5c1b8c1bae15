"""`measure`: the invariance of every layer of a network, in one pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist

from bc_core.invariance import InvarianceResult, TransformSet
from bc_core.invariance._layers import LayerChoice
from bc_core.invariance._measuring import alone, check_firing, measured
from bc_core.invariance._network import Measurement
from bc_core.invariance._rows import Where, rows_of
from bc_lightning._random_numbers import random_numbers_kept
from bc_lightning.invariance._network import TorchNetwork
from bc_lightning.invariance._rows import TorchRows
from bc_lightning.training.data._reader import evaluating


def measure(
    module: Any,
    data: Any,
    transforms: TransformSet,
    *,
    layers: LayerChoice | None = None,
    same_equivariance: bool = False,
    firing_rate: float | None = None,
    feature_axis: int | Mapping[str, int] | None = None,
    inputs: Where | None = None,
    device: str | torch.device | None = None,
    batch_size: int = 256,
    max_memory: int | None = None,
    distributed: bool = False,
) -> InvarianceResult:
    """Measure how much each layer's activations move when the inputs are transformed.

    Every sample is run under all transformations, in eval mode and without gradients, and the activations are summed up
    while the layers run: none is stored. Afterwards, also after an error, every part of the network is in the mode it
    was in, and no hook is left. Neither the order of the samples nor `batch_size` matters, but for the last digits.

    Args:
        module: The network, on any device; batches move to it. It is called with one tensor.
        data: Inputs (N, ...), a ``Dataset``, a data loader, or another iterable of batches: tensors, ``(x, y)``,
            ``(ids, x, y)``, or anything with `inputs`.
        transforms: The m >= 2 transformations. Those of images need inputs (N, C, H, W).
        layers: Names of modules (``"layer1.0.conv1"``) or activations (``"relu:2"``, the second call of ``relu``;
            ``"lstm[0]"``, a part of an output), modules themselves, or a function of name and module that says whether
            to measure it. Default: every module, but for those that only hand on what another returned (containers,
            dropout, flatten); `InvarianceResult.left_out` names them.
        same_equivariance: Measure T_j^-1 f(t_j x) of feature maps, instead of f(t_j x). Layers without the input's axes
            are left out, and all transformations need an inverse.
        firing_rate: Also gather what `Goodfellow` needs, with units firing for this share of the samples; takes another
            1 + 1 / m passes.
        feature_axis: Axis of the features in a layer's activation for one input, for all layers or by name. Default:
            the first; of activations with two axes the last, unless the network has one-dimensional convolutions or
            the like.
        inputs: Where the inputs are in a batch: a key, an index or a function.
        device: Where inputs go, for a network without weights.
        batch_size: Inputs at a time, transformed ones counted; at least all m of one sample.
        max_memory: Bytes that the sums may take on the device, about 20 m for each unit; with more layers than fit, the
            data are gone through several times. Default: one pass. Beside it there are the network's own memory, 48
            bytes for each unit of the result, and a copy of one layer's sums while they are read off.
        distributed: Merge with the other processes of the default group, each with its own share of the data. Every
            process then returns the same result, exactly that of all samples.

    Returns:
        The measures of every layer.

    Raises:
        TypeError: The module is none, or the data or inputs are of an unknown kind.
        ValueError: There are fewer than two samples or transformations, an activation is NaN or infinite (the message
            names the layer), a layer does not exist, or one alone exceeds `max_memory`.

    Example:
        >>> import torch
        >>> from bc_core.invariance import TransformSet
        >>> from bc_lightning.invariance import measure
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 1), torch.nn.ReLU(), torch.nn.AdaptiveMaxPool2d(1))
        >>> result = measure(net, torch.randn(20, 1, 8, 8), TransformSet.d4())
        >>> result.layer_names
        ('0', '1', '2')
        >>> result["2"].summary()  # the largest of 1 x 1 features does not change when pixels change places
        0.0
    """
    asked = Measurement(transforms, layers, feature_axis, same_equivariance, max_memory)
    network = TorchNetwork(module, "module", asked, device)
    check_firing(firing_rate, transforms, same_equivariance)
    rows = TorchRows(data, rows_of(batch_size, len(transforms)), inputs)
    with random_numbers_kept(), evaluating(network.module):
        return measured(network, rows, firing_rate, _gathered if distributed else alone)


def _gathered(value: Any) -> list[Any]:
    """What every process holds, in the order of ranks."""
    if not dist.is_available() or not dist.is_initialized():
        raise RuntimeError(
            "distributed=True needs torch.distributed.init_process_group, or a Trainer that has called it"
        )
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values
