"""The passes of one network over tiles of data, layers split so that what is gathered fits into memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from bc_core.invariance import (
    InvarianceResult,
    LayerMeasures,
    Moments,
    Probes,
    StreamingMoments,
    TransformSet,
    accumulator_bytes,
    invert_tile,
    make_tile,
)
from bc_core.invariance._accumulator import in_groups
from bc_lightning.invariance._activations import Hooks, Layer, LayerChoice, find_layers
from bc_lightning.invariance._torch_arrays import TorchBackend, TorchSpatial


class _EnoughError(BaseException):
    """All layers of a pass were seen: what comes behind them need not be computed.

    No `Exception`, which a network might handle itself.
    """


class Network:
    """One network whose layers are measured.

    Args:
        module: The network.
        transforms: The m transformations.
        layers: Which layers.
        feature_axis: Where features are.
        same_equivariance: Whether feature maps are turned back before they are compared.
        max_memory: Bytes of accumulators at a time; None for all layers in one pass.
        device: Where inputs go if the network has no weights.
        called: What the caller calls it, for errors.
    """

    def __init__(
        self,
        module: Any,
        transforms: TransformSet,
        layers: LayerChoice | None,
        feature_axis: int | Mapping[str, int] | None,
        same_equivariance: bool,
        max_memory: int | None,
        device: str | torch.device | None,
        called: str,
    ) -> None:
        module = getattr(module, "_orig_mod", module)  # of torch.compile, which runs no hooks of what is inside
        if not isinstance(module, nn.Module):
            raise TypeError(
                f"{called}: expected a torch.nn.Module, whose layers are watched, got {type(module).__name__}"
            )
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(
                f"{called}: a scripted module cannot be watched while it runs; pass the module that it was made of"
            )
        if not isinstance(transforms, TransformSet):
            raise TypeError(f"transforms: expected a TransformSet, got {type(transforms).__name__}")
        if same_equivariance:
            for transform in transforms:
                _ = transform.inverse  # says which one has none
        if max_memory is not None and max_memory < 1:
            raise ValueError(f"max_memory: expected a number of bytes above 0, got {max_memory!r}")
        StreamingMoments(len(transforms))  # refuses fewer than two
        weight = next(chain(module.parameters(), module.buffers()), None)
        self.module, self._transforms = module, transforms
        self._device = weight.device if weight is not None else None if device is None else torch.device(device)
        self._dtype = next((w.dtype for w in module.parameters() if w.is_floating_point()), None)
        self._chosen, self._feature_axis = layers, feature_axis
        self._turned_back, self._max_memory = same_equivariance, max_memory
        self._backend, self._spatial = TorchBackend(), TorchSpatial()
        self._input_size: tuple[int, int] | None = None
        self._watched: dict[str, set[str]] = {}
        self._moments: dict[str, StreamingMoments] = {}
        self.layers: list[Layer] = []
        self.groups: list[list[Layer]] = []
        self.left_out: dict[str, str] = {}
        self.probes: Probes | None = None

    @property
    def device(self) -> torch.device | None:
        """Where its inputs go; None: where they are."""
        return self._device

    @property
    def transform_names(self) -> tuple[str, ...]:
        """Names of the m transformations."""
        return self._transforms.names

    def take_over(self, layers: list[Layer], groups: list[list[Layer]], left_out: dict[str, str]) -> None:
        """Take over what another process found, here without data."""
        self.layers, self.groups, self.left_out = layers, groups, left_out
        self._watched = {layer.name: set() for layer in layers}

    def tile(self, x: Tensor) -> Tensor:
        """All transformations of some samples, on the network's device."""
        return make_tile(self._transforms, self.moved(x), ops=self._spatial)  # type: ignore[no-any-return]

    def moved(self, x: Tensor) -> Tensor:
        """Some inputs on the network's device, and in its type where they are doubles, as numpy makes them."""
        doubles = x.dtype == torch.float64 and self._dtype not in (None, torch.float64)
        x = x.to(self._dtype) if doubles else x
        return x if self._device is None else x.to(self._device)

    def prepare(self, x: Tensor) -> None:
        """Find the layers, with one sample, and split them into passes."""
        if self.layers:
            return
        tile = self.tile(x[:1])
        if tile.ndim == 4:
            self._input_size = (tile.shape[2], tile.shape[3])
        if self._turned_back and tile.ndim < 3:
            raise ValueError(
                f"same-equivariance needs inputs with spatial axes, got shape {tuple(tile.shape)}; measure invariance"
            )
        self.layers, self._watched, self.left_out = find_layers(
            self.module, tile, self._chosen, self._feature_axis, self._turned_back
        )
        columns = len(self._transforms)
        need = {layer.name: accumulator_bytes(layer.units, columns, layer.itemsize) for layer in self.layers}
        self.groups = self._split(self.layers, need, f"{columns} transformations")

    @contextmanager
    def passing(self, group: Sequence[Layer], output: bool = False) -> Iterator[Any]:
        """One pass; yields a function of a tile and its number of samples.

        Args:
            group: The layers to measure.
            output: Whether the function must return the network's output, or may stop behind the last of the layers.
        """
        measured = {layer.name for layer in group}

        def consume(label: str, tensor: Tensor, rows: int) -> None:
            if label not in self._moments:
                self._moments[label] = StreamingMoments(len(self._transforms), self._backend)
            tensor = self._activation(label, tensor, rows)
            self._moments[label].update(tensor, rows)
            if self.probes is not None:
                tile = self._backend.tile(tensor, rows, len(self._transforms))
                chosen = torch.as_tensor(self.probes.choose(label, tile.shape[2]), device=tile.device)
                self.probes.add(label, tile.index_select(2, chosen).cpu().numpy())

        with self._watching(measured, consume, output) as run:
            yield run

    @contextmanager
    def _watching(self, measured: set[str], consume: Any, output: bool = False) -> Iterator[Any]:
        # 0 rows: it is run by someone else, e.g. as h2, or inside of it.
        now = {"rows": 0, "left": 0}

        def look(label: str, _name: str, _child: nn.Module, tensor: Tensor) -> None:
            if now["rows"] and label in measured:
                consume(label, tensor, now["rows"])
                now["left"] -= 1
                if not now["left"] and not output:
                    raise _EnoughError

        hooks = Hooks(self.module, look)
        with hooks.on({name for label in measured for name in self._watched[label]}):

            def run(tile: Tensor, rows: int) -> Any:
                now["rows"], now["left"] = rows, len(measured)
                try:
                    return hooks.run(tile)
                except _EnoughError:
                    return None
                finally:
                    now["rows"] = 0

            yield run

    def _activation(self, label: str, tensor: Tensor, rows: int, columns: int | None = None) -> Tensor:
        columns = len(self._transforms) if columns is None else columns
        if tensor.shape[:1] != (rows * columns,):
            raise ValueError(
                f"layer {label!r}: its output of shape {tuple(tensor.shape)} has no axis of the {rows * columns} "
                "inputs in front; leave it out (layers=...)"
            )
        if self._turned_back and columns == len(self._transforms):
            return invert_tile(self._transforms, tensor, input_size=self._input_size, ops=self._spatial)  # type: ignore[no-any-return]
        return tensor

    def moments(self, name: str) -> Moments | None:
        """What was gathered of a layer; None if there was no sample. Only once: the memory is given back."""
        found = self._moments.pop(name, None)
        return None if found is None else found.moments()

    def firing_groups(self, names: set[str], count: int) -> list[list[Layer]]:
        """The named layers in groups for which `count` largest activations of each unit fit into memory."""
        layers = [layer for layer in self.layers if layer.name in names]
        # What is kept, and what it is merged with.
        need = {layer.name: layer.units * (2 * count * layer.itemsize + 16) for layer in layers}
        return self._split(layers, need, f"a threshold from {count} activations")

    # Firing rates: first the largest activations of the samples as they are, then counts.

    def largest(self, group: Sequence[Layer], pieces: Any, count: int) -> dict[str, Tensor]:
        """The largest activations of the layers of a group, each (count, K), for untransformed samples."""
        kept: dict[str, Tensor] = {}

        def consume(label: str, tensor: Tensor, rows: int) -> None:
            values = self._backend.tile(self._activation(label, tensor, rows, 1), rows, 1)[:, 0]
            kept[label] = self._backend.largest(kept.get(label), values, count)

        with self._watching({layer.name for layer in group}, consume) as run:
            for x, _ in pieces:
                run(self.moved(x), len(x))
        return kept

    def firing(
        self, group: Sequence[Layer], pieces: Any, thresholds: Mapping[str, Tensor], identity: int
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Counts of firing of the layers of a group, as (local, own), float64 on the host."""
        counts: dict[str, tuple[Tensor, Tensor]] = {}

        def consume(label: str, tensor: Tensor, rows: int) -> None:
            tile = self._backend.tile(self._activation(label, tensor, rows), rows, len(self._transforms))
            found = self._backend.firing(tile, thresholds[label].to(tile.device), identity)
            sums = (found[0].cpu().double(), found[1].cpu().double())
            before = counts.get(label)
            counts[label] = sums if before is None else (before[0] + sums[0], before[1] + sums[1])

        with self._watching({layer.name for layer in group}, consume) as run:
            for x, _ in pieces:
                run(self.tile(x), len(x))
        return counts

    def _split(self, layers: Sequence[Layer], need: Mapping[str, int], reason: str) -> list[list[Layer]]:
        """Layers in order, in groups whose bytes fit into memory."""
        for layer in layers:
            if self._max_memory is not None and need[layer.name] > self._max_memory:
                raise ValueError(
                    f"max_memory: layer {layer.name!r} with {layer.units} units, under {reason}, alone needs "
                    f"{need[layer.name]:,} bytes, got {self._max_memory:,}; raise max_memory, leave the layer out "
                    "(layers=...), or take fewer transformations"
                )
        return in_groups(layers, [need[layer.name] for layer in layers], self._max_memory)

    def measures(self, layer: Layer, moments: Moments | None, samples: int) -> LayerMeasures | None:
        """Read a layer's measures off; None, and a note why, if not every sample passed through it."""
        if moments is None or moments.count != samples:
            seen = 0 if moments is None else moments.count
            self.left_out[layer.name] = f"called for {seen} of {samples} samples only"
            return None
        return LayerMeasures.from_moments(moments, name=layer.name, shape=layer.shape, feature_axis=layer.feature_axis)

    def result(self, found: Iterable[LayerMeasures | None], firing_rate: float | None = None) -> InvarianceResult:
        """What was found of all layers."""
        measured = [layer for layer in found if layer is not None]
        if not measured:
            raise ValueError(f"no layer was called for all samples: {self.left_out}")
        return InvarianceResult(
            measured,
            self._transforms.names,
            self._transforms.sizes,
            "same_equivariance" if self._turned_back else "invariance",
            self.left_out,
            firing_rate,
        )
