"""Which loader a batch came from, and what is known of the order that it reads its data set in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils.data import BatchSampler, SequentialSampler
from torch.utils.data.distributed import DistributedSampler

from bc_lightning.batches._attached import check_collate
from bc_lightning.training._state import Epoch, Position, Stage
from bc_lightning.training.comparisons._comparisons import Order
from bc_lightning.training.watching._tensors import storage_of, tensors_in


def loaders_of(trainer: Any, stage: Stage) -> list[Any]:
    """The loaders of a stage in the order of their numbers, out of whatever lists and mappings they came in."""
    given = {"train": trainer.train_dataloader, "val": trainer.val_dataloaders, "test": trainer.test_dataloaders}
    return list(_flat(given[stage]))


def check_collates(module: Any, stage: Stage) -> None:
    """Refuse loaders of attached data sets whose collate functions know nothing of h1's stored outputs."""
    if any(state.reference.is_stored and stage in state.options.stages for state in module._compatibilities):
        for loader in loaders_of(module.trainer, stage):
            check_collate(loader)


def _flat(loaders: Any) -> Any:
    # As Lightning numbers them.
    if isinstance(loaders, Mapping):
        for loader in loaders.values():
            yield from _flat(loader)
    elif isinstance(loaders, (list, tuple)):
        for loader in loaders:
            yield from _flat(loader)
    elif (inner := getattr(loaders, "flattened", None)) is not None and isinstance(inner, list):
        # A CombinedLoader of the user's.
        yield from inner
    elif loaders is not None:
        yield loaders


def has_validation(trainer: Any) -> bool:
    """Whether a training that begins has anything to be validated on."""
    return bool(trainer.enable_validation and sum(trainer.num_val_batches))


def never_validated(trainer: Any) -> str | None:
    """Why a training that begins will not be validated, as far as is known of it; None where it will be."""
    if not has_validation(trainer):
        return "there are none"
    every, last = trainer.check_val_every_n_epoch, trainer.max_epochs
    if every is not None and last is not None and 0 < last < (trainer.current_epoch // every + 1) * every:
        return f"the Trainer comes to none: check_val_every_n_epoch={every}, max_epochs={last}"
    return None


def loader_of(trainer: Any, stage: Stage, dataloader_idx: int) -> Any:
    """The loader of a number, or None where several are read into one batch."""
    loaders = loaders_of(trainer, stage)
    if stage == "train":
        return loaders[0] if len(loaders) == 1 else None
    return loaders[dataloader_idx] if dataloader_idx < len(loaders) else None


def sampler_of(loader: Any) -> tuple[Any, bool]:
    """What gives a loader its indices, and whether batches keep its order.

    A batch sampler of one's own has the sampler inside; the loader's ``sampler`` is a stand-in then. Its order is kept
    where it makes batches as PyTorch's does.
    """
    batches, sampler = _batches_of(loader), getattr(loader, "sampler", None)
    if batches is None:
        return sampler, True
    kept = isinstance(batches, BatchSampler) and type(batches).__iter__ in (
        BatchSampler.__iter__,
        *_of_lightning(type(batches)),
    )
    return getattr(batches, "sampler", sampler), kept


def _batches_of(loader: Any) -> Any:
    """What gives a loader the indices of each batch, if anything does; of a loader without batching its sampler may."""
    batches, sampler = getattr(loader, "batch_sampler", None), getattr(loader, "sampler", None)
    return sampler if batches is None and isinstance(sampler, BatchSampler) else batches


def _of_lightning(kind: type[Any]) -> tuple[Any, ...]:
    # Lightning's own batch samplers keep the order.
    if kind.__module__.split(".")[0] in ("lightning", "pytorch_lightning"):
        return (kind.__iter__,)
    return ()


def order_of(loader: Any, world_size: int) -> Order:
    """The order that a loader reads its data set in, where it can be known."""
    sampler, kept = sampler_of(loader)
    batches = _batches_of(loader)
    size = getattr(batches, "batch_size", None) if batches is not None else getattr(loader, "batch_size", None)
    if not kept:
        return Order()
    if type(sampler) is SequentialSampler:
        # With several processes each would read the whole data set.
        return Order(0, 1, len(sampler), size) if world_size == 1 else Order()
    if type(sampler) is DistributedSampler and not sampler.shuffle:
        return Order(sampler.rank, sampler.num_replicas, _own_items(sampler), size)
    return Order()


class Part(NamedTuple):
    """What one of several loaders that are read into one batch has brought to it."""

    number: int
    loader: Any
    batch: Any

    @property
    def size(self) -> int:
        """How many instances it has."""
        return next((len(tensor) for tensor in tensors_in(self.batch) if tensor.ndim), 0)

    def holds(self, tensors: Iterable[Tensor]) -> bool:
        """Whether all these tensors, or what they are views of, are in it."""
        own, asked = ({storage_of(tensor) for tensor in each} for each in (tensors_in(self.batch), tensors))
        return bool(asked) and asked <= own


def parts_of(trainer: Any, stage: Stage, batch: Any) -> list[Part] | None:
    """What each loader has brought to a batch; None where a batch is one loader's.

    Empty where hooks have built the batch otherwise than its loaders.
    """
    loops = {"train": trainer.fit_loop, "val": trainer.fit_loop.epoch_loop.val_loop, "test": trainer.test_loop}
    loop = trainer.validate_loop if stage == "val" and trainer.state.fn == "validate" else loops[stage]
    combined = getattr(loop, "_combined_loader", None)
    if combined is None or combined._mode == "sequential" or len(combined.flattened) < 2:
        return None
    try:
        loaders, parts = zip(*_pairs(combined.iterables, batch), strict=True)
    except (KeyError, IndexError, TypeError, ValueError):
        return []
    return [Part(*each) for each in zip(range(len(loaders)), loaders, parts, strict=True)]


def _pairs(loaders: Any, batch: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(loaders, Mapping):
        for key, loader in loaders.items():
            yield from _pairs(loader, batch[key])
    elif isinstance(loaders, (list, tuple)):
        for loader, part in zip(loaders, batch, strict=True):
            yield from _pairs(loader, part)
    else:
        yield loaders, batch


def repeats_items(loader: Any) -> bool:
    """Whether a DistributedSampler repeats items of the loader to fill its shards."""
    sampler, _ = sampler_of(loader)
    if not isinstance(sampler, DistributedSampler) or sampler.drop_last:
        return False
    return len(sampler.dataset) % sampler.num_replicas != 0  # type: ignore[arg-type]


def items_of_pass(loader: Any) -> int | None:
    """How many leading items of a pass over a loader are no padding; None where all are."""
    return _own_items(sampler_of(loader)[0]) if repeats_items(loader) else None


def _own_items(sampler: Any) -> int:
    return len(range(sampler.rank, len(sampler.dataset), sampler.num_replicas))


def not_padding(loader: Any, epoch: Epoch, position: Position | None, key: int, batch_size: int) -> int | None:
    """How many leading instances of a batch are no padding: DistributedSampler repeats some to fill its shards.

    Raises:
        ValueError: the loader has repeated items, and in which batch cannot be known.
    """
    if not repeats_items(loader):
        return None
    sampler, kept = sampler_of(loader)
    items = len(sampler.dataset)
    if not kept:
        raise ValueError(
            f"The DistributedSampler inside of {type(loader.batch_sampler).__name__} repeats items, for {items} are "
            f"not a multiple of {sampler.num_replicas} processes, and a batch sampler with an order of its own does "
            f"not say in which batch they come, so they would be counted twice. Evaluate on one device, "
            f"Trainer(devices=1), or leave the order to PyTorch's BatchSampler."
        )
    last, before, size = epoch.seen.get(key, (None, 0, 0))
    # Asked again about the same batch (LBFGS, two losses), nothing new has been seen.
    seen = before if size and last == position and position is not None else before + size
    if _batches_of(loader) is None:
        # Each item is a batch.
        batch_size = 1
    # Beside a longer loader a shorter one begins anew when it has come to its end.
    seen %= _length_of_pass(loader, sampler)
    epoch.seen[key] = (position, seen, batch_size)
    own = _own_items(sampler)
    return None if own >= seen + batch_size else max(0, own - seen)


def _length_of_pass(loader: Any, sampler: Any) -> int:
    batches, length = _batches_of(loader), len(sampler)
    left_out = length % batches.batch_size if getattr(batches, "drop_last", False) else 0
    return max(1, length - left_out)
