"""Models, data and stored outputs of either side, as tests of stored outputs need them."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = 3


class Lightning:
    """Stored outputs of a map-style data set."""

    name = "bc_lightning"
    # What a row looks like is learnt from one item, else from the first batch.
    asked_first = asked_before_room = 1

    def __init__(self) -> None:
        import torch

        from bc_lightning import StoredOutputs, store_outputs
        from bc_lightning.reference._fingerprint import fingerprint

        self.torch, self.StoredOutputs, self._store, self.fingerprint = torch, StoredOutputs, store_outputs, fingerprint

    def model(self, seed: int = 0) -> Any:
        nn = self.torch.nn
        self.torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, CLASSES))
        model(self.torch.randn(64, 4) * 3 + 1)
        return model

    def linear(self, weights: np.ndarray) -> Any:
        model = self.torch.nn.Linear(*weights.shape, bias=False)
        with self.torch.no_grad():
            model.weight.copy_(self.torch.tensor(weights.T))
        return model

    def weights(self, h1: Any) -> list[np.ndarray]:
        return [value.numpy().copy() for value in h1.state_dict().values()]

    def by_hand(self, h1: Any, x: np.ndarray) -> np.ndarray:
        """One item at a time."""
        import copy

        with self.torch.no_grad():
            return np.concatenate([copy.deepcopy(h1).eval()(self.torch.tensor(x[i : i + 1])) for i in range(len(x))])

    def cast(self, x: Any, dtype: str) -> Any:
        return x.to(getattr(self.torch, dtype))

    def argmax(self, x: Any) -> Any:
        return x.argmax(1)

    def items(self, x: np.ndarray, y: np.ndarray | None) -> Any:
        return self.torch.utils.data.TensorDataset(*(self.torch.tensor(part) for part in (x, y) if part is not None))

    def store(self, h1: Any, x: np.ndarray, y: np.ndarray | None, path: Path, **options: Any) -> Any:
        return self._store(h1, self.items(x, y), path, **options)

    def verify(self, stored: Any, h1: Any, x: np.ndarray, y: np.ndarray | None = None) -> None:
        stored.verify(h1, self.items(x, y))

    def read(self, stored: Any, x: np.ndarray, y: np.ndarray, verify: bool = True) -> np.ndarray:
        """Every row, as training sees it."""
        attached = stored.attach(self.items(x, y), verify=verify)
        return np.stack([attached[i].row.tensor.numpy() for i in range(len(attached))])

    def tensor(self, values: list[int]) -> Any:
        return self.torch.tensor(values)


class Keras:
    """Stored outputs of arrays."""

    name = "bc_keras"
    asked_first, asked_before_room = 0, 8

    def __init__(self) -> None:
        import keras

        from bc_keras import StoredOutputs, store_outputs
        from bc_keras.reference._fingerprint import fingerprint

        self.keras, self.StoredOutputs, self._store, self.fingerprint = keras, StoredOutputs, store_outputs, fingerprint

    def model(self, seed: int = 0) -> Any:
        layers = self.keras.layers
        self.keras.utils.set_random_seed(seed)
        hidden = [layers.Dense(8, activation="relu"), layers.BatchNormalization(), layers.Dropout(0.5)]
        return self.keras.Sequential([layers.Input((4,)), *hidden, layers.Dense(CLASSES, activation="softmax")])

    def linear(self, weights: np.ndarray) -> Any:
        layers = self.keras.layers
        inputs, outputs = weights.shape
        model = self.keras.Sequential([layers.Input((inputs,)), layers.Dense(outputs, use_bias=False)])
        model.set_weights([weights])
        return model

    def weights(self, h1: Any) -> list[np.ndarray]:
        return [weight.copy() for weight in h1.get_weights()]

    def by_hand(self, h1: Any, x: np.ndarray) -> np.ndarray:
        """One item at a time."""
        to_numpy = self.keras.ops.convert_to_numpy
        return np.concatenate([to_numpy(h1(x[i : i + 1], training=False)) for i in range(len(x))])

    def cast(self, x: Any, dtype: str) -> Any:
        # JAX has no float64 of its own.
        return self.keras.ops.convert_to_numpy(x).astype(dtype) if dtype == "float64" else self.keras.ops.cast(x, dtype)

    def argmax(self, x: Any) -> Any:
        return self.keras.ops.argmax(x, axis=1)

    def store(self, h1: Any, x: np.ndarray, y: np.ndarray | None, path: Path, **options: Any) -> Any:
        return self._store(h1, x, path, y=y, verbose=0, **options)

    def verify(self, stored: Any, h1: Any, x: np.ndarray, y: np.ndarray | None = None) -> None:
        stored.verify(h1, x, y)

    def read(self, stored: Any, x: np.ndarray, y: np.ndarray, verify: bool = True) -> np.ndarray:
        """Every row, as training sees it."""
        return stored.attach(x, y, verify=verify, num_classes=1 if stored.labels_only else None)[1][:, 1:]

    def tensor(self, values: list[int]) -> Any:
        return self.keras.ops.convert_to_tensor(values)


class Service:
    """Doubles its input, counts the items that it was asked about, and stops working after some."""

    fingerprint = "service 1"

    def __init__(self, limit: float = float("inf"), factor: float = 2.0) -> None:
        self.asked, self.limit, self.factor = 0, limit, factor

    def stop(self) -> None:
        raise RuntimeError("power cut")

    def __call__(self, x):
        if self.asked + len(x) > self.limit:
            self.stop()
        self.asked += len(x)
        return x * self.factor


class PressesCtrlC(Service):
    """As `Service`, but Ctrl-C is what stops it."""

    def stop(self) -> None:
        self.limit = float("inf")
        signal.raise_signal(signal.SIGINT)
