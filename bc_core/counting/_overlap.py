"""ErrorOverlap: who was right how often, by class. Every score and chart is read from these counts."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bc_core._arrays import INT64_MAX, matching_labels, to_numpy
from bc_core.counting._intervals import Method, Side, clopper_pearson_interval, wilson_interval
from bc_core.counting._score_lines import ScoreLine, score_lines
from bc_core.counting._scores import bec_name, count_cells, named_score, score_from_counts, score_terms

Verdict = Literal["pass", "fail", "inconclusive"]

# A larger label is more likely an id than a class, and counts of so many classes would fill the memory.
MOST_CLASSES = 2**20


class ErrorOverlap:
    """Counts of (h1 right or wrong) x (h2 right or wrong) by true class; adding two merges two shards.

    The counts never change after construction, so an overlap can be shared, compared and used as a key.

    Args:
        counts: Shape (num_classes, 2, 2), integers, indexed `[true class, h1_right, h2_right]`; index 1 means right.
            A tensor of any framework will do. The counts are copied.

    Attributes:
        counts: Read-only int64 array of that shape.

    Raises:
        ValueError: If the shape is another one, a count is negative or not whole, or the sum is 2**63 or more.

    Example:
        >>> from bc_core import ErrorOverlap
        >>> first = ErrorOverlap.from_predictions([0, 1, 1], [0, 1, 0], [0, 0, 1], num_classes=2)
        >>> second = ErrorOverlap.from_predictions([1, 1], [1, 0], [1, 0], num_classes=2)
        >>> whole = sum([first, second])
        >>> whole
        ErrorOverlap(num_classes=2, total=5, both_right=2, h1_only_right=1, h2_only_right=1, both_wrong=1)
        >>> whole.nfr, whole.bec(given="h2_wrong")
        (0.2, 0.5)
    """

    __slots__ = ("counts",)

    counts: NDArray[np.int64]

    def __init__(self, counts: Any) -> None:
        array = to_numpy(counts, "counts")
        if array.ndim != 3 or array.shape[0] == 0 or array.shape[1:] != (2, 2):
            raise ValueError(
                "counts: expected shape (num_classes, 2, 2) indexed [class, h1_right, h2_right], "
                f"got shape {array.shape}"
            )
        if array.dtype.kind not in "iuf":
            raise ValueError(f"counts: expected integers, got dtype {array.dtype}")
        # A larger one would wrap around to a negative number; the largest int64 has no counterpart in floats.
        fits = array < 2.0**63 if array.dtype.kind == "f" else array <= INT64_MAX
        if not ((array >= 0) & fits).all() or (array != (whole := array.astype(np.int64))).any():
            raise ValueError(
                "counts: expected whole numbers that are not negative and below 2**63; weights cannot be counted here"
            )
        if int(whole.max()) > INT64_MAX // whole.size and sum(whole.ravel().tolist()) > INT64_MAX:
            raise ValueError("counts: their sum is 2**63 or more, so they cannot be counts of instances")
        whole.setflags(write=False)
        object.__setattr__(self, "counts", whole)

    @classmethod
    def empty(cls, num_classes: int) -> ErrorOverlap:
        """Return an overlap of no instances, to which others are added.

        Example:
            >>> from bc_core import ErrorOverlap
            >>> ErrorOverlap.empty(3).total
            0
        """
        return cls(np.zeros((_positive(num_classes), 2, 2), dtype=np.int64))

    @classmethod
    def from_predictions(
        cls,
        target: Any,
        h1_pred: Any,
        h2_pred: Any,
        num_classes: int | None = None,
        ignore_index: int | None = None,
    ) -> ErrorOverlap:
        """Count predicted classes against true ones, in one vectorised pass.

        Args:
            target: N true classes, integers in 0..num_classes-1, shape (N,) or (N, 1); list, array or tensor.
            h1_pred: N classes that h1 predicts.
            h2_pred: N classes that h2 predicts.
            num_classes: Number of classes C. Default: the largest label plus one, up to 2**20. State it wherever
                results of several batches or shards are added, since a batch need not hold the last class.
            ignore_index: Instances with this target are left out.

        Returns:
            The overlap of all instances that are not ignored.

        Raises:
            ValueError: If the lengths differ, there is no instance, a label is NaN or not whole, or a target or
                prediction lies outside 0..num_classes-1 (the message names the first).
            TypeError: If labels are text (`compare` maps names to classes) or no labels at all.

        Example:
            >>> from bc_core import ErrorOverlap
            >>> ErrorOverlap.from_predictions([0, 1, 2, 2], [0, 1, 0, 2], [0, 2, 2, 2]).counts.sum(axis=0)
            array([[0, 1],
                   [1, 2]])
        """
        names = ("target", "h1_pred", "h2_pred")
        arrays = matching_labels(target, h1_pred, h2_pred, names)
        if arrays[0].dtype.kind == "U":
            raise TypeError(
                "expected class numbers 0..num_classes-1, got text; "
                "use compare(..., class_names=[...]), which maps names to classes"
            )
        if ignore_index is not None:
            keep = arrays[0] != ignore_index
            if not keep.all():
                arrays = (arrays[0][keep], arrays[1][keep], arrays[2][keep])
        if num_classes is None:
            if arrays[0].size == 0:
                raise ValueError("every instance is ignored, so num_classes cannot be told; state num_classes")
            num_classes = max(1, max(int(array.max()) for array in arrays) + 1)
            if num_classes > MOST_CLASSES:
                _refuse_large_label(arrays, names)
        num_classes = _positive(num_classes)
        for array, name in zip(arrays, names, strict=True):
            _check_range(array, name, num_classes)
        truth, h1, h2 = arrays
        return cls(count_cells(h1 == truth, h2 == truth, truth, num_classes))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ErrorOverlap:
        """Rebuild an overlap from what `to_dict` returned.

        Raises:
            ValueError: If `data` is not such a dictionary, or its two entries contradict each other.

        Example:
            >>> from bc_core import ErrorOverlap
            >>> ErrorOverlap.from_dict(ErrorOverlap.empty(2).to_dict()) == ErrorOverlap.empty(2)
            True
        """
        if not isinstance(data, Mapping) or "counts" not in data:
            raise ValueError("expected a dictionary with the key 'counts', as ErrorOverlap.to_dict returns")
        overlap = cls(data["counts"])
        if data.get("num_classes", overlap.num_classes) != overlap.num_classes:
            raise ValueError(f"counts of {overlap.num_classes} classes, but num_classes = {data['num_classes']!r}")
        return overlap

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python numbers, ready for JSON: `num_classes` and the nested list `counts`.

        Example:
            >>> from bc_core import ErrorOverlap
            >>> ErrorOverlap.from_predictions([0], [0], [0]).to_dict()
            {'num_classes': 1, 'counts': [[[0, 0], [0, 1]]]}
        """
        return {"num_classes": self.num_classes, "counts": self.counts.tolist()}

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return len(self.counts)

    @property
    def total(self) -> int:
        """Number of instances."""
        return int(self.counts.sum())

    @property
    def both_right(self) -> int:
        """Instances that both models get right."""
        return int(self.counts[:, 1, 1].sum())

    @property
    def h1_only_right(self) -> int:
        """Negative flips: h1 right, h2 wrong ("regress")."""
        return int(self.counts[:, 1, 0].sum())

    @property
    def h2_only_right(self) -> int:
        """Positive flips: h1 wrong, h2 right ("progress")."""
        return int(self.counts[:, 0, 1].sum())

    @property
    def both_wrong(self) -> int:
        """Instances that both models get wrong ("common")."""
        return int(self.counts[:, 0, 0].sum())

    @property
    def total_by_class(self) -> NDArray[np.int64]:
        """Instances of each true class, shape (C,)."""
        totals: NDArray[np.int64] = self.counts.sum(axis=(1, 2))
        return totals

    @property
    def both_right_by_class(self) -> NDArray[np.int64]:
        """Instances of each true class that both models get right, shape (C,)."""
        return self.counts[:, 1, 1]

    @property
    def h1_only_right_by_class(self) -> NDArray[np.int64]:
        """Negative flips of each true class, shape (C,)."""
        return self.counts[:, 1, 0]

    @property
    def h2_only_right_by_class(self) -> NDArray[np.int64]:
        """Positive flips of each true class, shape (C,)."""
        return self.counts[:, 0, 1]

    @property
    def both_wrong_by_class(self) -> NDArray[np.int64]:
        """Instances of each true class that both models get wrong, shape (C,)."""
        return self.counts[:, 0, 0]

    @property
    def incompatible_share_by_class(self) -> NDArray[np.float64]:
        """Share of all negative flips that falls on each true class, shape (C,); zeros when there is none."""
        flips = self.h1_only_right_by_class
        return flips / max(1, int(flips.sum()))

    @property
    def btc(self) -> float:
        """Backward trust compatibility; 0 when h1 is never right."""
        return self.score("btc")

    def bec(self, given: str = "h1_wrong") -> float:
        """Backward error compatibility, given `"h1_wrong"` or `"h2_wrong"`; 0 when that model is never wrong."""
        return self.score(bec_name(given))

    @property
    def nfr(self) -> float:
        """Negative flip rate."""
        return self.score("nfr")

    @property
    def pfr(self) -> float:
        """Positive flip rate."""
        return self.score("pfr")

    @property
    def nfi(self) -> float:
        """Negative flip impact; 0 when h2 is never wrong."""
        return self.score("nfi")

    @property
    def accuracy_h1(self) -> float:
        """Share of instances that h1 gets right."""
        return self.score("accuracy_h1")

    @property
    def accuracy_h2(self) -> float:
        """Share of instances that h2 gets right."""
        return self.score("accuracy_h2")

    def score(self, name: str, zero_division: float = 0.0) -> float:
        """Compute a score of `SCORES` over all instances.

        Args:
            name: A key of `SCORES`.
            zero_division: Value where nothing lies below the fraction bar.

        Raises:
            ValueError: If there is no such score.

        Example:
            >>> from bc_core import ErrorOverlap
            >>> ErrorOverlap([[[1, 1], [2, 6]]]).score("btc")
            0.75
        """
        return float(score_from_counts(name, self.counts.sum(axis=0), zero_division))

    def per_class(self, name: str, zero_division: float = 0.0) -> NDArray[np.float64]:
        """Compute a score of `SCORES` for each true class.

        Args:
            name: A key of `SCORES`.
            zero_division: Value for classes where nothing lies below the fraction bar, e.g. absent ones.

        Returns:
            Shape (C,), float64.

        Raises:
            ValueError: If there is no such score.

        Example:
            >>> from bc_core import ErrorOverlap
            >>> ErrorOverlap([[[0, 0], [1, 3]], [[0, 0], [0, 5]]]).per_class("nfr")
            array([0.25, 0.  ])
        """
        return np.asarray(score_from_counts(name, self.counts, zero_division), dtype=np.float64)

    def interval(
        self, name: str, confidence: float = 0.95, side: Side = "two", method: Method = "wilson"
    ) -> tuple[float, float]:
        """Compute a confidence interval of a score: how far the test set's number may lie from the true one.

        It covers the choice of test instances, not the luck of a training seed.

        Args:
            name: A key of `SCORES`.
            confidence: Wanted coverage, between 0 and 1 exclusive.
            side: `"two"`, or `"lower"` / `"upper"` for one bound at the full confidence.
            method: `"wilson"`, or `"clopper_pearson"` (exact, careful, for few events).

        Returns:
            Lower and upper bound; (0, 1) where nothing lies below the fraction bar.

        Raises:
            ValueError: If there is no such score or option.

        Example:
            >>> from bc_core import ErrorOverlap
            >>> low, high = ErrorOverlap([[[10, 30], [20, 940]]]).interval("nfr")
            >>> f"{low:.2%} to {high:.2%}"
            '1.30% to 3.07%'
        """
        successes, trials = self._ratio(name)
        if method == "wilson":
            return wilson_interval(successes, trials, confidence, side)
        if method == "clopper_pearson":
            return clopper_pearson_interval(successes, trials, confidence, side)
        raise ValueError(f"method: expected 'wilson' or 'clopper_pearson', got {method!r}")

    def gate(self, name: str, limit: float, confidence: float = 0.95) -> Verdict:
        """Decide whether a score keeps within a budget, allowing for the size of the test set.

        Decided on one-sided Clopper-Pearson bounds, so that a release that breaks the budget passes with a
        probability of at most 1 - confidence, however few the events.

        Args:
            name: A key of `SCORES` that has a direction (not `bec_given_h1_wrong`).
            limit: The budget, a share in [0, 1]: a most for scores where lower is better, else a least.
            confidence: Confidence of either verdict.

        Returns:
            `"pass"` if even the unfavourable bound keeps within the limit, `"fail"` if even the favourable bound
            breaks it, else `"inconclusive"`: more test instances are needed.

        Raises:
            ValueError: If there is no such score, it has no direction, or the limit is no share.

        Example:
            >>> from bc_core import ErrorOverlap
            >>> overlap = ErrorOverlap([[[10, 30], [20, 940]]])  # 20 negative flips in 1000
            >>> [overlap.gate("nfr", limit) for limit in (0.01, 0.02, 0.03)]
            ['fail', 'inconclusive', 'pass']
        """
        higher_is_better = named_score(name).higher_is_better
        if higher_is_better is None:
            raise ValueError(f"{name} has no direction to gate on; gate on nfr, btc or bec_given_h2_wrong")
        if not 0 <= limit <= 1:
            raise ValueError(f"limit: expected a share between 0 and 1, got {limit!r}")
        low = self.interval(name, confidence, "lower", "clopper_pearson")[0]
        high = self.interval(name, confidence, "upper", "clopper_pearson")[1]
        passes, fails = (low >= limit, high < limit) if higher_is_better else (high <= limit, low > limit)
        return "pass" if passes else "fail" if fails else "inconclusive"

    def summary(self, confidence: float = 0.95) -> str:
        """Lay out all scores as a text table with Wilson intervals and the counts behind them.

        Example:
            >>> from bc_core import ErrorOverlap
            >>> print(ErrorOverlap([[[10, 30], [20, 940]]]).summary())
            1000 instances, 1 class
            940 both right, 20 only h1 (negative flips), 30 only h2 (positive flips), 10 both wrong
            score                 estimate  95% interval        counts
            BTC                     97.92%  96.80% to 98.65%    940 / 960
            BEC (given h1 wrong)    25.00%  14.19% to 40.19%    10 / 40
            BEC (given h2 wrong)    33.33%  19.23% to 51.22%    10 / 30
            NFR                      2.00%  1.30% to 3.07%      20 / 1000
            PFR                      3.00%  2.11% to 4.25%      30 / 1000
            NFI                     66.67%  48.78% to 80.77%    20 / 30
            ...
        """
        return "\n".join(self._told(score_lines(self._ratio, confidence), confidence))

    def _told(self, scores: Iterable[ScoreLine], confidence: float) -> list[str]:
        return [
            f"{self.total} instances, {self.num_classes} class{'es' * (self.num_classes != 1)}",
            f"{self.both_right} both right, {self.h1_only_right} only h1 (negative flips), "
            f"{self.h2_only_right} only h2 (positive flips), {self.both_wrong} both wrong",
            f"{'score':<20}  {'estimate':>8}  {f'{100 * confidence:g}% interval':<18}  counts",
            *map(str, scores),
        ]

    def of_classes(self, classes: Sequence[int]) -> ErrorOverlap:
        """The counts of the instances of some true classes; those of the others are 0.

        Args:
            classes: Class numbers.

        Raises:
            ValueError: If a number is no class.

        Example:
            >>> from bc_core import ErrorOverlap
            >>> ErrorOverlap([[[0, 0], [1, 3]], [[0, 0], [0, 5]]]).of_classes([1]).total
            5
        """
        kept = [int(c) for c in classes]
        if any(not 0 <= c < self.num_classes for c in kept):
            raise ValueError(f"classes must be numbers 0..{self.num_classes - 1}, got {kept}")
        counts = np.zeros_like(self.counts)
        counts[kept] = self.counts[kept]
        return ErrorOverlap(counts)

    def _ratio(self, name: str) -> tuple[int, int]:
        successes, trials = score_terms(name, self.counts.sum(axis=0))
        return int(successes), int(trials)

    def __add__(self, other: object) -> ErrorOverlap:
        if not isinstance(other, ErrorOverlap):
            return NotImplemented
        if self.num_classes != other.num_classes:
            raise ValueError(
                f"cannot add overlaps of {self.num_classes} and {other.num_classes} classes; "
                "state the same num_classes when counting each shard"
            )
        if self.total + other.total > INT64_MAX:
            raise ValueError(
                f"cannot add overlaps of {self.total} and {other.total} instances: the sum is 2**63 or more, so they "
                "cannot be counts of instances"
            )
        return ErrorOverlap(self.counts + other.counts)

    def __radd__(self, other: object) -> ErrorOverlap:
        # sum() starts from the number 0.
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ErrorOverlap):
            return NotImplemented
        return np.array_equal(self.counts, other.counts)

    def __hash__(self) -> int:
        return hash(self.counts.tobytes())

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"ErrorOverlap never changes; build another one instead of setting {name!r}")

    def __reduce__(self) -> tuple[type[ErrorOverlap], tuple[NDArray[np.int64]]]:
        # The default of pickle sets attributes, which is refused above.
        return ErrorOverlap, (self.counts,)

    def __repr__(self) -> str:
        return (
            f"ErrorOverlap(num_classes={self.num_classes}, total={self.total}, both_right={self.both_right}, "
            f"h1_only_right={self.h1_only_right}, h2_only_right={self.h2_only_right}, both_wrong={self.both_wrong})"
        )


def _positive(num_classes: Any) -> int:
    try:
        number = operator.index(num_classes)
    except TypeError:
        raise TypeError(f"num_classes: expected an integer, got {num_classes!r}") from None
    if number < 1:
        raise ValueError(f"num_classes: expected at least 1, got {number}")
    return number


def _check_range(labels: NDArray[Any], name: str, num_classes: int) -> None:
    if labels.size == 0 or (labels.min() >= 0 and labels.max() < num_classes):
        return
    index = int(((labels < 0) | (labels >= num_classes)).argmax())
    raise ValueError(
        f"{name}: expected classes 0..{num_classes - 1}, got {labels[index]} at position {index}; raise num_classes, "
        "map the labels to 0..num_classes-1, or leave such targets out with ErrorOverlap's ignore_index"
    )


def _refuse_large_label(arrays: tuple[NDArray[Any], ...], names: tuple[str, ...]) -> None:
    array, name = max(zip(arrays, names, strict=True), key=lambda pair: int(pair[0].max()))
    index = int(array.argmax())
    raise ValueError(
        f"{name}: got the label {array[index]} at position {index}, which would make {int(array[index]) + 1} classes. "
        f"Map the labels to 0..C-1; if there really are more than {MOST_CLASSES} classes, state num_classes"
    )
