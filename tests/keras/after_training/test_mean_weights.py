"""`MeanWeights` in Keras alone: data that statistics are estimated from, and layers that keep theirs."""

import keras
import numpy as np
import pytest
import torch
from keras import layers, ops
from torch.utils.data import DataLoader
from user_models import data

from bc_keras import MeanWeights

tf = pytest.importorskip("tensorflow")

X, Y = data(60)
LEFT, RIGHT = X[:, :2], X[:, 2:]


class Batches(keras.utils.PyDataset):
    """Inputs alone."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return X[index * 20 : index * 20 + 20]


class Pieces(keras.utils.PyDataset):
    """Two inputs where h2 takes one, in an order of its own."""

    def __init__(self):
        super().__init__()
        self.draw = np.random.default_rng(0)

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return (LEFT[self.draw.permutation(20)], RIGHT[:20]), Y[:20]


def normalised(norm=None):
    keras.utils.set_random_seed(0)
    norm = layers.BatchNormalization() if norm is None else norm
    return keras.Sequential([keras.Input((X.shape[1],)), norm, layers.Dense(3, "softmax")])


def fitted(model, statistics, x=X, epochs=2, callbacks=()):
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(x, Y, epochs=epochs, verbose=0, callbacks=[MeanWeights(statistics=statistics), *callbacks])
    return model


def numbers(variable):
    return np.array(ops.convert_to_numpy(variable))


class Epochs(keras.callbacks.Callback):
    count = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.count += 1


@pytest.mark.parametrize("form", ["batches of x", "pairs", "dictionary"])
def test_statistics_of_inputs_with_or_without_labels(form):
    given = {"batches of x": Batches(workers=1), "pairs": [(X[:20], Y[:20]), (X[20:40], Y[20:40]), (X[40:], Y[40:])]}
    if form == "dictionary":
        sides = {name: keras.Input((each.shape[1],), name=name) for name, each in (("a", LEFT), ("b", RIGHT))}
        norm = layers.BatchNormalization()
        answer = layers.Dense(3, "softmax")(norm(layers.Concatenate()(list(sides.values()))))
        model = fitted(keras.Model(sides, answer), {"a": LEFT, "b": RIGHT}, {"a": LEFT, "b": RIGHT})
        starts = [slice(0, 32), slice(32, 60)]
    else:
        model = fitted(normalised(), given[form])
        norm, starts = model.layers[0], [slice(0, 20), slice(20, 40), slice(40, 60)]
    means, variances = (np.mean([of(X[each], 0) for each in starts], 0) for of in (np.mean, np.var))
    np.testing.assert_allclose(numbers(norm.moving_mean), means, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(numbers(norm.moving_variance), variances, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        (lambda: (each for each in [(X, Y)]), TypeError, "statistics must be .* which a generator cannot"),
        (lambda: [LEFT, RIGHT], ValueError, "statistics must hold inputs as h2 takes them"),
        (lambda: [(X[:0], Y[:0])], ValueError, "statistics must hold at least one batch"),
        (Pieces, ValueError, "statistics must hold inputs as h2 takes them"),
        (lambda: tf.data.Dataset.from_tensor_slices((X[:, :3], Y)).batch(8), ValueError, "Received what h2 refuses"),
        (lambda: tf.data.Dataset.from_tensor_slices((X, Y)), ValueError, "Received what h2 refuses"),
        (lambda: tf.data.Dataset.from_tensor_slices((X, Y, Y, Y)).batch(8), ValueError, "must be, or yield"),
        (lambda: DataLoader([(x[:3], y) for x, y in zip(X, Y, strict=True)], 8), ValueError, "inputs as h2 takes them"),
        (lambda: DataLoader([], 8), ValueError, "statistics must hold at least one batch"),
    ],
    ids=["generator", "arrays", "empty", "pieces", "features", "unbatched", "four", "loader", "empty loader"],
)
def test_statistics_that_cannot_be_read_are_refused_before_an_epoch_is_spent(given, error, says):
    seen = Epochs()
    with pytest.raises(error, match=says):
        fitted(normalised(), given(), callbacks=[seen])
    assert seen.count == 0


def test_a_class_of_the_users_that_takes_less_is_estimated_too():
    class Normalization(layers.BatchNormalization):
        def call(self, inputs, training=None):
            return super().call(inputs, training=training)

    model = fitted(normalised(Normalization()), X)
    np.testing.assert_allclose(
        numbers(model.layers[0].moving_mean), (X[:32].mean(0) + X[32:].mean(0)) / 2, rtol=1e-5, atol=1e-6
    )


def test_layers_whose_statistics_the_training_has_not_moved_keep_them():
    class Net(keras.Model):
        """A backbone that was trained before, and is used in inference mode, as tutorials of fine-tuning have it."""

        def __init__(self):
            super().__init__()
            self.backbone, self.norm = layers.BatchNormalization(), layers.BatchNormalization()
            self.scores = layers.Dense(3, "softmax")

        def call(self, inputs, training=None):
            return self.scores(self.norm(self.backbone(inputs, training=False), training=training))

    model = Net()
    model(X[:2])
    before = np.arange(1.0, X.shape[1] + 1)
    model.backbone.moving_mean.assign(before)
    fitted(model, X)
    np.testing.assert_array_equal(numbers(model.backbone.moving_mean), before)
    inner = numbers(model.backbone(X, training=False))
    np.testing.assert_allclose(
        numbers(model.norm.moving_mean), (inner[:32].mean(0) + inner[32:].mean(0)) / 2, rtol=1e-5, atol=1e-5
    )


class Shuffled(keras.utils.PyDataset):
    """Batches in an order, and with noise, that are drawn anew."""

    def __init__(self, own):
        super().__init__()
        self.draw = np.random.default_rng(0) if own else np.random

    def __len__(self):
        return 3

    def __getitem__(self, index):
        rows = self.draw.permutation(60)[:20]
        return X[rows], Y[rows]


@pytest.mark.parametrize("kind", ["own generator", "numpy's", "loader", "tf.data"])
def test_a_look_at_the_statistics_leaves_the_training_alone(kind):
    """The same object is trained on, and shuffles itself."""
    ends = []
    for looks in (False, True):
        keras.utils.set_random_seed(3)
        model = normalised()
        model.compile("sgd", "sparse_categorical_crossentropy")
        keras.utils.set_random_seed(3)
        torch.manual_seed(3)  # Keras does on its own backend alone
        given = {
            "own generator": lambda: Shuffled(own=True),
            "numpy's": lambda: Shuffled(own=False),
            "loader": lambda: DataLoader([*zip(X, Y, strict=True)], 20, shuffle=True),
            "tf.data": lambda: tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(60, seed=5).batch(20),
        }[kind]()
        last = Last()
        model.fit(given, epochs=2, verbose=0, callbacks=[last, *([MeanWeights(statistics=given)] if looks else [])])
        ends.append(last.weights)
    for one, other in zip(*ends, strict=True):
        np.testing.assert_array_equal(one, other)


class Last(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.weights = self.model.get_weights()


@pytest.mark.parametrize("wrong", [np.nan, None], ids=["nan", "another form"])
def test_a_training_is_not_lost_by_statistics_that_turn_out_wrong(wrong):
    second = X[20:40, :3] if wrong is None else X[20:40] * wrong
    model, last = normalised(), Last()
    with pytest.warns(UserWarning, match="mean of the weights was not taken.*keeps its last weights"):
        fitted(model, [(X[:20], Y[:20]), (second, Y[20:40])], callbacks=[last])
    for one, other in zip(model.get_weights(), last.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_layers_that_are_unfrozen_late_lose_no_training():
    class Unfreezes(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.layers[0].trainable = True

    # Without weights, as Keras's optimizers refuse those that come late.
    model, last = normalised(layers.BatchNormalization(center=False, scale=False)), Last()
    model.layers[0].trainable = False
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    with pytest.warns(UserWarning, match="mean of the weights was not taken.*statistics must be"):
        model.fit(X, Y, epochs=2, verbose=0, callbacks=[Unfreezes(), last, MeanWeights()])
    for one, other in zip(model.get_weights(), last.weights, strict=True):
        np.testing.assert_array_equal(one, other)
