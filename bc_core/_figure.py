"""What all pictures share: colours of a light and a dark page, numbers on axes, and how a notebook shows a figure."""

from __future__ import annotations

import io
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bc_core._extras import need

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 160


class Theme(NamedTuple):
    """Colours of a page."""

    ink: str
    muted: str
    paper: str
    front: str
    dark: bool


LIGHT = Theme("#222222", "#60666f", "#ffffff", "#e2c044", False)
DARK = Theme("#e8e8e8", "#a3a9b3", "#16181d", "#b3952c", True)


def new_figure(theme: Theme, width: float, height: float) -> Figure:
    """A figure that lays itself out.

    Raises:
        ImportError: matplotlib is not installed.
    """
    need("sweep", "A picture", "matplotlib")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=100, layout="constrained", facecolor=theme.paper)


def finish(figure: Figure, path: str | os.PathLike[str] | None) -> Figure:
    """The figure, written where a path is given."""
    # So that a notebook shows it, which knows figures of pyplot only.
    figure.__dict__["_repr_png_"] = partial(_png, figure)
    if path is not None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(target, dpi=DPI)
    return figure


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI / 1.6)
    return buffer.getvalue()


def dress(axes: Axes, theme: Theme) -> None:
    """Colours; set one by one, as matplotlib's defaults are shared by all threads."""
    axes.set_facecolor(theme.paper)
    axes.grid(color=theme.ink, alpha=0.13, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=theme.ink)
    for name, spine in axes.spines.items():
        spine.set_color(theme.muted)
        spine.set_visible(name in ("left", "bottom"))


def percent(value: float, _: int | None = None) -> str:
    """A share on an axis."""
    # Rounded, as 0.57 * 100 is not 57.
    return f"{round(100 * value, 8):g} %"
