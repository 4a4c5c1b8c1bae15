"""h1's outputs, computed once and joined to the label of each item.

A frozen h1 answers the same for the same input, so its forward pass need not be repeated in every epoch. What makes
this dangerous is a row that belongs to another item: a data set that augments at random, was reordered, or is
preprocessed otherwise than it was for h1. Each item is therefore stored with a hash of its content, and read back
against it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from bc_core._arrays import label_array, to_numpy
from bc_core.comparison._prediction_tables import Kind, name_of_table, table_of_predictions
from bc_core.reference._callable_fingerprint import is_same_h1
from bc_core.reference._row_checksums import CheckedRows, DamagedRowsError
from bc_core.reference._stored_rows import (
    REPLACE,
    RowFolder,
    RowWriter,
    check_rows,
    compare_answers,
    sampled,
    says_other_h1,
    says_other_item,
)
from bc_keras.batches._attached import attach_arrays, check_labels
from bc_keras.reference._fingerprint import Leaf, fingerprint, fingerprint_rows, name_of_leaf
from bc_keras.reference._stored_dataset import DatasetItems, is_dataset

_FORMAT = "bc_keras.stored_outputs"
_ENTRIES = {"kind": str, "leaves": list}
_SAME_ROUNDING = 1e-2


class StoredOutputs:
    """h1's outputs for every item of one data set.

    Made by `store_outputs` (in a folder) or `StoredOutputs.compute` (in memory), reopened with `StoredOutputs.open`,
    or made of a table of old predictions with `StoredOutputs.from_table`. `attach` joins the outputs to the labels;
    train a `BCModel(h2, h1=stored)` on the result, or any model with the metrics and losses of `bc_keras`.

    Outputs on disk are mapped, not read, and a pickle holds the path only.

    Example:
        >>> import tempfile, keras, numpy as np
        >>> from bc_keras import store_outputs
        >>> h1 = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(3)])
        >>> x, y = np.random.default_rng(0).normal(size=(5, 2)), np.array([0, 1, 2, 0, 1])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     stored = store_outputs(h1, x, folder + "/h1-train", verbose=0)
        ...     x, joined = stored.attach(x, y)
        ...     len(stored), stored.num_classes, joined.shape
        (5, 3, (5, 4))
    """

    def __init__(
        self,
        outputs: NDArray[Any] | CheckedRows,
        fingerprint: str,
        hashes: NDArray[np.uint64] | None = None,
        items: tuple[str, tuple[Leaf, ...]] | None = None,
        path: Path | None = None,
    ) -> None:
        self._outputs = outputs
        self._fingerprint = fingerprint
        self._hashes = hashes
        self._items = items
        self._path = path

    @classmethod
    def open(cls, path: str | Path, h1: Any = None) -> StoredOutputs:
        """Open a folder that `store_outputs` wrote.

        Args:
            path: the folder.
            h1: the old model, to be sure that the outputs are its; it is compared by its fingerprint. Use `verify` to
                compare its answers too.

        Raises:
            FileNotFoundError: there is no such folder.
            ValueError: the folder holds no stored outputs, incomplete ones, those of another h1, or is damaged.
        """
        folder = RowFolder(path, _FORMAT, _ENTRIES)
        header = folder.complete_header()
        if h1 is not None:
            found = fingerprint(h1)
            folder.check_same_h1(header, found)
            folder.say_if_by_name(header, found)
        return cls._mapped(folder, header)

    @classmethod
    def compute(cls, h1: Any, x: Any, y: Any = None, *, batch_size: int = 256, verbose: int | str = 0) -> StoredOutputs:
        """Compute h1's outputs for every item and keep them in memory; arguments are those of `store_outputs`.

        Example:
            >>> import numpy as np
            >>> from bc_keras import StoredOutputs
            >>> stored = StoredOutputs.compute(lambda x: x * 2, np.eye(3, dtype="float32"))
            >>> stored[1].tolist()
            [0.0, 2.0, 0.0]
        """
        h1 = _plain(h1)
        items = _items_of(h1, x, y, batch_size)
        hashes = items.hashes()
        rows = _collected(_answers(h1, items, np.zeros(len(hashes), dtype=bool), verbose))
        return cls(rows, fingerprint(h1), hashes, (items.kind, items.leaves))

    @classmethod
    def from_table(cls, predictions: Any, kind: Kind | None = None) -> StoredOutputs:
        """Use a table of predictions of an old service whose weights are gone.

        Nothing ties the rows to items but their order: row i must belong to item i.

        Args:
            predictions: predicted labels, integers of shape (N,), -1 where there is no prediction (such an item counts
                as wrong); or scores, floating-point of shape (N, C), or (N,) or (N, 1) for a binary model. An array, a
                tensor or nested lists.
            kind: what scores are: `"logits"`, `"probabilities"` (each row sums to 1; of class 1 for a binary model) or
                `"log_probabilities"`. Not for labels.

        Returns:
            Outputs in memory: labels as int64; logits as they are; probabilities as their logarithms, or a binary
            model's log-odds, in float32 or the float64 that they came in.

        Raises:
            ValueError: the table is empty, has another shape, NaN or infinite values, numbers that are no labels or no
                probabilities, or scores whose kind was not given.

        Example:
            >>> from bc_keras import StoredOutputs
            >>> StoredOutputs.from_table([2, 0, 1]).labels_only
            True
            >>> StoredOutputs.from_table([[0.25, 0.75]], kind="probabilities")[0].round(3).tolist()
            [-1.386, -0.288]
        """
        outputs = table_of_predictions(_as_array(predictions, "predictions"), kind)
        return cls(outputs, name_of_table(outputs))

    @classmethod
    def from_predictions(cls, predictions: Any) -> StoredOutputs:
        """Use an array of h1's scores or labels as they are: probabilities stay probabilities.

        Args:
            predictions: scores (N, C), or (N,) or (N, 1) for a binary model; or labels, integers (N,). Row i must
                belong to item i.

        Raises:
            ValueError: the array is empty, or NaN or infinite somewhere.
        """
        outputs = _as_rows(predictions, False)
        if outputs.ndim == 0 or not len(outputs):
            raise ValueError(
                "h1's predictions need one row for each item: scores (N, C) or labels (N,). Received: shape "
                f"{outputs.shape}."
            )
        check_rows(outputs, np.arange(len(outputs)), outputs.shape[1:])
        return cls(outputs, name_of_table(outputs))

    @classmethod
    def _mapped(cls, folder: RowFolder, header: dict[str, Any]) -> StoredOutputs:
        outputs, hashes = folder.map(header)
        leaves = header["leaves"]
        if not leaves or not all(isinstance(leaf, list) and [*map(type, leaf)] == [str, str, int] for leaf in leaves):
            raise DamagedRowsError(
                f"the header of {folder.path} is damaged (it says that items have the parts {leaves}): store the "
                "outputs again with store_outputs(..., overwrite=True)"
            )
        items = (header["kind"], tuple(Leaf(*leaf) for leaf in leaves))
        return cls(outputs, header["h1"], hashes, items, folder.path)

    @property
    def path(self) -> Path | None:
        """The folder on disk, or `None` for outputs in memory."""
        return self._path

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the h1 that gave the outputs, or of the table."""
        return self._fingerprint

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all outputs together: (N, C) for scores, (N,) for labels."""
        return self._outputs.shape

    @property
    def labels_only(self) -> bool:
        """Whether the rows are predicted labels instead of scores."""
        return self._outputs.dtype.kind in "iu"

    @property
    def num_classes(self) -> int | None:
        """h1's number of classes, or `None` for labels and for a binary model's single score."""
        columns = self.shape[-1] if len(self.shape) > 1 and not self.labels_only else 1
        return None if columns == 1 else columns

    def __len__(self) -> int:
        return len(self._outputs)

    def __getitem__(self, indices: Any) -> NDArray[Any]:
        """Read rows.

        Args:
            indices: an item's index, or a slice, sequence, array or tensor of them.

        Returns:
            A copy of the rows: shape (C,) for one index, (K, C) for K of them, without C for labels.

        Raises:
            ValueError: a row on disk is not the one that was written; each is looked at when it is first read.
        """
        if hasattr(indices, "detach") or hasattr(indices, "numpy"):
            indices = ops.convert_to_numpy(indices)
        return np.array(self._outputs[indices])

    def __repr__(self) -> str:
        where = "in memory" if self._path is None else f"at {self._path}"
        return f"StoredOutputs({len(self)} items, shape {self.shape}, {self._outputs.dtype}, {where})"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._path is None:
            return StoredOutputs, (self._outputs, self._fingerprint, self._hashes, self._items)
        return StoredOutputs.open, (self._path,)

    def attach(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        num_classes: int | None = None,
        class_weight: Mapping[int, float] | None = None,
        verify: bool = True,
    ) -> Any:
        """Join h1's outputs to the labels of the data they were stored for.

        Arrays are compared item by item at once. A data set is compared when it is attached, in its first items and
        its length, and again item by item in every epoch, inside the pipeline; the rows are then held in memory.
        Attach before shuffling and augmenting:
        `stored.attach(dataset).shuffle(10_000).map(augment).batch(256).prefetch(2)`, where `dataset` gives items.

        Args:
            x: inputs, as given to `store_outputs`; or a `tf.data.Dataset` of (x, y) or (x, y, sample_weight), in items
                or batches of any size, whatever they were when the outputs were stored.
            y: labels, class indices (N,) or (N, 1), or one-hot (N, C); None for a data set.
            sample_weight: weights (N,), passed on.
            num_classes: columns of h2's output (1 for a binary model with one score); needed where h1 gave labels.
            class_weight: weights by class, multiplied into the sample weights. Give it here and not to `fit`.
            verify: whether to compare every item; a few are compared in any case. A table has no hashes.

        Returns:
            `(x, joined_y)` or `(x, joined_y, sample_weight)`, x as it came, y as `bc_keras` metrics, losses and
            `BCModel` read it; a `tf.data.Dataset` of the same for a data set.

        Raises:
            TypeError: data that are neither arrays nor a data set.
            ValueError: another number of items; an item that is not the one that was stored, or is of another type;
                no labels; arrays where the outputs were stored for a data set, or the other way round.

        A data set whose items change later fails in `fit` with TensorFlow's `InvalidArgumentError`, which names the
        item.

        Example:
            >>> import numpy as np
            >>> from bc_keras import StoredOutputs
            >>> x, y = np.arange(3.0), np.array([1, 0, 1])
            >>> stored = StoredOutputs.from_table([1, 1, -1])
            >>> stored.attach(x, y, num_classes=2)[1].tolist()
            [[1.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, nan, nan]]
        """
        if self.labels_only:
            check_labels(np.asarray(self._outputs), num_classes)
        if is_dataset(x):
            if y is not None or sample_weight is not None:
                raise ValueError(
                    "A data set brings its own labels and weights: give them in its elements, (x, y) or "
                    "(x, y, sample_weight). Received: a tf.data.Dataset and y or sample_weight."
                )
            return self._attach_dataset(x, num_classes, class_weight, verify)
        if y is None:
            raise ValueError("h1's predictions are put beside the labels, so y is needed. Received: y=None.")
        self._check_kind("arrays")
        if self._items is None:
            length = len(_as_array(y, "y"))
            if length != len(self):
                raise ValueError(_says_other_length(length, len(self)))
        else:
            self._check_arrays(x, y, verify)
        return attach_arrays(x, y, np.asarray(self._outputs), sample_weight, num_classes, class_weight)

    def _check_arrays(self, x: Any, y: Any, verify: bool = True) -> None:
        assert self._items is not None
        _, leaves = self._items
        items = _ArrayItems(x, y if any(leaf.name == "y" for leaf in leaves) else None)
        if len(items) != len(self):
            raise ValueError(_says_other_length(len(items), len(self)))
        _check_same_leaves(items.leaves, leaves)
        rows = np.arange(len(self)) if verify else np.array(sampled(len(self)))
        self._check_hashes(rows, items.hashes(None if verify else rows))

    def _check_hashes(self, rows: NDArray[np.int64], found: NDArray[np.uint64]) -> None:
        if self._hashes is None:
            return
        wrong = np.flatnonzero(found != self._hashes[rows])
        if wrong.size:
            if isinstance(self._outputs, CheckedRows):
                # The hashes may be what is wrong.
                self._outputs.check(rows[wrong])
            first = int(wrong[0])
            raise ValueError(
                f"{says_other_item(int(rows[first]), int(found[first]), self._hashes)}. Received: {wrong.size} other "
                f"items among {len(rows)}."
            )

    def _check_kind(self, kind: str) -> None:
        if self._items is None or self._items[0] == kind:
            return
        stored, given = ("arrays", "a tf.data.Dataset")[:: 1 if kind == "dataset" else -1]
        remedy = (
            "attach the arrays, `stored.attach(x, y)`, and make the data set from the result"
            if kind == "dataset"
            else "attach the data set, or store the outputs again for the arrays"
        )
        raise ValueError(
            f"These outputs were stored for {stored}; items of {given} have other hashes, so they cannot be compared: "
            f"{remedy}. Received: {given}."
        )

    def _attach_dataset(
        self, dataset: Any, num_classes: int | None, class_weight: Mapping[int, float] | None, verify: bool
    ) -> Any:
        self._check_kind("dataset")
        leaves = None if self._items is None else self._items[1]
        items = DatasetItems(dataset, leaves=leaves)
        if [leaf.name for leaf in items.leaves if leaf.name.startswith("y")] != ["y"]:
            raise ValueError(
                "h1's predictions are put beside the labels, so each element must be (x, y) or (x, y, sample_weight) "
                f"with one tensor y. Received: elements of {', '.join(map(str, items.leaves))}."
            )
        if leaves is not None and self._hashes is not None:
            with_labels = any(leaf.name == "y" for leaf in leaves)
            given = [leaf for leaf in items.leaves if with_labels or leaf.name != "y"]
            _check_same_leaves(given, leaves)
            items.check_first(self._hashes, leaves)
        items.check_length(len(self))
        hashes = self._hashes if verify else None
        return items.attach(np.asarray(self._outputs), hashes, leaves or (), num_classes, class_weight)

    def verify(self, h1: Any, x: Any, y: Any = None, *, tolerance: float = _SAME_ROUNDING) -> None:
        """Check every row on disk by its checksum, and ask h1 again about a few items.

        Args:
            h1: the old model, as given to `store_outputs`.
            x: the data, as given to `store_outputs`.
            y: labels, if they were given to `store_outputs`.
            tolerance: largest difference allowed, relative to the largest score of the row or 1. Devices and precision
                round differently.

        Raises:
            ValueError: h1, the data or the answers differ, or rows are not those that were written.
        """
        h1 = _plain(h1)
        if self._items is not None and not is_same_h1(self._fingerprint, fingerprint(h1)):
            where = "in memory" if self._path is None else str(self._path)
            raise ValueError(says_other_h1(where, self._fingerprint, fingerprint(h1)))
        self._check_kind("dataset" if is_dataset(x) else "arrays")
        if isinstance(self._outputs, CheckedRows):
            self._outputs.check()
        items = _items_of(h1, x, y, len(self))
        hashes = items.hashes()
        if len(hashes) != len(self):
            raise ValueError(_says_other_length(len(hashes), len(self)))
        if self._items is not None:
            _check_same_leaves(items.leaves, self._items[1])
        self._check_hashes(np.arange(len(self)), hashes)
        _ask_again(h1, items, self._outputs, np.ones(len(self), dtype=bool), tolerance)


def store_outputs(
    h1: Any,
    x: Any,
    path: str | Path,
    *,
    y: Any = None,
    batch_size: int = 256,
    overwrite: bool = False,
    verbose: int | str = 1,
) -> StoredOutputs:
    """Compute h1's outputs for every item of a data set, once, and keep them in a folder.

    Rows that an earlier call computed are kept, so an interrupted call is taken up where it stopped, and a finished
    one costs no forward pass. A `tf.data.Dataset` is read twice: once to hash its items, once for h1, which also
    tells whether it gives the same items in the same order.

    Args:
        h1: the old model: a Keras model, or a callable of a batch of inputs that returns scores, or predicted labels
            (integers, or with an attribute `labels_only = True`).
        x: inputs: an array, or a structure of arrays for a model of several inputs; or a `tf.data.Dataset` of x,
            (x, y) or (x, y, sample_weight), in items or batches, without shuffling and random augmentation.
        path: the folder to write.
        y: labels, to be compared too when the outputs are attached; those of a data set are. h1 never sees them.
        batch_size: items per forward pass; batches of a data set stay as they are.
        overwrite: replace the outputs of another h1 or data set that are in the folder.
        verbose: 0 for silence, 1 for a progress bar.

    Returns:
        The stored outputs: float32 (float64 if h1 gave that), or int64 if h1 gives labels.

    Raises:
        TypeError: data of another kind, or h1 is stored outputs itself.
        ValueError: h1 has no weights yet; the data are empty, or differ from reading to reading; the folder holds
            outputs of another h1 or data set, or other files, or is damaged; h1 gave NaN or infinite scores, or
            another number of rows than items.
        RuntimeError: another process stores outputs in the folder.
        KeyboardInterrupt: Ctrl-C. What was done is kept.
        FullDiskError: there is no room for the outputs (an OSError). What was done is kept.

    Example:
        >>> import tempfile, keras, numpy as np
        >>> from bc_keras import store_outputs
        >>> h1 = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(3)])
        >>> x, y = np.zeros((5, 2), "float32"), np.array([0, 1, 2, 0, 1])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     stored = store_outputs(h1, x, folder + "/h1-train", batch_size=2, verbose=0)
        ...     x, joined = stored.attach(x, y)
        ...     joined[2].tolist()
        [2.0, 0.0, 0.0, 0.0]
    """
    h1 = _plain(h1)
    name = fingerprint(h1)
    folder = RowFolder(path, _FORMAT, _ENTRIES)
    kept = folder.header_to_keep(overwrite)
    if kept is not None:
        folder.check_same_h1(kept, name)
    items = _items_of(h1, x, y, batch_size)
    if kept is not None and kept["complete"] and _standing(folder, kept, h1, items).all():
        return StoredOutputs.open(folder.path)
    with folder.locked():
        kept = folder.header_to_keep(overwrite)
        hashes = items.hashes()
        standing = np.zeros(len(hashes), dtype=bool)
        if kept is not None:
            folder.check_same_h1(kept, name)
            standing = _standing(folder, kept, h1, items)
            folder.go_on(kept, standing)
        with ExitStack() as opened:
            writer = None if kept is None else opened.enter_context(RowWriter(folder))
            for indices, found, rows in _answers(h1, items, standing, verbose):
                if writer is None:
                    leaves = [list(leaf) for leaf in items.leaves]
                    folder.create(name, len(hashes), rows.shape[1:], rows.dtype, kind=items.kind, leaves=leaves)
                    writer = opened.enter_context(RowWriter(folder))
                writer.write(indices, found, rows)
        folder.finish()
    return StoredOutputs.open(folder.path)


def answers_about(h1: Any, x: Any, batch_size: int) -> NDArray[Any]:
    """Ask h1 about arrays, batch by batch: its rows, (N, C) or (N,)."""
    h1 = _plain(h1)
    items = _ArrayItems(x, None, batch_size)
    return _collected(_answers(h1, items, np.zeros(len(items), dtype=bool), 0, hashed=False))


class _ArrayItems:
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
            labels = _as_array(y, "y")
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

    def batches(self, done: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint64], Any]]:
        """Read the items that are not done: indices, hashes, inputs."""
        pending = np.flatnonzero(~done)
        hashes = np.zeros(len(self), np.uint64) if self._hashes is None else self._hashes
        for start in range(0, len(pending), self._batch_size):
            indices = pending[start : start + self._batch_size]
            yield indices, hashes[indices], self._inputs(indices)

    def sample(self, done: NDArray[np.bool_]) -> tuple[list[int], Any]:
        """A few items that are done, spread over all: indices and inputs."""
        known = np.flatnonzero(done)
        rows = [int(known[position]) for position in sampled(len(known))] if len(known) else []
        return rows, self._inputs(np.array(rows, np.int64))

    def _inputs(self, indices: NDArray[np.int64]) -> Any:
        return keras.tree.map_structure(lambda array: array[indices], self._x)


def _items_of(h1: Any, x: Any, y: Any, batch_size: int) -> _ArrayItems | DatasetItems:
    if not is_dataset(x):
        return _ArrayItems(x, y, batch_size)
    if y is not None:
        raise ValueError(
            "A data set brings its own labels: give it as elements (x, y). Received: a tf.data.Dataset and y."
        )
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1. Received: batch_size={batch_size!r}.")
    inputs = getattr(h1, "inputs", None) if isinstance(h1, keras.Model) else None
    ranks = [len(tensor.shape) for tensor in keras.tree.flatten(inputs)] if inputs else None
    return DatasetItems(x, ranks).in_batches_of(batch_size)


def _plain(h1: Any) -> Any:
    """h1 itself, in its own classes, once it is sure that it can be asked."""
    # It asks for the class of this file.
    from bc_keras.reference._reference import Reference

    if isinstance(h1, Reference):
        h1 = h1.h1
    if isinstance(h1, StoredOutputs):
        raise TypeError(
            f"h1 is stored outputs, which cannot be asked about items: give the old model itself. Received: h1={h1!r}."
        )
    return Reference(h1).h1


def _answers(
    h1: Any, items: _ArrayItems | DatasetItems, done: NDArray[np.bool_], verbose: int | str, hashed: bool = True
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[Any]]]:
    """Ask h1 about the items that are not done: indices, hashes, rows."""
    if hashed:
        items.hashes()
    ask = _asking(h1)
    bar = keras.utils.Progbar(len(done), verbose=1 if verbose == "auto" else int(verbose), unit_name="item")
    finished = int(done.sum())
    row: tuple[int, ...] | None = None
    for indices, hashes, x in items.batches(done):
        rows = ask(x)
        row = rows.shape[1:] if row is None else row
        check_rows(rows, indices, row)
        yield indices, hashes, rows
        finished += int((~done[indices]).sum())
        bar.update(finished)


def _collected(answers: Iterator[tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[Any]]]) -> NDArray[Any]:
    return np.concatenate([rows for _, _, rows in answers])


def _asking(h1: Any) -> Callable[[Any], NDArray[Any]]:
    """Make a function from inputs, numpy's or TensorFlow's, to h1's rows."""
    from bc_keras.reference._reference import only_tensor

    labels_only = bool(getattr(h1, "labels_only", False))

    # A model of a tf.distribute strategy would be asked once by every replica, about the same batch.
    replicas = getattr(getattr(h1, "distribute_strategy", None), "num_replicas_in_sync", 1)

    def ask(x: Any) -> NDArray[Any]:
        if isinstance(h1, keras.Model) and replicas == 1:
            output = h1.predict_on_batch(x)
        else:
            x = keras.tree.map_structure(_as_tensor, x)
            output = h1(x, training=False) if isinstance(h1, keras.Layer) else h1(x)
        return _as_rows(only_tensor(output, "h1"), labels_only)

    return ask


def _as_tensor(value: Any) -> Any:
    # Text has tensors in TensorFlow only.
    is_text = isinstance(value, np.ndarray) and value.dtype.kind in "OSU"
    return value if is_text and keras.backend.backend() != "tensorflow" else ops.convert_to_tensor(value)


def _as_rows(answer: Any, labels_only: bool) -> NDArray[Any]:
    """h1's answer in numpy: scores in float32 or float64, labels in int64."""
    rows = _as_array(answer, "h1's output")
    if labels_only:
        rows = label_array(rows, "h1's output")
    if rows.dtype.kind in "iub":
        rows = rows.astype(np.int64)
        return rows[..., 0] if rows.ndim > 1 and rows.shape[-1] == 1 else rows
    if rows.dtype.kind != "f":
        raise TypeError(f"h1 must return numbers, scores or integer labels. Received: dtype {rows.dtype}.")
    return rows if rows.dtype == np.float64 else rows.astype(np.float32)


def _as_array(values: Any, name: str) -> NDArray[Any]:
    """Numpy array of an array, tensor or list; a list of bools stays one of bools."""
    return np.asarray(values) if isinstance(values, list) else to_numpy(values, name)


def _standing(
    folder: RowFolder,
    header: dict[str, Any],
    h1: Any,
    items: _ArrayItems | DatasetItems,
) -> NDArray[np.bool_]:
    """Which rows are done and undamaged, once it is sure that they are this h1's for these data."""
    hashes = items.hashes()
    folder.check_same_length(header, len(hashes))
    stored = StoredOutputs._mapped(folder, header)
    assert isinstance(stored._outputs, CheckedRows)
    standing = folder.standing(header, stored._outputs)
    try:
        stored._check_kind(items.kind)
        _check_same_leaves(items.leaves, tuple(Leaf(*leaf) for leaf in header["leaves"]))
        known = np.flatnonzero(standing)
        stored._check_hashes(known, hashes[known])
    except ValueError as error:
        raise ValueError(f"{folder.path} holds h1's outputs for another data set; {REPLACE}. {error}") from error
    _ask_again(h1, items, stored._outputs, standing, _SAME_ROUNDING)
    return standing


def _ask_again(
    h1: Any,
    items: _ArrayItems | DatasetItems,
    outputs: NDArray[Any] | CheckedRows,
    done: NDArray[np.bool_],
    tolerance: float,
) -> None:
    """Compare answers too: a callable is known by its name only, and that stays when its weights change."""
    rows, x = items.sample(done)
    if rows:
        compare_answers(np.array(outputs[rows]), _asking(h1)(x), rows, tolerance)


def _check_same_leaves(given: Sequence[Leaf], stored: Sequence[Leaf]) -> None:
    if list(given) != list(stored):
        raise ValueError(
            "The items have other parts or types than those that h1's outputs were stored for, so none can be the "
            f"same: expected {', '.join(map(str, stored))}. Received: {', '.join(map(str, given))}."
        )


def _says_other_length(items: int, stored: int) -> str:
    return (
        f"the data set has {items} items, but h1's outputs were stored for {stored}: attach the data set they were "
        f"stored for, and take subsets of what comes back. Received: {items} items."
    )
