"""The user's own steps, in which the penalty is a part of the loss and metrics see h1, and what they log besides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from bc_keras.metrics._overlap import fed_by_model
from bc_keras.training._state import TRACKERS, UNLABELLED, Compatibility
from bc_keras.training.beside._jax_step import Beside, with_values
from bc_keras.training.step._checks import HOW_TO_STEP
from bc_keras.training.step._traced_once import traced_once


class HeldSteps(keras.Model):
    """The part of a `BCModel` that stands around the steps and logs of the user's class, which comes after it."""

    _compatibility: Compatibility

    def train_step(self, *args: Any) -> Any:
        """Your model's step, with the penalty in its loss."""
        return self._step("train_step", super().train_step, args)

    def test_step(self, *args: Any) -> Any:
        """Your model's step, in which metrics see h1."""
        return self._step("test_step", super().test_step, args)

    def _step(self, name: str, step: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        state, values = self._compatibility, None
        if args and isinstance(args[-1], Beside):
            values, batch = args[-1]
            args = (*args[:-1], batch)
        with fed_by_model(), state.taking(values) as taken:
            results = step(*args)
        if not taken.has_penalised and (name == "train_step" or state.compiled.metrics):
            raise TypeError(f"h2's own {name} has left the penalty out: {HOW_TO_STEP}.")
        return results

    def make_train_function(self, force: bool = False) -> Any:
        """Make the compiled step."""
        if self._compatibility.unlabelled is not None:
            # Which says if they are missing, before JAX takes the state.
            self._compatibility.unlabelled.make_variables()
        return self._make("train_function", super().make_train_function, force)

    def make_test_function(self, force: bool = False) -> Any:
        """Make the compiled step."""
        return self._make("test_function", super().make_test_function, force)

    def _make(self, name: str, make: Callable[..., Any], force: bool) -> Any:
        before = getattr(self, name)
        made = make(force=force)
        function = getattr(self, name)
        if function is not before:
            state, backend = self._compatibility, keras.backend.backend()
            if backend == "jax":
                setattr(self, name, with_values(function, state.values_for_jax(self, name == "train_function")))
            elif backend == "tensorflow":
                setattr(self, name, traced_once(self, name, function, state))
        return made

    # What is logged beside the metrics that were compiled

    @property
    def metrics_variables(self) -> list[Any]:
        """Those of your metrics, and of what is noted beside them; on JAX they are a part of a step's state."""
        state = self._compatibility
        beside = (*state.counting, state.training_watch, state.testing_watch)
        return [*super().metrics_variables, *(variable for each in beside for variable in each.variables)]

    def reset_metrics(self) -> None:
        """Begin to count anew."""
        super().reset_metrics()
        for tracker in self._compatibility.counting:
            tracker.reset_state()

    def get_metrics_result(self) -> dict[str, Any]:
        """Results of the metrics, and the two halves of the loss."""
        state = self._compatibility
        # Of unlabelled inputs there is nothing to say but in training.
        trackers = state.trackers if state.step.has_gone_beyond else state.trackers[: len(TRACKERS)]
        return {**super().get_metrics_result(), **{each.name: each.result() for each in trackers}}

    def _get_metrics_result_or_logs(self, logs: Any) -> Any:
        # Without all that the steps have logged Keras takes their logs, which of several replicas are means of scores.
        with self._compatibility.taking(None) as ended:
            ended.has_gone_beyond = isinstance(logs, dict) and UNLABELLED in logs
            return super()._get_metrics_result_or_logs(logs)

    def _flatten_metrics_in_order(self, logs: dict[str, Any]) -> Any:
        return super()._flatten_metrics_in_order(
            {name: logs[name] for name in logs if name not in (*TRACKERS, UNLABELLED)}
        )
