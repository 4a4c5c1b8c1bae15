"""A batch whose items were all left out trains nothing and counts nothing, wherever it comes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from user_code import CLASSES, FEATURES, UserModule, dataset, fit, made, make_h1

from bc_core import Comparison
from bc_lightning import BCLightningModule, CompatibilityLoss, LogComparisons

X, Y = dataset(24).tensors


class Batches:
    def __init__(self, *batches):
        self.batches = batches

    def __iter__(self):
        return iter([list(batch) for batch in self.batches])

    def __len__(self):
        return len(self.batches)


class Sums(UserModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(FEATURES, CLASSES)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1], reduction="sum") / 12

    def validation_step(self, batch, batch_idx):
        self(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def plain(h1, **options):
    torch.manual_seed(3)
    net = nn.Linear(FEATURES, CLASSES)
    return BCLightningModule(net, h1=h1, optimizer=lambda parameters: torch.optim.SGD(parameters, 0.1), **options)


WRAPPED = {
    "own step": lambda h1, **options: BCLightningModule(made(Sums), h1=h1, **options),
    "plain": plain,
    "support": lambda h1, **options: plain(h1, loss=CompatibilityLoss(normalization="support"), **options),
}


# A loader of the user's own has no order that is known.
@pytest.mark.filterwarnings("ignore:It is not known which items")
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("wrapped", WRAPPED)
def test_an_empty_batch_trains_and_counts_nothing(wrapped, place, tmp_path):
    results = []
    for name, empty in (("without", ()), ("with", ((X[:0], Y[:0]),))):
        batches = [(X[:12], Y[:12]), (X[12:], Y[12:])]
        batches[place:place] = empty
        options = {"comparisons": LogComparisons(directory=tmp_path / name)}
        module = WRAPPED[wrapped](make_h1(), **options)
        trainer = fit(module, tmp_path, train=Batches(*batches), val=Batches(*batches), max_epochs=2)
        logged = {key: value.item() for key, value in trainer.callback_metrics.items()}
        tables = [Comparison.load(path) for path in sorted((tmp_path / name).iterdir())]
        results.append((logged, module.state_dict(), [(table.overlap, len(table.instances.ids)) for table in tables]))
    (logged, state, tables), (found, with_empty, other_tables) = results
    assert found == logged
    assert other_tables == tables
    for key, value in state.items():
        assert torch.equal(value, with_empty[key])
