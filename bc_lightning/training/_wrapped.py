"""The methods that a made class puts before the user's: capture h2's call, add the penalty, record, log."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn

from bc_core.losses._options import check_lambda_of
from bc_core.reference._callable_fingerprint import is_same_h1, is_sure, says_by_name
from bc_lightning._user_module import class_of
from bc_lightning.batches._attached import split_batch
from bc_lightning.losses._instance_terms import LossTerms
from bc_lightning.training._epochs import (
    begin_epoch,
    check_was_seen,
    end_epoch,
    say_what_is_not_scored,
    say_what_is_not_trained,
)
from bc_lightning.training._state import CHECKPOINT_KEY, Compatibility, Incoming, Position, Stage, compatibilities_of
from bc_lightning.training._strategies import check_strategy
from bc_lightning.training.data._loaders import check_collates
from bc_lightning.training.promise import _promise
from bc_lightning.training.step._by_hand import check_by_hand, find_scores, penalised_by_hand
from bc_lightning.training.step._hooks import CallHook, ModuleCalls
from bc_lightning.training.step._incoming import check_same_imitated, incoming
from bc_lightning.training.step._penalty import UnknownAxisError, penalty_terms, raise_what_was_noticed
from bc_lightning.training.step._refused_steps import captures_message, whole_graph_message
from bc_lightning.training.step._step import HANDED_OVER, Step
from bc_lightning.training.step._target import check_compiled, check_takes_from_base, is_unseen
from bc_lightning.training.step._unlabelled import unlabelled_dissonance
from bc_lightning.training.watching._compiling import eager, in_backward

if TYPE_CHECKING:
    import pytorch_lightning as pl


class CompatibleStep:
    """The methods that a made class puts before the user's. Everything else of the user's class stays as it is."""

    _compatibilities: list[Compatibility]
    _user_class: ClassVar[type[Any]]
    _rebuild_from: ClassVar[tuple[type[Any], bool]]

    promise = _promise.VerdictOf()

    # -- what flows by ------------------------------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        call: Callable[..., Any] = super().forward  # type: ignore[misc]
        if not in_backward():
            for state in self._compatibilities:
                if (step := state.step) is not None and not step.aside:
                    call = functools.partial(_through if step.compiled else _through_eagerly, step, call)
        return call(*args, **kwargs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # h1 is no submodule, so whatever moves or casts h2 has to reach it from here.
        for state in self._compatibilities:
            state.apply(fn)
        return super()._apply(fn, recurse)  # type: ignore[misc]

    def to_empty(self, *args: Any, **kwargs: Any) -> Any:
        # h2 will be filled from a checkpoint; nobody would fill h1 again.
        for state in self._compatibilities:
            state.moves_along = False
        try:
            return super().to_empty(*args, **kwargs)  # type: ignore[misc]
        finally:
            for state in self._compatibilities:
                state.moves_along = True

    def _on_before_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Any:
        # Before the user's own batch hooks, which know nothing of stored rows.
        batch, brought = split_batch(batch)
        for state in self._compatibilities:
            state.run.incoming = Incoming() if brought is None else incoming(state, batch, brought)
        return super()._on_before_batch_transfer(batch, dataloader_idx)  # type: ignore[misc]

    # -- a run --------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        check_strategy(cast("Any", self).trainer)
        for state in self._compatibilities:
            state.begin_run()
        _refuse_dataloader_iter(self)
        super().setup(stage)  # type: ignore[misc]

    def teardown(self, stage: str) -> None:
        super().teardown(stage)  # type: ignore[misc]
        for state in self._compatibilities:
            state.begin_run()

    def on_fit_start(self) -> None:
        for state in self._compatibilities:
            if not state.run.resumed and cast("Any", self).trainer.global_step == 0:
                state.begin_training()
        _promise.begin_training(self)
        say_what_is_not_trained(cast("nn.Module", self))
        super().on_fit_start()  # type: ignore[misc]

    def on_train_end(self) -> None:
        super().on_train_end()  # type: ignore[misc]
        check_was_seen(self)
        _promise.end_training(self)

    def on_fit_end(self) -> None:
        super().on_fit_end()  # type: ignore[misc]
        trainer = cast("Any", self).trainer
        if trainer.fit_loop.skip:
            # Resumed where it had ended, so that Lightning trains nothing and says no end.
            _promise.end_training(self)
        if trainer.num_training_batches == 0 and trainer.limit_train_batches:
            raise ValueError(
                "The training data are empty: the loader gives no batch, so nothing was trained. Expected at least "
                "one; look at the data set's length, and at drop_last with a batch size above it."
            )

    # -- training -----------------------------------------------------------------------------------------------

    def manual_backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        for state in self._compatibilities:
            if state.step is not None:
                loss = penalised_by_hand(state.step, loss, _with_penalty)
        super().manual_backward(loss, *args, **kwargs)  # type: ignore[misc]

    def on_train_start(self) -> None:
        check_collates(self, "train")
        _promise.check_held_out(self)
        say_what_is_not_scored(self)
        super().on_train_start()  # type: ignore[misc]

    def on_validation_start(self) -> None:
        check_collates(self, "val")
        super().on_validation_start()  # type: ignore[misc]

    def on_test_start(self) -> None:
        check_collates(self, "test")
        super().on_test_start()  # type: ignore[misc]

    def on_train_batch_start(self, batch: Any, batch_idx: int, *args: Any) -> Any:
        module = cast("pl.LightningModule", self)
        _promise.look_before_batch(module, batch_idx)
        for state in self._compatibilities:
            state.run.position = Position(0, batch_idx)
            if state.options.schedule is not None:
                batches = module.trainer.num_training_batches
                epoch = module.current_epoch + (batch_idx / batches if batches != float("inf") else 0.0)
                value = state.options.schedule(epoch)
                check_lambda_of(state.loss.dissonance, value)
                # A tensor, filled in place: a new number in every step would recompile a compiled step.
                cast("Tensor", state.loss.lambda_c).fill_(value)
                state.run.lambda_c = float(value)
        return super().on_train_batch_start(batch, batch_idx, *args)  # type: ignore[misc]

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int, *args: Any) -> None:
        super().on_train_batch_end(outputs, batch, batch_idx, *args)  # type: ignore[misc]
        trainer = cast("Any", self).trainer
        _promise.look_after_batch(self)
        # Reading a flag waits for the device, so only where Lightning reads the logged values anyway.
        every = trainer.log_every_n_steps
        if every and (batch_idx + 1) % every == 0:
            for state in self._compatibilities:
                raise_what_was_noticed(state.run, state.stored)

    def on_validation_batch_start(self, batch: Any, batch_idx: int, *args: Any, **kwargs: Any) -> Any:
        _note_position(self, batch_idx, *args, **kwargs)
        if batch_idx == 0:
            _promise.note_validated(self)
        return super().on_validation_batch_start(batch, batch_idx, *args, **kwargs)  # type: ignore[misc]

    def on_test_batch_start(self, batch: Any, batch_idx: int, *args: Any, **kwargs: Any) -> Any:
        _note_position(self, batch_idx, *args, **kwargs)
        return super().on_test_batch_start(batch, batch_idx, *args, **kwargs)  # type: ignore[misc]

    # -- logs ---------------------------------------------------------------------------------------------------

    def log(self, name: str, *args: Any, **kwargs: Any) -> None:
        if not any(state.logging for state in self._compatibilities):
            for state in self._compatibilities:
                # Two values under one name would be merged by Lightning without a word.
                if name in state.options.logged_names:
                    raise ValueError(
                        f"{class_of(cast('nn.Module', self))} logs {name!r} itself, which is a name of ours. Give ours "
                        f"another: log_prefix='bc_' makes it 'bc_{name}'."
                    )
        super().log(name, *args, **kwargs)  # type: ignore[misc]

    def on_train_epoch_start(self) -> None:
        _begin(self, "train")
        super().on_train_epoch_start()  # type: ignore[misc]

    def on_validation_epoch_start(self) -> None:
        _begin(self, "val")
        super().on_validation_epoch_start()  # type: ignore[misc]

    def on_test_epoch_start(self) -> None:
        _begin(self, "test")
        super().on_test_epoch_start()  # type: ignore[misc]

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()  # type: ignore[misc]
        _promise.look_now(self)
        _end(self, "train")

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()  # type: ignore[misc]
        _end(self, "val")

    def on_test_epoch_end(self) -> None:
        super().on_test_epoch_end()  # type: ignore[misc]
        _end(self, "test")

    # -- checkpoints --------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)  # type: ignore[misc]
        for state in self._compatibilities:
            checkpoint[key_of(state)] = state.checkpoint_entry(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)  # type: ignore[misc]
        module = cast("pl.LightningModule", self)
        fitting = module._trainer is not None and module.trainer.state.fn == "fit"
        for state in self._compatibilities:
            state.run.checkpoint_step = checkpoint.get("global_step")
            saved = checkpoint.get(key_of(state))
            if saved is None or not fitting:
                # Started without h1, or only evaluated: comparing with another h1 is then what was asked for.
                continue
            given = state.reference.fingerprint
            if not is_same_h1(saved["h1_fingerprint"], given):
                raise ValueError(
                    f"This checkpoint was trained to be compatible with another h1: its fingerprint is "
                    f"{saved['h1_fingerprint']}, that of the h1 given here is {given}. Resume with the h1 it was "
                    f"started with, or start a new training from its weights: "
                    f"load_state_dict(checkpoint['state_dict'])."
                )
            if not is_sure(saved["h1_fingerprint"], given):
                rank_zero_warn(says_by_name(given))
            check_same_imitated(saved, state.options)
            state.resume(saved, checkpoint)

    @classmethod
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> Any:
        """Load h2 as the user's own class; wrap it again to go on training against h1."""
        if not hasattr(cls, "_user_class"):
            raise TypeError(
                "Load h2 as the class it is, YourModule.load_from_checkpoint(path), and wrap it again to go on."
            )
        return cls._user_class.load_from_checkpoint(*args, **kwargs)


def key_of(state: Compatibility) -> str:
    """Where a checkpoint keeps the entry of one h1."""
    prefix = state.options.log_prefix
    return CHECKPOINT_KEY if not prefix else f"{CHECKPOINT_KEY}_{prefix.rstrip('_')}"


# -- hooks --------------------------------------------------------------------------------------------------------


def _through(step: Step, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return step.compiled_forward(call, args, kwargs)


# Not recursively: what h2 computes is compiled where the user compiles it.
@functools.partial(torch.compiler.disable, recursive=False)
def _through_eagerly(step: Step, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    asked = step.before_forward(args, kwargs)
    try:
        output = call(*args, **kwargs)
    finally:
        step.left_forward()
    step.after_forward(args, kwargs, output, asked)
    return output


def _note_position(module: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
    for state in compatibilities_of(module):
        state.run.position = Position(dataloader_idx, batch_idx)


def _begin(module: Any, stage: Stage) -> None:
    for state in compatibilities_of(module):
        begin_epoch(module, state, stage)


def _end(module: Any, stage: Stage) -> None:
    for state in compatibilities_of(module):
        end_epoch(module, state, stage)


def _refuse_dataloader_iter(module: Any) -> None:
    for stage, name in (("train", "training_step"), ("val", "validation_step"), ("test", "test_step")):
        step = getattr(module._user_class, name, None)
        watched = any(stage in state.options.stages for state in compatibilities_of(module))
        if watched and step is not None and "dataloader_iter" in inspect.signature(step).parameters:
            raise TypeError(
                f"{class_of(module)}.{name} takes dataloader_iter, so no batch passes through the hooks that h1 and "
                f"the scores go by. Let it take the batch, def {name}(self, batch, batch_idx), or leave this stage out "
                f"with stages=."
            )


# -- the step -----------------------------------------------------------------------------------------------------


@eager
def _begin_step(module: Any, state: Compatibility, stage: Stage, args: Any, kwargs: Any) -> tuple[Step, list[Any]]:
    batch = args[0] if args else next(iter(kwargs.values()), None)
    position = state.run.position
    if position is None:
        # No Trainer's hook has told which batch this is.
        given = kwargs.get("batch_idx", args[1] if len(args) > 1 else None)
        position = Position(kwargs.get("dataloader_idx", args[2] if len(args) > 2 else 0), given)
    step = Step(state, module, stage, batch, position)
    hooks: list[Any] = []
    if isinstance(step.scores, str):
        hooks.append(CallHook(step, module.get_submodule(step.scores), step.add, part=True))
    if step.found is not None and len(step.found.names) > 1:
        # What the first of several parts is given is what h1 is asked.
        hooks.append(CallHook(step, module.get_submodule(step.found.names[0]), step.begin, part=False))
    if step.first and not step.compiled:
        step.modules = ModuleCalls(step)
        hooks.append(step.modules)
    state.step = step
    state.run.epoch(stage).steps += 1
    return step, hooks


@eager
def _end_step(state: Compatibility, step: Step, hooks: list[Any]) -> None:
    state.step = None
    step.stop_watching()
    for hook in hooks:
        hook.remove()


def made_step(stage: Stage, name: str, user_step: Callable[..., Any]) -> Callable[..., Any]:
    """Make the method that runs the user's own step and adds what it leaves out."""

    @functools.wraps(user_step)
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        # Looked up anew, for the class may be edited in a notebook after it was wrapped.
        run = functools.partial(getattr(self._user_class, name), self)
        for state in reversed(self._compatibilities):
            if stage in state.options.stages:
                run = functools.partial(_run_step, self, state, stage, run)
        # What a step hands over is kept for the step that has called it.
        nested = any(state.step is not None for state in self._compatibilities)
        try:
            return run(*args, **kwargs)
        finally:
            if not nested:
                self.__dict__.pop(HANDED_OVER, None)

    return step


# What Dynamo names where a graph would have to break at us.
_KEPT_OUT = (ModuleCalls.__name__, CallHook.__name__, _through_eagerly.__name__)


# Not traced itself, so that the user's own step is compiled as it is by itself, and ours around it is not.
@functools.partial(torch.compiler.disable, recursive=False)
def _run_step(
    module: Any, state: Compatibility, stage: Stage, run: Callable[..., Any], /, *args: Any, **kwargs: Any
) -> Any:
    if state.step is not None:
        # A step that is called by another, such as validation_step by test_step, is a part of it.
        return run(*args, **kwargs)
    step, hooks = _begin_step(module, state, stage, args, kwargs)
    try:
        return _after_step(module, step, run(*args, **kwargs))
    except torch._dynamo.exc.Unsupported as error:
        if step.compiled or not any(name in str(error) for name in _KEPT_OUT):
            raise
        raise RuntimeError(whole_graph_message(step.module, step.stage)) from error
    finally:
        _end_step(state, step, hooks)


@eager
def _after_step(module: Any, step: Step, output: Any) -> Any:
    step.stop_watching()
    if step.stage != "train":
        if step.calls or find_scores(step):
            _evaluated(step)
        elif step.modules is not None and step.modules.calls and not (step.scores is None and _may_wait(step)):
            raise RuntimeError(captures_message(step.module, step.stage, step.scores, len(step.calls)))
        return output
    if module.automatic_optimization:
        return _automatic(step, output)
    check_by_hand(step)
    return output


@torch.no_grad()
def _evaluated(step: Step) -> None:
    """Count a batch that nothing is trained on."""
    try:
        penalty_terms(step)
    except UnknownAxisError:
        # Training, which comes after the sanity check, may tell it.
        if not _may_wait(step):
            raise
        step.used()


def _may_wait(step: Step) -> bool:
    """Whether training, which comes after the sanity check, may tell what a step without a loss does not."""
    trainer = cast("Any", step.module).trainer
    return bool(trainer.sanity_checking) and (step.watch is None or not step.watch.losses)


def _automatic(step: Step, output: Any) -> Any:
    state = step.state
    if state.options.supplies_base:
        terms = penalty_terms(step)
        if state.lambda_is_zero:
            return terms.base
        return terms.base + state.loss.lambda_c * _with_unlabelled(step, terms.dissonance)
    if output is None:
        # The user's step asks Lightning to skip this batch; so do we.
        return None
    if not step.calls:
        find_scores(step)
    if isinstance(output, Tensor):
        return _with_penalty(step, output)
    if isinstance(output, Mapping) and isinstance(output.get("loss"), Tensor):
        return {**output, "loss": _with_penalty(step, output["loss"])}
    raise TypeError(
        f"{class_of(step.module)}.training_step must return a loss tensor, a dict with 'loss', or None. "
        f"Received: {type(output).__name__}."
    )


def _with_penalty(step: Step, loss: Tensor) -> Tensor:
    """The user's loss plus lambda_c times the dissonance; with lambda_c = 0 the very same tensor."""
    step.stop_watching()
    unseen = is_unseen(step, loss)
    plain = step.state.lambda_is_zero
    with torch.set_grad_enabled(not plain and torch.is_grad_enabled()):
        terms: LossTerms = penalty_terms(step, base=loss.detach())
    if unseen:
        check_compiled(step, terms.base, loss.detach())
    check_takes_from_base(step, terms.base, loss.detach())
    return loss if plain else loss + step.state.loss.lambda_c * _with_unlabelled(step, terms.dissonance)


def _with_unlabelled(step: Step, dissonance: Tensor) -> Tensor:
    """The dissonance of a batch, and that of one without labels where there is a loader of such."""
    beyond = unlabelled_dissonance(step)
    return dissonance if beyond is None else dissonance + beyond
