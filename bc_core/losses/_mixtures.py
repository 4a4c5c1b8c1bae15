"""Mixtures of the inputs of a batch, about which h1 is asked: how much of which instance is in each."""

from __future__ import annotations

from numbers import Real
from typing import Any, Final, cast

from bc_core.losses._operations import Array, Operations

MIXED: Final = "mixed"
"""What ``unlabelled=`` is given for mixtures of each batch's own inputs."""

# Fractions of multiples of such numbers lie evenly over 0 to 1 and never repeat. So shares need no generator, and
# whatever is drawn beside them is drawn as if they were not.
_BY_INSTANCE = (5**0.5 - 1) / 2
BY_STEP = 2**0.5 - 1
BY_PROCESS = 3**0.5 - 1


LABELS: Final = 0.5
"""The share of the labels in what h2 is taught of a mixture, by default."""


WEIGHT: Final = 1.0
"""What the mean over unlabelled inputs counts beside that over the batch, by default."""

BATCH_SIZE: Final = 32
"""How many unlabelled inputs a step takes by default, where no loader says it."""


def check_beside_unlabelled(
    unlabelled: object, weight: float = WEIGHT, labels: float = LABELS, batch_size: int = BATCH_SIZE
) -> None:
    """Refuse what is said of unlabelled inputs, or of mixtures, where there are none: nothing would come of it.

    What is the default may be said, as programs that pass everything on do.

    Args:
        unlabelled: the inputs, ``"mixed"``, or None.
        weight: what was given as ``unlabelled_weight``.
        labels: as ``mixed_labels``.
        batch_size: as ``unlabelled_batch_size``.

    Raises:
        TypeError: such an argument.

    Example:
        >>> check_beside_unlabelled("mixed", 0.5)
        >>> check_beside_unlabelled(None, 0.5)
        Traceback (most recent call last):
        TypeError: unlabelled_weight without inputs that it is of: ... Received: unlabelled_weight=0.5, unlabelled=None.
    """
    is_mixed = isinstance(unlabelled, str)
    for name, value, default, is_of_use, inputs in (
        ("unlabelled_weight", weight, WEIGHT, unlabelled is not None, "unlabelled=..., such as unlabelled='mixed'"),
        ("unlabelled_batch_size", batch_size, BATCH_SIZE, unlabelled is not None and not is_mixed, "unlabelled=x"),
        ("mixed_labels", labels, LABELS, is_mixed, "unlabelled='mixed'"),
    ):
        if not is_of_use and (isinstance(value, bool) or value != default):
            kind = repr(unlabelled) if unlabelled is None or is_mixed else type(unlabelled).__name__
            raise TypeError(
                f"{name} without inputs that it is of: say which, {inputs}, or leave it out. Received: "
                f"{name}={value!r}, unlabelled={kind}."
            )


def checked_weight(weight: float) -> float:
    """What the mean over unlabelled inputs counts beside that over the batch.

    Raises:
        ValueError: It is no such number.
    """
    if isinstance(weight, bool) or not isinstance(cast("Any", weight), Real) or not 0 <= weight < float("inf"):
        raise ValueError(f"unlabelled_weight must be a number >= 0. Received: unlabelled_weight={weight!r}.")
    return float(weight)


def checked_labels(share: float) -> float:
    """The share of the labels in what h2 is taught of a mixture.

    Raises:
        ValueError: It is no share, or leaves nothing to h1.
    """
    if isinstance(share, bool) or not isinstance(cast("Any", share), Real) or not 0 <= share < 1:
        raise ValueError(f"mixed_labels must be a number >= 0 and < 1. Received: mixed_labels={share!r}.")
    return float(share)


def first_share(step: int, process: int = 0) -> float:
    """The share of the first instance of a batch.

    Args:
        step: how many batches were mixed before.
        process: which of the processes, or replicas, works on it.
    """
    return (step * BY_STEP + process * BY_PROCESS) % 1.0


def shares(positions: Any, first: Any) -> Any:
    """How much of each instance is in the mixture of it and its partner, the batch in reverse; 0 to 1.

    Args:
        positions: 0, 1, 2, ... for the instances of the batch; an array of floats of any framework.
        first: the share of the first.

    Example:
        >>> import numpy as np
        >>> shares(np.arange(4.0), first_share(step=0)).round(2).tolist()
        [0.0, 0.62, 0.24, 0.85]
        >>> shares(np.arange(4.0), first_share(step=1)).round(2).tolist()
        [0.41, 0.03, 0.65, 0.27]
    """
    return (positions * _BY_INSTANCE + first) % 1.0


def taught(ops: Operations, said: Array, labels: Array, share: float, known: Array | None = None) -> Array:
    """Probabilities that h2 is taught of mixtures: what h1 says of them, and a share of their labels.

    Args:
        ops: operations of the framework.
        said: h1's probabilities of the mixtures.
        labels: those of the instances, as probabilities, mixed as they are.
        share: of the labels.
        known: where both instances have a label, of others h1 alone can tell; None: everywhere.

    Example:
        >>> import numpy as np
        >>> from bc_core.losses._operations import NumpyOperations
        >>> taught(NumpyOperations(), np.array([0.2, 0.8]), np.array([1.0, 0.0]), 0.5).tolist()
        [0.6, 0.4]
    """
    blend = (1 - share) * said + share * labels
    return blend if known is None else ops.where(known, blend, said)


ROUNDING: Final = 1e-7
"""What a probability in single precision keeps to 0 and 1, where a logit is made of it."""


def says_not_mixed(dtype: object) -> str:
    """What is wrong with inputs that are no measured quantities."""
    return (
        "unlabelled='mixed' mixes the inputs of each batch, which must be floating numbers: there is nothing between "
        "two token ids or categories, so for these give inputs without labels, unlabelled=...; pixels in whole "
        f"numbers become floats in the data. Received: inputs of type {dtype}."
    )
