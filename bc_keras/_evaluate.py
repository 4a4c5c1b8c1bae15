"""`evaluate`: two Keras models compared on a data set in one pass."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from bc_core import Evaluation
from bc_core._arrays import id_array
from bc_core._comparison import Metadata
from bc_core._evaluation import performance
from bc_keras._callbacks import CompatibilityCallback
from bc_keras._model import BCModel
from bc_keras._reference import Reference
from bc_keras._stored import StoredOutputs


def evaluate(
    h1: Any,
    h2: keras.Model,
    data: Any,
    *,
    performance_metric: Callable[[Any, Any, Any], Any] | None = None,
    class_names: Sequence[str] | None = None,
    name: str | None = None,
    metadata: Metadata | None = None,
    ids: Any = None,
    batch_size: int | None = None,
    threshold: float | None = None,
    from_logits: bool | None = None,
    h1_from_logits: bool | None = None,
    multilabel: bool | None = None,
) -> Evaluation:
    """Compare two models on a data set in one pass: each is asked once about each batch, in inference mode.

    Args:
        h1: the model in use: a built Keras model, a callable of the inputs, a `Reference`, or its scores (N, C) or
            labels (N,) for the rows of arrays.
        h2: its update, a Keras model or a `BCModel`; compiled or not.
        data: ``(x, y)`` or ``(x, y, sample_weight)`` of arrays, a ``tf.data.Dataset``, a ``PyDataset`` or another
            iterable of such batches; or a list of batches ``(ids, x, y)``, as the original's, or ``(x, y)``.
        performance_metric: a function ``(model, data, device)`` that returns a number, for `h1_performance` and
            `h2_performance`. Defaults to `None`, accuracy, from the one pass.
        class_names: name of each class.
        name: what is compared, for titles.
        metadata: text of an instance: a mapping or a function from id to text.
        ids: N ids of the instances. Defaults to `None`: those of the batches, or positions.
        batch_size: rows at a time, for arrays.
        threshold: a binary score is class 1 from this probability on. Defaults to `None`: the model's own, or 0.5.
        from_logits: whether binary scores of h2 are logits. Defaults to `None`: what its compiled loss or its last
            activation says, probabilities where it has neither.
        h1_from_logits: the same for h1's; as h2's where nothing says. Values that cannot be that are refused.
        multilabel: whether each column of the output is a label of its own.

    Returns:
        The comparison, and the performance of both models.

    Raises:
        TypeError: h2 is no Keras model, data of an unknown kind, or a metric that returns no number.
        ValueError: an empty data set, ids that are not unique, shapes that do not fit.

    Example:
        >>> import keras, numpy as np
        >>> from bc_keras import evaluate
        >>> h1, h2 = (keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")]) for _ in range(2))
        >>> evaluate(h1, h2, (np.ones((6, 4)), np.arange(6) % 3)).comparison.dataset_size
        6
    """
    if not isinstance(h2, keras.Model):
        raise TypeError(f"h2 must be a Keras model. Received: h2={h2!r}.")
    given = data
    if _is_list_of_batches(data):
        given = _Batches(data)
        ids = given.ids if ids is None else ids
    if metadata is not None and ids is None and _shuffles(given):
        warnings.warn(
            "The loader does not go through its data set in order (leave out shuffle=True, or give ids), so texts "
            "cannot be asked for by position: they are left out",
            stacklevel=2,
        )
        metadata = None
    callback = CompatibilityCallback(
        given,
        h1,
        batch_size=batch_size,
        ids=ids,
        class_names=class_names,
        metadata=metadata,
        threshold=threshold,
        from_logits=from_logits,
        h1_from_logits=h1_from_logits,
        multilabel=multilabel,
    )
    callback.set_model(h2)
    # Not by evaluate() of the model: the two may share layers, which only training has reason to refuse.
    comparison = dataclasses.replace(callback._compare(step=None), name=name)
    performances = comparison.overlap.accuracy_h1, comparison.overlap.accuracy_h2
    if performance_metric is not None:
        asked = h2.h2 if isinstance(h2, BCModel) else h2
        # Answers are no model that a metric could ask.
        measured = h1.h1 if isinstance(h1, Reference) else h1
        has_answers = isinstance(measured, StoredOutputs) or not callable(measured)
        performances = (
            math.nan if has_answers else performance(performance_metric(measured, data, "cpu"), "h1", stacklevel=3),
            performance(performance_metric(asked, data, "cpu"), "h2", stacklevel=3),
        )
    return Evaluation(comparison, *performances)


def _shuffles(data: Any) -> bool:
    """Whether a torch loader gives its items in another order than the data set has them."""
    sampler = getattr(data, "sampler", None)
    return sampler is not None and type(sampler).__name__ != "SequentialSampler"


class _Batches:
    """Batches in a list, as the data sets of the original library are: (x, y) of each, and the ids of all."""

    def __init__(self, batches: Sequence[Any]) -> None:
        lengths = {len(batch) for batch in batches}
        if len(lengths) != 1:
            raise ValueError(
                "dataset must hold batches of one form, (ids, x, y) or (x, y). "
                f"Received: batches of lengths {', '.join(map(str, sorted(lengths)))}."
            )
        self._batches = batches
        self.ids: list[Any] | None = None
        if lengths == {3}:
            self.ids = []
            for ids, _, y in batches:
                named = id_array(ids, "ids, the first of each batch").tolist()
                if len(named) != len(y):
                    raise ValueError(
                        "The first of each batch (ids, x, y) must name its instances. "
                        f"Received: {len(named)} ids for {len(y)} labels."
                    )
                self.ids += named

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """Pass over the data once."""
        return ((batch[-2], batch[-1]) for batch in self._batches)


def _is_list_of_batches(dataset: Any) -> bool:
    # Arrays in a list or a tuple, (x, y), have a shape; batches are lists or tuples themselves.
    return (
        isinstance(dataset, list | tuple)
        and len(dataset) > 0
        and all(
            isinstance(batch, list | tuple) and 2 <= len(batch) <= 3 and hasattr(batch[-1], "shape")
            for batch in dataset
        )
    )
