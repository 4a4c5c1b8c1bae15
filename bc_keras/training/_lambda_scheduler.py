"""`LambdaScheduler`: move lambda_c while h2 is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import keras
import numpy as np

from bc_core import LinearLambda, check_lambda
from bc_keras.training._state import compatibility_of
from bc_keras.training._telling import say

# What a config holds in place of a schedule; bc_core, where the class lives, knows nothing of Keras.
keras.saving.register_keras_serializable(package="bc_keras")(LinearLambda)

Per = Literal["batch", "epoch"]


@keras.saving.register_keras_serializable(package="bc_keras")
class LambdaScheduler(keras.callbacks.Callback):
    """Set lambda_c of a `BCModel` by a schedule, as `keras.callbacks.LearningRateScheduler` sets a learning rate.

    At the end of an epoch ``lambda_c``, as it is then, goes into ``logs``. A resumed training (``initial_epoch``) goes
    on where it stopped.

    Args:
        schedule: a function that takes the number of finished epochs with their fraction (2.5 is the middle of the
            third) and returns lambda_c, >= 0, such as `LinearLambda`.
        verbose: 0 is silent, 1 prints a line per epoch.
        per: ``"batch"`` sets lambda_c before each batch, where Keras knows the number of batches in an epoch (of a
            generator it does not); ``"epoch"`` only at the beginning of an epoch. On JAX each change within an epoch
            costs one exchange of state with the compiled step.

    Raises:
        TypeError: a schedule that cannot be called, or that returns no number.
        ValueError: an unknown `per`, a lambda_c that is negative or not finite, or, when training begins, a model
            without lambda_c.

    Example:
        >>> import keras, numpy as np
        >>> from bc_keras import BCModel, LambdaScheduler, LinearLambda
        >>> h1, h2 = (keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")]) for _ in range(2))
        >>> model = BCModel(h2, h1=h1)
        >>> model.compile("sgd", loss="sparse_categorical_crossentropy")
        >>> scheduler = LambdaScheduler(LinearLambda(start=0.0, end=4.0, epochs=2), per="epoch")
        >>> x, y = np.ones((8, 4)), np.zeros(8)
        >>> model.fit(x, y, epochs=3, verbose=0, callbacks=[scheduler]).history["lambda_c"]
        [0.0, 2.0, 4.0]
    """

    def __init__(self, schedule: Callable[[float], float], verbose: int = 0, per: Per = "batch") -> None:
        super().__init__()
        if not callable(schedule):
            raise TypeError(
                "schedule must be a function of the epoch, such as LinearLambda(end=4.0); a constant goes to "
                f"BCModel(lambda_c=...). Received: schedule={schedule!r}."
            )
        if per not in get_args(Per):
            raise ValueError(f"per must be 'batch' or 'epoch'. Received: per={per!r}.")
        self.schedule = schedule
        self.verbose = verbose
        self.per = per

        self._epoch = 0
        self._value: float | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Refuse a model that has no lambda_c."""
        if not hasattr(self.model, "lambda_c"):
            raise ValueError(
                "The model must have a lambda_c: train BCModel(h2, h1=h1). "
                f"Received: model={type(self.model).__name__}."
            )
        state = compatibility_of(self.model)
        if state is not None and state.promised is not None:
            raise ValueError("lambda_c is moved by the promise of this model: leave out LambdaScheduler.")
        self._value = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Set lambda_c for the epoch."""
        self._epoch = epoch
        self._value = None
        self._set(float(epoch))
        if self.verbose:
            say(f"\nEpoch {epoch + 1}: LambdaScheduler setting lambda_c to {self._value}.")

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Set lambda_c for the batch."""
        steps = (self.params or {}).get("steps") if self.per == "batch" else None
        if steps and batch:
            self._set(self._epoch + batch / steps)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Log lambda_c."""
        if logs is not None:
            logs["lambda_c"] = float(self.model.lambda_c)

    def _set(self, epoch: float) -> None:
        value: Any = self.schedule(epoch)
        if isinstance(value, np.generic):
            value = value.item()
        check_lambda(value)
        if value == self._value:
            return
        self.model.lambda_c = self._value = float(value)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor; a schedule of your own must be registered with Keras, as any such object."""
        return {
            "schedule": keras.saving.serialize_keras_object(self.schedule),
            "verbose": self.verbose,
            "per": self.per,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LambdaScheduler:
        """Make the callback of a config."""
        return cls(**{**config, "schedule": keras.saving.deserialize_keras_object(config["schedule"])})
