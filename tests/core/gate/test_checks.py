import math

import numpy as np
import pytest

from bc_core import ErrorOverlap, clopper_pearson_interval, judge, non_inferiority_test, paired_difference_interval
from bc_core.gate._checks import Question, judged, verdicts_of, whole_verdict
from bc_core.gate._evidence import Evidence, Rows
from bc_core.promise._grammar import constraint_of

COUNTS = np.array([[10, 30], [20, 940]])


def question(bound, counts=COUNTS, scope="all instances"):
    return Question(scope, Evidence(np.asarray(counts)), constraint_of(bound) if isinstance(bound, str) else bound)


@pytest.mark.parametrize("bound", ["nfr <= 1%", "nfr <= 2%", "nfr <= 3%", "btc >= 97%", "btc >= 99%", "btc >= 96%"])
@pytest.mark.parametrize("bound_2", ["nfi <= 60%", "nfi <= 90%", "bec_given_h2_wrong >= 10%", "accuracy_h2 >= 96%"])
def test_one_question_is_judged_as_a_promise_is(bound, bound_2):
    overlap = ErrorOverlap(COUNTS[None])
    for text in (bound, bound_2):
        (check,) = judged([question(text)], 0.95)
        wanted = judge(text, overlap).findings[0]
        assert {"met": "pass", "missed": "fail", "cannot be told": "inconclusive"}[wanted.verdict] == check.verdict
        assert check.value == pytest.approx(wanted.value)
        constraint = constraint_of(text)
        assert (check.low if constraint.higher_is_better else check.high) == pytest.approx(wanted.bound, rel=1e-6)


def test_a_gain_of_accuracy_is_judged_by_newcombes_bounds():
    # Accuracy rises by one point: 30 repaired, 20 broken of 1000.
    low = paired_difference_interval(940, 30, 20, 10, 0.95, "lower")[0]
    high = paired_difference_interval(940, 30, 20, 10, 0.95, "upper")[1]
    for least, verdict in (
        (low - 1e-6, "pass"),
        (low + 1e-6, "inconclusive"),
        (high - 1e-6, "inconclusive"),
        (high + 1e-6, "fail"),
    ):
        (check,) = judged([question(least)], 0.95)
        assert check.verdict == verdict
        assert (check.value, check.low, check.high) == pytest.approx((0.01, low, high))
    assert judged([question(-0.005)], 0.95)[0].verdict == "pass"
    assert non_inferiority_test(940, 20, 30, 10, margin=0.005).holds


def test_how_many_more_instances_would_decide():
    (check,) = judged([question("nfr <= 2.5%")], 0.95)
    assert check.verdict == "inconclusive"
    assert check.more == pytest.approx(
        judge("nfr <= 2.5%", ErrorOverlap(COUNTS[None])).findings[0].instances_needed - 1000, rel=0.1
    )
    total = 1000 + check.more
    assert clopper_pearson_interval(math.ceil(0.02 * total), total, side="upper")[1] == pytest.approx(0.025, abs=4e-4)
    (check,) = judged([question("nfr <= 1.5%")], 0.95)  # would fail with more
    total = 1000 + check.more
    assert clopper_pearson_interval(math.floor(0.02 * total), total, side="lower")[0] == pytest.approx(0.015, abs=4e-4)
    nothing_broke = question("nfr <= 0.1%", [[0, 0], [0, 1000]])
    # By hand: 0.999 ** n = 0.05.
    assert 1000 + judged([nothing_broke], 0.95)[0].more == pytest.approx(math.log(0.05) / math.log(0.999), rel=0.01)


def test_what_no_number_of_instances_decides_is_said():
    assert "measured at the limit itself" in judged([question("nfr <= 2%")], 0.95)[0].note
    exactly = question("nfr <= 0", [[0, 0], [0, 1000]])
    assert "name critical instances" in judged([exactly], 0.95)[0].note
    nothing = judged([question("btc >= 50%", [[5, 5], [0, 0]])], 0.95)[0]
    assert (nothing.verdict, nothing.note) == ("inconclusive", "no instance counts for it")
    assert "too close to the limit" in judged([question("nfr <= 2.00001%")], 0.95)[0].note


def test_many_questions_make_failing_harder_and_passing_not():
    fails = question("nfr <= 1.2%")
    assert judged([fails], 0.95)[0].verdict == "fail"
    others = [question("nfr <= 5%")] * 49
    checks = judged([fails, *others], 0.95)
    assert checks[0].verdict == "inconclusive"
    assert {check.verdict for check in checks[1:]} == {"pass"}
    assert whole_verdict(checks) == "inconclusive"
    assert whole_verdict(judged([question("nfr <= 0.5%"), *others], 0.95)) == "fail"


@pytest.mark.parametrize("slices", [1, 50])
def test_false_alarms_at_the_budget_are_held(slices):
    rng, limit = np.random.default_rng(0), 0.02
    # Binomial draws are many orders faster than files; every slice is exactly at its budget.
    flips = rng.binomial(400, limit, size=(1500, slices))
    failed = passed = 0
    for row in flips.tolist():
        found = [question(f"nfr <= {limit}", [[0, 0], [k, 400 - k]]).found(0.95)(1.0) for k in row]
        verdicts = verdicts_of(found, 0.95)
        failed, passed = failed + ("fail" in verdicts), passed + (set(verdicts) == {"pass"})
    # Three standard errors of 1500 draws are 0.017.
    assert failed / 1500 < 0.05 + 0.017
    assert passed / 1500 < 0.05 + 0.017


def rows(size=3000, seed=0, **options):
    rng = np.random.default_rng(seed)
    h1 = rng.random(size) < 0.9
    return Rows(h1, np.where(rng.random(size) < 0.95, h1, rng.random(size) < 0.9), **options)


@pytest.mark.parametrize("score", ["nfr", "btc", "nfi", "bec_given_h2_wrong", "accuracy_h2"])
def test_equal_weights_and_lone_clusters_are_plain_counts(score):
    plain = rows().part()
    for options in ({"weights": np.full(3000, 0.3)}, {"clusters": np.arange(3000)}):
        other = rows(**options).part()
        assert other.ratio(score) == pytest.approx(plain.ratio(score))
        assert other.cells() == pytest.approx(plain.cells(), rel=1e-3)


def test_doubled_rows_of_users_are_worth_the_users():
    base = rows(1500)
    users = np.repeat(np.arange(1500), 2)
    doubled = Rows(base.h1_right[users], base.h2_right[users], clusters=users).part()
    for score in ("nfr", "btc"):
        above, below = doubled.ratio(score)
        wanted_above, wanted_below = base.part().ratio(score)
        assert above / below == pytest.approx(wanted_above / wanted_below)
        assert below == pytest.approx(wanted_below, rel=0.01)
    assert sum(doubled.cells()) == pytest.approx(1500, rel=0.01)


def test_weights_move_the_score_and_lessen_what_is_known():
    base = rows()
    broke = base.h1_right & ~base.h2_right
    weights = np.where(broke, 3.0, 1.0)
    weighted = Rows(base.h1_right, base.h2_right, weights).part()
    above, below = weighted.ratio("nfr")
    assert above / below == pytest.approx(weights[broke].sum() / weights.sum())
    assert below < 3000
    both, only_h1, only_h2, neither = weighted.cells()
    total = both + only_h1 + only_h2 + neither
    assert only_h1 / total == pytest.approx(weights[broke].sum() / weights.sum())
    assert total < 3000


def test_a_gain_of_clustered_rows_is_covered_as_often_as_promised():
    rng, hits, users, each = np.random.default_rng(1), 0, 120, 8
    names = np.repeat(np.arange(users), each)
    for _ in range(1200):
        # Users differ in how much the update helps them: on average by 2 points.
        broke, repaired = rng.beta(1, 32.3, users)[names], rng.beta(1, 19, users)[names]
        draw = rng.random(users * each)
        h1 = rng.random(users * each) < 0.5
        lost, won = draw < 2 * broke, draw < 2 * repaired
        h2 = np.where(h1, ~lost, won)
        found = Question("all", Rows(h1, h2, clusters=names).part(), 0.0).found(0.975)(1.0)
        hits += found.low <= 0.05 - 1 / 33.3 <= found.high
    assert 0.93 < hits / 1200 < 0.975
