"""Every pattern: the changed line trains it, lambda_c = 0 is plain, scores, penalty and weight files are right."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
import pytest
from keras_patterns import HERE, KERAS_TABLE
from public_program import TRAIN_ROWS, VAL_ROWS, Program, Run
from public_table import PAGE, counted, rows, rows_on_the_page

from bc_keras import BTC, BCModel, CompatibilityCallback, ErrorOverlapMetric

LAMBDA = 4.0
SCORES = ("btc", "bec_given_h1_wrong", "nfr", "accuracy_h1")
CELLS = ("both_right", "h1_only_right", "h2_only_right", "both_wrong")

every = pytest.mark.parametrize("pattern", HERE, ids=lambda pattern: pattern.__name__)


def some(*names: str) -> Any:
    """The patterns of these names that run here: one for each kind of output and of data."""
    return pytest.mark.parametrize("pattern", [p for p in HERE if p.__name__ in names], ids=lambda p: p.__name__)


KINDS_OF_OUTPUT = (
    "SequentialModel",
    "FunctionalWithLogits",
    "SubclassedModel",
    "DictionaryOfInputs",
    "KerasHubTask",
    "TextVectorizationInside",
    "TokenClassification",
    "Segmentation",
    "BinarySigmoid",
    "BinaryLogits",
    "MultilabelSigmoid",
    "LabelSmoothing",
)
kinds_of_output = some(*KINDS_OF_OUTPUT)
# What is weighted and counted where is the same code on every backend: all of them where a step costs least, or where
# alone they run. Every one is trained on each, by the first test.
NOT_ON_TORCH = [pattern.__name__ for pattern in HERE if "torch" not in pattern.backends]
once_and_kinds = (
    every
    if keras.backend.backend() == "torch"
    else some(*KINDS_OF_OUTPUT, "ClassWeights", "GradientAccumulation", "TransferLearning", *NOT_ON_TORCH)
)
unaided = pytest.mark.parametrize(
    "pattern", [pattern for pattern in HERE if pattern.error], ids=lambda pattern: pattern.__name__
)


# Keras's own advice on generators, and numpy's on Keras's tensors; warnings of bc_keras stay errors.
pytestmark = [
    pytest.mark.filterwarnings("ignore:::keras"),
    pytest.mark.filterwarnings("ignore:.*__array__ implementation:DeprecationWarning"),
]


def working(pattern: type[Program]) -> type[Program]:
    """The program that trains: after the remedy, if there is one."""
    return pattern.mended or pattern


@functools.cache
def h1_of(pattern: type[Program]) -> Any:
    """A model of h2's kind with other weights."""
    keras.utils.set_random_seed(7)
    program = working(pattern)()
    h1 = program.build()
    program.answers(h1, program.rows(TRAIN_ROWS, 0)[0])
    return h1


def executed(pattern: type[Program], **run: Any) -> tuple[Any, Any, dict[str, list[float]]]:
    program = working(pattern)()
    keras.utils.set_random_seed(3)
    return program.run(Run(**run))


def scored() -> list[Any]:
    return ["accuracy", BTC(), ErrorOverlapMetric()]


@functools.cache
def plain(pattern: type[Program]) -> tuple[Any, Any, dict[str, list[float]]]:
    return executed(pattern)


@functools.cache
def compatible(pattern: type[Program]) -> tuple[Any, Any, dict[str, list[float]]]:
    h1 = h1_of(pattern)
    return executed(
        pattern,
        wrap=lambda h2: BCModel(h2, h1=h1, lambda_c=LAMBDA, **working(pattern).options),
        metrics=scored,
        h1=h1,
        lambda_c=LAMBDA,
    )


def equal_weights(one: Any, other: Any) -> bool:
    pairs = list(zip(one.get_weights(), other.get_weights(), strict=True))
    return bool(pairs) and all(np.array_equal(a, b) for a, b in pairs)


# -- (1), (2): it trains, and with lambda_c = 0 it is the plain program --------------------------------------------


@functools.cache
def zero(pattern: type[Program]) -> tuple[Any, Any, dict[str, list[float]]]:
    h1 = h1_of(pattern)
    return executed(pattern, wrap=lambda h2: BCModel(h2, h1=h1, lambda_c=0.0, **working(pattern).options), h1=h1)


@every
def test_lambda_zero_is_the_plain_program_to_the_bit(pattern):
    ours, theirs = zero(pattern), plain(pattern)
    if not working(pattern).exact or keras.backend.backend() == "jax":
        for one, other in zip(ours[0].get_weights(), theirs[0].get_weights(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    if not working(pattern).exact:
        return
    if keras.backend.backend() == "jax" and different(ours, theirs):
        # XLA compiles another program of a step that asks h1 too, in which a sum may be rounded otherwise. The
        # operations are those of the plain step: one by one they give the same bits.
        zero_lambda = functools.partial(BCModel, h1=h1_of(pattern), lambda_c=0.0, **working(pattern).options)
        ours = executed(pattern, wrap=zero_lambda, h1=h1_of(pattern), eagerly=True)
        theirs = executed(pattern, eagerly=True)
    assert not different(ours, theirs)


def different(ours: Any, theirs: Any) -> list[str]:
    """What two runs do not have in common to the bit: weights, and the values that the plain one logs."""
    (h2, _, logged), (expected, _, plain_logged) = ours, theirs
    names = [name for name, values in plain_logged.items() if not np.array_equal(values, logged[name])]
    return names if equal_weights(h2, expected) else [*names, "weights"]


@kinds_of_output
def test_evaluate_gives_what_the_plain_model_gives(pattern):
    (_, model, _), (_, expected, _) = zero(pattern), plain(pattern)
    program = working(pattern)()
    x, y = program.rows(VAL_ROWS, 1)
    ours, theirs = (each.evaluate(x, program.encoded(y), verbose=0) for each in (model, expected))
    np.testing.assert_allclose(ours, theirs, rtol=0 if working(pattern).exact else 1e-5)


@unaided
def test_as_it_is_it_is_refused_with_what_to_do(pattern):
    h1 = h1_of(pattern)
    program = pattern()
    keras.utils.set_random_seed(3)
    options = pattern.options if pattern.how == "refused" else {}
    with pytest.raises((TypeError, ValueError), match=pattern.error):
        program.run(Run(wrap=lambda h2: BCModel(h2, h1=h1, lambda_c=LAMBDA, **options)))


# -- (3): the logged scores are those of plain numpy ----------------------------------------------------------------


def scores_by_numpy(pattern: type[Program], h2: Any) -> dict[str, float]:
    program = working(pattern)()
    x, y = program.rows(VAL_ROWS, 1)
    a, b = program.predicted(h1_of(pattern), x).reshape(-1), program.predicted(h2, x).reshape(-1)
    y = np.asarray(y).reshape(-1)
    if working(pattern).ignored is not None:
        a, b, y = a[y != working(pattern).ignored], b[y != working(pattern).ignored], y[y != working(pattern).ignored]
    right1, right2 = a == y, b == y
    assert 0 < right1.mean() < 1, "an h1 that is never or always right shows nothing"
    cells = (right1 & right2, right1 & ~right2, ~right1 & right2, ~right1 & ~right2)
    return {
        **{name: cell.sum() for name, cell in zip(CELLS, cells, strict=True)},
        "btc": (right1 & right2).sum() / right1.sum(),
        "bec_given_h1_wrong": (~right1 & ~right2).sum() / (~right1).sum(),
        "nfr": (right1 & ~right2).mean(),
        "accuracy_h1": right1.mean(),
    }


@once_and_kinds
def test_logged_scores_are_those_of_plain_numpy(pattern):
    h2, _, logged = compatible(pattern)
    expected = scores_by_numpy(pattern, h2)
    compared = [name for name in expected if f"val_{name}" in logged]
    assert set(compared) >= {"btc", *CELLS} or set(compared) >= set(SCORES)
    for name in compared:
        assert logged[f"val_{name}"][-1] == pytest.approx(expected[name], abs=1e-6), name


@kinds_of_output
def test_the_callback_logs_the_same_scores_of_a_plain_model(pattern):
    program = working(pattern)()
    h2, _, _ = plain(pattern)
    expected = scores_by_numpy(pattern, h2)
    x, y = program.rows(VAL_ROWS, 1)
    watch = CompatibilityCallback((x, program.encoded(y)), h1=h1_of(pattern))
    h2.evaluate(x, program.encoded(y), verbose=0, callbacks=[watch])
    for name in SCORES:
        assert watch.comparison.overlap.score(name) == pytest.approx(expected[name], abs=1e-6), name


# -- (4): files are the plain model's -------------------------------------------------------------------------------


@once_and_kinds
def test_weights_file_loads_in_the_plain_model(pattern, tmp_path):
    program = working(pattern)()
    h2, model, _ = compatible(pattern)
    model.save_weights(tmp_path / "ours.weights.h5")
    restored = program.build()
    x = program.rows(VAL_ROWS, 1)[0]
    program.answers(restored, x)
    restored.load_weights(tmp_path / "ours.weights.h5")
    # What h2 says, for Keras writes a kernel and its low-rank update as one.
    plain = program.build()
    program.answers(plain, x)
    h2.save_weights(tmp_path / "plain.weights.h5")
    plain.load_weights(tmp_path / "plain.weights.h5")
    assert equal_weights(restored, plain)
    np.testing.assert_allclose(program.answers(restored, x), program.answers(h2, x), rtol=1e-5, atol=1e-6)


# -- (5): the penalty acts, and is the one written by hand ----------------------------------------------------------


def weights_by_hand(pattern: type[Program]) -> np.ndarray:
    """New error: an instance that h1 gets right counts 1 + lambda_c times."""
    program = working(pattern)()
    x, y = program.rows(TRAIN_ROWS, 0)
    y = np.asarray(y)
    right = program.predicted(h1_of(pattern), x).reshape(y.shape) == y
    assert right.any(), "h1 is right on nothing, so there is no penalty to see"
    own = program.own_weights(y)
    return (own * (1 + LAMBDA * right.reshape(own.shape))).astype("float32")


@once_and_kinds
def test_training_is_keras_with_weights_of_one_and_lambda_where_h1_is_right(pattern):
    h2, _, _ = compatible(pattern)
    assert not equal_weights(h2, plain(pattern)[0]), "the penalty trained nothing"
    if not working(pattern).by_hand:
        return
    by_hand, _, _ = executed(pattern, weights=weights_by_hand(pattern))
    for one, other in zip(h2.get_weights(), by_hand.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=working(pattern).tolerance, atol=working(pattern).tolerance * 0.1)


def test_the_table_of_the_docs_is_this_list():
    assert rows_on_the_page("Keras programs") == rows(KERAS_TABLE)
    assert counted(KERAS_TABLE) in PAGE.read_text(encoding="utf-8")
