"""Run the notebooks, each in a new kernel, and save what they show: all, or those that are named."""

import sys
import time
from pathlib import Path

import nbclient
import nbformat

FOLDER = Path(__file__).parent


def run(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            # What a library says when it starts is true of one machine only.
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for path in [FOLDER / f"{name}.ipynb" for name in sys.argv[1:]] or sorted(FOLDER.glob("*.ipynb")):
        start = time.perf_counter()
        run(path)
        print(f"{path.stem}: {time.perf_counter() - start:.0f} s", flush=True)
