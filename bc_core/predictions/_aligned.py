"""Rows of several files that are of the same instances."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bc_core.counting._scores import count_cells
from bc_core.predictions._columns import Roles
from bc_core.predictions._tables import Table

Told = Callable[[NDArray[np.intp]], tuple[list[str], list[str], list[str]]]


@dataclass(frozen=True)
class LabelRights:
    """Instances of several labels, label by label.

    Attributes:
        names: Name of each of the L labels.
        h1_right: Shape (N, L), bool.
        h2_right: Shape (N, L), bool.
    """

    names: tuple[str, ...]
    h1_right: NDArray[np.bool_]
    h2_right: NDArray[np.bool_]

    @property
    def counts(self) -> NDArray[np.int64]:
        """Shape (L, 2, 2), instances by label and by who is right."""
        return np.concatenate([count_cells(h1, h2) for h1, h2 in zip(self.h1_right.T, self.h2_right.T, strict=True)])


class Sure(NamedTuple):
    """How sure a model is of N instances; nan where it has no score of that class."""

    answer: NDArray[np.float64]
    truth: NDArray[np.float64]
    positive: NDArray[np.float64] | None


@dataclass(frozen=True)
class Joined:
    """Instances that both models predict and whose true label is known, in the order of the old file.

    Attributes:
        ids: Shape (N,): int64, or dtype object holding `str`.
        target: Shape (N,), int64: true class.
        h1_pred: Shape (N,), int64: class that the old model predicts.
        h2_pred: Shape (N,), int64: class that the new model predicts.
        num_classes: Number of classes.
        class_names: Name of each class; None where classes are numbers.
        sureness: Shape (N,): the new model's probability of what it predicts; None without class scores.
        columns: Weights, clusters and slices, by name.
        other_seeds: What further trainings of the old model predict, shape (N,) each.
        unmatched: How many ids were in one file only, and are left out, by file.
        sure: Of the old and of the new model, shape (N,) each, its probability of what it predicts, of the true class
            and, of two classes, of the second; None without class scores.
        told: From places of instances to texts of the true value and of both predictions, where these are no classes.
        labels: Whether each label is right, where an instance has several.
        new_scores: Shape (N,): the new model's score of class 1, where it is held to a threshold.
        plain: Whether there are no classes but right and wrong.
    """

    ids: NDArray[Any]
    target: NDArray[np.int64]
    h1_pred: NDArray[np.int64]
    h2_pred: NDArray[np.int64]
    num_classes: int
    class_names: tuple[str, ...] | None
    sureness: NDArray[np.float64] | None
    columns: Mapping[str, Column]
    other_seeds: tuple[NDArray[np.int64], ...] = ()
    unmatched: Mapping[str, int] = field(default_factory=dict)
    sure: tuple[Sure | None, Sure | None] = (None, None)
    told: Told | None = None
    labels: LabelRights | None = None
    new_scores: NDArray[np.float64] | None = None
    plain: bool = False

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Column:
    """A further column of the instances.

    Attributes:
        table: Where it was read.
        name: Its name.
        rows: Row of each instance in that table, shape (N,).
    """

    table: Table
    name: str
    rows: NDArray[np.intp]

    @property
    def values(self) -> NDArray[Any]:
        """As it was read."""
        return self.table.column(self.name)[self.rows]

    @property
    def texts(self) -> NDArray[Any]:
        """As dtype object holding `str`."""
        return self.table.texts(self.name)[self.rows]

    @property
    def numbers(self) -> NDArray[np.float64]:
        """As finite floats."""
        return self.table.numbers(self.name)[self.rows]


@dataclass(frozen=True)
class AlignedFile:
    """A file and what its columns are for; `rows` are those of the joined instances."""

    table: Table
    roles: Roles
    what: str
    rows: NDArray[np.intp]

    def column(self, name: str) -> Column:
        """One of its columns, of the joined instances."""
        return Column(self.table, name, self.rows)

    @property
    def ids(self) -> NDArray[Any]:
        """As they were read."""
        assert self.roles.id is not None
        return self.table.column(self.roles.id)


def without_scores(files: Sequence[AlignedFile]) -> ValueError:
    """That there is a threshold, and nothing to put it to."""
    paths = ", ".join(file.table.path for file in files)
    return ValueError(f"{paths}: labels and no scores to put a threshold to; name them by --scores")
