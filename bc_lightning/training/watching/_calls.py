"""One call of h2 inside a step, and what h1 is asked about it."""

from __future__ import annotations

from typing import Any, NamedTuple

from bc_lightning.training.watching._tensors import tensors_in, version_of


class Call(NamedTuple):
    """One call of h2 inside a step, as ``call=function`` gets them: what it was given and what it answered.

    Attributes:
        args: positional arguments.
        kwargs: keyword arguments.
        output: what h2, or its submodule that gives the scores, returned.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any


class Asked(NamedTuple):
    """What h1 is asked about one call of h2, with the values that h2 was given."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    # Whether these are arguments of the submodule that gives the scores.
    part: bool
    # h2's own arguments, of which the others may be copies.
    given: tuple[Any, ...] = ()
    # How often each of its tensors had been changed in place; empty where these are copies.
    versions: tuple[int, ...] = ()
    # Whether the step had drawn random numbers before, where h1's outputs are stored.
    drawn: bool = False

    @property
    def is_changed(self) -> bool:
        """Whether a tensor was changed in place since."""
        now = tuple(version_of(tensor) for tensor in tensors_in(self[:2]))
        return bool(self.versions) and self.versions != now
