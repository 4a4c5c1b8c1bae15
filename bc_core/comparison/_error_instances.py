"""ErrorInstances: the table of the instances that one of two models got wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core._arrays import EqualByFields, id_array, text_objects, to_numpy, twins
from bc_core.comparison._confidence import millionths, of_millionths

CONFIDENCES = ("h1_confidence", "h2_confidence", "h1_of_truth", "h2_of_truth")


@dataclass(frozen=True, eq=False)
class ErrorInstances(EqualByFields):
    """A table, by columns, of instances that h1 or h2 got wrong; iterating yields its rows as dictionaries.

    Attributes:
        ids: Shape (E,): int64, or dtype object holding `str`.
        target: Shape (E,), int64: true class.
        h1_pred: Shape (E,), int64: class that h1 predicts.
        h2_pred: Shape (E,), int64: class that h2 predicts.
        metadata: Shape (E,), dtype object holding `str`; None if no metadata was given.
        h1_confidence: Shape (E,), float64: probability that h1 gives to the class it predicts, to a millionth; nan
            where that is not known, and None if no scores were given. So the next three.
        h2_confidence: The same of h2.
        h1_of_truth: Probability that h1 gives to the true class.
        h2_of_truth: The same of h2.
        slices: By name of a column of metadata, shape (E,), int64: number of the slice, whose name is in
            `Comparison.slices`.

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
    h1_confidence: NDArray[np.float64] | None = None
    h2_confidence: NDArray[np.float64] | None = None
    h1_of_truth: NDArray[np.float64] | None = None
    h2_of_truth: NDArray[np.float64] | None = None
    slices: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)

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
        for name in CONFIDENCES:
            if (given := getattr(self, name)) is not None:
                object.__setattr__(self, name, of_millionths(millionths(to_numpy(given, name))))
        if len({getattr(self, name) is None for name in CONFIDENCES}) > 1:
            raise ValueError(f"expected all of {', '.join(CONFIDENCES)}, or none of them")
        codes = {str(name): to_numpy(column, name).astype(np.int64) for name, column in self.slices.items()}
        object.__setattr__(self, "slices", codes)
        columns = {**self._columns(), **codes}
        lengths = {name: len(column) for name, column in columns.items() if column is not None}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"expected columns of one length, got {lengths}")
        for column in columns.values():
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
            **{name: None if column is None else column[rows] for name, column in self._columns().items()},  # type: ignore[arg-type]
            slices={name: codes[rows] for name, codes in self.slices.items()},
        )

    def _columns(self) -> dict[str, NDArray[Any] | None]:
        return {
            "ids": self.ids,
            "target": self.target,
            "h1_pred": self.h1_pred,
            "h2_pred": self.h2_pred,
            "metadata": self.metadata,
            **{name: getattr(self, name) for name in CONFIDENCES},
        }

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Any:
        columns = {("id" if name == "ids" else name): column for name, column in self._columns().items()}
        rows = {
            name: [None] * len(self) if column is None else column.tolist()
            for name, column in columns.items()
            if column is not None or name == "metadata"
        }
        return (dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True))

    def __repr__(self) -> str:
        return f"ErrorInstances({len(self)} rows)"


def merged_confidences(a: ErrorInstances, b: ErrorInstances) -> dict[str, NDArray[np.float64]]:
    """How sure the models are of the instances of two shards; nan for a shard of which that is not known."""
    if a.h1_confidence is None and b.h1_confidence is None:
        return {}
    return {
        name: np.concatenate(
            [np.full(len(table), np.nan) if (own := getattr(table, name)) is None else own for table in (a, b)]
        )
        for name in CONFIDENCES
    }


def refuse_duplicates(ids: NDArray[Any], where: str, advice: str = "; pass unique ids") -> None:
    if ids.dtype.kind == "O":
        unique = len(set(ids.tolist()))
    elif len(ids) < 2 or (ids[1:] > ids[:-1]).all():
        return  # growing ids are the usual case, and need no sorting
    else:
        unique = len(np.unique(ids))
    if unique == len(ids):
        return
    raise ValueError(f"{where}: the id {twins(ids.tolist())[0]!r} comes twice{advice}")
