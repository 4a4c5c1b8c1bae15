"""The eight named losses: a `CompatibilityLoss` that runs the two models itself, ``loss(x, y)``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import keras
from keras import ops

from bc_core.losses._documentation import NAMED_LOSSES, doc_of_named_loss
from bc_core.losses._options import Base, DissonanceName, only_known_options
from bc_keras.batches._labels import columns_of, target_classes
from bc_keras.losses._compatibility_loss import BASE_OPTIONS, CompatibilityLoss
from bc_keras.reference._reference import Reference, only_tensor
from bc_keras.reference._shared_variables import check_no_shared_variables
from bc_keras.reference._stored import StoredOutputs

_COMMON = ("normalization", "from_logits", "h1_from_logits", "validate_args", "reduction", "name", "dtype")


_MODELS = """\
Models return probabilities (N, C), or logits with ``from_logits=True``; y holds class indices or one-hot rows."""
_EXAMPLE = """\
>>> import keras, numpy as np
>>> from bc_keras import {name}
>>> h1, h2 = (keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")]) for _ in range(2))
>>> loss = {name}(h1, h2, lambda_c=0.5)
>>> bool(loss(np.ones((2, 4)), np.array([0, 2])) > 0)
True"""
_MODELS_AND_EXAMPLE = {
    "nll": (f"{_MODELS}\nProbabilities are clipped from below at ``clip_value_min`` (1e-10).", _EXAMPLE),
    "cross_entropy": (_MODELS, _EXAMPLE),
    "binary_cross_entropy": (
        """\
Models return sigmoid probabilities of shape (N,) or (N, 1), or (N, L) for L labels, each with a 0 or 1 in y; logits
with ``from_logits=True``. Class 1 is predicted from ``discriminant_pivot`` on.""",
        _EXAMPLE.replace('Dense(3, "softmax")', 'Dense(1, "sigmoid")').replace("[0, 2]", "[0, 1]"),
    ),
    "kl_divergence": (_MODELS, _EXAMPLE),
}


class ModelLoss(keras.losses.Loss):
    """A `CompatibilityLoss` that runs h1 and h2 once each: ``loss(x, y)``.

    For training loops of your own and for `bc_fit`. To ``compile`` and ``fit``, give it to `BCModel` as ``loss=``; a
    loss in a plain model's ``compile`` sees no inputs.

    Args:
        h1: the reference: a Keras model or any callable. It is run in inference mode, without gradients.
        h2: the model that is being updated.
        lambda_c: weight of the dissonance, >= 0, not capped at 1.
        class_map: for an h1 with other classes than h2: ``class_map[i]`` is h2's index of h1's class i, or -1.
        options: ``from_logits`` (default `False`: models return probabilities, as in Keras), ``normalization`` and the
            other options of `CompatibilityLoss` that the base has, ``reduction`` among them: ``"sum"`` is what most of
            these losses were in BackwardCompatibilityML on TensorFlow.

    Raises:
        TypeError: an unknown option; the message lists the known ones.
        ValueError: h1 and h2 share variables, h1 has no weights yet, or a negative lambda_c.
    """

    base: ClassVar[Base]
    dissonance: ClassVar[DissonanceName]
    more_options: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__name__ in NAMED_LOSSES and cls.__module__ == __name__:
            cls.base, cls.dissonance = NAMED_LOSSES[cls.__name__]  # type: ignore[assignment]
            cls.__doc__ = doc_of_named_loss(cls.__name__, *_MODELS_AND_EXAMPLE[cls.base])
            keras.saving.register_keras_serializable(package="bc_keras")(cls)

    def __init__(
        self,
        h1: keras.Model | Callable[..., Any],
        h2: keras.Model | Callable[..., Any],
        lambda_c: Any,
        *,
        class_map: Sequence[Any] | Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.criterion = self.on_outputs(lambda_c, **options)
        super().__init__(name=self.criterion.name, reduction=self.criterion.reduction, dtype=self.criterion.dtype)
        self.reference = Reference(h1, class_map)
        if isinstance(h1, StoredOutputs):
            raise TypeError(
                f"{type(self).__name__} runs h1 on x. For stored outputs train with "
                f"BCModel(h2, h1=stored, loss={type(self).__name__!r}). Received: h1={h1!r}."
            )
        if isinstance(h2, keras.Layer):
            check_no_shared_variables(h1, h2)
        self.h2 = h2
        self._options = options

    @property
    def h1(self) -> Any:
        """The reference model, as it was given."""
        return self.reference.h1

    @property
    def lambda_c(self) -> Any:
        """Weight of the dissonance, >= 0."""
        return self.criterion.lambda_c

    @lambda_c.setter
    def lambda_c(self, value: Any) -> None:
        self.criterion.lambda_c = value

    def __call__(
        self, x: Any, y: Any, sample_weight: Any = None, reduction: str | None = "default", training: bool = True
    ) -> Any:
        """Loss of h2 on inputs x, shape (N, ...), and targets y, shape (N,), (N, 1) or one-hot (N, C).

        `sample_weight` is of shape (N,), `reduction` as in `CompatibilityLoss`; `training` is h2's mode.
        """
        output = self.h2(x, training=training) if isinstance(self.h2, keras.Layer) else self.h2(x)
        h2_output = only_tensor(output, "h2")
        classes = columns_of(h2_output)
        self._check_classes(classes)
        multilabel = self.criterion.base == "binary_cross_entropy"
        logits, taught = self.criterion._h1_from_logits, None
        h1_output = self.reference(x, classes, logits, multilabel)
        if self.reference.class_map is not None and self.reference.class_map.parts:
            labels = target_classes(ops.convert_to_tensor(y), tuple(h2_output.shape)[:-1], classes)
            # Whether h1 is right is told by the whole, what is imitated is divided.
            if not self.criterion.labels_suffice:
                taught = self.reference.to_imitate(h1_output, h2_output, logits, self.criterion.from_logits)
            h1_output = self.reference.for_support(h1_output, labels, logits)
        return self.criterion(h2_output, y, h1_output, sample_weight, reduction, taught)

    def _check_classes(self, classes: int) -> None:
        """Refuse an h2 that does not have the number of classes that was announced."""

    @classmethod
    def on_outputs(cls, lambda_c: Any, **options: Any) -> CompatibilityLoss:
        """The same loss on outputs instead of models, with this class's options and defaults."""
        own = sorted(name.replace("threshold", "discriminant_pivot") for name in BASE_OPTIONS[cls.base])
        only_known_options(options, (*own, *cls.more_options, *_COMMON, "class_map"), cls.__name__)
        options.setdefault("name", cls.__name__)
        return CompatibilityLoss(cls.base, cls.dissonance, lambda_c, **cls._options_of_criterion(options))

    @classmethod
    def _options_of_criterion(cls, options: dict[str, Any]) -> dict[str, Any]:
        return options

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor. As in all of Keras, a config holds models without their weights."""
        serialize = keras.saving.serialize_keras_object
        return {
            **self._options,
            "h1": serialize(self.h1),
            "h2": serialize(self.h2),
            "lambda_c": self.criterion.get_config()["lambda_c"],
            "class_map": None if self.reference.class_map is None else self.reference.class_map.as_given(),
            "name": self.name,
            "reduction": self.reduction,
            "dtype": self.dtype,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ModelLoss:
        """Make the loss of a config, with models that have fresh weights."""
        models = {name: keras.saving.deserialize_keras_object(config[name]) for name in ("h1", "h2")}
        return cls(**{**config, **models})


class _NLL(ModelLoss):
    more_options = ("clip_value_min", "clip_value_max")

    def __init__(
        self,
        h1: Any,
        h2: Any,
        lambda_c: Any,
        clip_value_min: float = 1e-10,
        clip_value_max: float = 4.0,
        **options: Any,
    ) -> None:
        super().__init__(h1, h2, lambda_c, clip_value_min=clip_value_min, clip_value_max=clip_value_max, **options)

    @classmethod
    def _options_of_criterion(cls, options: dict[str, Any]) -> dict[str, Any]:
        options = dict(options)
        if options.pop("clip_value_max", 4.0) < 1:
            raise ValueError("clip_value_max must be at least 1: a probability below it is none to clip.")
        return {"epsilon": options.pop("clip_value_min", 1e-10), **options}


class _BinaryCrossEntropy(ModelLoss):
    def __init__(self, h1: Any, h2: Any, lambda_c: Any, discriminant_pivot: float = 0.5, **options: Any) -> None:
        super().__init__(h1, h2, lambda_c, discriminant_pivot=discriminant_pivot, **options)

    @classmethod
    def _options_of_criterion(cls, options: dict[str, Any]) -> dict[str, Any]:
        options = dict(options)
        return {"threshold": options.pop("discriminant_pivot", 0.5), **options}


class _KLDivergence(ModelLoss):
    more_options = ("num_classes",)

    def __init__(self, h1: Any, h2: Any, lambda_c: Any, num_classes: int | None = None, **options: Any) -> None:
        super().__init__(h1, h2, lambda_c, num_classes=num_classes, **options)
        self.num_classes = num_classes

    @classmethod
    def _options_of_criterion(cls, options: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in options.items() if name != "num_classes"}

    def _check_classes(self, classes: int) -> None:
        if self.num_classes not in (None, classes):
            raise ValueError(
                f"num_classes must be the number of columns of h2's output, {classes}. "
                f"Received: num_classes={self.num_classes}."
            )


# Their definition and the rest of their docstrings come from the tables in `bc_core.losses`.


class BCNLLLoss(_NLL):
    """New error on the negative log-likelihood."""


class BCCrossEntropyLoss(ModelLoss):
    """New error on the cross-entropy."""


class BCBinaryCrossEntropyLoss(_BinaryCrossEntropy):
    """New error on the binary cross-entropy."""


class BCKLDivergenceLoss(_KLDivergence):
    """New error on the Kullback-Leibler divergence."""


class StrictImitationNLLLoss(_NLL):
    """Strict imitation on the negative log-likelihood."""


class StrictImitationCrossEntropyLoss(ModelLoss):
    """Strict imitation on the cross-entropy."""


class StrictImitationBinaryCrossEntropyLoss(_BinaryCrossEntropy):
    """Strict imitation on the binary cross-entropy."""


class StrictImitationKLDivergenceLoss(_KLDivergence):
    """Strict imitation on the Kullback-Leibler divergence."""


# The original library's spellings on TensorFlow.
BCKLDivLoss = BCKLDivergenceLoss
BCStrictImitationNLLLoss = StrictImitationNLLLoss
BCStrictImitationCrossEntropyLoss = StrictImitationCrossEntropyLoss
BCStrictImitationBinaryCrossEntropyLoss = StrictImitationBinaryCrossEntropyLoss
BCStrictImitationKLDivLoss = StrictImitationKLDivergenceLoss

MODEL_LOSSES: dict[str, type[ModelLoss]] = {
    "BCKLDivLoss": BCKLDivergenceLoss,
    "BCStrictImitationNLLLoss": StrictImitationNLLLoss,
    "BCStrictImitationCrossEntropyLoss": StrictImitationCrossEntropyLoss,
    "BCStrictImitationBinaryCrossEntropyLoss": StrictImitationBinaryCrossEntropyLoss,
    "BCStrictImitationKLDivLoss": StrictImitationKLDivergenceLoss,
    **{
        loss.__name__: loss
        for loss in (
            BCNLLLoss,
            BCCrossEntropyLoss,
            BCBinaryCrossEntropyLoss,
            BCKLDivergenceLoss,
            StrictImitationNLLLoss,
            StrictImitationCrossEntropyLoss,
            StrictImitationBinaryCrossEntropyLoss,
            StrictImitationKLDivergenceLoss,
        )
    },
}
