"""Which weights of h1 and h2 go together: by name and shape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from bc_core.reference._class_map import ClassMap

Shapes = Mapping[str, tuple[int, ...]]
_H1 = "h1"
_SHOWN = 3


@dataclass(frozen=True)
class WarmStart:
    """What `warm_start` copied, and what it left.

    Attributes:
        copied: Names of h2's weights and buffers that have h1's values now.
        left: Names of h2's that stay as they were, each with the reason.
        unused: Names of h1's that have no place in h2.
        numbers: How many numbers were copied, and how many h2 has.
        head: Where h1 has other classes: names of the weights of the layer that gives the scores, which are copied
            class by class; they are among `copied`.
        rows: Of each class of h2 that h1 knew, h1's classes that it is made of.

    Example:
        >>> from bc_core.reference._weights import matched
        >>> print(matched({"body": (4, 2), "head": (3, 4)}, {"body": (4, 2), "head": (5, 4)}))
        Started from h1: 1 of 2 weights copied (8 of 28 numbers). Not copied: head (3, 4) in h1, (5, 4) in h2.
    """

    copied: tuple[str, ...]
    left: Mapping[str, str]
    unused: tuple[str, ...]
    numbers: tuple[int, int]
    head: tuple[str, ...] = ()
    rows: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    classes: int = 0

    def __str__(self) -> str:
        told = (
            f"Started from h1: {len(self.copied)} of {len(self.copied) + len(self.left)} weights copied "
            f"({self.numbers[0]} of {self.numbers[1]} numbers)."
        )
        if self.head:
            fresh = [str(c) for c in range(self.classes) if c not in self.rows]
            told += (
                f" By the class map {_listed(self.head)} class by class: {len(self.rows)} of {self.classes} classes of "
                f"h2 from h1{f', fresh are {_listed(fresh)}' if fresh else ''}."
            )
        if self.left:
            told += f" Not copied: {_listed([f'{name} {why}' for name, why in self.left.items()])}."
        if self.unused:
            told += f" Of h1 not used: {_listed(self.unused)}."
        return told


class Renaming(NamedTuple):
    """How h1's names become h2's, where the network of one is a part of the other: called with a name of h1's.

    Attributes:
        inside: What h1's names begin with that h2's lack.
        outside: What h2's begin with that h1's lack; one of the two is empty.
    """

    inside: str
    outside: str

    def __call__(self, name: str) -> str:
        if self.inside and not name.startswith(self.inside):
            return f"h1's {name}"
        return self.outside + name[len(self.inside) :]


def shapes_of(weights: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes of arrays of any framework, by name."""
    return {name: tuple(map(int, each.shape)) for name, each in weights.items()}


def renaming(h1: Shapes, h2: Shapes, separator: str = ".") -> Renaming:
    """Find how h1's names become h2's. Where a name is in both they are alike.

    Args:
        h1: Shapes by name.
        h2: The same.
        separator: Between the parts of a name.

    Example:
        >>> from bc_core.reference._weights import renaming
        >>> renaming({"0.bias": (3,)}, {"net.0.bias": (3,)})("0.bias")
        'net.0.bias'
    """
    if not h1 or not h2 or set(h1) & set(h2):
        return Renaming("", "")

    def fitting(short: Shapes, long: Shapes) -> tuple[int, str]:
        found = {
            whole[: -len(name)]
            for name in short
            for whole in long
            if whole.endswith(separator + name) and long[whole] == short[name]
        }
        fit = {prefix: sum(long.get(prefix + name) == shape for name, shape in short.items()) for prefix in found}
        best = max(fit, key=lambda prefix: (fit[prefix], -len(prefix), prefix), default="")
        return fit.get(best, 0), best

    in_h2, in_h1 = fitting(h1, h2), fitting(h2, h1)
    return Renaming("", in_h2[1]) if in_h2[0] >= in_h1[0] else Renaming(in_h1[1], "")


def matched(
    h1: Shapes,
    h2: Shapes,
    to_h2: Renaming | None = None,
    class_map: ClassMap | None = None,
    axis: Literal[0, -1] = 0,
    separator: str = ".",
) -> WarmStart:
    """Find the weights that go together: those of one name and shape, and of the scores those of one class.

    Args:
        h1: Shapes by name.
        h2: The same.
        to_h2: How h1's names become h2's. By default they are alike.
        class_map: Of h1, where it has other classes.
        axis: Which axis of a layer's weights has an entry for each of its outputs.
        separator: Between the parts of a name.

    Raises:
        ValueError: No weight of h1 fits one of h2; or the classes are in another order, and which layer gives the
            scores is not known.
    """
    theirs = {(name if to_h2 is None else to_h2(name)): shape for name, shape in h1.items()}
    head = () if class_map is None else _head(theirs, h2, class_map, axis, separator)
    copied = tuple(name for name, shape in h2.items() if theirs.get(name) == shape or name in head)
    if not copied:
        raise ValueError(
            "h1 and h2 have no weight of the same name and shape, so nothing can be started from h1. h1 has "
            f"{_shown(h1)}; h2 has {_shown(h2)}. Give the part of each that is the same network, such as h1=old.net."
        )
    left = {
        name: f"{theirs[name]} in h1, {shape} in h2" if name in theirs else "is not in h1"
        for name, shape in h2.items()
        if name not in copied
    }
    unused = tuple(name for name, of_h2 in zip(h1, theirs, strict=True) if of_h2 not in h2)
    rows, classes = {}, 0
    if head and class_map is not None:
        classes = class_map.num_classes
        rows = {c: tuple(class_map.sources(c)[0]) for c in class_map.known}
    share = len(rows) / classes if head else 1.0
    numbers = sum(round(math.prod(h2[name]) * (share if name in head else 1.0)) for name in copied)
    return WarmStart(copied, left, unused, (numbers, sum(map(math.prod, h2.values()))), head, rows, classes)


def _head(h1: Shapes, h2: Shapes, class_map: ClassMap, axis: int, separator: str) -> tuple[str, ...]:
    """Weights of the layer that gives the scores, if these are of other classes or in another order.

    Raises:
        ValueError: Which layer that is cannot be told.
    """
    before, after = len(class_map), class_map.num_classes
    if tuple(class_map) == tuple(range(after)):
        return ()

    def is_of_classes(name: str) -> bool:
        one, other = h1[name], h2[name]
        if len(one) != len(other) or not one or (one[axis], other[axis]) != (before, after):
            return False
        rest = slice(1, None) if axis == 0 else slice(None, -1)
        return one[rest] == other[rest]

    layers: dict[str, list[str]] = {}
    for name in h2:
        if name in h1:
            layers.setdefault(name.rpartition(separator)[0], []).append(name)
    found = [names for names in layers.values() if all(map(is_of_classes, names))]
    if len(found) == 1 and any(len(h2[name]) > 1 for name in found[0]):
        return tuple(found[0])
    in_order = tuple(class_map) == tuple(range(before))
    if not found and in_order and before != after:
        return ()  # new classes, in a layer that has another form too: nothing of it is copied
    which = _listed([", ".join(names) for names in found]) or "none"
    raise ValueError(
        f"By the class map h1's classes are not h2's, so the layer that gives the scores has to be copied class by "
        f"class, and which layer that is cannot be told: it would be the only one of {before} outputs in h1 and "
        f"{after} in h2, and there are {which}. Copy the weights by hand, from a copy of h1 whose last layer has its "
        f"outputs in h2's order, warm_start(h2, copy), and leave start_from out."
    )


def check_alike(h1: Mapping[str, object], h2: Mapping[str, object]) -> None:
    """Refuse networks whose weights cannot be mixed, one by one.

    Args:
        h1: Of each weight or layer by name what has to be alike, such as its shape.
        h2: The same.

    Raises:
        ValueError: They differ; names the first that do, and how.

    Example:
        >>> from bc_core.reference._weights import check_alike
        >>> check_alike({"head": (3, 4)}, {"head": (5, 4)})
        Traceback (most recent call last):
        ValueError: Weights are mixed one by one, and h1 and h2 differ in head (h1: (3, 4), h2: (5, 4)). ...
    """
    differ = [
        f"{name} (h1: {h1.get(name, 'none')}, h2: {h2.get(name, 'none')})"
        for name in dict.fromkeys([*h1, *h2])
        if h1.get(name) != h2.get(name)
    ]
    if differ:
        raise ValueError(
            f"Weights are mixed one by one, and h1 and h2 differ in {_listed(differ)}. Mix what they say instead, "
            "which needs no common architecture: blend(h1, h2, data, promise=...)."
        )


def check_start_from(start_from: str | None) -> bool:
    """Whether h2 is to begin with h1's weights.

    Raises:
        ValueError: It is something else.
    """
    if start_from not in (None, _H1):
        raise ValueError(f"start_from must be 'h1' or None. Received: start_from={start_from!r}.")
    return start_from == _H1


def have_one_architecture(h1: Shapes, h2: Shapes, separator: str = ".") -> bool:
    """Whether weights lie between those of two networks, one by one, under whatever names the one is in the other.

    Example:
        >>> from bc_core.reference._weights import have_one_architecture
        >>> have_one_architecture({"0.bias": (3,)}, {"net.0.bias": (3,)})
        True
        >>> have_one_architecture({"0.bias": (3,)}, {"0.bias": (5,)})
        False
    """
    to_h2 = renaming(h1, h2, separator)
    try:
        check_alike({to_h2(name): shape for name, shape in h1.items()}, h2)
    except ValueError:
        return False
    return True


def _shown(shapes: Shapes) -> str:
    return _listed([f"{name} {shape}" for name, shape in shapes.items()]) or "none"


def _listed(parts: list[str] | tuple[str, ...]) -> str:
    more = f", and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
    return ", ".join(parts[:_SHOWN]) + more
