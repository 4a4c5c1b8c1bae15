"""A training that is held to a promise: what the user said, and what each look at held-out data changes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from numbers import Real
from typing import Any, Literal, cast

from bc_core.counting._overlap import ErrorOverlap
from bc_core.losses._dissonances import DISSONANCES
from bc_core.losses._options import check_lambda_of, known
from bc_core.losses._schedules import check_lambda
from bc_core.promise._grammar import Constraint, Promise
from bc_core.promise._multiplier import Multiplier, log_excess
from bc_core.promise._verdict import PromiseVerdict, judge

Keep = Literal["best", "last"]

_START, _MOST = 2.0, 64.0
_REMEDY = (
    "h1 has the same architecture: if h2 was started from it, interpolate(h1, h2, held_out, promise=...) goes back "
    "towards h1 as far as the promise asks."
)
# Of the others, accuracies and positive flips, a larger lambda_c buys none.
_KEPT_BY_LAMBDA = ("nfr", "btc", "nfi", "bec_given_h2_wrong")


@dataclass(frozen=True)
class PromiseOptions:
    """What the user said of a promise; ``promise_options=`` of whatever trains.

    Attributes:
        promise: Bounds on scores that a larger lambda_c helps to keep.
        every: After how many training steps held-out data are looked at, beside the end of each epoch; None for that
            alone.
        confidence: Of the one-sided bounds that decide, at least 0.5.
        keep: Which weights the training ends with: ``"best"``, of the looks that met the promise the one with the best
            accuracy, else the one that came nearest; or ``"last"``.
        average: Whether some looks are also at a mean of the weights so far (see `Keeper.mean_is_due`), and the better
            of both counts; where the best are kept.
        start: lambda_c at first, > 0. None for 2; of a dissonance with a largest lambda_c half of that.
        most: The largest lambda_c. None for 64, or that of the dissonance.
    """

    promise: Promise
    every: int | None = None
    confidence: float = 0.95
    keep: Keep = "best"
    average: bool = True
    start: float | None = None
    most: float | None = None

    @classmethod
    def of(
        cls, promise: str | Iterable[str] | Promise, options: Mapping[str, Any] | None, lambda_c: object = None
    ) -> PromiseOptions:
        """Check the arguments of whatever trains.

        Raises:
            TypeError: An option that does not exist or is of another type, or a lambda_c too.
            ValueError: A promise that cannot be read, or that no lambda_c could keep; an option out of range.
        """
        if lambda_c is not None:
            raise TypeError(
                "Pass promise or lambda_c: a promise moves lambda_c itself. Where it begins is "
                f"promise_options={{'start': ...}}. Received: promise={promise!r}, lambda_c={lambda_c!r}."
            )
        names = [field.name for field in fields(cls)][1:]
        for name in options or ():
            if name not in names:
                raise TypeError(f"promise_options has no {name!r}: there are {', '.join(names)}.")
        made = cls(Promise.of(promise), **(options or {}))
        for constraint in made.promise:
            _check_keepable(constraint)
        known(made.keep, ("best", "last"), "keep")
        if not isinstance(made.average, bool):
            raise TypeError(f"average must be True or False. Received: average={made.average!r}.")
        if made.every is not None and (isinstance(made.every, bool) or not isinstance(made.every, int)):
            raise TypeError(f"every must be a whole number of steps. Received: every={made.every!r}.")
        if made.every is not None and made.every < 1:
            raise ValueError(f"every must be at least 1 step. Received: every={made.every!r}.")
        if not isinstance(cast("Any", made.confidence), Real) or not 0.5 <= made.confidence < 1:
            # Below, a promise could be met by a score that breaks it.
            raise ValueError(f"confidence must be at least 0.5 and below 1. Received: confidence={made.confidence!r}.")
        made.limits()
        return made

    def limits(self, dissonance: str | None = None) -> tuple[float, float]:
        """Where lambda_c begins and ends, for a dissonance where one is known.

        Raises:
            TypeError: One of them is no number.
            ValueError: They are out of range, or beyond what the dissonance takes.
        """
        largest = None if dissonance is None else DISSONANCES[dissonance].most_lambda
        most = self.most if self.most is not None else largest or _MOST
        start = self.start if self.start is not None else min(_START, most) if largest is None else most / 2
        for value in (start, most):
            check_lambda(value) if dissonance is None else check_lambda_of(dissonance, value)
        if not 0 < start <= most:
            raise ValueError(f"A promise needs 0 < start <= most. Received: start={start!r}, most={most!r}.")
        return start, most

    @property
    def averages(self) -> bool:
        """Whether a mean of weights is looked at too."""
        return self.average and self.keep == "best"

    @property
    def logged_names(self) -> tuple[str, ...]:
        """Under which names the scores and their bounds are logged."""
        return tuple(f"promise_{each.score}{suffix}" for each in self.promise for suffix in ("", "_bound"))


def _check_keepable(constraint: Constraint) -> None:
    if constraint.score not in _KEPT_BY_LAMBDA:
        raise ValueError(
            f"{constraint.score} is not kept by a larger lambda_c, which holds h2 to h1: promise one of "
            f"{', '.join(_KEPT_BY_LAMBDA)}. Received: {str(constraint)!r}."
        )
    if _allowed(constraint) == 0:
        raise ValueError(
            f"No number of held-out instances can show that nothing breaks at all: promise a small share, such as "
            f'"nfr <= 0.1%" or "btc >= 99.9%". Received: {str(constraint)!r}.'
        )


def _allowed(constraint: Constraint) -> float:
    return 1 - constraint.limit if constraint.higher_is_better else constraint.limit


class Keeper:
    """Moves lambda_c so that a promise is kept, and knows which weights kept it best.

    A side looks at held-out data, tells the counts to `look`, keeps the weights where that says so, and takes lambda_c
    from here. The same counts give the same lambda_c, so several processes that have added theirs up agree.

    Args:
        options: What the user said.
        dissonance: By name, what lambda_c is the weight of.

    Attributes:
        steps: Training steps before the last look; None before the first.
        best_steps: The same for the look whose weights are the best.
        best_is_mean: Whether the best are the mean at that look, and not the weights of then.

    Example:
        >>> from bc_core import ErrorOverlap
        >>> from bc_core.promise._keeper import Keeper, PromiseOptions
        >>> keeper = Keeper(PromiseOptions.of("nfr <= 2%", None))
        >>> keeper.look(ErrorOverlap([[[10, 30], [20, 940]]]), steps=100), keeper.lambda_c > 1
        (True, True)
        >>> keeper.look(ErrorOverlap([[[10, 30], [10, 950]]]), steps=200), keeper.verdict.verdict
        (True, 'met')
    """

    def __init__(self, options: PromiseOptions, dissonance: str | None = None) -> None:
        self.options = options
        start, most = options.limits(dissonance)
        self._multiplier = Multiplier(start, most=most)
        self._last: PromiseVerdict | None = None
        self._best: PromiseVerdict | None = None
        self.steps: int | None = None
        self.best_steps: int | None = None
        self.best_is_mean = False
        self._in_mean = self._looks = 0

    @property
    def lambda_c(self) -> float:
        """Weight of the dissonance from now on."""
        return self._multiplier.lambda_c

    @property
    def verdict(self) -> PromiseVerdict | None:
        """Of the weights that the training ends with, were it to end now; None before the first look."""
        found = self._best if self.options.keep == "best" else self._last
        return None if found is None else replace(found, looks=self._looks)

    @property
    def last(self) -> PromiseVerdict | None:
        """What the last look has shown."""
        return self._last

    def share_of_look(self, anew: bool) -> float:
        """How much of the mean of weights those of now are to make up, as a look begins.

        The weights of look n are taken in with 4 / (n + 3), so that in the end a look counts about by the cube of its
        number: most of the mean is of the last third, however long the training is going to be.

        Args:
            anew: Whether there is no mean yet.

        Reference:
            Shamir and Zhang, "Stochastic gradient descent for non-smooth optimization", ICML 2013: polynomial decay.
        """
        self._in_mean = 1 if anew else self._in_mean + 1
        return 4 / (self._in_mean + 3)

    @property
    def mean_is_due(self) -> bool:
        """Whether this look, whose weights were taken into the mean, is to be at the mean too.

        The fourth, eighth, sixteenth and so on are: each reads the held-out data once more, and what the mean spares
        changes slowly.
        """
        return _is_due(self._in_mean)

    @property
    def mean_is_unseen(self) -> bool:
        """Whether the mean is to be looked at as the training ends: neither of the last two looks was at it."""
        return self._in_mean > 1 and not (_is_due(self._in_mean) or _is_due(self._in_mean - 1))

    def look(self, overlap: ErrorOverlap, steps: int, of_mean: ErrorOverlap | None = None) -> bool:
        """Take what held-out data show after some training steps, and move lambda_c.

        Args:
            overlap: Counts of h1 and h2.
            steps: Training steps so far.
            of_mean: Counts of h1 and h2 with the mean of its weights, where that is due; the better of both is what
                the look has shown.

        Returns:
            Whether these weights are the best so far, to be kept; `best_is_mean` says which.

        Raises:
            ValueError: The held-out data can never show that the promise is kept.
        """
        if self._last is None:
            check_can_be_told(self.options, overlap)
        now, mean = self._judge(overlap), None if of_mean is None else self._judge(of_mean)
        self._last = now if mean is None else max(mean, now, key=_rank)
        self._multiplier.update(now, None if mean is None else self._last)
        self.steps = steps
        return self._compare(self._last, is_mean=self._last is mean)

    def look_at_mean(self, of_mean: ErrorOverlap) -> bool:
        """Take what the mean of weights is worth as the training ends, where that is unseen.

        Args:
            of_mean: Counts of h1 and h2 with it.

        Returns:
            Whether it is the best.
        """
        return self._compare(self._judge(of_mean), is_mean=True)

    def _compare(self, verdict: PromiseVerdict, is_mean: bool) -> bool:
        # Of equals the later, which has seen more.
        is_best = self._best is None or _rank(verdict) >= _rank(self._best)
        if is_best:
            self._best, self.best_steps, self.best_is_mean = verdict, self.steps, is_mean
        return is_best

    def _judge(self, overlap: ErrorOverlap) -> PromiseVerdict:
        self._looks += 1
        # What the classes are is of no matter here, and a checkpoint has less to keep.
        summed = ErrorOverlap(overlap.counts.sum(axis=0, keepdims=True))
        return judge(self.options.promise, summed, self.options.confidence)

    def forget_best(self) -> None:
        """Begin to compare anew: the weights of the best look are gone."""
        self._best = self.best_steps = None
        self.best_is_mean = False

    def compare_from(self, overlap: ErrorOverlap) -> None:
        """Begin to compare anew, from the weights of now, as a training goes on, maybe with other held-out data.

        Args:
            overlap: Counts of h1 and h2 with them.

        Raises:
            ValueError: The held-out data can never show that the promise is kept.
        """
        check_can_be_told(self.options, overlap)
        if not self.is_of(overlap):
            self._looks = 0  # those at other data have not chosen by these
        self.forget_best()
        self._compare(self._judge(overlap), is_mean=False)

    def is_of(self, overlap: ErrorOverlap) -> bool:
        """Whether the best was seen on the held-out data of these counts, as far as h1's answers tell."""
        return self._best is not None and _of_h1(self._best.overlap) == _of_h1(overlap)

    def logged(self) -> dict[str, float]:
        """What is logged of the last look: each score and its bound."""
        if self._last is None:
            return {}
        values = [value for finding in self._last.findings for value in (finding.value, finding.bound)]
        return dict(zip(self.options.logged_names, values, strict=True))

    def said(self, unseen: bool = False, can_interpolate: bool = False) -> str:
        """The line that is said when the training ends.

        Args:
            unseen: Whether the weights that it ends with are others than those that were looked at.
            can_interpolate: Whether h1 has h2's architecture and classes, so that weights lie between them.
        """
        if self.verdict is None:
            return (
                f"Promise {self.options.promise}: cannot be told. No held-out data were looked at while the model was "
                f"trained."
            )
        at = self.best_steps if self.options.keep == "best" else self.steps
        mean = "a mean of those until" if self.best_is_mean and self.options.keep == "best" else "those after"
        weights = f"The weights are {mean} {at} steps"
        if unseen:
            weights = f"That was after {at} steps, and the weights have changed since: those of now were not looked at"
        line = f"{self.verdict} {weights}, lambda_c is {self.lambda_c:.3g} at the end."
        return f"{line} {_REMEDY}" if can_interpolate and self.verdict.verdict != "met" else line

    def __str__(self) -> str:
        return self.said()

    def state_dict(self) -> dict[str, Any]:
        """What it has to remember, as plain values."""
        return {
            "promise": str(self.options.promise),
            **self._multiplier.state_dict(),
            "last": None if self._last is None else self._last.overlap.counts.tolist(),
            "best": None if self._best is None else self._best.overlap.counts.tolist(),
            "steps": self.steps,
            "best_steps": self.best_steps,
            "best_is_mean": self.best_is_mean,
            "in_mean": self._in_mean,
            "looks": self._looks,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another training stood.

        Raises:
            ValueError: It was held to another promise.
        """
        if Promise.from_file(state["promise"]) != self.options.promise:
            raise ValueError(
                f"The training that is resumed was held to the promise {state['promise']!r}, and here it is "
                f"{str(self.options.promise)!r}. Resume with the same, or start a new training from its weights."
            )
        self._multiplier.load_state_dict(state)
        confidence = self.options.confidence
        self._last, self._best = (
            None if counts is None else judge(self.options.promise, ErrorOverlap(counts), confidence)
            for counts in (state["last"], state["best"])
        )
        self.steps, self.best_steps = state["steps"], state["best_steps"]
        # A checkpoint of before there were means has none; nor one of before looks were counted.
        self.best_is_mean, self._in_mean = state.get("best_is_mean", False), state.get("in_mean", 0)
        self._looks = state.get("looks", max(self._in_mean, 1) if self._last is not None else 0)


def _of_h1(overlap: ErrorOverlap) -> tuple[int, int]:
    return overlap.total, overlap.both_right + overlap.h1_only_right


def _is_due(look: int) -> bool:
    return look >= 4 and look.bit_count() == 1


def check_can_be_told(options: PromiseOptions, overlap: ErrorOverlap) -> None:
    """Refuse held-out data that could never show that the promise is kept.

    Raises:
        ValueError: There are none, h1 is right on none of them, or they are too few even if none of them broke.
    """
    h1_right = overlap.both_right + overlap.h1_only_right
    if overlap.total == 0:
        raise ValueError("The held-out data for the promise are empty: give at least one instance.")
    if h1_right == 0:
        raise ValueError(
            f"h1 is right on none of the {overlap.total} held-out instances, so nothing could break and no promise "
            f"can be kept or broken: look whether they are h1's own classes, and whether its outputs are read right."
        )
    for constraint in options.promise:
        trials = {"nfr": overlap.total, "btc": h1_right}.get(constraint.score)
        needed = math.ceil(math.log1p(-options.confidence) / math.log1p(-min(_allowed(constraint), 1 - 1e-12)))
        if trials is not None and trials < needed:
            surest = math.floor(100 * -math.expm1(trials * math.log1p(-_allowed(constraint)))) / 100
            less = f" or be less sure, promise_options={{'confidence': {surest:g}}}," if surest >= 0.5 else ""
            raise ValueError(
                f"{trials} held-out instances{'' if constraint.score == 'nfr' else ' that h1 gets right'} cannot show "
                f"{constraint} with a confidence of {options.confidence:g}, even if none of them broke: it takes "
                f"{needed}. Give more,{less} or promise less."
            )


def _rank(verdict: PromiseVerdict) -> tuple[bool, float]:
    if verdict.verdict == "met":
        return True, verdict.overlap.accuracy_h2
    return False, -max(log_excess(finding) for finding in verdict.findings)
