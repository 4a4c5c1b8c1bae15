"""What `measure` does, in which order: passes over the data, layers read off, firing rates; on any framework."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import reduce
from itertools import chain
from typing import Any

from bc_core.invariance._accumulator import Moments
from bc_core.invariance._firing import NumpyFiring, firing_rates, firing_threshold, kept_for
from bc_core.invariance._layer_measures import LayerMeasures
from bc_core.invariance._layers import Layer
from bc_core.invariance._network import Network, measures_of
from bc_core.invariance._result import InvarianceResult
from bc_core.invariance._rows import Piece, Rows
from bc_core.invariance._transform_set import TransformSet

# What every process holds, in the order of ranks.
Gathered = Callable[[Any], list[Any]]


def alone(value: Any) -> list[Any]:
    """`Gathered` of a single process."""
    return [value]


def check_firing(firing_rate: float | None, transforms: TransformSet, same_equivariance: bool) -> None:
    """Refuse to count what cannot be counted.

    Raises:
        ValueError: If the rate is no share, or there is no identity to fire for.
    """
    if firing_rate is None:
        return
    kept_for(firing_rate, 2)
    if transforms.identity_index is None or same_equivariance:
        raise ValueError(
            "firing_rate: needs the identity among the transformations, and invariance, not same-equivariance; use "
            f"TransformSet.identity() | ..., got {transforms!r}, same_equivariance={same_equivariance}"
        )


def measured(
    network: Network, rows: Rows, firing_rate: float | None = None, gathered: Gathered = alone
) -> InvarianceResult:
    """The measures of every layer.

    Args:
        network: The network.
        rows: The data; of several processes, this one's.
        firing_rate: Also count how often units fire that fire for this share of the samples.
        gathered: How processes exchange what they hold.

    Raises:
        TypeError: If data can be gone through only once, and that is not enough.
        ValueError: If there is no sample, or another pass brought another number of them.
    """
    found, samples = measures_in(network, rows, firing_rate is not None, gathered)
    if firing_rate is not None:
        rates = _firing(network, rows, {layer.name for layer in found}, firing_rate, samples, gathered)
        found = [replace(layer, **rates[layer.name]) for layer in found]
    return network.result(found, firing_rate)


def measures_in(
    network: Network, rows: Rows, again: bool = False, gathered: Gathered = alone
) -> tuple[list[LayerMeasures], int]:
    """The measures of every layer that all samples passed through, and the number of samples; as `passes`."""
    found: list[LayerMeasures] = []
    samples = 0
    for layer, samples, moments in passes(network, rows, again, gathered):
        found += measures_of(layer, moments, samples, network.left_out)
    return found, samples


def passes(
    network: Network, rows: Rows, again: bool = False, gathered: Gathered = alone
) -> Iterator[tuple[Layer, int, Moments | None]]:
    """Pass over the data once for each group of layers; yields each layer, the number of samples, and its moments.

    One at a time, since moments take as much memory as the sums they come from.

    Args:
        network: The network.
        rows: The data.
        again: Whether they will be gone through once more.
        gathered: How processes exchange what they hold.
    """
    network.forget()
    pieces = opened([network], rows, again, gathered)
    samples = 0
    for number, group in enumerate(network.groups):
        seen = 0
        with network.passing(group) as run:
            for piece in pieces if number == 0 else rows:
                run(piece)
                seen += piece.rows
        seen = sum(gathered(seen))
        check_samples(samples, seen, number)
        samples = seen
        for layer in group:
            shards = [shard for shard in gathered(network.moments(layer.name)) if shard is not None]
            yield layer, samples, reduce(Moments.merge, shards) if shards else None


def opened(networks: Sequence[Network], rows: Rows, again: bool, gathered: Gathered = alone) -> Iterator[Piece]:
    """All samples, after the layers were found by the first of them."""
    pieces = iter(rows)
    first = next(pieces, None)
    for network in networks:
        network.expected = rows.samples
        if first is not None:
            network.prepare(first)
        _agree_on_layers(network, first, gathered)
    if rows.once_only and (again or any(len(network.groups) > 1 for network in networks)):
        raise TypeError(
            "data: an iterator can be gone through only once, and this takes several passes (max_memory, firing_rate); "
            "pass a data set, a data loader or list(data)"
        )
    return pieces if first is None else chain([first], pieces)


def _agree_on_layers(network: Network, first: Piece | None, gathered: Gathered) -> None:
    """A process without data takes over what the others found, and takes part in every exchange."""
    found = gathered(None if first is None else (network.layers, network.left_out))
    known = [parts for parts in found if parts is not None]
    if not known:
        raise ValueError("data: expected at least two samples, got none; look at the data set")
    if first is None:
        network.take_over(*known[0])
    if any(layers != network.layers for layers, _ in known):
        raise ValueError(
            "distributed: the processes found different layers; give all of them the same network and data"
        )


def check_samples(before: int, seen: int, number: int) -> None:
    """Refuse data that bring other numbers of samples in another pass."""
    if number and seen != before:
        raise ValueError(f"data: expected the same samples in each pass, got {before}, then {seen}")


def _firing(
    network: Network, rows: Rows, measured: set[str], rate: float, samples: int, gathered: Gathered
) -> dict[str, dict[str, Any]]:
    identity = network.transforms.identity_index
    assert identity is not None  # as check_firing found
    firing = {}
    count = kept_for(rate, samples)
    for group in network.firing_groups(measured, count):
        kept = network.largest(group, rows, count, identity)
        thresholds = {}
        for layer in group:
            shards = [shard for shard in gathered(kept.pop(layer.name, None)) if shard is not None]
            largest = reduce(lambda a, b: NumpyFiring().largest(a, b, count), shards)
            thresholds[layer.name] = firing_threshold(largest)
        counts = network.firing(group, rows, thresholds, identity)
        for layer in group:
            shards = [shard for shard in gathered(counts.get(layer.name)) if shard is not None]
            local, fired = (sum(parts) for parts in zip(*shards, strict=True))
            rates = firing_rates(local, fired, samples, len(network.transforms) - 1)
            firing[layer.name] = dict(zip(("firing_local", "firing_global"), rates, strict=True))
    return firing
