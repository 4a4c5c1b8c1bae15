"""`Sweep`: a sweep that is run, here or in the background."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast

from bc_core._numbers import check_count
from bc_core.sweep._engines import ENGINES, Engine
from bc_core.sweep._folder import SweepFolder
from bc_core.sweep._points import Point, checked_lambdas, checked_seeds, planned
from bc_core.sweep._recipe import Recipe
from bc_core.sweep._results import SweepResults
from bc_core.sweep._told import full_sentence
from bc_core.sweep._trackers import Plan, Tracker, tell
from bc_core.sweep._work import PointDone, Work

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
        self, work: Callable[[Sequence[Point], PointDone, threading.Event], None], trackers: Sequence[Tracker]
    ) -> None:
        told: set[Point] = set()

        def done(point: Point, error: BaseException | str | None) -> None:
            if point in told:
                return
            told.add(point)
            if error is None:
                tell(trackers, "point_finished", self, point)
                return
            known = {failure.point: failure for failure in self.failures}
            failure = known.get(point) or self._folder.note_failure(point, error)
            tell(trackers, "point_failed", failure)

        todo = [point for point in self._asked if not self._is_finished(point)]
        work(todo, done, self._stop)
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

    def _run_in_background(self, work: Callable[[], None]) -> None:
        def work_quietly() -> None:
            try:
                work()
            except BaseException as error:
                self._error = error
                warnings.warn(f"The sweep in {self.path} ended: {error}", RuntimeWarning, stacklevel=1)

        self._thread = threading.Thread(target=work_quietly, name=f"sweep {self.path.name}", daemon=True)
        self._thread.start()
        there = weakref.ref(self)
        # Workers must not outlive the interpreter, nor hold up its end.
        atexit.register(lambda: cast("Any", there() and there().cancel()))  # type: ignore[union-attr]


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
    trackers: Sequence[Tracker] = (),
    points: Sequence[Point] | None = None,
) -> Sweep:
    """Run a sweep: what both frameworks' `sweep` end in, whose arguments these are.

    Args:
        recipe: How a point is trained.
        folder: Where everything goes.
        losses: Names of the losses.
        lambdas: Values of lambda_c.
        seeds: Seeds.
        share_plain: Whether all losses are the same training at lambda_c = 0.
        engine: Who trains.
        workers: Points at a time.
        background: Whether to return at once.
        progress_bar: Whether to show one.
        ray_options: For the engine "ray".
        trackers: Who is told.
        points: What is trained, where that is not every loss with each of `lambdas`.

    Raises:
        TypeError: An argument of a wrong kind.
        ValueError: An argument out of range, or the folder of another sweep.
        RuntimeError: Another sweep is at work in the folder.
        SweepFailedError: Every point failed.
    """
    chosen = _engine(engine, background)
    at_a_time = _workers(workers, chosen)
    names, numbers = list(dict.fromkeys(losses)), checked_seeds(seeds)
    points = planned(names, checked_lambdas(lambdas), numbers, share_plain) if points is None else list(points)
    weights = sorted({point.lambda_c for point in points if point.promise is None})
    promises = list(dict.fromkeys(point.promise for point in points if point.promise is not None))
    place = SweepFolder(folder)
    measures = recipe.performance_metric is not None
    plan = Plan(recipe.describe(), names, weights, numbers, recipe.evaluated, measures, promises)
    with ExitStack() as beginning:
        beginning.enter_context(place.locked())
        with place.telling_of_a_full_disk("the plan of the sweep"):
            place.begin(plan.recipe, names, points)
        place.clear_running()
        sweep = Sweep(place, points)
        for tracker in trackers:
            tracker.begin(sweep, plan)
        # Where the training's own curves go, in whatever process it runs.
        recipe.trackers = trackers
        held = beginning.pop_all()

    def engine_at_work(todo: Sequence[Point], done: PointDone, stop: threading.Event) -> None:
        if not todo:
            return
        if not background:
            with place.telling_of_a_full_disk("h1's outputs"):
                recipe.prepare(place.path)
        for point in todo:
            place.forget_failure(point)
        ENGINES[chosen](Work(recipe, place, todo, done, stop, at_a_time, ray_options or {}, prepare=background))

    def work() -> None:
        with held, _Bar(sweep, progress_bar), _told_of_the_end(sweep, trackers):
            try:
                sweep._run(engine_at_work, trackers)
            finally:
                place.clear_running()

    if background:
        sweep._run_in_background(work)
        return sweep
    try:
        work()
    except KeyboardInterrupt:
        sys.stderr.write(
            f"\nInterrupted: {len(sweep.points)} of {len(points)} points are finished and kept in {place.path}. "
            "The same call goes on from there.\n"
        )
        raise
    return sweep


# Arguments of a framework's `sweep` that are for what runs it; the rest is for its recipe.
_OF_THE_RUN = ("folder", "lambdas", "seeds", "engine", "workers", "background", "progress_bar", "ray_options")


def sweep_by(make: Callable[..., Recipe], given: dict[str, Any], trackers: Sequence[Tracker]) -> Sweep:
    """Run what a framework's `sweep` was called for.

    Args:
        make: Makes its recipe, of the arguments that are not for the run.
        given: All arguments by name.
        trackers: Who is told.
    """
    of_the_run = {name: given.pop(name) for name in _OF_THE_RUN}
    recipe = make(**given)
    points = recipe.points(of_the_run["lambdas"], checked_seeds(of_the_run["seeds"]))
    return run_sweep(recipe, losses=list(recipe.losses), trackers=trackers, points=points, **of_the_run)


@contextmanager
def _told_of_the_end(sweep: Sweep, trackers: Sequence[Tracker]) -> Iterator[None]:
    """Tell the trackers how the sweep ended."""
    try:
        yield
    except BaseException as error:
        tell(trackers, "close", error)
        raise
    tell(trackers, "finish", sweep)


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
    check_count(workers, "workers")
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
