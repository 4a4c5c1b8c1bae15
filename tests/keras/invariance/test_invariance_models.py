"""Invariance of models of every kind: nested, shared, recurrent, of several inputs, under other policies."""

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops
from measured import assert_same, definition
from measured_layers import BACKEND, C4, D4, FIVE, activations, images, one_layer, small_net

from bc_core.invariance._measuring import passes
from bc_core.invariance._network import Measurement
from bc_keras.invariance import (
    TransformSet,
    measure,
)
from bc_keras.invariance._network import KerasNetwork
from bc_keras.invariance._rows import KerasRows

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
