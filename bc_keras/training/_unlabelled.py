"""Imitation beyond the training data: inputs without labels, about which h1 or the teacher is asked."""

from __future__ import annotations

from numbers import Real
from typing import Any, cast

import keras
import numpy as np
from keras import ops

from bc_keras.losses._distribution import num_replicas, replica
from bc_keras.reference._asked_items import ArrayItems


class Unlabelled:
    """Arrays of unlabelled inputs, and how far the steps have read them: row by row, and from the first again.

    A compiled step cannot ask a loader for its next batch, so the arrays lie where the steps run, in variables that no
    model has; JAX is given the rows of each step with its batch.

    Args:
        x: an array, or a structure of arrays, one row for each input.
        weight: what a mean over its instances counts beside lambda_c, >= 0.
        batch_size: rows in a step (of each replica).

    Raises:
        TypeError: something else than arrays of numbers.
        ValueError: a weight or a batch size that is none, or no rows.
    """

    def __init__(self, x: Any, weight: float, batch_size: int) -> None:
        if isinstance(weight, bool) or not isinstance(cast("Any", weight), Real) or not 0 <= weight < float("inf"):
            raise ValueError(f"unlabelled_weight must be a number >= 0. Received: unlabelled_weight={weight!r}.")
        items = ArrayItems(x, None, batch_size)
        self.weight, self.batch_size, self.rows = float(weight), batch_size, len(items)
        self._arrays = keras.tree.map_structure(np.asarray, items.all_rows())
        for array in keras.tree.flatten(self._arrays):
            if array.dtype.kind not in "iufb":
                raise TypeError(
                    "Unlabelled inputs must be arrays of numbers, as they lie where steps run: encode texts before. "
                    f"Received: dtype {array.dtype}."
                )
        self._begun = 0
        self._variables: Any = None

    def next_rows(self) -> Any:
        """The rows of a step, in numpy."""
        rows = (self._begun + np.arange(self.batch_size)) % self.rows
        self._begun = (self._begun + self.batch_size) % self.rows
        return keras.tree.map_structure(lambda array: array[rows], self._arrays)

    def make_variables(self) -> None:
        """Lay the arrays where the steps run."""
        if self._variables is not None or keras.backend.backend() == "jax":
            return

        def variable(value: Any, dtype: str) -> keras.Variable:
            how: dict[str, Any] = {"trainable": False, "aggregation": "only_first_replica"}
            return keras.Variable(value, dtype=dtype, **how)

        self._variables = keras.tree.map_structure(lambda array: variable(array, array.dtype.name), self._arrays)
        self._start = variable(0, "int32")

    def next_tensors(self) -> Any:
        """The rows of a step, within it."""
        start = self._start.value + replica() * self.batch_size
        rows = (start + ops.arange(self.batch_size, dtype="int32")) % self.rows
        batch = keras.tree.map_structure(lambda each: ops.take(each.value, rows, axis=0), self._variables)
        self._start.assign((self._start.value + self.batch_size * num_replicas()) % self.rows)
        return batch
