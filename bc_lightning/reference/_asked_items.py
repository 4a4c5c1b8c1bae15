"""h1 and a map-style data set: how an item is told from others, and what h1 is called with for it."""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import Any

import numpy as np
import torch
from lightning_fabric.utilities import move_data_to_device
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, default_collate

from bc_core._arrays import to_numpy
from bc_core.reference._stored_outputs import ItemsForH1
from bc_core.reference._stored_rows import sampled, sampled_of
from bc_lightning.batches._attached import Collate
from bc_lightning.batches._model_outputs import inputs_from_batch
from bc_lightning.reference._fingerprint import fingerprint_data
from bc_lightning.reference._modules import device_of_module
from bc_lightning.reference._reference import Reference

Inputs = str | int | Callable[[Any], Any] | None


class NotRepeatableError(ValueError):
    """An item of the data set is another one when it is read again."""


class AskedItems(ItemsForH1):
    """h1, in its own classes, and the items of a map-style data set.

    Args:
        h1: A module, a callable or a `Reference`.
        dataset: The data set.
        inputs: What h1 is called with: a key, an index or a function of the batch.
        collate_fn: How items become a batch; PyTorch's default by default.

    Raises:
        TypeError: The data set is iterable or has no length, or h1 is stored outputs.
        ValueError: The data set is empty.
    """

    def __init__(
        self, h1: Any, dataset: Dataset[Any], inputs: Inputs = None, collate_fn: Collate | None = None
    ) -> None:
        self.reference = Reference(h1.h1, scores=h1.scores) if isinstance(h1, Reference) else Reference(h1)
        if self.reference.is_stored:
            raise TypeError("h1 is stored outputs, which cannot be asked about items; give the old model itself")
        self.fingerprint = self.reference.fingerprint
        # What a header says besides.
        self.entries: dict[str, Any] = {}
        self.dataset, self.inputs, self.collate = dataset, inputs, collate_fn or default_collate
        self._length = length_of(dataset)

    def __len__(self) -> int:
        return self._length

    def hashes(self, known: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Hash a few: reading all of a data set may take as long as h1 does."""
        rows = sampled_of(known)
        return np.array(rows, np.int64), np.array([fingerprint_data(self.dataset[row]) for row in rows], np.uint64)

    def answers(self, known: NDArray[np.int64]) -> tuple[list[int], NDArray[Any]]:
        """Ask h1, where it is, about a few."""
        rows = sampled_of(known)
        if not rows:
            return rows, np.empty(0)
        return rows, to_numpy(self.ask(rows, device_of_module(self.reference.module)), "h1's output")

    def ask(self, rows: list[int], device: torch.device | None) -> Tensor:
        """Ask h1 about some items, moved to its device."""
        given = inputs_from_batch(self.collate([self.dataset[row] for row in rows]), self.inputs)
        return self.reference(given if device is None else move_data_to_device(given, device))

    def check_repeatable(self) -> None:
        """Refuse a data set that augments at random, as far as a few items show it.

        Raises:
            NotRepeatableError: An item is another one when it is read again.
        """
        for row in sampled(len(self)):
            if fingerprint_data(self.dataset[row]) != fingerprint_data(self.dataset[row]):
                raise NotRepeatableError(
                    f"item {row} of the data set differs when it is read twice, so one stored output cannot belong "
                    "to it: pass the data set without random augmentation (and augment batches after it), or use "
                    "h1 itself instead of stored outputs"
                )


def length_of(dataset: Any) -> int:
    """Number of items.

    Raises:
        TypeError: The data set has no index or no length.
        ValueError: It is empty.
    """
    if isinstance(dataset, IterableDataset):
        raise TypeError(
            "h1's outputs are stored by index, and an iterable data set has none: give a map-style data set "
            "(with __getitem__ and __len__), or use h1 itself instead of stored outputs"
        )
    if not isinstance(dataset, Sized) or not hasattr(dataset, "__getitem__"):
        raise TypeError(
            f"expected a map-style data set with __getitem__ and __len__, got {type(dataset).__name__}; "
            "give the data set, not its data loader"
        )
    length = len(dataset)
    if length == 0:
        raise ValueError("the data set is empty")
    return length
