"""Arguments of a sweep in Keras, looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from bc_keras.sweep._remade import to_be_remade


def told_apart(
    model_options: Mapping[str, Any] | None, class_map: Any, common: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of `BCModel`, and the arguments of all frameworks, some of which may come among the former.

    Raises:
        TypeError: One is given in both, or there is a promise, of which a sweep takes several.
    """
    options, common = dict(model_options or {}), dict(common)
    given = {name for name in ("class_map", "teacher", "plain", "unlabelled") if options.get(name) is not None}
    twice = sorted(name for name in given if (class_map if name == "class_map" else common[name]) is not None)
    if twice:
        raise TypeError(f"Say {', '.join(twice)} once, not in model_options too.")
    if "promise" in options:
        raise TypeError(f"A sweep takes promises=[...]. Received: model_options with promise={options['promise']!r}.")
    if class_map is not None:
        options["class_map"] = class_map
    taken = ("teacher", "plain", "unlabelled", "unlabelled_weight", "mixed_labels")
    common |= {name: options.pop(name) for name in taken if name in options}
    return options, common


def as_data(given: Any) -> Any:
    """Inputs without labels, as data with labels."""
    if isinstance(given, tuple | list) or not all(hasattr(leaf, "shape") for leaf in keras.tree.flatten(given)):
        return given
    return given, np.zeros(len(keras.tree.flatten(given)[0]), "int64")


def checked_compile(given: Any) -> Any:
    """Arguments of `compile`, or a function that makes them; objects of a state of their own as what they are made of.

    Raises:
        TypeError: It is neither.
    """
    if callable(given):
        return given
    if not isinstance(given, Mapping):
        raise TypeError(
            "compile must hold arguments of compile, such as {'optimizer': 'adam', 'loss': "
            f"'sparse_categorical_crossentropy'}}, or be a function that returns them. Received: compile={given!r}."
        )
    return {name: to_be_remade(value) for name, value in given.items()}


def checked_fit(fit: Any) -> dict[str, Any]:
    """Arguments of `fit`.

    Raises:
        TypeError: No mapping, or arguments that have another place here.
        ValueError: No number of epochs.
    """
    if not isinstance(fit, Mapping):
        raise TypeError(
            f"fit must hold arguments of fit, such as {{'epochs': 10, 'batch_size': 64}}. Received: fit={fit!r}."
        )
    for name, place in (
        ("x", "train=(x, y)"),
        ("y", "train=(x, y)"),
        ("sample_weight", "train=(x, y, sample_weight)"),
        ("validation_data", "val=..., which fit gets where it has callbacks"),
    ):
        if name in fit:
            raise TypeError(f"{name} does not go to fit here but to {place}. Received: fit={list(fit)!r}.")
    epochs = fit.get("epochs", 1)
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
        raise ValueError(f"epochs must be a whole number >= 1. Received: fit={{'epochs': {epochs!r}}}.")
    return dict(fit)
