"""What the pictures of invariance share: colours, names, axes, and the figure itself."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bc_core._figure import DPI, Theme, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# On light, on dark; those of the dashboard.
H1 = ("#7c5cbf", "#b79cf0")
H2 = ("#1f6fc4", "#6cb0ff")
WORSE = ("#c2410c", "#ff8f5a")
BETTER = ("#0f766e", "#4fd1b5")
KINDS = {"invariance": "NV", "same_equivariance": "NV of same-equivariance"}
_LONGEST = 30


def legend(axes: Axes, theme: Theme) -> None:
    """Names of what was drawn, where there is room."""
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


def short(name: str, longest: int = _LONGEST) -> str:
    """Names of layers differ at their end."""
    return name if len(name) <= longest else f"…{name[1 - longest :]}"


def new_figure(theme: Theme, width: float, height: float) -> Figure:
    """A figure that lays itself out.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'The pictures of invariance need matplotlib: pip install "backward-compat-ml[sweep]".'
        ) from error
    return Figure(figsize=(width, height), dpi=100, layout="constrained", facecolor=theme.paper)


def finish(figure: Figure, path: str | os.PathLike[str] | None) -> Figure:
    """The figure, written where a path is given."""
    # So that a notebook shows it, which knows figures of pyplot only.
    figure.__dict__["_repr_png_"] = partial(png, figure)
    if path is not None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(target, dpi=DPI)
    return figure
