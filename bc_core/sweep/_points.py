"""The points of a sweep: which trainings it consists of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from bc_core.losses._schedules import check_lambda
from bc_core.promise._grammar import Promise

# The name of the training that every loss shares at lambda_c = 0.
PLAIN = "plain"


@dataclass(frozen=True)
class Point:
    """One training of a sweep.

    Attributes:
        loss: How h2 is held to h1, such as "new_error"; None for plain training, lambda_c = 0, which all losses share.
        lambda_c: Weight of the dissonance; where it begins, if a promise moves it.
        seed: Seed of the training.
        promise: What the training is held to instead of a lambda_c, such as "nfr <= 0.5%"; None for a constant one.

    Example:
        >>> from bc_core import SweepPoint
        >>> SweepPoint("new_error", 4.0, 0).name
        'new_error,lambda_c=4.0,seed=0'
        >>> SweepPoint("new_error", 1.0, 0, "nfr <= 0.5%").name
        'new_error,promise=nfr_at_most_0.005,seed=0'
    """

    loss: str | None
    lambda_c: float
    seed: int
    promise: str | None = None

    @property
    def name(self) -> str:
        """Name of the point, and of its folder and runs."""
        loss = PLAIN if self.loss is None else re.sub(r"[^\w.+-]", "_", self.loss)
        held_to = f"lambda_c={self.lambda_c!r}" if self.promise is None else f"promise={_in_a_name(self.promise)}"
        return f"{loss},{held_to},seed={self.seed}"

    @property
    def is_plain(self) -> bool:
        """Whether h1 takes no part in the training."""
        return self.lambda_c == 0 and self.promise is None

    def to_dict(self) -> dict[str, Any]:
        """The point as plain values."""
        promised = {} if self.promise is None else {"promise": self.promise}
        return {"loss": self.loss, "lambda_c": self.lambda_c, "seed": self.seed, **promised}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Point:
        """The point that `to_dict` described.

        Raises:
            KeyError: An entry is missing.
            TypeError: An entry is of another type.
            ValueError: An entry is out of range.
        """
        loss, lambda_c, seed = data["loss"], data["lambda_c"], data["seed"]
        if loss is not None and not isinstance(loss, str):
            raise TypeError(f"a loss must be named by text. Received: {loss!r}.")
        check_lambda(lambda_c)
        [seed] = checked_seeds(seed)
        promise = data.get("promise")
        return cls(loss, float(lambda_c), seed, None if promise is None else str(Promise.from_file(promise)))


def _in_a_name(promise: str) -> str:
    # In shares: a % sign in a path means something else to many programs.
    return "_and_".join(
        f"{each.score}_at_{'least' if each.higher_is_better else 'most'}_{each.limit:g}" for each in Promise.of(promise)
    )


def log_lambdas(start: float = 0.25, stop: float = 16.0, ratio: float = 2.0) -> list[float]:
    """A grid that grows by a ratio, with 0, plain training, before it: the default of a sweep.

    Useful values of lambda_c reach far beyond 1, and act by their order of magnitude.

    Args:
        start: The least value above 0.
        stop: The largest value; it is in the grid, whether or not the ratio meets it.
        ratio: From one value to the next, above 1.

    Returns:
        0, start, start * ratio, ..., stop.

    Raises:
        TypeError: A value is no number.
        ValueError: A value is out of range.

    Example:
        >>> from bc_core import log_lambdas
        >>> log_lambdas()
        [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0]
    """
    check_lambda(start)
    check_lambda(stop)
    if not (0 < start <= stop and 1 < ratio < float("inf")):
        raise ValueError(
            f"log_lambdas needs 0 < start <= stop and ratio > 1. Received: start={start!r}, stop={stop!r}, "
            f"ratio={ratio!r}."
        )
    values = [float(start)]
    # Rounded so that neither 0.1 * 1.1 ** k gets a value beside `stop`, nor `stop` a twin just below it.
    while values[-1] * ratio < stop * (1 - 1e-9):
        values.append(values[-1] * ratio)
    if stop > start:
        values.append(float(stop))
    return [0.0, *values]


def linear_lambdas(step: float = 0.25, stop: float = 1.0) -> list[float]:
    """The grid of BackwardCompatibilityML: from 0 to 1 by a step. It neither oversteps the end nor stops short of it.

    Args:
        step: From one value to the next.
        stop: The largest value; it is in the grid, whether or not the step meets it.

    Returns:
        0, step, 2 * step, ..., stop.

    Raises:
        TypeError: A value is no number.
        ValueError: A value is out of range.

    Example:
        >>> from bc_core import linear_lambdas
        >>> linear_lambdas(0.1)
        [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
        >>> linear_lambdas(0.4)
        [0.0, 0.4, 0.8, 1.0]
    """
    check_lambda(step)
    check_lambda(stop)
    if not 0 < step <= stop:
        raise ValueError(f"linear_lambdas needs 0 < step <= stop. Received: step={step!r}, stop={stop!r}.")
    # A multiple within a billionth of a step is `stop` itself; rounding hides that 3 * 0.1 is not 0.3.
    steps = int(stop / step - 1e-9)
    return [*(round(i * step, 12) for i in range(steps + 1)), float(stop)]


def checked_lambdas(lambdas: Iterable[float] | None) -> list[float]:
    """The values of lambda_c of a sweep, ascending and each once.

    Raises:
        TypeError: No list of numbers.
        ValueError: None at all, or one that is no lambda_c.
    """
    if lambdas is None:
        return log_lambdas()
    if isinstance(lambdas, (str, bytes)) or not isinstance(lambdas, Iterable):
        raise TypeError(f"lambdas must be a list of numbers >= 0. Received: lambdas={lambdas!r}.")
    values = list(lambdas)
    for value in values:
        check_lambda(value)
    if not values:
        raise ValueError("lambdas must hold at least one lambda_c. Received: lambdas=[].")
    # -0.0 is 0 by any other name.
    return sorted({float(value) + 0.0 for value in values})


def checked_seeds(seeds: int | Iterable[int]) -> list[int]:
    """The seeds of a sweep, each once.

    Raises:
        TypeError: No whole numbers.
        ValueError: None at all, or one that no random generator takes.
    """
    values = list(seeds) if isinstance(seeds, Iterable) else [seeds]
    checked = []
    for value in values:
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise TypeError(f"seeds must be whole numbers. Received: seeds={seeds!r}.")
        if not 0 <= (seed := int(value.__index__())) < 2**32:
            raise ValueError(f"seeds must lie in 0 to 2**32 - 1. Received: seeds={seeds!r}.")
        checked.append(seed)
    if not checked:
        raise ValueError("seeds must hold at least one seed. Received: seeds=[].")
    return list(dict.fromkeys(checked))


def checked_promises(promises: Any) -> list[str]:
    """The promises of a sweep, each once, in the form by which points know them.

    Args:
        promises: A list of them, each a text, or several texts that are kept together; or one; None for none.

    Raises:
        TypeError: One is no text.
        ValueError: An empty list, or one that cannot be read.

    Example:
        >>> checked_promises(["nfr <= 0.5%", "NFR <= 0.005", "nfr <= 1% and btc >= 99%"])
        ['nfr <= 0.5%', 'nfr <= 1%, btc >= 99%']
    """
    if promises is None:
        return []
    if isinstance(promises, (str, Promise)):
        promises = [promises]
    if not isinstance(promises, Iterable):
        raise TypeError(f'promises must be a list, such as ["nfr <= 1%", "nfr <= 0.5%"]. Received: {promises!r}.')
    found = list(dict.fromkeys(str(Promise.of(each)) for each in promises))
    if not found:
        raise ValueError("promises must hold at least one promise. Received: promises=[].")
    return found


def planned(
    losses: Sequence[str],
    lambdas: Sequence[float] | Mapping[str, Sequence[float]],
    seeds: Sequence[int],
    share_plain: bool,
    promises: Sequence[str] = (),
    starts: Mapping[str, float] = MappingProxyType({}),
) -> list[Point]:
    """All points, the quick answer first: one seed through the whole grid, then the next.

    Args:
        losses: Names of the losses.
        lambdas: Values of lambda_c, of all losses or by loss.
        seeds: Seeds.
        share_plain: Whether all losses are one and the same training at lambda_c = 0.
        promises: What further trainings are held to, each with every loss.
        starts: Where lambda_c begins in these, by loss.

    Example:
        >>> from bc_core.sweep._points import planned
        >>> [point.name for point in planned(["a", "b"], [0.0, 1.0], [0], True)]
        ['plain,lambda_c=0.0,seed=0', 'a,lambda_c=1.0,seed=0', 'b,lambda_c=1.0,seed=0']
    """
    grids = lambdas if isinstance(lambdas, Mapping) else dict.fromkeys(losses, lambdas)
    values = sorted({value for grid in grids.values() for value in grid})
    points: dict[Point, None] = {}
    for seed in seeds:
        for lambda_c in values:
            for loss in (loss for loss in losses if lambda_c in grids[loss]):
                points[Point(None if share_plain and lambda_c == 0 else loss, lambda_c, seed)] = None
        for promise in promises:
            points |= dict.fromkeys(Point(loss, starts[loss], seed, promise) for loss in losses)
    check_names(list(points))
    return list(points)


def check_names(points: Sequence[Point]) -> None:
    """Refuse points that would share a folder.

    Raises:
        ValueError: Names of losses differ in case or signs only, or one is that of plain training.
    """
    names = [point.name.casefold() for point in points]
    if len(set(names)) < len(names):
        losses = sorted({str(point.loss) for point in points if point.loss is not None})
        raise ValueError(
            f"losses must have names that differ in more than case and signs, and none may be {PLAIN!r}. "
            f"Received: {losses!r}."
        )


def lambda_of(point: Point, result: Mapping[str, Any]) -> float:
    """Weight of the dissonance of a finished point; the last one where a promise has moved it."""
    return float(result.get("lambda_c", point.lambda_c))
