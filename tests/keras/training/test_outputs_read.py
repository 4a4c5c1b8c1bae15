"""What h1 and h2 mean by their outputs: told by each model's loss, last activation and values, against plain numpy."""

from __future__ import annotations

import itertools
import math

import keras
import numpy as np
import pytest
from backends import FEW_STEPS, once_but
from keras import ops
from user_models import answers, data, net

from bc_keras import (
    BCModel,
    CompatibilityCallback,
    ErrorOverlapMetric,
    StoredOutputs,
    attach_h1,
    evaluate,
    sweep,
)

LOSSES = {
    "sigmoid": "binary_crossentropy",
    None: keras.losses.BinaryCrossentropy(from_logits=True),
}


def binary_data(n=64):
    x, _ = data(n)
    return x, (x[:, :1] > 0.3).astype("float32")


def binary_net(activation, seed=0, **kwargs):
    """A net whose logits lie on both sides of 0, and of 0.5."""
    model = net(seed, 1, activation)
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel * 3, bias + 0.2])
    if kwargs.get("compiled"):
        model.compile("sgd", LOSSES[activation])
    return model


def right(x, y, seed=0):
    """How many the net of a seed gets right, from its logits in numpy."""
    logits = answers(binary_net(None, seed), x)
    return int(((logits > 0) == y).sum())


def as_function(model):
    """h1 as a function, of whose scores nothing is known."""
    return lambda x: model(x, training=False)


class Pieces(keras.utils.PyDataset):
    def __init__(self, x, y, size=16):
        super().__init__()
        self.x, self.y, self.size = x, y, size

    def __len__(self):
        return math.ceil(len(self.x) / self.size)

    def __getitem__(self, index):
        rows = slice(index * self.size, (index + 1) * self.size)
        return self.x[rows], self.y[rows]


def generator(x, y, size=16):
    for start in range(0, len(x), size):
        yield x[start : start + size], y[start : start + size]


def tf_dataset(x, y):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((x, y)).batch(16)


FORMS = {"arrays": lambda x, y: (x, y), "tf.data": tf_dataset, "PyDataset": Pieces, "generator": generator}


# A form is read before the steps: with a known number of batches and without one on every backend.
each_form = pytest.mark.parametrize("form", once_but(["arrays", "generator"], FORMS))


def counted_right(model, form, x, y):
    """What fit counts of h1, whose answers do not change while h2 is trained."""
    given = FORMS[form](x, y)
    arguments = {"x": x, "y": y, "batch_size": 16} if form == "arrays" else {"x": given}
    # Keras warns that it cannot shuffle these itself.
    arguments["shuffle"] = form in ("arrays", "PyDataset")
    logs = model.fit(**arguments, verbose=0).history
    return logs["both_right"][0] + logs["h1_only_right"][0]


# By what a model is read is told before anything runs: one of the two on each backend here, the other below.
@each_form
@pytest.mark.parametrize("compiled", once_but([True], [True, False]))
@pytest.mark.parametrize(("first", "second"), [("sigmoid", None), (None, "sigmoid")])
def test_each_model_is_read_by_its_own_loss_or_activation(first, second, compiled, form):
    x, y = binary_data()
    model = BCModel(binary_net(second, 1), h1=binary_net(first, compiled=compiled))
    model.compile("sgd", LOSSES[second], metrics=[ErrorOverlapMetric()], **FEW_STEPS)
    assert counted_right(model, form, x, y) == right(x, y)


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("compiled", once_but([False], [True, False]))
@pytest.mark.parametrize(("first", "second"), [("sigmoid", None), (None, "sigmoid")])
def test_callback_and_evaluate_read_each_model_by_itself(first, second, compiled, wrapped):
    x, y = binary_data()
    h1, h2 = binary_net(first, compiled=compiled), binary_net(second, 1)
    h2.compile("sgd", LOSSES[second])
    found = evaluate(h1, h2, (x, y)).comparison.overlap
    assert found.both_right + found.h1_only_right == right(x, y)
    assert found.both_right + found.h2_only_right == right(x, y, 1)
    for given in ((x, y), Pieces(x, y)):
        callback = CompatibilityCallback(given, h1=h1)
        model = BCModel(h2, h1=binary_net("sigmoid", 5)) if wrapped else h2
        model.compile("sgd", LOSSES[second], **FEW_STEPS)
        history = model.fit(x, y, verbose=0, callbacks=[callback]).history
        assert history["val_accuracy_h1"][0] == pytest.approx(right(x, y) / len(x))


def test_evaluate_without_any_compile():
    x, y = binary_data()
    for first, second in (("sigmoid", None), (None, "sigmoid"), (None, None)):
        found = evaluate(binary_net(first), binary_net(second, 1), (x, y)).comparison.overlap
        assert found.both_right + found.h1_only_right == right(x, y)
        assert found.both_right + found.h2_only_right == right(x, y, 1)


@each_form
def test_a_function_of_probabilities_beside_logits_is_refused_by_its_values(form):
    x, y = binary_data()
    h1 = binary_net("sigmoid")

    def model(**options):
        made = BCModel(binary_net(None, 1), h1=as_function(h1), **options)
        made.compile("sgd", LOSSES[None], metrics=[ErrorOverlapMetric()])
        return made

    with pytest.raises(ValueError, match="h1_from_logits=False, or True"):
        counted_right(model(), form, x, y)
    # As the message says.
    assert counted_right(model(h1_from_logits=False), form, x, y) == right(x, y)


@each_form
def test_a_function_of_logits_beside_probabilities_is_refused_by_its_values(form):
    x, y = binary_data()
    h1 = binary_net(None)

    def model(**options):
        made = BCModel(binary_net("sigmoid", 1), h1=as_function(h1), **options)
        made.compile("sgd", LOSSES["sigmoid"], metrics=[ErrorOverlapMetric()])
        return made

    with pytest.raises(ValueError, match="h1 must give probabilities in 0..1 here.*h1_from_logits=True"):
        counted_right(model(), form, x, y)
    assert counted_right(model(h1_from_logits=True), form, x, y) == right(x, y)


@pytest.mark.parametrize("form", ["tf.data", "generator"])
def test_rows_that_sum_to_one_are_no_logits_for_imitation(form):
    x, y = data(64)
    h1 = net(0)

    def model(**options):
        made = BCModel(net(1, activation=None), h1=as_function(h1), dissonance="imitation", **options)
        made.compile(keras.optimizers.SGD(0.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return made

    def trained(made):
        given = FORMS[form](x, y)
        return made.fit(given, shuffle=False, verbose=0).history["dissonance"][0]

    with pytest.raises(ValueError, match="h1_from_logits=False"):
        trained(model())
    p1, z2 = answers(h1, x), answers(net(1, activation=None), x).astype(float)
    expected = -(p1 * (z2 - np.log(np.exp(z2).sum(1, keepdims=True)))).sum(1).mean()
    assert trained(model(h1_from_logits=False)) == pytest.approx(expected, rel=1e-4)
    # A Keras model says so itself.
    said = BCModel(net(1, activation=None), h1=h1, dissonance="imitation")
    said.compile(keras.optimizers.SGD(0.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert trained(said) == pytest.approx(expected, rel=1e-4)


def test_a_loss_and_an_activation_that_disagree_are_refused():
    x, y = binary_data()
    logits = keras.losses.BinaryCrossentropy(from_logits=True)

    def fit(h1, h2, **options):
        model = BCModel(h2, h1=h1, **options)
        model.compile("sgd", logits, metrics=[ErrorOverlapMetric()])
        return model.fit(x, y, verbose=0).history

    h1 = binary_net("sigmoid")
    h1.compile("sgd", logits)
    with pytest.raises(ValueError, match="Whether h1 gives logits.*h1_from_logits=True or False"):
        fit(h1, binary_net(None, 1))
    logs = fit(h1, binary_net(None, 1), h1_from_logits=False)
    assert logs["both_right"][0] + logs["h1_only_right"][0] == right(x, y)
    with pytest.raises(ValueError, match="Whether h2 gives logits.*from_logits=True or False"):
        fit(binary_net("sigmoid"), binary_net("sigmoid", 1))
    h2 = binary_net("sigmoid", 1)
    h2.compile("sgd", logits)
    with pytest.raises(ValueError, match="Whether h2 gives logits"):
        evaluate(binary_net("sigmoid"), h2, (x, y))
    found = evaluate(binary_net("sigmoid"), h2, (x, y), from_logits=False).comparison.overlap
    assert found.both_right + found.h2_only_right == right(x, y, 1)


def test_h2s_own_values_are_looked_at():
    x, y = binary_data()
    h2 = binary_net(None, 1)

    class Own(keras.Model):
        """A subclass, whose last activation cannot be seen."""

        def call(self, x):
            return h2(x)

    own = Own()
    own(x[:1])
    model = BCModel(own, h1=binary_net("sigmoid"))
    model.compile("sgd", "binary_crossentropy")
    with pytest.raises(ValueError, match="h2 must give probabilities in 0..1 here.* from_logits=True"):
        model.fit(Pieces(x, y), verbose=0)
    with pytest.raises(ValueError, match="h2 must give probabilities"):
        evaluate(binary_net("sigmoid"), own, (x, y))
    found = evaluate(binary_net("sigmoid"), own, (x, y), from_logits=True).comparison.overlap
    assert found.both_right + found.h2_only_right == right(x, y, 1)


def functional(last):
    inputs = keras.Input((4,))
    return keras.Model(inputs, last(keras.layers.Dense(1)(inputs)))


def doubled(z):
    return 2 * z


def inside():
    return keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, "sigmoid")])


HEADS = {
    "an activation layer": (lambda: keras.layers.Activation("sigmoid"), False),
    "an operation": (lambda: ops.sigmoid, False),
    "a reshaped one": (lambda: keras.Sequential([keras.layers.Dense(1, "sigmoid"), keras.layers.Reshape((1,))]), False),
    "a model inside": (inside, False),
    "logits": (lambda: keras.layers.Dropout(0.1), True),
    "a linear activation": (lambda: keras.layers.Activation("linear"), True),
    "something else": (lambda: keras.layers.Dense(1, "tanh"), None),
    "a function of one's own": (lambda: keras.layers.Dense(1, activation=doubled), None),
}


@pytest.mark.parametrize("head", list(HEADS))
def test_last_activations(head):
    from bc_keras.training.compiled._score_scale import activation_of

    make, expected = HEADS[head]
    assert activation_of(functional(make())) is expected


@pytest.mark.parametrize("kind", ["probabilities", "logits"])
def test_stored_scores_say_what_they_are(kind):
    x, y = data(64)
    h1 = net(0, activation="softmax" if kind == "probabilities" else None)
    stored = StoredOutputs.compute(h1, x)
    p1 = answers(net(0), x)
    z2 = answers(net(1, activation=None), x).astype(float)
    expected = -(p1 * (z2 - np.log(np.exp(z2).sum(1, keepdims=True)))).sum(1).mean()
    for activation in (None, "softmax"):
        model = BCModel(net(1, activation=activation), h1=stored, dissonance="imitation")
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=activation is None)
        model.compile(keras.optimizers.SGD(0.0), loss)
        logs = model.fit(*stored.attach(x, y), batch_size=64, verbose=0).history
        assert logs["dissonance"][0] == pytest.approx(expected, rel=1e-4)


def test_scores_of_a_hinge_turn_at_zero():
    x, y = binary_data()
    h1, h2 = binary_net(None), binary_net(None, 1)
    h1.compile("sgd", "hinge")
    for target in (y, 2 * y - 1, (2 * y - 1).astype("int64")):
        model = BCModel(binary_net(None, 1), h1=h1)
        model.compile(keras.optimizers.SGD(0.0), "hinge", metrics=[ErrorOverlapMetric()])
        logs = model.fit(x, target, verbose=0).history
        assert logs["both_right"][0] + logs["h1_only_right"][0] == right(x, y)
        assert logs["both_right"][0] + logs["h2_only_right"][0] == right(x, y, 1)
        h2.compile("sgd", "hinge")
        found = evaluate(h1, h2, (x, target)).comparison.overlap
        assert found.both_right + found.h1_only_right == right(x, y)
    model = BCModel(h2, h1=h1, dissonance="strict_imitation")
    model.compile("sgd", "hinge")
    with pytest.raises(ValueError, match="a margin.*from_logits=True or False"):
        model.fit(x, y, verbose=0)


def test_a_squared_loss_reads_scores_at_a_half_wherever_they_lie():
    x, y = binary_data()
    h1, h2 = binary_net(None), binary_net(None, 1)
    for model in (h1, h2):
        model.compile("sgd", "mse")
    model = BCModel(h2, h1=h1)
    model.compile(keras.optimizers.SGD(0.0), "mse", metrics=[ErrorOverlapMetric()])
    logs = model.fit(x, y, verbose=0).history
    expected = int(((answers(h1, x) >= 0.5) == y).sum())
    assert logs["both_right"][0] + logs["h1_only_right"][0] == expected


# What h1 gives later than in the first batch


def h1_that_breaks(value):
    """h1 that gives NaN or infinity where the first feature is above 90."""
    inner = net(0)
    inputs = keras.Input((4,))
    broken = keras.layers.Lambda(lambda both: ops.where(both[0][:, :1] > 90, value, both[1]))([inputs, inner(inputs)])
    return keras.Model(inputs, broken)


# What is noted of a step are its outputs, whatever is made of them.
each_break = pytest.mark.parametrize(
    ("dissonance", "value"),
    once_but(
        [("new_error", math.nan), ("strict_imitation", math.inf)],
        itertools.product(["new_error", "strict_imitation"], [math.nan, math.inf]),
    ),
)


@each_break
def test_an_h1_that_breaks_after_the_first_batch_is_told(dissonance, value):
    x, y = data(96)
    broken = x.copy()
    broken[70, 0] = 99  # in the fifth batch of six
    model = BCModel(net(1), h1=h1_that_breaks(value), dissonance=dissonance)
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="NaN or infinity from h1, first in step 5 of 6"):
        model.fit(broken, y, batch_size=16, epochs=3, shuffle=False, verbose=0)
    with pytest.raises(ValueError, match="what was measured is of no use.* first in step 5 of 6"):
        model.evaluate(broken, y, batch_size=16, verbose=0)
    with pytest.raises(ValueError, match="h1 must give finite scores.*32 instances of data"):
        evaluate(model.h1, net(1), (broken, y))
    with pytest.raises(ValueError, match="first in step 1 of 1"):
        model.train_on_batch(broken[64:80], y[64:80])


@each_break
def test_an_h2_that_breaks_after_the_first_batch_is_told(dissonance, value):
    x, y = data(96)
    broken = x.copy()
    broken[70, 0] = 99
    model = BCModel(h1_that_breaks(value), h1=net(0), dissonance=dissonance)
    # It learns nothing, so that it does not break in the steps after.
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="what was measured is of no use.*from h2, first in step 5 of 6"):
        model.evaluate(broken, y, batch_size=16, verbose=0)
    with pytest.raises(ValueError, match="h2 must give finite scores.*NaN or infinity from h2, first in step 5 of 6"):
        model.fit(broken, y, batch_size=16, epochs=3, shuffle=False, verbose=0)


def test_a_training_that_diverges_is_told_before_its_scores_are():
    x, y = data(96)
    seen = []
    later = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))
    model = BCModel(net(1, activation=None), h1=net(0, activation=None))
    model.compile(
        keras.optimizers.SGD(1e30), keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[ErrorOverlapMetric()],
    )  # fmt: skip
    with pytest.raises(ValueError, match="NaN or infinity from h2.*first in step"):
        model.fit(x, y, batch_size=16, epochs=3, verbose=0, callbacks=[later])
    assert not seen


def test_a_clean_fit_after_a_broken_one_goes_through():
    x, y = data(96)
    broken = x.copy()
    broken[70, 0] = 99
    model = BCModel(net(1), h1=h1_that_breaks(float("nan")))
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="of no use"):
        model.fit(x, y, verbose=0, validation_data=(broken, y))
    history = model.fit(x, y, epochs=2, verbose=0, validation_data=(x, y)).history
    assert sorted(history) == ["base_loss", "dissonance", "loss", "val_base_loss", "val_dissonance", "val_loss"]
    assert np.isfinite(history["loss"]).all()


def test_nothing_is_waited_for_between_looks(monkeypatch):
    from bc_keras.training.compiled import _output_watch

    looks = []
    monkeypatch.setattr(_output_watch.OutputWatch, "look", lambda self: looks.append(self.name))
    x, y = data(96)
    model = BCModel(net(1), h1=net(0))
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(x, y, batch_size=4, epochs=10, verbose=0)  # 240 batches
    # After the first batch, the hundredth and the two hundredth, and at the end of each epoch.
    assert looks == ["training_watch"] * (3 + 10)


def test_no_prediction_among_stored_labels_is_no_broken_h1():
    x, y = data(32)
    labels = np.where(np.arange(32) % 4 == 0, -1, y)
    stored = StoredOutputs.from_table(labels)
    model = BCModel(net(1), h1=stored)
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=[ErrorOverlapMetric()])
    logs = model.fit(*stored.attach(x, y, num_classes=3), verbose=0).history
    assert logs["both_right"][0] + logs["h1_only_right"][0] == 24


# What is told of stored scores, and of a model, is told by the one and the other without a step.
@pytest.mark.parametrize(
    ("first", "second", "store_h1"),
    once_but(
        [("sigmoid", None, "auto"), (None, "sigmoid", False)],
        [(*models, stored) for models in (("sigmoid", None), (None, "sigmoid")) for stored in ("auto", False)],
    ),
)
def test_a_sweep_reads_each_model_by_itself(tmp_path, first, second, store_h1):
    x, y = binary_data(32)
    found = sweep(
        lambda: binary_net(second, 1),
        binary_net(first, compiled=True),
        (x, y),
        test=(x, y),
        folder=tmp_path / "sweep",
        lambdas=[1.0],
        losses=["new_error"],
        compile={"optimizer": "sgd", "loss": LOSSES[second]},
        fit={"epochs": 1},
        store_h1=store_h1,
        tensorboard=False,
        progress_bar=False,
    )
    for name in ("train", "test"):
        overlap = found.comparison("new_error", 1.0, dataset=name).overlap
        assert overlap.both_right + overlap.h1_only_right == right(x, y)


@pytest.mark.parametrize("size", [4, 64])
def test_answers_beside_the_labels_are_looked_at_in_batches_of_any_size(size):
    x, y = binary_data()
    h1, h2 = binary_net("sigmoid"), binary_net(None, 1)
    h2.compile("sgd", LOSSES[None])
    joined = attach_h1(h1, x, y)
    with pytest.raises(ValueError, match="h1_from_logits=False"):
        evaluate(None, h2, joined, batch_size=size)
    found = evaluate(None, h2, joined, batch_size=size, h1_from_logits=False).comparison.overlap
    assert found.both_right + found.h1_only_right == right(x, y)
