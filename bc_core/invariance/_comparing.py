"""What `compare_invariance` does, in which order: both networks over the same tiles; on any framework."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core.invariance._layer_measures import LayerMeasures, Statistic, Summary
from bc_core.invariance._layers import LayerChoice
from bc_core.invariance._measuring import check_samples, opened
from bc_core.invariance._network import Network, measures_of
from bc_core.invariance._probes import Probes
from bc_core.invariance._rows import Piece, Rows
from bc_core.invariance._update import InvarianceUpdate, classes_of_h2, compare_predictions, depth_intervals


@dataclass(frozen=True)
class ScoreReading:
    """How scores of a model are read as classes.

    Attributes:
        limit: A single score is class 1 from this on.
        is_probability: Whether single scores must lie between 0 and 1.
        several_labels: Whether several scores are those of labels, of which each is there or not, and not of classes.
    """

    limit: float
    is_probability: bool
    several_labels: bool

    def classes(self, scores: NDArray[Any], name: str, inputs: int) -> NDArray[np.int64]:
        """Predicted class of each input.

        Args:
            scores: What the model said.
            name: The model's, for errors.
            inputs: Number of inputs.

        Raises:
            ValueError: If scores are of another shape, NaN, those of several labels, or no probabilities.

        Example:
            >>> import numpy as np
            >>> from bc_core.invariance._comparing import ScoreReading
            >>> reading = ScoreReading(0.5, is_probability=True, several_labels=False)
            >>> reading.classes(np.array([[0.2], [0.5]]), "h1", 2), reading.classes(np.eye(2), "h1", 2)
            (array([0, 1]), array([0, 1]))
        """
        if scores.ndim not in (1, 2) or len(scores) != inputs:
            raise ValueError(
                f"{name}: expected scores of shape ({inputs}, C), one row for each input, got {scores.shape}"
            )
        is_float = scores.dtype.kind == "f"
        if is_float and np.isnan(scores).any():
            raise ValueError(
                f"{name} returned NaN (output of shape {scores.shape}), so it has no prediction there: look for a "
                "diverged or half-loaded model, or inputs that are already NaN"
            )
        if scores.ndim == 2 and scores.shape[1] > 1:
            if self.several_labels:
                raise ValueError(
                    f"{name}: expected one score per input, as it is trained with a binary loss, got {scores.shape[1]} "
                    "labels, of which each is kept or lost by itself; compare one at a time, with models that return "
                    "its column"
                )
            return np.asarray(scores.argmax(axis=1), dtype=np.int64)
        scores = scores.reshape(-1)
        if is_float:
            if self.is_probability and ((scores < 0) | (scores > 1)).any():
                raise ValueError(
                    f"{name} returned {scores.min():g} to {scores.max():g} where probabilities in 0..1 were expected; "
                    "if the models return logits, pass from_logits=True"
                )
            scores = scores >= self.limit
        return np.asarray(scores, dtype=np.int64)


@dataclass(frozen=True)
class Wanted:
    """What of a comparison is wanted: the options of `compare_invariance` that no framework needs to know.

    Attributes:
        statistic: The spread that intervals are of.
        how: The summary that intervals are of.
        confidence: Their coverage.
        probe_units: Most units of a layer to keep the activations of.
        probe_memory: Bytes that these may take for each network.
        seed: Of the choice of units.
        only_predictions: Whether layers are left out.
    """

    statistic: Statistic
    how: Summary
    confidence: float
    probe_units: int
    probe_memory: int
    seed: int
    only_predictions: bool

    def probes(self) -> Probes:
        """Where activations of a few units go."""
        return Probes(self.probe_units, self.probe_memory, self.seed)


class Comparing:
    """`compare_invariance` that can be run again, as h2 is trained.

    Args:
        h1: The model in use.
        h2: Its update.
        rows: What to compare on.
        readings: How the scores of either are read.
        wanted: What of the comparison is wanted.
        class_map: h2's class for each of h1's, where they differ.
    """

    def __init__(
        self,
        h1: Network,
        h2: Network,
        rows: Rows,
        readings: tuple[ScoreReading, ScoreReading],
        wanted: Wanted,
        class_map: Sequence[Any] | None,
    ) -> None:
        self._networks, self._rows, self._readings = (h1, h2), rows, readings
        self._wanted, self._class_map = wanted, class_map
        wanted.probes()  # refuses what cannot be

    def run(self) -> InvarianceUpdate:
        """Compare the models as they are now."""
        wanted = self._wanted
        for network in self._networks:
            network.forget()
            network.probes = None if wanted.only_predictions else wanted.probes()
        pieces = iter(self._rows) if wanted.only_predictions else self._opened()
        update = self._predicted(pieces)
        if wanted.only_predictions:
            return update
        found = [self._read_off(network, 0, update.samples) for network in self._networks]
        for number in range(1, max(len(network.groups) for network in self._networks)):
            self._measure_group(number, update.samples)
            for kept, network in zip(found, self._networks, strict=True):
                kept.extend(self._read_off(network, number, update.samples))
        h1, h2 = (network.result(measures) for network, measures in zip(self._networks, found, strict=True))
        options: dict[str, Any] = {"statistic": wanted.statistic, "how": wanted.how, "confidence": wanted.confidence}
        probes = [network.probes or wanted.probes() for network in self._networks]
        intervals = depth_intervals(h1, h2, (probes[0], probes[1]), **options)
        return replace(update, h1=h1, h2=h2, intervals=intervals, confidence=wanted.confidence)

    def _opened(self) -> Iterator[Piece]:
        """All samples, after the layers of both were found and named."""
        h1, h2 = self._networks
        are_new = not h1.layers
        pieces = opened(self._networks, self._rows, again=False)
        if are_new:
            h1.rename(h1.names_beside(h2))
        if max(len(h1.groups), len(h2.groups)) > 1:
            first = next(pieces)
            self._rows.check_order(first)
            pieces = chain([first], pieces)
        return pieces

    def _predicted(self, pieces: Iterator[Piece]) -> InvarianceUpdate:
        """The first pass: what both say, while the first layers of each are measured."""
        columns = len(self._networks[0].transforms)
        said: tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]] = ([], [])
        targets: list[NDArray[np.int64]] = []
        with ExitStack() as stack:
            runs = [
                stack.enter_context(network.passing(network.groups[0] if network.groups else [], output=True))
                for network in self._networks
            ]
            for piece in pieces:
                # Made once: a transformation may draw random numbers.
                tile = self._networks[0].tile(piece)
                for network, run, reading, kept in zip(self._networks, runs, self._readings, said, strict=True):
                    scores = network.scores(run(piece, tile))
                    classes = reading.classes(scores, network.called, piece.rows * columns)
                    kept.append(classes.reshape(piece.rows, columns))
                if piece.target is not None:
                    targets.append(piece.target)
        if not said[0]:
            raise ValueError("data: expected at least two samples, got none; look at the data set")
        h1_pred, h2_pred = (np.concatenate(kept) for kept in said)
        target = np.concatenate(targets) if targets else None
        if self._class_map is not None:
            h1_pred = classes_of_h2(h1_pred, self._class_map, h2_pred, target)
        update = compare_predictions(h1_pred, h2_pred, target, transforms=self._networks[0].transforms)
        return replace(update, statistic=self._wanted.statistic, how=self._wanted.how)

    def _measure_group(self, number: int, samples: int) -> None:
        """A later pass, for the layers that did not fit into memory."""
        networks = [network for network in self._networks if number < len(network.groups)]
        seen = 0
        with ExitStack() as stack:
            runs = [stack.enter_context(network.passing(network.groups[number])) for network in networks]
            for piece in self._rows:
                tile = self._networks[0].tile(piece)
                for run in runs:
                    run(piece, tile)
                seen += piece.rows
        check_samples(samples, seen, number)

    @staticmethod
    def _read_off(network: Network, number: int, samples: int) -> list[LayerMeasures]:
        """At once, since these are the sums that `max_memory` bounds."""
        group = network.groups[number] if number < len(network.groups) else []
        return [
            measures
            for layer in group
            for measures in measures_of(layer, network.moments(layer.name), samples, network.left_out)
        ]


def only_predictions(layers: LayerChoice | None) -> bool:
    """Whether no layer is asked for."""
    return layers is not None and not callable(layers) and len(layers) == 0
