"""What a loss may be told: names, which option belongs to what, and which values are none."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from bc_core.losses._bases import BASES
from bc_core.losses._dissonances import DISSONANCES
from bc_core.losses._schedules import check_lambda

Base = Literal["nll", "cross_entropy", "binary_cross_entropy", "kl_divergence"]
Normalization = Literal["batch", "support"]
NORMALIZATIONS = ("batch", "support")
if TYPE_CHECKING:
    DissonanceName = str
else:
    # What reads annotations at run time, such as LightningCLI, is told the rows of the table.
    DissonanceName = Literal[tuple(DISSONANCES)]


def known(value: object, allowed: Collection[str | None], what: str) -> None:
    """Refuse a name that is not among `allowed`, and list those that are.

    Example:
        >>> known("newerror", ("new_error", "imitation"), "dissonance")
        Traceback (most recent call last):
        ValueError: Unknown dissonance: 'newerror'. Known: 'new_error', 'imitation'.
    """
    if value not in allowed:
        raise ValueError(f"Unknown {what}: {value!r}. Known: {', '.join(map(repr, allowed))}.")


def only_known_options(given: Iterable[str], allowed: Iterable[str], of: str) -> None:
    """Refuse options that `of` does not have, and list those it has.

    Example:
        >>> only_known_options(["pos_weigth"], ("weight", "pos_weight"), "base='nll'")
        Traceback (most recent call last):
        TypeError: base='nll' has no option 'pos_weigth'. Known options: 'weight', 'pos_weight'.
    """
    unknown = sorted(set(given) - set(allowed))
    if unknown:
        raise TypeError(
            f"{of} has no option {', '.join(map(repr, unknown))}. Known options: {', '.join(map(repr, allowed))}."
        )


def check_loss(
    base: str,
    dissonance: str,
    normalization: str,
    options: Mapping[str, Any],
    base_options: Mapping[str, tuple[str, ...]],
) -> None:
    """Refuse unknown names, options that neither base nor dissonance has, and values that they cannot have.

    Args:
        base: name of the base.
        dissonance: name of the dissonance.
        normalization: name of the normalization.
        options: what was given by name.
        base_options: which options each base has on this side.

    Raises:
        TypeError: an option that neither has.
        ValueError: an unknown name, or a value that is none for its option.
    """
    known(base, BASES, "base")
    known(dissonance, DISSONANCES, "dissonance")
    known(normalization, NORMALIZATIONS, "normalization")
    own = DISSONANCES[dissonance].options
    of = f"base={base!r}" + (f" with dissonance={dissonance!r}" if own else "")
    only_known_options(options, (*base_options[base], *own), of)
    smoothing = options.get("label_smoothing", 0.0)
    if not 0 <= smoothing <= 1:
        raise ValueError(f"label_smoothing must lie in 0..1. Received: label_smoothing={smoothing!r}.")
    threshold = options.get("threshold", 0.5)
    if not 0 < threshold < 1:
        raise ValueError(f"threshold must lie between 0 and 1. Received: threshold={threshold!r}.")
    for name, option in own.items():
        if name in options and not option.is_fine(options[name]):
            raise ValueError(f"{name} must be {option.must_be}. Received: {name}={options[name]!r}.")
    if base == "binary_cross_entropy" and options.get("top_k") is not None:
        raise ValueError(
            "top_k chooses among classes, and with base='binary_cross_entropy' each label has one score: leave it out. "
            f"Received: top_k={options['top_k']!r}."
        )


def check_lambda_of(dissonance: str, lambda_c: object) -> None:
    """Refuse what is no weight of this dissonance.

    Example:
        >>> check_lambda_of("churn", 1.5)
        Traceback (most recent call last):
        ValueError: lambda_c of dissonance='churn' is a share of the target and at most 1; ... Received: 1.5.
    """
    check_lambda(lambda_c)
    most = DISSONANCES[dissonance].most_lambda
    if most is not None and lambda_c > most:  # type: ignore[operator]
        raise ValueError(
            f"lambda_c of dissonance={dissonance!r} is a share of the target and at most {most:g}; "
            f"dissonance='imitation' has no upper limit. Received: {lambda_c!r}."
        )


def check_scale(dissonance: str, class_map: object) -> None:
    """Refuse a class map where logits are compared: what it makes of h1's are log-probabilities, or none at all."""
    if class_map is not None and DISSONANCES[dissonance].reads == "logits":
        raise ValueError(
            f"dissonance={dissonance!r} compares logits, and of a class that h1 does not know, or knows as several, "
            "it has none: take dissonance='focal_distillation', which compares probabilities. "
            f"Received: class_map={class_map!r}."
        )


def options_of_dissonance(dissonance: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The dissonance's own options among those given, and the defaults of the others."""
    return {name: options.get(name, option.default) for name, option in DISSONANCES[dissonance].options.items()}


def labels_suffice(dissonance: str) -> bool:
    """Whether h1's predicted labels are enough, or its scores are needed."""
    return DISSONANCES[dissonance].needs == "labels"


def check_labels_suffice(dissonance: str, dtype: object) -> None:
    """Refuse an h1 that gives labels, of this dtype, where its scores are needed."""
    if not labels_suffice(dissonance):
        enough = " or ".join(f"dissonance={row.name!r}" for row in DISSONANCES.values() if row.needs == "labels")
        raise ValueError(
            f"dissonance={dissonance!r} imitates h1's probabilities: use {enough}, or an h1 that gives scores. "
            f"Received: h1's labels of dtype {dtype}."
        )


def check_known_scores(dissonance: str, labels_only: bool) -> None:
    """Refuse an h1 of which the predicted labels alone are known, where its scores are needed."""
    if labels_only and not labels_suffice(dissonance):
        raise ValueError(
            f"h1 is known by its predicted labels only, and dissonance={dissonance!r} imitates its probabilities. Use "
            "a new-error loss, or stored outputs that hold scores."
        )
