"""`predict` and `bc-compare predict` with functions as models: what is read, written, taken up and refused."""

import csv
import json
import re
import sys
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

from bc_core import ModelSettings, compare, predict
from bc_core._cli import main
from bc_core.files._files import locked
from bc_core.predictions._reading import read_table

SIZE = 1000
RNG = np.random.default_rng(0)
X = RNG.normal(size=(SIZE, 3))
IDS = [f"im{number:04d}" for number in range(SIZE)]
Y = RNG.integers(0, 3, SIZE)
REGION = RNG.choice(["eu", "us"], SIZE).tolist()
W = RNG.normal(size=(3, 3))

MODEL = """
import numpy as np
W = np.array({weights})
calls = 0
def scores(batch):
    return batch @ W
def named(batch):
    return scores(batch)
named.classes = ["cat", "dog", "eel"]
def label(batch):
    return np.array(["cat", "dog", "eel"])[scores(batch).argmax(axis=1)]
def length(batch):
    return [len(text) for text in batch]
def two(batch):
    return np.stack([batch["a"].sum(axis=1), batch["b"]], axis=1)
def dies(batch):
    global calls
    calls += 1
    if calls == 4:
        raise KeyboardInterrupt
    return scores(batch)
def wrong(batch):
    return {answer}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    # A module of its own for each test, as Python imports a name once.
    name = f"model_{abs(hash(request.node.name))}"
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    def model(function, weights=W, answer="None"):
        sys.modules.pop(name, None)
        (tmp_path / f"{name}.py").write_text(MODEL.format(weights=weights.tolist(), answer=answer))
        return f"{name}:{function}"

    return tmp_path, model


def write_data(path, **columns):
    columns = {"id": IDS, "x1": X[:, 0], "x2": X[:, 1], "x3": X[:, 2], "target": Y, "region": REGION} | columns
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(
                [columns, *zip(*(np.asarray(c).tolist() for c in columns.values()), strict=True)]
            )
    elif path.suffix == ".jsonl":
        rows = zip(*(np.asarray(column).tolist() for column in columns.values()), strict=True)
        path.write_text("".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows))
    elif path.suffix == ".npz":
        np.savez_compressed(path, **columns)
    else:
        pa = pytest.importorskip("pyarrow")
        from pyarrow import feather, parquet

        table = pa.table({name: np.asarray(column).tolist() for name, column in columns.items()})
        if path.suffix == ".parquet":
            parquet.write_table(table, path, row_group_size=300)
        else:
            feather.write_feather(table, path, chunksize=170)
    return path


@pytest.mark.parametrize("data", [".csv", ".jsonl", ".npz", ".parquet", ".arrow"])
@pytest.mark.parametrize("out", [".csv", ".jsonl", ".parquet"])
def test_every_format_gives_what_the_function_says(folder, data, out):
    path, model = folder
    found = predict(
        model("scores"),
        write_data(path / f"data{data}"),
        path / f"out{out}",
        features=["x*"],
        keep=["region"],
        batch_size=64,
    )
    assert (found.rows, found.before) == (SIZE, 0)
    table = read_table(found.path)
    assert table.texts("id").tolist() == IDS
    assert table.column("target").tolist() == Y.tolist()
    assert table.column("region").tolist() == REGION
    scores = (
        np.stack([table.column(f"score_{number}") for number in range(3)], axis=1)
        if out == ".csv"
        else table.column("scores")
    )
    np.testing.assert_array_equal(scores, np.concatenate([X[s : s + 64] @ W for s in range(0, SIZE, 64)]))
    assert sorted(file.name for file in path.iterdir() if file.name.startswith("out")) == [found.path.name]


def test_names_of_classes_texts_several_inputs_and_labels(folder):
    path, model = folder
    data = write_data(path / "data.csv")
    named = read_table(predict(model("named"), data, path / "a.csv", features=["x1", "x2", "x3"]).path)
    assert [name for name in named.columns if name.startswith("score_")] == ["score_cat", "score_dog", "score_eel"]
    labels = read_table(
        predict(
            model("named"), data, path / "b.jsonl", features=["x1", "x2", "x3"], settings=ModelSettings(labels=True)
        ).path
    )
    wanted = np.array(["cat", "dog", "eel"])[(X @ W).argmax(axis=1)].tolist()
    assert labels.column("pred").tolist() == wanted
    assert (
        read_table(predict(model("label"), data, path / "c.csv", features=["x*"]).path).column("pred").tolist()
        == wanted
    )
    texts = read_table(predict(model("length"), data, path / "d.csv", text="id").path)
    assert set(texts.column("pred").tolist()) == {6}
    npz = path / "two.npz"
    np.savez(npz, a=X, b=X[:, 0])
    both = read_table(
        predict(model("two"), npz, path / "e.csv", inputs={"a": ["a"], "b": ["b"]}, by_position=True).path
    )
    np.testing.assert_array_equal(both.column("score_0"), X.sum(axis=1))
    assert both.column("id").tolist() == list(range(SIZE))
    # The one array that is left needs no name.
    np.savez(path / "one.npz", image=X, id=np.arange(SIZE))
    assert predict(model("scores"), path / "one.npz", path / "f.csv").rows == SIZE


@pytest.mark.parametrize(
    ("known", "said", "columns"),
    [
        (["b", "a", "c"], ["a", "b", "c"], {"score_b": 0, "score_a": 1, "score_c": 2}),
        (["x", "y", "z"], ["a", "b", "c"], {"score_a": 0, "score_b": 1, "score_c": 2}),
        ([2, 0, 1], None, {"score_2": 0, "score_0": 1, "score_1": 2}),
        ([0, 1, 2], None, {"scores": slice(None)}),
        ([0, 1, 2], ["2", "1", "0"], {"score_0": 0, "score_1": 1, "score_2": 2}),
    ],
)
def test_a_model_knows_the_order_of_its_scores(tmp_path, monkeypatch, known, said, columns):
    data, out = write_data(tmp_path / "data.npz", x=X), tmp_path / "out.jsonl"

    def ask(batch):
        return batch @ W

    ask.classes = known
    monkeypatch.setitem(sys.modules, "mine_in_order", SimpleNamespace(ask=ask))
    predict("mine_in_order:ask", data, out, features=["x"], classes=said)
    table = read_table(out)
    assert [name for name in table.columns if name.startswith("score")] == list(columns)
    for name, place in columns.items():
        np.testing.assert_allclose(table.numbers(name), (X @ W)[:, place])


def run(*arguments):
    return main(["predict", *map(str, arguments)])


def test_an_interrupted_run_is_taken_up_where_it_stopped(folder, capsys):
    path, model = folder
    data, out = write_data(path / "data.csv"), path / "out.jsonl"
    arguments = (model("dies"), data, "--out", out, "--features", "x1,x2,x3", "--batch", "100")
    assert run(*arguments) == 130
    assert "goes on where it stopped" in capsys.readouterr().err
    assert not out.exists()
    # What a kill leaves beyond the last save is cut off.
    with (path / "out.jsonl.partial").open("a") as file:
        file.write('{"id": "half a li')
    assert run(*arguments) == 0
    assert "1000 rows, 300 of them by an earlier run" in capsys.readouterr().out
    table = read_table(out)
    assert table.column("id").tolist() == IDS
    np.testing.assert_allclose(table.column("scores"), X @ W, rtol=1e-12)
    assert [file.name for file in path.glob("out*")] == ["out.jsonl"]
    assert run(*arguments) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run(*arguments, "--overwrite") == 0


def test_what_changed_meanwhile_is_refused(folder, capsys):
    path, model = folder
    data, out = write_data(path / "data.csv"), path / "out.csv"

    def begun():
        assert run(model("dies"), data, "--out", out, "--features", "x*", "--batch", "100", "--overwrite") == 130
        capsys.readouterr()

    begun()
    assert run(model("scores"), data, "--out", out, "--features", "x*") == 2
    assert "300 rows of it were written with another model" in capsys.readouterr().err
    assert run(model("dies"), data, "--out", out, "--features", "x2,x1,x3") == 2
    assert "other options (features)" in capsys.readouterr().err
    data.write_text(data.read_text().replace("eu", "EU"))
    assert run(model("dies"), data, "--out", out, "--features", "x*") == 2
    assert "other data" in capsys.readouterr().err
    (path / "out.csv.partial.json").write_text("{}")
    assert run(model("dies"), data, "--out", out, "--features", "x*") == 2
    assert "damaged" in capsys.readouterr().err


def test_a_model_that_answers_otherwise_is_refused_though_nothing_else_says_so(folder, monkeypatch):
    path, _ = folder
    data, out = write_data(path / "data.csv"), path / "out.csv"
    weights, answers = [W], iter([True, False])

    class Service:
        fingerprint = "service"

        def __call__(self, batch):
            if not next(answers, True):
                raise ValueError("the service is gone")
            return batch @ weights[0]

    monkeypatch.setitem(sys.modules, "a_service", SimpleNamespace(ask=Service()))
    with pytest.raises(ValueError, match="gone"):
        predict("a_service:ask", data, out, features=["x*"], batch_size=100)
    weights[0] = W + 0.1
    with pytest.raises(ValueError, match="answers otherwise than when 100 rows"):
        predict("a_service:ask", data, out, features=["x*"], batch_size=100)
    weights[0] = W
    assert predict("a_service:ask", data, out, features=["x*"], batch_size=100).before == 100


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("batch[:-1]", "expected one label, number or row of scores for each of 256 instances"),
        ("batch * np.nan", r"NaN or infinity on .*data.csv, line 2"),
        ("np.where(batch[:, :1] == batch[7, 0], np.inf, batch)", r"NaN or infinity on .*data.csv, line 9"),
        ("(batch, batch)", "several outputs"),
        ("None", "its answer"),
        ("batch[:, :, None]", "shape"),
        ("[object()] * len(batch)", "its answer: expected integers"),
        ("1 / 0", r"ZeroDivisionError"),
        (
            "batch @ np.ones((5, 2))",
            r"does not take this batch .*given 'x1', 'x2', 'x3' as one array of shape \(256, 3\): say by --features",
        ),
        ("[[1, 2]] * (len(batch) - 1) + [[1]]", "its answer"),
    ],
)
def test_what_is_no_answer_is_one_line(folder, capsys, answer, message):
    path, model = folder
    data = write_data(path / "data.csv")
    assert run(model("wrong", answer=answer), data, "--out", path / "out.csv", "--features", "x*") == 2
    *_, said = capsys.readouterr().err.strip().split("\n")
    assert re.search(message, said), said
    assert not list(path.glob("out*"))


@pytest.mark.parametrize("out", ["out.csv", "out.jsonl", "out.parquet"])
def test_scores_of_other_classes_than_those_before_are_refused(folder, capsys, out):
    path, model = folder
    data = write_data(path / "data.csv", x1=np.arange(SIZE))
    narrower = model("wrong", answer="batch[:, :3 if batch[0, 0] < 500 else 2]")
    options = ["--out", path / out, "--features", "x*", "--batch", "250"]
    assert run(narrower, data, *options) == 2
    said = capsys.readouterr().err
    assert "it answers 2 scores on" in said
    assert "data.csv, line 502, and 3 scores on the rows before" in said
    assert not (path / out).exists()


BAD = {
    "out.txt": (["--features", "x*"], "ends in .csv, .jsonl, .parquet"),
    "a.csv": ([], "nothing says what the model is given"),
    "b.csv": (["--features", "y*"], "no column 'y*'"),
    "c.csv": (["--features", "x1", "--text", "region"], "say one of them"),
    "d.csv": (["--features", "region"], "--text region"),
    "e.csv": (["--features", "x*", "--target", "truth"], "no column 'truth'"),
    "f.csv": (["--features", "x*", "--id", "name"], "no column 'name'"),
    "g.csv": (["--features", "x*", "--keep", "target"], "has that name"),
    "h.csv": (["--features", "x*", "--classes", "cat,dog"], "3 scores an instance, and 2 classes"),
    "i.csv": (["--features", "x*", "--adapter", "nothing"], "no adapter for 'nothing'"),
    "j.csv": (["--features", "x*", "--header", "A=$NO_SUCH_VARIABLE"], "names nothing in the environment"),
    "k.csv": (["--features", "x*", "--option", "a"], "expected NAME=VALUE"),
    "l.csv": (["--features", "x*", "--import", "no_such_module"], "--import: no_such_module cannot be imported"),
}


@pytest.mark.parametrize("out", BAD)
def test_bad_input_is_one_line(folder, capsys, out):
    path, model = folder
    options, message = BAD[out]
    assert run(model("scores"), write_data(path / "data.csv"), "--out", path / out, *options) == 2
    said = capsys.readouterr().err.strip().split("\n")
    assert message in said[-1]
    assert not any("Traceback" in line for line in said)
    assert not list(path.glob(f"{out}*"))


def test_bad_models_and_data_are_one_line(folder, capsys):
    path, model = folder
    data = write_data(path / "data.csv")
    for name, content in {"a.pkl": b"", "b": b"", "c.gguf": b"", "d.joblib": b""}.items():
        (path / name).write_bytes(content)
    (path / "empty").mkdir()
    (path / "broken_module.py").write_text("1 / 0")
    for given, message in {
        "a.pkl": "a pickle, which runs whatever code is in it",
        "d.joblib": "a pickle",
        "b": "no adapter for a name without ending",
        "c.gguf": "no adapter for 'gguf'",
        "nowhere.onnx": "No such file",
        "empty": "no SavedModel",
        "no_such_module:f": "cannot be imported",
        "broken_module:f": "ZeroDivisionError",
        model("nothing"): "has no 'nothing'",
        model("W"): "is no function, but ndarray",
    }.items():
        assert run(given, data, "--out", path / "out.csv", "--features", "x*") == 2, given
        assert message in capsys.readouterr().err.strip().split("\n")[-1], given
    for name, content, message in (
        ("cut.csv", "id,x\na,1\nb\n", "line 3"),
        ("nan.csv", "id,x\na,1\nb,nan\n", "line 3"),
        ("text.csv", "id,x\na,1\nb,high\n", "line 3"),
        ("none.csv", "id,x\n", "no row"),
        ("empty.csv", "", "empty"),
        ("a.jsonl", '{"id": 1, "x": 2}\n{"id": 2}\n', "line 2"),
        ("b.npz", "no archive", "no archive"),
        ("c.parquet", "no parquet", "not a file of its kind"),
        ("d.txt", "", "expected a name that ends in"),
    ):
        (path / name).write_text(content)
        given = model("wrong", answer="batch[:, 0]")
        assert run(given, path / name, "--out", path / f"{name}.csv", "--features", "x", "--batch", "1") == 2
        assert message in capsys.readouterr().err.strip().split("\n")[-1], name
        assert not (path / f"{name}.csv").exists()


def test_pickled_arrays_are_not_loaded(folder):
    path, model = folder
    np.savez(path / "bad.npz", id=np.arange(2), x=np.array([{}, []], object))
    with pytest.raises(ValueError, match="pickled objects, which are not loaded"):
        predict(model("scores"), path / "bad.npz", path / "out.csv", features=["x"])


def test_an_archive_is_read_in_the_memory_of_a_batch(folder):
    path, model = folder
    np.savez_compressed(path / "large.npz", x=np.zeros((40_000, 100)), id=np.arange(40_000))  # 32 MB unpacked
    tracemalloc.start()
    predict(model("wrong", answer="batch[:, 0] > 1"), path / "large.npz", path / "out.csv", features=["x"])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8e6


def test_two_processes_do_not_write_one_file(folder):
    path, model = folder
    data = write_data(path / "data.csv")
    with locked(path / "out.csv.partial.lock", "there"), pytest.raises(RuntimeError, match="at work in .*out.csv"):
        predict(model("scores"), data, path / "out.csv", features=["x*"])


def test_an_adapter_of_ones_own_opens_its_files(folder, capsys):
    path, _ = folder
    (path / "limits_adapter.py").write_text(
        "def opened(model, settings):\n"
        "    limit = float(open(model).read())\n"
        "    sign = int(settings.options.get('sign', 1))\n"
        "    return lambda batch: (sign * batch[:, 0] >= limit).astype(int)\n"
    )
    (path / "a.limit").write_text("0.5")
    options = ["--adapter", "limits_adapter:opened", "--features", "x1", "--option", "sign=-1"]
    assert run(path / "a.limit", write_data(path / "data.csv"), "--out", path / "out.csv", *options) == 0
    assert "limits_adapter:opened is imported" in capsys.readouterr().err
    assert read_table(path / "out.csv").column("pred").tolist() == (-X[:, 0] >= 0.5).astype(int).tolist()


def test_written_predictions_are_compared(folder, capsys):
    path, model = folder
    data = write_data(path / "data.csv")
    for name, weights in (("old.csv", W), ("new.jsonl", W + 0.3 * W**2)):
        assert run(model("scores", weights), data, "--out", path / name, "--features", "x*") == 0
    assert main([str(path / "old.csv"), str(path / "new.jsonl"), "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out.partition("\n")[2].partition("\n")[2])
    wanted = compare(Y, (X @ W).argmax(axis=1), (X @ (W + 0.3 * W**2)).argmax(axis=1)).overlap
    assert found["negative_flips"] == wanted.h1_only_right > 0
