"""Names and values of users in messages: in one line, and short."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np

_LISTED = 5


def one_line(text: object) -> str:
    """Keep a name from breaking a line, moving a terminal's cursor or turning the direction of writing."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in str(text))


def in_html(text: object) -> str:
    """The same as a page shows it."""
    return html.escape(one_line(text))


def shown(value: Any, most: int = 60) -> str:
    """A value in one short line."""
    value = value.item() if isinstance(value, np.generic) else value
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def listed(values: Sequence[Any]) -> str:
    """Some of many, for a message."""
    texts = ", ".join(shown(value) for value in values[:_LISTED])
    return f"{texts}, ... ({len(values)} in all)" if len(values) > _LISTED else texts or "none"
