"""The lines of invariance: NV of h1 and h2 by depth, and scores over the transformation's size."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bc_core._figure import DARK, LIGHT, Theme, dress, finish, new_figure, percent
from bc_core.invariance._charts import (
    CONSISTENCY_SCORES,
    Group,
    Point,
    curve,
    told_size,
    transformation_groups,
)
from bc_core.invariance._drawing import (
    BETTER,
    H1,
    H2,
    KINDS,
    WORSE,
    legend,
    short,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bc_core.invariance._update import InvarianceUpdate


class _Line(NamedTuple):
    score: str
    label: str
    colour: tuple[str, str]
    marker: str


class _Panel(NamedTuple):
    title: str
    better: str
    lines: tuple[_Line, ...]
    labels: bool


_PANELS = (
    _Panel(
        "Accuracy",
        "higher is better",
        (_Line("accuracy_h1", "h1", H1, "s"), _Line("accuracy_h2", "h2", H2, "o")),
        True,
    ),
    _Panel("BTC", "higher is better", (_Line("btc", "BTC", BETTER, "D"),), True),
    _Panel(
        "Consistency",
        "higher is better",
        (_Line("consistency_h1", "h1", H1, "s"), _Line("consistency_h2", "h2", H2, "o")),
        False,
    ),
    _Panel(
        "Negative flips",
        "lower is better",
        (
            _Line("nfr", "NFR", WORSE, "v"),
            _Line("negative_flip_rate", "of invariance", ("#a8871b", "#e8cb5c"), "^"),
        ),
        False,
    ),
)


def depth(update: InvarianceUpdate, path: str | os.PathLike[str] | None = None, dark: bool = False) -> Figure:
    """Draw NV of every layer of h1 and h2 over depth, and the difference with its paired interval below.

    Args:
        update: An update of which the layers were measured.
        path: File to write, its kind by its ending; missing folders are made.
        dark: For a dark page.

    Returns:
        The figure. Layers stand by name where both networks have the same, else at their share of the depth.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If only predictions were compared.
    """
    table = update.depth_table()
    assert update.h1 is not None  # as depth_table found
    assert update.h2 is not None
    theme = DARK if dark else LIGHT
    same = update.h1.layer_names == update.h2.layer_names
    paired = any(not math.isnan(row["difference"]) for row in table)
    names = [short(row["layer"]) for row in table]
    width = min(14.0, max(8.0, 2.5 + 0.2 * len(names)))
    tilt, every = _tilt(names, width) if same else (0, 1)
    # What tilted names take is not to be taken from the curves.
    below = 0.0 if tilt == 0 else 0.06 * max(map(len, names)) * (1.0 if tilt == 90 else 0.7)
    figure = new_figure(theme, width, (5.6 if paired else 4.4) + below)
    heights = {"height_ratios": [1.7, 1]} if paired else None
    axes = figure.subplots(2 if paired else 1, 1, sharex=True, squeeze=False, gridspec_kw=heights)[:, 0]
    many = len(table) > 30
    _draw_depths(axes[0], theme, table, same, many)
    axes[0].set_ylabel(KINDS[update.h1.kind], color=theme.ink, fontsize=11)
    told = f"{told_size(update.h1)}. Spread: {update.statistic}, {update.how.replace('_', ' ')}."
    if any(row["h1_interval"] or row["h2_interval"] for row in table):
        told += f" Bands and bars: {100 * update.confidence:g} % intervals."
    axes[0].set_title(told, loc="left", fontsize=9, color=theme.muted)
    if paired:
        _draw_difference(axes[1], theme, table, same, many)
    last = axes[-1]
    if same:
        last.set_xticks(
            range(0, len(names), every),
            names[::every],
            rotation=tilt,
            ha="right" if tilt == 45 else "center",
            rotation_mode="anchor" if tilt == 45 else "default",
            fontsize=9 if len(names) <= 25 else 8,
        )
        last.set_xlim(-0.5, len(names) - 0.5)
        last.set_xlabel("layers, first to last", color=theme.ink, fontsize=10)
    else:
        last.set_xticks([0, 0.25, 0.5, 0.75, 1], ["first layer", "¼", "½ of the depth", "¾", "last layer"])
    return finish(figure, path)


def _draw_depths(axes: Axes, theme: Theme, table: Sequence[dict[str, Any]], same: bool, many: bool) -> None:
    """NV of h1 and h2, layer by layer."""
    for which, colour, marker in (("h1", H1, "s"), ("h2", H2, "o")):
        places = range(len(table)) if same else [row[f"depth_{which}"] for row in table]
        found = sorted(
            (place, row[which], row[f"{which}_interval"])
            for place, row in zip(places, table, strict=True)
            if place is not None and not math.isnan(row[which])
        )
        if not found:
            continue
        points = [Point(value, *(interval or (math.nan, math.nan))) for _, value, interval in found]
        _line(axes, theme, [place for place, _, _ in found], points, which, colour, marker, many)
    dress(axes, theme)
    # 1 is what there is to compare with, where that does not flatten the curves.
    if axes.dataLim.y1 > 0.6:
        axes.axhline(1, color=theme.muted, ls=(0, (5, 3)), lw=1.2, zorder=1.5)
    axes.set_ylim(bottom=0)
    axes.margins(y=0.08)
    legend(axes, theme)


def curves(
    update: InvarianceUpdate,
    path: str | os.PathLike[str] | None = None,
    dark: bool = False,
    *,
    confidence: float = 0.95,
) -> Figure:
    """Draw accuracy, BTC, consistency and negative flips against how far a transformation goes.

    Args:
        update: The update.
        path: File to write, its kind by its ending; missing folders are made.
        dark: For a dark page.
        confidence: Coverage of the intervals, which are Wilson's.

    Returns:
        The figure: a column for each kind of transformation, as an angle and a shift have no common axis;
        transformations without a size stand by name. Without labels there are only consistency and invariance negative
        flips.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    theme = DARK if dark else LIGHT
    groups = transformation_groups(update.transforms, update.sizes, update.identity)
    panels = [panel for panel in _PANELS if update.overlaps is not None or not panel.labels]
    # One kind: the panels side by side, two by two.
    alone = len(groups) == 1
    columns = 2 if alone else len(groups)
    grid = [(panel, group) for panel in panels for group in groups]
    lines = -(-len(grid) // columns)
    figure, axes = _curves_figure(theme, groups, lines, columns, update.transforms)
    for number, (panel, group) in enumerate(grid):
        row, column = divmod(number, columns)
        place = axes[row][column]
        drawn = [line for line in panel.lines if update.overlaps is not None or line.score in CONSISTENCY_SCORES]
        for index, line in enumerate(drawn):
            aside = 0.16 * (index - (len(drawn) - 1) / 2)
            _draw_curve(place, theme, group, curve(update, line.score, confidence), line, aside)
        dress(place, theme)
        if column == 0 or alone:
            place.set_title(f"{panel.title}, {panel.better}", loc="left", fontsize=10, color=theme.ink)
        if row == lines - 1:
            _size_axis(place, theme, group, update.transforms)
        if (column == columns - 1 or alone) and (len(drawn) > 1 or panel.title != drawn[0].label):
            _legend_above(place, theme)
    for number in range(len(grid)):
        _percent_axis(axes[number // columns][number % columns])
    figure.suptitle(
        f"{update.samples:,} samples; {100 * confidence:g} % intervals",
        fontsize=9,
        color=theme.muted,
        x=0.01,
        ha="left",
    )
    return finish(figure, path)


def _curves_figure(
    theme: Theme, groups: Sequence[Group], lines: int, columns: int, names: Sequence[str]
) -> tuple[Figure, Any]:
    """A figure with a column for each kind of transformation, or two of one kind."""
    alone = len(groups) == 1
    named = [short(names[number], 36) for group in groups if group.sizes is None for number in group.members]
    below = 0.06 * max(map(len, named), default=0)
    widths = [max(1.0, 0.045 * len(group.members)) if group.sizes is None else 1.0 for group in groups]
    width = min(15.0, (4.4 if columns < 3 else 3.7) * (2.0 if alone else sum(widths)) + 0.4)
    figure = new_figure(theme, width, 2.35 * lines + 0.5 + below)
    axes = figure.subplots(
        lines,
        columns,
        squeeze=False,
        sharex="col",
        sharey=False if alone else "row",
        gridspec_kw=None if alone else {"width_ratios": widths},
    )
    return figure, axes


def _draw_difference(axes: Axes, theme: Theme, table: Sequence[dict[str, Any]], same: bool, many: bool) -> None:
    dress(axes, theme)
    axes.axhline(0, color=theme.muted, lw=1.2, zorder=1.5)
    used = dict.fromkeys(("worse", "better", "open"), False)
    for number, row in enumerate(table):
        value, interval = row["difference"], row["difference_interval"]
        if math.isnan(value):
            continue
        told = interval is not None and (interval[0] > 0 or interval[1] < 0)
        kind = "open" if not told else "worse" if value > 0 else "better"
        used[kind] = True
        colour = theme.muted if kind == "open" else (WORSE if kind == "worse" else BETTER)[theme.dark]
        place = number if same else row["depth_h2"]
        bars = None
        if interval is not None and not math.isnan(interval[0]):
            bars = [[max(0.0, value - interval[0])], [max(0.0, interval[1] - value)]]
        axes.errorbar(
            place,
            value,
            yerr=bars,
            fmt="o",
            ms=3.5 if many else 6,
            color=colour,
            mfc=theme.paper if kind == "open" else colour,
            elinewidth=1.2 if many else 1.6,
            zorder=3,
        )
    for kind, label in (
        ("worse", "h2 less invariant"),
        ("better", "h2 more invariant"),
        ("open", "not told apart"),
    ):
        if used[kind]:
            colour = theme.muted if kind == "open" else (WORSE if kind == "worse" else BETTER)[theme.dark]
            fill = theme.paper if kind == "open" else colour
            axes.plot([], [], "o", color=colour, mfc=fill, ms=6, label=label)
    axes.margins(y=0.12)
    axes.set_ylabel("h2 − h1", color=theme.ink, fontsize=11)
    legend(axes, theme)


def _draw_curve(axes: Axes, theme: Theme, group: Group, points: Sequence[Point], line: _Line, aside: float) -> None:
    members = [points[number] for number in group.members]
    many = len(members) > 30
    if group.sizes is None:
        _bars(axes, theme, [place + aside for place in range(len(members))], members, line)
        return
    if len(set(group.sizes)) == len(group.sizes):
        _line(axes, theme, group.sizes, members, line.label, line.colour, line.marker, many)
        return
    # Several of one size, such as shifts up and down: the line goes through their means.
    distinct = sorted(set(group.sizes))
    means = [
        float(np.nanmean([point.value for point, size in zip(members, group.sizes, strict=True) if size == one]))
        for one in distinct
    ]
    colour = line.colour[theme.dark]
    axes.plot(distinct, means, color=colour, lw=1.6, zorder=2.5)
    _bars(axes, theme, group.sizes, members, line)


def _line(
    axes: Axes,
    theme: Theme,
    places: Sequence[float],
    points: Sequence[Point],
    label: str,
    colours: tuple[str, str],
    marker: str,
    many: bool,
) -> None:
    """A line with its band."""
    colour = colours[theme.dark]
    low, high = ([getattr(point, side) for point in points] for side in ("low", "high"))
    axes.fill_between(places, low, high, color=colour, alpha=0.22 if theme.dark else 0.16, lw=0, zorder=2)
    axes.plot(
        places,
        [point.value for point in points],
        color=colour,
        lw=1.8,
        marker=marker,
        ms=0 if many else 5.5,
        label=label,
        zorder=3,
    )


def _bars(axes: Axes, theme: Theme, places: Sequence[float], points: Sequence[Point], line: _Line) -> None:
    """Points with bars, where no line leads from one to the next."""
    colour = line.colour[theme.dark]
    values = np.array([point.value for point in points])
    low, high = (np.array([getattr(point, side) for point in points]) for side in ("low", "high"))
    reach = np.nan_to_num(np.maximum(0, [values - low, high - values]))
    axes.errorbar(
        places,
        values,
        yerr=reach,
        fmt=line.marker,
        ms=5 if len(points) <= 30 else 3,
        color=colour,
        ecolor=colour,
        elinewidth=1.2,
        alpha=0.85,
        label=line.label,
        zorder=3,
    )


def _size_axis(axes: Axes, theme: Theme, group: Group, names: Sequence[str]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, MultipleLocator, NullLocator

    axes.set_xlabel(group.axis, color=theme.ink, fontsize=10)
    if group.sizes is None:
        every = -(-len(group.members) // 60)
        axes.set_xticks(
            range(0, len(group.members), every),
            [short(names[number], 36) for number in group.members[::every]],
            rotation=90,
            fontsize=8,
        )
        axes.set_xlim(-0.6, len(group.members) - 0.4)
        return
    reach = group.sizes[-1] - group.sizes[0]
    if group.kind == "rotate":
        step = next((step for step in (1, 2, 5, 15, 30, 45, 90) if reach / step <= 8), 90)
        axes.xaxis.set_major_locator(MultipleLocator(step))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}°"))
    elif group.kind == "scale":
        # Half and twice are equally far from 1.
        axes.set_xscale("log")
        kept = _spread_out(group.sizes)
        axes.xaxis.set_major_locator(FixedLocator(kept))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))


def _spread_out(sizes: Sequence[float], most: int = 7) -> list[float]:
    """Factors to stand at a logarithmic axis, 1 among them, none too near another."""
    distinct = sorted(set(sizes))
    least = math.log(distinct[-1] / distinct[0]) / most if len(distinct) > 1 else 0.0
    kept = [1.0] if 1.0 in distinct else []
    for size in distinct:
        if all(abs(math.log(size / other)) >= least for other in kept):
            kept.append(size)
    return sorted(kept)


def _percent_axis(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(percent))


def _legend_above(axes: Axes, theme: Theme) -> None:
    """Beside the title: curves that reach everywhere leave no room among them."""
    handles, names = axes.get_legend_handles_labels()
    axes.legend(
        handles,
        names,
        loc="lower right",
        bbox_to_anchor=(1.01, 0.98),
        ncols=len(names),
        fontsize=8.5,
        labelcolor=theme.ink,
        frameon=False,
        borderaxespad=0,
        handlelength=1.5,
        handletextpad=0.4,
        columnspacing=0.9,
    )


def _tilt(names: Sequence[str], width: float) -> tuple[int, int]:
    """How names stand at an axis, and of how many one."""
    room = (width - 1.2) / max(1, len(names))
    if max(map(len, names)) * 0.085 < room:
        return 0, 1
    if room > 0.3:
        return 45, 1
    return 90, max(1, math.ceil(0.15 / room))
