"""`Evaluation`: a comparison, with what the caller's own metric says of either model."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

from bc_core._comparison import Comparison


@dataclass(frozen=True)
class Evaluation:
    """h1 and h2 on one data set, as `bc_lightning.evaluate` and `bc_keras.evaluate` find them.

    Attributes:
        comparison: The comparison: every score, and the instances that either model gets wrong.
        h1_performance: What the caller's metric says of h1; without one its accuracy.
        h2_performance: The same of h2.

    Example:
        >>> from bc_core import Evaluation, compare
        >>> Evaluation(compare([0, 1], [0, 1], [0, 0]), 1.0, 0.5).to_dict()["h2_performance"]
        0.5
    """

    comparison: Comparison
    h1_performance: float
    h2_performance: float

    def to_dict(self) -> dict[str, Any]:
        """The evaluation under the keys of BackwardCompatibilityML, ready for JSON; NaN is None."""
        said = {"h1_performance": self.h1_performance, "h2_performance": self.h2_performance}
        return self.comparison.to_dict() | {
            name: value if math.isfinite(value) else None for name, value in said.items()
        }


def performance(value: Any, model: str) -> float:
    """What a caller's metric returned, as a number.

    Args:
        value: A number, a numpy scalar, or a tensor of one number of torch, TensorFlow or JAX.
        model: Whose performance it is, for messages.

    Raises:
        TypeError: It is anything else.

    Example:
        >>> import numpy as np
        >>> from bc_core._evaluation import performance
        >>> performance(np.float32(0.5), "h1")
        0.5
    """
    advice = "performance_metric(model, dataset, device) must return one number"
    if value is None or isinstance(value, (str, bytes)):
        raise TypeError(f"{advice}. Received for {model}: {value!r}.")
    try:
        # Tensors of one number answer to float() in every framework.
        number = float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{advice}. Received for {model}: {type(value).__name__} ({error}).") from error
    if math.isnan(number):
        warnings.warn(f"performance_metric says NaN of {model}", RuntimeWarning, stacklevel=3)
    return number
