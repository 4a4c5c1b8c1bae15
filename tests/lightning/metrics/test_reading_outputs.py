"""How a model's output becomes a label, and which outputs are refused."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import tensor

from bc_lightning.functional import (
    backward_error_compatibility,
    backward_trust_compatibility,
    error_overlap,
    negative_flip_rate,
    score_from_counts,
)
from bc_lightning.metrics import BEC, BTC, ErrorOverlapMetric, IncompatibilityByClass, NegativeFlipRate

NAN = float("nan")

binary_counts = partial(error_overlap, task="binary")


def multiclass_counts(preds, target, reference, num_classes, **options):
    return error_overlap(preds, target, reference, task="multiclass", num_classes=num_classes, **options)


def multilabel_counts(preds, target, reference, num_labels):
    return error_overlap(preds, target, reference, task="multilabel", num_labels=num_labels)


def right(counts):
    """Give how often h1 and h2 are right."""
    return counts[:, 1].sum().item(), counts[..., 1].sum().item()


# -------------------------------------------------------------------------------- reading


def test_a_probability_equal_to_the_threshold_gives_class_1():
    one = torch.ones(2, dtype=torch.long)
    assert right(binary_counts(tensor([0.5, 0.499]), one, tensor([0.5, 0.5]))) == (2, 1)
    assert right(binary_counts(tensor([0.0, -5.0]), one, one)) == (2, 1)  # logits


def test_the_threshold_is_a_probability_for_logits_too():
    logits = torch.cat([torch.logit(tensor([0.69, 0.71])), tensor([9.0])])  # 9 is no probability
    one = torch.ones(3, dtype=torch.long)
    assert right(binary_counts(logits, one, one, threshold=0.7)) == (3, 2)


def test_each_model_may_give_its_own_kind_of_output():
    target = tensor([1, 0, 1])
    probabilities, logits, labels = tensor([0.9, 0.1, 0.2]), tensor([3.0, -3.0, -1.0]), tensor([True, False, False])
    counts = [binary_counts(a, target, b) for a in (probabilities, logits, labels) for b in (logits, labels)]
    assert all(torch.equal(one, counts[0]) for one in counts)


def test_an_ignored_entry_does_not_turn_probabilities_into_logits():
    preds, target = tensor([0.3, 50.0]), tensor([0, -1])
    assert right(binary_counts(preds, target, preds, ignore_index=-1)) == (1, 1)


@pytest.mark.parametrize("preds_shape", [(6,), (6, 1)])
@pytest.mark.parametrize("target_shape", [(6,), (6, 1)])
@pytest.mark.parametrize("reference_shape", [(6,), (6, 1)])
def test_binary_columns_align_with_vectors(preds_shape, target_shape, reference_shape):
    preds, target, reference = torch.rand(6), torch.randint(2, (6,)), torch.randn(6)
    expected = binary_counts(preds, target, reference)
    shaped = preds.reshape(preds_shape), target.reshape(target_shape), reference.reshape(reference_shape)
    assert torch.equal(binary_counts(*shaped), expected)


def test_of_equal_scores_the_first_class_wins():
    counts = multiclass_counts(tensor([[1.0, 1.0]]), tensor([0]), tensor([[0.0, 0.0]]), num_classes=2)
    assert right(counts) == (1, 1)


def test_nan_where_the_target_is_ignored():
    scores = tensor([[0.1, 0.9], [NAN, NAN]])
    assert multiclass_counts(scores, tensor([1, -100]), scores, 2, ignore_index=-100).sum() == 1
    assert binary_counts(scores[:, 0], tensor([0, -100]), scores[:, 0], ignore_index=-100).sum() == 1


def test_labels_where_the_target_is_ignored():
    labels = tensor([0, 255])
    assert multiclass_counts(labels, labels, labels, 2, ignore_index=255).sum() == 1


def test_infinite_scores_are_scores():
    masked = tensor([[0.0, -torch.inf], [torch.inf, 0.0]])
    assert right(multiclass_counts(masked, tensor([0, 0]), masked, 2)) == (2, 2)
    assert right(binary_counts(tensor([torch.inf, -torch.inf]), tensor([1, 0]), tensor([1, 0]))) == (2, 2)


def test_macro_leaves_out_classes_with_nothing_to_divide_by():
    target, preds, reference = tensor([0, 0, 1, 2]), tensor([0, 1, 1, 2]), tensor([0, 0, 2, 2])
    macro = backward_trust_compatibility(preds, target, reference, task="multiclass", num_classes=4, average="macro")
    assert macro == (0.5 + 1.0) / 2


def test_counts_beyond_what_float32_can_hold():
    counts = tensor([[0, 0], [2**40, 3 * 2**40]])
    assert score_from_counts(counts, "btc") == 0.75
    assert score_from_counts(counts, "nfr").dtype == torch.float32


# -------------------------------------------------------------------------------- refusals

ZERO = torch.zeros(4, dtype=torch.long)
SCORES = torch.zeros(4, 3)

REFUSED_TENSORS = {
    "binary: shapes": (
        lambda: binary_counts(torch.rand(5), ZERO, torch.rand(4)),
        r"`preds` and `target` to have the same shape .* but got \(5,\) and \(4,\)",
    ),
    "binary: two columns": (
        lambda: binary_counts(ZERO, ZERO, torch.rand(4, 2)),
        r"`reference_preds` and `target` to have the same shape .* \(4, 2\) and \(4,\)",
    ),
    "binary: target": (
        lambda: binary_counts(ZERO, tensor([0, 1, 2, 2]), ZERO),
        r"labels in `target` to be in \[0, 1\], but found 2 \(2 of 4 entries are outside\).*`ignore_index`",
    ),
    "binary: labels": (
        lambda: binary_counts(tensor([0, -1, 1, 0]), ZERO, ZERO),
        r"labels in `preds` to be in \[0, 1\], but found -1 \(1 of 4",
    ),
    "binary: soft target": (
        lambda: binary_counts(ZERO, tensor([0.0, 1.0, 0.3, 0.0]), ZERO),
        r"`target` to hold the labels 0 and 1, but found 0\.3",
    ),
    "binary: nan target": (lambda: binary_counts(ZERO, tensor([0.0, NAN, 0.0, 0.0]), ZERO), "but found nan"),
    "binary: nan": (
        lambda: binary_counts(tensor([0.1, NAN, 0.1, 0.1]), ZERO, ZERO),
        "`preds` to be numbers, but found NaN",
    ),
    "binary: reference nan": (
        lambda: binary_counts(ZERO, ZERO, tensor([0.1, NAN, 0.1, 0.1])),
        "`reference_preds` to be numbers, but found NaN",
    ),
    "binary: complex": (lambda: binary_counts(ZERO, ZERO, ZERO.cfloat()), "`reference_preds` to be real"),
    "multiclass: target": (
        lambda: multiclass_counts(SCORES, tensor([0, 7, 1, 2]), SCORES, 3),
        r"labels in `target` to be in \[0, 2\], but found 7",
    ),
    "multiclass: float target": (
        lambda: multiclass_counts(SCORES, ZERO.float(), SCORES, 3),
        "`target` to hold integer labels, but got torch.float32",
    ),
    "multiclass: float labels": (
        lambda: multiclass_counts(ZERO.float(), ZERO, SCORES, 3),
        "If these are labels, pass them as integers",
    ),
    "multiclass: labels": (
        lambda: multiclass_counts(ZERO, ZERO, ZERO + 3, 3),
        r"labels in `reference_preds` to be in \[0, 2\], but found 3 \(4 of 4 .* Map the old model's labels",
    ),
    "multiclass: label shape": (
        lambda: multiclass_counts(ZERO[:2], ZERO, ZERO, 3),
        r"labels `preds` to have the shape of `target`, \(4,\), but got \(2,\)",
    ),
    "multiclass: fewer classes": (
        lambda: multiclass_counts(SCORES, ZERO, SCORES[:, :2], 3),
        r"`reference_preds` to have shape \(4, 3\) .* but got \(4, 2\).*mapped to the new classes",
    ),
    "multiclass: nan": (
        lambda: multiclass_counts(tensor([[0.1, NAN, 0.2]] * 4), ZERO, SCORES, 3),
        "`preds` to be numbers, but found NaN",
    ),
    "multilabel: target": (
        lambda: multilabel_counts(SCORES, tensor([[0, 1, 5]] * 4), SCORES, 3),
        r"labels in `target` to be in \[0, 1\], but found 5",
    ),
    "multilabel: labels": (
        lambda: multilabel_counts(SCORES, SCORES.long(), SCORES, 2),
        r"`target` to have shape \(N, 2, \.\.\.\), but got \(4, 3\)",
    ),
    "multilabel: shapes": (
        lambda: multilabel_counts(SCORES, SCORES.long(), SCORES[:3], 3),
        r"`reference_preds` and `target` to have the same shape, but got \(3, 3\) and \(4, 3\)",
    ),
}


@pytest.mark.parametrize("name", REFUSED_TENSORS)
def test_refused_tensors(name):
    call, message = REFUSED_TENSORS[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_what_is_no_tensor_is_refused():
    with pytest.raises(TypeError, match=r"`reference_preds` to be a torch.Tensor, but got ndarray"):
        binary_counts(ZERO, ZERO, np.zeros(4, dtype=int))


def test_a_refused_batch_leaves_the_counts_as_they_were():
    metric = BTC(task="binary")
    metric.update(tensor([0.9]), tensor([1]), tensor([0.9]))
    before = metric.counts.clone()
    with pytest.raises(ValueError, match="NaN"):
        metric.update(tensor([NAN]), tensor([1]), tensor([0.9]))
    assert torch.equal(metric.counts, before)


TASK_KNOWN = r"`task` to be one of \('binary', 'multiclass', 'multilabel'\), but got 'multi'"
AVERAGE_KNOWN = r"`average` to be one of \('micro', 'macro', 'none', None\), but got 'weighted'"
GIVEN_KNOWN = r"`given` to be one of \('h1_wrong', 'h2_wrong'\), but got 'h1'"
DATA = (ZERO, ZERO, ZERO)

REFUSED_ARGUMENTS = {
    "task": (lambda: BTC(task="multi"), TASK_KNOWN),
    "functional task": (lambda: error_overlap(*DATA, task="multi"), TASK_KNOWN),
    "score task": (lambda: negative_flip_rate(*DATA, task="multi"), TASK_KNOWN),
    "overlap task": (lambda: ErrorOverlapMetric(task="multi"), TASK_KNOWN),
    "average": (lambda: BTC(task="multiclass", num_classes=3, average="weighted"), AVERAGE_KNOWN),
    "functional average": (
        lambda: negative_flip_rate(*DATA, task="multiclass", num_classes=3, average="weighted"),
        AVERAGE_KNOWN,
    ),
    "binary average": (lambda: BTC(task="binary", average="macro"), "to be 'micro' for the binary task"),
    "functional binary average": (
        lambda: negative_flip_rate(*DATA, task="binary", average=None),
        "to be 'micro' for the binary task",
    ),
    "given": (lambda: BEC(task="multiclass", num_classes=3, given="h1"), GIVEN_KNOWN),
    "task form given": (lambda: BEC(task="binary", given="h1"), GIVEN_KNOWN),
    "functional given": (lambda: backward_error_compatibility(*DATA, task="binary", given="h1"), GIVEN_KNOWN),
    "classes missing": (lambda: BTC(task="multiclass"), "`num_classes` to be an integer larger than 1, but got None"),
    "labels missing": (lambda: BTC(task="multilabel"), "`num_labels` to be an integer larger than 1, but got None"),
    "one class": (lambda: BTC(task="multiclass", num_classes=1), "larger than 1, but got 1"),
    "bool classes": (lambda: BTC(task="multiclass", num_classes=True), "larger than 1, but got True"),
    "threshold": (lambda: BTC(task="binary", threshold=1.5), r"float in \[0, 1\] .* but got 1\.5"),
    "multilabel threshold": (
        lambda: NegativeFlipRate(task="multilabel", num_labels=2, threshold=3),
        r"float in \[0, 1\] .* but got 3",
    ),
    "ignore_index": (
        lambda: BTC(task="binary", ignore_index=0.5),
        "`ignore_index` to be None or an integer, but got 0.5",
    ),
    "zero_division": (
        lambda: BTC(task="binary", zero_division=2),
        r"`zero_division` to be a number in \[0, 1\] or nan, but got 2",
    ),
    "zero_division word": (lambda: IncompatibilityByClass(task="binary", zero_division="warn"), "but got 'warn'"),
    "score name": (lambda: score_from_counts(ZERO.reshape(2, 2), "btcc"), "`score` to be one of .*'btc'.* got 'btcc'"),
}


@pytest.mark.parametrize("name", REFUSED_ARGUMENTS)
def test_refused_arguments(name):
    call, message = REFUSED_ARGUMENTS[name]
    with pytest.raises(ValueError, match=message):
        call()
