"""`evaluate`: two models compared on a data set in one pass."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bc_core import Comparison, Evaluation
from bc_core._numbers import check_count
from bc_core.comparison._comparison import Metadata
from bc_core.comparison._evaluation import performance
from bc_core.slices._metadata import metadata_columns
from bc_lightning.reference._reference import Reference
from bc_lightning.training.data._reader import (
    BATCH_SIZE,
    Reader,
    Scores,
    Where,
    evaluating,
    in_order,
    is_stored,
    reading_of,
    trained_with,
)


def evaluate(
    h1: Any,
    h2: Any,
    data: Iterable[Any] | Dataset[Any],
    *,
    performance_metric: Callable[[Any, Any, Any], Any] | None = None,
    device: str | torch.device | None = None,
    class_names: Sequence[str] | None = None,
    name: str | None = None,
    metadata: Metadata | None = None,
    ids: Where | None = None,
    inputs: Where | None = None,
    target: Where | None = None,
    threshold: float | None = None,
    from_logits: bool | None = None,
    scores: Scores | None = None,
    h1_scores: Scores | None = None,
    class_axis: int | None = None,
    multilabel: bool | None = None,
    ignore_index: int | None = None,
    batch_size: int = BATCH_SIZE,
) -> Evaluation:
    """Compare two models on a data set in one pass; each is asked once about each batch.

    The models are run in eval mode and without gradients, where they are (batches move to them), and are then, also
    after an error, in the modes they were in. Every score is computed from counts over the whole data set. Only
    `performance_metric`, if there is one, asks the models again, in the same modes.

    Args:
        h1: The model in use: a module, a callable of the inputs that returns scores or labels, a `Reference` (with a
            class map where h2 has other classes), or `StoredOutputs` for a data set that they are attached to. Or what
            it said of the N instances, in the order of the data, so that many updates are compared without asking it
            again: integer labels (N,), -1 for none of h2's classes, or scores (N, C); (N,) of a binary model.
        h2: Its update: a module or a callable. Of a `BCLightningModule` the places and the reading that it is trained
            with are the defaults of `inputs`, `target`, `scores`, `threshold`, `from_logits` and `multilabel`.
        data: A data loader, or another iterable of batches, ``(inputs, target)``, ``(ids, inputs, target)`` or
            ``(inputs, target, weight)``; of three parts the first are ids where they are integers or text, one for
            each instance, and the last may be a target. Weights are not counted. For other batches say where things
            are, with `ids`, `inputs` and `target`. Or a ``torch.utils.data.Dataset`` of such items, read in its order.
        performance_metric: A function ``(model, dataset, device)`` that returns one number, as in the original
            library; it is called with the data in batches, and with ``"cpu"`` unless there is a `device`. Default:
            accuracy, from the one pass. Of an h1 that is its answers there is no model to measure: `h1_performance` is
            nan then.
        device: Where inputs go for a callable without weights of its own. Default: where they are.
        class_names: Name of each class.
        name: What is compared, for titles.
        metadata: Text of an instance: a mapping or a function from id to text, called only for instances that h1 or
            h2 gets wrong. Or columns in the order of the data, as in `bc_core.compare`.
        ids: Where ids, integers or text, are in a batch: an index, a key or a function of the batch. Default: the
            first of three that begin with them, else the positions in the data set. A loader that shuffles gives no
            positions: without ids its instances are named by their place in this pass, and are not looked up in
            `metadata`.
        inputs: Where the inputs are. A mapping is passed to the models as keywords, a tuple as positional arguments.
        target: Where the target is: class numbers (N,) or (N, 1), or probabilities of the classes (N, C).
        threshold: A binary model, of one score per instance, says class 1 from this probability on. Default: 0.5.
        from_logits: Whether binary scores are logits. Default: no.
        scores: What h2's class scores are, if not what it returns: a function of its output, or the name of a submodule
            whose output they are.
        h1_scores: The same for h1. Default: what `scores` says where h1 was made as h2 is, else what h1 returns.
        class_axis: Which axis of scores with more than two holds the classes, 1 or -1. Default: the one that fits the
            target's shape; the last for outputs of Hugging Face's models.
        multilabel: Whether each of h2's columns is a label of its own, which then counts as an instance of class 0 or
            1. Default: what h2 is trained with, else no.
        ignore_index: Instances whose class number is this one are left out; every other label outside the classes is
            refused. Default: what h2 is trained with, else -100, as in PyTorch's losses.
        batch_size: Rows at a time, where the data are a ``Dataset``; a loader has its own.

    Returns:
        The comparison, with positions, ids or places in the pass as ids of its error instances, and the performance of
        both models.

    Raises:
        TypeError: Outputs, batches or ids of an unknown kind, or a metric that returns no number.
        ValueError: The data are empty, an id comes twice, a model returned NaN, shapes do not fit, a label is none of
            the classes, h1's answers are not as many as the instances, or come with a loader that shuffles.

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> from bc_lightning import evaluate
        >>> x, y = torch.eye(3), torch.tensor([0, 1, 2])
        >>> evaluation = evaluate(torch.nn.Identity(), lambda x: x.flip(1), TensorDataset(x, y))
        >>> evaluation.h1_performance, round(evaluation.h2_performance, 2)
        (1.0, 0.33)
        >>> evaluation.comparison.negative_flips().ids.tolist()
        [0, 2]
        >>> evaluate(torch.tensor([0, 1, 1]), lambda x: x.flip(1), TensorDataset(x, y)).comparison.overlap.btc
        0.5
    """
    comparison, _, performances = compared(
        h1,
        h2,
        data,
        performance_metric,
        device,
        class_names,
        name,
        metadata,
        (ids, inputs, target),
        threshold,
        from_logits,
        named=None if metadata is None else "images",
        scores=scores,
        h1_scores=h1_scores,
        class_axis=class_axis,
        multilabel=multilabel,
        ignore_index=ignore_index,
        batch_size=batch_size,
    )
    return Evaluation(comparison, *performances)


def compared(
    h1: Any,
    h2: Any,
    data: Any,
    performance_metric: Callable[[Any, Any, Any], Any] | None,
    device: str | torch.device | None,
    class_names: Sequence[str] | None,
    name: str | None,
    metadata: Metadata | None,
    places: tuple[Where | None, Where | None, Where | None],
    threshold: float | None,
    from_logits: bool | None,
    *,
    named: str | None,
    scores: Scores | None = None,
    h1_scores: Scores | None = None,
    class_axis: int | None = None,
    multilabel: bool | None = None,
    ignore_index: int | None = None,
    batch_size: int = BATCH_SIZE,
) -> tuple[Comparison, bool, tuple[float, float]]:
    """What `evaluate` and `ModelComparison` share; called by what the user calls.

    Returns:
        The comparison, whether its instances have ids by which what is `named` can be asked for, and the performance
        of h1 and h2.
    """
    if threshold is not None and not 0 < threshold < 1:
        raise ValueError(f"threshold must lie between 0 and 1. Received: threshold={threshold!r}.")
    dataset = _in_batches(data, batch_size)
    if performance_metric is not None and hasattr(dataset, "__next__"):
        raise TypeError(
            "performance_metric reads the data too, and an iterator can be read only once: pass list(data), or a data "
            f"loader. Received: data of type {type(data).__name__}."
        )
    reading = reading_of(h2, threshold, from_logits, multilabel, ignore_index)
    reader = Reader(h1, h2, device, places, reading, scores, h1_scores, class_axis)
    measured = []
    with evaluating(h1, h2):
        is_in_order = dataset is not data or in_order(dataset)
        found = reader.read(dataset, in_order=is_in_order)
        if performance_metric is not None:
            where = "cpu" if device is None else device
            for model, called in ((h1, "h1"), (h2, "h2")):
                # Answers are no model that a metric could ask.
                if called == "h1" and (reader.has_answers or is_stored(h1)):
                    measured.append(math.nan)
                else:
                    asked = model if not isinstance(model, Reference) else model.module or model.h1
                    measured.append(performance(performance_metric(asked, dataset, where), called, stacklevel=4))
    nameable = reader.unnamed is None
    if not nameable and named is not None:
        warnings.warn(
            f"{reader.unnamed}, so there are no ids to ask for {named} and texts by: they are left out", stacklevel=3
        )
    if not is_in_order and metadata_columns(metadata) is not None:
        warnings.warn(
            "The columns of metadata are in the order of the data, and the loader is not: they are left out. Leave out "
            "shuffle=True, or give texts by id",
            stacklevel=3,
        )
        metadata = None
    state = trained_with(h2)
    lambda_c = None if state is None else float(state.loss.lambda_c)
    comparison = found.compared(class_names, metadata if nameable else None, name, lambda_c)
    comparison = dataclasses.replace(comparison, new_classes=reader.new_classes)
    if not measured:
        measured = [comparison.overlap.accuracy_h1, comparison.overlap.accuracy_h2]
    return comparison, nameable, (measured[0], measured[1])


def _in_batches(data: Any, batch_size: int) -> Any:
    """The data themselves, or a loader of a data set."""
    parts = data if isinstance(data, (tuple, list)) else (data,)
    if any(isinstance(part, (Tensor, np.ndarray)) for part in parts):
        raise TypeError(
            "data: expected a data loader, a list of batches or a Dataset, got tensors themselves; pass "
            "TensorDataset(inputs, target)"
        )
    if not isinstance(data, Dataset):
        return data
    check_count(batch_size, "batch_size")
    return DataLoader(data, batch_size=batch_size)
