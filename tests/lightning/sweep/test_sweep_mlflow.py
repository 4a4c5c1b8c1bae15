"""A Lightning sweep in a real MLflow store: each point's curves beside its scores."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bc_core import SweepFailedError
from bc_lightning import sweep

mlflow = pytest.importorskip("mlflow")

EPOCHS = 3


@pytest.fixture
def uri(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.chdir(tmp_path)
    return (tmp_path / "store").as_uri()


def loader(seed):
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(seed))
    return DataLoader(TensorDataset(x, x.argmax(1) % 3), batch_size=10)


def run(folder, uri, h2=lambda: nn.Linear(4, 3), **options):
    return sweep(
        h2, nn.Linear(4, 3), loader(0), val=loader(1), folder=folder, lambdas=[0, 1], losses=["new_error"],
        trainer={"max_epochs": EPOCHS, "accelerator": "cpu", "log_every_n_steps": 1}, optimizer=torch.optim.Adam,
        tensorboard=False, progress_bar=False, mlflow={"tracking_uri": uri, "experiment": "updates"}, **options,
    )  # fmt: skip


def children(uri):
    client = mlflow.MlflowClient(tracking_uri=uri)
    [experiment] = [each for each in client.search_experiments() if each.name == "updates"]
    runs = client.search_runs([experiment.experiment_id])
    return client, [each for each in runs if "mlflow.parentRunId" in each.data.tags], runs


@pytest.mark.parametrize("engine", [{}, {"engine": "processes"}])
def test_each_points_run_holds_its_curves_and_ends_with_its_own_scores(tmp_path, uri, engine):
    found = run(tmp_path / "sweep", uri, **engine)
    client, points, runs = children(uri)
    assert len(points) == 2
    assert {each.info.status for each in runs} == {"FINISHED"}
    scores = {row["lambda_c"]: row for row in found.rows("val")}
    for point in points:
        curve = client.get_metric_history(point.info.run_id, "val_btc")
        assert len(curve) == EPOCHS
        # What Lightning logged of the last epoch is what the sweep has found of the finished model.
        last = max(curve, key=lambda entry: entry.step).value
        assert last == pytest.approx(scores[float(point.data.params["lambda_c"])]["btc"], abs=1e-6)
    assert mlflow.active_run() is None


def test_the_runs_of_a_sweep_that_failed_are_closed(tmp_path, uri):
    class Broken(nn.Linear):
        def forward(self, x):
            if self.training:
                raise ArithmeticError("diverged")
            return super().forward(x)

    with pytest.raises(SweepFailedError, match="diverged"):
        run(tmp_path / "sweep", uri, h2=lambda: Broken(4, 3))
    _, _, runs = children(uri)
    assert {each.info.status for each in runs} == {"FAILED"}
    assert mlflow.active_run() is None
