"""How sure the models are: kept of each error instance, counted over all, and read at other thresholds."""

import json

import numpy as np
import pytest

from bc_core import Comparison, compare, error_compatibility_score, trust_compatibility_score


def softmax(logits):
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def three_classes(size=400, seed=0):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 3, size)
    scores = [softmax(rng.normal(size=(size, 3)) + 2 * np.eye(3)[target]) for _ in range(2)]
    return target, scores[0], scores[1]


def binary(size=500, seed=1, dtype=np.float64):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 2, size)
    # Many scores lie on an edge of a bin.
    h1, h2 = (np.clip(np.round(target * 0.3 + rng.random(size) * 0.7, 2), 0, 1).astype(dtype) for _ in range(2))
    return target, h1, h2


def test_each_error_instance_keeps_what_the_scores_say():
    target, p1, p2 = three_classes()
    c = compare(target, p1.argmax(1), p2.argmax(1), h1_scores=p1, h2_scores=p2)
    assert len(c.instances) > 50
    for row in c.instances:
        i = row["id"]
        assert row["h1_confidence"] == pytest.approx(max(p1[i]), abs=1e-6)
        assert row["h2_confidence"] == pytest.approx(max(p2[i]), abs=1e-6)
        assert row["h1_of_truth"] == pytest.approx(p1[i][target[i]], abs=1e-6)
        assert row["h2_of_truth"] == pytest.approx(p2[i][target[i]], abs=1e-6)


def test_calibration_counts_all_instances():
    target, p1, p2 = three_classes()
    c = compare(target, p1.argmax(1), p2.argmax(1), h1_scores=p1, h2_scores=p2)
    for place, scores in enumerate((p1, p2)):
        error = 0.0
        for low in range(20):
            inside = [i for i in range(len(target)) if low == min(19, int(round(max(scores[i]), 6) * 20))]
            right = [i for i in inside if scores[i].argmax() == target[i]]
            assert c.calibration.counts[place, low].tolist() == [len(inside) - len(right), len(right)]
            error += abs(sum(max(scores[i]) for i in inside) - len(right))
        assert c.calibration.expected_error(("h1", "h2")[place]) == pytest.approx(error / len(target), abs=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("in_use", [(0.5, 0.5), (0.29, 0.335)])
def test_every_percent_of_a_threshold_is_exact(dtype, in_use):
    target, p1, p2 = binary(dtype=dtype)
    a, b = ((p >= dtype(t)).astype(int) for p, t in zip((p1, p2), in_use, strict=True))
    c = compare(target, a, b, h1_scores=p1, h2_scores=p2, threshold=in_use)
    assert c.thresholds.at() == c.overlap
    for percent in (1, 7, 29, 50, 57, 58, 99):
        new = (p2 >= dtype(percent / 100)).astype(int)
        found = c.thresholds.at(h2=percent / 100)
        assert found.btc == pytest.approx(trust_compatibility_score(a, new, target))
        assert found.bec() == pytest.approx(error_compatibility_score(a, new, target))
        assert found.counts.sum() == len(target)
        assert c.thresholds.at(h2=0.4, h1=percent / 100).accuracy_h1 == np.mean((p1 >= dtype(percent / 100)) == target)
    with pytest.raises(ValueError, match=r"counted at each percent .* and not at 0\.123; the nearest is 0\.12"):
        c.thresholds.at(h2=0.123)


def test_a_model_of_labels_alone_stands_beside_one_with_scores():
    target, p1, p2 = binary()
    a, b = (p1 >= 0.5).astype(int), (p2 >= 0.5).astype(int)
    c = compare(target, a, b, h2_scores=p2)
    assert np.isnan(c.instances.h1_confidence).all()
    assert np.isfinite(c.instances.h2_confidence).all()
    assert np.isnan(c.calibration.expected_error("h1"))
    assert c.thresholds.at(h2=0.3).nfr == np.mean((a == target) & ((p2 >= 0.3) != target))


def test_rounding_across_the_threshold_is_no_contradiction():
    just_below = np.float32(0.5) - np.float32(1e-7)
    c = compare([1, 0], [1, 0], [1, 0], h2_scores=np.array([just_below, 0.5], np.float32))
    assert c.thresholds.at() == c.overlap


def test_files_and_shards_keep_it(tmp_path):
    target, p1, p2 = binary()
    a, b = (p1 >= 0.5).astype(int), (p2 >= 0.5).astype(int)

    def part(rows):
        return compare(target[rows], a[rows], b[rows], ids=np.arange(500)[rows], h1_scores=p1[rows], h2_scores=p2[rows])

    whole = part(slice(None))
    assert Comparison.load(whole.save(tmp_path / "c.json.gz")) == whole
    assert part(slice(0, 200)) + part(slice(200, None)) == whole
    alone = compare(target[:9], a[:9], b[:9], ids=np.arange(900, 909))
    merged = whole + alone
    assert merged.calibration is None
    assert merged.thresholds is None
    assert np.isnan(merged.instances.h1_confidence[len(whole.instances) :]).all()
    assert np.isfinite(merged.instances.h1_confidence[: len(whole.instances)]).all()


def test_files_without_scores_say_nothing_new(tmp_path):
    path = compare([0, 1], [0, 1], [0, 0]).save(tmp_path / "c.json")
    content = json.loads(path.read_text())
    assert list(content) == ["format", "version", "name", "step", "lambda_c", "class_names", "overlap", "instances"]
    assert list(content["instances"]) == ["ids", "target", "h1_pred", "h2_pred", "metadata"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c["instances"]["millionths"].pop("h1_of_truth"), "the entry 'h1_of_truth' is missing"),
        (lambda c: c["instances"]["millionths"]["h1_of_truth"].__setitem__(0, 0.5), "a list of whole numbers"),
        (lambda c: c["instances"]["millionths"]["h1_of_truth"].__setitem__(0, 2_000_000), "expected millionths"),
        (lambda c: c["calibration"]["counts"].pop(), "counts of 20 bins"),
        (lambda c: c["thresholds"]["cells"].__setitem__(0, 10**7), "a cell that there is not"),
        (lambda c: c["thresholds"]["edges"].reverse(), "ascending edges"),
    ],
)
def test_damage_is_told(tmp_path, change, told):
    target, p1, p2 = binary()
    c = compare(target, (p1 >= 0.5).astype(int), (p2 >= 0.5).astype(int), h1_scores=p1, h2_scores=p2)
    path = c.save(tmp_path / "c.json")
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=told):
        Comparison.load(path)


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        ([[2.0, -1.0, 0.5]] * 2, "take the softmax first"),
        ([[0.2, 0.2, 0.6]] * 2, "do not follow from the scores, first that of row 0, class 0"),
        ([0.2, 0.4], r"expected probabilities of shape \(2, 3\), got \(2,\)"),
        ([["a", "b", "c"]] * 2, "expected probabilities, got"),
    ],
)
def test_scores_that_are_none_are_refused(scores, told):
    with pytest.raises(ValueError, match=told):
        compare([0, 1], [0, 0], [0, 0], num_classes=3, h2_scores=scores)


def test_binary_scores_that_are_none_are_refused():
    with pytest.raises(ValueError, match="that of row 1, class 1: class 1 begins at 0.5, unless threshold="):
        compare([0, 1], [0, 0], [0, 1], h2_scores=[0.1, 0.4])
    with pytest.raises(ValueError, match="those of a binary model the sigmoid"):
        compare([0, 1], [0, 0], [0, 1], h2_scores=[-3.0, 4.0])
    with pytest.raises(ValueError, match="threshold: expected a number between 0 and 1"):
        compare([0, 1], [0, 0], [0, 1], h2_scores=[0.1, 0.6], threshold=50)
    # With the threshold that it was read with, it is right.
    assert compare([0, 1], [0, 0], [0, 1], h2_scores=[0.1, 0.4], threshold=0.4).thresholds.at().accuracy_h2 == 1


def test_a_row_of_nan_is_not_known():
    c = compare([0, 1, 2], [1, 1, 2], [0, 0, 2], h1_scores=[[np.nan] * 3, [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
    assert np.isnan(c.instances.h1_confidence[0])
    assert c.calibration.counts[0].sum() == 2
