"""`BCModel`: any Keras model, trained and evaluated against h1 by ordinary compile and fit."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import keras
import numpy as np
from keras import ops
from keras.src.backend import get_keras_mask  # public nowhere; JAX keeps masks beside its arrays

from bc_core import check_lambda
from bc_keras._attached import HOW_TO_ATTACH_STORED, check_columns, split_reference
from bc_keras._compatibility_loss import (
    Base,
    CompatibilityLoss,
    Counted,
    Dissonance,
    Normalization,
    known,
)
from bc_keras._compiled_loss import BaseLoss, CompiledLoss, DissonanceLoss, Reading, check_target_form
from bc_keras._distribution import num_replicas
from bc_keras._labels import Labels, check_is_classification, columns_of, entries_of, is_binary, read_labels
from bc_keras._losses import MODEL_LOSSES, ModelLoss
from bc_keras._metrics import OverlapMetric, check_names, fed_by_model
from bc_keras._output_watch import Looking, OutputWatch, looked_at
from bc_keras._reference import Reference, check_no_shared_variables, only_tensor
from bc_keras._score_scale import Seen, activation_of, check_scales, reading_of, said_by
from bc_keras._stored import StoredOutputs
from bc_keras._weighted_loss import weighted_loss


@keras.saving.register_keras_serializable(package="bc_keras")
class BCModel(keras.Model):
    r"""Train h2 against the frozen h1: :math:`L = base + \lambda_c \cdot dissonance`.

    The base is the loss that you compile. h1 and h2 run once per step each; h1 in inference mode and without
    gradients, whatever ``trainable`` is set to. Everything else is Keras's own: ``compile``, ``fit``, ``evaluate``,
    ``predict`` (h2's predictions), callbacks, sample and class weights, mixed precision, ``jit_compile``,
    ``steps_per_execution``, distribution strategies. ``model.h2`` is your model, for production; ``export`` exports it.

    ``fit`` logs ``loss``, ``base_loss`` and ``dissonance`` (the first is the second plus lambda_c times the third), and
    the metrics of ``compile``, among which `BTC`, `BEC` and their kin see h1's predictions.

    Args:
        h2: the model that is being updated, of any kind, with one output: class scores (N, C), or one score per
            instance or label.
        h1: the model in use: a built Keras model, any callable of the inputs, or `StoredOutputs` (then train on
            ``h1.attach(x, y)`` or ``h1.attach(dataset)``).
        lambda_c: weight of the dissonance, >= 0, not capped at 1; `LambdaScheduler` makes it a schedule.
        dissonance: ``"new_error"`` (default: the compiled loss again, where h1 is right, which must have a value per
            instance), ``"strict_imitation"`` (h1's
            probabilities there) or ``"imitation"`` (h1's probabilities everywhere).
        loss: instead of `dissonance` one of the eight named losses, by name or class, or a `CompatibilityLoss`: its
            dissonance is trained, and its base where ``compile`` is given no loss.
        normalization: ``"batch"`` (default) divides the dissonance by the number of instances, ``"support"`` by the
            number that h1 gets right, counted over all replicas.
        from_logits: whether h2 gives logits. Defaults to `None`: what the compiled loss says, or a last activation that
            gives probabilities.
        h1_from_logits: the same for h1's output. Defaults to `None`: what h1's own compiled loss or its last activation
            says, and where neither is to be seen, as h2's. Values that cannot be that are refused.
        threshold: a binary score is class 1 from this probability on. Defaults to `None`, 0.5 or what `loss` says.
        multilabel: whether each column is a label of its own, 0 or 1. Defaults to `None`: where the compiled loss is
            one of Keras's binary losses.
        class_map: for an h1 with other classes: ``class_map[i]`` is h2's index of h1's class i, or -1.
        name: name of the model.

    Raises:
        TypeError: h1 is missing, or is nothing that answers; h2 has a ``train_step``, ``test_step``,
            ``compute_loss`` or ``compute_metrics`` of its own, which would not run; an argument against `loss`.
        ValueError: an h1 without weights, an h1 that shares variables with h2, a negative lambda_c, an unknown name.

    Example:
        >>> import keras, numpy as np
        >>> from bc_keras import BEC, BTC, BCModel
        >>> def net():
        ...     return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
        >>> h1, h2 = net(), net()
        >>> model = BCModel(h2, h1=h1, lambda_c=2.0)
        >>> model.compile("sgd", loss="sparse_categorical_crossentropy", metrics=["accuracy", BTC(), BEC()])
        >>> x, y = np.random.default_rng(0).normal(size=(32, 4)), np.arange(32) % 3
        >>> history = model.fit(x, y, verbose=0)
        >>> sorted(history.history)
        ['accuracy', 'base_loss', 'bec_given_h1_wrong', 'btc', 'dissonance', 'loss']
    """

    def __init__(
        self,
        h2: keras.Model,
        h1: keras.Model | Callable[..., Any] | StoredOutputs | None = None,
        lambda_c: float | None = None,
        dissonance: Dissonance | None = None,
        loss: str | CompatibilityLoss | ModelLoss | type[ModelLoss] | None = None,
        *,
        normalization: Normalization | None = None,
        from_logits: bool | None = None,
        h1_from_logits: bool | None = None,
        threshold: float | None = None,
        multilabel: bool | None = None,
        class_map: Sequence[int] | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(h2, keras.Model):
            raise TypeError(f"h2 must be a Keras model, the one that is being updated. Received: h2={h2!r}.")
        if h1 is None:
            raise TypeError("h1 is missing: pass the model in use, BCModel(h2, h1=old_model). Received: h1=None.")
        if isinstance(h2, BCModel):
            raise TypeError("h2 is a BCModel already: pass its own h2, BCModel(model.h2, h1=...).")
        if dissonance is not None and loss is not None:
            raise TypeError(
                f"Pass dissonance or loss, which has one. Received: dissonance={dissonance!r}, loss={loss!r}."
            )
        _check_no_own_step(h2)
        if callable(lambda_c):
            raise TypeError(
                "lambda_c must be a number; a schedule goes to a callback, LambdaScheduler(schedule). "
                f"Received: lambda_c={lambda_c!r}."
            )
        # What is computed here is h2's, so inputs are cast by h2 alone, and loss scaling follows its policy.
        super().__init__(name=name, dtype=kwargs.pop("dtype", h2.dtype_policy), autocast=False, **kwargs)
        if normalization is not None:
            known(normalization, get_args(Normalization), "normalization")
        self._dissonance_name: Dissonance = "new_error" if dissonance is None else dissonance
        known(self._dissonance_name, get_args(Dissonance), "dissonance")
        if lambda_c is None:
            has_one = isinstance(loss, CompatibilityLoss | ModelLoss)
            lambda_c = float(ops.convert_to_numpy(loss.lambda_c)) if has_one else 1.0  # type: ignore[union-attr]
        check_lambda(lambda_c)
        self._arguments = {
            "normalization": normalization,
            "from_logits": from_logits,
            "h1_from_logits": h1_from_logits,
            "threshold": threshold,
            "multilabel": multilabel,
        }
        self._normalization: Normalization = "batch" if normalization is None else normalization
        self._from_logits = from_logits
        self._h1_from_logits = h1_from_logits
        self._threshold = 0.5 if threshold is None else threshold
        self._multilabel = multilabel
        self._loss_argument = loss
        self._criterion = self._criterion_of(loss)
        if self._criterion is not None:
            self._agree_with(self._criterion, explicit=isinstance(loss, CompatibilityLoss | ModelLoss))
        if class_map is None and isinstance(loss, ModelLoss):
            class_map = loss.reference.class_map  # type: ignore[misc]  # an instance, here as elsewhere
        self._base: Any = None
        self._h1_has_fresh_weights = False
        self._compatibility_metrics: list[tuple[OverlapMetric, bool]] = []
        self._reference = Reference(h1, class_map)
        check_no_shared_variables(h1, h2)
        self.h2 = h2
        # Tracked, so that it is saved and, on JAX, an input of the compiled step and not a constant in it.
        self.h1 = h1
        # A variable: a number would be frozen into the compiled step.
        self._lambda_c = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(lambda_c),
            dtype="float32",
            trainable=False,
            aggregation="only_first_replica",
            name="lambda_c",
        )
        self._base_loss_tracker = keras.metrics.Mean(name="base_loss")
        self._dissonance_tracker = keras.metrics.Mean(name="dissonance")
        self._training_watch = OutputWatch("training_watch", "so begin again with an h2 as it was before")
        self._testing_watch = OutputWatch("testing_watch", "so what was measured is of no use")
        if h2.built:
            self.built = True
        self._models_are_set = True

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; another h1 or h2 needs another model."""
        if name in ("h1", "h2") and getattr(self, "_models_are_set", False):
            raise AttributeError(
                f"{name} cannot be replaced, as checks and compiled steps depend on it: wrap anew, BCModel(h2, h1=...)."
            )
        super().__setattr__(name, value)

    def _agree_with(self, criterion: CompatibilityLoss, explicit: bool) -> None:
        """Take from a loss that was made by the user what it says, and refuse an argument that says otherwise."""
        given = {**self._arguments, "multilabel": None}
        if explicit:
            options = {"normalization", "from_logits"} | (
                {"threshold"} if criterion.base == "binary_cross_entropy" else set()
            )
            for option in options:
                if given[option] not in (None, getattr(criterion, option)):
                    raise TypeError(
                        f"{option} contradicts the loss, which has one of its own: leave it out here. Received: "
                        f"{option}={given[option]!r}, loss with {option}={getattr(criterion, option)!r}."
                    )
            self._normalization = criterion.normalization
        self._threshold = criterion.threshold

    # What is trained

    @property
    def lambda_c(self) -> float:
        """Weight of the dissonance, >= 0; may be set at any time."""
        return float(ops.convert_to_numpy(self._lambda_c))

    @lambda_c.setter
    def lambda_c(self, value: float) -> None:
        check_lambda(value)
        self._lambda_c.assign(value)

    @property
    def dissonance(self) -> str:
        """How h2 is held to h1: ``"new_error"``, ``"strict_imitation"`` or ``"imitation"``."""
        return str(self._dissonance_name if self._criterion is None else self._criterion.dissonance)

    @property
    def trainable(self) -> bool:
        """Whether h2 is trained. h1 never is."""
        return bool(self._trainable)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = bool(value)
        if hasattr(self, "h2"):
            self.h2.trainable = bool(value)

    @property
    def trainable_variables(self) -> list[Any]:
        """h2's; those of h1 are never among them, also if h1's own ``trainable`` was set."""
        return list(self.h2.trainable_variables) if self.trainable else []

    @property
    def trainable_weights(self) -> list[Any]:
        """As `trainable_variables`."""
        return list(self.h2.trainable_weights) if self.trainable else []

    @property
    def non_trainable_variables(self) -> list[Any]:
        """All that no optimiser may change: those of h2, all of h1's, and lambda_c."""
        return _without(self.variables, self.trainable_variables)

    @property
    def non_trainable_weights(self) -> list[Any]:
        """As `non_trainable_variables`, without the states of random generators."""
        return _without(self.weights, self.trainable_weights)

    # The model is h2

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """h2's output."""
        return self.h2(inputs, training=training, mask=mask) if mask is not None else self.h2(inputs, training=training)

    @property
    def output_names(self) -> list[str]:
        """Names of h2's outputs, for ``loss={name: ...}``; an AttributeError where it has none."""
        names: list[str] = self.h2.output_names
        return names

    def compute_output_shape(self, input_shape: Any) -> Any:
        """h2's output shape."""
        return self.h2.compute_output_shape(input_shape)

    def export(self, filepath: str, *args: Any, **kwargs: Any) -> None:
        """Export h2 for production; h1 stays behind."""
        self.h2.export(filepath, *args, **kwargs)

    # Training and evaluation

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        """Compile as any Keras model; `loss` is the base, and the metrics of this package see h1's predictions.

        Raises:
            ValueError: no loss was given here, nor to the constructor; a `CompatibilityLoss` as the base.
        """
        for given in keras.tree.flatten(loss):
            if isinstance(given, CompatibilityLoss | ModelLoss):
                raise ValueError(
                    f"The loss of compile() is the base, such as 'sparse_categorical_crossentropy'. Give a "
                    f"compatibility loss to the model: BCModel(h2, h1=h1, loss=...). Received: loss={given!r}."
                )
        metrics, weighted_metrics = (keras.tree.map_structure(_made, given) for given in (metrics, weighted_metrics))
        if loss is None and self._criterion is None:
            raise ValueError(
                "compile() needs a loss, the base that is trained together with the dissonance, such as "
                "loss='sparse_categorical_crossentropy'. Received: loss=None."
            )
        self._base = BaseLoss(self._criterion) if loss is None and self._criterion is not None else loss
        says = CompiledLoss.of(self._base).from_logits
        if isinstance(self._loss_argument, CompatibilityLoss | ModelLoss):
            wanted = None if self._criterion is None else self._criterion.from_logits
            if None not in (says, wanted) and says != wanted:
                raise ValueError(
                    "The compiled loss and the compatibility loss read h2's output differently: give both the same "
                    f"from_logits. Received: from_logits={says} in compile(), {wanted} in the compatibility loss."
                )
        check_names(
            metric
            for given in (metrics, weighted_metrics)
            for metric in keras.tree.flatten(given)
            if isinstance(metric, OverlapMetric)
        )
        self._loss_weight = (keras.tree.flatten(loss_weights) or [None])[0]
        super().compile(
            optimizer=optimizer,
            loss=self._base,
            loss_weights=loss_weights,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            **kwargs,
        )
        self._dissonance_loss: keras.losses.Loss | None = None
        self._compatibility_metrics = [
            (metric, weighted)
            for given, weighted in ((metrics, False), (weighted_metrics, True))
            for metric in keras.tree.flatten(given)
            if isinstance(metric, OverlapMetric)
        ]

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as the saved model was."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    def fit(self, *args: Any, class_weight: Any = None, **kwargs: Any) -> Any:
        """Train, as `keras.Model.fit`."""
        self._check_h1_has_weights()
        if class_weight is not None and self._reference.stored is not None:
            raise ValueError(
                "Keras reads class_weight from the label, beside which h1's stored outputs stand here: pass it to "
                "`h1.attach(..., class_weight=...)` instead. Received: class_weight in fit()."
            )
        kwargs["class_weight"] = class_weight
        if not self.compiled:
            return super().fit(*args, **kwargs)  # Keras says what is missing
        given = dict(zip(("x", "y"), args, strict=False)) | kwargs
        validation = given.get("validation_data")
        for labels in (
            given.get("y"),
            validation[1] if isinstance(validation, tuple) and len(validation) > 1 else None,
        ):
            self._check_labels(labels)
        self._check_h1(given.get("x"), given.get("batch_size") or 32)
        return looked_at(super().fit, args, kwargs, self._looking())

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate, as `keras.Model.evaluate`."""
        self._check_h1_has_weights()
        if self.compiled:
            self._check_labels((dict(zip(("x", "y"), args, strict=False)) | kwargs).get("y"))
        return looked_at(super().evaluate, args, kwargs, self._looking())

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Train on one batch, as `keras.Model.train_on_batch`."""
        result = super().train_on_batch(*args, **kwargs)
        self._training_watch.look()
        return result

    def test_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate one batch, as `keras.Model.test_on_batch`."""
        result = super().test_on_batch(*args, **kwargs)
        self._testing_watch.look()
        return result

    def _looking(self) -> Looking:
        return Looking(self._training_watch, self._testing_watch)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The compiled loss plus lambda_c times the dissonance; h1 is asked here, once per batch."""
        h2_output = only_tensor(y_pred, "h2")
        target, h1_output = self._target_and_stored(y, h2_output)
        facts = CompiledLoss.of(self._base)
        check_target_form(target, h2_output, facts)
        if len(h2_output.shape) == 1:
            # Keras's binary losses average over the last axis, which here holds the instances.
            y_pred = h2_output = ops.expand_dims(h2_output, -1)
            target = ops.expand_dims(target, -1) if len(target.shape) == 1 else target
        # First: a call of h1 would add its activity regularisation to h2's loss.
        base = super().compute_loss(x, target, y_pred, sample_weight, training)
        columns = columns_of(h2_output)
        reading = self._reading(h2_output)
        is_live = h1_output is None
        if is_live:
            h1_output = self._reference(x, columns, reading.h1_from_logits)
        elif self._reference.class_map is not None:
            h1_output = self._reference.in_classes_of_h2(h1_output, columns, reading.h1_from_logits)
        watch = self._training_watch if training else self._testing_watch
        watch.note(target, h1_output, h2_output, reading, is_live)
        mask = get_keras_mask(h2_output)
        dissonance = self._dissonance(target, y_pred, h1_output, sample_weight, reading, mask)
        batch_size = ops.shape(h2_output)[0]
        # Keras divides a loss by the number of replicas, whose gradients are summed; a log shows the mean.
        self._base_loss_tracker.update_state(base * num_replicas(), sample_weight=batch_size)
        self._dissonance_tracker.update_state(dissonance * num_replicas(), sample_weight=batch_size)
        # Here and not in compute_metrics, which on JAX runs when h1's answers of this step are gone.
        read: dict[float, Labels] = {}
        for metric, weighted in self._compatibility_metrics:
            if metric.multilabel and not reading.multilabel:
                raise ValueError(
                    f"The metric {metric.name!r} is multilabel and the model is not: pass BCModel(..., "
                    "multilabel=True), which tells every metric. Received: multilabel=True in the metric."
                )
            threshold = self._threshold if metric.threshold is None else metric.threshold
            if threshold not in read:
                read[threshold] = self._labels(target, h2_output, h1_output, reading, threshold)
            labels, counted = read[threshold], mask
            if facts.ignore_class is not None and metric.ignore_class is None:
                seen = labels.target != facts.ignore_class
                counted = (
                    seen
                    if mask is None
                    else ops.logical_and(seen, ops.cast(entries_of(mask, seen, "The mask"), "bool"))
                )
            metric.update_labels(labels, sample_weight if weighted else None, counted)
        return base + ops.cast(self._lambda_c.value, base.dtype) * dissonance

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Update the user's own metrics; those of this package were updated with h1's answers already."""
        target, _ = self._target_and_stored(y, only_tensor(y_pred, "h2"))
        with fed_by_model():
            results: dict[str, Any] = super().compute_metrics(x, target, y_pred, sample_weight)
        return results

    def _check_labels(self, y: Any) -> None:
        """Refuse labels that h2 has no score for; JAX and XLA would train on without a word."""
        try:
            shape = self.h2.output_shape
            classes = shape[-1] if len(shape) > 1 else 1
        except (AttributeError, ValueError, TypeError):
            return  # a subclassed h2 that was not called yet
        if not isinstance(y, np.ndarray) or y.size == 0 or y.dtype.kind not in "iuf" or classes is None:
            return
        if self._reference.stored is not None:
            # Here already: on TensorFlow a step that failed while it was traced cannot be traced again.
            self._target_and_stored(y, np.empty((1, *[1] * (len(shape) - 2), classes)))
            return
        facts = CompiledLoss.of(self._base)
        check_is_classification(y, shape, facts.is_distance)
        if facts.binary and facts.from_keras and not (y.min() >= 0 and y.max() <= 1):
            raise ValueError(f"Binary targets must lie in 0..1. Received: values from {y.min()} to {y.max()}.")
        if not facts.sparse or not (y.ndim == len(shape) - 1 or y.shape[-1] == 1):
            return  # a loss of the user's own may have its own marks
        outside = (y < 0) | (y >= classes) | (y != np.rint(y))
        if facts.ignore_class is not None:
            outside &= y != facts.ignore_class
        if outside.any():
            raise ValueError(
                f"The target must hold class indices in 0..{classes - 1}, the classes that h2 scores. Received: "
                f"label {y[outside][0]} at index {int(np.argwhere(outside)[0][0])}."
            )

    def _check_h1_has_weights(self) -> None:
        if self._h1_has_fresh_weights:
            raise ValueError(
                "h1 was made anew from a config, as clone_model does, so its weights are those of no model in use: "
                "wrap anew, BCModel(h2, h1=old_model), or load weights first."
            )

    def load_own_variables(self, store: Any) -> None:
        """Load lambda_c; Keras loads the weights of both models beside it."""
        super().load_own_variables(store)
        self._h1_has_fresh_weights = False

    def set_weights(self, weights: Any) -> None:
        """Set the weights of both models, and lambda_c."""
        super().set_weights(weights)
        self._h1_has_fresh_weights = False

    def _check_h1(self, x: Any, batch_size: int) -> None:
        """Ask h1 about a batch first: inside the compiled step nobody looks at its values."""
        if not isinstance(x, np.ndarray) or not len(x) or self._reference.stored is not None:
            return
        if any(getattr(layer, "stateful", False) for layer in keras.tree.flatten(getattr(self.h1, "layers", []))):
            return  # being asked would change its state
        try:
            first = ops.convert_to_tensor(x[:batch_size], dtype=keras.config.floatx() if x.dtype.kind == "f" else None)
            answer = ops.convert_to_numpy(self._reference(first))
        except Exception:
            return  # not to be asked outside the compiled step; there it will answer, or say why not
        if answer.dtype.kind != "f":
            return
        if not np.isfinite(answer).all():
            raise ValueError(
                "h1 must give finite scores: look for a half-loaded h1, or inputs that are NaN. Received: "
                f"{'NaN' if np.isnan(answer).any() else 'infinity'} for one of the first {len(answer)} instances."
            )
        try:
            reading = self._reading(np.empty((1, 1) if answer.ndim == 1 else (1, *answer.shape[1:])))
        except ValueError:
            return  # the step will say so, with h2's output at hand
        check_scales(reading, Seen.of(answer))

    def _target_and_stored(self, y: Any, h2_output: Any) -> tuple[Any, Any]:
        if y is None or len(keras.tree.flatten(y)) != 1:
            raise ValueError(
                "A compatible update needs one target per instance beside the input. Received: "
                f"{'no target' if y is None else f'a target of {len(keras.tree.flatten(y))} tensors'}."
            )
        target = keras.tree.flatten(y)[0]
        if self._reference.stored is None:
            return target, None
        if self._reference.class_map is not None:
            columns = len(self._reference.class_map)
        else:
            columns = columns_of(h2_output)
        check_columns(self._reference.stored, columns)
        return split_reference(target, columns, HOW_TO_ATTACH_STORED)

    def _reading(self, h2_output: Any) -> Reading:
        """How the outputs are to be read: what the compiled loss says, unless the constructor was told."""
        base, given = CompiledLoss.of(self._base), self._criterion
        binary = (
            is_binary(h2_output)
            or base.binary
            or bool(self._multilabel)
            or (given is not None and given.base == "binary_cross_entropy")
        )
        h1_from_logits = self._h1_from_logits
        if h1_from_logits is None and given is not None:
            h1_from_logits = given.h1_from_logits
        says = said_by(base, activation_of(self.h2))
        if says.loss is None and isinstance(self._loss_argument, CompatibilityLoss | ModelLoss) and given is not None:
            says = says._replace(loss=given.from_logits)
        return reading_of(
            self._reference.says,
            says,
            binary=binary,
            multilabel=binary and not is_binary(h2_output) if self._multilabel is None else self._multilabel,
            from_logits=self._from_logits,
            h1_from_logits=h1_from_logits,
            imitates=self._dissonance_name != "new_error" if given is None else not given.labels_suffice,
            is_scored=given is not None,
            is_mapped=self._reference.class_map is not None,
            received=f"loss={self._base!r}",
        )

    def _labels(self, target: Any, h2_output: Any, h1_output: Any, reading: Reading, threshold: float) -> Labels:
        return read_labels(
            target,
            h2_output,
            h1_output,
            threshold=threshold,
            from_logits=reading.from_logits,
            h1_from_logits=reading.h1_from_logits,
            multilabel=reading.multilabel,
            signed=CompiledLoss.of(self._base).is_margin,
        )

    def _dissonance(
        self, target: Any, y_pred: Any, h1_output: Any, sample_weight: Any, reading: Reading, mask: Any
    ) -> Any:
        """Dissonance of a batch, reduced and scaled as Keras reduces and scales the base."""
        h2_output = only_tensor(y_pred, "h2")
        if self._criterion is None and self._dissonance_name == "new_error" and not reading.multilabel:
            return self._base_where_h1_is_right(target, y_pred, h1_output, sample_weight, reading, mask)
        if self._dissonance_loss is None:
            reduction = CompiledLoss.of(self._base).reduction
            self._dissonance_loss = DissonanceLoss(self._criterion_in_use(reading), reduction)
        scores = self._dissonance_loss.criterion.as_scores(h1_output, h2_output)
        y_true = (target, scores, *([] if mask is None else [mask]))
        dissonance = self._dissonance_loss(y_true, h2_output, sample_weight)
        return dissonance if self._loss_weight is None else dissonance * self._loss_weight

    def _base_where_h1_is_right(
        self, target: Any, y_pred: Any, h1_output: Any, sample_weight: Any, reading: Reading, mask: Any
    ) -> Any:
        h2_output, facts = only_tensor(y_pred, "h2"), CompiledLoss.of(self._base)
        labels = self._labels(target, h2_output, h1_output, reading, self._threshold)
        dtype = "float64" if keras.config.floatx() == "float64" else "float32"
        right = ops.cast(labels.h1 == labels.target, dtype)
        valid = None
        if facts.ignore_class is not None:
            valid = ops.cast(labels.target != facts.ignore_class, dtype)
        counted = Counted(right, valid, mask)
        support = right if counted.both is None else right * counted.both
        everything = ops.ones_like(support) if counted.both is None else counted.both
        if sample_weight is not None:
            everything = everything * entries_of(ops.cast(sample_weight, dtype), support, "sample_weight")
        weight = support * everything
        # The compiled loss with the support as sample weight: its smoothing, masks, reduction and scaling are right.
        dissonance = ops.cast(weighted_loss(self._compile_loss, target, h2_output, weight), dtype)
        if facts.reduction == "mean_with_sample_weight":
            # Keras has divided by the weights of the support; over a batch it is those of all that counts.
            share = ops.divide_no_nan(ops.sum(weight), ops.sum(everything))
            return dissonance * share if self._normalization == "batch" else dissonance
        return dissonance * counted.support_scale(self._normalization)

    def _criterion_of(self, loss: Any) -> CompatibilityLoss | None:
        """The `CompatibilityLoss` that was asked for, if one was."""
        if loss is None or isinstance(loss, CompatibilityLoss):
            return loss
        if isinstance(loss, ModelLoss):
            criterion: CompatibilityLoss = loss.criterion
            return criterion
        if isinstance(loss, str):
            if loss not in MODEL_LOSSES:
                near = difflib.get_close_matches(loss, MODEL_LOSSES, n=1)
                raise ValueError(
                    f"loss must be one of the eight named losses{f', perhaps {near[0]!r}' if near else ''}: "
                    f"{', '.join(map(repr, MODEL_LOSSES))}. The base, such as 'sparse_categorical_crossentropy', goes "
                    f"to compile(loss=...). Received: loss={loss!r}."
                )
            loss = MODEL_LOSSES[loss]
        if isinstance(loss, type) and issubclass(loss, ModelLoss):
            threshold = {"discriminant_pivot": self._threshold} if loss.base == "binary_cross_entropy" else {}
            return loss.on_outputs(
                1.0,
                normalization=self._normalization,
                from_logits=bool(self._from_logits),
                h1_from_logits=self._h1_from_logits,
                **threshold,
            )
        raise TypeError(
            f"loss must be one of the eight named losses, by name or class, or a CompatibilityLoss. The base goes to "
            f"compile(loss=...). Received: loss={loss!r}."
        )

    def _criterion_in_use(self, reading: Reading) -> CompatibilityLoss:
        """What gives the dissonance, reading outputs as the compiled loss does."""
        facts, given = CompiledLoss.of(self._base), self._criterion
        how: dict[str, Any] = {"from_logits": reading.from_logits, "h1_from_logits": reading.h1_from_logits}
        how["validate_args"] = False  # values cannot be read inside a compiled step
        if given is not None:
            return CompatibilityLoss(**{**given.get_config(), "lambda_c": 1.0, **how})
        base: Base = "kl_divergence" if facts.divergence else "cross_entropy"
        if reading.binary:
            base = "binary_cross_entropy"
        options: dict[str, Any] = {"threshold": self._threshold} if reading.binary else {}
        if base != "kl_divergence":
            options["label_smoothing"] = facts.label_smoothing
        if not reading.binary:
            options["ignore_class"] = facts.ignore_class
        return CompatibilityLoss(base, self._dissonance_name, 1.0, self._normalization, **how, **options)

    # Saving

    def get_config(self) -> dict[str, Any]:
        """Both models, without their weights (which are saved beside it), and the other arguments.

        Of stored outputs the folder is named, and opened again. Any other h1 that is no Keras object is left out: the
        reloaded model predicts, and is trained again after wrapping its h2 anew.
        """
        serialize = keras.saving.serialize_keras_object
        loss: Any = self._loss_argument
        if isinstance(loss, type):
            loss = loss.__name__
        elif isinstance(loss, ModelLoss):
            loss = loss.criterion
        return {
            "h2": serialize(self.h2),
            "h1": serialize(self.h1) if isinstance(self.h1, keras.Layer) else None,
            "stored_h1": None if self._reference.stored is None else _text(self._reference.stored.path),
            "lambda_c": self.lambda_c,
            "dissonance": None if loss is not None else self._dissonance_name,
            "loss": serialize(loss) if isinstance(loss, CompatibilityLoss) else loss,
            **self._arguments,
            "class_map": self._reference.class_map,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> BCModel:
        """Make the model of a config."""
        config = dict(config)
        stored = config.pop("stored_h1", None)
        for name in ("h2", "h1", "loss"):
            if isinstance(config[name], dict):
                config[name] = keras.saving.deserialize_keras_object(config[name], custom_objects=custom_objects)
        if config["h1"] is None:
            config["h1"] = StoredOutputs.open(stored) if stored is not None and Path(stored).exists() else _missing_h1
        model = cls(**config)
        # A config holds no weights: until some are loaded, h1 is no model in use.
        model._h1_has_fresh_weights = isinstance(model.h1, keras.Layer)
        return model


def _made(metric: Any) -> Any:
    """An instance of a metric of this package that was given as its class; Keras would make one that nobody feeds."""
    return metric() if isinstance(metric, type) and issubclass(metric, OverlapMetric) else metric


def _check_no_own_step(h2: keras.Model) -> None:
    own = [
        name
        for name in ("train_step", "test_step", "compute_loss", "compute_metrics")
        if getattr(type(h2), name) is not getattr(keras.Model, name)
    ]
    if own:
        raise TypeError(
            f"h2 has a {own[0]} of its own, which would not run inside a BCModel: add CompatibilityLoss()(h2_output, "
            f"y, h1_output) to it and fit h2 itself, or pass a model without it. Received: {type(h2).__name__}, which "
            f"overrides {', '.join(own)}."
        )


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _missing_h1(x: Any) -> Any:
    raise ValueError(
        "The saved model's h1 was no Keras model, or stored outputs that are gone, so it is missing here: wrap h2 "
        "anew, BCModel(model.h2, h1=...), to train or evaluate on. Received: h1=None."
    )


def _without(variables: Sequence[Any], some: Sequence[Any]) -> list[Any]:
    left_out = {id(variable) for variable in some}
    return [variable for variable in variables if id(variable) not in left_out]
