"""lambda_c, the weight of the dissonance: what it may be, and how it moves over the course of a training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any


def check_lambda(lambda_c: object) -> None:
    """Refuse what is no weight of the dissonance: a number that is negative or not finite, or no number at all.

    Args:
        lambda_c: the weight to check.

    Raises:
        TypeError: not an int or a float; a bool is neither here.
        ValueError: negative, infinite or NaN.

    Example:
        >>> from bc_core import check_lambda
        >>> check_lambda(-1.0)
        Traceback (most recent call last):
        ValueError: lambda_c must be a finite number >= 0 ... Received: -1.0.
    """
    # numpy's scalars are numbers too.
    if isinstance(lambda_c, bool) or not isinstance(lambda_c, Real):
        raise TypeError(f"lambda_c must be a number >= 0. Received: {lambda_c!r}.")
    if not 0 <= float(lambda_c) < float("inf"):
        raise ValueError(
            f"lambda_c must be a finite number >= 0 (0 is plain training, there is no upper limit). "
            f"Received: {lambda_c!r}."
        )


@dataclass(frozen=True)
class LinearLambda:
    """lambda_c that moves linearly from `start` to `end` and then stays.

    Any callable ``(epoch: float) -> float`` is a schedule; ``epoch`` counts finished epochs with their fraction
    (2.5 is the middle of the third), so a resumed training goes on where it stopped.

    Args:
        start: lambda_c at the beginning, >= 0.
        end: lambda_c from `epochs` on, >= 0.
        epochs: length of the ramp in epochs, > 0.
        delay: epochs before the ramp begins.

    Raises:
        TypeError: a lambda_c that is no number.
        ValueError: a negative lambda_c or a ramp without length.

    Example:
        >>> from bc_core import LinearLambda
        >>> schedule = LinearLambda(start=0.0, end=4.0, epochs=2)
        >>> schedule(0.0), schedule(0.5), schedule(7.0)
        (0.0, 1.0, 4.0)
    """

    start: float = 0.0
    end: float = 1.0
    epochs: float = 1.0
    delay: float = 0.0

    def __post_init__(self) -> None:
        check_lambda(self.start)
        check_lambda(self.end)
        if not (self.epochs > 0 and self.delay >= 0):
            raise ValueError(
                f"A ramp needs epochs > 0 and delay >= 0. Received: epochs={self.epochs!r}, delay={self.delay!r}."
            )

    def __call__(self, epoch: float) -> float:
        """lambda_c after `epoch` epochs."""
        share = min(max((epoch - self.delay) / self.epochs, 0.0), 1.0)
        return self.start + share * (self.end - self.start)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain values: what Keras asks of an object that it saves.

        Example:
            >>> from bc_core import LinearLambda
            >>> LinearLambda.from_config(LinearLambda(end=4.0).get_config()) == LinearLambda(end=4.0)
            True
        """
        return asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LinearLambda:
        """Rebuild the schedule that `get_config` described."""
        return cls(**config)
