"""What was given to a sweep, in short: how a folder is known again by the same call."""

from __future__ import annotations

import functools
import sys
import sysconfig
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

_OURS = ("bc_core", "bc_keras", "bc_lightning", "bc_tensorboard")

# Of a framework's own object what there is to say; None for any other.
Special = Callable[[Any], str | None]


def told(value: Any, special: Special) -> str:
    """A value in short, the same in every process: no addresses.

    Args:
        value: Anything: numbers, texts, containers, functions, objects.
        special: What a framework says of its own objects.

    Example:
        >>> from bc_core.sweep._told import told
        >>> told({"max_epochs": 3, "names": ("a", None)}, lambda value: None)
        "{max_epochs: 3, names: ['a', None]}"
        >>> def rate(of):
        ...     return lambda: of
        >>> told(rate(0.1), lambda value: None) == told(rate(0.2), lambda value: None)
        False
    """
    said = special(value)
    if said is not None:
        return said
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    if isinstance(value, str):
        return repr(value) if len(value) < 60 else f"text {zlib.crc32(value.encode()):08x}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {told(value[key], special)}" for key in sorted(value, key=str)) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(told(part, special) for part in value) + "]"
    if isinstance(value, functools.partial):
        parts = (value.func, value.args, value.keywords)
        return f"partial({', '.join(told(part, special) for part in parts)})"
    code = getattr(value, "__code__", None)
    if code is not None:
        # Functions of one name differ by what they do and by the numbers and texts they read; their lines may move.
        cells = [cell.cell_contents for cell in getattr(value, "__closure__", None) or () if _is_filled(cell)]
        names = [value.__globals__[name] for name in code.co_names if name in value.__globals__]
        reads = [part for part in (*cells, *names, value.__defaults__, value.__kwdefaults__) if _is_plain(part)]
        does = repr((code.co_code, _constants(code), code.co_names, told(reads, special)))
        return f"{value.__qualname__} {zlib.crc32(does.encode()):08x}"
    named = getattr(value, "__qualname__", None)
    return str(named) if named is not None else f"{type(value).__qualname__}{plain_attributes(value, special)}"


def full_sentence(error: object) -> str:
    """What an error says, with one full stop, to go on from in a sentence of ours.

    Example:
        >>> from bc_core.sweep._told import full_sentence
        >>> full_sentence(ValueError("x must be 1. Received: 2.")), full_sentence("no space left")
        ('x must be 1. Received: 2.', 'no space left.')
    """
    said = str(error).rstrip()
    return said if said.endswith((".", "!", "?")) else f"{said}."


def plain_attributes(value: Any, special: Special) -> str:
    """The numbers and texts that an object holds, such as a callback's patience or a module's learning rate."""
    plain: dict[str, Any] = {
        name: part
        for name, part in getattr(value, "__dict__", {}).items()
        if _is_plain(part) and not name.startswith("_") and name != "training"
    }
    hyperparameters = getattr(value, "hparams", None)
    if isinstance(hyperparameters, Mapping) and hyperparameters:
        plain["hparams"] = dict(hyperparameters)
    return told(plain, special) if plain else ""


def code_of(kinds: Iterable[type], special: Special) -> str:
    """What the methods of the caller's own classes do, in short; nothing of classes that are installed.

    Example:
        >>> from bc_core.sweep._told import code_of
        >>> code_of([dict], lambda value: None)
        ''
    """
    found = []
    own = dict.fromkeys(base for kind in kinds for base in kind.__mro__ if not _is_installed(base))
    for base in own:
        for name, member in sorted(vars(base).items()):
            function = getattr(member, "fget", None) or getattr(member, "__func__", member)
            if hasattr(function, "__code__"):
                found.append(f"{base.__qualname__}.{name} {told(function, special)}")
    return f"code {zlib.crc32(repr(sorted(found)).encode()):08x}" if found else ""


def _is_installed(kind: type) -> bool:
    """Whether a class belongs to a package, and not to what the caller writes."""
    if kind.__module__ == "__main__":
        return False
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    if file is None or kind.__module__.split(".")[0] in _OURS:
        return True
    places = (sysconfig.get_path("stdlib"), "site-packages", "dist-packages")
    return any(place in file for place in places)


def _is_plain(value: Any) -> bool:
    """Whether a value is made of numbers and texts alone, which do not change as they are used."""
    if isinstance(value, (tuple, list)):
        return bool(value) and all(map(_is_plain, value))
    if isinstance(value, Mapping):
        return bool(value) and all(map(_is_plain, value.values()))
    return isinstance(value, (bool, int, float, str, np.generic))


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _constants(code: Any) -> list[Any]:
    constants: list[Any] = []
    for part in code.co_consts:
        if hasattr(part, "co_consts"):
            constants.append((part.co_code, _constants(part), part.co_names))
        else:
            # A frozenset of texts has another order in every process.
            constants.append(sorted(map(repr, part)) if isinstance(part, frozenset) else part)
    return constants
