"""CompatibilityCallback, against numpy, bc_core and Keras's own numbers for the same epochs."""

import keras
import numpy as np
import pytest
from backends import once, once_but
from compared_models import CLASSES, ROWS, Pieces, data, deep_net, fit, net
from compared_models import quick as compiled

from bc_core import SCORES, ErrorOverlap, compare
from bc_keras.batches._attached import join_reference
from bc_keras.reference._reference import Reference
from bc_keras.reference._stored import StoredOutputs
from bc_keras.training._callback import CompatibilityCallback
from bc_keras.training._model import BCModel
from bc_keras.training.compiled._plain_models import TargetLoss

BACKEND = keras.backend.backend()


@pytest.fixture(autouse=True)
def _same_start():
    keras.utils.set_random_seed(7)


def labels_of(model, x):
    return model.predict(x, verbose=0).argmax(-1)


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


# What a backend holds itself, and arrays and batches, which it is handed.
ON_EVERY_BACKEND = [
    lambda x, y: (x, y),
    lambda x, y: (keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(y)),
    Pieces,
    as_tf,
    as_torch,
]


@pytest.mark.parametrize(
    "form",
    once_but(
        ON_EVERY_BACKEND,
        [
            *ON_EVERY_BACKEND,
            lambda x, y: [x, y],
            lambda x, y: (x, y, np.linspace(0, 1, len(y))),
            lambda x, y: (x, y[:, None]),
            lambda x, y: (x, np.eye(CLASSES, dtype="float32")[y]),
            lambda x, y: (x, y.astype("float32")),
            as_frames,
            lambda x, y: Pieces(x, y, np.ones(len(y))),
            lambda x, y: Pieces(x, y, shuffle=True),
            lambda x, y: _Again(Pieces(x, y)),
            lambda x, y: as_tf(x, y).shuffle(20, reshuffle_each_iteration=True),
        ],
    ),
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
@once
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
    assert callback.comparison.without_scores() == compare(y, h1_labels, labels_of(h2, x), num_classes=CLASSES, step=2)


@once
def test_a_bcmodel_brings_its_own_h1_and_lambda_c():
    x, y = data()
    h1, h2 = net(), net()
    callback = CompatibilityCallback((x, y))
    fit(compiled(BCModel(h2, h1=h1, lambda_c=3.0)), [callback])
    wanted = compare(y, labels_of(h1, x), labels_of(h2, x), num_classes=CLASSES, step=1, lambda_c=3.0)
    assert callback.comparison.without_scores() == wanted


@once
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
        with pytest.raises(ValueError, match="h1 is (missing|stored outputs, and these data do not carry them)"):
            model.evaluate(*data_of_model, verbose=0, callbacks=[CompatibilityCallback((x, y), h1=given)])


@once
def test_a_plain_model_on_joined_labels_is_read_as_its_wrapped_loss_says():
    x, _ = data()
    y = (x[:, 0] > 0).astype("int64")
    h1, h2 = net(1, None), net(1, None)
    joined = join_reference(y, h1.predict(x, verbose=0))
    h2.compile("sgd", loss=TargetLoss(keras.losses.BinaryCrossentropy(from_logits=True)))
    callback = CompatibilityCallback((x, joined))
    h2.fit(x, joined, verbose=0, callbacks=[callback])
    h1_labels, h2_labels = ((model.predict(x, verbose=0)[:, 0] >= 0).astype(int) for model in (h1, h2))
    assert callback.comparison.without_scores() == compare(y, h1_labels, h2_labels, num_classes=2, step=1)


@once
def test_a_class_without_successor_is_an_error_of_h1():
    x, y = data()
    callback = CompatibilityCallback((x, y), h1=np.full(ROWS, -1))
    fit(compiled(net()), [callback])
    assert callback.comparison.overlap.accuracy_h1 == 0


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("threshold", [None, 0.3])
@pytest.mark.parametrize("multilabel", [False, True])
@once
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


@once
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
    assert callback.comparison.without_scores() == compare(
        y, labels_of(h1, parts), labels_of(h2, parts), num_classes=CLASSES
    )


@once
def test_ids_and_class_names_reach_the_comparison():
    x, y = data()
    ids = [f"image {number}" for number in range(ROWS)]
    callback = CompatibilityCallback((x, y), h1=net(), ids=ids, class_names=["cat", "dog", "owl"])
    fit(compiled(net()), [callback])
    comparison = callback.comparison
    assert comparison.class_names == ("cat", "dog", "owl")
    assert comparison.instances.target.tolist() == [y[ids.index(name)] for name in comparison.instances.ids]


# When it is compared ---------------------------------------------------------------------------------------------


@once
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


@once
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
    assert callback.comparison.without_scores() == compare(y, labels_of(h1, x), labels_of(h2, x), num_classes=CLASSES)
    assert callback.history == {}


def test_a_fit_that_failed_leaves_evaluation_working():
    x, y = data()
    h2 = compiled(net())
    callback = CompatibilityCallback((x, y), h1=net())
    with pytest.raises(ZeroDivisionError):
        fit(h2, [callback, keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: 1 / 0)])
    h2.evaluate(x, y, verbose=0, callbacks=[callback])
    assert callback.comparison.step is None


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
@once
def test_arguments_are_checked_when_the_callback_is_made(options, error, message):
    with pytest.raises(error, match=message):
        CompatibilityCallback(**{"validation_data": data(), "h1": net(), **options})


@once
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
        ({"validation_data": (data()[0], data()[1] + 5)}, "classes in 0..2"),
        ({"validation_data": Pieces(np.zeros((10, 4)))}, "yield"),
    ],
)
@once
def test_what_cannot_be_compared_is_refused_before_an_epoch_is_spent(options, message):
    callback = CompatibilityCallback(**{"validation_data": data(), "h1": net(), **options})
    seen = []
    probe = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))
    with pytest.raises(ValueError, match=message):
        fit(compiled(net()), [callback, probe])
    assert seen == []


@once
def test_unbatched_data_are_refused():
    callback = CompatibilityCallback(_Again([(np.zeros(4), np.int64(1))]), h1=net())
    with pytest.raises(ValueError, match="must come in batches"):
        fit(compiled(net()), [callback])


@once
def test_an_h1_that_shares_weights_is_refused():
    h2 = compiled(net())
    for h1 in (h2, keras.Sequential([*h2.layers, keras.layers.Dense(CLASSES)])):
        h1.build((None, 4))
        with pytest.raises(ValueError, match="Received: (h1 is h2|shared)"):
            fit(h2, [CompatibilityCallback(data(), h1=h1)])


@once
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
