"""The documented snippets of the original library (version 1.4.2) run with only the import changed."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn, optim
from torch.utils.data import DataLoader

import bc_core as scores  # was: import backwardcompatibilityml.scores as scores
import bc_lightning as bcloss  # was: import backwardcompatibilityml.loss as bcloss


class MLPClassifier(nn.Module):
    """As the original's notebooks define their models: it returns the triple."""

    def __init__(self, input_size, num_classes, hidden_sizes=(50, 10)):
        super().__init__()
        sizes = [input_size, *hidden_sizes, num_classes]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(sizes))

    def forward(self, data, sample_weight=None):
        out = data
        for layer in self.layers[:-1]:
            out = F.relu(layer(out))
        out = self.layers[-1](out)
        return out, F.softmax(out, dim=-1), F.log_softmax(out, dim=-1)


class BinaryClassifier(nn.Module):
    def __init__(self, input_size):
        super().__init__()
        self.linear = nn.Linear(input_size, 1)

    def forward(self, x):
        return torch.sigmoid(self.linear(x)).squeeze(1)


def batches(classes):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 4, generator=generator)
    y = (x @ torch.randn(4, classes, generator=generator)).argmax(1)
    # As there: (batch_ids, data, target).
    return DataLoader([(i, x[i], y[i]) for i in range(len(x))], batch_size=50)


@pytest.mark.parametrize(
    "name",
    [
        "BCNLLLoss",
        "BCCrossEntropyLoss",
        "BCKLDivergenceLoss",
        "StrictImitationNLLLoss",
        "StrictImitationCrossEntropyLoss",
        "StrictImitationKLDivergenceLoss",
    ],
)
def test_train_compatibility_epoch(name):
    torch.manual_seed(0)
    training_set, lambda_c, num_classes = batches(3), 0.5, 3
    h1, h2 = MLPClassifier(4, num_classes), MLPClassifier(4, num_classes)
    h1.eval()  # (it is important that h1 be put in evaluation mode)
    if "KL" in name:
        loss_function = getattr(bcloss, name)(h1, h2, lambda_c, num_classes=num_classes)
    else:
        loss_function = getattr(bcloss, name)(h1, h2, lambda_c)
    optimizer = optim.SGD(h2.parameters(), lr=0.1, momentum=0.5)

    losses = []
    for _epoch in range(1, 5):
        h2.train()
        for _batch_ids, data, target in training_set:
            optimizer.zero_grad()
            loss = loss_function(data, target)
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]

    h2.eval()
    # As the original's test loop calls it: the sum over a batch.
    test_loss = sum(loss_function(data, target, reduction="sum").item() for _, data, target in training_set)
    assert test_loss / 200 < losses[0]


@pytest.mark.parametrize("name", ["BCBinaryCrossEntropyLoss", "StrictImitationBinaryCrossEntropyLoss"])
def test_train_compatibility_epoch_binary(name):
    torch.manual_seed(0)
    training_set = batches(2)
    h1, h2 = BinaryClassifier(4), BinaryClassifier(4)
    loss_function = getattr(bcloss, name)(h1, h2, 0.5, 0.5)  # the pivot may come fourth
    optimizer = optim.SGD(h2.parameters(), lr=0.5)
    losses = []
    for _epoch in range(5):
        for _batch_ids, data, target in training_set:
            optimizer.zero_grad()
            loss = loss_function(data, target.float())
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_scores():
    h1_output_labels = [1, 1, 0, 2, 2]
    h2_output_labels = [1, 0, 0, 2, 1]
    expected_labels = [1, 1, 1, 2, 1]
    # By hand: h1 is right on 0, 1, 3, h2 of those on 0, 3; h1 is wrong on 2, 4, h2 of those on 2.
    assert scores.trust_compatibility_score(h1_output_labels, h2_output_labels, expected_labels) == 2 / 3
    assert scores.error_compatibility_score(h1_output_labels, h2_output_labels, expected_labels) == 1 / 2
