"""h1's outputs for arrays and `tf.data`, joined to the labels; what both sides promise is in `tests/conformance`."""

from __future__ import annotations

import functools
import json
import pickle
import signal

import keras
import numpy as np
import pytest
from keras import ops

from bc_keras.reference._attach import attach_h1
from bc_keras.reference._fingerprint import Items, fingerprint
from bc_keras.reference._reference import Reference
from bc_keras.reference._stored import StoredOutputs, store_outputs

N, CLASSES = 37, 3


def model(seed: int = 0, inputs: int = 4) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.layers.Input((inputs,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(CLASSES, activation="softmax"),
        ]
    )


def data(n: int = N, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 4)).astype("float32"), rng.integers(CLASSES, size=n)


def doubled(x):
    return x * 2


def by_hand(h1, x) -> np.ndarray:
    """One item at a time."""
    return np.concatenate([ops.convert_to_numpy(h1(x[i : i + 1], training=False)) for i in range(len(x))])


class Service:
    """Doubles its input, counts the items that it was asked about, and stops working after some."""

    fingerprint = "service 1"

    def __init__(self, limit: float = float("inf"), factor: float = 2.0) -> None:
        self.asked, self.limit, self.factor = 0, limit, factor

    def __call__(self, x):
        if self.asked + len(x) > self.limit:
            raise RuntimeError("power cut")
        self.asked += len(x)
        return x * self.factor


@pytest.fixture
def tf():
    return pytest.importorskip("tensorflow")


def items(tf, x, y=None, batch: int | None = None):
    dataset = tf.data.Dataset.from_tensor_slices(x if y is None else (x, y))
    return dataset if batch is None else dataset.batch(batch)


def read(dataset) -> list[tuple[np.ndarray, ...]]:
    return list(dataset.as_numpy_iterator())


# Computing


def test_rows_in_memory_are_those_in_a_folder(tmp_path):
    h1, (x, y) = model(), data()
    stored = store_outputs(h1, x, tmp_path / "s", y=y, batch_size=8, verbose=0)
    in_memory = StoredOutputs.compute(h1, x, y, batch_size=8)
    assert np.array_equal(in_memory[:], stored[:])
    in_memory.verify(h1, x, y)
    with pytest.raises(ValueError, match="in memory holds the outputs of another h1"):
        in_memory.verify(model(2), x, y)


@pytest.mark.parametrize(
    ("h1", "dtype", "shape"),
    [
        (lambda x: ops.cast(x, "bfloat16"), "float32", (N, 4)),
        (lambda x: ops.convert_to_numpy(x).astype("float64"), "float64", (N, 4)),
        (lambda x: ops.argmax(x, axis=1), "int64", (N,)),
        (lambda x: ops.argmax(x, axis=1)[:, None], "int64", (N,)),
        (lambda x: x[:, 0] > 0, "int64", (N,)),
        (lambda x: x[:, :1], "float32", (N, 1)),
    ],
)
def test_types_are_widened_never_narrowed(h1, dtype, shape):
    x, _ = data()
    stored = StoredOutputs.compute(h1, x, batch_size=10)
    assert (stored[:].dtype.name, stored.shape, stored.labels_only) == (dtype, shape, dtype == "int64")
    expected = ops.convert_to_numpy(ops.cast(h1(ops.convert_to_tensor(x)), "float32"))
    np.testing.assert_array_equal(stored[:], expected.reshape(shape))


def test_a_callable_may_say_that_it_gives_labels():
    def h1(x):
        return ops.cast(ops.argmax(x, axis=1), "float32")

    h1.labels_only = True
    assert StoredOutputs.compute(h1, data()[0]).labels_only


def test_structures_of_inputs(tmp_path):
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    h1 = keras.Model({"left": left, "right": right}, keras.layers.Subtract()([left, right]))
    x = {"left": data()[0], "right": data(seed=2)[0]}
    stored = store_outputs(h1, x, tmp_path / "s", batch_size=5, verbose=0)
    np.testing.assert_allclose(stored[:], x["left"] - x["right"], rtol=1e-6)
    assert stored.attach(x, data()[1])[0] is x
    with pytest.raises(ValueError, match="item 0 of the data set is not the one"):
        stored.attach({"left": x["right"], "right": x["left"]}, data()[1])
    with pytest.raises(ValueError, match=r"other parts or types.*x\['left'\] float32.*Received: x float32"):
        stored.attach(x["left"], data()[1])


def test_layers_references_and_bound_methods_are_asked():
    x, _ = data()
    dense = keras.layers.Dense(2)
    dense.build((None, 4))
    for h1 in (dense, Reference(dense, class_map=[1, 0]), functools.partial(dense, training=False), dense.call):
        np.testing.assert_allclose(StoredOutputs.compute(h1, x)[:], by_hand(dense, x), rtol=1e-5, atol=1e-6)


def test_the_progress_bar_counts_items(tmp_path, capsys):
    store_outputs(doubled, data()[0], tmp_path / "s", batch_size=8, verbose=1)
    assert "37/37" in capsys.readouterr().out
    store_outputs(doubled, data()[0], tmp_path / "t", batch_size=8, verbose=0)
    assert capsys.readouterr().out == ""


# Reusing and resuming


@pytest.mark.parametrize("batch", [None, 4])
def test_interrupted_work_on_a_data_set_is_taken_up_where_it_stopped(tmp_path, tf, batch):
    x, y = data()
    given = {"x": items(tf, x, y, batch)}
    options = {"path": tmp_path / "s", "batch_size": 4, "verbose": 0}
    with pytest.raises(RuntimeError, match="power cut"):
        store_outputs(Service(limit=18), **given, **options)
    assert np.load(tmp_path / "s" / "done.npy").sum() == 16
    rest = Service()
    stored = store_outputs(rest, **given, **options)
    # The first batch is asked about again.
    assert rest.asked == N - 16 + 4
    assert np.array_equal(stored[:], x * 2)


class PressesCtrlC(Service):
    """As `Service`, but Ctrl-C is what stops it."""

    def __call__(self, x):
        if self.asked + len(x) > self.limit:
            self.limit = float("inf")
            signal.raise_signal(signal.SIGINT)
        return super().__call__(x)


@pytest.fixture
def ctrl_c():
    """Ctrl-C as in a terminal; processes in the background begin with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_while_a_data_set_is_read_keeps_what_was_done(tmp_path, tf):
    x, _ = data()
    given = items(tf, x, batch=4)
    with pytest.raises(KeyboardInterrupt):
        store_outputs(PressesCtrlC(limit=18), given, tmp_path / "s", batch_size=4, verbose=0)
    assert np.load(tmp_path / "s" / "done.npy").sum() == 16
    rest = Service()
    assert np.array_equal(store_outputs(rest, given, tmp_path / "s", batch_size=4, verbose=0)[:], x * 2)
    assert rest.asked < N


def test_damaged_rows_are_found_by_a_data_set_too(tmp_path, tf):
    x, y = data()
    store_outputs(Service(), items(tf, x, y), tmp_path / "s", verbose=0)
    content = (tmp_path / "s" / "outputs.npy").read_bytes()
    (tmp_path / "s" / "outputs.npy").write_bytes(content[:-8] + b"\0" * 8)
    with pytest.raises(ValueError, match="row of item 36 is not the one that was written"):
        StoredOutputs.open(tmp_path / "s").attach(items(tf, x, y))


def test_a_changed_hash_is_told_as_damage_by_a_data_set_too(tmp_path, tf):
    x, y = data()
    store_outputs(Service(), items(tf, x, y), tmp_path / "s", verbose=0)
    path = tmp_path / "s" / "item_hashes.npy"
    content = path.read_bytes()
    path.write_bytes(content[: -8 * N] + b"\1\2\3\4" + content[-8 * N + 4 :])
    with pytest.raises(ValueError, match="is damaged: the row of item 0"):
        StoredOutputs.open(tmp_path / "s").attach(items(tf, x, y))


@pytest.mark.parametrize("leaves", [[], "x", [["x", "float32"]], [["x", 1, 1]], ["abc"]])
def test_a_damaged_description_of_the_items_is_told(tmp_path, leaves):
    x, _ = data()
    store_outputs(Service(), x, tmp_path / "s", verbose=0)
    file = tmp_path / "s" / "header.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "leaves": leaves}))
    with pytest.raises(ValueError, match="damaged .*overwrite=True"):
        StoredOutputs.open(tmp_path / "s")


def test_other_items_are_refused(tmp_path):
    (x, y), h1, path = data(), model(), tmp_path / "s"
    store_outputs(h1, x, path, y=y, verbose=0)
    with pytest.raises(ValueError, match=r"another data set; .*overwrite=True.*item 36 of"):
        store_outputs(h1, np.concatenate([x[:36], x[:1]]), path, y=y, verbose=0)
    with pytest.raises(ValueError, match=r"another data set; .*other parts.*Received: x float32 with 1 axes"):
        store_outputs(h1, x, path, verbose=0)


# Refusals while computing


def test_wrong_numbers_of_rows_are_refused():
    with pytest.raises(ValueError, match=r"returned \(1, 4\) for items 0 to 7, expected \(8, 4\)"):
        StoredOutputs.compute(lambda x: x[:1], data()[0], batch_size=8)
    with pytest.raises(ValueError, match=r"returned \(5, 5\) for items 32 to 36, expected \(5, 8\)"):
        StoredOutputs.compute(lambda x: ops.matmul(x, ops.transpose(x)), data()[0], batch_size=8)
    with pytest.raises(ValueError, match=r"one tensor"):
        StoredOutputs.compute(lambda x: (x, x), data()[0])


def test_an_h1_that_cannot_be_asked_is_refused(tmp_path):
    x, _ = data()
    with pytest.raises(ValueError, match=r"no weights yet.*Received: the unbuilt"):
        store_outputs(keras.Sequential([keras.layers.Dense(2)]), x, tmp_path / "s")
    with pytest.raises(TypeError, match="must be a Keras model"):
        store_outputs(Service, x, tmp_path / "s")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("x", "error", "said"),
    [
        (np.zeros((0, 4)), ValueError, "empty"),
        ((row for row in np.eye(3)), TypeError, "array or a structure of arrays"),
        ([[1.0, 2.0], [3.0, 4.0]], TypeError, r"Received: x\[0\]\[0\] of type float"),
        ({"a": np.zeros((2, 1)), "b": np.zeros((3, 1))}, ValueError, "one row for each item"),
    ],
)
def test_data_without_rows_are_refused(x, error, said):
    with pytest.raises(error, match=said):
        StoredOutputs.compute(doubled, x)


def test_batch_sizes_are_checked():
    with pytest.raises(ValueError, match="Received: batch_size=0"):
        StoredOutputs.compute(doubled, data()[0], batch_size=0)


# Opening


def test_pickles_of_rows_in_memory_know_their_items():
    x, y = data()
    in_memory = pickle.loads(pickle.dumps(StoredOutputs.compute(doubled, x)))
    with pytest.raises(ValueError, match="is not the one"):
        in_memory.attach(x[::-1], y)


def test_tables():
    table = StoredOutputs.from_table(np.array([[1], [0], [-1]], np.int8))
    assert (table[:].tolist(), table.labels_only, table.num_classes, table.path) == ([1, 0, -1], True, None, None)
    p = np.array([[0.0, 0.25, 0.75], [1.0, 0.0, 0.0]])
    rows = StoredOutputs.from_table(ops.convert_to_tensor(p), kind="probabilities")[:]
    assert np.isfinite(rows).all()
    np.testing.assert_allclose(np.exp(rows), p, atol=1e-6)
    with pytest.raises(ValueError, match="say what the scores are"):
        StoredOutputs.from_table(p)
    with pytest.raises(ValueError, match="got bool"):
        StoredOutputs.from_table([True, False])


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


def test_tensors_and_lists_are_the_same_items_as_arrays():
    x, y = data()
    stored = StoredOutputs.compute(doubled, x, y)
    joined = stored.attach(ops.convert_to_tensor(x), ops.convert_to_tensor(y.astype("int32")))[1]
    assert np.array_equal(joined, stored.attach(np.asfortranarray(x), y.tolist())[1])


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


def test_fit_reads_an_attached_data_set_and_stops_at_a_wrong_item(tf):
    x, y = data()
    dataset = items(tf, x, y)
    attached = StoredOutputs.compute(model(), dataset).attach(dataset)
    h2 = model(1)
    h2.compile("sgd", lambda y_true, y_pred: keras.losses.sparse_categorical_crossentropy(y_true[:, 0], y_pred))
    history = h2.fit(attached.shuffle(N).repeat(2).batch(8), epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    wrong = dataset.take(20).concatenate(dataset.skip(20).shuffle(N, seed=3))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"item 2\d of the data set is not the one"):
        h2.fit(StoredOutputs.compute(model(), dataset).attach(wrong).batch(8), epochs=1, verbose=0)


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


# Fingerprints


def test_fingerprints_follow_the_weights_and_nothing_else(tmp_path):
    h1 = model()
    name = fingerprint(h1)
    h1.compile("adam", "mse")
    h1.trainable = False
    h1.predict(data()[0], verbose=0)
    h1.save(tmp_path / "h1.keras")
    assert fingerprint(keras.models.load_model(tmp_path / "h1.keras")) == fingerprint(h1) == name
    weights = h1.get_weights()
    weights[0][1, 1] = np.nextafter(weights[0][1, 1], 9)
    h1.set_weights(weights)
    assert fingerprint(h1) != name
    layers = [keras.layers.Input((4,)), keras.layers.Dense(3, use_bias=False), keras.layers.Dropout(0.1)]
    short, long = keras.Sequential(layers[:2]), keras.Sequential(layers)
    assert fingerprint(short) != fingerprint(long)


def test_fingerprints_of_callables():
    assert fingerprint(doubled).partition("#")[0] == f"callable:{__name__}.doubled"
    assert fingerprint(Service()) == "service 1"
    h1 = model()
    assert fingerprint(h1) in fingerprint(functools.partial(h1, training=False))
    assert fingerprint(h1) in fingerprint(h1.predict)


def test_another_function_of_the_same_name_is_another_h1(tmp_path):
    def made(weights, add):
        if add:
            return lambda x: ops.matmul(x, weights) + 1.0
        return lambda x: ops.matmul(x, weights)

    x = data()[0]
    weights = np.random.default_rng(0).normal(size=(x.shape[1], 3)).astype("float32")
    store_outputs(made(weights, add=False), x, tmp_path / "s", verbose=0)
    StoredOutputs.open(tmp_path / "s", made(weights.copy(), add=False))
    for other in (made(weights, add=True), made(weights + 1, add=False), made(ops.convert_to_tensor(weights), False)):
        with pytest.raises(ValueError, match="another h1"):
            StoredOutputs.open(tmp_path / "s", other)
    one, two = (model(), model())
    assert fingerprint(lambda x: ops.log(one(x))) != fingerprint(lambda x: ops.log(two(x)))
    assert fingerprint(functools.partial(one, training=False)) != fingerprint(functools.partial(one, training=True))
