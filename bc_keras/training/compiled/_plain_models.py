"""Losses and metrics of any Keras model, on labels that carry h1's output: they are shown the label alone."""

from __future__ import annotations

from typing import Any

import keras

from bc_keras.metrics._overlap import OverlapMetric, is_fed_by_model, target_and_h1


def _accuracy(y_true: Any, y_pred: Any) -> Any:
    """The accuracy that Keras means by its name alone, told from the shapes."""
    if y_pred.shape[-1] == 1:
        return keras.metrics.binary_accuracy(y_true, y_pred)
    if len(y_true.shape) < len(y_pred.shape):
        return keras.metrics.sparse_categorical_accuracy(y_true, y_pred)
    return keras.metrics.categorical_accuracy(y_true, y_pred)


def _crossentropy(y_true: Any, y_pred: Any) -> Any:
    """The cross-entropy that Keras means by its name alone, told from the shapes."""
    if y_pred.shape[-1] == 1:
        return keras.losses.binary_crossentropy(y_true, y_pred)
    if len(y_true.shape) < len(y_pred.shape):
        return keras.losses.sparse_categorical_crossentropy(y_true, y_pred)
    return keras.losses.categorical_crossentropy(y_true, y_pred)


def _identifier(given: Any) -> str | None:
    return given.lower() if isinstance(given, str) else None


def _name_of(given: Any, resolved: Any) -> str:
    """The name that Keras would log."""
    if isinstance(given, str):
        return given
    return str(getattr(resolved, "name", None) or getattr(resolved, "__name__", type(resolved).__name__))


@keras.saving.register_keras_serializable(package="bc_keras")
class TargetLoss(keras.losses.Loss):
    """Any Keras loss, on labels that carry h1's output: the loss sees the label and trains as it always does.

    It is needed where a plain Keras model, not a `BCModel`, is trained on the data of `attach_h1` or
    ``StoredOutputs.attach`` so that its metrics see h1. Reduction, dtype, masks and sample weights are those of the
    wrapped loss. ``class_weight`` of ``fit`` reads the joined label and must not be used: pass sample weights.

    Args:
        loss: a `keras.losses.Loss`, a function of target and prediction, or the name of one; ``"crossentropy"`` is
            told from the shapes, as in ``compile``.
        name: name of the loss. Defaults to the name of `loss`.

    Raises:
        ValueError: a name that Keras does not know; when called, labels that do not carry h1's output.

    Example:
        >>> import numpy as np
        >>> from bc_keras import TargetLoss
        >>> from bc_keras.batches._attached import join_reference
        >>> y = join_reference(np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]]))
        >>> h2 = np.array([[0.5, 0.5], [0.5, 0.5]])
        >>> round(float(TargetLoss("sparse_categorical_crossentropy")(y, h2)), 4)
        0.6931

        Usage with the `compile()` API:

        ```python
        x, y = attach_h1(h1, x, y)
        loss = TargetLoss(keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        h2.compile("adam", loss=loss, metrics=[OnTarget("accuracy"), BTC()])
        h2.fit(x, y)
        ```
    """

    def __init__(self, loss: Any, name: str | None = None) -> None:
        resolved = _crossentropy if _identifier(loss) in ("crossentropy", "ce") else keras.losses.get(loss)
        if resolved is None:
            raise ValueError("TargetLoss wraps a Keras loss, a function or the name of one. Received: loss=None.")
        options = {}
        if isinstance(resolved, keras.losses.Loss):
            options = {"reduction": resolved.reduction, "dtype": resolved.dtype}
        super().__init__(name=name or _name_of(loss, resolved), **options)
        self.loss = loss
        self._resolved = resolved

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The wrapped loss of each instance."""
        target, _ = target_and_h1(y_true, y_pred)
        if isinstance(self._resolved, keras.losses.Loss):
            return self._resolved.call(target, y_pred)
        return self._resolved(target, y_pred)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        given = self.loss if isinstance(self.loss, str) else keras.losses.serialize(self._resolved)
        return {"loss": given, "name": self.name}


@keras.saving.register_keras_serializable(package="bc_keras")
class OnTarget(keras.metrics.Metric):
    """Any Keras metric, on labels that carry h1's output: the metric sees the label, and is logged by its own name.

    It is needed where a plain Keras model, not a `BCModel`, has other metrics beside those of this package. Left
    unwrapped, a metric reads h1's columns as a part of the label. Inside a `BCModel`, which takes the label apart
    itself, a wrapped metric is updated as if it were not wrapped.

    Args:
        metric: a `keras.metrics.Metric`, a function of target and prediction, or the name of one; ``"accuracy"`` is
            told from the shapes, as in ``compile``.
        name: name of the metric. Defaults to the name of `metric`.

    Raises:
        TypeError: several metrics, or a metric of this package, which must see h1's output.
        ValueError: a name that Keras does not know; when updated, labels that do not carry h1's output.

    Example:
        >>> import numpy as np
        >>> from bc_keras import OnTarget
        >>> from bc_keras.batches._attached import join_reference
        >>> y = join_reference(np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]]))
        >>> metric = OnTarget("accuracy")
        >>> metric.update_state(y, np.array([[0.6, 0.4], [0.6, 0.4]]))
        >>> metric.name, float(metric.result())
        ('accuracy', 0.5)

        Usage with the `compile()` API:

        ```python
        x, y = attach_h1(h1, x, y)
        h2.compile(
            "adam",
            loss=TargetLoss("sparse_categorical_crossentropy"),
            metrics=[OnTarget("accuracy"), OnTarget(keras.metrics.SparseTopKCategoricalAccuracy(k=3)), BTC()],
        )
        ```
    """

    def __init__(self, metric: Any, name: str | None = None) -> None:
        if metric is None or isinstance(metric, list | tuple):
            raise TypeError(f"OnTarget wraps one metric; wrap each by itself. Received: metric={metric!r}.")
        by_shape = _identifier(metric) in ("accuracy", "acc")
        resolved = _accuracy if by_shape else keras.metrics.get(metric)
        if isinstance(resolved, OverlapMetric):
            raise TypeError(
                f"{type(resolved).__name__} must see h1's output: compile it as it is, not in OnTarget. "
                f"Received: metric={metric!r}."
            )
        if not isinstance(resolved, keras.metrics.Metric):
            resolved = keras.metrics.MeanMetricWrapper(resolved, name=_name_of(metric, resolved))
        super().__init__(name=name or _name_of(metric, resolved), dtype=resolved.dtype)
        self.metric = resolved
        self._given = metric if isinstance(metric, str) else None
        # Where Keras's callbacks look for mode="auto".
        direction = "up" if by_shape else getattr(resolved, "_direction", None)
        if direction is not None:
            self._direction = direction

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Update the wrapped metric with the label in `y_true`."""
        if not is_fed_by_model():
            y_true = target_and_h1(keras.ops.convert_to_tensor(y_true), y_pred)[0]
        self.metric.update_state(y_true, y_pred, sample_weight=sample_weight)

    def result(self) -> Any:
        """The result of the wrapped metric."""
        return self.metric.result()

    def reset_state(self) -> None:
        """Reset the wrapped metric."""
        self.metric.reset_state()

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {"metric": self._given or keras.metrics.serialize(self.metric), "name": self.name}
