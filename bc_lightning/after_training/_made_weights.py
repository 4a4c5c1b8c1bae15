"""What belongs to weights that a network makes of others when it is called: singular vectors, masks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

# A step of a training makes one. With these the norm is right to 0.3 % wherever the second singular value is.
_ITERATIONS = 100


class Singular(NamedTuple):
    """The vectors by which a layer knows its weight's spectral norm.

    Attributes:
        names: Of the two, as buffers of the network.
        iterate: Brings them nearer to the largest singular value of the weight of now.
    """

    names: tuple[str, ...]
    iterate: Callable[[], Any]

    def estimate(self, vectors: Iterator[Tensor]) -> None:
        """Set the vectors to those of the weight of now, from wherever they are; no random number is drawn."""
        draw = torch.Generator().manual_seed(0)
        for vector in vectors:
            # Those of another weight may be at a right angle to the ones that are looked for.
            noise = torch.randn(vector.shape, generator=draw, dtype=torch.promote_types(vector.dtype, torch.float32))
            vector.add_(noise.to(vector))
        for _ in range(_ITERATIONS):
            self.iterate()


def singular_vectors(network: nn.Module) -> list[Singular]:
    """Those of all layers of a network that are held to a spectral norm, by a parametrization or a hook."""
    found = []
    for name, part in network.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(part, ParametrizationList):
            # A weight of one axis has none.
            normed = {number: each for number, each in part.named_children() if isinstance(each, _SpectralNorm)}
            names = tuple(f"{prefix}{number}.{own}" for number, each in normed.items() for own in each._buffers)
            if names:
                found.append(Singular(names, functools.partial(_iterated, part, list(normed.values()))))
        for hook in part._forward_pre_hooks.values():
            if isinstance(hook, SpectralNorm):
                names = tuple(f"{prefix}{hook.name}{which}" for which in ("_u", "_v"))
                found.append(Singular(names, functools.partial(hook.compute_weight, part, do_power_iteration=True)))
    return found


def _iterated(weight: ParametrizationList, normed: list[nn.Module]) -> None:
    before = [each.training for each in normed]
    try:
        for each in normed:
            each.training = True
        weight()
    finally:
        for each, training in zip(normed, before, strict=True):
            each.training = training


def of_one_network(network: nn.Module, singular: list[Singular]) -> set[str]:
    """Buffers between whose values nothing lies, although they are no whole numbers: masks, bases of a map."""
    known = {name for each in singular for name in each.names}
    found = set()
    for name, part in network.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(part, ParametrizationList):
            found |= {f"{prefix}{own}" for own, _ in part.named_buffers() if not own.startswith("original")}
        pruned = [hook for hook in part._forward_pre_hooks.values() if isinstance(hook, BasePruningMethod)]
        found |= {f"{prefix}{hook._tensor_name}_mask" for hook in pruned}
    return found - known


def make_anew(network: nn.Module) -> None:
    """Have hooks make their weights of those of now, which they would when the network is called."""
    for part in network.modules():
        for hook in part._forward_pre_hooks.values():
            if isinstance(hook, SpectralNorm):
                setattr(part, hook.name, hook.compute_weight(part, do_power_iteration=False))
            elif isinstance(hook, (WeightNorm, BasePruningMethod)):
                hook(part, None)


def layer_of(name: str) -> str:
    """The layer that a weight is of, also where the layer makes it of others.

    Example:
        >>> layer_of("0.bias"), layer_of("0.parametrizations.weight.original"), layer_of("parametrizations.weight.0._u")
        ('0', '0', '')
    """
    return f".{name}".rpartition(".")[0].split(".parametrizations.")[0].split(".parametrizations")[0].removeprefix(".")
