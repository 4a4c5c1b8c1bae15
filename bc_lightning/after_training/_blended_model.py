"""`BlendedModel`: h1 and h2 asked, and their answers mixed, as one module to deploy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bc_core.after_training._blending import How, blended, check_setting
from bc_lightning._torch_operations import TorchOperations
from bc_lightning.batches._model_outputs import scores_from_output
from bc_lightning.reference._modules import copied, device_of_module, move


class Form(NamedTuple):
    """How the scores of a model are read.

    Attributes:
        multilabel: Whether each column is a label of its own, 0 or 1.
        h1_from_logits: Whether h1 gives logits; else probabilities.
        h2_from_logits: The same of h2, whose form the blend's scores have.
        class_axis: Where the classes are, if they are not alone.
        returns_logits: Whether the blend does. Default: as h2.
    """

    multilabel: bool = False
    h1_from_logits: bool = True
    h2_from_logits: bool = True
    class_axis: int = 1
    returns_logits: bool | None = None


def blended_model(
    h1: nn.Module,
    h2: nn.Module,
    how: How = "probability",
    *,
    weight: float | None = None,
    ratio: float | None = None,
    from_logits: bool = True,
    h1_from_logits: bool | None = None,
    multilabel: bool = False,
    class_axis: int = 1,
    scores: Callable[[Any], Any] | None = None,
    h1_scores: Callable[[Any], Any] | None = None,
) -> BlendedModel:
    """Both models' answers to a batch as one module: their mean, or a gate that takes h2's where it is surer.

    A plain module of copies of h1 and h2, frozen and in eval mode: for ``torch.export.export``, ONNX, ``torch.save``.
    It takes what they take and returns scores of h2's form: logits (logarithms of probabilities, which are such) or
    probabilities. `blend` chooses one under a promise.

    Args:
        h1: The model in use.
        h2: Its update, of the same classes.
        how: ``"probability"``: the mean of probabilities; ``"logit"``: that of logits; ``"gate"``: h2's answer where
            its largest probability is more than `ratio` times h1's largest, else h1's.
        weight: The share of h1 in a mean, from 0 to 1.
        ratio: How many times surer h2 has to be, above 0.
        from_logits: Whether h2 returns logits (or log-probabilities); else probabilities.
        h1_from_logits: The same for h1. Default: as h2.
        multilabel: Whether each column is a label of its own.
        class_axis: Where the classes are, 1 or -1.
        scores: What h2's scores are, if not what it returns: a function of that.
        h1_scores: The same for h1.

    Raises:
        TypeError: A model is no module.
        ValueError: A weight or ratio that can't be; when it is called, models of different classes.

    Example:
        >>> import torch
        >>> from bc_lightning import blended_model
        >>> h1, h2 = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
        >>> blend, x = blended_model(h1, h2, weight=0.25), torch.ones(2, 4)
        >>> mean = 0.25 * h1(x).softmax(1) + 0.75 * h2(x).softmax(1)
        >>> torch.allclose(blend(x).exp(), mean)
        True
    """
    for called, model in (("h1", h1), ("h2", h2)):
        if not isinstance(model, nn.Module):
            raise TypeError(f"{called} must be a module, to be deployed. Received: {type(model).__name__}.")
    other, name = (weight, "weight") if how == "gate" else (ratio, "ratio")
    if other is not None:
        raise ValueError(f"{name} does nothing with how={how!r}. Received: {name}={other!r}.")
    setting = check_setting(how, ratio if how == "gate" else weight)
    form = Form(multilabel, from_logits if h1_from_logits is None else h1_from_logits, from_logits, class_axis)
    return BlendedModel(h1, h2, how, setting, form, (h1_scores, scores))


class BlendedModel(nn.Module):
    """What `blended_model` makes.

    Args:
        h1: The model in use.
        h2: Its update.
        how: How their answers are mixed.
        setting: Weight or ratio.
        form: How scores are read.
        picks: What h1's and h2's scores are, if not what they return.
    """

    def __init__(
        self, h1: nn.Module, h2: nn.Module, how: How, setting: float, form: Form, picks: tuple[Any, Any]
    ) -> None:
        super().__init__()
        self.how, self.setting, self.form = how, setting, form
        self.h1, self.h2 = copied(h1), copied(h2)
        if (device := device_of_module(h2)) is not None:
            move(self.h1, device)
        self._scores = picks
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> BlendedModel:
        """Stay in eval mode: what both models are served in."""
        return super().train(False)

    def forward(self, x: Any = None, *args: Any, **kwargs: Any) -> Tensor:
        """Scores of a batch, in h2's form. The first argument has a name, for the shapes that an export is told."""
        args = args if x is None else (x, *args)
        first, second = (
            self._of(model, pick, called, args, kwargs)
            for model, pick, called in zip((self.h1, self.h2), self._scores, ("h1", "h2"), strict=True)
        )
        if first.shape != second.shape:
            raise ValueError(
                "h1 and h2 must score the same classes to be blended, and their scores have shapes "
                f"{tuple(first.shape)} and {tuple(second.shape)}."
            )
        form = self.form
        in_logits = form.h2_from_logits if form.returns_logits is None else form.returns_logits
        alone = form.multilabel or first.ndim == 1 or first.shape[1] == 1
        ops = TorchOperations(form.class_axis)
        logits = _logits(first, form.h1_from_logits, alone), _logits(second, form.h2_from_logits, alone)
        scores: Tensor = blended(ops, self.how, self.setting, *logits, each_alone=alone)
        if in_logits:
            return scores
        return scores.sigmoid() if alone else ops.softmax(scores)

    @staticmethod
    def _of(model: nn.Module, pick: Any, called: str, args: Any, kwargs: Any) -> Tensor:
        output = model(*args, **kwargs)
        scores = scores_from_output(output if pick is None else pick(output), model=called)
        # In half precision the difference of two sure answers would be none.
        return scores if scores.dtype == torch.float64 else scores.float()

    def extra_repr(self) -> str:
        """How the answers are mixed."""
        return f"how={self.how!r}, {'ratio' if self.how == 'gate' else 'weight'}={self.setting:g}"


def _logits(scores: Tensor, from_logits: bool, binary: bool) -> Tensor:
    if from_logits:
        return scores
    tiny = torch.finfo(scores.dtype).tiny
    if binary:
        return torch.log(scores.clamp_min(tiny)) - torch.log((1 - scores).clamp_min(tiny))
    return torch.log(scores.clamp_min(tiny))
