"""From what callers hold (lists, tensors of any framework, columns of a table) to numpy, by duck typing.

No framework is imported here: a tensor is recognised by the methods it offers, so that comparing two files of
labels never costs the seconds that importing torch or tensorflow takes.
"""

from __future__ import annotations

from array import array as stdlib_array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

INT64_MAX = np.iinfo(np.int64).max


def to_numpy(values: Any, name: str) -> NDArray[Any]:
    """Convert `values` to a numpy array of any shape.

    Args:
        values: A numpy array, (nested) list, torch tensor on any device, TensorFlow or JAX tensor, pandas column,
            or anything else numpy understands.
        name: What the caller calls this argument; it opens every error message.

    Returns:
        The array; the caller's memory is shared where the framework allows it. Bytes become text.

    Raises:
        TypeError: If `values` is no array, has ragged rows, or mixes text with numbers.
    """
    if isinstance(values, np.ndarray):
        array: NDArray[Any] = values
    elif hasattr(values, "detach") and hasattr(values, "cpu"):
        array = _from_torch(values)
    elif isinstance(values, (list, tuple)):
        array = _from_sequence(values, name)
    elif isinstance(values, (str, bytes, dict, set, frozenset)) or not (
        hasattr(values, "__array__") or hasattr(values, "numpy") or hasattr(values, "__len__")
    ):
        raise TypeError(
            f"{name}: expected one entry per instance (a list, an array or a tensor), "
            f"got {type(values).__name__}; pass a sequence of length N"
        )
    else:
        array = _from_array_like(values, name)
    return _plain(array, name)


def label_array(values: Any, name: str) -> NDArray[Any]:
    """Convert predicted or true labels to a one-dimensional array of integers or of text.

    Args:
        values: N labels, shape (N,) or (N, 1): integers of any width, bools, whole-number floats or text.
        name: What the caller calls this argument.

    Returns:
        Shape (N,). Bools and whole floats become int64, integers keep their width, text is a numpy `str` array.

    Raises:
        ValueError: If there is no label, the shape is another one, or a float is NaN, infinite or not whole.
        TypeError: If the labels are neither numbers nor text.
    """
    array = flat(to_numpy(values, name))
    if array.ndim != 1:
        advice = (
            "pass one label per instance, e.g. scores.argmax(axis=1)"
            if array.ndim == 2
            else "flatten it so that every entry is one instance"
        )
        raise ValueError(f"{name}: expected labels of shape (N,) or (N, 1), got shape {array.shape}; {advice}")
    if array.size == 0:
        raise ValueError(f"{name}: expected at least one label, got none; check that the data loader is not empty")
    if array.dtype.kind == "b":
        return array.astype(np.int64)
    if array.dtype.kind == "f":
        return _whole_floats(array, name)
    if array.dtype.kind == "u" and array.dtype.itemsize == 8 and int(array.max()) <= INT64_MAX:
        # numpy compares uint64 with int64 in float64 before 1.25, where large labels collide.
        return array.astype(np.int64)
    if array.dtype.kind in "iuU":
        return array
    raise TypeError(
        f"{name}: expected labels that are integers, bools or text, got dtype {array.dtype}; "
        "convert them to one of those first"
    )


def flat(array: NDArray[Any]) -> NDArray[Any]:
    """A column of shape (N, 1) as (N,); all else as it is."""
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def _true_labels(values: Any, name: str) -> NDArray[Any]:
    """True labels, which a data set may hold as one-hot rows (N, C)."""
    array = to_numpy(values, name)
    if array.ndim == 2 and array.shape[1] > 1 and array.dtype.kind in "biuf":
        if not (np.isin(array, (0, 1)).all() and (array.sum(axis=1) == 1).all()):
            raise ValueError(
                f"{name}: expected labels of shape (N,), or one-hot rows with a single 1 each, got rows of shape "
                f"{array.shape} that are not; pass the class of each instance, e.g. rows.argmax(axis=1)"
            )
        classes: NDArray[Any] = array.argmax(axis=1)
        return classes
    return label_array(array, name)


def matching_labels(
    expected: Any, h1: Any, h2: Any, names: tuple[str, str, str]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Convert targets and both predictions, and refuse what cannot be compared instance by instance.

    Args:
        expected: N true labels, or one-hot rows (N, C).
        h1: N labels predicted by h1.
        h2: N labels predicted by h2.
        names: What the caller calls the three arguments, in the same order.

    Returns:
        Three arrays of shape (N,), all of integers or all of text.

    Raises:
        ValueError: As `label_array`, or if the lengths differ.
        TypeError: As `label_array`, or if text would be compared with numbers.
    """
    arrays = (_true_labels(expected, names[0]), label_array(h1, names[1]), label_array(h2, names[2]))
    lengths = [len(array) for array in arrays]
    if len(set(lengths)) > 1:
        got = ", ".join(f"{name} has {length}" for name, length in zip(names, lengths, strict=True))
        raise ValueError(
            f"expected as many labels from h1 and h2 as there are targets, got {got}; "
            "pass one label per instance, in the same order, in all three"
        )
    is_text = [array.dtype.kind == "U" for array in arrays]
    if len(set(is_text)) > 1:
        got = ", ".join(
            f"{name} holds {'text' if text else 'numbers'}" for name, text in zip(names, is_text, strict=True)
        )
        raise TypeError(
            f"expected labels of one kind, got a mixture: {got}; text never equals a number, "
            "so map the class names to class numbers (or back) first"
        )
    return arrays


def id_array(values: Any, name: str) -> NDArray[Any]:
    """Convert instance ids to a one-dimensional array that keeps every id exactly.

    Args:
        values: N ids, shape (N,) or (N, 1), all integers or all text.
        name: What the caller calls this argument.

    Returns:
        Shape (N,): int64, or `object` holding `str` (a numpy text array would drop trailing NUL characters and
        give every id the room of the longest).

    Raises:
        ValueError: If the shape is another one or an integer does not fit in 64 bits.
        TypeError: If the ids are neither integers nor text.
    """
    texts = _as_texts(values)
    if texts is not None:
        return text_objects(texts)
    array = flat(to_numpy(values, name))
    if array.ndim != 1:
        raise ValueError(f"{name}: expected ids of shape (N,), got shape {array.shape}; pass one id per instance")
    if array.dtype.kind == "U":
        return text_objects(array.tolist())
    if array.dtype.kind == "u" and array.size and int(array.max()) > INT64_MAX:
        raise ValueError(f"{name}: expected integers below 2**63, got {array.max()}; pass ids this long as text")
    if array.dtype.kind in "iu" or array.size == 0:
        return array.astype(np.int64)
    raise TypeError(f"{name}: expected ids that are integers or text, got dtype {array.dtype}; convert them first")


def check_unique_ids(ids: Sequence[Any], name: str) -> None:
    """Refuse ids of which one names several instances, before anything is computed that they would have to name.

    Raises:
        ValueError: An id comes twice.

    Example:
        >>> from bc_core._arrays import check_unique_ids
        >>> check_unique_ids([0, 1, 1], "ids")
        Traceback (most recent call last):
        ValueError: ids must be unique, one for each instance. Received: 1 more than once, 1 of 2 different ids. ...
    """
    several = twins(ids)
    if not several:
        return
    shown = ", ".join(map(repr, several[:5]))
    raise ValueError(
        f"{name} must be unique, one for each instance. Received: {shown} more than once, {len(several)} of "
        f"{len(set(ids))} different ids. Do batches overlap? Name each instance once, or leave ids out, of a list of "
        "batches with [(x, y) for ids, x, y in batches]: instances are then named by their position."
    )


def twins(values: Iterable[Any]) -> list[Any]:
    """Those that are there more than once, in the order in which they came."""
    return [value for value, count in Counter(values).items() if count > 1]


def _tensor_of_objects(values: Any) -> Any:
    # Only TensorFlow has tensors of text; one of torch that requires a gradient refuses `.numpy()`.
    return values.numpy() if hasattr(values, "numpy") and not hasattr(values, "detach") else None


def _as_texts(values: Any) -> list[str] | None:
    """Return the `str` objects that a sequence, a column or a tensor of text holds; None if it holds anything else."""
    if not isinstance(values, (list, tuple)):
        array = values if isinstance(values, np.ndarray) else _tensor_of_objects(values)
        if (
            not isinstance(array, np.ndarray)
            or array.dtype.kind != "O"
            or array.shape not in ((array.size,), (array.size, 1))
        ):
            return None
        values = [value.decode("utf-8") if isinstance(value, bytes) else value for value in array.ravel().tolist()]
    return list(values) if values and all(isinstance(value, str) for value in values) else None


class EqualByFields:
    """A dataclass of which fields may hold arrays, alone or by name: equal where all of these are."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return NotImplemented
        names = [each.name for each in fields(cast("Any", self))]
        return all(_are_same(getattr(self, name), getattr(other, name)) for name in names)

    __hash__ = None  # type: ignore[assignment]


def _are_same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return type(a) is type(b) and a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_are_same(value, b[name]) for name, value in a.items())
    return bool(a == b)


def text_objects(texts: Any) -> NDArray[Any]:
    """Hold `str` objects in an array of dtype object, unchanged, with numpy's indexing."""
    array = np.empty(len(texts), dtype=object)
    array[:] = texts
    return array


def _from_torch(tensor: Any) -> NDArray[Any]:
    tensor = tensor.detach().cpu()
    try:
        array: NDArray[Any] = tensor.numpy()
    except TypeError:  # bfloat16 has no counterpart in numpy
        array = tensor.float().numpy()
    return array


def _from_sequence(values: list[Any] | tuple[Any, ...], name: str) -> NDArray[Any]:
    if values and hasattr(values[0], "detach"):
        values = [_from_torch(value) for value in values]
    elif values and not isinstance(values[0], np.generic) and hasattr(values[0], "numpy"):
        values = [value.numpy() for value in values]
    if (integers := _from_integers(values)) is not None:
        return integers
    try:
        array = np.asarray(values)
    except ValueError as error:  # numpy's message does not say which argument was ragged
        raise TypeError(f"{name}: expected one label per instance, got rows of different lengths") from error
    if array.dtype.kind == "U" and array.ndim == 1 and not all(isinstance(value, str) for value in values):
        # numpy would turn the number 1 into the text "1" and nan into "nan".
        odd = next(value for value in values if not isinstance(value, str))
        raise TypeError(
            f"{name}: expected all text or all numbers, got text mixed with {odd!r} ({type(odd).__name__}); "
            "convert the labels to one kind first"
        )
    return array


def _from_integers(values: list[Any] | tuple[Any, ...]) -> NDArray[Any] | None:
    """Convert a list of integers several times faster than `np.asarray`; None if it holds anything else.

    Both conversions accept integers only: a float or a text raises TypeError, a number too wide the other two.
    """
    with suppress(TypeError, ValueError):
        return np.frombuffer(bytes(values), dtype=np.uint8)
    with suppress(TypeError, OverflowError):
        return np.frombuffer(stdlib_array("q", values), dtype=np.int64)
    return None


def _from_array_like(values: Any, name: str) -> NDArray[Any]:
    try:
        return np.asarray(values.numpy() if hasattr(values, "numpy") else values)
    except Exception as error:
        raise TypeError(
            f"{name}: {type(values).__name__} cannot be converted to numpy ({error}); "
            "pass an array or a tensor that holds values (not a symbolic one)"
        ) from error


def _plain(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Bring object, bytes and extension dtypes down to numbers or text."""
    kind = array.dtype.kind
    if kind == "V":  # bfloat16 and its kin, as JAX and ml_dtypes hand them over
        try:
            return array.astype(np.float32)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name}: expected numbers or text, got dtype {array.dtype}") from error
    if kind == "T":
        return array.astype(str)
    if kind == "S":
        return np.char.decode(array, "utf-8")
    if kind == "O":
        return _from_objects(array, name)
    return array


def _from_objects(array: NDArray[Any], name: str) -> NDArray[Any]:
    values = [value.decode("utf-8") if isinstance(value, bytes) else value for value in array.ravel().tolist()]
    plain = _from_sequence(values, name)
    if plain.dtype.kind == "O" or plain.ndim != 1:
        odd = next(
            (value for value in values if not isinstance(value, (int, float, str))), values[0] if values else None
        )
        raise TypeError(
            f"{name}: expected integers, bools or text, got Python objects such as {odd!r} "
            f"({type(odd).__name__}); drop missing values and convert the rest first"
        )
    return plain.reshape(array.shape)


def _whole_floats(array: NDArray[Any], name: str) -> NDArray[np.int64]:
    odd = ~np.isfinite(array)
    if odd.any():
        index = int(odd.argmax())
        raise ValueError(
            f"{name}: expected labels, got {array[index]} at position {index}; "
            "a model that outputs NaN or infinity has no prediction there, so repair its outputs first"
        )
    odd = np.abs(array.astype(np.float64)) >= 2.0**63
    if odd.any():
        index = int(odd.argmax())
        raise ValueError(
            f"{name}: expected class labels, got {array[index]:.0f} at position {index}, which does not fit in 64 "
            "bits; map the labels to 0..C-1"
        )
    odd = array != np.rint(array)
    if odd.any():
        index = int(odd.argmax())
        raise ValueError(
            f"{name}: expected class labels (whole numbers), got {array[index]} at position {index}; these look like "
            "scores: take the argmax over the classes, or compare with a threshold such as 0.5, first"
        )
    return array.astype(np.int64)
