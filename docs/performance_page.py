"""Write the tables of docs/performance.md from benchmarks/results.

Run `python docs/performance_page.py [--check]` (--check: only see whether the committed tables are the same).
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
RESULTS = DOCS.parent / "benchmarks" / "results"
PAGE = DOCS / "performance.md"
# A row of the page, and how the results call it.
RATIOS = {
    "ours, new error / (plain + one forward of h1)": "(ours, new error) / (plain + h1 forward)",
    "ours, strict imitation / (plain + one forward of h1)": "(ours, strict imitation) / (plain + h1 forward)",
    "ours with stored outputs of h1 / plain": "(ours, stored h1) / (plain)",
    "plain + one forward of h1 / plain": "(plain + h1 forward) / (plain)",
    "the original library's `bc_fit` / ours": "(original bc_fit, new error) / (ours, new error)",
}


def keras_steps() -> str:
    """Ratios of medians by backend; the original stands with the newest Keras first."""
    text = (RESULTS / "keras_step_time.md").read_text("utf-8")
    sections: dict[str, str] = {}
    for part in text.split("\n## ")[1:]:
        if found := re.match(r"Keras \S+ on (\S+ [\d.]+)", part):
            sections.setdefault(found[1], part)
    lines = [f"| | {' | '.join(sections)} |", "|---" * (len(sections) + 1) + "|"]
    for name, row in RATIOS.items():
        values = [re.search(rf"^\| {re.escape(row)} \| ([\d.]+) ", part, re.MULTILINE) for part in sections.values()]
        lines.append(f"| {name} | {' | '.join(f'{float(each[1]):.2f}' if each else '' for each in values)} |")
    return "\n".join(lines)


def promises() -> str:
    """Whole trainings with a promise, beside one with a lambda_c."""
    text = (RESULTS / "promises.md").read_text("utf-8")
    found = re.search(r"^\| side \| training \| seconds.*?(?=\n\n|\Z)", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise SystemExit("promises.md has no table of what a promise costs")
    return found[0].strip()


def main() -> None:
    """Write or check the page."""
    text = wanted = PAGE.read_text("utf-8")
    for name, table in (("keras_step_time", keras_steps()), ("promises", promises())):
        begin, end = f"<!-- made from {name}.md by docs/performance_page.py: -->\n\n", "\n\n<!-- until here -->"
        before, rest = wanted.split(begin)
        wanted = before + begin + table + rest[rest.index(end) :]
    if "--check" not in sys.argv:
        PAGE.write_text(wanted, "utf-8")
    elif wanted != text:
        sys.exit("performance.md is not what the results give; run `python docs/performance_page.py`")


if __name__ == "__main__":
    main()
