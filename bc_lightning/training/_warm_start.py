"""`warm_start`: h2 begins with h1's weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, cast

import torch
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor, nn

from bc_core.reference._class_map import ClassMap
from bc_core.reference._weights import WarmStart, matched, renaming, shapes_of
from bc_lightning.reference._modules import module_behind
from bc_lightning.reference._reference import Reference
from bc_lightning.reference._shared_parameters import check_no_shared_parameters


def warm_start(h2: nn.Module, h1: Any, class_map: Sequence[Any] | Mapping[str, Any] | None = None) -> WarmStart:
    """Copy h1's weights into h2, where names and shapes match.

    Parameters and buffers are copied in place, in h2's types and on its devices: an optimiser that was made of h2's
    parameters goes on with the new values, and nothing is shared. Where no name is in both models, the network of one
    may be a part of the other, as ``model`` of a LightningModule is; names are then compared from there. Call it before
    the first step: what h2 had learned, where it is copied over, is lost, and the moments of an optimiser that has made
    steps are of other weights.

    Args:
        h2: The update, as it was made.
        h1: The model in use: a module, or a `Reference` to one.
        class_map: For an h1 with other classes, as in `BCLightningModule`; that of a `Reference` by default. The layer
            that gives the scores is then copied class by class: new classes keep h2's own, parts of a class that was
            split begin as the whole, merged ones as the mean.

    Returns:
        What was copied and what was not, and why; as text with ``print``.

    Raises:
        TypeError: h1 is no module, so it has no weights to copy.
        ValueError: No weight fits; h1 and h2 share weights; one has lazy layers that have no shape yet; or by the class
            map classes are in another order, and which layer gives the scores cannot be told.

    Example:
        >>> import torch
        >>> from bc_lightning import warm_start
        >>> def net(classes):
        ...     return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, classes))
        >>> h1, h2 = net(3), net(5)
        >>> report = warm_start(h2, h1)
        >>> report.copied, torch.equal(h1[0].weight, h2[0].weight)
        (('0.weight', '0.bias'), True)
        >>> report.left["2.bias"]
        '(3,) in h1, (5,) in h2'
    """
    old, new = weights_behind(h1, "h1"), network_of(h2)
    check_no_shared_parameters(old, new)
    first, second = tensors_of(old, "h1"), tensors_of(new, "h2")
    shapes_1, shapes_2 = shapes_of(first), shapes_of(second)
    to_h2 = renaming(shapes_1, shapes_2)
    if class_map is None and isinstance(h1, Reference):
        class_map = h1.class_map
    report = matched(shapes_1, shapes_2, to_h2, None if class_map is None else ClassMap.of(class_map))
    of_h2 = {to_h2(name): tensor for name, tensor in first.items()}
    # A compiled or averaged h2 may be under inference mode's own tensors; these are to be trained.
    with torch.inference_mode(False), torch.no_grad():
        for name in (name for name in report.copied if name not in report.head):
            second[name].copy_(of_h2[name])
        for name in report.head:
            for c, sources in report.rows.items():
                second[name][c].copy_(
                    of_h2[name][list(sources)].mean(0) if len(sources) > 1 else of_h2[name][sources[0]]
                )
    return report


def started(h2: nn.Module, h1: Any, optimizer: Any = None) -> None:
    """Warm start h2 for a training, and say what was copied.

    Raises:
        ValueError: The optimiser has made steps, whose moments are of other weights.
    """
    if isinstance(optimizer, torch.optim.Optimizer) and optimizer.state:
        raise ValueError(
            "The optimiser has made steps, and what it remembers is of the weights before start_from='h1': make it "
            "anew, or leave start_from out to train on."
        )
    rank_zero_info(str(warm_start(h2, h1)))


def weights_behind(h1: Any, called: str) -> nn.Module:
    """The module whose weights are taken.

    Raises:
        TypeError: There is none.
    """
    given = h1.h1 if isinstance(h1, Reference) else h1
    module = module_behind(given) if isinstance(given, nn.Module) else None
    if module is None:
        raise TypeError(
            f"{called} must be a module, as its weights are taken. A function or stored outputs have none: pass the "
            f"old model itself. Received: {type(given).__name__}."
        )
    return network_of(module)


def network_of(module: nn.Module) -> nn.Module:
    """The user's own network: what `torch.compile` and the steps of a plain module are around."""
    if isinstance(module, torch._dynamo.OptimizedModule):
        module = module._orig_mod
    states = getattr(module, "_compatibilities", None)
    if states and states[0].options.supplies_base:
        return cast("nn.Module", module.model)
    return module


def tensors_of(module: nn.Module, called: str) -> dict[str, Tensor]:
    """All parameters and buffers by name; tied ones under each of their names.

    Raises:
        ValueError: A lazy layer has no shape yet, or weights are sharded.
    """
    found = dict(chain(module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False)))
    lazy = [name for name, tensor in found.items() if nn.parameter.is_lazy(tensor)]
    if lazy:
        raise ValueError(
            f"{called} has lazy layers, which have no weights before the first batch: call it on one batch first, "
            f"{called}(x). Received: {lazy[0]!r} without a shape."
        )
    if any(type(tensor).__name__ == "DTensor" for tensor in found.values()):
        raise ValueError(
            f"{called}'s weights are sharded over processes, of which each holds a part: do it before or after the "
            "training, with a whole model."
        )
    return found
