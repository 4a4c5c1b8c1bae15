import logging

import pytest
from user_code import make_h1


@pytest.fixture
def h1():
    return make_h1()


@pytest.fixture
def caplog(caplog):
    """With what Lightning says: many tests quieten its loggers, for all that run after them in the same process."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        caplog.set_level(logging.INFO, logger=name)
    return caplog
