"""How sure two models are: of each instance, and counted over all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bc_core._arrays import EqualByFields, flat, to_numpy
from bc_core.counting._overlap import ErrorOverlap

# Probabilities are kept as millionths, so that a file gives back what was put in.
UNIT = 1_000_000
BINS = 20
_STEPS = 100
_ROUNDED = 1e-6
ROUNDED_SUM = 1e-2
Model = Literal["h1", "h2"]
MODELS: tuple[Model, Model] = ("h1", "h2")


class Said(NamedTuple):
    """How sure a model is of N instances; nan where that is not known.

    Attributes:
        answer: Shape (N,), probability of the class that it predicts.
        truth: Shape (N,), probability of the true class.
        positive: Shape (N,), probability of class 1 of a binary model, in the type that it was given; else None.
    """

    answer: NDArray[np.float64]
    truth: NDArray[np.float64]
    positive: NDArray[np.floating[Any]] | None = None

    @classmethod
    def of_binary(cls, positive: NDArray[Any], target: NDArray[Any], pred: NDArray[Any]) -> Said:
        """What a binary model says, by its probability of class 1."""
        wide = positive.astype(np.float64)
        return cls(np.where(pred == 1, wide, 1 - wide), np.where(target == 1, wide, 1 - wide), positive)

    @classmethod
    def nothing(cls, size: int) -> Said:
        """What is known of a model that gave labels alone."""
        unknown = np.full(size, np.nan)
        return cls(unknown, unknown)


def all_probabilities(scores: NDArray[Any]) -> bool:
    """Whether all rows of class scores, classes on the last axis, are probabilities; else they are logits.

    Example:
        >>> import numpy as np
        >>> from bc_core.comparison._confidence import all_probabilities
        >>> all_probabilities(np.array([[0.2, 0.8]])), all_probabilities(np.array([[2.0, -1.0]]))
        (True, False)
    """
    sums = scores.sum(axis=-1, dtype=np.float64)
    return bool((scores >= 0).all() and (np.abs(sums - 1) < ROUNDED_SUM).all())


def said_by(
    scores: Any, target: NDArray[Any], pred: NDArray[Any], num_classes: int, name: str, threshold: float = 0.5
) -> Said:
    """Read a model's probabilities, and refuse those that its labels do not follow from.

    Args:
        scores: Shape (N, C), probabilities of each class; or (N,), those of class 1 of two. A row of nan is not known.
        target: Shape (N,), true class numbers.
        pred: Shape (N,), class numbers that the model predicts.
        num_classes: Number of classes C.
        name: What the caller calls the scores.
        threshold: From which probability on a binary model says class 1.

    Raises:
        ValueError: Another shape, no probabilities, or labels that do not follow from them.
    """
    if isinstance(scores, Said):
        return scores
    given = to_numpy(scores, name)
    size = len(pred)
    if given.dtype.kind not in "fiu":
        raise ValueError(f"{name}: expected probabilities, got {given.dtype}")
    given = flat(given)
    wanted = (size, num_classes)
    if given.shape != wanted and not (num_classes == 2 and given.shape == (size,)):
        of_binary = f" or ({size},), the probability of class 1" if num_classes == 2 else ""
        raise ValueError(
            f"{name}: expected probabilities of shape {wanted}{of_binary}, got {given.shape}; a class that the model "
            "does not know has probability 0"
        )
    if given.ndim == 2:
        _check_rows(given, name)
    _check_range(given, name)
    if num_classes == 2:
        positive = given if given.ndim == 1 else given[:, 1]
        positive = positive if positive.dtype.kind == "f" else positive.astype(np.float64)
        positive = _on_their_side(positive, pred, threshold)
        why = f"class 1 begins at {threshold:g}, unless threshold= says otherwise"
        _refuse_others(_contradicts(positive, pred, threshold), name, pred, why)
        return Said.of_binary(positive, target, pred)
    rows = np.arange(size)
    answer = given[rows, pred].astype(np.float64)
    _refuse_others(answer < given.max(axis=1) - _ROUNDED, name, pred, "the most probable class is another one")
    return Said(answer, given[rows, target].astype(np.float64))


def _check_rows(given: NDArray[Any], name: str) -> None:
    sums = given.sum(axis=1, dtype=np.float64)
    if (odd := np.abs(sums - 1) > ROUNDED_SUM).any():
        row = int(odd.argmax())
        raise ValueError(
            f"{name}: expected probabilities, which add up to 1 in each row, got {sums[row]:.6g} in row {row}; of "
            "logits take the softmax first"
        )


def _check_range(given: NDArray[Any], name: str) -> None:
    if (odd := (given < -_ROUNDED) | (given > 1 + _ROUNDED)).any():
        value = given[odd][0]
        raise ValueError(
            f"{name}: expected probabilities from 0 to 1, got {value:.6g}; of logits take the softmax, of those of a "
            "binary model the sigmoid"
        )


def _on_their_side(positive: NDArray[Any], pred: NDArray[Any], threshold: float) -> NDArray[Any]:
    """Probabilities on the side of the threshold that the labels say, where only rounding brought them to the other."""
    edge = positive.dtype.type(threshold)
    strange = _contradicts(positive, pred, threshold) & (np.abs(positive - edge) <= _ROUNDED)
    if not strange.any():
        return positive
    beside = np.where(pred == 1, edge, np.nextafter(edge, positive.dtype.type(-1)))
    return np.where(strange, beside, positive).astype(positive.dtype)


def _contradicts(positive: NDArray[Any], pred: NDArray[Any], threshold: float) -> NDArray[np.bool_]:
    strange: NDArray[np.bool_] = ((positive >= positive.dtype.type(threshold)) != (pred == 1)) & ~np.isnan(positive)
    return strange


def _refuse_others(strange: NDArray[np.bool_], name: str, pred: NDArray[Any], why: str) -> None:
    if strange.any():
        row = int(strange.argmax())
        raise ValueError(
            f"{name}: the labels of {int(strange.sum())} instances do not follow from the scores, first that of row "
            f"{row}, class {int(pred[row])}: {why}. Give the scores that the labels were read from, in their order"
        )


@dataclass(frozen=True, eq=False)
class Calibration(EqualByFields):
    """How often two models are right, by how sure they are of their answers, over all instances.

    Attributes:
        counts: Shape (2, 20, 2), int64: of h1 and of h2, in 20 equal bins of the probability of the answer, the
            instances that are wrong and right.
        sums: Shape (2, 20), int64: these probabilities added up, in millionths.

    Example:
        >>> from bc_core import compare
        >>> scores = [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]
        >>> c = compare([0, 1, 1], [0, 0, 1], [0, 0, 1], h1_scores=scores, h2_scores=scores)
        >>> round(c.calibration.expected_error("h2"), 4)
        0.3
    """

    counts: NDArray[np.int64]
    sums: NDArray[np.int64]

    @classmethod
    def of(
        cls, target: NDArray[Any], answers: tuple[NDArray[Any], NDArray[Any]], said: tuple[Said, Said]
    ) -> Calibration:
        """Count instances by how sure the models are.

        Args:
            target: Shape (N,), true classes.
            answers: What h1 and h2 predict.
            said: How sure they are.
        """
        counts = np.zeros((2, BINS, 2), np.int64)
        sums = np.zeros((2, BINS), np.int64)
        for model, (pred, each) in enumerate(zip(answers, said, strict=True)):
            known = ~np.isnan(each.answer)
            sure = millionths(each.answer[known])
            # The last bin has its upper edge too.
            bins = np.minimum(sure // (UNIT // BINS), BINS - 1)
            cells = bins * 2 + (pred[known] == target[known])
            counts[model] = np.bincount(cells, minlength=2 * BINS).reshape(BINS, 2)
            # Exact in float64, as no sum of so many millionths comes near 2**53.
            sums[model] = np.bincount(bins, weights=sure, minlength=BINS)
        return cls(counts, sums)

    def expected_error(self, model: Model = "h2") -> float:
        """Expected calibration error: by how much sureness and accuracy differ in a bin, on the average of instances.

        Args:
            model: `"h1"` or `"h2"`.

        Returns:
            The error; nan where nothing is known of the model.

        Reference:
            Guo et al., "On calibration of modern neural networks", ICML 2017.
        """
        place = MODELS.index(model)
        counts, sums = self.counts[place], self.sums[place]
        total = counts.sum()
        return float(np.abs(sums / UNIT - counts[:, 1]).sum() / total) if total else float("nan")

    def __add__(self, other: Calibration) -> Calibration:
        return Calibration(self.counts + other.counts, self.sums + other.sums)


@dataclass(frozen=True, eq=False)
class ThresholdCounts(EqualByFields):
    """All instances of two binary models, counted by what they score, so that each can be read at another threshold.

    The bins begin at every percent and at both thresholds in use: at these the counts are exact, between them there are
    none.

    Attributes:
        edges: Where the B bins begin, ascending from 0.
        counts: Shape (B, B, 2), int64: instances by the bin of h1's probability of class 1, by that of h2's, and by
            true class.
        in_use: Thresholds of h1 and h2 that the comparison was made with.
    """

    edges: tuple[float, ...]
    counts: NDArray[np.int64]
    in_use: tuple[float, float]

    @classmethod
    def of(
        cls, target: NDArray[Any], positive: tuple[NDArray[Any], NDArray[Any]], in_use: tuple[float, float]
    ) -> ThresholdCounts:
        """Count instances by both scores.

        Args:
            target: Shape (N,), true classes, 0 or 1.
            positive: Shape (N,) each, probability of class 1 of h1 and h2.
            in_use: From which probability on h1 and h2 say class 1.
        """
        edges = sorted({*(step / _STEPS for step in range(_STEPS)), *in_use})
        size = len(edges)
        # In the type of the scores, where 0.29 is what the model's own 0.29 is.
        h1, h2 = (
            np.searchsorted(np.asarray(edges, dtype=scores.dtype), scores, side="right") - 1 for scores in positive
        )
        cells = (np.maximum(h1, 0) * size + np.maximum(h2, 0)) * 2 + target
        counts = np.bincount(cells.astype(np.intp), minlength=2 * size * size).astype(np.int64)
        return cls(tuple(edges), counts.reshape(size, size, 2), in_use)

    def at(self, h2: float | None = None, h1: float | None = None) -> ErrorOverlap:
        """Counts with other thresholds.

        Args:
            h2: From which probability on h2 says class 1. Default: that in use.
            h1: The same of h1.

        Raises:
            ValueError: A threshold at which no bin begins.

        Example:
            >>> from bc_core import compare
            >>> c = compare([0, 1, 1], [0, 1, 1], [0, 0, 1], h1_scores=[0.1, 0.8, 0.9], h2_scores=[0.2, 0.4, 0.7])
            >>> c.overlap.nfr, c.thresholds.at(h2=0.4).nfr
            (0.3333333333333333, 0.0)
        """
        first, second = (
            self._place(own if given is None else given) for own, given in zip(self.in_use, (h1, h2), strict=True)
        )
        says_1 = np.arange(len(self.edges))
        cells = np.zeros((2, 2, 2), np.int64)
        for label in (0, 1):
            right_1 = (says_1 >= first) == bool(label)
            right_2 = (says_1 >= second) == bool(label)
            of_label = self.counts[:, :, label]
            for a in (0, 1):
                for b in (0, 1):
                    cells[label, a, b] = of_label[np.ix_(right_1 == bool(a), right_2 == bool(b))].sum()
        return ErrorOverlap(cells)

    def _place(self, threshold: float) -> int:
        distances = np.abs(np.asarray(self.edges) - threshold)
        place = int(distances.argmin())
        if distances[place] > _ROUNDED:
            raise ValueError(
                f"threshold: instances are counted at each percent and at those in use ({self.in_use[0]:g}, "
                f"{self.in_use[1]:g}), and not at {threshold:g}; the nearest is {self.edges[place]:g}"
            )
        return place


class Confidence(NamedTuple):
    """What is counted of all instances; None where it is not known or, of thresholds, not asked.

    Attributes:
        calibration: How often the models are right, by how sure they are.
        thresholds: Counts at other thresholds, of binary models.
    """

    calibration: Calibration | None = None
    thresholds: ThresholdCounts | None = None

    def merged(self, other: Confidence) -> Confidence:
        """Of two shards; what one of them lacks, nobody knows of both."""
        a, b = self.calibration, other.calibration
        calibration = a + b if a is not None and b is not None else None
        one, two = self.thresholds, other.thresholds
        same = one is not None and two is not None and (one.edges, one.in_use) == (two.edges, two.in_use)
        thresholds = None
        if same:
            assert one is not None
            assert two is not None
            thresholds = ThresholdCounts(one.edges, one.counts + two.counts, one.in_use)
        return Confidence(calibration, thresholds)


def counted_confidence(
    target: NDArray[Any],
    answers: tuple[NDArray[Any], NDArray[Any]],
    said: tuple[Said, Said],
    in_use: tuple[float, float] = (0.5, 0.5),
) -> Confidence:
    """Count all instances by how sure two models are.

    Args:
        target: Shape (N,), true classes.
        answers: What h1 and h2 predict.
        said: How sure they are.
        in_use: Thresholds of binary models.
    """
    calibration = Calibration.of(target, answers, said)
    positive = []
    for pred, each, edge in zip(answers, said, in_use, strict=True):
        if each.positive is not None:
            positive.append(_on_their_side(each.positive, pred, edge))
        elif np.isnan(each.answer).all():
            # A model that gave labels alone is sure of them, whatever its threshold.
            positive.append(pred.astype(np.float64))
    if len(positive) < 2 or all(each.positive is None for each in said) or any(np.isnan(p).any() for p in positive):
        return Confidence(calibration)
    # Labels that no threshold gave, as those of a file beside its scores, are not moved by one.
    if any(_contradicts(p, pred, edge).any() for p, pred, edge in zip(positive, answers, in_use, strict=True)):
        return Confidence(calibration)
    return Confidence(calibration, ThresholdCounts.of(target, (positive[0], positive[1]), in_use))


def millionths(probabilities: NDArray[Any]) -> NDArray[np.int64]:
    """Probabilities as millionths, and -1 for nan."""
    known = np.where(np.isnan(probabilities), -1 / UNIT, np.clip(probabilities, 0, 1))
    whole: NDArray[np.int64] = np.rint(known * UNIT).astype(np.int64)
    return whole


def of_millionths(values: Any) -> NDArray[np.float64]:
    """Probabilities again, nan where -1 stood."""
    whole = np.asarray(values, np.int64)
    return np.where(whole < 0, np.nan, whole / UNIT)
