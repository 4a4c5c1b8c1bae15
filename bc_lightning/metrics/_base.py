"""What every metric of this package is made of: counts as state, taken the same way for every task."""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from bc_lightning.functional._overlap import (
    Task,
    _number_of_groups,
    _overlap_arg_validation,
    _overlap_tensor_validation,
    _overlap_update,
)

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
    plot_lower_bound: float | None = 0.0

    def __init__(
        self,
        task: Task,
        threshold: float = 0.5,
        num_classes: int | None = None,
        num_labels: int | None = None,
        ignore_index: int | None = None,
        validate_args: bool = True,
        new_classes: Sequence[int] = (),
        **kwargs: Any,
    ) -> None:
        groups = _number_of_groups(task, num_classes, num_labels)
        new_classes = tuple(sorted({int(number) for number in new_classes}))
        if new_classes and (task != "multiclass" or not 0 <= new_classes[0] <= new_classes[-1] < groups):
            raise ValueError(
                f"Expected `new_classes` to be numbers of classes of a multiclass task, 0 to {groups - 1}, but got "
                f"{list(new_classes)} of task {task!r}."
            )
        super().__init__(**kwargs)
        if validate_args:
            _overlap_arg_validation(task, threshold, ignore_index)
        self.task = task
        self.threshold = threshold
        self.num_classes = num_classes
        self.num_labels = num_labels
        self.ignore_index = ignore_index
        self.validate_args = validate_args
        self.new_classes = new_classes
        self._groups = groups
        counted_by: tuple[Any, ...] = (task, ignore_index)
        if task != "multiclass":
            counted_by = (task, threshold, ignore_index)
        elif new_classes:
            counted_by = (*counted_by, new_classes)
        digest = hashlib.blake2b(repr(counted_by).encode(), digest_size=_FINGERPRINT_BYTES).digest()
        self.add_state("counts", torch.zeros(groups, 2, 2, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("configuration", torch.tensor(list(digest), dtype=torch.uint8), dist_reduce_fx="max")

    @property
    def plot_legend_name(self) -> str:  # type: ignore[override]  # here it depends on an argument
        """What one of several values of a plot belongs to."""
        return "Label" if self.task == "multilabel" else "Class"

    def update(self, preds: Tensor, target: Tensor, reference_preds: Tensor) -> None:
        """Count one batch: what the new model says, what is true, what the old model says."""
        if self.validate_args:
            _overlap_tensor_validation(preds, target, reference_preds, self.task, self._groups, self.ignore_index)
        counts = _overlap_update(
            preds, target, reference_preds, self.task, self._groups, self.threshold, self.ignore_index
        )
        for number in self.new_classes:
            counts[number] = 0
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
