"""What a wrapped Keras model keeps beside it, each by its life: what the user said, a compile, a step."""

from __future__ import annotations

import difflib
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from bc_core.losses._blends import H1, PLAIN, TEACHER
from bc_core.losses._dissonances import DISSONANCES
from bc_core.losses._options import (
    NORMALIZATIONS,
    DissonanceName,
    Normalization,
    check_lambda_of,
    check_loss,
    known,
    labels_suffice,
    only_known_options,
    options_of_dissonance,
)
from bc_keras.losses._compatibility_loss import CompatibilityLoss
from bc_keras.losses._losses import MODEL_LOSSES, ModelLoss
from bc_keras.metrics._overlap import OverlapMetric
from bc_keras.reference._blend import gives_logits
from bc_keras.reference._last_activation import activation_of, is_over_classes
from bc_keras.reference._reference import Reference
from bc_keras.training.beside._held_out_counts import HeldOutCounts
from bc_keras.training.beside._jax_step import reading
from bc_keras.training.beside._unlabelled import Mixtures, Unlabelled
from bc_keras.training.compiled._compile_arguments import overlap_metrics
from bc_keras.training.compiled._compiled_loss import CompiledLoss, DissonanceLoss
from bc_keras.training.compiled._output_watch import OutputWatch
from bc_keras.training.compiled._weighted_loss import over_labels

if TYPE_CHECKING:
    from bc_keras.training.promise._promise import Promised

TRACKERS = ("base_loss", "dissonance")
UNLABELLED = "unlabelled_dissonance"


@dataclass(frozen=True)
class Options:
    """What the user said of an update; see `BCModel`.

    Attributes:
        lambda_c: weight of the dissonance when training begins.
        dissonance: its name, where no loss says it.
        own: the options of that one.
        loss: as it was given.
        criterion: the `CompatibilityLoss` that it stands for, if there is one.
        normalization: what the dissonance is divided by.
        threshold: a binary score is class 1 from this probability on.
        from_logits: whether h2 gives logits, where the user says it.
        h1_from_logits: whether h1 does.
        multilabel: whether each column is a label of its own.
        arguments: those of the constructor that are saved as they were given.
    """

    lambda_c: float
    dissonance: DissonanceName
    own: dict[str, Any]
    loss: Any
    criterion: CompatibilityLoss | None
    normalization: Normalization
    threshold: float
    from_logits: bool | None
    h1_from_logits: bool | None
    multilabel: bool | None
    arguments: dict[str, Any] = field(repr=False)

    @classmethod
    def of(
        cls,
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
    ) -> Options:
        """Check the arguments of a `BCModel`."""
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
            known(normalization, NORMALIZATIONS, "normalization")
        if isinstance(loss, str) and loss in DISSONANCES:
            dissonance, loss = loss, None
        if dissonance is not None:
            known(dissonance, DISSONANCES, "dissonance")
        told = dict(loss_options or {})
        is_made = isinstance(loss, CompatibilityLoss | ModelLoss)
        if lambda_c is None:
            lambda_c = float(ops.convert_to_numpy(loss.lambda_c)) if is_made else 1.0  # type: ignore[union-attr]
        arguments = {
            "loss_options": told or None,
            "normalization": normalization,
            "from_logits": from_logits,
            "h1_from_logits": h1_from_logits,
            "threshold": threshold,
            "multilabel": multilabel,
        }
        divisor: Normalization = "batch" if normalization is None else normalization
        half = 0.5 if threshold is None else threshold
        criterion = _criterion_of(
            loss, half, told, normalization=divisor, from_logits=bool(from_logits), h1_from_logits=h1_from_logits
        )
        name = "new_error" if dissonance is None else dissonance
        if criterion is None:
            only_known_options(told, DISSONANCES[name].options, f"dissonance={name!r}")
            check_loss("cross_entropy", name, "batch", told, {"cross_entropy": ()})
        check_lambda_of(name if criterion is None else criterion.dissonance, lambda_c)
        if criterion is not None:
            if is_made:
                _check_agreement(criterion, arguments)
                divisor = criterion.normalization
            half = criterion.threshold
        return cls(
            lambda_c,
            name,
            options_of_dissonance(name, told) if criterion is None else {},
            loss,
            criterion,
            divisor,
            half,
            from_logits,
            h1_from_logits,
            multilabel,
            arguments,
        )

    @property
    def dissonance_name(self) -> str:
        """Name of the dissonance, such as ``"new_error"``."""
        return str(self.dissonance if self.criterion is None else self.criterion.dissonance)

    @property
    def imitates(self) -> bool:
        """Whether h1's probabilities are imitated, so that its labels do not suffice."""
        if self.criterion is None:
            return not labels_suffice(self.dissonance)
        return not self.criterion.labels_suffice


def options_of(door: type, *args: Any, **kwargs: Any) -> Options:
    """The same, of a call of `door`, a `BCModel`, which is named where an argument is none of its."""
    try:
        inspect.signature(Options.of).bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{door.__name__}() {error}") from None
    return Options.of(*args, **kwargs)


def _check_agreement(criterion: CompatibilityLoss, arguments: dict[str, Any]) -> None:
    """Refuse an argument that says otherwise than a loss that was made by the user."""
    is_binary = criterion.base == "binary_cross_entropy"
    for option in ("normalization", "from_logits", *(("threshold",) if is_binary else ())):
        if arguments[option] not in (None, getattr(criterion, option)):
            raise TypeError(
                f"{option} contradicts the loss, which has one of its own: leave it out here. Received: "
                f"{option}={arguments[option]!r}, loss with {option}={getattr(criterion, option)!r}."
            )


def _criterion_of(loss: Any, threshold: float, told: dict[str, Any], **options: Any) -> CompatibilityLoss | None:
    """The `CompatibilityLoss` that was asked for, if one was; with the options that a name was given, `told`."""
    if told and isinstance(loss, CompatibilityLoss | ModelLoss):
        raise TypeError(
            "loss_options are for a loss given by name: give these to the loss object itself. "
            f"Received: loss_options={told!r}."
        )
    if loss is None or isinstance(loss, CompatibilityLoss):
        return loss
    if isinstance(loss, ModelLoss):
        criterion: CompatibilityLoss = loss.criterion
        return criterion
    if isinstance(loss, str):
        if loss not in MODEL_LOSSES:
            names = (*MODEL_LOSSES, *DISSONANCES)
            near = difflib.get_close_matches(loss, names, n=1)
            raise ValueError(
                f"loss must be one of the eight named losses or a dissonance"
                f"{f', perhaps {near[0]!r}' if near else ''}: {', '.join(map(repr, names))}. The base, such as "
                f"'sparse_categorical_crossentropy', goes to compile(loss=...). Received: loss={loss!r}."
            )
        loss = MODEL_LOSSES[loss]
    if isinstance(loss, type) and issubclass(loss, ModelLoss):
        if loss.base == "binary_cross_entropy":
            options["discriminant_pivot"] = threshold
        if twice := sorted(set(told) & {*options, "lambda_c", "reduction"}):
            raise TypeError(f"Say {', '.join(twice)} to BCModel itself. Received: loss_options={told!r}.")
        return loss.on_outputs(1.0, **options, **told)
    raise TypeError(
        f"loss must be one of the eight named losses, by name or class, a dissonance by name, or a CompatibilityLoss. "
        f"The base goes to compile(loss=...). Received: loss={loss!r}."
    )


@dataclass
class Compiled:
    """What a compile says of h2, until the next.

    Attributes:
        base: the compiled loss.
        facts: how it reads outputs.
        activation: whether h2's last activation leaves logits; None where that cannot be seen.
        multilabel: whether each column is a label of its own; None for what the loss says.
        loss_weight: what Keras multiplies the base by, if anything.
        metrics: those of this package, and whether they are weighted.
        labels: what `over_labels` says of the base, where columns may be labels of their own.
        dissonance_loss: made with the first batch, which shows the kind of outputs.
        unlabelled_loss: the same for inputs without labels.
    """

    base: Any
    facts: CompiledLoss
    activation: bool | None
    multilabel: bool | None
    loss_weight: Any
    metrics: list[tuple[OverlapMetric, bool]]
    labels: str | None = None
    dissonance_loss: DissonanceLoss | None = None
    unlabelled_loss: DissonanceLoss | None = None

    @classmethod
    def of(cls, model: keras.Model, options: Options) -> Compiled:
        """Take from a model what the dissonance and the metrics need of its compile, if there was one."""
        base = model.loss if model.compiled else None
        if base is None:
            return cls(None, CompiledLoss.of(None), activation_of(model), options.multilabel, None, [])
        given = model._compile_config.config if getattr(model, "_compile_config", None) is not None else {}
        facts = CompiledLoss.of(base)
        if isinstance(options.loss, CompatibilityLoss | ModelLoss):
            says, wanted = facts.from_logits, None if options.criterion is None else options.criterion.from_logits
            if None not in (says, wanted) and says != wanted:
                raise ValueError(
                    "The compiled loss and the compatibility loss read h2's output differently: give both the same "
                    f"from_logits. Received: from_logits={says} in compile(), {wanted} in the compatibility loss."
                )
        metrics = overlap_metrics(given.get("metrics"), given.get("weighted_metrics"))
        for metric, _ in metrics:
            metric.reset_state()  # of an earlier model; Keras resets no metrics before the first batch has built them
        weight = (keras.tree.flatten(given.get("loss_weights")) or [None])[0]
        labels, multilabel = None, options.multilabel
        is_told = options.criterion is not None and options.criterion.base == "binary_cross_entropy"
        if multilabel is None and facts.binary and not is_told and is_over_classes(model):
            # A binary cross-entropy of each share of a softmax, which is right where the largest one is.
            multilabel = False
        if options.criterion is None and options.dissonance == "new_error" and (facts.binary or multilabel):
            labels = over_labels(keras.tree.flatten(base)[0], _columns_of_model(model))
        return cls(base, facts, activation_of(model), multilabel, weight, metrics, labels)


def _columns_of_model(model: keras.Model) -> int:
    """How many scores a model gives, or some number of them."""
    try:
        return int(model.output_shape[-1])
    except (AttributeError, IndexError, TypeError, ValueError):
        return 3  # a subclassed model that was not called yet


@dataclass
class Step:
    """One step: on JAX the values that it was given; whether the penalty, and unlabelled inputs, are in its loss."""

    given: Any = None
    has_penalised: bool = False
    has_gone_beyond: bool = False


class Compatibility:
    """h1, the options and lambda_c of a wrapped model, and what its present compile and step are.

    It is no Keras object, and so neither tracked nor saved, counted or trained with the model that it belongs to.

    Args:
        reference: who answers for h1.
        options: what the user said.
        user_class: the class of h2 without us.
        compiled: what its compile says.
        promised: what it is to keep, which moves lambda_c, if anything.
        teacher: who is imitated in place of h1.
        plain: who is imitated where h2 is right.
        unlabelled: inputs on which h2 imitates too.
    """

    def __init__(
        self,
        reference: Reference,
        options: Options,
        user_class: type,
        compiled: Compiled,
        promised: Promised | None = None,
        teacher: Reference | None = None,
        plain: Reference | None = None,
        unlabelled: Unlabelled | Mixtures | None = None,
    ) -> None:
        self.reference = reference
        self.teacher = teacher
        self.unlabelled = unlabelled
        self.plain = plain
        self.beside = self.whether_they_give_logits()
        self.options = options
        self.user_class = user_class
        self.compiled = compiled
        self.promised = promised
        # Of held-out data on which fit validates: counts of both models, by the steps that evaluate.
        self.held_out = None if promised is None else HeldOutCounts()
        # A variable: a number would be frozen into the compiled step.
        self._lambda_c = keras.Variable(
            options.lambda_c, dtype="float32", trainable=False, aggregation="only_first_replica", name="lambda_c"
        )
        # Means of the two halves of the loss over an epoch; Keras resets them with its metrics.
        self.trackers = [keras.metrics.Mean(name=name) for name in self.tracked]
        # What the steps show of the models' outputs, looked at between them; each run begins anew.
        self.training_watch = OutputWatch("training_watch", "so begin again with an h2 as it was before")
        self.testing_watch = OutputWatch("testing_watch", "so what was measured is of no use")
        # Replicas take their steps in threads of their own.
        self._steps = threading.local()

    @property
    def tracked(self) -> tuple[str, ...]:
        """The names of what is logged beside the user's metrics."""
        return TRACKERS if self.unlabelled is None else (*TRACKERS, UNLABELLED)

    @property
    def counting(self) -> list[keras.metrics.Metric]:
        """What begins anew with each epoch and validation."""
        return [*self.trackers, *([] if self.held_out is None else [self.held_out])]

    @property
    def imitated(self) -> Reference:
        """The teacher, or h1."""
        return self.reference if self.teacher is None else self.teacher

    def whether_they_give_logits(self) -> dict[str, bool]:
        """Of those that are imitated beside h1, by what they are called, whether they give logits."""
        others = {who: each for who, each in self.references.items() if who != H1}
        return {who: gives_logits(each, f"{who[0].upper()}{who[1:]}") for who, each in others.items()}

    @property
    def trains_labels(self) -> bool:
        """Whether a loss, or who wrapped h2, says that a score is a label's own, and not one of several classes."""
        given = self.options.criterion
        is_said = self.compiled.facts.binary or bool(self.compiled.multilabel)
        return is_said or (given is not None and given.base == "binary_cross_entropy")

    @property
    def has_stored(self) -> bool:
        """Whether rows of h1 or of who is imitated come beside the label."""
        return any(reference.stored is not None for reference in self.references.values())

    @property
    def references(self) -> dict[str, Reference]:
        """h1, and the teacher and the plain h2 where there are such, by what they are called."""
        given = {H1: self.reference, TEACHER: self.teacher, PLAIN: self.plain}
        return {who: reference for who, reference in given.items() if reference is not None}

    @property
    def h1(self) -> Any:
        """The model in use, as it was given."""
        return self.reference.h1

    @property
    def lambda_c(self) -> float:
        """Weight of the dissonance."""
        return float(ops.convert_to_numpy(self._lambda_c))

    @lambda_c.setter
    def lambda_c(self, value: float) -> None:
        check_lambda_of(self.options.dissonance_name, value)
        self._lambda_c.assign(value)

    # The present step

    @property
    def step(self) -> Step:
        """The step that is taken; one without values where `compute_loss` is called outside of any."""
        return getattr(self._steps, "present", None) or Step()

    @contextmanager
    def taking(self, given: Any) -> Iterator[Step]:
        """Take a step, with the values that it was given."""
        self._steps.present = step = Step(given)
        try:
            yield step
        finally:
            self._steps.present = None  # the values are tracers, of no use outside

    @property
    def weight(self) -> Any:
        """lambda_c in the present step."""
        given = self.step.given
        return self._lambda_c.value if given is None else given["lambda_c"]

    def ask(self, reference: Reference, x: Any, columns: int, from_logits: bool, multilabel: bool) -> Any:
        """Answers of h1, or of who is imitated, about a batch, within a step."""
        given, variables = self.step.given, reference.variables
        if given is None or not variables:
            # A callable reads what it reads, also of the step's own state.
            return reference(x, columns, from_logits, multilabel)
        with reading(variables, given[next(who for who, each in self.references.items() if each is reference)]):
            return reference(x, columns, from_logits, multilabel)

    def values_for_jax(self, h2: keras.Model, trains: bool) -> Callable[[], dict[str, Any]]:
        """What a compiled step of JAX is to be given beside its batch and the state of `h2`, anew for each."""
        own = {id(variable) for variable in h2.variables}
        asked = {who: reference.variables for who, reference in self.references.items()}
        foreign = {name: [None if id(each) in own else each for each in variables] for name, variables in asked.items()}

        def values() -> dict[str, Any]:
            return {
                "lambda_c": self._lambda_c.value,
                **({"unlabelled": self.unlabelled.next_values()} if trains and self.unlabelled is not None else {}),
                **{name: [None if each is None else each.value for each in foreign[name]] for name in foreign},
            }

        return values


def compatibility_of(model: Any) -> Compatibility | None:
    """What a wrapped model is held to; None of any other."""
    found: Compatibility | None = getattr(model, "__dict__", {}).get("_compatibility")
    return found
