"""Which columns of the data a model is given, and which go on to the file of predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core._texts import listed
from bc_core.predicting._adapter import Batch
from bc_core.predictions._columns import ColumnNames, roles_of
from bc_core.predictions._tables import Table


@dataclass(frozen=True)
class Asked:
    """What the user said of the columns of the data; names may be patterns such as "x*".

    Attributes:
        features: Of one array of numbers.
        text: Of one text.
        inputs: Of several arrays, by the name of the model's input.
        keep: Columns that are written beside the predictions, such as those of slices.
        id: Name of the ids.
        target: Name of the true labels.
        by_position: Whether rows are numbered instead of named by an id.
    """

    features: tuple[str, ...] = ()
    text: str | None = None
    inputs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    keep: tuple[str, ...] = ()
    id: str | None = None
    target: str | None = None
    by_position: bool = False


@dataclass(frozen=True)
class DataColumns:
    """The columns of one file, found.

    Attributes:
        id: Of the ids; None where rows are numbered.
        target: Of the true labels; None where there are none.
        keep: What is written beside the predictions.
        features: Of one array; empty where there are others.
        text: Of one text.
        inputs: Of several arrays, by the name of the model's input.
    """

    id: str | None
    target: str | None
    keep: tuple[str, ...]
    features: tuple[str, ...]
    text: str | None
    inputs: Mapping[str, tuple[str, ...]]

    @property
    def names(self) -> list[str]:
        """All of them, once."""
        given = [name for names in self.inputs.values() for name in names]
        named = [self.id, self.target, *self.keep, *self.features, self.text, *given]
        return list(dict.fromkeys(name for name in named if name is not None))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON gives them back."""
        inputs = {name: list(names) for name, names in self.inputs.items()}
        several = {"keep": list(self.keep), "features": list(self.features), "inputs": inputs}
        return {"id": self.id, "target": self.target, "text": self.text, **several}

    def batch(self, table: Table) -> Batch:
        """Some rows as a model is given them.

        Raises:
            ValueError: Something is no number, NaN or infinite; its row is named.
        """
        if self.text is not None:
            texts: list[str] = table.texts(self.text).tolist()
            return texts
        if self.inputs:
            return {name: _array(table, names, single=False) for name, names in self.inputs.items()}
        return _array(table, self.features, single=True)

    def given(self, batch: Batch) -> str:
        """What a model was given, and how others are: for errors."""
        if isinstance(batch, list):
            return f"it was given {len(batch)} texts of the column {self.text} (--text)"
        if isinstance(batch, dict):
            arrays = ", ".join(f"{name} of shape {array.shape}" for name, array in batch.items())
            return f"it was given {arrays}: say by --input which columns each is trained on, in their order"
        return (
            f"it was given {listed(self.features)} as one array of shape {batch.shape}: say by --features which "
            "columns it is trained on, in their order"
        )


def found_columns(path: str, names: Sequence[str], asked: Asked) -> DataColumns:
    """Find what was asked for among a file's columns.

    Raises:
        ValueError: A column is not there, or nothing says which are the model's.
    """
    if sum(map(bool, (asked.features, asked.text, asked.inputs))) > 1:
        raise ValueError("--features, --text and --input each say what the model is given; say one of them")
    said = ColumnNames(id=asked.id, target=asked.target, by_position=asked.by_position)
    roles = roles_of(path, names, said, predicts=False)
    if asked.target is not None and roles.target is None:
        raise ValueError(f"{path}: no column {asked.target!r} (of --target); it has {listed(names)}")
    keep = _matching(path, names, asked.keep, "--keep")
    if asked.text is not None and asked.text not in names:
        raise ValueError(f"{path}: no column {asked.text!r} (of --text); it has {listed(names)}")
    others = [name for name in names if name not in (roles.id, roles.target)]
    features = _matching(path, others, asked.features, "--features")
    inputs = {name: _matching(path, others, wanted, f"--input {name}") for name, wanted in asked.inputs.items()}
    if not (features or inputs or asked.text is not None):
        left = [name for name in others if name not in keep]
        if len(left) != 1:
            raise ValueError(
                f"{path}: nothing says what the model is given of {listed(left)}; say --features NAMES (such as x1,x2 "
                "or 'x*'), --text NAME, or --input NAME=NAMES for a model of several inputs"
            )
        features = (left[0],)
    return DataColumns(roles.id, roles.target, keep, features, asked.text, inputs)


def _matching(path: str, names: Sequence[str], wanted: Sequence[str], option: str) -> tuple[str, ...]:
    """Columns of those names and patterns, in the order in which they were asked for."""
    found: list[str] = []
    for pattern in wanted:
        here = [pattern] if pattern in names else [name for name in names if fnmatchcase(name, pattern)]
        if not here:
            raise ValueError(f"{path}: no column {pattern!r} (of {option}); it has {listed(names)}")
        found += here
    return tuple(dict.fromkeys(found))


def _array(table: Table, names: Sequence[str], single: bool) -> NDArray[Any]:
    first = table.column(names[0])
    if len(names) == 1 and first.ndim > 1:
        if first.dtype.kind == "f":
            table.numbers(names[0])  # NaN is refused
        return first
    if len(names) == 1 and not single:
        return first if first.dtype.kind in "biuO" and not table.untyped else _number_or_text(table, names[0])
    return np.stack([_flat(table, name) for name in names], axis=1)


def _flat(table: Table, name: str) -> NDArray[np.float64]:
    try:
        numbers = table.numbers(name)
    except ValueError as error:
        raise ValueError(f"{error}; where it is text that the model reads, say --text {name}") from None
    if numbers.ndim != 1:
        raise ValueError(f"{table.path}: column {name!r} holds lists, and is one of several; give it by --input")
    return numbers


def _number_or_text(table: Table, name: str) -> NDArray[Any]:
    try:
        return table.numbers(name)
    except ValueError:
        if table.column(name).dtype.kind != "O":
            raise
        return table.texts(name)
