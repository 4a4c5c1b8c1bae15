"""Where a network's activations are met: forward hooks that look while a layer runs, and keep nothing."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from bc_core.invariance._layers import Finder, Labels, Met

# Called with the name of an activation, that of its module, the module and the tensor.
Look = Callable[[str, str, nn.Module, Tensor], None]


@contextmanager
def watching(module: nn.Module, look: Look, names: set[str] | None = None) -> Iterator[Callable[[Any], Any]]:
    """Hand every tensor that modules return to a function; afterwards, also after an error, no hook is left.

    Args:
        module: The network.
        look: Is told of each tensor.
        names: Of the modules to watch; None for all of them.

    Yields:
        A function that runs the network on inputs.
    """
    labels = Labels(lambda part: isinstance(part, Tensor))

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def met(child: nn.Module, _: Any, output: Any) -> None:
            for label, tensor in labels.of(name, output):
                look(label, name, child, tensor)

        return met

    def run(x: Any) -> Any:
        labels.begin()
        return module(x)

    handles = []
    try:
        for name, child in module.named_modules():
            if names is None or name in names:
                handles.append(child.register_forward_hook(hook(name)))
        yield run
    finally:
        for handle in handles:
            handle.remove()


def find_layers(module: nn.Module, x: Tensor, finder: Finder) -> None:
    """Run a network and see which activations it has.

    Args:
        module: The network, in eval mode.
        x: Inputs. The network is run a second time with one more, to tell their axis from one that has that length.
        finder: Takes note of them.
    """
    one_dimensional = any(type(child).__name__.endswith("1d") for child in module.modules())
    seen: list[tuple[str, weakref.ref[Tensor], int]] = []

    def look(label: str, name: str, child: nn.Module, tensor: Tensor) -> None:
        twin = _seen_as(tensor, seen)
        if twin is None:
            with suppress(RuntimeError):  # a tensor of inference_mode has no version
                seen.append((label, weakref.ref(tensor), tensor._version))
        axis = -1 if tensor.ndim == 3 and not one_dimensional else 0
        dtype, shape = str(tensor.dtype), tuple(tensor.shape)
        finder.look(Met(label, name, child, shape, dtype, tensor.is_floating_point(), axis, "channels_first", twin))

    with watching(module, look) as run:
        run(x)
    again = {finder.watched[label] for label in finder.layers}
    with watching(module, lambda label, _, __, tensor: finder.look_again(label, tuple(tensor.shape)), again) as run:
        run(torch.cat([x, x[:1]]))


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
