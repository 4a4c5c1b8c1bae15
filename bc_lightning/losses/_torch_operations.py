"""The operations of `bc_core.losses` in torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bc_core.losses._operations import check_top_k


class TorchOperations:
    """`bc_core.losses._operations.Operations`, with the classes along one axis.

    Example:
        >>> import torch
        >>> over_classes.logsumexp(torch.zeros(2, 4))
        tensor([1.3863, 1.3863])
    """

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def log_softmax(self, scores: Tensor) -> Tensor:
        """See `Operations`."""
        return F.log_softmax(scores, dim=self.axis)

    def softmax(self, scores: Tensor) -> Tensor:
        """See `Operations`."""
        return F.softmax(scores, dim=self.axis)

    def logsumexp(self, scores: Tensor) -> Tensor:
        """See `Operations`."""
        return scores.logsumexp(self.axis)

    def sum(self, values: Tensor) -> Tensor:
        """See `Operations`."""
        return values.sum(self.axis)

    def mean(self, values: Tensor) -> Tensor:
        """See `Operations`."""
        return values.mean(self.axis)

    def max(self, values: Tensor) -> Tensor:
        """See `Operations`."""
        return values.amax(self.axis)

    def over_classes(self, values: Tensor) -> Tensor:
        """See `Operations`."""
        return values.unsqueeze(self.axis)

    def take_along(self, scores: Tensor, labels: Tensor) -> Tensor:
        """See `Operations`."""
        return scores.gather(self.axis, labels.unsqueeze(self.axis)).squeeze(self.axis)

    def among_top(self, scores: Tensor, k: int) -> Tensor:
        """See `Operations`."""
        check_top_k(k, scores.shape[self.axis])
        return scores >= scores.topk(k, self.axis).values.amin(self.axis, keepdim=True)

    def where(self, condition: Tensor, values: Tensor, otherwise: Tensor | float) -> Tensor:
        """See `Operations`."""
        return torch.where(condition, values, otherwise)

    def relu(self, values: Tensor) -> Tensor:
        """See `Operations`."""
        return values.relu()

    def square(self, values: Tensor) -> Tensor:
        """See `Operations`."""
        return values.square()

    def sigmoid(self, values: Tensor) -> Tensor:
        """See `Operations`."""
        return values.sigmoid()

    def softplus(self, values: Tensor) -> Tensor:
        """See `Operations`."""
        # F.softplus turns into the identity beyond 20, which float64 can tell from it.
        return torch.logaddexp(values, torch.zeros((), dtype=values.dtype, device=values.device))

    def stop_gradient(self, values: Tensor) -> Tensor:
        """See `Operations`."""
        return values.detach()


over_classes = TorchOperations(1)
over_two_classes = TorchOperations(-1)
"""Of a binary score."""
