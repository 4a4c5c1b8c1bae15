"""Random generators that data carry along, put back where they were, so that every point draws the same."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

# How deep in objects generators are looked for, and in containers of what length.
_DEPTH, _LENGTH = 4, 100


class Generators:
    """The generators of Python, NumPy and torch that things hold: loaders, their samplers, data sets.

    Args:
        things: Where to look.
        closed: Classes whose objects are not looked into, such as models.

    Example:
        >>> import numpy as np
        >>> from bc_core.sweep._generators import Generators
        >>> data = {"random": np.random.default_rng(0)}
        >>> generators = Generators([data])
        >>> first = data["random"].random()
        >>> generators.rewind()
        >>> data["random"].random() == first
        True
    """

    def __init__(self, things: Iterable[Any], closed: tuple[type[Any], ...] = ()) -> None:
        self._closed = closed
        self._found = self._within(things)
        self._at_call = self._at_begin = [_state(each) for each in self._found]

    def begin_here(self, things: Iterable[Any]) -> None:
        """Look again, as things made more of them; every point begins where they are now.

        Those that were there at the call are still put back for the caller.
        """
        known = dict(zip(map(id, self._found), self._at_call, strict=True))
        self._found = self._within(things)
        self._at_begin = [_state(each) for each in self._found]
        self._at_call = [known.get(id(each), state) for each, state in zip(self._found, self._at_begin, strict=True)]

    def rewind(self, to_the_call: bool = False) -> None:
        """Put every generator where points begin, or where the caller had it."""
        for generator, state in zip(self._found, self._at_call if to_the_call else self._at_begin, strict=True):
            _set_state(generator, copy.deepcopy(state))

    def _within(self, things: Iterable[Any]) -> list[Any]:
        found: dict[int, Any] = {}
        seen: set[int] = set()

        def look(thing: Any, depth: int) -> None:
            if isinstance(thing, (np.random.Generator, random.Random)) or _has_states(thing):
                found[id(thing)] = thing
                return
            if id(thing) in seen or depth > _DEPTH or hasattr(thing, "shape"):
                return
            if isinstance(thing, (str, bytes, *self._closed)):
                return
            seen.add(id(thing))
            if isinstance(thing, (list, tuple)) and len(thing) <= _LENGTH:
                parts: Iterable[Any] = thing
            elif isinstance(thing, Mapping) and len(thing) <= _LENGTH:
                parts = thing.values()
            else:
                parts = getattr(thing, "__dict__", {}).values()
            for part in list(parts):
                look(part, depth + 1)

        for thing in things:
            look(thing, 0)
        return list(found.values())


def _has_states(thing: Any) -> bool:
    """Whether it is a `RandomState` of NumPy or a `Generator` of torch, which is not imported for it."""
    kind = type(thing)
    return (kind.__module__.split(".")[0], kind.__name__) in (("numpy", "RandomState"), ("torch", "Generator"))


def _state(generator: Any) -> Any:
    if isinstance(generator, np.random.Generator):
        return copy.deepcopy(generator.bit_generator.state)
    return generator.getstate() if isinstance(generator, random.Random) else generator.get_state()


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)
