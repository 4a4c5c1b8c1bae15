"""The file of an invariance result: what is in it, and what is looked at before it is believed."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core.files._archives import read_archive

FORMAT = "backward-compat-invariance"
VERSION = 1

# What is known of each unit; the firing rates only if they were asked for, and NaN for units that never fire.
COLUMNS = ("tv_std", "tv_var", "sv_std", "sv_var", "between", "mean")
FIRING = ("firing_local", "firing_global")

Layers = list[tuple[dict[str, Any], dict[str, Any]]]


def packed(header: Mapping[str, Any], layers: Layers) -> bytes:
    """The file's content.

    Args:
        header: What is known of the result as a whole.
        layers: Of each layer, what describes it and its columns.
    """
    described = [description for description, _ in layers]
    text = json.dumps({"format": FORMAT, "version": VERSION, **header, "layers": described})
    arrays: dict[str, Any] = {
        f"{number}.{name}": values for number, (_, columns) in enumerate(layers) for name, values in columns.items()
    }
    content = io.BytesIO()
    np.savez_compressed(content, header=np.frombuffer(text.encode(), dtype=np.uint8), **arrays)
    return content.getvalue()


def unpacked(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Layers]:
    """Header and layers of a file.

    Raises:
        ValueError: It is no such file, of a later version, damaged, or what it says cannot be.
        OSError: It cannot be read.
    """
    arrays = read_archive(path)
    try:
        header = json.loads(arrays["header"].astype(np.uint8, casting="safe").tobytes())
        if header["format"] != FORMAT or not 0 < _whole(header["version"], "version") <= VERSION:
            raise ValueError(f"format {header['format']!r}, version {header['version']}")
        names = _texts(header["transforms"], "transforms")
        if not isinstance(header["sizes"], list) or len(header["sizes"]) != len(names):
            raise ValueError("sizes: expected one for each transformation")
        header["sizes"] = [math.nan if size is None else _number(size, "sizes") for size in header["sizes"]]
        left_out = header["left_out"]
        if not isinstance(left_out, dict):
            raise ValueError(f"left_out: expected reasons by layer, got {left_out!r}")
        _texts(list(left_out.values()), "left_out")
        if header["firing_rate"] is not None:
            _number(header["firing_rate"], "firing_rate")
        layers = [_layer(number, described, arrays) for number, described in enumerate(header["layers"])]
        known = {f"{number}.{column}" for number, (_, columns) in enumerate(layers) for column in columns}
        if strange := set(arrays) - known - {"header"}:
            raise ValueError(f"the entry {min(strange)!r} is of no layer")
    except KeyError as error:
        raise ValueError(f"the entry {error} is missing") from error
    except (TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(str(error)) from error
    return header, layers


def _layer(
    number: int, described: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    [name] = _texts([described["name"]], "name of a layer")
    shape = tuple(_whole(length, f"shape of {name!r}") for length in described["shape"])
    sizes = {key: _whole(described[key], f"{key} of {name!r}") for key in ("samples", "transformations")}
    axis = _whole(described["feature_axis"], f"feature_axis of {name!r}")
    if min(sizes.values()) < 2 or min(shape, default=1) < 1 or not 0 <= axis < max(1, len(shape)):
        raise ValueError(f"layer {name!r} cannot have the shape {shape}, the feature axis {axis} and {sizes}")
    columns = {}
    for column in (*COLUMNS, *FIRING):
        key = f"{number}.{column}"
        if column in FIRING and key not in arrays:
            continue
        values = arrays[key]
        if values.dtype != np.float64 or values.shape != (math.prod(shape),):
            raise ValueError(
                f"{column} of layer {name!r}: expected float64 of shape ({math.prod(shape)},), got {values.dtype} of "
                f"shape {values.shape}"
            )
        fine = np.isfinite(values) if column == "mean" else (values >= 0) & (values < np.inf)
        if not (fine | (np.isnan(values) & (column in FIRING))).all():
            raise ValueError(f"{column} of layer {name!r} holds NaN, infinite or negative values")
        columns[column] = values
    if len(columns) not in (len(COLUMNS), len(COLUMNS) + len(FIRING)):
        raise ValueError(f"layer {name!r} has one firing rate without the other")
    return {"name": name, "shape": shape, "feature_axis": axis, **sizes}, columns


def _whole(value: Any, name: str) -> int:
    if type(value) is not int:
        raise ValueError(f"{name}: expected a whole number, got {value!r}")
    return value


def _number(value: Any, name: str) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value!r}")
    return float(value)


def _texts(values: Any, name: str) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{name}: expected text, got {values!r}")
    return values
