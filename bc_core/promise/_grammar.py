"""What a promise says: bounds on scores, such as "nfr <= 0.5%", read from text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NamedTuple

from bc_core._numbers import in_percent, read_share
from bc_core.counting._overlap import ErrorOverlap
from bc_core.counting._scores import SCORES

_CONSTRAINT = re.compile(r"\s*(\w+)\s*(<=|>=|<|>|=|==)\s*([0-9.eE+-]+)\s*(%?)\s*")
_DECIMAL_COMMA = re.compile(r"(\d),(\d)")
# Of a bound that says its limit without a % sign.
_SHARE = re.compile(r"(?<= )[0-9.eE+-]+$")
_JOINED = re.compile(r"\s*(?:,|;|\band\b)\s*", re.IGNORECASE)


class Constraint(NamedTuple):
    """What a model has to keep: a score and its limit, a share."""

    score: str
    limit: float

    @property
    def higher_is_better(self) -> bool:
        """Whether the limit is a least."""
        return bool(SCORES[self.score].higher_is_better)

    def bound(self, overlap: ErrorOverlap, confidence: float = 0.95, *, favourable: bool = False) -> float:
        """A one-sided bound of the score, exact: the unfavourable one decides whether the limit is kept.

        The favourable one decides whether it is missed.
        """
        if self.higher_is_better != favourable:
            return overlap.interval(self.score, confidence, "lower", "clopper_pearson")[0]
        return overlap.interval(self.score, confidence, "upper", "clopper_pearson")[1]

    def excess(self, value: float) -> float:
        """By how much a value of the score breaks the limit; negative where it keeps it."""
        return self.limit - value if self.higher_is_better else value - self.limit

    def __str__(self) -> str:
        return f"{self.score} {'>=' if self.higher_is_better else '<='} {in_percent(self.limit)}"


def constraint_of(text: str) -> Constraint:
    """Read a constraint such as "nfr <= 0.5%".

    Raises:
        TypeError: It is no text.
        ValueError: It cannot be read, its score is unknown or has no direction, it points the wrong way, or its limit
            can be read in two ways: "nfr <= 0.5" is 50% for one and 0.5% for another.

    Example:
        >>> from bc_core.promise._grammar import constraint_of
        >>> constraint_of("NFR <= 0.5%")
        Constraint(score='nfr', limit=0.005)
    """
    if not isinstance(text, str):
        raise TypeError(f'A constraint is a text such as "nfr <= 0.5%". Received: {text!r}.')
    _check_decimal_point(text)
    match = _CONSTRAINT.fullmatch(text)
    if match is None:
        raise ValueError(f'A constraint reads like "nfr <= 0.5%" or "btc >= 98%". Received: {text!r}.')
    score, sign = match[1].lower(), match[2]
    directed = [name for name, known in SCORES.items() if known.higher_is_better is not None]
    if score in SCORES and score not in directed:
        raise ValueError(
            f"{score} is better neither high nor low, as repairing h1's errors lowers it: nothing to keep. "
            f"Take one of {', '.join(directed)}. Received: {text!r}."
        )
    if score not in directed:
        near = [f"{score}_h2"] if f"{score}_h2" in directed else get_close_matches(score, directed, 1)
        meant = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(f"Unknown score in {text!r}: take one of {', '.join(directed)}.{meant}")
    if sign != (wanted := ">=" if SCORES[score].higher_is_better else "<="):
        meant = f"{score} {wanted} {match[3]}{match[4]}"
        raise ValueError(f'Write "{meant}": it is decided on a bound, which has to keep the limit. Received: {text!r}.')
    try:
        limit = read_share(match[3] + match[4], small=sign == "<=")
    except ValueError as error:
        raise ValueError(f"{text!r}: the limit {error}.") from None
    return Constraint(score, limit)


def _check_decimal_point(text: str) -> None:
    """Refuse a number with a decimal comma, which would be taken for two bounds."""
    if _DECIMAL_COMMA.search(text):
        meant = _DECIMAL_COMMA.sub(r"\1.\2", text)
        raise ValueError(f'Write numbers with a point, "{meant}": a comma joins several bounds. Received: {text!r}.')


@dataclass(frozen=True)
class Promise:
    """One or several bounds on scores that all have to be kept.

    Made by `of` from text. Equal promises have one text, ``str(promise)``, by which a checkpoint knows them again.

    Args:
        constraints: The bounds, at least one.

    Example:
        >>> from bc_core import Promise
        >>> str(Promise.of("NFR <= 0.5% and btc >= 98%"))
        'nfr <= 0.5%, btc >= 98%'
        >>> Promise.of("nfr <= 0.5%") == Promise.of(["nfr <= 0.005"])
        True
    """

    constraints: tuple[Constraint, ...]

    @classmethod
    def of(cls, promise: str | Iterable[str] | Promise) -> Promise:
        """Read a promise.

        Args:
            promise: A text such as ``"nfr <= 0.5%"``, several joined by a comma or "and", or a list of them.

        Raises:
            TypeError: It is neither text nor a list of texts.
            ValueError: It is empty, says two bounds on one score, or one that cannot be read (see `constraint_of`).
        """
        if isinstance(promise, Promise):
            return promise
        if not isinstance(promise, str) and not isinstance(promise, Iterable):
            raise TypeError(f'A promise is a text such as "nfr <= 0.5%". Received: {promise!r}.')
        if isinstance(promise, str):
            _check_decimal_point(promise)
        texts = _JOINED.split(promise) if isinstance(promise, str) else list(promise)
        constraints = tuple(constraint_of(text) for text in texts)
        if not constraints:
            raise ValueError(f'A promise says at least one bound, such as "nfr <= 0.5%". Received: {promise!r}.')
        scores = [each.score for each in constraints]
        if len(set(scores)) < len(scores):
            raise ValueError(f"A promise has one bound on each score. Received: {promise!r}.")
        return cls(constraints)

    @classmethod
    def from_file(cls, text: str) -> Promise:
        """Read what ``str`` gave: in files from before it wrote percent, a number without a % sign is a share.

        Raises:
            TypeError: It is no text.
            ValueError: It cannot be read.

        Example:
            >>> str(Promise.from_file("nfr <= 0.5, btc >= 98%"))
            'nfr <= 50%, btc >= 98%'
        """
        if not isinstance(text, str):
            raise TypeError(f"A promise is kept in a file as a text. Received: {text!r}.")
        bounds = text.split(", ")
        try:
            return cls.of([_SHARE.sub(lambda share: in_percent(float(share[0])), bound) for bound in bounds])
        except ValueError as error:
            raise ValueError(f"{text!r} is no promise as it is kept in a file: {error}") from None

    def __iter__(self) -> Iterator[Constraint]:
        """The bounds, one by one."""
        return iter(self.constraints)

    def __str__(self) -> str:
        return ", ".join(map(str, self.constraints))
