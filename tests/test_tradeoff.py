"""The benchmark of methods: networks trained at once are those trained alone, and fronts are read right."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))  # scripts, not a package
from crowd import Batch, Member, fresh, mixture, said, train
from tradeoff_methods import compatible, plain
from tradeoff_page import Scores, Setting, area, at, front, scores_of

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long() + (X[:, 1] > 0).long()
H1 = 2 * F.one_hot(Y.roll(1), 3).float()


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))


def alone(member: Member, lambda_c: float) -> list[list[np.ndarray]]:
    """Last and averaged weights of a training written down as one would for one network."""
    model = net()
    model.load_state_dict(member.start)
    optimizer, order = torch.optim.Adam(model.parameters(), lr=0.05), torch.Generator().manual_seed(member.order)
    kept = []
    for _ in range(4):
        for rows in member.rows[torch.randperm(len(member.rows), generator=order)][:20].split(10):
            optimizer.zero_grad()
            each = F.cross_entropy(model(X[rows]), Y[rows], reduction="none")
            (each * (1 + lambda_c * (H1[rows].argmax(1) == Y[rows]))).mean().backward()
            optimizer.step()
        kept.append([p.detach().numpy().copy() for p in model.parameters()])
    return [kept[-1], [np.mean(pair, axis=0) for pair in zip(*kept[2:], strict=True)]]


def test_networks_trained_at_once_are_those_trained_alone() -> None:
    members = [Member(torch.arange(seed, seed + 25), fresh(net, seed), seed, teacher=H1) for seed in (3, 4, 5)]
    losses = [(slice(0, 2), compatible("new_error", 4.0)), (slice(2, 3), plain)]
    found = train(net(), X, Y, members, losses, lr=0.05, epochs=4, batch_size=10)
    for member, networks, lambda_c in zip(members, found, (4.0, 4.0, 0.0), strict=True):
        for weights, expected in zip(networks, alone(member, lambda_c), strict=True):
            for value, wanted in zip(weights.values(), expected, strict=True):
                # Adam's fused steps and batched products round otherwise than those of one network.
                np.testing.assert_allclose(value.numpy(), wanted, rtol=1e-3, atol=1e-4)


def test_each_member_has_a_support_of_its_own() -> None:
    target = torch.tensor([[0, 1, 2, 0], [0, 1, 2, 0]])
    h1 = F.one_hot(torch.tensor([[0, 0, 0, 1], [0, 1, 2, 0]]), 3).float()  # one right, four right
    h2 = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(1))
    each = F.cross_entropy(h2.flatten(0, 1), target.flatten(), reduction="none").view(2, 4)
    expected = each.mean(1).sum() + 2 * (each[0, 0] + each[1].mean())
    found = compatible("new_error", 2.0, "support")(Batch(h2, target, h1))
    torch.testing.assert_close(found, expected)


def test_instances_of_classes_that_h1_does_not_know_are_trained_plainly() -> None:
    h2 = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(1))
    target, h1 = torch.tensor([[0, 1, 2, 2]]), torch.randn(1, 4, 3)
    found = compatible("imitation", 2.0)(Batch(h2, target, h1, target < 2))
    imitated = F.cross_entropy(h2[0, :2], h1[0, :2].softmax(1), reduction="sum")
    torch.testing.assert_close(found, F.cross_entropy(h2[0], target[0]) + 2 * imitated / 4)


def test_a_mixture_of_weights_lies_between() -> None:
    first, second = fresh(net, 0), fresh(net, 1)
    for name, value in mixture([first, second], [0.25, 0.75]).items():
        torch.testing.assert_close(value, 0.25 * first[name] + 0.75 * second[name])
    assert said(net(), first, X).shape == (60, 3)


def setting(name: str, accuracy: float, nfr: float) -> Setting:
    scores = Scores(np.full(3, accuracy), np.full(3, nfr))
    return Setting(name, scores, scores)


def test_scores_are_those_of_the_counts() -> None:
    accuracy, nfr = scores_of([[50, 10, 20, 20], [80, 0, 10, 10]])
    assert accuracy.tolist() == pytest.approx([70, 90])
    assert nfr.tolist() == pytest.approx([10, 0])


def test_a_front_keeps_what_nothing_beats_and_is_read_between_its_points() -> None:
    plain_one, beaten, good, low = (
        setting("plain", 93, 2.0), setting("beaten", 92.5, 1.9), setting("good", 92.8, 1.0), setting("low", 92, 0.2),
    )  # fmt: skip
    kept = front([low, beaten, plain_one, good])
    assert [s.name for s in kept] == ["plain", "good", "low"]
    assert at(kept, 93.1) is None
    middle = at(kept, 92.4)
    assert middle is not None
    assert middle.test.nfr.mean() == pytest.approx(0.6)
    assert middle.test.accuracy.mean() == pytest.approx(92.4)
    lowest = at(kept, 90.0)
    assert lowest is not None
    assert lowest.test.nfr.mean() == pytest.approx(0.2)


def test_the_area_is_the_mean_share_over_losses_up_to_a_point() -> None:
    plain_one = setting("plain", 93, 2.0)
    assert area(front([plain_one]), plain_one) == pytest.approx(1)
    # A line from all of the flips to none.
    assert area(front([plain_one, setting("end", 92, 0.0)]), plain_one) == pytest.approx(0.5)
