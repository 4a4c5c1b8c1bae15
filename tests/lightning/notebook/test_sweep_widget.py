"""`CompatibilityAnalysis.start`: a sweep that a notebook starts, and a dashboard that follows it."""

from __future__ import annotations

import time

import pytest
import torch
from sweep_training import digits, trained_h1
from torch import nn

from bc_core import Sweep
from bc_lightning import (
    BCCrossEntropyLoss,
    CompatibilityAnalysis,
    StrictImitationCrossEntropyLoss,
    evaluate,
)


def batches(dataset, size=100):
    x, y = dataset.tensors
    return [
        (torch.arange(start, start + size), x[start : start + size], y[start : start + size])
        for start in range(0, len(y), size)
    ]


def buttons(shown):
    return [action["label"] for action in shown.view.index["actions"]["offered"]]


@pytest.mark.slow
def test_the_call_of_the_original_starts_a_sweep_and_the_dashboard_follows(tmp_path):
    data = digits()
    h1, h2 = trained_h1(data["h1"]), nn.Linear(784, 10)
    before = {key: value.clone() for key, value in h2.state_dict().items()}
    train, test = batches(data["train"]), batches(data["test"])
    shown = CompatibilityAnalysis(
        tmp_path / "sweep", 2, h1, h2, train, test, 100, 100,
        lambda_c_stepsize=0.5,
        OptimizerClass=torch.optim.SGD, optimizer_kwargs={"lr": 0.1},
        NewErrorLossClass=BCCrossEntropyLoss, StrictImitationLossClass=StrictImitationCrossEntropyLoss,
    )  # fmt: skip
    assert shown.view.index["series"] == []
    assert buttons(shown) == ["Start the sweep"]
    sweep = shown.start(tensorboard=False)
    assert isinstance(sweep, Sweep)
    with pytest.raises(RuntimeError, match="is running"):
        shown.start()
    seen, stops = [], []
    while shown.is_running:
        seen.append(shown.view.index["progress"])
        stops.append(buttons(shown) == ["Stop"])
        time.sleep(0.1)
    sweep.wait()
    deadline = time.time() + 60
    while shown.view.index["progress"] is not None and time.time() < deadline:
        time.sleep(0.1)
    assert any(progress is not None and 0 < progress < 1 for progress in seen)
    assert shown.view.index["progress"] is None
    assert any(stops)
    assert buttons(shown) == []
    assert [point.lambda_c for point in sweep.points if point.loss in (None, "new_error")] == [0, 0.5, 1]
    # Two losses of three lambdas, each on training and test data.
    assert len(shown.view.index["series"]) == 2 * 3 * 2
    assert all(torch.equal(before[key], value) for key, value in h2.state_dict().items())
    model = nn.Linear(784, 10)
    model.load_state_dict(torch.load(sweep.model_path("strict_imitation", 1.0)))
    wanted = evaluate(h1, model, test).comparison.overlap
    assert sweep.comparison("strict_imitation", 1.0, dataset="test").overlap == wanted

    again = CompatibilityAnalysis(tmp_path / "sweep")
    assert len(again.view.index["series"]) == 2 * 3 * 2
    with pytest.raises(TypeError, match="needs number_of_epochs, h1, h2, training_set"):
        again.start()
