"""Imitation beyond the training data: inputs without labels, about which h1 or the teacher is asked."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from bc_core.losses._mixtures import (
    BY_PROCESS,
    BY_STEP,
    MIXED,
    checked_labels,
    checked_weight,
    first_share,
    says_not_mixed,
    shares,
)
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
        items = ArrayItems(x, None, batch_size)
        self.weight, self.batch_size, self.rows = checked_weight(weight), batch_size, len(items)
        self._arrays = keras.tree.map_structure(np.asarray, items.all_rows())
        for array in keras.tree.flatten(self._arrays):
            if array.dtype.kind not in "iufb":
                raise TypeError(
                    "Unlabelled inputs must be arrays of numbers, as they lie where steps run: encode texts before. "
                    f"Received: dtype {array.dtype}."
                )
        self._begun = 0
        self._variables: Any = None

    def next_values(self) -> Any:
        """What a step of JAX is given with its batch: its rows, in numpy."""
        rows = (self._begun + np.arange(self.batch_size)) % self.rows
        self._begun = (self._begun + self.batch_size) % self.rows
        return keras.tree.map_structure(lambda array: array[rows], self._arrays)

    def make_variables(self) -> None:
        """Lay the arrays where the steps run."""
        if self._variables is not None or keras.backend.backend() == "jax":
            return

        self._variables = keras.tree.map_structure(lambda array: _variable(array, array.dtype.name), self._arrays)
        self._start = _variable(0, "int32")

    def next_inputs(self, given: Any) -> Any:
        """The rows of a step, within it.

        Args:
            given: `next_values` on JAX, else None.
        """
        if given is not None:
            return given
        start = self._start.value + replica() * self.batch_size
        rows = (start + ops.arange(self.batch_size, dtype="int32")) % self.rows
        batch = keras.tree.map_structure(lambda each: ops.take(each.value, rows, axis=0), self._variables)
        self._start.assign((self._start.value + self.batch_size * num_replicas()) % self.rows)
        return batch


class Mixtures:
    """Mixtures of each batch's own inputs, two by two, in place of inputs that somebody has kept.

    Args:
        weight: what a mean over them counts beside lambda_c, >= 0.
        labels: the share of the labels, mixed alike, in what h2 is taught of them.

    Raises:
        ValueError: a weight or a share that is none.
    """

    def __init__(self, weight: float, labels: float) -> None:
        self.weight, self.labels = checked_weight(weight), checked_labels(labels)
        self._steps = 0
        self._first: Any = None

    def next_values(self) -> Any:
        """What a step of JAX is given with its batch: the share of its first instance."""
        self._steps += 1
        return np.float32(first_share(self._steps - 1))

    def make_variables(self) -> None:
        """Lay that share where the steps run."""
        if self._first is None and keras.backend.backend() != "jax":
            self._first = _variable(first_share(0), "float32")

    def get_config(self) -> dict[str, Any]:
        """The arguments of a `BCModel` that say it."""
        return {"unlabelled": MIXED, "unlabelled_weight": self.weight, "mixed_labels": self.labels}

    def next_share(self, size: Any, given: Any) -> Any:
        """The share of each instance in the mixtures of a step, (N,); within it.

        Args:
            size: of the batch.
            given: `next_values` on JAX, else None.
        """
        first = given
        if first is None:
            first = self._first.value + ops.cast(replica(), "float32") * BY_PROCESS
            self._first.assign((self._first.value + BY_STEP) % 1.0)
        return shares(ops.cast(ops.arange(size), "float32"), first)


def mixed(x: Any, share: Any) -> Any:
    """Arrays of a batch, each instance with its partner, the batch in reverse.

    Raises:
        TypeError: they are no floating numbers.
    """

    def with_partner(leaf: Any) -> Any:
        if "float" not in (dtype := keras.backend.standardize_dtype(leaf.dtype)):
            raise TypeError(says_not_mixed(dtype))
        weight = ops.reshape(ops.cast(share, leaf.dtype), (-1, *[1] * (len(leaf.shape) - 1)))
        return weight * leaf + (1 - weight) * ops.flip(leaf, axis=0)

    return keras.tree.map_structure(with_partner, x)


def _variable(value: Any, dtype: str) -> keras.Variable:
    how: dict[str, Any] = {"trainable": False, "aggregation": "only_first_replica"}
    return keras.Variable(value, dtype=dtype, **how)
