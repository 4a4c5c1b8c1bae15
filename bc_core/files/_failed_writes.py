"""Records of a training that cannot be written."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def told_of(record: str, warn: Callable[[str], Any] = warnings.warn) -> Iterator[None]:
    """Warn of whatever keeps a record from being written: it must not cost the training.

    A full disk is an OSError, but a closed writer or a file system of TensorFlow's raises errors of its own.

    Args:
        record: What is written, the subject of the sentence.
        warn: Who tells, a function of the text.

    Example:
        >>> from bc_core.files._failed_writes import told_of
        >>> with told_of("The comparison", print):
        ...     raise OSError("the disk is full")
        The comparison was not written whole: OSError: the disk is full
    """
    try:
        yield
    except Exception as error:
        warn(f"{record} was not written whole: {type(error).__name__}: {error}")
