import math

import numpy as np
import pytest

from bc_core import ErrorOverlap, negative_flip_rate, trust_compatibility_score
from bc_core.counting._intervals import clustered_interval, wilson_interval
from bc_core.invariance import (
    InvarianceResult,
    LayerMeasures,
    Probes,
    StreamingMoments,
    TransformSet,
    compare_predictions,
    depth_intervals,
)
from bc_core.invariance._probes import nv_influence, paired_intervals

TRANSFORMS = TransformSet.rotations([0, 15, 30])


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    target = rng.integers(4, size=120)
    noisy = [np.where(rng.random((120, 3)) < 0.8, target[:, None], rng.integers(4, size=(120, 3))) for _ in range(2)]
    return noisy[0], noisy[1], target


def test_rates_are_those_of_plain_loops(predictions):
    h1, h2, target = predictions
    update = compare_predictions(h1, h2, target, transforms=TRANSFORMS)
    pairs = [(i, j) for i in range(120) for j in (1, 2)]
    assert update.consistency_h1 == pytest.approx(np.mean([h1[i, j] == h1[i, 0] for i, j in pairs]))
    assert update.consistency_h2 == pytest.approx(np.mean([h2[i, j] == h2[i, 0] for i, j in pairs]))
    flips = [h1[i, j] == h1[i, 0] and h2[i, j] != h2[i, 0] for i, j in pairs]
    assert update.negative_flip_rate == pytest.approx(np.mean(flips))
    table = update.table()
    assert [row["size"] for row in table] == [0, 15, 30]
    assert (table[0]["consistency_h1"], table[0]["negative_flip_rate"]) == (1, 0)
    for j, row in enumerate(table):
        assert row["nfr"] == negative_flip_rate(h1[:, j], h2[:, j], target)
        assert row["btc"] == trust_compatibility_score(h1[:, j], h2[:, j], target)
        assert row["accuracy_h2"] == (h2[:, j] == target).mean()
        expected = ErrorOverlap.from_predictions(target, h1[:, j], h2[:, j]).interval("nfr")
        assert row["nfr_interval"] == pytest.approx(expected)
        low, high = row["negative_flip_interval"]
        assert low <= row["negative_flip_rate"] <= high


def test_intervals_hold_the_rate_and_treat_pairs_of_a_sample_as_one(predictions):
    h1, h2, _ = predictions
    update = compare_predictions(h1, h2, transforms=TRANSFORMS)
    assert update.overlaps is None
    assert "nfr" not in update.table()[0]
    for name in ("consistency_h1", "consistency_h2", "negative_flip_rate"):
        low, high = update.interval(name)
        assert low < getattr(update, name) < high
    # The same transformation many times over is no more evidence.
    repeated = compare_predictions(
        *(np.concatenate([h[:, :2]] + [h[:, 1:2]] * 9, axis=1) for h in (h1, h2)), transforms=["id"] + ["t"] * 10
    )
    once = compare_predictions(h1[:, :2], h2[:, :2], transforms=["id", "t"])
    assert repeated.interval("consistency_h1") == pytest.approx(once.interval("consistency_h1"))


def test_no_flip_at_all_still_allows_for_some():
    same = np.zeros((50, 3), dtype=int)
    update = compare_predictions(same, same, transforms=TRANSFORMS)
    low, high = update.interval("negative_flip_rate")
    assert (low, update.negative_flip_rate) == (0, 0)
    assert 0.05 < high < 0.1  # Wilson's for 0 of 50
    assert "50 samples x 3" in repr(update)


def test_bad_predictions_are_refused(predictions):
    h1, h2, target = predictions
    with pytest.raises(ValueError, match="identity"):
        compare_predictions(h1, h2, transforms=TransformSet.rotations([10, 20, 30]))
    with pytest.raises(ValueError, match="at least one other"):
        compare_predictions(h1[:, :1], h2[:, :1], transforms=TransformSet.identity())
    with pytest.raises(ValueError, match=r"shape \(n, 3\)"):
        compare_predictions(h1[:, :2], h2, transforms=TRANSFORMS)
    with pytest.raises(ValueError, match="same samples"):
        compare_predictions(h1[:5], h2, transforms=TRANSFORMS)
    with pytest.raises(ValueError, match="120 samples, got 7"):
        compare_predictions(h1, h2, target[:7], transforms=TRANSFORMS)
    with pytest.raises(ValueError, match="consistency_h1"):
        compare_predictions(h1, h2, transforms=TRANSFORMS).interval("btc")
    with pytest.raises(ValueError, match="compare_invariance"):
        compare_predictions(h1, h2, transforms=TRANSFORMS).depth_table()


def nv(a, statistic="std"):
    spread = {"std": np.std, "var": np.var}[statistic]
    return spread(a, axis=1, ddof=1).mean() / spread(a, axis=0, ddof=1).mean()


def weighted_nv(a, weights, statistic, how):
    """NV where samples count as the weights say, which sum to 1; with equal ones NV itself."""
    n = len(a)
    mean = np.einsum("i,ijk->jk", weights, a)
    across = np.einsum("i,ijk->jk", weights, (a - mean) ** 2) * n / (n - 1)
    within = a.var(axis=1, ddof=1)
    if statistic == "std":
        across, within = np.sqrt(across), np.sqrt(within)
    tv, sv = weights @ within, across.mean(axis=0)
    return tv.mean() / sv.mean() if how == "ratio_of_means" else np.mean(tv / sv)


@pytest.mark.parametrize("statistic", ["std", "var"])
@pytest.mark.parametrize("how", ["ratio_of_means", "mean_of_ratios"])
def test_influence_is_the_derivative_of_nv_by_the_weight_of_a_sample(monkeypatch, statistic, how):
    a = np.random.default_rng(0).gamma(2.0, size=(40, 5, 7))
    monkeypatch.setattr("bc_core.invariance._probes._BLOCK", 40 * 5 * 3)  # units in blocks of 3, 3 and 1
    value, influence = nv_influence(a, statistic, how)
    equal = np.full(40, 1 / 40)
    assert value == pytest.approx(weighted_nv(a, equal, statistic, how), rel=1e-12)
    step = 1e-6
    for i in range(40):
        towards = (1 - step) * equal + step * np.eye(40)[i]
        back = (1 + step) * equal - step * np.eye(40)[i]
        slope = (weighted_nv(a, towards, statistic, how) - weighted_nv(a, back, statistic, how)) / (2 * step)
        # Central differences of a smooth function, of numbers near 1 with 16 digits, by steps of 1e-6.
        assert influence[i] == pytest.approx(slope, abs=1e-6)
    assert influence.mean() == pytest.approx(0, abs=1e-12)


def test_units_that_never_change_say_nothing():
    a = np.random.default_rng(0).normal(size=(30, 4, 3))
    dead = np.concatenate([a, np.ones((30, 4, 2))], axis=2)
    for statistic in ("std", "var"):
        for how in ("ratio_of_means", "mean_of_ratios"):
            value, influence = nv_influence(a, statistic, how)
            found = nv_influence(dead, statistic, how)
            assert found[0] == pytest.approx(value)
            np.testing.assert_allclose(found[1], influence, atol=1e-12)
    assert math.isnan(nv_influence(np.ones((30, 4, 2)))[0])
    assert math.isnan(paired_intervals(np.ones((30, 4, 2)), None, (math.nan, math.nan)).h1.low)


@pytest.mark.parametrize("statistic", ["std", "var"])
def test_the_standard_error_is_that_of_drawing_samples_again(statistic):
    rng = np.random.default_rng(1)
    a = rng.normal(size=(200, 1, 6)) + 0.5 * rng.normal(size=(200, 4, 6)) * rng.gamma(2.0, size=(200, 1, 1))
    drawn = [nv(a[rng.integers(200, size=200)], statistic) for _ in range(2000)]
    _, influence = nv_influence(a, statistic)
    # 2,000 draws know their standard deviation to 1.6 %; the linear part is all of it but for terms of order 1 / n.
    assert influence.std(ddof=1) / math.sqrt(200) == pytest.approx(np.std(drawn), rel=0.06)


def test_intervals_cover_and_pairing_narrows():
    covered = 0
    widths = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        shared = rng.normal(size=(60, 1, 3))
        h1 = shared + 0.5 * rng.standard_t(5, size=(60, 4, 3))
        h2 = h1 + 0.2 * rng.normal(size=(60, 4, 3))
        found = paired_intervals(h1, h2, (nv(h1, "var"), nv(h2, "var")), statistic="var")
        variance = 0.25 * 5 / 3
        covered += found.h1.low <= variance / (1 + variance) <= found.h1.high
        widths.append((found.difference.high - found.difference.low) / (found.h2.high - found.h2.low))
    # 95 % asked. 1,000 trials gave 94 %, of which 200 have fewer than 176 once in 1,000 times.
    assert covered >= 176
    assert np.median(widths) < 0.8


def test_shares_of_one_instance_are_worth_what_their_variance_says():
    rng = np.random.default_rng(0)
    alone = (rng.random(300) < 0.2).astype(float)
    # One question each: Wilson's, but for the n - 1 of a sample's variance.
    expected = wilson_interval(int(alone.sum()), 300)
    assert clustered_interval(alone) == pytest.approx(expected, abs=2e-4)
    assert clustered_interval(np.repeat(alone[:, None], 10, axis=1).mean(axis=1)) == clustered_interval(alone)
    # Ten independent questions each are 3,000 trials.
    many = rng.random((300, 10)) < 0.2
    low, high = clustered_interval(many.mean(axis=1))
    wilson = wilson_interval(int(many.sum()), 3000)
    # The variance of 300 shares is known to about 8 %, its root to half of that.
    assert high - low == pytest.approx(wilson[1] - wilson[0], rel=0.1)
    assert clustered_interval(np.ones(50)) == wilson_interval(50, 50)
    with pytest.raises(ValueError, match="confidence"):
        clustered_interval(alone, 95)


def result_of(**matrices):
    layers = []
    for name, a in matrices.items():
        moments = StreamingMoments(columns=a.shape[1])
        moments.update(a.reshape(-1, a.shape[2]), rows=len(a))
        layers.append(LayerMeasures.from_moments(moments.moments(), name=name))
    return InvarianceResult(layers, [str(j) for j in range(a.shape[1])])


def test_layers_of_both_are_paired_by_name():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(50, 3, 6)), rng.normal(size=(50, 3, 6))
    h1, h2 = result_of(conv=a, old=b), result_of(conv=b, new=a, head=a)
    probes = []
    for result, matrices in ((h1, (a, b)), (h2, (b, a, a))):
        kept = Probes(units=4)
        for name, matrix in zip(result.layer_names, matrices, strict=True):
            for tile in np.split(matrix, 5):
                kept.add(name, tile[:, :, kept.choose(name, 6)])
        probes.append(kept)
    found = depth_intervals(h1, h2, tuple(probes))
    assert list(found) == ["conv", "old", "new", "head"]
    assert found["old"].h2 is None
    assert found["old"].difference is None
    assert found["conv"].h1.low < h1["conv"].summary() < found["conv"].h1.high


def test_probes_stay_within_memory_and_keep_the_same_units():
    a = np.random.default_rng(4).normal(size=(100, 2, 64)).astype(np.float32)
    probes = Probes(units=32, max_memory=40_000)
    for tile in np.split(a, 20):
        for name in ("one", "two"):
            probes.add(name, tile[:, :, probes.choose(name, 64)])
    assert probes.bytes <= 40_000
    for name in ("one", "two"):
        np.testing.assert_array_equal(probes[name], a[:, :, probes.choose(name, 64)])
    assert not math.isclose(len(set(probes.choose("one", 64)) & set(probes.choose("two", 64))), 16)
