"""The compiled loss, and the two halves of a `CompatibilityLoss` as Keras losses of their own."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
from keras import ops
from keras.src.backend import get_keras_mask  # public nowhere; JAX keeps masks beside its arrays

from bc_keras.batches._labels import columns_of, is_binary
from bc_keras.losses._compatibility_loss import CompatibilityLoss
from bc_keras.losses._instance_terms import Counted


class Reading(NamedTuple):
    """How the outputs of a batch are to be read."""

    from_logits: bool
    h1_from_logits: bool
    binary: bool
    multilabel: bool
    # The largest of several scores is the same for logits and for probabilities.
    h1_scale_matters: bool = True
    h2_scale_matters: bool = True
    # Whether h1 is read as h2 is, or as its last layer looks, for want of a better witness.
    h1_is_assumed: bool = False
    # Whether scores that are no logits must lie in 0..1.
    h1_is_bounded: bool = True
    h2_is_bounded: bool = True
    is_distance: bool = False  # whether h2's loss is a distance, as that of a regression


@keras.saving.register_keras_serializable(package="bc_keras")
class BaseLoss(keras.losses.Loss):
    """The base of a `CompatibilityLoss` by itself: what is compiled where ``compile`` was given no loss."""

    def __init__(self, criterion: CompatibilityLoss, name: str = "base_loss", **kwargs: Any) -> None:
        super().__init__(name=name, **{"reduction": criterion.reduction, **kwargs})
        self.criterion = criterion
        self.from_logits = criterion.from_logits
        self.label_smoothing = criterion.label_smoothing
        self.ignore_class = criterion.ignore_class

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Base loss of each instance."""
        # Any scores do as h1's: the dissonance is not read.
        terms = self.criterion.terms(y_pred, y_true, ops.stop_gradient(y_pred))
        return terms.base * Counted(terms.support, terms.valid, get_keras_mask(y_pred)).valid_scale(self.reduction)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {**super().get_config(), "criterion": keras.saving.serialize_keras_object(self.criterion)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> BaseLoss:
        """Make the loss of a config."""
        criterion = keras.saving.deserialize_keras_object(config["criterion"])
        return cls(**{**config, "criterion": criterion})


class DissonanceLoss(keras.losses.Loss):
    """The dissonance of a `CompatibilityLoss` by itself, so that Keras masks, weighs, reduces and scales it."""

    def __init__(self, criterion: CompatibilityLoss, reduction: str | None) -> None:
        super().__init__(name="dissonance", reduction=reduction, dtype=criterion.dtype)
        self.criterion = criterion

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Dissonance of each instance; `y_true` is as that of `CompatibilityLoss.call`."""
        target, answers, *mask = y_true
        terms = self.criterion.terms(y_pred, target, *answers)
        counted = Counted(terms.support, terms.valid, *mask)
        values = terms.dissonance * counted.support_scale(self.criterion.normalization)
        return values * counted.valid_scale(self.reduction)


_BASES = (
    *("crossentropy", "ce", "categoricalcrossentropy", "sparsecategoricalcrossentropy", "binarycrossentropy"),
    *("kldivergence", "kullbackleiblerdivergence"),
)
_DISTANCES = ("mean", "mse", "mae", "mape", "msle", "huber", "logcosh", "cosine", "poisson")


class CompiledLoss:
    """What the loss given to ``compile`` says about target and outputs."""

    def __init__(self, loss: Any) -> None:
        config: dict[str, Any] = {}
        if isinstance(loss, str) and loss not in ("crossentropy", "ce", "accuracy", "acc"):
            loss = keras.losses.get(loss)  # "bce" is binary_crossentropy
        name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
        from_keras = isinstance(loss, str) or getattr(loss, "__module__", "").split(".")[0] == "keras"
        if isinstance(loss, keras.losses.Loss):
            from_keras = type(loss).__module__.split(".")[0] == "keras"
            options = ("from_logits", "label_smoothing", "ignore_class")
            config = {option: getattr(loss, option) for option in options if hasattr(loss, option)}
        name = name.replace("_", "").lower()
        # Scores that turn at 0, and are neither probabilities nor logits.
        self.is_margin = from_keras and "hinge" in name
        # Scores that are near the target, and may lie beyond it.
        self.is_distance = from_keras and name.startswith(_DISTANCES)
        # Keras's own losses take probabilities unless they say otherwise; of a loss of the user's nothing is known.
        known = from_keras and not self.is_margin
        self.from_logits: bool | None = config.get("from_logits", False if known else None)
        self.label_smoothing: float = config.get("label_smoothing", 0.0)
        self.ignore_class: int | None = config.get("ignore_class")
        self.from_keras = from_keras
        self.binary = (
            isinstance(loss, keras.losses.BinaryCrossentropy | keras.losses.BinaryFocalCrossentropy)
            or (from_keras and name.startswith("binary"))
            or (isinstance(loss, BaseLoss) and loss.criterion.base == "binary_cross_entropy")
        )
        # Whether it is one of the bases of a `CompatibilityLoss`, and nothing else.
        self.is_plain_base = from_keras and name in _BASES
        self.divergence = name.startswith(("kld", "kullback")) or name == "kldivergence"
        self.generalized = from_keras and "generalized" in name
        self.sparse: bool | None = None
        if from_keras and "crossentropy" in name and "categorical" in name:
            # The generalized one takes class indices, whatever its name says.
            self.sparse = name.startswith("sparse") or "generalized" in name
        self.reduction: str | None = getattr(loss, "reduction", "sum_over_batch_size")

    @classmethod
    def of(cls, loss: Any) -> CompiledLoss:
        """What the one loss of ``compile(loss=...)`` says."""
        losses = keras.tree.flatten(loss)
        if len(losses) != 1:
            raise ValueError(
                f"A compatible update has one output and one loss. Received: {len(losses)} losses in compile()."
            )
        return cls(losses[0])


def check_target_form(target: Any, h2_output: Any, facts: CompiledLoss) -> None:
    """Refuse one-hot rows where class indices are expected, and the other way round."""
    shape, classes = tuple(target.shape), columns_of(h2_output)
    if len(shape) > 1 and shape[-1] in (1 + classes, 2 * classes) and len(shape) == max(len(h2_output.shape), 2):
        raise ValueError(
            "This label carries h1's outputs beside it, as `attach_h1` makes it: a BCModel that asks h1 itself takes "
            f"the plain label; else pass the stored outputs as h1. Received: a target of shape {shape}."
        )
    if is_binary(h2_output) or facts.sparse is None:
        return
    one_hot = len(shape) == len(h2_output.shape) and shape[-1] == classes
    if facts.generalized and not one_hot and len(shape) == len(h2_output.shape):
        raise ValueError(
            "Keras's generalized cross-entropy takes class indices of shape (N,), and reads a label of shape (N, 1) "
            f"against every row of the batch: pass y[:, 0]. Received: a target of shape {shape}."
        )
    if facts.sparse and one_hot:
        raise ValueError(
            "The compiled loss takes class indices of shape (N,), the target is one-hot: compile "
            f"'categorical_crossentropy', or pass y.argmax(-1). Received: a target of shape {shape}."
        )
    if not facts.sparse and not one_hot:
        raise ValueError(
            f"The compiled loss takes one-hot rows of shape (N, {classes}), the target holds class indices: compile "
            f"'sparse_categorical_crossentropy', or pass keras.ops.one_hot(y, {classes}). "
            f"Received: a target of shape {shape}."
        )
