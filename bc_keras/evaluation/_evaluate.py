"""`evaluate`: two Keras models compared on a data set in one pass."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras

from bc_core import Evaluation
from bc_core._arrays import to_numpy
from bc_core._numbers import check_count
from bc_core.comparison._comparison import Metadata
from bc_core.comparison._evaluation import performance
from bc_core.slices._metadata import metadata_columns
from bc_keras.batches._listed_batches import ListedBatches, is_list_of_batches
from bc_keras.batches._validation_data import ValidationData
from bc_keras.reference._reference import Reference
from bc_keras.reference._stored import StoredOutputs
from bc_keras.training._model import BCModel
from bc_keras.training.data._compared_data import Advice, AskedData, ComparedData, HowToRead

_ADVICE = Advice(
    h1="evaluate(old_model, h2, data)",
    rows="evaluate(rows, h2, (x, y))",
    from_logits="evaluate(..., from_logits=True or False)",
)


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
            labels (N,) for the rows of arrays. `None` where the labels carry its answers (`attach_h1`).
        h2: its update, a Keras model or a `BCModel`; compiled or not.
        data: ``(x, y)`` or ``(x, y, sample_weight)`` of arrays, a ``tf.data.Dataset``, a ``PyDataset`` or another
            iterable of such batches, a generator that ends too; or a list of batches ``(ids, x, y)``, as the
            original's, or ``(x, y)``. Scores are of counts: every instance counts once, whatever its weight.
        performance_metric: a function ``(model, data, device)`` that returns a number, for `h1_performance` and
            `h2_performance`. Defaults to `None`, accuracy, from the one pass.
        class_names: name of each class.
        name: what is compared, for titles.
        metadata: text of an instance: a mapping or a function from id to text. Or columns in the order of the data, as
            in `bc_core.compare`.
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
        TypeError: h2 is no Keras model, data of an unknown kind, a generator where a metric reads it too, or a metric
            that returns no number.
        ValueError: an empty data set, ids that are not unique, shapes that do not fit, labels that are none of the
            classes, a model that returned NaN, weights that are negative or no numbers.

    Example:
        >>> import keras, numpy as np
        >>> from bc_keras import evaluate
        >>> h1, h2 = (keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")]) for _ in range(2))
        >>> evaluate(h1, h2, (np.ones((6, 4)), np.arange(6) % 3)).comparison.dataset_size
        6
    """
    if not isinstance(h2, keras.Model):
        raise TypeError(f"h2 must be a Keras model. Received: h2={h2!r}.")
    if performance_metric is not None and hasattr(data, "__next__"):
        raise TypeError(
            "performance_metric reads the data too, and a generator can be read only once: pass list(data). "
            f"Received: data={type(data).__name__}."
        )
    given = data
    if is_list_of_batches(data):
        given = ListedBatches(data, "data")
        ids = given.ids if ids is None else ids
    are_columns = metadata_columns(metadata) is not None
    if metadata is not None and (ids is None or are_columns) and _shuffles(given):
        warnings.warn(
            "The loader does not go through its data set in order (leave out shuffle=True, or give ids), so "
            f"{'columns of metadata' if are_columns else 'texts'} cannot be asked for by position: they are left out",
            stacklevel=2,
        )
        metadata = None
    if batch_size is not None:
        check_count(batch_size, "batch_size")
    compared = ComparedData(
        _EvaluatedData(given, batch_size),
        h1,
        HowToRead(threshold, from_logits, h1_from_logits, multilabel),
        ids=ids,
        class_names=class_names,
        metadata=metadata,
        advice=_ADVICE,
    )
    # The two may share layers, which only training has reason to refuse.
    comparison = dataclasses.replace(AskedData(compared, h2).compare(), name=name)
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


class _EvaluatedData(ValidationData):
    """Data that are read once, and of which weights, which count for nothing, are weights all the same."""

    name = "data"
    is_read_again = False

    def _look_at_weights(self, sample_weight: Any) -> None:
        weights = None if sample_weight is None else to_numpy(sample_weight, "sample_weight")
        if weights is not None and not (weights >= 0).all():
            raise ValueError(
                "sample_weight must hold numbers of at least 0; leave it out, as instances are counted without "
                f"weights. Received: {weights[~(weights >= 0)].flat[0]}."
            )


def _shuffles(data: Any) -> bool:
    """Whether a torch loader gives its items in another order than the data set has them."""
    sampler = getattr(data, "sampler", None)
    return sampler is not None and type(sampler).__name__ != "SequentialSampler"
