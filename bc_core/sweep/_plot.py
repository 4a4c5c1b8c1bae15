"""The picture of a sweep: performance of h2 against its compatibility with h1."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bc_core._figure import DARK, LIGHT, Theme, dress, finish, new_figure, percent
from bc_core.counting._overlap import ErrorOverlap
from bc_core.counting._scores import SCORES
from bc_core.sweep._choice import front

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

# On light, on dark; the first two are those of the demos.
_COLOURS = (
    ("#1f6fc4", "#6cb0ff"),
    ("#c2570c", "#ff9d4d"),
    ("#13795b", "#5fd3a8"),
    ("#8a3ab9", "#cf9bf2"),
    ("#a8871b", "#e8cb5c"),
    ("#b3244d", "#ff8aa6"),
    ("#4a5a6a", "#b8c4d0"),
    ("#0d7f8c", "#66d5e2"),
)
_MARKERS = "os^DvP*X"
_PLAIN_MARKER = "h"
# What h1 has, by what h2 has.
_OF_H1 = {"accuracy_h2": "accuracy_h1", "performance_h2": "performance_h1"}
_DATASET_NAMES = {"train": "training data", "val": "validation data", "test": "test data"}

Box = tuple[float, float, float, float]


class _Mark(NamedTuple):
    """A point that gets a label."""

    x: float
    y: float
    text: str
    colour: str


def tradeoff(
    means: Sequence[dict[str, Any]],
    rows: Sequence[dict[str, Any]],
    score: str,
    performance: str,
    dataset: str,
    path: str | os.PathLike[str] | None,
    dark: bool,
) -> Figure:
    """Draw a line for each loss over lambda_c, with h1 and the Pareto front.

    Args:
        means: A row for each loss and lambda_c: mean and standard deviation over the seeds.
        rows: A row for each seed, with the counts that intervals are made of.
        score: What compatibility is; better is on the right.
        performance: What performance is.
        dataset: Name of the data set, for the axes.
        path: File to write, its kind by its ending; missing folders are made.
        dark: For a dark page.

    Raises:
        ImportError: matplotlib is not installed.
    """
    theme = DARK if dark else LIGHT
    figure = new_figure(theme, 8, 5)
    axes = figure.subplots()
    _dress(axes, theme, score, performance, _DATASET_NAMES.get(dataset, f"data set {dataset!r}"))

    means, rows = ([_by_what_it_was_held_to(row) for row in each] for each in (means, rows))
    known = [row for row in means if not (math.isnan(row[score]) or math.isnan(row[performance]))]
    # A score that has no better direction has no front.
    best = front(known, score, performance) if SCORES[score].higher_is_better is not None else []
    several = any(row["seeds"] > 1 for row in known)
    marks = _draw_losses(axes, theme, known, best, rows, score, performance, several)
    if len(best) > 1:
        places = [(row[score], row[performance]) for row in best]
        axes.plot(*zip(*places, strict=True), color=theme.front, lw=9, alpha=0.45, zorder=1, solid_capstyle="round")
        axes.plot([], [], color=theme.front, lw=9, alpha=0.45, solid_capstyle="round", label="Pareto front")
    axes.margins(0.07, 0.09)
    told = _draw_h1(axes, theme, rows, performance)
    if SCORES[score].higher_is_better is False:
        axes.invert_xaxis()
    _set_ticks(axes, score, performance)
    axes.set_title(_caption(rows, score, performance, several), loc="left", fontsize=9, color=theme.muted)
    handles, names = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        names,
        loc="outside lower center",
        ncols=min(4, max(1, len(names))),
        frameon=False,
        fontsize=10,
        labelcolor=theme.ink,
    )
    _label(figure, axes, theme, marks, told)
    return finish(figure, path)


def _dress(axes: Axes, theme: Theme, score: str, performance: str, where: str) -> None:
    """Colours and names."""
    dress(axes, theme)
    better = {True: ", higher is better", False: ", lower is better", None: ""}[SCORES[score].higher_is_better]
    title = "Performance of h2" if performance == "performance_h2" else SCORES[performance].title
    axes.set_xlabel(f"{SCORES[score].title} on the {where}{better}", color=theme.ink, fontsize=11)
    axes.set_ylabel(f"{title} on the {where}", color=theme.ink, fontsize=11)


def _draw_losses(
    axes: Axes,
    theme: Theme,
    known: Sequence[dict[str, Any]],
    best: Sequence[dict[str, Any]],
    rows: Sequence[dict[str, Any]],
    score: str,
    performance: str,
    several: bool,
) -> list[_Mark]:
    """The lines, their bars and points; returns what is to be labelled."""
    losses = list(dict.fromkeys(row["loss"] for row in known))
    on_front = {(row[score], row[performance]) for row in best}
    at_zero = list(dict.fromkeys(row["loss"] for row in known if row["lambda_c"] == 0))
    marks: list[_Mark] = []
    shared: set[tuple[float, float, float]] = set()
    for number, loss in enumerate(losses):
        colour = _COLOURS[number % len(_COLOURS)][theme.dark]
        members = sorted((row for row in known if row["loss"] == loss), key=lambda row: row["lambda_c"])
        x, y = [row[score] for row in members], [row[performance] for row in members]
        marker = _MARKERS[number % len(_MARKERS)]
        axes.plot(x, y, color=colour, lw=1.8, zorder=3, marker=marker, ms=0, label="_line")
        for row in members:
            bars = {
                "xerr": _bar(row, rows, score, several),
                "yerr": _bar(row, rows, performance, several),
            }
            axes.errorbar(
                row[score], row[performance], **bars, fmt="none", ecolor=colour, alpha=0.4, elinewidth=1, zorder=2
            )
            place = (row["lambda_c"], row[score], row[performance])
            # Plain training is one and the same point of all losses.
            plain = len(at_zero) > 1 and row["lambda_c"] == 0 and _is_shared(known, row, score, performance, at_zero)
            if plain and place in shared:
                continue
            shared.add(place)
            dye = theme.ink if plain else colour
            axes.plot(
                [row[score]],
                [row[performance]],
                marker=_PLAIN_MARKER if plain else marker,
                ms=9 if plain else 7.5,
                mew=1.8,
                mec=dye,
                mfc=dye if (row[score], row[performance]) in on_front else theme.paper,
                ls="none",
                zorder=5 if plain else 4,
            )
            marks.append(_Mark(row[score], row[performance], row.get("promise") or f"{row['lambda_c']:g}", dye))
        # For the legend: the line with a filled point.
        axes.plot([], [], color=colour, lw=1.8, marker=marker, ms=7, label=loss.replace("_", " "))
    if shared and any(mark.colour == theme.ink for mark in marks):
        axes.plot([], [], color=theme.ink, marker=_PLAIN_MARKER, ms=8, ls="none", label="plain training")
    return marks


def _by_what_it_was_held_to(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose loss tells that promises moved its lambda_c: its points are no line over lambda_c."""
    return row if row.get("promise") is None else row | {"loss": f"{row['loss']}, promised"}


def _is_shared(
    known: Sequence[dict[str, Any]], row: dict[str, Any], score: str, performance: str, losses: Sequence[str]
) -> bool:
    twins = {
        other["loss"]
        for other in known
        if (other["lambda_c"], other[score], other[performance]) == (row["lambda_c"], row[score], row[performance])
    }
    return len(twins) == len(losses)


def _draw_h1(axes: Axes, theme: Theme, rows: Sequence[dict[str, Any]], performance: str) -> Text | None:
    """The line of h1, with its label; where it lies so far off that it would flatten all else, only the label."""
    from matplotlib.patheffects import withStroke

    name = _OF_H1.get(performance)
    values = [row[name] for row in rows if name in row and not math.isnan(row[name])]
    if not values:
        return None
    level = float(np.mean(values))
    told = f"h1: {level:.4g}" if performance == "performance_h2" else f"h1: {percent(round(level, 4))}"
    low, high = axes.dataLim.intervaly
    reach = 1.5 * (high - low)
    style: dict[str, Any] = {"fontsize": 9.5, "color": theme.muted, "zorder": 6}
    style["path_effects"] = [withStroke(linewidth=3, foreground=theme.paper)]
    if reach == 0 or low - reach <= level <= high + reach:
        axes.axhline(level, color=theme.muted, ls=(0, (5, 3)), lw=1.4, zorder=1.5)
        at = (0.0, level)
        return axes.annotate(told, at, (5, 3), axes.get_yaxis_transform(), "offset points", **style)
    below = level < low
    place, side, arrow = (0.015, "bottom", "below ↓") if below else (0.985, "top", "above ↑")
    return axes.text(0.01, place, f"{told}, {arrow}", va=side, transform=axes.transAxes, **style)


def _bar(row: dict[str, Any], rows: Sequence[dict[str, Any]], name: str, several: bool) -> Any:
    """How far a bar reaches below and above the point; None for no bar."""
    if several:
        spread = row[f"{name}_sd"]
        return None if math.isnan(spread) else spread
    key = ("loss", "lambda_c", "promise")
    [single] = [one for one in rows if all(one.get(name) == row.get(name) for name in key)]
    overlap = _overlap_of(single) if name in SCORES else None
    if overlap is None:
        return None
    low, high = overlap.interval(name)
    value = row[name]
    return [[max(0.0, value - low)], [max(0.0, high - value)]]


def _overlap_of(row: dict[str, Any]) -> ErrorOverlap | None:
    """The 2x2 table of a row of the table of results, or None where its columns tell too little."""
    if not {"instances", "negative_flips", "accuracy_h1", "accuracy_h2"} <= row.keys():
        return None
    total, flips = row["instances"], row["negative_flips"]
    h1_right, h2_right = round(row["accuracy_h1"] * total), round(row["accuracy_h2"] * total)
    both = h1_right - flips
    return ErrorOverlap([[[total - h2_right - flips, h2_right - both], [flips, both]]])


def _caption(rows: Sequence[dict[str, Any]], score: str, performance: str, several: bool) -> str:
    told = r"Numbers are $\lambda_c$."
    if SCORES[score].higher_is_better is not None:
        told = r"Numbers are $\lambda_c$; filled points are on the Pareto front."
    if several:
        seeds = len({row["seed"] for row in rows})
        return f"{told} Bars: ± standard deviation over up to {seeds} seeds."
    sizes = {row["instances"] for row in rows if "instances" in row}
    if len(sizes) == 1:
        return f"{told} Bars: 95 % intervals, of {sizes.pop()} instances."
    return told


def _set_ticks(axes: Axes, score: str, performance: str) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    for axis, name in ((axes.xaxis, score), (axes.yaxis, performance)):
        axis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
        if name in SCORES:
            axis.set_major_formatter(FuncFormatter(percent))


# Labels


def _label(figure: Figure, axes: Axes, theme: Theme, marks: Sequence[_Mark], told: Text | None) -> None:
    """Write lambda_c beside each point where it covers no other label, and as little else as may be."""
    from matplotlib.collections import LineCollection
    from matplotlib.font_manager import FontProperties
    from matplotlib.patheffects import withStroke
    from matplotlib.textpath import TextPath

    figure.draw_without_rendering()
    # In typographic points, so that it holds at every resolution.
    scale = 72 / figure.dpi
    font = FontProperties(size=9.5)

    def place(x: float, y: float) -> NDArray[np.float64]:
        return np.asarray(axes.transData.transform((x, y)), dtype=np.float64) * scale

    frame = np.asarray(axes.bbox.extents) * scale
    lines = [
        np.array([place(x, y) for x, y in np.asarray(line.get_xydata())])
        for line in axes.lines
        if line.get_zorder() == 3
    ]
    bars = [
        np.array([place(x, y) for x, y in np.asarray(segment)])
        for collection in axes.collections
        if isinstance(collection, LineCollection)
        for segment in collection.get_segments()
    ]
    at = [place(mark.x, mark.y) for mark in marks]
    labels = _merged(marks, at)
    placed: list[Box] = []
    if told is not None:
        left, bottom, right, top = np.asarray(told.get_window_extent().extents) * scale
        placed.append((left, bottom, right, top))
    for text, mark, centre in labels:
        size = TextPath((0, 0), text, prop=font).get_extents()
        width, height = float(size.width) + 3, 9.5
        options = []
        for rank, (reach, angle) in enumerate(
            (reach, angle) for reach in (8.5, 16.0, 26.0, 37.0) for angle in np.arange(8) * math.pi / 4 + math.pi / 4
        ):
            dx, dy = math.cos(angle), math.sin(angle)
            middle = centre + np.array([dx * (reach + width / 2), dy * (reach + height / 2)])
            box = (middle[0] - width / 2, middle[1] - height / 2, middle[0] + width / 2, middle[1] + height / 2)
            cost = rank * 0.12 + reach * 0.1
            # Worst another label, then a point, a line, a bar.
            cost += 1000 * sum(_meet(box, other) for other in placed)
            cost += 60 * sum(_meet(box, (x - 5, y - 5, x + 5, y + 5)) for x, y in at)
            cost += 4 * sum(_crossings(box, line) for line in lines)
            cost += 0.8 * sum(_crossings(box, bar) for bar in bars)
            cost += 1000 * (box[0] < frame[0] or box[1] < frame[1] or box[2] > frame[2] or box[3] > frame[3])
            options.append((cost, rank, reach, middle, box))
        cost, _, reach, middle, box = min(options, key=lambda option: option[:2])
        if cost >= 1000:
            # No room: better no label than two that cannot be read.
            continue
        placed.append(box)
        axes.annotate(
            text,
            xy=(mark.x, mark.y),
            xytext=tuple(middle - centre),
            textcoords="offset points",
            ha="center",
            va="center_baseline",
            fontproperties=font,
            color=mark.colour,
            zorder=6,
            annotation_clip=False,
            path_effects=[withStroke(linewidth=3, foreground=theme.paper)],
            arrowprops={"arrowstyle": "-", "color": mark.colour, "lw": 0.7, "alpha": 0.7, "shrinkA": 0, "shrinkB": 4}
            if reach > 8.5
            else None,
        )


def _merged(marks: Sequence[_Mark], at: Sequence[NDArray[np.float64]]) -> list[tuple[str, _Mark, NDArray[np.float64]]]:
    """Points of one line that lie on one another get one label."""
    labels: list[tuple[list[str], _Mark, NDArray[np.float64]]] = []
    for mark, centre in zip(marks, at, strict=True):
        for texts, first, other in labels:
            if first.colour == mark.colour and np.abs(centre - other).max() < 5:
                texts.append(mark.text)
                break
        else:
            labels.append(([mark.text], mark, centre))
    return [(", ".join(texts), mark, centre) for texts, mark, centre in labels]


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _crossings(box: Box, line: NDArray[np.float64]) -> int:
    """How much of a line runs through a box: of points along it, those inside."""
    if len(line) < 2:
        return 0
    share = np.linspace(0, 1, 40)[:, None, None]
    along = (line[:-1] * (1 - share) + line[1:] * share).reshape(-1, 2)
    inside = (along[:, 0] > box[0]) & (along[:, 0] < box[2]) & (along[:, 1] > box[1]) & (along[:, 1] < box[3])
    return int(min(3, inside.sum()))
