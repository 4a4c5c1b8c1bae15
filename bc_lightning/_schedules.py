"""lambda_c over the course of a training."""

from __future__ import annotations

from dataclasses import dataclass

from bc_lightning.functional._compatibility_loss import check_lambda


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
        ValueError: a negative lambda_c or a ramp without length.

    Example:
        >>> from bc_lightning import LinearLambda
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
        if self.epochs <= 0 or self.delay < 0:
            raise ValueError(
                f"A ramp needs epochs > 0 and delay >= 0. Received: epochs={self.epochs!r}, delay={self.delay!r}."
            )

    def __call__(self, epoch: float) -> float:
        """lambda_c after `epoch` epochs."""
        share = min(max((epoch - self.delay) / self.epochs, 0.0), 1.0)
        return self.start + share * (self.end - self.start)
