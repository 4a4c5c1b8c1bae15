"""The four base losses: h2 against probabilities, be they a target or what h1 says."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from bc_core.losses._dissonances import Answer
from bc_core.losses._operations import Array, Operations


def cross_entropy(goal: Answer, h2: Answer, ops: Operations, class_weight: Array | None = None) -> Array:
    r""":math:`-\sum_c q[c] \log p_2[c]`, each class weighed."""
    each = -goal.probabilities * h2.logs
    return ops.sum(each if class_weight is None else each * class_weight)


def kl_divergence(goal: Answer, h2: Answer, ops: Operations, class_weight: Array | None = None) -> Array:
    r""":math:`\sum_c q[c] (\log q[c] - \log p_2[c])`, each class weighed."""
    each = goal.probabilities * (goal.logs - h2.logs)
    return ops.sum(each if class_weight is None else each * class_weight)


def binary_cross_entropy(goal: Answer, h2: Answer, ops: Operations, class_weight: Array | None = None) -> Array:
    r""":math:`-q \log s_2 - (1 - q) \log(1 - s_2)` of each label, whose one score `logits` holds.

    torch and Keras have it fused and for probabilities too, and take theirs.
    """
    return ops.softplus(h2.logits) - goal.probabilities * h2.logits


class BaseRow(NamedTuple):
    """One row of the table.

    Attributes:
        title: for documentation, lower case.
        suffix: of the named losses that are made of it.
        target: the loss against the target, in LaTeX.
        h1: the loss against h1, in LaTeX.
        towards: the loss against probabilities: of an answer that gives them, h2's, the operations and class weights.
    """

    title: str
    suffix: str
    target: str
    h1: str
    towards: Callable[..., Array]


BASES: dict[str, BaseRow] = {
    "nll": BaseRow("negative log-likelihood", "NLLLoss", r"-\log p_2[y]", r"-\sum_c p_1[c] \log p_2[c]", cross_entropy),
    "cross_entropy": BaseRow(
        "cross-entropy", "CrossEntropyLoss", r"-\log p_2[y]", r"-\sum_c p_1[c] \log p_2[c]", cross_entropy
    ),
    "binary_cross_entropy": BaseRow(
        "binary cross-entropy", "BinaryCrossEntropyLoss", r"BCE(s_2, y)", r"BCE(s_2, s_1)", binary_cross_entropy
    ),
    "kl_divergence": BaseRow(
        "Kullback-Leibler divergence", "KLDivergenceLoss", r"KL(y \,\|\, p_2)", r"KL(p_1 \,\|\, p_2)", kl_divergence
    ),
}
