"""Numbers that users give, checked where they come in."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

# Of less than this nobody says it in percent: 0.05% takes six thousand instances to show.
_ALSO_PERCENT = 0.1


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


def read_share(text: str, least: float = 0.0, *, small: bool = False) -> float:
    """A share, of a text such as "0.005" or "0.5%".

    Args:
        text: A number, and a % sign where it is in percent.
        least: What it may be at least.
        small: Whether it says how little may be lost or gained, so that 0.5 may be meant for half a percent, too.

    Raises:
        ValueError: It is no number, out of range, or 50% for one reader and 0.5% for another; says what it must be.

    Example:
        >>> from bc_core._numbers import read_share
        >>> read_share("0.5%"), read_share("98.3%"), read_share("0.005", small=True)
        (0.005, 0.983, 0.005)
        >>> read_share("0.5", small=True)
        Traceback (most recent call last):
        ValueError: must have a % sign, "50%" or "0.5%", as 0.5 may be meant for either
    """
    number = text.strip().removesuffix("%").rstrip()
    is_percent = text.rstrip().endswith("%")
    try:
        # As a decimal, so that 98.3% and 0.983 are one number.
        share = float(Decimal(number).scaleb(-2 if is_percent else 0))
    except (ArithmeticError, ValueError):
        share = math.nan
    if not least <= share <= 1:
        hint = f"; for percent write {number}%" if 1 < share <= 100 and not is_percent else ""
        raise ValueError(f"must be a share from {least:g} to 1, such as 0.005 or 0.5%, got {text!r}{hint}")
    if small and not is_percent and abs(share) >= _ALSO_PERCENT:
        ways = f'"{in_percent(share)}" or "{number}%"'
        raise ValueError(f"must have a % sign, {ways}, as {number} may be meant for either")
    return share


def in_percent(share: float) -> str:
    """A share in percent, which `read_share` reads as the same one.

    Example:
        >>> from bc_core._numbers import in_percent
        >>> in_percent(0.983)
        '98.3%'
    """
    return f"{100 * share:.12g}%"
