"""`StoredOutputs` and `store_outputs`, as far as they are the same whatever framework h1 is of.

A frozen h1 answers the same for the same input, so its forward pass need not be repeated in every epoch. What makes
this dangerous is a row that belongs to another item: a data set that augments at random, was reordered, or is
preprocessed otherwise than it was for h1. Each item is therefore stored with a hash of its content, and read back
against it.

Each side derives its own `StoredOutputs` and gives `ItemsForH1`: h1, and the items that it is asked about.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from bc_core._arrays import to_numpy
from bc_core.reference._callable_fingerprint import is_same_h1
from bc_core.reference._prediction_tables import Kind, name_of_table, table_of_predictions
from bc_core.reference._row_checksums import CheckedRows
from bc_core.reference._stored_rows import REPLACE, RowFolder, compare_answers, says_other_h1, says_other_item

# Devices and precision round differently.
SAME_ROUNDING = 1e-2

Rows = TypeVar("Rows")
Stored = TypeVar("Stored", bound="StoredRows[Any]")


class ItemsForH1(ABC):
    """h1 and the items of a data set that it is asked about: all that a side knows of them.

    Attributes:
        fingerprint: h1's.
        items: what a header says of the items beside their number; None where it says nothing.
    """

    fingerprint: str
    items: Any = None

    @abstractmethod
    def __len__(self) -> int:
        """Number of items."""

    @abstractmethod
    def hashes(self, known: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Hash items to be compared before rows are believed: which of the known ones, and their hashes."""

    @abstractmethod
    def answers(self, known: NDArray[np.int64]) -> tuple[list[int], NDArray[Any]]:
        """Ask h1 again about a few items: which of the known ones, and its rows."""


class _CombinedRows:
    """Rows that are made of several others' when they are read: an array as far as `StoredRows` reads one."""

    def __init__(
        self,
        parts: Sequence[NDArray[Any] | CheckedRows | _CombinedRows],
        combine: Callable[[Sequence[NDArray[Any]]], NDArray[Any]],
    ) -> None:
        self._parts, self._combine = parts, combine
        first = self[:1]
        self.shape: tuple[int, ...] = (len(parts[0]), *first.shape[1:])
        self.dtype = first.dtype

    def __len__(self) -> int:
        return len(self._parts[0])

    def __getitem__(self, indices: Any) -> NDArray[Any]:
        if np.ndim(indices) == 0 and not isinstance(indices, slice):
            return np.asarray(self[[indices]][0])
        return self._combine([np.array(part[indices]) for part in self._parts])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:].astype(dtype or self.dtype, copy=False)


class StoredRows(Generic[Rows]):
    """h1's outputs for every item of one data set: what `StoredOutputs` of both sides are.

    Args:
        outputs: Scores (N, C) or labels (N,).
        fingerprint: That of the h1 that gave them, or of the table.
        hashes: Of the items, shape (N,); None where nothing ties rows to items but their order.
        path: The folder, of outputs on the disk.
        items: What the header says of the items beside their number.
    """

    _FORMAT: ClassVar[str]
    _ENTRIES: ClassVar[Mapping[str, type]] = {}
    # Which axis of scores holds the classes.
    _CLASS_AXIS: ClassVar[int] = -1

    def __init__(
        self,
        outputs: NDArray[Any] | CheckedRows | _CombinedRows,
        fingerprint: str,
        hashes: NDArray[np.uint64] | None = None,
        path: Path | None = None,
        items: Any = None,
    ) -> None:
        self._outputs = outputs
        self._fingerprint = fingerprint
        self._hashes = hashes
        self._path = path
        self._items = items

    # What a side knows

    @staticmethod
    def _name_of(h1: Any, /) -> str:
        """h1's fingerprint."""
        raise NotImplementedError

    @classmethod
    def _read_items(cls, folder: RowFolder, header: dict[str, Any]) -> Any:
        """What the header says of the items beside their number."""
        return None

    def _check_items(self, items: Any) -> None:
        """Refuse items that are told by other hashes than the stored ones.

        Raises:
            ValueError: They are of another kind.
        """

    @staticmethod
    def _table(predictions: Any) -> NDArray[Any]:
        """A caller's table in numpy; a list of bools stays one of bools."""
        return np.asarray(predictions) if isinstance(predictions, list) else to_numpy(predictions, "predictions")

    def _rows(self, rows: NDArray[Any]) -> Rows:
        """Rows as the side hands them out."""
        return rows  # type: ignore[return-value]  # numpy's, unless a side says otherwise

    # What there is

    @classmethod
    def open(cls: type[Stored], path: str | Path, h1: Any = None) -> Stored:
        """Open a folder that `store_outputs` wrote.

        Args:
            path: The folder.
            h1: The old model, to be sure that the outputs are its; it is compared by its fingerprint. Use
                `verify` to compare its answers too.

        Raises:
            FileNotFoundError: There is no such folder.
            ValueError: The folder holds no stored outputs, incomplete ones, those of another h1, or is damaged.
        """
        folder = cls._folder(path)
        header = folder.complete_header()
        if h1 is not None:
            found = cls._name_of(h1)
            folder.check_same_h1(header, found)
            folder.say_if_by_name(header, found)
        return cls._mapped(folder, header)

    @classmethod
    def from_table(cls: type[Stored], predictions: Any, kind: Kind | None = None) -> Stored:
        """Use a table of predictions of an old service whose weights are gone.

        Nothing ties the rows to items but their order: row i must belong to item i of the data set.

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
            >>> from bc_core.reference._stored_outputs import StoredRows  # StoredOutputs of both sides
            >>> StoredRows.from_table([2, 0, 1]).labels_only
            True
            >>> StoredRows.from_table([[0.25, 0.75]], kind="probabilities")[0].round(3).tolist()
            [-1.386, -0.288]
        """
        outputs = table_of_predictions(cls._table(predictions), kind)
        return cls(outputs, name_of_table(outputs))

    @classmethod
    def combined(
        cls: type[Stored],
        members: Sequence[StoredRows[Any]],
        combine: Callable[[Sequence[NDArray[Any]]], NDArray[Any]],
        fingerprint: str,
    ) -> Stored:
        """Outputs that are computed of several others' for the same items, when they are read.

        Args:
            members: The others.
            combine: Makes rows (N, ...) of theirs; pickled where worker processes read.
            fingerprint: Of the model that they stand for.

        Raises:
            ValueError: They were stored for different data sets.
        """
        known = [each for each in members if each._hashes is not None]
        for each in members[1:]:
            members[0].check_length(len(each))
        for each in known[1:]:
            known[0]._check_items(each._items)
            known[0].check_hashes(np.arange(len(each)), np.asarray(each._hashes))
        first = known[0] if known else members[0]
        rows = _CombinedRows([each._outputs for each in members], combine)
        return cls(rows, fingerprint, first._hashes, None, first._items)

    @classmethod
    def _folder(cls, path: str | Path) -> RowFolder:
        return RowFolder(path, cls._FORMAT, cls._ENTRIES)

    @classmethod
    def _mapped(cls: type[Stored], folder: RowFolder, header: dict[str, Any]) -> Stored:
        outputs, hashes = folder.map(header)
        return cls(outputs, header["h1"], hashes, folder.path, cls._read_items(folder, header))

    @property
    def path(self) -> Path | None:
        """The folder on disk, or ``None`` for outputs in memory."""
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
        columns = self.shape[self._CLASS_AXIS] if len(self.shape) > 1 and not self.labels_only else 1
        return None if columns == 1 else columns

    def __len__(self) -> int:
        return len(self._outputs)

    def __getitem__(self, indices: Any) -> Rows:
        """Read rows.

        Args:
            indices: An item's index, or a slice, sequence, array or tensor of them.

        Returns:
            A copy of the rows: shape ``(C,)`` for one index, ``(K, C)`` for K of them, without ``C`` for labels.

        Raises:
            ValueError: A row on disk is not the one that was written; each is looked at when it is first read.
        """
        if hasattr(indices, "detach") or hasattr(indices, "numpy"):
            indices = to_numpy(indices, "indices")
        return self._rows(np.array(self._outputs[indices]))

    def __repr__(self) -> str:
        where = "in memory" if self._path is None else f"at {self._path}"
        return f"StoredOutputs({len(self)} items, shape {self.shape}, {self._outputs.dtype}, {where})"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._path is None:
            return type(self), (self._outputs, self._fingerprint, self._hashes, None, self._items)
        return type(self).open, (self._path,)

    # What is checked

    def check_length(self, length: int) -> None:
        """Refuse a data set of another length.

        Raises:
            ValueError: The lengths differ.
        """
        if length != len(self):
            raise ValueError(
                f"the data set has {length} items, but h1's outputs were stored for {len(self)}: attach the data set "
                "they were stored for, and take subsets of what comes back"
            )

    def check_hashes(self, indices: NDArray[np.int64], found: NDArray[np.uint64]) -> None:
        """Compare hashes of items with those that were stored.

        Raises:
            ValueError: An item is another one, or its hash on the disk is damaged.
        """
        if self._hashes is None:
            return
        wrong = np.flatnonzero(found != self._hashes[indices])
        if not wrong.size:
            return
        if isinstance(self._outputs, CheckedRows):
            # The hashes may be what is wrong.
            self._outputs.check(indices[wrong])
        first = int(wrong[0])
        several = f". Received: {wrong.size} other items among {len(indices)}." if len(indices) > 1 else ""
        raise ValueError(says_other_item(int(indices[first]), int(found[first]), self._hashes) + several)

    def check_against(self, asked: ItemsForH1, tolerance: float) -> None:
        """Check all rows by their checksums, the items by their hashes, and h1 by its fingerprint and a few answers.

        Args:
            asked: h1 and its items.
            tolerance: As for `compare_answers`.

        Raises:
            ValueError: h1, the data set or the answers differ, or rows are not those that were written.
        """
        if self._hashes is not None and not is_same_h1(self._fingerprint, asked.fingerprint):
            where = "in memory" if self._path is None else str(self._path)
            raise ValueError(says_other_h1(where, self._fingerprint, asked.fingerprint))
        self._check_items(asked.items)
        self.check_length(len(asked))
        if isinstance(self._outputs, CheckedRows):
            self._outputs.check()
        everything = np.arange(len(self))
        self.check_hashes(*asked.hashes(everything))
        self._compare_answers(asked, everything, tolerance)

    def _compare_answers(self, asked: ItemsForH1, known: NDArray[np.int64], tolerance: float) -> None:
        rows, again = asked.answers(known)
        if rows:
            compare_answers(np.array(self._outputs[rows]), again, rows, tolerance)

    @classmethod
    def _standing(cls, folder: RowFolder, header: dict[str, Any], asked: ItemsForH1) -> NDArray[np.bool_]:
        """Which rows are done and undamaged, once it is sure that they are this h1's for these items."""
        folder.check_same_h1(header, asked.fingerprint)
        folder.check_same_length(header, len(asked))
        stored = cls._mapped(folder, header)
        assert isinstance(stored._outputs, CheckedRows)
        standing = folder.standing(header, stored._outputs)
        known = np.flatnonzero(standing)
        try:
            stored._check_items(asked.items)
            stored.check_hashes(*asked.hashes(known))
        except ValueError as error:
            raise ValueError(f"{folder.path} holds h1's outputs for another data set; {REPLACE}. {error}") from error
        # Of a callable not all may be known, and its name stays when its weights change.
        stored._compare_answers(asked, known, SAME_ROUNDING)
        return standing


def store(
    kind: type[Stored],
    asked: ItemsForH1,
    path: str | Path,
    compute: Callable[[RowFolder, NDArray[np.int64], bool], None],
    *,
    overwrite: bool,
    is_first: bool = True,
) -> Stored:
    """Keep h1's rows for every item in a folder: those that are there and right, and the others computed.

    Args:
        kind: The side's `StoredOutputs`.
        asked: h1 and its items.
        path: The folder.
        compute: Called with the folder, the items whose rows are missing, and whether the files are to be made
            first: writes the rows, and finishes the folder.
        overwrite: Replace the rows of another h1 or other items that are in the folder.
        is_first: Whether this process writes for all of those that work together.

    Raises:
        ValueError: The folder holds rows of another h1 or other items, or other files, or is damaged.
        RuntimeError: Another process stores outputs in the folder.
    """
    folder = kind._folder(path)
    kept = folder.header_to_keep(overwrite)
    if kept is not None and kept["complete"] and kind._standing(folder, kept, asked).all():
        return kind.open(folder.path)
    with folder.locked() if is_first else nullcontext():
        kept = folder.header_to_keep(overwrite)
        missing = np.arange(len(asked))
        if kept is not None:
            standing = kind._standing(folder, kept, asked)
            missing = np.flatnonzero(~standing)
            if is_first:
                folder.go_on(kept, standing)
        if len(missing):
            compute(folder, missing, kept is None)
        else:
            # The last row was written, and the work was stopped before the header said so.
            folder.finish()
    return kind.open(folder.path)
