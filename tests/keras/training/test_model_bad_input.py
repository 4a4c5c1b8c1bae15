"""What BCModel refuses, and what it would not train as it was meant.

What both sides refuse alike is in tests/conformance.
"""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
from user_models import data, net
from wrapped_models import SPARSE, sgd

import bc_keras
from bc_core import compare
from bc_keras import (
    BTC,
    BCModel,
    CompatibilityLoss,
    ErrorOverlapMetric,
    NegativeFlipRate,
)

# Bad input


def test_bad_models_are_refused():
    h1, h2 = net(0), net(1)
    for arguments, error, message in (
        ({"h2": h2}, TypeError, "h1 is missing"),
        ({"h2": h2, "h1": keras.Sequential([keras.layers.Dense(3)])}, ValueError, "no weights yet"),
        ({"h2": keras.Sequential([keras.Input((4,)), *h1.layers]), "h1": h1}, ValueError, "share variables"),
        ({"h2": h2, "h1": h1, "dissonance": "newerror"}, ValueError, "'new_error'"),
        ({"h2": h2, "h1": h1, "loss": "BCNLLLoss", "dissonance": "new_error"}, TypeError, "dissonance or loss"),
    ):
        with pytest.raises(error, match=message):
            BCModel(**arguments)
    model = BCModel(h2, h1=h1)
    with pytest.raises(ValueError, match=r"call `compile\(\)`"):
        model.fit(*data())
    with pytest.raises(ValueError, match="the base"):
        model.compile("sgd")
    with pytest.raises(ValueError, match=r"BCModel\(h2, h1=h1, loss="):
        model.compile("sgd", loss=CompatibilityLoss())


def test_an_h1_that_does_not_answer_as_announced_is_refused():
    x, y = data(32)

    def fit(h1, logits=False, **options):
        model = BCModel(net(1, activation=None if logits else "softmax"), h1=h1, **options)
        model.compile("sgd", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=logits))
        model.fit(x, y, verbose=0)

    # A function says nothing of its scores.
    logits, probabilities = (functools.partial(net(0, activation=last), training=False) for last in (None, "softmax"))
    with pytest.raises(ValueError, match="h1_from_logits=True"):
        fit(logits, dissonance="strict_imitation")
    with pytest.raises(ValueError, match="h1_from_logits=False"):
        fit(probabilities, logits=True, dissonance="strict_imitation")
    # What new error reads of h1, its class, is the same.
    fit(probabilities, logits=True)
    fit(probabilities, logits=True, dissonance="strict_imitation", h1_from_logits=False)


class Pieces(keras.utils.PyDataset):
    """Batches of sixteen."""

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return len(self.y) // 16

    def __getitem__(self, index):
        rows = slice(16 * index, 16 * index + 16)
        return self.x[rows], self.y[rows]


def test_data_without_instances_are_refused():
    x, y = data(32)
    model = BCModel(net(1), h1=net(0))
    model.compile("sgd", loss=SPARSE)
    for use in (
        lambda: model.fit(x[:0], y[:0]),
        lambda: model.fit(Pieces(x[:0], y[:0])),
        lambda: model.fit(x, y, verbose=0, validation_data=(x[:0], y[:0])),
        lambda: model.fit(x, y, verbose=0, validation_data=Pieces(x[:0], y[:0])),
        lambda: model.evaluate(x[:0], y[:0]),
        lambda: model.evaluate(Pieces(x[:0], y[:0])),
    ):
        with pytest.raises(ValueError, match="at least one instance.*Received: none"):
            use()
    assert np.isfinite(model.fit(Pieces(x, y), verbose=0, validation_data=Pieces(x, y)).history["loss"]).all()


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("dissonance", ["new_error", "imitation"])
def test_an_h1_that_answers_for_other_instances_of_batches(dissonance, rows, jit):
    # Nobody asks h1 beforehand about data that come in batches.
    h1 = net(0)
    model = BCModel(net(1), h1=lambda x: h1(x)[:rows], dissonance=dissonance)
    model.compile("sgd", loss=SPARSE, jit_compile=jit and keras.backend.backend() != "torch")
    # TensorFlow has an error of its own for what it finds out within a graph; XLA tells sizes alone.
    is_graph = keras.backend.backend() == "tensorflow"
    message = "requested shape|Reshape" if is_graph and jit else "h1 must give one row for each instance"
    with pytest.raises(Exception if is_graph else ValueError, match=message):
        model.fit(Pieces(*data(32)), verbose=0)


def test_a_misspelt_argument_is_refused_in_the_name_of_what_was_called():
    with pytest.raises(TypeError, match=r"^BCModel\(\) got an unexpected keyword argument 'lamda_c'"):
        BCModel(net(1), h1=net(0), lamda_c=1.0)
    with pytest.raises(TypeError, match=r"^BCNewErrorCompatibilityModel\(\) .*'lamda_c'"):
        bc_keras.BCNewErrorCompatibilityModel(net(1).layers, h1=net(0), lamda_c=1.0)
    with pytest.raises(TypeError, match=r"^BCModel\(\) multiple values for argument 'lambda_c'"):
        BCModel(net(1), net(0), 1.0, lambda_c=1.0)


def test_labels_alone_are_not_imitated():
    stored = bc_keras.StoredOutputs.from_table(data(32)[1])
    for options in (
        {"dissonance": "strict_imitation"},
        {"dissonance": "imitation"},
        {"loss": CompatibilityLoss(dissonance="strict_imitation")},
        {"loss": "focal_distillation"},
    ):
        with pytest.raises(ValueError, match="labels only.*Use a new-error loss, or stored outputs that hold scores"):
            BCModel(net(1), h1=stored, **options)
    BCModel(net(1), h1=stored, dissonance="new_error")
    scores = bc_keras.StoredOutputs.from_predictions(net(0).predict(data(32)[0], verbose=0))
    BCModel(net(1), h1=scores, dissonance="strict_imitation")


def test_bad_data_are_refused():
    x, y = data(32)
    model = BCModel(net(1), h1=net(0))
    model.compile("sgd", loss=SPARSE)
    with pytest.raises(ValueError, match="no target"):
        model.fit(x, verbose=0)
    with pytest.raises(ValueError, match="outside the classes|class indices"):
        model.fit(x, np.where(y == 2, 7, y), verbose=0)
    with pytest.raises(ValueError, match="one-hot"):
        model.fit(x, np.eye(3)[y], verbose=0)
    categorical = BCModel(net(1), h1=net(0))
    categorical.compile("sgd", loss="categorical_crossentropy")
    with pytest.raises(ValueError, match="class indices"):
        categorical.fit(x, y, verbose=0)


# What would not be trained as it was meant


def test_metrics_by_their_class_are_fed_too():
    x, y = data(32)
    model = BCModel(net(1), h1=net(0))
    model.compile(sgd(), loss=SPARSE, metrics=["accuracy", BTC], weighted_metrics=[NegativeFlipRate])
    got = model.evaluate(x, y, verbose=0, return_dict=True)
    overlap = compare(y, model.h1.predict(x, verbose=0).argmax(1), model.predict(x, verbose=0).argmax(1)).overlap
    assert (got["btc"], got["nfr"]) == (pytest.approx(overlap.btc), pytest.approx(overlap.nfr))


@pytest.mark.parametrize("name", ["train_step", "test_step", "compute_loss"])
def test_an_h2_whose_own_step_leaves_the_penalty_out_is_refused(name):
    own = type("Own", (keras.Sequential,), {name: lambda self, *args, **kwargs: None})
    with pytest.raises(TypeError, match=f"{name} of its own"):
        BCModel(own(net(1).layers), h1=net(0))
    on_the_instance = net(1)
    setattr(on_the_instance, name, lambda *args, **kwargs: None)
    with pytest.raises(TypeError, match=f"{name} of its own on the instance"):
        BCModel(on_the_instance, h1=net(0))
    assert not isinstance(on_the_instance, BCModel)


def test_an_output_in_a_dict_of_one():
    x, y = data(32)
    inputs = keras.Input((4,))
    h2 = keras.Model(inputs, {"o": keras.layers.Dense(3, "softmax", name="o")(inputs)})
    for dissonance in ("new_error", "strict_imitation"):
        model = BCModel(h2, h1=net(0), dissonance=dissonance)
        model.compile(sgd(), loss=SPARSE, metrics=[BTC()])
        assert np.isfinite(model.fit(x, y, verbose=0).history["loss"]).all()


def test_arguments_that_contradict_the_loss_are_refused():
    h1, h2 = net(0), net(1)
    for loss, argument in (
        (CompatibilityLoss(), {"normalization": "support"}),
        (CompatibilityLoss(), {"from_logits": True}),
        (CompatibilityLoss("binary_cross_entropy", threshold=0.7), {"threshold": 0.4}),
    ):
        with pytest.raises(TypeError, match="contradicts the loss"):
            BCModel(h2, h1=h1, loss=loss, **argument)
    model = BCModel(h2, h1=h1, loss=CompatibilityLoss(dissonance="strict_imitation", from_logits=True))
    with pytest.raises(ValueError, match="same from_logits"):
        model.compile(sgd(), loss=SPARSE)
    mapped = BCModel(h2, h1=h1, loss=bc_keras.BCCrossEntropyLoss(h1, h2, 0.5, class_map=[1, 0, 2]))
    assert mapped._reference.class_map == (1, 0, 2)
    x, y = data(32, classes=2)
    h1, h2 = net(0, 1, "sigmoid"), net(1, 1, "sigmoid")
    for loss in ("BCBinaryCrossEntropyLoss", CompatibilityLoss("binary_cross_entropy", threshold=0.6)):
        model = BCModel(h2, h1=h1, loss=loss, threshold=0.6)
        model.compile(sgd(), metrics=[ErrorOverlapMetric()])
        got = model.evaluate(x, y, verbose=0, return_dict=True)
        s1, s2 = (each.predict(x, verbose=0)[:, 0].astype(float) for each in (h1, h2))
        good = (s1 >= 0.6) == y
        bce = -(y * np.log(s2) + (1 - y) * np.log(1 - s2))
        assert got["dissonance"] == pytest.approx(np.mean(good * bce), rel=1e-5)
        assert got["both_right"] + got["h1_only_right"] == good.sum()


def test_an_h1_that_cannot_run_in_the_step_says_what_to_do():
    x, y = data(32)
    h1 = net(0)
    with pytest.raises(TypeError, match="h1=model"):
        BCModel(net(1), h1=h1.predict)

    def broken(inputs):
        raise RuntimeError("no such table")

    model = BCModel(net(1), h1=broken)
    model.compile(sgd(), loss=SPARSE)
    with pytest.raises(TypeError, match="store_outputs"):
        model.fit(x, y, verbose=0)
    with pytest.raises(TypeError, match="LambdaScheduler"):
        BCModel(net(1), h1=h1, lambda_c=bc_keras.LinearLambda())
    assert BCModel(net(1), h1=h1, lambda_c=np.float32(2)).lambda_c == 2.0
    with pytest.raises(ValueError, match="perhaps 'BCCrossEntropyLoss'"):
        BCModel(net(1), h1=h1, loss="BCCrossEntropy")


def test_labels_that_h2_has_no_score_for():
    x, y = data(32)
    model = BCModel(net(1), h1=net(0))
    model.compile(sgd(), loss=SPARSE)
    for use in (
        lambda: model.fit(x, (y + 1).astype("float32"), verbose=0),
        lambda: model.fit(x, y, validation_data=(x, y + 1), verbose=0),
        lambda: model.evaluate(x, y + 1, verbose=0),
    ):
        with pytest.raises(ValueError, match="class indices"):
            use()
    binary = BCModel(net(1, 1, "sigmoid"), h1=net(0, 1, "sigmoid"))
    binary.compile(sgd(), loss="binary_crossentropy")
    with pytest.raises(ValueError, match="0..1"):
        binary.fit(x, np.where(y > 0, 1, -1), verbose=0)
