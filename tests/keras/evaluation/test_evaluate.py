"""`evaluate` in Keras, beside what tests/conformance has: arrays, data sets of every kind, Keras's own models."""

import keras
import numpy as np
import pytest
from keras import ops
from sklearn.metrics import accuracy_score

from bc_keras import BCModel, Reference, StoredOutputs, evaluate

BACKEND = keras.backend.backend()
# Eight instances by hand. Right: both 0, 4; h1 alone 1, 2, 5; h2 alone 3, 6; none 7.
TARGET = [0, 0, 1, 1, 2, 2, 0, 1]
H1 = [0, 0, 1, 0, 2, 2, 2, 2]
H2 = [0, 1, 2, 1, 2, 0, 0, 0]


class Answers(keras.layers.Layer):
    """Knows its answers: its input is the number of an instance. Notes what it is asked, where it runs eagerly."""

    def __init__(self, answers, classes=3, **options):
        super().__init__(**options)
        self.scores = np.eye(classes, dtype="float32")[answers]
        self.asked = []

    def compute_output_spec(self, x, training=None):
        # Or Keras would call it with tensors that hold no values.
        return keras.KerasTensor((*x.shape[:-1], self.scores.shape[1]))

    def call(self, x, training=None):
        rows = ops.convert_to_numpy(x)[..., 0].astype(int)
        self.asked.append((rows.tolist(), training))
        return ops.convert_to_tensor(self.scores[rows])


def table(answers, classes=3, **names):
    """A model of known answers, which runs eagerly."""
    model = keras.Sequential([keras.Input((1,), **names), Answers(answers, classes)])
    model.compile(run_eagerly=True)
    return model


def asked(model):
    return [rows for rows, _ in model.layers[-1].asked]


def arrays(target=TARGET):
    return np.arange(len(target), dtype="float32")[:, None], np.array(target)


def images(rows=20, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(rows, 6)).astype("float32"), random.integers(0, 3, rows)


def batches(names=None, size=3):
    x, y = arrays()
    starts = range(0, len(y), size)
    if names is None:
        return [(x[start : start + size], y[start : start + size]) for start in starts]
    return [(names[start : start + size], x[start : start + size], y[start : start + size]) for start in starts]


class Pieces(keras.utils.PyDataset):
    """Batches of three, of rows in the order given."""

    def __init__(self, order=range(8)):
        super().__init__()
        self.order = np.array(order)

    def __len__(self):
        return 3

    def __getitem__(self, index):
        x, y = arrays()
        rows = self.order[index * 3 : index * 3 + 3]
        return x[rows], y[rows]


def by_hand(comparison, ids=range(8)):
    """Whether a comparison is the one that was counted by hand."""
    ids = list(ids)
    overlap = comparison.overlap
    assert (overlap.both_right, overlap.h1_only_right, overlap.h2_only_right, overlap.both_wrong) == (2, 3, 2, 1)
    assert (overlap.btc, overlap.nfr, overlap.accuracy_h1, overlap.accuracy_h2) == (2 / 5, 3 / 8, 5 / 8, 4 / 8)
    found = {row["id"]: (row["target"], row["h1_pred"], row["h2_pred"]) for row in comparison.instances}
    assert found == {ids[index]: (TARGET[index], H1[index], H2[index]) for index in (1, 2, 3, 5, 6, 7)}
    return True


# One question per batch


def test_each_model_is_asked_once_about_each_batch_of_a_data_set():
    h1, h2 = table(H1), table(H2)
    evaluate(h1, h2, Pieces(), performance_metric=lambda model, dataset, device: 0.5)
    assert asked(h1) == asked(h2) == [[0, 1, 2], [3, 4, 5], [6, 7]]


def test_a_bcmodel_is_compared_as_its_h2_and_h1_is_the_one_given():
    h1, h2 = table(H1), table(H2)
    model = BCModel(h2, h1=table([0] * 8), lambda_c=0.5)
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    metrics = []
    found = evaluate(
        h1, model, arrays(), performance_metric=lambda asked, *_: metrics.append(asked) or 0.5, batch_size=3
    )
    assert by_hand(found.comparison)
    assert found.comparison.lambda_c == 0.5
    assert metrics == [h1, h2]
    assert len(asked(h1)) == len(asked(h2)) == 3


# Modes, weights and statistics


@pytest.mark.skipif(BACKEND != "torch", reason="only on torch Keras takes modules of torch")
def test_modules_of_torch_inside_keras_are_run_in_eval_mode():
    import torch

    class Mixed(keras.Model):
        def __init__(self):
            super().__init__()
            self.norm, self.drop = torch.nn.BatchNorm1d(6), torch.nn.Dropout(0.5)
            self.dense = keras.layers.Dense(3)

        def call(self, x, training=None):
            return self.dense(self.drop(self.norm(x)))

    x, y = images(60)
    keras.utils.set_random_seed(3)
    h1, h2 = Mixed(), Mixed()
    for model in (h1, h2):
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(x, y, epochs=1, verbose=0)
    wanted = [ops.convert_to_numpy(model(x, training=False)).argmax(1) for model in (h1, h2)]
    statistics = [model.norm.module.running_mean.clone() for model in (h1, h2)]
    for model in (h1, h2):
        model.train()
    found = evaluate(h1, h2, (x, y))
    assert (found.h1_performance, found.h2_performance) == tuple(accuracy_score(y, each) for each in wanted)
    for model, mean in zip((h1, h2), statistics, strict=True):
        assert torch.equal(model.norm.module.running_mean, mean)


# Data


@pytest.mark.parametrize("names", [[f"scan-{index}" for index in range(8)], list(range(100, 108)), list("äöü\0ßéèê")])
def test_ids_of_arrays_name_the_instances(names):
    assert by_hand(evaluate(table(H1), table(H2), arrays(), ids=names).comparison, names)


def test_data_without_ids_are_named_by_their_positions():
    for given in (arrays(), (*arrays(), np.ones(8)), Pieces()):
        assert by_hand(evaluate(table(H1), table(H2), given).comparison)


def test_data_in_another_order_give_the_same_counts_and_are_named_by_their_places_in_the_pass():
    order = [5, 2, 7, 0, 1, 6, 4, 3]
    found = evaluate(table(H1), table(H2), Pieces(order)).comparison
    assert found.overlap == evaluate(table(H1), table(H2), arrays()).comparison.overlap
    rows = {row["id"]: (row["target"], row["h1_pred"], row["h2_pred"]) for row in found.instances}
    assert rows == {
        place: (TARGET[index], H1[index], H2[index]) for place, index in enumerate(order) if index not in (0, 4)
    }


def test_tf_data():
    tf = pytest.importorskip("tensorflow")
    given = tf.data.Dataset.from_tensor_slices(arrays()).batch(3)
    assert by_hand(evaluate(table(H1), table(H2), given).comparison)
    shuffled = tf.data.Dataset.from_tensor_slices(arrays()).shuffle(8, seed=1).batch(3)
    found = evaluate(table(H1), table(H2), shuffled).comparison
    assert found.overlap == evaluate(table(H1), table(H2), arrays()).comparison.overlap


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_torch_loader(shuffle):
    torch = pytest.importorskip("torch")
    x, y = map(torch.as_tensor, arrays())
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=3, shuffle=shuffle)
    found = evaluate(table(H1), table(H2), loader).comparison
    assert found.overlap == evaluate(table(H1), table(H2), arrays()).comparison.overlap
    if not shuffle:
        assert by_hand(found)


def test_ids_of_arrays_that_come_twice_are_refused():
    with pytest.raises(ValueError, match="unique"):
        evaluate(table(H1), table(H2), arrays(), ids=[0, 1, 2, 3, 0, 1, 2, 3])


@pytest.mark.parametrize("names", [["a"], list("abcdefghi")])
def test_ids_of_another_number_are_refused(names):
    with pytest.raises(ValueError, match="8 instances"):
        evaluate(table(H1), table(H2), arrays(), ids=names)


def named_inputs(answers):
    """A model of two inputs by name, of which one tells the instance."""
    number, other = (keras.Input((1,), name=name) for name in ("number", "other"))
    scores = Answers(answers)(number)
    model = keras.Model({"number": number, "other": other}, scores + 0 * other)
    model.compile(run_eagerly=True)
    return model


def test_inputs_that_are_dictionaries():
    x, y = arrays()
    h1, h2 = named_inputs(H1), named_inputs(H2)
    given = {"number": x, "other": np.ones_like(x)}
    assert by_hand(evaluate(h1, h2, (given, y), batch_size=3).comparison)
    parts = [
        ({key: value[start : start + 3] for key, value in given.items()}, y[start : start + 3]) for start in (0, 3, 6)
    ]
    assert by_hand(evaluate(h1, h2, parts).comparison)
    names = [f"scan-{index}" for index in range(8)]
    named = [(names[start * 3 : start * 3 + 3], *part) for start, part in enumerate(parts)]
    assert by_hand(evaluate(h1, h2, named).comparison, names)


@pytest.mark.parametrize("shape", ["column", "one-hot", "bool"])
def test_labels_in_other_forms(shape):
    x, y = arrays()
    if shape == "bool":
        first, second = (np.array(answers) == 0 for answers in (H1, H2))
        found = evaluate(first.astype(int), table(second.astype(int), 2), (x, y == 0)).comparison.overlap
        assert found.accuracy_h1 == accuracy_score(y == 0, first)
        assert found.nfr == np.mean((first == (y == 0)) & (second != (y == 0)))
        return
    y = y[:, None] if shape == "column" else np.eye(3)[y]
    assert by_hand(evaluate(table(H1), table(H2), (x, y)).comparison)


# h1 that is no model


@pytest.mark.parametrize("kept", ["in memory", "on disk"])
def test_stored_outputs_answer_for_h1(kept, tmp_path):
    h1, h2 = table(H1), table(H2)
    x, y = arrays()
    stored = StoredOutputs.compute(h1, x, y, batch_size=4)
    if kept == "on disk":
        from bc_keras import store_outputs

        store_outputs(h1, x, tmp_path / "h1", y=y, verbose=0)
        stored = StoredOutputs.open(tmp_path / "h1")
    h1.layers[-1].asked.clear()
    for reference in (stored, Reference(stored)):
        assert by_hand(evaluate(reference, h2, stored.attach(x, y), batch_size=3).comparison)
    assert not asked(h1)
    assert asked(h2) == [[0, 1, 2], [3, 4, 5], [6, 7]] * 2


def test_texts_are_left_out_where_a_shuffling_loader_gives_no_positions():
    torch = pytest.importorskip("torch")
    x, y = arrays()
    data = torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y))
    loader = torch.utils.data.DataLoader(data, batch_size=3, shuffle=True)
    with pytest.warns(UserWarning, match="does not go through its data set in order"):
        found = evaluate(table(H1), table(H2), loader, metadata=str).comparison
    assert found.overlap == evaluate(table(H1), table(H2), (x, y)).comparison.overlap
    assert found.instances.metadata is None


# Labels that are none


def test_whole_numbers_in_floats_are_classes():
    x = np.arange(8.0)[:, None]
    for dtype in ("float32", "float64"):
        found = evaluate(table(H1), table(H2), (x, np.array(TARGET, dtype))).comparison
        assert found.overlap.counts.sum(axis=0).tolist() == [[1, 2], [3, 2]]


class Weighted(keras.utils.PyDataset):
    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


@pytest.mark.parametrize("form", ["arrays", "a list", "a PyDataset", "a generator", "tf.data"])
@pytest.mark.parametrize("weight", [-1.0, float("nan")])
def test_weights_that_are_none_are_refused(weight, form):
    x, y = np.arange(8.0)[:, None], np.array(TARGET)

    def given(weights):
        rows = [(x[at : at + 3], y[at : at + 3], weights[at : at + 3]) for at in (0, 3, 6)]
        if form == "tf.data":
            tf = pytest.importorskip("tensorflow")
            return tf.data.Dataset.from_tensor_slices((x, y, weights)).batch(3)
        return {"arrays": (x, y, weights), "a list": rows, "a PyDataset": Weighted(rows), "a generator": iter(rows)}[
            form
        ]

    assert evaluate(table(H1), table(H2), given(np.full(8, 2.0))).comparison.dataset_size == 8
    with pytest.raises(ValueError, match=f"sample_weight must hold numbers of at least 0.*{weight}"):
        evaluate(table(H1), table(H2), given(np.where(np.arange(8) == 7, weight, 1.0)))


class Shares(keras.layers.Layer):
    """Of 1 the scores 1 and 2, of 0 NaN."""

    supports_masking = True

    def call(self, x):
        return ops.concatenate([x / x, 2 * x / x], -1)


def test_nan_that_is_masked_is_nobodys_prediction():
    x, labels = np.ones((4, 3, 1), "float32"), np.ones((4, 3), int)
    x[:, 2] = 0
    h1, h2 = (
        (lambda given: ops.ones(given.shape[:2], "int32")),
        keras.Sequential([keras.Input((3, 1)), keras.layers.Masking(), Shares()]),
    )
    overlap = evaluate(h1, h2, (x, labels)).comparison.overlap
    assert (overlap.both_right, overlap.total) == (8, 8)
    x[1, 0] = np.nan
    with pytest.raises(ValueError, match=r"h2 must give finite scores.*first at index \(1, 0\)"):
        evaluate(h1, h2, (x, labels))


def test_ranges_of_a_column_are_of_the_whole_data_set_also_where_some_instances_do_not_count():
    x = np.random.default_rng(0).normal(size=(100, 3)).astype("float32")
    y, ages = np.arange(100) % 3, np.arange(100.0)
    y[:30] = 255
    h1, h2 = (keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, "softmax")]) for _ in range(2))
    h2.compile(loss=keras.losses.SparseCategoricalCrossentropy(ignore_class=255))
    (column,) = evaluate(h1, h2, (x, y), metadata={"age": ages}).comparison.slices
    edges = np.quantile(ages, (0.2, 0.4, 0.6, 0.8))
    assert column.values[1] == f"{edges[0]:.6g} to {edges[1]:.6g}"
    assert column.counts.sum(axis=(1, 2)).tolist() == [0, 10, 20, 20, 20]
