"""New error needs the loss of each instance: weighted where there is one, else refused with a remedy that works."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from backends import once_but
from keras import ops
from user_models import CLASSES, answers, data, net

from bc_keras import BCModel, CompatibilityLoss
from bc_keras.training.compiled._weighted_loss import _by_instance

SPARSE = keras.losses.sparse_categorical_crossentropy


def mean_of_all(y_true, y_pred):
    return ops.mean(SPARSE(y_true, y_pred))


def sum_of_all(y_true, y_pred):
    return ops.sum(SPARSE(y_true, y_pred))


def by_class(y_true, y_pred):
    """A soft F1, one value per class and none per instance."""
    both = ops.sum(y_true * y_pred, axis=0)
    return 1 - 2 * both / (ops.sum(y_true, axis=0) + ops.sum(y_pred, axis=0) + 1e-7)


def of_elements(y_true, y_pred):
    return ops.square(y_true - y_pred)


@keras.saving.register_keras_serializable(package="tests")
class OwnCall(keras.losses.Loss):
    """A loss that prepares the labels and leaves the rest to Keras."""

    def __call__(self, y_true, y_pred, sample_weight=None):
        return 2 * super().__call__(ops.one_hot(ops.cast(y_true, "int32"), CLASSES), y_pred, sample_weight)

    def call(self, y_true, y_pred):
        return keras.losses.categorical_crossentropy(y_true, y_pred)


class WithoutWeights(OwnCall):
    """A loss that forgets the weights of instances."""

    def __call__(self, y_true, y_pred, sample_weight=None):
        return super().__call__(y_true, y_pred)


class OwnMean(keras.losses.Loss):
    """A loss that takes its mean itself."""

    def __call__(self, y_true, y_pred, sample_weight=None):
        return ops.mean(SPARSE(y_true, y_pred))

    def call(self, y_true, y_pred):
        return SPARSE(y_true, y_pred)


class ScalarCall(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return ops.mean(SPARSE(y_true, y_pred))


def one_hot(y):
    return np.eye(CLASSES, dtype="float32")[y]


def fitted(base, y, batch_size=32, lambda_c=2.0, fit=None, **options):
    x, _ = data()
    model = BCModel(net(1), h1=net(0), lambda_c=lambda_c, **options)
    model.compile(keras.optimizers.SGD(0.5), loss=base)
    history = model.fit(x, y, batch_size=batch_size, shuffle=False, verbose=0, **(fit or {})).history
    return model, history


def weights(model):
    return np.concatenate([array.ravel() for array in model.get_weights()])


# The loss, and whether its labels are one-hot.
WHOLE = {
    "mean": (mean_of_all, False),
    "sum": (sum_of_all, False),
    "a class whose call is a mean": (ScalarCall, False),
    "own mean": (OwnMean, False),
    "Dice": (keras.losses.Dice, True),
    "Dice by name": ("dice", True),
    "Tversky": (keras.losses.Tversky, True),
    "Dice, summed": (lambda: keras.losses.Dice(reduction="sum"), True),
    "Dice by class": (lambda: keras.losses.Dice(axis=0), True),
    "by class": (by_class, True),
}


def made(loss):
    is_function = loss in (mean_of_all, sum_of_all, by_class) or isinstance(loss, str)
    return loss if is_function else loss()


# A function and a class, indices and one-hot labels, a mean and a sum, one number and one for each class.
@pytest.mark.parametrize("name", once_but(["mean", "Dice, summed", "by class"], WHOLE))
def test_a_loss_of_the_whole_batch_is_refused_and_both_remedies_work(name):
    loss, is_one_hot = WHOLE[name]
    x, y = data()
    target = one_hot(y) if is_one_hot else y
    with pytest.raises(ValueError, match=r"loss='BCCrossEntropyLoss'\) or dissonance='strict_imitation'"):
        fitted(made(loss), target)
    three_steps = {"batch_size": 96, "fit": {"epochs": 3}}
    plain = net(1)
    plain.compile(keras.optimizers.SGD(0.5), loss=made(loss))
    plain.fit(x, target, batch_size=96, epochs=3, shuffle=False, verbose=0)
    for remedy in ({"loss": "BCCrossEntropyLoss"}, {"dissonance": "strict_imitation"}):
        model, history = fitted(made(loss), target, **three_steps, **remedy)
        assert not np.allclose(weights(model.h2), weights(plain), atol=1e-4)
        # The first step's dissonance by numpy, from the definition.
        p1, p2 = answers(net(0), x), answers(net(1), x).astype(float)
        each = -np.log(p2[np.arange(96), y]) if "loss" in remedy else -(p1 * np.log(p2)).sum(1)
        reduced = np.sum if "summed" in name else np.mean
        assert history["dissonance"][0] == pytest.approx(reduced(each * (p1.argmax(1) == y)), rel=1e-4)
        # The base is the user's, to the bit.
        model, _ = fitted(made(loss), target, lambda_c=0.0, **three_steps, **remedy)
        assert (weights(model.h2) == weights(plain)).all()


@pytest.mark.parametrize("loss", [by_class, keras.losses.Dice(axis=0)])
def test_a_batch_as_long_as_there_are_classes_hides_nothing(loss):
    _, y = data()
    with pytest.raises(ValueError, match="values for the whole batch"):
        fitted(loss, one_hot(y), batch_size=CLASSES)


def by_hand(values, lambda_c=2.0):
    """h2 after one step on the mean of values weighted by 1 + lambda_c c_i, as a plain Keras loss of the user's."""
    x, y = data()
    right = (answers(net(0), x).argmax(1) == y).astype("float32")

    def weighted(y_true, y_pred):
        return values(y_true[:, : y_true.shape[1] - 1], y_pred) * (1 + lambda_c * y_true[:, -1])

    plain = net(1)
    plain.compile(keras.optimizers.SGD(0.5), loss=weighted)
    return plain, x, y, right


@pytest.mark.parametrize(
    ("loss", "values"),
    [
        (keras.losses.Dice(axis=-1), lambda t, p: 1 - 2 * ops.sum(t * p, -1) / (1 + ops.sum(p, -1) + 1e-7)),
        (of_elements, lambda t, p: ops.mean(ops.square(t - p), -1)),
        ("mse", lambda t, p: ops.mean(ops.square(t - p), -1)),
    ],
)
def test_losses_with_a_value_per_instance_are_weighted_by_it(loss, values):
    plain, x, y, right = by_hand(values)
    plain.fit(x, np.concatenate([one_hot(y), right[:, None]], 1), batch_size=96, verbose=0)
    model, history = fitted(loss, one_hot(y), batch_size=96)
    np.testing.assert_allclose(weights(model.h2), weights(plain), rtol=0, atol=1e-5)
    assert history["loss"][0] == pytest.approx(history["base_loss"][0] + 2 * history["dissonance"][0], rel=1e-5)


@pytest.mark.parametrize("loss", [OwnCall, WithoutWeights])
def test_a_call_of_ones_own_is_weighted_outside_of_it(loss):
    plain, x, y, right = by_hand(lambda t, p: 2 * SPARSE(t[:, 0], p))
    plain.fit(x, np.stack([y, right], 1).astype("float32"), batch_size=96, verbose=0)
    model, _ = fitted(loss(), y, batch_size=96)
    np.testing.assert_allclose(weights(model.h2), weights(plain), rtol=0, atol=1e-5)


def test_sample_weights_beside_a_loss_of_the_whole_batch_weigh_the_dissonance():
    x, y = data()
    weight = np.linspace(0.5, 2, 96).astype("float32")
    _, history = fitted(mean_of_all, y, 96, loss="BCCrossEntropyLoss", fit={"sample_weight": weight})
    p1, p2 = answers(net(0), x), answers(net(1), x).astype(float)
    each = -np.log(p2[np.arange(96), y]) * (p1.argmax(1) == y)
    assert history["dissonance"][0] == pytest.approx((weight * each).mean(), rel=1e-4)


def test_a_compatibility_loss_as_the_remedy():
    x, y = data()
    criterion = CompatibilityLoss("cross_entropy", "new_error", lambda_c=2.0)
    _, history = fitted(mean_of_all, y, 96, lambda_c=None, loss=criterion)
    expected = float(criterion(answers(net(1), x), y, answers(net(0), x)))
    assert history["loss"][0] == pytest.approx(expected, rel=1e-4)


def test_binary_masks_name_the_binary_loss():
    x, y = data()
    target = (y[:, None] > 0).astype("float32")
    h1, h2 = net(0, 1, "sigmoid"), net(1, 1, "sigmoid")
    model = BCModel(h2, h1=h1)
    model.compile("sgd", loss=keras.losses.Dice())
    with pytest.raises(ValueError, match="loss='BCBinaryCrossEntropyLoss'"):
        model.fit(x, target, verbose=0)
    model = BCModel(h2, h1=h1, loss="BCBinaryCrossEntropyLoss")
    model.compile("sgd", loss=keras.losses.Dice())
    assert model.fit(x, target, verbose=0).history["dissonance"][0] > 0


def test_a_loss_of_each_image_is_none_of_each_pixel():
    random = np.random.default_rng(0)
    x = random.normal(size=(8, 4, 4, 2)).astype("float32")
    y = one_hot((x.sum(-1) > 0).astype(int))
    keras.utils.set_random_seed(0)
    h1, h2 = (
        keras.Sequential([keras.Input((4, 4, 2)), keras.layers.Conv2D(CLASSES, 1, activation="softmax")])
        for _ in range(2)
    )
    for axis in ((1, 2, 3), (1, 2), None):
        model = BCModel(h2, h1=h1)
        model.compile("sgd", loss=keras.losses.Dice(axis=axis))
        with pytest.raises(ValueError, match=r"for labels of shape \(.*, 4, 4\)"):
            model.fit(x, y, batch_size=4, verbose=0)
    model = BCModel(h2, h1=h1)
    model.compile("sgd", loss=keras.losses.Dice(axis=-1))
    model.fit(x, y, batch_size=4, verbose=0)


def test_one_number_for_one_instance_is_its_loss():
    # As where a loss squeezes its values, and the last batch has one instance.
    y_true, y_pred = ops.array([1]), ops.array([[0.25, 0.5, 0.25]])
    values = _by_instance(ScalarCall(), mean_of_all, y_true, y_pred, (1,))
    assert ops.convert_to_numpy(values).tolist() == [pytest.approx(np.log(2), rel=1e-5)]
    with pytest.raises(ValueError, match="one number for the whole batch"):
        _by_instance(ScalarCall(), mean_of_all, y_true, y_pred, (2,))


def test_generalized_cross_entropy_takes_class_indices():
    x, y = data()
    loss = keras.losses.CategoricalGeneralizedCrossEntropy
    plain, x, y, right = by_hand(lambda t, p: (1 - ops.sqrt(ops.take_along_axis(p, ops.cast(t, "int32"), 1)[:, 0])) * 2)
    plain.fit(x, np.stack([y, right], 1).astype("float32"), batch_size=96, verbose=0)
    model, _ = fitted(loss(q=0.5), y, batch_size=96)
    np.testing.assert_allclose(weights(model.h2), weights(plain), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="one-hot"):
        fitted(loss(), one_hot(y))
    with pytest.raises(ValueError, match=r"y\[:, 0\]"):
        fitted(loss(), y[:, None])


@keras.saving.register_keras_serializable(package="tests")
class Negated(keras.layers.Layer):
    def call(self, x):
        return -x


def test_a_loss_that_wants_small_scores_is_refused():
    x, y = data()

    def of_distances(target, distances):
        return keras.losses.sparse_categorical_crossentropy(target, -distances, from_logits=True)

    def own(target, scores):
        return keras.losses.sparse_categorical_crossentropy(target, scores, from_logits=True)

    def one_hot(target, scores):
        return keras.losses.categorical_crossentropy(target, -scores, from_logits=True)

    def distances(seed, *last):
        keras.utils.set_random_seed(seed)
        return keras.Sequential([keras.Input(x.shape[1:]), keras.layers.Dense(CLASSES, "softplus"), *last])

    for loss, target in ((of_distances, y), (one_hot, np.eye(CLASSES)[y])):
        model = BCModel(distances(1), h1=distances(2))
        model.compile("sgd", loss)
        with pytest.raises(ValueError, match="negate in a last layer of h1 and h2"):
            model.fit(x, target, verbose=0)
    model = BCModel(distances(1, Negated()), h1=distances(2, Negated()))
    model.compile("sgd", own)
    history = model.fit(x, y, verbose=0).history
    assert history["dissonance"][0] > 0
