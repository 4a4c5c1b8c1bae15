"""Seeds, and compiling that is quick."""

import keras
import pytest
from measured_layers import BACKEND


@pytest.fixture(autouse=True)
def _seed(request):
    keras.utils.set_random_seed(0)
    if BACKEND != "jax" or request.node.name.startswith("test_every_layer"):
        yield
        return
    import jax

    # Compiling takes longer than everything else here: as fast code is of no use, it need not be that good.
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
