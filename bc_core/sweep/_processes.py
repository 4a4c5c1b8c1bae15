"""The engine "processes": a pool of processes of this machine, by loky."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bc_core._extras import need
from bc_core.sweep._folder import SweepFolder
from bc_core.sweep._points import Point
from bc_core.sweep._recipe import Recipe
from bc_core.sweep._work import Work, error_of

# How often the process that waits for others looks whether it shall stop.
_LOOK_SECONDS = 0.2

# In a worker: what it made of the file that holds it.
_RECIPES: dict[str, Recipe] = {}


def _train_in_worker(pickled: str, path: str, point: Point, prepare: bool) -> str | None:
    """Train a point in a worker process; errors travel as text, as not every error can be pickled."""
    folder = SweepFolder(path)
    try:
        recipe = _recipe_in_worker(pickled, path if prepare else None)
    except _NotImportableError as reason:
        return folder.note_failure(point, str(reason)).error
    error = error_of(recipe, folder, point)
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


def in_processes(work: Work) -> None:
    """Train the points in a pool of processes of this machine, each with so many threads as the options say.

    Raises:
        FullDiskError: No further point could be kept.
    """
    need("sweep", "A sweep in several processes", "loky", "cloudpickle")
    loky = importlib.import_module("loky")
    folder, tried = str(work.folder.path), dict.fromkeys(work.points, 0)
    waiting, workers = list(work.points), work.workers
    with _pickled(work.recipe) as pickled:
        # Loky takes the import of a framework for a memory leak, and kills the worker for it.
        leak = {"LOKY_MAX_MEMORY_LEAK_SIZE": os.environ.get("LOKY_MAX_MEMORY_LEAK_SIZE", "1e18")}
        threads = int(work.options.get("threads", 1))
        environment = {**leak, **work.recipe.environment(threads), **dict(work.options.get("env", {}))}
        while waiting and not work.stop.is_set():
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
                _before_exit(work.stop.set)
                if work.prepare:
                    ready = executor.submit(_prepare_in_worker, pickled, folder)
                    while not work.stop.is_set() and not loky.wait([ready], timeout=_LOOK_SECONDS)[0]:
                        pass
                    if work.stop.is_set():
                        return
                    ready.result()
                at_work: dict[Any, Point] = {}
                queue, waiting = waiting, []
                while (queue or at_work) and not work.stop.is_set():
                    # No more than there are workers: what waits in a pool cannot be told from what is at work in it.
                    while queue and len(at_work) < workers and not broken:
                        point = queue.pop(0)
                        tried[point] += 1
                        at_work[executor.submit(_train_in_worker, pickled, folder, point, work.prepare)] = point
                    finished, _ = loky.wait(at_work, timeout=_LOOK_SECONDS, return_when=loky.FIRST_COMPLETED)
                    for future in finished:
                        point = at_work.pop(future)
                        try:
                            work.done(point, future.result())
                        except loky.BrokenProcessPool:
                            broken = True
                            # Whose process died is not known: each of those at work is tried once more, alone.
                            if work.folder.is_finished(point):
                                work.done(point, None)
                            elif tried[point] > 1:
                                work.done(point, "its process died, twice: out of memory, or a crash in native code")
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
    cloudpickle = importlib.import_module("cloudpickle")
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
