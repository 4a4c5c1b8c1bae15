"""What compiled graphs are kept out of, and what tells of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

_Function = TypeVar("_Function", bound=Callable[..., Any])
# What looks at memory, records or logs stays out of compiled graphs; around it they break.
eager = cast("Callable[[_Function], _Function]", torch.compiler.disable)


def is_compiling() -> bool:
    """Whether this is being traced into a graph, where neither hooks nor memory can be looked at."""
    return bool(torch.compiler.is_compiling())


def in_backward() -> bool:
    """Whether a backward pass runs, which calls h2 again where activations are recomputed."""
    return not is_compiling() and torch._C._current_graph_task_id() != -1
