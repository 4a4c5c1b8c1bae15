"""`CompatibilityAnalysis.start` in Keras: a sweep that a notebook starts."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from backends import once

from bc_keras import (
    BCCrossEntropyLoss,
    CompatibilityAnalysis,
    StrictImitationCrossEntropyLoss,
    SweepManager,
    evaluate,
)

# The sweep itself is tested on each backend.
pytestmark = once


def net():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])


@pytest.mark.slow
def test_the_call_of_the_original_starts_a_sweep(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 4)).astype("float32")
    y = x.argmax(1) % 3
    batches = [([f"row {i}" for i in range(a, a + 10)], x[a : a + 10], y[a : a + 10]) for a in range(0, 40, 10)]
    h1, h2 = net(), net()
    shown = CompatibilityAnalysis(
        tmp_path / "sweep", 1, h1, h2, batches, batches, 10, 10, lambda_c_stepsize=1.0,
        OptimizerClass=keras.optimizers.SGD, optimizer_kwargs={"learning_rate": 0.1},
        NewErrorLossClass=BCCrossEntropyLoss, StrictImitationLossClass=StrictImitationCrossEntropyLoss,
    )  # fmt: skip
    assert [action["label"] for action in shown.view.index["actions"]["offered"]] == ["Start the sweep"]
    # In this process: how workers start is tested with the sweep.
    sweep = shown.start(background=False, tensorboard=False)
    assert [(point.loss, point.lambda_c) for point in sweep.points] == [
        (None, 0.0),
        ("new_error", 1.0),
        ("strict_imitation", 1.0),
    ]
    model = keras.models.load_model(sweep.model_path("new_error", 1.0))
    found = sweep.comparison("new_error", 1.0, dataset="test")
    assert found.overlap == evaluate(h1, model, (x, y)).comparison.overlap
    assert len(found.instances)
    assert all(str(instance).startswith("row ") for instance in found.instances.ids)


def test_the_manager_of_the_original_and_sgd_where_no_optimiser_is_named(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 4)).astype("float32")
    y = x.argmax(1) % 3
    batches = [[list(range(a, a + 10)), x[a : a + 10], y[a : a + 10]] for a in range(0, 40, 10)]
    h1, h2 = net(), net()
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / ".gitkeep").touch()
    # One batch of all rows, whose order does not matter.
    manager = SweepManager(tmp_path / "sweep", 1, h1, h2, batches, batches, 40, 40, lambda_c_stepsize=1.0)
    manager.start_sweep_synchronous()
    assert (manager.is_running(), manager.get_sweep_status()) == (False, 1.0)
    found = keras.models.load_model(manager.sweep.model_path("new_error", 0.0))
    outputs = keras.ops.convert_to_numpy(h2(x))
    slope = x.T @ (outputs - np.eye(3)[y]) / 40
    np.testing.assert_allclose(found.get_weights()[0], h2.get_weights()[0] - 0.01 * slope, atol=1e-6)
    summary = manager.get_sweep_summary()
    assert [row["datapoint_index"] for row in summary["data"]] == list(range(8))
    wanted = evaluate(h1, found, batches).to_dict()
    evaluation = manager.get_evaluation(1)
    assert {key: evaluation[key] for key in wanted} == wanted
    shown = CompatibilityAnalysis(tmp_path / "sweep")
    assert shown.sweep_manager.get_sweep_summary() == summary
