"""On JAX, what a compiled step must be given beside the batch: h1's weights and lambda_c.

A compiled step takes what it reads from outside as a constant, so both have to come in as arguments. As a part of the
model's state they would be donated to the step and gone from the caller's h1 until the epoch ends; with the batch they
stay where they are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras


class Beside(NamedTuple):
    """A batch, and the values that its step reads."""

    values: Any
    batch: Any


def with_values(function: Callable[[Any, Any], Any], values: Callable[[], Any]) -> Callable[[Any, Any], Any]:
    """A train or test function of Keras whose step gets `values` with each batch."""

    def step(state: Any, batches: Iterator[Any]) -> Any:
        return function(state, (Beside(values(), batch) for batch in batches))

    return step


def reading(variables: list[Any], values: list[Any]) -> contextlib.AbstractContextManager[Any]:
    """Within it the variables have these values; one without a value has that of the step's own state."""
    mapping = [
        (variable, variable.value if value is None else value)
        for variable, value in zip(variables, values, strict=True)
    ]
    scope: contextlib.AbstractContextManager[Any] = keras.StatelessScope(state_mapping=mapping)
    return scope
