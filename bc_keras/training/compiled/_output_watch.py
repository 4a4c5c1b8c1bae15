"""Whether the outputs of a training are what they are taken for: noted inside the compiled step, looked at outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from bc_keras.batches._labels import (
    ROUNDING,
    are_labels,
    has_rows,
    is_float,
    rows_of_several,
    says_no_classifier,
    says_several_classes,
)
from bc_keras.losses._distribution import num_replicas
from bc_keras.training.compiled._compile_arguments import takes
from bc_keras.training.compiled._compiled_loss import Reading
from bc_keras.training.compiled._score_scale import Seen, check_scales

# A look waits for the step, so it is taken after the first batch, after so many, and at the end of the epoch.
_EVERY = 100


class OutputWatch(keras.metrics.Metric):
    """Notes on h1's and h2's outputs that no step waits for; nothing of it is logged or saved.

    Sums of what each step saw, float32. `steps`: all of them, those before the first NaN or infinity of h1, and of h2,
    and those with rows of several labels that are read as one class.
    `scales`: steps in which h1's scores left 0..1, in which its rows did not sum to 1, the number of h1's scores, steps
    in which h2's scores left 0..1, and steps with targets of a regression.
    """

    def __init__(self, name: str, consequence: str) -> None:
        super().__init__(name=name)
        self.consequence = consequence
        self.steps = self.add_variable((4,), "zeros", dtype="float32", name="steps")
        self.scales = self.add_variable((5,), "zeros", dtype="float32", name="scales")
        self._reading: Reading | None = None
        self._replicas = 1
        self._who = "h1"
        self._has_looked = False

    def note(
        self, target: Any, h1_output: Any, h2_output: Any, reading: Reading, is_live: bool, taught: Any = None
    ) -> None:
        """Note what a batch shows, inside or outside a compiled step.

        Args:
            target: labels of the batch.
            h1_output: h1's scores or labels.
            h2_output: h2's scores.
            reading: how they are read.
            is_live: whether h1 was asked now; rows that came with the labels hold NaN where there is no prediction.
            taught: scores of the teacher.
        """
        self._reading, self._replicas = reading, num_replicas()
        h1_output, h2_output = (ops.stop_gradient(each) for each in (h1_output, h2_output))
        before, notes = self.steps.value, [ops.ones((), "float32")]
        if taught is not None:
            self._who = "h1 or the teacher"
        of_h1 = ([h1_output] if is_live and is_float(h1_output) else []) + ([] if taught is None else [taught])
        for number, outputs in enumerate((of_h1, [h2_output] if is_float(h2_output) else []), 1):
            is_clean = before[0] == before[number]
            for output in outputs:
                is_clean = ops.logical_and(is_clean, ops.all(ops.isfinite(output)))
            notes.append(ops.cast(is_clean, "float32"))
        target = ops.cast(target, "float32")
        is_row = has_rows(target, tuple(h2_output.shape)) and not reading.multilabel
        several = ops.any(rows_of_several(target, ops)) if is_row else False
        self.steps.assign_add(ops.stack([*notes, ops.cast(several, "float32")]))
        if not self._is_settled():
            self._note_scales(target, h1_output, h2_output, reading)

    def _note_scales(self, target: Any, h1_output: Any, h2_output: Any, reading: Reading) -> None:
        notes = [ops.zeros((), "float32")] * 5
        if reading.h1_scale_matters and is_float(h1_output):
            notes[:3] = _notes_on(h1_output)
        if reading.h2_scale_matters:
            notes[3] = _notes_on(h2_output)[0]
        are_classes = are_labels(target, tuple(h2_output.shape), reading.is_distance, ops)
        notes[4] = 1 - ops.cast(are_classes, "float32")
        self.scales.assign_add(ops.stack(notes))

    def _is_settled(self) -> bool:
        """Whether what scores are was looked at: eager steps leave it out then, compiled ones do it in passing."""
        if keras.backend.backend() != "torch":
            return False
        import torch

        return not torch.compiler.is_compiling() and self._has_looked

    def update_state(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the model notes what it sees itself."""

    def result(self) -> dict[str, Any]:
        """Nothing to log."""
        return {}

    def reset_state(self) -> None:
        """Nothing: Keras resets metrics at the beginning of every epoch and validation."""

    def forget(self) -> None:
        """Begin anew."""
        for variable in (self.steps, self.scales):
            variable.assign(ops.zeros(variable.shape, "float32"))
        self._has_looked = False

    def look(self) -> None:
        """Wait for the last step, and refuse what was seen since `forget`.

        Raises:
            ValueError: h1 or h2 gave NaN or infinity, or scores that cannot be what they are read as; labels that no
                classifier has, or several of them in a row that is read as one class.
        """
        if self._reading is None:
            return
        steps, *clean, several = ops.convert_to_numpy(self.steps).tolist()
        h1_outside, no_sums, entries, h2_outside, numbers = ops.convert_to_numpy(self.scales).tolist()
        self._has_looked = True
        try:
            if numbers:
                raise says_no_classifier("that are neither classes nor shares of classes, in one of the batches")
            if several:
                raise says_several_classes(f"such rows in {int(several)} of {int(steps)} batches")
            for model, clean_steps in zip(("h1", "h2"), clean, strict=True):
                if clean_steps < steps:
                    self._refuse(model, int(steps), int(clean_steps))
            h1 = Seen(int(entries), h1_outside > 0, entries > 0 and not (h1_outside or no_sums), _told(h1_outside))
            check_scales(self._reading, h1, Seen(int(entries), h2_outside > 0, False, _told(h2_outside)))
        except ValueError:
            self.forget()
            raise

    def _refuse(self, model: str, steps: int, clean: int) -> None:
        who = self._who if model == "h1" else model
        when = f"first in step {clean + 1} of {steps}" if self._replicas == 1 else "in one of the steps"
        causes = {
            "h1": "for inputs that h1 cannot take, such as NaN or a row of nothing",
            "h2": "for a diverged or half-loaded h2 (take a smaller learning rate), for inputs that are NaN",
        }
        raise ValueError(
            f"{who} must give finite scores, and has given NaN or infinity, {self.consequence}: look "
            f"{causes[model]}, and for half precision that overflows. Received: NaN or infinity from {who}, {when}."
        )

    def save_own_variables(self, store: Any) -> None:
        """Nothing to save."""

    def load_own_variables(self, store: Any) -> None:
        """Nothing to load."""


def _notes_on(scores: Any) -> tuple[Any, Any, Any]:
    """Whether scores leave 0..1, whether rows do not sum to 1, and how many they are; NaN counts for neither."""
    scores = ops.cast(scores, "float32")
    outside = ops.any(ops.logical_or(scores < -ROUNDING, scores > 1 + ROUNDING))
    sums = ops.any(ops.abs(ops.sum(scores, axis=-1) - 1) > ROUNDING)
    notes = outside, sums, ops.size(scores)
    return tuple(ops.cast(each, "float32") for each in notes)


def _told(outside: float) -> str:
    return "values outside of 0..1" if outside else "values in 0..1"


class Looking(keras.callbacks.Callback):
    """Looks at what the steps have noted."""

    def __init__(self, training: OutputWatch, testing: OutputWatch) -> None:
        super().__init__()
        self._training, self._testing = training, testing
        self._batches = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Begin anew."""
        self._training.forget()
        self._batches = 0

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Look, where the batch before was the first or the hundredth; at its end Keras would wait for its logs."""
        if self._batches == 1 or (self._batches and self._batches % _EVERY == 0):
            self._look(self._training)
        self._batches += 1

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Look at the whole epoch."""
        self._look(self._training)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Begin anew, once what the training noted was seen."""
        if self._batches:
            self._look(self._training)
        self._testing.forget()

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Look at the whole evaluation."""
        self._look(self._testing)

    def _look(self, watch: OutputWatch) -> None:
        if hasattr(self.model, "jax_state_sync"):
            # Within an epoch the compiled step keeps the state to itself.
            self.model.jax_state_sync()
        watch.look()


def callbacks_of(given: Any) -> list[keras.callbacks.Callback]:
    """The callbacks that a ``fit`` was given."""
    if isinstance(given, keras.callbacks.CallbackList):
        return list(given.callbacks)
    return list(keras.tree.flatten(given)) if given else []


def looked_at(
    method: Any,
    given: dict[str, Any],
    positional: int,
    looking: Looking,
    *others: keras.callbacks.Callback,
    last: Sequence[keras.callbacks.Callback] = (),
) -> Any:
    """Call ``fit`` or ``evaluate`` with callbacks of ours before all others, which may save what is of no use.

    Args:
        method: which of them.
        given: its arguments, as `by_name` gives them.
        positional: how many of them, the first ones, go by position: a method of the user's may read its ``args``.
        looking: who looks at the outputs.
        others: who looks at more.
        last: who is called behind all others.

    Raises:
        TypeError: it takes no callbacks, and there are others than `looking`, without which all is as it would be.
    """
    callbacks = given.get("callbacks")
    if not takes(method, "callbacks"):
        if others:
            raise TypeError(
                f"h2's own {method.__name__} takes no callbacks, and a promise is kept by one: let it take "
                "callbacks=None and pass them on to super().fit."
            )
    elif not isinstance(callbacks, keras.callbacks.CallbackList):
        given = {**given, "callbacks": [looking, *others, *callbacks_of(callbacks), *last]}
    elif not any(isinstance(each, Looking) for each in callbacks.callbacks):
        for own in (looking, *others, *last):
            own.set_model(callbacks.model)
        callbacks.callbacks[:] = [looking, *others, *callbacks.callbacks, *last]
    names = list(given)
    return method(*(given[name] for name in names[:positional]), **{name: given[name] for name in names[positional:]})
