"""Replicas: two devices with the same global batch give the weights and the logs of one."""

from __future__ import annotations

import contextlib
import json
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from distributed_training import train
from warm_programs import run_program

BACKEND = keras.backend.backend()
SCRIPT = Path(__file__).parents[1] / "distributed_training.py"
# Both dissonances on the support with both normalizations, and each of the others; tracing them on two devices takes
# long, so some say two things at once: either would make a difference.
RECIPES = [
    {"unlabelled": True},
    {"unlabelled": "mixed", "dissonance": "imitation"},
    {"dissonance": "strict_imitation", "normalization": "support"},
    {"stored": True, "normalization": "support"},
    {"loss": "focal_distillation", "loss_options": {"temperature": 4.0}},
    {"loss": "where_h1_is_surer", "normalization": "support"},
    {"dissonance": "strict_imitation", "promise": "nfr <= 10%, btc >= 70%"},
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BACKEND == "torch", reason="Keras has no distribution on torch"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    done = run_program(SCRIPT, folder, json.dumps(RECIPES))
    assert done.returncode == 0, done.stderr[-3000:]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a promise that is missed
        for number, recipe in enumerate(RECIPES):
            train(contextlib.nullcontext, folder / f"1-devices-{number}", recipe)
    return folder


@pytest.mark.parametrize("number", range(len(RECIPES)), ids=lambda number: str(RECIPES[number]))
def test_two_devices_train_as_one(trained, number):
    one, two = (np.load(trained / f"{devices}-devices-{number}.npz") for devices in (1, 2))
    for name in one.files:
        np.testing.assert_allclose(two[name], one[name], rtol=0, atol=1e-5)
    logs = [json.loads((trained / f"{devices}-devices-{number}.json").read_text()) for devices in (1, 2)]
    assert set(logs[0]) == set(logs[1])
    for name, values in logs[0].items():
        assert logs[1][name] == pytest.approx(values, abs=1e-5), name
