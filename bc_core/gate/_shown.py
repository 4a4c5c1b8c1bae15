"""A report as text of a terminal, as Markdown for a pull request, and as JUnit for a pipeline."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from bc_core._texts import one_line
from bc_core.comparison._shown import new_in_words
from bc_core.gate._checks import Check
from bc_core.gate._judging import Counted
from bc_core.gate._report import Mistake, PartLine, Report
from bc_core.slices._search import FoundSlice

_WORST = 5
_FEW_CHECKS = 15
_KINDS = (
    "Intervals are two-sided (Wilson); what checks say is at least or at most, one-sided (exact; of gains Newcombe's)"
)
MARKS = {"pass": "✅", "fail": "❌", "inconclusive": "❔"}


def terminal(report: Report) -> str:
    """Checks first, then scores, worst classes and slices, new mistakes."""
    lines = []
    if report.verdict is not None and report.judgement is not None:
        lines += [_check_line(check) for check in _worst_first(report.judgement.checks)]
        lines += [f"{report.verdict.upper()}: {_tally(report.judgement.checks)}", ""]
    title = f"Comparison {report.comparison.name!r}" if report.comparison.name is not None else "Comparison"
    lines += [title, *report.comparison.overlap._told(report.scores, report.confidence)]
    if report.verdict is not None:
        lines.append(f"  {_KINDS}")
    lines += _told_parts(f"Worst {_parts_are(report)}", report.classes) + _told_parts("Worst slices", report.slices)
    if report.found:
        lines.append("Slices that were looked for, tried on the half that took no part in finding them")
        lines += [f"  {_found(each)}" for each in report.found[:_WORST]]
    if report.mistakes:
        lines.append("New mistakes" + (", the surest first" if report.mistakes[0].sureness is not None else ""))
        lines += [f"  {_mistake(mistake)}" for mistake in report.mistakes[:_WORST]]
    return "\n".join(map(one_line, [*lines, *_further(report)]))


def markdown(report: Report) -> str:
    """A summary of one screen."""
    overlap, lines = report.comparison.overlap, []
    if report.verdict is not None:
        lines.append(f"## {MARKS[report.verdict]} Compatibility: {report.verdict}")
    else:
        lines.append("## Compatibility")
    lines += [
        "",
        f"{overlap.total} instances: **{overlap.h1_only_right} broke**, {overlap.h2_only_right} were repaired, "
        f"{overlap.both_wrong} stay wrong.",
    ]
    if report.judgement is not None:
        checks = _worst_first(report.judgement.checks)
        lines += _table(
            ("", "where", "wanted", "measured, with one-sided bounds"),
            ((MARKS[check.verdict], check.scope, check.wanted, _measured(check)) for check in checks[:_FEW_CHECKS]),
        )
        if len(checks) > _FEW_CHECKS:
            lines += ["", f"{len(checks)} checks in all: {_tally(checks)}."]
    lines += _table(
        ("score", "estimate", f"{100 * report.confidence:g} % interval (Wilson)"),
        ((s.title, f"{s.value:.2%}", f"{s.low:.2%} to {s.high:.2%}") for s in report.scores if s.below),
    )
    if worst := [*_broken(report.classes), *_broken(report.slices)]:
        lines += _table(
            (f"worst {_parts_are(report)} and slices", "broke", "of", "rate"),
            ((p.name, p.negative_flips, p.total, f"{p.rate:.2%} ({p.low:.2%} to {p.high:.2%})") for p in worst),
        )
    if report.found:
        lines += [
            "",
            "Slices that were looked for:",
            "",
            *(f"- {_cell(_found(each))}" for each in report.found[:_WORST]),
        ]
    if report.mistakes:
        lines += ["", "<details><summary>New mistakes</summary>", ""]
        lines += [f"- {_cell(_mistake(mistake))}" for mistake in report.mistakes]
        lines += ["", "</details>"]
    if further := _further(report):
        lines += ["", *(f"- {_cell(text)}" for text in further)]
    return "\n".join(lines) + "\n"


def junit(report: Report) -> str:
    """One test case a check: a failure where it fails, an error where it is inconclusive."""
    from xml.etree import ElementTree

    checks = () if report.judgement is None else report.judgement.checks
    counts = {verdict: sum(check.verdict == verdict for check in checks) for verdict in MARKS}
    suite = ElementTree.Element(
        "testsuite",
        name="bc-compare",
        tests=str(len(checks)),
        failures=str(counts["fail"]),
        errors=str(counts["inconclusive"]),
    )
    for check in checks:
        case = ElementTree.SubElement(
            suite, "testcase", classname=_xml(f"bc-compare.{check.scope}"), name=_xml(check.wanted)
        )
        if check.verdict != "pass":
            kind = "failure" if check.verdict == "fail" else "error"
            told = ElementTree.SubElement(case, kind, type=check.verdict, message=_xml(_measured(check)))
            told.text = _xml("\n".join([_check_line(check), *check.ids]))
    output = ElementTree.SubElement(suite, "system-out")
    output.text = _xml(terminal(report))
    ElementTree.indent(suite)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def _parts_are(report: Report) -> str:
    return "labels" if report.multilabel else "classes"


def _worst_first(checks: Sequence[Check]) -> list[Check]:
    order = ("fail", "inconclusive", "pass")
    return sorted(checks, key=lambda check: order.index(check.verdict))


def _tally(checks: Sequence[Check]) -> str:
    counts = [(sum(check.verdict == word for check in checks), word) for word in ("fail", "inconclusive", "pass")]
    return ", ".join(f"{count} {word}" for count, word in counts if count)


def _check_line(check: Check) -> str:
    return f"{check.verdict.upper()}: {check.scope}: {check.wanted} wanted; {_measured(check)}"


def _measured(check: Check) -> str:
    if math.isnan(check.value):
        return check.note
    if check.scope == "critical instances":
        told = f"{len(check.ids)} of {check.instances} broke"
        return f"{told}: {', '.join(check.ids[:_WORST])}{', ...' * (len(check.ids) > _WORST)}" if check.ids else told
    told = f"measured {check.value:.4%}, at least {check.low:.4%}, at most {check.high:.4%}"
    if check.more is not None:
        told += f"; about {check.more} more instances of it would decide"
    return f"{told}; {check.note}" if check.note else told


def _broken(parts: Sequence[PartLine]) -> list[PartLine]:
    return [part for part in parts if part.negative_flips][:_WORST]


def _told_parts(title: str, parts: Sequence[PartLine]) -> list[str]:
    worst = _broken(parts)
    if not worst:
        return []
    return [
        title,
        *(
            f"  {part.name}: {part.negative_flips} of {part.total} instances broke ({part.rate:.2%}, {part.low:.2%} to "
            f"{part.high:.2%}), {part.positive_flips} repaired"
            + (f"; more than by chance (p {part.p_value:.2g} among {len(parts)})" if part.p_value < 0.05 else "")
            for part in worst
        ),
    ]


def _found(each: FoundSlice) -> str:
    return (
        f"{each.name}: {each.negative_flips} of {each.total} instances broke ({each.rate:.2%}, {each.low:.2%} to "
        f"{each.high:.2%}; p {each.p_value:.2g})"
    )


def _mistake(mistake: Mistake) -> str:
    sure = "" if mistake.sureness is None else f" ({mistake.sureness:.1%} sure)"
    return f"{mistake.id}: {mistake.target}, now taken for {mistake.h2_pred}{sure}"


def _further(report: Report) -> list[str]:
    told = None if isinstance(report.comparison, Counted) else new_in_words(report.comparison)
    lines = [*([told] if told else []), *report.notes]
    noise = report.noise
    if noise is not None:
        spread = f"{noise.lowest:.2%} to {noise.highest:.2%}, {noise.seeds} seeds"
        told = f"A retraining alone breaks {noise.rate:.2%} ({spread})"
        if noise.excess is not None and noise.low is not None and noise.high is not None:
            told += f"; this update {noise.excess:+.2%} beyond it ({noise.low:+.2%} to {noise.high:+.2%})"
        lines.append(told)
    judgement = report.judgement
    if judgement is not None:
        if judgement.accepted:
            lines.append(f"{len(judgement.accepted)} flips are accepted and do not count")
        if judgement.expired:
            ids = ", ".join(flip.id for flip in judgement.expired[:_WORST])
            lines.append(f"{len(judgement.expired)} flips were accepted until a day that has passed, and count: {ids}")
        if judgement.spare:
            lines.append(f"{len(judgement.spare)} accepted flips are none any more, and can be taken off the list")
    return lines


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """A table of Markdown, with an empty line before it."""
    lines = [f"| {' | '.join(map(_cell, row))} |" for row in (head, *rows)]
    return ["", lines[0], f"|{'---|' * len(head)}", *lines[1:]]


def _cell(text: object) -> str:
    """Text that a table or a list of Markdown shows as it is."""
    escaped = re.sub(r"([\\`*_{}\[\]<>#|~@!&])", r"\\\1", one_line(text))
    return escaped.replace("\\@", "@\u200b")  # a name in data must not call anybody


def _xml(text: str) -> str:
    """Without the characters that XML cannot hold."""
    return "".join(char if char in "\n\t" or (char.isprintable() and char <= "\uffff") else "?" for char in text)
