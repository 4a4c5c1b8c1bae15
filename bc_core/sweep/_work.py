"""What the engines of a sweep share: what there is to do, and how one point is trained wherever that is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bc_core.files._files import FullDiskError
from bc_core.sweep._folder import SweepFolder
from bc_core.sweep._points import Point
from bc_core.sweep._recipe import Recipe

# Told of each point that ended, and of the error, in the process that runs the sweep.
PointDone = Callable[[Point, BaseException | str | None], None]


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

    recipe: Recipe
    folder: SweepFolder
    points: Sequence[Point]
    done: PointDone
    stop: threading.Event
    workers: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    prepare: bool = False


def error_of(recipe: Recipe, folder: SweepFolder, point: Point) -> Exception | None:
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
