"""What a promise's verdict is of where a training is broken off, or was over before it was resumed."""

from __future__ import annotations

import copy

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.utils.data import DataLoader, TensorDataset

from bc_lightning import BCLightningModule, CompatibilityCallback, MeanWeights, ProjectionCallback
from bc_lightning.training.promise import _promise

pytestmark = pytest.mark.filterwarnings("ignore:Promise .* missed")

QUIET = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)


def rows(number, seed):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(number, 4, generator=draw)
    return TensorDataset(x, (x[:, :3] + 0.5 * torch.randn(number, 3, generator=draw)).argmax(1))


TRAIN, HELD_OUT = rows(96, 0), rows(200, 1)


def old():
    net = nn.Linear(4, 3, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.eye(3, 4))
    return net


class Worse(pl.LightningModule):
    """Begins at h1, and breaks the more the longer it trains."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        self.compatibility_target = batch[1]
        return F.cross_entropy(self(batch[0]), (batch[1] + (batch_idx % 3 == 0)) % 3)

    def validation_step(self, batch, batch_idx):
        self(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=2.0)


def nfr(net):
    x, y = HELD_OUT.tensors
    with torch.no_grad():
        right, still = old()(x).argmax(1) == y, net(x).argmax(1) == y
    return float((right & ~still).float().mean())


class Break(pl.Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (3, 2):
            raise RuntimeError("broken off")


def trainer_of(*callbacks, epochs=4, **options):
    saving = any(isinstance(each, ModelCheckpoint) for each in callbacks)
    return pl.Trainer(
        max_epochs=epochs, accelerator="cpu", callbacks=list(callbacks), enable_checkpointing=saving, **QUIET, **options
    )


def promised(net, by, own, *callbacks, **fit):
    """A module that was trained, what says its verdict, and the error that ended it."""
    options = {
        "h1": old(),
        "promise": "nfr <= 30%",
        "promise_data": DataLoader(HELD_OUT, 50) if own else None,
    }
    module, error = Worse(net), None
    says = CompatibilityCallback(**options) if by == "callback" else BCLightningModule(module, **options)
    callbacks = (says, *callbacks) if by == "callback" else callbacks
    try:
        trainer_of(*callbacks).fit(module, DataLoader(TRAIN, 16), DataLoader(HELD_OUT, 50), **fit)
    except RuntimeError as broken:
        error = str(broken)
    return module, says, error


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("by", ["module", "callback"])
def test_of_a_training_that_was_broken_off_no_verdict_is_given(by, own):
    module, says, error = promised(old(), by, own, Break())
    assert error == "broken off"
    assert says.promise is None
    trainer_of().validate(module, DataLoader(HELD_OUT, 50), verbose=False)
    assert says.promise is None


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("by", ["module", "callback"])
def test_resumed_where_it_had_ended_it_has_the_weights_of_its_verdict(by, own, tmp_path):
    saving = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    whole, said, _ = promised(old(), by, own, saving)
    last = torch.load(tmp_path / "epoch=3.ckpt", weights_only=False)["state_dict"]["net.weight"]
    assert not torch.equal(last, whole.net.weight)
    again = {"ckpt_path": tmp_path / "epoch=3.ckpt", "weights_only": False}
    resumed, says, _ = promised(old(), by, own, **again)
    torch.testing.assert_close(resumed.net.weight, whole.net.weight, rtol=0, atol=0)
    assert str(says.promise) == str(said.promise)
    assert says.promise.value == pytest.approx(nfr(resumed.net))


@pytest.mark.parametrize("by", ["module", "callback"])
def test_a_training_that_will_not_be_validated_is_told_so_before_an_epoch_is_spent(by):
    given, data = {"h1": old(), "promise": "nfr <= 30%"}, (DataLoader(TRAIN, 16), DataLoader(HELD_OUT, 50))
    module = Worse(old())
    says = CompatibilityCallback(**given) if by == "callback" else BCLightningModule(module, **given)
    callbacks = [says] if by == "callback" else []
    with pytest.raises(ValueError, match="the Trainer comes to none: check_val_every_n_epoch=5, max_epochs=4"):
        trainer_of(*callbacks, check_val_every_n_epoch=5).fit(module, *data)
    torch.testing.assert_close(module.net.weight, old().weight, rtol=0, atol=0)
    # The remedies.
    trainer_of(*callbacks, check_val_every_n_epoch=4).fit(module, *data)
    assert says.promise.value == pytest.approx(nfr(module.net))
    trained = BCLightningModule(Worse(old()), **given, promise_data=data[1])
    trainer_of(check_val_every_n_epoch=5).fit(trained, *data)
    assert trained.promise.value == pytest.approx(nfr(trained.net))


def test_a_training_that_ends_before_it_was_validated_says_so():
    module = BCLightningModule(Worse(old()), h1=old(), promise="nfr <= 30%")
    late = {"check_val_every_n_epoch": None, "val_check_interval": 100}
    with pytest.warns(UserWarning, match=r"cannot be told. No held-out data were looked at.* by promise_data=loader"):
        trainer_of(**late).fit(module, DataLoader(TRAIN, 16), DataLoader(HELD_OUT, 50))
    assert module.promise is None


def test_a_mean_of_weights_is_there_where_its_training_had_ended(tmp_path):
    saving = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    whole, resumed = Worse(old()), Worse(old())
    trainer_of(MeanWeights(), saving).fit(whole, DataLoader(TRAIN, 16))
    trainer_of(MeanWeights()).fit(
        resumed, DataLoader(TRAIN, 16), ckpt_path=tmp_path / "epoch=3.ckpt", weights_only=False
    )
    torch.testing.assert_close(resumed.net.weight, whole.net.weight, rtol=0, atol=0)


def test_a_projections_verdict_is_of_the_mean_that_a_training_ends_with():
    module, h1 = Worse(copy.deepcopy(old())), old()
    projection = ProjectionCallback(h1, HELD_OUT, "nfr <= 5%")
    with pytest.raises(ValueError, match=r"callbacks=\[MeanWeights\(...\), ProjectionCallback"):
        trainer_of(projection, MeanWeights()).fit(module, DataLoader(TRAIN, 16))
    trainer_of(MeanWeights(), projection).fit(module, DataLoader(TRAIN, 16))
    assert projection.verdict.value == pytest.approx(nfr(module.net))
    assert projection.verdict.verdict == "met"


def test_of_masks_and_unit_vectors_no_mean_is_taken(monkeypatch):
    means, counted = [], _promise._counted_with
    monkeypatch.setattr(
        _promise, "_counted_with", lambda mean, *others: (means.append(mean), counted(mean, *others))[1]
    )

    class PrunesLate(pl.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            # Another mask than that of the epochs before.
            mask = torch.zeros(8, 4)
            mask[trainer.current_epoch :] = 1
            pl_module.net[0].weight_mask.copy_(mask)

    net = nn.Sequential(prune.identity(nn.Linear(4, 8), "weight"), parametrizations.spectral_norm(nn.Linear(8, 3)))
    promised(net, "module", True, PrunesLate())
    (mean,) = means
    assert set(mean["net.0.weight_mask"].unique().tolist()) == {0, 1}
    for which in ("_u", "_v"):
        vector = mean[f"net.1.parametrizations.weight.0.{which}"]
        torch.testing.assert_close(vector.norm(), torch.tensor(1.0))
