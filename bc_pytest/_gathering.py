"""What the assertions of a test run came to, gathered over processes and written as one file."""

from __future__ import annotations

import json
import os
import tempfile
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

from bc_core import Comparison
from bc_core._pages import to_html
from bc_core.files._files import write_whole
from bc_core.gate._assertion import Asserted, listeners
from bc_core.gate._shown import markdown

FORMAT, VERSION = "backward-compat-assertions", 1
_WORST = ("error", "fail", "inconclusive", "pass")


class Gathering:
    """Hears of assertions, and keeps their comparisons on disk: a run may have many.

    Args:
        folder: Where comparisons are kept; None for a new one, which `close` removes.
    """

    def __init__(self, folder: str | None = None) -> None:
        self._own = None if folder is not None else tempfile.TemporaryDirectory(prefix="bc-report-")
        self.folder = Path(self._own.name if self._own is not None else folder or "")
        self._heard: list[dict[str, Any]] = []
        self._entries: list[dict[str, Any]] = []
        listeners.append(self._hear)

    def close(self) -> None:
        """Listen no longer."""
        listeners.remove(self._hear)
        if self._own is not None:
            self._own.cleanup()

    def heard(self) -> list[dict[str, Any]]:
        """What was heard since this was asked last, as plain values that go to another process."""
        heard, self._heard = self._heard, []
        return heard

    def add(self, test: str, outcome: str, heard: list[dict[str, Any]]) -> None:
        """Keep what one phase of a test heard."""
        self._entries += [{"test": test, "outcome": outcome, **each} for each in heard]

    def write(self, path: Path) -> str:
        """Write the file, and say what it came to."""
        self._entries.sort(key=lambda entry: str(entry["test"]))  # processes finish in another order each time
        verdicts = [entry["verdict"] for entry in self._entries]
        verdict = min(verdicts, key=_WORST.index, default=None)
        counts = ", ".join(f"{verdicts.count(word)} {word}" for word in _WORST if word in verdicts)
        told = f"{len(verdicts)} assertions of compatibility: {counts}" if verdicts else "No assertion of compatibility"
        if path.suffix.lower() == ".html":
            self._write_page(path, told)
        elif path.suffix.lower() == ".md":
            write_whole(path, _markdown(told, self._entries).encode("utf-8", "backslashreplace"))
        else:
            kept = [{key: v for key, v in entry.items() if key not in ("markdown", "kept")} for entry in self._entries]
            whole = {"format": FORMAT, "version": VERSION, "verdict": verdict, "assertions": kept}
            write_whole(path, (json.dumps(whole, indent=2, allow_nan=False) + "\n").encode())
        return f"{told}; written to {path}"

    def _hear(self, asserted: Asserted) -> None:
        made, kept = asserted.report, None
        if made is not None and isinstance(made.comparison, Comparison):
            kept = f"{uuid.uuid4().hex}.json.gz"
            made.comparison.save(self.folder / kept)
        self._heard.append(
            {
                "verdict": "error" if made is None else made.verdict,
                "raised": asserted.raised,
                "error": asserted.error,
                "report": None if made is None else made.to_dict(),
                "markdown": "" if made is None else markdown(made),
                "kept": kept,
            }
        )

    def _write_page(self, path: Path, told: str) -> None:
        comparisons, reports = {}, {}
        for title, entry in zip(_titles(self._entries), self._entries, strict=True):
            reports[title] = entry["report"] or entry["error"]
            kept = entry["kept"]
            # A worker on another machine has another disk: its verdict came with the test, its instances did not.
            if kept is not None and os.path.exists(self.folder / kept):
                comparisons[title] = Comparison.load(self.folder / kept, max_bytes=2**32)
        to_html(comparisons or None, path, {"title": told, "reports": reports})


def _titles(entries: list[dict[str, Any]]) -> list[str]:
    """Names of tests, numbered where one asserts more than once."""
    seen: Counter[str] = Counter()
    titles = []
    for entry in entries:
        seen[entry["test"]] += 1
        number = seen[entry["test"]]
        titles.append(entry["test"] if number == 1 else f"{entry['test']} #{number}")
    return titles


def _markdown(told: str, entries: list[dict[str, Any]]) -> str:
    parts = [f"# {told}\n"]
    for title, entry in zip(_titles(entries), entries, strict=True):
        shown = entry["markdown"].replace("## ", "### ", 1) or f"### ❌ Not judged\n\n    {entry['error']}\n"
        parts.append(f"## `{title.replace('`', chr(39))}` ({entry['outcome']})\n\n{shown}")
    return "\n".join(parts)
