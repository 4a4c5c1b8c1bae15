"""Mixtures of a training batch's own inputs, two by two, about which h1 or the teacher is asked."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bc_core.losses._mixtures import first_share, says_not_mixed, shares
from bc_lightning.training._calls import Asked
from bc_lightning.training._tensors import mapped, tensors_in


def mixed(asked: Asked, step: int, process: int) -> Asked:
    """What the models are called with to be asked about mixtures: each instance with its partner, one share for all.

    Args:
        asked: what h2 was called with.
        step: how many batches were mixed before.
        process: which of the processes works on it.

    Raises:
        TypeError: inputs that are no floating tensors.
        ValueError: tensors that do not have an entry for each instance.
    """
    tensors = [tensor for tensor in tensors_in(asked[:2]) if tensor.ndim]
    sizes = {len(tensor) for tensor in tensors}
    if len(sizes) > 1:
        raise ValueError(
            "unlabelled='mixed' mixes all tensors that h2 is called with, so each must have an entry for each instance "
            f"of the batch. Received: tensors of shape {[tuple(tensor.shape) for tensor in tensors]}."
        )
    reached: list[Tensor] = []

    def with_partner(tensor: Tensor) -> Tensor:
        if not tensor.ndim:
            return tensor
        if not tensor.is_floating_point():
            raise TypeError(says_not_mixed(tensor.dtype))
        reached.append(tensor)
        if share.device != tensor.device:
            raise ValueError(f"The inputs of a batch lie on several devices: {share.device} and {tensor.device}.")
        weight = share.to(tensor.dtype).view(-1, *[1] * (tensor.ndim - 1))
        return tensor.flip(0).lerp(tensor, weight)

    share = torch.empty(0)
    if tensors:
        positions = torch.arange(len(tensors[0]), dtype=torch.float32, device=tensors[0].device)
        share = shares(positions, first_share(step, process))
    made = Asked(mapped(asked.args, with_partner), mapped(asked.kwargs, with_partner), asked.part)
    if len(reached) != len(tensors) or not reached:
        raise TypeError(
            "unlabelled='mixed' mixes tensors, also in tuples, lists and dictionaries, and h2 is called with "
            f"{', '.join(type(each).__name__ for each in (*asked.args, *asked.kwargs.values())) or 'nothing'}. Give "
            f"inputs without labels instead: unlabelled=loader."
        )
    return made
