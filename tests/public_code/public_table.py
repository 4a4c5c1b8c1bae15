"""The tables of docs/public_code.md, which say what the tests have shown."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "public_code.md"


def rows(patterns: Iterable[tuple[str, str, str]]) -> list[str]:
    """In Markdown: what people write, what is enough, what has to be said."""
    return [f"| {what} | {how} | {needs} |" for what, how, needs in patterns]


def rows_on_the_page(heading: str) -> list[str]:
    """The rows below a heading of the page, without the table's head."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| ")][1:]


def counted(patterns: Iterable[tuple[str, str, str]]) -> str:
    """The sentence that sums the table up."""
    hows = [how for _, how, _ in patterns]
    return (
        f"{len(hows)} patterns: {hows.count('one line')} with one line, {hows.count('option')} with an option named, "
        f"{hows.count('refused')} refused with a remedy that works."
    )
