"""Every dissonance, once: how far h2 is from what h1 gave its users, instance by instance.

A dissonance is a function of one batch and a row of the table at the end; all have the form ``sum_i w_i d_i / N`` with
``w_i = alpha + beta * condition_i``. The README beside this file says how to add one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Real
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
    weight: Array | None = None  # what class weights make of an instance, where `base` has them in it; None for 1
    h2_wrong: Callable[[], Array] | None = None  # whether h2 is wrong; None as h2 is


class Option(NamedTuple):
    """An option of a dissonance: its default, what it must be and whether a value is that."""

    default: Any
    must_be: str
    is_fine: Callable[[Any], bool]


def _number(default: float | None, least: float, *, above: bool = False, most: float = math.inf) -> Option:
    """An option that is a finite number from `least` on, or above it, and at most `most`."""
    within = f" and <= {most:g}" if most < math.inf else ""

    def is_fine(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, Real):
            return False
        number = float(value)
        return math.isfinite(number) and (number > least if above else number >= least) and number <= most

    return Option(default, f"a number {'>' if above else '>='} {least:g}{within}", is_fine)


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
        notes: what else there is to know, in sentences.
        needs: what of h1; one that gives labels alone is refused where they do not suffice. With ``"probabilities"``
            there is `Given.h1`, to hand to `Given.towards`; with ``"logits"`` also `Given.h2`.
        alpha: weight of every instance. An option of this name is taken instead.
        beta: weight that is added where the condition holds. An option of this name is taken instead.
        condition: which instances those are. Defaults to h1's support, c_i. It carries no gradient.
        indicator: that condition in LaTeX.
        options: the dissonance's own options.
        most_lambda: the largest lambda_c. Of one that takes away from the base what it gives: beyond it an instance
            would count less than nothing. So the base must be trained as it is, with nothing added to it.
        reads: whether d_i depends on the logits beyond their softmax, which h1's must then be on the scale of h2's.
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
    indicator: str = "c_i"
    options: Mapping[str, Option] = {}  # never changed
    most_lambda: float | None = None
    reads: Literal["probabilities", "logits"] = "probabilities"
    prefix: str = ""
    notes: str = ""


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


def _weighed(given: Given, d_i: Array) -> Array:
    """With class weights, as the base has them in it: an instance counts for what its class does."""
    return d_i if given.weight is None else given.weight * d_i


def _both(given: Given) -> tuple[Answer, Answer]:
    """h1's and h2's answers, of a row with ``needs="logits"``."""
    assert given.h1 is not None
    assert given.h2 is not None
    return given.h1, given.h2


def _divergence_at_temperature(given: Given) -> Array:
    ops, temperature = given.ops, given.options["temperature"]
    z1, z2 = (answer.logits / temperature for answer in _both(given))
    p1, logs1, logs2 = ops.softmax(z1), ops.log_softmax(z1), ops.log_softmax(z2)
    # Where h1 says 0 its logarithm may be infinite.
    apart = ops.where(p1 > 0, logs1 - logs2, 0.0)
    return _weighed(given, ops.sum(p1 * apart) * temperature**2)


def _half_squared_distance(given: Given) -> Array:
    h1, h2 = _both(given)
    apart = given.ops.square(h2.logits - h1.logits)
    over_classes = getattr(given.ops, given.options["over_classes"])
    return _weighed(given, 0.5 * over_classes(apart))


def _inhibited_difference(given: Given) -> Array:
    (h1, h2), ops, options = _both(given), given.ops, given.options
    apart, margin = h2.logits - h1.logits, options["margin"]
    # One of the two is 0: together the absolute value beyond the margin, whose gradient is 0 at the margin.
    beyond = ops.relu(apart - margin) + ops.relu(-apart - margin)
    each = ops.square(beyond) if options["power"] == 2 else beyond ** options["power"]
    if options["top_k"] is None:
        return _weighed(given, getattr(ops, options["over_classes"])(each))
    total = ops.sum(ops.where(ops.among_top(h1.logits, options["top_k"]), each, 0.0))
    return _weighed(given, total if options["over_classes"] == "sum" else total / options["top_k"])


def _instead_of_the_target(given: Given) -> Array:
    return _imitation(given) - given.base


def _anchored(given: Given) -> Array:
    share, otherwise = given.options["share"], given.options["otherwise"]
    return given.ops.where(given.right, share * _instead_of_the_target(given), (otherwise - 1.0) * given.base)


def _h1_is_surer(given: Given) -> Array:
    log_p1, log_p2 = (given.ops.take_along(answer.logs, given.labels) for answer in _both(given))
    return given.right & (log_p1 > log_p2)


def _h2_is_wrong(given: Given) -> Array:
    assert given.h2_wrong is not None
    return given.h2_wrong()


def _h2_is_right(given: Given) -> Array:
    return ~_h2_is_wrong(given)


_BANSAL = "Bansal et al., AAAI 2019"
_OF_LOGITS = (
    "Logits are taken as they are, their common level too: they are log-probabilities with base='nll' and, in Keras, "
    "where either model gives probabilities; a binary score z has the two logits 0 and z."
)
_YAN = "Yan et al., CVPR 2021"
_FOCAL = {"alpha": _number(1.0, 0), "beta": _number(5.0, 0)}
_OVER_CLASSES = Option("mean", "'mean' or 'sum'", ("mean", "sum").__contains__)
_TOP_K = Option(
    None,
    "None, or a whole number >= 1 and at most that of the classes",
    lambda value: value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1),
)

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
        Dissonance(
            "focal_distillation",
            _divergence_at_temperature,
            title="focal distillation",
            summary="h1's probabilities at a temperature on every instance, and more so where h1 is right",
            formula=r"T^2\, KL(p_1^T \,\|\, p_2^T), p^T = softmax(z / T)",
            source=f"{_YAN}, at T = 100",
            notes=(
                "The factor T squared keeps the gradient's size when T changes, as in the authors' code and in "
                "distillation since Hinton; with large T, d_i is half the squared distance of the centred logits, a "
                "mean over the classes. In float32 the value is rounded to about T squared / 10^7, the gradient is not."
            ),
            needs="logits",
            alpha=1.0,
            beta=5.0,
            options={**_FOCAL, "temperature": _number(1.0, 0, above=True)},
        ),
        Dissonance(
            "logit_distance",
            _half_squared_distance,
            title="logit distance",
            summary="h1's logits on every instance, and more so where h1 is right (focal distillation's other form)",
            formula=r"\frac12 mean_c (z_2[c] - z_1[c])^2",
            source=_YAN,
            notes=_OF_LOGITS,
            needs="logits",
            alpha=1.0,
            beta=5.0,
            options={**_FOCAL, "over_classes": _OVER_CLASSES},
            reads="logits",
        ),
        Dissonance(
            "logit_difference_inhibition",
            _inhibited_difference,
            title="logit difference inhibition",
            summary="h1's logits on every instance, as far as they are further away than a margin (LDI)",
            formula=r"mean_c \max(|z_2[c] - z_1[c]| - m, 0)^q",
            source="Zhao et al., TPAMI 2024, for one h1 with lambda_c 0.5",
            notes=(
                "ELODI is this with several models for h1, whose mean logits are the reference: they take margin 0 and "
                f"lambda_c 0.8, and optionally top_k 10. {_OF_LOGITS}"
            ),
            needs="logits",
            alpha=1.0,
            beta=0.0,
            options={
                "margin": _number(0.5, 0),
                "power": _number(2.0, 1),
                "top_k": _TOP_K,
                "over_classes": _OVER_CLASSES,
            },
            reads="logits",
        ),
        Dissonance(
            "churn",
            _instead_of_the_target,
            title="churn distillation",
            summary="h1's probabilities instead of a share lambda_c of the target, on every instance",
            formula="{h1} - {target}",
            source="Jiang et al., ICLR 2022",
            notes=(
                "The loss is the base with the target (1 - lambda_c) y + lambda_c p_1, since a cross-entropy, binary "
                "or not, is linear in its target; of the Kullback-Leibler divergence the gradient is that, and the "
                "value is larger by what h2 does not move. lambda_c is at most 1, and the base is the loss that is "
                "trained. Up to the factor 1 - lambda_c it is imitation with weight lambda_c / (1 - lambda_c)."
            ),
            needs="probabilities",
            alpha=1.0,
            beta=0.0,
            most_lambda=1.0,
        ),
        Dissonance(
            "anchor",
            _anchored,
            title="anchor",
            summary="h1's probabilities for a share of the target where h1 is right, and less of the target elsewhere",
            formula=r"c_i\, a\, ({h1} - {target}) - (1 - c_i) (1 - e)\, {target}",
            source="Milani Fard et al., NIPS 2016 (RCP)",
            notes=(
                "With lambda_c = 1, the most, the loss is the base with the target a p_1 + (1 - a) y where h1 is "
                "right, and e times the base elsewhere; what is said of churn holds here too. a is `share`, e "
                "`otherwise`."
            ),
            needs="probabilities",
            alpha=1.0,
            beta=0.0,
            options={"share": _number(0.5, 0, most=1), "otherwise": _number(0.5, 0)},
            most_lambda=1.0,
        ),
        Dissonance(
            "where_h1_is_surer",
            _imitation,
            title="imitation where h1 is surer",
            summary="h1's probabilities, where h1 is right and gives the target a larger one than h2 does",
            formula="{h1}",
            source="Xie et al., ACL 2021",
            needs="logits",
            condition=_h1_is_surer,
            indicator=r"1[c_i, p_1[y] > p_2[y]]",
        ),
        Dissonance(
            "where_h2_is_wrong",
            _imitation,
            title="imitation where h2 is wrong",
            summary="h1's probabilities, where h2 is wrong at present (MUSCLE's first half)",
            formula="{h1}",
            source="Echterhoff et al., EMNLP 2024",
            needs="logits",
            condition=_h2_is_wrong,
            indicator=r"1[\arg\max z_2 \ne y]",
        ),
        Dissonance(
            "where_h2_is_right",
            _imitation,
            title="imitation where h2 is right",
            summary="h1's probabilities, where h2 is right at present (MUSCLE's other half)",
            formula="{h1}",
            source="Echterhoff et al., EMNLP 2024",
            notes=(
                "MUSCLE imitates the old model where h2 is wrong, and a plainly trained new one elsewhere: in training "
                "that is imitation with plain=plain_h2."
            ),
            needs="logits",
            condition=_h2_is_right,
            indicator=r"1[\arg\max z_2 = y]",
        ),
    )
}

RECOMMENDED = "imitation"
"""What `recommend` names for most updates; `docs/methods.md` says why."""

DISSONANCES["recommended"] = DISSONANCES[RECOMMENDED]._replace(
    name="recommended",
    title="the recommended one",
    summary=f"what measurements recommend for most updates, at present ``{RECOMMENDED!r}`` (docs/methods.md says why)",
    notes="Name that one where a later version must not mean another.",
    prefix="",
)
