"""The modules that h1 runs: which they are, how they are put into eval mode, and where they live."""

from __future__ import annotations

import contextlib
import copy
import functools
import types
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

AModule = TypeVar("AModule", bound=nn.Module)


def module_behind(obj: Any) -> nn.Module | None:
    """Find the module that a callable runs: itself, or the owner of a bound method or partial.

    Example:
        >>> from torch import nn
        >>> model = nn.Linear(3, 2)
        >>> module_behind(model.forward) is model
        True
        >>> module_behind(print) is None
        True
    """
    while isinstance(obj, functools.partial):
        obj = obj.func
    if isinstance(obj, nn.Module):
        return obj
    owner = getattr(obj, "__self__", None)
    return owner if isinstance(owner, nn.Module) else None


def modules_behind(obj: Any) -> list[nn.Module]:
    """The modules that a callable runs, as far as they can be seen: in its closure, defaults, arguments, attributes.

    Example:
        >>> from torch import nn
        >>> old = nn.Linear(3, 2)
        >>> modules_behind(lambda x: old(x)) == [old]
        True
    """
    known = module_behind(obj)
    if known is not None or obj is None or isinstance(obj, type):
        return [] if known is None else [known]
    holders: list[Any] = []
    if isinstance(obj, functools.partial):
        holders = [*obj.args, *obj.keywords.values()]
        return [*_modules_in(holders), *modules_behind(obj.func)]
    if isinstance(obj, types.MethodType):
        return [*modules_behind(obj.__func__), *_modules_in(list(vars(obj.__self__).values()))]
    if isinstance(obj, types.FunctionType):
        for cell in obj.__closure__ or ():
            with contextlib.suppress(ValueError):  # a cell that is empty yet
                holders.append(cell.cell_contents)
        holders += [*(obj.__defaults__ or ()), *(obj.__kwdefaults__ or {}).values()]
        holders += [obj.__globals__[name] for name in obj.__code__.co_names if name in obj.__globals__]
        return _modules_in(holders)
    return _modules_in(list(getattr(obj, "__dict__", {}).values()))


def _modules_in(holders: list[Any]) -> list[nn.Module]:
    found: list[nn.Module] = []
    for holder in holders:
        parts = (
            holder.values() if isinstance(holder, dict) else holder if isinstance(holder, (list, tuple)) else [holder]
        )
        found += [part for part in parts if isinstance(part, nn.Module) and not any(part is each for each in found)]
    return found


def answers_of(network: nn.Module, call: Callable[[], Any]) -> list[Any]:
    """What a submodule answers while a function runs that calls it, or what it is a part of.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Flatten(), nn.Softmax(1))
        >>> answers_of(net[0], lambda: net(torch.ones(1, 2)))
        [tensor([[1., 1.]])]
    """
    outputs: list[Any] = []
    hook = network.register_forward_hook(lambda module, args, output: outputs.append(output))
    try:
        call()
    finally:
        hook.remove()
    return outputs


def copied(module: AModule) -> AModule:
    """A copy of a module, also where a step has left tensors with a history in its attributes.

    Such are the weights that the older hooks of torch compute (spectral and weight norm, pruning), and what somebody
    keeps of a step. In the copy they are values; those hooks compute theirs anew when it is called.

    Example:
        >>> import torch
        >>> from torch.nn.utils import spectral_norm
        >>> layer = spectral_norm(torch.nn.Linear(3, 2))
        >>> answer = layer(torch.ones(1, 3))  # copy.deepcopy(layer) fails from here on
        >>> copied(layer).weight.grad_fn is None, layer.weight.grad_fn is None
        (True, False)
    """
    held = [
        (vars(part), name, value)
        for part in module.modules()
        for name, value in vars(part).items()
        if isinstance(value, Tensor) and not value.is_leaf
    ]
    try:
        for own, name, value in held:
            own[name] = value.detach()
        # With gradients the weights of what torch.jit makes would be copied as something computed.
        with torch.no_grad():
            copied_module = copy.deepcopy(module)
    finally:
        for own, name, value in held:
            own[name] = value
    for own_weight, copied_weight in zip(module.parameters(), copied_module.parameters(), strict=True):
        if copied_weight.requires_grad != own_weight.requires_grad:
            copied_weight.requires_grad_(own_weight.requires_grad)
    return copied_module


def set_eval(module: nn.Module) -> None:
    """Put a module into eval mode, whatever its own `train` does."""
    if not _in_train_mode(module):
        return
    # A module made by torch.export has no modes; its flag is all there is to set.
    with contextlib.suppress(NotImplementedError):
        module.eval()
    for child in module.modules():
        # Some models override train() so that a part of them never leaves train mode.
        if getattr(child, "training", False):
            child.training = False


def _in_train_mode(module: nn.Module) -> bool:
    # Looked at on every step: several times faster than module.modules().
    waiting = [module]
    while waiting:
        child = waiting.pop()
        if getattr(child, "training", False):
            return True
        waiting.extend(inner for inner in child._modules.values() if inner is not None)
    return False


def device_of_module(module: nn.Module | None) -> torch.device | None:
    """Where a module lives; None where nothing tells."""
    first = None if module is None else next(chain(module.parameters(), module.buffers()), None)
    return None if first is None else first.device


def move(module: nn.Module, device: torch.device) -> None:
    """Move a module that lives on one device."""
    if device_of_module(module) in (None, device):
        return
    if len({tensor.device for tensor in chain(module.parameters(), module.buffers())}) > 1:
        # Somebody spread h1 over several devices; it takes care of its inputs itself.
        return
    # Validation runs in inference mode; parameters made there could not be used in training afterwards.
    with torch.inference_mode(False):
        module.to(device)


def device_of(values: Any) -> torch.device | None:
    """Find the device of the first tensor, also inside lists and mappings."""
    for value in values:
        if isinstance(value, Tensor):
            return value.device
        inside = None
        if isinstance(value, Mapping):
            inside = device_of(value.values())
        elif isinstance(value, (tuple, list)):
            inside = device_of(value)
        if inside is not None:
            return inside
    return None
