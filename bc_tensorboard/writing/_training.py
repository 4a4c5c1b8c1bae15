"""What is told of a training beside its comparisons: its settings, and a metric of the user's own."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any


def told_of_training(settings: Mapping[str, Any] | None, performance: Sequence[float | None] | None) -> dict[str, Any]:
    """What the dashboard is told of a training beside its comparisons, ready for JSON; empty where that is nothing.

    Raises:
        ValueError: If settings are no mapping of names to texts and numbers, or performance is no two numbers.

    Example:
        >>> from bc_tensorboard.writing._training import told_of_training
        >>> told_of_training({"start": "warm"}, (0.5, float("nan")))
        {'settings': {'start': 'warm'}, 'performance': [0.5, None]}
    """
    told: dict[str, Any] = {}
    if settings:
        given: Mapping[Any, Any] = settings
        for name, value in given.items():
            is_number = isinstance(value, numbers.Real) and math.isfinite(value)
            if not isinstance(name, str) or not (isinstance(value, str) or is_number):
                raise ValueError(f"settings: expected names with texts or finite numbers, got {name!r}: {value!r}")
        told["settings"] = {
            name: str(value) if isinstance(value, (str, bool)) else float(value) for name, value in settings.items()
        }
    if performance is not None and len(performance) > 0:
        known = [None if value is None or not math.isfinite(value) else float(value) for value in performance]
        if len(known) != 2:
            raise ValueError(f"performance: expected that of h1 and of h2, got {performance!r}")
        if known != [None, None]:
            told["performance"] = known
    return told
