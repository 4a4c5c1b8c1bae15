"""What `interpolate` does in which order, over networks of any framework."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from bc_core._numbers import check_count
from bc_core.after_training._results import Interpolation
from bc_core.after_training._walk import (
    Trial,
    checked_alphas,
    refine,
    smallest_share,
    walk,
)
from bc_core.counting._intervals import checked_confidence
from bc_core.counting._overlap import ErrorOverlap
from bc_core.promise._grammar import Promise
from bc_core.promise._verdict import PromiseVerdict, judge


class Mixture(Protocol):
    """A network with h2's architecture whose weights lie between h1's and h2's."""

    @property
    def layers(self) -> Sequence[str]:
        """Names of the layers that have weights."""

    def mix(self, shares: float | Mapping[str, float]) -> None:
        """Set the weights to ``share * h1 + (1 - share) * h2``, with one share or one for each layer."""

    def overlap(self) -> ErrorOverlap:
        """Counts of h1 and the network as it is, on the validation data."""

    def result(self) -> Any:
        """The network as it is."""


def shares_of_layers(shares: float | Mapping[str, float]) -> tuple[float | None, Callable[[str], float]]:
    """The share that all layers have alike, None if they differ; and that of a layer by its name.

    What is no layer of its own is set like what is mixed least.

    Example:
        >>> from bc_core.after_training._interpolating import shares_of_layers
        >>> alike, share_of = shares_of_layers({"body": 0.5, "head": 0.25})
        >>> alike, share_of("body"), share_of("a buffer beside them")
        (None, 0.5, 0.25)
    """
    if not isinstance(shares, Mapping):
        return shares, lambda layer: shares
    least = min(shares.values())
    return least if set(shares.values()) == {least} else None, lambda layer: shares.get(layer, least)


def interpolate_by(
    mixture: Mixture,
    promise: str | Iterable[str] | Promise,
    alphas: Iterable[float] | None,
    by_layer: bool,
    max_trials: int,
    confidence: float,
) -> Interpolation:
    """Choose a mixture of weights under a promise; see `bc_lightning.interpolate`."""
    promise, settings = Promise.of(promise), checked_alphas(alphas)
    checked_confidence(confidence)
    check_count(max_trials, "max_trials")
    # Each trial with shares of its own may seem to keep the promise by luck: half of the chance of an error is for all
    # of them, half for the first sequence.
    error = 1 - confidence
    first, of_each = (1 - error / 2, 1 - error / 2 / max_trials) if by_layer else (confidence, confidence)

    def overlap_of(shares: float | Mapping[str, float]) -> ErrorOverlap:
        return _overlap_of(mixture, shares)

    trials, chosen = walk(settings, overlap_of, promise, first, h2_itself=0.0)
    layer_trials: list[Trial] = []
    if by_layer:
        layer_trials, chosen = refine(mixture.layers, chosen, overlap_of, promise, of_each, max_trials)
    mixture.mix(chosen.setting if chosen.layers is None else chosen.layers)
    return Interpolation(mixture.result(), chosen, tuple(trials), chosen.verdict.confidence, tuple(layer_trials))


def project_by(
    mixture: Mixture, shares: Sequence[float], promise: Promise, confidence: float
) -> tuple[float, PromiseVerdict]:
    """Move the network back towards h1 as far as a promise asks; see `bc_lightning.ProjectionCallback`.

    Args:
        mixture: h2 itself.
        shares: Shares of h1, rising from 0 to 1.
        promise: What is to be kept.
        confidence: Of each bound.

    Returns:
        The share of h1 that the network has now, and whether it keeps the promise.
    """
    try:
        share, verdict = smallest_share(shares, lambda share: _overlap_of(mixture, share), promise, confidence)
    except Exception:
        mixture.mix(0.0)  # what was trained
        raise
    mixture.mix(share)
    return share, verdict


def check_projectable(mixture: Mixture, promise: Promise, confidence: float) -> None:
    """Refuse a promise that h1 itself does not keep for certain; the network is h2 again.

    Raises:
        ValueError: Such a promise, or too few validation data for it.
    """
    try:
        possible = judge(promise, _overlap_of(mixture, 1.0), confidence)
    finally:
        mixture.mix(0.0)
    if possible.verdict != "met":
        raise ValueError(
            f"h1 itself does not keep the promise on these data, so no step back to it would: {possible} Give more "
            "validation data, or promise less."
        )


def _overlap_of(mixture: Mixture, shares: float | Mapping[str, float]) -> ErrorOverlap:
    mixture.mix(shares)
    return mixture.overlap()
