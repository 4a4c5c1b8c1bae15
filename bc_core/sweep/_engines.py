"""Who trains the points of a sweep: this process, several processes of this machine, or Ray Tune."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from bc_core.files._files import FullDiskError
from bc_core.files._interrupts import ctrl_c_raises
from bc_core.sweep._folder import Report, SweepFolder, Trained
from bc_core.sweep._points import Point

Engine = Literal["in_process", "processes", "ray"]
ENGINES = ("in_process", "processes", "ray")

# How often the process that waits for others looks whether it shall stop.
_LOOK_SECONDS = 0.2


class Recipe(Protocol):
    """How a framework trains the points; it travels to other processes by cloudpickle."""

    # The MLflow runs that curves of the training go to, or None; set before the first point.
    tracking: Any

    def describe(self) -> dict[str, str]:
        """What decides the results, by name, in short: what a folder is known again by."""

    def prepare(self, folder: Path) -> None:
        """Do once what all points share: h1's outputs. Taken up where an interrupted call stopped."""

    def train(self, point: Point, directory: Path, report: Report) -> Trained:
        """Train and evaluate one point; its files go into `directory`."""

    def environment(self, threads: int) -> dict[str, str]:
        """Environment variables of a worker process that computes with so many threads."""


class PointDone(Protocol):
    """Told of each point that ended, in the process that runs the sweep."""

    def __call__(self, point: Point, error: BaseException | str | None) -> None:
        """Called with the error, or None."""


def run_points(
    engine: Engine,
    recipe: Recipe,
    folder: SweepFolder,
    points: Sequence[Point],
    done: PointDone,
    stop: threading.Event,
    workers: int,
    options: Mapping[str, Any],
    prepare: bool = False,
) -> None:
    """Train the points; an error in one is passed to `done`, and the others go on.

    With `prepare`, what all points share is done first, in a worker too: in the background nothing may draw from the
    random numbers of the caller's process. Not for the engine "in_process".

    Raises:
        FullDiskError: No further point could be kept.
        KeyboardInterrupt: The user stopped the sweep.
    """
    if engine == "in_process":
        _in_process(recipe, folder, points, done, stop)
    elif engine == "processes":
        _processes(recipe, folder, points, done, stop, workers, options, prepare)
    else:
        _ray(recipe, folder, points, done, stop, workers, options, prepare)


def _in_process(
    recipe: Recipe, folder: SweepFolder, points: Sequence[Point], done: PointDone, stop: threading.Event
) -> None:
    with ctrl_c_raises():
        for point in points:
            if stop.is_set():
                return
            done(point, _error_of(recipe, folder, point))


def _error_of(recipe: Recipe, folder: SweepFolder, point: Point) -> Exception | None:
    try:
        folder.train(point, recipe.train)
    except FullDiskError:
        raise
    except SystemExit as error:
        # Lightning's Trainer answers Ctrl-C with an exit of its own.
        interrupt = error.__context__
        raise KeyboardInterrupt from (interrupt if isinstance(interrupt, KeyboardInterrupt) else error)
    except Exception as error:
        return error
    return None


# Several processes

_RECIPES: dict[str, Recipe] = {}


def _train_in_worker(pickled: str, path: str, point: Point, prepare: bool) -> str | None:
    """Train a point in a worker process; errors travel as text, as not every error can be pickled."""
    folder = SweepFolder(path)
    try:
        recipe = _recipe_in_worker(pickled, path if prepare else None)
    except _NotImportableError as reason:
        return folder.note_failure(point, str(reason)).error
    error = _error_of(recipe, folder, point)
    return None if error is None else folder.note_failure(point, error).error


def _begin_worker(parent: int) -> None:
    """What a worker process does first, before it waits for work.

    A terminal sends Ctrl-C to all processes; who waits for the sweep decides, and a sweep in the background goes on.
    With the process that started it, though, a worker ends: a killed sweep must not go on without its lock.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()


def _exit_with(parent: int) -> None:
    """End this process when its parent does, also where that was before this one was ready."""
    if os.name == "nt":
        import ctypes

        kernel: Any = ctypes.windll.kernel32  # type: ignore[attr-defined, unused-ignore]
        synchronize, forever = 0x00100000, 0xFFFFFFFF
        if handle := kernel.OpenProcess(synchronize, False, parent):
            kernel.WaitForSingleObject(handle, forever)
    else:
        # A process whose parent ended gets another one.
        while os.getppid() == parent:
            time.sleep(_LOOK_SECONDS)
    os._exit(1)


def _prepare_in_worker(pickled: str, path: str) -> None:
    """Do what all points share; the other workers find it done in the folder."""
    _recipe_in_worker(pickled, path)


class _NotImportableError(RuntimeError):
    """A recipe could not be made again in a worker."""


def _recipe_in_worker(pickled: str, path: str | None) -> Recipe:
    """The recipe as it came, prepared where the caller did not: `path` is the sweep's folder then."""
    if pickled not in _RECIPES:
        try:
            _RECIPES[pickled] = importlib.import_module("cloudpickle").loads(Path(pickled).read_bytes())
        except Exception as error:
            raise _NotImportableError(
                f"{type(error).__name__}: {error} - the models, data and functions of the sweep could not be made "
                "again in another process. What they are defined in must be importable there: a module beside the "
                "script, or an installed package; or use engine='in_process'"
            ) from None
        if path is not None:
            _RECIPES[pickled].prepare(Path(path))
    return _RECIPES[pickled]


def _processes(
    recipe: Recipe,
    folder: SweepFolder,
    points: Sequence[Point],
    done: PointDone,
    stop: threading.Event,
    workers: int,
    options: Mapping[str, Any],
    prepare: bool,
) -> None:
    loky = _imported("loky", "Several processes need")
    waiting, tried = list(points), dict.fromkeys(points, 0)
    with _pickled(recipe) as pickled:
        # Loky takes the import of a framework for a memory leak, and kills the worker for it.
        leak = {"LOKY_MAX_MEMORY_LEAK_SIZE": os.environ.get("LOKY_MAX_MEMORY_LEAK_SIZE", "1e18")}
        threads = int(options.get("threads", 1))
        environment = {**leak, **recipe.environment(threads), **dict(options.get("env", {}))}
        while waiting and not stop.is_set():
            executor = loky.ProcessPoolExecutor(
                max_workers=min(workers, len(waiting)),
                env=environment,
                timeout=None,
                initializer=_begin_worker,
                initargs=(os.getpid(),),
            )
            broken = False
            try:
                # The pool's own end waits for what is at work, and is prepared for with its first task.
                executor.submit(os.getpid)
                _before_exit(stop.set)
                if prepare:
                    ready = executor.submit(_prepare_in_worker, pickled, str(folder.path))
                    while not stop.is_set() and not loky.wait([ready], timeout=_LOOK_SECONDS)[0]:
                        pass
                    if stop.is_set():
                        return
                    ready.result()
                at_work: dict[Any, Point] = {}
                queue, waiting = waiting, []
                while (queue or at_work) and not stop.is_set():
                    # No more than there are workers: what waits in a pool cannot be told from what is at work in it.
                    while queue and len(at_work) < workers and not broken:
                        point = queue.pop(0)
                        tried[point] += 1
                        at_work[executor.submit(_train_in_worker, pickled, str(folder.path), point, prepare)] = point
                    finished, _ = loky.wait(at_work, timeout=_LOOK_SECONDS, return_when=loky.FIRST_COMPLETED)
                    for future in finished:
                        point = at_work.pop(future)
                        try:
                            done(point, future.result())
                        except loky.BrokenProcessPool:
                            broken = True
                            # Whose process died is not known: each of those at work is tried once more, alone.
                            if folder.is_finished(point):
                                done(point, None)
                            elif tried[point] > 1:
                                done(point, "its process died, twice: out of memory, or a crash in native code")
                            else:
                                waiting.append(point)
                    if broken and not at_work:
                        waiting += queue
                        queue = []
                        workers = 1 if any(tried.get(point) == 1 for point in waiting) else workers
            finally:
                # Also on Ctrl-C and on a full disk: nothing goes on behind the caller's back.
                executor.shutdown(wait=True, kill_workers=True)


def _before_exit(call: Callable[[], object]) -> None:
    """Call where the interpreter ends, before the pools that were started until now wait for their processes."""
    # Public nowhere: what pools register with, of which the last is called first. `atexit` comes after them all.
    with contextlib.suppress(AttributeError, RuntimeError):
        threading._register_atexit(call)  # type: ignore[attr-defined]


@contextlib.contextmanager
def _pickled(recipe: Recipe) -> Iterator[str]:
    """The recipe in a file, so that its data sets are written once and not with every point."""
    cloudpickle = _imported("cloudpickle", "Several processes need")
    directory = tempfile.mkdtemp(prefix="bc-sweep-")
    try:
        path = Path(directory) / "recipe.pkl"
        try:
            with open(path, "wb") as file:
                cloudpickle.dump(recipe, file)
        except OSError:
            raise
        except Exception as error:
            raise TypeError(
                "The models, data and functions of the sweep must be picklable to go to other processes, and one is "
                f"not ({type(error).__name__}: {error}). Give functions that make them, or engine='in_process'."
            ) from error
        yield str(path)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


# Ray Tune


def _ray(
    recipe: Recipe,
    folder: SweepFolder,
    points: Sequence[Point],
    done: PointDone,
    stop: threading.Event,
    workers: int,
    options: Mapping[str, Any],
    prepare: bool,
) -> None:
    ray = _imported("ray", 'engine="ray" needs')
    tune = _imported("ray.tune", 'engine="ray" needs')
    cloudpickle = _imported("cloudpickle", 'engine="ray" needs')
    started = not ray.is_initialized()
    if started:
        ray.init(
            **{
                "include_dashboard": False,
                "log_to_driver": False,
                "configure_logging": False,
                **options.get("init", {}),
            }
        )
    try:
        resources = dict(options.get("resources_per_point", {"cpu": 1}))
        threads = max(1, int(resources.get("cpu", 1)))
        content = ray.put(cloudpickle.dumps(recipe))
        environment, places, path = recipe.environment(threads), list(sys.path), str(folder.path)

        def recipe_there() -> Recipe:
            os.environ.update(environment)
            sys.path += [entry for entry in places if entry not in sys.path]
            key = content.hex()
            if key not in _RECIPES:
                _RECIPES[key] = importlib.import_module("cloudpickle").loads(ray.get(content))
                if prepare:
                    _RECIPES[key].prepare(Path(path))
            return _RECIPES[key]

        if prepare:
            # Once, before several do: they find it done in the folder.
            task = ray.remote(lambda: recipe_there() and None)
            ray.get(task.options(num_cpus=threads, num_gpus=resources.get("gpu", 0)).remote())

        def trial(config: dict[str, Any]) -> None:
            recipe = recipe_there()
            point = Point.from_dict(config["point"])
            place = SweepFolder(path)
            error = _error_of(recipe, place, point)
            if error is not None:
                place.note_failure(point, error)
            tune.report({"done": 1, "failed": int(error is not None)})

        with tempfile.TemporaryDirectory(prefix="bc-sweep-ray-") as storage:
            tuner = tune.Tuner(
                tune.with_resources(trial, resources),
                param_space={"point": tune.grid_search([point.to_dict() for point in points])},
                tune_config=tune.TuneConfig(
                    max_concurrent_trials=workers, reuse_actors=True, **options.get("tune_config", {})
                ),
                run_config=tune.RunConfig(
                    storage_path=options.get("storage_path", storage),
                    name="sweep",
                    verbose=0,
                    callbacks=[_watching(tune, folder, done, stop)],
                    stop=_Stopper(tune, stop),
                ),
            )
            results = tuner.fit()
        told = {failure.point: failure.error for failure in folder.failures()}
        for result in results:
            point = Point.from_dict((result.config or {})["point"])
            if result.error is not None and point not in told and not folder.is_finished(point):
                done(point, f"Ray: {result.error}".strip().splitlines()[-1])
                told[point] = str(result.error)
        if not stop.is_set() and not all(point in told or folder.is_finished(point) for point in points):
            # Ray keeps it to itself.
            raise KeyboardInterrupt
    finally:
        if started:
            ray.shutdown()


def _Stopper(tune: Any, stop: threading.Event) -> Any:  # noqa: N802 - a class, made of an optional package
    class Stopper(tune.Stopper):  # type: ignore[misc, name-defined, unused-ignore]
        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return False

        def stop_all(self) -> bool:
            return stop.is_set()

        # The event stays in this process.
        def __reduce__(self) -> Any:
            return (object, ())

    return Stopper()


def _watching(tune: Any, folder: SweepFolder, done: PointDone, stop: threading.Event) -> Any:
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


def _imported(name: str, need: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f'{need} {name}: pip install "backward-compat-ml[sweep]".') from error
