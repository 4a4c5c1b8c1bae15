"""Which tests of this folder a backend runs, where not each is asked for all of them."""

from __future__ import annotations

import os
from pathlib import Path
from zlib import crc32

import pytest

HERE = Path(__file__).parent

# What a backend has of its own: its operations, its tensors, its files, its devices and its users' steps.
WHOLE = {
    *("losses", "metrics", "adapters", "batches", "reference", "evaluation", "test_written_before.py"),
    *("test_distribution.py", "test_saved_model.py", "test_serialisation.py", "test_users_own_steps.py"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--half",
        action="store_true",
        help="of the tests of Keras that run on torch in any case, JAX runs one half and TensorFlow the other",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the other backend's half: tracing a step takes these two longer than all else that a test does.

    A test keeps its side for as long as it keeps its name, so what fails does not depend on the tests beside it.
    """
    side = {"jax": 0, "tensorflow": 1}.get(os.environ.get("KERAS_BACKEND", ""))
    if side is None or not config.getoption("half"):
        return
    others = [item for item in items if _is_shared(item) and crc32(_name(item).encode()) % 2 != side]
    left_out = set(others)
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=others)


def _is_shared(item: pytest.Item) -> bool:
    if not item.path.is_relative_to(HERE) or WHOLE & set(item.path.relative_to(HERE).parts):
        return False
    # What some backend does not run, another may be alone with.
    return not any(item.iter_markers("skipif"))


def _name(item: pytest.Item) -> str:
    path = item.path.relative_to(HERE)
    # Programs are trained once for all tests of them.
    case = item.callspec.id if path.parts[0] == "public_code" and hasattr(item, "callspec") else item.name
    return f"{path.as_posix()}::{case}"
