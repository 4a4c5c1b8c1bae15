"""Counts of two models' right and wrong answers: what every metric is made of, and those counts as a metric."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.backend import get_keras_mask  # not public, yet JAX's tensors carry their masks nowhere else

from bc_core import ErrorOverlap
from bc_core.counting._scores import Cells
from bc_keras.batches._attached import split_reference
from bc_keras.batches._labels import NO_CLASS, Labels, columns_of, entries_of, read_labels

_OVERLAP = "error_overlap"

_fed = threading.local()


@contextlib.contextmanager
def fed_by_model() -> Iterator[None]:
    """Make ``update_state`` do nothing in this thread: the model has called ``update_labels`` already."""
    _fed.depth = getattr(_fed, "depth", 0) + 1
    try:
        yield
    finally:
        _fed.depth -= 1


def is_fed_by_model() -> bool:
    """Whether a model that feeds the metrics itself is running Keras's own update of them."""
    return getattr(_fed, "depth", 0) > 0


def target_and_h1(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    """Take a joined label apart; a target of one column keeps the rank of `y_pred`, as elementwise functions need."""
    target, h1_output = split_reference(y_true, columns_of(y_pred))
    if len(target.shape) < len(y_pred.shape) and y_pred.shape[-1] == 1:
        target = ops.expand_dims(target, -1)
    return target, h1_output


def count_dtype() -> str:
    """The widest integers there are: JAX has none of 64 bits unless it was told so."""
    if keras.backend.backend() != "jax":
        return "int64"
    import jax

    config: Any = jax.config  # its options are not typed
    return "int64" if config.jax_enable_x64 else "int32"


class OverlapMetric(keras.metrics.Metric):
    """What all metrics here are made of: counts of (h1 right or wrong) x (h2 right or wrong).

    Unweighted instances are counted in integers, exact where float32 stops at 2**24 (up to 2**31 on JAX without
    ``jax_enable_x64``, else 2**63); the weights of weighted ones are summed in floating point.

    Args:
        threshold: a binary or multilabel score is class 1 from this probability on. Defaults to `None`: 0.5, or in a
            `BCModel` the threshold of the model.
        from_logits: whether binary or multilabel scores are logits. In a `BCModel`, the model knows.
        multilabel: whether each of h2's columns is a label of its own, 0 or 1. In a `BCModel`, the model knows.
        ignore_class: instances with this target are left out.
        num_classes: count by true class.
        name: name of the metric.
        dtype: dtype of the result.
        new_classes: classes that h1 did not know, whose instances are left out.

    Raises:
        ValueError: an argument out of its range.
    """

    def __init__(
        self,
        threshold: float | None = None,
        from_logits: bool = False,
        multilabel: bool = False,
        ignore_class: int | None = None,
        num_classes: int | None = None,
        name: str | None = None,
        dtype: Any = None,
        new_classes: Sequence[int] = (),
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.new_classes = tuple(sorted({int(number) for number in new_classes}))
        if self.new_classes and (multilabel or self.new_classes[0] < 0):
            raise ValueError(
                "new_classes must be numbers of classes of a model that is not multilabel. Received: "
                f"new_classes={list(new_classes)!r}, multilabel={multilabel!r}."
            )
        if threshold is not None and not 0 < threshold < 1:
            raise ValueError(f"threshold must lie between 0 and 1. Received: threshold={threshold!r}.")
        if num_classes is not None and num_classes < 1:
            raise ValueError(f"num_classes must be positive. Received: num_classes={num_classes!r}.")
        self.threshold = threshold
        self.from_logits = from_logits
        self.multilabel = multilabel
        self.ignore_class = ignore_class
        self.num_classes = num_classes
        # A row more than classes: targets out of range are counted, and found when the counts are asked for.
        self._rows = 1 if num_classes is None else num_classes + 1
        shape = (2, 2) if num_classes is None else (self._rows, 2, 2)
        # A ratio of counts needs more than half precision, whatever the result is cast to.
        self._sum_dtype = "float64" if self.dtype == "float64" else "float32"
        self.counts = self.add_variable(shape, "zeros", dtype=count_dtype(), name="counts")
        self.weighted_counts = self.add_variable(shape, "zeros", dtype=self._sum_dtype, name="weighted_counts")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count one batch.

        Args:
            y_true: label and h1's output, joined by `attach_h1` or ``StoredOutputs.attach``: (N, 1 + C) or (N, 2 C).
            y_pred: h2's scores, (N, C); (N,) or (N, 1) for a binary model; (N, ..., C) for dense outputs. Its Keras
                mask is honoured where Keras keeps it: on JAX in ``evaluate``, not in ``fit``.
            sample_weight: weights (N,) or (N, 1), or in the shape of the labels of dense outputs.

        Raises:
            ValueError: `y_true` does not carry h1's output, or shapes do not fit.
        """
        if is_fed_by_model():
            return
        mask = get_keras_mask(y_pred)
        y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
        target, h1_output = target_and_h1(y_true, y_pred)
        labels = read_labels(
            target,
            y_pred,
            h1_output,
            threshold=0.5 if self.threshold is None else self.threshold,
            from_logits=self.from_logits,
            multilabel=self.multilabel,
        )
        self.update_labels(labels, sample_weight, mask)

    def update_labels(self, labels: Labels, sample_weight: Any = None, mask: Any = None) -> None:
        """Count one batch of true and predicted classes, from whatever source.

        Args:
            labels: what `read_labels` gave.
            sample_weight: as in `update_state`.
            mask: entries that count, in the shape of the labels or of the instances.

        Raises:
            ValueError: weights or mask with more axes than the labels.
        """
        valid = ops.not_equal(labels.target, NO_CLASS)
        for number in (*self.new_classes, *([] if self.ignore_class is None else [self.ignore_class])):
            valid = ops.logical_and(valid, ops.not_equal(labels.target, number))
        if mask is not None:
            valid = ops.logical_and(valid, ops.cast(entries_of(mask, labels.target, "The mask"), "bool"))
        if sample_weight is None:
            variable, amount = self.counts, ops.ones_like(labels.target, dtype="int32")
        else:
            variable = self.weighted_counts
            amount = ops.cast(entries_of(sample_weight, labels.target, "sample_weight"), variable.dtype)
        amount = ops.where(valid, amount, ops.zeros_like(amount))
        cell = 2 * ops.cast(ops.equal(labels.h1, labels.target), "int32")
        cell = cell + ops.cast(ops.equal(labels.h2, labels.target), "int32")
        if self.num_classes is None:
            sums = ops.stack([ops.sum(ops.where(cell == k, amount, ops.zeros_like(amount))) for k in range(4)])
        else:
            cell = ops.reshape(4 * self._row(labels) + cell, (-1,))
            sums = ops.segment_sum(ops.reshape(amount, (-1,)), cell, num_segments=4 * self._rows)
        variable.assign_add(ops.cast(ops.reshape(sums, variable.shape), variable.dtype))

    def _row(self, labels: Labels) -> Any:
        """Where each entry is counted: by its true class, for a multilabel model by its column."""
        row = labels.target
        if self.multilabel:
            row = ops.broadcast_to(ops.arange(labels.target.shape[-1], dtype="int32"), ops.shape(labels.target))
        inside = ops.logical_and(row >= 0, row < self.num_classes)
        return ops.where(inside, row, ops.full_like(row, self.num_classes))

    def _sum_of(self, cells: Cells) -> Any:
        """Weight of the instances in some of the four cells."""
        wanted = np.asarray(cells, dtype=bool)
        counts = ops.where(wanted, self.counts.value, ops.zeros_like(self.counts.value))
        weighted = ops.where(wanted, self.weighted_counts.value, ops.zeros_like(self.weighted_counts.value))
        return ops.cast(ops.sum(counts), self._sum_dtype) + ops.sum(weighted)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {
            **super().get_config(),
            "threshold": self.threshold,
            "from_logits": self.from_logits,
            "multilabel": self.multilabel,
            "ignore_class": self.ignore_class,
            **({"new_classes": list(self.new_classes)} if self.new_classes else {}),
        }


@keras.saving.register_keras_serializable(package="bc_keras")
class ErrorOverlapMetric(OverlapMetric):
    r"""Counts of right and wrong answers of two models, from which every score can be read.

    .. math::
        n_{r,s} = \#(\text{h1 right} = r, \text{h2 right} = s)

    The result is a dictionary of four scalars, which Keras logs under their own names: ``both_right``,
    ``h1_only_right`` (negative flips), ``h2_only_right`` (positive flips), ``both_wrong``. Several in one ``compile``
    need a `name` each, which is put before: ``low_both_right`` of ``name="low"``. `overlap` gives the exact counts,
    with scores, intervals and a summary.

    Args:
        num_classes: count by true class, for `overlap`; by column if `multilabel`. Defaults to `None`: one sum.
        threshold: a binary or multilabel score is class 1 from this probability on. Defaults to `None`: 0.5, or in a
            `BCModel` the threshold of the model.
        from_logits: whether binary or multilabel scores are logits. Defaults to `False`.
        multilabel: whether each of h2's columns is a label of its own, 0 or 1. Defaults to `False`.
        ignore_class: instances with this target are left out. Defaults to `None`.
        name: name of the metric; another than the default is put before the names of the counts. Defaults to
            `"error_overlap"`.
        dtype: dtype of the result. Defaults to `keras.config.floatx()`.
        new_classes: classes that h1 did not know, whose instances are left out. Defaults to `()`.

    Raises:
        ValueError: an argument out of its range.

    Example:
        Standalone usage, on labels that carry h1's scores, for a multiclass, a binary and a multilabel model:

        >>> import numpy as np
        >>> from bc_keras import ErrorOverlapMetric, attach_h1
        >>> h1 = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
        >>> h2 = np.array([[0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
        >>> metric = ErrorOverlapMetric(num_classes=2)
        >>> _, y = attach_h1(h1, h2, np.array([0, 1, 0]))
        >>> metric.update_state(y, h2)
        >>> {name: float(count) for name, count in metric.result().items()}
        {'both_right': 1.0, 'h1_only_right': 1.0, 'h2_only_right': 1.0, 'both_wrong': 0.0}
        >>> metric.overlap().h1_only_right_by_class
        array([0, 1])
        >>> h1, h2 = np.array([0.9, 0.2, 0.7]), np.array([0.3, 0.1, 0.8])
        >>> metric = ErrorOverlapMetric()
        >>> metric.update_state(attach_h1(h1, h2, np.array([1, 0, 0]))[1], h2)
        >>> metric.overlap().counts.tolist()
        [[[1, 0], [1, 1]]]
        >>> h1, h2 = np.array([[0.9, 0.1], [0.2, 0.3]]), np.array([[0.8, 0.6], [0.1, 0.7]])
        >>> metric = ErrorOverlapMetric(num_classes=2, multilabel=True)
        >>> metric.update_state(attach_h1(h1, h2, np.array([[1, 0], [1, 1]]))[1], h2)
        >>> metric.overlap().counts.tolist()
        [[[1, 0], [0, 1]], [[0, 1], [1, 0]]]

        Usage with the `compile()` API:

        ```python
        counts = ErrorOverlapMetric(num_classes=10)
        model = BCModel(h2, h1=h1)
        model.compile("adam", loss="sparse_categorical_crossentropy", metrics=["accuracy", counts])
        model.evaluate(x_test, y_test)
        print(counts.overlap().summary())
        ```
    """

    def __init__(
        self,
        num_classes: int | None = None,
        threshold: float | None = None,
        from_logits: bool = False,
        multilabel: bool = False,
        ignore_class: int | None = None,
        name: str | None = _OVERLAP,
        dtype: Any = None,
        new_classes: Sequence[int] = (),
    ) -> None:
        super().__init__(threshold, from_logits, multilabel, ignore_class, num_classes, name, dtype, new_classes)

    def result(self) -> dict[str, Any]:
        """The four counts so far, summed over the classes."""
        cells: dict[str, Cells] = {
            "both_right": ((0, 0), (0, 1)),
            "h1_only_right": ((0, 0), (1, 0)),
            "h2_only_right": ((0, 1), (0, 0)),
            "both_wrong": ((1, 0), (0, 0)),
        }
        # Keras merges what metrics return as dictionaries by their keys.
        prefix = "" if self.name == _OVERLAP else f"{self.name}_"
        return {f"{prefix}{name}": ops.cast(self._sum_of(cell), self.dtype) for name, cell in cells.items()}

    def overlap(self) -> ErrorOverlap:
        """The exact counts so far, for scores, intervals, gates and charts.

        Raises:
            ValueError: weighted instances were counted, or targets outside ``0..num_classes - 1``.
        """
        counts = ops.convert_to_numpy(self.counts.value).reshape(self._rows, 2, 2)
        if ops.convert_to_numpy(self.weighted_counts.value).any():
            raise ValueError(
                "An overlap holds counts, not weights: compile the metric in metrics=, not in weighted_metrics=, or "
                "update it without sample_weight. Received: weighted instances."
            )
        if self.num_classes is not None:
            counts, outside = counts[:-1], int(counts[-1].sum())
            if outside:
                raise ValueError(
                    f"Targets must lie in 0..{self.num_classes - 1}: raise num_classes, or leave such targets out with "
                    f"ignore_class. Received: {outside} other targets with num_classes={self.num_classes}."
                )
        return ErrorOverlap(counts)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {**super().get_config(), "num_classes": self.num_classes}


def check_names(metrics: Iterable[OverlapMetric]) -> None:
    """Refuse counts of one name in one ``compile``: Keras would show those of the last."""
    names = [metric.name for metric in metrics if isinstance(metric, ErrorOverlapMetric)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            "Several ErrorOverlapMetric are told apart by their names, which are put before those of the counts: "
            f"ErrorOverlapMetric(name='weighted'). Received: {names.count(twice[0])} named {twice[0]!r}."
        )
