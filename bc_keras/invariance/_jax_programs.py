"""Functions for JAX that are compiled once for each program, whichever call or model the program comes from."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

# Executables that are kept; weights are none of theirs, since they are given as arguments.
_MOST = 64

_kept: OrderedDict[tuple[str, ...], Any] = OrderedDict()


class Program:
    """A function that JAX traces at its first call, and compiles unless the same program was compiled before.

    JAX itself knows a program again by the function object, and so compiles anew in each `measure`. Here it is known by
    its text, which changes with whatever matters of a model, but not with its weights.

    Args:
        function: Of arrays, in structures that are the same at each call, as are shapes and types.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function, self._devices = function, frozenset[Any]()
        self._compiled: Any = None
        self._jitted: Any = None

    def __call__(self, *arguments: Any) -> Any:
        """Run it."""
        import jax

        if self._jitted is None:
            # All arguments are kept so that constants can be told from them.
            self._jitted = jax.jit(self._function, keep_unused=True)
        leaves = jax.tree_util.tree_leaves(arguments)
        devices = frozenset(device for leaf in leaves if isinstance(leaf, jax.Array) for device in leaf.devices())
        if self._compiled is None and len(devices) <= 1:
            self._compiled, self._devices = _compiled(self._jitted.lower(*arguments), len(leaves), devices), devices
        # How arrays lie on several devices, JAX looks at itself.
        run = self._compiled if self._compiled is not None and devices == self._devices else self._jitted
        return run(*arguments)


def _compiled(lowered: Any, arguments: int, devices: frozenset[Any]) -> Any:
    text = lowered.as_text()
    if not _says_all(text, arguments):
        return lowered.compile()
    digest = hashlib.sha256(text.encode()).hexdigest()
    # Names in structures are not in the text.
    key = (digest, str(lowered.args_info), str(lowered.out_tree), str(sorted(map(str, devices))))
    if key not in _kept:
        _kept[key] = lowered.compile()
        for old in list(_kept)[:-_MOST]:
            _kept.pop(old, None)
    return _kept[key]


def _says_all(text: str, arguments: int) -> bool:
    """Whether nothing of a program is beside its text: functions of Python, or constants handed in as arguments."""
    main: Sequence[str] = [line for line in text.splitlines() if "@main(" in line]
    return "callback" not in text and len(main) == 1 and main[0].count("%arg") == arguments
