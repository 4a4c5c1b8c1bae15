"""Out-of-fold outputs: what models say of items that they were not trained on.

What both sides promise: of Keras in a process that names a backend, of Lightning in any other.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

N, FEATURES, CLASSES = 23, 4, 3
GENERATOR = np.random.default_rng(8)
X = GENERATOR.normal(size=(N, FEATURES)).astype("float32")
Y = GENERATOR.integers(0, CLASSES, N)


def fitted(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Weights of a regression on one-hot labels: the same for the same items."""
    return np.linalg.lstsq(x.astype("float64"), np.eye(CLASSES)[y], rcond=None)[0].astype("float32")


def by_hand(folds: int, seed: int) -> np.ndarray:
    rows = np.empty((N, CLASSES))
    for fold in np.array_split(np.random.default_rng(seed).permutation(N), folds):
        rest = np.setdiff1d(np.arange(N), fold)
        rows[fold] = X[fold] @ fitted(X[rest], Y[rest])
    return rows


class Lightning:
    def __init__(self) -> None:
        import torch

        import bc_lightning

        self.torch, self.package = torch, bc_lightning

    def linear(self, weights: np.ndarray) -> Any:
        model = self.torch.nn.Linear(*weights.shape, bias=False)
        with self.torch.no_grad():
            model.weight.copy_(self.torch.tensor(weights.T))
        return model

    def data(self) -> Any:
        return self.torch.utils.data.TensorDataset(self.torch.tensor(X), self.torch.tensor(Y))

    def store(self, train: Any, path: Path, **options: Any) -> Any:
        """Out-of-fold outputs of models that a function of x and y makes; anything else is given as it is."""

        def on_items(items: Any) -> Any:
            x, y = zip(*items, strict=True)
            return train(self.torch.stack(x).numpy(), self.torch.stack(y).numpy())

        on_items.fingerprint = getattr(train, "fingerprint", "a function")
        is_function = callable(train) and not isinstance(train, self.torch.nn.Module)
        return self.package.store_outputs(on_items if is_function else train, self.data(), path, **options)

    def attached(self, stored: Any) -> np.ndarray:
        data = stored.attach(self.data())
        return np.stack([data[i].row.tensor.numpy() for i in range(N)])


class Keras:
    def __init__(self) -> None:
        import keras

        import bc_keras

        self.keras, self.package = keras, bc_keras

    def linear(self, weights: np.ndarray) -> Any:
        layers = self.keras.layers
        inputs, outputs = weights.shape
        model = self.keras.Sequential([layers.Input((inputs,)), layers.Dense(outputs, use_bias=False)])
        model.set_weights([weights])
        return model

    def store(self, train: Any, path: Path, **options: Any) -> Any:
        return self.package.store_outputs(train, X, path, y=Y, verbose=0, **options)

    def attached(self, stored: Any) -> np.ndarray:
        return stored.attach(X, Y)[1][:, 1:]


SIDE = Keras if "KERAS_BACKEND" in os.environ else Lightning


@pytest.fixture(scope="module", params=[SIDE])
def side(request):
    return request.param()


def training(side: Any, fails_at: int | None = None) -> Callable[[np.ndarray, np.ndarray], Any]:
    calls = []

    def train(x: np.ndarray, y: np.ndarray) -> Any:
        calls.append(len(x))
        if len(calls) == fails_at:
            raise KeyboardInterrupt
        return side.linear(fitted(x, y))

    train.calls = calls
    # It fills a list, so that its content cannot be read whole; as a name it is the same in both calls.
    train.fingerprint = "least squares"
    return train


@pytest.mark.parametrize(("folds", "seed"), [(5, 0), (2, 7), (N, 0)])
def test_each_row_is_of_a_model_that_has_not_seen_the_item(side, tmp_path, folds, seed):
    stored = side.store(training(side), tmp_path / "rows", folds=folds, seed=seed)
    np.testing.assert_allclose(np.asarray(stored[:]), by_hand(folds, seed), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(side.attached(stored), by_hand(folds, seed), rtol=1e-4, atol=1e-5)
    header = json.loads((tmp_path / "rows" / "header.json").read_text())
    assert (header["folds"], header["seed"], header["complete"]) == (folds, seed, True)
    assert len(set(header["fold_models"])) == folds
    assert all(name.startswith("sha256:") for name in header["fold_models"])


def test_finished_folds_are_not_trained_again(side, tmp_path):
    train = training(side)
    first = side.store(train, tmp_path / "rows", folds=4)
    again = side.store(train, tmp_path / "rows", folds=4)
    assert len(train.calls) == 4
    np.testing.assert_array_equal(np.asarray(first[:]), np.asarray(again[:]))


def test_interrupted_work_is_taken_up_at_its_fold(side, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        side.store(training(side, fails_at=3), tmp_path / "rows", folds=4)
    train = training(side)
    stored = side.store(train, tmp_path / "rows", folds=4)
    assert len(train.calls) == 2
    np.testing.assert_allclose(np.asarray(stored[:]), by_hand(4, 0), rtol=1e-4, atol=1e-5)


def test_a_fold_that_was_half_written_is_written_anew_by_one_model(side, tmp_path):
    stored = side.store(training(side), tmp_path / "rows", folds=4)
    item = 5
    row_bytes = 4 * CLASSES
    file = tmp_path / "rows" / "outputs.npy"
    content = bytearray(file.read_bytes())
    begins = len(content) - N * row_bytes + item * row_bytes
    content[begins : begins + row_bytes] = bytes(row_bytes)
    del stored
    file.write_bytes(bytes(content))
    trained = []

    def otherwise(x: np.ndarray, y: np.ndarray) -> Any:
        trained.append(len(x))
        return side.linear(2 * fitted(x, y))

    otherwise.fingerprint = "least squares"
    stored = side.store(otherwise, tmp_path / "rows", folds=4)
    assert len(trained) == 1
    fold = next(part for part in np.array_split(np.random.default_rng(0).permutation(N), 4) if item in part)
    expected = by_hand(4, 0)
    expected[fold] *= 2
    np.testing.assert_allclose(np.asarray(stored[:]), expected, rtol=1e-4, atol=1e-5)


def test_other_folds_seeds_and_functions_are_other_outputs(side, tmp_path):
    side.store(training(side), tmp_path / "rows", folds=4)
    other = training(side)
    other.fingerprint = "another"
    for train, options in (
        (training(side), {"folds": 5}),
        (training(side), {"folds": 4, "seed": 1}),
        (other, {"folds": 4}),
    ):
        with pytest.raises(ValueError, match="holds the outputs of another h1"):
            side.store(train, tmp_path / "rows", **options)


def test_a_model_that_saw_its_fold_is_refused(side, tmp_path):
    one = side.linear(fitted(X, Y))
    for train in (lambda x, y: one, lambda x, y: side.linear(fitted(X, Y))):
        with pytest.raises(ValueError, match="trained without fold 1 is that of another fold too"):
            side.store(train, tmp_path / f"rows{id(train)}", folds=3)
    with pytest.raises(TypeError, match="With folds, the first argument is a function"):
        side.store(one, tmp_path / "model", folds=3)


@pytest.mark.parametrize("folds", [1, 0, N + 1, 2.0, True])
def test_numbers_of_folds_that_are_none_are_refused(side, tmp_path, folds):
    with pytest.raises(ValueError, match=f"from 2 to that of the items, {N}"):
        side.store(training(side), tmp_path / "rows", folds=folds)


@pytest.mark.parametrize("seed", [None, 1.5, -1])
def test_a_seed_that_gives_no_folds_again_is_refused(side, tmp_path, seed):
    with pytest.raises(ValueError, match="seed must be a whole number >= 0"):
        side.store(training(side), tmp_path / "rows", folds=3, seed=seed)


@pytest.mark.skipif(SIDE is not Keras, reason="data sets of tf.data are Keras's")
@pytest.mark.parametrize("batch", [None, 6])
def test_folds_of_a_data_set_are_those_of_arrays(side, tmp_path, batch):
    tf = pytest.importorskip("tensorflow")
    dataset = tf.data.Dataset.from_tensor_slices((X, Y))
    dataset = dataset if batch is None else dataset.batch(batch)
    sizes = []

    def train(data: Any) -> Any:
        data = data if batch is None else data.unbatch()
        x, y = zip(*data.as_numpy_iterator(), strict=True)
        sizes.append(len(x))
        return side.linear(fitted(np.stack(x), np.stack(y)))

    train.fingerprint = "least squares"
    stored = side.package.store_outputs(train, dataset, tmp_path / "rows", folds=4, batch_size=7, verbose=0)
    np.testing.assert_allclose(np.asarray(stored[:]), by_hand(4, 0), rtol=1e-4, atol=1e-5)
    assert sizes == [N - len(fold) for fold in np.array_split(np.arange(N), 4)]
    if batch is not None:
        with pytest.raises(ValueError, match=r"give elements \(x, y\)"):
            side.package.store_outputs(train, dataset.map(lambda x, y: x), tmp_path / "x", folds=4, verbose=0)
