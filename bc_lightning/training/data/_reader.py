"""Both models asked about a data set, and what they say read as classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np
import torch
from lightning_fabric.utilities import move_data_to_device
from torch import Tensor, nn
from torch.utils.data import DataLoader

from bc_core._arrays import INT64_MAX, id_array, to_numpy
from bc_core._batches_of_three import first_is_ids
from bc_core.losses._blends import Kind, check_kind_of_blend
from bc_core.losses._score_scale import are_probabilities
from bc_lightning._user_module import has_scores, lacks_forward, of_one_kind, only_network
from bc_lightning.batches._attached import split_batch
from bc_lightning.batches._model_outputs import (
    _part,
    arguments_of,
    class_axis_of,
    failed_on,
    h1_class_axis,
    inputs_from_batch,
    says_ambiguous_axis,
    says_ambiguous_h1,
    scores_from_output,
    target_from_batch,
)
from bc_lightning.losses._alignment import align_multiclass
from bc_lightning.losses._instance_terms import labels_of
from bc_lightning.reference._modules import answers_of, module_behind, modules_behind, set_eval
from bc_lightning.reference._reference import Reference
from bc_lightning.reference._stored import StoredOutputs
from bc_lightning.training._state import Compatibility, compatibilities_of
from bc_lightning.training.data._found_labels import Found, ModelAnswer
from bc_lightning.training.data._loaders import order_of

_PLACES = (
    "A batch of three is read as (ids, inputs, target) or (inputs, target, weight); for other batches say where things "
    "are, such as ids=2, inputs=0, target=1"
)
_EITHER = (
    "The batches have three parts, and they may be (ids, inputs, target) or (inputs, target, weight). Say where things "
    "are: ids=0, inputs=1, target=2, or inputs=0, target=1"
)

Where = str | int | Callable[[Any], Any]
Scores = str | Callable[[Any], Any]

BATCH_SIZE = 256
# As in PyTorch's losses, and in ours.
_IGNORE_INDEX = -100


class Reader:
    """Asks both models about each batch and reads their outputs as classes."""

    def __init__(
        self,
        h1: Any,
        h2: Any,
        device: Any,
        places: tuple[Where | None, Where | None, Where | None],
        reading: tuple[bool, dict[str, Any]],
        scores: Scores | None,
        h1_scores: Scores | None,
        class_axis: int | None,
        state: Compatibility | None = None,
    ) -> None:
        # References bring stored rows or a class map; plain models are asked as they are, and stay where they are.
        self._reference = Reference.of(h1) if isinstance(h1, (Reference, StoredOutputs)) else None
        self._answers = None if self._reference is not None else _answers_of(h1)
        if self._reference is None and self._answers is None:
            _check_can_be_asked(h1, "h1", "a module, a callable, stored outputs, or its answers in an array")
        _check_can_be_asked(h2, "h2", "a module or a callable")
        state = trained_with(h2) if state is None else state
        if self._reference is None and self._answers is None and state is not None and state.reference.class_map:
            # h1 in the classes of h2, as it was in training.
            self._reference = Reference.of(h1, class_map=state.reference.class_map, scores=h1_scores)
        self._name = "" if self._reference is None else self._reference.fingerprint
        self._h1, self._h2, self._device = h1, h2, device
        self._multilabel, self._options = reading
        if state is not None:
            scores = state.scores if scores is None else scores
            # Where the user's own step takes its input from is not known; a batch's first or second then.
            trained = (None, state.options.inputs, state.options.target)
            places = tuple(theirs if ours is None else ours for ours, theirs in zip(places, trained, strict=True))  # type: ignore[assignment]
            class_axis = state.options.class_axis if class_axis is None else class_axis
        self._places, self._class_axis = places, class_axis
        parts = () if state is None or scores is not state.scores else state.parts
        self._ask_h2 = _picking(h2, scores, "h2", parts)
        # An h1 without forward answers with the parts that h2's steps were found to call.
        module = None if self._reference is None else self._reference.module
        self._networks = parts if module is not None and lacks_forward(module) else ()
        alike = isinstance(h1, nn.Module) and isinstance(h2, nn.Module) and of_one_kind(h1, h2)
        h1_scores = scores if h1_scores is None and alike and has_scores(h1, scores) else h1_scores
        # Where h1's classes are, as a batch has told; or whether they are known to stand as h2's do.
        self._h1_class_axis: int | None = None
        told_of = None if self._reference is None else self._reference.scores
        self._h1_is_told = alike or callable(h1_scores) or callable(told_of)
        if self._reference is None and self._answers is None:
            self._ask_h1_model = _picking(h1, h1_scores, "h1", parts if alike else ())
        # Least, most and number of what was read as logits of binary scores.
        self._seen: dict[str, list[Tensor]] = {"h1": [], "h2": []}
        # Whether batches of three begin with ids.
        self._ids_first: bool | None = None
        # How many were read; a model may answer several times for each.
        self.instances = 0
        # Why images and texts cannot be asked for by id, if so.
        self.unnamed: str | None = None

    @property
    def new_classes(self) -> tuple[int, ...]:
        """Classes that h1 did not know."""
        return getattr(getattr(self._reference, "class_map", None), "new", ())

    @property
    def has_answers(self) -> bool:
        """Whether h1 is no model but what one said."""
        return self._answers is not None

    def read(self, dataset: Iterable[Any], in_order: bool) -> Found:
        if self._answers is not None and not in_order:
            raise ValueError(
                "h1 is given by its answers, in the order of the data, and the loader does not go through its data set "
                "in order: leave out shuffle=True and samplers, pass list(loader), or pass h1 itself"
            )
        found, seen = Found(), 0
        for brought in dataset:
            batch, attached = split_batch(brought)
            rows, indices = (None, None) if attached is None else attached.of(self._name)[:2]
            ids, x, target = self._parts(batch)
            if target.ndim and target.shape[0] == 0:
                # A collate function has left out all of its items.
                continue
            h2_output, axis = self._second(self._ask_h2(x, self._device), target)
            if self._answers is not None:
                h1_output = self._answers[seen : seen + len(h2_output)].to(h2_output.device)
                if len(h1_output) != len(h2_output):
                    raise self._wrong_number(f"at least {seen + len(h2_output)}")
            else:
                h1_output = self._ask_h1(x, rows, h2_output, target, axis).to(h2_output.device)
            for output, model in ((h1_output, "h1"), (h2_output, "h2")):
                if output.is_floating_point() and bool(torch.isnan(output).any()):
                    raise ValueError(
                        f"{model} returned NaN (output of shape {tuple(output.shape)}), so it has no prediction there: "
                        "look for a diverged or half-loaded model, or inputs that are already NaN"
                    )
            labels = self._labels(h2_output, target.to(h2_output.device), h1_output)
            # h1 mapped to h2's classes says which of them it means, and not how sure it is.
            mapped = self._reference is not None and self._reference.class_map is not None
            found.add(labels, None if mapped else h1_output, h2_output, self._is_binary(h2_output), self._options)
            size, entries = labels.target.shape[0], labels.target.numel()
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
        if self._answers is not None and seen and len(self._answers) != seen:
            raise self._wrong_number(str(seen))
        self._check_ranges()
        self.instances = seen
        return found

    def ask_h2(self, brought: Any) -> Any:
        """What h2 returns for a batch; its target is not read, and need not be there."""
        batch, _ = split_batch(brought)
        has_three = isinstance(batch, (tuple, list)) and len(batch) == 3
        x = self._parts(batch)[1] if has_three else _as_tensors(inputs_from_batch(batch, self._places[1]))
        return self._ask_h2(x, self._device).output

    def _parts(self, batch: Any) -> tuple[list[Any] | None, Any, Tensor]:
        """Ids (or None), inputs and target of a batch."""
        ids_at, inputs_at, target_at = self._places
        if (ids_at, inputs_at, target_at) == (None, None, None) and isinstance(batch, (tuple, list)):
            if len(batch) == 3:
                if self._ids_first is None and len(batch[1]):
                    # What the first batch tells holds for all.
                    self._ids_first = first_is_ids(batch)
                    if self._ids_first is None:
                        raise ValueError(_EITHER)
                if self._ids_first:
                    return _checked_ids(batch[0]), _as_tensors(batch[1]), _as_target(batch[2])
            if len(batch) in (2, 3):
                return None, _as_tensors(batch[0]), _as_target(batch[1])
        ids = None if ids_at is None else _checked_ids(_part(batch, ids_at, "ids"))
        return ids, _as_tensors(inputs_from_batch(batch, inputs_at)), target_from_batch(batch, target_at)

    def _second(self, answer: ModelAnswer, target: Tensor) -> tuple[Tensor, int]:
        """Scores with the classes on axis 1, and where they were."""
        axis = 1 if self._multilabel else class_axis_of(answer.scores, target, answer.output, self._class_axis)
        if axis is None:
            raise ValueError(says_ambiguous_axis(answer.scores, target))
        return (answer.scores if axis == 1 else answer.scores.movedim(-1, 1)), axis

    def _ask_h1(self, x: Any, rows: Tensor | None, h2_output: Tensor, target: Tensor, axis: int) -> Tensor:
        reference = self._reference
        if reference is None:
            return self._h1_second(self._ask_h1_model(x, self._device).scores, h2_output, axis)
        classes = h2_output.shape[1] if reference.class_map is not None and h2_output.ndim > 1 else None
        if not reference.is_stored:
            rows = reference.ask(*arguments_of(x), networks=self._networks)
        if rows is None:
            raise ValueError(
                "h1 is stored outputs, and the batches do not say which rows of them they are: compare on "
                "DataLoader(stored.attach(dataset), ...)"
            )
        rows = self._h1_second(rows, h2_output, axis)
        kind: Kind = "classes_last" if self._h1_class_axis == -1 and rows.ndim > 2 else "classes"
        if h2_output.ndim > 1 and h2_output.shape[1] > 1:
            check_kind_of_blend(reference.fingerprint, "labels" if self._multilabel else kind, "h1")
        mapped = reference.map_classes(rows.to(h2_output.device), classes)
        return reference.for_support(mapped, target.to(mapped.device))

    def _h1_second(self, scores: Tensor, h2_output: Tensor, axis: int) -> Tensor:
        """h1's scores with the classes on axis 1; h2's were on `axis`."""
        if self._multilabel:
            return scores
        found = h1_class_axis(scores, h2_output) or self._h1_class_axis
        if found is None and not self._h1_is_told:
            raise ValueError(says_ambiguous_h1(scores, axis))
        self._h1_class_axis = found or axis
        return scores if self._h1_class_axis == 1 else scores.movedim(-1, 1)

    def _labels(self, h2_output: Tensor, target: Tensor, h1_output: Tensor) -> Any:
        if self._is_binary(h2_output):
            outputs = {"h1": h1_output, "h2": h2_output}
            if not self._options["from_logits"]:
                _check_probabilities(outputs)
            else:
                self._note_range(outputs)
            _check_labels(target, 2, None)
            return labels_of("binary_cross_entropy", h2_output, target, h1_output, **self._options)
        if target.is_floating_point():
            # Looks whether they are probabilities of classes, which labels_of takes for granted.
            align_multiclass(h2_output, target, h1_output, None)
        else:
            _check_labels(target, h2_output.shape[1], self._options["ignore_index"])
        return labels_of("cross_entropy", h2_output, target, h1_output, **self._options)

    def _is_binary(self, h2_output: Tensor) -> bool:
        return self._multilabel or h2_output.ndim == 1 or h2_output.shape[1] == 1

    def _note_range(self, outputs: Mapping[str, Tensor]) -> None:
        for model, output in outputs.items():
            if output.is_floating_point() and output.numel():
                number = torch.tensor(output.numel(), device=output.device)
                self._seen[model].append(torch.stack([*output.double().aminmax(), number]))

    def _check_ranges(self) -> None:
        """Refuse probabilities that were read as logits: all of them would say class 1."""
        for model, ranges in self._seen.items():
            if not ranges:
                continue
            low, high, entries = torch.stack([each.cpu() for each in ranges]).T.tolist()
            if are_probabilities(min(low), max(high), int(sum(entries))):
                raise ValueError(
                    f"{model} must give logits here (from_logits=True), and gives values within 0..1 alone, as "
                    f"probabilities are: from {min(low):g} to {max(high):g}. If both do, pass from_logits=False; else "
                    f"its logit is as good: lambda *args: torch.logit({model}(*args), eps=1e-6)."
                )

    def _wrong_number(self, instances: str) -> ValueError:
        number = 0 if self._answers is None else len(self._answers)
        return ValueError(
            f"h1 is given by its answers: expected one for each of the {instances} instances of the data, got {number}"
        )


def in_order(dataset: Any) -> bool:
    return not isinstance(dataset, DataLoader) or order_of(dataset, 1).step == 1


def _answers_of(h1: Any) -> Tensor | None:
    """h1's labels or scores for all instances, if that is what it is."""
    if callable(h1) or not (isinstance(h1, (tuple, list)) or hasattr(h1, "shape")):
        return None
    answers = h1.detach() if isinstance(h1, Tensor) else _tensor_of(to_numpy(h1, "h1"))
    if answers.ndim == 0 or answers.dtype == torch.bool or answers.is_complex():
        raise TypeError(
            "h1: expected a model, or its answers for all instances as integer labels (N,) or scores (N, C), got "
            f"{answers.dtype} of shape {tuple(answers.shape)}"
        )
    return answers


def _check_can_be_asked(model: Any, called: str, expected: str) -> None:
    if isinstance(model, type) or not callable(model):
        raise TypeError(
            f"{called} must be {expected}; make an instance of a class, and load weights into one with "
            "bc_lightning.load_h1(module, checkpoint). "
            f"Received: {called}={model!r}."
        )


def is_stored(h1: Any) -> bool:
    return isinstance(h1, StoredOutputs) or (isinstance(h1, Reference) and h1.is_stored)


def trained_with(h2: Any) -> Compatibility | None:
    """What a `BCLightningModule` carries beside h2, or None."""
    return next(iter(compatibilities_of(h2)), None)


def reading_of(
    h2: Any,
    threshold: float | None = None,
    from_logits: bool | None = None,
    multilabel: bool | None = None,
    ignore_index: int | None = None,
    state: Compatibility | None = None,
) -> tuple[bool, dict[str, Any]]:
    """Whether outputs are read as binary whatever their shape, and how: the caller's word, else h2's training's."""
    state = trained_with(h2) if state is None else state
    options: dict[str, Any] = {"threshold": 0.5, "from_logits": False, "ignore_index": _IGNORE_INDEX}
    if state is not None:
        binary = state.loss.base == "binary_cross_entropy"
        known = {"threshold", "from_logits", "ignore_index"} & set(state.loss.options)
        options |= {"from_logits": binary, **{name: state.loss.options[name] for name in known}}
        multilabel = binary if multilabel is None else multilabel
    if threshold is not None:
        options["threshold"] = threshold
    if from_logits is not None:
        options["from_logits"] = from_logits
    if ignore_index is not None:
        options["ignore_index"] = ignore_index
    return bool(multilabel), options


@contextmanager
def evaluating(*models: Any) -> Iterator[None]:
    """Eval mode and no gradients; afterwards every submodule is in the mode it was in."""
    modules = [
        each for model in models for each in (model.modules if isinstance(model, Reference) else modules_behind(model))
    ]
    # What torch.jit has frozen has no modes.
    modes = [(child, child.training) for module in modules for child in module.modules() if hasattr(child, "training")]
    try:
        for module in modules:
            set_eval(module)
        with torch.no_grad():
            yield
    finally:
        for child, training in modes:
            child.training = training


def _picking(
    model: Any, scores: Scores | None, called: str, parts: Sequence[str] = ()
) -> Callable[[Any, Any], ModelAnswer]:
    """How a model is asked about inputs, and where its class scores are found.

    Args:
        model: h1 or h2.
        scores: what its class scores are, if not what it returns.
        called: "h1" or "h2", for errors.
        parts: the submodules that a model without forward is asked by, one after the other.
    """
    module = module_behind(model)
    if parts and module is not None and lacks_forward(module):
        networks = [module.get_submodule(name) for name in parts]
        return lambda x, device: _scores(nn.Sequential(*networks), x, device, called)
    if callable(scores):
        pick = scores
        return lambda x, device: _scores(model, x, device, f"scores({called}'s output)", pick)
    if scores is None and module is not None:
        scores = only_network(module)
    if scores is None:
        return lambda x, device: _scores(model, x, device, called)
    if module is None or not isinstance(scores, str):
        raise TypeError(
            f"scores must be a function of {called}'s output, or the name of a submodule of {called}. "
            f"Received: scores={scores!r}, {called} of type {type(model).__name__}."
        )
    try:
        network = module.get_submodule(scores)
    except AttributeError:
        names = [path for path, _ in module.named_modules() if path]
        raise ValueError(
            f"scores={scores!r} names no submodule of {called}. Known: {', '.join(map(repr, names))}."
        ) from None
    if only_network(module) is not None:
        # There is no forward that would call it.
        return lambda x, device: _scores(network, x, device, called)

    def answer(*args: Any, **kwargs: Any) -> Any:
        return _one(answers_of(network, lambda: model(*args, **kwargs)), str(scores), called)

    return lambda x, device: _scores(model, x, device, called, call=answer)


def _one(outputs: list[Any], submodule: str, called: str) -> Any:
    if len(outputs) != 1:
        raise ValueError(
            f"{called} must call its submodule {submodule!r} exactly once for a batch, as the output is what is "
            f"compared. Received: {len(outputs)} calls."
        )
    return outputs[0]


def _scores(
    model: Any,
    x: Any,
    device: Any,
    name: str,
    pick: Callable[[Any], Any] | None = None,
    call: Callable[..., Any] | None = None,
) -> ModelAnswer:
    module: nn.Module | None = module_behind(model)
    weight = None if module is None else next(chain(module.parameters(), module.buffers()), None)
    where = device if weight is None else weight.device
    args, kwargs = arguments_of(x if where is None else move_data_to_device(x, torch.device(where)))
    try:
        output = (call or model)(*args, **kwargs)
    except (TypeError, RuntimeError) as error:
        raise failed_on("h1" if "h1" in name else "h2", "a batch's inputs", args, kwargs, error) from error
    if pick is not None:
        output = pick(output)
    if isinstance(output, (np.ndarray, np.generic)):
        output = _tensor_of(output)
    return ModelAnswer(scores_from_output(output, model=name).detach(), output)


def _as_tensors(x: Any) -> Any:
    return _tensor_of(x) if isinstance(x, np.ndarray) else x


def _tensor_of(array: np.ndarray[Any, Any] | np.generic) -> Tensor:
    # torch warns of memory that it may not write to, such as JAX's or a read-only map's.
    return torch.as_tensor(np.require(array, requirements=["C", "W"]))


def _as_target(target: Any) -> Tensor:
    if isinstance(target, Tensor) and target.dtype != torch.uint64:
        return target
    array = to_numpy(target, "target")
    if array.dtype == np.uint64:
        # Torch would read the largest as negative numbers.
        if array.size and int(array.max()) > INT64_MAX:
            raise ValueError(f"target: expected class numbers, got {array.max()}; map the labels to the classes")
        array = array.astype(np.int64)
    if array.dtype.kind not in "iufb":
        raise TypeError(f"target: expected class numbers, got {array.dtype}. {_PLACES}")
    return _tensor_of(array)


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


def _check_labels(target: Tensor, num_classes: int, ignore_index: int | None) -> None:
    """Refuse what is no label, instead of leaving it out or reading it as some class."""
    inside = (target >= 0) & (target < num_classes)
    if target.is_floating_point():
        inside = (target >= 0) & (target <= 1)
    elif ignore_index is not None:
        inside |= target == ignore_index
    if bool(inside.all()):
        return
    strange = target[~inside][0].item()
    raise ValueError(
        f"target: expected {'0 or 1' if num_classes == 2 else f'classes 0..{num_classes - 1}'}, got {strange}. Map the "
        f"labels to the classes, leave such instances out of the data"
        + ("" if ignore_index is None else f", or say ignore_index={strange} (it is {ignore_index})")
    )
