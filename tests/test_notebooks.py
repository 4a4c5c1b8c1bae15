"""The notebooks run from top to bottom, and say what they promise."""

from __future__ import annotations

import re
from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def text_of(notebook: nbformat.NotebookNode) -> str:
    return "\n".join(out["text"] for cell in notebook.cells for out in cell.get("outputs", []) if "text" in out)


def executed(path: Path) -> tuple[str, nbformat.NotebookNode]:
    """What the committed outputs say, and the notebook after it ran anew."""
    notebook = nbformat.read(path, as_version=4)
    shown = text_of(notebook)
    # What a library says when it starts is true of one machine only.
    assert not [out for cell in notebook.cells for out in cell.get("outputs", []) if out.get("name") == "stderr"]
    # An error in any cell is raised here.
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    return shown, notebook


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook(path):
    shown, notebook = executed(path)
    text = text_of(notebook)
    flips = [int(count) for count in re.findall(r"(\d+) only h1", text)]
    # The update that it shows, plain and then compatible: what the prose claims must be so.
    assert len(flips) == 2
    assert flips[1] < flips[0]
    assert len(re.findall(r"(\d+) only h1", shown)) == 2
    outputs = [out.get("data", {}) for cell in notebook.cells for out in cell.get("outputs", [])]
    if path.stem == "dashboard":
        (view,) = [data for data in outputs if "application/vnd.jupyter.widget-view+json" in data]
        assert view["text/plain"] == "ComparisonView(2 comparisons; runs: plain, new error, lambda_c 8)"
    else:
        assert len([data for data in outputs if "image/png" in data]) == 2
