"""Random numbers of Python and NumPy that are the caller's: what the frameworks' own keeping begins with."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


def python_and_numpy_state() -> tuple[object, ...]:
    """Where the global generators of Python and NumPy are, to be compared with where they were."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    return random.getstate(), name, np.asarray(keys).tobytes(), *rest


@contextmanager
def python_and_numpy_kept() -> Iterator[None]:
    """Afterwards the global generators of Python and NumPy are where they were; users' transforms draw from them.

    Example:
        >>> import random
        >>> from bc_core._random_numbers import python_and_numpy_kept
        >>> with python_and_numpy_kept():
        ...     first = random.random()
        >>> random.random() == first
        True
    """
    python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global one is what is drawn from
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(of_numpy)  # noqa: NPY002
