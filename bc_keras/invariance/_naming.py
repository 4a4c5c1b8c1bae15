"""Which layers of two models belong together, though Keras numbers names by what was made before."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import keras
from keras.src.utils.naming import to_snake_case  # public nowhere; what Keras names layers by

from bc_core.invariance._layers import OUTPUT, LayerChoice
from bc_keras.invariance._activations import layers_of


def _numbered(model: Any) -> dict[str, str]:
    """For each layer's name one that does not depend on how many layers were made before, such as ``"conv2d#3"``."""
    numbered = {"": ""}
    counts: dict[str, int] = {}
    for name, layer in layers_of(model):
        if not name:
            continue
        around = name.rpartition("/")[0]
        prefix = f"{numbered[around]}/" if around else ""
        kind = to_snake_case(type(layer).__name__)
        own = name.rpartition("/")[2]
        if re.fullmatch(rf"{re.escape(kind)}(_\d+)?", own):
            counts[prefix + kind] = counts.get(prefix + kind, 0) + 1
            own = f"{kind}#{counts[prefix + kind]}"
        numbered[name] = prefix + own
    return numbered


def _parts(label: str) -> tuple[str, str]:
    """A layer's name, and what says which of its activations it is."""
    found = re.match(r"([^:\[]*)(.*)", label)
    assert found is not None
    return ("" if found[1] == OUTPUT else found[1]), found[2]


def in_names_of(h1: Any, h2: Any, layers: LayerChoice | None) -> LayerChoice | None:
    """A choice by h2's names and layers, for h1."""
    if layers is None or callable(layers) or isinstance(layers, (str, keras.Layer)):
        return layers
    own = dict(layers_of(h1))
    by_number = {number: name for name, number in _numbered(h1).items()}
    numbers = _numbered(h2)
    by_layer = {id(layer): name for name, layer in layers_of(h2)}
    chosen: list[Any] = []
    for one in layers:
        label = one
        if isinstance(one, keras.Layer):
            if any(one is layer for layer in own.values()) or id(one) not in by_layer:
                chosen.append(one)
                continue
            label = by_layer[id(one)] or OUTPUT
        if isinstance(label, str):
            name, part = _parts(label)
            name = by_number.get(numbers.get(name, name), name)
            label = (name or OUTPUT) + part
        chosen.append(label)
    return chosen


def names_beside(h1: Any, h2: Any, of_h1: Sequence[str], of_h2: Sequence[str]) -> dict[str, str]:
    """What h1's activations are called beside h2's, where that is something else.

    Args:
        h1: The model in use.
        h2: Its update.
        of_h1: Names of h1's activations.
        of_h2: Names of h2's.
    """
    numbers_h1, numbers_h2 = _numbered(h1), _numbered(h2)
    counterparts = {_numbered_label(label, numbers_h2): label for label in of_h2}
    shown = {}
    for label in of_h1:
        alone = f"{label} (h1)" if label in of_h2 else label
        shown[label] = counterparts.get(_numbered_label(label, numbers_h1), alone)
    return {label: name for label, name in shown.items() if label != name}


def _numbered_label(label: str, numbers: dict[str, str]) -> str:
    name, part = _parts(label)
    return numbers.get(name, name) + part
