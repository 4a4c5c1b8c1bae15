import copy
import json
import pickle

import numpy as np
import pytest
from scipy.stats import binom

from bc_core import SCORES, ErrorOverlap, score_from_counts


def brute_force(target, h1, h2, num_classes):
    counts = np.zeros((num_classes, 2, 2), dtype=np.int64)
    for y, a, b in zip(target, h1, h2, strict=True):
        counts[y, int(a == y), int(b == y)] += 1
    return counts


def random_labels(seed, num_classes=4, size=60):
    return np.random.default_rng(seed).integers(0, num_classes, (3, size))


@pytest.mark.parametrize("seed", range(30))
def test_counts_equal_counting_one_by_one(seed):
    rng = np.random.default_rng(seed)
    num_classes, size = int(rng.integers(1, 300)), int(rng.integers(1, 200))
    dtype = rng.choice(["int16", "uint16", "int64", "uint64"])
    labels = rng.integers(0, num_classes, (3, size)).astype(dtype)
    overlap = ErrorOverlap.from_predictions(*labels, num_classes=num_classes)
    np.testing.assert_array_equal(overlap.counts, brute_force(*labels.tolist(), num_classes))
    assert overlap.counts.dtype == np.int64
    assert overlap.total == size


def test_narrow_integers_do_not_overflow():
    labels = np.full(10, 127, dtype=np.int8)
    assert ErrorOverlap.from_predictions(labels, labels, labels).counts[127, 1, 1] == 10


@pytest.mark.parametrize("seed", range(10))
def test_the_sum_of_shards_is_the_whole(seed):
    labels = random_labels(seed)
    cuts = np.sort(np.random.default_rng(seed).choice(np.arange(1, 60), 4, replace=False))
    shards = [ErrorOverlap.from_predictions(*part, num_classes=4) for part in np.split(labels, cuts, axis=1)]
    whole = ErrorOverlap.from_predictions(*labels, num_classes=4)
    assert sum(shards) == whole
    assert sum(shards, ErrorOverlap.empty(4)) == whole
    assert hash(sum(shards)) == hash(whole)


def test_names_of_the_cells():
    #                                      both right, h1 only, h2 only, both wrong
    overlap = ErrorOverlap.from_predictions([0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 0, 0], [0, 1, 0, 0, 1, 0])
    assert (overlap.both_right, overlap.h1_only_right, overlap.h2_only_right, overlap.both_wrong) == (1, 2, 2, 1)
    assert overlap.both_right_by_class.tolist() == [1, 0]
    assert overlap.h1_only_right_by_class.tolist() == [1, 1]
    assert overlap.h2_only_right_by_class.tolist() == [1, 1]
    assert overlap.both_wrong_by_class.tolist() == [0, 1]
    assert overlap.total_by_class.tolist() == [3, 3]
    assert overlap.incompatible_share_by_class.tolist() == [0.5, 0.5]


def test_scores_by_name_and_by_property_agree():
    overlap = ErrorOverlap.from_predictions(*random_labels(1))
    assert overlap.btc == overlap.score("btc")
    assert overlap.bec() == overlap.bec(given="h1_wrong") == overlap.score("bec_given_h1_wrong")
    assert overlap.bec(given="h2_wrong") == overlap.score("bec_given_h2_wrong")
    for name in ("nfr", "pfr", "nfi", "accuracy_h1", "accuracy_h2"):
        assert getattr(overlap, name) == overlap.score(name)


@pytest.mark.parametrize("name", SCORES)
def test_per_class_scores_are_the_scores_of_each_class_alone(name):
    target, h1, h2 = random_labels(2)
    per_class = ErrorOverlap.from_predictions(target, h1, h2, num_classes=5).per_class(name, zero_division=np.nan)
    for c in range(4):
        rows = target == c
        alone = ErrorOverlap.from_predictions(target[rows], h1[rows], h2[rows], num_classes=5)
        assert per_class[c] == alone.score(name, zero_division=np.nan)
    assert np.isnan(per_class[4]), "no instance has class 4"


def test_no_negative_flips_have_no_share_by_class():
    assert ErrorOverlap.from_predictions([0, 1], [0, 1], [0, 1]).incompatible_share_by_class.tolist() == [0, 0]


def test_the_number_of_classes_defaults_to_the_largest_label():
    assert ErrorOverlap.from_predictions([0, 1], [0, 4], [0, 1]).num_classes == 5


def test_ignored_targets_are_left_out():
    overlap = ErrorOverlap.from_predictions([0, -100, 1], [0, 77, 0], [0, 99, 1], num_classes=2, ignore_index=-100)
    assert overlap == ErrorOverlap.from_predictions([0, 1], [0, 0], [0, 1], num_classes=2)
    assert ErrorOverlap.from_predictions([7], [0], [0], num_classes=2, ignore_index=7) == ErrorOverlap.empty(2)
    with pytest.raises(ValueError, match=r"every instance is ignored, .* state num_classes"):
        ErrorOverlap.from_predictions([7], [0], [0], ignore_index=7)


def test_tensors_are_counted():
    torch = pytest.importorskip("torch")
    labels = random_labels(3)
    wanted = ErrorOverlap.from_predictions(*labels)
    assert ErrorOverlap.from_predictions(*torch.tensor(labels)) == wanted
    assert ErrorOverlap(torch.tensor(wanted.counts)) == wanted
    assert ErrorOverlap(torch.tensor(wanted.counts, dtype=torch.float32)) == wanted
    tensorflow = pytest.importorskip("tensorflow")
    assert ErrorOverlap.from_predictions(*(tensorflow.constant(column) for column in labels)) == wanted


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("bad", [-1, 3])
def test_labels_outside_the_classes_are_refused_by_name_and_position(position, bad):
    columns = [[0, 1, 2, 0] for _ in range(3)]
    columns[position][2] = bad
    name = ("target", "h1_pred", "h2_pred")[position]
    with pytest.raises(ValueError, match=rf"{name}: expected classes 0..2, got {bad} at position 2"):
        ErrorOverlap.from_predictions(*columns, num_classes=3)


def test_negative_labels_are_refused_without_a_number_of_classes():
    with pytest.raises(ValueError, match=r"h1_pred: .*got -1 at position 0"):
        ErrorOverlap.from_predictions([0], [-1], [0])


def test_text_labels_are_sent_to_compare():
    with pytest.raises(TypeError, match=r"got text; use compare\(\.\.\., class_names="):
        ErrorOverlap.from_predictions(["a"], ["a"], ["b"])


@pytest.mark.parametrize(
    ("num_classes", "error", "message"), [(0, ValueError, "at least 1, got 0"), (2.0, TypeError, "an integer, got 2.0")]
)
def test_an_impossible_number_of_classes_is_refused(num_classes, error, message):
    with pytest.raises(error, match=message):
        ErrorOverlap.from_predictions([0], [0], [0], num_classes=num_classes)


def test_no_data_is_refused():
    with pytest.raises(ValueError, match="expected at least one label, got none"):
        ErrorOverlap.from_predictions([], [], [], num_classes=2)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (np.zeros((2, 2)), r"expected shape \(num_classes, 2, 2\) .*got shape \(2, 2\)"),
        (np.zeros((0, 2, 2)), r"got shape \(0, 2, 2\)"),
        (-np.ones((1, 2, 2)), "not negative"),
        (np.full((1, 2, 2), 0.5), "whole numbers"),
        (np.full((1, 2, 2), np.nan), "whole numbers"),
        (np.full((1, 2, 2), "a"), "expected integers, got dtype <U1"),
    ],
)
def test_impossible_counts_are_refused(counts, message):
    with pytest.raises(ValueError, match=message):
        ErrorOverlap(counts)


def test_overlaps_of_different_classes_do_not_add():
    with pytest.raises(ValueError, match="cannot add overlaps of 2 and 3 classes; state the same num_classes"):
        ErrorOverlap.empty(2) + ErrorOverlap.empty(3)
    with pytest.raises(TypeError):
        ErrorOverlap.empty(2) + 1
    assert ErrorOverlap.empty(2) != ErrorOverlap.empty(3)
    assert ErrorOverlap.empty(2) != "something else"


def test_an_overlap_never_changes():
    source = np.ones((2, 2, 2), dtype=np.int64)
    overlap = ErrorOverlap(source)
    source[:] = 5
    assert overlap.total == 8
    with pytest.raises(ValueError, match="read-only"):
        overlap.counts[0, 0, 0] = 3
    with pytest.raises(AttributeError, match="never changes"):
        overlap.counts = source


def test_copies_are_equal():
    overlap = ErrorOverlap.from_predictions(*random_labels(5))
    assert pickle.loads(pickle.dumps(overlap)) == overlap
    assert copy.deepcopy(overlap) == overlap
    assert ErrorOverlap.from_dict(json.loads(json.dumps(overlap.to_dict()))) == overlap


def test_a_foreign_dictionary_is_refused():
    with pytest.raises(ValueError, match="the key 'counts'"):
        ErrorOverlap.from_dict({"count": 1})
    with pytest.raises(ValueError, match="counts of 2 classes, but num_classes = 3"):
        ErrorOverlap.from_dict({**ErrorOverlap.empty(2).to_dict(), "num_classes": 3})


def test_intervals_contain_the_score_and_know_their_method():
    overlap = ErrorOverlap.from_predictions(*random_labels(6))
    for name in SCORES:
        wilson, exact = overlap.interval(name), overlap.interval(name, method="clopper_pearson")
        assert wilson[0] <= overlap.score(name) <= wilson[1]
        assert exact[0] <= overlap.score(name) <= exact[1]
        assert wilson != exact
    with pytest.raises(ValueError, match="expected 'wilson' or 'clopper_pearson', got 'normal'"):
        overlap.interval("btc", method="normal")


def test_the_summary_shows_both_becs_and_survives_no_data():
    text = ErrorOverlap.from_predictions(*random_labels(6)).summary(confidence=0.9)
    assert "BEC (given h1 wrong)" in text
    assert "BEC (given h2 wrong)" in text
    assert "90% interval" in text
    assert "undefined" in ErrorOverlap.empty(2).summary()


@pytest.mark.parametrize(
    ("flips", "limit", "verdict"),
    [(0, 0.01, "pass"), (0, 0.002, "inconclusive"), (10, 0.01, "inconclusive"), (30, 0.01, "fail")],
)
def test_the_gate_passes_fails_or_asks_for_more_data(flips, limit, verdict):
    overlap = ErrorOverlap([[[0, 0], [flips, 1000 - flips]]])
    assert overlap.gate("nfr", limit) == verdict
    # Here h1 is always right, so BTC is 1 - NFR and its gate must agree.
    assert overlap.gate("btc", 1 - limit) == verdict


def test_the_gate_lets_a_bad_model_pass_at_most_as_often_as_promised():
    # Every outcome of 300 instances at a true rate just over the budget, weighted by its probability.
    budget = 0.02
    passing = [k for k in range(301) if ErrorOverlap([[[0, 0], [k, 300 - k]]]).gate("nfr", budget, 0.9) == "pass"]
    assert 0 < binom.pmf(passing, 300, budget).sum() <= 0.1


def test_no_data_is_inconclusive():
    assert ErrorOverlap.empty(1).gate("nfr", 0.5) == "inconclusive"


def test_a_gate_without_direction_or_with_an_impossible_limit_is_refused():
    with pytest.raises(ValueError, match="no direction to gate on"):
        ErrorOverlap.empty(1).gate("bec_given_h1_wrong", 0.5)
    with pytest.raises(ValueError, match="limit: expected a share between 0 and 1, got 5"):
        ErrorOverlap.empty(1).gate("nfr", 5)


def test_scores_read_from_counts_agree_with_the_overlap():
    overlap = ErrorOverlap.from_predictions(*random_labels(7))
    for name in SCORES:
        assert score_from_counts(name, overlap.counts.sum(axis=0)) == overlap.score(name)


def test_sums_past_64_bits_are_refused_and_never_wrap_around():
    half = ErrorOverlap([[[0, 0], [0, 2**62]]])
    assert half.total == 2**62
    with pytest.raises(ValueError, match=r"sum is 2\*\*63 or more"):
        half + half
    with pytest.raises(ValueError, match=r"sum is 2\*\*63 or more"):
        ErrorOverlap([[[2**62, 0], [0, 2**62]]])
    for counts in ([[[2**63, 0], [0, 0]]], np.full((1, 2, 2), 2**63, np.uint64), np.full((1, 2, 2), 2.0**63)):
        with pytest.raises(ValueError, match=r"below 2\*\*63"):
            ErrorOverlap(counts)


@pytest.mark.parametrize("label", [10**9, 2**62, 2**63])
@pytest.mark.parametrize("where", [0, 1, 2])
def test_a_label_that_is_no_class_is_named_and_does_not_fill_the_memory(label, where):
    columns = [[0, 1, 1] for _ in range(3)]
    columns[where][1] = label
    name = ("target", "h1_pred", "h2_pred")[where]
    for given in (columns, [np.array(column, np.uint64) for column in columns]):
        with pytest.raises(
            ValueError, match=rf"{name}: .* {label} at position 1, .*(state num_classes|map the labels)"
        ):
            ErrorOverlap.from_predictions(*given)
        with pytest.raises(ValueError, match=rf"{name}: expected class.*, got {label} at position 1"):
            ErrorOverlap.from_predictions(*given, num_classes=3)


def test_negative_labels_alone_are_refused_as_labels():
    with pytest.raises(ValueError, match=r"target: expected classes 0\.\.0, got -1 at position 0"):
        ErrorOverlap.from_predictions([-1, -2], [-1, -1], [-1, -1])
    kept = ErrorOverlap.from_predictions([-1, 0], [0, 0], [0, 0], ignore_index=-1)
    assert kept.total == 1


def test_many_classes_can_be_stated():
    assert ErrorOverlap.from_predictions([0, 2**20 + 1], [0, 0], [0, 0], num_classes=2**20 + 2).total == 2
