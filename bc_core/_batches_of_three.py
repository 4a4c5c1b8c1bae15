"""What a batch of three parts is: ``(ids, x, y)``, as the original library's, or ``(x, y, weight)``."""

from __future__ import annotations

from typing import Any

import numpy as np

from bc_core._arrays import to_numpy


def first_is_ids(batch: Any) -> bool | None:
    """Whether a batch of three is ``(ids, x, y)`` and not ``(x, y, weight)``; None where it may be either.

    Ids are integers or text, one for each instance; a target is integers, or floats of 0 to 1. Values are read.

    Example:
        >>> import numpy as np
        >>> x, y, weight = np.zeros((2, 3)), np.array([0, 1]), np.array([0.3, 1.7])
        >>> [first_is_ids(batch) for batch in ((y, x, y), (x, y, weight), (y, y, weight), (y, y, y))]
        [True, False, False, None]
    """
    first, second, third = batch
    ids = _as_array(first)
    as_target, last = _as_array(second), _as_array(third)
    if ids is None or ids.ndim != 1 or ids.dtype.kind not in "iuUSO":
        # Names that come last are no weights, and would be lost without a word.
        return None if last is not None and last.dtype.kind in "USO" else False
    if not _may_be_target(as_target):
        return True
    if not _may_be_target(last):
        return False
    if last is not None and as_target is not None and last.ndim > as_target.ndim:
        return True  # a weight has no more axes than its target
    # What has several values for an instance is an input, unless they are shares of classes.
    is_input = as_target is not None and as_target.ndim > 1 and not _are_shares(as_target)
    return True if is_input else None


def _as_array(part: Any) -> np.ndarray[Any, Any] | None:
    try:
        return to_numpy(part, "batch")
    except (TypeError, ValueError):
        return None


def _may_be_target(values: np.ndarray[Any, Any] | None) -> bool:
    if values is None or values.dtype.kind not in "biuf" or values.ndim == 0:
        return False
    return values.dtype.kind != "f" or bool(((values >= 0) & (values <= 1)).all())


def _are_shares(values: np.ndarray[Any, Any]) -> bool:
    """Whether rows are one-hot, probabilities of classes, or one number each."""
    if values.ndim > 2:
        return False
    return values.shape[1] == 1 or bool(((values >= 0).all(1) & (abs(values.sum(1) - 1) < 1e-2)).all())
