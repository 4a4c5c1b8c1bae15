"""`bc-compare threshold OLD NEW`: what breaks at each threshold of the new model, as text and JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from bc_core.files._files import write_whole
from bc_core.predictions._aligned import Joined
from bc_core.promise._threshold import ThresholdCurve, threshold_curve

_LINES = 15
_SCORES = ("nfr", "pfr", "btc", "accuracy_h2")
_STATUS = {"met": "pass", "missed": "fail", "cannot be told": "inconclusive"}


def curve_of(joined: Joined, promise: list[str] | None, confidence: float) -> ThresholdCurve:
    """The curve of two files of predictions.

    Raises:
        ValueError: The new one has no scores, or there are more than two classes.
    """
    if joined.new_scores is None:
        raise ValueError("the new model's file has labels and no scores to put a threshold to; name them by --scores")
    return threshold_curve(joined.target, joined.h1_pred, joined.new_scores, promise=promise, confidence=confidence)


def verdict_of(curve: ThresholdCurve) -> str | None:
    """Pass, fail or inconclusive; None without a promise."""
    if curve.promise is None:
        return None
    return "fail" if curve.verdict is None else _STATUS[curve.verdict.verdict]


def as_text(curve: ThresholdCurve) -> str:
    """Some of the thresholds, and the one to take."""
    scores = {name: curve.score(name) for name in _SCORES}
    shown = set(np.unique(np.linspace(0, len(curve.thresholds) - 1, _LINES).astype(int)).tolist())
    shown.add(int(np.argmax(scores["accuracy_h2"])))
    if curve.recommended is not None:
        shown.add(int(np.searchsorted(curve.thresholds, curve.recommended)))
    lines = [f"{'threshold':>12}  {'NFR':>8}  {'PFR':>8}  {'BTC':>8}  {'accuracy':>8}"]
    for place in sorted(shown):
        threshold = float(curve.thresholds[place])
        values = "  ".join(f"{scores[name][place]:>8.2%}" for name in _SCORES)
        mark = "  <- recommended" if threshold == curve.recommended else ""
        lines.append(f"{threshold:>12.6g}  {values}{mark}")
    if curve.promise is not None and curve.recommended is None:
        lines.append(f"No threshold keeps {curve.promise} for sure on half of the instances")
    elif curve.verdict is not None:
        lines.append(f"Recommended: {curve.recommended!r}, chosen on one half of the instances. On the other half:")
        lines.append(str(curve.verdict))
    return "\n".join(lines)


def as_dict(curve: ThresholdCurve) -> dict[str, Any]:
    """All thresholds, as plain values ready for JSON."""
    scores = {name: [None if np.isnan(v) else v for v in curve.score(name).tolist()] for name in _SCORES}
    return {
        "format": "backward-compat-thresholds",
        "version": 1,
        "verdict": verdict_of(curve),
        "promise": None if curve.promise is None else str(curve.promise),
        "recommended": curve.recommended,
        "thresholds": curve.thresholds.tolist(),
        "counts": curve.counts.tolist(),
        **scores,
    }


def write_json(path: str, curve: ThresholdCurve) -> None:
    """Write the curve to a file.

    Raises:
        OSError: It cannot be written.
    """
    write_whole(Path(path), (json.dumps(as_dict(curve), indent=2, allow_nan=False) + "\n").encode())
