"""What a wrapped module does in a step: capture h2's one call, ask h1, add the penalty, record, log."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeVar, cast

import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.utils.data.distributed import DistributedSampler

from bc_lightning._comparisons import (
    EpochInstances,
    LogComparisons,
    comparison_of,
    gathered,
    ids_of_batch,
    tensorboard_loggers,
    write,
)
from bc_lightning._epoch_record import EpochRecord
from bc_lightning._losses import CompatibilityLoss
from bc_lightning._model_outputs import inputs_from_batch, scores_from_output, target_from_batch
from bc_lightning._packages import logged_name
from bc_lightning._reference import Reference
from bc_lightning._stored import split_batch, stored_behind
from bc_lightning._strategies import check_strategy
from bc_lightning.functional._alignment import check_finite, is_probabilities
from bc_lightning.functional._compatibility_loss import Labels, LossTerms, check_lambda, labels_of

if TYPE_CHECKING:
    import pytorch_lightning as pl

_Function = TypeVar("_Function", bound=Callable[..., Any])
# Recording and logging stay outside of compiled graphs: they read Python state that changes in every step.
_eager = cast("Callable[[_Function], _Function]", torch.compiler.disable)

Stage = Literal["train", "val", "test"]
STAGES: tuple[Stage, ...] = ("train", "val", "test")
CHECKPOINT_KEY = "backward_compatibility"


class _Capture(NamedTuple):
    """One call of h2 inside a step: what it was given and what it answered."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any


class Compatibility:
    """What a wrapped module carries beside itself. No nn.Module, so nothing of it reaches a checkpoint."""

    def __init__(
        self,
        reference: Reference,
        loss: CompatibilityLoss,
        scores: str | Callable[[Any], Tensor] | None,
        target: str | int | Callable[[Any], Any] | None,
        inputs: str | int | Callable[[Any], Any] | None,
        stages: Sequence[str],
        log_prefix: str,
        comparisons: LogComparisons | None = None,
    ) -> None:
        self.reference = reference
        self.loss = loss
        self.schedule: Callable[[float], float] | None = None
        self.scores = scores
        self.target = target
        self.inputs = inputs
        self.stages = tuple(stages)
        self.log_prefix = log_prefix
        self.comparisons = comparisons
        self.instances: dict[tuple[str, int], EpochInstances] = {}
        self.epochs_begun: dict[str, int] = {}
        self.supplies_base = False
        self.moves_along = True
        self.stage: Stage | None = None
        self.batch: Any = None
        self.batch_idx: int | None = None
        self.rows: Tensor | None = None
        self.indices: Tensor | None = None
        self.captures: list[_Capture] = []
        self.captured_in_step = 0
        self.forward_calls: list[_Capture] = []
        self.first_step_seen = False
        self.logged: set[str] = set()
        self.unnamed: set[str] = set()
        self.records: dict[tuple[str, int], EpochRecord] = {}
        self.seen: dict[tuple[str, int], tuple[int | None, int, int]] = {}
        self.recorded_batch: tuple[str, int, int | None] | None = None
        self.first_bad: Tensor | None = None
        self.hook: torch.utils.hooks.RemovableHandle | None = None

    @property
    def lambda_is_zero(self) -> bool:
        return self.schedule is None and not isinstance(self.loss.lambda_c, Tensor) and self.loss.lambda_c == 0

    def apply(self, fn: Callable[[Tensor], Tensor]) -> None:
        if not self.moves_along:
            return
        self.reference.apply(fn)
        # The loss goes to the same device but keeps its precision: it computes in float32 whatever h2 is.
        device = fn(torch.empty(0)).device
        self.loss.to(device)
        if isinstance(self.loss.lambda_c, Tensor):
            self.loss.lambda_c = self.loss.lambda_c.to(device)

    def checkpoint_entry(self) -> dict[str, Any]:
        """What a checkpoint says of h1; plain values, so that it loads without this package."""
        return {"version": 1, "h1_fingerprint": self.reference.fingerprint, "loss": repr(self.loss)}

    def begin(self, stage: Stage) -> None:
        """Forget what an epoch that was interrupted has left."""
        for kept in (self.records, self.instances):
            for key in [key for key in kept if key[0] == stage]:
                del kept[key]
        self.seen = {key: seen for key, seen in self.seen.items() if key[0] != stage}
        self.recorded_batch = None

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Forward hook of the submodule named by `scores`."""
        self.capture(args, kwargs, output)

    def capture(self, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if self.stage is not None:
            self.captures.append(_Capture(args, kwargs, output))
            self.captured_in_step += 1


def class_of(module: nn.Module) -> str:
    return type(module).__name__


class CompatibleStep:
    """The methods that a made class puts before the user's. Everything else of the user's class stays as it is."""

    _compatibility: Compatibility
    _user_class: ClassVar[type[Any]]
    _rebuild_from: ClassVar[tuple[type[Any], bool]]

    # -- what flows by ------------------------------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)  # type: ignore[misc]
        state = self._compatibility
        if not isinstance(state.scores, str):
            state.capture(args, kwargs, output)
        elif state.stage is not None:
            # Scores come from a submodule; h1 is still asked what the whole of h2 was asked.
            state.forward_calls.append(_Capture(args, kwargs, None))
        return output

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # h1 is no submodule, so whatever moves or casts h2 has to reach it from here.
        self._compatibility.apply(fn)
        return super()._apply(fn, recurse)  # type: ignore[misc]

    def to_empty(self, *args: Any, **kwargs: Any) -> Any:
        # h2 will be filled from a checkpoint; nobody would fill h1 again.
        self._compatibility.moves_along = False
        try:
            return super().to_empty(*args, **kwargs)  # type: ignore[misc]
        finally:
            self._compatibility.moves_along = True

    def _on_before_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Any:
        # Before the user's own batch hooks, which know nothing of stored rows.
        batch, rows, indices = split_batch(batch)
        if rows is not None and rows.dtype in (torch.float16, torch.bfloat16):
            # The Trainer's precision has rounded what the loader brought; the store has it in full.
            rows = _rows_in_full(self, dataloader_idx, indices)
        self._compatibility.rows = rows
        self._compatibility.indices = indices
        return super()._on_before_batch_transfer(batch, dataloader_idx)  # type: ignore[misc]

    # -- training -----------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        check_strategy(cast("Any", self).trainer)
        super().setup(stage)  # type: ignore[misc]

    def manual_backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        if self._compatibility.captures:
            loss = _with_penalty(self, loss)
        super().manual_backward(loss, *args, **kwargs)  # type: ignore[misc]

    def on_train_batch_start(self, batch: Any, batch_idx: int, *args: Any) -> Any:
        state = self._compatibility
        if state.schedule is not None:
            module = cast("pl.LightningModule", self)
            batches = module.trainer.num_training_batches
            epoch = module.current_epoch + (batch_idx / batches if batches != float("inf") else 0.0)
            value = state.schedule(epoch)
            check_lambda(value)
            # A tensor, filled in place: a new number in every step would recompile a compiled step.
            cast("Tensor", state.loss.lambda_c).fill_(value)
        return super().on_train_batch_start(batch, batch_idx, *args)  # type: ignore[misc]

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_end(outputs, batch, batch_idx)  # type: ignore[misc]
        trainer = cast("Any", self).trainer
        # Reading a flag waits for the device, so only where Lightning reads the logged values anyway.
        every = trainer.log_every_n_steps
        if every and (batch_idx + 1) % every == 0:
            _raise_if_not_finite(self._compatibility)

    # -- logs ---------------------------------------------------------------------------------------------------

    def on_train_epoch_start(self) -> None:
        _begin(self, "train")
        super().on_train_epoch_start()  # type: ignore[misc]

    def on_fit_end(self) -> None:
        super().on_fit_end()  # type: ignore[misc]
        trainer = cast("Any", self).trainer
        if trainer.num_training_batches == 0 and trainer.limit_train_batches:
            raise ValueError(
                "The training data are empty: the loader gives no batch, so nothing was trained. Expected at least "
                "one; look at the data set's length, and at drop_last with a batch size above it."
            )

    def on_validation_epoch_start(self) -> None:
        _begin(self, "val")
        super().on_validation_epoch_start()  # type: ignore[misc]

    def on_test_epoch_start(self) -> None:
        _begin(self, "test")
        super().on_test_epoch_start()  # type: ignore[misc]

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()  # type: ignore[misc]
        _log_epoch(self, "train")

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()  # type: ignore[misc]
        _log_epoch(self, "val")

    def on_test_epoch_end(self) -> None:
        super().on_test_epoch_end()  # type: ignore[misc]
        _log_epoch(self, "test")

    # -- checkpoints --------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)  # type: ignore[misc]
        checkpoint[CHECKPOINT_KEY] = self._compatibility.checkpoint_entry()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)  # type: ignore[misc]
        saved = checkpoint.get(CHECKPOINT_KEY)
        module = cast("pl.LightningModule", self)
        fitting = module._trainer is not None and module.trainer.state.fn == "fit"
        if saved is None or not fitting:
            # Started without h1, or only evaluated: comparing with another h1 is then what was asked for.
            return
        given = self._compatibility.reference.fingerprint
        if saved["h1_fingerprint"] != given:
            raise ValueError(
                f"This checkpoint was trained to be compatible with another h1: its fingerprint is "
                f"{saved['h1_fingerprint']}, that of the h1 given here is {given}. Resume with the h1 it was started "
                f"with, or start a new training from its weights: load_state_dict(checkpoint['state_dict'])."
            )

    @classmethod
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> Any:
        """Load h2 as the user's own class; wrap it again to go on training against h1."""
        if not hasattr(cls, "_user_class"):
            raise TypeError(
                "Load h2 as the class it is, YourModule.load_from_checkpoint(path), and wrap it again to go on."
            )
        return cls._user_class.load_from_checkpoint(*args, **kwargs)

    # -- copies -------------------------------------------------------------------------------------------------

    def __reduce_ex__(self, protocol: Any) -> Any:
        # The made class has no name that could be imported; it is made again from the user's.
        get_state = getattr(self, "__getstate__", None)
        state = get_state() if get_state is not None else self.__dict__
        return rebuild, self._rebuild_from, state


def rebuild(user_class: type[Any], plain: bool) -> Any:
    """An empty instance of the class made from `user_class`; what pickle and copy call."""
    # Here, since the class is made by the module that imports this one.
    from bc_lightning._module import made_class, plain_classifier_class

    return object.__new__(made_class(plain_classifier_class(user_class) if plain else user_class))


# -- the step ---------------------------------------------------------------------------------------------------


@contextmanager
def _capturing(module: Any, stage: Stage, batch: Any, batch_idx: int | None) -> Iterator[Compatibility]:
    state: Compatibility = module._compatibility
    state.stage, state.batch, state.batch_idx = stage, batch, batch_idx
    state.captures.clear()
    state.forward_calls.clear()
    state.captured_in_step = 0
    try:
        yield state
    finally:
        state.stage = state.batch = None
        state.captures.clear()
        state.forward_calls.clear()


def made_step(stage: Stage, name: str, user_step: Callable[..., Any]) -> Callable[..., Any]:
    """Make the method that runs the user's own step and adds what it leaves out."""

    @functools.wraps(user_step)
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        # Looked up anew, for the class may be edited in a notebook after it was wrapped.
        run = getattr(self._user_class, name)
        if stage not in self._compatibility.stages:
            return run(self, *args, **kwargs)
        batch = args[0] if args else kwargs.get("batch")
        batch_idx = args[1] if len(args) > 1 else kwargs.get("batch_idx")
        with _capturing(self, stage, batch, batch_idx) as state:
            output = run(self, *args, **kwargs)
            if stage != "train":
                dataloader_idx = kwargs.get("dataloader_idx", args[2] if len(args) > 2 else 0)
                with torch.no_grad():
                    _penalty_terms(self, dataloader_idx)
            elif self.automatic_optimization:
                output = _automatic(self, output)
            elif state.captures or not state.captured_in_step:
                raise RuntimeError(
                    _captures_message(self)
                    if not state.captured_in_step
                    else f"{class_of(self)}.training_step optimises manually and never called "
                    f"self.manual_backward(loss) after it called h2, so the penalty was added to nothing. "
                    f"Use self.manual_backward(loss) instead of loss.backward()."
                )
            return output

    return step


def _automatic(module: Any, output: Any) -> Any:
    state: Compatibility = module._compatibility
    if state.supplies_base:
        terms = _penalty_terms(module)
        return terms.base + state.loss.lambda_c * terms.dissonance
    if output is None:
        # The user's step asks Lightning to skip this batch; so do we.
        return None
    if isinstance(output, Tensor):
        return _with_penalty(module, output)
    if isinstance(output, Mapping) and isinstance(output.get("loss"), Tensor):
        return {**output, "loss": _with_penalty(module, output["loss"])}
    raise TypeError(
        f"{class_of(module)}.training_step must return a loss tensor, a dict with 'loss', or None. "
        f"Received: {type(output).__name__}."
    )


def _with_penalty(module: Any, loss: Tensor) -> Tensor:
    """The user's loss plus lambda_c times the dissonance; with lambda_c = 0 the very same tensor."""
    state: Compatibility = module._compatibility
    if state.lambda_is_zero:
        with torch.no_grad():
            _penalty_terms(module, base=loss.detach())
        return loss
    terms = _penalty_terms(module, base=loss.detach())
    return loss + state.loss.lambda_c * terms.dissonance


def _captures_message(module: Any) -> str:
    state: Compatibility = module._compatibility
    source = f"submodule {state.scores!r}" if isinstance(state.scores, str) else "forward"
    children = [name for name, _ in module.named_children()]
    known = f"Its submodules: {', '.join(map(repr, children))}." if children else "It has no submodules."
    called = f"called {source} {len(state.captures)} times" if state.captures else f"did not call {source}"
    return (
        f"{class_of(module)}'s {state.stage} step {called}; it has to be called exactly once, for its "
        f"output is what is compared with h1. Say which submodule gives the class scores with scores='name' "
        f"(dots reach deeper), or leave this stage out with stages=. {known}"
    )


def _penalty_terms(module: Any, dataloader_idx: int = 0, base: Tensor | None = None) -> LossTerms:
    """Compare the one captured output of h2 with h1's, record both, and return the terms of the loss."""
    state: Compatibility = module._compatibility
    if len(state.captures) != 1:
        raise RuntimeError(_captures_message(module))
    capture = state.captures.pop()
    want: Literal["logits", "log_probabilities"] = "log_probabilities" if state.loss.base == "nll" else "logits"
    if callable(state.scores):
        h2_output = scores_from_output(state.scores(capture.output), want, "scores(h2's output)")
    else:
        h2_output = scores_from_output(capture.output, want, "h2")
    if state.stage == "train" and torch.is_grad_enabled() and not h2_output.requires_grad:
        raise RuntimeError(
            f"The one output of h2 that {class_of(module)}'s step asked for carries no gradient (it was computed under "
            f"no_grad or detached), so the penalty would train nothing. Say which submodule gives the scores that are "
            f"trained, with scores='name', or let the step use forward's output for its loss."
        )
    target = target_from_batch(state.batch, state.target)
    h1_output = _ask_h1(state, capture, h2_output)
    if not state.first_step_seen:
        _check_kind_of_scores(state, h2_output, h1_output)
        if state.loss.validate_args:
            _eager(state.loss.look)(h2_output, target, h1_output, outputs_checked=True)
        state.first_step_seen = True
    if want == "log_probabilities" and h1_output.is_floating_point():
        h1_output = scores_from_output(h1_output, want)
    _watch_finite(module, h2_output, h1_output)
    keep = _not_padding(module, dataloader_idx, int(target.shape[0]))
    if keep is not None and state.stage != "train":
        if keep == 0:
            # The record is made all the same: merging it is something that all processes do together.
            _record_for(module, h2_output, target, h1_output, dataloader_idx)
            return LossTerms(*[h2_output.new_zeros(())] * 5)
        # What is trained on is trained on; what is evaluated counts once.
        h2_output, target, h1_output, keep = h2_output[:keep], target[:keep], h1_output[:keep], None
    terms = state.loss.terms(h2_output, target, h1_output, outputs_checked=True)
    _record(module, h2_output.detach(), target, h1_output, keep, terms, base, dataloader_idx)
    return terms


def _ask_h1(state: Compatibility, capture: _Capture, h2_output: Tensor) -> Tensor:
    reference = state.reference
    # Only a class map needs to know h2's classes; without one, differing shapes are told apart by the loss.
    classes = h2_output.shape[1] if reference.class_map is not None and h2_output.ndim > 1 else None
    if not reference.is_stored:
        return reference.answer(*_arguments_of_h1(state, capture), classes)
    if state.rows is None:
        raise ValueError(
            f"h1 is given as stored outputs, but the {state.stage} batch does not say which rows of them it is. Wrap "
            f"the data set that its loader reads: DataLoader(stored.attach(dataset), ...); another data set needs "
            f"stored outputs of its own, of the same h1: store_outputs(h1, val_set, ...).attach(val_set)."
        )
    rows = state.rows.to(h2_output.device, non_blocking=True)
    return reference.map_classes(rows, classes)


def _arguments_of_h1(state: Compatibility, capture: _Capture) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What h2 was asked is what h1 is asked, unless the caller says otherwise with `inputs`."""
    if state.inputs is not None and not state.supplies_base:
        return (inputs_from_batch(state.batch, state.inputs),), {}
    if not isinstance(state.scores, str):
        return capture.args, capture.kwargs
    if len(state.forward_calls) == 1:
        return state.forward_calls[0].args, state.forward_calls[0].kwargs
    if not state.first_step_seen:
        _check_given_the_batch(state, capture)
    return capture.args, capture.kwargs


@_eager
def _check_given_the_batch(state: Compatibility, capture: _Capture) -> None:
    """An inner submodule may get h2's own features, which mean nothing to h1."""
    given = next(_tensors((capture.args, capture.kwargs)), None)
    if given is None or any(given is part or given.data_ptr() == part.data_ptr() for part in _tensors(state.batch)):
        return
    raise ValueError(
        f"Submodule {state.scores!r} was called with a tensor of shape {tuple(given.shape)} that is no part of the "
        f"batch, so it is not clear what h1 gets. Say it: inputs=0 (the batch's first element), inputs='key' or "
        f"inputs=lambda batch: preprocess(batch[0]); or give the module a forward that does all of it."
    )


def _tensors(nested: Any) -> Iterator[Tensor]:
    if isinstance(nested, Tensor):
        yield nested
    elif isinstance(nested, Mapping):
        yield from _tensors(tuple(nested.values()))
    elif isinstance(nested, (tuple, list)):
        for part in nested:
            yield from _tensors(part)


@_eager
def _check_kind_of_scores(state: Compatibility, h2_output: Tensor, h1_output: Tensor) -> None:
    """Once: a softmax of a softmax trains and logs plausible nonsense. One look, so one wait for the device at most."""
    if state.loss.base not in ("cross_entropy", "kl_divergence"):
        return
    if is_probabilities(h2_output):
        raise ValueError(
            "h2's scores are probabilities (every row lies in 0..1 and sums to 1), but the loss expects logits. Leave "
            "out the softmax, or say which submodule gives the logits: scores='name'."
        )
    if not state.loss.labels_suffice and is_probabilities(h1_output):
        raise ValueError(
            "h1 returned probabilities (every row lies in 0..1 and sums to 1), but the loss expects logits. Their "
            "logarithm is as good: h1=lambda *args: old_model(*args).clamp_min(1e-30).log()."
        )


@_eager
def _watch_finite(module: Any, h2_output: Tensor, h1_output: Tensor) -> None:
    """Refuse NaN and inf: at once on the CPU; elsewhere remember the step, and look when it costs nothing."""
    state: Compatibility = module._compatibility
    step = module.global_step if module._trainer is not None else 0
    if h2_output.device.type == "cpu":
        where = f" at step {step} ({state.stage})"
        check_finite(h1_output, "h1", where)
        check_finite(h2_output, "h2", where)
        return
    if state.first_bad is None or state.first_bad.device != h2_output.device:
        state.first_bad = torch.full((2,), -1, dtype=torch.long, device=h2_output.device)
    bad = torch.stack([~torch.isfinite(output.detach()).all() for output in (h1_output, h2_output)])
    state.first_bad = torch.where((state.first_bad < 0) & bad, step, state.first_bad)


def _raise_if_not_finite(state: Compatibility) -> None:
    if state.first_bad is None:
        return
    steps = state.first_bad.tolist()
    state.first_bad = None
    for model, step in zip(("h1", "h2"), steps, strict=True):
        if step >= 0:
            raise ValueError(
                f"{model} returned NaN or inf at step {step}. Expected finite scores: look for a diverged or "
                f"half-loaded {model}, or inputs that are already NaN."
            )


def _begin(module: Any, stage: Stage) -> None:
    state: Compatibility = module._compatibility
    state.begin(stage)
    if not module.trainer.sanity_checking:
        state.epochs_begun[stage] = state.epochs_begun.get(stage, 0) + 1
    loaders = _loaders(module.trainer, stage)
    for loader in loaders if isinstance(loaders, Sequence) else [loaders]:
        other = stored_behind(getattr(loader, "dataset", None))
        if state.reference.is_stored and other is not None and other.fingerprint != state.reference.fingerprint:
            raise ValueError(
                f"The {stage} loader brings stored outputs of another h1: their fingerprint is {other.fingerprint}, "
                f"that of the h1 given here is {state.reference.fingerprint}. Attach outputs of one and the same h1."
            )


def _rows_in_full(module: Any, dataloader_idx: int, indices: Any) -> Tensor:
    trainer = module.trainer
    loaders = _loaders(trainer, "train" if trainer.training else "test" if trainer.testing else "val")
    loader = loaders[dataloader_idx] if isinstance(loaders, Sequence) else loaders
    stored = stored_behind(getattr(loader, "dataset", None)) or module._compatibility.reference.stored
    return cast("Tensor", stored[indices.tolist()])


def _loaders(trainer: Any, stage: Stage) -> Any:
    return {"train": trainer.train_dataloader, "val": trainer.val_dataloaders, "test": trainer.test_dataloaders}[stage]


def _loader(module: Any, stage: Stage, dataloader_idx: int) -> Any:
    loaders = _loaders(module.trainer, stage)
    if not isinstance(loaders, Sequence):
        return loaders
    return loaders[dataloader_idx] if dataloader_idx < len(loaders) else None


# -- records ----------------------------------------------------------------------------------------------------


@_eager
@torch.no_grad()
def _record(
    module: Any,
    h2_output: Tensor,
    target: Tensor,
    h1_output: Tensor,
    keep: int | None,
    terms: LossTerms,
    base: Tensor | None,
    dataloader_idx: int,
) -> None:
    state: Compatibility = module._compatibility
    if state.stage is None or module._trainer is None:
        return
    labels, record = _record_for(module, h2_output, target, h1_output, dataloader_idx)
    # The closure of LBFGS, or a manual step with two losses, asks several times about one batch; it counts once.
    this_batch = (state.stage, dataloader_idx, state.batch_idx)
    if state.batch_idx is not None and state.recorded_batch == this_batch:
        return
    state.recorded_batch = this_batch
    record.add(labels.h2, labels.target, labels.h1, keep, terms.base if base is None else base, terms)
    instances = state.instances.get((state.stage, dataloader_idx))
    if instances is not None and state.comparisons is not None:
        size = len(labels.target)
        loader = _loader(module, state.stage, dataloader_idx)
        ids = ids_of_batch(state.comparisons, state.batch, state.indices, loader, instances, size)
        instances.add(labels, ids)


@_eager
def _record_for(
    module: Any, h2_output: Tensor, target: Tensor, h1_output: Tensor, dataloader_idx: int
) -> tuple[Labels, EpochRecord]:
    state: Compatibility = module._compatibility
    labels = labels_of(state.loss.base, h2_output, target, h1_output, **state.loss.options)
    key = (cast("str", state.stage), dataloader_idx)
    if key not in state.records:
        # Not registered in the module: its state is of this epoch, not of the model.
        state.records[key] = EpochRecord(labels.num_classes).to(h2_output.device)
        if state.comparisons is not None and key[0] != "train":
            # Told in the sanity check, before an epoch is spent.
            state.comparisons.check_classes(labels.num_classes)
        if _compares(module, key[0]):
            state.instances[key] = EpochInstances()
    return labels, state.records[key]


@_eager
def _not_padding(module: Any, dataloader_idx: int, batch_size: int) -> int | None:
    """How many leading instances of this batch are no padding: DistributedSampler repeats some to fill its shards."""
    state: Compatibility = module._compatibility
    if module._trainer is None or module.trainer.world_size == 1 or state.stage is None:
        return None
    sampler = getattr(_loader(module, state.stage, dataloader_idx), "sampler", None)
    if not isinstance(sampler, DistributedSampler) or sampler.drop_last:
        return None
    key = (state.stage, dataloader_idx)
    last_batch, before, size = state.seen.get(key, (None, 0, 0))
    # Asked again about the same batch (LBFGS, two losses), nothing new has been seen.
    seen = before if size and last_batch == state.batch_idx else before + size
    state.seen[key] = (state.batch_idx, seen, batch_size)
    own = len(range(sampler.rank, len(cast("Any", sampler.dataset)), sampler.num_replicas))
    return None if own >= seen + batch_size else max(0, own - seen)


def _refuse_clash(module: Any, name: str) -> None:
    """Two values under one name would be merged by Lightning without a word."""
    state: Compatibility = module._compatibility
    users = {key.split(".", 1)[-1] for key in getattr(module.trainer, "_results", None) or {}}
    if name in users and name not in state.logged:
        raise ValueError(
            f"{class_of(module)} logs {name!r} itself. Give ours another name: log_prefix='bc_' makes it 'bc_{name}'."
        )
    state.logged.add(name)


@_eager
def _log_epoch(module: Any, stage: Stage) -> None:
    state: Compatibility = module._compatibility
    _raise_if_not_finite(state)
    keys = [key for key in state.records if key[0] == stage]
    for key in keys:
        result = state.records.pop(key).result()
        suffix = f"/dataloader_idx_{key[1]}" if len(keys) > 1 else ""
        for name, value in result.logged.items():
            key_name = logged_name(f"{state.log_prefix}{stage}_{name}{suffix}")
            _refuse_clash(module, key_name)
            module.log(
                key_name,
                value,
                on_step=False,
                on_epoch=True,
                batch_size=1,
                add_dataloader_idx=False,
                prog_bar=stage != "test" and name == "btc",
                # Every process holds the same merged value; "max" of equals is it, to the bit.
                sync_dist=module.trainer.world_size > 1,
                reduce_fx="max",
            )
        instances = state.instances.pop(key, None)
        if instances is not None:
            # Last: a full disk must not cost the scores.
            _write_comparison(module, f"{state.log_prefix}{stage}{suffix}", result.counts, instances)
    if stage == "train" and keys and state.schedule is not None:
        module.log(f"{state.log_prefix}lambda_c", cast("Tensor", state.loss.lambda_c).clone())


def _compares(module: Any, stage: str) -> bool:
    """Whether the instances of this epoch are collected: not in training, and only where they will be written."""
    state: Compatibility = module._compatibility
    trainer = module.trainer
    if state.comparisons is None or stage == "train":
        return False
    if state.comparisons.directory is None and not tensorboard_loggers(trainer):
        return False
    # Of validations in the midst of training only some; one that was asked for by itself always.
    return (
        trainer.state.fn != "fit" or trainer.sanity_checking or state.epochs_begun[stage] % state.comparisons.every == 0
    )


def _write_comparison(module: Any, dataset: str, counts: Tensor, instances: EpochInstances) -> None:
    state: Compatibility = module._compatibility
    comparisons = cast("LogComparisons", state.comparisons)
    if module.trainer.sanity_checking:
        return
    rows, nameable, problem = gathered(instances)
    step, lambda_c = module.trainer.global_step, float(state.loss.lambda_c)
    if problem is not None:
        rank_zero_warn(f"There is no comparison of step {step} ({dataset}): {problem}.")
    if rows is None or instances.entries is None:
        return
    if not nameable and dataset not in state.unnamed:
        state.unnamed.add(dataset)
        rank_zero_warn(
            f"The {dataset} loader does not go through its data set in order, or leaves items out, so the instances in "
            f"the comparison have no ids, images or texts. Put an id into each batch and say where: "
            f"LogComparisons(ids='id'), or leave out shuffle=True."
        )
    # Of one label or pixel of an instance there is no image.
    illustrable = nameable and instances.entries in (0, 1)
    try:
        comparison = comparison_of(comparisons, counts, rows, step, lambda_c, illustrable)
    except (TypeError, ValueError) as error:
        # Ids that come twice, for one: the training is worth more than its record.
        rank_zero_warn(f"There is no comparison of step {step} ({dataset}): {error} (LogComparisons(ids=...)).")
        return
    loggers = tensorboard_loggers(module.trainer)
    write(comparisons, comparison, loggers, dataset, state.loss.dissonance, illustrable)
