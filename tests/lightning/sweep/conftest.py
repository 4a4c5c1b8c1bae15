"""Data, h1 and a small sweep."""

from __future__ import annotations

import pytest
from sweep_training import digits, run, trained_h1
from swept_modules import GRID


@pytest.fixture(scope="session")
def data():
    return digits()


@pytest.fixture(scope="session")
def h1(data):
    return trained_h1(data["h1"])


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A finished sweep of 3 lambdas and 2 losses."""
    return run(tmp_path_factory.mktemp("small") / "sweep", **GRID)
