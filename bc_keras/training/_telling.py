"""What callbacks check of their arguments, and how they say something."""

from __future__ import annotations

import logging
import sys
from typing import Any

import keras


def check_count(value: Any, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number >= 1. Received: {name}={value!r}.")


def say(text: str) -> None:
    if keras.config.is_interactive_logging_enabled():
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    else:
        logging.getLogger(__name__).info(text.strip())
