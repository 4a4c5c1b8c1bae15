"""Promises in Keras alone: the callback, what is put aside, what is refused."""

from __future__ import annotations

import threading

import keras
import numpy as np
import pytest
from backends import once, once_but

from bc_core.promise._keeper import Keeper
from bc_core.promise._multiplier import Multiplier
from bc_keras import (
    BCModel,
    CompatibilityCallback,
    LambdaScheduler,
    LinearLambda,
    MeanWeights,
    StoredOutputs,
    evaluate,
    unwrap,
)
from bc_keras.training.promise._promise_looks import PromiseLooks

# Whether small nets on little data keep theirs is not what is asked here.
pytestmark = pytest.mark.filterwarnings("ignore:Promise .* missed")
PROMISE = {"promise": "nfr <= 20%", "promise_options": {"confidence": 0.9}}


def data(rows, seed):
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(rows, 4)).astype("float32")
    return x, (x[:, :3] + 0.5 * draw.normal(size=(rows, 3))).argmax(1)


TRAIN, HELD_OUT = data(96, 0), data(200, 1)


def net(seed=0):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8), keras.layers.BatchNormalization(), keras.layers.Dense(3, "softmax")]
    )


def old():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
    model.set_weights([2 * np.eye(4, 3), np.zeros(3)])
    return model


def wrapped(h1=None, **options):
    model = BCModel(net(), h1=old() if h1 is None else h1, dissonance="imitation", **options)
    # By its name the metric would be made in the first step, and TensorFlow traces a step that makes variables twice.
    metrics = [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=metrics)
    return model


def fit(model, *callbacks, x=TRAIN[0], y=TRAIN[1], epochs=3, **more):
    return model.fit(x, y, batch_size=16, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks), **more)


def test_the_callback_moves_lambda_as_the_model_does():
    one = wrapped(**PROMISE)
    logs = fit(one, validation_data=HELD_OUT).history
    callback, other = CompatibilityCallback(HELD_OUT, **PROMISE), wrapped()
    assert callback.promise is None
    others = fit(other, callback).history
    for name in ("lambda_c", "promise_nfr", "promise_nfr_bound"):
        assert others[name] == pytest.approx(logs[name], rel=1e-9), name
    assert others["promise_nfr"] == others["val_nfr"]
    assert str(callback.promise) == str(one.promise)
    for first, second in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)
    assert evaluate(old(), other, HELD_OUT).comparison.overlap.nfr == callback.promise.value


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="within a step JAX shows h1 no values; who is put aside is the same code"
)
def test_a_share_is_put_aside_at_random_and_is_not_trained_on():
    asked = []

    def h1(x):
        asked.append(np.asarray(keras.ops.convert_to_numpy(x)))
        return keras.ops.softmax(2 * x[:, :3])

    # Sorted, as arrays may be.
    order = np.argsort(TRAIN[1])
    x, y = TRAIN[0][order], TRAIN[1][order]
    model = BCModel(net(), h1=h1, dissonance="imitation", **PROMISE, promise_data=0.25, h1_from_logits=False)
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    fit(model, x=x, y=y, epochs=1)
    assert model.promise.overlap.total == 24
    held_out = next(rows for rows in asked if len(rows) == 24)
    # Four batches and a half; what came before was a look at the first rows.
    trained = np.concatenate([rows for rows in asked if len(rows) in (16, 8)][-5:])
    assert len(trained) == 72
    assert not {row.tobytes() for row in held_out} & {row.tobytes() for row in trained}
    labels = {int(y[(x == row).all(1).argmax()]) for row in held_out}
    assert labels == {0, 1, 2}


@once
def test_validation_split_is_what_is_held_out():
    model, direct = wrapped(**PROMISE), wrapped(**PROMISE)
    one = fit(model, validation_split=0.25).history
    other = fit(direct, x=TRAIN[0][:72], y=TRAIN[1][:72], validation_data=(TRAIN[0][72:], TRAIN[1][72:])).history
    assert model.promise.overlap.total == 24
    assert one["lambda_c"] == pytest.approx(other["lambda_c"], rel=1e-9)


@once
def test_stored_outputs_answer_for_held_out_data_too():
    live = wrapped(**PROMISE)
    expected = fit(live, validation_data=HELD_OUT).history["lambda_c"]
    stored = StoredOutputs.compute(old(), *TRAIN)
    model = wrapped(stored, **PROMISE)
    x, y = stored.attach(*TRAIN)
    held_out = StoredOutputs.compute(old(), *HELD_OUT).attach(*HELD_OUT)
    assert fit(model, x=x, y=y, validation_data=held_out).history["lambda_c"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("is_stored", [True, False], ids=["both stored", "teacher stored"])
@pytest.mark.parametrize("has_indices", [True, False], ids=["indices", "one-hot"])
@once
def test_rows_of_a_teacher_in_held_out_data_are_not_h1s(is_stored, has_indices):
    taught = net(5)

    def attached(x, y):
        y = y if has_indices else np.eye(3)[y]
        rows = StoredOutputs.compute(taught, x, y)
        return StoredOutputs.compute(old(), x, y).attach(x, y, teacher=rows) if is_stored else rows.attach(x, y)

    def trained(h1, teacher, train, held_out):
        model = BCModel(net(), h1=h1, dissonance="imitation", teacher=teacher, **PROMISE)
        loss = "sparse_categorical_crossentropy" if has_indices else "categorical_crossentropy"
        model.compile(keras.optimizers.SGD(0.1), loss)
        callback = CompatibilityCallback(held_out)
        return fit(model, callback, x=train[0], y=train[1], validation_data=held_out).history

    live = [(x, y if has_indices else np.eye(3)[y]) for x, y in (TRAIN, HELD_OUT)]
    expected = trained(old(), taught, *live)
    h1 = StoredOutputs.compute(old(), *live[0]) if is_stored else old()
    got = trained(h1, StoredOutputs.compute(taught, *live[0]), attached(*TRAIN), attached(*HELD_OUT))
    for name in ("lambda_c", "promise_nfr", "val_nfr", "val_accuracy_h1", "val_dissonance"):
        assert got[name] == pytest.approx(expected[name], rel=1e-5), name


@pytest.mark.parametrize("keep", ["best", "last"])
@once
def test_what_is_promised_is_of_the_averages_that_fit_ends_with(keep):
    def scores(told):
        return {name: told.overlap.score(name) for name in ("nfr", "pfr", "btc", "accuracy_h2")}

    def average():
        return keras.optimizers.SGD(0.3, use_ema=True, ema_momentum=0.9)

    model = wrapped(promise="nfr <= 20%", promise_options={"keep": keep, "every": 4})
    model.compile(average(), "sparse_categorical_crossentropy")
    fit(model, validation_data=HELD_OUT)
    assert scores(evaluate(old(), model, HELD_OUT).comparison) == scores(model.promise)
    plain = wrapped()
    plain.compile(average(), "sparse_categorical_crossentropy")
    callback = CompatibilityCallback(HELD_OUT, promise="nfr <= 20%", promise_options={"keep": keep})
    fit(plain, callback)
    assert scores(evaluate(old(), plain, HELD_OUT).comparison) == scores(callback.promise)


def test_looks_leave_the_training_of_averages_alone(monkeypatch):
    monkeypatch.setattr(Multiplier, "update", lambda self, now, shown=None: None)  # lambda_c stands still

    def trained(**options):
        model = wrapped(**options)
        model.compile(keras.optimizers.SGD(0.3, use_ema=True, ema_momentum=0.9), "sparse_categorical_crossentropy")
        fit(model, validation_data=HELD_OUT)
        return model.get_weights()

    # With "best" the mean of the weights is looked at too.
    expected = trained(lambda_c=1.0)
    for keep in ("last", "best"):
        for look in ("look", "look_at_mean"):
            monkeypatch.setattr(Keeper, look, lambda self, *counts: False)
        got = trained(promise="nfr <= 5%", promise_options={"keep": keep, "every": 4, "start": 1.0})
        for value, wanted in zip(got, expected, strict=True):
            np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-6)


@once
def test_other_batches_than_arrays():
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            rows = slice(50 * index, 50 * index + 50)
            return HELD_OUT[0][rows], HELD_OUT[1][rows]

    one, other = wrapped(**PROMISE, promise_data=Batches()), wrapped(**PROMISE, promise_data=HELD_OUT)
    assert fit(one).history["lambda_c"] == pytest.approx(fit(other).history["lambda_c"], rel=1e-9)


@once
def test_a_second_fit_goes_on_with_lambda_and_compares_anew():
    model = wrapped(**PROMISE)
    first = fit(model, epochs=2, validation_data=HELD_OUT).history["lambda_c"][-1]
    assert model.lambda_c == pytest.approx(first, rel=1e-6)  # a variable of float32
    fit(model, epochs=4, initial_epoch=2, validation_data=HELD_OUT)
    assert evaluate(old(), model, HELD_OUT).comparison.overlap.nfr == model.promise.value


@once
def test_a_training_is_taken_up_by_the_same_dissonance():
    held_to = PROMISE | {"promise_data": HELD_OUT}
    model = wrapped(**held_to)
    fit(model)
    with pytest.raises(ValueError, match="'imitation': say it again, or begin anew"):
        BCModel(model, h1=model.h1, **held_to)
    before = model.lambda_c
    assert before != 2
    again = BCModel(model, h1=model.h1, dissonance=model.dissonance, **held_to)
    assert again.lambda_c == before
    assert BCModel(unwrap(again), h1=old(), **held_to).lambda_c == 2


@once
def test_h2s_own_files_hold_nothing_of_it(tmp_path):
    model = wrapped(**PROMISE)
    fit(model, validation_data=HELD_OUT)
    model.save(tmp_path / "h2.keras")
    loaded = keras.models.load_model(tmp_path / "h2.keras")
    assert type(loaded) is keras.Sequential
    assert not hasattr(loaded, "promise")
    assert not hasattr(unwrap(model), "promise")


def test_lambda_has_one_master():
    model = wrapped(**PROMISE)
    with pytest.raises(ValueError, match="moved by the promise"):
        model.lambda_c = 3.0
    with pytest.raises(ValueError, match="leave out LambdaScheduler"):
        fit(model, LambdaScheduler(LinearLambda(end=4.0)), validation_data=HELD_OUT)
    with pytest.raises(ValueError, match="no promise of its own"):
        fit(model, CompatibilityCallback(HELD_OUT, **PROMISE), validation_data=HELD_OUT)
    plain = net()
    plain.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match=r"lambda_c of a BCModel.*BCModel\(h2, h1=h1\)"):
        fit(plain, CompatibilityCallback(HELD_OUT, h1=old(), **PROMISE))


def test_an_attribute_of_the_users_own_stays_what_it_is():
    model = net()
    model.promise = "to be kind"
    assert BCModel(model, h1=old()).promise == "to be kind"
    with pytest.raises(TypeError, match="attribute 'promise'"):
        BCModel(unwrap(model), h1=old(), **PROMISE)


def test_a_share_of_what_cannot_be_divided_is_refused_with_a_remedy():
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return TRAIN

    with pytest.raises(TypeError, match=r"arrays x and y.*promise_data=held_out"):
        wrapped(**PROMISE, promise_data=0.25).fit(Batches(), verbose=0)
    for share in (0.0, 1.0, 1, -0.5, 2):
        with pytest.raises(ValueError, match="a share between 0 and 1"):
            wrapped(**PROMISE, promise_data=share)
    with pytest.raises(ValueError, match="leaves none held out"):
        fit(wrapped(**PROMISE, promise_data=0.001))


@once
def test_the_callback_has_its_own_every():
    with pytest.raises(ValueError, match=r"CompatibilityCallback\(every=...\)"):
        CompatibilityCallback(HELD_OUT, promise="nfr <= 20%", promise_options={"every": 5})
    callback = CompatibilityCallback(HELD_OUT, every=2, **PROMISE)
    model = wrapped()
    fit(model, callback, epochs=3)
    # After the second epoch and the last.
    assert len(callback.history) == 2
    assert model.lambda_c != 2


@pytest.mark.parametrize("how", ["model", "callback"])
@pytest.mark.parametrize("keep", ["best", "last"])
@once
def test_the_verdict_is_of_the_weights_that_are_left_where_an_optimiser_averages_them(how, keep):
    options = {"promise": "nfr <= 8%", "promise_options": {"confidence": 0.9, "keep": keep}}
    callback = CompatibilityCallback(HELD_OUT, **options) if how == "callback" else None
    model = wrapped(**({} if callback else options))
    model.compile(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9), "sparse_categorical_crossentropy")
    fit(model, *([callback] if callback else []), validation_data=HELD_OUT)
    (x, y), verdict = HELD_OUT, (callback or model).promise
    right_1, right_2 = (each.predict(x, verbose=0).argmax(1) == y for each in (old(), unwrap(model)))
    assert (verdict.value, verdict.overlap.accuracy_h2) == ((right_1 & ~right_2).mean(), right_2.mean())


class Wander(keras.callbacks.Callback):
    """Other weights than the last of the training, as a mean or the restoring of earlier ones puts there."""

    def __init__(self, share):
        super().__init__()
        self.share = share

    def on_train_end(self, logs=None):
        mixed = [self.share * (weight + 0.5) + (1 - self.share) * weight for weight in self.model.get_weights()]
        self.model.set_weights(mixed)


def restored():
    return keras.callbacks.EarlyStopping(patience=1, restore_best_weights=True)


def check_verdict_behind(others, how="model", keep="best", use_ema=True):
    options = {"promise": "nfr <= 8%", "promise_options": {"confidence": 0.9, "keep": keep}}
    callback = CompatibilityCallback(HELD_OUT, **options) if how == "callback" else None
    model = wrapped(**({} if callback else options))
    ema = {"use_ema": True, "ema_momentum": 0.9} if use_ema else {}
    model.compile(keras.optimizers.SGD(0.1, **ema), "sparse_categorical_crossentropy")
    fit(model, *([callback] if callback else []), *others, validation_data=HELD_OUT, epochs=4)
    (x, y), verdict = HELD_OUT, (callback or model).promise
    right_1, right_2 = (each.predict(x, verbose=0).argmax(1) == y for each in (old(), unwrap(model)))
    assert (verdict.value, verdict.overlap.accuracy_h2) == ((right_1 & ~right_2).mean(), right_2.mean())


@pytest.mark.parametrize("how", ["model", "callback"])
@pytest.mark.parametrize("keep", ["best", "last"])
@once
def test_the_verdict_is_of_the_weights_that_callbacks_behind_it_leave(how, keep):
    check_verdict_behind([restored()], how, keep, use_ema=False)
    check_verdict_behind([Wander(0.3)], how, keep, use_ema=False)
    check_verdict_behind([Wander(4), MeanWeights(0, statistics=TRAIN[0])], how, keep)


def test_the_verdict_is_of_a_mean_that_is_put_there_after_an_optimisers():
    check_verdict_behind([MeanWeights(statistics=TRAIN[0])])


@once
def test_a_promise_that_is_missed_names_the_way_back_where_there_is_one():
    for h1, there_is in ((old(), False), (net(seed=3), True)):
        weak = {"confidence": 0.9, "start": 0.01, "most": 0.01, "average": False}  # so that it is missed
        model = wrapped(h1=h1, promise="nfr <= 1.3%", promise_data=HELD_OUT, promise_options=weak)
        with pytest.warns(UserWarning, match="missed") as told:
            fit(model, epochs=1)
        said = [str(each.message) for each in told if "missed" in str(each.message)]
        assert ("interpolate(h1, h2, held_out, promise=...)" in said[0]) == there_is


# Looks that take no part in which weights there are.
STEADY = {"promise": "nfr <= 20%", "promise_options": {"confidence": 0.9, "average": False, "keep": "last"}}


def trained(compiled=None, optimizer=None, callbacks=(), ignore_class=None, **more):
    model = wrapped(**STEADY, promise_data=more.pop("promise_data", None))
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=ignore_class)
    model.compile(optimizer, loss, **(compiled or {}))
    return model, fit(model, *callbacks, epochs=4, **more).history


@pytest.fixture
def passes(monkeypatch):
    """How often held-out data were read for a look alone."""
    count, found = PromiseLooks._count, []

    def counted(self):
        found.append(None)
        return count(self)

    monkeypatch.setattr(PromiseLooks, "_count", counted)
    return found


def marked():
    target = HELD_OUT[1].copy()
    target[::7] = -1
    return HELD_OUT[0], target


class Nudge(keras.callbacks.Callback):
    """Other weights after the validation than before."""

    def on_test_end(self, logs=None):
        self.model.set_weights([weight + 0.05 for weight in self.model.get_weights()])


# How `fit` is called, and how often held-out data are read besides: once before the first of four epochs, at least.
WAYS = {
    "as it is": ({}, 1),
    "jit": ({"compiled": {"jit_compile": True}}, 1),
    "no jit": ({"compiled": {"jit_compile": False}}, 1),
    "eager": ({"compiled": {"run_eagerly": True}}, 1),
    "a last batch that is smaller": ({"validation_batch_size": 64}, 1),
    "weights of instances": ({"validation_data": (*HELD_OUT, np.linspace(0, 2, 200))}, 1),
    "labels to ignore": ({"validation_data": marked(), "ignore_class": -1}, 1),
    "the first batches alone": ({"validation_steps": 2}, 5),
    "every second epoch": ({"validation_freq": 2}, 3),
    "other rows": ({"validation_data": data(200, 2), "promise_data": HELD_OUT}, 5),
    "averages of the optimizer": ({"use_ema": True}, 5),
    "weights that a callback changes": ({"callbacks": [Nudge]}, 5),
}


# Which batches are held out, and when, is told before steps run.
_TOLD_BEFORE = ("the first batches alone", "every second epoch", "other rows", "weights of instances")


@pytest.mark.parametrize("way", once_but([way for way in WAYS if way not in _TOLD_BEFORE], WAYS))
def test_a_look_shows_what_a_pass_of_its_own_does(way, passes):
    given, wanted = WAYS[way]
    # torch compiles a step for minutes; on the others an eager one is slow, and the code that it runs is torch's too.
    if way == ("jit" if keras.backend.backend() == "torch" else "eager"):
        pytest.skip("slow")
    given = {"validation_data": HELD_OUT} | given

    def run(**changed):
        now = given | changed
        now["callbacks"] = [each() for each in now.pop("callbacks", [])]
        ema = {"use_ema": now.pop("use_ema", False)}
        return trained(optimizer=keras.optimizers.SGD(0.3, **ema, ema_momentum=0.5), **now)

    model, logs = run()
    assert len(passes) == wanted
    held_out = given.get("promise_data") or given["validation_data"][:2]
    other, others = run(promise_data=tuple(np.array(part) for part in held_out))
    assert logs["promise_nfr"] == others["promise_nfr"]
    assert logs["lambda_c"] == others["lambda_c"]
    for first, second in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)
    if way not in ("labels to ignore", "weights that a callback changes"):
        assert model.promise.value == evaluate(old(), model, held_out).comparison.overlap.nfr


@once
def test_the_mean_of_weights_is_looked_at_besides(passes):
    model = wrapped(**PROMISE)
    fit(model, epochs=4, validation_data=HELD_OUT)
    assert len(passes) == 2  # before the first epoch, and the mean after the fourth
    assert model.promise.value == evaluate(old(), model, HELD_OUT).comparison.overlap.nfr


class Listener(keras.callbacks.Callback):
    """In which thread Keras tells of batches: in that of the training where it waits for each one's logs."""

    async_safe = True

    def __init__(self):
        super().__init__()
        self.threads = set()

    def on_train_batch_end(self, batch, logs=None):
        self.threads.add(threading.current_thread())


@pytest.mark.parametrize("every", [None, 2])
def test_no_step_waits_for_its_logs_unless_looks_are_within_epochs(every):
    listener, alone = Listener(), Listener()
    plain = net()
    plain.compile("sgd", "sparse_categorical_crossentropy")
    fit(plain, alone, validation_data=HELD_OUT)
    fit(wrapped(promise="nfr <= 20%", promise_options={"every": every}), listener, validation_data=HELD_OUT)
    wanted = alone.threads if every is None else {threading.current_thread()}
    waits, wanted = ({each is threading.current_thread() for each in threads} for threads in (listener.threads, wanted))
    assert waits == wanted
