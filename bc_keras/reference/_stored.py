"""h1's outputs, computed once and joined to the label of each item."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
from numpy.typing import NDArray

from bc_core._arrays import to_numpy
from bc_core.reference._folds import FoldedItems, says_no_training
from bc_core.reference._prediction_tables import name_of_table
from bc_core.reference._row_checksums import DamagedRowsError
from bc_core.reference._stored_outputs import SAME_ROUNDING, StoredRows, store
from bc_core.reference._stored_rows import RowFolder, check_rows, sampled
from bc_keras.batches._attached import attach_arrays, check_labels, side_by_side
from bc_keras.reference._asked_items import ArrayItems, AskedItems
from bc_keras.reference._asking import as_array, as_rows, plain
from bc_keras.reference._fingerprint import Items, Leaf, fingerprint
from bc_keras.reference._reference import Reference
from bc_keras.reference._stored_dataset import DatasetItems, is_dataset


class StoredOutputs(StoredRows[NDArray[Any]]):
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

    _FORMAT = "bc_keras.stored_outputs"
    _ENTRIES: ClassVar[Mapping[str, type]] = {"kind": str, "leaves": list}
    _name_of = staticmethod(fingerprint)
    _items: Items | None

    @classmethod
    def _read_items(cls, folder: RowFolder, header: dict[str, Any]) -> Items:
        leaves = header["leaves"]
        if not leaves or not all(isinstance(leaf, list) and [*map(type, leaf)] == [str, str, int] for leaf in leaves):
            raise DamagedRowsError(
                f"the header of {folder.path} is damaged (it says that items have the parts {leaves}): store the "
                "outputs again with store_outputs(..., overwrite=True)"
            )
        return Items(header["kind"], tuple(Leaf(*leaf) for leaf in leaves))

    def _check_items(self, items: Items) -> None:
        self._check_kind(items.kind)
        if self._items is not None and items.leaves != self._items.leaves:
            raise ValueError(
                "The items have other parts or types than those that h1's outputs were stored for, so none can be the "
                f"same: expected {', '.join(map(str, self._items.leaves))}. Received: "
                f"{', '.join(map(str, items.leaves))}."
            )

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
        asked = AskedItems(h1, x, y, batch_size)
        rows, hashes = asked.rows()
        return cls(rows, asked.fingerprint, hashes, None, asked.items)

    @classmethod
    def from_predictions(cls, predictions: Any) -> StoredOutputs:
        """Use an array of h1's scores or labels as they are: probabilities stay probabilities.

        Args:
            predictions: scores (N, C), or (N,) or (N, 1) for a binary model; or labels, integers (N,). Row i must
                belong to item i.

        Raises:
            ValueError: the array is empty, or NaN or infinite somewhere.
        """
        outputs = as_rows(predictions)
        if outputs.ndim == 0 or not len(outputs):
            raise ValueError(
                "h1's predictions need one row for each item: scores (N, C) or labels (N,). Received: shape "
                f"{outputs.shape}."
            )
        check_rows(outputs, np.arange(len(outputs)), outputs.shape[1:])
        return cls(outputs, name_of_table(outputs))

    def attach(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        num_classes: int | None = None,
        class_weight: Mapping[int, float] | None = None,
        verify: bool = True,
        teacher: StoredOutputs | None = None,
        plain: StoredOutputs | None = None,
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
            teacher: outputs of the model that is imitated in place of h1, stored for the same data: scores.
            plain: outputs of the model that is imitated where h2 is right, the same.

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
        outputs = np.asarray(self._outputs)
        beside = [each for each in (teacher, plain) if each is not None]
        if beside:
            rows_beside = [np.asarray(self._rows_of(each)) for each in beside]
            outputs = side_by_side(outputs, *rows_beside, num_classes=num_classes)
        if is_dataset(x):
            if y is not None or sample_weight is not None:
                raise ValueError(
                    "A data set brings its own labels and weights: give them in its elements, (x, y) or "
                    "(x, y, sample_weight). Received: a tf.data.Dataset and y or sample_weight."
                )
            known = beside[0] if beside and self._hashes is None else self
            return known._attach_dataset(x, outputs, num_classes, class_weight, verify)
        if y is None:
            raise ValueError("h1's predictions are put beside the labels, so y is needed. Received: y=None.")
        self._check_kind("arrays")
        if self._items is None:
            self.check_length(len(as_array(y, "y")))
        else:
            with_labels = any(leaf.name == "y" for leaf in self._items.leaves)
            items = ArrayItems(x, y if with_labels else None)
            self.check_length(len(items))
            self._check_items(Items(items.kind, items.leaves))
            rows = np.arange(len(self)) if verify else np.array(sampled(len(self)))
            self.check_hashes(rows, items.hashes(None if verify else rows))
        if beside and self._hashes is None:
            # The items are compared with those of another then.
            beside[0].attach(x, y, verify=verify)
        return attach_arrays(x, y, outputs, sample_weight, num_classes, class_weight)

    def _rows_of(self, imitated: StoredOutputs) -> Any:
        """Rows of who is imitated, once it is sure that they were stored for the same items."""
        if imitated.labels_only:
            raise ValueError(
                f"The probabilities of a teacher or a plain h2 are imitated: store its scores. Received: labels, "
                f"{imitated!r}."
            )
        self.check_length(len(imitated))
        if self._items is not None and imitated._items is not None:
            self._check_items(imitated._items)
        if imitated._hashes is not None:
            self.check_hashes(np.arange(len(self)), np.asarray(imitated._hashes))
        return imitated._outputs

    def _check_kind(self, kind: str) -> None:
        if self._items is None or self._items.kind == kind:
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
        self,
        dataset: Any,
        outputs: NDArray[Any],
        num_classes: int | None,
        class_weight: Mapping[int, float] | None,
        verify: bool,
    ) -> Any:
        self._check_kind("dataset")
        leaves = None if self._items is None else self._items.leaves
        items = DatasetItems(dataset, leaves=leaves)
        if [leaf.name for leaf in items.leaves if leaf.name.startswith("y")] != ["y"]:
            raise ValueError(
                "h1's predictions are put beside the labels, so each element must be (x, y) or (x, y, sample_weight) "
                f"with one tensor y. Received: elements of {', '.join(map(str, items.leaves))}."
            )
        if leaves is not None and self._hashes is not None:
            with_labels = any(leaf.name == "y" for leaf in leaves)
            given = tuple(leaf for leaf in items.leaves if with_labels or leaf.name != "y")
            self._check_items(Items(items.kind, given))
            first = items.first(leaves)[: len(self)]
            self.check_hashes(np.arange(len(first)), first)
        items.check_length(len(self))
        hashes = self._hashes if verify else None
        return items.attach(outputs, hashes, leaves or (), num_classes, class_weight)

    def verify(self, h1: Any, x: Any, y: Any = None, *, tolerance: float = SAME_ROUNDING) -> None:
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
        self.check_against(AskedItems(h1, x, y, len(self)), tolerance)


def store_outputs(
    h1: Any,
    x: Any,
    path: str | Path,
    *,
    y: Any = None,
    batch_size: int = 256,
    overwrite: bool = False,
    verbose: int | str = 1,
    folds: int | None = None,
    seed: int = 0,
) -> StoredOutputs:
    """Compute h1's outputs for every item of a data set, once, and keep them in a folder.

    Rows that an earlier call computed are kept, so an interrupted call is taken up where it stopped, and a finished
    one costs no forward pass. A `tf.data.Dataset` is read twice: once to hash its items, once for h1, which also
    tells whether it gives the same items in the same order.

    Args:
        h1: the old model: a Keras model, or a callable of a batch of inputs that returns scores, or predicted labels
            (integers, or with an attribute `labels_only = True`). With `folds` a function ``(x, y) -> model``, or
            ``(dataset) -> model`` for a data set, that makes a model and trains it on the items that it is given.
        x: inputs: an array, or a structure of arrays for a model of several inputs; or a `tf.data.Dataset` of x,
            (x, y) or (x, y, sample_weight), in items or batches, without shuffling and random augmentation.
        path: the folder to write.
        y: labels, to be compared too when the outputs are attached; those of a data set are. h1 never sees them.
        batch_size: items per forward pass; batches of a data set stay as they are.
        overwrite: replace the outputs of another h1 or data set that are in the folder.
        verbose: 0 for silence, 1 for a progress bar.
        folds: into how many folds the items are divided, for a teacher that has not seen the items that it is asked
            about: the outputs for each fold are those of a model that was trained on the others, with labels. A call
            that was interrupted is taken up at the fold where it stopped, whose model is trained anew.
        seed: of the division into folds. Seed the trainings in the function.

    Returns:
        The stored outputs: float32 (float64 if h1 gave that), or int64 if h1 gives labels.

    Raises:
        TypeError: data of another kind, or h1 is stored outputs itself.
        ValueError: h1 has no weights yet; the data are empty, or differ from reading to reading; the folder holds
            outputs of another h1 or data set, or other files, or is damaged; h1 gave NaN or infinite scores, or
            another number of rows than items. With `folds`: fewer than two, no labels, or one model for two folds.
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
        >>> def train(x, y):
        ...     return keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(3)])  # and fit it on x, y
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store_outputs(train, x, folder + "/plain-out-of-fold", y=y, folds=5, verbose=0).shape
        (5, 3)
    """
    if folds is not None:
        return _store_folds(h1, x, path, y, (folds, seed), batch_size, overwrite, verbose)
    asked = AskedItems(h1, x, y, batch_size)
    return store(StoredOutputs, asked, path, partial(asked.store_rows, verbose), overwrite=overwrite)


def _store_folds(
    train: Any,
    x: Any,
    path: str | Path,
    y: Any,
    division: tuple[int, int],
    batch_size: int,
    overwrite: bool,
    verbose: int | str,
) -> StoredOutputs:
    """Rows of models that were trained without the items that they are asked about."""
    if isinstance(train, keras.Layer | Reference | StoredRows) or not callable(train):
        raise TypeError(says_no_training(train))
    items = AskedItems(train, x, y, batch_size)
    if all(leaf.name != "y" for leaf in items.items.leaves):
        missing = "elements (x, y) of the data set" if is_dataset(x) else "y=..."
        raise ValueError(f"The models of folds are trained with labels: give {missing}. Received: no y.")
    folded = FoldedItems(items, items.fingerprint, *division)

    def fit(rest: NDArray[np.int64]) -> Any:
        if is_dataset(x):
            return train(items.without(np.setdiff1d(np.arange(len(items)), rest)))
        return train(keras.tree.map_structure(lambda leaf: to_numpy(leaf, "x")[rest], x), as_array(y, "y")[rest])

    def write(model: Any, folder: RowFolder, rows: NDArray[np.int64], fresh: bool) -> None:
        asked = items.asking(model, folded.fingerprint, folded.entries)
        asked.store_rows(verbose, folder, rows, fresh, in_order=is_dataset(x))

    compute = partial(folded.compute, fit, lambda model: fingerprint(plain(model)), write)
    return store(StoredOutputs, folded, path, compute, overwrite=overwrite)
