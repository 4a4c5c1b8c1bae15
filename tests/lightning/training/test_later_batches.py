"""What a step does from its second batch on, or where it can't be seen: known, or refused with a remedy that works."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from test_doubtful_steps import trained
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from user_code import CLASSES, FEATURES, dataset, fit, loader, made
from users_modules import VAL, Base, Forward, accuracy, mixed

from bc_lightning import BCLightningModule

X, Y = dataset().tensors
LATER = torch.arange(96) >= 20  # what comes after the first batch of 20


def flipped(batch, batch_idx):
    return batch[1] if batch_idx == 0 else CLASSES - 1 - batch[1]


EXPECTED = torch.where(LATER, CLASSES - 1 - Y, Y)


# -- labels -------------------------------------------------------------------------------------------------------


class MapsForTorch(Forward):
    hands_over = False

    def labels(self, batch, batch_idx):
        y = flipped(batch, batch_idx)
        if self.hands_over:
            self.compatibility_target = y
        return y

    def training_step(self, batch, batch_idx):
        y = self.labels(batch, batch_idx)
        return F.cross_entropy(self(batch[0]), y)


class MapsBeforeH2(MapsForTorch):
    def training_step(self, batch, batch_idx):
        y = self.labels(batch, batch_idx)
        return -self(batch[0]).log_softmax(1).gather(1, y[:, None]).mean()


class MapsAfterH2(MapsForTorch):
    def training_step(self, batch, batch_idx):
        log_p = self(batch[0]).log_softmax(1)
        return -log_p[torch.arange(len(log_p)), self.labels(batch, batch_idx)].mean()


class MapsBesideWeights(MapsForTorch):
    def training_step(self, batch, batch_idx):
        y, weight = self.labels(batch, batch_idx), torch.tensor([1.0, 2.0, 3.0])[batch[1]]
        return -(weight * self(batch[0]).log_softmax(1).gather(1, y[:, None])[:, 0]).mean()


class MapsOneHot(MapsForTorch):
    def training_step(self, batch, batch_idx):
        y = F.one_hot(self.labels(batch, batch_idx), CLASSES).float()
        logits = self(batch[0])
        self.log("accuracy", (logits.argmax(1) == batch[1]).float().mean())
        return -(y * logits.log_softmax(1)).sum(1).mean()


@pytest.mark.parametrize("kind", [MapsForTorch, MapsBeforeH2, MapsAfterH2, MapsBesideWeights, MapsOneHot])
def test_labels_that_are_mapped_from_the_second_batch_on(kind, h1, tmp_path):
    with pytest.raises(ValueError, match="another target than|other class indices"):
        trained(kind, h1, tmp_path)
    _, found = trained(type("M", (kind,), {"hands_over": True}), h1, tmp_path)
    assert found["train_accuracy_h1"] == pytest.approx(accuracy(h1, X, EXPECTED))


@pytest.mark.parametrize("where", ["before", "after"])
def test_signs_of_a_hinge_loss_that_are_turned(where, tmp_path):
    class Hinge(Forward):
        def turned(self, batch, batch_idx):
            return batch_idx > 0

        def signs(self, batch, batch_idx):
            signs = 2 * batch[1] - 1
            return -signs if self.turned(batch, batch_idx) else signs

        def training_step(self, batch, batch_idx):
            signs = self.signs(batch, batch_idx) if where == "before" else None
            scores = self(batch[0])[:, 0]
            signs = self.signs(batch, batch_idx) if where == "after" else signs
            return F.relu(1 - signs * scores).mean()

    class Never(Hinge):
        def turned(self, batch, batch_idx):
            return False

    def old(x):
        return x[:, 1]

    y = (Y == 1).float()
    options = {"loss": "BCBinaryCrossEntropyLoss", "loss_options": {"from_logits": True}}
    options |= {"train": loader(TensorDataset(X, y)), "scores": lambda output: output[:, 0]}
    with pytest.raises(ValueError, match="another target than"):
        trained(Hinge, old, tmp_path, **options)
    _, found = trained(Never, old, tmp_path, **options)
    assert found["train_accuracy_h1"] == pytest.approx(((old(X) >= 0) == (y == 1)).float().mean().item())


def test_a_mask_of_the_labels_is_no_mapping(h1, tmp_path):
    class Masking(Forward):
        def training_step(self, batch, batch_idx):
            x, y = batch
            log_p = self(x).log_softmax(1).gather(1, y[:, None])[:, 0]
            return -(log_p * (y > 0)).mean() - 0.1 * log_p.mean()

    _, found = trained(Masking, h1, tmp_path)
    assert found["train_accuracy_h1"] == pytest.approx(accuracy(h1, X, Y))


def test_labels_that_are_mapped_from_the_second_validation_batch_on(h1, tmp_path):
    class Validating(Forward):
        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch, batch_idx):
            self.log("loss", F.cross_entropy(self(batch[0]), flipped(batch, batch_idx)))

    with pytest.raises(ValueError, match="val step computed its loss with another target"):
        fit(BCLightningModule(made(Validating), h1=h1), tmp_path, num_sanity_val_steps=0)


def test_coarse_labels_of_sorted_data(h1, tmp_path):
    class Coarse(Forward):
        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), (batch[1] == CLASSES - 1).long())

    order = Y.argsort()
    data = loader(TensorDataset(X[order], Y[order]))
    with pytest.raises(ValueError, match="another target than"):
        trained(Coarse, h1, tmp_path, train=data)
    _, found = trained(Coarse, h1, tmp_path, train=data, target=lambda batch: (batch[1] == CLASSES - 1).long())
    assert found["train_accuracy_h1"] == pytest.approx(accuracy(h1, X, (Y == CLASSES - 1).long()))


def test_some_instances_from_the_second_batch_on(h1, tmp_path):
    class Masked(Forward):
        def training_step(self, batch, batch_idx):
            x, y, mask = batch
            return F.cross_entropy(self(x)[mask], y[mask])

    mask = ~LATER | (torch.arange(96) % 3 == 0)
    data = loader(TensorDataset(X, Y, mask))
    with pytest.raises(ValueError, match="of the 20 instances.*a target that ignores the rest"):
        trained(Masked, h1, tmp_path, train=data)
    _, found = trained(Masked, h1, tmp_path, train=data, target=lambda batch: batch[1].masked_fill(~batch[2], -100))
    assert found["train_accuracy_h1"] == pytest.approx(accuracy(h1, X[mask], Y[mask]))


class MixedByData(Forward):
    """Mixed behind the back of the counters of changes."""

    hands_over = False

    def training_step(self, batch, batch_idx):
        x, y = batch
        mixed_x, soft = mixed(x.clone(), y, 0.6)
        x.data.copy_(mixed_x)
        if self.hands_over:
            self.compatibility_target = soft
        return self.loss(self(x), soft, y)

    def loss(self, logits, soft, y):
        return F.cross_entropy(logits, soft)


class MixedWithKL(MixedByData):
    def loss(self, logits, soft, y):
        self.log("accuracy", (logits.argmax(1) == y).float().mean())
        return F.kl_div(logits.log_softmax(1), soft, reduction="batchmean")


@pytest.mark.parametrize("kind", [MixedByData, MixedWithKL])
def test_a_mixed_target_on_what_seems_the_batchs_own_input(kind, h1, tmp_path):
    data = [(x.clone(), y) for x, y in zip(X, Y, strict=True)]
    with pytest.raises(ValueError, match="another target than.*the probabilities if they were mixed"):
        trained(kind, h1, tmp_path, train=DataLoader(data, 16))
    handing = type("M", (kind,), {"hands_over": True})
    _, found = trained(handing, h1, tmp_path, train=DataLoader(data, 16))
    right = [(h1(x).argmax(1) == soft.argmax(1)).float() for x, soft in (mixed(*b, 0.6) for b in DataLoader(data, 16))]
    assert found["train_accuracy_h1"] == pytest.approx(torch.cat(right).mean().item())


@pytest.mark.parametrize("kind", ["mixed labels", "teacher"])
def test_probabilities_alone_name_no_class(kind, h1, tmp_path):
    """Neither kind can be told from the other, though the largest entries are the labels."""

    class Soft(Forward):
        hands_over = False

        def training_step(self, batch, batch_idx):
            x, y = batch
            hard = F.one_hot(y, CLASSES).float()
            soft = 0.6 * hard + 0.4 * (hard.roll(1, 0) if kind == "mixed labels" else (x[:, :CLASSES]).softmax(1))
            if self.hands_over:
                self.compatibility_target = soft if kind == "mixed labels" else y
            return F.cross_entropy(self(x), soft)

    class ByHand(Soft):
        def training_step(self, batch, batch_idx):
            x, y = batch
            hard = F.one_hot(y, CLASSES).float()
            logits, right = self.net(x), (h1(x).argmax(1) == y).float()
            soft = 0.6 * hard + 0.4 * hard.roll(1, 0) if kind == "mixed labels" else hard
            penalty = -(soft * logits.log_softmax(1)).sum(1)
            return super().training_step(batch, batch_idx) + 4.0 * (right * penalty).mean()

    with pytest.raises(ValueError, match="the labels if it was a teacher's answer, the probabilities if they were mix"):
        trained(Soft, h1, tmp_path)
    module, found = trained(type("M", (Soft,), {"hands_over": True}), h1, tmp_path, lambda_c=4.0)
    expected = made(ByHand)
    fit(expected, tmp_path, train=loader(), val=[], max_epochs=1)
    torch.testing.assert_close(module.net.weight, expected.net.weight, rtol=1e-4, atol=1e-6)
    assert found["train_accuracy_h1"] == pytest.approx(accuracy(h1, X, Y))


def test_columns_of_several_labels_are_compared_one_by_one(tmp_path):
    labels = (torch.rand(96, CLASSES, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    labels[:, 0] = 1
    seen = torch.cat([labels[:, :1], 1 - labels[:, 1:]], 1)

    class Flipping(Forward):
        def training_step(self, batch, batch_idx):
            x, y = batch
            return F.binary_cross_entropy_with_logits(self(x), torch.cat([y[:, :1], 1 - y[:, 1:]], 1))

    def old(x):
        return x[:, :CLASSES] * 3

    data = loader(TensorDataset(X, labels))
    options = {"loss": "BCBinaryCrossEntropyLoss", "loss_options": {"from_logits": True}}
    with pytest.raises(ValueError, match="another target than"):
        trained(Flipping, old, tmp_path, train=data, **options)
    told = {"target": lambda batch: torch.cat([batch[1][:, :1], 1 - batch[1][:, 1:]], 1)}
    _, found = trained(Flipping, old, tmp_path, train=data, **options, **told)
    assert found["train_accuracy_h1"] == pytest.approx(((old(X) >= 0) == (seen == 1)).float().mean().item())


# -- inputs -------------------------------------------------------------------------------------------------------


def test_an_input_that_is_changed_in_place_from_the_second_call_on(h1, tmp_path):
    class Changing(Forward):
        copies = False
        calls = 0

        def forward(self, x):
            if self.copies:
                x = x.clone()
            self.calls += 1
            return self.net(x if self.calls == 1 else x.neg_())

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0].clone()), batch[1])

    with pytest.raises(RuntimeError, match=r"h2 or its step has changed in place.*x = x\.clone\(\)"):
        trained(Changing, h1, tmp_path)
    _, found = trained(type("M", (Changing,), {"copies": True}), h1, tmp_path)
    assert found["train_accuracy_h1"] == pytest.approx(accuracy(h1, X, Y))


def test_an_h1_that_changes_its_input_from_its_second_call_on(h1, tmp_path):
    calls = []

    def old(x):
        calls.append(x)
        answer = h1(x)
        if len(calls) > 1:
            x.data.zero_()
            x.zero_()
        return answer

    class Own(Forward):
        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1])

    with pytest.raises(RuntimeError, match=r"h1 has changed in place.*x = x\.clone\(\)"):
        trained(Own, old, tmp_path)


def test_an_input_that_the_step_changes_before_it_is_known_which_call_counts(h1, tmp_path):
    class Adversarial(Forward):
        def training_step(self, batch, batch_idx):
            x = batch[0].clone()
            loss = F.cross_entropy(self(x), batch[1])
            x.data.neg_()
            return loss + F.cross_entropy(self(x), batch[1])

    for call, inputs in ((lambda calls: 0, X), (-1, -X)):
        _, found = trained(Adversarial, h1, tmp_path, call=call)
        assert found["train_accuracy_h1"] == pytest.approx(accuracy(h1, inputs, Y))


class Tokens(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.words, self.domains = nn.Embedding(10, CLASSES), nn.Embedding(2, CLASSES)

    def forward(self, tokens, domain):
        return self.words(tokens).mean(1) + self.domains(domain)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_mixed_tokens_beside_ids_of_the_batch_are_no_input_of_its_own(tmp_path):
    class Mixing(Tokens):
        hands_over = False

        def training_step(self, batch, batch_idx):
            tokens, y, domain = batch
            if batch_idx:
                tokens = torch.cat([tokens[:, :1], tokens.roll(1, 0)[:, 1:]], 1)
            loss = 0.2 * F.cross_entropy(logits := self(tokens, domain), y)
            soft = F.one_hot(torch.stack([y, y.roll(1) if batch_idx else y]), CLASSES).float()
            if self.hands_over:
                self.compatibility_target = 0.2 * soft[0] + 0.8 * soft[1]
            return loss + 0.8 * F.cross_entropy(logits, y.roll(1) if batch_idx else y)

    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(10, (96, 5), generator=generator)
    data = loader(TensorDataset(tokens, Y, Y % 2))
    old = made(Tokens, seed=8)
    with pytest.raises(ValueError, match="something else than the batch's input"):
        trained(Mixing, old, tmp_path, train=data)
    _, found = trained(type("M", (Mixing,), {"hands_over": True}), old, tmp_path, train=data)
    right = []
    for index, (words, y, domain) in enumerate(data):
        moved = torch.cat([words[:, :1], words.roll(1, 0)[:, 1:]], 1) if index else words
        right.append((old(moved, domain).argmax(1) == (y.roll(1) if index else y)).float())
    assert found["train_accuracy_h1"] == pytest.approx(torch.cat(right).mean().item())


def test_positions_that_a_step_makes_are_no_mixture(tmp_path):
    class Positions(Tokens):
        def forward(self, tokens, positions, mask):
            return ((self.words(tokens) + self.words(positions)) * mask[..., None]).mean(1)

        def training_step(self, batch, batch_idx):
            tokens, y = batch
            logits = self(tokens, torch.arange(tokens.shape[1]), tokens > 0)
            return F.cross_entropy(logits, y)

    tokens = torch.randint(10, (96, 5), generator=torch.Generator().manual_seed(0))
    old = made(Positions, seed=8)
    _, found = trained(Positions, old, tmp_path, train=loader(TensorDataset(tokens, Y)))
    with torch.no_grad():
        right = (old(tokens, torch.arange(5), tokens > 0).argmax(1) == Y).float().mean().item()
    assert found["train_accuracy_h1"] == pytest.approx(right)


# -- parts --------------------------------------------------------------------------------------------------------


class TwiceLater(Base):
    """From the second batch on the body is called twice, and one of the calls leads to the head."""

    between = nn.Identity()

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(FEATURES, FEATURES)

    def training_step(self, batch, batch_idx):
        x, y = batch
        z, consistency = self.body(x), 0.0
        if batch_idx:
            consistency = F.mse_loss(self.body(x + 1), z.detach())
        return F.cross_entropy(self.net(self.between(z)), y) + consistency

    def validation_step(self, batch, batch_idx):
        self.net(self.between(self.body(batch[0])))


def test_a_body_that_is_called_twice_from_the_second_batch_on(h1, tmp_path):
    _, found = trained(TwiceLater, h1, tmp_path)
    assert found["train_accuracy_h1"] == pytest.approx(accuracy(h1, X, Y))
    old = made(TwiceLater, seed=8)
    _, found = trained(TwiceLater, old, tmp_path)
    assert found["train_accuracy_h1"] == pytest.approx(accuracy(lambda x: old.net(old.body(x)), X, Y))


def test_a_body_that_is_called_twice_with_something_between(h1, tmp_path):
    relu = type("M", (TwiceLater,), {"between": nn.ReLU()})
    with pytest.raises(ValueError, match=r"computed by another part of h2.*inputs=0"):
        trained(relu, h1, tmp_path)
    _, found = trained(relu, h1, tmp_path, scores="net", inputs=0)
    assert found["train_accuracy_h1"] == pytest.approx(accuracy(h1, X, Y))


def test_a_named_submodule_that_gets_features_from_the_second_batch_on(h1, tmp_path):
    class Later(TwiceLater):
        def training_step(self, batch, batch_idx):
            x, y = batch
            return F.cross_entropy(self.net(self.body(x) if batch_idx else x), y)

    with pytest.raises(ValueError, match="computed by another part of h2"):
        trained(Later, h1, tmp_path, scores="net")
    _, found = trained(Later, h1, tmp_path, scores="net", inputs=0)
    assert found["train_accuracy_h1"] == pytest.approx(accuracy(h1, X, Y))


# -- where a step can't be seen -----------------------------------------------------------------------------------


def test_a_step_inside_of_a_mode_of_torchs(h1, tmp_path):
    class Inside(Forward):
        def training_step(self, batch, batch_idx):
            with torch.device("cpu"):
                return F.cross_entropy(self(batch[0]), CLASSES - 1 - batch[1])

    with pytest.raises(ValueError, match="inside of a mode of torch's.*target=1 for"):
        trained(Inside, h1, tmp_path)
    _, found = trained(Inside, h1, tmp_path, target=lambda batch: CLASSES - 1 - batch[1])
    assert found["train_accuracy_h1"] == pytest.approx(accuracy(h1, X, CLASSES - 1 - Y))


def test_a_second_h1_is_watched_too(h1, tmp_path):
    class Mapping(Forward):
        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1])

    module = BCLightningModule(made(Mapping), h1=h1)
    module = BCLightningModule(module, h1=nn.Linear(FEATURES, CLASSES), log_prefix="other_")
    trainer = fit(module, tmp_path, train=loader(), val=loader(VAL), max_epochs=1)
    assert trainer.callback_metrics["val_accuracy_h1"].item() == pytest.approx(accuracy(h1))
    assert torch._C._len_torch_function_stack() == 0


@pytest.mark.slow
def test_a_compiled_step_that_maps_its_labels(h1, tmp_path):
    class Mapping(Forward):
        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), CLASSES - 1 - batch[1])

    def compiled(**options):
        module = BCLightningModule(made(Mapping), h1=h1, **options)
        trainer = fit(torch.compile(module, backend="eager"), tmp_path, train=loader(), val=[], max_epochs=1)
        return trainer.callback_metrics["train_accuracy_h1"].item()

    with pytest.raises(ValueError, match="compiled train step is not the mean of our base loss.*target=lambda batch"):
        compiled()
    expected = accuracy(h1, X, CLASSES - 1 - Y)
    assert compiled(target=lambda batch: CLASSES - 1 - batch[1]) == pytest.approx(expected)


@pytest.mark.slow
def test_a_network_that_is_compiled_by_itself_is_compiled_once_for_the_watch(h1, tmp_path):
    compilations = []

    def backend(graph, inputs):
        compilations.append(graph)
        return graph.forward

    class Teaching(Forward):
        def __init__(self):
            super().__init__()
            self.teacher = torch.compile(nn.Linear(FEATURES, CLASSES), backend=backend)

        def training_step(self, batch, batch_idx):
            logits = self(batch[0])
            with torch.no_grad():
                soft = self.teacher(batch[0]).softmax(1)
            return F.cross_entropy(logits, batch[1]) + F.kl_div(logits.log_softmax(1), soft, reduction="batchmean")

    torch._dynamo.reset()
    trained(Teaching, h1, tmp_path, train=loader(batch_size=16))
    assert len(compilations) == 1
