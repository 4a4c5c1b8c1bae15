"""`MeanWeights`: a training ends with the mean of its later weights."""

from __future__ import annotations

import warnings
from typing import Any

import keras

from bc_core._numbers import check_count
from bc_core.after_training._mean_weights import (
    first_of,
    says_begun_late,
    says_no_statistics,
    says_not_averaged,
    says_not_estimated,
)
from bc_keras.after_training._statistics import StatisticsData, check_is_taken, estimate
from bc_keras.training.promise._promise import Weights, _toward, told_by


class MeanWeights(keras.callbacks.Callback):
    """End a training with the mean of the weights after each epoch of its later half (stochastic weight averaging).

    The last weights of a training carry the noise of its last batches, and that noise is flips. The training itself is
    not touched: steps, validation and the files of other callbacks are of the weights as they move, and when ``fit``
    ends the model has their mean, also in place of the average of an optimizer's ``use_ema``. Works with any Keras
    model, `BCModel` too. A ``fit`` that begins at a later epoch (``initial_epoch``, `BackupAndRestore`) has seen no
    weights of those before, and says so if they should have counted. Put it last: a callback behind it that sets
    weights when ``fit`` ends, such as ``EarlyStopping(restore_best_weights=True)``, sets them over the mean.

    Args:
        first_epoch: the first epoch, from 0 on, whose weights count. By default that of the later half.
        statistics: training data for running statistics (BatchNormalization's), as in `interpolate`: those of the
            trained networks are not of the mean's activations. Layers whose statistics the training has not moved, as
            those of a backbone in inference mode, keep them.

    Raises:
        TypeError: when training begins: `statistics` that cannot be read again.
        ValueError: a number that is none; when training begins: an epoch that does not come, or running statistics
            without `statistics`, or with some that h2 cannot take. What shows later, such as a batch of another form,
            is a warning when the training ends, and h2 keeps its last weights.

    Reference:
        Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018.

    Example:
        >>> import keras, numpy as np
        >>> from bc_keras import MeanWeights
        >>> h2 = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
        >>> h2.compile("sgd", "sparse_categorical_crossentropy")
        >>> x, y = np.random.default_rng(0).normal(size=(90, 4)), np.arange(90) % 3
        >>> history = h2.fit(x, y, epochs=4, verbose=0, callbacks=[MeanWeights()])
    """

    def __init__(self, first_epoch: int | None = None, *, statistics: Any = None) -> None:
        super().__init__()
        if first_epoch is not None:
            check_count(first_epoch, "first_epoch", 0)
        self.first_epoch, self.statistics = first_epoch, statistics
        self._mean: Weights | None = None
        self._counted = 0
        self._begun_at: int | None = None
        # Running statistics as this fit found them, by layer.
        self._before: dict[int, list[int]] = {}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Refuse what could not be averaged, before an epoch is spent."""
        self._mean, self._counted, self._begun_at = None, 0, None
        self._first()
        layers = self._with_statistics()
        if layers and self.statistics is None:
            raise ValueError(says_no_statistics(layers[0].name, type(layers[0]).__name__))
        if layers:
            check_is_taken(self.model, StatisticsData(self.statistics))
        self._before = {id(layer): _statistics_of(layer) for layer in layers}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Take the weights in."""
        self._begun_at = epoch if self._begun_at is None else self._begun_at
        if epoch < self._first():
            return
        self._counted += 1
        now, mean = self.model.get_weights(), self._mean
        pairs = zip(now if mean is None else mean, now, strict=True)
        self._mean = [_toward(before, each, 1 / self._counted) for before, each in pairs]

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Give the model the mean."""
        first = self._first()
        if (said := says_not_averaged(self._counted, first)) is not None:
            warnings.warn(said, stacklevel=2)
            return
        if (said := says_begun_late(first, self._begun_at, self._counted)) is not None:
            warnings.warn(said, stacklevel=2)
        moved = [layer for layer in self._with_statistics() if _statistics_of(layer) != self._before.get(id(layer))]
        last = self.model.get_weights()
        self.model.set_weights(self._mean)
        self._mean = None
        if moved:
            try:
                estimate(self.model, moved, StatisticsData(self.statistics))
            except Exception as error:
                # The training is over, and all of it would be lost.
                self.model.set_weights(last)
                warnings.warn(says_not_estimated(error), stacklevel=2)

    def _first(self) -> int:
        return first_of(self.first_epoch, self.params.get("epochs"))

    def _with_statistics(self) -> list[Any]:
        """Layers whose statistics the training may move; where they are called in inference mode it does not."""
        layers = self.model._flatten_layers()
        return [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable]


def _statistics_of(layer: Any) -> list[int]:
    return told_by([keras.ops.convert_to_numpy(each) for each in layer.non_trainable_variables])
