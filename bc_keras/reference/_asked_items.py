"""h1 and the items it is asked about: arrays, whose rows they are, or a `tf.data.Dataset`."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from bc_core._arrays import to_numpy
from bc_core.reference._stored_outputs import ItemsForH1
from bc_core.reference._stored_rows import RowFolder, RowWriter, check_rows, sampled_of
from bc_keras.reference._asking import as_array, asking, plain
from bc_keras.reference._fingerprint import Items, Leaf, fingerprint, fingerprint_rows, name_of_leaf
from bc_keras.reference._stored_dataset import Batch, DatasetItems, is_dataset


class ArrayItems:
    """Arrays whose rows are items; the counterpart of `DatasetItems`."""

    kind = "arrays"

    def __init__(self, x: Any, y: Any = None, batch_size: int = 256) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1. Received: batch_size={batch_size!r}.")
        self._batch_size = batch_size
        paths = keras.tree.flatten_with_path(x)
        for path, leaf in paths:
            if len(getattr(leaf, "shape", ())) == 0:
                raise TypeError(
                    "Data must be an array or a structure of arrays with one row for each item, or a tf.data.Dataset; "
                    "a generator or loader has no rows that can be read again. Received: "
                    f"{name_of_leaf('x', path)} of type {type(leaf).__name__}."
                )
        named = [(name_of_leaf("x", path), to_numpy(leaf, name_of_leaf("x", path))) for path, leaf in paths]
        self._x = keras.tree.pack_sequence_as(x, [array for _, array in named])
        if y is not None:
            labels = as_array(y, "y")
            # A list, a loader and TensorFlow give labels in different integer types.
            named.append(("y", labels.astype(np.int64) if labels.dtype.kind in "iu" else labels))
        self._arrays = [array for _, array in named]
        lengths = {name: len(array) for name, array in named}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"Inputs and labels must have one row for each item. Received: lengths {lengths}.")
        if not len(self):
            raise ValueError("The data set is empty: give one with items. Received: no rows.")
        self.leaves = tuple(
            Leaf(name, "string" if array.dtype.kind == "U" else array.dtype.name, array.ndim - 1)
            for name, array in named
        )
        self._hashes: NDArray[np.uint64] | None = None

    def __len__(self) -> int:
        return len(self._arrays[0])

    def hashes(self, rows: NDArray[np.int64] | None = None) -> NDArray[np.uint64]:
        """Hash all items, or some."""
        if rows is not None:
            return fingerprint_rows(self.leaves, [array[rows] for array in self._arrays])
        if self._hashes is None:
            self._hashes = fingerprint_rows(self.leaves, self._arrays)
        return self._hashes

    def batches(self, missing: NDArray[np.int64]) -> Iterator[Batch]:
        """Read the items whose rows are missing: indices, hashes, inputs."""
        hashes = np.zeros(len(self), np.uint64) if self._hashes is None else self._hashes
        for start in range(0, len(missing), self._batch_size):
            indices = missing[start : start + self._batch_size]
            yield indices, hashes[indices], self._inputs(indices)

    def all_rows(self) -> Any:
        """The inputs of all items."""
        return self._x

    def sample(self, known: NDArray[np.int64]) -> tuple[list[int], Any]:
        """A few of the items whose rows are known, spread over all: indices and inputs."""
        rows = sampled_of(known)
        return rows, self._inputs(np.array(rows, np.int64))

    def _inputs(self, indices: NDArray[np.int64]) -> Any:
        return keras.tree.map_structure(lambda array: array[indices], self._x)


class AskedItems(ItemsForH1):
    """h1, in its own classes, and the items of arrays or of a data set.

    Args:
        h1: a model, a callable or a `Reference`.
        x: inputs, or a data set.
        y: labels, where they are a part of the items.
        batch_size: items at a time that h1 is asked about, where the data are not batched already.

    Raises:
        TypeError: data of another kind, or h1 is stored outputs.
        ValueError: h1 has no weights yet, or the data are empty.
    """

    def __init__(self, h1: Any, x: Any, y: Any = None, batch_size: int = 256) -> None:
        self._h1 = plain(h1)
        self.fingerprint = fingerprint(self._h1)
        self._data = _items_of(self._h1, x, y, batch_size)
        self.items = Items(self._data.kind, self._data.leaves)
        # What a header says besides.
        self.entries: dict[str, Any] = {}

    def asking(self, h1: Any, fingerprint: str, entries: dict[str, Any]) -> AskedItems:
        """The same items, and another h1 of this name."""
        other = copy.copy(self)
        other._h1, other.fingerprint, other.entries = plain(h1), fingerprint, entries
        return other

    def __len__(self) -> int:
        return len(self._data.hashes())

    def hashes(self, known: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Hash all: they were read for it once, for their number."""
        return known, self._data.hashes()[known]

    def answers(self, known: NDArray[np.int64]) -> tuple[list[int], NDArray[Any]]:
        """Ask h1 about a few."""
        rows, x = self._data.sample(known) if len(known) else ([], None)
        return rows, asking(self._h1)(x) if rows else np.empty(0)

    def rows(self) -> tuple[NDArray[Any], NDArray[np.uint64]]:
        """Ask h1 about all: its rows, and the hashes of the items."""
        hashes = self._data.hashes()
        return _all_answers(self._h1, self._data, len(hashes), 0), hashes

    def without(self, items: NDArray[np.int64]) -> Any:
        """The data set that is given, without some items; batched if it was."""
        assert isinstance(self._data, DatasetItems)
        return self._data.without(items)

    def store_rows(
        self, verbose: int | str, folder: RowFolder, missing: NDArray[np.int64], fresh: bool, in_order: bool = False
    ) -> None:
        """Ask h1 about the items whose rows are missing, write them, and finish the folder.

        Args:
            verbose: 0 for silence, 1 for a progress bar.
            folder: where rows go.
            missing: which are asked about.
            fresh: whether the files are to be made first.
            in_order: whether these alone are written, in the order of `missing`, and not what comes in a batch with
                them.
        """
        total = len(self)
        with ExitStack() as opened:
            writer = None if fresh else opened.enter_context(RowWriter(folder))
            answers = _answers(self._h1, self._data, total, missing, verbose)
            for indices, hashes, rows in [_in_order(answers, missing)] if in_order else answers:
                if writer is None:
                    described = {"kind": self.items.kind, "leaves": [list(leaf) for leaf in self.items.leaves]}
                    folder.create(self.fingerprint, total, rows.shape[1:], rows.dtype, **described, **self.entries)
                    writer = opened.enter_context(RowWriter(folder))
                writer.write(indices, hashes, rows)
        folder.finish()


def answers_about(h1: Any, x: Any, batch_size: int) -> NDArray[Any]:
    """Ask h1 about arrays, batch by batch: its rows, (N, C) or (N,)."""
    h1 = plain(h1)
    items = ArrayItems(x, None, batch_size)
    return _all_answers(h1, items, len(items), 0)


def _items_of(h1: Any, x: Any, y: Any, batch_size: int) -> ArrayItems | DatasetItems:
    if not is_dataset(x):
        return ArrayItems(x, y, batch_size)
    if y is not None:
        raise ValueError(
            "A data set brings its own labels: give it as elements (x, y). Received: a tf.data.Dataset and y."
        )
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1. Received: batch_size={batch_size!r}.")
    inputs = getattr(h1, "inputs", None) if isinstance(h1, keras.Model) else None
    ranks = [len(tensor.shape) for tensor in keras.tree.flatten(inputs)] if inputs else None
    return DatasetItems(x, ranks).in_batches_of(batch_size)


def _answers(
    h1: Any, data: ArrayItems | DatasetItems, total: int, missing: NDArray[np.int64], verbose: int | str
) -> Iterator[Batch]:
    """Ask h1 about items: indices, hashes, rows. A data set also gives others that come in a batch with them."""
    ask = asking(h1)
    bar = keras.utils.Progbar(total, verbose=1 if verbose == "auto" else int(verbose), unit_name="item")
    finished = total - len(missing)
    row: tuple[int, ...] | None = None
    for indices, hashes, x in data.batches(missing):
        rows = ask(x)
        row = rows.shape[1:] if row is None else row
        check_rows(rows, indices, row)
        yield indices, hashes, rows
        finished += int(np.isin(indices, missing).sum())
        bar.update(finished)


def _in_order(answers: Iterator[Batch], wanted: NDArray[np.int64]) -> Batch:
    """Some of the items that were answered, in the order in which they are wanted."""
    indices, hashes, rows = (np.concatenate(parts) for parts in zip(*answers, strict=True))
    places = np.argsort(indices)[np.searchsorted(np.sort(indices), wanted)]
    return indices[places], hashes[places], rows[places]


def _all_answers(h1: Any, data: ArrayItems | DatasetItems, total: int, verbose: int | str) -> NDArray[Any]:
    return np.concatenate([rows for _, _, rows in _answers(h1, data, total, np.arange(total), verbose)])
