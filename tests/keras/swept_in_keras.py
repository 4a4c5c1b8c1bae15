"""What the tests of sweeps train, and on what."""

import keras
import numpy as np
from backends import FEW_STEPS

from bc_core.sweep._folder import SweepFolder
from bc_core.sweep._points import Point
from bc_keras import sweep
from bc_keras.sweep._recipe import KerasRecipe

PLAIN, MIDDLE = Point(None, 0.0, 3), Point("new_error", 2.0, 3)
COMPILED = {"optimizer": "adam", "loss": "sparse_categorical_crossentropy"}
COMPILE = {**COMPILED, **FEW_STEPS}
FIT = {"epochs": 2, "batch_size": 16}


def net(units=3, activation="softmax"):
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(6, activation="relu"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(units, activation=activation),
        ]
    )


def data(rows=40, seed=0, classes=3):
    x = np.random.default_rng(seed).normal(size=(rows, 4)).astype("float32")
    return x, (x[:, :classes].argmax(1)).astype("int64")


class Pieces(keras.utils.PyDataset):
    """Batches of 8, in another order at each pass if wanted."""

    def __init__(self, *arrays, shuffle=True):
        super().__init__()
        self.arrays, self.shuffle, self.random = arrays, shuffle, np.random.default_rng(0)
        self.order = np.arange(len(arrays[0]))

    def __len__(self):
        return int(np.ceil(len(self.order) / 8))

    def __getitem__(self, index):
        if index == 0 and self.shuffle:
            self.order = self.random.permutation(len(self.order))
        return tuple(array[self.order[index * 8 : index * 8 + 8]] for array in self.arrays)


def recipe(h2, h1, train, val=None, test=None, losses=("new_error", "strict_imitation"), **options):
    given = {
        "compile": COMPILE,
        "fit": FIT,
        "model_options": {},
        "ids": {},
        "class_names": None,
        "metadata": None,
        "performance_metric": None,
        "evaluate_on_train": True,
        "store_h1": "auto",
        "save_models": True,
        **options,
    }
    return KerasRecipe(h2, h1, train, val, test, losses, **given)


def trained(recipe, folder, *points, trackers=()):
    place = SweepFolder(folder)
    place.begin(recipe.describe(), list(recipe.losses), points)
    recipe.trackers = trackers
    recipe.prepare(place.path)
    for point in points:
        place.train(point, recipe.train)
    return place


def run(h2, h1, train, folder, **options):
    return sweep(
        h2,
        h1,
        train,
        folder=folder,
        **{"compile": COMPILE, "fit": FIT, "progress_bar": False, "tensorboard": False} | options,
    )


def weights_of(place, point):
    return keras.saving.load_model(place.folder_of(point) / "model.keras").get_weights()


def assert_same(ours, theirs, tolerance=1e-6):
    # h1's rows come with the labels or from a call: sums may be taken in another order.
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, atol=tolerance, rtol=0)
