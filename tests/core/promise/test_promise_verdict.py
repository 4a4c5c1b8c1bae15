"""Verdicts against exact binomial bounds from SciPy, and their coverage."""

import math

import numpy as np
import pytest
from scipy.stats import beta, binom

from bc_core import ErrorOverlap, clopper_pearson_interval, judge
from bc_core.counting._deciding import is_decided
from bc_core.gate._checks import Question, judged
from bc_core.gate._evidence import Evidence
from bc_core.promise._keeper import Keeper, PromiseOptions


def overlap_of(flips, total, kept=None):
    kept = total - flips if kept is None else kept
    return ErrorOverlap([[[total - flips - kept, 0], [flips, kept]]])


@pytest.mark.parametrize(("flips", "total"), [(0, 100), (0, 700), (1, 1000), (3, 800), (12, 1000), (40, 1000)])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_bound_is_the_exact_one(flips, total, confidence):
    verdict = judge("nfr <= 1%", overlap_of(flips, total), confidence)
    upper = beta.ppf(confidence, flips + 1, total - flips)
    lower = 0.0 if flips == 0 else beta.ppf(1 - confidence, flips, total - flips + 1)
    assert verdict.bound == pytest.approx(upper, rel=1e-6)
    assert (verdict.value, verdict.target) == (flips / total, 0.01)
    assert verdict.verdict == ("met" if upper <= 0.01 else "missed" if lower > 0.01 else "cannot be told")


def test_a_least_is_decided_on_the_lower_bound():
    # h1 right 900 times, kept 890 of these.
    verdict = judge("btc >= 98%", overlap_of(10, 1000, kept=890))
    assert verdict.bound == pytest.approx(beta.ppf(0.05, 890, 11), rel=1e-6)
    assert verdict.value == pytest.approx(890 / 900)
    assert verdict.verdict == "met"
    assert verdict.excess == pytest.approx(0.98 - 890 / 900)


@pytest.mark.parametrize(
    ("promise", "flips", "total"), [("nfr <= 1%", 0, 50), ("nfr <= 1%", 4, 500), ("nfr <= 1%", 6, 500)]
)
def test_the_instances_that_are_needed_decide_and_few_less_do_not(promise, flips, total):
    needed = judge(promise, overlap_of(flips, total)).findings[0].instances_needed

    def decided(n):
        k = flips / total * n
        upper = beta.ppf(0.95, k + 1, n - k)
        lower = beta.ppf(0.05, k, n - k + 1) if k else 0.0
        return upper <= 0.01 or lower > 0.01

    assert decided(needed)
    assert not decided(0.998 * needed - 1)


def test_a_score_at_its_limit_is_decided_by_no_number():
    assert judge("nfr <= 1%", overlap_of(10, 1000)).findings[0].instances_needed is None


def test_several_bounds_are_met_together_or_not():
    overlap = overlap_of(10, 1000, kept=890)
    assert judge("nfr <= 2%, btc >= 98%", overlap).verdict == "met"
    both = judge("nfr <= 2%, btc >= 99.9%", overlap)
    assert both.verdict == "missed"
    assert both.decisive.constraint.score == "btc"
    assert "btc" in str(both)
    assert judge("nfr <= 2%, btc >= 99%", overlap).verdict == "cannot be told"


@pytest.mark.parametrize(
    ("counts", "reason"), [([[[10, 90], [0, 0]]], "h1 is right on none"), ([[[0, 0], [0, 0]]], "no instances")]
)
def test_where_nothing_could_break_nothing_can_be_told(counts, reason):
    verdict = judge("nfr <= 50%", ErrorOverlap(counts))
    assert verdict.verdict == "cannot be told"
    assert reason in str(verdict)


def test_a_score_without_instances_cannot_be_told():
    # h2 is never wrong, so no share of its mistakes is new.
    verdict = judge("nfi <= 10%", ErrorOverlap([[[0, 10], [0, 90]]]))
    assert verdict.verdict == "cannot be told"
    assert math.isnan(verdict.value)
    assert "no instance counts for nfi" in str(verdict)


def test_who_breaks_a_promise_is_seldom_said_to_keep_it():
    rate, total = 0.01, 800
    met = [k for k in range(60) if judge("nfr <= 1%", overlap_of(k, total)).verdict == "met"]
    missed = [k for k in range(60) if judge("nfr <= 1%", overlap_of(k, total)).verdict == "missed"]
    # At the limit itself, the worst case, from the binomial distribution.
    assert 0 < binom.pmf(met, total, rate).sum() <= 0.05
    assert 0 < binom.pmf(missed, total, rate).sum() <= 0.05
    assert np.all(np.diff(met) == 1)


@pytest.mark.parametrize("higher_is_better", [False, True])
def test_what_is_decided_is_what_the_bounds_themselves_say(higher_is_better):
    draw = np.random.default_rng(0)
    for _ in range(300):
        trials = int(draw.integers(1, 5000))
        successes, limit = int(draw.integers(0, trials + 1)), float(draw.choice([0.0, 1.0, draw.random()]))
        low, high = (clopper_pearson_interval(successes, trials, 0.9, side)[n] for n, side in enumerate(SIDES))
        kept, broken = (low >= limit, high < limit) if higher_is_better else (high <= limit, low > limit)
        found = is_decided(successes / trials, trials, limit, higher_is_better, 0.1)
        assert found == (kept or broken), (successes, trials, limit)


SIDES = ("lower", "upper")


def test_the_gate_and_a_promise_count_alike_how_many_more_would_decide():
    for flips, total, promise in ((4, 500, "nfr <= 1%"), (20, 1000, "nfr <= 1.5%"), (20, 1000, "btc >= 97.5%")):
        verdict = judge(promise, overlap_of(flips, total))
        (finding,) = verdict.findings
        (check,) = judged([Question("all", Evidence(verdict.overlap.counts.sum(0)), finding.constraint)], 0.95)
        more = finding.instances_needed - total
        assert more == pytest.approx(check.more, abs=1)
        assert f": about {more} more instances would decide" in str(verdict)


def test_what_is_missed_is_missed_by_the_favourable_bound():
    for flips, total, promise in ((40, 1000, "nfr <= 1%"), (60, 600, "btc >= 98%")):
        verdict = judge(promise, overlap_of(flips, total))
        (finding,) = verdict.findings
        trials = total if promise.startswith("nfr") else verdict.overlap.both_right + flips
        # At most so few flips would come in 5 % of test sets.
        least = 100 * beta.ppf(0.05, flips, trials - flips + 1)
        bound = f"at least {least:.4g}%" if promise.startswith("nfr") else f"at most {100 - least:.4g}%"
        limit = 1 if promise.startswith("nfr") else 2
        assert verdict.verdict == "missed"
        assert f"{bound}: missed by {100 * flips / trials - limit:.2g} points, at least {least - limit:.2g} (" in str(
            verdict
        )
        assert finding.bound == verdict.bound


def test_the_line_says_what_a_bound_is_worth_that_was_steered():
    keeper = Keeper(PromiseOptions.of("nfr <= 3%", None))
    keeper.look(overlap_of(20, 1000), steps=1)
    assert str(keeper.verdict) == str(judge("nfr <= 3%", overlap_of(20, 1000)))
    keeper.look(overlap_of(20, 1000), steps=2, of_mean=overlap_of(19, 1000))
    assert (keeper.verdict.looks, keeper.verdict.value) == (3, 0.019)
    said = "(95% confidence of one look; 3 at these data steered the training, so judge a release on others)"
    assert str(keeper.verdict).endswith(f"{said}.")
    again = Keeper(keeper.options)
    again.load_state_dict(keeper.state_dict())
    assert str(again.verdict) == str(keeper.verdict)
    # A state of before looks were counted.
    old = keeper.state_dict()
    del old["looks"]
    again.load_state_dict(old)
    assert again.verdict.looks == 1
