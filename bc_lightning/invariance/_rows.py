"""Data of torch as tiles of whole rows, whatever they came as."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bc_core._arrays import to_numpy
from bc_core.invariance._rows import Piece, Rows, Where, class_numbers
from bc_lightning.batches._model_outputs import _describe, _part, inputs_from_batch, target_from_batch
from bc_lightning.training.data._reader import in_order


class TorchRows(Rows):
    """Inputs, and targets where they are wanted, in pieces.

    Args:
        data: A tensor or array of inputs (N, ...), a ``Dataset``, a data loader, or another iterable of batches.
        rows: Samples in a piece.
        inputs: Where inputs are in a batch.
        target: Where targets are in a batch.
        with_target: Whether targets are read.

    Raises:
        TypeError: Data of another kind.
    """

    def __init__(
        self, data: Any, rows: int, inputs: Where | None, target: Where | None = None, with_target: bool = False
    ) -> None:
        if isinstance(data, np.ndarray):
            # torch warns of memory that it may not write to, such as a read-only map's.
            data = torch.as_tensor(np.require(data, requirements="W"))
        if isinstance(data, (tuple, list)) and any(isinstance(part, (Tensor, np.ndarray)) for part in data):
            raise TypeError(
                "data: expected a tensor of inputs, a data loader, a list of batches such as [(x, y), ...] or a "
                "Dataset, got a list of tensors themselves; pass TensorDataset(inputs, target), or one tensor"
            )
        if not isinstance(data, (Tensor, Dataset)) and not hasattr(data, "__iter__"):
            raise TypeError(
                f"data: expected a tensor of inputs, a data loader, batches or a Dataset, got {_describe(data)}"
            )
        super().__init__(data, rows)
        self._inputs, self._target, self._with_target = inputs, target, with_target

    @property
    def in_order(self) -> bool | None:
        """Whether another round brings the samples in the same order."""
        if isinstance(self._data, DataLoader):
            return in_order(self._data)
        return True if isinstance(self._data, (Tensor, Dataset, list, tuple)) else None

    def _pieces(self) -> Iterator[Piece]:
        data = self._data
        if isinstance(data, Tensor):
            if self._with_target and self._target is not None:
                raise ValueError("data are inputs alone, so there is no target in them; pass TensorDataset(x, target)")
            yield Piece(data, len(data))
            return
        for batch in DataLoader(data, batch_size=self._rows) if isinstance(data, Dataset) else data:
            x = self._x(batch)
            target = self._y(batch) if self._with_target else None
            yield Piece(x, len(x), None if target is None else class_numbers(to_numpy(target, "target"), len(x)))

    def _x(self, batch: Any) -> Tensor:
        x = batch[1] if self._inputs is None and _has_ids(batch) else inputs_from_batch(batch, self._inputs)
        if isinstance(x, np.ndarray):
            x = torch.as_tensor(np.require(x, requirements="W"))
        if not isinstance(x, Tensor) or x.ndim == 0:
            raise TypeError(
                f"inputs: expected a tensor (N, ...), which can be transformed, found {_describe(x)} in "
                f"{_describe(batch)}; say where it is (inputs=key, index or function), and wrap a model that takes "
                "more in one that takes it alone"
            )
        return x

    def _y(self, batch: Any) -> Any:
        if self._target is not None:
            return _part(batch, self._target, "target")
        if _has_ids(batch):
            return batch[2]
        if isinstance(batch, Tensor) or (isinstance(batch, (tuple, list)) and len(batch) == 1):
            return None
        return target_from_batch(batch)

    def _cut(self, x: Tensor, start: int, stop: int) -> Tensor:
        return x[start:stop]

    def _joined(self, xs: Sequence[Tensor]) -> Tensor:
        shapes = {tuple(x.shape[1:]) for x in xs}
        if len(shapes) > 1:
            raise ValueError(f"inputs: expected one shape for all, got {sorted(shapes)}; crop or pad them to one")
        return torch.cat(list(xs))

    def _equal(self, a: Tensor, b: Tensor) -> bool:
        return torch.equal(a, b)


def _has_ids(batch: Any) -> bool:
    """A batch of three is (ids, inputs, target), as for `evaluate`."""
    return isinstance(batch, (tuple, list)) and len(batch) == 3


def few_of(data: Any) -> Any:
    """The first samples of some data, as data; None where there are none, or only one."""
    if isinstance(data, (Tensor, np.ndarray)):
        return data[:2] if len(data) > 1 else None
    if isinstance(data, Dataset):
        data = DataLoader(data, batch_size=2)
    # Two batches, as each may hold one sample.
    few = [(batch,) if isinstance(batch, Tensor) else batch for batch in islice(data, 2)]
    return few or None
