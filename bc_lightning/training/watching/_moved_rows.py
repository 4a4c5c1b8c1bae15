"""Whether what h2 answered for stands in the order that its loader brought, for which stored rows were brought."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bc_lightning.training.watching._tensors import other_labels, tensors_in, version_of

# So many of an instance's values tell it from the others.
_VALUES = 64


class _Brought(NamedTuple):
    tensor: Tensor
    version: int
    # One number for each instance.
    key: Tensor

    def key_as(self, dtype: torch.dtype) -> Tensor | None:
        """The key, or that of the rounded tensor where the Trainer's precision has rounded it since."""
        if dtype == self.tensor.dtype:
            return self.key
        if not (dtype.is_floating_point and self.tensor.is_floating_point()) or version_of(self.tensor) != self.version:
            return None
        return _key_of(self.tensor.to(dtype), len(self.key))


class AsBrought:
    """A batch as its loader brought it, before the user's hooks: its target, and a key for each instance.

    Args:
        batch: the user's batch.
        target: its target, where that can be found.
        size: number of its instances, for which rows were brought.
    """

    def __init__(self, batch: Any, target: Tensor | None, size: int) -> None:
        self.target = target
        self._target_version = 0 if target is None else version_of(target)
        self._brought = [
            _Brought(tensor, version_of(tensor), key)
            for tensor in tensors_in(batch)
            if (key := _key_of(tensor, size)) is not None
        ]

    def changed(self, batch: Any, given: tuple[Any, ...], target: Tensor) -> bool | Tensor:
        """Whether the instances that h2 answered for are others, or in another order; a flag where devices would wait.

        Args:
            batch: the user's batch as the step got it.
            given: what h2 was called with.
            target: what the step was trained on, or is evaluated by.
        """
        verdicts = [self._other_target(target), *self._moved(batch, given)]
        flags = [verdict for verdict in verdicts if isinstance(verdict, Tensor)]
        if any(verdict is True for verdict in verdicts):
            return True
        return functools.reduce(torch.logical_or, flags) if flags else False

    def _other_target(self, target: Tensor) -> bool | Tensor:
        own = self.target
        if own is None or (own is target and version_of(own) == self._target_version):
            return False
        if own.shape != target.shape or own.is_floating_point() != target.is_floating_point():
            return True
        if own.device.type == target.device.type == "cpu":
            return (fault := other_labels(own, target)) is not None and bool(fault)
        return (own.to(target.device, non_blocking=True) != target).any()

    def _moved(self, batch: Any, given: tuple[Any, ...]) -> Iterator[bool | Tensor]:
        now = list(tensors_in(batch))
        same_place = zip(self._brought, now, strict=True) if len(now) == len(self._brought) else ()
        called = list(tensors_in(given))
        pairs = chain(same_place, ((brought, tensor) for brought in self._brought for tensor in called))
        for brought, tensor in pairs:
            if tensor is brought.tensor and version_of(tensor) == brought.version:
                continue
            before, key = brought.key_as(tensor.dtype), _key_of(tensor, len(brought.key))
            if tensor.shape == brought.tensor.shape and before is not None and key is not None:
                yield _in_another_order(before.to(key.device, non_blocking=True), key)


def _in_another_order(before: Tensor, now: Tensor) -> bool | Tensor:
    """Whether all of these are among those, and not in their places; most of those must differ from each other."""
    known = before.sort().values
    found = known[torch.searchsorted(known, now).clamp(max=len(known) - 1)] == now
    telling = 2 * (known.diff() != 0).sum() >= len(known)
    moved = found.all() & (before != now).any() & telling
    return bool(moved) if moved.device.type == "cpu" else moved


def _key_of(tensor: Tensor, size: int) -> Tensor | None:
    """A number for each instance, of some of its values; None of what has no values for each instance."""
    if size < 2 or tensor.shape[:1] != (size,) or tensor.is_complex() or tensor.layout != torch.strided:
        return None
    kind = torch.float32 if tensor.device.type == "mps" else torch.float64
    with suppress(RuntimeError, TypeError, NotImplementedError), torch.no_grad():
        places, weights = _places(tensor.shape[1:], tensor.device, kind)
        chosen: tuple[slice | Tensor, ...] = (slice(None), *places)
        values = tensor.detach()[chosen] if places else tensor.detach()[:, None]
        return (torch.nan_to_num(values.to(kind)) * weights).sum(1)
    return None


@functools.lru_cache(maxsize=64)
def _places(shape: torch.Size, device: torch.device, kind: torch.dtype) -> tuple[tuple[Tensor, ...], Tensor]:
    """Which values of an instance are looked at, spread over it, and what each is multiplied by."""
    entries = max(1, shape.numel())
    chosen = np.linspace(0, entries - 1, min(entries, _VALUES)).round().astype(np.int64)
    with torch.inference_mode(False):
        places = (
            tuple(torch.as_tensor(each, device=device) for each in np.unravel_index(chosen, shape)) if shape else ()
        )
        weights = np.random.default_rng(0).uniform(1, 2, len(chosen))
        return places, torch.as_tensor(weights, device=device, dtype=kind)
