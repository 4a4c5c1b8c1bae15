"""`ModelComparison`: two Keras models compared on a data set and shown in the notebook."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bc_keras.evaluation._evaluate import evaluate
from bc_tensorboard.original._widgets import ComparedModels, warn_of_unused


class ModelComparison(ComparedModels):
    """Compare two Keras models on a data set and show the dashboard below the cell; each is asked once about the data.

    Both are run in inference mode and stay as they are. There is no server: `port` means nothing any more, and neither
    does `device`, as Keras places what it runs.

    Args:
        h1: the model in use: a built Keras model, a callable of the inputs, a `Reference`, or its scores or labels for
            the rows of arrays, as in `CompatibilityCallback`.
        h2: its update, a Keras model; compiled or not.
        dataset: ``(x, y)`` or ``(x, y, sample_weight)`` of arrays, a ``tf.data.Dataset``, a ``PyDataset`` or another
            iterable of such batches; or a list of batches ``(ids, x, y)``, as the original's, or ``(x, y)``.
        performance_metric: a function ``(model, dataset, device)`` whose values go into `h1_performance` and
            `h2_performance`; the dashboard shows accuracy. Defaults to `None`, accuracy, from the one pass.
        port: accepted with a DeprecationWarning.
        get_instance_image_by_id: image of an instance: a function of its id that returns an array, a PIL image, the
            bytes of an image file, or what Flask's ``send_file`` returned; or a mapping or an array of images. One is
            asked for when it is looked at.
        get_instance_metadata: text of an instance: a mapping or a function from id to text, called only for instances
            that h1 or h2 gets wrong.
        device: accepted with a DeprecationWarning.
        class_names: name of each class.
        name: what is compared, for titles.
        dataset_name: what the dashboard calls the data set.
        ids: N ids of the instances. Defaults to `None`: those of the batches, or positions.
        batch_size: rows at a time, for arrays.
        threshold: a binary score is class 1 from this probability on. Defaults to `None`: the model's own, or 0.5.
        from_logits: whether binary scores of h2 are logits. Defaults to `None`: what its compiled loss or its last
            activation says, probabilities where it has neither.
        h1_from_logits: the same for h1's; as h2's where nothing says. Values that cannot be that are refused.
        multilabel: whether each column of the output is a label of its own.

    Attributes:
        comparison: the `bc_core.Comparison` that is shown.
        view: the `bc_tensorboard.ComparisonView` that shows it.
        h1_performance: what `performance_metric` says of h1.
        h2_performance: what `performance_metric` says of h2.

    Raises:
        ImportError: anywidget is not installed.
        TypeError: h2 is no Keras model, or data of an unknown kind.
        ValueError: an empty data set, ids that are not unique, shapes that do not fit.

    Example:
        >>> import keras, numpy as np
        >>> from bc_keras import ModelComparison
        >>> h1, h2 = (keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")]) for _ in range(2))
        >>> shown = ModelComparison(h1, h2, (np.ones((6, 4)), np.arange(6) % 3), class_names=["cat", "dog", "fox"])
        >>> shown.comparison.dataset_size
        6
    """

    def __init__(
        self,
        h1: Any,
        h2: Any,
        dataset: Any,
        performance_metric: Callable[[Any, Any, Any], Any] | None = None,
        port: int | None = None,
        get_instance_image_by_id: Any = None,
        get_instance_metadata: Mapping[Any, str] | Callable[[Any], str] | None = None,
        device: Any = None,
        *,
        class_names: Sequence[str] | None = None,
        name: str | None = None,
        dataset_name: str = "test",
        ids: Any = None,
        batch_size: int | None = None,
        threshold: float | None = None,
        from_logits: bool | None = None,
        h1_from_logits: bool | None = None,
        multilabel: bool | None = None,
    ) -> None:
        warn_of_unused(port=port, device=device)
        found = evaluate(
            h1,
            h2,
            dataset,
            performance_metric=performance_metric,
            class_names=class_names,
            name=name,
            metadata=get_instance_metadata,
            ids=ids,
            batch_size=batch_size,
            threshold=threshold,
            from_logits=from_logits,
            h1_from_logits=h1_from_logits,
            multilabel=multilabel,
        )
        performances = (found.h1_performance, found.h2_performance)
        self._take(found.comparison, dataset_name, get_instance_image_by_id, performances)
