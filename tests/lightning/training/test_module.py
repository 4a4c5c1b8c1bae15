"""BCLightningModule: the user's module stays the user's, the penalty is added, the logs are right."""

from __future__ import annotations

import copy
import pickle

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
    brute_force_scores,
    dataset,
    fit,
    loader,
    made,
    make_h1,
    make_trainer,
    same_weights,
)

from bc_lightning import (
    BCCrossEntropyLoss,
    BCLightningModule,
    CompatibilityLoss,
    StrictImitationKLDivergenceLoss,
    unwrap,
)
from bc_lightning.losses._losses import MODEL_LOSSES
from bc_lightning.training._wrapped import compatibilities_of


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
