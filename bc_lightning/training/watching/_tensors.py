"""Tensors inside of what people pass around: batches, arguments, outputs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

# A batch of graphs keeps its tensors three attributes deep.
_DEPTH = 5
# A longer list that does not begin with a tensor holds none.
_LONG = 256


def tensors_in(nested: Any, depth: int = _DEPTH) -> Iterator[Tensor]:
    """All tensors of a nested value, also those that are attributes of an object, such as a batch of graphs."""
    kind = type(nested)
    if kind is Tensor or isinstance(nested, Tensor):
        yield nested
    elif kind is list or kind is tuple:
        if len(nested) > _LONG and not isinstance(nested[0], Tensor):
            # Rows of numbers or texts.
            return
        # Nearly all there is, and several times faster than asking what kind of sequence it is.
        for value in nested:
            if type(value) is Tensor:
                yield value
            else:
                yield from tensors_in(value, depth - 1)
    elif depth == 0 or nested is None or isinstance(nested, (str, bytes, int, float, type)) or callable(nested):
        return
    elif isinstance(nested, Mapping):
        for value in nested.values():
            yield from tensors_in(value, depth - 1)
    elif isinstance(nested, Sequence):
        for value in nested:
            yield from tensors_in(value, depth - 1)
    else:
        for value in getattr(nested, "__dict__", {}).values():
            if not isinstance(value, (Dataset, nn.Module)):
                yield from tensors_in(value, depth - 1)


def mapped(nested: Any, fn: Callable[[Tensor], Any]) -> Any:
    """The same nested lists, tuples and mappings with a function applied to each tensor; other objects as they are."""
    if isinstance(nested, Tensor):
        return fn(nested)
    if type(nested) in (dict, OrderedDict):
        return type(nested)((key, mapped(value, fn)) for key, value in nested.items())
    if isinstance(nested, tuple) and hasattr(nested, "_fields"):
        return type(nested)(*(mapped(value, fn) for value in nested))
    if type(nested) in (tuple, list):
        return type(nested)(mapped(value, fn) for value in nested)
    return nested


def storage_of(tensor: Tensor) -> int:
    """Which memory a tensor looks at; views of one tensor have one."""
    try:
        return tensor.untyped_storage().data_ptr() or -id(tensor)
    except (NotImplementedError, RuntimeError):
        # Some tensor subclasses have no storage to ask.
        return -id(tensor)


def version_of(tensor: Tensor) -> int:
    """How often a tensor was changed in place; tensors of inference mode do not count it."""
    try:
        return tensor._version
    except RuntimeError:
        return 0


def leads_to(scores: Tensor, loss: Tensor) -> bool:
    """Whether a loss was computed from scores, by what autograd has noted of it."""
    # Nothing was noted of scores without a gradient; that they have none is told elsewhere.
    return scores.grad_fn is None or any(node is scores.grad_fn for node in _behind(loss))


def parameters_behind(value: Tensor) -> set[int]:
    """The ids of all parameters that a value was computed from."""
    return {id(node.variable) for node in _behind(value) if hasattr(node, "variable")}


def has_label_loss(loss: Tensor, scores: Tensor) -> bool:
    """Whether a loss of labels of torch's is in what was computed from scores."""
    return any(node.name().startswith(("NllLoss", "BinaryCrossEntropy")) for node in _behind(loss, scores.grad_fn))


def is_compiled(loss: Tensor, output: Any) -> bool:
    """Whether a compiled graph stands between an output of h2 and a loss, so that none of torch's calls were seen."""
    ends = [tensor.grad_fn for tensor in tensors_in(output)]
    return any(node.name().startswith("CompiledFunction") for node in _behind(loss, *ends))


def _behind(loss: Tensor, *ends: Any) -> Iterator[Any]:
    """What autograd has noted that a loss was computed by, but for what is behind some ends."""
    waiting: list[Any] = [loss.grad_fn]
    seen = {*ends, None}
    while waiting:
        node = waiting.pop()
        if node not in seen:
            yield node
            seen.add(node)
            waiting += [before for before, _ in node.next_functions]


def _is_value(tensor: Tensor, size: int) -> bool:
    return tensor.is_floating_point() or (tensor.dtype != torch.bool and (size < 0 or tensor.shape[:1] == (size,)))


class Members:
    """The tensors that a batch held when the step began, and whether they are still what they were."""

    def __init__(self, batch: Any) -> None:
        # Most steps give h2 the very tensors of the batch, so memory is looked at only where that is not so.
        self._versions = {id(tensor): (tensor, version_of(tensor)) for tensor in tensors_in(batch)}

    @property
    def unchanged(self) -> set[int]:
        """Memory of those that the step has not changed in place."""
        kept = self._versions.values()
        own = {storage_of(tensor) for tensor, version in kept if version_of(tensor) == version}
        return own - {storage_of(tensor) for tensor, version in kept if version_of(tensor) != version}

    def given_to(self, args: tuple[Any, ...], kwargs: dict[str, Any], size: int = -1) -> bool:
        """Whether a call got the batch's own values: all its floating tensors, and all of integers for its instances.

        Positions and masks that a step makes are no values: they don't have an entry for each of the `size` instances,
        or are bool. A size of -1 is not known.
        """
        given = [tensor for tensor in tensors_in((args, kwargs)) if _is_value(tensor, size)]
        if not given or all(self._is_own(tensor) for tensor in given):
            return bool(given)
        own = self.unchanged
        return all(storage_of(tensor) in own for tensor in given)

    def _is_own(self, tensor: Tensor) -> bool:
        own, version = self._versions.get(id(tensor), (None, 0))
        return own is tensor and version_of(tensor) == version


def other_labels(one: Tensor, other: Tensor, binary: bool = False) -> Tensor | None:
    """Whether two targets name other classes, as labels, columns, one-hot or smoothed rows: one bool, on their device.

    Probabilities that are neither one-hot nor smoothed (mixed, or a teacher's) name no class: only their like is the
    same. Values of tensors at hand are read; others are not waited for. None where it can't be told.

    Args:
        one: a target.
        other: another.
        binary: whether each column is a label of its own, so that two targets of one shape are compared entry by entry.
    """
    one, other = one.detach(), other.detach()
    if one.device != other.device or 0 in (one.numel(), other.numel()) or one.is_complex() or other.is_complex():
        return None
    vague: Tensor | bool = False
    if one.numel() != other.numel():
        longer, shorter = (one, other) if one.numel() > other.numel() else (other, one)
        if longer.ndim < 2 or longer.numel() // longer.shape[1] != shorter.numel():
            return None
        vague = ~_is_hard(longer) if longer.is_floating_point() else False
        one, other = longer.argmax(1), shorter
    elif not binary and _are_rows(one) and _are_rows(other) and one.shape == other.shape:
        differ = ~((one.float() - other.float()).abs() < _ROUNDING).all()
        return differ & ~(_is_hard(one) & _is_hard(other) & (one.argmax(1) == other.argmax(1)).all())
    one, other = (target.reshape(-1).to(torch.float64) for target in (one, other))
    differ = (one != other).any() | vague
    if one.device.type == "cpu" and not bool(differ):
        return differ
    return differ & (vague | ~(_is_written(one, other) | _is_written(other, one)))


# Half precision keeps three digits.
_ROUNDING = 1e-2


def _are_rows(target: Tensor) -> bool:
    return target.ndim > 1 and target.shape[1] > 1 and target.is_floating_point()


def _is_hard(target: Tensor) -> Tensor:
    """Whether rows of probabilities say one class each: one-hot, or smoothed, which is alike in every row."""
    rows = target.detach().float().movedim(1, -1)
    most, least, classes = rows.amax(-1), rows.amin(-1), rows.shape[-1]
    alike = (rows.sum(-1) - most - (classes - 1) * least).abs() < _ROUNDING * (1 - least * classes).clamp_min(1e-6)
    return alike.all() & ((most.max() - most.min()) < _ROUNDING)


def _is_written(written: Tensor, plain: Tensor) -> Tensor:
    """Whether one is the other, labels of a binary model, in another way: smoothed, or as -1 and 1."""
    is_binary = ((plain == 0) | (plain == 1)).all() & (written.abs() <= 1).all()
    signed, whole = (written < 0).any(), (written == written.round()).all()
    positive = (written > 0.5) | ((written > 0) & signed)
    return is_binary & (signed | ~whole) & (positive == (plain == 1)).all()


def place_of(tensor: Tensor) -> tuple[int, int]:
    """Where a tensor's entries begin in memory, and how many they are."""
    try:
        return tensor.data_ptr() or -id(tensor), tensor.numel()
    except (NotImplementedError, RuntimeError):
        return -id(tensor), tensor.numel()
