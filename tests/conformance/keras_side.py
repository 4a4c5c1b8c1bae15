"""The side of Keras, on the backend of this process."""

from __future__ import annotations

import contextlib

import keras
import numpy as np
from keras import ops
from user_models import value_and_gradient

import bc_keras
from bc_keras.losses._keras_operations import KerasOperations
from bc_keras.losses._losses import MODEL_LOSSES


@contextlib.contextmanager
def double_precision():
    """JAX has float64 only where it is asked for."""
    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    with jax.enable_x64(True):
        yield


class KerasSide:
    name = "keras"
    dtype = "float32"
    rtol = 1e-6
    integers = ("uint8", "int8", "int16", "int32", "int64", "float32")
    named_losses = MODEL_LOSSES
    # Beyond a logit of 12 a probability in float32 has lost what the logit said.
    multiclass_outputs = {
        "logits": (lambda z: z, {"from_logits": True}, 12),
        "probabilities": (lambda z: ops.softmax(z, axis=-1), {}, 12),
    }
    binary_outputs = {"logits": (lambda z: z, {"from_logits": True}, 12), "probabilities": (ops.sigmoid, {}, 12)}
    golden_rtol, golden_atol = 2e-5, 1e-5

    def tensor(self, array, dtype=None):
        return ops.convert_to_tensor(array, dtype)

    def array(self, tensor):
        return ops.convert_to_numpy(tensor)

    def operations(self):
        return KerasOperations()

    def loss(
        self,
        base="cross_entropy",
        dissonance="new_error",
        lambda_c=1.0,
        normalization="batch",
        *,
        dtype=None,
        **options,
    ):
        if "ignore" in options:
            options["ignore_class"] = options.pop("ignore")
        loss = bc_keras.CompatibilityLoss(
            base, dissonance, lambda_c, normalization, dtype=dtype, **{"from_logits": True, **options}
        )
        return lambda h2, target, h1, reduction="mean": loss(h2, target, h1, reduction=reduction)

    def value_and_gradient(self, loss, h2, target, h1, dtype):
        with double_precision():
            h1 = np.asarray(h1, dtype)
            # Keras's own mean rounds float64 to float32 on torch (its `divide_no_nan`), its sum does not.
            return value_and_gradient(lambda h2: loss(h2, target, h1, "sum") / target.shape[0], h2, dtype)

    def named_loss(self, name, h2, h1, lambda_c, output=lambda z: z, **options):
        models = [
            lambda x, scores=scores: output(ops.convert_to_tensor(np.asarray(scores, "float32"))) for scores in (h1, h2)
        ]
        loss = getattr(bc_keras, name)(*models, lambda_c, **options)
        return lambda target, reduction="mean": self.array(
            loss(np.zeros((len(h2), 1)), np.asarray(target), reduction=reduction)
        )
