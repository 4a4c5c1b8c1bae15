"""A training that is held to a promise: which data are held out, when they are looked at, and who counts there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import keras
import numpy as np

from bc_core import ErrorOverlap
from bc_core.promise._keeper import check_can_be_told
from bc_keras.batches._validation_data import ValidationData
from bc_keras.training._preparation import has_own
from bc_keras.training._state import Compatibility
from bc_keras.training.compiled._output_watch import callbacks_of
from bc_keras.training.data._compared_data import AskedData, ComparedData, HowToRead
from bc_keras.training.promise._promise import (
    AfterAll,
    KeepsPromise,
    Promised,
    as_fit_ends,
    batches_of,
    optimizer_of,
    steps_of,
    told_by,
)

# Rows at a time where models are asked, at most; they are only read.
_BATCH_SIZE = 256
# By code of its own in these a model may answer otherwise where it is evaluated than where it is asked.
_MEASURES = ("evaluate", "test_step", "predict", "predict_step", "predict_on_batch")


class _Validation(NamedTuple):
    """What a validation of ``fit`` has counted, and of which weights."""

    overlap: ErrorOverlap
    weights: list[int]


@dataclass(frozen=True)
class HeldOut:
    """Held-out data of one ``fit``.

    Attributes:
        data: as in ``fit(validation_data=...)``.
        is_validated: whether ``fit`` validates on them, by Keras's own steps.
        are_checked: whether all their labels were seen to be classes of h2.
        batch_size: that of the validation.
    """

    data: Any
    is_validated: bool
    are_checked: bool
    batch_size: int | None


class PromiseLooks(KeepsPromise):
    """Looks at held-out data while a `BCModel` is trained; before all callbacks of the user's, which may save.

    Where ``fit`` validates on the same data, and with the same weights, the look is what its steps have counted. Where
    a step takes long to compile, that one also counts before the first epoch and at the mean of weights.

    Args:
        state: what the model is held to.
        promised: what it has come to.
        held_out: held-out data.
    """

    def __init__(self, state: Compatibility, promised: Promised, held_out: HeldOut) -> None:
        super().__init__()
        self._state, self._held_out = state, held_out
        self._promised: Promised = promised
        self._asked: AskedData | None = None
        self._goes_by_steps = False
        self._validation: _Validation | None = None
        # How many instances there are, and how many h1 gets right.
        self._known: tuple[int, int] | None = None
        # Steps of the optimizer, which a compile sets to 0: as this fit began, and at its last look.
        self._begun, self._looked_at = 0, cast("int | None", None)

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Look once, so that data that could never show it are refused before an epoch is spent."""
        data = ValidationData(self._held_out.data)
        if data.length is not None:
            data = ValidationData(self._held_out.data, _batch_size_of(data.length))
        self._asked = AskedData(ComparedData(data, None, HowToRead()), self.model)
        self._goes_by_steps = _is_counted_by_steps(self.model, self._state, self._held_out)
        if self._promised.keeper.steps is None:
            check_can_be_told(self._promised.keeper.options, self._count())
        self._promised.begin(self.model, self._state, self._count)
        self._begun, self._looked_at = steps_of(self.model), None

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Nothing has validated yet."""
        self._validation = None

    def on_test_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Take what a validation has counted, if it is of the weights with which ``fit`` would end."""
        counts = self._state.held_out
        if self._held_out.is_validated and counts is not None and not optimizer_of(self.model).use_ema:
            self._validation = _Validation(counts.overlap(), told_by(self.model.get_weights()))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Look, unless the epoch's last step was followed by it."""
        if steps_of(self.model) != self._looked_at:
            self._look(takes_validation=True)
        if logs is not None:
            logs.update(self._promised.logged())

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Go back to the best weights, which other callbacks may save."""
        self._settle()

    def _finish(self) -> None:
        """Say the verdict."""
        super()._finish()
        self._asked = None

    def _held_to(self) -> Compatibility:
        return self._state

    def _look(self, takes_validation: bool = False) -> None:
        with as_fit_ends(self.model):
            now = self.model.get_weights()
            found = self._validation if takes_validation else None
            # With other counts of h1 it has read other rows: fewer steps, or data that come anew.
            if found is None or _known_of(found.overlap) != self._known or found.weights != told_by(now):
                overlap = self._count()
            else:
                overlap = found.overlap
            self._promised.look(self.model, self._state, overlap, self._count, now)
            self._looked_at = self._promised.keeper.steps

    def _count(self) -> ErrorOverlap:
        assert self._asked is not None
        overlap = self._evaluated() if self._goes_by_steps else self._asked.compare().overlap
        self._known = _known_of(overlap)
        return overlap

    def _evaluated(self) -> ErrorOverlap:
        """Counts by the step that validates; the metrics stand as before."""
        model, held_out, counts = self.model, self._held_out, self._state.held_out
        assert counts is not None
        if hasattr(model, "jax_state_sync"):
            model.jax_state_sync()  # within an epoch the compiled step keeps the state to itself
        x, y, weight = keras.utils.unpack_x_y_sample_weight(tuple(held_out.data))
        before = [(variable, _copied(variable)) for variable in model.metrics_variables]
        self._state.testing_watch.forget()
        try:
            # Not `BCModel.evaluate`, nor with callbacks: they hear of the validations of fit alone.
            keras.Model.evaluate(model, x, y, held_out.batch_size, sample_weight=weight, verbose=0)
            self._state.testing_watch.look()
            return counts.overlap()
        finally:
            for variable, value in before:
                variable.assign(value)


class LooksBySteps(PromiseLooks):
    """The same, within epochs too.

    Apart, since where any callback listens to batches Keras reads their logs after each, which waits for the device.
    """

    _batches_before = 0

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Count batches from here."""
        super().on_epoch_begin(epoch, logs)
        self._batches_before = batches_of(self.model)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Look, where every so many steps were asked for."""
        every = self._promised.keeper.options.every
        before = self._begun if self._looked_at is None else self._looked_at
        # As the optimizer counts its steps, which may each be of several batches.
        steps = (self._batches_before + batch + 1) // (optimizer_of(self.model).gradient_accumulation_steps or 1)
        if every is not None and steps // every > before // every:
            self._look()


def _copied(variable: Any) -> Any:
    return np.array(keras.ops.convert_to_numpy(variable))


def _batch_size_of(rows: int) -> int:
    """Such that batches are alike where they can be: for each size a step is compiled."""
    most = min(rows, _BATCH_SIZE)
    return next((size for size in range(most, most // 2, -1) if rows % size == 0), most)


def _known_of(overlap: ErrorOverlap) -> tuple[int, int]:
    return overlap.total, overlap.both_right + overlap.h1_only_right


def _is_counted_by_steps(model: keras.Model, state: Compatibility, held_out: HeldOut) -> bool:
    """Whether the compiled step that validates shows all that asking both models would."""
    if not (held_out.is_validated and held_out.are_checked and model.jit_compile) or model.run_eagerly:
        return False
    replicas = getattr(getattr(model, "distribute_strategy", None), "num_replicas_in_sync", 1)
    if replicas > 1 or keras.distribution.distribution() is not None:
        return False
    h1 = state.h1
    return isinstance(h1, keras.Model) and not any(has_own(type(h1), name) for name in _MEASURES)


def looking_at_held_out(
    state: Compatibility, given: dict[str, Any], are_checked: bool
) -> tuple[list[PromiseLooks], list[AfterAll]]:
    """Who looks at held-out data, and who ends a ``fit`` with these arguments, of which a share is taken out.

    Args:
        state: what the model is held to.
        given: the arguments.
        are_checked: whether all labels that it validates on were seen to be classes of h2.
    """
    keeping = [each for each in callbacks_of(given.get("callbacks")) if isinstance(each, KeepsPromise) and each._keeps]
    if state.promised is None:
        return [], [AfterAll(keeping)] if keeping else []
    data = put_aside(state.promised, given)
    held_out = HeldOut(
        data,
        (state.promised.data is None or state.promised.data is given.get("validation_data"))
        and not any(has_own(state.user_class, name) for name in _MEASURES),
        are_checked and isinstance(data, tuple | list) and _are_of_numpy(data),
        given.get("validation_batch_size") or given.get("batch_size"),
    )
    looks = (PromiseLooks if state.promised.keeper.options.every is None else LooksBySteps)(
        state, state.promised, held_out
    )
    return [looks], [AfterAll([looks, *keeping])]


def _are_of_numpy(data: Any) -> bool:
    return all(isinstance(leaf, np.ndarray) for leaf in keras.tree.flatten(list(data)))


def put_aside(promised: Promised, given: dict[str, Any]) -> Any:
    """Held-out data for a ``fit`` with these arguments, of which a share is taken out of `given`.

    Raises:
        ValueError: there are none.
        TypeError: a share of data that cannot be divided here.
    """
    if isinstance(promised.data, float):
        return _share_of(given, promised.data)
    if promised.data is not None:
        return promised.data
    if given.get("validation_data") is not None:
        return given["validation_data"]
    if given.get("validation_split"):
        if given.get("validation_freq", 1) != 1 or not _are_arrays(given):
            raise TypeError("A promise with validation_split needs x and y as arrays: pass validation_data instead.")
        first = int(np.floor(len(given["y"]) * (1 - given["validation_split"])))
        names = ("x", "y", *(("sample_weight",) if given.get("sample_weight") is not None else ()))
        return tuple(_rows(given[name], slice(first, None)) for name in names)
    raise ValueError(
        "A promise is kept on held-out data, and there are none: fit(..., validation_data=(x, y)), or "
        "BCModel(..., promise_data=(x, y)), or promise_data=0.1 for a share of fit's arrays."
    )


def _share_of(given: dict[str, Any], share: float) -> Any:
    if not _are_arrays(given):
        raise TypeError(
            "A share of the training data is put aside where fit is given arrays x and y. Of other data take it "
            "yourself, held_out = dataset.take(20) and dataset.skip(20), and pass it by promise_data=held_out. "
            f"Received: promise_data={share!r}, x={type(given.get('x')).__name__}."
        )
    rows = len(given["y"])
    # At random, as arrays may be sorted, and always the same, so that a training that is resumed has not seen them.
    order = np.random.default_rng(0).permutation(rows)
    held, rest = np.split(order, [round(share * rows)])
    if not len(held) or not len(rest):
        raise ValueError(f"promise_data={share!r} of {rows} instances leaves none held out, or none to train on.")
    held.sort()
    rest.sort()
    aside = tuple(_rows(given[name], held) for name in ("x", "y"))
    for name in ("x", "y", "sample_weight"):
        if given.get(name) is not None:
            given[name] = _rows(given[name], rest)
    return aside


def _are_arrays(given: Mapping[str, Any]) -> bool:
    parts = keras.tree.flatten([given.get("x"), given.get("y")])
    return given.get("y") is not None and all(hasattr(part, "shape") and hasattr(part, "__getitem__") for part in parts)


def _rows(arrays: Any, rows: Any) -> Any:
    take: Callable[[Any], Any] = lambda leaf: np.asarray(keras.ops.convert_to_numpy(leaf))[rows]  # noqa: E731
    return keras.tree.map_structure(take, arrays)
