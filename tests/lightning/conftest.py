import pytest
from user_code import make_h1


@pytest.fixture
def h1():
    return make_h1()
