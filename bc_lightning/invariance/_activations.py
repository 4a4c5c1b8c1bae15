"""Where a network's activations are met: forward hooks that look while a layer runs, and keep nothing."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

LayerChoice = Sequence[str] | Callable[[str, nn.Module], bool]

OUTPUT = "(output)"
"""Name of what the network itself returns, where that is no layer's output."""


@dataclass(frozen=True)
class Layer:
    """One activation of a network: a tensor that a module returns, each call for itself.

    Attributes:
        name: Name of the module, `":2"` of its second call, `"[0]"` of a part of its output.
        shape: Shape for one input.
        feature_axis: Axis of `shape` with the features.
        itemsize: Bytes of one entry.
        is_map: Whether it has the axes of the network's input, so that a transformation can be undone on it.
    """

    name: str
    shape: tuple[int, ...]
    feature_axis: int
    itemsize: int
    is_map: bool

    @property
    def units(self) -> int:
        """Number of units K."""
        return torch.Size(self.shape).numel()


class Hooks:
    """Hands every tensor that chosen modules return to a function, named, during a forward pass.

    Args:
        module: The network.
        consume: Called with (name of the activation, name of the module, module, tensor).
    """

    def __init__(self, module: nn.Module, consume: Callable[[str, str, nn.Module, Tensor], None]) -> None:
        self._module, self._consume = module, consume
        self._calls: dict[str, int] = {}

    @contextmanager
    def on(self, names: set[str] | None = None) -> Iterator[None]:
        """Watch modules (None: all of them); afterwards, also after an error, nothing is left on the network."""
        handles = []
        try:
            for name, module in self._module.named_modules():
                if names is None or name in names:
                    handles.append(module.register_forward_hook(self._hook(name)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def run(self, *args: Any) -> Any:
        """One forward pass."""
        self._calls.clear()
        return self._module(*args)

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def look(module: nn.Module, _: Any, output: Any) -> None:
            call = self._calls[name] = self._calls.get(name, 0) + 1
            label = (name or OUTPUT) + (f":{call}" if call > 1 else "")
            for part, tensor in tensors_of(output):
                self._consume(label + part, name, module, tensor)

        return look


def tensors_of(output: Any, part: str = "") -> Iterator[tuple[str, Tensor]]:
    """Tensors of whatever a module returned, each with its place: `""` alone, `"[0]"`, `"[logits]"`."""
    if isinstance(output, Tensor):
        yield part, output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from tensors_of(value, f"{part}[{key}]")
    elif isinstance(output, (tuple, list)):
        for index, value in enumerate(output):
            yield from tensors_of(value, f"{part}[{index}]")


def find_layers(
    module: nn.Module,
    x: Tensor,
    chosen: LayerChoice | None,
    feature_axis: int | Mapping[str, int] | None,
    maps_only: bool,
) -> tuple[list[Layer], dict[str, set[str]], dict[str, str]]:
    """Run a network and see which activations it has.

    Args:
        module: The network, in eval mode.
        x: Inputs. The network is run a second time with one more, to tell their axis from one that has that length.
        chosen: Names of modules or of activations, or a function of name and module; None for all that differ.
        feature_axis: Where features are, for all or by name, counted in the shape for one input.
        maps_only: Leave out what has other axes than the input.

    Returns:
        The activations in order, the modules to watch for each of them, and what was left out, with the reason.

    Raises:
        ValueError: If a chosen layer is unknown, was not called, or cannot be measured; or if nothing is left.
    """
    modules = dict(module.named_modules())
    layers: dict[str, Layer] = {}
    watched: dict[str, set[str]] = {}
    left_out: dict[str, str] = {}
    asked: set[str] | None = None
    if chosen is not None and not callable(chosen):
        if isinstance(chosen, str):
            raise TypeError(f"layers: expected a list of names, got the text {chosen!r}; pass [{chosen!r}]")
        asked = {name or OUTPUT for name in chosen}
    one_dimensional = any(type(child).__name__.endswith("1d") for child in modules.values())
    seen: list[tuple[str, weakref.ref[Tensor], int]] = []

    def look(label: str, name: str, child: nn.Module, tensor: Tensor) -> None:
        if asked is not None:
            if not asked & {label, label.split("[", maxsplit=1)[0], name or OUTPUT}:
                return
        elif callable(chosen) and not chosen(name, child):
            return
        why = None
        if tensor.ndim == 0 or tensor.shape[0] != len(x):
            why = f"its output of shape {tuple(tensor.shape)} has no axis of the {len(x)} inputs in front"
        elif not tensor.is_floating_point():
            why = f"its output is of type {tensor.dtype}"
        elif tensor.numel() == 0:
            why = "its output is empty"
        elif maps_only and tensor.ndim != x.ndim:
            why = f"its output of shape {tuple(tensor.shape)} has other axes than the input, so nothing to turn back"
        elif asked is None and (twin := _seen_as(tensor, seen)) is not None:
            why = f"returns what {twin!r} returned"
        if why is not None:
            left_out[label] = why
            return
        with suppress(RuntimeError):  # a tensor of inference_mode has no version
            seen.append((label, weakref.ref(tensor), tensor._version))
        shape = tuple(tensor.shape[1:])
        axis = feature_axis.get(label, None) if isinstance(feature_axis, Mapping) else feature_axis
        if axis is None:
            axis = -1 if len(shape) == 2 and not one_dimensional else 0
        if shape and not -len(shape) <= axis < len(shape):
            raise ValueError(f"feature_axis: layer {label!r} has shape {shape} for one input, so no axis {axis}")
        itemsize = 8 if tensor.dtype == torch.float64 else 4
        layers[label] = Layer(label, shape, axis % max(1, len(shape)), itemsize, tensor.ndim == x.ndim)
        watched[label] = {name}

    hooks = Hooks(module, look)
    with hooks.on():
        hooks.run(x)
    for label, wrong in _of_other_axes(module, torch.cat([x, x[:1]]), layers, watched).items():
        left_out[label] = f"its output of shape {wrong} for {len(x) + 1} inputs has no axis of theirs in front"
        del layers[label], watched[label]
    if asked is not None:
        met = {*layers, *left_out}
        met |= {label.split("[")[0] for label in met} | {name or OUTPUT for names in watched.values() for name in names}
        for name in asked:
            if name in left_out and name not in layers:
                raise ValueError(f"layers: {name!r} cannot be measured: {left_out[name]}")
            if name not in met:
                known = name in modules or name == OUTPUT
                raise ValueError(
                    f"layers: {name!r} was not called by the network's forward"
                    if known
                    else f"layers: no layer {name!r}; there are {', '.join(list(modules)[1:] or [OUTPUT])}"
                )
    if not layers:
        raise ValueError(
            f"no layer to measure: {'; '.join(f'{name!r}: {why}' for name, why in left_out.items()) or 'none chosen'}"
        )
    return list(layers.values()), watched, left_out


def _of_other_axes(
    module: nn.Module, x: Tensor, layers: Mapping[str, Layer], watched: Mapping[str, set[str]]
) -> dict[str, tuple[int, ...]]:
    """Activations that have not as many rows as there are inputs, with their shapes."""
    found: dict[str, tuple[int, ...]] = {}

    def look(label: str, _name: str, _child: nn.Module, tensor: Tensor) -> None:
        if label in layers and (tensor.ndim == 0 or len(tensor) != len(x)):
            found[label] = tuple(tensor.shape)

    hooks = Hooks(module, look)
    with hooks.on({name for names in watched.values() for name in names}):
        hooks.run(x)
    return found


def _seen_as(tensor: Tensor, seen: list[tuple[str, weakref.ref[Tensor], int]]) -> str | None:
    """The activation that a tensor is, unchanged: itself, or the same memory under another shape."""
    with suppress(RuntimeError):
        for label, earlier, version in seen:
            found = earlier()
            # A tensor that is gone may have left its place in memory to another one.
            if found is None or found._version != version or tensor._version != version:
                continue
            if found is tensor or (
                found.data_ptr() == tensor.data_ptr()
                and found.numel() == tensor.numel()
                and found.is_contiguous()
                and tensor.is_contiguous()
            ):
                return label
    return None
