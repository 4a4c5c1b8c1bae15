"""A training that is held to a promise: what only Keras knows of it; the rest is `bc_core.promise`'s."""

from __future__ import annotations

import dataclasses
import inspect
import json
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from bc_core import ErrorOverlap
from bc_core.promise._keeper import Keeper, PromiseOptions, check_can_be_told
from bc_core.reference._weights import have_one_architecture, shapes_of
from bc_keras.batches._validation_data import ValidationData
from bc_keras.training._compared_data import AskedData, ComparedData, HowToRead
from bc_keras.training._preparation import has_own
from bc_keras.training._state import Compatibility
from bc_keras.training._telling import say
from bc_keras.training._warm_start import SEPARATOR, named_weights, weights_behind

# Rows at a time; they are only read.
_BATCH_SIZE = 256
_STATE, _WEIGHTS, _MEAN = "promise.json", "promise.npz", "promise_mean.npz"

Weights = list[np.ndarray[Any, Any]]


class Promised:
    """What one training has come to: lambda_c's multiplier, and the weights that kept the promise best.

    Args:
        options: what the user said.
        data: held-out data; None for the validation data of ``fit``, a share for that part of its arrays.
    """

    def __init__(self, options: PromiseOptions, data: Any = None) -> None:
        self.keeper = Keeper(options)
        self.data = data
        self.weights: Weights | None = None
        # The mean of those that were looked at.
        self.mean: Weights | None = None
        # What tells the weights of the last look from others.
        self.seen: list[int] | None = None

    def weigh(self, dissonance: str) -> None:
        """Take what lambda_c is the weight of, which may have a largest one."""
        keeper, self.keeper = self.keeper, Keeper(self.keeper.options, dissonance)
        if keeper.steps is not None:
            self.keeper.load_state_dict(keeper.state_dict())

    def begin(self, model: keras.Model, state: Compatibility) -> None:
        """A fit begins: with the best weights of the training that it goes on with, or none yet."""
        self.weigh(state.options.dissonance_name)
        if self.keeper.best_steps is not None and self.weights is None:
            if self.keeper.best_steps == _steps(model) and not self.keeper.best_is_mean:
                self.weights = model.get_weights()
            else:
                self.keeper.forget_best()
        state.lambda_c = self.keeper.lambda_c

    def look(
        self, model: keras.Model, state: Compatibility, overlap: ErrorOverlap, count: Callable[[], ErrorOverlap]
    ) -> dict[str, float]:
        """Take what held-out data show, and return what is logged.

        Args:
            model: h2.
            state: what it is held to.
            overlap: counts of h1 and h2 as it is.
            count: counts of them when it is called, with other weights.
        """
        now, of_mean = model.get_weights(), None
        self.seen = _told_by(now)
        if self.keeper.options.averages:
            self.take_in(now)
            if self.keeper.mean_is_due:
                of_mean = self._of_mean(model, now, count)
        if self.keeper.look(overlap, _steps(model), of_mean) and self.keeper.options.keep == "best":
            self.weights = self.mean if self.keeper.best_is_mean else now
        state.lambda_c = self.keeper.lambda_c
        return self.logged()

    def take_in(self, now: Weights) -> None:
        """Take weights into the mean."""
        mean = self.mean
        share = self.keeper.share_of_look(anew=mean is None)
        self.mean = now if mean is None else [_toward(*pair, share) for pair in zip(mean, now, strict=True)]

    def _of_mean(self, model: keras.Model, now: Weights, count: Callable[[], ErrorOverlap]) -> ErrorOverlap:
        with _set_to(model, self.mean, now):
            return count()

    def logged(self) -> dict[str, float]:
        """lambda_c as it is from now on, and what the last look has shown."""
        return {"lambda_c": self.keeper.lambda_c, **self.keeper.logged()}

    def get_config(self) -> dict[str, Any]:
        """The arguments of a `BCModel` that say it; held-out data fit into no config."""
        held_to = self.keeper.options
        options = {field.name: getattr(held_to, field.name) for field in dataclasses.fields(held_to)}
        share = self.data if isinstance(self.data, float) else None
        return {"promise": str(options.pop("promise")), "promise_data": share, "promise_options": options}

    def go_on(self, other: Promised | None) -> None:
        """Go on where another wrapping of the model stood, if it was held to the same promise."""
        if other is not None and str(other.keeper.options.promise) == str(self.keeper.options.promise):
            self.keeper.load_state_dict(other.keeper.state_dict())
            self.weights, self.mean = other.weights, other.mean

    def save(self, folder: Path) -> None:
        """Write what it has come to."""
        (folder / _STATE).write_text(json.dumps(self.keeper.state_dict()), encoding="utf-8")
        for name, weights in ((_WEIGHTS, self.weights), (_MEAN, self.mean)):
            if weights is not None:
                np.savez(folder / name, *weights)

    def load(self, folder: Path) -> None:
        """Go on where it stood."""
        self.keeper.load_state_dict(json.loads((folder / _STATE).read_text(encoding="utf-8")))
        self.weights, self.mean = (_loaded(folder / name) for name in (_WEIGHTS, _MEAN))

    def is_unseen(self, model: keras.Model) -> bool:
        """Whether the weights are others than at the last look; at the end an optimiser may put an average there."""
        return self.seen is not None and self.seen != _told_by(model.get_weights())

    def end(self, model: keras.Model, state: Compatibility, count: Callable[[], ErrorOverlap]) -> None:
        """Go back to the weights that kept the promise best, and say what came of it.

        Args:
            model: h2.
            state: what it is held to.
            count: as in `look`.
        """
        if (
            self.mean is not None
            and self.keeper.mean_is_unseen
            and self.keeper.look_at_mean(self._of_mean(model, model.get_weights(), count))
        ):
            self.weights = self.mean
        if self.weights is not None:
            model.set_weights(self.weights)
        self.weights = self.mean = None
        verdict, line = self.keeper.verdict, self.keeper.said(can_interpolate=_lies_between(model, state))
        if verdict is not None and verdict.verdict == "missed":
            warnings.warn(line, stacklevel=2)
        else:
            say(line)


def _loaded(path: Path) -> Weights | None:
    if not path.exists():
        return None
    with np.load(path) as saved:
        return list(saved.values())


def _toward(mean: Any, now: Any, share: float) -> Any:
    if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(now.dtype)):
        return now
    # Half precision would lose small steps.
    precise = np.promote_types(now.dtype, np.float32) if now.dtype.kind == "f" else np.dtype(np.float32)
    mean = mean.astype(precise)
    return mean + precise.type(share) * (now.astype(precise) - mean)


@contextmanager
def _set_to(model: keras.Model, weights: Weights | None, before: Weights) -> Iterator[None]:
    """Other weights for as long as it lasts."""
    model.set_weights(weights)
    try:
        yield
    finally:
        model.set_weights(before)


def _steps(model: keras.Model) -> int:
    return int(keras.ops.convert_to_numpy(model.optimizer.iterations))


def _told_by(weights: Weights) -> list[int]:
    """A number for each by which weights are told from others."""
    return [zlib.crc32(np.ascontiguousarray(each).reshape(-1).view(np.uint8)) for each in weights]


def _lies_between(model: keras.Model, state: Compatibility) -> bool:
    """Whether h1 and h2 have one architecture and the same classes, so that weights between theirs could serve."""
    if state.reference.class_map is not None:
        return False
    try:
        first, second = (
            shapes_of(named_weights(weights_behind(each, name)))
            for each, name in ((state.reference, "h1"), (model, "h2"))
        )
    except (TypeError, ValueError):
        return False
    return have_one_architecture(first, second, SEPARATOR)


def _optimizer_of(model: keras.Model) -> Any:
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)


@contextmanager
def as_fit_ends(model: keras.Model) -> Iterator[None]:
    """Within it the weights are those with which ``fit`` would end: of an optimizer with ``use_ema`` its averages."""
    optimizer = _optimizer_of(model)
    if optimizer.use_ema and hasattr(model, "jax_state_sync"):
        model.jax_state_sync()  # within an epoch the compiled step keeps the state to itself
    if not optimizer.use_ema or not _steps(model):
        yield
        return
    present = [keras.ops.convert_to_numpy(variable).copy() for variable in model.trainable_variables]
    optimizer.finalize_variable_values(model.trainable_variables)
    for variable in model.trainable_variables:
        # Of its own: on JAX the step that predicts takes what it reads, and the averages with it.
        variable.assign(keras.ops.convert_to_numpy(variable).copy())
    try:
        yield
    finally:
        for variable, value in zip(model.trainable_variables, present, strict=True):
            variable.assign(value)


class _Validation(NamedTuple):
    """What a validation of ``fit`` has counted, and of which weights."""

    overlap: ErrorOverlap
    weights: list[int]


class PromiseLooks(keras.callbacks.Callback):
    """Looks at held-out data while a `BCModel` is trained; before all callbacks of the user's, which may save.

    Where ``fit`` validates on the same data, and with the same weights, the look is what its steps have counted.

    Args:
        state: what the model is held to.
        promised: what it has come to.
        data: held-out data.
        is_validated: whether ``fit`` validates on them.
    """

    def __init__(self, state: Compatibility, promised: Promised, data: Any, is_validated: bool = False) -> None:
        super().__init__()
        self._state, self._promised, self._data = state, promised, data
        self._is_validated = is_validated
        self._asked: AskedData | None = None
        self._steps_before = 0
        self._validation: _Validation | None = None
        # How many instances there are, and how many h1 gets right.
        self._known: tuple[int, int] | None = None

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Look once, so that data that could never show it are refused before an epoch is spent."""
        batch_size = _BATCH_SIZE if isinstance(self._data, tuple | list) else None
        compared = ComparedData(ValidationData(self._data, batch_size), None, HowToRead())
        self._asked = AskedData(compared, self.model)
        if self._promised.keeper.steps is None:
            check_can_be_told(self._promised.keeper.options, self._count())
        self._promised.begin(self.model, self._state)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Count from here."""
        self._steps_before, self._validation = _steps(self.model), None

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Look, where every so many steps were asked for."""
        keeper, steps = self._promised.keeper, self._steps_before + batch + 1
        every = keeper.options.every
        if every is not None and steps // every > (keeper.steps or 0) // every:
            self._look()

    def on_test_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Take what a validation has counted, if it is of the weights with which ``fit`` would end."""
        held_out = self._state.held_out
        if self._is_validated and held_out is not None and not _optimizer_of(self.model).use_ema:
            self._validation = _Validation(held_out.overlap(), _told_by(self.model.get_weights()))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Look, unless the epoch's last step was followed by it."""
        if _steps(self.model) != self._promised.keeper.steps:
            self._look(self._validated())
        if logs is not None:
            logs.update(self._promised.logged())

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Go back to the best weights, and say the verdict."""
        if self._promised.is_unseen(self.model):
            self._look()
        self._promised.end(self.model, self._state, self._count)
        self._asked = None

    def _look(self, overlap: ErrorOverlap | None = None) -> None:
        with as_fit_ends(self.model):
            overlap = self._count() if overlap is None else overlap
            self._promised.look(self.model, self._state, overlap, self._count)

    def _validated(self) -> ErrorOverlap | None:
        """What the validation of this epoch has counted, if it is what a look would show."""
        found = self._validation
        if found is None or _known_of(found.overlap) != self._known:
            return None  # it has read other rows: fewer steps, or data that come anew
        return found.overlap if found.weights == _told_by(self.model.get_weights()) else None

    def _count(self) -> ErrorOverlap:
        assert self._asked is not None
        overlap = self._asked.compare().overlap
        self._known = _known_of(overlap)
        return overlap


def _known_of(overlap: ErrorOverlap) -> tuple[int, int]:
    return overlap.total, overlap.both_right + overlap.h1_only_right


def _measures_by_its_own(state: Compatibility) -> bool:
    """Whether h2 may answer otherwise where ``fit`` validates than where it is asked, by code of the user's."""
    return any(has_own(state.user_class, name) for name in ("evaluate", "test_step", "predict", "predict_step"))


def take_promise(
    args: tuple[Any, ...], kwargs: dict[str, Any], before: Compatibility | None = None
) -> tuple[Promised | None, tuple[Any, ...], Any]:
    """What was said of a promise, if one was given, and the other arguments of a `BCModel` behind h1.

    Args:
        args: those by position.
        kwargs: those by name.
        before: what the model was held to until now.

    Raises:
        TypeError: options or data without a promise, a lambda_c beside it, data that can be read only once.
        ValueError: a promise that cannot be read or kept, a share that is none.
    """
    others = dict(kwargs)
    promise, data, options = (others.pop(name, None) for name in ("promise", "promise_data", "promise_options"))
    if promise is None:
        for name, value in (("promise_data", data), ("promise_options", options)):
            if value is not None:
                raise TypeError(f"{name} without a promise: say which, such as promise='nfr <= 0.5%'.")
        return None, args, others
    lambda_c = args[0] if args else others.pop("lambda_c", None)
    promised = Promised(PromiseOptions.of(promise, options, lambda_c), data)
    if isinstance(data, int | float):
        if not 0 < data < 1:
            raise ValueError(f"promise_data must be data, or a share between 0 and 1. Received: promise_data={data!r}.")
    elif data is not None:
        ValidationData(data)
    promised.go_on(None if before is None else before.promised)
    # Where it begins depends on the dissonance, which is not known yet.
    return promised, (0.0, *args[1:]), others


def looking_at_held_out(
    state: Compatibility, fit: Callable[..., Any], args: Any, kwargs: Any
) -> tuple[Any, Any, list[PromiseLooks]]:
    """The arguments of a ``fit``, less what is put aside of them, and who looks at that."""
    if state.promised is None:
        return args, kwargs, []
    given = inspect.signature(fit).bind_partial(*args, **kwargs)
    held_out = put_aside(state.promised, given.arguments)
    by_fit = state.promised.data is None or state.promised.data is given.arguments.get("validation_data")
    looks = PromiseLooks(state, state.promised, held_out, by_fit and not _measures_by_its_own(state))
    return given.args, given.kwargs, [looks]


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
        return tuple(_rows(given[name], slice(first, None)) for name in ("x", "y"))
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
