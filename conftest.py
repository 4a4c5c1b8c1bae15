"""For pytest alone."""

import os

# One thread for each worker and each process it starts: they share the cores, and a sum's order stays the same.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# TensorFlow tells of every instruction set it was built for.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import gc
import importlib
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from _pytest.doctest import DoctestModule  # public nowhere

pytest_plugins = ["pytester"]
PACKAGES = ("bc_core", "bc_keras", "bc_lightning", "bc_tensorboard")


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(
    file_path: Path,
) -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
    """Import a package before its doctests: in import mode "importlib" its files would be imported a second time.

    Tests hold no examples: to look for them would import what they share once more, that of the other side too.
    """
    for package in PACKAGES:
        # Only where it is asked for: Keras runs on one backend per process.
        if package in file_path.parts and file_path.suffix == ".py":
            importlib.import_module(package)
    found = yield
    if file_path.is_relative_to(Path(__file__).parent / "tests"):
        return [each for each in found if not isinstance(each, DoctestModule)]
    return found


def pytest_collection_finish() -> None:
    """Look for garbage seldom, and not among what was imported: it took a tenth of the tests' time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(2_000, 10, 50)


@pytest.fixture
def background_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps in the background train in a thread of this process: another takes longer to begin than they all take."""
    from bc_core.sweep._engines import ENGINES
    from bc_core.sweep._work import Work

    def here(work: Work) -> None:
        work.recipe.prepare(work.folder.path)
        ENGINES["in_process"](work)

    monkeypatch.setitem(ENGINES, "processes", here)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C as in a terminal; processes in the background begin with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
