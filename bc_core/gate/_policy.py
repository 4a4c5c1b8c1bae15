"""A policy: what an update has to keep, read from TOML and flags."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from bc_core._numbers import read_share
from bc_core.predictions._columns import ColumnNames
from bc_core.predictions._further_columns import FILES
from bc_core.predictions._right import Right
from bc_core.promise._grammar import Promise

TABLE = "bc-compare"
_LEAST = 30
_BOUNDS = ("promise", "min_gain", "non_inferiority")
COLUMNS = ("id", "pred", "new_pred", "scores", "target", "weight", "cluster", "by_position", "columns_from")
_KEYS = (
    *_BOUNDS,
    "confidence",
    "critical",
    "accepted",
    "classes",
    "new_classes",
    "per_class",
    "per_slice",
    "columns",
    "right",
)
RIGHT: dict[str, tuple[tuple[type, ...], str]] = {
    "threshold": ((int, float), "a number"),
    "new_threshold": ((int, float), "a number"),
    "top_k": ((int,), "a whole number"),
    "multilabel": ((bool,), "true or false"),
    "rule": ((str,), "an expression or module:function"),
    "correct": ((str,), "the name of a column"),
    "filter": ((str,), "the name of a filter"),
}


@dataclass(frozen=True)
class Bounds:
    """What is asked of some instances.

    Attributes:
        promise: Bounds on scores; None for none.
        min_gain: Least gain of accuracy, from -1 to 1; what non-inferiority asks is a gain of at least -margin.
        margin: Whether `min_gain` came from a margin of non-inferiority.
    """

    promise: Promise | None = None
    min_gain: float | None = None
    margin: bool = False

    def __bool__(self) -> bool:
        return self.promise is not None or self.min_gain is not None


@dataclass(frozen=True)
class PerPart:
    """What is asked of every class, or of every slice of a column.

    Attributes:
        bounds: What is asked.
        only: Names or patterns such as "eu*"; empty for all.
        least: Parts with fewer instances are left out, except those that are named.
        column: The column of the slices; None for classes.
    """

    bounds: Bounds
    only: tuple[str, ...] = ()
    least: int = _LEAST
    column: str | None = None


@dataclass(frozen=True)
class Policy:
    """Everything an update is held to.

    Attributes:
        bounds: What is asked over all instances.
        parts: What is asked of classes and slices.
        confidence: Of each verdict; false alarms are held to 1 - confidence over all checks together.
        critical: File of ids that must not break.
        accepted: File of flips that were accepted.
        classes: Name of each class, in order.
        new_classes: Names of those that h1 did not know.
        columns: Which columns are what.
    """

    bounds: Bounds = field(default_factory=Bounds)
    parts: tuple[PerPart, ...] = ()
    confidence: float = 0.95
    critical: Path | None = None
    accepted: Path | None = None
    classes: tuple[str, ...] | None = None
    new_classes: tuple[str, ...] = ()
    columns: ColumnNames = field(default_factory=ColumnNames)

    @property
    def slice_columns(self) -> tuple[str, ...]:
        """The columns of which slices are checked, once each."""
        return tuple(dict.fromkeys(part.column for part in self.parts if part.column is not None))


def read_policy(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The keys of a policy file: those of `[tool.bc-compare]` where there is one, else the whole file.

    Files that a policy names are looked for from its own folder.

    Raises:
        ValueError: It is no TOML, or has no policy.
        OSError: It cannot be read.
    """
    path = Path(path)
    content = path.read_bytes()
    try:
        data = _toml().loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8, as TOML must be") from None
    except ValueError as error:
        raise ValueError(f"{path}: not TOML ({error})") from None
    tool = data.get("tool", {}) if path.name == "pyproject.toml" or "tool" in data else {TABLE: data}
    if TABLE not in tool:
        raise ValueError(f"{path}: it has no [tool.{TABLE}]")
    keys: dict[str, Any] = tool[TABLE]
    for key in ("critical", "accepted"):
        if isinstance(keys.get(key), str):
            keys[key] = str(path.parent / keys[key])
    return keys


def policy_of(keys: Mapping[str, Any], where: str) -> Policy:
    """Check the keys of a policy.

    Args:
        keys: As TOML gives them.
        where: What the policy is called in messages.

    Raises:
        ValueError: A key is unknown, of another type, out of range, or contradicts another one.

    Example:
        >>> from bc_core.gate._policy import policy_of
        >>> policy = policy_of({"promise": "nfr <= 0.5%", "per_class": {"promise": "nfr <= 2%"}}, "compat.toml")
        >>> str(policy.bounds.promise), policy.parts[0].least
        ('nfr <= 0.5%', 30)
    """
    _known(keys, _KEYS, where)
    columns = _table(keys, "columns", where)
    _known(columns, COLUMNS, f"{where}, columns")
    for key, value in columns.items():
        if not isinstance(value, bool if key == "by_position" else str):
            raise ValueError(f"{where}, columns: {key} must be {_kind(key)}, got {value!r}")
    if columns.get("columns_from", FILES[0]) not in FILES:
        raise ValueError(f"{where}, columns: columns_from must be one of {', '.join(FILES)}, got {value!r}")
    parts = []
    if "per_class" in keys:
        parts.append(_part(_table(keys, "per_class", where), f"{where}, per_class", None))
    parts += _per_slice(keys.get("per_slice", []), where)
    confidence = _share_of(keys.get("confidence", 0.95), f"{where}: confidence", 0.5, small=False)
    if confidence == 1:
        raise ValueError(f"{where}: confidence must be below 1, such as 0.95")
    return Policy(
        _bounds(keys, where),
        tuple(parts),
        confidence,
        _path(keys, "critical", where),
        _path(keys, "accepted", where),
        None if "classes" not in keys else _names(keys["classes"], f"{where}: classes"),
        _names(keys["new_classes"], f"{where}: new_classes") if "new_classes" in keys else (),
        ColumnNames(
            **columns,
            slices=tuple(dict.fromkeys(part.column for part in parts if part.column is not None)),
            right=right_of(_table(keys, "right", where), f"{where}, right"),
        ),
    )


def right_of(keys: Mapping[str, Any], where: str) -> Right | None:
    """What counts as right, of the keys of its table; None where nothing is said.

    Raises:
        ValueError: A key is unknown, of another type, or contradicts another one.
    """
    _known(keys, RIGHT, where)
    for key, value in keys.items():
        kinds, told = RIGHT[key]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ValueError(f"{where}: {key} must be {told}, got {value!r}")
    if not keys:
        return None
    try:
        return Right(**keys)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _toml() -> Any:
    if sys.version_info >= (3, 11):
        import tomllib

        return tomllib
    import tomli  # type: ignore[import-not-found, unused-ignore]

    return tomli


def _known(keys: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    for key in keys:
        if key not in known:
            near = [name for name in known if key.startswith(name)] or get_close_matches(key, known, 1)
            meant = f"; did you mean {near[0]}?" if near else f"; it may have {', '.join(known)}"
            raise ValueError(f"{where}: unknown key {key!r}{meant}")


def _table(keys: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    value = keys.get(key, {})
    if not isinstance(value, dict):
        raise ValueError(f"{where}: {key} must be a table, got {value!r}")
    return value


def _per_slice(value: Any, where: str) -> list[PerPart]:
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise ValueError(f"{where}: per_slice must be tables, each begun by [[per_slice]], got {value!r}")
    parts: list[PerPart] = []
    for number, entry in enumerate(value, 1):
        told = f"{where}, per_slice {number}"
        column = entry.get("column")
        if not isinstance(column, str):
            raise ValueError(f"{told}: column must name a column of metadata, got {column!r}")
        parts.append(_part({key: item for key, item in entry.items() if key != "column"}, told, column))
    return parts


def _part(keys: Mapping[str, Any], where: str, column: str | None) -> PerPart:
    _known(keys, (*_BOUNDS, "only", "least"), where)
    bounds = _bounds(keys, where)
    if not bounds:
        raise ValueError(f"{where}: nothing is asked; say promise, min_gain or non_inferiority")
    least = keys.get("least", _LEAST)
    if isinstance(least, bool) or not isinstance(least, int) or least < 1:
        raise ValueError(f"{where}: least must be a number of instances, at least 1, got {least!r}")
    return PerPart(bounds, _names(keys["only"], f"{where}: only") if "only" in keys else (), least, column)


def _bounds(keys: Mapping[str, Any], where: str) -> Bounds:
    promise = None
    if "promise" in keys:
        try:
            promise = Promise.of(keys["promise"])
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: {error}") from None
    if "min_gain" in keys and "non_inferiority" in keys:
        raise ValueError(f"{where}: min_gain and non_inferiority are two bounds on one number; keep the stricter one")
    if "non_inferiority" in keys:
        margin = _share_of(keys["non_inferiority"], f"{where}: non_inferiority", 0.0)
        if margin == 0:
            raise ValueError(f"{where}: non_inferiority needs a margin above 0, such as 0.5%; for none, min_gain = 0")
        return Bounds(promise, -margin, margin=True)
    gain = None if "min_gain" not in keys else _share_of(keys["min_gain"], f"{where}: min_gain", -1.0)
    return Bounds(promise, gain)


def _share_of(value: Any, where: str, least: float, *, small: bool = True) -> float:
    """A share such as 0.005 or "0.5%"."""
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        try:
            return read_share(str(value), least, small=small)
        except ValueError as error:
            raise ValueError(f"{where} {error}") from None
    raise ValueError(f'{where} must be a share such as 0.005 or "0.5%", got {value!r}')


def _names(value: Any, where: str) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{where} must be a list of names, got {value!r}")
    return tuple(names)


def _path(keys: Mapping[str, Any], key: str, where: str) -> Path | None:
    value = keys.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError(f"{where}: {key} must be the path of a file, got {value!r}")
    return Path(value)


def _kind(key: str) -> str:
    return "true or false" if key == "by_position" else "the name of a column"
