"""ErrorInstances: the table of the instances that one of two models got wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core._arrays import first_duplicate, id_array, text_objects, to_numpy


@dataclass(frozen=True, eq=False)
class ErrorInstances:
    """A table, by columns, of instances that h1 or h2 got wrong; iterating yields its rows as dictionaries.

    Attributes:
        ids: Shape (E,): int64, or dtype object holding `str`.
        target: Shape (E,), int64: true class.
        h1_pred: Shape (E,), int64: class that h1 predicts.
        h2_pred: Shape (E,), int64: class that h2 predicts.
        metadata: Shape (E,), dtype object holding `str`; None if no metadata was given.

    Raises:
        ValueError: If the columns differ in length.

    Example:
        >>> from bc_core import compare
        >>> table = compare([0, 1, 1], [0, 1, 0], [0, 0, 1], ids=["a", "b", "c"]).instances
        >>> len(table), table.ids.tolist()
        (2, ['b', 'c'])
        >>> next(iter(table))
        {'id': 'b', 'target': 1, 'h1_pred': 1, 'h2_pred': 0, 'metadata': None}
    """

    ids: NDArray[Any]
    target: NDArray[np.int64]
    h1_pred: NDArray[np.int64]
    h2_pred: NDArray[np.int64]
    metadata: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", id_array(self.ids, "ids"))
        for name in ("target", "h1_pred", "h2_pred"):
            classes = to_numpy(getattr(self, name), name)
            if classes.ndim != 1 or (classes.size and classes.dtype.kind not in "iu"):
                raise ValueError(f"{name}: expected a column of class numbers, got {classes.dtype} {classes.shape}")
            object.__setattr__(self, name, classes.astype(np.int64))
        if self.metadata is not None:
            texts = list(self.metadata)
            if not all(isinstance(text, str) for text in texts):
                raise ValueError("metadata: expected a text for every row")
            object.__setattr__(self, "metadata", text_objects(texts))
        lengths = {name: len(column) for name, column in self._columns().items() if column is not None}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"expected columns of one length, got {lengths}")
        for column in self._columns().values():
            if column is not None:
                column.setflags(write=False)

    def select(self, rows: Any) -> ErrorInstances:
        """Return the rows that a boolean mask or an array of positions picks.

        Example:
            >>> from bc_core import compare
            >>> table = compare([0, 1, 1], [0, 1, 0], [0, 0, 1]).instances
            >>> table.select(table.target == table.h2_pred).ids
            array([2])
        """
        return ErrorInstances(
            **{name: None if column is None else column[rows] for name, column in self._columns().items()}  # type: ignore[arg-type]
        )

    def _columns(self) -> dict[str, NDArray[Any] | None]:
        return {
            "ids": self.ids,
            "target": self.target,
            "h1_pred": self.h1_pred,
            "h2_pred": self.h2_pred,
            "metadata": self.metadata,
        }

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Any:
        metadata = [None] * len(self) if self.metadata is None else self.metadata.tolist()
        columns = (self.ids.tolist(), self.target.tolist(), self.h1_pred.tolist(), self.h2_pred.tolist(), metadata)
        names = ("id", "target", "h1_pred", "h2_pred", "metadata")
        return (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ErrorInstances):
            return NotImplemented
        pairs = zip(self._columns().values(), other._columns().values(), strict=True)
        return all(
            a is b or (a is not None and b is not None and a.dtype == b.dtype and np.array_equal(a, b))
            for a, b in pairs
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"ErrorInstances({len(self)} rows)"


def refuse_duplicates(ids: NDArray[Any], where: str, advice: str = "; pass unique ids") -> None:
    if ids.dtype.kind == "O":
        unique = len(set(ids.tolist()))
    elif len(ids) < 2 or (ids[1:] > ids[:-1]).all():
        return  # growing ids are the usual case, and need no sorting
    else:
        unique = len(np.unique(ids))
    if unique == len(ids):
        return
    raise ValueError(f"{where}: the id {first_duplicate(ids.tolist())!r} comes twice{advice}")
