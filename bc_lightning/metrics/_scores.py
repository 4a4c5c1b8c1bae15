"""The scores of backward compatibility as metrics: tiny classes over the functions' own stages."""

from typing import Any

from bc_core import SCORES
from bc_lightning.functional._overlap import Task
from bc_lightning.functional._scores import Average, Given, _bec_name
from bc_lightning.metrics._base import (
    _BinaryScore,
    _MulticlassScore,
    _MultilabelScore,
    _Score,
    _ScoreTaskForm,
)

# -------------------------------------------------------------------------------- backward trust compatibility


class BinaryBackwardTrustCompatibility(_BinaryScore, score="btc"):
    r"""Compute backward trust compatibility (BTC) for a binary task.

    .. math::
        \text{BTC} = \frac{\#(\text{h1 right and h2 right})}{\#(\text{h1 right})}

    `update` and `forward` take `preds`, `target` and `reference_preds`, with the shapes and dtypes of
    `bc_lightning.functional.binary_error_overlap`; `compute` and `forward` give a float32 tensor,
    scalar.

    Args:
        threshold: Probability from which on class 1 is given, for both models.
        ignore_index: A target value whose entries are left out.
        zero_division: Score when h1 is never right: a number in [0, 1] or nan.
        validate_args: Whether to validate arguments and tensors. False saves time and, on an accelerator, the wait
            for the values.
        kwargs: Options of `torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is not one of the above, or inputs are refused as by
            `bc_lightning.functional.binary_error_overlap`. Only with `validate_args`.

    Reference:
        Bansal et al., "Updates in Human-AI Teams", AAAI 2019.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.metrics import BinaryBackwardTrustCompatibility
        >>> target = tensor([1, 1, 0, 0, 1])
        >>> preds, reference_preds = tensor([0.9, 0.2, 0.4, 0.6, 0.7]), tensor([1, 1, 0, 1, 0])
        >>> metric = BinaryBackwardTrustCompatibility()
        >>> metric(preds, target, reference_preds)
        tensor(0.6667)
    """


class MulticlassBackwardTrustCompatibility(_MulticlassScore, score="btc"):
    r"""Compute backward trust compatibility (BTC) for a multiclass task.

    .. math::
        \text{BTC} = \frac{\#(\text{h1 right and h2 right})}{\#(\text{h1 right})}

    `update` and `forward` take `preds`, `target` and `reference_preds`, with the shapes and dtypes of
    `bc_lightning.functional.multiclass_error_overlap`; `compute` and `forward` give a float32 tensor,
    scalar, or shape `(C,)` for `average=None`.

    Args:
        num_classes: Number of classes C.
        average: `"micro"` divides the counts summed over classes, `"macro"` is the mean over the classes that have
            something to divide by, `"none"` or None gives one score per class.
        ignore_index: A target value whose entries are left out.
        zero_division: Score when h1 is never right: a number in [0, 1] or nan.
        validate_args: Whether to validate arguments and tensors. False saves time and, on an accelerator, the wait
            for the values.
        kwargs: Options of `torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is not one of the above, or inputs are refused as by
            `bc_lightning.functional.multiclass_error_overlap`. Only with `validate_args`.

    Reference:
        Bansal et al., "Updates in Human-AI Teams", AAAI 2019.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.metrics import MulticlassBackwardTrustCompatibility
        >>> target = tensor([0, 1, 2, 2, 1])
        >>> preds, reference_preds = tensor([0, 1, 2, 0, 0]), tensor([0, 2, 2, 2, 0])
        >>> metric = MulticlassBackwardTrustCompatibility(num_classes=3, average=None)
        >>> metric(preds, target, reference_preds)
        tensor([1.0000, 0.0000, 0.5000])
    """


class MultilabelBackwardTrustCompatibility(_MultilabelScore, score="btc"):
    r"""Compute backward trust compatibility (BTC) for a multilabel task.

    .. math::
        \text{BTC} = \frac{\#(\text{h1 right and h2 right})}{\#(\text{h1 right})}

    `update` and `forward` take `preds`, `target` and `reference_preds`, with the shapes and dtypes of
    `bc_lightning.functional.multilabel_error_overlap`; `compute` and `forward` give a float32 tensor,
    scalar, or shape `(L,)` for `average=None`.

    Args:
        num_labels: Number of labels L.
        threshold: Probability from which on a label is given, for both models.
        average: `"micro"` divides the counts summed over labels, `"macro"` is the mean over the labels that have
            something to divide by, `"none"` or None gives one score per label.
        ignore_index: A target value whose entries are left out.
        zero_division: Score when h1 is never right: a number in [0, 1] or nan.
        validate_args: Whether to validate arguments and tensors. False saves time and, on an accelerator, the wait
            for the values.
        kwargs: Options of `torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is not one of the above, or inputs are refused as by
            `bc_lightning.functional.multilabel_error_overlap`. Only with `validate_args`.

    Reference:
        Bansal et al., "Updates in Human-AI Teams", AAAI 2019.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.metrics import MultilabelBackwardTrustCompatibility
        >>> target = tensor([[1, 0], [1, 1]])
        >>> preds, reference_preds = tensor([[1, 1], [0, 1]]), tensor([[1, 0], [0, 0]])
        >>> metric = MultilabelBackwardTrustCompatibility(num_labels=2)
        >>> metric(preds, target, reference_preds)
        tensor(0.5000)
    """


class BackwardTrustCompatibility(_ScoreTaskForm):
    r"""Compute backward trust compatibility (BTC), the share of the old model's right answers that the new one keeps.

    .. math::
        \text{BTC} = \frac{\#(\text{h1 right and h2 right})}{\#(\text{h1 right})}

    1 means that h2 keeps everything that h1 gets right. BTC = 1 - NFR / accuracy(h1).

    Makes `BinaryBackwardTrustCompatibility`, `MulticlassBackwardTrustCompatibility` or
    `MultilabelBackwardTrustCompatibility`. The metric is called, or updated, with

    - `preds`: what the new model h2 says, floating-point scores or integer labels;
    - `target`: true labels;
    - `reference_preds`: what the old model h1 says, scores or labels, whichever `preds` has.

    Shapes and dtypes are those of `bc_lightning.functional.error_overlap`. The value is a float32
    tensor, scalar, or one score per class (label) for `average=None`.

    Args:
        task: `"binary"`, `"multiclass"` or `"multilabel"`.
        threshold: Probability from which on class 1 (a label) is given, for both models. Binary and multilabel only.
        num_classes: Number of classes C. Multiclass only, where it is needed.
        num_labels: Number of labels L. Multilabel only, where it is needed.
        average: `"micro"` divides the counts summed over classes (labels), `"macro"` is the mean over the
            classes that have something to divide by, `"none"` or None gives one score per class. Not for binary.
        ignore_index: A target value whose entries are left out.
        zero_division: Score when h1 is never right: a number in [0, 1] or nan.
        validate_args: Whether to validate arguments and tensors. False saves time and, on an accelerator, the wait
            for the values.
        kwargs: Options of `torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is not one of the above, or `num_classes` or `num_labels` is missing.

    Reference:
        Bansal et al., "Updates in Human-AI Teams", AAAI 2019.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.metrics import BackwardTrustCompatibility
        >>> target = tensor([0, 1, 2, 2, 1])
        >>> preds, reference_preds = tensor([0, 1, 2, 0, 0]), tensor([0, 2, 2, 2, 0])
        >>> metric = BackwardTrustCompatibility(task="multiclass", num_classes=3, average="macro")
        >>> metric(preds, target, reference_preds)
        tensor(0.7500)
    """

    _binary = BinaryBackwardTrustCompatibility
    _multiclass = MulticlassBackwardTrustCompatibility
    _multilabel = MultilabelBackwardTrustCompatibility


BTC = BackwardTrustCompatibility


# -------------------------------------------------------------------------------- backward error compatibility


class _Given(_Score):
    """The choice between the two scores that are both called backward error compatibility."""

    given: Given

    @property
    def higher_is_better(self) -> bool | None:  # type: ignore[override]  # here it depends on an argument
        """Direction of improvement; None where neither direction is one."""
        return SCORES[self._score_name].higher_is_better


class BinaryBackwardErrorCompatibility(_Given, _BinaryScore):
    r"""Compute backward error compatibility (BEC) for a binary task.

    .. math::
        \text{BEC}_{\text{h1 wrong}} = \frac{\#(\text{both wrong})}{\#(\text{h1 wrong})} \qquad
        \text{BEC}_{\text{h2 wrong}} = \frac{\#(\text{both wrong})}{\#(\text{h2 wrong})}

    `update` and `forward` take `preds`, `target` and `reference_preds`, with the shapes and dtypes of
    `bc_lightning.functional.binary_error_overlap`; `compute` and `forward` give a float32 tensor,
    scalar.

    Args:
        threshold: Probability from which on class 1 is given, for both models.
        given: Whose mistakes are below the fraction bar, `"h1_wrong"` or `"h2_wrong"`.
        ignore_index: A target value whose entries are left out.
        zero_division: Score when the model that `given` names is never wrong: a number in [0, 1] or nan.
        validate_args: Whether to validate arguments and tensors. False saves time and, on an accelerator, the wait
            for the values.
        kwargs: Options of `torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is not one of the above, or inputs are refused as by
            `bc_lightning.functional.binary_error_overlap`. Only with `validate_args`.

    Reference:
        Srivastava et al., "An Empirical Analysis of Backward Compatibility in Machine Learning Systems", KDD 2020.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.metrics import BinaryBackwardErrorCompatibility
        >>> target = tensor([1, 1, 0, 0, 1])
        >>> preds, reference_preds = tensor([0.9, 0.2, 0.4, 0.6, 0.7]), tensor([1, 1, 0, 1, 0])
        >>> metric = BinaryBackwardErrorCompatibility()
        >>> metric(preds, target, reference_preds)
        tensor(0.5000)
    """

    def __init__(
        self,
        threshold: float = 0.5,
        given: Given = "h1_wrong",
        ignore_index: int | None = None,
        zero_division: float = 0.0,
        validate_args: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(threshold, ignore_index, zero_division, validate_args, **kwargs)
        self.given = given
        self._score_name = _bec_name(given)


class MulticlassBackwardErrorCompatibility(_Given, _MulticlassScore):
    r"""Compute backward error compatibility (BEC) for a multiclass task.

    .. math::
        \text{BEC}_{\text{h1 wrong}} = \frac{\#(\text{both wrong})}{\#(\text{h1 wrong})} \qquad
        \text{BEC}_{\text{h2 wrong}} = \frac{\#(\text{both wrong})}{\#(\text{h2 wrong})}

    `update` and `forward` take `preds`, `target` and `reference_preds`, with the shapes and dtypes of
    `bc_lightning.functional.multiclass_error_overlap`; `compute` and `forward` give a float32 tensor,
    scalar, or shape `(C,)` for `average=None`.

    Args:
        num_classes: Number of classes C.
        average: `"micro"` divides the counts summed over classes, `"macro"` is the mean over the classes that have
            something to divide by, `"none"` or None gives one score per class.
        given: Whose mistakes are below the fraction bar, `"h1_wrong"` or `"h2_wrong"`.
        ignore_index: A target value whose entries are left out.
        zero_division: Score when the model that `given` names is never wrong: a number in [0, 1] or nan.
        validate_args: Whether to validate arguments and tensors. False saves time and, on an accelerator, the wait
            for the values.
        kwargs: Options of `torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is not one of the above, or inputs are refused as by
            `bc_lightning.functional.multiclass_error_overlap`. Only with `validate_args`.

    Reference:
        Srivastava et al., "An Empirical Analysis of Backward Compatibility in Machine Learning Systems", KDD 2020.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.metrics import MulticlassBackwardErrorCompatibility
        >>> target = tensor([0, 1, 2, 2, 1])
        >>> preds, reference_preds = tensor([0, 1, 2, 0, 0]), tensor([0, 2, 2, 2, 0])
        >>> metric = MulticlassBackwardErrorCompatibility(num_classes=3, average=None)
        >>> metric(preds, target, reference_preds)
        tensor([0.0000, 0.5000, 0.0000])
    """

    def __init__(
        self,
        num_classes: int,
        average: Average = "micro",
        given: Given = "h1_wrong",
        ignore_index: int | None = None,
        zero_division: float = 0.0,
        validate_args: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, average, ignore_index, zero_division, validate_args, **kwargs)
        self.given = given
        self._score_name = _bec_name(given)


class MultilabelBackwardErrorCompatibility(_Given, _MultilabelScore):
    r"""Compute backward error compatibility (BEC) for a multilabel task.

    .. math::
        \text{BEC}_{\text{h1 wrong}} = \frac{\#(\text{both wrong})}{\#(\text{h1 wrong})} \qquad
        \text{BEC}_{\text{h2 wrong}} = \frac{\#(\text{both wrong})}{\#(\text{h2 wrong})}

    `update` and `forward` take `preds`, `target` and `reference_preds`, with the shapes and dtypes of
    `bc_lightning.functional.multilabel_error_overlap`; `compute` and `forward` give a float32 tensor,
    scalar, or shape `(L,)` for `average=None`.

    Args:
        num_labels: Number of labels L.
        threshold: Probability from which on a label is given, for both models.
        average: `"micro"` divides the counts summed over labels, `"macro"` is the mean over the labels that have
            something to divide by, `"none"` or None gives one score per label.
        given: Whose mistakes are below the fraction bar, `"h1_wrong"` or `"h2_wrong"`.
        ignore_index: A target value whose entries are left out.
        zero_division: Score when the model that `given` names is never wrong: a number in [0, 1] or nan.
        validate_args: Whether to validate arguments and tensors. False saves time and, on an accelerator, the wait
            for the values.
        kwargs: Options of `torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is not one of the above, or inputs are refused as by
            `bc_lightning.functional.multilabel_error_overlap`. Only with `validate_args`.

    Reference:
        Srivastava et al., "An Empirical Analysis of Backward Compatibility in Machine Learning Systems", KDD 2020.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.metrics import MultilabelBackwardErrorCompatibility
        >>> target = tensor([[1, 0], [1, 1]])
        >>> preds, reference_preds = tensor([[1, 1], [0, 1]]), tensor([[1, 0], [0, 0]])
        >>> metric = MultilabelBackwardErrorCompatibility(num_labels=2)
        >>> metric(preds, target, reference_preds)
        tensor(0.5000)
    """

    def __init__(
        self,
        num_labels: int,
        threshold: float = 0.5,
        average: Average = "micro",
        given: Given = "h1_wrong",
        ignore_index: int | None = None,
        zero_division: float = 0.0,
        validate_args: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_labels, threshold, average, ignore_index, zero_division, validate_args, **kwargs)
        self.given = given
        self._score_name = _bec_name(given)


class BackwardErrorCompatibility(_ScoreTaskForm):
    r"""Compute backward error compatibility (BEC), the share of one model's mistakes that both models make.

    .. math::
        \text{BEC}_{\text{h1 wrong}} = \frac{\#(\text{both wrong})}{\#(\text{h1 wrong})} \qquad
        \text{BEC}_{\text{h2 wrong}} = \frac{\#(\text{both wrong})}{\#(\text{h2 wrong})}

    The two are different numbers with one name in the literature; say which one you show. Given h1 wrong, it
    falls when h2 repairs old errors; given h2 wrong, it is the chance that a mistake of h2 is not new, 1 - NFI.
    `higher_is_better` is True given h2 wrong, and None given h1 wrong, where keeping old mistakes raises the score.

    Makes `BinaryBackwardErrorCompatibility`, `MulticlassBackwardErrorCompatibility` or
    `MultilabelBackwardErrorCompatibility`. The metric is called, or updated, with

    - `preds`: what the new model h2 says, floating-point scores or integer labels;
    - `target`: true labels;
    - `reference_preds`: what the old model h1 says, scores or labels, whichever `preds` has.

    Shapes and dtypes are those of `bc_lightning.functional.error_overlap`. The value is a float32
    tensor, scalar, or one score per class (label) for `average=None`.

    Args:
        task: `"binary"`, `"multiclass"` or `"multilabel"`.
        threshold: Probability from which on class 1 (a label) is given, for both models. Binary and multilabel only.
        num_classes: Number of classes C. Multiclass only, where it is needed.
        num_labels: Number of labels L. Multilabel only, where it is needed.
        average: `"micro"` divides the counts summed over classes (labels), `"macro"` is the mean over the
            classes that have something to divide by, `"none"` or None gives one score per class. Not for binary.
        given: Whose mistakes are below the fraction bar, `"h1_wrong"` or `"h2_wrong"`.
        ignore_index: A target value whose entries are left out.
        zero_division: Score when the model that `given` names is never wrong: a number in [0, 1] or nan.
        validate_args: Whether to validate arguments and tensors. False saves time and, on an accelerator, the wait
            for the values.
        kwargs: Options of `torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is not one of the above, or `num_classes` or `num_labels` is missing.

    Reference:
        Srivastava et al., "An Empirical Analysis of Backward Compatibility in Machine Learning Systems", KDD 2020.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.metrics import BackwardErrorCompatibility
        >>> target = tensor([0, 1, 2, 2, 1])
        >>> preds, reference_preds = tensor([0, 1, 2, 0, 0]), tensor([0, 2, 2, 2, 0])
        >>> metric = BackwardErrorCompatibility(task="multiclass", num_classes=3, average="macro")
        >>> metric(preds, target, reference_preds)
        tensor(0.5000)
    """

    _binary = BinaryBackwardErrorCompatibility
    _multiclass = MulticlassBackwardErrorCompatibility
    _multilabel = MultilabelBackwardErrorCompatibility

    def __new__(
        cls,
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
    ) -> Any:
        """Make the metric for this task."""
        return super().__new__(
            cls,
            task,
            threshold,
            num_classes,
            num_labels,
            average,
            ignore_index,
            zero_division,
            validate_args,
            given=given,
            **kwargs,
        )


BEC = BackwardErrorCompatibility


# -------------------------------------------------------------------------------- negative flip rate


class BinaryNegativeFlipRate(_BinaryScore, score="nfr"):
    r"""Compute the negative flip rate (NFR) for a binary task.

    .. math::
        \text{NFR} = \frac{\#(\text{h1 right and h2 wrong})}{N}

    `update` and `forward` take `preds`, `target` and `reference_preds`, with the shapes and dtypes of
    `bc_lightning.functional.binary_error_overlap`; `compute` and `forward` give a float32 tensor,
    scalar.

    Args:
        threshold: Probability from which on class 1 is given, for both models.
        ignore_index: A target value whose entries are left out.
        zero_division: Score when there are no instances: a number in [0, 1] or nan.
        validate_args: Whether to validate arguments and tensors. False saves time and, on an accelerator, the wait
            for the values.
        kwargs: Options of `torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is not one of the above, or inputs are refused as by
            `bc_lightning.functional.binary_error_overlap`. Only with `validate_args`.

    Reference:
        Yan et al., "Positive-Congruent Training", CVPR 2021.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.metrics import BinaryNegativeFlipRate
        >>> target = tensor([1, 1, 0, 0, 1])
        >>> preds, reference_preds = tensor([0.9, 0.2, 0.4, 0.6, 0.7]), tensor([1, 1, 0, 1, 0])
        >>> metric = BinaryNegativeFlipRate()
        >>> metric(preds, target, reference_preds)
        tensor(0.2000)
    """


class MulticlassNegativeFlipRate(_MulticlassScore, score="nfr"):
    r"""Compute the negative flip rate (NFR) for a multiclass task.

    .. math::
        \text{NFR} = \frac{\#(\text{h1 right and h2 wrong})}{N}

    `update` and `forward` take `preds`, `target` and `reference_preds`, with the shapes and dtypes of
    `bc_lightning.functional.multiclass_error_overlap`; `compute` and `forward` give a float32 tensor,
    scalar, or shape `(C,)` for `average=None`.

    Args:
        num_classes: Number of classes C.
        average: `"micro"` divides the counts summed over classes, `"macro"` is the mean over the classes that have
            something to divide by, `"none"` or None gives one score per class.
        ignore_index: A target value whose entries are left out.
        zero_division: Score when there are no instances: a number in [0, 1] or nan.
        validate_args: Whether to validate arguments and tensors. False saves time and, on an accelerator, the wait
            for the values.
        kwargs: Options of `torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is not one of the above, or inputs are refused as by
            `bc_lightning.functional.multiclass_error_overlap`. Only with `validate_args`.

    Reference:
        Yan et al., "Positive-Congruent Training", CVPR 2021.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.metrics import MulticlassNegativeFlipRate
        >>> target = tensor([0, 1, 2, 2, 1])
        >>> preds, reference_preds = tensor([0, 1, 2, 0, 0]), tensor([0, 2, 2, 2, 0])
        >>> metric = MulticlassNegativeFlipRate(num_classes=3, average=None)
        >>> metric(preds, target, reference_preds)
        tensor([0.0000, 0.0000, 0.5000])
    """


class MultilabelNegativeFlipRate(_MultilabelScore, score="nfr"):
    r"""Compute the negative flip rate (NFR) for a multilabel task.

    .. math::
        \text{NFR} = \frac{\#(\text{h1 right and h2 wrong})}{N}

    `update` and `forward` take `preds`, `target` and `reference_preds`, with the shapes and dtypes of
    `bc_lightning.functional.multilabel_error_overlap`; `compute` and `forward` give a float32 tensor,
    scalar, or shape `(L,)` for `average=None`.

    Args:
        num_labels: Number of labels L.
        threshold: Probability from which on a label is given, for both models.
        average: `"micro"` divides the counts summed over labels, `"macro"` is the mean over the labels that have
            something to divide by, `"none"` or None gives one score per label.
        ignore_index: A target value whose entries are left out.
        zero_division: Score when there are no instances: a number in [0, 1] or nan.
        validate_args: Whether to validate arguments and tensors. False saves time and, on an accelerator, the wait
            for the values.
        kwargs: Options of `torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is not one of the above, or inputs are refused as by
            `bc_lightning.functional.multilabel_error_overlap`. Only with `validate_args`.

    Reference:
        Yan et al., "Positive-Congruent Training", CVPR 2021.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.metrics import MultilabelNegativeFlipRate
        >>> target = tensor([[1, 0], [1, 1]])
        >>> preds, reference_preds = tensor([[1, 1], [0, 1]]), tensor([[1, 0], [0, 0]])
        >>> metric = MultilabelNegativeFlipRate(num_labels=2)
        >>> metric(preds, target, reference_preds)
        tensor(0.2500)
    """


class NegativeFlipRate(_ScoreTaskForm):
    r"""Compute the negative flip rate (NFR), the share of instances that h1 gets right and h2 wrong.

    .. math::
        \text{NFR} = \frac{\#(\text{h1 right and h2 wrong})}{N}

    0 means that nothing broke.

    Makes `BinaryNegativeFlipRate`, `MulticlassNegativeFlipRate` or
    `MultilabelNegativeFlipRate`. The metric is called, or updated, with

    - `preds`: what the new model h2 says, floating-point scores or integer labels;
    - `target`: true labels;
    - `reference_preds`: what the old model h1 says, scores or labels, whichever `preds` has.

    Shapes and dtypes are those of `bc_lightning.functional.error_overlap`. The value is a float32
    tensor, scalar, or one score per class (label) for `average=None`.

    Args:
        task: `"binary"`, `"multiclass"` or `"multilabel"`.
        threshold: Probability from which on class 1 (a label) is given, for both models. Binary and multilabel only.
        num_classes: Number of classes C. Multiclass only, where it is needed.
        num_labels: Number of labels L. Multilabel only, where it is needed.
        average: `"micro"` divides the counts summed over classes (labels), `"macro"` is the mean over the
            classes that have something to divide by, `"none"` or None gives one score per class. Not for binary.
        ignore_index: A target value whose entries are left out.
        zero_division: Score when there are no instances: a number in [0, 1] or nan.
        validate_args: Whether to validate arguments and tensors. False saves time and, on an accelerator, the wait
            for the values.
        kwargs: Options of `torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is not one of the above, or `num_classes` or `num_labels` is missing.

    Reference:
        Yan et al., "Positive-Congruent Training", CVPR 2021.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.metrics import NegativeFlipRate
        >>> target = tensor([0, 1, 2, 2, 1])
        >>> preds, reference_preds = tensor([0, 1, 2, 0, 0]), tensor([0, 2, 2, 2, 0])
        >>> metric = NegativeFlipRate(task="multiclass", num_classes=3, average="macro")
        >>> metric(preds, target, reference_preds)
        tensor(0.1667)
    """

    _binary = BinaryNegativeFlipRate
    _multiclass = MulticlassNegativeFlipRate
    _multilabel = MultilabelNegativeFlipRate


# -------------------------------------------------------------------------------- positive flip rate


class BinaryPositiveFlipRate(_BinaryScore, score="pfr"):
    r"""Compute the positive flip rate (PFR) for a binary task.

    .. math::
        \text{PFR} = \frac{\#(\text{h1 wrong and h2 right})}{N}

    `update` and `forward` take `preds`, `target` and `reference_preds`, with the shapes and dtypes of
    `bc_lightning.functional.binary_error_overlap`; `compute` and `forward` give a float32 tensor,
    scalar.

    Args:
        threshold: Probability from which on class 1 is given, for both models.
        ignore_index: A target value whose entries are left out.
        zero_division: Score when there are no instances: a number in [0, 1] or nan.
        validate_args: Whether to validate arguments and tensors. False saves time and, on an accelerator, the wait
            for the values.
        kwargs: Options of `torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is not one of the above, or inputs are refused as by
            `bc_lightning.functional.binary_error_overlap`. Only with `validate_args`.

    Reference:
        Yan et al., "Positive-Congruent Training", CVPR 2021.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.metrics import BinaryPositiveFlipRate
        >>> target = tensor([1, 1, 0, 0, 1])
        >>> preds, reference_preds = tensor([0.9, 0.2, 0.4, 0.6, 0.7]), tensor([1, 1, 0, 1, 0])
        >>> metric = BinaryPositiveFlipRate()
        >>> metric(preds, target, reference_preds)
        tensor(0.2000)
    """


class MulticlassPositiveFlipRate(_MulticlassScore, score="pfr"):
    r"""Compute the positive flip rate (PFR) for a multiclass task.

    .. math::
        \text{PFR} = \frac{\#(\text{h1 wrong and h2 right})}{N}

    `update` and `forward` take `preds`, `target` and `reference_preds`, with the shapes and dtypes of
    `bc_lightning.functional.multiclass_error_overlap`; `compute` and `forward` give a float32 tensor,
    scalar, or shape `(C,)` for `average=None`.

    Args:
        num_classes: Number of classes C.
        average: `"micro"` divides the counts summed over classes, `"macro"` is the mean over the classes that have
            something to divide by, `"none"` or None gives one score per class.
        ignore_index: A target value whose entries are left out.
        zero_division: Score when there are no instances: a number in [0, 1] or nan.
        validate_args: Whether to validate arguments and tensors. False saves time and, on an accelerator, the wait
            for the values.
        kwargs: Options of `torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is not one of the above, or inputs are refused as by
            `bc_lightning.functional.multiclass_error_overlap`. Only with `validate_args`.

    Reference:
        Yan et al., "Positive-Congruent Training", CVPR 2021.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.metrics import MulticlassPositiveFlipRate
        >>> target = tensor([0, 1, 2, 2, 1])
        >>> preds, reference_preds = tensor([0, 1, 2, 0, 0]), tensor([0, 2, 2, 2, 0])
        >>> metric = MulticlassPositiveFlipRate(num_classes=3, average=None)
        >>> metric(preds, target, reference_preds)
        tensor([0.0000, 0.5000, 0.0000])
    """


class MultilabelPositiveFlipRate(_MultilabelScore, score="pfr"):
    r"""Compute the positive flip rate (PFR) for a multilabel task.

    .. math::
        \text{PFR} = \frac{\#(\text{h1 wrong and h2 right})}{N}

    `update` and `forward` take `preds`, `target` and `reference_preds`, with the shapes and dtypes of
    `bc_lightning.functional.multilabel_error_overlap`; `compute` and `forward` give a float32 tensor,
    scalar, or shape `(L,)` for `average=None`.

    Args:
        num_labels: Number of labels L.
        threshold: Probability from which on a label is given, for both models.
        average: `"micro"` divides the counts summed over labels, `"macro"` is the mean over the labels that have
            something to divide by, `"none"` or None gives one score per label.
        ignore_index: A target value whose entries are left out.
        zero_division: Score when there are no instances: a number in [0, 1] or nan.
        validate_args: Whether to validate arguments and tensors. False saves time and, on an accelerator, the wait
            for the values.
        kwargs: Options of `torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is not one of the above, or inputs are refused as by
            `bc_lightning.functional.multilabel_error_overlap`. Only with `validate_args`.

    Reference:
        Yan et al., "Positive-Congruent Training", CVPR 2021.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.metrics import MultilabelPositiveFlipRate
        >>> target = tensor([[1, 0], [1, 1]])
        >>> preds, reference_preds = tensor([[1, 1], [0, 1]]), tensor([[1, 0], [0, 0]])
        >>> metric = MultilabelPositiveFlipRate(num_labels=2)
        >>> metric(preds, target, reference_preds)
        tensor(0.2500)
    """


class PositiveFlipRate(_ScoreTaskForm):
    r"""Compute the positive flip rate (PFR), the share of instances that h1 gets wrong and h2 right.

    .. math::
        \text{PFR} = \frac{\#(\text{h1 wrong and h2 right})}{N}

    accuracy(h2) - accuracy(h1) = PFR - NFR.

    Makes `BinaryPositiveFlipRate`, `MulticlassPositiveFlipRate` or
    `MultilabelPositiveFlipRate`. The metric is called, or updated, with

    - `preds`: what the new model h2 says, floating-point scores or integer labels;
    - `target`: true labels;
    - `reference_preds`: what the old model h1 says, scores or labels, whichever `preds` has.

    Shapes and dtypes are those of `bc_lightning.functional.error_overlap`. The value is a float32
    tensor, scalar, or one score per class (label) for `average=None`.

    Args:
        task: `"binary"`, `"multiclass"` or `"multilabel"`.
        threshold: Probability from which on class 1 (a label) is given, for both models. Binary and multilabel only.
        num_classes: Number of classes C. Multiclass only, where it is needed.
        num_labels: Number of labels L. Multilabel only, where it is needed.
        average: `"micro"` divides the counts summed over classes (labels), `"macro"` is the mean over the
            classes that have something to divide by, `"none"` or None gives one score per class. Not for binary.
        ignore_index: A target value whose entries are left out.
        zero_division: Score when there are no instances: a number in [0, 1] or nan.
        validate_args: Whether to validate arguments and tensors. False saves time and, on an accelerator, the wait
            for the values.
        kwargs: Options of `torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is not one of the above, or `num_classes` or `num_labels` is missing.

    Reference:
        Yan et al., "Positive-Congruent Training", CVPR 2021.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.metrics import PositiveFlipRate
        >>> target = tensor([0, 1, 2, 2, 1])
        >>> preds, reference_preds = tensor([0, 1, 2, 0, 0]), tensor([0, 2, 2, 2, 0])
        >>> metric = PositiveFlipRate(task="multiclass", num_classes=3, average="macro")
        >>> metric(preds, target, reference_preds)
        tensor(0.1667)
    """

    _binary = BinaryPositiveFlipRate
    _multiclass = MulticlassPositiveFlipRate
    _multilabel = MultilabelPositiveFlipRate


# -------------------------------------------------------------------------------- negative flip impact


class BinaryNegativeFlipImpact(_BinaryScore, score="nfi"):
    r"""Compute the negative flip impact (NFI) for a binary task.

    .. math::
        \text{NFI} = \frac{\#(\text{h1 right and h2 wrong})}{\#(\text{h2 wrong})}

    `update` and `forward` take `preds`, `target` and `reference_preds`, with the shapes and dtypes of
    `bc_lightning.functional.binary_error_overlap`; `compute` and `forward` give a float32 tensor,
    scalar.

    Args:
        threshold: Probability from which on class 1 is given, for both models.
        ignore_index: A target value whose entries are left out.
        zero_division: Score when h2 is never wrong: a number in [0, 1] or nan.
        validate_args: Whether to validate arguments and tensors. False saves time and, on an accelerator, the wait
            for the values.
        kwargs: Options of `torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is not one of the above, or inputs are refused as by
            `bc_lightning.functional.binary_error_overlap`. Only with `validate_args`.

    Reference:
        Cai et al., "Measuring and Reducing Model Update Regression in Structured Prediction for NLP", NeurIPS 2022.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.metrics import BinaryNegativeFlipImpact
        >>> target = tensor([1, 1, 0, 0, 1])
        >>> preds, reference_preds = tensor([0.9, 0.2, 0.4, 0.6, 0.7]), tensor([1, 1, 0, 1, 0])
        >>> metric = BinaryNegativeFlipImpact()
        >>> metric(preds, target, reference_preds)
        tensor(0.5000)
    """


class MulticlassNegativeFlipImpact(_MulticlassScore, score="nfi"):
    r"""Compute the negative flip impact (NFI) for a multiclass task.

    .. math::
        \text{NFI} = \frac{\#(\text{h1 right and h2 wrong})}{\#(\text{h2 wrong})}

    `update` and `forward` take `preds`, `target` and `reference_preds`, with the shapes and dtypes of
    `bc_lightning.functional.multiclass_error_overlap`; `compute` and `forward` give a float32 tensor,
    scalar, or shape `(C,)` for `average=None`.

    Args:
        num_classes: Number of classes C.
        average: `"micro"` divides the counts summed over classes, `"macro"` is the mean over the classes that have
            something to divide by, `"none"` or None gives one score per class.
        ignore_index: A target value whose entries are left out.
        zero_division: Score when h2 is never wrong: a number in [0, 1] or nan.
        validate_args: Whether to validate arguments and tensors. False saves time and, on an accelerator, the wait
            for the values.
        kwargs: Options of `torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is not one of the above, or inputs are refused as by
            `bc_lightning.functional.multiclass_error_overlap`. Only with `validate_args`.

    Reference:
        Cai et al., "Measuring and Reducing Model Update Regression in Structured Prediction for NLP", NeurIPS 2022.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.metrics import MulticlassNegativeFlipImpact
        >>> target = tensor([0, 1, 2, 2, 1])
        >>> preds, reference_preds = tensor([0, 1, 2, 0, 0]), tensor([0, 2, 2, 2, 0])
        >>> metric = MulticlassNegativeFlipImpact(num_classes=3, average=None)
        >>> metric(preds, target, reference_preds)
        tensor([0., 0., 1.])
    """


class MultilabelNegativeFlipImpact(_MultilabelScore, score="nfi"):
    r"""Compute the negative flip impact (NFI) for a multilabel task.

    .. math::
        \text{NFI} = \frac{\#(\text{h1 right and h2 wrong})}{\#(\text{h2 wrong})}

    `update` and `forward` take `preds`, `target` and `reference_preds`, with the shapes and dtypes of
    `bc_lightning.functional.multilabel_error_overlap`; `compute` and `forward` give a float32 tensor,
    scalar, or shape `(L,)` for `average=None`.

    Args:
        num_labels: Number of labels L.
        threshold: Probability from which on a label is given, for both models.
        average: `"micro"` divides the counts summed over labels, `"macro"` is the mean over the labels that have
            something to divide by, `"none"` or None gives one score per label.
        ignore_index: A target value whose entries are left out.
        zero_division: Score when h2 is never wrong: a number in [0, 1] or nan.
        validate_args: Whether to validate arguments and tensors. False saves time and, on an accelerator, the wait
            for the values.
        kwargs: Options of `torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is not one of the above, or inputs are refused as by
            `bc_lightning.functional.multilabel_error_overlap`. Only with `validate_args`.

    Reference:
        Cai et al., "Measuring and Reducing Model Update Regression in Structured Prediction for NLP", NeurIPS 2022.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.metrics import MultilabelNegativeFlipImpact
        >>> target = tensor([[1, 0], [1, 1]])
        >>> preds, reference_preds = tensor([[1, 1], [0, 1]]), tensor([[1, 0], [0, 0]])
        >>> metric = MultilabelNegativeFlipImpact(num_labels=2)
        >>> metric(preds, target, reference_preds)
        tensor(0.5000)
    """


class NegativeFlipImpact(_ScoreTaskForm):
    r"""Compute the negative flip impact (NFI), the share of the new model's mistakes that are new.

    .. math::
        \text{NFI} = \frac{\#(\text{h1 right and h2 wrong})}{\#(\text{h2 wrong})}

    NFI = 1 - BEC given h2 wrong.

    Makes `BinaryNegativeFlipImpact`, `MulticlassNegativeFlipImpact` or
    `MultilabelNegativeFlipImpact`. The metric is called, or updated, with

    - `preds`: what the new model h2 says, floating-point scores or integer labels;
    - `target`: true labels;
    - `reference_preds`: what the old model h1 says, scores or labels, whichever `preds` has.

    Shapes and dtypes are those of `bc_lightning.functional.error_overlap`. The value is a float32
    tensor, scalar, or one score per class (label) for `average=None`.

    Args:
        task: `"binary"`, `"multiclass"` or `"multilabel"`.
        threshold: Probability from which on class 1 (a label) is given, for both models. Binary and multilabel only.
        num_classes: Number of classes C. Multiclass only, where it is needed.
        num_labels: Number of labels L. Multilabel only, where it is needed.
        average: `"micro"` divides the counts summed over classes (labels), `"macro"` is the mean over the
            classes that have something to divide by, `"none"` or None gives one score per class. Not for binary.
        ignore_index: A target value whose entries are left out.
        zero_division: Score when h2 is never wrong: a number in [0, 1] or nan.
        validate_args: Whether to validate arguments and tensors. False saves time and, on an accelerator, the wait
            for the values.
        kwargs: Options of `torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is not one of the above, or `num_classes` or `num_labels` is missing.

    Reference:
        Cai et al., "Measuring and Reducing Model Update Regression in Structured Prediction for NLP", NeurIPS 2022.

    Example:
        >>> from torch import tensor
        >>> from bc_lightning.metrics import NegativeFlipImpact
        >>> target = tensor([0, 1, 2, 2, 1])
        >>> preds, reference_preds = tensor([0, 1, 2, 0, 0]), tensor([0, 2, 2, 2, 0])
        >>> metric = NegativeFlipImpact(task="multiclass", num_classes=3, average="macro")
        >>> metric(preds, target, reference_preds)
        tensor(0.5000)
    """

    _binary = BinaryNegativeFlipImpact
    _multiclass = MulticlassNegativeFlipImpact
    _multilabel = MultilabelNegativeFlipImpact
