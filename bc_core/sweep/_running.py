"""`Sweep`: a sweep that is run, here or in the background."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import warnings
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, cast

from bc_core.sweep._engines import ENGINES, Engine, Recipe, run_points
from bc_core.sweep._folder import SweepFolder
from bc_core.sweep._points import Point, checked_lambdas, checked_seeds, planned
from bc_core.sweep._results import SweepResults
from bc_core.sweep._told import full_sentence

# How often the progress bar looks at the folder.
_LOOK_SECONDS = 0.25


class SweepFailedError(RuntimeError):
    """Every point of a sweep failed."""


class Sweep(SweepResults):
    """A sweep over lambda_c as `bc_lightning.sweep` and `bc_keras.sweep` run it: its results, and how it goes.

    Finished, it is a `SweepResults`; in the background, points appear in it as they finish.

    Attributes:
        path: The folder.
    """

    def __init__(self, folder: SweepFolder, points: Sequence[Point]) -> None:
        super().__init__(folder.path)
        self._asked = list(points)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._shown = 0.0

    @property
    def is_running(self) -> bool:
        """Whether it is at work in the background."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def status(self) -> float:
        """The share that is done, from 0 to 1: finished and failed points, and what those at work have done."""
        failed = {failure.point for failure in self.failures}
        ended = sum(point in failed or self._is_finished(point) for point in self._asked)
        share = (ended + (self._folder.progress() if ended < len(self._asked) else 0.0)) / max(1, len(self._asked))
        # While a point ends it may be in neither count for a moment.
        self._shown = max(self._shown, min(1.0, share))
        return self._shown

    @property
    def error(self) -> BaseException | None:
        """What ended a sweep in the background before its end, such as a full disk; None if nothing did."""
        return self._error

    def wait(self, timeout: float | None = None) -> Sweep:
        """Wait for a sweep in the background.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            This sweep; after `cancel` with the points that were finished until then.

        Raises:
            TimeoutError: It is not finished after that time; it goes on.
            SweepFailedError: Every point failed.
            OSError: The disk is full.
        """
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                raise TimeoutError(f"the sweep is not finished after {timeout:g} s: {self.status:.0%} done")
        if self._error is not None:
            raise self._error
        return self

    def cancel(self) -> None:
        """Stop a sweep in the background. What is finished stays; the same call goes on from there."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(
        self,
        recipe: Recipe,
        engine: Engine,
        workers: int,
        options: Mapping[str, Any],
        tracking: Any,
        prepare: bool,
    ) -> None:
        todo = [point for point in self._asked if not self._is_finished(point)]
        told: set[Point] = set()

        def done(point: Point, error: BaseException | str | None) -> None:
            if point in told:
                return
            told.add(point)
            if error is None:
                if tracking is not None:
                    tracking.point_finished(self, point)
                return
            known = {failure.point: failure for failure in self.failures}
            failure = known.get(point) or self._folder.note_failure(point, error)
            if tracking is not None:
                tracking.point_failed(failure)

        for point in todo:
            self._folder.forget_failure(point)
        run_points(engine, recipe, self._folder, todo, done, self._stop, workers, options, prepare)
        failures = [failure for failure in self.failures if failure.point in set(self._asked)]
        if failures and not any(map(self._is_finished, self._asked)):
            raise SweepFailedError(
                f"All {len(failures)} points failed; the first, {failures[0].point.name}, with "
                f"{full_sentence(failures[0].error)} The traceback of each is in failures of "
                f"bc_core.SweepResults(folder), and under failures/ in {self._folder.path}."
            )
        if failures:
            warnings.warn(
                f"{len(failures)} of {len(self._asked)} points failed, the first, {failures[0].point.name}, with "
                f"{full_sentence(failures[0].error)} See failures for all; the same call tries them again.",
                RuntimeWarning,
                stacklevel=2,
            )


def run_sweep(
    recipe: Recipe,
    *,
    folder: str | os.PathLike[str],
    losses: Sequence[str],
    lambdas: Iterable[float] | None,
    seeds: int | Iterable[int],
    share_plain: bool = True,
    engine: str | None = None,
    workers: int | None = None,
    background: bool = False,
    progress_bar: bool = True,
    ray_options: Mapping[str, Any] | None = None,
    mlflow: Any = None,
) -> Sweep:
    """Run a sweep: what both frameworks' `sweep` end in.

    Args:
        recipe: How a point is trained.
        folder: Where everything goes.
        losses: Names of the losses.
        lambdas: Values of lambda_c.
        seeds: Seeds.
        share_plain: Whether all losses are the same training at lambda_c = 0.
        engine: `"in_process"`, `"processes"` or `"ray"`.
        workers: Points at a time.
        background: Whether to return at once.
        progress_bar: Whether to show one.
        ray_options: For the engine "ray".
        mlflow: Whether and how to track.

    Raises:
        TypeError: An argument of a wrong kind.
        ValueError: An argument out of range, or the folder of another sweep.
        RuntimeError: Another sweep is at work in the folder.
        SweepFailedError: Every point failed.
    """
    chosen = _engine(engine, background)
    number = _workers(workers, chosen)
    checked = list(dict.fromkeys(losses))
    if not checked:
        raise ValueError("losses must name at least one loss. Received: losses=().")
    weights, numbers = checked_lambdas(lambdas), checked_seeds(seeds)
    points = planned(checked, weights, numbers, share_plain)
    place = SweepFolder(folder)
    description = recipe.describe()
    tracking = None
    if mlflow not in (None, False):
        from bc_core.sweep._tracking import tracking_of

        tracking = tracking_of(mlflow, place.path, description, checked, weights, numbers)
    held = ExitStack()
    held.enter_context(place.locked())
    try:
        with place.telling_of_a_full_disk("the plan of the sweep"):
            place.begin(description, checked, points)
        place.clear_running()
        sweep = Sweep(place, points)
        if tracking is not None:
            tracking.start()
        # Where the training's own curves go, in whatever process it runs.
        recipe.tracking = tracking
    except BaseException:
        held.close()
        raise

    def work() -> None:
        # Read back by the tracking: how the sweep ended.
        ended: BaseException | None = None
        with held, _Bar(sweep, progress_bar):
            try:
                todo = not all(map(place.is_finished, points))
                if todo and not background:
                    with place.telling_of_a_full_disk("h1's outputs"):
                        recipe.prepare(place.path)
                sweep._run(recipe, chosen, number, ray_options or {}, tracking, prepare=todo and background)
            except BaseException as error:
                ended = error
                raise
            finally:
                place.clear_running()
                if tracking is not None:
                    if ended is None:
                        tracking.finish(sweep)
                    else:
                        tracking.close(ended)

    if not background:
        try:
            work()
        except KeyboardInterrupt:
            sys.stderr.write(
                f"\nInterrupted: {len(sweep.points)} of {len(points)} points are finished and kept in {place.path}. "
                "The same call goes on from there.\n"
            )
            raise
        return sweep

    def work_quietly() -> None:
        try:
            work()
        except BaseException as error:
            sweep._error = error
            warnings.warn(f"The sweep in {place.path} ended: {error}", RuntimeWarning, stacklevel=1)

    sweep._thread = threading.Thread(target=work_quietly, name=f"sweep {place.path.name}", daemon=True)
    sweep._thread.start()
    there = weakref.ref(sweep)
    # Workers must not outlive the interpreter, nor hold up its end.
    atexit.register(lambda: cast("Any", there() and there().cancel()))  # type: ignore[union-attr]
    return sweep


def _engine(engine: str | None, background: bool) -> Engine:
    if engine is None:
        return "processes" if background else "in_process"
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(map(repr, ENGINES))}. Received: engine={engine!r}.")
    if background and engine == "in_process":
        raise ValueError(
            "In the background a sweep runs in processes of its own, as it would share random numbers with what you "
            "do meanwhile. Received: background=True, engine='in_process'; leave engine out."
        )
    return cast("Engine", engine)


def _workers(workers: int | None, engine: Engine) -> int:
    if workers is None:
        # One after the other is what a person expects who has not asked for more.
        return 1 if engine != "ray" else max(1, (os.cpu_count() or 1))
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ValueError(f"workers must be a number of at least 1. Received: workers={workers!r}.")
    if engine == "in_process" and workers > 1:
        raise ValueError(f"workers are for engine='processes' or 'ray'. Received: workers={workers!r}.")
    return workers


class _Bar:
    """A progress bar with the time left, fed from the folder, whoever trains."""

    def __init__(self, sweep: Sweep, wanted: bool) -> None:
        self._sweep = sweep
        self._over = threading.Event()
        self._bar: Any = None
        if wanted:
            try:
                from tqdm.auto import tqdm
            except ImportError:
                return
            total = len(sweep._asked)
            begun = sweep.status * total
            self._bar = tqdm(
                total=total,
                initial=begun,
                desc="sweep",
                unit="point",
                bar_format="{desc}: {percentage:3.0f}%|{bar}| of {total} points [{elapsed}<{remaining}]",
            )

    def __enter__(self) -> None:
        if self._bar is not None:
            self._thread = threading.Thread(target=self._follow, daemon=True)
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._bar is not None:
            self._thread.join()
            self._show()
            self._bar.close()

    def _follow(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            self._show()

    def _show(self) -> None:
        done = self._sweep.status * len(self._sweep._asked)
        if done > self._bar.n:
            self._bar.update(done - self._bar.n)
