"""Evaluation: a comparison of two models, and how well each of them does by itself."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from bc_core._arrays import to_numpy
from bc_core._texts import shown
from bc_core.comparison._comparison import Comparison


@dataclass(frozen=True)
class Evaluation:
    """Two models on one data set: their comparison and the performance of each.

    `bc_lightning.evaluate` and `bc_keras.evaluate` return it.

    Attributes:
        comparison: Counts of all instances, and the table of those that h1 or h2 got wrong.
        h1_performance: Accuracy of h1, or what the caller's own metric says of it; nan where there is no such number.
        h2_performance: The same of h2.

    Example:
        >>> from bc_core import Evaluation, compare
        >>> evaluation = Evaluation(compare([0, 1, 1], [0, 1, 0], [0, 0, 1]), h1_performance=0.7, h2_performance=0.8)
        >>> evaluation.comparison.overlap.btc, evaluation.h2_performance
        (0.5, 0.8)
    """

    comparison: Comparison
    h1_performance: float
    h2_performance: float

    def to_dict(self) -> dict[str, Any]:
        """Return the evaluation as plain Python values under the keys of BackwardCompatibilityML, ready for JSON.

        As `Comparison.to_dict`, with `h1_performance` and `h2_performance` from here. JSON has neither nan nor
        infinity: a performance that is not finite is None.

        Example:
            >>> from bc_core import Evaluation, compare
            >>> evaluation = Evaluation(compare([0, 1, 1], [0, 1, 0], [0, 0, 1]), float("nan"), 0.8)
            >>> data = evaluation.to_dict()
            >>> data["h1_performance"], data["h2_performance"], data["btc"]
            (None, 0.8, 0.5)
        """
        return {
            **self.comparison.to_dict(),
            "h1_performance": _finite(self.h1_performance),
            "h2_performance": _finite(self.h2_performance),
        }


def performance(value: Any, name: str, *, stacklevel: int = 2) -> float:
    """Convert what a caller's performance metric returned to a float.

    Args:
        value: A float, an int, a numpy scalar, or an array or tensor without axes (of numpy, torch on any device,
            TensorFlow or JAX).
        name: The model that was measured, for messages.
        stacklevel: As in `warnings.warn`; 2 stands for the code that calls this function.

    Returns:
        The number. Not a number stays nan, with a warning.

    Raises:
        TypeError: If it is anything else: no number, a bool, a complex number, or an array with axes.

    Example:
        >>> import numpy as np
        >>> from bc_core.comparison._evaluation import performance
        >>> performance(np.float32(0.5), "h2"), performance(1, "h2")
        (0.5, 1.0)
        >>> performance([0.5, 0.7], "h2")
        Traceback (most recent call last):
        TypeError: performance_metric must return one number for h2 (...). Received: [0.5, 0.7] (list).
    """
    number = _number(value)
    if number is None:
        axes = f" of shape {tuple(value.shape)}" if getattr(value, "shape", ()) else ""
        raise TypeError(
            f"performance_metric must return one number for {name} (a float, an int, a numpy scalar, or a tensor "
            f"without axes; reduce several values, as with .mean()). Received: {shown(value, 80)} "
            f"({type(value).__name__}{axes})."
        )
    if math.isnan(number):
        warnings.warn(
            f"performance_metric says NaN for {name}: it is kept as nan. Look for a division by 0 in the metric, or "
            "for a diverged model",
            RuntimeWarning,
            stacklevel=stacklevel,
        )
    return number


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return float(value)
    if not isinstance(value, np.generic):
        # Numpy would also take nested lists, and anything that has a length.
        if getattr(value, "shape", None) is None or tuple(value.shape) != ():
            return None
        try:
            value = to_numpy(value, "performance")
        except TypeError:
            return None
    array = np.asarray(value)
    if array.dtype.kind == "V":  # bfloat16 and its kin
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError):
            return None
    return float(array) if array.dtype.kind in "iuf" else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
