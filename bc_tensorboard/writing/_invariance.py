"""An invariance update as the dashboard gets it: one small document of counts, NV by layer, and rows of heat maps."""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core.invariance import InvarianceResult, InvarianceUpdate
from bc_core.invariance._charts import Order, heat_difference, heat_row, scale_end, transformation_groups
from bc_tensorboard.plugin._collection import NotShownError

VERSION = 1
TAG = "invariance"
# A cell of a row is one byte: this one is dead, the others are steps of the scale.
_DEAD = 255
_STEPS = 254
# Cells of all rows together, which bounds the document however many layers there are.
_MOST_CELLS = 60_000
_LARGEST = 64 << 20

Floats = NDArray[np.float64]
Key = tuple[str, str, int]


def encode_invariance(update: InvarianceUpdate, order: Order = "sorted") -> bytes:
    """Pack an update: JSON, compressed.

    A heat map of a layer is a row of at most 128 cells, so fifty layers and twenty transformations take about 20 KB.

    Args:
        update: What `compare_predictions` or `compare_invariance` returned.
        order: Of features within a layer: `"sorted"` from invariant to sensitive, or `"index"`.
    """
    return zlib.compress(invariance_json(update, order), 6)


def invariance_json(update: InvarianceUpdate, order: Order = "sorted") -> bytes:
    """The JSON of an update, as the dashboard reads it; see `encode_invariance`."""
    return json.dumps(_document(update, order), allow_nan=False, separators=(",", ":")).encode("utf-8")


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


def check_update(update: Any) -> None:
    """Refuse what is no invariance update."""
    if not isinstance(update, InvarianceUpdate):
        raise TypeError(
            "update: expected what compare_invariance or bc_core.invariance.compare_predictions returns, got "
            f"{type(update).__name__}"
        )


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


def _document(update: InvarianceUpdate, order: Order) -> dict[str, Any]:
    check_update(update)
    groups = transformation_groups(update.transforms, update.sizes, update.identity)
    document = {
        "version": VERSION,
        "samples": update.samples,
        "transforms": update.transforms,
        "identity": update.identity,
        "groups": [
            {"kind": group.kind, "axis": group.axis, "members": group.members, "sizes": group.sizes} for group in groups
        ],
        "consistency": [overlap.counts.sum(axis=0).ravel().tolist() for overlap in update.consistency],
        "overlaps": None
        if update.overlaps is None
        else [overlap.counts.sum(axis=0).ravel().tolist() for overlap in update.overlaps],
        # Over all pairs, of which those of one sample go together: this interval cannot be read from the counts.
        "overall": {
            name: [_short(value) for value in (getattr(update, name), *update.interval(name))]
            for name in ("consistency_h1", "consistency_h2", "negative_flip_rate")
        },
        "depth": None,
    }
    if update.h1 is not None and update.h2 is not None:
        document["depth"] = _depth(update, update.h1, update.h2, order)
    return document


def _depth(update: InvarianceUpdate, h1: InvarianceResult, h2: InvarianceResult, order: Order) -> dict[str, Any]:
    table = update.depth_table()
    most = max(8, min(128, _MOST_CELLS // (3 * len(table))))
    drawn: list[dict[str, Floats | None]] = []
    for row in table:
        name = row["layer"]
        rows: dict[str, Floats | None] = {
            which: heat_row(of[name], "feature", update.statistic, order, most) if name in of else None
            for which, of in (("h1", h1), ("h2", h2))
        }
        both = rows["h1"] is not None and rows["h2"] is not None
        rows["difference"] = (
            heat_difference(h1[name], h2[name], "feature", update.statistic, order, most) if both else None
        )
        drawn.append(rows)
    end, beyond = scale_end(one for rows in drawn for name in ("h1", "h2") if (one := rows[name]) is not None)
    reach, farther = scale_end(one for rows in drawn if (one := rows["difference"]) is not None)
    return {
        "kind": h1.kind,
        "statistic": update.statistic,
        "how": update.how,
        "confidence": update.confidence,
        "order": order,
        "end": _short(end),
        "beyond": beyond,
        "reach": _short(reach),
        "farther": farther,
        "layers": [
            {
                "name": row["layer"],
                "depth": [None if row[f"depth_{which}"] is None else _short(row[f"depth_{which}"]) for which in _BOTH],
                "nv": [_triple(row[which], row[f"{which}_interval"]) for which in _BOTH],
                "difference": _triple(row["difference"], row["difference_interval"]),
                "features": [of[row["layer"]].features if row["layer"] in of else None for of in (h1, h2)],
                "dead": [_short(of[row["layer"]].dead_fraction) if row["layer"] in of else None for of in (h1, h2)],
                "heat": [_bytes(cells["h1"], 0, end), _bytes(cells["h2"], 0, end)],
                "change": _bytes(cells["difference"], -reach, reach),
            }
            for row, cells in zip(table, drawn, strict=True)
        ],
    }


_BOTH = ("h1", "h2")


def _triple(value: float, interval: Any) -> list[float | None] | None:
    """A value with its interval, or without; None where there is no value."""
    if math.isnan(value):
        return None
    if interval is None or not all(map(math.isfinite, interval)):
        return [_short(value), None, None]
    return [_short(value), *(_short(bound) for bound in interval)]


def _short(value: float) -> float:
    """Five digits, as nothing here is known better."""
    return float(f"{value:.5g}")


def _bytes(row: Floats | None, low: float, high: float) -> str | None:
    if row is None:
        return None
    scaled = np.clip((np.nan_to_num(row) - low) / (high - low), 0, 1) * _STEPS
    cells = np.where(np.isnan(row), _DEAD, np.rint(scaled)).astype(np.uint8)
    return base64.b64encode(cells.tobytes()).decode("ascii")
