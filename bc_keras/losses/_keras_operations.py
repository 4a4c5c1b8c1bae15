"""The operations of `bc_core.losses` in `keras.ops`, on whichever backend runs."""

from __future__ import annotations

from typing import Any

from keras import ops

from bc_core.losses._operations import check_top_k


class KerasOperations:
    """`bc_core.losses._operations.Operations`, with the classes last.

    Example:
        >>> from keras import ops
        >>> [round(float(each), 4) for each in KerasOperations().logsumexp(ops.zeros((2, 4)))]
        [1.3863, 1.3863]
    """

    def log_softmax(self, scores: Any) -> Any:
        """See `Operations`."""
        return ops.log_softmax(scores, axis=-1)

    def softmax(self, scores: Any) -> Any:
        """See `Operations`."""
        return ops.softmax(scores, axis=-1)

    def logsumexp(self, scores: Any) -> Any:
        """See `Operations`."""
        return ops.logsumexp(scores, axis=-1)

    def sum(self, values: Any) -> Any:
        """See `Operations`."""
        return ops.sum(values, axis=-1)

    def mean(self, values: Any) -> Any:
        """See `Operations`."""
        # Keras's own rounds float64 to float32 on torch.
        return ops.sum(values, axis=-1) / values.shape[-1]

    def max(self, values: Any) -> Any:
        """See `Operations`."""
        return ops.max(values, axis=-1)

    def over_classes(self, values: Any) -> Any:
        """See `Operations`."""
        return ops.expand_dims(values, -1)

    def take_along(self, scores: Any, labels: Any) -> Any:
        """See `Operations`."""
        return ops.squeeze(ops.take_along_axis(scores, ops.expand_dims(labels, -1), axis=-1), -1)

    def among_top(self, scores: Any, k: int) -> Any:
        """See `Operations`."""
        check_top_k(k, scores.shape[-1])
        return scores >= ops.top_k(scores, k)[0][..., -1:]

    def where(self, condition: Any, values: Any, otherwise: Any) -> Any:
        """See `Operations`."""
        return ops.where(condition, values, otherwise)

    def relu(self, values: Any) -> Any:
        """See `Operations`."""
        return ops.relu(values)

    def square(self, values: Any) -> Any:
        """See `Operations`."""
        return ops.square(values)

    def sigmoid(self, values: Any) -> Any:
        """See `Operations`."""
        return ops.sigmoid(values)

    def softplus(self, values: Any) -> Any:
        """See `Operations`."""
        return ops.softplus(values)

    def stop_gradient(self, values: Any) -> Any:
        """See `Operations`."""
        return ops.stop_gradient(values)


over_classes = KerasOperations()
