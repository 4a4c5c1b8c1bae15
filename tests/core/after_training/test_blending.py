"""What a blend of answers is, against the probabilities themselves."""

import numpy as np
import pytest

from bc_core.after_training._blending import blended
from bc_core.losses._operations import NumpyOperations


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize("how", ["probability", "logit", "gate"])
@pytest.mark.parametrize("setting", [0.25, 0.9, 1])
def test_binary_scores_are_blended_as_those_of_two_classes(how, setting):
    z1, z2 = np.random.default_rng(0).normal(scale=3, size=(2, 500))
    found = sigmoid(blended(NumpyOperations(), how, setting, z1, z2, each_alone=True))
    p1, p2 = sigmoid(z1), sigmoid(z2)
    if how == "probability":
        wanted = setting * p1 + (1 - setting) * p2
    elif how == "logit":
        wanted = sigmoid(setting * z1 + (1 - setting) * z2)
    else:
        surer = np.maximum(p2, 1 - p2) > setting * np.maximum(p1, 1 - p1)
        assert setting < 0.5 or 0 < surer.sum() < 500
        wanted = np.where(surer, p2, p1)
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
