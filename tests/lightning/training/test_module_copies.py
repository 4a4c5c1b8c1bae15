"""Checkpoints and copies of a wrapped module."""

from __future__ import annotations

import copy
import io
import pickle
import textwrap

import pytest
import torch
from user_code import (
    FEATURES,
    UserModule,
    fit,
    loader,
    made,
    make_h1,
    make_trainer,
    same_weights,
)
from warm_programs import run_program

from bc_lightning import (
    BCLightningModule,
    LinearLambda,
    unwrap,
)
from bc_lightning.training._wrapped import compatibilities_of


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
        (tmp_path / "program.py").write_text(textwrap.dedent(code))
        out = run_program(tmp_path / "program.py")
        assert out.returncode == 0, out.stderr
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
