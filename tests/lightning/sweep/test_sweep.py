"""Sweeps in Lightning: equal to training by hand, whoever trains the points and whatever interrupts them."""

from __future__ import annotations

import errno
import math
import random

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from sweep_training import Digits, run
from swept_modules import GRID, batches, few, rows_of, sweep_of
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bc_core import FullDiskError, SweepFailedError, compare, linear_lambdas, log_lambdas
from bc_core.sweep import _folder
from bc_lightning import BCLightningModule, StoredOutputs, sweep, unwrap
from bc_tensorboard import read_original_sweep


class Counting(nn.Module):
    """An h1 that counts the rows it is asked about."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.rows = 0

    def forward(self, x):
        self.rows += len(x)
        return self.net(x)


def by_hand(h1, data, loss, lambda_c, seed=0):
    """The same point, trained without the sweep and with h1 asked in every step."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)
    h2 = Digits()
    module = h2 if loss is None else BCLightningModule(h2, h1=h1, loss=loss, lambda_c=lambda_c, comparisons=False)
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(data["train"], batch_size=100, shuffle=True))
    return unwrap(module).eval()


@pytest.mark.parametrize(
    ("name", "loss", "lambda_c"),
    [
        ("new_error", None, 0),
        ("new_error", "BCCrossEntropyLoss", 2),
        ("strict_imitation", "StrictImitationCrossEntropyLoss", 16),
    ],
)
def test_a_point_is_what_training_by_hand_gives(small, h1, data, name, loss, lambda_c):
    expected = by_hand(h1, data, loss, lambda_c)
    weights = torch.load(small.model_path(name, lambda_c))
    for key, value in expected.state_dict().items():
        # Stored scores of h1 are those of another batch size: sums of float32 in another order.
        torch.testing.assert_close(weights[key], value, rtol=0, atol=0 if loss is None else 1e-5)
    for dataset in ("train", "val", "test"):
        x, y = data[dataset].tensors
        with torch.no_grad():
            wanted = compare(y, h1(x).argmax(1), expected(x).argmax(1), num_classes=10)
        found = small.comparison(name, lambda_c, dataset=dataset)
        assert (found.overlap, found.lambda_c) == (wanted.overlap, lambda_c)
        assert found.instances.ids.tolist() == wanted.instances.ids.tolist()


def test_h1_is_asked_once_about_each_item_for_the_whole_sweep(tmp_path, h1, data):
    counting = Counting(h1)
    loaders = [DataLoader(data[name], batch_size=100, shuffle=True) for name in ("train", "val", "test")]
    sweep(
        Digits, counting, loaders[0], val=loaders[1], test=loaders[2], folder=tmp_path / "s", progress_bar=False,
        tensorboard=False, **GRID,
    )  # fmt: skip
    # 4000 items; the first of each data set to learn the shape of the answer; and the first training batch of the sweep
    # once more, to see that h2 is given these very items.
    assert counting.rows == 4000 + 3 + 100


def test_a_loader_with_its_own_generator_gives_every_point_the_same_batches(tmp_path, h1, data):
    def train(folder):
        generator = torch.Generator().manual_seed(3)
        loader = DataLoader(data["train"], batch_size=100, shuffle=True, generator=generator)
        return sweep(
            Digits, h1, loader, test=DataLoader(data["test"], batch_size=100), folder=folder,
            lambdas=[1e-12, 2e-12], losses=["new_error"], trainer=GRID["trainer"], progress_bar=False,
            tensorboard=False,
        )  # fmt: skip

    found = train(tmp_path / "s")
    first, second = (torch.load(found.model_path("new_error", value)) for value in (1e-12, 2e-12))
    # So small a lambda_c changes nothing in float32: other batches would.
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_plain_module_without_an_optimiser_is_refused_before_anything_is_trained(tmp_path, h1, data):
    with pytest.raises(ValueError, match=r"optimizer=torch\.optim\.SGD"):
        sweep_of(lambda: torch.nn.Linear(784, 10), tmp_path / "s", h1, data)
    assert not (tmp_path / "s").exists()


class Shifted(Digits):
    """Augments in its own step, where no data set shows it."""

    def training_step(self, batch, batch_idx):
        x, y = batch
        return super().training_step((torch.roll(x, 3, dims=1), y), batch_idx)


def test_a_step_that_augments_is_noticed_and_h1_is_asked_live(tmp_path, h1, data):
    kept, live = (
        sweep_of(Shifted, tmp_path / str(store), h1, data, store_h1=store, losses=["strict_imitation"], lambdas=[4])
        for store in ("auto", False)
    )
    first, second = (torch.load(found.model_path("strict_imitation", 4)) for found in (kept, live))
    assert all(torch.equal(first[key], second[key]) for key in first)
    with pytest.raises(SweepFailedError, match="changes the batch"):
        sweep_of(Shifted, tmp_path / "insists", h1, data, store_h1=True, losses=["strict_imitation"], lambdas=[4])


class WithIds(torch.utils.data.Dataset):
    """Items (id, x, y) with ids that are text."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return (f"scan-{index}", *self.data[index])


class OfThree(Digits):
    """A module whose batches bring ids."""

    def training_step(self, batch, batch_idx):
        return super().training_step(batch[1:], batch_idx)


def test_text_ids_name_the_instances(tmp_path, h1, data, small):
    train, test = (
        DataLoader(WithIds(data[name]), batch_size=100, shuffle=name == "train") for name in ("train", "test")
    )
    found = sweep(
        OfThree, h1, train, test=test, folder=tmp_path / "s", progress_bar=False, tensorboard=False,
        ids=0, inputs=1, target=2, **GRID,
    )  # fmt: skip
    expected = [f"scan-{index}" for index in small.comparison("new_error", 2).instances.ids]
    assert found.comparison("new_error", 2).instances.ids.tolist() == expected


def test_a_class_that_is_absent_a_perfect_h1_and_a_perfect_h2(tmp_path):
    x = torch.eye(4).repeat(10, 1)
    y = torch.tensor([0, 1, 3, 3]).repeat(10)  # no instance of class 2

    class Right(nn.Module):
        def forward(self, x):
            return x @ torch.eye(4)[[0, 1, 3, 3]] * 10

    data = DataLoader(TensorDataset(x, y), batch_size=20, shuffle=True)
    found = sweep(
        lambda: nn.Linear(4, 4), Right(), data, val=data, test=data, folder=tmp_path / "s", lambdas=[0, 1],
        trainer={"max_epochs": 60, "accelerator": "cpu"}, optimizer=lambda p: torch.optim.Adam(p, 0.1),
        progress_bar=False, tensorboard=False,
    )  # fmt: skip
    assert {(row["accuracy_h1"], row["accuracy_h2"], row["btc"]) for row in found.rows()} == {(1.0, 1.0, 1.0)}
    assert found.best("nfr <= 10%").lambda_c == 0
    assert len(read_original_sweep(found.to_original(tmp_path / "o"))) == 8


def test_the_old_format_holds_the_same_counts(tmp_path, small):
    evaluations = read_original_sweep(small.to_original(tmp_path / "original"))
    assert len(evaluations) == 3 * 2 * 2
    for evaluation in evaluations:
        dataset = {"training": "train", "testing": "test"}[evaluation.dataset]
        ours = small.comparison(evaluation.dissonance.replace(" ", "_"), evaluation.lambda_c, dataset=dataset)
        assert evaluation.comparison.overlap.score("btc") == ours.overlap.btc
        assert evaluation.comparison.instances.ids.tolist() == ours.instances.ids.tolist()


def test_several_devices_are_refused(tmp_path):
    with pytest.raises(SweepFailedError, match="trained on one device"):
        run(tmp_path / "s", **{**GRID, "trainer": {"max_epochs": 1, "accelerator": "cpu", "devices": 2}})


def test_a_trainer_of_a_wrong_kind_is_refused_before_any_training(tmp_path):
    with pytest.raises(TypeError, match="max_epochs"):
        run(tmp_path / "s", **{**GRID, "trainer": 3})
    assert not (tmp_path / "s").exists()


def test_a_data_set_in_place_of_a_loader_is_refused(tmp_path, h1, data):
    with pytest.raises(TypeError, match=r"wrap it: DataLoader"):
        sweep(Digits, h1, data["train"], folder=tmp_path / "s")


def test_grids():
    assert linear_lambdas(0.3) == pytest.approx([0, 0.3, 0.6, 0.9, 1.0])
    assert linear_lambdas(1 / 3)[-1] == 1.0
    assert len(linear_lambdas(0.01)) == 101
    assert log_lambdas(1, 8) == [0, 1, 2, 4, 8]


class SavesHyperparameters(Digits):
    """As most modules do."""

    def __init__(self, width=8):
        super().__init__(width)
        self.save_hyperparameters()

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log("my_loss", loss, on_epoch=True)
        return loss


def test_tensorboard_has_the_points_hyperparameters_and_the_modules_curves(tmp_path, h1, data):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = sweep_of(SavesHyperparameters, tmp_path / "s", h1, data, lambdas=[2], tensorboard=True)
    run = found.path / "tensorboard" / found.points[0].name
    summary, curves = (EventAccumulator(str(folder)).Reload() for folder in (run, run / "training"))
    assert "my_loss_epoch" in curves.Tags()["scalars"]
    # One set of hyperparameters for each point, or TensorBoard's table would list the module's own instead.
    plugins = {each.plugin_data.plugin_name for each in curves.summary_metadata.values()}
    assert "hparams" not in plugins
    assert "hparams" in {each.plugin_data.plugin_name for each in summary.summary_metadata.values()}
    [btc] = summary.Tensors("test/btc") if "test/btc" in summary.Tags()["tensors"] else summary.Scalars("test/btc")
    value = btc.value if hasattr(btc, "value") else btc.tensor_proto.float_val[0]
    assert value == pytest.approx(found.rows("test")[0]["btc"], abs=1e-6)  # written in float32


class Normalised(Digits):
    """BatchNorm, whose statistics an evaluation in train mode would change."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(784, 10), nn.BatchNorm1d(10))


def test_the_callers_metric_sees_models_in_eval_mode_and_changes_nothing(tmp_path, h1, data):
    modes = []

    def metric(model, loader, device):
        modes.append((model.training, torch.is_grad_enabled()))
        return sum(float((model(x + 9).argmax(1) == y).float().sum()) for x, y in loader) / 1000

    with_metric, without = (
        sweep_of(Normalised, tmp_path / str(given), h1, data, lambdas=[0], performance_metric=given)
        for given in (metric, None)
    )
    assert set(modes) == {(False, False)}
    first, second = (torch.load(found.model_path("new_error", 0)) for found in (with_metric, without))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_call_that_goes_on_in_the_same_process_draws_the_same_batches(tmp_path, h1, data):
    def loader():
        return DataLoader(data["train"], 100, shuffle=True, generator=torch.Generator().manual_seed(3))

    def run_with(train, folder, lambdas):
        return sweep(
            Digits, h1, train, folder=folder, lambdas=lambdas, losses=["new_error"], trainer=GRID["trainer"],
            progress_bar=False, tensorboard=False,
        )  # fmt: skip

    mine = loader()
    run_with(mine, tmp_path / "parts", [0])
    parts, whole = run_with(mine, tmp_path / "parts", [0, 4]), run_with(loader(), tmp_path / "whole", [0, 4])
    first, second = (torch.load(found.model_path("new_error", 4)) for found in (parts, whole))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_function_may_draw_another_split_for_each_seed(tmp_path, h1, data):
    def train():
        part, _ = torch.utils.data.random_split(data["train"], [500, 1500])
        return DataLoader(part, batch_size=100)

    for _ in range(2):  # the second call opens what the first one left
        found = sweep(
            Digits, h1, train, folder=tmp_path / "s", lambdas=[0, 4], losses=["new_error"], trainer=GRID["trainer"],
            progress_bar=False, tensorboard=False,
        )  # fmt: skip
    assert [row["instances"] for row in found.rows("train")] == [500, 500]


def test_a_checkpoint_callback_of_the_caller_works(tmp_path, h1, data):
    trainer = {**GRID["trainer"], "callbacks": [pl.callbacks.ModelCheckpoint(dirpath=tmp_path / "checkpoints")]}
    found = sweep_of(Digits, tmp_path / "s", h1, data, lambdas=[0], trainer=trainer)
    assert not found.failures
    assert list((tmp_path / "checkpoints").glob("*.ckpt"))


def test_triples_for_a_plain_module_need_their_places(tmp_path, h1, data):
    x, y = data["train"].tensors
    loader = DataLoader(TensorDataset(torch.arange(len(y)), x, y), batch_size=100)
    with pytest.raises(ValueError, match="looks like ids.*ids=0, inputs=1, target=2"):
        sweep(
            lambda: nn.Linear(784, 10), h1, loader, folder=tmp_path / "s",
            optimizer=torch.optim.Adam, trainer={"max_epochs": 1},
        )  # fmt: skip


def test_a_list_of_batches_is_trained_on_as_a_loader_that_gives_them(tmp_path):
    h1 = nn.Linear(4, 3)
    listed = few(batches(0), h1, tmp_path / "list", test=batches(1))
    data = {seed: TensorDataset(*map(torch.cat, zip(*batches(seed), strict=True))) for seed in (0, 1)}
    loaded = few(DataLoader(data[0], batch_size=10), h1, tmp_path / "s", test=DataLoader(data[1], batch_size=10))
    assert rows_of(listed) == rows_of(loaded)
    with pytest.raises(ValueError, match="train data was 4 batches"):
        few(batches(2), h1, tmp_path / "list", test=batches(1))


@pytest.mark.parametrize(
    ("train", "match"),
    [
        (lambda: iter(batches(0)), "can be read once only"),
        (lambda: [DataLoader(batches(0)), DataLoader(batches(1))], "must be one DataLoader"),
    ],
)
def test_data_that_cannot_be_read_again_are_refused(tmp_path, train, match):
    with pytest.raises(TypeError, match=match):
        few(train(), nn.Linear(4, 3), tmp_path / "s")


def test_stored_answers_of_h1_have_no_performance_of_their_own(tmp_path):
    data = TensorDataset(*map(torch.cat, zip(*batches(0), strict=True)))
    stored = StoredOutputs.from_table(torch.arange(40) % 3)
    train = DataLoader(stored.attach(data), batch_size=10)
    found = few(train, stored, tmp_path / "s", performance_metric=lambda model, dataset, device: 0.25)
    for row in found.rows("train"):
        assert math.isnan(row["performance_h1"])
        assert row["performance_h2"] == 0.25


def test_a_trainer_that_does_not_say_how_long_is_refused(tmp_path):
    with pytest.raises(ValueError, match="1000 epochs"):
        sweep(lambda: nn.Linear(4, 3), nn.Linear(4, 3), batches(0), folder=tmp_path, trainer={"accelerator": "cpu"})


def test_a_disk_that_is_full_from_the_beginning_is_told(tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_folder, "write_whole", full)
    with pytest.raises(FullDiskError, match="No space is left for the plan of the sweep"):
        few(batches(0), nn.Linear(4, 3), tmp_path / "s")


def test_a_label_that_the_loss_ignores_is_left_out_of_the_table(tmp_path):
    marked = [(x, torch.where(torch.arange(10) < 2, -1, y)) for x, y in batches(0)]
    found = few(marked, nn.Linear(4, 3), tmp_path / "s", loss_options={"ignore_index": -1})
    assert [row["instances"] for row in found.rows("train")] == [32, 32]
    with pytest.raises(SweepFailedError, match="label -1"):
        few(marked, nn.Linear(4, 3), tmp_path / "t")
