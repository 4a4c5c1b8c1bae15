"""Promises in Lightning alone: callbacks, looks that a checkpoint was written before, what is refused."""

from __future__ import annotations

import copy
import logging

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bc_core.promise._keeper import Keeper
from bc_core.promise._multiplier import Multiplier
from bc_lightning import BCLightningModule, CompatibilityCallback, evaluate, unwrap
from bc_lightning.training._wrapped import compatibilities_of

# Whether small nets on little data keep theirs is not what is asked here.
pytestmark = pytest.mark.filterwarnings("ignore:Promise .* missed")

PROMISE = {"promise": "nfr <= 20%", "promise_options": {"confidence": 0.9}}


def rows(number, seed):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(number, 4, generator=draw)
    return TensorDataset(x, (x[:, :3] + 0.5 * torch.randn(number, 3, generator=draw)).argmax(1))


TRAIN, HELD_OUT = rows(96, 0), rows(200, 1)


class Classifier(pl.LightningModule):
    """No forward: its steps call a network, with BatchNorm and Dropout."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 3))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def old():
    net = nn.Linear(4, 3)
    with torch.no_grad():
        net.weight.copy_(torch.eye(3, 4))
        net.bias.zero_()
    return net


def trainer_of(*callbacks, epochs=3, **more):
    return pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=any(isinstance(each, ModelCheckpoint) for each in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **more,
    )


def loaders(held_out=HELD_OUT):
    return DataLoader(TRAIN, 16), DataLoader(held_out, 50)


def lambda_of(module):
    return float(compatibilities_of(module)[0].loss.lambda_c)


def test_the_callback_does_what_the_wrapped_module_does():
    def fitted(wrap, *callbacks):
        module = wrap(Classifier())
        torch.manual_seed(1)
        trainer = trainer_of(*callbacks)
        trainer.fit(module, *loaders())
        return module, trainer.callback_metrics

    options = {"h1": old(), "loss": "imitation", **PROMISE}
    module, logs = fitted(lambda net: BCLightningModule(net, **options))
    callback = CompatibilityCallback(**options)
    assert callback.promise is None
    plain, others = fitted(lambda net: net, callback)
    assert type(plain) is Classifier
    assert str(callback.promise) == str(module.promise)
    assert logs["lambda_c"] == others["lambda_c"] != 2
    for name, value in module.state_dict().items():
        assert torch.equal(plain.state_dict()[name], value), name
    # The verdict is of the weights that are there, BatchNorm's statistics among them.
    assert evaluate(old(), plain, HELD_OUT, scores="net").comparison.overlap.nfr == callback.promise.value
    assert not hasattr(plain, "promise")


@pytest.mark.parametrize("own", [False, True])
def test_a_module_without_forward_is_looked_at_as_it_is_validated(own):
    module = BCLightningModule(
        Classifier(), h1=old(), loss="imitation", **PROMISE, promise_data=DataLoader(HELD_OUT, 50) if own else None
    )
    trainer = trainer_of()
    torch.manual_seed(1)
    trainer.fit(module, *loaders())
    assert trainer.callback_metrics["promise_nfr"] == trainer.callback_metrics["val_nfr"]
    assert module.training


def test_h1_is_asked_once_about_held_out_data_of_their_own():
    asked, answer = [], old()

    def h1(x):
        asked.append(len(x))
        return answer(x)

    module = BCLightningModule(nn.Linear(4, 3), h1=h1, optimizer=torch.optim.Adam, **PROMISE, promise_data=HELD_OUT)
    trainer_of(epochs=4).fit(module, loaders()[0])
    assert asked == [200] + 4 * 6 * [16]
    # Of items that come in another order each time, it is asked again.
    asked.clear()
    shuffled = DataLoader(HELD_OUT, 200, shuffle=True)
    again = BCLightningModule(nn.Linear(4, 3), h1=h1, optimizer=torch.optim.Adam, **PROMISE, promise_data=shuffled)
    trainer_of(epochs=4).fit(again, loaders()[0])
    # Before the first epoch, and at each look, of which the fourth is of the mean of h2's weights too.
    assert asked.count(200) == 1 + 4 + 1
    assert again.promise.overlap.accuracy_h1 == module.promise.overlap.accuracy_h1


@pytest.mark.filterwarnings("ignore:Promise .* cannot be told")
def test_looking_draws_no_random_numbers(monkeypatch):
    def weights(**options):
        module = BCLightningModule(nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 3)), h1=old(), optimizer=sgd, **options)
        with torch.no_grad():
            module.model[1].weight.zero_()
            module.model[1].bias.zero_()
        torch.manual_seed(3)
        trainer_of().fit(module, DataLoader(TRAIN, 16, shuffle=True))
        return module.state_dict()

    def sgd(parameters):
        return torch.optim.SGD(parameters, lr=0.1)

    monkeypatch.setattr(Multiplier, "update", lambda self, now, shown=None: None)  # lambda_c stays where it is
    for look in ("look", "look_at_mean"):
        monkeypatch.setattr(Keeper, look, lambda self, *counts: False)  # so do the weights
    looked = weights(promise="nfr <= 2%", promise_options={"start": 2.0}, promise_data=DataLoader(HELD_OUT, 50))
    for name, value in weights(lambda_c=2.0).items():
        assert torch.equal(looked[name], value), name


def test_a_look_that_a_checkpoint_was_written_before_is_made_up_for(tmp_path):
    # One batch again and again, as Lightning begins an epoch anew that it takes up in its midst.
    train = DataLoader(TensorDataset(*(part[:16].repeat(8, *[1] * (part.ndim - 1)) for part in TRAIN.tensors)), 16)

    def fitted(ckpt_path=None):
        torch.manual_seed(0)
        module = BCLightningModule(
            nn.Linear(4, 3),
            h1=old(),
            loss="imitation",
            optimizer=lambda weights: torch.optim.SGD(weights, lr=0.05),
            promise=PROMISE["promise"],
            promise_data=HELD_OUT,
            promise_options={"every": 2, "confidence": 0.9},
        )
        # Callbacks write after four steps, before the look that is due then.
        keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=4, save_top_k=-1)
        trainer = trainer_of(keep, epochs=None, max_steps=8)
        trainer.fit(module, train, ckpt_path=ckpt_path)
        return module

    whole = fitted()
    saved = torch.load(tmp_path / "step=4.ckpt", weights_only=True)["backward_compatibility"]["promise"]
    assert saved["steps"] == 2
    rest = fitted(tmp_path / "step=4.ckpt")
    assert lambda_of(rest) == lambda_of(whole) != saved["lambda_c"]
    assert str(rest.promise) == str(whole.promise)


@pytest.mark.parametrize("own", [False, True])
def test_a_checkpoint_of_a_training_that_has_ended_is_gone_on_with(own, tmp_path):
    def made():
        return BCLightningModule(Classifier(), h1=old(), **PROMISE, promise_data=HELD_OUT if own else None)

    module, trainer = made(), trainer_of(epochs=3)
    trainer.fit(module, *loaders())
    trainer.save_checkpoint(tmp_path / "ended.ckpt")
    for epochs in (3, 5):
        again = made()
        trainer_of(epochs=epochs).fit(again, *loaders(), ckpt_path=tmp_path / "ended.ckpt")
        verdict = again.promise
        assert (verdict.value, verdict.overlap.accuracy_h2) == pytest.approx(counted(again))


def test_a_checkpoint_of_another_promise_is_not_gone_on_with(tmp_path):
    trainer = trainer_of(ModelCheckpoint(tmp_path, filename="one"), epochs=1)
    trainer.fit(BCLightningModule(Classifier(), h1=old(), **PROMISE), *loaders())
    other = BCLightningModule(Classifier(), h1=old(), promise="nfr <= 30%")
    with pytest.raises(ValueError, match=r"held to the promise 'nfr <= 20%', and here it is 'nfr <= 30%'"):
        trainer_of(epochs=2).fit(other, *loaders(), ckpt_path=tmp_path / "one.ckpt")


def test_fit_goes_on_with_the_same_trainer_and_begins_anew_with_another():
    module = BCLightningModule(Classifier(), h1=old(), loss="imitation", **PROMISE)
    trainer = trainer_of(epochs=2)
    trainer.fit(module, *loaders())
    first = lambda_of(module)
    keeper = compatibilities_of(module)[0].promised.keeper
    trainer.fit_loop.max_epochs = 4
    trainer.fit(module, *loaders())
    assert compatibilities_of(module)[0].promised.keeper is keeper
    trainer_of(epochs=1).fit(module, *loaders())
    assert compatibilities_of(module)[0].promised.keeper is not keeper
    assert first != 2


def test_nothing_of_a_promise_is_in_the_model():
    h2 = nn.Linear(4, 3)
    module = BCLightningModule(h2, h1=old(), optimizer=torch.optim.Adam, **PROMISE)
    trainer_of(epochs=1).fit(module, *loaders())
    assert set(module.state_dict()) == {"weight", "bias"}
    assert copy.deepcopy(module).promise.overlap == module.promise.overlap
    assert unwrap(module) is h2
    assert not hasattr(h2, "promise")


def test_it_is_said_in_one_line(caplog):
    module = BCLightningModule(Classifier(), h1=old(), loss="imitation", promise="nfr <= 90%")
    with caplog.at_level(logging.INFO):
        trainer_of().fit(module, *loaders())
    said = [record.getMessage() for record in caplog.records if "romise" in record.getMessage()]
    assert len(said) == 1
    assert said[0].startswith(str(module.promise))
    assert "\n" not in said[0]


def test_a_dry_run_looks_at_nothing():
    module = BCLightningModule(Classifier(), h1=old(), promise="nfr <= 0.1%")
    trainer_of(fast_dev_run=True).fit(module, *loaders())
    assert module.promise is None


class Named(Classifier):
    """Has a use of its own for the name."""

    promise = "to be kind"


def test_an_attribute_of_the_users_own_stays_what_it_is():
    assert BCLightningModule(Named(), h1=old()).promise == "to be kind"
    net = Classifier()
    net.promise = nn.Linear(1, 1)
    assert isinstance(BCLightningModule(net, h1=old()).promise, nn.Linear)
    with pytest.raises(TypeError, match="attribute 'promise' already"):
        BCLightningModule(Named(), h1=old(), **PROMISE)
    twice = BCLightningModule(Classifier(), h1=old(), **PROMISE)
    with pytest.raises(TypeError, match="another h1's promise"):
        BCLightningModule(twice, h1=old(), log_prefix="second_", **PROMISE)


class Augmenting(Classifier):
    """Changes batches."""

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return [batch[0] + torch.randn_like(batch[0]), batch[1]]


def test_data_that_a_hook_may_change_are_not_read_past_it():
    module = BCLightningModule(Augmenting(), h1=old(), **PROMISE, promise_data=HELD_OUT)
    with pytest.raises(TypeError, match=r"Augmenting.on_after_batch_transfer changes batches.*validation data"):
        trainer_of().fit(module, loaders()[0])
    # The remedy.
    trainer_of(epochs=1).fit(BCLightningModule(Augmenting(), h1=old(), loss="imitation", **PROMISE), *loaders())


def test_several_validation_loaders_need_a_word():
    class Two(Classifier):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            super().validation_step(batch, batch_idx)

    module, trainer = BCLightningModule(Two(), h1=old(), **PROMISE), trainer_of()
    with pytest.raises(ValueError, match=r"2 validation loaders.*promise_data=loader"):
        trainer.fit(module, loaders()[0], [loaders()[1]] * 2)
    assert trainer.global_step == 0  # before an epoch is spent


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"promise_data": 0.1}, TypeError, "random_split"),
        ({"promise_options": {"every": 3}}, ValueError, "val_check_interval"),
        ({"promise_data": 3}, TypeError, "random_split"),
        ({"promise_options": {"confidence": "0.9"}}, ValueError, "confidence must be at least 0.5"),
        ({"promise_data": object()}, TypeError, "data loader, a list of batches or a Dataset"),
    ],
)
@pytest.mark.parametrize("door", [BCLightningModule, CompatibilityCallback])
def test_what_is_refused_at_the_door(options, error, message, door):
    model = (Classifier(),) if door is BCLightningModule else ()
    with pytest.raises(error, match=message):
        door(*model, h1=old(), promise="nfr <= 20%", **options)


def test_a_name_of_ours_is_not_logged_by_others():
    class Logs(Classifier):
        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)
            self.log("promise_nfr", 0.0)

    with pytest.raises(ValueError, match="logs 'promise_nfr' itself"):
        trainer_of().fit(BCLightningModule(Logs(), h1=old(), **PROMISE), *loaders())


def counted(h2, net=None):
    """nfr and accuracy of h2 on the held-out data, by hand."""
    x, y = HELD_OUT.tensors
    with torch.no_grad():
        right_1, right_2 = old()(x).argmax(1) == y, unwrap(h2).eval().net(x).argmax(1) == y
    return (right_1 & ~right_2).float().mean().item(), right_2.float().mean().item()


def swap(module, kept):
    for name, value in module.state_dict().items():
        before = value.clone()
        value.copy_(kept[name])
        kept[name].copy_(before)


class Average(pl.Callback):
    """In the way of Lightning's WeightAveraging: in the place of the weights in validation and at the end."""

    def __init__(self, worse):
        self.kept, self.number, self.worse = {}, 0, worse

    def on_train_epoch_start(self, trainer, module):
        if self.worse and trainer.current_epoch == 3:
            # So that the best weights are not the last.
            trainer.optimizers[0].param_groups[0]["lr"] = -0.5

    def on_train_batch_end(self, trainer, module, *args):
        self.number += 1
        for name, value in module.state_dict().items():
            mean = self.kept.setdefault(name, torch.zeros_like(value))
            mean += ((value - mean) / self.number).to(mean.dtype)

    def on_validation_epoch_start(self, trainer, module):
        if self.kept:
            swap(module, self.kept)

    on_validation_epoch_end = on_validation_epoch_start

    def on_train_end(self, trainer, module):
        module.load_state_dict(self.kept)


@pytest.mark.parametrize("keep", ["best", "last"])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("promise", ["nfr <= 20%", "nfr <= 8%"])
def test_the_verdict_is_of_the_weights_that_are_left_where_a_callback_averages_them(keep, own, promise):
    options = {"keep": keep, "confidence": 0.9}
    more = {"promise_data": HELD_OUT} if own else {}
    module = BCLightningModule(Classifier(), h1=old(), promise=promise, promise_options=options, **more)
    trainer_of(Average(worse=not own), epochs=5).fit(module, *loaders())
    assert (module.promise.value, module.promise.overlap.accuracy_h2) == pytest.approx(counted(module))


@pytest.mark.filterwarnings("ignore:Since the last validation")
def test_weights_that_were_not_looked_at_are_not_said_to_be(caplog):
    class AtTheEnd(pl.Callback):
        def on_train_end(self, trainer, module):
            torch.nn.init.zeros_(module.net[-1].weight)

    caplog.set_level(logging.INFO)
    for keep, said in (("last", "were not looked at"), ("best", "The weights are those after 18 steps")):
        module = BCLightningModule(Classifier(), h1=old(), promise="nfr <= 90%", promise_options={"keep": keep})
        trainer_of(AtTheEnd()).fit(module, *loaders())
        assert said in caplog.text
        assert bool((module.net[-1].weight == 0).all()) == (keep == "last")
        assert (module.promise is None) == (keep == "last")
        caplog.clear()
    module = BCLightningModule(Classifier(), h1=old(), promise="nfr <= 90%", promise_options={"keep": "last"})
    trainer_of(max_steps=8).fit(module, *loaders())
    assert "after 6 steps, and the weights have changed since" in caplog.text
    assert module.promise is None


def test_a_promise_that_is_missed_names_the_way_back_where_there_is_one(recwarn):
    for h1, there_is in ((nn.Linear(4, 3), True), (nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)), False)):
        recwarn.clear()
        torch.manual_seed(5)
        h2 = nn.Linear(4, 3)
        model = BCLightningModule(
            h2, h1=h1, promise="nfr <= 1.2%", optimizer=lambda p: torch.optim.SGD(p, lr=0.0),
            promise_options={"confidence": 0.9},
        )  # fmt: skip
        with torch.no_grad():
            for part in h1.modules():
                if isinstance(part, nn.Linear):
                    part.weight.copy_(torch.eye(*part.weight.shape))
        trainer_of(epochs=1).fit(model, *loaders())
        said = [str(each.message) for each in recwarn if "missed" in str(each.message)]
        assert len(said) == 1
        assert ("interpolate(h1, h2, held_out, promise=...)" in said[0]) == there_is


def plain():
    return nn.Linear(4, 3)


class Doubled(Classifier):
    """A hook that changes batches."""

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return [2 * batch[0], batch[1]]


@pytest.mark.parametrize("kind", [Classifier, Doubled, plain])
def test_the_mean_is_looked_at_where_validation_data_can_be_read_again(kind, caplog, monkeypatch):
    looks, look, last = [], Keeper.look, Keeper.look_at_mean

    def noted(keeper, overlap, steps, of_mean=None):
        looks.append(of_mean)
        return look(keeper, overlap, steps, of_mean)

    def noted_last(keeper, of_mean):
        looks.append(of_mean)
        return last(keeper, of_mean)

    monkeypatch.setattr(Keeper, "look", noted)
    monkeypatch.setattr(Keeper, "look_at_mean", noted_last)
    caplog.set_level(logging.INFO)
    adam = {"optimizer": torch.optim.Adam} if kind is plain else {}
    module = BCLightningModule(kind(), h1=old(), promise="nfr <= 90%", **adam)
    expected = [False] * 3 + [True, False, False] + [True] * (kind is not Doubled)
    trainer_of(limit_val_batches=3, epochs=6).fit(module, *loaders())
    # At the fourth look, and when the training ends.
    assert [each is not None for each in looks] == [each and kind is not Doubled for each in expected]
    assert {each.total for each in looks if each is not None} <= {150}
    assert ("mean of h2's weights is not looked at" in caplog.text) == (kind is Doubled)


def test_a_checkpoint_of_before_there_were_means_is_gone_on_with(tmp_path):
    keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    trainer_of(keep, epochs=2).fit(BCLightningModule(Classifier(), h1=old(), **PROMISE), *loaders())
    path = tmp_path / "epoch=1.ckpt"
    saved = torch.load(path, weights_only=False)
    (found,) = (entry for entry in walk(saved) if "best_steps" in entry)
    for name in ("mean", "in_mean", "best_is_mean"):
        del found[name]
    found["weights"] = saved["state_dict"]
    torch.save(saved, path)
    module = BCLightningModule(Classifier(), h1=old(), **PROMISE)
    trainer_of(epochs=3).fit(module, *loaders(), ckpt_path=path)
    assert module.promise is not None


def walk(value):
    if isinstance(value, dict):
        yield value
        for each in value.values():
            yield from walk(each)
