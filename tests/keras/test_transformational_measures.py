"""The older package's names: the same numbers as bc_keras.invariance, and none of its faults."""

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

from bc_keras.invariance import TransformSet, measure
from bc_keras.transformational_measures import (
    GROUPS,
    Analyzer,
    Cifar10DataSet,
    DataSet,
    FeaturesVariance,
    Graphs,
    Iterator,
    MnistDataSet,
    Model,
    NormalizedFeaturesVariance,
    NormalizedSameEquivariance,
    NormalizedVariance,
    SameEquivariance,
    TransformationsDataSet,
    Variance,
    cifar10_transformations,
    mnist_transformations,
)

BACKEND = keras.backend.backend()
C4 = TransformSet.c4()


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


def net(size=8):
    return keras.Sequential(
        [
            keras.Input((size, size, 1)),
            L.Conv2D(3, 3, activation="relu", name="conv"),
            L.GlobalAveragePooling2D(name="pool"),
            L.Dense(4, activation="softmax", name="head"),
        ]
    )


def images(n=20, size=8):
    return np.random.default_rng(1).normal(size=(n, size, size, 1)).astype("float32")


class Matrix(DataSet):
    """A matrix that is simply there."""

    def __init__(self, values):
        self.values = values

    def get_data_shape(self):
        return self.values.shape[2:]

    def get_height(self):
        return len(self.values)

    def get_width(self):
        return self.values.shape[1]

    def get_matrix(self, rows, columns):
        return self.values[np.ix_(rows, columns)]


def test_predict_returns_the_activations_of_a_matrix():
    plain, x = net(), images(6)
    model = Model(model_keras=plain)
    block = model.predict(x.reshape(2, 3, 8, 8, 1))
    assert (block.height, block.width) == (2, 3)
    conv = keras.Model(plain.inputs, plain.get_layer("conv").output)
    expected = ops.convert_to_numpy(conv(x, training=False)).reshape(2, 3, 6, 6, 3)
    np.testing.assert_allclose(block[1, 2, 0], expected[1, 2], atol=1e-6)
    np.testing.assert_allclose(block[1, 2, "conv", 1], expected[1, 2, :, :, 1], atol=1e-6)
    np.testing.assert_allclose(block[:, 0, 0], expected[:, 0], atol=1e-6)
    assert block[0, 0, "head"].shape == (4,)
    structure = model.structure()
    assert structure.names == model.layer_names() == ("conv", "pool", "head")
    assert structure["conv"].size == structure[0].size == 108
    assert structure["conv"].features == 3
    assert (model.size_layers(), model.size_activations()) == (3, 115)
    assert model.size_activations_layers() == [108, 3, 4]
    with pytest.raises(KeyError, match="indexed"):
        block[0, 0]
    with pytest.raises(ValueError, match="matrix of inputs"):
        model.predict(x[0, :, 0, 0])


def test_a_model_from_a_file(tmp_path):
    plain, x = net(), images(6)
    plain.save(tmp_path / "model.keras")
    loaded = Model(path=tmp_path / "model.keras").predict(x[None])
    np.testing.assert_allclose(loaded[0, 3, "head"], Model(plain).predict(x[None])[0, 3, "head"], atol=1e-6)
    with pytest.raises(TypeError, match="Give the model"):
        Model()
    with pytest.raises(TypeError, match="Keras model"):
        Model(model_keras=3)
    unknown = keras.Sequential([L.Dense(2)])
    with pytest.raises(ValueError, match="call predict once"):
        Model(unknown).structure()


def test_blocks_cover_the_matrix():
    data = TransformationsDataSet(images(7), C4)
    iterator = Iterator(net(), data)
    whole = iterator.get_model().predict(data.get_matrix(range(7), range(4)))
    rows = []
    for height, blocks in iterator.get_block(3, 3):
        parts = []
        for width, block in blocks:
            assert (block.height, block.width) == (height, width)
            parts.append(block[:, :, "head"])
        rows.append(np.concatenate(parts, axis=1))
    np.testing.assert_allclose(np.concatenate(rows), whole[:, :, "head"], atol=1e-6)
    with pytest.raises(ValueError, match="one row"):
        next(iterator.get_block(0, 3))


def test_the_measures_are_those_of_invariance():
    plain, x = net(), images()
    iterator = Iterator(Model(plain), TransformationsDataSet(x, C4))
    straight = measure(plain, x, C4)
    turned_back = measure(plain, x, C4, same_equivariance=True)
    for kind, statistic, result, method in (
        (Variance, "var", straight, "transformation_variance"),
        (NormalizedVariance, "std", straight, "normalized_variance"),
        (FeaturesVariance, "std", straight, "feature_transformation_variance"),
        (NormalizedFeaturesVariance, "var", straight, "feature_normalized_variance"),
        (SameEquivariance, "std", turned_back, "transformation_variance"),
        (NormalizedSameEquivariance, "var", turned_back, "normalized_variance"),
    ):
        values = kind(iterator, statistic=statistic).compute()
        assert values.name == kind.__name__
        assert len(values) == len(result)
        for number, (name, layer) in enumerate(result.items()):
            expected = getattr(layer, method)(statistic)
            np.testing.assert_allclose(values[name], expected, rtol=2e-4, atol=1e-6, equal_nan=True)
            np.testing.assert_array_equal(values[number], values[name])


def test_neither_blocks_nor_an_earlier_measure_matter():
    data = TransformationsDataSet(images(), C4)
    iterator = Iterator(net(), data)
    first = NormalizedVariance(batch_size=8).compute(iterator)
    Variance().compute(iterator)
    second = NormalizedVariance(batch_size=100).compute(iterator)
    assert (data.get_height(), data.get_width()) == (20, 4)
    for name in first.units:
        np.testing.assert_allclose(second[name], first[name], rtol=2e-4)


def test_the_transposed_data_set_has_the_reciprocal():
    plain, data = net(), TransformationsDataSet(images(), C4)
    turned = data.transpose()
    assert (turned.get_height(), turned.get_width()) == (4, 20)
    assert turned.transpose() is data
    np.testing.assert_array_equal(turned.get_matrix([1, 2], [5]), data.get_matrix([5], [1, 2]).swapaxes(0, 1))
    straight, other = (NormalizedVariance().compute(Iterator(plain, each)) for each in (data, turned))
    # The same through a data set that knows nothing of transformations.
    matrix = Matrix(turned.get_matrix(range(4), range(20)))
    as_matrix = NormalizedVariance().compute(Iterator(plain, matrix))
    for name in straight.units:
        np.testing.assert_allclose(other[name], 1 / straight[name], rtol=1e-6)
        np.testing.assert_allclose(as_matrix[name], other[name], rtol=1e-3)
    with pytest.raises(ValueError, match="inverse"):
        SameEquivariance().compute(Iterator(plain, matrix))
    with pytest.raises(TypeError, match="Iterator"):
        Variance().compute()
    with pytest.raises(TypeError, match="DataSet"):
        Iterator(plain, images())


def test_groups_of_transformations():
    sizes = {"identity": 1, "rotations": 8, "x": 5, "y": 5, "xy": 25, "rotation_x": 40, "rotation_y": 40}
    for transformations in (mnist_transformations, cifar10_transformations):
        assert {name: len(transformations(name)) for name in GROUPS} == sizes
        assert all(transformations(name).has_inverses for name in GROUPS)
        assert all(transformations(name).identity_index == 0 for name in GROUPS)
    with pytest.raises(ValueError, match="group must be one of"):
        mnist_transformations("shear")
    with pytest.raises(ValueError, match="reach"):
        mnist_transformations("x", reach=0)
    # x goes right and y down, in images of which the first axis is down.
    spot = np.zeros((1, 28, 28))
    spot[0, 10, 20] = 1
    data = MnistDataSet("x", x=spot)
    assert np.argwhere(data.get_matrix([0], [4])[0, 0, :, :, 0]).tolist() == [[10, 24]]
    data.set_group("y")
    assert np.argwhere(data.get_matrix([0], [4])[0, 0, :, :, 0]).tolist() == [[14, 20]]
    data.set_group("rotations")
    assert data.transforms.sizes[2] == 90  # degrees
    turned = data.get_matrix([0], [2])
    assert np.argwhere(turned[0, 0, :, :, 0]).tolist() == [[7, 10]]
    np.testing.assert_array_equal(data.inverse(turned[:, 0], 2)[0, :, :, 0], spot[0])
    # A shift of 4 pixels of the input is one of 2 on a map of half the size.
    data.set_group("x")
    small = np.zeros((1, 14, 14, 2))
    small[0, 5, 8, 1] = 1
    assert np.argwhere(data.inverse(small, 4)[0, :, :, 1]).tolist() == [[5, 6]]
    colours = Cifar10DataSet("rotations", x=np.full((3, 32, 32, 3), 255, "uint8"), y=[[0], [1], [2]], samples=2)
    assert colours.get_matrix([0], [0]).max() == 1
    assert colours.y.tolist() == [0, 1]
    with pytest.raises(ValueError, match="group must be one of"):
        MnistDataSet("all", x=spot)
    with pytest.raises(ValueError, match="one class for each"):
        TransformationsDataSet(images(3), C4, [1, 2])
    with pytest.raises(TypeError, match="TransformSet"):
        TransformationsDataSet(images(3), {"a": 3})


def test_accuracy_against_a_measure(tmp_path):
    plain, x = net(), images()
    y = np.random.default_rng(0).integers(4, size=20)
    data = TransformationsDataSet(x, C4, y)
    model = Model(plain)
    predicted = np.stack(
        [ops.convert_to_numpy(plain(t(x, data_format="channels_last"), training=False)).argmax(axis=1) for t in C4],
        axis=1,
    )
    assert model.evaluate(data, batch_size=12) == pytest.approx((predicted == y[:, None]).mean())
    assert model.evaluate(x, y) == pytest.approx((predicted[:, 0] == y).mean())
    with pytest.raises(ValueError, match="needs classes"):
        model.evaluate(x)
    groups = {"none": TransformSet.identity(), "half": C4[:2], "all": C4}
    analyzer = Analyzer(model, x, y, groups, NormalizedVariance(statistic="std"))
    rows = analyzer.compute()
    assert [(row.group, row.transformations) for row in rows] == [("none", 1), ("half", 2), ("all", 4)]
    assert rows[2].accuracy == model.evaluate(data)
    assert rows[0].values is None
    expected = measure(plain, x, C4)
    assert rows[2].value == pytest.approx(np.mean([layer.summary() for layer in expected.values()]), rel=1e-3)
    pytest.importorskip("matplotlib")
    analyzer.plot(tmp_path / "analysis.png", rows)
    Graphs.line({"a": rows[1].values, "b": rows[2].values}, tmp_path / "line.png")
    Graphs.heat_maps(rows[2].values, tmp_path / "heat.png", dark=True)
    assert {file.name for file in tmp_path.iterdir()} == {"analysis.png", "line.png", "heat.png"}
    with pytest.raises(ValueError, match="groups"):
        Analyzer(model, x, y, {})
    with pytest.raises(ValueError, match="one class"):
        Analyzer(model, x, None, groups)
