"""The Lightning side and the Keras side compute the same numbers from the same logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from keras import ops

import bc_keras
import bc_lightning
from bc_core import SCORES

BASES = ("nll", "cross_entropy", "binary_cross_entropy", "kl_divergence")


def outputs(base, seed):
    random = np.random.default_rng(seed)
    shape = (64,) if base == "binary_cross_entropy" else (64, 5)
    h1, h2 = (3 * random.normal(size=shape).astype("float32") for _ in range(2))
    right = (h1 > 0).astype("int64") if h1.ndim == 1 else h1.argmax(1)
    wrong = random.integers(2 if h1.ndim == 1 else 5, size=64)
    return h2, np.where(random.random(64) < 0.5, right, wrong), h1


@pytest.mark.parametrize("normalization", ["batch", "support"])
@pytest.mark.parametrize("dissonance", ["new_error", "strict_imitation", "imitation"])
@pytest.mark.parametrize("base", BASES)
def test_losses(base, dissonance, normalization):
    for seed in range(3):
        h2, target, h1 = outputs(base, seed)
        arrays = [torch.from_numpy(array) for array in (h2, target, h1)]
        if base == "nll":  # torch's takes log-probabilities
            arrays = [arrays[0].log_softmax(1), arrays[1], arrays[2].log_softmax(1)]
        theirs = bc_lightning.CompatibilityLoss(base, dissonance, 2.0, normalization)(*arrays)
        ours = bc_keras.CompatibilityLoss(base, dissonance, 2.0, normalization, from_logits=True)(h2, target, h1)
        # Two float32 sums over 64 instances.
        assert float(ours) == pytest.approx(float(theirs), rel=1e-6)


@pytest.mark.parametrize("name", ["BTC", "NegativeFlipRate", "PositiveFlipRate", "NegativeFlipImpact", "h1", "h2"])
def test_scores(name):
    h2, target, h1 = outputs("cross_entropy", 0)
    kwargs = {} if len(name) > 2 else {"given": f"{name}_wrong"}
    name = name if len(name) > 2 else "BEC"
    metric = getattr(bc_keras, name)(**kwargs)
    _, joined = bc_keras.attach_h1(h1, h2, target)
    metric.update_state(joined, h2)
    torch_metric = getattr(bc_lightning, name)(task="multiclass", num_classes=5, **kwargs)
    theirs = torch_metric(torch.from_numpy(h2), torch.from_numpy(target), torch.from_numpy(h1))
    assert float(ops.convert_to_numpy(metric.result())) == pytest.approx(float(theirs), rel=1e-6)
    assert metric.name in SCORES


def test_the_same_names():
    """What is called X there is called X here; the rest is said by hand, with its reason."""
    only_torch = {
        "BCLightningModule",  # BCModel
        "IncompatibilityByClass",  # ErrorOverlapMetric(num_classes=...).overlap()
        "LogComparisons",  # arguments of CompatibilityCallback
        "functional",  # Keras's losses and metrics are objects
        "metrics",
        "load_h1",  # keras.models.load_model
    }
    assert set(bc_lightning.__all__) - set(bc_keras.__all__) == only_torch
