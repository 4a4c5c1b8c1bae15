"""The documented Keras snippets of the original library (version 1.4.2) run with only the import changed, and train."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

# was: from backwardcompatibilityml.tensorflow.loss.new_error import ..., .loss.strict_imitation import ...,
#      from backwardcompatibilityml.tensorflow.models import BCNewErrorCompatibilityModel,
#      import backwardcompatibilityml.tensorflow.helpers as tf_helpers
import bc_core as scores
import bc_keras
import bc_keras as tf_helpers
from bc_keras import BCNewErrorCompatibilityModel

# What `bc_fit` and the losses do is tested on each backend; that library knew TensorFlow alone.
pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the backend that the original has")

SPARSE = ["BCNLLLoss", "BCCrossEntropyLoss"]
ONE_HOT = [
    "BCBinaryCrossEntropyLoss",
    "BCKLDivLoss",
    "BCStrictImitationNLLLoss",
    "BCStrictImitationCrossEntropyLoss",
    "BCStrictImitationBinaryCrossEntropyLoss",
    "BCStrictImitationKLDivLoss",
]


def digits(one_hot):
    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8, 1) / 16).astype("float32")
    return images, np.eye(10, dtype="float32")[labels] if one_hot else labels


def batched(x, y):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((x, y)).batch(64)


def layers(units):
    return [
        keras.layers.Input((8, 8, 1)),
        keras.layers.Flatten(),
        keras.layers.Dense(units, activation="relu"),
        keras.layers.Dense(10, activation="softmax"),
    ]


@pytest.fixture(scope="module")
def h1():
    keras.utils.set_random_seed(0)
    x, y = digits(one_hot=False)
    model = keras.models.Sequential(layers(16))
    model.compile(loss="sparse_categorical_crossentropy", optimizer=keras.optimizers.Adam(0.01))
    model.fit(x[:400], y[:400], epochs=5, verbose=0)
    return model


def accuracy(model, x, y):
    labels = y if y.ndim == 1 else y.argmax(1)
    return np.mean(model.predict(x, verbose=0).argmax(1) == labels)


@pytest.mark.parametrize("name", [*SPARSE, *ONE_HOT])
def test_bc_fit(name, h1):
    x, y = digits(one_hot=name in ONE_HOT)
    ds_train, ds_test = batched(x[:1400], y[:1400]), batched(x[1400:], y[1400:])
    before = [array.copy() for array in h1.get_weights()]
    keras.utils.set_random_seed(1)

    h2 = keras.models.Sequential(layers(64))
    lambda_c = 0.9
    h1.trainable = False
    bc_loss = getattr(bc_keras, name)(h1, h2, lambda_c)
    optimizer = keras.optimizers.Adam(0.01)
    history = tf_helpers.bc_fit(
        h2, training_set=ds_train, testing_set=ds_test, epochs=3, bc_loss=bc_loss, optimizer=optimizer
    )

    assert len(history.history["val_loss"]) == 3
    assert history.history["loss"][-1] < history.history["loss"][0]
    assert accuracy(h2, x[1400:], y[1400:]) > 0.85  # h1 has less; chance is 0.1
    for old, new in zip(before, h1.get_weights(), strict=True):
        assert (old == new).all()


def test_new_error_compatibility_model(h1):
    x, y = digits(one_hot=False)
    dataset_train, dataset_test = batched(x[:1400], y[:1400]), batched(x[1400:], y[1400:])
    keras.utils.set_random_seed(1)
    h1.trainable = False
    h2 = BCNewErrorCompatibilityModel(layers(64), h1=h1, lambda_c=0.7)
    h2.compile(
        loss=keras.losses.sparse_categorical_crossentropy,
        optimizer=keras.optimizers.Adam(0.01),
        metrics=["accuracy"],
    )
    history = h2.fit(dataset_train, epochs=3, validation_data=dataset_test, verbose=0)
    assert history.history["val_accuracy"][-1] > 0.85
    assert accuracy(h2, x[1400:], y[1400:]) == pytest.approx(history.history["val_accuracy"][-1], abs=1e-6)


def test_bc_fit_takes_callbacks_and_says_what_is_wrong(h1):
    x, y = digits(one_hot=False)
    h2 = keras.models.Sequential(layers(16))
    loss = bc_keras.BCCrossEntropyLoss(h1, h2, 0.5)
    seen = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(logs["val_btc"]))
    history = tf_helpers.bc_fit(
        h2, (x, y), (x, y), 2, loss, "adam", callbacks=[watch], metrics=[bc_keras.BTC()], verbose=0
    )
    assert seen == history.history["val_btc"]
    assert len(seen) == 2
    with pytest.raises(ValueError, match="another h2"):
        tf_helpers.bc_fit(keras.models.Sequential(layers(16)), (x, y), bc_loss=loss)
    with pytest.raises(TypeError, match="BCCrossEntropyLoss"):
        tf_helpers.bc_fit(h2, (x, y), bc_loss="BCCrossEntropyLoss")
    with pytest.raises(ValueError, match="training_set"):
        tf_helpers.bc_fit(h2, bc_loss=loss)


@pytest.mark.parametrize("one_hot", [False, True])
def test_scores_of_predictions_batch_by_batch(h1, one_hot):
    # As the notebooks end; where the data are one-hot, so is the truth.
    x, y = digits(one_hot=one_hot)
    h2 = keras.models.Sequential(layers(16))
    h1_predicted_labels, h2_predicted_labels, ground_truth_labels = [], [], []
    for start in range(0, 256, 64):
        x_batch_test, y_batch_test = x[start : start + 64], y[start : start + 64]
        h1_predicted_labels += np.argmax(keras.ops.convert_to_numpy(h1(x_batch_test)), axis=1).tolist()
        h2_predicted_labels += np.argmax(keras.ops.convert_to_numpy(h2(x_batch_test)), axis=1).tolist()
        ground_truth_labels += y_batch_test.tolist()
    truth = digits(one_hot=False)[1][:256]
    right1, right2 = np.array(h1_predicted_labels) == truth, np.array(h2_predicted_labels) == truth
    assert scores.trust_compatibility_score(h1_predicted_labels, h2_predicted_labels, ground_truth_labels) == (
        (right1 & right2).sum() / right1.sum()
    )
    assert scores.error_compatibility_score(h1_predicted_labels, h2_predicted_labels, ground_truth_labels) == (
        (~right1 & ~right2).sum() / (~right1).sum()
    )


@pytest.mark.parametrize("name", ["BCCrossEntropyLoss", "BCKLDivLoss"])
def test_a_learning_rate_that_was_chosen_for_a_sum_trains_as_it_did(name, h1):
    x, y = digits(one_hot=name != "BCCrossEntropyLoss")
    reached = {}
    for reduction in (None, "sum"):
        keras.utils.set_random_seed(1)
        h2 = keras.models.Sequential(layers(32))
        bc_loss = getattr(bc_keras, name)(h1, h2, 0.5)
        optimizer = keras.optimizers.SGD(0.001)
        tf_helpers.bc_fit(
            h2, training_set=batched(x[:1400], y[:1400]), testing_set=None, epochs=3, bc_loss=bc_loss,
            optimizer=optimizer, reduction=reduction, verbose=0,
        )  # fmt: skip
        reached[reduction] = accuracy(h2, x[1400:], y[1400:])
    assert reached["sum"] > reached[None] + 0.2
