"""What both sides promise of a score: the number that `bc_core` reads from the same labels.

A side is asked through three functions, so that a test says what is measured and not how a framework is called.
`bc_core` itself is compared with counting by hand in tests/core/counting/test_scores.py.
"""

from __future__ import annotations

import math
import os
import pickle

import numpy as np
import pytest

from bc_core import SCORES, ErrorOverlap
from bc_core.counting._score_texts import formula

NAMES = [name for name, score in SCORES.items() if score.metric is not None]
CLASSES, LABELS = 4, 3


class Lightning:
    """`bc_lightning.metrics`, of any task."""

    def __init__(self):
        import torch

        import bc_lightning.metrics

        self.metrics, self.tensor = bc_lightning.metrics, torch.as_tensor

    def make(self, metric, task, ignore=None, **options):
        sizes = {"multiclass": {"num_classes": CLASSES}, "multilabel": {"num_labels": LABELS}}.get(task, {})
        return getattr(self.metrics, metric)(task=task, ignore_index=ignore, **sizes, **options)

    def update(self, metric, target, h1, h2):
        metric.update(self.tensor(h2), self.tensor(target), self.tensor(h1))

    def value(self, metric):
        return float(metric.compute())

    def overlap(self, metric):
        return metric.to_error_overlap()

    def direction(self, metric):
        return metric.higher_is_better

    def add(self, metric, counts):
        metric.merge_state({"counts": self.tensor(counts)})

    def reset(self, metric):
        metric.reset()


class Keras:
    """`bc_keras.metrics`, on whatever backend this process has."""

    def __init__(self):
        from keras import ops

        import bc_keras.metrics
        from bc_keras.batches._attached import join_reference

        self.metrics, self.join, self.numpy = bc_keras.metrics, join_reference, ops.convert_to_numpy

    def make(self, metric, task, ignore=None, **options):
        if metric == "ErrorOverlapMetric":
            options["num_classes"] = {"binary": 2, "multiclass": CLASSES, "multilabel": LABELS}[task]
        return getattr(self.metrics, metric)(ignore_class=ignore, multilabel=task == "multilabel", **options)

    def update(self, metric, target, h1, h2):
        if np.min(h2) < 0:
            metric.from_logits = True  # torchmetrics sees it by the values, Keras is told
        labels = {} if np.asarray(h1).dtype.kind == "f" else {"num_classes": h2.shape[-1]}
        metric.update_state(self.join(target, h1, **labels), h2)

    def value(self, metric):
        return float(self.numpy(metric.result()))

    def overlap(self, metric):
        return metric.overlap()

    def direction(self, metric):
        return {"up": True, "down": False, None: None}[getattr(metric, "_direction", None)]

    def add(self, metric, counts):
        # One row more than classes, for targets that are none.
        metric.counts.assign(self.numpy(metric.counts) + np.concatenate([counts, np.zeros_like(counts[:1])]))

    def reset(self, metric):
        metric.reset_state()


SIDES = {"lightning": Lightning, "keras": Keras}


# Keras has one backend per process: where one is asked for, it is Keras's turn.
@pytest.fixture(scope="module", params=["keras" if "KERAS_BACKEND" in os.environ else "lightning"])
def side(request):
    return SIDES[request.param]()


def metric_of(side, name, task="multiclass", **options):
    """The metric that a row of the table is computed by."""
    given = {} if SCORES[name].given is None else {"given": SCORES[name].given}
    return side.make(SCORES[name].metric, task, **given, **options)


def outputs(task="multiclass", size=60, seed=0, logits=False):
    """Target, h1's and h2's scores; both models are right about half of the time."""
    random = np.random.default_rng(seed)
    if task == "multiclass":
        target = random.integers(0, CLASSES, size)
        h1, h2 = (random.random((size, CLASSES)) + 0.4 * np.eye(CLASSES)[target] for _ in range(2))
    else:
        shape = (size,) if task == "binary" else (size, LABELS)
        target = random.integers(0, 2, shape)
        h1, h2 = random.uniform(0.05, 0.95, (2, *shape))
        if logits:
            h1, h2 = np.log(h1 / (1 - h1)), np.log(h2 / (1 - h2))
    return target, h1.astype("float32"), h2.astype("float32")


def labels_of(task, scores, threshold=0.5, logits=False):
    if task == "multiclass":
        return scores.argmax(-1)
    border = math.log(threshold / (1 - threshold)) if logits else threshold
    return (scores >= border).astype(int)


def core(target, h1, h2, keep=True):
    """bc_core's counts of labels, whatever their shape; those of `keep` only."""
    target, h1, h2, keep = (np.broadcast_to(each, np.shape(target)).ravel() for each in (target, h1, h2, keep))
    return ErrorOverlap.from_predictions(target[keep], h1[keep], h2[keep], num_classes=CLASSES)


every_score = pytest.mark.parametrize("name", NAMES)
every_task = pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])


# -------------------------------------------------------------------------------- numbers


@every_task
@every_score
def test_a_score_is_that_of_bc_core(side, name, task):
    target, h1, h2 = outputs(task)
    metric = metric_of(side, name, task)
    side.update(metric, target, h1, h2)
    expected = core(target, labels_of(task, h1), labels_of(task, h2)).score(name)
    assert side.value(metric) == pytest.approx(expected, rel=1e-6)
    assert 0 < expected < 1


@every_score
def test_uneven_batches_equal_the_whole(side, name):
    target, h1, h2 = outputs()
    whole, parts = metric_of(side, name), metric_of(side, name)
    side.update(whole, target, h1, h2)
    for part in np.split(np.arange(60), [1, 8, 50]):
        side.update(parts, target[part], h1[part], h2[part])
    assert side.value(parts) == side.value(whole) != 0


@pytest.mark.parametrize("column", [False, True])
@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize("threshold", [None, 0.7])
@every_score
def test_binary_scores_are_read_by_the_threshold(side, name, threshold, logits, column):
    target, h1, h2 = outputs("binary", logits=logits)
    metric = metric_of(side, name, "binary", **({} if threshold is None else {"threshold": threshold}))
    shape = (60, 1) if column else (60,)
    side.update(metric, target.reshape(shape), h1.reshape(shape), h2.reshape(shape))
    labels = [labels_of("binary", scores, threshold or 0.5, logits) for scores in (h1, h2)]
    assert side.value(metric) == pytest.approx(core(target, *labels).score(name), rel=1e-6)


@pytest.mark.parametrize("logits", [False, True])
@every_score
def test_multilabel_scores_are_read_by_the_threshold(side, name, logits):
    target, h1, h2 = outputs("multilabel", logits=logits)
    metric = metric_of(side, name, "multilabel", threshold=0.7)
    side.update(metric, target, h1, h2)
    labels = [labels_of("multilabel", scores, 0.7, logits) for scores in (h1, h2)]
    assert side.value(metric) == pytest.approx(core(target, *labels).score(name), rel=1e-6)


@every_score
def test_labels_of_h1_count_as_its_scores_do(side, name):
    target, h1, h2 = outputs()
    by_scores, by_labels = metric_of(side, name), metric_of(side, name)
    side.update(by_scores, target, h1, h2)
    side.update(by_labels, target, h1.argmax(1), h2)
    assert side.value(by_scores) == side.value(by_labels)


@every_score
def test_an_ignored_class_is_left_out(side, name):
    target, h1, h2 = outputs()
    metric = metric_of(side, name, ignore=2)
    side.update(metric, target, h1, h2)
    expected = core(target, h1.argmax(1), h2.argmax(1), keep=target != 2).score(name)
    assert side.value(metric) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("zero_division", [None, 0.0, 1.0, 0.25, math.nan])
@every_score
def test_with_nothing_to_divide_by_the_score_is_zero_division(side, name, zero_division):
    options = {} if zero_division is None else {"zero_division": zero_division}
    target, h1, h2 = outputs(size=1)
    metric = metric_of(side, name, ignore=int(target[0]), **options)
    side.update(metric, target, h1, h2)
    np.testing.assert_equal(side.value(metric), zero_division or 0.0)


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")  # that is what is asked for here
@pytest.mark.parametrize("zero_division", [0.0, 1.0, math.nan])
@every_score
def test_before_any_instance_the_score_is_zero_division(side, name, zero_division):
    np.testing.assert_equal(side.value(metric_of(side, name, zero_division=zero_division)), zero_division)


@every_score
def test_after_a_reset_only_what_follows_counts(side, name):
    metric = metric_of(side, name)
    side.update(metric, *outputs(seed=1))
    side.reset(metric)
    target, h1, h2 = outputs(seed=2)
    side.update(metric, target, h1, h2)
    assert side.value(metric) == pytest.approx(core(target, h1.argmax(1), h2.argmax(1)).score(name), rel=1e-6)


# -------------------------------------------------------------------------------- counts


def test_counts_by_class_are_those_of_bc_core(side):
    target, h1, h2 = outputs()
    metric = side.make("ErrorOverlapMetric", "multiclass")
    side.update(metric, target, h1, h2)
    assert side.overlap(metric) == core(target, h1.argmax(1), h2.argmax(1))


def test_counts_of_a_multilabel_task_are_those_of_each_label(side):
    target, h1, h2 = outputs("multilabel")
    metric = side.make("ErrorOverlapMetric", "multilabel")
    side.update(metric, target, h1, h2)
    by_label = [
        core(*each).counts.sum(axis=0)
        for each in zip(target.T, labels_of("multilabel", h1.T), labels_of("multilabel", h2.T), strict=True)
    ]
    np.testing.assert_array_equal(side.overlap(metric).counts, by_label)


@pytest.mark.parametrize("shape", [(12, 5), (2, 6, 5)])
def test_dense_outputs_count_every_position(side, shape):
    target, h1, h2 = outputs()
    metric = side.make("ErrorOverlapMetric", "multiclass")
    # torch has the classes on axis 1, Keras on the last.
    place = 1 if isinstance(side, Lightning) else -1
    dense = [np.ascontiguousarray(np.moveaxis(scores.reshape(*shape, CLASSES), -1, place)) for scores in (h1, h2)]
    side.update(metric, target.reshape(shape), *dense)
    assert side.overlap(metric) == core(target, h1.argmax(1), h2.argmax(1))


def test_counts_stay_exact_where_float32_does_not(side):
    metric = side.make("ErrorOverlapMetric", "multiclass")
    start = np.zeros((CLASSES, 2, 2), dtype="int64")
    start[0, 1, 1] = 2**24
    side.add(metric, start)
    for _ in range(3):
        side.update(metric, np.zeros(1, "int64"), np.eye(CLASSES, dtype="float32")[:1], np.eye(CLASSES)[:1])
    assert side.overlap(metric).both_right == 2**24 + 3


# -------------------------------------------------------------------------------- names, texts, refusals


@every_score
def test_the_direction_is_that_of_the_row(side, name):
    assert side.direction(metric_of(side, name)) is SCORES[name].higher_is_better


@every_score
def test_the_documentation_says_what_the_row_says(side, name):
    score = SCORES[name]
    text = getattr(side.metrics, score.metric).__doc__
    sentence = score.description.split(": ", 1)[1]
    above, below = (part.strip("#()") for part in formula(score).split(" / "))
    assert sentence in text
    assert score.note in " ".join(text.split())
    assert f"({score.title.split(' (')[0]})" in text.splitlines()[0]
    assert f"{{{score.title}}} = " in text
    assert above in text
    assert below in text
    assert text.count(f">>> metric = {score.metric}(") == 3  # one for each task


@every_score
def test_a_class_is_found_by_its_name(side, name):
    made = type(metric_of(side, name))
    assert made.__name__ == made.__qualname__ == SCORES[name].metric
    assert made.__name__ in side.metrics.__all__
    assert pickle.loads(pickle.dumps(made)) is made


def test_short_names_are_the_same_classes(side):
    assert side.metrics.BTC is side.metrics.BackwardTrustCompatibility
    assert side.metrics.BEC is side.metrics.BackwardErrorCompatibility


@pytest.mark.parametrize("zero_division", [-0.1, 1.5])
@every_score
def test_a_share_that_is_none_is_refused(side, name, zero_division):
    with pytest.raises(ValueError, match=f"zero_division.*{zero_division}"):
        metric_of(side, name, zero_division=zero_division)


def test_another_denominator_is_refused(side):
    with pytest.raises(ValueError, match="'h1_wrong'.*'h2_wrong'.*got 'h3'"):
        side.make("BackwardErrorCompatibility", "multiclass", given="h3")


@every_score
def test_a_threshold_that_is_no_probability_is_refused(side, name):
    with pytest.raises(ValueError, match=r"threshold.*1\.5"):
        metric_of(side, name, "binary", threshold=1.5)
