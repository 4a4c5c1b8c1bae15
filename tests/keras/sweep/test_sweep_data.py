"""Every kind of data that a sweep in Keras reads, in any order."""

import warnings

import keras
import numpy as np
import pytest
from backends import once
from keras import ops
from swept_in_keras import COMPILE, FIT, MIDDLE, PLAIN, Pieces, assert_same, data, net, recipe, run, trained, weights_of

from bc_core.sweep._points import Point
from bc_keras import BCModel, StoredOutputs


class Counting:
    """An h1 that says how many rows it was asked about; answers without any framework."""

    def __init__(self, labels_only=False):
        self.rows = 0
        self.labels_only = labels_only

    def __call__(self, x):
        x = ops.convert_to_numpy(x)
        self.rows += len(x)
        scores = np.exp(3 * x[:, :3])
        return scores.argmax(1) if self.labels_only else (scores / scores.sum(1, keepdims=True)).astype("float32")


# h1


def test_an_h1_of_labels_is_asked_once_about_each_row_for_the_whole_sweep(tmp_path):
    h1 = Counting(labels_only=True)
    found = run(net, h1, data(), tmp_path, val=data(24, 1), test=data(32, 2), lambdas=[0, 1, 2], losses=["new_error"])
    assert h1.rows == 40 + 24 + 32
    assert [point.lambda_c for point in found.points] == [0, 1, 2]


@once
def test_h1_is_asked_once_about_data_in_any_order(tmp_path):
    # Those of training are asked about in every step, as the order is none of ours.
    h1 = Counting()
    made = recipe(net, h1, data(), test=Pieces(*data(32, 2)), store_h1="auto")
    place = trained(made, tmp_path, PLAIN, MIDDLE)
    assert h1.rows == 40 + 32
    fixed = trained(recipe(net, Counting(), data(), test=data(32, 2)), tmp_path / "fixed", MIDDLE)
    one, other = (each.comparison(MIDDLE, "test") for each in (place, fixed))
    assert one.overlap == other.overlap
    # Ids are positions of the first pass, at every point.
    ids = [set(place.comparison(point, "test").instances.select(slice(None)).ids.tolist()) for point in (PLAIN, MIDDLE)]
    assert max(map(max, ids)) < 32


# Data


@once
def test_ids_and_texts(h1, tmp_path):
    ids = [f"photo {index:02}" for index in range(32)]
    x, y = data(32, 1)
    options = {"ids": {"test": ids}, "metadata": lambda name: f"text of {name}"}
    for number, test in enumerate([(x, y), Pieces(x, y, shuffle=False)]):
        place = trained(recipe(net, h1, data(), test=test, **options), tmp_path / str(number), MIDDLE)
        comparison = place.comparison(MIDDLE, "test")
        table = comparison.instances
        assert len(table)
        for row in list(table)[:5]:
            index = ids.index(row["id"])
            assert row["target"] == y[index]
            assert row["h1_pred"] == h1.predict(x[index : index + 1], verbose=0).argmax()
            assert row["metadata"] == f"text of {row['id']}"


@once
def test_ids_of_data_in_another_order_are_refused(h1, tmp_path):
    with pytest.raises(ValueError, match="ids need data that give the same instances in the same order"):
        trained(recipe(net, h1, data(), test=Pieces(*data(32, 1)), ids={"test": range(32)}), tmp_path, MIDDLE)


def test_data_that_are_augmented_at_random(tmp_path):
    x, y = data(24)

    def augmented():
        return x + np.random.normal(size=x.shape).astype("float32") / 10, y  # noqa: NPY002 - the seed of the point

    h1 = Counting()
    place = trained(recipe(net, h1, data(), test=augmented), tmp_path, MIDDLE)
    assert h1.rows == 40 + 24 + 24
    assert place.comparison(MIDDLE, "test").dataset_size == 24


@once
def test_a_function_makes_data_after_the_seed_was_set(h1, tmp_path):
    x, y = data()

    def shuffled():
        order = np.random.permutation(len(x))  # noqa: NPY002 - the seed of the point
        return x[order], y[order]

    there = trained(recipe(net, h1, shuffled, test=data(32, 1)), tmp_path / "there", PLAIN, MIDDLE)
    back = trained(recipe(net, h1, shuffled, test=data(32, 1)), tmp_path / "back", MIDDLE)
    assert_same(weights_of(there, MIDDLE), weights_of(back, MIDDLE), 0)
    # Found again by their content, in whatever order.
    assert there.comparison(MIDDLE, "train").overlap.accuracy_h1 == (h1.predict(x, verbose=0).argmax(1) == y).mean()


def test_tf_data(h1, tmp_path):
    tf = pytest.importorskip("tensorflow")
    x, y = data()
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    counted = Counting()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        made = recipe(net, counted, dataset, test=tf.data.Dataset.from_tensor_slices(data(32, 1)).batch(16))
    place = trained(made, tmp_path, PLAIN, MIDDLE)
    assert counted.rows == 40 + 32
    assert made._trains_on_kept
    keras.utils.set_random_seed(MIDDLE.seed)
    h2 = net()
    rows = Counting()(x)
    stored = StoredOutputs.from_predictions(rows)
    model = BCModel(h2, h1=stored, lambda_c=2.0)
    model.compile(**COMPILE)
    model.fit(*stored.attach(x, y), shuffle=False, verbose=0, **FIT)
    assert_same(weights_of(place, MIDDLE), h2.get_weights(), 2e-6)


def test_tf_data_that_is_shuffled(h1, tmp_path):
    tf = pytest.importorskip("tensorflow")

    def shuffled():
        return tf.data.Dataset.from_tensor_slices(data()).shuffle(40).batch(16)

    with pytest.warns(UserWarning, match="pass a function that makes the data set"):
        made = recipe(net, h1, shuffled())
    assert not made._trains_on_kept
    place = trained(made, tmp_path / "first", MIDDLE)
    assert place.comparison(MIDDLE, "train").dataset_size == 40
    there = trained(recipe(net, h1, shuffled), tmp_path / "there", PLAIN, MIDDLE)
    back = trained(recipe(net, h1, shuffled), tmp_path / "back", MIDDLE)
    assert_same(weights_of(there, MIDDLE), weights_of(back, MIDDLE), 0)


def test_a_torch_loader(h1, tmp_path):
    torch = pytest.importorskip("torch")
    x, y = map(torch.as_tensor, data())
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=8, shuffle=True)
    there = trained(recipe(net, h1, loader), tmp_path / "there", PLAIN, MIDDLE)
    back = trained(recipe(net, h1, loader), tmp_path / "back", MIDDLE)
    assert_same(weights_of(there, MIDDLE), weights_of(back, MIDDLE), 0)
    assert there.comparison(MIDDLE, "train").instances.ids.max() < 40


@once
def test_a_torch_loader_with_its_own_generator_gives_every_point_the_same_batches(h1, tmp_path):
    torch = pytest.importorskip("torch")
    held = torch.utils.data.TensorDataset(*map(torch.as_tensor, data()))
    generator = torch.Generator().manual_seed(3)
    loader = torch.utils.data.DataLoader(held, batch_size=8, shuffle=True, generator=generator)
    before = generator.get_state()
    # So small a lambda_c changes nothing in float32: other batches would.
    points = [Point("new_error", lambda_c, 3) for lambda_c in (1e-12, 2e-12)]
    place = trained(recipe(net, h1, loader), tmp_path, *points)
    first, second = (weights_of(place, point) for point in points)
    assert_same(first, second, 0)
    assert torch.equal(generator.get_state(), before)
