"""Ctrl-C while a framework trains or predicts."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ctrl_c_raises() -> Iterator[None]:
    """Have Ctrl-C end in a KeyboardInterrupt, and the next one too, whatever a framework makes of it.

    Lightning's Trainer answers it with an exit of its own, and leaves it ignored from then on.

    Raises:
        KeyboardInterrupt: In place of a SystemExit that a KeyboardInterrupt led to.
    """
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if in_main else None
    try:
        yield
    except SystemExit as error:
        interrupt = error.__context__
        if isinstance(interrupt, KeyboardInterrupt):
            raise KeyboardInterrupt from interrupt
        raise
    finally:
        if in_main and handler is not None:
            signal.signal(signal.SIGINT, handler)
