"""After training, in Keras alone: its names and files, models of every kind, compiled steps and optimizers."""

import keras
import numpy as np
import pytest
from backends import once
from keras import layers, ops
from user_models import data, net
from warm_programs import run_program

import bc_keras
from bc_keras import BCModel, ProjectionCallback, blend, blended_model, distil, interpolate, warm_start

X, Y = data(400)


def half(h1, h2, **options):
    return interpolate(h1, h2, (X, Y), "nfr <= 99%", alphas=[0.5], **options).model


def weights(model):
    return [np.array(ops.convert_to_numpy(each)) for each in model.weights]


def is_half(mixed, h1, h2):
    for got, first, second in zip(weights(mixed), weights(h1), weights(h2), strict=True):
        np.testing.assert_allclose(got, (first + second) / 2, rtol=1e-6, atol=1e-7)


# Weights


def test_weights_and_running_statistics_are_h2s_own_again_after_an_error():
    h1, h2 = net(0), net(1)
    before = weights(h2)
    y = np.array(Y)
    y[-1] = 7
    with pytest.raises(ValueError, match="7"):
        interpolate(h1, h2, (X, y), "nfr <= 9%", alphas=[0.5])
    assert all(np.array_equal(a, b) for a, b in zip(weights(h2), before, strict=True))


def test_a_bc_model_and_a_compiled_one_keep_their_step_and_give_a_plain_copy():
    h1, h2 = net(0), net(1)
    model = BCModel(h2, h1=h1)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(X, Y, epochs=1, verbose=0)
    step = model.train_function
    mixed = half(h1, model)
    is_half(mixed, h1, model)
    assert type(mixed) is keras.Sequential
    assert mixed.compiled
    assert not mixed.optimizer.built or int(mixed.optimizer.iterations) == 0
    assert mixed.optimizer is not model.optimizer
    assert isinstance(model, BCModel)
    assert model.train_function is step
    assert model.fit(X, Y, epochs=1, verbose=0).history["accuracy"]


WRAPPERS = {
    "spectral": lambda: [layers.SpectralNormalization(layers.Dense(4))],
    "bidirectional": lambda: [layers.Reshape((-1, 1)), layers.Bidirectional(layers.SimpleRNN(3))],
    "in time": lambda: [layers.Reshape((-1, 1)), layers.TimeDistributed(layers.Dense(2)), layers.Flatten()],
}


@pytest.mark.parametrize("name", WRAPPERS)
@once
def test_layers_that_wrap_others_are_of_one_kind_whatever_these_are_called(name):
    def made(seed):
        keras.utils.set_random_seed(seed)
        return keras.Sequential([keras.Input(X.shape[1:]), *WRAPPERS[name](), layers.Dense(3, "softmax")])

    h1, h2 = made(0), made(1)
    is_half(half(h1, h2), h1, h2)
    warm_start(h2, h1)
    assert all(np.array_equal(one, other) for one, other in zip(weights(h1), weights(h2), strict=True))
    if name == "in time":
        h1.layers[1].layer.activation = keras.activations.selu
        with pytest.raises(ValueError, match=r"differ in .*selu"):
            half(h1, h2)


class Own(keras.Model):
    """A subclass, with a layer used twice and one that the user has named."""

    def __init__(self, hidden=8, **kwargs):
        super().__init__(**kwargs)
        self.hidden = hidden
        self.first = layers.Dense(hidden, activation="relu")
        self.twice = layers.Dense(hidden, activation="relu", name="shared")
        self.last = layers.Dense(3, activation="softmax")

    def call(self, x):
        return self.last(self.twice(self.twice(self.first(x))))

    def get_config(self):
        return {"hidden": self.hidden}


@once
def test_subclassed_and_shared_layers():
    h1, h2 = Own(), Own()
    with pytest.raises(ValueError, match="h1 has no weights yet: call it once"):
        warm_start(h2, h1)
    h1(X[:1])
    with pytest.raises(ValueError, match="h2 has no weights yet: call it once"):
        warm_start(h2, h1)
    h2(X[:1])
    is_half(half(h1, h2), h1, h2)
    report = warm_start(h2, h1)
    assert report.copied == (
        *("dense/kernel", "dense/bias", "shared/kernel", "shared/bias"),
        *("dense_1/kernel", "dense_1/bias"),
    )
    assert all(np.array_equal(a, b) for a, b in zip(weights(h2), weights(h1), strict=True))


@once
def test_refuses_layers_that_compute_otherwise():
    def made(activation):
        return keras.Sequential([keras.Input((4,)), layers.Dense(5, activation=activation), layers.Dense(3)])

    with pytest.raises(ValueError, match=r"dense \(h1: Dense\(.*relu.*h2: Dense\(.*tanh"):
        half(made("relu"), made("tanh"))
    with pytest.raises(ValueError, match=r"embedding/embeddings \(h1: \(10, 3\), h2: \(12, 3\)\)"):
        half(*(keras.Sequential([keras.Input((4,)), layers.Embedding(size, 3)]) for size in (10, 12)))


@once
def test_initialisers_names_and_dropout_are_no_other_architecture():
    h1, h2 = (
        keras.Sequential(
            [keras.Input((4,)), layers.Dropout(rate), layers.Dense(3, kernel_initializer=initializer)], name=name
        )
        for rate, initializer, name in ((0.1, "ones", "old"), (0.5, "he_normal", "new"))
    )
    is_half(half(h1, h2, from_logits=True), h1, h2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_types_of_h2(dtype):
    h1 = net(0)
    keras.utils.set_random_seed(1)
    h2 = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(8, activation="relu", dtype=dtype),
            layers.Dense(3, activation="softmax", dtype=dtype),
        ]
    )
    mixed = half(h1, h2)
    kernel = mixed.layers[0].kernel
    assert keras.backend.standardize_dtype(kernel.dtype) == dtype
    expected = [np.array(ops.convert_to_numpy(ops.cast(each, "float32"))) for each in (h1.weights[0], h2.weights[0])]
    np.testing.assert_allclose(
        ops.convert_to_numpy(ops.cast(kernel, "float32")), sum(expected) / 2, rtol=1e-2, atol=1e-3
    )


def test_statistics_leave_dropout_and_the_layer_as_they_were():
    def made(seed):
        keras.utils.set_random_seed(seed)
        norm = layers.BatchNormalization(momentum=0.7)
        return keras.Sequential([keras.Input((4,)), layers.Dense(8), layers.Dropout(0.5), norm, layers.Dense(3)])

    h1, h2 = made(0), made(1)
    h1.layers[2].moving_mean.assign(np.ones(8))
    h2.layers[2].trainable = False
    for statistics in ((X, Y), X):
        mixed = half(h1, h2, statistics=statistics, batch_size=100, from_logits=True)
        inner = mixed.layers[0](X)
        batches = [ops.convert_to_numpy(inner[start : start + 100]) for start in range(0, 400, 100)]
        expected = np.mean([each.mean(0) for each in batches], 0), np.mean([each.var(0) for each in batches], 0)
        norm = mixed.layers[2]
        np.testing.assert_allclose(ops.convert_to_numpy(norm.moving_mean), expected[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(ops.convert_to_numpy(norm.moving_variance), expected[1], rtol=1e-4, atol=1e-5)
    norm = h2.layers[2]
    assert (norm.momentum, norm.trainable, "call" in vars(norm)) == (0.7, False, False)


@once
def test_data_in_other_forms():
    h1, h2 = net(0), net(1)
    whole = interpolate(h1, h2, (X, Y), "nfr <= 99%", alphas=[0, 0.5]).trials
    batches = [(X[start : start + 50], Y[start : start + 50]) for start in range(0, 400, 50)]
    listed = interpolate(h1, h2, batches, "nfr <= 99%", alphas=[0, 0.5]).trials
    assert [trial.overlap for trial in whole] == [trial.overlap for trial in listed]


def test_projection_in_a_bc_model_is_seen_by_later_callbacks():
    h1 = net(0)
    h1.compile("adam", "sparse_categorical_crossentropy")
    h1.fit(X[:60], Y[:60], epochs=20, verbose=0)
    model = BCModel(net(1), h1=h1, start_from="h1")
    model.compile(keras.optimizers.Adam(0.05), "sparse_categorical_crossentropy")
    held_out = data(1500, seed=3)
    compared = bc_keras.CompatibilityCallback(held_out, h1=h1)
    callbacks = [ProjectionCallback(h1, held_out, "nfr <= 1%", every=2), compared]
    history = model.fit(X[60:120], Y[60:120], epochs=4, verbose=0, callbacks=callbacks).history
    assert len(history["projected_alpha"]) == 2
    assert any(history["projected_alpha"])
    assert compared.comparison.overlap.gate("nfr", 0.01) == "pass"
    with pytest.raises(ValueError, match="every must be"):
        ProjectionCallback(h1, held_out, "nfr <= 1%", every=0)


@once
def test_projection_is_of_the_averages_that_fit_ends_with():
    h1 = net(0)
    h1.compile("adam", "sparse_categorical_crossentropy")
    h1.fit(X[:60], Y[:60], epochs=20, verbose=0)
    h2 = net(1)
    warm_start(h2, h1)
    optimizer = keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.5)
    h2.compile(optimizer, "sparse_categorical_crossentropy")
    held_out = data(1500, seed=3)
    callback = ProjectionCallback(h1, held_out, "nfr <= 1%")
    h2.fit(X[60:120], Y[60:120], epochs=3, verbose=0, callbacks=[callback])
    assert bc_keras.evaluate(h1, h2, held_out).comparison.overlap == callback.verdict.overlap


@once
def test_projection_asks_for_statistics_before_the_first_epoch():
    def made():
        return keras.Sequential([keras.Input((4,)), layers.BatchNormalization(), layers.Dense(3, activation="softmax")])

    h1, h2 = made(), made()
    warm_start(h2, h1)  # the same statistics, until the first step
    h2.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="statistics="):
        h2.fit(X, Y, verbose=0, callbacks=[ProjectionCallback(h1, (X, Y), "nfr <= 99%")])
    batches = [(X[:200], Y[:200]), (X[200:], Y[200:])]
    callback = ProjectionCallback(h1, (X, Y), "nfr <= 99%", statistics=batches)
    h2.fit(X, Y, verbose=0, callbacks=[callback])
    assert callback.verdict.verdict == "met"


# Blends

LOADED = """
import sys
import keras, numpy as np
x = np.load("x.npy")
for name in sys.argv[1:]:
    model = keras.models.load_model(name + ".keras")
    np.save(name + ".npy", model.predict(x, verbose=0))
assert not any(name.startswith("bc_") for name in sys.modules)
"""


def test_saved_and_loaded_by_a_process_without_this_package(tmp_path):
    settings = {"probability": {"weight": 0.3}, "logit": {"weight": 0.3}, "gate": {"ratio": 1.1}}
    found = {
        how: blend(net(0), net(1, hidden=6), (X, Y), "nfr <= 99%", how=how, **setting).model
        for how, setting in settings.items()
    }
    for how, model in found.items():
        model.save(tmp_path / f"{how}.keras")
    np.save(tmp_path / "x.npy", X)
    done = run_program("-c", LOADED, *found, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for how, model in found.items():
        answers = np.load(tmp_path / f"{how}.npy")
        np.testing.assert_allclose(answers, model.predict(X, verbose=0), rtol=1e-5, atol=1e-6)


@once
def test_is_frozen_and_shares_nothing():
    def made(seed):
        keras.utils.set_random_seed(seed)
        last = layers.Dense(3, activation="softmax")
        return keras.Sequential([keras.Input((4,)), layers.BatchNormalization(), layers.Dropout(0.9), last])

    h1, h2 = made(0), made(1)
    model = blended_model(h1, h2, weight=0.5)
    assert not model.trainable_weights
    before, held = model.predict(X, verbose=0), weights(model)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(X, Y, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(weights(model), held, strict=True))
    h2.layers[2].kernel.assign(np.zeros((4, 3)))
    np.testing.assert_array_equal(model.predict(X, verbose=0), before)
    assert h1.trainable_weights


@pytest.mark.parametrize("how", ["probability", "gate"])
@pytest.mark.parametrize("first", [None, "softmax"])
@pytest.mark.parametrize("second", [None, "softmax"])
@once
def test_forms_of_both_are_told_and_the_blend_has_h2s(how, first, second):
    h1, h2 = net(0, activation=first), net(1, activation=second)
    setting = {"ratio": 1.05} if how == "gate" else {"weight": 0.25}
    found = blend(h1, h2, (X, Y), "nfr <= 99%", how=how, **setting)
    p1, p2 = (
        ops.convert_to_numpy(ops.softmax(model.predict(X, verbose=0)) if last is None else model.predict(X, verbose=0))
        for model, last in ((h1, first), (h2, second))
    )
    expected = np.where((p2.max(1) > 1.05 * p1.max(1))[:, None], p2, p1) if how == "gate" else 0.25 * p1 + 0.75 * p2
    got = found.model.predict(X, verbose=0)
    got = got if second else ops.convert_to_numpy(ops.softmax(got))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", [None, "sigmoid"])
@pytest.mark.parametrize("how", ["probability", "logit", "gate"])
@once
def test_binary_scores(activation, how):
    h1, h2 = (net(seed, classes=1, activation=activation) for seed in (0, 1))
    setting = {"ratio": 1.02} if how == "gate" else {"weight": 0.4}
    logits = {} if activation else {"from_logits": True, "h1_from_logits": True}
    y = (X[:, 0] > 0).astype("int64")
    found = blend(h1, h2, (X, y), "nfr <= 99%", how=how, **setting, **logits)
    p1, p2 = (model.predict(X, verbose=0).astype("float64") for model in (h1, h2))
    if activation is None:
        p1, p2 = (1 / (1 + np.exp(-each)) for each in (p1, p2))
    if how == "gate":
        expected = np.where(np.maximum(p2, 1 - p2) > 1.02 * np.maximum(p1, 1 - p1), p2, p1)
    elif how == "probability":
        expected = 0.4 * p1 + 0.6 * p2
    else:
        mean = 0.4 * np.log(p1 / (1 - p1)) + 0.6 * np.log(p2 / (1 - p2))
        expected = 1 / (1 + np.exp(-mean))
    got = found.model.predict(X, verbose=0).astype("float64")
    np.testing.assert_allclose(got if activation else 1 / (1 + np.exp(-got)), expected, rtol=1e-4, atol=1e-5)
    flips = ((p1 >= 0.5).ravel() == y) & ((expected >= 0.5).ravel() != y)
    assert found.overlap.h1_only_right == flips.sum()


@once
def test_several_inputs_by_name():
    def made(seed):
        keras.utils.set_random_seed(seed)
        ins = {"a": keras.Input((4,), name="a"), "b": keras.Input((2,), name="b")}
        joined = layers.Concatenate()([ins["a"], ins["b"]])
        return keras.Model(ins, layers.Dense(3, activation="softmax")(joined))

    h1, h2 = made(0), made(1)
    x = {"a": X, "b": X[:, :2]}
    found = blend(h1, h2, (x, Y), "nfr <= 99%", weight=0.5)
    expected = (h1.predict(x, verbose=0) + h2.predict(x, verbose=0)) / 2
    np.testing.assert_allclose(found.model.predict(x, verbose=0), expected, rtol=1e-5, atol=1e-6)


@once
def test_data_that_come_as_batches_are_asked_anew_and_count_the_same():
    h1, h2 = net(0), net(1)
    order = np.random.default_rng(0)

    class Shuffled:
        def __iter__(self):
            rows = order.permutation(len(X))
            for start in range(0, len(X), 50):
                yield X[rows[start : start + 50]], Y[rows[start : start + 50]]

    plain = blend(h1, h2, (X, Y), "nfr <= 99%", weight=[0.2, 0.8])
    mixed = blend(h1, h2, Shuffled(), "nfr <= 99%", weight=[0.2, 0.8])
    assert [trial.overlap for trial in plain.trials] == [trial.overlap for trial in mixed.trials]


@once
def test_refuses_what_is_no_network_with_known_ends():
    h2 = Own()
    h2(X[:1])
    with pytest.raises(ValueError, match="subclassed model: put it behind inputs"):
        blend(net(0), h2, (X, Y), "nfr <= 1%")
    with pytest.raises(ValueError, match="same inputs"):
        blend(net(0, features=5), net(1), (X, Y), "nfr <= 1%")
    x = keras.Input((4,))
    assert blend(net(0), keras.Model(x, h2(x)), (X, Y), "nfr <= 99%", weight=0.5).overlap.total == len(X)


@once
def test_distil_knows_the_form_of_a_blend():
    """A student of probabilities under a teacher of logits."""
    teacher = blended_model(net(0, activation=None), net(1, activation=None), weight=0.5)
    model = distil(teacher, net(2))
    model.compile("sgd", "sparse_categorical_crossentropy")
    assert model._reading(ops.zeros((1, 3))).h1_from_logits is True
    assert np.isfinite(model.fit(X, Y, verbose=0).history["dissonance"][0])


@once
def test_distil_takes_another_loss():
    teacher = blended_model(net(0), net(1), weight=0.5)
    assert distil(teacher, net(2)).dissonance == "imitation"
    assert distil(teacher, net(2), loss="StrictImitationCrossEntropyLoss").dissonance == "strict_imitation"
    assert distil(teacher, net(2), dissonance="strict_imitation").dissonance == "strict_imitation"


# The start


@once
def test_names_are_those_of_the_user_or_class_and_place():
    net(5)  # moves Keras's own numbers
    h1, h2 = (
        keras.Sequential([keras.Input((4,)), layers.Dense(4, name=name), layers.Dense(4), layers.Dense(4)])
        for name in ("body", "trunk")
    )
    report = warm_start(h2, h1)
    assert report.copied == ("dense/kernel", "dense/bias", "dense_1/kernel", "dense_1/bias")
    assert report.left == {"trunk/kernel": "is not in h1", "trunk/bias": "is not in h1"}
    assert report.unused == ("body/kernel", "body/bias")


@once
def test_a_network_inside_of_a_model_is_found():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="softmax")], name="backbone")
    x = keras.Input((4,))
    outer = keras.Model(x, inner(x))
    report = warm_start(outer, keras.Sequential([keras.Input((4,)), layers.Dense(3)]))
    assert report.copied == ("backbone/dense/kernel", "backbone/dense/bias")


@once
def test_an_optimizer_that_remembers_other_weights_is_refused():
    h1, h2 = net(0), net(1)
    h2.compile("adam", "sparse_categorical_crossentropy")
    assert warm_start(h2, h1).copied  # not built yet
    h2.optimizer.build(h2.trainable_variables)
    assert warm_start(h2, h1).copied
    h2.fit(X, Y, verbose=0, batch_size=200)
    with pytest.raises(ValueError, match="made 2 steps"):
        warm_start(h2, h1)
    with pytest.raises(ValueError, match=r"compile h2 anew"):
        BCModel(h2, h1=h1, start_from="h1")
    assert not isinstance(h2, BCModel)
    h2.compile("adam", "sparse_categorical_crossentropy")
    assert BCModel(h2, h1=h1, start_from="h1") is h2
    averaged = net(2)
    averaged.compile(keras.optimizers.SGD(use_ema=True), "sparse_categorical_crossentropy")
    averaged.optimizer.build(averaged.trainable_variables)
    with pytest.raises(ValueError, match="use_ema"):
        warm_start(averaged, h1)


@once
def test_what_is_loaded_is_not_started_again(tmp_path):
    h1 = net(0)
    model = BCModel(net(1), h1=h1, start_from="h1")
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(X, Y, verbose=0)
    trained = weights(model)
    model.save(tmp_path / "whole.keras", with_h1=True)
    loaded = keras.models.load_model(tmp_path / "whole.keras")
    assert isinstance(loaded, BCModel)
    assert all(np.array_equal(a, b) for a, b in zip(weights(loaded), trained, strict=True))
    loaded.fit(X, Y, verbose=0)
    assert not np.array_equal(weights(loaded)[0], weights(h1)[0])


@once
def test_every_point_of_a_sweep_starts_from_h1(tmp_path):
    h1 = net(0)
    found = bc_keras.sweep(
        lambda: net(1), h1, (X, Y), folder=tmp_path, lambdas=[0, 1], losses="new_error", start_from="h1",
        compile={"optimizer": keras.optimizers.SGD(0.0), "loss": "sparse_categorical_crossentropy"},
        tensorboard=False, progress_bar=False,
    )  # fmt: skip
    saved = keras.models.load_model(found.model_path("new_error", 1))
    assert all(np.array_equal(a, b) for a, b in zip(weights(saved), weights(h1), strict=True))
    assert {row["nfr"] for row in found.rows()} == {0.0}


@once
def test_classes_in_another_order_are_refused_and_the_remedy_works():
    h1, order = net(0), [2, 0, 1]
    model = BCModel(net(1), h1=h1, class_map=order)
    for given in (h1, bc_keras.Reference(h1, class_map=order)):
        for mix in (interpolate, blend):
            with pytest.raises(ValueError, match="class map"):
                mix(given, model, (X, Y), "nfr <= 9%")
    reordered = net(0)
    *others, kernel, bias = h1.get_weights()
    back = np.argsort(order)
    reordered.set_weights([*others, kernel[:, back], bias[back]])
    found = blend(bc_keras.Reference(reordered), model, (X, Y), "nfr <= 99%", weight=0.5)
    right_1, right_2 = (each.predict(X, verbose=0).argmax(1) == Y for each in (reordered, found.model))
    assert found.promise.value == (right_1 & ~right_2).mean()
