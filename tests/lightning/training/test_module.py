"""BCLightningModule: the user's module stays the user's, the penalty is added, the logs are right."""

from __future__ import annotations

import copy
import io
import os
import pickle
import subprocess
import sys
import textwrap
from unittest.mock import patch

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from user_code import (
    CLASSES,
    FEATURES,
    ManualModule,
    Net,
    UserModule,
    dataset,
    fit,
    loader,
    made,
    make_h1,
    make_trainer,
)

from bc_lightning import (
    BCCrossEntropyLoss,
    BCLightningModule,
    CompatibilityCallback,
    CompatibilityLoss,
    LinearLambda,
    StoredOutputs,
    StrictImitationKLDivergenceLoss,
    store_outputs,
    unwrap,
)
from bc_lightning.losses._losses import MODEL_LOSSES
from bc_lightning.training._wrapped import compatibilities_of


def same_weights(one, other):
    one, other = one.state_dict(), other.state_dict()
    assert one.keys() == other.keys()
    return all(torch.equal(value, other[name]) for name, value in one.items())


class DictModule(UserModule):
    def training_step(self, batch, batch_idx):
        return {"loss": super().training_step(batch, batch_idx), "note": "kept"}

    def on_train_batch_end(self, outputs, batch, batch_idx):
        assert outputs["note"] == "kept"


@pytest.mark.parametrize("module_class", [UserModule, ManualModule, DictModule])
def test_lambda_zero_is_the_unwrapped_module_to_the_bit(module_class, h1, tmp_path):
    plain, wrapped = made(module_class), BCLightningModule(made(module_class), h1=h1, lambda_c=0.0)
    plain_trainer, trainer = fit(plain, tmp_path), fit(wrapped, tmp_path)
    assert same_weights(plain, wrapped)
    for name, value in plain_trainer.callback_metrics.items():
        assert torch.equal(value, trainer.callback_metrics[name]), name
    assert "train_btc" in trainer.callback_metrics


@pytest.mark.parametrize("module_class", [UserModule, ManualModule, DictModule])
@pytest.mark.parametrize(
    "name", sorted(set(MODEL_LOSSES) - {"BCBinaryCrossEntropyLoss", "StrictImitationBinaryCrossEntropyLoss"})
)
def test_training_equals_the_same_penalty_written_by_hand(module_class, name, h1, tmp_path):
    class ByHand(module_class):
        def training_step(self, batch, batch_idx):
            x, y = batch
            logits = self(x)
            with torch.no_grad():
                p1 = h1.eval()(x).softmax(1)
            log_p2 = logits.log_softmax(1)
            d_i = F.nll_loss(log_p2, y, reduction="none")
            if name.startswith("Strict"):
                d_i = -(p1 * log_p2).sum(1)
                if "KL" in name:
                    d_i = d_i + (p1 * p1.log()).sum(1)
            loss = F.cross_entropy(logits, y) + 3.0 * (d_i * (p1.argmax(1) == y)).mean()
            if self.automatic_optimization:
                return {"loss": loss, "note": "kept"}
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            return None

    by_hand, wrapped = made(ByHand), BCLightningModule(made(module_class), h1=h1, loss=name, lambda_c=3.0)
    fit(by_hand, tmp_path)
    fit(wrapped, tmp_path)
    # Float32 sums in another order: a few ulp a step, over 10 steps.
    for parameter, expected in zip(wrapped.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, rtol=2e-4, atol=2e-6)


def brute_force_scores(h1_labels, h2_labels, target):
    counts = {(a, b): 0 for a in (False, True) for b in (False, True)}
    for a, b, y in zip(h1_labels, h2_labels, target, strict=True):
        counts[a == y, b == y] += 1
    rr, rw, wr, ww = (counts[key] for key in ((True, True), (True, False), (False, True), (False, False)))
    n = rr + rw + wr + ww
    return {
        "btc": rr / (rr + rw),
        "bec_given_h1_wrong": ww / (ww + wr),
        "bec_given_h2_wrong": ww / (ww + rw),
        "nfr": rw / n,
        "accuracy_h1": (rr + rw) / n,
        "accuracy_h2": (rr + wr) / n,
    }


@pytest.mark.parametrize("stage", ["val", "test"])
def test_logged_scores_are_counted_over_the_whole_data_set(stage, h1, tmp_path):
    data = dataset(53, seed=2)
    module = BCLightningModule(made(UserModule), h1=h1, lambda_c=1.0)
    fit(module, tmp_path, train=loader(dataset(40)))
    run = make_trainer(tmp_path)
    run = run.validate if stage == "val" else run.test
    # 53 in batches of 20: the last one is shorter, which a mean over batches would overweight.
    (metrics,) = run(module, loader(data), verbose=False)
    module.eval()
    x, y = data.tensors
    with torch.no_grad():
        expected = brute_force_scores(h1(x).argmax(1).tolist(), module(x).argmax(1).tolist(), y.tolist())
        logits = module(x)
        right = h1(x).argmax(1) == y
        expected["base_loss"] = F.cross_entropy(logits, y).item()
        expected["dissonance"] = (F.cross_entropy(logits, y, reduction="none") * right).mean().item()
    assert 0 < expected["nfr"] < 1
    for name, value in expected.items():
        assert metrics[f"{stage}_{name}"] == pytest.approx(value, rel=1e-6), name


def test_training_logs_add_up_to_what_was_trained(h1, tmp_path):
    seen = []

    class Recording(UserModule):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            seen.append((loss.item(), len(batch[1])))
            return loss

    trainer = fit(BCLightningModule(made(Recording), h1=h1, lambda_c=2.0), tmp_path, max_epochs=1)
    mean = sum(loss * n for loss, n in seen) / sum(n for _, n in seen)
    assert trainer.callback_metrics["train_base_loss"].item() == pytest.approx(mean, rel=1e-5)


def test_an_interrupted_epoch_leaves_no_counts(h1, tmp_path):
    class Interrupted(UserModule):
        broken = True

        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)
            if self.broken and batch_idx == 1:
                raise OSError("disk")

    module = BCLightningModule(made(Interrupted), h1=h1)
    with pytest.raises(OSError, match="disk"):
        make_trainer(tmp_path).validate(module, loader(dataset(60, seed=3)), verbose=False)
    module.broken = False
    (metrics,) = make_trainer(tmp_path).validate(module, loader(dataset(30, seed=4)), verbose=False)
    x, y = dataset(30, seed=4).tensors
    with torch.no_grad():
        expected = (h1(x).argmax(1) == y).float().mean().item()
    assert metrics["val_accuracy_h1"] == pytest.approx(expected, rel=1e-6)


def test_several_validation_loaders_are_told_apart(h1, tmp_path):
    class TwoLoaders(UserModule):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            super().validation_step(batch, batch_idx)

    trainer = fit(
        BCLightningModule(made(TwoLoaders), h1=h1), tmp_path, val=[loader(dataset(30, 1)), loader(dataset(30, 2))]
    )
    names = [name for name in trainer.callback_metrics if name.startswith("val_btc")]
    assert sorted(names) == ["val_btc/dataloader_idx_0", "val_btc/dataloader_idx_1"]


def test_a_monitor_may_name_our_scores(h1, tmp_path):
    checkpoint = pl.callbacks.ModelCheckpoint(tmp_path, monitor="val_btc", mode="max", filename="{epoch}-{val_btc:.3f}")
    fit(
        BCLightningModule(made(UserModule), h1=h1),
        tmp_path,
        callbacks=[checkpoint, pl.callbacks.EarlyStopping("val_nfr")],
        enable_checkpointing=True,
    )
    assert "val_btc=" in checkpoint.best_model_path


def test_the_same_hooks_run_in_the_same_order(h1, tmp_path):
    hooks = [
        name
        for name in dir(pl.core.hooks.ModelHooks)
        if name.startswith("on_") and name not in ("on_gpu", "on_before_batch_transfer", "on_after_batch_transfer")
    ]

    def recording(calls):
        def make(name):
            def hook(self, *args, **kwargs):
                calls.append(name)
                return getattr(super(Recorded, self), name)(*args, **kwargs)

            return hook

        class Recorded(UserModule):
            def on_before_batch_transfer(self, batch, dataloader_idx):
                calls.append("before_transfer")
                return batch

            def on_after_batch_transfer(self, batch, dataloader_idx):
                calls.append("after_transfer")
                return batch

        for name in hooks:
            setattr(Recorded, name, make(name))
        return made(Recorded)

    plain, wrapped = [], []
    fit(recording(plain), tmp_path)
    fit(BCLightningModule(recording(wrapped), h1=h1), tmp_path)
    assert plain == wrapped
    assert len(set(plain)) > 15


def test_it_is_still_the_users_module(h1):
    user = made(UserModule, width=12)
    module = BCLightningModule(user, h1=h1)
    assert module is user
    assert isinstance(module, UserModule)
    assert isinstance(module, BCLightningModule)
    assert type(module).__name__ == "UserModule"
    assert module.hparams == {"width": 12, "lr": 0.1}
    assert same_weights(module, made(UserModule, width=12))
    assert [name for name, _ in module.named_modules()] == [name for name, _ in made(UserModule).named_modules()]


def test_h1_is_frozen_and_nowhere_registered(h1, tmp_path):
    h1.train()
    before = copy.deepcopy(h1.state_dict())
    module = BCLightningModule(made(UserModule), h1=h1)
    trainer = fit(module, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in h1.state_dict().items())
    assert not h1.training
    assert all(parameter.grad is None for parameter in h1.parameters())
    own = {id(parameter) for parameter in h1.parameters()}
    assert not own & {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    # 5 batches in each of 2 epochs: h2's statistics were updated once a step.
    assert module.net.layers[1].num_batches_tracked == 10


def test_no_second_forward_of_h2(h1, tmp_path):
    calls = {"train": 0, "val": 0}
    module = made(UserModule)
    module.net.register_forward_hook(
        lambda net, *_: calls.update({k: calls[k] + (k == ("train" if net.training else "val")) for k in calls})
    )
    fit(BCLightningModule(module, h1=h1), tmp_path, max_epochs=1, num_sanity_val_steps=0)
    assert calls == {"train": 5, "val": 3}


def test_h1_gets_what_h2_got(tmp_path):
    class Augmenting(UserModule):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            return batch[0] + torch.randn_like(batch[0]), batch[1]

        def forward(self, x, scale=1.0):
            seen.append((x, scale))
            return self.net(x) * scale

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0], scale=0.5), batch[1])

    seen, asked = [], []

    def h1(x, scale=1.0):
        asked.append((x, scale))
        return torch.zeros(len(x), CLASSES)

    fit(BCLightningModule(made(Augmenting), h1=h1), tmp_path, max_epochs=1)
    assert len(seen) == len(asked)
    assert all(torch.equal(x, y) and s == t for (x, s), (y, t) in zip(seen, asked, strict=True))


class TestPlainModule:
    def wrapped(self, h1, **options):
        options = {"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.1), **options}
        return BCLightningModule(made(Net), h1=h1, **options)

    def test_equals_a_lightning_module_with_cross_entropy(self, h1, tmp_path):
        class Same(UserModule):
            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), lr=0.1)

        ours, same = self.wrapped(h1, lambda_c=2.0), BCLightningModule(made(Same), h1=h1, lambda_c=2.0)
        trainer = fit(ours, tmp_path)
        same_trainer = fit(same, tmp_path)
        # One graph for base and penalty against two: the gradients' last bit differs, over 10 steps a few ulp.
        torch.testing.assert_close(unwrap(ours).state_dict(), same.net.state_dict(), rtol=2e-4, atol=2e-6)
        for name in ("train_base_loss", "train_dissonance", "val_btc"):
            torch.testing.assert_close(trainer.callback_metrics[name], same_trainer.callback_metrics[name])

    @pytest.mark.parametrize("name", sorted(MODEL_LOSSES))
    def test_every_loss_by_name_lowers_itself(self, name, tmp_path):
        binary = "Binary" in name
        data = dataset(96)
        x, y = data.tensors
        if binary:
            y = (y == 0).long()
        torch.manual_seed(0)
        nets = [
            nn.Sequential(nn.Linear(FEATURES, 1), nn.Sigmoid()) if binary else nn.Linear(FEATURES, CLASSES)
            for _ in range(2)
        ]
        if "NLL" in name:
            nets = [nn.Sequential(net, nn.LogSoftmax(1)) for net in nets]
        module = BCLightningModule(
            nets[0], h1=nets[1], loss=name, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.5)
        )
        values = []
        for _ in range(2):
            trainer = fit(
                module, tmp_path, train=loader(TensorDataset(x, y)), val=loader(TensorDataset(x, y)), max_epochs=3
            )
            values.append(trainer.callback_metrics["train_base_loss"] + trainer.callback_metrics["train_dissonance"])
        assert values[1] < values[0]

    def test_the_checkpoint_is_the_nets_own(self, h1, tmp_path):
        module = self.wrapped(h1)
        trainer = fit(module, tmp_path)
        trainer.save_checkpoint(tmp_path / "a.ckpt")
        net = Net()
        net.load_state_dict(torch.load(tmp_path / "a.ckpt", weights_only=True)["state_dict"])
        assert same_weights(net, unwrap(module))

    def test_predict_and_scheduler_and_mapping_batches(self, h1, tmp_path):
        class Mapped(Dataset):
            def __len__(self):
                return 24

            def __getitem__(self, index):
                x, y = dataset(24)[index]
                return {"image": x, "label": y}

        module = self.wrapped(
            h1, inputs="image", lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.1)
        )
        trainer = fit(module, tmp_path, train=loader(Mapped(), batch_size=8), val=loader(Mapped(), batch_size=8))
        assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.001)
        predictions = torch.cat(trainer.predict(module, loader(Mapped(), batch_size=8)))
        module.eval()
        torch.testing.assert_close(predictions, module(dataset(24).tensors[0]))

    def test_no_optimiser_is_a_clear_error(self, h1, tmp_path):
        with pytest.raises(ValueError, match="A plain module needs an optimiser"):
            fit(BCLightningModule(Net(), h1=h1), tmp_path)

    def test_pickle_and_deepcopy(self, h1):
        module = self.wrapped(h1, optimizer=torch.optim.Adam)
        for again in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            assert type(again) is type(module)
            assert same_weights(again, module)


class TestCheckpoints:
    def test_loads_without_this_package(self, h1, tmp_path):
        module = BCLightningModule(made(UserModule, width=12), h1=h1)
        fit(module, tmp_path).save_checkpoint(tmp_path / "a.ckpt")
        # Another process, in which importing bc_lightning is an error.
        code = f"""
            import sys; sys.modules["bc_lightning"] = sys.modules["bc_core"] = None
            import torch
            checkpoint = torch.load({str(tmp_path / "a.ckpt")!r}, weights_only=True)
            assert not [key for key in checkpoint["state_dict"] if not key.startswith("net.layers")]
            print(checkpoint["hyper_parameters"], checkpoint["backward_compatibility"]["h1_fingerprint"])
        """
        out = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
        assert "'width': 12" in out.stdout
        assert "sha256:" in out.stdout
        loaded = UserModule.load_from_checkpoint(tmp_path / "a.ckpt")
        assert same_weights(loaded, module)
        assert type(type(module).load_from_checkpoint(tmp_path / "a.ckpt")) is UserModule

    @pytest.mark.parametrize("schedule", [False, True])
    def test_resuming_goes_on_where_it_stopped(self, h1, tmp_path, schedule):
        lambda_c = LinearLambda(0.0, 4.0, epochs=4) if schedule else 2.0
        train = loader()  # not shuffled: a resumed run draws other permutations, with or without us

        class NoDropout(UserModule):
            def __init__(self):
                super().__init__()
                self.net.layers[3].p = 0.0

        whole = BCLightningModule(made(NoDropout), h1=h1, lambda_c=lambda_c)
        fit(whole, tmp_path, train=train, max_epochs=4)
        half = BCLightningModule(made(NoDropout), h1=h1, lambda_c=lambda_c)
        fit(half, tmp_path, train=train, max_epochs=2).save_checkpoint(tmp_path / "half.ckpt")
        resumed = BCLightningModule(made(NoDropout, seed=99), h1=make_h1(), lambda_c=lambda_c)
        fit(resumed, tmp_path, train=train, max_epochs=4, ckpt_path=tmp_path / "half.ckpt")
        assert same_weights(whole, resumed)

    def test_resuming_against_another_h1_is_refused(self, h1, tmp_path):
        module = BCLightningModule(made(UserModule), h1=h1)
        fit(module, tmp_path).save_checkpoint(tmp_path / "a.ckpt")
        other = BCLightningModule(made(UserModule), h1=make_h1(seed=8))
        with pytest.raises(
            ValueError, match="another h1: its fingerprint is sha256:.* that of the h1 given here is sha256:"
        ):
            fit(other, tmp_path, ckpt_path=tmp_path / "a.ckpt")
        # To evaluate it against another h1 is a question one may ask.
        make_trainer(tmp_path).test(other, loader(), ckpt_path=tmp_path / "a.ckpt", verbose=False)

    def test_a_plain_checkpoint_may_be_continued(self, h1, tmp_path):
        fit(made(UserModule), tmp_path, max_epochs=1).save_checkpoint(tmp_path / "plain.ckpt")
        fit(BCLightningModule(made(UserModule), h1=h1), tmp_path, ckpt_path=tmp_path / "plain.ckpt")


class TestCopies:
    @pytest.mark.parametrize("options", [{}, {"scores": "net.layers"}])
    def test_deepcopy_and_pickle_keep_class_weights_and_h1(self, h1, tmp_path, options):
        module = BCLightningModule(made(UserModule), h1=h1, lambda_c=2.0, **options)
        for again in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            assert type(again) is type(module)
            assert same_weights(again, module)
            fit(again, tmp_path)
            assert not same_weights(again, module)
            assert type(unwrap(again)) is UserModule
        assert compatibilities_of(copy.deepcopy(module))[0].reference is compatibilities_of(module)[0].reference
        fit(module, tmp_path)

    def test_unwrap_leaves_nothing_behind(self, h1, tmp_path):
        user = made(UserModule)
        before = set(user.__dict__)
        unwrapped = unwrap(BCLightningModule(user, h1=h1, scores="net"))
        assert unwrapped is user
        assert type(user) is UserModule
        assert set(user.__dict__) == before
        assert not user.net._forward_hooks
        assert not user.net._forward_hooks_with_kwargs
        assert unwrap(user) is user
        buffer = io.BytesIO()
        torch.save(user, buffer)
        assert b"bc_lightning" not in buffer.getvalue()

    def test_export_gives_h2(self, h1):
        module = BCLightningModule(made(UserModule), h1=h1).eval()
        x = torch.randn(4, FEATURES)
        exported = torch.export.export(module, (x,)).module()
        torch.testing.assert_close(exported(x), module(x))


class TestCallback:
    def test_has_the_same_effect(self, h1, tmp_path):
        wrapped = BCLightningModule(made(UserModule), h1=h1, lambda_c=2.0)
        trainer = fit(wrapped, tmp_path)
        user = made(UserModule)
        with_callback = fit(user, tmp_path, callbacks=[CompatibilityCallback(h1, lambda_c=2.0)])
        assert same_weights(wrapped, user)
        assert type(user) is UserModule
        assert trainer.callback_metrics.keys() == with_callback.callback_metrics.keys()
        for name, value in trainer.callback_metrics.items():
            assert torch.equal(value, with_callback.callback_metrics[name]), name
        (metrics,) = make_trainer(tmp_path, callbacks=[CompatibilityCallback(h1)]).test(user, loader(), verbose=False)
        assert "test_nfr" in metrics

    def test_resuming_against_another_h1_is_refused(self, h1, tmp_path):
        user = made(UserModule)
        fit(user, tmp_path, callbacks=[CompatibilityCallback(h1)]).save_checkpoint(tmp_path / "plain.ckpt")
        saving = pl.callbacks.ModelCheckpoint(tmp_path / "c", every_n_epochs=1)
        fit(user, tmp_path, callbacks=[CompatibilityCallback(h1), saving], enable_checkpointing=True)
        with pytest.raises(ValueError, match="another h1"):
            fit(user, tmp_path, callbacks=[CompatibilityCallback(make_h1(8))], ckpt_path=saving.best_model_path)
        # Also after a failure the module is the user's own.
        assert type(user) is UserModule

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_a_module_that_ddp_has_trained_is_whole(self, when, h1, tmp_path):
        user = made(UserModule)
        callbacks = [CompatibilityCallback(h1)] if when == "after" else []
        # One process is enough for Lightning to rebind the module's forward.
        with patch.dict(os.environ):  # where Lightning leaves the rank and the port, for every process started later
            try:
                fit(user, tmp_path, strategy="ddp", callbacks=callbacks)
            finally:
                if torch.distributed.is_initialized():
                    torch.distributed.destroy_process_group()
        assert user(torch.zeros(2, FEATURES)).shape == (2, CLASSES)
        trainer = fit(BCLightningModule(user, h1=h1, lambda_c=2.0), tmp_path)
        assert trainer.callback_metrics["train_dissonance"] > 0

    def test_only_what_was_wrapped_here_is_unwrapped(self, h1, tmp_path):
        wrapped = BCLightningModule(made(UserModule), h1=h1)
        make_trainer(tmp_path, callbacks=[CompatibilityCallback(h1)]).predict(
            made(UserModule), DataLoader(dataset(8).tensors[0], 4)
        )
        with pytest.raises(TypeError, match="wrapped already"):
            fit(wrapped, tmp_path, callbacks=[CompatibilityCallback(h1)])
        assert isinstance(wrapped, BCLightningModule)

    def test_a_checkpoint_saved_after_a_failure_names_h1(self, h1, tmp_path):
        class Breaking(UserModule):
            def on_train_epoch_end(self):
                raise OSError("disk")

        saving = pl.callbacks.OnExceptionCheckpoint(tmp_path)
        with pytest.raises(OSError, match="disk"):
            fit(made(Breaking), tmp_path, callbacks=[CompatibilityCallback(h1), saving], enable_checkpointing=True)
        checkpoint = torch.load(saving.ckpt_path, weights_only=True)
        assert checkpoint["backward_compatibility"]["h1_fingerprint"].startswith("sha256:")

    def test_unknown_argument(self):
        with pytest.raises(TypeError, match="lamda"):
            CompatibilityCallback(make_h1(), lamda=1.0)


class TestStoredOutputs:
    @pytest.mark.parametrize("name", ["BCCrossEntropyLoss", "StrictImitationKLDivergenceLoss"])
    @pytest.mark.parametrize("workers", [0, 2])
    def test_equals_the_live_h1(self, name, workers, h1, tmp_path):
        train, val = dataset(), dataset(50, seed=1)
        stored = store_outputs(h1, train, tmp_path / "train")
        stored_val = store_outputs(h1, val, tmp_path / "val")
        live, from_store = (
            BCLightningModule(made(UserModule), h1=reference, loss=name, lambda_c=2.0) for reference in (h1, stored)
        )
        trainer = fit(live, tmp_path, train=loader(train, shuffle=True), val=loader(val))
        stored_trainer = fit(
            from_store,
            tmp_path,
            train=loader(stored.attach(train), shuffle=True, num_workers=workers),
            val=loader(stored_val.attach(val)),
        )
        assert same_weights(live, from_store)
        for key, value in trainer.callback_metrics.items():
            torch.testing.assert_close(stored_trainer.callback_metrics[key], value, rtol=1e-6, atol=1e-7)

    def test_a_table_of_labels_is_enough_for_new_error(self, h1, tmp_path):
        train = dataset()
        with torch.no_grad():
            labels = h1(train.tensors[0]).argmax(1)
        table = StoredOutputs.from_table(labels)
        live = BCLightningModule(made(UserModule), h1=h1, lambda_c=2.0)
        from_table = BCLightningModule(made(UserModule), h1=table, lambda_c=2.0)
        fit(live, tmp_path, train=loader(train), val=loader(train))
        fit(from_table, tmp_path, train=loader(table.attach(train)), val=loader(table.attach(train)))
        assert same_weights(live, from_table)
        with pytest.raises(ValueError, match="known by its predicted labels only"):
            BCLightningModule(made(UserModule), h1=table, loss="StrictImitationNLLLoss")

    def test_a_loader_without_rows_says_what_to_do(self, h1, tmp_path):
        stored = store_outputs(h1, dataset(), tmp_path / "h1")
        with pytest.raises(ValueError, match=r"DataLoader\(stored.attach\(dataset\), ...\)"):
            fit(BCLightningModule(made(UserModule), h1=stored), tmp_path)


class TestWhichOutput:
    class NoForward(UserModule):
        forward = pl.LightningModule.forward

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def validation_step(self, batch, batch_idx):
            self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]))

    def test_the_only_network_is_found(self, h1, tmp_path):
        module = BCLightningModule(made(self.NoForward), h1=h1, lambda_c=2.0)
        fit(module, tmp_path)
        usual = BCLightningModule(made(UserModule), h1=h1, lambda_c=2.0)
        fit(usual, tmp_path)
        assert same_weights(module, usual)

    def test_scores_names_a_submodule(self, h1, tmp_path):
        class TwoNets(self.NoForward):
            def __init__(self):
                super().__init__()
                self.other = nn.Linear(FEATURES, 2)

            def training_step(self, batch, batch_idx):
                return super().training_step(batch, batch_idx) + 0 * self.other(batch[0]).sum()

        module = BCLightningModule(made(TwoNets), h1=h1)
        fit(module, tmp_path, num_sanity_val_steps=0)
        # The one that the loss is computed from.
        assert compatibilities_of(module)[0].found["train"].scores == "net"
        fit(BCLightningModule(made(TwoNets), h1=h1, scores="net"), tmp_path)
        with pytest.raises(ValueError, match="scores='nets' names no submodule of TwoNets. Known: 'net', 'net.layers'"):
            BCLightningModule(made(TwoNets), h1=h1, scores="nets")

    def test_h1_is_asked_what_h2_was_or_what_inputs_says(self, h1, tmp_path):
        class Preprocessing(self.NoForward):
            def training_step(self, batch, batch_idx):
                return F.cross_entropy(self.net(batch[0] / 2), batch[1])

            def validation_step(self, batch, batch_idx):
                self.net(batch[0] / 2)

        data = dataset(50, seed=1)
        x, y = data.tensors
        for inputs, asked in ((None, x / 2), (0, x), (lambda batch: batch[0] / 2, x / 2)):
            trainer = fit(BCLightningModule(made(Preprocessing), h1=h1, inputs=inputs), tmp_path, val=loader(data))
            with torch.no_grad():
                expected = (h1(asked).argmax(1) == y).float().mean().item()
            assert trainer.callback_metrics["val_accuracy_h1"].item() == pytest.approx(expected, rel=1e-6)

    def test_h1_is_asked_what_forward_was_asked(self, h1, tmp_path):
        class Backbone(UserModule):
            def __init__(self):
                super().__init__()
                self.body, self.head = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, CLASSES)

            def forward(self, x):
                features = self.body(x).relu()
                return features, self.head(features)

            def training_step(self, batch, batch_idx):
                return F.cross_entropy(self(batch[0])[1], batch[1])

            def validation_step(self, batch, batch_idx):
                self(batch[0])

        data = dataset(50, seed=1)
        x, y = data.tensors
        with torch.no_grad():
            expected = (h1(x).argmax(1) == y).float().mean().item()
        results = []
        for scores in ("head", lambda output: output[1]):
            module = BCLightningModule(made(Backbone), h1=h1, scores=scores)
            trainer = fit(module, tmp_path, val=loader(data))
            assert trainer.callback_metrics["val_accuracy_h1"].item() == pytest.approx(expected, rel=1e-6)
            results.append(module)
        assert same_weights(*results)
        with pytest.raises(TypeError, match=r"which part of h2's output is its class scores.*scores=lambda output"):
            fit(BCLightningModule(made(Backbone), h1=h1), tmp_path)

    def test_a_step_that_calls_h2_twice_or_never(self, h1, tmp_path):
        class Twice(UserModule):
            def training_step(self, batch, batch_idx):
                self(batch[0])
                return super().training_step(batch, batch_idx)

        class Never(UserModule):
            def training_step(self, batch, batch_idx):
                return self.net.layers[0].weight.sum()

        with pytest.raises(RuntimeError, match="train step called forward 2 times; it has to be called exactly once"):
            fit(BCLightningModule(made(Twice), h1=h1), tmp_path)
        with pytest.raises(RuntimeError, match="train step did not call forward"):
            fit(BCLightningModule(made(Never), h1=h1), tmp_path)
        # A stage that is not watched may do as it likes.
        fit(BCLightningModule(made(Never), h1=h1, stages=["val"]), tmp_path)

    def test_manual_optimisation_without_manual_backward(self, h1, tmp_path):
        class Bypass(ManualModule):
            def training_step(self, batch, batch_idx):
                F.cross_entropy(self(batch[0]), batch[1]).backward()

        with pytest.raises(RuntimeError, match="never called self.manual_backward"):
            fit(BCLightningModule(made(Bypass), h1=h1), tmp_path)

    def test_a_step_may_skip_a_batch(self, h1, tmp_path):
        class Skipping(UserModule):
            def training_step(self, batch, batch_idx):
                return None if batch_idx == 1 else super().training_step(batch, batch_idx)

        plain, wrapped = made(Skipping), BCLightningModule(made(Skipping), h1=h1, lambda_c=0.0)
        fit(plain, tmp_path)
        fit(wrapped, tmp_path)
        assert same_weights(plain, wrapped)


class TestOtherOutputs:
    def test_the_originals_triple_and_hugging_face(self, h1, tmp_path):
        class Triple(UserModule):
            def forward(self, x):
                logits = self.net(x)
                return logits, logits.softmax(1), logits.log_softmax(1)

            def training_step(self, batch, batch_idx):
                return F.nll_loss(self(batch[0])[2], batch[1])

            def validation_step(self, batch, batch_idx):
                self(batch[0])

        class Output(Triple):
            def forward(self, x):
                return {"logits": self.net(x), "hidden": x}

            def training_step(self, batch, batch_idx):
                return F.cross_entropy(self(batch[0])["logits"], batch[1])

        usual = BCLightningModule(made(UserModule), h1=h1, lambda_c=2.0)
        fit(usual, tmp_path)
        for module_class in (Triple, Output):
            module = BCLightningModule(made(module_class), h1=h1, lambda_c=2.0, loss="BCCrossEntropyLoss")
            fit(module, tmp_path)
            assert same_weights(module, usual)

    def test_segmentation(self, tmp_path):
        torch.manual_seed(0)
        x = torch.randn(12, 2, 4, 4)
        y = torch.randint(3, (12, 4, 4))
        y[:, 0] = 255
        data = TensorDataset(x, y)
        h1, h2 = nn.Conv2d(2, 3, 1), nn.Conv2d(2, 3, 1)
        loss = CompatibilityLoss("cross_entropy", "strict_imitation", ignore_index=255)
        module = BCLightningModule(h2, h1=h1, loss=loss, optimizer=torch.optim.Adam)
        trainer = fit(module, tmp_path, train=loader(data, batch_size=5), val=loader(data, batch_size=5))
        with torch.no_grad():
            h1_labels, h2_labels = (net(x).argmax(1)[:, 1:].flatten().tolist() for net in (h1, h2))
        expected = brute_force_scores(h1_labels, h2_labels, y[:, 1:].flatten().tolist())
        for name, value in expected.items():
            assert trainer.callback_metrics[f"val_{name}"].item() == pytest.approx(value, rel=1e-6)

    def test_another_set_of_classes(self, tmp_path):
        # h1 knows classes a, b; h2 knows c, b, a: h1's 0 is h2's 2, its 1 is h2's 1.
        data = dataset()
        h1 = nn.Linear(FEATURES, 2)
        module = BCLightningModule(made(UserModule), h1=h1)
        with pytest.raises(ValueError, match="h1 has 2 classes and h2 has 3: a class map is needed"):
            fit(module, tmp_path)
        for class_map in ([2, 1], [0, 1]):
            module = BCLightningModule(
                made(UserModule), h1=h1, class_map=class_map, loss="StrictImitationKLDivergenceLoss"
            )
            trainer = fit(module, tmp_path, val=loader(data))
            labels = np.array(class_map)[h1(data.tensors[0]).argmax(1).numpy()]
            expected = (labels == data.tensors[1].numpy()).mean()
            assert trainer.callback_metrics["val_accuracy_h1"].item() == pytest.approx(expected, rel=1e-6)
            assert torch.isfinite(trainer.callback_metrics["train_dissonance"])


class TestLambda:
    def test_schedule_is_followed_and_logged(self, h1, tmp_path):
        values = []

        class Watch(pl.Callback):
            def on_train_batch_end(self, trainer, module, *_):
                values.append(float(compatibilities_of(module)[0].loss.lambda_c))

        module = BCLightningModule(made(UserModule), h1=h1, lambda_c=lambda epoch: 10 * epoch)
        trainer = fit(module, tmp_path, callbacks=[Watch()])
        assert values == pytest.approx([0, 2, 4, 6, 8, 10, 12, 14, 16, 18])  # 5 batches an epoch
        assert trainer.callback_metrics["lambda_c"] == pytest.approx(18)

    def test_a_constant_schedule_is_a_constant(self, h1, tmp_path):
        constant = BCLightningModule(made(UserModule), h1=h1, lambda_c=2.0)
        scheduled = BCLightningModule(made(UserModule), h1=h1, lambda_c=lambda epoch: 2.0)
        fit(constant, tmp_path)
        fit(scheduled, tmp_path)
        assert same_weights(constant, scheduled)

    def test_larger_lambda_means_fewer_flips(self, tmp_path):
        h1, nfr = make_h1(), []
        for lambda_c in (0.0, 30.0):
            module = BCLightningModule(
                made(UserModule, lr=0.02), h1=h1, loss="StrictImitationKLDivergenceLoss", lambda_c=lambda_c
            )
            trainer = fit(module, tmp_path, train=loader(dataset(400)), val=loader(dataset(400)), max_epochs=5)
            nfr.append(trainer.callback_metrics["val_nfr"].item())
        assert nfr[1] < nfr[0] / 2

    def test_negative_is_refused(self, h1, tmp_path):
        with pytest.raises(ValueError, match=">= 0"):
            fit(BCLightningModule(made(UserModule), h1=h1, lambda_c=lambda epoch: 1.0 - 2 * epoch), tmp_path)
        with pytest.raises(ValueError, match=">= 0"):
            BCLightningModule(made(UserModule), h1=h1, lambda_c=lambda epoch: -1.0)


@pytest.mark.parametrize("dissonance", ["new_error", "strict_imitation", "imitation"])
def test_a_dissonance_by_name_is_its_loss(h1, dissonance, tmp_path):
    histories = []
    for loss, options in (
        (dissonance, {"base": "nll", "normalization": "support"}),
        (CompatibilityLoss("nll", dissonance, normalization="support"), None),
    ):
        torch.manual_seed(0)
        module = made(UserModule)
        fit(BCLightningModule(module, h1=h1, loss=loss, lambda_c=2.0, loss_options=options), tmp_path)
        histories.append([parameter.detach().clone() for parameter in module.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*histories, strict=True))


class TestBadInput:
    def test_names(self, h1):
        with pytest.raises(ValueError, match="Unknown loss: 'cross'. Known: 'BCNLLLoss', 'BCCrossEntropyLoss'"):
            BCLightningModule(UserModule(), h1=h1, loss="cross")
        with pytest.raises(
            TypeError, match="no option 'smoothing'. Known options: 'weight', 'ignore_index', 'label_smoothing'"
        ):
            BCLightningModule(UserModule(), h1=h1, loss_options={"smoothing": 0.1})
        with pytest.raises(ValueError, match="Unknown stage: 'fit'. Known: 'train', 'val', 'test'"):
            BCLightningModule(UserModule(), h1=h1, stages=["fit"])

    def test_what_is_wrapped(self, h1):
        module = BCLightningModule(UserModule(), h1=h1)
        with pytest.raises(TypeError, match="wrapped already"):
            BCLightningModule(module, h1=h1)
        with pytest.raises(TypeError, match="Compile after wrapping"):
            BCLightningModule(torch.compile(UserModule()), h1=h1)
        with pytest.raises(TypeError, match="configures its own optimisers"):
            BCLightningModule(UserModule(), h1=h1, optimizer=torch.optim.Adam)
        with pytest.raises(TypeError, match="is no base class"):
            type("Mine", (BCLightningModule,), {})(UserModule(), h1=h1)

    @pytest.mark.parametrize("who", ["h1", "h2"])
    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_nan_says_whose_and_when(self, who, bad, h1, tmp_path):
        class Breaking(UserModule):
            def forward(self, x):
                return self.net(x) + (bad if who == "h2" and self.training and self.global_step == 3 else 0)

        def breaking_h1(x):
            return h1(x) + (bad if who == "h1" and module.training and module.global_step == 3 else 0)

        module = BCLightningModule(made(Breaking), h1=breaking_h1)
        with pytest.raises(ValueError, match=rf"{who} returned (NaN|inf) at step 3 \(train\)"):
            fit(module, tmp_path)

    def test_shapes(self, h1, tmp_path):
        x, y = dataset(20).tensors
        module = BCLightningModule(Net(), h1=h1, optimizer=torch.optim.Adam)
        with pytest.raises(ValueError, match="need a target of shape"):
            fit(module, tmp_path, train=loader(TensorDataset(x, torch.stack([y, y], 1))), num_sanity_val_steps=0)

    def test_probabilities_where_logits_were_expected(self, h1, tmp_path):
        class Softmax(UserModule):
            def forward(self, x):
                return self.net(x).softmax(1)

        with pytest.raises(ValueError, match="h2's scores are probabilities"):
            fit(BCLightningModule(made(Softmax), h1=h1), tmp_path)
        # From scores=, where the logits are.
        fit(BCLightningModule(made(Softmax), h1=h1, scores="net"), tmp_path)

        def old(x):
            return h1(x).softmax(1)

        with pytest.raises(ValueError, match="h1 returned probabilities"):
            fit(BCLightningModule(made(UserModule), h1=old, loss="StrictImitationKLDivergenceLoss"), tmp_path)
        # For new error only h1's labels matter, and they are the same.
        one, other = (BCLightningModule(made(UserModule), h1=reference) for reference in (h1, old))
        fit(one, tmp_path)
        fit(other, tmp_path)
        assert same_weights(one, other)

    def test_multilabel_targets_with_a_multiclass_loss(self, h1, tmp_path):
        x = dataset(20).tensors[0]
        several = (torch.rand(20, CLASSES, generator=torch.Generator().manual_seed(0)) > 0.3).float()
        module = BCLightningModule(Net(), h1=h1, optimizer=torch.optim.Adam)
        with pytest.raises(ValueError, match="sum to 1.*loss_options={'from_logits': True}"):
            fit(module, tmp_path, train=loader(TensorDataset(x, several)), num_sanity_val_steps=0)

    def test_stored_outputs_of_two_different_h1(self, h1, tmp_path):
        train, val = dataset(40), dataset(30, seed=1)
        stored = store_outputs(h1, train, tmp_path / "train")
        other = store_outputs(make_h1(8), val, tmp_path / "val")
        module = BCLightningModule(made(UserModule), h1=stored)
        with pytest.raises(ValueError, match="A batch brings stored outputs of another h1"):
            fit(module, tmp_path, train=loader(stored.attach(train)), val=loader(other.attach(val)))

    def test_a_name_that_the_user_logs_too(self, h1, tmp_path):
        class Logging(UserModule):
            def validation_step(self, batch, batch_idx):
                super().validation_step(batch, batch_idx)
                self.log("val_btc", 0.123)

        with pytest.raises(ValueError, match="Logging logs 'val_btc' itself.*log_prefix='bc_'"):
            fit(BCLightningModule(made(Logging), h1=h1), tmp_path)
        trainer = fit(BCLightningModule(made(Logging), h1=h1, log_prefix="bc_"), tmp_path)
        assert trainer.callback_metrics["val_btc"].item() == pytest.approx(0.123)
        assert "bc_val_btc" in trainer.callback_metrics

    def test_h1_that_does_not_take_h2s_input(self, tmp_path):
        module = BCLightningModule(made(UserModule), h1=nn.Linear(FEATURES + 1, CLASSES))
        with pytest.raises(
            RuntimeError, match=r"h1 failed on what h2 was called with .* tensors of shape \[\(20, 8\)\]"
        ):
            fit(module, tmp_path)

    def test_a_misspelt_argument(self, h1):
        with pytest.raises(TypeError, match=r"BCLightningModule\(\) got an unexpected keyword argument 'lamda_c'"):
            BCLightningModule(UserModule(), h1=h1, lamda_c=1.0)
        with pytest.raises(ValueError, match=">= 0"):
            CompatibilityCallback(h1, lambda_c=-1.0)
        with pytest.raises(ValueError, match="Unknown loss"):
            CompatibilityCallback(h1, loss="nll")
        with pytest.raises(TypeError, match="h1 is missing"):
            CompatibilityCallback(None)
        with pytest.raises(TypeError, match="YourModule.load_from_checkpoint"):
            BCLightningModule.load_from_checkpoint("a.ckpt")

    def test_one_output_without_a_gradient(self, h1, tmp_path):
        class Measured(UserModule):
            def training_step(self, batch, batch_idx):
                loss = F.cross_entropy(self.net(batch[0]), batch[1])
                with torch.no_grad():
                    self(batch[0])
                return loss

        with pytest.raises(RuntimeError, match="carries no gradient.*scores='name'"):
            fit(BCLightningModule(made(Measured), h1=h1, lambda_c=2.0), tmp_path)

    def test_a_step_on_the_instance_or_a_base_class_of_lightnings_name(self, h1, tmp_path):
        user = made(UserModule)
        user.training_step = user.training_step
        with pytest.raises(TypeError, match="training_step set on the instance, where it would bypass"):
            BCLightningModule(user, h1=h1)
        company = type("LightningModule", (UserModule,), {})
        usual, theirs = (BCLightningModule(made(kind), h1=h1, lambda_c=2.0) for kind in (UserModule, company))
        fit(usual, tmp_path)
        fit(theirs, tmp_path)
        assert same_weights(usual, theirs)

    def test_empty_training_data(self, h1, tmp_path):
        empty = TensorDataset(torch.zeros(0, FEATURES), torch.zeros(0, dtype=torch.long))
        with pytest.raises(ValueError, match="training data are empty"):
            fit(BCLightningModule(made(UserModule), h1=h1), tmp_path, train=DataLoader(empty, 4))

    def test_a_batch_without_a_target(self, h1, tmp_path):
        module = BCLightningModule(Net(), h1=h1, optimizer=torch.optim.Adam)
        with pytest.raises((ValueError, TypeError), match="target"):
            fit(module, tmp_path, train=loader(TensorDataset(dataset(20).tensors[0])))


def test_loss_objects_and_classes(h1, tmp_path):
    named = BCLightningModule(made(UserModule), h1=h1, loss="StrictImitationKLDivergenceLoss", lambda_c=2.0)
    fit(named, tmp_path)
    given = StrictImitationKLDivergenceLoss(h1, made(UserModule), 2.0)
    for loss, options in (
        (StrictImitationKLDivergenceLoss, {"lambda_c": 2.0, "h1": h1}),
        (CompatibilityLoss("kl_divergence", "strict_imitation", 2.0), {"h1": h1}),
        (CompatibilityLoss("kl_divergence", "strict_imitation"), {"h1": h1, "lambda_c": 2.0}),
        (given, {}),
    ):
        module = BCLightningModule(made(UserModule), loss=loss, **options)
        fit(module, tmp_path)
        assert same_weights(module, named)
    # The caller's object is not changed.
    loss = BCCrossEntropyLoss(h1, made(UserModule), 0.5)
    BCLightningModule(made(UserModule), loss=loss, lambda_c=9.0)
    assert loss.lambda_c == 0.5


def test_closure_optimisers_count_a_batch_once(h1, tmp_path):
    class Lbfgs(UserModule):
        def configure_optimizers(self):
            return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=4)

    plain, wrapped = made(Lbfgs), BCLightningModule(made(Lbfgs), h1=h1, lambda_c=0.0)
    fit(plain, tmp_path, max_epochs=1)
    trainer = fit(wrapped, tmp_path, max_epochs=1)
    assert same_weights(plain, wrapped)
    x, y = dataset().tensors
    with torch.no_grad():
        expected = (h1(x).argmax(1) == y).float().mean()
    assert trainer.callback_metrics["train_accuracy_h1"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_loader_of_the_users_own_kind(h1, tmp_path):
    class Named(UserModule):
        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch["x"]), batch["truth"])

        def validation_step(self, batch, batch_idx):
            self(batch["x"])

    data = DataLoader(
        dataset(),
        20,
        collate_fn=lambda items: {"x": torch.stack([x for x, _ in items]), "truth": torch.stack([y for _, y in items])},
    )
    fit(BCLightningModule(made(Named), h1=h1, target="truth"), tmp_path, train=data, val=data)
    with pytest.raises(ValueError, match="truth"):
        fit(BCLightningModule(made(Named), h1=h1), tmp_path, train=data, val=data)
