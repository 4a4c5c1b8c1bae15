"""The points of a sweep as a real TensorBoard lists them, in its HParams tab and in ours."""

import json
import math
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import numpy as np
import pytest
from invariance_updates import served
from tensorboard_process import tensorboard

from bc_core import SCORES, compare
from bc_core.sweep._folder import Trained
from bc_core.sweep._points import planned
from bc_tensorboard.writing._sweep_log import write_experiment, write_point

LOSSES, LAMBDAS, SEEDS, DATASETS = ["new_error", "strict_imitation"], [0.0, 0.5, 4.0], [0, 7], ["train", "test"]
POINTS = planned(LOSSES, LAMBDAS, SEEDS, True)


def trained(seed, performance=0.5):
    rng = np.random.default_rng(seed)
    comparisons = {name: compare(*rng.integers(0, 3, (3, 40)), num_classes=3) for name in DATASETS}
    return Trained(comparisons, dict.fromkeys(DATASETS, (0.25, performance)))


def events(path):
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    return list(EventFileLoader(str(path)).Load())


def scalars(path):
    from tensorboard.util import tensor_util

    return {
        value.tag: tensor_util.make_ndarray(value.tensor).item()
        for event in events(path)
        for value in event.summary.value
        if value.metadata.plugin_data.plugin_name == "scalars"
    }


def test_scalars_are_the_scores_of_each_data_set(tmp_path):
    one = trained(0)
    write_point(tmp_path, POINTS[1], one, "new error")
    [path] = tmp_path.glob("events*")
    expected = {
        f"{dataset}/{score}": comparison.overlap.score(score)
        for dataset, comparison in one.comparisons.items()
        for score in SCORES
    }
    expected |= {
        f"{dataset}/performance_{h}": value for dataset in DATASETS for h, value in (("h1", 0.25), ("h2", 0.5))
    }
    # TensorBoard keeps scalars in single precision.
    assert scalars(path) == pytest.approx(expected, rel=1e-6)


def test_the_tab_is_told_of_the_seed_and_of_the_caller_s_metric(tmp_path):
    for point, performance in ((POINTS[1], 0.5), (POINTS[2], float("nan"))):
        write_point(tmp_path / point.name, point, trained(0, performance), "new error")
    index = served(tmp_path).get("/data/plugin/backward_compatibility/index").json
    found = {(each["run"], each["dataset"]): each for each in index["series"]}
    assert len(found) == 4
    for point, h2 in ((POINTS[1], 0.5), (POINTS[2], None)):
        for dataset in DATASETS:
            entry = found[point.name, dataset]
            assert (entry["settings"], entry["performance"]) == ({"seed": point.seed}, [0.25, h2])


def test_a_performance_that_is_no_number_is_left_out(tmp_path):
    write_point(tmp_path, POINTS[1], trained(0, math.nan), "new error")
    [path] = tmp_path.glob("events*")
    assert "test/performance_h2" not in scalars(path)
    assert "test/performance_h1" in scalars(path)


def test_a_point_that_is_trained_again_replaces_its_file_and_no_other(tmp_path):
    (tmp_path / "events.out.tfevents.1.curves").write_bytes(b"")
    for _ in range(2):
        write_point(tmp_path, POINTS[1], trained(0), "new error")
        write_experiment(tmp_path / "root", LOSSES, LAMBDAS, SEEDS, DATASETS)
    assert len(list(tmp_path.glob("events*"))) == 2
    assert len(list((tmp_path / "root").iterdir())) == 1


def test_writing_needs_no_framework(tmp_path):
    code = f"""
import sys
sys.modules["tensorflow"] = sys.modules["torch"] = sys.modules["keras"] = None
from pathlib import Path
from bc_core import SweepPoint, compare
from bc_core.sweep._folder import Trained
from bc_tensorboard.writing._sweep_log import write_experiment, write_point
folder = Path({str(tmp_path)!r})
write_point(folder / "a", SweepPoint("new_error", 1.0, 0), Trained({{"test": compare([0, 1], [0, 1], [0, 0])}}), "x")
write_experiment(folder, ["new_error"], [1.0], [0], ["test"])
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert list(tmp_path.glob("a/events*"))


def ask(address, content=None):
    body = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.loads(response.read())


@pytest.mark.slow
@pytest.mark.parametrize("load_fast", ["true", "false"])
def test_tensorboard_lists_all_points_with_hparams_metrics_and_comparisons(tmp_path, load_fast):
    results = {point: trained(number) for number, point in enumerate(POINTS)}
    write_experiment(tmp_path, LOSSES, LAMBDAS, SEEDS, DATASETS, performance=True)
    for point, one in results.items():
        dissonance = "plain" if point.loss is None else point.loss.replace("_", " ")
        write_point(tmp_path / point.name, point, one, dissonance)
    names = {point.name: point for point in POINTS}
    with tensorboard(tmp_path, f"--load_fast={load_fast}", "--reload_interval=1") as address:
        base = f"{address}data/plugin"
        deadline = time.monotonic() + 60
        while True:
            series = ask(f"{base}/backward_compatibility/index")["series"]
            if len(series) == len(POINTS) * len(DATASETS) or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        experiment = ask(f"{base}/hparams/experiment", {})
        tags = [metric["name"]["tag"] for metric in experiment["metricInfos"]]
        request = {
            "startIndex": 0,
            "sliceSize": 100,
            "allowedStatuses": ["STATUS_SUCCESS"],
            "colParams": [{"metric": {"tag": tag, "group": ""}} for tag in tags],
        }
        groups = ask(f"{base}/hparams/session_groups", request)
        everything = urllib.parse.quote("test/btc")
        assert ask(f"{base}/scalars/scalars?run={urllib.parse.quote(POINTS[1].name)}&tag={everything}")

    infos = {info["name"]: info for info in experiment["hparamInfos"]}
    assert set(infos) == {"loss", "lambda_c", "seed"}
    domains = {name: info["domainDiscrete"] for name, info in infos.items()}
    assert domains == {"loss": ["plain", *LOSSES], "lambda_c": LAMBDAS, "seed": SEEDS}
    assert tags[:3] == ["test/accuracy_h2", "test/btc", "test/nfr"]

    assert groups["totalSize"] == len(POINTS)
    for group in groups["sessionGroups"]:
        point = names[group["name"]]
        hparams = {"loss": point.loss or "plain", "lambda_c": point.lambda_c, "seed": point.seed}
        assert group["hparams"] == hparams
        values = {metric["name"]["tag"]: metric["value"] for metric in group["metricValues"]}
        assert values["test/btc"] == pytest.approx(results[point].comparisons["test"].overlap.btc, rel=1e-6)
        assert set(tags) == set(values)

    shown = {(entry["run"], entry["dataset"]): entry for entry in series}
    assert set(shown) == {(point.name, dataset) for point in POINTS for dataset in DATASETS}
    for (run, dataset), entry in shown.items():
        [[step, _, weight, *cells]] = entry["steps"]
        assert (step, weight) == (0, names[run].lambda_c)
        overlap = results[names[run]].comparisons[dataset].overlap
        assert cells == overlap.counts.sum(axis=0).ravel().tolist()
        assert entry["dissonance"] == (names[run].loss or "plain").replace("_", " ")
