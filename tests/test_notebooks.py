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


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook(path):
    notebook = nbformat.read(path, as_version=4)
    shown = text_of(notebook)
    # What a library says when it starts is true of one machine only.
    assert not [out for cell in notebook.cells for out in cell.get("outputs", []) if out.get("name") == "stderr"]
    # An error in any cell is raised here.
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    text = text_of(notebook)
    flips = [int(count) for count in re.findall(r"(\d+) only h1", text)]
    # The update that it shows, plain and then compatible: what the prose claims must be so.
    assert len(flips) == 2
    assert flips[1] < flips[0]
    assert len(re.findall(r"(\d+) only h1", shown)) == 2
    images = [out for cell in notebook.cells for out in cell.get("outputs", []) if "image/png" in out.get("data", {})]
    assert len(images) == 2
