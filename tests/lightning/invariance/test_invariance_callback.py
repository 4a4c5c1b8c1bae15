"""`InvarianceCallback`: numbers of every epoch, against those of `compare_invariance` asked by hand."""

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bc_core.invariance import TransformSet
from bc_lightning import BCLightningModule
from bc_lightning.invariance import InvarianceCallback, compare_invariance

TURNS = TransformSet.c4()


class Classifier(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.05)


class AtEachEnd(pl.Callback):
    """Keeps the weights of every epoch."""

    def __init__(self):
        self.weights = []

    def on_train_epoch_end(self, trainer, module):
        self.weights.append({key: value.clone() for key, value in module.state_dict().items()})


@pytest.fixture
def images():
    return torch.randn(30, 1, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def h1():
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 3))


def fit(module, images, *callbacks, epochs=3, logger=False, **options):
    labels = torch.arange(len(images)) % 3
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, logger=logger, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        callbacks=list(callbacks), log_every_n_steps=1, **options,
    )  # fmt: skip
    trainer.fit(module, DataLoader(TensorDataset(images, labels), batch_size=10))
    return trainer


def numbers(update):
    return update.consistency_h1, update.consistency_h2, update.negative_flip_rate


def test_a_wrapped_module_is_compared_as_its_weights_are_after_each_epoch(images, h1):
    watch, kept = InvarianceCallback(h1, images, TURNS), AtEachEnd()
    module = BCLightningModule(Classifier(), h1=h1, lambda_c=1.0)
    trainer = fit(module, images, watch, kept)
    assert [epoch for epoch, _ in watch.history] == [0, 1, 2]
    assert module.training
    for (_, update), weights in zip(watch.history, kept.weights, strict=True):
        again = Classifier()
        again.load_state_dict(weights)
        assert numbers(update) == numbers(compare_invariance(h1, again, images, TURNS, layers=[]))
    assert len({numbers(update) for _, update in watch.history}) > 1
    names = ("invariance_consistency_h1", "invariance_consistency_h2", "invariance_negative_flip_rate")
    logged = [float(trainer.callback_metrics[name]) for name in names]
    assert logged == pytest.approx(numbers(watch.update), abs=1e-7)


def test_what_is_logged_can_choose_the_checkpoint(tmp_path, images, h1):
    watch = InvarianceCallback(h1, images, TURNS)
    best = ModelCheckpoint(tmp_path, monitor="invariance_negative_flip_rate", save_on_train_epoch_end=True)
    fit(Classifier(), images, watch, best)
    least = min(update.negative_flip_rate for _, update in watch.history)
    assert float(best.best_model_score) == pytest.approx(least, abs=1e-7)


def test_every_second_epoch_with_layers_of_the_network_inside(images, h1):
    watch = InvarianceCallback(h1, images, TURNS, every=2, layers=None, network=lambda module: module.net)
    fit(Classifier(), images, watch, epochs=4)
    assert [epoch for epoch, _ in watch.history] == [1, 3]
    assert watch.update.h2.layer_names[0] == "0"
    assert all(update.h1 is None for _, update in watch.history)


def test_layers_are_paired_with_those_of_the_network_inside(images, h1):
    watch = InvarianceCallback(h1, images, TURNS, layers=None)
    by_hand = InvarianceCallback(h1, images, TURNS, layers=None, network=lambda module: module.net)
    torch.manual_seed(0)
    module = Classifier()
    fit(module, images, by_hand, watch, epochs=1)
    expected = {f"net.{row['layer']}": row for row in by_hand.update.depth_table()}
    assert expected["net.1"]["difference"] == pytest.approx(expected["net.1"]["h2"] - expected["net.1"]["h1"])
    assert [row["layer"] for row in watch.update.depth_table()] == list(expected)
    for row in watch.update.depth_table():
        for key in ("h1", "h2", "difference_interval"):
            assert row[key] == pytest.approx(expected[row["layer"]][key], nan_ok=True)


@pytest.mark.parametrize("kind", ["tensor", "data set", "loader"])
def test_training_goes_as_without_it(images, h1, kind):
    data = images if kind == "tensor" else TensorDataset(images)
    if kind == "loader":
        data = DataLoader(data, batch_size=8, shuffle=True)
    weights = []
    for callbacks in ([], [InvarianceCallback(h1, data, TURNS)]):
        torch.manual_seed(5)
        module = Classifier()
        fit(module, images, *callbacks)
        weights.append(module.net[1].weight.detach().clone())
    assert torch.equal(*weights)


def test_tensorboard_gets_each_comparison(tmp_path, images, h1):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path)
    fit(Classifier(), images, InvarianceCallback(h1, images, TURNS), logger=logger)
    logger.finalize("success")
    events = EventAccumulator(logger.log_dir, size_guidance={"tensors": 0})
    events.Reload()
    found = events.Tensors("backward_compatibility/invariance/invariance")
    assert [event.step for event in found] == [3, 6, 9]


class UnknownFileSystemError(Exception):
    """As the errors of TensorFlow's file systems, which are no OSError."""


@pytest.mark.parametrize("error", [OSError("the disk is full"), RuntimeError("closed"), UnknownFileSystemError()])
def test_what_cannot_be_written_ends_no_training(tmp_path, monkeypatch, images, h1, error):
    from bc_tensorboard import summary

    def fails(*args, **kwargs):
        raise error

    monkeypatch.setattr(summary, "invariance", fails)
    watch = InvarianceCallback(h1, images, TURNS)
    with pytest.warns(UserWarning, match=f"was not written whole: {type(error).__name__}: {error}"):
        fit(Classifier(), images, watch, epochs=2, logger=TensorBoardLogger(tmp_path))
    assert [epoch for epoch, _ in watch.history] == [0, 1]
