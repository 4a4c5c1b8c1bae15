"""The two names under which Lightning is installed, ``pytorch_lightning`` and ``lightning.pytorch``, as one.

They are two copies of the same code with classes of their own. What is handed to a Trainer or a LightningCLI has to be
an instance of a class of the copy that it came from, so a class that is for both derives from both.
"""

from __future__ import annotations

import importlib
import re
import sys
from typing import TYPE_CHECKING, Any

__all__ = ["PACKAGES", "Callback", "LightningModule", "logged_name", "of_both"]

PACKAGES = ("pytorch_lightning", "lightning.pytorch")


def _classes(package: str, name: str) -> list[type[Any]]:
    try:
        # Whether it will be in use cannot be told yet: the program may import it after this package.
        return [getattr(importlib.import_module(package), name)]
    except ImportError:
        return []


def of_both(name: str) -> type[Any]:
    """The class `name` of every Lightning package that is installed, as one class to derive from."""
    found = [each for package in PACKAGES for each in _classes(package, name)]
    return found[0] if len(found) == 1 else type(name, tuple(found), {"__module__": __name__})


_LOADER = "/dataloader_idx_"


class CompleteName(str):
    """A name in which Lightning before 2.5.3 does not find what it refuses."""

    __slots__ = ()

    def __contains__(self, part: object) -> bool:
        return part != _LOADER and super().__contains__(part)  # type: ignore[operator]

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        # What is saved of logged values loads without this package.
        return str, (str(self),)


def logged_name(name: str) -> str:
    """A name such as ``val_btc/dataloader_idx_0``, for ``self.log(..., add_dataloader_idx=False)``.

    It is how Lightning itself names what it logs of one loader among several, but before 2.5.3 it refuses any such
    name, also where the caller says that it is complete.
    """
    return CompleteName(name) if _LOADER in name and _REFUSES_COMPLETE_NAMES else name


def _is_before(package: str, version: tuple[int, ...]) -> bool:
    module = sys.modules.get(package)
    return module is not None and tuple(int(part) for part in re.findall(r"\d+", module.__version__)[:3]) < version


if TYPE_CHECKING:
    from pytorch_lightning import Callback, LightningModule
else:
    Callback, LightningModule = of_both("Callback"), of_both("LightningModule")
_REFUSES_COMPLETE_NAMES = any(_is_before(package, (2, 5, 3)) for package in PACKAGES)
