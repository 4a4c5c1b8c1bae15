"""`SweepManager`, and `sweep_manager` of the widget: the sweep under the original's method names."""

from __future__ import annotations

import inspect
import io
import json
import time

import numpy as np
import pytest
import torch
from flask import send_file
from PIL import Image
from torch import nn

from bc_lightning import CompatibilityAnalysis, SweepManager, evaluate


def batches(seed=0):
    torch.manual_seed(seed)
    return [[list(range(8 * i, 8 * i + 8)), torch.randn(8, 5), torch.arange(8) % 3] for i in range(3)]


def arguments(folder):
    train, test = batches(), batches(1)
    return [folder, 1, nn.Linear(5, 3), nn.Linear(5, 3), train, test, 8, 8]


def test_the_arguments_are_those_of_the_original_in_their_order():
    assert list(inspect.signature(SweepManager).parameters) == [
        *("folder_name", "number_of_epochs", "h1", "h2", "training_set", "test_set"),
        *("batch_size_train", "batch_size_test", "OptimizerClass", "optimizer_kwargs"),
        *("NewErrorLossClass", "StrictImitationLossClass", "lambda_c_stepsize"),
        *("new_error_loss_kwargs", "strict_imitation_loss_kwargs", "performance_metric"),
        *("get_instance_image_by_id", "get_instance_metadata", "device", "use_ml_flow", "ml_flow_run_name"),
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    # As the folders of the original's clone are.
    (folder / ".gitkeep").touch()
    manager = SweepManager(*arguments(folder), lambda_c_stepsize=0.5)
    assert (manager.is_running(), manager.get_sweep_status(), manager.sweep) == (False, 0.0, None)
    manager.start_sweep_synchronous()
    return manager


def test_summary_and_evaluations_are_numbered_as_there(finished, tmp_path):
    assert (finished.is_running(), finished.get_sweep_status()) == (False, 1.0)
    summary = finished.get_sweep_summary()
    assert summary["performance_metric"] == "model_accuracy"
    flags = [
        (row["lambda_c"], "new" if row["new-error"] else "strict", "train" if row["training"] else "test")
        for row in summary["data"]
    ]
    # The order of the original's loop.
    assert flags == [
        (lambda_c, loss, data) for lambda_c in (0, 0.5, 1) for loss in ("new", "strict") for data in ("train", "test")
    ]
    assert [row["datapoint_index"] for row in summary["data"]] == list(range(12))
    x, y = (torch.cat([batch[part] for batch in finished.test_set]) for part in (1, 2))
    right = (finished.h1(x).argmax(1) == y).numpy()
    assert summary["h1_performance"] == pytest.approx(right.mean())
    model = nn.Linear(5, 3)
    model.load_state_dict(torch.load(finished.sweep.model_path("new_error", 1.0)))
    found = (model(x).argmax(1) == y).numpy()
    row = summary["data"][9]
    assert row["performance"] == pytest.approx(found.mean())
    assert row["btc"] == pytest.approx((right & found).sum() / right.sum())
    assert row["bec"] == pytest.approx((~right & ~found).sum() / (~right).sum())
    evaluation = finished.get_evaluation(9)
    assert evaluation["lambda_c"] == 1.0
    assert evaluation["models_error_overlap"][1] == np.flatnonzero(~found).tolist()
    wanted = evaluate(finished.h1, model, finished.test_set).to_dict()
    assert {key: evaluation[key] for key in wanted} == wanted
    with pytest.raises(FileNotFoundError, match="no evaluation 12"):
        finished.get_evaluation(12)
    # What is written for the original's own readers is the same.
    finished.sweep.to_original(tmp_path / "original")
    assert json.loads((tmp_path / "original" / "9-evaluation-data.json").read_text()) == evaluation
    written = SweepManager(tmp_path / "original")
    assert written.get_sweep_summary() == summary
    assert written.get_evaluation(9) == evaluation
    assert written.get_sweep_status() == 1.0
    # And so is what another process says who opens the folder.
    opened = SweepManager(finished.folder_name)
    assert (opened.get_sweep_summary(), opened.get_sweep_status()) == (summary, 1.0)


def test_without_an_optimiser_it_is_sgd_as_there(finished):
    h2, train = nn.Linear(5, 3), finished.training_set
    h2.load_state_dict(finished.h2.state_dict())
    optimizer = torch.optim.SGD(h2.parameters())
    torch.manual_seed(0)
    for _, x, y in train:
        optimizer.zero_grad()
        nn.functional.cross_entropy(h2(x), y).backward()
        optimizer.step()
    found = torch.load(finished.sweep.model_path("new_error", 0.0))
    for key, value in h2.state_dict().items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=1e-6)


def test_images_come_as_those_of_the_widget(tmp_path):
    def image(instance):
        content = io.BytesIO()
        Image.new("L", (instance, 3)).save(content, "PNG")
        content.seek(0)
        return send_file(content, mimetype="image/png")

    manager = SweepManager(tmp_path, get_instance_image_by_id=image)
    assert Image.open(io.BytesIO(manager.get_instance_image(7))).size == (7, 3)
    white = Image.open(io.BytesIO(SweepManager(tmp_path).get_instance_image(7)))
    assert (white.size, white.getextrema()) == ((30, 30), (255, 255))


def test_the_widget_has_one_and_shows_what_it_starts(tmp_path):
    shown = CompatibilityAnalysis(*arguments(tmp_path / "s"), lambda_c_stepsize=1.0)
    manager = shown.sweep_manager
    assert isinstance(manager, SweepManager)
    manager.start_sweep_synchronous()
    assert manager.sweep is shown.sweep
    assert len(shown.view.index["series"]) == len(manager.get_sweep_summary()["data"]) == 8


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(TypeError, match="SweepManager needs number_of_epochs, h1, h2, training_set"):
        SweepManager(tmp_path).start_sweep()


class Failing(nn.Linear):
    def forward(self, x):
        if self.training:
            raise OSError("no such device")
        return super().forward(x)


@pytest.mark.slow
def test_in_the_background(tmp_path):
    manager = SweepManager(*arguments(tmp_path / "s"), lambda_c_stepsize=1.0)
    manager.start_sweep()
    assert manager.is_running()
    with pytest.raises(RuntimeError, match="is running"):
        manager.start_sweep()
    while manager.is_running():
        assert 0 <= manager.get_sweep_status() <= 1
        time.sleep(0.1)
    assert manager.get_sweep_status() == 1.0
    assert len(manager.get_sweep_summary()["data"]) == 8


@pytest.mark.usefixtures("background_here")
@pytest.mark.filterwarnings("ignore:The sweep in .* ended:RuntimeWarning")
def test_what_ends_it_in_the_background_is_not_a_status_of_zero(tmp_path):
    given = arguments(tmp_path / "failing")
    given[3] = Failing(5, 3)
    failing = SweepManager(*given, lambda_c_stepsize=1.0)
    failing.start_sweep()
    while failing.is_running():
        time.sleep(0.1)
    with pytest.raises(RuntimeError, match="no such device"):
        failing.get_sweep_status()
