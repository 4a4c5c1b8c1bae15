"""`FrozenH1Check`: watch that h1 stays as it is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from bc_core._numbers import check_count
from bc_keras.reference._shared_variables import changing_variables
from bc_keras.training._model import BCModel
from bc_keras.training._telling import say


@keras.saving.register_keras_serializable(package="bc_keras")
class FrozenH1Check(keras.callbacks.Callback):
    """Stop the training if h1 changes: a reference that moves makes every score against it meaningless.

    Compares a hash of every weight of ``model.h1`` with that at the beginning. Of an h1 that is stored outputs or a
    plain callable there is nothing to watch, and it says so.

    Args:
        every: look at the end of each epoch whose number this divides, and of the training.

    Raises:
        ValueError: `every` below 1, or, when training begins, a model without h1.
        RuntimeError: a weight of h1 has changed, is trained, or is shared with h2.

    Example:
        >>> import keras, numpy as np
        >>> from bc_keras import BCModel, FrozenH1Check
        >>> h1, h2 = (keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")]) for _ in range(2))
        >>> model = BCModel(h2, h1=h1)
        >>> model.compile("sgd", loss="sparse_categorical_crossentropy")
        >>> history = model.fit(np.ones((8, 4)), np.zeros(8), verbose=0, callbacks=[FrozenH1Check()])
    """

    def __init__(self, every: int = 1) -> None:
        super().__init__()
        check_count(every, "every")
        self.every = every

        self._hashes: dict[str, str] | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Hash h1's weights, and refuse an h1 that is a part of what is trained."""
        self._hashes = None
        h1 = self._h1
        if h1 is None:
            raise ValueError(
                f"The model must have an h1: train BCModel(h2, h1=h1). Received: model={type(self.model).__name__}."
            )
        if not isinstance(h1, keras.Layer):
            say(f"FrozenH1Check: h1 is {type(h1).__name__}, which has no weights to watch.")
            return
        moving = _among(h1.weights, (variable for variable, _ in changing_variables(self.model)))
        if moving:
            raise RuntimeError(
                "h1 must stay as it is, and these weights are trained or updated: build h2 from layers of its own "
                f"(keras.models.clone_model copies them). Received: {_listed(moving)}."
            )
        self._hashes = _hashes_of(h1)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Look, where this epoch is one of `every`."""
        if (epoch + 1) % self.every == 0:
            self._check(f"in epoch {epoch + 1} or before")

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Look once more, and forget."""
        self._check("during the training")
        self._hashes = None

    @property
    def _h1(self) -> Any:
        return self.model._reference.h1 if isinstance(self.model, BCModel) else getattr(self.model, "h1", None)

    def _check(self, when: str) -> None:
        if self._hashes is None:
            return
        now = _hashes_of(self._h1)
        changed = [name for name in {**self._hashes, **now} if self._hashes.get(name) != now.get(name)]
        if changed:
            raise RuntimeError(
                f"h1 has changed {when}, so what was trained and measured against it is of no use: run it with "
                f"training=False, and assign nothing to its weights. Received: other values of {_listed(changed)}."
            )

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {"every": self.every}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FrozenH1Check:
        """Make the callback of a config."""
        return cls(**config)


def _among(weights: Iterable[Any], variables: Iterable[Any]) -> list[str]:
    those = {id(variable) for variable in variables}
    return [weight.path for weight in weights if id(weight) in those]


def _hashes_of(model: Any) -> dict[str, str]:
    """Hash of every weight; by number too, as paths need not be unique."""
    hashes = {}
    for number, weight in enumerate(model.weights):
        values = np.ascontiguousarray(ops.convert_to_numpy(weight))
        digest = hashlib.sha256(f"{values.dtype}{values.shape}".encode())
        digest.update(values.tobytes())
        hashes[f"{weight.path} (number {number})"] = digest.hexdigest()
    return hashes


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
