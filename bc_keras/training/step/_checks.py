"""What is refused before a training begins, where a compiled step would go wrong without a word."""

from __future__ import annotations

from types import CodeType, FunctionType
from typing import Any

import keras
import numpy as np
from keras import ops

from bc_core.losses._blends import check_imitates, check_scale_of_blend
from bc_core.losses._mixtures import MIXED
from bc_core.losses._options import check_known_scores, check_scale, known
from bc_keras.batches._labels import check_is_classification
from bc_keras.reference._blend import Blend
from bc_keras.reference._reference import Reference
from bc_keras.reference._shared_variables import check_no_shared_variables
from bc_keras.training._preparation import check_same_preparation, has_own
from bc_keras.training._state import Compatibility, Options
from bc_keras.training.beside._unlabelled import Mixtures, Unlabelled
from bc_keras.training.compiled._compiled_loss import BaseLoss
from bc_keras.training.compiled._score_scale import Seen, check_scales
from bc_keras.training.step._penalty import check_rows, reading_by, target_and_stored

_STEPS = ("train_step", "test_step")
# What a step calls, directly or by Keras's own step, so that the penalty is a part of its loss.
_LEAD_TO_THE_LOSS = {"compute_loss", "_compute_loss", "compute_loss_and_updates", "stateless_compute_loss"}

HOW_TO_STEP = (
    "take the loss from self.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True), which "
    "adds the penalty; on JAX from self.compute_loss_and_updates, as Keras's own step does"
)


# The models


def check_h2(h2: keras.Model, has_loss: bool) -> None:
    """Refuse an h2 whose own methods would leave the penalty out, or feed it other inputs than it serves."""
    for name in (*_STEPS, "compute_loss", "compute_metrics", "make_train_function"):
        if name in vars(h2):
            raise TypeError(
                f"h2 has a {name} of its own on the instance, where it would bypass the penalty: define it in the "
                f"class. Received: {type(h2).__name__}."
            )
    for name in _STEPS:
        if has_own(type(h2), name) and not _mentions(h2, _LEAD_TO_THE_LOSS | {name}):
            raise TypeError(
                f"h2 has a {name} of its own that takes its loss from elsewhere, so the penalty would be left out: "
                f"{HOW_TO_STEP}. Received: {type(h2).__name__}."
            )
    if has_own(type(h2), "compute_loss") and not (has_loss or _mentions(h2, {"compute_loss"})):
        raise TypeError(
            "h2 has a compute_loss of its own without super().compute_loss(...), so the compiled loss is not what it "
            "trains on and cannot be repeated where h1 is right: call it, or name the dissonance, "
            f"BCModel(h2, h1=h1, loss='BCCrossEntropyLoss'). Received: {type(h2).__name__}."
        )
    if has_own(type(h2), "fit") and has_own(type(h2), "predict") and not has_own(type(h2), "evaluate"):
        raise TypeError(
            "h2 has a fit and a predict of its own, and Keras's evaluate: if they prepare the inputs, evaluate would "
            "measure others than are served. Define evaluate in its class alike, or prepare the inputs before fit "
            f"and in call. Received: {type(h2).__name__}."
        )


def imitated_reference(model: Any, options: Options, who: str) -> Reference | None:
    """The teacher, or the plain h2, where one was given: what is imitated in place of h1, or where h2 is right."""
    if model is None:
        return None
    check_imitates(options.dissonance_name, who)
    return Reference.of(model)


def check_imitated(options: Options, imitated: Reference) -> None:
    """Refuse a model of which the dissonance needs to know more than is kept, or logits on another scale."""
    check_scale(options.dissonance_name, imitated.class_map)
    check_known_scores(options.dissonance_name, bool(getattr(imitated.h1, "labels_only", False)))
    if imitated.blend_name:
        check_scale_of_blend(options.dissonance_name, imitated.blend_name)


def unlabelled_of(
    x: Any, weight: float, batch_size: int, labels: float, imitated: Reference
) -> Unlabelled | Mixtures | None:
    """The unlabelled inputs, if there are any, and an answer to them."""
    if x is None:
        return None
    if isinstance(x, str):
        known(x, (MIXED,), "unlabelled")
    if imitated.stored is not None:
        kind = "mixed" if isinstance(x, str) else "unlabelled"
        raise ValueError(
            f"Stored outputs hold no answer to {kind} inputs: pass the model itself as h1, or as the teacher of a "
            f"dissonance that imitates. Received: {imitated.stored!r}."
        )
    if getattr(imitated.h1, "labels_only", False):
        raise ValueError(
            "h1 is known by its predicted labels only, and on unlabelled inputs its probabilities are imitated: pass a "
            "model of scores, or such a teacher."
        )
    unlabelled = Mixtures(weight, labels) if isinstance(x, str) else Unlabelled(x, weight, batch_size)
    unlabelled.make_variables()
    return unlabelled


def check_beside(h1: Any, h2: keras.Model) -> None:
    """Refuse a model, or a member of a blend, that cannot be asked beside h2."""
    for each in [member.h1 for member in h1.members] if isinstance(h1, Blend) else [h1]:
        check_same_preparation(each, h2)
        check_no_shared_variables(each, h2)


def _mentions(model: Any, names: set[str]) -> bool:
    """Whether code of the model's own classes, or a function that it calls, reads one of these attributes."""
    own = [cls for cls in type(model).__mro__ if not cls.__module__.startswith(("keras.", "torch.", "tensorflow."))]
    seen: set[CodeType] = set()
    for function in [value for cls in own for value in vars(cls).values()]:
        _gather(getattr(function, "__wrapped__", function), seen)
    return any(names.intersection(code.co_names) for code in seen)


def _gather(function: Any, seen: set[CodeType]) -> None:
    """The code of a function, of those within it, and of those of its module that it names."""
    code = getattr(function, "__code__", None)
    if code is None or code in seen:
        return
    found = [code]
    for each in found:
        seen.add(each)
        found += [constant for constant in each.co_consts if isinstance(constant, CodeType) and constant not in seen]
    for name in {name for each in found for name in each.co_names}:
        called = function.__globals__.get(name)
        if isinstance(called, FunctionType):
            _gather(called, seen)


# The data


def check_data(model: Any, state: Compatibility, x: Any, y: Any = None) -> bool:
    """Refuse data without instances, and labels that h2 has no score for; JAX and XLA would train on without a word.

    Returns:
        Whether all labels were seen to be classes of h2.
    """
    if is_empty(x if y is None else y):
        raise ValueError(
            "The data must hold at least one instance: look at what has selected them. Received: none, in "
            f"{f'x={type(x).__name__}' if y is None else f'y of shape {np.shape(y)}'}."
        )
    try:
        shape = model.output_shape
        classes = shape[-1] if len(shape) > 1 else 1
    except (AttributeError, ValueError, TypeError):
        return False  # a subclassed h2 that was not called yet
    if not isinstance(y, np.ndarray) or y.dtype.kind not in "iuf" or classes is None:
        return False
    if state.has_stored:
        # Here already: on TensorFlow a step that failed while it was traced cannot be traced again.
        target_and_stored(state.references, y, np.empty((1, *[1] * (len(shape) - 2), classes)))
        return False
    facts = state.compiled.facts
    multilabel = state.compiled.multilabel
    check_is_classification(y, shape, facts.is_distance, state.trains_labels if multilabel is None else multilabel)
    if facts.binary and facts.from_keras and not (y.min() >= 0 and y.max() <= 1):
        raise ValueError(f"Binary targets must lie in 0..1. Received: values from {y.min()} to {y.max()}.")
    if not facts.sparse or not (y.ndim == len(shape) - 1 or y.shape[-1] == 1):
        # A loss of the user's own may have its own marks.
        return facts.from_keras and (facts.binary or facts.sparse is False) and bool(np.isfinite(y).all())
    outside = (y < 0) | (y >= classes) | (y != np.rint(y))
    if facts.ignore_class is not None:
        outside &= y != facts.ignore_class
    if outside.any():
        raise ValueError(
            f"The target must hold class indices in 0..{classes - 1}, the classes that h2 scores. Received: "
            f"label {y[outside][0]} at index {int(np.argwhere(outside)[0][0])}."
        )
    return True


def is_empty(data: Any) -> bool:
    """Whether it is known that labels, or data that come as batches, hold nothing."""
    if hasattr(data, "shape"):
        return tuple(data.shape)[:1] == (0,)
    try:
        is_sized = hasattr(data, "__iter__") or isinstance(data, keras.utils.PyDataset)
        return is_sized and len(data) == 0
    except TypeError:
        return False  # a stream, or one that does not know its length


def check_own_loss(model: Any, state: Compatibility) -> None:
    """Refuse a loss of the user's own that is small where the score of the true class is: a distance, an energy.

    It is tried on made-up scores, as both models are read by their largest one.
    """
    base, facts = state.compiled.base, state.compiled.facts
    if facts.from_keras or facts.is_distance or not callable(base) or isinstance(base, BaseLoss):
        return
    try:
        classes = int(model.output_shape[-1])
        said = np.arange(classes)
        scores = np.full((classes, classes), 0.2 / classes, "float32")
        scores[said, said] = 0.8 + 0.2 / classes
    except (AttributeError, ValueError, TypeError, IndexError):
        return  # a subclassed h2 that was not called yet
    if classes < 2 or len(model.output_shape) != 2:
        return
    for form in (said, np.eye(classes, dtype="float32")):
        try:
            right, wrong = (
                float(np.mean(ops.convert_to_numpy(base(ops.convert_to_tensor(each), ops.convert_to_tensor(scores)))))
                for each in (form, np.roll(form, 1, axis=0))
            )
        except Exception:
            continue  # it takes another form of target
        if right > wrong:
            raise ValueError(
                "The compiled loss, which is your own, is larger where the score of the true class is the largest "
                "(distances or energies, for one), and both models are read by their largest score. Let the model end "
                "in scores of the classes: negate in a last layer of h1 and h2 instead of in the loss. Received: "
                f"loss={base!r}."
            )
        return


def check_h1_answers(state: Compatibility, x: Any, batch_size: int) -> None:
    """Ask h1 about a batch first: inside the compiled step nobody looks at its values."""
    if not isinstance(x, np.ndarray) or not len(x) or state.reference.stored is not None:
        return
    if any(getattr(layer, "stateful", False) for layer in keras.tree.flatten(getattr(state.h1, "layers", []))):
        return  # being asked would change its state
    try:
        first = ops.convert_to_tensor(x[:batch_size], dtype=keras.config.floatx() if x.dtype.kind == "f" else None)
        answer = ops.convert_to_numpy(state.reference(first))
    except Exception:
        return  # not to be asked outside the compiled step; there it will answer, or say why not
    check_rows(answer, first)
    if answer.dtype.kind != "f":
        return
    if not np.isfinite(answer).all():
        raise ValueError(
            "h1 must give finite scores: look for a half-loaded h1, or inputs that are NaN. Received: "
            f"{'NaN' if np.isnan(answer).any() else 'infinity'} for one of the first {len(answer)} instances."
        )
    try:
        output = np.empty((1, 1) if answer.ndim == 1 else (1, *answer.shape[1:]))
        reading = reading_by(state, output)
    except ValueError:
        return  # the step will say so, with h2's output at hand
    check_scales(reading, Seen.of(answer))
