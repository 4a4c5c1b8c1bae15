"""Names of functions and other callables by their content: is this the h1 that we saw before?

A function is told by its code, its defaults, what it closes over and the globals that it reads, as far as these can be
read: numbers, texts, arrays, models, and functions and objects of the same kind. Another function of the same name has
another fingerprint then. What cannot be read (a session, a client, a list that the function fills) is marked, so that
nobody takes equal names for a proof. Code of libraries is told by its name alone.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import logging
import site
import sys
import sysconfig
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np

# Byte code is that of one version of Python.
_PYTHON = sys.implementation.cache_tag or "python"
_UNSEEN = "?"
_DEPTH = 12
_LIBRARIES = tuple(
    {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    | {*site.getsitepackages(), site.getusersitepackages(), "<frozen"}
)
_FILLS = frozenset(
    ("append", "appendleft", "add", "extend", "insert", "pop", "popitem", "clear", "remove", "update", "setdefault")
)
_INSIDE = ("__wrapped__", "python_function", "_torchdynamo_orig_callable")

Read = Callable[[Any], "str | None"]


def fingerprint_of_callable(h1: Any, read: Read) -> str:
    """Name a callable that is no model itself.

    Args:
        h1: the callable. One with a `fingerprint` of its own, a string or a method that returns one, has that name.
        read: the fingerprint of a model, or a hash of a tensor, of the framework at hand; None of everything else.

    Returns:
        ``"callable:module.qualname#cpython-312:..."``, with a question mark at the end where not all could be read;
        without a ``#`` where there is nothing to read, as of a function written in C.

    Example:
        >>> from bc_core.reference._callable_fingerprint import fingerprint_of_callable, is_same_h1
        >>> def scaled(factor):
        ...     return lambda x: factor * x
        >>> one, same, other = (fingerprint_of_callable(scaled(f), lambda value: None) for f in (1.0, 1.0, 2.0))
        >>> is_same_h1(one, same), is_same_h1(one, other)
        (True, False)
    """
    own = getattr(h1, "fingerprint", None)
    if own is not None:
        return str(own() if callable(own) else own)
    name = f"callable:{_name(h1, read)}"
    if isinstance(h1, types.MethodType) and read(h1.__self__) is not None:
        return name
    content = _Content(read)
    content.add(h1, "h1", 0)
    if not content.parts:
        return name
    return f"{name}#{_PYTHON}:{content.hexdigest()}{_UNSEEN if content.unseen else ''}"


def is_same_h1(recorded: str, given: str) -> bool:
    """Whether two fingerprints may be of one h1: equal, but for content that only one of them tells."""
    if recorded == given:
        return True
    (one, _, its), (other, _, others) = recorded.partition("#"), given.partition("#")
    if one != other:
        return False
    # Stored by an earlier version, or by another version of Python.
    return not its or not others or its.partition(":")[0] != others.partition(":")[0]


def is_sure(recorded: str, given: str) -> bool:
    """Whether equal fingerprints mean equal content."""
    return recorded == given and not given.endswith(_UNSEEN)


def says_by_name(given: str) -> str:
    """Say that an h1 is known by its name alone."""
    return (
        f"h1 is a callable, {given.partition('#')[0].partition(':')[2]}, whose content cannot be read whole (it uses "
        "objects other than numbers, texts, arrays and models, or was stored by another version of Python or of this "
        "package), so it is taken to be the h1 of then by its name alone. To be sure, compare its answers "
        "(stored.verify), or give it a name that changes with it, h1.fingerprint = 'service-2026-11', before outputs "
        "are stored."
    )


def _name(h1: Any, read: Read) -> str:
    if isinstance(h1, functools.partial):
        inner = read(h1.func) or f"callable:{_name(h1.func, read)}"
        return f"partial({inner})"
    owner = getattr(h1, "__self__", None)
    if owner is not None and (model := read(owner)) is not None:
        return f"{h1.__func__.__qualname__}({model})"
    named = h1 if hasattr(h1, "__qualname__") else type(h1)
    return f"{named.__module__}.{named.__qualname__}"


class _Content:
    """What was read of a callable, and the names of what could not be."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._met: dict[int, int] = {}
        # What was met stays alive, so that no other gets its id.
        self._kept: list[Any] = []
        self.parts: list[str] = []
        self.unseen: list[str] = []

    def hexdigest(self) -> str:
        return hashlib.sha256("".join(f"{len(part)}:{part}" for part in self.parts).encode()).hexdigest()[:32]

    def add(self, value: Any, label: str, depth: int) -> None:
        """Read a value: what a function is made of, or what it uses."""
        if (plain := _plain(value)) is not None:
            self.parts.append(plain)
            return
        if id(value) in self._met:
            self.parts.append(f"as {self._met[id(value)]}")
            return
        self._met[id(value)] = len(self._met)
        self._kept.append(value)
        known: str | None = None
        with suppress(ValueError, TypeError, RuntimeError):
            known = self._read(value)
        if known is not None:
            self.parts.append(known)
        elif depth > _DEPTH:
            self.unseen.append(label)
        elif isinstance(value, types.FunctionType):
            self._function(value, depth)
        elif isinstance(value, types.MethodType):
            self._each(("method", value.__func__, value.__self__), label, depth)
        elif isinstance(value, functools.partial):
            self._each(("partial", value.func, value.args, value.keywords), label, depth)
        elif isinstance(value, (tuple, list)):
            self._each((type(value).__name__, len(value), *value), label, depth)
        elif isinstance(value, Mapping) and all(isinstance(key, (str, int, float)) for key in value):
            self._each(("dict", len(value)), label, depth)
            for key in sorted(value, key=repr):
                self._each((key, value[key]), f"{label}[{key!r}]", depth)
        elif isinstance(value, (set, frozenset)) and all(_plain(each) is not None for each in value):
            self.parts.append(f"set {sorted(str(_plain(each)) for each in value)}")
        elif (inner := _inside(value)) is not None:
            self._each(("wrapped", inner), label, depth)
        elif isinstance(value, type):
            self._class(value, depth)
        elif isinstance(value, types.BuiltinFunctionType) or not hasattr(value, "__dict__"):
            if callable(value) and hasattr(value, "__name__"):
                # Written in C: there is no more to it than its name.
                self.parts.extend(["builtin", str(value.__name__)] if depth else [])
            else:
                self.unseen.append(label)
        else:
            self._object(value, label, depth)

    def _each(self, values: tuple[Any, ...], label: str, depth: int) -> None:
        for value in values:
            self.add(value, label, depth + 1)

    def _function(self, function: types.FunctionType, depth: int) -> None:
        if _is_library(function.__code__):
            # A decorator's function, whose closure is what it decorates; else a library's.
            name = f"{function.__globals__.get('__name__')}.{function.__code__.co_name}"
            inner = getattr(function, "__wrapped__", None)
            cells = _cells(function) if inner is None else [inner]
            self._each(("library", name, *cells), name, depth)
            return
        self._code(function.__code__)
        filled = _filled(function.__code__)
        self._each((function.__defaults__, function.__kwdefaults__), "a default", depth)
        used = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        for name, cell in used.items():
            with suppress(ValueError):  # a cell that is empty yet
                self._used(name, cell.cell_contents, filled, depth)
        for name in sorted(set(_globals_of(function.__code__))):
            if name in function.__globals__:
                self._used(name, function.__globals__[name], filled, depth)

    def _used(self, name: str, value: Any, filled: set[str], depth: int) -> None:
        if isinstance(value, logging.Logger):
            return
        container = isinstance(value, (list, dict, set, bytearray))
        if name in filled or (container and "" in filled):
            # What a function writes is no part of what it is, but its answers may depend on it.
            self.unseen.append(name)
            return
        self.parts.append(name)
        self.add(value, name, depth + 1)

    def _code(self, code: types.CodeType) -> None:
        self.parts += ["code", code.co_code.hex(), repr(code.co_names), repr(code.co_freevars)]
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._code(constant)
            else:
                self.parts.append(str(_plain(constant)))

    def _class(self, kind: type, depth: int) -> None:
        self.parts.append(f"class {kind.__module__}.{kind.__qualname__}")
        for name, member in sorted(vars(kind).items()):
            function = getattr(member, "__func__", getattr(member, "fget", member))
            if isinstance(function, types.FunctionType) and not _is_library(function.__code__):
                self._each((name, function), f"{kind.__qualname__}.{name}", depth)
        for base in kind.__bases__:
            if base is not object and _has_own_code(base):
                self.add(base, base.__qualname__, depth + 1)

    def _object(self, value: Any, label: str, depth: int) -> None:
        kind = type(value)
        label = f"{label}, a {kind.__qualname__}"
        state = vars(value)
        if _has_own_code(kind):
            self.add(kind, label, depth + 1)
            # What its methods write besides its constructor may be another the next time.
            written = _written(kind)
        elif state and all(_is_data(each) for each in state.values()):
            self.parts.append(f"of {kind.__module__}.{kind.__qualname__}")
            written = set()
        else:
            self.unseen.append(label)
            return
        for name in sorted(state):
            if name in written:
                self.unseen.append(f"{label}.{name}")
            else:
                self._each((name, state[name]), f"{label}.{name}", depth)


def _plain(value: Any) -> str | None:
    """What a value is in words that are the same in every process; None of what has to be looked into."""
    if value is None or value is Ellipsis or isinstance(value, (bool, int, float, complex, str, bytes)):
        return f"{type(value).__name__} {value!r}"
    if isinstance(value, (np.ndarray, np.generic)) and not value.dtype.hasobject:
        content = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return f"array {value.dtype.str} {value.shape} {content}"
    if isinstance(value, (types.ModuleType, np.dtype, np.ufunc, slice, range, PurePath)):
        return f"{type(value).__name__} {getattr(value, '__name__', value)}"
    if isinstance(value, Enum):
        return f"{type(value).__qualname__} {value.name}"
    if type(value) in (tuple, frozenset) and all(_plain(each) is not None for each in value):
        told = [str(_plain(each)) for each in value]
        return f"{type(value).__name__} {told if isinstance(value, tuple) else sorted(told)}"
    return None


def _is_data(value: Any) -> bool:
    """Whether a library's object that holds this holds no more than data: the weights of a fitted estimator."""
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(_is_data, value))
    if isinstance(value, dict):
        return all(map(_is_data, value)) and all(map(_is_data, value.values()))
    return _plain(value) is not None


def _inside(value: Any) -> Any:
    """The function that a library has wrapped, compiled or cached in this object."""
    for name in _INSIDE:
        with suppress(Exception):
            found = getattr(value, name, None)
            if isinstance(found, (types.FunctionType, functools.partial)):
                return found
    return None


def _cells(function: types.FunctionType) -> list[Any]:
    found = []
    for cell in function.__closure__ or ():
        with suppress(ValueError):
            found.append(cell.cell_contents)
    return found


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _globals_of(code: types.CodeType) -> Iterator[str]:
    for each in _codes(code):
        for step in dis.get_instructions(each):
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                yield str(step.argval)


def _filled(code: types.CodeType) -> set[str]:
    """Names that a function writes or fills; "" where it writes into some container."""
    filled: set[str] = set()
    for each in _codes(code):
        before = ""
        for step in dis.get_instructions(each):
            if step.opname == "STORE_GLOBAL" or (step.opname == "STORE_DEREF" and step.argval in code.co_freevars):
                filled.add(str(step.argval))
            elif step.opname in ("STORE_SUBSCR", "DELETE_SUBSCR"):
                filled.add("")
            elif step.opname in ("LOAD_ATTR", "LOAD_METHOD") and step.argval in _FILLS:
                filled.add(before)
            before = str(step.argval) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF") else "-"
    return filled - {"-"}


def _written(kind: type) -> set[str]:
    """Attributes that the methods of a class write, but for its constructor."""
    names: set[str] = set()
    for base in kind.__mro__:
        for name, member in vars(base).items():
            if isinstance(member, types.FunctionType) and name not in ("__init__", "__post_init__", "__setstate__"):
                for code in _codes(member.__code__):
                    names |= {str(s.argval) for s in dis.get_instructions(code) if s.opname == "STORE_ATTR"}
    return names


def _is_library(code: types.CodeType) -> bool:
    return code.co_filename.startswith(_LIBRARIES)


def _has_own_code(kind: type) -> bool:
    functions = [member for member in vars(kind).values() if isinstance(member, types.FunctionType)]
    return any(not _is_library(function.__code__) for function in functions)
