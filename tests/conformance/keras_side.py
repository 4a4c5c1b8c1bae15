"""The side of Keras, on the backend of this process."""

from __future__ import annotations

import contextlib
import functools

import keras
import numpy as np
from keras import ops
from user_models import value_and_gradient

import bc_keras
from bc_keras._keras_operations import KerasOperations
from bc_keras.losses._losses import MODEL_LOSSES


@contextlib.contextmanager
def precision(dtype):
    """JAX has float64 only where it is asked for."""
    if keras.backend.backend() != "jax" or dtype != "float64":
        yield
        return
    import jax

    with jax.enable_x64(True):
        yield


def as_is(logits):
    return logits


class KerasSide:
    """See `conftest` and `LightningSide`."""

    def __init__(self):
        self.dtype, self.rtol = "float32", 2e-6
        self.label_dtypes = ("uint8", "int8", "int16", "int32", "int64", "float32")
        self.package, self.model_losses = bc_keras, MODEL_LOSSES
        self.outputs = [(as_is, 12, {"from_logits": True}), (functools.partial(ops.softmax, axis=-1), 12, {})]
        self.binary_outputs = [(as_is, 12, {"from_logits": True}), (ops.sigmoid, 12, {})]
        self.outputs_rtol = 2e-5
        self.nll_of_log_probabilities = False
        self.operations = KerasOperations()

    def tensor(self, array, dtype=None):
        return ops.convert_to_tensor(array, dtype)

    def array(self, tensor):
        return ops.convert_to_numpy(tensor)

    def loss(self, base="cross_entropy", dissonance="new_error", lambda_c=1.0, normalization="batch", **options):
        if "ignore" in options:
            options["ignore_class"] = options.pop("ignore")
        options.setdefault("from_logits", True)
        loss = bc_keras.CompatibilityLoss(base, dissonance, lambda_c, normalization, **options)
        return lambda h2, target, h1, reduction="mean": loss(h2, target, h1, reduction=reduction)

    def value_and_gradient(self, loss, h2, target, h1, dtype):
        with precision(dtype):
            h1 = np.asarray(h1, dtype)
            # Keras's own mean rounds float64 to float32 on torch (its `divide_no_nan`), its sum does not.
            return value_and_gradient(lambda h2: loss(h2, target, h1, "sum") / len(target), h2, dtype)

    def values_and_gradients(self, loss, lambdas, h2, target, h1, dtype):
        if keras.backend.backend() != "jax":
            batches = zip(map(loss, lambdas.tolist()), h2, target, h1, strict=True)
            return zip(*(self.value_and_gradient(*batch, dtype) for batch in batches), strict=True)
        import jax

        def mean(h2, lambda_c, target, h1):
            return loss(lambda_c)(h2, target, h1, "sum") / len(target)

        # Once for all of them: each takes longer to trace than to run.
        together = jax.jit(jax.vmap(jax.value_and_grad(mean)))
        with precision(dtype):
            h2, lambdas, h1 = (jax.numpy.asarray(each, dtype=dtype) for each in (h2, lambdas, h1))
            return [np.asarray(each) for each in together(h2, lambdas, jax.numpy.asarray(target), h1)]

    def model_loss(self, name, h2, h1, lambda_c, output=as_is, **options):
        def answer(logits, x):
            return output(ops.convert_to_tensor(np.asarray(logits, "float32")))

        h1, h2 = (functools.partial(answer, logits) for logits in (h1, h2))
        loss = self.model_losses[name](h1, h2, lambda_c, **options)
        return lambda target, reduction="mean": loss(
            np.zeros((len(target), 1)), np.asarray(target), reduction=reduction
        )
