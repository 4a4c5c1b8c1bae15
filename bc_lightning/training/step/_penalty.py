"""From the captured call of h2 to the terms of the loss: read the scores, ask h1, check, count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from bc_core.losses._blends import H1, PLAIN, TEACHER, Kind, check_kind_of_blend
from bc_core.losses._dissonances import DISSONANCES
from bc_lightning._user_module import class_of, of_one_kind
from bc_lightning.batches._model_outputs import (
    check_triple,
    class_axis_of,
    h1_class_axis,
    says_ambiguous_axis,
    says_ambiguous_h1,
    scores_from_output,
)
from bc_lightning.losses._alignment import check_finite, is_log_probabilities, is_probabilities
from bc_lightning.losses._instance_terms import Labels, LossTerms, _support_over_ranks, labels_of
from bc_lightning.training._state import Compatibility, Epoch, Position, Run
from bc_lightning.training.comparisons._comparisons import EpochInstances, Outputs, ids_of_batch, tensorboard_loggers
from bc_lightning.training.comparisons._epoch_record import EpochRecord
from bc_lightning.training.data._loaders import (
    Part,
    loader_of,
    loaders_of,
    not_padding,
    order_of,
    parts_of,
    repeats_items,
)
from bc_lightning.training.step._refused_steps import GIVE_ITSELF
from bc_lightning.training.step._step import Compared, Step
from bc_lightning.training.step._target import check_not_swapped, target_of
from bc_lightning.training.watching._tensors import tensors_in


class UnknownAxisError(ValueError):
    """Nothing has told yet which axis holds the classes."""


def penalty_terms(step: Step, base: Tensor | None = None) -> LossTerms:
    """Compare the counted output of h2 with h1's, record both, and return the terms of the loss.

    Not traced in a compiled step: what calls it is `eager`.
    """
    state, run = step.state, step.run
    number = step.counted()
    h2_output = step.scores_of(step.calls[number])
    if step.stage == "train" and torch.is_grad_enabled() and not h2_output.requires_grad:
        raise RuntimeError(
            f"The one output of h2 that {class_of(step.module)}'s step asked for carries no gradient (it was computed "
            f"under no_grad or detached), so the penalty would train nothing. Say which submodule gives the scores "
            f"that are trained, with scores='name', or let the step use forward's output for its loss."
        )
    step.check_unchanged(number, h2_output)
    step.check_stored(number)
    h2_output, resize = step.resized(number, h2_output)
    target = target_of(step, number, h2_output)
    step.compared = Compared(target, resize)
    _check_rows_fit(step, number, target)
    axis = _class_axis(step, number, h2_output, target)
    h2_output = _classes_second(step, h2_output, step.calls[number].output if resize is None else h2_output, axis)
    answers = {name: _answer_of(step, name, number, h2_output, axis, resize) for name in state.references}
    h1_output = answers[H1]
    teacher_output, plain_output = (
        state.references[name].to_imitate(answers[name], h2_output) if name in answers else None
        for name in (TEACHER, PLAIN)
    )
    if state.reference.class_map is not None and state.reference.class_map.parts and len(target):
        # Whether h1 is right is told by the whole, what is imitated is divided.
        whole = state.reference.for_support(h1_output, target)
        if teacher_output is None and not state.loss.labels_suffice:
            teacher_output = state.reference.to_imitate(h1_output, h2_output)
        answers[H1] = h1_output = whole
    if len(target) == 0 and len(h2_output) == 0:
        return _of_no_instances(step, h2_output)
    if step.first:
        check_triple(step.calls[number].output, state.options.scores)
        imitated = (H1, h1_output) if teacher_output is None else (TEACHER, teacher_output)
        for who, scores in (imitated, *([] if plain_output is None else [(PLAIN, plain_output)])):
            _check_kind_of_scores(state, h2_output, who, scores)
        _check_blends(step, h2_output)
        if state.loss.validate_args:
            state.loss.look(h2_output, target, h1_output, outputs_checked=True)
        if base is not None:
            check_not_swapped(step, h2_output, target, h1_output, base)
        run.looked_at.add(step.stage)
    else:
        state.loss.watch_scale(h1_output)
    for who, scores_beside in ((TEACHER, teacher_output), (PLAIN, plain_output)):
        if scores_beside is not None:
            state.loss.watch_scale(scores_beside, who.removeprefix("the "))
    if state.loss.base == "nll":
        h1_output = _as_log_probabilities(h1_output)
        teacher_output, plain_output = (
            None if each is None else _as_log_probabilities(each) for each in (teacher_output, plain_output)
        )
    _watch_finite(step, h2_output, answers)
    keep = _padding(step, number, target)
    if keep is not None and step.stage != "train":
        if keep == 0:
            return _of_no_instances(step, h2_output)
        # What is trained on is trained on; what is evaluated counts once.
        teacher_output = None if teacher_output is None else teacher_output[:keep]
        plain_output = None if plain_output is None else plain_output[:keep]
        h2_output, target, h1_output, keep = h2_output[:keep], target[:keep], h1_output[:keep], None
    if plain_output is not None:
        teacher_output = _where_h2_is_right(step, plain_output, h2_output, target, h1_output, teacher_output)
    loss_terms = state.loss.terms if step.compiler is None else state.compiled_terms(step.compiler)
    taught = () if teacher_output is None else (teacher_output,)
    terms: LossTerms = loss_terms(h2_output, target, h1_output, *taught, outputs_checked=True)
    _record(step, h2_output.detach(), target, h1_output, keep, terms, base)
    step.used()
    return terms


def has_calls_left(step: Step) -> bool:
    """Whether calls of h2 are left at the end of a step that optimises by hand, and are not for something else.

    Such are those after the penalty that are for a metric, under no_grad, or where the first is said to count.
    """
    if not step.calls or not step.penalised:
        return bool(step.calls)
    first = step.state.options.call in ("first", 0)
    return not first and any(tensor.requires_grad for call in step.calls for tensor in tensors_in(call.output))


def _as_log_probabilities(scores: Tensor) -> Tensor:
    return scores_from_output(scores, "log_probabilities") if scores.is_floating_point() else scores


def _where_h2_is_right(
    step: Step, plain: Tensor, h2_output: Tensor, target: Tensor, h1_output: Tensor, taught: Tensor | None
) -> Tensor:
    """What is imitated: the plain h2 where h2 is right at present, else h1, or the teacher in its place."""
    loss, imitated = step.state.loss, h1_output if taught is None else taught
    alone = loss.base == "binary_cross_entropy"
    for who, scores in ((PLAIN, plain), (H1 if taught is None else TEACHER, imitated)):
        if scores.shape != h2_output.shape and not (alone and scores.numel() == h2_output.numel()):
            raise ValueError(
                f"{who} gives scores of shape {tuple(scores.shape)}, and h2 of shape {tuple(h2_output.shape)}: each is "
                f"imitated on a part of the instances, so say which class of it is which, with class_map= for h1 and "
                f"Reference(model, class_map=...) for another."
            )
    labels = labels_of(loss.base, h2_output.detach(), target, h1_output, **loss.options)
    right = labels.h2 == labels.target
    right = right.reshape(h2_output.shape) if alone else right.unsqueeze(1)
    return torch.where(right, plain.reshape(h2_output.shape), imitated.reshape(h2_output.shape).to(plain.dtype))


def _of_no_instances(step: Step, h2_output: Tensor) -> LossTerms:
    """The terms of a batch whose items were all left out, or are all padding: nothing, with a gradient of nothing."""
    if cast("Any", step.module)._trainer is not None:
        # The record is made all the same: merging it is something that all processes do together.
        binary = step.state.loss.base == "binary_cross_entropy"
        _record_for(step, 2 if binary else h2_output.shape[1], h2_output.device)
    nothing = h2_output[:0].sum()
    if step.state.loss.normalization == "support":
        # As is counting the support in training.
        _support_over_ranks(nothing.detach())
    step.used()
    return LossTerms(*[nothing] * 5)


def _check_rows_fit(step: Step, number: int, target: Tensor) -> None:
    """Stored rows are of the items as the loader brought them; what mixes or reorders a batch leaves them behind."""
    if step.brought is None:
        return
    given = [(asked.args, asked.kwargs) for asked in step.given_before(number)]
    changed = step.brought.changed(step.batch_before, tuple(given), target)
    if isinstance(changed, Tensor):
        flag = step.run.other_items
        step.run.other_items = changed if flag is None else flag | changed
    elif changed:
        raise ValueError(stored_of_others(step.state.stored))


def stored_of_others(name: str | None) -> str:
    """What is wrong with items for which no rows were brought, of h1 or of the teacher."""
    name = name or "h1"
    return (
        "The items or targets of a batch are not those that its loader brought, not all of them, or in another order: "
        "a hook or the step has mixed, replaced, left out or reordered them (mixup, cutmix, sorting), and "
        f"{name}'s stored outputs are for the items as the loader brought them. Give {name} itself, "
        f"{GIVE_ITSELF[name]}, or do it before the loader: in the data set or the sampler."
    )


# -- scores -----------------------------------------------------------------------------------------------------


def _class_axis(step: Step, number: int, scores: Tensor, target: Tensor) -> int:
    """Which axis of scores with more than two holds the classes: 1 or -1."""
    if scores.ndim <= 2 or step.state.loss.base == "binary_cross_entropy":
        return 1
    told = step.state.options.class_axis or step.run.class_axis
    axis = class_axis_of(scores, target, step.calls[number].output, told)
    if axis is not None:
        # Of sequences padded to the longest of a batch, a later one may be as long as there are classes.
        step.run.class_axis = axis
    else:
        axis = step.run.class_axis = None if step.watch is None else step.watch.class_axis(scores, step.roots[number])
    if axis is None:
        raise UnknownAxisError(says_ambiguous_axis(scores, target))
    return axis


def _classes_second(step: Step, scores: Tensor, output: Any, axis: int) -> Tensor:
    """Scores with the classes on axis 1, as log-probabilities where the base takes them."""
    want: Literal["logits", "log_probabilities"] = "log_probabilities" if step.state.loss.base == "nll" else "logits"
    if axis == -1:
        return scores_from_output(scores.movedim(-1, 1), want, "h2")
    if want == "logits":
        return scores
    return scores_from_output(scores if callable(step.state.options.scores) else output, want, "h2")


def _answer_of(
    step: Step,
    name: str,
    number: int,
    h2_output: Tensor,
    axis: int,
    resize: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """What h1 or who is imitated says, in h2's classes, on axis 1 as h2's now are, which were on `axis`."""
    reference = step.state.references[name]
    rows = step.rows if name == H1 else step.rows_beside.get(name)
    # Only a class map needs to know h2's classes; without one, differing shapes are told apart by the loss.
    classes = h2_output.shape[1] if reference.class_map is not None and h2_output.ndim > 1 else None
    if not reference.is_stored:
        answer = step.answers_to(number)[name]
    elif rows is None:
        raise ValueError(
            f"{name} is given as stored outputs, but the {step.stage} batch does not say which rows of them it is. "
            f"Wrap the data set that its loader reads: DataLoader(stored.attach(dataset), ...); another data set needs "
            f"stored outputs of its own, of the same model: store_outputs({'h1' if name == H1 else 'model'}, "
            f"val_set, ...).attach(val_set)."
        )
    else:
        answer = rows.to(h2_output.device, non_blocking=True)
    if resize is not None and answer.is_floating_point():
        answer = resize(answer)
    elif step.state.loss.base != "binary_cross_entropy" and _axis_of(step, name, answer, h2_output, axis) == -1:
        answer = answer.movedim(-1, 1)
    return reference.map_classes(answer, classes)


def _axis_of(step: Step, name: str, answer: Tensor, h2_output: Tensor, axis: int) -> int:
    """Which axis of what h1 or the teacher says holds the classes: as their shape says, here or in an earlier batch."""
    reference, run = step.state.references[name], step.run
    found = h1_class_axis(answer, h2_output) or run.h1_class_axes.get(name)
    if found is None and not (callable(reference.scores) or of_one_kind(reference.h1, step.network)):
        raise ValueError(says_ambiguous_h1(answer, axis))
    run.h1_class_axes[name] = found or axis
    return run.h1_class_axes[name]


def _check_blends(step: Step, h2_output: Tensor) -> None:
    """Once: whether blends read the scores of their models as the loss does."""
    if h2_output.ndim < 2 or h2_output.shape[1] == 1:
        return
    for name, reference in step.state.references.items():
        last = step.run.h1_class_axes.get(name) == -1 and h2_output.ndim > 2
        kind: Kind = "classes_last" if last else "classes"
        if step.state.loss.base == "binary_cross_entropy":
            kind = "labels"
        check_kind_of_blend(reference.fingerprint, kind, name)


def _check_kind_of_scores(state: Compatibility, h2_output: Tensor, who: str, h1_output: Tensor) -> None:
    """Once: a softmax of a softmax trains and logs plausible nonsense. One look, so one wait for the device at most."""
    if state.loss.base not in ("cross_entropy", "kl_divergence"):
        return
    if is_probabilities(h2_output):
        raise ValueError(
            "h2's scores are probabilities (every row lies in 0..1 and sums to 1), but the loss expects logits. Leave "
            "out the softmax, or say which submodule gives the logits: scores='name'."
        )
    name = who.removeprefix("the ").removesuffix(" h2")
    if DISSONANCES[state.loss.dissonance].reads == "logits" and h1_output.is_floating_point():
        gives_none = is_probabilities(h1_output) or (is_log_probabilities(h1_output) > is_log_probabilities(h2_output))
        if gives_none:
            raise ValueError(
                f"{who} gives probabilities or their logarithms, and h2 logits, whose distance dissonance="
                f"{state.loss.dissonance!r} would be: let it give its logits (h1_scores='name' of the submodule), or "
                f"take loss='focal_distillation', which compares probabilities (of h1's logarithms, too)."
            )
    if (not state.loss.labels_suffice or state.options.unlabelled is not None) and is_probabilities(h1_output):
        raise ValueError(
            f"{who} returned probabilities (every row lies in 0..1 and sums to 1), but the loss expects logits. Their "
            f"logarithm is as good: {name}=lambda *args: old_model(*args).clamp_min(1e-30).log()."
        )


def _watch_finite(step: Step, h2_output: Tensor, answers: dict[str, Tensor]) -> None:
    """Refuse NaN and inf: at once on the CPU; elsewhere remember the step, and look when it costs nothing."""
    run, module = step.run, cast("Any", step.module)
    number = module.global_step if module._trainer is not None else 0
    if h2_output.device.type == "cpu":
        where = f" at step {number} ({step.stage})"
        for name, answer in answers.items():
            check_finite(answer, name, where)
        check_finite(h2_output, "h2", where)
        return
    outputs = {H1: answers[H1], "h2": h2_output, **answers}
    run.watched = tuple(outputs)
    if run.first_bad is None or run.first_bad.device != h2_output.device:
        run.first_bad = torch.full((len(outputs),), -1, dtype=torch.long, device=h2_output.device)
    bad = torch.stack([~torch.isfinite(output.detach()).all() for output in outputs.values()])
    run.first_bad = torch.where((run.first_bad < 0) & bad, number, run.first_bad)


def raise_what_was_noticed(run: Run, stored: str | None = None) -> None:
    """Read the flags that steps have left on the device; waits for it, so only where the Trainer does anyway."""
    faults, run.faults = run.faults, {}
    for message, fault in faults.items():
        if bool(fault):
            raise ValueError(message)
    if run.other_items is not None:
        differs, run.other_items = bool(run.other_items), None
        if differs:
            raise ValueError(stored_of_others(stored))
    if run.first_bad is None:
        return
    steps, run.first_bad = run.first_bad.tolist(), None
    for model, step in zip(run.watched, steps, strict=True):
        if step >= 0:
            raise ValueError(
                f"{model} returned NaN or inf at step {step}. Expected finite scores: look for a diverged or "
                f"half-loaded {model}, or inputs that are already NaN."
            )


# -- records ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def _record(
    step: Step,
    h2_output: Tensor,
    target: Tensor,
    h1_output: Tensor,
    keep: int | None,
    terms: LossTerms,
    base: Tensor | None,
) -> None:
    if cast("Any", step.module)._trainer is None:
        return
    labels = labels_of(step.state.loss.base, h2_output, target, h1_output, **step.state.loss.options)
    record = _record_for(step, labels.num_classes, h2_output.device)
    epoch = step.run.epoch(step.stage)
    # The closure of LBFGS, or a manual step with two losses, asks several times about one batch; it counts once.
    if step.position.batch_idx is not None and epoch.recorded == step.position:
        return
    epoch.recorded = step.position
    record.add(labels.h2, labels.target, labels.h1, keep, terms.base if base is None else base, terms)
    instances, comparisons = epoch.instances.get(step.position.dataloader_idx), step.state.options.comparisons
    if instances is not None and comparisons is not None:
        size, trainer = len(labels.target), cast("Any", step.module).trainer
        loader = loader_of(trainer, step.stage, step.position.dataloader_idx)
        order = order_of(loader, trainer.world_size)
        ids = ids_of_batch(comparisons, step.batch_before, step.indices, step.source, order, instances, size)
        instances.add(labels, ids, _outputs(step.state, h1_output, h2_output, labels))


def _outputs(state: Compatibility, h1_output: Tensor, h2_output: Tensor, labels: Labels) -> Outputs:
    """What the models returned, to be asked how sure they are; h1 mapped to h2's classes is not."""
    binary, options = state.loss.base == "binary_cross_entropy", state.loss.options
    h1 = labels.h1 if state.reference.class_map is not None else h1_output
    return Outputs(h1, h2_output, binary, options.get("from_logits", True), options.get("threshold", 0.5))


def _record_for(step: Step, num_classes: int, device: torch.device) -> EpochRecord:
    state, epoch, key = step.state, step.run.epoch(step.stage), step.position.dataloader_idx
    if key not in epoch.records:
        # Not registered in the module: its state is of this epoch, not of the model.
        epoch.records[key] = EpochRecord(num_classes).to(device)
        comparisons = state.options.comparisons
        if comparisons is not None and step.stage != "train":
            # Told in the sanity check, before an epoch is spent.
            comparisons.check_classes(num_classes)
        if _compares(step, epoch):
            epoch.instances[key] = EpochInstances()
    return epoch.records[key]


def _compares(step: Step, epoch: Epoch) -> bool:
    """Whether the instances of this epoch are collected: not in training, and only where they will be written."""
    state, trainer = step.state, cast("Any", step.module).trainer
    comparisons = state.options.comparisons
    if comparisons is None or step.stage == "train":
        return False
    if comparisons.directory is None and not tensorboard_loggers(trainer):
        return False
    # Of validations in the midst of training only some; one that was asked for by itself always.
    return (
        trainer.state.fn != "fit" or trainer.sanity_checking or state.epochs_begun[step.stage] % comparisons.every == 0
    )


def _padding(step: Step, number: int, target: Tensor) -> int | None:
    """How many leading instances of this batch are no padding, or None where all are."""
    module, key, size = cast("Any", step.module), step.position.dataloader_idx, len(target)
    if module._trainer is None or module.trainer.world_size == 1:
        return None
    trainer, epoch = module.trainer, step.run.epoch(step.stage)
    position = step.position if step.position.batch_idx is not None else None
    parts = parts_of(trainer, step.stage, step.batch_before)
    if parts is None:
        return not_padding(loader_of(trainer, step.stage, key), epoch, position, key, size)
    # The part that h2 answered for has its target, or else its input.
    evidence = ([target], list(tensors_in((step.calls[number].args, step.calls[number].kwargs))))
    found = [part for tensors in evidence for part in parts if part.holds(tensors)]
    if found:
        return not_padding(found[0].loader, epoch, position, found[0].number, size)
    if not any(map(repeats_items, loaders_of(trainer, step.stage))):
        return None
    return _of_several_loaders(step, parts, position)


def _of_several_loaders(step: Step, parts: list[Part], position: Position | None) -> int | None:
    """The same where h2 answered for items of several loaders at once, or it is not known of which."""
    said = (
        f"{class_of(step.module)}'s {step.stage} step calls h2 with items of several loaders, and DistributedSampler "
        f"repeats items where a data set is no multiple of the processes; which of h2's answers are for these is not "
        f"known"
    )
    remedy = "Make the lengths of the data sets multiples of the processes, or train and evaluate with one device."
    if step.stage != "train":
        raise ValueError(f"{said}, so they would be counted twice. {remedy}")
    if "padding" not in step.run.unnamed:
        step.run.unnamed.add("padding")
        # Said on every process at its first batch, so also where none of its own is repeated.
        what = "batches with such items are left out of" if parts else "such items are counted twice in"
        rank_zero_warn(f"{said}: {what} the training's scores. {remedy}")
    epoch = step.run.epoch(step.stage)
    kept = [not_padding(part.loader, epoch, position, part.number, part.size) for part in parts]
    return 0 if any(each is not None for each in kept) else None
