"""Packed sequences, which are tuples of tensors and one input."""

from __future__ import annotations

import copy

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import DataLoader
from user_code import make_trainer

from bc_lightning import BCLightningModule, evaluate, store_outputs

DRAW = torch.Generator().manual_seed(0)
ITEMS = [(torch.randn(2 + number % 5, 4, generator=DRAW), number % 3) for number in range(60)]


class Reads(nn.Module):
    """Takes unpacked rows of numbers without a word, too."""

    def __init__(self):
        super().__init__()
        self.cells, self.head = nn.GRU(4, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.cells(x)[1][-1])


def packed(items):
    return pack_sequence([x for x, _ in items], enforce_sorted=False)


def labelled(items):
    return packed(items), torch.tensor([y for _, y in items])


def loader(collate=labelled, items=ITEMS):
    return DataLoader(items, batch_size=10, collate_fn=collate)


def net(seed):
    torch.manual_seed(seed)
    return Reads()


@torch.no_grad()
def right(model):
    """One by one, where nothing is packed."""
    return torch.tensor([model(x[None]).argmax().item() == y for x, y in ITEMS])


def test_models_are_evaluated():
    h1, h2 = net(1), net(2)
    found = evaluate(h1, h2, loader()).comparison.overlap
    one, two = right(h1), right(h2)
    counts = [(a & b).sum().item() for a in (~one, one) for b in (~two, two)]
    assert found.counts.sum(0).ravel().tolist() == counts


@pytest.mark.filterwarnings("ignore::pytorch_lightning.utilities.warnings.PossibleUserWarning")
def test_inputs_without_labels_are_whole_batches(tmp_path):
    trained = []
    for collate in (packed, labelled):
        module = BCLightningModule(
            net(2),
            h1=net(1),
            loss="imitation",
            unlabelled=loader(collate, ITEMS[::-1]),
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.5),
        )
        pl.seed_everything(0, verbose=False)
        make_trainer(tmp_path, max_epochs=1).fit(module, loader())
        trained.append(copy.deepcopy(module.state_dict()))
    for name, value in trained[1].items():
        torch.testing.assert_close(trained[0][name], value, rtol=0, atol=0)


def test_h1_is_stored(tmp_path):
    h1, h2 = net(1), net(2)
    stored = store_outputs(h1, ITEMS, tmp_path / "h1", collate_fn=labelled)
    data = DataLoader(stored.attach(ITEMS), batch_size=10, collate_fn=stored.collate_fn(labelled))
    found = evaluate(stored, h2, data).comparison.overlap
    assert (found.counts == evaluate(h1, h2, loader()).comparison.overlap.counts).all()
    assert found.accuracy_h1 == pytest.approx(right(h1).float().mean().item())
