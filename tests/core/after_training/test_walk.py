"""The walk from h1 to h2: which mixture is chosen, and how sure that is."""

import numpy as np
import pytest

from bc_core import ErrorOverlap
from bc_core.after_training._blending import check_setting, settings_of
from bc_core.after_training._interpolating import interpolate_by
from bc_core.after_training._results import Interpolation
from bc_core.after_training._walk import checked_alphas, refine, smallest_share, walk
from bc_core.promise import _verdict
from bc_core.promise._grammar import Promise

PROMISE = Promise.of("nfr <= 1%")


def overlap(flips, right=900, repaired=0, total=1000):
    """`flips` negative flips; h1 right on `right`."""
    return ErrorOverlap([[[total - right - repaired, repaired], [flips, right - flips]]])


def walked(by_setting, promise=PROMISE, **options):
    settings = sorted(by_setting, reverse=True)
    return walk(settings, lambda setting: by_setting[setting], promise, 0.95, **options)


def test_takes_the_most_accurate_that_keeps_the_promise():
    trials, chosen = walked({1: overlap(0), 0.5: overlap(2, repaired=20), 0.2: overlap(3, repaired=30)})
    assert [trial.eligible for trial in trials] == [True, True, True]
    assert chosen.setting == 0.2


def test_takes_none_behind_one_that_does_not_keep_it():
    found = {1: overlap(0), 0.7: overlap(2, repaired=5), 0.5: overlap(30), 0.2: overlap(1, repaired=90)}
    trials, chosen = walked(found)
    assert [trial.eligible for trial in trials] == [True, True, False, False]
    assert trials[-1].verdict.verdict == "met"
    assert chosen.setting == 0.7


def test_the_first_that_is_tried_ends_the_way_too_where_that_is_not_h1():
    trials, chosen = walked({0.5: overlap(30), 0.2: overlap(1, repaired=90)})
    assert [trial.eligible for trial in trials] == [False, False]
    assert (chosen.setting, chosen.eligible) == (0.2, False)
    assert chosen.verdict.verdict == "cannot be told"
    assert "a mixture nearer to h1 is not shown to keep it" in str(chosen.verdict)


def test_h2_itself_may_be_taken_behind_a_barrier():
    found = {1: overlap(0), 0.5: overlap(300), 0: overlap(1, repaired=50)}
    assert walked(found, h2_itself=0)[1].setting == 0
    assert walked(found)[1].setting == 1


def test_says_where_h1_itself_is_what_was_found_and_that_the_models_may_be_exchanged():
    """As where h1 and h2 are given in the wrong order: all but the better "h1" breaks the promise."""
    trials, chosen = walked({1: overlap(0), 0.5: overlap(60), 0: overlap(150, repaired=10)})
    said = str(Interpolation(None, chosen, tuple(trials), 0.95))
    assert "alpha = 1 " in said
    assert "gets right what h1 gets right, and no more: it is no update" in said
    assert "h2 is less accurate than h1, 76.00% against 90.00%" in said
    trials, chosen = walked({1: overlap(0), 0: overlap(2, repaired=20)})
    assert "no update" not in str(found := Interpolation(None, chosen, tuple(trials), 0.95))
    assert "less accurate" not in str(found)


def test_by_layer_what_is_met_with_one_share_stays_met():
    """As many moves as may be made spend their own half of the chance of an error."""

    class Whole:
        layers = ("body", "head")

        def mix(self, shares):
            self.share = shares if isinstance(shares, float) else None

        def overlap(self):
            return {1.0: overlap(0), 0.5: overlap(3, repaired=20)}.get(self.share, overlap(30))

        def result(self):
            return self.share

    found = interpolate_by(Whole(), PROMISE, [1, 0.5, 0], True, 60, 0.95)
    assert (found.model, found.alpha, found.promise.verdict) == (0.5, 0.5, "met")
    assert found.confidence == found.promise.confidence == pytest.approx(0.975)
    assert found.layer_trials
    for trial in found.layer_trials:
        assert trial.verdict.confidence == pytest.approx(1 - 0.025 / 60)


def test_of_equal_accuracy_the_one_that_breaks_less():
    assert walked({1: overlap(0), 0.5: overlap(2, repaired=2), 0.2: overlap(3, repaired=3)})[1].setting == 1


def test_an_accuracy_that_h1_lacks_does_not_end_the_way():
    promise = Promise.of("nfr <= 1%, accuracy_h2 >= 91%")
    trials, chosen = walked({1: overlap(0), 0.5: overlap(1, repaired=20), 0.2: overlap(2, repaired=60)}, promise)
    assert [trial.eligible for trial in trials] == [False, False, True]
    assert chosen.setting == 0.2


def test_where_none_keeps_it_the_nearest_is_missed():
    _, chosen = walked({0.5: overlap(40), 0.2: overlap(60)})
    assert (chosen.setting, chosen.eligible, chosen.verdict.verdict) == (0.5, False, "missed")


def test_too_few_instances_cannot_be_told():
    _, chosen = walked({1: overlap(0, right=90, total=100), 0.5: overlap(2, right=90, total=100)})
    assert (chosen.setting, chosen.verdict.verdict) == (1, "cannot be told")
    assert chosen.verdict.findings[0].instances_needed > 200


def test_seldom_says_that_a_broken_promise_is_kept(monkeypatch):
    """Of eleven mixtures the last five break the promise by a little: taken one by one, some often pass."""
    monkeypatch.setattr(_verdict, "_instances_needed", lambda *of: None)  # takes most of the time
    rng = np.random.default_rng(0)
    rates = {round(1 - step / 10, 1): 0.0021 * step for step in range(11)}
    wrong, runs, one_by_one = 0, 100, 0
    for _ in range(runs):
        drawn = {
            setting: overlap(int(rng.binomial(1000, rate)), repaired=int(100 * (1 - setting)))
            for setting, rate in rates.items()
        }
        trials, chosen = walked(drawn)
        wrong += chosen.eligible and rates[chosen.setting] > 0.01
        one_by_one += any(t.verdict.verdict == "met" and rates[t.setting] > 0.01 for t in trials)
    # Three standard errors about 5 %.
    assert wrong / runs <= 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5
    assert wrong <= one_by_one


def test_by_layer_keeps_moves_that_are_better_and_ends():
    """Only the head breaks anything, and only the body repairs."""
    asked = []

    def overlap_of(shares):
        asked.append(dict(shares))
        return overlap(round(40 * (1 - shares["head"])), repaired=round(80 * (1 - shares["body"])))

    start = walk([1.0, 0.9], lambda share: overlap_of({"body": share, "head": share}), PROMISE, 0.99)[1]
    trials, best = refine(["body", "head"], start, overlap_of, PROMISE, 0.99, 60)
    assert best.layers == {"body": 0.0, "head": 1.0}
    assert (best.overlap.nfr, best.overlap.accuracy_h2) == (0, 0.98)
    assert len(trials) < 60
    few, _ = refine(["body", "head"], start, overlap_of, PROMISE, 0.99, 3)
    assert len(few) == 3


def test_smallest_share_by_halving():
    asked = []

    def overlap_of(share):
        asked.append(share)
        return overlap(round(30 * (1 - share)))

    shares = [step / 20 for step in range(21)]
    share, verdict = smallest_share(shares, overlap_of, PROMISE, 0.95)
    kept = [each for each in shares if ErrorOverlap.gate(overlap_of(each), "nfr", 0.01) == "pass"]
    assert share == min(kept)
    assert verdict.verdict == "met"
    assert smallest_share(shares, lambda share: overlap(0), PROMISE, 0.95)[0] == 0
    assert smallest_share(shares, lambda share: overlap(100), PROMISE, 0.95)[1].verdict == "missed"


@pytest.mark.parametrize("alphas", [[], [1.5], [-0.1], [float("nan")], 0.5, ["much"]])
def test_refuses_alphas(alphas):
    with pytest.raises(ValueError, match="alphas must be shares of h1"):
        checked_alphas(alphas)


@pytest.mark.parametrize("ratio", [0, -1, float("inf"), float("nan"), "2", True])
def test_refuses_ratios(ratio):
    with pytest.raises(ValueError, match="ratio says how many times surer"):
        check_setting("gate", ratio)


def test_refuses_a_weight_for_a_gate():
    with pytest.raises(ValueError, match="weight is of an average"):
        settings_of("gate", 0.5, None)
    with pytest.raises(ValueError, match="how"):
        settings_of("means", None, None)
    assert settings_of("gate", None, [1, 2]) == [2.0, 1.0]


@pytest.mark.parametrize("how", ["probability", "gate"])
def test_refuses_an_empty_list_of_settings(how):
    given = {"gate": (how, None, [])}.get(how, (how, [], None))
    with pytest.raises(ValueError, match="one number or several"):
        settings_of(*given)
