"""Transformational measures of Keras models, against plain loops over stored activations and closed forms."""

import math
import pickle
import textwrap

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops
from measured import assert_same, definition
from measured_layers import BACKEND, C4, D4, FIVE, activations, images, one_layer, small_net
from warm_programs import run_program

from bc_core.invariance import LayerMeasures, Moments, StreamingMoments, make_tile
from bc_core.invariance._network import Measurement
from bc_core.invariance._rows import Piece
from bc_keras.invariance import (
    KerasBackend,
    KerasSpatial,
    TransformSet,
    gather,
    measure,
)
from bc_keras.invariance import _keras_arrays as keras_arrays
from bc_keras.invariance._network import KerasNetwork

# The numbers.


def test_a_model_that_runs_eagerly_is_measured_as_any():
    net, x = small_net(), images()
    found = measure(net, x, FIVE, batch_size=20, run_eagerly=True)
    assert_same(found, measure(net, x, FIVE, batch_size=20))
    features = found["d"].feature_normalized_variance()
    tv, sv = definition(activations(net, "d", x, FIVE))
    np.testing.assert_allclose(features, tv.mean(axis=(0, 1)) / sv.mean(axis=(0, 1)), rtol=1e-4)
    assert {layer.feature_axis == len(layer.shape) - 1 for layer in found.values()} == {True}


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
    done = run_program("-c", textwrap.dedent(code), cwd=tmp_path)
    assert done.stdout.strip().endswith("same"), done.stderr[-2000:]


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
