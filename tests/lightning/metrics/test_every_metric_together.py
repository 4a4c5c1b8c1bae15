"""Every metric and task, merged, over processes, in collections, trackers and plots."""

import matplotlib as mpl
import numpy as np
import pytest
import torch
from metric_cases import (
    AVERAGED,
    CASES,
    HIGHER_IS_BETTER,
    NUM_LABELS,
    TASKS,
    assert_value,
    every_average,
    every_case,
    expected_value,
    make_batch,
    make_batches,
    updated,
)
from torchmetrics import MetricCollection, MetricTracker

import bc_lightning.metrics as metric_forms

mpl.use("Agg")

# -------------------------------------------------------------------------------- several metrics


@every_case
def test_merge_state(case):
    batches = make_batches(case.task)
    first, second = case.metric(), case.metric()
    first.update(*batches[0])
    first.compute()
    for batch in batches[1:]:
        second.update(*batch)
    first.merge_state(second)
    assert_value(first.compute(), case.expected(batches))
    assert first.update_count == len(batches)
    first.merge_state({"counts": second.counts})
    assert_value(first.compute(), case.expected([*batches, *batches[1:]]))


@every_case
def test_merge_state_refuses_counts_that_were_taken_differently(case):
    with pytest.raises(ValueError, match="taken differently"):
        updated(case).merge_state(updated(case, ignore_index=1))
    if case.task != "multiclass":
        with pytest.raises(ValueError, match="taken differently"):
            updated(case).merge_state(updated(case, threshold=0.7))
    with pytest.raises(ValueError, match="taken differently"):
        updated(case).merge_state({"counts": torch.zeros(1, 2, 2, dtype=torch.long)})
    with pytest.raises(ValueError, match="Expected incoming state to be"):
        updated(case).merge_state(3)


@every_case
def test_dist_sync_fn(case):
    batches = make_batches(case.task)
    other = case.metric()
    for batch in batches[2:]:
        other.update(*batch)

    def gather(tensor, group=None):
        return [tensor, other.counts if tensor.ndim == 3 else other.configuration]

    metric = case.metric(dist_sync_fn=gather, distributed_available_fn=lambda: True)
    for batch in batches[:2]:
        metric.update(*batch)
    assert_value(metric.compute(), case.expected(batches))
    # what this process counted is there again
    metric.sync_on_compute = metric._to_sync = False
    metric._computed = None
    assert_value(metric.compute(), case.expected(batches[:2]))


@every_case
def test_dist_sync_on_step(case):
    batch = make_batch(case.task, 20, 1)
    metric = case.metric(
        dist_sync_on_step=True,
        dist_sync_fn=lambda tensor, group=None: [tensor, tensor],
        distributed_available_fn=lambda: True,
    )
    assert_value(metric(*batch), case.expected([batch, batch]))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("compute_groups", [True, False])
@pytest.mark.parametrize("call", ["forward", "update"])
def test_metric_collection(task, compute_groups, call):
    cases = [case for case in CASES + AVERAGED if case.task == task]
    collection = MetricCollection({str(case): case.metric() for case in cases}, compute_groups=compute_groups)
    batches = make_batches(task)
    for batch in batches:
        if call == "forward":
            for name, value in collection(*batch).items():
                assert_value(value, {str(case): case for case in cases}[name].expected([batch]))
        else:
            collection.update(*batch)
    values = collection.compute()
    for case in cases:
        assert_value(values[str(case)], case.expected(batches))
    if compute_groups and call == "update":
        assert len(collection.compute_groups) == 1  # one count serves all of them
    collection.reset()
    collection.update(*batches[0])
    for case in cases:
        assert_value(collection.compute()[str(case)], case.expected(batches[:1]))


@pytest.mark.parametrize("task", ["binary", "multilabel"])
@pytest.mark.parametrize("options", [{"threshold": 0.7}, {"ignore_index": 1}, {"threshold": 0.500001}])
def test_compute_groups_keep_other_configurations_apart(task, options):
    case = next(case for case in CASES if case.key == "overlap" and case.task == task)
    collection = MetricCollection({"plain": case.metric(), "other": case.metric(**options)})
    shape = (4,) if task == "binary" else (4, NUM_LABELS)
    low, zero = torch.full(shape, 0.1), torch.zeros(shape, dtype=torch.long)
    collection.update(low, zero, low)  # thresholds and ignored values make no difference in this batch ...
    between, target = torch.full(shape, 0.5000005), torch.ones(shape, dtype=torch.long)
    high = torch.full(shape, 0.9)
    collection.update(between, target, high)  # ... and do in this one
    assert len(collection.compute_groups) == 2
    batches = [(low, zero, low), (between, target, high)]
    values = collection.compute()
    assert_value(values["plain"], case.expected(batches))
    assert_value(values["other"], case.expected(batches, **options))
    assert not torch.equal(values["plain"], values["other"])


def test_compute_groups_keep_ignored_classes_apart():
    case = next(case for case in CASES if case.key == "nfr" and case.task == "multiclass")
    collection = MetricCollection([case.metric(), MetricCollection({"other": case.metric(ignore_index=3)})])
    first = (torch.tensor([0, 1]), torch.tensor([0, 1]), torch.tensor([0, 1]))
    second = (torch.tensor([0, 1]), torch.tensor([3, 3]), torch.tensor([3, 3]))
    collection.update(*first)
    collection.update(*second)
    values = collection.compute()
    assert values["NegativeFlipRate"] == 0.5
    assert values["other"] == 0.0


@pytest.mark.parametrize("case", [case for case in CASES if HIGHER_IS_BETTER.get(case.key) is not None], ids=str)
def test_metric_tracker(case):
    tracker = MetricTracker(case.metric())
    batches = make_batches(case.task)
    for batch in batches:
        tracker.increment()
        tracker.update(*batch)
    values = [float(case.expected([batch])) for batch in batches]
    np.testing.assert_allclose(tracker.compute_all().numpy(), values, atol=1e-6)
    best = max(values) if case.metric().higher_is_better else min(values)
    assert tracker.best_metric() == pytest.approx(best, abs=1e-6)


# -------------------------------------------------------------------------------- plots


@every_average
def test_plot_of_one_value(case):
    figure, axes = updated(case).plot()
    assert figure is not None
    assert axes.lines or axes.patches
    mpl.pyplot.close(figure)


@every_average
def test_plot_of_several_values_into_given_axes(case):
    metric = case.metric()
    values = [metric(*batch) for batch in make_batches(case.task)]
    figure, given = mpl.pyplot.subplots()
    no_figure, axes = metric.plot(values, ax=given)
    assert no_figure is None
    assert axes is given
    mpl.pyplot.close(figure)


def test_plot_says_which_error_compatibility_it_shows():
    for given in ("h1_wrong", "h2_wrong"):
        metric = metric_forms.BEC(task="binary", given=given)
        figure, axes = metric.plot(torch.tensor(0.5))
        assert axes.get_ylabel() == f"BEC (given {given.replace('_', ' ')})"
        mpl.pyplot.close(figure)


@pytest.mark.parametrize("task", TASKS)
def test_plotted_bars_have_the_height_of_the_counts(task):
    case = next(case for case in CASES if case.key == "overlap" and case.task == task)
    metric = updated(case)
    figure, axes = metric.plot()
    table = case.expected(make_batches(task))
    heights = np.array([patch.get_height() for patch in axes.patches]).reshape(4, -1)
    np.testing.assert_array_equal(heights, table.reshape(-1, 4).T)
    mpl.pyplot.close(figure)


# -------------------------------------------------------------------------------- the rest


@pytest.mark.parametrize("task", TASKS)
def test_to_error_overlap(task):
    case = next(case for case in CASES if case.key == "overlap" and case.task == task)
    metric = updated(case)
    overlap = metric.to_error_overlap()
    table = case.expected(make_batches(task))
    np.testing.assert_array_equal(overlap.counts, table)
    metric.update(*make_batch(task, 20, 9))
    np.testing.assert_array_equal(overlap.counts, table)
    assert overlap.nfr == pytest.approx(float(expected_value("nfr", task, make_batches(task))))
