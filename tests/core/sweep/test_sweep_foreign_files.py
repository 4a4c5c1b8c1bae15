"""What a sweep finds in the folder that it is given."""

from __future__ import annotations

import pytest

from bc_core.sweep._folder import SweepFolder
from bc_core.sweep._points import Point

POINTS = [Point("new_error", 1.0, 0)]

HARMLESS = [
    *(".gitkeep", ".DS_Store", ".gitignore", ".ipynb_checkpoints/", ".directory", "._sweep_summary.json"),
    *("desktop.ini", "Thumbs.db", "__pycache__/", "lost+found/", "README", "README.md", "LICENSE.txt"),
    *("h1-model.state", "0.25-model-new-error.state", "sweep_summary.json", "12-evaluation-data.json", "h1.pt"),
    *("h1.ckpt", "model.safetensors", "h1.keras", "weights.h5"),
]


def put(folder, name):
    (folder / name).mkdir() if name.endswith("/") else (folder / name).write_text("{}")


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_nobodys_work_does_not_stand_in_the_way_and_stays(tmp_path, name):
    put(tmp_path, name)
    folder = SweepFolder(tmp_path)
    folder.begin({"h1": "a"}, ["new_error"], POINTS)
    folder.clear_running()
    assert folder.plan == POINTS
    assert (tmp_path / name).exists()


@pytest.mark.parametrize("name", ["thesis.tex", "data/", "points/", "failures/", "train.py", "results.json", "a.ipynb"])
def test_the_work_of_somebody_else_is_left_alone(tmp_path, name):
    for each in (".gitkeep", "README.md", name):
        put(tmp_path, each)
    with pytest.raises(ValueError, match=f"holds no sweep, but {name.rstrip('/')}"):
        SweepFolder(tmp_path).begin({"h1": "a"}, ["new_error"], POINTS)
    assert not (tmp_path / "sweep.json").exists()
