"""The side of PyTorch and Lightning."""

from __future__ import annotations

import torch
from torch import nn

import bc_lightning
from bc_lightning._torch_operations import TorchOperations
from bc_lightning.losses._losses import MODEL_LOSSES


class Scores(nn.Module):
    """A model whose output is made of its one parameter."""

    def __init__(self, scores, output):
        super().__init__()
        self.scores = nn.Parameter(scores)
        self.output = output

    def forward(self, x):
        return self.output(self.scores)


def as_is(logits):
    return logits


def triple(logits):
    """What the original library's models return."""
    return logits, logits.softmax(1), logits.log_softmax(1)


class LightningSide:
    """See `conftest`; arrays come in and go out as numpy's, with the classes last."""

    def __init__(self):
        self.dtype, self.rtol = "float64", 1e-12  # of numbers in tests, and how far sums of them may differ
        self.label_dtypes = ("uint8", "int8", "int16", "int32", "int64")
        self.package, self.model_losses = bc_lightning, MODEL_LOSSES
        # What models may return, made of their logits; up to which logit it still says what the logit did; and options.
        self.outputs = [(as_is, 1e9, {}), (triple, 1e9, {})]
        self.binary_outputs = [(as_is, 1e9, {"from_logits": True}), (torch.sigmoid, 20, {})]
        self.outputs_rtol = 1e-7
        self.nll_of_log_probabilities = True
        self.operations = TorchOperations(-1)

    def tensor(self, array, dtype=None):
        return torch.as_tensor(array, dtype=dtype and getattr(torch, dtype))

    def array(self, tensor):
        return (tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor).detach().numpy()

    def loss(self, base="cross_entropy", dissonance="new_error", lambda_c=1.0, normalization="batch", **options):
        """A `CompatibilityLoss` of logits: ``loss(h2, target, h1, reduction)``; ``dtype`` is that of the numbers."""
        options.pop("dtype", None)
        if "ignore" in options:
            options["ignore_index"] = options.pop("ignore")
        loss = bc_lightning.CompatibilityLoss(base, dissonance, lambda_c, normalization, **options)

        def placed(values):
            values = torch.as_tensor(values)
            is_scores = base != "binary_cross_entropy" and values.is_floating_point()
            return values.movedim(-1, 1) if is_scores and values.ndim > 2 else values

        def of_logits(h2, target, h1, reduction="mean"):
            h2, target, h1 = (placed(each) for each in (h2, target, h1))
            if base == "nll":
                h2, h1 = (z.log_softmax(1) if z.is_floating_point() and z.ndim > 1 else z for z in (h2, h1))
            return loss(h2, target, h1, reduction)

        return of_logits

    def value_and_gradient(self, loss, h2, target, h1, dtype):
        """A mean loss and its gradient for h2's logits, in this precision."""
        h2 = torch.tensor(h2, dtype=getattr(torch, dtype), requires_grad=True)
        value = loss(h2, torch.as_tensor(target), torch.tensor(h1, dtype=h2.dtype))
        value.backward()
        return value.item(), h2.grad.numpy()

    def values_and_gradients(self, loss, lambdas, h2, target, h1, dtype):
        """Of batches of one shape, one after another along the first axis; `loss` makes a loss of a lambda_c."""
        batches = zip(map(loss, lambdas.tolist()), h2, target, h1, strict=True)
        return zip(*(self.value_and_gradient(*batch, dtype) for batch in batches), strict=True)

    def model_loss(self, name, h2, h1, lambda_c, output=as_is, **options):
        """A named loss of two models with these logits: ``loss(target, reduction)``."""
        h1, h2 = (Scores(torch.tensor(logits), output) for logits in (h1, h2))
        loss = self.model_losses[name](h1, h2, lambda_c, **options)
        return lambda target, reduction="mean": loss(torch.zeros(len(target), 1), torch.tensor(target), reduction)
