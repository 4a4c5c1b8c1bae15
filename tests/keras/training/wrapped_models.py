"""BCModels as the tests of them train and read them."""

from __future__ import annotations

import keras
import numpy as np
from user_models import answers, data, net

from bc_keras import BCModel

SPARSE = "sparse_categorical_crossentropy"


def sgd():
    return keras.optimizers.SGD(0.5)


def fitted(h1, lambda_c=2.0, base=SPARSE, epochs=2, compiled=None, seed=1, h2=None, fit=None, **options):
    """A BCModel after training on the same batches in the same order each time."""
    x, y = data()
    model = BCModel(net(seed) if h2 is None else h2, h1=h1, lambda_c=lambda_c, **options)
    model.compile(sgd(), loss=base, **(compiled or {}))
    history = model.fit(x, y, batch_size=32, epochs=epochs, shuffle=False, verbose=0, **(fit or {}))
    return model, history


def weights(model):
    return np.concatenate([array.ravel() for array in model.get_weights()])


def right(model, x, y):
    return answers(model, x).argmax(1) == y
