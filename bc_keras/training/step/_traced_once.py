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
    """A train or test function of Keras's that makes its variables when it is first called, and is replaced then."""

    def first(batches: Any) -> Any:
        setattr(model, name, function)
        # A step of the user's own may train other weights than the model's, and leave the metrics alone.
        if not has_own(state.user_class, name.replace("function", "step")):
            if name == "train_function":
                _build_optimizer(model)
            _build_metrics(model, state, getattr(batches, "element_spec", None))
        return function(batches)

    return first


def _build_optimizer(model: Any) -> None:
    """Make its variables, where all that it is to train is there."""
    optimizer = model.optimizer
    if optimizer is not None and not optimizer.built and all(layer.built for layer in model._flatten_layers()):
        optimizer.build(model.trainable_variables)


def _build_metrics(model: Any, state: Compatibility, batch: Any) -> None:
    """Make compiled metrics, which know by the shapes of target and output what they are, where both are known."""
    import tensorflow as tf

    metrics, outputs = model._compile_metrics, getattr(model, "outputs", None)
    if metrics is None or metrics.built or has_own(state.user_class, "compute_metrics") or not outputs:
        return
    y = keras.utils.unpack_x_y_sample_weight(batch)[1] if isinstance(batch, tuple) else None
    if not isinstance(y, tf.TensorSpec) or y.shape.rank is None:
        return
    target, _ = target_and_stored(state.references, keras.KerasTensor(tuple(y.shape), y.dtype.name), outputs[0])
    metrics.build(target, outputs[0])
