"""What a step was trained on: the batch's target, what its loss was given, or what it handed over.

The batch's target is right where h2 was given the batch's own input and no loss says otherwise. A step that mixes
inputs (mixup, cutmix) trains on labels that are in no batch: they are taken from its one call of a loss, or it hands
them over; where neither can be known it is refused.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from bc_core.losses._dissonances import DISSONANCES
from bc_lightning._user_module import class_of
from bc_lightning.training.step._ranking import check_ranking
from bc_lightning.training.step._refused_steps import GIVE_ITSELF
from bc_lightning.training.step._step import HANDED_OVER, Step
from bc_lightning.training.watching._loss_watch import LossWatch, SeenLoss
from bc_lightning.training.watching._tensors import is_compiled, other_labels, place_of, storage_of, tensors_in

_HAND_OVER = f"self.{HANDED_OVER} = y"


def target_of(step: Step, number: int, scores: Tensor) -> Tensor:
    """The target of the call of h2 that counts.

    Args:
        step: the step, whose own code has run.
        number: which call counts.
        scores: h2's scores in it.

    Raises:
        TypeError, ValueError: the batch has no target; the step was trained on something that cannot be known, or
            on something else than the option `target` says; h1's stored outputs do not belong to what was trained on.
    """
    handed = step.handed_over
    own_input = step.got_the_batch(step.calls[number])
    seen = [] if step.watch is None else step.watch.losses_of(step.roots[number])
    if step.watch is not None and not seen and own_input:
        # Scaled, or with a prior added: no view of the scores, but of their classes.
        seen = [loss for loss in step.watch.losses if loss.root is None and loss.input.numel() == scores.numel()]
    check_ranking(step, seen, scores)
    if handed is not None:
        if not isinstance(handed, Tensor):
            raise TypeError(
                f"self.{HANDED_OVER} must be a tensor, the target that the step was trained on. Received: "
                f"{type(handed).__name__}."
            )
        own = step.batch_target
        # Probabilities where the batch has class indices: it was mixed before the step.
        mixed = own is not None and handed.is_floating_point() != own.is_floating_point()
        if not own_input or (step.stage == "train" and mixed):
            _refuse_stored(step)
        _check_length(step, handed, scores)
        return handed
    told = step.state.options.target is not None or step.state.options.supplies_base
    if step.watch is not None:
        _check_what_is_trained(step, step.watch, number, scores)
        _check_options(step, seen)
        if own_input and step.stage == "train" and not told and not seen:
            _check_used(step, step.watch, scores)
        if own_input or step.stage != "train":
            target = _agreed(step, step.require_target(), [loss.target for loss in seen], scores)
            _check_length(step, target, scores)
            return target
        return _of_another_input(step, step.watch, [loss.target for loss in seen])
    if step.stage == "train" and not own_input:
        # Nothing could be watched: the step is compiled, or calls h2 inside of a mode of torch's.
        raise ValueError(_unknown_target(step))
    if not step.compiled and not told:
        raise ValueError(
            f"{class_of(step.module)}'s {step.stage} step calls h2 inside of a mode of torch's (with "
            f"torch.device(...), for one), so what it computes from h2's output can't be seen. Say where the "
            f"target is, target=1 for (x, y), or hand over in the step what its loss is given, {_HAND_OVER}."
        )
    return step.require_target()


def is_unseen(step: Step, loss: Tensor) -> bool:
    """Whether a loss was computed in a compiled step, or in a function of it that is compiled by itself."""
    watch = step.watch
    if step.compiled or watch is None or watch.losses or watch.target_trains or not step.calls:
        return step.compiled
    return is_compiled(loss, step.calls[step.counted()].output)


def check_compiled(step: Step, ours: Tensor, loss: Tensor) -> None:
    """Refuse a compiled step whose loss is not what the batch's target gives: it may have mapped the labels.

    Reads values, so it waits for the device; of later batches only where it does not have to.
    """
    if step.state.options.target is not None or step.handed_over is not None or step.state.options.supplies_base:
        return
    # Labels that say the same of a batch will say another of the next.
    notice(
        step,
        _differs(ours, loss),
        f"The loss of {class_of(step.module)}'s compiled train step is not the mean of our base loss with the "
        f"batch's target, and what else it is cannot be seen in a compiled step. Say where its target is, target=1 for "
        f"(x, y) or target=lambda batch: ..., or hand it over in the step, {_HAND_OVER}.",
    )


def check_not_swapped(step: Step, scores: Tensor, target: Tensor, h1_output: Tensor, loss: Tensor) -> None:
    """Refuse, on a first batch, a binary loss by hand that is what the other class of each target gives.

    Reads values, so it waits for an accelerator.
    """
    told = step.state.options.target is not None or step.handed_over is not None or step.state.options.supplies_base
    by_hand = step.watch is not None and not step.watch.losses
    if step.state.loss.base != "binary_cross_entropy" or told or not by_hand or step.stage != "train":
        return
    ours, other = (step.state.loss.terms(scores.detach(), y, h1_output).base for y in (target, 1 - target.float()))
    if not _differs(other, loss) and _differs(ours, loss):
        raise ValueError(
            f"The loss of {class_of(step.module)}'s train step is what 1 - y gives, the other class of each target of "
            f"the batch. Say how its target comes from the batch, target=lambda batch: 1 - batch[1], or hand it over "
            f"in the step, {_HAND_OVER}."
        )


def check_takes_from_base(step: Step, ours: Tensor, loss: Tensor) -> None:
    """Refuse a dissonance that takes a share of the target from the base where the step trains another loss.

    What it takes, it would take from a loss that does not have it, which could then fall without end. Reads values as
    `check_compiled` does.
    """
    criterion = step.state.loss
    if DISSONANCES[criterion.dissonance].most_lambda is None or step.state.options.supplies_base:
        return
    notice(
        step,
        _differs(ours, loss),
        f"dissonance={criterion.dissonance!r} puts h1's probabilities in the place of a share of the target, so the "
        f"loss of {class_of(step.module)}'s training step must be its base, the mean {criterion.base}, and nothing "
        f"else: say its options (loss_options={{'label_smoothing': 0.1}}), or take loss='imitation', which only adds, "
        f"to any loss.",
    )


def _differs(ours: Tensor, loss: Tensor) -> Tensor:
    # A compiler adds up in another order.
    precision = 1e-3 if loss.dtype in (torch.float32, torch.float64) else 1e-2
    return ~torch.isclose(ours.detach().float(), loss.float(), rtol=precision, atol=1e-4)


def notice(step: Step, fault: Tensor, message: str) -> None:
    """Refuse a fault at once, where that waits for nothing; else when the Trainer waits for the device anyway."""
    if step.first or fault.device.type == "cpu":
        if bool(fault):
            raise ValueError(message)
        return
    flag = step.run.faults.get(message)
    step.run.faults[message] = fault if flag is None else flag | fault


def _check_length(step: Step, target: Tensor, scores: Tensor) -> None:
    """Refuse a target for other numbers of instances than h2 has answered for."""
    if target.ndim and scores.ndim and len(target) != len(scores):
        raise ValueError(
            f"{class_of(step.module)}'s {step.stage} step calls h2 with {len(scores)} instances, and its target is for "
            f"{len(target)}. {_for_each(step, len(scores))}"
        )


def _for_each(step: Step, size: int) -> str:
    """How to say what counts where h2 answers for several views of an instance."""
    ignored = step.state.loss.options.get("ignore_index", -100)
    some = f", torch.cat([y, torch.full_like(y, {ignored})]) where the second half does not count"
    return (
        f"Hand over in the step a target for each of the {size}: self.{HANDED_OVER} = torch.cat([y, y]) for two views "
        f"one after the other, y.repeat_interleave(2) for two side by side"
        f"{'' if step.state.loss.base == 'binary_cross_entropy' else some}."
    )


def _fits(target: Tensor, scores: Tensor) -> bool:
    """Whether a target has the form of class indices, or of probabilities, for scores of several classes."""
    return target.shape == scores.shape if target.is_floating_point() else target.numel() < scores.numel()


def _agreed(step: Step, target: Tensor, seen: list[Tensor], scores: Tensor) -> Tensor:
    """The batch's target, unless the losses were given others."""
    size = len(scores)
    # Probabilities beside labels are a teacher's.
    labels = [other for other in seen if other.ndim < 2 or not other.is_floating_point()] or seen
    own = [other for other in labels if place_of(other) == step.target_place]
    others = [other for other in labels if place_of(other) != step.target_place]
    parts = [other for other in others if storage_of(other) == step.target_storage and len(other) == size]
    if parts and size < len(target) and len(parts) == len(labels):
        # h2 was given some of the instances, and its loss their labels.
        if len({place_of(other) for other in parts}) > 1:
            raise ValueError(_other_target(step, parts[0]))
        return parts[0]
    if len(target) != size and len({place_of(other) for other in labels}) == 1 and len(labels[0]) == size:
        # Made for more instances than the batch has, of which h2 was given several views.
        _refuse_stored(step)
        return labels[0]
    binary = step.state.loss.base == "binary_cross_entropy"
    faults = [fault for other in others if (fault := other_labels(other, target, binary)) is not None]
    if not faults:
        return target
    fault = torch.stack(faults).any()
    # Two sets of labels for one output, as when the batch was mixed before the step, or one that is another.
    several = bool(own) or (step.first and not bool(torch.stack(faults).all()))
    notice(step, fault, _two_targets(step) if several else _other_target(step, others[0]))
    # The same labels in another form, which is the one of classes where the batch's is not.
    formed = [] if binary or _fits(target, scores) else [other for other in others if _fits(other, scores)]
    return formed[0] if formed else target


def _two_targets(step: Step) -> str:
    return (
        f"{class_of(step.module)}'s {step.stage} step computed its loss with the batch's target and with another "
        f"one, so what it was trained on cannot be told (mixup, for one). Hand it over in the step, {_HAND_OVER}: "
        f"class indices, or the mixed target as probabilities (N, C)."
    )


def _other_target(step: Step, other: Tensor) -> str:
    where = "" if step.state.options.target is None else f"target={step.state.options.target!r} of "
    found = _where_in(step.batch, other)
    if found is not None:
        remedy = f"Say where it is: target={found!r}."
    else:
        soft = other.ndim > 1 and other.is_floating_point()
        which = ": the labels if it was a teacher's answer, the probabilities if they were mixed" if soft else ""
        remedy = (
            f"Say how it comes from the batch, target=lambda batch: ..., or hand it over in the step, {_HAND_OVER}"
            f"{which}."
        )
    return (
        f"{class_of(step.module)}'s {step.stage} step computed its loss with another target than {where}the batch "
        f"has. {remedy}"
    )


def _check_used(step: Step, watch: LossWatch, scores: Tensor) -> None:
    """Refuse, of a step without a loss of torch's, a target that it does not use or makes into another."""
    target = step.batch_target
    if target is None:
        return
    # In a binary loss by hand 1 - y stands beside y.
    beside = step.state.loss.base == "binary_cross_entropy" and watch.target_trains
    if watch.relabelled and not beside:
        raise ValueError(
            f"{class_of(step.module)}'s {step.stage} step makes other class indices of the batch's target. Say how "
            f"they come from the batch, target=lambda batch: ..., or hand them over in the step, {_HAND_OVER}."
        )
    if watch.target_trains:
        return
    labels = [
        place
        for place, value in enumerate(step.batch if isinstance(step.batch, (tuple, list)) else ())
        if isinstance(value, Tensor) and value.shape[:1] == target.shape[:1] and storage_of(value) in watch.used
    ]
    if labels and step.first and step.target_storage not in watch.used:
        raise ValueError(
            f"{class_of(step.module)}'s {step.stage} step does not use element 1 of the batch, which would be taken "
            f"for the target, but element {labels[0]}. Say where the target is: target={labels[0]}."
        )
    # Labels that were made before h2 was called: they may be the same in another form.
    made = [
        other
        for other in watch.trained_with.values()
        if other.numel() == (scores.numel() if other.is_floating_point() else target.numel())
    ]
    binary = step.state.loss.base == "binary_cross_entropy"
    faults = [fault for other in made if (fault := other_labels(other, target, binary)) is not None]
    if faults:
        notice(step, torch.stack(faults).all(), _other_target(step, made[0]))


def _check_options(step: Step, seen: list[SeenLoss]) -> None:
    """Refuse what the user's loss says of its input and labels, and our options otherwise."""
    options, told = step.state.loss.options, {loss.ignore_index for loss in seen if loss.ignore_index is not None}
    if step.state.loss.base == "binary_cross_entropy":
        ours = options.get("from_logits", True)
        theirs = {loss.from_logits for loss in seen if loss.from_logits is not None}
        if theirs and ours not in theirs:
            given, read = ("probabilities", "logits") if ours else ("logits", "probabilities")
            raise ValueError(
                f"{class_of(step.module)}'s {step.stage} step computes its loss from {given}, which would be read as "
                f"{read} here. Say it too: loss_options={{'from_logits': {not ours}}}, or CompatibilityLoss(..., "
                f"from_logits={not ours})."
            )
        return
    ours = options.get("ignore_index", -100)
    if not told or ours in told:
        return
    if told == {-100} and all(not 0 <= ours < loss.input.shape[1] for loss in seen if loss.input.ndim > 1):
        # Nobody said that to torch, which refuses the other where a label is it.
        return
    left_out = told.pop()
    raise ValueError(
        f"{class_of(step.module)}'s {step.stage} step leaves out the label {left_out} (ignore_index={left_out} of "
        f"its loss), which would be penalised and counted here. Say it too: loss_options={{'ignore_index': "
        f"{left_out}}}, or CompatibilityLoss(..., ignore_index={left_out})."
    )


def _of_another_input(step: Step, watch: LossWatch, seen: list[Tensor]) -> Tensor:
    """The target where h2 was given something else than the batch's input: preprocessed, augmented or mixed."""
    target = step.batch_target
    if target is None and not seen:
        raise ValueError(_unknown_target(step))
    own = step.target_storage
    others = [other for other in seen if storage_of(other) != own]
    if target is not None:
        if seen and not others:
            return target
        if not seen and not watch.strangers and own in watch.used and not watch.target_changed:
            return target
        # The same class indices in another tensor; mixed ones are probabilities, whatever their largest is.
        indices = [*others, *([] if seen else watch.strangers)] if target.device.type == "cpu" else []
        mixed = any(other.ndim > 1 and other.is_floating_point() for other in indices)
        kept = bool(indices) and not mixed and not watch.target_changed
        if kept and not any(fault is None or bool(fault) for fault in (other_labels(each, target) for each in indices)):
            return target
    if len({storage_of(other) for other in seen}) == 1:
        _refuse_stored(step)
        return seen[0]
    raise ValueError(_unknown_target(step))


def _unknown_target(step: Step) -> str:
    return (
        f"{class_of(step.module)}'s train step called h2 with something else than the batch's input (mixed, augmented "
        f"or preprocessed in the step), and what it was trained on cannot be told from its loss. Hand it over in the "
        f"step, {_HAND_OVER}: class indices, or the mixed target as probabilities (N, C)."
    )


def _refuse_stored(step: Step) -> None:
    if step.state.stored is not None:
        raise ValueError(
            f"{class_of(step.module)}'s train step trained on inputs and targets of its own (mixup, for one), for "
            f"which {step.state.stored}'s stored outputs hold no answer: they are of the items as they are stored. "
            f"Give {step.state.stored} itself: {GIVE_ITSELF[step.state.stored]}."
        )


def _leaves_out_what_we_do(step: Step, seen: SeenLoss) -> bool:
    """Whether a loss was computed on the instances whose label is not the one that we were told to ignore."""
    target = step.batch_target
    if target is None or target.ndim != 1 or target.is_floating_point():
        return False
    return torch.equal(seen.target, target[target != step.state.loss.options.get("ignore_index", -100)])


def _check_what_is_trained(step: Step, watch: LossWatch, number: int, scores: Tensor) -> None:
    """Refuse, on a first batch, an output that no loss of labels was computed from: its columns are no classes."""
    root = step.roots[number]
    if step.state.options.scores is not None or watch.losses_of(root):
        return
    how = (
        "Say which submodule or part of the output gives the class scores: scores='name' or scores=function of the "
        "output (scores=lambda output: output, if they are what forward returns)"
    )
    rows = [loss for loss in watch.losses if loss.input.shape[1:] == scores.shape[1:] and scores.ndim > 1]
    short = bool(rows) and len(rows[0].input) != len(scores)
    if short and step.batch_target is not None and len(step.batch_target) != len(scores):
        raise ValueError(
            f"{class_of(step.module)}'s {step.stage} step computed its loss on {len(rows[0].input)} instances, and h2 "
            f"answered for {len(scores)}: several views of each, for one. {_for_each(step, len(scores))}"
        )
    if short and step.state.options.target is None and not _leaves_out_what_we_do(step, rows[0]):
        raise ValueError(
            f"{class_of(step.module)}'s {step.stage} step computed its loss on {len(rows[0].input)} of the "
            f"{len(scores)} instances that h2 answered for, and the others would be penalised and counted too. Say "
            f"which count with a target that ignores the rest, such as target=lambda batch: "
            f"batch.y.masked_fill(~batch.train_mask, -100)."
        )
    others = [loss for loss in watch.losses if loss.root is None and loss.input.numel() != scores.numel()]
    others = [] if rows else others
    if others and len(others) == len(watch.losses):
        raise ValueError(
            f"h2's output of shape {tuple(scores.shape)} is not what {class_of(step.module)}'s {step.stage} step "
            f"computed its loss on, a tensor of shape {tuple(others[0].input.shape)}: an embedding, for one, has no "
            f"classes. {how}."
        )
    if root in watch.points and not watch.losses:
        raise ValueError(
            f"{class_of(step.module)}'s {step.stage} step compares h2's output of shape {tuple(scores.shape)} by "
            f"{watch.points[root]}, as points of a space: its columns are no classes. {how}."
        )


def _where_in(batch: Any, target: Tensor) -> str | int | None:
    """The index or key of a batch under which a target stands."""
    places: Any = (
        batch.items() if hasattr(batch, "items") else enumerate(batch) if isinstance(batch, (tuple, list)) else ()
    )
    for place, value in places:
        if any(storage_of(tensor) == storage_of(target) for tensor in tensors_in(value)):
            return cast("str | int", place)
    return None
