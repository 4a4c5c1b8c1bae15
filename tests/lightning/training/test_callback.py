"""CompatibilityCallback: the user's module is wrapped for the training and given back."""

from __future__ import annotations

import os
from unittest.mock import patch

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader
from user_code import (
    CLASSES,
    FEATURES,
    UserModule,
    dataset,
    fit,
    loader,
    made,
    make_h1,
    make_trainer,
    same_weights,
)

from bc_lightning import (
    BCLightningModule,
    CompatibilityCallback,
)


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
