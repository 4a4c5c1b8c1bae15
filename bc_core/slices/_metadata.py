"""Metadata by columns: which of them make slices, and which are texts of single instances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bc_core._arrays import flat, text_objects, to_numpy
from bc_core.slices._columns import MOST_VALUES, coded_numbers, coded_texts

# A column of more texts than this describes single instances, such as paths do.
MOST_TEXTS = 200
MOST_COLUMNS = 40
MISSING = "missing"
# As numpy and pandas write what is not there.
_NONE = ("nan", "NaT", "<NA>")


def metadata_columns(metadata: Any, ids: Sequence[Any] = ()) -> dict[str, Any] | None:
    """The columns of a table of metadata by name; None where it is something else, such as texts by id.

    Args:
        metadata: A mapping from the name of a column to its values, a data frame, a table of Arrow, or a structured
            array.
        ids: Ids of instances: a mapping from any of them is no table.

    Example:
        >>> from bc_core.slices._metadata import metadata_columns
        >>> metadata_columns({"country": ["de", "fr"]}), metadata_columns({"a.png": "a cat"})
        ({'country': ['de', 'fr']}, None)
    """
    if isinstance(metadata, Mapping):
        is_table = bool(metadata) and all(isinstance(name, str) for name in metadata)
        if not is_table or not all(_is_column(values) for values in metadata.values()):
            return None
        return None if any(name in metadata for name in ids) else dict(metadata)
    if isinstance(metadata, (str, bytes, list, tuple)):
        return None
    structured = getattr(getattr(metadata, "dtype", None), "names", None)
    names = structured or getattr(metadata, "column_names", None)
    if names is None:
        names = getattr(metadata, "columns", None)
    if names is None or callable(names) or not hasattr(metadata, "__getitem__"):
        return None
    return {str(name): metadata[name] for name in names}


class CodedColumn:
    """A column of metadata, as slices or as texts.

    Args:
        name: Name of the column.
        values: A value for each instance: text, numbers, bools or dates; None and NaN are missing.

    Attributes:
        values: Name of each slice; empty where it holds texts of single instances.
        codes: Shape (N,), slice of each instance.
        is_cut: Whether the slices are ranges, which other data would cut elsewhere.

    Raises:
        ValueError: The values are lists.

    Example:
        >>> from bc_core.slices._metadata import CodedColumn
        >>> column = CodedColumn("country", ["fr", "de", None, "fr"])
        >>> column.values, column.codes.tolist()
        (('de', 'fr', 'missing'), [1, 0, 2, 1])
    """

    def __init__(self, name: str, values: Any) -> None:
        self.name = name
        self.is_cut = False
        self._given = _plain_column(name, values)
        if self._given.dtype.kind in "if":
            self._code_numbers(self._given)
        else:
            self.values, self.codes = coded_texts(self._given.tolist())
        # Of values that mostly come once no slice says anything.
        if len(self.values) > MOST_TEXTS or len(self.values) > max(MOST_VALUES, len(self._given) / 2):
            self.values, self.codes = (), np.zeros(0, np.intp)

    def __len__(self) -> int:
        return len(self._given)

    def _code_numbers(self, numbers: NDArray[Any]) -> None:
        known = np.isfinite(numbers)
        self.codes = np.zeros(len(numbers), np.intp)
        self.values = ()
        if known.any():
            there = numbers[known]
            # A column of whole numbers is one of floats where some are missing.
            if there.dtype.kind == "f" and (there == np.rint(there)).all() and np.abs(there).max() < 2**53:
                there = there.astype(np.int64)
            self.values, self.codes[known] = coded_numbers(there)
            # Values stand for themselves in any data; ranges are of these.
            self.is_cut = self.values != tuple(map(str, np.unique(there).tolist()))
        if not known.all():
            self.codes[~known] = len(self.values)
            self.values = (*self.values, MISSING)

    def among(self, rows: NDArray[Any]) -> CodedColumn:
        """The column of some instances, in the slices that it has over all."""
        part = copy(self)
        part._given = self._given[rows]
        part.codes = self.codes[rows] if self.values else self.codes
        return part

    def texts(self, rows: NDArray[np.intp]) -> list[str]:
        """What the column says of some instances."""
        return [str(value) for value in self._given[rows].tolist()]


class Columns(NamedTuple):
    """Columns of metadata over a data set, in its order, cut into slices by all of it.

    So a slice is the same one in every comparison on the data set, whichever of its instances that counts.

    Attributes:
        sliced: Those that make slices.
        texts: Those that describe single instances.
        size: How many instances the data set has.
    """

    sliced: Sequence[CodedColumn]
    texts: Sequence[CodedColumn]
    size: int

    @classmethod
    def of(cls, metadata: Any, size: int | None = None, ids: Sequence[Any] = ()) -> Columns | None:
        """What a caller gave, if it is columns, or is these.

        Args:
            metadata: As `metadata_columns` takes it.
            size: How many instances there are. Default: as many as the first column has values.
            ids: Ids of instances.

        Raises:
            ValueError: A column has another number of values or holds lists, or there are very many columns.

        Example:
            >>> import numpy as np
            >>> from bc_core.slices._metadata import Columns
            >>> columns = Columns.of({"country": ["de", "fr", "it"], "age": [20, 30, 40]})
            >>> country, age = columns.among(np.array([True, False, True])).sliced
            >>> country.values, country.codes.tolist()
            (('de', 'fr', 'it'), [0, 2])
        """
        if isinstance(metadata, cls):
            return metadata
        given = metadata_columns(metadata, ids)
        if given is None:
            return None
        if len(given) > MOST_COLUMNS:
            raise ValueError(
                f"metadata: expected at most {MOST_COLUMNS} columns, got {len(given)}; choose those by which instances "
                "are to be told apart"
            )
        coded = [CodedColumn(name, values) for name, values in given.items()]
        size = len(coded[0]) if size is None else size
        for column in coded:
            _check_size(size, len(column), column.name)
        return cls([each for each in coded if each.values], [each for each in coded if not each.values], size)

    def knows(self, ids: NDArray[Any]) -> bool:
        """Whether these are places in the data set."""
        return ids.dtype.kind == "i" and (not len(ids) or bool(ids.min() >= 0 and ids.max() < self.size))

    def among(self, rows: NDArray[Any]) -> Columns:
        """The columns of some instances.

        Args:
            rows: Places in the data set, or shape (N,), which of its instances.

        Raises:
            ValueError: Which of another number of instances.
        """
        if rows.dtype == bool:
            _check_size(len(rows), self.size, (*self.sliced, *self.texts)[0].name)
            rows = np.flatnonzero(rows)
        return Columns([each.among(rows) for each in self.sliced], [each.among(rows) for each in self.texts], len(rows))

    def describe(self, rows: NDArray[np.intp]) -> NDArray[Any] | None:
        """What the columns of texts say of some instances, as one text each; None without such columns."""
        if not self.texts:
            return None
        if len(self.texts) == 1:
            return text_objects(self.texts[0].texts(rows))
        told = [[f"{column.name}: {text}" if text else "" for text in column.texts(rows)] for column in self.texts]
        return text_objects([", ".join(filter(None, parts)) for parts in zip(*told, strict=True)])


def _check_size(expected: int, got: int, name: str) -> None:
    if got != expected:
        raise ValueError(
            f"metadata: expected a value for each of the {expected} instances, in the order of the data, got {got} in "
            f"the column {name!r}"
        )


def _is_column(values: Any) -> bool:
    return hasattr(values, "__len__") and not isinstance(values, (str, bytes, Mapping))


def _plain_column(name: str, values: Any) -> NDArray[Any]:
    """Numbers as they are, with NaN where one is missing; all else as dtype object holding `str`."""
    array = flat(_converted(values, name))
    if array.ndim != 1:
        raise ValueError(f"metadata: expected a value per instance in the column {name!r}, got shape {array.shape}")
    if array.dtype.kind in "iu":
        return array.astype(np.int64) if array.dtype != np.uint64 else array.astype(np.float64)
    if array.dtype.kind == "f":
        return array.astype(np.float64)
    plain = (
        array.tolist()
        if array.dtype.kind != "M"
        else [None if text == "NaT" else text for text in np.datetime_as_string(array).tolist()]
    )
    missing = [value is None or (not isinstance(value, str) and str(value) in _NONE) for value in plain]
    numbers = [value for value, lost in zip(plain, missing, strict=True) if not lost]
    if numbers and all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in numbers):
        return np.asarray([np.nan if lost else float(v) for v, lost in zip(plain, missing, strict=True)])
    return text_objects([MISSING if lost else _text(value) for value, lost in zip(plain, missing, strict=True)])


def _converted(values: Any, name: str) -> NDArray[Any]:
    if hasattr(values, "to_numpy"):
        return np.asarray(values.to_numpy())
    if isinstance(values, np.ndarray):
        return values if values.dtype.kind != "V" else to_numpy(values, name)
    if isinstance(values, (list, tuple)):
        kinds = set(map(type, values))
        if kinds & {list, tuple, dict, set}:
            raise ValueError(f"metadata: the column {name!r} holds lists, which are no slices")
        # Numpy would make texts of numbers that stand beside texts.
        return np.asarray(values) if len(kinds) == 1 and str not in kinds else text_objects(values)
    return np.asarray(to_numpy(values, f"metadata: the column {name!r}"))


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
