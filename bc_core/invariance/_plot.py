"""The pictures of invariance: heat maps by layer, NV by depth, curves over the transformation's size."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bc_core._figure import DARK, DPI, LIGHT, Theme, percent, png
from bc_core.invariance._charts import (
    Group,
    Order,
    Point,
    curve,
    heat_difference,
    heat_row,
    scale_end,
    transformation_groups,
)
from bc_core.invariance._result import InvarianceResult, Level, Statistic
from bc_core.invariance._update import InvarianceUpdate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

# On light, on dark; those of the dashboard.
_H1 = ("#7c5cbf", "#b79cf0")
_H2 = ("#1f6fc4", "#6cb0ff")
_WORSE = ("#c2410c", "#ff8f5a")
_BETTER = ("#0f766e", "#4fd1b5")
_DEAD = ("#c3c8cf", "#4b525d")
# Middle of the scale of differences.
_SAME = ("#f7f7f5", "#22262e")
_KINDS = {"invariance": "NV", "same_equivariance": "NV of same-equivariance"}
_LONGEST = 30


class _Fonts(NamedTuple):
    """Size of the names of rows, and of how many rows one is named."""

    size: float
    every: int


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
        (_Line("accuracy_h1", "h1", _H1, "s"), _Line("accuracy_h2", "h2", _H2, "o")),
        True,
    ),
    _Panel("BTC", "higher is better", (_Line("btc", "BTC", _BETTER, "D"),), True),
    _Panel(
        "Consistency",
        "higher is better",
        (_Line("consistency_h1", "h1", _H1, "s"), _Line("consistency_h2", "h2", _H2, "o")),
        False,
    ),
    _Panel(
        "Negative flips",
        "lower is better",
        (
            _Line("nfr", "NFR", _WORSE, "v"),
            _Line("negative_flip_rate", "of invariance", ("#a8871b", "#e8cb5c"), "^"),
        ),
        False,
    ),
)


def heat_map(
    result: InvarianceResult,
    path: str | os.PathLike[str] | None = None,
    dark: bool = False,
    *,
    level: Level = "feature",
    statistic: Statistic = "std",
    order: Order = "sorted",
) -> Figure:
    """Draw NV of all features: a row for each layer, of one width however many features it has.

    Args:
        result: What was measured.
        path: File to write, its kind by its ending; missing folders are made.
        dark: For a dark page.
        level: `"feature"`, or `"unit"` for every single activation.
        statistic: The spread.
        order: `"sorted"`, within each layer from invariant to sensitive, or `"index"`, as they are numbered.

    Returns:
        The figure. Dead features, which no sample moves, are grey; of a layer of more than 256, neighbours share a
        cell.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If an option has no such value.
    """
    layers = list(result.values())
    rows: list[Floats | None] = [heat_row(layer, level, statistic, order) for layer in layers]
    theme = DARK if dark else LIGHT
    figure, axes, fonts = _heat_figure(theme, len(rows), 1)
    top, beyond = scale_end(row for row in rows if row is not None)
    shown = _draw_rows(axes[0], theme, rows, _values_map(theme), 0, top)
    _name_rows(axes[0], theme, result.layer_names, fonts)
    sizes = [layer.features if level == "feature" else layer.units for layer in layers]
    means = [layer.summary(statistic) for layer in layers]
    _columns(axes[0], theme, fonts, {f"{level}s": [f"{size:,}" for size in sizes], "NV": [_number(v) for v in means]})
    axes[0].set_title(
        f"{_KINDS[result.kind]} of {level}s by layer, {_told_order(order)}\n{_told_size(result)}",
        loc="left",
        fontsize=9.5,
        color=theme.muted,
    )
    _colour_bar(figure, theme, shown, axes, _told_scale(result.kind), "max" if beyond else "neither")
    _legend_of_dead(figure, theme, rows, level)
    return _finish(figure, path)


def heat_maps(
    h1: InvarianceResult,
    h2: InvarianceResult,
    path: str | os.PathLike[str] | None = None,
    dark: bool = False,
    *,
    level: Level = "feature",
    statistic: Statistic = "std",
    order: Order = "sorted",
) -> Figure:
    """Draw the heat maps of h1 and h2 on one scale, and what h2 has more.

    Args:
        h1: What was measured of h1.
        h2: What was measured of h2; layers belong together by name.
        path: File to write, its kind by its ending; missing folders are made.
        dark: For a dark page.
        level: `"feature"`, or `"unit"` for every single activation.
        statistic: The spread.
        order: `"sorted"`, within each layer from invariant to sensitive: the difference is then that of ranks, and says
            something of any two networks; or `"index"`, as features are numbered: the difference is then that of one
            feature and itself, where h2 was trained on from h1.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If an option has no such value, or the two are of different kinds.
    """
    if h1.kind != h2.kind:
        raise ValueError(f"expected two results of one kind, got {h1.kind} of h1 and {h2.kind} of h2")
    names = [*h1.layer_names, *(name for name in h2.layer_names if name not in h1)]
    of_h1, of_h2 = (
        [heat_row(result[name], level, statistic, order) if name in result else None for name in names]
        for result in (h1, h2)
    )
    differences = [
        heat_difference(h1[name], h2[name], level, statistic, order) if name in h1 and name in h2 else None
        for name in names
    ]
    theme = DARK if dark else LIGHT
    figure, axes, fonts = _heat_figure(theme, len(names), 3)
    top, beyond = scale_end(row for row in (*of_h1, *of_h2) if row is not None)
    shown = None
    for place, rows, title in zip(axes[:2], (of_h1, of_h2), ("h1", "h2"), strict=True):
        shown = _draw_rows(place, theme, rows, _values_map(theme), 0, top)
        _say_missing(place, theme, rows, fonts, f"not in {title}")
        place.set_title(title, fontsize=11, color=(_H1 if title == "h1" else _H2)[theme.dark], fontweight="bold")
    reach, farther = scale_end(row for row in differences if row is not None)
    changed = _draw_rows(axes[2], theme, differences, _difference_map(theme), -reach, reach)
    _say_missing(axes[2], theme, differences, fonts, "cannot be compared")
    axes[2].set_title("h2 − h1", fontsize=11, color=theme.ink, fontweight="bold")
    _name_rows(axes[0], theme, names, fonts)
    for place in axes[1:]:
        place.tick_params(left=False, labelleft=False)
    figure.suptitle(
        f"{_KINDS[h1.kind]} of {level}s by layer, {_told_order(order)}. {_told_size(h1)}",
        fontsize=9.5,
        color=theme.muted,
    )
    _colour_bar(figure, theme, shown, axes[:2], _told_scale(h1.kind), "max" if beyond else "neither")
    told = "Difference: above 0 less invariant"
    _colour_bar(figure, theme, changed, axes[2:], told, "both" if farther else "neither")
    _legend_of_dead(figure, theme, [*of_h1, *of_h2], level)
    return _finish(figure, path)


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
    paired = [row for row in table if not math.isnan(row["difference"])]
    figure_class = _figure_class()
    names = [_short(row["layer"]) for row in table]
    width = min(14.0, max(8.0, 2.5 + 0.2 * len(names)))
    tilt, every = _tilt(names, width) if same else (0, 1)
    # What tilted names take is not to be taken from the curves.
    below = 0.0 if tilt == 0 else 0.06 * max(map(len, names)) * (1.0 if tilt == 90 else 0.7)
    figure = figure_class(
        figsize=(width, (5.6 if paired else 4.4) + below), dpi=100, layout="constrained", facecolor=theme.paper
    )
    if paired:
        upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [1.7, 1]})
    else:
        upper, lower = figure.subplots(), None
    many = len(table) > 30
    for which, colour, marker in (("h1", _H1, "s"), ("h2", _H2, "o")):
        places = range(len(table)) if same else [row[f"depth_{which}"] for row in table]
        found = sorted(
            (place, row[which], row[f"{which}_interval"])
            for place, row in zip(places, table, strict=True)
            if place is not None and not math.isnan(row[which])
        )
        if not found:
            continue
        points = [Point(value, *(interval or (math.nan, math.nan))) for _, value, interval in found]
        _line(upper, theme, [place for place, _, _ in found], points, which, colour, marker, many)
    _dress(upper, theme)
    # 1 is what there is to compare with, where that does not flatten the curves.
    if upper.dataLim.y1 > 0.6:
        upper.axhline(1, color=theme.muted, ls=(0, (5, 3)), lw=1.2, zorder=1.5)
    upper.set_ylim(bottom=0)
    upper.margins(y=0.08)
    upper.set_ylabel(_KINDS[update.h1.kind], color=theme.ink, fontsize=11)
    _legend(upper, theme)
    intervals = any(row["h1_interval"] or row["h2_interval"] for row in table)
    told = f"{_told_size(update.h1)}. Spread: {update.statistic}, {update.how.replace('_', ' ')}."
    if intervals:
        told += f" Bands and bars: {100 * update.confidence:g} % intervals."
    upper.set_title(told, loc="left", fontsize=9, color=theme.muted)
    if lower is not None:
        _draw_difference(lower, theme, table, same, many)
    last = upper if lower is None else lower
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
    return _finish(figure, path)


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
    labelled = update.overlaps is not None
    panels = [panel for panel in _PANELS if labelled or not panel.labels]
    found = {
        line.score: curve(update, line.score, confidence)
        for panel in panels
        for line in panel.lines
        if labelled or line.score not in ("accuracy_h1", "accuracy_h2", "btc", "nfr")
    }
    if len(groups) == 1:
        # One kind: the panels side by side, two by two.
        columns = 2
        grid = [(panel, groups[0]) for panel in panels]
    else:
        columns = len(groups)
        grid = [(panel, group) for panel in panels for group in groups]
    lines = -(-len(grid) // columns)
    named = [_short(update.transforms[n], 36) for group in groups if group.sizes is None for n in group.members]
    below = 0.06 * max(map(len, named), default=0)
    widths = [max(1.0, 0.045 * len(group.members)) if group.sizes is None else 1.0 for group in groups]
    width = min(15.0, (4.4 if columns < 3 else 3.7) * (sum(widths) if len(groups) > 1 else 2.0) + 0.4)
    figure = _figure_class()(
        figsize=(width, 2.35 * lines + 0.5 + below), dpi=100, layout="constrained", facecolor=theme.paper
    )
    axes = figure.subplots(
        lines,
        columns,
        squeeze=False,
        sharex="col",
        sharey="row" if len(groups) > 1 else False,
        gridspec_kw={"width_ratios": widths} if len(groups) > 1 else None,
    )
    for number, (panel, group) in enumerate(grid):
        row, column = divmod(number, columns)
        place = axes[row][column]
        drawn = [line for line in panel.lines if line.score in found]
        for index, line in enumerate(drawn):
            aside = 0.16 * (index - (len(drawn) - 1) / 2)
            _draw_curve(place, theme, group, found[line.score], line, aside)
        _dress(place, theme)
        if column == 0 or len(groups) == 1:
            place.set_title(f"{panel.title}, {panel.better}", loc="left", fontsize=10, color=theme.ink)
        if row == lines - 1:
            _size_axis(place, theme, group, update.transforms)
    for number, (panel, _) in enumerate(grid):
        row, column = divmod(number, columns)
        place = axes[row][column]
        _percent_axis(place)
        drawn = [line for line in panel.lines if line.score in found]
        if (column == columns - 1 or len(groups) == 1) and (len(drawn) > 1 or panel.title != drawn[0].label):
            _legend_above(place, theme)
    figure.suptitle(
        f"{update.samples:,} samples; {100 * confidence:g} % intervals",
        fontsize=9,
        color=theme.muted,
        x=0.01,
        ha="left",
    )
    return _finish(figure, path)


# Heat maps


def _heat_figure(theme: Theme, rows: int, columns: int) -> tuple[Figure, list[Axes], _Fonts]:
    """A figure in which rows have room for their names, as far as there is any."""
    height = min(0.42 if rows <= 6 else 0.28 if rows <= 16 else 0.19, 12.25 / rows)
    size = 10.0 if height >= 0.28 else 8.5
    figure = _figure_class()(
        figsize=(8.5 if columns == 1 else 11.0, 1.75 + height * rows),
        dpi=100,
        layout="constrained",
        facecolor=theme.paper,
    )
    axes = list(figure.subplots(1, columns, squeeze=False, sharey=True)[0])
    for place in axes:
        place.set_facecolor(theme.paper)
        place.tick_params(colors=theme.ink, length=0)
        place.set_xticks([])
        place.set_xlim(0, 1)
        place.set_ylim(rows, 0)
        for spine in place.spines.values():
            spine.set_visible(False)
    return figure, axes, _Fonts(size, max(1, math.ceil(1.15 * size / (72 * height))))


def _draw_rows(axes: Axes, theme: Theme, rows: Sequence[Floats | None], colours: Any, low: float, high: float) -> Any:
    shown = None
    for number, row in enumerate(rows):
        if row is None:
            continue
        # A line of paper between two rows, so that names are found.
        shown = axes.imshow(
            np.ma.masked_invalid(row[None]),
            extent=(0, 1, number + 0.94, number + 0.06),
            aspect="auto",
            interpolation="nearest",
            cmap=colours,
            vmin=low,
            vmax=high,
        )
        if len(row) <= 32:
            edges = np.arange(1, len(row)) / len(row)
            axes.vlines(edges, number + 0.06, number + 0.94, color=theme.paper, lw=0.8)
    axes.set_xlim(0, 1)
    axes.set_ylim(len(rows), 0)
    if shown is None:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        return ScalarMappable(Normalize(low, high), colours)
    return shown


def _values_map(theme: Theme) -> Any:
    from matplotlib import colormaps

    return colormaps["viridis"].with_extremes(bad=_DEAD[theme.dark])


def _difference_map(theme: Theme) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    ends = [_BETTER[theme.dark], _SAME[theme.dark], _WORSE[theme.dark]]
    return LinearSegmentedColormap.from_list("difference", ends).with_extremes(bad=_DEAD[theme.dark])


def _name_rows(axes: Axes, theme: Theme, names: Sequence[str], fonts: _Fonts) -> None:
    places = [row + 0.5 for row in range(0, len(names), fonts.every)]
    axes.set_yticks(places, [_short(name) for name in names[:: fonts.every]], fontsize=fonts.size, color=theme.ink)


def _columns(axes: Axes, theme: Theme, fonts: _Fonts, columns: dict[str, list[str]]) -> None:
    """Numbers to the right of the rows."""
    for number, (head, texts) in enumerate(columns.items()):
        place = 1.105 + 0.085 * number
        style: dict[str, Any] = {"ha": "right", "fontsize": fonts.size, "transform": axes.get_yaxis_transform()}
        axes.text(place, -0.1 if len(texts) < 20 else -0.25, head, va="bottom", color=theme.muted, **style)
        for row in range(0, len(texts), fonts.every):
            axes.text(place, row + 0.5, texts[row], va="center", color=theme.ink, **style)


def _say_missing(axes: Axes, theme: Theme, rows: Sequence[Floats | None], fonts: _Fonts, told: str) -> None:
    for number, row in enumerate(rows):
        if row is None and number % fonts.every == 0:
            axes.text(0.5, number + 0.5, told, ha="center", va="center", fontsize=fonts.size - 1, color=theme.muted)


def _colour_bar(figure: Figure, theme: Theme, shown: Any, axes: Sequence[Axes], label: str, extend: str) -> None:
    bar = figure.colorbar(
        shown,
        ax=list(axes),
        location="bottom",
        shrink=0.75,
        aspect=32 if len(axes) < 2 else 40,
        pad=0.02,
        extend=extend,
    )
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=theme.ink, labelsize=9)
    bar.set_label(label, color=theme.ink, fontsize=9.5)


def _legend_of_dead(figure: Figure, theme: Theme, rows: Sequence[Floats | None], level: str) -> None:
    from matplotlib.patches import Patch

    if any(row is not None and bool(np.isnan(row).any()) for row in rows):
        figure.legend(
            handles=[Patch(color=_DEAD[theme.dark], label=f"dead {level}s, which no sample moves")],
            loc="outside lower center",
            frameon=False,
            fontsize=9,
            labelcolor=theme.ink,
            handlelength=1,
            handleheight=1,
        )


def _told_order(order: str) -> str:
    return "each layer sorted" if order == "sorted" else "in their own order"


def _told_size(result: InvarianceResult) -> str:
    return f"{result.samples:,} samples × {len(result.transforms)} transformations"


def _told_scale(kind: str) -> str:
    if kind == "same_equivariance":
        return "NV: 0 is equivariant, about 1 as sensitive as to the sample"
    return "NV: 0 is invariant, about 1 as sensitive as to the sample"


# Lines


def _draw_difference(axes: Axes, theme: Theme, table: Sequence[dict[str, Any]], same: bool, many: bool) -> None:
    _dress(axes, theme)
    axes.axhline(0, color=theme.muted, lw=1.2, zorder=1.5)
    used = dict.fromkeys(("worse", "better", "open"), False)
    for number, row in enumerate(table):
        value, interval = row["difference"], row["difference_interval"]
        if math.isnan(value):
            continue
        told = interval is not None and (interval[0] > 0 or interval[1] < 0)
        kind = "open" if not told else "worse" if value > 0 else "better"
        used[kind] = True
        colour = theme.muted if kind == "open" else (_WORSE if kind == "worse" else _BETTER)[theme.dark]
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
            colour = theme.muted if kind == "open" else (_WORSE if kind == "worse" else _BETTER)[theme.dark]
            fill = theme.paper if kind == "open" else colour
            axes.plot([], [], "o", color=colour, mfc=fill, ms=6, label=label)
    axes.margins(y=0.12)
    axes.set_ylabel("h2 − h1", color=theme.ink, fontsize=11)
    _legend(axes, theme)


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
            [_short(names[number], 36) for number in group.members[::every]],
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


def _dress(axes: Axes, theme: Theme) -> None:
    """Colours; set one by one, as matplotlib's defaults are shared by all threads."""
    axes.set_facecolor(theme.paper)
    axes.grid(color=theme.ink, alpha=0.13, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=theme.ink)
    for name, spine in axes.spines.items():
        spine.set_color(theme.muted)
        spine.set_visible(name in ("left", "bottom"))


def _legend(axes: Axes, theme: Theme) -> None:
    handles, names = axes.get_legend_handles_labels()
    if names:
        axes.legend(
            handles,
            names,
            loc="best",
            fontsize=9,
            labelcolor=theme.ink,
            facecolor=theme.paper,
            edgecolor="none",
            framealpha=0.75,
        )


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


def _short(name: str, longest: int = _LONGEST) -> str:
    """Names of layers differ at their end."""
    return name if len(name) <= longest else f"…{name[1 - longest :]}"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def _figure_class() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'The pictures of invariance need matplotlib: pip install "backward-compat-ml[sweep]".'
        ) from error
    return Figure


def _finish(figure: Figure, path: str | os.PathLike[str] | None) -> Figure:
    # So that a notebook shows it, which knows figures of pyplot only.
    figure.__dict__["_repr_png_"] = partial(png, figure)
    if path is not None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(target, dpi=DPI)
    return figure
