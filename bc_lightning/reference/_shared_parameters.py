"""Whether h1 would be trained as a part of h2."""

from __future__ import annotations

from itertools import chain
from typing import Any

from torch import Tensor, nn

from bc_lightning.reference._modules import module_behind, modules_behind
from bc_lightning.reference._reference import Reference


def check_no_shared_parameters(h1: Any, h2: nn.Module) -> None:
    """Refuse an h1 whose weights or buffers are h2's, so that training h2 would change it.

    Args:
        h1: The old model: a module, or a callable or `Reference` that runs one. Anything else shares nothing.
        h2: The new model.

    Raises:
        ValueError: They share memory; the message names the first shared tensor on both sides.

    Example:
        >>> import copy
        >>> from torch import nn
        >>> h2 = nn.Linear(4, 2)
        >>> check_no_shared_parameters(copy.deepcopy(h2), h2)
        >>> check_no_shared_parameters(h2, h2)
        Traceback (most recent call last):
            ...
        ValueError: h1 and h2 are the same object, ...
    """
    if isinstance(h1, Reference) and h1.mixed is not None:
        for member in h1.mixed.members:
            check_no_shared_parameters(member, h2)
        return
    whole = h1.h1 if isinstance(h1, Reference) else h1
    h1 = module_behind(whole)
    if h1 is None:
        # What a function runs may be a frozen part of both, which no training changes.
        trained = {key for tensor in h2.parameters() if tensor.requires_grad for key in _identities(tensor)}
        parts = [tensor for part in modules_behind(whole) for _, tensor in _named_tensors(part)]
        if any(key in trained for tensor in parts for key in _identities(tensor)):
            raise ValueError(
                "h1 is a function that runs weights of h2, so training h2 would change h1. Let it run a copy: "
                "old = copy.deepcopy(h2), h1=lambda x: old(x)"
            )
        return
    remedy = "training h2 would change h1. Start h2 from a copy: h2 = copy.deepcopy(h1)"
    if h1 is h2:
        raise ValueError(f"h1 and h2 are the same object, so {remedy}")
    theirs: dict[int, str] = {}
    for name, tensor in _named_tensors(h2):
        for key in _identities(tensor):
            theirs.setdefault(key, name)
    for name, tensor in _named_tensors(h1):
        for key in _identities(tensor):
            if key in theirs:
                raise ValueError(f"h1's {name!r} is the same memory as h2's {theirs[key]!r}, so {remedy}")


def _named_tensors(module: nn.Module) -> chain[tuple[str, Tensor]]:
    return chain(module.named_parameters(), module.named_buffers())


def _identities(tensor: Tensor) -> list[int]:
    # Negative, so that an id can never look like an address.
    keys = [-id(tensor)]
    try:
        # A view has its own id and address; its storage tells.
        address = tensor.untyped_storage().data_ptr() if tensor.numel() else 0
    except (NotImplementedError, RuntimeError, ValueError):
        # Lazy parameters and some tensor subclasses have no storage to ask.
        address = 0
    return [*keys, address] if address else keys
