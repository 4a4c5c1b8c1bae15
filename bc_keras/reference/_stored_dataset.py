"""h1's stored outputs for a `tf.data.Dataset`: read in order, hashed and joined inside the pipeline.

The only file of the stored outputs that imports TensorFlow, and only where a data set of it was given; Keras may
run on any backend. The hash of an item is TensorFlow's own fingerprint (FarmHash64) of its bytes, since it has to be
computed for every item in every epoch, next to the user's own decoding.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from bc_core.reference._stored_rows import MOVED, OTHER_ITEM, SAMPLED_ITEMS
from bc_keras.batches._attached import join_tensors, weight_tensors
from bc_keras.reference._fingerprint import Leaf, name_of_leaf

# Indices, hashes, and inputs or rows.
Batch = tuple[NDArray[np.int64], NDArray[np.uint64], Any]

# tf.data's number for a data set without end.
_INFINITE = -1
_ITEMS_AT_ONCE = 32


def is_dataset(data: Any) -> bool:
    """Whether data are a `tf.data.Dataset`; does not import TensorFlow."""
    tf = sys.modules.get("tensorflow")
    return tf is not None and hasattr(tf, "data") and isinstance(data, tf.data.Dataset)


class DatasetItems:
    """A data set whose elements are items, or batches of them, in an order that stays.

    Args:
        dataset: elements x, (x, y) or (x, y, sample_weight), as `fit` takes them, batched or not.
        ranks: axes that h1's inputs have with the batch's, where they are known.
        leaves: what an item is, where it is known.

    Raises:
        TypeError: ragged or sparse elements.
        ValueError: elements of unknown rank, a data set without end, or one whose shapes do not tell items and
            batches apart.
    """

    kind = "dataset"

    def __init__(self, dataset: Any, ranks: Sequence[int] | None = None, leaves: Sequence[Leaf] | None = None) -> None:
        self.dataset = dataset
        if int(dataset.cardinality()) == _INFINITE:
            raise ValueError(
                "The data set has no end, so its items cannot be counted: attach first, and repeat the attached data "
                "set. Received: a tf.data.Dataset of infinite cardinality."
            )
        specs = _named(*_parts(dataset.element_spec)[:2])
        for name, spec in specs:
            _check_spec(name, spec)
        self.batched = _is_batched(specs, ranks, leaves)
        self.leaves = tuple(
            Leaf(name, _dtype_of(name, spec.dtype), len(spec.shape) - self.batched) for name, spec in specs
        )
        self._hashes: NDArray[np.uint64] | None = None
        self._batch_size = 1

    def in_batches_of(self, batch_size: int) -> DatasetItems:
        """Batch the items for h1, where they are not batched already."""
        self._batch_size = batch_size
        return self

    def hashes(self) -> NDArray[np.uint64]:
        """Hash all items: one pass over the data set, (N,)."""
        if self._hashes is None:
            found = [hashes.numpy() for hashes, _ in self._hashed()]
            if not sum(map(len, found)):
                raise ValueError("The data set is empty: give one with items. Received: no items.")
            self._hashes = np.concatenate(found).view(np.uint64)
        return self._hashes

    def batches(self, missing: NDArray[np.int64]) -> Iterator[Batch]:
        """Read the batches that hold an item whose row is missing: indices, hashes, inputs.

        Raises:
            ValueError: an item differs from what it was when it was hashed.
        """
        known, start = self.hashes(), 0
        is_missing = np.zeros(len(known), bool)
        is_missing[missing] = True
        for hashes, x in self._hashed():
            found = hashes.numpy().view(np.uint64)
            indices = np.arange(start, start + len(found))
            start += len(found)
            if start > len(known) or (found != known[indices]).any():
                index = int(indices[int((found != known[indices[0] :][: len(found)]).argmax())])
                raise ValueError(
                    f"item {index} of the data set differs when it is read twice, so one stored output cannot belong "
                    "to it: pass the data set without shuffling and random augmentation (shuffle and augment after "
                    "attaching), or use h1 itself instead of stored outputs. Received: a data set that changes."
                )
            if is_missing[indices].any():
                yield indices, found, _for_h1(x)

    def sample(self, known: NDArray[np.int64]) -> tuple[list[int], Any]:
        """The first few items, if their rows are known: indices and inputs."""
        _, x = next(iter(self._hashed().take(1)))
        known = known[: min(SAMPLED_ITEMS, len(keras.tree.flatten(x)[0]))]
        first = slice(int((known == np.arange(len(known))).sum()))
        return list(range(first.stop)), _for_h1(keras.tree.map_structure(lambda leaf: leaf[first], x))

    def without(self, items: NDArray[np.int64]) -> Any:
        """The data set without some items; in batches of the size of its first if it was batched."""
        tf = _tensorflow()
        with tf.device("CPU"):
            kept = tf.constant(~np.isin(np.arange(len(self.hashes())), items))
        dataset = self.dataset.unbatch() if self.batched else self.dataset
        # An element of several parts comes as so many arguments.
        rest = dataset.enumerate().filter(lambda number, *_: kept[number]).map(lambda _, *element: _element(element))
        if not self.batched:
            return rest
        first = next(iter(self.dataset.take(1)))
        return rest.batch(int(tf.shape(keras.tree.flatten(first)[0])[0]))

    def _hashed(self) -> Any:
        """A data set of batches (hashes, x)."""
        tf = _tensorflow()

        def hashed(*element: Any) -> Any:
            x, y, _ = _parts(element)
            return fingerprint_tensors(self.leaves, _tensors(self.leaves, x, y)), x

        batches = self.dataset if self.batched else self.dataset.batch(self._batch_size)
        return batches.map(hashed, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)

    def first(self, leaves: Sequence[Leaf]) -> NDArray[np.uint64]:
        """Hash the first few items, or the first batch, as they were hashed when they were stored."""
        found = [np.zeros(0, np.uint64)]
        for element in self.dataset.take(1 if self.batched else SAMPLED_ITEMS):
            x, y, _ = _parts(element)
            tensors = _tensors(leaves, x, y)
            if not self.batched:
                tensors = [tensor[None] for tensor in tensors]
            found.append(fingerprint_tensors(leaves, tensors).numpy().view(np.uint64))
        return np.concatenate(found)

    def check_length(self, length: int) -> None:
        """Compare the number of items with that of the stored outputs, where it can be known without reading all.

        Raises:
            ValueError: they differ, by more than a remainder that was dropped.
        """
        tf = _tensorflow()
        elements = int(self.dataset.cardinality())
        if elements < 0:
            return
        items = elements
        if self.batched:
            first = next(iter(self.dataset.take(1)), None)
            size = 0 if first is None else int(tf.shape(keras.tree.flatten(_parts(first)[0])[0])[0])
            if size and elements in (length // size, -(-length // size)) and (elements > 1 or size <= length):
                return
            # Batches may have several sizes; only reading them tells.
            items = sum(int(tf.shape(keras.tree.flatten(_parts(element)[0])[0])[0]) for element in self.dataset)
        if items != length:
            raise ValueError(
                f"the data set has {items} items, but h1's outputs were stored for {length}: attach the data set they "
                f"were stored for, and filter, split or repeat the attached one. Received: {items} items."
            )

    def attach(
        self,
        outputs: NDArray[Any],
        hashes: NDArray[np.uint64] | None,
        leaves: Sequence[Leaf],
        num_classes: int | None,
        class_weight: Mapping[int, float] | None,
    ) -> Any:
        """Join h1's rows to the targets, in the order of the items.

        Args:
            outputs: the rows, (N, C) or (N,).
            hashes: what every item is compared with when it is read; None to compare none.
            leaves: what was hashed of an item.
            num_classes: columns of labels.
            class_weight: weights of classes, multiplied into the sample weights.

        Returns:
            A `tf.data.Dataset` of (x, joined y) or (x, joined y, sample_weight), batched if the data set was.
        """
        tf = _tensorflow()
        specs = keras.tree.flatten(self.dataset.element_spec)
        if not self.batched and all(spec.shape.is_fully_defined() for spec in specs):
            # Item by item, the pipeline's own overhead would be many times the work.
            batches = DatasetItems(self.dataset.batch(_ITEMS_AT_ONCE), leaves=self.leaves)
            attached = batches.attach(outputs, hashes, leaves, num_classes, class_weight).unbatch()
            count = self.dataset.cardinality()
            return attached if int(count) < 0 else attached.apply(tf.data.experimental.assert_cardinality(count))
        with tf.device("CPU"):
            rows = tf.constant(np.asarray(outputs))
            known = None if hashes is None else tf.constant(np.asarray(hashes).view(np.int64))
        batched, length = self.batched, len(outputs)

        def number(start: Any, *element: Any) -> Any:
            element = element[0] if len(element) == 1 else element
            x, _, _ = _parts(element)
            size = tf.shape(keras.tree.flatten(x)[0], out_type=tf.int64)[0] if batched else tf.constant(1, tf.int64)
            return start + size, (start, size, element)

        def join(start: Any, size: Any, element: Any) -> Any:
            x, y, sample_weight = _parts(element)
            indices = start + tf.range(size)
            checks = []
            if known is not None:
                tensors = _tensors(leaves, x, y)
                found = fingerprint_tensors(leaves, tensors if batched else [tensor[None] for tensor in tensors])
                checks.append(_check_in_graph(found, indices, known))
            else:
                checks.append(_check_number(indices, length))
            with tf.control_dependencies(checks):
                brought = tf.gather(rows, tf.identity(indices))
            target = y if batched else y[None]
            joined = join_tensors(target, brought, num_classes)
            weight = sample_weight
            if class_weight is not None:
                weights = weight_tensors(target, joined, class_weight)
                weights = weights if batched else weights[0]
                weight = weights if weight is None else _times(weight, weights)
            joined = joined if batched else joined[0]
            return (x, joined) if weight is None else (x, joined, weight)

        numbered = self.dataset.scan(tf.constant(0, tf.int64), number)
        return numbered.map(join, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def fingerprint_tensors(leaves: Sequence[Leaf], tensors: Sequence[Any]) -> Any:
    """Hash each item of a batch to 64 bits, inside or outside a graph: place, dtype, shape and bytes.

    Args:
        leaves: what each tensor is.
        tensors: TensorFlow tensors of N items each.

    Returns:
        int64 of shape (N,). The same for an item in any batch.
    """
    tf = _tensorflow()
    size = tf.shape(tensors[0], out_type=tf.int64)[0]
    named = hashlib.blake2b("".join(map(str, leaves)).encode(), digest_size=8).digest()
    parts = [tf.tile(tf.constant(list(named), tf.uint8)[None], [size, 1])]
    for tensor in tensors:
        # Two texts side by side must not pass for one: TensorFlow hashes each of them, then their hashes.
        parts.append(tf.raw_ops.Fingerprint(data=tensor, method="farmhash64"))
        shape = tf.bitcast(tf.shape(tensor, out_type=tf.int64)[1:], tf.uint8)
        parts.append(tf.tile(tf.reshape(shape, [1, -1]), [size, 1]))
    return tf.bitcast(tf.raw_ops.Fingerprint(data=tf.concat(parts, axis=1), method="farmhash64"), tf.int64)


def _check_in_graph(found: Any, indices: Any, known: Any) -> Any:
    """Fail with the item, the reasons and the remedy when an item is not the stored one."""
    tf = _tensorflow()
    enough = _check_number(indices, known.shape[0])
    with tf.control_dependencies([enough]):
        right = tf.equal(found, tf.gather(known, tf.identity(indices)))

    def fail() -> Any:
        first = tf.argmin(tf.cast(right, tf.int8))
        elsewhere = tf.strings.as_string(tf.where(tf.equal(known, found[first]))[:1, 0])
        before, after = MOVED.split("{index}")
        moved = tf.strings.reduce_join(tf.strings.join([before, elsewhere, after]))
        return _fail(OTHER_ITEM, index=tf.strings.as_string(indices[first]), moved=moved)

    return tf.cond(tf.reduce_all(right), lambda: tf.constant(True), fail)


def _check_number(indices: Any, length: int) -> Any:
    tf = _tensorflow()
    text = (
        "the data set has more items than the {length} that h1's outputs were stored for: attach the data set they "
        "were stored for, and repeat the attached one"
    )
    enough = tf.reduce_all(indices < length)
    return tf.cond(enough, lambda: tf.constant(True), lambda: _fail(text, length=tf.constant(str(length))))


def _fail(text: str, **values: Any) -> Any:
    tf = _tensorflow()
    message = tf.constant(text)
    for name, value in values.items():
        message = tf.strings.regex_replace(message, "\\{" + name + "\\}", value)
    with tf.control_dependencies([tf.debugging.Assert(False, [message])]):
        return tf.constant(False)


def _times(sample_weight: Any, weights: Any) -> Any:
    """Multiply weights of items into a float type; items of more axes than their weight spread it."""
    tf = _tensorflow()
    dtype = sample_weight.dtype if sample_weight.dtype.is_floating else weights.dtype
    sample_weight = tf.cast(sample_weight, dtype)
    if len(sample_weight.shape) == len(weights.shape) + 1 and sample_weight.shape[-1] == 1:
        sample_weight = tf.squeeze(sample_weight, -1)
    while len(sample_weight.shape) < len(weights.shape):
        sample_weight = sample_weight[..., None]
    return sample_weight * tf.cast(weights, dtype)


def _tensorflow() -> Any:
    import tensorflow as tf

    return tf


def _element(parts: tuple[Any, ...]) -> Any:
    return parts[0] if len(parts) == 1 else parts


def _parts(element: Any) -> tuple[Any, Any, Any]:
    """An element as `fit` reads it: x, y, sample weight."""
    if not isinstance(element, tuple) or len(element) == 1:
        return (element[0] if isinstance(element, tuple) else element), None, None
    if len(element) > 3:
        raise ValueError(
            "Elements of the data set must be x, (x, y) or (x, y, sample_weight); several inputs form one tuple or "
            f"dict in the place of x. Received: elements of {len(element)} parts."
        )
    return (*element, None) if len(element) == 2 else element


def _named(x: Any, y: Any) -> list[tuple[str, Any]]:
    parts = [("x", x)] if y is None else [("x", x), ("y", y)]
    return [
        (name_of_leaf(part, path), leaf)
        for part, structure in parts
        for path, leaf in keras.tree.flatten_with_path(structure)
    ]


def _tensors(leaves: Sequence[Leaf], x: Any, y: Any) -> list[Any]:
    """The tensors of an item or batch that are hashed; whole-number targets of all types are one kind."""
    tf = _tensorflow()
    found = dict(_named(x, y))
    return [
        tf.cast(found[leaf.name], tf.int64)
        if leaf.name == "y" and found[leaf.name].dtype.is_integer
        else found[leaf.name]
        for leaf in leaves
    ]


def _dtype_of(name: str, dtype: Any) -> str:
    return "int64" if name == "y" and dtype.is_integer else str(dtype.name)


def _check_spec(name: str, spec: Any) -> None:
    tf = _tensorflow()
    if not isinstance(spec, tf.TensorSpec):
        raise TypeError(
            f"Items must be dense tensors, which have bytes to compare: turn {name} into one (to_tensor, "
            f"tf.sparse.to_dense) before. Received: {spec}."
        )
    if spec.shape.rank is None:
        raise ValueError(
            f"The number of axes of {name} must be known: set it with tf.ensure_shape in a map before. "
            f"Received: {spec}."
        )


def _is_batched(specs: list[tuple[str, Any]], ranks: Sequence[int] | None, leaves: Sequence[Leaf] | None) -> bool:
    """Tell batches from items by their shapes, as `fit` need not: it takes batches only."""
    inputs = sorted(len(spec.shape) for name, spec in specs if name.startswith("x"))
    for expected in (sorted(leaf.axes + 1 for leaf in leaves if leaf.name.startswith("x")) if leaves else None, ranks):
        if expected is not None:
            if inputs == sorted(expected):
                return True
            if [rank + 1 for rank in inputs] == sorted(expected):
                return False
    if any(len(spec.shape) == 0 for _, spec in specs):
        return False
    first = {spec.shape[0] for _, spec in specs}
    if len(first) > 1:
        return False
    if first == {None}:
        return True
    raise ValueError(
        "The shapes of the data set do not tell whether its elements are items or batches: give it batched with "
        f"dataset.batch(n) (without drop_remainder). Received: {', '.join(f'{name} {spec}' for name, spec in specs)}."
    )


def _for_h1(x: Any) -> Any:
    # Only TensorFlow reads its own tensors; numpy is what all backends read.
    return x if keras.backend.backend() == "tensorflow" else keras.tree.map_structure(lambda leaf: leaf.numpy(), x)
