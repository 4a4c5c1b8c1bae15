"""Light checks of the pages, for every run of the tests: `make docs` builds the site and sees more."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import yaml
from blocks import PAGES, ROOT

from bc_core.losses._dissonances import DISSONANCES

OTHERS = [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "SECURITY.md", *ROOT.glob("bc_*/*/README.md")]
# What docs/site/pages.py makes while the site is built.
MADE = {"index.md", "changelog.md", "contributing.md", "results.md", "notebooks.md"}


def anchors(text):
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES + OTHERS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_of_a_page_leads_somewhere(page):
    text = page.read_text("utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)) + re.findall(r'src(?:set)?="([^"]+)"', text)
    for link in links:
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text("utf-8")), link


def test_the_navigation_has_every_page():
    def pages(node):
        children = node.values() if isinstance(node, dict) else node
        return [node] if isinstance(node, str) else [page for child in children for page in pages(child)]

    listed = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"])
    listed = [page for page in listed if not page.startswith("reference/")]
    there = {page.relative_to(ROOT / "docs").as_posix() for page in PAGES if page.parent != ROOT}
    assert sorted(listed) == sorted(there | MADE)


def test_the_tables_of_performance_are_those_of_the_results():
    command = [sys.executable, ROOT / "docs" / "performance_page.py", "--check"]
    subprocess.run(command, check=True)


def test_the_table_of_dissonances_has_every_one():
    section = (ROOT / "docs" / "training.md").read_text("utf-8").split("\n## Dissonances\n")[1].split("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]*)\|", section, re.MULTILINE)
    assert re.findall(r"`(\w+)`", " ".join(cells)) == [name for name in DISSONANCES if name != "recommended"]
