"""Steps that optimise by hand and train something else than h2 on some batches."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from user_code import CLASSES, FEATURES, fit, loader, made

from bc_lightning import BCLightningModule


class Alternating(pl.LightningModule):
    """A critic and a classifier by turns; `h1` stands for one that holds the penalty itself."""

    h1 = None
    turn = 0

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.net = nn.Linear(FEATURES, CLASSES)
        self.critic = nn.Linear(FEATURES, 1)

    def forward(self, x):
        return self.net(x)

    def scores(self, x, batch_idx):
        return self(x)

    def is_critics(self, batch_idx):
        return batch_idx % 2 == self.turn

    def training_step(self, batch, batch_idx):
        (x, y), (own, critics) = batch, self.optimizers()
        if self.is_critics(batch_idx):
            critics.zero_grad()
            self.manual_backward(F.softplus(self.critic(x)).mean())
            critics.step()
            return
        own.zero_grad()
        outputs = self.scores(x, batch_idx)
        loss = F.cross_entropy(outputs, y)
        if self.h1 is not None:
            right = (self.h1(x).argmax(1) == y).float()
            loss = loss + 3.0 * (right * F.cross_entropy(outputs, y, reduction="none")).mean()
        self.manual_backward(loss)
        own.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(part.parameters(), lr=0.5) for part in (self.net, self.critic)]


class Submodule(Alternating):
    def scores(self, x, batch_idx):
        return self.net(x)


class Helped(Alternating):
    """The other is trained on the same labels."""

    def __init__(self):
        super().__init__()
        self.critic = nn.Linear(FEATURES, CLASSES)

    def training_step(self, batch, batch_idx):
        if not self.is_critics(batch_idx):
            return super().training_step(batch, batch_idx)
        self.optimizers()[1].zero_grad()
        self.manual_backward(F.cross_entropy(self.critic(batch[0]), batch[1]))
        return self.optimizers()[1].step()


class HelpedSubmodule(Helped, Submodule):
    pass


class CriticFirst(Alternating):
    def is_critics(self, batch_idx):
        return self.current_epoch == 0


class Unseen(Alternating):
    def scores(self, x, batch_idx):
        return self.net.forward(x)


class UnseenLater(Alternating):
    def scores(self, x, batch_idx):
        return self(x) if batch_idx < 2 else self.net(x)


class UnseenAlone(Alternating):
    def __init__(self):
        super().__init__()
        self.critic.requires_grad_(False)

    def is_critics(self, batch_idx):
        return False

    def scores(self, x, batch_idx):
        return self.net.forward(x)


@pytest.mark.parametrize("turn", [0, 1])
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Alternating, {}),
        (Submodule, {"scores": "net"}),
        (Helped, {"scores": lambda output: output}),
        (HelpedSubmodule, {"scores": "net"}),
    ],
)
def test_a_batch_that_trains_something_else_is_no_batch_of_h2s(kind, said, turn, h1, tmp_path):
    by_hand = made(type("ByHand", (kind,), {"h1": staticmethod(h1.eval()), "turn": turn}))
    module = BCLightningModule(made(type("Turn", (kind,), {"turn": turn})), h1=h1, lambda_c=3.0, **said)
    fit(by_hand, tmp_path, train=loader(), val=[])
    found = fit(module, tmp_path, train=loader(), val=[]).callback_metrics
    for name, value in by_hand.state_dict().items():
        torch.testing.assert_close(module.state_dict()[name], value, rtol=1e-4, atol=1e-6)
    # Of its own batches alone.
    right = [(h1(x).argmax(1) == y).float() for batch_idx, (x, y) in enumerate(loader()) if batch_idx % 2 != turn]
    assert found["train_accuracy_h1"].item() == pytest.approx(torch.cat(right).mean().item())


def test_an_epoch_that_trains_something_else_first(h1, tmp_path):
    by_hand = made(type("ByHand", (CriticFirst,), {"h1": staticmethod(h1.eval())}))
    module = BCLightningModule(made(CriticFirst), h1=h1, lambda_c=3.0)
    fit(by_hand, tmp_path, train=loader(), val=[])
    with pytest.warns(UserWarning, match="train steps of CriticFirst called h2 where it could be seen"):
        fit(module, tmp_path, train=loader(), val=[])
    torch.testing.assert_close(module.net.weight, by_hand.net.weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (UnseenAlone, "train step did not call forward"),
        (UnseenLater, "train step did not call forward"),
        (Submodule, "can't be told whether it is that .* Say it: scores='net'"),
        (HelpedSubmodule, "can't be told whether it is that .* Say it: scores='critic' or another"),
        (Helped, "can't be told whether it is that .* scores=lambda output: output"),
        (Unseen, r"nothing was held to h1. Say .* call net\(x\) instead of net.forward\(x\)"),
    ],
)
@pytest.mark.filterwarnings("ignore:None of the")
def test_a_call_of_h2_that_cannot_be_seen_is_refused(kind, message, h1, tmp_path):
    with pytest.raises(RuntimeError, match=message):
        fit(BCLightningModule(made(kind), h1=h1, lambda_c=3.0), tmp_path, val=[])
