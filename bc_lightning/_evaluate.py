"""`evaluate`: two models compared on a data set in one pass."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np
import torch
from lightning_fabric.utilities import move_data_to_device
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from bc_core import Comparison, Evaluation, compare
from bc_core._arrays import id_array, to_numpy
from bc_core._comparison import Metadata
from bc_core._evaluation import performance
from bc_lightning._comparisons import _positions
from bc_lightning._fingerprint import module_behind
from bc_lightning._model_outputs import _part, inputs_from_batch, scores_from_output, target_from_batch
from bc_lightning._reference import Reference, _set_eval
from bc_lightning._stored import StoredOutputs, split_batch
from bc_lightning.functional._compatibility_loss import align_multiclass, labels_of

Where = str | int | Callable[[Any], Any]


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
    threshold: float = 0.5,
    from_logits: bool = False,
    multilabel: bool = False,
    batch_size: int = 256,
) -> Evaluation:
    """Compare two models on a data set in one pass: each is asked once about each batch.

    The models are run in eval mode and without gradients, where they are (batches move to them), and are then in the
    modes they were in.

    Args:
        h1: The model in use: a module, a callable of the inputs that returns scores or labels, a `Reference`, or
            `StoredOutputs` for a data set that they are attached to.
        h2: Its update: a module, wrapped by `BCLightningModule` or not, or a callable.
        data: A data loader, a data set, or a list of batches: ``(inputs, target)``, or ``(ids, inputs, target)``. For
            other batches say where things are, with `ids`, `inputs` and `target`.
        performance_metric: A function ``(model, data, device)`` that returns a number, for `h1_performance` and
            `h2_performance`. Default: accuracy, from the one pass.
        device: Where inputs go for a callable without weights of its own. Default: where they are.
        class_names: Name of each class.
        name: What is compared, for titles.
        metadata: Text of an instance: a mapping or a function from id to text.
        ids: Where ids are in a batch: an index, a key or a function of the batch. Default: the first of three, else the
            positions in the data set.
        inputs: Where the inputs are. A mapping is passed to the models as keywords, a tuple as positional arguments.
        target: Where the target is.
        threshold: A binary model, of one score per instance, says class 1 from this probability on.
        from_logits: Whether binary scores are logits.
        multilabel: Whether each column of the scores is a label of its own, 0 or 1.
        batch_size: Items at a time, for a data set.

    Returns:
        The comparison, and the performance of both models.

    Raises:
        TypeError: outputs, batches or ids of an unknown kind; a metric that returns no number.
        ValueError: the data set is empty, an id comes twice, a model returned NaN, or shapes do not fit.

    Example:
        >>> import torch
        >>> from bc_lightning import evaluate
        >>> h1, h2 = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
        >>> data = torch.utils.data.TensorDataset(torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2]))
        >>> evaluate(h1, h2, data).comparison.dataset_size
        6
    """
    found, _, performances = compared(
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
        batch_size,
        multilabel=multilabel,
        named="metadata",
    )
    return Evaluation(found, *performances)


def compared(
    h1: Any,
    h2: Any,
    data: Any,
    performance_metric: Callable[[Any, Any, Any], Any] | None,
    device: Any,
    class_names: Sequence[str] | None,
    name: str | None,
    metadata: Metadata | None,
    places: tuple[Where | None, Where | None, Where | None],
    threshold: float,
    from_logits: bool,
    batch_size: int = 256,
    *,
    multilabel: bool = False,
    named: str | None = None,
) -> tuple[Comparison, bool, tuple[float, float]]:
    """Compare, and say whether instances can be asked about by their ids; `named` is what is lost if not."""
    if not 0 < threshold < 1:
        raise ValueError(f"threshold must lie between 0 and 1. Received: threshold={threshold!r}.")
    if isinstance(data, Dataset):
        if not isinstance(data, IterableDataset) and not hasattr(data, "__len__"):
            raise TypeError(f"data: expected a data set with a length, or a loader. Received: {type(data).__name__}.")
        data = DataLoader(data, batch_size=batch_size)
    reader = _Reader(h1, h2, device, places, {"threshold": threshold, "from_logits": from_logits}, multilabel)
    with _evaluating(h1, h2):
        found = reader.read(data)
        performances = None
        if performance_metric is not None:
            where = "cpu" if device is None else device
            performances = tuple(
                performance(performance_metric(model, data, where), which) for model, which in ((h1, "h1"), (h2, "h2"))
            )
    nameable = reader.unnamed is None
    if not nameable and named is not None and not (named == "metadata" and metadata is None):
        warnings.warn(
            f"{reader.unnamed}, so there are no ids to ask for images and texts by: they are left out",
            stacklevel=3,
        )
    comparison = found.compared(class_names, metadata if nameable else None, name)
    if performances is None:
        performances = comparison.overlap.accuracy_h1, comparison.overlap.accuracy_h2
    return comparison, nameable, (performances[0], performances[1])


class _Found:
    """Labels of all instances, in the order of the loader."""

    def __init__(self) -> None:
        self.labels: list[Tensor] = []
        self.ids: list[Any] | None = None
        self.num_classes = 0

    def compared(self, class_names: Sequence[str] | None, metadata: Metadata | None, name: str | None) -> Comparison:
        if not self.labels:
            raise ValueError("dataset: expected at least one batch, got none; look at the loader's data set")
        target, h1, h2 = torch.cat(self.labels, dim=1).numpy().astype(np.int64)
        counted = target >= 0  # -1 stands for ignore_index
        # Where h1 has no class of h2's (-1) it is wrong, so any class but the true one will do.
        h1 = np.where(h1 < 0, (target + 1) % self.num_classes, h1)
        ids = None if self.ids is None else id_array(self.ids, "ids")
        if ids is None and not counted.all():
            ids = np.arange(len(target))
        return compare(
            target[counted],
            h1[counted],
            h2[counted],
            ids=None if ids is None else ids[counted],
            num_classes=self.num_classes,
            class_names=class_names,
            metadata=metadata,
            name=name,
        )


class _Reader:
    """Asks both models about each batch and reads their outputs as classes."""

    def __init__(
        self,
        h1: Any,
        h2: Any,
        device: Any,
        places: tuple[Where | None, Where | None, Where | None],
        binary: Mapping[str, Any],
        multilabel: bool = False,
    ) -> None:
        # References bring stored rows or a class map; plain models are asked as they are, and stay where they are.
        self._reference = Reference.of(h1) if isinstance(h1, (Reference, StoredOutputs)) else None
        self._h1, self._h2, self._device = h1, h2, device
        self._places, self._binary, self._multilabel = places, binary, multilabel
        # Why images and texts cannot be asked for by id, if so.
        self.unnamed: str | None = None

    def read(self, dataset: Iterable[Any]) -> _Found:
        found, seen = _Found(), 0
        in_order = not isinstance(dataset, DataLoader) or _positions(dataset)[1] == 1
        for brought in dataset:
            batch, rows, indices = split_batch(brought)
            ids, x, target = self._parts(batch)
            h2_output = _scores(self._h2, x, self._device, "h2")
            h1_output = self._ask_h1(x, rows, h2_output).to(h2_output.device)
            for output, model in ((h1_output, "h1"), (h2_output, "h2")):
                if output.is_floating_point() and bool(torch.isnan(output).any()):
                    raise ValueError(
                        f"{model} returned NaN (output of shape {tuple(output.shape)}), so it has no prediction there: "
                        "look for a diverged or half-loaded model, or inputs that are already NaN"
                    )
            labels = self._labels(h2_output, target.to(h2_output.device), h1_output)
            size, entries = labels.target.shape[0], labels.target.numel()
            found.num_classes = max(found.num_classes, labels.num_classes)
            columns = (labels.target, labels.h1, labels.h2)
            found.labels.append(torch.stack([column.reshape(-1) for column in columns]).cpu())
            if ids is None and indices is not None:
                ids = indices.reshape(-1).tolist()
            if entries != size:
                if self._places[0] is not None:
                    raise ValueError(
                        "ids name instances, and these models answer several times for each: leave ids out"
                    )
                ids = None
                self.unnamed = "The models answer several times for each instance"
            elif ids is None and not in_order:
                self.unnamed = (
                    "The loader does not go through its data set in order (leave out shuffle=True, or put an id into "
                    "each batch, (ids, inputs, target))"
                )
                ids = [f"no. {position} of this pass" for position in range(seen, seen + size)]
            seen += size
            if ids is not None:
                if len(ids) != size:
                    raise ValueError(f"ids: expected one for each of the {size} instances of a batch, got {len(ids)}")
                found.ids = found.ids or []
                found.ids += ids
        return found

    def _parts(self, batch: Any) -> tuple[list[Any] | None, Any, Tensor]:
        """Ids (or None), inputs and target of a batch."""
        ids_at, inputs_at, target_at = self._places
        if (ids_at, inputs_at, target_at) == (None, None, None) and isinstance(batch, (tuple, list)):
            if len(batch) == 3:
                return _checked_ids(batch[0]), _as_tensors(batch[1]), _as_target(batch[2])
            if len(batch) == 2:
                return None, _as_tensors(batch[0]), _as_target(batch[1])
        ids = None if ids_at is None else _checked_ids(_part(batch, ids_at, "ids"))
        return ids, _as_tensors(inputs_from_batch(batch, inputs_at)), target_from_batch(batch, target_at)

    def _ask_h1(self, x: Any, rows: Tensor | None, h2_output: Tensor) -> Tensor:
        reference = self._reference
        if reference is None:
            return _scores(self._h1, x, self._device, "h1")
        classes = h2_output.shape[1] if reference.class_map is not None and h2_output.ndim > 1 else None
        if not reference.is_stored:
            return reference.answer(*_arguments(x), classes)
        if rows is None:
            raise ValueError(
                "h1 is stored outputs, and the batches do not say which rows of them they are: compare on "
                "DataLoader(stored.attach(dataset), ...)"
            )
        return reference.map_classes(rows.to(h2_output.device), classes)

    def _labels(self, h2_output: Tensor, target: Tensor, h1_output: Tensor) -> Any:
        if self._multilabel or h2_output.ndim == 1 or h2_output.shape[1] == 1:
            if not self._binary["from_logits"]:
                _check_probabilities({"h1": h1_output, "h2": h2_output})
            return labels_of("binary_cross_entropy", h2_output, target, h1_output, **self._binary)
        if target.is_floating_point():
            # Looks whether they are probabilities of classes, which labels_of takes for granted.
            align_multiclass(h2_output, target, h1_output, None)
        return labels_of("cross_entropy", h2_output, target, h1_output)


@contextmanager
def _evaluating(*models: Any) -> Iterator[None]:
    """Eval mode and no gradients; afterwards every submodule is in the mode it was in."""
    behind = [model.module if isinstance(model, Reference) else module_behind(model) for model in models]
    modules = [module for module in behind if module is not None]
    modes = [(child, child.training) for module in modules for child in module.modules()]
    try:
        for module in modules:
            _set_eval(module)
        with torch.no_grad():
            yield
    finally:
        for child, training in modes:
            child.training = training


def _scores(model: Any, x: Any, device: Any, name: str) -> Tensor:
    module: nn.Module | None = module_behind(model)
    weight = None if module is None else next(chain(module.parameters(), module.buffers()), None)
    where = device if weight is None else weight.device
    args, kwargs = _arguments(x if where is None else move_data_to_device(x, torch.device(where)))
    output = model(*args, **kwargs)
    if isinstance(output, (np.ndarray, np.generic)):
        output = torch.as_tensor(output)
    return scores_from_output(output, model=name).detach()


def _arguments(x: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(x, Mapping):
        return (), dict(x)
    return tuple(x) if isinstance(x, (tuple, list)) else (x,), {}


def _as_tensors(x: Any) -> Any:
    return torch.as_tensor(x) if isinstance(x, np.ndarray) else x


_PLACES = (
    "Of a batch of three the first is read as ids and the last as target, (ids, inputs, target); for other batches say "
    "where things are, such as ids=2, inputs=0, target=1"
)


def _as_target(target: Any) -> Tensor:
    if isinstance(target, Tensor):
        return target
    array = to_numpy(target, "target")
    if array.dtype.kind not in "iufb":
        raise TypeError(f"target: expected class numbers, got {array.dtype}. {_PLACES}")
    return torch.as_tensor(array)


def _checked_ids(ids: Any) -> list[Any]:
    try:
        checked: list[Any] = id_array(ids, "ids").tolist()
    except (TypeError, ValueError) as error:
        raise type(error)(f"{error}. {_PLACES}") from error
    return checked


def _check_probabilities(outputs: Mapping[str, Tensor]) -> None:
    for name, scores in outputs.items():
        if scores.is_floating_point() and bool(((scores < 0) | (scores > 1)).any()):
            raise ValueError(
                f"{name} returned {scores.min().item():g} to {scores.max().item():g} where probabilities in 0..1 were "
                "expected; if the models return logits, pass from_logits=True"
            )
