"""What a wrapped module refuses, and what it says; what both sides refuse alike is in tests/conformance."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from user_code import (
    CLASSES,
    FEATURES,
    Net,
    UserModule,
    dataset,
    fit,
    loader,
    made,
    make_h1,
    same_weights,
)

from bc_lightning import (
    BCLightningModule,
    CompatibilityCallback,
    store_outputs,
)


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
