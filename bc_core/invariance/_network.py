"""The port to a framework: one network whose layers are measured, split into passes that fit into memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from bc_core.invariance._accumulator import Floats, Moments, StreamingMoments, accumulator_bytes, in_groups
from bc_core.invariance._layer_measures import LayerMeasures
from bc_core.invariance._layers import Choice, Finder, Layer, LayerChoice
from bc_core.invariance._probes import Probes
from bc_core.invariance._resampling import DataFormat, SpatialOps
from bc_core.invariance._result import InvarianceResult
from bc_core.invariance._rows import Piece
from bc_core.invariance._transform import invert_tile
from bc_core.invariance._transform_set import TransformSet

# Measures some samples; given their tile where that is known, which it leaves as it is. Returns the network's output if
# that was asked for.
Run = Callable[..., Any]


@dataclass(frozen=True)
class Measurement:
    """What of a network is to be measured.

    Attributes:
        transforms: The m transformations.
        layers: Which layers.
        feature_axis: Where features are.
        same_equivariance: Whether feature maps are turned back before they are compared.
        max_memory: Bytes of accumulators at a time; None for all layers in one pass.

    Raises:
        TypeError: If the transformations are no `TransformSet`.
        ValueError: If there are fewer than two, one has no inverse where it needs one, or there is no memory.
    """

    transforms: TransformSet
    layers: LayerChoice | None = None
    feature_axis: int | Mapping[str, int] | None = None
    same_equivariance: bool = False
    max_memory: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.transforms, TransformSet):
            raise TypeError(
                "transforms: expected a TransformSet, such as TransformSet.rotations([0, 30, 60]), got "
                f"{type(self.transforms).__name__}"
            )
        if self.same_equivariance:
            for transform in self.transforms:
                _ = transform.inverse  # says which one has none
        if self.max_memory is not None and self.max_memory < 1:
            raise ValueError(f"max_memory: expected a number of bytes above 0, got {self.max_memory!r}")
        StreamingMoments(len(self.transforms))  # refuses fewer than two


class Network(ABC):
    """One network whose layers are measured.

    What happens in which order is in `_measuring` and `_comparing`; a framework says how its networks are looked into.

    Args:
        called: What the caller calls it, for errors.
        asked: What of it is to be measured.
        spatial: The framework's array operations, to turn feature maps back.

    Attributes:
        transforms: The m transformations.
        layers: What is measured, in the network's order.
        groups: The same, layers of one pass together.
        left_out: What is not measured, and why.
        probes: Where activations of a few units go, if anywhere.
        expected: Number of samples of a pass, where it is known before.
    """

    def __init__(self, called: str, asked: Measurement, spatial: SpatialOps) -> None:
        self.called, self.transforms, self._asked, self._spatial = called, asked.transforms, asked, spatial
        self._input_size: tuple[int, int] | None = None
        self._moments: dict[str, StreamingMoments] = {}
        # Names of activations, what these are shown as; and of what is shown the layer.
        self._shown: dict[str, str] = {}
        self._watched: dict[str, str] = {}
        self.layers: list[Layer] = []
        self.groups: list[list[Layer]] = []
        self.left_out: dict[str, str] = {}
        self.probes: Probes | None = None
        self.expected: int | None = None

    # What only the framework knows.

    @abstractmethod
    def tile(self, piece: Piece) -> Any:
        """All transformations of some samples, sample by sample."""

    @abstractmethod
    def passing(self, group: Sequence[Layer], output: bool = False) -> AbstractContextManager[Run]:
        """One pass, which adds the activations of a group of layers to their moments.

        Args:
            group: The layers to measure.
            output: Whether the network's output is wanted, or it may stop behind the last of the layers.
        """

    @abstractmethod
    def largest(
        self, group: Sequence[Layer], pieces: Iterable[Piece], count: int, identity: int
    ) -> dict[str, NDArray[Any]]:
        """The largest activations of a group of layers, each (count, K), largest first, for samples as they are."""

    @abstractmethod
    def firing(
        self, group: Sequence[Layer], pieces: Iterable[Piece], thresholds: Mapping[str, NDArray[Any]], identity: int
    ) -> dict[str, list[Floats]]:
        """Counts of firing of a group of layers, as [local, own] of `FiringBackend.firing`."""

    @abstractmethod
    def scores(self, output: Any) -> NDArray[Any]:
        """What the network's output says of each input, (N,) or (N, C)."""

    @abstractmethod
    def names_beside(self, other: Network) -> dict[str, str]:
        """What layers are called beside those of another network, whose names are shown."""

    @abstractmethod
    def _found(self, piece: Piece) -> Finder:
        """Run the network with one sample, and see which activations it has."""

    @abstractmethod
    def _maps(self, layer: Layer) -> Any:
        """Feature maps of zeros, one for each transformation."""

    # What all have in common.

    def prepare(self, piece: Piece) -> None:
        """Find the layers, with one sample, and split them into passes."""
        if self.layers:
            return
        finder = self._found(piece)
        if self._asked.same_equivariance:
            for name, why in {name: self._why_not_turned(layer) for name, layer in finder.layers.items()}.items():
                if why is not None:
                    finder.leave_out(name, why)
        finder.finish()
        self.layers, self.left_out = list(finder.layers.values()), finder.left_out
        self._watched, self._shown = finder.watched, {name: name for name in finder.layers}
        self._group()

    def take_over(self, layers: Sequence[Layer], left_out: Mapping[str, str]) -> None:
        """Take over what another process found, here without data."""
        self.layers, self.left_out = list(layers), dict(left_out)
        self._group()

    def rename(self, names: Mapping[str, str]) -> None:
        """Show layers under other names."""
        self._shown = {label: names.get(shown, shown) for label, shown in self._shown.items()}
        self._watched = {names.get(name, name): layer for name, layer in self._watched.items()}
        self.layers = [replace(layer, name=names.get(layer.name, layer.name)) for layer in self.layers]
        self.left_out = {names.get(name, name): why for name, why in self.left_out.items()}
        self._group()

    def forget(self) -> None:
        """Drop what an interrupted pass has gathered."""
        self._moments.clear()

    def _finder(self, inputs: int, rank: int, known: Mapping[str, Any], kind: type) -> Finder:
        """What takes note of activations.

        Args:
            inputs: Number of inputs of the first run.
            rank: Axes of the transformed one.
            known: The network's layers by name.
            kind: Class of layers.
        """
        choice = Choice(self._asked.layers, known, kind)
        return Finder(choice, inputs, rank if self._asked.same_equivariance else None, self._asked.feature_axis)

    def _note_input(self, shape: Sequence[int], data_format: DataFormat) -> None:
        """Take note of the shape of a transformed input, samples in front."""
        if len(shape) == 4:
            self._input_size = (shape[1], shape[2]) if data_format == "channels_last" else (shape[2], shape[3])
        if self._asked.same_equivariance and len(shape) < 3:
            raise ValueError(
                f"same-equivariance needs inputs with spatial axes, got shape {tuple(shape)}; measure invariance"
            )

    def _turned(self, layer: Layer, activation: Any) -> Any:
        """Feature maps of a tile, turned back."""
        return invert_tile(
            self.transforms,
            activation,
            data_format=layer.data_format,
            input_size=self._input_size,
            ops=self._spatial,
        )

    def _why_not_turned(self, layer: Layer) -> str | None:
        try:
            self._turned(layer, self._maps(layer))
        except ValueError as error:
            return str(error)
        return None

    def _check_rows(self, name: str, shape: Sequence[int | None], inputs: int) -> None:
        if not shape or shape[0] not in (None, inputs):
            raise ValueError(
                f"layer {name!r}: its output of shape {tuple(shape)} has no axis of the {inputs} inputs in front; "
                "leave it out (layers=...)"
            )

    def _group(self) -> None:
        columns = len(self.transforms)
        need = [accumulator_bytes(layer.units, columns, layer.itemsize) for layer in self.layers]
        self.groups = self._split(self.layers, need, f"{columns} transformations")

    def firing_groups(self, names: set[str], count: int) -> list[list[Layer]]:
        """The named layers in groups for which `count` largest activations of each unit fit into memory."""
        layers = [layer for layer in self.layers if layer.name in names]
        # What is kept, and what it is merged with.
        need = [layer.units * (2 * count * layer.itemsize + 16) for layer in layers]
        return self._split(layers, need, f"a threshold from {count} activations")

    def _split(self, layers: Sequence[Layer], need: Sequence[int], what: str) -> list[list[Layer]]:
        for layer, size in zip(layers, need, strict=True):
            if self._asked.max_memory is not None and size > self._asked.max_memory:
                raise ValueError(
                    f"max_memory: layer {layer.name!r} with {layer.units} units, under {what}, alone needs {size:,} "
                    f"bytes, got {self._asked.max_memory:,}; raise max_memory, leave the layer out (layers=...), or "
                    "take fewer transformations"
                )
        return in_groups(layers, need, self._asked.max_memory)

    def moments(self, name: str) -> Moments | None:
        """What was gathered of a layer; None if there was no sample. Only once: the memory is given back."""
        found = self._moments.pop(name, None)
        return None if found is None else found.moments()

    def result(self, found: Sequence[LayerMeasures], firing_rate: float | None = None) -> InvarianceResult:
        """What was found of all layers."""
        return result_of(found, self.transforms, self.left_out, self._asked.same_equivariance, firing_rate)


def measures_of(layer: Layer, moments: Moments | None, samples: int, left_out: dict[str, str]) -> list[LayerMeasures]:
    """A layer's measures; none, and a note why, if not every sample passed through it."""
    if moments is None or moments.count != samples:
        left_out[layer.name] = f"called for {0 if moments is None else moments.count} of {samples} samples only"
        return []
    return [LayerMeasures.from_moments(moments, name=layer.name, shape=layer.shape, feature_axis=layer.feature_axis)]


def result_of(
    found: Sequence[LayerMeasures],
    transforms: Any,
    left_out: Mapping[str, str],
    same_equivariance: bool = False,
    firing_rate: float | None = None,
) -> InvarianceResult:
    """The result of all layers.

    Raises:
        ValueError: If there is none.
    """
    if not found:
        raise ValueError(f"no layer was called for all samples: {dict(left_out)}")
    kind: Any = "same_equivariance" if same_equivariance else "invariance"
    return InvarianceResult(found, transforms.names, transforms.sizes, kind, left_out, firing_rate)
