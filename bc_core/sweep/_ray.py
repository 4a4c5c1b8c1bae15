"""The engine "ray": Ray Tune, on this machine or several; the folder must be one that all see."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any

from bc_core._extras import need
from bc_core.sweep._folder import SweepFolder
from bc_core.sweep._points import Point
from bc_core.sweep._recipe import Recipe
from bc_core.sweep._work import PointDone, Work, error_of

# In a worker: what it made of the object that holds it.
_RECIPES: dict[str, Recipe] = {}
_QUIET = {"include_dashboard": False, "log_to_driver": False, "configure_logging": False}


def by_ray(work: Work) -> None:
    """Train the points as trials of Ray Tune.

    Raises:
        FullDiskError: No further point could be kept.
        KeyboardInterrupt: The user stopped the sweep.
    """
    need("sweep", 'engine="ray"', "ray", "cloudpickle")
    ray, tune = importlib.import_module("ray"), importlib.import_module("ray.tune")
    started = not ray.is_initialized()
    if started:
        ray.init(**{**_QUIET, **work.options.get("init", {})})
    try:
        resources = dict(work.options.get("resources_per_point", {"cpu": 1}))
        threads = max(1, int(resources.get("cpu", 1)))
        recipe_there = _traveller(ray, work, threads)
        if work.prepare:
            # Once, before several do: they find it done in the folder.
            task = ray.remote(lambda: recipe_there() and None)
            ray.get(task.options(num_cpus=threads, num_gpus=resources.get("gpu", 0)).remote())
        path = str(work.folder.path)

        def trial(config: dict[str, Any]) -> None:
            recipe, point, place = recipe_there(), Point.from_dict(config["point"]), SweepFolder(path)
            error = error_of(recipe, place, point)
            if error is not None:
                place.note_failure(point, error)
            tune.report({"done": 1, "failed": int(error is not None)})

        with tempfile.TemporaryDirectory(prefix="bc-sweep-ray-") as storage:
            results = tune.Tuner(
                tune.with_resources(trial, resources),
                param_space={"point": tune.grid_search([point.to_dict() for point in work.points])},
                tune_config=tune.TuneConfig(
                    max_concurrent_trials=work.workers, reuse_actors=True, **work.options.get("tune_config", {})
                ),
                run_config=tune.RunConfig(
                    storage_path=work.options.get("storage_path", storage),
                    name="sweep",
                    verbose=0,
                    callbacks=[_watching(tune, work.folder, work.done)],
                    stop=_stopper(tune, work.stop),
                ),
            ).fit()
        _tell_of_the_rest(work, results)
    finally:
        if started:
            ray.shutdown()


def _traveller(ray: Any, work: Work, threads: int) -> Callable[[], Recipe]:
    """A function that makes the recipe again in a worker, once, and prepares it where the caller did not."""
    content = ray.put(importlib.import_module("cloudpickle").dumps(work.recipe))
    environment, places = work.recipe.environment(threads), list(sys.path)
    path, prepare = work.folder.path, work.prepare

    def recipe_there() -> Recipe:
        os.environ.update(environment)
        sys.path += [entry for entry in places if entry not in sys.path]
        key = content.hex()
        if key not in _RECIPES:
            _RECIPES[key] = importlib.import_module("cloudpickle").loads(ray.get(content))
            if prepare:
                _RECIPES[key].prepare(path)
        return _RECIPES[key]

    return recipe_there


def _tell_of_the_rest(work: Work, results: Any) -> None:
    """Tell of trials that Ray itself ended, and of an interrupt, which it keeps to itself."""
    told = {failure.point for failure in work.folder.failures()}
    for result in results:
        point = Point.from_dict((result.config or {})["point"])
        if result.error is not None and point not in told and not work.folder.is_finished(point):
            work.done(point, f"Ray: {result.error}".strip().splitlines()[-1])
            told.add(point)
    if not work.stop.is_set() and not all(point in told or work.folder.is_finished(point) for point in work.points):
        raise KeyboardInterrupt


def _stopper(tune: Any, stop: threading.Event) -> Any:
    class Stopper(tune.Stopper):  # type: ignore[misc, name-defined, unused-ignore]
        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return False

        def stop_all(self) -> bool:
            return stop.is_set()

        # The event stays in this process.
        def __reduce__(self) -> Any:
            return (object, ())

    return Stopper()


def _watching(tune: Any, folder: SweepFolder, done: PointDone) -> Any:
    class Watching(tune.Callback):  # type: ignore[misc, name-defined, unused-ignore]
        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            point = Point.from_dict(trial.config["point"])
            if folder.is_finished(point):
                done(point, None)
            else:
                errors = {failure.point: failure.error for failure in folder.failures()}
                done(point, errors.get(point, "it left no result: is the folder one that all machines see?"))

        def __reduce__(self) -> Any:
            return (object, ())

    return Watching()
