"""Random numbers that are the caller's: kept where they were, whatever is drawn in between."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from bc_core._random_numbers import python_and_numpy_kept, python_and_numpy_state


@contextmanager
def random_numbers_kept() -> Iterator[None]:
    """Afterwards the generators of Python, NumPy and torch, on all devices, are where they were.

    Going through a data loader draws from them, even where nothing is shuffled.

    Example:
        >>> import torch
        >>> from bc_lightning._random_numbers import random_numbers_kept
        >>> with random_numbers_kept():
        ...     first = torch.rand(3)
        >>> bool((torch.rand(3) == first).all())
        True
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with python_and_numpy_kept(), torch.random.fork_rng(devices=devices):
        yield


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers of a seed; afterwards the caller's generators are where they were."""
    with random_numbers_kept():
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        yield


def generators_state(closely: bool) -> tuple[Any, ...]:
    """Where the generators of random numbers stand; those of Python and NumPy take longer to ask."""
    cuda = torch.cuda.default_generators if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    state: tuple[Any, ...] = (torch.get_rng_state().numpy().tobytes(), *(each.get_offset() for each in cuda))
    return (*state, python_and_numpy_state()) if closely else state
