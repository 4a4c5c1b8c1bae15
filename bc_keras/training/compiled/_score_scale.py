"""What scores are, logits or probabilities: what a model's loss and last activation say of it, and what values do."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from bc_core.losses._score_scale import ENOUGH_SCORES
from bc_keras.batches._labels import ROUNDING
from bc_keras.reference._last_activation import activation_of
from bc_keras.reference._reference import Reference
from bc_keras.reference._stored import StoredOutputs
from bc_keras.training.compiled._compiled_loss import CompiledLoss, Reading
from bc_keras.training.compiled._plain_models import TargetLoss

# How many stored rows are looked at.
_ROWS = 1024


class Says(NamedTuple):
    """What is known of a model's scores without a look at them: whether they are logits, and who says so.

    Attributes:
        loss: by its compiled loss; None where that says nothing.
        activation: by its last activation.
        values: by values that were stored.
        is_margin: whether its compiled loss takes scores that turn at 0 and are neither.
        is_distance: whether its compiled loss is a distance from the target, which holds no score within 0..1.
    """

    loss: bool | None = None
    activation: bool | None = None
    values: bool | None = None
    is_margin: bool = False
    is_distance: bool = False

    @property
    def from_logits(self) -> bool | None:
        """Whether they are logits; None where nobody says."""
        return next((each for each in (self.loss, self.activation, self.values) if each is not None), None)

    def check(self, model: str, argument: str) -> None:
        """Refuse a model whose loss and last activation disagree."""
        if self.is_distance or None in (self.loss, self.activation) or self.loss == self.activation:
            return
        by_loss, by_activation = (_named(each) for each in (self.loss, self.activation))
        raise ValueError(
            f"Whether {model} gives logits or probabilities cannot be told: its compiled loss reads {by_loss}, its "
            f"last activation gives {by_activation}. Say which, {argument}=True or False, where h1 and h2 are compared "
            f"(and see whether {model} was trained as meant). Received: {argument}=None."
        )


def _named(logits: bool | None) -> str:
    return "logits" if logits else "probabilities"


def says_of(model: Any) -> Says:
    """What is known of the scores of h1 or h2, of whatever kind it is; of a `Reference` found out once."""
    if isinstance(model, Reference):
        if model.says is None:
            model.says = Says(values=True) if model.mixed is not None else says_of(model.h1)
            if model.from_logits is not None:
                model.says = Says(values=model.from_logits)
        says: Says = model.says
        return says
    if isinstance(model, StoredOutputs):
        return Says() if model.labels_only else said_by_values(model[: min(len(model), _ROWS)])
    if not isinstance(model, keras.Layer):
        return Says()
    activation = activation_of(model)
    loss = getattr(model, "loss", None)
    if isinstance(loss, TargetLoss):
        loss = loss.loss
    try:
        facts = None if loss is None else CompiledLoss.of(loss)
    except (TypeError, ValueError):
        facts = None  # several losses, or an attribute of the user's own of that name
    return said_by(facts, activation)


def said_by(facts: CompiledLoss | None, activation: bool | None) -> Says:
    """What a compiled loss and a last activation say."""
    if facts is None:
        return Says(activation=activation)
    return Says(facts.from_logits, activation, is_margin=facts.is_margin, is_distance=facts.is_distance)


def said_by_values(scores: NDArray[Any]) -> Says:
    """What scores at hand say: they are no probabilities where they leave 0..1, and rows that sum to 1 are."""
    seen = Seen.of(scores)
    return Says(values=True if seen.is_outside else False if seen.are_distributions else None)


class Seen(NamedTuple):
    """What values of scores show."""

    entries: int
    is_outside: bool  # whether some lie outside of 0..1
    are_distributions: bool  # whether they are rows of several scores in 0..1 that sum to 1
    text: str

    @classmethod
    def of(cls, scores: NDArray[Any]) -> Seen:
        """Look at scores (N, ...), floating-point; rows of NaN stand for no prediction and are passed over."""
        scores = np.asarray(scores, np.float64)
        if scores.ndim == 1:
            scores = scores[:, None]
        scores = scores[~np.isnan(scores).any(-1)]
        if not scores.size:
            return cls(0, False, False, "none")
        low, high, columns = scores.min(), scores.max(), scores.shape[-1]
        outside = bool(low < -ROUNDING or high > 1 + ROUNDING)
        sums = columns > 1 and bool((np.abs(scores.sum(-1) - 1) <= ROUNDING).all())
        return cls(scores.size, outside, sums and low >= 0, f"values from {low:g} to {high:g}")

    def after(self, before: Seen | None) -> Seen:
        """These and what was seen before."""
        if before is None or not before.entries:
            return self
        if not self.entries:
            return before
        return Seen(
            self.entries + before.entries,
            self.is_outside or before.is_outside,
            self.are_distributions and before.are_distributions,
            before.text if before.is_outside else self.text,
        )


def reading_of(
    h1: Says,
    h2: Says,
    *,
    binary: bool,
    multilabel: bool,
    from_logits: bool | None = None,
    h1_from_logits: bool | None = None,
    imitates: bool = False,
    is_scored: bool = False,
    is_mapped: bool = False,
    if_h1_is_silent: bool | None = None,
    remedy: str = "BCModel(..., from_logits=True or False)",
    received: str = "",
) -> Reading:
    """How the outputs of two models are to be read.

    Args:
        h1: what is known of h1's scores.
        h2: what is known of h2's.
        binary: whether each score is one of 0 and 1.
        multilabel: whether each column is.
        from_logits: what the caller says of h2.
        h1_from_logits: what the caller says of h1.
        imitates: whether the probabilities of both are compared.
        is_scored: whether h2's probabilities are computed here, and not in the compiled loss alone.
        is_mapped: whether h1's classes are mapped to h2's, which sums probabilities.
        if_h1_is_silent: how h1 is read where nothing is known of it. Defaults to `None`, as h2.
        remedy: what to pass where nothing is known of h2.
        received: what its compiled loss is.

    Raises:
        ValueError: a loss and a last activation that disagree; nothing is known of h2, and it matters.
    """
    h1_matters, h2_matters = binary or imitates or is_mapped, binary or imitates or is_scored
    if from_logits is None:
        if h2_matters:
            h2.check("h2", "from_logits")
        # A linear last layer under a loss of the user's own may be anything.
        from_logits = h2.loss if h2.loss is not None else (False if h2.activation is False else None)
        if from_logits is None and h2.is_margin and not imitates and not is_scored:
            from_logits = True
        if from_logits is None and h2_matters:
            raise ValueError(
                "Whether h2 gives logits or probabilities cannot be told from the compiled loss, which is "
                f"{'a margin' if h2.is_margin else 'your own'}: pass {remedy}. Received: {received}."
            )
    from_logits = bool(from_logits)
    is_told = h1_from_logits is not None
    if h2.is_distance and h1.loss is None and h1.activation:
        # A linear last layer says nothing where the scores of its successor are near the labels, and are no logits.
        h1 = h1._replace(activation=None)
    if h1_from_logits is None:
        if h1_matters:
            h1.check("h1", "h1_from_logits")
        h1_from_logits = next(each for each in (h1.from_logits, if_h1_is_silent, from_logits) if each is not None)
    return Reading(
        from_logits,
        h1_from_logits,
        binary,
        multilabel,
        h1_scale_matters=h1_matters,
        h2_scale_matters=h2_matters,
        h1_is_assumed=not is_told and h1.loss is None and h1.values is None and h1.activation is not False,
        h1_is_bounded=imitates or not (h1.is_distance or (h1.from_logits is None and h2.is_distance)),
        h2_is_bounded=imitates or is_scored or not h2.is_distance,
        is_distance=h2.is_distance,
    )


def check_scales(reading: Reading, h1: Seen | None, h2: Seen | None = None) -> None:
    """Refuse scores that cannot be what they are read as.

    Args:
        reading: how they are read.
        h1: what h1's scores show; None where it gives labels.
        h2: the same for h2's.

    Raises:
        ValueError: such scores.
    """
    for model, seen, logits, is_bounded, argument in (
        ("h1", h1, reading.h1_from_logits, reading.h1_scale_matters and reading.h1_is_bounded, "h1_from_logits"),
        ("h2", h2, reading.from_logits, reading.h2_scale_matters and reading.h2_is_bounded, "from_logits"),
    ):
        if seen is not None and is_bounded and not logits and seen.is_outside:
            raise ValueError(
                f"{model} must give probabilities in 0..1 here; if it gives logits, pass {argument}=True. "
                f"Received: {seen.text}."
            )
    if h1 is None or not reading.h1_scale_matters or not reading.h1_from_logits:
        return
    if not reading.binary and h1.are_distributions:
        raise ValueError(
            "h1 must give logits here, as nothing says that it does not, and gives probabilities: pass "
            f"h1_from_logits=False. Received: rows in 0..1 that sum to 1, {h1.text}."
        )
    if reading.binary and reading.h1_is_assumed and not h1.is_outside and h1.entries >= ENOUGH_SCORES:
        raise ValueError(
            "h1 must give logits here, as nothing says that it does not, and gives values within 0..1 alone, as "
            f"probabilities are: pass h1_from_logits=False, or True if they are logits. Received: {h1.text}."
        )
