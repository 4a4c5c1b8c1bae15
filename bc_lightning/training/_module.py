"""`BCLightningModule`: a LightningModule (or plain module) that is trained to stay compatible with h1.

Why the class of the instance is changed, instead of nesting the user's module inside another: nested, its
``self.log`` is refused, its hooks and flags have to be copied one by one, its checkpoints get other keys, and
manual optimisation loses the penalty silently. An instance whose class is made from (ours, the user's) is still the
user's module in every respect, and gives back the very same object when it is unwrapped.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Dataset

from bc_core import Promise, check_lambda
from bc_core.losses._blends import PLAIN, check_scale_of_blend
from bc_core.losses._dissonances import DISSONANCES
from bc_core.losses._mixtures import LABELS, WEIGHT, check_beside_unlabelled
from bc_core.losses._options import check_known_scores, check_lambda_of, check_scale, known
from bc_core.promise._keeper import PromiseOptions
from bc_core.reference._weights import check_start_from
from bc_lightning._packages import LightningModule
from bc_lightning._user_module import class_of, lightning_module_class, only_network
from bc_lightning.losses._compatibility_loss import CompatibilityLoss
from bc_lightning.losses._losses import MODEL_LOSSES, ModelLoss
from bc_lightning.reference._reference import Reference
from bc_lightning.reference._shared_parameters import check_no_shared_parameters
from bc_lightning.reference._stored import StoredOutputs
from bc_lightning.training._made_class import made_class, plain_classifier_class
from bc_lightning.training._references import check_blend_of_probabilities, imitated_reference, reference_for
from bc_lightning.training._state import STAGES, Compatibility, Options, Scores, Stage, WhichCall, compatibilities_of
from bc_lightning.training._warm_start import started
from bc_lightning.training._wrapped import CompatibleStep
from bc_lightning.training.comparisons._comparisons import LogComparisons
from bc_lightning.training.promise._held_out import check_promise_data
from bc_lightning.training.promise._promise import Promised
from bc_lightning.training.step._unlabelled import check_unlabelled


class _Door(type):
    """What comes out of the door is no instance by its class, which knows one of the two Lightning packages alone."""

    def __instancecheck__(cls, instance: object) -> bool:
        return bool(compatibilities_of(instance))


class BCLightningModule(CompatibleStep, LightningModule, metaclass=_Door):
    """Train a module so that it keeps right what h1 gets right.

    Not a base class but a door: ``BCLightningModule(model, h1=...)`` returns `model` itself, an instance whose
    class is now made from this one and its own. Its training_step, hooks, logging, optimisers, hyperparameters
    and checkpoints are untouched; the dissonance is added to its loss, and one call of h2 per step serves both. A
    plain ``nn.Module`` gets the steps it lacks. `unwrap` gives the user's own class back.

    In manual optimisation the penalty is added by ``self.manual_backward`` to the loss of the labels that h2's scores
    lead to, as it is: a step that divides its loss by the number of batches it accumulates needs a `lambda_c` divided
    by it too. Two losses of the same scores of which neither is known to be the one are refused.

    The dissonance is a mean over the batch of what `loss` says of the scores that h2 returned. Class weights, label
    smoothing and ``pos_weight`` of the user's own loss are in it only if `loss_options` have them; its
    ``reduction="sum"``, weights of instances and logit adjustment (``self(x) + prior``) are not.

    Logged once per epoch, as ``train_...``, ``val_...`` and ``test_...``: ``base_loss``, ``dissonance``, ``btc``,
    ``bec_given_h1_wrong``, ``bec_given_h2_wrong``, ``nfr``, ``accuracy_h1``, ``accuracy_h2``; from counts summed
    over the epoch and all processes, without the instances that a DistributedSampler repeats. ``train_base_loss``
    is the loss that the user's training_step returned; in the other stages it is the base of `loss`.

    Args:
        model: h2: a LightningModule (of pytorch_lightning or lightning.pytorch) or a plain ``nn.Module``. Its step
            calls h2 once on each batch; h1 gets the very arguments that h2 got.
        h1: the reference: a module, any callable, or `StoredOutputs` (`bc_lightning.store_outputs`).
        loss: one of the eight losses by name or class, a dissonance by name (``"imitation"``, or any other of
            `CompatibilityLoss`; its base is ``loss_options["base"]``, else cross entropy), or a `CompatibilityLoss`
            object. A LightningModule keeps its own base loss, so only the dissonance of `loss` reaches its gradients.
        lambda_c: weight of the dissonance, >= 0, or a schedule ``(epoch: float) -> float`` such as `LinearLambda`.
            By default what `loss` says, else 1.
        loss_options: options for a loss given by name, such as ``{"from_logits": True}`` or ``{"weight": ...}``.
        scores: what the class scores are, if not what forward returns: the name of a submodule whose output they are,
            or a function of forward's output, such as ``lambda output: output[0]``. By default forward's output, or
            that of the submodule that the step itself calls, where the first batch leaves no doubt.
        h1_scores: the same for h1. By default what `scores` says where h1 was made as h2 is (of its class, one derived
            from it, or one that it derives from), else what h1 returns.
        target: where the target is in a batch: an index, a key or a function of the batch. By default element 1
            of a sequence, or the first of "target", "targets", "label", "labels", "y" of a mapping, a named tuple or
            an object's attributes. It is read before the step. A step that trains on something else, such as mixed
            labels, hands it over: ``self.compatibility_target = y`` (class indices, or probabilities (N, C)).
        class_axis: which axis of scores with more than two holds the classes: 1, as in torch's losses, or -1. By
            default the one that fits the target's shape; the last for outputs of Hugging Face's models. h1's may
            stand on the other: its shape tells, or `h1_scores` moves them.
        call: which call counts where a step calls h2 several times: ``"first"``, an index such as -1, or a function of
            the list of calls (each with ``args``, ``kwargs``, ``output``) that gives the index. By default several
            calls are refused.
        class_map: for an h1 with other classes: ``class_map[i]`` is h2's index of h1's class i, or -1 where h2 has it
            no more; where classes are new, merged or split, a `bc_core.ClassMap` says so. Of an h1 that gives scores
            those of a class that is gone are left out, and it chooses among the others; of one that gives labels only,
            such a label counts as wrong.
        stages: the stages that are watched; a stage whose step does not call h2 once is left out here.
        log_prefix: put before every logged name.
        inputs: where the models' input is in a batch: an index, a key or a function of the batch. By default a plain
            module gets the first element, and h1 gets what h2 was called with.
        optimizer: for a plain module: an optimiser, or a function that makes one of the parameters.
        lr_scheduler: for a plain module: a function that makes a scheduler of the optimiser.
        lightning_module: for a plain module: the LightningModule class of the package whose Trainer will train it,
            where pytorch_lightning and lightning.pytorch are both in use; by default the calling code's.
        start_from: ``"h1"`` copies h1's weights into h2 here, where names and shapes match, and says what was copied;
            see `warm_start`. A checkpoint that is resumed from comes later and has the last word.
        comparisons: whether each validation and test epoch's comparison, with the instances that broke, goes to the
            Trainer's `TensorBoardLogger`s; or `LogComparisons` to name classes and instances, and show images.
        promise: instead of `lambda_c`, what is to be kept: ``"nfr <= 0.5%"``, ``"btc >= 98%"``, several joined by a
            comma. lambda_c then moves while the model trains, so that the one-sided bound of the score on held-out data
            keeps it, and the training ends with the weights that did so with the best accuracy. ``h2.promise`` is a
            `PromiseVerdict` afterwards. See ``docs/promises.md``.
        promise_data: held-out data for it: a data loader, a list of batches or a ``Dataset``, read as `evaluate` reads
            them, when an epoch ends. By default the validation data, whose scores are computed anyway.
        promise_options: ``confidence`` of the bound (0.95), ``keep`` (``"best"`` weights, or ``"last"``), ``average``
            (whether a mean of weights may be the best, True), ``every`` (look at `promise_data` every so many steps
            too), and lambda_c's ``start`` (2) and ``most`` (64).
        teacher: what is imitated in place of h1, by a loss that imitates: a model, `StoredOutputs`, a `Reference`, or a
            blend of several as a list ``[(model, weight), ...]``. Support and scores are h1's all the same.
        plain: a model that was trained without h1, in any form of `teacher`: imitated in place of h1 wherever h2 is
            right at present, so that h1 is imitated where h2 is wrong alone; with ``loss="imitation"`` MUSCLE.
        unlabelled: a loader of inputs without labels, one batch of which each training step takes too; begun anew at
            its end. h1, or the teacher, is asked about it, and h2, which is run once more, imitates the answer.
            Logged as ``train_unlabelled_dissonance``.
            ``"mixed"`` takes mixtures of each batch's own inputs in place of others (mixup): floating tensors, as h2
            got them.
        unlabelled_weight: what the mean dissonance of unlabelled inputs counts beside that of the batch, >= 0.
        mixed_labels: of mixtures, the share of their labels, mixed alike, in what h2 is taught; the rest is h1's
            answer. 0 for that alone.

    Raises:
        TypeError: `model` is no module, is wrapped or compiled already, or has an optimiser of its own and gets one.
        ValueError: unknown loss or option, negative lambda_c, h1 and h2 share parameters, a labels-only h1 with an
            imitating loss, an unknown submodule. While training: see `bc_lightning.functional.compatibility_loss`,
            and NaN or infinite outputs (says whose and at which step).
        RuntimeError: while training: a step that calls h2 never or twice, changes its scores in place, or begins to
            change its input in place after the first batch.

    Example:
        >>> import torch
        >>> from bc_lightning import BCLightningModule, unwrap
        >>> h1, h2 = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
        >>> module = BCLightningModule(h2, h1=h1, lambda_c=2.0, optimizer=torch.optim.Adam)
        >>> unwrap(module) is h2
        True
    """

    # The work is done in __new__, since what comes back is the caller's own object, initialised long ago.
    # This signature is what LightningCLI and type checkers read.
    def __init__(
        self,
        model: nn.Module,
        h1: nn.Module | Callable[..., Any] | Reference | StoredOutputs | None = None,
        loss: str | CompatibilityLoss | ModelLoss | type[ModelLoss] = "BCCrossEntropyLoss",
        lambda_c: float | Callable[[float], float] | None = None,
        *,
        loss_options: dict[str, Any] | None = None,
        scores: str | Callable[[Any], Tensor] | None = None,
        h1_scores: str | Callable[[Any], Tensor] | None = None,
        target: str | int | Callable[[Any], Any] | None = None,
        class_axis: int | None = None,
        call: str | int | Callable[[list[Any]], int] | None = None,
        class_map: list[Any] | dict[str, Any] | None = None,
        stages: Sequence[str] = STAGES,
        log_prefix: str = "",
        inputs: str | int | Callable[[Any], Any] | None = None,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | Optimizer | None = None,
        lr_scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        lightning_module: type[Any] | None = None,
        start_from: str | None = None,
        comparisons: LogComparisons | bool = True,
        promise: str | list[str] | Promise | None = None,
        # Bare, as LightningCLI can make no Dataset[Any] out of a class_path.
        promise_data: Iterable[Any] | Dataset | DataLoader | None = None,  # type: ignore[type-arg]
        promise_options: dict[str, Any] | None = None,
        teacher: nn.Module | Callable[..., Any] | Reference | StoredOutputs | list[Any] | None = None,
        plain: nn.Module | Callable[..., Any] | Reference | StoredOutputs | list[Any] | None = None,
        unlabelled: Literal["mixed"] | Iterable[Any] | DataLoader | None = None,  # type: ignore[type-arg]
        unlabelled_weight: float = WEIGHT,
        mixed_labels: float = LABELS,
    ) -> None:
        pass

    def __new__(cls, model: nn.Module, h1: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Wrap `model`; see the class."""
        if cls is not BCLightningModule:
            raise TypeError(
                f"BCLightningModule is no base class. Let {cls.__name__} derive from LightningModule, and wrap an "
                f"instance: BCLightningModule({cls.__name__}(...), h1=...)."
            )
        unmade = sorted({name.split(".")[0] for name in kwargs if "." in name})
        if unmade:
            # LightningCLI goes on with the bare configuration of what it could not make, and drops the reason.
            raise ValueError(
                f"{', '.join(unmade)} of the configuration could not be made, and the parser has dropped the reason. "
                f"Make it in a Python shell to see it; for load_h1 look at the checkpoint's path and the prefix. "
                f"Received: { ({name: kwargs[name] for name in sorted(kwargs) if '.' in name}) }."
            )
        return _wrap(model, h1, *args, **kwargs)


def _wrap(
    model: nn.Module,
    h1: Any,
    loss: str | CompatibilityLoss | ModelLoss | type[ModelLoss] = "BCCrossEntropyLoss",
    lambda_c: float | Callable[[float], float] | None = None,
    *,
    loss_options: dict[str, Any] | None = None,
    scores: str | Callable[[Any], Tensor] | None = None,
    h1_scores: str | Callable[[Any], Tensor] | None = None,
    target: str | int | Callable[[Any], Any] | None = None,
    class_axis: int | None = None,
    call: WhichCall = None,
    class_map: Sequence[Any] | Mapping[str, Any] | None = None,
    stages: Sequence[str] = STAGES,
    log_prefix: str = "",
    inputs: str | int | Callable[[Any], Any] | None = None,
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | Optimizer | None = None,
    lr_scheduler: Callable[[Optimizer], LRScheduler] | None = None,
    lightning_module: type[Any] | None = None,
    start_from: str | None = None,
    comparisons: LogComparisons | bool = True,
    promise: str | list[str] | Promise | None = None,
    promise_data: Iterable[Any] | Dataset | DataLoader | None = None,  # type: ignore[type-arg]
    promise_options: dict[str, Any] | None = None,
    teacher: Any = None,
    plain: Any = None,
    unlabelled: Literal["mixed"] | Iterable[Any] | DataLoader | None = None,  # type: ignore[type-arg]
    unlabelled_weight: float = WEIGHT,
    mixed_labels: float = LABELS,
) -> Any:
    _check_wrappable(model, log_prefix)
    _drop_rebound_forward(model)
    _check_no_step_on_the_instance(model)
    for stage in (stages := [stages] if isinstance(stages, str) else list(stages)):
        known(stage, STAGES, "stage")
    if class_axis not in (None, 1, -1):
        raise ValueError(f"class_axis must be 1 or -1. Received: class_axis={class_axis!r}.")
    if not (
        call is None or call == "first" or callable(call) or (isinstance(call, int) and not isinstance(call, bool))
    ):
        raise ValueError(f"call must be 'first', an index or a function of the calls. Received: call={call!r}.")
    check_beside_unlabelled(unlabelled, unlabelled_weight, mixed_labels)
    held_to = promised_by(promise, promise_data, promise_options, lambda_c)
    if held_to is not None and hasattr(model, "promise"):
        raise TypeError(
            f"{class_of(model)} has an attribute 'promise' already, of its own or of another h1's promise. The verdict "
            f"is to be found there, and of one promise alone: name yours otherwise, or hold h2 to one promise."
        )
    criterion = criterion_of(loss, lambda_c if held_to is None else _moved, loss_options or {})
    if h1 is None and isinstance(loss, ModelLoss):
        h1 = loss.reference
    if h1 is None:
        raise TypeError("h1 is missing. Pass the model in use: BCLightningModule(model, h1=old_model).")
    scores = scores if scores is not None else only_network(model)
    _check_scores(model, scores)
    reference = reference_for(model, h1, scores, h1_scores, class_map)
    check_no_shared_parameters(reference, model)
    taught = imitated_reference(model, teacher, scores, criterion)
    unheld = imitated_reference(model, plain, scores, criterion, PLAIN)
    check_blend_of_probabilities(reference, criterion, "h1")
    if taught is None:
        check_scale(criterion.dissonance, reference.class_map)
        check_scale_of_blend(criterion.dissonance, reference.fingerprint)
        check_known_scores(criterion.dissonance, reference.labels_only)
    if check_start_from(start_from):
        started(model, reference, optimizer)
    lacks_steps = lightning_module_class(type(model)) is None
    if lacks_steps:
        model = plain_classifier_class(lightning_module or _callers_lightning_module())(
            model, inputs, optimizer, lr_scheduler
        )
        scores = f"model.{scores}" if isinstance(scores, str) else scores
    elif optimizer is not None or lr_scheduler is not None:
        raise TypeError(
            f"{class_of(model)} is a LightningModule and configures its own optimisers. Leave out optimizer and "
            f"lr_scheduler; they are for plain modules."
        )
    options = Options(
        reference,
        criterion,
        lambda_c if callable(lambda_c) else None,
        scores,
        target,
        inputs,
        class_axis,
        call,
        tuple(cast("list[Stage]", stages)),
        log_prefix,
        LogComparisons.of(comparisons),
        lacks_steps,
        held_to,
        promise_data,
        taught,
        unheld,
        check_unlabelled(unlabelled, unlabelled_weight, mixed_labels, taught or reference),
    )
    state = Compatibility(options)
    if held_to is not None:
        state.promised = Promised(held_to, criterion.dissonance)
        cast("Tensor", criterion.lambda_c).fill_(state.promised.keeper.lambda_c)
    model.__dict__.setdefault("_compatibilities", []).append(state)
    if "_user_class" not in type(model).__dict__:
        model.__class__ = made_class(type(model))
    return model


def _moved(epoch: float) -> float:
    """A lambda_c that a promise will fill in."""
    return 0.0


def promised_by(
    promise: Any, data: Any, options: dict[str, Any] | None, lambda_c: float | Callable[[float], float] | None
) -> PromiseOptions | None:
    """What was said of a promise, if one was given."""
    if promise is None and options is not None:
        raise TypeError("promise_options without a promise: say which, such as promise='nfr <= 0.5%'.")
    held_to = None if promise is None else PromiseOptions.of(promise, options, lambda_c)
    check_promise_data(data, held_to)
    return held_to


def _check_scores(model: nn.Module, scores: Scores) -> None:
    if isinstance(scores, str):
        try:
            model.get_submodule(scores)
        except AttributeError:
            names = [name for name, _ in model.named_modules() if name]
            raise ValueError(
                f"scores={scores!r} names no submodule of {class_of(model)}. Known: {', '.join(map(repr, names))}."
            ) from None


# An argument that does not exist is reported under the name that the caller knows.
_wrap.__qualname__ = "BCLightningModule"


def unwrap(module: nn.Module) -> Any:
    """Give back the user's own module: its class, no hooks, no h1. A plain module comes back as it was given.

    Args:
        module: what `BCLightningModule` returned. Anything else is returned unchanged.

    Example:
        >>> import torch
        >>> from bc_lightning import BCLightningModule, unwrap
        >>> net = torch.nn.Linear(2, 2)
        >>> unwrap(BCLightningModule(net, h1=torch.nn.Linear(2, 2))) is net
        True
    """
    states = compatibilities_of(module)
    if not states:
        return module
    _drop_rebound_forward(module)
    del module.__dict__["_compatibilities"]
    module.__class__ = cast("Any", module)._user_class
    return module.model if states[0].options.supplies_base else module


def _check_wrappable(model: Any, log_prefix: str) -> None:
    if isinstance(model, torch._dynamo.OptimizedModule) or getattr(model, "_compiler_ctx", None) is not None:
        raise TypeError(
            "model is compiled already. Compile after wrapping: torch.compile(BCLightningModule(model, h1=...))."
        )
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be a LightningModule or an nn.Module. Received: {type(model).__name__}"
            + (" (a class: make an instance)." if isinstance(model, type) else ".")
        )
    if log_prefix in {state.options.log_prefix for state in compatibilities_of(model)}:
        raise TypeError(
            "model is wrapped already. To change h1 or the loss, unwrap(model) first; to hold it to a second h1 as "
            "well, give its scores names of their own: BCLightningModule(model, h1=other, log_prefix='other_')."
        )


def _drop_rebound_forward(model: nn.Module) -> None:
    """DDP in Lightning leaves the class's own forward bound on the instance, where another class would not be seen."""
    forward = model.__dict__.get("forward")
    if getattr(forward, "__self__", None) is model and getattr(forward, "__func__", None) is type(model).forward:
        del model.__dict__["forward"]


def _check_no_step_on_the_instance(model: nn.Module) -> None:
    for name in ("training_step", "validation_step", "test_step", "forward"):
        if name in model.__dict__:
            raise TypeError(
                f"{class_of(model)} has its {name} set on the instance, where it would bypass the penalty. Define it "
                f"in the class; compile after wrapping: torch.compile(BCLightningModule(model, h1=...))."
            )


def criterion_of(
    loss: str | CompatibilityLoss | ModelLoss | type[ModelLoss],
    lambda_c: float | Callable[[float], float] | None,
    options: dict[str, Any],
) -> CompatibilityLoss:
    """The loss on outputs that `loss` names or is: a copy, since its lambda_c may change here."""
    dissonance = None
    if isinstance(loss, str):
        known(loss, (*MODEL_LOSSES, *DISSONANCES), "loss")
        dissonance = loss if loss in DISSONANCES else None
        loss = MODEL_LOSSES.get(loss, loss)
    if callable(lambda_c):
        first = lambda_c(0.0)
        check_lambda(first)
        # A tensor, filled in place later: a new number in every step would recompile a compiled step.
        weight: Any = torch.tensor(float(first))
    else:
        weight = lambda_c
    if dissonance is not None:
        made: dict[str, Any] = {"base": "cross_entropy", **options, "dissonance": dissonance}
        criterion = CompatibilityLoss(lambda_c=1.0 if weight is None else weight, **made)
        if isinstance(weight, Tensor):
            check_lambda_of(dissonance, float(first))
        return criterion
    if isinstance(loss, type) and issubclass(loss, ModelLoss):
        return loss.on_outputs(1.0 if weight is None else weight, **options)
    if isinstance(loss, ModelLoss):
        loss = loss.criterion
    if not isinstance(loss, CompatibilityLoss):
        raise TypeError(
            f"loss must be a CompatibilityLoss or one of {', '.join(map(repr, MODEL_LOSSES))}. "
            f"Received: {type(loss).__name__}."
        )
    if options:
        raise TypeError("loss_options are for a loss given by name. Give these to the loss object itself.")
    loss = copy.deepcopy(loss)
    if weight is not None:
        loss.lambda_c = weight
    return loss


def _callers_lightning_module() -> Any:
    """The LightningModule of the package that the calling code uses.

    `pytorch_lightning` and `lightning.pytorch` are two copies, whose Trainers refuse each other's modules, and a plain
    module does not say which of them will train it. Both may be imported, so the nearest caller that has one of the
    packages, or a Trainer or LightningModule of one, among its globals decides.
    """
    other = sys.modules.get("lightning.pytorch")
    if other is None:
        return pl.LightningModule
    told_by: dict[int, Any] = {id(sys.modules["lightning"]): other}
    for package in (pl, other):
        told_by |= {id(found): package for found in (package, package.Trainer, package.LightningModule)}
    frame: Any = sys._getframe(1)
    while frame is not None:
        if not frame.f_globals.get("__name__", "").startswith("bc_lightning"):
            for value in list(frame.f_globals.values()):
                if id(value) in told_by:
                    return told_by[id(value)].LightningModule
        frame = frame.f_back
    return pl.LightningModule
