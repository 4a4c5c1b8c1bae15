"""Comparisons of h2 with h1, one per validation and test epoch: which instances broke, for the dashboard."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from bc_core import Comparison, ErrorInstances, ErrorOverlap
from bc_core._arrays import id_array
from bc_core.comparison._compare import metadata_of
from bc_core.comparison._comparison import checked_names
from bc_core.files._failed_writes import told_of
from bc_lightning.batches._model_outputs import _part
from bc_tensorboard.writing._by_id import TextsById, by_id

if TYPE_CHECKING:
    from bc_lightning.losses._instance_terms import Labels

# Rows that all processes send at once: some megabytes, however many there are.
_CHUNK = 65_536


@dataclass(frozen=True)
class LogComparisons:
    """What the comparison of each validation and test epoch holds, and where it goes.

    By default a comparison goes to every `TensorBoardLogger` of the Trainer, where the dashboard shows it. Pass one of
    these as ``comparisons=`` of `BCLightningModule` or `CompatibilityCallback` to name classes and instances, to show
    images, or to save files; ``comparisons=False`` leaves comparisons out.

    Args:
        ids: where the ids of the instances are in a batch: an index, a key or a function of the batch; integers or
            text, unique in the data set. Default: the positions in the data set, where the loader goes through it in
            order or brings stored outputs of h1. A loader that shuffles, or whose `collate_fn` leaves items out, needs
            `ids`, else its instances can't be named; a `collate_fn` that reorders does too, and is not noticed.
        class_names: name of each class.
        metadata: text about an instance: a mapping or a function from id to text, or texts indexed by integer id. Texts
            and images are for models that give one answer per instance, not one per label or pixel. They are those of
            the validation data; for others give a mapping from data set to them, ``{"val": ..., "test": ...}``, with
            several loaders ``{"val/dataloader_idx_0": ..., ...}``.
        images: image of an instance: a mapping or a function from id to image, or anything indexed by integer id, such
            as an array of images or a data set of (image, label). See `bc_tensorboard.summary.comparison`. By data set
            as `metadata`.
        image_size: longer side of the thumbnails, in pixels.
        max_images: how many images a data set gets at most.
        directory: also save each comparison there, as ``val-step-00000120.json``.
        every: compare in validation epochs number `every`, 2 * `every` and so on, and in every test epoch.

    Raises:
        ValueError: `every` below 1, or class names that are none or twice the same.
        TypeError: images or metadata that cannot be asked by id.

    Example:
        >>> import torch
        >>> from bc_lightning import BCLightningModule, LogComparisons
        >>> h1, h2 = torch.nn.Linear(4, 2), torch.nn.Linear(4, 2)
        >>> names = LogComparisons(class_names=["cat", "dog"], metadata=lambda instance: f"photo {instance}.png")
        >>> module = BCLightningModule(h2, h1=h1, optimizer=torch.optim.Adam, comparisons=names)
    """

    ids: str | int | Callable[[Any], Any] | None = None
    class_names: Sequence[str] | None = None
    metadata: Mapping[Any, str] | Callable[[Any], str] | Sequence[str] | None = None
    images: Any = None
    image_size: int = 96
    max_images: int = 10_000
    directory: str | os.PathLike[str] | None = None
    every: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.every, bool) or not isinstance(self.every, int) or self.every < 1:
            raise ValueError(f"every must be a whole number >= 1. Received: every={self.every!r}.")
        if self.class_names is not None:
            object.__setattr__(self, "class_names", checked_names(self.class_names))
        for name in ("images", "metadata"):
            given = getattr(self, name)
            for source in given.values() if _is_by_dataset(given) else [given]:
                if source is not None:
                    by_id(source, name)
        for name, least in (("image_size", 1), ("max_images", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be a whole number >= {least}. Received: {name}={value!r}.")
        if self.directory is not None:
            os.fspath(self.directory)

    def check_classes(self, num_classes: int) -> None:
        """Refuse names of another number of classes than h2 tells apart."""
        if self.class_names is not None and len(self.class_names) != num_classes:
            raise ValueError(
                f"LogComparisons(class_names=...): expected {num_classes} names, as h2 tells so many classes apart, "
                f"got {len(self.class_names)}"
            )

    def of_dataset(self, dataset: str) -> LogComparisons:
        """These with the images and texts of one data set alone, such as "val" or "test/dataloader_idx_1".

        The positions of one data set are other instances in the next, so what has no name is nobody else's.
        """
        own = {}
        for name in ("images", "metadata"):
            given = getattr(self, name)
            own[name] = given.get(dataset) if _is_by_dataset(given) else given
            if self.is_of_others(name, dataset):
                own[name] = None
        return replace(self, **own)

    def is_of_others(self, name: str, dataset: str) -> bool:
        """Whether images or texts are given, without a name, and so not for this data set."""
        given = getattr(self, name)
        # With ids of the batch it does not matter which of the loaders brought an instance.
        fits = dataset == "val" or (self.ids is not None and dataset.startswith("val/"))
        return given is not None and not _is_by_dataset(given) and not fits

    @classmethod
    def of(cls, comparisons: LogComparisons | bool) -> LogComparisons | None:
        """What the argument ``comparisons=`` stands for; None leaves comparisons out."""
        if isinstance(comparisons, bool):
            return cls() if comparisons else None
        if not isinstance(comparisons, cls):
            raise TypeError(
                f"comparisons must be True, False or LogComparisons(...). Received: {type(comparisons).__name__}."
            )
        return comparisons


def _is_by_dataset(given: Any) -> bool:
    """Whether images or texts are given by data set; a name such as "val" is the id of no instance."""
    names = [name for stage in ("val", "test") for name in (stage, f"{stage}/dataloader_idx_0")]
    return isinstance(given, Mapping) and any(name in given for name in names)


class _Rows(NamedTuple):
    """Instances that h1 or h2 got wrong, by columns."""

    ids: NDArray[Any]
    target: NDArray[np.int64]
    h1: NDArray[np.int64]
    h2: NDArray[np.int64]

    @classmethod
    def none(cls) -> _Rows:
        empty = np.empty(0, dtype=np.int64)
        return cls(empty, empty, empty, empty)


@dataclass
class EpochInstances:
    """Labels of the instances of one epoch on this process, kept where they were computed until the epoch ends."""

    batches: list[Tensor] = field(default_factory=list)
    ids: list[Any] = field(default_factory=list)
    # None once a batch came whose entries are not one or several to an instance.
    entries: int | None = 0
    seen: int = 0
    # Whether ids are positions in the data set or the caller's own.
    nameable: bool = True
    # For positions: how many this process reads in a whole epoch, and whether a batch was not full.
    expected: int | None = None
    short: bool = False
    # Data sets that stored outputs came from. Indices of several are no ids; positions in the loader's data set are.
    sources: set[str] = field(default_factory=set)
    positions: list[range | None] = field(default_factory=list)

    @property
    def is_nameable(self) -> bool:
        """Whether each instance is known by an id. A loader that leaves items out shifts all positions behind them."""
        if len(self.sources) == 1:
            return self.nameable
        return None not in self.positions and self.nameable and not (self.short and self.seen != self.expected)

    @property
    def names(self) -> list[Any]:
        """The ids, by batches."""
        return list(self.positions) if len(self.sources) > 1 else self.ids

    def add(self, labels: Labels, ids: Any) -> None:
        """Add a batch; without ids its instances have no name but their place in the order of this epoch."""
        size = labels.target.shape[0]
        entries = labels.target.numel() // max(1, size)
        if self.entries is None or labels.target.ndim > 2 or (self.entries not in (0, entries) and size):
            # Outputs for every pixel or token: their errors outnumber any table.
            self.entries = None
            self.batches.clear()
            self.ids.clear()
            return
        if size:
            self.entries = entries
        self.nameable &= ids is not None
        columns = (labels.target, labels.h1, labels.h2)
        self.batches.append(torch.stack([column.reshape(-1).to(torch.int32) for column in columns]))
        self.ids.append(range(self.seen, self.seen + size) if ids is None else ids[:size])
        self.seen += size

    def errors(self, names: NDArray[Any] | None) -> _Rows:
        """Read the labels back, once an epoch, and keep what either model got wrong, numbered if names is None."""
        if not self.batches:
            return _Rows.none()
        target, h1, h2 = torch.cat(self.batches, dim=1).cpu().numpy().astype(np.int64)
        wrong = np.flatnonzero(((h1 != target) | (h2 != target)) & (target >= 0))
        entries = max(1, self.entries or 1)
        if names is not None:
            ids = names[wrong // entries]
        else:
            process = f" of process {torch.distributed.get_rank()}" if _world_size() > 1 else ""
            ids = _texts(f"no. {position} of this pass{process}" for position in (wrong // entries).tolist())
        if entries > 1:
            ids = _texts(
                f"{instance}, label {label}"
                for instance, label in zip(ids.tolist(), (wrong % entries).tolist(), strict=True)
            )
        return _Rows(ids, target[wrong], h1[wrong], h2[wrong])


def _joined(parts: Sequence[Any]) -> NDArray[Any]:
    if all(isinstance(part, range) for part in parts):
        return np.concatenate([np.arange(part.start, part.stop, part.step) for part in parts])
    arrays = [id_array(part, "ids") for part in parts if len(part)]
    if len({array.dtype for array in arrays}) > 1:
        raise TypeError("ids: expected all integers or all text, got batches of both kinds; make them one kind")
    return np.concatenate(arrays)


def _texts(values: Iterator[str]) -> NDArray[Any]:
    return id_array(list(values), "ids")


class Order(NamedTuple):
    """In which order a process reads a data set: from `start` in strides of `step`; step 0 where it is not known."""

    start: int = 0
    step: int = 0
    # How many items this process reads in a whole epoch, and how many in a full batch.
    expected: int | None = None
    batch_size: int | None = None


def ids_of_batch(
    comparisons: LogComparisons,
    batch: Any,
    indices: Tensor | None,
    source: str | None,
    order: Order,
    instances: EpochInstances,
    size: int,
) -> Any:
    """Names of a batch's instances: the caller's, stored outputs', or positions where the loader keeps the order."""
    if comparisons.ids is not None:
        ids = _part(batch, comparisons.ids, "ids")
        if len(ids) < size:
            raise ValueError(f"ids: expected one for each of the {size} instances of a batch, got {len(ids)}")
        return ids
    positions = _positions_of_batch(order, instances, size)
    if indices is not None and source is not None:
        instances.sources.add(source)
        instances.positions.append(positions)
        return indices.reshape(-1)
    return positions


def _positions_of_batch(order: Order, instances: EpochInstances, size: int) -> range | None:
    if order.step == 0 or instances.short:
        # Behind a batch that was not full positions are a guess: the loader has left items out.
        return None
    instances.expected = order.expected
    instances.short = size != order.batch_size
    first = order.start + order.step * instances.seen
    return range(first, first + order.step * size, order.step)


def _world_size() -> int:
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


class Gathered(NamedTuple):
    """What all processes saw in an epoch.

    Attributes:
        rows: All their rows on the first process; None on the others.
        nameable: Whether each instance is known by an id, on every process.
        problem: What kept one of them from naming its rows; there are no rows then.
    """

    rows: _Rows | None
    nameable: bool
    problem: str | None = None


def gathered(instances: EpochInstances) -> Gathered:
    """Bring all processes' rows to the first, a chunk at a time."""
    names, problem, world, distributed = None, None, _world_size(), torch.distributed
    try:
        if instances.is_nameable and instances.ids:
            names = _joined(instances.names)
    except (TypeError, ValueError) as error:
        problem = str(error)
    if world == 1:
        return Gathered(None if problem else instances.errors(names), instances.is_nameable, problem)
    first = distributed.get_rank() == 0
    # Told to all, since what follows is something that they do together.
    states: list[Any] = [None] * world
    distributed.all_gather_object(states, (problem, instances.is_nameable))
    problem, nameable = next((text for text, _ in states if text), None), all(able for _, able in states)
    if problem:
        return Gathered(None, nameable, problem if first else None)
    rows = instances.errors(names if nameable else None)
    sizes: list[Any] = [None] * world
    distributed.all_gather_object(sizes, len(rows.ids))
    parts: list[list[_Rows]] = [[] for _ in range(world)]
    for start in range(0, max(sizes), _CHUNK):
        chunk = _Rows(*(column[start : start + _CHUNK] for column in rows))
        received: list[Any] | None = [None] * world if first else None
        distributed.gather_object(chunk, received)
        for part, piece in zip(parts, received or (), strict=False):
            part.append(piece)
    return Gathered(_in_order([piece for part in parts for piece in part]) if first else None, nameable)


def _in_order(pieces: Sequence[_Rows]) -> _Rows:
    """Rows of all processes in the order of the data set, as one process would have them; it also packs better."""
    filled = [piece for piece in pieces if len(piece.ids)] or pieces[:1]
    if not filled:
        return _Rows.none()
    whole = _Rows(*(np.concatenate(columns) for columns in zip(*filled, strict=True)))
    if whole.ids.dtype.kind == "O":
        return whole
    order = np.argsort(whole.ids, kind="stable")
    return _Rows(*(column[order] for column in whole))


def comparison_of(
    comparisons: LogComparisons, counts: Tensor, rows: _Rows, step: int, lambda_c: float, illustrable: bool
) -> Comparison:
    """The comparison of one epoch, from counts and rows of all processes."""
    ask = TextsById(comparisons.metadata) if illustrable and comparisons.metadata is not None else None
    texts = metadata_of(ask, np.arange(len(rows.ids)), rows.ids, len(rows.ids))
    if ask is not None and (complaint := ask.complaint()):
        rank_zero_warn(complaint)
    overlap, names = ErrorOverlap(counts), comparisons.class_names
    instances = ErrorInstances(rows.ids, rows.target, rows.h1, rows.h2, texts)
    return Comparison(overlap, instances, None if names is None else tuple(names), None, step, lambda_c)


def tensorboard_loggers(trainer: Any) -> list[Any]:
    """The Trainer's TensorBoard loggers, of either Lightning package."""
    return [
        logger
        for logger in trainer.loggers
        if any(kind.__name__ == "TensorBoardLogger" for kind in type(logger).__mro__)
    ]


def write(
    comparisons: LogComparisons,
    comparison: Comparison,
    loggers: Sequence[Any],
    dataset: str,
    dissonance: str,
    illustrable: bool,
) -> None:
    """Save and log; what fails, such as a full disk, is told of and does not end the training."""
    told = f"The comparison of step {comparison.step} ({dataset})"
    # Whatever keeps one place from taking it, the others get theirs.
    with told_of(told, rank_zero_warn):
        if comparisons.directory is not None:
            name = f"{dataset.replace('/', '-')}-step-{comparison.step:08d}"
            path = _free_path(Path(comparisons.directory), name, comparison)
            if path is not None:
                comparison.save(path)
    for logger in loggers:
        with told_of(told, rank_zero_warn):
            from bc_tensorboard import summary

            free = _free_dataset(logger, dataset, comparison)
            if free is None:
                continue
            summary.comparison(
                logger,
                comparison,
                dataset=free,
                dissonance=dissonance.replace("_", " "),
                images=comparisons.images if illustrable else None,
                image_size=comparisons.image_size,
                max_images=comparisons.max_images,
            )


def _free_path(directory: Path, name: str, comparison: Comparison) -> Path | None:
    """Where a comparison is saved without replacing another; None where the very same lies there already."""
    path = directory / f"{name}.json"
    for number in count(2):
        if not path.exists():
            return path
        with suppress(OSError, TypeError, ValueError):
            if Comparison.load(path) == comparison:
                return None
        taken, path = path, directory / f"{name}-{number}.json"
        if not path.exists():
            rank_zero_warn(f"{taken} holds another comparison and is kept; this one is saved as {path.name}.")
    return None


# What each logger was given in this process: a second record under one name and step would hide the first.
_WRITTEN: WeakKeyDictionary[Any, dict[tuple[str, int | None], str]] = WeakKeyDictionary()


def _free_dataset(logger: Any, dataset: str, comparison: Comparison) -> str | None:
    """The name of the data set under which a comparison hides no other of its step; None if it was written already."""
    table = comparison.instances
    columns = (comparison.overlap.counts, table.target, table.h1_pred, table.h2_pred)
    digest = hashlib.sha256(b"".join(column.tobytes() for column in columns) + repr(table.ids.tolist()).encode())
    written, found = _WRITTEN.setdefault(logger, {}), digest.hexdigest()
    for number in count(1):
        free = dataset if number == 1 else f"{dataset} ({number})"
        before = written.setdefault((free, comparison.step), "")
        if before == found:
            return None
        if not before:
            written[free, comparison.step] = found
            if number > 1:
                rank_zero_warn(
                    f"Another comparison of step {comparison.step} ({dataset}) was logged before; this one is the data "
                    f"set {free!r}."
                )
            return free
    return None
