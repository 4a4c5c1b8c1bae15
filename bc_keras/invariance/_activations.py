"""Where a model's activations are met: each layer's `call`, wrapped for as long as somebody watches."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras

from bc_keras.batches._labels import is_float

LayerChoice = Sequence[Any] | Callable[[str, Any], bool]

OUTPUT = "(output)"
"""Name of what the model itself returns, where that is no layer's output."""

# Their outputs are their inputs' entries in the same order.
_HAND_ON = (keras.layers.Flatten, keras.layers.Reshape)
_METHODS = ("call", "quantized_call")
_NOT_HERE = "it runs inside a loop or a compiled function of its own, out of which no activation comes"


@dataclass(frozen=True)
class Layer:
    """One activation of a model: a tensor that a layer returns, each call for itself.

    Attributes:
        name: Name of the layer, with those of the models around it; ``":2"`` of its second call, ``"[0]"`` of a part of
            its output.
        shape: Shape for one input.
        feature_axis: Axis of `shape` with the features.
        itemsize: Bytes of one entry.
        data_format: Where the channels are, for activations with the axes of an image.
    """

    name: str
    shape: tuple[int, ...]
    feature_axis: int
    itemsize: int
    data_format: str

    @property
    def units(self) -> int:
        """Number of units K."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Seen:
    """What a layer returned, as it is met.

    Attributes:
        label: Name of the activation.
        name: Name of the layer.
        layer: The layer.
        tensor: The activation.
        given: What the layer was called with first.
        is_here: Whether it belongs to the run that is watched, and to no loop inside of it.
    """

    label: str
    name: str
    layer: Any
    tensor: Any
    given: Any
    is_here: bool


class Watch:
    """Hands every tensor that chosen layers return to a function, during a run of the model.

    A layer's ``call`` is replaced on that layer alone, beside its class, so that all ways in which Keras runs a layer
    come by: in sequence, by graph, nested, subclassed, compiled.

    Args:
        model: The model.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._names = dict(layers_of(model))

    @contextmanager
    def on(self, look: Callable[[Seen], None], names: set[str] | None = None) -> Iterator[Callable[[Any], Any]]:
        """Watch layers (None: all); afterwards, also after an error, nothing is left on the model.

        Args:
            look: Is told of each tensor.
            names: Of the layers to watch.

        Yields:
            A function that runs the model on inputs, in inference mode.
        """
        calls: dict[str, int] = {}
        here: list[Any] = [None]
        errors: list[BaseException] = []

        def wrapped(name: str, layer: Any, method: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(method)
            def watched(*args: Any, **kwargs: Any) -> Any:
                output = method(*args, **kwargs)
                call = calls[name] = calls.get(name, 0) + 1
                label = (name or OUTPUT) + (f":{call}" if call > 1 else "")
                given = args[0] if args else None
                try:
                    for part, tensor in tensors_of(output):
                        look(Seen(label + part, name, layer, tensor, given, _trace_of(tensor) in (None, here[0])))
                except Exception as error:
                    # Past Keras, which would append all it knows of the layer's arguments.
                    errors.append(error)
                    raise
                return output

            return watched

        def run(x: Any) -> Any:
            calls.clear()
            errors.clear()
            here[0] = _trace_of(keras.tree.flatten(x)[0])
            try:
                return self._model(x, training=False)
            except Exception:
                if errors:
                    raise errors[0] from None
                raise

        replaced: list[tuple[Any, str, Any]] = []
        modes = [(one, one._remat_mode) for one in _operations(self._model) if one._remat_mode is not None]
        try:
            for one, _ in modes:
                # Of `keras.RematScope`: it matters to gradients only, and runs a layer where no tensor comes out of.
                one._remat_mode = None
            for name, layer in self._names.items():
                if names is not None and name not in names:
                    continue
                for method in _METHODS:
                    found = getattr(layer, method, None)
                    if callable(found):
                        replaced.append((layer, method, layer.__dict__.get(method)))
                        # Not by setattr, with which Keras would track it.
                        layer.__dict__[method] = wrapped(name, layer, found)
            yield run
        finally:
            for one, mode in modes:
                one._remat_mode = mode
            for layer, method, before in reversed(replaced):
                if before is None:
                    layer.__dict__.pop(method, None)
                else:
                    layer.__dict__[method] = before


def _operations(model: Any) -> Iterator[Any]:
    """All that a model runs and Keras knows of: layers, and operations of functional models."""
    met: set[int] = set()
    for layer in model._flatten_layers():
        for one in (layer, *getattr(layer, "operations", ())):
            if id(one) not in met:
                met.add(id(one))
                yield one


def layers_of(model: Any) -> Iterator[tuple[str, Any]]:
    """All layers of a model by name, itself first, under the empty name.

    Models and layers of one's own are looked into; layers of Keras that hold others (recurrent ones, attention,
    wrappers) count as one, since what they run inside may see other axes or be a step of a loop.
    """
    taken: set[str] = {""}
    met = {id(model)}

    def within(container: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        for child in container._flatten_layers(include_self=False, recursive=False):
            if id(child) in met or isinstance(child, keras.layers.InputLayer):
                continue
            met.add(id(child))
            name, number = f"{prefix}{child.name}", 1
            while name in taken:
                number += 1
                name = f"{prefix}{child.name}~{number}"
            taken.add(name)
            yield name, child
            if isinstance(child, keras.Model) or not type(child).__module__.startswith("keras."):
                yield from within(child, f"{name}/")

    yield "", model
    yield from within(model, "")


def tensors_of(output: Any, part: str = "") -> Iterator[tuple[str, Any]]:
    """Tensors of whatever a layer returned, each with its place: ``""`` alone, ``"[0]"``, ``"[logits]"``."""
    if isinstance(output, Mapping):
        for key, value in output.items():
            yield from tensors_of(value, f"{part}[{key}]")
    elif isinstance(output, (tuple, list)):
        for index, value in enumerate(output):
            yield from tensors_of(value, f"{part}[{index}]")
    elif hasattr(output, "shape") and hasattr(output, "dtype"):
        yield part, output


class Choice:
    """Which activations are wanted.

    Args:
        model: The model.
        chosen: Names of layers or of activations, layers themselves, a function of name and layer, or None for all.

    Raises:
        TypeError: If it is something else.
        ValueError: If a layer is none of the model's.
    """

    def __init__(self, model: Any, chosen: LayerChoice | None) -> None:
        self.everything = chosen is None
        self._function = chosen if callable(chosen) else None
        self._asked: set[str] | None = None
        self._known = [name or OUTPUT for name, _ in layers_of(model)]
        if chosen is None or callable(chosen):
            return
        if isinstance(chosen, (str, keras.Layer)):
            raise TypeError(f"layers must be a list of names or of layers: pass [...]. Received: layers={chosen!r}.")
        by_layer = {id(layer): name or OUTPUT for name, layer in layers_of(model)}
        self._asked = set()
        for one in chosen:
            if isinstance(one, keras.Layer):
                if id(one) not in by_layer:
                    raise ValueError(
                        f"layers must be the model's own. Received: {one.name!r}, which is not among them."
                    )
                self._asked.add(by_layer[id(one)])
            elif isinstance(one, str):
                self._asked.add(one or OUTPUT)
            else:
                raise TypeError(f"layers must hold names or layers. Received: {one!r}.")

    def wants(self, seen: Seen) -> bool:
        """Whether an activation is wanted."""
        if self._asked is not None:
            return bool(self._asked & {seen.label, seen.label.split("[", maxsplit=1)[0], seen.name or OUTPUT})
        return self._function is None or bool(self._function(seen.name, seen.layer))

    def check(self, layers: Mapping[str, Layer], left_out: Mapping[str, str], called: set[str]) -> None:
        """Refuse a choice that cannot be measured.

        Raises:
            ValueError: If a layer is unknown, was not called or cannot be measured, or if none is left.
        """
        labels = {*layers, *left_out}
        met = labels | {label.split("[", maxsplit=1)[0] for label in labels} | called
        for name in sorted(self._asked or ()):
            if name in left_out and name not in layers:
                raise ValueError(f"layers: {name!r} cannot be measured: {left_out[name]}.")
            if name in self._known and name not in met:
                raise ValueError(f"layers: {name!r} is not called by the model.")
            if name not in met:
                known = ", ".join(self._known[1:] or self._known)
                raise ValueError(f"layers must name layers of the model: {known}. Received: {name!r}.")
        if not layers:
            why = "; ".join(f"{name!r}: {reason}" for name, reason in left_out.items()) or "none was chosen"
            raise ValueError(f"There is no layer to measure. {why}.")


class Finder:
    """Sees which activations a model has, while it is run once.

    Args:
        choice: Which are wanted.
        inputs: Number of inputs of that run.
        rank: Axes of the transformed input; where it is given, other activations are left out.
        feature_axis: Where features are, for all or by name, counted in the shape for one input.
        data_format: Where the channels of images are.
        within_reach: Names of the activations that a compiled run gives; None where all are.
    """

    def __init__(
        self,
        choice: Choice,
        inputs: int,
        rank: int | None,
        feature_axis: int | Mapping[str, int] | None,
        data_format: str,
        within_reach: set[str] | None = None,
    ) -> None:
        self._choice, self._inputs, self._rank, self._within_reach = choice, inputs, rank, within_reach
        self._feature_axis, self._data_format = feature_axis, data_format
        self.layers: dict[str, Layer] = {}
        self.watched: dict[str, str] = {}
        self.left_out: dict[str, str] = {}
        self._called: set[str] = set()
        # Tensors and what they are called; held, since a freed one's number may come to name another.
        self._known: list[tuple[Any, str]] = []

    def look(self, seen: Seen) -> None:
        """Take note of an activation."""
        is_here = seen.is_here and (self._within_reach is None or seen.label in self._within_reach)
        twin = self._twin(seen.tensor)
        if twin is None and isinstance(seen.layer, _HAND_ON):
            twin = self._twin(seen.given)
        if is_here:
            self._known.append((seen.tensor, twin or seen.label))
        if not self._choice.wants(seen):
            return
        self._called.add(seen.name or OUTPUT)
        tensor = seen.tensor
        shape = tuple(tensor.shape)
        if not is_here:
            why: str | None = _NOT_HERE
        elif not shape or shape[0] != self._inputs:
            why = f"its output of shape {shape} has no axis of the {self._inputs} inputs in front"
        elif not is_float(tensor):
            why = f"its output is of type {keras.backend.standardize_dtype(tensor.dtype)}"
        elif math.prod(shape) == 0:
            why = "its output is empty"
        elif self._rank is not None and len(shape) != self._rank:
            why = f"its output of shape {shape} has other axes than the input, so there is nothing to turn back"
        elif twin is not None and self._choice.everything:
            why = f"returns what {twin!r} returned"
        else:
            why = None
        if why is not None:
            self.left_out[seen.label] = why
            return
        data_format = getattr(seen.layer, "data_format", None) or self._data_format
        itemsize = 8 if keras.backend.standardize_dtype(tensor.dtype) == "float64" else 4
        axis = self._axis(seen.label, shape[1:], data_format)
        self.layers[seen.label] = Layer(seen.label, shape[1:], axis, itemsize, data_format)
        self.watched[seen.label] = seen.name

    def finish(self) -> None:
        """Check what was found, and let go of the tensors.

        Raises:
            ValueError: If a chosen layer cannot be measured, or none is left.
        """
        self._known.clear()
        self._choice.check(self.layers, self.left_out, self._called)

    def _twin(self, tensor: Any) -> str | None:
        return next((label for known, label in self._known if known is tensor), None)

    def _axis(self, label: str, shape: tuple[int, ...], data_format: str) -> int:
        given = self._feature_axis
        axis = given.get(label) if isinstance(given, Mapping) else given
        if axis is None:
            axis = 0 if len(shape) > 2 and data_format == "channels_first" else -1
        if shape and not -len(shape) <= axis < len(shape):
            raise ValueError(f"feature_axis: layer {label!r} has shape {shape} for one input. Received: {axis}.")
        return axis % max(1, len(shape))


def _trace_of(tensor: Any) -> Any:
    """What a tensor is a step of; None where it holds numbers."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return None if isinstance(tensor, tf.__internal__.EagerTensor) else id(getattr(tensor, "graph", None))
    if backend == "jax":
        trace = getattr(tensor, "_trace", None)
        return None if trace is None else id(trace)
    return None
