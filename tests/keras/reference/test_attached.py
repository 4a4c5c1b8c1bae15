"""Arrays and data sets to which rows of h1 are attached."""

from __future__ import annotations

import numpy as np
import pytest
from backends import once
from keras import ops
from stored_in_keras import CLASSES, N, by_hand, data, doubled, items, model

from bc_keras.reference._attach import attach_h1
from bc_keras.reference._fingerprint import Items
from bc_keras.reference._stored import StoredOutputs, store_outputs

# What is attached are rows of numpy, and data sets that TensorFlow reads on any backend.
pytestmark = once


def read(dataset) -> list[tuple[np.ndarray, ...]]:
    return list(dataset.as_numpy_iterator())


# Attaching arrays


@pytest.mark.parametrize("weighted", [False, True])
def test_labels_and_rows_are_joined(weighted):
    x, y = data()
    stored = StoredOutputs.compute(doubled, x, y)
    weights = np.linspace(0, 1, N) if weighted else None
    parts = stored.attach(x, y, weights)
    assert parts[0] is x
    np.testing.assert_array_equal(parts[1], np.concatenate([y[:, None], 2 * x], axis=1))
    assert len(parts) == (3 if weighted else 2)
    assert parts[-1] is (weights if weighted else parts[1])


@pytest.mark.parametrize("item", [0, 17, N - 1])
def test_a_single_changed_item_is_found(item):
    x, y = data()
    stored = StoredOutputs.compute(doubled, x, y)
    changed = x.copy()
    changed[item, 2] = np.nextafter(changed[item, 2], 9, dtype=np.float32)
    with pytest.raises(ValueError, match=rf"item {item} of .*augments at random.*Received: 1 other items among 37"):
        stored.attach(changed, y)
    other = y.copy()
    other[item] += 1
    with pytest.raises(ValueError, match=rf"item {item} of"):
        stored.attach(x, other)
    # Labels were not stored here, so they may be prepared anew.
    StoredOutputs.compute(doubled, x).attach(x, other)


def test_another_shape_of_the_same_bytes_is_another_item(tf):
    x = np.arange(12, dtype="float32").reshape(2, 2, 3)
    turned, labels = x.reshape(2, 3, 2), np.arange(2)
    with pytest.raises(ValueError, match="item 0 of"):
        StoredOutputs.compute(lambda x: x[:, 0], x).attach(turned, labels)
    with pytest.raises(ValueError, match="item 0 of"):
        StoredOutputs.compute(lambda x: x[:, 0], items(tf, x, labels, 2)).attach(items(tf, turned, labels, 2))


def test_moved_items_and_other_numbers_are_found():
    x, y = data()
    stored = StoredOutputs.compute(doubled, x)
    with pytest.raises(ValueError, match=r"item 0 .*it is the item that was stored as 36.*reordered"):
        stored.attach(x[::-1], y)
    with pytest.raises(ValueError, match="is not the one"):
        stored.attach(x[::-1], y, verify=False)
    with pytest.raises(ValueError, match="has 36 items, but h1's outputs were stored for 37"):
        stored.attach(x[:36], y[:36])
    with pytest.raises(ValueError, match="has 36 items, but h1's outputs were stored for 37"):
        StoredOutputs.from_table(np.zeros(37, int)).attach(x[:36], y[:36], num_classes=2)
    with pytest.raises(ValueError, match="y is needed"):
        stored.attach(x)


def test_class_weights_go_by_the_class_and_multiply():
    x, y = data()
    stored = StoredOutputs.compute(doubled, x)
    expected = np.where(y == 2, 5.0, np.where(y == 0, 0.5, 1.0))
    one_hot = np.eye(4)[y]
    for target in (y, y[:, None], one_hot):
        assert np.array_equal(stored.attach(x, target, class_weight={0: 0.5, 2: 5.0})[2], expected)
        given = np.linspace(1, 2, N)
        weights = stored.attach(x, target, given, class_weight={0: 0.5, 2: 5.0})[2]
        np.testing.assert_allclose(weights, expected * given)


# Attaching data sets


@pytest.mark.parametrize("stored_in", [None, 8])
@pytest.mark.parametrize("attached_in", [None, 5, 8, 64])
def test_items_and_batches_of_any_size_bring_their_rows(tf, tmp_path, stored_in, attached_in):
    (x, y), h1 = data(), model()
    stored = store_outputs(h1, items(tf, x, y, stored_in), tmp_path / "s", batch_size=8, verbose=0)
    np.testing.assert_allclose(stored[:], by_hand(h1, x), rtol=1e-5, atol=1e-6)
    dataset = items(tf, x, y, attached_in)
    attached = StoredOutputs.open(stored.path, h1).attach(dataset)
    assert int(attached.cardinality()) == int(dataset.cardinality())
    assert attached.element_spec[1].shape[-1] == 1 + CLASSES
    for _ in range(2):
        whole = attached if attached_in else attached.batch(5)
        parts = [np.concatenate(part) for part in zip(*read(whole), strict=True)]
        np.testing.assert_array_equal(parts[0], x)
        np.testing.assert_array_equal(parts[1], np.concatenate([y[:, None].astype("float32"), stored[:]], axis=1))


def test_labels_are_the_same_in_any_integer_type(tf):
    x, y = data()
    stored = StoredOutputs.compute(doubled, items(tf, x, y.astype("uint8"), 8))
    assert len(read(stored.attach(items(tf, x, y, 8)))) == 5
    with pytest.raises(ValueError, match="item 0 of"):
        stored.attach(items(tf, x, y + 1, 8))


def test_batches_of_several_sizes_are_aligned(tf):
    x, y = data()
    dataset = items(tf, x[:13], y[:13], 5).concatenate(items(tf, x[13:], y[13:], 7))
    stored = StoredOutputs.compute(doubled, dataset)
    joined = np.concatenate([part for _, part in read(stored.attach(dataset))])
    np.testing.assert_array_equal(joined[:, 1:], 2 * x)
    longer = dataset.concatenate(dataset.take(2))
    with pytest.raises(ValueError, match="has 47 items, but h1's outputs were stored for 37"):
        stored.attach(longer)


def test_items_of_unequal_length_are_read(tf):
    rows = [np.full(1 + i % 4, i, "float32") for i in range(N)]
    dataset = tf.data.Dataset.from_generator(
        lambda: zip(rows, range(N), strict=True),
        output_signature=(tf.TensorSpec((None,), tf.float32), tf.TensorSpec((), tf.int64)),
    )
    stored = StoredOutputs.compute(lambda x: ops.sum(x, axis=1, keepdims=True), dataset, batch_size=1)
    attached = read(stored.attach(dataset))
    assert [float(joined[1]) for _, joined in attached] == [float(row.sum()) for row in rows]


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int32", "int64", "float16", "bfloat16", "float32", "float64", "string", "complex64"]
)
def test_every_type_of_input_is_told_apart(tf, dtype):
    numbers = tf.constant([[0, 1], [1, 0], [1, 1]])
    x = tf.strings.as_string(numbers) if dtype == "string" else tf.cast(numbers, dtype)
    labels = np.arange(3)
    stored = StoredOutputs(np.zeros((3, 2), np.float32), "h1", *hashed(tf, x, labels))
    assert len(set(stored._hashes)) == 3
    assert len(read(stored.attach(items(tf, x, labels, 2)))) == 2
    with pytest.raises(ValueError, match=r"item 0 .*stored as 1"):
        stored.attach(items(tf, tf.gather(x, [1, 0, 2]), np.array([1, 0, 2]), 2))


def hashed(tf, x, y):
    from bc_keras.reference._stored_dataset import DatasetItems

    given = DatasetItems(items(tf, x, y, 2))
    return given.hashes(), None, Items(given.kind, given.leaves)


def test_texts_are_not_run_together(tf):
    hashes, *_ = hashed(tf, np.array([["ab", "c"], ["a", "bc"], ["abc", ""]]), np.zeros(3, int))
    assert len(set(hashes)) == 3


def test_structures_and_weights_of_data_sets(tf):
    x, y = data()
    weights = np.linspace(1, 2, N).astype("float32")
    dataset = tf.data.Dataset.from_tensor_slices(({"a": x, "b": (x[:, 0], y)}, y, weights))

    def h1(parts):
        return parts["a"] * 3

    stored = StoredOutputs.compute(h1, dataset, batch_size=8)
    expected = weights * np.where(y == 1, 4.0, 1.0)
    for given in (dataset, dataset.batch(8)):
        attached = stored.attach(given, class_weight={1: 4.0})
        whole = attached if given is not dataset else attached.batch(8)
        inputs, joined, weight = zip(*read(whole), strict=True)
        np.testing.assert_array_equal(np.concatenate([part["b"][1] for part in inputs]), y)
        np.testing.assert_array_equal(np.concatenate(joined)[:, 1:], 3 * x)
        np.testing.assert_allclose(np.concatenate(weight), expected, rtol=1e-6)


@pytest.mark.parametrize("batch", [None, 8])
def test_labels_of_h1_become_columns(tf, batch):
    x, y = data()
    labels = np.arange(N) % (CLASSES + 1) - 1
    stored = StoredOutputs.from_table(labels)
    for target in (y, y[:, None], np.eye(CLASSES)[y]):
        expected = stored.attach(x, target, num_classes=CLASSES)[1]
        attached = stored.attach(items(tf, x, target, batch), num_classes=CLASSES)
        joined = [part for _, part in read(attached if batch else attached.batch(8))]
        np.testing.assert_array_equal(np.concatenate(joined), expected)
    with pytest.raises(ValueError, match=r"stored\.attach\(x, y, num_classes=10\)"):
        stored.attach(items(tf, x, y, batch))
    binary = StoredOutputs.from_table(labels.clip(-1, 1)).attach(items(tf, x, y % 2, 8), num_classes=1)
    assert read(binary)[0][1].shape == (8, 2)


def test_a_data_set_that_changes_is_refused_when_it_is_stored(tf):
    state = tf.random.Generator.from_seed(3)
    x, y = data()
    noisy = items(tf, x, y).map(lambda x, y: (x + state.normal([4]), y))
    with pytest.raises(ValueError, match="item 0 of the data set differs when it is read twice"):
        StoredOutputs.compute(doubled, noisy)
    once = [True]

    def shorter():
        yield from x[: N if once.pop() else N - 1] if once else x[[*range(20), 25]]

    grown = tf.data.Dataset.from_generator(shorter, output_signature=tf.TensorSpec((4,), tf.float32))
    with pytest.raises(ValueError, match="item 20 of the data set differs"):
        StoredOutputs.compute(model(), grown, batch_size=7)


def test_a_shuffled_data_set_is_found_when_it_is_attached_or_read(tf):
    x, y = data()
    dataset = items(tf, x, y)
    stored = StoredOutputs.compute(doubled, dataset)
    with pytest.raises(ValueError, match=r"item \d+ .*it is the item that was stored as \d+"):
        stored.attach(dataset.shuffle(N, seed=1))
    later = dataset.take(10).concatenate(dataset.skip(10).shuffle(N, seed=1)).batch(4)
    attached = stored.attach(later)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"item 1\d of the data set .*stored as \d+.*reordered"):
        read(attached)
    assert len(read(stored.attach(later, verify=False))) == 10


@pytest.mark.parametrize("batch", [None, 4])
def test_augmentation_in_a_later_epoch_is_found_in_that_epoch(tf, batch):
    x, y = data()
    noise = tf.Variable(0.0)

    def augment(x, y):
        return tf.where(tf.reduce_all(tf.equal(x, data()[0][21]), -1, keepdims=True), x + noise, x), y

    dataset = items(tf, x, y, batch).map(augment)
    stored = StoredOutputs.compute(doubled, dataset)
    attached = stored.attach(dataset)
    assert len(read(attached)) == (N if batch is None else 10)
    noise.assign(1e-3)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"item 21 of the data set is not .*augments at random"):
        read(attached)


def test_wrong_lengths_of_data_sets_are_found(tf):
    x, y = data()
    stored = StoredOutputs.compute(doubled, items(tf, x, y))
    for short in (items(tf, x, y).take(30), items(tf, x, y, 5).take(3)):
        with pytest.raises(ValueError, match=r"has (30|15) items, but h1's outputs were stored for 37"):
            stored.attach(short)
    with pytest.raises(ValueError, match="attach first, and repeat"):
        stored.attach(items(tf, x, y).repeat())
    with pytest.raises(ValueError, match="empty"):
        StoredOutputs.compute(doubled, items(tf, x, y).take(0))
    twice = items(tf, x, y).concatenate(items(tf, x, y)).filter(lambda x, y: True)
    with pytest.raises(tf.errors.InvalidArgumentError, match="more items than the 37"):
        read(stored.attach(twice))
    # A dropped remainder leaves the other rows where they are.
    dropped = items(tf, x, y).batch(5, drop_remainder=True)
    assert np.array_equal(np.concatenate([part for _, part in read(stored.attach(dropped))])[:, 1:], 2 * x[:35])


def test_kinds_of_hashes_are_not_mixed(tf):
    x, y = data()
    with pytest.raises(ValueError, match=r"stored for arrays; .*attach the arrays"):
        StoredOutputs.compute(doubled, x, y).attach(items(tf, x, y))
    with pytest.raises(ValueError, match=r"stored for a tf.data.Dataset; .*attach the data set"):
        StoredOutputs.compute(doubled, items(tf, x, y)).attach(x, y)


def test_data_sets_that_cannot_be_compared_are_refused(tf):
    x, y = data()
    ragged = tf.data.Dataset.from_tensor_slices(tf.ragged.constant([[1.0], [2.0, 3.0]]))
    with pytest.raises(TypeError, match="dense tensors"):
        StoredOutputs.compute(doubled, ragged)
    with pytest.raises(ValueError, match="do not tell whether its elements are items or batches"):
        StoredOutputs.compute(doubled, items(tf, x))
    assert len(StoredOutputs.compute(model(), items(tf, x))) == N
    stored = StoredOutputs.compute(doubled, items(tf, x, batch=4))
    with pytest.raises(ValueError, match=r"each element must be \(x, y\)"):
        stored.attach(items(tf, x, batch=4))
    assert len(read(stored.attach(items(tf, x, y, 4)))) == 10
    with pytest.raises(ValueError, match="brings its own labels"):
        stored.attach(items(tf, x, y, 4), y)
    with pytest.raises(ValueError, match=r"expected x float32 .* Received: x float64"):
        stored.attach(items(tf, x.astype("float64"), y, 4))


# attach_h1


def test_attach_h1_takes_every_form_of_h1(tf):
    (x, y), h1 = data(), model()
    expected = np.concatenate([y[:, None].astype("float32"), by_hand(h1, x)], axis=1)
    scores = h1.predict(x, verbose=0)
    for form in (h1, lambda x: h1(x, training=False), StoredOutputs.compute(h1, x), scores):
        given, joined = attach_h1(form, x, y, batch_size=8)
        assert given is x
        np.testing.assert_allclose(joined, expected, rtol=1e-5, atol=1e-6)
    for form in (h1, scores):
        joined = np.concatenate([part for _, part in read(attach_h1(form, items(tf, x, y, 8)))])
        np.testing.assert_allclose(joined, expected, rtol=1e-5, atol=1e-6)
    labels = attach_h1(scores.argmax(1), x, y, num_classes=CLASSES)[1]
    np.testing.assert_array_equal(labels[:, 1:], np.eye(CLASSES)[scores.argmax(1)])
    weights = attach_h1(h1, x, y, np.full(N, 2.0), class_weight={1: 3.0})[2]
    np.testing.assert_array_equal(weights, np.where(y == 1, 6.0, 2.0))


def test_attach_h1_refuses():
    (x, y), h1 = data(), model()
    with pytest.raises(ValueError, match="y is needed"):
        attach_h1(h1, x)
    with pytest.raises(ValueError, match="36 items, but h1's outputs were stored for 37"):
        attach_h1(h1.predict(x, verbose=0), x[:36], y[:36])
    with pytest.raises(ValueError, match="item 3 is NaN"):
        attach_h1(np.where(np.arange(N)[:, None] == 3, np.nan, x), x, y)
    with pytest.raises(ValueError, match="Label and h1's output differ in length"):
        attach_h1(h1, x, y[:36])
