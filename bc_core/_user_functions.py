"""Functions of the user's own, by `module:function`."""

from __future__ import annotations

import importlib
import os
import re
import sys
from typing import Any


def names_function(text: str) -> bool:
    """Whether a text reads like `module:function`.

    Example:
        >>> from bc_core._user_functions import names_function
        >>> names_function("mine.models:classify"), names_function("abs(pred) <= 2")
        (True, False)
    """
    return re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", text) is not None


def imported(name: str, option: str) -> Any:
    """What `module:function` names; the folder that we are in is looked at first.

    Raises:
        ValueError: It is not of that form, or the module has no such function, or fails while it is imported.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ValueError(f"{option}: expected module:function, got {name!r}")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(module)
    except Exception as error:
        raise ValueError(f"{option}: {module} cannot be imported ({type(error).__name__}: {error})") from error
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise ValueError(f"{option}: {module} has no {attribute!r}")
    if not callable(found):
        raise ValueError(f"{option}: {name} is no function, but {type(found).__name__}")
    return found
