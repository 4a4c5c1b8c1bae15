"""Which tests of Keras a backend runs, where not each is asked for all of them."""

from __future__ import annotations

import os
from pathlib import Path
from zlib import crc32

import pytest

TESTS = Path(__file__).parents[1]

# What a backend has of its own: its operations, its tensors, its files, its devices and its users' steps.
WHOLE = {
    *("losses", "metrics", "adapters", "batches", "reference", "evaluation", "test_written_before.py"),
    *("test_distribution.py", "test_saved_model.py", "test_serialisation.py", "test_users_own_steps.py"),
}
# Of what both sides promise, the trainings that are led by bc_core.
LED_BY_CORE = {f"test_{name}.py" for name in ("after_training", "folds", "promise", "sweep", "sweep_promises")}


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
    if not item.path.is_relative_to(TESTS):
        return False
    room, *path = item.path.relative_to(TESTS).parts
    shared = not WHOLE & set(path) if room == "keras" else room == "conformance" and bool(LED_BY_CORE & set(path))
    # What some backend does not run, another may be alone with.
    return shared and not any(item.iter_markers("skipif"))


def _name(item: pytest.Item) -> str:
    path = item.path.relative_to(TESTS)
    # Programs are trained once for all tests of them.
    case = item.callspec.id if "public_code" in path.parts and hasattr(item, "callspec") else item.name
    return f"{path.as_posix()}::{case}"
