"""The older package's names: numbers against the documented formulas in numpy, and none of its faults."""

import json
import pickle

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

from bc_keras.invariance import TransformSet
from bc_keras.transformational_measures import (
    Analyzer,
    DataSet,
    FeaturesVariance,
    Iterator,
    Metric,
    Model,
    ModelStructure,
    NormalizedFeaturesVariance,
    NormalizedSameEquivariance,
    NormalizedVariance,
    SameEquivariance,
    TransformationsDataSet,
    Variance,
)

BACKEND = keras.backend.backend()


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)
    if BACKEND != "jax":
        yield
        return
    import jax

    # Compiling takes longer than everything else here: as fast code is of no use, it need not be that good.
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def net(size=8, functional=False):
    parts = [
        L.Conv2D(3, 3, padding="same", activation="relu", name="conv"),
        L.MaxPooling2D(name="pool"),
        L.Dropout(0.5, name="drop"),
        L.Flatten(name="flat"),
        L.Dense(4, activation="softmax", name="head"),
    ]
    if not functional:
        return keras.Sequential([keras.Input((size, size, 1)), *parts])
    x = start = keras.Input((size, size, 1), name="pixels")
    for part in parts:
        x = part(x)
    return keras.Model(start, x)


def images(n=7, size=8):
    return np.random.default_rng(1).normal(size=(n, size, size, 1)).astype("float32")


def activations(plain, matrix):
    """Of every layer, (rows, columns, ...), by Keras alone."""
    rows, columns = matrix.shape[:2]
    flat = matrix.reshape(rows * columns, *matrix.shape[2:])
    every = keras.Model(plain.inputs[0], {str(k): layer.output for k, layer in enumerate(plain.layers)})(flat)
    return [
        ops.convert_to_numpy(one).reshape(rows, columns, *one.shape[1:]).astype("float64") for one in every.values()
    ]


def turned_back(found, back):
    """Feature maps (rows, columns, H, W, C) turned back, column by column; other layers as they are."""
    if found.ndim != 5:
        return found
    return np.stack([np.stack([back(one, j) for j, one in enumerate(row)]) for row in found])


def variance(found):
    """The documented formula: of each activation the mean over rows of the variance over columns."""
    return found.var(axis=1, ddof=1).mean(axis=0)


def across(found):
    return variance(found.swapaxes(0, 1))


def by_feature(found):
    return found.mean(axis=(0, 1))


class Matrix(DataSet):
    """A matrix that is simply there, transposed as its documentation says."""

    def __init__(self, values):
        self.values, self.turned = values, False

    def get_data_shape(self):
        return self.values.shape[2:]

    def get_height(self):
        return len(self.values)

    def get_width(self):
        return self.values.shape[1]

    def get_matrix(self, rows, columns):
        return self.values[np.ix_(rows, columns)]

    def transpose(self):
        self.values, self.turned = self.values.swapaxes(0, 1), not self.turned

    def is_transpose(self):
        return self.turned


class Quarters(TransformationsDataSet):
    """Quarter turns of one's own, and nothing else."""

    def __init__(self, x):
        self.x = x

    def get_width(self):
        return 4

    def get_height(self):
        return len(self.x)

    def get_matrix(self, rows, columns):
        return [[np.rot90(self.x[i], j) for j in columns] for i in rows]

    def apply_inverse_transformation(self, tensor, index_transformation):
        return np.rot90(np.asarray(tensor), -index_transformation)


def same(found, expected, rtol=2e-4, atol=1e-6):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=atol)


@pytest.mark.parametrize("functional", [False, True])
def test_the_measures_are_the_documented_formulas(functional):
    plain, data = net(functional=functional), TransformationsDataSet(images(), TransformSet.c4())
    model = Model(model_keras=plain)
    iterator = Iterator(model, data)
    matrix = data.get_matrix(range(7), range(4))
    assert model.layers_names == [layer.name for layer in plain.layers]
    found = activations(plain, matrix)
    tv, sv = [variance(one) for one in found], [across(one) for one in found]
    # A layer with features has more than two axes: the dense one and the flattened one have none.
    maps = [number for number, one in enumerate(found) if one.ndim == 5]
    assert maps == model.get_model_structure().map_layers_features == list(range(len(found) - 2))

    measure = Variance(iterator)
    layers, units = measure.compute(3, 2)
    same(units, tv)
    same(layers, [one.mean() for one in tv])
    assert measure.total_variance == pytest.approx(np.mean([one.mean() for one in tv]), rel=2e-4)
    assert measure.variance_layers is layers
    assert measure.variance_layers_activations is units
    assert measure.get_result()[:] == (measure.total_variance, layers, units)
    assert measure.time > 0

    measure = NormalizedVariance(iterator)
    layers, units = measure.compute(10, 5)
    same(units, [np.where(b > 0, a / np.where(b > 0, b, 1), np.nan) for a, b in zip(tv, sv, strict=True)])
    same(layers, [a.mean() / b.mean() for a, b in zip(tv, sv, strict=True)])
    total = np.mean([one.mean() for one in tv]) / np.mean([one.mean() for one in sv])
    assert measure.compute(10, 5)[0] == pytest.approx(total, rel=2e-4)

    measure = FeaturesVariance(iterator)
    features, units = measure.compute(10, 5)
    same(units, tv)
    same(features, [by_feature(tv[k]) for k in maps])
    assert measure.total_variance == pytest.approx(np.mean([tv[k].mean() for k in maps]), rel=2e-4)
    np.testing.assert_allclose(measure.get_feature(maps[-1], 2), tv[maps[-1]][..., 2], rtol=2e-4, atol=1e-6)
    with pytest.raises(IndexError, match="no features"):
        measure.get_feature(len(found) - 1, 0)

    measure = NormalizedFeaturesVariance(iterator)
    layers, features = measure.compute(10, 5)
    same(features, [by_feature(tv[k]) / by_feature(sv[k]) for k in maps])
    same(layers, [(by_feature(tv[k]) / by_feature(sv[k])).mean() for k in maps])
    total = np.mean([tv[k].mean() for k in maps]) / np.mean([sv[k].mean() for k in maps])
    assert measure.total_variance == pytest.approx(total, rel=2e-4)


@pytest.mark.parametrize("own", [False, True])
def test_same_equivariance_is_that_of_maps_turned_back(own):
    plain, x = net(), images()
    data = Quarters(x) if own else TransformationsDataSet(x, TransformSet.c4())
    iterator = Iterator(Model(plain), data)
    matrix = np.asarray(data.get_matrix(range(7), range(4)))
    found = [turned_back(one, lambda maps, j: np.rot90(maps, -j)) for one in activations(plain, matrix)]
    tv, sv = [variance(one) for one in found], [across(one) for one in found]
    measure = SameEquivariance(iterator, data)
    features, units = measure.compute(10, 5)
    same(units, tv)
    same(features, [by_feature(tv[k]) for k in range(3)])
    same(measure.variance_layers, [one.mean() for one in tv])
    assert measure.total_variance == pytest.approx(np.mean([tv[k].mean() for k in range(3)]), rel=2e-4)
    measure = NormalizedSameEquivariance(iterator, data)
    layers, features = measure.compute(10, 5)
    ratios = [by_feature(tv[k]) / by_feature(sv[k]) for k in range(3)]
    same(features, ratios)
    same(layers, [one.mean() for one in ratios])
    total = np.mean([tv[k].mean() for k in range(3)]) / np.mean([sv[k].mean() for k in range(3)])
    assert measure.total_variance == measure.get_result()[0] == pytest.approx(total, rel=2e-4)


def test_on_a_pooled_map_the_shift_back_is_smaller():
    # Two pixels to the right are one on the pooled map: shifting and pooling can be exchanged.
    x = np.zeros((3, 8, 8, 1), "float32")
    x[:, 2:4, 2:4] = np.random.default_rng(0).normal(size=(3, 2, 2, 1))
    data = TransformationsDataSet(x)
    data.set_transformation_group(2, 4)
    assert [one.tx for one in data.transformations] == [0, 2, 4, 6]
    data.transformations = data.transformations[:3]  # nothing leaves the image
    plain = keras.Sequential([keras.Input((8, 8, 1)), L.MaxPooling2D(name="pool")])
    measure = SameEquivariance(Iterator(Model(plain), data))
    assert measure.compute()[0] == 0
    assert Variance(Iterator(Model(plain), data)).compute()[0] > 0
    pooled = x[0, ::2, ::2, 0]
    back = data.apply_inverse_transformation(np.roll(pooled, 2, axis=1), 2)
    np.testing.assert_array_equal(back, pooled)


class Turning(TransformationsDataSet):
    """Turns maps back by itself."""

    def apply_inverse_transformation(self, tensor, index_transformation):
        return np.rot90(np.asarray(tensor), -index_transformation)


@pytest.mark.parametrize("kind", [TransformationsDataSet, Turning])
def test_features_are_where_the_layer_has_its_channels(kind):
    # Of pooling every backend can do both.
    pool = L.AveragePooling2D(2, data_format="channels_first", name="pool")
    plain = keras.Sequential([keras.Input((2, 8, 8)), pool])
    x = np.concatenate([images(5), 3 * images(5)], axis=3).transpose(0, 3, 1, 2)
    data = kind(x, TransformSet.c4(), data_format="channels_first")
    layer = Model(plain).get_model_structure().layers[0]
    assert (layer.shape, layer.number_features, layer.shape_feature) == ((2, 4, 4), 2, (4, 4))
    block = Model(plain).predict(x[None])
    np.testing.assert_array_equal(block[0, 3, 0, 1], block[0, 3, 0][1])
    iterator = Iterator(Model(plain), data)
    (found,) = activations(plain, np.asarray(data.get_matrix(range(5), range(4))))
    measure = FeaturesVariance(iterator)
    np.testing.assert_allclose(measure.compute()[1][0], variance(found).mean(axis=(1, 2)), rtol=2e-4)
    np.testing.assert_allclose(measure.get_feature(0, 1), variance(found)[1], rtol=2e-4)
    # Pooling turns with the image.
    assert SameEquivariance(iterator).compute()[1][0].max() < 1e-10


def test_neither_blocks_nor_an_earlier_measure_matter():
    data = TransformationsDataSet(images(), TransformSet.c4())
    iterator = Iterator(net(), data)
    measure = NormalizedVariance(iterator)
    first = measure.compute(1, 1)[:]
    Variance(iterator).compute(3, 2)
    second = measure.compute()[:]
    assert (data.get_height(), data.get_width(), data.is_transpose()) == (7, 4, False)
    assert first[0] == pytest.approx(second[0], rel=1e-4)
    same(first[1], second[1])


@pytest.mark.parametrize("kind", ["made", "own"])
def test_a_transposed_data_set_has_the_variances_of_the_other_side(kind):
    plain, data = net(), TransformationsDataSet(images(), TransformSet.c4())
    matrix = data.get_matrix(range(7), range(4))
    if kind == "own":
        data = Matrix(matrix)
    iterator = Iterator(plain, data)
    straight, normalized = Variance(iterator), NormalizedVariance(iterator).compute(10, 5)[0]
    straight.compute()
    assert iterator.transpose() is None
    assert (data.get_height(), data.get_width(), data.is_transpose()) == (4, 7, True) == (iterator.n, iterator.m, True)
    np.testing.assert_array_equal(data.get_matrix([1, 2], [5, 0]), matrix[np.ix_([5, 0], [1, 2])].swapaxes(0, 1))
    other = Variance(iterator)
    other.compute(10, 2)
    found = activations(plain, matrix)
    same(straight.variance_layers_activations, [variance(one) for one in found])
    same(other.variance_layers_activations, [across(one) for one in found])
    assert NormalizedVariance(iterator).compute(10, 5)[0] == pytest.approx(1 / normalized, rel=1e-5)
    if kind == "made":
        # Transformations are rows now, and are turned back all the same.
        found = [turned_back(one, lambda maps, j: np.rot90(maps, -j)) for one in found]
        same(SameEquivariance(iterator, data).compute()[2], [across(one) for one in found])
    iterator.transpose()
    assert (data.get_height(), data.is_transpose()) == (7, False)


def test_the_variance_of_samples_needs_no_second_transformation():
    plain, data = net(), TransformationsDataSet(images())
    iterator = Iterator(plain, data)
    for measure in (Variance(iterator), NormalizedVariance(iterator)):
        with pytest.raises(ValueError, match=r"set_transformation_group\(1, 8\)"):
            measure.compute()
    data.transpose()
    found = activations(plain, data.get_matrix([0], range(7)))
    same(Variance(iterator).compute(10, 2)[2], [variance(one) for one in found])
    data.transpose()
    data.set_transformation_group(1, 8)  # what the message says
    assert NormalizedVariance(iterator).compute()[0] > 0


def test_what_a_data_set_of_ones_own_must_say():
    plain, x = net(), images()

    class Turned(Quarters):
        def transpose(self):
            self.was = True

    own = Quarters(x)
    iterator = Iterator(Model(plain), own)
    assert own.get_data_shape() == (8, 8, 1)
    for what, said in (
        (own.transpose, r"Quarters must define transpose\(\)"),
        (lambda: own.set_transformation_group(1, 4), "must define set_transformation_group"),
        (own.get_size_transformations_groups, "must define get_size_transformations_groups"),
        (own.get_testing_data, "must define get_testing_data"),
    ):
        with pytest.raises(NotImplementedError, match=said):
            what()
    (_, blocks), *_ = iterator.get_block(9, 9)
    assert next(blocks)[1].is_dataset_transpose() is False
    iterator = Iterator(Model(plain), Turned(x))
    assert Variance(iterator).compute()[0] > 0
    with pytest.raises(ValueError, match=r"define Turned.is_transpose\(\)"):
        SameEquivariance(iterator).compute()
    with pytest.raises(ValueError, match="apply_inverse_transformation"):
        SameEquivariance(Iterator(Model(plain), Matrix(x[None].repeat(2, axis=0)))).compute()

    class Ragged(Quarters):
        def get_matrix(self, rows, columns):
            return np.stack([np.rot90(self.x[i]) for i in rows])

        def apply_inverse_transformation(self, tensor, index_transformation):
            return np.asarray(tensor)[:2]

    with pytest.raises(ValueError, match=r"must return shape \(rows, columns, \.\.\.\)"):
        Variance(Iterator(Model(plain), Ragged(x))).compute()
    made = TransformationsDataSet(x, TransformSet.c4())
    with pytest.raises(ValueError, match="must keep the shape of a map"):
        SameEquivariance(Iterator(Model(plain), made), Ragged(x)).compute()
    with pytest.raises(TypeError, match="Iterator"):
        Variance().compute()
    with pytest.raises(TypeError, match="DataSet"):
        Iterator(plain, x)
    with pytest.raises(TypeError, match="abstract"):
        DataSet()


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
