"""A binary cross-entropy over a softmax: which instance is right is what its largest share says."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from backends import FEW_STEPS
from user_models import answers, data

from bc_keras import BTC, BCModel, CompatibilityCallback, evaluate

ROWS = 96
CLASSES = 3


def softmax_net(seed, activation="softmax"):
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(CLASSES, activation=activation)])


@pytest.fixture
def instances():
    x, y = data(ROWS, features=4)
    return x, y, np.eye(CLASSES, dtype="float32")[y]


@pytest.mark.parametrize("dissonance", ["new_error", "imitation"])
def test_a_training_and_evaluate_compare_the_largest(dissonance, instances):
    x, y, rows = instances
    h1, h2 = softmax_net(0), softmax_net(1)
    model = BCModel(h2, h1=h1, dissonance=dissonance, lambda_c=0.5)
    model.compile(keras.optimizers.SGD(0.0), "binary_crossentropy", metrics=["accuracy", BTC()], **FEW_STEPS)
    logs = model.fit(x, rows, batch_size=ROWS, verbose=0).history
    right1, right2 = answers(h1, x).argmax(1) == y, answers(h2, x).argmax(1) == y
    expected = (right1 & right2).sum() / right1.sum()
    assert logs["accuracy"][0] == pytest.approx(right2.mean())
    assert logs["btc"][0] == pytest.approx(expected)
    assert evaluate(h1, model, (x, rows)).comparison.overlap.btc == pytest.approx(expected)


def test_new_error_is_the_loss_of_the_instances_that_h1_gets_right(instances):
    x, y, rows = instances
    h1, h2 = softmax_net(0), softmax_net(1)
    model = BCModel(h2, h1=h1, lambda_c=2.0)
    model.compile(keras.optimizers.SGD(0.0), "binary_crossentropy", **FEW_STEPS)
    logs = model.fit(x, rows, batch_size=ROWS, verbose=0).history
    # On TensorFlow Keras takes this loss of the scores before the softmax.
    plain = softmax_net(1)
    plain.compile(keras.optimizers.SGD(0.0), "binary_crossentropy", **FEW_STEPS)
    right = answers(h1, x).argmax(1) == y
    expected = plain.fit(x, rows, sample_weight=1 + 2.0 * right, batch_size=ROWS, verbose=0).history
    assert 0 < right.mean() < 1
    assert logs["loss"][0] == pytest.approx(expected["loss"][0], rel=1e-5)


def test_a_plain_model_is_read_alike(instances):
    x, y, rows = instances
    h1, h2 = softmax_net(0), softmax_net(1)
    h2.compile("sgd", "binary_crossentropy", **FEW_STEPS)
    watch = CompatibilityCallback((x, rows), h1=h1)
    h2.evaluate(x, rows, verbose=0, callbacks=[watch])
    right1, right2 = answers(h1, x).argmax(1) == y, answers(h2, x).argmax(1) == y
    assert watch.comparison.overlap.total == ROWS
    assert watch.comparison.overlap.nfr == pytest.approx((right1 & ~right2).mean())


def test_columns_of_a_sigmoid_are_labels_of_their_own_still(instances):
    x, _, rows = instances
    h1, h2 = softmax_net(0, "sigmoid"), softmax_net(1, "sigmoid")
    h2.compile("sgd", "binary_crossentropy", **FEW_STEPS)
    watch = CompatibilityCallback((x, rows), h1=h1)
    h2.evaluate(x, rows, verbose=0, callbacks=[watch])
    right1, right2 = ((answers(h, x) >= 0.5) == (rows == 1) for h in (h1, h2))
    assert watch.comparison.overlap.total == ROWS * CLASSES
    assert watch.comparison.overlap.nfr == pytest.approx((right1 & ~right2).mean())


def test_rows_of_several_labels_say_what_to_do(instances):
    x, _, rows = instances
    rows[:, 0] = 1.0
    model = BCModel(softmax_net(1), h1=softmax_net(0))
    model.compile("sgd", "binary_crossentropy", **FEW_STEPS)
    with pytest.raises(ValueError, match="multilabel=True"):
        model.fit(x, rows, verbose=0)
