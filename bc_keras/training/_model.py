"""`BCModel`: any Keras model, trained and evaluated against h1 by ordinary compile and fit.

Why the class of the instance is changed, instead of nesting the user's model inside another: nested, its layers, files,
inputs, `fit` and `predict` are those of a model around it and have to be forwarded one by one, what Keras adds is
missing, and h1 is counted, saved and quantised with it. An instance whose class is made from (ours, the user's) is
still the user's model in every respect. h1 and all that is ours stay beside it, in a `Compatibility`, which Keras does
not track.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import keras
from keras import ops

from bc_core import Promise
from bc_core.losses._blends import H1
from bc_core.losses._mixtures import LABELS
from bc_core.losses._options import DissonanceName, Normalization
from bc_keras.losses._compatibility_loss import CompatibilityLoss
from bc_keras.losses._distribution import num_replicas
from bc_keras.losses._losses import ModelLoss
from bc_keras.metrics._overlap import OverlapMetric, check_names, fed_by_model
from bc_keras.reference._reference import Reference, only_tensor
from bc_keras.reference._shared_variables import check_no_shared_variables
from bc_keras.reference._stored import StoredOutputs
from bc_keras.training._made_class import whole_class
from bc_keras.training._preparation import has_own
from bc_keras.training._state import Compatibility, Compiled
from bc_keras.training._wrap import wrap
from bc_keras.training.compiled._compile_arguments import (
    base_in_compile,
    by_name,
    made_metric,
    overlap_metrics,
    without_ours,
)
from bc_keras.training.compiled._compiled_loss import BaseLoss, Reading, check_target_form
from bc_keras.training.compiled._output_watch import Looking, looked_at
from bc_keras.training.files._whole_model import MissingUnlabelled, missing_h1, missing_imitated, scope_of_loading
from bc_keras.training.promise._promise_looks import looking_at_held_out
from bc_keras.training.step._checks import (
    HOW_TO_STEP,
    check_data,
    check_h1_answers,
    check_own_loss,
)
from bc_keras.training.step._held_steps import HeldSteps
from bc_keras.training.step._penalty import answered, dissonance_of, reading_by, target_and_stored, update_metrics
from bc_keras.training.step._unlabelled_step import unlabelled_dissonance


@keras.saving.register_keras_serializable(package="bc_keras")
class BCModel(HeldSteps):
    r"""Train h2 against the frozen h1: :math:`L = base + \lambda_c \cdot dissonance`.

    Not a base class but a door: ``BCModel(h2, h1=...)`` returns `h2` itself, an instance whose class is now made from
    this one and its own. The base is the loss that you compile, the dissonance is added to it. h1 and h2 run once per
    step each; h1 in inference mode and without gradients, whatever ``trainable`` is set to. Everything else is your
    model's own: its layers, ``summary``, ``compile``, ``fit``, ``predict``, callbacks, sample and class weights, mixed
    precision, ``jit_compile``, distribution strategies, and its files: ``save``, ``save_weights``, ``export`` and the
    checkpoints of callbacks hold h2 alone and load without this package. A compiled h2 stays compiled. `unwrap` gives
    your own class back.

    ``fit`` logs ``loss``, ``base_loss`` and ``dissonance`` (the first is the second plus lambda_c times the third), and
    the metrics of ``compile``, among which `BTC`, `BEC` and their kin see h1's predictions. ``evaluate`` returns the
    list that your model returns; ``return_dict=True`` adds ``base_loss`` and ``dissonance``.

    A ``train_step`` of your own takes its loss from ``self.compute_loss`` (on JAX from
    ``self.compute_loss_and_updates``), as Keras's own does. An h2 whose ``fit`` and ``predict`` prepare the inputs, as
    the tasks of KerasHub do, shows h1 what it has prepared.

    Args:
        h2: the model that is being updated, of any kind, with one output: class scores (N, C), or one score per
            instance or label.
        h1: the model in use: a built Keras model, any callable of the inputs, or `StoredOutputs` (then train on
            ``h1.attach(x, y)`` or ``h1.attach(dataset)``). It may share with h2 what no training changes.
        lambda_c: weight of the dissonance, >= 0, not capped at 1; `LambdaScheduler` makes it a schedule.
        dissonance: ``"new_error"`` (default: the compiled loss again, where h1 is right, which must have a value per
            instance) or another that `CompatibilityLoss` lists, such as ``"imitation"``.
        loss: the same; or one of the eight named losses, by name or class, or a `CompatibilityLoss`: its dissonance is
            trained, and its base where ``compile`` is given no loss.
        loss_options: options of the dissonance or the named loss, such as ``{"temperature": 4.0}``.
        normalization: ``"batch"`` (default) divides the dissonance by the number of instances, ``"support"`` by the
            number that h1 gets right, counted over all replicas.
        from_logits: whether h2 gives logits. Defaults to `None`: what the compiled loss says, or a last activation that
            gives probabilities.
        h1_from_logits: the same for h1's output. Defaults to `None`: what h1's own compiled loss or its last activation
            says, and where neither is to be seen, as h2's. Values that cannot be that are refused.
        threshold: a binary score is class 1 from this probability on. Defaults to `None`, 0.5 or what `loss` says.
        multilabel: whether each column is a label of its own, 0 or 1, about which h1 is right or wrong by itself; new
            error is the compiled loss of each. Defaults to `None`: of Keras's binary losses, if not over a softmax.
        class_map: for an h1 with other classes: ``class_map[i]`` is h2's index of h1's class i, or -1; where classes
            are new, merged or split, a `bc_core.ClassMap` says so.
        start_from: ``"h1"`` copies h1's weights into h2 here, where names and shapes match, and says what was copied;
            see `warm_start`. Files know nothing of it: what is loaded goes on from its own weights.
        name: another name for h2.
        promise: instead of `lambda_c`, what is to be kept: ``"nfr <= 0.5%"``, ``"btc >= 98%"``, several joined by a
            comma. lambda_c then moves while ``fit`` runs, so that the one-sided bound of the score on held-out data
            keeps it, and ``fit`` ends with the weights that did so with the best accuracy. ``h2.promise`` is a
            `PromiseVerdict` afterwards, and ``lambda_c`` and the scores are logged. See ``docs/promises.md``.
        promise_data: held-out data for it, as in ``fit(validation_data=...)``, or a share of the arrays that ``fit`` is
            given, which is put aside. Defaults to `None`, the validation data of ``fit``.
        promise_options: ``confidence`` of the bound (0.95), ``keep`` (``"best"`` weights, or ``"last"``), ``average``
            (whether a mean of weights may be the best, True), ``every`` (look every so many steps too), and lambda_c's
            ``start`` (2) and ``most`` (64).
        teacher: what is imitated in place of h1, where the dissonance imitates: a model, `StoredOutputs`, a `Reference`
            or a blend ``[(model, weight), ...]``. Support and scores are h1's all the same.
        plain: a model that was trained without h1, in any form of `teacher`: imitated in place of h1 wherever h2 is
            right at present, so that h1 is imitated where h2 is wrong alone; with ``dissonance="imitation"`` MUSCLE.
        unlabelled: inputs without labels, an array or a structure of arrays as h2's layers take them, of which each
            training step takes some rows too, in their order and from the first again. h1, or the teacher, is asked
            about them, and h2, which is run once more, imitates the answer. Logged as ``unlabelled_dissonance``.
            ``"mixed"`` takes mixtures of each batch's own inputs in place of others (mixup): floating numbers.
        unlabelled_weight: what the mean dissonance of these counts beside that of the batch, >= 0.
        unlabelled_batch_size: how many rows a step takes; of mixtures there are as many as instances.
        mixed_labels: of mixtures, the share of their labels, mixed alike, in what h2 is taught; the rest is h1's
            answer. 0 for that alone.

    Raises:
        TypeError: h1 is missing, or is nothing that answers; h2 has a ``train_step``, ``test_step`` or
            ``compute_loss`` of its own that would leave the penalty out; an argument against `loss`, or of something
            that is not given; h1 prepares its inputs otherwise than h2.
        ValueError: an h1 without weights, an h1 that shares variables with h2 that training changes, a negative
            lambda_c, an unknown name.

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
        >>> loss, accuracy, btc, bec = model.evaluate(x, y, verbose=0)
    """

    _compatibility: Compatibility
    _compile_config: Any

    # The work is done in __new__, since what comes back is the caller's own object, initialised long ago.
    # This signature is what type checkers and readers see; classes that are made here have another.
    def __init__(
        self,
        h2: keras.Model,
        h1: keras.Model | Callable[..., Any] | StoredOutputs | None = None,
        lambda_c: float | None = None,
        dissonance: DissonanceName | None = None,
        loss: str | CompatibilityLoss | ModelLoss | type[ModelLoss] | None = None,
        *,
        loss_options: Mapping[str, Any] | None = None,
        normalization: Normalization | None = None,
        from_logits: bool | None = None,
        h1_from_logits: bool | None = None,
        threshold: float | None = None,
        multilabel: bool | None = None,
        class_map: Sequence[Any] | Mapping[str, Any] | None = None,
        start_from: str | None = None,
        name: str | None = None,
        promise: str | list[str] | Promise | None = None,
        promise_data: Any = None,
        promise_options: dict[str, Any] | None = None,
        teacher: keras.Model | Callable[..., Any] | Reference | StoredOutputs | list[Any] | None = None,
        plain: keras.Model | Callable[..., Any] | Reference | StoredOutputs | list[Any] | None = None,
        unlabelled: Any = None,
        unlabelled_weight: float = 1.0,
        unlabelled_batch_size: int = 32,
        mixed_labels: float = LABELS,
    ) -> None:
        pass

    def __new__(cls, h2: Any, h1: Any = None, *args: Any, name: str | None = None, **kwargs: Any) -> Any:
        """Wrap `h2`; see the class."""
        return wrap(cls, h2, h1, *args, name=name, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """`h1` and `h2`, unless the user's model has attributes of these names."""
        inherited = getattr(super(), "__getattr__", None)  # torch's modules have one
        if inherited is not None:
            try:
                return inherited(name)
            except AttributeError:
                if name not in ("h1", "h2", "promise"):
                    raise
        if name in ("h1", "h2"):
            return self._compatibility.h1 if name == "h1" else self
        if name == "promise" and self._compatibility.promised is not None:
            return self._compatibility.promised.keeper.verdict
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}.")

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; another h1 or h2 needs another wrapping."""
        if name in ("h1", "h2") and getattr(self, name) is (self._compatibility.h1 if name == "h1" else self):
            raise AttributeError(
                f"{name} cannot be replaced, as checks and compiled steps depend on it: wrap anew, BCModel(h2, h1=...)."
            )
        super().__setattr__(name, value)

    # What is trained

    @property
    def lambda_c(self) -> float:
        """Weight of the dissonance, >= 0; may be set at any time."""
        return self._compatibility.lambda_c

    @lambda_c.setter
    def lambda_c(self, value: float) -> None:
        if self._compatibility.promised is not None:
            raise ValueError(
                "lambda_c is moved by the promise; wrap anew to set it: BCModel(h2, h1=..., lambda_c=...)."
            )
        self._compatibility.lambda_c = value

    @property
    def dissonance(self) -> str:
        """How h2 is held to h1: name of a dissonance, such as ``"new_error"``."""
        return self._compatibility.options.dissonance_name

    # What callbacks ask

    @property
    def _reference(self) -> Any:
        return self._compatibility.reference

    @property
    def _base(self) -> Any:
        return self._compatibility.compiled.base

    @property
    def _threshold(self) -> float:
        return self._compatibility.options.threshold

    def _reading(self, h2_output: Any) -> Reading:
        state = self._compatibility
        return reading_by(state, h2_output)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile as your model; the loss is the base, and the metrics of this package see h1's predictions.

        Raises:
            ValueError: no loss was given here, nor to `BCModel`; a `CompatibilityLoss` as the base; a metric of the
                name of what is logged anyway.
        """
        state = self._compatibility
        given = by_name(super().compile, keras.Model.compile, args, kwargs)
        names = ("metrics", "weighted_metrics")
        given.update({name: keras.tree.map_structure(made_metric, given[name]) for name in names if name in given})
        if self._compile_metrics is not None and all(given.get(name) is None for name in names):
            # Keras keeps the metrics of an earlier compile then; they are not to be fed, nor logged as zeros.
            old = self._compile_config.config
            if overlap_metrics(old.get("metrics"), old.get("weighted_metrics")):
                given.update({name: without_ours(old.get(name)) for name in names})
        loss = base_in_compile(given.get("loss"), state.options.criterion)
        if loss is None and not has_own(state.user_class, "compile"):
            raise ValueError(
                "compile() needs a loss, the base that is trained together with the dissonance, such as "
                "loss='sparse_categorical_crossentropy'. Received: loss=None."
            )
        if loss is not None:
            given["loss"] = loss
        all_metrics = keras.tree.flatten([given.get(name) for name in names])
        if any(getattr(metric, "name", metric) in state.tracked for metric in all_metrics):
            raise ValueError(f"A BCModel logs {' and '.join(state.tracked)} itself: name the metric otherwise.")
        check_names(metric for metric in all_metrics if isinstance(metric, OverlapMetric))
        for reference in state.references.values():
            check_no_shared_variables(reference.h1, self)  # layers may have been unfrozen
        super().compile(**given)
        state.compiled = Compiled.of(self, state.options)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as the saved model was."""
        if has_own(self._compatibility.user_class, "compile"):
            super().compile_from_config(config)
            return
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    def get_compile_config(self) -> dict[str, Any]:
        """What h2 was compiled with, without what is of this package, so that it loads anywhere."""
        if not self.compiled or isinstance(self.loss, BaseLoss):
            return {}
        whole = self._compile_config
        try:
            names = ("metrics", "weighted_metrics")
            plain = {name: without_ours(whole.config.get(name)) for name in names}
            self._compile_config = type(whole)(**{**whole.config, **plain})
            config: dict[str, Any] = super().get_compile_config()
        finally:
            self._compile_config = whole
        return config

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Train, as your model's ``fit``."""
        state = self._compatibility
        given = by_name(super().fit, keras.Model.fit, args, kwargs)
        if given.get("class_weight") is not None and state.has_stored:
            raise ValueError(
                "Keras reads class_weight from the label, beside which h1's stored outputs stand here: pass it to "
                "`h1.attach(..., class_weight=...)` instead. Received: class_weight in fit()."
            )
        if not self._is_compiled():
            return super().fit(*args, **kwargs)  # Keras says what is missing
        validation = given.get("validation_data")
        are_checked = check_data(self, state, given.get("x"), given.get("y"))
        if validation is not None:
            pair = validation[:2] if isinstance(validation, tuple) else [validation]
            are_checked = check_data(self, state, *pair)
        check_own_loss(self, state)
        if not has_own(state.user_class, "fit"):  # it may prepare the inputs
            check_h1_answers(state, given.get("x"), given.get("batch_size") or 32)
        looks, last = looking_at_held_out(state, given, are_checked)
        return looked_at(super().fit, given, len(args), self._looking(), *looks, last=last)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate, as your model's ``evaluate``."""
        given = by_name(super().evaluate, keras.Model.evaluate, args, kwargs)
        if self._is_compiled():
            check_data(self, self._compatibility, given.get("x"), given.get("y"))
        return looked_at(super().evaluate, given, len(args), self._looking())

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Train on one batch, as your model's ``train_on_batch``."""
        result = super().train_on_batch(*args, **kwargs)
        self._compatibility.training_watch.look()
        return result

    def test_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate one batch, as your model's ``test_on_batch``."""
        result = super().test_on_batch(*args, **kwargs)
        self._compatibility.testing_watch.look()
        return result

    def _looking(self) -> Looking:
        return Looking(self._compatibility.training_watch, self._compatibility.testing_watch)

    def _is_compiled(self) -> bool:
        if self.compiled and self._compatibility.compiled.base is None:
            raise ValueError("h2 was compiled without a loss, the base that is trained: compile it with one.")
        return bool(self.compiled)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The loss of your model plus lambda_c times the dissonance; h1 is asked here, once per batch."""
        state = self._compatibility
        state.step.has_penalised = True
        compiled, options = state.compiled, state.options
        h2_output = only_tensor(y_pred, "h2")
        target, rows = target_and_stored(state.references, y, h2_output)
        check_target_form(target, h2_output, compiled.facts)
        if len(h2_output.shape) == 1:
            # Keras's binary losses average over the last axis, which here holds the instances.
            y_pred = h2_output = ops.expand_dims(h2_output, -1)
            target = ops.expand_dims(target, -1) if len(target.shape) == 1 else target
        # First: a call of h1 would add its activity regularisation to h2's loss.
        has_training = {"training": training} if self._compute_loss_has_training_arg else {}
        base = super().compute_loss(x, target, y_pred, sample_weight, **has_training)
        reading = self._reading(h2_output)
        is_live = rows[H1] is None
        if x is None and None in rows.values():
            raise TypeError(f"compute_loss() was called without x, which h1 is asked about: {HOW_TO_STEP}.")
        batch = answered(state, x, target, rows, h2_output, sample_weight, reading)
        watch = state.training_watch if training else state.testing_watch
        watch.note(target, batch.h1, h2_output, reading, is_live, batch.teacher)
        dissonance = dissonance_of(batch, compiled, options, self._compile_loss)
        batch_size = ops.shape(h2_output)[0]
        # Keras divides a loss by the number of replicas, whose gradients are summed; a log shows the mean.
        values = [base, dissonance]
        if training and state.unlabelled is not None:
            values.append(unlabelled_dissonance(self, state, reading, x, target))
            state.step.has_gone_beyond = True
        for tracker, value in zip(state.trackers, values, strict=False):
            tracker.update_state(value * num_replicas(), sample_weight=batch_size)
        # Here and not in compute_metrics, where h1 would have to be asked again.
        update_metrics(batch, compiled, options, None if training else state.held_out)
        if training and state.unlabelled is not None:
            dissonance = dissonance + state.unlabelled.weight * values[-1]
        return base + ops.cast(state.weight, base.dtype) * dissonance

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Update your own metrics; those of this package were updated with h1's answers already."""
        state = self._compatibility
        target, _ = target_and_stored(state.references, y, only_tensor(y_pred, "h2"))
        with fed_by_model():
            results: dict[str, Any] = super().compute_metrics(x, target, y_pred, sample_weight)
        return results

    # Saving

    def save(self, filepath: str | Path, *args: Any, with_h1: bool = False, **kwargs: Any) -> None:
        """Save h2, as your model is saved; or with h1 and all arguments, to be loaded as a `BCModel`.

        Args:
            filepath: a path ending in ``.keras``.
            args: as those of `keras.Model.save`.
            with_h1: whether ``keras.models.load_model`` is to give a `BCModel` that is trained on, which needs this
                package. h1 must then be a Keras model, or stored outputs in a folder; any other is left out, and has
                to be given anew. Defaults to `False`.
            kwargs: as those of `keras.Model.save`.
        """
        if not with_h1:
            super().save(filepath, *args, **kwargs)
            return
        own_class = type(self)
        object.__setattr__(self, "__class__", whole_class(own_class._door, self._compatibility.user_class))
        try:
            super().save(filepath, *args, **kwargs)
        finally:
            object.__setattr__(self, "__class__", own_class)

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """Make the model that ``save(..., with_h1=True)`` has written."""
        config = dict(config)
        for part in ("h2", "loss"):
            if isinstance(config[part], dict):
                config[part] = keras.saving.deserialize_keras_object(config[part], custom_objects=custom_objects)
        if config.get("promise") is not None:
            config["promise"] = Promise.from_file(config["promise"])
        stored = config.pop("stored_h1")
        # A live h1 comes with the weights.
        h1 = StoredOutputs.open(stored) if stored is not None and Path(stored).exists() else missing_h1
        for name in ("teacher", "plain"):
            if config.pop(f"had_{name}", False):
                config[name] = Reference(missing_imitated(name), from_logits=True)
        from_logits, had_unlabelled = (config.pop(name, None) for name in ("reference_from_logits", "had_unlabelled"))
        model = wrap(cls, config.pop("h2"), Reference(h1, config.pop("class_map"), from_logits=from_logits), **config)
        if had_unlabelled:
            model._compatibility.unlabelled = MissingUnlabelled()
        model.__dict__["_loading"] = scope_of_loading()
        object.__setattr__(model, "__class__", whole_class(cast("Any", cls), model._compatibility.user_class))
        return model
