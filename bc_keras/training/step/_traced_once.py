"""On TensorFlow, the variables that a first step would make: a step that makes any is traced once more.

Tracing is most of what a first step takes, so what steps of Keras's own make is made before, from what the batches say
of themselves. Within the trace is too late: its scope of variables holds even in ``tf.init_scope``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from bc_keras.training._preparation import has_own
from bc_keras.training._state import Compatibility
from bc_keras.training.step._penalty import target_and_stored


def traced_once(model: Any, name: str, function: Callable[[Any], Any], state: Compatibility) -> Callable[[Any], Any]:
    """A train or test function of Keras's that makes its variables when it is first called."""
    # A step of the user's own may train other weights than the model's, and leave the metrics alone.
    if has_own(state.user_class, name.replace("function", "step")):
        return function

    def with_variables(batches: Any) -> Any:
        if name == "train_function":
            _build_optimizer(model)
        _build_metrics(model, state, getattr(batches, "element_spec", None))
        return function(batches)

    return with_variables


def _build_optimizer(model: Any) -> None:
    """Make its variables, where all that it is to train is there, and named as where a step makes them."""
    optimizer = model.optimizer
    if optimizer is None or optimizer.built or not all(_has_all_weights(layer) for layer in model._flatten_layers()):
        return
    # One of the user's own may leave out some weights, or have no variables at all.
    parts = (optimizer, getattr(optimizer, "inner_optimizer", optimizer))
    if model.trainable_weights and all(_is_of_keras(part, "apply", "apply_gradients") for part in parts):
        with keras.name_scope(optimizer.name, caller=optimizer):
            optimizer.build(model.trainable_weights)


def _has_all_weights(layer: Any) -> bool:
    """Whether no call makes any more: one of the user's own that says of itself that it is built is never locked."""
    return bool(layer.built and (layer._tracker.locked or _is_of_keras(layer, "call")))


def _is_of_keras(made: Any, *methods: str) -> bool:
    return all(getattr(made, name).__module__.partition(".")[0] == "keras" for name in methods)


def _build_metrics(model: Any, state: Compatibility, batch: Any) -> None:
    """Make compiled metrics, which know by the shapes of target and output what they are, where both are known."""
    import tensorflow as tf

    metrics = model._compile_metrics
    # What a call of the user's own gives is not told by the outputs of its layers.
    if (
        metrics is None
        or metrics.built
        or has_own(state.user_class, "compute_metrics")
        or not _is_of_keras(model, "call")
    ):
        return
    y = keras.utils.unpack_x_y_sample_weight(batch)[1] if isinstance(batch, tuple) else None
    outputs = getattr(model, "outputs", None) or []
    if not isinstance(y, tf.TensorSpec) or y.shape.rank is None or len(outputs) != 1:
        return
    if len(outputs[0].shape) > 1 and outputs[0].shape[-1] is not None:
        target, _ = target_and_stored(state.references, keras.KerasTensor(tuple(y.shape), y.dtype.name), outputs[0])
        metrics.build(target, outputs[0])
