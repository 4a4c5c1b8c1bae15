"""`attach_h1`: h1's predictions beside the labels, of whatever form h1 is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bc_keras.batches._attached import attach_arrays
from bc_keras.reference._asked_items import answers_about
from bc_keras.reference._stored import StoredOutputs
from bc_keras.reference._stored_dataset import is_dataset


def attach_h1(
    h1: Any,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    batch_size: int = 256,
    num_classes: int | None = None,
    class_weight: Mapping[int, float] | None = None,
) -> Any:
    """Put h1's predictions beside the labels, so that metrics and losses see both models.

    A Keras metric is shown label and prediction of one model. The label made here carries h1's output along; the
    metrics and losses of `bc_keras` take the two apart, on any model and on any backend. h1 is asked once, not in
    each epoch. Attach training and validation data alike.

    Args:
        h1: a Keras model; a callable of the inputs that returns scores or, as integers, labels; `StoredOutputs`; or an
            array of h1's scores (N, C) or labels (N,) for these very data, in their order.
        x: inputs: an array or a structure of arrays; or a `tf.data.Dataset` of (x, y) or (x, y, sample_weight), in
            items or batches, that gives the same items in the same order in each epoch. Shuffle and augment after
            attaching.
        y: labels, class indices (N,) or (N, 1), or one-hot (N, C); None for a data set.
        sample_weight: weights (N,), passed on.
        batch_size: items at a time that h1 is asked about.
        num_classes: columns of h2's output (1 for a binary model with one score); needed where h1 gives labels.
        class_weight: weights by class, multiplied into the sample weights. Give it here and not to `fit`, which looks
            for the class in the largest column.

    Returns:
        `(x, joined_y)` or `(x, joined_y, sample_weight)` for arrays; a `tf.data.Dataset` of the same for a data set,
        which compares every item with the one that h1 was asked about each time it is read.

    Raises:
        TypeError: data of another kind.
        ValueError: lengths that differ, no labels, NaN or infinite scores, labels of h1 without `num_classes`, or a
            data set that changes from reading to reading.

    Example:
        >>> import keras, numpy as np
        >>> from bc_keras import attach_h1
        >>> h1 = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(3, activation="softmax")])
        >>> x, y = np.zeros((4, 2), "float32"), np.array([0, 2, 1, 0])
        >>> x, joined = attach_h1(h1, x, y)
        >>> joined.shape, joined[:, 0].tolist()
        ((4, 4), [0.0, 2.0, 1.0, 0.0])
        >>> _, joined = attach_h1(np.array([0, 2, 2, 1]), x, y, num_classes=3)
        >>> joined[1].tolist()
        [2.0, 0.0, 0.0, 1.0]
    """
    if not isinstance(h1, StoredOutputs):
        if hasattr(h1, "shape") or isinstance(h1, list):
            h1 = StoredOutputs.from_predictions(h1)
        elif is_dataset(x):
            h1 = StoredOutputs.compute(h1, x, batch_size=batch_size)
        else:
            if y is None:
                raise ValueError("h1's predictions are put beside the labels, so y is needed. Received: y=None.")
            rows = answers_about(h1, x, batch_size)
            return attach_arrays(x, y, rows, sample_weight, num_classes, class_weight)
    return h1.attach(x, y, sample_weight, num_classes=num_classes, class_weight=class_weight)
