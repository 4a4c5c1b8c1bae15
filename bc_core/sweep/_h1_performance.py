"""h1's own performance by the caller's metric, asked once for a whole sweep."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bc_core.comparison._evaluation import performance
from bc_core.files._files import write_whole

# What a metric of the original library is given as its device.
_DEVICE = "cpu"


def measured_h1(
    metric: Callable[[Any, Any, Any], Any], h1: Any, data: Mapping[str, Any], names: Sequence[str], path: Path
) -> dict[str, float]:
    """Ask the metric about h1 on each data set, and keep the answers in a file.

    Args:
        metric: The caller's, ``(model, dataset, device)``.
        h1: What it is asked about; None where h1 is stored answers, which are no model: nan then.
        data: What the metric gets as data, by data set.
        names: The data sets.
        path: The file; what it tells already is not asked again.

    Raises:
        TypeError: The metric returned no number.
        ValueError: The metric raised an error. It would hardly do better on any h2, and not one is trained yet.
    """
    if h1 is None:
        return dict.fromkeys(names, math.nan)
    known = _known(path)
    for name in names:
        if name in known:
            continue
        try:
            value = metric(h1, data[name], _DEVICE)
        except Exception as error:
            raise ValueError(
                f"performance_metric(h1, {name} data, {_DEVICE!r}) raised {type(error).__name__}: {error}. It "
                "is called with a model, the data as they were given, and a device, and must return one number. "
                "Nothing was trained."
            ) from error
        known[name] = repr(performance(value, "h1"))
    write_whole(path, json.dumps(known).encode())
    return {name: float(value) for name, value in known.items()}


def _known(path: Path) -> dict[str, str]:
    """The answers in the file; none where it is damaged, as they can be asked for again."""
    try:
        content = json.loads(path.read_bytes())
        return {str(name): value for name, value in content.items() if float(value) is not None}
    except (FileNotFoundError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
