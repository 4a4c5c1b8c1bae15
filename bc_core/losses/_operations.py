"""The dozen array operations that losses are defined over: a port of torch, `keras.ops` and numpy."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

Array = Any
"""An array of whichever framework runs; definitions use ``+ - * /``, comparisons and `Operations` on it."""


class Operations(Protocol):
    """What a definition may ask of a framework, besides arithmetic and comparisons.

    Scores are of shape (N, C, ...) in torch and (N, ..., C) elsewhere: only an implementation knows where the classes
    lie, and a definition says "over the classes". What is left has one entry per instance. Values are finite, for
    logits with gaps of 1000 too.
    """

    def log_softmax(self, scores: Array) -> Array:
        """Logarithms of the softmax over the classes."""

    def softmax(self, scores: Array) -> Array:
        """Softmax over the classes."""

    def logsumexp(self, scores: Array) -> Array:
        """Logarithm of the sum of exponentials over the classes, which go."""

    def sum(self, values: Array) -> Array:
        """Sum over the classes, which go."""

    def mean(self, values: Array) -> Array:
        """Mean over the classes, which go."""

    def max(self, values: Array) -> Array:
        """Largest over the classes, which go."""

    def over_classes(self, values: Array) -> Array:
        """One value of each instance as a score that every class has alike."""

    def take_along(self, scores: Array, labels: Array) -> Array:
        """The score of one class of each instance: `labels` holds its index."""

    def among_top(self, scores: Array, k: int) -> Array:
        """Whether each score is among the `k` highest of its instance, as booleans; so are those equal to the k-th."""

    def where(self, condition: Array, values: Array, otherwise: Array | float) -> Array:
        """Values where a condition holds; no gradient and no NaN comes from where it does not."""

    def relu(self, values: Array) -> Array:
        """What lies above 0, and 0."""

    def square(self, values: Array) -> Array:
        """Each value times itself."""

    def sigmoid(self, values: Array) -> Array:
        """Logistic function of each value."""

    def softplus(self, values: Array) -> Array:
        """``log(1 + exp(value))``, and for a large value the value."""

    def stop_gradient(self, values: Array) -> Array:
        """The same values, as constants."""


def check_top_k(k: int, classes: int) -> None:
    """Refuse more classes than there are."""
    if k > classes:
        raise ValueError(f"top_k must be at most the number of classes, {classes}. Received: top_k={k}.")


class NumpyOperations:
    """The operations in numpy, with the classes last: slow, plain, and what the others are tested against.

    Example:
        >>> import numpy as np
        >>> NumpyOperations().softmax(np.array([[0.0, 1000.0]]))
        array([[0., 1.]])
    """

    def log_softmax(self, scores: Array) -> Array:
        """See `Operations`."""
        return scores - self.logsumexp(scores)[..., None]

    def softmax(self, scores: Array) -> Array:
        """See `Operations`."""
        return np.exp(self.log_softmax(scores))

    def logsumexp(self, scores: Array) -> Array:
        """See `Operations`."""
        most = scores.max(-1)
        return most + np.log(np.exp(scores - most[..., None]).sum(-1))

    def sum(self, values: Array) -> Array:
        """See `Operations`."""
        return values.sum(-1)

    def mean(self, values: Array) -> Array:
        """See `Operations`."""
        return values.mean(-1)

    def max(self, values: Array) -> Array:
        """See `Operations`."""
        return values.max(-1)

    def over_classes(self, values: Array) -> Array:
        """See `Operations`."""
        return values[..., None]

    def take_along(self, scores: Array, labels: Array) -> Array:
        """See `Operations`."""
        return np.take_along_axis(scores, labels[..., None], -1)[..., 0]

    def among_top(self, scores: Array, k: int) -> Array:
        """See `Operations`."""
        check_top_k(k, scores.shape[-1])
        return scores >= np.partition(scores, -k, axis=-1)[..., -k, None]

    def where(self, condition: Array, values: Array, otherwise: Array | float) -> Array:
        """See `Operations`."""
        return np.where(condition, values, otherwise)

    def relu(self, values: Array) -> Array:
        """See `Operations`."""
        return np.maximum(values, 0)

    def square(self, values: Array) -> Array:
        """See `Operations`."""
        return values * values

    def sigmoid(self, values: Array) -> Array:
        """See `Operations`."""
        return np.exp(-np.logaddexp(0, -values))

    def softplus(self, values: Array) -> Array:
        """See `Operations`."""
        return np.logaddexp(0, values)

    def stop_gradient(self, values: Array) -> Array:
        """See `Operations`."""
        return values
