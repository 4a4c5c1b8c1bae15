r"""The training loss on outputs: ``mean_i base_i + lambda_c * dissonance``.

Written once for Keras; `BCModel` and the eight named losses are shells over this file.
"""

from __future__ import annotations

import copy
from typing import Any, Literal, NamedTuple, get_args

import keras
import numpy as np
from keras import ops
from keras.src.backend import get_keras_mask  # public nowhere; JAX keeps masks beside its arrays

from bc_core import check_lambda
from bc_keras.batches._labels import as_column, entries_of, h1_classes, is_binary, is_float, is_positive, target_classes
from bc_keras.training._distribution import num_replicas, sum_over_replicas

Base = Literal["nll", "cross_entropy", "binary_cross_entropy", "kl_divergence"]
Dissonance = Literal["new_error", "strict_imitation", "imitation"]
Normalization = Literal["batch", "support"]

# Which option belongs to which base; any other combination is refused by name.
_OPTIONS: dict[str, tuple[str, ...]] = {
    "nll": ("ignore_class",),
    "cross_entropy": ("label_smoothing", "ignore_class"),
    "binary_cross_entropy": ("label_smoothing", "threshold"),
    "kl_divergence": ("ignore_class",),
}
_DEFAULTS: dict[str, Any] = {"label_smoothing": 0.0, "ignore_class": None, "threshold": 0.5}

# Smaller than any probability that float32 keeps; a logarithm of it is finite.
TINY = 1e-37
# How far beyond 0..1 half precision rounds a probability.
ROUNDING = 1e-2
# A logit that stands for a label; any threshold lies below it.
_SURE_LOGIT = 1e4


class InstanceTerms(NamedTuple):
    """Terms of each instance, floating-point tensors of one shape: (N,), or (N, ...) for dense outputs."""

    base: Any
    dissonance: Any  # c_i d_i, so masked by the support already
    support: Any  # c_i as 0 and 1, a share of the labels for a multilabel model
    valid: Any  # 1, or 0 where the target is ignored; None where every instance counts


def known(value: object, allowed: tuple[str, ...], what: str) -> None:
    """Refuse a name that is not among `allowed`, and list those that are."""
    if value not in allowed:
        raise ValueError(
            f"Unknown {what}. Expected one of {', '.join(map(repr, allowed))}. Received: {what}={value!r}."
        )


def log_probabilities(scores: Any, from_logits: bool, epsilon: float | None = None) -> Any:
    """Logarithms of class probabilities, from logits or from probabilities, which are clipped as Keras clips them."""
    if from_logits:
        return ops.log_softmax(scores, axis=-1)
    return ops.log(ops.clip(scores, keras.config.epsilon() if epsilon is None else epsilon, 1.0))


def _distribution_of_target(target: Any, h2_output: Any, ignore_class: int | None) -> tuple[Any, Any, Any]:
    """The target as a distribution over the classes, as class indices, and where it counts."""
    shape, classes = tuple(h2_output.shape)[:-1], h2_output.shape[-1]
    labels = target_classes(target, shape, classes)
    if len(target.shape) == len(h2_output.shape) and target.shape[-1] == classes:
        return ops.cast(target, h2_output.dtype), labels, None
    valid = None if ignore_class is None else ops.cast(labels != ignore_class, h2_output.dtype)
    return ops.one_hot(labels, classes, dtype=h2_output.dtype), labels, valid


def _multiclass_terms(
    base: str,
    dissonance: str,
    h2_output: Any,
    target: Any,
    h1_output: Any,
    *,
    from_logits: bool,
    h1_from_logits: bool,
    label_smoothing: float,
    ignore_class: int | None,
    epsilon: float | None,
) -> InstanceTerms:
    goal, labels, valid = _distribution_of_target(target, h2_output, ignore_class)
    log_p2 = log_probabilities(h2_output, from_logits, epsilon)
    if label_smoothing:
        goal = goal * (1.0 - label_smoothing) + label_smoothing / h2_output.shape[-1]
    base_i = -ops.sum(goal * log_p2, axis=-1)
    if base == "kl_divergence":
        # Soft targets keep their entropy, so that a perfect h2 reaches 0; for a hard label it is 0.
        base_i = base_i + ops.sum(goal * ops.log(ops.maximum(goal, TINY)), axis=-1)
    if dissonance == "new_error":
        d_i = base_i
    else:
        log_p1 = log_probabilities(h1_output, h1_from_logits, epsilon)
        p1 = ops.exp(log_p1) if h1_from_logits else ops.cast(h1_output, log_p1.dtype)
        d_i = -ops.sum(p1 * (log_p2 - log_p1 if base == "kl_divergence" else log_p2), axis=-1)
    if dissonance == "imitation":
        support = ops.ones_like(base_i)
    else:
        right = h1_classes(h1_output, tuple(h2_output.shape)[:-1], h2_output.shape[-1]) == labels
        support = ops.cast(right, base_i.dtype)
    if valid is not None:
        support = support * valid
        base_i = ops.where(valid > 0, base_i, 0.0)
    # Not a product: 0 * inf would poison the mean and its gradient.
    return InstanceTerms(base_i, ops.where(support > 0, d_i, 0.0), support, valid)


def _binary_terms(
    dissonance: str,
    h2_output: Any,
    target: Any,
    h1_output: Any,
    *,
    from_logits: bool,
    h1_from_logits: bool,
    label_smoothing: float,
    threshold: float,
) -> InstanceTerms:
    multilabel = not is_binary(h2_output)
    shape = tuple(h2_output.shape)
    if not multilabel:
        shape = shape if len(shape) == 1 else shape[:-1]
        h2_output = as_column(h2_output, shape, "h2's output")
        target = as_column(target, shape, "The target")
        h1_output = as_column(h1_output, shape, "h1's output")
    elif tuple(target.shape)[1:] != shape[1:]:
        raise ValueError(
            f"base='binary_cross_entropy' needs one 0 or 1 for each of h2's {shape[-1]} scores: expected a target of "
            f"shape {shape}; for one class of many use base='cross_entropy'. Received: shape {tuple(target.shape)}."
        )
    else:
        # Keras on TensorFlow remembers the logits of an activation and takes those of a softmax for a sigmoid's; what
        # was computed from it has no such memory.
        h2_output = ops.multiply(h2_output, 1.0)
    target = ops.cast(target, h2_output.dtype)
    goal = target * (1.0 - label_smoothing) + 0.5 * label_smoothing if label_smoothing else target
    base_i = ops.binary_crossentropy(goal, h2_output, from_logits=from_logits)
    if dissonance == "new_error":
        d_i = base_i
    else:
        s1 = ops.sigmoid(h1_output) if h1_from_logits else h1_output
        d_i = ops.binary_crossentropy(s1, h2_output, from_logits=from_logits)
    if dissonance == "imitation":
        support = ops.ones_like(base_i)
    else:
        right = is_positive(h1_output, threshold, h1_from_logits) == ops.cast(target >= 0.5, "int32")
        support = ops.cast(right, base_i.dtype)
    masked = ops.where(support > 0, d_i, 0.0)
    if multilabel:
        # One value per instance, as Keras's own binary losses give it.
        base_i, masked, support = (ops.mean(term, axis=-1) for term in (base_i, masked, support))
    return InstanceTerms(base_i, masked, support, None)


@keras.saving.register_keras_serializable(package="bc_keras")
class CompatibilityLoss(keras.losses.Loss):
    r"""Compatibility loss :math:`\frac1N\sum_i b_i + \lambda_c \frac1N\sum_i c_i d_i` of a batch of outputs.

    :math:`b_i` is the base loss of instance i, :math:`c_i = 1` where h1 is right (its support), and the dissonance
    :math:`d_i` is :math:`b_i` again for ``"new_error"`` or h2's divergence from h1's probabilities for
    ``"strict_imitation"``; ``"imitation"`` is strict imitation on every instance (churn distillation).
    Sources: Bansal et al., AAAI 2019 (new error, strict imitation); Jiang et al., ICLR 2022 (churn distillation).

    Use it where both outputs are at hand, in a training loop of your own, or as ``loss=`` of `BCModel`. It cannot be
    compiled into a plain model, whose losses see the label and h2's output only.

    Args:
        base: ``"nll"``, ``"cross_entropy"``, ``"binary_cross_entropy"`` or ``"kl_divergence"``.
        dissonance: ``"new_error"``, ``"strict_imitation"`` or ``"imitation"``.
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

    Raises:
        TypeError: an option that the base does not have.
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
        dissonance: Dissonance = "new_error",
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
    ) -> None:
        super().__init__(name=name, reduction=_reduction(reduction), dtype=dtype)
        if self.dtype in ("float16", "bfloat16"):
            # Sums of exponentials and of a batch need more.
            super().__init__(name=name, reduction=_reduction(reduction), dtype="float32")
        known(base, get_args(Base), "base")
        known(dissonance, get_args(Dissonance), "dissonance")
        known(normalization, get_args(Normalization), "normalization")
        options = {"label_smoothing": label_smoothing, "ignore_class": ignore_class, "threshold": threshold}
        for option, value in options.items():
            if option not in _OPTIONS[base] and value != _DEFAULTS[option]:
                raise TypeError(
                    f"base={base!r} has no {option}; its options: {', '.join(map(repr, _OPTIONS[base]))}. "
                    f"Received: {option}={value!r}."
                )
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing must lie in 0..1. Received: label_smoothing={label_smoothing!r}.")
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must lie between 0 and 1. Received: threshold={threshold!r}.")
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
            check_lambda(value)
        self._lambda_c = value

    @property
    def labels_suffice(self) -> bool:
        """Whether h1's predicted labels are enough, or its scores are needed."""
        return self.dissonance == "new_error"

    def terms(self, h2_output: Any, target: Any, h1_output: Any) -> InstanceTerms:
        """Base loss, masked dissonance and support of each instance; arguments as in `__call__`."""
        h2_output = ops.cast(h2_output, self.dtype)
        h1_output = ops.cast(self.as_scores(h1_output, h2_output), self.dtype)
        if self.base == "binary_cross_entropy":
            return _binary_terms(
                self.dissonance,
                h2_output,
                target,
                h1_output,
                from_logits=self.from_logits,
                h1_from_logits=self._h1_from_logits,
                label_smoothing=self.label_smoothing,
                threshold=self.threshold,
            )
        if is_binary(h2_output):
            raise ValueError(
                f"base={self.base!r} needs scores over the classes, shape (N, C); for one score per instance use "
                f"base='binary_cross_entropy'. Received: h2's output of shape {tuple(h2_output.shape)}."
            )
        return _multiclass_terms(
            self.base,
            self.dissonance,
            h2_output,
            target,
            h1_output,
            from_logits=self.from_logits,
            h1_from_logits=self._h1_from_logits,
            label_smoothing=self.label_smoothing,
            ignore_class=self.ignore_class,
            epsilon=self.epsilon,
        )

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Loss of each instance; `y_true` holds target, h1's scores and, where there is one, h2's mask."""
        target, h1_output, *mask = y_true
        terms = self.terms(y_pred, target, h1_output)
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
            check_values(h2_output, target, h1_output, self)
        loss = self
        if reduction != "default":
            loss = copy.copy(self)
            loss.reduction = _reduction(reduction)
        # Keras casts all that it hands to `call` to floats, which would make scores of labels.
        mask = get_keras_mask(h2_output)
        y_true = (target, self.as_scores(h1_output, h2_output), *([] if mask is None else [mask]))
        return keras.losses.Loss.__call__(loss, y_true, h2_output, sample_weight)

    def as_scores(self, h1_output: Any, h2_output: Any) -> Any:
        """h1's output as it is, or scores that stand for the labels it gave."""
        if is_float(h1_output):
            return h1_output
        if not self.labels_suffice:
            raise ValueError(
                f"dissonance={self.dissonance!r} imitates h1's probabilities: use dissonance='new_error', or an h1 "
                f"that gives scores. Received: h1's labels of dtype {keras.backend.standardize_dtype(h1_output.dtype)}."
            )
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
        }


class Counted:
    """What counts in the mean over a batch: all entries but those that are masked or ignored."""

    def __init__(self, support: Any, valid: Any, mask: Any = None) -> None:
        self.support = support
        self.valid = valid
        self.mask = None if mask is None else entries_of(ops.cast(mask, support.dtype), support, "The mask")
        counted = [each for each in (self.valid, self.mask) if each is not None]
        self.both = counted[0] * counted[-1] if counted else None

    def support_scale(self, normalization: str) -> Any:
        """Factor that makes the mean over a batch the mean over the support of all replicas: 1 for ``"batch"``."""
        if normalization == "batch":
            return 1.0
        support = self.support if self.both is None else self.support * self.both
        count = ops.cast(ops.size(support), support.dtype) if self.both is None else ops.sum(self.both)
        return count * num_replicas() / ops.maximum(sum_over_replicas(ops.sum(support)), 1.0)

    def valid_scale(self, reduction: str | None) -> Any:
        """Weights that keep ignored entries out of a mean; Keras itself keeps masked ones out of it."""
        if self.valid is None:
            return 1.0
        if reduction not in ("sum_over_batch_size", "mean"):
            return self.valid
        count = ops.cast(ops.size(self.valid), self.valid.dtype) if self.mask is None else ops.sum(self.mask)
        return self.valid * ops.divide_no_nan(count, ops.sum(self.both))


def _tensor(value: Any) -> Any:
    return value if hasattr(value, "dtype") and hasattr(value, "shape") else ops.convert_to_tensor(value)


def is_readable(tensor: Any) -> bool:
    """Whether reading values waits for nothing: on a CPU, and not while a step is traced."""
    if isinstance(tensor, np.ndarray):
        return True
    backend = keras.backend.backend()
    if keras.backend.is_keras_tensor(tensor):
        return False
    if backend == "tensorflow":
        return hasattr(tensor, "numpy") and "CPU" in (getattr(tensor, "device", "") or "CPU")
    if backend == "jax":
        import jax

        if isinstance(tensor, jax.core.Tracer) or not isinstance(tensor, jax.Array):
            return False
        return all(device.platform == "cpu" for device in tensor.devices())
    import torch

    return isinstance(tensor, torch.Tensor) and tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def check_values(h2_output: Any, target: Any, h1_output: Any, loss: CompatibilityLoss) -> None:
    """Refuse empty batches, and NaN, labels outside the classes and logits for probabilities where they can be read."""
    if 0 in tuple(h2_output.shape):
        raise ValueError(f"The batch is empty. Received: h2's output of shape {tuple(h2_output.shape)}.")
    binary = loss.base == "binary_cross_entropy"
    for scores, model, logits in (
        (h2_output, "h2", loss.from_logits),
        (h1_output, "h1", loss._h1_from_logits),
    ):
        if not is_float(scores) or not is_readable(scores):
            continue
        values = ops.convert_to_numpy(scores)
        if not np.isfinite(values).all():
            bad = "NaN" if np.isnan(values).any() else "infinity"
            raise ValueError(
                f"{model} must give finite scores: look for a diverged or half-loaded {model}, or inputs that are NaN. "
                f"Received: {bad} among scores of shape {values.shape}."
            )
        if not logits and (values.min() < -ROUNDING or values.max() > 1 + ROUNDING):
            raise ValueError(
                f"{model} must give probabilities in 0..1; if it gives logits, pass from_logits=True. "
                f"Received: values from {values.min():g} to {values.max():g}."
            )
    if not is_readable(target):
        return
    labels = ops.convert_to_numpy(target)
    # The shapes themselves are checked where the terms are computed.
    if binary and not (labels.min() >= 0 and labels.max() <= 1):
        raise ValueError(f"Binary targets must lie in 0..1. Received: values from {labels.min()} to {labels.max()}.")
    classes = h2_output.shape[-1]
    if binary or is_binary(h2_output) or (labels.ndim == len(h2_output.shape) and labels.shape[-1] == classes):
        return
    outside = (labels < 0) | (labels >= classes)
    if loss.ignore_class is not None:
        outside &= labels != loss.ignore_class
    if outside.any():
        raise ValueError(
            f"The target must hold class indices in 0..{classes - 1}"
            f"{'' if loss.ignore_class is None else f' or ignore_class={loss.ignore_class}'}. "
            f"Received: label {labels[outside][0]} at index {tuple(int(i) for i in np.argwhere(outside)[0])}."
        )


def _reduction(reduction: str | None) -> str | None:
    """Keras's name of a reduction; torch's names mean the same."""
    names = {"batchmean": "sum_over_batch_size", "mean": "sum_over_batch_size", "none": None}
    allowed = (*names, "sum_over_batch_size", "sum", None)
    if reduction not in allowed:
        raise ValueError(
            f"Unknown reduction. Expected one of {', '.join(map(repr, allowed))}. Received: reduction={reduction!r}."
        )
    return names.get(reduction, reduction) if reduction is not None else None
