"""What TensorFlow reads."""

from __future__ import annotations

import pytest


@pytest.fixture
def tf():
    return pytest.importorskip("tensorflow")
