"""A training that is held to a promise: when held-out data are looked at, and which weights it ends with.

lambda_c and the verdict are `bc_core.promise`'s; here is what only Lightning knows. A look is due after validation,
or, where held-out data were given, when an epoch's last batch or every so many steps have been trained on. Callbacks
may have written a checkpoint before that look; so it is made up for before the next batch, and the training that goes
on from there is the one that was not interrupted.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from typing import Any, cast

import torch
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from bc_core import ErrorOverlap, PromiseVerdict
from bc_core.promise._keeper import Keeper, PromiseOptions, check_can_be_told
from bc_core.reference._weights import have_one_architecture, shapes_of
from bc_lightning._packages import logged_name
from bc_lightning._user_module import lacks_forward
from bc_lightning.training._plain_classifier import ClassifierSteps
from bc_lightning.training._state import Compatibility, Stage, compatibilities_of
from bc_lightning.training._warm_start import tensors_of, weights_behind
from bc_lightning.training.data._loaders import has_validation, never_validated
from bc_lightning.training.promise._held_out import (
    changed_batches,
    counts_of_held_out,
    counts_of_this_process,
    over_processes,
)

Weights = dict[str, Any]


class Promised:
    """What one training has come to: lambda_c's multiplier, and the weights that kept the promise best.

    Args:
        options: What the user said.
        dissonance: By name, what lambda_c is the weight of.
    """

    def __init__(self, options: PromiseOptions, dissonance: str) -> None:
        self.keeper = Keeper(options, dissonance)
        # Whether the training has ended, and whether with other weights than the verdict is of.
        self.ended = self.unseen = False
        self.weights: Weights | None = None
        # The mean of those that were looked at; and whether validation data can be read once more for it, None before
        # it was due.
        self.mean: Weights | None = None
        self.rereads: bool | None = None
        # The weights that are validated at present: those of now may be others when that ends, as an average that a
        # callback puts in their place is taken out again.
        self.validated: Weights | None = None
        # What tells those of the last look from others.
        self.seen: Tensor | None = None
        # Targets and what h1 says of held-out data that come in one order, of this process's share of them.
        self.kept: tuple[Tensor, Tensor] | None = None

    def verdict(self, under_way: bool) -> PromiseVerdict | None:
        """Of the weights that the training ends with; None where these were not looked at, or it was broken off."""
        return self.keeper.verdict if under_way or (self.ended and not self.unseen) else None

    def go_on(self, module: nn.Module, steps: int) -> None:
        """Compare with the weights of now, if they are the best, else with none from before."""
        if self.keeper.best_steps == steps:
            self.weights = _copied(module.state_dict())
        else:
            self.keeper.forget_best()

    def take_in(self, now: Weights, as_they_are: Set[str]) -> None:
        """Take weights into the mean, but for those that are given by name."""
        share, before = self.keeper.share_of_look(anew=self.mean is None), self.mean
        if before is None:
            self.mean = now
            return
        self.mean = {
            name: value if name in as_they_are else _toward(before[name], value, share) for name, value in now.items()
        }

    def state_dict(self, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
        """What a checkpoint is to remember; the best weights only where they are not the checkpoint's own."""
        is_whole = "optimizer_states" in checkpoint
        kept = {"weights": None if self._is_own(checkpoint) else self.weights, "mean": self.mean}
        own = kept if is_whole else {"weights": None, "mean": None}
        return {**self.keeper.state_dict(), **own, "rereads": self.rereads}

    def _is_own(self, checkpoint: Mapping[str, Any]) -> bool:
        """Whether the best weights are those of the checkpoint."""
        return not self.keeper.best_is_mean and self.keeper.best_steps == checkpoint.get("global_step")

    def load_state_dict(self, state: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> None:
        """Go on where the training that wrote a checkpoint stood."""
        self.keeper.load_state_dict(state)
        if self.keeper.options.keep == "best" and self.keeper.best_steps is not None:
            # After a training has ended its weights are the best.
            self.weights = _copied(checkpoint["state_dict"] if state["weights"] is None else state["weights"])
        # A checkpoint of before there were means has none.
        self.mean, self.rereads = state.get("mean"), state.get("rereads")


class VerdictOf:
    """``h2.promise`` of a wrapped module, which gives way to an attribute of that name of the user's own."""

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self._before = owner

    def __get__(self, module: Any, owner: type[Any]) -> Any:
        """The verdict of the training; None where its last weights were not looked at, as when it was broken off."""
        if module is None:
            return self
        for _, promised in _held_to(module):
            state = None if module._trainer is None else module._trainer.state
            return promised.verdict(state is not None and state.fn == "fit" and state.status == "running")
        found = getattr(super(self._before, module), "promise", self)
        return nn.Module.__getattr__(module, "promise") if found is self else found


def _held_to(module: Any) -> Iterator[tuple[Compatibility, Promised]]:
    """What a module is held to by a promise."""
    for state in compatibilities_of(module):
        if state.promised is not None:
            yield state, state.promised


def begin_training(module: Any) -> None:
    """Begin anew, unless a training goes on."""
    for state, promised in _held_to(module):
        steps = module.trainer.global_step
        if not (state.run.resumed or steps):
            state.promised = Promised(promised.keeper.options, state.loss.dissonance)
        elif not state.run.resumed:
            # The same Trainer goes on, from the weights that its last fit has ended with.
            promised.go_on(module, steps)
        goes_on = cast("Promised", state.promised)
        goes_on.ended = goes_on.unseen = False
        cast("Tensor", state.loss.lambda_c).fill_(goes_on.keeper.lambda_c)


def check_held_out(module: Any) -> None:
    """Before an epoch is spent: whether there are held-out data that could show that the promise is kept.

    Raises:
        ValueError: There are none, or they never could.
        TypeError: They cannot be read more than once, or not as the module reads its own.
    """
    for state, promised in _held_to(module):
        _check_held_out(module, state, promised)


def _check_held_out(module: Any, state: Compatibility, promised: Promised) -> None:
    trainer, data = module.trainer, state.options.promise_data
    if promised.keeper.options.keep == "best" and any(isinstance(value, DTensor) for value in _tensors_of(module)):
        raise ValueError(
            "The weights are sharded over processes, of which the best are not kept in memory. Take the last ones, "
            "promise_options={'keep': 'last'}, and let ModelCheckpoint keep others."
        )
    if data is None:
        is_validated = "val" in state.options.stages and has_validation(trainer)
        why = never_validated(trainer) if is_validated else "there are none"
        # One that goes on has been looked at.
        if why is not None and not (is_validated and promised.keeper.steps is not None):
            raise ValueError(
                f"A promise is kept on held-out data, and {why}. Let the Trainer validate while it trains (validation "
                f"data, a validation_step, 'val' among the stages), or give held-out data by promise_data=loader."
            )
        return
    for hook in changed_batches(module, trainer):
        raise TypeError(
            f"{hook} changes batches, and may do so otherwise in training. Give the held-out data to the Trainer as "
            f"validation data, and leave out promise_data."
        )
    if promised.keeper.steps is None and not trainer.fast_dev_run and not lacks_forward(module):
        check_can_be_told(promised.keeper.options, counts_of_held_out(module, state, promised))


def look_at_validation(module: Any, state: Compatibility, counts: Tensor, loaders: int) -> None:
    """Take the counts of a validation epoch, over all processes."""
    promised, trainer = state.promised, module.trainer
    if promised is None or state.options.promise_data is not None or trainer.state.fn != "fit":
        return
    if loaders > 1:
        raise ValueError(
            f"There are {loaders} validation loaders, and it is not said which of them the promise is kept on: give "
            f"that one by promise_data=loader."
        )
    if not (trainer.sanity_checking or trainer.fast_dev_run):
        _look(module, state, promised, ErrorOverlap(counts), promised.validated)
    promised.validated = None


def note_validated(module: Any) -> None:
    """Remember which weights a validation that begins is of."""
    for state, promised in _held_to(module):
        trainer = module.trainer
        if state.options.promise_data is None and trainer.state.fn == "fit" and not trainer.sanity_checking:
            promised.seen = told_by(module)
            promised.validated = _copied(module.state_dict()) if promised.keeper.options.keep == "best" else None


def look_after_batch(module: Any) -> None:
    """Look at held-out data of their own where an epoch's last batch, or every so many steps, are done."""
    for state, promised in _held_to(module):
        if module.trainer.is_last_batch or _is_due(promised, module.trainer.global_step):
            _look_now(module, state, promised)


def look_before_batch(module: Any, batch_idx: int) -> None:
    """Make up for a look that a checkpoint was written before."""
    for state, promised in _held_to(module):
        steps = module.trainer.global_step
        if steps and (batch_idx == 0 or _is_due(promised, steps)):
            _look_now(module, state, promised)


def look_now(module: Any) -> None:
    """Look at held-out data of their own, unless nothing was trained since the last time."""
    for state, promised in _held_to(module):
        _look_now(module, state, promised)


def _look_now(module: Any, state: Compatibility, promised: Promised) -> None:
    trainer = module.trainer
    if state.options.promise_data is None or trainer.fast_dev_run:
        return
    if trainer.global_step != promised.keeper.steps:
        _look(module, state, promised, counts_of_held_out(module, state, promised))


def log_promise(module: Any, state: Compatibility, stage: Stage) -> None:
    """Log the scores that were promised, and their bounds, in the stage that has looked at them."""
    promised = state.promised
    if promised is None or stage != ("val" if state.options.promise_data is None else "train"):
        return
    for name, value in promised.keeper.logged().items():
        # The same on every process, as the counts are.
        module.log(
            logged_name(f"{state.options.log_prefix}{name}"),
            value,
            on_step=False,
            on_epoch=True,
            batch_size=1,
            sync_dist=module.trainer.world_size > 1,
            reduce_fx="max",
        )


def end_training(module: Any) -> None:
    """Go back to the weights that kept the promise best, and say what came of it."""
    look_now(module)
    for state, promised in _held_to(module):
        if promised.ended:
            continue
        promised.ended = True
        if _is_unseen(module, promised) and state.options.promise_data is not None:
            # A callback has changed them at the very end, to their average for one.
            _look(module, state, promised, counts_of_held_out(module, state, promised))
        elif promised.weights is not None and promised.keeper.steps == module.trainer.global_step:
            _say_if_replaced(module, promised)
        _look_at_mean_last(module, state, promised)
        if promised.weights is not None:
            module.load_state_dict(promised.weights)
        promised.unseen = promised.weights is None and _is_unseen(module, promised)
        promised.weights = promised.validated = promised.mean = None
        verdict, line = promised.keeper.verdict, promised.keeper.said(promised.unseen, _lies_between(module, state))
        if verdict is None and state.options.promise_data is None:
            line += " Let the Trainer validate before it ends, or give held-out data by promise_data=loader."
        told = module.trainer.fast_dev_run or (verdict is not None and verdict.verdict != "missed")
        (rank_zero_info if told else rank_zero_warn)(line)


def _say_if_replaced(module: Any, promised: Promised) -> None:
    if _is_unseen(module, promised):
        rank_zero_warn(
            "Since the last validation h2's weights were changed without a step, as by a callback that averages or "
            "projects them when the training ends. What these are worth was not looked at, so they are replaced by the "
            "best that were. To have them looked at, give held-out data by promise_data=loader; to keep them, "
            "promise_options={'keep': 'last'}."
        )


def _is_unseen(module: Any, promised: Promised) -> bool:
    """Whether the weights of now are others than those of the last look."""
    now = None if promised.seen is None else told_by(module)
    if now is None:
        return False
    # All processes do the same, also where each holds a part of the weights.
    unseen = not torch.equal(cast("Tensor", promised.seen), now)
    return bool(module.trainer.strategy.reduce_boolean_decision(unseen, all=False))


def told_by(module: nn.Module) -> Tensor | None:
    """A few numbers by which weights are told from others; None where they are sharded."""
    tensors = [value for value in _tensors_of(module) if value.numel()]
    if any(isinstance(value, DTensor) for value in tensors):
        return None
    plain = [(torch.view_as_real(value) if value.is_complex() else value).detach().float() for value in tensors]
    # Moved before they are read, so that a device is waited for once.
    sums = [each.to(plain[0].device) for value in plain for each in (value.sum(), value.square().sum())]
    return torch.stack(sums).cpu().nan_to_num() if sums else torch.empty(0)


def _lies_between(module: Any, state: Compatibility) -> bool:
    """Whether h1 and h2 have one architecture and the same classes, so that weights between theirs could serve."""
    if state.reference.class_map is not None:
        return False
    try:
        first, second = (
            shapes_of(tensors_of(weights_behind(model, name), name))
            for model, name in ((state.reference, "h1"), (module, "h2"))
        )
    except (TypeError, ValueError):
        return False
    return have_one_architecture(first, second)


def _is_due(promised: Promised, steps: int) -> bool:
    every = promised.keeper.options.every
    return every is not None and steps // every > (promised.keeper.steps or 0) // every


def _look(
    module: Any, state: Compatibility, promised: Promised, overlap: ErrorOverlap, validated: Weights | None = None
) -> None:
    keeper, now, of_mean = promised.keeper, validated, None
    if state.options.promise_data is not None:
        promised.seen = told_by(module)
    if keeper.options.keep == "best" and now is None:
        now = _copied(module.state_dict())
    if keeper.options.averages and now is not None and promised.rereads is not False:
        promised.take_in(now, _without_mean(module))
        if keeper.mean_is_due:
            of_mean = _of_mean(module, state, promised, overlap, now)
    if keeper.look(overlap, module.trainer.global_step, of_mean) and now is not None:
        promised.weights = promised.mean if keeper.best_is_mean else now
    # Filled in place, as by a schedule.
    cast("Tensor", state.loss.lambda_c).fill_(keeper.lambda_c)


def _look_at_mean_last(module: Any, state: Compatibility, promised: Promised) -> None:
    """Look at the mean of weights as the training ends, where the last look was not at it."""
    can_be_read = state.options.promise_data is not None or promised.rereads
    if promised.mean is None or not promised.keeper.mean_is_unseen or not can_be_read or module.trainer.fast_dev_run:
        return
    if promised.keeper.look_at_mean(_counted_with(promised.mean, module, state, promised)):
        promised.weights = promised.mean


def _of_mean(
    module: Any, state: Compatibility, promised: Promised, overlap: ErrorOverlap, now: Weights
) -> ErrorOverlap | None:
    """Counts with the mean of the weights; None where they cannot be had."""
    mean = cast("Weights", promised.mean)
    if state.options.promise_data is not None or promised.rereads is not None:
        return _counted_with(mean, module, state, promised)
    # Our own validation step asks h2 as the reader does; what the user's own makes of a batch has to be tried.
    is_ours = module._user_class.validation_step is ClassifierSteps.validation_step
    tried = _reread(mean if is_ours else now, module, state, promised)
    promised.rereads = tried is not None and _is_alike(overlap, tried, of_h1_alone=is_ours)
    if not promised.rereads:
        promised.mean = None
        rank_zero_info(
            "The mean of h2's weights is not looked at for the promise, as the validation data cannot be read but by "
            "the module's own validation step. To have it looked at, give held-out data by promise_data=loader."
        )
        return None
    return tried if is_ours else _counted_with(mean, module, state, promised)


def _counted_with(weights: Weights, module: Any, state: Compatibility, promised: Promised) -> ErrorOverlap:
    with _set_to(module, weights):
        return counts_of_held_out(module, state, promised)


def _reread(weights: Weights, module: Any, state: Compatibility, promised: Promised) -> ErrorOverlap | None:
    """Counts on the validation data, read past the validation step; None where that fails on any process."""
    again = None
    if not any(changed_batches(module, module.trainer)):
        # What the reader makes nothing of is no error here, where nobody asked for it.
        with _set_to(module, weights), suppress(Exception):
            again = counts_of_this_process(module, state, promised)
    if module.trainer.strategy.reduce_boolean_decision(again is not None):
        return over_processes(module, cast("ErrorOverlap", again))
    return None


def _is_alike(validated: ErrorOverlap, read: ErrorOverlap, of_h1_alone: bool) -> bool:
    """Whether both count the same of h1; and, of the same weights, as good as the same of h2."""
    given, seen = (each.counts.sum(axis=0) for each in (validated, read))
    if not (given.sum(1) == seen.sum(1)).all():
        return False
    # Other batches round otherwise.
    return of_h1_alone or bool(abs(given - seen).max() <= max(1, validated.total // 1000))


@contextmanager
def _set_to(module: Any, weights: Weights) -> Iterator[None]:
    """Other weights for as long as it lasts."""
    before = _copied(module.state_dict())
    module.load_state_dict(weights)
    try:
        yield
    finally:
        module.load_state_dict(before)


def _without_mean(module: nn.Module) -> set[str]:
    """Buffers of which there is no mean: masks, unit vectors; all but running statistics, as in `MeanWeights`."""
    names = (name for name, _ in module.named_buffers(remove_duplicate=False))
    return {name for name in names if name.rpartition(".")[2] not in ("running_mean", "running_var")}


def _toward(mean: Any, now: Any, share: float) -> Any:
    if not isinstance(now, Tensor) or not (now.is_floating_point() or now.is_complex()):
        return now
    # Half precision would lose small steps.
    precise = torch.promote_types(now.dtype, torch.float32)
    mean = mean.to(now.device, precise)
    return mean + share * (now.to(precise) - mean)


def _copied(weights: Mapping[str, Any]) -> Weights:
    return {
        name: value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)
        for name, value in weights.items()
    }


def _tensors_of(module: nn.Module) -> Iterator[Tensor]:
    return itertools.chain(module.parameters(), module.buffers())
