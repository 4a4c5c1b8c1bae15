"""What begins and ends an epoch of a wrapped module: its records, its logs, its comparison."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from bc_core.slices._metadata import Columns
from bc_lightning._packages import logged_name
from bc_lightning._user_module import class_of
from bc_lightning.training._state import UNLABELLED, Compatibility, Epoch, Stage, compatibilities_of
from bc_lightning.training.comparisons._comparisons import (
    EpochInstances,
    LogComparisons,
    comparison_of,
    gathered,
    tensorboard_loggers,
)
from bc_lightning.training.comparisons._epoch_record import of_new_classes
from bc_lightning.training.comparisons._written_comparisons import write
from bc_lightning.training.data._loaders import never_validated
from bc_lightning.training.promise._promise import log_promise, look_at_validation
from bc_lightning.training.step._penalty import raise_what_was_noticed
from bc_lightning.training.watching._compiling import eager


def begin_epoch(module: Any, state: Compatibility, stage: Stage) -> None:
    """A new epoch of a stage; what one that was interrupted has left is dropped."""
    state.run.epochs[stage] = Epoch()
    if not module.trainer.sanity_checking:
        state.epochs_begun[stage] = state.epochs_begun.get(stage, 0) + 1


@eager
def end_epoch(module: Any, state: Compatibility, stage: Stage) -> None:
    """Log what the epoch came to, and write its comparisons."""
    raise_what_was_noticed(state.run, state.stored)
    epoch = state.run.epochs.pop(stage, Epoch())
    options, trainer = state.options, module.trainer
    if stage in options.stages and epoch.steps and not trainer.sanity_checking:
        _check_was_seen(module, state, stage, epoch)
    for key, record in epoch.records.items():
        result = record.result()
        suffix = f"/dataloader_idx_{key}" if len(epoch.records) > 1 else ""
        logged, class_map = result.logged, state.reference.class_map
        if class_map is not None and class_map.new:
            logged = {**logged, **of_new_classes(result.counts, class_map.new)}
        for name, value in logged.items():
            with own_logging(state):
                module.log(
                    logged_name(f"{options.log_prefix}{stage}_{name}{suffix}"),
                    value,
                    on_step=False,
                    on_epoch=True,
                    batch_size=1,
                    add_dataloader_idx=False,
                    prog_bar=stage != "test" and name == "btc",
                    # Every process holds the same merged value; "max" of equals is it, to the bit.
                    sync_dist=trainer.world_size > 1,
                    reduce_fx="max",
                )
        instances = epoch.instances.get(key)
        if instances is not None:
            # Last: a full disk must not cost the scores.
            _write_comparison(module, state, f"{stage}{suffix}", result.counts, instances)
        if stage == "val":
            look_at_validation(module, state, result.counts, len(epoch.records))
    if epoch.unlabelled:
        with own_logging(state):
            mean = torch.stack(epoch.unlabelled).float().mean()
            module.log(f"{options.log_prefix}{UNLABELLED}", mean, sync_dist=trainer.world_size > 1)
    if stage == "train" and epoch.records and options.moves_lambda:
        with own_logging(state):
            module.log(f"{options.log_prefix}lambda_c", cast("Tensor", options.loss.lambda_c).clone())
    with own_logging(state):
        log_promise(module, state, stage)


def _check_was_seen(module: Any, state: Compatibility, stage: Stage, epoch: Epoch) -> None:
    message = _unseen_message(module, stage, f"None of the {epoch.steps}")
    if stage != "train" and not epoch.records:
        raise RuntimeError(message)
    if stage == "train" and not module.automatic_optimization:
        state.run.called.add(bool(epoch.records))
        if not epoch.records:
            # Other epochs may call it, as where something else is trained first.
            rank_zero_warn(message)


def check_was_seen(module: Any) -> None:
    """At the end of a training whose steps optimise by hand: whether any has called h2.

    Raises:
        RuntimeError: None has.
    """
    if any(state.run.called == {False} for state in compatibilities_of(module)):
        raise RuntimeError(_unseen_message(module, "train", "None of the"))


def _unseen_message(module: Any, stage: Stage, which: str) -> str:
    return (
        f"{which} {stage} steps of {class_of(module)} called h2 where it could be seen, so there are no "
        f"scores{', and nothing was held to h1' if stage == 'train' else ''}. Say which submodule gives the class "
        f"scores with scores='name', call net(x) instead of net.forward(x), or leave the stage out with stages=."
    )


@contextmanager
def own_logging(state: Compatibility) -> Iterator[None]:
    """While our own values are logged."""
    state.logging = True
    try:
        yield
    finally:
        state.logging = False


def _write_comparison(
    module: Any, state: Compatibility, plain_name: str, counts: Tensor, instances: EpochInstances
) -> None:
    comparisons = cast("LogComparisons", state.options.comparisons).of_dataset(plain_name)
    dataset, trainer, run = f"{state.options.log_prefix}{plain_name}", module.trainer, state.run
    if trainer.sanity_checking:
        return
    columns = Columns.of(comparisons.metadata)
    classes = comparisons.class_names or list(map(str, range(len(counts))))
    rows, nameable, problem, over_all = gathered(instances, columns, classes)
    # Outside of fit the Trainer counts no steps; a checkpoint that it loaded says at which one it was saved.
    outside = trainer.state.fn != "fit" and run.checkpoint_step is not None
    step = cast("int", run.checkpoint_step) if outside else trainer.global_step
    lambda_c = float(state.loss.lambda_c)
    if problem is not None:
        rank_zero_warn(f"There is no comparison of step {step} ({dataset}): {problem}.")
    if rows is None or instances.entries is None:
        return
    if not nameable and dataset not in run.unnamed:
        run.unnamed.add(dataset)
        rank_zero_warn(
            f"It is not known which items the batches of the {dataset} loader hold (it shuffles, leaves items out, or "
            f"batches them in a way of its own), so the instances in the comparison have no ids, images or texts. Put "
            f"an id into each batch and say where: LogComparisons(ids='id'), or leave out shuffle=True."
        )
    given = cast("LogComparisons", state.options.comparisons)
    dropped = [name for name in ("images", "metadata") if given.is_of_others(name, plain_name)]
    if dropped and nameable and dataset not in run.unnamed:
        run.unnamed.add(dataset)
        rank_zero_warn(
            f"The {' and '.join(dropped)} of LogComparisons are those of other data than {plain_name!r}, whose "
            f"comparison shows none: give them by data set, {{'val': ..., {plain_name!r}: ...}}."
        )
    # Of one label or pixel of an instance there is no image.
    illustrable = nameable and instances.entries in (0, 1)
    try:
        comparison = comparison_of(comparisons, counts, rows, step, lambda_c, illustrable, columns, over_all)
        if state.reference.class_map is not None:
            comparison = dataclasses.replace(comparison, new_classes=state.reference.class_map.new)
    except (TypeError, ValueError) as error:
        # Ids that come twice, for one: the training is worth more than its record.
        rank_zero_warn(f"There is no comparison of step {step} ({dataset}): {error} (LogComparisons(ids=...)).")
        return
    write(comparisons, comparison, tensorboard_loggers(trainer), dataset, state.loss.dissonance, illustrable)


def say_what_is_not_trained(module: torch.nn.Module) -> None:
    """Say once what will not learn as its owner may think: an h2 in eval mode, or frozen."""
    # A part that is frozen is in eval mode on purpose.
    parts = [
        name
        for name, part in module.named_modules()
        if name and not part.training and any(own.requires_grad for own in part.parameters(recurse=False))
    ]
    if not module.training:
        rank_zero_warn(
            f"{class_of(module)} is in eval mode, in which Lightning leaves it: dropout is off and batch statistics "
            f"stay as they are. Call h2.train() before fit if that is not meant."
        )
    elif parts:
        rank_zero_warn(
            f"Parts of {class_of(module)} are in eval mode, in which Lightning leaves them: {_few(parts)}. Call "
            f"h2.train() before fit if that is not meant."
        )
    frozen = [name for name, parameter in module.named_parameters() if not parameter.requires_grad]
    if frozen:
        total = len(list(module.parameters()))
        rank_zero_info(
            f"{len(frozen)} of the {total} parameters of {class_of(module)} are frozen (requires_grad=False) and will "
            f"not be trained: {_few(frozen)}."
        )


def say_what_is_not_scored(module: Any) -> None:
    """Say once where nothing is compared but what h2 learns from."""
    options = [state.options for state in compatibilities_of(module)]
    why = never_validated(module.trainer)
    if why is not None and all("val" in each.stages and each.promise_data is None for each in options):
        rank_zero_info(
            f"What h2 breaks of data that it does not learn from takes validation data, and {why}: train_btc and the "
            f"like are of its training data, and no comparison is written. Give fit a validation loader, or ask "
            f"afterwards: evaluate(h1, h2, loader)."
        )


def _few(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:3]))
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
