"""`ProjectionCallback`: after each epoch h2 goes back towards h1 until a promise holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import keras

from bc_core._numbers import check_count
from bc_core.after_training._interpolating import check_projectable, project_by
from bc_core.after_training._walk import checked_alphas
from bc_core.counting._intervals import checked_confidence
from bc_core.promise._grammar import Promise
from bc_core.promise._verdict import PromiseVerdict
from bc_keras.after_training._mixture import Mixture
from bc_keras.training._warm_start import weights_behind


class ProjectionCallback(keras.callbacks.Callback):
    """Move h2's weights back towards h1's, after each epoch, until a promise holds on validation data.

    At the end of an epoch h2 becomes ``alpha * h1 + (1 - alpha) * h2`` with the smallest alpha of the grid that keeps
    the promise, found by halving; the next epoch goes on from there. Moments of the optimizer stay. For a network of
    h1's architecture that was started from it (`warm_start`); works with any Keras model, `BCModel` too. Put it first
    in the list: callbacks behind it, such as `ModelCheckpoint` and `CompatibilityCallback`, see the moved weights.
    ``fit`` has computed the ``val_...`` of its own ``validation_data`` before, of the weights before the move.

    In ``logs``: ``projected_alpha``; `verdict` holds the last epoch's promise on the data it was projected by. They
    choose alpha once an epoch, so the verdict flatters: judge a release on others.

    Args:
        h1: the model in use, of h2's architecture.
        data: validation data, as in `evaluate`.
        promise: what is to be kept, such as ``"nfr <= 0.5%"``.
        alphas: shares of h1. Defaults to `None`: 0, 0.05, ..., 1; 0 and 1 are added.
        statistics: training data for running statistics, as in `interpolate`.
        every: after how many epochs; always when the training ends.
        confidence: of the bounds.
        batch_size: rows at a time, for arrays.
        reading: how outputs are read, as in `interpolate`.

    Raises:
        TypeError: h1 has no weights, or the data are missing.
        ValueError: a promise, alphas or number that can't be; when training begins: what `interpolate` refuses, and a
            promise that h1 itself does not keep for certain on these data, as then no step back would do.

    Reference:
        Schumann et al., "Backward Compatibility During Data Updates by Weight Interpolation", EACL 2024, with a bound.

    Example:
        >>> import keras, numpy as np
        >>> from bc_keras import ProjectionCallback
        >>> h1, h2 = (keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")]) for _ in range(2))
        >>> h2.compile("sgd", "sparse_categorical_crossentropy")
        >>> x, y = np.random.default_rng(0).normal(size=(90, 4)), np.arange(90) % 3
        >>> history = h2.fit(x, y, verbose=0, callbacks=[ProjectionCallback(h1, (x, y), "nfr <= 50%")])
        >>> 0 <= history.history["projected_alpha"][0] <= 1
        True
    """

    def __init__(
        self,
        h1: Any,
        data: Any,
        promise: str | Iterable[str],
        *,
        alphas: Iterable[float] | None = None,
        statistics: Any = None,
        every: int = 1,
        confidence: float = 0.95,
        batch_size: int | None = None,
        **reading: Any,
    ) -> None:
        super().__init__()
        weights_behind(h1, "h1")
        if data is None:
            raise TypeError(
                "data is missing: pass validation data that took no part in the training. Received: data=None."
            )
        check_count(every, "every")
        self.h1, self.data, self.statistics, self.every = h1, data, statistics, every
        self.batch_size, self.reading = batch_size, reading
        self.promise, self.confidence = Promise.of(promise), checked_confidence(confidence)
        self.alphas = sorted({0.0, *checked_alphas(alphas), 1.0})
        self.verdict: PromiseVerdict | None = None
        self.history: list[float] = []
        self._is_projected = True

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Refuse what could not be projected, before an epoch is spent."""
        self.history, self.verdict = [], None
        mixture = self._mixture()
        mixture.check_statistics()
        check_projectable(mixture, self.promise, self.confidence)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Move h2, where this epoch is one of `every`."""
        self._is_projected = (epoch + 1) % self.every == 0
        if self._is_projected:
            share = self._project()
            if logs is not None:
                logs["projected_alpha"] = share

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Move h2 after another epoch than one of `every`, and the averages that ``use_ema`` ends with."""
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        if not self._is_projected or getattr(optimizer, "use_ema", False):
            self._project()

    def _project(self) -> float:
        share, verdict = project_by(self._mixture(), self.alphas, self.promise, self.confidence)
        self.history.append(share)
        self.verdict = replace(verdict, looks=len(self.history))
        return share

    def _mixture(self) -> Mixture:
        return Mixture(self.h1, self.model, self.data, self.statistics, self.batch_size, self.reading)
