"""What is special to metrics of Keras; what they have in common with torch's is in tests/conformance."""

import json
import os
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from keras.src.backend import set_keras_mask
from user_models import CLASSES, data, net
from warm_programs import run_program

from bc_core import ErrorOverlap, score_from_counts
from bc_keras.batches._attached import join_reference
from bc_keras.batches._labels import Labels
from bc_keras.metrics import (
    BEC,
    BTC,
    ErrorOverlapMetric,
    NegativeFlipImpact,
    NegativeFlipRate,
    PositiveFlipRate,
)
from bc_keras.metrics._overlap import fed_by_model

BACKEND = keras.backend.backend()
SCORE_METRICS = {
    "btc": BTC,
    "bec_given_h1_wrong": BEC,
    "bec_given_h2_wrong": lambda **kwargs: BEC(given="h2_wrong", **kwargs),
    "nfr": NegativeFlipRate,
    "pfr": PositiveFlipRate,
    "nfi": NegativeFlipImpact,
}
FACTORIES = {**SCORE_METRICS, "error_overlap": ErrorOverlapMetric}


def batch(n=60, classes=4, seed=0):
    """Labels and scores of two models that are right about half of the time."""
    random = np.random.default_rng(seed)
    target = random.integers(0, classes, n)
    h1, h2 = (random.random((n, classes)) + 0.4 * np.eye(classes)[target] for _ in range(2))
    return target, h1.astype("float32"), h2.astype("float32")


def table(target, h1_labels, h2_labels, weight=1.0):
    """The four cells by plain indexing: the oracle."""
    cells = np.zeros((2, 2))
    np.add.at(cells, ((h1_labels == target).astype(int).ravel(), (h2_labels == target).astype(int).ravel()), weight)
    return cells


def cells_of(metric):
    result = metric.result()
    names = (("both_wrong", "h2_only_right"), ("h1_only_right", "both_right"))
    return np.array([[float(result[name]) for name in row] for row in names])


@pytest.mark.parametrize("name", SCORE_METRICS)
def test_scores_of_one_hot_targets_are_those_of_bc_core(name):
    target, h1, h2 = batch()
    metric = SCORE_METRICS[name]()
    metric.update_state(join_reference(np.eye(4)[target], h1), h2)
    assert metric.name == name
    expected = ErrorOverlap.from_predictions(target, h1.argmax(1), h2.argmax(1)).score(name)
    assert float(metric.result()) == pytest.approx(expected, rel=1e-6)


def test_a_single_column_may_be_a_label_of_its_own():
    random = np.random.default_rng(2)
    target, (p1, p2) = random.integers(0, 2, (20, 1)), random.random((2, 20, 1)).astype("float32")
    metric = ErrorOverlapMetric(num_classes=1, multilabel=True)
    metric.update_state(join_reference(target, p1), p2)
    by_label = [table(t, a, b) for t, a, b in zip(target.T, (p1.T >= 0.5) * 1, (p2.T >= 0.5) * 1, strict=True)]
    np.testing.assert_array_equal(metric.overlap().counts, by_label)


@pytest.mark.parametrize("shape", [(60,), (60, 1)])
@pytest.mark.parametrize("name", SCORE_METRICS)
def test_sample_weights_weigh_instances(name, shape):
    target, h1, h2 = batch()
    weight = np.random.default_rng(3).uniform(0, 2, 60).astype("float32")
    metric = SCORE_METRICS[name]()
    metric.update_state(join_reference(target, h1), h2, sample_weight=weight.reshape(shape))
    expected = score_from_counts(name, table(target, h1.argmax(1), h2.argmax(1), weight))
    assert float(metric.result()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 10), (6, 10, 1)])
def test_sample_weights_of_dense_outputs(shape):
    target, h1, h2 = batch()
    weight = np.random.default_rng(3).uniform(0, 2, shape).astype("float32")
    metric = ErrorOverlapMetric()
    metric.update_state(join_reference(target.reshape(6, 10), h1.reshape(6, 10, 4)), h2.reshape(6, 10, 4), weight)
    flat = np.broadcast_to(weight.reshape(6, -1), (6, 10)).ravel()
    np.testing.assert_allclose(cells_of(metric), table(target, h1.argmax(1), h2.argmax(1), flat), rtol=1e-5)


def test_weights_with_too_many_axes_are_refused():
    target, h1, h2 = batch()
    with pytest.raises(ValueError, match=r"sample_weight must have .* Received: shape \(60, 4\)"):
        BTC().update_state(join_reference(target, h1), h2, np.ones((60, 4)))


def test_weighted_and_unweighted_batches_add_up():
    target, h1, h2 = batch()
    metric = ErrorOverlapMetric()
    metric.update_state(join_reference(target, h1), h2)
    metric.update_state(join_reference(target, h1), h2, np.full(60, 0.5))
    np.testing.assert_allclose(cells_of(metric), 1.5 * table(target, h1.argmax(1), h2.argmax(1)), rtol=1e-6)
    with pytest.raises(ValueError, match="weighted_metrics"):
        metric.overlap()


def test_uneven_weighted_batches_equal_the_whole():
    target, h1, h2 = batch()
    y, weight = join_reference(target, h1), np.random.default_rng(4).integers(0, 4, 60).astype("float32")
    whole, parts = BTC(), BTC()
    whole.update_state(y, h2, weight)
    for part in np.split(np.arange(60), [1, 8, 50]):
        parts.update_state(y[part], h2[part], weight[part])
    assert float(parts.result()) == float(whole.result()) != 0


@pytest.mark.parametrize("weight", [None, 2.0])
def test_masked_positions_do_not_count(weight):
    target, h1, h2 = batch()
    mask = np.random.default_rng(5).random((6, 10)) < 0.5
    y_pred = ops.convert_to_tensor(h2.reshape(6, 10, 4))
    set_keras_mask(y_pred, ops.convert_to_tensor(mask))
    metric = ErrorOverlapMetric()
    sample_weight = None if weight is None else np.full((6,), weight)
    metric.update_state(join_reference(target.reshape(6, 10), h1.reshape(6, 10, 4)), y_pred, sample_weight)
    keep = mask.ravel()
    expected = table(target[keep], h1.argmax(1)[keep], h2.argmax(1)[keep], weight or 1)
    np.testing.assert_array_equal(cells_of(metric), expected)


def test_the_mask_of_a_model_reaches_the_metric():
    inputs = keras.Input((10,), dtype="int32")
    hidden = keras.layers.Embedding(6, 4, mask_zero=True)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(hidden))
    metric = ErrorOverlapMetric()
    model.compile(loss=lambda y_true, y_pred: ops.sum(y_pred), metrics=[metric])
    x = np.random.default_rng(6).integers(0, 6, (8, 10))
    target, h1, _ = batch(80, 3)
    model.evaluate(x, join_reference(target.reshape(8, 10), h1.reshape(8, 10, 3)), batch_size=3, verbose=0)
    h2, keep = model.predict(x, verbose=0).reshape(80, 3), x.ravel() != 0
    np.testing.assert_array_equal(cells_of(metric), table(target[keep], h1.argmax(1)[keep], h2.argmax(1)[keep]))


def test_a_difference_of_one_in_large_counts_shows_in_the_score():
    metric = NegativeFlipRate(dtype="float64")
    metric.counts.assign(np.array([[0, 0], [1, 2**25]]))
    expected = 1 / (2**25 + 1)
    assert float(metric.result()) == pytest.approx(expected, rel=1e-12 if BACKEND != "jax" else 1e-6)


def test_half_precision_result_of_many_instances():
    metric = BTC(dtype="float16")
    metric.counts.assign(np.array([[0, 0], [100_000, 300_000]]))
    assert float(metric.result()) == 0.75


@pytest.mark.parametrize("name", FACTORIES)
def test_serialisation_keeps_every_argument(name):
    options = {"threshold": 0.3, "from_logits": True, "multilabel": True, "ignore_class": 1, "name": "mine"}
    options |= {"zero_division": 0.25} if name in SCORE_METRICS else {"num_classes": 5}
    metric = FACTORIES[name](**options)
    config = json.loads(json.dumps(keras.metrics.serialize(metric)))
    assert config["registered_name"] == f"bc_keras>{type(metric).__name__}"
    for again in (keras.metrics.deserialize(config), type(metric).from_config(metric.get_config())):
        assert type(again) is type(metric)
        assert again.get_config() == metric.get_config()
        assert {key: getattr(again, key) for key in options} == options


@pytest.mark.parametrize("name", FACTORIES)
def test_reset_and_stateless_use(name):
    target, h1, h2 = batch()
    y, weight = join_reference(target, h1), np.full(60, 2.0, "float32")
    metric = FACTORIES[name]()
    variables = [ops.convert_to_tensor(variable.value) for variable in metric.variables]
    variables = metric.stateless_update_state(variables, y, h2)
    variables = metric.stateless_update_state(variables, y, h2, weight)
    stateless = metric.stateless_result(variables)
    assert not any(ops.convert_to_numpy(variable.value).any() for variable in metric.variables)
    metric.update_state(y, h2)
    metric.update_state(y, h2, weight)
    as_numbers = lambda result: {key: float(value) for key, value in result.items()}  # noqa: E731
    if name == "error_overlap":
        assert as_numbers(stateless) == as_numbers(metric.result())
    else:
        assert float(stateless) == float(metric.result())
    for reset in metric.stateless_reset_state():
        assert not ops.convert_to_numpy(reset).any()
    metric.reset_state()
    assert not any(ops.convert_to_numpy(variable.value).any() for variable in metric.variables)


@pytest.mark.parametrize("metric", [BTC, lambda: ErrorOverlapMetric(num_classes=4)])
@pytest.mark.parametrize("weighted", [False, True])
def test_compiled_updates_equal_eager_ones(metric, weighted):
    target, h1, h2 = batch()
    y, weight = (
        join_reference(target, h1),
        (np.random.default_rng(7).random(60).astype("float32") if weighted else None),
    )
    eager, compiled = metric(), metric()
    eager.update_state(y, h2, weight)
    arguments = (y, h2, weight) if weighted else (y, h2)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        tf.function(compiled.update_state, jit_compile=True)(*map(tf.constant, arguments))
    elif BACKEND == "jax":
        import jax

        state = [variable.value for variable in compiled.variables]
        for variable, value in zip(
            compiled.variables, jax.jit(compiled.stateless_update_state)(state, *arguments), strict=True
        ):
            variable.assign(value)
    else:
        import torch

        torch.compile(compiled.update_state, backend="eager")(*map(torch.as_tensor, arguments))
    for got, expected in zip(compiled.variables, eager.variables, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(got), ops.convert_to_numpy(expected), rtol=1e-6)
    assert ops.convert_to_numpy(eager.variables[weighted]).sum() > 0


def test_overlap_is_that_of_bc_core():
    target, h1, h2 = batch()
    by_class, summed = ErrorOverlapMetric(num_classes=4), ErrorOverlapMetric()
    for metric in (by_class, summed):
        metric.update_state(join_reference(target, h1), h2)
    expected = ErrorOverlap.from_predictions(target, h1.argmax(1), h2.argmax(1), num_classes=4)
    assert by_class.overlap() == expected
    np.testing.assert_array_equal(summed.overlap().counts[0], expected.counts.sum(0))
    np.testing.assert_array_equal(cells_of(by_class), expected.counts.sum(0))


def test_targets_out_of_range_are_counted_and_found():
    target, h1, h2 = batch()
    metric = ErrorOverlapMetric(num_classes=3)
    metric.update_state(join_reference(target, h1), h2)
    assert cells_of(metric).sum() == 60
    with pytest.raises(ValueError, match=f"Received: {(target == 3).sum()} other targets with num_classes=3"):
        metric.overlap()


def test_a_model_that_feeds_its_metrics_is_not_counted_twice():
    target, h1, h2 = batch()
    metric = ErrorOverlapMetric()
    labels = Labels(*(ops.convert_to_tensor(each.astype("int32")) for each in (target, h2.argmax(1), h1.argmax(1))))
    elsewhere = []

    def another_thread():
        other = ErrorOverlapMetric()
        other.update_state(join_reference(target, h1), h2)
        elsewhere.append(cells_of(other).sum())

    with fed_by_model():
        with fed_by_model():
            metric.update_labels(labels)
        metric.update_state(target, h2)
        thread = threading.Thread(target=another_thread)
        thread.start()
        thread.join()
    np.testing.assert_array_equal(cells_of(metric), table(target, h1.argmax(1), h2.argmax(1)))
    assert elsewhere == [60]
    with pytest.raises(ValueError, match="attach_h1"):
        metric.update_state(target, h2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BTC(threshold=1.0), r"threshold must lie between 0 and 1\. Received: threshold=1\.0"),
        (lambda: BTC(zero_division=-1), r"zero_division .* Received: zero_division=-1"),
        (lambda: BEC(given="h3"), "h1_wrong"),
        (lambda: ErrorOverlapMetric(num_classes=0), r"num_classes .* Received: num_classes=0"),
    ],
)
def test_arguments_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("one_hot", [False, True])
def test_labels_without_h1_are_refused_with_the_remedy(one_hot):
    x, y = data(16)
    model = net()
    model.compile("sgd", "categorical_crossentropy" if one_hot else "sparse_categorical_crossentropy", metrics=[BTC()])
    with pytest.raises(ValueError, match=r"x, y = attach_h1\(h1, x, y\)"):
        model.fit(x, np.eye(CLASSES)[y] if one_hot else y, verbose=0)


WORKER = """
import json, sys
import keras, numpy as np
sys.path.insert(0, {folder!r})
from user_models import data, net
from bc_keras.batches._attached import join_reference
from bc_keras.metrics import BTC, ErrorOverlapMetric
from bc_keras.training.compiled._plain_models import OnTarget, TargetLoss

x, y = data(90)
h1 = net(1)
joined = join_reference(y, h1.predict(x, verbose=0))
weight = (np.arange(90) % 3).astype("float32")
{scope}
with scope:
    h2 = net(2)
    counts, weighted = ErrorOverlapMetric(num_classes=3), ErrorOverlapMetric(name="w")
    h2.compile("sgd", TargetLoss("sparse_categorical_crossentropy"),
               metrics=[BTC(), counts, OnTarget("accuracy")], weighted_metrics=[weighted])
    h2.fit(x, joined, sample_weight=weight, batch_size=32, epochs=1, verbose=0)
    logs = h2.evaluate(x, joined, sample_weight=weight, batch_size=32, verbose=0, return_dict=True)
print(json.dumps({{
    "counts": counts.overlap().counts.tolist(),
    "btc": logs["btc"], "accuracy": logs["accuracy"],
    "weighted": float(weighted.result()["w_both_right"]),
    "h1": h1.predict(x, verbose=0).argmax(1).tolist(), "h2": np.asarray(h2(x)).argmax(1).tolist(),
}}))
"""
TWO_REPLICAS = """
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
scope = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope()
"""
TWO_DEVICES = """
distribution = keras.distribution.DataParallel(devices=keras.distribution.list_devices("cpu"))
assert distribution.device_mesh.shape == (2,)
scope = distribution.scope()
"""


@pytest.mark.slow
@pytest.mark.skipif(BACKEND == "torch", reason="Keras has no distribution API on torch")
def test_two_devices_count_what_one_counts():
    scope = TWO_REPLICAS if BACKEND == "tensorflow" else TWO_DEVICES
    if BACKEND == "tensorflow":
        # The devices must be set before anything else uses TensorFlow.
        head, _, tail = WORKER.partition("x, y = data")
        code = f"{head}{scope}x, y = data{tail}".format(folder=str(Path(__file__).parents[1]), scope="")
    else:
        code = WORKER.format(folder=str(Path(__file__).parents[1]), scope=scope)
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    environment = {**os.environ, "XLA_FLAGS": flags}
    run = run_program("-c", code, env=environment)
    assert run.returncode == 0, run.stderr[-3000:]
    got = json.loads(run.stdout.splitlines()[-1])
    _, y = data(90)
    h1, h2 = np.array(got["h1"]), np.array(got["h2"])
    expected = ErrorOverlap.from_predictions(y, h1, h2, num_classes=3)
    assert got["counts"] == expected.counts.tolist()
    assert got["btc"] == pytest.approx(expected.btc, rel=1e-6)
    assert got["accuracy"] == pytest.approx(expected.accuracy_h2, rel=1e-6)
    assert got["weighted"] == table(y, h1, h2, np.arange(90) % 3)[1, 1]
