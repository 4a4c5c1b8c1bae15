"""What `bc_lightning.invariance` and `bc_keras.invariance` promise alike, against plain loops and closed forms.

Networks are written down once, and built by the side that is tested: Keras where KERAS_BACKEND says on which backend,
else torch. Images are made as (N, H, W, C); a side has them and its activations in its own layout.
"""

import math
import os

import numpy as np
import pytest
from invariance_sides import C4, KerasSide, LightningSide
from measured import assert_same, definition

from bc_core.invariance import (
    Anova,
    Goodfellow,
    NormalizedSameEquivariance,
    NumpyBackend,
    StreamingMoments,
    TransformSet,
    compare_predictions,
    make_tile,
)

D4 = TransformSet.d4()
FIVE = TransformSet.rotations([0, 30, 90]) | TransformSet.translations([(0, 2), (3, -1)])
NEGATED = TransformSet.from_functions([("negated", lambda x: -x, lambda x: -x)])


@pytest.fixture(scope="module", params=["keras" if "KERAS_BACKEND" in os.environ else "lightning"])
def ours(request):
    return KerasSide() if request.param == "keras" else LightningSide()


@pytest.fixture(autouse=True)
def _seed(ours):
    ours.seed()
    if os.environ.get("KERAS_BACKEND") != "jax":
        yield
        return
    import jax

    # Compiling takes longer than everything else here: as fast code is of no use, it need not be that good.
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def images(n=24, channels=1, size=12):
    return np.random.default_rng(1).normal(size=(n, size, size, channels)).astype("float32")


def small_net(ours):
    return ours.net(
        (12, 12, 1), ("a", "conv", 4, 3, 1), ("b", "relu"), ("c", "maxpool", 2), ("drop", "dropout"),
        ("d", "conv", 6, 3), ("d2", "relu"), ("flat", "flatten"), ("e", "dense", 5),
    )  # fmt: skip


def classifier(ours, classes=3, *last):
    body = ("conv", "conv", 3, 3), ("act", "relu"), ("pool", "globalmean"), ("flat", "flatten")
    return ours.net((8, 8, 1), *body, ("head", "dense", classes), *last)


def data(n=40, classes=3):
    random = np.random.default_rng(2)
    return random.normal(size=(n, 8, 8, 1)).astype("float32"), random.integers(classes, size=n)


def activations(ours, net, name, x, transforms):
    """(n, m, ...) of one layer by plain loops over transformations."""
    given = np.asarray(ours.inputs(x))
    columns = [ours.activation(net, name, t(given, data_format=ours.data_format)) for t in transforms]
    return np.stack(columns, axis=1).astype("float64")


def predicted(ours, net, x, transforms=C4):
    return activations(ours, net, None, x, transforms).argmax(axis=2)


# The numbers.


def test_every_layer_is_the_definition(ours):
    net, x = small_net(ours), images()
    result = ours.invariance.measure(net, ours.inputs(x), FIVE)
    assert result.layer_names == ("a", "b", "c", "d", "d2", "e")
    assert result.left_out == {
        "drop": "returns what 'c' returned",
        "flat": "returns what 'd2' returned",
        "(output)": "returns what 'e' returned",
    }
    for name, layer in result.items():
        a = activations(ours, net, name, x, FIVE)
        assert layer.shape == a.shape[2:]
        for statistic in ("std", "var"):
            tv, sv = definition(a, statistic)
            # float32 activations and tile sums
            np.testing.assert_allclose(layer.transformation_variance(statistic), tv, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(layer.sample_variance(statistic), sv, rtol=1e-4, atol=1e-6)
        f = len(x) * a.mean(axis=0).var(axis=0, ddof=1) / a.var(axis=0, ddof=1).mean(axis=0)
        np.testing.assert_allclose(layer.anova_f(), f, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 40}, {"max_memory": 70_000}])
def test_neither_tile_size_nor_order_nor_passes_nor_batches_matter(ours, options):
    net, x, y = small_net(ours), images(), np.arange(24)
    order = np.random.default_rng(3).permutation(len(x))
    expected = ours.invariance.measure(net, ours.inputs(x), FIVE)
    for data in (ours.inputs(x[order]), ours.batches(x[order], y, 7), ours.labelled(x, y)):
        assert_same(ours.invariance.measure(net, data, FIVE, **options), expected)
    if "max_memory" not in options:
        assert_same(ours.invariance.measure(net, iter(ours.batches(x, y, 7)), FIVE, **options), expected)


def test_sums_are_those_of_numpy(ours):
    a = (1e4 + 0.01 * np.random.default_rng(0).normal(size=(300, 6, 50))).astype(np.float32)
    a[:, :, 7] = 3.25
    expected, found = StreamingMoments(6, NumpyBackend()), StreamingMoments(6, ours.backend())
    for rows in np.split(a, [17, 130, 299]):
        expected.update(rows.reshape(-1, 50), len(rows))
        found.update(ours.inputs(rows.reshape(-1, 50)), len(rows))
    expected, found = expected.moments(), found.moments()
    np.testing.assert_allclose(found.m2, expected.m2, rtol=1e-5)
    np.testing.assert_allclose(found.row_std, expected.row_std, rtol=1e-5)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-9)
    np.testing.assert_allclose(found.m2, a.astype(np.float64).var(axis=0) * 300, rtol=1e-5)
    assert found.m2[:, 7].max() == 0
    assert found.row_var[7] == 0


def test_transforms_are_those_of_numpy(ours):
    everything = FIVE | TransformSet.rolls([(2, 3)]) | TransformSet.scales([0.7, 1.4]) | D4
    x = images(3, channels=2, size=9)
    expected = make_tile(everything, np.asarray(ours.inputs(x)), data_format=ours.data_format)
    found = make_tile(everything, ours.inputs(x), data_format=ours.data_format, ops=ours.spatial())
    np.testing.assert_allclose(np.asarray(found), expected, atol=1e-6)


# Closed forms.


def test_copies_of_the_identity_have_no_spread(ours):
    for name, layer in ours.invariance.measure(
        small_net(ours), ours.inputs(images()), TransformSet.identity(4)
    ).items():
        # The rows of a matrix product may differ in the last digit, by where they are in the batch.
        assert layer.transformation_variance().max() <= (1e-6 if name == "e" else 0)
    same = np.random.default_rng(0).normal(size=(20, 1, 5)).repeat(4, axis=1).astype("float32")
    moments = StreamingMoments(4, ours.backend())
    moments.update(ours.inputs(same.reshape(80, 5)), 20)
    assert moments.moments().row_std.max() == 0


def test_pooling_under_rotations(ours):
    x = ours.inputs(images(40, channels=2))

    def pooled(kernel, pool):
        net = ours.net((12, 12, 2), ("c", "conv", 8, kernel), ("r", "relu"), ("p", pool))
        return ours.invariance.measure(net, x, D4)["p"].summary()

    assert pooled(1, "globalmax") == 0
    assert pooled(1, "globalmean") < 1e-5  # sums in another order
    # Global pooling alone makes no network invariant to rotations.
    assert 0.2 < pooled(3, "globalmean") < 0.9


def test_same_equivariance_under_rotations(ours):
    x = ours.inputs(images(40))
    measure = ours.invariance.measure
    pointwise = ours.net((12, 12, 1), ("c", "conv", 4, 1), ("r", "relu"))
    for layer in measure(pointwise, x, D4, same_equivariance=True).values():
        assert (layer.transformation_variance() == 0).all()
    net = ours.net((12, 12, 1), ("c", "conv", 1, 3, 1))
    ours.set_kernel(net, "c", np.array([[1, 2, 1], [2, -3, 2], [1, 2, 1]], "float32").reshape(3, 3, 1, 1))
    result = measure(net, x, D4, same_equivariance=True)
    assert NormalizedSameEquivariance().compute(result).layers["c"] < 1e-6
    random = ours.net((12, 12, 1), ("c", "conv", 8, 3, 1))
    assert measure(random, x, D4, same_equivariance=True)["c"].summary() > 0.5
    with pytest.raises(ValueError, match="same_equivariance=True"):
        NormalizedSameEquivariance().compute(measure(net, x, D4))


@pytest.mark.parametrize(
    "transforms", [FIVE, TransformSet.rotations([0, 25]) * TransformSet.translations([(0, 0), (2, -1)])]
)
def test_same_equivariance_is_the_definition_on_resampled_maps(ours, transforms):
    net, x = small_net(ours), images()
    result = ours.invariance.measure(net, ours.inputs(x), transforms, same_equivariance=True, batch_size=25)
    assert result.layer_names == ("a", "b", "c", "d", "d2")
    assert "nothing to turn back" in result.left_out["e"]
    for name in ("b", "c"):
        a = activations(ours, net, name, x, transforms).astype("float32")
        options = {"data_format": ours.data_format, "input_size": (12, 12)}
        back = [t.inverse(np.ascontiguousarray(a[:, j]), **options) for j, t in enumerate(transforms)]
        tv, sv = definition(np.stack(back, axis=1).astype("float64"))
        np.testing.assert_allclose(result[name].transformation_variance(), tv, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(result[name].sample_variance(), sv, rtol=1e-3, atol=1e-5)


def test_maps_that_cannot_be_turned_back_are_left_out(ours):
    net = ours.net((12, 12, 1), ("square", "conv", 2, 1), ("oblong", "maxpool", (2, 1)))
    result = ours.invariance.measure(net, ours.inputs(images()), C4, same_equivariance=True)
    assert result.layer_names == ("square",)
    assert "needs a square map" in result.left_out["oblong"]


@pytest.mark.parametrize("max_memory", [None, 90_000])
def test_goodfellow_is_the_definition(ours, max_memory):
    net, x = small_net(ours), images(40)
    options = {"firing_rate": 0.1, "batch_size": 35, "max_memory": max_memory}
    result = ours.invariance.measure(net, ours.inputs(x), FIVE, **options)
    for name in result:
        a = activations(ours, net, name, x, FIVE)
        fires = a > np.sort(a[:, 0], axis=0)[::-1][4]
        own = fires[:, 0]
        fired = own.sum(axis=0)
        local = (own * fires[:, 1:].sum(axis=1)).sum(axis=0) / np.maximum(fired, 1) / 4
        expected = np.where(fired > 0, local / np.maximum(fired / 40, 1e-9), np.nan)
        # A unit on the edge of its threshold may fall to the other side in float32.
        assert np.isclose(result[name].firing_ratio, expected, rtol=1e-4, equal_nan=True).mean() > 0.97
    assert set(Goodfellow().compute(result).layers) == set(result)


def test_layers_can_be_split_for_goodfellow_too(ours):
    net, x = small_net(ours), ours.inputs(images())
    expected = ours.invariance.measure(net, x, FIVE, firing_rate=0.2)
    found = ours.invariance.measure(net, x, FIVE, firing_rate=0.2, max_memory=70_000)
    for name in expected:
        np.testing.assert_array_equal(found[name].firing_ratio, expected[name].firing_ratio)
    with pytest.raises(ValueError, match="firing_rate"):
        Goodfellow().compute(ours.invariance.measure(net, x, FIVE))


def test_goodfellow_depends_neither_on_tile_size_nor_on_order(ours):
    # Every image three times, so that activations equal their thresholds; wide sums, which round by the batch's size.
    layers = ("f", "flatten"), ("hidden", "dense", 300), ("r", "relu"), ("last", "dense", 200)
    net, x = ours.net((12, 12, 1), *layers), images(20).repeat(3, axis=0)
    expected = ours.invariance.measure(net, ours.inputs(x), FIVE, firing_rate=0.1)
    order = np.random.default_rng(0).permutation(len(x))
    for given, batch_size in ((x, 5), (x[order], 35), (x[order], 300)):
        found = ours.invariance.measure(net, ours.inputs(given), FIVE, firing_rate=0.1, batch_size=batch_size)
        for name in expected:
            np.testing.assert_array_equal(found[name].firing_ratio, expected[name].firing_ratio, name)


def test_anova_is_blind_to_interaction_and_nv_is_not(ours):
    x = np.random.default_rng(0).choice([-1.0, 1.0], size=(200, 1)).astype("float32")
    net = ours.net((1,), ("r", "dense", 1))
    result = ours.invariance.measure(net, ours.inputs(np.concatenate([x, -x])), NEGATED)
    assert Anova().compute(result).layers["r"] == 0
    assert result["r"].summary() > 1


# What is asked for.


def test_layers_can_be_chosen(ours):
    net, x, measure = small_net(ours), ours.inputs(images()), ours.invariance.measure
    flat = net.get_layer("flat") if hasattr(net, "get_layer") else net.flat
    assert measure(net, x, C4, layers=["e", "c"]).layer_names == ("c", "e")
    assert measure(net, x, C4, layers=[flat]).layer_names == ("flat",)
    assert measure(net, x, C4, layers=["(output)"]).layer_names == ("(output)",)
    assert measure(net, x, C4, layers=lambda name, layer: "Conv" in type(layer).__name__).layer_names == ("a", "d")
    # A function is taken at its word: what only hands on is measured where it says so.
    assert measure(net, x, C4, layers=lambda name, layer: name in ("d2", "flat")).layer_names == ("d2", "flat")
    for layers, error, message in (
        (["z"], ValueError, "no layer 'z'; there are a, b, c"),
        (["a:2"], ValueError, "no layer 'a:2'"),
        ([3], TypeError, "names or layers"),
        ([small_net(ours)], ValueError, "own"),
        ("a", TypeError, r"list of names or of layers.*\['a'\]"),
        ([], ValueError, "no layer to measure"),
    ):
        with pytest.raises(error, match=message):
            measure(net, x, C4, layers=layers)
    with pytest.raises(ValueError, match="'e' cannot be measured"):
        measure(net, x, C4, layers=["e"], same_equivariance=True)
    axis = 1 if ours.data_format == "channels_first" else 0
    assert measure(net, x, C4, feature_axis={"a": axis})["a"].features == 12


def test_bad_input_is_refused(ours):
    net, x, y, measure = small_net(ours), images(), np.arange(24), ours.invariance.measure
    given, one_way = ours.inputs(x), TransformSet.from_functions({"up": lambda x: x + 1})
    broken = small_net(ours)
    ours.spoil(broken, "a")
    flat, table = ours.net((3,), ("e", "dense", 2)), ours.inputs(images(6, 1, 3)[:, 0, :, 0].copy())
    shapes = [ours.batches(x[:3], y[:3], 3)[0], ours.batches(x[:3, :8], y[:3], 3)[0]]
    rounds = iter([ours.batches(x, y, 7), ours.batches(x[:20], y[:20], 7)])

    class Fewer:
        def __iter__(self):
            return iter(next(rounds))

    for error, message, call in (
        (ValueError, "at least two transformations", lambda: measure(net, given, TransformSet.identity())),
        (ValueError, "without an inverse", lambda: measure(net, given, one_way, same_equivariance=True)),
        (TypeError, "TransformSet", lambda: measure(net, given, [lambda x: x])),
        (TypeError, "whose layers are watched", lambda: measure(lambda x: x, given, C4)),
        (ValueError, "at least two samples", lambda: measure(net, given[:1], C4)),
        (ValueError, "at least two samples, got none", lambda: measure(net, [], C4)),
        (ValueError, "at least two samples, got none", lambda: measure(net, given[:0], C4)),
        (ValueError, "'a': 576 of 576 units", lambda: measure(broken, given, C4)),
        (ValueError, "batch_size", lambda: measure(net, given, C4, batch_size=0)),
        (ValueError, "'a' with 576 units, under 4.*alone needs", lambda: measure(net, given, C4, max_memory=1000)),
        (ValueError, "max_memory", lambda: measure(net, given, C4, max_memory=0)),
        (ValueError, "feature_axis.*no axis 4", lambda: measure(net, given, C4, feature_axis=4)),
        (TypeError, "gone through only once", lambda: measure(net, iter(ours.batches(x, y, 7)), C4, firing_rate=0.1)),
        (TypeError, "only once", lambda: measure(net, iter(ours.batches(x, y, 7)), C4, max_memory=60_000)),
        (ValueError, "needs the identity", lambda: measure(net, given, C4[1:], firing_rate=0.1)),
        (ValueError, "between 0 and 1", lambda: measure(net, given, C4, firing_rate=2)),
        (TypeError, "data", lambda: measure(net, 3, C4)),
        (ValueError, "is not in", lambda: measure(net, [{"x": given}], C4, inputs="image")),
        (TypeError, "floating-point", lambda: measure(net, ours.inputs(np.ones((5, 12, 12, 1), "uint8")), FIVE)),
        (ValueError, "square map", lambda: measure(net, ours.inputs(np.ones((5, 12, 10, 1), "float32")), C4)),
        (ValueError, "one shape", lambda: measure(net, shapes, C4)),
        (
            ValueError,
            "same samples in each pass, got 24, then 20",
            lambda: measure(net, Fewer(), C4, max_memory=60_000),
        ),
        (ValueError, "spatial axes", lambda: measure(flat, table, NEGATED, same_equivariance=True)),
        (ValueError, "needs images.*functions of your own", lambda: measure(flat, table, C4)),
    ):
        with pytest.raises(error, match=message):
            call()


# h1 and h2.


@pytest.mark.parametrize("max_memory", [None, 21_000])
def test_an_update_is_compared_in_one_go(ours, max_memory):
    h1, h2 = classifier(ours), classifier(ours)
    x, y = data()
    options = {"batch_size": 64, "max_memory": max_memory}
    update = ours.invariance.compare_invariance(h1, h2, ours.labelled(x, y), C4, **options)
    a, b = predicted(ours, h1, x), predicted(ours, h2, x)
    np.testing.assert_array_equal(update.h1_pred, a)
    np.testing.assert_array_equal(update.h2_pred, b)
    kept = a[:, 1:] == a[:, :1]
    assert update.negative_flip_rate == pytest.approx((kept & (b[:, 1:] != b[:, :1])).mean())
    assert update.table()[2]["nfr"] == ((a[:, 2] == y) & (b[:, 2] != y)).mean()
    assert update.table() == compare_predictions(a, b, y, transforms=C4).table()
    for model, result in ((h1, update.h1), (h2, update.h2)):
        assert_same(result, ours.invariance.measure(model, ours.inputs(x), C4))
    assert [row["layer"] for row in update.depth_table()] == ["conv", "act", "pool", "head"]
    assert [row["depth_h1"] for row in update.depth_table()] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    for row in update.depth_table():
        low, high = row["difference_interval"]
        assert low <= row["difference"] <= high
        assert high > low
        low, high = row["h2_interval"]
        assert low < row["h2"] < high


def test_a_model_compared_with_itself(ours):
    model, (x, y) = classifier(ours), data()
    update = ours.invariance.compare_invariance(model, model, ours.batches(x, y, 13), C4)
    assert update.negative_flip_rate == 0
    assert {tuple(row["difference_interval"]) for row in update.depth_table()} == {(0.0, 0.0)}


def test_binary_models_and_labels_of_every_form(ours):
    (x, y), compare = data(classes=2), ours.invariance.compare_invariance
    h1, h2 = (classifier(ours, 1, ("score", "sigmoid")) for _ in range(2))
    update = compare(h1, h2, ours.labelled(x, y), C4, layers=[])
    assert update.h1 is None
    assert set(np.unique(update.h1_pred)) <= {0, 1}
    strict = compare(h1, h2, ours.labelled(x, y), C4, layers=[], threshold=0.9)
    assert strict.h2_pred.sum() <= update.h2_pred.sum()
    for target in (y.astype("float32"), y[:, None].astype("float32"), np.eye(2)[y], np.eye(2, dtype=int)[y]):
        assert compare(h1, h2, ours.labelled(x, target), C4, layers=[]).table() == update.table()
    assert compare(h1, h2, ours.inputs(x), C4, layers=[]).overlaps is None
    raw = classifier(ours, 1)
    with pytest.raises(ValueError, match="from_logits=True"):
        compare(raw, raw, ours.inputs(9 * x), C4, layers=[])
    for threshold in (0.5, 0.6):
        logits = compare(raw, raw, ours.inputs(x), C4, layers=[], from_logits=True, threshold=threshold)
        expected = activations(ours, raw, None, x, C4)[..., 0] >= math.log(threshold / (1 - threshold))
        np.testing.assert_array_equal(logits.h1_pred, expected)


def test_a_reference_brings_its_class_map(ours):
    x, y = data()
    h1, h2 = classifier(ours, 4), classifier(ours, 3)
    reference = ours.reference(h1, class_map=[2, -1, 0, 1])
    update = ours.invariance.compare_invariance(reference, h2, ours.labelled(x, y), C4, layers=["head"])
    # The class that h2 lacks stands behind the three that it has: its own number, 1, after theirs.
    expected = np.array([2, 4, 0, 1])[predicted(ours, h1, x)]
    np.testing.assert_array_equal(update.h1_pred, expected)
    np.testing.assert_array_equal(update.h2_pred, predicted(ours, h2, x))
    accuracy = [row["accuracy_h1"] for row in update.table()]
    assert accuracy == pytest.approx((expected == y[:, None]).mean(axis=0))


def test_bad_comparisons_are_refused(ours):
    model, (x, y) = classifier(ours), data()
    given, compare = ours.inputs(x), ours.invariance.compare_invariance
    broken = classifier(ours)
    ours.spoil(broken, "head")
    maps = ours.net((8, 8, 1), ("c", "conv", 2, 1))

    class Shuffled:
        def __iter__(self):
            order = np.random.default_rng().permutation(len(x))
            return iter(ours.batches(x[order], y[order], 40))

    for error, message, call in (
        (ValueError, "The identity must be among", lambda: compare(model, model, given, C4[1:])),
        (TypeError, "TransformSet", lambda: compare(model, model, given, None)),
        (TypeError, "h1.*whose layers are watched", lambda: compare(None, model, given, C4)),
        (ValueError, "threshold", lambda: compare(model, model, given, C4, threshold=1)),
        (ValueError, "h2 returned NaN", lambda: compare(model, broken, given, C4, layers=[])),
        (ValueError, "h1: expected scores", lambda: compare(maps, model, given, C4, layers=[])),
        (ValueError, "class number", lambda: compare(model, model, ours.labelled(x, y + 0.5), C4, layers=[])),
        (ValueError, "class number", lambda: compare(model, model, ours.labelled(x, np.ones((40, 3))), C4, layers=[])),
        (ValueError, "at least two samples", lambda: compare(model, model, [], C4, layers=[])),
        (ValueError, "no layer 'nothing'", lambda: compare(model, model, given, C4, layers=["nothing"])),
        (ValueError, "units and max_memory", lambda: compare(model, model, given, C4, layers=[], probe_units=0)),
        (ValueError, "same order", lambda: compare(model, classifier(ours), Shuffled(), C4, max_memory=21_000)),
    ):
        with pytest.raises(error, match=message):
            call()


# In training.


def test_every_epochs_comparison_is_the_one_asked_by_hand(ours):
    x, y = data()
    h1, h2 = (ours.net((8, 8, 1), ("flat", "flatten"), ("head", "dense", 3)) for _ in range(2))
    watch, by_hand, logged = ours.watched(h1, h2, ours.labelled(x, y), x, y, epochs=3, layers=["head"])
    history = dict(watch.history)
    names = ("consistency_h1", "consistency_h2", "negative_flip_rate")
    assert list(history) == [0, 1, 2]
    for update, expected in zip(history.values(), by_hand, strict=True):
        assert update.h1 is None
        assert update.h2 is None
        assert [getattr(update, name) for name in names] == [getattr(expected, name) for name in names]
    # What is trained changes what it says.
    assert len({update.consistency_h2 for update in history.values()}) > 1
    for name in names:
        assert logged[name] == pytest.approx(getattr(watch.update, name), abs=1e-7)
    head = watch.update.h2.layer_names[0]
    assert_same(watch.update.h2, by_hand[-1].h2)
    assert head.endswith("head")


def test_bad_callbacks_are_refused(ours):
    h1, (x, y) = classifier(ours), data()
    callback, given = ours.invariance.InvarianceCallback, ours.labelled(x, y)
    for error, message, call in (
        (TypeError, "whose layers can be looked at", lambda: callback(len, given, C4)),
        (TypeError, "TransformSet", lambda: callback(h1, given, ["flip"])),
        (ValueError, "identity", lambda: callback(h1, given, C4[1:])),
        (TypeError, "data", lambda: callback(h1, 3, C4)),
        (TypeError, "an iterator cannot be", lambda: callback(h1, iter(ours.batches(x, y, 7)), C4)),
        (ValueError, "every must be a whole number >= 1", lambda: callback(h1, given, C4, every=0)),
        (TypeError, "confidenc is no option of compare_invariance; perhaps confidence",
         lambda: callback(h1, given, C4, confidenc=0.9)),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            call()
