"""What both demos do with their runs: the recipes, the table, the picture, where to look."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from bc_core import Comparison
from bc_tensorboard import to_html

DIGITS = [str(digit) for digit in range(10)]
TEST, VALIDATION, H1_TRAIN = 1000, 500, 800
RECOMMENDED = "recommended"
# What the wrapper of either side is told. The recommended method has a callback besides, `MeanWeights`.
METHODS: dict[str, dict[str, Any]] = {
    "plain": {},
    "new error": {"loss": "BCCrossEntropyLoss"},
    "strict imitation": {"loss": "StrictImitationCrossEntropyLoss"},
    RECOMMENDED: {"loss": "recommended", "unlabelled": "mixed"},
}
STARTS = ("cold", "warm")
COLOURS = {  # on light, on dark
    "new error": ("#1f6fc4", "#6cb0ff"),
    "strict imitation": ("#c2570c", "#ff9d4d"),
    RECOMMENDED: ("#157a3c", "#5fd38a"),
}
MARKER = ".mnist_update"


class Recipe(NamedTuple):
    """How one h2 is trained."""

    style: str
    start: str
    lambda_c: float

    @property
    def name(self) -> str:
        """Name of its folder and files."""
        return f"{self.style}-{self.start}-{self.lambda_c:g}".replace(" ", "-")


class Run(NamedTuple):
    """One h2: what it was trained with, and how it compares with h1 on the test images."""

    style: str
    start: str
    lambda_c: float
    comparison: Comparison


def table_of(runs: list[Run]) -> Table:
    """Every h2 against h1 on the test images."""
    h1_accuracy = runs[0].comparison.overlap.accuracy_h1
    table = Table(
        title=f"h2 against h1 on {TEST} test images",
        caption=f"Accuracy of h1: {h1_accuracy:.1%}. One seed; intervals: how far {TEST} images tell rows apart.",
    )
    table.add_column("style")
    table.add_column("start")
    for header in ("λ_c", "accuracy\nof h2", "BTC", "BEC given\nh1 wrong", "BEC given\nh2 wrong"):
        table.add_column(header, justify="right")
    table.add_column("NFR\n(95 % interval)", justify="right")
    table.add_column("PFR", justify="right")
    for run in runs:
        if run.style == "plain":
            table.add_section()
        overlap = run.comparison.overlap
        low, high = overlap.interval("nfr")
        table.add_row(
            run.style,
            run.start,
            f"{run.lambda_c:g}",
            f"{overlap.accuracy_h2:.1%}",
            f"{overlap.btc:.1%}",
            f"{overlap.bec(given='h1_wrong'):.1%}",
            f"{overlap.bec(given='h2_wrong'):.1%}",
            f"{overlap.nfr:.1%} ({low:.1%} to {high:.1%})",
            f"{overlap.pfr:.1%}",
        )
    return table


def draw(runs: list[Run], path: Path, dark: bool) -> None:
    """Accuracy against negative flips, a panel for each start."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.patheffects import withStroke

    ink, paper = ("#e8e8e8", "#16181d") if dark else ("#222222", "#ffffff")
    dye = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), ink)
    with mpl.rc_context({**dye, "axes.facecolor": paper, "figure.facecolor": paper, "font.size": 11}):
        figure = Figure(figsize=(10, 4.6), layout="constrained")
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        for panel, start in zip(panels, STARTS, strict=True):
            panel.set_title(f"{start} start")
            panel.set_xlabel("negative flip rate (%), lower is better")
            panel.grid(alpha=0.2)
            for style in METHODS:
                overlaps = [(run, run.comparison.overlap) for run in runs if (run.style, run.start) == (style, start)]
                x = [100 * overlap.nfr for _, overlap in overlaps]
                y = [100 * overlap.accuracy_h2 for _, overlap in overlaps]
                if style == "plain":
                    panel.plot(x, y, "s", color=ink, markersize=9, label="plain h2")
                    continue
                if style == RECOMMENDED:
                    panel.plot(x, y, "*", color=COLOURS[style][dark], markersize=16, label=style)
                    continue
                panel.plot(x, y, "o-", color=COLOURS[style][dark], label=style)
                left = style == "strict imitation"
                labels: list[tuple[str, float, float]] = []
                for (run, _), right, up in zip(overlaps, x, y, strict=True):
                    text = f"{run.lambda_c:g}"
                    if labels and abs(right - labels[-1][1]) < 0.12 and abs(up - labels[-1][2]) < 0.3:
                        text = f"{labels.pop()[0]}, {text}"  # so near that two labels would cover each other
                    labels.append((text, right, up))
                for text, *place in labels:
                    panel.annotate(
                        text,
                        place,
                        xytext=(-9, 3) if left else (9, -3),
                        textcoords="offset points",
                        ha="right" if left else "left",
                        va="bottom" if left else "top",
                        color=COLOURS[style][dark],
                        path_effects=[withStroke(linewidth=3, foreground=paper)],
                    )
            panel.plot(0, 100 * runs[0].comparison.overlap.accuracy_h1, "D", color="#8a8f98", label="h1 itself")
            panel.margins(0.08, 0.12)
        panels[0].set_ylabel("accuracy on the test images (%)")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
        figure.suptitle(
            r"Updates of one digit classifier: what they gain and what they break (numbers are $\lambda_c$)"
        )
        figure.savefig(path, dpi=150)


def prepare(out: Path) -> None:
    """Make the folder, or empty it of an earlier run's results; somebody else's folder is left alone."""
    if out.exists() and not (out / MARKER).exists() and (not out.is_dir() or any(out.iterdir())):
        sys.exit(f"{out} is not a folder of this demo; give an empty or new one with --out")
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).touch()
    for folder in ("tensorboard", "comparisons"):
        shutil.rmtree(out / folder, ignore_errors=True)


def command(name: str) -> str:
    """How to call a program of this environment, also where the environment is not activated."""
    beside = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    if not beside.exists() or (found and Path(found).samefile(beside)):
        return name
    return os.path.relpath(beside)


def recipes(lambdas: tuple[float, ...]) -> list[Recipe]:
    """Plain training, every loss with every lambda_c and the recommended method, from fresh weights and from h1's."""
    fixed = {"plain": (0.0,), RECOMMENDED: (1.0,)}
    return [Recipe(style, start, c) for start in STARTS for style in METHODS for c in fixed.get(style, lambdas)]


def progress_on(console: Console) -> Progress:
    """A bar for all epochs of all models together."""
    columns = (TextColumn("{task.description:26}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)


def console_of_width() -> Console:
    """A console that also a log shows whole tables on."""
    return Console(width=None if sys.stdout.isatty() else 120)


def show(runs: list[Run], out: Path, images: Any, console: Console) -> None:
    """Print the table, draw the pictures, write the report, say where to look; `images` by id of the instance."""
    console.print(table_of(runs))
    to_html(
        [run.comparison for run in runs],
        out / "report.html",
        title="Updates of a digit classifier",
        dissonance={run.comparison.name: run.style for run in runs},
        settings={run.comparison.name: {"start": run.start} for run in runs},
        images=images,
    )
    for name, dark in (("tradeoff.png", False), ("tradeoff-dark.png", True)):
        draw(runs, out / name, dark)
    console.print("\nLook further:", highlight=False)
    for line in (
        f"{command('tensorboard')} --logdir {out / 'tensorboard'}    (tab Compatibility: which images broke)",
        f"{command('bc-compare')} {out / 'comparisons' / runs[-1].comparison.name}.json --max-nfr 2%",
        f"{out / 'tradeoff.png'}    (and tradeoff-dark.png)",
        f"{out / 'report.html'}    (the dashboard as one file, to open in a browser or attach to a pull request)",
    ):
        console.print(f"  {line}", highlight=False, soft_wrap=True)
