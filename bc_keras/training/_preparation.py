"""Models whose ``fit``, ``evaluate`` and ``predict`` prepare the inputs, as the tasks of KerasHub do."""

from __future__ import annotations

import contextlib
import json
import pickle
from typing import Any

import keras


def has_own(cls: type, name: str) -> bool:
    """Whether a class of Keras models defines a method of `keras.Model` anew."""
    return getattr(cls, name) is not getattr(keras.Model, name)


def prepared(model: Any, x: Any) -> Any:
    """Raw inputs as the layers of a model get them in its ``predict``.

    Raises:
        TypeError: the model has a ``predict`` of its own and does not say what it does to the inputs.
    """
    if not isinstance(model, keras.Model) or not has_own(type(model), "predict"):
        return x
    if not hasattr(model, "preprocessor"):
        raise TypeError(
            "The model has a predict of its own and no preprocessor, so what it does to the inputs is not known here. "
            "Compare what it and h1 say of the data instead: bc_core.compare(y, h1.predict(x).argmax(-1), "
            f"model.predict(x).argmax(-1)). Received: {type(model).__name__}."
        )
    if model.preprocessor is None:
        return x
    return keras.utils.unpack_x_y_sample_weight(model.preprocessor(x))[0]


def prepared_for_h1(h1: Any, x: Any, of_h2: Any) -> Any:
    """Raw inputs as h1 gets them where it is compared: as it prepares them itself, else as h2 gets them.

    Args:
        h1: the model in use.
        x: raw inputs.
        of_h2: what h2's layers get.

    Raises:
        TypeError: h1 has a ``predict`` of its own and does not say what it does to the inputs.
    """
    if not isinstance(h1, keras.Model) or not has_own(type(h1), "predict"):
        return of_h2
    if not hasattr(h1, "preprocessor"):
        raise TypeError(
            "h1 has a predict of its own and no preprocessor, so what it does to the inputs is not known here. Give "
            "its answers for the rows of arrays (x, y) instead: h1=h1.predict(x). If it takes what h2's layers get, "
            f"say so: h1=lambda x: h1(x, training=False). Received: {type(h1).__name__}."
        )
    return of_h2 if h1.preprocessor is None else prepared(h1, x)


def check_same_preparation(h1: Any, h2: keras.Model) -> None:
    """Refuse an h1 that prepares its inputs in ``predict`` otherwise than h2, whose prepared inputs it would get."""
    if not isinstance(h1, keras.Model) or not has_own(type(h1), "predict"):
        return
    nothing = object()
    first, second = (getattr(each, "preprocessor", nothing) for each in (h1, h2))
    if first is None or (first is not nothing and first is second):
        return
    with contextlib.suppress(AttributeError, TypeError, pickle.PicklingError):  # of which nothing is known
        if nothing not in (first, second) and _preparation(first) == _preparation(second):
            return
    raise TypeError(
        "h1 has a predict of its own, so it may prepare its inputs otherwise than h2, and a training step shows both "
        "models what h2's layers get. If that is right for h1 too, say so: h1=lambda x: h1(x, training=False). Else "
        "ask it beforehand: stored = StoredOutputs.from_predictions(h1.predict(x)), BCModel(h2, h1=stored), "
        f"fit(*stored.attach(x, y)). Received: {type(h1).__name__}."
    )


def _preparation(preprocessor: Any) -> Any:
    """What a preprocessor does to inputs: its config, without names, and vocabularies, which configs leave out."""
    if preprocessor is None:
        return None
    parts = [
        preprocessor,
        *(part for part in getattr(preprocessor, "__dict__", {}).values() if hasattr(part, "get_vocabulary")),
    ]
    vocabularies = [list(part.get_vocabulary()) for part in parts if hasattr(part, "get_vocabulary")]
    try:
        config = keras.saving.serialize_keras_object(preprocessor)
    except (TypeError, ValueError):
        # An object that is no Keras one: the same if it is of the same class and holds the same.
        return type(preprocessor), pickle.dumps(vars(preprocessor))
    return json.dumps([_without_names(config), vocabularies], sort_keys=True, default=str)


def _without_names(config: Any) -> Any:
    if isinstance(config, dict):
        return {key: _without_names(value) for key, value in config.items() if key not in ("name", "shared_object_id")}
    return [_without_names(each) for each in config] if isinstance(config, list | tuple) else config
