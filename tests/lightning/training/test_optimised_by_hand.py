"""Steps that optimise by hand several losses, of which one is h2's: what is penalised is the latter."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from user_code import CLASSES, FEATURES, fit, loader, made
from users_modules import Forward

from bc_lightning import BCLightningModule

AUXILIARY = {
    "values": lambda values, y: values.square().mean(),
    "a critic's": lambda values, y: F.binary_cross_entropy_with_logits(values, torch.ones_like(values)),
    "a pretext's": lambda values, y: F.cross_entropy(values, torch.arange(len(values)) % CLASSES),
    "labels": F.cross_entropy,
}


def trained(module_class, h1, tmp_path, **options):
    module = BCLightningModule(made(module_class), h1=h1, **options)
    trainer = fit(module, tmp_path, train=loader(), val=[], max_epochs=1)
    return module, {name: value.item() for name, value in trainer.callback_metrics.items()}


class Heads(Forward):
    """An auxiliary head, and then h2's scores, each with an optimiser and a backward pass of its own."""

    penalised = False
    found_in = "forward"
    auxiliary = "values"

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.other = nn.Linear(FEATURES, CLASSES)

    def optimised(self, optimizer, loss):
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    def training_step(self, batch, batch_idx):
        x, y = batch
        own, others = self.optimizers()
        values = self.other(x)
        self.optimised(others, AUXILIARY[self.auxiliary](values, y))
        logits = self(x) if self.found_in == "forward" else self.net(x)
        loss = F.cross_entropy(logits, y)
        if self.penalised:
            right = (self.h1[0](x).argmax(1) == y).float()
            loss = loss + 3.0 * (F.cross_entropy(logits, y, reduction="none") * right).mean()
        self.optimised(own, loss)
        self.afterwards(x)

    def afterwards(self, x):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), 0.1), torch.optim.SGD(self.other.parameters(), 0.1)


@pytest.mark.parametrize("found_in", ["forward", "net"])
@pytest.mark.parametrize("auxiliary", AUXILIARY)
def test_an_auxiliary_head_that_is_optimised_first_does_not_give_the_scores(h1, tmp_path, found_in, auxiliary):
    kind = type("Heads", (Heads,), {"found_in": found_in, "auxiliary": auxiliary, "h1": [h1]})
    options = {}
    if auxiliary == "labels":
        with pytest.raises(RuntimeError, match="a loss of submodule 'other' first.* scores='other' or another"):
            trained(kind, h1, tmp_path)
        options["scores"] = "net" if found_in == "net" else lambda output: output
    module, found = trained(kind, h1, tmp_path, lambda_c=3.0, **options)
    _is_by_hand(module, kind, tmp_path)
    assert found["train_base_loss"] > 0.5


def _is_by_hand(module, kind, tmp_path):
    expected = made(type("ByHand", (kind,), {"penalised": True}))
    fit(expected, tmp_path, train=loader(), val=[], max_epochs=1)
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(module.state_dict()[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("found_in", "options"), [("forward", {}), ("net", {}), ("net", {"scores": "net"})])
def test_a_metric_after_the_loss_asks_h2_again(h1, tmp_path, found_in, options):
    class Measured(Heads):
        def afterwards(self, x):
            with torch.no_grad():
                self(x)

    kind = type("M", (Measured,), {"found_in": found_in, "h1": [h1]})
    module, _ = trained(kind, h1, tmp_path, lambda_c=3.0, **options)
    _is_by_hand(module, kind, tmp_path)


def test_a_second_call_with_gradients_is_refused_until_the_first_counts(h1, tmp_path):
    class Again(Heads):
        def afterwards(self, x):
            self.again = self(x).detach()

    kind = type("M", (Again,), {"h1": [h1]})
    with pytest.raises(RuntimeError, match="call='first'"):
        trained(kind, h1, tmp_path)
    module, _ = trained(kind, h1, tmp_path, lambda_c=3.0, call="first")
    _is_by_hand(module, kind, tmp_path)
