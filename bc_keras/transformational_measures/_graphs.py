"""Graphs: a measure drawn as a line over layers, and as heat maps by layer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bc_core._figure import DARK, LIGHT
from bc_core.invariance import MeasureValues
from bc_core.invariance._plot import _dress, _figure_class, _finish, _legend

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = ("#1f6fc4", "#c2410c", "#0f766e", "#7c5cbf", "#b45309", "#be185d")


class Graphs:
    """Pictures of what the measures found; all methods are static and return a matplotlib figure."""

    @staticmethod
    def line(
        values: MeasureValues | Mapping[str, MeasureValues],
        path: str | os.PathLike[str] | None = None,
        dark: bool = False,
    ) -> Figure:
        """One number for each layer, from the first layer to the last; a line for each of several.

        Args:
            values: What a measure returned, or several by name, such as those of several models.
            path: File to write, its kind by its ending.
            dark: For a dark page.

        Raises:
            ImportError: If matplotlib is not installed.

        Example:
            >>> import numpy as np
            >>> from bc_core.invariance import MeasureValues
            >>> from bc_keras.transformational_measures import Graphs
            >>> values = MeasureValues("NV", {"a": np.ones(3), "b": np.zeros(2)}, {"a": 1.0, "b": 0.0})
            >>> Graphs.line(values).axes[0].get_ylabel()
            'NV'
        """
        several = {values.name: values} if isinstance(values, MeasureValues) else dict(values)
        theme = DARK if dark else LIGHT
        names = list(dict.fromkeys(name for each in several.values() for name in each.layers))
        figure = _figure_class()(figsize=(max(5.0, 1.8 + 0.5 * len(names)), 3.6), layout="constrained")
        figure.set_facecolor(theme.paper)
        axes = figure.subplots()
        _dress(axes, theme)
        for number, (label, each) in enumerate(several.items()):
            heights = [each.layers.get(name, np.nan) for name in names]
            colour = _COLOURS[number % len(_COLOURS)]
            axes.plot(range(len(names)), heights, marker="o", markersize=4, color=colour, label=label)
        axes.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=8)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(next(iter(several.values())).name)
        axes.yaxis.label.set_color(theme.ink)
        if len(several) > 1:
            _legend(axes, theme)
        return _finish(figure, path)

    @staticmethod
    def heat_maps(values: MeasureValues, path: str | os.PathLike[str] | None = None, dark: bool = False) -> Figure:
        """Every unit or feature of every layer: a column for each layer, features down; dead ones are grey.

        Of a layer with positions, each feature is the mean over them.

        Args:
            values: What a measure returned.
            path: File to write, its kind by its ending.
            dark: For a dark page.

        Raises:
            ImportError: If matplotlib is not installed.

        Example:
            >>> import numpy as np
            >>> from bc_core.invariance import MeasureValues
            >>> from bc_keras.transformational_measures import Graphs
            >>> values = MeasureValues("NV", {"a": np.ones(3), "b": np.zeros(2)}, {"a": 1.0, "b": 0.0})
            >>> [axes.get_title() for axes in Graphs.heat_maps(values).axes][:2]
            ['a', 'b']
        """
        import matplotlib as mpl

        theme = DARK if dark else LIGHT
        columns = {name: _by_feature(values, name) for name in values.units}
        known = np.concatenate([column[np.isfinite(column)] for column in columns.values()] + [np.zeros(1)])
        figure = _figure_class()(figsize=(max(4.0, 1.5 + 0.7 * len(columns)), 4.0), layout="constrained")
        figure.set_facecolor(theme.paper)
        shown: Any = None
        places = figure.subplots(1, len(columns), squeeze=False)[0]
        colours = mpl.colormaps["viridis"].with_extremes(bad="#9aa1aa")
        for axes, (name, column) in zip(places, columns.items(), strict=True):
            picture = np.ma.masked_invalid(column[:, None])
            shown = axes.imshow(picture, aspect="auto", vmin=0, vmax=known.max() or 1, cmap=colours)
            axes.set_title(name, fontsize=8, rotation=40, ha="left", color=theme.ink)
            axes.set_xticks([])
            axes.tick_params(labelsize=7, colors=theme.muted)
        bar = figure.colorbar(shown, ax=list(places))
        bar.set_label(values.name, color=theme.ink)
        bar.ax.tick_params(labelsize=7, colors=theme.muted)
        return _finish(figure, path)


def _by_feature(values: MeasureValues, name: str) -> Any:
    units = values.units[name]
    if units.ndim < 2:
        return units.reshape(-1)
    result = getattr(values, "result", None)
    axis = result[name].feature_axis if result is not None else units.ndim - 1
    flat = np.moveaxis(units, axis, 0).reshape(units.shape[axis], -1)
    known = np.isfinite(flat)
    total = np.where(known, flat, 0).sum(axis=1)
    return np.divide(total, known.sum(axis=1), out=np.full(len(flat), np.nan), where=known.any(axis=1))
