"""Every metric and task, copied, saved, moved and reset."""

import io
import pickle
from copy import deepcopy

import pytest
import torch
from metric_cases import HIGHER_IS_BETTER, assert_value, every_case, make_batch, make_batches, updated

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
