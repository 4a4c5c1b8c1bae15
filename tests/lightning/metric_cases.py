"""Every metric with every task, and the value that a loop finds for it."""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from score_definitions import DEFINITIONS

import bc_lightning.functional as functional_forms
import bc_lightning.metrics as metric_forms
from bc_core import SCORES as SCORE_TABLE
from bc_core.counting._score_texts import function_name

NUM_CLASSES = 4
NUM_LABELS = 3
TASKS = ("binary", "multiclass", "multilabel")
SIZES = {"binary": {}, "multiclass": {"num_classes": NUM_CLASSES}, "multilabel": {"num_labels": NUM_LABELS}}
GROUPS = {"binary": 2, "multiclass": NUM_CLASSES, "multilabel": NUM_LABELS}


# -------------------------------------------------------------------------------- expected values


def labels_of(task, scores, threshold=0.5):
    """Say which class a model gives, element by element; labels stay as they are."""
    scores = np.asarray(scores)
    if scores.dtype.kind != "f":
        return scores.astype(int)
    if task == "multiclass":
        moved = np.moveaxis(scores, 1, -1)
        return np.array([int(np.argmax(row)) for row in moved.reshape(-1, moved.shape[-1])]).reshape(moved.shape[:-1])
    logits = any(not 0 <= value <= 1 for value in scores.flat)
    probabilities = [1 / (1 + math.exp(-value)) if logits else value for value in scores.flat]
    return np.array([int(p >= threshold) for p in probabilities]).reshape(scores.shape)


def observations(task, batch, ignore_index=None, threshold=0.5):
    """List (class, h1 right, h2 right), one by one."""
    preds, target, reference = (np.asarray(x) for x in batch)
    new, old = labels_of(task, preds, threshold), labels_of(task, reference, threshold)
    found = []
    for index in np.ndindex(target.shape):
        truth = int(target[index])
        if truth == ignore_index:
            continue
        group = index[1] if task == "multilabel" else truth
        found.append((group, bool(old[index] == truth), bool(new[index] == truth)))
    return found


def ratio(above, below, zero_division):
    return above / below if below else zero_division


def expected_value(key, task, batches, average="micro", zero_division=0.0, ignore_index=None, threshold=0.5):
    seen = [one for batch in batches for one in observations(task, batch, ignore_index, threshold)]
    groups = range(GROUPS[task])
    if key == "overlap":
        table = np.zeros((len(groups), 2, 2), dtype=np.int64)
        for group, h1, h2 in seen:
            table[group, int(h1), int(h2)] += 1
        return table
    if key == "by_class":
        flips = [sum(1 for g, h1, h2 in seen if g == group and h1 and not h2) for group in groups]
        return np.array([ratio(flip, sum(flips), zero_division) for flip in flips])
    numerator, denominator, _ = DEFINITIONS[key]
    terms = []
    for group in groups:
        mine = [(h1, h2) for g, h1, h2 in seen if g == group]
        terms.append((sum(bool(numerator(*one)) for one in mine), sum(bool(denominator(*one)) for one in mine)))
    if average == "micro":
        return np.array(ratio(sum(a for a, _ in terms), sum(b for _, b in terms), zero_division))
    if average == "macro":
        present = [a / b for a, b in terms if b]
        return np.array(ratio(sum(present), len(present), zero_division))
    return np.array([ratio(a, b, zero_division) for a, b in terms])


# -------------------------------------------------------------------------------- cases


@dataclass(frozen=True)
class Case:
    key: str
    name: str
    function: str
    task: str
    options: dict = field(default_factory=dict)

    def metric(self, **more):
        form = getattr(metric_forms, self.name)
        return form(task=self.task, **SIZES[self.task], **{**self.options, **more})

    def functional(self, batch, **more):
        form = getattr(functional_forms, self.function)
        return form(*batch, task=self.task, **SIZES[self.task], **{**self.options, **more})

    def expected(self, batches, **more):
        options = {k: v for k, v in {**self.options, **more}.items() if k != "given"}
        return expected_value(self.key, self.task, batches, **options)

    def __str__(self):
        return "-".join([self.key, self.task, *(f"{k}={v}" for k, v in self.options.items() if k != "given")])


SCORES = [
    (name, score.metric, function_name(score.metric), {} if score.given is None else {"given": score.given})
    for name, score in SCORE_TABLE.items()
    if score.metric is not None
]
OTHERS = [
    ("overlap", "ErrorOverlapMetric", "error_overlap", {}),
    ("by_class", "IncompatibilityByClass", "incompatibility_by_class", {}),
]
CASES = [Case(*form, task, options) for *form, options in SCORES + OTHERS for task in TASKS]
AVERAGED = [
    Case(*form, task, {**options, "average": average})
    for *form, options in SCORES
    for task in ("multiclass", "multilabel")
    for average in ("macro", "none", None)
]
every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_average = pytest.mark.parametrize("case", CASES + AVERAGED, ids=str)


def make_batch(task, size, seed, kind="scores"):
    generator = torch.Generator().manual_seed(seed)
    if task == "multiclass":
        target = torch.randint(NUM_CLASSES, (size,), generator=generator)
        preds = torch.rand(size, NUM_CLASSES, generator=generator)
        reference = torch.randn(size, NUM_CLASSES, generator=generator)
        # The models are right more often than by chance, so that no cell is empty.
        preds[torch.arange(size), target] += 0.4
        reference[torch.arange(size), target] += 1.0
        if kind == "labels":
            return preds.argmax(1), target, reference.argmax(1)
        return preds, target, reference
    shape = (size,) if task == "binary" else (size, NUM_LABELS)
    target = torch.randint(2, shape, generator=generator)
    preds = torch.rand(shape, generator=generator)
    reference = torch.randn(shape, generator=generator) * 3
    if kind == "labels":
        return (preds >= 0.5).long(), target, (reference >= 0).long()
    return preds, target, reference


def make_batches(task, kind="scores"):
    """Give batches of uneven size."""
    return [make_batch(task, size, seed, kind) for seed, size in enumerate((17, 32, 5, 1))]


def assert_value(actual, expected):
    assert isinstance(actual, torch.Tensor)
    assert tuple(actual.shape) == np.shape(expected)
    np.testing.assert_allclose(actual.double().numpy(), expected, atol=1e-6)


def updated(case, **options):
    metric = case.metric(**options)
    for batch in make_batches(case.task):
        metric.update(*batch)
    return metric


HIGHER_IS_BETTER = {name: better for name, (_, _, better) in DEFINITIONS.items()}
