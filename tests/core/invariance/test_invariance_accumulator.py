import math

import numpy as np
import pytest
from scipy.special import gammaln
from scipy.stats import f_oneway

from bc_core.invariance import (
    Anova,
    InvarianceResult,
    LayerMeasures,
    NumpyBackend,
    StreamingMoments,
    accumulator_bytes,
)
from bc_core.invariance._distributions import f_limit, f_upper_tail


def measured(a, rows=7, order=None, **options):
    """LayerMeasures of a matrix (n, m, K), gathered in tiles of some rows."""
    a = a if order is None else a[order]
    moments = StreamingMoments(columns=a.shape[1])
    for start in range(0, len(a), rows):
        tile = a[start : start + rows]
        moments.update(tile.reshape(-1, *a.shape[2:]), rows=len(tile))
    return LayerMeasures.from_moments(moments.moments(), shape=a.shape[2:], **options)


def definition(a, statistic):
    """TV and SV as the definition says, two passes in float64."""
    spread = {"std": np.std, "var": np.var}[statistic]
    a = a.astype(np.float64)
    return spread(a, axis=1, ddof=1).mean(axis=0), spread(a, axis=0, ddof=1).mean(axis=0)


@pytest.mark.parametrize("statistic", ["std", "var"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_pass_gives_the_definition(statistic, dtype):
    rng = np.random.default_rng(0)
    a = (rng.normal(size=(101, 5, 3, 4, 4)) * 3 + rng.normal(size=(101, 1, 3, 4, 4)) - 20).astype(dtype)
    layer = measured(a)
    tv, sv = definition(a, statistic)
    np.testing.assert_allclose(layer.transformation_variance(statistic), tv, rtol=2e-6)
    np.testing.assert_allclose(layer.sample_variance(statistic), sv, rtol=2e-6)
    np.testing.assert_allclose(layer.normalized_variance(statistic), tv / sv, rtol=4e-6)
    tv, sv = tv.mean(axis=(1, 2)), sv.mean(axis=(1, 2))
    np.testing.assert_allclose(layer.feature_normalized_variance(statistic), tv / sv, rtol=4e-6)
    assert layer.summary(statistic) == pytest.approx(tv.mean() / sv.mean(), rel=1e-5)


def test_features_last():
    a = np.random.default_rng(0).normal(size=(30, 4, 5, 3))
    tv, sv = definition(a, "std")
    layer = measured(a, feature_axis=-1)
    assert layer.features == 3
    np.testing.assert_allclose(layer.feature_normalized_variance(), tv.mean(axis=0) / sv.mean(axis=0))


@pytest.mark.parametrize("rows", [1, 2, 50, 200])
def test_neither_tiles_nor_order_matter(rows):
    rng = np.random.default_rng(1)
    a = rng.normal(size=(200, 6, 11)).astype(np.float32)
    whole, other = measured(a, rows=200), measured(a, rows=rows, order=rng.permutation(200))
    for name in ("tv_std", "tv_var", "sv_std", "sv_var", "between"):
        np.testing.assert_allclose(getattr(other, name), getattr(whole, name), rtol=1e-5)


def test_shards_merge_exactly():
    a = np.random.default_rng(2).normal(loc=5, size=(90, 4, 8))
    shards = []
    for rows in np.split(a, [1, 40, 41]):
        moments = StreamingMoments(columns=4)
        moments.update(rows.reshape(-1, 8), rows=len(rows))
        shards.append(moments.moments())
    merged = shards[3].merge(shards[0]).merge(shards[2]).merge(shards[1])
    assert merged.count == 90
    np.testing.assert_allclose(merged.mean, a.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(merged.m2, a.var(axis=0) * 90, rtol=1e-12)
    np.testing.assert_allclose(merged.row_std, a.std(axis=1, ddof=1).sum(axis=0), rtol=1e-12)
    with pytest.raises(ValueError, match="columns, units"):
        shards[0].merge(StreamingMoments_of(np.zeros((2, 4, 7))))


def StreamingMoments_of(a):  # noqa: N802
    moments = StreamingMoments(columns=a.shape[1])
    moments.update(a.reshape(-1, a.shape[2]), rows=len(a))
    return moments.moments()


def test_copies_of_the_identity_have_no_spread_at_all():
    x = np.random.default_rng(3).normal(loc=1e4, size=(64, 1, 50)).astype(np.float32)
    layer = measured(np.repeat(x, 7, axis=1))
    assert (layer.transformation_variance() == 0).all()
    assert (layer.normalized_variance() == 0).all()
    assert (layer.anova_f() == 0).all()


@pytest.mark.parametrize("statistic", ["std", "var"])
def test_sum_of_effects_gives_the_ratio_of_their_spreads(statistic):
    rng = np.random.default_rng(4)
    alpha, beta = rng.normal(size=(80, 1, 5)) * 2, rng.normal(size=(1, 9, 5))
    spread = {"std": np.std, "var": np.var}[statistic]
    expected = spread(beta[0], axis=0, ddof=1) / spread(alpha[:, 0], axis=0, ddof=1)
    np.testing.assert_allclose(measured(alpha + beta).normalized_variance(statistic), expected, rtol=1e-10)


def c4(n):
    return math.sqrt(2 / (n - 1)) * math.exp(gammaln(n / 2) - gammaln((n - 1) / 2))


@pytest.mark.parametrize("m", [2, 4, 16])
def test_unrelated_gaussians(m):
    n = 400
    layer = measured(np.random.default_rng(m).normal(size=(n, m, 600)))
    # 600 units; the standard error of the mean NV is below 0.001 for all of these.
    assert layer.normalized_variance("std").mean() == pytest.approx(c4(m) / c4(n), abs=0.005)
    assert layer.summary("var") == pytest.approx(1, abs=0.01)
    assert {2: 0.798, 4: 0.921, 16: 0.984}[m] == pytest.approx(c4(m), abs=1e-3)  # rounded


def test_affine_maps_of_activations_and_the_transposed_matrix():
    a = np.random.default_rng(5).normal(size=(30, 8, 6))
    nv = measured(a).normalized_variance()
    np.testing.assert_allclose(measured(-3 * a + 100).normalized_variance(), nv, rtol=1e-9)
    np.testing.assert_allclose(measured(a.swapaxes(0, 1)).normalized_variance(), 1 / nv, rtol=1e-9)


def test_a_large_mean_costs_no_digits():
    rng = np.random.default_rng(6)
    a = (1e4 + 0.01 * rng.normal(size=(500, 6, 20))).astype(np.float32)
    for statistic in ("std", "var"):
        tv, sv = definition(a, statistic)
        layer = measured(a, rows=32)
        np.testing.assert_allclose(layer.transformation_variance(statistic), tv, rtol=1e-5)
        np.testing.assert_allclose(layer.sample_variance(statistic), sv, rtol=1e-5)


def test_distances_are_those_of_all_pairs():
    a = np.random.default_rng(7).normal(size=(12, 5, 3))
    layer = measured(a)
    over_transformations = [(a[:, j] - a[:, k]) ** 2 for j in range(5) for k in range(j)]
    over_samples = [(a[i] - a[k]) ** 2 for i in range(12) for k in range(i)]
    np.testing.assert_allclose(layer.transformation_distance(), np.mean(over_transformations, axis=(0, 1)), rtol=1e-12)
    np.testing.assert_allclose(layer.sample_distance(), np.mean(over_samples, axis=(0, 1)), rtol=1e-12)


def test_dead_units_do_not_poison_a_layer():
    a = np.random.default_rng(8).normal(size=(40, 3, 4)).astype(np.float32)
    a[:, :, 1] = 0.1  # no sample and no transformation moves it
    a[:, :, 2] = np.float32([1, 2, 3])  # only the transformation does
    layer = measured(a, rows=13)
    assert layer.dead_fraction == 0.5
    nv = layer.normalized_variance()
    assert np.isnan(nv).tolist() == [False, True, True, False]
    assert layer.normalized_variance(zero_division=7.0)[1] == 7
    assert layer.summary(how="mean_of_ratios") == pytest.approx(nv[[0, 3]].mean())
    assert np.isfinite(layer.summary())
    dead = measured(np.zeros((5, 2, 3)))
    assert math.isnan(dead.summary())
    assert dead.summary(zero_division=0.0) == dead.summary(how="mean_of_ratios", zero_division=0.0) == 0
    assert np.isnan(dead.anova_f()).all()


def test_anova_is_that_of_scipy():
    rng = np.random.default_rng(9)
    a = rng.normal(size=(25, 4, 30)) + 0.3 * rng.normal(size=(1, 4, 30))
    layer = measured(a)
    expected = f_oneway(*(a[:, j] for j in range(4)), axis=0)
    np.testing.assert_allclose(layer.anova_f(), expected.statistic, rtol=1e-9)
    np.testing.assert_allclose(layer.anova_p(), expected.pvalue, rtol=1e-7)


def test_bonferroni_divides_by_the_number_of_tests():
    rng = np.random.default_rng(10)
    moved = rng.normal(size=(30, 3, 8)) + 0.6 * rng.normal(size=(1, 3, 8))
    moved[:, :, 0] = 5.0  # constant: no test
    still = rng.normal(size=(30, 3, 100))
    layers = [measured(moved, name="moved"), measured(still, name="still")]
    result = InvarianceResult(layers, "abc")
    p = layers[0].anova_p()[1:]
    assert Anova(family="layer").compute(result).layers["moved"] == (p <= 0.05 / 7).mean()
    assert Anova(family="all", alpha=0.2).compute(result).layers["moved"] == (p <= 0.2 / 107).mean()
    # In a hundred families of true nulls about five have any false alarm.
    alarms = 0
    for seed in range(100):
        nulls = measured(np.random.default_rng(seed).normal(size=(10, 3, 40)), name="null")
        alarms += Anova().compute(InvarianceResult([nulls], "abc")).layers["null"] > 0
    assert alarms <= 12  # binomial(100, 0.05) is above 12 once in a thousand


def test_anova_is_blind_to_interaction_and_nv_is_not():
    sign = np.where(np.arange(40) % 2, 1.0, -1.0)[:, None, None]
    a = sign * np.arange(4)[None, :, None] + 1e-3 * np.random.default_rng(0).normal(size=(40, 4, 1))
    layer = measured(a)
    assert layer.anova_p()[0] > 0.5
    assert layer.summary() > 0.5


@pytest.mark.parametrize("other", [1, 2, 30, 7992])
def test_f_distribution_is_its_closed_forms(other):
    values = np.geomspace(1e-6, 1e5, 400)
    with np.errstate(under="ignore"):
        two_above = (1 + 2 * values / other) ** (-other / 2)
    # 1 - (1 + y)^-a keeps its digits as -expm1(-a log1p(y)).
    two_below = -np.expm1(-other / 2 * np.log1p(2 / (other * values)))
    for degrees, expected in (((2, other), two_above), ((other, 2), two_below)):
        seen = expected > 1e-290
        np.testing.assert_allclose(f_upper_tail(values, *degrees)[seen], expected[seen], rtol=1e-9)
        assert (f_upper_tail(values, *degrees)[~seen] < 1e-280).all()
        assert f_upper_tail([0, np.inf], *degrees).tolist() == [1, 0]
        assert np.isnan(f_upper_tail(np.nan, *degrees))
    for p in (0.9, 0.05, 1e-9):
        assert f_limit(p, 2, other) == pytest.approx((p ** (-2 / other) - 1) * other / 2, rel=1e-9)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_what_is_no_number_is_an_error_that_names_the_layer(bad):
    a = np.random.default_rng(0).normal(size=(9, 3, 4)).astype(np.float32)
    a[7, 1, 2] = bad
    with (
        pytest.raises(ValueError, match="layer 'fc': 1 of 4 units"),
        np.errstate(invalid="ignore", over="ignore"),
    ):
        measured(a, name="fc")


def test_too_few_are_refused():
    with pytest.raises(ValueError, match="at least two transformations, got 1"):
        StreamingMoments(columns=1)
    with pytest.raises(ValueError, match="at least two samples"):
        measured(np.zeros((1, 3, 2)))
    with pytest.raises(ValueError, match="at least one row"):
        StreamingMoments(columns=2).moments()
    layer = measured(np.random.default_rng(0).normal(size=(3, 3, 2)))
    with pytest.raises(ValueError, match="statistic"):
        layer.normalized_variance("mad")
    with pytest.raises(ValueError, match="how="):
        layer.summary(how="median")
    with pytest.raises(ValueError, match="shape of 2 units"):
        LayerMeasures.from_moments(StreamingMoments_of(np.zeros((2, 2, 2))), shape=(3,))


def test_memory_is_that_of_two_sums_for_each_entry():
    moments = StreamingMoments(columns=4, backend=NumpyBackend())
    moments.update(np.zeros((8, 100), dtype=np.float32), rows=2)
    held = sum(part.nbytes for part in moments._totals) + moments._shift.nbytes
    assert held == accumulator_bytes(units=100, columns=4)
