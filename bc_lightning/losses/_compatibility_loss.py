"""`CompatibilityLoss`, on the outputs of the two models."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from bc_core.losses._documentation import with_dissonances
from bc_core.losses._options import Base, DissonanceName, Normalization, labels_suffice
from bc_core.losses._score_scale import ENOUGH_SCORES, are_probabilities
from bc_lightning.losses._alignment import aligned, says_probabilities, values_are_at_hand
from bc_lightning.losses._instance_terms import (
    LossTerms,
    Reduction,
    check_lambda,
    check_options,
    compatibility_loss,
    loss_terms,
)


@with_dissonances
class CompatibilityLoss(nn.Module):
    r"""Compatibility loss on outputs: :math:`\frac1N\sum_i b_i + \lambda_c \frac1N\sum_i c_i d_i`.

    The one loss of which the eight named ones are configurations. Use it where the outputs are at hand: in a
    training loop of your own, or as ``loss=`` of `BCLightningModule`.

    Args:
        base: ``"nll"``, ``"cross_entropy"``, ``"binary_cross_entropy"`` or ``"kl_divergence"``.
        dissonance: how h2 is held to h1, by name; see below.
        lambda_c: weight of the dissonance, >= 0, not capped at 1. A 0-dim tensor is taken as it is.
        normalization: ``"batch"`` (the papers' definition) or ``"support"`` (version 1.4.2 of the original's).
        validate_args: look at the values of targets and outputs: of every batch on the CPU; on an accelerator, which
            has to be waited for, of the first. Shapes and dtypes are always looked at.
        options: of the underlying torch loss, see `bc_lightning.functional.compatibility_loss`, and of the dissonance.

    Raises:
        TypeError: an option that neither base nor dissonance has.
        ValueError: an unknown name, or a negative lambda_c.

    Example:
        >>> import torch
        >>> from bc_lightning import CompatibilityLoss
        >>> loss = CompatibilityLoss("cross_entropy", "strict_imitation", lambda_c=2.0)
        >>> h2, h1 = torch.zeros(4, 3, requires_grad=True), torch.eye(4, 3) * 5
        >>> loss(h2, torch.tensor([0, 1, 2, 2]), h1)
        tensor(2.7465, grad_fn=<AddBackward0>)
    """

    _looked = False
    # Least and largest of h1's binary scores, and how many they are, until that tells logits from probabilities.
    _h1_scale: tuple[float, float, int] = (math.inf, -math.inf, 0)

    def __init__(
        self,
        base: Base = "cross_entropy",
        dissonance: DissonanceName = "new_error",
        lambda_c: float | Tensor = 1.0,
        normalization: Normalization = "batch",
        *,
        validate_args: bool = True,
        **options: Any,
    ) -> None:
        super().__init__()
        check_options(base, dissonance, normalization, options)
        self.base: Base = base
        self.dissonance: DissonanceName = dissonance
        self.lambda_c = lambda_c
        self.normalization: Normalization = normalization
        self.validate_args = validate_args
        # Class weights follow the module between devices, and stay out of checkpoints: they are configuration.
        for name in ("weight", "pos_weight"):
            if name in options:
                value = options.pop(name)
                self.register_buffer(name, None if value is None else torch.as_tensor(value), persistent=False)
        self._options = options

    @property
    def lambda_c(self) -> float | Tensor:
        """Weight of the dissonance, >= 0."""
        return self._lambda_c

    @lambda_c.setter
    def lambda_c(self, value: float | Tensor) -> None:
        check_lambda(value, self.dissonance)
        self._lambda_c = value

    @property
    def options(self) -> dict[str, Any]:
        """Options of the underlying torch loss, class weights included."""
        return {**self._options, **dict(self.named_buffers())}

    @property
    def labels_suffice(self) -> bool:
        """Whether h1's predicted labels are enough, or its scores are needed."""
        return labels_suffice(self.dissonance)

    def look(self, h2_output: Tensor, target: Tensor, h1_output: Tensor, *, outputs_checked: bool = False) -> None:
        """Refuse values that this loss would misread, on whatever device: waits for an accelerator.

        For the first batch of each kind, such as the first of each loader. Labels outside the classes, multilabel
        targets under a softmax loss, probabilities that are none, h1's probabilities where logits are read, NaN and
        infinite outputs.

        Raises:
            ValueError: one of these; the message says what was expected and what to do.

        Example:
            >>> import torch
            >>> from bc_lightning import CompatibilityLoss
            >>> labels = torch.tensor([[1.0, 1.0, 0.0]])  # two labels at once
            >>> CompatibilityLoss("binary_cross_entropy").look(torch.zeros(1, 3), labels, torch.zeros(1, 3))
            >>> CompatibilityLoss("cross_entropy").look(torch.zeros(1, 3), labels, torch.zeros(1, 3))
            Traceback (most recent call last):
            ...
            ValueError: A target of dtype torch.float32 and h2's shape (1, 3) must hold class probabilities, ...
        """
        self._looked = True
        self.watch_scale(h1_output)
        aligned(self.base, h2_output, target, h1_output, self.options, read=True, outputs_checked=outputs_checked)

    def _look_at_first(self, h2_output: Tensor, target: Tensor, h1_output: Tensor) -> None:
        # A compiled graph would break at it.
        if not self.validate_args or torch.compiler.is_compiling():
            return
        if not values_are_at_hand(h2_output):
            if not self._looked:
                self.look(h2_output, target, h1_output)
        else:
            self.watch_scale(h1_output)

    def watch_scale(self, h1_output: Tensor) -> None:
        """Refuse binary scores of h1 that are read as logits and are probabilities; small batches tell it together.

        Waits for an accelerator until enough scores were seen.

        Raises:
            ValueError: all of them lie in 0..1.

        Example:
            >>> import torch
            >>> from bc_lightning import CompatibilityLoss
            >>> CompatibilityLoss("binary_cross_entropy").watch_scale(torch.tensor([-2.0, 0.5]))
        """
        low, high, entries = self._h1_scale
        is_read = self.base == "binary_cross_entropy" and self._options.get("from_logits", True) and self.validate_args
        if not is_read or entries >= ENOUGH_SCORES or not h1_output.numel() or not h1_output.is_floating_point():
            return
        least, largest = (value.item() for value in h1_output.detach().aminmax())
        low, high, entries = self._h1_scale = min(low, least), max(high, largest), entries + h1_output.numel()
        if are_probabilities(low, high, entries):
            raise ValueError(says_probabilities("h1", low, high))

    def terms(
        self, h2_output: Tensor, target: Tensor, h1_output: Tensor, *, outputs_checked: bool = False
    ) -> LossTerms:
        """Mean base loss and mean dissonance, scalars; see `bc_lightning.functional.loss_terms`."""
        if not outputs_checked:
            self._look_at_first(h2_output, target, h1_output)
        return loss_terms(
            h2_output,
            target,
            h1_output,
            base=self.base,
            dissonance=self.dissonance,
            normalization=self.normalization,
            validate_args=self.validate_args,
            outputs_checked=outputs_checked,
            **self.options,
        )

    def forward(self, h2_output: Tensor, target: Tensor, h1_output: Tensor, reduction: Reduction = "mean") -> Tensor:
        """Loss of a batch of outputs; shapes as in `bc_lightning.functional.compatibility_loss`."""
        self._look_at_first(h2_output, target, h1_output)
        return compatibility_loss(
            h2_output,
            target,
            h1_output,
            base=self.base,
            dissonance=self.dissonance,
            lambda_c=self.lambda_c,
            normalization=self.normalization,
            reduction=reduction,
            validate_args=self.validate_args,
            **self.options,
        )

    def extra_repr(self) -> str:
        """Configuration, for ``print``."""
        options = "".join(f", {name}={value!r}" for name, value in self._options.items())
        return f"{self.base!r}, {self.dissonance!r}, lambda_c={self.lambda_c}, {self.normalization!r}{options}"
