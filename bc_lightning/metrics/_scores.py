"""The scores of backward compatibility as metrics: classes over the functions' own stages.

Every score of `bc_core.SCORES` that names a metric has its documented class here; those that type checkers know by name
are listed at the end.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

from torch import Tensor

from bc_core import SCORES, Score
from bc_core.counting._score_texts import score_metrics
from bc_lightning.functional._overlap import Task
from bc_lightning.functional._score_docs import metric_docstring
from bc_lightning.functional._scores import Average, Given, _named_by, _score_arg_validation, _score_compute
from bc_lightning.metrics._base import _OverlapMetric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCORE_METRICS: "dict[str, type[_Score]]" = {}


class _Score(_OverlapMetric):
    """A ratio of the counts. A direct subclass is that of the scores that name it; nothing else is needed."""

    _scores: ClassVar[tuple[Score, ...]]
    _score_name: str
    plot_upper_bound: float | None = 1.0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if _Score in cls.__bases__:
            cls._scores = score_metrics()[cls.__name__]
            cls._score_name = cls._scores[0].name
            if len(cls._scores) == 1:
                cls.higher_is_better = cls._scores[0].higher_is_better
            cls.__doc__ = metric_docstring(cls.__name__, cls._scores)
            SCORE_METRICS[cls.__name__] = cls

    def __init__(
        self,
        task: Task,
        threshold: float = 0.5,
        num_classes: int | None = None,
        num_labels: int | None = None,
        average: Average = "micro",
        ignore_index: int | None = None,
        zero_division: float = 0.0,
        validate_args: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(task, threshold, num_classes, num_labels, ignore_index, validate_args, **kwargs)
        if validate_args:
            _score_arg_validation(task, average, zero_division)
        self.average = "micro" if task == "binary" else average
        self.zero_division = zero_division

    def compute(self) -> Tensor:
        """Compute the score from everything counted so far, in all processes."""
        return _score_compute(self.counts, self._score_name, self.average, self.zero_division)

    def plot(
        self, val: Tensor | Sequence[Tensor] | None = None, ax: "Axes | None" = None
    ) -> "tuple[Figure | None, Axes]":
        """Plot one value, or a series of values over steps.

        Args:
            val: What `forward` or `compute` gave, or a list of such values. Without it, `compute` is called.
            ax: Axes to draw into; without it, a new figure is made.

        Returns:
            Figure (None where `ax` was given) and axes.

        Raises:
            ModuleNotFoundError: If `matplotlib` is not installed.
        """
        figure, axes = cast("tuple[Figure | None, Axes]", self._plot(val, ax))
        axes.set_ylabel(SCORES[self._score_name].title)  # which of the two BECs it is, for one
        return figure, axes


class BackwardTrustCompatibility(_Score): ...


class BackwardErrorCompatibility(_Score):
    def __init__(
        self,
        task: Task,
        threshold: float = 0.5,
        num_classes: int | None = None,
        num_labels: int | None = None,
        average: Average = "micro",
        given: Given = "h1_wrong",
        ignore_index: int | None = None,
        zero_division: float = 0.0,
        validate_args: bool = True,
        **kwargs: Any,
    ) -> None:
        options = (threshold, num_classes, num_labels, average, ignore_index, zero_division, validate_args)
        super().__init__(task, *options, **kwargs)
        self.given = given
        self._score_name = _named_by(self._scores, given)

    @property
    def higher_is_better(self) -> bool | None:  # type: ignore[override]  # here it depends on an argument
        """Direction of improvement; None where neither direction is one."""
        return SCORES[self._score_name].higher_is_better


class NegativeFlipRate(_Score): ...


class PositiveFlipRate(_Score): ...


class NegativeFlipImpact(_Score): ...


BTC = BackwardTrustCompatibility
BEC = BackwardErrorCompatibility

for _metric in score_metrics():
    if _metric not in SCORE_METRICS:
        type(_metric, (_Score,), {"__module__": __name__})
globals().update(SCORE_METRICS)
