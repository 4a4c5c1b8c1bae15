"""The scores of backward compatibility, each defined once, as data.

Every score is a ratio of sums of cells of one 2x2 table: how many instances h1 got wrong or right (first index)
and h2 got wrong or right (second index). Written as two masks over that table, one definition serves numpy here
and the array library of every metric elsewhere.

A row of `SCORES` is all that there is to a score: the functions and metrics of `bc_lightning` and `bc_keras`, what
their documentation says, and the tables of the docs and of the dashboard are made from it. How to add one:
docs/scores.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core._arrays import matching_labels, to_numpy

Cells = tuple[tuple[int, int], tuple[int, int]]

_ARGUMENTS = ("expected_labels", "h1_output_labels", "h2_output_labels")


@dataclass(frozen=True)
class Score:
    """A score, as the cells that are counted above and below the fraction bar, and what is said of it.

    Attributes:
        name: Key in `SCORES`.
        title: Name for tables and charts.
        numerator: Nested 2x2 tuple of 0 and 1, indexed `[h1_right][h2_right]`; index 1 means right.
        denominator: The same, for the part below the bar.
        higher_is_better: Direction of improvement; None where neither direction is one.
        description: One sentence for a person who meets the score for the first time.
        metric: Class of `bc_lightning.metrics` and `bc_keras.metrics` that computes it; the function has the same name
            in small letters, as `negative_flip_rate`. None for what every framework has a metric of.
        given: Where several scores have one `metric`: the value of its argument `given` that asks for this one.
        note: What to know besides, for the documentation of the metric.
        source: Where the definition comes from.

    Example:
        >>> from bc_core import SCORES
        >>> SCORES["btc"].numerator, SCORES["btc"].denominator
        (((0, 0), (0, 1)), ((0, 0), (1, 1)))
    """

    name: str
    title: str
    numerator: Cells
    denominator: Cells
    higher_is_better: bool | None
    description: str
    metric: str | None = None
    given: str | None = None
    note: str = ""
    source: str = ""


_BOTH_WRONG: Cells = ((1, 0), (0, 0))
_H2_ONLY_RIGHT: Cells = ((0, 1), (0, 0))
_H1_ONLY_RIGHT: Cells = ((0, 0), (1, 0))
_BOTH_RIGHT: Cells = ((0, 0), (0, 1))
_H1_WRONG: Cells = ((1, 1), (0, 0))
_H1_RIGHT: Cells = ((0, 0), (1, 1))
_H2_WRONG: Cells = ((1, 0), (1, 0))
_H2_RIGHT: Cells = ((0, 1), (0, 1))
_ALL: Cells = ((1, 1), (1, 1))

SCORES: dict[str, Score] = {
    score.name: score
    for score in (
        Score(
            "btc",
            "BTC",
            _BOTH_RIGHT,
            _H1_RIGHT,
            True,
            "Backward trust compatibility: of what h1 gets right, the share that h2 still gets right.",
            metric="BackwardTrustCompatibility",
            note="1 means that h2 keeps everything that h1 gets right. BTC = 1 - NFR / accuracy(h1).",
            source='Bansal et al., "Updates in Human-AI Teams", AAAI 2019.',
        ),
        Score(
            "bec_given_h1_wrong",
            "BEC (given h1 wrong)",
            _BOTH_WRONG,
            _H1_WRONG,
            None,  # it rises when h2 keeps h1's errors, so a plain improvement of the model lowers it
            "Backward error compatibility: of what h1 gets wrong, the share that h2 gets wrong too.",
            metric="BackwardErrorCompatibility",
            given="h1_wrong",
            note="The two are different numbers with one name in the literature; say which one you show. Given h1 "
            "wrong, it falls when h2 repairs old errors, so neither direction is an improvement by itself.",
            source='Srivastava et al., "An Empirical Analysis of Backward Compatibility in Machine Learning Systems", '
            "KDD 2020.",
        ),
        Score(
            "bec_given_h2_wrong",
            "BEC (given h2 wrong)",
            _BOTH_WRONG,
            _H2_WRONG,
            True,
            "Backward error compatibility: of the mistakes of h2, the share that h1 made too; 1 - NFI.",
            metric="BackwardErrorCompatibility",
            given="h2_wrong",
        ),
        Score(
            "nfr",
            "NFR",
            _H1_ONLY_RIGHT,
            _ALL,
            False,
            "Negative flip rate: the share of all instances that h1 gets right and h2 gets wrong.",
            metric="NegativeFlipRate",
            note="0 means that nothing broke. accuracy(h2) - accuracy(h1) = PFR - NFR.",
            source='Yan et al., "Positive-Congruent Training", CVPR 2021.',
        ),
        Score(
            "pfr",
            "PFR",
            _H2_ONLY_RIGHT,
            _ALL,
            True,
            "Positive flip rate: the share of all instances that h1 gets wrong and h2 gets right.",
            metric="PositiveFlipRate",
            note="accuracy(h2) - accuracy(h1) = PFR - NFR.",
            source='Yan et al., "Positive-Congruent Training", CVPR 2021.',
        ),
        Score(
            "nfi",
            "NFI",
            _H1_ONLY_RIGHT,
            _H2_WRONG,
            False,
            "Negative flip impact: of the mistakes of h2, the share that is new.",
            metric="NegativeFlipImpact",
            note="NFI = 1 - BEC given h2 wrong.",
            source='Cai et al., "Measuring and Reducing Model Update Regression in Structured Prediction for NLP", '
            "NeurIPS 2022.",
        ),
        Score("accuracy_h1", "Accuracy of h1", _H1_RIGHT, _ALL, True, "The share of instances h1 gets right."),
        Score("accuracy_h2", "Accuracy of h2", _H2_RIGHT, _ALL, True, "The share of instances h2 gets right."),
    )
}


def named_score(name: str) -> Score:
    """Look a score up, naming the known ones where there is none."""
    try:
        return SCORES[name]
    except (KeyError, TypeError):
        raise ValueError(f"unknown score {name!r}; known scores: {', '.join(SCORES)}") from None


def bec_name(given: str) -> str:
    """Name of the backward error compatibility with the wanted denominator."""
    if given not in ("h1_wrong", "h2_wrong"):
        raise ValueError(f"given: expected 'h1_wrong' or 'h2_wrong', got {given!r}")
    return f"bec_given_{given}"


def score_terms(name: str, counts: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Sum the cells above and below the fraction bar; both have shape `counts.shape[:-2]`."""
    score = named_score(name)
    numerator = (counts * np.asarray(score.numerator)).sum(axis=(-2, -1))
    denominator = (counts * np.asarray(score.denominator)).sum(axis=(-2, -1))
    return numerator, denominator


def score_from_counts(name: str, counts: Any, zero_division: float = 0.0) -> float | NDArray[np.float64]:
    """Compute a score from counted instances.

    Args:
        name: A key of `SCORES`.
        counts: Shape (..., 2, 2), integers or (for weighted instances) floats, indexed `[h1_right, h2_right]`.
        zero_division: Value where nothing lies below the fraction bar, e.g. BTC when h1 is never right.

    Returns:
        A float for one table, otherwise a float64 array of shape `counts.shape[:-2]`.

    Raises:
        ValueError: If the name is unknown, the shape is another one, or a count is negative or NaN.

    Example:
        Of 10 instances h1 gets 8 right, and h2 keeps 6 of those:

        >>> from bc_core import score_from_counts
        >>> score_from_counts("btc", [[1, 1], [2, 6]])
        0.75
    """
    table = to_numpy(counts, "counts")
    if table.ndim < 2 or table.shape[-2:] != (2, 2):
        raise ValueError(f"counts: expected shape (..., 2, 2) indexed [h1_right, h2_right], got {table.shape}")
    if table.dtype.kind not in "biuf" or not (table >= 0).all():
        raise ValueError("counts: expected numbers that are not negative; pass how many instances fell in each cell")
    numerator, denominator = score_terms(name, table)
    ratio = np.full(np.shape(denominator), zero_division, dtype=np.float64)
    np.divide(numerator, denominator, out=ratio, where=denominator != 0)
    return float(ratio) if ratio.ndim == 0 else ratio


def count_cells(
    h1_right: NDArray[np.bool_],
    h2_right: NDArray[np.bool_],
    classes: NDArray[Any] | None = None,
    num_classes: int = 1,
) -> NDArray[np.int64]:
    """Count instances by class and by who is right: int64 of shape (num_classes, 2, 2).

    `classes` are checked integers in 0..num_classes-1 (None: all of one class). This is the only place that counts.
    """
    # A bool is a byte of 0 or 1, so the cell number 2 * h1_right + h2_right needs no wider type.
    cell = h1_right.view(np.uint8) * np.uint8(2) + h2_right.view(np.uint8)
    combined = cell if classes is None else classes.astype(np.intp) * 4 + cell
    return np.bincount(combined, minlength=4 * num_classes).reshape(num_classes, 2, 2).astype(np.int64)


def _score_labels(
    name: str, h1_output_labels: Any, h2_output_labels: Any, expected_labels: Any, zero_division: float
) -> float:
    expected, h1, h2 = matching_labels(expected_labels, h1_output_labels, h2_output_labels, _ARGUMENTS)
    return float(score_from_counts(name, count_cells(h1 == expected, h2 == expected)[0], zero_division))


def trust_compatibility_score(
    h1_output_labels: Any, h2_output_labels: Any, expected_labels: Any, zero_division: float = 0.0
) -> float:
    """Backward trust compatibility, BTC = #(h1 right and h2 right) / #(h1 right).

    Args:
        h1_output_labels: N labels that h1 predicts, shape (N,) or (N, 1): integers of any width, bools or text, in
            a list, an array, or a tensor of torch, TensorFlow or JAX.
        h2_output_labels: The same, for h2.
        expected_labels: The N true labels, or one-hot rows of shape (N, C).
        zero_division: Value when h1 is never right.

    Returns:
        A number in [0, 1]; 1 means that h2 keeps everything h1 gets right.

    Raises:
        ValueError: If the lengths differ, there is no instance, or a label is NaN or not a whole number.
        TypeError: If labels are neither numbers nor text, or text is compared with numbers.

    Reference:
        Bansal et al., "Updates in Human-AI Teams", AAAI 2019.

    Example:
        >>> from bc_core import trust_compatibility_score
        >>> trust_compatibility_score([1, 0, 1, 1], [1, 1, 1, 0], [1, 0, 1, 0])
        0.6666666666666666
    """
    return _score_labels("btc", h1_output_labels, h2_output_labels, expected_labels, zero_division)


def error_compatibility_score(
    h1_output_labels: Any,
    h2_output_labels: Any,
    expected_labels: Any,
    zero_division: float = 0.0,
    given: str = "h1_wrong",
) -> float:
    """Backward error compatibility, BEC = #(both wrong) / #(h1 wrong), or / #(h2 wrong).

    The two have one name in the literature and are different numbers; say which one you show.

    Args:
        h1_output_labels: N labels that h1 predicts, as in `trust_compatibility_score`.
        h2_output_labels: The same, for h2.
        expected_labels: The N true labels, or one-hot rows of shape (N, C).
        zero_division: Value when the model named by `given` is never wrong.
        given: `"h1_wrong"`, the share of h1's errors that h2 repeats (it falls when h2 repairs old errors), or
            `"h2_wrong"`, the share of h2's errors that are not new.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: As `trust_compatibility_score`, or if `given` is another word.
        TypeError: As `trust_compatibility_score`.

    Reference:
        Srivastava et al., "An Empirical Analysis of Backward Compatibility in Machine Learning Systems", KDD 2020.

    Example:
        >>> from bc_core import error_compatibility_score
        >>> h1, h2, y = ["a", "b", "b", "b"], ["b", "b", "a", "a"], ["a", "a", "a", "a"]
        >>> error_compatibility_score(h1, h2, y)
        0.3333333333333333
        >>> error_compatibility_score(h1, h2, y, given="h2_wrong")
        0.5
    """
    return _score_labels(bec_name(given), h1_output_labels, h2_output_labels, expected_labels, zero_division)


def negative_flip_rate(
    h1_output_labels: Any, h2_output_labels: Any, expected_labels: Any, zero_division: float = 0.0
) -> float:
    """Negative flip rate, NFR = #(h1 right and h2 wrong) / N.

    Args:
        h1_output_labels: N labels that h1 predicts, as in `trust_compatibility_score`.
        h2_output_labels: The same, for h2.
        expected_labels: The N true labels, or one-hot rows of shape (N, C).
        zero_division: Never used, since no instances are refused; here so that all scores take the same arguments.

    Returns:
        A number in [0, 1]; 0 means that nothing broke.

    Raises:
        ValueError: As `trust_compatibility_score`.
        TypeError: As `trust_compatibility_score`.

    Reference:
        Yan et al., "Positive-Congruent Training", CVPR 2021.

    Example:
        >>> from bc_core import negative_flip_rate
        >>> negative_flip_rate([1, 0, 1, 1], [1, 1, 1, 0], [1, 0, 1, 0])
        0.25
    """
    return _score_labels("nfr", h1_output_labels, h2_output_labels, expected_labels, zero_division)


def positive_flip_rate(
    h1_output_labels: Any, h2_output_labels: Any, expected_labels: Any, zero_division: float = 0.0
) -> float:
    """Positive flip rate, PFR = #(h1 wrong and h2 right) / N; accuracy(h2) - accuracy(h1) = PFR - NFR.

    Args:
        h1_output_labels: N labels that h1 predicts, as in `trust_compatibility_score`.
        h2_output_labels: The same, for h2.
        expected_labels: The N true labels, or one-hot rows of shape (N, C).
        zero_division: Never used, since no instances are refused; here so that all scores take the same arguments.

    Returns:
        A number in [0, 1]: the share of instances that h2 repaired.

    Raises:
        ValueError: As `trust_compatibility_score`.
        TypeError: As `trust_compatibility_score`.

    Reference:
        Yan et al., "Positive-Congruent Training", CVPR 2021.

    Example:
        >>> from bc_core import positive_flip_rate
        >>> positive_flip_rate([1, 0, 1, 1], [1, 1, 1, 0], [1, 0, 1, 0])
        0.25
    """
    return _score_labels("pfr", h1_output_labels, h2_output_labels, expected_labels, zero_division)


def negative_flip_impact(
    h1_output_labels: Any, h2_output_labels: Any, expected_labels: Any, zero_division: float = 0.0
) -> float:
    """Negative flip impact, NFI = #(h1 right and h2 wrong) / #(h2 wrong) = 1 - BEC given h2 wrong.

    Args:
        h1_output_labels: N labels that h1 predicts, as in `trust_compatibility_score`.
        h2_output_labels: The same, for h2.
        expected_labels: The N true labels, or one-hot rows of shape (N, C).
        zero_division: Value when h2 is never wrong.

    Returns:
        A number in [0, 1]: the share of h2's mistakes that is new.

    Raises:
        ValueError: As `trust_compatibility_score`.
        TypeError: As `trust_compatibility_score`.

    Reference:
        Cai et al., "Measuring and Reducing Model Update Regression in Structured Prediction for NLP", NeurIPS 2022.

    Example:
        >>> from bc_core import negative_flip_impact
        >>> negative_flip_impact([1, 0, 1, 1], [1, 1, 1, 0], [1, 0, 1, 0])
        1.0
    """
    return _score_labels("nfi", h1_output_labels, h2_output_labels, expected_labels, zero_division)
