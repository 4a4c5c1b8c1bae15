"""h1's answers about data that come in batches, in whatever order."""

from __future__ import annotations

import hashlib
import io
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from bc_core._arrays import to_numpy
from bc_core.files._archives import read_archive
from bc_core.files._files import write_whole
from bc_keras.batches._attached import join_reference
from bc_keras.batches._validation_data import ValidationData
from bc_keras.reference._asking import asking
from bc_keras.reference._stored import StoredOutputs
from bc_keras.sweep._told import bytes_of


class Answers:
    """h1's answers about data that come in batches, found again by the content of an instance.

    Such data may be shuffled anew for every pass. An instance that h1 was not asked about, such as one that was
    augmented at random, is asked about when it comes.
    """

    def __init__(self, rows: NDArray[Any], hashes: NDArray[np.uint64]) -> None:
        self.rows, self.hashes = rows, hashes
        self.positions: NDArray[np.int64] | None = None

    @classmethod
    def asked(cls, h1: Any, data: ValidationData) -> Answers:
        """Ask h1 about all instances."""
        ask, rows, hashes = asking(h1), [], []
        for batch in data:
            rows.append(ask(batch.x))
            hashes.append(_hashes(batch.x))
        if not rows:
            raise ValueError("The data must hold at least one batch. Received: none.")
        return cls(np.concatenate(rows), np.concatenate(hashes))

    @classmethod
    def load(cls, path: Path) -> Answers:
        """Read what `save` wrote.

        Raises:
            ValueError: The file is damaged.
        """
        try:
            arrays = read_archive(path)
            return cls(arrays["rows"], arrays["hashes"])
        except (ValueError, KeyError) as error:
            raise ValueError(
                f"{path} is damaged ({error}). Remove it, and call the sweep again with the same folder: it asks h1 "
                "once more."
            ) from error

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        buffer = io.BytesIO()
        np.savez(buffer, rows=self.rows, hashes=self.hashes)
        write_whole(path, buffer.getvalue())

    def as_stored(self) -> StoredOutputs:
        """The answers, for what they are: scores or labels."""
        return StoredOutputs(self.rows, "answers")

    def joined(self, h1: Any, data: ValidationData, columns: int) -> Batches:
        """Batches with h1's answers beside the labels; after a pass `positions` says which instances came."""
        classes = columns if self.rows.dtype.kind in "iu" else None

        def batches() -> Iterator[tuple[Any, Any]]:
            waiting: dict[int, deque[int]] = {}
            for position, key in enumerate(self.hashes.tolist()):
                waiting.setdefault(key, deque()).append(position)
            found: list[int] = []
            for batch in data:
                positions = []
                for key in _hashes(batch.x).tolist():
                    places = waiting.get(key)
                    # The last of a kind stays, for one that comes more often than before.
                    place = -1 if places is None else places.popleft() if len(places) > 1 else places[0]
                    positions.append(place)
                rows = asking(h1)(batch.x) if -1 in positions else self.rows[positions]
                found += positions
                yield batch.x, join_reference(batch.y, rows, classes)
            self.positions = np.array(found, np.int64)

        return Batches(batches)

    def ids_after_pass(self, ids: Any) -> Callable[[int], Any]:
        """Ids of as many labels as came in a pass, so that instances keep theirs in whatever order they came."""

        def found(size: int) -> Any:
            positions, expected = self.positions, np.arange(len(self.hashes))
            assert positions is not None
            if ids is not None and not np.array_equal(positions, expected):
                raise ValueError(
                    "ids need data that give the same instances in the same order in every pass, as they do not say "
                    "which instance they name: leave ids out, or take out shuffling and random augmentation."
                )
            is_whole = np.array_equal(np.sort(positions), expected) and len(positions) == size
            return positions if ids is None and is_whole else ids

        return found


class Batches:
    """Batches that a function makes, to be read as often as wanted."""

    def __init__(self, batches: Callable[[], Iterator[tuple[Any, Any]]]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return self._batches()


def _hashes(x: Any) -> NDArray[np.uint64]:
    """Hash the content of each instance of a batch."""
    arrays = [to_numpy(leaf, "x") for leaf in keras.tree.flatten(x)]
    digests = [
        hashlib.blake2b(b"".join(bytes_of(array[row]) for array in arrays), digest_size=8).digest()
        for row in range(len(arrays[0]))
    ]
    return np.frombuffer(b"".join(digests), np.uint64)
