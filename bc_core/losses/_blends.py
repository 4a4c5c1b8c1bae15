"""Several models as one: a weighted mean of their probabilities, or of their logits."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np

from bc_core.losses._dissonances import DISSONANCES
from bc_core.losses._operations import Array, Operations

Space = Literal["probability", "logit"]
SPACES = ("probability", "logit")

Kind = Literal["classes", "classes_last", "labels"]
"""Of what a blend's scores are: classes on axis 1, or on the last one; or labels, each by itself."""

_ROUNDING = 1e-6
_UNSEEN = "?"  # as at the end of the fingerprint of a callable that could not be read whole


def members_and_weights(given: Sequence[Any]) -> tuple[list[Any], list[float]]:
    """The models of a blend, and their weights, which sum to 1.

    Args:
        given: pairs (model, weight), or models, which then count alike. Those of weight 0 are left out.

    Raises:
        ValueError: no models; weights below 0, or that do not sum to 1.

    Example:
        >>> members_and_weights([("new", 0.25), ("old", 0.75)])
        (['new', 'old'], [0.25, 0.75])
        >>> members_and_weights(["new", "old"])
        (['new', 'old'], [0.5, 0.5])
        >>> members_and_weights([("new", 1), ("old", 3)])
        Traceback (most recent call last):
        ValueError: The weights of a blend must sum to 1, and sum to 4. In these proportions: 0.25, 0.75.
    """
    if not given:
        raise ValueError("A blend needs at least one model: [(model, weight), ...]. Received: an empty list.")
    paired = [isinstance(each, (tuple, list)) and len(each) == 2 and _is_number(each[1]) for each in given]
    if not any(paired):
        return list(given), [1 / len(given)] * len(given)
    if not all(paired):
        raise ValueError(
            "Either each model of a blend has a weight, or none, and all count alike: [(model, weight), ...] or "
            f"[model, ...]. Received: {sum(paired)} weights for {len(given)} models."
        )
    members, weights = [each[0] for each in given], [float(each[1]) for each in given]
    total = math.fsum(weights)
    if not all(0 <= weight < math.inf for weight in weights) or total == 0:
        raise ValueError(f"The weights of a blend must be >= 0, and one above 0. Received: {_listed(weights)}.")
    if abs(total - 1) > _ROUNDING:
        # Not divided by their sum: a weight that was forgotten or mistyped would pass for a proportion.
        shares = _listed([weight / total for weight in weights])
        raise ValueError(f"The weights of a blend must sum to 1, and sum to {total:g}. In these proportions: {shares}.")
    kept = [(member, weight) for member, weight in zip(members, weights, strict=True) if weight > 0]
    return [member for member, _ in kept], [weight for _, weight in kept]


def blended(
    answers: Sequence[Array], weights: Sequence[float], space: Space, ops: Operations, each_alone: bool
) -> Array:
    r"""Logits of the blend: :math:`\log \sum_m w_m p_m`, or :math:`\sum_m w_m z_m`.

    Args:
        answers: each member's logits, all of one shape.
        weights: each member's weight, above 0.
        space: what the mean is taken of.
        ops: the operations, which know where the classes lie.
        each_alone: whether each score is one of its own, of class 1 against class 0, as those of binary models.

    Returns:
        Logits of the answers' shape; over classes in probability space they are logarithms of probabilities.
    """
    if space == "logit":
        return _weighted_sum(answers, weights)
    if not each_alone:
        return _log_of_sum([math.log(w) + ops.log_softmax(z) for z, w in zip(answers, weights, strict=True)], ops)
    yes = [math.log(w) - ops.softplus(-z) for z, w in zip(answers, weights, strict=True)]
    no = [math.log(w) - ops.softplus(z) for z, w in zip(answers, weights, strict=True)]
    return _log_of_sum(yes, ops) - _log_of_sum(no, ops)


def _weighted_sum(answers: Sequence[Array], weights: Sequence[float]) -> Array:
    total = weights[0] * answers[0]
    for answer, weight in zip(answers[1:], weights[1:], strict=True):
        total = total + weight * answer
    return total


def _log_of_sum(logs: Sequence[Array], ops: Operations) -> Array:
    """Logarithm of a sum of exponentials, entry by entry."""
    total = logs[0]
    for each in logs[1:]:
        is_more = each > total
        # From the larger on: beside the lowest number of its type, which stands for 0, the other would be rounded away.
        total = ops.where(is_more, each, total) + ops.softplus(-ops.relu(each - total) - ops.relu(total - each))
    return total


def check_one_shape(shapes: Sequence[tuple[int | None, ...]]) -> None:
    """Refuse members whose answers are of different shapes.

    Raises:
        ValueError: they are.
    """
    if len(set(shapes)) > 1:
        raise ValueError(
            "The models of a blend give scores of different shapes: say which class of each is which, with "
            "Reference(model, class_map=...) for a member of other classes. Received: "
            f"{', '.join(map(str, shapes))}."
        )


def check_no_class_missing(space: Space, class_map: Sequence[Any] | None, classes: int) -> None:
    """Refuse a member that lacks a class where logits are averaged: its probability of 0 would be the blend's.

    Raises:
        ValueError: it lacks one, or divides one as h2 does, who is not asked here.
    """
    if getattr(class_map, "shares", "equal") != "equal":
        raise ValueError(
            "What h2 says is not known to the models of a blend: give its class_map equal shares. Received: "
            f"class_map={class_map!r}."
        )
    named = range(classes) if class_map is None else np.hstack(class_map).tolist()
    missing = sorted(set(range(classes)) - set(named))
    if space == "logit" and missing:
        raise ValueError(
            f"A model of the blend does not know class {missing[0]}, to which it gives probability 0, and so would the "
            "mean of logits, whatever the others say. Blend probabilities: blend='probability'. Received: "
            f"class_map={list(class_map or ())}."
        )


def fingerprint_of_blend(fingerprints: Sequence[str], weights: Sequence[float], space: Space, kind: Kind) -> str:
    """The name of a blend: its space, its members and their weights, in whatever order these came.

    Example:
        >>> one = fingerprint_of_blend(["sha256:1", "sha256:2"], [0.25, 0.75], "probability", "classes")
        >>> one == fingerprint_of_blend(["sha256:2", "sha256:1"], [0.75, 0.25], "probability", "classes")
        True
        >>> one.startswith("blend:probability:classes:")
        True
    """
    parts = sorted(f"{name} * {weight!r}" for name, weight in zip(fingerprints, weights, strict=True))
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    unsure = _UNSEEN if any(name.endswith(_UNSEEN) for name in fingerprints) else ""
    return f"blend:{space}:{kind}:{digest}{unsure}"


def check_kind_of_blend(fingerprint: str, wanted: Kind, who: str) -> None:
    """Refuse the mean probabilities of a blend, asked or stored, that were read otherwise than its scores are here.

    Raises:
        ValueError: they were.
    """
    told, space, kind, _ = (*fingerprint.split(":", 3), "", "", "")[:4]
    if (told, space) != ("blend", "probability") or kind == wanted:
        return
    remedy = {"labels": "multilabel=True", "classes": "class_axis=1", "classes_last": "class_axis=-1"}[wanted]
    needs = "each column is a label of its own" if wanted == "labels" else "columns are classes"
    raise ValueError(
        f"{who} is a blend of probabilities, for which its scores were read as {kind!r}; here {needs} ({wanted!r}). "
        f"Say it where the blend is made: Reference([...], {remedy})."
    )


def check_scale_of_blend(dissonance: str, fingerprint: str) -> None:
    """Refuse a blend of probabilities, asked or stored, where logits are compared: it has none but their logarithms.

    Raises:
        ValueError: it is one.
    """
    if DISSONANCES[dissonance].reads == "logits" and fingerprint.startswith("blend:probability:"):
        raise ValueError(
            f"dissonance={dissonance!r} compares logits, and a blend of probabilities has none: blend the logits, "
            "Reference([...], blend='logit')."
        )


H1, TEACHER, PLAIN = "h1", "the teacher", "the plain h2"
"""What those that are asked beside h2 are called: the model in use; what is imitated in place of it; and a model that
was trained without it, which is imitated where h2 is right."""

_IMITATED = {TEACHER: "in place of h1", PLAIN: "where h2 is right"}
# Each holds h2 to h1, or away from it, where h2 is wrong or right alone.
_ONE_HALF = ("where_h2_is_wrong", "where_h2_is_right")


@contextmanager
def told_of(who: str = TEACHER) -> Iterator[None]:
    """Within it an error that speaks of h1 is one about the model that is imitated beside it or in its place.

    Example:
        >>> with told_of():
        ...     raise ValueError("h1 has 3 classes")
        Traceback (most recent call last):
        ValueError: Of the teacher, which is imitated in place of h1: h1 has 3 classes
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"Of {who}, which is imitated {_IMITATED[who]}: {error}") from error


def check_imitates(dissonance: str, who: str) -> None:
    """Refuse a teacher, or a plain h2, of a dissonance that imitates nobody, or where it has no say.

    Raises:
        ValueError: it is refused.
    """
    if DISSONANCES[dissonance].needs == "labels":
        raise ValueError(
            f"{who[0].upper()}{who[1:]} is imitated {_IMITATED[who]}, and dissonance={dissonance!r} imitates nobody. "
            f"Leave it out, or name one that imitates, such as 'imitation' or 'strict_imitation'."
        )
    if who == PLAIN and dissonance in _ONE_HALF:
        raise ValueError(
            f"dissonance={dissonance!r} is a half of MUSCLE, and a plain h2 makes it whole: take 'imitation', which is "
            "towards h1 where h2 is wrong and towards the plain h2 elsewhere."
        )


def check_share(a: float) -> None:
    """Refuse a share that is none.

    Raises:
        ValueError: it lies outside of 0..1.
    """
    if not 0 <= a <= 1:
        raise ValueError(f"The new model's share of a blend must lie in 0..1. Received: a={a!r}.")


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, (int, float))


def _listed(weights: Sequence[float]) -> str:
    return ", ".join(f"{weight:g}" for weight in weights)
