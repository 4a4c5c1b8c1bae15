"""What the engines of a sweep share: what there is to do, and how one point is trained wherever that is."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bc_core.files._files import FullDiskError
from bc_core.sweep._folder import Report, SweepFolder, Trained
from bc_core.sweep._points import Point
from bc_core.sweep._trackers import Tracker


class Trains(Protocol):
    """What trains the points; it travels to other processes by cloudpickle."""

    # Set before the first point.
    trackers: Sequence[Tracker]
    # The caller's, or None.
    performance_metric: Any

    @property
    def evaluated(self) -> Sequence[str]:
        """Names of the data sets that points are compared on."""

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


@dataclass(frozen=True)
class Work:
    """What an engine has to do.

    Attributes:
        recipe: How a point is trained.
        folder: Where it goes.
        points: The points; an error in one is passed to `done`, and the others go on.
        done: Is told of each that ended.
        stop: Set by who wants no further point.
        workers: Points at a time.
        options: Of the engine.
        prepare: Whether what all points share is done first, in a worker too: in the background nothing may draw from
            the random numbers of the caller's process. Not for the engine "in_process".
    """

    recipe: Trains
    folder: SweepFolder
    points: Sequence[Point]
    done: PointDone
    stop: threading.Event
    workers: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    prepare: bool = False


def error_of(recipe: Trains, folder: SweepFolder, point: Point) -> Exception | None:
    """Train a point, and return the error that it ended in.

    Raises:
        FullDiskError: No further point could be kept.
        KeyboardInterrupt: The user stopped the sweep.
    """
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


def imported(name: str, need: str) -> Any:
    """A package that an engine needs.

    Raises:
        ImportError: It is not installed; says what to install.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f'{need} {name}: pip install "backward-compat-ml[sweep]".') from error
