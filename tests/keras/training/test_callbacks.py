"""The callbacks, against numpy, bc_core and Keras's own numbers for the same epochs."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from bc_core import SCORES, Comparison, ErrorOverlap, LinearLambda, compare
from bc_keras.batches._attached import join_reference
from bc_keras.reference._reference import Reference
from bc_keras.reference._stored import StoredOutputs
from bc_keras.training._callback import CompatibilityCallback
from bc_keras.training._frozen_check import FrozenH1Check
from bc_keras.training._lambda_scheduler import LambdaScheduler
from bc_keras.training._model import BCModel
from bc_keras.training._plain_models import TargetLoss

BACKEND = keras.backend.backend()
CLASSES = 3
ROWS = 75


@pytest.fixture(autouse=True)
def _same_start():
    keras.utils.set_random_seed(7)


def net(units=CLASSES, activation="softmax"):
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, activation=activation)])


def deep_net(units=CLASSES, activation="softmax"):
    """A net that answers differently in training and in inference."""
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(units, activation=activation),
        ]
    )


def data(rows=ROWS):
    x = np.random.default_rng(0).normal(size=(rows, 4)).astype("float32")
    return x, (x[:, 0] > 0).astype("int64") + (x[:, 1] > 0)


def compiled(model, optimizer="sgd", metrics=None):
    model.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=metrics)
    return model


def fit(model, callbacks, epochs=1, validation_data=None, **options):
    x, y = data(40)
    return model.fit(
        x, y, batch_size=16, epochs=epochs, callbacks=callbacks, validation_data=validation_data, verbose=0, **options
    )


def labels_of(model, x):
    return model.predict(x, verbose=0).argmax(-1)


class Pieces(keras.utils.PyDataset):
    """Batches of 10, shuffled anew for every pass if wanted; counts how often it is read."""

    def __init__(self, *arrays, shuffle=False):
        super().__init__()
        self.arrays, self.shuffle, self.reads = arrays, shuffle, 0
        self.order = np.arange(len(arrays[0]))

    def __len__(self):
        return int(np.ceil(len(self.order) / 10))

    def __getitem__(self, index):
        if self.shuffle and index == 0:
            self.order = np.random.default_rng(self.reads).permutation(len(self.order))
        self.reads += 1
        rows = self.order[10 * index : 10 * index + 10]
        return tuple(array[rows] for array in self.arrays)


# What is compared ------------------------------------------------------------------------------------------------


def test_logs_hold_the_scores_of_bc_core_for_the_weights_of_the_epoch():
    x, y = data()
    h1, h2 = deep_net(), deep_net()
    callback = CompatibilityCallback((x, y), h1=h1)
    wanted = []
    probe = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: wanted.append(
            ErrorOverlap.from_predictions(y, labels_of(h1, x), labels_of(h2, x), CLASSES)
        )
    )
    optimizer = keras.optimizers.Adam(0.05)
    history = fit(compiled(h2, optimizer, ["accuracy"]), [callback, probe], epochs=3, validation_data=(x, y)).history
    assert len(set(wanted)) == 3
    for name in SCORES:
        assert history[f"val_{name}"] == [overlap.score(name) for overlap in wanted]
    np.testing.assert_allclose(history["val_accuracy_h2"], history["val_accuracy"], rtol=1e-6)
    assert callback.comparison.overlap == wanted[-1]
    assert callback.history == {
        epoch: {f"val_{name}": overlap.score(name) for name in SCORES} for epoch, overlap in enumerate(wanted)
    }


def as_tf(*arrays):
    return pytest.importorskip("tensorflow").data.Dataset.from_tensor_slices(arrays).batch(10)


def as_torch(*arrays):
    data = pytest.importorskip("torch.utils.data")
    return data.DataLoader(data.StackDataset(*arrays), batch_size=10)


def as_frames(x, y):
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(x, index=np.arange(len(x))[::-1]), pandas.Series(y, index=np.arange(len(y))[::-1])


@pytest.mark.parametrize(
    "form",
    [
        lambda x, y: (x, y),
        lambda x, y: [x, y],
        lambda x, y: (x, y, np.linspace(0, 1, len(y))),
        lambda x, y: (x, y[:, None]),
        lambda x, y: (x, np.eye(CLASSES, dtype="float32")[y]),
        lambda x, y: (x, y.astype("float32")),
        lambda x, y: (keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(y)),
        as_frames,
        Pieces,
        lambda x, y: Pieces(x, y, np.ones(len(y))),
        lambda x, y: Pieces(x, y, shuffle=True),
        lambda x, y: _Again(Pieces(x, y)),
        as_tf,
        lambda x, y: as_tf(x, y).shuffle(20, reshuffle_each_iteration=True),
        as_torch,
    ],
)
def test_every_form_of_data_gives_the_same_counts(form):
    x, y = data()
    h1, h2 = net(), compiled(net())
    callback = CompatibilityCallback(form(x, y), h1=h1)
    fit(h2, [callback], epochs=2)
    assert callback.comparison.overlap == ErrorOverlap.from_predictions(y, labels_of(h1, x), labels_of(h2, x), CLASSES)


class _Again:
    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return (self.batches[index] for index in range(len(self.batches)))


@pytest.mark.parametrize(
    "source", ["model", "scores", "scores in numpy", "labels", "rows", "row labels", "joined", "joined one-hot", "map"]
)
def test_h1_may_answer_in_many_ways(source):
    x, y = data()
    h1, h2 = net(), compiled(net())
    scores = h1.predict(x, verbose=0)
    y_in, given = (
        y,
        {
            "model": h1,
            "scores": h1.call,
            "scores in numpy": lambda x: h1.predict(np.asarray(x), verbose=0),
            "labels": lambda x: keras.ops.argmax(h1(x), axis=-1),
            "rows": scores,
            "row labels": scores.argmax(-1).tolist(),
            "map": Reference(h1, class_map=[2, 0, 1]),
        }.get(source),
    )
    if source.startswith("joined"):
        y_in = join_reference(y if source == "joined" else np.eye(CLASSES)[y], scores)
    callback = CompatibilityCallback((x, y_in), h1=given)
    fit(h2, [callback], epochs=2)
    h1_labels = scores.argmax(-1) if source != "map" else np.array([2, 0, 1])[scores.argmax(-1)]
    assert callback.comparison == compare(y, h1_labels, labels_of(h2, x), num_classes=CLASSES, step=2)


def test_a_bcmodel_brings_its_own_h1_and_lambda_c():
    x, y = data()
    h1, h2 = net(), net()
    callback = CompatibilityCallback((x, y))
    fit(compiled(BCModel(h2, h1=h1, lambda_c=3.0)), [callback])
    wanted = compare(y, labels_of(h1, x), labels_of(h2, x), num_classes=CLASSES, step=1, lambda_c=3.0)
    assert callback.comparison == wanted


def test_stored_outputs_come_with_the_labels():
    x, y = data()
    h1, h2 = net(), net()
    stored = StoredOutputs.compute(h1, x)
    packed = stored.attach(x, y)
    wrapped = BCModel(keras.models.clone_model(h2), h1=stored)
    wrapped.set_weights(h2.get_weights())
    for model, given in ((wrapped, None), (h2, stored), (h2, None)):
        data_of_model = (x, y) if model is h2 else packed
        callback = CompatibilityCallback(packed, h1=given)
        compiled(model).evaluate(*data_of_model, verbose=0, callbacks=[callback])
        wanted = ErrorOverlap.from_predictions(y, labels_of(h1, x), labels_of(h2, x), CLASSES)
        assert callback.comparison.overlap == wanted
        with pytest.raises(ValueError, match="h1 is missing"):
            model.evaluate(*data_of_model, verbose=0, callbacks=[CompatibilityCallback((x, y), h1=given)])


def test_a_plain_model_on_joined_labels_is_read_as_its_wrapped_loss_says():
    x, _ = data()
    y = (x[:, 0] > 0).astype("int64")
    h1, h2 = net(1, None), net(1, None)
    joined = join_reference(y, h1.predict(x, verbose=0))
    h2.compile("sgd", loss=TargetLoss(keras.losses.BinaryCrossentropy(from_logits=True)))
    callback = CompatibilityCallback((x, joined))
    h2.fit(x, joined, verbose=0, callbacks=[callback])
    h1_labels, h2_labels = ((model.predict(x, verbose=0)[:, 0] >= 0).astype(int) for model in (h1, h2))
    assert callback.comparison == compare(y, h1_labels, h2_labels, num_classes=2, step=1)


def test_a_class_without_successor_is_an_error_of_h1():
    x, y = data()
    callback = CompatibilityCallback((x, y), h1=np.full(ROWS, -1))
    fit(compiled(net()), [callback])
    assert callback.comparison.overlap.accuracy_h1 == 0


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("threshold", [None, 0.3])
@pytest.mark.parametrize("multilabel", [False, True])
def test_binary_scores_are_read_as_the_loss_reads_them(from_logits, threshold, multilabel):
    x, _ = data()
    units = 3 if multilabel else 1
    h1, h2 = (net(units, None if from_logits else "sigmoid") for _ in range(2))
    y = (x[:, :units] > 0.1).astype("float32")
    h2.compile("sgd", loss=keras.losses.BinaryCrossentropy(from_logits=from_logits))
    callback = CompatibilityCallback((x, y), h1=h1, threshold=threshold)
    h2.evaluate(x, y, verbose=0, callbacks=[callback])

    def classes(model):
        scores = model.predict(x, verbose=0).astype("float64")
        return ((1 / (1 + np.exp(-scores)) if from_logits else scores) >= (threshold or 0.5)).astype(int).ravel()

    wanted = ErrorOverlap.from_predictions(y.ravel().astype(int), classes(h1), classes(h2), 2)
    assert callback.comparison.overlap == wanted


def test_dense_outputs_count_every_position_and_leave_out_the_ignored_class():
    images = np.random.default_rng(0).normal(size=(6, 5, 5, 1)).astype("float32")
    y = (images[..., 0] > 0).astype(int)
    y[:, 0] = 255
    h1, h2 = (keras.Sequential([keras.Input((5, 5, 1)), keras.layers.Dense(2, activation="softmax")]) for _ in range(2))
    h2.compile("sgd", loss=keras.losses.SparseCategoricalCrossentropy(ignore_class=255))
    callback = CompatibilityCallback((images, y), h1=h1, batch_size=4)
    h2.evaluate(images, y, verbose=0, callbacks=[callback])
    counted = y != 255
    wanted = ErrorOverlap.from_predictions(
        y[counted], labels_of(h1, images)[counted], labels_of(h2, images)[counted], 2
    )
    assert callback.comparison.overlap == wanted
    assert wanted.total == 6 * 20


def test_several_inputs():
    x, y = data()

    def two():
        inputs = {"a": keras.Input((2,), name="a"), "b": keras.Input((2,), name="b")}
        hidden = keras.layers.Concatenate()(list(inputs.values()))
        return keras.Model(inputs, keras.layers.Dense(CLASSES, activation="softmax")(hidden))

    parts = {"a": x[:, :2], "b": x[:, 2:]}
    h1, h2 = two(), compiled(two())
    callback = CompatibilityCallback((parts, y), h1=h1)
    h2.evaluate(parts, y, verbose=0, callbacks=[callback])
    assert callback.comparison == compare(y, labels_of(h1, parts), labels_of(h2, parts), num_classes=CLASSES)


def test_ids_and_class_names_reach_the_comparison():
    x, y = data()
    ids = [f"image {number}" for number in range(ROWS)]
    callback = CompatibilityCallback((x, y), h1=net(), ids=ids, class_names=["cat", "dog", "owl"])
    fit(compiled(net()), [callback])
    comparison = callback.comparison
    assert comparison.class_names == ("cat", "dog", "owl")
    assert comparison.instances.target.tolist() == [y[ids.index(name)] for name in comparison.instances.ids]


# When it is compared ---------------------------------------------------------------------------------------------


def test_of_arrays_h1_is_asked_once_and_of_other_data_in_every_pass():
    x, y = data()
    h1, asked = net(), []

    def counting(x):
        asked.append(len(x))
        return h1(x)

    fit(compiled(net()), [CompatibilityCallback((x, y), h1=counting, batch_size=25)], epochs=4)
    assert asked == [25, 25, 25, 25]  # the first batch is tried before training
    asked.clear()
    pieces = Pieces(x, y)
    fit(compiled(net()), [CompatibilityCallback(pieces, h1=counting)], epochs=4)
    assert len(asked) == pieces.reads == 1 + 4 * len(pieces)


def test_every_and_always_the_last():
    x, y = data()
    callback = CompatibilityCallback((x, y), h1=net(), every=2)
    history = fit(compiled(net()), [callback], epochs=5)
    assert list(callback.history) == [1, 3, 4]
    assert len(history.history["val_nfr"]) == 3

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 2

    for order in (1, -1):
        fit(compiled(net()), [callback, Stop()][::order], epochs=9)
        assert list(callback.history) == [1, 2]


def test_early_stopping_and_checkpoints_see_the_scores(tmp_path):
    x, y = data()
    stop = keras.callbacks.EarlyStopping(monitor="val_nfr", mode="min", patience=2)
    table = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    keep = keras.callbacks.ModelCheckpoint(
        str(tmp_path / "{epoch}-{val_nfr:.3f}.weights.h5"), monitor="val_btc", mode="max", save_weights_only=True
    )
    h2 = compiled(net(), keras.optimizers.SGD(0.0))
    h1 = keras.models.clone_model(h2)
    h1.set_weights(h2.get_weights())
    # Without a learning rate nothing flips, so nothing improves.
    history = fit(h2, [CompatibilityCallback((x, y), h1=h1), stop, table, keep], epochs=9)
    assert history.history["val_nfr"] == [0.0] * 3
    assert history.history["val_btc"] == [1.0] * 3
    assert "val_bec_given_h2_wrong" in (tmp_path / "log.csv").read_text().splitlines()[0]
    assert {path.name for path in tmp_path.glob("*.h5")} == {f"{epoch}-0.000.weights.h5" for epoch in (1, 2, 3)}


def test_evaluate_outside_of_fit_sets_the_comparison():
    x, y = data()
    h1, h2 = net(), compiled(net())
    callback = CompatibilityCallback((x, y), h1=h1)
    h2.evaluate(x, y, verbose=0, callbacks=[callback])
    assert callback.comparison == compare(y, labels_of(h1, x), labels_of(h2, x), num_classes=CLASSES)
    assert callback.history == {}


def test_a_fit_that_failed_leaves_evaluation_working():
    x, y = data()
    h2 = compiled(net())
    callback = CompatibilityCallback((x, y), h1=net())
    with pytest.raises(ZeroDivisionError):
        fit(h2, [callback, keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: 1 / 0)])
    h2.evaluate(x, y, verbose=0, callbacks=[callback])
    assert callback.comparison.step is None


# What is kept ----------------------------------------------------------------------------------------------------


def test_files_by_epoch_survive_a_second_fit(tmp_path):
    x, y = data()
    folder = tmp_path / "made" / "here"
    callback = CompatibilityCallback((x, y), h1=net(), directory=folder)
    h2 = compiled(net())
    fit(h2, [callback], epochs=2)
    first = (folder / "comparison-epoch-0001.json").read_bytes()
    fit(h2, [callback], epochs=3, initial_epoch=2)
    assert sorted(path.name for path in folder.iterdir()) == [
        f"comparison-epoch-000{epoch}.json" for epoch in (1, 2, 3)
    ]
    assert Comparison.load(folder / "comparison-epoch-0003.json") == callback.comparison
    assert callback.comparison.step == 3
    assert list(callback.history) == [2]
    assert (folder / "comparison-epoch-0001.json").read_bytes() == first


def scalars_in(folder):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder)).Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }, events


def test_a_failure_loses_nothing_that_was_written(tmp_path):
    x, y = data()

    class Breaks(Pieces):
        def __getitem__(self, index):
            if self.reads == 1 + len(self) + 3:
                raise OSError("the disk is gone")
            return super().__getitem__(index)

    callback = CompatibilityCallback(Breaks(x, y), h1=net(), directory=tmp_path / "json", log_dir=tmp_path)
    with pytest.raises(OSError, match="the disk is gone"):
        fit(compiled(net()), [callback], epochs=2)
    (saved,) = (tmp_path / "json").iterdir()
    assert Comparison.load(saved) == callback.comparison
    assert list(callback.history) == [0]
    assert scalars_in(tmp_path / "compatibility")[0]["compatibility/nfr"] == [
        (0, pytest.approx(callback.comparison.overlap.nfr, rel=1e-6))
    ]


def test_tensorboard_reads_the_scores_back(tmp_path):
    x, y = data()
    callback = CompatibilityCallback((x, y), log_dir=tmp_path)
    model = compiled(BCModel(net(), h1=net()))
    fit(model, [LambdaScheduler(LinearLambda(1.0, 3.0, epochs=2), per="epoch"), callback], epochs=3)
    scalars, events = scalars_in(tmp_path / "compatibility")
    assert set(scalars) == {f"compatibility/{name}" for name in (*SCORES, "lambda_c")}
    for name in SCORES:
        wanted = [(epoch, pytest.approx(scores[f"val_{name}"], rel=1e-6)) for epoch, scores in callback.history.items()]
        assert scalars[f"compatibility/{name}"] == wanted
        assert events.SummaryMetadata(f"compatibility/{name}").summary_description == SCORES[name].description
    assert scalars["compatibility/lambda_c"] == [(0, 1.0), (1, 2.0), (2, 3.0)]
    assert len(list((tmp_path / "compatibility").iterdir())) == 1

    # A training that goes on from epoch 2 supersedes what was written of it before.
    fit(model, [callback], epochs=3, initial_epoch=2)
    scalars, _ = scalars_in(tmp_path / "compatibility")
    assert [step for step, _ in scalars["compatibility/nfr"]] == [0, 1, 2]
    assert scalars["compatibility/nfr"][2][1] == pytest.approx(callback.comparison.overlap.nfr, rel=1e-6)


@pytest.mark.skipif(BACKEND == "tensorflow", reason="Keras itself imports TensorFlow there")
def test_tensorboard_is_written_without_tensorflow(tmp_path):
    code = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "import bc_keras; from bc_tensorboard.writing._event_file import EventFile\n"
        f"EventFile({str(tmp_path)!r}).add(3, {{'a': 0.5}}, {{}})\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert scalars_in(tmp_path)[0] == {"a": [(3, 0.5)]}


def test_log_dir_without_tensorboard_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.record_writer", None)
    with pytest.raises(ImportError, match=r'pip install "backward-compat-ml\[tensorboard\]"'):
        CompatibilityCallback(data(), h1=net(), log_dir=tmp_path)
    CompatibilityCallback(data(), h1=net())


def test_verbose_prints_a_line(capsys):
    fit(compiled(net()), [CompatibilityCallback(data(), h1=net(), verbose=1, log_prefix="old_")])
    line = [line for line in capsys.readouterr().out.splitlines() if "nfr" in line]
    assert len(line) == 1
    assert line[0].startswith("Epoch 1: old_btc: 0.")


# What is refused -------------------------------------------------------------------------------------------------


class Endless(Pieces):
    @property
    def num_batches(self):
        return None


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"every": 0}, ValueError, r"every must.*Received: every=0"),
        ({"batch_size": 2.5}, ValueError, r"batch_size must.*Received: batch_size=2.5"),
        ({"threshold": 1.0}, ValueError, r"Received: threshold=1.0"),
        ({"log_prefix": None}, TypeError, r"Received: log_prefix=None"),
        ({"h1": "h1.keras"}, TypeError, r"Received: h1='h1.keras'"),
        ({"h1": np.zeros(3)}, ValueError, r"75 instances.*Received: h1 of shape \(3,\)"),
        ({"h1": np.zeros(ROWS), "validation_data": Pieces(*data())}, ValueError, "attach_h1.*Received"),
        ({"ids": [1, 2]}, ValueError, "Received: 2 ids"),
        ({"ids": [1] * ROWS}, ValueError, "ids must be unique.*Received: 75 ids, of which 1"),
        ({"validation_data": (np.zeros((3, 4)),)}, ValueError, r"\(x, y\).*Received: tuple of length 1"),
        ({"validation_data": (np.zeros((3, 4)), np.zeros(2))}, ValueError, "Received: arrays of lengths 2, 3"),
        ({"validation_data": (np.zeros((0, 4)), np.zeros(0))}, ValueError, "at least one.*Received: .*lengths 0"),
        ({"validation_data": (batch for batch in [data()])}, TypeError, "a generator cannot.*Received"),
        ({"validation_data": Endless(*data())}, ValueError, "must end.*Received: an endless"),
        ({"validation_data": Pieces(*data()), "batch_size": 3}, ValueError, "batch_size is for arrays.*Received"),
        ({"validation_data": 3}, TypeError, "Received: validation_data=int"),
    ],
)
def test_arguments_are_checked_when_the_callback_is_made(options, error, message):
    with pytest.raises(error, match=message):
        CompatibilityCallback(**{"validation_data": data(), "h1": net(), **options})


def test_an_endless_dataset_is_refused():
    with pytest.raises(ValueError, match="must end"):
        CompatibilityCallback(as_tf(*data()).repeat(), h1=net())


def two_outputs():
    inputs = keras.Input((4,))
    return keras.Model(inputs, [keras.layers.Dense(3)(inputs), keras.layers.Dense(3)(inputs)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"h1": None}, "h1 is missing.*attach_h1"),
        ({"h1": lambda x: keras.ops.zeros((len(x), 7))}, r"h2's 3 classes.*Received"),
        ({"h1": two_outputs()}, "h1 must return one tensor"),
        ({"class_names": ["cat"]}, "class names"),
        ({"validation_data": (data()[0], data()[1] + 5)}, "expected classes 0..2"),
        ({"validation_data": Pieces(np.zeros((10, 4)))}, "yield"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_an_epoch_is_spent(options, message):
    callback = CompatibilityCallback(**{"validation_data": data(), "h1": net(), **options})
    seen = []
    probe = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))
    with pytest.raises(ValueError, match=message):
        fit(compiled(net()), [callback, probe])
    assert seen == []


def test_unbatched_data_are_refused():
    callback = CompatibilityCallback(_Again([(np.zeros(4), np.int64(1))]), h1=net())
    with pytest.raises(ValueError, match="must come in batches"):
        fit(compiled(net()), [callback])


def test_an_h1_that_shares_weights_is_refused():
    h2 = compiled(net())
    for h1 in (h2, keras.Sequential([*h2.layers, keras.layers.Dense(CLASSES)])):
        h1.build((None, 4))
        with pytest.raises(ValueError, match="Received: (h1 is h2|shared)"):
            fit(h2, [CompatibilityCallback(data(), h1=h1)])


def test_a_loss_of_ones_own_does_not_say_what_binary_scores_are():
    x, _ = data()
    y = (x[:, :1] > 0).astype("float32")
    h1, h2 = (net(1, None) for _ in range(2))
    h2.compile("sgd", loss=lambda y_true, y_pred: keras.ops.mean(keras.ops.softplus(y_pred) - y_true * y_pred))
    with pytest.raises(ValueError, match="from_logits=True or False"):
        h2.fit(x, y, verbose=0, callbacks=[CompatibilityCallback((x, y), h1=h1)])
    callback = CompatibilityCallback((x, y), h1=h1, from_logits=True)
    h2.fit(x, y, verbose=0, callbacks=[callback])
    right = (h2.predict(x, verbose=0) >= 0) == (y == 1)
    assert callback.comparison.overlap.accuracy_h2 == right.mean()


# LambdaScheduler -------------------------------------------------------------------------------------------------


def constant_terms():
    """A model whose base loss b and dissonance d are the same in every batch, so that loss = b + mean(lambda_c) d."""
    x, y = np.ones((40, 4), "float32"), np.ones(40, "int64")

    def linear():
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(CLASSES, activation="softmax")])

    h1 = linear()
    h1.layers[0].bias.assign([-50.0, 50.0, -50.0])
    return compiled(BCModel(linear(), h1=h1), keras.optimizers.SGD(0.0)), x, y


@pytest.mark.parametrize("per", ["batch", "epoch"])
def test_lambda_c_of_every_batch_reaches_the_compiled_step(per):
    model, x, y = constant_terms()
    schedule = LinearLambda(1.0, 9.0, epochs=2)
    history = model.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=[LambdaScheduler(schedule, per=per)]).history
    steps = [[epoch + (batch / 5 if per == "batch" else 0) for batch in range(5)] for epoch in range(3)]
    for epoch in range(3):
        mean = np.mean([schedule(step) for step in steps[epoch]])
        assert history["dissonance"][epoch] > 0.01
        wanted = history["base_loss"][epoch] + mean * history["dissonance"][epoch]
        assert history["loss"][epoch] == pytest.approx(wanted, rel=1e-5)
    assert history["lambda_c"] == pytest.approx([schedule(step[-1]) for step in steps], rel=1e-6)


def test_a_schedule_leaves_the_rest_of_training_alone():
    x, y = data(40)

    def trained(*callbacks):
        keras.utils.set_random_seed(3)
        # h1 is never right, so lambda_c has nothing to weigh.
        model = compiled(BCModel(net(), h1=lambda x: keras.ops.cast(0 * x[:, 0], "int32") + 2))
        model.fit(x, np.minimum(y, 1), batch_size=8, epochs=2, verbose=0, callbacks=list(callbacks))
        return model.h2.get_weights()

    for plain, scheduled in zip(trained(), trained(LambdaScheduler(lambda epoch: 1 + epoch)), strict=True):
        np.testing.assert_array_equal(plain, scheduled)


def test_a_resumed_schedule_goes_on():
    model, x, y = constant_terms()
    seen = []

    def schedule(epoch):
        seen.append(epoch)
        return np.float32(epoch)

    model.fit(x, y, batch_size=20, epochs=4, initial_epoch=2, verbose=0, callbacks=[LambdaScheduler(schedule)])
    assert seen == [2.0, 2.5, 3.0, 3.5]
    assert model.lambda_c == 3.5


def test_without_a_known_number_of_batches_lambda_c_moves_by_the_epoch():
    model, x, y = constant_terms()
    seen = []
    batches = ((x[:8], y[:8]) for _ in range(100))
    scheduler = LambdaScheduler(lambda epoch: seen.append(epoch) or epoch)

    class Unknown(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            assert scheduler.params["steps"] in (None, 3)
            scheduler.set_params({**scheduler.params, "steps": None})

    model.fit(batches, steps_per_epoch=3, epochs=2, verbose=0, callbacks=[Unknown(), scheduler])
    assert seen == [0.0, 1.0]


def test_scheduler_says_what_it_sets(capsys):
    model, x, y = constant_terms()
    model.fit(x, y, verbose=0, callbacks=[LambdaScheduler(LinearLambda(2.0, 2.0), verbose=1)])
    assert "Epoch 1: LambdaScheduler setting lambda_c to 2.0." in capsys.readouterr().out


@pytest.mark.parametrize(("value", "error"), [(-1.0, ValueError), (float("nan"), ValueError), ("1", TypeError)])
def test_a_schedule_must_give_a_weight(value, error):
    model, x, y = constant_terms()
    with pytest.raises(error, match="lambda_c must be a.*Received"):
        model.fit(x, y, verbose=0, callbacks=[LambdaScheduler(lambda epoch: value)])


def test_scheduler_refuses_wrong_arguments_and_models():
    with pytest.raises(TypeError, match=r"BCModel\(lambda_c=\.\.\.\).*Received: schedule=2.0"):
        LambdaScheduler(2.0)
    with pytest.raises(ValueError, match="Received: per='step'"):
        LambdaScheduler(LinearLambda(), per="step")
    with pytest.raises(ValueError, match=r"BCModel.*Received: model=Sequential"):
        fit(compiled(net()), [LambdaScheduler(LinearLambda())])


@keras.saving.register_keras_serializable(package="test_callbacks")
def halved(epoch):
    return epoch / 2


@pytest.mark.parametrize("schedule", [LinearLambda(0.0, 4.0, epochs=2.0, delay=1.0), halved])
def test_scheduler_comes_back_from_its_config(schedule):
    config = keras.saving.serialize_keras_object(LambdaScheduler(schedule, verbose=1, per="epoch"))
    back = keras.saving.deserialize_keras_object(config)
    assert isinstance(back, LambdaScheduler)
    assert (back.schedule, back.verbose, back.per) == (schedule, 1, "epoch")


# FrozenH1Check ---------------------------------------------------------------------------------------------------


def bump(model):
    """The smallest change of one number of h1's moving averages."""
    weight = model.h1.layers[1].moving_mean
    values = keras.ops.convert_to_numpy(weight).copy()
    values[0] = np.nextafter(values[0], np.float32(1))
    weight.assign(values)


def test_a_frozen_h1_passes():
    h1 = deep_net()
    h1.trainable = True
    check = FrozenH1Check()
    fit(compiled(BCModel(net(), h1=h1)), [check, LambdaScheduler(LinearLambda())], epochs=2)
    assert check._hashes is None


@pytest.mark.parametrize(("every", "seen_in"), [(1, "in epoch 2 or before"), (3, "during the training")])
def test_the_smallest_change_of_h1_is_seen(every, seen_in):
    model = compiled(BCModel(net(), h1=deep_net()))
    change = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: bump(model) if epoch == 1 else None,
    )
    with pytest.raises(RuntimeError, match=f"h1 has changed {seen_in}.*Received: other values of .*moving_mean"):
        fit(model, [change, FrozenH1Check(every)], epochs=2)
    # A second fit takes h1 as it is then.
    fit(model, [FrozenH1Check(every)], epochs=1)


def test_an_h1_that_is_trained_is_refused():
    class Careless(keras.Model):
        def __init__(self, h1, h2, **options):
            super().__init__(**options)
            self.h1, self.h2 = h1, h2

        def call(self, x, training=None):
            return self.h2(x, training=training) + self.h1(x, training=training)

    with pytest.raises(RuntimeError, match=r"are trained.*Received: .*kernel, .*bias\."):
        fit(compiled(Careless(net(), net())), [FrozenH1Check()])
    h1 = net()
    h1.trainable = False
    # Frozen weights may be shared, as nothing changes them.
    fit(compiled(Careless(h1, keras.Sequential([*h1.layers, keras.layers.Dense(3)]))), [FrozenH1Check()])


def test_of_a_callable_there_is_nothing_to_watch(capsys):
    h1 = net()
    fit(compiled(BCModel(net(), h1=h1.call)), [FrozenH1Check()])
    assert "no weights to watch" in capsys.readouterr().out


def test_frozen_check_needs_an_h1_and_comes_back_from_its_config():
    with pytest.raises(ValueError, match="Received: model=Sequential"):
        fit(compiled(net()), [FrozenH1Check()])
    with pytest.raises(ValueError, match="Received: every=True"):
        FrozenH1Check(True)
    back = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(FrozenH1Check(every=5)))
    assert isinstance(back, FrozenH1Check)
    assert back.every == 5


def test_comparisons_go_to_the_dashboard(tmp_path):
    """What TensorBoard's own reader finds is the comparison of each epoch, with texts and images once per instance."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from bc_tensorboard.writing._format import decode
    from bc_tensorboard.writing._media import read_media

    x, y = data()
    images = (np.random.default_rng(1).random((ROWS, 6, 6)) * 255).astype("uint8")
    model = compiled(BCModel(net(), h1=net(), dissonance="strict_imitation", lambda_c=3.0))
    callback = CompatibilityCallback(
        (x, y),
        log_dir=tmp_path,
        class_names=["a", "b", "c"],
        metadata=lambda i: f"row {i}",
        images=images,
        dataset="held out",
        directory=tmp_path / "files",
    )
    fit(model, [callback], epochs=3)
    events = EventAccumulator(str(tmp_path / "compatibility"), size_guidance={"tensors": 0})
    events.Reload()
    counts = events.Tensors("backward_compatibility/held%20out/counts")
    tables = events.Tensors("backward_compatibility/held%20out/table")
    assert [event.step for event in counts] == [event.step for event in tables] == [0, 1, 2]
    wrong = set()
    for epoch, table in enumerate(tables):
        header, columns = decode(table.tensor_proto.string_val[0])
        saved = Comparison.load(tmp_path / "files" / f"comparison-epoch-{epoch + 1:04d}.json")
        assert columns["ids"].tolist() == saved.instances.ids.tolist()
        assert header["class_names"] == ["a", "b", "c"]
        assert (header["dissonance"], header["lambda_c"], header["step"]) == ("strict imitation", 3.0, epoch)
        wrong |= set(saved.instances.ids.tolist())
    (pack,) = (tmp_path / "compatibility" / "plugins" / "backward_compatibility").iterdir()
    media = read_media(pack)
    assert {int(i): text for i, text in media.texts.items()} == {i: f"row {i}" for i in wrong}


def test_a_comparison_that_cannot_be_logged_does_not_end_the_training(tmp_path, monkeypatch):
    from bc_tensorboard import summary

    def full(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(summary, "comparison", full)
    callback = CompatibilityCallback(data(), h1=net(), log_dir=tmp_path)
    with pytest.warns(UserWarning, match="comparison of epoch 2 in .* was not written whole: OSError: no space left"):
        history = fit(compiled(net()), [callback], epochs=2)
    assert len(history.history["val_nfr"]) == 2
