"""`BCNewErrorCompatibilityModel` and `bc_fit`, as the original library documented them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import keras

from bc_keras.batches._listed_batches import BatchesInOrder, is_list_of_batches
from bc_keras.losses._compatibility_loss import CompatibilityLoss
from bc_keras.losses._losses import ModelLoss
from bc_keras.training._made_class import unwrap
from bc_keras.training._model import BCModel


@keras.saving.register_keras_serializable(package="bc_keras")
class BCNewErrorCompatibilityModel(BCModel):
    """A sequential model h2 that ``compile`` and ``fit`` train with the new-error dissonance against h1.

    Args:
        layers: the layers of h2, as for `keras.Sequential`.
        h1: the model in use.
        lambda_c: weight of the dissonance, >= 0. Defaults to 0, plain training, as in the original library.
        name: name of the model.

    Raises:
        TypeError: h1 is missing.
        ValueError: as `BCModel`.

    Example:
        >>> import keras, numpy as np
        >>> from bc_keras import BCNewErrorCompatibilityModel
        >>> h1 = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
        >>> h2 = BCNewErrorCompatibilityModel([keras.layers.Dense(3, activation="softmax")], h1=h1, lambda_c=0.7)
        >>> h2.compile(loss=keras.losses.sparse_categorical_crossentropy, optimizer="adam", metrics=["accuracy"])
        >>> history = h2.fit(np.ones((8, 4)), np.zeros(8), epochs=2, verbose=0)
        >>> len(history.history["accuracy"])
        2
    """

    def __init__(
        self,
        layers: Sequence[keras.Layer] | None = None,
        h1: Any = None,
        lambda_c: float = 0.0,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        pass

    def __new__(cls, layers: Any = None, h1: Any = None, lambda_c: float = 0.0, name: Any = None, **kwargs: Any) -> Any:
        """Make the sequential model, and wrap it; see the class."""
        return super().__new__(cls, keras.Sequential(layers), h1, lambda_c, name=name, **kwargs)


def bc_fit(
    h2: keras.Model,
    training_set: Any = None,
    testing_set: Any = None,
    epochs: int | None = None,
    bc_loss: ModelLoss | None = None,
    optimizer: Any = None,
    *,
    reduction: str | None = None,
    callbacks: Any = None,
    metrics: Any = None,
    batch_size: int | None = None,
    verbose: Any = "auto",
) -> keras.callbacks.History:
    """Train h2 with one of the eight named losses, and validate on the testing set after each epoch.

    The whole of it is ``BCModel(h2, h1=bc_loss.h1, loss=bc_loss)``, compiled and fitted; use `BCModel` for all that
    ``fit`` offers.

    Args:
        h2: the model to train; its weights are updated.
        training_set: batches of ``(x, y)``: a `tf.data.Dataset`, a `keras.utils.PyDataset`, a torch ``DataLoader``, or
            a list or another iterable of them, taken in its order; or a pair of arrays.
        testing_set: the same, to validate on; `None` for no validation.
        epochs: number of epochs. Defaults to 1.
        bc_loss: the loss, made of h1 and this very h2.
        optimizer: a Keras optimiser, by name or instance. Defaults to ``"rmsprop"``, as ``compile``.
        reduction: ``"sum"`` for the sum over each batch. The cross-entropy, binary and Kullback-Leibler losses of
            BackwardCompatibilityML on TensorFlow were sums, and learning rates of a plain SGD were chosen for them.
            Defaults to `None`: what `bc_loss` says, the mean if it says nothing.
        callbacks: Keras callbacks.
        metrics: metrics, `BTC` and its kin among them. Defaults to accuracy.
        batch_size: for arrays.
        verbose: as in ``fit``.

    Returns:
        Keras's `History`, with the loss, its two halves and the metrics of every epoch.

    Raises:
        TypeError: ``bc_loss`` is none of the eight.
        ValueError: there is no training set, or the loss is for another h2; batches (ids, x, y), or an iterator for
            several epochs.

    Example:
        >>> import keras, numpy as np
        >>> from bc_keras import BCCrossEntropyLoss, bc_fit
        >>> h1, h2 = (keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")]) for _ in range(2))
        >>> data = (np.ones((8, 4)), np.zeros(8, dtype=int))
        >>> loss = BCCrossEntropyLoss(h1, h2, 0.9)
        >>> history = bc_fit(h2, data, data, epochs=2, bc_loss=loss, optimizer="adam", verbose=0)
        >>> len(history.history["val_loss"])
        2
    """
    if not isinstance(bc_loss, ModelLoss):
        raise TypeError(
            "bc_loss must be one of the eight named losses, such as BCCrossEntropyLoss(h1, h2, lambda_c). "
            f"Received: bc_loss={bc_loss!r}."
        )
    if training_set is None:
        raise ValueError("training_set is missing: pass batches of (x, y). Received: training_set=None.")
    if bc_loss.h2 is not h2:
        raise ValueError(
            f"bc_loss was made for another h2: make it with this one, {type(bc_loss).__name__}(h1, h2, lambda_c)."
        )
    criterion = CompatibilityLoss.from_config(
        {**bc_loss.criterion.get_config(), **({} if reduction is None else {"reduction": reduction})}
    )
    model = BCModel(
        h2,
        h1=bc_loss.h1,
        loss=criterion,
        class_map=bc_loss.reference.class_map,
    )
    model.compile(
        optimizer="rmsprop" if optimizer is None else optimizer, metrics=["accuracy"] if metrics is None else metrics
    )
    times = 1 if epochs is None else epochs
    training_set = _as_keras_takes(training_set, "training_set", times)
    data = tuple(training_set) if isinstance(training_set, list | tuple) else (training_set,)
    # Batches in a list come in its order, as there.
    order = {"shuffle": False} if isinstance(training_set, BatchesInOrder) else {}
    try:
        history: keras.callbacks.History = model.fit(
            *data,
            batch_size=batch_size,
            validation_data=_as_keras_takes(testing_set, "testing_set", times),
            epochs=times,
            callbacks=callbacks,
            verbose=verbose,
            **order,
        )
    finally:
        unwrap(model)
    return history


def _as_keras_takes(data: Any, name: str, epochs: int) -> Any:
    """Data as ``fit`` takes them: batches in a list, or in an iterable that Keras does not know, as a `PyDataset`."""
    if is_list_of_batches(data):
        return BatchesInOrder(data, name)
    if data is None or isinstance(data, list | tuple | keras.utils.PyDataset) or hasattr(data, "cardinality"):
        return data
    if hasattr(data, "dataset") and hasattr(data, "batch_size"):
        return data  # a DataLoader, of which Keras asks no import of torch here
    if hasattr(data, "__next__"):
        if epochs > 1:
            raise ValueError(
                f"{name} is an iterator, which can be read once only, and is read in each of {epochs} epochs: pass "
                f"list(batches). Received: {type(data).__name__}."
            )
        return BatchesInOrder(list(data), name)
    if isinstance(data, Iterable) and not hasattr(data, "shape"):
        return BatchesInOrder(list(data), name)
    return data
