"""Docstrings of the score functions and metrics: one text, filled in by the rows of `bc_core.SCORES`."""

from __future__ import annotations

from typing import Any

from bc_core import Score, score_from_counts
from bc_core.counting._score_texts import function_name, introduction, sources, when_undefined

_FUNCTION = """{introduction}

Args:
    preds: What the new model h2 says: floating-point scores or integer labels. Shapes and dtypes are those of
        `error_overlap`.
    target: True labels.
    reference_preds: What the old model h1 says: scores or labels, whichever `preds` has.
{options}
Returns:
    float32 tensor, scalar, or shape `(C,)` (`(L,)` for multilabel) for `average=None`.

Raises:
    TypeError: If an input is not a tensor.
    ValueError: If an argument is not one of the above, `num_classes` or `num_labels` is missing, or shapes, labels or
        scores are refused as by `error_overlap`.
{reference}
Example:
    >>> from torch import tensor
    >>> from bc_lightning.functional import {name}
{examples}
"""

_METRIC = """{introduction}

`update` and `forward` take

- `preds`: what the new model h2 says, floating-point scores or integer labels;
- `target`: true labels;
- `reference_preds`: what the old model h1 says, scores or labels, whichever `preds` has,

with the shapes and dtypes of `bc_lightning.functional.error_overlap`. `compute` and `forward` give a float32 tensor:
a scalar, or one score per class (label) for `average=None`.

Args:
{options}    kwargs: Options of `torchmetrics.Metric`, and `new_classes`: classes that h1 did not know, whose instances
        are left out. Multiclass only.

Raises:
    ValueError: If an argument is not one of the above, `num_classes` or `num_labels` is missing, or inputs are refused
        as by `bc_lightning.functional.error_overlap`.
{reference}
Example:
    >>> from torch import tensor
    >>> from bc_lightning.metrics import {name}
{examples}
"""

_OPTIONS = """    task: `"binary"`, `"multiclass"` or `"multilabel"`.
    threshold: Probability from which on class 1 (a label) is given, for both models. Binary and multilabel only.
    num_classes: Number of classes C. Multiclass only, where it is needed.
    num_labels: Number of labels L. Multilabel only, where it is needed.
    average: `"micro"` divides the counts summed over classes (labels), `"macro"` is the mean over the classes that
        have something to divide by, `"none"` or None gives one score per class. Not for binary.
{given}    ignore_index: A target value whose entries are left out.
    zero_division: Score {when_undefined}: a number in [0, 1] or nan.
    validate_args: Whether to validate arguments and tensors. False saves time and, on an accelerator, the wait for
        the values.
"""

# One example for each task: options, preds, target, reference_preds, and the counts that these come to.
_EXAMPLES: tuple[tuple[str, str, str, str, Any], ...] = (
    (
        'task="binary"',
        "[0.9, 0.2, 0.4, 0.6, 0.7]",
        "[1, 1, 0, 0, 1]",
        "[1, 1, 0, 1, 0]",
        [[1, 1], [1, 2]],
    ),
    (
        'task="multiclass", num_classes=3, average=None',
        "[0, 1, 2, 0, 0]",
        "[0, 1, 2, 2, 1]",
        "[0, 2, 2, 2, 0]",
        [[[0, 0], [0, 1]], [[1, 1], [0, 0]], [[0, 0], [1, 1]]],
    ),
    (
        'task="multilabel", num_labels=2',
        "[[1, 1], [0, 1]]",
        "[[1, 0], [1, 1]]",
        "[[1, 0], [0, 0]]",
        [[1, 1], [1, 1]],
    ),
)


def function_docstring(metric: str, scores: tuple[Score, ...]) -> str:
    """Docstring of the function beside the class `metric`."""
    name = function_name(metric)
    lines = []
    for options, preds, target, reference, value in _examples(scores):
        lines += [
            f">>> preds, target, reference_preds = tensor({preds}), tensor({target}), tensor({reference})",
            f">>> {name}(preds, target, reference_preds, {options})",
            value,
        ]
    return _FUNCTION.format(name=name, **_parts(scores, lines))


def metric_docstring(metric: str, scores: tuple[Score, ...]) -> str:
    """Docstring of the class `metric`."""
    lines = []
    for options, preds, target, reference, value in _examples(scores):
        lines += [
            f">>> metric = {metric}({options})",
            f">>> metric(tensor({preds}), tensor({target}), tensor({reference}))",
            value,
        ]
    return _METRIC.format(name=metric, **_parts(scores, lines))


def _parts(scores: tuple[Score, ...], examples: list[str]) -> dict[str, str]:
    choices = " or ".join(f'`"{score.given}"`' for score in scores)
    given = f"    given: Which of the formulas, {choices}.\n" if len(scores) > 1 else ""
    return {
        "introduction": introduction(scores),
        "options": _OPTIONS.format(given=given, when_undefined=when_undefined(scores)),
        "reference": f"\nReference:\n    {sources(scores)}\n" if sources(scores) else "",
        "examples": "\n".join("    " + line for line in examples),
    }


def _examples(scores: tuple[Score, ...]) -> list[tuple[str, str, str, str, str]]:
    """Each task's example with the value that torch shows; the last one asks for the last of several scores."""
    found = []
    for number, (options, preds, target, reference, counts) in enumerate(_EXAMPLES):
        score = scores[-1 if number == len(_EXAMPLES) - 1 else 0]
        asked = options if score is scores[0] else f'{options}, given="{score.given}"'
        found.append((asked, preds, target, reference, f"tensor({_shown(score_from_counts(score.name, counts))})"))
    return found


def _shown(value: Any) -> str:
    """As torch prints numbers: whole ones without digits, if all are whole."""
    values = [value] if isinstance(value, float) else list(value)
    form = "{:.0f}." if all(each == round(each) for each in values) else "{:.4f}"
    shown = ", ".join(form.format(each) for each in values)
    return shown if isinstance(value, float) else f"[{shown}]"
