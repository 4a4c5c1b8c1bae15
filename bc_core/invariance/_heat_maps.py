"""The heat maps of invariance: NV of every feature, a row for each layer, of one network or of h1 and h2."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bc_core._figure import DARK, LIGHT, Theme, finish, new_figure
from bc_core.invariance._accumulator import Floats
from bc_core.invariance._charts import Order, heat_difference, heat_row, scale_end, told_size
from bc_core.invariance._drawing import BETTER, H1, H2, KINDS, WORSE, short
from bc_core.invariance._layer_measures import Level, Statistic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bc_core.invariance._result import InvarianceResult

# On light, on dark: dead units, and the middle of the scale of differences.
_DEAD = ("#c3c8cf", "#4b525d")
_SAME = ("#f7f7f5", "#22262e")


class _Fonts(NamedTuple):
    """Size of the names of rows, and of how many rows one is named."""

    size: float
    every: int


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
        f"{KINDS[result.kind]} of {level}s by layer, {_told_order(order)}\n{told_size(result)}",
        loc="left",
        fontsize=9.5,
        color=theme.muted,
    )
    _colour_bar(figure, theme, shown, axes, _told_scale(result.kind), "max" if beyond else "neither")
    _legend_of_dead(figure, theme, rows, level)
    return finish(figure, path)


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
        place.set_title(title, fontsize=11, color=(H1 if title == "h1" else H2)[theme.dark], fontweight="bold")
    reach, farther = scale_end(row for row in differences if row is not None)
    changed = _draw_rows(axes[2], theme, differences, _difference_map(theme), -reach, reach)
    _say_missing(axes[2], theme, differences, fonts, "cannot be compared")
    axes[2].set_title("h2 − h1", fontsize=11, color=theme.ink, fontweight="bold")
    _name_rows(axes[0], theme, names, fonts)
    for place in axes[1:]:
        place.tick_params(left=False, labelleft=False)
    figure.suptitle(
        f"{KINDS[h1.kind]} of {level}s by layer, {_told_order(order)}. {told_size(h1)}",
        fontsize=9.5,
        color=theme.muted,
    )
    _colour_bar(figure, theme, shown, axes[:2], _told_scale(h1.kind), "max" if beyond else "neither")
    told = "Difference: above 0 less invariant"
    _colour_bar(figure, theme, changed, axes[2:], told, "both" if farther else "neither")
    _legend_of_dead(figure, theme, [*of_h1, *of_h2], level)
    return finish(figure, path)


def _heat_figure(theme: Theme, rows: int, columns: int) -> tuple[Figure, list[Axes], _Fonts]:
    """A figure in which rows have room for their names, as far as there is any."""
    height = min(0.42 if rows <= 6 else 0.28 if rows <= 16 else 0.19, 12.25 / rows)
    size = 10.0 if height >= 0.28 else 8.5
    figure = new_figure(theme, 8.5 if columns == 1 else 11.0, 1.75 + height * rows)
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

    ends = [BETTER[theme.dark], _SAME[theme.dark], WORSE[theme.dark]]
    return LinearSegmentedColormap.from_list("difference", ends).with_extremes(bad=_DEAD[theme.dark])


def _name_rows(axes: Axes, theme: Theme, names: Sequence[str], fonts: _Fonts) -> None:
    places = [row + 0.5 for row in range(0, len(names), fonts.every)]
    axes.set_yticks(places, [short(name) for name in names[:: fonts.every]], fontsize=fonts.size, color=theme.ink)


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


def _told_scale(kind: str) -> str:
    if kind == "same_equivariance":
        return "NV: 0 is equivariant, about 1 as sensitive as to the sample"
    return "NV: 0 is invariant, about 1 as sensitive as to the sample"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2g}" if value < 0.1 else f"{value:.2f}"
