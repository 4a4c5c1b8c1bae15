"""Rows on the disk that are believed only after they were found to be those that were written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Rows of so many bytes are checked at a time.
_BYTES_AT_A_TIME = 1 << 22


class DamagedRowsError(ValueError):
    """Stored outputs are not what was written."""


def row_checksums(rows: NDArray[Any], indices: NDArray[np.int64], hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Checksum of each row, of its place and of the item that it belongs to.

    A row is taken as words of 32 bits, each times an odd number of its own, summed modulo 2**64: a single word that
    differs always gives another sum, several do but for a chance of about 2**-64. Zeros are no exception.

    Args:
        rows: Shape (N, ...), of a type of 4 or 8 bytes.
        indices: Their indices, shape (N,).
        hashes: The hashes of their items, shape (N,).

    Example:
        >>> import numpy as np
        >>> from bc_core.reference._row_checksums import row_checksums
        >>> rows, hashes = np.array([[1.0, 2.0], [0.0, 0.0]]), np.array([7, 7], np.uint64)
        >>> here, there = (row_checksums(rows, np.array(at), hashes) for at in ([0, 1], [1, 0]))
        >>> len({*here.tolist(), *there.tolist(), 0})
        5
    """
    flat = np.ascontiguousarray(rows).reshape(len(rows), -1)
    words = flat.view("<u4").astype(np.uint64)
    # Words, then the index, the item's hash and a constant, so that a row that was never written has no checksum of 0.
    factors = _odd_numbers(words.shape[1] + 3)
    sums = words @ factors[:-3]
    sums += indices.astype(np.uint64) * factors[-3] + hashes.astype(np.uint64) * factors[-2] + factors[-1]
    return np.asarray(sums, dtype=np.uint64)


def _odd_numbers(number: int) -> NDArray[np.uint64]:
    """The first numbers of SplitMix64, made odd: part of the format, so not from a generator that may change."""
    state: NDArray[np.uint64] = np.arange(1, number + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        state = (state ^ (state >> np.uint64(shift))) * np.uint64(factor)
    odd: NDArray[np.uint64] = (state ^ (state >> np.uint64(31))) | np.uint64(1)
    return odd


class CheckedRows:
    """Rows in a file, read like an array; each is compared with its checksum when it is first read.

    Afterwards reading a batch costs a look at a mask. The answers are copies.

    Args:
        rows: The mapped rows, shape (N, ...).
        hashes: The hashes of the items, shape (N,).
        sums: The checksums, shape (N,); None for a folder of a version that had none.
        path: The folder, for messages.
    """

    def __init__(
        self, rows: NDArray[Any], hashes: NDArray[np.uint64], sums: NDArray[np.uint64] | None, path: Path
    ) -> None:
        self._rows, self._hashes, self._sums, self._path = rows, hashes, sums, path
        self._checked = np.full(len(rows), sums is None)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all rows together."""
        return self._rows.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """What the rows are kept in."""
        return self._rows.dtype

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, indices: Any) -> NDArray[Any]:
        """Read rows.

        Args:
            indices: An index, or a slice, sequence or array of them.

        Raises:
            DamagedRowsError: One is not what was written.
        """
        rows = np.array(self._rows[indices])
        if not np.all(self._checked[indices]):
            numbers = self._numbers(indices)
            self._check(numbers, rows.reshape(len(numbers), *self.shape[1:]))
        return rows

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:] if dtype is None else self[:].astype(dtype)

    def check(self, indices: Any = slice(None)) -> None:
        """Compare rows with their checksums, again where it was done before.

        Raises:
            DamagedRowsError: One is not what was written.
        """
        self._check(self._numbers(indices), self._rows[indices])

    def intact(self) -> NDArray[np.bool_]:
        """Which rows are what was written, shape (N,)."""
        found = np.ones(len(self), dtype=bool)
        for block, fine in self._compared(self._numbers(slice(None)), self._rows):
            found[block] = fine
        return found

    def _check(self, numbers: NDArray[np.int64], rows: NDArray[Any]) -> None:
        for block, fine in self._compared(numbers, rows):
            if not fine.all():
                raise DamagedRowsError(
                    f"{self._path} is damaged: the row of item {block[int((~fine).argmax())]} is not the one that was "
                    "written (a failing disk, a copy that was cut off, a power cut). The same call of store_outputs "
                    "computes the damaged rows again; with overwrite=True, all"
                )
            self._checked[block] = True

    def _compared(
        self, numbers: NDArray[np.int64], rows: NDArray[Any]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.bool_]]]:
        if self._sums is None:
            return
        at_a_time = max(1, _BYTES_AT_A_TIME * len(self) // max(1, self._rows.nbytes))
        for start in range(0, len(numbers), at_a_time):
            block = numbers[start : start + at_a_time]
            found = row_checksums(rows[start : start + at_a_time], block, self._hashes[block])
            yield block, found == self._sums[block]

    def _numbers(self, indices: Any) -> NDArray[np.int64]:
        if isinstance(indices, slice):
            return np.arange(*indices.indices(len(self)), dtype=np.int64)
        given = np.asarray(indices)
        if given.dtype == bool:
            return np.flatnonzero(given)
        numbers = given.astype(np.int64).reshape(-1)
        return np.where(numbers < 0, numbers + len(self), numbers)
