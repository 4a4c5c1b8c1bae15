"""Steps as people write them: which call of h2 counts, what it was trained on, what h1 is asked."""

from __future__ import annotations

import warnings

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader
from user_code import CLASSES, FEATURES, UserModule, dataset, fit, loader, made
from users_modules import VAL, Base, Forward, accuracy, penalty, trains_like

from bc_lightning import BCLightningModule, evaluate, store_outputs, sweep
from bc_lightning.training._wrapped import compatibilities_of

# -- h1 gets what h2 got ------------------------------------------------------------------------------------------


class TestWhatH1IsAsked:
    def test_the_values_before_h2_changes_them_in_place(self, tmp_path):
        class InPlace(Forward):
            def forward(self, x):
                return self.net(x.sub_(1.0).mul_(2.0))

            def training_step(self, batch, batch_idx):
                return F.cross_entropy(self(batch[0].clone()), batch[1])

            def validation_step(self, batch, batch_idx):
                self(batch[0])

        old, x, y = made(InPlace, seed=8), *VAL.tensors
        with torch.no_grad():
            expected = (old.net((x - 1) * 2).argmax(1) == y).float().mean().item()
        data = DataLoader([(one.clone(), label) for one, label in zip(x, y, strict=True)], 16)
        trainer = fit(
            BCLightningModule(made(InPlace), h1=old), tmp_path, val=data, max_epochs=1, num_sanity_val_steps=0
        )
        assert trainer.callback_metrics["val_accuracy_h1"].item() == pytest.approx(expected)

    def test_the_values_before_the_step_changes_them(self, h1, tmp_path):
        class Adversarial(Forward):
            def training_step(self, batch, batch_idx):
                x, y = batch
                loss = F.cross_entropy(self(x), y)
                # Behind the back of autograd, which would refuse to go backward.
                x.data.add_(100.0)
                return loss

        trainer = fit(BCLightningModule(made(Adversarial), h1=h1), tmp_path, train=loader(), max_epochs=1)
        assert trainer.callback_metrics["train_accuracy_h1"].item() == pytest.approx(accuracy(h1, *dataset().tensors))

    @pytest.mark.parametrize("draws", ["torch", "numpy", "python"])
    def test_an_h1_that_draws_random_numbers_leaves_h2s_alone(self, draws, tmp_path):
        import random

        import numpy as np

        def old(x):
            noise = {"torch": lambda: torch.rand(1), "numpy": np.random.rand, "python": random.random}[draws]()
            return torch.zeros(len(x), CLASSES) + float(noise)

        class Drawing(UserModule):
            def training_step(self, batch, batch_idx):
                self.calls += [random.random(), np.random.rand()]  # noqa: NPY002
                return super().training_step(batch, batch_idx)

        results = []
        for wrap in (False, True):
            random.seed(1)
            np.random.seed(1)  # noqa: NPY002
            net = made(Drawing)
            fit(BCLightningModule(net, h1=old, lambda_c=0.0) if wrap else net, tmp_path)
            results.append(net)
        assert all(torch.equal(a, b) for a, b in zip(*(net.state_dict().values() for net in results), strict=True))
        assert results[0].calls == results[1].calls


class TestH1OfH2sKind:
    class NoForward(Base):
        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self.net(batch[0]), batch[1])

    class TwoOutputs(NoForward):
        def forward(self, x, y=None):
            logits = self.net(x)
            return F.cross_entropy(logits, y) if y is not None else 0, logits

        def training_step(self, batch, batch_idx):
            return self(*batch)[0]

        def validation_step(self, batch, batch_idx):
            self(batch[0])

    class Softmaxed(NoForward):
        def forward(self, x):
            return self.net(x).softmax(1)

    class Derived(NoForward):
        def __init__(self):
            super().__init__()
            self.more = nn.Linear(2, 2)

    @pytest.mark.parametrize(
        ("new", "old", "options"),
        [
            ("NoForward", "NoForward", {}),
            ("TwoOutputs", "TwoOutputs", {"scores": lambda output: output[1]}),
            ("TwoOutputs", "TwoOutputs", {"scores": "net"}),
            ("Softmaxed", "Softmaxed", {"loss": "StrictImitationCrossEntropyLoss"}),
            ("Derived", "NoForward", {"scores": "net"}),
            ("NoForward", "TwoOutputs", {"h1_scores": lambda output: output[1]}),
            ("TwoOutputs", "NoForward", {"scores": lambda output: output[1], "h1_scores": "net", "inputs": 0}),
            ("NoForward", "NoForward", {"inputs": 0}),
        ],
    )
    def test_answers_wherever_h2_does(self, new, old, options, tmp_path):
        new, old = made(getattr(self, new)), made(getattr(self, old), seed=9)
        trainer = fit(BCLightningModule(new, h1=old, **options), tmp_path, val=loader(VAL), max_epochs=1)
        assert trainer.callback_metrics["val_accuracy_h1"].item() == pytest.approx(accuracy(old.net))
        assert trainer.callback_metrics["val_accuracy_h2"].item() == pytest.approx(accuracy(new.net.eval()))
        assert not old.net._forward_hooks

    def test_a_wrapped_module_is_the_next_ones_h1(self, h1, tmp_path):
        first = BCLightningModule(made(self.NoForward), h1=h1)
        fit(first, tmp_path, max_epochs=1)
        trainer = fit(
            BCLightningModule(made(self.NoForward, seed=5), h1=first), tmp_path, val=loader(VAL), max_epochs=1
        )
        assert trainer.callback_metrics["val_accuracy_h1"].item() == pytest.approx(accuracy(first.net))

    def test_what_is_not_known_is_said(self):
        class TwoNets(Base):
            def __init__(self):
                super().__init__()
                self.other = nn.Linear(FEATURES, CLASSES)

        with pytest.raises(TypeError, match="no forward and more than one network.*h1_scores='name'"):
            BCLightningModule(made(self.NoForward), h1=made(TwoNets))
        with pytest.raises(ValueError, match="h1_scores='nets' names no submodule of h1. Known: 'net', 'other'"):
            BCLightningModule(made(self.NoForward), h1=made(TwoNets), h1_scores="nets")

    def test_outputs_of_a_network_without_forward_can_be_stored(self, tmp_path):
        old = made(self.NoForward)
        stored = store_outputs(old, VAL, tmp_path / "h1")
        torch.testing.assert_close(stored[:], old.net(VAL.tensors[0]).detach())


# -- which part of h2 gives the scores ----------------------------------------------------------------------------


class TestWhereTheScoresAre:
    def test_the_submodule_that_the_steps_call(self, h1, tmp_path):
        class ForPrediction(Base):
            def forward(self, x):
                return self.net(x).argmax(1)

            def training_step(self, batch, batch_idx):
                return F.cross_entropy(self.net(batch[0]), batch[1])

        class ByHand(ForPrediction):
            def training_step(self, batch, batch_idx):
                x, y = batch
                return super().training_step(batch, batch_idx) + penalty(self.net, h1, x, y)

        trainer = trains_like(ForPrediction, ByHand, h1, tmp_path)
        assert trainer.callback_metrics["val_accuracy_h1"].item() == pytest.approx(accuracy(h1))

    def test_of_two_the_one_that_the_loss_was_computed_from(self, h1, tmp_path):
        class Distilled(Base):
            def __init__(self):
                super().__init__()
                self.teacher = nn.Linear(FEATURES, CLASSES)

            def training_step(self, batch, batch_idx):
                x, y = batch
                with torch.no_grad():
                    soft = (self.teacher(x) / 2).softmax(1)
                logits = self.net(x)
                return F.cross_entropy(logits, y) + F.kl_div((logits / 2).log_softmax(1), soft, reduction="batchmean")

        module = BCLightningModule(made(Distilled), h1=h1)
        trainer = fit(module, tmp_path, train=loader(), val=loader(VAL), max_epochs=1)
        assert {stage: found.scores for stage, found in compatibilities_of(module)[0].found.items()} == {
            "val": "net",
            "train": "net",
        }
        assert trainer.callback_metrics["val_accuracy_h2"].item() == pytest.approx(accuracy(module.net.eval()))

    def test_a_backbone_and_a_head(self, h1, tmp_path):
        class BodyAndHead(Base):
            def __init__(self):
                super().__init__()
                self.body, self.net = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, CLASSES)

            def between(self, features):
                return features

            def logits(self, x):
                return self.net(self.between(self.body(x)))

            def training_step(self, batch, batch_idx):
                return F.cross_entropy(self.logits(batch[0]), batch[1])

            def validation_step(self, batch, batch_idx):
                self.log("val_loss", F.cross_entropy(self.logits(batch[0]), batch[1]))

        class WithRelu(BodyAndHead):
            def between(self, features):
                return features.relu()

        def validated(new, old, **options):
            trainer = fit(BCLightningModule(new, h1=old, **options), tmp_path, val=loader(VAL), max_epochs=1)
            return trainer.callback_metrics["val_accuracy_h1"].item()

        # An h1 of its kind is asked part by part; any other gets what the first part got.
        old = made(BodyAndHead, seed=8)
        assert validated(made(BodyAndHead), old) == pytest.approx(accuracy(old.logits))
        for kind in (BodyAndHead, WithRelu):
            assert validated(made(kind), h1) == pytest.approx(accuracy(h1))
            assert validated(made(kind), made(Forward, seed=8)) == pytest.approx(accuracy(made(Forward, seed=8)))
        # What happens between the parts is not known of an h1 that has no forward either.
        old = made(WithRelu, seed=8)
        for options in ({}, {"h1_scores": "net"}, {"scores": "net"}, {"scores": "net", "h1_scores": "net"}):
            with pytest.raises(ValueError, match="'net' was called with.*computed by another part of h2"):
                fit(BCLightningModule(made(WithRelu), h1=old, **options), tmp_path)
        found = validated(made(WithRelu), old.logits, scores="net", inputs=0)
        assert found == pytest.approx(accuracy(old.logits))

    def test_an_embedding_is_not_taken_for_scores(self, h1, tmp_path):
        class Prototypes(Base):
            """Classes by distance from prototypes: forward's columns are no classes."""

            def __init__(self, width=FEATURES):
                super().__init__()
                self.net = nn.Linear(FEATURES, width)
                self.prototypes = nn.Parameter(torch.randn(CLASSES, width))

            def forward(self, x):
                return self.net(x)

            def training_step(self, batch, batch_idx):
                return F.cross_entropy(-torch.cdist(self(batch[0]), self.prototypes), batch[1])

            def validation_step(self, batch, batch_idx):
                self(batch[0])

        class Triplets(Forward):
            def training_step(self, batch, batch_idx):
                z = self(batch[0])
                return F.triplet_margin_loss(z, z.roll(1, 0), z.roll(2, 0))

        class ArcFace(Prototypes):
            def training_step(self, batch, batch_idx):
                z, w = F.normalize(self(batch[0])), F.normalize(self.prototypes)
                return F.cross_entropy(8 * F.linear(z, w), batch[1])

        class Encoder(Prototypes):
            forward = pl.LightningModule.forward

            def training_step(self, batch, batch_idx):
                return F.cross_entropy(-torch.cdist(self.net(batch[0]), self.prototypes), batch[1])

        for kind in (Prototypes, Triplets, ArcFace):
            with pytest.raises(ValueError, match="scores='name' or scores=function of the output"):
                fit(BCLightningModule(made(kind), h1=nn.Linear(FEATURES, FEATURES)), tmp_path, val=[])
        with pytest.raises((RuntimeError, ValueError), match="scores='name'"):
            fit(BCLightningModule(made(Encoder), h1=nn.Linear(FEATURES, FEATURES)), tmp_path, val=[])

    def test_forward_that_is_called_by_name_is_said_to_be(self, h1, tmp_path):
        class ByName(Base):
            def training_step(self, batch, batch_idx):
                return F.cross_entropy(self.net.forward(batch[0]), batch[1])

        with pytest.raises(RuntimeError, match=r"calls net\.forward\(x\) must call net\(x\)"):
            fit(BCLightningModule(made(ByName), h1=h1, stages="train"), tmp_path)

        class NeverInValidation(Forward):
            def training_step(self, batch, batch_idx):
                return F.cross_entropy(self(batch[0]), batch[1])

            def validation_step(self, batch, batch_idx):
                self.net.forward(batch[0])

        with pytest.raises(RuntimeError, match=r"None of the 3 val steps.*net\(x\) instead of net\.forward\(x\)"):
            fit(BCLightningModule(made(NeverInValidation), h1=h1), tmp_path)

    def test_a_validation_step_may_leave_batches_out(self, h1, tmp_path):
        class Skipping(UserModule):
            def validation_step(self, batch, batch_idx):
                if batch_idx != 1:
                    super().validation_step(batch, batch_idx)

        trainer = fit(BCLightningModule(made(Skipping), h1=h1), tmp_path, val=loader(VAL), max_epochs=1)
        x, y = (torch.cat([part[:20], part[40:]]) for part in VAL.tensors)
        assert trainer.callback_metrics["val_accuracy_h1"].item() == pytest.approx(accuracy(h1, x, y))


# -- several calls ------------------------------------------------------------------------------------------------


class TestSeveralCalls:
    class TwoViews(Forward):
        def training_step(self, batch, batch_idx):
            x, y = batch
            first, second = self(x), self(x.flip(-1))
            return F.cross_entropy(first, y) + 0.1 * F.mse_loss(first, second)

    @pytest.mark.parametrize(
        ("call", "view"),
        [
            ("first", lambda x: x),
            (0, lambda x: x),
            (1, lambda x: x.flip(-1)),
            (-1, lambda x: x.flip(-1)),
            (lambda calls: len(calls) - 1, lambda x: x.flip(-1)),
            (
                lambda calls: [len(each.output) for each in calls].index(20 if len(calls[0].output) == 20 else 16),
                lambda x: x,
            ),
        ],
    )
    def test_the_one_that_counts(self, call, view, h1, tmp_path):
        class ByHand(self.TwoViews):
            def training_step(self, batch, batch_idx):
                x, y = batch
                return super().training_step(batch, batch_idx) + penalty(self.net, h1, view(x), y)

        trainer = trains_like(self.TwoViews, ByHand, h1, tmp_path, call=call)
        x, y = dataset().tensors
        assert trainer.callback_metrics["train_accuracy_h1"].item() == pytest.approx(accuracy(h1, view(x), y))

    def test_averaged_over_views_in_validation(self, h1, tmp_path):
        class Averaging(self.TwoViews):
            def validation_step(self, batch, batch_idx):
                return (self(batch[0]) + self(batch[0].flip(-1))) / 2

        with pytest.raises(RuntimeError, match="val step called forward 2 times.*call='first'"):
            fit(BCLightningModule(made(Averaging), h1=h1), tmp_path)
        trainer = fit(BCLightningModule(made(Averaging), h1=h1, call="first"), tmp_path, val=loader(VAL), max_epochs=1)
        assert trainer.callback_metrics["val_accuracy_h1"].item() == pytest.approx(accuracy(h1))

    def test_bad_answers_are_told(self, h1, tmp_path):
        for call in (True, "last", 1.5):
            with pytest.raises(ValueError, match="call must be 'first', an index or a function"):
                BCLightningModule(made(Forward), h1=h1, call=call)
        with pytest.raises(RuntimeError, match="call=2 gave 2, but TwoViews's train step called h2 2 times"):
            fit(BCLightningModule(made(self.TwoViews), h1=h1, call=2), tmp_path)

    def test_recomputed_activations_are_no_second_call(self, h1, tmp_path):
        from torch.utils.checkpoint import checkpoint

        class Recomputing(UserModule):
            def __init__(self):
                super().__init__()
                self.automatic_optimization = False

            def training_step(self, batch, batch_idx):
                optimizer = self.optimizers()
                optimizer.zero_grad()
                self.manual_backward(F.cross_entropy(checkpoint(self, batch[0], use_reentrant=False), batch[1]))
                optimizer.step()

        trainer = fit(BCLightningModule(made(Recomputing), h1=h1), tmp_path, train=loader(), max_epochs=1)
        assert trainer.callback_metrics["train_accuracy_h1"].item() == pytest.approx(accuracy(h1, *dataset().tensors))


# -- batches ------------------------------------------------------------------------------------------------------


def test_closures_without_a_batch_index_count_a_batch_once(h1, tmp_path):
    class Closures(Forward):
        def training_step(self, batch):
            return F.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=3)

    counted = []
    module = BCLightningModule(made(Closures), h1=h1)

    class Count(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            record = compatibilities_of(pl_module)[0].run.epochs["train"].records[0]
            record._count()
            counted.append(int(record.counts.sum()))

    fit(module, tmp_path, train=loader(), max_epochs=1, callbacks=[Count()])
    assert counted == [96]


def test_a_step_that_calls_another_is_one_step(h1, tmp_path):
    class Calling(Forward):
        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch, batch_idx):
            return self.training_step(batch, batch_idx)

        def test_step(self, batch, batch_idx):
            return self.validation_step(batch, batch_idx)

    module = BCLightningModule(made(Calling), h1=h1)
    trainer = fit(module, tmp_path, train=loader(), val=loader(VAL), max_epochs=1)
    assert trainer.callback_metrics["val_accuracy_h1"].item() == pytest.approx(accuracy(h1))
    assert trainer.callback_metrics["train_accuracy_h1"].item() == pytest.approx(accuracy(h1, *dataset().tensors))
    (found,) = trainer.test(module, loader(VAL), verbose=False)
    assert found["test_accuracy_h1"] == pytest.approx(accuracy(h1))


def test_a_step_that_takes_the_iterator_is_told_what_to_do(h1, tmp_path):
    class Iterating(Forward):
        def training_step(self, dataloader_iter):
            batch, *_ = next(dataloader_iter)
            return F.cross_entropy(self(batch[0]), batch[1])

    with pytest.raises(TypeError, match=r"takes dataloader_iter.*def training_step\(self, batch, batch_idx\)"):
        fit(BCLightningModule(made(Iterating), h1=h1), tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(BCLightningModule(made(Iterating), h1=h1, stages=["val"]), tmp_path, max_epochs=1)


# -- the same where models are compared and swept -------------------------------------------------------------------


@pytest.mark.parametrize(("new", "old", "options"), [
    ("NoForward", "NoForward", {}),
    ("TwoOutputs", "TwoOutputs", {"scores": lambda output: output[1]}),
    ("TwoOutputs", "NoForward", {"scores": lambda output: output[1], "h1_scores": "net"}),
    ("NoForward", "TwoOutputs", {"h1_scores": lambda output: output[1]}),
])  # fmt: skip
def test_evaluate_reads_h1_as_training_does(new, old, options):
    h2, h1 = made(getattr(TestH1OfH2sKind, new)), made(getattr(TestH1OfH2sKind, old), seed=9)
    overlap = evaluate(h1, h2, VAL, **options).comparison.overlap
    assert overlap.accuracy_h1 == pytest.approx(accuracy(h1.net))
    assert overlap.accuracy_h2 == pytest.approx(accuracy(h2.net))


def test_a_module_of_parts_is_evaluated_and_swept_as_it_was_trained(tmp_path):
    class Parts(Base):
        def __init__(self):
            super().__init__()
            self.body, self.net = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, CLASSES)

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self.net(self.body(batch[0])), batch[1])

        def validation_step(self, batch, batch_idx):
            self.log("val_loss", self.training_step(batch, batch_idx))

    def logits(module):
        return lambda x: module.net(module.body(x))

    h1 = made(Parts, seed=8)
    module = BCLightningModule(made(Parts), h1=h1)
    fit(module, tmp_path, max_epochs=1)
    overlap = evaluate(h1, module, VAL).comparison.overlap
    assert overlap.accuracy_h1 == pytest.approx(accuracy(logits(h1)))
    assert overlap.accuracy_h2 == pytest.approx(accuracy(logits(module)))
    found = sweep(
        lambda: made(TestH1OfH2sKind.TwoOutputs),
        made(TestH1OfH2sKind.TwoOutputs, seed=9),
        loader(),
        test=loader(VAL),
        folder=tmp_path / "sweep",
        lambdas=[1.0],
        losses=["new_error"],
        scores=lambda output: output[1],
        trainer={"max_epochs": 1, "accelerator": "cpu"},
        tensorboard=False,
        progress_bar=False,
    )
    row = next(row for row in found.rows() if row["dataset"] == "test")
    assert row["accuracy_h1"] == pytest.approx(accuracy(made(TestH1OfH2sKind.TwoOutputs, seed=9).net))
