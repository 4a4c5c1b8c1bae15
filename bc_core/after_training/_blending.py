"""What a blend of answers is, once, over array operations; and how one is chosen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args

from bc_core.after_training._results import Blend, Price
from bc_core.after_training._walk import DEFAULT_ALPHAS, walk
from bc_core.counting._intervals import checked_confidence
from bc_core.counting._overlap import ErrorOverlap
from bc_core.losses._blends import blended as mean_of
from bc_core.losses._operations import Array, Operations
from bc_core.losses._options import known
from bc_core.promise._grammar import Promise

How = Literal["probability", "logit", "gate"]
HOWS: tuple[How, ...] = get_args(How)

# Of at most 1 / C for an h2 that knows nothing to C for an h1 that does; most of what matters lies about 1.
DEFAULT_RATIOS = (
    0.1,
    0.3,
    0.5,
    0.7,
    0.8,
    0.9,
    0.95,
    0.98,
    0.99,
    1.0,
    1.01,
    1.02,
    1.05,
    1.1,
    1.2,
    1.3,
    1.5,
    1.75,
    2.0,
    3.0,
    5.0,
)


def blended(
    ops: Operations, how: How, setting: float, logits_1: Array, logits_2: Array, *, each_alone: bool = False
) -> Array:
    """Scores of a blend, whose softmax are its probabilities; or whose logistic functions, each alone.

    Args:
        ops: Operations of the framework.
        how: ``"probability"``: the logarithm of ``setting * p1 + (1 - setting) * p2``. ``"logit"``: the same mean of
            the logits. ``"gate"``: h2's logarithms of probabilities where its largest probability is more than
            `setting` times h1's largest, else h1's.
        setting: The share of h1, or the ratio.
        logits_1: h1's scores, whose softmax are its probabilities.
        logits_2: h2's.
        each_alone: Whether each score is one of its own, of class 1 against class 0, as those of binary models.

    Example:
        >>> import numpy as np
        >>> from bc_core.after_training._blending import blended
        >>> from bc_core.losses._operations import NumpyOperations
        >>> p1, p2 = np.array([[0.6, 0.4]]), np.array([[0.2, 0.8]])
        >>> np.exp(blended(NumpyOperations(), "probability", 0.5, np.log(p1), np.log(p2))).round(3)
        array([[0.4, 0.6]])
        >>> np.exp(blended(NumpyOperations(), "gate", 2.0, np.log(p1), np.log(p2))).round(3)
        array([[0.6, 0.4]])
    """
    if how == "gate" and each_alone:
        # The larger of both probabilities is that of the score's size.
        sure_1, sure_2 = (-ops.softplus(-ops.relu(each) - ops.relu(-each)) for each in (logits_1, logits_2))
        return ops.where(sure_2 - sure_1 > math.log(setting), logits_2, logits_1)
    if how == "gate":
        logs_1, logs_2 = ops.log_softmax(logits_1), ops.log_softmax(logits_2)
        is_surer = ops.max(logs_2) - ops.max(logs_1) > math.log(setting)
        return ops.where(ops.over_classes(is_surer), logs_2, logs_1)
    if how == "probability" and setting in (0, 1):
        alone = logits_1 if setting == 1 else logits_2
        return alone if each_alone else ops.log_softmax(alone)
    return mean_of((logits_1, logits_2), (setting, 1 - setting), how, ops, each_alone)


def settings_of(
    how: str, weights: Iterable[float] | float | None, ratios: Iterable[float] | float | None
) -> list[float]:
    """What is tried, from h1's side to h2's.

    Raises:
        ValueError: An unknown way, weights for a gate or ratios for an average, or values that none can have.
    """
    known(how, HOWS, "how")
    if (ratios if how != "gate" else weights) is not None:
        raise ValueError(
            "weight is of an average and ratio of a gate, how='gate'. "
            f"Received: how={how!r}, weight={weights!r}, ratio={ratios!r}."
        )
    given = ratios if how == "gate" else weights
    if given is None:
        given = DEFAULT_RATIOS if how == "gate" else DEFAULT_ALPHAS
    tried = {check_setting(how, each) for each in ([given] if _is_number(given) else given)}  # type: ignore[union-attr]
    if not tried:
        raise ValueError(
            f"{'ratio' if how == 'gate' else 'weight'} must be one number or several. Received: {given!r}."
        )
    return sorted(tried, reverse=True)


def check_setting(how: str, setting: Any) -> float:
    """A weight or ratio as a number.

    Raises:
        ValueError: It is none that a blend can have.
    """
    known(how, HOWS, "how")
    value = float(setting) if _is_number(setting) else math.nan
    if how == "gate" and not 0 < value < math.inf:
        raise ValueError(
            f"ratio says how many times surer h2 must be than h1, a number above 0 such as 2. Received: {setting!r}."
        )
    if how != "gate" and not 0 <= value <= 1:
        raise ValueError(f"weight is the share of h1, from 0 to 1. Received: {setting!r}.")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def blend_by(
    model_of: Callable[[float], Any],
    overlap_of: Callable[[Any], ErrorOverlap],
    price: Price,
    how: str,
    settings: list[float],
    promise: str | Iterable[str] | Promise,
    confidence: float,
) -> Blend:
    """Choose a blend under a promise; see `bc_lightning.blend`.

    Args:
        model_of: Makes the model of a setting.
        overlap_of: Counts of h1 and such a model, on the validation data.
        price: What it costs.
        how: As in `blended`.
        settings: What is tried, from h1's side to h2's.
        promise: What is to be kept.
        confidence: Of each bound.
    """
    trials, chosen = walk(
        settings,
        lambda setting: overlap_of(model_of(setting)),
        Promise.of(promise),
        checked_confidence(confidence),
        h2_itself=None if how == "gate" else 0.0,
    )
    return Blend(model_of(chosen.setting), chosen, tuple(trials), confidence, how, price)
