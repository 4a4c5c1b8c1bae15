"""`ModelComparison`: two Keras models compared on a data set and shown in the notebook."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras

from bc_core._arrays import id_array
from bc_keras._callbacks import CompatibilityCallback
from bc_tensorboard._original_widgets import ComparedModels, images_of, warn_of_unused


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
        from_logits: whether binary scores are logits. Defaults to `None`: what h2's compiled loss says, probabilities
            if it is not compiled.
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
        multilabel: bool | None = None,
    ) -> None:
        warn_of_unused(port=port, device=device)
        if not isinstance(h2, keras.Model):
            raise TypeError(f"h2 must be a Keras model. Received: h2={h2!r}.")
        data = dataset
        if _is_list_of_batches(dataset):
            data = _Batches(dataset)
            ids = data.ids if ids is None else ids
        if from_logits is None and getattr(h2, "loss", None) is None:
            from_logits = False
        callback = CompatibilityCallback(
            data,
            h1,
            batch_size=batch_size,
            ids=ids,
            class_names=class_names,
            metadata=get_instance_metadata,
            threshold=threshold,
            from_logits=from_logits,
            multilabel=multilabel,
        )
        callback.set_model(h2)
        # Not by evaluate(): the models may share layers, which only training has reason to refuse.
        comparison = dataclasses.replace(callback._compare(step=None), name=name)
        performances = comparison.overlap.accuracy_h1, comparison.overlap.accuracy_h2
        if performance_metric is not None:
            performances = (performance_metric(h1, dataset, "cpu"), performance_metric(h2, dataset, "cpu"))
        self._take(comparison, dataset_name, images_of(get_instance_image_by_id), performances)


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
