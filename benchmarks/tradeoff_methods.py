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

from bc_core.losses._mixtures import LABELS
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
        averaged: whether the means of its weights over the later half of the epochs are a method too.
        interpolates: whether weights between h1's and its are a method too, where h2 started from h1; the averaged ones
            where there are.
    """

    method: str
    setting: str
    loss: Loss
    teacher: float | None = None
    mixes: bool = False
    averaged: bool = False
    interpolates: bool = False
    everywhere: bool = False


def plain(batch: Batch) -> Tensor:
    """Cross-entropy with labels or probabilities."""
    return len(batch.h2) * F.cross_entropy(batch.h2.flatten(0, 1), batch.target.flatten(0, 1))


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
        h2, target, h1 = batch.h2.flatten(0, 1), batch.target.flatten(0, 1), batch.teacher.flatten(0, 1)
        if batch.known is None:
            return len(batch.h2) * criterion(h2, target, h1)
        held = criterion(h2, target, h1, reduction="none")
        free = F.cross_entropy(h2, target, reduction="none")
        return len(batch.h2) * torch.where(batch.known.flatten(), held, free).mean()

    return loss


def imitating_mixed(lambda_c: float, beside: Loss = plain) -> Loss:
    """A loss of the batch, and imitation of the teacher on mixed inputs."""

    def loss(batch: Batch) -> Tensor:
        assert batch.mixed is not None
        teacher = batch.mixed.teacher.softmax(-1).flatten(0, 1)
        return beside(batch) + lambda_c * len(batch.h2) * F.cross_entropy(batch.mixed.h2.flatten(0, 1), teacher)

    return loss


def taught_on_mixed(dissonance: str, lambda_c: float) -> Loss:
    """What ``unlabelled="mixed"`` adds by default, times lambda_c, to a loss of the library."""
    beside = compatible(dissonance, lambda_c)

    def loss(batch: Batch) -> Tensor:
        assert batch.mixed is not None
        target = batch.mixed.teacher.softmax(-1).lerp(batch.mixed.target, LABELS).flatten(0, 1)
        of_mixed = F.cross_entropy(batch.mixed.h2.flatten(0, 1), target)
        return beside(batch) + lambda_c * len(batch.h2) * of_mixed

    return loss


def on_mixed(loss: Loss, beside: Loss, weight: float = 2.0) -> Loss:
    """A loss of the batch, and one of mixed inputs with mixed labels (mixup)."""

    def of_both(batch: Batch) -> Tensor:
        assert batch.mixed is not None
        return weight * loss(batch.mixed) + beside(batch)

    return of_both


def _also_on_mixed(make: Callable[[float], Loss]) -> Callable[[float], Loss]:
    """A loss of the batch, and the same of mixed inputs with mixed labels."""
    return lambda lambda_c: on_mixed(make(lambda_c), make(lambda_c), 1.0)


def _front(
    method: str,
    make: Callable[[float], Loss],
    values: tuple[float, ...],
    everywhere: tuple[float, ...] = (),
    what: str = "lambda_c",
    **more: Any,
) -> list[Trained]:
    """A setting for each value; those in `everywhere` are run on every update."""
    return [Trained(method, f"{what}={v:g}", make(v), everywhere=v in everywhere, **more) for v in values]


def _of(dissonance: str, normalization: str = "batch", **options: Any) -> Callable[[float], Loss]:
    return lambda lambda_c: compatible(dissonance, lambda_c, normalization, **options)


def trained() -> list[Trained]:
    """All settings of all methods that train, but for plain training."""
    best: dict[str, Any] = {"mixes": True, "averaged": True, "interpolates": True}
    imitation, ldi = _of("imitation"), _of("logit_difference_inhibition")
    mixed = (0.25, 0.5, 1.0)
    new_error, strict, lambdas = _of("new_error"), _of("strict_imitation"), (1.0, 4.0, 16.0)
    return [
        *_front("original: new error", _of("new_error", "support"), lambdas, lambdas),
        *_front("original: strict imitation", _of("strict_imitation", "support"), lambdas, lambdas),
        *_front("new error", new_error, (0.25, *lambdas), (0.25, 1.0, 4.0), averaged=True, interpolates=True),
        *_front("strict imitation", strict, lambdas, averaged=True),
        *_front("imitation", imitation, (0.5, 1.0, 2.0, 4.0), averaged=True),
        *_front("churn", _of("churn"), (0.3, 0.5, 0.7), (0.5,), averaged=True, interpolates=True),
        *_front("focal distillation", _of("focal_distillation"), (0.1, 0.3, 1.0), averaged=True, interpolates=True),
        *_front("logit distance", _of("logit_distance"), (0.03, 0.1, 0.3), averaged=True, interpolates=True),
        *_front("logit difference inhibition", ldi, (0.1, 0.5, 2.0), (0.1, 0.5), averaged=True, interpolates=True),
        *_front("anchor", _of("anchor"), (0.5, 1.0)),
        *_front("where h1 is surer", _of("where_h1_is_surer"), (1.0, 4.0)),
        *_front("where h2 is wrong", _of("where_h2_is_wrong"), (1.0, 4.0)),
        *_front("distilled blend", lambda _: compatible("imitation", 4.0), (0.2,), what="alpha", teacher=0.2),
        *_front("distilled blend", lambda _: compatible("imitation", 4.0), (0.4,), (0.4,), "alpha", teacher=0.4),
        # From here on inputs are mixed.
        *_front("plain on mixed inputs", lambda _: on_mixed(plain, plain), (0.0,), (0.0,), mixes=True),
        *_front(
            "recommended", lambda lambda_c: taught_on_mixed("imitation", lambda_c), (*mixed, 2.0, 4.0), mixed, **best
        ),
        *_front("imitation on mixed inputs", imitating_mixed, (0.3, 1.0), mixes=True),
        *(
            Trained(
                "distilled blend, mixed inputs",
                f"alpha={alpha:g}",
                imitating_mixed(4.0, compatible("imitation", 4.0)),
                teacher=alpha,
                mixes=True,
                averaged=True,
                everywhere=alpha == 0.4,
            )
            for alpha in (0.2, 0.4)
        ),
        *_front("imitation, also on mixed inputs", _also_on_mixed(imitation), (0.5, 1.0, 2.0), (0.5, 1.0), **best),
        *_front("inhibition, also on mixed inputs", _also_on_mixed(ldi), (0.1, 0.5, 2.0), (0.1, 0.5), **best),
        *(
            Trained(
                "mixed churn",
                f"share={share:g}, lambda_c={lambda_c:g}",
                on_mixed(compatible("churn", share), compatible("new_error", lambda_c)),
                everywhere=share == 0.5,
                **best,
            )
            for share in (0.3, 0.5, 0.7)
            for lambda_c in (0.0, 4.0)
        ),
    ]
