"""What every metric of this package is made of: counts as state, one base class per task, and the `task=` form."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor
from torchmetrics import Metric

from bc_core import SCORES
from bc_lightning.functional._overlap import (
    Task,
    _binary_overlap_arg_validation,
    _binary_overlap_format,
    _binary_overlap_tensor_validation,
    _binary_overlap_update,
    _multiclass_overlap_arg_validation,
    _multiclass_overlap_format,
    _multiclass_overlap_tensor_validation,
    _multiclass_overlap_update,
    _multilabel_overlap_arg_validation,
    _multilabel_overlap_format,
    _multilabel_overlap_tensor_validation,
    _multilabel_overlap_update,
    _required,
    _task_validation,
)
from bc_lightning.functional._scores import (
    Average,
    _binary_average_validation,
    _score_arg_validation,
    _score_compute,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FINGERPRINT_BYTES = 8


class _OverlapMetric(Metric):
    """Counts of right and wrong answers of two models, accumulated over batches and processes.

    `configuration` is a state that never changes: a fingerprint of what decides how a batch is counted.
    `torchmetrics.MetricCollection` updates only one of several metrics whose states are equal after the first
    batch; without the fingerprint it would take thresholds 0.5 and 0.7 for one metric whenever no score of that
    batch lies between them, and would then give both the same value for ever.
    """

    counts: Tensor
    configuration: Tensor

    is_differentiable: bool | None = False
    full_state_update: bool | None = False
    plot_legend_name: str | None = "Class"

    def _add_states(self, num_classes: int, *configuration: object) -> None:
        digest = hashlib.blake2b(repr(configuration).encode(), digest_size=_FINGERPRINT_BYTES).digest()
        self.add_state("counts", torch.zeros(num_classes, 2, 2, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("configuration", torch.tensor(list(digest), dtype=torch.uint8), dist_reduce_fx="max")

    def _add_counts(self, counts: Tensor) -> None:
        # Not in place: a state that was reset in inference mode could not be written outside it.
        self.counts = self.counts + counts

    def merge_state(self, incoming_state: "dict[str, Any] | Metric") -> None:
        """Add the counts of another metric, or of its state, to this one.

        Args:
            incoming_state: A metric of the same class, or a dictionary with its `counts`.

        Raises:
            ValueError: If the other metric has another class, number of classes, threshold or `ignore_index`.
            RuntimeError: If the metric synchronises on every step.
        """
        state: dict[str, Any] = {}
        updates = 1
        if isinstance(incoming_state, dict):
            state = incoming_state = {"configuration": self.configuration, **incoming_state}
        elif isinstance(incoming_state, type(self)):
            state = dict(incoming_state.metric_state)
            updates = incoming_state.update_count
        counts, configuration = state.get("counts", self.counts), state.get("configuration", self.configuration)
        if counts.shape != self.counts.shape or not self._has_configuration(configuration):
            raise ValueError(
                f"Expected the state of a {type(self).__name__} with the same number of classes, threshold and "
                "`ignore_index`: counts that were taken differently cannot be added up."
            )
        super().merge_state(incoming_state)
        self._computed = None
        self._update_count += updates

    def _has_configuration(self, configuration: Tensor) -> bool:
        return torch.equal(configuration.to(self.configuration.device), self.configuration)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Load persistent states, but not those of a metric that counts differently."""
        stored = state_dict.get(prefix + "configuration")
        if stored is not None and not self._has_configuration(stored):
            error_msgs.append(
                f"The stored state of {prefix or type(self).__name__} was counted with another task, threshold or "
                "`ignore_index`."
            )
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def set_dtype(self, dst_type: str | torch.dtype) -> "_OverlapMetric":
        """Do nothing: counts stay int64 (float16 could not count beyond 2048), and scores are float32."""
        return self


class _BinaryOverlapMetric(_OverlapMetric):
    """The binary task: two models' scores of class 1, or labels."""

    def __init__(
        self,
        threshold: float = 0.5,
        ignore_index: int | None = None,
        validate_args: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if validate_args:
            _binary_overlap_arg_validation(threshold, ignore_index)
        self.threshold = threshold
        self.ignore_index = ignore_index
        self.validate_args = validate_args
        self._add_states(2, "binary", threshold, ignore_index)

    def update(self, preds: Tensor, target: Tensor, reference_preds: Tensor) -> None:
        """Count one batch: what the new model says, what is true, what the old model says."""
        if self.validate_args:
            _binary_overlap_tensor_validation(preds, target, reference_preds, self.ignore_index)
        preds, target, reference_preds = _binary_overlap_format(
            preds, target, reference_preds, self.threshold, self.ignore_index
        )
        self._add_counts(_binary_overlap_update(preds, target, reference_preds, self.ignore_index))


class _MulticlassOverlapMetric(_OverlapMetric):
    """The multiclass task: two models' scores of every class, or labels."""

    def __init__(
        self,
        num_classes: int,
        ignore_index: int | None = None,
        validate_args: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if validate_args:
            _multiclass_overlap_arg_validation(num_classes, ignore_index)
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.validate_args = validate_args
        self._add_states(num_classes, "multiclass", ignore_index)

    def update(self, preds: Tensor, target: Tensor, reference_preds: Tensor) -> None:
        """Count one batch: what the new model says, what is true, what the old model says."""
        if self.validate_args:
            _multiclass_overlap_tensor_validation(preds, target, reference_preds, self.num_classes, self.ignore_index)
        preds, target, reference_preds = _multiclass_overlap_format(preds, target, reference_preds)
        self._add_counts(
            _multiclass_overlap_update(preds, target, reference_preds, self.num_classes, self.ignore_index)
        )


class _MultilabelOverlapMetric(_OverlapMetric):
    """The multilabel task: two models' scores of every label, or which labels they give."""

    plot_legend_name: str | None = "Label"

    def __init__(
        self,
        num_labels: int,
        threshold: float = 0.5,
        ignore_index: int | None = None,
        validate_args: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if validate_args:
            _multilabel_overlap_arg_validation(num_labels, threshold, ignore_index)
        self.num_labels = num_labels
        self.threshold = threshold
        self.ignore_index = ignore_index
        self.validate_args = validate_args
        self._add_states(num_labels, "multilabel", threshold, ignore_index)

    def update(self, preds: Tensor, target: Tensor, reference_preds: Tensor) -> None:
        """Count one batch: what the new model says, what is true, what the old model says."""
        if self.validate_args:
            _multilabel_overlap_tensor_validation(preds, target, reference_preds, self.num_labels, self.ignore_index)
        preds, target, reference_preds = _multilabel_overlap_format(
            preds, target, reference_preds, self.threshold, self.ignore_index
        )
        self._add_counts(_multilabel_overlap_update(preds, target, reference_preds, self.num_labels, self.ignore_index))


class _Score(_OverlapMetric):
    """A ratio of the counts. A subclass names it, `class X(_BinaryScore, score="nfr")`; nothing else is needed."""

    _score_name: str
    average: Average
    zero_division: float
    plot_lower_bound: float | None = 0.0
    plot_upper_bound: float | None = 1.0

    def __init_subclass__(cls, score: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if score is not None:
            cls._score_name = score
            cls.higher_is_better = SCORES[score].higher_is_better

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


class _BinaryScore(_Score, _BinaryOverlapMetric):
    def __init__(
        self,
        threshold: float = 0.5,
        ignore_index: int | None = None,
        zero_division: float = 0.0,
        validate_args: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(threshold, ignore_index, validate_args, **kwargs)
        if validate_args:
            _score_arg_validation(zero_division=zero_division)
        self.average = "micro"
        self.zero_division = zero_division


class _MulticlassScore(_Score, _MulticlassOverlapMetric):
    def __init__(
        self,
        num_classes: int,
        average: Average = "micro",
        ignore_index: int | None = None,
        zero_division: float = 0.0,
        validate_args: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, ignore_index, validate_args, **kwargs)
        if validate_args:
            _score_arg_validation(average, zero_division)
        self.average = average
        self.zero_division = zero_division


class _MultilabelScore(_Score, _MultilabelOverlapMetric):
    def __init__(
        self,
        num_labels: int,
        threshold: float = 0.5,
        average: Average = "micro",
        ignore_index: int | None = None,
        zero_division: float = 0.0,
        validate_args: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_labels, threshold, ignore_index, validate_args, **kwargs)
        if validate_args:
            _score_arg_validation(average, zero_division)
        self.average = average
        self.zero_division = zero_division


class _TaskForm(Metric):
    """A name that makes the metric of one of three classes, chosen by `task`; it never has instances itself."""

    _binary: ClassVar[type[_BinaryOverlapMetric]]
    _multiclass: ClassVar[type[_MulticlassOverlapMetric]]
    _multilabel: ClassVar[type[_MultilabelOverlapMetric]]

    @classmethod
    def _make(
        cls,
        task: Task,
        threshold: float,
        num_classes: int | None,
        num_labels: int | None,
        **options: Any,
    ) -> _OverlapMetric:
        _task_validation(task)
        if task == "binary":
            return cls._binary(threshold, **options)
        if task == "multiclass":
            return cls._multiclass(_required("num_classes", num_classes), **options)
        return cls._multilabel(_required("num_labels", num_labels), threshold, **options)


class _ScoreTaskForm(_TaskForm):
    """The `task=` form of a score."""

    def __new__(
        cls,
        task: Task,
        threshold: float = 0.5,
        num_classes: int | None = None,
        num_labels: int | None = None,
        average: Average = "micro",
        ignore_index: int | None = None,
        zero_division: float = 0.0,
        validate_args: bool = True,
        **kwargs: Any,
    ) -> Any:
        """Make the metric for this task."""
        if task != "binary":
            kwargs["average"] = average
        elif validate_args:
            _binary_average_validation(average)
        return cls._make(
            task,
            threshold,
            num_classes,
            num_labels,
            ignore_index=ignore_index,
            zero_division=zero_division,
            validate_args=validate_args,
            **kwargs,
        )
