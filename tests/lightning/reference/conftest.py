"""Outputs that were stored."""

from __future__ import annotations

import pytest
from stored_in_torch import data, trained

from bc_lightning.reference._stored import StoredOutputs, store_outputs


@pytest.fixture
def stored(tmp_path) -> StoredOutputs:
    return store_outputs(trained(), data(), tmp_path / "stored", batch_size=8)
