"""Numbers that users give, checked where they come in."""

from __future__ import annotations

from typing import Any


def check_count(value: Any, name: str, least: int = 1) -> None:
    """Refuse what is no number of things, by the argument's name.

    Raises:
        ValueError: It is no whole number, or less than `least`.

    Example:
        >>> from bc_core._numbers import check_count
        >>> check_count(0, "workers")
        Traceback (most recent call last):
        ValueError: workers must be a whole number >= 1. Received: workers=0.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number >= {least}. Received: {name}={value!r}.")
