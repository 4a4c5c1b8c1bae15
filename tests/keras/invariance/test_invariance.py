"""Transformational measures of Keras models, against plain loops over stored activations and closed forms."""

import math
import pickle
import subprocess
import sys
import textwrap
from collections import OrderedDict

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

from bc_core.invariance import LayerMeasures, Moments, NumpyBackend, StreamingMoments, make_tile
from bc_core.invariance._measuring import measures_in, passes
from bc_core.invariance._network import Measurement
from bc_core.invariance._rows import Piece
from bc_keras.invariance import (
    KerasBackend,
    KerasSpatial,
    TransformSet,
    gather,
    measure,
)
from bc_keras.invariance import _jax_programs as programs
from bc_keras.invariance import _keras_arrays as keras_arrays
from bc_keras.invariance._network import KerasNetwork
from bc_keras.invariance._rows import KerasRows

BACKEND = keras.backend.backend()
D4, C4 = TransformSet.d4(), TransformSet.c4()
FIVE = TransformSet.rotations([0, 30, 90]) | TransformSet.translations([(0, 2), (3, -1)])


@pytest.fixture(autouse=True)
def _seed(request):
    keras.utils.set_random_seed(0)
    if BACKEND != "jax" or request.node.name.startswith("test_every_layer"):
        yield
        return
    import jax

    # Compiling takes longer than everything else here: as fast code is of no use, it need not be that good.
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def images(n=24, channels=1, size=12):
    return np.random.default_rng(1).normal(size=(n, size, size, channels)).astype("float32")


def small_net():
    return keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            L.Conv2D(4, 3, padding="same", name="a"),
            L.ReLU(name="b"),
            L.MaxPooling2D(name="c"),
            L.Dropout(0.5, name="drop"),
            L.Conv2D(6, 3, activation="relu", name="d"),
            L.Flatten(name="flat"),
            L.Dense(5, name="e"),
        ]
    )


def one_layer(layer, size=12, channels=1, *more):
    return keras.Sequential([keras.Input((size, size, channels)), layer, *more])


def activations(net, name, x, transforms):
    """(n, m, ...) of one layer by plain loops over transformations, from a model that ends there."""
    part = keras.Model(net.inputs, net.get_layer(name).output)
    columns = [
        ops.convert_to_numpy(part(transform(x, data_format="channels_last"), training=False))
        for transform in transforms
    ]
    return np.stack(columns, axis=1).astype("float64")


def definition(a, statistic="std"):
    spread = {"std": np.std, "var": np.var}[statistic]
    return spread(a, axis=1, ddof=1).mean(axis=0), spread(a, axis=0, ddof=1).mean(axis=0)


def assert_same(found, expected, rtol=2e-4):
    assert found.layer_names == expected.layer_names
    for name in expected:
        for part in ("tv_std", "tv_var", "sv_std", "sv_var", "between", "mean"):
            # Other batch sizes take other kernels: a few float32 digits.
            np.testing.assert_allclose(
                getattr(found[name], part), getattr(expected[name], part), rtol=rtol, atol=2e-6, err_msg=name
            )


# The numbers.


def test_a_model_that_runs_eagerly_is_measured_as_any():
    net, x = small_net(), images()
    found = measure(net, x, FIVE, batch_size=20, run_eagerly=True)
    assert_same(found, measure(net, x, FIVE, batch_size=20))
    features = found["d"].feature_normalized_variance()
    tv, sv = definition(activations(net, "d", x, FIVE))
    np.testing.assert_allclose(features, tv.mean(axis=(0, 1)) / sv.mean(axis=(0, 1)), rtol=1e-4)
    assert {layer.feature_axis == len(layer.shape) - 1 for layer in found.values()} == {True}


@pytest.mark.skipif(BACKEND != "jax", reason="how XLA takes the sums")
@pytest.mark.parametrize(("rows", "columns"), [(1, 2), (2, 40), (40, 3), (64, 33), (71, 2)])
def test_compiled_sums_are_those_of_numpy(rows, columns):
    import jax

    a = (1e4 + 0.01 * np.random.default_rng(0).normal(size=(rows, columns, 7))).astype(np.float32)
    a[:, :, 3] = 3.25
    expected, found = NumpyBackend(), KerasBackend()
    shift = found.shift(a)
    sums = jax.jit(found.sums)(a, shift)
    for part, reference in zip(sums, expected.sums(a, np.asarray(shift)), strict=True):
        # Up to 71 float32 additions, of numbers of about 0.01.
        np.testing.assert_allclose(part, reference, rtol=1e-5, atol=1e-6)
        assert (np.asarray(part)[..., 3] == 0).all()


@pytest.fixture
def given_to_xla(monkeypatch):
    """The tiles and shifts that XLA is given, as they are traced."""
    given, sums = [], keras_arrays._sums_by_xla

    def noted(tile, shift):
        given.append((tile, shift))
        return sums(tile, shift)

    monkeypatch.setattr(keras_arrays, "_sums_by_xla", noted)
    keras_arrays._compiled_for_tensorflow.cache_clear()
    yield given
    keras_arrays._compiled_for_tensorflow.cache_clear()


@pytest.mark.skipif(BACKEND != "tensorflow", reason="what TensorFlow leaves to XLA")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("rows", "columns"), [(1, 2), (25, 8), (31, 3), (34, 2), (3, 40)])
def test_sums_by_xla_are_those_of_numpy(monkeypatch, given_to_xla, rows, columns, dtype):
    import tensorflow as tf

    monkeypatch.setattr(keras_arrays, "_XLA_TILE", 1)
    monkeypatch.setattr(keras_arrays, "_XLA_PASS", 1)
    monkeypatch.setattr(keras_arrays, "_CHAIN", 40)
    a = (1e4 + 0.01 * np.random.default_rng(0).normal(size=(rows, columns, 7))).astype(dtype)
    a[:, :, 3] = 3.25
    a[0, -1, 5] = np.nan
    expected, found = NumpyBackend(), KerasBackend()
    shift = ops.convert_to_numpy(found.shift(ops.convert_to_tensor(a)))
    shift[:, 5] = 0
    packed = tf.function(lambda tile, shift: found.packed(tile, shift, samples=rows))(a, shift)
    assert len(given_to_xla) == 1
    sums = keras_arrays.unpacked(packed)
    for part, reference in zip(sums, expected.sums(a, shift), strict=True):
        # Up to 34 float32 additions, of numbers of about 0.01.
        np.testing.assert_allclose(part, reference, rtol=1e-5, atol=1e-6)
        assert (np.asarray(part)[..., 3] == 0).all()
    assert np.isnan(sums.row_std[5])


@pytest.mark.skipif(BACKEND != "tensorflow", reason="what TensorFlow leaves to XLA")
@pytest.mark.parametrize("has_xla", [True, False])
def test_whole_passes_with_xla_and_without_are_the_definition(monkeypatch, given_to_xla, has_xla):
    monkeypatch.setattr(keras_arrays, "_XLA_TILE", 1)
    monkeypatch.setattr(keras_arrays, "_XLA_PASS", 1)
    monkeypatch.setattr(keras_arrays, "_has_xla", lambda: has_xla)
    # A shift matters where a mean is large and a spread small.
    far, back = L.Rescaling(0.01, 1e4, name="far"), L.Rescaling(1, -1e4)
    net = keras.Sequential([keras.Input((12, 12, 1)), far, back, L.Conv2D(4, 3), L.ReLU(), L.Flatten(), L.Dense(3)])
    x = images(25)
    network = KerasNetwork(net, "model", Measurement(C4))
    # Two passes: in the second, shifts come from the first samples alone, and the rest is compiled too.
    for _ in range(2):
        for layer in measures_in(network, KerasRows(x, 6))[0]:
            tv, sv = definition(activations(net, layer.name, x, C4))
            np.testing.assert_allclose(layer.transformation_variance(), tv, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(layer.sample_variance(), sv, rtol=1e-4, atol=1e-6)
    assert bool(given_to_xla) == has_xla


@pytest.mark.skipif(BACKEND != "tensorflow", reason="what TensorFlow leaves to XLA")
def test_xla_takes_the_sums_of_large_layers_in_long_passes(given_to_xla):
    # 81 x 81 positions: more than 2^18 entries in 10 samples under 4 transformations, and 2^25 in 1,300.
    net = keras.Sequential(
        [keras.Input((81, 81, 1)), L.Rescaling(2, name="large"), L.AveragePooling2D(9, name="small")]
    )
    x = np.broadcast_to(images(1, size=81), (1300, 81, 81, 1))
    measure(net, x[:100], C4, batch_size=40)
    measure(net, iter([x[:100]]), C4, batch_size=40)
    assert not given_to_xla
    result = measure(net, x, C4, batch_size=40)
    assert [tuple(tile.shape) for tile, _ in given_to_xla] == [(10, 4, 81 * 81)]
    assert result["large"].sample_variance().max() == 0
    tv = definition(activations(net, "large", x[:1], C4))[0]
    np.testing.assert_allclose(result["large"].transformation_variance(), tv, rtol=1e-5)


class Debugged(L.Layer):
    """One that can be looked into only where it is run operation by operation."""

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)

    def call(self, x):
        return x + float(ops.convert_to_numpy(x).sum() * 0)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a switch of TensorFlow")
def test_functions_that_are_run_eagerly_are_not_compiled():
    import tensorflow as tf

    net, x = keras.Sequential([keras.Input((12, 12, 1)), Debugged()]), images()
    tf.config.run_functions_eagerly(True)
    try:
        found = measure(net, x, C4, batch_size=8)
    finally:
        tf.config.run_functions_eagerly(False)
    assert_same(found, measure(keras.Sequential([keras.Input((12, 12, 1)), L.Rescaling(1, name="debugged")]), x, C4))


@pytest.mark.parametrize("units", [53, 64])
def test_blocks_of_units_are_put_together(monkeypatch, units):
    monkeypatch.setattr(keras_arrays, "_block", lambda: 15 * 8)
    monkeypatch.setattr("bc_core.invariance._accumulator._LEAST_ROWS", 2)  # of three, where numbers are at hand
    monkeypatch.setattr(keras_arrays, "_SMALL", 1)
    monkeypatch.setattr(keras_arrays, "_chains", lambda tile: False)
    net = one_layer(L.Flatten(), 8, 1, L.Dense(units, name="fc"))
    x = images(24, size=8)
    found = measure(net, x, TransformSet.rotations([0, 20, 40, 60, 80]), batch_size=15)
    monkeypatch.undo()
    assert_same(found, measure(net, x, TransformSet.rotations([0, 20, 40, 60, 80])))


def test_keras_transforms_to_the_numbers_of_numpy():
    x = images(3, channels=2, size=9)
    everything = FIVE | TransformSet.rolls([(2, 3)]) | TransformSet.scales([0.7, 1.4]) | D4
    for data_format in ("channels_last", "channels_first"):
        given = x if data_format == "channels_last" else np.ascontiguousarray(x.transpose(0, 3, 1, 2))
        expected = make_tile(everything, given, data_format=data_format)
        found = make_tile(everything, ops.convert_to_tensor(given), data_format=data_format, ops=KerasSpatial())
        np.testing.assert_allclose(ops.convert_to_numpy(found), expected, atol=1e-6)


# Closed forms.


def test_sum_of_a_sample_and_a_transformation_effect():
    rng = np.random.default_rng(0)
    alpha, beta = rng.normal(size=400), rng.normal(size=6)
    shifts = TransformSet.from_functions([(f"+{b:.2f}", lambda x, b=float(b): x + b) for b in beta], identity=False)
    net = keras.Sequential([keras.Input((1,)), L.Activation("linear", name="same"), L.Rescaling(-3.0, 2.0, name="af")])
    result = measure(net, alpha[:, None], shifts, layers=["same", "af"])
    expected = beta.std(ddof=1) / alpha.std(ddof=1)
    assert result["same"].summary() == pytest.approx(expected, rel=1e-5)
    # NV(c a + d) = NV(a)
    assert result["af"].summary() == pytest.approx(expected, rel=1e-5)
    # The transposed matrix has the reciprocal.
    columns = TransformSet.from_functions(
        [(str(i), lambda x, a=float(a): x + a) for i, a in enumerate(alpha[:50])], identity=False
    )
    turned = measure(net, beta[:, None], columns, layers=["same"])
    straight = beta.std(ddof=1) / alpha[:50].std(ddof=1)
    assert turned["same"].summary() == pytest.approx(1 / straight, rel=1e-5)


def test_unrelated_activations_and_the_bias_of_the_standard_deviation():
    def c4(n):
        return math.sqrt(2 / (n - 1)) * math.exp(math.lgamma(n / 2) - math.lgamma((n - 1) / 2))

    n, m, units = 40, 4, 3000
    a = np.random.default_rng(0).normal(size=(n, m, units)).astype("float32")
    columns = TransformSet.from_functions(
        [(str(j), lambda x, j=j: ops.reshape(x, (-1, m, units))[:, j] * np.ones((1, 1), "float32")) for j in range(m)],
        identity=False,
    )
    with pytest.raises(ValueError, match="keep the shape"):
        measure(keras.Sequential([keras.Input((m * units,)), L.Activation("linear")]), a.reshape(n, -1), columns)
    moments = StreamingMoments(m, KerasBackend())
    moments.update(ops.convert_to_tensor(a.reshape(n * m, units)), n)
    layer = LayerMeasures.from_moments(moments.moments(), shape=(units,))
    # The mean of 3000 ratios scatters by about 0.3 %.
    assert layer.summary("std") == pytest.approx(c4(m) / c4(n), abs=0.01)
    assert layer.summary("var") == pytest.approx(1, abs=0.02)


class Circular(L.Layer):
    """Pads what comes in by what is on the other side."""

    def call(self, x):
        x = ops.concatenate([x[:, -1:], x, x[:, :1]], axis=1)
        return ops.concatenate([x[:, :, -1:], x, x[:, :, :1]], axis=2)


def test_same_equivariance_under_rolls_and_pooling():
    x = images(20)
    rolls = TransformSet.rolls([(0, 0), (2, 4), (6, 8), (4, 0)])
    net = one_layer(Circular(name="pad"), 12, 1, L.Conv2D(4, 3, name="c"), L.MaxPooling2D(name="p"))
    result = measure(net, x, rolls, same_equivariance=True, layers=["c", "p"])
    assert result["c"].summary() < 1e-6
    # Rolls of even numbers of pixels are whole on the pooled map: shifts shrink with it.
    assert result["p"].summary() < 1e-6
    zeros = measure(one_layer(L.Conv2D(4, 3, padding="same", name="c")), x, rolls, same_equivariance=True)
    assert 0.05 < zeros["c"].summary() < 0.6


# Shares of the data.


def test_shares_merge_to_the_result_of_all_samples():
    net, x = small_net(), images(30)
    shares = [gather(net, part, FIVE, batch_size=15) for part in (x[:6], x[6:18], x[18:])]
    shares[1] = pickle.loads(pickle.dumps(shares[1]))
    merged = shares[0].merge(shares[1]).merge(shares[2])
    assert merged.samples == 30
    assert_same(merged.result(), measure(net, x, FIVE))
    # Merging itself is exact: it does not matter where the data were cut.
    other = gather(net, x[:9], FIVE, batch_size=15).merge(gather(net, x[9:], FIVE, batch_size=15))
    assert isinstance(merged.moments["e"], Moments)
    np.testing.assert_allclose(merged.moments["e"].row_var, other.moments["e"].row_var, rtol=1e-5)
    with pytest.raises(ValueError, match="same transformations"):
        shares[0].merge(gather(net, x, C4))


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.distribute")
def test_a_model_on_several_replicas_is_measured_as_any(tmp_path):
    code = """
        import numpy as np, tensorflow as tf, keras
        from bc_keras.invariance import TransformSet, measure
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        def net():
            keras.utils.set_random_seed(0)
            layers = [keras.layers.Conv2D(3, 3, name="c"), keras.layers.BatchNormalization(name="n")]
            return keras.Sequential([keras.Input((8, 8, 1)), *layers])
        with strategy.scope():
            mirrored = net()
        x = np.random.default_rng(0).normal(size=(20, 8, 8, 1)).astype("float32")
        a, b = (measure(each, x, TransformSet.c4()) for each in (mirrored, net()))
        with strategy.scope():
            c = measure(mirrored, x, TransformSet.c4())
        for name in b:
            assert np.allclose(a[name].tv_std, b[name].tv_std, rtol=1e-5), name
            assert np.allclose(c[name].tv_std, b[name].tv_std, rtol=1e-5), name
        print("same")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=200, cwd=tmp_path
    )
    assert done.stdout.strip().endswith("same"), done.stderr[-2000:]


# Models.


class Block(L.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv, self.act = L.Conv2D(1, 3, padding="same", name="conv"), L.ReLU(name="act")

    def call(self, x):
        return self.act(x + self.act(self.conv(x)))


class Pair(L.Layer):
    def call(self, x):
        return {"mean": ops.mean(x, axis=(1, 2)), "both": (x, x[..., 0])}


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="subclassed")
        self.block, self.pair, self.drop = Block(name="block"), Pair(name="pair"), L.Dropout(0.5)
        self.inner = keras.Sequential([L.Dense(4, activation="relu", name="d"), L.Dense(3, name="out")], name="inner")
        self.unused = L.Dense(3, name="unused")

    def call(self, x, training=None):
        parts = self.pair(self.block(x))
        return ops.softmax(self.inner(self.drop(parts["mean"], training=training)))


def test_subclassed_nested_reused_and_structured_layers():
    net, x = Subclassed(), images(20)
    result = measure(net, x, C4, batch_size=16)  # not built yet
    assert result.layer_names == (
        "block/conv",
        "block/act",
        "block/act:2",
        "pair[mean]",
        "pair[both][1]",
        "inner/d",
        "inner/out",
        "(output)",
    )
    assert result.left_out["block"] == "returns what 'block/act:2' returned"
    assert result.left_out["pair[both][0]"] == "returns what 'block/act:2' returned"
    assert result.left_out["inner"] == "returns what 'inner/out' returned"
    turned = C4[1](x, data_format="channels_last")
    outputs = np.stack([ops.convert_to_numpy(net(part, training=False)) for part in (x, turned)], axis=1)
    found = measure(net, x, C4[:2])["(output)"]
    np.testing.assert_allclose(found.transformation_variance(), outputs.std(axis=1, ddof=1).mean(axis=0), rtol=1e-4)
    assert result["(output)"].shape == (3,)


def test_functional_models_in_models_and_operations():
    inner_in = keras.Input((6, 6, 2))
    inner = keras.Model(inner_in, L.Conv2D(2, 1, name="conv")(inner_in), name="inner")
    given = keras.Input((6, 6, 2))
    shared = L.Activation("tanh", name="tanh")
    y = shared(inner(given))
    y = ops.relu(shared(inner(y)) + y)
    net = keras.Model(given, L.GlobalMaxPooling2D(name="pool")(y))
    result = measure(net, images(20, 2, 6), D4)
    assert result.layer_names == ("inner/conv", "tanh", "inner/conv:2", "tanh:2", "pool")
    assert result["pool"].summary() < 1e-6


def test_recurrent_and_attention_layers_count_as_one():
    given = keras.Input((5, 3))
    y = L.LSTM(4, return_sequences=True, name="lstm")(given)
    y = L.MultiHeadAttention(2, 2, name="attention")(y, y)
    net = keras.Model(given, L.TimeDistributed(L.Dense(2), name="each")(y))
    x = np.random.default_rng(0).normal(size=(12, 5, 3)).astype("float32")
    reverse = TransformSet.from_functions([("backwards", lambda x: ops.flip(x, axis=1), lambda x: ops.flip(x, axis=1))])
    result = measure(net, x, reverse)
    assert result.layer_names == ("lstm", "attention", "each")
    assert result["lstm"].shape == (5, 4)
    assert result["lstm"].features == 4
    # Attention without positions moves as its input does.
    alone = keras.Model(given, L.MultiHeadAttention(2, 2, name="attention")(given, given))
    assert measure(alone, x, reverse, same_equivariance=True)["attention"].summary() < 1e-5


class Loop(L.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.cell = L.Dense(4, name="cell")

    def build(self, shape):
        self.cell.build((None, 4))
        self.built = True

    def call(self, x):
        return ops.fori_loop(0, 3, lambda i, value: self.cell(value), x)


def test_a_loop_of_ones_own_is_measured_as_a_whole():
    given = keras.Input((4,))
    net = keras.Model(given, L.Dense(2, name="d")(Loop(name="loop")(given)))
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    result = measure(net, x, TransformSet.from_functions({"negated": lambda x: -x}), batch_size=16)
    last = "loop/cell:3" if BACKEND == "torch" else "loop"
    assert {last, "d"} <= set(result)
    spread = ops.convert_to_numpy(ops.abs(net.get_layer("loop")(x) - net.get_layer("loop")(-x))) / np.sqrt(2)
    np.testing.assert_allclose(result[last].transformation_variance(), spread.mean(axis=0), rtol=1e-4)


@pytest.mark.parametrize("mode", ["full", "activations", "larger_than", "list_of_layers"])
def test_models_that_recompute_for_gradients_are_measured_as_any(mode):
    def net():
        keras.utils.set_random_seed(0)
        given = keras.Input((12, 12, 1))
        y = ops.relu(L.Conv2D(3, 3, activation="tanh", name="c")(given)) + 1
        inner = keras.Sequential([keras.Input((10, 10, 3)), L.Flatten(name="flat"), L.Dense(2, name="d")], name="inner")
        return keras.Model(given, inner(y))

    with keras.RematScope(mode=mode, output_size_threshold=10, layer_names=["c", "d"]):
        recomputing = net()
    assert recomputing.get_layer("c")._remat_mode.mode == mode
    found, expected = (measure(each, images(), C4, batch_size=32) for each in (recomputing, net()))
    assert found.layer_names == ("c", "inner/flat", "inner/d")
    assert_same(found, expected)
    assert recomputing.get_layer("c")._remat_mode.mode == mode


def test_layers_that_are_not_called_cannot_be_chosen():
    with pytest.raises(ValueError, match="'unused' was not called"):
        measure(Subclassed(), images(), C4, layers=["unused"])


def test_the_model_is_as_before_also_after_an_error():
    class Fails(L.Layer):
        armed = False

        def call(self, x):
            if self.armed and x.shape[0] != 4:
                raise RuntimeError("out of order")
            return x + 1

    net = one_layer(L.Dropout(0.5, name="drop"), 12, 1, Fails(name="fails"))
    Fails.armed = True
    before = [dict(layer.__dict__) for layer in net._flatten_layers()]
    with pytest.raises(RuntimeError, match="out of order"):
        measure(net, images(), C4)
    for layer, entries in zip(net._flatten_layers(), before, strict=True):
        assert "call" not in layer.__dict__
        assert set(layer.__dict__) == set(entries)
    trained = small_net()
    state = [ops.convert_to_numpy(v) for v in trained.variables]
    measure(trained, images(), FIVE)
    for variable, value in zip(trained.variables, state, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)
    trained.compile("sgd", "mse")
    trained.fit(images(8), np.zeros((8, 5)), verbose=0)
    assert "call" not in trained.get_layer("a").__dict__


class Scaled(L.Layer):
    """With a number that is a part of the program, and one that is a constant of it."""

    factor, constant = 1.0, np.ones((1, 3), "float32")

    def call(self, x):
        return self.factor * x * self.constant


@pytest.mark.skipif(BACKEND != "jax", reason="what is compiled once")
def test_a_program_is_compiled_once_and_a_changed_model_is_another_one(monkeypatch):
    compiled = []
    monkeypatch.setattr(programs, "_MOST", 3)

    class Kept(OrderedDict):
        def __setitem__(self, key, value):
            compiled.append(key)
            super().__setitem__(key, value)

    monkeypatch.setattr(programs, "_kept", Kept())
    x = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
    negated = TransformSet.from_functions({"negated": lambda x: -x})

    def net():
        return keras.Sequential([keras.Input((4,)), L.Dense(3), Scaled()])

    def tv(model):
        layer = list(measure(model, x, negated).values())[-1]
        plain = ops.convert_to_numpy(model(x))
        turned = ops.convert_to_numpy(model(-x))
        expected = np.stack([plain, turned]).std(axis=0, ddof=1).mean(axis=0)
        np.testing.assert_allclose(layer.transformation_variance(), expected, rtol=1e-5)

    first, second = net(), net()
    tv(first)
    assert len(compiled) == 1
    tv(first)
    tv(second)  # other weights, other names
    assert len(compiled) == 1
    first.layers[-1].factor = 2.0
    tv(first)
    assert len(compiled) == 2
    first.layers[-1].constant = np.full((1, 3), 5, "float32")
    tv(first)
    first.layers[0].activation = keras.activations.relu
    tv(first)
    assert len(compiled) == 4
    assert len(programs._kept) == 3


@pytest.mark.skipif(BACKEND != "jax", reason="what is compiled once")
def test_a_program_that_calls_python_is_no_other_ones(monkeypatch):
    import jax

    monkeypatch.setattr(programs, "_kept", OrderedDict())

    def calling(function):
        return lambda x: jax.pure_callback(function, jax.ShapeDtypeStruct((), "float32"), x)

    one = ops.convert_to_tensor(1.0)
    assert programs.Program(calling(lambda x: np.float32(x + 1)))(one) == 2
    assert programs.Program(calling(lambda x: np.float32(x + 2)))(one) == 3
    assert not programs._kept


def test_weights_that_change_are_seen():
    net, x = one_layer(L.Conv2D(2, 3, name="c")), images()
    network = KerasNetwork(net, "model", Measurement(C4))
    means = []
    for factor in (1.0, 3.0):
        net.get_layer("c").set_weights([factor * np.ones((3, 3, 1, 2)), np.zeros(2)])
        for layer, _, moments in passes(network, KerasRows(x, 3)):
            if layer.name == "c":
                means.append(moments.row_std)
    np.testing.assert_allclose(means[1], 3 * means[0], rtol=1e-5)


def test_layers_under_other_policies():
    given = keras.Input((12, 12, 1), dtype="float32")
    y = L.Conv2D(4, 3, dtype="mixed_bfloat16", name="half")(given)
    net = keras.Model(given, L.GlobalAveragePooling2D(dtype="float64", name="double")(y))
    result = measure(net, images(), C4)
    assert result.layer_names == ("half", "double")
    a = activations(net, "double", images(), C4)
    np.testing.assert_allclose(result["double"].transformation_variance(), definition(a)[0], rtol=0.05)


def test_dead_units_poison_nothing():
    net = one_layer(L.Conv2D(2, 1, activation="relu", name="c"))
    net.get_layer("c").set_weights([np.array([[[[0.0, 1.0]]]]), np.zeros(2)])
    layer = measure(net, images(), C4)["c"]
    assert layer.dead_fraction == 0.5
    assert np.isnan(layer.normalized_variance()[..., 0]).all()
    assert 0 < layer.summary(how="mean_of_ratios") < 2


def test_layers_that_only_some_samples_reach_are_left_out():
    class Sometimes(keras.Model):
        def __init__(self):
            super().__init__()
            self.always, self.rarely, self.calls = L.Dense(2, name="always"), L.Dense(2, name="rarely"), 0

        def call(self, x):
            self.calls += 1
            y = self.always(x)
            return y if self.calls % 2 else self.rarely(y)

    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    twice = TransformSet.from_functions({"twice": lambda x: 2 * x})
    net = Sometimes()
    net(x)
    result = measure(net, x, twice, batch_size=4, run_eagerly=True)
    assert "always" in result
    if BACKEND != "jax":  # where run_eagerly means eager on the first look, too
        assert "of 8 samples only" in result.left_out.get("rarely", "of 8 samples only")


# Data.


class Pieces(keras.utils.PyDataset):
    def __init__(self, x):
        super().__init__()
        self.x = x

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return self.x[index * 8 : (index + 1) * 8], np.zeros(8)


def test_data_of_every_kind():
    # One small layer: what is compiled on JAX each time takes longer than everything else.
    net, x = one_layer(L.Conv2D(1, 1, strides=6, name="c")), images()
    y = np.arange(24) % 5
    expected = measure(net, x, C4)
    kinds = [
        x.astype("float64"),
        ops.convert_to_tensor(x),
        (x, y),
        (x, y, np.ones(24)),
        Pieces(x),
        [(x[:9], y[:9]), (x[9:], y[9:])],
        [x[:10], x[10:]],
        iter([x[:10], x[10:]]),
    ]
    if BACKEND == "tensorflow":
        import tensorflow as tf

        both = tf.data.Dataset.from_tensor_slices((x, y))
        kinds += [both.shuffle(24).batch(7), both.batch(7).map(lambda x, y: x)]
        with pytest.raises(ValueError, match="must end"):
            measure(net, both.batch(4).repeat(), C4)
        with pytest.raises(ValueError, match="batch"):
            measure(net, tf.data.Dataset.range(4), C4)
    if BACKEND == "torch":
        import torch

        kinds.append(torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.tensor(x)), batch_size=5))
    for kind in kinds:
        assert_same(measure(net, kind, C4), expected)
    batches = [{"image": x[:11], "label": y[:11]}, {"image": x[11:], "label": y[11:]}]
    assert_same(measure(net, batches, C4, inputs="image"), expected)
    assert_same(measure(net, [("id", x)], C4, inputs=1), expected)
    assert_same(measure(net, [x / 2], C4, inputs=lambda batch: batch * 2), expected)


def test_models_of_several_inputs():
    image, number = keras.Input((12, 12, 1), name="image"), keras.Input((3,), name="number")
    pooled = L.GlobalMaxPooling2D(name="pool")(L.Conv2D(3, 1, name="conv")(image))
    net = keras.Model({"image": image, "number": number}, L.Add(name="add")([pooled, number]))
    x = {"image": images(), "number": np.random.default_rng(0).normal(size=(24, 3)).astype("float32")}
    for data in (x, (x, np.zeros(24)), [({name: part[:9] for name, part in x.items()}, np.zeros(9)), x]):
        result = measure(net, data, D4)
        assert result["pool"].summary() == 0
        assert result["add"].summary() == 0
    negated = TransformSet.from_functions({"negated": lambda x: -x})
    result = measure(net, x, negated, transformed="number")
    assert result["conv"].summary() == 0
    assert result["add"].summary() > 0.1
    with pytest.raises(ValueError, match="transformed must name"):
        measure(net, x, negated, transformed="sound")
    two = keras.Model([number, keras.Input((2,))], number * 1)
    with pytest.raises(ValueError, match="say which one"):
        measure(two, [([np.ones((4, 3)), np.ones((4, 2))],)], negated)


def test_images_with_channels_first():
    class Negated(L.Layer):
        def call(self, x):
            return -x[:, :, :, 1:]

    net = keras.Sequential([keras.Input((2, 6, 6)), Negated(name="n")])
    x = images(20, 2, 6).transpose(0, 3, 1, 2)
    result = measure(net, x, TransformSet.flips(), data_format="channels_first")
    assert result["n"].features == 2
    tile = np.stack([x, x[..., ::-1]], axis=1)[:, :, :, :, 1:]
    np.testing.assert_allclose(result["n"].transformation_variance(), definition(tile)[0], rtol=1e-5)


def test_bad_input_is_refused():
    net, x = small_net(), images()
    for error, message, call in (
        (TypeError, "Keras model", lambda: measure(lambda x: x, x, C4)),
        (ValueError, "data_format", lambda: measure(net, x, C4, data_format="last")),
        (TypeError, "data must be", lambda: measure(net, 3, C4)),
        (ValueError, "inputs='image'", lambda: measure(net, {"image": x, "label": np.ones(len(x))}, C4)),
        (ValueError, "inputs='image'", lambda: measure(one_layer(L.ReLU()), [{"image": x, "label": x[:, 0]}], C4)),
    ):
        with pytest.raises(error, match=message):
            call()
    table = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
    flat = keras.Sequential([keras.Input((3,)), L.Dense(2)])
    both_ways = TransformSet.from_functions([("minus", lambda x: -x, lambda x: -x)])
    assert measure(flat, table, both_ways).samples == 6


def test_memory_is_bounded_by_splitting_layers():
    net, x = small_net(), images()
    network = KerasNetwork(net, "model", Measurement(C4, max_memory=60_000))
    network.prepare(Piece(x[:2], 2))
    assert [[layer.name for layer in group] for group in network.groups] == [["a"], ["b"], ["c", "d", "e"]]
    assert_same(measure(net, x, C4, max_memory=60_000), measure(net, x, C4))
