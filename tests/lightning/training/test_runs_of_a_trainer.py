"""What belongs to a run of the Trainer is made when it begins and dropped when it ends, also by an error."""

from __future__ import annotations

import copy
import warnings

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.tuner import Tuner
from torch import nn
from user_code import CLASSES, FEATURES, UserModule, dataset, fit, loader, made, make_h1, make_trainer

from bc_core import Comparison
from bc_lightning import BCLightningModule, CompatibilityCallback, LogComparisons, unwrap
from bc_lightning.training._wrapped import compatibilities_of

VAL = dataset(50, seed=1)


def plain_scores(h1, h2):
    """BTC, NFR and accuracy of h1 on VAL, by hand."""
    x, y = VAL.tensors
    with torch.no_grad():
        one, two = (copy.deepcopy(model).eval()(x).argmax(1) == y for model in (h1, h2))
    return {
        "btc": ((one & two).sum() / one.sum()).item(),
        "nfr": (one & ~two).float().mean().item(),
        "accuracy_h1": one.float().mean().item(),
    }


def agrees(trainer, h1, h2, stage="val"):
    found = {name: trainer.callback_metrics[f"{stage}_{name}"].item() for name in ("btc", "nfr", "accuracy_h1")}
    assert found == pytest.approx(plain_scores(h1, h2), abs=1e-6)


def run(trainer, what, module):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning|torch")
        if what == "fit":
            trainer.fit_loop.max_epochs = trainer.current_epoch + 1
            trainer.fit(module, loader(), loader(VAL))
        else:
            getattr(trainer, what)(module, loader(VAL), verbose=False)


@pytest.mark.parametrize(
    "what",
    [
        ("validate", "validate"),
        ("test", "test"),
        ("fit", "fit"),
        ("validate", "fit", "test"),
        ("fit", "validate", "fit"),
        ("test", "validate", "fit", "fit"),
    ],
)
@pytest.mark.parametrize("how", ["callback", "wrapped", "wrapped anew"])
def test_a_trainer_is_used_again(how, what, h1, tmp_path):
    net = made(UserModule)
    trainer = make_trainer(tmp_path, callbacks=[CompatibilityCallback(h1)] if how == "callback" else [])
    module = net if how == "callback" else BCLightningModule(net, h1=h1)
    for each in what:
        run(trainer, each, module)
        agrees(trainer, h1, net, "test" if each == "test" else "val")
        if how == "wrapped anew":
            module = BCLightningModule(unwrap(module), h1=h1)
        elif how == "callback":
            assert type(net) is UserModule


def test_two_updates_on_one_trainer(h1, tmp_path):
    trainer = make_trainer(tmp_path)
    for seed in (3, 4):
        net = made(UserModule, seed=seed)
        run(trainer, "validate", BCLightningModule(net, h1=h1))
        agrees(trainer, h1, net)


class WithRate(UserModule):
    def __init__(self):
        super().__init__()
        self.lr, self.batch_size = 0.1, 10

    def train_dataloader(self):
        return loader(batch_size=self.batch_size)

    def val_dataloader(self):
        return loader(VAL)


@pytest.mark.parametrize("how", ["callback", "wrapped"])
@pytest.mark.parametrize("what", ["lr_find", "scale_batch_size"])
def test_fit_after_the_tuner(what, how, h1, tmp_path):
    net = made(WithRate)
    trainer = make_trainer(
        tmp_path, max_epochs=1, callbacks=[CompatibilityCallback(h1)] if how == "callback" else [], log_every_n_steps=1
    )
    module = net if how == "callback" else BCLightningModule(net, h1=h1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore")
        if what == "lr_find":
            Tuner(trainer).lr_find(module, num_training=6, update_attr=False)
        else:
            Tuner(trainer).scale_batch_size(module, steps_per_trial=1, max_trials=2, init_val=8)
        trainer.fit(module)
    agrees(trainer, h1, net)


@pytest.mark.parametrize("where", ["training_step", "validation_step", "on_train_epoch_end"])
def test_fit_after_a_failure(where, h1, tmp_path):
    class Fails(UserModule):
        failed = False

    def failing(self, *args):
        if not Fails.failed and not self.trainer.sanity_checking:
            Fails.failed = True
            raise KeyError("a mistake")
        return getattr(UserModule, where)(self, *args)

    setattr(Fails, where, failing)
    net = made(Fails)
    module = BCLightningModule(net, h1=h1)
    with pytest.raises(KeyError):
        fit(module, tmp_path)
    # Lightning leaves a module in eval mode where a validation failed.
    trainer = fit(module.train(), tmp_path, val=loader(VAL))
    agrees(trainer, h1, net)


def test_nothing_of_a_run_is_left_when_it_ends(h1, tmp_path):
    module = BCLightningModule(made(UserModule), h1=h1)
    fit(module, tmp_path)
    run_state = compatibilities_of(module)[0].run
    assert (run_state.epochs, run_state.position, run_state.incoming.rows) == ({}, None, None)
    assert compatibilities_of(module)[0].step is None


@pytest.mark.parametrize("parts", [(6,), (2, 6), (1, 3, 4, 6)])
@pytest.mark.parametrize("how", ["callback", "wrapped"])
def test_every_counts_on_after_resuming(how, parts, h1, tmp_path):
    last = None
    for epochs in parts:
        net, options = made(UserModule), {"comparisons": LogComparisons(directory=tmp_path / "c", every=3)}
        callbacks = [CompatibilityCallback(h1, **options)] if how == "callback" else []
        module = net if callbacks else BCLightningModule(net, h1=h1, **options)
        trainer = fit(
            module,
            tmp_path,
            train=loader(),
            max_epochs=epochs,
            ckpt_path=last,
            callbacks=callbacks,
            enable_checkpointing=True,
        )
        last = tmp_path / f"{epochs}.ckpt"
        trainer.save_checkpoint(last)
    # 96 items in batches of 20 are 5 steps an epoch.
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == [
        "val-step-00000015.json",
        "val-step-00000030.json",
    ]


def test_every_counts_on_where_fit_goes_on(h1, tmp_path):
    where = tmp_path / "c"
    trainer = make_trainer(
        tmp_path, callbacks=[CompatibilityCallback(h1, comparisons=LogComparisons(directory=where, every=2))]
    )
    net = made(UserModule)
    for _ in range(4):
        run(trainer, "fit", net)
    assert sorted(path.name for path in where.iterdir()) == ["val-step-00000010.json", "val-step-00000020.json"]


class TestRecords:
    """A record never replaces another without a word."""

    def checkpoints(self, h1, tmp_path):
        module = BCLightningModule(made(UserModule), h1=h1)
        keep = pl.callbacks.ModelCheckpoint(dirpath=tmp_path / "kept", save_top_k=-1, every_n_epochs=1)
        fit(module, tmp_path, max_epochs=3, callbacks=[keep], enable_checkpointing=True)
        return sorted((tmp_path / "kept").iterdir(), key=lambda path: path.stat().st_mtime_ns)

    @staticmethod
    def flips(h1, h2):
        return plain_scores(h1, h2)["nfr"] * len(VAL)

    def test_checkpoints_that_the_trainer_loads_are_named_by_their_step(self, h1, tmp_path):
        module = BCLightningModule(made(UserModule), h1=h1, comparisons=LogComparisons(directory=tmp_path / "c"))
        trainer, expected = make_trainer(tmp_path), {}
        for number, path in enumerate(self.checkpoints(h1, tmp_path), start=1):
            trainer.validate(module, loader(VAL), ckpt_path=path, verbose=False, weights_only=False)
            expected[f"val-step-{5 * number:08d}.json"] = self.flips(h1, loaded(path))
        found = {path.name: negative_flips(path) for path in (tmp_path / "c").iterdir()}
        assert found == pytest.approx(expected)

    def test_others_get_a_name_of_their_own_and_a_warning(self, h1, tmp_path):
        expected = []
        paths = self.checkpoints(h1, tmp_path)
        for number, path in enumerate(paths):
            net = loaded(path)
            expected.append(self.flips(h1, net))
            module = BCLightningModule(net, h1=h1, comparisons=LogComparisons(directory=tmp_path / "c"))
            said = pytest.warns(UserWarning, match="holds another comparison and is kept")
            with said if number else warnings.catch_warnings():
                make_trainer(tmp_path).validate(module, loader(VAL), verbose=False)
        names = ["val-step-00000000.json", "val-step-00000000-2.json", "val-step-00000000-3.json"]
        assert [negative_flips(tmp_path / "c" / name) for name in names] == pytest.approx(expected)

    def test_the_very_same_record_is_not_written_twice(self, h1, tmp_path):
        module = BCLightningModule(made(UserModule), h1=h1, comparisons=LogComparisons(directory=tmp_path / "c"))
        for _ in range(2):
            make_trainer(tmp_path).validate(module, loader(VAL), verbose=False)
        assert [path.name for path in (tmp_path / "c").iterdir()] == ["val-step-00000000.json"]

    def test_a_logger_keeps_them_all(self, h1, tmp_path):
        logger = pl.loggers.TensorBoardLogger(tmp_path)
        for seed in (3, 4, 4):
            module = BCLightningModule(made(UserModule, seed=seed), h1=h1)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                make_trainer(tmp_path, logger=logger).validate(module, loader(VAL), verbose=False)
        logger.finalize("success")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(logger.log_dir)
        events.Reload()
        tags = {tag for tag in events.Tags()["tensors"] if tag.endswith("/table")}
        assert tags == {"backward_compatibility/val/table", "backward_compatibility/val%20%282%29/table"}


def loaded(path):
    net = made(UserModule)
    net.load_state_dict(torch.load(path, weights_only=False)["state_dict"])
    return net.eval()


def negative_flips(path):
    return len(Comparison.load(path).negative_flips())


class TestTwoReferences:
    def test_each_is_trained_and_measured(self, h1, tmp_path):
        other, lambdas = make_h1(seed=11), (1.0, 3.0)
        net = made(UserModule)
        module = BCLightningModule(
            BCLightningModule(net, h1=h1, lambda_c=lambdas[0]), h1=other, lambda_c=lambdas[1], log_prefix="other_"
        )
        trainer = fit(module, tmp_path, train=loader(), val=loader(VAL), max_epochs=1)
        agrees(trainer, h1, net)
        assert trainer.callback_metrics["other_val_btc"].item() == pytest.approx(plain_scores(other, net)["btc"])

        class ByHand(UserModule):
            def training_step(self, batch, batch_idx):
                x, y = batch
                each = F.cross_entropy(self(x), y, reduction="none")
                with torch.no_grad():
                    right = [(old(x).argmax(1) == y).float() for old in (h1, other)]
                return (each * (1 + lambdas[0] * right[0] + lambdas[1] * right[1])).mean()

        by_hand = made(ByHand)
        fit(by_hand, tmp_path, train=loader(), val=loader(VAL), max_epochs=1)
        for name, value in by_hand.state_dict().items():
            # Sums in another order: float32 rounding of five steps.
            torch.testing.assert_close(net.state_dict()[name], value, rtol=1e-4, atol=1e-5)

    def test_two_callbacks(self, h1, tmp_path):
        other, net = make_h1(seed=11), made(UserModule)
        callbacks = [CompatibilityCallback(h1), CompatibilityCallback(other, log_prefix="other_")]
        trainer = fit(net, tmp_path, val=loader(VAL), callbacks=callbacks, enable_checkpointing=True)
        agrees(trainer, h1, net)
        assert trainer.callback_metrics["other_val_nfr"].item() == pytest.approx(plain_scores(other, net)["nfr"])
        assert type(net) is UserModule
        trainer.save_checkpoint(tmp_path / "c.ckpt")
        checkpoint = torch.load(tmp_path / "c.ckpt", weights_only=False)
        entries = [
            checkpoint[name]["h1_fingerprint"] for name in ("backward_compatibility", "backward_compatibility_other")
        ]
        assert len(set(entries)) == 2

    def test_names_that_would_meet_are_refused_with_the_remedy(self, h1):
        module = BCLightningModule(made(UserModule), h1=h1)
        with pytest.raises(TypeError, match="log_prefix='other_'"):
            BCLightningModule(module, h1=make_h1(seed=11))


class TestSaid:
    """What will not be trained as its owner may think is said once."""

    def test_an_h2_in_eval_mode(self, h1, tmp_path):
        with pytest.warns(UserWarning, match="UserModule is in eval mode") as said:
            fit(BCLightningModule(made(UserModule).eval(), h1=h1), tmp_path, max_epochs=2)
        assert sum("eval mode" in str(each.message) for each in said) == 1

    def test_a_part_in_eval_mode(self, h1, tmp_path):
        net = made(UserModule)
        net.net.layers[1].eval()
        with pytest.warns(UserWarning, match=r"Parts of UserModule are in eval mode.*'net\.layers\.1'"):
            fit(BCLightningModule(net, h1=h1), tmp_path, max_epochs=1)

    def test_frozen_parts(self, h1, tmp_path, monkeypatch):
        said = []
        # Most who freeze a part mean it, so it is no warning.
        monkeypatch.setattr("bc_lightning.training._epochs.rank_zero_info", said.append)
        net = made(UserModule)
        net.net.layers[0].requires_grad_(False).eval()
        fit(BCLightningModule(net, h1=h1), tmp_path, max_epochs=2)
        assert len(said) == 1
        assert "2 of the 6 parameters of UserModule are frozen" in said[0]
        assert "'net.layers.0.weight'" in said[0]

    def test_scores_of_training_data_alone(self, h1, tmp_path, monkeypatch):
        said = []
        monkeypatch.setattr("bc_lightning.training._epochs.rank_zero_info", said.append)
        fit(BCLightningModule(made(UserModule), h1=h1), tmp_path, max_epochs=2, check_val_every_n_epoch=2)
        # Where validation is left out on purpose.
        fit(BCLightningModule(made(UserModule), h1=h1, stages=["train"]), tmp_path, max_epochs=1, val=[])
        assert not said
        fit(BCLightningModule(made(UserModule), h1=h1), tmp_path, max_epochs=2, val=[])
        assert len(said) == 1
        assert "takes validation data, and there are none" in said[0]


def test_h1_stays_out_of_hyperparameters_and_submodules(h1, tmp_path):
    """A module that got its network as an argument keeps it in its checkpoints; nothing of ours hangs on it."""

    class NetHandedIn(pl.LightningModule):
        def __init__(self, net):
            super().__init__()
            self.save_hyperparameters(logger=False)
            self.net = net
            self.saved = []

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def on_train_batch_end(self, *args):
            self.saved.append(
                sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in self.net.modules())
            )

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    for old in (h1, lambda x: h1(x) + 0):
        module = BCLightningModule(NetHandedIn(nn.Linear(FEATURES, CLASSES)), h1=old)
        keep = pl.callbacks.ModelCheckpoint(dirpath=tmp_path / "k", every_n_train_steps=2, save_top_k=-1)
        trainer = fit(module, tmp_path, val=[], callbacks=[keep], enable_checkpointing=True, max_epochs=1)
        assert module.saved == [0] * 5
        trainer.save_checkpoint(tmp_path / "c.ckpt")
        for path in (tmp_path / "c.ckpt", *(tmp_path / "k").iterdir()):
            checkpoint = torch.load(path, weights_only=False)
            net = checkpoint["hyper_parameters"]["net"]
            assert not net._forward_hooks
            assert not net._forward_pre_hooks
            assert "bc_lightning" not in path.read_bytes().decode("latin1")
