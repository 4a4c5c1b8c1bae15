"""Random numbers that are the caller's: kept where they were, whatever is drawn in between."""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import keras
from keras.src.backend.common import global_state  # public nowhere; holds the generator of unseeded random numbers

from bc_core._random_numbers import python_and_numpy_kept

_GENERATOR, _SEED = "global_seed_generator", "global_random_seed"


@contextmanager
def random_numbers_kept() -> Iterator[None]:
    """Afterwards the generators of Python, NumPy, Keras and the frameworks in use are where they were.

    Going through a data loader draws from them, even where nothing is shuffled.

    Example:
        >>> import keras
        >>> from bc_keras._random_numbers import random_numbers_kept
        >>> _ = keras.random.uniform(())  # whether or not Keras has drawn before
        >>> with random_numbers_kept():
        ...     first = float(keras.random.uniform(()))
        >>> float(keras.random.uniform(())) == first
        True
    """
    restore = [_restorer(_attribute(name), _setter(name)) for name in (_GENERATOR, _SEED)]
    generator = global_state.get_global_attribute(_GENERATOR)
    if generator is not None:
        # The object stays, and counts what it has drawn.
        drawn = keras.ops.convert_to_numpy(generator.state).copy()
        restore.append(lambda: generator.state.assign(drawn))
    torch, tensorflow = sys.modules.get("torch"), sys.modules.get("tensorflow")
    if torch is not None:
        restore.append(_restorer(torch.get_rng_state, torch.set_rng_state))
        if torch.cuda.is_initialized():
            restore.append(_restorer(torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all))
    if tensorflow is not None:
        # TensorFlow has no public way to ask for its seed.
        with suppress(Exception):
            context = importlib.import_module("tensorflow.python.eager.context").context()
            known = context._seed, copy.deepcopy(context._rng)
            restore.append(lambda: context.__dict__.update(_seed=known[0], _rng=known[1]))
    with python_and_numpy_kept():
        try:
            yield
        finally:
            for back in restore:
                back()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers of a seed; afterwards the caller's generators are where they were."""
    with random_numbers_kept():
        keras.utils.set_random_seed(seed)
        seed_torch(seed)
        yield


def seed_torch(seed: int) -> None:
    """For loaders of torch on other backends; Keras seeds its own."""
    if "torch" in sys.modules and keras.backend.backend() != "torch":
        sys.modules["torch"].manual_seed(seed)


def _restorer(get: Callable[[], Any], put: Callable[[Any], Any]) -> Callable[[], Any]:
    state = get()
    return lambda: put(state)


def _attribute(name: str) -> Callable[[], Any]:
    return lambda: global_state.get_global_attribute(name)


def _setter(name: str) -> Callable[[Any], Any]:
    return lambda value: global_state.set_global_attribute(name, value)
