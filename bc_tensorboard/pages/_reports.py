"""What the gate came to, as the head of a page: plain HTML, which also a browser without JavaScript shows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bc_core._texts import in_html
from bc_core.counting._scores import SCORES

_MARKS = {"pass": "\N{CHECK MARK}", "fail": "\N{BALLOT X}", "inconclusive": "?"}
_ORDER = ("fail", "inconclusive", "pass")
_MOST_ROWS = 50
_NUMBER = re.compile(r"[0-9.]+(e-[0-9]+)?%?")
STYLE = """
.bc-gate { font: 14px/1.45 system-ui, sans-serif; margin: 12px }
.bc-gate div { overflow-x: auto }
.bc-gate table { border-collapse: collapse; margin: 8px 0 16px }
.bc-gate caption { text-align: left; font-weight: 600; padding: 4px 0 }
.bc-gate :is(p, li, td:nth-child(-n+2)) { overflow-wrap: anywhere }
.bc-gate td:nth-child(-n+2) { min-width: 6em }
.bc-gate th, .bc-gate td { text-align: left; padding: 3px 12px 3px 0; border-bottom: 1px solid #8884 }
.bc-gate td.number { min-width: 0; white-space: nowrap; text-align: right; font-variant-numeric: tabular-nums }
.bc-gate summary { font-size: 17px; font-weight: 600; cursor: pointer; overflow-wrap: anywhere }
.bc-gate details details summary { font-size: 14px }
"""


def reports_section(reports: Any) -> str:
    """Reports of the gate as HTML.

    Args:
        reports: A report, as `assert_compatible` returns it, or what its `to_dict` gave; or a mapping from titles to
            such, or to the error that kept one from being judged.
    """
    named = {"": reports} if hasattr(reports, "to_dict") or "format" in reports else dict(reports)
    parts = [_report(title, each.to_dict() if hasattr(each, "to_dict") else each) for title, each in named.items()]
    inside = "".join(parts) or "<p>No assertion of compatibility.</p>"
    return f'<section class="bc-gate" aria-label="What the gate came to">{inside}</section>'


def _report(title: str, report: Mapping[str, Any] | str) -> str:
    if isinstance(report, str):
        heading = f"{_MARKS['fail']} {in_html(title)}: not judged"
        return f"<details open><summary>{heading}</summary><p>{in_html(report)}</p></details>"
    verdict = report["verdict"]
    told = f"{_MARKS[verdict]} {verdict}" if verdict is not None else "What changed"
    heading = f"{told}: {title}" if title else told
    counts = (
        f"{report['instances']} instances: {report['negative_flips']} broke, {report['positive_flips']} were repaired, "
        f"{report['both_wrong']} stay wrong."
    )
    percent = f"{100 * report['confidence']:g} % interval (Wilson)"
    checks = sorted(report["checks"], key=lambda check: _ORDER.index(check["verdict"]))
    tables = [
        _table("Checks", ("verdict", "where", "wanted", "measured", "one-sided bounds", "note"), map(_check, checks)),
        _table(
            "Scores",
            ("score", "estimate", percent),
            (
                (SCORES[name].title, _share(line["value"]), _interval(line))
                for name, line in report["scores"].items()
                if line["value"] is not None
            ),
        ),
        _parts("Worst classes", "class", report["classes"], percent),
        _parts("Worst slices", "slice", report["slices"], percent),
        _found(report["found_slices"], percent),
    ]
    notes = "".join(f"<li>{in_html(note)}</li>" for note in report["notes"])
    opened = "" if verdict == "pass" and title else " open"
    # The dashboard below has these too; they are for who reads without JavaScript, or has one page for many tests.
    more = f"<details><summary>Scores, classes and slices</summary>{''.join(tables[1:])}</details>"
    body = f"<p>{counts}</p>{tables[0]}<ul>{notes}</ul>{more}"
    return f"<details{opened}><summary>{in_html(heading)}</summary>{body}</details>"


def _check(check: Mapping[str, Any]) -> Sequence[str]:
    bounds = f"at least {_share(check['low'], 4)}, at most {_share(check['high'], 4)}"
    told = [check["note"]] * bool(check["note"]) + [", ".join(check["ids"][:_MOST_ROWS])] * bool(check["ids"])
    if check["more_instances"] is not None:
        told.append(f"about {check['more_instances']} more instances would decide")
    return (
        f"{_MARKS[check['verdict']]} {check['verdict']}",
        check["scope"],
        check["wanted"],
        _share(check["value"], 4),
        bounds,
        "; ".join(told),
    )


def _parts(title: str, what: str, parts: Iterable[Mapping[str, Any]], percent: str) -> str:
    broken = [part for part in parts if part["negative_flips"]]
    rows = map(_row, broken)
    return _table(title, (what, "broke", "of", "rate", percent, "p, adjusted for how many were looked at"), rows)


def _row(part: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        part["name"],
        str(part["negative_flips"]),
        str(part["total"]),
        _share(part["rate"]),
        _interval(part),
        f"{part['p_value']:.2g}",
    )


def _found(found: Iterable[Mapping[str, Any]], percent: str) -> str:
    rows = map(_row, found)
    title = (
        "Slices of one and two columns that were looked for: found in one half of the instances, counted in the other"
    )
    return _table(title, ("slice", "broke", "of", "rate", percent, "p (Holm)"), rows)


def _table(title: str, names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = list(rows)
    if not cells:
        return ""
    head = "".join(f'<th scope="col">{in_html(name)}</th>' for name in names)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in cells[:_MOST_ROWS])
    left = f"<p>The first {_MOST_ROWS} of {len(cells)}.</p>" if len(cells) > _MOST_ROWS else ""
    # A table that is wider than the page is scrolled, by keys too.
    frame = f'<div tabindex="0" role="group" aria-label="{in_html(title)}">'
    return f"{frame}<table><caption>{in_html(title)}</caption><tr>{head}</tr>{body}</table></div>{left}"


def _cell(text: str) -> str:
    number = _NUMBER.fullmatch(text)
    return f'<td class="number">{text}</td>' if number else f"<td>{in_html(text)}</td>"


def _share(value: float | None, digits: int = 2) -> str:
    return "undefined" if value is None else f"{value:.{digits}%}"


def _interval(line: Mapping[str, Any]) -> str:
    return f"{_share(line['low'])} to {_share(line['high'])}"
