"""The curve of `bc-compare threshold` as one HTML file: two pictures and a table, without a script or another file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bc_core._texts import in_html
from bc_core.counting._intervals import wilson_interval
from bc_core.counting._scores import SCORES
from bc_core.gate._threshold_command import SHOWN, told_of, verdict_of
from bc_core.promise._threshold import ThresholdCurve

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 290, 64, 16, 32, 44
_STROKE, _LETTER = 28, 6.2
_STEPS = (1, 2, 2.5, 5, 10)
_STYLE = """
:root { color-scheme: light dark;
  --ink: #222; --muted: #60666f; --paper: #fff; --bad: #b3261e; --good: #1a7f37; --acc: #2456a6 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --muted: #a3a9b3; --paper: #16181d; --bad: #ff8a80; --good: #6fcf7f; --acc: #8ab4f8 }
}
body { font: 14px/1.45 system-ui, sans-serif; margin: 16px auto; max-width: 800px; padding: 0 12px;
  color: var(--ink); background: var(--paper) }
h1 { font-size: 20px } h2 { font-size: 15px; margin-bottom: 4px }
svg { width: 100%; height: auto; font: 12px system-ui, sans-serif; fill: var(--ink) }
svg .grid { stroke: var(--muted); stroke-opacity: .3 } svg .curve { fill: none; stroke-width: 2 }
svg .nfr { stroke: var(--bad) } svg .band { fill: var(--bad); fill-opacity: .18; stroke: none }
svg .pfr { stroke: var(--good); stroke-dasharray: 6 3 } svg .acc { stroke: var(--acc) }
svg .mark { stroke: var(--ink); stroke-dasharray: 2 3 } svg .limit { stroke: var(--bad); stroke-dasharray: 1 3 }
svg .old { stroke: var(--muted); stroke-dasharray: 8 4 }
table { border-collapse: collapse } caption { text-align: left }
th, td { text-align: right; padding: 2px 12px 2px 0; border-bottom: 1px solid #8884 }
td { font-variant-numeric: tabular-nums }
summary { cursor: pointer; padding: 8px 0 }
"""


class _Line(NamedTuple):
    """A line of a picture: its style, what it means, and its values or the one that it has everywhere."""

    style: str
    told: str
    values: NDArray[np.float64] | float


def threshold_page(curve: ThresholdCurve, name: str, confidence: float) -> str:
    """The curve as a page.

    Args:
        curve: What `threshold_curve` returned.
        name: What was compared, for the title.
        confidence: Of the band around the negative flip rate.
    """
    total = int(curve.counts[0].sum())
    flips = curve.counts[:, 1, 0].tolist()
    low, high = np.array([wilson_interval(count, total, confidence) for count in flips]).T
    nfr, pfr, accuracy = (curve.score(score) for score in ("nfr", "pfr", "accuracy_h2"))
    limit = next((each.limit for each in curve.promise or () if each.score == "nfr"), None)
    lines = [_Line("nfr", "NFR, what breaks", nfr), _Line("pfr", "PFR, what is repaired", pfr)]
    if limit is not None:
        lines.append(_Line("limit", f"promised: NFR at most {100 * limit:g} %", limit))
    # At the ends everything breaks; what is asked about is small, and would be seen nowhere.
    shown = max(5 * (limit or 0.0), 5 * float(nfr.min()), 1.5 * float(pfr.max()), 10 / total)
    top = min(max(float(nfr.max()), float(pfr.max())), shown)
    cut = "; what is above is cut off" if float(nfr.max()) > top else ""
    old = float(curve.counts[0, 1].sum()) / total
    both = [_Line("acc", "accuracy of h2", accuracy), _Line("old", "accuracy of h1", old)]
    floor = max(0.0, min(old, float(np.median(accuracy))) - 0.05)
    title = f"What breaks at each threshold: {name}"
    pictures = [
        f"<h2>Flips, with {100 * confidence:g} % intervals{cut}</h2>",
        _picture(curve, lines, (0.0, top), "Flip rates over the threshold", (low, high)),
        f"<h2>Accuracy{'; what is below is cut off' if float(accuracy.min()) < floor else ''}</h2>",
        _picture(curve, both, (floor, min(1.0, max(float(accuracy.max()), old) + 0.02)), "Accuracy over the threshold"),
    ]
    said = "".join(f"<p>{in_html(line)}</p>" for line in told_of(curve))
    verdict = verdict_of(curve)
    heading = title if verdict is None else f"{verdict.capitalize()}: {title}"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{in_html(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><main><h1>{in_html(heading)}</h1>"
        f"<p>{total} instances; h2 says class 1 where its score is at least the threshold.</p>{said}"
        f"{''.join(pictures)}{_table(curve)}</main></body></html>\n"
    )


def _picture(
    curve: ThresholdCurve,
    lines: Sequence[_Line],
    ends: tuple[float, float],
    told: str,
    band: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
) -> str:
    left, right = float(curve.thresholds[0]), float(curve.thresholds[-1])
    low, high = ends[0], max(ends[1], ends[0] + 1e-9)
    wide, tall = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(value: float) -> float:
        return _LEFT + wide * (value - left) / ((right - left) or 1.0)

    def y(value: float) -> float:
        return _TOP + tall * (1 - (value - low) / (high - low))

    def path(values: NDArray[np.float64]) -> str:
        return " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(curve.thresholds, values, strict=True))

    area = told.split(maxsplit=1)[0].lower()
    parts = [f'<clipPath id="{area}"><rect x="{_LEFT}" y="{_TOP}" width="{wide}" height="{tall}"/></clipPath>']
    for value in _ticks(low, high):
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
        )
        parts.append(
            f'<text x="{_LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{round(100 * value, 6):g} %</text>'
        )
    parts += [
        f'<text x="{x(value):.1f}" y="{_TOP + tall + 18}" text-anchor="middle">{round(value, 9):g}</text>'
        for value in _ticks(left, right)
    ]
    parts.append(f'<text x="{_LEFT + wide / 2}" y="{_HEIGHT - 6}" text-anchor="middle">threshold of h2</text>')
    parts.append(f'<g clip-path="url(#{area})">')
    if band is not None:
        edge = " ".join([path(band[0]), *reversed(path(band[1]).split())])
        parts.append(f'<polygon class="band" points="{edge}"/>')
    for line in lines:
        values = np.broadcast_to(line.values, curve.thresholds.shape)
        parts.append(f'<polyline class="curve {line.style}" points="{path(values)}"/>')
    if curve.recommended is not None:
        place = f"{x(curve.recommended):.1f}"
        parts.append(f'<line class="mark" x1="{place}" x2="{place}" y1="{_TOP}" y2="{_TOP + tall}"/>')
    parts.append("</g>")
    marked = [_Line("mark", "recommended", 0.0)] if curve.recommended is not None else []
    place_of_line = float(_LEFT)
    for line in [*lines, *marked]:
        ends_at = place_of_line + _STROKE
        parts.append(f'<line class="curve {line.style}" x1="{place_of_line}" x2="{ends_at}" y1="14" y2="14"/>')
        parts.append(f'<text x="{ends_at + 6}" y="18">{in_html(line.told)}</text>')
        place_of_line = ends_at + 24 + _LETTER * len(line.told)
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{in_html(told)}">{"".join(parts)}</svg>'


def _ticks(low: float, high: float) -> Iterator[float]:
    """Four to eight round numbers."""
    rough = (high - low) / 5 or 1.0
    power = 10.0 ** np.floor(np.log10(rough))
    step = power * next(each for each in _STEPS if each * power >= rough)
    yield from (np.arange(np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9) + 1) * step + 0.0).tolist()


def _table(curve: ThresholdCurve) -> str:
    scores = [curve.score(score) for score in SHOWN]
    head = "".join(f"<th>{in_html(SCORES[score].title)}</th>" for score in SHOWN)
    rows = "".join(
        f"<tr><td>{threshold:.6g}</td>{''.join(f'<td>{score[place]:.2%}</td>' for score in scores)}</tr>"
        for place, threshold in enumerate(curve.thresholds.tolist())
    )
    return (
        f"<details><summary>All {len(curve.thresholds)} thresholds</summary>"
        f"<table><tr><th>threshold</th>{head}</tr>{rows}</table></details>"
    )
