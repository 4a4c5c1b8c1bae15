"""Imitation beyond the training data: batches of inputs without labels, about which h1 or the teacher is asked."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, cast

import torch
from lightning_fabric.utilities import move_data_to_device
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.utils.data.distributed import DistributedSampler

from bc_core.losses._blends import H1, TEACHER
from bc_core.losses._mixtures import LABELS, MIXED, WEIGHT, checked_labels, checked_weight
from bc_core.losses._options import known
from bc_core.reference._callable_fingerprint import is_same_h1
from bc_lightning._user_module import class_of, lacks_forward
from bc_lightning.batches._attached import Brought, split_batch
from bc_lightning.batches._model_outputs import ONE_INPUT, inputs_from_batch, scores_from_output
from bc_lightning.losses._compatibility_loss import CompatibilityLoss
from bc_lightning.losses._instance_terms import LossTerms
from bc_lightning.reference._modules import answers_of
from bc_lightning.reference._reference import Reference
from bc_lightning.training.data._loaders import sampler_of
from bc_lightning.training.data._reader import evaluating
from bc_lightning.training.step._mixtures import Mixture, NoCategories, check_follows, reversed_call
from bc_lightning.training.step._refused_steps import whole_message
from bc_lightning.training.step._step import Step
from bc_lightning.training.watching._calls import Asked
from bc_lightning.training.watching._tensors import mapped, storage_of, tensors_in


class Unlabelled:
    """The loader of unlabelled inputs, as the user gave it, or ``"mixed"``, and what its batches count.

    Args:
        loader: a data loader, or another iterable of batches, begun anew whenever it has come to its end; or
            ``"mixed"`` for mixtures of each training batch's own inputs.
        weight: what a mean over its instances counts beside lambda_c, >= 0.
        labels: the share of the labels in what h2 is taught of mixtures.

    Raises:
        TypeError: it is no iterable, or an iterator, which can be read once.
        ValueError: a weight or a share that is none, or another word.
    """

    def __init__(self, loader: Iterable[Any] | str, weight: float = WEIGHT, labels: float = LABELS) -> None:
        if isinstance(loader, str):
            known(loader, (MIXED,), "unlabelled")
        elif isinstance(loader, (Iterator, torch.utils.data.Dataset, Tensor)) or not hasattr(loader, "__iter__"):
            raise TypeError(
                "unlabelled must be a data loader, or a list of batches, that can be read again and again: "
                "torch.utils.data.DataLoader(dataset, batch_size=64, shuffle=True); or 'mixed'. "
                f"Received: {type(loader).__name__}."
            )
        self.loader, self.weight = loader, checked_weight(weight)
        self.is_mixed, self.labels = isinstance(loader, str), checked_labels(labels)

    def __deepcopy__(self, memo: dict[int, Any]) -> Unlabelled:
        return self


class Batches:
    """The batches of a run, without end, and the one that the present step has taken.

    Args:
        given: the loader, or that there is none.
        loss: of their instances.
        passes: how often it was begun before, in the training that goes on.
    """

    def __init__(self, given: Unlabelled, loss: CompatibilityLoss, passes: int = 0) -> None:
        self.loader, self.passes = given.loader, passes
        self.loss = loss
        self._reading: Iterator[Any] | None = None
        self._taken: tuple[Any, Any] | None = None

    def of(self, position: Any, rank: int, world_size: int) -> Any:
        """The batch of a step; asked again about the same step (LBFGS, two losses), the same."""
        if self._taken is not None and position is not None and self._taken[0] == position:
            return self._taken[1]
        batch = self._next(rank, world_size)
        self._taken = position, batch
        return batch

    def _next(self, rank: int, world_size: int) -> Any:
        for _ in range(2):
            if self._reading is None:
                self._reading = self._begin(rank, world_size)
            for batch in self._reading:
                return batch
            self._reading = None
        raise ValueError(
            "The loader of unlabelled inputs gives no batch"
            + (f" to process {rank} of {world_size}, each of which takes its share" if world_size > 1 else "")
            + ": look at its data set's length, and at drop_last with a batch size above it."
        )

    def _begin(self, rank: int, world_size: int) -> Iterator[Any]:
        sampler, _ = sampler_of(self.loader)
        if isinstance(sampler, DistributedSampler):
            sampler.set_epoch(self.passes)
            rank, world_size = 0, 1
        self.passes += 1
        return itertools.islice(iter(self.loader), rank, None, world_size)


def imitating(criterion: CompatibilityLoss) -> CompatibilityLoss:
    """The loss of unlabelled instances: h1's answer in place of a target, by the base of a loss."""
    options = {name: value for name, value in criterion.options.items() if name in ("threshold", "from_logits")}
    return CompatibilityLoss(criterion.base, "imitation", validate_args=criterion.validate_args, **options)


def unlabelled_dissonance(step: Step) -> Tensor | None:
    """Mean dissonance of a batch of unlabelled inputs, with gradients for h2, times what it counts; None without any.

    h2 is run once more, beside the step: its random layers draw anew, batch normalisation takes the statistics of this
    batch, and those that it keeps for evaluation stay as they are.
    """
    state, given = step.state, step.state.options.unlabelled
    if given is None or step.stage != "train" or given.weight == 0:
        return None
    module = cast("Any", step.module)
    if state.run.unlabelled is None:
        state.run.unlabelled = Batches(given, imitating(state.loss), state.unlabelled_passes)
    mixture = step.mixture if given.is_mixed else None
    if given.is_mixed and (mixture is None or not len(mixture.share)):
        return None
    brought = None
    if mixture is None:
        asked, brought = _of_loader(step, state.run.unlabelled)
        own = asked
    else:
        asked, own = mixture.asked, mixture.own
    with NoCategories() if mixture is not None and step.first and not step.compiled else nullcontext():
        answer = _answer(step, asked, brought)
        h2_output = _of_h2(step, own)
    if mixture is not None and step.first and not mixture.is_told_by_shapes:
        _check_instances(step, mixture, answer)
    if mixture is not None and len(h2_output) != len(mixture.share):
        raise ValueError(
            "unlabelled='mixed' mixes along the first axis of what h2 is called with, which must be that of the "
            f"instances. Received: {len(mixture.share)} entries along it, and {len(h2_output)} scores."
        )
    if h2_output.ndim > 2 and state.run.class_axis == -1:
        h2_output = h2_output.movedim(-1, 1)
    # Each where the labelled batch has told.
    if answer.ndim > 2 and state.run.h1_class_axes.get(H1 if state.options.teacher is None else TEACHER) == -1:
        answer = answer.movedim(-1, 1)
    reference = state.imitated
    answer = reference.map_classes(answer, h2_output.shape[1] if reference.class_map is not None else None)
    answer = reference.to_imitate(answer.to(h2_output.device), h2_output)
    answer = answer.to(h2_output.device)
    if mixture is not None and given.labels:
        answer, h2_output = _with_labels(step, mixture, answer, h2_output)
    terms = _terms(state.run.unlabelled.loss, h2_output, answer)
    if module._trainer is not None:
        state.run.epoch("train").unlabelled.append(terms.dissonance.detach())
    return given.weight * terms.dissonance


def _check_instances(step: Step, mixture: Mixture, answer: Tensor) -> None:
    """On a first batch: whether what was mixed are the instances; h2 is asked too where it is called otherwise."""
    check_follows(mixture.asked, answer, _answer(step, reversed_call(mixture.asked), None))
    if mixture.own is not mixture.asked:
        device = mixture.share.device
        with step.random_numbers_kept(device), evaluating(step.module):
            answer, of_reversed = (_of_h2(step, call) for call in (mixture.own, reversed_call(mixture.own)))
        check_follows(mixture.own, answer, of_reversed)


def _with_labels(step: Step, mixture: Mixture, answer: Tensor, h2_output: Tensor) -> tuple[Tensor, Tensor]:
    """What h2 is taught of mixtures, where a share of it is their labels, and h2's scores in the size of these."""
    compared, given = cast("Any", step.compared), cast("Unlabelled", step.state.options.unlabelled)
    if not answer.is_floating_point():
        raise ValueError(_ONLY_LABELS)
    if compared.resize is not None:
        answer, h2_output = compared.resize(answer), compared.resize(h2_output)
    return mixture.taught(step.state.loss, answer, compared.target, given.labels), h2_output


def _of_loader(step: Step, batches: Batches) -> tuple[Asked, Brought | None]:
    """What h2 is called with of the next batch of the loader, and the rows that it brings."""
    state, module = step.state, cast("Any", step.module)
    trainer = module._trainer
    ranks = (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
    batch, brought = split_batch(batches.of(step.moment, *ranks))
    state.unlabelled_passes = batches.passes
    if trainer is not None:
        batch = trainer.strategy.precision_plugin.convert_input(move_data_to_device(batch, module.device))
    if step.first:
        _say_if_prepared(step)
    return _called_with(step, batch), brought


def _called_with(step: Step, batch: Any) -> Asked:
    """What of a batch h2 is called with: as many elements, or the entries, as the step calls it with, labels aside."""
    inputs, scores, given = step.state.options.inputs, step.state.scores, step.given_to_h2
    if inputs is None and given is not None and (not isinstance(scores, str) or lacks_forward(step.module)):
        named = [name for name, value in given.kwargs.items() if not _is_target(step, value)]
        if isinstance(batch, Mapping) and not given.args and any(name in batch for name in named):
            return Asked((), {name: batch[name] for name in named if name in batch}, False)
        several = sum(not _is_target(step, value) for value in given.args)
        if isinstance(batch, (tuple, list)) and 1 < several <= len(batch) and not given.kwargs:
            return Asked(tuple(batch[:several]), {}, False)
    return Asked((inputs_from_batch(batch, None if isinstance(batch, ONE_INPUT) else inputs),), {}, False)


def _is_target(step: Step, value: Any) -> bool:
    return isinstance(value, Tensor) and storage_of(value) == step.target_storage


_ONLY_LABELS = "h1 gives labels, and on unlabelled inputs its probabilities are imitated: give its scores."


def _terms(criterion: CompatibilityLoss, h2_output: Tensor, answer: Tensor) -> LossTerms:
    if not answer.is_floating_point():
        raise ValueError(_ONLY_LABELS)
    if criterion.base == "nll":
        h2_output, answer = (scores_from_output(each, "log_probabilities") for each in (h2_output, answer))
    if criterion.base == "binary_cross_entropy":
        # Any target does: of the base nothing is used.
        target = torch.zeros_like(h2_output)
    else:
        target = h2_output.detach().argmax(1)
    return criterion.terms(h2_output, target, answer)


def _answer(step: Step, asked: Asked, brought: Brought | None) -> Tensor:
    reference = step.state.imitated
    if reference.is_stored:
        found = None if brought is None else brought.of(reference.fingerprint)
        if found is None or not is_same_h1(found.fingerprint, reference.fingerprint):
            raise ValueError(
                "What is imitated on unlabelled inputs is given as stored outputs, and their loader brings none of it: "
                "give the model itself, teacher=model, or let the loader read a data set that outputs of the same "
                "model were stored for, store_outputs(model, unlabelled_set, ...).attach(unlabelled_set)."
            )
        return found.rows
    args, kwargs = asked.args, asked.kwargs
    if step.run.copies_inputs:
        args, kwargs = mapped(args, torch.clone), mapped(kwargs, torch.clone)
    device = next((tensor.device for tensor in tensors_in((args, kwargs))), torch.device("cpu"))
    with step.random_numbers_kept(device):
        return reference.ask(args, kwargs, asked.part, networks_of(step, reference))


def networks_of(step: Step, reference: Reference) -> tuple[str, ...]:
    """Parts of h1 that answer one after the other, where it cannot be called whole and h2's parts are known."""
    return step.state.parts if not reference.answers_whole else ()


def _of_h2(step: Step, asked: Asked) -> Tensor:
    """h2's scores, with gradients, from a call that is none of the step's own."""
    state, module = step.state, step.module
    scores, args, kwargs = state.scores, asked.args, asked.kwargs
    with _beside_the_step(module), _statistics_kept(module):
        if callable(scores):
            return scores_from_output(scores(module(*args, **kwargs)), model="scores(h2's output)")
        if not isinstance(scores, str):
            return scores_from_output(module(*args, **kwargs), model="h2")
        if asked.part or lacks_forward(module):
            names = (not asked.part and state.parts) or (scores,)
            given = step.given_to_h2
            if names == (scores,) and given is not None and any(x.requires_grad for x in tensors_in(given[:2])):
                raise ValueError(whole_message(scores))
            output = module.get_submodule(names[0])(*args, **kwargs)
            for name in names[1:]:
                output = module.get_submodule(name)(output)
            return scores_from_output(output, model="h2")
        outputs = answers_of(module.get_submodule(scores), lambda: module(*args, **kwargs))
        if len(outputs) != 1:
            raise RuntimeError(
                f"h2's submodule {scores!r} was called {len(outputs)} times for unlabelled inputs, where its one "
                f"output was to be the scores; say what they are with scores=function of its output."
            )
        return scores_from_output(outputs[0], model="h2")


@contextmanager
def _beside_the_step(module: Any) -> Iterator[None]:
    """Within it a call of h2 is not one that a step is watched for."""
    steps = [state.step for state in module._compatibilities if state.step is not None]
    for each in steps:
        each.aside = True
    try:
        yield
    finally:
        for each in steps:
            each.aside = False


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Within it batch normalisation in train mode leaves the statistics alone that it evaluates with."""
    with ExitStack() as kept:
        for part in module.modules():
            if part.training and getattr(part, "track_running_stats", False):
                part.track_running_stats = False  # type: ignore[assignment]
                kept.callback(setattr, part, "track_running_stats", True)
        yield


def _say_if_prepared(step: Step) -> None:
    call = step.given_to_h2
    if call is not None and not step.got_the_batch(call) and "unlabelled" not in step.run.unnamed:
        step.run.unnamed.add("unlabelled")
        rank_zero_warn(
            f"{class_of(step.module)}'s train step calls h2 with something else than the batch's input (mixed, "
            f"augmented or preprocessed in the step), and with unlabelled inputs h2 and h1 are called as their loader "
            f"brings them: let it bring them as h2's forward takes them, with inputs= where they are not the first "
            f"element."
        )


def check_unlabelled(given: Any, weight: float, labels: float, imitated: Reference) -> Unlabelled | None:
    """The unlabelled inputs, if there are any, and an answer to them.

    Raises:
        ValueError: what is imitated gives labels only, or stored outputs, of which none are of mixtures.
    """
    if given is None:
        return None
    unlabelled = Unlabelled(given, weight, labels)
    if imitated.labels_only:
        raise ValueError(
            "h1 is known by its predicted labels only, and on unlabelled inputs its probabilities are imitated. Give "
            "the model, or a teacher with a loss that imitates."
        )
    if unlabelled.is_mixed and imitated.is_stored:
        raise ValueError(
            "Stored outputs hold no answer to mixed inputs: give the model itself as h1, or as teacher=model with a "
            "loss that imitates."
        )
    return unlabelled
