"""What the original's notebooks do, on little data, with the changes that the migration page names."""

from __future__ import annotations

import copy
import functools
import io
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from flask import send_file
from PIL import Image
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset

import bc_core as scores
import bc_lightning as bcloss
from bc_lightning import BCLightningModule, CompatibilityAnalysis, LogComparisons, ModelComparison

C, ROWS, BATCH = 4, 96, 16
ORIGINALS = Path(__file__).parents[2] / "data" / "original_sweep"


class Net(nn.Module):
    """A small image classifier of the original's kind: convolution, dropout, and the triple."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, kernel_size=3)
        self.drop = nn.Dropout2d()
        self.fc1 = nn.Linear(36, 12)
        self.fc2 = nn.Linear(12, C)

    def forward(self, x):
        x = F.relu(F.max_pool2d(self.drop(self.conv(x)), 2))
        x = F.dropout(F.relu(self.fc1(x.view(-1, 36))), training=self.training)
        x = self.fc2(x)
        return x, F.softmax(x, dim=1), F.log_softmax(x, dim=1)


class Normalised(nn.Module):
    """A backbone with batch normalisation in a wrapper that makes the triple of its output, as for ResNet-18."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, C))

    def forward(self, x):
        out = self.backbone(x)
        return out, F.softmax(out, dim=1), F.log_softmax(out, dim=1)


class Rows(nn.Module):
    """A classifier of rows of a table, of two classes."""

    def __init__(self, hidden=()):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, data, sample_weight=None):
        out = self.layers(data)
        return out, F.softmax(out, dim=-1), F.log_softmax(out, dim=-1)


@pytest.fixture
def data():
    torch.manual_seed(1)
    y = torch.arange(ROWS) % C
    x = 0.3 * torch.randn(ROWS, 1, 8, 8)
    x[torch.arange(ROWS), 0, :, 2 * y] += 1
    return x, y


def listed(x, y, ids=True):
    """As the notebooks cut their data: lists of lists, with or without ids."""
    made = []
    for start in range(0, len(x), BATCH):
        rows = slice(start, start + BATCH)
        made.append([*([list(range(start, start + BATCH))] if ids else []), x[rows], y[rows]])
    return made


@pytest.mark.parametrize(
    ("name", "options", "call"),
    [
        ("BCNLLLoss", {}, {}),
        ("BCKLDivergenceLoss", {"num_classes": C}, {"reduction": "sum"}),
        ("StrictImitationCrossEntropyLoss", {}, {}),
        ("StrictImitationNLLLoss", {}, {}),
    ],
)
def test_a_loop_of_ones_own(data, name, options, call):
    train_loader = list(DataLoader(TensorDataset(*data), batch_size=BATCH, shuffle=True))
    train_loader_a, train_loader_b = train_loader[:3], train_loader[3:]
    network = Net()
    optimizer = optim.SGD(network.parameters(), lr=0.05, momentum=0.5)
    network.train()
    for _ in range(5):
        for inputs, target in train_loader_a:
            optimizer.zero_grad()
            _, _, output = network(inputs)
            F.nll_loss(output, target).backward()
            optimizer.step()

    h1, h2 = copy.deepcopy(network), copy.deepcopy(network)
    h1.eval()
    before = copy.deepcopy(h1.state_dict())
    new_optimizer = optim.SGD(h2.parameters(), lr=0.05 / (BATCH if call else 1), momentum=0.5)
    bc_loss = getattr(bcloss, name)(h1, h2, 1.0, **options)
    losses = []
    for _ in range(20):
        for inputs, target in train_loader_b:
            new_optimizer.zero_grad()
            loss = bc_loss(inputs, target, **call)
            loss.backward()
            new_optimizer.step()
            losses.append(loss.item())
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    assert all(torch.equal(before[key], value) for key, value in h1.state_dict().items())

    h2.eval()
    with torch.no_grad():
        _, _, h1_output = h1(train_loader_b[0][0])
        _, _, h2_output = h2(train_loader_b[0][0])
    h1_labels, h2_labels = h1_output.data.max(1)[1], h2_output.data.max(1)[1]
    expected_labels = train_loader_b[0][1]
    right = h1_labels == expected_labels
    assert scores.trust_compatibility_score(h1_labels, h2_labels, expected_labels) == pytest.approx(
        (right & (h2_labels == expected_labels)).sum().item() / right.sum().item()
    )


def test_a_loop_of_ones_own_with_a_binary_loss(data):
    # The model returns a column, and the truth is of floats without one.
    x, y = data[0].flatten(1), (data[1] > 1).float()
    loader = listed(x, y, ids=False)
    network = nn.Sequential(nn.Linear(64, 1), nn.Sigmoid())
    h1, h2 = copy.deepcopy(network), copy.deepcopy(network)
    h1.eval()
    discriminant_pivot = 0.3
    bc_loss = bcloss.BCBinaryCrossEntropyLoss(h1, h2, 0.5, discriminant_pivot=discriminant_pivot)
    optimizer = optim.SGD(h2.parameters(), lr=0.5, momentum=0.5)
    for _ in range(10):
        for inputs, target in loader:
            optimizer.zero_grad()
            bc_loss(inputs, target).backward()
            optimizer.step()
    with torch.no_grad():
        h1_labels, h2_labels = ((model(x) >= discriminant_pivot).int() for model in (h1, h2))
    right1, right2 = h1_labels[:, 0] == y, h2_labels[:, 0] == y
    assert right2.float().mean() > 0.9
    assert scores.trust_compatibility_score(h1_labels, h2_labels, y) == (
        (right1 & right2).sum().item() / right1.sum().item()
    )
    assert scores.error_compatibility_score(h1_labels, h2_labels, y) == (
        (~right1 & ~right2).sum().item() / (~right1).sum().item()
    )


def trained(network, training_set, test_set, n_epochs=1):
    """`training.train(...)` of the original, as the migration page has it."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    trainer = pl.Trainer(
        max_epochs=n_epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    places = {"inputs": 1, "target": 2, "comparisons": LogComparisons(ids=0)} if len(training_set[0]) == 3 else {}
    optimizer = functools.partial(optim.SGD, lr=0.05, momentum=0.5)
    train, test = DataLoader(training_set, batch_size=None), DataLoader(test_set, batch_size=None)
    module = BCLightningModule(network.train(), h1=copy.deepcopy(network), lambda_c=0, optimizer=optimizer, **places)
    trainer.fit(module, train, test if places else None)
    network.eval()
    return network


@pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning")
@pytest.mark.parametrize(
    ("make", "ids", "options"),
    [
        (Net, True, {}),
        (Net, False, {}),
        (Net, True, {"kldiv": True}),
        (Normalised, True, {}),
        (Rows, True, {}),
        (Rows, True, {"kldiv": True}),
        (Rows, True, {"losses": ("BCNLLLoss", "StrictImitationNLLLoss")}),
    ],
    ids=["MNIST", "MNIST without ids", "MNIST kldiv", "ResNet", "adult", "adult kldiv", "adult nll"],
)
def test_compatibility_analysis(data, tmp_path, make, ids, options):
    x, y = data
    classes = 2 if make is Rows else C
    y = y % classes
    train_loader, test_loader = listed(x[:64], y[:64], ids), listed(x[64:], y[64:], ids)
    folder = tmp_path / "sweeps-mnist"
    folder.mkdir()
    (folder / ".gitkeep").touch()
    h1 = trained(make(), train_loader[:2], test_loader)
    torch.save(h1.state_dict(), folder / "h1-model.state")
    h2 = copy.deepcopy(h1)
    names = options.get("losses", ("BCCrossEntropyLoss", "StrictImitationCrossEntropyLoss"))
    kwargs = {}
    if options.get("kldiv"):
        names = ("BCKLDivergenceLoss", "StrictImitationKLDivergenceLoss")
        kwargs = {f"{kind}_loss_kwargs": {"num_classes": classes} for kind in ("new_error", "strict_imitation")}

    def get_instance_image(instance_id):
        img_bytes = io.BytesIO()
        pixels = np.uint8(np.clip(np.transpose(x[64 + instance_id] / 2 + 0.5, (1, 2, 0)).numpy(), 0, 1) * 255)
        Image.fromarray(pixels.reshape(8, 8)).save(img_bytes, format="PNG")
        img_bytes.seek(0)
        return send_file(img_bytes, mimetype="image/png")

    analysis = CompatibilityAnalysis(
        str(folder), 1, h1, h2, train_loader, test_loader, BATCH, BATCH,
        lambda_c_stepsize=1.0,
        OptimizerClass=optim.SGD, optimizer_kwargs={"lr": 0.05, "momentum": 0.5},
        NewErrorLossClass=getattr(bcloss, names[0]), StrictImitationLossClass=getattr(bcloss, names[1]),
        get_instance_image_by_id=get_instance_image, get_instance_metadata=lambda instance_id: f"row {instance_id}",
        **kwargs,
    )  # fmt: skip
    # A copy of an h1 in eval mode, which the original's loop put into train mode.
    assert not h2.training
    sweep = analysis.start(background=False, tensorboard=False)
    assert not h2.training
    assert sweep.failures == []
    # Two losses, two lambdas, two data sets.
    assert len(analysis.sweep_manager.get_sweep_summary()["data"]) == 8
    found = sweep.comparison("strict_imitation", 1.0, dataset="test")
    if len(found.instances):
        instance = found.instances.ids[0]
        assert found.instances.metadata[0] == f"row {instance}"
        series = next(each for each in analysis.view.index["series"] if each["dataset"] == "test")
        content = analysis.view._collection.image(series["run"], "test", int(instance))
        assert Image.open(io.BytesIO(content)).size == (8, 8)


def test_what_a_sweep_of_the_original_left_is_shown_with_its_models_beside(tmp_path):
    folder = tmp_path / "sweeps-mnist"
    shutil.copytree(ORIGINALS / "one_batch", folder)
    for name in (".gitkeep", "h1-model.state", "0.0-model-new-error.state"):
        (folder / name).touch()
    h1 = Net()
    analysis = CompatibilityAnalysis(
        str(folder), 3, h1, copy.deepcopy(h1), [], [], 64, 1000, OptimizerClass=optim.SGD,
        optimizer_kwargs={"lr": 0.01}, NewErrorLossClass=bcloss.new_error.BCCrossEntropyLoss,
    )  # fmt: skip
    assert len(analysis.view.index["series"]) == 12
    summary = analysis.sweep_manager.get_sweep_summary()
    assert len(summary["data"]) == 12
    assert analysis.sweep_manager.get_evaluation(3)["datapoint_index"] == 3
    assert analysis.sweep_manager.get_sweep_status() == 1.0


def test_model_comparison(data):
    x, y = data
    h1, h2 = Net(), Net()
    shown = ModelComparison(h1, h2, listed(x, y), get_instance_image_by_id=lambda i: x[i, 0].clip(0, 1))
    with torch.no_grad():
        wrong = (h1.eval()(x)[0].argmax(1) != y) | (h2.eval()(x)[0].argmax(1) != y)
    assert shown.comparison.instances.ids.tolist() == np.flatnonzero(wrong).tolist()


def test_the_demonstration_whose_batches_overlap(data, tmp_path):
    # Its batches begin with the last row of the one before, under the same id.
    x, y = data[0].flatten(1)[:64], data[1][:64] % 2
    training_set = [[list(range(a, a + 17)), x[a : a + 17], y[a : a + 17]] for a in (0, 16, 32)]
    given = {"OptimizerClass": optim.SGD, "optimizer_kwargs": {"lr": 0.01, "momentum": 0.5}, "lambda_c_stepsize": 1.0}
    h1, h2 = Rows(), Rows()
    analysis = CompatibilityAnalysis(tmp_path / "sweeps", 1, h1, h2, training_set, training_set, 17, 17, **given)
    with pytest.raises(ValueError, match="must be unique.*16, 32 more than once"):
        analysis.start(background=False)
    with pytest.raises(ValueError, match="id 16 comes twice"):
        ModelComparison(h1, h2, training_set)
    named_by_position = [(x, y) for ids, x, y in training_set]
    again = CompatibilityAnalysis(
        tmp_path / "sweeps", 1, h1, h2, named_by_position, named_by_position, 17, 17, **given
    )  # fmt: skip
    assert len(again.start(background=False, tensorboard=False).points) == 3
    assert ModelComparison(h1, h2, named_by_position).comparison.dataset_size == 51


def test_h2_is_trained_in_train_mode_whatever_mode_it_comes_in(data, tmp_path):
    x, y = data
    seen = []

    class Watched(Normalised):
        def forward(self, inputs):
            if torch.is_grad_enabled():
                seen.append(self.training and self.backbone[2].training)
            return super().forward(inputs)

    h1, h2 = Normalised().eval(), Watched().eval()
    before = copy.deepcopy(h2.state_dict())
    analysis = CompatibilityAnalysis(
        tmp_path / "s", 1, h1, h2, listed(x, y), listed(x, y), BATCH, BATCH, lambda_c_stepsize=1.0
    )  # fmt: skip
    sweep = analysis.start(background=False, tensorboard=False)
    assert seen
    assert all(seen)
    state = torch.load(sweep.model_path("new_error", 0.0))
    assert not torch.equal(state["backbone.2.running_mean"], before["backbone.2.running_mean"])
