"""Files that an earlier revision wrote with Keras are opened by this one; see `tests/test_written_before.py`.

Sweeps belong to a backend, all other files are opened on every one.
"""

from __future__ import annotations

import gzip
import json
import shutil

import keras
import numpy as np
import pytest
from written_before import recipes
from written_before.expected import GIVEN, WRITTEN, check_golden, check_invariance, check_sweep, state_of, trained

import bc_keras
from bc_core import SweepResults
from bc_core.invariance import InvarianceResult

BACKEND = keras.backend.backend()
HERE = f"keras_{BACKEND}"
BACKENDS = ("tensorflow", "jax", "torch")
# Which weights Keras's "sgd" moves by in a sweep, and the points that it finished.
RATE, POINTS = 0.01, [("new_error", 0.0), ("new_error", 1.0)]


def softmax(scores):
    """Shares of the exponentials, over the last axis."""
    exponentials = np.exp(scores - scores.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def probabilities(w, b):
    return softmax(GIVEN.x @ w + b)


@pytest.fixture
def written(tmp_path):
    """A copy of the fixtures, which what is resumed may write into."""
    return shutil.copytree(WRITTEN, tmp_path / "written", ignore=shutil.ignore_patterns("*.py", "__pycache__"))


H1 = probabilities(GIVEN.h1_w, GIVEN.h1_b)


# Sweeps


@pytest.mark.parametrize("backend", BACKENDS)
def test_sweep_folder_is_opened(backend):
    results = SweepResults.open(WRITTEN / f"keras_{backend}" / "sweep")
    check_sweep(results, POINTS, RATE, [recipes.FAILING])
    (failure,) = results.failures
    assert failure.point.lambda_c == 1.0
    assert "needs one 0 or 1 for each" in failure.error


@pytest.mark.parametrize(("loss", "lambda_c"), POINTS)
def test_model_of_a_point_is_loaded(loss, lambda_c):
    results = SweepResults.open(WRITTEN / "keras_torch" / "sweep")
    model = keras.models.load_model(results.model_path(loss, lambda_c), compile=False)
    for values, expected in zip(model.get_weights(), trained(loss, lambda_c, RATE), strict=True):
        np.testing.assert_allclose(values, expected, atol=1e-5)


def test_sweep_is_resumed_without_training_anew(written):
    folder = written / HERE / "sweep"
    before = state_of(folder / "points") | state_of(folder / "h1")
    found = recipes.keras_sweep(folder, losses=("new_error",))
    assert state_of(folder / "points") | state_of(folder / "h1") == before
    check_sweep(found, POINTS, RATE, [recipes.FAILING])


def test_sweep_is_continued_and_tries_again_what_failed(written):
    folder = written / HERE / "sweep"
    before = state_of(folder / "points")
    with pytest.warns(RuntimeWarning, match="2 of 5 points failed"):
        found = recipes.keras_sweep(folder, losses=("new_error", recipes.FAILING), lambdas=[0.0, 1.0, 4.0])
    assert before.items() < state_of(folder / "points").items()
    check_sweep(found, [*POINTS, ("new_error", 4.0)], RATE, [recipes.FAILING])


# Stored outputs


@pytest.mark.parametrize("backend", BACKENDS)
def test_stored_outputs_are_opened_and_attached(backend):
    h1 = recipes.keras_dense(GIVEN.h1_w, GIVEN.h1_b)
    stored = bc_keras.StoredOutputs.open(WRITTEN / f"keras_{backend}" / "stored", h1)
    np.testing.assert_allclose(stored[np.arange(24)], H1, atol=1e-6)
    _, joined = stored.attach(GIVEN.x, GIVEN.y)
    assert np.array_equal(np.asarray(joined)[:, 0], GIVEN.y)
    assert np.isclose(np.asarray(joined)[:, 1:4], H1, atol=1e-6).all()


def test_stored_outputs_are_not_computed_anew(written):
    h1 = recipes.keras_dense(GIVEN.h1_w, GIVEN.h1_b)
    for name, options in (("stored", {"y": GIVEN.y}), ("stored_without_y", {})):
        folder = written / "keras_torch" / name
        before = state_of(folder)
        stored = bc_keras.store_outputs(h1, GIVEN.x, folder, batch_size=10, verbose=0, **options)
        assert len(stored) == 24
        assert state_of(folder) == before


def test_interrupted_stored_outputs_are_completed(written):
    folder = written / "keras_torch" / "stored_in_part"
    with pytest.raises(ValueError, match="complete"):
        bc_keras.StoredOutputs.open(folder)
    h1 = recipes.Stopped(recipes.keras_dense(GIVEN.h1_w, GIVEN.h1_b), calls=24)
    stored = bc_keras.store_outputs(h1, GIVEN.x, folder, batch_size=5, verbose=0)
    np.testing.assert_allclose(stored[np.arange(24)], H1, atol=1e-6)
    # Some rows are looked at again.
    assert 0 < sum(h1.seen) < 24


# Models


@pytest.mark.parametrize(
    ("backend", "name"), [*((backend, "with_h1") for backend in BACKENDS), ("torch", "without_h1")]
)
def test_model_in_a_keras_file(backend, name):
    # Keras's optimisers of torch are of no use on another backend.
    model = keras.models.load_model(WRITTEN / f"keras_{backend}" / f"{name}.keras", compile=backend == BACKEND)
    w, b = trained("new_error", 0.5, 0.125, momentum=0.5)
    for values, expected in zip(model.get_weights(), (w, b), strict=True):
        np.testing.assert_allclose(values, expected, atol=1e-5)
    np.testing.assert_allclose(model.predict(GIVEN.x, verbose=0), probabilities(w, b), atol=1e-5)
    assert isinstance(model, bc_keras.BCModel) == (name == "with_h1")


def test_training_goes_on_from_a_keras_file():
    model = keras.models.load_model(WRITTEN / HERE / "with_h1.keras")
    fitted = model.fit(GIVEN.x, GIVEN.y, batch_size=8, epochs=1, shuffle=False, verbose=0)
    expected = trained("new_error", 0.5, 0.125, epochs=2, momentum=0.5)
    for values, wanted in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(values, wanted, atol=1e-5)
    assert "btc" in fitted.history
    h2 = probabilities(*expected).argmax(1)
    found = model.evaluate(GIVEN.x, GIVEN.y, verbose=0, return_dict=True)
    right = GIVEN.h1 == GIVEN.y
    assert found["btc"] == pytest.approx((right & (h2 == GIVEN.y)).sum() / right.sum())


OBJECTS = json.loads(gzip.decompress((WRITTEN / "keras_torch" / "objects.json.gz").read_bytes()))


def plain(value):
    """A config without names and numbers that Keras counts up in a process."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items() if key not in ("shared_object_id", "module")}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return "input_layer" if isinstance(value, str) and value.startswith("input_layer") else value


@pytest.mark.parametrize("name", OBJECTS)
def test_object_of_a_saved_model_is_revived(name):
    revived = keras.saving.deserialize_keras_object(OBJECTS[name])
    assert type(revived) is getattr(bc_keras, name)
    assert plain(keras.saving.serialize_keras_object(revived)) == plain(OBJECTS[name])


def test_every_kind_of_object_is_there():
    assert set(OBJECTS) == set(recipes.keras_objects(bc_keras))


def test_compiled_objects_of_a_plain_model():
    model = keras.models.load_model(WRITTEN / "keras_torch" / "plain.keras", compile=BACKEND == "torch")
    h2 = probabilities(GIVEN.h2_w, GIVEN.h2_b)
    np.testing.assert_allclose(model.predict(GIVEN.x, verbose=0), h2, atol=1e-6)
    if BACKEND == "torch":
        assert isinstance(model.loss, bc_keras.TargetLoss)


def test_invariance_result():
    result = InvarianceResult.load(WRITTEN / "keras_torch" / "invariance.npz")
    assert result.layer_names == ("flatten", "classes")
    check_invariance(result, "classes", after=softmax)


def test_training_takes_the_steps_it_took():
    check_golden(WRITTEN / HERE / "golden.json", recipes.golden_keras())
