"""The older package's names: numbers against the documented formulas in numpy, and none of its faults."""

import keras
import numpy as np
import pytest
from keras import layers as L
from measured_models import Matrix, across, activations, images, net, same, variance

from bc_keras.invariance import TransformSet
from bc_keras.transformational_measures import (
    DataSet,
    FeaturesVariance,
    Iterator,
    Model,
    NormalizedFeaturesVariance,
    NormalizedSameEquivariance,
    NormalizedVariance,
    SameEquivariance,
    TransformationsDataSet,
    Variance,
)


def turned_back(found, back):
    """Feature maps (rows, columns, H, W, C) turned back, column by column; other layers as they are."""
    if found.ndim != 5:
        return found
    return np.stack([np.stack([back(one, j) for j, one in enumerate(row)]) for row in found])


def by_feature(found):
    return found.mean(axis=(0, 1))


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
