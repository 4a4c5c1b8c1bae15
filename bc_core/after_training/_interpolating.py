"""What `interpolate` does in which order, over networks of any framework."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from bc_core.after_training._results import Interpolation
from bc_core.after_training._walk import checked_alphas, checked_confidence, checked_max_trials, refine, walk
from bc_core.counting._overlap import ErrorOverlap
from bc_core.promise._grammar import Promise


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
    checked_max_trials(max_trials)
    if by_layer:
        # Each trial with shares of its own may seem to keep the promise by luck; the first sequence is one more.
        confidence = 1 - (1 - confidence) / (max_trials + 1)

    def overlap_of(shares: float | Mapping[str, float]) -> ErrorOverlap:
        mixture.mix(shares)
        return mixture.overlap()

    trials, chosen = walk(settings, overlap_of, promise, confidence, h2_itself=0.0)
    layer_trials = []
    if by_layer:
        layer_trials, chosen = refine(mixture.layers, chosen, overlap_of, promise, confidence, max_trials)
    mixture.mix(chosen.setting if chosen.layers is None else chosen.layers)
    return Interpolation(mixture.result(), chosen, tuple(trials), confidence, tuple(layer_trials))
