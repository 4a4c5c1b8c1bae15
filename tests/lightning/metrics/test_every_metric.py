"""The battery: what torchmetrics promises of a metric, checked for every metric and task.

Expected values come from the plain loops of this file.
"""

import inspect
import io
import math
import pickle
import warnings
from copy import deepcopy
from dataclasses import dataclass, field

import matplotlib as mpl
import numpy as np
import pytest
import torch
from score_definitions import DEFINITIONS
from torchmetrics import MetricCollection, MetricTracker

import bc_lightning.functional as functional_forms
import bc_lightning.metrics as metric_forms
from bc_core import SCORES as SCORE_TABLE
from bc_core.counting._score_texts import function_name

mpl.use("Agg")

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


# -------------------------------------------------------------------------------- the metric as an object


@every_case
def test_reset(case):
    metric = updated(case)
    metric.reset()
    assert metric.counts.sum() == 0
    assert not metric.update_called
    batch = make_batch(case.task, 20, 9)
    metric.update(*batch)
    assert_value(metric.compute(), case.expected([batch]))


@every_case
def test_compute_is_cached_until_the_next_update(case):
    metric = updated(case)
    assert metric.compute() is metric.compute()
    more = make_batch(case.task, 20, 9)
    metric.update(*more)
    assert_value(metric.compute(), case.expected([*make_batches(case.task), more]))


@every_case
def test_compute_before_update_warns(case):
    with pytest.warns(UserWarning, match="was called before the ``update`` method"):
        case.metric().compute()


@every_case
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # scripting itself is deprecated, and still asked for
def test_scripting(case):
    torch.jit.script(case.metric())


@every_case
@pytest.mark.parametrize("module", ["pickle", "cloudpickle"])
def test_pickling(case, module):
    dumps = pickle.dumps if module == "pickle" else pytest.importorskip("cloudpickle").dumps
    loaded = pickle.loads(dumps(updated(case)))
    assert_value(loaded.compute(), case.expected(make_batches(case.task)))
    more = make_batch(case.task, 20, 9)
    loaded.update(*more)
    assert_value(loaded.compute(), case.expected([*make_batches(case.task), more]))


@every_case
def test_saving_the_whole_metric(case):
    buffer = io.BytesIO()
    torch.save(updated(case), buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False)
    assert_value(loaded.compute(), case.expected(make_batches(case.task)))


@every_case
@pytest.mark.parametrize("copy", [deepcopy, lambda metric: metric.clone()], ids=["deepcopy", "clone"])
def test_copies_are_independent(case, copy):
    metric = updated(case)
    other = copy(metric)
    other.update(*make_batch(case.task, 20, 9))
    assert_value(metric.compute(), case.expected(make_batches(case.task)))
    assert_value(other.compute(), case.expected([*make_batches(case.task), make_batch(case.task, 20, 9)]))


@every_case
def test_hash(case):
    metric, other = case.metric(), case.metric()
    assert hash(metric) == hash(metric)
    assert hash(metric) != hash(other)
    assert len({metric, other}) == 2


@every_case
def test_state_dict_is_empty_unless_asked_for(case):
    assert updated(case).state_dict() == {}


@every_case
def test_persistent_states_are_saved_and_loaded(case):
    metric = updated(case)
    metric.persistent(True)
    state = metric.state_dict()
    assert set(state) == {"counts", "configuration"}
    loaded = case.metric()
    loaded.persistent(True)
    loaded.load_state_dict(state)
    loaded.update(*make_batch(case.task, 20, 9))
    assert_value(loaded.compute(), case.expected([*make_batches(case.task), make_batch(case.task, 20, 9)]))


@every_case
def test_persistent_states_of_another_configuration_are_refused(case):
    metric = updated(case)
    metric.persistent(True)
    other = case.metric(ignore_index=1)
    with pytest.raises(RuntimeError, match="counted with another task, threshold"):
        other.load_state_dict(metric.state_dict())


@every_case
@pytest.mark.parametrize(
    "constant",
    [
        "higher_is_better",
        "is_differentiable",
        "full_state_update",
        "plot_lower_bound",
        "plot_upper_bound",
        "plot_legend_name",
    ],
)
def test_constants_cannot_be_set(case, constant):
    metric = case.metric()
    with pytest.raises(RuntimeError, match=f"Can't change const `{constant}`"):
        setattr(metric, constant, None)


HIGHER_IS_BETTER = {name: better for name, (_, _, better) in DEFINITIONS.items()}


@every_case
def test_constants(case):
    metric = case.metric()
    assert metric.is_differentiable is False
    assert metric.full_state_update is False
    assert metric.higher_is_better is HIGHER_IS_BETTER.get(case.key)
    assert metric.plot_lower_bound == 0.0
    assert metric.plot_upper_bound == (None if case.key == "overlap" else 1.0)


@every_case
@pytest.mark.parametrize(
    "move",
    [
        lambda metric: metric.half(),
        lambda metric: metric.double(),
        lambda metric: metric.to(torch.float16),
        lambda metric: metric.set_dtype(torch.float16),
        lambda metric: torch.nn.Sequential(metric).half()[0],
    ],
    ids=["half", "double", "to", "set_dtype", "parent"],
)
def test_no_move_touches_the_dtype_of_counts(case, move):
    metric = move(updated(case))
    assert metric.counts.dtype == torch.int64
    metric.update(*make_batch(case.task, 20, 9))
    assert_value(metric.compute(), case.expected([*make_batches(case.task), make_batch(case.task, 20, 9)]))


@every_case
def test_states_move_to_another_device(case):
    metric = updated(case).to("meta")
    assert metric.counts.device.type == "meta"
    assert metric.configuration.device.type == "meta"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every_case
def test_gpu_equals_cpu(case):
    metric = case.metric().to("cuda")
    batches = make_batches(case.task)
    for batch in batches:
        value = metric(*(x.to("cuda") for x in batch))
        assert value.device.type == "cuda"
        assert_value(value.cpu(), case.expected([batch]))
    assert_value(metric.compute().cpu(), case.expected(batches))


@every_case
def test_states_that_were_reset_in_inference_mode(case):
    metric = updated(case)
    with torch.inference_mode():
        metric.reset()
        metric.update(*make_batch(case.task, 20, 1))
    metric.update(*make_batch(case.task, 20, 9))
    assert_value(metric.compute(), case.expected([make_batch(case.task, 20, 1), make_batch(case.task, 20, 9)]))


@every_case
def test_no_graph_is_kept(case):
    preds, target, reference = make_batch(case.task, 20, 1)
    metric = case.metric()
    value = metric(preds.requires_grad_(), target, reference.requires_grad_())
    assert not value.requires_grad
    assert not metric.counts.requires_grad


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
