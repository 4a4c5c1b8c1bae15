"""Held-out data that a promise is kept on: read past the training, and over all processes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bc_core import ErrorOverlap
from bc_core.promise._keeper import PromiseOptions
from bc_lightning._random_numbers import random_numbers_kept
from bc_lightning.training._state import Compatibility
from bc_lightning.training.data._found_labels import Found
from bc_lightning.training.data._loaders import items_of_pass, loader_of
from bc_lightning.training.data._reader import BATCH_SIZE, Reader, evaluating, in_order, reading_of

_BATCH_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


class Keeps(Protocol):
    """Where targets and what h1 says of held-out data stay from one look to the next, if they come in one order."""

    kept: tuple[Tensor, Tensor] | None


def changed_batches(module: Any, trainer: Any) -> Iterator[str]:
    """Hooks of the user's that change batches."""
    for owner, name in itertools.product((module._user_class, type(trainer.datamodule)), _BATCH_HOOKS):
        hook = getattr(owner, name, None)
        if hook is not None and hook.__module__.split(".")[0] not in ("pytorch_lightning", "lightning"):
            yield f"{owner.__name__}.{name}"


def counts_of_held_out(module: Any, state: Compatibility, promised: Keeps) -> ErrorOverlap:
    """Counts of both models on the held-out data, over all processes; h1 is asked once."""
    return over_processes(module, counts_of_this_process(module, state, promised))


def counts_of_this_process(module: Any, state: Compatibility, promised: Keeps) -> ErrorOverlap:
    loader, share = _share_of_data(module.trainer, state.options.promise_data)
    target, h1_labels = promised.kept or (None, None)
    found, instances = _read(module, state, loader, share, h1_labels)
    labels = torch.cat(found.labels, dim=1) if found.labels else torch.empty(3, 0, dtype=torch.long)
    if target is not None and not torch.equal(labels[0], target):
        # The items come in another order, whatever the loader says of it.
        found, _ = _read(module, state, loader, share, None)
    elif instances == labels.shape[1] and (isinstance(loader, (list, tuple)) or in_order(loader)):
        promised.kept = labels[0], labels[1]
    own = items_of_pass(loader) if state.options.promise_data is None else None
    if own is not None and instances:
        # What fills this process's share up is another's, and does not count.
        every = torch.cat(found.labels, dim=1)
        every[0, own * (labels.shape[1] // instances) :] = -1
        found.labels = [every]
    if not any((each[0] >= 0).any() for each in found.labels):
        return ErrorOverlap([[[0, 0], [0, 0]]])
    return ErrorOverlap(found.compared().overlap.counts.sum(axis=0, keepdims=True))


def over_processes(module: Any, overlap: ErrorOverlap) -> ErrorOverlap:
    trainer = module.trainer
    if trainer.world_size == 1:
        return overlap
    counts = torch.tensor(overlap.counts, device=module.device)
    return ErrorOverlap(trainer.strategy.reduce(counts, reduce_op="sum").cpu())


def _share_of_data(trainer: Any, data: Any) -> tuple[Any, slice]:
    """What the held-out data are read from, and which of its batches are this process's."""
    if data is None:
        # Divided among the processes by their samplers.
        batches = trainer.num_val_batches[0]
        return loader_of(trainer, "val", 0), slice(0, None if math.isinf(batches) else batches, 1)
    loader = DataLoader(data, batch_size=BATCH_SIZE) if isinstance(data, Dataset) else data
    return loader, slice(trainer.global_rank, None, trainer.world_size)


def _read(module: Any, state: Compatibility, loader: Any, share: slice, h1_labels: Tensor | None) -> tuple[Found, int]:
    h1 = state.reference if h1_labels is None else h1_labels
    reading = reading_of(module, state=state)
    reader = Reader(h1, module, module.device, (None, None, None), reading, None, None, None, state)
    trainer = module.trainer
    # Going through a loader draws from the generators, h1 may too.
    with random_numbers_kept(), evaluating(state.reference, module), trainer.precision_plugin.val_step_context():
        batches = itertools.islice(loader, share.start, share.stop, share.step)
        found = reader.read(map(trainer.precision_plugin.convert_input, batches), in_order=True)
    return found, reader.instances


def check_promise_data(data: Any, options: PromiseOptions | None) -> None:
    """Refuse held-out data that cannot be read again and again.

    Raises:
        TypeError: They are nothing that gives batches, come once, or come without a promise.
        ValueError: `every` without them.
    """
    if options is None:
        if data is not None:
            raise TypeError("promise_data without a promise: say which, such as promise='nfr <= 0.5%'.")
        return
    if data is None and options.every is not None:
        raise ValueError(
            "every is for held-out data of their own, promise_data=loader. Validation data are looked at as often as "
            f"the Trainer says, Trainer(val_check_interval=...). Received: every={options.every!r}."
        )
    if isinstance(data, (int, float)):
        raise TypeError(
            "A share of the training data is not put aside here, where loaders and samplers are yours. Divide the data "
            "set: train, held_out = torch.utils.data.random_split(dataset, [0.9, 0.1], generator), and give one to "
            f"the training loader, the other by promise_data=held_out. Received: promise_data={data!r}."
        )
    if data is not None and (hasattr(data, "__next__") or not (hasattr(data, "__iter__") or isinstance(data, Dataset))):
        raise TypeError(
            "promise_data must be a data loader, a list of batches or a Dataset, which are read again and again. "
            f"Received: {type(data).__name__}."
        )
