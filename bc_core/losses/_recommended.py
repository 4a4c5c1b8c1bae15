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
        mixed_inputs: whether h2 learns from mixed inputs too: ``unlabelled="mixed"`` on both sides.
        averaged: whether h2's weights are means over the later half of the epochs: the callback ``MeanWeights``.
        then: what to do with the trained h2: ``"interpolate"``, ``"blend"``, or None.
        reason: why.
        measured: what it did in `benchmarks/results/tradeoff.md`, or `tradeoff_confirmed.md`.
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
    table: bool = False,
) -> Recommendation:
    """Which method the shape of an update calls for, with its reason and what it did where it was measured.

    Args:
        same_architecture: whether h2 has h1's layers, so that it can start from h1's weights.
        h1: what there is of it: ``"model"``, its ``"stored"`` outputs, or predicted ``"labels"`` alone.
        new_classes: whether h2 has classes that h1 does not know.
        two_networks: whether both may be asked where h2 is used, at the price of both. Not with new classes.
        table: whether an input is a row of a table, some numbers and categories: h1's answer between two rows teaches
            less there.

    Raises:
        ValueError: another h1, or two networks where h1 is no model or does not know all classes.

    Example:
        >>> from bc_core import recommend
        >>> way = recommend(same_architecture=True)
        >>> way.start_from, way.dissonance, way.lambda_c
        ('h1', 'imitation', 1.0)
        >>> way.mixed_inputs, way.averaged, way.then
        (True, True, 'interpolate')
        >>> recommend(same_architecture=True, table=True).dissonance
        'focal_distillation'
        >>> recommend(same_architecture=False, h1="labels").dissonance
        'new_error'
    """
    known(h1, ("model", "stored", "labels"), "h1")
    if two_networks and h1 != "model":
        raise ValueError(f"Two networks at inference need h1 as a model. Received: h1={h1!r}, two_networks=True.")
    if two_networks and new_classes:
        raise ValueError(
            "h1 votes against every class that it does not know, so a mean of both models' answers would lose the new "
            "ones: leave two_networks out. Received: new_classes=True, two_networks=True."
        )
    warm = same_architecture and h1 == "model"
    start: Literal["h1"] | None = "h1" if warm else None
    if h1 == "labels":
        return Recommendation(None, "new_error", 1.0, False, True, None, *_SAID["labels"])
    # What h1 says of an instance of a class that it does not know would teach, and vote, against that class.
    if new_classes:
        return Recommendation(start, "new_error", 1.0, False, True, None, *_SAID["new classes"])
    if two_networks:
        return Recommendation(start, "new_error", 0.0, False, True, "blend", *_SAID["two networks"])
    if table:
        then: Literal["interpolate"] | None = "interpolate" if warm else None
        said = _SAID["table" if warm else "cold table"]
        return Recommendation(start, "focal_distillation", 0.3, False, True, then, *said)
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
        "h1 has not learned by heart what it says of mixed inputs; averaged weights lack the noise of the last "
        "steps, which is flips; and from a start at h1 the way back to it is open, as far as a promise asks. The "
        "further h1 is behind h2, the smaller lambda_c has to be: try 0.25 too.",
        "Share of plain training's negative flips, before `interpolate` (points of accuracy lost), on seeds that "
        "nothing was chosen on: MNIST-5k 0.41 (0.1), letter 0.32 (-0.1), optdigits 0.37 (-0.1), marketing 0.53 (-0.2), "
        "texture 0.25 (0.3), penbased 0.43 (0.5), Adult 0.41 (0.5), COMPAS 0.66 (0.7), satimage 0.47 (0.9), magic 0.41 "
        "(1.7).",
    ),
    "cold": _Said(
        "h1's weights are of no use here, but what it says of mixed inputs is, and averaged weights flip less. Where "
        "both models may be asked, a blend is far ahead.",
        "Share of the flips (points lost): from fresh weights MNIST-5k 0.51 (0.6), letter 0.46 (0.4), Adult 0.41 "
        "(0.3), COMPAS 0.62 (0.4); with new features Adult 0.48 (0.5), COMPAS 0.55 (1.9); MNIST-5k from a perceptron "
        "to convolutions 0.68 (1.0).",
    ),
    "table": _Said(
        "h2 is held to h1 where h1 is right and a little everywhere, on the rows themselves; averaged weights lack the "
        "noise of the last steps; from a start at h1 `interpolate` goes back towards it, as far as a promise asks.",
        "Share of the flips (points lost), from h1's weights, before `interpolate`: letter 0.27 (0.2), penbased 0.25 "
        "(0.5), texture 0.12 (0.5), marketing 0.60 (-0.3), Adult 0.44 (0.4), COMPAS 0.70 (0.6), satimage 0.41 (0.3), "
        "magic 0.44 (1.3). At lambda_c = 0.1 it is 0.19 to 0.85, for at most half "
        "a point.",
    ),
    "cold table": _Said(
        "h2 is held to h1 where h1 is right and a little everywhere, on the rows themselves, for which stored outputs "
        "do; averaged weights lack the noise of the last steps.",
        "Share of the flips (points lost), from fresh weights with new features: Adult 0.47 (0.4), COMPAS 0.58 (1.7); "
        "at lambda_c = 0.1 Adult 0.67 (0.1), COMPAS 0.78 (0.5).",
    ),
    "stored": _Said(
        "Stored outputs say nothing of mixed inputs; imitation on every instance stays safe where labels are noisy.",
        "Share of the flips (points lost) from fresh weights: Adult 0.43 (0.2), COMPAS 0.64 (0.4); with new features "
        "Adult 0.49 (0.4), COMPAS 0.58 (1.8).",
    ),
    "labels": _Said(
        "Labels cannot be imitated. lambda_c = 1 costs little anywhere; where labels are clean 4 to 16 break less.",
        "Measured with a start from h1's weights, which labels alone do not give; lambda_c = 1, share of the flips "
        "(points lost): MNIST-5k 0.77 (-0.1), letter 0.43 (-1.1), "
        "Adult 0.52 (0.0), COMPAS 0.43 (1.8).",
    ),
    "new classes": _Said(
        "An instance of a class that h1 does not know is never in its support, so nothing is taught against it.",
        "letter, 20 classes to 26, from h1's weights, share of the flips (points lost): 0.47 (-1.0), at lambda_c = 4 "
        "0.39 (0.1).",
    ),
    "two networks": _Said(
        "A mean of both models' answers needs no training with h1, and its weight is chosen afterwards.",
        "Share of the flips at half a point lost: MNIST-5k 0.41, letter 0.32, Adult 0.36, COMPAS 0.68, satimage 0.41, "
        "magic 0.67; with the mean of four h2 in place of one 0.39, 0.15, 0.37, 0.68, 0.37, 0.70.",
    ),
}
