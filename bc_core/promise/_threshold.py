"""Which threshold of a binary h2 keeps a promise: scores over the threshold, and the one to take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core._arrays import label_array, to_numpy
from bc_core.counting._overlap import ErrorOverlap
from bc_core.counting._scores import score_from_counts
from bc_core.promise._grammar import Promise
from bc_core.promise._verdict import PromiseVerdict, judge

_MOST = 200


@dataclass(frozen=True, eq=False)
class ThresholdCurve:
    """What an update would break at each threshold of h2.

    Attributes:
        thresholds: Shape (T,), rising; h2 says class 1 where its score is at least that.
        counts: Shape (T, 2, 2), instances indexed `[threshold, h1_right, h2_right]`.
        recommended: The threshold to take; None where none keeps the promise for sure, or none was given.
        verdict: What the promise comes to there, on the half of the instances that took no part in choosing it.
        promise: What was promised; None where only the curve was wanted.

    Example:
        >>> from bc_core import threshold_curve
        >>> curve = threshold_curve([0, 0, 1, 1], [0, 1, 1, 1], [0.1, 0.4, 0.35, 0.8])
        >>> curve.thresholds[:3].tolist(), curve.score("nfr")[:3].tolist()
        ([0.1, 0.35, 0.4], [0.25, 0.0, 0.25])
    """

    thresholds: NDArray[np.float64]
    counts: NDArray[np.int64]
    recommended: float | None = None
    verdict: PromiseVerdict | None = None
    promise: Promise | None = None

    def score(self, name: str) -> NDArray[np.float64]:
        """A score at each threshold, shape (T,); nan where nothing is below the fraction bar.

        Args:
            name: A key of `SCORES`.
        """
        found = [score_from_counts(name, counts, zero_division=np.nan) for counts in self.counts]
        return np.asarray(found, np.float64)


def threshold_curve(
    target: Any,
    h1_pred: Any,
    h2_scores: Any,
    *,
    promise: str | Iterable[str] | Promise | None = None,
    thresholds: Sequence[float] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> ThresholdCurve:
    """Compare h1 with h2 at every threshold of h2, and say which to take.

    The one recommended has the highest accuracy of those that keep the promise at `confidence` on one half of the
    instances, chosen by `seed`; the verdict is of the other half, so that having looked at many does no harm to it.

    Args:
        target: N true classes, 0 or 1.
        h1_pred: N classes that h1 predicts, 0 or 1.
        h2_scores: N scores of h2 for class 1.
        promise: Bounds such as ``"nfr <= 0.5%"``.
        thresholds: Those to look at, as exact as the scores are. Default: up to 200 of the scores that occur, and one
            above them all.
        confidence: Of each bound, one-sided.
        seed: Of the halves.

    Raises:
        ValueError: Lengths differ, a class is neither 0 nor 1, or a score is no finite number.

    Example:
        >>> import numpy as np
        >>> from bc_core import threshold_curve
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 4000)
        >>> curve = threshold_curve(y, y, y + rng.normal(0, 0.3, 4000), promise="nfr <= 8%")
        >>> 0.4 < curve.recommended < 0.6, curve.verdict.verdict
        (True, 'met')
    """
    truth, h1 = (_classes(values, name) for values, name in ((target, "target"), (h1_pred, "h1_pred")))
    given = to_numpy(h2_scores, "h2_scores").reshape(-1)
    # As exact as the scores: a model says 0.7 in 32 bits, which is less than 0.7 in 64.
    kind = given.dtype.type if given.dtype.kind == "f" else np.float64
    scores = np.asarray(given, np.float64)
    if not len(truth) == len(h1) == len(scores):
        raise ValueError(f"expected columns of one length, got {len(truth)}, {len(h1)} and {len(scores)}")
    if not np.isfinite(scores).all():
        raise ValueError(f"h2_scores: expected finite numbers, got {scores[~np.isfinite(scores)][0]}")
    looked = _thresholds(scores, kind) if thresholds is None else np.asarray(thresholds, kind).astype(np.float64)
    looked = np.unique(looked)
    if not len(looked) or not np.isfinite(looked).all():
        raise ValueError("thresholds: expected finite numbers, at least one")
    counts = _counts(truth, h1 == truth, scores, looked)
    if promise is None:
        return ThresholdCurve(looked, counts)
    promised = Promise.of(promise)
    first = np.zeros(len(truth), bool)
    first[np.random.default_rng(seed).permutation(len(truth))[: len(truth) // 2]] = True
    halves = [_counts(truth[half], (h1 == truth)[half], scores[half], looked) for half in (first, ~first)]
    best = _best(promised, halves[0], confidence)
    if best is None:
        return ThresholdCurve(looked, counts, None, None, promised)
    verdict = judge(promised, ErrorOverlap(halves[1][best][None]), confidence)
    return ThresholdCurve(looked, counts, float(looked[best]), verdict, promised)


def _classes(values: Any, name: str) -> NDArray[np.int64]:
    labels = label_array(values, name)
    if labels.dtype.kind not in "iu" or not np.isin(labels, (0, 1)).all():
        raise ValueError(f"{name}: expected classes 0 and 1, got {np.unique(labels)[:5].tolist()}")
    return labels.astype(np.int64)


def _thresholds(scores: NDArray[np.float64], kind: type[np.floating[Any]]) -> NDArray[np.float64]:
    occurring = np.unique(scores)
    if len(occurring) > _MOST:
        occurring = np.unique(np.quantile(occurring, np.linspace(0, 1, _MOST), method="nearest"))
    return np.append(occurring, np.float64(np.nextafter(kind(occurring[-1]), kind(np.inf))))


def _counts(
    truth: NDArray[np.int64], h1_right: NDArray[np.bool_], scores: NDArray[np.float64], thresholds: NDArray[np.float64]
) -> NDArray[np.int64]:
    """By sorting once: how many of each kind are below a threshold."""
    counts = np.zeros((len(thresholds), 2, 2), np.int64)
    for label in (0, 1):
        for right in (0, 1):
            of_kind = np.sort(scores[(truth == label) & (h1_right == right)])
            below = np.searchsorted(of_kind, thresholds, side="left")
            counts[:, right, label] += len(of_kind) - below  # called 1: right where that is true
            counts[:, right, 1 - label] += below
    return counts


def _best(promise: Promise, counts: NDArray[np.int64], confidence: float) -> int | None:
    accuracy = counts[:, :, 1].sum(axis=1)
    for place in np.argsort(-accuracy, kind="stable").tolist():
        overlap = ErrorOverlap(counts[place][None])
        if judge(promise, overlap, confidence).verdict == "met":
            return int(place)
    return None
