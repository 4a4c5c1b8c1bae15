"""What makes a `BCModel` of a model: arguments are checked, and its class is changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from bc_core.losses._blends import PLAIN, TEACHER, told_of
from bc_core.losses._mixtures import BATCH_SIZE, LABELS, WEIGHT, check_beside_unlabelled
from bc_core.reference._weights import check_start_from
from bc_keras.losses._losses import ModelLoss
from bc_keras.reference._reference import Reference
from bc_keras.training._made_class import forget_functions, made_class
from bc_keras.training._state import Compatibility, Compiled, compatibility_of, options_of
from bc_keras.training._warm_start import started
from bc_keras.training.promise._promise import Promised, take_promise
from bc_keras.training.step._checks import check_beside, check_h2, check_imitated, imitated_reference, unlabelled_of


def wrap(
    door: Any,
    h2: Any,
    h1: Any,
    *args: Any,
    name: str | None = None,
    class_map: Sequence[Any] | Mapping[str, Any] | None = None,
    teacher: Any = None,
    plain: Any = None,
    unlabelled: Any = None,
    unlabelled_weight: float = WEIGHT,
    unlabelled_batch_size: int = BATCH_SIZE,
    mixed_labels: float = LABELS,
    **kwargs: Any,
) -> Any:
    """Make `h2` an instance of a class made from `door` and its own."""
    if not isinstance(h2, keras.Model):
        raise TypeError(f"h2 must be a Keras model, the one that is being updated. Received: h2={h2!r}.")
    if h1 is None:
        raise TypeError("h1 is missing: pass the model in use, BCModel(h2, h1=old_model). Received: h1=None.")
    check_beside_unlabelled(unlabelled, unlabelled_weight, mixed_labels, unlabelled_batch_size)
    starts = check_start_from(kwargs.pop("start_from", None))
    promised, args, kwargs = take_promise(args, kwargs, compatibility_of(h2))
    options = options_of(door, *args, **kwargs)
    if promised is not None:
        _check_goes_on(promised, compatibility_of(h2), options.dissonance_name)
        promised.weigh(options.dissonance_name)
        options = dataclasses.replace(options, lambda_c=promised.keeper.lambda_c)
    of_loss = options.loss.reference.class_map if isinstance(options.loss, ModelLoss) else None
    reference = Reference.of(h1, of_loss if class_map is None and not isinstance(h1, Reference) else class_map)
    h1 = reference.h1
    taught, unheld = imitated_reference(teacher, options, TEACHER), imitated_reference(plain, options, PLAIN)
    for each in (taught or reference, unheld):
        if each is not None:
            check_imitated(options, each)
    how = (unlabelled_weight, unlabelled_batch_size, mixed_labels)
    beyond = unlabelled_of(unlabelled, *how, taught or reference)
    before = type(h2)
    user_class = before if (held := compatibility_of(h2)) is None else held.user_class
    object.__setattr__(h2, "__class__", user_class)
    try:
        for taken in ("lambda_c", "dissonance", *(("promise",) if promised is not None else ())):
            if hasattr(h2, taken):
                raise TypeError(f"h2 has an attribute {taken!r}, which a BCModel needs: name it otherwise.")
        check_h2(h2, has_loss=options.criterion is not None)
        check_beside(h1, h2)
        for who, each in ((TEACHER, taught), (PLAIN, unheld)):
            if each is not None:
                with told_of(who):
                    check_beside(each.h1, h2)
        compiled = Compiled.of(h2, options)
        if starts:
            started(h2, reference)
    except Exception:
        object.__setattr__(h2, "__class__", before)
        raise
    if name is not None:
        h2.name = name
    # Beside what Keras tracks, saves and counts.
    held_to = Compatibility(reference, options, user_class, compiled, promised, taught, unheld, beyond)
    h2.__dict__["_compatibility"] = held_to
    object.__setattr__(h2, "__class__", made_class(door, user_class))
    forget_functions(h2)
    return h2


def _check_goes_on(promised: Promised, before: Compatibility | None, dissonance: str) -> None:
    """Refuse to take up a training by another dissonance, of which its lambda_c is not the weight."""
    if before is not None and promised.keeper.steps is not None and before.options.dissonance_name != dissonance:
        raise ValueError(
            f"The training that is taken up was held to its promise by dissonance={before.options.dissonance_name!r}: "
            f"say it again, or begin anew with BCModel(unwrap(model), ...). Received: dissonance={dissonance!r}."
        )
