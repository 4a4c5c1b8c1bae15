"""What a batch brings beside itself: stored rows of h1 and of who is imitated, each told by its fingerprint."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, cast

from torch import Tensor

from bc_core.losses._blends import H1, TEACHER
from bc_core.reference._callable_fingerprint import is_same_h1
from bc_lightning.batches._model_outputs import target_from_batch
from bc_lightning.training._state import Compatibility, Incoming, Options
from bc_lightning.training.watching._moved_rows import AsBrought


def check_same_imitated(entry: Mapping[str, Any], options: Options) -> None:
    """Refuse to resume a training with another teacher, or plain h2, than it was started with."""
    for name, called, reference in (("teacher", "teacher", options.teacher), ("plain", "plain h2", options.plain)):
        saved, given = entry.get(f"{name}_fingerprint"), None if reference is None else reference.fingerprint
        if saved != given and (None in (saved, given) or not is_same_h1(str(saved), str(given))):
            raise ValueError(
                f"This checkpoint was trained with another {called}: its fingerprint is {saved}, that of the {called} "
                f"given here is {given}. Resume with the {called} it was started with, or start a new training from "
                f"its weights: load_state_dict(checkpoint['state_dict'])."
            )


def _rows_of(name: str, reference: Any, brought: Any) -> Tensor | None:
    """What a batch brought of h1 or of who is imitated, where its outputs are stored."""
    if not reference.is_stored:
        return None
    found = brought.of(reference.fingerprint)
    if is_same_h1(found.fingerprint, reference.fingerprint):
        return cast("Tensor", found.rows)
    if name == H1:
        raise ValueError(
            f"A batch brings stored outputs of another h1: their fingerprint is {brought.fingerprint}, that of the h1 "
            f"given here is {reference.fingerprint}. Attach outputs of one and the same h1."
        )
    option = "teacher" if name == TEACHER else "plain"
    raise ValueError(
        f"A batch brings stored outputs, and none of {name} given here: their fingerprint is {brought.fingerprint}, "
        f"that of {name} is {reference.fingerprint}. Attach its outputs too, h1.attach(dataset, {option}={option}), or "
        f"{option}.attach(dataset) where h1 is asked itself."
    )


def incoming(state: Compatibility, batch: Any, brought: Any) -> Incoming:
    """What was brought, for the step that the batch goes to."""
    rows = {name: _rows_of(name, reference, brought) for name, reference in state.references.items()}
    source = " ".join(sorted(brought.sources))
    if state.stored is None:
        return Incoming(None, brought.indices, source)
    target = None
    with suppress(TypeError, ValueError):
        target = target_from_batch(batch, state.options.target)
    as_brought = AsBrought(batch, target, brought.indices.numel())
    return Incoming(rows.pop(H1), brought.indices, source, as_brought, rows)
