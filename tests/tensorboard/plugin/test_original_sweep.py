import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from bc_core import compare
from bc_tensorboard import read_original_sweep
from bc_tensorboard.plugin._original_sweep import holds_original_sweep, read_finished_evaluations

ORIGINALS = Path(__file__).parents[2] / "data" / "original_sweep"
TRUE_TOTALS = json.loads((ORIGINALS / "true_class_totals.json").read_text())


def summary_of(folder):
    return json.loads((folder / "sweep_summary.json").read_text())["data"]


@pytest.fixture
def sweep(tmp_path):
    return Path(shutil.copytree(ORIGINALS / "one_batch", tmp_path / "sweep"))


def write_evaluation(folder, index=0, **changes):
    """Write an evaluation of h1 = 0 0 0 1 1 and h2 = 0 1 0 1 0 on the targets 0 0 1 1 1 with ids 10 to 14."""
    rows = [(11, 0, 0, 1), (12, 1, 0, 0), (14, 1, 1, 0)]
    keys = ("instance_id", "ground_truth", "h1_prediction", "h2_prediction")
    content = {
        "lambda_c": 0.5,
        "training": index % 2 == 0,
        "testing": index % 2 == 1,
        "datapoint_index": index,
        "dataset_size": 5,
        "sorted_classes": [0, 1],
        "error_instances": [dict(zip(keys, row, strict=True), metadata=f"m{row[0]}") for row in rows],
        **changes,
    }
    content = {key: value for key, value in content.items() if value is not ...}
    (folder / f"{index}-evaluation-data.json").write_text(json.dumps(content))
    return content


def by_class(*accuracies):
    return [{"class": c, "accuracy": a, "error_instance_ids": []} for c, a in enumerate(accuracies)]


def test_a_sweep_of_the_original_opens_with_what_its_summary_says():
    evaluations = read_original_sweep(ORIGINALS / "one_batch")
    assert [
        (e.datapoint_index, e.lambda_c, e.dataset == "training", e.dissonance == "new error") for e in evaluations
    ] == [
        (d["datapoint_index"], d["lambda_c"], d["training"], d["new-error"])
        for d in summary_of(ORIGINALS / "one_batch")
    ]


def test_with_one_batch_the_scores_are_those_that_the_original_computed():
    folder = ORIGINALS / "one_batch"
    for evaluation, original in zip(read_original_sweep(folder), summary_of(folder), strict=True):
        overlap = evaluation.comparison.overlap
        # The original divides the same whole numbers, in another order at most.
        assert (overlap.accuracy_h2, overlap.btc, overlap.bec()) == pytest.approx(
            (original["performance"], original["btc"], original["bec"]), abs=1e-12
        )


def test_with_several_batches_the_scores_are_of_the_whole_data_set_and_near_the_averages_of_the_original():
    folder = ORIGINALS / "four_batches"
    differences = []
    for evaluation, original in zip(read_original_sweep(folder), summary_of(folder), strict=True):
        data = json.loads((folder / f"{evaluation.datapoint_index}-evaluation-data.json").read_text())
        h2_wrong = len(data["models_error_overlap"][1])
        assert evaluation.comparison.overlap.accuracy_h2 == pytest.approx(1 - h2_wrong / 60)
        differences.append(evaluation.comparison.overlap.btc - original["btc"])
    assert 0 < np.abs(differences).max() < 0.05


@pytest.mark.parametrize("name", ["one_batch", "four_batches"])
def test_the_error_instances_are_those_of_the_file(name):
    for evaluation in read_original_sweep(ORIGINALS / name):
        path = ORIGINALS / name / f"{evaluation.datapoint_index}-evaluation-data.json"
        table = evaluation.comparison.instances
        assert [
            {
                "instance_id": row["id"],
                "metadata": row["metadata"],
                "h1_prediction": row["h1_pred"],
                "h2_prediction": row["h2_pred"],
                "ground_truth": row["target"],
            }
            for row in table
        ] == json.loads(path.read_text())["error_instances"]
        flips = {}
        for row in evaluation.comparison.negative_flips():
            flips.setdefault(row["target"], []).append(row["id"])
        recorded = json.loads(path.read_text())["h2_incompatible_instance_ids_by_class"]
        assert {c: sorted(ids) for c, ids in flips.items()} == {
            row["class"]: sorted(row["incompatibleInstanceIds"]) for row in recorded
        }


def test_totals_of_classes_that_the_original_did_not_record_are_marked_as_guesses_that_all_evaluations_share():
    evaluations = read_original_sweep(ORIGINALS / "one_batch")
    for dataset in ("training", "testing"):
        of_it = [e for e in evaluations if e.dataset == dataset]
        totals = {tuple(e.comparison.overlap.total_by_class.tolist()) for e in of_it}
        assert len(totals) == 1
        assert sum(totals.pop()) == sum(TRUE_TOTALS[dataset]) == 60
        assert {e.uncertain_classes for e in of_it} == {(0, 1, 2)}


@pytest.mark.parametrize("dataset", ["training", "testing"])
def test_accuracies_by_class_give_the_true_class_totals(sweep, dataset):
    # Later sources of the original recorded the accuracies; what they are follows from the true totals.
    totals = np.array(TRUE_TOTALS[dataset])
    for path in sweep.glob("*-evaluation-data.json"):
        content = json.loads(path.read_text())
        if not content[dataset]:
            continue
        for model in ("h1", "h2"):
            wrong = [
                r["ground_truth"] for r in content["error_instances"] if r[f"{model}_prediction"] != r["ground_truth"]
            ]
            accuracy = 1 - np.bincount(wrong, minlength=3) / totals
            content[f"{model}_accuracy_by_class"] = by_class(*accuracy.tolist())
        path.write_text(json.dumps(content))
    for evaluation in read_original_sweep(sweep):
        if evaluation.dataset == dataset:
            assert evaluation.comparison.overlap.total_by_class.tolist() == totals.tolist()
            assert evaluation.uncertain_classes == ()


def test_the_whole_comparison_comes_back_where_the_file_tells_enough(tmp_path):
    write_evaluation(tmp_path, h1_accuracy_by_class=by_class(1.0, 2 / 3), h2_accuracy_by_class=by_class(0.5, 1 / 3))
    [evaluation] = read_original_sweep(tmp_path)
    expected = compare(
        [0, 0, 1, 1, 1],
        [0, 0, 0, 1, 1],
        [0, 1, 0, 1, 0],
        ids=range(10, 15),
        metadata=[f"m{i}" for i in range(10, 15)],
        lambda_c=0.5,
        name=f"{tmp_path.name}, new error",
    )
    assert evaluation.comparison == expected
    assert (evaluation.uncertain_classes, evaluation.dissonance) == ((), "new error")


def test_one_class_that_both_models_get_right_takes_the_rest(tmp_path):
    write_evaluation(
        tmp_path,
        dataset_size=9,
        sorted_classes=[0, 1, 2],
        h1_accuracy_by_class=by_class(1.0, 2 / 3, 1.0),
        h2_accuracy_by_class=by_class(0.5, 1 / 3, 1.0),
    )
    [evaluation] = read_original_sweep(tmp_path)
    assert evaluation.comparison.overlap.total_by_class.tolist() == [2, 3, 4]
    assert evaluation.uncertain_classes == ()


def test_classes_that_both_models_get_right_share_the_rest_and_are_named(tmp_path):
    write_evaluation(
        tmp_path,
        dataset_size=12,
        sorted_classes=[0, 1, 2, 3],
        h1_accuracy_by_class=by_class(1.0, 2 / 3, 1.0, 1.0),
        h2_accuracy_by_class=by_class(0.5, 1 / 3, 1.0, 1.0),
    )
    [evaluation] = read_original_sweep(tmp_path)
    assert evaluation.comparison.overlap.total_by_class.tolist() == [2, 3, 4, 3]
    assert evaluation.uncertain_classes == (2, 3)


def test_a_class_that_only_predictions_name_has_no_instances(tmp_path):
    content = write_evaluation(tmp_path)
    content["error_instances"][0]["h2_prediction"] = 2
    write_evaluation(tmp_path, **content)
    [evaluation] = read_original_sweep(tmp_path)
    assert evaluation.comparison.overlap.num_classes == 3
    assert evaluation.comparison.overlap.total_by_class[2] == 0
    assert evaluation.uncertain_classes == (0, 1)


@pytest.mark.parametrize(
    ("relabel", "names", "first_target"),
    [
        (float, None, 0),
        (bool, None, 0),
        (lambda c: [c], None, 0),
        (lambda c: ["cat", "dog"][c], ("cat", "dog"), 0),
        (lambda c: ["no", "ant"][c], ("ant", "no"), 1),
        (lambda c: [-1, 1][c], ("-1", "1"), 0),
        (lambda c: [2, 10][c], ("2", "10"), 0),
    ],
)
def test_labels_are_class_numbers_or_become_class_names(tmp_path, relabel, names, first_target):
    content = write_evaluation(tmp_path)
    content["sorted_classes"] = [relabel(c) for c in (0, 1)]
    for row in content["error_instances"]:
        for key in ("ground_truth", "h1_prediction", "h2_prediction"):
            row[key] = relabel(row[key])
    write_evaluation(tmp_path, **content)
    [evaluation] = read_original_sweep(tmp_path)
    assert evaluation.comparison.class_names == names
    assert evaluation.comparison.instances.target[0] == first_target
    assert evaluation.comparison.overlap.btc == 0.5


@pytest.mark.parametrize(
    ("ids", "read"),
    [
        ([3, 1, 2], [3, 1, 2]),
        ([3.0, 1.0, 2.0], [3, 1, 2]),
        (["a", "b", "c"], ["a", "b", "c"]),
        ([1, "b", 2], ["1", "b", "2"]),
        ([2**70, 1, 2], [str(2**70), "1", "2"]),
    ],
)
def test_ids_keep_their_kind(tmp_path, ids, read):
    content = write_evaluation(tmp_path)
    for row, instance_id in zip(content["error_instances"], ids, strict=True):
        row["instance_id"] = instance_id
    write_evaluation(tmp_path, **content)
    [evaluation] = read_original_sweep(tmp_path)
    assert evaluation.comparison.instances.ids.tolist() == read


def test_two_perfect_models_have_no_error_instances(tmp_path):
    write_evaluation(tmp_path, error_instances=[])
    [evaluation] = read_original_sweep(tmp_path)
    assert (evaluation.comparison.overlap.btc, len(evaluation.comparison.instances)) == (1.0, 0)


def test_an_interrupted_sweep_is_read_by_the_order_of_its_files(sweep):
    whole = read_original_sweep(sweep)
    (sweep / "sweep_summary.json").unlink()
    for index in range(7, 12):
        (sweep / f"{index}-evaluation-data.json").unlink()
    part = read_original_sweep(sweep)
    assert [(e.datapoint_index, e.dataset, e.dissonance) for e in part] == [
        (e.datapoint_index, e.dataset, e.dissonance) for e in whole[:7]
    ]


def test_a_file_that_is_being_written_costs_only_itself(sweep):
    path = sweep / "3-evaluation-data.json"
    path.write_bytes(path.read_bytes()[:400])
    evaluations, problems = read_finished_evaluations(sweep)
    assert [e.datapoint_index for e in evaluations] == [0, 1, 2, *range(4, 12)]
    [problem] = problems
    assert str(path) in problem
    assert "cut off" in problem
    with pytest.raises(ValueError, match="3-evaluation-data.json: no valid JSON"):
        read_original_sweep(sweep)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"error_instances": ...}, "the entry 'error_instances' is missing"),
        ({"dataset_size": ...}, "the entry 'dataset_size' is missing"),
        ({"lambda_c": ...}, "the entry 'lambda_c' is missing"),
        ({"dataset_size": "many"}, "dataset_size: expected a whole number of at least 0, got 'many'"),
        ({"dataset_size": 2}, "dataset_size is 2, but the classes have at least 3 instances"),
        ({"sorted_classes": []}, "expected a list of classes under 'sorted_classes'"),
        ({"sorted_classes": [0]}, "error instances of the class 1, which sorted_classes leaves out"),
        ({"sorted_classes": [0, 0.5]}, "whole numbers or texts, got 0.5"),
        ({"sorted_classes": [0, 1, "1"]}, "the class 1 is a number in one place and a text in another"),
        ({"error_instances": [7]}, "expected an entry with 'instance_id', got 7"),
        ({"models_error_overlap": [[], [], []]}, "lists \\[0, 0, 0\\] errors .* hold \\[1, 3, 1\\]"),
        ({"models_error_overlap": 3}, "expected three lists of ids"),
        ({"training": True, "testing": True}, "expected either training or testing data"),
        ({"lambda_c": -1}, "lambda_c: expected a number of at least 0, got -1"),
        ({"datapoint_index": 5}, "it says that it is evaluation 5"),
        ({"h1_accuracy_by_class": by_class(0.5, 0.5)}, "an accuracy of 0.5 on the class 0 contradicts 0 errors"),
        ({"h1_accuracy_by_class": by_class(1.0, 1.0)}, "an accuracy of 1 on the class 1 contradicts 1 errors"),
        ({"h2_accuracy_by_class": by_class(0.7, 1 / 3)}, "an accuracy of 0.7 on the class 0 contradicts 1 errors"),
        ({"h1_accuracy_by_class": by_class(1.0, 0.0)}, "the class 1 has 1 instances, but more errors"),
        ({"h2_accuracy_by_class": by_class(0.5, 0.5)}, "dataset_size is 5, but the classes have 6 instances"),
        ({"h1_accuracy_by_class": by_class(2.0)}, "expected accuracies from 0 to 1"),
    ],
)
def test_an_evaluation_that_lacks_something_or_contradicts_itself_is_refused_by_name(tmp_path, changes, message):
    write_evaluation(tmp_path, **changes)
    with pytest.raises(ValueError, match=message) as caught:
        read_original_sweep(tmp_path)
    assert str(tmp_path) in str(caught.value)
    if "in another" not in message:
        assert "0-evaluation-data.json" in str(caught.value)


def test_an_instance_that_both_models_get_right_is_no_error_instance(tmp_path):
    content = write_evaluation(tmp_path)
    content["error_instances"][0]["h2_prediction"] = 0
    write_evaluation(tmp_path, **content)
    with pytest.raises(ValueError, match="the error instance 11 is one that both models get right"):
        read_original_sweep(tmp_path)


def test_an_id_that_comes_twice_is_refused(tmp_path):
    content = write_evaluation(tmp_path)
    content["error_instances"][1]["instance_id"] = 11
    write_evaluation(tmp_path, **content)
    with pytest.raises(ValueError, match="the id 11 comes twice"):
        read_original_sweep(tmp_path)


def test_a_file_that_the_summary_lists_must_be_there(sweep):
    (sweep / "4-evaluation-data.json").unlink()
    with pytest.raises(ValueError, match="4-evaluation-data.json: the file is missing"):
        read_original_sweep(sweep)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda data: data[2].update(lambda_c=9.0),
            "2-evaluation-data.json: it is of lambda_c 0 on training data, but",
        ),
        (lambda data: data[2].update(training=False, testing=True), "it is of lambda_c 0 on training data, but"),
        (lambda data: data[2].update({"new-error": True}), "expected either new-error or strict-imitation"),
        (lambda data: data[2].update(datapoint_index=1), "the datapoint_index 1 comes twice"),
        (lambda data: data[2].pop("lambda_c"), "sweep_summary.json: the entry 'lambda_c' is missing"),
    ],
)
def test_a_summary_that_contradicts_its_evaluations_is_refused(sweep, change, message):
    path = sweep / "sweep_summary.json"
    content = json.loads(path.read_text())
    change(content["data"])
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_original_sweep(sweep)


def test_a_folder_without_a_sweep_says_what_was_expected(tmp_path):
    with pytest.raises(ValueError, match="no sweep of BackwardCompatibilityML here; expected sweep_summary.json"):
        read_original_sweep(tmp_path)
    with pytest.raises(ValueError, match="cannot be read as a folder"):
        read_original_sweep(tmp_path / "nowhere")
    assert not holds_original_sweep(tmp_path)
    assert holds_original_sweep(ORIGINALS / "one_batch")
