"""What mixing h1 and h2 after training has found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bc_core.after_training._walk import Trial
from bc_core.counting._overlap import ErrorOverlap
from bc_core.promise._verdict import PromiseVerdict


@dataclass(frozen=True)
class AfterTraining:
    """A mixture of h1 and h2 that was chosen on validation data.

    Attributes:
        model: The mixture, a model of its own: it shares no weight with h1 or h2, which stay as they were.
        chosen: The trial that it is of.
        trials: All that were tried, from h1's side to h2's.
        confidence: Of the bound that decides on it.
    """

    model: Any = field(repr=False)
    chosen: Trial
    trials: tuple[Trial, ...] = field(repr=False)
    confidence: float

    @property
    def promise(self) -> PromiseVerdict:
        """Whether the promise is met, missed or cannot be told, on the validation data."""
        return self.chosen.verdict

    @property
    def overlap(self) -> ErrorOverlap:
        """Counts of h1 and the mixture on the validation data."""
        return self.chosen.overlap

    def rows(self) -> list[dict[str, object]]:
        """The trials as a table: setting, accuracy, nfr, btc, the bound that decides, verdict, eligible."""
        return [trial.row() for trial in self.trials]

    def _told(self) -> list[str]:
        lines = [str(self.promise)]
        overlap, (h2, of_h2) = self.overlap, self._of_h2()
        line = f"accuracy {overlap.accuracy_h2:.2%}, NFR {overlap.nfr:.2%}, BTC {overlap.btc:.2%}"
        if h2 is not None:
            line += f" ({of_h2}: accuracy {h2.accuracy_h2:.2%}, NFR {h2.nfr:.2%}, BTC {h2.btc:.2%})"
        if not self.chosen.eligible:
            lines.append("No trial keeps the promise for certain; this is the nearest.")
        if not (overlap.h1_only_right or overlap.h2_only_right):
            lines.append("This gets right what h1 gets right, and no more: it is no update.")
        if h2 is not None and h2.accuracy_h2 < h2.accuracy_h1:
            lines.append(
                f"h2 is less accurate than h1, {h2.accuracy_h2:.2%} against {h2.accuracy_h1:.2%}: the model in use is "
                "given first."
            )
        return [*lines, line]

    def _of_h2(self) -> tuple[ErrorOverlap | None, str]:
        last = self.trials[-1] if self.trials else None
        return (None, "") if last is None else (last.overlap, f"at {last.setting:g}")


@dataclass(frozen=True)
class Interpolation(AfterTraining):
    """What `interpolate` has found: weights ``alpha * h1 + (1 - alpha) * h2``.

    Attributes:
        layer_trials: With `by_layer`, the trials with a share for each layer, in the order in which they were made.
    """

    layer_trials: tuple[Trial, ...] = field(repr=False, default=())

    @property
    def alpha(self) -> float:
        """The share of h1; with `by_layer` the mean over the layers."""
        return self.chosen.setting

    @property
    def layers(self) -> Mapping[str, float] | None:
        """The share of h1 in each layer, where they differ."""
        return self.chosen.layers

    def __str__(self) -> str:
        lines = [f"alpha = {self.alpha:.3g} (h1 = 1, h2 = 0), of {len(self.trials)} tried"]
        if self.layer_trials:
            lines[0] += f", and {len(self.layer_trials)} with shares by layer"
        if self.layers is not None:
            lines.append("by layer: " + ", ".join(f"{name} {share:g}" for name, share in self.layers.items()))
        return "\n".join([*lines, *self._told()])


@dataclass(frozen=True)
class Price:
    """What a blend costs where it is served: it runs both models.

    Attributes:
        parameters_h1: Numbers that h1 has.
        parameters_h2: Numbers that h2 has.
        seconds_h2: Time of h2 alone for the first batch of the data, the least of several.
        seconds_blend: Time of the blend for the same batch.
        batch_size: How many instances that are.
    """

    parameters_h1: int
    parameters_h2: int
    seconds_h2: float
    seconds_blend: float
    batch_size: int

    def __str__(self) -> str:
        times = "" if self.seconds_h2 <= 0 else f", {self.seconds_blend / self.seconds_h2:.2g} times h2's"
        return (
            f"runs h1 and h2: {self.parameters_h1 + self.parameters_h2} parameters (h2 alone {self.parameters_h2}); "
            f"{1000 * self.seconds_blend:.3g} ms for {self.batch_size} instances{times}"
        )


@dataclass(frozen=True)
class Blend(AfterTraining):
    """What `blend` has found: both models asked, and their answers mixed.

    Attributes:
        how: ``"probability"``, ``"logit"`` or ``"gate"``.
        price: What it costs where it is served.
    """

    how: str
    price: Price

    @property
    def weight(self) -> float | None:
        """The share of h1 in an average; None for a gate."""
        return None if self.how == "gate" else self.chosen.setting

    @property
    def ratio(self) -> float | None:
        """How many times surer h2 has to be than h1 for its answer to be taken; None for an average."""
        return self.chosen.setting if self.how == "gate" else None

    def __str__(self) -> str:
        if self.how == "gate":
            first = f"h2's answer where p(h2) > {self.chosen.setting:g} p(h1), else h1's"
        else:
            first = f"{self.chosen.setting:g} h1 + {1 - self.chosen.setting:g} h2, {self.how} space"
        return "\n".join([f"{first}; of {len(self.trials)} tried", *self._told(), str(self.price)])
