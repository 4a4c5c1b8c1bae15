"""`measure`: the invariance of every layer of a network, in one pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist

from bc_core.invariance import InvarianceResult, LayerMeasures, Moments, TransformSet
from bc_core.invariance._firing import firing_rates, firing_threshold, kept_for
from bc_lightning._random_numbers import random_numbers_kept
from bc_lightning.evaluation._evaluate import _evaluating
from bc_lightning.invariance._activations import LayerChoice
from bc_lightning.invariance._data import Rows, Where
from bc_lightning.invariance._passes import Network


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
            ``"lstm[0]"``, a part of an output), or a function of name and module that says whether to measure it.
            Default: every module, but for those that only hand on what another returned (containers, dropout,
            flatten); `InvarianceResult.left_out` names them.
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
    network = Network(module, transforms, layers, feature_axis, same_equivariance, max_memory, device, "module")
    identity = transforms.identity_index
    if firing_rate is not None:
        kept_for(firing_rate, 2)
        if identity is None or same_equivariance:
            raise ValueError(
                "firing_rate: needs the identity among the transformations, and invariance, not same-equivariance; use "
                "TransformSet.identity() | ..."
            )
    rows = Rows(data, _rows_of(batch_size, len(transforms)), inputs)
    with random_numbers_kept(), _evaluating(network.module):
        samples, found = _measured(network, rows, firing_rate is not None, distributed)
        if firing_rate is not None and identity is not None:
            rates = _firing(network, rows, {layer.name for layer in found}, firing_rate, samples, identity, distributed)
            found = [
                replace(layer, firing_local=rates[layer.name][0], firing_global=rates[layer.name][1]) for layer in found
            ]
        return network.result(found, firing_rate)


def _rows_of(batch_size: int, columns: int) -> int:
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size: expected a whole number of inputs >= 1, got {batch_size!r}")
    return max(1, batch_size // columns)


def _measured(network: Network, rows: Rows, again: bool, distributed: bool) -> tuple[int, list[LayerMeasures]]:
    """Number of samples, and the measures of the layers that all of them passed through."""
    found: list[LayerMeasures] = []
    samples = number = 0
    while True:
        pieces = iter(rows)
        if number == 0:
            first = next(pieces, None)
            if first is None and not distributed:
                raise ValueError("data: expected at least two samples, got none; look at the loader's data set")
            if first is not None:
                network.prepare(first[0])
                check_once_only(rows, len(network.groups) > 1 or again)
                pieces = chain([first], pieces)
            if distributed:
                _agree_on_layers(network)
        group = network.groups[number]
        seen = 0
        with network.passing(group) as run:
            for x, _ in pieces:
                run(network.tile(x), len(x))
                seen += len(x)
        if distributed:
            seen = sum(_gathered(seen))
        if number and seen != samples:
            raise ValueError(f"data: expected the same samples in each pass, got {samples}, then {seen}")
        samples = seen
        for layer in group:
            moments = network.moments(layer.name)
            if distributed:
                moments = _merged(_gathered(moments))
            # At once, since moments take as much memory as the sums they come from.
            measures = network.measures(layer, moments, samples)
            if measures is not None:
                found.append(measures)
        number += 1
        if number == len(network.groups):
            return samples, found


def check_once_only(rows: Rows, several: bool) -> None:
    """Refuse an iterator where data are gone through several times."""
    if several and rows.once_only:
        raise TypeError(
            "data: an iterator can be gone through only once, and this takes several passes (max_memory, firing_rate); "
            "pass a data loader or list(data)"
        )


def _firing(
    network: Network, rows: Rows, measured: set[str], rate: float, samples: int, identity: int, distributed: bool
) -> dict[str, Any]:
    firing = {}
    count = kept_for(rate, samples)
    others = len(network.transform_names) - 1
    for group in network.firing_groups(measured, count):
        kept: dict[str, Any] = network.largest(group, rows, count)
        if distributed:
            for layer in group:
                found = [part for part in _gathered(_on_host(kept.get(layer.name))) if part is not None]
                kept[layer.name] = torch.cat(found).topk(count, dim=0).values
        thresholds = {name: torch.from_numpy(firing_threshold(values.cpu().numpy())) for name, values in kept.items()}
        counts: dict[str, Any] = network.firing(group, rows, thresholds, identity)
        for layer in group:
            sums = [counts.get(layer.name)]
            if distributed:
                sums = _gathered(sums[0])
            known = [pair for pair in sums if pair is not None]
            local, fired = (sum(pair[part] for pair in known).numpy() for part in (0, 1))
            firing[layer.name] = firing_rates(local, fired, samples, others)
    return firing


def _on_host(tensor: Any) -> Any:
    return None if tensor is None else tensor.cpu()


def _gathered(value: Any) -> list[Any]:
    """What every process holds, in the order of ranks."""
    if not dist.is_available() or not dist.is_initialized():
        raise RuntimeError(
            "distributed=True needs torch.distributed.init_process_group, or a Trainer that has called it"
        )
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def _merged(shards: list[Moments | None]) -> Moments | None:
    total: Moments | None = None
    for shard in shards:
        if shard is not None:
            total = shard if total is None else total.merge(shard)
    return total


def _agree_on_layers(network: Network) -> None:
    """A process without data takes over what the others found, and takes part in every exchange."""
    found = _gathered((network.layers, network.groups, network.left_out))
    known = next((parts for parts in found if parts[0]), None)
    if known is None:
        raise ValueError("data: expected at least two samples, got none in any process; look at the loaders' data sets")
    if not network.layers:
        network.take_over(*known)
    if any(parts[0] and parts[0] != network.layers for parts in found):
        raise ValueError(
            "distributed: the processes found different layers; give all of them the same network and data"
        )
