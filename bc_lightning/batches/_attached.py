"""h1's stored rows on their way beside the items of a data set: into batches, through the Trainer, to the step.

Rows travel with their batch, whatever loader, sampler, worker or collection of loaders brings it; no step looks them up
again. They travel in an object of their own, which the Trainer's half precision does not round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, overload

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torch.utils.data._utils.collate import default_collate_fn_map

Collate = Callable[[list[Any]], Any]


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
        others = sorted({each.fingerprint for each in rows})
        if len(others) > 1:
            raise ValueError(
                f"The items of one batch bring stored outputs of different h1, {others[0]} and {others[1]}. Attach "
                f"outputs of one and the same h1."
            )
        sources = frozenset[str]().union(*(each.sources for each in rows))
        return cls(torch.stack([each.tensor for each in rows]), others[0], sources)

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


class Attached(Dataset[WithReference]):
    """A data set with h1's rows beside its items."""

    def __init__(self, stored: RowsOfItems, dataset: Dataset[Any], verify: bool) -> None:
        self.stored = stored
        self.dataset = dataset
        self.verify = verify
        self._sources = frozenset({str(stored.path or stored.fingerprint)})

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, index: int) -> WithReference:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> _Items:
        # PyTorch asks for a whole batch when it can: the rows are then one read of the map.
        length = len(self)
        numbers = [int(index) + length if index < 0 else int(index) for index in indices]
        for number, index in zip(numbers, indices, strict=True):
            if not 0 <= number < length:
                raise IndexError(f"index {index} is outside a data set of {length} items")
        fetch = getattr(self.dataset, "__getitems__", None)
        samples = fetch(numbers) if fetch else [self.dataset[number] for number in numbers]
        if self.verify:
            for number, sample in zip(numbers, samples, strict=True):
                self.stored.check_item(number, sample)
        return _Items(list(samples), numbers, Rows(self.stored[numbers], self.stored.fingerprint, self._sources))


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
        rows = Rows(self.rows.tensor[position], self.rows.fingerprint, self.rows.sources)
        if isinstance(position, slice):
            return _Items(self.samples[position], self.indices[position], rows)
        return WithReference(self.samples[position], self.indices[position], rows)


class CollateWithReference:
    """A user's collate function, for items that have rows beside them."""

    def __init__(self, inner: Collate) -> None:
        self.inner = inner

    def __call__(self, items: Sequence[WithReference]) -> WithReference:
        """Collate."""
        if isinstance(items, _Items):
            return WithReference(self.inner(items.samples), torch.tensor(items.indices), items.rows)
        samples, indices, rows = zip(*items, strict=True)
        return WithReference(self.inner(list(samples)), torch.tensor(indices), Rows.together(rows))
