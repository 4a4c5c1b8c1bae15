"""What batches of three parts are taken for, by both sides' evaluate."""

import numpy as np
import pytest
import torch

from bc_core._batches_of_three import first_is_ids

N = 6
IDS, NAMES = np.arange(N), [f"n{i}" for i in range(N)]
X, IMAGES, TOKENS = np.random.default_rng(0).normal(size=(N, 4)), np.zeros((N, 3, 2, 2)), np.arange(2 * N).reshape(N, 2)
Y, ZERO_ONE, ONE_HOT = IDS % 3, (IDS % 2).astype(np.float32), np.eye(3)[IDS % 3]
WEIGHT = np.linspace(0.5, 3, N)


@pytest.mark.parametrize("as_tensors", [False, True])
@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        ((IDS, X, Y), True),
        ((NAMES, X, Y), True),
        ((IDS, IMAGES, ONE_HOT), True),
        ((IDS, X, ZERO_ONE), True),
        ((IDS, X[:, 0], Y), True),
        ((IDS, TOKENS, Y), True),
        ((NAMES, ["a text", *"bcdef"], Y), True),
        ((IDS, {"x": X}, Y), True),
        ((X, Y, WEIGHT), False),
        ((X, Y, ZERO_ONE), False),
        ((X, ONE_HOT, WEIGHT), False),
        ((TOKENS, Y, WEIGHT), False),
        (({"x": X}, Y, WEIGHT), False),
        ((IDS, Y, WEIGHT), False),
        ((IDS, ONE_HOT, WEIGHT), False),
        ((NAMES, Y, WEIGHT), False),
        ((IDS, Y, np.ones(N)), None),
        ((IDS, Y, Y), None),
        ((IDS, ONE_HOT, np.ones(N)), None),
    ],
)
def test_ids_inputs_target_or_inputs_target_weight(batch, expected, as_tensors):
    if as_tensors:
        batch = tuple(torch.as_tensor(part) if isinstance(part, np.ndarray) else part for part in batch)
    assert first_is_ids(batch) is expected
