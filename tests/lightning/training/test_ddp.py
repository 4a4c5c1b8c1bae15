"""Two gloo processes do what one process does with the same global batch."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from ddp_training import train_all
from shared_by_workers import made_once
from warm_programs import run_program

from bc_core import Comparison
from bc_core.losses._dissonances import DISSONANCES

SCRIPT = Path(__file__).parents[1] / "ddp_training.py"
WAYS = (
    "--loss cross_entropy/new_error",
    "--loss cross_entropy/new_error --normalization support",
    "--loss kl_divergence/strict_imitation --normalization support --plain",
    "--loss nll/strict_imitation --accumulate 2",
    "--loss cross_entropy/strict_imitation --stored",
    "--loss cross_entropy/new_error --lbfgs",
    "--loss cross_entropy/imitation --taught",
    "--loss cross_entropy/focal_distillation",
    "--loss kl_divergence/logit_difference_inhibition --plain",
    "--loss nll/logit_distance --accumulate 2",
    "--loss cross_entropy/where_h1_is_surer --normalization support",
    "--loss cross_entropy/where_h2_is_wrong --normalization support --stored",
    "--loss cross_entropy/where_h2_is_right",
    "--loss cross_entropy/recommended",
    "--loss cross_entropy/churn --stored",
    "--loss cross_entropy/anchor",
    "--loss cross_entropy/strict_imitation --promise validation",
    "--loss cross_entropy/strict_imitation --promise held-out",
)
EXACT = ("btc", "bec_given_h1_wrong", "bec_given_h2_wrong", "nfr", "accuracy_h1", "accuracy_h2")


def run(script, *options):
    # A seed that another test has set would be that of the samplers too.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PL_"))}
    done = run_program(script, *options, env=environment, processes=2)
    assert done.returncode == 0, done.stderr[-4000:]
    return done


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folders of what one process and two processes trained, all ways."""

    def train(folder):
        folders = [folder / "one", folder / "two"]
        for each in folders:
            each.mkdir()
        with pytest.MonkeyPatch.context() as patched:
            patched.delenv("PL_GLOBAL_SEED", raising=False)
            train_all(1, folders[0], WAYS)
        run(SCRIPT, "--out", str(folders[1]), *WAYS)

    folder = made_once(tmp_path_factory, "trained by two processes", train)
    return folder / "one", folder / "two"


@pytest.fixture(scope="module")
def validated(tmp_path_factory):
    """Two processes that ended with loaders that give trouble, and the folder of their comparisons."""

    def validate(folder):
        done = run(SCRIPT.with_name("ddp_comparisons.py"), "--out", str(folder))
        (folder / "said.json").write_text(json.dumps([done.stdout, done.stderr]))

    folder = made_once(tmp_path_factory, "validated by two processes", validate)
    return json.loads((folder / "said.json").read_text()), folder


def test_every_dissonance_is_trained_by_two_processes():
    assert {way.split()[1].partition("/")[2] for way in WAYS} == set(DISSONANCES)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_two_processes_equal_one(trained, way):
    paths = [folder / way.replace("/", "-") for folder in trained]
    one, two = map(torch.load, paths)
    # L-BFGS divides by differences of gradients, which makes more of their last bit than a step of SGD does.
    tolerance = 1e-5 if "--lbfgs" in way else 1e-6
    for name, weight in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], weight, rtol=0, atol=tolerance)
    for name, value in one["metrics"].items():
        score = name.split("_", 1)[1]
        if score in EXACT or name.startswith(("promise", "lambda")):
            assert two["metrics"][name] == value, name
        else:
            # Means of float32 losses, summed in another order.
            assert two["metrics"][name] == pytest.approx(value, abs=1e-5), name
    of_promise = {"promise", "lambda"} if "--promise" in way else set()
    assert {name.split("_", 1)[0] for name in one["metrics"]} == {"train", "val"} | of_promise
    assert two["validate"]["promise"] == one["validate"]["promise"]
    assert two["validate"].pop("single") == pytest.approx(one["validate"].pop("single"), abs=1e-5)
    for score in EXACT:
        assert two["validate"][f"val_{score}"] == one["validate"][f"val_{score}"]
    # Shares of 51, not of 52: the instance that the sampler repeated is not counted twice.
    assert two["validate"]["val_nfr"] * 51 == pytest.approx(round(two["validate"]["val_nfr"] * 51), abs=1e-4)
    files = [sorted(Path(f"{path}-comparisons").iterdir()) for path in paths]
    assert [path.name for path in files[0]] == [path.name for path in files[1]] != []
    for alone, shared in zip(*files, strict=True):
        # The rows of both processes, in the order of the data set, each instance once.
        of_two, of_one = Comparison.load(shared), Comparison.load(alone)
        assert of_two.without_scores() == of_one.without_scores()
        # Weights that differ in a last bit give probabilities that do.
        for name in ("h1_confidence", "h2_confidence", "h1_of_truth", "h2_of_truth"):
            ours, theirs = getattr(of_two.instances, name), getattr(of_one.instances, name)
            assert ours == pytest.approx(theirs, abs=1e-4, nan_ok=True)
        # An h1 of labels alone is sure of nothing.
        sums = [comparison.calibration.counts.sum(axis=(1, 2)).tolist() for comparison in (of_two, of_one)]
        assert sums[0] == sums[1]
        assert sums[0][1] == of_two.dataset_size
    first = Comparison.load(files[1][0])
    assert first.dataset_size == 51
    assert len(first.instances)


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["shuffle", "every process reads all"])
def test_instances_without_ids_are_still_compared_by_two_processes(validated, trouble):
    (path,) = (validated[1] / trouble).glob("*.json")
    found = Comparison.load(path)
    assert found.dataset_size == (40 if trouble == "shuffle" else 80)
    assert {str(i).rpartition(" of process ")[2] for i in found.instances.ids} == {"0", "1"}


@pytest.mark.slow
def test_ids_that_one_process_cannot_use_cost_the_comparison_and_not_the_training(validated):
    (stdout, stderr), folder = validated
    assert list((folder / "ids of two kinds").glob("*.json")) == []
    # Both processes write, perhaps into one line.
    assert stdout.count("ids of two kinds True") == 2
    assert "There is no comparison of step" in stderr
    assert "batches of both kinds" in stderr
