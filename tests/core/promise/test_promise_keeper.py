"""The multiplier against the PI controller of the library cooper and a loop of its own; what a keeper remembers."""

import json
import math

import numpy as np
import pytest
import scipy.stats

from bc_core import ErrorOverlap, Promise, judge
from bc_core.promise._keeper import Keeper, PromiseOptions, check_can_be_told
from bc_core.promise._multiplier import Multiplier


def overlap_of(flips, total=1000, right=900, repaired=20):
    return ErrorOverlap([[[total - right - repaired, repaired], [flips, right - flips]]])


def keeper_of(promise="nfr <= 2%", **options):
    return Keeper(PromiseOptions.of(promise, options))


FLIPS = [80, 60, 30, 28, 25, 9, 4, 2, 8, 14, 22, 12, 11]


def excesses(flips, limit):
    return [math.log(judge("nfr <= 2%", overlap_of(k)).bound / limit) for k in flips]


def test_lambda_is_what_coopers_controller_gives():
    """nuPI without smoothing, on an unbounded multiplier that is the logarithm of ours; where nothing is cut."""
    torch = pytest.importorskip("torch")
    cooper = pytest.importorskip("cooper", reason="cooper-optim is not installed")
    near = [22, 18, 20, 16, 14, 12, 10, 14, 18]
    given = excesses(near, 0.02)
    assert max(map(abs, given)) < 0.5
    # It takes the excess before the first to be 0; ours takes it to be the first, which is this much less.
    log_lambda = torch.nn.Parameter(torch.tensor([-0.5 * given[0]], dtype=torch.float64))
    start = cooper.optim.nuPIInitType.ZEROS
    rule = cooper.optim.nuPI([log_lambda], lr=1.0, Kp=0.5, Ki=0.5, ema_nu=0.0, init_type=start, maximize=True)
    multiplier = Multiplier(integral=0.5, proportional=0.5, aim=1.0)
    for flips, excess in zip(near, given, strict=True):
        multiplier.update(judge("nfr <= 2%", overlap_of(flips)))
        log_lambda.grad = torch.tensor([excess], dtype=torch.float64)
        rule.step()
        assert multiplier.lambda_c == pytest.approx(log_lambda.exp().item(), rel=1e-6)


def test_a_scale_is_found_fast_and_kept_within_limits():
    broken = judge("nfr <= 2%", overlap_of(400))
    multiplier = Multiplier(most=64.0)
    looks = 0
    while multiplier.lambda_c < 64:
        multiplier.update(broken)
        looks += 1
    assert looks == math.ceil(math.log(64) / (0.4 * 0.5))
    kept = judge("nfr <= 2%", overlap_of(0))
    for _ in range(40):
        multiplier.update(kept)
    assert multiplier.lambda_c == 2**-7


def test_what_falls_by_itself_as_h2_learns_leaves_lambda_about_where_it_was():
    """Eight looks at which h2 breaks much because it has learned little, whatever lambda_c is; then it breaks 1 %."""
    multiplier = Multiplier()
    for flips in (400, 200, 140, 100, 80, 60, 45, 30, 20, 15, 11, 10):
        multiplier.update(judge("nfr <= 2%", overlap_of(flips)))
    assert 0.2 < multiplier.lambda_c < 1


def test_a_least_is_as_a_most_of_what_breaks():
    """BTC at least 98 % of 900 is at most 2 % lost of 900, to the same bound."""
    one, other = Multiplier(), Multiplier()
    for flips in FLIPS:
        one.update(judge("btc >= 98%", overlap_of(flips)))
        all_right = ErrorOverlap([[[0, 0], [flips, 900 - flips]]])
        other.update(judge("nfr <= 2%", all_right))
        assert one.lambda_c == pytest.approx(other.lambda_c, rel=1e-9)


def test_it_settles_where_the_promise_is_just_kept():
    """A world in which the share that breaks falls as 0.1 / (1 + lambda): 2 % of the bound is reached at about 6."""
    keeper, draw = keeper_of(), np.random.default_rng(0)
    weights = []
    for step in range(60):
        rate = 0.1 / (1 + keeper.lambda_c)
        keeper.look(overlap_of(int(draw.binomial(1000, rate))), step)
        weights.append(keeper.lambda_c)
    settled = np.exp(np.mean(np.log(weights[20:])))
    # The rate whose bound is 0.85 of 2 % on 1000 instances is 1.07 %, which takes a lambda_c of 8.3.
    assert 5 < settled < 14
    assert keeper.verdict.verdict == "met"


def test_the_best_look_is_the_most_accurate_that_met_it_and_else_the_nearest():
    keeper = keeper_of()
    assert keeper.verdict is None
    # (flips, repaired): accuracy is 900 - flips + repaired of 1000.
    looks = [(90, 50), (40, 10), (50, 60), (5, 10), (4, 30), (60, 90), (6, 32), (3, 20)]
    best = []
    for step, (flips, repaired) in enumerate(looks):
        if keeper.look(overlap_of(flips, repaired=repaired), step):
            best.append(step)
    # Nearest, nearer, met, more accurate, as accurate and later.
    assert best == [0, 1, 3, 4, 6]
    assert (keeper.best_steps, keeper.verdict.verdict, keeper.verdict.value) == (6, "met", 0.006)
    assert keeper.last.value == 0.003


def test_what_it_remembers_is_plain_and_enough():
    whole, first = keeper_of("nfr <= 2%, btc >= 97%"), keeper_of("nfr <= 2%, btc >= 97%")
    for step, flips in enumerate(FLIPS):
        whole.look(overlap_of(flips), step)
        if step < 6:
            first.look(overlap_of(flips), step)
    second = keeper_of("nfr <= 0.02 and btc >= 0.97")
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for step, flips in list(enumerate(FLIPS))[6:]:
        second.look(overlap_of(flips), step)
    assert second.state_dict() == whole.state_dict()
    assert str(second) == str(whole)
    with pytest.raises(ValueError, match="held to the promise 'nfr <= 2%, btc >= 97%'"):
        keeper_of("nfr <= 1%").load_state_dict(first.state_dict())


def test_a_score_that_nothing_counts_for_moves_nothing():
    # h2 is never wrong: there is no share of its mistakes.
    multiplier = Multiplier()
    multiplier.update(judge("nfi <= 10%", ErrorOverlap([[[0, 100], [0, 900]]])))
    assert multiplier.lambda_c == 1


@pytest.mark.parametrize(
    ("promise", "total", "right", "needed"),
    [("nfr <= 0.5%", 597, 500, 598), ("btc >= 99%", 1000, 298, 299), ("nfr <= 1%", 1, 1, 299)],
)
def test_too_few_instances_are_said_with_a_remedy_that_works(promise, total, right, needed):
    options = PromiseOptions.of(promise, None)
    # (1 - p)^n <= 0.05, the bound for no event.
    assert (
        (1 - (0.005 if "0.5" in promise else 0.01)) ** needed
        <= 0.05
        < (0.995 if "0.5" in promise else 0.99) ** (needed - 1)
    )
    with pytest.raises(ValueError, match=f"it takes {needed}") as told:
        check_can_be_told(options, overlap_of(0, total=total, right=right, repaired=0))
    offered = str(told.value).split("'confidence': ")[1:]
    assert bool(offered) == (total > 1)
    for surest in [float(text.split("}")[0]) for text in offered]:
        remedied = PromiseOptions.of(promise, {"confidence": surest})
        check_can_be_told(remedied, overlap_of(0, total=total, right=right, repaired=0))


def test_the_better_of_the_weights_and_their_mean_is_what_a_look_has_shown():
    keeper = keeper_of()
    # (flips, repaired) of now and of the mean: the nearer counts, the met one, the more accurate; else the mean.
    looks = [((90, 50), (60, 20)), ((70, 90), (9, 10)), ((5, 20), (4, 10)), ((5, 32), (6, 32)), ((5, 33), (5, 33))]
    shown = []
    for step, (now, mean) in enumerate(looks):
        counts = [overlap_of(flips, repaired=repaired) for flips, repaired in (now, mean)]
        assert keeper.look(counts[0], step, counts[1])
        shown.append((keeper.best_is_mean, keeper.last.value))
    assert shown == [(True, 0.06), (True, 0.009), (False, 0.005), (False, 0.005), (True, 0.005)]
    alone = keeper_of()
    for flips in (60, 9, 5, 5, 5):
        alone.look(overlap_of(flips), 0)
    assert alone.lambda_c == keeper.lambda_c
    assert "a mean of those until 4 steps" in str(keeper)


def test_between_looks_at_the_mean_lambda_goes_by_what_it_spared_last():
    multiplier, bound = Multiplier(), [log_bound(flips) for flips in (30, 24, 10, 16, 12)]
    now, mean = (judge("nfr <= 2%", overlap_of(flips)) for flips in (30, 24))
    multiplier.update(now, mean)
    expected = 0.4 * min(bound[1], 0.5)
    assert multiplier.lambda_c == pytest.approx(math.exp(expected))
    saved = Multiplier()
    saved.load_state_dict(json.loads(json.dumps(multiplier.state_dict())))
    for each in (multiplier, saved):
        each.update(judge("nfr <= 2%", overlap_of(10)))
        less = bound[2] - (bound[0] - bound[1])
        assert each.lambda_c == pytest.approx(math.exp(expected + 0.4 * max(less, -0.5) + less - bound[1]))
    # Where the weights of now are the better, nothing is spared.
    multiplier.update(*2 * [judge("nfr <= 2%", overlap_of(16))])
    before = multiplier.lambda_c
    multiplier.update(judge("nfr <= 2%", overlap_of(12)))
    assert multiplier.lambda_c == pytest.approx(before * math.exp(0.4 * max(bound[4], -0.5) + bound[4] - bound[3]))


def log_bound(flips):
    """By which factor the bound of so many of 1000 is 0.85 of 2 %."""
    return math.log(scipy.stats.beta.ppf(0.95, flips + 1, 1000 - flips) / 0.017)


def test_the_mean_is_due_at_looks_that_double_and_unseen_at_others():
    keeper, due, unseen = keeper_of(), [], []
    for look in range(1, 36):
        keeper.share_of_look(anew=look == 1)
        due += [look] if keeper.mean_is_due else []
        unseen += [look] if keeper.mean_is_unseen else []
    assert due == [4, 8, 16, 32]
    assert sorted({*due, *unseen, *(look + 1 for look in due)}) == list(range(2, 36))
    assert not {*unseen} & {*due, *(look + 1 for look in due)}


def test_the_mean_at_the_end_is_the_best_if_it_is():
    for flips, repaired, is_best in ((60, 90, False), (9, 10, False), (9, 30, True), (5, 26, True)):
        keeper = keeper_of()
        keeper.look(overlap_of(4, repaired=20), 70)
        keeper.look(overlap_of(5, repaired=10), 80)
        weight = keeper.lambda_c
        assert keeper.look_at_mean(overlap_of(flips, repaired=repaired)) == is_best
        assert (keeper.best_is_mean, keeper.best_steps) == ((True, 80) if is_best else (False, 70))
        assert keeper.verdict.overlap.accuracy_h2 == (0.9 + (repaired - flips if is_best else 16) / 1000)
        assert keeper.lambda_c == weight


def test_a_look_counts_in_the_mean_about_by_the_cube_of_its_number():
    keeper = keeper_of()
    weights, total = np.zeros(40), 0.0
    for look in range(40):
        share = keeper.share_of_look(anew=look == 0)
        weights *= 1 - share
        weights[look] += share
        total += (look + 1) * (look + 2) * (look + 3)
    numbers = np.arange(1, 41)
    np.testing.assert_allclose(weights, numbers * (numbers + 1) * (numbers + 2) / total, rtol=1e-12)
    assert weights[-14:].sum() > 0.75
    assert keeper.share_of_look(anew=True) == 1


def test_options_that_are_not_there():
    with pytest.raises(TypeError, match="there are every, confidence, keep, average, start, most"):
        PromiseOptions.of("nfr <= 1%", {"eta": 1})
    for every in (0, -3):
        with pytest.raises(ValueError, match="at least 1"):
            PromiseOptions.of("nfr <= 1%", {"every": every})
    for every in (2.5, True, "2"):
        with pytest.raises(TypeError, match="whole number"):
            PromiseOptions.of("nfr <= 1%", {"every": every})
    assert PromiseOptions.of(Promise.of("nfr <= 1%"), None).promise == Promise.of("nfr <= 1%")
