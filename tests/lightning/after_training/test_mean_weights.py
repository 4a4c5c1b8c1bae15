"""`MeanWeights` where a training is taken up again, and with modules of other kinds than plain ones."""

from __future__ import annotations

import copy

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.utils.data import DataLoader, TensorDataset

from bc_lightning import MeanWeights

QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)


class Module(pl.LightningModule):
    def __init__(self, *parts):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(*(parts or (nn.Linear(4, 3),)))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.5)


def data(rows=24):
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(rows, 4, generator=generator), torch.arange(rows) % 3)


class Kept(pl.Callback):
    """The weights after each epoch."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.is_last_batch:
            self.seen.append({name: value.detach().clone() for name, value in pl_module.named_parameters()})


def fitted(module, epochs, *callbacks, ckpt_path=None, **options):
    kept = Kept()
    trainer = pl.Trainer(max_epochs=epochs, accelerator="cpu", callbacks=[*callbacks, kept], **{**QUIET, **options})
    again = {} if ckpt_path is None else {"ckpt_path": ckpt_path, "weights_only": False}
    trainer.fit(module, DataLoader(data(), 8), **again)
    return trainer, kept.seen


def is_mean_of(module, seen):
    assert seen
    for name, value in module.named_parameters():
        mean = torch.stack([each[name].double() for each in seen]).mean(0)
        torch.testing.assert_close(value.double(), mean, rtol=1e-6, atol=1e-7)


def test_a_checkpoint_from_after_a_training_begins_a_new_mean(tmp_path):
    trainer, _ = fitted(Module(), 4, MeanWeights())
    trainer.save_checkpoint(tmp_path / "after.ckpt")
    module = Module()
    _, seen = fitted(module, 8, MeanWeights(), ckpt_path=tmp_path / "after.ckpt")
    assert len(seen) == 4
    is_mean_of(module, seen)


def test_resumed_for_more_epochs_it_is_the_mean_of_an_uninterrupted_training(tmp_path):
    saving = pl.callbacks.ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    fitted(Module(), 4, MeanWeights(), saving, enable_checkpointing=True)
    whole, resumed = Module(), Module()
    _, seen = fitted(whole, 8, MeanWeights())
    is_mean_of(whole, seen[4:])
    fitted(resumed, 8, MeanWeights(), ckpt_path=tmp_path / "epoch=3.ckpt")
    torch.testing.assert_close(resumed.net[0].weight, whole.net[0].weight, rtol=0, atol=0)


def test_epochs_that_were_not_seen_are_told(tmp_path):
    trainer, _ = fitted(Module(), 3)
    trainer.save_checkpoint(tmp_path / "without.ckpt")
    module = Module()
    with pytest.warns(UserWarning, match="from epoch 2 on, and were seen from epoch 3 on.*the mean of 1 epochs"):
        _, seen = fitted(module, 4, MeanWeights(), ckpt_path=tmp_path / "without.ckpt")
    is_mean_of(module, seen)


def test_weights_that_are_in_no_checkpoint_are_averaged_too():
    class Left(Module):
        strict_loading = False

        def state_dict(self, *args, **kwargs):
            found = super().state_dict(*args, **kwargs)
            return {name: value for name, value in found.items() if "bias" not in name}

    module = Left()
    _, seen = fitted(module, 4, MeanWeights())
    is_mean_of(module, seen[2:])


class FromEpoch(pl.Callback):
    """Does something to a module's first layer when an epoch begins."""

    def __init__(self, epoch, does):
        self.epoch, self.does = epoch, does

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            self.does(pl_module.net[0])


def test_statistics_that_begin_to_move_late_are_asked_for_in_the_first_epoch_that_counts():
    late = FromEpoch(1, lambda layer: layer.train())
    module = Module(nn.BatchNorm1d(4).eval(), nn.Linear(4, 3))
    with pytest.raises(ValueError, match=r"keeps running statistics.*MeanWeights\(statistics=train_data\)"):
        fitted(module, 4, MeanWeights(), late)
    assert module.trainer.current_epoch == 2
    module = Module(nn.BatchNorm1d(4).eval(), nn.Linear(4, 3))
    fitted(module, 4, MeanWeights(statistics=DataLoader(data(), 24)), late)
    torch.testing.assert_close(module.net[0].running_mean, data().tensors[0].mean(0))


class Named(pl.LightningModule):
    """Trains on batches with names, and is called with two of their entries."""

    def __init__(self):
        super().__init__()
        self.norm, self.layer = nn.BatchNorm1d(4), nn.Linear(4, 3)

    def forward(self, x, scale):
        return self.layer(self.norm(x * scale))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(x=batch["x"], scale=batch["scale"]), batch["y"])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_statistics_that_cannot_be_read_are_refused_before_an_epoch_and_the_remedy_works():
    x, y = data().tensors
    rows = [{"x": x[i], "scale": torch.full((1,), 2.0), "y": y[i]} for i in range(len(x))]

    def fitted_with(*callbacks):
        module = Named()
        trainer = pl.Trainer(max_epochs=2, accelerator="cpu", callbacks=list(callbacks), **QUIET)
        torch.manual_seed(5)
        trainer.fit(module, DataLoader(rows, 8, shuffle=True))
        return module, torch.rand(2)

    statistics = DataLoader(rows, len(rows), shuffle=True)
    began = Kept()
    with pytest.raises(ValueError, match="cannot tell which part of the batch.*a function of the batch"):
        fitted_with(MeanWeights(statistics=statistics), began)
    assert not began.seen
    read = {"statistics": statistics, "inputs": lambda batch: {"x": batch["x"], "scale": batch["scale"]}}
    module, _ = fitted_with(MeanWeights(**read), began)
    torch.testing.assert_close(module.norm.running_mean, 2 * x.mean(0))
    # Reading ahead draws nothing from the training's generators: its epochs come as without it.
    plain = Kept()
    torch.manual_seed(0)
    fitted_with(plain)
    again = Kept()
    torch.manual_seed(0)
    fitted_with(MeanWeights(**read), again)
    torch.testing.assert_close(again.seen, plain.seen, rtol=0, atol=0)


def test_statistics_that_end_in_an_error_cost_the_mean_and_not_the_training():
    class Torn(torch.utils.data.Dataset):
        def __len__(self):
            return 24

        def __getitem__(self, index):
            if index >= 16:
                raise OSError("the disk is gone")
            return data()[index]

    class Moved(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.last = {name: value.clone() for name, value in pl_module.state_dict().items()}

    module, moved = Module(nn.BatchNorm1d(4), nn.Linear(4, 3)), Moved()
    with pytest.warns(UserWarning, match="mean of the weights was not taken.*keeps its last weights.*the disk is gone"):
        fitted(module, 4, MeanWeights(statistics=DataLoader(Torn(), 8)), moved)
    torch.testing.assert_close(dict(module.state_dict()), moved.last, rtol=0, atol=0)


def test_statistics_of_layers_that_the_network_does_not_call_stay():
    class Taught(Module):
        """With a teacher beside its network, which only the training calls."""

        def __init__(self):
            super().__init__(nn.BatchNorm1d(4), nn.Linear(4, 3))
            self.teacher = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3))

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, batch_idx):
            said = self.teacher(batch[0]).detach().softmax(1)
            return F.cross_entropy(self(batch[0]), batch[1]) + F.cross_entropy(self(batch[0]), said)

    class Moved(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            self.last = pl_module.teacher[0].running_mean.clone()

    module, moved = Taught(), Moved()
    fitted(module, 2, MeanWeights(statistics=DataLoader(data(), 24)), moved)
    assert moved.last.abs().max() > 0
    torch.testing.assert_close(module.teacher[0].running_mean, moved.last, rtol=0, atol=0)
    torch.testing.assert_close(module.net[0].running_mean, data().tensors[0].mean(0))


def test_a_trial_run_has_one_epoch_whatever_was_asked_for():
    module = Module()
    _, seen = fitted(module, 1, MeanWeights(5), fast_dev_run=True)
    is_mean_of(module, seen)


@pytest.mark.parametrize("parametrized", [weight_norm, spectral_norm, nn.utils.spectral_norm])
def test_what_a_weight_is_made_of_is_averaged_and_its_unit_vectors_stay_unit_vectors(parametrized):
    module = Module(parametrized(nn.Linear(4, 6)), nn.ReLU(), nn.Linear(6, 3))
    _, seen = fitted(module, 4, MeanWeights())
    is_mean_of(module, seen[2:])
    for name, value in module.named_buffers():
        torch.testing.assert_close(value.norm(), torch.tensor(1.0), msg=name)


def test_masks_of_pruned_weights_stay_masks():
    def pruned(layer):
        prune.l1_unstructured(layer, "weight", 4)

    module = Module()
    pruned(module.net[0])
    fitted(module, 4, MeanWeights(), FromEpoch(3, pruned))
    assert module.net[0].weight_mask.unique().tolist() == [0, 1]
    assert (module.net[0].weight_mask == 0).sum() == 8


def test_parameters_that_come_while_it_averages_are_refused_and_the_remedy_works():
    def late():
        return FromEpoch(3, lambda layer: prune.l1_unstructured(layer, "weight", 4))

    with pytest.raises(ValueError, match=r"others than in epoch 2.*MeanWeights\(first_epoch=...\)"):
        fitted(Module(), 5, MeanWeights(), late())
    module = Module()
    _, seen = fitted(module, 5, MeanWeights(first_epoch=3), late())
    is_mean_of(module, seen[3:])


@pytest.mark.parametrize("other", ["swa", "ema"])
def test_another_average_at_the_end_is_refused(other):
    averaging = getattr(pl.callbacks, "WeightAveraging", None)
    if other == "ema" and averaging is None:
        pytest.skip("this Lightning has no WeightAveraging")
    callback = pl.callbacks.StochasticWeightAveraging(0.1) if other == "swa" else averaging()
    module = Module()
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(ValueError, match=f"MeanWeights and {type(callback).__name__} each end"):
        fitted(module, 4, callback, MeanWeights())
    torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)
