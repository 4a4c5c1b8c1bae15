"""Every block of Python in README and docs runs, one after the other on its page, or says why it does not."""

from __future__ import annotations

import ast
import logging
import re
from pathlib import Path

import pytest
from blocks import PAGES, ROOT, blocks, scope_of

from bc_core.sweep import _points

BLOCKS = blocks()
RUN = sorted({block.page for block in BLOCKS if block.why is None})


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
@pytest.mark.filterwarnings("ignore")
def test_the_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    # Sweeps over the lambdas of nobody's choice are of three points, not of fifteen.
    monkeypatch.setattr(_points, "log_lambdas", lambda: [0.0, 4.0])
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    scopes = {}
    for block in BLOCKS:
        if block.page != page or block.why is not None:
            continue
        (tmp_path / block.side).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / block.side)
        if block.side not in scopes:
            scopes[block.side] = scope_of(page, block.side, Path())
        scope = scopes[block.side]
        # Blocks of a page go on with what the ones before have made, but each begins an update of its own.
        scope["h2"] = scope["new_module" if block.side == "torch" else "new_model"]()
        # Trainings are as long as they have to be to show that they run, and keep what so little can keep.
        code = re.sub(r"(epochs\"?[=:] ?)\d+", r"\g<1>1", block.code)
        code = re.sub(r"nfr <= [\d.]+%", "nfr <= 60%", code)
        code = code.replace('["cat", "dog"]', 'list("0123456789")')
        # A line of the error is then one of the page.
        tree = ast.increment_lineno(ast.parse(code, page), block.line - 1)
        exec(compile(tree, str(ROOT / page), "exec"), scope)


def test_what_does_not_run_says_why_and_is_python():
    for block in BLOCKS:
        ast.parse(block.code)
        assert block.why is None or len(block.why) > 10, block


def test_every_fence_is_of_a_kind_that_is_known():
    """A block whose kind is misspelt, or left out, would be run by nobody."""
    kinds = {"python", "bash", "toml", "yaml", "ini", "text", "html"}
    for path in PAGES:
        opened = re.findall(r"^ *```([^`\n]*)$", Path(path).read_text("utf-8"), re.MULTILINE)[::2]
        # The drawing of the house is a block of no language.
        assert set(opened) <= kinds | ({""} if path.name == "architecture.md" else set()), path
