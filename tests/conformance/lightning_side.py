"""The side of PyTorch and Lightning."""

from __future__ import annotations

import torch
from torch import nn

import bc_lightning
from bc_lightning.losses._losses import MODEL_LOSSES
from bc_lightning.losses._torch_operations import TorchOperations


class Scores(nn.Module):
    """A model whose output is its one parameter."""

    def __init__(self, scores, output):
        super().__init__()
        self.scores = nn.Parameter(scores)
        self.output = output

    def forward(self, x):
        return self.output(self.scores)


class LightningSide:
    name = "lightning"
    dtype = "float64"  # of the numbers in tests, and how far sums of them may differ
    rtol = 1e-12
    integers = ("uint8", "int8", "int16", "int32", "int64")
    named_losses = MODEL_LOSSES
    # What models may return, as functions of their logits (and where each has lost what the logit said), and the option
    # that says so.
    multiclass_outputs = {
        "logits": (lambda z: z, {}, 1e9),
        "original's triple": (lambda z: (z, z.softmax(1), z.log_softmax(1)), {}, 1e9),
    }
    binary_outputs = {"logits": (lambda z: z, {"from_logits": True}, 1e9), "probabilities": (torch.sigmoid, {}, 20)}
    golden_rtol, golden_atol = 1e-7, 1e-9

    def tensor(self, array, dtype=None):
        return torch.as_tensor(array) if dtype is None else torch.as_tensor(array).to(getattr(torch, dtype))

    def array(self, tensor):
        tensor = tensor.detach()
        return (tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor).numpy()

    def operations(self):
        """The operations of losses, with the classes last."""
        return TorchOperations(-1)

    def _outputs(self, base, scores):
        if base == "binary_cross_entropy" or not scores.is_floating_point():
            return scores
        scores = scores.movedim(-1, 1) if scores.ndim > 2 else scores
        return scores.log_softmax(1) if base == "nll" else scores

    def loss(
        self,
        base="cross_entropy",
        dissonance="new_error",
        lambda_c=1.0,
        normalization="batch",
        *,
        dtype=None,
        **options,
    ):
        """The loss of logits (N, ..., C), or one per label for the binary base: ``loss(h2, target, h1, reduction)``."""
        if "ignore" in options:
            options["ignore_index"] = options.pop("ignore")
        loss = bc_lightning.CompatibilityLoss(base, dissonance, lambda_c, normalization, **options)

        def of_arrays(h2, target, h1, reduction="mean"):
            h2, target, h1 = (
                each if isinstance(each, torch.Tensor) else torch.as_tensor(each) for each in (h2, target, h1)
            )
            if base != "binary_cross_entropy" and target.is_floating_point() and target.ndim > 2:
                target = target.movedim(-1, 1)
            return loss(self._outputs(base, h2), target, self._outputs(base, h1), reduction)

        return of_arrays

    def value_and_gradient(self, loss, h2, target, h1, dtype):
        """Mean loss, and its gradient for h2's logits."""
        h2 = torch.tensor(h2, dtype=getattr(torch, dtype), requires_grad=True)
        value = loss(h2, target, torch.tensor(h1, dtype=getattr(torch, dtype)))
        value.backward()
        return value.item(), h2.grad.numpy()

    def named_loss(self, name, h2, h1, lambda_c, output=lambda z: z, **options):
        """A named loss of two models that return these scores: ``loss(target, reduction)``."""
        models = [Scores(torch.tensor(scores), output) for scores in (h1, h2)]
        loss = getattr(bc_lightning, name)(*models, lambda_c, **options)
        return lambda target, reduction="mean": self.array(
            loss(torch.zeros(len(h2), 1), torch.tensor(target), reduction)
        )

    def lambda_of(self, loss):
        return loss
