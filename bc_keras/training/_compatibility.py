"""What a `BCModel` keeps beside the user's model: h1, how outputs are read, and the dissonance of a batch."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterator
from typing import Any, get_args

import keras
from keras import ops

from bc_core import check_lambda
from bc_keras.batches._attached import HOW_TO_ATTACH_STORED, check_columns, split_reference
from bc_keras.batches._labels import Labels, columns_of, entries_of, is_binary, read_labels
from bc_keras.losses._compatibility_loss import (
    Base,
    CompatibilityLoss,
    Counted,
    Dissonance,
    Normalization,
    known,
)
from bc_keras.losses._losses import MODEL_LOSSES, ModelLoss
from bc_keras.metrics._metrics import OverlapMetric
from bc_keras.reference._reference import Reference, only_tensor
from bc_keras.training._compile_arguments import overlap_metrics
from bc_keras.training._compiled_loss import BaseLoss, CompiledLoss, DissonanceLoss, Reading
from bc_keras.training._jax_step import reading
from bc_keras.training._output_watch import OutputWatch
from bc_keras.training._score_scale import activation_of, reading_of, said_by, says_of
from bc_keras.training._weighted_loss import weighted_loss

TRACKERS = ("base_loss", "dissonance")


class Compatibility:
    """The arguments of a `BCModel`, and what a compile and a step make of them.

    It is no Keras object, and so neither tracked nor saved, counted or trained with the model that it belongs to.
    """

    def __init__(
        self,
        h1: Any,
        lambda_c: float | None = None,
        dissonance: Dissonance | None = None,
        loss: str | CompatibilityLoss | ModelLoss | type[ModelLoss] | None = None,
        *,
        normalization: Normalization | None = None,
        from_logits: bool | None = None,
        h1_from_logits: bool | None = None,
        threshold: float | None = None,
        multilabel: bool | None = None,
        class_map: Any = None,
    ) -> None:
        if dissonance is not None and loss is not None:
            raise TypeError(
                f"Pass dissonance or loss, which has one. Received: dissonance={dissonance!r}, loss={loss!r}."
            )
        if callable(lambda_c):
            raise TypeError(
                "lambda_c must be a number; a schedule goes to a callback, LambdaScheduler(schedule). "
                f"Received: lambda_c={lambda_c!r}."
            )
        if normalization is not None:
            known(normalization, get_args(Normalization), "normalization")
        self._dissonance_name: Dissonance = "new_error" if dissonance is None else dissonance
        known(self._dissonance_name, get_args(Dissonance), "dissonance")
        if lambda_c is None:
            has_one = isinstance(loss, CompatibilityLoss | ModelLoss)
            lambda_c = float(ops.convert_to_numpy(loss.lambda_c)) if has_one else 1.0  # type: ignore[union-attr]
        check_lambda(lambda_c)
        self.arguments = {
            "normalization": normalization,
            "from_logits": from_logits,
            "h1_from_logits": h1_from_logits,
            "threshold": threshold,
            "multilabel": multilabel,
        }
        self._normalization: Normalization = "batch" if normalization is None else normalization
        self._from_logits = from_logits
        self._h1_from_logits = h1_from_logits
        self.threshold = 0.5 if threshold is None else threshold
        self._multilabel = multilabel
        self.loss_argument = loss
        self.criterion = self._criterion_of(loss)
        if self.criterion is not None:
            self._agree_with(self.criterion, explicit=isinstance(loss, CompatibilityLoss | ModelLoss))
        if class_map is None and isinstance(loss, ModelLoss):
            class_map = loss.reference.class_map  # type: ignore[misc]  # an instance, here as elsewhere
        self.reference = Reference(h1, class_map)
        # A variable: a number would be frozen into the compiled step.
        self._lambda_c = keras.Variable(
            lambda_c, dtype="float32", trainable=False, aggregation="only_first_replica", name="lambda_c"
        )
        # Means of the two halves of the loss over an epoch.
        self.trackers = [keras.metrics.Mean(name=name) for name in TRACKERS]
        # What the steps show of the models' outputs, looked at between them.
        self.training_watch = OutputWatch("training_watch", "so begin again with an h2 as it was before")
        self.testing_watch = OutputWatch("testing_watch", "so what was measured is of no use")
        self.user_class: type = keras.Model
        # Of h2's last layer.
        self.activation: Any = None
        # Of the present compile.
        self.base: Any = None
        self.loss_weight: Any = None
        self.metrics: list[tuple[OverlapMetric, bool]] = []
        self._dissonance_loss: DissonanceLoss | None = None
        # Of the present step: on JAX, what it was given; whether compute_loss ran.
        self._given: Any = None
        self.has_penalised = False

    @property
    def h1(self) -> Any:
        """The model in use, as it was given."""
        return self.reference.h1

    def _agree_with(self, criterion: CompatibilityLoss, explicit: bool) -> None:
        """Take from a loss that was made by the user what it says, and refuse an argument that says otherwise."""
        given = {**self.arguments, "multilabel": None}
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
        self.threshold = criterion.threshold

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
            threshold = {"discriminant_pivot": self.threshold} if loss.base == "binary_cross_entropy" else {}
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

    # What changes from step to step

    @property
    def lambda_c(self) -> float:
        """Weight of the dissonance."""
        return float(ops.convert_to_numpy(self._lambda_c))

    @lambda_c.setter
    def lambda_c(self, value: float) -> None:
        check_lambda(value)
        self._lambda_c.assign(value)

    @property
    def weight(self) -> Any:
        """lambda_c in the present step."""
        return self._lambda_c.value if self._given is None else self._given["lambda_c"]

    def values_for_jax(self, h2: keras.Model) -> Callable[[], dict[str, Any]]:
        """What a compiled step of JAX is to be given beside its batch and the state of `h2`, anew for each."""
        own = {id(variable) for variable in h2.variables}
        variables = [None if id(variable) in own else variable for variable in self._variables_of_h1()]

        def values() -> dict[str, Any]:
            return {
                "lambda_c": self._lambda_c.value,
                "h1": [None if variable is None else variable.value for variable in variables],
            }

        return values

    @contextlib.contextmanager
    def given(self, values: Any) -> Iterator[None]:
        """A step of JAX that was given these values."""
        self._given = values
        try:
            yield
        finally:
            self._given = None  # they are tracers, of no use outside

    def _variables_of_h1(self) -> list[Any]:
        return self.reference.model.variables if self.reference.model is not None else []

    def ask_h1(self, x: Any, columns: int, from_logits: bool) -> Any:
        """h1's answers about a batch, within a step."""
        if self._given is None or self.reference.model is None:
            # A callable reads what it reads, also of the step's own state.
            return self.reference(x, columns, from_logits)
        with reading(self._variables_of_h1(), self._given["h1"]):
            return self.reference(x, columns, from_logits)

    # How a batch is read

    def target_and_stored(self, y: Any, h2_output: Any) -> tuple[Any, Any]:
        """The target, and h1's stored outputs where they come beside it."""
        if y is None or len(keras.tree.flatten(y)) != 1:
            raise ValueError(
                "A compatible update needs one target per instance beside the input. Received: "
                f"{'no target' if y is None else f'a target of {len(keras.tree.flatten(y))} tensors'}."
            )
        target = keras.tree.flatten(y)[0]
        if self.reference.stored is None:
            return target, None
        if self.reference.class_map is not None:
            columns = len(self.reference.class_map)
        else:
            columns = columns_of(h2_output)
        check_columns(self.reference.stored, columns)
        return split_reference(target, columns, HOW_TO_ATTACH_STORED)

    def reading(self, h2_output: Any) -> Reading:
        """How the outputs are to be read: what the compiled loss says, unless the constructor was told."""
        base, given = CompiledLoss.of(self.base), self.criterion
        binary = (
            is_binary(h2_output)
            or base.binary
            or bool(self._multilabel)
            or (given is not None and given.base == "binary_cross_entropy")
        )
        h1_from_logits = self._h1_from_logits
        if h1_from_logits is None and given is not None:
            h1_from_logits = given.h1_from_logits
        says = said_by(base, self.activation)
        if says.loss is None and isinstance(self.loss_argument, CompatibilityLoss | ModelLoss) and given is not None:
            says = says._replace(loss=given.from_logits)
        return reading_of(
            says_of(self.reference),
            says,
            binary=binary,
            multilabel=binary and not is_binary(h2_output) if self._multilabel is None else self._multilabel,
            from_logits=self._from_logits,
            h1_from_logits=h1_from_logits,
            imitates=self.imitates,
            is_scored=given is not None,
            is_mapped=self.reference.class_map is not None,
            received=f"loss={self.base!r}",
        )

    def labels(self, target: Any, h2_output: Any, h1_output: Any, reading: Reading, threshold: float) -> Labels:
        """True and predicted classes of a batch."""
        return read_labels(
            target,
            h2_output,
            h1_output,
            threshold=threshold,
            from_logits=reading.from_logits,
            h1_from_logits=reading.h1_from_logits,
            multilabel=reading.multilabel,
            signed=CompiledLoss.of(self.base).is_margin,
        )

    # The dissonance

    @property
    def dissonance_name(self) -> str:
        """``"new_error"``, ``"strict_imitation"`` or ``"imitation"``."""
        return str(self._dissonance_name if self.criterion is None else self.criterion.dissonance)

    @property
    def imitates(self) -> bool:
        """Whether h1's probabilities are imitated, so that its labels do not suffice."""
        if self.criterion is None:
            return self._dissonance_name != "new_error"
        return not self.criterion.labels_suffice

    def dissonance(
        self,
        compiled: Any,
        target: Any,
        y_pred: Any,
        h1_output: Any,
        sample_weight: Any,
        reading: Reading,
        mask: Any,
    ) -> Any:
        """Dissonance of a batch, reduced and scaled as Keras reduces and scales the `compiled` loss, the base."""
        h2_output = only_tensor(y_pred, "h2")
        if self.criterion is None and self._dissonance_name == "new_error" and not reading.multilabel:
            return self._base_where_h1_is_right(compiled, target, y_pred, h1_output, sample_weight, reading, mask)
        if self._dissonance_loss is None:
            reduction = CompiledLoss.of(self.base).reduction
            self._dissonance_loss = DissonanceLoss(self._criterion_in_use(reading), reduction)
        scores = self._dissonance_loss.criterion.as_scores(h1_output, h2_output)
        y_true = (target, scores, *([] if mask is None else [mask]))
        dissonance = self._dissonance_loss(y_true, h2_output, sample_weight)
        return dissonance if self.loss_weight is None else dissonance * self.loss_weight

    def _base_where_h1_is_right(
        self,
        compiled: Any,
        target: Any,
        y_pred: Any,
        h1_output: Any,
        sample_weight: Any,
        reading: Reading,
        mask: Any,
    ) -> Any:
        h2_output, facts = only_tensor(y_pred, "h2"), CompiledLoss.of(self.base)
        labels = self.labels(target, h2_output, h1_output, reading, self.threshold)
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
        dissonance = ops.cast(weighted_loss(compiled, target, h2_output, weight), dtype)
        if facts.reduction == "mean_with_sample_weight":
            # Keras has divided by the weights of the support; over a batch it is those of all that counts.
            share = ops.divide_no_nan(ops.sum(weight), ops.sum(everything))
            return dissonance * share if self._normalization == "batch" else dissonance
        return dissonance * counted.support_scale(self._normalization)

    def _criterion_in_use(self, reading: Reading) -> CompatibilityLoss:
        """What gives the dissonance, reading outputs as the compiled loss does."""
        facts, given = CompiledLoss.of(self.base), self.criterion
        how: dict[str, Any] = {"from_logits": reading.from_logits, "h1_from_logits": reading.h1_from_logits}
        how["validate_args"] = False  # values cannot be read inside a compiled step
        if given is not None:
            return CompatibilityLoss(**{**given.get_config(), "lambda_c": 1.0, **how})
        base: Base = "kl_divergence" if facts.divergence else "cross_entropy"
        if reading.binary:
            base = "binary_cross_entropy"
        options: dict[str, Any] = {"threshold": self.threshold} if reading.binary else {}
        if base != "kl_divergence":
            options["label_smoothing"] = facts.label_smoothing
        if not reading.binary:
            options["ignore_class"] = facts.ignore_class
        return CompatibilityLoss(base, self._dissonance_name, 1.0, self._normalization, **how, **options)

    def update_metrics(
        self, target: Any, h2_output: Any, h1_output: Any, sample_weight: Any, reading: Reading, mask: Any
    ) -> None:
        """Count a batch in the compiled metrics of this package."""
        facts = CompiledLoss.of(self.base)
        read: dict[float, Labels] = {}
        for metric, weighted in self.metrics:
            if metric.multilabel and not reading.multilabel:
                raise ValueError(
                    f"The metric {metric.name!r} is multilabel and the model is not: pass BCModel(..., "
                    "multilabel=True), which tells every metric. Received: multilabel=True in the metric."
                )
            threshold = self.threshold if metric.threshold is None else metric.threshold
            if threshold not in read:
                read[threshold] = self.labels(target, h2_output, h1_output, reading, threshold)
            labels, counted = read[threshold], mask
            if facts.ignore_class is not None and metric.ignore_class is None:
                seen = labels.target != facts.ignore_class
                counted = (
                    seen
                    if mask is None
                    else ops.logical_and(seen, ops.cast(entries_of(mask, seen, "The mask"), "bool"))
                )
            metric.update_labels(labels, sample_weight if weighted else None, counted)

    # A compile

    def read_compile(self, model: keras.Model) -> None:
        """Take from a compiled model what the dissonance and the metrics need of it."""
        given = model._compile_config.config if getattr(model, "_compile_config", None) is not None else {}
        self.base = model.loss
        self.activation = activation_of(model)
        says = CompiledLoss.of(self.base).from_logits
        if isinstance(self.loss_argument, CompatibilityLoss | ModelLoss):
            wanted = None if self.criterion is None else self.criterion.from_logits
            if None not in (says, wanted) and says != wanted:
                raise ValueError(
                    "The compiled loss and the compatibility loss read h2's output differently: give both the same "
                    f"from_logits. Received: from_logits={says} in compile(), {wanted} in the compatibility loss."
                )
        self.loss_weight = (keras.tree.flatten(given.get("loss_weights")) or [None])[0]
        self._dissonance_loss = None
        self.metrics = overlap_metrics(given.get("metrics"), given.get("weighted_metrics"))
        for metric, _ in self.metrics:
            metric.reset_state()  # of an earlier model; Keras resets no metrics before the first batch has built them

    def base_in_compile(self, loss: Any) -> Any:
        """The base: what is given to ``compile``, else that of `BCModel`'s ``loss``."""
        for given in keras.tree.flatten(loss):
            if isinstance(given, CompatibilityLoss | ModelLoss):
                raise ValueError(
                    f"The loss of compile() is the base, such as 'sparse_categorical_crossentropy'. Give a "
                    f"compatibility loss to the model: BCModel(h2, h1=h1, loss=...). Received: loss={given!r}."
                )
        return BaseLoss(self.criterion) if loss is None and self.criterion is not None else loss
