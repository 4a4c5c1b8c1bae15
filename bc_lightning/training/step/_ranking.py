"""Whether the scores that a loss is given rank the classes as h2's output does, by which h2 is measured and held to h1.

A loss may be given h2's output negated (distances, energies), in another order of its rows or columns, mixed, or put
through a head of its own: then the output is not what predicts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bc_lightning._user_module import class_of
from bc_lightning.training.step._step import Step
from bc_lightning.training.watching._loss_watch import SeenLoss


def check_ranking(step: Step, seen: list[SeenLoss], scores: Tensor) -> None:
    """Refuse, on a stage's first batch, scores by which the step's losses rank the classes otherwise.

    Reads values, so it waits for an accelerator.

    Raises:
        ValueError: no loss agrees with them, and the user did not say what the scores are.
    """
    if not step.first or step.state.options.scores is not None or step.compiled:
        return
    alike = [loss for loss in seen if loss.input.numel() == scores.numel() and loss.input.is_floating_point()]
    ranks = _ranks_entries if step.state.loss.base == "binary_cross_entropy" else _ranks_classes
    if not alike or len(scores) == 0 or any(ranks(scores.detach(), loss) for loss in alike):
        return
    raise ValueError(
        f"{class_of(step.module)}'s {step.stage} step computes its loss from scores that rank the classes otherwise "
        f"than h2's output of shape {tuple(scores.shape)} does: it was negated (distances, energies), its rows or "
        f"columns were reordered or mixed, or they went through a head of its own. Say by which scores h2 predicts, "
        f"scores=lambda output: -output for distances, scores=lambda output: output if they are what forward returns. "
        f"Rows must be in the order of the batch: put them back where forward returns them."
    )


def _ranks_classes(scores: Tensor, loss: SeenLoss) -> bool:
    """Whether the class of the largest score is that of the loss's input, for every instance."""
    given = loss.input.detach()
    rows = _rows_of_classes(scores, given)
    if rows is None:
        return True
    ours, theirs = rows
    kept = torch.isfinite(ours).all(-1) & ~torch.isnan(theirs).any(-1)
    ours, theirs = ours[kept], theirs[kept]
    if not len(ours):
        return True
    slack = _slack(given)
    agree = _largest_agrees(ours, theirs, slack)
    target = loss.target.detach().flatten()
    if ours.shape[1] > 2 and len(target) == len(kept) and not target.is_floating_point():
        # A margin is taken from the score of the true class alone.
        own = torch.nn.functional.one_hot(target[kept].clamp(0, ours.shape[1] - 1).long(), ours.shape[1]).bool()
        agree |= _largest_agrees(ours.masked_fill(own, -torch.inf), theirs.masked_fill(own, -torch.inf), slack)
    if bool(agree.all()):
        return True
    # A prior of the classes, added to each instance alike: h2 predicts without it.
    prior = theirs - ours
    return len(prior) > 1 and bool(((prior - prior[:1]).abs() <= slack * 10).all())


def _rows_of_classes(scores: Tensor, given: Tensor) -> tuple[Tensor, Tensor] | None:
    """Both as (places, classes) in one order, as torch's losses take them; None where the axis can't be told."""
    if given.ndim < 2 or scores.ndim < 2:
        return None
    first, last = scores.movedim(1, -1).flatten(0, -2), scores.flatten(0, -2)
    theirs = given.movedim(1, -1).flatten(0, -2)
    if scores.ndim == 2:
        return (scores.double(), theirs.double()) if given.shape == scores.shape else None
    if given.ndim == 2:
        fitting = [ours for ours in (first, last) if ours.shape == given.shape]
    else:
        forms = ((first, scores.shape), (last, scores.movedim(-1, 1).shape))
        fitting = [ours for ours, shape in forms if shape == given.shape]
    return (fitting[0].double(), theirs.double()) if len(fitting) == 1 else None


def _largest_agrees(ours: Tensor, theirs: Tensor, slack: float) -> Tensor:
    return theirs.gather(-1, ours.argmax(-1, keepdim=True)).squeeze(-1) >= theirs.max(-1).values - slack


def _ranks_entries(scores: Tensor, loss: SeenLoss) -> bool:
    """Whether the loss's input grows with the scores, in each column."""
    given = loss.input.detach()
    ours, theirs = (each.double().reshape(len(scores), -1) for each in (scores, given))
    sorted_theirs = theirs.gather(0, ours.argsort(dim=0, stable=True))
    return bool((sorted_theirs.diff(dim=0) >= -_slack(given)).all())


def _slack(given: Tensor) -> float:
    """What rounding may do to a score."""
    finite = given[torch.isfinite(given)]
    largest = float(finite.abs().max()) if finite.numel() else 0.0
    return 8 * torch.finfo(given.dtype).eps * max(largest, 1e-3)
