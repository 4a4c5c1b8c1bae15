r"""The training loss on outputs: ``mean_i base_i + lambda_c * dissonance``.

Written once for Keras; `BCModel` and the eight named losses are shells over this file.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops
from keras.src.backend import get_keras_mask  # public nowhere; JAX keeps masks beside its arrays

from bc_core.losses._documentation import with_dissonances
from bc_core.losses._options import (
    Base,
    DissonanceName,
    Normalization,
    check_labels_suffice,
    check_lambda_of,
    check_loss,
    known,
    labels_suffice,
    options_of_dissonance,
)
from bc_keras._copies import sharing
from bc_keras.batches._labels import h1_classes, is_binary, is_float
from bc_keras.losses._instance_terms import Counted, InstanceTerms, binary_terms, multiclass_terms
from bc_keras.losses._values import check_values

# Which option belongs to which base; any other combination is refused by name.
BASE_OPTIONS: dict[str, tuple[str, ...]] = {
    "nll": ("ignore_class",),
    "cross_entropy": ("label_smoothing", "ignore_class"),
    "binary_cross_entropy": ("label_smoothing", "threshold"),
    "kl_divergence": ("ignore_class",),
}
_DEFAULTS: dict[str, Any] = {"label_smoothing": 0.0, "ignore_class": None, "threshold": 0.5}

# A logit that stands for a label; any threshold lies below it.
_SURE_LOGIT = 1e4


@with_dissonances
@keras.saving.register_keras_serializable(package="bc_keras")
class CompatibilityLoss(keras.losses.Loss):
    r"""Compatibility loss :math:`\frac1N\sum_i b_i + \lambda_c \frac1N\sum_i c_i d_i` of a batch of outputs.

    :math:`b_i` is the base loss of instance i, :math:`c_i = 1` where h1 is right (its support), and :math:`d_i` the
    dissonance. Some weigh instances otherwise than by :math:`c_i`; see below.

    Use it where both outputs are at hand, in a training loop of your own, or as ``loss=`` of `BCModel`. It cannot be
    compiled into a plain model, whose losses see the label and h2's output only.

    Args:
        base: ``"nll"``, ``"cross_entropy"``, ``"binary_cross_entropy"`` or ``"kl_divergence"``.
        dissonance: how h2 is held to h1, by name; see below.
        lambda_c: weight of the dissonance, >= 0, without upper limit; a number, tensor or variable. 0 is the base loss
            to the bit.
        normalization: ``"batch"`` divides the dissonance by the number of instances, ``"support"`` by the number that
            h1 gets right, counted over all replicas.
        from_logits: whether outputs are logits. Defaults to `False`: probabilities, clipped to
            ``[epsilon, 1]`` as Keras clips them.
        h1_from_logits: the same for h1's output, if it differs. Defaults to `None`, as `from_logits`.
        label_smoothing: as in Keras's cross-entropies; smooths b_i, and d_i of new error.
        ignore_class: class index that does not count, for sparse targets.
        threshold: a binary score is class 1 from this probability on.
        epsilon: probabilities are clipped from below here. Defaults to `keras.config.epsilon()`.
        validate_args: look at values (labels, NaN) as well as shapes, where that waits for nothing: on a CPU and
            outside compiled steps.
        reduction: ``"sum_over_batch_size"`` (``"mean"``, ``"batchmean"``), ``"sum"`` or ``None`` (``"none"``).
        name: name of the loss.
        dtype: dtype of the computation. Defaults to `keras.config.floatx()`.
        options: those of the dissonance.

    Raises:
        TypeError: an option that neither base nor dissonance has.
        ValueError: an unknown name, or a negative lambda_c.

    Example:
        >>> import numpy as np
        >>> from bc_keras import CompatibilityLoss
        >>> loss = CompatibilityLoss("cross_entropy", "new_error", lambda_c=2.0, from_logits=True)
        >>> h2, h1 = np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 0.0], [1.0, 0.0]])
        >>> round(float(loss(h2, np.array([0, 1]), h1)), 4)  # h1 is right on the first instance only
        0.347
    """

    def __init__(
        self,
        base: Base = "cross_entropy",
        dissonance: DissonanceName = "new_error",
        lambda_c: Any = 1.0,
        normalization: Normalization = "batch",
        *,
        from_logits: bool = False,
        h1_from_logits: bool | None = None,
        label_smoothing: float = 0.0,
        ignore_class: int | None = None,
        threshold: float = 0.5,
        epsilon: float | None = None,
        validate_args: bool = True,
        reduction: str | None = "sum_over_batch_size",
        name: str = "compatibility_loss",
        dtype: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(name=name, reduction=_reduction(reduction), dtype=dtype)
        if self.dtype in ("float16", "bfloat16"):
            # Sums of exponentials and of a batch need more.
            super().__init__(name=name, reduction=_reduction(reduction), dtype="float32")
        given = {"label_smoothing": label_smoothing, "ignore_class": ignore_class, "threshold": threshold}
        of_base = {option: value for option, value in given.items() if value != _DEFAULTS[option]}
        check_loss(base, dissonance, normalization, {**of_base, **options}, BASE_OPTIONS)
        self.dissonance_options = options_of_dissonance(dissonance, options)
        self.base = base
        self.dissonance = dissonance
        self.lambda_c = lambda_c
        self.normalization = normalization
        self.from_logits = bool(from_logits)
        self.h1_from_logits = h1_from_logits
        self.label_smoothing = label_smoothing
        self.ignore_class = ignore_class
        self.threshold = threshold
        self.epsilon = epsilon
        self.validate_args = validate_args

    @property
    def lambda_c(self) -> Any:
        """Weight of the dissonance, >= 0."""
        return self._lambda_c

    @lambda_c.setter
    def lambda_c(self, value: Any) -> None:
        if not (isinstance(value, keras.Variable) or ops.is_tensor(value)):
            check_lambda_of(self.dissonance, value)
        self._lambda_c = value

    @property
    def labels_suffice(self) -> bool:
        """Whether h1's predicted labels are enough, or its scores are needed."""
        return labels_suffice(self.dissonance)

    def terms(self, h2_output: Any, target: Any, h1_output: Any, teacher_output: Any = None) -> InstanceTerms:
        """Base loss, masked dissonance and support of each instance; arguments as in `__call__`."""
        h2_output = ops.cast(h2_output, self.dtype)
        h1_output = ops.cast(self.as_scores(h1_output, h2_output, teacher_output is None), self.dtype)
        imitated = h1_output if teacher_output is None else ops.cast(teacher_output, self.dtype)
        if self.base == "binary_cross_entropy":
            return binary_terms(
                self.dissonance,
                h2_output,
                target,
                h1_output,
                imitated,
                from_logits=self.from_logits,
                h1_from_logits=self._h1_from_logits,
                label_smoothing=self.label_smoothing,
                threshold=self.threshold,
                own=self.dissonance_options,
            )
        if is_binary(h2_output):
            raise ValueError(
                f"base={self.base!r} needs scores over the classes, shape (N, C); for one score per instance use "
                f"base='binary_cross_entropy'. Received: h2's output of shape {tuple(h2_output.shape)}."
            )
        return multiclass_terms(
            self.base,
            self.dissonance,
            h2_output,
            target,
            h1_output,
            imitated,
            from_logits=self.from_logits,
            h1_from_logits=self._h1_from_logits,
            label_smoothing=self.label_smoothing,
            ignore_class=self.ignore_class,
            epsilon=self.epsilon,
            own=self.dissonance_options,
        )

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Loss of each instance; `y_true` holds the target, scores of h1 and the teacher, and h2's mask, if any."""
        target, answers, *mask = y_true
        terms = self.terms(y_pred, target, *answers)
        counted = Counted(terms.support, terms.valid, *mask)
        values = terms.base
        lambda_c = self.lambda_c
        if not isinstance(lambda_c, int | float):
            lambda_c = ops.cast(ops.convert_to_tensor(lambda_c), values.dtype)
        # Not base + 0 * dissonance: that would turn an infinite dissonance into NaN.
        if not (isinstance(lambda_c, int | float) and lambda_c == 0):
            values = values + lambda_c * terms.dissonance * counted.support_scale(self.normalization)
        return values * counted.valid_scale(self.reduction)

    def __call__(
        self,
        h2_output: Any,
        target: Any,
        h1_output: Any = None,
        sample_weight: Any = None,
        reduction: str | None = "default",
        teacher_output: Any = None,
    ) -> Any:
        """Loss of a batch.

        Args:
            h2_output: scores (N, ..., C): probabilities, or logits with ``from_logits=True``; one score per instance,
                (N,) or (N, 1), or one per label, (N, L), for ``base="binary_cross_entropy"``.
            target: class indices (N, ...) or (N, ..., 1) of any integer width, one-hot or soft rows (N, ..., C); 0 and
                1 for the binary base.
            h1_output: h1's scores in h2's shape, or (new error only) its labels as integers.
            sample_weight: weights (N,) or (N, 1) of the instances. As everywhere in Keras, the mean divides by the
                number of instances, not by the sum of the weights.
            reduction: ``"mean"``, ``"sum"`` or ``"none"``, if not the one given to the constructor.
            teacher_output: scores that are imitated instead of h1's, in their form; where h1 is right is still h1's to
                say.

        Raises:
            ValueError: shapes that do not fit, labels outside the classes, NaN or infinite scores, an empty batch.
        """
        if h1_output is None:
            raise ValueError(
                "CompatibilityLoss compares three tensors, loss(h2_output, target, h1_output); a loss given to "
                "compile() sees two. Train with BCModel(h2, h1=h1, loss=CompatibilityLoss(...)), which asks h1 itself. "
                "Received: h1_output=None."
            )
        h2_output, target, h1_output = (_tensor(each) for each in (h2_output, target, h1_output))
        if self.validate_args:
            check_values(
                self.base,
                h2_output,
                target,
                h1_output,
                from_logits=self.from_logits,
                h1_from_logits=self._h1_from_logits,
                ignore_class=self.ignore_class,
            )
        loss = self
        if reduction != "default":
            loss = sharing(self)
            loss.reduction = _reduction(reduction)
        # Keras casts all that it hands to `call` to floats, which would make scores of labels.
        mask = get_keras_mask(h2_output)
        answers: tuple[Any, ...] = (self.as_scores(h1_output, h2_output, teacher_output is None),)
        if teacher_output is not None:
            answers = (*answers, self._checked_teacher(_tensor(teacher_output)))
        y_true = (target, answers, *([] if mask is None else [mask]))
        return keras.losses.Loss.__call__(loss, y_true, h2_output, sample_weight)

    def _checked_teacher(self, teacher_output: Any) -> Any:
        if not is_float(teacher_output):
            check_labels_suffice(self.dissonance, keras.backend.standardize_dtype(teacher_output.dtype))
        return teacher_output

    def as_scores(self, h1_output: Any, h2_output: Any, is_imitated: bool = True) -> Any:
        """h1's output as it is, or scores that stand for the labels it gave, where nobody imitates these."""
        if is_float(h1_output):
            return h1_output
        if is_imitated:
            check_labels_suffice(self.dissonance, keras.backend.standardize_dtype(h1_output.dtype))
        # NaN stands for -1, no prediction.
        nothing = float("nan")
        if self.base == "binary_cross_entropy":
            surest, least = (_SURE_LOGIT, -_SURE_LOGIT) if self._h1_from_logits else (1.0, 0.0)
            h1_output = ops.cast(h1_output, "int32")
            return ops.where(h1_output < 0, nothing, ops.where(h1_output == 1, surest, least))
        labels = h1_classes(h1_output, tuple(h2_output.shape)[:-1], h2_output.shape[-1])
        columns = ops.one_hot(labels, h2_output.shape[-1])
        return ops.where(ops.expand_dims(labels < 0, -1), nothing, columns)

    @property
    def _h1_from_logits(self) -> bool:
        return self.from_logits if self.h1_from_logits is None else self.h1_from_logits

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor; a lambda_c that is a variable or tensor as its value."""
        lambda_c = self.lambda_c
        return {
            **super().get_config(),
            "base": self.base,
            "dissonance": self.dissonance,
            "lambda_c": lambda_c if isinstance(lambda_c, int | float) else float(ops.convert_to_numpy(lambda_c)),
            "normalization": self.normalization,
            "from_logits": self.from_logits,
            "h1_from_logits": self.h1_from_logits,
            "label_smoothing": self.label_smoothing,
            "ignore_class": self.ignore_class,
            "threshold": self.threshold,
            "epsilon": self.epsilon,
            "validate_args": self.validate_args,
            "dtype": self.dtype,
            **self.dissonance_options,
        }


def _tensor(value: Any) -> Any:
    return value if hasattr(value, "dtype") and hasattr(value, "shape") else ops.convert_to_tensor(value)


def _reduction(reduction: str | None) -> str | None:
    """Keras's name of a reduction; torch's names mean the same."""
    names = {"batchmean": "sum_over_batch_size", "mean": "sum_over_batch_size", "none": None}
    known(reduction, (*names, "sum_over_batch_size", "sum", None), "reduction")
    return names.get(reduction, reduction) if reduction is not None else None
