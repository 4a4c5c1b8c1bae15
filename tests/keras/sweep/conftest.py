"""h1 of the sweeps."""

import keras
import pytest
from swept_in_keras import COMPILE, data, net


@pytest.fixture(scope="module")
def h1():
    keras.utils.set_random_seed(11)
    model = net()
    model.compile(**COMPILE)
    model.fit(*data(), epochs=5, verbose=0)
    return model
