import math

import numpy as np
import pytest
from scipy.stats import beta, binom, binomtest

from bc_core import clopper_pearson_interval, wilson_interval

CASES = [
    (0, 1),
    (1, 1),
    (0, 1000),
    (1000, 1000),
    (1, 10),
    (5, 10),
    (20, 1000),
    (999, 1000),
    (3, 100_000),
    (50_000, 100_000),
]


@pytest.mark.parametrize(("successes", "trials"), CASES)
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
def test_wilson_equals_scipy(successes, trials, confidence):
    wanted = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    np.testing.assert_allclose(wilson_interval(successes, trials, confidence), wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("successes", "trials"), CASES)
@pytest.mark.parametrize("confidence", [0.01, 0.5, 0.95, 0.999999])
@pytest.mark.parametrize("side", ["two", "lower", "upper"])
def test_clopper_pearson_equals_the_beta_quantile(successes, trials, confidence, side):
    error = (1 - confidence) / (2 if side == "two" else 1)
    low = beta.ppf(error, successes, trials - successes + 1) if successes and side != "upper" else 0.0
    high = beta.isf(error, successes + 1, trials - successes) if successes < trials and side != "lower" else 1.0
    got = clopper_pearson_interval(successes, trials, confidence, side)
    np.testing.assert_allclose(got, (low, high), rtol=1e-8)


@pytest.mark.parametrize("seed", range(30))
def test_clopper_pearson_equals_scipy_on_random_counts(seed):
    rng = np.random.default_rng(seed)
    trials = int(10 ** rng.uniform(0, 6))
    successes = int(rng.integers(0, trials + 1))
    wanted = binomtest(successes, trials).proportion_ci(0.95, method="exact")
    np.testing.assert_allclose(clopper_pearson_interval(successes, trials), wanted, rtol=1e-7)


@pytest.mark.parametrize("successes", [1, 1000, 5 * 10**8, 10**9 - 1])
def test_a_billion_trials_give_exact_bounds(successes):
    low, high = clopper_pearson_interval(successes, 10**9)
    # The definition itself: at either bound, the tail that reaches the count has 2.5 %.
    np.testing.assert_allclose(binom.sf(successes - 1, 10**9, low), 0.025, rtol=1e-4)
    np.testing.assert_allclose(binom.cdf(successes, 10**9, high), 0.025, rtol=1e-4)


def test_no_flip_in_a_thousand_still_allows_some():
    assert wilson_interval(0, 1000)[1] == pytest.approx(0.00383, abs=1e-5)


@pytest.mark.parametrize("interval", [wilson_interval, clopper_pearson_interval])
class TestBothIntervals:
    def test_no_trial_says_nothing(self, interval):
        assert interval(0, 0) == (0.0, 1.0)

    def test_the_ends_are_exact(self, interval):
        assert interval(0, 50)[0] == 0.0
        assert interval(50, 50)[1] == 1.0

    def test_it_contains_the_estimate_and_narrows_with_more_trials(self, interval):
        few, many = interval(3, 30), interval(300, 3000)
        assert few[0] < many[0] < 0.1 < many[1] < few[1]

    def test_one_sided_bounds_are_those_of_a_wider_two_sided_error(self, interval):
        low, high = interval(7, 90, 0.90)
        assert interval(7, 90, 0.95, "lower") == (pytest.approx(low), 1.0)
        assert interval(7, 90, 0.95, "upper") == (0.0, pytest.approx(high))

    def test_numpy_integers_are_counts(self, interval):
        assert interval(np.int64(3), np.int32(30)) == interval(3, 30)
        assert all(type(bound) is float for bound in interval(np.int64(3), np.int32(30)))

    @pytest.mark.parametrize("counts", [(-1, 5), (6, 5), (0, -1)])
    def test_impossible_counts_are_refused(self, interval, counts):
        with pytest.raises(ValueError, match=f"got {counts[0]} successes of {counts[1]} trials"):
            interval(*counts)

    def test_shares_instead_of_counts_are_refused(self, interval):
        with pytest.raises(TypeError, match="pass counts, not shares"):
            interval(0.1, 100)

    @pytest.mark.parametrize("confidence", [0, 1, 95, math.nan])
    def test_an_impossible_confidence_is_refused(self, interval, confidence):
        with pytest.raises(ValueError, match=r"confidence: expected a number between 0 and 1 such as 0.95"):
            interval(1, 10, confidence)

    def test_an_unknown_side_is_refused(self, interval):
        with pytest.raises(ValueError, match="side: expected 'two', 'lower' or 'upper', got 'both'"):
            interval(1, 10, 0.95, "both")


@pytest.mark.parametrize("trials", [100, 1000])
def test_wilson_covers_what_it_promises_on_average_and_clopper_pearson_always(trials):
    shares = np.exp(np.linspace(np.log(0.003), np.log(0.5), 100))
    chances = binom.pmf(np.arange(trials + 1), trials, shares[:, None])

    def coverage(interval):
        low, high = np.array([interval(k, trials) for k in range(trials + 1)]).T
        return (chances * ((low <= shares[:, None]) & (shares[:, None] <= high))).sum(axis=1)

    assert abs(coverage(wilson_interval).mean() - 0.95) < 0.01
    assert coverage(clopper_pearson_interval).min() >= 0.95 - 1e-9
