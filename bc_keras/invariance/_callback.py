"""`InvarianceCallback`: whether the update keeps h1's invariances, looked at while it is trained."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras

from bc_core.files._failed_writes import told_of
from bc_core.invariance import InvarianceUpdate, TransformSet
from bc_core.invariance._comparing import Comparing
from bc_core.invariance._layers import LayerChoice
from bc_core.invariance._watch import check_watch, logged, without_layers
from bc_keras._random_numbers import random_numbers_kept
from bc_keras.invariance._compare import compare_invariance, comparing_of
from bc_keras.invariance._network import plain
from bc_keras.reference._reference import Reference
from bc_keras.reference._shared_variables import check_no_shared_variables
from bc_tensorboard import summary
from bc_tensorboard.writing._event_file import EventFile

_RUN = "compatibility"


class InvarianceCallback(keras.callbacks.Callback):
    """Compare the model with h1 under transformations at the end of epochs, and log what was lost.

    Puts ``val_invariance_consistency_h1``, ``val_invariance_consistency_h2`` and
    ``val_invariance_negative_flip_rate`` (of pairs (x, t), the share where h1 said of t x what it says of x, and h2
    does not) into ``logs``, where callbacks that come later in the list find them, such as ``EarlyStopping`` and
    ``ModelCheckpoint``, and always `History`.

    What compares the two is compiled once, in the first epoch. It has no config, as no data set fits into one: make it
    anew beside the reloaded model.

    Args:
        h1: the model in use, a built Keras model.
        data: what to compare on, as for `compare_invariance`; the same samples at each epoch.
        transforms: the transformations, the identity among them.
        every: compare at the end of each epoch whose number this divides, and of the last one.
        layers: layers to measure, as for `compare_invariance`. Defaults to none: predictions only, which is cheap.
        log_dir: where TensorBoard looks: each comparison is written into the run ``compatibility`` below it, for the
            dashboard. Works without TensorFlow.
        dataset: name of the data in the dashboard.
        prefix: put before every name in ``logs``.
        options: further arguments of `compare_invariance`.

    Attributes:
        update: the last comparison, an `InvarianceUpdate`.
        history: comparisons by epoch, counted from 0 as in `History.epoch`, without layers.

    Raises:
        TypeError: h1 is no Keras model, or `transforms` no `TransformSet`.
        ValueError: `every` is below 1, or the identity is not among the transformations; when training begins: an h1
            that shares variables with the model.

    Example:
        >>> import keras, numpy as np
        >>> from bc_keras.invariance import InvarianceCallback, TransformSet
        >>> def net():
        ...     layers = [keras.layers.Flatten(), keras.layers.Dense(3, "softmax")]
        ...     return keras.Sequential([keras.Input((4, 4, 1)), *layers])
        >>> h1, model = net(), net()
        >>> model.compile("sgd", loss="sparse_categorical_crossentropy")
        >>> x, y = np.random.default_rng(0).normal(size=(32, 4, 4, 1)), np.arange(32) % 3
        >>> watch = InvarianceCallback(h1, (x, y), TransformSet.c4())
        >>> history = model.fit(x, y, epochs=2, verbose=0, callbacks=[watch])
        >>> history.history["val_invariance_negative_flip_rate"][-1] == watch.update.negative_flip_rate
        True
    """

    def __init__(
        self,
        h1: Any,
        data: Any,
        transforms: TransformSet,
        *,
        every: int = 1,
        layers: LayerChoice | None = (),
        log_dir: str | os.PathLike[str] | None = None,
        dataset: str = "invariance",
        prefix: str = "val_invariance_",
        **options: Any,
    ) -> None:
        super().__init__()
        asked = h1
        h1 = h1.h1 if isinstance(h1, Reference) else h1
        if not isinstance(h1, keras.Layer):
            raise TypeError(f"h1 must be a Keras model, whose layers can be looked at. Received: h1={h1!r}.")
        check_watch(data, transforms, every, options, compare_invariance)
        self.h1, self.data, self.transforms = h1, data, transforms
        self._asked = asked
        self.every, self.layers, self.dataset, self.prefix = every, layers, dataset, prefix
        self.log_dir = None if log_dir is None else Path(log_dir)
        self.options = options
        self.update: InvarianceUpdate | None = None
        self.history: dict[int, InvarianceUpdate] = {}
        self._events = None if self.log_dir is None else EventFile(self.log_dir / _RUN)
        self._comparing: Comparing | None = None
        self._epoch: int | None = None
        # Refused here and not after an epoch: what is wrong with the options.
        self._comparing_with(h1, layers if callable(layers) else None)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start anew."""
        check_no_shared_variables(self.h1, plain(self.model))
        self.update, self.history, self._epoch = None, {}, None
        self._comparing = self._comparing_with(self.model, self.layers)
        if self.log_dir is not None:
            self._events = EventFile(self.log_dir / _RUN)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Compare, where this epoch is one of `every` or the last."""
        self._epoch = epoch
        is_last = epoch + 1 == (self.params or {}).get("epochs") or getattr(self.model, "stop_training", False)
        if (epoch + 1) % self.every == 0 or is_last:
            values = self._compare_after(epoch)
            if logs is not None:
                logs.update(values)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Compare after an epoch that a later callback made the last."""
        if self._epoch is not None and self._epoch not in self.history:
            self._compare_after(self._epoch)
        self._comparing = None

    def _compare_after(self, epoch: int) -> dict[str, float]:
        assert self._comparing is not None
        with random_numbers_kept():
            update = self._comparing.run()
        self.update = update
        self.history[epoch] = without_layers(update)
        if self._events is not None:
            # Behind half a record nothing is read: a failure is followed by a new file.
            events, self._events = self._events, EventFile(self._events.folder)
            with told_of(f"The invariance of epoch {epoch + 1} in {events.folder}"):
                summary.invariance(events, update, step=epoch, dataset=self.dataset)
                self._events = events
        return logged(update, self.prefix)

    def _comparing_with(self, h2: Any, layers: LayerChoice | None) -> Comparing:
        defaults: dict[str, Any] = compare_invariance.__kwdefaults__ or {}
        options = {**defaults, **self.options, "layers": layers}
        return comparing_of(self._asked, h2, self.data, self.transforms, **options)
