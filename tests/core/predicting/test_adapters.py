"""ONNX and scikit-learn, with a tiny model each, against calling it directly."""

import pickle

import numpy as np
import onnx
import onnxruntime
import pytest
import skops.io
from onnx import TensorProto, helper
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from bc_core import ModelSettings, predict
from bc_core._cli import main
from bc_core.predictions._reading import read_table

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 3)).round(3)
W = RNG.normal(size=(3, 4)).astype(np.float32)
NAMES = np.array(["cat", "dog"])
TRAINED = LogisticRegression().fit(X, NAMES[(X[:, 0] > 0).astype(int)])


@pytest.fixture
def data(tmp_path):
    lines = [f"{number},{','.join(map(str, row))}" for number, row in enumerate(X)]
    (tmp_path / "data.csv").write_text("\n".join(["id,x0,x1,x2", *lines]))
    return tmp_path / "data.csv"


def onnx_file(path, batch=None, outputs=1):
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3])]
    weights = helper.make_tensor("w", TensorProto.FLOAT, W.shape, W.ravel())
    nodes = [helper.make_node("MatMul", ["x", "w"], ["logits"]), helper.make_node("Softmax", ["logits"], ["probs"])]
    names = ["probs", "logits"][:outputs]
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 4]) for name in names]
    graph = helper.make_graph(nodes, "g", inputs, made, [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


def of_onnx(path, array):
    return onnxruntime.InferenceSession(path).run(["probs"], {"x": array.astype(np.float32)})[0]


@pytest.mark.parametrize("batch", [None, 1, 8])
def test_onnx_also_of_a_fixed_size_of_batch(tmp_path, data, batch):
    model = onnx_file(tmp_path / "m.onnx", batch)
    found = read_table(predict(model, data, tmp_path / "out.jsonl", features=["x*"], batch_size=20).path)
    wanted = of_onnx(onnx_file(tmp_path / "free.onnx"), X)
    np.testing.assert_allclose(found.column("scores"), wanted, rtol=1e-6)
    assert not (np.float32(found.column("scores")) != wanted).any() or batch is not None


def test_onnx_of_several_outputs_and_inputs_of_another_name(tmp_path, data, capsys):
    model = onnx_file(tmp_path / "m.onnx", outputs=2)
    with pytest.raises(ValueError, match="it has the outputs probs, logits; say which by --output"):
        predict(model, data, tmp_path / "out.csv", features=["x*"])
    settings = ModelSettings(output="logits")
    out = tmp_path / "out.csv"
    found = read_table(predict(model, data, out, features=["x*"], settings=settings, classes="abcd").path)
    np.testing.assert_allclose(found.column("score_d"), X @ W[:, 3], rtol=1e-4)
    with pytest.raises(ValueError, match="it has the inputs x, and --input gives y"):
        predict(model, data, out, inputs={"y": ["x*"]}, settings=settings, overwrite=True)
    with pytest.raises(ValueError, match=r"m.onnx: .*Got: 2 Expected: 3"):
        predict(model, data, out, features=["x0", "x1"], settings=settings, overwrite=True)
    (tmp_path / "bad.onnx").write_bytes(model.read_bytes()[:40])
    assert (
        main(["predict", str(tmp_path / "bad.onnx"), str(data), "--out", str(tmp_path / "b.csv"), "--features", "x*"])
        == 2
    )
    assert "no ONNX model, or a damaged one" in capsys.readouterr().err


def test_skops_gives_what_the_estimator_gives(tmp_path, data):
    skops.io.dump(TRAINED, tmp_path / "m.skops")
    found = read_table(predict(tmp_path / "m.skops", data, tmp_path / "out.csv", features=["x*"]).path)
    scores = np.stack([found.column("score_cat"), found.column("score_dog")], axis=1)
    np.testing.assert_array_equal(scores, TRAINED.predict_proba(X))
    labels = predict(
        tmp_path / "m.skops", data, tmp_path / "l.csv", features=["x*"], settings=ModelSettings(labels=True)
    )
    assert read_table(labels.path).column("pred").tolist() == TRAINED.predict(X).tolist()


def test_skops_reads_texts(tmp_path):
    texts = ["a cat", "the dog", "cat cat", "dog"]
    model = make_pipeline(CountVectorizer(), LogisticRegression()).fit(texts, [1, 5, 1, 5])
    skops.io.dump(model, tmp_path / "m.skops")
    (tmp_path / "data.csv").write_text("id,text\n" + "".join(f"{n},{text}\n" for n, text in enumerate(texts)))
    found = read_table(predict(tmp_path / "m.skops", tmp_path / "data.csv", tmp_path / "out.jsonl", text="text").path)
    # Classes that are not numbered from 0 on are named.
    np.testing.assert_array_equal(found.column("score_5"), model.predict_proba(texts)[:, 1])


class Strange(LogisticRegression):
    pass


def test_types_and_pickles_that_may_run_code_are_loaded_by_those_who_trust_them(tmp_path, data, capsys):
    strange = Strange().fit(X, (X[:, 0] > 0).astype(int))
    skops.io.dump(strange, tmp_path / "m.skops")
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(TRAINED))
    out = tmp_path / "out.csv"
    for name, told in (("m.skops", "Strange"), ("m.pkl", "a pickle")):
        options = ["predict", str(tmp_path / name), str(data), "--out", str(out), "--features", "x*", "--overwrite"]
        assert main(options) == 2
        assert told in (said := capsys.readouterr().err)
        assert "--trust" in said
        assert main([*options, "--trust"]) == 0
        assert "run" in capsys.readouterr().err


def test_features_in_another_order_than_a_model_was_trained_on_are_refused(tmp_path, data):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=["x0", "x1", "x2"])
    skops.io.dump(LogisticRegression().fit(frame, X[:, 0] > 0), tmp_path / "m.skops")
    with pytest.raises(ValueError, match="it was trained on the columns x0, x1, x2, in that order"):
        predict(tmp_path / "m.skops", data, tmp_path / "out.csv", features=["x1", "x0", "x2"])
    assert predict(tmp_path / "m.skops", data, tmp_path / "out.csv", features=["x*"]).rows == 50
