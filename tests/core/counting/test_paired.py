import math

import numpy as np
import pytest
from scipy.stats import binomtest

from bc_core import (
    equivalence_test,
    mcnemar_test,
    non_inferiority_test,
    paired_bootstrap,
    paired_difference_interval,
    score_from_counts,
)
from bc_core.counting._paired import chance_at_most


# Table of examples in Newcombe (1998), column of method 10, to the digits printed there; the last is the worked example
# of Altman, Machin, Bryant and Gardner, "Statistics with confidence" (2000), table 6.2: 1.1 % to 22.6 %.
@pytest.mark.parametrize(
    ("cells", "wanted"),
    [
        ((36, 12, 2, 0), (0.0569, 0.3404)),
        ((36, 14, 0, 0), (0.1528, 0.4167)),
        ((54, 0, 0, 0), (-0.0664, 0.0664)),
        ((14, 5, 0, 22), (0.0115, 0.2265)),
    ],
)
def test_paired_difference_equals_the_published_examples(cells, wanted):
    np.testing.assert_allclose(paired_difference_interval(*cells), wanted, atol=5e-5)


def test_paired_difference_turns_round_with_its_arguments():
    low, high = paired_difference_interval(5, 30, 11, 954)
    assert paired_difference_interval(5, 11, 30, 954) == pytest.approx((-high, -low))


def test_paired_difference_is_narrower_where_the_same_instances_count():
    apart, together = paired_difference_interval(0, 30, 30, 940), paired_difference_interval(25, 5, 5, 965)
    assert together[1] - together[0] < 0.6 * (apart[1] - apart[0])


def test_paired_difference_covers_as_often_as_it_says():
    shares = np.array([0.01, 0.03, 0.015, 0.945])
    draws = np.random.default_rng(0).multinomial(1000, shares, size=4000)
    hits = sum(low <= 0.015 <= high for low, high in (paired_difference_interval(*map(int, row)) for row in draws))
    # Four standard errors of 4000 draws are 0.014; the method's own coverage there is a little above 95 %.
    assert 0.936 < hits / len(draws) < 0.975


@pytest.mark.parametrize("cells", [(-1, 0, 0, 5), (1, 2, 3, -4)])
def test_paired_difference_refuses_negative_counts(cells):
    with pytest.raises(ValueError, match="not negative"):
        paired_difference_interval(*cells)


def test_paired_difference_refuses_shares_and_knows_nothing_of_no_data():
    with pytest.raises(TypeError, match="counts, not shares"):
        paired_difference_interval(0.1, 0.2, 0.3, 0.4)
    assert paired_difference_interval(0, 0, 0, 0) == (-1.0, 1.0)


def test_a_one_sided_bound_is_that_of_a_wider_two_sided_error():
    low, high = paired_difference_interval(5, 30, 11, 954, 0.90)
    assert paired_difference_interval(5, 30, 11, 954, 0.95, "lower") == (pytest.approx(low), 1.0)
    assert paired_difference_interval(5, 30, 11, 954, 0.95, "upper") == (-1.0, pytest.approx(high))
    with pytest.raises(ValueError, match="side: expected 'two', 'lower' or 'upper', got 'both'"):
        paired_difference_interval(1, 2, 3, 4, side="both")


# Figures of statsmodels 0.15.0: mcnemar([[50, b], [c, 9]], exact=True).pvalue
@pytest.mark.parametrize(
    ("only_first", "only_second", "wanted"),
    [
        (12, 30, 0.007915897334896727),
        (0, 5, 0.0625),
        (3, 3, 1.0),
        (1, 9, 0.021484375),
        (37, 20, 0.03314396778750544),
        (0, 0, 1.0),
    ],
)
def test_mcnemar_equals_statsmodels(only_first, only_second, wanted):
    assert mcnemar_test(only_first, only_second) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
@pytest.mark.parametrize(("b", "c"), [(7, 2), (2, 7), (400, 300), (5, 5)])
def test_mcnemar_is_the_binomial_test_of_the_instances_that_tell(alternative, b, c):
    assert mcnemar_test(b, c, alternative) == pytest.approx(binomtest(b, b + c, 0.5, alternative).pvalue, rel=1e-9)


def test_mcnemar_refuses_what_it_cannot_read():
    with pytest.raises(ValueError, match="alternative: expected"):
        mcnemar_test(1, 2, "smaller")
    with pytest.raises(ValueError, match="not negative"):
        mcnemar_test(-1, 2)
    with pytest.raises(TypeError, match="counts, not shares"):
        mcnemar_test(0.1, 2)


@pytest.mark.parametrize("cells", [(900, 15, 12, 73), (36, 12, 2, 0), (0, 3, 9, 50), (95, 0, 0, 5)])
@pytest.mark.parametrize("limit", [-0.2, -0.01, 0.0, 0.004, 0.15])
def test_the_p_value_says_what_the_bound_says(cells, limit):
    p_value = chance_at_most(cells, limit)
    for confidence in (0.6, 0.9, 0.95, 0.99, 0.9999):
        low = paired_difference_interval(*cells, confidence, "lower")[0]
        if abs(low - limit) > 1e-9:
            assert (low > limit) == (p_value < 1 - confidence)


def test_non_inferiority_is_decided_by_the_lower_bound_of_second_less_first():
    found = non_inferiority_test(900, 12, 15, 73, margin=0.005)
    low = paired_difference_interval(900, 15, 12, 73, 0.95, "lower")[0]
    assert (found.difference, found.low, found.holds) == (0.003, pytest.approx(low), False)
    assert non_inferiority_test(900, 12, 15, 73, margin=0.0065).holds
    assert non_inferiority_test(900, 12, 15, 73, margin=0.0065).p_value < 0.05


def test_equivalence_needs_both_bounds():
    near = equivalence_test(9000, 30, 34, 936, margin=0.005)
    assert near.holds
    assert near.p_value == pytest.approx(1.9e-7, rel=0.1)
    better = equivalence_test(900, 5, 60, 35, margin=0.02)
    assert non_inferiority_test(900, 5, 60, 35, margin=0.02).holds
    assert not better.holds
    assert better.p_value > 0.5
    mirrored = equivalence_test(900, 60, 5, 35, margin=0.02)
    assert (mirrored.low, mirrored.high) == pytest.approx((-better.high, -better.low))
    assert mirrored.p_value == pytest.approx(better.p_value)


def test_a_truth_on_the_margin_is_let_through_as_seldom_as_promised():
    shares = np.array([0.9, 0.03, 0.02, 0.05])  # h2 is one point worse
    draws = np.random.default_rng(0).multinomial(1500, shares, size=4000)
    through = np.mean([non_inferiority_test(*map(int, row), margin=0.01).holds for row in draws])
    assert 0.03 < through < 0.06


@pytest.mark.parametrize("test", [equivalence_test, non_inferiority_test])
def test_margins_that_cannot_be_are_refused(test):
    for margin in (0, 1, -0.1, math.nan):
        with pytest.raises(ValueError, match="margin: expected a number between 0 and 1"):
            test(1, 2, 3, 4, margin)
    with pytest.raises(ValueError, match="at least one instance"):
        test(0, 0, 0, 0, 0.1)


def drawn_cells(rng, size):
    return rng.multinomial(size, CELLS).reshape(2, 2, 2)


CELLS = np.array([0.03, 0.01, 0.01, 0.05, 0.02, 0.02, 0.03, 0.83])


@pytest.mark.parametrize("score", ["btc", "nfi", "nfr"])
def test_the_bootstrap_covers_as_often_as_it_says(score):
    whole = CELLS.reshape(2, 2, 2)
    truth = score_from_counts(score, whole.sum(axis=2)) - score_from_counts(score, whole.sum(axis=1))
    rng = np.random.default_rng(3)
    found = [paired_bootstrap(drawn_cells(rng, 2000), score, resamples=1000, seed=k)[1:] for k in range(1000)]
    # Three standard errors of 1000 draws are 0.02.
    assert 0.93 < np.mean([low <= truth <= high for low, high in found]) < 0.97


def test_the_bootstrap_agrees_with_newcombe_where_both_can_be_had():
    table = np.array([[[30, 8], [12, 60]], [[25, 21], [34, 810]]])
    flips = table[1]  # of h1's right ones: [first right, second right]
    wanted = paired_difference_interval(
        int(flips[0, 0]), int(flips[0, 1]), int(flips[1, 0]), int(table.sum()) - int(flips.sum()) + int(flips[1, 1])
    )
    difference, low, high = paired_bootstrap(table, "nfr")
    assert difference == pytest.approx((flips[0].sum() - flips[:, 0].sum()) / table.sum())
    assert (low, high) == pytest.approx(wanted, abs=1.5e-3)


def test_the_bootstrap_of_cells_is_that_of_instances():
    rng = np.random.default_rng(5)
    table = drawn_cells(rng, 400)
    cell = np.repeat(np.arange(8), table.ravel())
    draws = [np.bincount(rng.choice(cell, len(cell)), minlength=8).reshape(2, 2, 2) for _ in range(4000)]
    differences = [score_from_counts("btc", d.sum(axis=2)) - score_from_counts("btc", d.sum(axis=1)) for d in draws]
    _, low, high = paired_bootstrap(table, "btc", 0.9)
    assert (low, high) == pytest.approx(np.quantile(differences, [0.05, 0.95]), abs=3e-3)


def test_the_bootstrap_refuses_tables_of_another_kind():
    for counts in (np.zeros((2, 2, 2), int), np.ones((2, 2), int), np.ones((2, 2, 2)), -np.ones((2, 2, 2), int)):
        with pytest.raises(ValueError, match="counts: expected integers of shape"):
            paired_bootstrap(counts, "btc")
    with pytest.raises(ValueError, match="resamples: expected at least 100"):
        paired_bootstrap(np.ones((2, 2, 2), int), "btc", resamples=10)
