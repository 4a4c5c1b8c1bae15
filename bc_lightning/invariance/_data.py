"""Data as tiles of whole rows, whatever they came as."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bc_lightning.batches._model_outputs import _describe, _part, inputs_from_batch, target_from_batch

Where = str | int | Callable[[Any], Any]


class Rows:
    """Inputs, and targets where they are wanted, in pieces of at most `rows` samples.

    Args:
        data: A tensor or array of inputs (N, ...), a ``Dataset``, a data loader, or another iterable of batches.
        rows: Samples in a piece; small batches are put together, large ones cut.
        inputs: Where inputs are in a batch.
        target: Where targets are in a batch.
        with_target: Whether targets are read.
    """

    def __init__(
        self, data: Any, rows: int, inputs: Where | None, target: Where | None = None, with_target: bool = False
    ) -> None:
        if isinstance(data, np.ndarray):
            data = torch.as_tensor(data)
        if isinstance(data, (tuple, list)) and any(isinstance(part, (Tensor, np.ndarray)) for part in data):
            raise TypeError(
                "data: expected a tensor of inputs, a data loader, a list of batches such as [(x, y), ...] or a "
                "Dataset, got a list of tensors themselves; pass TensorDataset(inputs, target), or one tensor"
            )
        if not isinstance(data, (Tensor, Dataset)) and not hasattr(data, "__iter__"):
            raise TypeError(
                f"data: expected a tensor of inputs, a data loader, batches or a Dataset, got {_describe(data)}"
            )
        self._data, self._rows = data, rows
        self._inputs, self._target, self._with_target = inputs, target, with_target

    @property
    def once_only(self) -> bool:
        """Whether they can be gone through only once."""
        return hasattr(self._data, "__next__")

    @property
    def shuffles(self) -> bool:
        """Whether another round may bring the samples in another order."""
        from bc_lightning.evaluation._evaluate import _in_order

        return not _in_order(self._data)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        waiting: list[tuple[Tensor, Tensor | None]] = []
        held = 0
        for x, target in self._batches():
            if len(x) == 0:
                continue
            start = 0
            while start < len(x):
                stop = min(len(x), start + self._rows - held)
                waiting.append((x[start:stop], None if target is None else target[start:stop]))
                held += stop - start
                start = stop
                if held == self._rows:
                    yield _joined(waiting)
                    waiting, held = [], 0
        if waiting:
            yield _joined(waiting)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        data = self._data
        if isinstance(data, Tensor):
            if self._with_target and self._target is not None:
                raise ValueError("data are inputs alone, so there is no target in them; pass TensorDataset(x, target)")
            for start in range(0, len(data), self._rows):
                yield data[start : start + self._rows], None
            return
        for batch in DataLoader(data, batch_size=self._rows) if isinstance(data, Dataset) else data:
            yield self._parts(batch)

    def _parts(self, batch: Any) -> tuple[Tensor, Tensor | None]:
        # A batch of three is (ids, inputs, target), as for `evaluate`.
        three = isinstance(batch, (tuple, list)) and len(batch) == 3
        if self._inputs is None and three:
            x = batch[1]
        else:
            x = inputs_from_batch(batch, self._inputs)
        if isinstance(x, np.ndarray):
            x = torch.as_tensor(x)
        if not isinstance(x, Tensor) or x.ndim == 0:
            raise TypeError(
                f"inputs: expected a tensor (N, ...), which can be transformed, found {_describe(x)} in "
                f"{_describe(batch)}; say where it is (inputs=key, index or function), and wrap a model that takes "
                "more in one that takes it alone"
            )
        if not self._with_target:
            return x, None
        if self._target is None and three:
            target = batch[2]
        elif self._target is not None:
            target = _part(batch, self._target, "target")
        elif isinstance(batch, Tensor) or (isinstance(batch, (tuple, list)) and len(batch) == 1):
            return x, None
        else:
            target = target_from_batch(batch)
        target = torch.as_tensor(target)
        if target.ndim == 2 and target.shape[1] == 1:
            target = target[:, 0]
        elif target.ndim == 2 and bool(((target.sum(1).double() - 1).abs() < 1e-3).all()):
            # One-hot, or shares of classes.
            target = target.argmax(1)
        if target.is_floating_point() and bool((target == target.round()).all()):
            # As binary losses want them.
            target = target.long()
        if target.shape != x.shape[:1] or target.is_floating_point():
            raise ValueError(
                f"target: expected one class number for each of the {len(x)} inputs of a batch, got {target.dtype} of "
                f"shape {tuple(target.shape)}; say where it is (target=key, index or function)"
            )
        return x, target


def few_of(data: Any) -> Any:
    """The first samples of some data, as data; None where there are none, or only one."""
    if isinstance(data, (Tensor, np.ndarray)):
        return data[:2] if len(data) > 1 else None
    if isinstance(data, Dataset):
        data = DataLoader(data, batch_size=2)
    # Two batches, as each may hold one sample.
    few = [(batch,) if isinstance(batch, Tensor) else batch for batch in islice(data, 2)]
    return few or None


def _joined(pieces: list[tuple[Tensor, Tensor | None]]) -> tuple[Tensor, Tensor | None]:
    if len(pieces) == 1:
        return pieces[0]
    shapes = {tuple(x.shape[1:]) for x, _ in pieces}
    if len(shapes) > 1:
        raise ValueError(f"inputs: expected one shape for all, got {sorted(shapes)}; crop or pad them to one")
    targets = [target for _, target in pieces if target is not None]
    return torch.cat([x for x, _ in pieces]), torch.cat(targets) if targets else None
