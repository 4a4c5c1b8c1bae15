"""Which activations a network has: how they are named, which of them are wanted, and why others are left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bc_core.invariance._resampling import DataFormat

LayerChoice = Sequence[Any] | Callable[[str, Any], bool]

OUTPUT = "(output)"
"""Name of what the network itself returns, where that is no layer's output."""


@dataclass(frozen=True)
class Layer:
    """One activation of a network: a tensor that a layer returns, each call for itself.

    Attributes:
        name: Name of the layer; `":2"` of its second call, `"[0]"` of a part of its output.
        shape: Shape for one input.
        feature_axis: Axis of `shape` with the features.
        itemsize: Bytes of one entry.
        data_format: Where the channels are, for activations with the axes of an image.
    """

    name: str
    shape: tuple[int, ...]
    feature_axis: int
    itemsize: int
    data_format: DataFormat

    @property
    def units(self) -> int:
        """Number of units K."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Met:
    """An activation as it is met while a network runs for the first time.

    Attributes:
        label: Name of the activation.
        name: Name of its layer.
        layer: The layer.
        shape: Shape of the tensor, inputs in front.
        dtype: Its type.
        is_float: Whether that is a floating-point one.
        feature_axis: Where its features are if nobody says otherwise.
        data_format: Where channels are.
        twin: The activation that it is once more, unchanged.
        out_of_reach: Why no activation comes from there, if none does.
    """

    label: str
    name: str
    layer: Any
    shape: tuple[int, ...]
    dtype: str
    is_float: bool
    feature_axis: int
    data_format: DataFormat
    twin: str | None
    out_of_reach: str | None = None


class Labels:
    """Names the tensors that layers return, call by call.

    Args:
        is_tensor: Whether something that a layer returned is a tensor.

    Example:
        >>> from bc_core.invariance._layers import Labels
        >>> labels = Labels(lambda part: isinstance(part, float))
        >>> [label for output in (1.0, {"a": (2.0, 3.0)}) for label, _ in labels.of("relu", output)]
        ['relu', 'relu:2[a][0]', 'relu:2[a][1]']
    """

    def __init__(self, is_tensor: Callable[[Any], bool]) -> None:
        self._is_tensor = is_tensor
        self._calls: dict[str, int] = {}

    def begin(self) -> None:
        """Count anew, as the network is run again."""
        self._calls.clear()

    def of(self, name: str, output: Any) -> list[tuple[str, Any]]:
        """What a call of a layer returned: tensors with their names."""
        call = self._calls[name] = self._calls.get(name, 0) + 1
        label = (name or OUTPUT) + (f":{call}" if call > 1 else "")
        return [(label + part, tensor) for part, tensor in self._parts(output, "")]

    def _parts(self, output: Any, part: str) -> Iterator[tuple[str, Any]]:
        if isinstance(output, Mapping):
            for key, value in output.items():
                yield from self._parts(value, f"{part}[{key}]")
        elif isinstance(output, (tuple, list)):
            for index, value in enumerate(output):
                yield from self._parts(value, f"{part}[{index}]")
        elif self._is_tensor(output):
            yield part, output


class Choice:
    """Which activations are wanted.

    Args:
        chosen: Names of layers or of activations, layers themselves, a function of name and layer, or None for all.
        known: The network's layers by name.
        kind: Class of layers.

    Raises:
        TypeError: If it is something else.
        ValueError: If a layer is none of the network's.
    """

    def __init__(self, chosen: LayerChoice | None, known: Mapping[str, Any], kind: type) -> None:
        self.everything = chosen is None
        self._known = [name or OUTPUT for name in known]
        self._function: Callable[[str, Any], bool] | None = None
        self._asked: set[str] | None = None
        if isinstance(chosen, (str, kind)):
            raise TypeError(f"layers: expected a list of names or of layers, got {chosen!r}; pass [{chosen!r}]")
        if callable(chosen):
            self._function = chosen
        elif chosen is not None:
            self._asked = {_name_of(one, known, kind) for one in chosen}

    def wants(self, met: Met) -> bool:
        """Whether an activation is wanted."""
        if self._asked is not None:
            return bool(self._asked & {met.label, _whole(met.label), met.name or OUTPUT})
        return self._function is None or bool(self._function(met.name, met.layer))

    def check(self, layers: Mapping[str, Layer], left_out: Mapping[str, str], called: set[str]) -> None:
        """Refuse a choice that cannot be measured.

        Raises:
            ValueError: If a layer is unknown, was not called or cannot be measured, or if none is left.
        """
        labels = {*layers, *left_out}
        met = labels | {_whole(label) for label in labels} | called
        for name in sorted(self._asked or ()):
            if name in left_out and name not in layers:
                raise ValueError(f"layers: {name!r} cannot be measured: {left_out[name]}")
            if name in self._known and name not in met:
                raise ValueError(f"layers: {name!r} was not called by the network")
            if name not in met:
                raise ValueError(f"layers: no layer {name!r}; there are {', '.join(self._known[1:] or self._known)}")
        if not layers:
            why = "; ".join(f"{name!r}: {reason}" for name, reason in left_out.items()) or "none chosen"
            raise ValueError(f"no layer to measure: {why}")


def _name_of(one: Any, known: Mapping[str, Any], kind: type) -> str:
    if isinstance(one, str):
        return one or OUTPUT
    if not isinstance(one, kind):
        raise TypeError(f"layers: expected names or layers, got {one!r}")
    for name, layer in known.items():
        if layer is one:
            return name or OUTPUT
    raise ValueError(f"layers: expected layers of the network's own, got {one!r}, which is not among them")


def _whole(label: str) -> str:
    """The call of a layer that a part of its output belongs to."""
    return label.split("[", maxsplit=1)[0]


class Finder:
    """Sees which activations a network has, while it is run once, and once more with one more input.

    Args:
        choice: Which are wanted.
        inputs: Number of inputs of the first run.
        rank: Axes of the transformed input; where it is given, other activations are left out.
        feature_axis: Where features are, for all or by name, counted in the shape for one input.

    Attributes:
        layers: What was found, by name.
        watched: Name of the layer of each.
        left_out: What is not measured, and why.
    """

    def __init__(
        self, choice: Choice, inputs: int, rank: int | None, feature_axis: int | Mapping[str, int] | None
    ) -> None:
        self._choice, self._inputs, self._rank, self._feature_axis = choice, inputs, rank, feature_axis
        self._called: set[str] = set()
        self.layers: dict[str, Layer] = {}
        self.watched: dict[str, str] = {}
        self.left_out: dict[str, str] = {}

    def look(self, met: Met) -> None:
        """Take note of an activation.

        Raises:
            ValueError: If it has no such axis as was asked for.
        """
        if not self._choice.wants(met):
            return
        self._called.add(met.name or OUTPUT)
        if (why := self._why_not(met)) is not None:
            self.left_out[met.label] = why
            return
        shape = met.shape[1:]
        given = self._feature_axis
        asked = given.get(met.label) if isinstance(given, Mapping) else given
        axis = met.feature_axis if asked is None else asked
        if shape and not -len(shape) <= axis < len(shape):
            raise ValueError(f"feature_axis: layer {met.label!r} has shape {shape} for one input, so no axis {axis}")
        itemsize = 8 if met.dtype.endswith("float64") else 4
        self.layers[met.label] = Layer(met.label, shape, axis % max(1, len(shape)), itemsize, met.data_format)
        self.watched[met.label] = met.name

    def _why_not(self, met: Met) -> str | None:
        if met.out_of_reach is not None:
            return met.out_of_reach
        if met.shape[:1] != (self._inputs,):
            return f"its output of shape {met.shape} has no axis of the {self._inputs} inputs in front"
        if not met.is_float:
            return f"its output is of type {met.dtype}"
        if not math.prod(met.shape):
            return "its output is empty"
        if self._rank is not None and len(met.shape) != self._rank:
            return f"its output of shape {met.shape} has other axes than the input, so there is nothing to turn back"
        if met.twin is not None and self._choice.everything:
            return f"returns what {met.twin!r} returned"
        return None

    def look_again(self, label: str, shape: tuple[int, ...]) -> None:
        """An axis may be as long as there are inputs, and not be theirs: with one more input it stays so long."""
        if label in self.layers and shape[:1] != (self._inputs + 1,):
            more = self._inputs + 1
            self.leave_out(label, f"its output of shape {shape} for {more} inputs has no axis of theirs in front")

    def leave_out(self, label: str, why: str) -> None:
        """Take an activation out again."""
        del self.layers[label]
        self.left_out[label] = why

    def finish(self) -> None:
        """Check what was found.

        Raises:
            ValueError: If a chosen layer cannot be measured, or none is left.
        """
        self._choice.check(self.layers, self.left_out, self._called)
