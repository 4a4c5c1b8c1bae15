"""A folder of h1's outputs, one row for each item: its files, and what is checked before a row is believed.

No framework is imported here; rows and hashes are numpy arrays. How an item is read, hashed and shown to h1 is the
business of each framework's own side.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

Kind = Literal["logits", "probabilities", "log_probabilities"]

SAMPLED_ITEMS = 8
# A row counts as done once it is on the disk; so much work is lost at most when the power goes.
FLUSH_SECONDS = 5.0

_VERSION = 1
_HEADER, _OUTPUTS, _HASHES, _DONE = "header.json", "outputs.npy", "item_hashes.npy", "done.npy"
_FILES = {_HEADER, _OUTPUTS, _HASHES, _DONE}
_ROUNDED_SUM = 1e-2

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


class RowFolder:
    """The files of one table of stored rows.

    Args:
        path: The folder; it need not exist.
        format: The name that the header must bear, so that one framework does not read another's hashes.

    Example:
        >>> import tempfile, numpy as np
        >>> from bc_core._stored_rows import RowFolder, RowWriter
        >>> with tempfile.TemporaryDirectory() as name:
        ...     folder = RowFolder(name, "example")
        ...     folder.create("sha256:...", 2, (3,), np.float32)
        ...     writer = RowWriter(folder)
        ...     writer.write(np.array([0, 1]), np.array([7, 8], np.uint64), np.eye(2, 3))
        ...     writer.flush()
        ...     folder.finish()
        ...     rows, hashes = folder.map(folder.complete_header())
        ...     rows.tolist(), hashes.tolist()
        ([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [7, 8])
    """

    def __init__(self, path: str | Path, format: str) -> None:
        self.path = Path(path).resolve()
        self.format = format

    def header(self) -> dict[str, Any] | None:
        """Read the header, or None where there is none yet.

        Raises:
            ValueError: The file is no header of this format or of another version.
        """
        file = self.path / _HEADER
        if not file.is_file():
            return None
        try:
            header = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            header = None
        if not isinstance(header, dict) or header.get("format") != self.format:
            raise ValueError(f"{file} is not a header of stored outputs; give an empty or new folder")
        if header.get("version") != _VERSION:
            raise ValueError(
                f"{self.path} was written in version {header.get('version')} of the format, this reads version "
                f"{_VERSION}: remove the folder and store again"
            )
        return header

    def complete_header(self) -> dict[str, Any]:
        """Read the header of a folder whose rows are all there.

        Raises:
            FileNotFoundError: There is no such folder.
            ValueError: It holds no stored outputs, or not all of them.
        """
        if not self.path.is_dir():
            raise FileNotFoundError(f"no folder of stored outputs at {self.path}; make it with store_outputs")
        header = self.header()
        if header is None:
            raise ValueError(f"{self.path} holds no stored outputs ({_HEADER} is missing)")
        if not header["complete"]:
            raise ValueError(
                f"the outputs in {self.path} are incomplete, {int(self.done().sum())} of {header['items']} rows: "
                "call store_outputs again with the same arguments to compute the rest"
            )
        return header

    def check_is_ours(self, header: dict[str, Any] | None) -> None:
        """Refuse to write beside files of somebody else.

        Raises:
            ValueError: The folder has other files, or is a file.
        """
        if header is not None or not self.path.exists():
            return
        ours = _FILES | {_HEADER + ".new"}
        if not self.path.is_dir() or {entry.name for entry in self.path.iterdir()} - ours:
            raise ValueError(f"{self.path} is there and holds no stored outputs; give an empty or new folder")

    def check_same_h1(self, header: dict[str, Any], found: str) -> None:
        """Refuse an h1 of another fingerprint than the one that gave the rows.

        Raises:
            ValueError: The fingerprints differ.
        """
        if header["h1"] != found:
            raise ValueError(says_other_h1(str(self.path), header["h1"], found))

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

    def create(self, h1: str, items: int, row: tuple[int, ...], dtype: Any, **more: Any) -> None:
        """Make the files, empty, in place of what was there.

        Args:
            h1: h1's fingerprint.
            items: Number of items.
            row: Shape of one row.
            dtype: What rows are kept in.
            **more: Further entries of the header.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        # The header first: without one, a folder is taken for unfinished, never for another h1's outputs.
        for name in (_HEADER, _OUTPUTS, _HASHES, _DONE):
            (self.path / name).unlink(missing_ok=True)
        shape = (items, *row)
        for name, kind, size in ((_OUTPUTS, dtype, shape), (_HASHES, np.uint64, shape[:1]), (_DONE, bool, shape[:1])):
            np.lib.format.open_memmap(self.path / name, mode="w+", dtype=kind, shape=size).flush()
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

    def finish(self) -> None:
        """Say in the header that all rows are there, if they are."""
        header = self.header()
        if header is not None and bool(self.done().all()):
            self._write_header({**header, "complete": True})

    def _write_header(self, header: dict[str, Any]) -> None:
        aside = self.path / (_HEADER + ".new")
        aside.write_text(json.dumps(header, indent=2) + "\n", encoding="utf-8")
        os.replace(aside, self.path / _HEADER)

    def done(self) -> NDArray[np.bool_]:
        """Read which rows are on the disk, shape (items,)."""
        return cast("NDArray[np.bool_]", np.array(np.load(self.path / _DONE, mmap_mode="r")))

    def map(self, header: dict[str, Any], mode: Literal["r", "r+"] = "r") -> tuple[NDArray[Any], NDArray[np.uint64]]:
        """Map rows and hashes into memory without reading them.

        Raises:
            ValueError: The rows are not those that the header tells of.
        """
        outputs = np.load(self.path / _OUTPUTS, mmap_mode=mode)
        hashes = np.load(self.path / _HASHES, mmap_mode=mode)
        if list(outputs.shape) != header["shape"] or outputs.dtype.name != header["dtype"]:
            raise ValueError(
                f"{self.path / _OUTPUTS} holds {outputs.dtype} of shape {outputs.shape}, its header says "
                f"{header['dtype']} of shape {tuple(header['shape'])}: the folder is damaged, store again"
            )
        return outputs, hashes


class RowWriter:
    """Writes rows into the files; a row is marked as done after it has reached the disk."""

    def __init__(self, folder: RowFolder) -> None:
        self._outputs = np.load(folder.path / _OUTPUTS, mmap_mode="r+")
        self._hashes = np.load(folder.path / _HASHES, mmap_mode="r+")
        self._done = np.load(folder.path / _DONE, mmap_mode="r+")
        self._unmarked: list[NDArray[np.int64]] = []
        self._flushed = time.monotonic()

    def write(self, indices: NDArray[np.int64], hashes: NDArray[np.uint64], rows: NDArray[Any]) -> None:
        """Keep the rows of some items.

        Raises:
            ValueError: As `check_rows`.
        """
        check_rows(rows, indices, self._outputs.shape[1:])
        self._outputs[indices] = rows
        self._hashes[indices] = hashes
        self._unmarked.append(indices)
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Bring what was written to the disk, and mark it as done."""
        self._outputs.flush()
        self._hashes.flush()
        for indices in self._unmarked:
            self._done[indices] = True
        self._done.flush()
        self._unmarked = []
        self._flushed = time.monotonic()


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


def table_of_predictions(table: NDArray[Any], kind: Kind | None) -> NDArray[Any]:
    """Check a table of old predictions, and bring scores to logits.

    Args:
        table: Labels, integers of shape (N,) or (N, 1), -1 for none; or scores, floating-point of shape (N, C), or
            (N,) or (N, 1) for a binary model.
        kind: What scores are; None for labels.

    Returns:
        Labels as int64 (N,); logits as they are; probabilities as their logarithms, or a binary model's log-odds, in
        float32 or the float64 that they came in.

    Raises:
        ValueError: The table is empty, has another shape, NaN or infinite values, numbers that are no labels or no
            probabilities, or scores whose kind was not given.
    """
    if table.size == 0 or table.ndim not in (1, 2):
        raise ValueError(f"predictions must be labels of shape (N,) or scores of shape (N, C), got {table.shape}")
    table = _scores_of_table(table, kind) if table.dtype.kind == "f" else _labels_of_table(table, kind)
    return np.ascontiguousarray(table)


def name_of_table(outputs: NDArray[Any]) -> str:
    """Name a table in memory by its content, as a fingerprint names a model."""
    digest = hashlib.sha256(f"{outputs.dtype.str}{outputs.shape}".encode() + outputs.tobytes()).hexdigest()
    return f"table:sha256:{digest}"


def _labels_of_table(table: NDArray[Any], kind: Kind | None) -> NDArray[Any]:
    if kind is not None:
        raise ValueError(f"kind={kind!r} is for scores, but the predictions are integers of type {table.dtype}")
    if table.ndim == 2 and table.shape[1] == 1:
        table = table[:, 0]
    if table.ndim != 1 or table.dtype.kind not in "iu":
        raise ValueError(
            f"labels must be integers of shape (N,), got {table.dtype} of shape {table.shape}; "
            "give scores as floating-point numbers"
        )
    labels = table.astype(np.int64)
    if (labels < -1).any():
        first = int((labels < -1).argmax())
        raise ValueError(f"label {int(labels[first])} of row {first} is no class; expected 0, 1, ... or -1 for none")
    return labels


def _scores_of_table(table: NDArray[Any], kind: Kind | None) -> NDArray[Any]:
    if kind not in ("logits", "probabilities", "log_probabilities"):
        raise ValueError(
            f'say what the scores are: kind="logits", "probabilities" or "log_probabilities", got {kind!r}'
        )
    if table.dtype not in (np.float32, np.float64):
        table = table.astype(np.float32)
    binary = table.ndim == 1 or table.shape[1] == 1
    limits = np.finfo(table.dtype)
    if kind == "log_probabilities" and not binary:
        # -inf is the right logarithm of 0; only finite numbers may enter a loss.
        table = np.where(table != -np.inf, table, limits.min / 2)
    finite = np.isfinite(table).reshape(len(table), -1).all(axis=1)
    if not finite.all():
        raise ValueError(f"row {int((~finite).argmax())} of the predictions is NaN or infinite")
    if kind == "logits":
        return table
    if kind == "log_probabilities" and binary:
        raise ValueError("a binary model's single score must be its logit or the probability of class 1")
    with np.errstate(over="ignore"):
        probabilities = table if kind == "probabilities" else np.exp(table)
    wrong = ((probabilities < 0) | (probabilities > 1 + _ROUNDED_SUM)).reshape(len(table), -1).any(axis=1)
    if not binary:
        wrong |= np.abs(probabilities.sum(axis=1) - 1) > _ROUNDED_SUM
    if wrong.any():
        raise ValueError(
            f"row {int(wrong.argmax())} of the predictions holds no {kind.replace('_', ' ')}: they must lie "
            'between 0 and 1 and sum to 1; for logits say kind="logits"'
        )
    if kind == "log_probabilities":
        return table
    if binary:
        # The log-odds of 0 and 1 are infinite; these are as sure as the type can say.
        clipped = np.clip(table, limits.eps, 1 - limits.eps)
        return cast("NDArray[Any]", np.log(clipped / (1 - clipped)))
    logarithms: NDArray[Any] = np.where(table > 0, np.log(np.maximum(table, limits.tiny)), limits.min / 2)
    return logarithms
