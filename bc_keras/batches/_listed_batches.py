"""Batches in a list, as the data sets of the original library are: ``(ids, x, y)`` or ``(x, y)`` each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from bc_core._arrays import id_array, to_numpy
from bc_core._batches_of_three import first_is_ids


def is_list_of_batches(data: Any) -> bool:
    """Whether these are batches in a list, and no arrays ``(x, y)``.

    Example:
        >>> import numpy as np
        >>> from bc_keras.batches._listed_batches import is_list_of_batches
        >>> x, y = np.ones((2, 3)), np.array([0, 1])
        >>> [is_list_of_batches(data) for data in ([(x, y)], [(["a", "b"], x, y)], (x, y), ([x, x], y))]
        [True, True, False, False]
    """
    return (
        isinstance(data, list | tuple)
        and len(data) > 0
        and all(
            isinstance(batch, list | tuple) and 2 <= len(batch) <= 3 and _has_rows(batch[-1]) and _has_arrays(batch[-2])
            for batch in data
        )
    )


def _has_rows(labels: Any) -> bool:
    return len(getattr(labels, "shape", ())) > 0 or isinstance(labels, list | tuple)


def _has_arrays(inputs: Any) -> bool:
    return any(hasattr(leaf, "shape") for leaf in keras.tree.flatten(inputs))


class ListedBatches:
    """Batches in a list: (x, y) or (x, y, sample_weight) of each that is not empty, and the ids of all.

    Args:
        batches: as `is_list_of_batches` knows them.
        name: what the caller calls them.

    Attributes:
        ids: those of all instances, or None where the batches have none: (x, y) or (x, y, sample_weight).

    Raises:
        ValueError: the batches are of several lengths, or the ids are not as many as the labels.
    """

    def __init__(self, batches: Sequence[Any], name: str = "dataset") -> None:
        lengths = {len(batch) for batch in batches}
        if len(lengths) != 1:
            raise ValueError(
                f"{name} must hold batches of one form, (ids, x, y) or (x, y). "
                f"Received: batches of lengths {', '.join(map(str, sorted(lengths)))}."
            )
        # Of batches of three the first that has instances tells what they are.
        filled = next((batch for batch in batches if len(batch[1])), batches[0])
        begins_with_ids = first_is_ids(filled) if lengths == {3} else False
        if begins_with_ids is None:
            raise ValueError(
                f"{name} has batches of three parts that may be (ids, x, y) or (x, y, sample_weight). Give pairs, and "
                "ids by themselves: [(x, y) for x, y, _ in batches], or [(x, y) for _, x, y in batches] with ids=[...]."
            )
        self._batches = [tuple(batch[1:] if begins_with_ids else batch) for batch in batches]
        self.ids: list[Any] | None = None
        if begins_with_ids:
            self.ids = []
            for ids, _, y in batches:
                named = id_array(ids, "ids, the first of each batch").tolist()
                if len(named) != len(y):
                    raise ValueError(
                        "The first of each batch (ids, x, y) must name its instances. "
                        f"Received: {len(named)} ids for {len(y)} labels."
                    )
                self.ids += named

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Pass over the data once."""
        return (batch for batch in self._batches if len(batch[1]))

    def arrays(self) -> tuple[Any, Any]:
        """All of x and all of y, as numpy arrays; x may be a structure of them."""
        read = [(_arrays(x), _arrays(y)) for x, y, *_ in self]
        x = keras.tree.map_structure(lambda *parts: np.concatenate(parts), *(x for x, _ in read))
        return x, np.concatenate([y for _, y in read])


class BatchesInOrder(keras.utils.PyDataset):
    """The same as training data: batch by batch, in the order of the list."""

    def __init__(self, batches: Sequence[Any], name: str) -> None:
        super().__init__()
        lengths = {len(batch) for batch in batches}
        if any(len(batch) == 3 and first_is_ids(batch) for batch in batches):
            raise ValueError(
                f"{name} must hold batches (x, y), or (x, y, sample_weight): of batches (ids, x, y) give "
                "[(x, y) for ids, x, y in batches]. Received: batches of three whose first is one-dimensional."
            )
        if len(lengths) != 1:
            raise ValueError(f"{name} must hold batches of one form, (x, y). Received: batches of lengths {lengths}.")
        self._read = [tuple(map(_arrays, batch)) for batch in batches]

    def __len__(self) -> int:
        return len(self._read)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return self._read[index]


def _arrays(part: Any) -> Any:
    """Arrays of a structure of tensors of any framework; a list of numbers is one array."""
    leaves = keras.tree.flatten(part)
    if leaves and not any(hasattr(leaf, "shape") for leaf in leaves):
        return np.asarray(part)
    return keras.tree.map_structure(_array, part)


def _array(leaf: Any) -> Any:
    return ops.convert_to_numpy(leaf) if ops.is_tensor(leaf) else to_numpy(leaf, "batch")
