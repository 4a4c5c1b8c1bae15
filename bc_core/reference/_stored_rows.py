"""A folder of h1's outputs, one row for each item: its files, and what is checked before a row is believed.

No framework is imported here; rows and hashes are numpy arrays. How an item is read, hashed and shown to h1 is the
business of each framework's own side.
"""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core.files._files import in_bytes, is_left_aside, locked, told_of_a_full_disk, write_whole
from bc_core.reference._callable_fingerprint import is_same_h1, is_sure, says_by_name
from bc_core.reference._row_checksums import CheckedRows, DamagedRowsError, row_checksums
from bc_core.reference._row_files import ArrayFile, create_array, open_array, size_of_array

SAMPLED_ITEMS = 8
# A row counts as done once it is on the disk; so much work is lost at most when the power goes.
FLUSH_SECONDS = 5.0

# Version 1 had no checksums.
_VERSION, _WITHOUT_CHECKSUMS = 2, 1
_HEADER, _OUTPUTS, _HASHES, _DONE, _SUMS = "header.json", "outputs.npy", "item_hashes.npy", "done.npy", "checksums.npy"
_LOCK, _ASIDE = "store.lock", ".new"
_ARRAYS = (_OUTPUTS, _HASHES, _SUMS, _DONE)
_FILES = {_HEADER, _LOCK, *_ARRAYS, *(name + _ASIDE for name in (_HEADER, *_ARRAYS))}
_DTYPES = ("float32", "float64", "int64")

WHY_ITEMS_DIFFER = (
    "Likely reasons: the data set augments at random (store and attach it without augmentation, and augment "
    "batches after it), it was reordered, filtered or split otherwise, or it is preprocessed in another way"
)
WHAT_TO_ATTACH = (
    "Attach the data set that the outputs were stored for, or store them again for this one with "
    "store_outputs(..., overwrite=True)"
)
OTHER_ITEM = (
    "item {index} of the data set is not the one that h1's output was stored for{moved}. "
    f"{WHY_ITEMS_DIFFER}. {WHAT_TO_ATTACH}"
)
MOVED = " (it is the item that was stored as {index})"
REPLACE = "give another folder, or overwrite=True to replace them"
_STORE_ANEW = "store the outputs again with store_outputs(..., overwrite=True)"


class RowFolder:
    """The files of one table of stored rows.

    Args:
        path: The folder; it need not exist.
        format: The name that the header must bear, so that one framework does not read another's hashes.
        entries: What else the header must hold, by name, and of which type.

    Example:
        >>> import tempfile, numpy as np
        >>> from bc_core.reference._stored_rows import RowFolder, RowWriter
        >>> with tempfile.TemporaryDirectory() as name:
        ...     folder = RowFolder(name, "example")
        ...     folder.create("sha256:...", 2, (3,), np.float32)
        ...     with RowWriter(folder) as writer:
        ...         writer.write(np.array([0, 1]), np.array([7, 8], np.uint64), np.eye(2, 3))
        ...     folder.finish()
        ...     rows, hashes = folder.map(folder.complete_header())
        ...     rows[:].tolist(), hashes.tolist()
        ([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [7, 8])
    """

    def __init__(self, path: str | Path, format: str, entries: Mapping[str, type] | None = None) -> None:
        self.path = Path(path).resolve()
        self.format = format
        self._entries = {"h1": str, "items": int, "shape": list, "dtype": str, "complete": bool, **(entries or {})}

    # What is there

    def header(self) -> dict[str, Any] | None:
        """Read the header, or None where there is none yet.

        Raises:
            DamagedRowsError: The file was a header once.
            ValueError: The file is no header of this format or of another version.
        """
        file = self.path / _HEADER
        if not file.is_file():
            return None
        try:
            header = json.loads(content := file.read_bytes())
        except (ValueError, RecursionError):
            header = None
        if not isinstance(header, dict) or header.get("format") != self.format:
            other = isinstance(header, dict) and str(header.get("format")).endswith(".stored_outputs")
            if other or self._strangers() or not ((self.path / _OUTPUTS).exists() or not content):
                raise ValueError(f"{file} is not a header of stored outputs; give an empty or new folder")
            raise DamagedRowsError(f"{file} is damaged (cut off, or written over): {_STORE_ANEW}")
        if header.get("version") not in (_VERSION, _WITHOUT_CHECKSUMS):
            raise ValueError(
                f"{self.path} was written in version {header.get('version')} of the format, this reads version "
                f"{_VERSION} and earlier: remove the folder and store again"
            )
        if fault := self._fault(header):
            raise DamagedRowsError(f"{file} is damaged ({fault}): {_STORE_ANEW}")
        return header

    def _fault(self, header: dict[str, Any]) -> str | None:
        for name, kind in self._entries.items():
            if type(header.get(name)) is not kind:
                return f"the entry {name!r} is missing, or no {kind.__name__}"
        shape, items = header["shape"], header["items"]
        if not shape or any(type(length) is not int or length < 1 for length in shape) or shape[0] != items:
            return f"{items} items cannot have outputs of shape {shape}"
        if header["dtype"] not in _DTYPES:
            return f"outputs are never of type {header['dtype']!r}"
        return None

    def complete_header(self) -> dict[str, Any]:
        """Read the header of a folder whose rows are all there.

        Raises:
            FileNotFoundError: There is no such folder.
            ValueError: It holds no stored outputs, or not all of them, or is damaged.
        """
        if not self.path.is_dir():
            raise FileNotFoundError(f"no folder of stored outputs at {self.path}; make it with store_outputs")
        header = self.header()
        if header is None:
            raise ValueError(f"{self.path} holds no stored outputs ({_HEADER} is missing)")
        if not header["complete"]:
            raise ValueError(
                f"the outputs in {self.path} are incomplete, {int(self.done(header).sum())} of {header['items']} "
                "rows: call store_outputs again with the same arguments to compute the rest"
            )
        return header

    def header_to_keep(self, overwrite: bool) -> dict[str, Any] | None:
        """Read the header of rows that are to be kept; None where all are to be computed.

        Args:
            overwrite: Whether rows that are there are to be replaced, also damaged ones.

        Raises:
            DamagedRowsError: The header is damaged, and is not to be replaced.
            ValueError: The folder has files of somebody else, or is a file.
        """
        try:
            header = self.header()
        except DamagedRowsError:
            if not overwrite:
                raise
            header = None
        if header is None and self.path.exists() and (not self.path.is_dir() or self._strangers()):
            raise ValueError(f"{self.path} is there and holds no stored outputs; give an empty or new folder")
        return None if overwrite else header

    def _strangers(self) -> set[str]:
        names = {entry.name for entry in self.path.iterdir()} - _FILES
        return {name for name in names if not is_left_aside(name, _FILES)}

    def check_same_h1(self, header: dict[str, Any], found: str) -> None:
        """Refuse an h1 of another fingerprint than the one that gave the rows.

        Raises:
            ValueError: The fingerprints differ.
        """
        if not is_same_h1(header["h1"], found):
            raise ValueError(says_other_h1(str(self.path), header["h1"], found))

    def say_if_by_name(self, header: dict[str, Any], found: str) -> None:
        """Warn where nothing but its name says that an h1 is the one that gave the rows."""
        if not is_sure(header["h1"], found):
            warnings.warn(f"{self.path}: {says_by_name(found)}", stacklevel=3)

    def check_same_length(self, header: dict[str, Any], length: int) -> None:
        """Refuse a data set of another length than the one whose rows are here.

        Raises:
            ValueError: The lengths differ.
        """
        if header["items"] != length:
            raise ValueError(
                f"{self.path} holds h1's outputs for another data set, of {header['items']} items where this one has "
                f"{length}; {REPLACE}"
            )

    def done(self, header: dict[str, Any]) -> NDArray[np.bool_]:
        """Read which rows are marked as being on the disk, shape (items,).

        Raises:
            DamagedRowsError: The file is missing or damaged.
        """
        return np.array(self._array(_DONE, "bool", header["shape"][:1]))

    def standing(self, header: dict[str, Any], rows: CheckedRows) -> NDArray[np.bool_]:
        """Which rows need not be computed, shape (items,): those that are what was written, whatever the marks say."""
        return self.done(header) if header["version"] == _WITHOUT_CHECKSUMS else rows.intact()

    def map(self, header: dict[str, Any]) -> tuple[CheckedRows, NDArray[np.uint64]]:
        """Map rows and hashes into memory without reading them.

        Raises:
            DamagedRowsError: A file is missing, damaged, or not what the header tells of.
        """
        outputs = self._array(_OUTPUTS, header["dtype"], header["shape"])
        hashes = self._array(_HASHES, "uint64", header["shape"][:1])
        checked = header["version"] != _WITHOUT_CHECKSUMS
        sums = self._array(_SUMS, "uint64", header["shape"][:1]) if checked else None
        return CheckedRows(outputs, hashes, sums, self.path), hashes

    def _array(self, name: str, dtype: str, shape: list[int]) -> NDArray[Any]:
        try:
            return open_array(self.path / name, np.dtype(dtype), tuple(shape))
        except ValueError as error:
            raise DamagedRowsError(f"the folder is damaged, {error}: {_STORE_ANEW}") from error

    # Writing

    def locked(self) -> AbstractContextManager[None]:
        """Keep every other process from writing here; one that was killed leaves no lock.

        Processes that were started together (`torchrun`, DDP) wait for each other.

        Raises:
            RuntimeError: Another process, or thread, stores outputs here.
        """
        return locked(self.path / _LOCK, str(self.path), wait="LOCAL_RANK" in os.environ)

    def create(self, h1: str, items: int, row: tuple[int, ...], dtype: Any, **more: Any) -> None:
        """Make the files, empty, in place of what was there.

        Args:
            h1: h1's fingerprint.
            items: Number of items.
            row: Shape of one row.
            dtype: What rows are kept in.
            **more: Further entries of the header.

        Raises:
            FullDiskError: There is no room for all rows; what was there is kept.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        shape = (items, *row)
        kinds = {
            _OUTPUTS: (dtype, shape),
            **dict.fromkeys((_HASHES, _SUMS), ("uint64", shape[:1])),
            _DONE: ("bool", shape[:1]),
        }
        arrays = {name: (np.dtype(kind), size) for name, (kind, size) in kinds.items()}
        # Aside: for want of room, nothing that was there is lost.
        needed = in_bytes(sum(size_of_array(kind, size) for kind, size in arrays.values()))
        said = f"h1's outputs for {items} items need {needed}, and there is no room for them on the disk"
        with told_of_a_full_disk(
            f"{said}; what was there before is kept. Make room, or give a folder on another disk", self.path
        ):
            try:
                for name, (kind, size) in arrays.items():
                    create_array(self.path / (name + _ASIDE), kind, size)
            except BaseException:
                for name in arrays:
                    with suppress(OSError):
                        (self.path / (name + _ASIDE)).unlink(missing_ok=True)
                raise
        # The header first: without one, a folder is taken for unfinished, never for another h1's outputs.
        (self.path / _HEADER).unlink(missing_ok=True)
        for name in arrays:
            os.replace(self.path / (name + _ASIDE), self.path / name)
        for entry in list(self.path.iterdir()):
            if is_left_aside(entry.name, _FILES):
                entry.unlink(missing_ok=True)
        self._write_header(
            {
                "format": self.format,
                "version": _VERSION,
                "h1": h1,
                "items": items,
                "shape": list(shape),
                "dtype": np.dtype(dtype).name,
                **more,
                "complete": False,
            }
        )

    def go_on(self, header: dict[str, Any], standing: NDArray[np.bool_]) -> None:
        """Say which rows stand, before the others are computed."""
        if header["complete"]:
            self._write_header({**header, "complete": False})
        with closing(self.writable(_DONE, "bool", header["shape"][:1])) as marks:
            marks.write(np.arange(len(standing)), standing)
            marks.sync()

    def finish(self) -> None:
        """Say in the header that all rows are there, if they are."""
        header = self.header()
        if header is not None and bool(self.done(header).all()):
            self._write_header({**header, "complete": True})

    def note(self, **entries: Any) -> None:
        """Say more in the header, or something else."""
        header = self.header()
        if header is not None:
            self._write_header({**header, **entries})

    def writable(self, name: str, dtype: str, shape: list[int]) -> ArrayFile:
        """Open one of the arrays for writing."""
        try:
            return ArrayFile(self.path / name, np.dtype(dtype), tuple(shape))
        except ValueError as error:
            raise DamagedRowsError(f"the folder is damaged, {error}: {_STORE_ANEW}") from error

    def _write_header(self, header: dict[str, Any]) -> None:
        write_whole(self.path / _HEADER, (json.dumps(header, indent=2) + "\n").encode("ascii"))


class RowWriter:
    """Writes rows into the files; a row is marked as done after it has reached the disk. A context that closes them."""

    def __init__(self, folder: RowFolder) -> None:
        header = folder.header()
        if header is None:
            raise ValueError(f"{folder.path} holds no stored outputs to write to ({_HEADER} is missing)")
        self._path, self._row, self._dtype = folder.path, tuple(header["shape"][1:]), np.dtype(header["dtype"])
        kinds = {_OUTPUTS: header["dtype"], _HASHES: "uint64", _SUMS: "uint64", _DONE: "bool"}
        if header["version"] == _WITHOUT_CHECKSUMS:
            del kinds[_SUMS]
        with ExitStack() as opened:
            self._files = {
                name: opened.enter_context(
                    closing(folder.writable(name, kind, header["shape"][: None if name == _OUTPUTS else 1]))
                )
                for name, kind in kinds.items()
            }
            self._closing = opened.pop_all()
        self._unmarked: list[NDArray[np.int64]] = []
        self._flushed = time.monotonic()

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, indices: NDArray[np.int64], hashes: NDArray[np.uint64], rows: NDArray[Any]) -> None:
        """Keep the rows of some items.

        Raises:
            ValueError: As `check_rows`.
            FullDiskError: There is no room; what is done is kept.
        """
        check_rows(rows, indices, self._row)
        rows = np.ascontiguousarray(rows, dtype=self._dtype)
        values = {_OUTPUTS: rows, _HASHES: hashes}
        if _SUMS in self._files:
            values[_SUMS] = row_checksums(rows, indices, hashes)
        with self._telling_of_a_full_disk():
            for name, content in values.items():
                self._files[name].write(indices, content)
        self._unmarked.append(indices)
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Bring what was written to the disk, and mark it as done.

        Raises:
            FullDiskError: There is no room; what is done is kept.
        """
        with self._telling_of_a_full_disk():
            for name, file in self._files.items():
                if name != _DONE:
                    file.sync()
            for indices in self._unmarked:
                self._files[_DONE].write(indices, np.ones(len(indices), dtype=bool))
            self._files[_DONE].sync()
        self._unmarked = []
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Flush, and close the files; a second time it does nothing."""
        if self._files:
            try:
                with self._closing:
                    self.flush()
            finally:
                self._files = {}

    def _telling_of_a_full_disk(self) -> AbstractContextManager[None]:
        return told_of_a_full_disk(
            "no space is left for h1's outputs; the rows that are done are kept. Make room, then call store_outputs "
            "again with the same arguments",
            self._path,
        )


def check_rows(rows: NDArray[Any], indices: NDArray[np.int64], row: tuple[int, ...]) -> None:
    """Check h1's answer about some items before it is kept.

    Args:
        rows: The answer.
        indices: The items, shape (N,).
        row: Shape of one row.

    Raises:
        ValueError: The answer has another shape, or is NaN or infinite for an item.
    """
    expected = (len(indices), *row)
    if tuple(rows.shape) != expected:
        raise ValueError(
            f"h1 returned {tuple(rows.shape)} for items {indices[0]} to {indices[-1]}, "
            f"expected {expected}: one row of equal shape for each item"
        )
    finite = np.isfinite(rows).reshape(len(rows), -1).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"h1's output for item {int(indices[int((~finite).argmax())])} is NaN or infinite: look at that item, or "
            "at the precision h1 is run in, before training against it"
        )


def compare_answers(before: NDArray[Any], again: NDArray[Any], rows: list[int], tolerance: float) -> None:
    """Compare h1's stored answers about some items with those it gives now.

    Args:
        before: The stored rows of these items.
        again: h1's answers now.
        rows: Which items these are.
        tolerance: Largest difference allowed, relative to the largest score of the row or 1.

    Raises:
        ValueError: They differ.
    """
    if again.shape != before.shape:
        raise ValueError(f"h1 gives rows of shape {tuple(again.shape[1:])}, stored are {tuple(before.shape[1:])}")
    labels = before.dtype.kind in "iu"
    before = before.astype(np.float64).reshape(len(rows), -1)
    again = again.astype(np.float64).reshape(len(rows), -1)
    # Labels must be equal; scores may be rounded otherwise.
    allowed = 0.0 if labels else tolerance * np.abs(before).max(axis=1).clip(min=1)
    wrong = ~(np.abs(again - before).max(axis=1) <= allowed)
    if wrong.any():
        raise ValueError(
            f"h1 now answers otherwise about item {rows[int(wrong.argmax())]} than when its outputs were stored: its "
            "weights, its settings or its preprocessing changed. Store again with "
            "store_outputs(..., overwrite=True)"
        )


def says_other_h1(path: str, stored: str, found: str) -> str:
    """Say that the rows of `path` are another h1's."""
    return (
        f"{path} holds the outputs of another h1: its fingerprint is {stored}, this h1's is {found}. Use the h1 "
        "they were stored with, give another folder, or store again with store_outputs(..., overwrite=True)"
    )


def says_other_item(index: int, found: int, hashes: NDArray[np.uint64]) -> str:
    """Say that an item is not the one whose row is stored, and which one it is instead, if it is one.

    Args:
        index: The item's index.
        found: The hash of its content.
        hashes: The stored hashes of all items.
    """
    elsewhere = np.flatnonzero(hashes == np.uint64(found))
    return OTHER_ITEM.format(index=index, moved=MOVED.format(index=elsewhere[0]) if elsewhere.size else "")


def sampled(length: int) -> list[int]:
    """Choose eight indices, the same each time and without touching the caller's random numbers."""
    chosen = np.random.default_rng(length).choice(length, min(length, SAMPLED_ITEMS), replace=False)
    return sorted(int(index) for index in chosen)


def sampled_of(known: NDArray[np.int64]) -> list[int]:
    """Choose eight of some indices, or all where there are fewer."""
    return [int(known[position]) for position in sampled(len(known))]
