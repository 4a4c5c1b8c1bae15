"""The original library's eight losses, on models."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from bc_core.losses._documentation import NAMED_LOSSES, doc_of_named_loss
from bc_core.losses._options import Base, DissonanceName, only_known_options
from bc_lightning.batches._model_outputs import scores_from_output
from bc_lightning.losses._compatibility_loss import CompatibilityLoss
from bc_lightning.losses._instance_terms import (
    BASE_OPTIONS,
    Reduction,
)
from bc_lightning.reference._reference import Reference
from bc_lightning.reference._shared_parameters import check_no_shared_parameters

_OF_LOGITS = (
    "Models return logits, or the original library's triple (logits, softmax, log_softmax).",
    """\
>>> import torch
>>> from bc_lightning import {name}
>>> h1, h2 = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
>>> loss = {name}(h1, h2, lambda_c=0.5)
>>> loss(torch.randn(2, 4), torch.tensor([0, 2])).backward()""",
)
_OF_PROBABILITIES = (
    """\
Models return sigmoid probabilities of shape (N,) or (N, 1), or logits with ``from_logits=True``; class 1 is
predicted from ``discriminant_pivot`` on.""",
    """\
>>> import torch
>>> from bc_lightning import {name}
>>> h1, h2 = (torch.nn.Sequential(torch.nn.Linear(4, 1), torch.nn.Sigmoid()) for _ in range(2))
>>> loss = {name}(h1, h2, lambda_c=0.5)
>>> loss(torch.randn(2, 4), torch.tensor([0, 1])).backward()""",
)


class ModelLoss(nn.Module):
    """A `CompatibilityLoss` that runs the two models itself: ``loss(x, y)``.

    Args:
        h1: the reference model: a module, any callable or a `Reference`. It is run in eval mode, without gradients.
        h2: the model that is being updated. Neither model is registered in the loss, so give ``h2.parameters()``
            to the optimiser.
        lambda_c: weight of the dissonance, >= 0, not capped at 1.
        class_map: for an h1 with other classes than h2: ``class_map[i]`` is h2's index of h1's class i, or -1.
        normalization: ``"batch"`` or ``"support"``, see `CompatibilityLoss`.
        validate_args: look at the values of targets and outputs: of every batch on the CPU; on an accelerator, which
            has to be waited for, of the first. Shapes and dtypes are always looked at.
        options: of the underlying torch loss.

    Raises:
        TypeError: an unknown option; the message lists the known ones.
        ValueError: h1 and h2 share parameters, or a negative lambda_c.
    """

    base: Base
    dissonance: DissonanceName

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__name__ in NAMED_LOSSES:
            cls.base, cls.dissonance = NAMED_LOSSES[cls.__name__]  # type: ignore[assignment]
            binary = cls.base == "binary_cross_entropy"
            cls.__doc__ = doc_of_named_loss(cls.__name__, *(_OF_PROBABILITIES if binary else _OF_LOGITS))

    def __init__(
        self,
        h1: nn.Module | Callable[..., Any] | Reference,
        h2: nn.Module | Callable[..., Any],
        lambda_c: float | Tensor,
        *,
        class_map: Sequence[Any] | Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.criterion = self.on_outputs(lambda_c, **options)
        self.reference = Reference.of(h1, class_map=class_map)
        if isinstance(h2, nn.Module):
            check_no_shared_parameters(self.reference, h2)
        # Neither model is registered: a loss that is an attribute of a LightningModule must add nothing to its
        # optimiser, its checkpoint or its train mode.
        object.__setattr__(self, "_h2", h2)

    @property
    def h1(self) -> Any:
        """The reference model, as it was given."""
        return self.reference.h1

    @property
    def h2(self) -> Any:
        """The model that is being updated."""
        return self.__dict__["_h2"]

    @property
    def lambda_c(self) -> float | Tensor:
        """Weight of the dissonance, >= 0."""
        return self.criterion.lambda_c

    @lambda_c.setter
    def lambda_c(self, value: float | Tensor) -> None:
        self.criterion.lambda_c = value

    def forward(self, x: Any, y: Tensor, reduction: Reduction = "mean") -> Tensor:
        """Loss of h2 on inputs x, shape (N, ...), and targets y, shape (N,) or (N, 1); h1 and h2 run once each."""
        want: Literal["logits", "log_probabilities"] = "log_probabilities" if self.base == "nll" else "logits"
        h2_output = scores_from_output(self.h2(x), want)
        classes = h2_output.shape[1] if self.reference.class_map is not None and h2_output.ndim > 1 else None
        h1_output = self.reference.answer((x,), {}, classes)
        if want == "log_probabilities" and h1_output.is_floating_point():
            h1_output = scores_from_output(h1_output, want)
        taught = None
        if self.reference.class_map is not None and self.reference.class_map.parts:
            # Whether h1 is right is told by the whole, what is imitated is divided.
            taught = None if self.criterion.labels_suffice else self.reference.to_imitate(h1_output, h2_output)
            h1_output = self.reference.for_support(h1_output, y)
        loss: Tensor = self.criterion(h2_output, y, h1_output, reduction=reduction, teacher_output=taught)
        return loss

    @classmethod
    def on_outputs(cls, lambda_c: float | Tensor, **options: Any) -> CompatibilityLoss:
        """The same loss on outputs instead of models, with this class's options and defaults."""
        own = (name.replace("threshold", "discriminant_pivot") for name in BASE_OPTIONS[cls.base])
        only_known_options(options, (*own, "normalization", "validate_args", "class_map"), cls.__name__)
        if cls.base == "binary_cross_entropy":
            # Models of the original's binary pair return probabilities.
            options.setdefault("from_logits", False)
            options["threshold"] = options.pop("discriminant_pivot", 0.5)
        return CompatibilityLoss(cls.base, cls.dissonance, lambda_c, **options)


def _spelled(options: dict[str, Any]) -> dict[str, Any]:
    """Options with the one that version 1.4.2 of the original misspelt."""
    if "discriminan_pivot" not in options:
        return options
    warnings.warn("discriminan_pivot is spelt discriminant_pivot here", DeprecationWarning, stacklevel=4)
    return {name.replace("discriminan_pivot", "discriminant_pivot"): value for name, value in options.items()}


class _BinaryCrossEntropy(ModelLoss):
    def __init__(
        self,
        h1: nn.Module | Callable[..., Any] | Reference,
        h2: nn.Module | Callable[..., Any],
        lambda_c: float | Tensor,
        discriminant_pivot: float = 0.5,
        **options: Any,
    ) -> None:
        super().__init__(h1, h2, lambda_c, **{"discriminant_pivot": discriminant_pivot, **_spelled(options)})

    @classmethod
    def on_outputs(cls, lambda_c: float | Tensor, **options: Any) -> CompatibilityLoss:
        """The same loss on outputs instead of models, with this class's options and defaults."""
        return super().on_outputs(lambda_c, **_spelled(options))


class _KLDivergence(ModelLoss):
    def __init__(
        self,
        h1: nn.Module | Callable[..., Any] | Reference,
        h2: nn.Module | Callable[..., Any],
        lambda_c: float | Tensor,
        num_classes: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(h1, h2, lambda_c, num_classes=num_classes, **options)

    def forward(self, x: Any, y: Tensor, reduction: Reduction = "batchmean") -> Tensor:
        """Loss of h2 on inputs x and targets y; ``"batchmean"``, the default, is the mean over instances."""
        return super().forward(x, y, reduction)


# Their definition and the rest of their docstrings come from the tables in `bc_core.losses`.


class BCNLLLoss(ModelLoss):
    """New error on the negative log-likelihood."""


class BCCrossEntropyLoss(ModelLoss):
    """New error on the cross-entropy."""


class BCBinaryCrossEntropyLoss(_BinaryCrossEntropy):
    """New error on the binary cross-entropy."""


class BCKLDivergenceLoss(_KLDivergence):
    """New error on the Kullback-Leibler divergence."""


class StrictImitationNLLLoss(ModelLoss):
    """Strict imitation on the negative log-likelihood."""


class StrictImitationCrossEntropyLoss(ModelLoss):
    """Strict imitation on the cross-entropy."""


class StrictImitationBinaryCrossEntropyLoss(_BinaryCrossEntropy):
    """Strict imitation on the binary cross-entropy."""


class StrictImitationKLDivergenceLoss(_KLDivergence):
    """Strict imitation on the Kullback-Leibler divergence."""


MODEL_LOSSES: dict[str, type[ModelLoss]] = {
    loss.__name__: loss
    for loss in (
        BCNLLLoss,
        BCCrossEntropyLoss,
        BCBinaryCrossEntropyLoss,
        BCKLDivergenceLoss,
        StrictImitationNLLLoss,
        StrictImitationCrossEntropyLoss,
        StrictImitationBinaryCrossEntropyLoss,
        StrictImitationKLDivergenceLoss,
    )
}
