"""An invariance update as the dashboard gets it: one small document of counts, NV by layer, and rows of heat maps."""

from __future__ import annotations

import base64
import json
import math
import zlib
from typing import Any

import numpy as np

from bc_core.invariance import InvarianceResult, InvarianceUpdate
from bc_core.invariance._accumulator import Floats
from bc_core.invariance._charts import Order, heat_difference, heat_row, scale_end, transformation_groups

VERSION = 1
# A cell of a row is one byte: this one is dead, the others are steps of the scale.
_DEAD = 255
_STEPS = 254
# Cells of all rows together, which bounds the document however many layers there are.
_MOST_CELLS = 60_000


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


def check_update(update: Any) -> None:
    """Refuse what is no invariance update."""
    if not isinstance(update, InvarianceUpdate):
        raise TypeError(
            "update: expected what compare_invariance or bc_core.invariance.compare_predictions returns, got "
            f"{type(update).__name__}"
        )


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
