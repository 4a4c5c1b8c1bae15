"""How sure a model is of each instance, read from its scores a batch at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core.comparison._confidence import Said, all_probabilities


class Sureness:
    """What one model's scores say of all entries.

    Scores of several classes are read as probabilities where all rows of the first batch are some, else as logits; the
    logarithm of a probability is a logit too.
    """

    def __init__(self) -> None:
        self._batches: list[NDArray[Any]] = []
        self._are_probabilities: bool | None = None
        self._is_binary = False
        self._is_known = True

    def add(
        self, scores: Any, labels: NDArray[Any], target: NDArray[Any], binary: bool, from_logits: bool | None
    ) -> None:
        """Add a batch.

        Args:
            scores: (..., C), or in as many entries as the labels of a binary model; None or integers are not sure.
            labels: what the model was read to say.
            target: true classes.
            binary: whether each score is of class 1 of two.
            from_logits: whether binary scores are logits.
        """
        values = None if scores is None else np.asarray(scores)
        if values is None or values.dtype.kind not in "fV" or not self._is_known:
            self._forget()
            return
        if values.dtype != np.float64:
            values = values.astype(np.float32)
        self._is_binary = binary
        if binary:
            with np.errstate(over="ignore"):
                self._batches.append((1 / (1 + np.exp(-values)) if from_logits else values).reshape(-1))
            return
        are_probabilities = all_probabilities(values)
        if self._are_probabilities is None and values.size:
            self._are_probabilities = are_probabilities
        if self._are_probabilities and not are_probabilities:
            # What looked like probabilities in the first batch was something else.
            self._forget()
            return
        if not self._are_probabilities:
            values = np.exp(values - values.max(axis=-1, keepdims=True))
            values /= values.sum(axis=-1, keepdims=True)
        columns = [
            np.take_along_axis(values, np.clip(each, 0, values.shape[-1] - 1)[..., None], axis=-1).reshape(-1)
            for each in (labels, target)
        ]
        self._batches.append(np.stack(columns, axis=-1))

    def _forget(self) -> None:
        self._is_known = False
        self._batches.clear()

    def said(self, target: NDArray[Any], labels: NDArray[Any], counted: NDArray[np.bool_]) -> Said | None:
        """How sure it is of all entries that count; None where nobody knows.

        Args:
            target: true classes of these.
            labels: what the model says of them.
            counted: which of all entries they are.
        """
        if not self._is_known or not self._batches:
            return None
        values = np.concatenate(self._batches)[counted]
        if self._is_binary:
            return Said.of_binary(values, target, labels)
        return Said(values[:, 0].astype(np.float64), values[:, 1].astype(np.float64))
