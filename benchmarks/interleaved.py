"""What the benchmarks share: rivals take turns, so that a busy machine slows all of them alike, and medians are told.

`timed` lets whole calls take turns, `by_turns` the single steps of trainings that run side by side.
"""

from __future__ import annotations

import itertools
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import track
from rich.table import Table

WAIT = 300  # seconds after which a variant that never hands over is an error

Times = dict[str, list[float]]


class Target(NamedTuple):
    """A ratio of medians and, if anything, what it must not exceed or fall below."""

    above: str
    below: str
    limit: float | None = None
    kind: str = "at most"

    def told(self, ratio: float) -> tuple[str, str]:
        """The limit, and whether it is kept."""
        if self.limit is None:
            return "", ""
        is_met = ratio <= self.limit if self.kind == "at most" else ratio >= self.limit
        return f"{self.kind} {self.limit:g}", "yes" if is_met else "NO"


def timed(
    rivals: Mapping[str, Callable[[], Any]],
    rounds: int,
    warm_up: int = 0,
    calls: int = 1,
    *,
    own_clocks: Mapping[str, Callable[[], float]] | None = None,
    tells: bool = False,
) -> Times:
    """Seconds of each rival's calls, which take turns.

    Args:
        rivals: What is called.
        rounds: How often.
        warm_up: How many rounds more go first; their times come first too.
        calls: Calls in a row that are timed as one, of which the mean is told.
        own_clocks: By name, what says after a call how many seconds of it count.
        tells: Whether to print each time.
    """
    times: Times = {name: [] for name in rivals}
    for number in range(rounds + warm_up):
        for name, run in rivals.items():
            began = time.perf_counter()
            for _ in range(calls):
                run()
            took = (time.perf_counter() - began) / calls
            times[name].append(own_clocks[name]() if own_clocks and name in own_clocks else took)
            if tells:
                print(f"round {number + 1} of {rounds + warm_up}, {name}: {times[name][-1]:.1f} s", flush=True)
    return times


class Step(NamedTuple):
    """Seconds of one step: of the wall, and of the processor."""

    wall: float
    processor: float


class _Turns:
    """Whose step it is. One step of every variant makes a round, in an order that is drawn anew each time."""

    def __init__(self, players: int, rounds: int) -> None:
        draw = random.Random(0)
        orders = (draw.sample(range(players), players) for _ in range(rounds))
        self._sequence = itertools.chain.from_iterable(orders)
        self._gates = [threading.Semaphore(0) for _ in range(players)]

    def hand_over(self) -> None:
        player = next(self._sequence, None)
        if player is not None:
            self._gates[player].release()

    def wait(self, player: int) -> None:
        if not self._gates[player].acquire(timeout=WAIT):
            raise RuntimeError("A variant has stopped before its last step; its error is above.")


class _Clock:
    """Time from each batch's start to the next, loading included, less the turns of the others."""

    def __init__(self, turns: _Turns, player: int) -> None:
        self.turns = turns
        self.player = player
        self.ready = threading.Event()
        self.steps: list[Step] = []
        self._start: tuple[float, float] | None = None

    def tick(self) -> None:
        """A batch begins: end the turn that brought us here, and wait for the next."""
        self.end()
        self.ready.set()
        self.turns.wait(self.player)
        self._start = time.perf_counter(), time.process_time()

    def end(self) -> None:
        if self._start is not None:
            self.steps.append(Step(time.perf_counter() - self._start[0], time.process_time() - self._start[1]))
            self.turns.hand_over()


Fit = Callable[[Callable[[], None]], Any]


def by_turns(fits: Mapping[str, Fit], steps: int, warm_up: int) -> dict[str, list[Step]]:
    """Times of every variant's steps, side by side.

    Args:
        fits: Trainings of that many steps, each run in a thread of its own; each calls what it is given as a batch
            begins.
        steps: Steps of each. The first few are not told, nor is the last, which ends with the training.
        warm_up: How many are not told.
    """
    turns = _Turns(len(fits), steps)
    clocks = [_Clock(turns, player) for player in range(len(fits))]

    def train(fit: Fit, clock: _Clock) -> None:
        fit(clock.tick)
        clock.end()

    threads = [
        threading.Thread(target=train, args=pair, daemon=True) for pair in zip(fits.values(), clocks, strict=True)
    ]
    for thread, clock in zip(threads, clocks, strict=True):
        thread.start()
        if not clock.ready.wait(WAIT):
            raise RuntimeError("A variant did not reach its first step; its error is above.")
    turns.hand_over()
    for number in track(range(steps), "rounds", console=Console(stderr=True)):
        while any(len(clock.steps) <= number for clock in clocks):
            if any(not thread.is_alive() and len(c.steps) < steps for thread, c in zip(threads, clocks, strict=True)):
                raise RuntimeError("A variant has stopped before its last step; its error is above.")
            time.sleep(0.05)
    return {name: clock.steps[warm_up:-1] for name, clock in zip(fits, clocks, strict=True)}


def ratio_of(times: Mapping[str, Sequence[float]], target: Target) -> float:
    """Ratio of medians."""
    return statistics.median(times[target.above]) / statistics.median(times[target.below])


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The three of them."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def by_round(times: Mapping[str, Sequence[float]], target: Target) -> tuple[float, float, float]:
    """Quartiles of the ratios within a round."""
    return quartiles([a / b for a, b in zip(times[target.above], times[target.below], strict=True)])


def console(width: int = 120) -> Console:
    """Where tables go; as wide as they are, where no screen says."""
    return Console(width=None if sys.stdout.isatty() else width)


def table(rows: Sequence[Sequence[str]], title: str | None = None, caption: str | None = None) -> Table:
    """A table of these rows, headers first; names stand left, figures right."""
    made = Table(title=title, caption=caption)
    for number, header in enumerate(rows[0]):
        made.add_column(header, justify="right" if number else "left")
    for row in rows[1:]:
        made.add_row(*row)
    return made


def show(
    title: str, times: Times, targets: Iterable[tuple[Any, ...]], digits: int = 2, **more: Mapping[str, str]
) -> None:
    """Print medians and spread, and the ratios of medians.

    Args:
        title: Of the first table.
        times: Seconds.
        targets: Ratios as the fields of `Target`, of which those are told whose variants are there.
        digits: Of the seconds.
        more: Further columns of the first table, by name of a variant.
    """
    columns = [header.replace("_", " ") for header in more]
    rows = [["variant", "median (s)", "least to most", *columns]]
    for name, values in times.items():
        spread = f"{min(values):.{digits}f} to {max(values):.{digits}f}"
        rows.append(
            [name, f"{statistics.median(values):.{digits}f}", spread, *(column[name] for column in more.values())]
        )
    console().print(table(rows, title))
    ratios = [["ratio", "value", "target", "met"]]
    for target in itertools.starmap(Target, targets):
        if target.above in times and target.below in times:
            ratio = ratio_of(times, target)
            ratios.append([f"({target.above}) / ({target.below})", f"{ratio:.2f}", *target.told(ratio)])
    console().print(table(ratios, "Ratios of medians"))
