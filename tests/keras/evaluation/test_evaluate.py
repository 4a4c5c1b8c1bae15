"""`evaluate` in Keras: equal to hand counts, one question per batch, and models as they were before."""

import math
import warnings

import keras
import numpy as np
import pytest
from keras import ops
from sklearn.metrics import accuracy_score, confusion_matrix

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


def normalised(seed, frozen=False):
    """BatchNorm and Dropout, whose answers depend on the mode."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((6,)), keras.layers.Dense(8), keras.layers.BatchNormalization(), keras.layers.Dropout(0.5),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )  # fmt: skip
    model.layers[0].trainable = not frozen
    return model


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


# Numbers


@pytest.mark.parametrize("batch_size", [None, 1, 3, 100])
def test_numbers_are_those_counted_by_hand_whatever_the_batch_size(batch_size):
    found = evaluate(table(H1), table(H2), arrays(), batch_size=batch_size)
    assert by_hand(found.comparison)
    assert (found.h1_performance, found.h2_performance) == (5 / 8, 4 / 8)
    assert found.comparison.instances.ids.tolist() == [1, 2, 3, 5, 6, 7]


@pytest.mark.parametrize("compiled", [False, True])
def test_numbers_are_those_of_sklearn(compiled):
    (x, y), h1, h2 = images(200), normalised(1), normalised(2)
    if compiled:
        h2.compile("sgd", "sparse_categorical_crossentropy")
    first, second = (ops.convert_to_numpy(model(x, training=False)).argmax(1) for model in (h1, h2))
    found = evaluate(h1, h2, (x, y), batch_size=64)
    assert found.h1_performance == accuracy_score(y, first)
    assert found.h2_performance == accuracy_score(y, second)
    overlap = found.comparison.overlap
    assert confusion_matrix(first == y, second == y).tolist() == [
        [overlap.both_wrong, overlap.h2_only_right], [overlap.h1_only_right, overlap.both_right]
    ]  # fmt: skip


def test_a_class_that_is_absent_a_perfect_h1_and_a_perfect_h2():
    target = [0, 0, 1, 3, 3, 3, 1, 0]  # no instance of class 2
    right, wrong = table(target, 5), table([2] * 8, 5)
    lost = evaluate(right, wrong, arrays(target), class_names=list("abcde"))
    assert (lost.h1_performance, lost.h2_performance) == (1.0, 0.0)
    assert (lost.comparison.overlap.btc, lost.comparison.overlap.nfr, lost.comparison.overlap.pfr) == (0, 1, 0)
    assert lost.comparison.overlap.total_by_class.tolist() == [3, 2, 0, 3, 0]
    assert {entry["class"]: entry["accuracy"] for entry in lost.to_dict()["h1_accuracy_by_class"]} == {
        "a": 1.0, "b": 1.0, "c": None, "d": 1.0, "e": None,
    }  # fmt: skip
    won = evaluate(wrong, right, arrays(target))
    assert (won.h1_performance, won.h2_performance) == (0.0, 1.0)
    assert (won.comparison.overlap.nfr, won.comparison.overlap.pfr) == (0, 1)
    # Of no right answer no share is kept: 0 by definition, where BTC has nothing to divide by.
    assert (won.comparison.overlap.btc, won.comparison.overlap.bec()) == (0, 0)
    same = evaluate(right, right, arrays(target))
    assert len(same.comparison.instances) == 0
    assert same.comparison.overlap.btc == 1


# One question per batch


def test_each_model_is_asked_once_about_each_batch_in_inference_mode():
    h1, h2 = table(H1), table(H2)
    evaluate(h1, h2, arrays(), batch_size=3)
    for model in (h1, h2):
        assert asked(model) == [[0, 1, 2], [3, 4, 5], [6, 7]]
        assert {training for _, training in model.layers[-1].asked} == {False}


@pytest.mark.parametrize("given", [batches, Pieces, lambda: batches(list("abcdefgh"))])
def test_each_model_is_asked_once_about_each_batch_that_is_given(given):
    h1, h2 = table(H1), table(H2)
    evaluate(h1, h2, given(), performance_metric=lambda model, dataset, device: 0.5)
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


def state(model):
    """Weights, which of them are trained, and on torch the modes."""
    modules = model.named_modules() if BACKEND == "torch" else ()
    return (
        [ops.convert_to_numpy(weight).copy() for weight in model.weights],
        [layer.trainable for layer in model.layers],
        {name: module.training for name, module in modules},
    )


def assert_unchanged(model, before):
    weights, *modes = state(model)
    for now, then in zip(weights, before[0], strict=True):
        np.testing.assert_array_equal(now, then)
    assert modes == list(before[1:])


def test_statistics_weights_and_what_is_trained_stay_as_they_were():
    x, y = images(60)
    h1, h2 = normalised(1), normalised(2, frozen=True)
    h2.compile("sgd", "sparse_categorical_crossentropy")
    before = state(h1), state(h2)
    found = evaluate(h1, h2, (x, y), batch_size=7)
    assert_unchanged(h1, before[0])
    assert_unchanged(h2, before[1])
    assert not h2.layers[0].trainable
    # Dropout and the statistics of a batch would give others.
    first = ops.convert_to_numpy(h1(x, training=False)).argmax(1)
    assert found.h1_performance == accuracy_score(y, first)


@pytest.mark.parametrize("broken", ["h1", "data", "metric"])
def test_models_are_as_they_were_after_an_error_in_the_middle(broken):
    h1, h2 = normalised(1), normalised(2, frozen=True)
    before = state(h1), state(h2)
    (x, y), questions = images(20), []

    def no_memory(*_):
        raise ArithmeticError("no memory")

    def breaks(batch):
        questions.append(batch)
        return no_memory() if len(questions) == 2 else h1(batch, training=False)

    class Broken(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return no_memory() if index else (x[:5], y[:5])

    with pytest.raises(Exception, match="no memory"):
        evaluate(
            breaks if broken == "h1" else h1, h2, Broken() if broken == "data" else (x, y),
            batch_size=None if broken == "data" else 5, performance_metric=no_memory if broken == "metric" else None,
        )  # fmt: skip
    assert_unchanged(h1, before[0])
    assert_unchanged(h2, before[1])
    # And they can be compared again.
    assert evaluate(h1, h2, (x, y)).comparison.dataset_size == 20


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


# The caller's metric


def accuracy(model, dataset, device):
    x, y = dataset
    return float((ops.convert_to_numpy(model(x)).argmax(1) == y).mean())


KINDS = {
    "float": float,
    "tensor of the backend": ops.convert_to_tensor,
    "bfloat16 of the backend": lambda value: ops.cast(value, "bfloat16"),
    "numpy float32": np.float32,
    "numpy float64": np.float64,
    "array without axes": np.array,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_metric_may_return_any_one_number(kind):
    found = evaluate(
        table(H1), table(H2), arrays(), performance_metric=lambda *given: KINDS[kind](accuracy(*given)), batch_size=3
    )
    # Eighths are exact in every one of these types.
    assert (found.h1_performance, found.h2_performance) == (0.625, 0.5)
    assert {type(found.h1_performance), type(found.h2_performance)} == {float}


@pytest.mark.parametrize("kind", [float, np.float32, ops.convert_to_tensor])
def test_a_metric_that_says_nan_is_nan_and_leaves_the_comparison(kind):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = evaluate(table(H1), table(H2), arrays(), performance_metric=lambda *_: kind(math.nan))
    told = [entry for entry in told if "performance_metric" in str(entry.message)]
    assert [str(entry.message).split(":")[0] for entry in told] == [
        "performance_metric says NaN for h1", "performance_metric says NaN for h2",
    ]  # fmt: skip
    # They point at the caller's line. Fails as long as _evaluate.py leaves stacklevel out (3, for one function
    # between): the warning then names the library's own file.
    assert {entry.filename for entry in told} == {__file__}
    assert math.isnan(found.h1_performance)
    assert math.isnan(found.h2_performance)
    assert by_hand(found.comparison)
    assert found.to_dict()["h2_performance"] is None


def test_a_metric_gets_the_models_and_the_data_as_they_were_given():
    given, h1, h2, data = [], table(H1), table(H2), batches(list("abcdefgh"))
    evaluate(h1, h2, data, performance_metric=lambda *arguments: given.append(arguments) or 0.0)
    assert [(model, device) for model, _, device in given] == [(h1, "cpu"), (h2, "cpu")]
    assert all(dataset is data for _, dataset, _ in given)


@pytest.mark.parametrize("answer", ["good", None, [0.5], np.array([0.5]), True])
def test_a_metric_that_returns_no_number_is_refused_by_name(answer):
    with pytest.raises(TypeError, match="performance_metric must return one number for h1"):
        evaluate(table(H1), table(H2), arrays(), performance_metric=lambda *_: answer)


# Data


@pytest.mark.parametrize("names", [[f"scan-{index}" for index in range(8)], list(range(100, 108)), list("äöü\0ßéèê")])
def test_ids_of_the_batches_name_the_instances(names):
    assert by_hand(evaluate(table(H1), table(H2), batches(names)).comparison, names)
    assert by_hand(evaluate(table(H1), table(H2), arrays(), ids=names).comparison, names)
    # In another order, as a loader that shuffles gives them.
    shuffled = [tuple(part[::-1] for part in batch) for batch in reversed(batches(names))]
    assert by_hand(evaluate(table(H1), table(H2), shuffled).comparison, names)


def test_data_without_ids_are_named_by_their_positions():
    for given in (arrays(), (*arrays(), np.ones(8)), batches(), Pieces()):
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


def test_metadata_are_asked_for_by_id_and_only_for_errors():
    names, wanted = [f"scan-{index}" for index in range(8)], []

    def text(name):
        wanted.append(name)
        return f"text of {name}"

    found = evaluate(table(H1), table(H2), batches(names), metadata=text).comparison
    assert sorted(set(wanted)) == [names[index] for index in (1, 2, 3, 5, 6, 7)]
    assert [row["metadata"] for row in found.instances] == [f"text of {row['id']}" for row in found.instances]


def test_ids_that_come_twice_are_refused():
    with pytest.raises(ValueError, match="unique|twice"):
        evaluate(table(H1), table(H2), batches([0, 1, 2, 3, 0, 1, 2, 3]))
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


def test_empty_data_are_refused():
    x, y = arrays()
    with pytest.raises(ValueError, match="at least one"):
        evaluate(table(H1), table(H2), (x[:0], y[:0]))


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


def test_stored_outputs_of_labels_and_a_class_map():
    # h1's classes are 2, 0, 1 of h2's; its label 0 stands for 2.
    stored = StoredOutputs.from_table([[2, 0, 1].index(label) for label in H1])
    x, joined = stored.attach(*arrays(), num_classes=3)
    assert by_hand(evaluate(Reference(stored, [2, 0, 1]), table(H2), (x, joined)).comparison)


def test_stored_outputs_without_attached_data_are_refused():
    with pytest.raises(ValueError, match="h1 is missing"):
        evaluate(StoredOutputs.from_table(H1), table(H2), arrays())


@pytest.mark.parametrize("given", ["labels", "scores", "a callable of numpy", "a list"])
def test_the_answers_themselves_may_be_given(given):
    scores = np.eye(3, dtype="float32")[H1]
    h1 = {
        "labels": np.array(H1),
        "scores": scores,
        "a callable of numpy": lambda x: scores[ops.convert_to_numpy(x).astype(int)[:, 0]],
        "a list": H1,
    }[given]
    h2 = table(H2)
    found = evaluate(h1, h2, arrays(), batch_size=3)
    assert by_hand(found.comparison)
    assert (found.h1_performance, found.h2_performance) == (5 / 8, 4 / 8)
    assert len(asked(h2)) == 3


@pytest.mark.parametrize("answers", [np.array(H1[:7]), np.eye(3)[[*H1, 0]]])
def test_answers_of_another_number_are_refused(answers):
    with pytest.raises(ValueError, match="one row for each of the 8 instances"):
        evaluate(answers, table(H2), arrays())


@pytest.mark.parametrize("given", ["answers", "stored outputs"])
def test_a_metric_is_not_asked_of_answers(given):
    # As in bc_lightning: there is no model that it could measure. Fails as long as _evaluate.py calls the
    # metric with h1, whatever that is.
    measured, h2, data = [], table(H2), arrays()
    h1 = np.array(H1)
    if given == "stored outputs":
        h1 = StoredOutputs.from_table(np.eye(3, dtype="float32")[H1], kind="probabilities")
        data = h1.attach(*data)

    def metric(model, dataset, device):
        measured.append(model)
        return 0.25

    found = evaluate(h1, h2, data, performance_metric=metric)
    assert list(map(id, measured)) == [id(h2)]
    assert math.isnan(found.h1_performance)
    assert found.h2_performance == 0.25


# Binary models


@pytest.mark.parametrize("logits", [False, True])
def test_a_binary_model_by_hand(logits):
    y = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    p1, p2 = np.array([[0.1, 0.2, 0.6, 0.7, 0.9, 0.8, 0.3, 0.55], [0.1, 0.6, 0.2, 0.6, 0.5, 0.4, 0.9, 0.2]])
    # Class 1 from a probability of 0.5 on. Right: h1 0, 1, 4, 5, 7; h2 0, 2, 4, 6.
    h1, h2 = table([0] * 8, 1), table([0] * 8, 1)
    for model, p in ((h1, p1), (h2, p2)):
        model.layers[-1].scores = (np.log(p / (1 - p)) if logits else p).astype("float32")[:, None]
    given = {"from_logits": True} if logits else {}
    found = evaluate(h1, h2, (arrays()[0], y), **given)
    overlap = found.comparison.overlap
    assert (overlap.both_right, overlap.h1_only_right, overlap.h2_only_right, overlap.both_wrong) == (2, 3, 2, 1)
    stricter = evaluate(h1, h2, (arrays()[0], y), threshold=0.58, **given)
    # h1 loses 7 (0.55), h2 loses 4 (0.5).
    assert (stricter.h1_performance, stricter.h2_performance) == (4 / 8, 3 / 8)


def test_texts_are_left_out_where_a_shuffling_loader_gives_no_positions():
    torch = pytest.importorskip("torch")
    x, y = arrays()
    data = torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y))
    loader = torch.utils.data.DataLoader(data, batch_size=3, shuffle=True)
    with pytest.warns(UserWarning, match="does not go through its data set in order"):
        found = evaluate(table(H1), table(H2), loader, metadata=str).comparison
    assert found.overlap == evaluate(table(H1), table(H2), (x, y)).comparison.overlap
    assert found.instances.metadata is None


def test_a_metric_is_asked_of_the_model_behind_a_reference():
    asked = []

    def metric(model, dataset, device):
        asked.append(model)
        return 0.5

    h1, h2 = table(H1), table(H2)
    found = evaluate(Reference(h1), h2, arrays(), performance_metric=metric)
    assert asked == [h1, h2]
    assert (found.h1_performance, found.h2_performance) == (0.5, 0.5)


# Labels that are none


@pytest.mark.parametrize(
    ("label", "dtype"),
    [
        (-1, "int64"), (-100, "int32"), (3, "int64"), (10**9, "int64"), (2**32, "int64"), (2**62, "int64"),
        (2**63, "uint64"), (0.5, "float32"), (float("nan"), "float32"), (float("inf"), "float64"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["arrays", "batches"])
def test_labels_that_are_no_classes_are_refused(label, dtype, form):
    x, y = np.arange(8.0)[:, None], np.array(TARGET, dtype)
    y[2] = label
    data = (x, y) if form == "arrays" else [(x[:4], y[:4]), (x[4:], y[4:])]
    with pytest.raises(ValueError, match="(?i)target|labels must"):
        evaluate(table(H1), table(H2), data)


@pytest.mark.parametrize("label", [-1.0, 2.0, 1e9, float("nan")])
def test_binary_labels_that_are_none_are_refused(label):
    x, y = np.arange(8.0)[:, None], np.array([0, 1] * 4, "float32")
    binary = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, "sigmoid")])
    assert evaluate(binary, binary, (x, y)).comparison.dataset_size == 8
    y[5] = label
    with pytest.raises(ValueError, match="labels must each be 0 or 1"):
        evaluate(binary, binary, (x, y))
    with pytest.raises(ValueError, match="labels must each be 0 or 1|target"):
        evaluate(binary, binary, (x, y.astype("int64") if label == label else y))


def test_whole_numbers_of_any_type_are_classes():
    x = np.arange(8.0)[:, None]
    for dtype in ("uint8", "int16", "uint64", "float32", "float64"):
        found = evaluate(table(H1), table(H2), (x, np.array(TARGET, dtype))).comparison
        assert found.overlap.counts.sum(axis=0).tolist() == [[1, 2], [3, 2]]


def test_an_ignored_class_may_lie_outside_the_classes():
    h2 = table(H2)
    h2.compile(loss=keras.losses.SparseCategoricalCrossentropy(ignore_class=-7), run_eagerly=True)
    target = np.array(TARGET)
    target[[0, 1]] = -7
    assert evaluate(table(H1), h2, (np.arange(8.0)[:, None], target)).comparison.dataset_size == 6


@pytest.mark.parametrize("label", [-2, -7, 3, 10**9])
def test_answers_of_h1_that_are_no_classes_are_refused(label):
    answers = np.array(H1)
    answers[3] = label
    with pytest.raises(ValueError, match=f"(?i)h1.* {label}"):
        evaluate(answers, table(H2), (np.arange(8.0)[:, None], np.array(TARGET)))


@pytest.mark.parametrize("weight", [-1.0, float("nan")])
def test_weights_that_are_none_are_refused(weight):
    x, y = np.arange(8.0)[:, None], np.array(TARGET)
    assert evaluate(table(H1), table(H2), (x, y, np.full(8, 2.0))).comparison.dataset_size == 8
    with pytest.raises(ValueError, match=f"sample_weight must hold numbers of at least 0.*{weight}"):
        evaluate(table(H1), table(H2), (x, y, np.full(8, weight)))
