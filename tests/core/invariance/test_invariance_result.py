import json
import math
import os
import random

import numpy as np
import pytest

import bc_core.invariance as bci
from bc_core.files._archives import read_archive
from bc_core.invariance import InvarianceResult, LayerMeasures, StreamingMoments
from bc_core.invariance._firing import NumpyFiring, firing_rates, firing_threshold, kept_for


def layer(name, a, **options):
    moments = StreamingMoments(columns=a.shape[1])
    moments.update(a.reshape(-1, *a.shape[2:]), rows=len(a))
    return LayerMeasures.from_moments(moments.moments(), name=name, shape=a.shape[2:], **options)


@pytest.fixture
def a():
    return np.random.default_rng(0).normal(size=(20, 3, 4, 2, 2))


@pytest.fixture
def result(a):
    dead = a[:, :, :, 0, 0].copy()
    dead[:, :, 1] = 1
    rates = (np.full(4, 0.25), np.full(4, 0.125))
    return InvarianceResult(
        [layer("conv", a), layer("fc", dead, firing=rates)],
        ["identity", "rotate 30", "flip"],
        [0, 30, math.nan],
        left_out={"drop": "returns what 'fc' returned"},
        firing_rate=0.125,
    )


def test_saved_and_loaded_is_the_same(result, tmp_path):
    path = tmp_path / "deep" / "result.npz"
    result.save(path)
    loaded = InvarianceResult.load(path)
    assert repr(loaded) == repr(result)
    assert loaded.layer_names == ("conv", "fc")
    assert loaded.left_out == result.left_out
    assert loaded.sizes[:2] == (0, 30)
    assert math.isnan(loaded.sizes[2])
    assert (loaded.kind, loaded.firing_rate) == ("invariance", 0.125)
    for name, found in loaded.items():
        np.testing.assert_array_equal(found.normalized_variance(), result[name].normalized_variance())
        assert found.shape == result[name].shape
    assert loaded["conv"].firing_ratio is None
    np.testing.assert_array_equal(loaded["fc"].firing_ratio, np.full(4, 2.0))
    assert [file.name for file in path.parent.iterdir()] == ["result.npz"]


def test_a_failed_save_leaves_what_was_there(result, tmp_path, monkeypatch):
    path = tmp_path / "result.npz"
    result.save(path)
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        result.save(path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_other_files_are_refused(result, tmp_path):
    path = tmp_path / "result.npz"
    path.write_text("no")
    with pytest.raises(ValueError, match="no invariance result"):
        InvarianceResult.load(path)
    np.savez(path, header=np.frombuffer(b'{"format": "other", "version": 1}', dtype=np.uint8))
    with pytest.raises(ValueError, match="format 'other'"):
        InvarianceResult.load(path)
    result.save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="no invariance result"):
        InvarianceResult.load(path)
    with pytest.raises(FileNotFoundError):
        InvarianceResult.load(tmp_path / "none.npz")


def test_table_and_repr(result, a):
    first, second = result.table()
    assert (first["layer"], first["shape"], first["units"], first["features"]) == ("conv", (4, 2, 2), 16, 4)
    assert first["ratio_of_means"] == pytest.approx(
        a.std(axis=1, ddof=1).mean() / a.std(axis=0, ddof=1).mean(axis=0).mean()
    )
    assert second["dead_fraction"] == 0.25
    assert "20 samples x 3 transformations" in repr(result)
    assert "25%" in repr(result)


def test_unknown_layers_are_named(result):
    with pytest.raises(KeyError, match="conv, fc"):
        result["relu"]
    with pytest.raises(KeyError, match="left out: returns what"):
        result["drop"]
    with pytest.raises(ValueError, match="names that differ"):
        InvarianceResult([result["fc"], result["fc"]], "abc")
    with pytest.raises(ValueError, match="2 names"):
        InvarianceResult([result["fc"]], "ab")
    with pytest.raises(ValueError, match="at least one layer"):
        InvarianceResult([], "ab")


def test_measures_read_the_same_result(result, a):
    tv, sv = a.std(axis=1, ddof=1).mean(axis=0), a.std(axis=0, ddof=1).mean(axis=0)
    computed = {
        name: getattr(bci, name)().compute(result).units["conv"]
        for name in ("Variance", "NormalizedVariance", "FeaturesVariance", "NormalizedFeaturesVariance")
    }
    np.testing.assert_allclose(computed["Variance"], tv)
    np.testing.assert_allclose(computed["NormalizedVariance"], tv / sv)
    np.testing.assert_allclose(computed["FeaturesVariance"], tv.mean(axis=(1, 2)))
    np.testing.assert_allclose(computed["NormalizedFeaturesVariance"], tv.mean(axis=(1, 2)) / sv.mean(axis=(1, 2)))
    np.testing.assert_allclose(bci.Variance(axis="sample").compute(result).units["conv"], sv)
    distance = bci.Distance().compute(result).units["conv"] / bci.Distance(axis="sample").compute(result).units["conv"]
    np.testing.assert_allclose(bci.NormalizedDistance().compute(result).units["conv"], distance)


def test_measures_want_their_kind(result):
    with pytest.raises(ValueError, match="same_equivariance=True"):
        bci.SameEquivariance().compute(result)
    turned = InvarianceResult(list(result.values()), result.transforms, kind="same_equivariance")
    with pytest.raises(ValueError, match="same_equivariance=False"):
        bci.NormalizedVariance().compute(turned)
    for measure in (bci.SameEquivariance(), bci.NormalizedSameEquivariance(), bci.SameEquivarianceDistance()):
        assert list(measure.compute(turned).layers) == ["conv", "fc"]
    with pytest.raises(ValueError, match="firing_rate"):
        bci.Goodfellow().compute(result)
    with pytest.raises(ValueError, match="best"):
        bci.Goodfellow(best=0)
    with pytest.raises(ValueError, match="alpha"):
        bci.Anova(alpha=1)


def goodfellow_by_definition(a, rate):
    """Plain loops: threshold by sorting, then L and G as they are defined."""
    n, m, units = a.shape
    ratios = np.full(units, math.nan)
    for k in range(units):
        threshold = np.sort(a[:, 0, k])[::-1][max(1, math.floor(rate * n))]
        firing = [i for i in range(n) if a[i, 0, k] > threshold]
        if firing:
            local = np.mean([[a[i, j, k] > threshold for j in range(1, m)] for i in firing])
            ratios[k] = local / (len(firing) / n)
    return ratios


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.25])
def test_firing_rates_are_the_definition(rate):
    rng = np.random.default_rng(1)
    a = rng.normal(size=(100, 1, 6)) + 0.5 * rng.normal(size=(100, 4, 6))
    a[:, :, 5] = np.maximum(a[:, :, 5] - 9, 0)  # never fires
    backend = NumpyFiring()
    count = kept_for(rate, 100)
    kept = None
    for tile in np.split(a, 7 * np.arange(1, 14)):
        kept = backend.largest(kept, tile[:, 0], count)
    sums = [backend.firing(tile, firing_threshold(kept), 0) for tile in np.split(a, 4)]
    local, fired = firing_rates(*(sum(parts) for parts in zip(*sums, strict=True)), samples=100, others=3)
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(local / fired, goodfellow_by_definition(a, rate))
    assert np.isnan(local[5])


@pytest.mark.parametrize("repeats", [1, 2, 5])
def test_rounding_moves_nothing_over_the_threshold(repeats):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(60 // repeats, 300)).repeat(repeats, axis=0)
    values[:, 100:200] = np.maximum(values[:, 100:200] - 1.5, 0)  # mostly zeros
    values[:, 200:] += 100  # where a digit is larger
    a = values.astype(np.float32)
    threshold = firing_threshold(NumpyFiring().largest(None, a, kept_for(0.1, 60)))
    assert threshold.dtype == np.float32
    # By definition: what is larger than the seventh largest.
    np.testing.assert_array_equal(a > threshold, a > np.sort(a, axis=0)[::-1][6])
    for _ in range(5):
        # A few times what a sum of some hundred float32 products is off by.
        rounded = a + 1e-6 * abs(a).max(axis=0) * rng.uniform(-1, 1, a.shape).astype(np.float32)
        np.testing.assert_array_equal(rounded > threshold, a > threshold)
    assert not (a[:, :3] > firing_threshold(np.full((6, 3), 2, np.float32))).all()
    assert firing_threshold(np.array([[3.0, 0.0]])).tolist() == pytest.approx([3.0, 0.0], rel=2e-5)


def test_unrelated_units_have_a_firing_ratio_of_one():
    a = np.random.default_rng(2).normal(size=(2000, 5, 50))
    backend = NumpyFiring()
    kept = backend.largest(None, a[:, 0], kept_for(0.05, 2000))
    local, fired = firing_rates(*backend.firing(a, firing_threshold(kept), 0), samples=2000, others=4)
    # With the identity counted it would be 0.8 + 0.2 / 0.05 = 4.8.
    assert (local / fired).mean() == pytest.approx(1, abs=0.05)
    with pytest.raises(ValueError, match="firing_rate"):
        kept_for(0, 10)


# Damage


@pytest.fixture
def saved(tmp_path):
    """A small result, and its file."""
    moments = StreamingMoments(columns=2)
    moments.update(np.random.default_rng(0).normal(size=(8, 3)), rows=4)
    layer = LayerMeasures.from_moments(moments.moments(), name="a")
    result = InvarianceResult([layer], ["x", "y"], left_out={"b": "no floats"})
    result.save(tmp_path / "r.npz")
    return result, tmp_path / "r.npz"


def test_a_file_with_a_damaged_byte_is_refused_or_the_same(saved):
    result, path = saved
    content, rng, refused = path.read_bytes(), random.Random(0), 0
    for number in range(200):
        damaged = bytearray(content)
        place = rng.randrange(len(damaged))
        if number % 3 == 0:
            damaged = damaged[:place]
        elif number % 3 == 1:
            damaged[place] = rng.randrange(256)
        else:
            damaged[place : place + 40] = bytes(min(40, len(damaged) - place))
        path.write_bytes(damaged)
        try:
            # Dates and the like in an archive mean nothing.
            found = InvarianceResult.load(path)
        except ValueError as error:
            refused += str(path) in str(error)
        else:
            refused += damaged == content
            assert repr(found) == repr(result)
            assert found["a"].tv_std.tolist() == result["a"].tv_std.tolist()
    assert refused > 150


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("left_out", 5, "left_out"),
        ("left_out", "x", "left_out"),
        ("left_out", {"b": 1}, "left_out"),
        ("transforms", 5, "transforms"),
        ("transforms", "xy", "transforms"),
        ("transforms", ["x"], "sizes"),
        ("sizes", 5, "sizes"),
        ("sizes", [1, "far"], "sizes"),
        ("sizes", [float("inf"), 1], "sizes"),
        ("kind", "else", "kind"),
        ("kind", None, "kind"),
        ("firing_rate", "often", "firing_rate"),
        ("version", "1", "version"),
        ("version", 2, "version 2"),
        ("layers", 5, ""),
        ("layers", [], "layer"),
        ("layers", [{"name": "a"}], "missing"),
    ],
)
def test_headers_of_another_type_are_refused(saved, entry, value, message):
    _, path = saved
    arrays = dict(np.load(path))
    header = {**json.loads(bytes(arrays["header"])), entry: value}
    np.savez(path, **{**arrays, "header": np.frombuffer(json.dumps(header).encode(), np.uint8)})
    with pytest.raises(ValueError, match=rf"r\.npz.*{message}"):
        InvarianceResult.load(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values * np.nan,
        lambda values: values * np.inf,
        lambda values: -values - 1,
        lambda values: values[:2],
        lambda values: values[None],
        lambda values: values.astype(np.float32),
        lambda values: np.array(["a", "b", "c"]),
        lambda values: np.array([None, 1, 2], dtype=object),
    ],
)
@pytest.mark.parametrize("column", ["tv_std", "between"])
def test_columns_that_cannot_be_are_refused(saved, column, change):
    _, path = saved
    arrays = dict(np.load(path))
    np.savez(path, **{**arrays, f"0.{column}": change(arrays[f"0.{column}"])})
    with pytest.raises(ValueError, match=r"r\.npz"):
        InvarianceResult.load(path)


def test_columns_of_no_layer_and_files_of_another_kind_are_refused(saved):
    _, path = saved
    arrays = dict(np.load(path))
    np.savez(path, **arrays, **{"1.mean": np.zeros(3)})
    with pytest.raises(ValueError, match=r"'1\.mean' is of no layer"):
        InvarianceResult.load(path)
    for content in (b"", b"PK", b"\x93NUMPY\x01\x00"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"r\.npz.*no archive of arrays"):
            InvarianceResult.load(path)
    with pytest.raises(FileNotFoundError):
        InvarianceResult.load(path.with_name("none.npz"))


def test_an_archive_that_unpacks_to_more_than_allowed_is_not_unpacked(tmp_path):
    np.savez_compressed(tmp_path / "bomb.npz", a=np.zeros(2**23))
    assert os.path.getsize(tmp_path / "bomb.npz") < 2**18
    with pytest.raises(ValueError, match=r"holds 67\.11 MB when unpacked, more than 1\.049 MB"):
        read_archive(tmp_path / "bomb.npz", limit=2**20)
    assert read_archive(tmp_path / "bomb.npz")["a"].shape == (2**23,)
