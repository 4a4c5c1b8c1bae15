"""Scores of backward compatibility on tensors: each is a ratio of cells of the error overlap.

Which cells, is written once, in `bc_core.SCORES`; here they are only summed and divided. Every score of that table that
names a metric has its documented function here; those that type checkers know by name are listed at the end.
"""

import math
from collections.abc import Callable
from typing import Literal, Protocol

import torch
from torch import Tensor

from bc_core import SCORES, Score
from bc_core.counting._score_texts import function_name, score_metrics
from bc_core.counting._scores import Cells
from bc_lightning.functional._overlap import Task, error_overlap
from bc_lightning.functional._score_docs import function_docstring

Average = Literal["micro", "macro", "none"] | None
Given = Literal["h1_wrong", "h2_wrong"]

_AVERAGES = ("micro", "macro", "none", None)


# -------------------------------------------------------------------------------- the stages


def _zero_division_validation(zero_division: float) -> None:
    is_number = isinstance(zero_division, (int, float))
    if not is_number or not (0 <= zero_division <= 1 or math.isnan(zero_division)):
        raise ValueError(
            f"Expected argument `zero_division` to be a number in [0, 1] or nan, but got {zero_division!r}."
        )


def _score_arg_validation(task: Task, average: Average, zero_division: float) -> None:
    """Validate what is not a tensor.

    - `average` has to be "micro" | "macro" | "none" | None, for the binary task "micro"
    - `zero_division` has to be a number in [0, 1] or nan
    """
    if task == "binary" and average != "micro":
        raise ValueError(
            f"Expected argument `average` to be 'micro' for the binary task, but got {average!r}. "
            "For one score per class, use task='multiclass' with num_classes=2 and labels."
        )
    if average not in _AVERAGES:
        raise ValueError(f"Expected argument `average` to be one of {_AVERAGES}, but got {average!r}.")
    _zero_division_validation(zero_division)


def _named_by(scores: tuple[Score, ...], given: str) -> str:
    """Name the one of these scores that `given` asks for."""
    names = {str(score.given): score.name for score in scores}
    if given not in names:
        raise ValueError(f"Expected argument `given` to be one of {tuple(names)}, but got {given!r}.")
    return names[given]


def _sum_cells(counts: Tensor, cells: Cells) -> Tensor:
    """Sum the chosen cells of `(..., 2, 2)`, without a mask tensor that would have to travel to the device."""
    chosen = [counts[..., i, j] for i in range(2) for j in range(2) if cells[i][j]]
    return torch.stack(chosen).sum(dim=0)


def _safe_divide(numerator: Tensor, denominator: Tensor, zero_division: float) -> Tensor:
    ratio = numerator.float() / denominator.clamp(min=1).float()
    return torch.where(denominator > 0, ratio, torch.full_like(ratio, zero_division))


def score_from_counts(counts: Tensor, score: Score | str, zero_division: float = 0.0) -> Tensor:
    """Divide counted instances into a score, without a look at the values.

    Args:
        counts: int64 tensor of shape `(..., 2, 2)` indexed `[h1 right, h2 right]` (index 1 is right).
        score: An entry of `bc_core.SCORES`, or its name. The formula is that of the entry.
        zero_division: Score where there is nothing to divide by.

    Returns:
        float32 tensor of shape `(...)`.

    Raises:
        ValueError: If there is no score of that name.

    Example:
        Of 10 instances h1 gets 8 right, and h2 keeps 6 of those:

        >>> from torch import tensor
        >>> from bc_lightning.functional import score_from_counts
        >>> score_from_counts(tensor([[1, 1], [2, 6]]), "btc")
        tensor(0.7500)
    """
    if isinstance(score, str):
        if score not in SCORES:
            raise ValueError(f"Expected argument `score` to be one of {tuple(SCORES)}, but got {score!r}.")
        score = SCORES[score]
    numerator, denominator = _sum_cells(counts, score.numerator), _sum_cells(counts, score.denominator)
    return _safe_divide(numerator, denominator, zero_division)


def _score_compute(counts: Tensor, name: str, average: Average = "micro", zero_division: float = 0.0) -> Tensor:
    """Compute a score from counts by class `(C, 2, 2)`: one number, or one per class."""
    if average == "micro":
        return score_from_counts(counts.sum(dim=0), name, zero_division)
    if average != "macro":
        return score_from_counts(counts, name, zero_division)
    classes = (_sum_cells(counts, SCORES[name].denominator) > 0).sum()
    total = score_from_counts(counts, name, 0.0).sum()  # a class with nothing to divide by adds nothing
    return torch.where(classes > 0, total / classes.clamp(min=1), torch.full_like(total, zero_division))


def _incompatibility_compute(counts: Tensor, zero_division: float = 0.0) -> Tensor:
    """Share out the negative flips in `(C, 2, 2)` over the classes."""
    flips = _sum_cells(counts, SCORES["nfr"].numerator)
    return _safe_divide(flips, flips.sum().expand_as(flips), zero_division)


# -------------------------------------------------------------------------------- any score

SCORE_FUNCTIONS: dict[str, Callable[..., Tensor]] = {}


class _ScoreFunction(Protocol):
    """For type checkers."""

    def __call__(
        self,
        preds: Tensor,
        target: Tensor,
        reference_preds: Tensor,
        task: Task,
        threshold: float = 0.5,
        num_classes: int | None = None,
        num_labels: int | None = None,
        average: Average = "micro",
        ignore_index: int | None = None,
        zero_division: float = 0.0,
        validate_args: bool = True,
    ) -> Tensor: ...


def _listed(metric: str, function: Callable[..., Tensor]) -> None:
    """Give the function beside the class `metric` its name and its docstring, and keep it."""
    function.__name__ = function.__qualname__ = function_name(metric)
    function.__doc__ = function_docstring(metric, score_metrics()[metric])
    SCORE_FUNCTIONS[function.__name__] = function


def _function(metric: str) -> _ScoreFunction:
    """Make the function beside the class `metric`, for its one score."""
    (score,) = score_metrics()[metric]

    def function(
        preds: Tensor,
        target: Tensor,
        reference_preds: Tensor,
        task: Task,
        threshold: float = 0.5,
        num_classes: int | None = None,
        num_labels: int | None = None,
        average: Average = "micro",
        ignore_index: int | None = None,
        zero_division: float = 0.0,
        validate_args: bool = True,
    ) -> Tensor:
        if validate_args:
            _score_arg_validation(task, average, zero_division)
        counts = error_overlap(
            preds, target, reference_preds, task, threshold, num_classes, num_labels, ignore_index, validate_args
        )
        return _score_compute(counts, score.name, average, zero_division)

    _listed(metric, function)
    return function


backward_trust_compatibility = _function("BackwardTrustCompatibility")
negative_flip_rate = _function("NegativeFlipRate")
positive_flip_rate = _function("PositiveFlipRate")
negative_flip_impact = _function("NegativeFlipImpact")


def backward_error_compatibility(
    preds: Tensor,
    target: Tensor,
    reference_preds: Tensor,
    task: Task,
    threshold: float = 0.5,
    num_classes: int | None = None,
    num_labels: int | None = None,
    average: Average = "micro",
    given: Given = "h1_wrong",
    ignore_index: int | None = None,
    zero_division: float = 0.0,
    validate_args: bool = True,
) -> Tensor:
    """For the docstring see `_listed`."""
    name = _named_by(score_metrics()["BackwardErrorCompatibility"], given)
    if validate_args:
        _score_arg_validation(task, average, zero_division)
    counts = error_overlap(
        preds, target, reference_preds, task, threshold, num_classes, num_labels, ignore_index, validate_args
    )
    return _score_compute(counts, name, average, zero_division)


_listed("BackwardErrorCompatibility", backward_error_compatibility)
for _metric in score_metrics():
    if function_name(_metric) not in SCORE_FUNCTIONS:
        _function(_metric)
globals().update(SCORE_FUNCTIONS)


# -------------------------------------------------------------------------------- incompatibility by class


def incompatibility_by_class(
    preds: Tensor,
    target: Tensor,
    reference_preds: Tensor,
    task: Task,
    threshold: float = 0.5,
    num_classes: int | None = None,
    num_labels: int | None = None,
    ignore_index: int | None = None,
    zero_division: float = 0.0,
    validate_args: bool = True,
) -> Tensor:
    r"""Compute each true class's share of all negative flips: where the breakage is.

    .. math::
        \text{share}_c = \frac{\#(\text{h1 right and h2 wrong, true class } c)}{\#(\text{h1 right and h2 wrong})}

    The shares add up to 1. A negative flip is an instance that the old model h1 gets right and the new one h2 wrong.

    Args:
        preds: What the new model h2 says: floating-point scores or integer labels. Shapes and dtypes are those of
            `error_overlap`.
        target: True labels.
        reference_preds: What the old model h1 says: scores or labels, whichever `preds` has.
        task: `"binary"`, `"multiclass"` or `"multilabel"`.
        threshold: Probability from which on class 1 (a label) is given, for both models. Binary and multilabel only.
        num_classes: Number of classes C. Multiclass only, where it is needed.
        num_labels: Number of labels L. Multilabel only, where it is needed.
        ignore_index: A target value whose entries are left out.
        zero_division: Every class's share when there is no negative flip: a number in [0, 1] or nan.
        validate_args: Whether to validate arguments and tensors. False saves time and, on an accelerator, the wait
            for the values.

    Returns:
        float32 tensor of shape `(2,)` (binary), `(C,)` (multiclass) or `(L,)` (multilabel, by label).

    Raises:
        TypeError: If an input is not a tensor.
        ValueError: If `task` or `zero_division` is unknown, `num_classes` or `num_labels` is missing, or
            shapes, labels or scores are refused as by `error_overlap`.

    Reference:
        Yan et al., CVPR 2021, for the negative flip; the split by class is that of the original library.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.functional import incompatibility_by_class
        >>> target, reference_preds = tensor([1, 1, 0, 0]), tensor([1, 1, 0, 1])
        >>> incompatibility_by_class(tensor([0.9, 0.2, 0.4, 0.6]), target, reference_preds, task="binary")
        tensor([0., 1.])
        >>> target, reference_preds = tensor([0, 1, 2, 2]), tensor([0, 2, 2, 2])
        >>> incompatibility_by_class(tensor([1, 1, 0, 0]), target, reference_preds, task="multiclass", num_classes=3)
        tensor([0.3333, 0.0000, 0.6667])
        >>> preds, target, reference_preds = tensor([[1, 1]]), tensor([[1, 0]]), tensor([[1, 0]])
        >>> incompatibility_by_class(preds, target, reference_preds, task="multilabel", num_labels=2)
        tensor([0., 1.])
    """
    if validate_args:
        _zero_division_validation(zero_division)
    counts = error_overlap(
        preds, target, reference_preds, task, threshold, num_classes, num_labels, ignore_index, validate_args
    )
    return _incompatibility_compute(counts, zero_division)
