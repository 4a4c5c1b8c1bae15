"""h1's stored rows on their way beside the items of a data set: into batches, through the Trainer, to the step.

Rows travel with their batch, whatever loader, sampler, worker or collection of loaders brings it; no step looks them up
again. They travel in an object of their own, which the Trainer's half precision does not round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, overload

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate, default_convert
from torch.utils.data._utils.collate import default_collate_fn_map

from bc_core._random_numbers import python_and_numpy_kept
from bc_core.reference._callable_fingerprint import is_same_h1

Collate = Callable[[Any], Any]

# So many values of an item tell it from others.
_COMPARED = 64


class Rows:
    """Rows of stored outputs: of one item, or of a batch.

    Attributes:
        tensor: h1's output for an item, shape ``(C,)``, or its label, shape ``()``; for a batch ``(N, C)`` or ``(N,)``.
        fingerprint: of the h1 that gave them.
        sources: the stored outputs that they were read from.
    """

    def __init__(self, tensor: Tensor, fingerprint: str, sources: frozenset[str]) -> None:
        self.tensor = tensor
        self.fingerprint = fingerprint
        self.sources = sources

    @classmethod
    def together(cls, rows: Sequence[Rows]) -> Rows:
        """The rows of a batch's items.

        Raises:
            ValueError: they are of different h1.
        """
        own = rows[0].fingerprint
        others = sorted({each.fingerprint for each in rows if not is_same_h1(own, each.fingerprint)})
        if others:
            raise ValueError(
                f"The items of one batch bring stored outputs of different h1, {own} and {others[0]}. Attach outputs "
                f"of one and the same h1."
            )
        sources = frozenset[str]().union(*(each.sources for each in rows))
        return cls(torch.stack([each.tensor for each in rows]), own, sources)

    def at(self, places: Any) -> Rows:
        """Those at some places of a batch, or the one at a place."""
        return Rows(self.tensor[places], self.fingerprint, self.sources)

    def pin_memory(self) -> Rows:
        """What a loader with ``pin_memory=True`` asks for."""
        return Rows(self.tensor.pin_memory(), self.fingerprint, self.sources)

    def __repr__(self) -> str:
        return repr(self.tensor)


def _collate_rows(batch: Sequence[Rows], **_: Any) -> Rows:
    return Rows.together(batch)


# PyTorch's default collate function asks here for types that it does not know.
default_collate_fn_map[Rows] = _collate_rows


class WithReference(NamedTuple):
    """A data-set item, or a collated batch of them, with h1's answer beside it.

    Attributes:
        sample: The item of the user's data set; in a batch, the collated items.
        index: Its index in the data set; in a batch, int64 of shape ``(N,)``.
        row: h1's output for it; in a batch, for each item.
    """

    sample: Any
    index: int | Tensor  # type: ignore[assignment]  # tuple has a method of this name, which nobody calls here
    row: Rows


class Brought(NamedTuple):
    """What a batch brought beside itself: h1's rows ``(N, C)`` or ``(N,)``, and the data-set indices ``(N,)``."""

    rows: Tensor
    indices: Tensor
    fingerprint: str
    sources: frozenset[str]


def split_batch(batch: Any) -> tuple[Any, Brought | None]:
    """Take the batch that a user's hooks expect out of one that an attached data set made.

    Args:
        batch: What the data loader yields, or several loaders in one mapping or sequence.

    Returns:
        The user's batch, and what it brought; ``None``, with the batch as it is, when its data set was not attached.

    Raises:
        ValueError: Several loaders bring stored outputs in one batch, so it is not known which belong to h2's input.

    Example:
        >>> import torch
        >>> from bc_lightning import StoredOutputs
        >>> stored = StoredOutputs.from_table([1, 0, 1])
        >>> data = torch.utils.data.TensorDataset(torch.arange(6.0).view(3, 2))
        >>> batch = next(iter(torch.utils.data.DataLoader(stored.attach(data), batch_size=2)))
        >>> user_batch, brought = split_batch(batch)
        >>> user_batch, brought.rows, brought.indices
        ([tensor([[0., 1.],
        [2., 3.]])], tensor([1, 0]), tensor([0, 1]))
        >>> split_batch("plain")
        ('plain', None)
    """
    if isinstance(batch, WithReference):
        rows = batch.row
        # Without automatic batching the index is a plain number.
        return batch.sample, Brought(rows.tensor, torch.as_tensor(batch.index), rows.fingerprint, rows.sources)
    if isinstance(batch, Mapping):
        parts = dict(batch)
    elif isinstance(batch, (list, tuple)):
        parts = dict(enumerate(batch))
    else:
        return batch, None
    attached = [key for key, part in parts.items() if isinstance(part, WithReference)]
    if not attached:
        return batch, None
    if len(attached) > 1:
        raise ValueError(
            f"The loaders {attached} all bring stored outputs of h1 in one batch, so it is not known which rows belong "
            f"to what h2 is called with. Give h1 itself, h1=old_model, or attach the outputs to the data set of one "
            f"loader."
        )
    parts[attached[0]], brought = split_batch(parts[attached[0]])
    if isinstance(batch, Mapping):
        return parts, brought
    return (list(parts.values()) if isinstance(batch, list) else tuple(parts.values())), brought


class RowsOfItems(Protocol):
    """What is asked of the stored outputs of a data set."""

    @property
    def path(self) -> Path | None:
        """Their folder."""

    @property
    def fingerprint(self) -> str:
        """Of the h1 that gave them."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Any) -> Tensor: ...

    def check_item(self, index: int, sample: Any) -> None:
        """Refuse an item that is not the one whose row is stored."""

    def is_item(self, sample: Any, indices: Sequence[int]) -> bool:
        """Whether a sample is one of some items."""


class Attached(Dataset[WithReference]):
    """A data set with h1's rows beside its items."""

    def __init__(self, stored: RowsOfItems, dataset: Dataset[Any], verify: bool) -> None:
        self.stored = stored
        self.dataset = dataset
        self.verify = verify
        self._sources = frozenset({str(stored.path or stored.fingerprint)})

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, index: Any) -> WithReference:
        """An item; or a batch of them, as the data set itself gives it for several indices at once."""
        if isinstance(index, slice):
            index = range(*index.indices(len(self)))
        numbers = np.asarray(index)
        if numbers.ndim == 0:
            return self.__getitems__([index])[0]
        if numbers.dtype == bool:
            numbers = np.flatnonzero(numbers)
        indices = self._checked(numbers.reshape(-1).tolist())
        batch = self.dataset[indices]
        rows = Rows(self.stored[indices], self.stored.fingerprint, self._sources)
        if self.verify:
            self._check_batch(indices, batch)
        return WithReference(batch, torch.tensor(indices, dtype=torch.int64), rows)

    def __getitems__(self, indices: Sequence[int]) -> _Items:
        # PyTorch asks for a whole batch when it can: the rows are then one read of the map.
        numbers = self._checked(indices)
        fetch = getattr(self.dataset, "__getitems__", None)
        samples = fetch(numbers) if fetch else [self.dataset[number] for number in numbers]
        if self.verify:
            for number, sample in zip(numbers, samples, strict=True):
                self.stored.check_item(number, sample)
        return _Items(list(samples), numbers, Rows(self.stored[numbers], self.stored.fingerprint, self._sources))

    def _checked(self, indices: Sequence[int]) -> list[int]:
        length = len(self)
        numbers = [int(index) + length if index < 0 else int(index) for index in indices]
        for number, index in zip(numbers, indices, strict=True):
            if not 0 <= number < length:
                raise IndexError(f"index {index} is outside a data set of {length} items")
        return numbers

    def _check_batch(self, indices: list[int], batch: Any) -> None:
        try:
            samples = [_item_of(batch, place, len(indices)) for place in range(len(indices))]
        except (TypeError, ValueError, IndexError, KeyError):
            samples = []
        if not any(self.stored.is_item(sample, indices) for sample in samples):
            # What the data set gives for one index need not be a slice of what it gives for several.
            samples = [self.dataset[index] for index in indices]
        for index, sample in zip(indices, samples, strict=True):
            self.stored.check_item(index, sample)


def _item_of(batch: Any, place: int, size: int) -> Any:
    """One item out of a batch that a data set gave for several indices."""
    if isinstance(batch, Mapping):
        return type(batch)((key, _item_of(part, place, size)) for key, part in batch.items())  # type: ignore[call-arg]
    if isinstance(batch, tuple) or (isinstance(batch, list) and len(batch) != size):
        parts = [_item_of(part, place, size) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    return batch[place]


class _Items(Sequence[WithReference]):
    """Items of one batch, each made when it is asked for: `collate_fn` takes the rows as the one tensor they are."""

    def __init__(self, samples: list[Any], indices: list[int], rows: Rows) -> None:
        self.samples = samples
        self.indices = indices
        self.rows = rows

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, position: int) -> WithReference: ...

    @overload
    def __getitem__(self, position: slice) -> _Items: ...

    def __getitem__(self, position: int | slice) -> WithReference | _Items:
        rows = self.rows.at(position)
        if isinstance(position, slice):
            return _Items(self.samples[position], self.indices[position], rows)
        return WithReference(self.samples[position], self.indices[position], rows)


class CollateWithReference:
    """A user's collate function, for items that have rows beside them; None for PyTorch's default."""

    def __init__(self, inner: Collate | None) -> None:
        self.inner = inner

    def __call__(self, items: Sequence[WithReference]) -> WithReference:
        """Collate.

        Raises:
            ValueError: the batch holds the items in another order than they were given in.
        """
        if isinstance(items, WithReference):
            # What a loader with batch_size=None passes on.
            return items._replace(sample=(self.inner or default_convert)(items.sample))
        if isinstance(items, _Items):
            samples, indices, rows = items.samples, items.indices, items.rows
        else:
            columns = zip(*items, strict=True)
            samples, indices, rows = list(next(columns)), list(next(columns)), Rows.together(next(columns))
        if self.inner is None:
            return WithReference(default_collate(samples), torch.tensor(indices), rows)
        given = list(samples)
        batch = self.inner(given)
        order = _order_of(given, samples)
        if order != list(range(len(samples))):
            # It has sorted or filtered the very list, so where each row belongs is known.
            indices, rows = [indices[place] for place in order], rows.at(order)
        elif _in_another_order(batch, samples):
            raise ValueError(
                f"The collate function {getattr(self.inner, '__qualname__', self.inner)} puts the items of a batch "
                f"into another order, in which h1's rows would belong to other items. Let it keep the order, sort the "
                f"list that it is given in place (items.sort(...)), or give h1 itself: h1=old_model."
            )
        return WithReference(batch, torch.tensor(indices), rows)


def check_collate(loader: Any) -> None:
    """Refuse a loader of an attached data set whose collate function was written for the items alone.

    It is tried on an item where it is neither PyTorch's nor ours.

    Raises:
        TypeError: it fails, or gives a batch without h1's rows.
    """
    collate: Any = getattr(loader, "collate_fn", None)
    dataset: Any = getattr(loader, "dataset", None)
    if collate in (None, default_collate, default_convert) or isinstance(collate, CollateWithReference):
        return
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__") or len(dataset) == 0:
        return
    with python_and_numpy_kept(), torch.random.fork_rng(devices=[]):
        item, reason = dataset[0], None
        if not isinstance(item, WithReference):
            return
        try:
            _, brought = split_batch(collate(item if loader.batch_size is None else [item]))
        except Exception as error:
            brought, reason = None, error
    if brought is None:
        name = getattr(collate, "__qualname__", type(collate).__name__)
        raise TypeError(
            f"The loader's data set brings h1's stored outputs beside its items, of which the collate function {name} "
            f"knows nothing. Make it one for both: DataLoader(..., collate_fn=stored.collate_fn({name}))."
        ) from reason


def _order_of(given: list[Any], samples: Sequence[Any]) -> list[int]:
    """Where each of the given items stood; a collate function may have changed the list."""
    if len(given) == len(samples) and all(one is other for one, other in zip(given, samples, strict=True)):
        return list(range(len(samples)))
    places = {id(sample): place for place, sample in enumerate(samples)}
    return [places.get(id(one), place) for place, one in enumerate(given)]


def _in_another_order(batch: Any, samples: Sequence[Any]) -> bool:
    """Whether parts of a batch are those of its items in another order, and none that tells them apart is in place."""
    moved = False
    for part, of_items in _parts(batch, samples):
        now, before = _rows_of(part), _rows_of(of_items)
        if now is None or before is None or len(now) != len(before):
            continue
        if now == before:
            if 2 * len(set(before)) > len(before):
                return False
        else:
            moved |= set(now) <= set(before)
    return moved


def _parts(batch: Any, samples: Sequence[Any]) -> Iterator[tuple[Any, list[Any]]]:
    """Parts of a batch beside the same parts of its items, where both are built alike."""
    first = samples[0]
    if isinstance(batch, Mapping) and isinstance(first, Mapping):
        for key in batch:
            if all(key in sample for sample in samples):
                yield from _parts(batch[key], [sample[key] for sample in samples])
    elif isinstance(batch, (list, tuple)) and isinstance(first, (list, tuple)):
        if all(len(sample) == len(batch) for sample in samples):
            for place, part in enumerate(batch):
                yield from _parts(part, [sample[place] for sample in samples])
    else:
        yield batch, list(samples)


def _rows_of(part: Any) -> list[bytes | str] | None:
    """The first values of each instance, as something to compare; None of what has not as many for each."""
    if isinstance(part, (list, tuple)) and part and all(isinstance(each, str) for each in part):
        return list(part)
    try:
        rows = [np.asarray(each, dtype=np.float64).reshape(-1)[:_COMPARED] for each in part]
    except (TypeError, ValueError, RuntimeError):
        return None
    return [row.tobytes() for row in rows] if len({len(row) for row in rows}) == 1 else None
