"""Batches in a list, as the original's data sets are: in `bc_fit`, `evaluate`, sweeps; and its sums over batches."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from backends import once
from keras import ops

import bc_keras
from bc_keras import BCCrossEntropyLoss, ModelComparison, bc_fit, evaluate, sweep

pytestmark = once

LAMBDA, RATE = 0.7, 0.05


def net():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])


def data(rows=24):
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, 4)).astype("float32"), np.arange(rows) % 3


def cut(x, y, sizes):
    ends = np.cumsum(sizes)
    return [(x[end - size : end], y[end - size : end]) for end, size in zip(ends, sizes, strict=True)]


def softmax(scores):
    e = np.exp(scores - scores.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def trained_by_hand(h1, h2, batches, epochs, scale):
    """Softmax regression by SGD in numpy, each batch in the order of the list."""
    (w1, b1), (w, b) = h1.get_weights(), h2.get_weights()
    for _ in range(epochs):
        for x, y in batches:
            support = softmax(x @ w1 + b1).argmax(1) == y
            slope = (softmax(x @ w + b) - np.eye(3)[y]) * (1 + LAMBDA * support[:, None]) / scale(len(y))
            w, b = w - RATE * x.T @ slope, b - RATE * slope.sum(0)
    return w, b


SIZES = [[24], [12, 12], [8, 8, 8], [3, 11, 2, 8]]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("reduction", [None, "sum"])
def test_bc_fit_goes_through_the_batches_in_their_order(sizes, reduction):
    keras.utils.set_random_seed(0)
    h1, h2 = net(), net()
    batches = cut(*data(), sizes)
    wanted = trained_by_hand(h1, h2, batches, 2, lambda n: n if reduction is None else 1)
    history = bc_fit(
        h2, training_set=batches, testing_set=batches, epochs=2, bc_loss=BCCrossEntropyLoss(h1, h2, LAMBDA),
        optimizer=keras.optimizers.SGD(RATE), reduction=reduction, verbose=0,
    )  # fmt: skip
    for found, known in zip(h2.get_weights(), wanted, strict=True):
        np.testing.assert_allclose(found, known, rtol=1e-4, atol=1e-5)
    assert len(history.history["val_loss"]) == 2


def test_a_loss_that_was_made_as_a_sum_is_one_and_is_reported_in_its_two_halves():
    keras.utils.set_random_seed(0)
    h1, h2 = net(), net()
    x, y = data()
    loss = BCCrossEntropyLoss(h1, h2, LAMBDA, reduction="sum")
    wanted = trained_by_hand(h1, h2, [(x, y)], 1, lambda n: 1)
    support = h1.predict(x, verbose=0).argmax(1) == y
    nll = -np.log(h2.predict(x, verbose=0)[np.arange(24), y])
    assert float(ops.convert_to_numpy(loss(x, y))) == pytest.approx(nll.sum() + LAMBDA * nll[support].sum(), rel=1e-5)
    history = bc_fit(h2, [(x, y)], epochs=1, bc_loss=loss, optimizer=keras.optimizers.SGD(RATE), verbose=0).history
    assert history["base_loss"][0] == pytest.approx(nll.sum(), rel=1e-5)
    assert history["dissonance"][0] == pytest.approx(nll[support].sum(), rel=1e-5)
    np.testing.assert_allclose(h2.get_weights()[0], wanted[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "given",
    [
        tuple,
        lambda batches: [list(batch) for batch in batches],
        lambda batches: [(x, y.tolist()) for x, y in batches],
        lambda batches: [tuple(map(ops.convert_to_tensor, batch)) for batch in batches],
        lambda batches: type("Loader", (), {"__iter__": lambda self: iter(batches)})(),
    ],
    ids=["tuple", "lists", "labels in a list", "tensors", "iterable"],
)
def test_whatever_holds_the_batches_gives_the_same(given):
    keras.utils.set_random_seed(0)
    h1, h2 = net(), net()
    batches = cut(*data(), [10, 14])
    wanted = trained_by_hand(h1, h2, batches, 2, lambda n: n)
    loss = BCCrossEntropyLoss(h1, h2, LAMBDA)
    bc_fit(h2, given(batches), None, 2, loss, keras.optimizers.SGD(RATE), verbose=0)
    np.testing.assert_allclose(h2.get_weights()[0], wanted[0], rtol=1e-4, atol=1e-5)


def test_what_cannot_be_read_as_batches_says_what_to_do():
    h1, h2 = net(), net()
    loss = BCCrossEntropyLoss(h1, h2, LAMBDA)
    x, y = data()
    named = [(list(range(24)), x, y)]
    with pytest.raises(ValueError, match=r"\[\(x, y\) for ids, x, y in batches\]"):
        bc_fit(h2, named, epochs=1, bc_loss=loss, optimizer="sgd", verbose=0)
    bc_fit(h2, [(x, y) for ids, x, y in named], epochs=1, bc_loss=loss, optimizer="sgd", verbose=0)
    with pytest.raises(ValueError, match=r"pass list\(batches\)"):
        bc_fit(h2, iter([(x, y)]), epochs=2, bc_loss=loss, optimizer="sgd", verbose=0)
    bc_fit(h2, list(iter([(x, y)])), epochs=2, bc_loss=loss, optimizer="sgd", verbose=0)
    bc_fit(h2, iter([(x, y)]), epochs=1, bc_loss=loss, optimizer="sgd", verbose=0)
    # Keras's own three, whose third weighs the instances.
    history = bc_fit(h2, [(x, y, np.zeros(24, "float32"))], epochs=1, bc_loss=loss, optimizer="sgd", verbose=0)
    assert history.history["loss"] == [0.0]


SCALES = {
    # Keras's own sums over the batch, and over the part of it where h1 is right.
    "BCCrossEntropyLoss": keras.losses.SparseCategoricalCrossentropy,
    "BCBinaryCrossEntropyLoss": keras.losses.BinaryCrossentropy,
    "BCKLDivLoss": keras.losses.KLDivergence,
}


@pytest.mark.parametrize("name", SCALES)
def test_sums_are_those_of_the_original_at_the_same_lambda(name):
    keras.utils.set_random_seed(0)
    h1, h2 = (keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "softmax")]) for _ in range(2))
    x, _ = data()
    y = np.arange(24) % 2
    support = h1.predict(x, verbose=0).argmax(1) == y
    target = y if name == "BCCrossEntropyLoss" else np.eye(2, dtype="float32")[y]
    total = SCALES[name](reduction="sum")
    outputs = h2.predict(x, verbose=0)
    wanted = float(total(target, outputs)) + LAMBDA * float(total(target[support], outputs[support]))
    loss = getattr(bc_keras, name)(h1, h2, LAMBDA, reduction="sum")
    assert float(ops.convert_to_numpy(loss(x, target))) == pytest.approx(wanted, rel=1e-5)


def test_evaluate_and_the_widget_know_ids_in_lists_and_positions_without_them():
    x, y = data()
    h1, h2 = net(), net()
    pairs = cut(x, y, [10, 14])
    named = [[[100 + i for i in range(start, start + len(labels))], inputs, labels]
             for start, (inputs, labels) in zip([0, 10], pairs, strict=True)]  # fmt: skip
    by_position = evaluate(h1, h2, pairs).comparison.instances.ids
    assert evaluate(h1, h2, named).comparison.instances.ids.tolist() == (by_position + 100).tolist()
    assert ModelComparison(h1, h2, named).comparison.instances.ids.tolist() == (by_position + 100).tolist()


def test_a_sweep_takes_them_with_their_ids_and_tells_of_double_ones_before_it_trains(tmp_path):
    x, y = data()
    named = [([f"n{i}" for i in range(a, a + 12)], x[a : a + 12], y[a : a + 12]) for a in (0, 12)]
    common = {
        "lambdas": [0, 1], "losses": ["new_error"], "tensorboard": False, "progress_bar": False,
        "compile": {"optimizer": "sgd", "loss": "sparse_categorical_crossentropy"}, "fit": {"epochs": 1},
    }  # fmt: skip
    h1, h2 = net(), net()
    found = sweep(h2, h1, named, test=named, folder=tmp_path / "s", **common)
    ids = found.comparison("new_error", 1.0, dataset="test").instances.ids
    assert len(ids)
    assert all(instance.startswith("n") for instance in ids)
    overlapping = [(named[0][0], *named[0][1:]), (named[0][0], *named[1][1:])]
    with pytest.raises(ValueError, match="must be unique.*12 of 12 different ids") as told:
        sweep(h2, h1, overlapping, test=named, folder=tmp_path / "t", **common)
    assert not (tmp_path / "t").exists()
    assert "[(x, y) for ids, x, y in batches]" in str(told.value)
    left_out = [(x, y) for ids, x, y in overlapping]
    assert len(sweep(h2, h1, left_out, test=left_out, folder=tmp_path / "t", **common).points) == 2


def test_the_model_of_the_original_has_its_lambda_with_the_mean_over_the_support():
    keras.utils.set_random_seed(0)
    h1 = net()
    x, y = data()
    layers = [keras.layers.Input((4,)), keras.layers.Dense(3, "softmax")]
    model = bc_keras.BCNewErrorCompatibilityModel(layers, h1=h1, lambda_c=LAMBDA, normalization="support")
    model.compile(loss=keras.losses.sparse_categorical_crossentropy, optimizer="sgd")
    nll = -np.log(model.predict(x, verbose=0)[np.arange(24), y])
    support = h1.predict(x, verbose=0).argmax(1) == y
    found = model.evaluate(x, y, batch_size=24, verbose=0, return_dict=True)["loss"]
    assert found == pytest.approx(nll.mean() + LAMBDA * nll[support].mean(), rel=1e-5)


def test_the_modules_by_kind_hold_the_losses_of_that_kind():
    for module in (bc_keras.new_error, bc_keras.strict_imitation):
        assert len(module.__all__) == 4
        for name in module.__all__:
            loss = getattr(module, name)
            assert loss is getattr(bc_keras, name)
            assert loss.dissonance == module.__name__.split(".")[1]


def _pair(seed):
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("kind", ["pairs", "ids", "weights"])
def test_weights_are_no_ids_and_empty_batches_hold_nothing(kind, place):
    x, y = np.random.default_rng(0).normal(size=(10, 4)).astype("float32"), np.arange(10) % 3
    more = {"pairs": (x, y), "ids": (np.arange(100, 110), x, y), "weights": (x, y, np.linspace(0.2, 4, 10))}[kind]
    batches = [tuple(part[start : start + 5] for part in more) for start in (0, 5)]
    batches.insert(place, tuple(part[:0] for part in more))
    h1, h2 = _pair(1), _pair(2)
    right = [np.asarray(h.predict(x, verbose=0)).argmax(1) == y for h in (h1, h2)]
    found = evaluate(h1, h2, batches).comparison
    assert found.overlap.both_right == (right[0] & right[1]).sum()
    assert found.overlap.h1_only_right == (right[0] & ~right[1]).sum()
    assert found.dataset_size == 10
    wrong = np.flatnonzero(~(right[0] & right[1])) + (100 if kind == "ids" else 0)
    assert found.instances.ids.tolist() == wrong.tolist()


def test_batches_of_three_that_may_be_either_are_refused():
    node, y = np.arange(10), np.arange(10) % 3
    with pytest.raises(ValueError, match=r"\(ids, x, y\) or \(x, y, sample_weight\)"):
        evaluate(_pair(1), _pair(2), [(node, y, np.ones(10))])
