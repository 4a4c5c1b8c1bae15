"""How callbacks say something."""

from __future__ import annotations

import logging
import sys

import keras


def say(text: str) -> None:
    if keras.config.is_interactive_logging_enabled():
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    else:
        logging.getLogger(__name__).info(text.strip())
