"""What is compiled when invariance is measured, once, and to the same sums."""

from collections import OrderedDict

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops
from measured import assert_same, definition
from measured_layers import BACKEND, C4, activations, images

from bc_core.invariance import NumpyBackend
from bc_core.invariance._measuring import measures_in
from bc_core.invariance._network import Measurement
from bc_keras.invariance import (
    KerasBackend,
    TransformSet,
    measure,
)
from bc_keras.invariance import _jax_programs as programs
from bc_keras.invariance import _keras_arrays as keras_arrays
from bc_keras.invariance._network import KerasNetwork
from bc_keras.invariance._rows import KerasRows


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
