"""The data of a sweep in Lightning: loaders that give the same batches at every point of one seed."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler, default_collate, default_convert

from bc_core._arrays import check_unique_ids, id_array
from bc_core.reference._stored_rows import sampled
from bc_core.sweep._folder import DATASETS
from bc_core.sweep._generators import Generators
from bc_lightning._random_numbers import seeded
from bc_lightning.batches._attached import split_batch
from bc_lightning.batches._model_outputs import _part, begins_with_ids
from bc_lightning.reference._fingerprint import fingerprint_data
from bc_lightning.sweep._hooked import is_own_hook
from bc_lightning.sweep._told import told_of

# Items of a data set that are looked at to know it again.
_LOOKED_AT = 200


class Data:
    """The data loaders of a sweep, as they were given.

    Args:
        train: A loader, another iterable of batches, a function that makes one, or a LightningDataModule with all data.
        val: The same, without a LightningDataModule.
        test: The same.
        beside: Further loaders, which trainings read too.

    Raises:
        TypeError: One is something else, or can be read only once.
    """

    def __init__(self, train: Any, val: Any, test: Any, beside: Iterable[Any] = ()) -> None:
        self._beside = [data for data in beside if data is not None and _is_loader(data)]
        self.given = {name: data for name, data in zip(DATASETS, (train, val, test), strict=True) if data is not None}
        if "train" not in self.given:
            raise TypeError("train is missing: pass a DataLoader, or a function that makes one. Received: train=None.")
        self.module = train if hasattr(train, "train_dataloader") and hasattr(train, "setup") else None
        if self.module is not None and len(self.given) > 1:
            raise TypeError("A LightningDataModule brings all data: leave out val and test.")
        if self.module is None:
            for name, data in self.given.items():
                _check_given(name, data)
        # A data module is set up once; until then its generators are where each call begins.
        self._ready = False
        self.generators = Generators(self._objects, closed=(nn.Module,))

    @property
    def _objects(self) -> list[Any]:
        given = [data for data in self.given.values() if self.module is not None or _is_loader(data)]
        return [*given, *self._beside]

    def loaders(self) -> dict[str, Any]:
        """The loaders by data set; made anew where functions make them."""
        if self.module is None:
            made = {name: data if _is_loader(data) else data() for name, data in self.given.items()}
            # A Trainer takes a list to be several loaders.
            return {
                name: DataLoader(cast("Any", data), batch_size=None) if isinstance(data, (list, tuple)) else data
                for name, data in made.items()
            }
        self._set_up_once()
        made = {name: getattr(self.module, f"{name}_dataloader")() for name in self._of_module}
        for name, loader in made.items():
            if isinstance(loader, (list, tuple)) and all(isinstance(part, DataLoader) for part in loader):
                if len(loader) > 1:
                    raise TypeError(
                        f"{name} must be one data loader. Received from {name}_dataloader: {len(loader)} of them."
                    )
                made[name] = loader[0] if loader else None
        return {name: loader for name, loader in made.items() if loader is not None}

    @property
    def _of_module(self) -> list[str]:
        # Where a module has no loader, Lightning's own answer is an exception.
        return [name for name in DATASETS if is_own_hook(self.module, f"{name}_dataloader")]

    def _set_up_once(self) -> None:
        """Set a data module up; it draws while it is."""
        if self._ready:
            return
        module = cast("Any", self.module)
        with seeded(0):
            module.prepare_data()
            module.setup("fit")
            if "test" in self._of_module:
                module.setup("test")
        self.generators.begin_here(self._objects)
        self._ready = True
        self.generators.rewind(to_the_call=True)

    def set_up(self, loaders: Mapping[str, Any]) -> Any:
        """The data module for a Trainer, which would set it up anew, at every point with other random numbers."""
        module = copy.copy(self.module)
        for hook in ("prepare_data", "setup", "teardown"):
            setattr(module, hook, lambda *args, **kwargs: None)
        for name, loader in loaders.items():
            setattr(module, f"{name}_dataloader", functools.partial(_given, loader))
        return module

    @property
    def are_objects(self) -> bool:
        """Whether the loaders are the same at every point; functions may draw other items with each seed."""
        return self.module is None and all(map(_is_loader, self.given.values()))

    @functools.cached_property
    def names(self) -> list[str]:
        """Names of the data sets."""
        if self.module is None:
            return list(self.given)
        with seeded(0):
            return list(self.loaders())

    def begin_with_ids(self) -> bool:
        """Whether the training data are triples ``(ids, x, y)``, as far as can be told without asking a loader."""
        train = self.given["train"]
        if isinstance(train, (list, tuple)) and train:
            return begins_with_ids(train[0])
        if self.module is not None or not is_read_whole(train) or not len(train.dataset):
            return False
        # Items may be augmented at random.
        with seeded(0):
            return begins_with_ids(train.dataset[0], batched=False)

    def describe(self) -> dict[str, str]:
        """What data these are, in short."""
        with seeded(0):
            return {f"{name} data": in_short(loader) for name, loader in self.loaders().items()}


def _check_given(name: str, data: Any) -> None:
    if hasattr(data, "__next__"):
        raise TypeError(
            f"{name} is an iterator, which can be read once only, and every point reads the data. Received: "
            f"{type(data).__name__}; pass a DataLoader, list(batches), or a function that makes the iterator."
        )
    if isinstance(data, (list, tuple)) and any(isinstance(part, DataLoader) for part in data):
        raise TypeError(f"{name} must be one DataLoader. Received: a {type(data).__name__} of several.")
    if not callable(data) and not _is_loader(data):
        is_dataset = isinstance(data, torch.utils.data.Dataset)
        raise TypeError(
            f"{name} must be a DataLoader, another iterable of batches, or a function that makes one. Received: "
            f"{type(data).__name__}{'; wrap it: DataLoader(dataset, batch_size=64)' if is_dataset else ''}."
        )


def in_short(loader: Any) -> str:
    """What a loader gives, in short."""
    dataset: Any = getattr(loader, "dataset", None)
    if isinstance(dataset, (list, tuple)):
        told = f"{len(dataset)} batches {_short(fingerprint_data(dataset))}"
    elif is_read_whole(loader):
        first = [fingerprint_data(dataset[index]) for index in sampled(len(dataset))]
        again = [fingerprint_data(dataset[index]) for index in sampled(len(dataset))]
        # Augmented items differ from reading to reading.
        shown = "augmented"
        if first == again:
            spread = range(0, len(dataset), -(-len(dataset) // _LOOKED_AT))
            shown = _short(fingerprint_data([fingerprint_data(dataset[index]) for index in spread]))
        if type(dataset) is torch.utils.data.TensorDataset:
            shown = f"{fingerprint_data(dataset.tensors) % 2**32:08x}"
        order = f"{type(loader.sampler).__name__}{', drop_last' if loader.drop_last else ''}"
        told = f"{len(dataset)} items {shown}, batch_size {loader.batch_size}, {order}"
    else:
        told = f"{type(loader).__name__} of {type(dataset).__name__}"
    if (collate := getattr(loader, "collate_fn", None)) not in (None, default_collate, default_convert):
        told += f", {told_of(collate)}"
    return told


def _short(fingerprint: int) -> str:
    """Half of a fingerprint, of both of its halves: numbers and texts are in the one, tensors in the other."""
    return f"{(fingerprint ^ fingerprint >> 32) % 2**32:08x}"


def check_ids(batches: Iterable[Any], ids: Any, name: str) -> None:
    """Refuse ids that name several instances, or are none, before anything is trained."""
    found: list[Any] = []
    for brought in batches:
        batch, _ = split_batch(brought)
        found += id_array(_part(batch, ids, "ids"), name).tolist()
    check_unique_ids(found, name)


def _given(loader: Any) -> Any:
    return loader


def _is_loader(data: Any) -> bool:
    return isinstance(data, DataLoader) or (
        hasattr(data, "__iter__") and not isinstance(data, (str, torch.utils.data.Dataset))
    )


def is_read_whole(loader: Any) -> bool:
    """Whether a loader reads every item of a data set once in each epoch, in whatever order."""
    if type(loader) is not DataLoader or isinstance(loader.dataset, torch.utils.data.IterableDataset):
        return False
    batches, sampler = type(loader.batch_sampler), loader.sampler
    if loader.batch_size is None or batches not in (type(None), torch.utils.data.BatchSampler):
        return False
    if not hasattr(loader.dataset, "__len__"):
        return False
    if type(sampler) is SequentialSampler:
        return True
    return type(sampler) is RandomSampler and not sampler.replacement and sampler.num_samples == len(loader.dataset)
