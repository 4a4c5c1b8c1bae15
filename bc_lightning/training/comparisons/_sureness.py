"""How sure a model is of each instance, read from its scores a batch at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bc_core.comparison._confidence import ROUNDED_SUM, Said


class _Batch(NamedTuple):
    """Probabilities of the answer and of the truth, or of class 1 of a binary model, of one batch."""

    values: Tensor
    # Whether all rows add up to 1, where they are read as probabilities.
    fits: Tensor | None


class Sureness:
    """What one model's scores say of all entries, kept where they were computed until somebody asks.

    Scores of several classes are read as probabilities where all rows of the first batch are some, else as logits; the
    logarithm of a probability is a logit too.
    """

    def __init__(self) -> None:
        self._batches: list[_Batch] = []
        self._are_probabilities: bool | None = None
        self._is_binary = False
        self._is_known = True

    @torch.no_grad()
    def add(self, scores: Tensor, labels: Tensor, target: Tensor, binary: bool, from_logits: bool) -> None:
        """Add a batch.

        Args:
            scores: (N, C, ...), classes on axis 1; or of the shape of the labels, of a binary model.
            labels: (N, ...), what the model was read to say.
            target: (N, ...), true classes; below 0 where an entry does not count.
            binary: Whether each score is of class 1 of two.
            from_logits: Whether binary scores are logits.
        """
        if not scores.is_floating_point() or not self._is_known:
            # Labels are not sure of anything.
            self._is_known = False
            self._batches.clear()
            return
        self._is_binary = binary
        if binary:
            # As they are read: in float32 at least, so that the threshold lies where it lay.
            wide = scores.detach() if scores.dtype == torch.float64 else scores.detach().float()
            self._batches.append(_Batch((torch.sigmoid(wide) if from_logits else wide).reshape(1, -1), None))
            return
        wide = scores.detach().float()
        fits = (wide >= 0).all() & ((wide.sum(1) - 1).abs() < ROUNDED_SUM).all()
        if self._are_probabilities is None and len(scores):
            self._are_probabilities = bool(fits)
        if not self._are_probabilities:
            wide = torch.softmax(wide, 1)
        columns = [wide.gather(1, each.clamp(min=0).unsqueeze(1)).reshape(-1) for each in (labels, target)]
        self._batches.append(_Batch(torch.stack(columns), fits if self._are_probabilities else None))

    def said(self, target: NDArray[Any], labels: NDArray[Any], counted: NDArray[np.bool_] | None = None) -> Said | None:
        """How sure it is of all entries, or of those that count; None where nobody knows.

        Args:
            target: True classes of these.
            labels: What the model says of them.
            counted: Which of all entries they are.
        """
        if not self._is_known or not self._batches:
            return None
        if any(batch.fits is not None for batch in self._batches):
            fits = torch.stack([batch.fits for batch in self._batches if batch.fits is not None])
            # What looked like probabilities in the first batch was something else.
            if not bool(fits.all()):
                return None
        values = torch.cat([batch.values for batch in self._batches], dim=1).cpu().numpy()
        if counted is not None:
            values = values[:, counted]
        if self._is_binary:
            return Said.of_binary(values[0], target, labels)
        return Said(values[0].astype(np.float64), values[1].astype(np.float64))
