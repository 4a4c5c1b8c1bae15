"""What the documentation of a metric says of its scores, read from their rows: no formula is written a second time."""

from __future__ import annotations

import re
from textwrap import fill

from bc_core.counting._scores import SCORES, Cells, Score

_CELL_WORDS = (("both wrong", "h1 wrong and h2 right"), ("h1 right and h2 wrong", "h1 right and h2 right"))
_PAIR_WORDS: dict[Cells, str] = {
    ((1, 1), (0, 0)): "h1 wrong",
    ((0, 0), (1, 1)): "h1 right",
    ((1, 0), (1, 0)): "h2 wrong",
    ((0, 1), (0, 1)): "h2 right",
    ((1, 1), (1, 1)): "",
}
_WIDTH = 116  # of a line of a docstring


def score_metrics() -> dict[str, tuple[Score, ...]]:
    """The scores of each metric class, in the order of the table."""
    found: dict[str, tuple[Score, ...]] = {}
    for score in SCORES.values():
        if score.metric is not None:
            found[score.metric] = (*found.get(score.metric, ()), score)
    return found


def function_name(metric: str) -> str:
    """Name of the function beside a class: `negative_flip_rate` beside `NegativeFlipRate`."""
    return re.sub("(?<!^)(?=[A-Z])", "_", metric).lower()


def counted(cells: Cells) -> str:
    """Which instances are counted, in words; nothing where all are."""
    singly = " or ".join(_CELL_WORDS[i][j] for i in range(2) for j in range(2) if cells[i][j])
    return _PAIR_WORDS.get(cells, singly)


def formula(score: Score) -> str:
    """The fraction, as in `#(h1 right and h2 wrong) / N`."""
    return " / ".join(f"#({words})" if (words := counted(c)) else "N" for c in (score.numerator, score.denominator))


def _tex(score: Score) -> str:
    above, below = (
        rf"\#(\text{{{words}}})" if (words := counted(c)) else "N" for c in (score.numerator, score.denominator)
    )
    return rf"\text{{{score.title}}} = \frac{{{above}}}{{{below}}}"


def introduction(scores: tuple[Score, ...]) -> str:
    """Head of the docstring of what computes these scores: a sentence, the formulas, what to know."""
    name, meaning = scores[0].description.split(": ", 1)
    head = f"{name} ({scores[0].title.split(' (')[0]})"
    math = ".. math::\n    " + " \\qquad\n    ".join(map(_tex, scores))
    note = fill(" ".join(score.note for score in scores if score.note), _WIDTH)
    if len(scores) == 1:
        return "\n\n".join(filter(None, [f"{head}: {meaning}", math, note]))
    meanings = "\n".join(f'- `given="{score.given}"`: {score.description.split(": ", 1)[1]}' for score in scores)
    return "\n\n".join([f"{head}, in the meaning that `given` chooses.", math, meanings, note])


def when_undefined(scores: tuple[Score, ...]) -> str:
    """When nothing lies below the fraction bar, as in `when no instance has h1 right`."""
    below = {counted(score.denominator) for score in scores}
    if len(below) > 1:
        return "when no instance is below the fraction bar"
    return f"when no instance has {words}" if (words := below.pop()) else "when there is no instance"


def sources(scores: tuple[Score, ...]) -> str:
    """Where the definitions come from."""
    return " ".join(score.source for score in scores if score.source)
