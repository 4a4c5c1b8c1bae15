"""What the two examples of invariance have in common: their settings, their tables and their pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from bc_core import compare
from bc_core.invariance import InvarianceUpdate, TransformSet
from bc_tensorboard import summary, to_html

TRAIN, TEST, BATCH, EPOCHS = 3500, 500, 64, 8
RANGES = (15, 30, 60, 90)
# Seven angles of each range, so that only the range differs.
STEPS = (-1, -2 / 3, -1 / 3, 0, 1 / 3, 2 / 3, 1)
SETTINGS = {"upright": 0.0, "turned": 90.0}
ANGLES = (0, -90, -75, -60, -45, -30, -15, 15, 30, 45, 60, 75, 90)


class Row(NamedTuple):
    """One network under rotations by up to so many degrees: accuracy, and NV of its first and of its last layer."""

    most: float
    name: str
    accuracy: float
    first: float
    last: float


def rotations(most: float) -> TransformSet:
    """Seven rotations up to so many degrees either way."""
    return TransformSet.rotations([step * most for step in STEPS])


def draw(found: list[Row], path: Path, dark: bool) -> None:
    """Accuracy and NV of the last layer over the range, for both networks."""
    from matplotlib.figure import Figure

    ink, paper = ("#e8e8e8", "#16181d") if dark else ("#222222", "#ffffff")
    colours = {"turned": "#b79cf0" if dark else "#7c5cbf", "upright": "#6cb0ff" if dark else "#1f6fc4"}
    figure = Figure(figsize=(9, 3.9), layout="constrained", facecolor=paper)
    panels = figure.subplots(1, 2)
    for panel, place, title in zip(panels, ("accuracy", "last"), ("accuracy", "NV of the last layer"), strict=True):
        for name, colour in colours.items():
            rows = [row for row in found if row.name == name]
            panel.plot(
                [row.most for row in rows],
                [getattr(row, place) for row in rows],
                "o-",
                color=colour,
                label=f"trained {name}",
            )
        panel.set_title(title, color=ink)
        panel.set_xlabel("images turned by up to ± degrees", color=ink)
        panel.set_xticks(RANGES)
        panel.set_facecolor(paper)
        panel.tick_params(colors=ink)
        panel.grid(color=ink, alpha=0.15)
        for spine in panel.spines.values():
            spine.set_color(ink)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False,
                  labelcolor=ink)  # fmt: skip
    figure.savefig(path, dpi=150)


def tables(found: list[Row], update: InvarianceUpdate) -> list[Table]:
    """The analysis, and the update by angle and by depth."""
    first = Table(title=f"Measure against accuracy, {update.samples} images x {len(STEPS)} rotations")
    for header in (
        "turned by up to",
        "network trained on",
        "accuracy",
        "NV of the first layer",
        "NV of the last layer",
    ):
        first.add_column(header, justify="left" if "network" in header else "right")
    for most, name, share, start, end in found:
        first.add_row(f"± {most:g}°", f"{name} images", f"{share:.1%}", f"{start:.2f}", f"{end:.2f}")
    second = Table(title="The update by angle: h1 was trained on turned images, h2 on upright ones")
    for header in (
        "angle",
        "accuracy of h1",
        "accuracy of h2",
        "BTC",
        "NFR (95 % interval)",
        "invariance negative flips",
    ):
        second.add_column(header, justify="right")
    for row in sorted(update.table(), key=lambda row: row["size"]):
        low, high = row["nfr_interval"]
        second.add_row(
            f"{row['size']:g}°", f"{row['accuracy_h1']:.1%}", f"{row['accuracy_h2']:.1%}", f"{row['btc']:.1%}",
            f"{row['nfr']:.1%} ({low:.1%} to {high:.1%})", f"{row['negative_flip_rate']:.1%}",
        )  # fmt: skip
    third = Table(title="The update by depth: NV (0: invariant, 1: as sensitive to the angle as to the image)")
    for header in ("layer", "h1", "h2", "difference (95 % interval)"):
        third.add_column(header, justify="right")
    for row in update.depth_table():
        interval = row["difference_interval"]
        told = "" if interval is None else f" ({_signed(interval.low)} to {_signed(interval.high)})"
        third.add_row(row["layer"], f"{row['h1']:.2f}", f"{row['h2']:.2f}", f"{_signed(row['difference'])}{told}")
    return [first, second, third]


def _signed(value: float) -> str:
    # Nothing is -0.00.
    return f"{round(value, 2) + 0.0:+.2f}"


def show(found: list[Row], update: InvarianceUpdate, target: Any, out: Path) -> None:
    """Print three tables; write pictures, a TensorBoard log and a page of one file."""
    console = Console()
    for table in tables(found, update):
        console.print(table)
    low, high = update.interval("negative_flip_rate")
    console.print(
        f"h1 says of a turned image what it says of the upright one in {update.consistency_h1:.1%} of all cases, h2 in "
        f"{update.consistency_h2:.1%}: {update.negative_flip_rate:.1%} ({low:.1%} to {high:.1%}) are lost."
    )
    for suffix, dark in (("", False), ("-dark", True)):
        draw(found, out / f"analysis{suffix}.png", dark)
        update.plot_curves(out / f"curves{suffix}.png", dark=dark)
        update.plot_depth(out / f"depth{suffix}.png", dark=dark)
        update.plot_heat_maps(out / f"heat-maps{suffix}.png", dark=dark)
    upright = ANGLES.index(0)
    comparison = compare(target, update.h1_pred[:, upright], update.h2_pred[:, upright], num_classes=10)
    summary.comparison(str(out / "tensorboard"), comparison, step=0, dataset="test")
    summary.invariance(str(out / "tensorboard"), update, step=0, dataset="test")
    page = to_html(comparison, out / "invariance.html", invariance=update)
    console.print(f"pictures: {out}/*.png; the dashboard as one file: {page}; or: tensorboard --logdir {out}")
