"""The battery: what torchmetrics promises of a metric, checked for every metric and task.

Expected values come from the plain loops of `metric_cases`.
"""

import inspect
import math
import pickle
import warnings

import pytest
import torch
from metric_cases import (
    AVERAGED,
    CASES,
    NUM_CLASSES,
    NUM_LABELS,
    TASKS,
    assert_value,
    every_average,
    every_case,
    make_batch,
    make_batches,
    updated,
)

import bc_lightning.functional as functional_forms
import bc_lightning.metrics as metric_forms

# -------------------------------------------------------------------------------- values


@every_average
def test_accumulation_over_uneven_batches_equals_the_whole(case):
    assert_value(updated(case).compute(), case.expected(make_batches(case.task)))


@every_average
def test_forward_gives_the_batch_value_and_accumulates(case):
    metric = case.metric()
    batches = make_batches(case.task)
    for batch in batches:
        assert_value(metric(*batch), case.expected([batch]))
    assert_value(metric.compute(), case.expected(batches))


@every_average
def test_functional_parity(case):
    for batch in make_batches(case.task):
        value = case.functional(batch)
        assert_value(value, case.expected([batch]))
        assert torch.equal(case.metric()(*batch), value)


@every_case
def test_one_class_and_one_function_for_every_task(case):
    metric = case.metric()
    assert type(metric) is getattr(metric_forms, case.name)
    assert metric.task == case.task
    function = getattr(functional_forms, case.function)
    assert (type(metric).__name__, function.__name__) == (case.name, case.function)
    assert pickle.loads(pickle.dumps(function)) is function
    for form, module in ((type(metric), "metrics"), (function, "functional")):
        assert f"from bc_lightning.{module} import {form.__name__}" in form.__doc__
        assert f'task="{case.task}"' in form.__doc__
        assert "task" in inspect.signature(form).parameters


@every_case
def test_labels_in(case):
    metric = case.metric()
    for batch in make_batches(case.task, "labels"):
        metric.update(*batch)
    assert_value(metric.compute(), case.expected(make_batches(case.task, "labels")))


@every_case
def test_scores_of_one_model_and_labels_of_the_other(case):
    (scores, target, _), (_, _, labels) = make_batch(case.task, 20, 3), make_batch(case.task, 20, 3, "labels")
    assert_value(case.metric()(scores, target, labels), case.expected([(scores, target, labels)]))
    assert_value(case.metric()(labels, target, scores), case.expected([(labels, target, scores)]))


@every_case
def test_keyword_arguments(case):
    preds, target, reference = make_batch(case.task, 20, 3)
    value = case.metric()(reference_preds=reference, target=target, preds=preds)
    assert_value(value, case.expected([(preds, target, reference)]))


@every_case
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precision_of_scores(case, dtype):
    preds, target, reference = make_batch(case.task, 40, 5)
    rounded = preds.to(dtype), target, reference.to(dtype)
    expected = case.expected([(rounded[0].double(), target, rounded[2].double())])
    assert_value(case.metric()(*rounded), expected)


@every_case
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_integer_width_of_labels(case, dtype):
    batch = make_batch(case.task, 40, 6, "labels")
    assert_value(case.metric()(*(x.to(dtype) for x in batch)), case.expected([batch]))
    preds, target, reference = make_batch(case.task, 40, 6)
    assert_value(case.metric()(preds, target.to(dtype), reference), case.expected([(preds, target, reference)]))


@pytest.mark.parametrize("case", [case for case in CASES if case.task != "multiclass"], ids=str)
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.float16])
def test_targets_that_are_bool_or_whole_numbers(case, dtype):
    preds, target, reference = make_batch(case.task, 40, 6)
    assert_value(case.metric()(preds, target.to(dtype), reference), case.expected([(preds, target, reference)]))


@every_case
@pytest.mark.parametrize("extra", [(3,), (3, 2)])
def test_dense_inputs(case, extra):
    generator = torch.Generator().manual_seed(0)
    if case.task == "multiclass":
        target = torch.randint(NUM_CLASSES, (6, *extra), generator=generator)
        preds, reference = (torch.randn(6, NUM_CLASSES, *extra, generator=generator) for _ in range(2))
    else:
        shape = (6, *extra) if case.task == "binary" else (6, NUM_LABELS, *extra)
        target = torch.randint(2, shape, generator=generator)
        preds, reference = (torch.rand(shape, generator=generator) for _ in range(2))
    assert_value(case.metric()(preds, target, reference), case.expected([(preds, target, reference)]))


@every_average
@pytest.mark.parametrize("ignore_index", [-100, -1, 0, 255])
def test_ignore_index(case, ignore_index):
    preds, target, reference = make_batch(case.task, 60, 7)
    target[torch.rand(target.shape, generator=torch.Generator().manual_seed(1)) < 0.3] = ignore_index
    batch = preds, target, reference
    expected = case.expected([batch], ignore_index=ignore_index)
    assert_value(case.metric(ignore_index=ignore_index)(*batch), expected)
    assert_value(case.functional(batch, ignore_index=ignore_index), expected)
    assert_value(case.metric(ignore_index=ignore_index, validate_args=False)(*batch), expected)


@pytest.mark.parametrize("case", [case for case in CASES + AVERAGED if case.key != "overlap"], ids=str)
@pytest.mark.parametrize("zero_division", [0.0, 1.0, math.nan])
def test_zero_division(case, zero_division):
    # Both models are always wrong, or always right, about class 0 only: every score has an empty denominator.
    labels = torch.zeros((4, NUM_LABELS) if case.task == "multilabel" else 4, dtype=torch.long)
    for batch in ((labels, labels, labels), (labels + 1, labels, labels + 1)):
        expected = case.expected([batch], zero_division=zero_division)
        assert_value(case.metric(zero_division=zero_division)(*batch), expected)
        assert_value(case.functional(batch, zero_division=zero_division), expected)


@every_case
def test_an_empty_batch_changes_nothing(case):
    metric = updated(case)
    before = metric.compute()
    metric.update(*(x[:0] for x in make_batch(case.task, 4, 0)))
    torch.testing.assert_close(metric.compute(), before)


@every_case
def test_without_validation_the_values_are_the_same(case):
    assert_value(updated(case, validate_args=False).compute(), case.expected(make_batches(case.task)))


@every_case
def test_inputs_are_not_changed(case):
    batch = make_batch(case.task, 20, 8)
    copies = [x.clone() for x in batch]
    case.metric(ignore_index=1)(*batch)
    for x, copy in zip(batch, copies, strict=True):
        assert torch.equal(x, copy)


def test_aliases():
    assert metric_forms.BTC is metric_forms.BackwardTrustCompatibility
    assert metric_forms.BEC is metric_forms.BackwardErrorCompatibility


def test_names_with_a_task_before_them_are_gone():
    for module in (metric_forms, functional_forms):
        assert not [name for name in dir(module) if name.lower().startswith(TASKS)]


def test_the_public_scores():
    names = {"BackwardTrustCompatibility", "BackwardErrorCompatibility", "NegativeFlipRate", "PositiveFlipRate"}
    names |= {"NegativeFlipImpact", "ErrorOverlapMetric", "IncompatibilityByClass", "BTC", "BEC"}
    assert names <= set(metric_forms.__all__)
    assert {case.name for case in CASES} <= set(metric_forms.__all__)
    assert {case.function for case in CASES} <= set(functional_forms.__all__)


def test_every_public_name_exists():
    for module in (metric_forms, functional_forms):
        for name in module.__all__:
            assert getattr(module, name).__doc__


@every_case
def test_an_unknown_option_is_refused(case):
    with pytest.raises(ValueError, match="Unexpected keyword arguments: `lambda_c`"):
        case.metric(lambda_c=1.0)


@every_case
def test_no_warning_from_an_ordinary_use(case):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metric = updated(case)
        metric(*make_batch(case.task, 20, 9))
        metric.compute()
        metric.reset()
