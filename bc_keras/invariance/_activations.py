"""Where a model's activations are met: each layer's `call`, wrapped for as long as somebody watches."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras

from bc_core.invariance._layers import Finder, Labels, Met
from bc_core.invariance._resampling import DataFormat
from bc_keras.batches._labels import is_float

# Their outputs are their inputs' entries in the same order.
_HAND_ON = (keras.layers.Flatten, keras.layers.Reshape)
_METHODS = ("call", "quantized_call")
_NOT_HERE = "it runs inside a loop or a compiled function of its own, out of which no activation comes"


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
        labels = Labels(lambda part: hasattr(part, "shape") and hasattr(part, "dtype"))
        here: list[Any] = [None]
        errors: list[BaseException] = []

        def wrapped(name: str, layer: Any, method: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(method)
            def watched(*args: Any, **kwargs: Any) -> Any:
                output = method(*args, **kwargs)
                given = args[0] if args else None
                try:
                    for label, tensor in labels.of(name, output):
                        look(Seen(label, name, layer, tensor, given, _trace_of(tensor) in (None, here[0])))
                except Exception as error:
                    # Past Keras, which would append all it knows of the layer's arguments.
                    errors.append(error)
                    raise
                return output

            return watched

        def run(x: Any) -> Any:
            labels.begin()
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


class FirstLook:
    """Tells a `Finder` what activations a model has, while it is run once.

    Args:
        finder: Takes note of them.
        data_format: Where the channels of images are, in layers that do not say.
        within_reach: Names of the activations that a compiled run gives; None where all are.
    """

    def __init__(self, finder: Finder, data_format: DataFormat, within_reach: set[str] | None = None) -> None:
        self._finder, self._data_format, self._within_reach = finder, data_format, within_reach
        # Tensors and what they are called; held, since a freed one's number may come to name another.
        self._known: list[tuple[Any, str]] = []

    def __call__(self, seen: Seen) -> None:
        """Take note of an activation."""
        is_here = seen.is_here and (self._within_reach is None or seen.label in self._within_reach)
        twin = self._twin(seen.tensor)
        if twin is None and isinstance(seen.layer, _HAND_ON):
            twin = self._twin(seen.given)
        if is_here:
            self._known.append((seen.tensor, twin or seen.label))
        shape, dtype = tuple(seen.tensor.shape), keras.backend.standardize_dtype(seen.tensor.dtype)
        data_format = getattr(seen.layer, "data_format", None) or self._data_format
        axis = 0 if len(shape) > 3 and data_format == "channels_first" else -1
        why = None if is_here else _NOT_HERE
        self._finder.look(
            Met(seen.label, seen.name, seen.layer, shape, dtype, is_float(seen.tensor), axis, data_format, twin, why)
        )

    def _twin(self, tensor: Any) -> str | None:
        return next((label for known, label in self._known if known is tensor), None)


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
