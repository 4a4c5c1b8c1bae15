"""Mixtures of a training batch's own inputs, two by two, about which h1 or the teacher is asked."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bc_core.losses._mixtures import ROUNDING, first_share, says_not_mixed, shares, taught
from bc_lightning._torch_operations import over_classes
from bc_lightning.losses._compatibility_loss import CompatibilityLoss
from bc_lightning.training.watching._calls import Asked
from bc_lightning.training.watching._tensors import mapped, storage_of, tensors_in


class Mixture(NamedTuple):
    """Mixtures of a batch's instances, each with its partner, the batch in reverse.

    Attributes:
        asked: what h1, or who is imitated, is called with to be asked about them.
        own: what h2 is; the same, unless h1 was said to take something else.
        share: of each instance in its mixture, (N,).
    """

    asked: Asked
    own: Asked
    share: Tensor

    @property
    def is_told_by_shapes(self) -> bool:
        """Whether shapes alone tell where the instances are: one tensor in each call, with one axis of so many."""
        return all(_is_told_by_shapes(call, len(self.share)) for call in (self.asked, self.own))

    def of(self, values: Tensor) -> Tensor:
        """Values of the instances, (N, ...), mixed alike."""
        return _mixed(values, self.share)

    def taught(self, criterion: CompatibilityLoss, answer: Tensor, target: Tensor, labels: float) -> Tensor:
        """Scores of what h2 is taught: what h1 says of the mixtures, and a share of their labels, mixed alike.

        Args:
            criterion: whose base reads the scores.
            answer: h1's scores of the mixtures, classes on axis 1; for ``base="nll"`` logits do too.
            target: of the instances, as the base takes it.
            labels: the share of the labels.
        """
        answer = answer.to(torch.promote_types(answer.dtype, torch.float32))
        binary, both = criterion.base == "binary_cross_entropy", None
        is_logits = not binary or criterion.options.get("from_logits", True)
        if binary:
            said, target = answer.sigmoid() if is_logits else answer, target.reshape(answer.shape)
        else:
            said = answer.softmax(1)
            if not target.is_floating_point():
                known = target != criterion.options.get("ignore_index", -100)
                target = F.one_hot(torch.where(known, target, 0), answer.shape[1]).movedim(-1, 1)
                both = (known & known.flip(0)).unsqueeze(1)
        blend: Tensor = taught(over_classes, said, self.of(target.to(said.dtype)), labels, both)
        if not is_logits:
            return blend
        return blend.logit(ROUNDING) if binary else blend.clamp_min(torch.finfo(blend.dtype).tiny).log()


def _is_told_by_shapes(call: Asked, size: int) -> bool:
    tensors = [tensor for tensor in tensors_in(call[:2]) if tensor.ndim]
    others = [each for each in (*call.args, *call.kwargs.values()) if not isinstance(each, (Tensor, *_SINGLE))]
    return len(tensors) == 1 and not others and size not in tensors[0].shape[1:]


# Of these there is none for each instance.
_SINGLE = (bool, int, float, str, type(None))


def reversed_call(call: Asked) -> Asked:
    """A call of a model about the instances in reverse."""
    args, kwargs = (mapped(given, lambda tensor: tensor.flip(0) if tensor.ndim else tensor) for given in call[:2])
    return Asked(args, kwargs, call.part)


def check_follows(call: Asked, answer: Tensor, of_reversed: Tensor) -> None:
    """Refuse a call whose instances are not along the first axis of all its tensors, and of nothing else.

    Then a model that is asked about them in reverse answers in reverse.

    Args:
        call: what the model was asked.
        answer: what it said, (N, ...).
        of_reversed: what it says of `reversed_call`.

    Raises:
        ValueError: It says something else.
    """
    if not answer.is_floating_point():
        return
    expected, found = answer.detach().flip(0).float(), of_reversed.detach().float()
    if expected.shape == found.shape:
        rough = answer.dtype in (torch.float16, torch.bfloat16) or torch.is_autocast_enabled(answer.device.type)
        rounding = (1e-2 if rough else 1e-4) * expected.abs().max()
        spread = (expected - answer.detach().float()).abs().max()
        if bool(((expected - found).abs() <= 0.05 * spread + rounding).all()):
            return
    kinds = [
        f"a tensor of shape {tuple(each.shape)}" if isinstance(each, Tensor) else f"a {type(each).__name__}"
        for each in (*call.args, *call.kwargs.values())
    ]
    raise ValueError(
        "unlabelled='mixed' mixes along the first axis of all tensors that a model is called with, and asked about the "
        "batch in reverse it does not give its answers in reverse: the instances stand along another axis of one of "
        "them, one has no entry for each, or something beside the tensors has. Call it with the instances first, in "
        f"tensors alone, or give inputs without labels, unlabelled=loader. Received: {', '.join(kinds)}."
    )


def _mixed(values: Tensor, share: Tensor) -> Tensor:
    return values.flip(0).lerp(values, share.to(values.dtype).view(-1, *[1] * (values.ndim - 1)))


def mixed(asked: Asked, own: Asked, step: int, process: int) -> Mixture:
    """Mixtures of what h1 and h2 are called with, one share of an instance for all of its tensors.

    Args:
        asked: what h1 is called with.
        own: what h2 is called with.
        step: how many batches were mixed before.
        process: which of the processes works on it.

    Raises:
        TypeError: inputs that are no floating tensors.
        ValueError: tensors that do not have an entry for each instance.
    """
    calls = {id(each): each for each in (asked, own)}
    tensors = [tensor for each in calls.values() for tensor in tensors_in(each[:2]) if tensor.ndim]
    sizes = {len(tensor) for tensor in tensors}
    if len(sizes) > 1:
        raise ValueError(
            "unlabelled='mixed' mixes all tensors that h2 and h1 are called with, so each must have an entry for each "
            f"instance of the batch; where they have not, give inputs without labels, unlabelled=loader. Received: "
            f"tensors of shape {[tuple(tensor.shape) for tensor in tensors]}."
        )
    share = torch.empty(0)
    if tensors:
        positions = torch.arange(len(tensors[0]), dtype=torch.float32, device=tensors[0].device)
        share = shares(positions, first_share(step, process))
    made = {key: _mixed_call(each, share) for key, each in calls.items()}
    return Mixture(made[id(asked)], made[id(own)], share)


def _mixed_call(asked: Asked, share: Tensor) -> Asked:
    tensors = [tensor for tensor in tensors_in(asked[:2]) if tensor.ndim]
    reached: list[Tensor] = []

    def with_partner(tensor: Tensor) -> Tensor:
        if not tensor.ndim:
            return tensor
        if not tensor.is_floating_point():
            raise TypeError(says_not_mixed(tensor.dtype))
        reached.append(tensor)
        if share.device != tensor.device:
            raise ValueError(f"The inputs of a batch lie on several devices: {share.device} and {tensor.device}.")
        return _mixed(tensor, share)

    made = Asked(mapped(asked.args, with_partner), mapped(asked.kwargs, with_partner), asked.part)
    if len(reached) != len(tensors) or not reached:
        raise TypeError(
            "unlabelled='mixed' mixes tensors, also in tuples, lists and dictionaries, and h2 is called with "
            f"{', '.join(type(each).__name__ for each in (*asked.args, *asked.kwargs.values())) or 'nothing'}. Give "
            f"inputs without labels instead: unlabelled=loader."
        )
    return made


_CASTS = {"long", "int", "short", "to", "type", "type_as"}
_LOOK_UPS = {"embedding", "embedding_bag", "one_hot", "__getitem__", "index_select"}


class NoCategories(TorchFunctionMode):
    """Within it a model that is asked about mixtures may not look up what it cuts to whole numbers: categories.

    Those come as floats where they stand in one table with measured columns. Reads values, so for a first batch.

    Raises:
        TypeError: it does.
    """

    def __init__(self) -> None:
        super().__init__()
        # By storage, and kept for as long as others could get the same.
        self._cut: dict[int, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See what a function of torch's makes of its arguments."""
        name, given = getattr(func, "__name__", ""), list(tensors_in((args, kwargs or {})))
        of_cut = any(storage_of(each) in self._cut for each in given)
        if name in _LOOK_UPS and of_cut:
            raise TypeError(says_not_mixed("float that are cut to whole numbers, to be looked up"))
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor) and made.dtype in _WHOLE and given:
            cut = name in _CASTS and given[0].is_floating_point() and bool((made != given[0]).any())
            if cut or of_cut:
                self._cut[storage_of(made)] = made
        return made


_WHOLE = (torch.int64, torch.int32, torch.int16)
