"""Steps that optimise by hand: which of their losses is penalised, and batches that train something else than h2."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from bc_lightning._user_module import class_of
from bc_lightning.training.step._penalty import has_calls_left
from bc_lightning.training.step._refused_steps import captures_message, found_at_times_message, no_penalty_message
from bc_lightning.training.step._step import Step
from bc_lightning.training.watching._compiling import eager
from bc_lightning.training.watching._tensors import has_label_loss, leads_to, parameters_behind


@eager
def penalised_by_hand(step: Step, loss: Tensor, with_penalty: Callable[[Step, Tensor], Tensor]) -> Tensor:
    """The loss of a step that optimises by hand: of several that the scores lead to, the one of labels is penalised."""
    for scores, of_labels in step.penalised:
        if leads_to(scores, loss) and not (of_labels and not has_label_loss(loss, scores)):
            raise RuntimeError(
                f"{class_of(step.module)}.training_step calls self.manual_backward for two losses that both come from "
                f"the scores of h2, and it can't be told which of them is to be penalised. Call it once for their "
                f"sum, self.manual_backward(one + other), or give the other one h2's output detached."
            )
    if not step.calls and not find_scores(step, loss):
        if step.modules is not None:
            step.modules.check_found_first(loss)
        if not step.captured:
            step.trained_unseen |= _trains_scores(step, loss)
        return loss
    number = step.counted()
    scores = step.scores_of(step.calls[number])
    if step.compiled:
        return with_penalty(step, loss)
    if not leads_to(scores, loss):
        return loss
    seen = [] if step.watch is None else step.watch.losses_of(step.roots[number])
    labelled = [each.value for each in seen if isinstance(each.value, Tensor) and each.value.requires_grad]
    of_labels = any(leads_to(value, loss) for value in labelled)
    if labelled and not of_labels:
        # The loss of the labels was computed, and its turn is yet to come.
        return loss
    step.penalised.append((scores, of_labels))
    if step.run.behind_scores is None:
        step.run.behind_scores = parameters_behind(scores)
    return with_penalty(step, loss)


def _trains_scores(step: Step, loss: Tensor) -> bool:
    """Whether a loss trains all that the scores are computed from, as by a call of h2 that can't be seen."""
    behind = step.run.behind_scores
    if behind is None:
        giving = step.module.get_submodule(step.scores) if isinstance(step.scores, str) else step.module
        behind = {id(each) for each in giving.parameters() if each.requires_grad}
    return bool(behind) and behind <= parameters_behind(loss)


def find_scores(step: Step, loss: Tensor | None = None) -> bool:
    """On a first batch: whether the submodule that gives the scores could be found in what the step did."""
    if step.captured or step.scores is not None or step.modules is None:
        return False
    return step.modules.find(loss) is not None


def check_by_hand(step: Step) -> None:
    """Look, when such a step has ended, whether what it called h2 for was penalised.

    A batch that trains something else has no scores.

    Raises:
        RuntimeError: it was not, or it can't be told what the scores are.
    """
    if step.modules is not None:
        step.modules.check_found_first()
    if not step.captured and (step.trained_unseen or step.compiled):
        raise RuntimeError(captures_message(step.module, step.stage, step.scores, len(step.calls)))
    if has_calls_left(step):
        raise RuntimeError(no_penalty_message(step.module))
    if not step.captured and step.found is not None and step.state.options.scores is None:
        raise RuntimeError(found_at_times_message(step.module, step.found.scores))
