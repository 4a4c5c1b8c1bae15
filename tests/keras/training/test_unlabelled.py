"""Imitation on inputs without labels: what it adds to the loss, and what it leaves alone."""

from __future__ import annotations

import itertools
from typing import Any

import keras
import numpy as np
import pytest
from backends import once_but

from bc_core.losses._mixtures import first_share, shares
from bc_keras import BCModel, Reference, StoredOutputs, unwrap

N, FEATURES, CLASSES = 12, 5, 3
GENERATOR = np.random.default_rng(3)
X, MORE = (GENERATOR.normal(size=(rows, FEATURES)).astype("float32") for rows in (N, 7))
Y = GENERATOR.integers(0, CLASSES, N)


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def weights(seed: int, outputs: int = CLASSES) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(FEATURES, outputs)).astype("float32")


def linear(w: np.ndarray, activation: str | None = None) -> Any:
    layers = keras.layers
    model = keras.Sequential(
        [layers.Input((FEATURES,)), layers.Dense(w.shape[1], use_bias=False, activation=activation)]
    )
    model.set_weights([w])
    return model


def fitted(h2: Any, h1: Any, epochs: int = 1, rate: float = 0.1, x: Any = X, y: Any = Y, **options: Any) -> Any:
    model = BCModel(h2, h1=h1, **{"dissonance": "imitation", **options})
    model.compile(keras.optimizers.SGD(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model.fit(x, y, batch_size=N, epochs=epochs, shuffle=False, verbose=0).history


def divergence(p: np.ndarray, z: np.ndarray) -> float:
    return float(-(p * np.log(softmax(z))).sum(1).mean())


@pytest.mark.parametrize("new_error", [True, False])
def test_each_step_imitates_on_unlabelled_rows_too(new_error):
    old, w = weights(1), weights(2)
    h2 = linear(w)
    # Rows 0 to 2, 3 to 5, 6 and 0 and 1 ...: from the first again where they end.
    fitted(
        h2,
        linear(old),
        4,
        dissonance="new_error" if new_error else "imitation",
        lambda_c=2.0,
        unlabelled=MORE,
        unlabelled_weight=0.5,
        unlabelled_batch_size=3,
    )
    w = w.astype("float64")
    for step in range(4):
        more = MORE[(3 * step + np.arange(3)) % len(MORE)]
        p2, goal = softmax(X @ w), softmax(X @ old)
        wrong = p2 - np.eye(CLASSES)[Y]
        held = wrong * ((X @ old).argmax(1) == Y)[:, None] if new_error else p2 - goal
        slope = X.T @ (wrong + 2.0 * held) / N
        slope = slope + 2.0 * 0.5 * more.T @ (softmax(more @ w) - softmax(more @ old)) / 3
        w = w - 0.1 * slope
    np.testing.assert_allclose(h2.get_weights()[0], w, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_what_is_logged_is_the_mean_of_the_epoch_and_only_of_training(activation):
    h1 = linear(weights(1), activation)
    model = BCModel(linear(weights(2)), h1=h1, unlabelled=MORE, unlabelled_batch_size=7)
    model.compile(keras.optimizers.SGD(0.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = model.fit(X, Y, batch_size=N // 2, verbose=0, validation_data=(X, Y)).history
    expected = divergence(softmax(MORE @ weights(1)), MORE @ weights(2))
    np.testing.assert_allclose(history["unlabelled_dissonance"], [expected], rtol=1e-5)
    assert "val_unlabelled_dissonance" not in history
    assert "unlabelled_dissonance" not in model.evaluate(X, Y, verbose=0, return_dict=True)


def test_the_teacher_is_asked_where_there_is_one():
    history = fitted(
        linear(weights(2)),
        linear(weights(1)),
        rate=0.0,
        teacher=linear(weights(4), "softmax"),
        unlabelled=MORE,
        unlabelled_batch_size=7,
    )
    expected = divergence(softmax(MORE @ weights(4)), MORE @ weights(2))
    np.testing.assert_allclose(history["unlabelled_dissonance"], [expected], rtol=1e-5)


def test_binary_scores_are_imitated_by_their_base():
    h1, h2 = linear(weights(1, 1), "sigmoid"), linear(weights(2, 1), "sigmoid")
    model = BCModel(h2, h1=h1, unlabelled=MORE, unlabelled_batch_size=7)
    model.compile(keras.optimizers.SGD(0.0), "binary_crossentropy")
    history = model.fit(X, (Y > 0).astype("float32"), batch_size=N, verbose=0).history
    p1, p2 = (1 / (1 + np.exp(-(MORE @ weights(seed, 1)))) for seed in (1, 2))
    expected = -(p1 * np.log(p2) + (1 - p1) * np.log(1 - p2)).mean()
    np.testing.assert_allclose(history["unlabelled_dissonance"], [expected], rtol=1e-4)


def with_statistics(seed: int) -> Any:
    layers = keras.layers
    keras.utils.set_random_seed(seed)
    hidden = [layers.Dense(4), layers.BatchNormalization()]
    return keras.Sequential([layers.Input((FEATURES,)), *hidden, layers.Dense(CLASSES)])


def test_statistics_of_batch_normalisation_are_those_of_the_labelled_batches():
    runs = []
    for options in ({"unlabelled": 5 + 3 * MORE, "unlabelled_batch_size": 7}, {}):
        h2 = with_statistics(2)
        fitted(h2, linear(weights(1)), 3, rate=0.0, **options)
        runs.append(h2.get_weights())
        assert h2.layers[1].momentum == 0.99
    for one, other in zip(*runs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_random_layers_draw_anew_for_unlabelled_inputs():
    layers = keras.layers
    keras.utils.set_random_seed(0)
    h2 = keras.Sequential([layers.Input((FEATURES,)), layers.Dropout(0.5), layers.Dense(CLASSES)])
    values = fitted(h2, linear(weights(1)), 3, rate=0.0, unlabelled=MORE, unlabelled_batch_size=7)
    assert len(set(values["unlabelled_dissonance"])) == 3


# Where random numbers come from differs by the backend, whom they serve does not: each seed with one of both there.
@pytest.mark.parametrize(
    ("dissonance", "seed"),
    once_but([("imitation", None), ("new_error", 7)], itertools.product(["imitation", "new_error"], [None, 7])),
)
def test_without_a_weight_all_of_it_is_plain_training_with_its_dropout(dissonance, seed):
    def net(number: int) -> Any:
        keras.utils.set_random_seed(number)
        layers = keras.layers
        return keras.Sequential(
            [layers.Input((FEATURES,)), layers.Dense(8), layers.Dropout(0.5, seed=seed), layers.Dense(CLASSES)]
        )

    def trained(wrapped: Any = None) -> Any:
        h2 = net(0)
        model = h2 if wrapped is None else wrapped(h2)
        model.compile(keras.optimizers.Adam(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.optimizer.build(model.trainable_variables)  # else the first step does, which TensorFlow then traces twice
        keras.utils.set_random_seed(3)
        model.fit(X, Y, batch_size=4, epochs=3, verbose=0)
        return h2.get_weights()

    who: dict[str, Any] = {"teacher": net(2), "plain": net(4)} if dissonance == "imitation" else {}
    held = {"h1": net(1), "dissonance": dissonance, "unlabelled": MORE, "unlabelled_batch_size": 3, **who}
    plain = trained()
    for got, expected in zip(trained(lambda h2: BCModel(h2, lambda_c=0.0, **held)), plain, strict=True):
        np.testing.assert_array_equal(got, expected)
    with_weight = trained(lambda h2: BCModel(h2, lambda_c=1.0, **held))
    assert not np.array_equal(with_weight[0], plain[0])


def test_structures_of_inputs_and_whole_numbers_are_taken():
    layers = keras.layers
    ids, numbers = layers.Input((2,), dtype="int32", name="ids"), layers.Input((FEATURES,), name="numbers")
    embedded = layers.Flatten()(layers.Embedding(4, 3)(ids))

    def net() -> Any:
        return keras.Model(
            {"ids": ids, "numbers": numbers}, layers.Dense(CLASSES)(layers.Concatenate()([embedded, numbers]))
        )

    x = {"ids": np.arange(2 * N).reshape(N, 2) % 4, "numbers": X}
    more = {"ids": np.arange(14).reshape(7, 2) % 4, "numbers": MORE}
    h1, h2 = net(), net()
    embedding = h2.layers[2] if isinstance(h2.layers[2], layers.Embedding) else h2.layers[1]
    embedding.trainable = False
    history = fitted(h2, h1, x=x, unlabelled=more, unlabelled_batch_size=7, rate=0.0)
    expected = divergence(softmax(h1.predict(more, verbose=0)), h2.predict(more, verbose=0))
    np.testing.assert_allclose(history["unlabelled_dissonance"], [expected], rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"unlabelled": iter([MORE])}, TypeError, "array or a structure of arrays"),
        ({"unlabelled": np.array([["a"], ["b"]])}, TypeError, "arrays of numbers"),
        ({"unlabelled": MORE[:0]}, ValueError, "empty"),
        ({"unlabelled": MORE, "unlabelled_weight": -1.0}, ValueError, "number >= 0"),
        ({"unlabelled": MORE, "unlabelled_batch_size": 0}, ValueError, "batch_size must be at least 1"),
    ],
)
def test_inputs_and_weights_that_are_none_are_refused(options, error, says):
    with pytest.raises(error, match=says):
        BCModel(linear(weights(2)), h1=linear(weights(1)), **options)


@pytest.mark.parametrize(
    ("option", "unlabelled", "says"),
    [
        ({"unlabelled_weight": 0.5}, None, r"unlabelled_weight without .*unlabelled='mixed'.*0\.5, unlabelled=None"),
        ({"unlabelled_batch_size": 8}, None, "unlabelled_batch_size without .*unlabelled=x"),
        ({"mixed_labels": 0.0}, None, "mixed_labels without .*unlabelled='mixed'"),
        ({"unlabelled_batch_size": 8}, "mixed", "unlabelled_batch_size without .*8, unlabelled='mixed'"),
        ({"mixed_labels": 0.25}, MORE, "mixed_labels without .*unlabelled=ndarray"),
    ],
)
def test_what_is_said_of_inputs_that_are_not_given_is_refused(option, unlabelled, says):
    with pytest.raises(TypeError, match=says):
        BCModel(linear(weights(2)), h1=linear(weights(1)), unlabelled=unlabelled, **option)


def test_defaults_may_be_said():
    defaults = {"unlabelled_weight": 1, "unlabelled_batch_size": 32, "mixed_labels": 0.5}
    plain = fitted(linear(weights(2)), linear(weights(1)), **defaults)
    assert "unlabelled_dissonance" not in plain


def test_stored_outputs_hold_no_answer():
    with pytest.raises(ValueError, match="hold no answer to unlabelled inputs"):
        BCModel(linear(weights(2)), h1=StoredOutputs.from_predictions(X @ weights(1)), unlabelled=MORE)


def test_nothing_of_it_is_a_part_of_h2(tmp_path):
    h2 = linear(weights(2))
    model = BCModel(h2, h1=linear(weights(1)), unlabelled=MORE)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(X, Y, verbose=0)
    assert len(model.variables) == 1
    model.save(tmp_path / "h2.keras")
    assert unwrap(model) is h2
    assert type(keras.models.load_model(tmp_path / "h2.keras")) is keras.Sequential


# -- mixtures of the batch's own inputs --------------------------------------------------------------------------------


def test_structures_are_mixed_with_one_share_for_all_of_their_arrays():
    layers = keras.layers

    def net(seed: int) -> Any:
        keras.utils.set_random_seed(seed)
        one, other = layers.Input((FEATURES,), name="one"), layers.Input((2, 2), name="other")
        return keras.Model(
            {"one": one, "other": other}, layers.Dense(CLASSES)(layers.Concatenate()([one, layers.Flatten()(other)]))
        )

    x = {"one": X, "other": np.random.default_rng(5).normal(size=(N, 2, 2)).astype("float32")}
    h1, h2 = net(1), net(2)
    history = fitted(h2, h1, 2, x=x, unlabelled="mixed", mixed_labels=0.0, rate=0.0)
    for step, logged in enumerate(history["unlabelled_dissonance"]):
        share = shares(np.arange(float(N)), first_share(step)).astype("float32")
        mixed = {}
        for name, each in x.items():
            weight = share.reshape(-1, *[1] * (each.ndim - 1))
            mixed[name] = weight * each + (1 - weight) * each[::-1]
        expected = divergence(softmax(h1.predict(mixed, verbose=0)), h2.predict(mixed, verbose=0))
        np.testing.assert_allclose(logged, expected, rtol=1e-4)


def embedding(cast: bool) -> Any:
    layers = keras.layers
    ids = layers.Input((2,), dtype="int32" if cast else "float32")
    return keras.Model(ids, layers.Dense(CLASSES)(layers.Flatten()(layers.Embedding(4, 3)(ids))))


@pytest.mark.parametrize(
    ("cast", "dtype", "says"),
    [
        (True, "int32", "Received: inputs of type int32"),
        # Cut to whole numbers by the model, or by its embedding, without a word.
        (True, "float32", "Received: inputs of type int32"),
        (False, "float32", "of type float32, for Embedding"),
    ],
)
def test_numbers_of_words_are_not_mixed(cast, dtype, says):
    x = (np.arange(2 * N).reshape(N, 2) % 4).astype(dtype)
    h2 = embedding(cast)
    with pytest.raises(TypeError, match=says):
        fitted(h2, embedding(cast), x=x, unlabelled="mixed")
    # On JAX a fit that fails in its step leaves a model without values, whatever has failed.
    if keras.backend.backend() != "jax":
        assert h2.predict(x, verbose=0).shape == (N, CLASSES)


def categories() -> Any:
    layers = keras.layers
    ids = layers.Input((2,))
    return keras.Model(ids, layers.Dense(CLASSES)(layers.CategoryEncoding(4)(ids)))


@pytest.mark.parametrize("who", ["h2", "h1", "teacher"])
@pytest.mark.parametrize("made", [categories, lambda: embedding(False)], ids=["encoding", "embedding"])
def test_whoever_cuts_floats_to_categories_is_not_asked_about_mixtures(made, who):
    """Without a word a category of its own would answer for what lies between two others."""
    layers = keras.layers
    names = ("h1", "h2", "teacher", "member")
    asked = {name: keras.Sequential([layers.Input((2,)), layers.Dense(CLASSES)]) for name in names} | {who: made()}
    x = (np.arange(2 * N).reshape(N, 2) % 4).astype("float32")
    teacher = Reference([(asked.pop("teacher"), 0.5), (asked.pop("member"), 0.5)])
    with pytest.raises(TypeError, match="^unlabelled='mixed' mixes the inputs"):
        fitted(**asked, x=x, dissonance="imitation", unlabelled="mixed", teacher=teacher if who == "teacher" else None)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="Keras's own stateful layers cannot be trained on torch")
def test_a_stateful_layer_goes_on_from_the_labelled_batch():
    def made(seed):
        keras.utils.set_random_seed(seed)
        layers = keras.layers
        rows = layers.Input(batch_shape=(N // 2, FEATURES, 1))
        return keras.Model(rows, layers.Dense(CLASSES)(layers.SimpleRNN(3, stateful=True)(rows)))

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trained = []
    for unlabelled in (None, "mixed"):
        h2 = made(1)
        model = h2 if unlabelled is None else BCModel(h2, h1=flat(), lambda_c=0.0, unlabelled=unlabelled)
        model.compile(keras.optimizers.SGD(0.1), loss, jit_compile=False)
        model.fit(X[..., None], Y, batch_size=N // 2, epochs=2, shuffle=False, verbose=0)
        trained.append(model.get_weights())
    for plain, held in zip(*trained, strict=True):
        np.testing.assert_array_equal(plain, held)


def flat() -> Any:
    layers = keras.layers
    return keras.Sequential([layers.Input((FEATURES, 1)), layers.Flatten(), layers.Dense(CLASSES)])


def test_a_saved_training_goes_on_with_mixtures(tmp_path):
    model = BCModel(linear(weights(2)), h1=linear(weights(1)), unlabelled="mixed", unlabelled_weight=0.5)
    model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.save(tmp_path / "model.keras", with_h1=True)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        assert "unlabelled_dissonance" in each.fit(X, Y, batch_size=N, shuffle=False, verbose=0).history
    np.testing.assert_array_equal(model.get_weights()[0], loaded.get_weights()[0])


@pytest.mark.parametrize(
    ("base", "logits"),
    [("sparse", True), ("sparse", False), ("one-hot", False), ("binary", True), ("binary", False), ("hinge", True)],
)
def test_labels_are_mixed_in_every_form(base, logits):
    """h1's scores are logits or probabilities; the target is a class, a row, a label of two or a sign."""
    two = base in ("binary", "hinge")
    activation = None if logits else "sigmoid" if two else "softmax"
    h1, h2 = (linear(weights(seed, 1 if two else CLASSES), activation) for seed in (1, 2))
    y = {"sparse": Y, "one-hot": np.eye(CLASSES)[Y], "binary": Y > 0, "hinge": np.where(Y > 0, 1, -1)}[base]
    losses = keras.losses
    loss = {
        "sparse": losses.SparseCategoricalCrossentropy(from_logits=logits),
        "one-hot": losses.CategoricalCrossentropy(from_logits=logits),
        "binary": losses.BinaryCrossentropy(from_logits=logits),
        "hinge": losses.Hinge(),
    }[base]
    options = {"from_logits": logits, "h1_from_logits": logits} if base == "hinge" else {}
    model = BCModel(h2, h1=h1, dissonance="imitation", unlabelled="mixed", mixed_labels=0.25, **options)
    model.compile(keras.optimizers.SGD(0.0), loss)
    logged = model.fit(X, y.astype("float32"), batch_size=N, shuffle=False, verbose=0).history["unlabelled_dissonance"]
    share = shares(np.arange(float(N)), first_share(0))[:, None]
    x = share * X + (1 - share) * X[::-1]
    columns = (Y > 0).astype("float64")[:, None] if two else np.eye(CLASSES)[Y]
    said, z = (x @ weights(seed, 1 if two else CLASSES) for seed in (1, 2))
    if two:
        said, q = (1 / (1 + np.exp(-each)) for each in (said, z))
        goal = 0.75 * said + 0.25 * (share * columns + (1 - share) * columns[::-1])
        expected = -(goal * np.log(q) + (1 - goal) * np.log(1 - q)).mean()
    else:
        expected = divergence(0.75 * softmax(said) + 0.25 * (share * columns + (1 - share) * columns[::-1]), z)
    np.testing.assert_allclose(logged, [expected], rtol=1e-4)
