"""`bc-compare threshold OLD NEW`: what breaks at each threshold of the new model, as text, Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from bc_core.gate._shown import MARKS
from bc_core.predictions._aligned import Joined
from bc_core.promise._threshold import ThresholdCurve, threshold_curve

_LINES = 15
SHOWN = ("nfr", "pfr", "btc", "accuracy_h2")
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
    lines = [f"{'threshold':>12}  {'NFR':>8}  {'PFR':>8}  {'BTC':>8}  {'accuracy':>8}"]
    for threshold, shown, values in _some(curve):
        mark = "  <- recommended" if threshold == curve.recommended else ""
        lines.append(f"{shown:>12}  {'  '.join(f'{value:>8.2%}' for value in values)}{mark}")
    return "\n".join([*lines, *told_of(curve)])


def as_markdown(curve: ThresholdCurve) -> str:
    """The same as a summary of one screen."""
    verdict = verdict_of(curve)
    lines = ["## Thresholds" if verdict is None else f"## {MARKS[verdict]} Thresholds: {verdict}", ""]
    lines += ["| threshold | NFR | PFR | BTC | accuracy | |", "|---|---|---|---|---|---|"]
    for threshold, shown, values in _some(curve):
        mark = "recommended" if threshold == curve.recommended else ""
        lines.append(f"| {shown} | {' | '.join(f'{value:.2%}' for value in values)} | {mark} |")
    return "\n".join([*lines, "", *(f"- {line}" for line in told_of(curve))]).rstrip() + "\n"


def told_of(curve: ThresholdCurve) -> list[str]:
    """Which threshold to take, in words; nothing where no promise was given."""
    if curve.promise is not None and curve.recommended is None:
        return [f"No threshold keeps {curve.promise} for sure on half of the instances"]
    if curve.verdict is not None:
        chosen = f"Recommended: {curve.recommended!r}, chosen on one half of the instances. On the other half:"
        return [chosen, *str(curve.verdict).splitlines()]
    return []


def _some(curve: ThresholdCurve) -> Iterator[tuple[float, str, list[float]]]:
    """Thresholds evenly among all, the most accurate one and the one recommended: it, its text, and its scores."""
    scores = [curve.score(name) for name in SHOWN]
    shown = set(np.unique(np.linspace(0, len(curve.thresholds) - 1, _LINES).astype(int)).tolist())
    shown.add(int(np.argmax(scores[SHOWN.index("accuracy_h2")])))
    if curve.recommended is not None:
        shown.add(int(np.searchsorted(curve.thresholds, curve.recommended)))
    for place in sorted(shown):
        # The last one is above all scores, by less than is shown.
        last = place == len(curve.thresholds) - 1
        text = f">{curve.thresholds[place - 1]:.6g}" if last else f"{curve.thresholds[place]:.6g}"
        yield float(curve.thresholds[place]), text, [float(score[place]) for score in scores]


def as_dict(curve: ThresholdCurve) -> dict[str, Any]:
    """All thresholds, as plain values ready for JSON."""
    scores = {name: [None if np.isnan(v) else v for v in curve.score(name).tolist()] for name in SHOWN}
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


def as_json(curve: ThresholdCurve) -> str:
    """The curve as JSON."""
    return json.dumps(as_dict(curve), indent=2, allow_nan=False) + "\n"
