"""Optimizers, metrics and losses that are made anew for every point, and models on their way to other processes."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras

from bc_keras._copies import cloned
from bc_keras.reference._reference import Reference

MODEL_FILE = "model.keras"


class Remade(NamedTuple):
    """An optimizer, a metric or a loss, to be made anew of its config."""

    kind: type[Any]
    config: dict[str, Any]

    def made(self) -> Any:
        """A new one."""
        return self.kind.from_config(copy.deepcopy(self.config))


def to_be_remade(value: Any) -> Any:
    """Objects with a state of their own, as what they are made of."""

    def leaf(each: Any) -> Any:
        is_loss = isinstance(each, keras.losses.Loss) and type(each).get_config is not keras.losses.Loss.get_config
        if not (isinstance(each, keras.optimizers.Optimizer | keras.metrics.Metric) or is_loss):
            return each
        remade = Remade(type(each), each.get_config())
        try:
            remade.made()
        except Exception as error:
            raise TypeError(
                f"{type(each).__name__} cannot be made anew of its config for every point: pass a function, "
                f"compile=lambda: {{...}}. Received: {type(error).__name__}: {error}"
            ) from error
        return remade

    return _mapped(value, leaf)


def remade(value: Any) -> Any:
    """What `to_be_remade` took apart, made anew."""
    return _mapped(value, lambda each: each.made() if isinstance(each, Remade) else each)


def _mapped(value: Any, leaf: Callable[[Any], Any]) -> Any:
    if isinstance(value, Mapping):
        return {key: _mapped(each, leaf) for key, each in value.items()}
    if isinstance(value, list | tuple) and not isinstance(value, Remade):
        return type(value)([_mapped(each, leaf) for each in value])
    return leaf(value)


class Packed(NamedTuple):
    """A Keras model on its way to another process, with the classes that it is made of."""

    content: bytes
    custom_objects: dict[str, Any]


class PackedReference(NamedTuple):
    """A `Reference` on its way: what it asks, packed, and the other arguments that it is made of."""

    asked: Any
    arguments: dict[str, Any]


def packed(model: Any) -> Any:
    """A Keras model as it travels, also in a blend or a `Reference`; anything else as it is."""
    if isinstance(model, list | tuple):
        return type(model)([packed(each) for each in model])
    if isinstance(model, Reference):
        if model.mixed is None:
            how: dict[str, Any] = {"from_logits": model.from_logits}
            return PackedReference(packed(model.h1), {"class_map": model.class_map, **how})
        blend = model.mixed
        members = [packed(pair) for pair in zip(blend.members, blend.weights, strict=True)]
        how = {"blend": blend.space, "multilabel": blend.multilabel}
        return PackedReference(members, {"class_map": model.class_map, **how})
    if not isinstance(model, keras.Model):
        return model
    custom = dict(keras.saving.get_custom_objects())
    for layer in (model, *model._flatten_layers()):
        custom |= {type(layer).__name__: type(layer), keras.saving.get_registered_name(type(layer)): type(layer)}
    own = ("keras", "bc_keras", "bc_core")
    custom = {name: each for name, each in custom.items() if str(each.__module__).split(".")[0] not in own}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MODEL_FILE
        model.save(path)
        return Packed(path.read_bytes(), custom)


def unpacked(model: Any) -> Any:
    """What `packed` took apart."""
    if isinstance(model, PackedReference):
        return Reference(unpacked(model.asked), **model.arguments)
    if isinstance(model, list | tuple) and not isinstance(model, Packed):
        return type(model)([unpacked(each) for each in model])
    if not isinstance(model, Packed):
        return model
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MODEL_FILE
        path.write_bytes(model.content)
        return keras.saving.load_model(path, custom_objects=model.custom_objects, compile=False, safe_mode=False)


def check_copied(h2: Any) -> None:
    """Refuse a model of which no copies can be made."""
    if not h2.built:
        raise ValueError(
            "h2 has no weights yet, so that points could not start alike: call it once on a batch, or pass a "
            f"function that makes it. Received: the unbuilt h2={h2.name!r}."
        )
    try:
        cloned(h2)
    except Exception as error:
        raise ValueError(
            "h2 cannot be copied by its config and weights: pass a function that makes it. Received: "
            f"h2={h2.name!r}, {type(error).__name__}: {error}"
        ) from error
