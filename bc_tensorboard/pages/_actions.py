"""What a person may ask the owner of a view to do, by a button in it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Action:
    """A button of a view, and what it does in the kernel.

    Attributes:
        label: Text of the button, such as "Start the sweep"; no two that are offered together have the same.
        doing: What is said while `act` is at work, such as "Starting the sweep".
        act: What is done. An exception of it is shown in the view.
        note: A sentence beside the button.
        background: Whether `act` runs in a thread of its own, as it would keep the kernel from answering.
    """

    label: str
    doing: str
    act: Callable[[], object]
    note: str = ""
    background: bool = False


class Actions:
    """The actions that are offered, the one that is at work, and the one that failed.

    Args:
        changed: Called after each change of what `index` says.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._offered: tuple[Action, ...] = ()
        self._doing: str | None = None
        self._failed: dict[str, str] | None = None

    def offer(self, actions: Iterable[Action]) -> None:
        """Offer these in place of those before, and forget what failed; the caller shows it."""
        self._offered, self._failed = tuple(actions), None

    def index(self) -> dict[str, Any]:
        """What a view shows of them, ready for JSON."""
        return {
            "offered": [{"label": action.label, "note": action.note} for action in self._offered],
            "doing": self._doing,
            "failed": self._failed,
        }

    def press(self, label: Any) -> None:
        """Do what the button says; a button that is offered no more does nothing.

        Two views may show one button, and a kernel that is busy gets both presses later: the second is too late then.
        """
        action = next((offered for offered in self._offered if offered.label == label), None)
        if action is None or self._doing is not None:
            return
        before, self._offered = self._offered, ()
        self._doing, self._failed = action.doing, None
        self._changed()
        if action.background:
            threading.Thread(target=self._perform, args=(action, before), name=action.doing, daemon=True).start()
        else:
            self._perform(action, before)

    def _perform(self, action: Action, before: tuple[Action, ...]) -> None:
        try:
            action.act()
        except Exception as error:  # of the owner's code; the page is where it was asked for
            self._failed = {"label": action.label, "error": f"{type(error).__name__}: {error}"}
            self._offered = self._offered or before
        finally:
            self._doing = None
            self._changed()
