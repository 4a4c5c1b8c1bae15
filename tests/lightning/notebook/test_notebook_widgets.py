"""`ModelComparison` and `CompatibilityAnalysis`, against a plain loop over the data and against the sweep's files."""

import inspect
import io
import json
import shutil
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import bc_lightning
from bc_core import compare
from bc_lightning import CompatibilityAnalysis, ModelComparison, Reference, StoredOutputs
from bc_tensorboard import read_original_sweep
from bc_tensorboard.writing._format import decode

ORIGINALS = Path(__file__).parents[2] / "data" / "original_sweep"


class Triple(nn.Module):
    """A model as the original's: logits, softmax and log-softmax, with layers that answer differently in training."""

    def __init__(self, seed, classes=3):
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
        self.head = nn.Linear(8, classes)
        self.calls = []

    def forward(self, x):
        logits = self.head(self.body(x))
        self.calls.append((len(x), self.training, torch.is_grad_enabled(), logits.requires_grad))
        return logits, logits.softmax(1), logits.log_softmax(1)


@pytest.fixture
def models():
    return Triple(0), Triple(1)


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(2)
    return torch.randn(50, 4, generator=generator), torch.randint(0, 3, (50,), generator=generator)


def batches_of(data, ids=True, size=16):
    x, y = data
    parts = [(torch.arange(1000, 1050)[i : i + size], x[i : i + size], y[i : i + size]) for i in range(0, len(y), size)]
    return parts if ids else [part[1:] for part in parts]


def expected(models, data, **options):
    """One forward pass over all of the data, and no other code of ours than `compare`."""
    x, y = data
    predictions = []
    for model in models:
        model.eval()
        with torch.no_grad():
            predictions.append(model(x)[0].argmax(1))
        model.train()
        model.calls.clear()
    return compare(y, *predictions, num_classes=3, **options)


def test_the_data_of_the_original_are_compared_with_their_ids(models, data):
    known = expected(models, data, ids=range(1000, 1050), metadata=lambda i: f"row {i}")
    shown = ModelComparison(*models, batches_of(data), get_instance_metadata=lambda i: f"row {i}")
    assert shown.comparison.without_scores() == known
    [series] = shown.view.index["series"]
    assert series["steps"][0][3:] == known.overlap.counts.sum(axis=0).ravel().tolist()
    assert (shown.h1_performance, shown.h2_performance) == (known.overlap.accuracy_h1, known.overlap.accuracy_h2)


@pytest.mark.parametrize(
    "make", [lambda data: batches_of(data, ids=False), lambda data: DataLoader(TensorDataset(*data), batch_size=16)]
)
def test_other_data_are_compared_by_position(models, data, make):
    assert ModelComparison(*models, make(data)).comparison.without_scores() == expected(models, data)


def test_each_model_is_asked_once_about_each_batch_and_is_then_as_before(models, data):
    h1, h2 = models
    h2.body[1].eval()  # a part that its owner keeps in eval mode
    for parameter in h1.parameters():
        parameter.requires_grad_(True)
    before = [(name, module.training) for model in models for name, module in model.named_modules()]
    buffers = [buffer.clone() for model in models for buffer in model.buffers()]
    ModelComparison(h1, h2, batches_of(data))
    for model in models:
        assert model.calls == [(size, False, False, False) for size in (16, 16, 16, 2)]
    assert before == [(name, module.training) for model in models for name, module in model.named_modules()]
    assert all(torch.equal(a, b) for a, b in zip(buffers, (b for m in models for b in m.buffers()), strict=True))
    assert all(parameter.requires_grad and parameter.grad is None for m in models for parameter in m.parameters())
    assert torch.is_grad_enabled()


def test_models_are_as_before_when_the_comparison_fails(models, data):
    with pytest.raises(ValueError, match="empty|at least one"):
        ModelComparison(*models, [])
    with pytest.raises(ValueError, match="7"):
        ModelComparison(*models, [(torch.arange(2), data[0][:2], torch.tensor([0, 7]))])
    assert all(model.training and model.head.training for model in models)


def test_the_call_of_the_original_works_by_position(models, data):
    def image(instance):
        return np.full((6, 4), 0.5)

    def share_of_class_0(model, dataset, device):
        assert device == "cpu"
        assert not model.training
        return sum(int((model(x)[0].argmax(1) == 0).sum()) for _, x, _ in dataset) / 50

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shown = ModelComparison(*models, batches_of(data), share_of_class_0, None, image, str, "cpu")
    h1, h2 = (model.eval()(data[0])[0].argmax(1) for model in models)
    assert shown.h1_performance == pytest.approx((h1 == 0).float().mean().item())
    assert shown.h2_performance == pytest.approx((h2 == 0).float().mean().item())
    instance = int(shown.comparison.instances.ids[0])
    assert shown.comparison.instances.metadata[0] == str(instance)
    content = shown.view._collection.image("comparison 1", "test", instance)
    assert Image.open(io.BytesIO(content)).size == (4, 6)
    with pytest.warns(DeprecationWarning, match="port means nothing") as caught:
        ModelComparison(*models, batches_of(data), port=5005)
    assert [warning.filename for warning in caught] == [__file__]


def test_the_arguments_are_those_of_the_original_in_their_order():
    compared = list(inspect.signature(ModelComparison).parameters)
    assert compared[:8] == [
        "h1",
        "h2",
        "dataset",
        "performance_metric",
        "port",
        "get_instance_image_by_id",
        "get_instance_metadata",
        "device",
    ]
    analysis = inspect.signature(CompatibilityAnalysis).parameters
    assert list(analysis) == [
        "folder_name",
        "number_of_epochs",
        "h1",
        "h2",
        "training_set",
        "test_set",
        "batch_size_train",
        "batch_size_test",
        "lambda_c_stepsize",
        "OptimizerClass",
        "optimizer_kwargs",
        "NewErrorLossClass",
        "StrictImitationLossClass",
        "performance_metric",
        "port",
        "new_error_loss_kwargs",
        "strict_imitation_loss_kwargs",
        "get_instance_image_by_id",
        "get_instance_metadata",
        "device",
        "use_ml_flow",
        "ml_flow_run_name",
    ]
    assert analysis["lambda_c_stepsize"].default == 0.25


def png():
    buffer = io.BytesIO()
    Image.new("L", (5, 3)).save(buffer, "PNG")
    return buffer


class Response:
    """What Flask's `send_file` returns: a file that is passed through until somebody asks for its bytes."""

    direct_passthrough = True

    def get_data(self):
        if self.direct_passthrough:
            raise RuntimeError("in direct passthrough mode")
        return png().getvalue()


@pytest.mark.parametrize(
    "image",
    [Response(), png().getvalue(), png(), Image.new("L", (5, 3)), np.zeros((3, 5)), torch.zeros(1, 3, 5)],
    ids=["response", "bytes", "file", "picture", "array", "tensor"],
)
def test_images_come_as_the_original_or_anybody_has_them(models, data, image):
    shown = ModelComparison(*models, batches_of(data), get_instance_image_by_id=lambda instance: image)
    instance = shown.comparison.instances.ids[0]
    content = shown.view._collection.image("comparison 1", "test", int(instance))
    assert Image.open(io.BytesIO(content)).size == (5, 3)


def test_text_ids_and_mappings_are_found_where_the_caller_says(models, data):
    x, y = data
    batch = {"picture": x, "label": y, "name": [f"n{i}" for i in range(50)]}
    known = expected(models, data, ids=batch["name"])
    assert ModelComparison(*models, [batch], ids="name", inputs="picture").comparison.without_scores() == known
    batch = (x, y, batch["name"])
    assert ModelComparison(*models, [batch], ids=2, inputs=0, target=1).comparison.without_scores() == known
    with pytest.raises((TypeError, ValueError), match="Say where things are"):
        ModelComparison(*models, [batch])
    # A weight of each instance, as in training; they count alike.
    weighted = ModelComparison(*models, [(x, y, torch.full((50,), 0.5))]).comparison
    assert weighted.overlap == known.overlap
    with pytest.raises(ValueError, match="comes twice"):
        ModelComparison(*models, [(torch.zeros(50, dtype=torch.long), x, y)])


def test_a_shuffled_loader_is_counted_but_its_instances_are_not_named(models, data):
    loader = DataLoader(TensorDataset(*data), batch_size=16, shuffle=True)
    known = expected(models, data)
    with pytest.warns(UserWarning, match="no ids to ask for images") as caught:
        shown = ModelComparison(*models, loader, get_instance_metadata=lambda i: pytest.fail("asked for a text"))
    assert caught[0].filename == __file__
    assert shown.comparison.overlap == known.overlap
    assert len(shown.comparison.instances)
    assert all(instance.startswith("no. ") for instance in shown.comparison.instances.ids)


@pytest.mark.parametrize("column", [False, True])
def test_binary_models_are_read_by_threshold(column):
    x = torch.linspace(-2, 2, 40)[:, None]
    y = (x[:, 0] > 0.5).long()

    class Score(nn.Module):
        def __init__(self, shift, sigmoid):
            super().__init__()
            self.shift, self.sigmoid = shift, sigmoid

        def forward(self, x):
            logits = x - self.shift
            scores = logits.sigmoid() if self.sigmoid else logits
            return scores if column else scores[:, 0]

    known = compare(y, (x[:, 0] >= 0).long(), (x[:, 0] >= 1).long())
    batches = [(x, y)]
    assert ModelComparison(Score(0, True), Score(1, True), batches).comparison.without_scores() == known
    assert (
        ModelComparison(Score(0, False), Score(1, False), batches, from_logits=True).comparison.without_scores()
        == known
    )
    with pytest.raises(ValueError, match="from_logits=True"):
        ModelComparison(Score(0, False), Score(1, False), batches)


def test_h1_may_be_a_function_a_reference_or_stored_outputs(models, data):
    h1, h2 = models
    known = expected(models, data)
    h1.eval()
    assert (
        ModelComparison(lambda x: h1(x)[0].numpy(), h2, batches_of(data, ids=False)).comparison.without_scores()
        == known
    )
    assert ModelComparison(Reference(h1), h2, batches_of(data, ids=False)).comparison.without_scores() == known
    rows = h1(data[0])[0].detach()
    stored = StoredOutputs.from_table(rows, kind="logits")
    loader = DataLoader(stored.attach(TensorDataset(*data)), batch_size=16, shuffle=True)
    shown = ModelComparison(stored, h2, loader).comparison
    assert shown.overlap == known.overlap
    assert sorted(shown.instances.ids.tolist()) == known.instances.ids.tolist()
    with pytest.raises(ValueError, match="stored.attach"):
        ModelComparison(stored, h2, batches_of(data))


def test_outputs_for_every_pixel_are_counted_without_images():
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 3, (4, 5, 6), generator=generator)
    h1, h2 = (torch.randn(4, 3, 5, 6, generator=generator) for _ in range(2))
    with pytest.warns(UserWarning, match="several times for each instance, so there are no ids"):
        shown = ModelComparison(
            lambda x: h1[x], lambda x: h2[x], [(torch.arange(4), torch.arange(4), y)], get_instance_metadata=str
        )
    assert shown.comparison.without_scores() == compare(
        y.flatten(), h1.argmax(1).flatten(), h2.argmax(1).flatten(), num_classes=3
    )


def test_an_ignored_target_is_not_counted(models, data):
    x, y = data
    some = y.clone()
    some[::5] = -100
    kept = some >= 0
    known = expected(models, (x[kept], y[kept]), ids=torch.arange(50)[kept])
    assert ModelComparison(*models, [(x, some)]).comparison.without_scores() == known


def test_outputs_that_are_no_predictions_are_refused(models, data):
    with pytest.raises(ValueError, match="h2 returned NaN"):
        ModelComparison(models[0], lambda x: torch.full((len(x), 3), float("nan")), batches_of(data))
    with pytest.raises(TypeError, match="h1's output"):
        ModelComparison(lambda x: None, models[1], batches_of(data))
    with pytest.raises(ValueError, match="threshold"):
        ModelComparison(*models, batches_of(data), threshold=2)


def test_it_is_shown_where_a_cell_runs_and_nowhere_else(models, data, monkeypatch):
    displayed = []
    shell = types.ModuleType("IPython")
    shell.get_ipython = object
    display = types.ModuleType("IPython.display")
    display.display = displayed.append
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    shown = ModelComparison(*models, batches_of(data))
    assert displayed == [shown.view]
    # As the last expression of its cell it would otherwise be there twice.
    assert not hasattr(shown, "_repr_mimebundle_")
    assert repr(shown).startswith("ModelComparison(Comparison(")
    shell.get_ipython = lambda: None
    ModelComparison(*models, batches_of(data))
    assert len(displayed) == 1


def test_several_in_one_notebook_share_nothing(models, data):
    first, second = (ModelComparison(*models, batches_of(data), name=name) for name in ("a", "b"))
    first.view.state = "run=a"
    assert second.view.state == ""
    assert [each["run"] for each in second.view.index["series"]] == ["b"]
    assert first.view.model_id != second.view.model_id


# ---------------------------------------------------------------------------------- CompatibilityAnalysis


def test_a_sweep_of_the_original_opens_with_all_its_evaluations():
    known = read_original_sweep(ORIGINALS / "four_batches")
    shown = CompatibilityAnalysis(ORIGINALS / "four_batches")
    assert len(shown.evaluations) == len(known) == 12
    series = shown.view.index["series"]
    found = {(each["dataset"], each["dissonance"], each["steps"][0][2], *each["steps"][0][3:]) for each in series}
    assert found == {
        (e.dataset, e.dissonance, e.lambda_c, *e.comparison.overlap.counts.sum(axis=0).ravel().tolist()) for e in known
    }
    assert len(series) == 12
    # What the original's own evaluation got wrong is said.
    [warning] = shown.view.index["warnings"]
    assert "strict imitation repeats its new error" in warning


def test_the_call_of_the_original_keeps_its_training_arguments():
    h1, h2, sets = object(), object(), ([1], [2])
    with pytest.warns(DeprecationWarning, match="means nothing any more") as caught:
        shown = CompatibilityAnalysis(
            ORIGINALS / "one_batch", 3, h1, h2, *sets, 64, 32, 0.1, torch.optim.SGD, {"lr": 0.1}, port=5001,
            use_ml_flow=True,
        )  # fmt: skip
    assert [str(warning.message).split()[0] for warning in caught] == ["port"]
    assert {warning.filename for warning in caught} == {__file__}
    assert (shown.number_of_epochs, shown.h1, shown.h2, shown.training_set, shown.test_set) == (3, h1, h2, [1], [2])
    assert (shown.batch_size_train, shown.batch_size_test, shown.lambda_c_stepsize) == (64, 32, 0.1)
    assert (shown.OptimizerClass, shown.optimizer_kwargs) == (torch.optim.SGD, {"lr": 0.1})


def test_a_folder_without_results_shows_nothing_yet_until_there_are_some(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shown = CompatibilityAnalysis(str(tmp_path / "sweep"), use_ml_flow=False)
    [warning] = shown.view.index["warnings"]
    assert "sweep is no folder; a sweep is looked for there when refreshed" in warning
    assert shown.view.index["series"] == []
    assert "no evaluations yet" in repr(shown)
    shown.view.state = "region=regress"

    (tmp_path / "sweep").mkdir()
    for number in range(2):
        shutil.copy(ORIGINALS / "one_batch" / f"{number}-evaluation-data.json", tmp_path / "sweep")
    shown.refresh()
    assert len(shown.view.index["series"]) == 2
    [warning] = shown.view.index["warnings"]
    assert "no sweep_summary.json yet; shown are the 2 evaluations" in warning
    assert shown.view.state == "region=regress"

    shutil.copytree(ORIGINALS / "one_batch", tmp_path / "sweep", dirs_exist_ok=True)
    shown.refresh()
    assert len(shown.view.index["series"]) == 12
    assert "interrupted" not in " ".join(shown.view.index["warnings"])


def test_what_is_damaged_is_said_and_the_rest_is_shown(tmp_path):
    shutil.copytree(ORIGINALS / "one_batch", tmp_path / "sweep")
    (tmp_path / "sweep" / "3-evaluation-data.json").write_text("{")
    shown = CompatibilityAnalysis(tmp_path / "sweep")
    assert len(shown.view.index["series"]) == 11
    assert "3-evaluation-data.json" in shown.view.index["warnings"][0]
    (tmp_path / "sweep" / "sweep_summary.json").write_text(json.dumps({"data": 3}))
    shown.refresh()
    assert "sweep_summary.json" in shown.view.index["warnings"][0]


def test_texts_and_images_of_a_sweep_are_asked_for_by_id():
    shown = CompatibilityAnalysis(
        ORIGINALS / "four_batches",
        get_instance_metadata=lambda instance: f"own {instance}",
        get_instance_image_by_id=lambda instance: Response(),
    )
    series = shown.view.index["series"][0]
    instance = int(shown.evaluations[0].comparison.instances.ids[0])
    _, columns = decode(shown.view._collection.media(series["run"], series["dataset"]))
    assert columns["text"] == [f"own {i}" for i in columns["ids"].tolist()]
    content = shown.view._collection.image(series["run"], series["dataset"], instance)
    assert Image.open(io.BytesIO(content)).size == (5, 3)


def test_both_names_are_public():
    assert {"ModelComparison", "CompatibilityAnalysis"} <= set(bc_lightning.__all__)
