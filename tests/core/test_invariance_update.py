import math

import numpy as np
import pytest

from bc_core import ErrorOverlap, negative_flip_rate, trust_compatibility_score
from bc_core.invariance import (
    InvarianceResult,
    LayerMeasures,
    Probes,
    StreamingMoments,
    TransformSet,
    compare_predictions,
    depth_intervals,
)
from bc_core.invariance._probes import paired_intervals, resample_weights, resampled_nv

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


@pytest.mark.parametrize("statistic", ["std", "var"])
def test_resampled_nv_is_nv_of_the_drawn_samples(statistic):
    a = np.random.default_rng(0).normal(size=(40, 5, 7))
    weights = resample_weights(40, 20, seed=1)
    found = resampled_nv(a, weights, statistic)
    for w, value in zip(weights, found, strict=True):
        drawn = np.repeat(a, np.rint(w * 40).astype(int), axis=0)
        assert value == pytest.approx(nv(drawn, statistic))
    ratios = resampled_nv(a, weights[:1], statistic, "mean_of_ratios")
    drawn = np.repeat(a, np.rint(weights[0] * 40).astype(int), axis=0)
    assert ratios[0] == pytest.approx(np.mean([nv(drawn[:, :, [k]], statistic) for k in range(7)]))


def test_intervals_cover_and_pairing_narrows():
    covered = 0
    widths = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        shared = rng.normal(size=(60, 1, 3))
        h1 = shared + 0.5 * rng.standard_t(5, size=(60, 4, 3))
        h2 = h1 + 0.2 * rng.normal(size=(60, 4, 3))
        found = paired_intervals(h1, h2, (nv(h1, "var"), nv(h2, "var")), statistic="var", resamples=300)
        variance = 0.25 * 5 / 3
        covered += found.h1.low <= variance / (1 + variance) <= found.h1.high
        widths.append((found.difference.high - found.difference.low) / (found.h2.high - found.h2.low))
    assert covered >= 50  # 95 % asked of 60; a percentile bootstrap of 60 samples covers a little less
    assert np.median(widths) < 0.8


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
    found = depth_intervals(h1, h2, tuple(probes), resamples=100)
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
