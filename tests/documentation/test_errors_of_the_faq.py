"""Every error text that the FAQ quotes is one that the code has."""

from __future__ import annotations

import ast
import re

import pytest
from blocks import ROOT

PAGE = (ROOT / "docs" / "faq.md").read_text("utf-8")
QUOTED = re.findall(r"^\*\*`(.*?)`\*\* ", PAGE, re.MULTILINE)


def texts():
    """All strings of the packages, with a dot for what is filled in."""
    found = []
    for package in ("bc_core", "bc_keras", "bc_lightning", "bc_tensorboard"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    found.append("".join(each.value if isinstance(each, ast.Constant) else "…" for each in node.values))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found


@pytest.fixture(scope="module")
def strings():
    return texts()


@pytest.mark.parametrize("quoted", QUOTED)
def test_a_quoted_error_is_one_of_ours(quoted, strings):
    pattern = ".*".join(map(re.escape, quoted.split("…")))
    assert any(re.search(pattern, text, re.DOTALL) for text in strings)


def test_there_are_some():
    assert len(QUOTED) > 15
