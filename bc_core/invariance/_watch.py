"""What a callback is given that compares while h2 is trained, and what it tells."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from bc_core._numbers import check_count
from bc_core.invariance._transform_set import check_identity
from bc_core.invariance._update import InvarianceUpdate

_LOGGED = ("consistency_h1", "consistency_h2", "negative_flip_rate")


def check_watch(
    data: Any, transforms: Any, every: Any, options: Mapping[str, Any], compare: Callable[..., InvarianceUpdate]
) -> None:
    """Refuse what would fail only after an epoch.

    Args:
        data: What to compare on.
        transforms: The transformations.
        every: Compare after every so many epochs.
        options: Further arguments of `compare_invariance`.
        compare: `compare_invariance` of the framework.

    Raises:
        TypeError: If the transformations are no `TransformSet`, data can be gone through only once, or an option is
            unknown.
        ValueError: If the identity is not among the transformations, or `every` is below 1.
    """
    check_identity(transforms)
    if hasattr(data, "__next__"):
        raise TypeError(
            "data are gone through at every comparison, which an iterator cannot be: pass arrays, a data set, a data "
            f"loader or list(data). Received: {type(data).__name__}."
        )
    known = inspect.signature(compare).parameters
    if unknown := [name for name in options if name not in known]:
        near = get_close_matches(unknown[0], known, 1)
        raise TypeError(
            f"{unknown[0]} is no option of compare_invariance{f'; perhaps {near[0]}' if near else ''}. It takes "
            f"{', '.join(list(known)[4:])}."
        )
    check_count(every, "every")


def logged(update: InvarianceUpdate, prefix: str) -> dict[str, float]:
    """The numbers of a comparison that are told after each epoch, by name."""
    return {f"{prefix}{name}": float(getattr(update, name)) for name in _LOGGED}


def without_layers(update: InvarianceUpdate) -> InvarianceUpdate:
    """A comparison small enough to keep one for each epoch."""
    return replace(update, h1=None, h2=None, intervals={})
