"""Invariance updates as the plugin and a page find them: unpacked, by run, data set and step."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bc_core.invariance import InvarianceUpdate
from bc_tensorboard.plugin._collection import NotShownError
from bc_tensorboard.writing._invariance import check_update

_LARGEST = 64 << 20

Key = tuple[str, str, int]


def decode_invariance(blob: bytes) -> bytes:
    """Unpack what `encode_invariance` made, as JSON.

    Raises:
        NotShownError: If it is damaged.
    """
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(blob, _LARGEST)
    except zlib.error:
        text = b""
    if not unpacker.eof or not text.startswith(b"{"):
        raise NotShownError("The invariance of this step cannot be read; its record is damaged.", "Log it again.")
    return text


def placed_updates(given: Any, keys: Sequence[Key], dataset: str, runs: Sequence[str]) -> dict[Key, InvarianceUpdate]:
    """Find the run, data set and step of updates that a page shows beside comparisons.

    Args:
        given: One update; or a mapping from the name of a run to an update, or to a mapping from data set or step.
        keys: Where comparisons are, by ascending step; an update stands at the last that its run has on its data set.
        dataset: Name of the data set, where it is not said.
        runs: The runs that one update may be of.

    Raises:
        TypeError: If something is no update.
        ValueError: If there are several runs, and it is not said whose the update is.
    """
    last = {(run, name): step for run, name, step in keys}
    if not isinstance(given, Mapping):
        check_update(given)
        if len(runs) > 1:
            raise ValueError(
                f"invariance: expected a mapping from the name of a run, as there are {', '.join(runs[:4])}, to its "
                "update, got one update"
            )
        given = {runs[0] if runs else "update": given}
    found: dict[Key, InvarianceUpdate] = {}
    for run, name, step, update in _flattened(given, dataset):
        check_update(update)
        found[run, name, last.get((run, name), 0) if step is None else step] = update
    return found


def series_of(times: Mapping[Key, float | None]) -> list[dict[str, Any]]:
    """Lay places out as the index lists them, with the time at which each was written, where it is known."""
    series: dict[tuple[str, str], list[list[Any]]] = {}
    for (run, dataset, step), time in times.items():
        series.setdefault((run, dataset), []).append([step, time])
    return [
        {"run": run, "dataset": dataset, "steps": sorted(steps, key=lambda row: row[0])}
        for (run, dataset), steps in series.items()
    ]


def _flattened(given: Mapping[Any, Any], dataset: str) -> Iterator[tuple[str, str, int | None, Any]]:
    for run, below in given.items():
        if not isinstance(run, str) or not run:
            raise TypeError(f"invariance: expected names of runs as keys, got {run!r}")
        if not isinstance(below, Mapping):
            yield run, dataset, None, below
            continue
        for key, update in below.items():
            step = key if isinstance(key, int) and not isinstance(key, bool) else None
            yield run, dataset if step is not None else str(key), step, update
