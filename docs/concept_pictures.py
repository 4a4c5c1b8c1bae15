"""Draw the pictures of docs/concepts.md, light and dark: `python docs/concept_pictures.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from bc_core import wilson_interval

FOLDER = Path(__file__).parent / "images"
# Both right, broken, repaired, both wrong: apart for readers who confuse red and green too.
CELLS = {
    "both right": (84, "#b9c4c9"),
    "only h1: broken": (4, "#d1495b"),
    "only h2: repaired": (7, "#2a9d8f"),
    "both wrong": (5, "#5d6d7e"),
}


def cells(axes: Any, ink: str) -> None:
    """A hundred instances, one square each."""
    colours = [colour for count, colour in CELLS.values() for _ in range(count)]
    for number, colour in enumerate(colours):
        axes.add_patch(plt.Rectangle((number % 20, -(number // 20)), 0.88, 0.88, color=colour))
    axes.set(xlim=(-0.3, 20.3), ylim=(-9.6, 1.2), aspect="equal")
    axes.axis("off")
    for column, (name, (count, colour)) in enumerate(CELLS.items()):
        axes.add_patch(plt.Rectangle((column * 5.1, -5.6), 0.7, 0.7, color=colour))
        axes.text(column * 5.1 + 1, -5.25, f"{name}, {count}", va="center", fontsize=9, color=ink)
    lines = ["BTC = both right / right before = 84 / 88 = 95.5 %", "NFR = broken / all = 4 / 100 = 4 %"]
    lines.append("accuracy from 88 % to 91 %: up by 7 repaired less 4 broken")
    for row, line in enumerate(lines):
        axes.text(0, -7 - row * 1.1, line, fontsize=10, color=ink)


def two_becs(axes: Any, ink: str) -> None:
    """Of 100 instances h1 errs on 12, and h2 breaks four; what it repairs moves along the axis."""
    repaired = np.arange(0, 13)
    both = 12 - repaired
    axes.plot(repaired, both / 12, marker="o", color="#e09f3e", label='given="h1_wrong": both wrong / h1 wrong')
    axes.plot(repaired, both / (both + 4), marker="s", color="#3a86ff", label='given="h2_wrong": both wrong / h2 wrong')
    axes.set(xlabel="old errors that h2 repairs, of 12 (it breaks 4)", ylabel="BEC", ylim=(-0.03, 1.03))
    axes.legend(frameon=False, fontsize=9)


def intervals(axes: Any, ink: str) -> None:
    """How wide the 95 % interval of an NFR of 1 % is."""
    sizes = np.unique(np.geomspace(100, 100_000, 31).astype(int) // 100 * 100)
    low, high = np.array([wilson_interval(size // 100, size) for size in sizes]).T
    axes.fill_between(sizes, 100 * low, 100 * high, color="#2a9d8f", alpha=0.35, lw=0)
    axes.axhline(1, color=ink, lw=1)
    axes.set(xscale="log", xlabel="test instances", ylabel="NFR, %", ylim=(0, 6))
    axes.text(110, 1.15, "measured: 1 %", fontsize=9, color=ink)


def main() -> None:
    for dark in (False, True):
        ink, paper = ("#e6e6e6", "#1e2129") if dark else ("#222222", "#ffffff")
        style: dict[str, Any] = {f"{name}.color": ink for name in ("text", "xtick", "ytick")}
        style |= {"axes.labelcolor": ink, "axes.edgecolor": ink, "axes.spines.top": False, "axes.spines.right": False}
        style |= {"figure.facecolor": paper, "axes.facecolor": paper}
        for name, draw, size in (
            ("cells", cells, (8, 3.8)),
            ("two-becs", two_becs, (7, 3.4)),
            ("intervals", intervals, (7, 3)),
        ):
            with mpl.rc_context(style):
                figure, axes = plt.subplots(figsize=size, layout="constrained")
                draw(axes, ink)
                figure.savefig(
                    FOLDER / f"concepts-{name}{'-dark' if dark else ''}.png", dpi=110, metadata={"Software": None}
                )
                plt.close(figure)


if __name__ == "__main__":
    main()
