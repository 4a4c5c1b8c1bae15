"""Write the table of docs/scores.md from the rows of `bc_core.SCORES`.

Run `python docs/score_table.py [--check]` (--check: only see whether the committed table is the same).
"""

from __future__ import annotations

import sys
from pathlib import Path

from bc_core import SCORES
from bc_core.counting._score_texts import formula

PAGE = Path(__file__).resolve().parent / "scores.md"
HEAD = "| name | metric | formula | better | |\n|---|---|---|---|---|\n"
BETTER = {True: "more", False: "less", None: "neither"}


def table() -> str:
    """One row for each score."""
    rows = []
    for score in SCORES.values():
        metric = "" if score.metric is None else f"`{score.metric}`"
        given = "" if score.given is None else f', `given="{score.given}"`'
        rows.append(
            f"| `{score.name}` | {metric}{given} | {formula(score)} | {BETTER[score.higher_is_better]} | "
            f"{score.description} |\n"
        )
    return HEAD + "".join(rows)


def main() -> None:
    """Write or check the page."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(HEAD)
    after = rest[rest.index("\n\n") + 1 :]
    wanted = before + table() + after
    if "--check" not in sys.argv:
        PAGE.write_text(wanted, encoding="utf-8")
    elif wanted != text:
        sys.exit(f"{PAGE.name} is not what bc_core gives; run `python docs/score_table.py`")


if __name__ == "__main__":
    main()
