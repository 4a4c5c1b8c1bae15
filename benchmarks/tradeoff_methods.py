"""The methods that `tradeoff.py` compares: what each trains, and what it makes of the trained networks.

A method has settings, a front of them: a row per setting and seed. Losses are the library's; what it has not is written
out here: imitation on mixed inputs, and means of weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from crowd import Batch, Loss
from torch import Tensor

from bc_lightning import CompatibilityLoss

PLAINS = 5  # the first is compared; the others are its noise floor, and what teachers are made of
ALPHAS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)  # shares of h1 in weights and answers
RATIOS = (0.8, 1.0, 1.25, 1.5, 2.0, 3.0)  # how much surer h2 has to be


class Trained(NamedTuple):
    """One setting of a method that trains h2.

    Attributes:
        method: whose front it is on.
        setting: what varies along it.
        loss: of a batch.
        teacher: None for h1, or h1's share in a blend with the mean of the four other plain networks.
        mixes: whether the teacher is asked about mixed inputs.
        interpolates: whether weights between h1 and it are a method of their own, where both are of one form.
        brief: whether it is run on every update, not on the main ones alone.
    """

    method: str
    setting: str
    loss: Loss
    teacher: float | None = None
    mixes: bool = False
    interpolates: bool = False
    brief: bool = True


def plain(batch: Batch) -> Tensor:
    """Cross-entropy."""
    return len(batch.h2) * F.cross_entropy(batch.h2.flatten(0, 1), batch.target.flatten())


def compatible(dissonance: str, lambda_c: float, normalization: str = "batch", **options: Any) -> Loss:
    """The library's loss of each member; plain where h1 does not know the class."""
    criterion = CompatibilityLoss(
        "cross_entropy",
        dissonance,  # type: ignore[arg-type]
        lambda_c,
        normalization,  # type: ignore[arg-type]
        validate_args=False,
        **options,
    )

    def loss(batch: Batch) -> Tensor:
        if normalization == "support":  # each member has its own
            return torch.stack(
                [criterion(*one) for one in zip(batch.h2, batch.target, batch.teacher, strict=True)]
            ).sum()
        h2, target, h1 = batch.h2.flatten(0, 1), batch.target.flatten(), batch.teacher.flatten(0, 1)
        if batch.known is None:
            return len(batch.h2) * criterion(h2, target, h1)
        held = criterion(h2, target, h1, reduction="none")
        free = F.cross_entropy(h2, target, reduction="none")
        return len(batch.h2) * torch.where(batch.known.flatten(), held, free).mean()

    return loss


def mixed(lambda_c: float, beside: Loss = plain) -> Loss:
    """A loss, and imitation on mixed inputs."""

    def loss(batch: Batch) -> Tensor:
        assert batch.h2_mixed is not None
        assert batch.teacher_mixed is not None
        imitated = F.cross_entropy(batch.h2_mixed.flatten(0, 1), batch.teacher_mixed.softmax(-1).flatten(0, 1))
        return beside(batch) + lambda_c * len(batch.h2) * imitated

    return loss


def _front(
    method: str,
    make: Callable[[float], Loss],
    values: tuple[float, ...],
    what: str = "lambda_c",
    **more: Any,
) -> list[Trained]:
    return [Trained(method, f"{what}={value:g}", make(value), **more) for value in values]


def _of(dissonance: str, normalization: str = "batch", **options: Any) -> Callable[[float], Loss]:
    return lambda lambda_c: compatible(dissonance, lambda_c, normalization, **options)


def trained() -> list[Trained]:
    """All settings of all methods that train, but for plain training."""
    ours = [
        *_front("original: new error", _of("new_error", "support"), (1.0, 4.0, 16.0)),
        *_front("original: strict imitation", _of("strict_imitation", "support"), (1.0, 4.0, 16.0)),
        *_front("new error", _of("new_error"), (1.0, 16.0)),
        *_front("new error", _of("new_error"), (4.0,), interpolates=True),
        *_front("strict imitation", _of("strict_imitation"), (1.0, 4.0, 16.0)),
        *_front("imitation", _of("imitation"), (0.3, 1.0, 3.0)),
    ]
    blends = [
        Trained("distilled blend", f"alpha={alpha:g}", compatible("imitation", 4.0), teacher=alpha)
        for alpha in (0.2, 0.4, 0.6)
    ]
    on_mixed = [
        *_front("imitation on mixed inputs", mixed, (0.3, 1.0, 3.0), mixes=True),
        *(
            Trained(
                "distilled blend, mixed inputs",
                f"alpha={alpha:g}",
                mixed(4.0, compatible("imitation", 4.0)),
                teacher=alpha,
                mixes=True,
            )
            for alpha in (0.2, 0.4, 0.6)
        ),
    ]
    return [*ours, *blends, *on_mixed]
