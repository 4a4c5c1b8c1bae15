"""A training that is held to a promise: what only Keras knows of it; the rest is `bc_core.promise`'s."""

from __future__ import annotations

import dataclasses
import json
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bc_core import ErrorOverlap
from bc_core.promise._keeper import Keeper, PromiseOptions
from bc_core.reference._weights import have_one_architecture, shapes_of
from bc_keras.batches._validation_data import ValidationData
from bc_keras.training._state import Compatibility
from bc_keras.training._telling import say
from bc_keras.training._warm_start import SEPARATOR, named_weights, weights_behind

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

    def begin(self, model: keras.Model, state: Compatibility, count: Callable[[], ErrorOverlap]) -> None:
        """A fit begins: where another was before, with the best of that one, or with the weights as they are.

        Args:
            model: h2.
            state: what it is held to.
            count: as in `look`. After another fit the data may be others, and h2's weights those of any look, or none.
        """
        self.weigh(state.options.dissonance_name)
        if self.keeper.steps is not None:
            overlap = count()
            if self.weights is None or not self.keeper.is_of(overlap):
                self.keeper.compare_from(overlap)
                self.weights = model.get_weights() if self.keeper.options.keep == "best" else None
        state.lambda_c = self.keeper.lambda_c

    def look(
        self,
        model: keras.Model,
        state: Compatibility,
        overlap: ErrorOverlap,
        count: Callable[[], ErrorOverlap],
        now: Weights | None = None,
    ) -> dict[str, float]:
        """Take what held-out data show, and return what is logged.

        Args:
            model: h2.
            state: what it is held to.
            overlap: counts of h1 and h2 as it is.
            count: counts of them when it is called, with other weights.
            now: h2's weights, where they are at hand.
        """
        now, of_mean = model.get_weights() if now is None else now, None
        self.seen = told_by(now)
        if self.keeper.options.averages:
            self.take_in(now)
            if self.keeper.mean_is_due:
                of_mean = self._of_mean(model, now, count)
        if self.keeper.look(overlap, steps_of(model), of_mean) and self.keeper.options.keep == "best":
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
        return self.seen is not None and self.seen != told_by(model.get_weights())

    def settle(self, model: keras.Model, count: Callable[[], ErrorOverlap]) -> None:
        """Go back to the weights that kept the promise best.

        Args:
            model: h2.
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
        self.seen = told_by(model.get_weights())

    def finish(self, model: keras.Model, state: Compatibility) -> None:
        """Say what came of it."""
        self.weights = self.mean = None
        verdict, line = self.keeper.verdict, self.keeper.said(can_interpolate=_lies_between(model, state))
        if verdict is not None and verdict.verdict == "missed":
            warnings.warn(line, stacklevel=2)
        else:
            say(line)


class KeepsPromise(keras.callbacks.Callback):
    """A callback that looks at held-out data, and with which a training ends with the best weights."""

    _promised: Promised | None

    @property
    def _keeps(self) -> bool:
        """Whether it was given a promise."""
        return self._promised is not None

    def _held_to(self) -> Compatibility:
        raise NotImplementedError

    def _count(self) -> ErrorOverlap:
        """Counts on the held-out data, of the weights of now."""
        raise NotImplementedError

    def _settle(self) -> None:
        """Look at the weights that a training ends with, unless they were, and go back to the best."""
        if self._promised is None:
            return
        if self._promised.is_unseen(self.model):
            _separate(self.model)
            self._promised.look(self.model, self._held_to(), self._count(), self._count)
        self._promised.settle(self.model, self._count)

    def _finish(self) -> None:
        """Say the verdict."""
        if self._promised is not None:
            self._promised.finish(self.model, self._held_to())


class AfterAll(keras.callbacks.Callback):
    """Behind all other callbacks, which may put other weights into h2 as the training ends: an average, earlier ones.

    Args:
        keeping: who keeps a promise in this ``fit``.
    """

    def __init__(self, keeping: list[KeepsPromise]) -> None:
        super().__init__()
        self._keeping = keeping

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Look at what was not looked at, and say the verdict of the weights that are left."""
        for each in self._keeping:
            if each._promised is not None and each._promised.is_unseen(self.model):
                each._settle()
            each._finish()


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


def steps_of(model: keras.Model) -> int:
    return int(keras.ops.convert_to_numpy(model.optimizer.iterations))


def batches_of(model: keras.Model) -> int:
    """How many an optimizer has seen that takes a step by several of them."""
    return int(keras.ops.convert_to_numpy(optimizer_of(model)._iterations))


def told_by(weights: Weights) -> list[int]:
    """A number for each by which weights are told from others."""
    return [zlib.crc32(np.ascontiguousarray(each).reshape(-1).view(np.uint8).data) for each in weights]


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


def optimizer_of(model: keras.Model) -> Any:
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)


@contextmanager
def as_fit_ends(model: keras.Model) -> Iterator[None]:
    """Within it the weights are those with which ``fit`` would end: of an optimizer with ``use_ema`` its averages."""
    optimizer = optimizer_of(model)
    if optimizer.use_ema and hasattr(model, "jax_state_sync"):
        model.jax_state_sync()  # within an epoch the compiled step keeps the state to itself
    if not optimizer.use_ema or not steps_of(model):
        yield
        return
    present = [keras.ops.convert_to_numpy(variable).copy() for variable in model.trainable_variables]
    optimizer.finalize_variable_values(model.trainable_variables)
    _separate(model)
    try:
        yield
    finally:
        for variable, value in zip(model.trainable_variables, present, strict=True):
            variable.assign(value)


def _separate(model: keras.Model) -> None:
    """Have weights of their own, not an optimizer's averages: on JAX the step that predicts takes what it reads."""
    if optimizer_of(model).use_ema:
        for variable in model.trainable_variables:
            variable.assign(keras.ops.convert_to_numpy(variable).copy())


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
