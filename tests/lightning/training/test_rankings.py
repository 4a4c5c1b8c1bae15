"""Losses that are computed from other scores than h2's output: known by how they rank the classes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from user_code import CLASSES, FEATURES, dataset, fit, made, make_h1
from users_modules import VAL, Base, Forward

from bc_lightning import BCLightningModule, CompatibilityLoss

OTHERWISE = "from scores that rank the classes otherwise"
PRIOR = torch.tensor([2.0, 0.0, -1.0, 0.5, 1.0])[:CLASSES]


class Own(Forward):
    """A step whose loss gets something made of h2's output."""

    def given(self, output):
        return output

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.given(self(x)), y)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.training_step(batch, batch_idx))


def own(function):
    return type("Own", (Own,), {"given": lambda self, output: function(output)})


@pytest.mark.parametrize(
    "function",
    [
        lambda o: -o,
        lambda o: 1 - o,
        lambda o: (-o).log_softmax(1),
        lambda o: -(o**2),
        lambda o: o.flip(0),
        lambda o: o[torch.randperm(len(o))],
        lambda o: o.index_select(0, torch.arange(len(o)).roll(1)),
        lambda o: o.sort(0)[0],
        lambda o: 0.5 * o + 0.5 * o.flip(0),
        lambda o: o.roll(1, 1),
        lambda o: F.linear(F.normalize(o), torch.eye(CLASSES).roll(1, 0)),
    ],
)
def test_another_ranking_is_refused(function, tmp_path):
    with pytest.raises(ValueError, match=OTHERWISE):
        fit(BCLightningModule(made(own(function)), h1=make_h1(), lambda_c=1.0), tmp_path)


@pytest.mark.parametrize(
    "function",
    [
        lambda o: o / 3,
        lambda o: o.log_softmax(1),
        lambda o: F.normalize(o) * 8,
        lambda o: o - o.mean(1, keepdim=True),
        lambda o: o.clamp(-0.2, 0.2),
        lambda o: o.bfloat16().float(),
        lambda o: o + PRIOR.log_softmax(0),
    ],
)
def test_the_same_ranking_trains_as_it_is_told(function, tmp_path):
    weights = []
    for scores in (None, lambda output: output):
        module = made(own(function))
        fit(BCLightningModule(module, h1=make_h1(), lambda_c=1.0, scores=scores), tmp_path)
        weights.append(torch.cat([each.detach().ravel() for each in module.parameters()]))
    assert torch.equal(*weights)


def test_a_margin_of_the_true_class_is_no_other_ranking(tmp_path):
    class Margin(Own):
        def training_step(self, batch, batch_idx):
            x, y = batch
            return F.cross_entropy(self(x) - 5.0 * F.one_hot(y, CLASSES), y)

        def validation_step(self, batch, batch_idx):
            self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

    trainer = fit(BCLightningModule(made(Margin), h1=make_h1(), lambda_c=1.0), tmp_path)
    assert trainer.callback_metrics["train_dissonance"] > 0


class Pixels(Base):
    """Of more than one place for each instance, with the classes on axis 1 or on the last."""

    last = False

    def __init__(self):
        super().__init__()
        self.net = nn.Conv2d(2, CLASSES, 1)

    def forward(self, x):
        return self.net(x).movedim(1, -1) if self.last else self.net(x)

    def training_step(self, batch, batch_idx):
        output = self.made_of(self(batch[0]))
        if self.flat:
            return F.cross_entropy(output.reshape(-1, CLASSES), batch[1].reshape(-1))
        return F.cross_entropy(output.movedim(-1, 1) if self.last else output, batch[1])

    def validation_step(self, batch, batch_idx):
        self.training_step(batch, batch_idx)


@pytest.mark.parametrize(("last", "flat"), [(False, False), (True, False), (True, True)])
def test_rankings_of_places(last, flat, tmp_path):
    torch.manual_seed(0)
    x, y = torch.randn(24, 2, 4, 5), torch.randint(CLASSES, (24, 4, 5))
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 8)

    def trained(function, **options):
        torch.manual_seed(7)
        kind = type("Kind", (Pixels,), {"last": last, "flat": flat, "made_of": lambda self, output: function(output)})
        old, new = made(kind, seed=8), made(kind)
        trainer = fit(BCLightningModule(new, h1=old, lambda_c=1.0, **options), tmp_path, data, data, max_epochs=1)
        return old, trainer.callback_metrics["val_accuracy_h1"]

    for function in (lambda o: -o, lambda o: o.flip(0)):
        with pytest.raises(ValueError, match=OTHERWISE):
            trained(function)
    trained(lambda o: 2 * o)
    # The remedy: h1 and h2 predict by what is smallest.
    old, accuracy = trained(lambda o: -o, scores=lambda output: -output)
    with torch.no_grad():
        assert float(accuracy) == pytest.approx(float((old.net(x).argmin(1) == y).float().mean()))


class Distances(Base):
    """Its output is small for the class that it says."""

    def __init__(self):
        super().__init__()
        self.points = nn.Parameter(torch.randn(CLASSES, FEATURES))

    def forward(self, x):
        return torch.cdist(x, self.points)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(-self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.training_step(batch, batch_idx))


def test_distances_are_scores_where_that_is_said(tmp_path):
    h1, h2 = made(Distances, seed=7), made(Distances)
    with pytest.raises(ValueError, match=OTHERWISE):
        fit(BCLightningModule(h2, h1=h1, lambda_c=1.0), tmp_path)
    h2 = made(Distances)
    trainer = fit(BCLightningModule(h2, h1=h1, lambda_c=1.0, scores=lambda output: -output), tmp_path)
    x, y = (torch.stack(part) if part[0].ndim else torch.tensor(part) for part in zip(*VAL, strict=True))
    for name, model in (("h1", h1), ("h2", h2)):
        with torch.no_grad():
            right = float((model(x).argmin(1) == y).float().mean())
        assert float(trainer.callback_metrics[f"val_accuracy_{name}"]) == pytest.approx(right)


@pytest.mark.parametrize("batch_size", [4, 12])
def test_small_batches_of_binary_probabilities_tell_it_together(tmp_path, batch_size):
    class Binary(Base):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(FEATURES, 1)

        def forward(self, x):
            return self.net(x).squeeze(-1)

        def training_step(self, batch, batch_idx):
            return F.binary_cross_entropy_with_logits(self(batch[0]), (batch[1] % 2).float())

        def validation_step(self, batch, batch_idx):
            self.log("val_loss", self.training_step(batch, batch_idx))

    data = [(x, y % 2) for x, y in dataset()]
    h1 = made(Binary, seed=7)
    loss = CompatibilityLoss("binary_cross_entropy", "new_error")
    module = BCLightningModule(made(Binary), h1=lambda x: h1(x).sigmoid(), loss=loss, lambda_c=1.0)
    with pytest.raises(ValueError, match="h1 must give logits here"):
        fit(module, tmp_path, torch.utils.data.DataLoader(data, batch_size), torch.utils.data.DataLoader(data, 4))
