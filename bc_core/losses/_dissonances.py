"""Every dissonance, once: how far h2 is from what h1 gave its users, instance by instance.

A dissonance is a function of one batch and a row of the table at the end; all have the form ``sum_i w_i d_i / N`` with
``w_i = alpha + beta * condition_i``. The README beside this file says how to add one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from bc_core.losses._operations import Array, Operations


class Answer(NamedTuple):
    """What a model says of a batch: scores over the classes, in whichever form a definition needs.

    For ``base="binary_cross_entropy"`` a score has the two classes 0 and 1 in `logits` and `logs`, along the last axis,
    and `probabilities` is that of class 1.
    """

    logits: Array  # scores whose softmax are the probabilities
    logs: Array  # logarithms of the probabilities
    probabilities: Array = None  # of h1 alone; for h2 there is `Operations.softmax`


class Given(NamedTuple):
    """One batch, as a dissonance sees it; arrays have an entry per instance, answers one over the classes."""

    ops: Operations
    base: Array  # base_i, what h2 loses against the target
    towards: Callable[[Answer], Array]  # base_i again, with a model's probabilities for a target
    right: Array  # c_i: whether h1 is right
    labels: Array  # the target as class indices
    h2: Answer | None  # None unless the dissonance needs logits
    h1: Answer | None  # or of the teacher in its place; None if it needs no more than h1's labels
    options: Mapping[str, Any]  # the dissonance's own, with their defaults


class Option(NamedTuple):
    """An option of a dissonance: its default, what it must be and whether a value is that."""

    default: Any
    must_be: str
    is_fine: Callable[[Any], bool]


def _h1_is_right(given: Given) -> Array:
    return given.right


class Dissonance(NamedTuple):
    """One row of the table: the whole definition of a dissonance.

    Attributes:
        name: what users call it.
        d: d_i of a batch.
        title: for documentation, lower case.
        summary: what it holds h2 to, as the end of a sentence.
        formula: d_i in LaTeX; ``{target}`` and ``{h1}`` stand for the base against the target and against h1.
        source: who published it.
        needs: what of h1; one that gives labels alone is refused where they do not suffice. With ``"probabilities"``
            there is `Given.h1`, to hand to `Given.towards`; with ``"logits"`` also `Given.h2`.
        alpha: weight of every instance. An option of this name is taken instead.
        beta: weight that is added where the condition holds. An option of this name is taken instead.
        condition: which instances those are. Defaults to h1's support, c_i.
        options: the dissonance's own options.
        prefix: of the named losses that are made of it, one for each base; "" for none.
    """

    name: str
    d: Callable[[Given], Array]
    title: str
    summary: str
    formula: str
    source: str
    needs: Literal["labels", "probabilities", "logits"] = "labels"
    alpha: float = 0.0
    beta: float = 1.0
    condition: Callable[[Given], Array] = _h1_is_right
    options: Mapping[str, Option] = {}  # never changed
    prefix: str = ""


def weigh(row: Dissonance, given: Given, counted: Array | None = None) -> tuple[Array, Array]:
    """Which instances a dissonance holds, as booleans, and ``w_i d_i`` there and 0 elsewhere.

    Args:
        row: the dissonance.
        given: the batch.
        counted: which instances count at all; None if all do.
    """
    ops, alpha, beta = given.ops, given.options.get("alpha", row.alpha), given.options.get("beta", row.beta)
    d_i, condition = row.d(given), row.condition(given)
    if alpha and beta:
        d_i = alpha * d_i + ops.where(condition, beta * d_i, 0.0)
    elif alpha + beta != 1:
        d_i = (alpha + beta) * d_i
    if alpha and counted is None:
        return condition | True, d_i
    held = counted if alpha else condition if counted is None else condition & counted
    # Not a product with 0 and 1: 0 * inf would poison the mean and its gradient.
    return held, ops.where(held, d_i, 0.0)


def _new_error(given: Given) -> Array:
    return given.base


def _imitation(given: Given) -> Array:
    assert given.h1 is not None
    return given.towards(given.h1)


_BANSAL = "Bansal et al., AAAI 2019"

DISSONANCES: dict[str, Dissonance] = {
    row.name: row
    for row in (
        Dissonance(
            "new_error",
            _new_error,
            title="new error",
            summary="the target, where h1 is right",
            formula="{target}",
            source=_BANSAL,
            prefix="BC",
        ),
        Dissonance(
            "strict_imitation",
            _imitation,
            title="strict imitation",
            summary="h1's probabilities, where h1 is right",
            formula="{h1}",
            source=_BANSAL,
            needs="probabilities",
            prefix="StrictImitation",
        ),
        Dissonance(
            "imitation",
            _imitation,
            title="imitation",
            summary="h1's probabilities on every instance (churn distillation)",
            formula="{h1}",
            source="Jiang et al., ICLR 2022",
            needs="probabilities",
            alpha=1.0,
            beta=0.0,
        ),
    )
}
