"""h1's outputs, computed once and read back beside each item of the data set."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from bc_core._arrays import to_numpy
from bc_core.reference._folds import FoldedItems, says_no_training
from bc_core.reference._stored_outputs import SAME_ROUNDING, StoredRows, store
from bc_core.reference._stored_rows import RowFolder, sampled
from bc_lightning.batches._attached import Attached, Collate, CollateWithReference, WithReference, without_rows
from bc_lightning.reference._asked_items import AskedItems, Inputs, length_of
from bc_lightning.reference._fingerprint import fingerprint, fingerprint_data
from bc_lightning.reference._predicting import predict_rows
from bc_lightning.reference._reference import Reference


class StoredOutputs(StoredRows[Tensor]):
    """h1's outputs for every item of one data set.

    Made by `store_outputs`, reopened with `StoredOutputs.open`, or made of a table of old predictions with
    `StoredOutputs.from_table`. Give it to ``BCLightningModule`` as ``h1``, and train on
    ``stored.attach(dataset)``: each batch then brings its rows.

    Outputs on disk are mapped, not read: worker processes and devices share one copy, and a pickle holds the
    path only.

    Example:
        >>> import tempfile, torch
        >>> from torch import nn
        >>> h1 = nn.Linear(2, 3)
        >>> data = torch.utils.data.TensorDataset(torch.randn(5, 2), torch.tensor([0, 1, 2, 0, 1]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     stored = store_outputs(h1, data, folder + "/h1-train")
        ...     rows = stored[[0, 4]]
        ...     len(stored), stored.num_classes, torch.allclose(rows, h1(data[:][0])[[0, 4]])
        (5, 3, True)
    """

    _FORMAT = "bc_lightning.stored_outputs"
    _CLASS_AXIS = 1
    _name_of = staticmethod(fingerprint)

    @staticmethod
    def _table(predictions: Any) -> NDArray[Any]:
        if isinstance(predictions, np.ndarray):
            # A column of pandas is read-only, of which torch warns.
            predictions = np.require(predictions, requirements="W")
        return to_numpy(torch.as_tensor(predictions), "predictions")

    def _rows(self, rows: NDArray[Any]) -> Tensor:
        return torch.from_numpy(rows)

    def attach(
        self,
        dataset: Dataset[Any],
        verify: bool = True,
        *,
        teacher: StoredOutputs | None = None,
        plain: StoredOutputs | None = None,
    ) -> Dataset[WithReference]:
        """Put h1's rows beside the items of the data set they were stored for.

        Args:
            dataset: The map-style data set, in the order it had when the outputs were stored. A ``Subset`` is
                a data set of its own: store outputs for it, or take the subset of the attached data set.
            verify: Whether to compare every item that is read with the hash that was stored with its row.
                Eight items are compared at once in any case. A table in memory has no hashes.
            teacher: Outputs of the model that is imitated in place of h1, stored for the same data set.
            plain: Outputs of the model that is imitated where h2 is right, stored for the same data set.

        Returns:
            A data set of `WithReference` items, for any sampler, worker or batch size. PyTorch's default
            collate function batches them; wrap another one with `collate_fn`.

        Raises:
            TypeError: The data set is iterable or has no length.
            ValueError: Its length differs from the stored outputs', or an item is not the one that was
                stored; the latter also when an item is read later.

        Example:
            >>> import torch
            >>> data = torch.utils.data.TensorDataset(torch.arange(3.0))
            >>> attached = StoredOutputs.from_table([1, 0, 1]).attach(data)
            >>> attached[2]
            WithReference(sample=(tensor(2.),), index=2, row=tensor(1))
        """
        self.check_length(length_of(dataset))
        rows = sampled(len(self))
        for row in rows:
            self.check_item(row, dataset[row])
        # So that damage is told before a training.
        self[rows]
        for beside in (teacher, plain):
            if beside is not None:
                dataset = beside.attach(dataset, verify)
        return Attached(self, dataset, verify and self._hashes is not None)

    @staticmethod
    def collate_fn(inner: Collate | None = None) -> Collate:
        """Make a user's collate function one for an attached data set.

        Args:
            inner: A function of a list of the user's items that keeps their order or sorts the list itself; of one
                item or batch as the data set gives it, in a loader with ``batch_size=None``. ``None`` for PyTorch's
                default.

        Returns:
            A function of a list of `WithReference` items that gives a `WithReference` of a batch. It raises a
            ValueError where the batch is seen to hold the items in another order.

        Example:
            >>> attached = StoredOutputs.from_table([1, 0, 1]).attach(["a", "b", "c"])
            >>> StoredOutputs.collate_fn("".join)([attached[0], attached[1]])
            WithReference(sample='ab', index=tensor([0, 1]), row=tensor([1, 0]))
        """
        return CollateWithReference(inner)

    def verify(
        self,
        h1: Any,
        dataset: Dataset[Any],
        *,
        inputs: Inputs = None,
        collate_fn: Collate | None = None,
        tolerance: float = SAME_ROUNDING,
    ) -> None:
        """Check every row on disk by its checksum, and ask h1 again about eight items spread over the data set.

        Args:
            h1: The old model, as given to `store_outputs`.
            dataset: The data set, as given to `store_outputs`.
            inputs: As given to `store_outputs`.
            collate_fn: As given to `store_outputs`.
            tolerance: Largest difference allowed, relative to the largest score of the row or 1. Devices and
                mixed precision round differently.

        Raises:
            ValueError: h1, the data set or the answers differ, or rows are not those that were written.
        """
        self.check_against(AskedItems(h1, dataset, inputs, collate_fn), tolerance)

    def check_item(self, index: int, sample: Any) -> None:
        """Compare an item that was read with the one whose row is stored.

        Raises:
            ValueError: It is another one.
        """
        if self._hashes is not None and (found := fingerprint_data(without_rows(sample))) != int(self._hashes[index]):
            self.check_hashes(np.array([index]), np.array([found], np.uint64))

    def is_item(self, sample: Any, indices: Sequence[int]) -> bool:
        """Whether a sample is one of some items, as far as their hashes are known."""
        sample = without_rows(sample)
        return self._hashes is not None and fingerprint_data(sample) in self._hashes[list(indices)].tolist()


def store_outputs(
    h1: Any,
    dataset: Dataset[Any],
    path: str | Path,
    *,
    trainer: Any = None,
    batch_size: int = 256,
    num_workers: int = 0,
    inputs: Inputs = None,
    collate_fn: Collate | None = None,
    overwrite: bool = False,
    folds: int | None = None,
    seed: int = 0,
) -> StoredOutputs:
    """Compute h1's outputs for every item of a data set, once, and keep them in a folder.

    Rows that an earlier call computed are kept, so an interrupted call is taken up where it stopped, and a
    finished one costs nothing. h1 is put into eval mode and stays there; it goes back to its device.

    Args:
        h1: The old model: a module or a callable, called with the inputs of a collated batch. With `folds` a function
            that makes a model and trains it on the ``torch.utils.data.Subset`` that it is given.
        dataset: A map-style data set that gives the same item each time it is read, so without random
            augmentation.
        path: The folder to write.
        trainer: A ``Trainer`` of ``pytorch_lightning`` or ``lightning.pytorch`` whose ``predict`` does the
            work, on all its devices of one machine; its callbacks run, its precision holds as far as it is
            mixed precision. ``None`` for a quiet one on one device.
        batch_size: Items per forward pass (per device).
        num_workers: Worker processes that read the data set (per device).
        inputs: What h1 is called with: a key, an index or a function of the batch; by default the first
            element of a sequence and a tensor itself.
        collate_fn: How items become a batch; PyTorch's default by default.
        overwrite: Replace the outputs of another h1 or data set that are in the folder.
        folds: Into how many folds the items are divided, for a teacher that has not seen the items that it is asked
            about: the rows of each fold are those of a model that was trained on the others. A call that was
            interrupted is taken up at the fold where it stopped, whose model is trained anew.
        seed: Of the division into folds. Seed the trainings in the function.

    Returns:
        The stored outputs: float32 (float64 if h1 gave that), or int64 if h1 gives labels.

    Raises:
        TypeError: The data set is iterable or has no length, or h1 is stored outputs itself.
        ValueError: The data set is empty or gives another item the second time; the folder holds outputs of
            another h1 or data set, or other files, or is damaged; h1 gave NaN or infinite scores, or another
            number of rows than items; the trainer leaves out batches or runs on several machines. With `folds`:
            fewer than two, one model for two folds, or a trainer of several devices.
        RuntimeError: Another process stores outputs in the folder, or the trainer stopped early. What was done is
            kept.
        KeyboardInterrupt: Ctrl-C. What was done is kept.
        FullDiskError: There is no room for the outputs (an OSError). What was done is kept.

    Example:
        >>> import tempfile, torch
        >>> from torch import nn
        >>> h1 = nn.Linear(2, 3)
        >>> data = torch.utils.data.TensorDataset(torch.randn(5, 2), torch.tensor([0, 1, 2, 0, 1]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     stored = store_outputs(h1, data, folder + "/h1-train", batch_size=2)
        ...     training_set = stored.attach(data)
        ...     training_set[3].row.tensor.shape
        torch.Size([3])
        >>> def train(items):
        ...     return nn.Linear(2, 3)  # and fit it on DataLoader(items)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store_outputs(train, data, folder + "/plain-out-of-fold", folds=5).shape
        (5, 3)
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if folds is not None:
        how = (trainer, batch_size, num_workers)
        return _store_folds(h1, dataset, path, (folds, seed), how, inputs, collate_fn, overwrite)
    asked = AskedItems(h1, dataset, inputs, collate_fn)
    asked.check_repeatable()
    compute = partial(predict_rows, asked, trainer, batch_size, num_workers)
    # Of the processes of one trainer the first writes for all.
    is_first = bool(getattr(trainer, "is_global_zero", True))
    return store(StoredOutputs, asked, path, compute, overwrite=overwrite, is_first=is_first)


def _store_folds(
    train: Any,
    dataset: Dataset[Any],
    path: str | Path,
    division: tuple[int, int],
    how: tuple[Any, int, int],
    inputs: Inputs,
    collate_fn: Collate | None,
    overwrite: bool,
) -> StoredOutputs:
    """Rows of models that were trained without the items that they are asked about."""
    if isinstance(train, (nn.Module, Reference, StoredRows)) or not callable(train):
        raise TypeError(says_no_training(train))
    if how[0] is not None and how[0].world_size > 1:
        raise ValueError(
            "out-of-fold outputs are computed by one process, which trains the models: give a trainer of one device "
            "(the function may train on as many as it likes), or none"
        )
    items = AskedItems(train, dataset, inputs, collate_fn)
    items.check_repeatable()
    folded = FoldedItems(items, items.fingerprint, *division)

    def fit(rest: NDArray[np.int64]) -> Any:
        return train(Subset(dataset, rest.tolist()))

    def write(model: Any, folder: RowFolder, rows: NDArray[np.int64], fresh: bool) -> None:
        asked = AskedItems(model, dataset, inputs, collate_fn)
        asked.fingerprint, asked.entries = folded.fingerprint, folded.entries
        predict_rows(asked, *how, folder, rows, fresh)

    compute = partial(folded.compute, fit, lambda model: Reference.of(model).fingerprint, write)
    return store(StoredOutputs, folded, path, compute, overwrite=overwrite)
