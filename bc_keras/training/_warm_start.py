"""`warm_start`: h2 begins with h1's weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras.src.utils.naming import to_snake_case  # public nowhere; by which layers are named that the user has not

from bc_core.reference._class_map import ClassMap
from bc_core.reference._weights import WarmStart, matched, renaming, shapes_of
from bc_keras.reference._reference import Reference
from bc_keras.reference._shared_variables import check_no_shared_variables
from bc_keras.training._telling import say

SEPARATOR = "/"


def warm_start(h2: keras.Model, h1: Any, class_map: Sequence[Any] | Mapping[str, Any] | None = None) -> WarmStart:
    """Copy h1's weights into h2, where names and shapes match.

    Weights, running statistics among them, are assigned in place, in h2's types, and nothing is shared. Layers go
    together by the names that you gave them; where Keras has numbered them, as ``dense_7``, by their class and place
    (``dense``, ``dense_1``) within the model, as in its files. Call it before the first step: what h2 had learned,
    where it is copied over, is lost.

    Args:
        h2: the update, built.
        h1: the model in use: a built Keras model, or a `Reference` to one.
        class_map: for an h1 with other classes, as in `BCModel`; that of a `Reference` by default. The layer that gives
            the scores is then copied class by class: new classes keep h2's own, parts of a class that was split begin
            as the whole, merged ones as the mean.

    Returns:
        What was copied and what was not, and why; as text with ``print``.

    Raises:
        TypeError: h1 or h2 is no Keras model, so it has no weights to copy.
        ValueError: no weight fits; h1 and h2 share weights; a model is not built; h2's optimizer has made steps, or
            keeps averages of the weights before; by the class map classes are in another order, and which layer gives
            the scores cannot be told.

    Example:
        >>> import keras
        >>> from bc_keras import warm_start
        >>> def net(classes):
        ...     layers = keras.layers
        ...     return keras.Sequential([keras.Input((4,)), layers.Dense(8, "relu"), layers.Dense(classes, "softmax")])
        >>> report = warm_start(net(5), net(3))
        >>> report.copied
        ('dense/kernel', 'dense/bias')
        >>> report.left["dense_1/bias"]
        '(3,) in h1, (5,) in h2'
    """
    old, new = weights_behind(h1, "h1"), weights_behind(h2, "h2")
    check_no_shared_variables(old, new)
    _check_optimizer(h2)
    first, second = named_weights(old), named_weights(new)
    shapes_1, shapes_2 = shapes_of(first), shapes_of(second)
    to_h2 = renaming(shapes_1, shapes_2, SEPARATOR)
    if class_map is None and isinstance(h1, Reference):
        class_map = h1.class_map
    told = None if class_map is None else ClassMap.of(class_map)
    report = matched(shapes_1, shapes_2, to_h2, told, -1, SEPARATOR)
    of_h2 = {to_h2(name): variable for name, variable in first.items()}
    for name in report.copied:
        values = np.asarray(keras.ops.convert_to_numpy(of_h2[name]))
        if name in report.head:
            theirs, values = values, np.array(keras.ops.convert_to_numpy(second[name]))
            for c, sources in report.rows.items():
                values[..., c] = theirs[..., list(sources)].mean(-1)
        second[name].assign(values)
    return report


def started(h2: keras.Model, h1: Any) -> None:
    """Warm start h2 for a training, and say what was copied."""
    say(str(warm_start(h2, h1)))


def weights_behind(model: Any, called: str) -> keras.Model:
    """The model whose weights are taken.

    Raises:
        TypeError: there is none.
        ValueError: it has none yet.
    """
    given = model.h1 if isinstance(model, Reference) else model
    if not isinstance(given, keras.Layer):
        raise TypeError(
            f"{called} must be a Keras model, as its weights are taken. A function or stored outputs have none: pass "
            f"the old model itself. Received: {type(given).__name__}."
        )
    if not given.built or not given.weights:
        raise ValueError(
            f"{called} has no weights yet: call it once on a batch, or give its first layer a keras.Input. Received: "
            f"the unbuilt {called}={given.name!r}."
        )
    return given


def named_weights(model: keras.Layer) -> dict[str, Any]:
    """All weights by names that two models of one make have alike; a shared one under the first of its names."""
    found: dict[str, Any] = {}
    for path, layer in named_layers(model):
        for variable in (*layer._trainable_variables, *layer._non_trainable_variables):
            name = f"{path}{SEPARATOR}{variable.name}" if path else variable.name
            again = 0
            while name in found:
                again += 1
                name = f"{path}{SEPARATOR}{variable.name}_{again}"
            found[name] = variable
    return found


def named_layers(model: keras.Layer, path: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, keras.Layer]]:
    """Each layer once, with its path: names of the user's own, and class and place for those that Keras numbered."""
    seen = set() if seen is None else seen
    seen.add(id(model))
    yield path, model
    places: dict[str, int] = {}
    for layer in model._flatten_layers(include_self=False, recursive=False):
        name = layer.name
        # Of the two within a Bidirectional the names are made of that of a third.
        kind = rf"(?:forward_|backward_)?{re.escape(to_snake_case(type(layer).__name__))}"
        if numbered := re.fullmatch(rf"({kind})(_\d+)?", name):
            name = numbered[1]
            place = places.get(name, 0)
            places[name] = place + 1
            name = f"{name}_{place}" if place else name
        if id(layer) not in seen:
            yield from named_layers(layer, f"{path}{SEPARATOR}{name}" if path else name, seen)


def _check_optimizer(h2: keras.Model) -> None:
    optimizer = getattr(h2, "optimizer", None)
    if optimizer is None or not optimizer.built:
        return
    steps = int(keras.ops.convert_to_numpy(optimizer.iterations))
    if steps or getattr(optimizer, "use_ema", False):
        raise ValueError(
            "h2's optimizer remembers the weights before a warm start: compile h2 anew, h2.compile(...), after or "
            "before it. Received: an optimizer "
            + (f"that has made {steps} steps." if steps else "with averages of the weights (use_ema).")
        )
