"""Many small networks trained at once: methods times seeds, their weights stacked.

A step of one small network is mostly Python's; of a hundred, mostly arithmetic. Members do not feel each other: each
has its weights, its rows, its order and its loss, and Adam works weight by weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

Weights = dict[str, Tensor]


class Batch(NamedTuple):
    """A batch of some members, the first axis of each tensor: logits, labels, whether h1 knows the label's class."""

    h2: Tensor
    target: Tensor
    teacher: Tensor
    known: Tensor | None = None
    mixed: Batch | None = None  # the same of mixed inputs, with probabilities for a target


Loss = Callable[[Batch], Tensor]  # the sum over members of each one's mean loss


class Member(NamedTuple):
    """One training.

    Attributes:
        rows: positions it learns from.
        start: its first weights.
        order: seed of the order of its batches.
        teacher: logits for every row of the data set, h1's as a rule.
        asked: the teacher itself, for mixed inputs; None to mix nothing.
    """

    rows: Tensor
    start: Weights
    order: int
    teacher: Tensor | None = None
    asked: Callable[[Tensor], Tensor] | None = None


class Networks(NamedTuple):
    """What one training leaves: its last weights, and their means after each epoch of its later half (SWA)."""

    last: Weights
    averaged: Weights


def fresh(net: Callable[[], nn.Module], seed: int) -> Weights:
    """First weights of one network."""
    torch.manual_seed(seed)
    return {name: value.detach() for name, value in net().named_parameters()}


def stacked(weights: Sequence[Weights]) -> Weights:
    """Of several networks one, with an axis in front."""
    return {name: torch.stack([one[name] for one in weights]) for name in weights[0]}


def member(weights: Weights, index: int) -> Weights:
    """One network of several."""
    return {name: value[index] for name, value in weights.items()}


def mixture(weights: Sequence[Weights], shares: Sequence[float]) -> Weights:
    """Weighted sum of weights."""
    return {name: sum(s * w[name] for s, w in zip(shares, weights, strict=True)) for name in weights[0]}


def answers(net: nn.Module, weights: Weights, x: Tensor, *, shared: bool = False) -> Tensor:
    """Logits (members, N, classes) of each member's inputs, (members, N, features), or of shared ones."""
    return torch.func.vmap(lambda one, inputs: functional_call(net, one, (inputs,)), (0, None if shared else 0))(
        weights, x
    )


def said(net: nn.Module, weights: Weights, x: Tensor) -> Tensor:
    """Logits of one network, (N, classes), without gradients."""
    with torch.no_grad():
        return functional_call(net, weights, (x,))


def train(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    members: Sequence[Member],
    losses: Sequence[tuple[slice, Loss]],
    *,
    lr: float,
    epochs: int,
    batch_size: int,
    known: int | None = None,
) -> list[Networks]:
    """Train all members at once, by Adam, and return their weights.

    Args:
        net: the network, for its form alone.
        x: inputs of the data set.
        y: its labels.
        members: who learns from what. Those that mix inputs stand together at the end.
        losses: which members, and their loss.
        lr: of Adam.
        epochs: how often the rows are gone through.
        batch_size: what is left of an epoch and fills no batch is left out of it; so is what one member has more rows
            than another.
        known: how many classes h1 was taught; None for all.
    """
    weights = {name: value.clone().requires_grad_() for name, value in stacked([m.start for m in members]).items()}
    optimizer = torch.optim.Adam(weights.values(), lr=lr, fused=True)
    orders = [torch.Generator().manual_seed(m.order) for m in members]
    steps = min(len(m.rows) for m in members) // batch_size
    first = next((i for i, m in enumerate(members) if m.asked is not None), len(members))
    sums = {name: torch.zeros_like(value) for name, value in weights.items()}
    for epoch_number in range(epochs):
        drawn = [m.rows[torch.randperm(len(m.rows), generator=o)] for m, o in zip(members, orders, strict=True)]
        epoch = torch.stack([rows[: steps * batch_size] for rows in drawn])
        for rows in epoch.split(batch_size, dim=1):
            inputs, target = x[rows], y[rows]
            h2 = answers(net, weights, inputs)
            pairs = enumerate(zip(members, rows, strict=True))
            told = [h2[i].detach() if m.teacher is None else m.teacher[r] for i, (m, r) in pairs]
            batch = Batch(h2, target, torch.stack(told), None if known is None else target < known)
            mixed = _mixed(net, weights, members, inputs, target, orders, first) if first < len(members) else None
            total = torch.stack([loss(_part(batch, mixed, where, first)) for where, loss in losses]).sum()
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
        if epoch_number >= epochs // 2:
            for name, value in weights.items():
                sums[name] += value.detach()
    last = {name: value.detach() for name, value in weights.items()}
    means = {name: value / (epochs - epochs // 2) for name, value in sums.items()}
    return [Networks(member(last, i), member(means, i)) for i in range(len(members))]


def _mixed(
    net: nn.Module,
    weights: Weights,
    members: Sequence[Member],
    inputs: Tensor,
    target: Tensor,
    orders: Sequence[torch.Generator],
    first: int,
) -> Batch:
    """Inputs that are each a random mixture of two of the batch, and labels mixed alike (mixup)."""
    shares = torch.stack([torch.rand(inputs.shape[1], 1, generator=order) for order in orders[first:]])
    x = shares * inputs[first:] + (1 - shares) * inputs[first:].flip(1)
    h2 = answers(net, {name: value[first:] for name, value in weights.items()}, x)
    labels = nn.functional.one_hot(target[first:], h2.shape[-1]).float()
    asked = [m.asked(one) for m, one in zip(members[first:], x, strict=True) if m.asked is not None]
    return Batch(h2, shares * labels + (1 - shares) * labels.flip(1), torch.stack(asked))


def _part(batch: Batch, mixed: Batch | None, where: slice, first: int) -> Batch:
    part = _rows(batch, where)
    if mixed is None or where.start < first:
        return part
    return part._replace(mixed=_rows(mixed, slice(where.start - first, where.stop - first)))


def _rows(batch: Batch, where: slice) -> Batch:
    return Batch(*(None if value is None else value[where] for value in batch[:4]))
