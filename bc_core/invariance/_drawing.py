"""What the pictures of invariance share: colours, names and axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bc_core._figure import Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
