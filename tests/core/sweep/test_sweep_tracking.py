"""A sweep in a real MLflow store: one that ends well, fails, is interrupted, or loses MLflow on the way."""

import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest

from bc_core import SweepResults, compare
from bc_core.sweep._folder import Failure, SweepFolder, Trained
from bc_core.sweep._mlflow import MLflowTracker
from bc_core.sweep._points import Point, planned
from bc_core.sweep._trackers import Plan

mlflow = pytest.importorskip("mlflow")

LOSSES, LAMBDAS = ["new_error", "strict_imitation"], [0.0, 0.5, 1.0]
RECIPE = {"number_of_epochs": 3, "batch_size_train": 32, "optimizer": "SGD(lr=0.1)"}


@pytest.fixture
def uri(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.chdir(tmp_path)
    # An experiment that a test sets is that of the whole process, here and in the environment.
    monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
    for name in ("MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return (tmp_path / "store").as_uri()


class Fabricated:
    """The folder of a sweep, whose points are random labels."""

    def __init__(self, path, seeds=(0,), performances=False):
        self.seeds, self.performances = list(seeds), performances
        self.folder = SweepFolder(path)
        self.points = planned(LOSSES, LAMBDAS, self.seeds, True)
        with self.folder.locked():
            self.folder.begin({"epochs": "3"}, LOSSES, self.points)

    def train(self, point):
        rng = np.random.default_rng(self.points.index(point))

        def work(point, folder, report):
            (folder / "model.pt").write_bytes(point.name.encode())
            # The labels, and what h1 says, are the same for every point.
            shared = np.random.default_rng(99).integers(0, 3, (2, 40))
            comparisons = {name: compare(*shared, rng.integers(0, 3, 40), num_classes=3) for name in ("train", "test")}
            return Trained(
                comparisons, dict.fromkeys(comparisons, (0.25, 0.75)) if self.performances else {}, "model.pt"
            )

        self.folder.train(point, work)

    @property
    def results(self):
        return SweepResults(self.folder.path)

    def tracking(self, uri, **options):
        return MLflowTracker.of({"tracking_uri": uri, "experiment": "updates", **options}, self.folder.path)

    def begun(self, tracking, losses=LOSSES, lambdas=LAMBDAS):
        tracking.begin(self.results, Plan(RECIPE, losses, lambdas, self.seeds))
        return tracking

    def run(self, tracking, points=None):
        for point in self.points if points is None else points:
            tracking.logger(point)
            self.train(point)
            tracking.point_finished(self.results, point)


def runs_of(uri, experiment="updates"):
    """The runs of sweeps, and those of points by name."""
    client = mlflow.MlflowClient(tracking_uri=uri)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id], max_results=500)
    parents = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    children = {}
    for run in found:
        if "mlflow.parentRunId" in run.data.tags:
            children.setdefault(run.info.run_name, []).append(run)
    return client, parents, children


def files(client, run):
    return {entry.path for entry in client.list_artifacts(run.info.run_id)}


def test_none_and_false_track_nothing(tmp_path):
    for nothing in (None, False):
        assert MLflowTracker.of(nothing, tmp_path) is None


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        (3, TypeError, "name of an experiment"),
        ({"run": "x"}, ValueError, "'run'"),
        ({"experiment": 3}, ValueError, "experiment must be a text"),
    ],
)
def test_bad_options_are_refused(tmp_path, given, error, match):
    with pytest.raises(error, match=match):
        MLflowTracker.of(given, tmp_path)


def test_without_mlflow_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ImportError, match=r'pip install "backward-compat-ml\[mlflow\]"'):
        MLflowTracker.of(True, tmp_path)


def test_a_database_without_its_packages_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "alembic", None)
    sweep = Fabricated(tmp_path / "sweep")
    with pytest.raises(ImportError, match="pip install sqlalchemy alembic"):
        sweep.begun(sweep.tracking(f"sqlite:///{tmp_path}/x.db"))


def test_importing_it_imports_no_mlflow():
    foreign = ("mlflow", "pandas", "matplotlib")
    code = f"import sys, bc_core.sweep._mlflow; print([name for name in {foreign} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_finished_sweep(tmp_path, uri):
    sweep = Fabricated(tmp_path / "sweep")
    tracking = sweep.begun(sweep.tracking(uri, run_name="first"))
    sweep.run(tracking)
    results = sweep.results
    tracking.finish(results)

    client, [parent], children = runs_of(uri)
    assert (parent.info.run_name, parent.info.status) == ("first", "FINISHED")
    assert {"table.csv", "report.html", "tradeoff.png"} <= files(client, parent)
    expected = {"number_of_epochs": "3", "batch_size_train": "32", "lambda_c_stepsize": "0.5", "lambdas": "0, 0.5, 1"}
    assert expected.items() <= parent.data.params.items()

    # The names and steps of BackwardCompatibilityML.
    names = {
        f"{loss}_{dataset}_{name}"
        for loss in LOSSES
        for dataset in ("training", "testing")
        for name in ("performance", "btc", "bec")
    }
    assert set(parent.data.metrics) == names | {"lambda_c"}
    rows = {(row["loss"], row["dataset"], row["lambda_c"]): row for row in results.rows()}
    for loss in LOSSES:
        for dataset, told in (("train", "training"), ("test", "testing")):
            columns = {"performance": "accuracy_h2", "btc": "btc", "bec": "bec_given_h1_wrong"}
            for name, column in columns.items():
                history = client.get_metric_history(parent.info.run_id, f"{loss}_{told}_{name}")
                assert sorted((entry.step, entry.value) for entry in history) == [
                    (number, rows[loss, dataset, lambda_c][column]) for number, lambda_c in enumerate(LAMBDAS, 1)
                ]
    history = client.get_metric_history(parent.info.run_id, "lambda_c")
    assert sorted((entry.step, entry.value) for entry in history) == [(1, 0.0), (2, 0.5), (3, 1.0)]

    assert set(children) == {point.name for point in sweep.points}
    for point in sweep.points:
        [child] = children[point.name]
        assert child.info.status == "FINISHED"
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.params == {"loss": point.loss or "plain", "lambda_c": str(point.lambda_c), "seed": "0"}
        row = rows[point.loss or LOSSES[0], "test", point.lambda_c]
        assert child.data.metrics["test/nfr"] == row["nfr"]
        assert child.data.metrics["train/btc"] == rows[point.loss or LOSSES[0], "train", point.lambda_c]["btc"]
        assert files(client, child) == {"model.pt", "comparison-train.json.gz", "comparison-test.json.gz"}
    model = client.download_artifacts(children[sweep.points[1].name][0].info.run_id, "model.pt", str(tmp_path))
    with open(model, "rb") as file:
        assert file.read() == sweep.points[1].name.encode()


def test_a_metric_of_the_callers_own_is_the_performance(tmp_path, uri):
    sweep = Fabricated(tmp_path / "sweep", performances=True)
    tracking = sweep.begun(sweep.tracking(uri))
    sweep.run(tracking)
    tracking.finish(sweep.results)
    _, [parent], children = runs_of(uri)
    assert parent.data.metrics["new_error_testing_performance"] == 0.75
    assert children[sweep.points[0].name][0].data.metrics["test/performance_h1"] == 0.25


def test_several_seeds_are_a_mean_in_the_run_of_the_sweep(tmp_path, uri):
    sweep = Fabricated(tmp_path / "sweep", seeds=(0, 1))
    tracking = sweep.begun(sweep.tracking(uri))
    sweep.run(tracking)
    tracking.finish(sweep.results)
    client, [parent], children = runs_of(uri)
    assert len(children) == len(sweep.points) == 10
    history = client.get_metric_history(parent.info.run_id, "new_error_testing_btc")
    values = [row["btc"] for row in sweep.results.rows("test") if (row["loss"], row["lambda_c"]) == ("new_error", 1.0)]
    assert [entry.value for entry in history if entry.step == 3] == [pytest.approx(sum(values) / 2)]


def test_an_active_run_of_the_caller_is_left_alone(tmp_path, uri):
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        mlflow.set_experiment("theirs")
        with mlflow.start_run() as own:
            sweep = Fabricated(tmp_path / "sweep")
            tracking = sweep.begun(MLflowTracker.of(True, sweep.folder.path))
            # A sweep in the background works in another thread.
            thread = threading.Thread(target=sweep.run, args=(tracking,))
            thread.start()
            thread.join()
            tracking.finish(sweep.results)
            assert mlflow.active_run().info.run_id == own.info.run_id
        seen = mlflow.MlflowClient().get_run(own.info.run_id)
        assert (seen.data.metrics, seen.data.params) == ({}, {})
        _, parents, children = runs_of(uri, "theirs")
        assert {run.info.run_id for run in parents} == {own.info.run_id, tracking.runs.run_id}
        assert len(children) == len(sweep.points)
    finally:
        mlflow.set_tracking_uri(before)


def test_an_interrupted_sweep_is_taken_up_in_the_same_run(tmp_path, uri):
    sweep = Fabricated(tmp_path / "sweep")
    first = sweep.begun(sweep.tracking(uri))
    sweep.run(first, sweep.points[:2])
    first.logger(sweep.points[2])
    first.close(KeyboardInterrupt())
    _, [parent], children = runs_of(uri)
    assert parent.info.status == "KILLED"
    assert children[sweep.points[2].name][0].info.status == "KILLED"

    again = sweep.begun(sweep.tracking(uri))
    assert again.runs.run_id == first.runs.run_id
    assert runs_of(uri)[1][0].info.status == "RUNNING"
    for point in sweep.points[:2]:
        again.point_finished(sweep.results, point)
    sweep.run(again, sweep.points[2:])
    again.finish(sweep.results)
    client, [parent], children = runs_of(uri)
    assert parent.info.status == "FINISHED"
    states = {name: sorted(run.info.status for run in runs) for name, runs in children.items()}
    assert states.pop(sweep.points[2].name) == ["FINISHED", "KILLED"]
    assert set(map(tuple, states.values())) == {("FINISHED",)}
    assert len(client.get_metric_history(parent.info.run_id, "new_error_testing_btc")) == len(LAMBDAS)


def test_a_process_that_was_killed_leaves_no_run_open(tmp_path, uri):
    sweep = Fabricated(tmp_path / "sweep")
    first = sweep.begun(sweep.tracking(uri))
    first.logger(sweep.points[0])
    first.logger(sweep.points[1])
    sweep.train(sweep.points[1])
    again = sweep.begun(sweep.tracking(uri))
    sweep.run(again, [point for point in sweep.points if point != sweep.points[1]])
    again.finish(sweep.results)
    _, [parent], children = runs_of(uri)
    assert parent.info.status == "FINISHED"
    assert sorted(run.info.status for run in children[sweep.points[0].name]) == ["FINISHED", "KILLED"]
    # It had finished, and was not logged yet.
    assert [run.info.status for run in children[sweep.points[1].name]] == ["FINISHED"]


def test_a_run_that_was_deleted_is_not_taken_up(tmp_path, uri):
    sweep = Fabricated(tmp_path / "sweep")
    first = sweep.begun(sweep.tracking(uri))
    sweep.run(first)
    first.finish(sweep.results)
    mlflow.MlflowClient(tracking_uri=uri).delete_run(first.runs.run_id)
    again = sweep.begun(sweep.tracking(uri))
    again.finish(sweep.results)
    assert again.runs.run_id != first.runs.run_id
    client = mlflow.MlflowClient(tracking_uri=uri)
    found = client.search_runs([again.runs.experiment_id], f"tags.`mlflow.parentRunId` = '{again.runs.run_id}'")
    assert len(found) == len(sweep.points)


def test_a_plan_that_grows_keeps_its_parameters_and_tells_the_new_plan(tmp_path, uri):
    sweep = Fabricated(tmp_path / "sweep")
    sweep.begun(sweep.tracking(uri))
    sweep.begun(sweep.tracking(uri), lambdas=[*LAMBDAS, 4.0])
    _, [parent], _ = runs_of(uri)
    assert parent.data.params["lambdas"] == "0, 0.5, 1"
    assert parent.data.tags["sweep.lambdas"] == "0, 0.5, 1, 4"


def test_a_failed_point_and_its_repetition(tmp_path, uri):
    sweep = Fabricated(tmp_path / "sweep")
    failing = sweep.points[1]
    tracking = sweep.begun(sweep.tracking(uri))
    sweep.run(tracking, [point for point in sweep.points if point != failing])
    failure = sweep.folder.note_failure(failing, ValueError("no such thing"))
    tracking.point_failed(failure)
    tracking.finish(sweep.results)
    client, [parent], children = runs_of(uri)
    [child] = children[failing.name]
    assert (parent.info.status, child.info.status) == ("FAILED", "FAILED")
    assert child.data.tags["error"] == "ValueError: no such thing"
    assert files(client, child) == {"traceback.txt"}

    again = sweep.begun(sweep.tracking(uri))
    sweep.run(again, [failing])
    again.finish(sweep.results)
    _, [parent], children = runs_of(uri)
    assert parent.info.status == "FINISHED"
    assert sorted(run.info.status for run in children[failing.name]) == ["FAILED", "FINISHED"]


@pytest.mark.parametrize(("error", "status"), [(OSError("disk full"), "FAILED"), (KeyboardInterrupt(), "KILLED")])
def test_a_sweep_that_ends_early_closes_its_runs(tmp_path, uri, error, status):
    sweep = Fabricated(tmp_path / "sweep")
    tracking = sweep.begun(sweep.tracking(uri))
    tracking.logger(sweep.points[0])
    tracking.close(error)
    _, [parent], children = runs_of(uri)
    assert parent.info.status == status
    assert [run.info.status for run in children[sweep.points[0].name]] == ["KILLED"]


def test_a_cancelled_sweep_is_killed(tmp_path, uri):
    sweep = Fabricated(tmp_path / "sweep")
    tracking = sweep.begun(sweep.tracking(uri))
    sweep.run(tracking, sweep.points[:2])
    tracking.finish(sweep.results)
    assert runs_of(uri)[1][0].info.status == "KILLED"


def test_mlflow_that_is_away_at_the_start_is_an_error(tmp_path, uri):
    sweep = Fabricated(tmp_path / "sweep")
    with pytest.raises(RuntimeError, match=r"http://127\.0\.0\.1:9 cannot be written to.*tracking_uri"):
        sweep.begun(sweep.tracking("http://127.0.0.1:9"))


def test_a_deleted_experiment_is_an_error(tmp_path, uri):
    client = mlflow.MlflowClient(tracking_uri=uri)
    client.delete_experiment(client.create_experiment("updates"))
    sweep = Fabricated(tmp_path / "sweep")
    with pytest.raises(RuntimeError, match="'updates' is deleted"):
        sweep.begun(sweep.tracking(uri))


def test_mlflow_that_fails_in_the_middle_ends_no_sweep_and_gets_the_rest_in_the_end(tmp_path, uri, monkeypatch):
    sweep = Fabricated(tmp_path / "sweep")
    tracking = sweep.begun(sweep.tracking(uri))
    sweep.run(tracking, sweep.points[:1])
    calls = []

    def away(*_args, **_options):
        calls.append(1)
        raise ConnectionError("no route")

    with monkeypatch.context() as patched:
        patched.setattr(mlflow.MlflowClient, "log_batch", away)
        with pytest.warns(RuntimeWarning, match="goes on without it.*no route"):
            tracking.logger(sweep.points[1])
        # Of all that follows nothing is said, and nothing tried: a server that is down costs minutes of waiting.
        tracking.log_epoch(sweep.points[1], 0, {"loss": 1.0})
        assert tracking.logger(sweep.points[1]) is None
        sweep.run(tracking, sweep.points[1:])
        tracking.point_failed(Failure(Point("new_error", 0.5, 0), "e", "t"))
        assert len(calls) == 1
    tracking.finish(sweep.results)
    _, [parent], children = runs_of(uri)
    assert parent.info.status == "FINISHED"
    assert {name: runs[0].info.status for name, runs in children.items()} == {
        point.name: "FINISHED" for point in sweep.points
    }
    assert {runs[0].data.params["loss"] for runs in children.values()} == {"plain", *LOSSES}
    assert len(mlflow.MlflowClient(uri).get_metric_history(tracking.runs.run_id, "new_error_testing_btc")) == len(
        LAMBDAS
    )


def test_a_worker_logs_into_the_run_of_its_point(tmp_path, uri):
    sweep = Fabricated(tmp_path / "sweep")
    tracking = sweep.begun(sweep.tracking(uri))
    point = sweep.points[1]
    worker = pickle.loads(pickle.dumps(tracking))
    kind, arguments, closes, beside_own = worker.logger(point)
    run_id, where = arguments["run_id"], arguments["tracking_uri"]
    assert (kind, where, closes, beside_own) == ("MLFlowLogger", uri, False, True)
    # As Lightning's MLFlowLogger does, which also ends the run.
    logger = mlflow.MlflowClient(tracking_uri=where)
    logger.log_metric(run_id, "train_loss", 0.5, step=1)
    logger.set_terminated(run_id, "FINISHED")
    for epoch, loss in enumerate((np.float32(2.0), 1.0)):
        worker.log_epoch(point, epoch, {"loss": loss, "val:loss": float("nan"), "note": "text"})
    sweep.train(point)
    tracking.point_finished(sweep.results, point)
    client, _, children = runs_of(uri)
    [child] = children[point.name]
    assert child.info.run_id == run_id
    assert [entry.value for entry in client.get_metric_history(run_id, "loss")] == [2.0, 1.0]
    assert {"train_loss", "test/btc"} <= set(child.data.metrics)
    assert "val_loss" not in child.data.metrics


def test_points_of_other_losses_in_the_folder_are_not_tracked(tmp_path, uri):
    sweep = Fabricated(tmp_path / "sweep")
    for point in sweep.points:
        sweep.train(point)
    tracking = sweep.begun(sweep.tracking(uri), losses=LOSSES[:1])
    tracking.finish(sweep.results)
    _, [parent], children = runs_of(uri)
    assert parent.info.status == "FINISHED"
    assert set(children) == {point.name for point in sweep.points if point.loss != LOSSES[1]}


@pytest.mark.slow
def test_a_database(tmp_path, uri):
    pytest.importorskip("sqlalchemy")
    pytest.importorskip("alembic")
    where = f"sqlite:///{tmp_path / 'mlflow.db'}"
    sweep = Fabricated(tmp_path / "sweep")
    for _ in range(2):
        tracking = sweep.begun(sweep.tracking(where))
        sweep.run(tracking, [point for point in sweep.points if not sweep.folder.is_finished(point)])
        tracking.finish(sweep.results)
    client, [parent], children = runs_of(where)
    assert parent.info.status == "FINISHED"
    assert {len(runs) for runs in children.values()} == {1}
    assert len(client.get_metric_history(parent.info.run_id, "new_error_testing_btc")) == len(LAMBDAS)
