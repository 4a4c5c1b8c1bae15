"""The counts themselves as a metric, and the share of the breakage that each class has."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bc_core import ErrorOverlap
from bc_lightning.functional._overlap import Task
from bc_lightning.functional._scores import _incompatibility_compute, _zero_division_validation
from bc_lightning.metrics._base import _OverlapMetric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CELL_NAMES = ("both wrong", "only h2 right", "only h1 right", "both right")


def _plot_stacked_bars(
    heights: Tensor, part_names: Sequence[str], x_label: str, y_label: str, ax: "Axes | None"
) -> "tuple[Figure | None, Axes]":
    """Draw one bar per row of `heights` (bars, parts), its parts on top of each other."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    figure, axes = plt.subplots() if ax is None else (None, ax)
    rows = torch.nan_to_num(heights.detach().cpu().double())
    positions = list(range(rows.shape[0]))
    bottom = torch.zeros(rows.shape[0], dtype=rows.dtype)
    for part, part_name in enumerate(part_names):
        axes.bar(positions, rows[:, part].tolist(), bottom=bottom.tolist(), label=part_name)
        bottom += rows[:, part]
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(part_names) > 1:
        axes.legend()
    return figure, axes


class ErrorOverlapMetric(_OverlapMetric):
    r"""Count right and wrong answers of two models by true class (by label, for a multilabel task).

    .. math::
        n_{c,r,s} = \#(\text{true class } c, \text{h1 right} = r, \text{h2 right} = s)

    Every score of this package is a ratio of these counts, so this one metric is enough where several scores,
    intervals or charts are wanted: its `to_error_overlap()` gives a `bc_core.ErrorOverlap`, which has them.

    `update` and `forward` take

    - `preds`: what the new model h2 says, floating-point scores or integer labels;
    - `target`: true labels;
    - `reference_preds`: what the old model h1 says, scores or labels, whichever `preds` has,

    with the shapes and dtypes of `bc_lightning.functional.error_overlap`. `compute` and `forward` give an int64 tensor
    of shape `(C, 2, 2)` (`(L, 2, 2)` for multilabel) indexed `[class, h1 right, h2 right]`.

    Args:
        task: `"binary"`, `"multiclass"` or `"multilabel"`.
        threshold: Probability from which on class 1 (a label) is given, for both models. Binary and multilabel only.
        num_classes: Number of classes C. Multiclass only, where it is needed.
        num_labels: Number of labels L. Multilabel only, where it is needed.
        ignore_index: A target value whose entries are left out.
        validate_args: Whether to validate arguments and tensors. False saves time and, on an accelerator, the wait
            for the values.
        kwargs: Options of `torchmetrics.Metric`, and `new_classes`: classes that h1 did not know, whose instances are
            left out. Multiclass only.

    Raises:
        ValueError: If an argument is not one of the above, `num_classes` or `num_labels` is missing, or inputs are
            refused as by `bc_lightning.functional.error_overlap`.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.metrics import ErrorOverlapMetric
        >>> metric = ErrorOverlapMetric(task="binary")
        >>> metric.update(tensor([0.9, 0.2, 0.4, 0.6]), tensor([1, 1, 0, 0]), tensor([1, 1, 0, 1]))
        >>> metric.compute()
        tensor([[[1, 0],
                 [0, 1]],
                [[0, 0],
                 [1, 1]]])
        >>> metric = ErrorOverlapMetric(task="multiclass", num_classes=3)
        >>> metric.update(tensor([0, 1, 2, 0]), tensor([0, 1, 2, 2]), tensor([0, 2, 2, 2]))
        >>> metric.to_error_overlap().nfr
        0.25
        >>> metric = ErrorOverlapMetric(task="multilabel", num_labels=2)
        >>> metric.update(tensor([[1, 1], [0, 1]]), tensor([[1, 0], [1, 1]]), tensor([[1, 0], [0, 0]]))
        >>> metric.compute()
        tensor([[[1, 0],
                 [0, 1]],
                [[0, 1],
                 [1, 0]]])
    """

    higher_is_better: bool | None = None

    def compute(self) -> Tensor:
        """Give the counts of everything seen so far, in all processes."""
        return self.counts

    def to_error_overlap(self) -> ErrorOverlap:
        """Give the counts of everything seen so far, in all processes, as a `bc_core.ErrorOverlap`.

        Every process has to call it, as with `compute`. The counts are copied: later updates do not change them.
        """
        return ErrorOverlap(self.compute().cpu().numpy())

    def plot(
        self, val: Tensor | Sequence[Tensor] | None = None, ax: "Axes | None" = None
    ) -> "tuple[Figure | None, Axes]":
        """Plot the four counts as stacked bars: a bar per class for one value, per step for several.

        Args:
            val: What `forward` or `compute` gave, or a list of such values. Without it, `compute` is called.
            ax: Axes to draw into; without it, a new figure is made.

        Returns:
            Figure (None where `ax` was given) and axes.

        Raises:
            ModuleNotFoundError: If `matplotlib` is not installed.
        """
        value = self.compute() if val is None else val
        if isinstance(value, Tensor):
            return _plot_stacked_bars(value.flatten(1), _CELL_NAMES, self.plot_legend_name, "Count", ax)
        totals = torch.stack([counts.sum(dim=0).flatten() for counts in value])
        return _plot_stacked_bars(totals, _CELL_NAMES, "Step", "Count", ax)


class IncompatibilityByClass(_OverlapMetric):
    r"""Compute each true class's share of all negative flips: where the breakage is.

    .. math::
        \text{share}_c = \frac{\#(\text{h1 right and h2 wrong, true class } c)}{\#(\text{h1 right and h2 wrong})}

    The shares add up to 1; for a multilabel task they are those of the labels. `update` and `forward` take

    - `preds`: what the new model h2 says, floating-point scores or integer labels;
    - `target`: true labels;
    - `reference_preds`: what the old model h1 says, scores or labels, whichever `preds` has,

    with the shapes and dtypes of `bc_lightning.functional.error_overlap`. `compute` and `forward` give a float32 tensor
    with one share per class (label).

    Args:
        task: `"binary"`, `"multiclass"` or `"multilabel"`.
        threshold: Probability from which on class 1 (a label) is given, for both models. Binary and multilabel only.
        num_classes: Number of classes C. Multiclass only, where it is needed.
        num_labels: Number of labels L. Multilabel only, where it is needed.
        ignore_index: A target value whose entries are left out.
        zero_division: Every class's share when there is no negative flip: a number in [0, 1] or nan.
        validate_args: Whether to validate arguments and tensors. False saves time and, on an accelerator, the wait
            for the values.
        kwargs: Options of `torchmetrics.Metric`, and `new_classes`: classes that h1 did not know, whose instances are
            left out. Multiclass only.

    Raises:
        ValueError: If an argument is not one of the above, `num_classes` or `num_labels` is missing, or inputs are
            refused as by `bc_lightning.functional.error_overlap`.

    Reference:
        Yan et al., CVPR 2021, for the negative flip; the split by class is that of the original library.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.metrics import IncompatibilityByClass
        >>> metric = IncompatibilityByClass(task="binary")
        >>> metric(tensor([0.9, 0.2, 0.4, 0.6]), tensor([1, 1, 0, 0]), tensor([1, 1, 0, 1]))
        tensor([0., 1.])
        >>> metric = IncompatibilityByClass(task="multiclass", num_classes=3)
        >>> metric(tensor([1, 1, 0, 0]), tensor([0, 1, 2, 2]), tensor([0, 2, 2, 2]))
        tensor([0.3333, 0.0000, 0.6667])
        >>> metric = IncompatibilityByClass(task="multilabel", num_labels=2)
        >>> metric(tensor([[1, 1], [0, 1]]), tensor([[1, 0], [1, 1]]), tensor([[1, 0], [0, 0]]))
        tensor([0., 1.])
    """

    higher_is_better: bool | None = None
    plot_upper_bound: float | None = 1.0

    def __init__(
        self,
        task: Task,
        threshold: float = 0.5,
        num_classes: int | None = None,
        num_labels: int | None = None,
        ignore_index: int | None = None,
        zero_division: float = 0.0,
        validate_args: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(task, threshold, num_classes, num_labels, ignore_index, validate_args, **kwargs)
        if validate_args:
            _zero_division_validation(zero_division)
        self.zero_division = zero_division

    def compute(self) -> Tensor:
        """Compute the shares from everything counted so far, in all processes."""
        return _incompatibility_compute(self.counts, self.zero_division)

    def plot(
        self, val: Tensor | Sequence[Tensor] | None = None, ax: "Axes | None" = None
    ) -> "tuple[Figure | None, Axes]":
        """Plot the shares as bars: a bar per class for one value, a stacked bar per step for several.

        Args:
            val: What `forward` or `compute` gave, or a list of such values. Without it, `compute` is called.
            ax: Axes to draw into; without it, a new figure is made.

        Returns:
            Figure (None where `ax` was given) and axes.

        Raises:
            ModuleNotFoundError: If `matplotlib` is not installed.
        """
        value = self.compute() if val is None else val
        y_label = "Share of negative flips"
        if isinstance(value, Tensor):
            figure, axes = _plot_stacked_bars(value.unsqueeze(1), [y_label], self.plot_legend_name, y_label, ax)
        else:
            rows = torch.stack(list(value))
            names = [f"{self.plot_legend_name} {index}" for index in range(rows.shape[1])]
            figure, axes = _plot_stacked_bars(rows, names, "Step", y_label, ax)
        axes.set_ylim(0, 1)
        return figure, axes
