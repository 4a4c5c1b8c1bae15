"""Entries of the files that BackwardCompatibilityML wrote of a sweep, read one by one and checked."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bc_core._texts import shown

NEW_ERROR, STRICT_IMITATION = "new error", "strict imitation"
TRAINING, TESTING = "training", "testing"

Label = int | str


def dataset_of(row: Mapping[str, Any]) -> str:
    """The data set that an entry speaks of."""
    flags = part(row, "training"), part(row, "testing")
    if flags not in ((True, False), (False, True)):
        raise ValueError(
            f"expected either training or testing data, got training {flags[0]!r} and testing {flags[1]!r}"
        )
    return TRAINING if flags[0] else TESTING


def dissonance_of(row: Mapping[str, Any]) -> str:
    """How the h2 of an entry was trained."""
    flags = part(row, "new-error"), part(row, "strict-imitation")
    if flags not in ((True, False), (False, True)):
        raise ValueError(f"expected either new-error or strict-imitation, got {flags[0]!r} and {flags[1]!r}")
    return NEW_ERROR if flags[0] else STRICT_IMITATION


def lambda_of(row: Mapping[str, Any]) -> float:
    """lambda_c of an entry."""
    value = part(row, "lambda_c")
    if not is_number(value) or not 0 <= value < math.inf:
        raise ValueError(f"lambda_c: expected a number of at least 0, got {shown(value)}")
    return float(value)


def label_of(value: Any) -> Label:
    """A class label."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]  # labels of shape (N, 1)
    if isinstance(value, str):
        return value
    if is_number(value, allow_bool=True) and value == int(value):
        return int(value)
    raise ValueError(f"expected class labels that are whole numbers or texts, got {shown(value)}")


def instance_id_of(value: Any) -> int | str:
    """The id of an instance."""
    if isinstance(value, str):
        return value
    if is_number(value) and value == int(value):
        return int(value)
    raise ValueError(f"instance_id: expected a whole number or a text, got {shown(value)}")


def whole(value: Any, name: str) -> int:
    """A whole number of at least 0."""
    if not is_number(value) or value != int(value) or not 0 <= value < 2**53:
        raise ValueError(f"{name}: expected a whole number of at least 0, got {shown(value)}")
    return int(value)


def is_number(value: Any, allow_bool: bool = False) -> bool:
    """Whether it is a number that a sweep can hold."""
    # No number of a sweep is that large, and integers beyond the range of floats make arithmetic fail.
    return isinstance(value, (int, float)) and (allow_bool or not isinstance(value, bool)) and -1e300 < value < 1e300


def part(row: Any, key: str) -> Any:
    """What an entry holds under a key."""
    if not isinstance(row, Mapping):
        raise ValueError(f"expected an entry with {key!r}, got {shown(row)}")
    if key not in row:
        raise ValueError(f"the entry {key!r} is missing")
    return row[key]


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ValueError("the file is missing; copy the whole folder of the sweep") from None
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no valid JSON, perhaps cut off or still being written ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"expected a JSON object, got {shown(content)}")
    return content
