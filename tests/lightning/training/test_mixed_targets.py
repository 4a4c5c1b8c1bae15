"""Targets that a step made itself: what h2 was trained on is what h1 and the penalty are given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset
from user_code import CLASSES, dataset, fit, loader, made
from users_modules import Base, Forward, accuracy, mixed, penalty, trains_like

from bc_lightning import BCLightningModule, store_outputs

# -- what was trained on ------------------------------------------------------------------------------------------


class TestTarget:
    class Mixup(Forward):
        def training_step(self, batch, batch_idx):
            x, y = mixed(*batch)
            return F.cross_entropy(self(x), y)

    class HandedOver(Forward):
        def training_step(self, batch, batch_idx):
            x, self.compatibility_target = mixed(*batch)
            # Nothing that torch knows as a loss of labels.
            return -(self.compatibility_target * self(x).log_softmax(1)).sum(1).mean()

    class InPlace(Forward):
        def training_step(self, batch, batch_idx):
            x, y = batch[0].clone(), batch[1]
            batch[0].mul_(0.25).add_(x.roll(1, 0), alpha=0.75)
            soft = F.one_hot(y, CLASSES).float()
            return F.cross_entropy(self(batch[0]), 0.25 * soft + 0.75 * soft.roll(1, 0))

    @pytest.mark.parametrize("name", ["Mixup", "HandedOver", "InPlace"])
    def test_mixed_in_the_step(self, name, h1, tmp_path):
        class ByHand(Forward):
            def training_step(self, batch, batch_idx):
                x, y = mixed(*batch)
                return F.cross_entropy(self(x), y) + penalty(self.net, h1, x, y)

        trainer = trains_like(getattr(self, name), ByHand, h1, tmp_path)
        expected = torch.stack(
            [(h1(x).argmax(1) == y.argmax(1)).float().sum() for x, y in (mixed(*batch) for batch in loader())]
        )
        assert trainer.callback_metrics["train_accuracy_h1"].item() == pytest.approx(expected.sum().item() / 96)

    def test_two_losses_of_one_mixed_input_are_refused_and_the_remedy_works(self, h1, tmp_path):
        class TwoTerms(Forward):
            hands_over = False

            def training_step(self, batch, batch_idx):
                x, y = batch
                other = torch.arange(len(x)).roll(1)
                logits = self(0.25 * x + 0.75 * x[other])
                if self.hands_over:
                    self.compatibility_target = mixed(x, y)[1]
                return 0.25 * F.cross_entropy(logits, y) + 0.75 * F.cross_entropy(logits, y[other])

        with pytest.raises(ValueError, match="something else than the batch's input .*self.compatibility_target = y"):
            fit(BCLightningModule(made(TwoTerms), h1=h1), tmp_path)
        TwoTerms.hands_over = True
        assert "compatibility_target" not in vars(made(TwoTerms))
        module = BCLightningModule(made(TwoTerms), h1=h1)
        fit(module, tmp_path)
        assert "compatibility_target" not in vars(module)

    def test_a_cutmix_whose_loss_is_written_by_hand_is_refused(self, h1, tmp_path):
        class Soft(Forward):
            def training_step(self, batch, batch_idx):
                x, y = mixed(*batch)
                return -(y * F.log_softmax(self(x), dim=1)).sum(1).mean()

        with pytest.raises(ValueError, match="self.compatibility_target = y"):
            fit(BCLightningModule(made(Soft), h1=h1), tmp_path)

    def test_mixed_now_and_then_is_seen_at_every_step(self, h1, tmp_path):
        class Sometimes(Forward):
            def training_step(self, batch, batch_idx):
                if batch_idx == 0:
                    return F.cross_entropy(self(batch[0]), batch[1])
                x, y = mixed(*batch)
                return -(y * F.log_softmax(self(x), dim=1)).sum(1).mean()

        with pytest.raises(ValueError, match="self.compatibility_target = y"):
            fit(BCLightningModule(made(Sometimes), h1=h1), tmp_path)

    @pytest.mark.parametrize("change", [lambda x: x.flip(-1), lambda x: (x.double() / 3).float(), lambda x: x + 0.1])
    def test_preprocessed_in_the_step_is_no_mixture(self, change, h1, tmp_path):
        class Changed(Forward):
            def training_step(self, batch, batch_idx):
                x, y = batch
                return F.cross_entropy(self(change(x)), y)

        class ByHand(Forward):
            def training_step(self, batch, batch_idx):
                x, y = change(batch[0]), batch[1]
                return F.cross_entropy(self(x), y) + penalty(self.net, h1, x, y)

        trains_like(Changed, ByHand, h1, tmp_path)

    def test_preprocessed_with_a_loss_of_ones_own(self, h1, tmp_path):
        class Focal(Forward):
            def training_step(self, batch, batch_idx):
                x, y = batch
                chosen = self(x * 2).log_softmax(1).gather(1, y[:, None])[:, 0]
                return -((1 - chosen.exp()) ** 2 * chosen).mean()

        class ByHand(Focal):
            def training_step(self, batch, batch_idx):
                return super().training_step(batch, batch_idx) + penalty(self.net, h1, batch[0] * 2, batch[1])

        trains_like(Focal, ByHand, h1, tmp_path)

    def test_labels_popped_from_the_batch(self, h1, tmp_path):
        x, y = dataset().tensors
        rows = [{"x": one, "labels": label} for one, label in zip(x, y, strict=True)]

        class Popping(Base):
            def forward(self, x):
                return self.net(x)

            def training_step(self, batch, batch_idx):
                labels = batch.pop("labels")
                return F.cross_entropy(self(**batch), labels)

            def validation_step(self, batch, batch_idx):
                labels = batch.pop("labels")
                self.log("loss", F.cross_entropy(self(**batch), labels))

        for target in (None, "labels", lambda batch: batch["labels"]):
            module = BCLightningModule(made(Popping), h1=lambda x: h1(x), target=target)  # noqa: PLW0108
            trainer = fit(module, tmp_path, train=DataLoader(rows, 16), val=DataLoader(rows, 16), max_epochs=1)
            assert trainer.callback_metrics["val_accuracy_h1"].item() == pytest.approx(accuracy(h1, x, y))

    def test_deleted_and_cleared_labels(self, h1, tmp_path):
        class Emptying(Forward):
            def training_step(self, batch, batch_idx):
                x, y = batch
                batch.clear()
                return F.cross_entropy(self(x), y)

        trainer = fit(BCLightningModule(made(Emptying), h1=h1), tmp_path, train=loader(), max_epochs=1)
        x, y = dataset().tensors
        assert trainer.callback_metrics["train_accuracy_h1"].item() == pytest.approx(accuracy(h1, x, y))

    def test_labels_that_the_step_maps_are_refused_and_the_remedy_works(self, h1, tmp_path):
        x, y = dataset().tensors
        data = DataLoader(TensorDataset(x, (y + 1) % CLASSES), 16)

        class Mapping(Forward):
            def training_step(self, batch, batch_idx):
                return F.cross_entropy(self(batch[0]), (batch[1] - 1) % CLASSES)

        with pytest.raises(ValueError, match="another target than the batch has.*target=lambda batch"):
            fit(BCLightningModule(made(Mapping), h1=h1), tmp_path, train=data, val=[])
        module = BCLightningModule(made(Mapping), h1=h1, target=lambda batch: (batch[1] - 1) % CLASSES)
        trainer = fit(module, tmp_path, train=data, val=[], max_epochs=1)
        assert trainer.callback_metrics["train_accuracy_h1"].item() == pytest.approx(accuracy(h1, x, y))

    def test_another_element_of_the_batch_is_named(self, h1, tmp_path):
        x, y = dataset().tensors
        data = DataLoader(TensorDataset(x, torch.arange(96) % 2, y), 16)

        class Lengths(Forward):
            def training_step(self, batch, batch_idx):
                return F.cross_entropy(self(batch[0]), batch[2])

        with pytest.raises(ValueError, match="Say where it is: target=2"):
            fit(BCLightningModule(made(Lengths), h1=h1), tmp_path, train=data, val=[])
        trainer = fit(BCLightningModule(made(Lengths), h1=h1, target=2), tmp_path, train=data, val=[], max_epochs=1)
        assert trainer.callback_metrics["train_accuracy_h1"].item() == pytest.approx(accuracy(h1, x, y))

    def test_smoothed_and_one_hot_targets_name_the_same_labels(self, h1, tmp_path):
        class Smoothed(Forward):
            def training_step(self, batch, batch_idx):
                soft = F.one_hot(batch[1], CLASSES) * 0.9 + 0.1 / CLASSES
                return F.cross_entropy(self(batch[0]), soft)

        fit(BCLightningModule(made(Smoothed), h1=h1), tmp_path, max_epochs=1)

    def test_where_batches_of_other_kinds_have_it(self, h1, tmp_path):
        class Pair(NamedTuple):
            x: torch.Tensor
            weight: torch.Tensor
            label: torch.Tensor

        @dataclass
        class Graphs:
            x: torch.Tensor
            y: torch.Tensor

        x, y = dataset().tensors

        class Named(Forward):
            def training_step(self, batch, batch_idx):
                return F.cross_entropy(self(batch.x), batch.label if hasattr(batch, "label") else batch.y)

        for kind in (lambda a, b: Pair(a, torch.ones(len(a)), b), Graphs):
            data = DataLoader(
                dataset(), 16, collate_fn=lambda rows, kind=kind: kind(*map(torch.stack, zip(*rows, strict=True)))
            )
            trainer = fit(BCLightningModule(made(Named), h1=h1), tmp_path, train=data, val=[], max_epochs=1)
            assert trainer.callback_metrics["train_accuracy_h1"].item() == pytest.approx(accuracy(h1, x, y))


class TestStoredOutputsOfMixtures:
    def stored(self, h1, tmp_path):
        return store_outputs(h1, dataset(), tmp_path / "h1")

    @pytest.mark.parametrize("where", ["step", "hook", "handed over"])
    def test_are_refused(self, where, h1, tmp_path):
        class Mixing(Forward):
            def on_after_batch_transfer(self, batch, dataloader_idx):
                return list(mixed(*batch)) if where == "hook" and self.trainer.training else batch

            def training_step(self, batch, batch_idx):
                x, y = batch if where == "hook" else mixed(*batch)
                if where == "handed over":
                    self.compatibility_target = y
                return F.cross_entropy(self(x), y)

        stored = self.stored(h1, tmp_path)
        module = BCLightningModule(made(Mixing), h1=stored, stages="train")
        with pytest.raises(ValueError, match=r"mixup.*h1's stored outputs (hold|are for).*h1=old_model"):
            fit(module, tmp_path, train=loader(stored.attach(dataset())))

    def test_of_preprocessed_inputs_are_taken(self, h1, tmp_path):
        class Scaled(Forward):
            def training_step(self, batch, batch_idx):
                return F.cross_entropy(self(batch[0] / 2), batch[1])

        stored = self.stored(h1, tmp_path)
        module = BCLightningModule(made(Scaled), h1=stored, stages="train")
        trainer = fit(module, tmp_path, train=loader(stored.attach(dataset())), max_epochs=1)
        assert trainer.callback_metrics["train_accuracy_h1"].item() == pytest.approx(accuracy(h1, *dataset().tensors))


@pytest.mark.slow
class TestCompiledSteps:
    """What can't be followed in a graph is refused with a remedy that works."""

    def weights(self, kind, h1, tmp_path, compiled, **options):
        module = BCLightningModule(made(kind), h1=h1, lambda_c=2.0, **options)
        given = torch.compile(module, backend="eager") if compiled else module
        fit(given, tmp_path, train=loader(), max_epochs=1)
        return module.net.weight.detach()

    def test_the_same_as_without(self, h1, tmp_path):
        class NoForward(Base):
            def training_step(self, batch, batch_idx):
                return F.cross_entropy(self.net(batch[0]), batch[1])

        class HandedOver(Base):
            def forward(self, x):
                return self.net(x)

            def training_step(self, batch, batch_idx):
                x, self.compatibility_target = mixed(*batch)
                return F.cross_entropy(self(x), self.compatibility_target)

        for kind, options in ((NoForward, {}), (HandedOver, {"scores": "net"})):
            one, two = (self.weights(kind, h1, tmp_path, compiled, **options) for compiled in (False, True))
            torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)

    def test_a_mixed_input_has_to_be_handed_over(self, h1, tmp_path):
        with pytest.raises(ValueError, match="self.compatibility_target = y"):
            self.weights(TestTarget.Mixup, h1, tmp_path, compiled=True, scores="net")
