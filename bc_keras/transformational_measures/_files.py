"""Models in files, those of Keras 2 too."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]  # comes with Keras
import keras


def load_model(path: str | os.PathLike[str]) -> Any:
    """A model from its file: ``.keras``, or ``.h5`` of Keras 3 or Keras 2.

    In files of Keras 2 the first layer of a `Sequential` may hold the shape of its inputs, batch included, which Keras
    3 takes for a shape without it.

    Args:
        path: The file, which stays as it is.
    """
    config = _keras_2_config(Path(path)) if os.fspath(path).endswith((".h5", ".hdf5")) else None
    if config is None:
        return keras.saving.load_model(path)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model.h5"
        shutil.copyfile(path, copy)
        with h5py.File(copy, "r+") as file:
            file.attrs["model_config"] = json.dumps(config)
        return keras.saving.load_model(copy)


def _keras_2_config(path: Path) -> dict[str, Any] | None:
    """What the model is, with a layer for its input; None where Keras 3 reads the file as it is."""
    with h5py.File(path, "r") as file:
        written = file.attrs.get("model_config")
    if written is None:
        return None
    config: dict[str, Any] = json.loads(written)
    inner = config.get("config")
    layers = inner.get("layers") if isinstance(inner, dict) else inner
    if config.get("class_name") != "Sequential" or not layers or layers[0]["class_name"] == "InputLayer":
        return None
    first = layers[0]["config"]
    shape = first.pop("batch_input_shape", None)
    if shape is None:
        return None
    given = {"batch_input_shape": shape, "dtype": first.get("dtype", "float32"), "name": f"{first['name']}_input"}
    layers.insert(0, {"class_name": "InputLayer", "config": given})
    return config
