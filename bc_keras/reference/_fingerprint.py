"""Fingerprints: is this the h1, are these the data items, that we saw before?"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from bc_core.reference._callable_fingerprint import fingerprint_of_callable

# What Keras appends to the name of a variable that was given none; it counts the variables of the process.
_COUNTED = re.compile(r"_\d+$")


def fingerprint(h1: Any) -> str:
    """Name an h1 by its content.

    For a Keras model or layer the hash runs over the class names of its layers and over name, dtype, shape and bytes
    of every weight. It does not depend on the backend, on the names of layers, on compilation or on `trainable`. It
    changes when any weight changes, be it in one bit. Settings that are no weights, such as an activation, are not
    seen.

    For another callable it is the callable's own `fingerprint` (a string, or a method that returns one) if there is
    one, else its qualified name and a hash of its content: its code, its defaults, and what it closes over or reads of
    globals, be it numbers, arrays, tensors, models or functions. Give a callable that reads weights from elsewhere a
    `fingerprint`. A bound method of a model is named by that model.

    Args:
        h1: a model, a layer or a callable.

    Returns:
        `"sha256:..."` for a model, `"callable:module.qualname#..."` for a callable without a name of its own.

    Raises:
        ValueError: a model that has no weights yet.

    Example:
        >>> import keras
        >>> from bc_keras.reference._fingerprint import fingerprint
        >>> model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])
        >>> copy = keras.models.clone_model(model)
        >>> fingerprint(copy) == fingerprint(model)
        False
        >>> copy.set_weights(model.get_weights())
        >>> fingerprint(copy) == fingerprint(model)
        True
    """
    if isinstance(h1, keras.Layer):
        return f"sha256:{_hash_layer(h1)}"
    return fingerprint_of_callable(h1, _read)


def _read(value: Any) -> str | None:
    """What is read of models and tensors that a callable uses."""
    if isinstance(value, keras.Layer):
        return f"sha256:{_hash_layer(value)}"
    if ops.is_tensor(value) or isinstance(value, keras.Variable):
        array = np.asarray(ops.convert_to_numpy(value))
        return f"tensor:{array.dtype} {array.shape} {hashlib.sha256(_bytes_of(array)).hexdigest()}"
    return None


def _hash_layer(model: Any) -> str:
    if not model.built:
        raise ValueError(
            "h1 has no weights yet, so it cannot be named: load it with keras.models.load_model, or call it once on a "
            f"batch and load its weights. Received: the unbuilt h1={model.name!r}."
        )
    digest = hashlib.sha256()
    for layer in model._flatten_layers():
        digest.update(f"layer {type(layer).__name__};".encode())
    for weight in model.weights:
        value = np.asarray(ops.convert_to_numpy(weight))
        # By Keras's names: torch hands bfloat16 to numpy as float32.
        shape, dtype = tuple(weight.shape), keras.backend.standardize_dtype(weight.dtype)
        digest.update(f"weight {_COUNTED.sub('', weight.name)} {dtype} {shape};".encode())
        digest.update(_bytes_of(value.astype(np.float32) if dtype == "bfloat16" else value))
    return digest.hexdigest()


class Leaf(NamedTuple):
    """What one array of an item is: its place (`x`, `x['image']`, `y`), its dtype, and its number of axes."""

    name: str
    dtype: str
    axes: int

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} with {self.axes} axes"


class Items(NamedTuple):
    """What the items of a data set are: of `"arrays"` or a `"dataset"`, whose hashes differ, and each of its arrays."""

    kind: str
    leaves: tuple[Leaf, ...]


def name_of_leaf(part: str, path: Sequence[Any]) -> str:
    """Say where an array stands in the structure of `x` or `y`."""
    return part + "".join(f"[{key!r}]" for key in path)


def fingerprint_rows(leaves: Sequence[Leaf], arrays: Sequence[NDArray[Any]]) -> NDArray[np.uint64]:
    """Hash each row of some arrays to 64 bits: place, dtype, shape and bytes.

    Args:
        leaves: what each array is.
        arrays: arrays with N rows each.

    Returns:
        Shape (N,), the same on every backend and in every process.

    Example:
        >>> import numpy as np
        >>> from bc_keras.reference._fingerprint import Leaf, fingerprint_rows
        >>> hashes = fingerprint_rows([Leaf("x", "float64", 1)], [np.array([[0.0, 1.0], [2.0, 3.0], [0.0, 1.0]])])
        >>> (hashes == hashes[0]).tolist()
        [True, False, True]
    """
    structure = [(str(leaf), array.shape[1:]) for leaf, array in zip(leaves, arrays, strict=True)]
    start = hashlib.blake2b(repr(structure).encode(), digest_size=8)
    buffers = [(_bytes_of(array), array.nbytes // max(1, len(array))) for array in arrays]
    digests = bytearray()
    for row in range(len(arrays[0])):
        digest = start.copy()
        for buffer, size in buffers:
            digest.update(buffer[row * size : (row + 1) * size])
        digests += digest.digest()
    return np.frombuffer(bytes(digests), np.uint64)


def _bytes_of(array: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
