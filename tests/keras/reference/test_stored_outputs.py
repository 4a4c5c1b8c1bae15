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
from stored_in_keras import N, Service, by_hand, data, doubled, items, model

from bc_keras.reference._reference import Reference
from bc_keras.reference._stored import StoredOutputs, store_outputs

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


# Attached


def test_tensors_and_lists_are_the_same_items_as_arrays():
    x, y = data()
    stored = StoredOutputs.compute(doubled, x, y)
    joined = stored.attach(ops.convert_to_tensor(x), ops.convert_to_tensor(y.astype("int32")))[1]
    assert np.array_equal(joined, stored.attach(np.asfortranarray(x), y.tolist())[1])


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
