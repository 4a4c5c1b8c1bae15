"""h1's rows computed by the Trainer's ``predict``: on its devices, in its processes, each of which writes its own."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from bc_core._arrays import to_numpy
from bc_core.files._interrupts import ctrl_c_raises
from bc_core.reference._stored_rows import RowFolder, RowWriter
from bc_lightning._packages import PACKAGES
from bc_lightning.batches._attached import Collate
from bc_lightning.batches._model_outputs import inputs_from_batch
from bc_lightning.reference._asked_items import AskedItems
from bc_lightning.reference._fingerprint import fingerprint_data
from bc_lightning.reference._modules import device_of_module

_FEW_BATCHES = 8


class _Work(NamedTuple):
    """What every process that computes rows needs to know."""

    asked: AskedItems
    folder: RowFolder
    fresh: bool


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

    def __init__(self, dataset: Dataset[Any], indices: NDArray[np.int64]) -> None:
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
            scores = self.work.asked.reference(inputs_from_batch(batch.batch, self.work.asked.inputs))
            self.writer.write(batch.indices, batch.hashes, to_numpy(scores, "h1's output"))
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


def predict_rows(
    asked: AskedItems,
    trainer: Any,
    batch_size: int,
    num_workers: int,
    folder: RowFolder,
    missing: NDArray[np.int64],
    fresh: bool,
) -> None:
    """Compute rows and write them.

    Args:
        asked: h1 and its items.
        trainer: The user's; None for a quiet one.
        batch_size: Items per forward pass.
        num_workers: Worker processes that read the data set.
        folder: Where rows go.
        missing: Which are computed.
        fresh: Whether the files are to be made first.

    Raises:
        TypeError: The trainer is none.
        ValueError: It leaves out batches or runs on several machines.
        RuntimeError: It stopped early.
    """
    is_long = -(-len(missing) // batch_size) > _FEW_BATCHES
    home = device_of_module(asked.reference.module)
    with _trainer_and_package(trainer, is_long) as (predicting, package):
        if len(missing) < predicting.world_size:
            # Lightning wants at least one item for every device; an item computed twice does no harm.
            missing = np.resize(missing, predicting.world_size)
        loader = DataLoader(
            _Pending(asked.dataset, missing),
            batch_size=batch_size,
            num_workers=num_workers,
            collate_fn=_CollatePending(asked.collate),
        )
        module = _storing_module(package, _Work(asked, folder, fresh))
        try:
            # A loader draws a number when it starts; it must not be missing from the caller's afterwards. (A
            # generator of the loader's own cannot be sent to spawned processes.)
            with ctrl_c_raises(), torch.random.fork_rng(devices=[]):
                predicting.predict(module, loader, return_predictions=False)
        finally:
            if module.writer is not None:
                module.writer.close()
            if home is not None and asked.reference.module is not None:
                asked.reference.module.to(home)
    header = folder.header()
    done = np.zeros(len(asked), bool) if header is None else folder.done(header)
    if not done[missing].all():
        raise RuntimeError(
            f"storing h1's outputs was interrupted at {int(done.sum())} of {len(asked)} rows; they are kept in "
            f"{folder.path}, and the same call takes the work up again"
        )


def _create(work: _Work, device: torch.device) -> None:
    """Make the files, empty. What a row looks like is learnt by asking h1 about one item."""
    scores = work.asked.ask([0], device)
    if scores.ndim == 0 or scores.shape[0] != 1:
        raise ValueError(f"h1 returned shape {tuple(scores.shape)} for a batch of one item, expected (1, classes)")
    dtype: type[np.generic] = np.int64
    if scores.is_floating_point():
        dtype = np.float64 if scores.dtype == torch.float64 else np.float32
    work.folder.create(work.asked.fingerprint, len(work.asked), tuple(scores.shape[1:]), dtype, **work.asked.entries)


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
