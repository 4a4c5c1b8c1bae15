"""The two names under which Lightning is installed, ``pytorch_lightning`` and ``lightning.pytorch``, as one.

They are two copies of the same code with classes of their own. What is handed to a Trainer or a LightningCLI has to be
an instance of a class of the copy that it came from, so a class that is for both derives from both.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["PACKAGES", "Callback", "LightningModule", "LoggedName", "of_both"]

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


class LoggedName(str):
    """A name such as ``val_btc/dataloader_idx_0``, for ``self.log(..., add_dataloader_idx=False)``.

    It is how Lightning itself names what it logs of one loader among several, but before 2.5.3 it refuses any name in
    which it finds the middle part, also where the caller says that the name is complete.
    """

    __slots__ = ()

    def __contains__(self, part: object) -> bool:
        return part != "/dataloader_idx_" and super().__contains__(part)  # type: ignore[operator]


if TYPE_CHECKING:
    from pytorch_lightning import Callback, LightningModule
else:
    Callback, LightningModule = of_both("Callback"), of_both("LightningModule")
