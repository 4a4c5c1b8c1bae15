"""The notebooks run from top to bottom, and say what they promise."""

from __future__ import annotations

import re
from pathlib import Path

import nbclient
import nbformat
import pytest
from jupyter_client.provisioning import local_provisioner
from warm_programs import Program

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def outputs_of(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    # What a library says when it starts is true of one machine only.
    return [out for cell in notebook.cells for out in cell.get("outputs", []) if out.get("name") != "stderr"]


def kinds(notebook: nbformat.NotebookNode) -> list[str]:
    """What is shown below the cells: pictures, tables, views."""
    return [kind for out in outputs_of(notebook) for kind in sorted(out.get("data", {})) if kind != "text/plain"]


def flips_of(notebook: nbformat.NotebookNode) -> list[int]:
    text = "\n".join(out["text"] for out in outputs_of(notebook) if "text" in out)
    return [int(count) for count in re.findall(r"(\d+) only h1", text)]


def launched(command, env, cwd=None, **options):
    return Program(*command[command.index("-m") :], env=env, cwd=cwd, start_new_session=True)


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook(path, monkeypatch):
    saved = nbformat.read(path, as_version=4)
    if "import keras" not in path.read_text("utf-8"):
        # A kernel as new as any, that need not wait for torch.
        monkeypatch.setattr(local_provisioner, "launch_kernel", launched)
    assert not [out for cell in saved.cells for out in cell.get("outputs", []) if out.get("name") == "stderr"]
    notebook = nbformat.from_dict(saved)
    # An error in any cell is raised here.
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    assert kinds(notebook) == kinds(saved)
    assert len(flips_of(notebook)) == len(flips_of(saved))
    if path.stem in ("dashboard", "keras", "lightning"):
        assert len(flips_of(saved)) == 2
        assert path.stem == "dashboard" or kinds(saved).count("image/png") == 2
    for each in (saved, notebook):
        assert re.search(r"^backward-compat-ml \d", outputs_of(each)[0]["text"])
        flips = flips_of(each)
        if path.stem != "two_processes":  # which compares numbers itself
            # The update that it shows, plain and then compatible: what the prose claims must be so.
            assert flips[-1] < flips[-2]
    if path.stem == "dashboard":
        (view,) = [
            out["data"]
            for out in outputs_of(notebook)
            if "application/vnd.jupyter.widget-view+json" in out.get("data", {})
        ]
        assert view["text/plain"] == "ComparisonView(2 comparisons; runs: plain, new error, lambda_c 8)"


def test_every_notebook_is_in_the_index():
    linked = re.findall(r"\]\((\w+)\.ipynb\)", (NOTEBOOKS / "README.md").read_text())
    assert set(linked) == {path.stem for path in NOTEBOOKS.glob("*.ipynb")}
