"""The loss in numpy: no gradients, no speed; the definition that every other form is tested against."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core.losses._bases import BASES
from bc_core.losses._dissonances import DISSONANCES, Answer, Given, weigh
from bc_core.losses._operations import NumpyOperations
from bc_core.losses._options import check_lambda_of, check_loss, options_of_dissonance

_OPTIONS = {
    "nll": ("ignore_index", "weight"),
    "cross_entropy": ("ignore_index", "weight", "label_smoothing"),
    "binary_cross_entropy": ("threshold",),
    "kl_divergence": ("ignore_index",),
}
_OPS = NumpyOperations()
_TINY = 1e-300


def numpy_loss(
    h2: NDArray[Any],
    target: NDArray[Any],
    h1: NDArray[Any],
    base: str = "cross_entropy",
    dissonance: str = "new_error",
    lambda_c: float = 1.0,
    normalization: str = "batch",
    reduction: str = "mean",
    **options: Any,
) -> Any:
    """Compatibility loss of a batch of logits.

    Args:
        h2: logits (N, ..., C); one per label, of any shape, for ``base="binary_cross_entropy"``.
        target: class indices (N, ...) or probabilities (N, ..., C); 0 to 1 for the binary base.
        h1: logits in the shape of h2's.
        base: as everywhere.
        dissonance: as everywhere.
        lambda_c: weight of the dissonance, >= 0.
        normalization: ``"batch"`` or ``"support"``.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        options: ``ignore_index``, ``weight`` (one for each class) and ``label_smoothing``, or ``threshold``; those of
            the dissonance.

    Returns:
        A number, or for ``"none"`` an entry for each label.

    Example:
        >>> import numpy as np
        >>> h2, h1 = np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 0.0], [1.0, 0.0]])
        >>> round(float(numpy_loss(h2, np.array([0, 1]), h1, lambda_c=2.0)), 4)  # h1 is right on the first
        0.347
    """
    check_loss(base, dissonance, normalization, options, _OPTIONS)
    check_lambda_of(dissonance, lambda_c)
    terms = _binary if base == "binary_cross_entropy" else _multiclass
    given, instance_weight = terms(base, dissonance, h2, target, h1, options)
    held, penalty = weigh(DISSONANCES[dissonance], given, instance_weight > 0)
    scale = 1.0
    if normalization == "support":
        scale = instance_weight.sum() / ((instance_weight * held).sum() or 1.0)
    each = np.where(instance_weight > 0, given.base, 0.0) + lambda_c * scale * penalty
    return {"none": each, "sum": each.sum(), "mean": each.sum() / instance_weight.sum()}[reduction]


def _multiclass(
    base: str, dissonance: str, h2: NDArray[Any], target: NDArray[Any], h1: NDArray[Any], options: dict[str, Any]
) -> tuple[Given, NDArray[Any]]:
    classes = h2.shape[-1]
    soft = target.shape == h2.shape
    labels = target.argmax(-1) if soft else target
    counted = np.ones(labels.shape, bool) if soft else labels != options.get("ignore_index", -100)
    labels = np.where(counted, labels, 0)
    weight = np.asarray(options.get("weight", np.ones(classes)))
    goal = target if soft else np.eye(classes)[labels]
    weight_of_target = (goal * weight).sum(-1)
    smoothing = options.get("label_smoothing", 0.0)
    goal = goal * (1 - smoothing) + smoothing / classes
    answers = (Answer(h2, _OPS.log_softmax(h2)), Answer(h1, _OPS.log_softmax(h1), _OPS.softmax(h1)))
    towards = partial(BASES[base].towards, h2=answers[0], ops=_OPS, class_weight=weight)
    base_i = towards(Answer(None, np.log(np.maximum(goal, _TINY)), goal))
    own = options_of_dissonance(dissonance, options)
    given = Given(
        _OPS,
        base_i,
        towards,
        h1.argmax(-1) == labels,
        labels,
        *answers,
        own,
        weight_of_target,
        lambda: h2.argmax(-1) != labels,
    )
    return given, weight[labels] * counted


def _binary(
    base: str, dissonance: str, h2: NDArray[Any], target: NDArray[Any], h1: NDArray[Any], options: dict[str, Any]
) -> tuple[Given, NDArray[Any]]:
    labels = (target >= 0.5).astype(int)
    right = (_OPS.sigmoid(h1) >= options.get("threshold", 0.5)) == labels
    z2, z1 = (np.stack([np.zeros_like(z), z], -1) for z in (h2, h1))
    answers = (Answer(z2, _OPS.log_softmax(z2)), Answer(z1, _OPS.log_softmax(z1), _OPS.sigmoid(h1)))
    towards = partial(BASES[base].towards, h2=Answer(h2, None, None), ops=_OPS)
    base_i = towards(Answer(None, None, target))
    own = options_of_dissonance(dissonance, options)

    def h2_wrong() -> NDArray[Any]:
        return np.asarray((_OPS.sigmoid(h2) >= options.get("threshold", 0.5)) != labels)

    given = Given(_OPS, base_i, towards, right, labels, *answers, own, h2_wrong=h2_wrong)
    return given, np.ones(h2.shape)
