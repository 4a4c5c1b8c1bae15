"""Comparisons of h2 with h1, one per validation and test epoch: which instances broke, for the dashboard."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from bc_core import Comparison, ErrorInstances, ErrorOverlap
from bc_core._arrays import id_array
from bc_core._numbers import check_count
from bc_core.comparison._compare import metadata_of
from bc_core.comparison._comparison import checked_names
from bc_core.comparison._confidence import Said
from bc_core.comparison._error_instances import CONFIDENCES
from bc_core.slices._metadata import Columns
from bc_lightning.batches._model_outputs import _part
from bc_lightning.training.comparisons._epoch_counts import EpochCounts, together
from bc_lightning.training.comparisons._sureness import Sureness
from bc_tensorboard.writing._by_id import TextsById, by_id
from bc_tensorboard.writing._training import told_of_training

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
        metadata: text about an instance: a mapping or a function from id to text, or texts indexed by integer id. Or
            columns over the data set, ``{"country": [...], "age": [...]}`` or a data frame, in its order: they make
            slices, as in `bc_core.compare` (searched for those that break most in training of one process). Texts
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
        full_size: longest side of the picture that is shown enlarged, in pixels; 0 keeps thumbnails alone.
        settings: what else h2 is trained with, such as ``{"start": "warm", "seed": 0}``: the dashboard colours by it.

    Raises:
        ValueError: `every` below 1, class names that are none or twice the same, or settings that are none.
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
    metadata: Any = None
    images: Any = None
    image_size: int = 96
    max_images: int = 10_000
    directory: str | os.PathLike[str] | None = None
    every: int = 1
    full_size: int = 1024
    settings: Mapping[str, str | float] | None = None

    def __post_init__(self) -> None:
        check_count(self.every, "every")
        if self.class_names is not None:
            object.__setattr__(self, "class_names", checked_names(self.class_names))
        for name in ("images", "metadata"):
            given = getattr(self, name)
            for source in given.values() if _is_by_dataset(given) else [given]:
                if source is not None and (name == "images" or Columns.of(source) is None):
                    by_id(source, name)
        for name, least in (("image_size", 1), ("max_images", 0), ("full_size", 0)):
            check_count(getattr(self, name), name, least)
        told_of_training(self.settings, None)
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
    # (E, 4): how sure h1 and h2 are of their answers and of the truth; and (E, K), slices by column of metadata.
    sure: NDArray[np.float64]
    slices: NDArray[np.int64]

    @classmethod
    def none(cls) -> _Rows:
        empty = np.empty(0, dtype=np.int64)
        return cls(empty, empty, empty, empty, np.empty((0, 4)), np.empty((0, 0), np.int64))


class Outputs(NamedTuple):
    """What both models returned for a batch, classes on axis 1, and how it is read; integers are not sure."""

    h1: Tensor
    h2: Tensor
    binary: bool
    from_logits: bool
    threshold: float


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
    sureness: tuple[Sureness, Sureness] = field(default_factory=lambda: (Sureness(), Sureness()))
    # Threshold of binary models.
    threshold: float = 0.5

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

    def add(self, labels: Labels, ids: Any, outputs: Outputs | None = None) -> None:
        """Add a batch; without ids its instances have no name but their place in the order of this epoch."""
        size = labels.target.shape[0]
        entries = labels.target.numel() // max(1, size)
        if self.entries is None or labels.target.ndim > 2 or (self.entries not in (0, entries) and size):
            # Outputs for every pixel or token: their errors outnumber any table.
            self.entries = None
            self.batches.clear()
            self.ids.clear()
            self.sureness = (Sureness(), Sureness())
            return
        if size:
            self.entries = entries
        self.nameable &= ids is not None
        columns = (labels.target, labels.h1, labels.h2)
        self.batches.append(torch.stack([column.reshape(-1).to(torch.int32) for column in columns]))
        self.ids.append(range(self.seen, self.seen + size) if ids is None else ids[:size])
        self.seen += size
        if outputs is not None:
            self.threshold = outputs.threshold
            for model, scores, answers in zip(
                self.sureness, (outputs.h1, outputs.h2), (labels.h1, labels.h2), strict=True
            ):
                model.add(scores, answers, labels.target, outputs.binary, outputs.from_logits)

    def errors(
        self, names: NDArray[Any] | None, columns: Columns | None, classes: Sequence[str], alone: bool = True
    ) -> tuple[_Rows, EpochCounts | None]:
        """Read the labels back, once an epoch, and keep what either model got wrong, numbered if names is None.

        With it come counts over all instances, None where there are none: of slices by `columns` and `classes`, and of
        how sure the models are; `alone` where no other process has more of them.
        """
        if not self.batches:
            return _Rows.none(), None
        target, h1, h2 = torch.cat(self.batches, dim=1).cpu().numpy().astype(np.int64)
        counted = target >= 0
        said = [
            model.said(target[counted], answers[counted], counted)
            for model, answers in zip(self.sureness, (h1, h2), strict=True)
        ]
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
        own, codes = None, []
        if columns is not None and names is not None and entries == 1 and columns.knows(names):
            own, codes = columns.among(names[counted]), [each.codes[names[wrong]] for each in columns.sliced]
        counts = EpochCounts.of(
            target[counted], (h1[counted], h2[counted]), (said[0], said[1]), self.threshold, own, classes, alone
        )
        known = [Said.nothing(int(counted.sum())) if each is None else each for each in said]
        sure = np.full((len(target), 4), np.nan)
        slices = np.stack(codes, axis=1) if codes else np.empty((len(wrong), 0), int)
        sure[counted] = np.stack([known[0].answer, known[1].answer, known[0].truth, known[1].truth], axis=1)
        return _Rows(ids, target[wrong], h1[wrong], h2[wrong], sure[wrong], slices), counts


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
        counts: Over all their instances.
    """

    rows: _Rows | None
    nameable: bool
    problem: str | None = None
    counts: EpochCounts = EpochCounts()


def gathered(instances: EpochInstances, columns: Columns | None, classes: Sequence[str]) -> Gathered:
    """Bring all processes' rows to the first, a chunk at a time; what is counted is by columns and classes."""
    names, problem, world, distributed = None, None, _world_size(), torch.distributed
    try:
        if instances.is_nameable and instances.ids:
            names = _joined(instances.names)
    except (TypeError, ValueError) as error:
        problem = str(error)
    if world == 1:
        if problem:
            return Gathered(None, instances.is_nameable, problem)
        rows, counts = instances.errors(names, columns, classes)
        return Gathered(rows, instances.is_nameable, None, together([counts]))
    first = distributed.get_rank() == 0
    # Told to all, since what follows is something that they do together.
    states: list[Any] = [None] * world
    distributed.all_gather_object(states, (problem, instances.is_nameable))
    problem, nameable = next((text for text, _ in states if text), None), all(able for _, able in states)
    if problem:
        return Gathered(None, nameable, problem if first else None)
    rows, counts = instances.errors(names if nameable else None, columns, classes, alone=False)
    told: list[Any] = [None] * world
    distributed.all_gather_object(told, (len(rows.ids), counts))
    sizes = [size for size, _ in told]
    parts: list[list[_Rows]] = [[] for _ in range(world)]
    for start in range(0, max(sizes), _CHUNK):
        chunk = _Rows(*(cast("Any", column[start : start + _CHUNK]) for column in rows))
        received: list[Any] | None = [None] * world if first else None
        distributed.gather_object(chunk, received)
        for part, piece in zip(parts, received or (), strict=False):
            part.append(piece)
    whole = _in_order([piece for part in parts for piece in part]) if first else None
    return Gathered(whole, nameable, None, together([each for _, each in told]))


def _in_order(pieces: Sequence[_Rows]) -> _Rows:
    """Rows of all processes in the order of the data set, as one process would have them; it also packs better."""
    filled = [piece for piece in pieces if len(piece.ids)] or pieces[:1]
    if not filled:
        return _Rows.none()
    whole = _Rows(*(np.concatenate(columns) for columns in zip(*filled, strict=True)))
    if whole.ids.dtype.kind == "O":
        return whole
    order = np.argsort(whole.ids, kind="stable")
    return _Rows(*(cast("Any", column[order]) for column in whole))


def comparison_of(
    comparisons: LogComparisons,
    counts: Tensor,
    rows: _Rows,
    step: int,
    lambda_c: float,
    illustrable: bool,
    columns: Columns | None,
    over_all: EpochCounts,
) -> Comparison:
    """The comparison of one epoch, from counts and rows of all processes."""
    if columns is not None:
        texts = columns.describe(rows.ids) if illustrable else None
        if illustrable and not columns.knows(rows.ids):
            rank_zero_warn(
                f"The columns of LogComparisons(metadata=...) hold {columns.size} values in the order of the data set, "
                "and the ids are not places in it, so they are left out: leave out ids=, or give texts by id."
            )
    else:
        ask = TextsById(comparisons.metadata) if illustrable and comparisons.metadata is not None else None
        texts = metadata_of(ask, np.arange(len(rows.ids)), rows.ids, len(rows.ids))
        if ask is not None and (complaint := ask.complaint()):
            rank_zero_warn(complaint)
    overlap, names = ErrorOverlap(counts), comparisons.class_names
    sure = {} if over_all.confidence.calibration is None else dict(zip(CONFIDENCES, rows.sure.T, strict=True))
    # Of no rows nobody knows the columns.
    in_slices = rows.slices if len(rows.ids) else np.empty((0, len(over_all.slices)), np.int64)
    slices = {each.column: in_slices[:, place] for place, each in enumerate(over_all.slices)}
    instances = ErrorInstances(rows.ids, rows.target, rows.h1, rows.h2, texts, **sure, slices=slices)
    labels = None if names is None else tuple(names)
    return Comparison(
        overlap,
        instances,
        labels,
        None,
        step,
        lambda_c,
        slices=over_all.slices,
        found_slices=over_all.found,
        confidence=over_all.confidence,
    )


def tensorboard_loggers(trainer: Any) -> list[Any]:
    """The Trainer's TensorBoard loggers, of either Lightning package."""
    return [
        logger
        for logger in trainer.loggers
        if any(kind.__name__ == "TensorBoardLogger" for kind in type(logger).__mro__)
    ]
