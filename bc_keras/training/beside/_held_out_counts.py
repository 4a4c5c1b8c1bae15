"""Counts of both models on held-out data, by the steps with which ``fit`` validates on them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from bc_core import ErrorOverlap
from bc_keras.batches._labels import NO_CLASS, Labels, entries_of
from bc_keras.metrics._overlap import count_dtype


class HeldOutCounts(keras.metrics.Metric):
    """How many instances there are, how many h1 gets right, how many h2, and how many both.

    What an `OverlapMetric` counts, without classes, weights and cells, as whoever trains waits for what is compiled of
    it. It is no metric of the model's: nothing of it is logged or saved.
    """

    def __init__(self) -> None:
        super().__init__(name="held_out")
        self.numbers = self.add_variable((4,), "zeros", dtype=count_dtype(), name="numbers")

    def update_state(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the model counts in `update_labels`."""

    def update_labels(self, labels: Labels, mask: Any = None) -> None:
        """Count one batch, within a step.

        Args:
            labels: what `read_labels` gave.
            mask: which of them count.
        """
        h1, h2 = (ops.equal(each, labels.target) for each in (labels.h1, labels.h2))
        numbers = ops.stack([labels.target != NO_CLASS, h1, h2, ops.logical_and(h1, h2)])
        if mask is not None:
            numbers = ops.logical_and(numbers, ops.cast(entries_of(mask, labels.target, "The mask"), "bool"))
        amounts = ops.sum(ops.cast(numbers, self.numbers.dtype), axis=tuple(range(1, len(numbers.shape))))
        self.numbers.assign_add(amounts)

    def result(self) -> dict[str, Any]:
        """Nothing to log."""
        return {}

    def overlap(self) -> ErrorOverlap:
        """The counts so far."""
        every, h1, h2, both = np.array(ops.convert_to_numpy(self.numbers.value)).tolist()
        return ErrorOverlap([[[every - h1 - h2 + both, h2 - both], [h1 - both, both]]])
