"""Functions of the user's own, by `module:function`."""

from __future__ import annotations

import importlib
import os
import re
import sys
from types import ModuleType
from typing import Any


def names_function(text: str) -> bool:
    """Whether a text reads like `module:function`.

    Example:
        >>> from bc_core._user_functions import names_function
        >>> names_function("mine.models:classify"), names_function("abs(pred) <= 2")
        (True, False)
    """
    return re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", text) is not None


def module_here(name: str, option: str) -> ModuleType:
    """Import a module; the folder that we are in is looked at first.

    Raises:
        ValueError: There is none, or it fails while it is imported.
    """
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise ValueError(f"{option}: {name} cannot be imported ({type(error).__name__}: {error})") from error


def imported(name: str, option: str) -> Any:
    """What `module:function` names.

    Raises:
        ValueError: It is not of that form, or the module has no such function, or fails while it is imported.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ValueError(f"{option}: expected module:function, got {name!r}")
    found: Any = module_here(module, option)
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise ValueError(f"{option}: {module} has no {attribute!r}")
    if not callable(found):
        raise ValueError(f"{option}: {name} is no function, but {type(found).__name__}")
    return found
