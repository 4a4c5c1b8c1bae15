"""Which of h2's classes each class of h1 became, where the two differ: moved, new, removed, merged or split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

DROPPED = -1
"""In a class map: h1's class is gone. Among labels: h1 gave no class that h2 knows, so h1 counts as wrong."""

Entry = int | tuple[int, ...]


class ClassMap(tuple[Entry, ...]):
    """For each class of h1 what it is in h2; a list will do where every class of h2 was one of h1's.

    An entry is h2's index; -1 where h2 has the class no more; or several indices where it was split. h1 is right about
    an instance of a part if it says the class that was split; to be imitated, its probability is divided among the
    parts. The probabilities of classes that were merged are added. An instance of a new class is never in h1's
    support, as h1 cannot be right about it.

    A class of h2 that no entry names, and one that several name, may be a slip: each has to be said. The first is told
    when h2's number of classes is known.

    Args:
        entries: one for each class of h1.
        new: h2's classes that h1 did not know.
        merged: h2's classes that several of h1's became.
        shares: how the probability of a class that was split is divided: ``"equal"``, or ``"h2"``: in the proportions
            that h2 itself gives the parts of the instance, so that h1, which knew nothing of them, is not imitated
            in them.

    Raises:
        ValueError: an unknown name of shares, an entry below -1, no class at all; a class of h2 that is missing or
            doubled and not said to be, or said to be and is not.

    Example:
        >>> from bc_core import ClassMap
        >>> ClassMap([1, 0, -1], new=[2])
        ClassMap([1, 0, -1], new=[2])
        >>> ClassMap([0, (1, 2)]).known
        (0, 1, 2)
        >>> ClassMap([0, 1, 1])
        Traceback (most recent call last):
        ValueError: class_map sends classes 1, 2 of h1 to class 1 of h2. If they were merged, say so: \
ClassMap([0, 1, 1], merged=[1]). Received: class_map=[0, 1, 1].
    """

    new: tuple[int, ...]
    merged: tuple[int, ...]
    shares: str

    def __new__(
        cls,
        entries: Iterable[Any],
        *,
        new: Iterable[int] = (),
        merged: Iterable[int] = (),
        shares: Literal["equal", "h2"] = "equal",
    ) -> ClassMap:
        """Check the entries; see the class."""
        made = super().__new__(cls, (_checked_entry(entry) for entry in entries))
        made.new, made.merged = tuple(sorted({int(c) for c in new})), tuple(sorted({int(c) for c in merged}))
        made.shares = shares
        if shares not in ("equal", "h2") or (shares == "h2" and not made.parts):
            raise ValueError(
                "shares of a class_map must be 'equal' or 'h2', and are those of classes that were split, entries of "
                f"several indices. Received: shares={shares!r}, class_map={made._said()}."
            )
        made._check_doubled()
        made.check(None)
        return made

    @classmethod
    def of(cls, given: Any, num_classes: int | None = None) -> ClassMap:
        """A class map of what a user gives: one, a sequence, or a mapping with the keys map, new, merged and shares.

        Args:
            given: that.
            num_classes: h2's number of classes, where it is known.
        """
        if isinstance(given, Mapping):
            unknown = set(given) - {"map", "new", "merged", "shares"}
            if unknown or "map" not in given:
                raise ValueError(
                    "A class_map by name has the keys map, new, merged and shares, such as {'map': [0, 1, 1], "
                    "'merged': [1]}. "
                    f"Received: {dict(given)!r}."
                )
            made = cls(given["map"], **{name: given[name] for name in given if name != "map"})
        else:
            made = given if isinstance(given, cls) else cls(given)
        if num_classes is not None:
            made.check(num_classes)
        return made

    @property
    def known(self) -> tuple[int, ...]:
        """h2's classes that h1 knew."""
        return tuple(sorted({c for entry in self for c in _named(entry)}))

    @property
    def num_classes(self) -> int:
        """The least number of classes that h2 has."""
        return max((*self.known, *self.new)) + 1

    @property
    def drops(self) -> bool:
        """Whether a class of h1 is gone."""
        return any(entry == DROPPED for entry in self)

    @property
    def parts(self) -> list[tuple[int, ...]]:
        """h2's classes that one of h1's was split into, for each that was."""
        return [entry for entry in self if isinstance(entry, tuple)]

    @property
    def firsts(self) -> tuple[int, ...]:
        """One of h2's classes for each of h1's, the first of those that it was split into, or -1."""
        return tuple(entry if isinstance(entry, int) else entry[0] for entry in self)

    @property
    def is_equal(self) -> bool:
        """Whether the parts of a class have equal shares."""
        return self.shares == "equal"

    def sources(self, c: int) -> tuple[list[int], int]:
        """The classes of h1 that a class of h2 was, and into how many it was split."""
        found = [place for place, entry in enumerate(self) if c in _named(entry)]
        entry = self[found[0]] if found else c
        return found, len(entry) if isinstance(entry, tuple) else 1

    def as_given(self) -> dict[str, Any] | list[Any]:
        """Plain lists, of which `of` makes the same."""
        entries = [list(entry) if isinstance(entry, tuple) else entry for entry in self]
        said = {"new": list(self.new), "merged": list(self.merged), "shares": "" if self.is_equal else self.shares}
        more = {name: value for name, value in said.items() if value}
        return {"map": entries, **more} if more else entries

    def check(self, num_classes: int | None) -> None:
        """Refuse a map that does not fit h2's number of classes; None where it is not known yet.

        Raises:
            ValueError: it names others, or leaves some out that are not said to be new.
        """
        if not self.known:
            raise ValueError(f"class_map must keep at least one of h1's classes, got {self._said()}")
        if num_classes is not None and self.num_classes > num_classes:
            raise ValueError(
                f"class_map names class {self.num_classes - 1}, but h2 has {num_classes} classes, 0 to "
                f"{num_classes - 1}. class_map must hold h2's class indices, or -1 for a class that is gone. Received: "
                f"class_map={self._said()}."
            )
        both = sorted(set(self.known) & set(self.new))
        if both:
            raise ValueError(
                f"class_map says that class {both[0]} of h2 is new, and that it was one of h1's: leave out one of the "
                f"two. Received: class_map={self._said()}, new={list(self.new)}."
            )
        # Until h2 is known, an index that is too large by a slip would make all below it look forgotten.
        missing = sorted(set(range(num_classes or 0)) - set(self.known) - set(self.new))
        if missing:
            which = f"class {missing[0]}" if len(missing) == 1 else f"classes {', '.join(map(str, missing))}"
            raise ValueError(
                f"class_map names no class of h1 that is {which} of h2. If h1 did not know {which}, say so: "
                f"ClassMap({self._said()}, {self._saying(new=sorted({*self.new, *missing}))}). Received: "
                f"class_map={self._said()}."
            )

    def _check_doubled(self) -> None:
        where: dict[int, list[int]] = {}
        for place, entry in enumerate(self):
            for c in _named(entry):
                where.setdefault(c, []).append(place)
        doubled = {c: places for c, places in where.items() if len(places) > 1}
        for c, places in doubled.items():
            became = f"class_map sends classes {', '.join(map(str, places))} of h1 to class {c} of h2"
            if any(isinstance(self[place], tuple) for place in places):
                raise ValueError(
                    f"{became}, which is a part of one that was split: h1's probabilities cannot be divided then. "
                    f"Received: class_map={self._said()}."
                )
            if c not in self.merged:
                raise ValueError(
                    f"{became}. If they were merged, say so: ClassMap({self._said()}, "
                    f"{self._saying(merged=sorted({*self.merged, *doubled}))}). Received: class_map={self._said()}."
                )
        for c in self.merged:
            if c not in doubled:
                raise ValueError(
                    f"class_map says that several classes of h1 were merged to class {c} of h2, and sends "
                    f"{len(where.get(c, []))} there. Received: class_map={self._said()}, merged={list(self.merged)}."
                )

    def _said(self) -> str:
        return repr([*self])

    def _saying(self, new: Sequence[int] | None = None, merged: Sequence[int] | None = None) -> str:
        said = {
            "new": list(self.new if new is None else new),
            "merged": list(self.merged if merged is None else merged),
        }
        return ", ".join(f"{name}={classes}" for name, classes in said.items() if classes)

    def __repr__(self) -> str:
        more = ", ".join(filter(None, (self._saying(), "" if self.is_equal else f"shares={self.shares!r}")))
        return f"ClassMap({self._said()}{f', {more}' if more else ''})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (tuple(self), self.new, self.merged, self.shares)


def _made(entries: tuple[Entry, ...], new: tuple[int, ...], merged: tuple[int, ...], shares: Any) -> ClassMap:
    return ClassMap(entries, new=new, merged=merged, shares=shares)


def _named(entry: Entry) -> tuple[int, ...]:
    if isinstance(entry, tuple):
        return entry
    return () if entry == DROPPED else (entry,)


def _checked_entry(entry: Any) -> Entry:
    if isinstance(entry, (tuple, list)):
        parts = tuple(int(part) for part in entry)
        if len(set(parts)) != len(parts) or len(parts) < 2 or min(parts) < 0:
            raise ValueError(
                "class_map must give two or more of h2's class indices, each once, for a class that was split. "
                f"Received: {list(entry)}."
            )
        return parts
    index = int(entry)
    if index < DROPPED:
        raise ValueError(f"class_map must hold h2's class indices, or -1 for a class that is gone; got {index}")
    return index
