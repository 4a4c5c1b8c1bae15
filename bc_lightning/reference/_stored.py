"""h1's outputs, computed once and read back beside each item of the data set.

A frozen h1 answers the same for the same input, so its forward pass need not be repeated in every epoch.
What makes this dangerous is a row that belongs to another item: a data set that augments at random, was
reordered, or is preprocessed otherwise than it was for h1. Each item is therefore stored with a hash of its
content, and read back against it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence, Sized
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from bc_core.comparison._prediction_tables import Kind, name_of_table, table_of_predictions
from bc_core.files._interrupts import ctrl_c_raises
from bc_core.reference._callable_fingerprint import is_same_h1
from bc_core.reference._row_checksums import CheckedRows
from bc_core.reference._stored_rows import (
    REPLACE,
    RowFolder,
    RowWriter,
    compare_answers,
    sampled,
    says_other_h1,
    says_other_item,
)
from bc_lightning._packages import PACKAGES
from bc_lightning.batches._attached import Attached, Collate, CollateWithReference, WithReference
from bc_lightning.batches._model_outputs import inputs_from_batch
from bc_lightning.reference._fingerprint import fingerprint, fingerprint_data
from bc_lightning.reference._reference import Reference

Inputs = str | int | Callable[[Any], Any] | None

_FORMAT = "bc_lightning.stored_outputs"

_FEW_BATCHES = 8


class NotRepeatableError(ValueError):
    """An item of the data set is another one when it is read again."""


class StoredOutputs:
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

    def __init__(
        self,
        outputs: npt.NDArray[Any] | CheckedRows,
        fingerprint: str,
        hashes: npt.NDArray[np.uint64] | None = None,
        path: Path | None = None,
    ) -> None:
        self._outputs = outputs
        self._fingerprint = fingerprint
        self._hashes = hashes
        self._path = path

    @classmethod
    def open(cls, path: str | Path, h1: Any = None) -> StoredOutputs:
        """Open a folder that `store_outputs` wrote.

        Args:
            path: The folder.
            h1: The old model, to be sure that the outputs are its; it is compared by its fingerprint. Use
                `verify` to compare its answers too.

        Raises:
            FileNotFoundError: There is no such folder.
            ValueError: The folder holds no stored outputs, incomplete ones, those of another h1, or is damaged.
        """
        folder = RowFolder(path, _FORMAT)
        header = folder.complete_header()
        if h1 is not None:
            found = fingerprint(h1)
            folder.check_same_h1(header, found)
            folder.say_if_by_name(header, found)
        return cls._mapped(folder, header)

    @classmethod
    def from_table(cls, predictions: Any, kind: Kind | None = None) -> StoredOutputs:
        """Use a table of predictions of an old service whose weights are gone.

        Nothing ties the rows to items but their order: row i must belong to ``dataset[i]``.

        Args:
            predictions: Predicted labels, integers of shape ``(N,)``, -1 where there is no prediction (such
                an item counts as wrong); or scores, floating-point of shape ``(N, C)``, or ``(N,)`` or
                ``(N, 1)`` for a binary model. A tensor, an array or nested lists.
            kind: What scores are: ``"logits"``, ``"probabilities"`` (each row sums to 1; of class 1 for a
                binary model) or ``"log_probabilities"``. Not for labels.

        Returns:
            Outputs in memory: labels as int64; logits as they are; probabilities as their logarithms, or a
            binary model's log-odds, in float32 or the float64 that they came in.

        Raises:
            ValueError: The table is empty, has another shape, NaN or infinite values, numbers that are no
                labels or no probabilities, or scores whose kind was not given.

        Example:
            >>> StoredOutputs.from_table([2, 0, 1]).labels_only
            True
            >>> import torch
            >>> stored = StoredOutputs.from_table([[0.25, 0.75], [1.0, 0.0]], kind="probabilities")
            >>> stored[[0, 1]].softmax(1)
            tensor([[0.2500, 0.7500],
                    [1.0000, 0.0000]])
        """
        table = torch.as_tensor(predictions).detach().cpu()
        outputs = table_of_predictions((table.float() if table.dtype == torch.bfloat16 else table).numpy(), kind)
        return cls(outputs, name_of_table(outputs))

    @classmethod
    def _mapped(cls, folder: RowFolder, header: dict[str, Any]) -> StoredOutputs:
        outputs, hashes = folder.map(header)
        return cls(outputs, header["h1"], hashes, folder.path)

    @property
    def path(self) -> Path | None:
        """The folder on disk, or ``None`` for a table in memory."""
        return self._path

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the h1 that gave the outputs, or of the table."""
        return self._fingerprint

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all outputs together: ``(N, C)`` for scores, ``(N,)`` for labels."""
        return self._outputs.shape

    @property
    def labels_only(self) -> bool:
        """Whether the rows are predicted labels instead of scores."""
        return self._outputs.dtype.kind in "iu"

    @property
    def num_classes(self) -> int | None:
        """h1's number of classes, or ``None`` for labels and for a binary model's single score."""
        columns = self.shape[1] if len(self.shape) > 1 else 1
        return None if columns == 1 else columns

    def __len__(self) -> int:
        return len(self._outputs)

    def __getitem__(self, indices: Any) -> Tensor:
        """Read rows.

        Args:
            indices: A data-set index, or a slice, sequence, array or tensor of them.

        Returns:
            A copy of the rows: shape ``(C,)`` for one index, ``(K, C)`` for K of them, without ``C`` for labels.

        Raises:
            ValueError: A row on disk is not the one that was written; each is looked at when it is first read.
        """
        if isinstance(indices, Tensor):
            indices = indices.detach().cpu().numpy()
        return torch.from_numpy(np.array(self._outputs[indices]))

    def __repr__(self) -> str:
        where = "in memory" if self._path is None else f"at {self._path}"
        return f"StoredOutputs({len(self)} items, shape {self.shape}, {self._outputs.dtype}, {where})"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._path is None:
            return StoredOutputs, (self._outputs, self._fingerprint)
        return StoredOutputs.open, (self._path,)

    def attach(self, dataset: Dataset[Any], verify: bool = True) -> Dataset[WithReference]:
        """Put h1's rows beside the items of the data set they were stored for.

        Args:
            dataset: The map-style data set, in the order it had when the outputs were stored. A ``Subset`` is
                a data set of its own: store outputs for it, or take the subset of the attached data set.
            verify: Whether to compare every item that is read with the hash that was stored with its row.
                Eight items are compared at once in any case. A table in memory has no hashes.

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
        length = _length_of(dataset)
        if length != len(self):
            raise ValueError(
                f"the data set has {length} items, but h1's outputs were stored for {len(self)}: attach the "
                "data set they were stored for, and take subsets of the attached one"
            )
        rows = sampled(length)
        self._check_items(dataset, rows)
        # So that damage is told before a training.
        self[rows]
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
        tolerance: float = 1e-2,
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
        if self._path is not None and not is_same_h1(self._fingerprint, fingerprint(h1)):
            raise ValueError(says_other_h1(str(self._path), self._fingerprint, fingerprint(h1)))
        length = _length_of(dataset)
        if length != len(self):
            raise ValueError(f"the data set has {length} items, but h1's outputs were stored for {len(self)}")
        if isinstance(self._outputs, CheckedRows):
            self._outputs.check()
        rows = sampled(length)
        self._check_items(dataset, rows)
        _check_rows(self._outputs, rows, _computing(h1), dataset, inputs, collate_fn, tolerance)

    def _check_items(self, dataset: Dataset[Any], indices: Sequence[int]) -> None:
        for index in indices:
            self._check_item(index, dataset[index])

    def _is_item(self, sample: Any, indices: Sequence[int]) -> bool:
        return self._hashes is not None and fingerprint_data(sample) in self._hashes[list(indices)].tolist()

    def _check_item(self, index: int, sample: Any) -> None:
        if self._hashes is None:
            return
        found = fingerprint_data(sample)
        if found != int(self._hashes[index]):
            if isinstance(self._outputs, CheckedRows):
                # The hash may be what is wrong.
                self._outputs.check([index])
            raise ValueError(says_other_item(index, found, self._hashes))


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
) -> StoredOutputs:
    """Compute h1's outputs for every item of a data set, once, and keep them in a folder.

    Rows that an earlier call computed are kept, so an interrupted call is taken up where it stopped, and a
    finished one costs nothing. h1 is put into eval mode and stays there; it goes back to its device.

    Args:
        h1: The old model: a module or a callable, called with the inputs of a collated batch.
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

    Returns:
        The stored outputs: float32 (float64 if h1 gave that), or int64 if h1 gives labels.

    Raises:
        TypeError: The data set is iterable or has no length, or h1 is stored outputs itself.
        ValueError: The data set is empty or gives another item the second time; the folder holds outputs of
            another h1 or data set, or other files, or is damaged; h1 gave NaN or infinite scores, or another
            number of rows than items; the trainer leaves out batches or runs on several machines.
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
    """
    reference = _computing(h1)
    length = _length_of(dataset)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    _check_repeatable(dataset, length)
    folder = RowFolder(path, _FORMAT)
    if (kept := folder.header_to_keep(overwrite)) is not None and kept["complete"]:
        standing = _standing(folder, kept, reference, dataset, inputs, collate_fn)
        if standing.all():
            return StoredOutputs.open(folder.path)
    # Of the processes of one trainer the first writes for all.
    first = bool(getattr(trainer, "is_global_zero", True))
    with folder.locked() if first else contextlib.nullcontext():
        kept = folder.header_to_keep(overwrite)
        standing = np.zeros(length, dtype=bool)
        if kept is not None:
            standing = _standing(folder, kept, reference, dataset, inputs, collate_fn)
            if first:
                folder.go_on(kept, standing)
        pending = np.flatnonzero(~standing)
        work = _Work(reference, dataset, folder, length, kept is None, inputs, collate_fn or default_collate)
        batches = -(-len(pending) // batch_size)
        with _trainer_and_package(trainer, batches > _FEW_BATCHES) as (predicting, package):
            if len(pending):
                _compute(work, pending, predicting, package, batch_size, num_workers)
            else:
                # The last row was written, and the work was stopped before the header said so.
                folder.finish()
    return StoredOutputs.open(folder.path)


class _Work(NamedTuple):
    """What every process that computes rows needs to know."""

    reference: Reference
    dataset: Dataset[Any]
    folder: RowFolder
    length: int
    fresh: bool
    inputs: Inputs
    collate: Collate


class _Batch:
    """A collated batch and the rows it belongs to.

    Of a type that Lightning's precision plugins do not look into: h1 is asked in its own precision.
    """

    def __init__(self, indices: list[int], hashes: list[int], batch: Any) -> None:
        self.indices = np.array(indices, dtype=np.int64)
        self.hashes = np.array(hashes, dtype=np.uint64)
        self.batch = batch


class _Pending(Dataset[tuple[int, int, Any]]):
    """The items whose rows are to be computed, each with its index and hash."""

    def __init__(self, dataset: Dataset[Any], indices: npt.NDArray[np.int64]) -> None:
        self.dataset = dataset
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> tuple[int, int, Any]:
        return self.__getitems__([position])[0]

    def __getitems__(self, positions: Sequence[int]) -> list[tuple[int, int, Any]]:
        indices = [int(self.indices[position]) for position in positions]
        fetch = getattr(self.dataset, "__getitems__", None)
        samples = fetch(indices) if fetch else [self.dataset[index] for index in indices]
        return [(i, fingerprint_data(sample), sample) for i, sample in zip(indices, samples, strict=True)]


class _CollatePending:
    def __init__(self, inner: Collate) -> None:
        self.inner = inner

    def __call__(self, items: list[tuple[int, int, Any]]) -> _Batch:
        indices, hashes, samples = zip(*items, strict=True)
        return _Batch(list(indices), list(hashes), self.inner(list(samples)))


@functools.cache
def _storing_class(package: str) -> type:
    """Make the module that writes rows from the ``LightningModule`` that a trainer's package accepts."""
    base: Any = importlib.import_module(package).LightningModule

    class StoringModule(base):  # type: ignore[misc]
        def __init__(self, work: _Work) -> None:
            super().__init__()
            # Not a submodule: strategies would cast, shard or wrap it.
            self.work = work
            self.writer: RowWriter | None = None

        def __reduce__(self) -> tuple[Any, ...]:
            # The class is no attribute of any module; spawned processes make it anew.
            return _storing_module, (package, self.work)

        def on_predict_start(self) -> None:
            if self.trainer.is_global_zero and self.work.fresh:
                _create(self.work, self.device)
            self.trainer.strategy.barrier("stored outputs created")
            self.writer = RowWriter(self.work.folder)

        def transfer_batch_to_device(self, batch: _Batch, device: torch.device, dataloader_idx: int) -> _Batch:
            batch.batch = super().transfer_batch_to_device(batch.batch, device, dataloader_idx)
            return batch

        def predict_step(self, batch: _Batch, batch_idx: int) -> int:
            assert self.writer is not None
            scores = self.work.reference(inputs_from_batch(batch.batch, self.work.inputs))
            self.writer.write(batch.indices, batch.hashes, _as_array(scores))
            # Lightning warns of a step that returns nothing.
            return len(batch.indices)

        def on_predict_end(self) -> None:
            assert self.writer is not None
            self.writer.close()
            self.trainer.strategy.barrier("stored outputs written")
            if self.trainer.is_global_zero:
                self.work.folder.finish()
            self.trainer.strategy.barrier("stored outputs complete")

    return StoringModule


def _storing_module(package: str, work: _Work) -> Any:
    return _storing_class(package)(work)


def _compute(
    work: _Work,
    pending: npt.NDArray[np.int64],
    trainer: Any,
    package: str,
    batch_size: int,
    num_workers: int,
) -> None:
    if len(pending) < trainer.world_size:
        # Lightning wants at least one item for every device; an item computed twice does no harm.
        pending = np.resize(pending, trainer.world_size)
    loader = DataLoader(
        _Pending(work.dataset, pending),
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=_CollatePending(work.collate),
    )
    module = _storing_module(package, work)
    home = _device_of_module(work.reference)
    try:
        # A loader draws a number when it starts; it must not be missing from the caller's afterwards. (A
        # generator of the loader's own cannot be sent to spawned processes.)
        with ctrl_c_raises(), torch.random.fork_rng(devices=[]):
            trainer.predict(module, loader, return_predictions=False)
    finally:
        if module.writer is not None:
            module.writer.close()
        if home is not None and work.reference.module is not None:
            work.reference.module.to(home)
    header = work.folder.header()
    if header is None or not header["complete"]:
        done = int(work.folder.done(header).sum()) if header else 0
        raise RuntimeError(
            f"storing h1's outputs was interrupted at {done} of {work.length} rows; they are kept in "
            f"{work.folder.path}, and the same call takes the work up again"
        )


def _create(work: _Work, device: torch.device) -> None:
    """Make the files, empty. What a row looks like is learnt by asking h1 about one item."""
    scores = _ask(work.reference, [work.dataset[0]], work.inputs, work.collate, device)
    if scores.ndim == 0 or scores.shape[0] != 1:
        raise ValueError(f"h1 returned shape {tuple(scores.shape)} for a batch of one item, expected (1, classes)")
    dtype: type[np.generic] = np.int64
    if scores.is_floating_point():
        dtype = np.float64 if scores.dtype == torch.float64 else np.float32
    work.folder.create(work.reference.fingerprint, work.length, tuple(scores.shape[1:]), dtype)


def _standing(
    folder: RowFolder,
    header: dict[str, Any],
    reference: Reference,
    dataset: Dataset[Any],
    inputs: Inputs,
    collate_fn: Collate | None,
) -> npt.NDArray[np.bool_]:
    """Which rows are done and undamaged, once it is sure that they are this h1's for this data set."""
    folder.check_same_h1(header, reference.fingerprint)
    folder.check_same_length(header, _length_of(dataset))
    outputs, hashes = folder.map(header)
    standing = folder.standing(header, outputs)
    known = np.flatnonzero(standing)
    rows = [int(known[position]) for position in sampled(len(known))] if len(known) else []
    try:
        StoredOutputs(outputs, header["h1"], hashes, folder.path)._check_items(dataset, rows)
    except ValueError as error:
        raise ValueError(f"{folder.path} holds h1's outputs for another data set; {REPLACE}. {error}") from error
    if rows:
        # Of a callable not all may be known, and its name stays when its weights change.
        _check_rows(outputs, rows, reference, dataset, inputs, collate_fn, tolerance=1e-2)
    return standing


def _check_rows(
    outputs: npt.NDArray[Any] | CheckedRows,
    rows: list[int],
    reference: Reference,
    dataset: Dataset[Any],
    inputs: Inputs,
    collate_fn: Collate | None,
    tolerance: float,
) -> None:
    device = _device_of_module(reference)
    samples = [dataset[row] for row in rows]
    again = _as_array(_ask(reference, samples, inputs, collate_fn or default_collate, device))
    compare_answers(outputs[rows], again, rows, tolerance)


def _as_array(scores: Tensor) -> npt.NDArray[Any]:
    rows = scores.cpu()
    return (rows.float() if rows.dtype == torch.bfloat16 else rows).numpy()


def _ask(
    reference: Reference, samples: list[Any], inputs: Inputs, collate: Collate, device: torch.device | None
) -> Tensor:
    given = inputs_from_batch(collate(samples), inputs)
    return reference(given if device is None else _moved(given, device))


def _moved(value: Any, device: torch.device) -> Any:
    """Move every tensor in an argument of h1, as Lightning does with a batch."""
    if isinstance(value, dict):
        return {key: _moved(member, device) for key, member in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_moved(member, device) for member in value))
    if isinstance(value, (tuple, list)):
        return type(value)(_moved(member, device) for member in value)
    return value.to(device) if hasattr(value, "to") else value


def _device_of_module(reference: Reference) -> torch.device | None:
    if reference.module is None:
        return None
    first = next(iter([*reference.module.parameters(), *reference.module.buffers()]), None)
    return None if first is None else first.device


def _computing(h1: Any) -> Reference:
    """Make a reference that answers in h1's own classes."""
    reference = Reference(h1.h1, scores=h1.scores) if isinstance(h1, Reference) else Reference(h1)
    if reference.is_stored:
        raise TypeError("h1 is stored outputs, which cannot be asked about items; give the old model itself")
    return reference


def _length_of(dataset: Any) -> int:
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


def _check_repeatable(dataset: Dataset[Any], length: int) -> None:
    for index in sampled(length):
        if fingerprint_data(dataset[index]) != fingerprint_data(dataset[index]):
            raise NotRepeatableError(
                f"item {index} of the data set differs when it is read twice, so one stored output cannot belong "
                "to it: pass the data set without random augmentation (and augment batches after it), or use "
                "h1 itself instead of stored outputs"
            )


@contextlib.contextmanager
def _trainer_and_package(trainer: Any, progress_bar: bool) -> Iterator[tuple[Any, str]]:
    """Check the trainer that was given, or make a quiet one, and name the package it comes from."""
    if trainer is not None:
        limit = trainer.limit_predict_batches
        if isinstance(limit, int) or limit != 1.0:
            raise ValueError(
                f"the trainer predicts a part of the data only (limit_predict_batches={limit}, or "
                "fast_dev_run); h1's outputs are needed for every item"
            )
        if trainer.num_nodes > 1:
            raise ValueError(
                "the trainer runs on several machines, which cannot safely write into one file: store h1's "
                "outputs with a Trainer(num_nodes=1)"
            )
        yield trainer, _package_of(trainer)
        return
    package = next((name for name in PACKAGES if importlib.util.find_spec(name.split(".")[0])), None)
    if package is None:
        raise ImportError("storing h1's outputs needs pytorch-lightning or lightning: pip install pytorch-lightning")
    logger = logging.getLogger(package)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Advice for training loops that the caller did not write.
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            quiet = importlib.import_module(package).Trainer(
                devices=1,
                logger=False,
                enable_checkpointing=False,
                enable_model_summary=False,
                enable_progress_bar=progress_bar,
            )
            yield quiet, package
    finally:
        logger.setLevel(level)


def _package_of(trainer: Any) -> str:
    for kind in type(trainer).__mro__:
        for package in PACKAGES:
            if kind.__module__.startswith(package + "."):
                return package
    raise TypeError(
        f"trainer must be a Trainer of pytorch_lightning or lightning.pytorch, got {type(trainer).__name__}"
    )
