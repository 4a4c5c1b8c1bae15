"""Folders as data: texts and images, in folders of classes or all in one."""

import pytest

from bc_core import predict
from bc_core._cli import main
from bc_core.predictions._reading import read_table

MODEL = """
seen = []
def length(texts):
    seen.extend(texts)
    return [len(text) for text in texts]
def colour(paths):
    from PIL import Image
    import numpy as np
    return np.stack([np.asarray(Image.open(path).convert("RGB"), float).mean(axis=(0, 1)) for path in paths])
colour.classes = ("red", "green", "blue")
def dies(texts):
    if "three" in texts:
        raise KeyboardInterrupt
    return length(texts)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "model_of_folders.py").write_text(MODEL)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def texts(folder, **files):
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-16" if name.endswith("wide") else "utf-8")
    return str(folder)


def test_texts_in_folders_of_classes(here):
    data = texts(here / "data", b__one="a, b\nc", a__two_wide="é", a__deep__three="three")
    (here / "data" / ".hidden").write_text("x")
    done = predict("model_of_folders:length", data, here / "out.csv", batch_size=2)
    assert done.rows == 3
    table = read_table(here / "out.csv")
    assert table.columns["id"].tolist() == ["a/deep/three.txt", "a/two_wide.txt", "b/one.txt"]
    assert table.columns["target"].tolist() == ["a", "a", "b"]
    assert table.columns["pred"].tolist() == [5, 1, 6]


def test_a_run_of_a_folder_is_taken_up(here, capsys):
    data = texts(here / "data", **{f"t{number}": f"{number}" * (number + 1) for number in range(5)}, t5="three")
    command = ["predict", "model_of_folders:dies", data, "--out", "out.csv", "--batch", "2"]
    assert main(command) == 130
    (here / "data" / "t5.txt").write_text("other")
    assert main(command) == 2  # the data have changed
    assert main([*command, "--overwrite"]) == 0
    assert read_table(here / "out.csv").columns["pred"].tolist() == [1, 2, 3, 4, 5, 5]
    assert "target" not in read_table(here / "out.csv").columns
    capsys.readouterr()


def test_images_are_given_by_their_paths(here, capsys):
    image = pytest.importorskip("PIL.Image")
    for name, pixel in (("red/1.png", (9, 0, 1)), ("blue/2.PNG", (0, 1, 9)), ("red/3.ppm", (0, 200, 3))):
        (here / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        image.new("RGB", (4, 4), pixel).save(here / "data" / name)
    assert main(["predict", "model_of_folders:colour", "data", "--out", "old.csv"]) == 0
    table = read_table(here / "old.csv")
    assert table.columns["score_red"].tolist() == [0, 9, 0]
    assert table.columns["target"].tolist() == ["blue", "red", "red"]
    (here / "v1.onnx").write_bytes(b"x")
    capsys.readouterr()
    assert main(["predict", "v1.onnx", "data", "--out", "new.csv"]) == 2
    assert "nothing says how v1.onnx wants them" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "expected a folder of texts or of images; files in it: none"),
        (["a.txt", "b.png"], "files in it: 1 of texts and 1 of images"),
        (["a.txt", "cat/b.txt"], "a.txt is beside them"),
        (["a.txt", "labels.csv"], "there is 'labels.csv'"),
    ],
)
def test_other_folders_are_refused(here, capsys, names, message):
    (here / "data").mkdir()
    for name in names:
        (here / "data" / name).parent.mkdir(exist_ok=True)
        (here / "data" / name).write_text("x")
    assert main(["predict", "model_of_folders:length", "data", "--out", "out.csv"]) == 2
    assert message in capsys.readouterr().err
