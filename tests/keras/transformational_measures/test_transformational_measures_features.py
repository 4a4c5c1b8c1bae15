"""Which layers have features, what is predicted of them, and measures against a metric of the model."""

import json
import pickle

import keras
import numpy as np
import pytest
from backends import once
from keras import layers as L
from keras import ops
from measured_models import Matrix, across, activations, images, net, variance

from bc_keras.invariance import TransformSet
from bc_keras.transformational_measures import (
    Analyzer,
    FeaturesVariance,
    Iterator,
    Metric,
    Model,
    ModelStructure,
    NormalizedFeaturesVariance,
    NormalizedVariance,
    TransformationsDataSet,
    Variance,
)

# They rest on `measure`, which is tested on each backend, as are the formulas, in the file without a further name.
pytestmark = once


def test_predict_returns_the_activations_of_a_matrix(tmp_path):
    plain, x = net(), images(6)
    model = Model(model_keras=plain)
    block = model.predict(ops.convert_to_tensor(x.reshape(2, 3, 8, 8, 1)))
    assert (block.height, block.width) == (2, 3)
    found = activations(plain, x.reshape(2, 3, 8, 8, 1))
    for i, j, k in np.ndindex(2, 3, 5):
        np.testing.assert_allclose(block[(i, j, k)], found[k][i, j], atol=1e-6)
    for k, f in np.ndindex(3, 3):
        np.testing.assert_allclose(block[(1, 2, k, f)], found[k][1, 2, ..., f], atol=1e-6)
    np.testing.assert_allclose(block[:, 0, 0], found[0][:, 0], atol=1e-6)
    for place, error in (((0, 3, 0), IndexError), ((0, 0, 4, 0), IndexError), ((0, 0), KeyError), (0, KeyError)):
        with pytest.raises(error):
            block[place]
    block[(0, 1, 4)] = [1, 2, 3, 4]
    block[(0, 1, 1, 2)] = np.zeros((4, 4))
    assert block[0, 1, 4].tolist() == [1, 2, 3, 4]
    assert block[0, 1, 1, 2].max() == 0
    np.testing.assert_allclose(block[0, 1, 1, 1], found[1][0, 1, ..., 1], atol=1e-6)
    with pytest.raises(ValueError, match="matrix of inputs"):
        model.predict(x[0, :, 0, 0])

    plain.save(tmp_path / "model.keras")
    plain.save(tmp_path / "model.h5")
    for loaded in (
        Model(path=tmp_path / "model.keras"),
        Model(path=str(tmp_path / "model.h5")),
        Model(None, str(tmp_path / "model.h5")),
        Model(model_keras=None, model_path=str(tmp_path / "model.keras")),
        Model(str(tmp_path / "model.h5")),
    ):
        np.testing.assert_allclose(loaded.predict(x[None])[0, 3, 4], found[4][1, 0], atol=1e-6)
    for bad in ({}, {"model_keras": plain, "path": "model.h5"}):
        with pytest.raises(TypeError, match="Give the model"):
            Model(**bad)
    with pytest.raises(TypeError, match="Keras model"):
        Model(model_keras=3)


def test_a_file_of_keras_2(tmp_path):
    h5py = pytest.importorskip("h5py")
    plain, x, path = net(), images(3), tmp_path / "old.h5"
    plain.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    plain.save(path)
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        start, first, *_ = layers = config["config"]["layers"]
        assert start["class_name"] == "InputLayer"
        layers.pop(0)
        first["config"]["batch_input_shape"] = start["config"].get("batch_shape", [None, 8, 8, 1])
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = "2.3.0-tf"
    before = path.read_bytes()
    model = Model(path=path)
    np.testing.assert_allclose(model.predict(x[None])[0, :, 4], activations(plain, x[None])[4][0], atol=1e-6)
    assert model.layers_names == ["conv", "pool", "drop", "flat", "head"]
    assert path.read_bytes() == before


def test_feature_k_is_that_of_layer_k_wherever_its_layer_stands():
    # The older code counted only layers with features there: of this model k = 1 was the convolution's number 0.
    plain = keras.Sequential([keras.Input((5,)), L.Dense(32), L.Reshape((4, 4, 2)), L.Conv2D(3, 3)])
    model = Model(plain)
    block = model.predict(np.random.default_rng(0).normal(size=(2, 2, 5)))
    assert model.get_model_structure().map_layers_features == [1, 2]
    np.testing.assert_array_equal(block[1, 0, 2, 1], block[1, 0, 2][..., 1])
    np.testing.assert_array_equal(block[1, 0, 1, 1], block[1, 0, 1][..., 1])
    with pytest.raises(IndexError, match="has no features"):
        block[1, 0, 0, 1]


def test_the_structure_of_models():
    structure = ModelStructure(net())
    assert [layer.name for layer in structure.layers] == ["conv", "pool", "drop", "flat", "head"]
    assert (structure.number_layers, structure.number_layers_features) == (5, 3)
    assert structure.layers_features == structure.layers[:3]
    conv, head = structure.layers[0], structure.layers[4]
    assert (conv.shape, conv.number_activations, conv.number_features, conv.shape_feature) == (
        (8, 8, 3),
        192,
        3,
        (8, 8),
    )
    assert (head.shape, head.number_activations, head.number_features, head.shape_feature) == ((4,), 4, 0, None)
    # The layer of the input is one of a functional model's layers.
    functional = net(functional=True)
    assert ModelStructure(functional).number_layers == len(functional.layers) == 6
    assert Model(functional).get_name_layer(0) == "pixels"
    block = Model(functional).predict(images(2)[None])
    np.testing.assert_array_equal(block[0, 1, 0], images(2)[1])
    # A nested model is one layer, and so is each call of a layer.
    inner = keras.Sequential([keras.Input((4,)), L.Dense(4), L.ReLU()], name="inner")
    start = keras.Input((4,), name="start")
    again = L.Dense(4, name="again")
    nested = keras.Model(start, again(inner(again(start))))
    assert Model(nested).layers_names == ["start", "again", "again:2", "inner"]
    assert [layer.name for layer in ModelStructure().layers] == []
    unknown = Model(keras.Sequential([L.Dense(2, name="one")]))
    with pytest.raises(ValueError, match="call predict once"):
        unknown.get_name_layer(0)
    unknown.predict(np.ones((2, 2, 3)))
    assert unknown.get_name_layer(0) == "one"


def test_measures_of_layers_that_only_some_models_have():
    dense = keras.Sequential([keras.Input((3,)), L.Dense(2)])
    matrix = np.random.default_rng(0).normal(size=(4, 3, 3)).astype("float32")
    iterator = Iterator(dense, Matrix(matrix))
    (found,) = activations(dense, matrix)
    assert Variance(iterator).compute()[0] == pytest.approx(variance(found).mean(), rel=1e-4)
    with pytest.raises(ValueError, match="measure Variance or NormalizedVariance"):
        FeaturesVariance(iterator).compute()
    # A dead feature is nan and leaves the layer's number alone.
    plain = keras.Sequential([keras.Input((6, 6, 1)), L.Conv2D(2, 3, activation="relu", name="conv")])
    kernel, bias = plain.layers[0].get_weights()
    plain.layers[0].set_weights([kernel * [0, 1], bias - [1, 0]])
    data = TransformationsDataSet(images(6, 6), TransformSet.c4())
    layers, features = NormalizedFeaturesVariance(Iterator(plain, data)).compute()
    assert np.isnan(features[0][0])
    assert layers == [features[0][1]]
    with pytest.raises(ValueError, match="height must be 1"):
        Variance(Iterator(plain, data)).compute(0, 5)


def test_blocks_cover_the_matrix():
    data = TransformationsDataSet(images(), TransformSet.c4())
    iterator = Iterator(Model(net()), data)
    whole = iterator.get_model().predict(data.get_matrix(range(7), range(4)))
    seen = np.zeros((7, 4), int)
    for height, blocks in iterator.get_block(3, 3):
        for width, block in blocks:
            assert (block.height, block.width) == (height, width)
            rows, columns = block.get_rows_dataset(), block.get_columns_dataset()
            seen[np.ix_(rows, columns)] += 1
            np.testing.assert_allclose(block[:, :, 4], whole[:, :, 4][np.ix_(rows, columns)], atol=1e-6)
            assert block.is_dataset_transpose() is False
    assert (seen == 1).all()
    # Set after the iterator was made.
    data.set_transformation_group(0, 6)
    assert sum(width for _, blocks in iterator.get_block(9, 4) for width, _ in blocks) == 6
    with pytest.raises(ValueError, match="one row"):
        next(iterator.get_block(0, 3))


def test_loss_and_accuracy_are_the_compiled_ones():
    plain, x, y = net(), images(20), np.arange(20) % 4
    model, top = Model(plain), keras.metrics.SparseTopKCategoricalAccuracy(2, name="top")
    with pytest.raises(ValueError, match=r"metrics=\['accuracy'\]"):
        model.evaluate(x, y)
    plain.compile(loss="sparse_categorical_crossentropy", metrics=[top])
    with pytest.raises(ValueError, match=r"metrics=\['accuracy'\].*top"):
        model.evaluate(x, y)
    # Accuracy is the second wherever it stands among the metrics.
    plain.compile(loss="sparse_categorical_crossentropy", metrics=[top, "accuracy"])
    p = activations(plain, x[None])[-1][0]
    loss, accuracy = model.evaluate(ops.convert_to_tensor(x), y)
    assert loss == pytest.approx(-np.log(p[np.arange(20), y]).mean(), rel=1e-4)
    assert accuracy == pytest.approx((p.argmax(axis=1) == y).mean())
    plain.compile(loss="categorical_crossentropy", metrics=[keras.metrics.CategoricalAccuracy()])
    assert model.evaluate(x, np.eye(4)[y]) == pytest.approx([loss, accuracy], rel=1e-4)


class Most(Metric):
    """A metric of one's own."""

    def compute(self, height, width):
        self.result = (max(block[:, :, 4].max() for _, blocks in self.iterator.get_block(height, width)
                           for _, block in blocks), "more")  # fmt: skip
        return self.result


@pytest.mark.parametrize("third", ["iterator", "metric", "own", "keyword"])
def test_a_measure_against_accuracy(third, monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plain, x, y = net(), images(), np.arange(7) % 4
    plain.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model, data = Model(plain), TransformationsDataSet(x, y=y)
    iterator = Iterator(model, data)
    monkeypatch.setattr(data, "get_size_transformations_groups", lambda: 3)
    monkeypatch.setattr("bc_keras.transformational_measures._analyzer._PIECE", 10)
    analyzer = {
        "iterator": lambda: Analyzer(model, data, iterator),
        "metric": lambda: Analyzer(model, data, Variance()),
        "own": lambda: Analyzer(model, data, Most()),
        "keyword": lambda: Analyzer(model=model, dataset=data, metric=NormalizedVariance(iterator)),
    }[third]()
    plt.close("all")
    analyzer.run(4)
    assert plt.get_fignums()  # for plt.show()
    plt.close("all")
    for group in range(3):
        data.set_transformation_group(group, 4)
        found = activations(plain, data.get_matrix(range(7), range(4)))
        tv, sv = (np.mean([f(one).mean() for one in found]) for f in (variance, across))
        expected = {"own": found[4].max(), "keyword": tv / sv}.get(third, tv)
        assert analyzer.x[group] == pytest.approx(expected, rel=1e-3, abs=1e-9)
        assert analyzer.results[group][0] == analyzer.x[group]
        assert analyzer.y[group] == pytest.approx((found[4].argmax(axis=-1) == y[:, None]).mean())
    with pytest.raises(TypeError, match="Iterator or a Metric"):
        Analyzer(model, data, "variance")
    with pytest.raises(TypeError, match="TransformationsDataSet"):
        Analyzer(model, Matrix(x[None]), Variance())
    with pytest.raises(ValueError, match="needs classes"):
        Analyzer(model, TransformationsDataSet(x), Variance()).run(2)


def test_what_compute_returns_can_be_kept():
    data = TransformationsDataSet(images(), TransformSet.c4())
    measure = Variance(Iterator(net(), data))
    kept = pickle.loads(pickle.dumps(measure.compute()))
    assert kept[0] == measure.total_variance
    layers, units = kept
    assert layers == measure.variance_layers
    np.testing.assert_array_equal(units[0], measure.variance_layers_activations[0])
