"""A comparison in words, and as a table of HTML."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from bc_core._texts import one_line
from bc_core.counting._scores import SCORES

if TYPE_CHECKING:
    from bc_core.comparison._comparison import Comparison

_MOST_SLICES = 5


def in_words(comparison: Comparison, confidence: float) -> str:
    """Title, scores with intervals, and where most was lost."""
    title = "Comparison" + (f" {comparison.name!r}" if comparison.name is not None else "")
    title += f", step {comparison.step}" if comparison.step is not None else ""
    title += f", lambda_c {comparison.lambda_c:g}" if comparison.lambda_c is not None else ""
    lines = [title, comparison.overlap.summary(confidence)]
    if comparison.new_classes:
        names = ", ".join(one_line(comparison.labels[c]) for c in comparison.new_classes)
        lines.append(f"Classes that h1 did not know: {names}")
        lines.append(f"  {comparison.new.total} instances, of which h2 gets {comparison.new.h2_only_right} right")
        lines.append("Without these")
        lines += [f"  {line}" for line in comparison.known.summary(confidence).splitlines()]
    worst = comparison.worst_classes()
    if worst:
        lines.append("Classes that lost most")
        lines += [
            f"  {one_line(flips.label)}: {flips.negative_flips} of {flips.total} instances broke, "
            f"{flips.positive_flips} repaired ({flips.share:.1%} of all negative flips)"
            for flips in worst
        ]
    if comparison.found_slices:
        lines.append("Slices that lost most, on the half of the instances that took no part in finding them")
        lines += [
            f"  {one_line(found.name)}: {found.negative_flips} of {found.total} instances broke "
            f"({found.low:.1%} to {found.high:.1%})"
            for found in comparison.found_slices[:_MOST_SLICES]
        ]
    return "\n".join(lines)


def in_html(comparison: Comparison) -> str:
    """Scores with intervals, for a notebook."""
    overlap = comparison.overlap
    caption = "Comparison" + (f" {comparison.name}" if comparison.name is not None else "")
    caption += f", step {comparison.step}" if comparison.step is not None else ""
    rows = []
    for score in SCORES.values():
        low, high = overlap.interval(score.name)
        rows.append(
            f'<tr title="{html.escape(score.description)}"><th>{html.escape(score.title)}</th>'
            f"<td>{overlap.score(score.name):.2%}</td><td>{low:.2%} to {high:.2%}</td></tr>"
        )
    worst = ", ".join(html.escape(f"{flips.label} ({flips.negative_flips})") for flips in comparison.worst_classes())
    return (
        f"<table><caption>{html.escape(caption)}: {comparison.dataset_size} instances, {overlap.h1_only_right} "
        f"negative and {overlap.h2_only_right} positive flips</caption>"
        "<thead><tr><th>score</th><th>estimate</th><th>95% interval</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>" + (f"<p>Classes that lost most: {worst}</p>" if worst else "")
    )


def new_in_words(comparison: Comparison) -> str:
    """What became of the instances of classes that h1 did not know, in a sentence; empty where it knew all.

    Example:
        >>> from bc_core import compare
        >>> print(new_in_words(compare([0, 1, 2, 2], [0, 0, 0, 1], [0, 1, 2, 0], new_classes=[2])))
        2 instances of classes that h1 did not know (2): h2 is right on 50.00%. Without them h1 is right on 50.00%, ...
    """
    if not comparison.new_classes:
        return ""
    names = ", ".join(one_line(comparison.labels[c]) for c in comparison.new_classes)
    new, known = comparison.new, comparison.known
    right = f": h2 is right on {new.accuracy_h2:.2%}" if new.total else ""
    return (
        f"{new.total} instances of classes that h1 did not know ({names}){right}. Without them h1 is right on "
        f"{known.accuracy_h1:.2%}, h2 on {known.accuracy_h2:.2%}, and {known.nfr:.2%} break"
    )
