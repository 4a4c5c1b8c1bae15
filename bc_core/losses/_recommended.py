"""Which method an update calls for: `recommend`, and what each answer rests on."""

from __future__ import annotations

from typing import Literal, NamedTuple

from bc_core.losses._dissonances import RECOMMENDED
from bc_core.losses._options import known

H1 = Literal["model", "stored", "labels"]


class Recommendation(NamedTuple):
    """A way to update, in the words of both sides.

    Attributes:
        start_from: ``"h1"`` for a start from h1's weights, None for h2's own.
        dissonance: by name; ``loss=`` in Lightning, ``dissonance=`` in Keras.
        lambda_c: its weight, to begin with; more of it breaks less and costs accuracy.
        mixed_inputs: whether h2 learns from mixed inputs too (mixup), about which h1 is asked while h2 trains.
        averaged: whether h2's weights are means over the later half of the epochs.
        then: what to do with the trained h2: ``"interpolate"``, ``"blend"``, or None.
        reason: why.
        measured: what it did in `benchmarks/results/tradeoff.md`.
    """

    start_from: Literal["h1"] | None
    dissonance: str
    lambda_c: float
    mixed_inputs: bool
    averaged: bool
    then: Literal["interpolate", "blend"] | None
    reason: str
    measured: str


def recommend(
    *,
    same_architecture: bool,
    h1: H1 = "model",
    new_classes: bool = False,
    two_networks: bool = False,
) -> Recommendation:
    """Which method the shape of an update calls for, with its reason and what it did where it was measured.

    Args:
        same_architecture: whether h2 has h1's layers, so that it can start from h1's weights.
        h1: what there is of it: ``"model"``, its ``"stored"`` outputs, or predicted ``"labels"`` alone.
        new_classes: whether h2 has classes that h1 does not know.
        two_networks: whether both may be asked where h2 is used, at the price of both.

    Raises:
        ValueError: another h1, or two networks where h1 is no model.

    Example:
        >>> from bc_core import recommend
        >>> way = recommend(same_architecture=True)
        >>> way.start_from, way.dissonance, way.lambda_c
        ('h1', 'imitation', 1.0)
        >>> way.mixed_inputs, way.averaged, way.then
        (True, True, 'interpolate')
        >>> recommend(same_architecture=False, h1="labels").dissonance
        'new_error'
    """
    known(h1, ("model", "stored", "labels"), "h1")
    if two_networks and h1 != "model":
        raise ValueError(f"Two networks at inference need h1 as a model. Received: h1={h1!r}, two_networks=True.")
    warm = same_architecture and h1 == "model"
    start: Literal["h1"] | None = "h1" if warm else None
    if h1 == "labels":
        return Recommendation(None, "new_error", 1.0, False, True, None, *_SAID["labels"])
    if two_networks:
        return Recommendation(start, "new_error", 0.0, False, True, "blend", *_SAID["two networks"])
    # What h1 says of an instance of a class that it does not know would teach against that class.
    if new_classes:
        return Recommendation(start, "strict_imitation", 1.0, False, True, None, *_SAID["new classes"])
    if h1 == "stored":
        return Recommendation(None, RECOMMENDED, 1.0, False, True, None, *_SAID["stored"])
    if warm:
        return Recommendation("h1", RECOMMENDED, 1.0, True, True, "interpolate", *_SAID["warm"])
    return Recommendation(None, RECOMMENDED, 1.0, True, True, None, *_SAID["cold"])


class _Said(NamedTuple):
    reason: str
    measured: str


_SAID = {
    "warm": _Said(
        "h1's answer to mixed inputs is none that it learned by heart, averaged weights flip less for no accuracy, and "
        "from a start at h1 the way back to it is open: as far as a promise asks.",
        "",
    ),
    "cold": _Said(
        "Nothing of h1's weights can be used, but what it says of mixed inputs can, and averaged weights flip less.",
        "",
    ),
    "stored": _Said(
        "Stored outputs say nothing of mixed inputs; imitation on every instance is robust where labels are noisy.",
        "",
    ),
    "labels": _Said(
        "Labels cannot be imitated. lambda_c from 0.25 where labels are noisy to 16 where they are clean.",
        "",
    ),
    "new classes": _Said(
        "An instance of a class that h1 does not know is never in its support, so nothing is taught against it.",
        "",
    ),
    "two networks": _Said(
        "A mean of both models' answers needs no training at all, and its weight is chosen afterwards.",
        "",
    ),
}
