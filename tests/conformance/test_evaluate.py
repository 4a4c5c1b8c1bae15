"""`evaluate`, as both sides promise it: counts by hand, one question a batch, models left as they were.

Of Keras in a process that names a backend, of Lightning in any other. Data, models and what a metric may return are the
side's own; a list of batches of numpy is read by both.
"""

from __future__ import annotations

import math
import os
import warnings
from collections import Counter

import numpy as np
import pytest
from evaluate_sides import Keras, Lightning, batches, no_memory
from sklearn.metrics import accuracy_score, confusion_matrix

# Eight instances by hand. Right: both 0, 4; h1 alone 1, 2, 5; h2 alone 3, 6; none 7.
TARGET = [0, 0, 1, 1, 2, 2, 0, 1]
H1 = [0, 0, 1, 0, 2, 2, 2, 2]
H2 = [0, 1, 2, 1, 2, 0, 0, 0]
WRONG = (1, 2, 3, 5, 6, 7)
BATCHES_OF_THREE = [[0, 1, 2], [3, 4, 5], [6, 7]]


SIDE = Keras if "KERAS_BACKEND" in os.environ else Lightning


@pytest.fixture(scope="module")
def side():
    made = SIDE()
    yield made
    made.close()


def scores_of(answers, classes=3):
    return np.eye(classes, dtype="float32")[answers]


def table(side, answers, classes=3):
    """A model of known answers."""
    return side.known(scores_of(answers, classes))


def arrays(target=TARGET):
    return np.arange(len(target), dtype="float32")[:, None], np.array(target)


def images(rows=20, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(rows, 6)).astype("float32"), random.integers(0, 3, rows)


def evaluate(side, h1, h2, data=None, **options):
    """Of the eight instances in batches of three, unless others are given."""
    given = side.in_threes(*arrays()) if data is None else {"data": data}
    return side.ours.evaluate(h1, h2, **given, **options)


def by_hand(comparison, ids=range(8)):
    """Whether a comparison is the one that was counted by hand."""
    ids = list(ids)
    overlap = comparison.overlap
    assert (overlap.both_right, overlap.h1_only_right, overlap.h2_only_right, overlap.both_wrong) == (2, 3, 2, 1)
    assert (overlap.btc, overlap.nfr, overlap.accuracy_h1, overlap.accuracy_h2) == (2 / 5, 3 / 8, 5 / 8, 4 / 8)
    found = {row["id"]: (row["target"], row["h1_pred"], row["h2_pred"]) for row in comparison.instances}
    assert found == {ids[index]: (TARGET[index], H1[index], H2[index]) for index in WRONG}
    return True


# -------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize("batch_size", [None, 1, 3, 8, 100])
def test_numbers_are_those_counted_by_hand_whatever_the_batch_size(side, batch_size):
    h1, h2 = table(side, H1), table(side, H2)
    for data, options in side.forms(*arrays(), batch_size):
        found = evaluate(side, h1, h2, data, **options)
        assert by_hand(found.comparison)
        assert (found.h1_performance, found.h2_performance) == (5 / 8, 4 / 8)
        assert found.comparison.instances.ids.tolist() == list(WRONG)


def test_numbers_are_those_of_sklearn(side):
    (x, y), h1 = images(200), side.normalised(1)
    for h2 in side.variants(side.normalised(2)):
        first, second = (side.predicted(model, x) for model in (h1, h2))
        [(data, options), *_] = side.forms(x, y, 64)
        found = evaluate(side, h1, h2, data, **options)
        assert found.h1_performance == accuracy_score(y, first)
        assert found.h2_performance == accuracy_score(y, second)
        overlap = found.comparison.overlap
        assert confusion_matrix(first == y, second == y).tolist() == [
            [overlap.both_wrong, overlap.h2_only_right], [overlap.h1_only_right, overlap.both_right]
        ]  # fmt: skip


def test_a_class_that_is_absent_a_perfect_h1_and_a_perfect_h2(side):
    target = [0, 0, 1, 3, 3, 3, 1, 0]  # no instance of class 2
    data, right, wrong = batches(*arrays(target)), table(side, target, 5), table(side, [2] * 8, 5)
    lost = evaluate(side, right, wrong, data, class_names=list("abcde"))
    assert (lost.h1_performance, lost.h2_performance) == (1.0, 0.0)
    assert (lost.comparison.overlap.btc, lost.comparison.overlap.nfr, lost.comparison.overlap.pfr) == (0, 1, 0)
    assert lost.comparison.overlap.total_by_class.tolist() == [3, 2, 0, 3, 0]
    assert {entry["class"]: entry["accuracy"] for entry in lost.to_dict()["h1_accuracy_by_class"]} == {
        "a": 1.0, "b": 1.0, "c": None, "d": 1.0, "e": None,
    }  # fmt: skip
    won = evaluate(side, wrong, right, data)
    assert (won.h1_performance, won.h2_performance) == (0.0, 1.0)
    assert (won.comparison.overlap.nfr, won.comparison.overlap.pfr) == (0, 1)
    # Of no right answer no share is kept: 0 by definition, where BTC has nothing to divide by.
    assert (won.comparison.overlap.btc, won.comparison.overlap.bec()) == (0, 0)
    same = evaluate(side, right, right, data)
    assert len(same.comparison.instances) == 0
    assert same.comparison.overlap.btc == 1


@pytest.mark.parametrize("shape", SIDE.binary_shapes)
@pytest.mark.parametrize("logits", [False, True])
def test_a_binary_model_by_hand(side, logits, shape):
    x, y = arrays([0, 0, 0, 0, 1, 1, 1, 1])
    p = np.array([[0.1, 0.2, 0.6, 0.7, 0.9, 0.8, 0.3, 0.55], [0.1, 0.6, 0.2, 0.6, 0.5, 0.4, 0.9, 0.2]])
    # Class 1 from a probability of 0.5 on. Right: h1 0, 1, 4, 5, 7; h2 0, 2, 4, 6.
    scores = np.log(p / (1 - p)) if logits else p
    h1, h2 = (side.known(each.astype("float32").reshape(shape)) for each in scores)
    given = {"from_logits": True} if logits else {}
    overlap = evaluate(side, h1, h2, batches(x, y), **given).comparison.overlap
    assert (overlap.both_right, overlap.h1_only_right, overlap.h2_only_right, overlap.both_wrong) == (2, 3, 2, 1)
    stricter = evaluate(side, h1, h2, batches(x, y), threshold=0.58, **given)
    # h1 loses 7 (0.55), h2 loses 4 (0.5).
    assert (stricter.h1_performance, stricter.h2_performance) == (4 / 8, 3 / 8)
    # From the scores of the first, h2 alone at 0.58 (one of the edges of the second), and how sure h1 is of 1.
    thresholds = stricter.comparison.thresholds
    assert thresholds.at() == stricter.comparison.overlap
    assert (thresholds.at(h1=0.5, h2=0.5).accuracy_h1, thresholds.at(h1=0.5, h2=0.58).accuracy_h2) == (5 / 8, 3 / 8)
    assert stricter.comparison.instances.h1_confidence[0] == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize("form", ["logits", "log-probabilities", "probabilities"])
def test_how_sure_the_models_are_is_kept_and_counted(side, form):
    random = np.random.default_rng(3)
    logits = [random.normal(size=(8, 3)) for _ in range(2)]
    p1, p2 = (np.exp(each) / np.exp(each).sum(1, keepdims=True) for each in logits)
    forms = {"logits": logits, "log-probabilities": [np.log(p1), np.log(p2)], "probabilities": [p1, p2]}
    h1, h2 = (side.known(each.astype("float32")) for each in forms[form])
    country = ["de", "fr", "fr", "de", "de", "fr", "de", "de"]
    found = evaluate(side, h1, h2, metadata={"country": country}).comparison
    assert len(found.instances) > 2
    for row in found.instances:
        i, target = row["id"], row["target"]
        kept = [row[name] for name in ("h1_confidence", "h2_confidence", "h1_of_truth", "h2_of_truth")]
        assert kept == pytest.approx([p1[i].max(), p2[i].max(), p1[i][target], p2[i][target]], abs=3e-6)
    right = sum(p2[i].argmax() == target for i, target in enumerate(TARGET))
    assert found.calibration.counts[1].sum(axis=0).tolist() == [8 - right, right]
    assert found.slices[0].counts.sum(axis=(1, 2)).tolist() == [5, 3]
    assert [country[i] for i in found.instances.ids] == [["de", "fr"][k] for k in found.instances.slices["country"]]


def test_answers_that_are_labels_are_not_sure(side):
    found = evaluate(side, np.array(H1), table(side, H2)).comparison
    assert np.isnan(found.instances.h1_confidence).all()
    assert (found.instances.h2_confidence == 1).all()


def test_columns_of_metadata_are_in_the_order_of_the_data(side):
    with pytest.raises(ValueError, match=r"a value for each of the 8 instances, in the order of the data, got 2"):
        evaluate(side, table(side, H1), table(side, H2), metadata={"country": ["de", "fr"]})


# -------------------------------------------------------------------------------- questions


def test_each_model_is_asked_once_about_each_batch_in_inference_mode(side):
    h1, h2 = table(side, H1), table(side, H2)
    evaluate(side, h1, h2)
    for model in (h1, h2):
        assert side.asked(model) == BATCHES_OF_THREE
        assert side.modes_asked_in(model) == {False}


@pytest.mark.parametrize("names", [None, list("abcdefgh")])
def test_a_metric_may_ask_again_but_the_comparison_still_asks_once(side, names):
    h1, h2 = table(side, H1), table(side, H2)
    evaluate(side, h1, h2, batches(*arrays(), names), performance_metric=lambda model, dataset, device: 0.5)
    assert side.asked(h1) == side.asked(h2) == BATCHES_OF_THREE


def test_a_model_compared_with_itself_is_asked_as_both(side):
    model = table(side, H1)
    evaluate(side, model, model)
    assert Counter(row for rows in side.asked(model) for row in rows) == dict.fromkeys(range(8), 2)


# -------------------------------------------------------------------------------- modes, weights and statistics


def assert_unchanged(side, model, before):
    weights, *rest = side.state(model)
    assert weights.keys() == before[0].keys()
    for name, then in before[0].items():
        np.testing.assert_array_equal(weights[name], then)
    assert rest == list(before[1:])


@pytest.mark.parametrize("how", SIDE.wraps)
def test_statistics_weights_and_what_is_trained_stay_as_they_were(side, how):
    x, y = images(60)
    h1, h2 = side.normalised(1), side.normalised(2, frozen=True)
    for prepared in side.variants(h2):
        before = side.state(h1), side.state(prepared)
        found = evaluate(side, side.wrapped(h1, how), prepared, batches(x, y, size=7))
        assert_unchanged(side, h1, before[0])
        assert_unchanged(side, prepared, before[1])
        # Dropout and the statistics of a batch would give others.
        expected = [accuracy_score(y, side.predicted(model, x)) for model in (h1, prepared)]
        assert [found.h1_performance, found.h2_performance] == expected


@pytest.mark.parametrize("broken", ["h1", "h2", "data", "metric"])
def test_models_are_as_they_were_after_an_error_in_the_middle(side, broken):
    h1, h2 = (side.normalised(seed, frozen=seed == 2, breaks=broken == name) for seed, name in ((1, "h1"), (2, "h2")))
    before = side.state(h1), side.state(h2)
    given = batches(*images(20), size=5)

    class Failing:
        def __iter__(self):
            yield from given[:2]
            no_memory()

    # Keras wraps what a data set raises on some backends.
    with pytest.raises(Exception, match="no memory"):
        evaluate(
            side, h1, h2, Failing() if broken == "data" else given,
            performance_metric=no_memory if broken == "metric" else None,
        )  # fmt: skip
    assert_unchanged(side, h1, before[0])
    assert_unchanged(side, h2, before[1])
    # And they can be compared again.
    assert evaluate(side, h1, h2, given).comparison.dataset_size == 20


# -------------------------------------------------------------------------------- the caller's metric

PLAIN_NUMBERS = {"float": float, "numpy float32": np.float32, "numpy float64": np.float64, "array": np.array}


def number(side, kind, value):
    return PLAIN_NUMBERS[kind](value) if kind in PLAIN_NUMBERS else side.number(kind, value)


@pytest.mark.parametrize("kind", [*PLAIN_NUMBERS, *SIDE.numbers])
def test_a_metric_may_return_any_one_number(side, kind):
    found = evaluate(
        side, table(side, H1), table(side, H2),
        performance_metric=lambda *given: number(side, kind, side.accuracy(*given)),
    )  # fmt: skip
    # Eighths are exact in every one of these types.
    assert (found.h1_performance, found.h2_performance) == (0.625, 0.5)
    assert {type(found.h1_performance), type(found.h2_performance)} == {float}


@pytest.mark.parametrize("kind", ["float", "numpy float32", SIDE.numbers[0]])
def test_a_metric_that_says_nan_is_nan_and_leaves_the_comparison(side, kind):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = side.ours.evaluate(
            table(side, H1), table(side, H2), batches(*arrays()),
            performance_metric=lambda *_: number(side, kind, math.nan),
        )  # fmt: skip
    told = [entry for entry in told if "performance_metric" in str(entry.message)]
    assert [str(entry.message).split(":")[0] for entry in told] == [
        "performance_metric says NaN for h1", "performance_metric says NaN for h2",
    ]  # fmt: skip
    # They point at the caller's line.
    assert {entry.filename for entry in told} == {__file__}
    assert math.isnan(found.h1_performance)
    assert math.isnan(found.h2_performance)
    assert by_hand(found.comparison)
    assert found.to_dict()["h2_performance"] is None


def test_a_metric_gets_the_models_and_the_data_as_they_were_given(side):
    given, h1, h2, data = [], table(side, H1), table(side, H2), batches(*arrays(), list("abcdefgh"))
    evaluate(side, h1, h2, data, performance_metric=lambda *arguments: given.append(arguments) or 0.0)
    assert [(model, device) for model, _, device in given] == [(h1, "cpu"), (h2, "cpu")]
    assert all(dataset is data for _, dataset, _ in given)


@pytest.mark.parametrize("answer", ["good", None, [0.5], np.array([0.5]), "tensor", True])
def test_a_metric_that_returns_no_number_is_refused_by_name(side, answer):
    answer = side.vector([0.5]) if isinstance(answer, str) and answer == "tensor" else answer
    with pytest.raises(TypeError, match="performance_metric must return one number for h1"):
        evaluate(side, table(side, H1), table(side, H2), performance_metric=lambda *_: answer)


@pytest.mark.parametrize("kind", ["labels", "scores", "stored outputs"])
def test_a_metric_is_not_asked_of_answers(side, kind):
    # There is no model that it could measure.
    measured, h2 = [], table(side, H2)
    if kind == "stored outputs":
        h1 = side.ours.StoredOutputs.from_table(H1)
        given = side.attach(h1, *arrays())
    else:
        h1, given = np.array(H1) if kind == "labels" else scores_of(H1), side.in_threes(*arrays())

    def metric(model, dataset, device):
        measured.append(model)
        return 0.25

    found = side.ours.evaluate(h1, h2, performance_metric=metric, **given)
    assert list(map(id, measured)) == [id(h2)]
    assert math.isnan(found.h1_performance)
    assert found.h2_performance == 0.25


def test_a_metric_is_asked_of_the_model_behind_a_reference(side):
    asked, h1, h2 = [], table(side, H1), table(side, H2)

    def metric(model, dataset, device):
        asked.append(model)
        return 0.5

    found = evaluate(side, side.ours.Reference(h1), h2, performance_metric=metric)
    assert asked == [h1, h2]
    assert (found.h1_performance, found.h2_performance) == (0.5, 0.5)


# -------------------------------------------------------------------------------- data and ids


@pytest.mark.parametrize("order", [list(range(8)), [7, 6, 5, 4, 3, 2, 1, 0], [5, 2, 7, 0, 1, 6, 4, 3]])
@pytest.mark.parametrize("names", [[f"scan-{index}" for index in range(8)], list(range(100, 108)), list("äöü\0ßéèê")])
def test_ids_of_the_batches_name_the_instances_in_whatever_order(side, names, order):
    data = side.named(names, *arrays(), order)
    assert by_hand(evaluate(side, table(side, H1), table(side, H2), data).comparison, names)


def test_batches_without_ids_are_named_by_their_positions(side):
    assert by_hand(evaluate(side, table(side, H1), table(side, H2), batches(*arrays())).comparison)


def test_metadata_are_asked_for_by_id_and_only_for_errors(side):
    names, wanted = [f"scan-{index}" for index in range(8)], []

    def text(name):
        wanted.append(name)
        return f"text of {name}"

    data = side.named(names, *arrays(), list(range(8)))
    found = evaluate(side, table(side, H1), table(side, H2), data, metadata=text).comparison
    assert sorted(set(wanted)) == [names[index] for index in WRONG]
    assert [row["metadata"] for row in found.instances] == [f"text of {row['id']}" for row in found.instances]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "uint64"])
def test_whole_numbers_of_any_type_are_classes(side, dtype):
    x, y = arrays()
    assert by_hand(evaluate(side, table(side, H1), table(side, H2), batches(x, y.astype(dtype))).comparison)


# -------------------------------------------------------------------------------- an h1 that is no model


def test_stored_outputs_answer_for_h1(side, tmp_path):
    h1, h2, (x, y) = table(side, H1), table(side, H2), arrays()
    stored = side.store(h1, x, y, tmp_path / "h1")
    side.forget(h1)
    opened = side.ours.StoredOutputs.open(tmp_path / "h1")
    for reference in (stored, side.ours.Reference(stored), opened):
        given = side.attach(stored, x, y)
        assert by_hand(side.ours.evaluate(reference, h2, **given).comparison)
    assert not side.asked(h1)
    assert side.asked(h2) == BATCHES_OF_THREE * 3


def test_stored_outputs_of_labels_and_a_class_map(side):
    # h1's classes are 2, 0, 1 of h2's; its label 0 stands for 2.
    stored = side.ours.StoredOutputs.from_table([[2, 0, 1].index(label) for label in H1])
    reference = side.ours.Reference(stored, class_map=[2, 0, 1])
    given = side.attach(stored, *arrays())
    assert by_hand(side.ours.evaluate(reference, table(side, H2), **given).comparison)


@pytest.mark.parametrize("kind", ["a list", "an array", "scores", "a callable of numpy", *SIDE.answers])
def test_the_answers_themselves_may_be_given(side, kind):
    scores, h2 = scores_of(H1), table(side, H2)
    h1 = {
        "a list": lambda: H1,
        "an array": lambda: np.array(H1),
        "scores": lambda: scores,
        "a callable of numpy": lambda: lambda x: scores[np.asarray(x).astype(int)[:, 0]],
        "tensor": lambda: side.vector(H1),
        "scores in a tensor": lambda: side.vector(scores),
    }[kind]()
    found = evaluate(side, h1, h2)
    assert by_hand(found.comparison)
    assert (found.h1_performance, found.h2_performance) == (5 / 8, 4 / 8)
    assert side.asked(h2) == BATCHES_OF_THREE
