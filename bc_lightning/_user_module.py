"""What can be told of the module that somebody wrote: which Lightning it is of, and where its network is."""

from __future__ import annotations

import sys
from typing import Any

from torch import nn

from bc_lightning._packages import PACKAGES


def class_of(module: nn.Module) -> str:
    """The name of a module's class, as its author knows it."""
    return type(module).__name__


def lightning_module_class(kind: type[Any]) -> Any:
    """The LightningModule that a class derives from, of pytorch_lightning or lightning.pytorch, or None."""
    for package in PACKAGES:
        base = getattr(sys.modules.get(package), "LightningModule", None)
        if base is not None and issubclass(kind, base):
            return base
    return None


def lacks_forward(model: nn.Module) -> bool:
    """Whether a LightningModule has no forward of its own, so that it can't be called."""
    base = lightning_module_class(type(model))
    if base is None:
        return False
    kind = getattr(type(model), "_user_class", type(model))
    return kind.forward is base.forward


def only_network(model: nn.Module) -> str | None:
    """The one child with weights of a module without a forward of its own: no other can give the scores."""
    if not lacks_forward(model) or next(model.parameters(recurse=False), None) is not None:
        return None
    names = [name for name, child in model.named_children() if next(child.parameters(), None) is not None]
    return names[0] if len(names) == 1 else None


def of_one_kind(h1: object, h2: nn.Module) -> bool:
    """Whether h1 was made as h2 is, so that what is said of h2's outputs and submodules holds for h1's.

    Classes of torch itself, such as ``Sequential``, say nothing of what is inside.
    """
    if not isinstance(h1, nn.Module):
        return False
    kinds = [getattr(type(model), "_user_class", type(model)) for model in (h1, h2)]
    if any(kind.__module__.split(".")[0] == "torch" for kind in kinds):
        return False
    old, new = kinds
    if lightning_module_class(new) in (old, new) and new is not old:
        return False
    return issubclass(old, new) or issubclass(new, old)


def has_scores(h1: nn.Module, scores: object) -> bool:
    """Whether what is said of h2's scores can be said of h1's: a submodule that it has too, or a function."""
    return not isinstance(scores, str) or scores in {name for name, _ in h1.named_modules()}
