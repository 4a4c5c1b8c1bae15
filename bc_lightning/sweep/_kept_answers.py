"""Whether h1's kept outputs are its answer to what a training step gives h2: seen once, in the first batch."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from bc_lightning._user_module import only_network
from bc_lightning.batches._model_outputs import inputs_from_batch
from bc_lightning.reference._reference import Reference
from bc_lightning.training._state import compatibilities_of

# h1's kept scores may differ from its answer on another device or in another precision by this much of their size.
_SAME_ANSWER = 1e-2


class OtherInputsError(ValueError):
    """h2 is given something else than the items that h1's outputs were kept for."""


def check_of(package: Any, reference: Reference, inputs: Any) -> Any:
    """A callback that asks h1 once about what h2 was given, and compares with what was kept: a step may augment.

    Its `is_over` says that it has seen them alike.
    """

    class Check(package.Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.is_over = False
            self.given: list[tuple[Any, Any]] = []

        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
            if self.is_over or self.given:
                return

            def noting(step: Any, args: Any, kwargs: Any) -> None:
                if step.stage == "train" and not self.given:
                    self.given.append((args, kwargs))

            compatibilities_of(module)[0].notice = noting

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if self.is_over or not self.given:
                return
            state = compatibilities_of(module)[0]
            state.notice, stored = None, state.run.incoming.rows
            args, kwargs = self.given.pop()
            inner = isinstance(state.scores, str) and inputs is None
            if stored is not None and not (inner and only_network(_unwrapped_view(module)) != state.scores):
                rows = reference.map_classes(stored, None) if reference.class_map is None else stored
                if inputs is not None:
                    args, kwargs = (inputs_from_batch(batch, inputs),), {}
                answer = reference.ask(args, kwargs).to(rows.device)
                if answer.shape != rows.shape or not _close(answer, rows):
                    raise OtherInputsError(
                        "h1's answer to what the training step gives h2 is not the one kept for the same items of the "
                        "data set: the step or a transfer hook changes the batch (augmentation, mixup)."
                    )
            self.is_over = True

    return Check()


def _close(answer: Tensor, rows: Tensor) -> bool:
    if not answer.is_floating_point():
        return bool((answer == rows).all())
    answer, rows = answer.double(), rows.double()
    scale = rows.abs().max().clamp_min(1e-6)
    return bool((answer - rows).abs().max() <= _SAME_ANSWER * scale)


def _unwrapped_view(module: Any) -> Any:
    """The module seen as its user's class, without unwrapping it."""
    view = object.__new__(module._user_class)
    view.__dict__ = module.__dict__
    return view
