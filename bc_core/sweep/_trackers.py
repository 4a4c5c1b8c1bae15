"""What is told of a sweep while it runs, and to whom: trackers are handed to it from outside."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from bc_core.files._files import is_full_disk

if TYPE_CHECKING:
    from bc_core.sweep._folder import Failure, Trained
    from bc_core.sweep._points import Point
    from bc_core.sweep._results import SweepResults


@dataclass(frozen=True)
class Plan:
    """What one call of a sweep is about; its folder may hold more.

    Attributes:
        recipe: What decides the results, by name, in short.
        losses: Names of the losses.
        lambdas: Values of lambda_c, ascending.
        seeds: Seeds.
        datasets: Names of the data sets that points are compared on.
        has_performance: Whether there is a metric of the caller's.
        promises: What further trainings are held to instead of a lambda_c.
    """

    recipe: Mapping[str, str]
    losses: Sequence[str]
    lambdas: Sequence[float]
    seeds: Sequence[int]
    datasets: Sequence[str] = field(default=())
    has_performance: bool = False
    promises: Sequence[str] = field(default=())


class Logger(NamedTuple):
    """A logger of a framework that has loggers, to be made there.

    Attributes:
        kind: Name of its class.
        arguments: What it is made with.
        closes: Whether the end of the training closes it.
        beside_own: Whether it is there too where the caller brings loggers.
    """

    kind: str
    arguments: Mapping[str, Any]
    closes: bool = True
    beside_own: bool = False


class Tracker:
    """Hears of a sweep; each method does nothing unless it is overridden.

    A tracker is pickled and goes to every process that trains; there it hears `point_begun`, the epochs, and
    `point_trained`. The rest it hears where the sweep was called. `begin` may raise, as nothing is trained yet; of
    later errors the user is warned, and the sweep goes on.

    Example:
        >>> from bc_core import Tracker
        >>> class Printing(Tracker):
        ...     def point_finished(self, results, point):
        ...         print(f"{point.name}: {results.rows('test')[-1]['btc']:.1%}")
    """

    def begin(self, results: SweepResults, plan: Plan) -> None:
        """The plan is in the folder, and nothing is trained yet."""

    def point_begun(self, point: Point) -> None:
        """A point is about to be trained, perhaps once more after an interruption."""

    def logger(self, point: Point) -> Logger | None:
        """Where a framework that has loggers writes the curves of a point."""

    def log_epoch(self, point: Point, epoch: int, logs: Mapping[str, Any] | None) -> None:
        """What a framework without loggers tells at the end of an epoch."""

    def point_trained(self, point: Point, trained: Trained) -> None:
        """A point is trained and compared, and about to be kept."""

    def point_finished(self, results: SweepResults, point: Point) -> None:
        """A point is in the folder."""

    def point_failed(self, failure: Failure) -> None:
        """A point ended in an error."""

    def finish(self, results: SweepResults) -> None:
        """The sweep came to its end, or was cancelled."""

    def close(self, error: BaseException) -> None:
        """The sweep did not come to its end."""


def tell(trackers: Sequence[Tracker], what: str, *told: Any) -> None:
    """Call a method of each tracker; none of them may cost a training.

    Raises:
        OSError: The disk is full, so that no point can be kept either.
    """
    for tracker in trackers:
        try:
            getattr(tracker, what)(*told)
        except Exception as error:  # noqa: PERF203 - each has a fate of its own
            if is_full_disk(error):
                raise
            warnings.warn(
                f"{type(tracker).__name__} failed at {what}, and the sweep goes on: {type(error).__name__}: {error}",
                RuntimeWarning,
                stacklevel=3,
            )
