"""Which variables of h2 a training changes, so that h1 may share the others: preprocessing, a frozen backbone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from bc_keras.reference._blend import Blend

# They learn from the batches that pass through them whatever ``trainable`` says.
_UPDATED_THOUGH_FROZEN = (keras.layers.SpectralNormalization,)
# Their state is computed beforehand, by ``adapt``.
_ADAPTED_BEFORE = (keras.layers.Normalization, keras.layers.Discretization)
NOT_BY_FREEZING = ", for all that is known also if it is frozen"


def check_no_shared_variables(h1: Any, h2: Any) -> None:
    """Refuse an h1 that would be trained as a part of h2; what no step changes may be shared."""
    if isinstance(h1, Blend):
        for member in h1.members:
            check_no_shared_variables(member.h1, h2)
    if not isinstance(h1, keras.Layer):
        return
    if h1 is h2:
        raise ValueError(
            "h1 and h2 are one model, so h1 would change while h2 is trained: pass a copy, "
            "keras.models.clone_model(h1) with h1's weights set. Received: h1 is h2."
        )
    moving = {id(variable): why for variable, why in changing_variables(h2)}
    shared = [(variable.path, moving[id(variable)]) for variable in h1.weights if id(variable) in moving]
    if shared:
        path, why = shared[0]
        freeze = (
            "" if any(NOT_BY_FREEZING in each for _, each in shared) else ", or freeze it (layer.trainable = False)"
        )
        raise ValueError(
            "h1 and h2 share variables that training changes, so h1 would change with h2: build h2 from layers of its "
            f"own (keras.models.clone_model copies what is shared, then set its weights){freeze}. "
            f"Received: shared {path}, which {why}{f', and {len(shared) - 1} more' if len(shared) > 1 else ''}."
        )


def changing_variables(model: keras.Model) -> Iterator[tuple[Any, str]]:
    """Each weight of a model that a step of its training may change, and how."""
    trained = {id(variable) for variable in model.trainable_variables}
    for layer in model._flatten_layers():
        for variable in layer._trainable_variables:
            if id(variable) in trained:
                yield variable, "the optimiser trains"
        for variable in layer._non_trainable_variables:
            if id(variable) in trained:
                yield variable, "the optimiser trains"
            elif not _is_still(layer):
                frozen = NOT_BY_FREEZING if not _heeds_trainable(layer) else ""
                yield variable, f"{layer.name!r} ({type(layer).__name__}) updates in training steps{frozen}"


def _is_still(layer: keras.Layer) -> bool:
    """Whether no step changes what the layer holds beside its trainable weights."""
    return isinstance(layer, _ADAPTED_BEFORE) or (not layer.trainable and _heeds_trainable(layer))


def _heeds_trainable(layer: keras.Layer) -> bool:
    """Whether freezing the layer is known to stop its updates; of a layer of the user's own nothing is known."""
    return type(layer).__module__.startswith("keras.") and not isinstance(layer, _UPDATED_THOUGH_FROZEN)
