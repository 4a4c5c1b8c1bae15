"""Which output of h2 is read, outputs of other shapes, and stored outputs of h1."""

from __future__ import annotations

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset
from user_code import (
    CLASSES,
    FEATURES,
    ManualModule,
    UserModule,
    brute_force_scores,
    dataset,
    fit,
    loader,
    made,
    same_weights,
)

from bc_core import ClassMap
from bc_lightning import (
    BCLightningModule,
    CompatibilityLoss,
    StoredOutputs,
    store_outputs,
)
from bc_lightning.training._wrapped import compatibilities_of


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
        for class_map, new in (([2, 1], 0), ([0, 1], 2)):
            module = BCLightningModule(
                made(UserModule),
                h1=h1,
                class_map=ClassMap(class_map, new=[new]),
                loss="StrictImitationKLDivergenceLoss",
            )
            trainer = fit(module, tmp_path, val=loader(data))
            labels = np.array(class_map)[h1(data.tensors[0]).argmax(1).numpy()]
            expected = (labels == data.tensors[1].numpy()).mean()
            assert trainer.callback_metrics["val_accuracy_h1"].item() == pytest.approx(expected, rel=1e-6)
            assert torch.isfinite(trainer.callback_metrics["train_dissonance"])
