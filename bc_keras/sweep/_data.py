"""The data of a sweep in Keras: one data set, as it was given."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import keras

from bc_core._arrays import to_numpy
from bc_keras.batches._listed_batches import ListedBatches, is_list_of_batches
from bc_keras.batches._validation_data import ValidationData
from bc_keras.reference._stored_dataset import DatasetItems, is_dataset
from bc_keras.sweep._told import digest_of, told_arrays, told_of


def joined_batches(data: dict[str, Any], ids: Any) -> tuple[dict[str, Any], Any]:
    """The data with batches in a list as arrays, and the ids with those that such batches bring."""
    joined, brought = dict(data), {}
    for name, each in data.items():
        if is_list_of_batches(each):
            batches = ListedBatches(each, name)
            joined[name] = batches.arrays()
            if batches.ids is not None:
                brought[name] = batches.ids
    return joined, {**brought, **ids} if isinstance(ids, Mapping) else ids


class Data:
    """One data set of a sweep, as it was given.

    Args:
        name: "train", "val" or "test".
        given: The data, or a function that makes them.
        h1: The model in use, whose inputs tell items from batches.
    """

    def __init__(self, name: str, given: Any, h1: Any) -> None:
        self.given = given
        self.length: int | None = None
        is_pieces = isinstance(given, keras.utils.PyDataset)
        # Data that are trained on go on from epoch to epoch; others are read as they are, whatever their order.
        self.pristine = given if name == "train" and is_pieces else None
        self.is_function = callable(given) and not hasattr(given, "__iter__") and not is_pieces
        self.is_storable = False
        self.kind = type(given).__name__
        if self.is_function:
            self.kind, self.told = "a function", f"made by {told_of(given)}"
            return
        try:
            read = ValidationData(given)
        except (TypeError, ValueError) as error:
            text = str(error).replace("validation_data", name)
            raise type(error)(text) from None
        self.length = read.length
        if self.length is not None:
            self.is_storable = all(hasattr(leaf, "shape") for leaf in keras.tree.flatten(given[0]))
            self.told = f"{self.length} items, {told_arrays(given)}"
            return
        self.told = self.kind
        with suppress(TypeError):
            self.told += f" of {len(given)} batches"
        if is_dataset(given):
            self._look_at_dataset(name, given, h1)

    def _look_at_dataset(self, name: str, dataset: Any, h1: Any) -> None:
        first, again = _first_batches(dataset), _first_batches(dataset)
        if not first:
            raise ValueError(f"{name} must hold at least one batch. Received: an empty data set.")
        if first != again:
            if name == "train":
                warnings.warn(
                    "The training data give other first batches when they are read again, so that the order goes on "
                    "from point to point, and depends on which points were trained before: pass a function that makes "
                    "the data set, train=lambda: dataset.shuffle(...).batch(...), which is called after the seed was "
                    "set.",
                    stacklevel=6,
                )
            return
        self.told += f", begins with {'-'.join(first)}"
        try:
            inputs = getattr(h1, "inputs", None) if isinstance(h1, keras.Model) else None
            ranks = [len(tensor.shape) for tensor in keras.tree.flatten(inputs)] if inputs else None
            items = DatasetItems(dataset, ranks)
        except (TypeError, ValueError):
            return
        # One of items would be trained on as one batch.
        self.is_storable = items.batched

    def made(self) -> Any:
        """The data, made anew where a function makes them."""
        if self.pristine is not None:
            # Its order may go on from epoch to epoch; every point begins with the one that was given.
            return copy.deepcopy(self.pristine)
        return self.given() if self.is_function else self.given


def _first_batches(dataset: Any) -> list[str]:
    """What the first batches of a data set hold, in short."""
    return [digest_of(to_numpy(leaf, "data") for leaf in keras.tree.flatten(element)) for element in dataset.take(2)]
