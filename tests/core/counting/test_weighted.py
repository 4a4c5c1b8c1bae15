import numpy as np
import pytest
from scipy.stats import binom

from bc_core import clopper_pearson_interval, weighted_share, wilson_interval
from bc_core.counting._weighted import chance_of_so_few, chance_of_so_many, exact_bounds


@pytest.mark.parametrize(("successes", "trials"), [(0, 20), (3, 100), (20, 20), (81, 263)])
@pytest.mark.parametrize("side", ["two", "lower", "upper"])
def test_plain_instances_have_the_exact_interval(successes, trials, side):
    found = weighted_share(np.arange(trials) < successes, side=side)
    assert found.effective == pytest.approx(trials)
    assert (found.low, found.high) == pytest.approx(clopper_pearson_interval(successes, trials, side=side), rel=1e-6)


def test_weights_of_one_size_and_clusters_of_one_row_change_nothing():
    above = np.random.default_rng(0).random(300) < 0.1
    plain = weighted_share(above)
    assert weighted_share(above, weights=np.full(300, 2.5)) == pytest.approx(plain)
    assert weighted_share(above, clusters=np.arange(300)[::-1]) == pytest.approx(plain)


def test_a_weight_of_two_is_not_two_instances():
    above = np.arange(200) % 10 == 0
    doubled = weighted_share(above, weights=np.where(np.arange(200) < 100, 1.0, 3.0))
    # Kish's effective number: (sum of weights)**2 / sum of their squares.
    assert doubled.effective == pytest.approx(400**2 / 1000, rel=0.02)
    assert doubled.share == pytest.approx(0.1)


def test_rows_that_go_together_are_worth_one():
    users = np.repeat(np.arange(400), 25)
    found = weighted_share(users % 10 == 0, clusters=users)
    assert found.effective == pytest.approx(400, rel=0.01)
    few = weighted_share(users == 0, clusters=users)
    assert few.effective == pytest.approx(
        400, rel=0.01
    )  # and not far less, as one user says little of how rows go together
    none_broke = weighted_share(np.zeros(len(users), bool), clusters=users)
    assert none_broke.effective == 400
    assert none_broke.high == pytest.approx(clopper_pearson_interval(0, 400)[1])
    assert weighted_share(users < 400, clusters=np.zeros(len(users))).effective == 1


def test_a_share_among_some_leaves_the_others_out():
    above, below = np.array([1, 1, 0, 0, 1], bool), np.array([1, 0, 1, 1, 1], bool)
    found = weighted_share(above, below, weights=[1, 9, 1, 1, 1])
    assert (found.share, found.effective) == (0.5, pytest.approx(4))
    nothing = weighted_share(above, np.zeros(5, bool))
    assert np.isnan(nothing.share)
    assert (nothing.low, nothing.high, nothing.effective) == (0, 1, 0)


@pytest.mark.parametrize(("users", "rows", "together"), [(60, 10, 0.2), (200, 5, 0.3)])
def test_clusters_are_covered_at_least_as_often_as_promised(users, rows, together):
    rng, share, scale = np.random.default_rng(0), 0.1, 1 / together - 1
    names = np.repeat(np.arange(users), rows)
    hits = plain = 0
    for _ in range(1500):
        above = rng.random(users * rows) < rng.beta(share * scale, (1 - share) * scale, users)[names]
        found, naive = weighted_share(above, clusters=names), weighted_share(above)
        hits += found.low <= share <= found.high
        plain += naive.low <= share <= naive.high
    # The exact interval promises at least 95 %; three standard errors of 1500 draws are 0.017.
    assert 0.938 < hits / 1500 < 0.975
    assert plain / 1500 < 0.9  # what it would be if rows were taken for instances


@pytest.mark.parametrize("spread", [1.0, 0.5])
def test_rare_events_of_uneven_weights_are_not_taken_for_known(spread):
    rng, misses = np.random.default_rng(1), 0
    for _ in range(1500):
        weights, above = rng.gamma(spread, size=1500), rng.random(1500) < 0.015
        misses += weighted_share(above, weights=weights, side="upper").high < 0.015
    assert misses / 1500 < 0.05  # the variance alone, without Kish's number, misses 8 %


def test_chances_are_the_tails_of_the_binomial():
    for k, n, p in ((3, 100, 0.01), (0, 10, 0.2), (10, 10, 0.9), (40, 1000, 0.05)):
        assert chance_of_so_many(k, n, p) == pytest.approx(binom.sf(k - 1, n, p), rel=1e-9)
        assert chance_of_so_few(k, n, p) == pytest.approx(binom.cdf(k, n, p), rel=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": [1, -1]}, "weights: expected finite numbers of at least 0"),
        ({"weights": [1, np.nan]}, "weights: expected finite numbers of at least 0"),
        ({"weights": [1]}, "one length"),
        ({"below": [True]}, "one length"),
        ({"clusters": [1]}, "clusters: expected one for each of 2 instances"),
        ({"confidence": 95}, "confidence: expected a number between 0 and 1"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        weighted_share([True, False], **options)


def test_without_weights_both_methods_are_those_of_counts():
    above = np.arange(300) < 7
    for method, interval in (("wilson", wilson_interval), ("clopper_pearson", clopper_pearson_interval)):
        found = weighted_share(above, method=method)
        assert (found.low, found.high) == pytest.approx(interval(7, 300), rel=1e-9)
    with pytest.raises(ValueError, match="method: expected 'wilson' or 'clopper_pearson', got 'wald'"):
        weighted_share(above, method="wald")


@pytest.mark.parametrize(
    ("successes", "trials", "error"), [(1000, 478_758_672, 0.05), (999, 310_049_810, 0.05), (4, 18_550, 1e-6)]
)
def test_bounds_are_exact_where_the_inverse_of_scipy_is_not(successes, trials, error):
    low, high = exact_bounds(successes / trials, trials, error)
    assert binom.sf(successes - 1, trials, low) == pytest.approx(error, rel=1e-3)
    assert binom.cdf(successes, trials, high) == pytest.approx(error, rel=1e-3)
