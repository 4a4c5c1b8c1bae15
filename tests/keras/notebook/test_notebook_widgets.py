"""`ModelComparison` of Keras models, against a plain pass over the data; both names, as in `bc_lightning`."""

import inspect
import subprocess
import sys
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from backends import once

import bc_keras
from bc_core import compare
from bc_keras import CompatibilityAnalysis, ModelComparison

ORIGINALS = Path(__file__).parents[2] / "data" / "original_sweep"
ROWS = 50

# What is shown are predictions, of which evaluating is tested on each backend.
pytestmark = once


def net(seed, units=3, activation="softmax"):
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(8),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(units, activation),
        ]
    )


class Counting(keras.layers.Layer):
    """Passes its input on and counts how many rows it saw, in which mode."""

    def __init__(self):
        super().__init__()
        self.seen = self.add_weight(shape=(2,), initializer="zeros", trainable=False, name="seen")

    def call(self, x, training=None):
        row = keras.ops.convert_to_tensor([1.0, 1000.0 if training else 0.0])
        self.seen.assign(self.seen + row * keras.ops.cast(keras.ops.shape(x)[0], "float32"))
        return x


@pytest.fixture
def models():
    return net(0), net(1)


@pytest.fixture
def data():
    rng = np.random.default_rng(2)
    return rng.normal(size=(ROWS, 4)).astype("float32"), rng.integers(0, 3, ROWS)


def expected(models, data, **options):
    x, y = data
    h1, h2 = (keras.ops.convert_to_numpy(model(x, training=False)).argmax(1) for model in models)
    return compare(y, h1, h2, num_classes=3, **options)


def batches_of(data, ids=True, size=16):
    x, y = data
    parts = [
        (np.arange(1000, 1000 + ROWS)[i : i + size], x[i : i + size], y[i : i + size]) for i in range(0, ROWS, size)
    ]
    return parts if ids else [part[1:] for part in parts]


def test_arrays_are_compared_by_position_or_by_ids(models, data):
    assert ModelComparison(*models, data).comparison.without_scores() == expected(models, data)
    names = [f"n{i}" for i in range(ROWS)]
    shown = ModelComparison(*models, data, ids=names, name="update", class_names=["a", "b", "c"], batch_size=7)
    assert shown.comparison.without_scores() == expected(
        models, data, ids=names, name="update", class_names=["a", "b", "c"]
    )
    [series] = shown.view.index["series"]
    assert series["run"] == "update"
    assert series["steps"][0][3:] == shown.comparison.overlap.counts.sum(axis=0).ravel().tolist()
    assert shown.h2_performance == shown.comparison.overlap.accuracy_h2


@pytest.mark.parametrize("form", [tuple, list])
def test_the_batches_of_the_original_bring_their_ids(models, data, form):
    known = expected(models, data, ids=range(1000, 1000 + ROWS), metadata=lambda i: f"row {i}")
    batches = [form(batch) for batch in batches_of(data)]
    assert (
        ModelComparison(*models, batches, get_instance_metadata=lambda i: f"row {i}").comparison.without_scores()
        == known
    )
    assert ModelComparison(*models, batches_of(data, ids=False)).comparison.without_scores() == expected(models, data)
    with pytest.raises(ValueError, match="of one form"):
        ModelComparison(*models, [*batches_of(data)[:1], *batches_of(data, ids=False)[1:]])
    with pytest.raises(ValueError, match="3 ids for 16 labels"):
        ModelComparison(*models, [(np.arange(3), *batches_of(data)[0][1:])])


def test_data_sets_of_tensorflow_are_compared(models, data):
    tf = pytest.importorskip("tensorflow")
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(16)
    assert ModelComparison(*models, dataset).comparison.without_scores() == expected(models, data)


def test_each_model_is_asked_once_about_each_instance_in_inference_mode(data):
    counters = [Counting(), Counting()]
    models = [keras.Sequential([keras.Input((4,)), counter, net(i)]) for i, counter in enumerate(counters)]
    before = [[np.array(weight) for weight in model.get_weights()] for model in models]
    known = expected(models, data)
    for model, weights in zip(models, before, strict=True):
        model.set_weights(weights)
    assert ModelComparison(*models, data).comparison.without_scores() == known
    for counter in counters:
        assert keras.ops.convert_to_numpy(counter.seen).tolist() == [ROWS, 0]
    for model, weights in zip(models, before, strict=True):
        changed = [i for i, (a, b) in enumerate(zip(model.get_weights(), weights, strict=True)) if (a != b).any()]
        assert len(changed) == 1  # what counts, and no statistics of a batch


def test_models_may_share_layers(data):
    backbone = net(0, units=8, activation="relu")
    h1, h2 = (keras.Sequential([keras.Input((4,)), backbone, keras.layers.Dense(3)]) for _ in range(2))
    assert ModelComparison(h1, h2, data).comparison.without_scores() == expected((h1, h2), data)


def test_h1_may_be_its_answers(models, data):
    known = expected(models, data)
    scores = keras.ops.convert_to_numpy(models[0](data[0], training=False))
    assert ModelComparison(scores, models[1], data).comparison.without_scores() == known
    assert ModelComparison(scores.argmax(1), models[1], data).comparison.without_scores() == known


def test_binary_models_are_read_as_compiled_or_as_probabilities(data):
    x, _ = data
    y = (x[:, 0] > 0).astype("int64")
    h1, h2 = net(0, 1, "sigmoid"), net(1, 1, "sigmoid")
    labels = [(keras.ops.convert_to_numpy(model(x, training=False))[:, 0] >= 0.5).astype(int) for model in (h1, h2)]
    known = compare(y, *labels, num_classes=2)
    assert ModelComparison(h1, h2, (x, y)).comparison.without_scores() == known
    logits = [net(i, 1, None) for i in range(2)]
    for model in logits:
        model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True))
    labels = [(keras.ops.convert_to_numpy(model(x, training=False))[:, 0] >= 0).astype(int) for model in logits]
    assert ModelComparison(*logits, (x, y)).comparison.without_scores() == compare(y, *labels, num_classes=2)


def test_the_call_of_the_original_works_by_position(models, data):
    batches = batches_of(data)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=DeprecationWarning, message=".*means nothing")
        shown = ModelComparison(*models, batches, lambda model, dataset, device: len(dataset), None, None, str)
    assert (shown.h1_performance, shown.h2_performance) == (4, 4)
    assert shown.comparison.instances.metadata[0] == str(shown.comparison.instances.ids[0])
    with pytest.warns(DeprecationWarning, match="means nothing any more") as caught:
        ModelComparison(*models, batches, port=5005, device="cuda")
    ours = [warning for warning in caught if "means nothing" in str(warning.message)]
    assert [str(warning.message).split()[0] for warning in ours] == ["port", "device"]
    assert {warning.filename for warning in ours} == {__file__}


def test_what_is_no_model_is_refused(models, data):
    with pytest.raises(TypeError, match="h2 must be a Keras model"):
        ModelComparison(models[0], lambda x: x, data)


def test_both_names_are_public_with_the_arguments_of_the_other_side():
    assert {"ModelComparison", "CompatibilityAnalysis"} <= set(bc_keras.__all__)
    first = list(inspect.signature(ModelComparison).parameters)[:8]
    assert first == [
        "h1",
        "h2",
        "dataset",
        "performance_metric",
        "port",
        "get_instance_image_by_id",
        "get_instance_metadata",
        "device",
    ]
    shown = CompatibilityAnalysis(ORIGINALS / "one_batch")
    assert len(shown.view.index["series"]) == 12


def test_importing_is_light():
    code = "import sys, bc_keras; print([n for n in ('anywidget', 'ipywidgets') if n in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip().splitlines()[-1] == "[]"
